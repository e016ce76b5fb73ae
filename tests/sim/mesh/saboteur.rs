//! Planted bugs, which the oracles must find.

use std::sync::Arc;

use proto::envelope::{ChangeKind, Envelope, EnvelopeKind, Routed};
use proto::{MeetingKind, PeerId, Standing, ToMesh, ToShard};

use super::claims::Known;
use super::hubs::Posted;
use crate::rng::Rng;

/// A bug between a relay and its shards, or between a relay and its links.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A hub forwards heartbeats without increasing their age.
    AgesWrongly,
    /// A slice of long work skips a peer: no letter about this peer arrives.
    SkipsInSlice,
    /// The next letter about the same peer overtakes a letter of a slice.
    OvertakesSlice,
    /// The relay or a router never receives `Continue` for its long work.
    LosesContinue,
    /// A hub delivers signals before it knows the presence of their sender.
    DoesNotHold,
    /// A shard forgets a membership whose claim is not the greatest.
    ForgetsHidden,
    /// A signal no longer says that its sender is a member.
    ForgetsStanding,
    /// A home shard ignores that another hub's claim has ended.
    IgnoresEndElsewhere,
    /// A leave names the wrong session.
    LeavesWrongSession,
    LosesChange,
    LosesClosed,
    /// A decline is lost, so that only one of two peers knows the other peer.
    LosesDeclined,
    LosesElsewhere,
    LosesJoined,
    LosesLastPart,
    LosesLeft,
    /// An envelope about a takeover loses the lineage of the client's secret.
    LosesLineage,
    /// Meetings between shards are lost.
    LosesMeetings,
    /// All meetings from other hubs are lost, and so are their repetitions.
    LosesMeetingsForEver,
    LosesNowhere,
    LosesOpened,
    LosesOutcomeLetters,
    LosesOutcomes,
    LosesTakeoverAnswers,
    /// A change is sent to a neighbour that already has it.
    NoSplitHorizon,
    RepeatsSignal,
    RepeatsSignalLetter,
    /// A hub requests snapshots without need.
    StormsForSnapshots,
    SwapsSignals,
}

impl Fault {
    pub(crate) const ALL: [Self; 29] = [
        Self::AgesWrongly,
        Self::DoesNotHold,
        Self::ForgetsHidden,
        Self::ForgetsStanding,
        Self::IgnoresEndElsewhere,
        Self::LeavesWrongSession,
        Self::LosesChange,
        Self::LosesClosed,
        Self::LosesContinue,
        Self::LosesDeclined,
        Self::LosesElsewhere,
        Self::LosesJoined,
        Self::LosesLastPart,
        Self::LosesLeft,
        Self::LosesLineage,
        Self::LosesMeetings,
        Self::LosesMeetingsForEver,
        Self::LosesNowhere,
        Self::LosesOpened,
        Self::LosesOutcomeLetters,
        Self::LosesOutcomes,
        Self::LosesTakeoverAnswers,
        Self::NoSplitHorizon,
        Self::OvertakesSlice,
        Self::RepeatsSignal,
        Self::RepeatsSignalLetter,
        Self::SkipsInSlice,
        Self::StormsForSnapshots,
        Self::SwapsSignals,
    ];

    /// On average, the bug occurs at one in this many opportunities.
    const fn odds(self) -> usize {
        if matches!(
            self,
            Self::AgesWrongly
                | Self::DoesNotHold
                | Self::ForgetsHidden
                | Self::ForgetsStanding
                | Self::LeavesWrongSession
                | Self::LosesDeclined
                | Self::LosesLastPart
                | Self::LosesLineage
                | Self::LosesMeetingsForEver
                | Self::LosesOutcomes
                | Self::LosesTakeoverAnswers
        ) {
            1
        } else {
            4
        }
    }
}

/// Plants one kind of bug at random opportunities, or no bug.
#[derive(Debug)]
pub(crate) struct Saboteur {
    fault: Option<Fault>,
    rng: Rng,
    held: Option<(usize, ToShard)>,
    /// The hub whose relay is doing a slice.
    slice_of: Option<usize>,
    /// The peer that the slice skips.
    skipped: Option<PeerId>,
    /// A letter of a slice that is held back: the hub, the shard, the peer, the letter.
    late: Option<(usize, usize, PeerId, ToShard)>,
}

impl Saboteur {
    pub(crate) fn new(fault: Option<Fault>, seed: u64) -> Self {
        Self { fault, rng: Rng::new(!seed), held: None, slice_of: None, skipped: None, late: None }
    }

