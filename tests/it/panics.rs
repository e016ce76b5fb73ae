//! Tests of panics. A panic in a parser, in a request before the upgrade, or in a connection to Redis ends only that
//! connection. Any other panic ends the process with its own exit code and a last log line.
//!
//! An environment variable makes the hub panic at a given place of its code. Only debug builds of the hub read the
//! variable.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use crate::client::{Client, frame, id, upgrade};
use crate::hub::{DEADLINE, Hub, command};
use crate::mesh::free_port;
use crate::redis::Redis;

/// Exit code of a hub that ends because of a bug.
const EX_SOFTWARE: i32 = 70;

/// Settings of a Redis bridge that never connects.
const NO_REDIS: &[(&str, &str)] = &[("REDIS_URL", "redis://127.0.0.1:1"), ("DRAIN_SECS", "0")];

/// Starts a hub that panics at `place` in its code. The hub has a mesh thread, but no links.
fn planted(place: &str, env: &[(&str, &str)]) -> Hub {
    let own = [("PEERPIGEON_PLANTED_PANIC", place), ("IS_HUB", "true"), ("MESH_TOKEN", "secret")];
    Hub::start(&[&own, env].concat())
}

/// Connects as peer `n` and announces itself. Returns `None` if the hub has ended.
fn joins(address: SocketAddr, n: u32) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
    let announce = frame(1, br#"{"type":"announce"}"#);
    stream.write_all(&[upgrade(&format!("/ws?peerId={}", id(n))).as_bytes(), &announce].concat()).ok()?;
    Some(stream)
}

/// Checks that the planted panic at `place` ends the hub, and that the log names the thread and the turn. `turn` is
/// `None` for code that does not run in turns, because no guard logs a turn there.
fn ends(mut hub: Hub, place: &str, thread: &str, turn: Option<&str>) {
    let (last, before) = hub.logged_after("\"hub_failed\"");
    // The hub may panic while it still logs its start.
    let lines = hub.before_start.iter().chain(&before);
    let panicked: Vec<_> = lines.filter(|line| line.contains("\"turn_panicked\"")).collect();
    let named = turn.map(|turn| format!("\"turn\":\"{turn}\""));
    // Several shards may panic at once.
    assert_eq!(panicked.is_empty(), named.is_none(), "{place}: {panicked:?}");
    assert!(named.is_none_or(|named| panicked.iter().all(|line| line.contains(&named))), "{place}: {panicked:?}");
    assert_eq!(hub.wait().code(), Some(EX_SOFTWARE), "{place}");
    assert!(last.contains(&format!("a planted panic: {place}")), "{place}: {last}");
    assert!(last.contains(".rs:") && last.contains(&format!("{thread}_failed")), "{place}: {last}");
}

/// Each turn has a guard, which names the turn in the log. Code that does not run in turns has no guard, but a panic
/// there also ends the process.
#[test]
fn a_panic_in_any_turn_ends_the_process() {
    // Each hub of the loop below links to this other hub and receives its peer in a snapshot.
    let other = Hub::start(&[("IS_HUB", "true"), ("MESH_TOKEN", "secret")]);
    let _peer = Client::join(&other, 99, "n");
    let bootstrap = format!("ws://{}", other.address);
    for (place, thread, turn) in [
        ("rules", "shard", Some("session")),
        ("letters", "shard", Some("letters")),
        ("tick", "shard", Some("tick")),
        ("flush", "shard", Some("flush")),
        ("adopt", "shard", Some("adopt")),
        ("welcome", "shard", None),
        ("mesh", "mesh", Some("letters")),
        ("bridge", "mesh", Some("bridge")),
        ("mesh-adopt", "mesh", Some("adopt")),
        ("mesh-tick", "mesh", Some("tick")),
        ("mesh-continue", "mesh", Some("continue")),
        ("timeout", "mesh", Some("timeout")),
        ("dials", "mesh", Some("dials")),
        ("dial-out", "mesh", None),
        ("link", "mesh", Some("link")),
    ] {
        let dials = ("BOOTSTRAP_HUBS", bootstrap.as_str());
        let hub = planted(place, &[NO_REDIS, &[dials]].concat());
        // With eight peers, the code at every place runs, also the code that reads letters between shards.
        let _peers: Vec<_> = (1..=8).map(|n| joins(hub.address, n)).collect();
        ends(hub, place, thread, turn);
    }
}

#[test]
fn a_panic_in_an_operators_order_ends_the_process() {
    let hub = planted("order", &[("ADMIN_TOKEN", "secret-of-operators")]);
    let form = format!("peer={}", id(1));
    let mut stream = TcpStream::connect(hub.address).unwrap();
    let head = format!(
        "POST /admin/kick HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer secret-of-operators\r\nContent-Length: {}\r\n",
        form.len()
    );
    stream.write_all(format!("{head}\r\n{form}").as_bytes()).unwrap();
    ends(hub, "order", "shard", Some("order"));
}

