//! Renders each page.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::mesh::MeshReading;
use bytes::Bytes;
use proto::NetworkName;
use serde::Serialize;
use shard::ShardReading;

use super::body::FlooderBody;
use super::{HubFacts, body, clock, mesh};
use crate::acme::AcmeFacts;
use crate::config::Config;
use crate::lifecycle::{Fullness, Stage};
use crate::telemetry::{self, Scrape, Telemetry, TlsScrape};
use crate::token_keys::KeyFacts;
use crate::traces::TraceFacts;

/// A page that is rendered on the pages' thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PageKind {
    Health,
    /// /health for everybody but operators.
    HealthBrief,
    HubStats,
    Hubs,
    Metrics,
    /// The Go hub's form of /metrics without the names of networks.
    MetricsJson,
    /// The Go hub's form of /metrics with the names of networks.
    MetricsJsonNames,
    Stats,
}

impl PageKind {
    /// Every kind, in the order of its discriminant.
    pub(super) const ALL: [Self; 8] = [
        Self::Health,
        Self::HealthBrief,
        Self::HubStats,
        Self::Hubs,
        Self::Metrics,
        Self::MetricsJson,
        Self::MetricsJsonNames,
        Self::Stats,
    ];

    /// The name in metrics.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::HealthBrief => "health-brief",
            Self::HubStats => "hubstats",
            Self::Hubs => "hubs",
            Self::Metrics => "metrics",
            Self::MetricsJson => "metrics-json",
            Self::MetricsJsonNames => "metrics-json-names",
            Self::Stats => "stats",
        }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Metrics => telemetry::CONTENT_TYPE,
            Self::Health
            | Self::HealthBrief
            | Self::HubStats
            | Self::Hubs
            | Self::MetricsJson
            | Self::MetricsJsonNames
            | Self::Stats => "application/json",
        }
    }
}

/// Renders pages.
pub(super) struct Renderer {
    config: Arc<Config>,
    facts: Arc<HubFacts>,
    fullness: Arc<Fullness>,
    telemetry: Telemetry,
    /// Number of renderings of each kind.
    made: [AtomicU64; PageKind::ALL.len()],
}

impl Renderer {
    pub(super) fn new(config: Arc<Config>, facts: Arc<HubFacts>, fullness: Arc<Fullness>) -> Self {
        Self { config, facts, fullness, telemetry: Telemetry::new(), made: Default::default() }
    }

    /// Renders a page.
    pub(super) async fn render(&self, kind: PageKind) -> Bytes {
        self.made[kind as usize].fetch_add(1, Ordering::Relaxed);
        match kind {
            PageKind::Health => json(&self.health()),
            PageKind::HealthBrief => json(&self.health_brief()),
            PageKind::HubStats => json(&self.hub_stats(&self.mesh())),
            PageKind::Hubs => json(&self.hubs(&self.mesh())),
            PageKind::Metrics => self.telemetry.render(&self.scrape()).into(),
            PageKind::MetricsJson => json(&self.metrics(&[], None)),
            PageKind::MetricsJsonNames => {
                let readings: Vec<_> = self.readings().collect();
                let is_closed = self.config.admin_token.is_some();
                let flooder = FlooderBody::worst(readings.iter().map(AsRef::as_ref)).filter(|_| is_closed);
                json(&self.metrics(&self.facts.networks.largest().await, flooder))
            }
            PageKind::Stats => json(&self.stats()),
        }
    }

    fn health(&self) -> body::Health {
        body::Health {
            connections: self.connections(),
            hubs: mesh::count(&self.mesh()),
            is_hub: self.config.is_hub,
            memory: telemetry::process::Memory::measure().map_or_else(body::MemoryBody::hidden, body::MemoryBody::of),
            networks: self.networks(),
            peers: self.peers(),
            status: "healthy",
            timestamp: clock::now(),
            uptime: self.uptime_ms(),
        }
    }

    fn health_brief(&self) -> body::HealthBrief {
        body::HealthBrief {
            is_hub: self.config.is_hub,
            memory: body::MemoryBody::hidden(),
            status: "healthy",
            timestamp: clock::now(),
        }
    }

