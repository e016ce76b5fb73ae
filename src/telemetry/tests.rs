use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proto::{Budget, HubId, Keys, PeerId, ResumeKeys, Router, RouterConfig, RouterTuning, ShardId};
use shard::IoStats;

use super::*;

fn reading() -> ShardReading {
    let mut router = Router::new(RouterConfig {
        ice: None,
        discovery: proto::Discovery::All,
        shard: ShardId(0),
        shards: 1,
        keys: Keys(1, 2),
        resume_keys: ResumeKeys::new("mesh", b"key", None),
        hub: HubId(PeerId::from_bytes([1; 20])),
        heartbeat: Duration::from_secs(25),
        max_message_bytes: 1 << 20,
        max_networks_per_peer: 32,
        max_peers_per_network: 1000,
        announce_budget_bytes: usize::MAX,
        budget: Budget::UNLIMITED,
        network_budget: Budget::UNLIMITED,
        meshed: false,
        events: false,
        tuning: RouterTuning::default(),
    });
    ShardReading { router: router.stats().clone(), io: IoStats::default() }
}

fn scrape(readings: Vec<ShardReading>) -> Scrape {
    Scrape {
        readings: readings.into_iter().map(Arc::new).collect(),
        renders: crate::pages::labels().map(|page| (page, 1)).collect(),
        mesh: Arc::default(),
        token_key_loads: (0, 0),
        tls: TlsScrape { days_left: vec![("/tls/tls.crt".to_owned(), 12.5)], ..TlsScrape::default() },
        connections: 0,
        max_connections: 1000,
        send_budget_bytes: 1 << 29,
        announce_budget_bytes: 1 << 28,
        peers: 0,
        ready: true,
        full: false,
        oldest_turn: Duration::ZERO,
        log: LogState::default(),
        traces: TraceCounts::default(),
        uptime: Duration::from_millis(1500),
        started: Duration::from_secs(1_700_000_000),
    }
}

/// One rendered family of metrics.
#[derive(Debug, Default)]
struct Family {
    help: String,
    kind: String,
    /// Values by label. The label `le` is left out, because it belongs to the format of histograms.
    labels: BTreeMap<String, Vec<String>>,
    series: BTreeMap<String, f64>,
}

/// Parses a rendered page as Prometheus does, and panics where Prometheus would report an error.
fn read(render: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in render.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            let (what, rest) = comment.split_once(' ').unwrap();
            let (name, text) = rest.split_once(' ').unwrap();
            let family = families.entry(name.to_owned()).or_default();
            match what {
                "HELP" => family.help = text.to_owned(),
                "TYPE" => {
                    assert!(family.kind.is_empty() && family.series.is_empty(), "{line}");
                    family.kind = text.to_owned();
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let base = base.filter(|base| families.get(*base).is_some_and(|family| family.kind == "histogram"));
        let family = families.get_mut(base.unwrap_or(name)).unwrap_or_else(|| panic!("no TYPE before {line}"));
        for pair in labels.strip_suffix('}').unwrap().split(',').filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once('=').unwrap();
            let value = value.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
            let values = family.labels.entry(label.to_owned()).or_default();
            if !values.iter().any(|known| known == value) {
                values.push(value.to_owned());
            }
        }
        let before = family.series.insert(series.to_owned(), value.parse().unwrap());
        assert!(before.is_none(), "{series} twice");
    }
    families
}

fn value(render: &str, series: &str) -> f64 {
    let name = series.split('{').next().unwrap();
    let families = read(render);
    let found = families.values().find_map(|family| family.series.get(series));
    *found.unwrap_or_else(|| panic!("no {series} among\n{:?}", families.get(name)))
}

#[test]
fn each_metric_is_rendered_with_its_help_and_type() {
    let families = read(&Telemetry::new().render(&scrape(vec![reading(), reading()])));
    for metric in catalog::ALL {
        let family = families.get(metric.name).unwrap_or_else(|| panic!("{} is not rendered", metric.name));
        assert_eq!(family.help, metric.help, "{}", metric.name);
        assert_eq!(family.kind, metric.kind.label(), "{}", metric.name);
        let labels: BTreeSet<&str> = family.labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
        assert_eq!(labels, metric.labels.iter().copied().collect(), "{}", metric.name);
        let is_counter = matches!(metric.kind, MetricType::Counter | MetricType::CounterSeconds);
        assert_eq!(metric.name.ends_with("_total"), is_counter, "{}", metric.name);
    }
    assert_eq!(families.len(), catalog::ALL.len());
}

