//! The contents of one hub's pages, and the changes between two polls.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::PATIENCE;
use super::history::History;
use super::page::{Page, Span};

/// Maximum round trip of a link, in milliseconds. A longer round trip is a fault.
const SLOW_LINK_MS: f64 = 150.0;

/// Maximum length of a turn, in seconds. Several longer turns are a fault. A turn should end within 5 ms.
const LONG_TURN: f64 = 0.025;

/// Maximum number of turns longer than [`LONG_TURN`] in a minute. More long turns are a fault.
const FEW_LONG_TURNS: f64 = 3.0;

/// Maximum part of a core that a shard or the mesh may use. A larger part is a fault.
const BUSY: f64 = 0.9;

/// Maximum time for the answer of a hub. A longer time is a fault.
const SLOW_ANSWER: Duration = Duration::from_millis(250);

/// Minimum time for which a certificate must still be valid, in days. A shorter time is a fault.
const FEW_DAYS: f64 = 14.0;

/// The processor time of a hub is checked only if its threads are awake for a larger part of a core than this limit.
/// The live view has the same limits.
const AWAKE: f64 = 0.3;

/// Minimum ratio of the time for which the process runs to the time for which its threads are awake. A smaller ratio is
/// a fault.
const STARVED: f64 = 0.6;

/// Maximum part of a limit that may be in use. A larger part is a fault.
const NEAR_LIMIT: f64 = 0.9;

/// A link, as /hubstats shows it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Link {
    pub(super) address: String,
    pub(super) dialed: bool,
    pub(super) hub: Option<String>,
    pub(super) legacy: bool,
    pub(super) queued_bytes: u64,
    pub(super) ready: bool,
    pub(super) rtt_ms: Option<f64>,
    pub(super) saturated: bool,
    pub(super) url: Option<String>,
}

/// A dialed hub, as /hubstats shows it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Dial {
    pub(super) connected: bool,
    pub(super) last_error: Option<String>,
    pub(super) own: bool,
    pub(super) uri: String,
}

/// Another hub, as /hubstats shows it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Other {
    #[serde(rename = "PeerId")]
    pub(super) id: String,
    pub(super) linked: Option<String>,
    pub(super) peers: u64,
    #[serde(rename = "rttMs")]
    pub(super) rtt_ms: Option<f64>,
    pub(super) state: String,
    /// The figures of the hub. Hubs before 2.1 send none.
    pub(super) status: Option<Status>,
    pub(super) url: Option<String>,
}

/// The figures of another hub, as /hubstats shows them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub(super) version: String,
    pub(super) connections: u64,
    pub(super) max_connections: u64,
    /// CPU time of the hub's process, and of its busiest shard, in thousandths of a core.
    pub(super) cpu: f64,
    pub(super) busiest_shard: f64,
    /// Signals delivered per second.
    pub(super) signals: f64,
    pub(super) memory: f64,
}

/// The Redis bridge, as /hubstats shows it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Redis {
    pub(super) address: String,
    pub(super) connected: bool,
    pub(super) last_error: Option<String>,
    pub(super) one_way: Vec<String>,
}

/// /hubstats.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HubStats {
    pub(super) bootstrap_hubs: Vec<Dial>,
    pub(super) found_hubs: Vec<Dial>,
    pub(super) hubs: Vec<Other>,
    pub(super) lost_hubs: Vec<Other>,
    pub(super) links: Vec<Link>,
    pub(super) redis: Option<Redis>,
}

/// The parts of /stats that this program reads.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Stats {
    pub(super) hub_peer_id: String,
}

/// Why the pages of a hub could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The hub did not answer in time.
    Slow,
    /// The hub answered, and refused the request: for example, the token is wrong.
    Refused(String),
    /// There was no connection to the hub, or the answer was not a page of a hub.
    Down(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow => write!(f, "no answer within {} s", PATIENCE.as_secs()),
            Self::Refused(text) | Self::Down(text) => f.write_str(text),
        }
    }
}

/// The page that explains this program. It is the link of faults that are no faults of a hub.
const MANUAL: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/operations.md#in-a-terminal");

/// The page that explains each fault.
const RUNBOOK: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/runbook.md");

