//! The repair of this hub's replica of another hub's presence. `Repair` stores the time since which changes are
//! missing, the plan for the next snapshot request, and the parts of the snapshot that have arrived.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::envelope::{Presence, SnapshotPart};
use crate::id::PeerId;
use crate::limits::{
    GAP_PATIENCE, MAX_MEMBERSHIPS, MAX_SNAPSHOT_WAITERS, MAX_VAIN_REPAIRS, SNAPSHOT_LIMIT, SNAPSHOT_PATIENCE,
    SNAPSHOT_RATE_BYTES, SNAPSHOT_SLACK,
};
use crate::route::Hop;

use super::{budgets, holding};

/// The repair of one hub's replica. At most one snapshot is requested at a time.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// Time since which changes are known to be missing. `None` if none are missing.
    behind_since: Option<Duration>,
    /// Time at which the next snapshot must be requested.
    ask_at: Option<Duration>,
    sync: Option<Sync>,
    /// Neighbours that requested a snapshot of the same hub while `sync` was in progress. This hub answers these
    /// neighbours when `sync` ends.
    waiters: Vec<Hop>,
    /// The hop of the last request that brought no usable snapshot.
    failed: Option<Hop>,
    /// Number of snapshots that arrived since this replica last agreed with a heartbeat.
    vain: u32,
    /// Time at which the last snapshot in `vain` arrived.
    vain_at: Duration,
    /// The hop over which the last snapshot in `vain` arrived. `None` after this hub has detected that this snapshot
    /// was wrong.
    repaired_by: Option<Hop>,
}

/// A requested snapshot.
#[derive(Debug)]
struct Sync {
    via: Hop,
    /// Time of the request.
    since: Duration,
    deadline: Duration,
    /// Approximate size of the parts received so far, in bytes.
    bytes: u64,
    parts: u32,
    seq: u64,
    digest: u64,
    /// The digest of the parts received so far.
    found: u64,
    peers: BTreeMap<PeerId, Arc<Presence>>,
    /// Size of `peers` in the memory of this hub, in bytes.
    kept: usize,
}

/// A complete snapshot, which replaces a replica.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The hop over which the snapshot arrived.
    pub(super) via: Hop,
    /// The last change that the snapshot includes.
    pub(super) seq: u64,
    /// The digest of the peers.
    pub(super) digest: u64,
    /// The peers.
    pub(super) peers: BTreeMap<PeerId, Arc<Presence>>,
    /// Size of the peers in the memory of this hub, in bytes.
    pub(super) bytes: usize,
}

/// Limits of a snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    /// Maximum number of peers.
    pub(super) peers: usize,
    /// Maximum size of the peers, in bytes.
    pub(super) bytes: usize,
}

/// The state of a request that has ended without a snapshot.
#[derive(Debug, Default)]
pub(super) struct Abandoned {
    /// The peers that have arrived.
    pub(super) peers: BTreeMap<PeerId, Arc<Presence>>,
    /// Neighbours whose requests waited for this request.
    pub(super) waiters: Vec<Hop>,
}

/// The answer to a neighbour that requests a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// This hub waits for no snapshot, so it can send its current replica.
    NotNeeded,
    /// The neighbour's request waits until this hub has received the snapshot.
    Waits,
    /// The request is declined, for one of two reasons. Too many neighbours wait already, or this hub has asked the
    /// same neighbour. If this hub has asked the same neighbour, the two hubs would otherwise wait for each other.
    Declined,
}

impl Sync {
    fn new(via: Hop, now: Duration) -> Self {
        let peers = BTreeMap::new();
        Self {
            via,
            since: now,
            deadline: now + SNAPSHOT_PATIENCE,
            bytes: 0,
            parts: 0,
            seq: 0,
            digest: 0,
            found: 0,
            peers,
            kept: 0,
        }
    }

