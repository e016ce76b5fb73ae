//! `announce`: a peer joins a network, or updates its data there.

use std::sync::Arc;

use crate::bug;
use crate::codec::{self, Announce};
use crate::id::{NetworkName, SessionId};
use crate::limits::{ANNOUNCE_FLOOR_BYTES, MEMBER_BYTES};
use crate::reason::ErrorCode;
use crate::time::Now;
use crate::wire::{self, MessageKind};

use super::Router;
use super::letter::{Announcement, Frame, Output, PeerEvent, Stay, ToMesh, ToShard};
use super::roster::NetworkIx;
use super::session::{Membership, Session};

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
        let data = match codec::describe(&peer, announce.data) {
            Ok(data) => data,
            Err(unfit) => return self.refuse_data(id, unfit, MessageKind::Announce, network, now),
        };
        self.leave_before_joining(id, network, now);
        let Some(session) = self.sessions.get(id) else {
            return bug!(self.bugs, MessageSession, "announcement of {id:?}");
        };
        let known = self.rosters.find(network);
        let joined = known.and_then(|ix| session.membership(ix));
        if joined.is_none()
            && let Err(code) = self.may_join(session, known)
        {
            return self.refuse_public(id, code, MessageKind::Announce, network, now);
        }
        let discovered = Arc::new(wire::peer_discovered(&data, claim.incarnation, network, now.wall_ms));
        let had_bytes = joined.map_or(0, Membership::announced_bytes);
        let bytes = (discovered.frame_len() + MEMBER_BYTES) as u32;
        if bytes > had_bytes && !self.has_room_for(session, bytes - had_bytes) {
            return self.refuse_public(id, ErrorCode::HubFull, MessageKind::Announce, network, now);
        }
        // The discovery mode of the first announcement is valid for the whole stay.
        let renewed = joined.map(Membership::stay);
        let stay = renewed.unwrap_or_else(|| self.begin_stay(self.discovery_wanted(announce.data), now));
        let name = match known.and_then(|ix| self.rosters.network(ix)) {
            Some(network) => network.name().clone(),
            None => NetworkName::new(network),
        };
        let announcement = Arc::new(Announcement { peer, network: name, claim, remote: false, stay, discovered });
        let (ix, _) = self.enter(&announcement, self.here(), now);
        self.post_to_shards(&ToShard::Joined(Arc::clone(&announcement)));
        self.post_to_mesh(|| ToMesh::Joined(Arc::clone(&announcement)));
        match renewed {
            None => self.join(id, ix, stay, now),
            // The client knows the roster, and does not request a second copy.
            Some(_) if announce.ack => {}
            Some(_) => self.renew(id, ix),
        }
        self.count_announced(id, ix, bytes);
        self.announced_event(&announcement, ix);
        if announce.ack {
            self.acknowledge(id, ix, now);
        }
        if !stay.discovery.is_bounded() {
            self.read_roster(id, now);
        }
    }

    /// Sends `announced` now, or after the last member of the roster that the session is still reading.
    fn acknowledge(&mut self, id: SessionId, ix: NetworkIx, now: Now) {
        match self.sessions.membership_mut(id, ix) {
            Some(membership) => match membership.cursor() {
                Some(cursor) => cursor.acknowledge(),
                None => self.send_announced(id, ix, now),
            },
            None => bug!(self.bugs, JoinState, "{id:?} is not in {ix:?} after its announcement"),
        }
    }

    /// Sends `announced` to a session: the number of members of a network that it has discovered.
    pub(super) fn send_announced(&mut self, id: SessionId, ix: NetworkIx, now: Now) {
        let membership = self.sessions.get(id).and_then(|session| Some((session.peer(), session.membership(ix)?)));
        let (Some((peer, membership)), Some(network)) = (membership, self.rosters.network(ix)) else {
            return bug!(self.bugs, RosterCursor, "{id:?} in {ix:?}");
        };
        let acquaintances = membership.circle().map_or(0, |circle| circle.announced() as usize);
        // A bounded member knows only its circle. Others know their circle and all unbounded members except themselves.
        let others = if membership.is_bounded() { 0 } else { network.unbounded().saturating_sub(1) };
        let (count, name) = (acquaintances + others, network.name().as_str());
        let frame = wire::announced(&mut self.arena, &peer, count, name, now.wall_ms);
        self.send(id, Frame::Arena(frame), MessageKind::Announced);
    }

    /// Finishes leaves before a join: the leave of this network, if the session joins it again, and one other, so that
    /// few unfinished leaves accumulate.
    fn leave_before_joining(&mut self, id: SessionId, network: &str, now: Now) {
        if self.leaving.is_empty() {
            return;
        }
        if let Some(ix) = self.rosters.find(network) {
            self.finish_leaving(id, Some(ix), now);
        }
        self.finish_leaving(id, None, now);
    }

    /// Whether a session may join another network. `known` is the network, if it exists.
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

    /// Whether the budget has room for this many more bytes of a session.
    fn has_room_for(&self, session: &Session, more: u32) -> bool {
        self.stats.announced_bytes + u64::from(more) <= self.config.announce_budget_bytes as u64
            || session.announced_bytes() + more as usize <= ANNOUNCE_FLOOR_BYTES
    }

    /// Makes a session a member of a network whose roster its peer has entered, and introduces it.
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

    /// Handles a member's repeated announcement: it receives the roster and its circle again.
    fn renew(&mut self, id: SessionId, ix: NetworkIx) {
        let (Some(network), Some(membership)) = (self.rosters.network(ix), self.sessions.membership_mut(id, ix)) else {
            return bug!(self.bugs, JoinState, "{id:?} in {ix:?}");
        };
        if !membership.is_bounded() {
            membership.read_again(network.last_rank());
        }
        self.announce_circle_again(id, ix);
    }

    /// Counts the bytes of an announcement in place of those of the previous one.
    fn count_announced(&mut self, id: SessionId, ix: NetworkIx, bytes: u32) {
        match self.sessions.membership_mut(id, ix) {
            Some(membership) => {
                self.stats.announced_bytes += u64::from(bytes);
                self.stats.announced_bytes -= u64::from(membership.announced_bytes());
                membership.set_announced_bytes(bytes);
            }
            None => bug!(self.bugs, JoinState, "{id:?} is not in {ix:?} after its announcement"),
        }
    }

    fn announced_event(&mut self, announcement: &Announcement, ix: NetworkIx) {
        if self.config.events {
            let members = self.rosters.network(ix).map_or(0, |network| network.len());
            let network = announcement.network.clone();
            self.outputs.push_back(Output::Event(PeerEvent::Announced { peer: announcement.peer, network, members }));
        }
    }
}
