//! Tests of the hub's reactions to clients that violate the WebSocket protocol or exceed a limit.

use std::io::Write;

use crate::client::{Client, Heard, frame, id};
use crate::hub::Hub;

/// Sends bytes, and returns the hub's close code and reason.
fn closes(hub: &Hub, n: u32, bytes: &[u8]) -> (u16, String) {
    let mut client = Client::connect(hub, n);
    client.raw(bytes);
    let closed = client.closed();
    assert_eq!(client.next(), Heard::End);
    closed
}

#[test]
pub fn violations_of_rfc_6455_are_closed_with_their_code() {
    let hub = Hub::start(&[]);
    let fragment = |first: u8, payload: &[u8]| {
        let mut bytes = frame(0, payload);
        bytes[0] = first;
        bytes
    };
    let unmasked = [&[0x81, 2][..], b"{}"].concat();
    let control_too_long = frame(9, &[0; 126]);
    let control_in_pieces = fragment(0x09, b"x");
    let reserved_bit = fragment(0xc1, b"{}");
    let not_minimal = [&[0x81, 0x80 | 126, 0, 2, 1, 2, 3, 4][..], &[b'{' ^ 1, b'}' ^ 2]].concat();
    let continues_nothing = fragment(0x80, b"{}");
    let interleaved = [fragment(0x01, b"{"), fragment(0x81, b"}")].concat();
    let bad_close = frame(8, &[0x03, 0xed]);
    let cases = [
        unmasked,
        control_too_long,
        control_in_pieces,
        reserved_bit,
        not_minimal,
        continues_nothing,
        interleaved,
        bad_close,
    ];
    for (i, bytes) in cases.iter().enumerate() {
        assert_eq!(closes(&hub, i as u32, bytes).0, 1002, "case {i}");
    }
    let truncated = [fragment(0x01, b"\"a"), fragment(0x80, &[0xe2, 0x82])].concat();
    assert_eq!(closes(&hub, 50, &truncated).0, 1007);
    assert_eq!(closes(&hub, 51, &frame(1, &[0xff])).0, 1007);
}

#[test]
pub fn a_message_over_the_limit_gets_an_error_and_a_close() {
    let hub = Hub::start(&[("MAX_MESSAGE_BYTES", "1024")]);
    let fragment = |first: u8| {
        let mut bytes = frame(0, &[b' '; 1000]);
        bytes[0] = first;
        bytes
    };
    for (n, bytes) in [frame(1, &[b' '; 1025]), [fragment(0x01), fragment(0x00)].concat()].iter().enumerate() {
        let mut client = Client::connect(&hub, n as u32);
        client.raw(bytes);
        assert_eq!(client.hear()["data"]["code"], "message-too-large");
        assert_eq!(client.closed(), (1009, "message too large".into()));
    }
    let mut client = Client::connect(&hub, 9);
    client.raw(&frame(1, &[&br#"{"type":"ping"}"#[..], &[b' '; 1009]].concat()));
    assert_eq!(client.hear()["type"], "pong");
}

#[test]
fn a_frame_of_64_mib_is_not_buffered() {
    let hub = Hub::start(&[]);
    let before = hub.rss();
    let bytes = frame(1, &vec![b' '; 64 * 1024 * 1024]);
    for n in 0..4 {
        let mut client = Client::connect(&hub, n);
        // The hub may close the connection before the last byte is written.
        _ = client.stream.write_all(&bytes);
        hub.metric_becomes(r#"peerpigeon_closes_total{reason="message-too-large"}"#, |closes| closes > f64::from(n));
    }
    assert!(hub.rss() < before + 20_000_000, "{before} -> {}", hub.rss());
}

#[test]
pub fn binary_frames_with_valid_text_are_accepted() {
    let hub = Hub::start(&[]);
    let mut a = Client::connect(&hub, 1);
    a.raw(&frame(2, br#"{"type":"ping"}"#));
    assert_eq!(a.hear()["type"], "pong");
    a.raw(&frame(2, &[0xff, 0xfe]));
    assert_eq!(a.hear()["data"]["code"], "invalid-json");
    a.hears_nothing();
}

#[test]
pub fn a_flood_gets_errors_and_then_a_close() {
    let hub = Hub::start(&[("MESSAGE_RATE", "10")]);
    let mut a = Client::connect(&hub, 1);
    let mut writer = a.stream.try_clone().unwrap();
    let flood = std::thread::spawn(move || {
        let mut sent = 0;
        while writer.write_all(&frame(1, br#"{"type":"cleanup"}"#)).is_ok() {
            sent += 1;
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
        sent
    });
    assert_eq!(a.hear()["data"]["code"], "rate-limited");
    assert_eq!(a.closed(), (1008, "rate limit".into()));
    drop(a);
    assert!(flood.join().unwrap() > 50);
}

#[test]
fn configured_limits_are_enforced() {
    let hub = Hub::start(&[("MAX_NETWORKS_PER_PEER", "2"), ("MAX_PEERS_PER_NETWORK", "2"), ("SHARDS", "1")]);
    let mut a = Client::connect(&hub, 1);
    for network in ["x", "y", "z"] {
        a.announce(network);
    }
    assert_eq!(a.hear()["data"]["code"], "too-many-networks");
    let _b = Client::join(&hub, 2, "x");
    a.hear_type("peer-discovered");
    let mut c = Client::join(&hub, 3, "x");
    assert_eq!(c.hear()["data"]["code"], "network-full");
    let big = format!(r#"{{"type":"announce","data":{{"x":"{}"}}}}"#, "x".repeat(16 * 1024));
    c.say(&big);
    assert_eq!(c.hear()["data"]["code"], "data-too-large");
    c.offer(&id(1), "x", "null", r#","id":"r""#);
    assert_eq!(c.hear()["data"]["outcome"], "wrong-network");
}
