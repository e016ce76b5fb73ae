//! Bounded discovery (DISCOVERY=closest:K): which peers know each other when a peer knows only some members.
//!
//! A peer that wants to know K others picks the K closest members and a few random ones when it joins. Two peers *meet*
//! when one has picked the other, signals the other, or asks for more members. From then on each is notified of the
//! other's changes. The acquaintances of a peer are its [`Circle`]; only its home shard writes it. One home notifies
//! the other with a [`Meeting`]. Inside a hub it always arrives; between hubs it is repeated until it is answered.
//!
//! Two peers that join at the same moment do not find each other in their own shards' rosters. Therefore every shard
//! repeats the pick for a new member with its own roster. Picks of this shard that have not met the member are those
//! that its home did not know; they meet now. If nobody joins at the same moment, there are none.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::bug;
use crate::codec::{self, Discover};
use crate::id::{Address, HubId, PeerId, PeerIncarnation, SessionId, ShardId};
use crate::limits::{
    MAX_CLOSEST, MAX_DECLINED, MAX_MEETING, MEETING_AGAIN, MEETING_PATIENCE, MEETING_SWEEP, TURN_OUTPUTS,
};
use crate::reason::{ErrorCode, LeaveReason};
use crate::sentences;
use crate::time::Now;
use crate::wire::{self, MessageKind, Template};

use super::Router;
use super::circle::{Acquaintance, CLOSE, Circle, DECLINED, Met, RANDOM, UNANSWERED};
use super::letter::{Announcement, Frame, Meeting, MeetingEnd, Output, Stay, ToMesh, ToShard, Word};
use super::presence::Change;
use super::roster::NetworkIx;
use super::session::State;

/// Meetings that must be sent again.
#[derive(Debug)]
pub(super) struct Meetings {
    /// Circles with unconfirmed acquaintances, in the order of their times, each once. Entries of ended stays remain
    /// until their time.
    due: VecDeque<Due>,
    /// Time of the next sweep, and its first slot. A sweep sends sessions' acquaintances at other hubs again.
    sweep: (Duration, u32),
    pub(super) draws: u64,
    /// Number of acquaintances of this shard's peers.
    known: u64,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    at: Duration,
    session: SessionId,
    network: NetworkIx,
    stay: u64,
}

impl Meetings {
    pub(super) fn new() -> Self {
        Self { due: VecDeque::new(), sweep: (Duration::ZERO, 0), draws: 0, known: 0 }
    }

    pub(super) fn known(&self) -> u64 {
        self.known
    }

    pub(super) fn next_deadline(&self, meshed: bool) -> Option<Duration> {
        let sweep = (meshed && self.known > 0).then_some(self.sweep.0);
        [self.due.front().map(|due| due.at), sweep].into_iter().flatten().min()
    }
}

impl Router {
    /// Number of closest members that a new peer wants to know; 0 means all members.
    pub(super) fn closest_wanted(&self, data: Option<&str>) -> u8 {
        let wanted = data.and_then(codec::closest_wanted).map(|k| k.min(u64::from(MAX_CLOSEST)) as u8);
        wanted.unwrap_or(self.config.discovery.closest())
    }

    /// Begins a stay with a new number.
    pub(super) fn begin_stay(&mut self, closest: u8, now: Now) -> Stay {
        self.last_stay = now.wall_ms.max(self.last_stay.saturating_add(1));
        Stay { number: self.last_stay, closest }
    }

    /// Introduces a new member and its picks to each other. All shards have received its announcement already.
    pub(super) fn join_circle(&mut self, id: SessionId, ix: NetworkIx, now: Now) {
        let Some(membership) = self.sessions.get(id).and_then(|session| session.membership_in(ix)) else {
            return bug!(self.bugs, CircleSession, "{id:?} joins {ix:?}");
        };
        let closest = usize::from(membership.stay.closest);
        let picks = self.pick(id, ix, closest, self.config.tuning.random_picks);
        let met = self.meet_picks(id, ix, picks);
        self.tell_homes(id, ix, &met, Word::Joined, now);
    }

