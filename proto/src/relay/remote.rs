//! The state of one other hub.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::envelope::{Change, Heartbeat};
use crate::id::{HubId, HubIncarnation, PeerId};
use crate::limits::{DOUBT_BEATS, HEARTBEAT, LEASE, MAX_ENDED_LIVES, ROUTE_PATIENCE};
use crate::reason::Outcome;
use crate::route::Hop;

use super::ahead::Ahead;
use super::budgets::{Budget, Kept};
use super::holding::Holding;
use super::repair::Repair;
use super::rival::Answers;
use super::signals::{Inbound, Outbound};
use super::slices::Unsettled;

#[derive(Debug)]
pub(super) struct Remote {
    /// The number that shards use for this hub, in [`Sender::Hub`](crate::Sender::Hub).
    pub(super) number: u32,
    pub(super) incarnation: HubIncarnation,
    pub(super) state: Liveness,
    /// The hub's last heartbeat.
    pub(super) beat: Arc<Heartbeat>,
    /// Time at which `beat` arrived.
    pub(super) beat_at: Duration,
    /// Time at which the last link to the hub ended, if there is no link now.
    pub(super) link_lost_at: Option<Duration>,
    /// Another incarnation of this hub's id, the time at which that incarnation appeared, and whether `TwoHubs` was
    /// reported for it. It is not accepted while the known incarnation is alive.
    pub(super) contest: Option<((HubIncarnation, u64), Duration, bool)>,
    pub(super) answers: Answers,
    /// Incarnations that have sent a farewell, in the order of their farewells. At most [`MAX_ENDED_LIVES`] are kept.
    ended: VecDeque<HubIncarnation>,
    /// Time at which the lease from the last heartbeat expires. The start of the lease is not stored, because it can be
    /// before the start of this process.
    pub(super) lease_ends: Duration,
    pub(super) holding: Holding,
    /// Peers for which the directory has a claim of this hub.
    pub(super) claims: BTreeSet<PeerId>,
    pub(super) unsettled: Option<Unsettled>,
    pub(super) ahead: Ahead,
    /// The bytes of this hub that the budgets count.
    accounted: Kept,
    /// The neighbour from which the hub's first heartbeat arrived. It is the hub itself if the hub is a neighbour.
    introduced_by: HubId,
    /// The number of a heartbeat whose change number was lower than the replica's, and the last change of the replica
    /// at that time.
    pub(super) mark: Option<(u64, u64)>,
    /// Whether this replica has changes that later heartbeats of the hub do not count. A snapshot with a lower number
    /// is then accepted, and neighbours' requests for a snapshot of this hub are declined.
    pub(super) doubted: bool,
    pub(super) repair: Repair,
    pub(super) paths: Paths,
    /// The hop for signals to the hub, and the counter of the last signal that used another hop.
    pub(super) sent_by: Option<(Hop, u64)>,
    /// The counter of the last signal that was sent before the latest outcome arrived.
    pub(super) answered: u64,
    /// A hop whose signals were not answered.
    pub(super) avoided: Option<Avoided>,
    /// Time until which the hub counts as reachable over the bridge.
    pub(super) bridged_until: Duration,
    pub(super) outbound: Outbound,
    /// Signals whose outcome will not arrive. Their senders are notified in slices.
    pub(super) lost: VecDeque<Outbound>,
    pub(super) inbound: Inbound,
    /// Outcomes that must be sent to the hub.
    pub(super) outcomes: Vec<(u64, Outcome)>,
    pub(super) outcomes_due: Option<Duration>,
}

/// Whether another hub's current incarnation is alive, as far as this hub knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Liveness {
    /// The hub's lease is valid.
    Live,
    /// The hub's lease has expired. After a newer heartbeat of the same incarnation, the hub is live again.
    Lost,
    /// The hub has sent a farewell. Only a new incarnation is live again.
    Ended,
}

/// A hop that signals avoid if there is another route.
#[derive(Debug)]
pub(super) struct Avoided {
    pub(super) via: Hop,
    /// One less than the counter of the first unanswered signal over this hop.
    pub(super) after: u64,
    /// The counter of the last signal over this hop.
    pub(super) last: u64,
    pub(super) until: Duration,
}

impl Remote {
    pub(super) fn new(
        number: u32,
        beat: Arc<Heartbeat>,
        introduced_by: HubId,
        lease_ends: Duration,
        max_peers: usize,
        now: Duration,
    ) -> Self {
        Self {
            number,
            incarnation: beat.incarnation,
            state: Liveness::Live,
            beat,
            beat_at: now,
            link_lost_at: None,
            contest: None,
            answers: Answers::default(),
            ended: VecDeque::new(),
            lease_ends,
            holding: Holding::new(max_peers),
            claims: BTreeSet::new(),
            unsettled: None,
            ahead: Ahead::default(),
            accounted: Kept::default(),
            introduced_by,
            mark: None,
            doubted: false,
            repair: Repair::default(),
            paths: Paths::default(),
            sent_by: None,
            answered: 0,
            avoided: None,
            bridged_until: Duration::ZERO,
            outbound: Outbound::default(),
            lost: VecDeque::new(),
            inbound: Inbound::default(),
            outcomes: Vec::new(),
            outcomes_due: None,
        }
    }

