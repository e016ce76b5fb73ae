//! Tests of the ways in which a session ends, and of the events that other peers then receive.

use crate::client::{Client, Heard, frame, id};
use crate::hub::Hub;
use crate::mesh::{discovered, eventually};

#[test]
pub fn a_reset_is_announced_at_once() {
    let hub = Hub::start(&[]);
    let mut a = Client::join(&hub, 1, "n");
    let b = Client::join(&hub, 2, "n");
    a.hear_type("peer-discovered");
    b.reset();
    assert_eq!(a.hear()["data"]["reason"], "connection-lost");
    let mut c = Client::join(&hub, 3, "n");
    c.hear_type("peer-discovered");
    a.hear_type("peer-discovered");
    c.raw(&frame(8, &[0x03, 0xe8]));
    // `c` may have received both events of peer 2, because its shard may process the reset after the join of `c`.
    assert_eq!(c.closed(), (1000, String::new()));
    assert_eq!(c.next(), Heard::End);
    assert_eq!(a.hear()["data"]["reason"], "client-closed");
}

#[test]
pub fn a_silent_peer_is_pinged_twice_and_then_closed() {
    let hub = Hub::start(&[("PEER_TIMEOUT_MS", "1500")]);
    let mut a = Client::join(&hub, 1, "n");
    let mut b = Client::join(&hub, 2, "n");
    a.hear_type("peer-discovered");
    b.hear_type("peer-discovered");
    let watcher = std::thread::spawn(move || {
        let left = a.hear();
        (left["type"].clone(), left["data"]["reason"].clone(), a)
    });
    let heard: Vec<Heard> = (0..3).map(|_| b.frame()).collect();
    assert_eq!(heard, [Heard::Ping(vec![]), Heard::Ping(vec![]), Heard::Close(4008, "dead peer".into())]);
    let (kind, reason, mut a) = watcher.join().unwrap();
    assert_eq!((kind, reason), ("peer-disconnected".into(), "dead-peer".into()));
    a.hears_nothing();
}

