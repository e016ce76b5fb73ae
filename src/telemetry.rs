//! Prometheus metrics.
//!
//! Shards count in plain fields, and publish these counts once a tick. A scrape adds up the counts of all shards. Each
//! hub has its own recorder, so two hubs in one process do not share numbers. The recorder stores no samples between
//! two scrapes, so its memory does not grow.

mod catalog;
#[cfg(test)]
mod deployed;
#[cfg(test)]
mod events;
pub mod log;
mod mesh;
pub mod process;
mod sink;
pub mod tail;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Label, describe_counter, describe_gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use proto::{
    BudgetItem, BudgetOwner, BugSite, CloseReason, ErrorCode, MessageKind, Outcome, ResumeOutcome, RouterStats,
    TurnLengths,
};
use shard::{HandshakeFailure, ShardReading, TokenRefusal};

use crate::acme::AcmeView;
use crate::traces::TraceCounts;
use ::mesh::MeshReading;
use catalog::{Metric, MetricType};

pub use sink::LogState;

/// The Content-Type of [`Telemetry::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of one hub.
#[derive(Debug)]
pub struct Telemetry {
    recorder: PrometheusRecorder,
}

/// The data that a scrape renders.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// The statistics that each shard published last, in the order of the shards.
    pub readings: Vec<Arc<ShardReading>>,
    /// Number of renderings of each page, by its label.
    pub renders: Vec<(&'static str, u64)>,
    /// The state that the mesh published last.
    pub mesh: Arc<MeshReading>,
    /// The state of the certificates.
    pub tls: TlsScrape,
    /// Number of loads of the keys of tokens that succeeded, and of loads that failed.
    pub token_key_loads: (u64, u64),
    /// Open WebSockets.
    pub connections: usize,
    /// Maximum number of open WebSockets.
    pub max_connections: usize,
    /// SEND_BUDGET_BYTES.
    pub send_budget_bytes: usize,
    /// ANNOUNCE_BUDGET_BYTES.
    pub announce_budget_bytes: usize,
    /// Connected peers.
    pub peers: usize,
    /// Whether the hub is ready.
    pub ready: bool,
    /// Whether the hub is full.
    pub full: bool,
    /// Longest time since the last turn of a thread.
    pub oldest_turn: Duration,
    /// The state of the log's output.
    pub log: LogState,
    /// Numbers of spans.
    pub traces: TraceCounts,
    /// Time since the hub started.
    pub uptime: Duration,
    /// Start time, since 1970.
    pub started: Duration,
}

/// The state of the certificates at a scrape; empty without TLS.
#[derive(Clone, Default, Debug)]
pub struct TlsScrape {
    /// Days until each certificate expires, by its file.
    pub days_left: Vec<(String, f64)>,
    /// Number of reloads of certificate files that succeeded, and of reloads that failed.
    pub reloads: (u64, u64),
    /// Whether the latest files are invalid.
    pub stale: bool,
    /// The state of the certificates that the hub orders; `None` without TLS_ACME.
    pub acme: Option<AcmeView>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    /// Makes the metrics of one hub. Two hubs in one process do not share metrics.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            for metric in catalog::ALL {
                match metric.kind {
                    MetricType::Counter => describe_counter!(metric.name, metric.help),
                    MetricType::Gauge => describe_gauge!(metric.name, metric.help),
                    MetricType::CounterSeconds | MetricType::Histogram => {}
                }
            }
        });
        Self { recorder }
    }

    /// Renders all metrics in Prometheus text format, in a stable order.
    pub fn render(&self, scrape: &Scrape) -> String {
        metrics::with_local_recorder(&self.recorder, || publish(scrape));
        let rendered = self.recorder.handle().render();
        let mut families: Vec<String> = rendered.split("\n\n").filter_map(in_order).collect();
        families.push(latency(scrape));
        families.push(turns(scrape));
        families.push(seconds(
            &catalog::SHARD_BUSY,
            each_shard(&scrape.readings).map(|(shard, reading)| {
                (format!("{{shard=\"{shard}\"}}"), Duration::from_micros(reading.io.busy_micros))
            }),
        ));
        let mesh_busy = Duration::from_micros(scrape.mesh.busy_micros);
        families.push(seconds(&catalog::MESH_BUSY, [(String::new(), mesh_busy)]));
        families.push(seconds(&catalog::PROCESS_CPU, [(String::new(), process::cpu_time())]));
        families.sort_unstable();
        families.concat()
    }
}