    fn meet_picks(&mut self, id: SessionId, ix: NetworkIx, picks: Vec<(PeerId, u8)>) -> Vec<PeerId> {
        let mut met = Vec::with_capacity(picks.len());
        for (other, marks) in picks {
            if matches!(self.meet(id, ix, other, marks), Met::Now | Met::AtLast) {
                met.push(other);
            }
        }
        met
    }

    /// Adds a member to a session's circle, and announces it to the session unless that has happened already.
    pub(super) fn meet(&mut self, id: SessionId, ix: NetworkIx, other: PeerId, marks: u8) -> Met {
        let session = self.sessions.get_mut(id).map(|session| (session.state, session));
        let Some((state, membership)) = session.and_then(|(state, session)| Some((state, session.membership(ix)?)))
        else {
            bug!(self.bugs, CircleSession, "{id:?} meets {other:?} in {ix:?}");
            return Met::Not;
        };
        let Some(member) = self.rosters.network_mut(ix).and_then(|network| network.members.get_mut(&other)) else {
            bug!(self.bugs, CircleMember, "{id:?} meets {other:?} in {ix:?}");
            return Met::Not;
        };
        let told = state == State::Live;
        let met = membership.circle.get_or_insert_default().meet(other, marks, self.config.tuning.max_acquaintances);
        if met == Met::Now {
            // A declined peer is recorded, so that its leave is not missed.
            member.note_knower(id);
        }
        if matches!(met, Met::Now | Met::AtLast) {
            self.meetings.known += 1;
            if told {
                self.outputs.push_back(member.discovered_by(id));
            }
        }
        met
    }

    /// Notifies the home shards of `others` that they and a session's peer know each other.
    fn tell_homes(&mut self, id: SessionId, ix: NetworkIx, others: &[PeerId], word: Word, now: Now) {
        let session = self.sessions.get(id).and_then(|session| Some((session.peer, session.membership_in(ix)?)));
        let Some((about, membership)) = session else {
            return bug!(self.bugs, CircleSession, "{id:?} knows others in {ix:?}");
        };
        let stay = membership.stay.number;
        let Some(network) = self.rosters.network(ix) else {
            return bug!(self.bugs, CircleNetwork, "{id:?} in {ix:?}");
        };
        let name = network.name.clone();
        let mut here = Vec::new();
        let mut away: Vec<(Place, Vec<(PeerId, u64)>)> = Vec::new();
        for &other in others {
            let Some(member) = network.members.get(&other) else {
                bug!(self.bugs, CircleMember, "{about:?} knows {other:?} in {ix:?}");
                continue;
            };
            let place = match member.place {
                Address::Shard(shard) if shard == self.config.shard => {
                    here.push(other);
                    continue;
                }
                // A new member is proposed to all shards: one letter contains all its picks.
                Address::Shard(_) if word == Word::Joined => Place::Shards,
                Address::Shard(shard) => Place::Shard(shard),
                Address::Mesh => Place::Hub(member.announcement.claim.hub),
            };
            let pair = (other, member.announcement.stay.number);
            match away.iter_mut().find(|(known, _)| *known == place) {
                Some((_, pairs)) => pairs.push(pair),
                None => away.push((place, vec![pair])),
            }
        }
        if word == Word::Joined && !away.iter().any(|(place, _)| *place == Place::Shards) {
            away.push((Place::Shards, Vec::new()));
        }
        for other in here {
            match self.by_peer.get(&other).copied() {
                // It has left, and this one hears of that in a later turn.
                other_id if self.is_leaving(other_id, ix) => {}
                Some(other_id) if self.meet(other_id, ix, about, 0) == Met::Not => {
                    self.part_as_crowded(id, ix, other, now);
                }
                Some(_) => {}
                None => bug!(self.bugs, ResidentSession, "{other:?} in {ix:?}"),
            }
        }
        for (place, pairs) in away {
            let to = MeetingEnd::Others;
            let meeting = |others, word| Arc::new(Meeting { network: name.clone(), about, stay, others, to, word });
            match place {
                Place::Shards => self.post_to_shards(&ToShard::Meeting(meeting(pairs, word))),
                Place::Shard(shard) => self.post(shard, ToShard::Meeting(meeting(pairs, Word::Met))),
                Place::Hub(hub) => {
                    let word = if word == Word::Joined { Word::Met } else { word };
                    for pairs in pairs.chunks(MAX_MEETING) {
                        let meeting = meeting(pairs.to_vec(), word);
                        self.post_to_mesh(|| ToMesh::Meeting { hub, meeting });
                    }
                    if word == Word::Met {
                        self.await_answer(id, ix, pairs.iter().map(|(peer, _)| *peer), now);
                    }
                }
            }
        }
    }

