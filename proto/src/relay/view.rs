//! The statistics of a relay, which consist of counters, gauges, and the state of other hubs.

use std::sync::Arc;
use std::time::Duration;

use crate::bugs::BugCounts;
use crate::envelope::{EnvelopeKind, HubStatus};
use crate::id::{HubId, HubIncarnation, LinkId};
use crate::route::Hop;
use crate::router::RouterStats;
use crate::time::Now;

use super::Relay;
use super::holding::PresenceRefusal;
use super::reach::Reach;
use super::remote::Remote;

/// The state of another hub, as the pages of this hub show it.
#[derive(Clone, Debug)]
pub struct HubView {
    /// The hub.
    pub hub: HubId,
    /// The hub's current incarnation.
    pub incarnation: HubIncarnation,
    /// Whether the hub's lease is valid. When the lease expires, the hub's peers leave the rosters.
    pub live: bool,
    /// Whether the hub drains.
    pub draining: bool,
    /// The first hop to the hub. `None` if the hub is unreachable.
    pub next_hop: Option<Hop>,
    /// The direct link to the hub, if there is one.
    pub link: Option<LinkId>,
    /// Whether the hub is reachable over the Redis bridge.
    pub bridged: bool,
    /// Whether the hub is a Go hub.
    pub legacy: bool,
    /// Number of the hub's peers.
    pub peers: usize,
    /// Number of the hub's last change in the replica.
    pub seq: u64,
    /// Number of the hub's changes that are missing in the replica.
    pub lag: u64,
    /// Time since the hub's last heartbeat.
    pub heard: Duration,
    /// URL at which other hubs can dial the hub.
    pub advertise: Option<Arc<str>>,
    /// URL at which clients reach the hub.
    pub public_url: Option<Arc<str>>,
    /// The figures in the hub's last heartbeat.
    pub status: Option<Arc<HubStatus>>,
}

/// Counters of a relay since its start, and gauges. Counters only grow.
#[derive(Clone, Debug, Default)]
pub struct RelayStats {
    /// Envelopes received, by the discriminant of their kind.
    pub received: [u64; EnvelopeKind::ALL.len()],
    /// Envelopes that the relay has put out, by the discriminant of their kind. An envelope counts once for each link,
    /// and once for the bridge.
    pub sent: [u64; EnvelopeKind::ALL.len()],
    /// Changes and heartbeats that had already arrived, or that belong to an unknown or ended incarnation.
    pub duplicates: u64,
    /// Signals forwarded for other hubs.
    pub forwarded: u64,
    /// Signals of this hub's peers sent to other hubs.
    pub relayed: u64,
    /// Signals of this hub's peers without a receipt that other hubs delivered. Such signals are counted only here,
    /// because no shard receives their outcome.
    pub delivered: u64,
    /// Signals of this hub's peers without a receipt that were sent to Go hubs.
    pub forwarded_to_go: u64,
    /// Signals that other hubs delivered, by the time between the reading of the signal and the arrival of its outcome,
    /// in the buckets of [`RouterStats::latency`].
    pub latency: [u64; RouterStats::LATENCY_BOUNDS.len() + 1],
    /// Signals of other hubs that were dropped because they arrived too late for their order, or arrived twice.
    pub out_of_order: u64,
    /// Outcomes for which no signal waits, in most cases because the signal had expired.
    pub late_outcomes: u64,
    /// The number of snapshots that this hub began to send, and the number of snapshots that it installed.
    pub snapshots: [u64; 2],
    /// Requested snapshots that were given up because of a wrong digest or an invalid part, because they were late, or
    /// because their link failed. Unexpected parts count, too.
    pub snapshots_refused: u64,
    /// Hubs whose lease expired, or that were displaced by a new hub.
    pub hubs_lost: u64,
    /// Peers that left because their hub was lost, or because another incarnation of their hub began.
    pub ghosts_evicted: u64,
    /// Answers of other hubs to takeovers of this hub. The first number counts the answer "free", and the second number
    /// counts the answer "in use".
    pub takeovers: [u64; 2],
    /// Messages of legacy links that were invalid or not allowed.
    pub legacy_refused: u64,
    /// Number of times that a peer of a Go hub became known in a network by its first signal there, in most cases
    /// because the peer was connected before the link.
    pub legacy_introduced: u64,
    /// Number of times that a link carried no data in at least one direction for
    /// [`LINK_SILENCE`](crate::limits::LINK_SILENCE).
    pub link_silences: u64,
    /// Number of times that signals over one hop got no outcomes, so that another route was used.
    pub routes_avoided: u64,
    /// Implausible numbers that were refused. These numbers are incarnations and sessions that start too far in the
    /// future, and signal counters that are too far ahead.
    pub numbers_refused: u64,
    /// Changes and heartbeats that this hub ignored because of a limit, by the discriminant of the [`PresenceRefusal`].
    pub presence_refused: [u64; PresenceRefusal::ALL.len()],
    /// Signals that got `unreachable` because too many signals, or too many bytes of signals, already waited for an
    /// earlier signal.
    pub signals_not_held: u64,
    /// Spans of signals that were not recorded, because too many signals with a span had no outcome.
    pub spans_dropped: u64,
    /// Number of times that this hub gave up its id.
    pub ids_given_up: u64,
    /// States found that the rules exclude.
    pub bugs: BugCounts,
    /// Number of links that carry no data in at least one direction (a gauge).
    pub links_silent: u64,
    /// Number of hubs with a valid lease (a gauge).
    pub hubs: u64,
    /// Number of peers at other hubs and behind legacy links that the shards know (a gauge).
    pub remote_peers: u64,
    /// Size of the presence of other hubs, in bytes (a gauge).
    pub presence_bytes: u64,
    /// Number of signals to other hubs without an outcome (a gauge).
    pub in_flight: u64,
    /// Number of signals of other hubs that wait for an earlier signal or for their sender's presence (a gauge).
    pub held: u64,
    /// Longest time for which a replica has lacked changes of its hub, in milliseconds (a gauge).
    pub presence_lag_ms: u64,
    /// Longest time since the last heartbeat of a hub whose peers are in the rosters, in milliseconds (a gauge).
    pub ghost_age_ms: u64,
    /// Number of hubs and legacy links with unfinished long work, whose changes the shards have not all received (a
    /// gauge).
    pub unreconciled_hubs: u64,
}

