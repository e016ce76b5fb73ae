//! Proofs that a client owns its peer id. The id is the hash of a public key, and the client signs a nonce of the hub
//! with the private key.
//!
//! This module defines the messages of the proof and the text that the client signs. The caller makes the nonce and
//! checks the signature.
//!
//! The text names the host to which the client has connected, and a hub accepts only its own host names. So a hostile
//! hub cannot act as the client at another hub. If the hostile hub passes the other hub's nonce to the client, the
//! client signs this nonce together with the hostile hub's name.

use serde::Deserialize;

use crate::id::{PeerId, read_hex, write_hex};
use crate::ws::{self, Opcode};

/// Length of a nonce, in bytes.
pub const NONCE_BYTES: usize = 32;

/// Length of a signature of Ed25519, in bytes.
pub const SIGNATURE_BYTES: usize = 64;

/// The first line of the signed text, so that a signature for another purpose is not valid here.
const CONTEXT: &str = "peerpigeon-id-proof-1";

/// The answer to a [`challenge`].
#[derive(PartialEq, Eq, Debug)]
pub struct Proof {
    /// The host to which the client has connected, as in the client's URL. The host includes the port, unless it is the
    /// default port.
    pub host: String,
    /// The signature of [`signed_text`].
    pub signature: [u8; SIGNATURE_BYTES],
}

/// Parses a public key of Ed25519: 64 hexadecimal digits. `None` for other text.
pub fn parse_key(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    read_hex(&mut key, text).map(|()| key)
}

/// The message that asks a client for a proof, as a complete frame.
pub fn challenge(peer: &PeerId, nonce: &[u8; NONCE_BYTES], wall_ms: u64) -> Vec<u8> {
    let text = format!(
        r#"{{"type":"challenge","data":{{"nonce":"{}"}},"fromPeerId":"system","targetPeerId":"{peer}","networkName":"global","timestamp":{wall_ms}}}"#,
        hex(nonce)
    );
    let mut frame = Vec::new();
    ws::put_header(&mut frame, Opcode::Text, text.len());
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// The text that the client signs. The text has four lines with the context, the host, the nonce in hexadecimal digits,
/// and the client's id.
pub fn signed_text(host: &str, nonce: &[u8; NONCE_BYTES], peer: &PeerId) -> String {
    format!("{CONTEXT}\n{host}\n{}\n{peer}", hex(nonce))
}

/// Parses the message that answers a [`challenge`]. `None` for any other message.
pub fn parse(text: &str) -> Option<Proof> {
    #[derive(Deserialize)]
    struct Message {
        r#type: String,
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        host: String,
        signature: String,
    }
    let Message { data, .. } = serde_json::from_str(text).ok().filter(|message: &Message| message.r#type == "proof")?;
    let mut signature = [0; SIGNATURE_BYTES];
    read_hex(&mut signature, &data.signature)?;
    Some(Proof { host: data.host, signature })
}

fn hex(nonce: &[u8; NONCE_BYTES]) -> String {
    let mut digits = [0; 2 * NONCE_BYTES];
    write_hex(&mut digits, nonce);
    digits.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn only_a_proof_with_a_signature_and_a_host_is_accepted() {
        let digits = "ab".repeat(SIGNATURE_BYTES);
        let right = format!(r#"{{"type":"proof","data":{{"host":"h","signature":"{digits}"}}}}"#);
        assert_eq!(parse(&right), Some(Proof { host: "h".to_owned(), signature: [0xab; SIGNATURE_BYTES] }));
        for wrong in [
            String::new(),
            "[]".to_owned(),
            right.replace("proof", "offer"),
            right.replace("signature", "sign"),
            right.replace("host", "h"),
            right.replacen("ab", "a", 1),
            right.replacen("ab", "xy", 1),
            right.replace(&format!("\"{digits}\""), "7"),
        ] {
            assert_eq!(parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_challenge_has_the_nonce_that_is_signed_with_the_host_and_the_id() {
        let (peer, nonce) = (PeerId::from_bytes([1; 20]), [2; NONCE_BYTES]);
        let frame = challenge(&peer, &nonce, 1_700_000_000_000);
        let text = std::str::from_utf8(ws::payload(&frame)).unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(
            (value["type"].as_str(), value["targetPeerId"].as_str()),
            (Some("challenge"), Some(&*peer.to_string()))
        );
        let sent = value["data"]["nonce"].as_str().unwrap();
        assert_eq!(sent, "02".repeat(NONCE_BYTES));
        assert_eq!(signed_text("hub:1", &nonce, &peer), format!("peerpigeon-id-proof-1\nhub:1\n{sent}\n{peer}"));
    }

    #[test]
    fn a_key_is_64_digits() {
        assert_eq!(parse_key(&"0F".repeat(32)), Some([0x0f; 32]));
        for wrong in ["", &"0f".repeat(31), &"0f".repeat(33), &"xy".repeat(32)] {
            assert_eq!(parse_key(wrong), None, "{wrong}");
        }
    }
}
