//! Queues and writes the output of sockets.

use std::hash::BuildHasher;
use std::task::Waker;

use proto::limits::{FLUSH_CHUNK_BYTES, ROSTER_CHUNKS, ROSTER_LOW_WATER_BYTES, SHARD_TURN_NANOS, WRITE_CHUNK_BYTES};
use proto::{CloseReason, Frame, MessageKind, Now, Origin, PeerId, SessionId, SessionPhase, bug};
use thread::{TurnGuard, planted};

use super::{Core, Followup, Urgency};
use crate::queue::{Room, SendQueue};
use crate::session::why_lost;
use proto::lower;

impl Core {
    pub(super) fn enqueue(
        &mut self,
        id: SessionId,
        frame: &Frame,
        kind: MessageKind,
        signal: Option<(Origin, PeerId)>,
        now: Now,
    ) {
        let Some(session) = self.session_mut(id) else { return };
        if let Some(reason) = session.reason() {
            // The session is retiring or closing, and the router may not know that yet.
            let peer = session.peer;
            self.followups.extend(signal.map(|(origin, _)| Followup::Undelivered(origin, peer, reason)));
            return;
        }
        let peer = session.peer;
        let room = self.room();
        let length = self.length(frame);
        // The router owns the arena, and the core owns the queue. With separate borrows, the bytes are copied only
        // once.
        let Self { router, slots, queues, keys, .. } = self;
        let queue = slots.get_mut(id).map(|session| session.queue.get_or_insert_with(|| queues.take()));
        let Some(queue) = queue else { return bug!(self.bugs, QueueMissing, "{id:?}") };
        let sender = match &signal {
            Some((_, from)) => match queue.admits(room, length, || keys.hash_one(from)) {
                Some(sender) => sender,
                None => {
                    let followup = |(origin, _)| Followup::Undelivered(origin, peer, CloseReason::SlowConsumer);
                    self.followups.extend(signal.map(followup));
                    return;
                }
            },
            None => None,
        };
        self.stats.messages_out[kind.index()] += 1;
        let before = queue.len_bytes();
        let signal = signal.map(|(origin, _)| (origin, sender));
        match frame {
            Frame::Arena(range) => queue.push(signal, |out| out.extend_from_slice(&router.arena()[range.clone()])),
            Frame::Owned(bytes) => queue.push(signal, |out| out.extend_from_slice(bytes)),
            // A template is a presence message, which has no origin.
            Frame::Template(template) => queue.push_shared(template, &peer, now.wall_ms),
        }
        let added = queue.len_bytes() - before;
        self.count_queued_or_cut(id, added, Urgency::of(kind));
    }

    /// The limits of a queue at this moment.
    fn room(&self) -> Room {
        let limits = &self.limits;
        let over_budget = self.stats.queued_bytes > limits.send_budget_bytes as u64;
        let bytes =
            if over_budget { limits.send_floor_bytes.min(limits.send_queue_bytes) } else { limits.send_queue_bytes };
        Room { bytes, frames: limits.send_queue_frames }
    }

    fn length(&self, frame: &Frame) -> usize {
        match frame {
            Frame::Arena(range) => range.len(),
            Frame::Owned(bytes) => bytes.len(),
            Frame::Template(template) => template.frame_len(),
        }
    }

    pub(super) fn push(&mut self, id: SessionId, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(added) = self.append(id, write) {
            self.count_queued_or_cut(id, added, Urgency::First);
        }
    }

    /// Queues a close frame, even if the queue is full.
    pub(super) fn push_close(&mut self, id: SessionId, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(added) = self.append(id, write) {
            self.stats.queued_bytes += added as u64;
            self.mark_dirty(id, added, Urgency::First);
        }
    }

