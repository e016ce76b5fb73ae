//! The send queue of one link.

use proto::limits::LINK_FRAME_BYTES;
use proto::ws::{self, Opcode};

/// Frames in the order in which they are written, in one buffer. The last frame may still be open for envelopes.
#[derive(Debug)]
pub(crate) struct LinkQueue {
    bytes: Vec<u8>,
    /// Number of `bytes` already written.
    written: usize,
    /// Start of the open frame, if there is one. The header of the frame is written when the frame's length is known.
    open: Option<usize>,
    /// Whether frames are masked: the dialer must mask its frames (RFC 6455 section 5.3).
    masked: bool,
    /// Number of data frames made since the last call of [`Self::take_frames`].
    frames: u64,
}

impl LinkQueue {
    /// Maximum capacity that an emptied queue keeps, in bytes.
    const KEPT_BYTES: usize = 8 * LINK_FRAME_BYTES;

    /// Length of a typical payload. A frame is started with room for the header of such a payload.
    const USUAL_PAYLOAD: usize = 1024;

    pub(crate) fn new(masked: bool) -> Self {
        Self { bytes: Vec::new(), written: 0, open: None, masked, frames: 0 }
    }

    /// Appends one complete envelope to the open frame, or begins a frame with it.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let room = self.header_len(Self::USUAL_PAYLOAD);
        let start = *self.open.get_or_insert_with(|| {
            let start = self.bytes.len();
            self.bytes.resize(start + room, 0);
            start
        });
        write(&mut self.bytes);
        if self.bytes.len() - start - room >= LINK_FRAME_BYTES {
            self.seal();
        }
    }

    /// Appends a message.
    pub(crate) fn message(&mut self, opcode: Opcode, payload: &[u8]) {
        self.frames += 1;
        self.frame(opcode, payload);
    }

    /// Appends a control frame.
    pub(crate) fn control(&mut self, opcode: Opcode, payload: &[u8]) {
        self.frame(opcode, &payload[..payload.len().min(ws::MAX_CONTROL_PAYLOAD)]);
    }

    /// Appends a close frame. Nothing may follow it.
    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        let mut frame = Vec::new();
        ws::put_close(&mut frame, code, reason);
        self.control(Opcode::Close, ws::payload(&frame));
    }

    fn header_len(&self, payload: usize) -> usize {
        ws::header_len(payload) + if self.masked { ws::MASK_LEN } else { 0 }
    }

    fn seal(&mut self) {
        let Some(start) = self.open.take() else { return };
        let room = self.header_len(Self::USUAL_PAYLOAD);
        let payload = self.bytes.len() - start - room;
        let needed = self.header_len(payload);
        if needed != room {
            // The payload must be moved, because its header is shorter or longer than usual. Such a payload is short,
            // and so cheap to move, or contains an envelope much longer than a frame, which is rare.
            self.bytes.splice(start..start + room, std::iter::repeat_n(0, needed));
        }
        let mut header = Vec::with_capacity(needed);
        if self.masked {
            let mask = mask();
            ws::put_masked_header(&mut header, Opcode::Binary, payload, mask);
            ws::mask(&mut self.bytes[start + needed..], mask);
        } else {
            ws::put_header(&mut header, Opcode::Binary, payload);
        }
        self.bytes[start..start + needed].copy_from_slice(&header);
        self.frames += 1;
    }

    fn frame(&mut self, opcode: Opcode, payload: &[u8]) {
        self.seal();
        if !self.masked {
            ws::put_header(&mut self.bytes, opcode, payload.len());
            self.bytes.extend_from_slice(payload);
            return;
        }
        let mask = mask();
        ws::put_masked_header(&mut self.bytes, opcode, payload.len(), mask);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        ws::mask(&mut self.bytes[start..], mask);
    }

    /// The bytes to write next. Closes the open frame.
    pub(crate) fn unwritten(&mut self) -> &[u8] {
        self.seal();
        &self.bytes[self.written..]
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len() - self.written
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len_bytes() == 0
    }

    /// Number of data frames made since the last call.
    pub(crate) fn take_frames(&mut self) -> u64 {
        std::mem::take(&mut self.frames)
    }

    /// Records that the socket accepted `n` more bytes.
    pub(crate) fn advance(&mut self, n: usize) {
        self.written += n;
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
            self.bytes.shrink_to(Self::KEPT_BYTES);
        } else if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.open = self.open.map(|open| open - self.written);
            self.written = 0;
        }
    }
}

