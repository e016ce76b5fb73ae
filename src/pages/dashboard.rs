//! The page `/dashboard`, which is the live view of the hub, and the history that it shows.
//!
//! Once a second, the hub's main thread adds up the counters that the shards and the mesh have published. The main
//! thread then appends one sample to a ring of the last ten minutes. A browser reads the ring as server-sent events.
//! The browser receives the history first, and then each new sample with the current state. Names of networks, log
//! lines and orders require ADMIN_TOKEN.

mod ring;
mod sample;
mod state;
mod stream;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ::mesh::MeshReading;
use bytes::Bytes;
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, REFERRER_POLICY,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use proto::envelope::HubStatus;
use proto::limits::{LIVE_INTERVAL, LIVE_NAMES, LIVE_RETRY, LIVE_SAMPLES, LIVE_STREAMS};
use proto::{ListedMember, NetworkName, RouterStats, TurnLengths};
use serde::Serialize;
use shard::{Answer, Members, ShardReading, Visitor};
use tokio::sync::{Semaphore, watch};

use super::body::FlooderBody;
use super::mesh::StatusBody;
use super::{Asset, HubFacts, SEC_FETCH_SITE, Site, clock, json, plain, restrict, unavailable};
use crate::config::Config;
use crate::lifecycle::Fullness;
use crate::telemetry::{self, process, tail};
use ring::{Position, Ring};
use sample::{Gauges, Totals};
use state::{Budget, LogBody, MeshBody, ShardBody, State, TlsBody};
use stream::Stream;

/// The path of the live view.
pub(super) const PATH: &str = "/dashboard";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Makes nginx forward events without buffering them.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The history of the live view, and the permits of its streams.
pub(super) struct Live {
    ring: watch::Receiver<Ring>,
    /// One permit for each stream that may stay open.
    places: Arc<Semaphore>,
}

/// Appends a sample to the history once a second.
pub struct Sampler {
    config: Arc<Config>,
    facts: Arc<HubFacts>,
    fullness: Arc<Fullness>,
    ring: watch::Sender<Ring>,
    before: Totals,
    /// The number of the last log line in the history.
    line: u64,
    memory_limit: u64,
    max_files: Option<u64>,
}

/// Creates the empty history of a hub, and the sampler that fills it.
pub(super) fn live(config: &Arc<Config>, facts: &Arc<HubFacts>, fullness: &Arc<Fullness>) -> (Live, Sampler) {
    let epoch = facts.started_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let (ring, reader) = watch::channel(Ring::new(epoch));
    let sampler = Sampler {
        config: Arc::clone(config),
        facts: Arc::clone(facts),
        fullness: Arc::clone(fullness),
        ring,
        before: Totals::zero(facts.started, facts.readings.len()),
        // Log lines that were written before the hub started are included, because they describe its configuration.
        line: 0,
        memory_limit: process::memory_limit().unwrap_or(0),
        max_files: process::max_files(),
    };
    (Live { ring: reader, places: Arc::new(Semaphore::new(LIVE_STREAMS)) }, sampler)
}

