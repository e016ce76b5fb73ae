//! The JSON bodies that describe other hubs. Fields that the Go hub also has keep their names.

use std::time::Duration;

use hyper::Uri;
use mesh::{BridgeView, DialSource, DialView, LinkView, MeshReading};
use proto::envelope::HubStatus;
use proto::{Hop, HubId, HubView, Redacted};
use serde::Serialize;

use crate::config::Config;

/// Another hub, whose lease is valid or has expired.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HubBody<'a> {
    peer_id: String,
    /// Start of the hub's current incarnation, by that hub's clock.
    registered_at: u64,
    last_activity: u64,
    network_name: &'a str,
    data: HubData,
    #[serde(flatten)]
    ours: HubDetail<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HubData {
    capabilities: [&'static str; 2],
    host: String,
    is_hub: bool,
    port: u16,
    timestamp: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HubDetail<'a> {
    bridged: bool,
    lag: u64,
    legacy: bool,
    /// The route to the hub. The route is `dialed`, `accepted`, `relayed` (through another hub) or `bridged`, or there
    /// is none.
    linked: Option<&'static str>,
    peers: usize,
    public_url: Option<&'a str>,
    rtt_ms: Option<f64>,
    seq: u64,
    state: &'static str,
    /// The figures in the hub's last heartbeat. Go hubs and hubs before 2.1 send none.
    status: Option<StatusBody>,
    url: Option<&'a str>,
}

/// The figures of a hub that all hubs of the mesh show.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusBody {
    admin_url: Option<String>,
    version: String,
    connections: u32,
    max_connections: u32,
    /// CPU time of the process, and of its busiest shard, in thousandths of a core.
    cpu: u32,
    busiest_shard: u32,
    signals: u32,
    memory: u64,
}

impl StatusBody {
    pub(super) fn of(status: &HubStatus) -> Self {
        Self {
            // The page makes a link of this URL, so only URLs with the scheme `http` or `https` are allowed.
            admin_url: status.admin_url.as_deref().filter(|url| is_web(url)).map(str::to_owned),
            version: status.version.to_string(),
            connections: status.connections,
            max_connections: status.max_connections,
            cpu: status.cpu,
            busiest_shard: status.busiest_shard,
            signals: status.signals,
            memory: status.memory,
        }
    }
}

fn is_web(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

/// The hubs whose leases are valid (`live`), or the hubs whose leases have expired.
pub(super) fn hubs<'a>(reading: &'a MeshReading, config: &'a Config, live: bool, wall_ms: u64) -> Vec<HubBody<'a>> {
    reading.hubs.iter().filter(|hub| hub.live == live).map(|hub| HubBody::of(hub, reading, config, wall_ms)).collect()
}

/// Number of other hubs whose leases are valid.
pub(super) fn count(reading: &MeshReading) -> usize {
    reading.hubs.iter().filter(|hub| hub.live).count()
}

impl<'a> HubBody<'a> {
    fn of(hub: &'a HubView, reading: &'a MeshReading, config: &'a Config, wall_ms: u64) -> Self {
        let link = hub.link.and_then(|id| reading.links.iter().find(|link| link.link == id));
        let url = hub.advertise.as_deref().or_else(|| link.and_then(|link| link.url.as_deref()));
        let (host, port) = match (url, link) {
            (Some(url), _) => place(url),
            // The other hub has dialed this hub. The port of that connection is not the port on which the other hub
            // listens.
            (None, Some(link)) => (link.address.ip().to_string(), 0),
            (None, None) => (String::new(), 0),
        };
        let last_activity = wall_ms.saturating_sub(hub.heard.as_millis() as u64);
        Self {
            peer_id: hub.hub.to_string(),
            registered_at: hub.incarnation.0,
            last_activity,
            network_name: &config.mesh_namespace,
            data: HubData { capabilities: ["signaling", "relay"], host, is_hub: true, port, timestamp: last_activity },
            ours: HubDetail {
                bridged: hub.bridged,
                lag: hub.lag,
                legacy: hub.legacy,
                linked: way(hub, link),
                peers: hub.peers,
                public_url: hub.public_url.as_deref(),
                rtt_ms: link.and_then(|link| link.rtt).map(millis),
                seq: hub.seq,
                state: match (hub.live, hub.draining) {
                    (true, false) => "live",
                    (true, true) => "draining",
                    (false, _) => "lost",
                },
                status: hub.status.as_deref().map(StatusBody::of),
                url,
            },
        }
    }
}

/// How a hub is reached. `link` is the link to this hub, if there is one.
pub(super) fn way(hub: &HubView, link: Option<&LinkView>) -> Option<&'static str> {
    match (link, hub.next_hop) {
        (Some(link), _) if link.dialed => Some("dialed"),
        (Some(_), _) => Some("accepted"),
        (None, Some(Hop::Link(_))) => Some("relayed"),
        (None, Some(Hop::Bridge(_))) => Some("bridged"),
        (None, None) => None,
    }
}

