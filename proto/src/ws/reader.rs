//! Parses a stream of frames that arrives in pieces.

use std::ops::ControlFlow;

use super::{Decoder, Event, Progress, Speaker, Violation};
use crate::limits::READ_BUFFER_BYTES;

/// Parses frames from successive reads of a stream. An incomplete frame at the end of a read is stored until the next
/// read.
///
/// The memory for the incomplete frame grows with the received bytes, not with the length declared in its header.
/// `Default` refuses every message that has a byte of content. The default reader is a placeholder while the real
/// reader is borrowed.
#[derive(Debug, Default)]
pub struct FrameReader {
    decoder: Decoder,
    speaker: Speaker,
    pub(super) partial: Vec<u8>,
}

impl FrameReader {
    /// Makes a reader for frames of `speaker`, with messages of at most `max_message` bytes. `leftover` are bytes that
    /// were already read from the stream. The first call of [`Self::read`] parses the leftover bytes before its own
    /// input, which may be empty.
    pub const fn new(speaker: Speaker, max_message: usize, leftover: Vec<u8>) -> Self {
        Self { decoder: Decoder::new(max_message), speaker, partial: leftover }
    }

    /// Number of received bytes that have not been parsed.
    pub const fn waiting_bytes(&self) -> usize {
        self.partial.len()
    }

    /// Memory for an incomplete message, in bytes.
    pub fn kept_bytes(&self) -> usize {
        self.partial.capacity() + self.decoder.kept_bytes()
    }

    /// Parses the next bytes of the stream, and unmasks them in place. Calls `received` with each complete message and
    /// control frame, until `received` returns `Break`. The remaining bytes are kept for the next call, whose `bytes`
    /// may be empty. Do not call this function again after [`Event::Close`] or an error.
    ///
    /// # Errors
    ///
    /// The first [`Violation`].
    pub fn read(
        &mut self,
        bytes: &mut [u8],
        mut received: impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<(), Violation> {
        let mut partial = std::mem::take(&mut self.partial);
        if partial.is_empty() {
            let (consumed, needed) = self.decode(bytes, &mut received)?;
            let rest = &bytes[consumed..];
            if !rest.is_empty() {
                // Reserves room for the complete frame, but at most 2 KiB or twice the arrived bytes, whichever is
                // more.
                partial.reserve_exact(needed.clamp(rest.len(), 2 * rest.len().max(1024)));
                partial.extend_from_slice(rest);
            }
        } else {
            partial.extend_from_slice(bytes);
            let (consumed, _) = self.decode(&mut partial, &mut received)?;
            partial.drain(..consumed);
            if partial.capacity() > 4 * partial.len().max(READ_BUFFER_BYTES) {
                partial.shrink_to_fit();
            }
        }
        self.partial = partial;
        Ok(())
    }

    /// Parses frames at the front of `bytes` until `received` returns `Break`. Returns the length of the parsed frames,
    /// and the length of the next frame as far as it is known.
    fn decode(
        &mut self,
        bytes: &mut [u8],
        received: &mut impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<(usize, usize), Violation> {
        let mut consumed = 0;
        loop {
            match self.decoder.take(&mut bytes[consumed..], self.speaker)? {
                Progress::Need(total) => return Ok((consumed, total)),
                Progress::Took { consumed: n, event } => {
                    consumed += n;
                    if event.is_some_and(|event| received(event).is_break()) {
                        return Ok((consumed, 0));
                    }
                }
            }
        }
    }
}
