//! Tests of the text output of `peerpigeon top` for scripts, and of its screens in a pseudo-terminal.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::client::{Client, id};
use crate::hub::{Hub, command};
use crate::mesh::{free_port, mesh};

fn once(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = command(env).args(["top", "--once", "--interval", "300ms"]).args(args).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn url(hub: &Hub) -> String {
    format!("http://{}", hub.address)
}

#[test]
fn hubs_are_printed_for_scripts() {
    let hubs = mesh(2, &[]);
    let _peers = [Client::join(&hubs[0], 1, "lobby"), Client::join(&hubs[0], 2, "lobby")];
    hubs[0].metric_becomes("peerpigeon_members", |members| members == 2.0);
    let (here, there) = (url(&hubs[0]), url(&hubs[1]));
    let (code, text) = once(&[&there, &here, "--sort", "peers"], &[]);
    let lines: Vec<Vec<&str>> =
        text.lines().map(|line| line.split("  ").filter(|cell| !cell.is_empty()).collect()).collect();
    assert_eq!((code, lines[0][0].trim(), lines[0][2].trim()), (Some(0), "hub", "peers"), "{text}");
    assert_eq!((lines[1][0].trim(), lines[1][1].trim(), lines[1][2].trim()), (&here[7..], "ready", "2"), "{text}");
    assert_eq!((lines[2][0].trim(), lines[2][2].trim()), (&there[7..], "0"), "{text}");
    // A hub always has turns between two polls.
    assert!(lines[0][7].trim() == "turn" && lines[1][7].trim().ends_with(" ms"), "{text}");
    let dead = format!("http://127.0.0.1:{}", free_port());
    let (code, text) = once(&[&here, &dead], &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("fault: {}: not reached: ", &dead[7..])), "{text}");
}

#[test]
fn a_hub_with_a_token_requires_it() {
    let hub = Hub::start(&[("ADMIN_TOKEN", "of-the-operators")]);
    let (code, text) = once(&[&url(&hub)], &[]);
    assert!(code == Some(1) && text.contains("401 Unauthorized: give ADMIN_TOKEN or --token-file"), "{text}");
    let (code, text) = once(&[&url(&hub)], &[("ADMIN_TOKEN", "of-the-operators")]);
    assert!(code == Some(0) && text.contains("ready"), "{text}");
    let (code, text) = once(&[&url(&hub)], &[("ADMIN_TOKEN", "of-somebody-else")]);
    assert!(code == Some(1) && text.contains("ADMIN_TOKEN or --token-file is wrong"), "{text}");
    assert!(text.contains("  refused") && !text.contains("hubdown"), "{text}");
    assert_eq!(once(&[&url(&hub), "--token-file", "/no/such/file"], &[]).0, Some(64));
    let (code, text) = once(&["--interval", "0", &url(&hub)], &[("ADMIN_TOKEN", "of-the-operators")]);
    assert_eq!(code, Some(64), "a flag that is given twice is an error: {text}");
    // Without a terminal, the error suggests `--once`.
    let output = command(&[]).args(["top", &url(&hub)]).output().unwrap();
    assert!(
        output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("--once"),
        "{output:?}"
    );
}

