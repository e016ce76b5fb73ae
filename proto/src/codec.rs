//! Parses messages of clients, which are JSON. The router parses each message once, before any rule applies to it.

mod legacy;
mod public;
mod scan;
mod text;

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{self, IgnoredAny};
use serde_json::value::RawValue;

use crate::id::{NetworkName, PeerId};
use crate::limits::{MAX_ECHOED_TYPE_BYTES, MAX_MESSAGE_ID_BYTES, MAX_SIGNAL_DEPTH, MAX_TOKEN_BYTES};
use crate::reason::ErrorCode;
use crate::sentences;
use crate::wire::{MessageKind, SignalKind};

pub(crate) use legacy::{LegacyMessage, parse_legacy};
pub(crate) use public::{Unfit, check_public, closest_wanted, describe, is_deeper_than};
use text::{Object, Text};

/// A parsed message of a client. This type borrows from the message's text where possible.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    /// Join a network, or change the announced data there.
    Announce(Announce<'a>),
    /// A new token, at most [`MAX_TOKEN_BYTES`].
    Auth(Cow<'a, str>),
    /// A request to discover more members of a network.
    Discover(Discover<'a>),
    /// Leave one network, or all.
    Goodbye(Goodbye<'a>),
    /// A message of a type that the hub drops on purpose, such as `cleanup`.
    Ignored,
    /// A request for a `pong`.
    Ping,
    /// A message that the hub relays to another peer.
    Signal(Signal<'a>),
}

/// The message `announce`, with which a client joins a network, or updates its data there.
#[derive(Debug, PartialEq, Eq)]
pub struct Announce<'a> {
    /// The network's name, 1 to [`MAX_NETWORK_NAME_BYTES`](crate::limits::MAX_NETWORK_NAME_BYTES) bytes. A missing or
    /// blank name has already been replaced by `global`.
    pub network: Cow<'a, str>,
    /// The announced JSON, byte for byte. `None` if it is missing. The parser does not check the size and depth of
    /// announced data. The router refuses data of more than
    /// [`MAX_ANNOUNCE_DATA_BYTES`](crate::limits::MAX_ANNOUNCE_DATA_BYTES) with `data-too-large`.
    pub data: Option<&'a str>,
    /// Whether the client has set `ack` to true. If so, the hub answers with `announced` after the members. The hub
    /// does not send the members again to a peer that is already a member.
    pub ack: bool,
}

/// The message `discover`, with which a client asks for members that it does not know yet, under bounded discovery.
#[derive(Debug, PartialEq, Eq)]
pub struct Discover<'a> {
    /// The network's name, as in [`Announce`].
    pub network: Cow<'a, str>,
    /// The requested number of members, as the client sent it. `None` if the client requests no number. The router
    /// answers with at most [`MAX_CLOSEST`](crate::limits::MAX_CLOSEST) members at once.
    pub limit: Option<u64>,
}

/// The message `goodbye`, with which a client leaves networks and stays connected.
#[derive(Debug, PartialEq, Eq)]
pub struct Goodbye<'a> {
    /// The network to leave. `None` means all networks of the sender.
    pub network: Option<Cow<'a, str>>,
    /// The JSON that the client sends to the members, byte for byte, or `null`. This data has the same limits as the
    /// data of [`Announce`].
    pub data: &'a str,
}

/// A message to one other peer, such as `offer`, `answer` or `ice-candidate`.
#[derive(Debug, PartialEq, Eq)]
pub struct Signal<'a> {
    /// The kind of signal.
    pub kind: SignalKind,
    /// The peer to relay the signal to. If this peer is unknown or in another network, the signal fails with a matching
    /// outcome.
    pub target: PeerId,
    /// The network's name, as in [`Announce`].
    pub network: Cow<'a, str>,
    /// The client's JSON, byte for byte, or `null`. The data has at most MAX_MESSAGE_BYTES bytes, and at most
    /// [`MAX_SIGNAL_DEPTH`] levels of nesting.
    pub data: &'a str,
    /// The id of the receipt that the client requests, at most [`MAX_MESSAGE_ID_BYTES`]. `None` if it requests none.
    pub id: Option<Cow<'a, str>>,
    /// Whether the message has an `id` that is not a string. Hubs of version 2.0.0 relayed such a signal without a
    /// receipt, so this hub does the same.
    pub has_unfit_id: bool,
}

