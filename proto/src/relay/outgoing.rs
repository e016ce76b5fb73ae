//! Snapshots that are being sent to neighbours.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::envelope::{Presence, SnapshotPart, SnapshotRequest};
use crate::id::{HubId, PeerId};
use crate::limits::{MAX_SNAPSHOTS_OUT, SNAPSHOT_BYTES, SNAPSHOT_PATIENCE, SNAPSHOT_PEERS};
use crate::route::Hop;

use super::holding::Holding;

/// The snapshots that are sent on a link or on the bridge. There are at most [`MAX_SNAPSHOTS_OUT`] snapshots. One part
/// of each snapshot is sent in turn.
#[derive(Debug, Default)]
pub(super) struct SnapshotQueue(VecDeque<OutgoingSnapshot>);

/// A snapshot on its way to a neighbour. The peers of a snapshot are read part by part from the hub's current presence.
/// If a peer changes before it is read, its state at the start of the snapshot is stored.
#[derive(Debug)]
struct OutgoingSnapshot {
    via: Hop,
    request: SnapshotRequest,
    seq: u64,
    digest: u64,
    /// The last peer that has been read.
    after: Option<PeerId>,
    /// A peer that has been read, but not sent yet.
    next: Option<Arc<Presence>>,
    /// The peers after `after` that have changed since the start of the snapshot, with their state at the start. `None`
    /// if a peer was not present at the start. At most [`MAX_SNAPSHOT_CHANGES`](crate::limits::MAX_SNAPSHOT_CHANGES)
    /// such peers are stored.
    before: BTreeMap<PeerId, Option<Arc<Presence>>>,
    parts: u32,
    /// Time at which the neighbour stops waiting for the next part.
    deadline: Duration,
}

/// A snapshot that cannot be completed. The values are the hop to the neighbour that must receive a decline, and the
/// neighbour's request.
pub(super) type GivenUp = (Hop, SnapshotRequest);

impl OutgoingSnapshot {
    /// Stores the state of a peer before the peer changes. Returns false if more than `most` states are stored.
    fn keep(&mut self, peer: &PeerId, held: Option<&Arc<Presence>>, most: usize) -> bool {
        if self.after.is_none_or(|after| *peer > after) {
            self.before.entry(*peer).or_insert_with(|| held.cloned());
        }
        self.before.len() <= most
    }

    /// Reads the next peer of the snapshot into [`Self::next`], if `next` is empty. Returns false at the end of the
    /// snapshot.
    fn read(&mut self, held: &BTreeMap<PeerId, Arc<Presence>>) -> bool {
        while self.next.is_none() {
            let from = self.after.map_or(Bound::Unbounded, Bound::Excluded);
            let now = held.range((from, Bound::Unbounded)).next();
            let then = self.before.first_key_value().map(|(peer, _)| *peer);
            let Some(peer) = now.map(|(peer, _)| *peer).into_iter().chain(then).min() else { return false };
            self.after = Some(peer);
            let unchanged = || now.filter(|(held, _)| **held == peer).map(|(_, presence)| Arc::clone(presence));
            self.next = self.before.remove(&peer).unwrap_or_else(unchanged);
        }
        true
    }

    fn next_part(&mut self, held: &BTreeMap<PeerId, Arc<Presence>>) -> SnapshotPart {
        let mut peers = Vec::new();
        let mut bytes = 0;
        while peers.len() < SNAPSHOT_PEERS
            && bytes < SNAPSHOT_BYTES
            && self.read(held)
            && let Some(presence) = self.next.take()
        {
            bytes += presence.memberships.iter().map(|a| a.discovered.frame_len()).sum::<usize>();
            peers.push(presence);
        }
        let SnapshotRequest { hub, incarnation, .. } = self.request;
        let part = self.parts;
        self.parts += 1;
        SnapshotPart { hub, incarnation, seq: self.seq, digest: self.digest, part, last: !self.read(held), peers }
    }
}