    fn await_answer(&mut self, id: SessionId, ix: NetworkIx, from: impl Iterator<Item = PeerId>, now: Now) {
        let membership = self.sessions.get_mut(id).and_then(|session| session.membership(ix));
        let circle = membership.and_then(|m| Some((m.stay.number, m.circle.as_deref_mut()?)));
        let Some((stay, circle)) = circle else {
            return bug!(self.bugs, CircleSession, "{id:?} awaits answers in {ix:?}");
        };
        for peer in from {
            match circle.find(&peer) {
                Ok(at) => circle.known[at].marks |= UNANSWERED,
                Err(_) => bug!(self.bugs, CircleMember, "{id:?} awaits an answer of {peer:?} in {ix:?}"),
            }
        }
        if !std::mem::replace(&mut circle.due, true) {
            let at = now.at + MEETING_PATIENCE;
            self.meetings.due.push_back(Due { at, session: id, network: ix, stay });
        }
    }

    /// Processes a meeting between peers of this shard and others.
    pub(super) fn heard_meeting(&mut self, meeting: &Meeting, now: Now) {
        let Some(ix) = self.rosters.find(meeting.network.as_str()) else { return };
        let about = (meeting.about, meeting.stay);
        let mut from = None;
        let (mut agreed, mut declined) = (Vec::new(), Vec::new());
        for &other in &meeting.others {
            let (ours, theirs) = match meeting.to {
                MeetingEnd::About => (about, other),
                MeetingEnd::Others => (other, about),
            };
            // Either may have left since.
            let Some(id) = self.resident(ix, ours) else { continue };
            let Some((place, hub)) = self.stands(ix, theirs) else { continue };
            if meeting.word == Word::Declined {
                self.heard_declined(id, ix, theirs.0, place, now);
                continue;
            }
            if !self.may_meet(id, ix, &theirs.0) {
                continue;
            }
            from = Some((place, hub));
            match self.meet(id, ix, theirs.0, 0) {
                Met::Not => declined.push(other),
                _ if meeting.word == Word::Met && place == Address::Mesh => agreed.push(other),
                Met::Now | Met::AtLast | Met::Before => {}
            }
        }
        if let Some((place, hub)) = from {
            for (others, word) in [(agreed, Word::Agreed), (declined, Word::Declined)] {
                if !others.is_empty() {
                    self.stats.meetings_declined += if word == Word::Declined { others.len() as u64 } else { 0 };
                    self.answer_meeting(meeting, others, word, place, hub);
                }
            }
        }
        if meeting.word == Word::Joined
            && let Some((place, hub)) = self.stands(ix, about)
        {
            let met = self.propose(ix, meeting.about);
            let others: Vec<_> = met.into_iter().map(|(_, peer, stay)| (peer, stay)).collect();
            if !others.is_empty() {
                self.answer_meeting(meeting, others, Word::Met, place, hub);
            }
        }
    }