impl Sampler {
    /// Takes samples until the future is dropped.
    pub async fn run(mut self) {
        let mut seconds = tokio::time::interval(LIVE_INTERVAL);
        seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            seconds.tick().await;
            self.sample();
        }
    }

    fn sample(&mut self) {
        let mesh = Arc::clone(&self.facts.mesh.borrow());
        let readings: Vec<Arc<ShardReading>> =
            self.facts.readings.iter().map(|reading| Arc::clone(&reading.borrow())).collect();
        let memory = process::Memory::measure().map(|memory| memory.resident);
        let totals = Totals::read(Instant::now(), process::cpu_time(), readings.iter().map(AsRef::as_ref), &mesh);
        let sample = totals.since(&self.before, self.gauges(&readings, &mesh, memory));
        let status = sample.status(self.config.mesh.admin_url.clone(), self.facts.max_connections);
        let state = self.state(&readings, &mesh, memory, &status);
        self.facts.status.send_replace(Some(Arc::new(status)));
        // Structs of numbers and strings can always be serialized.
        let (sample, state) =
            (serde_json::to_vec(&sample).unwrap_or_default(), serde_json::to_vec(&state).unwrap_or_default());
        let lines = tail::lines_after(self.line);
        self.line = lines.last().map_or(self.line, |(number, _)| *number);
        self.before = totals;
        self.ring.send_modify(|ring| {
            lines.iter().for_each(|(_, line)| ring.line(line.as_bytes()));
            ring.sample(&sample);
            ring.set_state(&state);
        });
    }

    fn gauges(&self, readings: &[Arc<ShardReading>], mesh: &MeshReading, memory: Option<u64>) -> Gauges {
        // Every shard knows all networks, except for changes that have not arrived yet. So the largest number is the
        // best.
        let most = |of: fn(&ShardReading) -> u64| readings.iter().map(|reading| of(reading)).max().unwrap_or(0);
        let ready = || mesh.links.iter().filter(|link| link.ready);
        let rtt = ready().filter_map(|link| link.rtt).max();
        Gauges {
            at: clock::unix_ms(),
            peers: self.facts.gauges.peers.load(std::sync::atomic::Ordering::Relaxed),
            connections: self.facts.connections(),
            networks: most(|reading| reading.router.networks),
            members: most(|reading| reading.router.members),
            remote_peers: mesh.relay.remote_peers,
            hubs: mesh.relay.hubs,
            links: ready().count(),
            rtt_ms: rtt.map(|rtt| rtt.as_micros() as f64 / 1000.0),
            queued_bytes: queued(readings),
            memory,
        }
    }

    fn state<'a>(
        &self,
        readings: &[Arc<ShardReading>],
        mesh: &'a MeshReading,
        memory: Option<u64>,
        status: &HubStatus,
    ) -> State<'a> {
        let announced = readings.iter().map(|reading| reading.router.announced_bytes).sum();
        let budget = |name, used, max, setting| Budget { name, used, max, setting };
        let mut budgets = vec![
            budget(
                "connections",
                self.facts.connections() as u64,
                self.facts.max_connections as u64,
                Some("MAX_CONNECTIONS"),
            ),
            budget("queued data", queued(readings), self.config.send_budget_bytes as u64, Some("SEND_BUDGET_BYTES")),
            budget(
                "announced data",
                announced,
                self.config.announce_budget_bytes as u64,
                Some("ANNOUNCE_BUDGET_BYTES"),
            ),
        ];
        if let Some(memory) = memory.filter(|_| self.memory_limit > 0) {
            budgets.push(budget("memory", memory, self.memory_limit, None));
        }
        if let Some((open, max)) = process::open_files().zip(self.max_files) {
            budgets.push(budget("open files", open, max, None));
        }
        let log = telemetry::log::state();
        State {
            at: clock::unix_ms(),
            stage: self.facts.lifecycle.stage().label(),
            full: self.fullness.update(self.facts.connections()),
            uptime_ms: self.facts.started.elapsed().as_millis() as u64,
            hub: mesh.hub.unwrap_or(self.config.hub_id).to_string(),
            budgets,
            shards: readings.iter().map(|reading| ShardBody::of(reading)).collect(),
            oldest_turn: self.facts.watchdog.oldest().map(|oldest| (oldest.thread, oldest.since.as_millis() as u64)),
            log: LogBody { dropped: log.dropped, stalled_ms: log.stalled.as_millis() as u64 },
            flooder: self
                .config
                .admin_token
                .as_ref()
                .and_then(|_| FlooderBody::worst(readings.iter().map(AsRef::as_ref))),
            bugs: state::bugs(readings, mesh),
            status: StatusBody::of(status),
            mesh: self.config.has_mesh().then(|| MeshBody::of(mesh)),
            tls: self.facts.tls.as_ref().map(|tls| TlsBody::of(tls, SystemTime::now())),
        }
    }
}