/// A fault, in a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) text: String,
    /// The heading of the runbook's paragraph that says what to do. Empty if the hub has no fault.
    pub(super) alert: &'static str,
    /// The link with the fault. Both its hubs report it.
    pub(super) link: Option<LinkEnds>,
}

/// The ids of the hubs of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkEnds {
    pub(super) own: String,
    pub(super) far: String,
    /// Whether the own hub has dialed.
    pub(super) dialed: bool,
}

impl Fault {
    pub(super) fn new(alert: &'static str, text: impl Into<String>) -> Self {
        Self { text: text.into(), alert, link: None }
    }

    /// Whether this fault and a fault of another hub are the same, and the other hub has dialed. The other hub knows the
    /// dialed URL.
    pub(super) fn repeats(&self, other: &Self) -> bool {
        let (Some(own), Some(far)) = (&self.link, &other.link) else { return false };
        self.alert == other.alert && !own.dialed && far.dialed && own.own == far.far && own.far == far.own
    }

    /// The address of the runbook's paragraph.
    pub(super) fn page(&self) -> String {
        if self.alert.is_empty() {
            return MANUAL.to_owned();
        }
        format!("{RUNBOOK}#{}", self.alert.to_lowercase())
    }
}

/// The names of networks and the worst flooder, from the JSON form of /metrics.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MetricsJson {
    peers: NamedPeers,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NamedPeers {
    flooder: Option<Flooder>,
    networks: BTreeMap<String, u64>,
}

/// The peer with the most refused messages, among the peers that still send.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Flooder {
    pub(super) peer: String,
    pub(super) refused: u64,
}

impl MetricsJson {
    /// The flooder, and the names and members of networks.
    pub(super) fn parts(self) -> (Option<Flooder>, BTreeMap<String, u64>) {
        (self.peers.flooder, self.peers.networks)
    }
}

/// A member of a network, as /dashboard/network shows it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Member {
    pub(super) peer: String,
    /// The other hub to which the member is connected. `None` if the member is connected to the asked hub.
    pub(super) hub: Option<String>,
    /// Time of the join, in milliseconds since 1970. Absent if the hub does not know it.
    pub(super) since: Option<u64>,
}

/// /dashboard/network.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Roster {
    /// Number of all members. The list `members` has at most 200.
    pub(super) count: u64,
    pub(super) members: Vec<Member>,
}

/// The result of one poll of a hub.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) page: Page,
    /// Time at which `page` was read.
    pub(super) read: Instant,
    /// The minute before the first poll.
    pub(super) history: Option<History>,
    pub(super) hubstats: HubStats,
    /// The time that the page /hubstats took, including the connection, the request and its answer.
    pub(super) answer: Duration,
    pub(super) stats: Stats,
    pub(super) flooder: Option<Flooder>,
    /// The names of the largest networks, each with the number of members that this hub knows.
    pub(super) networks: BTreeMap<String, u64>,
}

/// The times over which the figures of a hub are computed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spans<'a> {
    /// The time since the last sample.
    pub(super) last: Span<'a>,
    /// The time over which the load of threads is judged.
    pub(super) load: Span<'a>,
    /// The last minute.
    pub(super) minute: Span<'a>,
}

/// The load of a thread.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shard {
    pub(super) name: String,
    /// The part of a core in use; 1 is a whole core.
    pub(super) busy: f64,
    pub(super) sessions: f64,
    pub(super) queued_bytes: f64,
}

