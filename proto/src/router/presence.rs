//! Presence inside a hub: joins, leaves, and their notifications.
//!
//! Every shard has complete rosters. A new member discovers the members in its own shard's roster when it joins, and
//! later members as they join. So each pair discovers each other once, in whatever order their letters cross, and no
//! per-pair state is needed.

use std::sync::Arc;

use crate::bug;
use crate::codec::{self, Announce, Goodbye, Unfit};
use crate::id::{Address, NetworkName, PeerId, SessionId};
use crate::limits::{ANNOUNCE_FLOOR_BYTES, MEMBER_BYTES};
use crate::reason::{ErrorCode, LeaveReason};
use crate::time::Now;
use crate::wire::{self, MessageKind, Template};

use super::Router;
use super::leaving::{Leaver, Parting};
use super::letter::{Announcement, Event, Farewell, Frame, Output, Stay, ToMesh, ToShard};
use super::roster::{Member, NetworkIx, Rank};
use super::session::{Membership, Reading, Session, State};

/// A change of a member.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Joined,
    Renewed,
    Left,
}

impl Router {
    pub(super) fn announced(&mut self, id: SessionId, announce: &Announce<'_>, now: Now) {
        let Some(session) = self.sessions.get(id) else {
            return bug!(self.bugs, MessageSession, "announce of {id:?}");
        };
        let (peer, claim) = (session.peer, session.claim);
        let network = announce.network.as_ref();
        let data = match codec::describe(&peer, announce.data) {
            Ok(data) => data,
            Err(unfit) => return self.refuse_data(id, unfit, MessageKind::Announce, network, now),
        };
        if !self.leaving.is_empty() {
            // A network that it has just left is left before it is joined again. And with each network that it joins it has left one
            // more, so that those that are to be left stay few.
            if let Some(ix) = self.rosters.find(network) {
                self.finish_leaving(id, Some(ix), now);
            }
            self.finish_leaving(id, None, now);
        }
        let Some(session) = self.sessions.get(id) else { return };
        let known = self.rosters.find(network);
        if known.is_none_or(|ix| !session.is_member(ix)) {
            let size = known.and_then(|ix| self.rosters.network(ix)).map_or(0, |network| network.members.len());
            if session.memberships.len() >= self.config.max_networks_per_peer {
                return self.refuse_public(id, ErrorCode::TooManyNetworks, MessageKind::Announce, network, now);
            }
            if size >= self.config.max_peers_per_network {
                return self.refuse_public(id, ErrorCode::NetworkFull, MessageKind::Announce, network, now);
            }
        }
        let discovered = Arc::new(wire::peer_discovered(&data, claim.incarnation, network, now.wall_ms));
        let had_bytes = known.and_then(|ix| session.membership_in(ix)).map_or(0, |m| m.announced_bytes);
        let bytes = (discovered.frame_len() + MEMBER_BYTES) as u32;
        if bytes > had_bytes && !self.has_room_for(session, bytes - had_bytes) {
            return self.refuse_public(id, ErrorCode::HubFull, MessageKind::Announce, network, now);
        }
        // The wish of the first announcement is valid as long as the stay.
        let stays = known.and_then(|ix| self.sessions.get(id)?.membership_in(ix)).map(|membership| membership.stay);
        let stay = stays.unwrap_or_else(|| {
            let closest = self.closest_wanted(announce.data);
            self.begin_stay(closest, now)
        });
        let name = match known.and_then(|ix| self.rosters.network(ix)) {
            Some(network) => network.name.clone(),
            None => NetworkName::new(network),
        };
        let announcement = Arc::new(Announcement { peer, network: name, claim, remote: false, stay, discovered });
        let (ix, _) = self.enter(&announcement, self.here(), now);
        self.post_to_shards(&ToShard::Joined(Arc::clone(&announcement)));
        self.post_to_mesh(|| ToMesh::Joined(Arc::clone(&announcement)));
        match (stay.closest > 0, stays.is_some()) {
            (true, false) => {
                self.become_bounded(id, ix, stay);
                self.join_circle(id, ix, now);
                self.propose_from_here(ix, peer, now);
            }
            (true, true) if announce.ack => {}
            (true, true) => self.tell_circle_again(id, ix),
            (false, again) => {
                if again && announce.ack {
                    // The client knows the roster: it asks for no second copy.
                } else {
                    self.start_reading(id, ix, stay);
                    if again {
                        self.tell_circle_again(id, ix);
                    } else {
                        self.propose_from_here(ix, peer, now);
                    }
                }
            }
        }
        if let Some(membership) = self.sessions.get_mut(id).and_then(|session| session.membership(ix)) {
            membership.announced_bytes = bytes;
            self.stats.announced_bytes += u64::from(bytes);
            self.stats.announced_bytes -= u64::from(had_bytes);
        } else {
            bug!(self.bugs, JoinState, "{peer:?} is not in {ix:?} after its announcement");
        }
        if self.config.events {
            let members = self.rosters.network(ix).map_or(0, |network| network.members.len());
            let network = announcement.network.clone();
            self.outputs.push_back(Output::Event(Event::Announced { peer, network, members }));
        }
        if announce.ack {
            self.acknowledge(id, ix, now);
        }
        if stay.closest == 0 {
            self.read_roster(id, now);
        }
    }

