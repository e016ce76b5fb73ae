//! What waits to be written to one socket.

use std::collections::VecDeque;

use proto::Origin;
use proto::limits::READ_BUFFER_BYTES;

/// Frames in the order in which they will be written, as one run of bytes so that they leave in one write.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    bytes: Vec<u8>,
    /// How many of `bytes` have been written.
    written: usize,
    /// Bytes written before `bytes[0]`, ever. Makes positions that stay true when `bytes` is moved up.
    base: u64,
    /// Where the frame at the front begins: all before it are out.
    front: u64,
    /// Where each waiting frame ends.
    ends: VecDeque<u64>,
    /// The signals among them, with where they end.
    signals: VecDeque<(u64, Origin)>,
}

impl SendQueue {
    /// A queue that has grown beyond this is not worth keeping for the next session. A session with a read's worth of
    /// signals to write stays within.
    const KEPT_BYTES: usize = READ_BUFFER_BYTES;
    const KEPT_FRAMES: usize = 256;
    /// What most frames fit in.
    const FRAME_BYTES: usize = 512;

    /// Appends one frame.
    pub(crate) fn push(&mut self, origin: Option<Origin>, write: impl FnOnce(&mut Vec<u8>)) {
        let room = self.bytes.capacity() - self.bytes.len();
        if !self.bytes.is_empty() && room < Self::FRAME_BYTES && self.bytes.capacity() < Self::KEPT_BYTES {
            // What has a second frame may have many: a crowd's queues grow in few steps, each of which is a copy.
            self.bytes.reserve(3 * self.bytes.len() + Self::FRAME_BYTES);
        }
        write(&mut self.bytes);
        let end = self.base + self.bytes.len() as u64;
        self.ends.push_back(end);
        if let Some(origin) = origin {
            self.signals.push_back((end, origin));
        }
    }

    pub(crate) fn unwritten(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len() - self.written
    }

    pub(crate) fn len_frames(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// Notes that the socket took `n` more bytes, and calls `delivered` for each signal that is now out.
    pub(crate) fn advance(&mut self, n: usize, mut delivered: impl FnMut(Origin)) {
        self.written += n;
        let position = self.base + self.written as u64;
        while let Some(end) = self.ends.pop_front_if(|end| *end <= position) {
            self.front = end;
        }
        while let Some((_, origin)) = self.signals.pop_front_if(|(end, _)| *end <= position) {
            delivered(origin);
        }
        if self.is_empty() {
            self.base = position;
            self.bytes.clear();
            self.written = 0;
        } else if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.base = position;
            self.written = 0;
        }
    }

    /// Takes out every frame of which no byte has been written. The signals among them are returned.
    pub(crate) fn drop_unstarted(&mut self) -> impl Iterator<Item = Origin> + use<> {
        let position = self.base + self.written as u64;
        let begun = self.ends.front().copied().filter(|_| position > self.front);
        let keep = begun.unwrap_or(position);
        self.bytes.truncate((keep - self.base) as usize);
        self.ends.truncate(usize::from(begun.is_some()));
        let kept = self.signals.partition_point(|(end, _)| *end <= keep);
        self.signals.split_off(kept).into_iter().map(|(_, origin)| origin)
    }

    /// Takes out every signal that has not been written to its end.
    pub(crate) fn take_signals(&mut self) -> impl Iterator<Item = Origin> + use<> {
        std::mem::take(&mut self.signals).into_iter().map(|(_, origin)| origin)
    }

    /// Makes the queue ready for another session. False when it is not worth keeping.
    fn recycle(&mut self) -> bool {
        let worth = self.bytes.capacity() <= Self::KEPT_BYTES && self.ends.capacity() <= Self::KEPT_FRAMES;
        if worth {
            self.bytes.clear();
            self.ends.clear();
            self.signals.clear();
            (self.written, self.base, self.front) = (0, 0, 0);
        }
        worth
    }
}

/// Empty queues, kept for the next session that has something to say while there is enough to say. At most
/// [`Self::KEPT`], with what each may have grown to (64 KiB, and 256 frames of 88 bytes): 11 MB a shard while it is
/// busy, and nothing a second or two after.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    #[expect(clippy::vec_box, reason = "a session holds its queue by one pointer, and takes it from here as it is")]
    queues: Vec<Box<SendQueue>>,
    /// The fewest that were here since the pool was last tidied: so many were not needed.
    idle: usize,
}