#[test]
fn a_flood_before_the_first_poll_is_a_fault_with_an_exit_code() {
    let hub = Hub::start(&[("MESSAGE_RATE", "5")]);
    assert_eq!(once(&["--exit-code", &url(&hub)], &[]).0, Some(0));
    let mut peer = Client::join(&hub, 1, "n");
    // The budget allows a burst of 25 s.
    for _ in 0..150 {
        peer.say(r#"{"type":"ping"}"#);
    }
    peer.hear_type("error");
    // The first poll must already see the whole flood in the counters, so that only the history shows that it is new.
    hub.metric_becomes(r#"peerpigeon_rate_limited_total{budget="messages",owner="peer"}"#, |refused| refused > 0.0);
    crate::mesh::eventually("the history contains the flood", || {
        let (code, text) = once(&["--exit-code", &url(&hub)], &[]);
        code == Some(2) && text.contains("messages above MESSAGE_RATE were refused in the last ")
    });
    assert_eq!(once(&[&url(&hub)], &[]).0, Some(0), "without --exit-code, a fault is no failure");
    assert_eq!(once(&["--exit-code", "http://127.0.0.1:1"], &[]).0, Some(1));
}

#[test]
fn keys_move_between_the_screens() {
    let hubs = mesh(2, &[]);
    let mut peers = [Client::join(&hubs[0], 1, "lobby"), Client::join(&hubs[0], 2, "lobby")];
    let target = peers[1].id.clone();
    peers[0].offer(&target, "lobby", "{}", "");
    let (here, there) = (url(&hubs[0]), url(&hubs[1]));
    let steps = json!([
        ["see", "2 of 2 hubs   2 peers"],
        ["see", "no faults"],
        ["type", "?"],
        ["see", "look at the selected hub or network"],
        ["type", "x"],
        ["see", "What needs attention"],
        ["type", "\r"],
        ["see", "link to"],
        ["see", "shard 1"],
        ["type", "\u{7f}n"],
        ["see", "lobby"],
        ["type", "\r"],
        ["see", "network lobby"],
        ["see", "members: 2"],
        ["see", &there[7..]],
        ["see", "answers 403 Forbidden: names of networks are only for operators"],
        ["type", "q"],
        ["end", "0"]
    ]);
    in_a_terminal(&steps, &[&here, &there], "");
}

#[test]
fn an_operator_lists_the_members_of_a_network() {
    let hub = Hub::start(&[("ADMIN_TOKEN", "of-the-operators")]);
    let _peers: Vec<_> = (1..=3).map(|n| Client::join(&hub, n, "a room & more")).collect();
    let month = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string()[..8].to_owned();
    let steps = json!([
        ["see", "3 peers"],
        ["type", "n"],
        ["see", "a room & more"],
        ["type", "\r"],
        ["see", &id(1)],
        ["see", &format!("{}   {}", id(3), hub.address)],
        ["see", "joined at"],
        ["see", month],
        ["type", "q"],
        ["end", "0"]
    ]);
    in_a_terminal(&steps, &[&url(&hub)], "of-the-operators");
}

#[test]
fn urls_can_have_a_path_and_secrets_are_not_printed() {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = door.local_addr().unwrap();
    let asked = std::thread::spawn(move || {
        let (mut client, _) = door.accept().unwrap();
        let mut line = String::new();
        BufReader::new(client.try_clone().unwrap()).read_line(&mut line).unwrap();
        client.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        line
    });
    let (code, text) = once(&[&format!("http://user:hunter2@{address}/hub-1/")], &[]);
    assert_eq!(asked.join().unwrap().trim_end(), "GET /hub-1/metrics HTTP/1.1");
    assert!(code == Some(1) && !text.contains("hunter2"), "{text}");

    let admin = free_port().to_string();
    let hub = Hub::start(&[("ADMIN_PORT", &admin)]);
    let (code, text) = once(&[&url(&hub)], &[]);
    assert!(
        code == Some(1) && text.contains("no page /metrics: give the URL of ADMIN_PORT, if the hub has one"),
        "{text}"
    );
}

/// Runs the program in a pseudo-terminal.
fn in_a_terminal(steps: &Value, urls: &[&str], token: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/terminal.py");
    let run = Command::new("python3")
        .arg(script)
        .arg(steps.to_string())
        .args([env!("CARGO_BIN_EXE_peerpigeon"), "top", "--interval", "300ms"])
        .args(urls)
        .envs([("TERM", "xterm-256color"), ("ADMIN_TOKEN", token)])
        .output();
    let Ok(output) = run else {
        eprintln!("skipped: there is no python3");
        return;
    };
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