#[test]
fn a_panic_in_a_later_slice_of_work_ends_the_process() {
    let hub = planted("continue", &[("SHARDS", "32"), ("MAX_NETWORKS_PER_PEER", "200")]);
    let mut client = Client::open(hub.address, 1, b"");
    // 150 leaves cause 4,650 letters to the other shards, which is more than one turn posts.
    for n in 0..150 {
        client.say(&format!(r#"{{"type":"announce","networkName":"n{n}"}}"#));
    }
    client.say(r#"{"type":"ping"}"#);
    client.hear_type("pong");
    drop(client);
    ends(hub, "continue", "shard", Some("continue"));
}

#[test]
fn a_panic_in_an_event_of_the_bridge_ends_the_process() {
    let redis = Redis::start(free_port());
    let hub = planted("bridge-event", &[("REDIS_URL", &redis.url())]);
    ends(hub, "bridge-event", "mesh", Some("bridge-event"));
}

#[test]
fn a_panic_while_the_hub_stops_ends_the_process() {
    for (place, thread, turn) in
        [("drain", "shard", "drain"), ("mesh-drain", "mesh", "drain"), ("mesh-end", "mesh", "end")]
    {
        let hub = planted(place, NO_REDIS);
        Client::open(hub.address, 1, b"");
        hub.signal("-TERM");
        ends(hub, place, thread, Some(turn));
    }
}

#[test]
fn a_panic_in_a_parser_ends_only_its_session() {
    let mut hub = planted("parser", &[]);
    for n in 1..=3 {
        let mut client = Client::open(hub.address, n, b"");
        client.say(r#"{"type":"ping"}"#);
        assert_eq!(client.closed().0, 1011);
    }
    hub.metric_becomes("peerpigeon_closes_total{reason=\"internal\"}", |closes| closes == 3.0);
    hub.signal("-TERM");
    assert_eq!(hub.wait().code(), Some(0));
}

#[test]
fn a_panic_before_the_upgrade_ends_only_its_connection() {
    let mut hub = planted("upgrade", &[]);
    for n in 1..=3 {
        let mut answer = Vec::new();
        joins(hub.address, n).unwrap().read_to_end(&mut answer).unwrap_or_default();
        assert_eq!(String::from_utf8_lossy(&answer), "");
        hub.logged("a planted panic: upgrade");
        assert!(hub.logged("\"connection_failed\"").contains("127.0.0.1:"));
    }
    hub.metric_becomes("peerpigeon_handshake_failures_total{reason=\"internal\"}", |failures| failures == 3.0);
    // The alert about internal errors watches the metric peerpigeon_closes_total with the reason `internal`.
    hub.metric_becomes("peerpigeon_closes_total{reason=\"internal\"}", |closes| closes == 3.0);
    assert!(hub.get("/livez").starts_with("HTTP/1.1 200"));
    hub.signal("-TERM");
    assert_eq!(hub.wait().code(), Some(0));
}

#[test]
fn a_panic_in_a_connection_to_redis_only_makes_the_bridge_reconnect() {
    let mut hub = planted("redis", NO_REDIS);
    let line = hub.logged("\"bridge_cannot_connect\"");
    assert!(line.contains("a planted panic: redis"), "{line}");
    hub.metric_becomes("peerpigeon_redis_errors_total", |errors| errors >= 3.0);
    let mut peer = Client::open(hub.address, 1, b"");
    peer.say(r#"{"type":"ping"}"#);
    peer.hear_type("pong");
    hub.signal("-TERM");
    peer.closed();
    assert_eq!(hub.wait().code(), Some(0));
}

/// The process ends even if nothing reads its log. When the log is read later, the log contains the reason.
#[test]
fn a_stalled_log_does_not_delay_the_end_after_a_panic() {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'x'; 60_000]).unwrap();
    let port = address.port().to_string();
    let env = [("HOST", "127.0.0.1"), ("PORT", &port), ("LOG_LEVEL", "trace"), ("PEERPIGEON_PLANTED_PANIC", "rules")];
    let mut child = command(&env).stderr(writer).spawn().unwrap();
    let end = Instant::now() + DEADLINE;
    let mut peers = Vec::new();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < end, "the hub did not end");
        peers.extend(joins(address, peers.len() as u32));
        std::thread::yield_now();
    };
    assert_eq!(status.code(), Some(EX_SOFTWARE));
    reader.read_to_end(&mut Vec::new()).unwrap();
}