impl Pool {
    /// As many as are written to in a busy turn.
    const KEPT: usize = 128;

    pub(crate) fn take(&mut self) -> Box<SendQueue> {
        let queue = self.queues.pop().unwrap_or_default();
        self.idle = self.idle.min(self.queues.len());
        queue
    }

    pub(crate) fn keep(&mut self, mut queue: Box<SendQueue>) {
        if self.queues.len() < Self::KEPT && queue.recycle() {
            self.queues.push(queue);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.queues.len()
    }

    /// Frees what has not been needed since the last time. Those taken last are put back last, so the others are at the front.
    pub(crate) fn tidy(&mut self) {
        self.queues.drain(..self.idle);
        self.idle = self.queues.len();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::{NetworkName, Sender, SessionId, ShardId, SignalKind};

    use super::*;

    fn origin(ticket: u64) -> Origin {
        Origin {
            sender: Sender::Session {
                shard: ShardId(0),
                session: SessionId { slot: 0, generation: 0 },
                ticket,
                told: 0,
                heard: 0,
            },
            kind: SignalKind::Offer,
            network: NetworkName::new("n"),
            read_at: Duration::ZERO,
        }
    }

    fn ticket(origin: &Origin) -> u64 {
        match origin.sender {
            Sender::Session { ticket, .. } => ticket,
            Sender::Hub { counter, .. } => counter,
        }
    }

    fn queue(frames: &[&str]) -> SendQueue {
        let mut queue = SendQueue::default();
        for (i, frame) in frames.iter().enumerate() {
            queue.push(Some(origin(i as u64)), |out| out.extend_from_slice(frame.as_bytes()));
        }
        queue
    }

    fn advance(queue: &mut SendQueue, n: usize) -> Vec<u64> {
        let mut out = Vec::new();
        queue.advance(n, |origin| out.push(ticket(&origin)));
        out
    }

    #[test]
    fn a_signal_is_delivered_with_its_last_byte() {
        let mut queue = queue(&["aaaa", "bb", "cc"]);
        assert!(advance(&mut queue, 3).is_empty());
        assert_eq!(advance(&mut queue, 3), [0, 1]);
        assert_eq!((queue.len_frames(), queue.unwritten()), (1, &b"cc"[..]));
        assert_eq!(advance(&mut queue, 2), [2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_frame_that_was_begun_is_kept_whole() {
        for written in 0..=8 {
            let mut queue = queue(&["aaaa", "bb", "cc"]);
            let mut out = advance(&mut queue, written);
            let dropped: Vec<_> = queue.drop_unstarted().map(|origin| ticket(&origin)).collect();
            let rest = queue.len_bytes();
            out.extend(advance(&mut queue, rest));
            let expected_out: &[u64] = match written {
                0 => &[],
                1..=4 => &[0],
                5..=6 => &[0, 1],
                _ => &[0, 1, 2],
            };
            assert_eq!(out, expected_out, "after {written} bytes");
            assert_eq!(out.len() + dropped.len(), 3);
            assert!(queue.is_empty());
        }
    }

    #[test]
    fn a_pool_keeps_what_is_in_use_and_frees_the_rest() {
        let mut pool = Pool::default();
        let busy = |pool: &mut Pool, n: usize| {
            let taken: Vec<_> = (0..n).map(|_| pool.take()).collect();
            taken.into_iter().for_each(|queue| pool.keep(queue));
        };
        busy(&mut pool, Pool::KEPT + 5);
        assert_eq!(pool.queues.len(), Pool::KEPT);
        pool.tidy();
        busy(&mut pool, 3);
        pool.tidy();
        assert_eq!(pool.queues.len(), 3, "those that were used stay");
        pool.tidy();
        assert_eq!(pool.queues.len(), 0);
    }

    #[test]
    fn what_is_left_at_the_end_is_named() {
        let mut queue = queue(&["aaaa", "bb", "cc"]);
        advance(&mut queue, 5);
        let left: Vec<_> = queue.take_signals().map(|origin| ticket(&origin)).collect();
        assert_eq!(left, [1, 2]);
    }
}