/// Records the statistics of the hub in the current recorder.
fn publish(scrape: &Scrape) {
    let readings = &scrape.readings;
    let sum = |of: &dyn Fn(&ShardReading) -> u64| readings.iter().map(|reading| of(reading)).sum::<u64>();
    // Every shard knows all networks, except for changes that it has not received yet. So the largest number is the
    // best.
    let most = |of: &dyn Fn(&ShardReading) -> u64| readings.iter().map(|reading| of(reading)).max().unwrap_or(0);

    gauge(&catalog::CONNECTIONS, vec![], scrape.connections as f64);
    gauge(&catalog::MAX_CONNECTIONS, vec![], scrape.max_connections as f64);
    gauge(&catalog::PEERS, vec![], scrape.peers as f64);
    gauge(&catalog::NETWORKS, vec![], most(&|r| r.router.networks) as f64);
    gauge(&catalog::MEMBERS, vec![], most(&|r| r.router.members) as f64);
    gauge(&catalog::SEND_BUDGET, vec![], scrape.send_budget_bytes as f64);
    gauge(&catalog::ANNOUNCED_BYTES, vec![], sum(&|r| r.router.announced_bytes) as f64);
    gauge(&catalog::ANNOUNCE_BUDGET, vec![], scrape.announce_budget_bytes as f64);
    gauge(&catalog::ACQUAINTANCES, vec![], sum(&|r| r.router.acquaintances) as f64);
    count(&catalog::MEETINGS_DECLINED, vec![], sum(&|r| r.router.meetings_declined));
    gauge(&catalog::OPEN_RECEIPTS, vec![], sum(&|r| r.router.open_receipts) as f64);

    for kind in MessageKind::ALL {
        let message = |direction| vec![label("direction", direction), label("type", kind.label())];
        if is_heard(kind) {
            count(&catalog::MESSAGES, message("in"), sum(&|r| r.router.messages_in[kind.index()]));
        }
        if is_said(kind) {
            count(&catalog::MESSAGES, message("out"), sum(&|r| r.io.messages_out[kind.index()]));
        }
    }
    count(&catalog::BYTES, vec![label("direction", "in")], sum(&|r| r.io.bytes_in));
    count(&catalog::BYTES, vec![label("direction", "out")], sum(&|r| r.io.bytes_out));
    count(&catalog::WRITES, vec![], sum(&|r| r.io.writes));
    count(&catalog::PINGS, vec![], sum(&|r| r.io.pings));

    // If a signal to a peer of another hub requests no receipt, only the relay counts its delivery.
    let delivered = sum(&|r| r.router.delivered) + scrape.mesh.relay.delivered;
    let outcome = |outcome: Outcome| vec![label("outcome", outcome.label())];
    count(&catalog::RELAY_OUTCOMES, outcome(Outcome::Delivered), delivered);
    let forwarded = sum(&|r| r.router.forwarded) + scrape.mesh.relay.forwarded_to_go;
    count(&catalog::RELAY_OUTCOMES, outcome(Outcome::Forwarded), forwarded);
    for code in ErrorCode::ALL {
        let failed = sum(&|r| r.router.failed[code as usize]);
        count(&catalog::RELAY_OUTCOMES, outcome(Outcome::Failed(code)), failed);
        count(&catalog::ERRORS, vec![label("code", code.label())], sum(&|r| r.router.errors[code as usize]));
    }
    count(&catalog::RELAY_LATE_OUTCOMES, vec![], sum(&|r| r.router.late_outcomes));
    count(&catalog::TURN_CREDENTIALS, vec![], sum(&|r| r.router.turn_credentials));
    count(&catalog::ERRORS_WITHHELD, vec![], sum(&|r| r.router.errors_withheld));
    for owner in BudgetOwner::ALL {
        for item in BudgetItem::ALL.into_iter().filter(|item| item.is_of(owner)) {
            let labels = vec![label("budget", item.label()), label("owner", owner.label())];
            count(&catalog::RATE_LIMITED, labels, sum(&|r| r.router.exceeded[owner as usize][item as usize]));
        }
    }

    count(&catalog::HANDSHAKES, vec![], sum(&|r| r.io.handshakes));
    for failure in HandshakeFailure::ALL {
        let failed = sum(&|r| r.io.handshake_failures[failure as usize]);
        count(&catalog::HANDSHAKE_FAILURES, vec![label("reason", failure.label())], failed);
    }
    for (i, kind) in ["full", "resumed"].into_iter().enumerate() {
        count(&catalog::TLS_HANDSHAKES, vec![label("kind", kind)], sum(&|r| r.io.tls_handshakes[i]));
    }
    let tls = &scrape.tls;
    for (file, days) in &tls.days_left {
        gauge(&catalog::TLS_DAYS_LEFT, vec![Label::new("file", file.clone())], *days);
    }
    count(&catalog::TLS_RELOADS, vec![label("outcome", "taken")], tls.reloads.0);
    count(&catalog::TLS_RELOADS, vec![label("outcome", "refused")], tls.reloads.1);
    gauge(&catalog::TLS_STALE, vec![], f64::from(u8::from(tls.stale)));
    let acme = tls.acme.clone().unwrap_or_default();
    count(&catalog::ACME_ORDERS, vec![label("outcome", "issued")], acme.issued);
    count(&catalog::ACME_ORDERS, vec![label("outcome", "failed")], acme.failed);
    gauge(&catalog::ACME_FAILING, vec![], acme.failing as f64);
    gauge(&catalog::ACME_MISSING, vec![], acme.missing as f64);
    for reason in CloseReason::ALL {
        count(&catalog::CLOSES, vec![label("reason", reason.label())], sum(&|r| r.io.closes[reason as usize]));
    }
    for (i, outcome) in ["replaced", "answered"].into_iter().enumerate() {
        count(&catalog::TAKEOVERS, vec![label("outcome", outcome)], sum(&|r| r.router.takeovers[i]));
    }
    count(&catalog::TAKEOVERS, vec![label("outcome", "owner")], sum(&|r| r.router.owner_takeovers));
    count(&catalog::TOKENS, vec![label("outcome", "accepted")], sum(&|r| r.io.tokens_accepted));
    for no in TokenRefusal::ALL {
        count(&catalog::TOKENS, vec![label("outcome", no.label())], sum(&|r| r.io.token_refusals[no as usize]));
    }
    count(&catalog::IDS_PROVEN, Vec::new(), sum(&|r| r.io.ids_proven));
    count(&catalog::TOKEN_KEY_LOADS, vec![label("outcome", "taken")], scrape.token_key_loads.0);
    count(&catalog::TOKEN_KEY_LOADS, vec![label("outcome", "refused")], scrape.token_key_loads.1);
    for outcome in ResumeOutcome::ALL {
        let shown = sum(&|r| r.router.resumes[outcome as usize] + r.io.resumes[outcome as usize]);
        count(&catalog::RESUMES, vec![label("outcome", outcome.label())], shown);
    }
    count(&catalog::HTTP_REQUESTS, vec![], sum(&|r| r.io.http_requests));
    count(&catalog::PAGES_REFUSED, vec![], sum(&|r| r.io.pages_refused));
    for &(page, renders) in &scrape.renders {
        count(&catalog::PAGE_RENDERS, vec![label("page", page)], renders);
    }

    for (shard, reading) in each_shard(readings) {
        let io = &reading.io;
        let of_shard = || vec![Label::new("shard", shard.to_string())];
        gauge(&catalog::QUEUED_BYTES, of_shard(), io.queued_bytes as f64);
        gauge(&catalog::QUEUE_PEAK_BYTES, of_shard(), io.queue_peak_bytes as f64);
        gauge(&catalog::QUEUE_PEAK_FRAMES, of_shard(), io.queue_peak_frames as f64);
        gauge(&catalog::SHARD_SESSIONS, of_shard(), io.sessions as f64);
        count(&catalog::SHARD_LETTERS, of_shard(), io.post.letters);
        count(&catalog::SHARD_LETTER_BATCHES, of_shard(), io.post.batches);
        gauge(&catalog::OUTBOX_PEAK, of_shard(), io.post.peak as f64);
        count(&catalog::SHARD_STALLS, of_shard(), io.post.stalls);
        count(&catalog::SHARD_HANDOFFS, of_shard(), io.handed_off);
    }

    mesh::publish(&scrape.mesh);

    for &site in BugSite::ALL {
        let found = sum(&|r| r.router.bugs.of(site) + r.io.bugs.of(site));
        let between_hubs = scrape.mesh.relay.bugs.of(site) + scrape.mesh.io.bugs.of(site);
        count(&catalog::BUGS, vec![label("site", site.label())], found + between_hubs);
    }
    gauge(&catalog::READY, vec![], f64::from(u8::from(scrape.ready)));
    gauge(&catalog::FULL, vec![], f64::from(u8::from(scrape.full)));
    gauge(&catalog::OLDEST_TURN, vec![], scrape.oldest_turn.as_secs_f64());
    count(&catalog::LOG_LINES_DROPPED, vec![], scrape.log.dropped);
    let traces = scrape.traces;
    for (outcome, spans) in [
        ("exported", traces.exported),
        ("overflow", traces.overflowed + scrape.mesh.relay.spans_dropped),
        ("failed", traces.failed),
        ("rejected", traces.rejected),
    ] {
        count(&catalog::TRACE_SPANS, vec![label("outcome", outcome)], spans);
    }
    gauge(&catalog::LOG_STALLED, vec![], scrape.log.stalled.as_secs_f64());
    gauge(&catalog::UPTIME, vec![], scrape.uptime.as_secs_f64());
    let build = vec![label("version", env!("CARGO_PKG_VERSION")), label("commit", env!("PEERPIGEON_COMMIT"))];
    gauge(&catalog::BUILD_INFO, build, 1.0);
    gauge(&catalog::PROCESS_START, vec![], scrape.started.as_secs_f64());
    gauge(&catalog::MEMORY_LIMIT, vec![], process::memory_limit().unwrap_or(0) as f64);
    if let Some(memory) = process::Memory::measure() {
        gauge(&catalog::PROCESS_MEMORY, vec![], memory.resident as f64);
    }
    if let Some(files) = process::open_files() {
        gauge(&catalog::PROCESS_OPEN_FDS, vec![], files as f64);
    }
    gauge(&catalog::PROCESS_MAX_FDS, vec![], process::max_files().map_or(f64::INFINITY, |files| files as f64));
}

