//! Tests of the screens, with pages as a hub sends them. With `BLESS=1`, these tests write the snapshots.

use std::path::Path;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::draw;
use super::history::History;
use super::model::{HISTORY, Hub, Model, Network, Screen, Sort, Wish};
use super::once;
use super::page::Page;
use super::sample::{Failure, Fault, MetricsJson, Roster, Sample, View, long_time, millis};
use super::{Args, Polls, SHORTEST_INTERVAL};

/// The page /metrics of a hub with this number of peers, at this second.
fn metrics(peers: u32, second: u32, more: &str) -> String {
    let signals = second * 120;
    format!(
        "peerpigeon_connections {peers}\npeerpigeon_max_connections 1000\npeerpigeon_peers {peers}\n\
         peerpigeon_networks 2\npeerpigeon_ready 1\npeerpigeon_uptime_seconds {}\n\
         peerpigeon_build_info{{version=\"2.1.0\",commit=\"abc\"}} 1\npeerpigeon_mesh_remote_peers 7\n\
         peerpigeon_messages_total{{direction=\"in\",type=\"offer\"}} {signals}\n\
         peerpigeon_messages_total{{direction=\"in\",type=\"ping\"}} {second}\n\
         peerpigeon_messages_total{{direction=\"out\",type=\"offer\"}} {signals}\n\
         peerpigeon_relay_outcomes_total{{outcome=\"delivered\"}} {signals}\n\
         peerpigeon_relay_outcomes_total{{outcome=\"peer-not-found\"}} {second}\n\
         peerpigeon_relay_latency_seconds_bucket{{le=\"0.001\"}} {signals}\n\
         peerpigeon_relay_latency_seconds_bucket{{le=\"+Inf\"}} {signals}\n\
         peerpigeon_turn_seconds_bucket{{thread=\"shard-0\",le=\"0.0001\"}} {signals}\n\
         peerpigeon_turn_seconds_bucket{{thread=\"shard-0\",le=\"+Inf\"}} {signals}\n\
         peerpigeon_shard_sessions{{shard=\"0\"}} {peers}\n\
         peerpigeon_shard_busy_seconds_total{{shard=\"0\"}} {}\npeerpigeon_mesh_busy_seconds_total 0\n\
         peerpigeon_links 1\nprocess_resident_memory_bytes 31000000\nprocess_cpu_seconds_total {}\n{more}",
        3600 + second,
        f64::from(second) * 0.25,
        f64::from(second) * 0.3,
    )
}

const HUBSTATS: &str = r#"{"bootstrapHubs":[{"attemptNumber":1,"connected":true,"lastAttempt":1,"uri":"ws://b:80/"}],
    "connectedHubs":1,"foundHubs":[],"hubs":[{"PeerId":"bb","state":"live","peers":7,"rttMs":1.5,"status":{"adminUrl":null,"busiestShard":420,
    "connections":8,"cpu":512,"maxConnections":1000,"memory":31000000,"signals":93,"version":"2.1.0"}}],"lostHubs":[],
    "links":[{"address":"10.0.0.2:80","dialed":true,"hub":"bbbbbbbbbbbbbbbb","legacy":false,"queuedBytes":0,
    "ready":true,"rttMs":1.5,"saturated":false,"url":"ws://b:80/"}],"redis":null,"totalHubs":1}"#;

