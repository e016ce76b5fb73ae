//! Meetings that peers of this shard begin, and changes of the circles of these peers.

use std::sync::Arc;

use crate::budget::BudgetItem;
use crate::bug;
use crate::codec::{self, Discover};
use crate::id::{HubId, PeerId, PeerIncarnation, SessionId, ShardId};
use crate::limits::{MAX_CLOSEST, MAX_MEETING};
use crate::reason::{ErrorCode, LeaveReason};
use crate::route::Address;
use crate::sentences;
use crate::time::Now;
use crate::wire::{self, MessageKind, Template};

use super::circle::{Bond, Circle, Declined, Met};
use super::cursor::MemberEvent;
use super::letter::{Frame, Meeting, MeetingEnd, MeetingKind, Output, Stay, ToMesh, ToShard};
use super::meetings::Waiting;
use super::message::refusal;
use super::roster::NetworkIx;
use super::{Discovery, Router};

impl Router {
    /// The discovery mode that an announcement requests, or the hub's mode if it requests none.
    pub(super) fn discovery_wanted(&self, data: Option<&str>) -> Discovery {
        let wanted = data.and_then(codec::closest_wanted).map(|k| k.min(u64::from(MAX_CLOSEST)) as u8);
        wanted.map_or(self.config.discovery, Discovery::from_closest)
    }

    /// Begins a stay with a new number.
    pub(super) fn begin_stay(&mut self, discovery: Discovery, now: Now) -> Stay {
        self.last_stay = now.wall_ms.max(self.last_stay.saturating_add(1));
        Stay { number: self.last_stay, discovery }
    }

    /// Introduces a new member and its picks to each other. The member's announcement has already been posted to all
    /// other shards.
    pub(super) fn join_circle(&mut self, id: SessionId, ix: NetworkIx, now: Now) {
        let Some(membership) = self.sessions.membership(id, ix) else {
            return bug!(self.bugs, CircleSession, "{id:?} joins {ix:?}");
        };
        let closest = usize::from(membership.stay().discovery.closest());
        let picks = self.pick(id, ix, closest, self.config.tuning.random_picks);
        let met = self.meet_picks(id, ix, picks);
        self.send_meetings(id, ix, &met, MeetingKind::Joined, now);
    }

    fn meet_picks(&mut self, id: SessionId, ix: NetworkIx, picks: Vec<(PeerId, Bond)>) -> Vec<PeerId> {
        let mut met = Vec::with_capacity(picks.len());
        for (other, bond) in picks {
            if matches!(self.meet(id, ix, other, bond), Met::Now | Met::AtLast) {
                met.push(other);
            }
        }
        met
    }

    /// Adds a member to a session's circle if the circle has room, and announces the member to the session unless the
    /// session already knows it.
    pub(super) fn meet(&mut self, id: SessionId, ix: NetworkIx, other: PeerId, bond: Bond) -> Met {
        let session = self.sessions.get_mut(id).map(|session| (session.is_open(), session));
        let Some((open, membership)) = session.and_then(|(open, session)| Some((open, session.membership_mut(ix)?)))
        else {
            bug!(self.bugs, CircleSession, "{id:?} meets {other:?} in {ix:?}");
            return Met::Not;
        };
        let Some(member) = self.rosters.network_mut(ix).and_then(|network| network.member_mut(&other)) else {
            bug!(self.bugs, CircleMember, "{id:?} meets {other:?} in {ix:?}");
            return Met::Not;
        };
        let met = membership.make_circle().meet(other, bond, self.config.tuning.max_acquaintances);
        if met == Met::Now {
            // The session stays a knower of the member even if the member declines later, so that the member's leave
            // also removes it from the circle.
            member.note_knower(id);
        }
        if matches!(met, Met::Now | Met::AtLast) {
            self.meetings.met();
            if open {
                self.outputs.push_back(member.discovered_by(id));
            }
        }
        met
    }

