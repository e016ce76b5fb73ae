//! Parses the hub's messages for the oracles.

use proto::PeerId;
use serde_json::Value;

/// A message to a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    Connected {
        peer: PeerId,
        /// The resume secret in the message.
        secret: String,
    },
    Discovered {
        subject: PeerId,
        network: String,
        version: u64,
    },
    Left {
        subject: PeerId,
        network: String,
        goodbye: bool,
        reason: String,
    },
    Signal {
        number: usize,
        text: String,
    },
    Error {
        code: String,
        network: String,
        about: Option<(String, PeerId)>,
    },
    Receipt {
        id: String,
        outcome: String,
    },
    Pong,
    GoAway,
    /// The client's token expires soon.
    TokenExpires,
    /// The client's new token was accepted.
    Authorized,
    /// The answer to `discover`.
    Page {
        count: u64,
        more: bool,
    },
}

/// Parses a message to the peer `to`. The error says what is wrong with the message.
pub(crate) fn read(text: &str, to: &PeerId) -> Result<Heard, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let field = |name: &str| value[name].as_str().unwrap_or_default();
    let peer = |value: &Value| value.as_str().and_then(|hex| hex.parse::<PeerId>().ok());
    let data = &value["data"];
    let word = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
    let kind = field("type");
    let from_hub = !matches!(kind, "offer" | "answer" | "ice-candidate" | "goodbye");
    if from_hub && field("fromPeerId") != "system" {
        return Err(format!("{kind} is from {:?}", field("fromPeerId")));
    }
    if kind != "connected" && peer(&value["targetPeerId"]) != Some(*to) {
        return Err(format!("{kind} is addressed to {:?}", field("targetPeerId")));
    }
    let network = field("networkName").to_owned();
    Ok(match kind {
        "connected" => {
            let peer = peer(&data["peerId"]).ok_or("no peerId")?;
            Heard::Connected { peer, secret: word("resume") }
        }
        "peer-discovered" => {
            if data["isHub"] != Value::Bool(false) {
                return Err("a client is announced as a hub".to_owned());
            }
            let subject = peer(&data["peerId"]).ok_or("no peerId")?;
            Heard::Discovered { subject, network, version: data["v"].as_u64().ok_or("no version")? }
        }
        "peer-disconnected" => {
            let subject = peer(&data["peerId"]).ok_or("no peerId")?;
            Heard::Left { subject, network, goodbye: false, reason: word("reason") }
        }
        "goodbye" => {
            let subject = peer(&value["fromPeerId"]).ok_or("no fromPeerId")?;
            Heard::Left { subject, network, goodbye: true, reason: String::new() }
        }
        "offer" | "answer" | "ice-candidate" => {
            let number = data["s"].as_u64().ok_or("a signal that was never sent")? as usize;
            Heard::Signal { number, text: text.to_owned() }
        }
        "error" => {
            let about = peer(&data["targetPeerId"]).map(|target| (word("inReplyTo"), target));
            Heard::Error { code: word("code"), network, about }
        }
        "receipt" => Heard::Receipt { id: word("id"), outcome: word("outcome") },
        "pong" => Heard::Pong,
        "go-away" => Heard::GoAway,
        "token-expires" => Heard::TokenExpires,
        "authorized" => Heard::Authorized,
        "discovered" => {
            let (count, more) = (data["count"].as_u64().ok_or("no count")?, data["more"].as_bool().ok_or("no more")?);
            Heard::Page { count, more }
        }
        _ => return Err(format!("type {kind:?}")),
    })
}
