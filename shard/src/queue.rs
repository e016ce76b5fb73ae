//! The send queue of one socket.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use proto::limits::{
    CONTROL_LANE_BYTES, READ_BUFFER_BYTES, SENDER_FLOOR_BYTES, SENDER_FLOOR_FRAMES, SENDER_SMALL_BYTES,
    SENDER_SMALL_FRAMES, SHARED_FRAME_BYTES, SIGNAL_QUARTERS,
};
use proto::ws::{self, Opcode};
use proto::{Origin, PeerId, Template};

/// The queued frames are one run of bytes in the order of writing, so that one write sends many frames. Pings and pongs
/// are written before the queued messages, but never inside a message.
///
/// A large frame for many sessions is queued as a reference, and is encoded when it is written. All later frames of the
/// session are queued after the reference. So an announcement of 16 KiB in a network of 500 members does not take 8 MB
/// of memory, and is not encoded for all members in one turn.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    lane: Lane,
    bytes: Vec<u8>,
    /// The frames after `bytes`, from the first large shared frame on.
    later: VecDeque<Later>,
    /// Number of bytes that `later` will have when it is encoded.
    later_bytes: usize,
    /// Number of `bytes` already written.
    written: usize,
    /// Number of bytes written before `bytes[0]`. A position in the queue counts these bytes too, so it stays valid
    /// when `bytes` is shifted.
    base: u64,
    /// Start position of the first frame that is not completely written.
    front: u64,
    /// End positions of the queued frames.
    ends: VecDeque<u64>,
    /// The queued signals.
    signals: VecDeque<Signal>,
    /// Number of bytes in the queued signals.
    signal_bytes: usize,
    /// Each sender's share of the signals. Shares are counted only while many signals are queued. A signal that was
    /// queued while few signals were queued belongs to no share.
    shares: HashMap<u32, SenderShare, Untouched>,
}

/// An entry of [`SendQueue::later`].
#[derive(Debug)]
enum Later {
    /// A frame that is encoded later, for this peer and with this timestamp.
    Shared(Arc<Template>, PeerId, u64),
    /// Encoded frames.
    Run(Vec<u8>),
}

/// A queued signal.
#[derive(Debug)]
struct Signal {
    /// The end position of the signal in the queue.
    end: u64,
    bytes: u32,
    /// The share to which the signal belongs.
    sender: Option<u32>,
    origin: Origin,
}

/// One sender's share of a queue.
#[derive(Clone, Copy, Default, Debug)]
struct SenderShare {
    bytes: usize,
    frames: usize,
}

/// The limits of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) bytes: usize,
    pub(crate) frames: usize,
}

/// The hasher of [`SendQueue::shares`]. The keys of this map are already hashes with a secret key of the process.
type Untouched = std::hash::BuildHasherDefault<Hashed>;

#[derive(Default, Debug)]
pub(crate) struct Hashed(u64);

impl std::hash::Hasher for Hashed {
    fn write(&mut self, _: &[u8]) {}