/// Checks the format of the exporter's text, because `render` splits this text at blank lines and sorts the lines of
/// each family.
#[test]
fn the_exporter_writes_the_format_that_render_expects() {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        describe_counter!("a_total", "Counts a.");
        describe_gauge!("b", "Shows b.");
        metrics::counter!("a_total", "reason" => "plain").absolute(3);
        metrics::counter!("a_total", "reason" => "a \"quote\", a \\ and a\n\nblank line").absolute(4);
        metrics::gauge!("b").set(0.5);
    });
    let rendered = recorder.handle().render();
    let mut families: Vec<_> = rendered.split("\n\n").filter_map(in_order).collect();
    families.sort_unstable();
    assert_eq!(
        families.concat(),
        "# HELP a_total Counts a.\n# TYPE a_total counter\n\
         a_total{reason=\"a \\\"quote\\\", a \\\\ and a\\n\\nblank line\"} 4\na_total{reason=\"plain\"} 3\n\n\
         # HELP b Shows b.\n# TYPE b gauge\nb 0.5\n\n"
    );
}

#[test]
fn the_numbers_of_all_shards_are_added_up() {
    let (mut a, mut b) = (reading(), reading());
    let announce = MessageKind::Announce.index();
    (a.router.messages_in[announce], b.router.messages_in[announce]) = (3, 4);
    (a.io.bytes_out, b.io.bytes_out) = (10, 20);
    (a.router.delivered, b.router.delivered) = (5, 6);
    (a.router.networks, b.router.networks) = (2, 3);
    a.router.failed[ErrorCode::SlowPeer as usize] = 9;
    b.io.closes[CloseReason::SlowConsumer as usize] = 7;
    b.io.handshake_failures[HandshakeFailure::HandOff as usize] = 8;
    (a.io.busy_micros, b.io.busy_micros) = (1_500_000, 250);
    b.io.queue_peak_bytes = 77;
    a.router.takeovers = [1, 2];

    let render = Telemetry::new().render(&Scrape { connections: 12, peers: 11, ..scrape(vec![a, b]) });
    for (series, expected) in [
        ("peerpigeon_connections", 12.0),
        ("peerpigeon_peers", 11.0),
        ("peerpigeon_max_connections", 1000.0),
        ("peerpigeon_networks", 3.0),
        ("peerpigeon_messages_total{direction=\"in\",type=\"announce\"}", 7.0),
        ("peerpigeon_bytes_total{direction=\"out\"}", 30.0),
        ("peerpigeon_relay_outcomes_total{outcome=\"delivered\"}", 11.0),
        ("peerpigeon_relay_outcomes_total{outcome=\"slow-peer\"}", 9.0),
        ("peerpigeon_closes_total{reason=\"slow-consumer\"}", 7.0),
        ("peerpigeon_handshake_failures_total{reason=\"hand-off\"}", 8.0),
        ("peerpigeon_shard_busy_seconds_total{shard=\"0\"}", 1.5),
        ("peerpigeon_shard_busy_seconds_total{shard=\"1\"}", 0.00025),
        ("peerpigeon_session_queue_peak_bytes{shard=\"1\"}", 77.0),
        ("peerpigeon_takeovers_total{outcome=\"replaced\"}", 1.0),
        ("peerpigeon_takeovers_total{outcome=\"answered\"}", 2.0),
        ("peerpigeon_uptime_seconds", 1.5),
        ("peerpigeon_ready", 1.0),
    ] {
        assert_eq!(value(&render, series), expected, "{series}");
    }
}

#[test]
fn latency_is_the_histogram_that_the_routers_counted() {
    let (mut a, mut b) = (reading(), reading());
    a.router.latency[0] = 2;
    b.router.latency[0] = 1;
    b.router.latency[3] = 4;
    *b.router.latency.last_mut().unwrap() = 1;
    let telemetry = Telemetry::new();
    let scrape = scrape(vec![a, b]);
    for _ in 0..2 {
        let render = telemetry.render(&scrape);
        let bucket = |le: &str| value(&render, &format!("peerpigeon_relay_latency_seconds_bucket{{le=\"{le}\"}}"));
        assert_eq!((bucket("0.00001"), bucket("0.00005"), bucket("0.0001")), (3.0, 3.0, 7.0));
        assert_eq!((bucket("1"), bucket("5"), bucket("+Inf")), (7.0, 7.0, 8.0));
        assert_eq!(value(&render, "peerpigeon_relay_latency_seconds_count"), 8.0);
        let sum = value(&render, "peerpigeon_relay_latency_seconds_sum");
        assert!((sum - (3.0 * 0.000_01 + 4.0 * 0.000_1 + 5.0)).abs() < 1e-9, "{sum}");
    }
}

