//! What the hub answers over HTTP, WebSockets aside.
//!
//! The fields and their order are those of the Go hub: dashboards and clients read them.

mod body;
mod clock;
mod mesh;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::mesh::MeshReading;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue,
    VARY,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use proto::Router;
use serde::Serialize;
use shard::{Audience, Gauges, Pages, Reading};
use tokio::sync::watch;

use crate::config::Config;
use crate::lifecycle::{Fullness, Lifecycle, Stage};
use crate::telemetry::{self, Scrape, Telemetry};
use crate::watchdog::{Stuck, Watchdog};

/// What the pages look at.
#[derive(Debug)]
pub struct HubFacts {
    /// When the hub started.
    pub started: Instant,
    /// The same by the wall's clock.
    pub started_at: SystemTime,
    /// The port that was bound, which PORT=0 does not say.
    pub port: u16,
    /// WebSockets that may be open at once: MAX_CONNECTIONS, or less where the process may open too few files.
    pub max_connections: usize,
    /// What counts at once.
    pub gauges: Arc<Gauges>,
    /// What each shard last published, in the order of the shards.
    pub readings: Vec<watch::Receiver<Arc<Reading>>>,
    /// What the mesh last published; a hub without one has nothing there.
    pub mesh: watch::Receiver<Arc<MeshReading>>,
    /// Where the hub is in its life.
    pub lifecycle: Lifecycle,
    /// Which of its threads turn.
    pub watchdog: Watchdog,
}

/// The pages of a hub.
pub fn pages(config: Arc<Config>, facts: HubFacts) -> Pages {
    let fullness = Fullness::of(facts.max_connections);
    let site = Site { cors: cors_headers(&config), config, facts, fullness, telemetry: Telemetry::new() };
    Arc::new(move |request, router, audience| site.answer(request, router, audience))
}

/// The headers that let a page of another origin read an answer; they belong on every answer, refusals included.
pub fn cors_headers(config: &Config) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, config.cors_origin.clone());
    if config.cors_origin != "*" {
        headers.insert(VARY, HeaderValue::from_static("Origin"));
    }
    headers
}

struct Site {
    config: Arc<Config>,
    facts: HubFacts,
    fullness: Fullness,
    cors: HeaderMap,
    telemetry: Telemetry,
}

#[derive(Clone, Copy, Debug)]
enum Page {
    Health,
    HubStats,
    Hubs,
    Index,
    Livez,
    Metrics,
    Readyz,
    Stats,
    WebSocket,
}

impl Page {
    /// Whether it is for whoever reaches a peer's port, where operators have another (ADMIN_PORT).
    fn is_public(self) -> bool {
        match self {
            Self::Health | Self::Index | Self::Livez | Self::Readyz | Self::WebSocket => true,
            Self::HubStats | Self::Hubs | Self::Metrics | Self::Stats => false,
        }
    }
}

/// Where the pages are. The first is where the WebSocket is, too, for clients that leave out the path.
const PATHS: [(&str, Page); 9] = [
    ("/", Page::Index),
    ("/health", Page::Health),
    ("/hubs", Page::Hubs),
    ("/hubstats", Page::HubStats),
    ("/livez", Page::Livez),
    ("/metrics", Page::Metrics),
    ("/readyz", Page::Readyz),
    ("/stats", Page::Stats),
    ("/ws", Page::WebSocket),
];

/// The answer of /readyz while the hub has no seat for a further peer.
pub const FULL: &str = "full";

const METHODS: &str = "GET, HEAD, OPTIONS";

/// How long a browser may go without asking again whether it may ask, in seconds: the longest that browsers keep.
const PREFLIGHT_SECS: &str = "86400";

