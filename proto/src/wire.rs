//! Encodes every outgoing message as bytes ready for the socket.
//!
//! Keys have the order of the Go hub: `type, data, fromPeerId, targetPeerId, networkName, timestamp`.

use std::ops::Range;

use crate::id::{HubId, PeerId, PeerIncarnation};
use crate::reason::{ErrorCode, LeaveReason, Outcome};
use crate::resume::Secret;
use crate::ws::{self, MAX_SERVER_HEADER, Opcode};

/// The kinds of signal: messages from one peer to another, relayed by the hub.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[expect(missing_docs, reason = "the labels say it")]
pub enum SignalKind {
    Offer,
    Answer,
    IceCandidate,
    RenegotiationOffer,
    RenegotiationAnswer,
    IceRestartOffer,
    IceRestartAnswer,
}

impl SignalKind {
    /// Every kind, in the order of its discriminant.
    pub const ALL: [Self; 7] = [
        Self::Offer,
        Self::Answer,
        Self::IceCandidate,
        Self::RenegotiationOffer,
        Self::RenegotiationAnswer,
        Self::IceRestartOffer,
        Self::IceRestartAnswer,
    ];

    /// The `type` on the wire.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Answer => "answer",
            Self::IceCandidate => "ice-candidate",
            Self::RenegotiationOffer => "renegotiation-offer",
            Self::RenegotiationAnswer => "renegotiation-answer",
            Self::IceRestartOffer => "ice-restart-offer",
            Self::IceRestartAnswer => "ice-restart-answer",
        }
    }
}

/// The kinds of message, as metrics count them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MessageKind {
    /// From a peer: it joins a network, or changes its data there.
    Announce,
    /// From a peer: a signal of one of the seven kinds.
    Signal(SignalKind),
    /// From a peer: the application's ping.
    Ping,
    /// From a peer: it asks for more members.
    Discover,
    /// From a peer: it leaves a network on purpose.
    Goodbye,
    /// From a peer: a type that is dropped on purpose, such as `cleanup`.
    Ignored,
    /// From a peer: an unknown type.
    UnknownType,
    /// From a peer: not a message of the protocol.
    Invalid,
    /// To a peer: the first message.
    Connected,
    /// To a peer: a member of its network is connected.
    PeerDiscovered,
    /// To a peer: the session of a member has ended.
    PeerDisconnected,
    /// To a peer: the answer to `discover`, with the number of new members.
    Discovered,
    /// To a peer: it has discovered all members that were there when it announced itself.
    Announced,
    /// To a peer: the answer to its ping.
    Pong,
    /// To a peer: the reason why its message failed.
    Error,
    /// To a peer: the outcome of its signal.
    Receipt,
    /// To a peer: this hub is about to stop.
    GoAway,
}

impl MessageKind {
    /// Number of kinds: the length of an array indexed by [`Self::index`].
    pub const COUNT: usize = 23;

    /// Every kind, in the order of [`Self::index`].
    pub const ALL: [Self; Self::COUNT] = [
        Self::Announce,
        Self::Signal(SignalKind::Offer),
        Self::Signal(SignalKind::Answer),
        Self::Signal(SignalKind::IceCandidate),
        Self::Signal(SignalKind::RenegotiationOffer),
        Self::Signal(SignalKind::RenegotiationAnswer),
        Self::Signal(SignalKind::IceRestartOffer),
        Self::Signal(SignalKind::IceRestartAnswer),
        Self::Ping,
        Self::Goodbye,
        Self::Ignored,
        Self::UnknownType,
        Self::Invalid,
        Self::Connected,
        Self::PeerDiscovered,
        Self::PeerDisconnected,
        Self::Pong,
        Self::Error,
        Self::Receipt,
        Self::GoAway,
        Self::Discover,
        Self::Discovered,
        Self::Announced,
    ];