    /// Adds the next part if this part is in order, well-formed, and within the limits.
    fn take(&mut self, part: SnapshotPart, most: Most, now: Duration) -> bool {
        if part.part == 0 && self.parts == 0 {
            (self.seq, self.digest) = (part.seq, part.digest);
        }
        let is_next = (part.part, part.seq, part.digest) == (self.parts, self.seq, self.digest);
        let kept = self.kept + part.peers.iter().map(|peer| budgets::presence_bytes(peer)).sum::<usize>();
        let fits = self.peers.len() + part.peers.len() <= most.peers && kept <= most.bytes;
        let brings_something = part.last || !part.peers.is_empty();
        // Ids must ascend over all parts, so that no peer of an earlier part appears again.
        let last = self.peers.last_key_value().map(|(&peer, _)| peer);
        let peers = || last.into_iter().chain(part.peers.iter().map(|presence| presence.peer));
        let ascends = peers().zip(peers().skip(1)).all(|(a, b)| a < b);
        if !(is_next && fits && brings_something && ascends && part.peers.iter().all(|presence| is_sound(presence))) {
            return false;
        }
        self.parts += 1;
        self.kept = kept;
        self.found ^= holding::digest(part.peers.iter());
        self.bytes += part.peers.iter().map(|presence| presence_bytes(presence)).sum::<u64>();
        let in_time = SNAPSHOT_SLACK + Duration::from_millis(self.bytes * 1000 / SNAPSHOT_RATE_BYTES);
        self.deadline = (now + SNAPSHOT_PATIENCE).min(self.since + in_time.min(SNAPSHOT_LIMIT));
        self.peers.extend(part.peers.into_iter().map(|presence| (presence.peer, presence)));
        true
    }
}

/// Whether a peer has at most the allowed number of memberships, in the order of networks.
fn is_sound(presence: &Presence) -> bool {
    let memberships = &presence.memberships;
    memberships.len() <= MAX_MEMBERSHIPS && memberships.is_sorted_by(|a, b| a.network < b.network)
}

/// Size of a peer's id and session in a snapshot, in bytes.
const ID_BYTES: u64 = 28;

/// Approximate size of a peer in a snapshot, in bytes.
fn presence_bytes(presence: &Presence) -> u64 {
    let memberships = presence.memberships.iter().map(|announcement| announcement.discovered.frame_len() as u64);
    ID_BYTES + memberships.sum::<u64>()
}

impl Repair {
    /// Time since which changes are known to be missing. `None` if none are missing.
    pub(super) fn behind_since(&self) -> Option<Duration> {
        self.behind_since
    }

    /// The hop over which a snapshot is requested, if there is a request.
    pub(super) fn asked(&self) -> Option<Hop> {
        self.sync.as_ref().map(|sync| sync.via)
    }

    /// Whether a snapshot is requested and has not arrived.
    pub(super) fn is_under_way(&self) -> bool {
        self.sync.is_some()
    }

    /// The time of the next timeout.
    pub(super) fn due(&self) -> Option<Duration> {
        [self.sync.as_ref().map(|sync| sync.deadline), self.ask_at].into_iter().flatten().min()
    }

    /// Whether the requested snapshot is late.
    pub(super) fn is_late(&self, now: Duration) -> bool {
        self.sync.as_ref().is_some_and(|sync| sync.deadline <= now)
    }

    /// Whether a snapshot must be requested now.
    pub(super) fn is_asking(&self, now: Duration) -> bool {
        self.ask_at.is_some_and(|at| at <= now)
    }

    /// Records that a change is missing. This hub waits for the missing change for a while, and then requests a
    /// snapshot.
    pub(super) fn note_behind(&mut self, now: Duration) {
        self.behind_since.get_or_insert(now);
        let at = self.next_ask(now);
        self.ask_at.get_or_insert(at);
    }

    /// Records that changes are missing, and that they are not in transit. A snapshot is requested immediately.
    pub(super) fn note_far_behind(&mut self, now: Duration) {
        self.behind_since.get_or_insert(now);
        self.ask_at = Some(now);
    }

    /// Records that the replica differs from the hub's heartbeat. If the last snapshot was wrong, the next request uses
    /// another hop, after a pause.
    pub(super) fn note_wrong(&mut self, now: Duration) {
        if let Some(via) = self.repaired_by.take() {
            self.failed = Some(via);
        }
        if self.vain > 0 {
            self.note_behind(now);
        } else {
            self.note_far_behind(now);
        }
    }

    /// Records that a heartbeat does not contradict the replica. `is_complete` is true if the heartbeat and the replica
    /// have the same last change.
    pub(super) fn note_agrees(&mut self, is_complete: bool) {
        self.vain = 0;
        if is_complete {
            (self.behind_since, self.ask_at, self.repaired_by) = (None, None, None);
        }
    }

    /// Records that all missing changes have arrived.
    pub(super) fn note_caught_up(&mut self) {
        (self.behind_since, self.ask_at) = (None, None);
    }

