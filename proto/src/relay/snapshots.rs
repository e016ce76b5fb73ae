//! Snapshots: the presence of one hub, requested from a neighbour to repair a replica, sent in parts, and installed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::bug;
use crate::envelope::{Envelope, Presence, SnapshotPart, SnapshotRequest};
use crate::id::{HubId, HubIncarnation, PeerId};
use crate::limits::{
    GAP_PATIENCE, MAX_SNAPSHOT_WAITERS, MAX_SNAPSHOTS_OUT, SNAPSHOT_BYTES, SNAPSHOT_PATIENCE, SNAPSHOT_PEERS,
};
use crate::reason::LeaveReason;
use crate::route::Via;
use crate::time::Now;

use super::directory::LeaveCause;
use super::remote::Sync;
use super::{Destination, MeshEvent, Relay, RelayOutput, Way};

/// A snapshot on its way to a neighbour. Its peers are read part by part, from what the hub holds by then; what has changed since the
/// snapshot began is kept as it was.
#[derive(Debug)]
pub(super) struct Outgoing {
    via: Via,
    hub: HubId,
    incarnation: HubIncarnation,
    seq: u64,
    digest: u64,
    /// Peers up to this one have been read.
    after: Option<PeerId>,
    /// The peer that has been read and not been sent.
    next: Option<Arc<Presence>>,
    /// Peers behind `after` that have changed, as they were. `None`: not there. At most [`MAX_SNAPSHOT_CHANGES`].
    before: BTreeMap<PeerId, Option<Arc<Presence>>>,
    parts: u32,
    /// Time until which the neighbour waits for the next part.
    deadline: Duration,
}

impl Outgoing {
    /// Keeps a peer as it is, before it changes. False: there are more than `most`.
    fn keep(&mut self, peer: &PeerId, held: Option<&Arc<Presence>>, most: usize) -> bool {
        if self.after.is_none_or(|after| *peer > after) {
            self.before.entry(*peer).or_insert_with(|| held.cloned());
        }
        self.before.len() <= most
    }

    /// The next peer of the snapshot, for [`Self::next`].
    fn peek(&mut self, held: &BTreeMap<PeerId, Arc<Presence>>) -> Option<&Arc<Presence>> {
        while self.next.is_none() {
            let from = self.after.map_or(Bound::Unbounded, Bound::Excluded);
            let now = held.range((from, Bound::Unbounded)).next();
            let then = self.before.first_key_value().map(|(peer, _)| *peer);
            let peer = now.map(|(peer, _)| *peer).into_iter().chain(then).min()?;
            self.after = Some(peer);
            let unchanged = || now.filter(|(held, _)| **held == peer).map(|(_, presence)| Arc::clone(presence));
            self.next = self.before.remove(&peer).unwrap_or_else(unchanged);
        }
        self.next.as_ref()
    }
}

impl Relay {
    /// Requests a snapshot of a hub from a neighbour.
    pub(super) fn ask_for_snapshot(&mut self, hub: HubId, now: Now) {
        let direct = self.by_hub.get(&hub).map(|&link| Via::Link(link)).filter(|&via| !self.is_spare(via));
        let route = self.route(&hub, now);
        let Some(remote) = self.hubs.get_mut(&hub) else {
            return bug!(self.bugs, HubMissing, "a snapshot of {hub:?} is due");
        };
        remote.ask_at = None;
        if remote.sync.is_some() || !remote.is_live() {
            return;
        }
        let failed = remote.failed_ask.take();
        let usual = direct.or(remote.ways.best()).or(route);
        let via = match failed {
            Some(failed) if usual == Some(failed) => remote.ways.other_than(failed).or(usual),
            _ => usual,
        };
        let Some(via) = via else {
            remote.ask_at = Some(now.at + GAP_PATIENCE);
            return;
        };
        remote.sync = Some(Sync::new(via, now.at));
        let request = SnapshotRequest { hub, incarnation: remote.incarnation };
        self.send(Destination::from(via), Envelope::SnapshotRequest(request));
    }

