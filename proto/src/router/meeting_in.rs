//! Meetings that other shards and hubs begin, and meetings that a signal begins.

use std::sync::Arc;

use crate::bug;
use crate::id::{HubId, PeerId, SessionId};
use crate::route::Address;
use crate::time::Now;

use super::Router;
use super::circle::{Bond, Met};
use super::letter::{Announcement, Meeting, MeetingEnd, MeetingKind, ToMesh, ToShard};
use super::roster::NetworkIx;

impl Router {
    /// Processes a meeting of peers of this shard with peers of other shards or hubs.
    pub(super) fn meeting_received(&mut self, meeting: &Meeting, now: Now) {
        let Some(ix) = self.rosters.find(meeting.network.as_str()) else { return };
        let about = (meeting.about, meeting.stay);
        let mut from = None;
        let (mut agreed, mut declined) = (Vec::new(), Vec::new());
        for &other in &meeting.others {
            let (ours, theirs) = match meeting.to {
                MeetingEnd::About => (about, other),
                MeetingEnd::Others => (other, about),
            };
            // Either peer may have left in the meantime.
            let Some(id) = self.resident(ix, ours) else { continue };
            let Some((address, hub)) = self.home_of(ix, theirs) else { continue };
            if meeting.kind == MeetingKind::Declined {
                self.declined(id, ix, theirs.0, address, now);
                continue;
            }
            if !self.may_meet(id, ix, &theirs.0) {
                continue;
            }
            from = Some((address, hub));
            match self.meet(id, ix, theirs.0, Bond::Met) {
                Met::Not => declined.push(other),
                _ if meeting.kind == MeetingKind::Met && address == Address::Mesh => agreed.push(other),
                Met::Now | Met::AtLast | Met::Before => {}
            }
        }
        if let Some((address, hub)) = from {
            self.stats.meetings_declined += declined.len() as u64;
            for (others, kind) in [(agreed, MeetingKind::Agreed), (declined, MeetingKind::Declined)] {
                if !others.is_empty() {
                    self.answer_meeting(meeting, others, kind, address, hub);
                }
            }
        }
        if meeting.kind == MeetingKind::Joined
            && let Some((address, hub)) = self.home_of(ix, about)
        {
            let met = self.propose(ix, meeting.about);
            let others: Vec<_> = met.into_iter().map(|(_, peer, stay)| (peer, stay)).collect();
            if !others.is_empty() {
                self.answer_meeting(meeting, others, MeetingKind::Met, address, hub);
            }
        }
    }

    /// Answers a meeting. The answer is about all or some pairs of the meeting.
    fn answer_meeting(
        &mut self,
        to: &Meeting,
        others: Vec<(PeerId, u64)>,
        kind: MeetingKind,
        address: Address,
        hub: HubId,
    ) {
        let end = match to.to {
            MeetingEnd::About => MeetingEnd::Others,
            MeetingEnd::Others => MeetingEnd::About,
        };
        let meeting = Meeting { network: to.network.clone(), about: to.about, stay: to.stay, others, to: end, kind };
        let meeting = Arc::new(meeting);
        match address {
            Address::Mesh => self.post_to_mesh(|| ToMesh::Meeting { hub, meeting }),
            Address::Shard(shard) => self.post(shard, ToShard::Meeting(meeting)),
        }
    }

    /// The session of a peer of this shard, if the stay with this number has not ended.
    fn resident(&mut self, ix: NetworkIx, (peer, stay): (PeerId, u64)) -> Option<SessionId> {
        let id = self.session_of(&peer)?;
        let membership = self.sessions.membership(id, ix)?;
        (membership.stay().number == stay && !membership.observes()).then_some(id)
    }

    /// The address and the hub of a member, if the stay with this number has not ended.
    fn home_of(&self, ix: NetworkIx, (peer, stay): (PeerId, u64)) -> Option<(Address, HubId)> {
        let member = self.rosters.member(ix, &peer)?;
        let announcement = member.announcement();
        (announcement.stay.number == stay).then_some((member.address(), announcement.claim.hub))
    }

