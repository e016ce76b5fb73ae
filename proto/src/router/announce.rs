//! Processes `announce`, with which a peer joins a network or updates its data there.

use std::sync::Arc;

use crate::budget::{BudgetItem, Exceeded};
use crate::bug;
use crate::codec::{self, Announce};
use crate::id::{NetworkName, PeerId, SessionId};
use crate::limits::{ANNOUNCE_FLOOR_BYTES, MEMBER_BYTES};
use crate::lower;
use crate::reason::ErrorCode;
use crate::time::Now;
use crate::wire::{self, MessageKind};

use super::letter::{Announcement, Frame, Output, PeerEvent, Stay, ToMesh, ToShard};
use super::message::refusal;
use super::roster::NetworkIx;
use super::session::{Membership, Session};
use super::{Discovery, Router};

impl Router {
    /// Processes `announce`.
    pub(super) fn announced(&mut self, id: SessionId, announce: &Announce<'_>, now: Now) {
        let Some(session) = self.sessions.get(id) else {
            return bug!(self.bugs, MessageSession, "announce of {id:?}");
        };
        let (peer, claim) = (session.peer(), session.claim());
        let network = announce.network.as_ref();
        if self.exclusions.has_member(&peer, network, now.at) {
            return self.refuse_public(id, ErrorCode::Kicked, MessageKind::Announce, network, now);
        }
        let rights = session.rights(network);
        let observes =
            self.rosters.find(network).and_then(|ix| session.membership(ix)).is_some_and(Membership::observes);
        if observes || rights.observe && !rights.join {
            return self.observe(id, announce, now);
        }
        if !rights.join {
            return self.refuse_public(id, ErrorCode::Forbidden, MessageKind::Announce, network, now);
        }
        let data = match codec::describe(&peer, announce.data) {
            Ok(data) => data,
            Err(unfit) => return self.refuse_data(id, unfit, MessageKind::Announce, network, now),
        };
        self.leave_before_joining(id, network, now);
        let Some(session) = self.sessions.get(id) else {
            return bug!(self.bugs, MessageSession, "announcement of {id:?}");
        };
        let existing_ix = self.rosters.find(network);
        let membership = existing_ix.and_then(|ix| session.membership(ix));
        if membership.is_none()
            && let Err(code) = self.may_join(session, existing_ix)
        {
            return self.refuse_public(id, code, MessageKind::Announce, network, now);
        }
        let discovered = Arc::new(wire::peer_discovered(&data, claim.incarnation, network, now.wall_ms));
        let had_bytes = membership.map_or(0, Membership::announced_bytes);
        let bytes = (discovered.frame_len() + MEMBER_BYTES) as u32;
        if bytes > had_bytes && !self.has_room_for(session, bytes - had_bytes) {
            return self.refuse_public(id, ErrorCode::HubFull, MessageKind::Announce, network, now);
        }
        // The discovery mode of the first announcement is valid for the whole stay.
        let current_stay = membership.map(Membership::stay);
        let discovery = current_stay.map_or_else(|| self.discovery_wanted(announce.data), |stay| stay.discovery);
        let events = self.receivers(existing_ix, peer, discovery) * discovered.frame_len() as u64;
        if let Err(exceeded) = self.take_events(id, existing_ix.filter(|_| current_stay.is_some()), events, now) {
            let refusal = refusal(&exceeded, MessageKind::Announce, Some(network));
            return self.refuse_exceeding(id, &refusal, &exceeded, now);
        }
        let stay = current_stay.unwrap_or_else(|| self.begin_stay(discovery, now));
        let name = match existing_ix.and_then(|ix| self.rosters.network(ix)) {
            Some(network) => network.name().clone(),
            None => NetworkName::new(network),
        };
        let announcement = Arc::new(Announcement { peer, network: name, claim, remote: false, stay, discovered });
        let (ix, _) = self.enter(&announcement, self.here(), now);
        if current_stay.is_none() {
            let Some(network) = self.rosters.network_mut(ix) else {
                return bug!(self.bugs, JoinState, "{peer:?} has entered {ix:?}");
            };
            network.usage_mut().spend(BudgetItem::Events, events, &self.config.network_budget, now.at);
        }
        self.post_to_shards(&ToShard::Joined(Arc::clone(&announcement)));
        self.post_to_mesh(|| ToMesh::Joined(Arc::clone(&announcement)));
        match current_stay {
            None => self.join(id, ix, stay, now),
            // A repeated announcement with `ack` requests only `announced`, not the roster again.
            Some(_) if announce.ack => {}
            Some(_) => self.renew(id, ix),
        }
        self.count_announced(id, ix, bytes);
        self.announced_event(id, &announcement, ix);
        if announce.ack {
            self.send_or_defer_announced(id, ix, now);
        }
        if !stay.discovery.is_bounded() {
            self.send_roster_chunk(id, now);
        }
    }

