//! The current state of the hub, as the live view shows it.

use std::time::{Duration, SystemTime};

use ::mesh::{DialView, LinkView, MeshReading};
use proto::limits::LIVE_LISTED;
use proto::{BugSite, HubView, Redacted, TurnLengths};
use serde::Serialize;
use shard::ShardReading;

use super::super::body::FlooderBody;
use super::super::mesh::{BridgeBody, StatusBody, way};
use crate::certificates::TlsFacts;

/// Maximum number of characters of an address or an error.
const MOST_CHARS: usize = 160;

/// The current state. The state is sent once a second, and is not part of the history.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State<'a> {
    pub(super) at: u64,
    pub(super) stage: &'static str,
    pub(super) full: bool,
    pub(super) uptime_ms: u64,
    /// The id of this hub in the mesh.
    pub(super) hub: String,
    /// The use of each bounded resource.
    pub(super) budgets: Vec<Budget>,
    pub(super) shards: Vec<ShardBody>,
    /// The thread with the longest time since its last turn, and that time in milliseconds.
    pub(super) oldest_turn: Option<(String, u64)>,
    pub(super) log: LogBody,
    /// The peer with the most refused messages, among the peers that still send. `None` without ADMIN_TOKEN, because
    /// everyone can then read the live view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flooder: Option<FlooderBody>,
    /// Number of impossible states (`bug!`) that were found since the start.
    pub(super) bugs: u64,
    /// The figures of this hub that other hubs show.
    pub(super) status: StatusBody,
    /// `None` without a mesh.
    pub(super) mesh: Option<MeshBody<'a>>,
    /// `None` without TLS.
    pub(super) tls: Option<TlsBody>,
}

/// A bounded resource.
#[derive(Serialize)]
pub(super) struct Budget {
    pub(super) name: &'static str,
    pub(super) used: u64,
    pub(super) max: u64,
    /// The setting that bounds the resource, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) setting: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogBody {
    /// Lines dropped since the start.
    pub(super) dropped: u64,
    /// Time for which the log's output has accepted no lines, in milliseconds.
    pub(super) stalled_ms: u64,
}

/// A shard.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShardBody {
    sessions: u64,
    queued_bytes: u64,
    /// Turns since the start, by length.
    turns: [u64; TurnLengths::BOUNDS.len() + 1],
    /// The longest turn since the start, in milliseconds.
    longest_turn_ms: f64,
    /// Times that this shard stopped reading, because another shard or the mesh did not accept its letters.
    stalls: u64,
}

impl ShardBody {
    pub(super) fn of(reading: &ShardReading) -> Self {
        let io = &reading.io;
        Self {
            sessions: io.sessions,
            queued_bytes: io.queued_bytes,
            turns: io.turns.counts,
            longest_turn_ms: millis(io.turns.longest),
            stalls: io.post.stalls,
        }
    }
}

/// Number of impossible states (`bug!`) that the shards and the mesh have found.
pub(super) fn bugs(shards: &[impl AsRef<ShardReading>], mesh: &MeshReading) -> u64 {
    let at = |site: BugSite| {
        let shards = shards.iter().map(AsRef::as_ref).map(|r| r.router.bugs.of(site) + r.io.bugs.of(site));
        shards.sum::<u64>() + mesh.relay.bugs.of(site) + mesh.io.bugs.of(site)
    };
    BugSite::ALL.iter().map(|site| at(*site)).sum()
}

/// Other hubs and the routes to them. Each list has at most [`LIVE_LISTED`] entries.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MeshBody<'a> {
    hubs: Vec<HubBody>,
    links: Vec<LinkBody>,
    /// Addresses that are dialed.
    dials: Vec<DialBody>,
    /// Number of hubs, of links and of addresses that are not in the lists.
    more: [usize; 3],
    redis: Option<BridgeBody<'a>>,
    /// Longest time for which changes of another hub's presence have been missing at this hub.
    lag_ms: u64,
    /// Signals without an outcome yet.
    in_flight: u64,
    longest_turn_ms: f64,
}