    /// The index of this kind, from 0 without gaps.
    pub const fn index(self) -> usize {
        match self {
            Self::Announce => 0,
            Self::Signal(kind) => 1 + kind as usize,
            Self::Ping => 8,
            Self::Goodbye => 9,
            Self::Ignored => 10,
            Self::UnknownType => 11,
            Self::Invalid => 12,
            Self::Connected => 13,
            Self::PeerDiscovered => 14,
            Self::PeerDisconnected => 15,
            Self::Pong => 16,
            Self::Error => 17,
            Self::Receipt => 18,
            Self::GoAway => 19,
            Self::Discover => 20,
            Self::Discovered => 21,
            Self::Announced => 22,
        }
    }

    /// The name in metrics; for kinds that are sent or received, their `type`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Announce => "announce",
            Self::Signal(kind) => kind.label(),
            Self::Ping => "ping",
            Self::Discover => "discover",
            Self::Discovered => "discovered",
            Self::Announced => "announced",
            Self::Goodbye => "goodbye",
            Self::Ignored => "ignored",
            Self::UnknownType => "unknown-type",
            Self::Invalid => "invalid",
            Self::Connected => "connected",
            Self::PeerDiscovered => "peer-discovered",
            Self::PeerDisconnected => "peer-disconnected",
            Self::Pong => "pong",
            Self::Error => "error",
            Self::Receipt => "receipt",
            Self::GoAway => "go-away",
        }
    }
}

/// A frame for many recipients. It is encoded once; `targetPeerId` and `timestamp` have a fixed width and are patched
/// for each recipient.
#[derive(Debug)]
pub struct Template {
    bytes: Box<[u8]>,
    data_at: u32,
    data_len: u32,
    target_at: u32,
    timestamp_at: u32,
}

impl Template {
    /// Appends the frame for `target` at `wall_ms`.
    pub fn write_to(&self, out: &mut Vec<u8>, target: &PeerId, wall_ms: u64) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let frame = &mut out[start..];
        frame[self.target_at as usize..][..PeerId::HEX_LEN].copy_from_slice(&target.to_hex());
        frame[self.timestamp_at as usize..][..TIMESTAMP_LEN].copy_from_slice(&timestamp(wall_ms));
    }

    /// The value of `data`, as JSON.
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.data_at as usize..][..self.data_len as usize]
    }

    /// Length of the frame in bytes, header included.
    pub fn frame_len(&self) -> usize {
        self.bytes.len()
    }

    /// The same message with `"again":true`: its recipients have discovered this member already.
    pub(crate) fn again(&self) -> Self {
        let had = ws::header_len_of(&self.bytes);
        let mut out = Vec::with_capacity(self.bytes.len() + 16);
        let frame = framed(&mut out, |out| {
            out.extend_from_slice(&self.bytes[had..self.bytes.len() - 1]);
            put(out, ",\"again\":true}");
        });
        let bytes: Box<[u8]> = out[frame].into();
        let longer = (ws::header_len_of(&bytes) - had) as u32;
        Self {
            data_at: self.data_at + longer,
            data_len: self.data_len,
            target_at: self.target_at + longer,
            timestamp_at: self.timestamp_at + longer,
            bytes,
        }
    }
}

const TIMESTAMP_LEN: usize = 13;

/// Milliseconds as 13 digits, the width from 2001 to 2286. Other times are clamped to keep the width.
fn timestamp(wall_ms: u64) -> [u8; TIMESTAMP_LEN] {
    let mut digits = [b'0'; TIMESTAMP_LEN];
    let mut buffer = itoa::Buffer::new();
    digits.copy_from_slice(buffer.format(wall_ms.clamp(1_000_000_000_000, 9_999_999_999_999)).as_bytes());
    digits
}

/// Appends the output of `body` as one text frame. Returns the range of the frame: a few unused bytes may precede it,
/// reserved for a longer header.
fn framed(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
    let base = out.len();
    out.extend_from_slice(&[0; MAX_SERVER_HEADER]);
    body(out);
    let len = out.len() - base - MAX_SERVER_HEADER;
    let (header, size) = ws::header(Opcode::Text, len);
    let start = base + MAX_SERVER_HEADER - size;
    out[start..start + size].copy_from_slice(&header[..size]);
    start..out.len()
}

fn put(out: &mut Vec<u8>, s: &str) {
    out.extend_from_slice(s.as_bytes());
}

fn put_u64(out: &mut Vec<u8>, n: u64) {
    put(out, itoa::Buffer::new().format(n));
}

