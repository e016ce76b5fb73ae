//! A shard's state, and everything that happens to it. Nothing here waits.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use proto::keepalive::{Patience, Verdict, Wheel};
use proto::limits::{
    CLOSE_LINGER, FLUSH_BACKLOG, LETTER_BATCH, LETTER_BATCH_BYTES, OUTBOX_HIGH_WATER, OUTBOX_HIGH_WATER_BYTES,
    READ_BUFFER_BYTES, ROSTER_LOW_WATER_BYTES, SEND_FLOOR_BYTES, TICK,
};
use proto::ws::{self, Decoder, Event, Opcode, Progress, Violation};
use proto::{
    Address, CloseReason, Frame, Input, Letter, MessageKind, Now, Origin, Output, PeerId, Router, SessionId, ShardId,
};
use socket2::SockRef;
use tokio::net::tcp::OwnedWriteHalf;
use tracing::debug;

use crate::Gauges;
use crate::clock::Clock;
use crate::queue::SendQueue;
use crate::session::{Counted, HandOff, Phase, Seat, Session};
use crate::stats::{IoStats, Reading};

/// What a shard's sessions may use.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// Longest message in bytes.
    pub max_message_bytes: usize,
    /// Frames that may wait for one session.
    pub send_queue_frames: usize,
    /// Bytes that may wait for one session.
    pub send_queue_bytes: usize,
    /// Bytes that may wait for all sessions of this shard.
    pub send_budget_bytes: usize,
    /// Silence after which a session is dead at the latest.
    pub peer_timeout: Duration,
}

pub(crate) struct Core {
    shard: ShardId,
    router: Router,
    limits: SessionLimits,
    patience: Patience,
    clock: Clock,
    gauges: Arc<Gauges>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    live: usize,
    /// What the router is to be told when its outputs have been drained.
    followups: VecDeque<Followup>,
    /// Sessions with something to write, in the order in which they came to have it.
    dirty: VecDeque<SessionId>,
    flusher: Option<Waker>,
    outboxes: Vec<Outbox>,
    waiting_letters: usize,
    stalled: bool,
    parked: Vec<SessionId>,
    /// Silence is counted from here at the earliest: before, the shard itself was not listening.
    listening_since: Duration,
    last_tick: Duration,
    wheel: Wheel<Due>,
    due: Vec<Due>,
    #[expect(clippy::vec_box, reason = "a session holds its queue by one pointer, and takes it from here as it is")]
    queues: Vec<Box<SendQueue>>,
    read_buffer: Vec<u8>,
    stats: IoStats,
    /// While the hub goes away: where clients find the others.
    drain: Option<Arc<[String]>>,
    echo: bool,
}

struct Slot {
    generation: u32,
    session: Option<Box<Session>>,
}

enum Followup {
    Closed(SessionId, CloseReason),
    Delivered(Origin, PeerId),
    Undelivered(Origin, PeerId, CloseReason),
    GoAway(SessionId),
    Room(SessionId),
}

#[derive(Clone, Copy)]
enum Due {
    Silence(SessionId),
    Linger(SessionId),
    Retire(SessionId),
}

/// Send queues kept for the next session that has something to say: as many as are written to in a busy turn, and at
/// most 18 KiB each, so 2.3 MB a shard.
const QUEUES_KEPT: usize = 128;

impl Core {
    pub(crate) fn new(
        router: Router,
        shard: ShardId,
        shards: u16,
        limits: SessionLimits,
        clock: Clock,
        gauges: Arc<Gauges>,
        echo: bool,
    ) -> Self {
        Self {
            shard,
            router,
            limits,
            patience: Patience::new(limits.peer_timeout),
            clock,
            gauges,
            slots: Vec::new(),
            free: Vec::new(),
            live: 0,
            followups: VecDeque::new(),
            dirty: VecDeque::new(),
            flusher: None,
            outboxes: (0..shards).map(|_| Outbox::default()).collect(),
            waiting_letters: 0,
            stalled: false,
            parked: Vec::new(),
            listening_since: Duration::ZERO,
            last_tick: clock.now().at,
            wheel: Wheel::new(),
            due: Vec::new(),
            queues: Vec::new(),
            read_buffer: vec![0; READ_BUFFER_BYTES],
            stats: IoStats::default(),
            drain: None,
            echo,
        }
    }