impl SnapshotQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Begins to send a snapshot of a hub's current presence. An earlier snapshot of the same hub for the same
    /// neighbour is abandoned. Returns false if [`MAX_SNAPSHOTS_OUT`] other snapshots are in progress.
    pub(super) fn begin(&mut self, via: Hop, request: SnapshotRequest, held: &Holding, now: Duration) -> bool {
        self.0.retain(|other| other.via != via || other.request.hub != request.hub);
        let has_room = self.0.len() < MAX_SNAPSHOTS_OUT;
        if has_room {
            self.0.push_back(OutgoingSnapshot {
                via,
                request,
                seq: held.seq,
                digest: held.digest,
                after: None,
                next: None,
                before: BTreeMap::new(),
                parts: 0,
                deadline: now + SNAPSHOT_PATIENCE,
            });
        }
        has_room
    }

    /// The hub of which the next part of a snapshot must be sent now. Drops snapshots for which no neighbour waits.
    /// Returns `None` if no snapshot is left.
    pub(super) fn next_hub(&mut self, now: Duration) -> Option<HubId> {
        self.0.retain(|outgoing| outgoing.deadline > now);
        self.0.front().map(|next| next.request.hub)
    }

    /// Takes the next part of the snapshot of the hub that [`Self::next_hub`] returned. `held` has the current peers of
    /// that hub. Returns `None` if there is no snapshot.
    pub(super) fn next_part(
        &mut self,
        held: &BTreeMap<PeerId, Arc<Presence>>,
        now: Duration,
    ) -> Option<(Hop, SnapshotPart)> {
        let mut next = self.0.pop_front()?;
        let (via, part) = (next.via, next.next_part(held));
        if !part.last {
            next.deadline = now + SNAPSHOT_PATIENCE;
            self.0.push_back(next);
        }
        Some((via, part))
    }

    /// Stores the state of a peer that is about to change, in each snapshot of the peer's hub. A snapshot that
    /// would then store more than `most` states cannot be completed: it is removed and returned.
    pub(super) fn keep(
        &mut self,
        hub: HubId,
        peer: &PeerId,
        held: Option<&Arc<Presence>>,
        most: usize,
    ) -> Vec<GivenUp> {
        self.take_out(|outgoing| outgoing.request.hub == hub && !outgoing.keep(peer, held, most))
    }

    /// Removes and returns the snapshots of a hub whose whole presence is replaced.
    pub(super) fn give_up(&mut self, hub: HubId) -> Vec<GivenUp> {
        self.take_out(|outgoing| outgoing.request.hub == hub)
    }

    fn take_out(&mut self, mut are: impl FnMut(&mut OutgoingSnapshot) -> bool) -> Vec<GivenUp> {
        let mut taken = Vec::new();
        self.0.retain_mut(|outgoing| {
            let is_taken = are(outgoing);
            taken.extend(is_taken.then_some((outgoing.via, outgoing.request)));
            !is_taken
        });
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{HubIncarnation, LinkId, PeerIncarnation};

    const NOW: Duration = Duration::from_secs(100);
    const VIA: Hop = Hop::Link(LinkId(1));

    fn peer(n: u16) -> PeerId {
        let mut bytes = [0; 20];
        bytes[18..].copy_from_slice(&n.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    fn presence(n: u16, session: u64) -> Arc<Presence> {
        Arc::new(Presence { peer: peer(n), session: PeerIncarnation(session), memberships: Vec::new() })
    }

    fn request(hub: u8) -> SnapshotRequest {
        SnapshotRequest { hub: HubId(PeerId::from_bytes([hub; 20])), incarnation: HubIncarnation(1), have: 0 }
    }

    /// Peers 0, 2, 4, …, and a snapshot of them whose first part has been sent.
    fn begun(peers: usize) -> (BTreeMap<PeerId, Arc<Presence>>, SnapshotQueue) {
        let held: BTreeMap<_, _> = (0..peers as u16).map(|n| (peer(2 * n), presence(2 * n, 1))).collect();
        let mut queue = SnapshotQueue::default();
        assert!(queue.begin(VIA, request(7), &Holding::new(1), NOW));
        let (via, part) = queue.next_part(&held, NOW).unwrap();
        assert_eq!((via, part.part, part.peers.len(), part.last), (VIA, 0, SNAPSHOT_PEERS, peers == SNAPSHOT_PEERS));
        (held, queue)
    }

    #[test]
    fn a_snapshot_has_the_peers_that_were_there_at_its_start() {
        let (mut held, mut queue) = begun(2 * SNAPSHOT_PEERS);
        let changed = [1, SNAPSHOT_PEERS as u16 * 2, SNAPSHOT_PEERS as u16 * 2 + 1, SNAPSHOT_PEERS as u16 * 2 + 2];
        for (n, stays) in changed.into_iter().zip([true, false, true, true]) {
            assert_eq!(queue.keep(request(7).hub, &peer(n), held.get(&peer(n)), 8), []);
            assert_eq!(queue.keep(request(8).hub, &peer(n), None, 0), [], "the peer belongs to another hub");
            held.remove(&peer(n));
            held.extend(stays.then(|| (peer(n), presence(n, 2))));
        }
        let (_, part) = queue.next_part(&held, NOW).unwrap();
        let found = part.peers.iter().map(|presence| (presence.peer, presence.session));
        let expected = (SNAPSHOT_PEERS as u16..2 * SNAPSHOT_PEERS as u16).map(|n| (peer(2 * n), PeerIncarnation(1)));
        assert!(found.eq(expected) && part.last && part.part == 1);
        assert!(queue.is_empty() && queue.next_part(&held, NOW).is_none());
    }

    #[test]
    fn a_snapshot_that_keeps_too_many_peers_is_given_up() {
        let (held, mut queue) = begun(2 * SNAPSHOT_PEERS);
        let of_second_part = |n: u16| peer(2 * SNAPSHOT_PEERS as u16 + n);
        assert_eq!(queue.keep(request(7).hub, &peer(0), None, 1), [], "the peer has been sent already");
        assert_eq!(queue.keep(request(7).hub, &of_second_part(2), held.get(&of_second_part(2)), 1), []);
        let given_up = queue.keep(request(7).hub, &of_second_part(4), held.get(&of_second_part(4)), 1);
        assert_eq!(given_up, [(VIA, request(7))]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_queue_has_a_bounded_number_of_snapshots_and_one_of_each_hub_per_neighbour() {
        let mut queue = SnapshotQueue::default();
        let held = Holding::new(1);
        assert!((0..2 * MAX_SNAPSHOTS_OUT).all(|_| queue.begin(VIA, request(7), &held, NOW)));
        assert_eq!(queue.len(), 1);
        let begun = (0..MAX_SNAPSHOTS_OUT as u8).filter(|hub| queue.begin(VIA, request(100 + hub), &held, NOW));
        assert_eq!((begun.count(), queue.len()), (MAX_SNAPSHOTS_OUT - 1, MAX_SNAPSHOTS_OUT));
        assert_eq!(queue.give_up(request(100).hub), [(VIA, request(100))]);
        assert_eq!(queue.next_hub(NOW), Some(request(7).hub));
        assert_eq!(queue.next_hub(NOW + SNAPSHOT_PATIENCE), None, "the neighbour does not wait any more");
    }
}