/// The state of a hub between two polls.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) id: String,
    pub(super) is_ready: bool,
    pub(super) version: String,
    pub(super) uptime: Duration,
    pub(super) peers: f64,
    pub(super) max_connections: f64,
    pub(super) networks: f64,
    pub(super) remote_peers: f64,
    /// `None` if the hub cannot read it.
    pub(super) resident_bytes: Option<f64>,
    /// Cores in use.
    pub(super) cpu: f64,
    /// The time that a page takes.
    pub(super) answer: Duration,
    /// Signals of peers, per second.
    pub(super) signals: f64,
    /// Signals per second with another outcome than `delivered` or `forwarded`.
    pub(super) lost_signals: f64,
    /// Messages of peers, per second.
    pub(super) messages: f64,
    pub(super) joins: f64,
    pub(super) closes: f64,
    /// The 99th percentile of the time that a signal takes in the hub, in seconds.
    pub(super) latency: Option<f64>,
    /// The 99th percentile of the turns of the thread with the longest turns, in seconds.
    pub(super) turn: Option<f64>,
    pub(super) shards: Vec<Shard>,
    /// Increases per second by label. The counters are received messages, outcomes, closes, errors and refusals.
    pub(super) message_types: Vec<(String, f64)>,
    pub(super) outcomes: Vec<(String, f64)>,
    pub(super) close_reasons: Vec<(String, f64)>,
    pub(super) errors: Vec<(String, f64)>,
    pub(super) refusals: Vec<(String, f64)>,
    /// The faults for the operator.
    pub(super) faults: Vec<Fault>,
}

impl View {
    /// The current state of the hub, and the changes in these times.
    pub(super) fn of(now: &Sample, spans: Spans<'_>) -> Self {
        let (page, span) = (&now.page, spans.last);
        let outcomes = span.rates_by("peerpigeon_relay_outcomes_total", "outcome", "");
        let is_well = |outcome: &str| outcome == "delivered" || outcome == "forwarded";
        // The sum of no numbers is -0.0, so 0.0 is added.
        let lost = 0.0 + outcomes.iter().filter(|(outcome, _)| !is_well(outcome)).map(|(_, rate)| rate).sum::<f64>();
        let version = page.by("peerpigeon_build_info", "version");
        // Many short turns of other threads must not hide a thread with long turns.
        let turns = page
            .by("peerpigeon_turn_seconds_bucket", "thread")
            .into_keys()
            .take(MAX_THREADS)
            .filter_map(|thread| span.quantile("peerpigeon_turn_seconds", &format!("thread=\"{thread}\""), 0.99));
        let mut view = Self {
            id: now.stats.hub_peer_id.clone(),
            is_ready: page.sum("peerpigeon_ready") > 0.0,
            version: version.into_keys().next().unwrap_or_default(),
            uptime: Duration::try_from_secs_f64(page.sum("peerpigeon_uptime_seconds")).unwrap_or_default(),
            peers: page.sum("peerpigeon_peers"),
            max_connections: page.sum("peerpigeon_max_connections"),
            networks: page.sum("peerpigeon_networks"),
            remote_peers: page.sum("peerpigeon_mesh_remote_peers"),
            resident_bytes: Some(page.sum("process_resident_memory_bytes")).filter(|bytes| *bytes > 0.0),
            answer: now.answer,
            cpu: span.rate("process_cpu_seconds_total", ""),
            signals: span.rate("peerpigeon_relay_outcomes_total", ""),
            lost_signals: lost,
            messages: span.rate("peerpigeon_messages_total", "direction=\"in\""),
            joins: span.rate("peerpigeon_handshakes_total", ""),
            closes: span.rate("peerpigeon_closes_total", ""),
            latency: span.quantile("peerpigeon_relay_latency_seconds", "", 0.99),
            turn: turns.max_by(f64::total_cmp),
            shards: threads(span),
            message_types: span.rates_by("peerpigeon_messages_total", "type", "direction=\"in\""),
            outcomes,
            close_reasons: span.rates_by("peerpigeon_closes_total", "reason", ""),
            errors: span.rates_by("peerpigeon_errors_total", "code", ""),
            refusals: span.rates_by("peerpigeon_handshake_failures_total", "reason", ""),
            faults: Vec::new(),
        };
        view.faults = view.faults(now, spans);
        view.faults.truncate(MAX_FAULTS);
        view
    }