    /// Sends `announced`, or marks the roster that the session is still reading, which `announced` then follows.
    fn acknowledge(&mut self, id: SessionId, ix: NetworkIx, now: Now) {
        match self.sessions.get_mut(id).and_then(|session| session.membership(ix)) {
            Some(Membership { reading: Some(reading), .. }) => reading.ack = true,
            Some(_) => self.send_announced(id, ix, now),
            None => bug!(self.bugs, JoinState, "{id:?} is not in {ix:?} after its announcement"),
        }
    }

    /// Tells a session that it has discovered the members of a network.
    fn send_announced(&mut self, id: SessionId, ix: NetworkIx, now: Now) {
        let membership = self.sessions.get(id).and_then(|session| Some((session.peer, session.membership_in(ix)?)));
        let (Some((peer, membership)), Some(network)) = (membership, self.rosters.network(ix)) else {
            return bug!(self.bugs, RosterCursor, "{id:?} in {ix:?}");
        };
        let acquaintances = membership.circle.as_deref().map_or(0, |circle| circle.told as usize);
        // A bounded member knows its circle alone. Others know all but themselves and the bounded ones, and their circle.
        let unbounded = network.members.len() - network.bounded as usize;
        let count = acquaintances + if membership.stay.closest > 0 { 0 } else { unbounded.saturating_sub(1) };
        let frame = wire::announced(&mut self.arena, &peer, count, network.name.as_str(), now.wall_ms);
        self.send(id, Frame::Arena(frame), MessageKind::Announced);
    }

    /// Whether the budget has room for this many more bytes of a session.
    fn has_room_for(&self, session: &Session, more: u32) -> bool {
        self.stats.announced_bytes + u64::from(more) <= self.config.announce_budget_bytes as u64
            || session.announced_bytes() + more as usize <= ANNOUNCE_FLOOR_BYTES
    }

    pub(super) fn said_goodbye(&mut self, id: SessionId, goodbye: &Goodbye<'_>, now: Now) {
        if let Err(unfit) = codec::check_public(goodbye.data) {
            let network = goodbye.network.as_deref().unwrap_or(NetworkName::GLOBAL);
            return self.refuse_data(id, unfit, MessageKind::Goodbye, network, now);
        }
        let only = goodbye.network.as_deref().map(|name| self.rosters.find(name));
        let Some(session) = self.sessions.get_mut(id) else {
            return bug!(self.bugs, MessageSession, "goodbye of {id:?}");
        };
        let (peer, claim) = (session.peer, session.claim);
        let (left, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut session.memberships)
            .into_iter()
            .partition(|membership| only.is_none_or(|only| only == Some(membership.network)));
        session.memberships = kept.into();
        let leaver = Leaver { peer, claim, how: Parting::Goodbye(goodbye.data.into()) };
        self.leave_all(id, leaver, left, now);
    }

