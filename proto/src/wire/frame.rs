//! Messages for one recipient.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::ice::IceServers;
use crate::id::{HubId, NetworkName, PeerId, PeerIncarnation};
use crate::reason::{ErrorCode, Outcome};
use crate::resume::Secret;

use super::json::{SYSTEM, framed, hex, put, put_string, put_tail, put_u64, timestamp};
use super::kind::{MessageKind, SignalKind};

/// The fields of `connected`.
#[derive(Clone, Debug)]
pub(crate) struct Welcome {
    pub(crate) hub: HubId,
    pub(crate) heartbeat_ms: u64,
    pub(crate) max_message_bytes: usize,
    pub(crate) ice: Option<Arc<IceServers>>,
}

/// Version of the wire protocol, which `connected` contains. The Go hub speaks version 1, and its `connected` contains
/// no version.
const PROTOCOL: u64 = 2;

/// Encodes `connected`, the first message of a session.
pub(crate) fn connected(
    out: &mut Vec<u8>,
    peer: &PeerId,
    session: PeerIncarnation,
    welcome: &Welcome,
    secret: &Secret,
    wall_ms: u64,
) -> Range<usize> {
    framed(out, |out| {
        put(out, "{\"type\":\"connected\",\"data\":{\"peerId\":\"");
        out.extend_from_slice(&peer.to_hex());
        put(out, "\",\"hubId\":\"");
        out.extend_from_slice(&welcome.hub.0.to_hex());
        put(out, "\",\"protocol\":");
        put_u64(out, PROTOCOL);
        put(out, ",\"heartbeatMs\":");
        put_u64(out, welcome.heartbeat_ms);
        put(out, ",\"maxMessageBytes\":");
        put_u64(out, welcome.max_message_bytes as u64);
        put(out, ",\"resume\":\"");
        out.extend_from_slice(&secret.to_hex());
        put(out, "\",\"session\":");
        put_u64(out, session.0);
        if let Some(ice) = &welcome.ice {
            out.push(b',');
            put_ice(out, ice, peer, wall_ms);
        }
        out.push(b'}');
        put_tail(out, SYSTEM, None, NetworkName::GLOBAL, wall_ms);
    })
}

/// Encodes `ice-servers`, which has the same servers as `connected`, with new credentials.
pub(crate) fn ice_servers(out: &mut Vec<u8>, peer: &PeerId, ice: &IceServers, wall_ms: u64) -> Range<usize> {
    framed(out, |out| {
        put(out, "{\"type\":\"ice-servers\",\"data\":{");
        put_ice(out, ice, peer, wall_ms);
        out.push(b'}');
        put_tail(out, SYSTEM, Some(peer), NetworkName::GLOBAL, wall_ms);
    })
}

fn put_ice(out: &mut Vec<u8>, ice: &IceServers, peer: &PeerId, wall_ms: u64) {
    put(out, "\"iceServers\":");
    ice.put(out, peer, wall_ms);
    if let Some(ttl) = ice.ttl() {
        put(out, ",\"iceExpiresInMs\":");
        put_u64(out, ttl.as_millis() as u64);
    }
}

/// Encodes the answer to a `ping` message.
pub(crate) fn pong(out: &mut Vec<u8>, peer: &PeerId, wall_ms: u64) -> Range<usize> {
    framed(out, |out| {
        put(out, "{\"type\":\"pong\",\"data\":{\"timestamp\":");
        out.extend_from_slice(&timestamp(wall_ms));
        out.push(b'}');
        put_tail(out, SYSTEM, Some(peer), NetworkName::GLOBAL, wall_ms);
    })
}

/// Encodes the answer to `discover`. The answer has the number of introduced members, and says whether the network has
/// further members to discover.
pub(crate) fn discovered(
    out: &mut Vec<u8>,
    to: &PeerId,
    told: usize,
    more: bool,
    network: &str,
    wall_ms: u64,
) -> Range<usize> {
    framed(out, |out| {
        put(out, "{\"type\":\"discovered\",\"data\":{\"count\":");
        put_u64(out, told as u64);
        put(out, ",\"more\":");
        put(out, if more { "true" } else { "false" });
        out.push(b'}');
        put_tail(out, SYSTEM, Some(to), network, wall_ms);
    })
}

/// Encodes the answer to `announce` with `ack`, which has the number of other members that the peer has discovered.
pub(crate) fn announced(out: &mut Vec<u8>, to: &PeerId, count: usize, network: &str, wall_ms: u64) -> Range<usize> {
    framed(out, |out| {
        put(out, "{\"type\":\"announced\",\"data\":{\"count\":");
        put_u64(out, count as u64);
        out.push(b'}');
        put_tail(out, SYSTEM, Some(to), network, wall_ms);
    })
}