    fn faults(&self, now: &Sample, Spans { load, minute, .. }: Spans<'_>) -> Vec<Fault> {
        let (page, hubstats) = (&now.page, &now.hubstats);
        let mut faults = Vec::new();
        let mut add = |alert, text: String| faults.push(Fault::new(alert, text));
        if !self.is_ready {
            add("PeerPigeonNotReady", "starts or drains: it accepts no peers".to_owned());
        } else if page.sum("peerpigeon_full") > 0.0 {
            add("PeerPigeonFull", "full: it has its maximum number of peers".to_owned());
        }
        if page.sum("peerpigeon_bugs_total") > 0.0 {
            add("PeerPigeonBug", "has found a bug in itself: see bug_found in its log".to_owned());
        }
        mesh_faults(page, hubstats, &mut add);
        faults.extend(link_faults(&self.id, hubstats));
        let mut add = |alert, text: String| faults.push(Fault::new(alert, text));
        for (file, days) in page.by("peerpigeon_tls_certificate_days_left", "file") {
            if days < 0.0 {
                add("PeerPigeonCertificateExpiresNow", format!("certificate {file} has expired: clients refuse it"));
            } else if days < FEW_DAYS {
                let alert = if days < 3.0 { "PeerPigeonCertificateExpiresNow" } else { "PeerPigeonCertificateExpires" };
                add(alert, format!("certificate {file} expires in {days:.1} days"));
            }
        }
        let stuck = page.sum("peerpigeon_oldest_turn_seconds");
        if stuck > 10.0 {
            add("PeerPigeonThreadStuck", format!("a thread has made no progress for {stuck:.0} s"));
        }
        let threads = threads(load);
        let awake: f64 = threads.iter().map(|shard| shard.busy).sum();
        let ran = load.rate("process_cpu_seconds_total", "");
        if awake > AWAKE && ran < awake * STARVED {
            let (awake, ran) = (awake * 100.0, ran * 100.0);
            let text = format!(
                "starves: its threads were awake for {awake:.0} % of a core, and ran for {ran:.0} %: give it more CPU, \
                 or find out which other programs use it"
            );
            add("PeerPigeonTurnsLong", text);
        } else {
            // Slow answers and long turns are effects of starvation. Without it, they are faults of their own.
            self.slow_faults(minute, &mut add);
            for shard in threads.iter().filter(|shard| shard.busy > BUSY) {
                let alert = if shard.name == "mesh" { "PeerPigeonMeshBusy" } else { "PeerPigeonShardBusy" };
                add(alert, format!("{} is busy: {:.0} % of a core", shard.name, shard.busy * 100.0));
            }
        }
        let in_time = in_time(minute);
        let parts = [
            ("announced_bytes", "announce_budget_bytes", "ANNOUNCE_BUDGET_BYTES", "PeerPigeonAnnouncedNearlyFull"),
            ("session_queued_bytes", "send_budget_bytes", "SEND_BUDGET_BYTES", "PeerPigeonQueuesFill"),
            ("process_resident_memory_bytes", "memory_limit_bytes", "its memory limit", "PeerPigeonMemoryHigh"),
            ("process_open_fds", "process_max_fds", "its open files", "PeerPigeonFilesShort"),
            ("connections", "max_connections", "MAX_CONNECTIONS", "PeerPigeonNearlyFull"),
        ];
        let own =
            |name: &str| if name.starts_with("process_") { name.to_owned() } else { format!("peerpigeon_{name}") };
        for (part, whole, name, alert) in parts {
            let (part, whole) = (page.sum(&own(part)), page.sum(&own(whole)));
            if whole > 0.0 && part > NEAR_LIMIT * whole {
                add(alert, format!("uses {:.0} % of {name}", part / whole * 100.0));
            }
        }
        let closed = |reason| minute.grown("peerpigeon_closes_total", &format!("reason=\"{reason}\"")).round();
        let slow = closed("slow-consumer");
        if slow > 0.0 {
            add("PeerPigeonSlowConsumers", format!("{} {in_time}, because they did not read", disconnected(slow)));
        }
        if let Some(text) = flood(now, minute, closed("rate-limited")) {
            add("PeerPigeonRateLimited", text);
        }
        faults
    }

    /// The faults of slow answers and long turns.
    fn slow_faults(&self, minute: Span<'_>, add: &mut impl FnMut(&'static str, String)) {
        if self.answer > SLOW_ANSWER {
            let answer = millis(self.answer.as_secs_f64());
            add("PeerPigeonTurnsLong", format!("answers in {answer}: it is far away, or has too little CPU"));
        }
        let threads = minute.after.by("peerpigeon_turn_seconds_bucket", "thread").into_keys().take(MAX_THREADS);
        let threads = threads.filter_map(|thread| {
            let long = minute.above("peerpigeon_turn_seconds", &format!("thread=\"{thread}\""), LONG_TURN);
            // A few long turns can be chance.
            (long > FEW_LONG_TURNS).then(|| format!("{thread} had {long:.0}"))
        });
        let threads: Vec<_> = threads.collect();
        if !threads.is_empty() {
            let what = format!("turns that lasted longer than 25 ms {}: too little CPU, or a flood", in_time(minute));
            add("PeerPigeonTurnsLong", format!("{} {what}", threads.join(", ")));
        }
    }
}

