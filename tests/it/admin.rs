//! Tests of the operators' interfaces: ADMIN_PORT, `health` and `--version`.

use std::net::SocketAddr;
use std::process::Command;

use crate::client::{Client, id, upgrade};
use crate::door::{body, status};
use crate::hub::{Hub, command};

/// Returns a port that was free a moment ago.
pub fn free_port() -> String {
    crate::ports::free_port().to_string()
}

#[test]
fn admin_port_serves_the_operators_pages() {
    let port = free_port();
    let mut hub = Hub::start(&[("ADMIN_PORT", &port), ("DRAIN_SECS", "30")]);
    let mut peer = Client::join(&hub, 1, "n");
    let for_operators = ["/metrics", "/metrics?format=json", "/stats", "/hubs", "/hubstats"];
    for path in for_operators {
        let answer = hub.get(path);
        assert_eq!(status(&answer), "404", "{path}: {answer}");
        for hidden in ["dashboard", "metrics", "stats", "hubs", "admin"] {
            assert!(!body(&answer).contains(hidden), "PORT must not list pages of ADMIN_PORT: {answer}");
        }
    }
    for path in ["/", "/health", "/livez", "/readyz"] {
        assert_eq!(status(&hub.get(path)), "200", "{path}");
    }

    let peers = std::mem::replace(&mut hub.address, SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())));
    for path in for_operators.into_iter().chain(["/", "/health", "/livez", "/readyz"]) {
        assert_eq!(status(&hub.get(path)), "200", "{path}");
    }
    hub.metric_becomes("peerpigeon_peers", |n| n == 1.0);
    let refused =
        hub.http(&upgrade(&format!("/ws?peerId={}", id(2))).replace("Host: hub", "Host: hub\r\nConnection: close"));
    assert_eq!(status(&refused), "404");
    assert!(body(&refused).contains("ADMIN_PORT"), "{refused}");

    // ADMIN_PORT answers during the drain.
    hub.signal("-TERM");
    peer.hear_type("go-away");
    assert_eq!(status(&hub.get("/metrics")), "200");
    assert_eq!((status(&hub.get("/readyz")), status(&hub.get("/livez"))), ("503", "200"));
    hub.address = peers;
    assert!(std::net::TcpStream::connect(hub.address).is_err(), "new connections must be refused");
}

#[test]
fn pages_of_operators_require_their_token_at_any_port() {
    let port = free_port();
    for admin_port in ["", &port] {
        let mut hub = Hub::start(&[("ADMIN_TOKEN", "o"), ("AUTH_TOKEN", "t"), ("ADMIN_PORT", admin_port)]);
        if !admin_port.is_empty() {
            hub.address.set_port(port.parse().unwrap());
        }
        let get = |path: &str, authorization: &str| {
            hub.http(&format!("GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{authorization}\r\n"))
        };
        assert_eq!(status(&get("/metrics", "Authorization: Bearer x\r\n")), "401");
        for path in ["/metrics", "/metrics?format=json", "/stats", "/hubs", "/hubstats", "/metrics/"] {
            for wrong in ["", "Authorization: Bearer t\r\n", "Authorization: Basic bzpv\r\n"] {
                let answer = get(path, wrong);
                assert_eq!(status(&answer), "401", "{path} {wrong}");
                assert!(answer.to_ascii_lowercase().contains("www-authenticate: bearer"), "{answer}");
            }
            assert_eq!(status(&get(path, "Authorization: bearer o\r\n")), "200", "{path}");
        }
        assert_eq!(
            status(&get("/metrics?token=o", "")),
            "401",
            "proxies log URLs, so a token in a URL must be refused"
        );
        for path in ["/health", "/livez", "/readyz", "/"] {
            assert_eq!(status(&get(path, "")), "200", "{path}");
        }
    }
}