    /// Whether snapshots have arrived, but the replica has not matched a heartbeat of its hub since.
    pub(super) fn is_vain(&self) -> bool {
        self.vain > 0
    }

    /// Time of the next request, if the reason for the request is detected now.
    ///
    /// The pause begins at the last snapshot that did not repair the replica. The pause limits the number of snapshots
    /// that neighbours send. A request that was lost is repeated soon, because it brought no snapshot.
    fn next_ask(&self, now: Duration) -> Duration {
        let pause = GAP_PATIENCE * (1 << self.vain.min(MAX_VAIN_REPAIRS));
        (now + GAP_PATIENCE).max(if self.vain > 0 { self.vain_at + pause } else { Duration::ZERO })
    }

    /// Begins a request over the first of these hops, except the hop of the last failed request. If there is no other
    /// hop, that hop is used again. Returns the hop. If there are no hops at all, the request is repeated soon.
    pub(super) fn ask(&mut self, hops: impl Iterator<Item = Hop>, now: Duration) -> Option<Hop> {
        let failed = self.failed.take();
        let mut hops = hops.peekable();
        let usual = hops.peek().copied();
        let via = hops.find(|&via| Some(via) != failed).or(usual);
        self.ask_at = via.is_none().then_some(now + GAP_PATIENCE);
        self.sync = via.map(|via| Sync::new(via, now));
        via
    }

    /// Cancels the next request.
    pub(super) fn do_not_ask(&mut self) {
        self.ask_at = None;
    }

    /// Handles a neighbour's request for a snapshot of the hub. `is_asked` is true if this hub has requested a snapshot
    /// from the same neighbour.
    pub(super) fn wait(&mut self, via: Hop, is_asked: bool) -> Wait {
        if self.sync.is_none() {
            return Wait::NotNeeded;
        }
        if self.waiters.contains(&via) {
            return Wait::Waits;
        }
        if self.waiters.len() >= MAX_SNAPSHOT_WAITERS || is_asked {
            return Wait::Declined;
        }
        self.waiters.push(via);
        Wait::Waits
    }

    #[cfg(test)]
    pub(super) fn waiters(&self) -> usize {
        self.waiters.len()
    }