/// Bytes queued for all sessions.
fn queued(readings: &[Arc<ShardReading>]) -> u64 {
    readings.iter().map(|reading| reading.io.queued_bytes).sum()
}

/// The first event of a stream.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Hello<'a> {
    /// Start of the hub, in milliseconds since 1970. If the reader's previous stream had another start, the hub has
    /// restarted, and its history is new.
    epoch: u64,
    version: &'a str,
    region: &'a str,
    namespace: &'a str,
    port: u16,
    /// Maximum number of samples in the history, one per second.
    samples: usize,
    /// Upper bounds of the buckets of latencies, and of lengths of turns, in microseconds.
    latency_bounds: &'static [u64],
    turn_bounds: &'static [u64],
    /// Whether the reader may see names of networks and log lines, and give orders.
    operator: bool,
    /// Whether the stream stays open.
    stays: bool,
}

#[derive(Serialize)]
struct Networks<'a> {
    /// Names and numbers of members, largest first.
    networks: Vec<(&'a str, usize)>,
}

#[derive(Serialize)]
struct MembersBody<'a> {
    network: &'a str,
    /// Number of all members.
    count: usize,
    members: Vec<MemberBody>,
}

#[derive(Serialize)]
struct MemberBody {
    peer: String,
    /// The other hub to which the member is connected. Absent if the member is connected to this hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    hub: Option<String>,
    /// Time of the join, in milliseconds since 1970, by the clock of the member's hub. Absent if that hub is a Go hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
}