    pub(crate) fn router(&self) -> &Router {
        &self.router
    }

    pub(crate) fn stats_mut(&mut self) -> &mut IoStats {
        &mut self.stats
    }

    pub(crate) fn reading(&mut self) -> Reading {
        self.stats.sessions = self.live as u64;
        Reading { router: self.router.stats().clone(), io: self.stats.clone() }
    }

    pub(crate) fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        let slot = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        slot.session.as_deref_mut()
    }

    // --- a session's beginning ---------------------------------------------------------------------------------

    /// Takes in a socket. Its task is to be run under the id.
    pub(crate) fn adopt(&mut self, write: OwnedWriteHalf, handed: Adopted) -> SessionId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, session: None });
            self.slots.len() as u32 - 1
        });
        let now = self.clock.now();
        let Adopted { peer, address, mut seat, leftover } = handed;
        // The one whose place it takes may have ended while it was on its way.
        seat.request_again();
        let seated = seat.is_taken();
        let id = SessionId { slot, generation: self.slots[slot as usize].generation };
        self.slots[slot as usize].session = Some(Box::new(Session {
            peer,
            address,
            write,
            waker: None,
            phase: Phase::Pending,
            reason: None,
            queue: None,
            decoder: Decoder::new(self.limits.max_message_bytes),
            replay: !leftover.is_empty(),
            partial: leftover,
            last_heard: now.at,
            pings: 0,
            blocked: false,
            dirty: false,
            backlog: false,
            parked: false,
            deaf: false,
            client_done: false,
            seat,
            counted: None,
        }));
        self.live += 1;
        self.stats.handshakes += 1;
        if self.echo {
            self.admitted(id, now);
        } else {
            self.input(Input::Opened { session: id, peer, seat: seated }, now);
        }
        id
    }

    fn admitted(&mut self, id: SessionId, now: Now) {
        let counted = Counted::peer(&self.gauges);
        let interval = self.patience.interval();
        let Some(session) = self.session_mut(id) else { return };
        session.phase = Phase::Open;
        session.seat.insist();
        session.counted = Some(counted);
        session.last_heard = now.at;
        session.wake();
        debug!(peer = ?session.peer, address = %session.address, "peer_connected");
        self.wheel.schedule(now.at + interval, Due::Silence(id));
        if self.drain.is_some() {
            self.followups.push_back(Followup::GoAway(id));
            self.wheel.schedule(now.at, Due::Retire(id));
        }
    }

    // --- what comes from sockets -------------------------------------------------------------------------------

    pub(crate) fn take_read_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.read_buffer)
    }

    pub(crate) fn restore_read_buffer(&mut self, buffer: Vec<u8>) {
        self.read_buffer = buffer;
    }

    /// Takes in what was read from a session's socket.
    pub(crate) fn received(&mut self, id: SessionId, bytes: &mut [u8]) {
        let now = self.clock.now();
        self.stats.bytes_in += bytes.len() as u64;
        let Some(session) = self.session_mut(id) else { return };
        session.last_heard = now.at;
        session.pings = 0;
        if session.deaf {
            return;
        }
        if session.partial.is_empty() {
            let (consumed, needed) = self.decode(id, bytes, now);
            if let Some(session) = self.session_mut(id).filter(|s| consumed < bytes.len() && !s.deaf) {
                let rest = &bytes[consumed..];
                // Room for the whole frame, but no more ahead of what has come than that again.
                let room = needed.clamp(rest.len(), 2 * rest.len().max(1024));
                session.partial = Vec::with_capacity(room);
                session.partial.extend_from_slice(rest);
            }
        } else {
            let mut partial = std::mem::take(&mut session.partial);
            partial.extend_from_slice(bytes);
            let (consumed, _) = self.decode(id, &mut partial, now);
            if let Some(session) = self.session_mut(id).filter(|s| consumed < partial.len() && !s.deaf) {
                partial.drain(..consumed);
                if partial.capacity() > 4 * partial.len().max(READ_BUFFER_BYTES) {
                    partial.shrink_to_fit();
                }
                session.partial = partial;
            }
        }
    }

    /// Takes messages from the front of `bytes`. Returns how many bytes those had, and how many the next one needs.
    fn decode(&mut self, id: SessionId, bytes: &mut [u8], now: Now) -> (usize, usize) {
        let placeholder = Decoder::new(0);
        let Some(session) = self.session_mut(id) else { return (bytes.len(), 0) };
        let mut decoder = std::mem::replace(&mut session.decoder, placeholder);
        let mut consumed = 0;
        let needed = loop {
            match decoder.decode(&mut bytes[consumed..]) {
                Ok(Progress::Need(total)) => break total,
                Ok(Progress::Took { consumed: n, event }) => {
                    consumed += n;
                    if let Some(event) = event {
                        self.heard(id, event, now);
                    }
                }
                Err(violation) => {
                    self.violated(id, violation, now);
                    break 0;
                }
            }
            if self.session_mut(id).is_none_or(|session| session.client_done || session.deaf) {
                return (bytes.len(), 0);
            }
        };
        if let Some(session) = self.session_mut(id) {
            session.decoder = decoder;
        }
        (consumed, needed)
    }

    fn heard(&mut self, id: SessionId, event: Event<'_>, now: Now) {
        let echo = self.echo;
        let Some(session) = self.session_mut(id) else { return };
        if session.phase == Phase::Closing {
            if let Event::Close(_) = event {
                session.client_done = true;
                self.finish_if_written(id);
            }
            return;
        }
        match event {
            Event::Text(text) if echo => self.echo_back(id, Opcode::Text, text.as_bytes(), now),
            Event::Binary(bytes) if echo => self.echo_back(id, Opcode::Binary, bytes, now),
            Event::Text(text) => self.input(Input::Message { session: id, text }, now),
            Event::Binary(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => self.input(Input::Message { session: id, text }, now),
                Err(_) => self.input(Input::NotText { session: id }, now),
            },
            Event::Ping(payload) => {
                self.push(id, |out| ws::put_pong(out, payload));
                self.settle(now);
            }
            Event::Pong(payload) => self.input(Input::Pong { session: id, payload }, now),
            Event::Close(frame) => {
                let retiring = session.phase == Phase::Retiring;
                session.client_done = true;
                if !retiring {
                    let code = frame.map(|frame| frame.code);
                    self.push_close(id, |out| match code {
                        Some(code) => ws::put_close(out, code, ""),
                        None => ws::put_header(out, Opcode::Close, 0),
                    });
                }
                let reason = if retiring { CloseReason::Draining } else { CloseReason::ClientClosed };
                self.end(id, reason, now);
            }
        }
    }

    fn echo_back(&mut self, id: SessionId, opcode: Opcode, payload: &[u8], now: Now) {
        self.push(id, |out| {
            ws::put_header(out, opcode, payload.len());
            out.extend_from_slice(payload);
        });
        self.settle(now);
    }

    fn violated(&mut self, id: SessionId, violation: Violation, now: Now) {
        if let Some(session) = self.session_mut(id) {
            session.deaf = true;
        }
        match violation {
            Violation::TooLarge => self.input(Input::TooLarge { session: id }, now),
            Violation::NotUtf8 => self.close_and_tell(id, CloseReason::NotUtf8, now),
            Violation::Protocol(what) => {
                debug!(what, "protocol_error");
                self.close_and_tell(id, CloseReason::ProtocolError, now);
            }
        }
    }

    /// The socket has ended or failed.
    pub(crate) fn lost(&mut self, id: SessionId) {
        let now = self.clock.now();
        let Some(session) = self.session_mut(id) else { return };
        let retiring = session.phase == Phase::Retiring;
        self.end(id, if retiring { CloseReason::Draining } else { CloseReason::ConnectionLost }, now);
        self.remove(id);
        self.settle(now);
    }

    /// The session's own code has failed.
    pub(crate) fn failed(&mut self, id: SessionId) {
        while self.router.poll_output().is_some() {}
        if self.read_buffer.is_empty() {
            self.read_buffer = vec![0; READ_BUFFER_BYTES];
        }
        let now = self.clock.now();
        tracing::error!("a session failed and was closed");
        self.end(id, CloseReason::Internal, now);
        self.remove(id);
        self.settle(now);
    }

    // --- the router --------------------------------------------------------------------------------------------

    fn input(&mut self, input: Input<'_>, now: Now) {
        self.router.handle_input(input, now);
        self.settle(now);
    }

    /// Post from another shard.
    pub(crate) fn letters(&mut self, letters: Vec<Letter>) {
        let now = self.clock.now();
        for letter in letters {
            self.input(Input::Letter(letter), now);
        }
    }

    /// Does what the router says, tells it what came of that, and so on until there is nothing more.
    fn settle(&mut self, now: Now) {
        loop {
            while let Some(output) = self.router.poll_output() {
                self.carry_out(output, now);
            }
            let Some(followup) = self.followups.pop_front() else { break };
            let input = match followup {
                Followup::Closed(session, reason) => Input::Closed { session, reason },
                Followup::Delivered(origin, target) => Input::Delivered { origin, target },
                Followup::Undelivered(origin, target, reason) => Input::Undelivered { origin, target, reason },
                Followup::GoAway(session) => {
                    let hubs = self.drain.as_deref().unwrap_or_default();
                    Input::GoAway { session, reconnect_in: Duration::ZERO, hubs }
                }
                Followup::Room(session) => Input::Room { session },
            };
            self.router.handle_input(input, now);
        }
    }

    fn carry_out(&mut self, output: Output, now: Now) {
        match output {
            Output::Send { session, frame, kind, origin } => self.enqueue(session, &frame, kind, origin, now),
            Output::Letter { to: Address::Shard(shard), letter } => self.post(shard, letter),
            // The hub has no mesh: the router was not told of one and does not write to it.
            Output::Letter { to: Address::Mesh, .. } => {}
            Output::Ping { session, payload } => {
                self.stats.pings += 1;
                self.push(session, |out| ws::put_ping(out, &payload));
            }
            Output::Admit { session } => self.admitted(session, now),
            Output::Backlog { session, more } => {
                if let Some(open) = self.session_mut(session) {
                    open.backlog = more;
                }
                if more {
                    // Perhaps nothing was said in this turn: the flusher asks for the next all the same.
                    self.mark_dirty(session);
                }
            }
            Output::Close { session, reason } => self.close(session, reason, now),
            Output::Event(event) => crate::log(&event),
        }
    }

    fn enqueue(&mut self, id: SessionId, frame: &Frame, kind: MessageKind, origin: Option<Origin>, now: Now) {
        let Some(session) = self.session_mut(id) else { return };
        if !matches!(session.phase, Phase::Open | Phase::Pending) {
            // Ended by what was said to it just before, which the router has not been told yet.
            let (peer, reason) = (session.peer, session.reason.unwrap_or(CloseReason::Draining));
            self.followups.extend(origin.map(|origin| Followup::Undelivered(origin, peer, reason)));
            return;
        }
        let peer = session.peer;
        self.stats.messages_out[kind.index()] += 1;
        // The arena belongs to the router and the queue to this: taken apart so that the bytes are copied only once.
        let Self { router, slots, queues, .. } = self;
        let queue = slots[id.slot as usize]
            .session
            .as_mut()
            .map(|session| session.queue.get_or_insert_with(|| queues.pop().unwrap_or_default()));
        let Some(queue) = queue else { return };
        let before = queue.len_bytes();
        queue.push(origin, |out| match frame {
            Frame::Arena(range) => out.extend_from_slice(&router.arena()[range.clone()]),
            Frame::Owned(bytes) => out.extend_from_slice(bytes),
            Frame::Template(template) => template.write_to(out, &peer, now.wall_ms),
        });
        let added = queue.len_bytes() - before;
        self.queued(id, added);
    }

    fn push(&mut self, id: SessionId, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(added) = self.append(id, write) {
            self.queued(id, added);
        }
    }

    /// Queues a close frame. It has its place however full the queue is: a session that is being ended is not to be
    /// ended once more for it.
    fn push_close(&mut self, id: SessionId, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(added) = self.append(id, write) {
            self.stats.queued_bytes += added as u64;
            self.mark_dirty(id);
        }
    }

    /// Queues a frame. Returns by how many bytes the queue has grown.
    fn append(&mut self, id: SessionId, write: impl FnOnce(&mut Vec<u8>)) -> Option<usize> {
        let Self { slots, queues, .. } = self;
        let slot = slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        let session = slot.session.as_mut()?;
        let queue = session.queue.get_or_insert_with(|| queues.pop().unwrap_or_default());
        let before = queue.len_bytes();
        queue.push(None, write);
        Some(queue.len_bytes() - before)
    }

    /// Notes that a session's queue has grown, and ends a session that reads more slowly than it is written to.
    fn queued(&mut self, id: SessionId, added: usize) {
        self.stats.queued_bytes += added as u64;
        let over_budget = self.stats.queued_bytes > self.limits.send_budget_bytes as u64;
        let limits = self.limits;
        let Some(session) = self.session_mut(id) else { return };
        let Some(queue) = &session.queue else { return };
        let (bytes, frames) = (queue.len_bytes(), queue.len_frames());
        let slow = bytes > limits.send_queue_bytes
            || frames > limits.send_queue_frames
            || (over_budget && bytes > SEND_FLOOR_BYTES);
        let open = matches!(session.phase, Phase::Open | Phase::Pending | Phase::Retiring);
        if slow && open {
            self.cut_slow_consumer(id);
        } else {
            self.mark_dirty(id);
        }
        self.stats.queue_peak_bytes = self.stats.queue_peak_bytes.max(bytes as u64);
        self.stats.queue_peak_frames = self.stats.queue_peak_frames.max(frames as u64);
    }

    fn cut_slow_consumer(&mut self, id: SessionId) {
        let now = self.clock.now();
        let Some(session) = self.session_mut(id) else { return };
        let peer = session.peer;
        let Some(queue) = &mut session.queue else { return };
        let before = queue.len_bytes();
        let dropped: Vec<Origin> = queue.drop_unstarted().collect();
        let freed = before - queue.len_bytes();
        self.stats.queued_bytes -= freed as u64;
        let reason = CloseReason::SlowConsumer;
        self.followups.extend(dropped.into_iter().map(|origin| Followup::Undelivered(origin, peer, reason)));
        self.followups.push_back(Followup::Closed(id, reason));
        self.close(id, reason, now);
    }

    fn mark_dirty(&mut self, id: SessionId) {
        let Some(session) = self.session_mut(id) else { return };
        if !session.dirty && !session.blocked {
            session.dirty = true;
            self.dirty.push_back(id);
            self.wake_flusher();
        }
    }

    fn wake_flusher(&mut self) {
        if let Some(flusher) = self.flusher.take() {
            flusher.wake();
        }
    }

    // --- what goes to sockets ----------------------------------------------------------------------------------

    pub(crate) fn set_flusher(&mut self, waker: &Waker) {
        self.flusher = Some(waker.clone());
    }

    /// Writes to up to `n` sessions. True when there are more.
    pub(crate) fn flush(&mut self, n: usize) -> bool {
        for _ in 0..n {
            let Some(id) = self.dirty.pop_front() else { break };
            if let Some(session) = self.session_mut(id) {
                session.dirty = false;
                self.flush_session(id);
            }
        }
        self.unpark();
        !self.dirty.is_empty()
    }

    /// Writes what waits for a session until its socket takes no more.
    pub(crate) fn flush_session(&mut self, id: SessionId) {
        let now = self.clock.now();
        let mut failed = false;
        loop {
            let Some(slot) = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)
            else {
                return;
            };
            let Some(session) = slot.session.as_deref_mut() else { return };
            let Some(queue) = &mut session.queue else { break };
            match session.write.try_write(queue.unwritten()) {
                Ok(n) => {
                    let peer = session.peer;
                    let followups = &mut self.followups;
                    queue.advance(n, |origin| followups.push_back(Followup::Delivered(origin, peer)));
                    self.stats.bytes_out += n as u64;
                    self.stats.writes += 1;
                    self.stats.queued_bytes -= n as u64;
                    if queue.is_empty()
                        && let Some(mut queue) = session.queue.take()
                        && self.queues.len() < QUEUES_KEPT
                        && queue.recycle()
                    {
                        self.queues.push(queue);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    session.blocked = true;
                    session.wake();
                    break;
                }
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        if failed {
            return self.lost(id);
        }
        if self.session_mut(id).is_some_and(|s| s.backlog && s.queued_bytes() < ROSTER_LOW_WATER_BYTES) {
            self.followups.push_back(Followup::Room(id));
        }
        self.settle(now);
        self.finish_if_written(id);
    }

    // --- a session's end ---------------------------------------------------------------------------------------

    /// Ends a session that the router does not know to have ended.
    fn close_and_tell(&mut self, id: SessionId, reason: CloseReason, now: Now) {
        self.close(id, reason, now);
        self.input(Input::Closed { session: id, reason }, now);
    }

    /// Says why and closes, in the way the reason asks for.
    fn close(&mut self, id: SessionId, reason: CloseReason, now: Now) {
        let Some(session) = self.session_mut(id) else { return };
        if matches!(session.phase, Phase::Closing | Phase::Retiring) {
            return;
        }
        if let Some((code, text)) = reason.close_frame() {
            self.push_close(id, |out| ws::put_close(out, code, text));
        }
        self.wheel.schedule(now.at + CLOSE_LINGER, Due::Linger(id));
        if reason.routes_what_is_in_flight() {
            if let Some(session) = self.session_mut(id) {
                session.phase = Phase::Retiring;
            }
        } else {
            self.mark_ended(id, reason);
        }
    }

    /// Ends a session whose client has ended it, or whose time is over; tells the router.
    fn end(&mut self, id: SessionId, reason: CloseReason, now: Now) {
        if self.session_mut(id).is_none_or(|session| session.phase == Phase::Closing) {
            return;
        }
        self.wheel.schedule(now.at + CLOSE_LINGER, Due::Linger(id));
        self.mark_ended(id, reason);
        self.input(Input::Closed { session: id, reason }, now);
        self.finish_if_written(id);
    }

    fn mark_ended(&mut self, id: SessionId, reason: CloseReason) {
        let Some(session) = self.session_mut(id) else { return };
        session.phase = Phase::Closing;
        session.reason = Some(reason);
        session.backlog = false;
        let admitted = session.counted.take().is_some();
        session.wake();
        debug!(peer = ?session.peer, address = %session.address, reason = reason.label(), admitted, "peer_disconnected");
        self.stats.closes[reason as usize] += 1;
    }

    /// Closes the socket of a session that has said all: wholly if its client is done as well, else our half.
    fn finish_if_written(&mut self, id: SessionId) {
        let Some(session) = self.session_mut(id).filter(|s| s.phase == Phase::Closing && s.queue.is_none()) else {
            return;
        };
        if session.client_done {
            self.remove(id);
            self.settle(self.clock.now());
        } else if session.deaf {
            // No close frame of the client's will be understood, but the end of its stream will. Closing our end
            // for good here would reset the connection, and our close frame might never be read.
            _ = SockRef::from(session.write.as_ref()).shutdown(std::net::Shutdown::Write);
        }
    }

    /// Forgets a session; its task drops the socket.
    fn remove(&mut self, id: SessionId) {
        let Some(slot) = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation) else {
            return;
        };
        let Some(mut session) = slot.session.take() else { return };
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        self.live -= 1;
        session.wake();
        if let Some(mut queue) = session.queue.take() {
            self.stats.queued_bytes -= queue.len_bytes() as u64;
            let reason = session.reason.unwrap_or(CloseReason::ConnectionLost);
            let undelivered = queue.take_signals().map(|origin| Followup::Undelivered(origin, session.peer, reason));
            self.followups.extend(undelivered);
        }
    }

    // --- time --------------------------------------------------------------------------------------------------

    /// Does everything that is due. To be called once a [`TICK`].
    pub(crate) fn tick(&mut self) {
        let now = self.clock.now();
        let thawed = now.at.saturating_sub(self.last_tick) > 10 * TICK;
        if thawed {
            // The process was stopped, and what came meanwhile has not been read yet.
            self.listening_since = now.at;
        }
        self.last_tick = now.at;
        // The pong that a takeover waits for may be among what has not been read.
        let deaf = thawed || self.stalled;
        if !deaf && self.router.poll_timeout().is_some_and(|at| at <= now.at) {
            self.router.handle_timeout(now);
            self.settle(now);
        }
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(now.at, &mut due);
        for due in due.drain(..) {
            match due {
                Due::Silence(id) => self.judge_silence(id, now),
                Due::Linger(id) => self.lingered(id, now),
                Due::Retire(id) => self.input(Input::Retire { session: id }, now),
            }
        }
        self.due = due;
    }

    fn judge_silence(&mut self, id: SessionId, now: Now) {
        let since = if self.stalled { now.at } else { self.listening_since };
        let patience = self.patience;
        let Some(session) = self.session_mut(id).filter(|s| s.phase == Phase::Open) else { return };
        let heard = session.last_heard.max(since);
        let look_again = match patience.judge(now.at.saturating_sub(heard), session.pings) {
            Verdict::Wait(silence) => silence,
            Verdict::Ping(silence) => {
                session.pings += 1;
                self.stats.pings += 1;
                self.push(id, |out| ws::put_ping(out, &[]));
                // The ping may have been one frame too many.
                self.settle(now);
                silence
            }
            Verdict::Dead => return self.close_and_tell(id, CloseReason::DeadPeer, now),
        };
        self.wheel.schedule(heard + look_again, Due::Silence(id));
    }

    fn lingered(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.session_mut(id) else { return };
        if session.phase == Phase::Retiring {
            self.end(id, CloseReason::Draining, now);
        }
        self.remove(id);
        self.settle(now);
    }

    // --- letters -----------------------------------------------------------------------------------------------

    fn post(&mut self, to: ShardId, letter: Letter) {
        let outbox = &mut self.outboxes[usize::from(to.0)];
        outbox.push(letter);
        self.stats.letters_out += 1;
        self.stats.outbox_peak = self.stats.outbox_peak.max(outbox.letters.len() as u64);
        self.waiting_letters += 1;
        if outbox.is_over(1) && !self.stalled {
            self.stalled = true;
            self.stats.stalls += 1;
        }
        self.wake_flusher();
    }

    pub(crate) fn has_letters_for(&self, shard: ShardId) -> bool {
        !self.outboxes[usize::from(shard.0)].letters.is_empty()
    }

    /// Takes the next batch for a shard.
    pub(crate) fn take_letters(&mut self, shard: ShardId) -> Vec<Letter> {
        let batch = self.outboxes[usize::from(shard.0)].take_batch();
        self.waiting_letters -= batch.len();
        self.stats.letter_batches_out += 1;
        if self.stalled && !self.outboxes.iter().any(|outbox| outbox.is_over(2)) {
            self.stalled = false;
            self.listening_since = self.clock.now().at;
        }
        self.unpark();
        batch
    }

    /// Whether no frames are to be read just now: what they say could not be passed on.
    pub(crate) fn is_busy(&self) -> bool {
        self.stalled || self.is_behind()
    }

    /// Whether more sessions wait to be written to than is good for them.
    pub(crate) fn is_behind(&self) -> bool {
        self.dirty.len() > FLUSH_BACKLOG
    }

    /// Has the tasks read on that were kept from it, if they may.
    fn unpark(&mut self) {
        if self.is_busy() {
            return;
        }
        for id in std::mem::take(&mut self.parked) {
            if let Some(session) = self.session_mut(id) {
                session.parked = false;
                session.wake();
            }
        }
    }

    /// Has a session's task woken when frames are read again.
    pub(crate) fn park(&mut self, id: SessionId) {
        if let Some(session) = self.session_mut(id).filter(|session| !session.parked) {
            session.parked = true;
            self.parked.push(id);
        }
    }

    // --- drain -------------------------------------------------------------------------------------------------

    /// Tells every session to go, each at its own time within `spread`.
    pub(crate) fn drain(&mut self, spread: Duration, hubs: &Arc<[String]>) {
        let now = self.clock.now();
        self.drain = Some(Arc::clone(hubs));
        let open: Vec<SessionId> = self.open_sessions().collect();
        let shards = self.outboxes.len() as u32;
        for (i, id) in open.iter().enumerate() {
            // Each shard's slots lie between those of the others.
            let place = i as u32 * shards + u32::from(self.shard.0);
            let slot = spread.mul_f64(f64::from(place) / f64::from((open.len() as u32 * shards).max(1)));
            self.input(Input::GoAway { session: *id, reconnect_in: slot, hubs }, now);
            self.wheel.schedule(now.at + slot, Due::Retire(*id));
        }
    }

    /// Whether a drain has nobody left to wait for.
    pub(crate) fn is_drained(&self) -> bool {
        self.live == 0 && self.waiting_letters == 0
    }

    fn open_sessions(&self) -> impl Iterator<Item = SessionId> {
        self.slots.iter().enumerate().filter_map(|(slot, s)| {
            let open = s.session.as_ref().is_some_and(|session| session.phase == Phase::Open);
            open.then_some(SessionId { slot: slot as u32, generation: s.generation })
        })
    }
}