fn sample(metrics: &str, hubstats: &str) -> Sample {
    let flooder = if hubstats == HUBSTATS { "null" } else { r#"{"peer":"ffff\u001b[2J","refused":570}"# };
    let networks = format!(r#"{{"peers":{{"flooder":{flooder},"networks":{{"lobby":9,"a\u001b[2Jb":2}},"total":9}}}}"#);
    let (flooder, networks) = serde_json::from_str::<MetricsJson>(&networks).unwrap().parts();
    Sample {
        page: Page::parse(metrics),
        read: Instant::now(),
        history: None,
        hubstats: serde_json::from_str(hubstats).unwrap(),
        stats: serde_json::from_str(r#"{"hubPeerId":"aaaaaaaaaaaaaaaa"}"#).unwrap(),
        answer: if hubstats == HUBSTATS { Duration::from_millis(2) } else { Duration::from_millis(310) },
        flooder,
        networks,
    }
}

/// Three hubs. The first hub is healthy, the second hub has every fault, and the third hub is not reached.
fn model() -> Model {
    let mut model = Model::new(["http://a:8082/", "https://b.example:8082", "http://c"], Sort::Given);
    let troubled = HUBSTATS
        .replace("\"rttMs\":1.5,\"saturated\":false", "\"rttMs\":301.0,\"saturated\":true")
        .replace("\"connected\":true,", "\"connected\":false,\"lastError\":\"connection refused\",")
        .replace(
            "\"redis\":null",
            r#""redis":{"address":"r:6379","connected":false,"lastError":"this Redis is a replica","oneWay":[]}"#,
        );
    for second in 0..30 {
        let well = sample(&metrics(9, second, ""), HUBSTATS);
        let faults = format!(
            "peerpigeon_tls_certificate_days_left{{file=\"/tls/tls.crt\"}} 1.5\n\
             peerpigeon_rate_limited_total{{budget=\"messages\",owner=\"peer\"}} {}\npeerpigeon_closes_total{{reason=\"rate-limited\"}} {}\n\
             peerpigeon_turn_seconds_bucket{{thread=\"shard-1\",le=\"0.25\"}} {}\n\
             peerpigeon_turn_seconds_bucket{{thread=\"shard-1\",le=\"+Inf\"}} {}\n\
             peerpigeon_shard_sessions{{shard=\"1\"}} 3\npeerpigeon_shard_busy_seconds_total{{shard=\"1\"}} {}\n",
            second * 19,
            second,
            second * 10_000,
            second * 10_000,
            f64::from(second) * 0.97
        );
        model.hubs[0].polled(Ok(well), 1.0);
        model.hubs[1].polled(Ok(sample(&metrics(12, second + second * second / 60, &faults), &troubled)), 1.0);
        model.hubs[2].polled(Err(Failure::Down("Connection refused".to_owned())), 1.0);
        model.polled();
    }
    model
}

fn screen(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(model, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let lines = (0..height).map(|y| {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

/// Compares the screen with a file.
fn is_as(name: &str, shown: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cmd/top/screens").join(name);
    if std::env::var_os("BLESS").is_some_and(|bless| bless == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, shown).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == shown, "{name} changed: run the test with BLESS=1 if it should. It is now:\n{shown}");
}

fn press(model: &mut Model, keys: &str) {
    for key in keys.chars() {
        assert_eq!(model.key(KeyEvent::new(code(key), KeyModifiers::NONE)), Wish::Nothing);
    }
}

fn code(key: char) -> KeyCode {
    match key {
        '\n' => KeyCode::Enter,
        '<' => KeyCode::Esc,
        key => KeyCode::Char(key),
    }
}

#[test]
fn the_screens_match_their_snapshots() {
    let mut model = model();
    is_as("hubs.txt", &screen(&model, 110, 24));
    press(&mut model, "j\n");
    is_as("hub.txt", &screen(&model, 110, 40));
    press(&mut model, "<n");
    is_as("networks.txt", &screen(&model, 80, 10));
    assert_eq!(model.key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE)), Wish::Poll);
    assert_eq!(model.wanted_roster(), Some((0, "lobby".to_owned())));
    is_as("network-reads.txt", &screen(&model, 80, 18));
    model.roster = Some((0, Ok(roster())));
    press(&mut model, "j");
    is_as("network.txt", &screen(&model, 80, 24));
    model.roster = Some((0, Err("/dashboard/network answers 403 Forbidden: names are only for operators".to_owned())));
    is_as("network-refused.txt", &screen(&model, 80, 18));
    press(&mut model, "?");
    is_as("help.txt", &screen(&model, 80, 20));
}

#[test]
fn text_for_scripts_has_a_line_for_each_hub_and_each_fault() {
    is_as("once.txt", &once::text(&model()));
}

/// A roster of three members. One member is at the asked hub, one is at a hub that is not watched, and one has a
/// strange id.
fn roster() -> Roster {
    let members = r#"{"network":"lobby","count":9,"members":[{"peer":"1111111111111111111111111111111111111111","since":784111777000},
        {"peer":"2222222222222222222222222222222222222222","hub":"bbbbbbbbbbbbbbbb"},{"peer":"3\u001b[2J","hub":"c","since":18446744073709551615}]}"#;
    serde_json::from_str(members).unwrap()
}

#[test]
fn every_fault_is_named() {
    let faults: Vec<String> = model().hubs[1].faults().into_iter().map(|fault| fault.text).collect();
    let faults = faults.join("\n");
    for words in [
        "the link from hub aaaaaaaa to hub bbbbbbbb (dialed at ws://b:80/) is slow: a round trip takes 301 ms",
        "is full",
        "connection refused",
        "replica",
        "expires in 1.5 days",
        "peers flood it: 551 messages above MESSAGE_RATE were refused and 29 peers were disconnected (a flooder that",
        "in the last 29 s. Peer ffff",
        "starves: its threads were awake for 142 % of a core, and ran for 54 %",
    ] {
        assert!(faults.contains(words), "{words} is missing:\n{faults}");
    }
    for words in ["answers in", "longer than 25 ms"] {
        assert!(!faults.contains(words), "{words} is an effect of the starvation:\n{faults}");
    }
    assert_eq!(model().hubs[0].faults(), []);
}

#[test]
fn times_are_in_their_largest_unit() {
    let millis = [0.0004, 0.0094, 0.25, 0.9994, 2.5, 10.0].map(millis);
    assert_eq!(millis, ["0.4 ms", "9.4 ms", "250 ms", "999 ms", "2.5 s", "10 s"]);
    let times = [102, 120, 7199, 7200, 172_800].map(|seconds| long_time(Duration::from_secs(seconds)));
    assert_eq!(times, ["102 s", "2 min", "119 min", "2 h", "2 d"]);
    let mut model = model();
    model.hubs[0].polled(Ok(sample("peerpigeon_ready 1\npeerpigeon_uptime_seconds 102\n", HUBSTATS)), 1.0);
    press(&mut model, "\n");
    let shown = screen(&model, 110, 40);
    assert!(shown.contains("outcomes  none\n") && shown.contains("up 102 s\n"), "{shown}");
}

#[test]
fn a_slow_link_is_one_fault_with_both_hubs_and_the_dialed_address() {
    let slow = HUBSTATS.replace("\"rttMs\":1.5,\"saturated\"", "\"rttMs\":301.0,\"saturated\"");
    let known = slow.replace("\"PeerId\":\"bb\"", "\"PeerId\":\"bbbbbbbbbbbbbbbb\",\"url\":\"ws://b:81\"");
    let far = slow
        .replace("\"dialed\":true,\"hub\":\"bbbbbbbbbbbbbbbb\"", "\"dialed\":false,\"hub\":\"aaaaaaaaaaaaaaaa\"")
        .replace("\"url\":\"ws://b:80/\"", "\"url\":null");
    let mut model = Model::new(["http://a", "http://b"], Sort::Given);
    let of = |hubstats: &str| Sample { answer: Duration::ZERO, ..sample(&metrics(9, 1, ""), hubstats) };
    let mut there = of(&far);
    there.stats.hub_peer_id = "bbbbbbbbbbbbbbbb".to_owned();
    model.hubs[1].polled(Ok(there), 0.0);
    let texts = |model: &Model| model.faults().into_iter().map(|(_, fault)| fault.text).collect::<Vec<_>>();
    let accepted = "the link from hub aaaaaaaa (10.0.0.2:80) to this hub is slow: a round trip takes 301 ms";
    assert_eq!(texts(&model), [accepted]);
    model.hubs[0].polled(Ok(of(&known)), 0.0);
    let dialed = "the link from hub aaaaaaaa to hub bbbbbbbb (dialed at ws://b:80/; the hub's own URL is \
                  ws://b:81, so a proxy may be between) is slow: a round trip takes 301 ms";
    assert_eq!(texts(&model), [dialed]);
    model.hubs[0].polled(Ok(of(&known.replace("ws://b:81", "ws://b:80"))), 0.0);
    assert_eq!(
        texts(&model),
        ["the link from hub aaaaaaaa to hub bbbbbbbb (dialed at ws://b:80/) is slow: a round trip takes 301 ms"]
    );
}

#[test]
fn no_size_of_the_terminal_and_no_name_puts_a_control_character_on_the_screen() {
    let mut model = model();
    for keys in ["", "\n", "<j\n", "<jj\n", "<n", "\n", "?"] {
        keys.chars().for_each(|key| _ = model.key(KeyEvent::new(code(key), KeyModifiers::NONE)));
        if matches!(model.screen, Screen::Network(_)) {
            model.roster = Some((0, Ok(roster())));
        }
        for (width, height) in [(1, 1), (10, 3), (40, 8), (300, 100)] {
            assert!(!screen(&model, width, height).replace('\n', "").contains(char::is_control));
        }
    }
}

#[test]
fn keys_sort_select_and_go_back() {
    let mut model = model();
    press(&mut model, "s");
    // A hub that is not reached comes first.
    assert_eq!((model.sort, model.order()), (Sort::Peers, vec![2, 1, 0]));
    press(&mut model, "r");
    assert_eq!(model.order(), [0, 1, 2]);
    press(&mut model, "jjjjk\n");
    assert_eq!(model.screen, Screen::Hub(1));
    press(&mut model, "<");
    assert_eq!((&model.screen, model.selected), (&Screen::Hubs, 0));
    press(&mut model, "nj");
    assert_eq!(model.key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE)), Wish::Poll);
    assert_eq!(model.screen, Screen::Network("a\u{1b}[2Jb".to_owned()));
    model.roster = Some((0, Ok(roster())));
    press(&mut model, "jjjjjj");
    assert_eq!(model.selected, 2);
    // The list of another network is not shown.
    press(&mut model, "<");
    assert_eq!(model.roster, None);
    press(&mut model, "j");
    assert_eq!(model.key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE)), Wish::Poll);
    press(&mut model, "<<");
    assert_eq!(model.screen, Screen::Hubs);
    assert_eq!(model.key(KeyEvent::new(KeyCode::Char(' '), KeyModifiers::NONE)), Wish::Poll);
    assert_eq!(model.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Wish::Quit);
    assert_eq!(model.key(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE)), Wish::Quit);
}