    /// Notifies the home shards and hubs of `others` that each of these peers and the session's peer know each other.
    pub(super) fn send_meetings(
        &mut self,
        id: SessionId,
        ix: NetworkIx,
        others: &[PeerId],
        kind: MeetingKind,
        now: Now,
    ) {
        let session = self.sessions.get(id).and_then(|session| Some((session.peer(), session.membership(ix)?)));
        let Some((about, membership)) = session else {
            return bug!(self.bugs, CircleSession, "{id:?} knows others in {ix:?}");
        };
        let stay = membership.stay().number;
        let Some(network) = self.rosters.network(ix) else {
            return bug!(self.bugs, CircleNetwork, "{id:?} in {ix:?}");
        };
        let name = network.name().clone();
        let mut here = Vec::new();
        let mut away: Vec<(Homes, Vec<(PeerId, u64)>)> = Vec::new();
        for &other in others {
            let Some(member) = network.member(&other) else {
                bug!(self.bugs, CircleMember, "{about:?} knows {other:?} in {ix:?}");
                continue;
            };
            let homes = match member.address() {
                Address::Shard(shard) if shard == self.config.shard => {
                    here.push(other);
                    continue;
                }
                // A new member is proposed to all other shards, with one letter that lists all its picks on these
                // shards.
                Address::Shard(_) if kind == MeetingKind::Joined => Homes::Shards,
                Address::Shard(shard) => Homes::Shard(shard),
                Address::Mesh => Homes::Hub(member.announcement().claim.hub),
            };
            let pair = (other, member.announcement().stay.number);
            match away.iter_mut().find(|(known, _)| *known == homes) {
                Some((_, pairs)) => pairs.push(pair),
                None => away.push((homes, vec![pair])),
            }
        }
        if kind == MeetingKind::Joined && !away.iter().any(|(homes, _)| *homes == Homes::Shards) {
            away.push((Homes::Shards, Vec::new()));
        }
        for other in here {
            self.meet_here(id, ix, about, other, now);
        }
        for (homes, pairs) in away {
            let to = MeetingEnd::Others;
            let meeting = |others, kind| Arc::new(Meeting { network: name.clone(), about, stay, others, to, kind });
            match homes {
                Homes::Shards => self.post_to_shards(&ToShard::Meeting(meeting(pairs, kind))),
                Homes::Shard(shard) => {
                    self.post(shard, ToShard::Meeting(meeting(pairs, MeetingKind::Met)));
                }
                Homes::Hub(hub) => {
                    let kind = if kind == MeetingKind::Joined { MeetingKind::Met } else { kind };
                    for pairs in pairs.chunks(MAX_MEETING) {
                        let meeting = meeting(pairs.to_vec(), kind);
                        self.post_to_mesh(|| ToMesh::Meeting { hub, meeting });
                    }
                    if kind == MeetingKind::Met {
                        self.await_answers(id, ix, pairs.iter().map(|(peer, _)| *peer), now);
                    }
                }
            }
        }
    }

    /// Adds `peer` to the circle of `other`, which is connected to this shard. `id` is the session of `peer`, whose circle
    /// already has `other`.
    fn meet_here(&mut self, id: SessionId, ix: NetworkIx, peer: PeerId, other: PeerId, now: Now) {
        match self.by_peer.get(&other).copied() {
            // The other peer has left, and `peer` is notified of this leave in a later turn.
            other_id if self.is_leaving(other_id, ix) => {}
            Some(other_id) if self.meet(other_id, ix, peer, Bond::Met) == Met::Not => {
                self.part_as_crowded(id, ix, other, now);
            }
            Some(_) => {}
            None => bug!(self.bugs, ResidentSession, "{other:?} in {ix:?}"),
        }
    }

    /// Records that a session's circle waits for the answers of these peers' hubs.
    pub(super) fn await_answers(&mut self, id: SessionId, ix: NetworkIx, from: impl Iterator<Item = PeerId>, now: Now) {
        let membership = self.sessions.membership_mut(id, ix);
        let circle = membership.and_then(|m| Some((m.stay().number, m.circle_mut()?)));
        let Some((stay, circle)) = circle else {
            return bug!(self.bugs, CircleSession, "{id:?} awaits answers in {ix:?}");
        };
        for peer in from {
            if !circle.await_answer(&peer) {
                bug!(self.bugs, CircleMember, "{id:?} awaits an answer of {peer:?} in {ix:?}");
            }
        }
        if circle.enqueue() {
            self.meetings.wait(Waiting { session: id, network: ix, stay }, now.at);
        }
    }

    /// Handles a decline of an acquaintance whose circle is full. The session and this acquaintance stop knowing each
    /// other.
    pub(super) fn part_as_crowded(&mut self, id: SessionId, ix: NetworkIx, other: PeerId, now: Now) {
        let session = self.sessions.get_mut(id).map(|session| (session.is_open(), session));
        let circle = session.and_then(|(open, session)| Some((open, session.membership_mut(ix)?.circle_mut()?)));
        let Some((open, circle)) = circle else {
            return bug!(self.bugs, CircleSession, "{id:?} parts from {other:?} in {ix:?}");
        };
        let declined = circle.decline(&other);
        match declined {
            Declined::Unknown => return bug!(self.bugs, CircleMember, "{id:?} parts from {other:?} in {ix:?}"),
            Declined::Before => return,
            Declined::Remembered(_) | Declined::Forgotten => self.meetings.parted(1, &mut self.bugs),
        }
        let Some(network) = self.rosters.network_mut(ix) else {
            return bug!(self.bugs, CircleNetwork, "{id:?} in {ix:?}");
        };
        if declined == Declined::Forgotten && !network.forget_knower(&other, id) {
            bug!(self.bugs, KnowerSession, "{id:?} parts from {other:?} in {ix:?}");
        }
        if open {
            let kind = MessageKind::PeerDisconnected;
            let known = network.member(&other).map(|member| member.announcement().claim.incarnation);
            if known.is_none() {
                bug!(self.bugs, CircleMember, "{id:?} parts from {other:?} in {ix:?}");
            }
            let (session, name) = (known.unwrap_or(PeerIncarnation::LEGACY), network.name().as_str());
            let frame = wire::peer_disconnected(&other, session, LeaveReason::Crowded, name, now.wall_ms);
            let frame = Frame::Template(Arc::new(frame));
            self.outputs.push_back(Output::Send { session: id, frame, kind, origin: None, from: None });
        }
        if let Declined::Remembered(bond) = declined {
            self.replace_pick(id, ix, bond, now);
        }
    }