    fn stats(&self) -> body::Stats<'_> {
        body::Stats {
            bootstrap_hubs: body::BootstrapCount {
                connected: mesh::bootstrap_connected(&self.mesh()),
                total: self.config.bootstrap_hubs.len(),
            },
            connections: self.connections(),
            host: &self.config.host,
            hub_mesh_namespace: &self.config.mesh_namespace,
            hub_peer_id: if self.config.is_hub {
                // The id in the mesh differs from HUB_ID if two hubs have that HUB_ID.
                self.mesh().hub.unwrap_or(self.config.hub_id).to_string()
            } else {
                String::new()
            },
            hubs: mesh::count(&self.mesh()),
            is_hub: self.config.is_hub,
            is_running: self.facts.lifecycle.stage() == Stage::Ready,
            max_connections: self.facts.max_connections,
            networks: self.networks(),
            peers: self.peers(),
            port: self.facts.port,
            uptime: self.uptime_ms(),
        }
    }

    fn hubs<'a>(&'a self, reading: &'a MeshReading) -> body::Hubs<'a> {
        let hubs = mesh::hubs(reading, &self.config, true, clock::unix_ms());
        body::Hubs { total_hubs: hubs.len(), hubs, timestamp: clock::now() }
    }

    fn hub_stats<'a>(&'a self, reading: &'a MeshReading) -> body::HubStats<'a> {
        let now = clock::unix_ms();
        let meshed = self.config.has_mesh();
        body::HubStats {
            bootstrap_hubs: mesh::bootstrap_hubs(reading, &self.config),
            connected_hubs: mesh::connected_hubs(reading),
            found_hubs: meshed.then(|| mesh::found_hubs(reading)),
            hubs: mesh::hubs(reading, &self.config, true, now),
            links: meshed.then(|| reading.links.iter().map(mesh::LinkBody::of).collect()),
            lost_hubs: meshed.then(|| mesh::hubs(reading, &self.config, false, now)),
            redis: meshed.then(|| reading.bridge.as_ref().map(mesh::BridgeBody::of)),
            total_hubs: mesh::count(reading),
        }
    }

    fn metrics<'a>(&'a self, names: &'a [(NetworkName, usize)], flooder: Option<FlooderBody>) -> body::Metrics<'a> {
        body::Metrics {
            connections: body::ConnectionCount { active: self.connections(), max: self.facts.max_connections },
            hubs: body::HubCount {
                bootstrap_connected: mesh::bootstrap_connected(&self.mesh()),
                discovered: mesh::count(&self.mesh()),
            },
            networks: self.networks(),
            peers: body::PeerCount {
                flooder,
                networks: names.iter().map(|(name, members)| (name.as_str(), *members)).collect::<BTreeMap<_, _>>(),
                total: self.peers(),
            },
            server: body::Server {
                app_name: &self.config.fly_app_name,
                is_hub: self.config.is_hub,
                namespace: &self.config.mesh_namespace,
                region: &self.config.fly_region,
            },
            timestamp: clock::now(),
            uptime_ms: self.uptime_ms(),
        }
    }

    fn scrape(&self) -> Scrape {
        Scrape {
            readings: self.readings().collect(),
            renders: PageKind::ALL
                .map(|kind| (kind.label(), self.made[kind as usize].load(Ordering::Relaxed)))
                .to_vec(),
            mesh: self.mesh(),
            tls: self.tls(),
            token_key_loads: self.facts.token_keys.as_ref().map(KeyFacts::loads).unwrap_or_default(),
            connections: self.connections(),
            max_connections: self.facts.max_connections,
            send_budget_bytes: self.config.send_budget_bytes,
            announce_budget_bytes: self.config.announce_budget_bytes,
            peers: self.peers(),
            ready: self.facts.lifecycle.stage() == Stage::Ready,
            full: self.fullness.update(self.connections()),
            oldest_turn: self.facts.watchdog.oldest().map_or(Duration::ZERO, |oldest| oldest.since),
            log: telemetry::log::state(),
            traces: self.facts.traces.as_ref().map(TraceFacts::counts).unwrap_or_default(),
            uptime: self.facts.started.elapsed(),
            started: self.facts.started_at.duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    fn tls(&self) -> TlsScrape {
        let Some(tls) = &self.facts.tls else { return TlsScrape::default() };
        let (certificates, now) = (tls.certificates(), SystemTime::now());
        let days = |facts: &::tls::CertificateFacts| facts.seconds_left(now) / 86_400.0;
        let days_left = certificates.iter().map(|facts| (facts.file.display().to_string(), days(facts)));
        let acme = tls.acme().map(AcmeFacts::view);
        TlsScrape { days_left: days_left.collect(), reloads: tls.reloads(), stale: tls.is_stale(), acme }
    }

    fn mesh(&self) -> Arc<MeshReading> {
        Arc::clone(&self.facts.mesh.borrow())
    }

    fn readings(&self) -> impl Iterator<Item = Arc<ShardReading>> {
        self.facts.readings.iter().map(|reading| Arc::clone(&reading.borrow()))
    }

    /// Number of networks. Every shard knows all networks, except for changes that it has not received yet.
    fn networks(&self) -> usize {
        self.readings().map(|reading| reading.router.networks).max().unwrap_or(0) as usize
    }

    fn connections(&self) -> usize {
        self.facts.connections()
    }

    fn peers(&self) -> usize {
        self.facts.gauges.peers.load(Ordering::Relaxed)
    }

    fn uptime_ms(&self) -> u64 {
        self.facts.started.elapsed().as_millis() as u64
    }
}

fn json(value: &impl Serialize) -> Bytes {
    // Structs of numbers and strings always serialize.
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    body.into()
}
