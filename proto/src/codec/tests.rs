//! Tests that the codec parses any input of a client exactly as the reference parser does.

use std::collections::BTreeMap;
use std::fmt;

use proptest::prelude::*;
use serde::de::{Deserializer, Visitor};
use serde_json::Value;

use reference::{is_json, meaning, parsed};

use super::*;
use crate::limits::{self, MAX_ANNOUNCE_DATA_BYTES, MAX_ANNOUNCE_DEPTH};

mod nesting;
mod reference;
mod tokens;

/// The entries of an object, in order, including repetitions.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}

// --- inputs of clients -------------------------------------------------------------------------------------------

fn space() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just(String::new()), 1 => "[ \t\n\r]{1,3}"]
}

/// JSON text of any form. The text can have white space, repeated keys, unusual escapes and unusual numbers.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        string(),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            (space(), prop::collection::vec((space(), inner.clone(), space()), 0..4)).prop_map(|(space, items)| {
                let items: Vec<String> = items.into_iter().map(|(a, item, b)| a + &item + &b).collect();
                format!("[{space}{}]", items.join(","))
            }),
            prop::collection::vec((space(), key(), space(), inner, space()), 0..4).prop_map(|entries| {
                let entries: Vec<String> =
                    entries.into_iter().map(|(a, key, b, value, c)| format!("{a}{key}{b}:{a}{value}{c}")).collect();
                format!("{{{}}}", entries.join(","))
            }),
        ]
    })
}

/// A JSON string, as text.
fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z0-9 é😀/{}\\[\\],:]{0,6}",
        1 => "\\\\[\"\\\\/bfnrt]",
        1 => "\\\\u[0-9a-fA-F]{4}",
        1 => Just("\\ud83d\\ude00".to_owned()),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => string(),
        1 => Just("\"peerId\"".to_owned()),
        1 => Just("\"isHub\"".to_owned()),
        1 => Just("\"ack\"".to_owned()),
        1 => Just("\"is\\u0048ub\"".to_owned()),
        1 => Just("\"a\"".to_owned()),
        1 => Just("\"\\u0061\"".to_owned()),
    ]
}

fn quoted(s: String) -> String {
    format!("\"{s}\"")
}

/// A message with its fields in random order. Most fields are valid. Some fields are missing, repeated or unknown.
fn message() -> impl Strategy<Value = String> {
    let kinds: Vec<&str> = MessageKind::ALL.iter().map(|kind| kind.label()).collect();
    let odd_kinds = vec!["\"off\\u0065r\"", "\"cleanup\"", "\"connection-rejected\"", "\"\"", "7", "null"];
    let kind = prop_oneof![
        12 => prop::sample::select(kinds).prop_map(|kind| quoted(kind.to_owned())),
        2 => prop::sample::select(odd_kinds).prop_map(str::to_owned),
        1 => json(),
    ];
    let target = || {
        prop_oneof![
            12 => "[0-9a-fA-F]{40}".prop_map(quoted),
            1 => "[0-9a-g]{39,41}".prop_map(quoted),
            1 => json(),
        ]
    };
    let network = prop_oneof![
        6 => string(),
        1 => Just("\" \\t\"".to_owned()),
        1 => "x{250,260}".prop_map(quoted),
        1 => json(),
    ];
    let id = prop_oneof![4 => string(), 1 => "x{60,70}".prop_map(quoted), 1 => json()];
    let fields = (
        prop::option::weighted(0.95, kind.prop_map(|v| ("\"type\"", v))),
        prop::option::weighted(0.8, target().prop_map(|v| ("\"targetPeerId\"", v))),
        prop::option::weighted(0.1, target().prop_map(|v| ("\"targetPeer\"", v))),
        prop::option::weighted(0.5, network.prop_map(|v| ("\"networkName\"", v))),
        prop::option::weighted(0.6, json().prop_map(|v| ("\"data\"", v))),
        prop::option::weighted(0.4, id.prop_map(|v| ("\"id\"", v))),
        prop::option::weighted(0.2, json().prop_map(|v| ("\"fromPeerId\"", v))),
        prop::option::weighted(0.05, json().prop_map(|v| ("\"\\u0064ata\"", v))),
        prop::option::weighted(0.2, prop_oneof![Just("true".to_owned()), json()].prop_map(|v| ("\"ack\"", v))),
    );
    let fields = fields.prop_map(|(a, b, c, d, e, f, g, h, i)| [a, b, c, d, e, f, g, h, i]);
    let fields = fields.prop_map(|fields| fields.into_iter().flatten().collect::<Vec<_>>()).prop_shuffle();
    let stranger = prop::option::weighted(0.2, (key(), json()));
    (fields, stranger, space(), space()).prop_map(|(fields, stranger, a, b)| {
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(stranger);
        let fields: Vec<String> = fields.map(|(name, value)| format!("{a}{name}{b}:{a}{value}{b}")).collect();
        format!("{b}{{{}}}{a}", fields.join(","))
    })
}