/// A refused message, with all data that the `error` message needs.
#[derive(Debug, PartialEq, Eq)]
pub struct RefusedMessage<'a> {
    /// The code of the `error` message.
    pub code: ErrorCode,
    /// A sentence for people: what is wrong and what to do.
    pub message: &'static str,
    /// The kind under which metrics count the message.
    pub kind: MessageKind,
    /// The client's `type`, truncated to [`MAX_ECHOED_TYPE_BYTES`].
    pub in_reply_to: Option<Cow<'a, str>>,
    /// The target, if it could be parsed.
    pub target: Option<PeerId>,
    /// The message's `id`, if it is valid.
    pub id: Option<Cow<'a, str>>,
    /// The network, if it could be parsed.
    pub network: Option<Cow<'a, str>>,
}

impl RefusedMessage<'_> {
    /// Refuses a binary message that is not UTF-8.
    pub(crate) fn not_text() -> Box<Self> {
        Self::plain(ErrorCode::InvalidJson, sentences::NOT_UTF8)
    }

    /// Refuses a message that was longer than the limit and therefore not read completely.
    pub(crate) fn too_large() -> Box<Self> {
        Self::plain(ErrorCode::MessageTooLarge, ErrorCode::MessageTooLarge.explain())
    }

    fn plain(code: ErrorCode, message: &'static str) -> Box<Self> {
        let kind = MessageKind::Invalid;
        Box::new(RefusedMessage { code, message, kind, in_reply_to: None, target: None, id: None, network: None })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    target_peer_id: Option<Text<'a>>,
    /// Alias of `targetPeerId` that the Go hub's own test clients send.
    #[serde(borrow)]
    target_peer: Option<Text<'a>>,
    #[serde(borrow)]
    network_name: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    ack: Option<&'a RawValue>,
}

/// The fields of a message before its type is known.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fields<'a> {
    kind: Option<Cow<'a, str>>,
    /// JSON, byte for byte.
    data: Option<&'a str>,
    target_peer_id: Option<Cow<'a, str>>,
    target_peer: Option<Cow<'a, str>>,
    network_name: Option<Cow<'a, str>>,
    /// JSON, byte for byte.
    id: Option<&'a str>,
    /// JSON, byte for byte.
    ack: Option<&'a str>,
}

impl<'a> From<Raw<'a>> for Fields<'a> {
    fn from(raw: Raw<'a>) -> Self {
        Self {
            kind: raw.kind.map(|text| text.0),
            data: raw.data.map(RawValue::get),
            target_peer_id: raw.target_peer_id.map(|text| text.0),
            target_peer: raw.target_peer.map(|text| text.0),
            network_name: raw.network_name.map(|text| text.0),
            id: raw.id.map(RawValue::get),
            ack: raw.ack.map(RawValue::get),
        }
    }
}

/// Parses the fields of any message.
fn read(text: &str) -> Result<Fields<'_>, Box<RefusedMessage<'_>>> {
    // serde would also accept an array, and would take its elements as the struct's fields. But an array is not a
    // message.
    let object = text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{');
    let raw = if object { serde_json::from_str::<Raw<'_>>(text) } else { Err(de::Error::custom("not an object")) };
    raw.map(Fields::from).map_err(|_| {
        // A text that is not a message can still be valid JSON.
        if serde_json::from_str::<IgnoredAny>(text).is_err() {
            return RefusedMessage::plain(ErrorCode::InvalidJson, ErrorCode::InvalidJson.explain());
        }
        let message = if object { misfit(text) } else { sentences::NOT_AN_OBJECT };
        RefusedMessage::plain(ErrorCode::InvalidMessage, message)
    })
}

/// Explains why valid JSON is not a message.
fn misfit(text: &str) -> &'static str {
    let Ok(fields) = serde_json::from_str::<Object<'_>>(text) else { return sentences::HALF_SURROGATE };
    for (name, sentence) in [
        ("type", sentences::TYPE_NOT_A_STRING),
        ("targetPeerId", sentences::TARGET_NOT_A_STRING),
        ("targetPeer", sentences::TARGET_PEER_NOT_A_STRING),
        ("networkName", sentences::NETWORK_NAME_NOT_A_STRING),
    ] {
        let Some(value) = fields.0.get(name).map(|value| value.get()).filter(|value| *value != "null") else {
            continue;
        };
        if serde_json::from_str::<Text<'_>>(value).is_err() {
            return if value.starts_with('"') { sentences::HALF_SURROGATE } else { sentence };
        }
    }
    sentences::DUPLICATE_FIELD
}

