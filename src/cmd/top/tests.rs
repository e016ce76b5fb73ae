//! Tests of the screens, with pages as a hub sends them. With `BLESS=1`, this test writes the snapshots.

use std::path::Path;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::draw;
use super::model::{HISTORY, Model, Screen, Sort, Wish};
use super::once;
use super::page::Page;
use super::sample::{MetricsJson, Sample};

/// A page of a hub with this number of peers, at this second.
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
    let networks = r#"{"peers":{"networks":{"lobby":9,"a\u001b[2Jb":2},"total":9}}"#;
    Sample {
        page: Page::parse(metrics),
        hubstats: serde_json::from_str(hubstats).unwrap(),
        stats: serde_json::from_str(r#"{"hubPeerId":"aaaaaaaaaaaaaaaa","isRunning":true}"#).unwrap(),
        answer: if hubstats == HUBSTATS { Duration::from_millis(2) } else { Duration::from_millis(310) },
        networks: serde_json::from_str::<MetricsJson>(networks).unwrap().networks(),
    }
}

/// Three hubs: a healthy one, one with every fault, and one that is not reached.
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
             peerpigeon_errors_total{{code=\"rate-limited\"}} {}\npeerpigeon_closes_total{{reason=\"rate-limited\"}} {}\n\
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
        model.hubs[2].polled(Err("Connection refused".to_owned()), 1.0);
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
        let code = match key {
            '\n' => KeyCode::Enter,
            '<' => KeyCode::Esc,
            key => KeyCode::Char(key),
        };
        assert_eq!(model.key(KeyEvent::new(code, KeyModifiers::NONE)), Wish::Nothing);
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
    press(&mut model, "\n");
    is_as("network.txt", &screen(&model, 80, 16));
    press(&mut model, "?");
    is_as("help.txt", &screen(&model, 80, 20));
}

#[test]
fn text_for_scripts_has_a_line_for_each_hub_and_each_fault() {
    is_as("once.txt", &once::text(&model()));
}

#[test]
fn every_fault_is_named() {
    let faults = model().hubs[1].faults().join("\n");
    for words in [
        "answers in 310 ms",
        "301 ms",
        "is full",
        "connection refused",
        "replica",
        "1.5 days",
        "floods it",
        "shard 1 is busy",
        "shard-1 has 10000.0 turns",
    ] {
        assert!(faults.contains(words), "{words} is missing:\n{faults}");
    }
    assert_eq!(model().hubs[0].faults(), Vec::<String>::new());
}

#[test]
fn small_terminals_and_strange_names_do_no_harm() {
    let mut model = model();
    for keys in ["", "\n", "<j\n", "<jj\n", "<n", "\n", "?"] {
        press(&mut model, keys);
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
    press(&mut model, "nj\n");
    assert_eq!(model.screen, Screen::Network("a\u{1b}[2Jb".to_owned()));
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
    for hub in &mut model.hubs {
        hub.last = None;
    }
    model.polled();
    assert!(model.members("lobby").is_none() && model.networks.is_empty());
}

#[test]
fn sparklines_are_relative_to_their_highest_bar() {
    assert_eq!(draw::spark(&[0, 1, 4, 8]), "▁▂▅█");
    assert_eq!(draw::spark(&[0, 0]), "▁▁");
    let compact = [0.0, 0.4, 9.0, 12.3, 999.0, 1500.0, 2.5e6, 3e9].map(draw::compact);
    assert_eq!(compact, ["0", "0.4", "9", "12", "999", "1.5k", "2.5M", "3.0G"]);
}