#[test]
fn the_lengths_of_turns_are_a_histogram_per_thread() {
    let mut shard = reading();
    let mut mesh = MeshReading::default();
    for at in [1, 3, 203] {
        shard.io.turns.begin(Duration::from_millis(at), Duration::ZERO);
        mesh.turns.begin(Duration::from_millis(at), Duration::from_millis(at - 1));
    }
    let render = Telemetry::new().render(&Scrape { mesh: Arc::new(mesh), ..scrape(vec![reading(), shard]) });
    for (thread, le, expected) in [
        ("shard-0", "+Inf", 0.0),
        ("shard-1", "0.001", 0.0),
        ("shard-1", "0.0025", 1.0),
        ("shard-1", "0.1", 1.0),
        ("shard-1", "0.5", 2.0),
        ("mesh", "0.001", 2.0),
    ] {
        let series = format!("peerpigeon_turn_seconds_bucket{{thread=\"{thread}\",le=\"{le}\"}}");
        assert_eq!(value(&render, &series), expected, "{series}");
    }
    assert_eq!(value(&render, "peerpigeon_turn_seconds_count{thread=\"shard-1\"}"), 2.0);
    assert!((value(&render, "peerpigeon_turn_seconds_sum{thread=\"shard-1\"}") - 0.202).abs() < 1e-9);
}

#[test]
fn two_hubs_in_one_process_have_separate_numbers() {
    let mut busy = reading();
    busy.io.handshakes = 5;
    let (one, other) = (Telemetry::new(), Telemetry::new());
    assert_eq!(value(&one.render(&scrape(vec![busy])), "peerpigeon_handshakes_total"), 5.0);
    assert_eq!(value(&other.render(&scrape(vec![reading()])), "peerpigeon_handshakes_total"), 0.0);
}

#[test]
fn a_counter_does_not_go_back() {
    let mut later = reading();
    later.io.handshakes = 5;
    let telemetry = Telemetry::new();
    telemetry.render(&scrape(vec![later]));
    let render = telemetry.render(&scrape(vec![reading()]));
    assert_eq!(value(&render, "peerpigeon_handshakes_total"), 5.0);
}

#[test]
fn repeated_scrapes_are_equal() {
    let telemetry = Telemetry::new();
    let scrape = scrape(vec![reading(), reading()]);
    let shape = |render: &str| {
        let series = render
            .lines()
            .map(|line| if line.starts_with('#') { line } else { line.rsplit_once(' ').map_or("", |(s, _)| s) });
        series.map(str::to_owned).collect::<Vec<_>>()
    };
    let first = shape(&telemetry.render(&scrape));
    for _ in 0..100 {
        assert_eq!(shape(&telemetry.render(&scrape)), first);
    }
}

/// Checks that docs/metrics.md lists exactly the metrics that a hub renders. With `BLESS=1`, this test writes the
/// tables.
#[test]
fn the_docs_list_all_metrics() {
    const BEGIN: &str = "<!-- metrics:begin -->\n";
    const END: &str = "<!-- metrics:end -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let docs = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = docs.split_once(BEGIN).unwrap();
    let (held, after) = rest.split_once(END).unwrap();

    let families = read(&Telemetry::new().render(&scrape(vec![reading()])));
    let mut names: Vec<&String> = families.keys().collect();
    names.sort_by_key(|name| catalog::ALL.iter().position(|metric| metric.name == *name));
    let mut table = "| Metric | Type | Labels | What it is |\n|---|---|---|---|\n".to_owned();
    let mut values = "| Metric | Label | Values |\n|---|---|---|\n".to_owned();
    for name in names {
        let Family { help, kind, labels, .. } = &families[name];
        let own: Vec<_> = labels.iter().filter(|(label, _)| *label != "le").collect();
        let listed: Vec<_> = own.iter().map(|(label, _)| format!("`{label}`")).collect();
        let _ = writeln!(table, "| `{name}` | {kind} | {} | {help} |", listed.join(", "));
        for (label, taken) in own.iter().filter(|(label, _)| !["commit", "shard", "version"].contains(&label.as_str()))
        {
            let taken: Vec<_> = taken.iter().map(|value| format!("`{value}`")).collect();
            let _ = writeln!(values, "| `{name}` | `{label}` | {} |", taken.join(", "));
        }
    }
    let expected = format!(
        "{table}\n## Labels\n\n`shard` is the number of the shard, from 0. `version` and `commit` are those of the \
            program. The table lists all other\nlabels.\n\n{values}"
    );
    if std::env::var_os("BLESS").is_some_and(|bless| bless == "1") {
        std::fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
    } else {
        assert!(
            held == expected,
            "docs/metrics.md: run the tests once with BLESS=1. The tables should be:\n{expected}"
        );
    }
}