    fn write_u32(&mut self, hash: u32) {
        self.0 = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl SendQueue {
    /// Capacity above which an empty queue is freed, in bytes. A buffer of this size has room for the signals of one
    /// read.
    const KEPT_BYTES: usize = READ_BUFFER_BYTES;
    const KEPT_FRAMES: usize = 256;
    /// Size of a buffer into which most frames fit.
    const FRAME_BYTES: usize = 512;
    /// Number of bytes that are encoded for one write.
    const BATCH_BYTES: usize = READ_BUFFER_BYTES;

    /// Decides whether a signal of this length may be queued. Returns `None` if the queue has no room for the signal,
    /// and otherwise the share to which the signal will belong. `sender` returns the sender's hash.
    ///
    /// Each sender may use a small share of the room for signals. Beyond the small share, a sender's bytes plus the
    /// bytes of all queued signals must fit into half of the room for signals. So one sender leaves room for others,
    /// and all signals together leave room for the hub's own messages.
    pub(crate) fn admits(&self, room: Room, bytes: usize, sender: impl FnOnce() -> u64) -> Option<Option<u32>> {
        let whole = self.len_bytes() + bytes <= room.bytes && self.len_frames() < room.frames;
        let (all, frames) = (self.signal_bytes + bytes, self.signals.len() + 1);
        let few = all <= SENDER_FLOOR_BYTES.min(room.bytes / 4) && frames <= SENDER_FLOOR_FRAMES.min(room.frames / 4);
        if few || self.signals.is_empty() {
            // A queue without signals accepts the longest signal.
            return whole.then_some(None);
        }
        let sender = sender() as u32;
        let share = self.shares.get(&sender).copied().unwrap_or_default();
        let fair = |own: usize, small: usize, all: usize, room: usize| {
            let room = room / 4 * SIGNAL_QUARTERS;
            all <= room && (own <= small || own + all <= room / 2)
        };
        let fair = fair(share.bytes + bytes, SENDER_SMALL_BYTES, all, room.bytes)
            && fair(share.frames + 1, SENDER_SMALL_FRAMES, frames, room.frames);
        (whole && fair).then_some(Some(sender))
    }

    /// Appends one frame. For a signal, `signal` has its origin and the share from [`Self::admits`].
    pub(crate) fn push(&mut self, signal: Option<(Origin, Option<u32>)>, write: impl FnOnce(&mut Vec<u8>)) {
        let bytes = match self.later.back_mut() {
            None => Self::append(&mut self.bytes, write),
            Some(Later::Run(run)) => Self::append(run, write),
            Some(Later::Shared(..)) => {
                let mut run = Vec::new();
                let bytes = Self::append(&mut run, write);
                self.later.push_back(Later::Run(run));
                bytes
            }
        };
        if !self.later.is_empty() {
            self.later_bytes += bytes;
        }
        let end = self.end();
        self.ends.push_back(end);
        if let Some((origin, sender)) = signal {
            self.signal_bytes += bytes;
            if let Some(sender) = sender {
                let share = self.shares.entry(sender).or_default();
                share.bytes += bytes;
                share.frames += 1;
            }
            self.signals.push_back(Signal { end, bytes: bytes as u32, sender, origin });
        }
    }

    /// Appends one frame to a run of frames. Returns the length of the frame in bytes.
    fn append(run: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let before = run.len();
        let room = run.capacity() - run.len();
        if !run.is_empty() && room < Self::FRAME_BYTES && run.capacity() < Self::KEPT_BYTES {
            // A queue with a second frame often gets many more. The buffer grows in large steps, because each step
            // copies it.
            run.reserve(3 * run.len() + Self::FRAME_BYTES);
        }
        write(run);
        run.len() - before
    }

    /// Appends a frame for many sessions, as a reference if it is large.
    pub(crate) fn push_shared(&mut self, template: &Arc<Template>, target: &PeerId, wall_ms: u64) {
        if template.frame_len() < SHARED_FRAME_BYTES {
            return self.push(None, |out| template.write_to(out, target, wall_ms));
        }
        self.later.push_back(Later::Shared(Arc::clone(template), *target, wall_ms));
        self.later_bytes += template.frame_len();
        let end = self.end();
        self.ends.push_back(end);
    }

    /// Position after the last frame.
    fn end(&self) -> u64 {
        self.base + (self.bytes.len() + self.later_bytes) as u64
    }

    /// Encodes the next frames, if all earlier frames are written.
    fn encode(&mut self) {
        if !self.bytes.is_empty() {
            return;
        }
        while self.bytes.len() < Self::BATCH_BYTES
            && let Some(next) = self.later.pop_front()
        {
            let before = self.bytes.len();
            match next {
                Later::Shared(template, target, wall_ms) => template.write_to(&mut self.bytes, &target, wall_ms),
                Later::Run(run) if before == 0 => self.bytes = run,
                Later::Run(run) => self.bytes.extend_from_slice(&run),
            }
            self.later_bytes -= self.bytes.len() - before;
        }
    }

    /// Removes a signal from its share.
    fn release(&mut self, signal: &Signal) {
        self.signal_bytes -= signal.bytes as usize;
        if let Some(sender) = signal.sender
            && let Some(share) = self.shares.get_mut(&sender)
        {
            share.bytes -= signal.bytes as usize;
            share.frames -= 1;
            if share.frames == 0 {
                self.shares.remove(&sender);
            }
            if self.shares.is_empty() {
                self.shares = HashMap::default();
            }
        }
    }

    /// Queues a ping before the queued messages, if no ping is queued yet.
    pub(crate) fn push_ping(&mut self) {
        if !self.lane.has_ping() {
            ws::put_ping(&mut self.lane.bytes, &[]);
        }
    }

    /// Queues a ping before the queued messages. Only this client can return the payload of this ping. This ping
    /// replaces any other queued ping.
    pub(crate) fn push_question(&mut self, payload: &[u8]) {
        self.lane.retain(|opcode| opcode != Opcode::Ping);
        ws::put_ping(&mut self.lane.bytes, payload);
        self.lane.question_end = self.lane.bytes.len();
    }

    /// Queues a pong before the queued messages. If pings and pongs exceed [`CONTROL_LANE_BYTES`], only the last pong
    /// is kept (RFC 6455 section 5.5.3).
    pub(crate) fn push_pong(&mut self, payload: &[u8]) {
        if self.lane.len() + payload.len() > CONTROL_LANE_BYTES {
            self.lane.retain(|opcode| opcode != Opcode::Pong);
        }
        ws::put_pong(&mut self.lane.bytes, payload);
    }

    /// The bytes to write next.
    pub(crate) fn next(&mut self) -> &[u8] {
        self.encode();
        match self.begun() {
            _ if self.lane.is_empty() => &self.bytes[self.written..],
            Some(end) if !self.lane.is_begun() => &self.bytes[self.written..(end - self.base) as usize],
            _ => &self.lane.bytes[self.lane.written..],
        }
    }

    /// End position of a partly written message, if there is one.
    fn begun(&self) -> Option<u64> {
        let position = self.base + self.written as u64;
        self.ends.front().copied().filter(|_| position > self.front)
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len() - self.written + self.later_bytes + self.lane.len()
    }

    pub(crate) fn len_frames(&self) -> usize {
        self.ends.len()
    }

    /// Whether a signal is queued.
    pub(crate) fn has_signals(&self) -> bool {
        !self.signals.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.bytes.len() && self.later.is_empty() && self.lane.is_empty()
    }

    /// Records that the socket accepted `n` bytes of [`Self::next`], and calls `delivered` for each signal that is
    /// completely written. Returns true if a question ([`Self::push_question`]) was queued. If so, the question has
    /// moved forward or has been written.
    pub(crate) fn advance(&mut self, n: usize, delivered: impl FnMut(Origin)) -> bool {
        let asked = self.lane.question_end > 0;
        if self.lane.is_empty() || self.begun().is_some() && !self.lane.is_begun() {
            self.advance_messages(n, delivered);
        } else {
            self.lane.advance(n);
        }
        asked
    }

    fn advance_messages(&mut self, n: usize, mut delivered: impl FnMut(Origin)) {
        self.written += n;
        let position = self.base + self.written as u64;
        while let Some(end) = self.ends.pop_front_if(|end| *end <= position) {
            self.front = end;
        }
        while let Some(signal) = self.signals.pop_front_if(|signal| signal.end <= position) {
            self.release(&signal);
            delivered(signal.origin);
        }
        if self.written == self.bytes.len() {
            self.base = position;
            self.bytes.clear();
            self.written = 0;
        } else if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.base = position;
            self.written = 0;
        }
    }

    /// Removes every message of which no byte is written. Returns the signals among the removed messages.
    pub(crate) fn drop_unstarted(&mut self) -> impl Iterator<Item = Origin> + use<> {
        let position = self.base + self.written as u64;
        let begun = self.begun();
        let keep = begun.unwrap_or(position);
        // A partly written frame is already encoded.
        self.bytes.truncate((keep - self.base) as usize);
        (self.later, self.later_bytes) = (VecDeque::new(), 0);
        self.ends.truncate(usize::from(begun.is_some()));
        let kept = self.signals.partition_point(|signal| signal.end <= keep);
        let dropped = self.signals.split_off(kept);
        dropped.iter().for_each(|signal| self.release(signal));
        dropped.into_iter().map(|signal| signal.origin)
    }

    /// Takes the origins of all signals that are not completely written.
    pub(crate) fn take_signals(&mut self) -> impl Iterator<Item = Origin> + use<> {
        (self.signal_bytes, self.shares) = (0, HashMap::default());
        std::mem::take(&mut self.signals).into_iter().map(|signal| signal.origin)
    }

    /// Prepares the queue for another session. Returns false if the buffers of the queue are too large to be kept.
    fn recycle(&mut self) -> bool {
        let worth = self.bytes.capacity() <= Self::KEPT_BYTES
            && self.ends.capacity() <= Self::KEPT_FRAMES
            && self.later.capacity() <= Self::KEPT_FRAMES;
        if worth {
            self.bytes.clear();
            self.ends.clear();
            self.signals.clear();
            self.later.clear();
            self.later_bytes = 0;
            (self.signal_bytes, self.shares) = (0, HashMap::default());
            self.lane = Lane::default();
            (self.written, self.base, self.front) = (0, 0, 0);
        }
        worth
    }
}

/// Queued pings and pongs, of at most [`CONTROL_LANE_BYTES`] plus one pong and one ping.
#[derive(Debug, Default)]
struct Lane {
    bytes: Vec<u8>,
    /// Number of `bytes` already written.
    written: usize,
    /// Position after the last byte of a queued question ([`SendQueue::push_question`]). The position is 0 if no
    /// question is queued.
    question_end: usize,
}

impl Lane {
    fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// Whether a ping or pong is partly written. The rest of a partly written frame is written first.
    fn is_begun(&self) -> bool {
        self.written > 0
    }

