//! The binary form of envelopes.

mod read;
#[cfg(test)]
mod tests;
mod write;

use read::{BodyReader, read_envelope};
use write::{put_change, put_heartbeat, put_hub, put_routed, put_snapshot, put_text, put_u16, put_u64};

use super::{Envelope, EnvelopeKind, Malformed};

impl Envelope {
    /// Appends the binary form. Lengths are not checked, so callers must respect the bounds in
    /// [`limits`](crate::limits).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0, 0, 0, 0, self.kind() as u8]);
        match self {
            Self::Hello(hello) => {
                put_u16(out, hello.version);
                put_hub(out, hello.hub, hello.incarnation);
                put_text(out, &hello.namespace);
                out.push(hello.discovery.closest());
                put_u64(out, hello.process);
            }
            Self::Heartbeat(beat) => put_heartbeat(out, beat),
            Self::Change(change) => put_change(out, change),
            Self::SnapshotRequest(request) | Self::SnapshotDeclined(request) => {
                put_hub(out, request.hub, request.incarnation);
                put_u64(out, request.have);
            }
            Self::Snapshot(part) => put_snapshot(out, part),
            Self::Farewell(hub, incarnation) => put_hub(out, *hub, *incarnation),
            Self::Routed(route, routed) => {
                put_hub(out, route.to, route.to_incarnation);
                put_hub(out, route.from, route.from_incarnation);
                out.push(route.hops);
                put_routed(out, routed);
            }
        }
        let len = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// Removes the next envelope from the front of a frame, and decodes it. Returns `None` at the end of the frame.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the bytes are not an envelope. The link must then be closed.
    pub fn decode(frame: &mut &[u8]) -> Result<Option<Self>, Malformed> {
        loop {
            if frame.is_empty() {
                return Ok(None);
            }
            let mut reader = BodyReader(frame);
            let len = reader.u32()? as usize;
            let body = reader.take(len)?;
            *frame = reader.0;
            let mut body = BodyReader(body);
            let kind = body.u8()?;
            let Some(kind) = EnvelopeKind::ALL.get(usize::from(kind)) else { continue };
            let envelope = read_envelope(*kind, &mut body)?;
            // The remaining bytes of the body are ignored, because they can be fields that later releases with the same
            // `VERSION` have added.
            return Ok(Some(envelope));
        }
    }
}