#[test]
fn histories_are_bounded() {
    let mut model = model();
    for second in 0..200 {
        model.hubs[0].polled(Ok(sample(&metrics(9, second, ""), HUBSTATS)), 1.0);
        model.polled();
    }
    assert_eq!(model.hubs[0].signals.last(usize::MAX).len(), HISTORY);
    assert_eq!(model.members("lobby").unwrap().last(usize::MAX).len(), HISTORY);
    press(&mut model, "nj");
    assert_eq!(model.selected, 1);
    for hub in &mut model.hubs {
        hub.last = None;
    }
    model.polled();
    assert!(model.members("lobby").is_none() && model.networks.is_empty());
    assert_eq!(model.selected, 0);
}

#[test]
fn a_network_has_the_greatest_number_of_members_that_a_hub_knows() {
    for counts in [[3, 5], [5, 3]] {
        let mut model = Model::new(["http://a", "http://b"], Sort::Given);
        for (hub, count) in model.hubs.iter_mut().zip(counts) {
            let networks = [("n".to_owned(), count)].into();
            hub.polled(Ok(Sample { networks, ..sample("", HUBSTATS) }), 1.0);
        }
        model.polled();
        assert_eq!(model.networks, [Network { name: "n".to_owned(), members: 5 }]);
    }
}