    fn advance(&mut self, n: usize) {
        self.written += n;
        if self.question_end <= self.written {
            self.question_end = 0;
        }
        if self.is_empty() {
            self.bytes.clear();
            self.written = 0;
        }
    }

    /// The frames with their start and end. The hub's control frames have a header of two bytes.
    fn frames(&self) -> impl Iterator<Item = (usize, usize, Opcode)> {
        let frame = |start: usize| {
            let (&first, &len) = (self.bytes.get(start)?, self.bytes.get(start + 1)?);
            let opcode = if first & 0x0f == Opcode::Ping as u8 { Opcode::Ping } else { Opcode::Pong };
            Some((start, start + 2 + usize::from(len), opcode))
        };
        std::iter::successors(frame(0), move |&(_, end, _)| frame(end))
    }

    fn has_ping(&self) -> bool {
        self.frames().any(|(start, _, opcode)| start >= self.written && opcode == Opcode::Ping)
    }

    /// Removes the written frames, and the unwritten frames for which `kept` returns false.
    fn retain(&mut self, kept: impl Fn(Opcode) -> bool) {
        let mut lane = Self::default();
        for (start, end, opcode) in self.frames().filter(|&(_, end, _)| end > self.written) {
            let begun = start < self.written;
            if begun || kept(opcode) {
                lane.written += if begun { self.written - start } else { 0 };
                lane.bytes.extend_from_slice(&self.bytes[start..end]);
                lane.question_end += if end == self.question_end { lane.bytes.len() } else { 0 };
            }
        }
        *self = lane;
    }
}

/// Empty queues that are kept for later use. The pool has at most [`Self::KEPT`] queues, each with room for at most 64
/// KiB and 256 frames of 88 bytes. So a busy shard keeps up to 11 MB. One or two seconds after the shard was busy, it
/// keeps no queues.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    #[expect(clippy::vec_box, reason = "sessions hold boxed queues, and the pool passes them on without moving them")]
    queues: Vec<Box<SendQueue>>,
    /// The smallest size of the pool since the last call of [`Self::tidy`], which is the number of queues that were not
    /// needed since then.
    idle: usize,
}

impl Pool {
    /// Maximum number of kept queues, which is twice the number that one turn of the flusher writes.
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

    /// Frees the queues that were not needed since the last call. The most recently used queues are at the back.
    pub(crate) fn tidy(&mut self) {
        self.queues.drain(..self.idle);
        self.idle = self.queues.len();
    }
}

#[cfg(test)]
mod tests;