    /// Notifies the sessions that have met a member that this member has announced itself again or has left.
    pub(super) fn notify_knowers(
        &mut self,
        ix: NetworkIx,
        knowers: &[SessionId],
        subject: PeerId,
        event: MemberEvent,
        (frame, kind): (&Arc<Template>, MessageKind),
        now: Now,
    ) {
        let mut lost = Vec::new();
        for &id in knowers {
            let session = self.sessions.get_mut(id).map(|session| (session.is_open(), session));
            let circle = session.and_then(|(open, session)| Some((open, session.membership_mut(ix)?.circle_mut()?)));
            let Some((open, circle)) = circle else {
                bug!(self.bugs, KnowerSession, "{id:?} knows {subject:?} in {ix:?}");
                continue;
            };
            let bond = match event {
                MemberEvent::Left => circle.part(&subject),
                MemberEvent::Joined | MemberEvent::Renewed => circle.knows(&subject).then_some(Bond::Met),
            };
            // A member that has declined is still in the circle, but the session has already received its leave.
            let Some(bond) = bond else { continue };
            if open {
                let frame = Frame::Template(Arc::clone(frame));
                self.outputs.push_back(Output::Send { session: id, frame, kind, origin: None, from: None });
            }
            if event == MemberEvent::Left {
                self.meetings.parted(1, &mut self.bugs);
                lost.push((id, bond));
            }
        }
        // Replacements are picked only after all sessions have been notified of the leave.
        for (id, bond) in lost {
            self.replace_pick(id, ix, bond, now);
        }
    }

    /// Picks a replacement for a lost acquaintance, if that acquaintance was a pick, or if fewer acquaintances are left
    /// than the peer requested.
    fn replace_pick(&mut self, id: SessionId, ix: NetworkIx, bond: Bond, now: Now) {
        let Some(session) = self.sessions.get(id).filter(|session| session.is_open()) else { return };
        let Some(membership) = session.membership(ix) else {
            return bug!(self.bugs, CircleSession, "{id:?} replaces a pick in {ix:?}");
        };
        let wanted = u32::from(membership.stay().discovery.closest());
        let (close, random) = match bond {
            Bond::Close => (1, 0),
            Bond::Random => (0, 1),
            Bond::Met => (usize::from(membership.circle().is_none_or(|circle| circle.announced() < wanted)), 0),
        };
        if close + random > 0 {
            let picks = self.pick(id, ix, close, random);
            let met = self.meet_picks(id, ix, picks);
            if !met.is_empty() {
                self.send_meetings(id, ix, &met, MeetingKind::Met, now);
            }
        }
    }

    /// Announces all acquaintances of a peer again, because the peer has announced itself again.
    pub(super) fn announce_circle_again(&mut self, id: SessionId, ix: NetworkIx) {
        let Some(session) = self.sessions.get(id).filter(|session| session.is_open()) else { return };
        let Some(circle) = session.membership(ix).and_then(|membership| membership.circle()) else { return };
        let Some(network) = self.rosters.network(ix) else {
            return bug!(self.bugs, CircleNetwork, "{id:?} in {ix:?}");
        };
        for peer in circle.peers() {
            match network.member(&peer) {
                Some(member) => self.outputs.push_back(member.discovered_by(id)),
                None => bug!(self.bugs, CircleMember, "{id:?} knows {peer:?} in {ix:?}"),
            }
        }
    }

    /// Removes a session's circle when the session leaves the network.
    pub(super) fn dissolve(&mut self, id: SessionId, ix: NetworkIx, circle: &Circle) {
        let Some(network) = self.rosters.network_mut(ix) else {
            return bug!(self.bugs, CircleNetwork, "{id:?} in {ix:?}");
        };
        for other in circle.all() {
            if !network.forget_knower(&other, id) {
                bug!(self.bugs, CircleMember, "{id:?} knew {other:?} in {ix:?}");
            }
        }
        self.meetings.parted(circle.announced().into(), &mut self.bugs);
    }