impl RelayStats {
    /// Number of outcomes of signals of this hub's peers that were counted here and by no shard.
    pub fn outcomes(&self) -> u64 {
        self.delivered + self.forwarded_to_go
    }
}

impl Relay {
    /// Counters since the start, and current gauges.
    pub fn stats(&mut self, now: Now) -> &RelayStats {
        let live = || self.hubs.values().filter(|remote| remote.is_live());
        let millis = |duration: Duration| duration.as_millis() as u64;
        let lag = live().filter_map(|remote| remote.repair.behind_since()).map(|at| now.at.saturating_sub(at)).max();
        let is_shown = |r: &&Remote| r.is_unreconciled() || r.is_live() && !r.holding.peers.is_empty();
        let age = self.hubs.values().filter(is_shown).map(|r| r.age(now.at)).max();
        self.stats.bugs.clone_from(self.bugs.counts());
        self.stats.links_silent = self.links.iter().filter(|(_, link)| link.is_spare()).count() as u64;
        self.stats.hubs = live().count() as u64;
        self.stats.presence_lag_ms = lag.map_or(0, millis);
        self.stats.ghost_age_ms = age.map_or(0, millis);
        self.stats.presence_bytes = self.budgets.presence.used() as u64;
        self.stats.remote_peers = self.directory.shown as u64;
        self.stats.in_flight = self.hubs.values().map(|remote| remote.in_flight() as u64).sum();
        self.stats.unreconciled_hubs = (self.busy.len() + self.legacy.ended_links()) as u64;
        self.stats.held = self.hubs.values().map(|remote| remote.inbound.len() as u64).sum();
        &self.stats
    }

    /// All other known hubs in ascending order of ids, followed by the Go hubs behind legacy links.
    pub fn hubs(&self, now: Now) -> Vec<HubView> {
        let reach = self.present_reach(now);
        let native = self.hubs.values().map(|remote| self.view(remote, &reach, now));
        native.chain(self.legacy_hubs(now)).collect()
    }

    fn view(&self, remote: &Remote, reach: &Reach, now: Now) -> HubView {
        let hub = remote.hub();
        HubView {
            hub: self.names.outward(hub),
            incarnation: remote.incarnation(),
            live: remote.is_live(),
            draining: remote.beat().draining,
            next_hop: self
                .route_by(reach, &hub, self.avoided(&hub, now), now)
                .filter(|_| remote.lease_ends() > now.at)
                .map(|via| self.names.via_outward(via)),
            link: self.links.used_for(&hub),
            bridged: remote.is_bridged(now.at),
            legacy: false,
            peers: remote.holding.peers.len(),
            seq: remote.holding.seq,
            lag: remote.lag(),
            heard: remote.age(now.at),
            advertise: remote.beat().advertise.clone(),
            public_url: remote.beat().public_url.clone(),
            status: remote.beat().status.clone(),
        }
    }
}