/// A message with a few characters removed, inserted or changed.
fn broken_message() -> impl Strategy<Value = String> {
    let wound = (any::<prop::sample::Index>(), 0..4, prop::sample::select(b"{}[]\",:\\ u0-e.\x01ntd".to_vec()));
    (message(), prop::collection::vec(wound, 1..4)).prop_map(|(text, wounds)| {
        let mut text: Vec<char> = text.chars().collect();
        for (at, how, with) in wounds {
            let at = at.index(text.len().max(1));
            match how {
                _ if text.is_empty() => {}
                0 => _ = text.remove(at),
                1 => text.insert(at, char::from(with)),
                2 => text[at] = char::from(with),
                _ => text.truncate(at + 1),
            }
        }
        text.into_iter().collect()
    })
}

/// Tokens of the protocol in random order.
fn soup() -> impl Strategy<Value = String> {
    let tokens =
        vec!["{", "}", "[", "]", ",", ":", "\"type\"", "\"offer\"", "\"data\"", "null", "1", " ", "\"", "\\", "\"id\""];
    prop::collection::vec(prop::sample::select(tokens), 0..24).prop_map(|tokens| tokens.concat())
}

/// Replaces white space by spaces, and every escape except `\"` by `\n`, so that the scanner accepts the text.
fn plain(text: String) -> String {
    let mut chars = text.chars();
    let mut plain = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.push_str(if chars.next() == Some('"') { "\\\"" } else { "\\n" }),
            '\t' | '\n' | '\r' => plain.push(' '),
            c => plain.push(c),
        }
    }
    plain
}