/// Maximum number of threads of one hub that are examined: 256 shards and some others. Each costs a pass over the page,
/// so a server with a page of invented threads would stop `top` for minutes.
const MAX_THREADS: usize = 272;

/// Maximum number of faults of one hub that are listed.
const MAX_FAULTS: usize = 100;

/// The load of the threads of a hub.
fn threads(span: Span<'_>) -> Vec<Shard> {
    let page = span.after;
    // A thread is awake at most all the time. The two pages can show slightly more, because the hub does not write
    // them at the times at which they are read here.
    let part = |rate: f64| rate.min(1.0);
    let busy = |labels: &str| part(span.rate("peerpigeon_shard_busy_seconds_total", labels));
    let mut shards: Vec<Shard> = page
        .by("peerpigeon_shard_sessions", "shard")
        .into_iter()
        .take(MAX_THREADS)
        .map(|(shard, sessions)| {
            let labels = format!("shard=\"{shard}\"");
            let queued_bytes = page.sum_where("peerpigeon_session_queued_bytes", &labels);
            Shard { name: format!("shard {shard}"), busy: busy(&labels), sessions, queued_bytes }
        })
        .collect();
    shards.push(Shard {
        name: "mesh".to_owned(),
        busy: part(span.rate("peerpigeon_mesh_busy_seconds_total", "")),
        sessions: page.sum("peerpigeon_links"),
        queued_bytes: page.sum("peerpigeon_link_queued_bytes"),
    });
    shards
}

/// The time of the counts, in words.
fn in_time(span: Span<'_>) -> String {
    format!("in the last {:.0} s", span.seconds.max(1.0))
}

fn disconnected(peers: f64) -> String {
    format!("{peers:.0} {} disconnected", if peers == 1.0 { "peer was" } else { "peers were" })
}

