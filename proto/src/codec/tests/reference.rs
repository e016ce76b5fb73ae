//! The reference parser. The codec must find the same meaning in every text.

use super::*;

/// Whether the whole `text` is one JSON value, as RFC 8259 defines it.
pub(super) fn is_json(text: &str) -> bool {
    fn space(s: &[u8]) -> &[u8] {
        let n = s.iter().take_while(|c| b" \t\n\r".contains(c)).count();
        &s[n..]
    }
    fn digits(s: &[u8]) -> Option<&[u8]> {
        let n = s.iter().take_while(|c| c.is_ascii_digit()).count();
        (n > 0).then(|| &s[n..])
    }
    fn string(s: &[u8]) -> Option<&[u8]> {
        let mut s = s.strip_prefix(b"\"")?;
        loop {
            s = match s {
                [b'"', rest @ ..] => return Some(rest),
                [b'\\', b'u', a, b, c, d, rest @ ..] if [a, b, c, d].iter().all(|c| c.is_ascii_hexdigit()) => rest,
                [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => rest,
                [b'\\' | 0..0x20, ..] | [] => return None,
                [_, rest @ ..] => rest,
            };
        }
    }
    fn number(s: &[u8]) -> Option<&[u8]> {
        let s = s.strip_prefix(b"-").unwrap_or(s);
        let mut s = match s {
            [b'0', rest @ ..] => rest,
            _ => digits(s)?,
        };
        if let [b'.', rest @ ..] = s {
            s = digits(rest)?;
        }
        if let [b'e' | b'E', rest @ ..] = s {
            let rest = match rest {
                [b'+' | b'-', rest @ ..] => rest,
                _ => rest,
            };
            s = digits(rest)?;
        }
        Some(s)
    }
    fn several<'a>(s: &'a [u8], end: u8, one: impl Fn(&'a [u8]) -> Option<&'a [u8]>) -> Option<&'a [u8]> {
        let mut s = space(s);
        if s.first() == Some(&end) {
            return Some(&s[1..]);
        }
        loop {
            s = space(one(s)?);
            match s {
                [b',', rest @ ..] => s = space(rest),
                [c, rest @ ..] if *c == end => return Some(rest),
                _ => return None,
            }
        }
    }
    fn value(s: &[u8]) -> Option<&[u8]> {
        match s.first()? {
            b'{' => several(&s[1..], b'}', |s| value(space(space(string(s)?).strip_prefix(b":")?))),
            b'[' => several(&s[1..], b']', value),
            b'"' => string(s),
            b't' => s.strip_prefix(b"true"),
            b'f' => s.strip_prefix(b"false"),
            b'n' => s.strip_prefix(b"null"),
            _ => number(s),
        }
    }
    value(space(text.as_bytes())).is_some_and(|rest| space(rest).is_empty())
}

/// The meaning of a message, which the two parsers must agree on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    NotJson,
    NoMessage,
    NotAllowed,
    Unknown,
    Message {
        kind: MessageKind,
        network: Option<String>,
        target: Option<PeerId>,
        id: Option<String>,
        data: Option<String>,
    },
}