    fn strikes(&mut self, fault: Fault) -> bool {
        self.fault == Some(fault) && self.rng.one_in(fault.odds())
    }

    /// Whether the planted bug makes a shard ignore the letter from which this knowledge follows.
    pub(crate) fn ignores(&mut self, known: &Known) -> bool {
        match known {
            Known::Member { is_hidden: true, .. } => self.strikes(Fault::ForgetsHidden),
            Known::Elsewhere { has_ended: true, .. } => self.strikes(Fault::IgnoresEndElsewhere),
            Known::Member { .. } | Known::Elsewhere { .. } => false,
        }
    }

    /// Records that a hub's relay begins or ends a slice.
    pub(crate) fn slice(&mut self, hub: Option<usize>) {
        (self.slice_of, self.skipped) = (hub, None);
    }

    /// Whether a hub's machine does not receive `Continue`.
    pub(crate) fn loses_continue(&mut self) -> bool {
        self.strikes(Fault::LosesContinue)
    }

    /// The letters that a relay posts to a shard in place of this letter, if the planted bug concerns slices.
    fn letter_of_slice(&mut self, hub: usize, shard: usize, letter: ToShard) -> Vec<ToShard> {
        let Some(peer) = about(&letter) else { return vec![letter] };
        if let Some((.., late)) = self.late.take_if(|(h, s, p, _)| (*h, *s, *p) == (hub, shard, peer)) {
            return vec![letter, late];
        }
        if self.slice_of != Some(hub) {
            return vec![letter];
        }
        if self.skipped.is_none() && self.strikes(Fault::SkipsInSlice) {
            self.skipped = Some(peer);
        }
        if self.skipped == Some(peer) {
            return Vec::new();
        }
        if self.late.is_none() && self.strikes(Fault::OvertakesSlice) {
            self.late = Some((hub, shard, peer, letter));
            return Vec::new();
        }
        vec![letter]
    }

    /// The letters that are posted in place of this letter of a hub.
    pub(crate) fn letter(&mut self, hub: usize, from: usize, to: usize, relay: usize, letter: Posted) -> Vec<Posted> {
        if self.fault.is_none() {
            return vec![letter];
        }
        let from_relay = from == relay;
        match letter {
            Posted::ToShard(letter) if matches!(self.fault, Some(Fault::SkipsInSlice | Fault::OvertakesSlice)) => {
                let letters = if from_relay { self.letter_of_slice(hub, to, letter) } else { vec![letter] };
                letters.into_iter().map(Posted::ToShard).collect()
            }
            Posted::ToShard(letter) => {
                let letters = self.letter_to_shard(hub, from_relay, letter);
                letters.into_iter().map(Posted::ToShard).collect()
            }
            Posted::ToMesh(letter) => self.letter_to_mesh(letter).map(Posted::ToMesh).into_iter().collect(),
        }
    }

    fn letter_to_mesh(&mut self, letter: ToMesh) -> Option<ToMesh> {
        let loses = match &letter {
            ToMesh::Closed { .. } => Fault::LosesClosed,
            ToMesh::Joined(_) => Fault::LosesJoined,
            ToMesh::Left(_) => Fault::LosesLeft,
            ToMesh::Opened { .. } => Fault::LosesOpened,
            ToMesh::Outcome(_) => Fault::LosesOutcomeLetters,
            ToMesh::AskTakeover { .. }
            | ToMesh::ChallengeAnswered { .. }
            | ToMesh::Meeting { .. }
            | ToMesh::Signal(_) => return Some(letter),
        };
        (!self.strikes(loses)).then_some(letter)
    }

    fn letter_to_shard(&mut self, hub: usize, from_relay: bool, letter: ToShard) -> Vec<ToShard> {
        if let ToShard::Meeting(meeting) = &letter
            && meeting.kind == MeetingKind::Declined
            && self.strikes(Fault::LosesDeclined)
        {
            return Vec::new();
        }
        if let ToShard::Meeting(_) = letter
            && self.strikes(if from_relay { Fault::LosesMeetingsForEver } else { Fault::LosesMeetings })
        {
            return Vec::new();
        }
        if !from_relay {
            return vec![letter];
        }
        let loses = match &letter {
            ToShard::Elsewhere { .. } => Fault::LosesElsewhere,
            ToShard::Joined(_) => Fault::LosesJoined,
            ToShard::Left(_) => Fault::LosesLeft,
            ToShard::Nowhere { .. } => Fault::LosesNowhere,
            ToShard::Outcome(_) => Fault::LosesOutcomeLetters,
            ToShard::Signal(_) => return self.signal_letter(hub, letter),
            ToShard::Challenge { .. }
            | ToShard::Meeting(_)
            | ToShard::Renamed { .. }
            | ToShard::TakeoverAnswered { .. } => return vec![letter],
        };
        if self.strikes(loses) { Vec::new() } else { vec![letter] }
    }