fn each_shard(readings: &[Arc<ShardReading>]) -> impl Iterator<Item = (usize, &ShardReading)> {
    readings.iter().map(AsRef::as_ref).enumerate()
}

fn label(key: &'static str, value: &'static str) -> Label {
    Label::from_static_parts(key, value)
}

fn count(metric: &Metric, labels: Vec<Label>, value: u64) {
    debug_assert!(labels.iter().map(Label::key).eq(metric.labels.iter().copied()), "labels of {}", metric.name);
    metrics::counter!(metric.name, labels).absolute(value);
}

fn gauge(metric: &Metric, labels: Vec<Label>, value: f64) {
    debug_assert!(labels.iter().map(Label::key).eq(metric.labels.iter().copied()), "labels of {}", metric.name);
    metrics::gauge!(metric.name, labels).set(value);
}

/// Whether peers send messages of this kind.
fn is_heard(kind: MessageKind) -> bool {
    match kind {
        MessageKind::Announce
        | MessageKind::Signal(_)
        | MessageKind::Ping
        | MessageKind::Auth
        | MessageKind::Discover
        | MessageKind::Goodbye
        | MessageKind::Ignored
        | MessageKind::UnknownType
        | MessageKind::Invalid => true,
        MessageKind::Connected
        | MessageKind::PeerDiscovered
        | MessageKind::PeerDisconnected
        | MessageKind::Discovered
        | MessageKind::Announced
        | MessageKind::Pong
        | MessageKind::Error
        | MessageKind::Receipt
        | MessageKind::TokenExpires
        | MessageKind::Authorized
        | MessageKind::GoAway
        | MessageKind::IceServers => false,
    }
}

