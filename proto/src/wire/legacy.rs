//! Messages on legacy links.

use crate::id::{HubId, NetworkName, PeerId};

use super::json::{SYSTEM, put, put_string, put_tail, put_u64, timestamp};

/// Encodes this hub's introduction on a legacy link that this hub dialed. The introduction contains `host` and `port`,
/// as the introduction of a Go hub does. A Go hub that receives `host` and `port` does not use them.
pub(crate) fn legacy_announce(namespace: &str, advertise: Option<&str>, wall_ms: u64) -> String {
    let authority = advertise.and_then(|url| url.split_once("://")).map_or("", |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or_default();
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    let mut out = Vec::new();
    put(&mut out, "{\"type\":\"announce\",\"networkName\":");
    put_string(&mut out, namespace);
    put(&mut out, ",\"data\":{\"isHub\":true,\"port\":");
    put_u64(&mut out, port.parse::<u16>().unwrap_or(8080).into());
    put(&mut out, ",\"host\":");
    put_string(&mut out, host);
    put(&mut out, ",\"capabilities\":[\"signaling\",\"relay\"],\"timestamp\":");
    out.extend_from_slice(&timestamp(wall_ms));
    put(&mut out, "}}");
    String::from_utf8(out).unwrap_or_default()
}

/// Encodes `connected` in the form that a Go hub sends to clients and hubs.
pub(crate) fn legacy_connected(to: &PeerId, own: &HubId, wall_ms: u64) -> String {
    let mut out = Vec::new();
    put(&mut out, "{\"type\":\"connected\",\"data\":{\"peerId\":\"");
    out.extend_from_slice(&to.to_hex());
    put(&mut out, "\",\"hubId\":\"");
    out.extend_from_slice(&own.0.to_hex());
    put(&mut out, "\"}");
    put_tail(&mut out, SYSTEM, None, NetworkName::GLOBAL, wall_ms);
    String::from_utf8(out).unwrap_or_default()
}

/// Encodes the `peer-discovered` message that announces a peer to a Go hub.
pub(crate) fn legacy_discovered(data: &[u8], network: &str, wall_ms: u64) -> String {
    let mut out = Vec::with_capacity(data.len() + network.len() + 128);
    put(&mut out, "{\"type\":\"peer-discovered\",\"data\":");
    out.extend_from_slice(data);
    put_tail(&mut out, SYSTEM, None, network, wall_ms);
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_has_the_form_that_a_go_hub_sends() {
        let (to, own) = (PeerId::from_bytes([0xab; 20]), HubId(PeerId::from_bytes([0xcd; 20])));
        let (to_hex, own_hex) = ("ab".repeat(20), "cd".repeat(20));
        let text = legacy_connected(&to, &own, 1_700_000_000_123);
        let data = format!(r#"{{"peerId":"{to_hex}","hubId":"{own_hex}"}}"#);
        let from = r#""fromPeerId":"system","networkName":"global","timestamp":1700000000123"#;
        assert_eq!(text, format!(r#"{{"type":"connected","data":{data},{from}}}"#));
    }
}