    /// Processes `discover`, which introduces a peer to more members.
    pub(super) fn asked_for_more(&mut self, id: SessionId, discover: &Discover<'_>, now: Now) {
        let Some(session) = self.sessions.get(id) else {
            return bug!(self.bugs, MessageSession, "discover of {id:?}");
        };
        let peer = session.peer();
        let found = self.rosters.find(&discover.network);
        let Some((ix, membership)) = found.and_then(|ix| Some((ix, session.membership(ix)?))) else {
            let (code, message) = (ErrorCode::WrongNetwork, sentences::NOT_A_MEMBER);
            return self.refuse_because(id, code, message, MessageKind::Discover, &discover.network, now);
        };
        let most = self.config.tuning.max_acquaintances;
        let bounded = membership.is_bounded();
        if bounded && membership.is_crowded(most) {
            let code = ErrorCode::NetworkFull;
            return self.refuse_public(id, code, MessageKind::Discover, &discover.network, now);
        }
        let closest = membership.stay().discovery.closest();
        if let Err(exceeded) = self.take_of_network(id, ix, (BudgetItem::Pages, 1), now) {
            let refusal = refusal(&exceeded, MessageKind::Discover, Some(&discover.network));
            return self.refuse_exceeding(id, &refusal, &exceeded, now);
        }
        let page = discover.limit.map_or(closest, |limit| limit.clamp(1, u64::from(MAX_CLOSEST)) as u8);
        let mut met = Vec::new();
        if bounded {
            let picks = self.pick(id, ix, usize::from(page), 0);
            // Members that `discover` finds are not picks. If such a member leaves, it is replaced only if the peer
            // then knows too few members.
            met = self.meet_picks(id, ix, picks.into_iter().map(|(other, _)| (other, Bond::Met)).collect());
            self.send_meetings(id, ix, &met, MeetingKind::Met, now);
        }
        let circle = self.sessions.membership(id, ix).and_then(|membership| membership.circle());
        let Some(members) = self.rosters.network(ix).map(|network| network.len()) else {
            return bug!(self.bugs, MembershipNetwork, "{peer:?} is in {ix:?}");
        };
        let is_left = |circle: &Circle| members > circle.len() + 1 && !circle.is_full(most);
        let more = bounded && circle.is_some_and(is_left) && !met.is_empty();
        let frame = wire::discovered(&mut self.arena, &peer, met.len(), more, &discover.network, now.wall_ms);
        self.send(id, Frame::Arena(frame), MessageKind::Discovered);
    }

    /// Repeats the meetings that are due.
    pub(super) fn repeat_meetings(&mut self, now: Now) {
        // Meetings that are not repeated in this turn stay due.
        while !self.is_turn_over()
            && let Some(Waiting { session: id, network: ix, stay }) = self.meetings.next_due(now.at)
        {
            let membership = self.sessions.membership_mut(id, ix);
            let Some(membership) = membership.filter(|membership| membership.stay().number == stay) else { continue };
            let Some(circle) = membership.circle_mut() else {
                bug!(self.bugs, CircleSession, "{id:?} waits for answers in {ix:?}");
                continue;
            };
            let unanswered = circle.dequeue();
            self.send_meetings(id, ix, &unanswered, MeetingKind::Met, now);
        }
        if self.config.meshed
            && let Some(slots) = self.meetings.sweep(self.sessions.slots(), now.at)
        {
            for slot in slots {
                self.recall_circles(slot, now);
            }
        }
    }

    /// Sends the acquaintances of the session in this slot to the hubs of these acquaintances again. If one of two hubs
    /// has forgotten an acquaintance in a partition, both hubs know it again within
    /// [`MEETING_AGAIN`](crate::limits::MEETING_AGAIN).
    fn recall_circles(&mut self, slot: u32, now: Now) {
        let Some((id, session)) = self.sessions.at(slot) else { return };
        let circles: Vec<(NetworkIx, Vec<PeerId>)> = session
            .memberships()
            .iter()
            .filter_map(|membership| {
                let network = self.rosters.network(membership.network())?;
                let away = |peer: &PeerId| {
                    network.member(peer).is_some_and(|member| {
                        member.address() == Address::Mesh && !member.announcement().claim.is_legacy()
                    })
                };
                Some((membership.network(), membership.circle()?.peers().filter(away).collect::<Vec<_>>()))
            })
            .filter(|(_, away)| !away.is_empty())
            .collect();
        for (ix, away) in circles {
            self.send_meetings(id, ix, &away, MeetingKind::Agreed, now);
        }
    }
}

/// The place where the other peers of a meeting are connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Homes {
    /// All other shards of this hub.
    Shards,
    Shard(ShardId),
    Hub(HubId),
}