/// The part of a path after [`PATH`]. It is empty for [`PATH`] itself.
pub(super) fn below(path: &str) -> Option<&str> {
    let rest = path.strip_prefix(PATH)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// Adds the common headers to an answer. Pages of other origins may not read the answer, and no browser or proxy stores
/// it.
fn own(method: &Method, mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let length = hyper::body::Body::size_hint(response.body()).exact().unwrap_or(0);
    if method == Method::HEAD {
        *response.body_mut() = Full::default();
    }
    let has_length = response.status() != StatusCode::NOT_MODIFIED;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    restrict(headers);
    if has_length {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

impl Site {
    /// Answers a request below [`PATH`].
    pub(super) fn dashboard(self: &Arc<Self>, name: &str, request: &Parts, visitor: Visitor) -> Answer {
        let method = &request.method;
        let entry = self.gatekeeper.check(&request.headers, visitor);
        if !entry.may_read() {
            return self.refusal(entry, request, visitor, PATH);
        }
        if method != Method::GET && method != Method::HEAD {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed: use GET");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Answer::Now(own(method, response));
        }
        match name {
            // The page's own links are relative to the path without a slash, because a proxy may add a prefix.
            "" if request.uri.path().ends_with('/') => {
                let mut response = plain(StatusCode::PERMANENT_REDIRECT, "../dashboard");
                response.headers_mut().insert(LOCATION, HeaderValue::from_static("../dashboard"));
                Answer::Now(own(method, response))
            }
            "" => {
                let lost = || plain(StatusCode::NOT_FOUND, "there is no such page");
                let page = Asset::dashboard().map_or_else(lost, |page| page.answer(request));
                Answer::Now(own(method, page))
            }
            "events" => self.events(request),
            "networks" | "network" if !self.gatekeeper.is_closed() => {
                let sentence = "names of networks are only for operators: set ADMIN_TOKEN on this hub";
                Answer::Now(own(method, plain(StatusCode::FORBIDDEN, sentence)))
            }
            "networks" => self.networks(method),
            "network" => self.members(request),
            _ => Answer::Now(own(method, plain(StatusCode::NOT_FOUND, "there is no such page"))),
        }
    }

    /// The largest networks.
    fn networks(&self, method: &Method) -> Answer {
        let (facts, method) = (Arc::clone(&self.facts), method.clone());
        Answer::Soon(Box::pin(async move {
            let found = facts.networks.largest().await;
            let mut largest: Vec<_> = found.iter().map(|(name, members)| (name.as_str(), *members)).collect();
            largest.sort_unstable_by(|(a, more), (b, less)| less.cmp(more).then(a.cmp(b)));
            largest.truncate(LIVE_NAMES);
            own(&method, json(StatusCode::OK, &Networks { networks: largest }))
        }))
    }

    /// The members of the network in the query.
    fn members(&self, request: &Parts) -> Answer {
        let query = request.uri.query().unwrap_or_default();
        let name = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "name").map(|(_, name)| name);
        let network = name.as_deref().and_then(|name| NetworkName::resolve(Some(name))).map(NetworkName::new);
        let (facts, method) = (Arc::clone(&self.facts), request.method.clone());
        let Some(network) = network else {
            let sentence = "the name of the network is missing or too long: ask for /dashboard/network?name=…";
            return Answer::Now(own(&method, plain(StatusCode::BAD_REQUEST, sentence)));
        };
        Answer::Soon(Box::pin(async move {
            let Some(Members { listed, count }) = facts.networks.members(&network).await else {
                return own(&method, unavailable());
            };
            let member = |member: &ListedMember| MemberBody {
                peer: member.peer.to_string(),
                hub: member.hub.map(|hub| hub.to_string()),
                since: Some(member.since_ms).filter(|&since| since > 0),
            };
            let members = listed.iter().map(member).collect();
            own(&method, json(StatusCode::OK, &MembersBody { network: network.as_str(), count, members }))
        }))
    }

    /// The stream of events.
    fn events(&self, request: &Parts) -> Answer {
        // Without the check of `Sec-Fetch-Site`, a page of another site could open streams with its visitor's login.
        // The foreign page could not read these streams, but they would take the places of other streams.
        let site = request.headers.get(SEC_FETCH_SITE);
        if site.is_some_and(|site| site != "same-origin" && site != "none") {
            let refusal = plain(StatusCode::FORBIDDEN, "only the live view of this hub reads this path");
            return Answer::Now(own(&request.method, refusal));
        }
        let mut response = Response::new(());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
        restrict(headers);
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if request.method == Method::HEAD {
            return Answer::Now(response.map(|()| Full::default()));
        }
        let operator = self.gatekeeper.is_closed();
        let place = Arc::clone(&self.live.places).try_acquire_owned().ok();
        let (epoch, last) = {
            let ring = self.live.ring.borrow();
            let position = request.headers.get(LAST_EVENT_ID).and_then(|id| Position::read(id.to_str().ok()?));
            (ring.epoch(), position.map_or(0, |position| ring.place_of(position)))
        };
        let hello = Hello {
            epoch,
            version: env!("PEERPIGEON_VERSION"),
            region: &self.config.fly_region,
            namespace: &self.config.mesh_namespace,
            port: self.facts.port,
            samples: LIVE_SAMPLES,
            latency_bounds: &RouterStats::LATENCY_BOUNDS,
            turn_bounds: &TurnLengths::BOUNDS,
            operator,
            stays: place.is_some(),
        };
        let hello = ring::event("hello", None, &serde_json::to_vec(&hello).unwrap_or_default());
        let retry = format!("retry: {}\n\n", LIVE_RETRY.as_millis());
        let greeting = Bytes::from([retry.as_bytes(), &hello].concat());
        let stream = Stream::new(self.live.ring.clone(), greeting, last, operator, place);
        Answer::Stream(response.map(|()| UnsyncBoxBody::new(stream)))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn findings_link_to_paragraphs_of_the_runbook() {
        let findings = include_str!("../dashboard/findings.js");
        let runbook = include_str!("../../docs/runbook.md");
        let names: Vec<_> = findings.split('\'').filter(|text| text.starts_with("PeerPigeon")).collect();
        assert!(names.len() > 25, "{names:?}");
        for name in names {
            assert!(runbook.lines().any(|line| line.strip_prefix("### ") == Some(name)), "{name}");
        }
    }
}
