//! Tests that outgoing messages are JSON with the Go hub's order of keys, for any data of clients.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

use super::json::{framed, timestamp};
use super::*;
use crate::id::{HubId, PeerId, PeerIncarnation};
use crate::reason::{ErrorCode, LeaveReason, Outcome};

/// The payload of a complete text frame.
fn payload(frame: &[u8]) -> &str {
    let (header, len) = match frame[1] {
        126 => (4, u64::from(u16::from_be_bytes([frame[2], frame[3]]))),
        127 => (10, u64::from_be_bytes(frame[2..10].try_into().unwrap())),
        len => (2, u64::from(len)),
    };
    assert_eq!((frame[0], frame.len() as u64), (0x81, header as u64 + len));
    std::str::from_utf8(&frame[header..]).unwrap()
}

/// The keys of an object, in order. Panics if the object contains white space.
fn keys(object: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut depth = 0;
    let mut rest = object;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>();
            let string = strings.next().unwrap().unwrap().get();
            rest = &rest[string.len()..];
            if depth == 1 && rest.starts_with(':') {
                keys.push(serde_json::from_str(string).unwrap());
            }
            continue;
        }
        assert!(!c.is_whitespace(), "the object has white space: {object}");
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ => {}
        }
        rest = &rest[c.len_utf8()..];
    }
    keys
}

const ADDRESSED: [&str; 6] = ["type", "data", "fromPeerId", "targetPeerId", "networkName", "timestamp"];

/// Checks the outer fields of a message and returns its data.
fn data_of(text: &str, kind: &str, from: &str, target: &PeerId, network: &str, wall_ms: u64) -> Value {
    let (outer, more) = keys(text).into_iter().partition::<Vec<_>, _>(|key| ADDRESSED.contains(&key.as_str()));
    assert_eq!(outer, ADDRESSED, "{text}");
    assert!(more.is_empty() || kind.starts_with("peer-"), "{text}");
    let value: Value = serde_json::from_str(text).unwrap();
    assert_eq!(value["type"], kind);
    assert_eq!(value["fromPeerId"], from);
    assert_eq!(value["targetPeerId"], target.to_string());
    assert_eq!(value["networkName"], network);
    assert_eq!(value["timestamp"], wall_ms);
    value["data"].clone()
}

fn data_keys(text: &str) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    keys(serde_json::from_str::<Message<'_>>(text).unwrap().data.get())
}

fn peer() -> impl Strategy<Value = PeerId> {
    any::<[u8; 20]>().prop_map(PeerId::from_bytes)
}

fn millis() -> std::ops::Range<u64> {
    1_000_000_000_000..10_000_000_000_000
}

