//! Presence inside a hub. This file processes joins and leaves of members, and notifies other members.
//!
//! Every shard has complete rosters. An unbounded member discovers the unbounded members in its own shard's roster when
//! it joins, and later members as they join. So each pair of unbounded members discovers each other once, in whatever
//! order the letters about them arrive. This needs no state for each pair.

use std::sync::Arc;

use crate::bug;
use crate::claim::Claim;
use crate::id::{PeerId, ShardId};
use crate::reason::LeaveReason;
use crate::route::Address;
use crate::time::Now;
use crate::wire::{self, MessageKind, Template};

use super::Router;
use super::cursor::MemberEvent;
use super::letter::{Announcement, Frame, Leave, Output};
use super::network::Rank;
use super::roster::{MemberArrival, NetworkIx, StillEntered};

impl Router {
    /// Processes the announcement of a peer of another shard or hub.
    pub(super) fn member_joined(&mut self, announcement: &Arc<Announcement>, now: Now) {
        let address = if announcement.remote {
            Address::Mesh
        } else {
            Address::Shard(ShardId::home(&announcement.peer, self.config.shards, self.config.keys))
        };
        let (ix, new) = self.enter(announcement, address, now);
        // A bounded member of another shard is proposed when the meeting of its home shard arrives.
        if new && (announcement.remote || !announcement.is_bounded()) {
            self.propose_from_here(ix, announcement.peer, now);
        }
    }

    /// Processes the leave of a peer of another shard or hub.
    pub(super) fn member_left(&mut self, leave: &Arc<Leave>, now: Now) {
        // The network of a late leave may no longer exist, if the peer has moved to another hub and has left the
        // network there, too.
        if let Some(ix) = self.rosters.find(leave.network.as_str()) {
            self.member_left_in(ix, leave, now);
        }
    }

    /// Adds an announcement to the roster, unless a greater claim wins, and notifies the members on this shard. Returns
    /// whether the member is new in the roster.
    ///
    /// [`Rosters::arrive`](super::roster::Rosters::arrive) decides between claims. When the join of a peer that has
    /// moved arrives, the members receive a leave and a discovery of the peer. If the leave with the old claim arrives
    /// later, it is ignored.
    pub(super) fn enter(&mut self, announcement: &Arc<Announcement>, address: Address, now: Now) -> (NetworkIx, bool) {
        let ix = self.rosters.find_or_create(&announcement.network);
        let peer = announcement.peer;
        match self.rosters.arrive(ix, announcement) {
            MemberArrival::Hidden => return (ix, false),
            MemberArrival::Replaces(claim) => self.strike_moved(ix, announcement, claim, now),
            MemberArrival::Enters => {}
        }
        let Some(new) = self.rosters.enter(ix, address, Arc::clone(announcement)) else {
            bug!(self.bugs, EnterNetwork, "{peer:?} enters {ix:?}");
            return (ix, false);
        };
        let event = if new { MemberEvent::Joined } else { MemberEvent::Renewed };
        let kind = MessageKind::PeerDiscovered;
        let frame = &if new { Arc::clone(&announcement.discovered) } else { Arc::new(announcement.discovered.again()) };
        self.notify_locals(ix, Rank::of(peer, address), announcement.is_bounded(), event, frame, kind);
        if !new {
            let knowers = self.rosters.member(ix, &peer).map(|member| member.knowers().to_vec()).unwrap_or_default();
            self.notify_knowers(ix, &knowers, peer, event, (frame, kind), now);
        }
        (ix, new)
    }

    /// Removes the member whose claim or stay an announcement replaces.
    fn strike_moved(&mut self, ix: NetworkIx, announcement: &Announcement, claim: Claim, now: Now) {
        let (peer, network) = (announcement.peer, announcement.network.clone());
        let session = claim.incarnation;
        let moved = wire::peer_disconnected(&peer, session, LeaveReason::Moved, network.as_str(), now.wall_ms);
        let (frame, kind) = (Arc::new(moved), MessageKind::PeerDisconnected);
        self.strike(ix, &Leave { peer, network, claim, frame, kind }, now);
    }

    /// Removes a member from the roster if its membership has the claim of the leave, and notifies the members on this
    /// shard. If this claim had hidden a smaller claim, the hidden announcement is entered.
    pub(super) fn member_left_in(&mut self, ix: NetworkIx, leave: &Arc<Leave>, now: Now) {
        self.strike(ix, leave, now);
        match self.rosters.reveal(ix, leave.peer, leave.claim) {
            Ok(None) => {}
            Ok(Some(announcement)) => self.member_joined(&announcement, now),
            Err(StillEntered) => bug!(self.bugs, RosterEntryStays, "{:?} in {ix:?}", leave.peer),
        }
        self.rosters.tidy(ix, &mut self.bugs);
    }

    fn strike(&mut self, ix: NetworkIx, leave: &Leave, now: Now) {
        let (peer, frame, kind) = (leave.peer, &leave.frame, leave.kind);
        if let Some(member) = self.rosters.strike(ix, &peer, leave.claim) {
            let (subject, is_bounded) = (Rank::of(peer, member.address()), member.is_bounded());
            self.notify_locals(ix, subject, is_bounded, MemberEvent::Left, frame, kind);
            self.notify_knowers(ix, member.knowers(), peer, MemberEvent::Left, (frame, kind), now);
        }
    }

    /// Notifies unbounded members and observers on this shard of a change of a member. If the changed member is
    /// bounded, only observers are notified.
    fn notify_locals(
        &mut self,
        ix: NetworkIx,
        subject: Rank,
        is_bounded: bool,
        event: MemberEvent,
        frame: &Arc<Template>,
        kind: MessageKind,
    ) {
        let peer: PeerId = subject.peer();
        let Some(network) = self.rosters.network(ix) else {
            return bug!(self.bugs, TellNetwork, "of {peer:?} in {ix:?}");
        };
        let members = if is_bounded { &[] } else { network.locals() };
        for &id in members.iter().chain(network.observers()) {
            let Some(session) = self.sessions.get_mut(id) else {
                bug!(self.bugs, TellSession, "{id:?} in {ix:?}, of {peer:?}");
                continue;
            };
            if session.peer() == peer || !session.is_open() {
                continue;
            }
            let Some(membership) = session.membership_mut(ix) else {
                bug!(self.bugs, TellSession, "{id:?} is not in {ix:?}, of {peer:?}");
                continue;
            };
            if membership.cursor().is_none_or(|cursor| cursor.notify(subject, &peer, event)) {
                let frame = Frame::Template(Arc::clone(frame));
                self.outputs.push_back(Output::Send { session: id, frame, kind, origin: None, from: None });
            }
        }
    }
}