/// Whether peers receive messages of this kind.
fn is_said(kind: MessageKind) -> bool {
    !is_heard(kind) || matches!(kind, MessageKind::Signal(_) | MessageKind::Goodbye)
}

/// Sorts the series of a rendered family. The exporter renders the series of a family in the order of its hash maps,
/// which varies.
fn in_order(family: &str) -> Option<String> {
    let (mut comments, mut series): (Vec<&str>, Vec<&str>) =
        family.lines().filter(|line| !line.is_empty()).partition(|line| line.starts_with('#'));
    if series.is_empty() {
        return None;
    }
    series.sort_unstable();
    comments.append(&mut series);
    Some(comments.join("\n") + "\n\n")
}

fn heading(metric: &Metric) -> String {
    let Metric { name, help, .. } = metric;
    format!("# HELP {name} {help}\n# TYPE {name} {}\n", metric.kind.label())
}

/// Renders a counter whose value has a fraction, which the exporter does not support.
fn seconds(metric: &Metric, series: impl IntoIterator<Item = (String, Duration)>) -> String {
    let mut out = heading(metric);
    for (labels, value) in series {
        let _ = writeln!(out, "{}{labels} {}", metric.name, value.as_secs_f64());
    }
    out + "\n"
}

/// Renders the lengths of turns, by thread.
fn turns(scrape: &Scrape) -> String {
    let metric = &catalog::TURN;
    let name = metric.name;
    let mut out = heading(metric);
    let shards = each_shard(&scrape.readings).map(|(shard, reading)| (format!("shard-{shard}"), &reading.io.turns));
    for (thread, turns) in shards.chain([("mesh".to_owned(), &scrape.mesh.turns)]) {
        let mut count = 0;
        for (bucket, here) in turns.counts.iter().enumerate() {
            count += here;
            let bound =
                TurnLengths::BOUNDS.get(bucket).map(|&bound| Duration::from_micros(bound).as_secs_f64().to_string());
            let le = bound.unwrap_or_else(|| "+Inf".to_owned());
            let _ = writeln!(out, "{name}_bucket{{thread=\"{thread}\",le=\"{le}\"}} {count}");
        }
        let _ = writeln!(out, "{name}_sum{{thread=\"{thread}\"}} {}", turns.sum.as_secs_f64());
        let _ = writeln!(out, "{name}_count{{thread=\"{thread}\"}} {count}");
    }
    out + "\n"
}