    /// A neighbour requests a snapshot of a hub. While this hub repairs its own replica, the request waits; a request
    /// that cannot be served is declined, so that the neighbour does not wait in vain.
    pub(super) fn snapshot_asked(&mut self, via: Via, request: SnapshotRequest, now: Now) {
        let SnapshotRequest { hub, incarnation } = request;
        if hub == self.config.hub {
            return if incarnation == self.config.incarnation {
                self.send_snapshot(via, request, now);
            } else {
                self.decline_snapshot(via, request);
            };
        }
        let remote = self.hubs.get_mut(&hub).filter(|r| r.is_live() && r.incarnation == incarnation);
        let Some(remote) = remote else { return self.decline_snapshot(via, request) };
        // A replica under repair would only pass on its own gaps.
        let Some(sync) = &remote.sync else {
            return if remote.doubted {
                self.decline_snapshot(via, request);
            } else {
                self.send_snapshot(via, request, now);
            };
        };
        let asked = sync.via;
        let waits = remote.snapshot_waiters.contains(&via);
        if waits {
            return;
        }
        // Two hubs that wait for each other would both wait until the timeout.
        if remote.snapshot_waiters.len() < MAX_SNAPSHOT_WAITERS && !self.is_same_neighbour(asked, via) {
            match self.hubs.get_mut(&hub) {
                Some(remote) => remote.snapshot_waiters.push(via),
                None => bug!(self.bugs, HubMissing, "{via:?} waits for a snapshot of {hub:?}"),
            }
        } else {
            self.decline_snapshot(via, request);
        }
    }

    fn is_same_neighbour(&self, a: Via, b: Via) -> bool {
        let neighbour = |via| match via {
            Via::Link(link) => self.links.get(&link).map(|link| link.hub),
            Via::Bridge(hub) => Some(hub),
        };
        neighbour(a) == neighbour(b)
    }

    pub(super) fn decline_snapshot(&mut self, via: Via, request: SnapshotRequest) {
        let is_open = match via {
            Via::Link(link) => self.links.contains_key(&link),
            Via::Bridge(_) => self.bridge.up,
        };
        if is_open {
            self.send(Destination::from(via), Envelope::SnapshotDeclined(request));
        }
    }

    /// Answers the requests that waited for this hub's own repair.
    fn answer_waiters(&mut self, hub: HubId, now: Now) {
        let Some(remote) = self.hubs.get_mut(&hub) else {
            return bug!(self.bugs, HubMissing, "{hub:?} is repaired");
        };
        let request = SnapshotRequest { hub, incarnation: remote.incarnation };
        for via in std::mem::take(&mut remote.snapshot_waiters) {
            self.snapshot_asked(via, request, now);
        }
    }

    /// Begins to send a snapshot.
    fn send_snapshot(&mut self, via: Via, request: SnapshotRequest, now: Now) {
        let SnapshotRequest { hub, incarnation } = request;
        let held = if hub == self.config.hub { Some(&self.own) } else { self.hubs.get(&hub).map(|r| &r.holding) };
        let Some(held) = held else {
            bug!(self.bugs, HubMissing, "a snapshot of {hub:?} begins");
            return self.decline_snapshot(via, request);
        };
        let (seq, digest) = (held.seq, held.digest);
        let (before, deadline) = (BTreeMap::new(), now.at + SNAPSHOT_PATIENCE);
        let outgoing =
            Outgoing { via, hub, incarnation, seq, digest, after: None, next: None, before, parts: 0, deadline };
        // The waiting neighbour may have lost its link.
        let Some(queue) = self.outgoing(via.into()) else { return };
        // A neighbour that asks again has abandoned its first request.
        queue.retain(|other| other.via != via || other.hub != hub);
        if queue.len() < MAX_SNAPSHOTS_OUT {
            queue.push_back(outgoing);
            self.stats.snapshots[0] += 1;
            self.outputs.push_back(RelayOutput::Backlog { way: via.into() });
        } else {
            self.decline_snapshot(via, request);
        }
    }