    /// Sends `announced` to a session. If the session is still receiving the roster, `announced` is sent after the last
    /// member.
    pub(super) fn send_or_defer_announced(&mut self, id: SessionId, ix: NetworkIx, now: Now) {
        match self.sessions.membership_mut(id, ix) {
            Some(membership) => match membership.cursor() {
                Some(cursor) => cursor.want_ack(),
                None => self.send_announced(id, ix, now),
            },
            None => bug!(self.bugs, JoinState, "{id:?} is not in {ix:?} after its announcement"),
        }
    }

    /// Sends `announced` to a session, with the number of members of a network that the session has discovered.
    pub(super) fn send_announced(&mut self, id: SessionId, ix: NetworkIx, now: Now) {
        let membership = self.sessions.get(id).and_then(|session| Some((session.peer(), session.membership(ix)?)));
        let (Some((peer, membership)), Some(network)) = (membership, self.rosters.network(ix)) else {
            return bug!(self.bugs, RosterCursor, "{id:?} in {ix:?}");
        };
        let acquaintances = membership.circle().map_or(0, |circle| circle.announced() as usize);
        // A bounded member knows only its circle. An unbounded member knows its circle and all other unbounded members.
        let others = if membership.observes() {
            network.len() - usize::from(network.member(&peer).is_some())
        } else if membership.is_bounded() {
            0
        } else {
            network.unbounded().saturating_sub(1)
        };
        let (count, name) = (acquaintances + others, network.name().as_str());
        let frame = wire::announced(&mut self.arena, &peer, count, name, now.wall_ms);
        self.send(id, Frame::Arena(frame), MessageKind::Announced);
    }

    /// Finishes up to two unfinished leaves of a session before a join. The leave from the network that the session
    /// joins is finished first. So a session that joins and leaves in a loop accumulates few unfinished leaves.
    pub(super) fn leave_before_joining(&mut self, id: SessionId, network: &str, now: Now) {
        if self.leaving.is_empty() {
            return;
        }
        if let Some(ix) = self.rosters.find(network) {
            self.finish_leaving(id, Some(ix), now);
        }
        self.finish_leaving(id, None, now);
    }

    /// Whether a session may join one more network. `known` is that network, if it exists.
    fn may_join(&self, session: &Session, known: Option<NetworkIx>) -> Result<(), ErrorCode> {
        let size = known.and_then(|ix| self.rosters.network(ix)).map_or(0, |network| network.len());
        if session.memberships().len() >= self.config.max_networks_per_peer {
            Err(ErrorCode::TooManyNetworks)
        } else if size >= self.config.max_peers_per_network {
            Err(ErrorCode::NetworkFull)
        } else {
            Ok(())
        }
    }

    /// Whether the budget for announcements has room for `more` additional bytes of a session.
    pub(super) fn has_room_for(&self, session: &Session, more: u32) -> bool {
        self.stats.announced_bytes + u64::from(more) <= self.config.announce_budget_bytes as u64
            || session.announced_bytes() + more as usize <= ANNOUNCE_FLOOR_BYTES
    }

