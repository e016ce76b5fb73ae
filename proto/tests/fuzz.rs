//! Runs the fuzz targets that need only this crate, with the inputs in `fuzz/corpus` and with a few random inputs. So
//! every test run builds and executes these targets. `just fuzz` tries many more inputs.

#[path = "../../fuzz/src/replay.rs"]
#[allow(clippy::print_stdout, unreachable_pub, reason = "several tests share it")]
mod replay;
#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "in that crate, they are public")]
mod targets;

use proptest::prelude::*;

/// Text from pieces of messages. Random characters would not produce words such as `targetPeerId`.
fn json() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "null",
        "1",
        "1e999",
        "{}",
        "[[]]",
        "\"\"",
        "\\ud800",
        " ",
        "\u{e9}",
        "\"type\":",
        "\"data\":",
        "\"targetPeerId\":",
        "\"targetPeer\":",
        "\"networkName\":",
        "\"id\":",
        "\"other\":",
        "\"announce\"",
        "\"offer\"",
        "\"goodbye\"",
        "\"ping\"",
        "\"cleanup\"",
        "\"pong\"",
        "\"n\"",
        "\"\\u0061\"",
        "\"0123456789abcdef0123456789ABCDEF01234567\"",
    ]);
    prop::collection::vec(pieces, 0..14).prop_map(|pieces| pieces.concat())
}

/// Objects with likely and unlikely members, and sometimes arrays of values.
fn message() -> impl Strategy<Value = String> {
    const PEER: &str = "\"0123456789abcdef0123456789ABCDEF01234567\"";
    let kinds = [
        "announce",
        "offer",
        "answer",
        "ice-restart-answer",
        "goodbye",
        "ping",
        "cleanup",
        "pong",
        "challenge",
        "nonsense",
    ];
    let kind = prop::sample::select(kinds.to_vec()).prop_map(|kind| format!("\"{kind}\""));
    let string = prop_oneof![0..70_usize, 250..260_usize].prop_map(|length| format!("\"{}\"", "i".repeat(length)));
    let others = vec![PEER, "null", "\"\"", "\" \"", "\"n\"", "7", "{\"a\":[1,\"\\n\"]}"];
    let value = prop_oneof![kind.clone(), string, prop::sample::select(others).prop_map(str::to_owned), json()];
    let keys = vec!["type", "data", "targetPeerId", "targetPeer", "networkName", "id", "\\u0069d", "ack", "x"];
    let member = (prop::sample::select(keys), value.clone()).prop_map(|(key, value)| format!("\"{key}\":{value}"));
    let kind = kind.prop_map(|kind| format!("\"type\":{kind}"));
    let target = prop::sample::select(vec!["targetPeerId", "targetPeer"]).prop_map(|key| format!("\"{key}\":{PEER}"));
    let network = prop::sample::select(vec!["null", "\" \"", "\"n\"", "\"global\""])
        .prop_map(|name| format!("\"networkName\":{name}"));
    let usual = (prop::option::of(kind), prop::option::of(target), prop::option::of(network));
    let members = (usual, prop::collection::vec(member, 0..3));
    prop_oneof![
        9 => members.prop_map(|((kind, target, network), others)| {
            let members = [kind, target, network].into_iter().flatten().chain(others);
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }),
        1 => prop::collection::vec(value, 6).prop_map(|values| format!("[{}]", values.join(","))),
    ]
}

/// Heads of the PROXY protocol. A head is complete, truncated, too long, or has a wrong byte.
fn head_of_a_proxy() -> impl Strategy<Value = Vec<u8>> {
    let v1 = prop::sample::select(vec![
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n",
        "PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n",
        "PROXY UNKNOWN\r\n",
    ]);
    let v2 = (
        prop::sample::select(vec![0x20, 0x21, 0x31]),
        prop::sample::select(vec![0, 0x11, 0x21, 0x31, 0x51]),
        0..300_u16,
    )
        .prop_map(|(command, family, length)| {
            let mut head = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
            head.extend([command, family]);
            head.extend(length.to_be_bytes());
            head.extend((0..length).map(|n| n as u8));
            head
        });
    let head = prop_oneof![v1.prop_map(|line| line.as_bytes().to_vec()), v2];
    (head, any::<(bool, prop::sample::Index, u8)>()).prop_map(|(mut head, (is_whole, at, byte))| {
        let at = at.index(head.len());
        if is_whole {
            head.extend(b"GET / HTTP/1.1\r\n");
        } else if byte < 64 {
            head.truncate(at);
        } else {
            head[at] = byte;
        }
        head
    })
}

