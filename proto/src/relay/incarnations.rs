//! Handles the start, restart, expiry and farewell of hubs, and assigns the numbers that the shards use for the hubs.

use std::sync::Arc;
use std::time::Duration;

use crate::bug;
use crate::envelope::{Envelope, Heartbeat, SnapshotRequest};
use crate::id::{HubId, HubIncarnation, LinkId};
use crate::limits::{HEARTBEAT, HUB_MEMORY};
use crate::route::Hop;
use crate::time::Now;

use super::budgets::Kept;
use super::directory::LeaveCause;
use super::remote::{Liveness, Remote, Stopped};
use super::repair::Abandoned;
use super::{Destination, MeshEvent, Relay};

impl Relay {
    pub(super) fn set_draining(&mut self, draining: bool, now: Now) {
        self.draining = draining;
        self.beat(now);
    }

    pub(super) fn say_farewell(&mut self, _now: Now) {
        self.ended = true;
        self.send_farewell();
    }

    /// Sends this hub's farewell.
    pub(super) fn send_farewell(&mut self) {
        let farewell = (self.config.hub, self.config.incarnation);
        let links: Vec<LinkId> = self.links.in_use().map(|(_, link)| link).collect();
        for link in links {
            self.send(Destination::Link(link), Envelope::Farewell(farewell.0, farewell.1));
        }
        if self.bridge.is_up() {
            self.send(Destination::Everyone, Envelope::Farewell(farewell.0, farewell.1));
        }
    }

    /// Begins a new incarnation of a hub, after [`Self::end_incarnation`] has ended the known one.
    pub(super) fn begin_incarnation(&mut self, beat: &Arc<Heartbeat>) {
        self.restart_counters(beat.hub);
        let Some(remote) = self.hubs.get_mut(&beat.hub) else {
            return bug!(self.bugs, HubMissing, "{:?} begins an incarnation", beat.hub);
        };
        remote.begin_incarnation(beat.incarnation);
        self.choose_link(beat.hub);
    }

    pub(super) fn farewell_received(&mut self, via: Hop, hub: HubId, incarnation: HubIncarnation, now: Now) {
        if hub == self.config.hub {
            return self.own_farewell_received(incarnation, now);
        }
        // This is not an error. This hub has never received a heartbeat of the ended hub, or has forgotten that hub.
        let Some(remote) = self.hubs.get_mut(&hub) else { return };
        remote.note_ended(incarnation);
        let known = self.hubs.get(&hub).filter(|remote| remote.incarnation() == incarnation);
        if known.is_none_or(|remote| remote.state() == Liveness::Ended) {
            // This is not an error. This hub knows another incarnation, or the farewell has already arrived over
            // another link.
            return;
        }
        let peers_gone = self.end_incarnation(hub, Liveness::Ended, now);
        self.reach = None;
        self.event(MeshEvent::HubLeft(hub, peers_gone));
        self.pass_to_neighbours(via, hub, &Envelope::Farewell(hub, incarnation), now);
    }

    /// Processes a received farewell that names this hub. The farewell is forged, or another process with this id
    /// (`rival`) sent it when that process took a new id.
    fn own_farewell_received(&mut self, incarnation: HubIncarnation, now: Now) {
        if incarnation == self.config.incarnation && self.rival.is_none() && !self.ended {
            self.begin_later_incarnation(incarnation, now);
        }
    }

    /// Detects a pause in which the whole process did not run. After the pause, every lease seems to have expired.
    /// Therefore, no lease expires for one more [`HEARTBEAT`], in which the data that arrived during the pause is read.
    pub(super) fn notice_thaw(&mut self, now: Now) {
        if now.at.saturating_sub(self.last_timeout) > 2 * HEARTBEAT {
            self.judge_from = now.at + HEARTBEAT;
            self.links.thaw(now.at);
        }
        self.last_timeout = now.at;
    }

    /// Processes the due timeouts of a hub.
    pub(super) fn hub_due(&mut self, hub: HubId, now: Now) {
        let is_due = |at: Option<Duration>| at.is_some_and(|at| at <= now.at);
        let Some(remote) = self.hubs.get(&hub) else {
            return bug!(self.bugs, HubMissing, "{hub:?} is due");
        };
        if remote.is_live() && remote.lease_ends() <= now.at && self.judge_from <= now.at {
            self.lose_hub(hub, now);
        }
        let Some(remote) = self.hubs.get(&hub) else {
            return bug!(self.bugs, HubMissing, "{hub:?} was lost");
        };
        if remote.repair.is_late(now.at) {
            self.give_up_snapshot(hub, now);
        }
        if self.hubs.get(&hub).is_some_and(|remote| remote.repair.is_asking(now.at)) {
            self.ask_for_snapshot(hub, now);
        }
        if is_due(self.hubs.get(&hub).and_then(|remote| remote.outcomes.due())) {
            self.send_outcomes(hub, now);
        }
        self.expire_held(hub, now);
        self.expire_outbound(hub, now);
    }

    /// Treats a hub as lost, because its lease has expired or a new hub displaces it.
    fn lose_hub(&mut self, hub: HubId, now: Now) {
        let peers_gone = self.end_incarnation(hub, Liveness::Lost, now);
        self.reach = None;
        self.stats.hubs_lost += 1;
        self.stats.ghosts_evicted += peers_gone as u64;
        self.event(MeshEvent::HubLost(hub, peers_gone));
    }