    /// Queues a ping or a pong before the queued messages. [`SendQueue`] limits the bytes of pings and pongs, so they
    /// never close a session as a slow consumer.
    pub(super) fn push_control(&mut self, id: SessionId, push: impl FnOnce(&mut SendQueue)) {
        let Self { slots, queues, .. } = self;
        let Some(session) = slots.get_mut(id) else { return };
        let queue = session.queue.get_or_insert_with(|| queues.take());
        let before = queue.len_bytes();
        push(queue);
        let after = queue.len_bytes();
        // The new frame may replace a longer one, so the queue may have shrunk.
        self.stats.queued_bytes += after as u64;
        lower!(self.bugs, self.stats.queued_bytes, before as u64);
        self.mark_dirty(id, after.saturating_sub(before), Urgency::First);
    }

    /// Handles the event that the socket of a session may accept bytes again.
    pub(crate) fn unblocked(&mut self, id: SessionId) {
        let Some(session) = self.session_mut(id) else { return };
        session.writes.unblock();
        let bytes = session.queued_bytes().min(WRITE_CHUNK_BYTES);
        // Many slow readers must not delay messages that are addressed to other sessions.
        self.mark_dirty(id, bytes, Urgency::Later);
    }

    /// Queues a frame. Returns the number of bytes by which the queue has grown.
    pub(super) fn append(&mut self, id: SessionId, write: impl FnOnce(&mut Vec<u8>)) -> Option<usize> {
        let Self { slots, queues, .. } = self;
        let session = slots.get_mut(id)?;
        let queue = session.queue.get_or_insert_with(|| queues.take());
        let before = queue.len_bytes();
        queue.push(None, write);
        Some(queue.len_bytes() - before)
    }

    /// Records that a session's queue has grown, and closes a session that reads too slowly.
    pub(super) fn count_queued_or_cut(&mut self, id: SessionId, added: usize, urgency: Urgency) {
        self.stats.queued_bytes += added as u64;
        let over_budget = self.stats.queued_bytes > self.limits.send_budget_bytes as u64;
        let limits = self.limits;
        let Some(session) = self.session_mut(id) else { return };
        let Some(queue) = &session.queue else { return bug!(self.bugs, QueueMissing, "{id:?}, {added} bytes") };
        let (bytes, frames) = (queue.len_bytes(), queue.len_frames());
        let slow = bytes > limits.send_queue_bytes
            || frames > limits.send_queue_frames
            || (over_budget && bytes > limits.send_floor_bytes);
        let open = matches!(session.phase(), SessionPhase::Open | SessionPhase::Pending | SessionPhase::Retiring);
        if slow && open {
            self.cut_slow_consumer(id);
        } else {
            self.mark_dirty(id, added, urgency);
        }
        self.stats.queue_peak_bytes = self.stats.queue_peak_bytes.max(bytes as u64);
        self.stats.queue_peak_frames = self.stats.queue_peak_frames.max(frames as u64);
    }

    /// Schedules a session for writing, with `added` more bytes.
    pub(super) fn mark_dirty(&mut self, id: SessionId, added: usize, urgency: Urgency) {
        self.turn.add_bytes(added);
        let Self { slots, writes, .. } = self;
        let Some(session) = slots.get_mut(id) else { return };
        if writes.add(id, &mut session.writes, added, urgency) {
            self.turn.add_write();
            self.wake_flusher();
        }
    }

    pub(super) fn wake_flusher(&mut self) {
        if let Some(flusher) = self.flusher.take() {
            flusher.wake();
        }
    }

    pub(crate) fn set_flusher(&mut self, waker: &Waker) {
        self.flusher = Some(waker.clone());
    }

    /// Writes the queues of up to `n` sessions, and stops when it has written more than [`FLUSH_CHUNK_BYTES`]. Returns
    /// true if other sessions still have data to write.
    pub(crate) fn flush(&mut self, n: usize) -> bool {
        self.begin_turn(SHARD_TURN_NANOS);
        let before = self.stats.bytes_out;
        let _turn = TurnGuard::of("flush", ());
        if self.writes.has_any() {
            planted("flush");
        }
        for nth in 0..n {
            if self.stats.bytes_out - before > FLUSH_CHUNK_BYTES {
                break;
            }
            let Some(id) = self.writes.next(nth, &mut self.slots, &mut self.bugs) else { break };
            self.flush_session(id);
        }
        let more = self.writes.catch_up();
        self.unpark();
        if more {
            // The flusher yields and runs again, so it needs no waker.
            self.flusher = None;
        }
        more
    }