fn code() -> impl Strategy<Value = ErrorCode> {
    prop::sample::select(ErrorCode::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_string_survives_encoding(s in any::<String>()) {
        let mut out = Vec::new();
        put_string(&mut out, &s);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), s);
    }

    #[test]
    fn connected_describes_the_hub(peer in peer(), hub in peer(), heartbeat_ms: u64, max: u32, at in millis()) {
        let mut out = vec![7; 3];
        let welcome = Welcome { hub: HubId(hub), heartbeat_ms, max_message_bytes: max as usize, ice: None };
        let resume_keys = crate::resume::ResumeKeys::new("mesh", b"key", None);
        let lineage = crate::resume::Lineage { root: crate::PeerIncarnation(1), session: crate::PeerIncarnation(2) };
        let secret = resume_keys.issue(&peer, lineage);
        let frame = connected(&mut out, &peer, lineage.session, &welcome, &secret, at);
        let text = payload(&out[frame]);
        prop_assert_eq!(keys(text), ["type", "data", "fromPeerId", "networkName", "timestamp"]);
        let known = ["peerId", "hubId", "protocol", "heartbeatMs", "maxMessageBytes", "resume", "session"];
        prop_assert_eq!(data_keys(text), known);
        let data = &serde_json::from_str::<Value>(text).unwrap()["data"];
        prop_assert_eq!(&data["peerId"], &peer.to_string());
        prop_assert_eq!(&data["hubId"], &hub.to_string());
        prop_assert_eq!(&data["heartbeatMs"], heartbeat_ms);
        prop_assert_eq!(&data["session"], 2);
        prop_assert_eq!(resume_keys.check(&peer, data["resume"].as_str().unwrap()), Ok(lineage));
    }

    #[test]
    fn a_signal_frame_contains_its_data(from in peer(), to in peer(), network: String, raw: String, at in millis()) {
        let data = serde_json::to_string(&raw).unwrap();
        for kind in MessageKind::ALL {
            let MessageKind::Signal(kind) = kind else { continue };
            let mut out = Vec::new();
            let frame = signal(&mut out, kind, &data, &from, &to, &network, at);
            let said = data_of(payload(&out[frame]), kind.label(), &from.to_string(), &to, &network, at);
            prop_assert_eq!(&said, &raw);
        }
    }

    #[test]
    fn an_error_has_the_known_fields(
        to in peer(),
        code in code(),
        message: String,
        in_reply_to: Option<String>,
        target in prop::option::of(peer()),
        id: Option<String>,
        retry_in in prop::option::of(0..1u64 << 40),
        network: String,
        at in millis(),
    ) {
        let mut out = Vec::new();
        let report = ErrorReport {
            code,
            message: &message,
            in_reply_to: in_reply_to.as_deref(),
            target,
            id: id.as_deref(),
            retry_in: retry_in.map(Duration::from_micros),
            network: &network,
        };
        let frame = error(&mut out, &to, &report, at);
        let text = payload(&out[frame]);
        let data = data_of(text, "error", "system", &to, &network, at);
        prop_assert_eq!(&data["code"], code.label());
        prop_assert_eq!(&data["message"], &message);
        let mut expected = vec!["code", "message"];
        expected.extend(in_reply_to.as_ref().map(|_| "inReplyTo"));
        expected.extend(target.map(|_| "targetPeerId"));
        expected.extend(id.as_ref().map(|_| "id"));
        expected.extend(retry_in.map(|_| "retryInMs"));
        prop_assert_eq!(data_keys(text), expected);
        if let Some(id) = id {
            prop_assert_eq!(&data["id"], &id);
        }
        if let Some(micros) = retry_in {
            prop_assert_eq!(&data["retryInMs"], micros.div_ceil(1000));
        }
    }

    #[test]
    fn a_receipt_names_its_signal(
        to in peer(),
        id: String,
        failed in prop::option::of(code()),
        target in prop::option::of(peer()),
        retry_ms in prop::option::of(0..1u64 << 40),
        network: String,
        at in millis(),
    ) {
        let outcome = failed.map_or(Outcome::Delivered, Outcome::Failed);
        let mut out = Vec::new();
        let retry_in = retry_ms.map(Duration::from_millis);
        let report = ReceiptReport { id: &id, outcome, target, retry_in, network: &network };
        let frame = receipt(&mut out, &to, &report, at);
        let text = payload(&out[frame]);
        let data = data_of(text, "receipt", "system", &to, &network, at);
        prop_assert_eq!(&data["id"], &id);
        prop_assert_eq!(&data["outcome"], outcome.label());
        let target = target.map(|_| "targetPeerId");
        let retry = retry_ms.map(|_| "retryInMs");
        prop_assert_eq!(data_keys(text), ["id", "outcome"].into_iter().chain(target).chain(retry).collect::<Vec<_>>());
    }

    #[test]
    fn go_away_has_both_delays_and_the_other_hubs(
        to in peer(),
        close_in: u32,
        then_in: u32,
        hubs: Vec<String>,
        network: String,
        at in millis(),
    ) {
        let mut out = Vec::new();
        let ms = |ms: u32| std::time::Duration::from_millis(ms.into());
        let frame = go_away(&mut out, &to, ms(close_in), ms(then_in), &hubs, &network, at);
        let text = payload(&out[frame]);
        let data = data_of(text, "go-away", "system", &to, &network, at);
        prop_assert_eq!(&data["closeInMs"], close_in);
        prop_assert_eq!(&data["reconnectInMs"], then_in);
        let where_to = (!hubs.is_empty()).then_some("hubs");
        let known = ["reason", "closeInMs", "reconnectInMs"].into_iter().chain(where_to);
        prop_assert_eq!(data_keys(text), known.collect::<Vec<_>>());
        let said: Vec<String> = data.get("hubs").map_or(Vec::new(), |hubs| serde_json::from_value(hubs.clone()).unwrap());
        prop_assert_eq!(said, hubs);
    }

    /// A patched template has the id of its recipient and the time at which it is sent.
    #[test]
    fn a_template_is_patched_in_its_two_places(
        subject in peer(),
        to in peer(),
        raw: String,
        network: String,
        made in millis(),
        told in millis(),
        number in 0..1u64 << 53,
    ) {
        let data = serde_json::to_string(&raw).unwrap();
        let session = PeerIncarnation(number);
        let reason = LeaveReason::Closed(crate::CloseReason::DeadPeer);
        let templates = [
            (peer_discovered(data.as_bytes(), session, &network, made), "peer-discovered", "system".to_owned()),
            (peer_discovered(data.as_bytes(), session, &network, made).again(), "peer-discovered", "system".to_owned()),
            (goodbye(&subject, &data, &network, made), "goodbye", subject.to_string()),
            (peer_disconnected(&subject, session, reason, &network, made), "peer-disconnected", "system".to_owned()),
        ];
        for (template, kind, from) in templates {
            let mut out = vec![1, 2, 3];
            template.write_to(&mut out, &to, told);
            prop_assert_eq!(&out[..3], &[1, 2, 3]);
            prop_assert_eq!(out.len() - 3, template.frame_len());
            let text = payload(&out[3..]);
            let said = data_of(text, kind, &from, &to, &network, told);
            if kind != "goodbye" {
                let value: Value = serde_json::from_str(text).unwrap();
                prop_assert_eq!(value["session"].as_u64(), (number > 1).then_some(number));
            }
            if kind == "peer-disconnected" {
                prop_assert_eq!(data_keys(text), ["isHub", "peerId", "reason", "timestamp", "closeCode"]);
                prop_assert_eq!(&said["closeCode"], 4008);
                prop_assert_eq!(&said["peerId"], &subject.to_string());
                prop_assert_eq!(&said["timestamp"], made);
            } else {
                prop_assert_eq!(&said, &raw);
            }
        }
    }

    #[test]
    fn a_pong_contains_the_time(to in peer(), at in millis()) {
        let mut out = Vec::new();
        let frame = pong(&mut out, &to, at);
        prop_assert_eq!(&data_of(payload(&out[frame]), "pong", "system", &to, "global", at)["timestamp"], at);
    }
}

