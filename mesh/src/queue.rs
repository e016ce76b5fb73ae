//! What waits to be written to one link.

use proto::limits::LINK_FRAME_BYTES;
use proto::ws::{self, Opcode};

/// Frames in the order in which they will be written, as one run of bytes; the last is open for more envelopes.
#[derive(Debug)]
pub(crate) struct LinkQueue {
    /// Whole frames.
    bytes: Vec<u8>,
    /// How many of `bytes` have been written.
    written: usize,
    /// Envelopes that are not in a frame yet.
    open: Vec<u8>,
    /// Frames of who dialed are masked (RFC 6455 section 5.3).
    masked: bool,
    /// Data frames that have not been counted.
    frames: u64,
}

impl LinkQueue {
    /// Memory that is kept when nothing waits.
    const KEPT_BYTES: usize = 2 * LINK_FRAME_BYTES;

    pub(crate) fn new(masked: bool) -> Self {
        Self { bytes: Vec::new(), written: 0, open: Vec::new(), masked, frames: 0 }
    }

    /// Appends one envelope, whole, to the open frame.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.open);
        if self.open.len() >= LINK_FRAME_BYTES {
            self.seal();
        }
    }

    /// Appends a message of its own.
    pub(crate) fn message(&mut self, opcode: Opcode, payload: &[u8]) {
        self.seal();
        self.frames += 1;
        self.frame(opcode, payload);
    }

    /// Appends a control frame.
    pub(crate) fn control(&mut self, opcode: Opcode, payload: &[u8]) {
        self.seal();
        self.frame(opcode, &payload[..payload.len().min(ws::MAX_CONTROL_PAYLOAD)]);
    }

    /// Appends a close frame. Nothing may follow it.
    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        let mut frame = Vec::new();
        ws::put_close(&mut frame, code, reason);
        self.control(Opcode::Close, ws::payload(&frame));
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            let mut open = std::mem::take(&mut self.open);
            self.frames += 1;
            self.frame(Opcode::Binary, &open);
            open.clear();
            if open.capacity() <= Self::KEPT_BYTES {
                self.open = open;
            }
        }
    }

    fn frame(&mut self, opcode: Opcode, payload: &[u8]) {
        if !self.masked {
            ws::put_header(&mut self.bytes, opcode, payload.len());
            self.bytes.extend_from_slice(payload);
            return;
        }
        // Without a source of chance there are no ids and no keys, either: the process would not have started.
        let mask = getrandom::u32().unwrap_or_default().to_ne_bytes();
        ws::put_masked_header(&mut self.bytes, opcode, payload.len(), mask);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        ws::mask(&mut self.bytes[start..], mask);
    }

    /// What is to be written next; closes the open frame.
    pub(crate) fn unwritten(&mut self) -> &[u8] {
        self.seal();
        &self.bytes[self.written..]
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len() - self.written + self.open.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len_bytes() == 0
    }

    /// How many data frames were made since this was last asked.
    pub(crate) fn take_frames(&mut self) -> u64 {
        std::mem::take(&mut self.frames)
    }

    /// Notes that the socket took `n` more bytes.
    pub(crate) fn advance(&mut self, n: usize) {
        self.written += n;
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
            self.bytes.shrink_to(Self::KEPT_BYTES);
        } else if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::ws::{Decoder, Event, Progress};

    use super::*;

    /// Writes the queue out `step` bytes at a time, and reads it as the other side does.
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
            let Progress::Took { consumed, event } = progress else { panic!("half a frame") };
            at += consumed;
            match event {
                Some(Event::Binary(payload) | Event::Ping(payload)) => messages.push(payload.to_vec()),
                other => panic!("{other:?}"),
            }
        }
        messages
    }

    #[test]
    fn envelopes_leave_together_in_frames_of_a_size() {
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
    fn control_frames_keep_their_place() {
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