/// In tests, a text that makes [`parse`] panic.
#[cfg(test)]
pub(crate) const PLANTED_PANIC: &str = "a text that the parser does not survive";

/// Parses one text message of a client. The caller bounds the length of the text. The time for parsing is linear in the
/// length of the text. The parser allocates memory only for strings with escapes and for refusals.
///
/// # Errors
///
/// A [`RefusedMessage`] with `invalid-json`, `invalid-message`, `not-allowed`, `unauthorized` or `unknown-type`. The
/// session stays open.
pub fn parse(text: &str) -> Result<ClientMessage<'_>, Box<RefusedMessage<'_>>> {
    #[cfg(test)]
    assert!(text != PLANTED_PANIC, "a planted panic");
    let fields = scan::scan(text).map_or_else(|| read(text), Ok)?;
    let Some(kind) = fields.kind else {
        return Err(RefusedMessage::plain(ErrorCode::InvalidMessage, sentences::NO_TYPE));
    };
    let target = fields.target_peer_id.or(fields.target_peer).filter(|target| !target.is_empty());
    let target = target.map(|target| target.parse::<PeerId>());
    let has_id = fields.id.is_some();
    let id = fields.id.and_then(|id| serde_json::from_str::<Text<'_>>(id).ok()).map(|id| id.0);
    let has_unfit_id = has_id && id.is_none();
    let id_too_long = id.as_ref().is_some_and(|id| id.len() > MAX_MESSAGE_ID_BYTES);
    let named = fields.network_name;
    let network = match &named {
        Some(Cow::Borrowed(name)) => NetworkName::resolve(Some(name)).map(Cow::Borrowed),
        Some(Cow::Owned(name)) => NetworkName::resolve(Some(name)).map(|name| Cow::Owned(name.to_owned())),
        None => Some(Cow::Borrowed(NetworkName::GLOBAL)),
    };
    let data = fields.data;

    let class = classify(&kind);
    let refuse = |code, message, id| {
        let mut in_reply_to = kind.clone();
        if in_reply_to.len() > MAX_ECHOED_TYPE_BYTES {
            let end = (0..=MAX_ECHOED_TYPE_BYTES).rev().find(|&i| in_reply_to.is_char_boundary(i)).unwrap_or(0);
            in_reply_to = Cow::Owned(in_reply_to[..end].to_owned());
        }
        let kind = match class {
            Class::Known(kind) => kind,
            Class::HubsOnly => MessageKind::Invalid,
            Class::Unknown => MessageKind::UnknownType,
        };
        let target = target.and_then(Result::ok);
        Err(Box::new(RefusedMessage {
            code,
            message,
            kind,
            in_reply_to: Some(in_reply_to),
            target,
            id,
            network: network.clone(),
        }))
    };
    if id_too_long && !matches!(class, Class::Known(MessageKind::Ignored)) {
        return refuse(ErrorCode::InvalidMessage, sentences::ID_TOO_LONG, None);
    }
    let Some(resolved) = network.clone() else {
        return refuse(ErrorCode::InvalidMessage, sentences::NETWORK_NAME_TOO_LONG, id);
    };

    match class {
        Class::HubsOnly => refuse(ErrorCode::NotAllowed, ErrorCode::NotAllowed.explain(), id),
        Class::Unknown => refuse(ErrorCode::UnknownType, ErrorCode::UnknownType.explain(), id),
        Class::Known(MessageKind::Announce) => {
            let ack = fields.ack == Some("true");
            Ok(ClientMessage::Announce(Announce { network: resolved, data, ack }))
        }
        Class::Known(MessageKind::Auth) => {
            let token = fields_of::<Renewal<'_>>(data).map(|data| data.token.0);
            match token {
                Some(token) if token.len() > MAX_TOKEN_BYTES => {
                    refuse(ErrorCode::Unauthorized, sentences::TOKEN_TOO_LONG, id)
                }
                Some(token) if !token.is_empty() => Ok(ClientMessage::Auth(token)),
                _ => refuse(ErrorCode::InvalidMessage, sentences::NO_TOKEN, id),
            }
        }
        Class::Known(MessageKind::Discover) => {
            let wish = fields_of::<Page>(data);
            Ok(ClientMessage::Discover(Discover { network: resolved, limit: wish.and_then(|wish| wish.limit) }))
        }
        Class::Known(MessageKind::Goodbye) => {
            // A blank name means `global`, as in an announcement. Only a missing name means all networks.
            let network = named.map(|_| resolved);
            Ok(ClientMessage::Goodbye(Goodbye { network, data: data.unwrap_or("null") }))
        }
        Class::Known(MessageKind::Ping) => Ok(ClientMessage::Ping),
        Class::Known(MessageKind::Signal(kind)) => match target {
            Some(Ok(_)) if data.is_some_and(|data| is_deeper_than(data.as_bytes(), MAX_SIGNAL_DEPTH)) => {
                refuse(ErrorCode::InvalidMessage, sentences::SIGNAL_DATA_TOO_DEEP, id)
            }
            Some(Ok(target)) => {
                let data = data.unwrap_or("null");
                Ok(ClientMessage::Signal(Signal { kind, target, network: resolved, data, id, has_unfit_id }))
            }
            Some(Err(_)) => refuse(ErrorCode::InvalidMessage, sentences::TARGET_NOT_AN_ID, id),
            None => refuse(ErrorCode::InvalidMessage, sentences::NO_TARGET, id),
        },
        Class::Known(_) => Ok(ClientMessage::Ignored),
    }
}

enum Class {
    Known(MessageKind),
    HubsOnly,
    Unknown,
}

fn classify(kind: &str) -> Class {
    use SignalKind::{
        Answer, IceCandidate, IceRestartAnswer, IceRestartOffer, Offer, RenegotiationAnswer, RenegotiationOffer, Signal,
    };
    Class::Known(match kind {
        "announce" => MessageKind::Announce,
        "auth" => MessageKind::Auth,
        "offer" => MessageKind::Signal(Offer),
        "answer" => MessageKind::Signal(Answer),
        "ice-candidate" => MessageKind::Signal(IceCandidate),
        "renegotiation-offer" => MessageKind::Signal(RenegotiationOffer),
        "renegotiation-answer" => MessageKind::Signal(RenegotiationAnswer),
        "ice-restart-offer" => MessageKind::Signal(IceRestartOffer),
        "ice-restart-answer" => MessageKind::Signal(IceRestartAnswer),
        "signal" => MessageKind::Signal(Signal),
        "discover" => MessageKind::Discover,
        "ping" => MessageKind::Ping,
        "goodbye" => MessageKind::Goodbye,
        // Some clients send `connection-rejected` to hubs. When hubs relayed `connection-rejected` to its target, two
        // of three connections between peers failed.
        "cleanup" | "cleanup-all" | "connection-rejected" | "recovery-offer" => MessageKind::Ignored,
        "announced" | "authorized" | "challenge" | "connected" | "discovered" | "error" | "go-away" | "ice-servers"
        | "peer-disconnected" | "peer-discovered" | "pong" | "receipt" | "token-expires" => {
            return Class::HubsOnly;
        }
        _ => return Class::Unknown,
    })
}

/// Parses `data` if it is an object. Without this check, serde would also accept an array, and would take its elements
/// as the fields.
fn fields_of<'a, T: Deserialize<'a>>(data: Option<&'a str>) -> Option<T> {
    serde_json::from_str(data.filter(|data| data.starts_with('{'))?).ok()
}

/// The fields that `data` of an `auth` has.
#[derive(Deserialize)]
struct Renewal<'a> {
    #[serde(borrow)]
    token: Text<'a>,
}

/// The fields that `data` of a `discover` may have.
#[derive(Deserialize)]
struct Page {
    limit: Option<u64>,
}

#[cfg(test)]
mod tests;