impl Site {
    fn answer(&self, request: &Parts, router: &Router, audience: Audience) -> Response<Full<Bytes>> {
        let mut response = self.respond(request, router, audience);
        let length = hyper::body::Body::size_hint(response.body()).exact().unwrap_or(0);
        if request.method == Method::HEAD {
            *response.body_mut() = Full::default();
        }
        let headers = response.headers_mut();
        headers.extend(self.cors.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if request.method != Method::OPTIONS {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        response
    }

    fn respond(&self, request: &Parts, router: &Router, audience: Audience) -> Response<Full<Bytes>> {
        if request.method == Method::OPTIONS {
            return preflight();
        }
        let path = request.uri.path();
        let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        let shown = || PATHS.into_iter().filter(|(_, page)| audience == Audience::Operators || page.is_public());
        let paths = || shown().map(|(path, _)| path).collect();
        let Some((_, page)) = shown().find(|(known, _)| *known == path) else {
            return json(StatusCode::NOT_FOUND, &body::Lost::new("not found", paths()));
        };
        if request.method != Method::GET && request.method != Method::HEAD {
            let lost = body::Lost::new("method not allowed", paths());
            let mut response = json(StatusCode::METHOD_NOT_ALLOWED, &lost);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
            return response;
        }
        match page {
            Page::Health => json(StatusCode::OK, &self.health(router)),
            Page::HubStats => json(StatusCode::OK, &self.hub_stats(&self.mesh())),
            Page::Hubs => json(StatusCode::OK, &self.hubs(&self.mesh())),
            Page::Index => json(StatusCode::OK, &body::Index::new(paths())),
            Page::Livez => match self.stuck() {
                None => plain(StatusCode::OK, "ok"),
                Some(stuck) => plain(StatusCode::SERVICE_UNAVAILABLE, &stuck),
            },
            Page::Metrics if wants_json(request) => {
                json(StatusCode::OK, &self.metrics(router, self.may_read_names(request)))
            }
            Page::Metrics => text(StatusCode::OK, telemetry::CONTENT_TYPE, self.telemetry.render(&self.scrape())),
            Page::Readyz => self.readyz(),
            Page::Stats => json(StatusCode::OK, &self.stats(router)),
            Page::WebSocket => {
                let lost = body::Lost::new("this path takes WebSocket handshakes", paths());
                json(StatusCode::BAD_REQUEST, &lost)
            }
        }
    }

    fn readyz(&self) -> Response<Full<Bytes>> {
        let stage = self.facts.lifecycle.stage();
        if stage != Stage::Ready {
            return plain(StatusCode::SERVICE_UNAVAILABLE, stage.label());
        }
        if let Some(stuck) = self.stuck() {
            return plain(StatusCode::SERVICE_UNAVAILABLE, &stuck);
        }
        if self.is_full() && !self.config.ready_when_full {
            return plain(StatusCode::SERVICE_UNAVAILABLE, FULL);
        }
        plain(StatusCode::OK, stage.label())
    }

    /// Which thread does not turn, if one does not.
    fn stuck(&self) -> Option<String> {
        let Stuck { thread, since } = self.facts.watchdog.stuck()?;
        Some(format!("stuck: thread {thread} has not turned for {} s", since.as_secs()))
    }

    fn is_full(&self) -> bool {
        self.fullness.look(self.connections())
    }

    fn health(&self, router: &Router) -> body::Health {
        body::Health {
            connections: self.connections(),
            hubs: mesh::count(&self.mesh()),
            is_hub: self.config.is_hub,
            memory: body::Memory::of(telemetry::process::Memory::measure()),
            networks: router.networks().count(),
            peers: self.peers(),
            status: "healthy",
            timestamp: clock::now(),
            uptime: self.uptime_ms(),
        }
    }

    fn stats(&self, router: &Router) -> body::Stats<'_> {
        body::Stats {
            bootstrap_hubs: body::BootstrapCount {
                connected: mesh::bootstrap_connected(&self.mesh()),
                total: self.config.bootstrap_hubs.len(),
            },
            connections: self.connections(),
            host: &self.config.host,
            hub_mesh_namespace: &self.config.mesh_namespace,
            hub_peer_id: if self.config.is_hub { self.config.hub_id.to_string() } else { String::new() },
            hubs: mesh::count(&self.mesh()),
            is_hub: self.config.is_hub,
            is_running: self.facts.lifecycle.stage() == Stage::Ready,
            max_connections: self.facts.max_connections,
            networks: router.networks().count(),
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
            links: meshed.then(|| reading.links.iter().map(mesh::Link::of).collect()),
            lost_hubs: meshed.then(|| mesh::hubs(reading, &self.config, false, now)),
            redis: meshed.then(|| reading.bridge.as_ref().map(mesh::Bridge::of)),
            total_hubs: mesh::count(reading),
        }
    }

    /// Whether whoever asks may read what networks are called, which can be what keeps strangers out of them: where peers have to show a
    /// token and this page is at their port, who shows it as well (`Authorization: Bearer`).
    fn may_read_names(&self, request: &Parts) -> bool {
        let Some(token) = self.config.auth_token.as_ref().filter(|_| self.config.admin_port.is_none()) else {
            return true;
        };
        let shown = request.headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        shown.is_some_and(|shown| token.matches(shown))
    }

    fn metrics<'a>(&'a self, router: &'a Router, names: bool) -> body::Metrics<'a> {
        body::Metrics {
            connections: body::ConnectionCount { active: self.connections(), max: self.facts.max_connections },
            hubs: body::HubCount {
                bootstrap_connected: mesh::bootstrap_connected(&self.mesh()),
                discovered: mesh::count(&self.mesh()),
            },
            networks: router.networks().count(),
            peers: body::PeerCount {
                networks: if names { body::largest(router) } else { BTreeMap::new() },
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
            readings: self.facts.readings.iter().map(|reading| Arc::clone(&reading.borrow())).collect(),
            mesh: self.mesh(),
            connections: self.connections(),
            max_connections: self.facts.max_connections,
            send_budget_bytes: self.config.send_budget_bytes,
            announce_budget_bytes: self.config.announce_budget_bytes,
            peers: self.peers(),
            ready: self.facts.lifecycle.stage() == Stage::Ready,
            full: self.is_full(),
            oldest_turn: self.facts.watchdog.oldest().map_or(Duration::ZERO, |oldest| oldest.since),
            log: telemetry::log::state(),
            uptime: self.facts.started.elapsed(),
            started: self.facts.started_at.duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    fn mesh(&self) -> Arc<MeshReading> {
        Arc::clone(&self.facts.mesh.borrow())
    }

    fn connections(&self) -> usize {
        self.facts.gauges.connections.load(Ordering::Relaxed)
    }

    fn peers(&self) -> usize {
        self.facts.gauges.peers.load(Ordering::Relaxed)
    }

    fn uptime_ms(&self) -> u64 {
        self.facts.started.elapsed().as_millis() as u64
    }
}

/// The answer to a browser that asks whether it may ask.
fn preflight() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(METHODS));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Accept, Authorization, Cache-Control, Content-Type"),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECS));
    response
}

fn plain(status: StatusCode, sentence: &str) -> Response<Full<Bytes>> {
    text(status, "text/plain; charset=utf-8", format!("{sentence}\n"))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    // Structs of numbers and strings: there is nothing in them that JSON cannot say.
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    text(status, "application/json", body)
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Whether /metrics is asked for as JSON: by `?format=`, or else by an `Accept` that names JSON and likes it at least
/// as well as text.
fn wants_json(request: &Parts) -> bool {
    let query = request.uri.query().unwrap_or_default();
    if let Some(format) = query.split('&').find_map(|pair| pair.strip_prefix("format=")) {
        return format.eq_ignore_ascii_case("json");
    }
    let accepted =
        || request.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    let liking = |types: &[&str]| {
        let named = accepted().filter(|range| types.contains(&media_type(range).as_str()));
        named.map(quality).fold(0.0, f32::max)
    };
    let json = liking(&["application/json"]);
    json > 0.0 && json >= liking(&["text/plain", "application/openmetrics-text"])
}

fn media_type(range: &str) -> String {
    range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The `q` of a media range: how well it is liked, 0 to 1.
fn quality(range: &str) -> f32 {
    let parameters = range.split(';').skip(1).map(str::trim);
    let q = parameters.filter_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q="))).next();
    q.map_or(1.0, |q| q.parse().unwrap_or(0.0))
}