    /// Ends the known incarnation of a hub. Its replica is emptied immediately, and the shards are notified in slices
    /// that all its peers have left. Signals and outcomes to the hub and snapshots of the hub end, too. The hub stays
    /// known until [`Self::forget_hub`]. Returns the number of peers that the hub had.
    pub(super) fn end_incarnation(&mut self, hub: HubId, state: Liveness, now: Now) -> usize {
        let Some(remote) = self.hubs.get_mut(&hub) else {
            bug!(self.bugs, HubMissing, "the incarnation of {hub:?} ends");
            return 0;
        };
        let Stopped { peers: held, abandoned: Abandoned { peers: received, waiters } } = remote.stop(state);
        let request = SnapshotRequest { hub, incarnation: remote.incarnation(), have: 0 };
        remote.mark_unreconciled(LeaveCause::HubGone);
        let peers = held.len();
        self.discarded.add(held);
        self.discarded.add(received);
        self.account(hub);
        for via in waiters {
            self.decline_snapshot(via, request);
        }
        self.stop_sending(hub);
        self.give_up_outbound(hub);
        self.begin_work(hub);
        self.work_on(hub, now);
        peers
    }

    /// Forgets hubs that stopped long ago.
    pub(super) fn forget_the_dead(&mut self, now: Now) {
        let dead: Vec<HubId> = self
            .hubs
            .values()
            .filter(|remote| !remote.is_live() && remote.age(now.at) >= HUB_MEMORY)
            .map(Remote::hub)
            .filter(|hub| !self.busy.contains(hub))
            .collect();
        for hub in dead {
            self.forget_hub(hub);
        }
    }

    fn forget_hub(&mut self, hub: HubId) {
        let Some(remote) = self.hubs.remove(&hub) else {
            return bug!(self.bugs, HubMissing, "{hub:?} is forgotten");
        };
        self.budgets.change(remote.accounted(), Kept::default());
        self.forget_number(remote.number(), hub);
        let by = remote.introduced_by();
        match self.introducers.get_mut(&by) {
            Some(1) => _ = self.introducers.remove(&by),
            Some(introduced) => *introduced -= 1,
            None => bug!(self.bugs, HubMissing, "{by:?} has introduced {hub:?}, but is not counted"),
        }
    }

    /// Makes room for one more hub, whose heartbeat arrived over this hop. Returns false if there is no room yet.
    ///
    /// A neighbour introduces a hub if the hub's first heartbeat arrives from this neighbour. Let N be the number of
    /// hubs that the neighbour at this hop has introduced, plus one for the new hub. There is room only if another
    /// neighbour has introduced more than N hubs. In this case, the hub that stopped first is forgotten. If no hub has
    /// stopped, this hub forgets a hub that the neighbour with the most introductions has introduced. That neighbour
    /// itself is not forgotten, and a hub with a link to this hub is not forgotten. Of the remaining hubs, the hub with
    /// the fewest peers is chosen. If several hubs have the fewest peers, the hub with the latest number is chosen.
    /// So a neighbour that invents hubs does not displace live hubs of a neighbour that has introduced fewer hubs.
    pub(super) fn make_room(&mut self, via: Hop, now: Now) -> bool {
        let introduced = |by: HubId| self.introducers.get(&by).copied().unwrap_or_default();
        let ours = self.neighbour(via).map_or(0, introduced);
        let Some((&by, &most)) = self.introducers.iter().max_by_key(|(_, introduced)| **introduced) else {
            return false;
        };
        if most <= ours + 1 {
            return false;
        }
        let idle = self.hubs.iter().filter(|(hub, _)| !self.busy.contains(hub));
        let stopped = idle.clone().filter(|(_, remote)| !remote.is_live()).max_by_key(|(_, remote)| remote.age(now.at));
        let is_linked = |hub: &HubId| self.links.used_for(hub).is_some();
        let introduced = idle.filter(|(hub, remote)| remote.introduced_by() == by && **hub != by && !is_linked(hub));
        let latest = || introduced.min_by_key(|(_, remote)| (remote.holding.peers.len(), !remote.number()));
        let Some(&hub) = stopped.or_else(latest).map(|(hub, _)| hub) else { return false };
        if self.hubs.get(&hub).is_some_and(Remote::is_live) {
            // A stopped hub can be forgotten soon, when the shards know of the end of all its peers. Without this check,
            // each further heartbeat of the new hub would end another live hub before that.
            if self.hubs.iter().any(|(hub, remote)| !remote.is_live() && self.busy.contains(hub)) {
                return false;
            }
            self.lose_hub(hub, now);
        }
        // A hub with many peers is forgotten later, when the shards have been notified of all its peers.
        let is_free = !self.busy.contains(&hub);
        if is_free {
            self.forget_hub(hub);
        }
        is_free
    }

    /// Assigns a number to a hub, which is the next free number after the last assigned number.
    pub(super) fn number(&mut self, hub: HubId) -> u32 {
        loop {
            self.last_number = self.last_number.wrapping_add(1);
            // The greatest number is never assigned.
            if self.last_number < u32::MAX && !self.numbers.contains_key(&self.last_number) {
                self.numbers.insert(self.last_number, hub);
                return self.last_number;
            }
        }
    }

    fn forget_number(&mut self, number: u32, hub: HubId) {
        let called = self.numbers.remove(&number);
        if called != Some(hub) {
            bug!(self.bugs, HubNumber, "{number} is {called:?}, not {hub:?}");
        }
    }

    /// Restarts the counters of signals between this hub and another hub, because one of the two hubs has a new
    /// incarnation.
    pub(super) fn restart_counters(&mut self, hub: HubId) {
        let number = self.number(hub);
        let Some(remote) = self.hubs.get_mut(&hub) else {
            return bug!(self.bugs, HubMissing, "the counters of {hub:?} restart");
        };
        if remote.outbound.len() > 0 {
            bug!(self.bugs, SignalsLost, "{} to {hub:?}", remote.outbound.len());
        }
        let before = remote.restart_counters(number);
        self.account(hub);
        self.forget_number(before, hub);
    }
}