#[test]
fn every_key_closes_the_help_and_does_nothing_else() {
    let mut model = model();
    press(&mut model, "?");
    assert!(model.has_help);
    press(&mut model, "q");
    assert!(!model.has_help);
    assert_eq!(model.key(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE)), Wish::Quit);
}

#[test]
fn sparklines_are_relative_to_their_highest_bar() {
    assert_eq!(draw::spark(&[0, 1, 4, 8]), "▁▂▅█");
    assert_eq!(draw::spark(&[0, 0]), "▁▁");
    let parts: Vec<_> = ('a'..='g').map(|part| (part.to_string(), 1.0)).collect();
    assert_eq!((draw::parts(&parts), draw::parts(&[])), ("a 1, b 1, c 1, d 1, e 1, f 1".to_owned(), "none".to_owned()));
    let compact = [0.0, 0.4, 9.0, 12.3, 999.0, 1500.0, 2.5e6, 3e9].map(draw::compact);
    assert_eq!(compact, ["0", "0.4", "9", "12", "999", "1.5k", "2.5M", "3.0G"]);
}

/// The faults of a hub whose pages were read twice, a second apart. `more` returns further lines of /metrics for the
/// first and the second poll.
fn faults_of(hubstats: &str, more: impl Fn(u32) -> String, change: impl Fn(&mut Sample)) -> Vec<&'static str> {
    let mut hub = Hub::new("http://a");
    for poll in 0..2 {
        let mut sample = Sample { answer: Duration::ZERO, ..sample(&metrics(9, poll, &more(poll)), hubstats) };
        change(&mut sample);
        hub.polled(Ok(sample), 1.0);
    }
    hub.faults().into_iter().map(|fault| fault.alert).collect()
}

/// The value of a counter or of a gauge. `+5` means a counter that is five higher at the second poll.
fn grown(value: &str, poll: u32) -> String {
    match value.strip_prefix('+') {
        Some(grown) => (grown.parse::<f64>().unwrap() * f64::from(poll)).to_string(),
        None => value.to_owned(),
    }
}