    /// Whether a session and a member must meet before they know each other, because one of them is bounded.
    pub(super) fn may_meet(&self, id: SessionId, ix: NetworkIx, other: &PeerId) -> bool {
        let Some(session) = self.sessions.get(id) else { return false };
        let (Some(membership), Some(member)) = (session.membership(ix), self.rosters.member(ix, other)) else {
            return false;
        };
        session.peer() != *other && (membership.is_bounded() || member.is_bounded())
    }

    /// Proposes a new member to those peers of this shard that should know the new member.
    pub(super) fn propose_from_here(&mut self, ix: NetworkIx, newcomer: PeerId, now: Now) {
        for (id, ..) in self.propose(ix, newcomer) {
            let member = self.rosters.member(ix, &newcomer);
            if member.is_some_and(|member| member.address() == Address::Mesh && member.is_bounded()) {
                // Usually the new member's hub has already sent a meeting. If that meeting does not arrive within
                // MEETING_PATIENCE, this hub sends one.
                self.await_answers(id, ix, std::iter::once(newcomer), now);
            } else {
                self.send_meetings(id, ix, &[newcomer], MeetingKind::Met, now);
            }
        }
    }

    /// Introduces a session and a member to each other before a signal from the member. Returns false if the circle of
    /// one of them is full.
    pub(super) fn introduce_stranger(&mut self, id: SessionId, ix: NetworkIx, from: PeerId, now: Now) -> bool {
        // This check comes first, because every signal needs it and hardly any network has bounded members.
        if self.rosters.network(ix).is_none_or(|network| !network.has_bounded()) || !self.may_meet(id, ix, &from) {
            return true;
        }
        let Some(member) = self.rosters.member(ix, &from) else {
            bug!(self.bugs, CircleMember, "{id:?} may meet {from:?} in {ix:?}");
            return true;
        };
        let membership = self.sessions.membership(id, ix);
        if membership.and_then(|membership| membership.circle()).is_some_and(|circle| circle.knows(&from)) {
            return true;
        }
        let is_legacy = member.announcement().claim.is_legacy();
        if self.is_full_here(ix, &from, member) || self.meet(id, ix, from, Bond::Met) == Met::Not {
            return false;
        }
        if !is_legacy {
            self.send_meetings(id, ix, &[from], MeetingKind::Met, now);
        }
        true
    }

    /// Whether a session cannot meet this peer because the session's circle is full. The result is false if the two
    /// know each other without a meeting.
    pub(super) fn is_too_crowded_for(&self, id: SessionId, ix: NetworkIx, target: &PeerId) -> bool {
        let circle = self.sessions.membership(id, ix).and_then(|membership| membership.circle());
        circle.is_some_and(|circle| circle.is_full(self.config.tuning.max_acquaintances) && !circle.knows(target))
            && self.may_meet(id, ix, target)
    }

    /// Handles a decline that the home shard or hub of an acquaintance has sent because the acquaintance's circle is
    /// full.
    fn declined(&mut self, id: SessionId, ix: NetworkIx, other: PeerId, address: Address, now: Now) {
        let circle = self.sessions.membership(id, ix).and_then(|membership| membership.circle());
        // The session and the other peer may no longer know each other.
        let Some(is_confirmed) = circle.and_then(|circle| circle.is_confirmed(&other)) else { return };
        // The other peer has confirmed a meeting, so this decline may be outdated. A decline can also mean that the
        // other hub lost the acquaintance in a partition. This hub sends the meeting again to get a new answer.
        if address == Address::Mesh && is_confirmed {
            return self.send_meetings(id, ix, &[other], MeetingKind::Met, now);
        }
        self.part_as_crowded(id, ix, other, now);
    }
}

impl Announcement {
    /// Whether the discovery of the announced peer is bounded.
    pub(crate) fn is_bounded(&self) -> bool {
        self.stay.discovery.is_bounded()
    }
}