/// Appends `s` as a JSON string.
pub(crate) fn put_string(out: &mut Vec<u8>, s: &str) {
    out.push(b'"');
    let mut rest = s.as_bytes();
    while let Some(at) = rest.iter().position(|&c| c < 0x20 || c == b'"' || c == b'\\') {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            c @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', c]),
            // Short escapes where they exist, so that text is never longer than the client's.
            0x08 => put(out, "\\b"),
            0x0c => put(out, "\\f"),
            b'\n' => put(out, "\\n"),
            b'\r' => put(out, "\\r"),
            b'\t' => put(out, "\\t"),
            c => {
                let digit = |d: u8| if d < 10 { b'0' + d } else { b'a' + d - 10 };
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(c >> 4), digit(c & 0xf)]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

const SYSTEM: &str = "system";

/// Appends `,"fromPeerId":…,"targetPeerId":…,"networkName":…,"timestamp":…}`, the end of every message. Returns the
/// position of the target's digits.
fn put_tail(out: &mut Vec<u8>, from: &str, target: Option<&PeerId>, network: &str, wall_ms: u64) -> usize {
    put(out, ",\"fromPeerId\":\"");
    put(out, from);
    let mut target_at = 0;
    if let Some(target) = target {
        put(out, "\",\"targetPeerId\":\"");
        target_at = out.len();
        out.extend_from_slice(&target.to_hex());
    }
    put(out, "\",\"networkName\":");
    put_string(out, network);
    put(out, ",\"timestamp\":");
    out.extend_from_slice(&timestamp(wall_ms));
    out.push(b'}');
    target_at
}

fn hex(peer: &PeerId, write: impl FnOnce(&str)) {
    let hex = peer.to_hex();
    write(std::str::from_utf8(&hex).unwrap_or_default());
}

/// The fields of `connected`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Welcome {
    pub(crate) hub: HubId,
    pub(crate) heartbeat_ms: u64,
    pub(crate) max_message_bytes: usize,
}

/// Version of the wire protocol in `connected`. The Go hub speaks version 1 and sends none.
const PROTOCOL: u64 = 2;

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
        out.push(b'}');
        put_tail(out, SYSTEM, None, crate::NetworkName::GLOBAL, wall_ms);
    })
}

pub(crate) fn pong(out: &mut Vec<u8>, peer: &PeerId, wall_ms: u64) -> Range<usize> {
    framed(out, |out| {
        put(out, "{\"type\":\"pong\",\"data\":{\"timestamp\":");
        out.extend_from_slice(&timestamp(wall_ms));
        out.push(b'}');
        put_tail(out, SYSTEM, Some(peer), crate::NetworkName::GLOBAL, wall_ms);
    })
}

/// Encodes the answer to `discover`: the number of introduced members, and whether there are more.
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

/// Encodes the answer to `announce` with `ack`: the number of other members that the peer has discovered.
pub(crate) fn announced(out: &mut Vec<u8>, to: &PeerId, count: usize, network: &str, wall_ms: u64) -> Range<usize> {
    framed(out, |out| {
        put(out, "{\"type\":\"announced\",\"data\":{\"count\":");
        put_u64(out, count as u64);
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
    pub(crate) network: &'a str,
}

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
        out.push(b'}');
        put_tail(out, SYSTEM, Some(to), report.network, wall_ms);
    })
}

pub(crate) fn receipt(
    out: &mut Vec<u8>,
    to: &PeerId,
    id: &str,
    outcome: Outcome,
    target: Option<PeerId>,
    network: &str,
    wall_ms: u64,
) -> Range<usize> {
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
        out.push(b'}');
        put_tail(out, SYSTEM, Some(to), network, wall_ms);
    })
}