#[test]
pub fn a_new_connection_replaces_one_that_does_not_answer() {
    let hub = Hub::start(&[]);
    let mut watcher = Client::join(&hub, 1, "n");
    let mut half_open = Client::join(&hub, 2, "n");
    watcher.hear_type("peer-discovered");
    half_open.hear_type("peer-discovered");
    // The first message arrives while the new session waits for the id. The hub processes it after the takeover.
    let mut back = Client::open(hub.address, 2, &frame(1, br#"{"type":"announce","networkName":"n"}"#));
    // The ping proves that the second connection has reached its home shard. If the test did not wait for the ping, the
    // third connection could reach that shard earlier than the second, because different shards may accept the
    // connections.
    assert!(matches!(half_open.frame(), Heard::Ping(nonce) if nonce.len() == 8));
    let mut third = Client::open(hub.address, 2, b"");
    assert_eq!(third.closed(), (4009, "peer id in use".into()));
    assert_eq!(back.hear()["type"], "connected");
    assert_eq!(watcher.hear()["data"]["reason"], "replaced");
    assert_eq!(watcher.hear()["type"], "peer-discovered");
    assert_eq!(back.hear()["data"]["peerId"], id(1).as_str());
    assert_eq!(half_open.closed(), (4001, "replaced".into()));
}

#[test]
pub fn a_connection_that_answers_keeps_its_id() {
    let hub = Hub::start(&[]);
    let mut first = Client::join(&hub, 1, "n");
    let mut second = Client::open(hub.address, 1, b"");
    let Heard::Ping(nonce) = first.frame() else { panic!("no ping") };
    first.raw(&frame(10, &nonce));
    assert_eq!(second.closed(), (4009, "peer id in use".into()));
    first.hears_nothing();
}

#[test]
pub fn a_peer_that_never_reads_affects_only_itself() {
    let hub = Hub::start(&[("SEND_QUEUE_BYTES", "2000000"), ("MAX_MESSAGE_BYTES", "100000")]);
    let mut sender = Client::join(&hub, 1, "n");
    let mut slow = Client::join(&hub, 2, "n");
    sender.hear_type("peer-discovered");
    let data = format!(r#""{}""#, "x".repeat(90_000));
    let before = hub.rss();
    // The socket buffers absorb some megabytes before the queue fills.
    let mut outcomes = std::collections::BTreeMap::new();
    for sent in 0..100 {
        sender.offer(&id(2), "n", &data, &format!(r#","id":"{sent}""#));
    }
    let mut waiting: std::collections::BTreeSet<String> = (0..100).map(|i: usize| i.to_string()).collect();
    while !waiting.is_empty() {
        let message = sender.hear();
        if message["type"] == "receipt" {
            assert!(waiting.remove(message["data"]["id"].as_str().unwrap()), "a second receipt: {message}");
            *outcomes.entry(message["data"]["outcome"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
    }
    assert!(outcomes["slow-peer"] > 0, "{outcomes:?}");
    assert!(hub.rss() < before + 40_000_000, "{} -> {}", before, hub.rss());
    // When the slow peer reads again, it receives whole frames and is still connected.
    slow.say(r#"{"type":"ping"}"#);
    loop {
        let heard = slow.hear();
        if heard["type"] == "pong" {
            break;
        }
    }
    assert_eq!(hub.metric(r#"peerpigeon_closes_total{reason="slow-consumer"}"#), 0.0);
}

#[test]
fn no_peer_can_close_another_or_block_its_messages() {
    let hub = Hub::start(&[("SHARDS", "2")]);
    let mut target = Client::narrow(&hub, 1, "n");
    let data = format!(r#""{}""#, "x".repeat(1_000_000));
    // Each of three peers sends more data than the whole queue of the target can hold.
    let mut crowd: Vec<Client> = (2..5).map(|n| Client::join(&hub, n, "n")).collect();
    for sender in &mut crowd {
        for _ in 0..18 {
            sender.offer(&id(1), "n", &data, "");
        }
        while sender.hear_type("error")["data"]["code"] != "slow-peer" {}
    }
    // The queue still has room for another member's messages and for the hub's own messages.
    let mut late = Client::join(&hub, 9, "n");
    late.offer(&id(1), "n", r#""hello""#, r#","id":"x""#);
    late.hears_no_error();
    target.stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut megabytes = 0;
    loop {
        let heard = target.hear();
        assert!(heard["type"] == "offer" || heard["type"] == "peer-discovered", "{heard}");
        megabytes += usize::from(heard["type"] == "offer");
        if heard["data"] == "hello" {
            break;
        }
    }
    assert!((4..15).contains(&megabytes), "{megabytes}");
    assert_eq!(late.hear_type("receipt")["data"]["outcome"], "delivered");
}

#[test]
pub fn a_full_hub_closes_new_peers_with_1008() {
    let hub = Hub::start(&[("MAX_CONNECTIONS", "2")]);
    let _a = Client::connect(&hub, 1);
    let b = Client::connect(&hub, 2);
    let mut c = Client::open(hub.address, 3, b"");
    assert_eq!(c.next(), Heard::Close(1008, "max connections".into()));
    // A connection that wants the id of a connected peer needs no additional seat.
    let mut again = Client::open(hub.address, 2, b"");
    drop(b);
    assert_eq!(again.hear()["type"], "connected");
}

/// If a client ends without having read its data, its kernel resets the connection. The hub notices the reset when a
/// write fails.
#[test]
fn messages_sent_before_a_reset_are_routed() {
    // The offers contain more data than two socket buffers can hold, so the hub still has data to write after SIGCONT.
    const FLOOD: usize = 24;
    let mut hub =
        Hub::start(&[("SHARDS", "1"), ("SEND_QUEUE_BYTES", "200000000"), ("MESSAGE_RATE_BYTES", "100000000")]);
    let mut a = Client::join(&hub, 1, "n");
    let mut b = Client::join(&hub, 2, "n");
    discovered(&mut a);
    discovered(&mut b);
    let much = format!("\"{}\"", "x".repeat(1_000_000));
    for _ in 0..FLOOD {
        b.offer(&id(1), "n", &much, "");
    }
    b.hears_nothing();
    hub.metric_becomes(r#"peerpigeon_session_queued_bytes{shard="0"}"#, |bytes| bytes > 0.0);
    hub.signal("-STOP");
    let offers = (0..20).flat_map(|n| {
        let text = format!(r#"{{"type":"offer","targetPeerId":"{}","networkName":"n","data":{n}}}"#, id(2));
        frame(1, text.as_bytes())
    });
    a.raw(&offers.collect::<Vec<u8>>());
    a.reset();
    hub.signal("-CONT");
    for n in 0..20 {
        assert_eq!(b.hear_type("offer")["data"], n);
    }
    assert_eq!(b.hear_type("peer-disconnected")["data"]["reason"], "connection-lost");
    let of = |outcome: &str| hub.metric(&format!(r#"peerpigeon_relay_outcomes_total{{outcome="{outcome}"}}"#));
    eventually("each signal has an outcome", || of("delivered") + of("peer-not-found") == 20.0 + FLOOD as f64);
    hub.signal("-TERM");
    assert_eq!(hub.wait().code(), Some(0));
}
