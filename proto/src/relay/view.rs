//! Read-only views of a relay.

use std::time::Duration;

use crate::time::Now;

use super::reach::Reach;
use super::remote::Remote;
use super::{HubView, Relay, RelayStats};

impl Relay {
    /// Counters since the start, and current gauges.
    pub fn stats(&mut self, now: Now) -> &RelayStats {
        let live = || self.hubs.values().filter(|remote| remote.is_live());
        let millis = |duration: Duration| duration.as_millis() as u64;
        let lag = live().filter_map(|remote| remote.behind_since).map(|at| now.at.saturating_sub(at)).max();
        let is_shown = |r: &&Remote| r.unsettled.is_some() || r.is_live() && !r.holding.peers.is_empty();
        let age = self.hubs.values().filter(is_shown).map(|r| r.age(now.at)).max();
        self.stats.bugs.clone_from(self.bugs.counts());
        self.stats.links_silent = self.links.values().filter(|link| link.is_spare()).count() as u64;
        self.stats.hubs = live().count() as u64;
        self.stats.presence_lag_ms = lag.map_or(0, millis);
        self.stats.ghost_age_ms = age.map_or(0, millis);
        self.stats.remote_peers = self.directory.shown as u64;
        self.stats.in_flight = self.hubs.values().map(|remote| remote.in_flight() as u64).sum();
        self.stats.unsettled_hubs = (self.busy.len() + self.legacy.ended_links()) as u64;
        self.stats.held = self.hubs.values().map(|remote| remote.inbound.len() as u64).sum();
        &self.stats
    }

    /// All other known hubs in ascending order of ids; then the Go hubs behind legacy links.
    pub fn hubs(&self, now: Now) -> Vec<HubView> {
        let reach = self.present_reach(now);
        let native = self.hubs.values().map(|remote| self.view(remote, &reach, now));
        native.chain(self.legacy_hubs(now)).collect()
    }

    fn view(&self, remote: &Remote, reach: &Reach, now: Now) -> HubView {
        let hub = remote.hub();
        HubView {
            hub: self.names.outward(hub),
            incarnation: remote.incarnation,
            live: remote.is_live(),
            draining: remote.beat.draining,
            route: self
                .route_by(reach, &hub, self.avoided(&hub, now), now)
                .filter(|_| remote.lease_ends > now.at)
                .map(|via| self.names.via_outward(via)),
            link: self.by_hub.get(&hub).copied(),
            bridged: remote.is_bridged(now.at),
            legacy: false,
            peers: remote.holding.peers.len(),
            seq: remote.holding.seq,
            lag: remote.lag(),
            heard: remote.age(now.at),
            advertise: remote.beat.advertise.clone(),
            public_url: remote.beat.public_url.clone(),
        }
    }
}