/// Host and port of a URL.
fn place(url: &str) -> (String, u16) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let Ok(authority) = authority.parse::<hyper::http::uri::Authority>() else { return (String::new(), 0) };
    let default = if url.starts_with("wss:") { 443 } else { 80 };
    (authority.host().to_owned(), authority.port_u16().unwrap_or(default))
}

/// A time in milliseconds, rounded down to a microsecond.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

/// A dialed hub.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DialBody<'a> {
    attempt_number: u32,
    connected: bool,
    last_attempt: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<&'a str>,
    /// Whether the URL leads to this hub itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    own: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
    uri: String,
}

impl<'a> DialBody<'a> {
    fn of(view: &'a DialView) -> Self {
        Self {
            attempt_number: view.attempt_number,
            connected: view.connected,
            last_attempt: view.last_attempt,
            last_error: view.last_error.as_deref(),
            own: view.own,
            source: None,
            uri: Redacted(&view.uri).to_string(),
        }
    }
}

/// Each of BOOTSTRAP_HUBS, with its state if it has been dialed.
pub(super) fn bootstrap_hubs<'a>(reading: &'a MeshReading, config: &Config) -> Vec<DialBody<'a>> {
    let dial = |url: &Uri| {
        let uri = Redacted(&url.to_string()).to_string();
        let dialed = as_dialed(url);
        bootstraps(reading).find(|view| view.uri == dialed).map(DialBody::of).unwrap_or(DialBody {
            attempt_number: 0,
            connected: false,
            last_attempt: 0,
            last_error: None,
            own: false,
            source: None,
            uri,
        })
    };
    config.bootstrap_hubs.iter().map(dial).collect()
}

/// A URL in the mesh's normal form. The result has a port. It has no user and no query, because these may be secret.
fn as_dialed(url: &Uri) -> String {
    let (scheme, host) = (url.scheme_str().unwrap_or_default(), url.host().unwrap_or_default().to_ascii_lowercase());
    let port = url.port_u16().unwrap_or(if scheme == "wss" { 443 } else { 80 });
    format!("{scheme}://{host}:{port}{}", url.path())
}

pub(super) fn bootstrap_connected(reading: &MeshReading) -> usize {
    bootstraps(reading).filter(|view| view.connected).count()
}

fn bootstraps(reading: &MeshReading) -> impl Iterator<Item = &DialView> {
    reading.dials.iter().filter(|view| view.source == DialSource::Bootstrap)
}

/// Hubs found by MESH_DNS or by heartbeats.
pub(super) fn found_hubs(reading: &MeshReading) -> Vec<DialBody<'_>> {
    let found = reading.dials.iter().filter(|view| view.source != DialSource::Bootstrap);
    found.map(|view| DialBody { source: Some(view.source.label()), ..DialBody::of(view) }).collect()
}

/// A link.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LinkBody<'a> {
    address: String,
    /// How the other hub has proved that it belongs to the mesh.
    auth: &'static str,
    dialed: bool,
    /// The id of the other hub. `None` until its hello arrives.
    hub: Option<String>,
    legacy: bool,
    queued_bytes: usize,
    ready: bool,
    rtt_ms: Option<f64>,
    saturated: bool,
    url: Option<&'a str>,
}

impl<'a> LinkBody<'a> {
    pub(super) fn of(view: &'a LinkView) -> Self {
        Self {
            address: view.address.to_string(),
            auth: view.auth.label(),
            dialed: view.dialed,
            hub: view.hub.map(|hub| hub.to_string()),
            legacy: view.legacy,
            queued_bytes: view.queued_bytes,
            ready: view.ready,
            rtt_ms: view.rtt.map(millis),
            saturated: view.saturated,
            url: view.url.as_deref(),
        }
    }
}

/// Number of hubs with a link.
pub(super) fn connected_hubs(reading: &MeshReading) -> usize {
    let mut hubs: Vec<HubId> = reading.links.iter().filter(|link| link.ready).filter_map(|link| link.hub).collect();
    hubs.sort_unstable();
    hubs.dedup();
    hubs.len()
}

/// The Redis bridge.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BridgeBody<'a> {
    address: &'a str,
    connected: bool,
    last_error: Option<&'a str>,
    /// Hubs whose frames arrive from Redis, but which do not answer this hub there.
    one_way: Vec<String>,
    published: u64,
    received: u64,
    reconnects: u64,
}

impl<'a> BridgeBody<'a> {
    pub(super) fn of(view: &'a BridgeView) -> Self {
        Self {
            address: &view.address,
            connected: view.connected,
            last_error: view.last_error.as_deref(),
            one_way: view.one_way.iter().map(ToString::to_string).collect(),
            published: view.published,
            received: view.received,
            reconnects: view.reconnects,
        }
    }
}
