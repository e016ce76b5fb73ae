//! The topology of the mesh, which is derived from the neighbours in heartbeats, and the route to each hub.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::id::HubId;
use crate::route::Hop;
use crate::time::Now;

use super::Relay;

/// The reachable hubs, derived from the neighbours that hubs report. A `Reach` is discarded and rebuilt when hubs,
/// links, reported neighbours or the bridge have changed.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    /// The hubs that are linked with this hub, directly or through other hubs.
    linked: BTreeSet<HubId>,
    /// The first hop of a shortest route to each hub. If all hubs know the same links, each hop brings a signal nearer
    /// to its target, and a signal passes no hub twice.
    steps: BTreeMap<HubId, Hop>,
    /// The hubs that can be reached over the bridge.
    bridged: BTreeSet<HubId>,
}

impl Relay {
    /// The first hop to a hub, which is the direct link if there is one, otherwise the bridge, otherwise the link to a
    /// hub on the way.
    ///
    /// A link that fails in at least one direction is used only if there is no other route.
    pub(super) fn route(&mut self, hub: &HubId, now: Now) -> Option<Hop> {
        self.find_route(hub, None, now)
    }

    /// The first hop for signals of this hub's own peers. A route on which signals get no answers is used only if there
    /// is no other route.
    ///
    /// Only the sender's hub avoids routes on which signals get no answers. A hub that forwards the signal uses
    /// [`Self::route`]. If a forwarding hub also avoided routes, it could send the signal back although it could reach
    /// the target.
    pub(super) fn signal_route(&mut self, hub: &HubId, now: Now) -> Option<Hop> {
        self.find_route(hub, self.avoided(hub, now), now)
    }

    fn find_route(&mut self, hub: &HubId, avoided: Option<Hop>, now: Now) -> Option<Hop> {
        if let Some(direct) = self.direct(hub, avoided) {
            return Some(direct);
        }
        let reach = self.reach.take().unwrap_or_else(|| self.look_around(now));
        let route = self.route_by(&reach, hub, avoided, now);
        self.reach = Some(reach);
        route
    }

    /// The hop that signals to a hub must avoid if there is another route.
    pub(super) fn avoided(&self, hub: &HubId, now: Now) -> Option<Hop> {
        self.hubs.get(hub).and_then(|remote| remote.signal_route.avoided(now.at))
    }

    /// The topology, for callers that must not change state.
    pub(super) fn present_reach(&self, now: Now) -> Cow<'_, Reach> {
        self.reach.as_ref().map_or_else(|| Cow::Owned(self.look_around(now)), Cow::Borrowed)
    }

    pub(super) fn route_by(&self, reach: &Reach, hub: &HubId, avoided: Option<Hop>, now: Now) -> Option<Hop> {
        let direct = self.direct(hub, avoided);
        if direct.is_some() {
            return direct;
        }
        let spare = self.links.used_for(hub).map(Hop::Link);
        // The linked hub is missing in `hubs` until its first heartbeat has arrived.
        let Some(remote) = self.hubs.get(hub) else { return spare };
        let bridged = Some(Hop::Bridge(*hub)).filter(|_| self.bridge.is_up() && remote.is_bridged(now.at));
        // Only hubs on the bridge know which other hubs are on the bridge. If the topology has no step to a hub, the
        // hops over which that hub's heartbeats arrive are used.
        let hops = [bridged, reach.steps.get(hub).copied(), remote.paths.best()];
        let hops = || hops.into_iter().flatten().chain(remote.paths.newest_first());
        let works = |via: &Hop| !self.is_spare(*via) && Some(*via) != avoided;
        hops().find(works).or(spare).or_else(|| hops().next())
    }

    /// The link to a hub, if it is usable.
    fn direct(&self, hub: &HubId, avoided: Option<Hop>) -> Option<Hop> {
        let direct = self.links.used_for(hub).map(Hop::Link);
        direct.filter(|&via| !self.is_spare(via) && Some(via) != avoided)
    }

    /// Whether this hub publishes another hub's envelopes on the bridge, because that other hub is not on the bridge
    /// itself. Of all hubs on the bridge that have a path of links to the other hub, the hub with the smallest id
    /// publishes the other hub's envelopes.
    pub(super) fn speaks_for(&mut self, hub: &HubId, now: Now) -> bool {
        if self.hubs.get(hub).is_none_or(|remote| remote.is_bridged(now.at)) {
            return false;
        }
        let reach = self.reach.take().unwrap_or_else(|| self.look_around(now));
        let bridged = |hub: &HubId| self.hubs.get(hub).is_some_and(|remote| remote.is_bridged(now.at));
        let is_linked = reach.linked.contains(hub);
        let speaks = is_linked && !reach.linked.iter().any(|other| *other < self.config.hub && bridged(other));
        self.reach = Some(reach);
        speaks
    }

    /// Discards the topology when hubs have left the bridge. The topology is rebuilt when it is needed.
    pub(super) fn check_reach(&mut self, now: Now) {
        let gone = |hub: &HubId| self.hubs.get(hub).is_none_or(|remote| !remote.is_bridged(now.at));
        if self.reach.as_ref().is_some_and(|reach| reach.bridged.iter().any(gone)) {
            self.reach = None;
        }
    }

    fn look_around(&self, now: Now) -> Reach {
        let live = |hub: &HubId| self.hubs.get(hub).filter(|remote| remote.is_live());
        let mut linked: BTreeSet<HubId> =
            self.links.in_use().filter(|&(_, link)| !self.is_spare(Hop::Link(link))).map(|(hub, _)| hub).collect();
        let mut look_at: Vec<HubId> = linked.iter().copied().collect();
        while let Some(hub) = look_at.pop() {
            for &next in live(&hub).iter().flat_map(|remote| &remote.beat().neighbours) {
                if next != self.config.hub && linked.insert(next) {
                    look_at.push(next);
                }
            }
        }
        let on_bridge = |hub: &HubId| live(hub).is_some_and(|remote| remote.is_bridged(now.at));
        let bridged: BTreeSet<HubId> = self.hubs.keys().copied().filter(on_bridge).collect();
        let bridged = if self.bridge.is_up() { bridged } else { BTreeSet::new() };
        let mut steps = BTreeMap::new();
        for (hub, link) in self.links.in_use() {
            let via = Hop::Link(link);
            if !self.is_saturated(via) && !self.is_spare(via) {
                steps.insert(hub, via);
            }
        }
        for &hub in &bridged {
            steps.entry(hub).or_insert(Hop::Bridge(hub));
        }
        let mut nearest: VecDeque<HubId> = steps.keys().copied().collect();
        while let Some(hub) = nearest.pop_front() {
            // Before the first heartbeat of a linked hub has arrived, its neighbours are unknown.
            let Some(remote) = live(&hub) else { continue };
            // Never `None`: only hubs with a step are in `nearest`.
            let Some(&step) = steps.get(&hub) else { continue };
            for &next in &remote.beat().neighbours {
                let is_heard = live(&next).is_none_or(|next| !next.beat().unheard.contains(&hub));
                if next != self.config.hub && !steps.contains_key(&next) && is_heard {
                    steps.insert(next, step);
                    nearest.push_back(next);
                }
            }
        }
        Reach { linked, steps, bridged }
    }
}