#[test]
fn each_fault_is_found_alone_and_only_beyond_its_limit() {
    let metric = |line: &'static str, alert: &'static str| {
        let (name, values) = line.rsplit_once(' ').unwrap();
        let (well, bad) = values.split_once('|').unwrap();
        let faults = |value: &str| faults_of(HUBSTATS, |poll| format!("{name} {}\n", grown(value, poll)), |_| ());
        assert_eq!(faults(well), [""; 0], "{name} {well}");
        assert_eq!(faults(bad), [alert], "{name} {bad}");
    };
    for (line, alert) in [
        ("peerpigeon_full 0|1", "PeerPigeonFull"),
        ("peerpigeon_bugs_total{site=\"x\"} 0|1", "PeerPigeonBug"),
        ("peerpigeon_tls_certificate_days_left{file=\"a\"} 14|13.9", "PeerPigeonCertificateExpires"),
        ("peerpigeon_tls_certificate_days_left{file=\"a\"} 60|2.9", "PeerPigeonCertificateExpiresNow"),
        ("peerpigeon_tls_certificate_days_left{file=\"a\"} 60|-0.1", "PeerPigeonCertificateExpiresNow"),
        ("peerpigeon_links_silent 0|1", "PeerPigeonPresenceLate"),
        ("peerpigeon_oldest_turn_seconds 10|11", "PeerPigeonThreadStuck"),
        ("peerpigeon_closes_total{reason=\"rate-limited\"} +0|+1", "PeerPigeonRateLimited"),
        ("peerpigeon_closes_total{reason=\"slow-consumer\"} +0|+1", "PeerPigeonSlowConsumers"),
        ("peerpigeon_closes_total{reason=\"connection-lost\"} +4|+5", "PeerPigeonPeersLost"),
        ("peerpigeon_closes_total{reason=\"dead-peer\"} +4|+5", "PeerPigeonPeersLost"),
        ("peerpigeon_rate_limited_total{budget=\"bytes\",owner=\"network\"} +0|+1", "PeerPigeonRateLimited"),
        ("peerpigeon_rate_limited_total{budget=\"errors\",owner=\"peer\"} +0|+1", "PeerPigeonRateLimited"),
    ] {
        metric(line, alert);
    }
    let lines = |more: &'static str| faults_of(HUBSTATS, |_| more.to_owned(), |_| ());
    for (whole, part, alert) in [
        ("peerpigeon_announce_budget_bytes", "peerpigeon_announced_bytes", "PeerPigeonAnnouncedNearlyFull"),
        ("peerpigeon_send_budget_bytes", "peerpigeon_session_queued_bytes{shard=\"0\"}", "PeerPigeonQueuesFill"),
        ("peerpigeon_memory_limit_bytes", "process_resident_memory_bytes", "PeerPigeonMemoryHigh"),
        ("process_max_fds", "process_open_fds", "PeerPigeonFilesShort"),
    ] {
        let faults = |used: u64| faults_of(HUBSTATS, |_| format!("{whole} 1000000000\n{part} {used}\n"), |_| ());
        // The page of `metrics` already shows 31 MB of resident memory.
        assert_eq!(faults(860_000_000), [""; 0], "{part}");
        assert_eq!(faults(910_000_000), [alert], "{part}");
    }
    // Without a limit there is no fault.
    assert_eq!(lines("process_open_fds 9999\n"), [""; 0]);
    assert_eq!(lines("peerpigeon_connections 991\n"), ["PeerPigeonNearlyFull"]);

    // A hub that starts or drains is not also reported as full.
    let page = metrics(9, 1, "peerpigeon_full 1\n").replace("peerpigeon_ready 1", "peerpigeon_ready 0");
    assert_eq!(
        faults_of(HUBSTATS, |_| String::new(), |sample| sample.page = Page::parse(&page)),
        ["PeerPigeonNotReady"]
    );
    let answer = |ms| faults_of(HUBSTATS, |_| String::new(), move |sample| sample.answer = Duration::from_millis(ms));
    assert_eq!((answer(250), answer(251)), (vec![], vec!["PeerPigeonTurnsLong"]));

    let stats = |from: &str, to: &str| {
        let changed = HUBSTATS.replace(from, to);
        assert_ne!(changed, HUBSTATS);
        faults_of(&changed, |_| String::new(), |_| ())
    };
    assert_eq!(stats(r#""rttMs":1.5,"saturated""#, r#""rttMs":150.0,"saturated""#), [""; 0]);
    assert_eq!(stats(r#""rttMs":1.5,"saturated""#, r#""rttMs":151.0,"saturated""#), ["PeerPigeonSignalsSlow"]);
    assert_eq!(stats(r#""saturated":false"#, r#""saturated":true"#), ["PeerPigeonLinksFull"]);
    assert_eq!(stats(r#""connected":true,"#, r#""connected":false,"#), ["PeerPigeonMeshIncomplete"]);
    assert_eq!(stats(r#""connected":true,"#, r#""connected":false,"own":true,"#), [""; 0]);
    assert_eq!(
        stats(r#""foundHubs":[]"#, r#""foundHubs":[{"connected":false,"uri":"ws://c"}]"#),
        ["PeerPigeonMeshIncomplete"]
    );
    assert_eq!(stats(r#""lostHubs":[]"#, r#""lostHubs":[{"PeerId":"cc","state":"lost"}]"#), ["PeerPigeonHubLost"]);
    let redis = |text: &str| stats(r#""redis":null"#, &format!(r#""redis":{{"address":"r:6379",{text}}}"#));
    assert_eq!(redis(r#""connected":true,"oneWay":[]"#), [""; 0]);
    assert_eq!(redis(r#""connected":false,"oneWay":[]"#), ["PeerPigeonRedisDown"]);
    assert_eq!(redis(r#""connected":true,"oneWay":["dd"]"#), ["PeerPigeonRedisOneWay"]);
}

#[test]
fn a_hub_with_too_little_processor_time_is_reported_as_starved_and_not_as_busy() {
    // On the page of `metrics`, shard 0 is busy for 25 % of a core. The process runs for 30 %.
    let busy = |shard: f64, mesh: f64| {
        let more = move |poll: u32| {
            let (shard, mesh) = (shard * f64::from(poll), mesh * f64::from(poll));
            format!(
                "peerpigeon_shard_sessions{{shard=\"1\"}} 0\npeerpigeon_shard_busy_seconds_total{{shard=\"1\"}} {shard}\n\
                 peerpigeon_mesh_busy_seconds_total {mesh}\n"
            )
        };
        faults_of(HUBSTATS, more, |_| ())
    };
    assert_eq!(busy(0.2, 0.0), [""; 0]);
    assert_eq!(busy(0.3, 0.0), ["PeerPigeonTurnsLong"]);
    assert_eq!(busy(0.0, 0.3), ["PeerPigeonTurnsLong"]);
    let runs = |shard: f64, mesh: f64| {
        let page = |poll: u32| {
            let (shard, mesh, poll) = (shard * f64::from(poll), mesh * f64::from(poll), f64::from(poll));
            format!(
                "peerpigeon_ready 1\npeerpigeon_shard_sessions{{shard=\"0\"}} 1\nprocess_cpu_seconds_total {poll}\n\
                 peerpigeon_shard_busy_seconds_total{{shard=\"0\"}} {shard}\npeerpigeon_mesh_busy_seconds_total {mesh}\n"
            )
        };
        let mut hub = Hub::new("http://a");
        for poll in 0..2 {
            hub.polled(Ok(Sample { answer: Duration::ZERO, ..sample(&page(poll), HUBSTATS) }), 1.0);
        }
        hub.faults().into_iter().map(|fault| fault.alert).collect::<Vec<_>>()
    };
    // Threads that are awake for less than 30 % of a core can starve without consequences.
    let awake = |shard: f64| {
        let page = |poll: u32| {
            let shard = shard * f64::from(poll);
            format!(
                "peerpigeon_ready 1\npeerpigeon_shard_sessions{{shard=\"0\"}} 1\npeerpigeon_shard_busy_seconds_total{{shard=\"0\"}} {shard}\n"
            )
        };
        let mut hub = Hub::new("http://a");
        for poll in 0..2 {
            hub.polled(Ok(Sample { answer: Duration::ZERO, ..sample(&page(poll), HUBSTATS) }), 1.0);
        }
        hub.faults().into_iter().map(|fault| fault.alert).collect::<Vec<_>>()
    };
    assert_eq!((awake(0.29), awake(0.31)), (vec![], vec!["PeerPigeonTurnsLong"]));
    assert_eq!(runs(0.9, 0.0), [""; 0]);
    assert_eq!(runs(0.91, 0.0), ["PeerPigeonShardBusy"]);
    assert_eq!(runs(0.0, 0.91), ["PeerPigeonMeshBusy"]);
}

#[test]
fn rates_cover_the_time_since_the_last_sample() {
    let page = |second: u32| {
        let busy = f64::from(second) * 0.75;
        let more = format!(
            "peerpigeon_closes_total{{reason=\"rate-limited\"}} {second}\n\
             peerpigeon_shard_sessions{{shard=\"1\"}} 0\npeerpigeon_shard_busy_seconds_total{{shard=\"1\"}} {busy}\n\
             peerpigeon_mesh_busy_seconds_total {}\n",
            second * 5
        );
        Sample { answer: Duration::ZERO, ..sample(&metrics(9, second, &more), HUBSTATS) }
    };
    let mut model = Model::new(["http://a"], Sort::Given);
    let (begin, mut polls) = (Instant::now(), Polls::default());
    let mut poll = |at: u64, result: Result<u32, Failure>| {
        let at = begin + Duration::from_secs(at);
        polls.take(&mut model, (vec![(at, result.map(page))], None));
        model.hubs[0].view.clone()
    };
    poll(0, Ok(0));
    let view = poll(2, Ok(2)).unwrap();
    let rates = |view: &View| (view.signals, view.shards[1].busy);
    assert_eq!(rates(&view), (121.0, 0.75));
    assert_eq!(view.shards[2].busy, 1.0, "a thread cannot be awake for more than the whole time");
    poll(9, Err(Failure::Slow));
    poll(16, Err(Failure::Slow));
    assert_eq!(rates(&poll(18, Ok(18)).unwrap()), (121.0, 0.75), "the failed polls do not shorten the time");
    assert_eq!(rates(&poll(20, Ok(20)).unwrap()), (121.0, 0.75));
}

#[test]
fn a_flood_counts_for_a_minute() {
    let page = |second: u32, refused: u32| {
        let more = format!(
            "peerpigeon_rate_limited_total{{budget=\"messages\",owner=\"peer\"}} {refused}\n\
             peerpigeon_closes_total{{reason=\"rate-limited\"}} {}\n",
            refused / 100
        );
        Ok(Sample { answer: Duration::ZERO, ..sample(&metrics(9, second, &more), HUBSTATS) })
    };
    let mut hub = Hub::new("http://a");
    let faults = |hub: &Hub| hub.faults().into_iter().map(|fault| fault.text).collect::<Vec<_>>().join("\n");
    for second in (0..100).step_by(2) {
        hub.polled(page(second, 0), 2.0);
    }
    assert_eq!(faults(&hub), "");
    hub.polled(page(100, 100), 2.0);
    let text = faults(&hub);
    assert!(text.contains("100 messages above MESSAGE_RATE were refused and 1 peer was disconnected ("), "{text}");
    // The flooder pauses, and then sends again with another id.
    for second in (102..150).step_by(2) {
        hub.polled(page(second, 100), 2.0);
        assert!(faults(&hub).contains("100 messages above"), "{second}");
    }
    hub.polled(page(150, 300), 2.0);
    assert!(faults(&hub).contains("300 messages above MESSAGE_RATE were refused and 3 peers were"), "{}", faults(&hub));
    for second in (152..220).step_by(2) {
        hub.polled(page(second, 300), 2.0);
    }
    assert_eq!(faults(&hub), "", "the flood has ended");
    // A restart ends the count.
    hub.polled(page(222, 400), 2.0);
    assert!(faults(&hub).contains("100 messages above"), "{}", faults(&hub));
    let young = metrics(9, 1, "").replace("uptime_seconds 3601", "uptime_seconds 1");
    hub.polled(Ok(Sample { answer: Duration::ZERO, ..sample(&young, HUBSTATS) }), 2.0);
    assert_eq!(faults(&hub), "");
}

#[test]
fn the_first_poll_counts_the_minute_before_it() {
    let event = |over: u32, exceeded: u32| {
        format!(
            "id: 1.2\nevent: sample\ndata: {{\"at\":1,\"over\":{over},\"exceeded\":{{\"messages\":{exceeded}}},\
             \"closes\":{{\"rate-limited\":1}},\"busy\":[500],\"meshBusy\":450,\"cpu\":100}}\n\n"
        )
    };
    let more = "peerpigeon_rate_limited_total{budget=\"messages\",owner=\"peer\"} 500\n\
                peerpigeon_closes_total{reason=\"rate-limited\"} 70\n";
    let faults = |events: &str| {
        let page = metrics(9, 1000, more).replace("mesh_busy_seconds_total 0", "mesh_busy_seconds_total 100");
        let history = Some(History::parse(events));
        let mut hub = Hub::new("http://a");
        hub.polled(Ok(Sample { answer: Duration::ZERO, history, ..sample(&page, HUBSTATS) }), 0.0);
        hub.faults().into_iter().map(|fault| fault.text).collect::<Vec<_>>()
    };
    assert_eq!(faults(""), [""; 0]);
    assert_eq!(faults("event: sample\ndata: {no json\n\nevent: line\ndata: {}\n\n"), [""; 0]);
    // The sample that ended 61 s ago is too old.
    let seconds = [event(1000, 400), event(1000, 2).repeat(60), "event: state\ndata: {}\n\n".to_owned()].concat();
    let found = faults(&seconds);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("starves: its threads were awake for 95 % of a core, and ran for 10 %"), "{found:?}");
    assert!(found[1].contains("120 messages above MESSAGE_RATE were refused and 60 peers"), "{found:?}");
    assert!(found[1].ends_with("in the last 60 s"), "{found:?}");
}

#[test]
fn connections_that_vanish_count_for_ten_minutes() {
    let page = |uptime: u32, vanished: u32, closed: u32| {
        let text = format!(
            "peerpigeon_ready 1\npeerpigeon_uptime_seconds {uptime}\n\
             peerpigeon_closes_total{{reason=\"connection-lost\"}} {vanished}\n\
             peerpigeon_closes_total{{reason=\"client-closed\"}} {closed}\n"
        );
        Ok(Sample { answer: Duration::ZERO, ..sample(&text, HUBSTATS) })
    };
    let is_found = |hub: &Hub| hub.faults().iter().any(|fault| fault.alert == "PeerPigeonPeersLost");
    // If the hub has started within the last ten minutes, all ends that the first poll finds count.
    let mut hub = Hub::new("http://a");
    hub.polled(page(600, 5, 2), 1.0);
    assert!(is_found(&hub));
    let mut hub = Hub::new("http://a");
    hub.polled(page(601, 5, 2), 1.0);
    assert!(!is_found(&hub));
    // Exactly two thirds of the ends have no close frame. The limit is more than two thirds.
    hub.polled(page(602, 15, 7), 1.0);
    assert!(!is_found(&hub));
    hub.polled(page(603, 16, 7), 1.0);
    assert!(is_found(&hub));
    hub.polled(page(1201, 16, 7), 598.0);
    assert!(is_found(&hub));
    hub.polled(page(1203, 16, 7), 2.0);
    assert!(!is_found(&hub), "ends count for ten minutes");
    // A restart begins a new count.
    hub.polled(page(1, 0, 0), 1.0);
    hub.polled(page(2, 5, 0), 1.0);
    assert!(is_found(&hub));
    for second in 0..1000 {
        hub.polled(page(second, 5, 0), 0.1);
    }
    assert!(!is_found(&hub), "the ends before the last polls do not count");
}

#[test]
fn polls_are_not_faster_than_the_shortest_interval() {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    let interval = |text| {
        let line = <Line as clap::Parser>::parse_from(["top", "--interval", text, "http://a"]);
        line.args.watch(&|_| None).unwrap().interval
    };
    assert_eq!((interval("1ms"), interval("3s")), (SHORTEST_INTERVAL, Duration::from_secs(3)));
}

#[test]
fn pages_that_change_slowly_are_read_in_every_fifth_poll() {
    let (model, mut polls) = (model(), Polls::default());
    let mut known = || polls.asks(&model).iter().map(|(known, _)| known.is_some()).collect::<Vec<_>>();
    for _ in 0..2 {
        assert_eq!(known(), [false; 3]);
        // The second hub is flooded, and the third hub was never reached.
        (0..4).for_each(|_| assert_eq!(known(), [true, false, false]));
    }
}

/// The view of a hub whose pages were read twice, a second apart. `more` returns further lines of /metrics.
fn view_of(more: impl Fn(u32) -> String) -> View {
    let mut hub = Hub::new("http://a");
    for poll in 0..2 {
        hub.polled(Ok(sample(&metrics(9, poll, &more(poll)), HUBSTATS)), 1.0);
    }
    hub.view.unwrap()
}

#[test]
fn forwarded_signals_are_not_lost_and_the_longest_turns_count() {
    let view = view_of(|poll| {
        format!(
            "peerpigeon_relay_outcomes_total{{outcome=\"forwarded\"}} {}\n\
             peerpigeon_turn_seconds_bucket{{thread=\"mesh\",le=\"0.005\"}} {poll}\n\
             peerpigeon_turn_seconds_bucket{{thread=\"mesh\",le=\"+Inf\"}} {poll}\n",
            poll * 50
        )
    });
    assert_eq!((view.lost_signals, view.turn), (1.0, Some(0.005)));
    assert_eq!(millis(f64::INFINITY), ">10 s");
}

#[test]
fn memory_that_a_hub_cannot_read_is_shown_as_unknown() {
    let mut model = model();
    let page = metrics(9, 1, "").replace("process_resident_memory_bytes", "x");
    let hubstats = HUBSTATS.replace("\"memory\":31000000", "\"memory\":0");
    model.hubs[0].polled(Ok(sample(&page, &hubstats)), 1.0);
    press(&mut model, "\n");
    let shown = screen(&model, 110, 40);
    assert!(shown.contains("memory    -   cpu") && !shown.contains(" MB"), "{shown}");
}

#[test]
fn a_few_long_turns_are_no_fault() {
    let faults = |turns: u32| {
        let more = |poll: u32| {
            format!(
                "peerpigeon_turn_seconds_bucket{{thread=\"mesh\",le=\"0.025\"}} 0\n\
                 peerpigeon_turn_seconds_bucket{{thread=\"mesh\",le=\"+Inf\"}} {}\n",
                poll * turns
            )
        };
        let mut hub = Hub::new("http://a");
        for poll in 0..2 {
            let sample = sample(&metrics(9, poll, &more(poll)), HUBSTATS);
            hub.polled(Ok(Sample { answer: Duration::ZERO, ..sample }), 2.0);
        }
        hub.faults().into_iter().map(|fault| fault.alert).collect::<Vec<_>>()
    };
    assert_eq!((faults(3), faults(4)), (vec![], vec!["PeerPigeonTurnsLong"]));
}

#[test]
fn withheld_errors_are_a_flood_only_if_no_messages_are_refused() {
    let text = |errors: u32, messages: u32| {
        let more = move |poll: u32| {
            format!(
                "peerpigeon_rate_limited_total{{budget=\"errors\"}} {}\n\
                 peerpigeon_rate_limited_total{{budget=\"messages\"}} {}\n",
                poll * errors,
                poll * messages
            )
        };
        let faults = view_of(more).faults.into_iter().map(|fault| fault.text);
        faults.filter(|text| text.contains("flood")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(text(5, 0), "peers flood it: 5 invalid messages arrived in the last 1 s");
    assert_eq!(text(5, 3), "peers flood it: 3 messages above MESSAGE_RATE were refused in the last 1 s");
    assert_eq!(text(0, 0), "");
}

#[test]
fn a_hub_that_is_not_reached_has_a_fault_with_a_cause() {
    let mut hub = Hub::new("http://a");
    hub.polled(Err(Failure::Down("Connection refused".to_owned())), 1.0);
    assert_eq!(hub.faults()[0].alert, "PeerPigeonHubDown");
    hub.polled(Err(Failure::Down("TLS: invalid peer certificate: certificate expired: …".to_owned())), 1.0);
    assert_eq!(hub.faults()[0].alert, "PeerPigeonCertificateExpiresNow");
    let well = Sample { answer: Duration::ZERO, ..sample(&metrics(9, 1, ""), HUBSTATS) };
    hub.polled(Ok(well), 1.0);
    assert_eq!(hub.faults(), []);
}

#[test]
fn a_hub_that_does_not_answer_is_slow_before_it_is_down_and_shows_no_old_figures() {
    let mut model = model();
    assert!(screen(&model, 110, 24).contains("2 of 3 hubs, 1 down   21 peers"));
    let states = |model: &Model| model.hubs.iter().map(Hub::state).collect::<Vec<_>>();
    assert_eq!(states(&model), ["ready", "ready", "down"]);
    model.hubs[1].polled(Err(Failure::Slow), 12.0);
    model.hubs[0].polled(Err(Failure::Refused("401 Unauthorized: the token is wrong".to_owned())), 2.0);
    model.polled();
    assert_eq!(states(&model), ["refused", "slow", "down"]);
    let shown = screen(&model, 110, 24);
    assert!(shown.contains("0 of 3 hubs, 1 slow, 1 refused, 1 down   0 peers   0 signals/s"), "{shown}");
    assert!(shown.contains("b.example:8082: slow: no answer for 12 s") && !shown.contains("flood"), "{shown}");
    assert!(shown.contains("refuses to be watched: 401 Unauthorized: the token is wrong (last answer 2 s ago)"));
    assert!(!shown.contains("PeerPigeonHubDown\nb.") && !shown.contains("242"), "{shown}");
    let once = once::text(&model);
    assert!(once.contains("docs/operations.md#in-a-terminal"), "{once}");
    assert_eq!(model.hubs[1].faults().iter().map(|fault| fault.alert).collect::<Vec<_>>(), ["PeerPigeonTurnsLong"]);
    assert!(model.networks.is_empty());
    model.hubs[1].polled(Err(Failure::Slow), 18.0);
    assert_eq!((states(&model)[1], model.hubs[1].faults()[0].alert), ("down", "PeerPigeonHubDown"));
    model.hubs[1].polled(Ok(sample(&metrics(12, 1, ""), HUBSTATS)), 1.0);
    assert_eq!((states(&model)[1], model.hubs[1].faults()), ("ready", Vec::new()));
    // A refused connection is not slow.
    model.hubs[1].polled(Err(Failure::Down("Connection refused".to_owned())), 1.0);
    assert_eq!(states(&model)[1], "down");
}

#[test]
fn faults_link_to_paragraphs_of_the_runbook() {
    let runbook = include_str!("../../../docs/runbook.md");
    let sources = [include_str!("sample.rs"), include_str!("model.rs")];
    let names: Vec<_> =
        sources.iter().flat_map(|source| source.split('"')).filter(|text| text.starts_with("PeerPigeon")).collect();
    assert!(names.len() > 25, "{names:?}");
    for name in names {
        assert!(runbook.lines().any(|line| line.strip_prefix("### ") == Some(name)), "{name}");
    }
    let link = Fault::new("PeerPigeonHubDown", "").page();
    assert!(link.ends_with("/docs/runbook.md#peerpigeonhubdown"), "{link}");
}