    #[cfg(test)]
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.sync.as_ref().map(|sync| sync.deadline)
    }

    /// Adds a part that arrived over the hop of the request. Returns false if the part is wrong.
    pub(super) fn take(&mut self, part: SnapshotPart, most: Most, now: Duration) -> bool {
        self.sync.as_mut().is_some_and(|sync| sync.take(part, most, now))
    }

    /// Size of the peers of the arriving snapshot, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.sync.as_ref().map_or(0, |sync| sync.kept)
    }

    /// Completes the snapshot. Returns `None` if the digest of the snapshot is wrong, or if the snapshot does not
    /// include the change `least`.
    pub(super) fn complete(&mut self, least: u64, now: Duration) -> Option<Snapshot> {
        let Sync { via, seq, digest, peers, kept: bytes, .. } =
            self.sync.take_if(|sync| sync.found == sync.digest && sync.seq >= least)?;
        self.behind_since = None;
        self.note_vain(now);
        self.repaired_by = Some(via);
        Some(Snapshot { via, seq, digest, peers, bytes })
    }

    /// Records that the snapshot over this hop is older than the hub's last heartbeat. The next request uses another
    /// hop.
    pub(super) fn note_stale(&mut self, via: Hop) {
        self.failed = Some(via);
    }

    /// Records that a snapshot has arrived. The pause before the next request gets longer with each snapshot, until the
    /// replica matches a heartbeat.
    pub(super) fn note_vain(&mut self, now: Duration) {
        self.vain = self.vain.saturating_add(1);
        self.vain_at = now;
    }

    /// Removes and returns the neighbours that waited for the snapshot.
    pub(super) fn take_waiters(&mut self) -> Vec<Hop> {
        std::mem::take(&mut self.waiters)
    }

    /// Stops waiting for the snapshot. Another snapshot is requested soon over another hop. Returns `None` if no
    /// snapshot was requested.
    pub(super) fn give_up(&mut self, now: Duration) -> Option<Abandoned> {
        let sync = self.sync.take()?;
        self.failed = Some(sync.via);
        self.ask_at = Some(self.next_ask(now));
        Some(Abandoned { peers: sync.peers, waiters: self.take_waiters() })
    }

    /// Ends the repair, because the hub's incarnation has ended or is lost.
    pub(super) fn end(&mut self) -> Abandoned {
        self.note_caught_up();
        let peers = self.sync.take().map(|sync| sync.peers).unwrap_or_default();
        Abandoned { peers, waiters: self.take_waiters() }
    }

    /// Resets the repair, because the hub has begun another incarnation.
    pub(super) fn begin_incarnation(&mut self) {
        (self.failed, self.vain, self.repaired_by) = (None, 0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::LinkId;

    const NOW: Duration = Duration::from_secs(100);
    const A: Hop = Hop::Link(LinkId(1));
    const B: Hop = Hop::Link(LinkId(2));

    /// A repair after this number of snapshots that did not repair the replica. The last of them arrived now.
    fn after(vain: u32) -> Repair {
        let mut repair = Repair::default();
        (0..vain).for_each(|_| repair.note_vain(NOW));
        repair
    }

    #[test]
    fn the_pause_doubles_with_each_snapshot_without_a_result() {
        for (vain, pause) in [(0, 300), (1, 600), (2, 1_200), (5, 9_600), (9, 9_600)] {
            let mut repair = after(vain);
            repair.note_behind(NOW);
            assert_eq!(repair.due(), Some(NOW + Duration::from_millis(pause)), "{vain}");
        }
    }

    #[test]
    fn the_pause_counts_from_the_last_snapshot() {
        let later = NOW + Duration::from_secs(20);
        let mut repair = after(5);
        repair.note_behind(later);
        assert_eq!(repair.due(), Some(later + GAP_PATIENCE), "the pause after the last snapshot is over");
        assert_eq!(repair.ask([A].into_iter(), later), Some(A));
        let late = later + SNAPSHOT_PATIENCE;
        assert!(!repair.is_late(late - Duration::from_millis(1)) && repair.is_late(late));
        assert!(repair.give_up(late).is_some() && repair.give_up(late).is_none());
        assert_eq!(repair.due(), Some(late + GAP_PATIENCE), "a lost request is repeated soon");
    }

    #[test]
    fn another_hop_is_used_after_a_failure_if_there_is_one() {
        let mut repair = Repair::default();
        assert_eq!(repair.ask([A, B].into_iter(), NOW), Some(A));
        repair.give_up(NOW);
        assert_eq!(repair.ask([A, B].into_iter(), NOW), Some(B));
        repair.give_up(NOW);
        assert_eq!(repair.ask([B, B].into_iter(), NOW), Some(B), "there is no other hop");
        repair.end();
        assert_eq!(repair.ask(std::iter::empty(), NOW), None);
        assert_eq!(repair.due(), Some(NOW + GAP_PATIENCE), "the request is repeated, because a hop may exist soon");
    }

    #[test]
    fn a_wrong_snapshot_is_replaced_over_another_hop_after_a_pause() {
        let mut repair = Repair::default();
        repair.note_wrong(NOW);
        assert!(repair.is_asking(NOW), "the first request has no pause");
        repair.ask([A, B].into_iter(), NOW);
        assert!(repair.complete(1, NOW).is_none(), "the snapshot lacks a known change");
        let Snapshot { via, seq, .. } = repair.complete(0, NOW).unwrap();
        assert_eq!((via, seq, repair.behind_since()), (A, 0, None));
        repair.note_wrong(NOW);
        assert_eq!(repair.due(), Some(NOW + 2 * GAP_PATIENCE));
        assert_eq!(repair.ask([A, B].into_iter(), NOW), Some(B));
    }

    #[test]
    fn a_replica_that_agrees_ends_the_repair() {
        let mut repair = after(3);
        repair.note_behind(NOW);
        repair.note_agrees(false);
        assert!(!repair.is_vain() && repair.behind_since() == Some(NOW), "a gap before later changes remains");
        repair.note_agrees(true);
        assert_eq!((repair.behind_since(), repair.due()), (None, None));
    }

    #[test]
    fn neighbours_wait_only_for_a_snapshot_that_is_requested_from_another_hub() {
        let mut repair = Repair::default();
        assert_eq!(repair.wait(B, false), Wait::NotNeeded);
        repair.ask([A].into_iter(), NOW);
        assert_eq!(
            [repair.wait(A, true), repair.wait(B, false), repair.wait(B, false)],
            [Wait::Declined, Wait::Waits, Wait::Waits]
        );
        assert_eq!((repair.take_waiters(), repair.waiters()), (vec![B], 0));
    }
}