    /// Tells a session nothing more of a network. Its members are told by [`Self::leave`].
    pub(super) fn detach(&mut self, id: SessionId, peer: PeerId, membership: &Membership) {
        let ix = membership.network;
        self.stats.announced_bytes -= u64::from(membership.announced_bytes);
        if let Some(circle) = &membership.circle {
            self.dissolve(id, ix, circle);
        }
        let Some(network) = self.rosters.network_mut(ix) else {
            return bug!(self.bugs, LeaveNetwork, "{peer:?} leaves {ix:?}");
        };
        network.leavers += 1;
        let mut moved = None;
        let local = membership.local as usize;
        if membership.stay.closest > 0 {
            network.bounded_locals -= 1;
        } else if network.locals.get(local) == Some(&id) {
            network.locals.swap_remove(local);
            moved = network.locals.get(local).copied();
        } else {
            bug!(self.bugs, LeaveLocal, "{peer:?}, {id:?}, leaves place {local} of {ix:?}");
        }
        if let Some(moved) = moved {
            match self.sessions.get_mut(moved).and_then(|session| session.membership(ix)) {
                Some(membership) => membership.local = local as u32,
                None => bug!(self.bugs, LeaveLocal, "{moved:?} is listed in {ix:?} and is not there"),
            }
        }
    }

    /// Strikes a session that has left a network off its roster, on all shards.
    pub(super) fn leave(&mut self, leaver: &Leaver, ix: NetworkIx, now: Now) {
        let Leaver { peer, claim, ref how } = *leaver;
        let Some(network) = self.rosters.network_mut(ix) else {
            return bug!(self.bugs, LeaveNetwork, "{peer:?} has left {ix:?}");
        };
        network.leavers -= 1;
        let name = network.name.clone();
        let (frame, kind) = (Arc::new(how.frame(&peer, claim.incarnation, name.as_str(), now)), how.kind());
        let farewell = Arc::new(Farewell { peer, network: name, claim, frame, kind });
        // First, because replacements are introduced after the leave.
        self.post_to_shards(&ToShard::Left(Arc::clone(&farewell)));
        if kind == MessageKind::Goodbye {
            // The mesh receives one letter for the end of a session, not one per network.
            self.post_to_mesh(|| ToMesh::Left(Arc::clone(&farewell)));
        }
        self.strike(ix, &farewell, now);
    }

    pub(super) fn joined_elsewhere(&mut self, announcement: &Arc<Announcement>, now: Now) {
        let place = if announcement.remote {
            Address::Mesh
        } else {
            Address::Shard(crate::ShardId::home(&announcement.peer, self.config.shards, self.config.keys))
        };
        let (ix, new) = self.enter(announcement, place, now);
        // A local bounded member is proposed by its own shard.
        if new && (announcement.remote || !announcement.is_bounded()) {
            self.propose_from_here(ix, announcement.peer, now);
        }
    }

    pub(super) fn left_elsewhere(&mut self, farewell: &Arc<Farewell>, now: Now) {
        // A late leave may find its network gone: the peer had moved, and left with its later claim.
        if let Some(ix) = self.rosters.find(farewell.network.as_str()) {
            self.strike(ix, farewell, now);
        }
    }

    /// Adds an announcement to the roster, and notifies the members on this shard.
    ///
    /// If a peer is briefly at two hubs, the greater claim counts, in whatever order the two arrive. The smaller one is
    /// kept until it ends: the greater may end first, and the letter of that end may arrive later, from another shard.
    /// A peer that moves is announced as left and discovered when its join arrives; its own leave, arriving later, has
    /// the old claim and is ignored. The same is done for a peer that left and returned during a partition, if bounded
    /// members are involved.
    ///
    /// Returns whether it is new in the roster.
    fn enter(&mut self, announcement: &Arc<Announcement>, place: Address, now: Now) -> (NetworkIx, bool) {
        let ix = self.rosters.find_or_create(&announcement.network);
        let (peer, claim) = (announcement.peer, announcement.claim);
        let held = self.rosters.network(ix).and_then(|network| network.members.get(&peer));
        let met = |member: &Member| member.is_bounded() || announcement.is_bounded() || member.knowers.is_some();
        let stays = |member: &Member| member.announcement.stay == announcement.stay || !met(member);
        match held.map(|member| (member.announcement.claim, stays(member))) {
            Some((held, _)) if held > claim => {
                let hidden = self.hidden.entry((ix, peer)).or_insert_with(|| Arc::clone(announcement));
                if hidden.claim <= claim {
                    *hidden = Arc::clone(announcement);
                }
                return (ix, false);
            }
            Some((held, stays)) if held < claim || !stays => {
                let network = announcement.network.clone();
                let moved =
                    wire::peer_disconnected(&peer, held.incarnation, LeaveReason::Moved, network.as_str(), now.wall_ms);
                let kind = MessageKind::PeerDisconnected;
                let farewell = Arc::new(Farewell { peer, network, claim: held, frame: Arc::new(moved), kind });
                self.strike_member(ix, &farewell, now);
            }
            _ => {}
        }
        let Some(new) = self.rosters.enter(ix, peer, Member::new(place, Arc::clone(announcement))) else {
            bug!(self.bugs, EnterNetwork, "{peer:?} enters {ix:?}");
            return (ix, false);
        };
        let change = if new { Change::Joined } else { Change::Renewed };
        let kind = MessageKind::PeerDiscovered;
        let frame = &if new { Arc::clone(&announcement.discovered) } else { Arc::new(announcement.discovered.again()) };
        if !announcement.is_bounded() {
            self.tell(ix, peer, place, change, frame, kind);
        }
        let knowers = self.rosters.network(ix).and_then(|network| network.members.get(&peer)?.knowers.clone());
        if let Some(knowers) = knowers {
            self.tell_knowers(ix, &knowers, peer, change, (frame, kind), now);
        }
        (ix, new)
    }