    /// Writes at most [`WRITE_CHUNK_BYTES`] of a session's queue. If the session is receiving a roster and its queue is
    /// short, the next chunks of the roster are queued and written as well.
    pub(crate) fn flush_session(&mut self, id: SessionId) {
        let now = self.now();
        let before = self.stats.writes;
        for _ in 0..ROSTER_CHUNKS {
            let is_whole = self.write_out(id, now);
            let Some(session) = self.session_mut(id) else { break };
            let room = session.backlog && session.queued_bytes() < ROSTER_LOW_WATER_BYTES;
            let blocked = session.writes.is_blocked();
            if room {
                self.followups.push_back(Followup::Room(id));
            }
            self.perform_outputs(now);
            if !room || blocked || !is_whole {
                break;
            }
        }
        let taken = self.stats.writes > before;
        if let Some(session) = self.session_mut(id)
            && session.writes.take_regained()
            && taken
        {
            // The client reads slowly. Much data may precede a ping, so the client cannot answer soon. But the client's
            // socket has accepted bytes, and this shows that the client is alive.
            session.life.shown(now.at);
        }
        self.finish_if_written(id);
    }

    /// Writes pending bytes of the TLS protocol, such as alerts, to a session's client.
    pub(crate) fn flush_tls(&mut self, id: SessionId) {
        if self.session_mut(id).is_some_and(|session| session.write.has_pending() && !session.writes.is_blocked()) {
            self.flush_session(id);
        }
    }

    /// Writes at most [`WRITE_CHUNK_BYTES`] of a session's queue. Returns false if the socket could accept more. The
    /// remaining data is then written after the queues of other sessions.
    fn write_out(&mut self, id: SessionId, now: Now) -> bool {
        let mut failed = None;
        let mut left = WRITE_CHUNK_BYTES;
        loop {
            let Some(session) = self.slots.get_mut(id) else { return true };
            if session.write.has_pending() {
                match session.write.flush() {
                    Ok(n) => {
                        if n > 0 {
                            session.life.wrote(now.at);
                            self.stats.writes += 1;
                        }
                        if session.write.has_pending() {
                            session.writes.block();
                            session.wake();
                            break;
                        }
                    }
                    Err(error) => {
                        failed = Some(why_lost(&error));
                        break;
                    }
                }
            }
            let Some(queue) = &mut session.queue else { break };
            if left == 0 {
                let (bytes, urgency) = (queue.len_bytes(), Urgency::of_queue(queue));
                self.mark_dirty(id, bytes, urgency);
                return false;
            }
            let next = queue.next();
            match session.write.try_write(&next[..next.len().min(left)]) {
                Ok(n) => {
                    left -= n.min(left);
                    session.life.wrote(now.at);
                    let peer = session.peer;
                    let followups = &mut self.followups;
                    if queue.advance(n, |origin| followups.push_back(Followup::Delivered(origin, peer))) {
                        followups.push_back(Followup::AskedOn(id));
                    }
                    self.stats.bytes_out += n as u64;
                    self.stats.writes += 1;
                    lower!(self.bugs, self.stats.queued_bytes, n as u64);
                    if queue.is_empty()
                        && let Some(queue) = session.queue.take()
                    {
                        self.queues.keep(queue);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    session.writes.block();
                    session.wake();
                    break;
                }
                Err(error) => {
                    failed = Some(why_lost(&error));
                    break;
                }
            }
        }
        if let Some(reason) = failed {
            self.unwritable(id, reason);
        }
        true
    }
}
