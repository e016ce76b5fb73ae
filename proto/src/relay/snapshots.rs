//! Snapshots: the presence of one hub, requested from a neighbour to repair a replica, sent in parts, and installed.

use crate::bug;
use crate::envelope::{Envelope, SnapshotPart, SnapshotRequest};
use crate::id::{HubId, PeerId};
use crate::limits::{GAP_PATIENCE, MAX_SNAPSHOT_WAITERS};
use crate::reason::LeaveReason;
use crate::route::Hop;
use crate::time::Now;

use super::directory::LeaveCause;
use super::links::Queue;
use super::outgoing::GivenUp;
use super::remote::Sync;
use super::{Destination, MeshEvent, Relay, RelayOutput, Transport};

impl Relay {
    /// Requests a snapshot of a hub from a neighbour.
    pub(super) fn ask_for_snapshot(&mut self, hub: HubId, now: Now) {
        let direct = self.links.used_for(&hub).map(Hop::Link).filter(|&via| !self.is_spare(via));
        let route = self.route(&hub, now);
        let Some(remote) = self.hubs.get_mut(&hub) else {
            return bug!(self.bugs, HubMissing, "a snapshot of {hub:?} is due");
        };
        remote.ask_at = None;
        if remote.sync.is_some() || !remote.is_live() {
            return;
        }
        let failed = remote.failed_ask.take();
        let usual = direct.or(remote.paths.best()).or(route);
        let via = match failed {
            Some(failed) if usual == Some(failed) => remote.paths.other_than(failed).or(usual),
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
    pub(super) fn snapshot_asked(&mut self, via: Hop, request: SnapshotRequest, now: Now) {
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

    fn is_same_neighbour(&self, a: Hop, b: Hop) -> bool {
        let neighbour = |via| match via {
            Hop::Link(link) => self.links.hub_of(link),
            Hop::Bridge(hub) => Some(hub),
        };
        neighbour(a) == neighbour(b)
    }

    pub(super) fn decline_snapshot(&mut self, via: Hop, request: SnapshotRequest) {
        let is_open = match via {
            Hop::Link(link) => self.links.get(link).is_some(),
            Hop::Bridge(_) => self.bridge.is_up(),
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
    fn send_snapshot(&mut self, via: Hop, request: SnapshotRequest, now: Now) {
        let hub = request.hub;
        let held = if hub == self.config.hub { Some(&self.own) } else { self.hubs.get(&hub).map(|r| &r.holding) };
        let Some(held) = held else {
            bug!(self.bugs, HubMissing, "a snapshot of {hub:?} begins");
            return self.decline_snapshot(via, request);
        };
        let queue = match via {
            Hop::Link(link) => self.links.queue_mut(link),
            Hop::Bridge(_) => Some(self.bridge.queue_mut()),
        };
        // Expected: a neighbour whose request waited may have lost its link.
        let Some(queue) = queue else { return };
        if queue.snapshots_mut().begin(via, request, held, now.at) {
            self.stats.snapshots[0] += 1;
            self.outputs.push_back(RelayOutput::Backlog { way: via.into() });
        } else {
            self.decline_snapshot(via, request);
        }
    }

    /// A neighbour cannot serve the requested snapshot: another one is asked, or the same one later.
    pub(super) fn snapshot_declined(&mut self, via: Hop, request: SnapshotRequest, now: Now) {
        let remote = self.hubs.get(&request.hub).filter(|remote| remote.incarnation == request.incarnation);
        if remote.and_then(|remote| remote.sync.as_ref()).is_some_and(|sync| sync.via == via) {
            self.stop_snapshot(request.hub, now);
        }
    }

    /// Sends the next part of the requested snapshots.
    pub(super) fn send_snapshots(&mut self, way: Transport, now: Now) {
        let queue = match way {
            Transport::Link(link) => self.links.queue_mut(link),
            Transport::Bridge => Some(self.bridge.queue_mut()),
        };
        let Some(queue) = queue.map(Queue::snapshots_mut) else {
            return bug!(self.bugs, HubLink, "{way:?} has room");
        };
        // Expected: a queue that was full is short again, and no snapshot is to be sent on it.
        let Some(hub) = queue.next_hub(now.at) else { return };
        let held = if hub == self.config.hub { Some(&self.own) } else { self.hubs.get(&hub).map(|r| &r.holding) };
        let Some(held) = held else {
            queue.give_up(hub);
            return bug!(self.bugs, HubMissing, "a snapshot of {hub:?} goes on");
        };
        let next = queue.next_part(&held.peers, now.at);
        let more = !queue.is_empty();
        if let Some((via, part)) = next {
            self.send(Destination::from(via), Envelope::Snapshot(Box::new(part)));
        }
        if more {
            self.outputs.push_back(RelayOutput::Backlog { way });
        }
    }

    /// A peer of a hub is about to change: snapshots under way keep it as it is.
    pub(super) fn keep_for_snapshots(&mut self, hub: HubId, peer: &PeerId) {
        let queues = self.links.queues_mut().chain([self.bridge.queue_mut()]).map(Queue::snapshots_mut);
        let mut queues = queues.filter(|queue| !queue.is_empty()).peekable();
        if queues.peek().is_none() {
            return;
        }
        let held = if hub == self.config.hub { Some(&self.own) } else { self.hubs.get(&hub).map(|r| &r.holding) };
        let held = held.and_then(|held| held.peers.get(peer));
        let most = self.config.tuning.slices.kept;
        let given_up = queues.flat_map(|queue| queue.keep(hub, peer, held, most)).collect();
        self.decline_begun(given_up);
    }

    /// The whole replica of a hub is being replaced, so outgoing snapshots of it cannot be completed.
    pub(super) fn stop_sending(&mut self, hub: HubId) {
        let queues = self.links.queues_mut().chain([self.bridge.queue_mut()]).map(Queue::snapshots_mut);
        let given_up = queues.flat_map(|queue| queue.give_up(hub)).collect();
        self.decline_begun(given_up);
    }

    fn decline_begun(&mut self, snapshots: Vec<GivenUp>) {
        for (via, request) in snapshots {
            self.decline_snapshot(via, request);
        }
    }

    pub(super) fn snapshot_came(&mut self, via: Hop, part: SnapshotPart, now: Now) {
        let (hub, last, max_peers) = (part.hub, part.last, self.config.tuning.max_peers_per_hub);
        let remote = self.hubs.get_mut(&hub).filter(|remote| remote.incarnation == part.incarnation);
        let Some(sync) = remote.and_then(|remote| remote.sync.as_mut()).filter(|sync| sync.via == via) else {
            // Expected: it was requested, and another neighbour was asked since, or the hub has ended.
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

    pub(super) fn cancel_snapshots(&mut self, gone: impl Fn(Hop) -> bool, now: Now) {
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
