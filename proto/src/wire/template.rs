//! Messages for many recipients.

use crate::id::{PeerId, PeerIncarnation};
use crate::reason::LeaveReason;
use crate::ws;

use super::json::{SYSTEM, TIMESTAMP_LEN, framed, put, put_tail, put_u64, timestamp};
use super::kind::MessageKind;

/// A frame for many recipients. It is encoded once. `targetPeerId` and `timestamp` have a fixed width and are patched
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
    /// Appends the complete frame, including its header, for `target`. `wall_ms` becomes the `timestamp`, in
    /// milliseconds since the Unix epoch. Times before 2001 and after 2286 are clamped.
    pub fn write_to(&self, out: &mut Vec<u8>, target: &PeerId, wall_ms: u64) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let frame = &mut out[start..];
        frame[self.target_at as usize..][..PeerId::HEX_LEN].copy_from_slice(&target.to_hex());
        frame[self.timestamp_at as usize..][..TIMESTAMP_LEN].copy_from_slice(&timestamp(wall_ms));
    }

    /// The value of `data`, as valid JSON.
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.data_at as usize..][..self.data_len as usize]
    }

    /// Length of the frame that [`Self::write_to`] appends, in bytes, including its header.
    pub fn frame_len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns this message with `"again":true`, for recipients that have already discovered the announced member.
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

const NOBODY: PeerId = PeerId::from_bytes([0; 20]);

/// Encodes a message for many recipients. `session` is the session of the peer that joins or leaves.
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
        // All peers behind a legacy link have the same session number, which has no meaning for clients.
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

/// Encodes `peer-disconnected`.
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
    if let Some(code) = reason.close_code() {
        put(&mut data, ",\"closeCode\":");
        put_u64(&mut data, code.into());
    }
    data.push(b'}');
    template(MessageKind::PeerDisconnected.label(), &data, SYSTEM, Some(session), network, wall_ms)
}

/// Encodes `goodbye` for the members of a network. `data` is the JSON of the leaving peer.
pub(crate) fn goodbye(peer: &PeerId, data: &str, network: &str, wall_ms: u64) -> Template {
    let hex = peer.to_hex();
    let from = std::str::from_utf8(&hex).unwrap_or_default();
    template(MessageKind::Goodbye.label(), data.as_bytes(), from, None, network, wall_ms)
}
