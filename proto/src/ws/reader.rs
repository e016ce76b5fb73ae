//! A stream of frames, in whatever pieces it comes.

use std::ops::ControlFlow;

use super::{Decoder, Event, Progress, Speaker, Violation};
use crate::limits::READ_BUFFER_BYTES;

/// Hears the frames of a stream in whatever pieces it is read, and keeps the beginning of one whose rest has not come.
///
/// What is kept is the beginning of one frame, and memory for it grows with what has come, not with what a header claims.
/// The default one refuses every message: it stands where one is away to be read with.
#[derive(Debug, Default)]
pub struct Reader {
    decoder: Decoder,
    speaker: Speaker,
    pub(super) partial: Vec<u8>,
}

impl Reader {
    /// For what `speaker` says, in messages of at most `max_message` bytes. `leftover` was read already: it comes before
    /// what is given to the first [`Self::read`], which may be nothing.
    pub const fn new(speaker: Speaker, max_message: usize, leftover: Vec<u8>) -> Self {
        Self { decoder: Decoder::new(max_message), speaker, partial: leftover }
    }

    /// Bytes that have come of a frame that is not whole.
    pub const fn waiting_bytes(&self) -> usize {
        self.partial.len()
    }

    /// Tells `heard` of all that is whole once `bytes` have come, until it breaks off: the stream is over then, as it is
    /// after [`Event::Close`] or a [`Violation`], and the reader done with.
    pub fn read(
        &mut self,
        bytes: &mut [u8],
        mut heard: impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<(), Violation> {
        let mut partial = std::mem::take(&mut self.partial);
        if partial.is_empty() {
            let ControlFlow::Continue((consumed, needed)) = self.decode(bytes, &mut heard)? else { return Ok(()) };
            let rest = &bytes[consumed..];
            if !rest.is_empty() {
                // Room for the whole frame, but no more ahead of what has come than that again.
                partial.reserve_exact(needed.clamp(rest.len(), 2 * rest.len().max(1024)));
                partial.extend_from_slice(rest);
            }
        } else {
            partial.extend_from_slice(bytes);
            let ControlFlow::Continue((consumed, _)) = self.decode(&mut partial, &mut heard)? else { return Ok(()) };
            partial.drain(..consumed);
            if partial.capacity() > 4 * partial.len().max(READ_BUFFER_BYTES) {
                partial.shrink_to_fit();
            }
        }
        self.partial = partial;
        Ok(())
    }

    /// Takes frames from the front of `bytes`: how many bytes those had, and how many the next one needs.
    fn decode(
        &mut self,
        bytes: &mut [u8],
        heard: &mut impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<(), (usize, usize)>, Violation> {
        let mut consumed = 0;
        loop {
            match self.decoder.take(&mut bytes[consumed..], self.speaker)? {
                Progress::Need(total) => return Ok(ControlFlow::Continue((consumed, total))),
                Progress::Took { consumed: n, event } => {
                    consumed += n;
                    if event.is_some_and(|event| heard(event).is_break()) {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
    }
}
