//! Sends the roster of a network to a new member, in chunks.

use crate::budget::BudgetItem;
use crate::bug;
use crate::id::{PeerId, SessionId};
use crate::time::Now;

use super::Router;
use super::letter::Output;
use super::network::Rank;
use super::roster::NetworkIx;

impl Router {
    /// Sends a session the next chunk of the roster that it is receiving.
    pub(super) fn send_roster_chunk(&mut self, id: SessionId, now: Now) {
        // The session may have ended since its queue had room.
        let Some(session) = self.sessions.get_mut(id) else { return };
        let (peer, open) = (session.peer(), session.is_open());
        let Some(membership) = session.receiving_roster_mut() else {
            // The session receives no roster. For example, it has left the network in the meantime.
            return self.outputs.push_back(Output::Backlog { session: id, more: false });
        };
        let (ix, observes) = (membership.network(), membership.observes());
        let (Some(cursor), Some(network)) = (membership.cursor(), self.rosters.network(ix)) else {
            return bug!(self.bugs, RosterCursor, "{peer:?} in {ix:?}");
        };
        let (outputs, mut bytes) = (&mut self.outputs, 0);
        let reached = network.read(cursor.after(), self.config.tuning.roster_chunk, |rank, member| {
            let subject = rank.peer();
            if (observes || !member.is_bounded()) && subject != peer && cursor.turn(&subject) && open {
                bytes += member.announcement().discovered.frame_len() as u64;
                outputs.push_back(member.discovered_by(id));
            }
        });
        let wants_ack = match reached {
            Some(rank) => {
                cursor.advance(rank);
                false
            }
            None => membership.finish_roster(),
        };
        let more = session.receives_roster();
        // A roster counts in the budget of the peer that receives it, because a peer can request it again and again.
        session.usage_mut().spend(BudgetItem::Events, bytes, &self.config.budget, now.at);
        if wants_ack {
            self.send_announced(id, ix, now);
        }
        self.outputs.push_back(Output::Backlog { session: id, more });
    }

    /// Announces a member to a new member before the roster reaches the member, because a signal of the member follows.
    pub(super) fn introduce(&mut self, id: SessionId, ix: NetworkIx, subject: &PeerId) {
        let Some(session) = self.sessions.get_mut(id) else {
            return bug!(self.bugs, CircleSession, "{subject:?} is introduced to {id:?}");
        };
        if session.peer() == *subject {
            return;
        }
        // Most sessions have received the whole roster, and have no cursor.
        let Some(cursor) = session.membership_mut(ix).and_then(|membership| membership.cursor()) else { return };
        // A sender that signals in `global` may be in no network, and then has no roster entry that can be announced.
        let Some(member) = self.rosters.member(ix, subject) else { return };
        if !member.is_bounded() && cursor.introduce(Rank::of(*subject, member.address()), subject) {
            self.outputs.push_back(member.discovered_by(id));
        }
    }
}