/// Encodes `token-expires`, or `authorized` as the answer to `auth`. `expires_in_ms` is the time until the token
/// expires, or `None` if it does not expire.
pub(crate) fn token_state(
    out: &mut Vec<u8>,
    to: &PeerId,
    kind: MessageKind,
    expires_in_ms: Option<u64>,
    network: &str,
    wall_ms: u64,
) -> Range<usize> {
    framed(out, |out| {
        put(out, "{\"type\":\"");
        put(out, kind.label());
        put(out, "\",\"data\":{");
        if let Some(expires_in_ms) = expires_in_ms {
            put(out, "\"expiresInMs\":");
            put_u64(out, expires_in_ms);
        }
        out.push(b'}');
        put_tail(out, SYSTEM, Some(to), network, wall_ms);
    })
}

/// Encodes a signal for its target. `data` is the sender's JSON.
pub(crate) fn signal(
    out: &mut Vec<u8>,
    kind: SignalKind,
    data: &str,
    from: &PeerId,
    target: &PeerId,
    network: &str,
    wall_ms: u64,
) -> Range<usize> {
    framed(out, |out| {
        out.reserve(data.len() + network.len() + 224);
        put(out, "{\"type\":\"");
        put(out, kind.label());
        put(out, "\",\"data\":");
        put(out, data);
        hex(from, |from| {
            put_tail(out, from, Some(target), network, wall_ms);
        });
    })
}

/// The fields of an `error` message.
pub(crate) struct ErrorReport<'a> {
    pub(crate) code: ErrorCode,
    pub(crate) message: &'a str,
    pub(crate) in_reply_to: Option<&'a str>,
    pub(crate) target: Option<PeerId>,
    pub(crate) id: Option<&'a str>,
    pub(crate) retry_in: Option<Duration>,
    pub(crate) network: &'a str,
}

/// Encodes `error`.
pub(crate) fn error(out: &mut Vec<u8>, to: &PeerId, report: &ErrorReport<'_>, wall_ms: u64) -> Range<usize> {
    framed(out, |out| {
        put(out, "{\"type\":\"error\",\"data\":{\"code\":\"");
        put(out, report.code.label());
        put(out, "\",\"message\":");
        put_string(out, report.message);
        if let Some(in_reply_to) = report.in_reply_to {
            put(out, ",\"inReplyTo\":");
            put_string(out, in_reply_to);
        }
        if let Some(target) = report.target {
            put(out, ",\"targetPeerId\":\"");
            out.extend_from_slice(&target.to_hex());
            out.push(b'"');
        }
        if let Some(id) = report.id {
            put(out, ",\"id\":");
            put_string(out, id);
        }
        put_retry(out, report.retry_in);
        out.push(b'}');
        put_tail(out, SYSTEM, Some(to), report.network, wall_ms);
    })
}

/// Appends the time after which the client can send the refused message again, rounded up to milliseconds.
fn put_retry(out: &mut Vec<u8>, retry_in: Option<Duration>) {
    if let Some(retry_in) = retry_in {
        put(out, ",\"retryInMs\":");
        put_u64(out, retry_in.as_nanos().div_ceil(1_000_000) as u64);
    }
}

/// The fields of `receipt`. `id` is the id that the sender chose for its signal.
pub(crate) struct ReceiptReport<'a> {
    pub(crate) id: &'a str,
    pub(crate) outcome: Outcome,
    pub(crate) target: Option<PeerId>,
    pub(crate) retry_in: Option<Duration>,
    pub(crate) network: &'a str,
}

/// Encodes `receipt`.
pub(crate) fn receipt(out: &mut Vec<u8>, to: &PeerId, report: &ReceiptReport<'_>, wall_ms: u64) -> Range<usize> {
    let &ReceiptReport { id, outcome, target, retry_in, network } = report;
    framed(out, |out| {
        put(out, "{\"type\":\"receipt\",\"data\":{\"id\":");
        put_string(out, id);
        put(out, ",\"outcome\":\"");
        put(out, outcome.label());
        out.push(b'"');
        if let Some(target) = target {
            put(out, ",\"targetPeerId\":\"");
            out.extend_from_slice(&target.to_hex());
            out.push(b'"');
        }
        put_retry(out, retry_in);
        out.push(b'}');
        put_tail(out, SYSTEM, Some(to), network, wall_ms);
    })
}

/// Encodes `go-away`. `hubs` are the PUBLIC_URLs of the other hubs. The documentation of
/// [`Input::GoAway`](crate::Input::GoAway) explains both times in the message.
pub(crate) fn go_away(
    out: &mut Vec<u8>,
    to: &PeerId,
    close_in: Duration,
    reconnect_in: Duration,
    hubs: &[String],
    network: &str,
    wall_ms: u64,
) -> Range<usize> {
    framed(out, |out| {
        put(out, "{\"type\":\"go-away\",\"data\":{\"reason\":\"draining\",\"closeInMs\":");
        put_u64(out, close_in.as_millis() as u64);
        put(out, ",\"reconnectInMs\":");
        put_u64(out, reconnect_in.as_millis() as u64);
        if !hubs.is_empty() {
            put(out, ",\"hubs\":[");
            for (i, url) in hubs.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                put_string(out, url);
            }
            out.push(b']');
        }
        out.push(b'}');
        put_tail(out, SYSTEM, Some(to), network, wall_ms);
    })
}