/// Renders the latency of signals, whose buckets the routers and the relay have counted.
///
/// The exporter can make a histogram only from single samples. At 100,000 signals per second, a scrape would have to
/// record millions of samples.
fn latency(scrape: &Scrape) -> String {
    let metric = &catalog::RELAY_LATENCY;
    let name = metric.name;
    let mut out = heading(metric);
    let mut count = 0;
    let mut micros = 0;
    let bounds = RouterStats::LATENCY_BOUNDS;
    for bucket in 0..=bounds.len() {
        let here = scrape.readings.iter().map(|reading| reading.router.latency[bucket]).sum::<u64>()
            + scrape.mesh.relay.latency[bucket];
        let bound = bounds.get(bucket);
        count += here;
        micros = here.saturating_mul(bound.or(bounds.last()).copied().unwrap_or(0)).saturating_add(micros);
        let le =
            bound.map_or_else(|| "+Inf".to_owned(), |&bound| Duration::from_micros(bound).as_secs_f64().to_string());
        let _ = writeln!(out, "{name}_bucket{{le=\"{le}\"}} {count}");
    }
    let _ = writeln!(out, "{name}_sum {}", Duration::from_micros(micros).as_secs_f64());
    let _ = writeln!(out, "{name}_count {count}");
    out + "\n"
}