    /// A neighbour cannot serve the requested snapshot: another one is asked, or the same one later.
    pub(super) fn snapshot_declined(&mut self, via: Via, request: SnapshotRequest, now: Now) {
        let remote = self.hubs.get(&request.hub).filter(|remote| remote.incarnation == request.incarnation);
        if remote.and_then(|remote| remote.sync.as_ref()).is_some_and(|sync| sync.via == via) {
            self.stop_snapshot(request.hub, now);
        }
    }

    /// Sends the next part of the requested snapshots.
    pub(super) fn send_snapshots(&mut self, way: Way, now: Now) {
        let Some(queue) = self.outgoing(way) else {
            return bug!(self.bugs, HubLink, "{way:?} has room");
        };
        queue.retain(|outgoing| outgoing.deadline > now.at);
        let Some(mut next) = queue.pop_front() else { return };
        let held =
            if next.hub == self.config.hub { Some(&self.own) } else { self.hubs.get(&next.hub).map(|r| &r.holding) };
        let Some(held) = held else { return };
        let mut peers = Vec::new();
        let mut bytes = 0;
        while peers.len() < SNAPSHOT_PEERS
            && bytes < SNAPSHOT_BYTES
            && next.peek(&held.peers).is_some()
            && let Some(presence) = next.next.take()
        {
            bytes += presence.memberships.iter().map(|a| a.discovered.frame_len()).sum::<usize>();
            peers.push(presence);
        }
        let last = next.peek(&held.peers).is_none();
        let Outgoing { via, hub, incarnation, seq, digest, parts, .. } = next;
        let Some(queue) = self.outgoing(way) else { return };
        let part = SnapshotPart { hub, incarnation, seq, digest, part: parts, last, peers };
        if !last {
            next.parts += 1;
            next.deadline = now.at + SNAPSHOT_PATIENCE;
            queue.push_back(next);
        }
        let more = !queue.is_empty();
        self.send(Destination::from(via), Envelope::Snapshot(Box::new(part)));
        if more {
            self.outputs.push_back(RelayOutput::Backlog { way });
        }
    }

    /// A peer of a hub is about to change: snapshots under way keep it as it is.
    pub(super) fn keep_for_snapshots(&mut self, hub: HubId, peer: &PeerId) {
        let links = self.links.values_mut().map(|link| &mut link.outgoing);
        let mut queues = links.chain([&mut self.bridge.outgoing]).filter(|queue| !queue.is_empty()).peekable();
        if queues.peek().is_none() {
            return;
        }
        let held = if hub == self.config.hub { Some(&self.own) } else { self.hubs.get(&hub).map(|r| &r.holding) };
        let held = held.and_then(|held| held.peers.get(peer));
        let most = self.config.tuning.slices.kept;
        let mut given_up = Vec::new();
        for queue in queues {
            given_up.extend(take_out(queue, |outgoing| outgoing.hub == hub && !outgoing.keep(peer, held, most)));
        }
        self.decline_begun(given_up);
    }

    /// The whole replica of a hub is being replaced, so outgoing snapshots of it cannot be completed.
    pub(super) fn stop_sending(&mut self, hub: HubId) {
        let links = self.links.values_mut().map(|link| &mut link.outgoing);
        let queues = links.chain([&mut self.bridge.outgoing]);
        let given_up = queues.flat_map(|queue| take_out(queue, |outgoing| outgoing.hub == hub)).collect();
        self.decline_begun(given_up);
    }

    fn decline_begun(&mut self, snapshots: Vec<Outgoing>) {
        for Outgoing { via, hub, incarnation, .. } in snapshots {
            self.decline_snapshot(via, SnapshotRequest { hub, incarnation });
        }
    }

    fn outgoing(&mut self, way: Way) -> Option<&mut VecDeque<Outgoing>> {
        match way {
            Way::Link(link) => self.links.get_mut(&link).map(|link| &mut link.outgoing),
            Way::Bridge => Some(&mut self.bridge.outgoing),
        }
    }