    /// Records a farewell. Late heartbeats of that incarnation do not revive it.
    pub(super) fn note_ended(&mut self, life: HubIncarnation) {
        if !self.has_ended(life) {
            if self.ended.len() == MAX_ENDED_LIVES {
                self.ended.pop_front();
            }
            self.ended.push_back(life);
        }
    }

    /// Whether an incarnation has sent a farewell.
    pub(super) fn has_ended(&self, life: HubIncarnation) -> bool {
        self.ended.contains(&life)
    }

    pub(super) fn hub(&self) -> HubId {
        self.beat.hub
    }

    pub(super) fn is_live(&self) -> bool {
        self.state == Liveness::Live
    }

    /// Age of the last heartbeat, as far as this hub knows it.
    pub(super) fn age(&self, now: Duration) -> Duration {
        (now + LEASE).saturating_sub(self.lease_ends)
    }

    pub(super) fn is_bridged(&self, now: Duration) -> bool {
        self.bridged_until > now
    }

    /// Records the hop of the next signal.
    pub(super) fn note_sent(&mut self, via: Hop) {
        if self.sent_by.is_none_or(|(before, _)| before != via) {
            self.sent_by = Some((via, self.outbound.counter()));
        }
    }

    /// Records that the outcome of a signal arrived. If the signal used the avoided hop, that hop works and is no
    /// longer avoided.
    pub(super) fn note_answered(&mut self, counter: u64) {
        self.answered = self.outbound.counter();
        self.avoided.take_if(|avoided| avoided.after < counter && counter <= avoided.last);
    }

    /// Number of the hub's changes that are missing in the replica.
    pub(super) fn lag(&self) -> u64 {
        self.beat.seq.saturating_sub(self.holding.seq)
    }

    /// Keeps a change that arrived before an earlier change. Returns false if there is no room.
    pub(super) fn keep_ahead(&mut self, change: &Arc<Change>, budget: Budget) -> bool {
        self.ahead.keep(Arc::clone(change), self.beat.number, budget.allows(self.accounted.ahead))
    }

    /// The neighbour from which the hub's first heartbeat arrived.
    pub(super) fn introduced_by(&self) -> HubId {
        self.introduced_by
    }

    /// The bytes that were kept for the hub at the last [`Self::account`].
    pub(super) fn accounted(&self) -> Kept {
        self.accounted
    }

    /// The bytes that are kept for the hub. While a snapshot arrives, both the replica and the snapshot are stored, but
    /// only the larger of the two counts.
    pub(super) fn kept(&self) -> Kept {
        let presence = self.holding.bytes().max(self.repair.bytes());
        Kept { presence, ahead: self.ahead.bytes(), held: self.inbound.bytes() }
    }

    /// Records the bytes that are kept for the hub now. Returns the previously recorded bytes and the new ones.
    pub(super) fn account(&mut self) -> (Kept, Kept) {
        let now = self.kept();
        (std::mem::replace(&mut self.accounted, now), now)
    }

    /// Compares the last heartbeat with an earlier one, to detect a replica with changes that the hub has never made.
    pub(super) fn doubt(&mut self) {
        let (number, seq) = (self.beat.number, self.beat.seq);
        if self.holding.seq <= seq {
            (self.mark, self.doubted) = (None, false);
            return;
        }
        match self.mark {
            Some((at, _)) if number < at.saturating_add(DOUBT_BEATS) => {}
            Some((_, known)) if seq < known => self.doubted = true,
            Some(_) | None => self.mark = Some((number, self.holding.seq)),
        }
    }

    /// Number of signals to the hub whose senders have not received an outcome.
    pub(super) fn in_flight(&self) -> usize {
        self.outbound.len() + self.lost.iter().map(Outbound::len).sum::<usize>()
    }

    /// The time of the hub's next timeout.
    pub(super) fn due(&self) -> Option<Duration> {
        let lease = self.is_live().then_some(self.lease_ends);
        let due = [lease, self.repair.due(), self.outcomes_due, self.inbound.due(), self.outbound.due()];
        due.into_iter().flatten().min()
    }
}

/// The neighbours through which a hub's heartbeats arrive.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// The last heartbeat over each hop, the newest last.
    heard: Vec<(Hop, u64)>,
    best: Option<Hop>,
    worse: u8,
}

impl Paths {
    /// Maximum difference between the newest heartbeat and the last heartbeat over a hop. A hop with a greater
    /// difference is removed.
    const SLACK: u64 = 2 * LEASE.as_secs() / HEARTBEAT.as_secs();