    /// Estimated number of events that an announcement of this peer causes on all hubs. The peer can be a member
    /// already, or be about to join.
    pub(super) fn receivers(&self, network: Option<NetworkIx>, peer: PeerId, discovery: Discovery) -> u64 {
        let network = network.and_then(|ix| self.rosters.network(ix));
        let knowers = network.and_then(|network| network.member(&peer)).map_or(0, |member| member.knowers().len());
        let others = match (discovery.is_bounded(), network) {
            // A bounded member and each of its picks discover each other, which is two events for each pick.
            (true, _) => 2 * (usize::from(discovery.closest()) + self.config.tuning.random_picks),
            (false, Some(network)) => network.unbounded(),
            (false, None) => 0,
        };
        (others.max(1) + knowers) as u64
    }

    /// Takes the bytes of the events that an announcement causes from the session's budget. If the session is already a
    /// member, also takes these bytes from the network's budget. A join takes nothing from the network's budget here,
    /// so messages of other members never cause the refusal of a join.
    fn take_events(&mut self, id: SessionId, renewed: Option<NetworkIx>, bytes: u64, now: Now) -> Result<(), Exceeded> {
        if let Some(ix) = renewed {
            self.take_of_network(id, ix, (BudgetItem::Events, bytes), now)?;
        }
        match self.sessions.get_mut(id) {
            Some(session) => session.usage_mut().take(BudgetItem::Events, bytes, &self.config.budget, now.at),
            None => {
                bug!(self.bugs, MessageSession, "announcement of {id:?}");
                Ok(())
            }
        }
    }

    /// Makes a session a member of a network, and introduces its peer to other members. The peer is already in the
    /// roster.
    fn join(&mut self, id: SessionId, ix: NetworkIx, stay: Stay, now: Now) {
        let (Some(network), Some(session)) = (self.rosters.network_mut(ix), self.sessions.get_mut(id)) else {
            return bug!(self.bugs, JoinState, "{id:?} in {ix:?}");
        };
        let local = network.add_local(id, stay.discovery);
        session.join(Membership::new(ix, stay, local));
        let peer = session.peer();
        if stay.discovery.is_bounded() {
            self.join_circle(id, ix, now);
        }
        self.propose_from_here(ix, peer, now);
    }

    /// Handles the repeated announcement of a session, which then receives its circle again. An unbounded session also
    /// receives the roster again.
    pub(super) fn renew(&mut self, id: SessionId, ix: NetworkIx) {
        let (Some(network), Some(membership)) = (self.rosters.network(ix), self.sessions.membership_mut(id, ix)) else {
            return bug!(self.bugs, JoinState, "{id:?} in {ix:?}");
        };
        if !membership.is_bounded() {
            membership.read_again(network.last_rank());
        }
        self.announce_circle_again(id, ix);
    }

    /// Counts the bytes of an announcement in place of the bytes of the member's previous announcement.
    pub(super) fn count_announced(&mut self, id: SessionId, ix: NetworkIx, bytes: u32) {
        match self.sessions.membership_mut(id, ix) {
            Some(membership) => {
                self.stats.announced_bytes += u64::from(bytes);
                lower!(self.bugs, self.stats.announced_bytes, u64::from(membership.announced_bytes()));
                membership.set_announced_bytes(bytes);
            }
            None => bug!(self.bugs, JoinState, "{id:?} is not in {ix:?} after its announcement"),
        }
    }

    fn announced_event(&mut self, session: SessionId, announcement: &Announcement, ix: NetworkIx) {
        if self.config.events {
            let members = self.rosters.network(ix).map_or(0, |network| network.len());
            let (peer, network) = (announcement.peer, announcement.network.clone());
            let reads = !announcement.stay.discovery.is_bounded();
            self.outputs.push_back(Output::Event(PeerEvent::Announced { session, peer, network, members, reads }));
        }
    }
}