#[test]
fn one_port_cannot_serve_both_links_and_operators() {
    let output =
        command(&[("PORT", "0"), ("IS_HUB", "true"), ("MESH_PORT", "7001"), ("ADMIN_PORT", "7001")]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("ADMIN_PORT (--admin-port)") && said.contains("MESH_PORT"), "{said}");
}

fn health(args: &[&str]) -> (Option<i32>, String) {
    let output = command(&[]).arg("health").args(args).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn health_command_reports_the_state_of_the_hub() {
    let mut hub = Hub::start(&[("DRAIN_SECS", "30")]);
    let port = hub.address.port().to_string();
    let at = ["--host", "127.0.0.1", "--port", &port];
    assert_eq!(health(&at), (Some(0), "ready\n".to_owned()));
    let url = format!("http://127.0.0.1:{port}/livez");
    assert_eq!(health(&["--url", &url]), (Some(0), "ok\n".to_owned()));
    assert_eq!(health(&["--url", &format!("http://127.0.0.1:{port}/nowhere")]).0, Some(1));
    assert_eq!(health(&["--url", &format!("https://127.0.0.1:{port}/livez")]).0, Some(1));
    assert_eq!(health(&["--url", "ftp://127.0.0.1/"]).0, Some(64));

    let _peer = Client::join(&hub, 1, "n");
    hub.signal("-TERM");
    hub.logged("server_draining");
    let (code, said) = health(&at);
    assert_eq!(code, Some(1), "the hub must have stopped listening: {said}");
    hub.signal("-TERM");
    hub.wait();
    assert_eq!(health(&at).0, Some(1));
}

#[test]
fn health_command_reads_the_variables_of_the_hub() {
    let port = free_port();
    let (own, blank, quoted) = (format!(" {port}\r\n"), " \n", format!("\"{port}\""));
    let env = [("HOST", "127.0.0.1\n"), ("PORT", own.as_str()), ("ADMIN_PORT", blank)];
    let hub = Hub::start(&env);
    assert_eq!(hub.address.port().to_string(), port);
    let health = |env: &[(&str, &str)]| {
        let output = command(env).arg("health").output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    assert_eq!(health(&env), (Some(0), "ready\n".to_owned()));
    let (code, said) = health(&[("PORT", quoted.as_str())]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.starts_with("peerpigeon: PORT (--port): \""), "{said}");
}

#[test]
fn a_full_hub_is_healthy_but_not_ready() {
    let hub = Hub::start(&[("MAX_CONNECTIONS", "2")]);
    let port = hub.address.port().to_string();
    let at = ["--host", "127.0.0.1", "--port", &port];
    let url = format!("http://127.0.0.1:{port}/readyz");
    let (a, b) = (Client::connect(&hub, 1), Client::connect(&hub, 2));
    assert_eq!((status(&hub.get("/readyz")), body(&hub.get("/readyz"))), ("503", "full\n"));
    assert_eq!(status(&hub.get("/livez")), "200");
    // If `health` failed for a full hub, a container runtime would replace the hub.
    assert_eq!(health(&at), (Some(0), "full\n".to_owned()));
    assert_eq!(health(&["--url", &url]), (Some(1), "full\n".to_owned()));
    drop(a);
    hub.metric_becomes("peerpigeon_full", |full| full == 0.0);
    assert_eq!(status(&hub.get("/readyz")), "200");
    drop(b);
}

#[test]
fn the_version_contains_the_commit() {
    let output = command(&[]).arg("--version").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with(&format!("peerpigeon {}", env!("CARGO_PKG_VERSION"))), "{said}");
    let git = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    // A program that is built outside a repository has no commit.
    if git.is_ok_and(|output| output.status.success()) {
        let commit =
            said.trim_end().rsplit_once('(').map(|(_, commit)| commit.trim_end_matches(')')).unwrap_or_default();
        assert!(commit.len() >= 7 && commit.chars().all(|c| c.is_ascii_hexdigit()), "{said}");
    }
}
