use std::fmt;

use proto::{ClientMessage, ErrorCode, NetworkName, PeerId};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// The codec must find the same meaning in a message as a full JSON parser.
pub fn client_message(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let got = proto::parse(text);
    if let Err(refusal) = &got {
        assert!(
            refusal.in_reply_to.as_ref().is_none_or(|kind| kind.len() <= 64),
            "the refusal echoes more than 64 bytes: {refusal:?}"
        );
    }
    match (serde_json::from_str::<Value>(text), serde_json::from_str::<IgnoredAny>(text)) {
        (_, Err(_)) => assert_eq!(code(&got), Some(ErrorCode::InvalidJson), "for the message {text}"),
        // serde's Value refuses some JSON that the hub relays. Examples are numbers beyond the range of f64, single
        // surrogates, and deep nesting.
        (Err(_), Ok(_)) => {}
        (Ok(_), Ok(_)) => match serde_json::from_str(text) {
            Ok(Members(members)) => check(text, &members, &got),
            Err(_) => assert_eq!(code(&got), Some(ErrorCode::InvalidMessage), "for the message {text}"),
        },
    }
}

type Parsed<'a> = Result<ClientMessage<'a>, Box<proto::RefusedMessage<'a>>>;

fn code(parsed: &Parsed<'_>) -> Option<ErrorCode> {
    parsed.as_ref().err().map(|refusal| refusal.code)
}

/// Fields that the hub reads. The hub refuses a message in which one of these fields occurs twice.
const READ: [&str; 7] = ["ack", "type", "data", "targetPeerId", "targetPeer", "networkName", "id"];

fn check(text: &str, members: &[(String, Value)], got: &Parsed<'_>) {
    let all = |key: &'static str| members.iter().filter(move |(k, _)| *k == key).map(|(_, value)| value);
    let field = |key: &'static str| all(key).next().filter(|value| !value.is_null());
    let string = |key: &'static str| field(key).and_then(Value::as_str);

    let repeated = READ.into_iter().any(|key| all(key).count() > 1);
    let mistyped = ["type", "targetPeerId", "targetPeer", "networkName"]
        .into_iter()
        .any(|key| field(key).is_some_and(|value| !value.is_string()));
    let (false, false, Some(kind)) = (repeated, mistyped, string("type")) else {
        assert_eq!(code(got), Some(ErrorCode::InvalidMessage), "for the message {text}");
        return;
    };

    let target: Option<PeerId> = string("targetPeerId").or(string("targetPeer")).and_then(|id| id.parse().ok());
    let name = string("networkName").filter(|name| !name.trim().is_empty());
    let network = name.unwrap_or(NetworkName::GLOBAL);
    let id = string("id");

    let ignored = matches!(kind, "cleanup" | "cleanup-all" | "connection-rejected" | "recovery-offer");
    let signal = matches!(
        kind,
        "offer"
            | "answer"
            | "ice-candidate"
            | "renegotiation-offer"
            | "renegotiation-answer"
            | "ice-restart-offer"
            | "ice-restart-answer"
            | "signal"
    );
    let for_hubs = matches!(
        kind,
        "announced"
            | "authorized"
            | "challenge"
            | "connected"
            | "discovered"
            | "error"
            | "go-away"
            | "ice-servers"
            | "peer-disconnected"
            | "peer-discovered"
            | "pong"
            | "receipt"
            | "token-expires"
    );
    let known = ignored || signal || matches!(kind, "announce" | "auth" | "discover" | "goodbye" | "ping");
    let token = field("data").and_then(|data| data.get("token")?.as_str());
    let faults = [
        (for_hubs, ErrorCode::NotAllowed),
        (!known && !for_hubs, ErrorCode::UnknownType),
        (network.len() > 256, ErrorCode::InvalidMessage),
        (id.is_some_and(|id| id.len() > 64) && !ignored, ErrorCode::InvalidMessage),
        (signal && target.is_none(), ErrorCode::InvalidMessage),
        (kind == "auth" && token.is_none_or(str::is_empty), ErrorCode::InvalidMessage),
        (kind == "auth" && token.is_some_and(|token| token.len() > 8192), ErrorCode::Unauthorized),
    ];
    let message = match got {
        Ok(message) => {
            assert!(faults.iter().all(|(is, _)| !is), "a message with the faults {faults:?} was accepted: {text}");
            message
        }
        Err(refusal) => {
            assert!(faults.contains(&(true, refusal.code)), "the refusal {refusal:?} has the wrong code for {text}");
            return;
        }
    };
    let same_data = |got: &str| {
        assert!(text.contains(got), "{got} is not part of {text}");
        assert_eq!(serde_json::from_str::<Value>(got).ok().as_ref(), Some(field("data").unwrap_or(&Value::Null)));
    };
    match message {
        ClientMessage::Announce(announce) => {
            assert_eq!((kind, announce.network.as_ref()), ("announce", network), "for the message {text}");
            announce.data.map_or_else(|| assert_eq!(field("data"), None), same_data);
        }
        ClientMessage::Auth(token) => {
            let sent = field("data").and_then(|data| data.get("token")?.as_str());
            assert_eq!((kind, Some(token.as_ref())), ("auth", sent), "for the message {text}");
        }
        ClientMessage::Discover(discover) => {
            assert_eq!((kind, discover.network.as_ref()), ("discover", network), "for the message {text}");
            let limit = field("data").and_then(|data| data.get("limit")?.as_u64());
            assert!(discover.limit.is_none() || discover.limit == limit, "for the message {text}");
        }
        ClientMessage::Goodbye(goodbye) => {
            // A goodbye without a name leaves all networks. A blank name means the network `global`.
            let leaves = string("networkName").map(|_| network);
            assert_eq!((kind, goodbye.network.as_deref()), ("goodbye", leaves), "for the message {text}");
            if field("data").is_some() {
                same_data(goodbye.data);
            } else {
                assert_eq!(goodbye.data, "null");
            }
        }
        ClientMessage::Ignored => assert!(ignored, "{kind} was ignored"),
        ClientMessage::Ping => assert_eq!(kind, "ping"),
        ClientMessage::Signal(signal) => {
            assert_eq!((kind, signal.network.as_ref()), (signal.kind.label(), network), "for the message {text}");
            assert_eq!((Some(signal.target), signal.id.as_deref()), (target, id), "for the message {text}");
            assert_eq!(signal.has_unfit_id, field("id").is_some() && id.is_none(), "for the message {text}");
            if field("data").is_some() {
                same_data(signal.data);
            } else {
                assert_eq!(signal.data, "null");
            }
        }
    }
}

/// The members of a JSON object in order, including repeated members.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}
