//! Snapshots. A hub requests the presence of another hub from a neighbour, receives it in parts, and installs it to
//! repair its replica.

use crate::bug;
use crate::envelope::{Envelope, SnapshotPart, SnapshotRequest};
use crate::id::{HubId, PeerId};
use crate::reason::LeaveReason;
use crate::route::Hop;
use crate::time::Now;

use super::directory::LeaveCause;
use super::links::Queue;
use super::outgoing::GivenUp;
use super::remote::Remote;
use super::repair::{Abandoned, Most, Snapshot, Wait};
use super::{Destination, MeshEvent, Relay, RelayOutput, Transport};

impl Relay {
    /// Requests a snapshot of a hub from a neighbour.
    pub(super) fn ask_for_snapshot(&mut self, hub: HubId, now: Now) {
        let direct = self.links.used_for(&hub).map(Hop::Link).filter(|&via| !self.is_spare(via));
        let route = self.route(&hub, now);
        let Some(remote) = self.hubs.get_mut(&hub) else {
            return bug!(self.bugs, HubMissing, "a snapshot of {hub:?} is due");
        };
        if remote.repair.is_under_way() || !remote.is_live() {
            return remote.repair.do_not_ask();
        }
        // If a neighbour's snapshot did not repair the replica, that neighbour may lack the same changes. In this case,
        // this hub requests the next snapshot over the bridge, from the hub that the replica describes.
        let itself = Some(Hop::Bridge(hub))
            .filter(|_| self.bridge.is_up() && remote.is_bridged(now.at) && remote.repair.is_vain());
        let usual = [direct, itself, remote.paths.best(), route].into_iter().flatten();
        let hops = usual.chain(remote.paths.newest_first());
        // If there is no hop, `Repair` plans another request after `GAP_PATIENCE`.
        let Some(via) = remote.repair.ask(hops, now.at) else { return };
        // A doubted replica may have forged changes. If `have` is 0, the neighbour sends its snapshot even if this
        // snapshot has fewer changes.
        let have = if remote.is_doubted() { 0 } else { remote.holding.seq };
        let request = SnapshotRequest { hub, incarnation: remote.incarnation(), have };
        self.send(Destination::from(via), Envelope::SnapshotRequest(request));
    }