/// Letters for one shard that its mailbox has not taken yet.
#[derive(Default)]
struct Outbox {
    letters: VecDeque<Letter>,
    /// Of the frames in them.
    bytes: usize,
}

impl Outbox {
    fn push(&mut self, letter: Letter) {
        self.bytes += weight(&letter);
        self.letters.push_back(letter);
    }

    fn take_batch(&mut self) -> Vec<Letter> {
        let mut batch = Vec::with_capacity(self.letters.len().min(LETTER_BATCH));
        let mut bytes = 0;
        while batch.len() < LETTER_BATCH && bytes < LETTER_BATCH_BYTES {
            let Some(letter) = self.letters.pop_front() else { break };
            bytes += weight(&letter);
            batch.push(letter);
        }
        self.bytes -= bytes;
        batch
    }

    /// Whether more waits than a `part` of the high-water mark.
    fn is_over(&self, part: usize) -> bool {
        self.letters.len() > OUTBOX_HIGH_WATER / part || self.bytes > OUTBOX_HIGH_WATER_BYTES / part
    }
}

/// Bytes that a letter alone holds; the announcements of others are shared with the rosters.
fn weight(letter: &Letter) -> usize {
    match letter {
        Letter::Signal { frame, .. } => frame.len(),
        Letter::Joined(_) | Letter::Left(_) | Letter::Outcome { .. } => 0,
    }
}

/// A socket that has come home.
pub(crate) struct Adopted {
    pub(crate) peer: PeerId,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) seat: Seat,
    pub(crate) leftover: Vec<u8>,
}

impl From<HandOff> for (std::net::TcpStream, Adopted) {
    fn from(handed: HandOff) -> Self {
        let HandOff { stream, leftover, peer, address, seat } = handed;
        (stream, Adopted { peer, address, seat, leftover: leftover.into() })
    }
}