    /// Removes a member from the roster, and notifies the members on this shard.
    fn strike(&mut self, ix: NetworkIx, farewell: &Arc<Farewell>, now: Now) {
        self.strike_member(ix, farewell, now);
        let at = (ix, farewell.peer);
        let left = self.rosters.network(ix).and_then(|network| network.members.get(&farewell.peer));
        let left = left.map(|member| member.announcement.claim);
        if left == Some(farewell.claim) {
            bug!(self.bugs, RosterEntryStays, "{:?} in {ix:?}", farewell.peer);
        }
        if self.hidden.get(&at).is_some_and(|hidden| hidden.claim == farewell.claim) {
            self.hidden.remove(&at);
        } else if left.is_none()
            && let Some(hidden) = self.hidden.remove(&at)
        {
            self.joined_elsewhere(&hidden, now);
        }
        self.rosters.tidy(ix);
    }

    fn strike_member(&mut self, ix: NetworkIx, farewell: &Arc<Farewell>, now: Now) {
        let (peer, frame, kind) = (farewell.peer, &farewell.frame, farewell.kind);
        if let Some(member) = self.rosters.strike(ix, &peer, farewell.claim) {
            if !member.is_bounded() {
                self.tell(ix, peer, member.place, Change::Left, frame, kind);
            }
            if let Some(knowers) = member.knowers {
                self.tell_knowers(ix, &knowers, peer, Change::Left, (frame, kind), now);
            }
        }
    }

    fn tell(
        &mut self,
        ix: NetworkIx,
        subject: PeerId,
        place: Address,
        change: Change,
        frame: &Arc<Template>,
        kind: MessageKind,
    ) {
        let rank = Rank::of(subject, place);
        let Some(network) = self.rosters.network(ix) else {
            return bug!(self.bugs, TellNetwork, "of {subject:?} in {ix:?}");
        };
        for &id in &network.locals {
            let Some(session) = self.sessions.get_mut(id) else {
                bug!(self.bugs, TellSession, "{id:?} in {ix:?}, of {subject:?}");
                continue;
            };
            if session.peer == subject || session.state != State::Live {
                continue;
            }
            let Some(membership) = session.membership(ix) else {
                bug!(self.bugs, TellSession, "{id:?} is not in {ix:?}, of {subject:?}");
                continue;
            };
            let reading = membership.reading.as_mut();
            if reading.is_none_or(|reading| concerns(reading, rank, &subject, change)) {
                let frame = Frame::Template(Arc::clone(frame));
                self.outputs.push_back(Output::Send { session: id, frame, kind, origin: None, from: None });
            }
        }
    }

    /// Makes a session a bounded member.
    fn become_bounded(&mut self, id: SessionId, ix: NetworkIx, stay: Stay) {
        let (Some(network), Some(session)) = (self.rosters.network_mut(ix), self.sessions.get_mut(id)) else {
            return bug!(self.bugs, JoinState, "{id:?} in {ix:?}");
        };
        network.bounded_locals += 1;
        let circle = Some(Box::default());
        session.memberships.push(Membership {
            network: ix,
            stay,
            announced_bytes: 0,
            local: u32::MAX,
            reading: None,
            circle,
        });
    }

