//! Parses messages of Go hubs on legacy links.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::id::{NetworkName, PeerId};
use crate::limits::MAX_SIGNAL_DEPTH;
use crate::wire::{MessageKind, SignalKind};

use super::{Class, classify};

/// A message of a legacy link.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LegacyMessage<'a> {
    /// A peer of the Go hub is in `network`, and announced `data` there.
    Discovered { peer: PeerId, network: Cow<'a, str>, data: &'a str },
    /// A peer of the Go hub has disconnected.
    Disconnected { peer: PeerId },
    /// A peer of the Go hub has left `network`.
    Goodbye { peer: PeerId, network: Cow<'a, str>, data: &'a str },
    /// A peer of the Go hub sends a signal to another peer.
    Signal { kind: SignalKind, from: PeerId, target: PeerId, network: Cow<'a, str>, data: &'a str },
    /// A message that needs no action.
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    from_peer_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    target_peer_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    network_name: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct About<'a> {
    #[serde(borrow)]
    peer_id: Cow<'a, str>,
    #[serde(default)]
    is_hub: bool,
}

/// Parses a message of a legacy link. Returns `None` if the message violates the protocol.
pub(crate) fn parse_legacy(text: &str) -> Option<LegacyMessage<'_>> {
    let wire: Wire<'_> = serde_json::from_str(text).ok()?;
    let data = wire.data.map_or("null", RawValue::get);
    let network = match wire.network_name {
        Some(name) if !name.trim().is_empty() => {
            NetworkName::resolve(Some(&name))?;
            name
        }
        _ => Cow::Borrowed(NetworkName::GLOBAL),
    };
    let from = || wire.from_peer_id.as_deref()?.parse().ok();
    let about = || serde_json::from_str::<About<'_>>(data).ok();
    Some(match wire.kind.as_ref() {
        "peer-discovered" => {
            let about = about()?;
            if about.is_hub {
                return Some(LegacyMessage::Other);
            }
            LegacyMessage::Discovered { peer: about.peer_id.parse().ok()?, network, data }
        }
        "peer-disconnected" => LegacyMessage::Disconnected { peer: about()?.peer_id.parse().ok()? },
        "goodbye" => LegacyMessage::Goodbye { peer: from()?, network, data },
        kind => match classify(kind) {
            Class::Known(MessageKind::Signal(kind)) => {
                if super::is_deeper_than(data.as_bytes(), MAX_SIGNAL_DEPTH) {
                    return None;
                }
                let target = wire.target_peer_id.as_deref()?.parse().ok()?;
                LegacyMessage::Signal { kind, from: from()?, target, network, data }
            }
            Class::Known(_) | Class::HubsOnly | Class::Unknown => LegacyMessage::Other,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "00000000000000000000000000000000000000aa";
    const B: &str = "00000000000000000000000000000000000000bb";

    #[test]
    fn messages_of_a_go_hub_are_parsed() {
        let data = format!(r#"{{"info":"hi","isHub":false,"peerId":"{A}"}}"#);
        let from = r#""fromPeerId":"system","networkName":"n","timestamp":1"#;
        let text = format!(r#"{{"type":"peer-discovered","data":{data},{from}}}"#);
        let Some(LegacyMessage::Discovered { peer, network, data }) = parse_legacy(&text) else { panic!() };
        assert_eq!((peer.to_string().as_str(), network.as_ref()), (A, "n"));
        assert!(data.starts_with(r#"{"info":"hi""#));

        let peers = format!(r#""fromPeerId":"{A}","targetPeerId":"{B}""#);
        let text = format!(r#"{{"type":"offer","data":{{"sdp":"x"}},{peers},"networkName":"n","timestamp":1}}"#);
        let Some(LegacyMessage::Signal { kind, from, target, data, .. }) = parse_legacy(&text) else { panic!() };
        assert_eq!((kind, from.to_string().as_str(), target.to_string().as_str()), (SignalKind::Offer, A, B));
        assert_eq!(data, r#"{"sdp":"x"}"#);
    }

    #[test]
    fn messages_about_hubs_have_no_effect_and_invalid_messages_are_refused() {
        let hub = format!(r#"{{"type":"peer-discovered","data":{{"isHub":true,"peerId":"{A}"}}}}"#);
        assert_eq!(parse_legacy(&hub), Some(LegacyMessage::Other));
        assert_eq!(parse_legacy(r#"{"type":"announce","data":{"isHub":true}}"#), Some(LegacyMessage::Other));
        for nonsense in ["", "{}", "[]", r#"{"type":"offer"}"#, r#"{"type":"peer-discovered","data":{"peerId":"x"}}"#] {
            assert_eq!(parse_legacy(nonsense), None, "{nonsense}");
        }
    }
}