/// Encodes `go-away`. `hubs` are the PUBLIC_URLs of the other hubs.
pub(crate) fn go_away(
    out: &mut Vec<u8>,
    to: &PeerId,
    reconnect_in_ms: u64,
    hubs: &[String],
    network: &str,
    wall_ms: u64,
) -> Range<usize> {
    framed(out, |out| {
        put(out, "{\"type\":\"go-away\",\"data\":{\"reason\":\"draining\",\"reconnectInMs\":");
        put_u64(out, reconnect_in_ms);
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

/// Encodes the hub's introduction on a legacy link that it dialed. Go hubs also send `host` and `port`, and use
/// neither.
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

/// Encodes the Go hub's first message to a client or hub.
pub(crate) fn legacy_connected(to: &PeerId, own: &HubId, wall_ms: u64) -> String {
    let mut out = Vec::new();
    put(&mut out, "{\"type\":\"connected\",\"data\":{\"peerId\":\"");
    out.extend_from_slice(&to.to_hex());
    put(&mut out, "\",\"hubId\":\"");
    out.extend_from_slice(&own.0.to_hex());
    put(&mut out, "\"}");
    put_tail(&mut out, SYSTEM, None, crate::NetworkName::GLOBAL, wall_ms);
    String::from_utf8(out).unwrap_or_default()
}

/// Encodes the announcement of a peer on a legacy link.
pub(crate) fn legacy_discovered(data: &[u8], network: &str, wall_ms: u64) -> String {
    let mut out = Vec::with_capacity(data.len() + network.len() + 128);
    put(&mut out, "{\"type\":\"peer-discovered\",\"data\":");
    out.extend_from_slice(data);
    put_tail(&mut out, SYSTEM, None, network, wall_ms);
    String::from_utf8(out).unwrap_or_default()
}

const NOBODY: PeerId = PeerId::from_bytes([0; 20]);

/// Encodes a message for many recipients. `session` is the session that it is about.
fn template(
    kind: &str,
    data: &[u8],
    from: &str,
    session: Option<PeerIncarnation>,
    network: &str,
    wall_ms: u64,
) -> Template {
    let mut out = Vec::with_capacity(data.len() + network.len() + 224);
    let (mut target_at, mut data_at, mut timestamp_at) = (0, 0, 0);
    let frame = framed(&mut out, |out| {
        put(out, "{\"type\":\"");
        put(out, kind);
        put(out, "\",\"data\":");
        data_at = out.len();
        out.extend_from_slice(data);
        target_at = put_tail(out, from, Some(&NOBODY), network, wall_ms);
        timestamp_at = out.len() - 1 - TIMESTAMP_LEN;
        // All peers behind a legacy link have the same number, which says nothing.
        if let Some(session) = session.filter(|session| *session > PeerIncarnation::LEGACY) {
            out.pop();
            put(out, ",\"session\":");
            put_u64(out, session.0);
            out.push(b'}');
        }
    });
    Template {
        data_at: (data_at - frame.start) as u32,
        data_len: data.len() as u32,
        target_at: (target_at - frame.start) as u32,
        timestamp_at: (timestamp_at - frame.start) as u32,
        bytes: out[frame].into(),
    }
}

/// Encodes `peer-discovered`. `data` is the announced object, complete with `peerId` and `isHub`.
pub(crate) fn peer_discovered(data: &[u8], session: PeerIncarnation, network: &str, wall_ms: u64) -> Template {
    template(MessageKind::PeerDiscovered.label(), data, SYSTEM, Some(session), network, wall_ms)
}

pub(crate) fn peer_disconnected(
    peer: &PeerId,
    session: PeerIncarnation,
    reason: LeaveReason,
    network: &str,
    wall_ms: u64,
) -> Template {
    let mut data = Vec::with_capacity(128);
    put(&mut data, "{\"isHub\":false,\"peerId\":\"");
    data.extend_from_slice(&peer.to_hex());
    put(&mut data, "\",\"reason\":\"");
    put(&mut data, reason.label());
    put(&mut data, "\",\"timestamp\":");
    data.extend_from_slice(&timestamp(wall_ms));
    data.push(b'}');
    template(MessageKind::PeerDisconnected.label(), &data, SYSTEM, Some(session), network, wall_ms)
}

pub(crate) fn goodbye(peer: &PeerId, data: &str, network: &str, wall_ms: u64) -> Template {
    let hex = peer.to_hex();
    let from = std::str::from_utf8(&hex).unwrap_or_default();
    template(MessageKind::Goodbye.label(), data.as_bytes(), from, None, network, wall_ms)
}

#[cfg(test)]
mod tests;