    pub(super) fn snapshot_came(&mut self, via: Via, part: SnapshotPart, now: Now) {
        let (hub, last, max_peers) = (part.hub, part.last, self.config.tuning.max_peers_per_hub);
        let Some(remote) = self.hubs.get_mut(&hub) else { return };
        let of_this_life = remote.incarnation == part.incarnation;
        let Some(sync) = remote.sync.as_mut().filter(|sync| of_this_life && sync.via == via) else {
            self.stats.snapshots_refused += 1;
            return;
        };
        if !sync.take(part, max_peers, now.at) {
            self.refuse_snapshot(hub, now);
        } else if last {
            self.install(hub, now);
        }
    }

    /// Installs a complete snapshot.
    fn install(&mut self, hub: HubId, now: Now) {
        let Some(remote) = self.hubs.get_mut(&hub) else {
            return bug!(self.bugs, HubMissing, "a snapshot of {hub:?} is complete");
        };
        let least = if remote.doubted { remote.beat.seq } else { remote.holding.seq };
        let agrees = |sync: &mut Sync| sync.found == sync.digest && sync.seq >= least;
        let Some(sync) = remote.sync.take_if(agrees) else { return self.refuse_snapshot(hub, now) };
        let before = remote.holding.replace(sync.seq, sync.digest, sync.peers);
        // The reason of these leaves was in a change that did not arrive.
        remote.unsettle(LeaveCause::Disconnected(LeaveReason::Closed(crate::CloseReason::ConnectionLost)));
        remote.behind_since = None;
        (remote.mark, remote.doubted) = (None, false);
        remote.vain_repairs = remote.vain_repairs.saturating_add(1);
        remote.repaired_by = Some(sync.via);
        self.discarded.add(before);
        self.stop_sending(hub);
        self.stats.snapshots[1] += 1;
        self.event(MeshEvent::Repaired(hub));
        self.begin_work(hub);
        self.work_on(hub, now);
        self.answer_waiters(hub, now);
    }

    /// A snapshot was malformed, or its digest was wrong.
    fn refuse_snapshot(&mut self, hub: HubId, now: Now) {
        if let Some(remote) = self.hubs.get_mut(&hub) {
            remote.vain_repairs = remote.vain_repairs.saturating_add(1);
        }
        self.give_up_snapshot(hub, now);
    }

    /// A snapshot did not arrive, or its digest was wrong.
    pub(super) fn give_up_snapshot(&mut self, hub: HubId, now: Now) {
        if self.hubs.get(&hub).is_some_and(|remote| remote.sync.is_some()) {
            self.stats.snapshots_refused += 1;
            self.stop_snapshot(hub, now);
        }
    }

    /// Stops waiting for the requested snapshot; another one is requested soon.
    fn stop_snapshot(&mut self, hub: HubId, now: Now) {
        let remote = self.hubs.get_mut(&hub);
        let Some((sync, remote)) = remote.and_then(|remote| Some((remote.sync.take()?, remote))) else {
            return bug!(self.bugs, SnapshotState, "of {hub:?}, given up");
        };
        let request = SnapshotRequest { hub, incarnation: remote.incarnation };
        self.discarded.add(sync.peers);
        let waiters = std::mem::take(&mut remote.snapshot_waiters);
        remote.failed_ask = Some(sync.via);
        remote.ask_at = Some(now.at + remote.pause());
        for via in waiters {
            // Another neighbour may know more.
            self.decline_snapshot(via, request);
        }
        self.catch_up(hub, now);
    }

    pub(super) fn cancel_snapshots(&mut self, gone: impl Fn(Via) -> bool, now: Now) {
        let waiting: Vec<HubId> = self
            .hubs
            .iter()
            .filter(|(_, remote)| remote.sync.as_ref().is_some_and(|sync| gone(sync.via)))
            .map(|(&hub, _)| hub)
            .collect();
        for hub in waiting {
            self.give_up_snapshot(hub, now);
        }
    }
}

/// Removes and returns the snapshots that satisfy the condition.
fn take_out(queue: &mut VecDeque<Outgoing>, mut are: impl FnMut(&mut Outgoing) -> bool) -> Vec<Outgoing> {
    let mut taken = Vec::new();
    for _ in 0..queue.len() {
        let Some(mut outgoing) = queue.pop_front() else { break };
        if are(&mut outgoing) {
            taken.push(outgoing);
        } else {
            queue.push_back(outgoing);
        }
    }
    taken
}