    /// Answers a meeting, for all its pairs or some of them.
    fn answer_meeting(&mut self, to: &Meeting, others: Vec<(PeerId, u64)>, word: Word, place: Address, hub: HubId) {
        let end = match to.to {
            MeetingEnd::About => MeetingEnd::Others,
            MeetingEnd::Others => MeetingEnd::About,
        };
        let meeting = Meeting { network: to.network.clone(), about: to.about, stay: to.stay, others, to: end, word };
        let meeting = Arc::new(meeting);
        match place {
            Address::Mesh => self.post_to_mesh(|| ToMesh::Meeting { hub, meeting }),
            Address::Shard(shard) => self.post(shard, ToShard::Meeting(meeting)),
        }
    }

    /// The session of a peer of this shard, if it is in this stay.
    fn resident(&self, ix: NetworkIx, (peer, stay): (PeerId, u64)) -> Option<SessionId> {
        let &id = self.by_peer.get(&peer)?;
        let membership = self.sessions.get(id)?.membership_in(ix)?;
        (membership.stay.number == stay).then_some(id)
    }

    /// The address of a member, if it is in this stay.
    fn stands(&self, ix: NetworkIx, (peer, stay): (PeerId, u64)) -> Option<(Address, HubId)> {
        let member = self.rosters.network(ix)?.members.get(&peer)?;
        let announcement = &member.announcement;
        (announcement.stay.number == stay).then_some((member.place, announcement.claim.hub))
    }

    /// Whether a session and a member know each other only if they have met.
    pub(super) fn may_meet(&self, id: SessionId, ix: NetworkIx, other: &PeerId) -> bool {
        let Some(session) = self.sessions.get(id) else { return false };
        let member = self.rosters.network(ix).and_then(|network| network.members.get(other));
        let (Some(membership), Some(member)) = (session.membership_in(ix), member) else { return false };
        session.peer != *other && (membership.stay.closest > 0 || member.is_bounded())
    }

    /// Proposes a new member of another hub, or an unbounded one of another shard, to the bounded peers of this shard
    /// that are close to it.
    pub(super) fn propose_from_here(&mut self, ix: NetworkIx, newcomer: PeerId, now: Now) {
        for (id, ..) in self.propose(ix, newcomer) {
            let at_hub = self
                .rosters
                .network(ix)
                .and_then(|network| network.members.get(&newcomer))
                .is_some_and(|member| member.place == Address::Mesh && member.is_bounded());
            if at_hub {
                // Usually its own hub's meeting is already on its way; otherwise this one is sent.
                self.await_answer(id, ix, std::iter::once(newcomer), now);
            } else {
                self.tell_homes(id, ix, &[newcomer], Word::Met, now);
            }
        }
    }

    /// Introduces a session and a member before a signal between them. False if one of them knows its maximum of
    /// others.
    pub(super) fn introduce_stranger(&mut self, id: SessionId, ix: NetworkIx, from: PeerId, now: Now) -> bool {
        // Every signal passes here, and hardly any network has bounded members.
        if self.rosters.network(ix).is_none_or(|network| network.bounded == 0) || !self.may_meet(id, ix, &from) {
            return true;
        }
        let Some(member) = self.rosters.network(ix).and_then(|network| network.members.get(&from)) else {
            bug!(self.bugs, CircleMember, "{id:?} may meet {from:?} in {ix:?}");
            return true;
        };
        let legacy = member.announcement.claim.incarnation <= PeerIncarnation::LEGACY;
        let knows = |router: &Self| {
            let membership = router.sessions.get(id).and_then(|session| session.membership_in(ix));
            membership.and_then(|membership| membership.circle.as_deref()).is_some_and(|circle| circle.knows(&from))
        };
        if knows(self) {
            return true;
        }
        if self.is_full_here(ix, &from, member) || self.meet(id, ix, from, 0) == Met::Not {
            return false;
        }
        if !legacy {
            self.tell_homes(id, ix, &[from], Word::Met, now);
        }
        true
    }

