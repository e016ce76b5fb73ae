//! The state of one other hub.

mod paths;
mod signal_route;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::envelope::{Change, Heartbeat, Presence};
use crate::id::{HubId, HubIncarnation, PeerId};
use crate::limits::{DOUBT_BEATS, LEASE, MAX_ENDED_INCARNATIONS, RIVAL_EVIDENCE};
use crate::route::Hop;
use crate::router::Origin;

use super::ahead::Ahead;
use super::budgets::{Budget, Kept};
use super::directory::LeaveCause;
use super::holding::Holding;
use super::repair::{Abandoned, Repair};
use super::rival::Answers;
use super::signals::{Inbound, Outbound, Outcomes, Pending};

pub(super) use paths::Paths;
pub(super) use signal_route::SignalRoute;

/// The state of one other hub. The relay directly changes those fields whose types have their own rules. All other
/// fields change only through methods of `Remote`.
#[derive(Debug)]
pub(super) struct Remote {
    /// The number that shards use for this hub, in [`Sender::Hub`](crate::Sender::Hub).
    number: u32,
    incarnation: HubIncarnation,
    state: Liveness,
    /// The hub's last heartbeat.
    beat: Arc<Heartbeat>,
    /// Time at which `beat` arrived.
    beat_at: Duration,
    /// Time at which this hub last lost all its links to the other hub.
    link_lost_at: Option<Duration>,
    contest: Option<Contest>,
    pub(super) answers: Answers,
    /// Incarnations that have sent a farewell, in the order of their farewells. At most [`MAX_ENDED_INCARNATIONS`]
    /// incarnations are kept.
    ended: VecDeque<HubIncarnation>,
    /// Time at which the lease from the last heartbeat expires. The start of the lease is not stored, because it can be
    /// before the start of this process.
    lease_ends: Duration,
    pub(super) holding: Holding,
    /// Peers for which the directory has a claim of this hub.
    claims: BTreeSet<PeerId>,
    unreconciled: Option<Unreconciled>,
    pub(super) ahead: Ahead,
    /// The bytes that the budgets count for this hub.
    accounted: Kept,
    /// The neighbour from which the hub's first heartbeat arrived. If the hub is a neighbour, this can be the hub
    /// itself.
    introduced_by: HubId,
    /// The number of a heartbeat that reported a lower last change than the replica had, and the last change of the
    /// replica at that time.
    mark: Option<(u64, u64)>,
    doubted: bool,
    pub(super) repair: Repair,
    pub(super) paths: Paths,
    pub(super) signal_route: SignalRoute,
    /// Time until which the hub counts as reachable over the bridge.
    bridged_until: Duration,
    pub(super) outbound: Outbound,
    /// Signals whose outcome will not arrive. The senders of these signals are notified in slices.
    lost: VecDeque<Outbound>,
    pub(super) inbound: Inbound,
    pub(super) outcomes: Outcomes,
}

/// Peers of a hub for which the directory and the shards are not up to date.
#[derive(Debug)]
struct Unreconciled {
    /// The last peer that a slice has processed.
    after: Option<PeerId>,
    /// The event that networks receive about peers that have left.
    cause: LeaveCause,
}

/// Another incarnation of a hub's id, which is not accepted while the known incarnation is alive.
#[derive(Clone, Copy, Debug)]
struct Contest {
    /// The incarnation, and the number of its process.
    life: (HubIncarnation, u64),
    since: Duration,
    /// Whether both incarnations have sent heartbeats for long enough to report
    /// [`TwoHubs`](super::MeshEvent::TwoHubs).
    is_proven: bool,
}

/// The parts of a stopped hub's state that are freed or answered later.
#[derive(Debug)]
pub(super) struct Stopped {
    /// The replica.
    pub(super) peers: BTreeMap<PeerId, Arc<Presence>>,
    /// The snapshot of which a part has arrived, and the neighbours that wait for it.
    pub(super) abandoned: Abandoned,
}