fn peer() -> impl Strategy<Value = PeerId> {
    any::<[u8; 20]>().prop_map(PeerId::from_bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_parsers_agree_on_a_message(text in message()) {
        prop_assert_eq!(parsed(&text), meaning(&text));
    }

    #[test]
    fn a_broken_message_has_the_same_result_in_both_parsers(text in broken_message()) {
        prop_assert_eq!(parsed(&text), meaning(&text));
    }

    #[test]
    fn text_close_to_json_has_the_same_result_in_both_parsers(text in soup()) {
        prop_assert_eq!(parsed(&text), meaning(&text));
    }

    #[test]
    fn any_text_has_the_same_result_in_both_parsers(text in any::<String>()) {
        prop_assert_eq!(parsed(&text), meaning(&text));
    }

    #[test]
    fn the_scanner_agrees_with_the_full_parser(
        text in prop_oneof![
            message(),
            message().prop_map(plain),
            broken_message().prop_map(plain),
            soup(),
            "[-{}\\[\\]\",: \\\\nr0-9.eE+]{0,24}".prop_map(|data| format!("{{\"type\":\"offer\",\"data\":{data}}}")),
        ],
    ) {
        if let Some(fields) = scan::scan(&text) {
            prop_assert!(is_json(&text));
            prop_assert_eq!(Ok(fields), read(&text));
        }
    }

    /// The reference parser itself is compared with serde_json.
    #[test]
    fn messages_that_the_full_parser_accepts_are_json(text in prop_oneof![message(), broken_message(), soup(), json()]) {
        if serde_json::from_str::<Value>(&text).is_ok() {
            prop_assert!(is_json(&text));
        }
        prop_assert_eq!(serde_json::from_str::<IgnoredAny>(&text).is_ok(), is_json(&text));
    }

    /// The parser does not copy the data of a message. The data is a slice of the message's text, without surrounding
    /// white space.
    #[test]
    fn data_is_a_part_of_the_text(text in message()) {
        let data = match parse(&text) {
            Ok(ClientMessage::Signal(signal)) => signal.data,
            Ok(ClientMessage::Announce(announce)) => announce.data.unwrap_or("null"),
            _ => return Ok(()),
        };
        prop_assert_eq!(data.trim(), data);
        prop_assert!(is_json(data));
        let inside = text.as_bytes().as_ptr_range().contains(&data.as_ptr());
        prop_assert!(inside || data == "null");
    }

    #[test]
    fn a_description_is_the_data_with_the_two_fields_that_the_hub_sets(data in json(), peer in peer()) {
        let Ok(description) = describe(&peer, Some(&data)) else {
            // Data is refused if a key has half of a surrogate pair.
            prop_assert!(data.contains("\\u"));
            return Ok(());
        };
        let mut merged = BTreeMap::new();
        if data.starts_with('{') {
            for (name, value) in serde_json::from_str::<Entries<'_>>(&data).unwrap().0 {
                merged.insert(name, value.get().to_owned());
            }
        }
        merged.insert("peerId".to_owned(), format!("\"{peer}\""));
        merged.insert("isHub".to_owned(), "false".to_owned());
        let described = serde_json::from_slice::<Entries<'_>>(&description).unwrap().0;
        let described: Vec<_> = described.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect();
        prop_assert_eq!(described, merged.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_description_of_the_full_value_is_the_same(data in json(), peer in peer()) {
        let (Ok(Value::Object(mut value)), Ok(description)) = (serde_json::from_str(&data), describe(&peer, Some(&data)))
        else {
            return Ok(());
        };
        value.insert("peerId".to_owned(), peer.to_string().into());
        value.insert("isHub".to_owned(), false.into());
        prop_assert_eq!(serde_json::from_slice::<Value>(&description).unwrap(), Value::Object(value));
    }

    #[test]
    fn public_data_is_bounded(depth in 0usize..80, padding in 0usize..20_000) {
        let data = format!("{}\"{}\"{}", "[".repeat(depth), "[".repeat(padding), "]".repeat(depth));
        let expected = if data.len() > MAX_ANNOUNCE_DATA_BYTES {
            Err(Unfit::TooLarge)
        } else if depth > MAX_ANNOUNCE_DEPTH {
            Err(Unfit::TooDeep)
        } else {
            Ok(())
        };
        prop_assert_eq!(check_public(&data), expected);
    }
}

#[test]
fn the_scanner_parses_ordinary_messages() {
    let data = [
        r#"{"type":"offer","sdp":"v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\n"}"#,
        r#"{"candidate":"candidate:1 1 udp 2122260223 192.0.2.1 50000 typ host","sdpMid":"0","sdpMLineIndex":0}"#,
        r#"[ {}, [], [ "\"" , -0.5e+3, 10, true, false, null ], {"é":"😀"} ]"#,
        "7",
        r#""""#,
    ];
    for data in data {
        let text = format!(r#" {{ "type":"offer" , "data":{data},"from":"x","id":"1","targetPeerId": "aa" }}"#);
        let fields = scan::scan(&text).expect("the message has only ordinary parts");
        assert_eq!(fields.data, Some(data));
        assert_eq!(Ok(fields), read(&text));
    }
}

#[test]
fn the_scanner_leaves_unusual_messages_to_the_full_parser() {
    let deep = format!("{}{}", "[".repeat(66), "]".repeat(66));
    let odd = [
        r#""\u0041""#,
        r#""\\n""#,
        r#"""#,
        r#"{"a"}"#,
        "\"\n\"",
        "[\t]",
        "[1,]",
        "01",
        "1.",
        "nul",
        "null",
        "",
        "[}",
        "{]",
        &deep,
    ];
    for data in odd {
        let text = format!(r#"{{"type":"offer","data":{data}}}"#);
        assert_eq!(scan::scan(&text), None, "{text}");
    }
    for text in [
        r#"{"type":"offer","type":"offer"}"#,
        r#"{"data":1,"data":1}"#,
        r#"{"type":"off\ner"}"#,
        r#"{"type":null}"#,
        r#"{"type":"offer"} {"#,
        r#"["offer"]"#,
        "{",
    ] {
        assert_eq!(scan::scan(text), None, "{text}");
    }
}

#[test]
fn data_of_signals_is_nested_at_most_512_levels_deep() {
    let offer = |open: &str, close: &str, levels: usize| {
        let data = format!("{}1{}", open.repeat(levels), close.repeat(levels));
        let text = format!(r#"{{"type":"offer","targetPeerId":"{}","data":{data}}}"#, "a".repeat(40));
        let legacy = text.replace(r#""type""#, &format!(r#""fromPeerId":"{}","type""#, "b".repeat(40)));
        let passes = parse(&text).is_ok_and(|message| matches!(message, ClientMessage::Signal(s) if s.data == data));
        assert_eq!(parse_legacy(&legacy).is_some(), passes);
        passes || !parse(&text).is_err_and(|refusal| refusal.message.contains("512 levels"))
    };
    for (open, close) in [("[", "]"), (r#"{"x":"#, "}"), (r#"[{"\u00e4":"#, "}]")] {
        let each = open.matches(['[', '{']).count();
        assert!(
            offer(open, close, limits::MAX_SIGNAL_DEPTH / each)
                && !offer(open, close, limits::MAX_SIGNAL_DEPTH / each + 1)
        );
        assert!(!offer(open, close, 50_000));
    }
    // Brackets in strings, and arrays beside each other, do not count as levels.
    let data = format!(r#"["{}",{}1]"#, "[".repeat(9999), "[],".repeat(9999));
    let text = format!(r#"{{"type":"offer","targetPeerId":"{}","data":{data}}}"#, "a".repeat(40));
    assert!(matches!(parse(&text), Ok(ClientMessage::Signal(signal)) if signal.data == data));
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert!(parse(&deep).is_err_and(|refusal| refusal.code == ErrorCode::InvalidMessage));
    assert!(parse(&deep[..100_000]).is_err_and(|refusal| refusal.code == ErrorCode::InvalidJson));
}

#[test]
fn a_refusal_says_what_is_wrong() {
    let said = |text: &str| parse(text).unwrap_err().message;
    for (text, sentence) in [
        (r#"{"type":5}"#, "type is not"),
        (r#"{"type":"offer","targetPeerId":5}"#, "targetPeerId is not"),
        (r#"{"type":"offer","targetPeer":[]}"#, "targetPeer is not"),
        (r#"{"type":"ping","networkName":{}}"#, "networkName is not"),
        (r#"{"type":"ping","networkName":"\ud800"}"#, "surrogate"),
        (r#"{"type":"\udc00"}"#, "surrogate"),
        (r#"{"type":"ping","\ud800":1}"#, "surrogate"),
        (r#"{"type":"ping","type":"ping"}"#, "twice"),
        ("[]", "object"),
    ] {
        assert!(said(text).contains(sentence), "{text}: {}", said(text));
    }
    let peer = PeerId::from_bytes([1; 20]);
    assert_eq!(describe(&peer, Some(r#"{"\ud800":1}"#)), Err(Unfit::Key));
    assert!(Unfit::Key.explain().contains("surrogate"));
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(64), "]".repeat(64));
    assert_eq!(describe(&peer, Some(&deep)), Err(Unfit::TooDeep));
}

#[test]
fn a_blank_name_means_global_in_goodbye_and_announce() {
    let left = |text: &str| match parse(text) {
        Ok(ClientMessage::Goodbye(goodbye)) => goodbye.network.map(Cow::into_owned),
        other => panic!("{other:?}"),
    };
    for blank in ["", " ", "\t"] {
        assert_eq!(left(&json_of(blank)), Some("global".to_owned()));
    }
    assert_eq!(left(r#"{"type":"goodbye"}"#), None);
    assert_eq!(left(r#"{"type":"goodbye","networkName":null}"#), None);
}

fn json_of(name: &str) -> String {
    serde_json::json!({"type": "goodbye", "networkName": name}).to_string()
}