    /// Whether a session knows its maximum of others, and not this one.
    pub(super) fn is_too_crowded_for(&self, id: SessionId, ix: NetworkIx, target: &PeerId) -> bool {
        let membership = self.sessions.get(id).and_then(|session| session.membership_in(ix));
        let circle = membership.and_then(|membership| membership.circle.as_deref());
        circle.is_some_and(|circle| circle.is_full(self.config.tuning.max_acquaintances) && !circle.knows(target))
            && self.may_meet(id, ix, target)
    }

    /// Processes a decline: the acquaintance's circle is full.
    fn heard_declined(&mut self, id: SessionId, ix: NetworkIx, other: PeerId, place: Address, now: Now) {
        let membership = self.sessions.get(id).and_then(|session| session.membership_in(ix));
        // The two may have parted since.
        let Some(circle) = membership.and_then(|membership| membership.circle.as_deref()) else { return };
        let Ok(at) = circle.find(&other) else { return };
        let marks = circle.known[at].marks;
        // Either it declined an earlier attempt and has confirmed since, or it had forgotten this peer and was
        // reminded. Ask again.
        if place == Address::Mesh && marks & (UNANSWERED | DECLINED) == 0 {
            return self.tell_homes(id, ix, &[other], Word::Met, now);
        }
        self.part_as_crowded(id, ix, other, now);
    }

    fn part_as_crowded(&mut self, id: SessionId, ix: NetworkIx, other: PeerId, now: Now) {
        let session = self.sessions.get_mut(id).map(|session| (session.state, session));
        let circle = session.and_then(|(state, session)| Some((state, session.membership(ix)?.circle.as_deref_mut()?)));
        let Some((state, circle)) = circle else {
            return bug!(self.bugs, CircleSession, "{id:?} parts from {other:?} in {ix:?}");
        };
        let Ok(at) = circle.find(&other) else {
            return bug!(self.bugs, CircleMember, "{id:?} parts from {other:?} in {ix:?}");
        };
        let told = state == State::Live;
        let marks = circle.known[at].marks;
        if marks & DECLINED != 0 {
            return;
        }
        let remembered = circle.declined() < MAX_DECLINED;
        if remembered {
            circle.known[at].marks = DECLINED;
        } else {
            circle.known.remove(at);
        }
        circle.told -= 1;
        self.meetings.known -= 1;
        let Some(network) = self.rosters.network_mut(ix) else {
            return bug!(self.bugs, CircleNetwork, "{id:?} in {ix:?}");
        };
        if !remembered && let Some(member) = network.members.get_mut(&other) {
            member.forget_knower(id);
        }
        if told {
            let kind = MessageKind::PeerDisconnected;
            let session =
                network.members.get(&other).map_or(PeerIncarnation::LEGACY, |m| m.announcement.claim.incarnation);
            let name = network.name.as_str();
            let frame = wire::peer_disconnected(&other, session, LeaveReason::Crowded, name, now.wall_ms);
            let frame = Frame::Template(Arc::new(frame));
            self.outputs.push_back(Output::Send { session: id, frame, kind, origin: None, from: None });
        }
        if remembered {
            self.replace_pick(id, ix, marks, now);
        }
    }

    /// Notifies the bounded sessions that know a member of its change.
    pub(super) fn tell_knowers(
        &mut self,
        ix: NetworkIx,
        knowers: &[SessionId],
        subject: PeerId,
        change: Change,
        (frame, kind): (&Arc<Template>, MessageKind),
        now: Now,
    ) {
        let mut lost = Vec::new();
        for &id in knowers {
            let session = self.sessions.get_mut(id).map(|session| (session.state == State::Live, session));
            let circle =
                session.and_then(|(live, session)| Some((live, session.membership(ix)?.circle.as_deref_mut()?)));
            let Some((live, circle)) = circle else {
                bug!(self.bugs, KnowerSession, "{id:?} knows {subject:?} in {ix:?}");
                continue;
            };
            let marks = match change {
                Change::Left => circle.part(&subject),
                Change::Joined | Change::Renewed => circle.knows(&subject).then_some(0),
            };
            // A member that has declined stays known, so that it is not announced.
            let Some(marks) = marks else { continue };
            if live {
                let frame = Frame::Template(Arc::clone(frame));
                self.outputs.push_back(Output::Send { session: id, frame, kind, origin: None, from: None });
            }
            if change == Change::Left {
                self.meetings.known -= 1;
                lost.push((id, marks));
            }
        }
        // Only after all have been notified.
        for (id, marks) in lost {
            self.replace_pick(id, ix, marks, now);
        }
    }