    /// Records that a heartbeat arrived over a hop. `first` means that this heartbeat had not arrived over another hop
    /// before.
    pub(super) fn note(&mut self, via: Hop, number: u64, first: bool) {
        self.heard.retain(|(hop, last)| *hop != via && last + Self::SLACK >= number);
        self.heard.push((via, number));
        if !first {
            return;
        }
        match self.best {
            Some(best) if best == via => self.worse = 0,
            Some(best) if self.heard.iter().any(|(hop, _)| *hop == best) && self.worse + 1 < ROUTE_PATIENCE => {
                self.worse += 1;
            }
            Some(_) | None => {
                self.best = Some(via);
                self.worse = 0;
            }
        }
    }

    /// The hop to use.
    pub(super) fn best(&self) -> Option<Hop> {
        self.best
    }

    /// All hops over which heartbeats arrived recently, the latest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = Hop> {
        self.heard.iter().rev().map(|(hop, _)| *hop)
    }

    /// Removes hops that no longer exist.
    pub(super) fn forget(&mut self, gone: impl Fn(Hop) -> bool) {
        self.heard.retain(|(hop, _)| !gone(*hop));
        if self.best.is_some_and(&gone) {
            self.best = self.heard.iter().max_by_key(|(_, number)| *number).map(|(hop, _)| *hop);
            self.worse = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::LinkId;

    const NOW: Duration = Duration::from_secs(100);

    fn beat(number: u64, seq: u64) -> Arc<Heartbeat> {
        Arc::new(Heartbeat {
            hub: HubId(PeerId::from_bytes([1; 20])),
            incarnation: HubIncarnation(1),
            number,
            seq,
            digest: 0,
            age_ms: 0,
            draining: false,
            neighbours: Vec::new(),
            advertise: None,
            public_url: None,
            process: 1,
            unheard: Vec::new(),
            link_unheard: false,
            status: None,
        })
    }

    fn remote(number: u64, seq: u64) -> Remote {
        Remote::new(1, beat(number, seq), HubId(PeerId::from_bytes([1; 20])), NOW + LEASE, 10, NOW)
    }

    #[test]
    fn a_replica_is_doubted_if_four_later_heartbeats_are_behind_it() {
        let mut remote = remote(10, 5);
        remote.holding.seq = 8;
        for (number, doubted) in [(10, false), (13, false), (14, true)] {
            remote.beat = beat(number, 6);
            remote.doubt();
            assert_eq!(remote.doubted, doubted, "{number}");
        }
        remote.beat = beat(15, 8);
        remote.doubt();
        assert!(!remote.doubted && remote.mark.is_none(), "a heartbeat has confirmed the replica's number");
        // Changes that arrive before the heartbeat that counts them do not cause doubt.
        for number in 16..30 {
            remote.holding.seq += 1;
            remote.beat = beat(number, remote.holding.seq - 1);
            remote.doubt();
            assert!(!remote.doubted, "{number}");
        }
    }

    #[test]
    fn the_age_of_a_heartbeat_is_the_used_part_of_its_lease() {
        let remote = remote(1, 0);
        assert_eq!((remote.age(NOW), remote.age(NOW + HEARTBEAT)), (Duration::ZERO, HEARTBEAT));
        assert!(!remote.is_bridged(NOW), "the hub has sent nothing on the bridge");
    }

    #[test]
    fn a_hop_that_is_gone_is_replaced_by_the_one_with_the_latest_heartbeat() {
        let hops = [1, 2, 3].map(|n| Hop::Link(LinkId(n)));
        let mut paths = Paths::default();
        for (hop, number) in hops.into_iter().zip([5, 7, 6]) {
            paths.note(hop, number, number == 5);
        }
        assert_eq!(paths.best(), Some(hops[0]));
        paths.forget(|via| via == hops[2]);
        assert_eq!(paths.best(), Some(hops[0]), "another hop is gone");
        paths.note(hops[2], 6, false);
        paths.forget(|via| via == hops[0]);
        assert_eq!(paths.best(), Some(hops[1]));
        assert_eq!(paths.newest_first().collect::<Vec<_>>(), [hops[2], hops[1]]);
        paths.note(hops[0], 7 + Paths::SLACK, false);
        assert_eq!(paths.newest_first().count(), 2, "the last heartbeat over the removed hop, number 6, is too old");
        assert!(paths.newest_first().all(|hop| hop != hops[2]));
    }

    #[test]
    fn an_answer_ends_avoidance_only_if_it_is_to_a_signal_over_the_avoided_hop() {
        let via = Hop::Link(LinkId(1));
        for (counter, avoided) in [(3, true), (4, false), (9, false), (10, true)] {
            let mut remote = remote(1, 0);
            remote.avoided = Some(Avoided { via, after: 3, last: 9, until: NOW });
            remote.note_answered(counter);
            assert_eq!(remote.avoided.is_some(), avoided, "{counter}");
        }
    }
}