pub(super) fn meaning(text: &str) -> Meaning {
    if !is_json(text) {
        return Meaning::NotJson;
    }
    let Ok(Entries(entries)) = serde_json::from_str::<Entries<'_>>(text) else { return Meaning::NoMessage };
    let mut fields: BTreeMap<&str, &RawValue> = BTreeMap::new();
    for (name, value) in &entries {
        let known = ["ack", "type", "data", "targetPeerId", "targetPeer", "networkName", "id"].contains(&name.as_str());
        if known && fields.insert(name, value).is_some() {
            return Meaning::NoMessage;
        }
    }
    let mut strings = BTreeMap::new();
    for name in ["type", "targetPeerId", "targetPeer", "networkName"] {
        match fields.get(name).map(|raw| serde_json::from_str::<Value>(raw.get())) {
            None | Some(Ok(Value::Null)) => {}
            Some(Ok(Value::String(string))) => _ = strings.insert(name, string),
            Some(_) => return Meaning::NoMessage,
        }
    }
    let Some(kind) = strings.get("type") else { return Meaning::NoMessage };
    let id = fields.get("id").and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    let data = fields.get("data").map(|raw| raw.get().to_owned()).filter(|raw| raw != "null");
    let network = strings.get("networkName").filter(|name| !name.trim().is_empty()).cloned();
    let target = strings.get("targetPeerId").or(strings.get("targetPeer")).map(|target| target.parse::<PeerId>());
    let dropped = ["cleanup", "cleanup-all", "connection-rejected", "recovery-offer"].contains(&kind.as_str());
    let too_long = id.as_ref().is_some_and(|id| id.len() > limits::MAX_MESSAGE_ID_BYTES) && !dropped
        || network.as_ref().is_some_and(|name| name.len() > limits::MAX_NETWORK_NAME_BYTES);
    let hubs_only = [
        "announced",
        "authorized",
        "challenge",
        "connected",
        "discovered",
        "error",
        "go-away",
        "ice-servers",
        "peer-disconnected",
        "peer-discovered",
        "pong",
        "receipt",
        "token-expires",
    ]
    .contains(&kind.as_str());
    let token = data.as_deref().and_then(|data| serde_json::from_str::<Value>(data).ok()?.get("token").cloned());
    let has_token = token.is_some_and(|token| token.as_str().is_some_and(|token| !token.is_empty()));
    let said = |known: &MessageKind| {
        known.index() <= MessageKind::Goodbye.index() || matches!(known, MessageKind::Discover | MessageKind::Auth)
    };
    let known = MessageKind::ALL.into_iter().find(|known| known.label() == kind && said(known));
    match (known, &target) {
        _ if too_long => Meaning::NoMessage,
        _ if hubs_only => Meaning::NotAllowed,
        _ if dropped => {
            Meaning::Message { kind: MessageKind::Ignored, network: None, target: None, id: None, data: None }
        }
        (None, _) => Meaning::Unknown,
        (Some(MessageKind::Auth), _) if !has_token => Meaning::NoMessage,
        (Some(MessageKind::Auth), _) => {
            Meaning::Message { kind: MessageKind::Auth, network: None, target: None, id: None, data: None }
        }
        (Some(kind @ MessageKind::Signal(_)), Some(Ok(target))) => {
            let network = Some(network.unwrap_or_else(|| "global".to_owned()));
            Meaning::Message { kind, network, target: Some(*target), id, data }
        }
        (Some(MessageKind::Signal(_)), _) => Meaning::NoMessage,
        (Some(kind @ MessageKind::Discover), _) => {
            let network = Some(network.unwrap_or_else(|| "global".to_owned()));
            Meaning::Message { kind, network, target: None, id: None, data: None }
        }
        (Some(kind @ MessageKind::Announce), _) => {
            let network = Some(network.unwrap_or_else(|| "global".to_owned()));
            Meaning::Message { kind, network, target: None, id: None, data }
        }
        (Some(kind @ MessageKind::Goodbye), _) => {
            let blank = strings.contains_key("networkName") && network.is_none();
            let network = if blank { Some("global".to_owned()) } else { network };
            Meaning::Message { kind, network, target: None, id: None, data }
        }
        (Some(kind), _) => Meaning::Message { kind, network: None, target: None, id: None, data: None },
    }
}

pub(super) fn parsed(text: &str) -> Meaning {
    let data = |data: &str| Some(data.to_owned()).filter(|data| data != "null");
    match parse(text) {
        Err(refusal) => {
            let codes = [
                (ErrorCode::InvalidJson, Meaning::NotJson),
                (ErrorCode::InvalidMessage, Meaning::NoMessage),
                (ErrorCode::NotAllowed, Meaning::NotAllowed),
                (ErrorCode::UnknownType, Meaning::Unknown),
            ];
            let found = codes.into_iter().find(|(code, _)| *code == refusal.code);
            found.expect("the codec uses no other codes").1
        }
        Ok(message) => {
            let (kind, network, target, id, data) = match message {
                ClientMessage::Announce(a) => {
                    (MessageKind::Announce, Some(a.network.into_owned()), None, None, a.data.and_then(data))
                }
                ClientMessage::Auth(_) => (MessageKind::Auth, None, None, None, None),
                ClientMessage::Discover(d) => (MessageKind::Discover, Some(d.network.into_owned()), None, None, None),
                ClientMessage::Goodbye(g) => {
                    (MessageKind::Goodbye, g.network.map(Cow::into_owned), None, None, data(g.data))
                }
                ClientMessage::Ignored => (MessageKind::Ignored, None, None, None, None),
                ClientMessage::Ping => (MessageKind::Ping, None, None, None, None),
                ClientMessage::Signal(s) => (
                    MessageKind::Signal(s.kind),
                    Some(s.network.into_owned()),
                    Some(s.target),
                    s.id.map(Cow::into_owned),
                    data(s.data),
                ),
            };
            Meaning::Message { kind, network, target, id, data }
        }
    }
}