    /// Handles a neighbour's request for a snapshot of a hub. While this hub repairs its own replica, the request
    /// waits. A request that cannot be served is declined, so that the neighbour does not wait in vain.
    pub(super) fn snapshot_asked(&mut self, via: Hop, request: SnapshotRequest, now: Now) {
        let SnapshotRequest { hub, incarnation, have } = request;
        if hub == self.config.hub {
            return if incarnation == self.config.incarnation {
                self.send_snapshot(via, request, now);
            } else {
                self.decline_snapshot(via, request);
            };
        }
        let asked = self.hubs.get(&hub).and_then(|remote| remote.repair.asked());
        let is_asked = asked.is_some_and(|asked| self.neighbour(asked) == self.neighbour(via));
        let remote = self.hubs.get_mut(&hub).filter(|r| r.is_live() && r.incarnation() == incarnation);
        let Some(remote) = remote else { return self.decline_snapshot(via, request) };
        // A doubted replica may have forged changes, so it is not sent. A replica with missing changes is sent only if
        // it has later changes than the neighbour's replica.
        let is_of_use = !remote.is_doubted() && (remote.lag() == 0 || have < remote.holding.seq);
        match remote.repair.wait(via, is_asked) {
            Wait::Waits => {}
            Wait::NotNeeded if is_of_use => self.send_snapshot(via, request, now),
            Wait::NotNeeded | Wait::Declined => self.decline_snapshot(via, request),
        }
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

    /// Answers neighbours' snapshot requests that waited until this hub had repaired its own replica.
    fn answer_waiters(&mut self, hub: HubId, now: Now) {
        let Some(remote) = self.hubs.get_mut(&hub) else {
            return bug!(self.bugs, HubMissing, "{hub:?} is repaired");
        };
        let request = SnapshotRequest { hub, incarnation: remote.incarnation(), have: 0 };
        for via in remote.repair.take_waiters() {
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
        // The link may have closed while the neighbour's request waited.
        let Some(queue) = queue else { return };
        if queue.snapshots_mut().begin(via, request, held, now.at) {
            self.stats.snapshots[0] += 1;
            self.outputs.push_back(RelayOutput::Backlog { transport: via.into() });
        } else {
            self.decline_snapshot(via, request);
        }
    }

    /// Handles a snapshot request that a neighbour has declined. After a decline, this hub asks another neighbour, or
    /// asks the same neighbour later.
    pub(super) fn snapshot_declined(&mut self, via: Hop, request: SnapshotRequest, now: Now) {
        let remote = self.hubs.get(&request.hub).filter(|remote| remote.incarnation() == request.incarnation);
        if remote.is_some_and(|remote| remote.repair.asked() == Some(via)) {
            self.stop_snapshot(request.hub, now);
        }
    }

    /// Sends the next part of one of the snapshots that neighbours have requested on this transport.
    pub(super) fn send_snapshots(&mut self, transport: Transport, now: Now) {
        let queue = match transport {
            Transport::Link(link) => self.links.queue_mut(link),
            Transport::Bridge => Some(self.bridge.queue_mut()),
        };
        let Some(queue) = queue.map(Queue::snapshots_mut) else {
            return bug!(self.bugs, HubLink, "{transport:?} has room");
        };
        // This transport sends no snapshot now. A transport without a snapshot also reports room when its full queue is
        // short again.
        let Some(hub) = queue.next_hub(now.at) else { return };
        let held = if hub == self.config.hub { Some(&self.own) } else { self.hubs.get(&hub).map(|r| &r.holding) };
        let Some(held) = held else {
            queue.give_up(hub);
            return bug!(self.bugs, HubMissing, "a snapshot of {hub:?} continues");
        };
        let next = queue.next_part(&held.peers, now.at);
        let more = !queue.is_empty();
        if let Some((via, part)) = next {
            self.send(Destination::from(via), Envelope::Snapshot(Box::new(part)));
        }
        if more {
            self.outputs.push_back(RelayOutput::Backlog { transport });
        }
    }

    /// Stores the state of a peer before the peer changes, because the snapshots that are being sent still need this
    /// state.
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

    /// Declines the outgoing snapshots of a hub whose whole replica is being replaced, because these snapshots cannot
    /// be completed.
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

    pub(super) fn snapshot_received(&mut self, via: Hop, part: SnapshotPart, now: Now) {
        let (hub, last) = (part.hub, part.last);
        let presence = self.budgets.presence;
        let most = |remote: &Remote| Most {
            peers: self.config.tuning.max_peers_per_hub,
            bytes: presence.allows(remote.accounted().presence),
        };
        let remote = self.hubs.get_mut(&hub).filter(|remote| remote.incarnation() == part.incarnation);
        let Some(remote) = remote.filter(|remote| remote.repair.asked() == Some(via)) else {
            // This is not an error. This hub may have asked another neighbour in the meantime, or the hub that the
            // snapshot describes may have ended.
            self.stats.snapshots_refused += 1;
            return;
        };
        let most = most(remote);
        let is_taken = remote.repair.take(part, most, now.at);
        self.account(hub);
        if !is_taken {
            self.refuse_snapshot(hub, now);
        } else if last {
            self.install(hub, now);
        }
    }

    /// Installs a complete snapshot.
    fn install(&mut self, hub: HubId, now: Now) {
        let asked = self.hubs.get(&hub).and_then(|remote| remote.repair.asked());
        let from = asked.and_then(|via| self.neighbour(via));
        let Some(remote) = self.hubs.get_mut(&hub) else {
            return bug!(self.bugs, HubMissing, "a snapshot of {hub:?} is complete");
        };
        let least = if remote.is_doubted() { remote.beat().seq } else { remote.holding.seq };
        let Some(Snapshot { via, seq, digest, peers, bytes }) = remote.repair.complete(least, now.at) else {
            return self.refuse_snapshot(hub, now);
        };
        if seq < remote.beat().seq && from != Some(hub) {
            remote.repair.note_stale(via);
        }
        let before = remote.holding.replace(seq, digest, peers, bytes);
        // The changes with the real reasons of the leaves did not arrive, so each leave gets the reason
        // `ConnectionLost`.
        remote.mark_unreconciled(LeaveCause::Disconnected(LeaveReason::Closed(crate::CloseReason::ConnectionLost)));
        remote.trust();
        self.discarded.add(before);
        self.account(hub);
        self.stop_sending(hub);
        self.stats.snapshots[1] += 1;
        self.event(MeshEvent::Repaired(hub));
        self.begin_work(hub);
        self.work_on(hub, now);
        self.answer_waiters(hub, now);
    }

    /// Handles an invalid snapshot. In an invalid snapshot, a part is malformed or exceeds a limit, the digest is
    /// wrong, or a known change is missing.
    fn refuse_snapshot(&mut self, hub: HubId, now: Now) {
        match self.hubs.get_mut(&hub) {
            Some(remote) => remote.repair.note_vain(now.at),
            None => bug!(self.bugs, HubMissing, "a snapshot of {hub:?} is refused"),
        }
        self.give_up_snapshot(hub, now);
    }

    /// Gives up the requested snapshot, because it is late or invalid or its link has failed.
    pub(super) fn give_up_snapshot(&mut self, hub: HubId, now: Now) {
        if self.hubs.get(&hub).is_some_and(|remote| remote.repair.is_under_way()) {
            self.stats.snapshots_refused += 1;
            self.stop_snapshot(hub, now);
        }
    }

    /// Gives up the requested snapshot. Another snapshot is requested soon.
    fn stop_snapshot(&mut self, hub: HubId, now: Now) {
        let remote = self.hubs.get_mut(&hub);
        let Some((abandoned, remote)) = remote.and_then(|remote| Some((remote.repair.give_up(now.at)?, remote))) else {
            return bug!(self.bugs, SnapshotState, "of {hub:?}, given up");
        };
        let Abandoned { peers, waiters } = abandoned;
        let request = SnapshotRequest { hub, incarnation: remote.incarnation(), have: 0 };
        self.discarded.add(peers);
        self.account(hub);
        for via in waiters {
            // The requests of the waiting neighbours are declined, so that these neighbours can ask other hubs, which
            // may have later changes.
            self.decline_snapshot(via, request);
        }
        self.catch_up(hub, now);
    }

    pub(super) fn cancel_snapshots(&mut self, gone: impl Fn(Hop) -> bool, now: Now) {
        let waiting: Vec<HubId> = self
            .hubs
            .iter()
            .filter(|(_, remote)| remote.repair.asked().is_some_and(&gone))
            .map(|(&hub, _)| hub)
            .collect();
        for hub in waiting {
            self.give_up_snapshot(hub, now);
        }
    }
}