    fn signal_letter(&mut self, hub: usize, letter: ToShard) -> Vec<ToShard> {
        if self.strikes(Fault::RepeatsSignalLetter) {
            return vec![letter.clone(), letter];
        }
        if let Some((_, held)) = self.held.take_if(|(at, _)| *at == hub) {
            return vec![letter, held];
        }
        if self.held.is_none() && self.strikes(Fault::SwapsSignals) {
            self.held = Some((hub, letter));
            return Vec::new();
        }
        vec![letter]
    }

    /// The envelopes that are sent in place of this envelope.
    pub(crate) fn envelope(&mut self, envelope: Envelope) -> Vec<Envelope> {
        if self.fault.is_none() {
            return vec![envelope];
        }
        let kind = envelope.kind();
        match envelope {
            Envelope::Heartbeat(beat) if self.strikes(Fault::AgesWrongly) => {
                let mut beat = (*beat).clone();
                beat.age_ms = 0;
                vec![Envelope::Heartbeat(Arc::new(beat))]
            }
            Envelope::Heartbeat(beat) if self.strikes(Fault::StormsForSnapshots) => {
                let request =
                    proto::envelope::SnapshotRequest { hub: beat.hub, incarnation: beat.incarnation, have: 0 };
                vec![Envelope::Heartbeat(beat), Envelope::SnapshotRequest(request)]
            }
            Envelope::Change(_) if self.strikes(Fault::LosesChange) => Vec::new(),
            Envelope::Change(change) if self.strikes(Fault::NoSplitHorizon) => {
                vec![Envelope::Change(Arc::clone(&change)), Envelope::Change(change)]
            }
            Envelope::Change(change)
                if matches!(change.kind, ChangeKind::Down(_)) && self.strikes(Fault::LeavesWrongSession) =>
            {
                let mut wrong = (*change).clone();
                wrong.session.0 -= 1;
                vec![Envelope::Change(Arc::new(wrong))]
            }
            Envelope::Snapshot(part) if part.last && self.strikes(Fault::LosesLastPart) => Vec::new(),
            Envelope::Routed(route, mut routed) => {
                match &mut *routed {
                    Routed::Signal(signal) if self.strikes(Fault::DoesNotHold) => signal.seq = 0,
                    Routed::Signal(signal) if self.strikes(Fault::ForgetsStanding) => {
                        signal.standing = Standing::Outsider;
                    }
                    Routed::Takeover { resume, .. } if self.strikes(Fault::LosesLineage) => *resume = None,
                    Routed::Outcomes(_) if self.strikes(Fault::LosesOutcomes) => return Vec::new(),
                    Routed::TakeoverAnswer { .. } if self.strikes(Fault::LosesTakeoverAnswers) => return Vec::new(),
                    Routed::Signal(_)
                    | Routed::Outcomes(_)
                    | Routed::Meeting(_)
                    | Routed::Takeover { .. }
                    | Routed::TakeoverAnswer { .. } => {}
                }
                let envelope = Envelope::Routed(route, routed);
                if kind == EnvelopeKind::Signal && self.strikes(Fault::RepeatsSignal) {
                    return vec![envelope.clone(), envelope];
                }
                vec![envelope]
            }
            envelope @ (Envelope::Hello(_)
            | Envelope::Heartbeat(_)
            | Envelope::Change(_)
            | Envelope::SnapshotRequest(_)
            | Envelope::SnapshotDeclined(_)
            | Envelope::Snapshot(_)
            | Envelope::Farewell(..)) => vec![envelope],
        }
    }
}

/// The peer whose presence a letter reports.
fn about(letter: &ToShard) -> Option<PeerId> {
    match letter {
        ToShard::Joined(announcement) => Some(announcement.peer),
        ToShard::Left(leave) => Some(leave.peer),
        ToShard::Elsewhere { peer, .. } | ToShard::Nowhere { peer, .. } => Some(*peer),
        ToShard::Challenge { .. }
        | ToShard::Meeting(_)
        | ToShard::Outcome(_)
        | ToShard::Renamed { .. }
        | ToShard::Signal(_)
        | ToShard::TakeoverAnswered { .. } => None,
    }
}