    /// Picks a replacement for a lost acquaintance, if that was a pick, or if fewer are left than wanted.
    fn replace_pick(&mut self, id: SessionId, ix: NetworkIx, marks: u8, now: Now) {
        let Some(session) = self.sessions.get(id).filter(|session| session.state == State::Live) else { return };
        let Some(membership) = session.membership_in(ix) else {
            return bug!(self.bugs, CircleSession, "{id:?} replaces a pick in {ix:?}");
        };
        let wanting = membership.circle.as_deref().is_none_or(|c| c.told < u32::from(membership.stay.closest));
        let random = usize::from(marks & RANDOM != 0);
        let close = usize::from(marks & CLOSE != 0 || wanting && random == 0);
        if close + random > 0 {
            let picks = self.pick(id, ix, close, random);
            let met = self.meet_picks(id, ix, picks);
            if !met.is_empty() {
                self.tell_homes(id, ix, &met, Word::Met, now);
            }
        }
    }

    /// Announces everybody in its circle again to a peer that has announced itself again.
    pub(super) fn tell_circle_again(&mut self, id: SessionId, ix: NetworkIx) {
        let Some(session) = self.sessions.get(id).filter(|session| session.state == State::Live) else { return };
        let Some(circle) = session.membership_in(ix).and_then(|membership| membership.circle.as_deref()) else {
            return;
        };
        let Some(network) = self.rosters.network(ix) else {
            return bug!(self.bugs, CircleNetwork, "{id:?} in {ix:?}");
        };
        for member in circle.peers().filter_map(|peer| network.members.get(&peer)) {
            self.outputs.push_back(member.discovered_by(id));
        }
    }

    /// Removes a session's circle when it leaves the network.
    pub(super) fn dissolve(&mut self, id: SessionId, ix: NetworkIx, circle: &Circle) {
        let Some(network) = self.rosters.network_mut(ix) else {
            return bug!(self.bugs, CircleNetwork, "{id:?} in {ix:?}");
        };
        for other in &circle.known {
            match network.members.get_mut(&other.peer) {
                Some(member) => member.forget_knower(id),
                None => bug!(self.bugs, CircleMember, "{id:?} knew {:?} in {ix:?}", other.peer),
            }
        }
        self.meetings.known -= u64::from(circle.told);
    }

    /// Processes `discover`: introduces a peer to more members.
    pub(super) fn asked_for_more(&mut self, id: SessionId, discover: &Discover<'_>, now: Now) {
        let Some(session) = self.sessions.get(id) else {
            return bug!(self.bugs, MessageSession, "discover of {id:?}");
        };
        let peer = session.peer;
        let found = self.rosters.find(&discover.network);
        let Some((ix, membership)) = found.and_then(|ix| Some((ix, session.membership_in(ix)?))) else {
            let (code, message) = (ErrorCode::WrongNetwork, sentences::NOT_A_MEMBER);
            return self.refuse_saying(id, code, message, MessageKind::Discover, &discover.network, now);
        };
        let bounded = membership.stay.closest > 0;
        let full =
            membership.circle.as_deref().is_some_and(|circle| circle.is_full(self.config.tuning.max_acquaintances));
        if bounded && full {
            let code = ErrorCode::NetworkFull;
            return self.refuse_public(id, code, MessageKind::Discover, &discover.network, now);
        }
        let page = discover.limit.map_or(membership.stay.closest, |limit| limit.clamp(1, u64::from(MAX_CLOSEST)) as u8);
        let mut met = Vec::new();
        if bounded {
            let picks = self.pick(id, ix, usize::from(page), 0);
            // Members from `discover` are not picks: they are not replaced when they leave.
            met = self.meet_picks(id, ix, picks.into_iter().map(|(other, _)| (other, 0)).collect());
            self.tell_homes(id, ix, &met, Word::Met, now);
        }
        let circle = self.sessions.get(id).and_then(|session| session.membership_in(ix)?.circle.as_deref());
        let members = self.rosters.network(ix).map_or(0, |network| network.members.len());
        let is_left =
            |circle: &Circle| members > circle.known.len() + 1 && !circle.is_full(self.config.tuning.max_acquaintances);
        let more = bounded && circle.is_some_and(is_left) && !met.is_empty();
        let frame = wire::discovered(&mut self.arena, &peer, met.len(), more, &discover.network, now.wall_ms);
        self.send(id, Frame::Arena(frame), MessageKind::Discovered);
    }