impl<'a> MeshBody<'a> {
    pub(super) fn of(reading: &'a MeshReading) -> Self {
        let more = |length: usize| length.saturating_sub(LIVE_LISTED);
        Self {
            hubs: reading.hubs.iter().take(LIVE_LISTED).map(|hub| HubBody::of(hub, reading)).collect(),
            links: reading.links.iter().take(LIVE_LISTED).map(LinkBody::of).collect(),
            dials: reading.dials.iter().take(LIVE_LISTED).map(DialBody::of).collect(),
            more: [more(reading.hubs.len()), more(reading.links.len()), more(reading.dials.len())],
            redis: reading.bridge.as_ref().map(BridgeBody::of),
            lag_ms: reading.relay.presence_lag_ms,
            in_flight: reading.relay.in_flight,
            longest_turn_ms: millis(reading.turns.longest),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HubBody {
    id: String,
    /// `live`, `draining` or `lost`.
    state: &'static str,
    /// The route to the hub is `dialed`, `accepted`, `relayed` or `bridged`, or there is none.
    way: Option<&'static str>,
    peers: usize,
    /// Number of changes of that hub's presence that this hub has not received yet.
    lag: u64,
    heard_ms: u64,
    legacy: bool,
    rtt_ms: Option<f64>,
    url: Option<String>,
    /// The figures in the hub's last heartbeat. Hubs before 2.1 send none.
    status: Option<StatusBody>,
}

impl HubBody {
    fn of(hub: &HubView, reading: &MeshReading) -> Self {
        let link = hub.link.and_then(|id| reading.links.iter().find(|link| link.link == id));
        let url = hub.public_url.as_deref().or(hub.advertise.as_deref());
        Self {
            id: hub.hub.to_string(),
            state: match (hub.live, hub.draining) {
                (true, false) => "live",
                (true, true) => "draining",
                (false, _) => "lost",
            },
            way: way(hub, link),
            peers: hub.peers,
            lag: hub.lag,
            heard_ms: hub.heard.as_millis() as u64,
            legacy: hub.legacy,
            rtt_ms: link.and_then(|link| link.rtt).map(millis),
            status: hub.status.as_deref().map(StatusBody::of),
            url: url.or_else(|| link.and_then(|link| link.url.as_deref())).map(|url| cut(&Redacted(url).to_string())),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkBody {
    /// The link's number in this process.
    link: u64,
    hub: Option<String>,
    address: String,
    dialed: bool,
    ready: bool,
    legacy: bool,
    rtt_ms: Option<f64>,
    /// Bytes read from the link, and bytes written to it, since it began.
    bytes: [u64; 2],
    queued_bytes: usize,
    saturated: bool,
}

impl LinkBody {
    fn of(link: &LinkView) -> Self {
        Self {
            link: link.link.0,
            hub: link.hub.map(|hub| hub.to_string()),
            address: link.address.to_string(),
            dialed: link.dialed,
            ready: link.ready,
            legacy: link.legacy,
            rtt_ms: link.rtt.map(millis),
            bytes: link.bytes,
            queued_bytes: link.queued_bytes,
            saturated: link.saturated,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DialBody {
    address: String,
    source: &'static str,
    connected: bool,
    own: bool,
    attempts: u32,
    error: Option<String>,
}

impl DialBody {
    fn of(dial: &DialView) -> Self {
        Self {
            address: cut(&Redacted(&dial.uri).to_string()),
            source: dial.source.label(),
            connected: dial.connected,
            own: dial.own,
            attempts: dial.attempt_number,
            error: dial.last_error.as_deref().map(cut),
        }
    }
}

/// The certificates.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TlsBody {
    certificates: Vec<CertificateBody>,
    /// Whether the latest files are invalid.
    stale: bool,
    /// Number of names of TLS_ACME without a valid certificate.
    missing: usize,
    /// The error of a name whose latest order failed, if there is such a name.
    problem: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CertificateBody {
    file: String,
    names: Vec<String>,
    days_left: f64,
}

impl TlsBody {
    pub(super) fn of(facts: &TlsFacts, now: SystemTime) -> Self {
        let acme = facts.acme().map(crate::acme::AcmeFacts::view).unwrap_or_default();
        let certificates = facts.certificates();
        let listed = certificates.iter().map(|certificate| CertificateBody {
            file: cut(&certificate.file.display().to_string()),
            names: certificate.names.iter().take(4).map(|name| cut(name)).collect(),
            days_left: (certificate.seconds_left(now) / 8_640.0).floor() / 10.0,
        });
        Self {
            certificates: listed.collect(),
            stale: facts.is_stale(),
            missing: acme.missing,
            problem: acme.problem.as_deref().map(cut),
        }
    }
}

/// A time in milliseconds, rounded down to a microsecond.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

fn cut(text: &str) -> String {
    text.chars().take(MOST_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::mesh::DialSource;
    use proto::{HubId, HubIncarnation, LinkId, PeerId};

    #[test]
    fn long_lists_are_cut_and_counted() {
        let id = |n: usize| HubId(PeerId::from_bytes([n as u8; 20]));
        let long = format!("wss://user:secret@{}/", "x".repeat(500));
        let link = |n: usize| LinkView {
            link: LinkId(n as u64),
            hub: Some(id(n)),
            address: "[2001:db8::1]:65535".parse().unwrap(),
            url: Some(long.clone()),
            dialed: true,
            ready: true,
            rtt: Some(Duration::from_micros(300_001)),
            bytes: [u64::MAX / 2; 2],
            queued_bytes: 1 << 24,
            saturated: false,
            legacy: false,
            auth: proto::LinkAuth::Token,
            since: Duration::ZERO,
        };
        let hub = |n: usize| HubView {
            hub: id(n),
            incarnation: HubIncarnation(1),
            live: true,
            draining: false,
            next_hop: None,
            link: Some(LinkId(n as u64)),
            bridged: false,
            legacy: false,
            peers: 100_000,
            seq: 1,
            lag: 0,
            heard: Duration::from_millis(1500),
            advertise: Some(long.as_str().into()),
            public_url: None,
            status: None,
        };
        let dial = |_| DialView {
            uri: long.clone(),
            source: DialSource::Bootstrap,
            attempt_number: 7,
            connected: false,
            own: false,
            last_attempt: 0,
            last_error: Some("e".repeat(500)),
        };
        let count = LIVE_LISTED + 3;
        let reading = MeshReading {
            hubs: (0..count).map(hub).collect(),
            links: (0..count).map(link).collect(),
            dials: (0..count).map(dial).collect(),
            ..MeshReading::default()
        };
        let text = serde_json::to_string(&MeshBody::of(&reading)).unwrap();
        let body: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(body["hubs"].as_array().unwrap().len(), LIVE_LISTED);
        assert_eq!(body["more"], serde_json::json!([3, 3, 3]));
        assert_eq!(body["hubs"][5]["rttMs"], 300.001);
        assert_eq!(body["links"][5]["bytes"][1], u64::MAX / 2);
        assert!(!text.contains("secret"), "{}", body["dials"][0]);
        assert!(text.len() < 3 * LIVE_LISTED * 450, "{}", text.len());
    }
}
