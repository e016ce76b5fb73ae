//! Writes JSON, and the frame around it.

use std::ops::Range;

use crate::id::PeerId;
use crate::ws::{self, MAX_SERVER_HEADER, Opcode};

/// Number of digits of a timestamp.
pub(super) const TIMESTAMP_LEN: usize = 13;

/// Milliseconds as 13 digits, which is the width from 2001 to 2286. Times before 2001 and after 2286 are clamped to
/// keep the width.
pub(super) fn timestamp(wall_ms: u64) -> [u8; TIMESTAMP_LEN] {
    let mut digits = [b'0'; TIMESTAMP_LEN];
    let mut buffer = itoa::Buffer::new();
    digits.copy_from_slice(buffer.format(wall_ms.clamp(1_000_000_000_000, 9_999_999_999_999)).as_bytes());
    digits
}

/// Appends the output of `body` as one text frame. Returns the range of the frame in `out`. A few unused bytes can
/// precede the frame, because room for the longest header is reserved.
pub(super) fn framed(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
    let base = out.len();
    out.extend_from_slice(&[0; MAX_SERVER_HEADER]);
    body(out);
    let len = out.len() - base - MAX_SERVER_HEADER;
    let (header, size) = ws::header(Opcode::Text, len);
    let start = base + MAX_SERVER_HEADER - size;
    out[start..start + size].copy_from_slice(&header[..size]);
    start..out.len()
}

/// Appends text.
pub(super) fn put(out: &mut Vec<u8>, s: &str) {
    out.extend_from_slice(s.as_bytes());
}

/// Appends a number in decimal digits.
pub(super) fn put_u64(out: &mut Vec<u8>, n: u64) {
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
            // If a character has a short escape, the hub writes the short escape. So the encoded string is never longer
            // than the string that the client sent.
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

/// `fromPeerId` of the hub's own messages.
pub(super) const SYSTEM: &str = "system";

/// Appends `,"fromPeerId":…,"targetPeerId":…,"networkName":…,"timestamp":…}`, the end of every message. Returns the
/// position of the target's digits.
pub(super) fn put_tail(out: &mut Vec<u8>, from: &str, target: Option<&PeerId>, network: &str, wall_ms: u64) -> usize {
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

/// Calls `write` with the written form of an id.
pub(super) fn hex(peer: &PeerId, write: impl FnOnce(&str)) {
    let hex = peer.to_hex();
    write(std::str::from_utf8(&hex).unwrap_or_default());
}