    /// Repeats the meetings that are due.
    pub(super) fn meet_again(&mut self, now: Now) {
        // Work that does not fit into this turn stays due.
        while self.outputs.len() < TURN_OUTPUTS
            && let Some(due) = self.meetings.due.pop_front_if(|due| due.at <= now.at)
        {
            let (id, ix) = (due.session, due.network);
            let membership = self.sessions.get_mut(id).and_then(|session| session.membership(ix));
            let Some(membership) = membership.filter(|membership| membership.stay.number == due.stay) else { continue };
            let Some(circle) = membership.circle.as_deref_mut() else {
                bug!(self.bugs, CircleSession, "{id:?} waits for answers in {ix:?}");
                continue;
            };
            circle.due = false;
            let unanswered = |other: &&Acquaintance| other.marks & (UNANSWERED | DECLINED) == UNANSWERED;
            let again: Vec<PeerId> = circle.known.iter().filter(unanswered).map(|other| other.peer).collect();
            self.tell_homes(id, ix, &again, Word::Met, now);
        }
        if self.config.meshed && self.meetings.known > 0 && self.meetings.sweep.0 <= now.at {
            self.sweep(now);
        }
    }

    /// Lets some sessions send their acquaintances at other hubs again. If one hub has forgotten an acquaintance in a
    /// partition and the other has not, both know it again within [`MEETING_AGAIN`].
    fn sweep(&mut self, now: Now) {
        let slots = self.sessions.slots();
        let steps = MEETING_AGAIN.as_millis().div_ceil(MEETING_SWEEP.as_millis()) as u32;
        let from = if self.meetings.sweep.1 < slots { self.meetings.sweep.1 } else { 0 };
        let to = (from + slots.div_ceil(steps)).min(slots);
        let pause = (MEETING_AGAIN / slots.max(1)).max(MEETING_SWEEP);
        self.meetings.sweep = (now.at + pause, to);
        for slot in from..to {
            let Some((id, session)) = self.sessions.at(slot) else { continue };
            let circles: Vec<(NetworkIx, Vec<PeerId>)> = session
                .memberships
                .iter()
                .filter_map(|membership| {
                    let network = self.rosters.network(membership.network)?;
                    let circle = membership.circle.as_deref()?;
                    let away = |peer: &PeerId| {
                        network.members.get(peer).is_some_and(|member| {
                            member.place == Address::Mesh
                                && member.announcement.claim.incarnation > PeerIncarnation::LEGACY
                        })
                    };
                    Some((membership.network, circle.peers().filter(away).collect::<Vec<_>>()))
                })
                .filter(|(_, away)| !away.is_empty())
                .collect();
            for (ix, away) in circles {
                self.tell_homes(id, ix, &away, Word::Agreed, now);
            }
        }
    }
}

/// The home of the other side of a meeting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Any shards of this hub.
    Shards,
    Shard(ShardId),
    Hub(HubId),
}

impl Announcement {
    /// Whether discovery is bounded in this stay.
    pub(crate) fn is_bounded(&self) -> bool {
        self.stay.closest > 0
    }
}