/// Values of `Forwarded` and `X-Forwarded-For`.
fn header_of_a_proxy() -> impl Strategy<Value = Vec<u8>> {
    let pieces = vec![
        "for=",
        "For",
        "=",
        ";",
        ",",
        " ",
        "\"",
        "\\",
        "192.0.2.1",
        "[2001:db8::1]",
        ":80",
        "unknown",
        "_x",
        "\u{e9}",
    ];
    prop::collection::vec(prop::sample::select(pieces), 0..14).prop_map(|pieces| pieces.concat().into_bytes())
}

/// A frame of a link. Most envelopes in the frame have a known kind. The length in the header of each envelope is
/// right.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let envelope = (0..14_u8, prop::collection::vec(prop_oneof![Just(0), 0..8_u8, any::<u8>()], 0..160));
    let envelope = envelope.prop_map(|(kind, body)| {
        let length = body.len() as u32 + 1;
        [&length.to_le_bytes()[..], &[kind], &body].concat()
    });
    prop::collection::vec(envelope, 0..4).prop_map(|envelopes| envelopes.concat())
}

/// A step of a router's script. The number of peers is small, so that they interact often.
fn step() -> impl Strategy<Value = [u8; 5]> {
    (0..16_u8, 0..8_u8, any::<[u8; 3]>()).prop_map(|(action, who, [x, y, z])| [action, who, x, y, z])
}

#[test]
fn the_corpus_of_client_message_passes() {
    replay::replay("client_message", targets::client_message);
}

#[test]
fn the_corpus_of_envelopes_passes() {
    replay::replay("envelopes", targets::envelopes);
}

#[test]
fn the_corpus_of_proxied_passes() {
    replay::replay("proxied", targets::proxied);
}

#[test]
fn the_corpus_of_relay_passes() {
    replay::replay("relay", targets::relay);
}

#[test]
fn hubs_know_each_other_again_after_forged_farewells() {
    for script in [
        &include_bytes!("../../fuzz/corpus/relay/forged-farewell")[..],
        include_bytes!("../../fuzz/corpus/relay/forged-farewell-late"),
        include_bytes!("../../fuzz/corpus/relay/forged-farewell-of-one-id"),
        include_bytes!("../../fuzz/corpus/relay/forged-farewell-and-forged-incarnation"),
    ] {
        targets::relay_heals(script);
    }
}

#[test]
fn the_corpus_of_router_passes() {
    replay::replay("router", targets::router);
}

#[test]
fn the_corpus_of_ws_frames_passes() {
    replay::replay("ws_frames", targets::ws_frames);
}

proptest! {
    // Each run has other random inputs. If a target fails, add the printed input to `fuzz/corpus`.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn client_message(text in prop_oneof![json(), message(), "\\PC*"]) {
        targets::client_message(text.as_bytes());
    }

    #[test]
    fn envelopes(bytes in frame()) {
        targets::envelopes(&bytes);
    }

    #[test]
    fn proxied(
        bytes in prop_oneof![head_of_a_proxy(), header_of_a_proxy(), prop::collection::vec(any::<u8>(), 0..60)],
    ) {
        targets::proxied(&bytes);
    }

    #[test]
    fn router(setting in 0..12_u8, steps in prop::collection::vec(step(), 0..200)) {
        targets::router(&[&[setting], steps.as_flattened()].concat());
    }

    #[test]
    fn relay(steps in prop::collection::vec(any::<[u8; 5]>(), 0..120)) {
        targets::relay(steps.as_flattened());
    }

    #[test]
    fn relay_heals(steps in prop::collection::vec(any::<[u8; 5]>(), 0..120)) {
        targets::relay_heals(steps.as_flattened());
    }

    #[test]
    fn ws_frames(
        bytes in prop::collection::vec(
            prop_oneof![any::<u8>(), prop::sample::select(vec![0, 1, 0x81, 0x80, 0x89, 0x82])],
            0..400,
        ),
    ) {
        targets::ws_frames(&bytes);
    }
}