/// The field `again` makes a message longer. If the longer message needs a longer frame header, the patched positions
/// must move.
#[test]
fn a_repeated_discovery_is_patched_in_its_two_places() {
    let to = PeerId::from_bytes([7; 20]);
    for len in [0, 1, 100, 65_300, 65_400, 65_536].into_iter().flat_map(|len| len..len + 80) {
        let data = serde_json::to_string(&"x".repeat(len)).unwrap();
        let template = peer_discovered(data.as_bytes(), PeerIncarnation(2), "n", 0).again();
        let mut out = Vec::new();
        template.write_to(&mut out, &to, 2_000_000_000_000);
        let text = payload(&out);
        assert_eq!(template.data(), data.as_bytes());
        assert_eq!(
            data_of(text, "peer-discovered", "system", &to, "n", 2_000_000_000_000).as_str().unwrap().len(),
            len
        );
        assert!(text.ends_with(",\"session\":2,\"again\":true}"), "{text}");
    }
}

#[test]
fn a_time_out_of_range_keeps_its_width() {
    assert_eq!(&timestamp(0), b"1000000000000");
    assert_eq!(&timestamp(u64::MAX), b"9999999999999");
}

#[test]
fn frames_of_every_length_have_a_correct_header() {
    for len in [0, 1, 50, 125, 126, 127, 1000, 65_400, 65_535, 65_536, 70_000] {
        let mut out = Vec::new();
        let frame = framed(&mut out, |out| out.resize(out.len() + len, b'x'));
        assert_eq!(payload(&out[frame]).len(), len);
    }
}

#[test]
fn each_escaped_character_survives_encoding() {
    for c in (0..0x20).map(char::from).chain(['"', '\\', '\u{7f}']) {
        let mut out = Vec::new();
        put_string(&mut out, &format!("a{c}b"));
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), format!("a{c}b"), "{:#x}", c as u32);
    }
}