/// Whether another hub's current incarnation is alive, as far as this hub knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Liveness {
    /// The hub's lease is valid.
    Live,
    /// The hub's lease has expired. After a newer heartbeat of the same incarnation, the hub is live again.
    Lost,
    /// The hub has sent a farewell. Only another incarnation can be live again.
    Ended,
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
            unreconciled: None,
            ahead: Ahead::default(),
            accounted: Kept::default(),
            introduced_by,
            mark: None,
            doubted: false,
            repair: Repair::default(),
            paths: Paths::default(),
            signal_route: SignalRoute::default(),
            bridged_until: Duration::ZERO,
            outbound: Outbound::default(),
            lost: VecDeque::new(),
            inbound: Inbound::default(),
            outcomes: Outcomes::default(),
        }
    }

    /// Records a farewell. Late heartbeats of the ended incarnation do not make the hub live again.
    pub(super) fn note_ended(&mut self, incarnation: HubIncarnation) {
        if !self.has_ended(incarnation) {
            if self.ended.len() == MAX_ENDED_INCARNATIONS {
                self.ended.pop_front();
            }
            self.ended.push_back(incarnation);
        }
    }

    /// Whether an incarnation has sent a farewell.
    pub(super) fn has_ended(&self, incarnation: HubIncarnation) -> bool {
        self.ended.contains(&incarnation)
    }

    /// Accepts a heartbeat of the known incarnation.
    pub(super) fn renew(&mut self, via: Hop, beat: &Arc<Heartbeat>, lease_ends: Duration, now: Duration) {
        self.state = Liveness::Live;
        self.beat = Arc::clone(beat);
        self.beat_at = now;
        self.lease_ends = lease_ends;
        if via == Hop::Bridge(beat.hub) {
            self.bridged_until = lease_ends;
        }
        self.paths.note(via, beat.number, true);
    }

    /// Replaces the known incarnation. Before, [`Self::stop`] must have removed the peers of the known incarnation.
    pub(super) fn begin_incarnation(&mut self, incarnation: HubIncarnation) {
        self.incarnation = incarnation;
        self.paths = Paths::default();
        self.repair.begin_incarnation();
        self.contest = None;
        self.link_lost_at = None;
    }

    /// Empties the replica of a hub that is lost or has ended, or that has a new incarnation.
    pub(super) fn stop(&mut self, state: Liveness) -> Stopped {
        self.state = state;
        self.ahead.clear();
        self.trust();
        self.outcomes = Outcomes::default();
        let abandoned = self.repair.end();
        Stopped { peers: self.holding.replace(0, 0, BTreeMap::new(), 0), abandoned }
    }

    /// Restarts the counters of signals, and gives the hub a new number. Returns the old number.
    pub(super) fn restart_counters(&mut self, number: u32) -> u32 {
        self.outbound = Outbound::default();
        self.inbound = Inbound::default();
        self.signal_route = SignalRoute::default();
        self.outcomes = Outcomes::default();
        std::mem::replace(&mut self.number, number)
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn incarnation(&self) -> HubIncarnation {
        self.incarnation
    }

    pub(super) fn state(&self) -> Liveness {
        self.state
    }

    /// The hub's last heartbeat.
    pub(super) fn beat(&self) -> &Arc<Heartbeat> {
        &self.beat
    }

    /// Time at which the last heartbeat arrived.
    pub(super) fn beat_at(&self) -> Duration {
        self.beat_at
    }

    /// Time at which the lease from the last heartbeat expires.
    pub(super) fn lease_ends(&self) -> Duration {
        self.lease_ends
    }

    pub(super) fn hub(&self) -> HubId {
        self.beat.hub
    }

    /// Records that the last link to the hub has ended.
    pub(super) fn note_link_lost(&mut self, now: Duration) {
        self.link_lost_at = Some(now);
    }

    /// Whether the last link to the hub ended after the hub's last heartbeat.
    pub(super) fn has_lost_link(&self) -> bool {
        self.link_lost_at.is_some_and(|at| at >= self.beat_at)
    }

    /// Records a heartbeat of another incarnation, while the known incarnation is alive. Returns true once for each
    /// other incarnation, if both incarnations still send heartbeats [`RIVAL_EVIDENCE`] after the first heartbeat of
    /// the other incarnation.
    pub(super) fn note_contest(&mut self, life: (HubIncarnation, u64), now: Duration) -> bool {
        let known = self.contest.filter(|contest| contest.life == life);
        let contest = known.unwrap_or(Contest { life, since: now, is_proven: false });
        let is_proven = contest.is_proven || self.beat_at > contest.since + RIVAL_EVIDENCE;
        self.contest = Some(Contest { is_proven, ..contest });
        is_proven && !contest.is_proven
    }

    /// Another incarnation of this hub's id that is not accepted.
    pub(super) fn contested_by(&self) -> Option<HubIncarnation> {
        self.contest.map(|contest| contest.life.0)
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

    /// Records that the hub has sent a heartbeat on the bridge.
    pub(super) fn note_bridged(&mut self, until: Duration) {
        self.bridged_until = until;
    }

    /// Records that this hub has lost its connection to the bridge.
    pub(super) fn note_bridge_lost(&mut self) {
        self.paths.forget(|via| matches!(via, Hop::Bridge(_)));
        self.bridged_until = Duration::ZERO;
    }

    /// Assigns a counter to the next signal to the hub, and records the hop of this signal.
    pub(super) fn issue(&mut self, via: Hop, origin: Origin, target: PeerId, now: Duration) -> u64 {
        self.signal_route.note_sent(via, self.outbound.counter());
        self.outbound.issue(origin, target, now)
    }

    /// Records that the outcome of a signal arrived. Returns the signal. Returns `None` if the signal has expired.
    pub(super) fn answered(&mut self, counter: u64) -> Option<Pending> {
        self.signal_route.note_answered(counter, self.outbound.counter());
        self.outbound.take(counter)
    }

    /// Avoids the current hop of the signals to the hub if these signals get no outcomes. Returns true if the hop is
    /// now avoided.
    pub(super) fn avoid_unanswered(&mut self, now: Duration) -> bool {
        self.is_live() && self.outbound.len() > 0 && self.signal_route.avoid_unanswered(&self.outbound, now)
    }

    /// Gives up all signals to the hub, because no outcomes will arrive. Returns true if there are such signals.
    pub(super) fn give_up_outbound(&mut self) -> bool {
        let lost = self.outbound.give_up();
        let any = lost.len() > 0;
        if any {
            self.lost.push_back(lost);
        }
        any
    }

    /// Removes and returns the oldest signal that was given up.
    pub(super) fn take_lost(&mut self) -> Option<Pending> {
        while let Some(lost) = self.lost.front_mut() {
            let oldest = lost.take_oldest();
            if oldest.is_some() {
                return oldest;
            }
            self.lost.pop_front();
        }
        None
    }

    /// Whether signals that were given up remain.
    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Number of the hub's changes that are missing in the replica.
    pub(super) fn lag(&self) -> u64 {
        self.beat.seq.saturating_sub(self.holding.seq)
    }

    /// Stores a change until the missing earlier changes have arrived. Returns false if there is no room.
    pub(super) fn keep_ahead(&mut self, change: &Arc<Change>, budget: Budget) -> bool {
        self.ahead.keep(Arc::clone(change), self.beat.number, budget.allows(self.accounted.ahead))
    }

    /// The neighbour from which the hub's first heartbeat arrived.
    pub(super) fn introduced_by(&self) -> HubId {
        self.introduced_by
    }

    /// The bytes that were stored for the hub at the last [`Self::account`].
    pub(super) fn accounted(&self) -> Kept {
        self.accounted
    }

    /// The bytes that are stored for the hub. While a snapshot arrives, both the replica and the snapshot are stored,
    /// but only the larger of the two counts.
    pub(super) fn kept(&self) -> Kept {
        let presence = self.holding.bytes().max(self.repair.bytes());
        Kept { presence, ahead: self.ahead.bytes(), held: self.inbound.bytes() }
    }

    /// Records the bytes that are stored for the hub now. Returns the previously recorded bytes and the new ones.
    pub(super) fn account(&mut self) -> (Kept, Kept) {
        let now = self.kept();
        (std::mem::replace(&mut self.accounted, now), now)
    }

    /// Compares the last heartbeat with an earlier one, to detect a replica with changes that the hub has never made.
    pub(super) fn doubt(&mut self) {
        let (number, seq) = (self.beat.number, self.beat.seq);
        if self.holding.seq <= seq {
            return self.trust();
        }
        match self.mark {
            Some((at, _)) if number < at.saturating_add(DOUBT_BEATS) => {}
            Some((_, known)) if seq < known => self.doubted = true,
            Some(_) | None => self.mark = Some((number, self.holding.seq)),
        }
    }

    /// Whether this replica has changes that the hub has probably never made, because several later heartbeats report a
    /// lower last change. For a doubted replica, a snapshot with a lower last change is accepted, and neighbours'
    /// snapshot requests are declined.
    pub(super) fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// Records that the replica is no longer doubted, because it was replaced or a heartbeat has confirmed it.
    pub(super) fn trust(&mut self) {
        (self.mark, self.doubted) = (None, false);
    }

    /// Records that the directory and the shards must be updated for all peers of the hub.
    pub(super) fn mark_unreconciled(&mut self, cause: LeaveCause) {
        // If an incarnation of the hub has ended, the peers that are still unreconciled leave because of that end, even
        // if the next incarnation has already sent changes.
        let is_ending =
            self.unreconciled.as_ref().is_some_and(|unreconciled| matches!(unreconciled.cause, LeaveCause::HubGone));
        let cause = if is_ending { LeaveCause::HubGone } else { cause };
        self.unreconciled = Some(Unreconciled { after: None, cause });
    }

    /// The cause of a peer's pending leave, if no slice has processed the peer yet.
    pub(super) fn pending_leave(&self, peer: &PeerId) -> Option<&LeaveCause> {
        self.unreconciled
            .as_ref()
            .filter(|unreconciled| unreconciled.after.is_none_or(|after| *peer > after))
            .map(|u| &u.cause)
    }

    /// The next peer to reconcile. The directory has the hub's claim to this peer, or the hub's replica has this peer.
    pub(super) fn next_unreconciled(&mut self) -> Option<PeerId> {
        let from = match self.unreconciled.as_ref()?.after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Unbounded,
        };
        let claimed = self.claims.range((from, Bound::Unbounded)).next();
        let held = self.holding.peers.range((from, Bound::Unbounded)).next().map(|(peer, _)| peer);
        let next = [claimed, held].into_iter().flatten().min().copied();
        if next.is_none() {
            self.unreconciled = None;
        }
        next
    }

    /// Records that the directory and the shards are up to date for the hub's peers up to this one.
    pub(super) fn note_reconciled(&mut self, peer: PeerId) {
        if let Some(unreconciled) = &mut self.unreconciled {
            unreconciled.after = Some(peer);
        }
    }

    /// Whether the directory and the shards must be updated for some of the hub's peers.
    pub(super) fn is_unreconciled(&self) -> bool {
        self.unreconciled.is_some()
    }

    /// Peers for which the directory has a claim of this hub.
    pub(super) fn claims(&self) -> &BTreeSet<PeerId> {
        &self.claims
    }

    /// Records whether the directory has a claim of this hub to a peer.
    pub(super) fn record_claim(&mut self, peer: PeerId, is_there: bool) {
        if is_there {
            self.claims.insert(peer);
        } else {
            self.claims.remove(&peer);
        }
    }

    /// Whether the next change has arrived and can be applied. No change can be applied while a snapshot is requested.
    pub(super) fn is_catching_up(&self) -> bool {
        !self.repair.is_under_way() && self.ahead.first().is_some_and(|seq| seq <= self.holding.seq + 1)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.unreconciled.is_some() || self.has_lost() || self.is_catching_up()
    }

    /// Number of signals to the hub whose senders have not received an outcome.
    pub(super) fn in_flight(&self) -> usize {
        self.outbound.len() + self.lost.iter().map(Outbound::len).sum::<usize>()
    }

    #[cfg(test)]
    pub(super) fn edit_beat(&mut self, edit: impl FnOnce(&mut Heartbeat)) {
        edit(Arc::make_mut(&mut self.beat));
    }

    /// The time of the hub's next timeout.
    pub(super) fn due(&self) -> Option<Duration> {
        let lease = self.is_live().then_some(self.lease_ends);
        let due = [lease, self.repair.due(), self.outcomes.due(), self.inbound.due(), self.outbound.due()];
        due.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::HEARTBEAT;

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
    fn a_replica_is_doubted_after_four_heartbeats_with_a_lower_last_change() {
        let mut remote = remote(10, 5);
        remote.holding.seq = 8;
        for (number, doubted) in [(10, false), (13, false), (14, true)] {
            remote.edit_beat(|beat| (beat.number, beat.seq) = (number, 6));
            remote.doubt();
            assert_eq!(remote.doubted, doubted, "{number}");
        }
        remote.edit_beat(|beat| (beat.number, beat.seq) = (15, 8));
        remote.doubt();
        assert!(!remote.doubted && remote.mark.is_none(), "a heartbeat has confirmed the replica's number");
        // Changes that arrive before the heartbeat that reports them do not make the replica doubted.
        for number in 16..30 {
            remote.holding.seq += 1;
            let seq = remote.holding.seq - 1;
            remote.edit_beat(|beat| (beat.number, beat.seq) = (number, seq));
            remote.doubt();
            assert!(!remote.doubted, "{number}");
        }
    }

    #[test]
    fn the_age_of_a_heartbeat_is_computed_from_the_end_of_its_lease() {
        let remote = remote(1, 0);
        assert_eq!((remote.age(NOW), remote.age(NOW + HEARTBEAT)), (Duration::ZERO, HEARTBEAT));
        assert!(!remote.is_bridged(NOW), "the hub has sent nothing on the bridge");
    }
}