#[test]
fn the_numbers_of_mesh_and_shards_are_added() {
    use proto::{HubId, LinkId};
    let mut shard = reading();
    shard.router.delivered = 5;
    shard.router.latency[0] = 1;
    let link = |id, dialed, saturated| ::mesh::LinkView {
        link: LinkId(id),
        hub: Some(HubId(PeerId::from_bytes([1; 20]))),
        address: ([127, 0, 0, 1], 1).into(),
        url: None,
        dialed,
        ready: id != 4,
        rtt: Some(Duration::from_millis(id)),
        bytes: [0; 2],
        queued_bytes: 10,
        saturated,
        legacy: false,
        auth: proto::LinkAuth::Token,
        since: Duration::ZERO,
    };
    let mut mesh = MeshReading {
        links: vec![link(1, true, false), link(20, true, true), link(3, false, false), link(4, false, false)],
        bridge: Some(::mesh::BridgeView {
            connected: true,
            published: 8,
            stale: [3, 5],
            one_way: vec![proto::HubId(proto::PeerId::from_bytes([1; 20]))],
            ..Default::default()
        }),
        busy_micros: 2_500_000,
        ..MeshReading::default()
    };
    mesh.relay.delivered = 7;
    shard.router.forwarded = 8;
    mesh.relay.forwarded_to_go = 3;
    mesh.relay.latency[0] = 2;
    mesh.relay.sent[proto::envelope::EnvelopeKind::Signal as usize] = 6;
    mesh.relay.snapshots = [3, 4];
    mesh.relay.links_silent = 1;
    mesh.relay.link_silences = 11;
    mesh.relay.routes_avoided = 12;
    mesh.relay.presence_lag_ms = 250;
    mesh.relay.unreconciled_hubs = 2;
    mesh.io.queued_bytes = 30;
    mesh.io.ended[::mesh::LinkEnd::Silent as usize] = 9;

    let render = Telemetry::new().render(&Scrape { mesh: Arc::new(mesh), ..scrape(vec![shard]) });
    for (series, expected) in [
        ("peerpigeon_relay_outcomes_total{outcome=\"delivered\"}", 12.0),
        ("peerpigeon_relay_outcomes_total{outcome=\"forwarded\"}", 11.0),
        ("peerpigeon_relay_latency_seconds_count", 3.0),
        ("peerpigeon_links{direction=\"out\"}", 2.0),
        ("peerpigeon_links{direction=\"in\"}", 1.0),
        ("peerpigeon_links_saturated", 1.0),
        ("peerpigeon_links_silent", 1.0),
        ("peerpigeon_link_silences_total", 11.0),
        ("peerpigeon_mesh_routes_avoided_total", 12.0),
        ("peerpigeon_link_queued_bytes", 30.0),
        ("peerpigeon_link_rtt_seconds", 0.02),
        ("peerpigeon_link_ends_total{reason=\"silent\"}", 9.0),
        ("peerpigeon_mesh_envelopes_total{direction=\"out\",kind=\"signal\"}", 6.0),
        ("peerpigeon_mesh_snapshots_total{direction=\"out\"}", 3.0),
        ("peerpigeon_mesh_snapshots_total{direction=\"in\"}", 4.0),
        ("peerpigeon_mesh_presence_lag_seconds", 0.25),
        ("peerpigeon_mesh_unsettled_hubs", 2.0),
        ("peerpigeon_mesh_busy_seconds_total", 2.5),
        ("peerpigeon_redis_connected", 1.0),
        ("peerpigeon_redis_frames_total{direction=\"out\"}", 8.0),
        ("peerpigeon_redis_stale_total{reason=\"unanswered\"}", 3.0),
        ("peerpigeon_redis_stale_total{reason=\"repeated\"}", 5.0),
        ("peerpigeon_redis_one_way_hubs", 1.0),
    ] {
        assert_eq!(value(&render, series), expected, "{series}");
    }
}
