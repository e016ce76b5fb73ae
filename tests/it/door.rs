//! HTTP: who is let in, and the pages.

use serde_json::Value;

use crate::client::{Client, id, upgrade};
use crate::hub::{DEADLINE, Hub};

pub fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

pub fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

fn json(answer: &str) -> Value {
    serde_json::from_str(body(answer)).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

#[test]
fn token_then_id_then_upgrade() {
    let hub = Hub::start(&[("AUTH_TOKEN", "se%cret&"), ("CORS_ORIGIN", "https://app.example")]);
    let plain = |path: &str| hub.get(path);
    for path in ["/ws", "/ws?peerId=zz", &format!("/?peerId={}", id(1)), "/ws?token=wrong", "/ws?token=se%25cret%2"] {
        let answer = plain(path);
        assert_eq!((status(&answer), body(&answer)), ("401", "unauthorized"), "{path}");
        assert!(answer.contains("access-control-allow-origin: https://app.example"), "{answer}");
    }
    for path in ["/ws?token=se%25cret%26", "/ws?token=se%25cret%26&peerId=12", "/ws/?token=se%25cret%26&peerId="] {
        let answer = plain(path);
        assert_eq!((status(&answer), body(&answer)), ("403", "invalid peerId"), "{path}");
    }
    let answer = plain(&format!("/ws?token=se%25cret%26&peerId={}", id(1)));
    assert_eq!(status(&answer), "400", "{answer}");
    for path in ["/", "/ws", "/ws/"] {
        let request = upgrade(&format!("{path}?peerId={}", id(1)));
        let request = request.replace("Host: hub", "Host: hub\r\nConnection: close");
        assert_eq!(status(&hub.http(&request)), "401");
    }
    hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="unauthorized"}"#, |n| n == 8.0);
}

#[test]
fn either_case_and_either_path() {
    let hub = Hub::start(&[]);
    let mut watcher = Client::join(&hub, 1, "global");
    for path in ["/", "/ws", "/ws/"] {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(hub.address).unwrap();
        let id = "ABCDEF0123456789abcdef0123456789ABCDEF01";
        stream.write_all(upgrade(&format!("{path}?peerId={id}")).as_bytes()).unwrap();
        stream.write_all(&crate::client::frame(1, br#"{"type":"announce"}"#)).unwrap();
        assert_eq!(watcher.hear()["data"]["peerId"], id.to_lowercase().as_str());
        drop(stream);
        watcher.hear_type("peer-disconnected");
    }
}

#[test]
fn the_pages_count() {
    let hub = Hub::start(&[("SHARDS", "4")]);
    let mut peers: Vec<Client> = (0..5).map(|n| Client::join(&hub, n, if n < 3 { "a" } else { "b" })).collect();
    for peer in &mut peers {
        peer.say(r#"{"type":"ping"}"#);
        peer.hear_type("pong");
    }
    let health = json(&hub.get("/health"));
    assert_eq!(
        (&health["status"], &health["connections"], &health["peers"]),
        (&"healthy".into(), &5.into(), &5.into())
    );
    assert!(health["memory"]["heapUsed"].as_u64().unwrap() > 0);
    hub.metric_becomes("peerpigeon_peers", |n| n == 5.0);
    // Each shard has its own copy of the rosters, and any of them may answer.
    let end = std::time::Instant::now() + DEADLINE;
    let mut right = 0;
    while right < 20 {
        let metrics = json(&hub.get("/metrics?format=json"));
        right = if metrics["peers"]["networks"] == serde_json::json!({"a": 3, "b": 2}) { right + 1 } else { 0 };
        assert!(std::time::Instant::now() < end, "{metrics}");
    }
    hub.metric_becomes("peerpigeon_networks", |n| n == 2.0);
    drop(peers);
    hub.metric_becomes("peerpigeon_connections", |n| n == 0.0);
    hub.metric_becomes("peerpigeon_networks", |n| n == 0.0);
}

#[test]
fn an_http_connection_serves_many_requests() {
    use std::io::{Read, Write};
    let hub = Hub::start(&[]);
    let mut stream = std::net::TcpStream::connect(hub.address).unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: hub\r\n\r\nHEAD /nope HTTP/1.1\r\nHost: hub\r\n\r\n").unwrap();
    }
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n").unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 4, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 404").count(), 3, "{answers}");
}

#[test]
fn a_request_has_a_bound() {
    let hub = Hub::start(&[]);
    let begin = "GET /livez HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nCookie: ";
    let whole = format!("{begin}{}\r\n\r\n", "x".repeat(12 * 1024));
    assert_eq!(status(&hub.http(&whole)), "200");
    // Not a byte more, so that none is left unread and the answer is not lost to a reset.
    let endless = format!("{begin}{}", "x".repeat(16 * 1024 - begin.len()));
    assert_eq!(status(&hub.http(&endless)), "431");
    hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="bad-request"}"#, |n| n == 1.0);
}
