//! Messages of the generator's peers, and a fast classification of received messages.

use memchr::memmem;

use crate::frames;

/// The id of peer `number`: 32 hexadecimal digits that look random, followed by the number.
pub(crate) fn id(number: usize) -> String {
    let high = mix(number as u64);
    format!("{high:016x}{:016x}{:08x}", mix(high), number as u32)
}

/// SplitMix64.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The number in an [`id`].
fn number(id: &[u8]) -> Option<usize> {
    let digits = std::str::from_utf8(id.get(32..40)?).ok()?;
    usize::from_str_radix(digits, 16).ok()
}

/// The key of the example in RFC 6455, for which the yardstick has a fixed answer.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The handshake request. `group` is for the yardstick; hubs ignore it.
pub(crate) fn request(number: usize, group: usize) -> Vec<u8> {
    format!(
        "GET /ws?peerId={}&group={group} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n",
        id(number)
    )
    .into_bytes()
}

/// The name of a network.
pub(crate) fn network(number: usize) -> String {
    format!("room-{number}")
}

/// The frame of an announcement.
pub(crate) fn announce(network: &str) -> Vec<u8> {
    frames::text(&format!(r#"{{"type":"announce","networkName":"{network}","data":{{"name":"bench"}}}}"#))
}

/// The frame of an announcement whose data has a name of this length.
pub(crate) fn announce_of(network: &str, bytes: usize) -> Vec<u8> {
    let name = "x".repeat(bytes);
    frames::text(&format!(r#"{{"type":"announce","networkName":"{network}","data":{{"name":"{name}"}}}}"#))
}

/// The frame of an announcement that asks for bounded discovery.
pub(crate) fn announce_bounded(network: &str) -> Vec<u8> {
    frames::text(&format!(r#"{{"type":"announce","networkName":"{network}","data":{{"discover":{{"closest":4}}}}}}"#))
}

/// A frame with `peer-discovered` about a peer. The peer sends this frame itself, because the yardstick forwards frames
/// unchanged to the other peers.
pub(crate) fn discovered(peer: usize, network: usize) -> Vec<u8> {
    let (peer, target) = (id(peer), id(0));
    let data = format!(r#"{{"isHub":false,"name":"bench","peerId":"{peer}"}}"#);
    let to = format!(r#""targetPeerId":"{target}","networkName":"room-{network}","timestamp":1700000000000"#);
    frames::text(&format!(r#"{{"type":"peer-discovered","data":{data},"fromPeerId":"system",{to}}}"#))
}

/// The frame of a goodbye to one network.
pub(crate) fn goodbye(network: &str) -> Vec<u8> {
    frames::text(&format!(r#"{{"type":"goodbye","networkName":"{network}"}}"#))
}

/// The frame of an offer whose message has `size` bytes. Its data resembles SDP: lines of about 60 bytes with escaped
/// line ends.
pub(crate) fn offer(target: usize, network: &str, size: usize) -> Vec<u8> {
    let head = format!(
        r#"{{"type":"offer","targetPeerId":"{}","networkName":"{network}","data":{{"type":"offer","sdp":""#,
        id(target)
    );
    let tail = r#""}}"#;
    let room = size.saturating_sub(head.len() + tail.len());
    let mut sdp = String::from(r"v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n");
    for port in 50_000.. {
        if sdp.len() >= room {
            break;
        }
        sdp.push_str(&format!(r"a=candidate:1 1 udp 2122260223 192.0.2.1 {port} typ host\r\n"));
    }
    sdp.truncate(room);
    // The text may end inside an escape sequence. An incomplete sequence is replaced.
    if sdp.ends_with('\\') {
        sdp.pop();
        sdp.push('0');
    }
    frames::text(&format!("{head}{sdp}{tail}"))
}

/// The kind of a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// `connected`.
    Connected,
    /// `peer-discovered`, with the peer's number.
    Discovered(usize),
    /// Any other message.
    Other,
    /// `peer-disconnected` or `goodbye`.
    Left,
}

/// Classifies a message, and reads only the necessary part of it.
pub(crate) fn heard(text: &[u8]) -> Heard {
    // The hub's messages begin with their type. A server that sorts its keys writes the type last.
    let kind = text.strip_prefix(br#"{"type":""#).or_else(|| {
        // A `type` in a peer's `data` precedes the message's own `type`, so the last `type` counts.
        let name = br#""type":""#;
        memmem::rfind(text, name).map(|at| &text[at + name.len()..])
    });
    let Some(kind) = kind else { return Heard::Other };
    if kind.starts_with(b"peer-discovered\"") || kind.starts_with(b"announce\"") {
        let id = after(text, br#""peerId":""#);
        return id.and_then(number).map_or(Heard::Other, Heard::Discovered);
    }
    if kind.starts_with(b"peer-disconnected\"") || kind.starts_with(b"goodbye\"") {
        return Heard::Left;
    }
    if kind.starts_with(b"connected\"") { Heard::Connected } else { Heard::Other }
}

/// The text after the first occurrence of `what`.
fn after<'a>(text: &'a [u8], what: &[u8]) -> Option<&'a [u8]> {
    memmem::find(text, what).map(|at| &text[at + what.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Frames;

    #[test]
    fn an_offer_is_json_of_the_requested_size() {
        for size in [250, 400, 1200, 1201, 1202, 1203, 1204, 1205, 2500] {
            let mut seen = None;
            Frames::default().feed(&offer(7, "room-1", size), |_, payload| seen = Some(payload.to_vec()));
            let payload = seen.unwrap();
            assert_eq!(payload.len(), size);
            let value: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            assert_eq!(value["targetPeerId"], id(7));
        }
    }

    #[test]
    fn messages_are_recognized_with_the_type_first_or_last() {
        let discovered = format!(r#"{{"type":"peer-discovered","data":{{"isHub":false,"peerId":"{}"}}}}"#, id(123_456));
        assert_eq!(heard(discovered.as_bytes()), Heard::Discovered(123_456));
        let sorted = format!(r#"{{"data":{{"peerId":"{}","type":"connected"}},"type":"peer-discovered"}}"#, id(5));
        assert_eq!(heard(sorted.as_bytes()), Heard::Discovered(5));
        assert_eq!(heard(br#"{"data":{},"type":"peer-disconnected"}"#), Heard::Left);
        assert_eq!(heard(br#"{"type":"connected","data":{}}"#), Heard::Connected);
        assert_eq!(heard(br#"{"type":"error","data":{}}"#), Heard::Other);
        assert_eq!(heard(b"no json"), Heard::Other);
    }

    #[test]
    fn ids_are_distinct_hexadecimal_numbers() {
        let ids: std::collections::BTreeSet<String> = (0..10_000).map(id).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.len() == 40 && id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))));
    }
}