/// A random mask. The system provides random numbers: without them, the process would not have started.
fn mask() -> [u8; 4] {
    getrandom::u32().unwrap_or_default().to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use proto::ws::{Decoder, Event, Progress};

    use super::*;

    /// Writes the queue `step` bytes at a time, and parses the bytes like the other side.
    fn read(mut queue: LinkQueue, step: usize) -> Vec<Vec<u8>> {
        let mut stream = Vec::new();
        while !queue.is_empty() {
            let n = queue.unwritten().len().min(step);
            stream.extend_from_slice(&queue.unwritten()[..n]);
            queue.advance(n);
        }
        let (mut decoder, mut at, mut messages) = (Decoder::new(1 << 20), 0, Vec::new());
        while at < stream.len() {
            let rest = &mut stream[at..];
            let progress = if queue.masked { decoder.decode(rest) } else { decoder.decode_from_server(rest) }.unwrap();
            let Progress::Took { consumed, event } = progress else { panic!("the queue ends inside a frame") };
            at += consumed;
            match event {
                Some(Event::Binary(payload) | Event::Ping(payload)) => messages.push(payload.to_vec()),
                other => panic!("{other:?}"),
            }
        }
        messages
    }

    #[test]
    fn envelopes_are_batched_into_frames_of_bounded_size() {
        for masked in [false, true] {
            let mut queue = LinkQueue::new(masked);
            for i in 0..3_000_u32 {
                queue.push(|out| out.extend_from_slice(&[i as u8; 100]));
            }
            let messages = read(queue, 10_000);
            assert_eq!(messages.len(), 3_000_usize.div_ceil(LINK_FRAME_BYTES.div_ceil(100)));
            assert!(messages.iter().all(|message| message.len() <= LINK_FRAME_BYTES + 100 && message.len() % 100 == 0));
            assert_eq!(messages.concat().chunks(100).map(|c| c[0]).collect::<Vec<_>>(), {
                (0..3_000_u32).map(|i| i as u8).collect::<Vec<_>>()
            });
        }
    }

    #[test]
    fn frames_of_every_length_have_the_header_they_need() {
        for masked in [false, true] {
            for len in [1, 125, 126, 1024, 65_535, 65_536, 100_000] {
                let mut queue = LinkQueue::new(masked);
                queue.push(|out| out.extend_from_slice(b"before"));
                queue.control(Opcode::Ping, b"p");
                queue.push(|out| out.resize(out.len() + len, b'x'));
                let messages = read(queue, 50_000);
                assert_eq!(messages.iter().map(Vec::len).collect::<Vec<_>>(), [6, 1, len], "{len} bytes");
                assert!(messages[2].iter().all(|byte| *byte == b'x'));
            }
        }
    }

    #[test]
    fn control_frames_are_queued_in_order() {
        let mut queue = LinkQueue::new(true);
        queue.push(|out| out.extend_from_slice(b"a"));
        queue.control(Opcode::Ping, b"p");
        queue.push(|out| out.extend_from_slice(b"b"));
        queue.message(Opcode::Binary, b"");
        assert_eq!(queue.len_bytes(), (6 + 1) * 3 + 6);
        assert_eq!(queue.take_frames(), 3);
        assert_eq!(read(queue, 1), [&b"a"[..], b"p", b"b", b""]);
    }
}