/// The faults of links, other hubs and Redis.
fn mesh_faults(page: &Page, hubstats: &HubStats, add: &mut impl FnMut(&'static str, String)) {
    let dials = hubstats.bootstrap_hubs.iter().chain(&hubstats.found_hubs);
    for dial in dials.filter(|dial| !dial.connected && !dial.own) {
        let why = dial.last_error.as_deref().unwrap_or("not dialed yet");
        add("PeerPigeonMeshIncomplete", format!("no link to {}: {why}", dial.uri));
    }
    for hub in &hubstats.lost_hubs {
        add("PeerPigeonHubLost", format!("has lost hub {}", short(&hub.id)));
    }
    if let Some(redis) = hubstats.redis.as_ref().filter(|redis| !redis.connected) {
        let why = redis.last_error.as_deref().unwrap_or("not connected");
        add("PeerPigeonRedisDown", format!("Redis {}: {why}", redis.address));
    }
    if let Some(redis) = hubstats.redis.as_ref().filter(|redis| !redis.one_way.is_empty()) {
        add("PeerPigeonRedisOneWay", format!("Redis carries nothing to {} hubs", redis.one_way.len()));
    }
    if page.sum("peerpigeon_links_silent") > 0.0 {
        add("PeerPigeonPresenceLate", "a link carries nothing in one direction".to_owned());
    }
}

/// The faults of links.
fn link_faults(own: &str, hubstats: &HubStats) -> Vec<Fault> {
    let mut faults = Vec::new();
    for link in &hubstats.links {
        let ends = link.hub.clone().map(|far| LinkEnds { own: own.to_owned(), far, dialed: link.dialed });
        let mut add = |alert, text| faults.push(Fault { link: ends.clone(), ..Fault::new(alert, text) });
        let name = link.between(own, &hubstats.hubs);
        if let Some(rtt) = link.rtt_ms.filter(|rtt| *rtt > SLOW_LINK_MS) {
            add("PeerPigeonSignalsSlow", format!("{name} is slow: a round trip takes {rtt:.0} ms"));
        }
        if link.saturated {
            add("PeerPigeonLinksFull", format!("{name} is full: {} bytes wait", link.queued_bytes));
        }
    }
    faults
}

/// The settings of the budgets, by their label in `peerpigeon_rate_limited_total`.
const BUDGETS: [(&str, &str); 5] = [
    ("messages", "MESSAGE_RATE"),
    ("bytes", "MESSAGE_RATE_BYTES"),
    ("announcements", "ANNOUNCE_RATE_BYTES"),
    ("events", "EVENT_RATE_BYTES"),
    ("discover", "DISCOVER_RATE"),
];

/// A sentence about messages above a budget in the last minute, and about peers that were disconnected because of them,
/// if there are any.
fn flood(now: &Sample, span: Span<'_>, cut: f64) -> Option<String> {
    let refused = span.rates_by("peerpigeon_rate_limited_total", "budget", "");
    // A refused message causes an error, and the hub can withhold this error as well. To count nothing twice, withheld
    // errors are counted only if no messages are refused.
    let (withheld, refused): (Vec<_>, Vec<_>) = refused.into_iter().partition(|(budget, _)| budget == "errors");
    let count = |rates: &[(String, f64)]| rates.iter().map(|(_, rate)| rate).sum::<f64>() * span.seconds;
    let setting = |budget: &str| BUDGETS.iter().find(|(label, _)| *label == budget).map(|(_, setting)| *setting);
    let settings: Vec<&str> = refused.iter().filter_map(|(budget, _)| setting(budget)).collect();
    let mut parts = Vec::new();
    if !refused.is_empty() {
        parts.push(format!("{:.0} messages above {} were refused", count(&refused), settings.join(" and ")));
    } else if !withheld.is_empty() {
        parts.push(format!("{:.0} invalid messages arrived", count(&withheld)));
    }
    if cut > 0.0 {
        let returns = "a flooder that returns with a new id is counted each time";
        parts.push(format!("{} ({returns})", disconnected(cut)));
    }
    if parts.is_empty() {
        return None;
    }
    let text = format!("peers flood it: {} {}", parts.join(" and "), in_time(span));
    Some(match &now.flooder {
        Some(Flooder { peer, refused }) => {
            format!("{text}. Peer {peer} was the worst in the last 10 s, with {refused} refused messages")
        }
        None => text,
    })
}

impl Link {
    /// The URL of the link, or else its address.
    pub(super) fn name(&self) -> &str {
        self.url.as_deref().unwrap_or(&self.address)
    }

    /// The link with both its hubs. If this hub has dialed, also the dialed URL, and whether the other hub has another
    /// URL. If the other hub has dialed, the address does not identify it.
    fn between(&self, own: &str, others: &[Other]) -> String {
        let Some(far) = &self.hub else { return format!("the link to {}", self.name()) };
        if !self.dialed {
            return format!("the link from hub {} ({}) to this hub", short(far), self.name());
        }
        let known = others.iter().find(|other| &other.id == far).and_then(|other| other.url.as_deref());
        let is_same = |url: &str| url.trim_end_matches('/') == self.name().trim_end_matches('/');
        let proxy = match known {
            Some(url) if !is_same(url) => format!("; the hub's own URL is {url}, so a proxy may be between"),
            Some(_) | None => String::new(),
        };
        format!("the link from hub {} to hub {} (dialed at {}{proxy})", short(own), short(far), self.name())
    }
}

/// The beginning of an id.
pub(super) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// A time in milliseconds.
pub(super) fn millis(seconds: f64) -> String {
    match seconds * 1000.0 {
        ms if ms.is_infinite() => ">10 s".to_owned(),
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms if ms < 10_000.0 => format!("{:.1} s", ms / 1000.0),
        ms => format!("{:.0} s", ms / 1000.0),
    }
}

/// A long time in its largest unit: 102 s, 2 min, 3 h, 4 d.
pub(super) fn long_time(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 7200 => format!("{} min", seconds / 60),
        seconds if seconds < 172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}