    /// Begins to send a peer that has just announced itself the whole roster.
    fn start_reading(&mut self, id: SessionId, ix: NetworkIx, stay: Stay) {
        let (Some(network), Some(session)) = (self.rosters.network_mut(ix), self.sessions.get_mut(id)) else {
            return bug!(self.bugs, JoinState, "{id:?} in {ix:?}");
        };
        let last = network.members.last_key_value().map(|(peer, _)| Rank::of(*peer, Address::Mesh));
        match session.membership(ix) {
            // After an interrupted pass its part is known; after a finished one everybody is.
            Some(membership) => {
                membership.reading = Some(Box::new(match membership.reading.take() {
                    Some(reading) => reading.interrupted(),
                    None => Reading { known: last, ..Reading::default() },
                }));
            }
            None => {
                let local = network.locals.len() as u32;
                network.locals.push(id);
                let reading = Some(Box::default());
                session.memberships.push(Membership {
                    network: ix,
                    stay,
                    announced_bytes: 0,
                    local,
                    reading,
                    circle: None,
                });
            }
        }
    }

    /// Sends a new member the next chunk of its networks' rosters.
    pub(super) fn read_roster(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let peer = session.peer;
        let Some(membership) = session.memberships.iter_mut().find(|m| m.reading.is_some()) else {
            // It has left the network whose roster it was reading.
            return self.outputs.push_back(Output::Backlog { session: id, more: false });
        };
        let (Some(reading), Some(network)) = (&mut membership.reading, self.rosters.network(membership.network)) else {
            return bug!(self.bugs, RosterCursor, "{peer:?} in {:?}", membership.network);
        };
        let outputs = &mut self.outputs;
        let early = &mut reading.early;
        let silent = session.state != State::Live;
        let reached = network.read(reading.after, self.config.tuning.roster_chunk, |rank, member| {
            let subject = rank.peer();
            if member.is_bounded() {
                return;
            }
            if subject != peer && !early.remove(&subject) && !silent {
                outputs.push_back(member.discovered_by(id));
            }
        });
        match reached {
            Some(rank) => reading.after = Some(rank),
            None => {
                let ix = membership.network;
                if membership.reading.take().is_some_and(|reading| reading.ack) {
                    self.send_announced(id, ix, now);
                }
            }
        }
        let Some(session) = self.sessions.get(id) else { return };
        let more = session.memberships.iter().any(|m| m.reading.is_some());
        self.outputs.push_back(Output::Backlog { session: id, more });
    }

    /// Announces a member to a new member before its turn, because a message of that member follows.
    pub(super) fn introduce(&mut self, id: SessionId, ix: NetworkIx, subject: &PeerId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        if session.peer == *subject {
            return;
        }
        let Some(reading) = session.membership(ix).and_then(|m| m.reading.as_mut()) else { return };
        // In `global` it may be in no network.
        let Some(member) = self.rosters.network(ix).and_then(|network| network.members.get(subject)) else { return };
        if !member.is_bounded() && !reading.knows(Rank::of(*subject, member.place), subject) {
            reading.early.insert(*subject);
            self.outputs.push_back(member.discovered_by(id));
        }
    }

    pub(super) fn refuse_public(&mut self, id: SessionId, code: ErrorCode, kind: MessageKind, network: &str, now: Now) {
        self.refuse_saying(id, code, code.explain(), kind, network, now);
    }

    fn refuse_data(&mut self, id: SessionId, unfit: Unfit, kind: MessageKind, network: &str, now: Now) {
        self.refuse_saying(id, unfit.code(), unfit.explain(), kind, network, now);
    }

    pub(super) fn refuse_saying(
        &mut self,
        id: SessionId,
        code: ErrorCode,
        message: &'static str,
        kind: MessageKind,
        network: &str,
        now: Now,
    ) {
        let report =
            wire::ErrorReport { code, message, in_reply_to: Some(kind.label()), target: None, id: None, network };
        self.send_error(id, &report, now);
    }
}

/// Whether a new member that is still reading the roster is notified of this change at once. If not, the change is
/// covered by the member's turn.
fn concerns(reading: &mut Reading, rank: Rank, subject: &PeerId, change: Change) -> bool {
    match change {
        Change::Left => {
            let knew = reading.knows(rank, subject);
            reading.early.remove(subject);
            reading.known_early.remove(subject);
            knew
        }
        Change::Joined | Change::Renewed if !reading.awaits(rank, subject) => true,
        Change::Joined | Change::Renewed => {
            // Known from an earlier pass: it will be notified of the next leave, so also of this.
            let known = reading.knows(rank, subject);
            if known {
                reading.early.insert(*subject);
            }
            known
        }
    }
}
