//! The state of a shard, and the functions that handle its events. These functions never wait.
//!
//! This file begins sessions and drives the router. [`slots`] finds sessions by their handles. [`inbound`] processes
//! received data, [`outbound`] queues and writes the output, and [`writes`] selects the session to write next.
//! [`ending`] and [`failures`] end sessions. [`post`] queues letters for other shards and for the mesh. [`time`]
//! processes timeouts, [`draining`] closes sessions in a drain, [`orders`] executes the orders of operators, and
//! [`renewals`] checks new tokens. [`traces`] records joins.

mod draining;
mod ending;
mod failures;
mod inbound;
mod orders;
mod outbound;
mod post;
mod renewals;
mod slots;
#[cfg(test)]
mod tests;
mod time;
mod traces;
mod writes;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use proto::keepalive::{Life, Patience, Wheel};
#[cfg(any(target_os = "linux", target_os = "android"))]
use proto::limits::SOCKET_UNSENT_BYTES;
use proto::limits::{RATE_LIMIT_PATIENCE, READ_BUFFER_BYTES, SHARD_TURN_NANOS};
use proto::{
    Acted, Bugs, CloseReason, Input, Keys, Now, Order, Origin, Output, PeerId, Router, RouterConfig, SessionId,
    SessionPhase, ShardId, ToShard, bug,
};
use slots::Slots;
use thread::{Outboxes, Turn, TurnGuard, log_bug, planted};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};
use tracing::debug;
use writes::{Urgency, WriteLists};

use crate::Gauges;
use crate::clock::Clock;
use crate::drain::Draining;
use crate::fair::{Fair, Loudness, Meter};
use crate::http::Refusals;
use crate::queue::Pool;
use crate::reading::ReadState;
use crate::session::{Arrival, Counted, PeerRequest, SocketSession, Stage};
use crate::socket::Writer;
use crate::sparse::Sparse;
use crate::stats::{IoStats, ShardReading};
use crate::tokens::TokenRefusal;
pub(crate) use renewals::{Renewal, check_tokens};
pub(crate) use traces::{JoinTrace, JoinTracer};
pub(crate) use writes::WriteState;

/// Limits of a shard's sessions.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// Maximum length of a message, in bytes (MAX_MESSAGE_BYTES).
    pub max_message_bytes: usize,
    /// Maximum number of frames queued for one session (SEND_QUEUE_FRAMES).
    pub send_queue_frames: usize,
    /// Maximum number of bytes queued for one session (SEND_QUEUE_BYTES).
    pub send_queue_bytes: usize,
    /// Maximum number of bytes queued for all sessions of this shard. The maximum is the shard's share of
    /// SEND_BUDGET_BYTES.
    pub send_budget_bytes: usize,
    /// Bytes that a session may queue even if SEND_BUDGET_BYTES is exhausted. The value is at most
    /// [`SEND_FLOOR_BYTES`](proto::limits::SEND_FLOOR_BYTES).
    pub send_floor_bytes: usize,
    /// Maximum memory for incomplete messages of all sessions of this shard. The maximum is the shard's share of
    /// RECEIVE_BUDGET_BYTES.
    pub receive_budget_bytes: usize,
    /// Silence after which a session counts as dead at the latest (PEER_TIMEOUT_MS).
    pub peer_timeout: Duration,
}

pub(crate) struct Core {
    shard: ShardId,
    shards: u16,
    router: Router,
    limits: SessionLimits,
    keys: Keys,
    patience: Patience,
    clock: Clock,
    /// The time of the hub's start by the wall clock, in milliseconds. It is computed again at each tick. The time of a
    /// message is the sum of this start time and the monotonic time, so each message reads only one clock.
    epoch_ms: u64,
    gauges: Arc<Gauges>,
    slots: Slots,
    /// Inputs for the router, to be processed when its outputs are drained.
    followups: VecDeque<Followup>,
    /// Sessions that were closed because their queue was full, and whose end the router has not processed yet. A turn
    /// processes the ends of few sessions, because each end concerns all networks of the peer.
    closed: VecDeque<(SessionId, CloseReason)>,
    /// Whether the router has more work than fits into one turn.
    unfinished: bool,
    /// Whether due timeouts of the router did not fit into the last turn.
    overdue: bool,
    turn: Turn,
    /// The sessions with data to write.
    writes: WriteLists,
    /// The output that letters cause.
    mail: Loudness,
    /// The order in which sessions are read.
    fair: Fair,
    flusher: Option<Waker>,
    outboxes: Outboxes,
    parked: Vec<SessionId>,
    /// Time since which the shard reads sockets without a pause. Earlier silence of a session does not count.
    listening_since: Duration,
    last_tick: Duration,
    wheel: Wheel<Due>,
    due: VecDeque<Due>,
    queues: Pool,
    read_buffer: Vec<u8>,
    /// Buffer for the decrypted data of one read, which is less than [`READ_BUFFER_BYTES`] plus one TLS record.
    plaintext: Vec<u8>,
    stats: IoStats,
    bugs: Bugs,
    /// The current drain. `None` if the hub does not drain.
    drain: Option<Draining>,
    /// Time after which a session gets new credentials for TURN. `None` without TURN.
    ice_renewal: Option<Duration>,
    /// Number of drains that have begun.
    drains: u32,
    /// Operators' orders that are being executed, the oldest first, and the senders for their answers. The list
    /// contains at most the hub's current order, and earlier orders whose [`ACT_TIMEOUT`](proto::limits::ACT_TIMEOUT)
    /// has passed.
    acting: VecDeque<(Order, oneshot::Sender<Acted>)>,
    /// Sends the new tokens of sessions to the task that checks them.
    renewals: Option<mpsc::Sender<Renewal>>,
    /// Limits the log lines about sessions that are refused because the hub is full.
    turned_away: Sparse,
    /// Connections and requests that were refused before they had a session.
    refusals: Refusals,
    /// Records the joins of sessions. `None` if the hub does not trace.
    joins: Option<JoinTracer>,
    echo: bool,
}

enum Followup {
    AskedOn(SessionId),
    Delivered(Origin, PeerId),
    Undelivered(Origin, PeerId, CloseReason),
    Authorized(SessionId, TokenRefusal),
    GoAway(SessionId),
    Room(SessionId),
}

#[derive(Clone, Copy)]
enum Due {
    Silence(SessionId),
    Linger(SessionId),
    /// The session gets new credentials for TURN at this time.
    Ice(SessionId, Duration),
    /// The client receives `go-away`, and its session is closed after this time.
    GoAway(SessionId, Duration, u32),
    /// The session's slot in this drain has come.
    Retire(SessionId, u32),
}

impl Core {
    /// Makes the core of a shard. `rules` has the shard's number. `router` must have been made with the same
    /// configuration as the core.
    pub(crate) fn new(
        router: Router,
        rules: &RouterConfig,
        limits: SessionLimits,
        clock: Clock,
        gauges: Arc<Gauges>,
        echo: bool,
    ) -> Self {
        let &RouterConfig { shard, shards, meshed, .. } = rules;
        Self {
            shard,
            shards,
            router,
            limits,
            keys: rules.keys,
            patience: Patience::new(limits.peer_timeout),
            clock,
            epoch_ms: epoch_ms(clock.now()),
            gauges,
            slots: Slots::default(),
            followups: VecDeque::new(),
            closed: VecDeque::new(),
            unfinished: false,
            overdue: false,
            turn: Turn::default(),
            writes: WriteLists::default(),
            mail: Loudness::default(),
            fair: Fair::default(),
            flusher: None,
            outboxes: Outboxes::new(shards.into(), meshed),
            parked: Vec::new(),
            listening_since: Duration::ZERO,
            last_tick: clock.now().at,
            wheel: Wheel::new(),
            due: VecDeque::new(),
            queues: Pool::default(),
            read_buffer: vec![0; READ_BUFFER_BYTES],
            plaintext: Vec::new(),
            stats: IoStats::default(),
            bugs: Bugs::default(),
            drain: None,
            ice_renewal: rules.ice.as_ref().and_then(|ice| ice.renewal()),
            drains: 0,
            acting: VecDeque::new(),
            renewals: None,
            turned_away: Sparse::default(),
            refusals: Refusals::default(),
            joins: None,
            echo,
        }
    }

    /// Begins a turn, which should cost at most `most_nanos` nanoseconds. After the turn, the other ready tasks run.
    pub(crate) fn begin_turn(&mut self, most_nanos: u64) {
        self.turn.begin_within(most_nanos);
    }

    /// Whether this turn has done its maximum amount of work.
    pub(crate) fn is_turn_over(&self) -> bool {
        self.turn.is_over()
    }

    /// Whether a session may read its socket in this turn. A session that may not read is woken when its turn comes.
    pub(crate) fn admits(&mut self, id: SessionId) -> bool {
        let Self { slots, fair, writes, bugs, .. } = self;
        let Some(session) = slots.get_mut(id) else { return true };
        let admits = fair.admits(id, &mut session.meter, writes.is_behind(), bugs);
        if !admits {
            self.wake_flusher();
        }
        admits
    }

    /// Charges a session for the turn that it has just had.
    pub(crate) fn charge(&mut self, id: SessionId) {
        self.now();
        let (cost, output) = (self.turn.cost(), self.turn.output_cost());
        let Self { slots, fair, .. } = self;
        match slots.get_mut(id) {
            Some(session) => fair.charge(&mut session.meter, cost, output),
            // The session has ended in this turn, but the cost of the turn still counts in the round.
            None => fair.charge(&mut Meter::default(), cost, output),
        }
    }

    /// Begins a round, and wakes the sessions that may be read in this round. Returns true if other sessions wait for
    /// the next round.
    pub(crate) fn begin_round(&mut self) -> bool {
        let mut fair = std::mem::take(&mut self.fair);
        fair.begin_round(self.is_behind(), |id, round| {
            if let Some(session) = self.session_mut(id) {
                session.meter.call(round);
                session.wake();
            }
        });
        self.fair = fair;
        let is_left = self.fair.has_waiting();
        if is_left {
            // The flusher yields and runs again, so it needs no waker.
            self.flusher = None;
        }
        is_left
    }

    pub(crate) fn now(&self) -> Now {
        let at = self.clock.elapsed();
        self.turn.look(at);
        Now { at, wall_ms: self.epoch_ms + at.as_millis() as u64 }
    }

    pub(crate) fn router(&self) -> &Router {
        &self.router
    }

    pub(crate) fn stats_mut(&mut self) -> &mut IoStats {
        &mut self.stats
    }

    pub(crate) fn refusals_mut(&mut self) -> &mut Refusals {
        &mut self.refusals
    }

    pub(crate) fn bugs_mut(&mut self) -> &mut Bugs {
        &mut self.bugs
    }

    pub(crate) fn reading(&mut self) -> ShardReading {
        self.stats.handshake_failures.clone_from(self.refusals.counts());
        self.stats.token_refusals = *self.refusals.token_counts();
        self.stats.sessions = self.slots.len() as u64;
        self.stats.bugs.clone_from(self.bugs.counts());
        while let Some(note) = self.bugs.take_note() {
            log_bug(&note);
        }
        self.stats.post = self.outboxes.stats();
        self.stats.turns = self.turn.lengths();
        let mut router = self.router.stats().clone();
        let now = self.clock.elapsed();
        router.flooder = router.flooder.filter(|flooder| now.saturating_sub(flooder.at) < RATE_LIMIT_PATIENCE);
        ShardReading { router, io: self.stats.clone() }
    }

    /// The session with this handle. `None` if the session has been removed.
    pub(crate) fn session_mut(&mut self, id: SessionId) -> Option<&mut SocketSession> {
        self.slots.get_mut(id)
    }

    /// Moves a session to the next phase of its life, and wakes its task.
    fn advance(&mut self, id: SessionId, next: Stage) {
        if let Some(session) = self.slots.get_mut(id) {
            session.advance(next, id, &mut self.bugs);
        }
    }

    /// Adds a session for a socket. `leftover` is the data that was already read from the socket. The caller must run
    /// the session's task.
    pub(crate) fn adopt(&mut self, write: Writer, leftover: Vec<u8>, arrival: Arrival) -> SessionId {
        let now = self.now();
        let Arrival { request: PeerRequest { peer, resume, owner, grant, names_protocol, key: _ }, address, mut seat } =
            arrival;
        let _turn = TurnGuard::of("adopt", (peer, address));
        planted("adopt");
        // If this session replaces another session, the other session may have ended in the meantime and freed its
        // seat.
        seat.request_again();
        let seated = seat.is_taken();
        let join = self.new_join(now);
        tune(&write.tcp, self.patience.dead_after());
        let read = ReadState::new(self.limits.max_message_bytes, leftover);
        let mut session = Box::new(SocketSession::new((peer, address), write, read, seat, now.at));
        (session.names_protocol, session.join) = (names_protocol, join);
        let id = self.slots.insert(session);
        self.stats.handshakes += 1;
        if self.echo {
            self.admitted(id, now);
            self.perform_outputs(now);
        } else {
            self.input(Input::Opened { session: id, peer, seat: seated, resume, owner, grant }, now);
        }
        self.flush_tls(id);
        id
    }

    fn admitted(&mut self, id: SessionId, now: Now) {
        let counted = Counted::peer(&self.gauges);
        let interval = self.patience.interval();
        // The hub's first message may have overfilled the session's queue, which closes the session.
        if self.session_mut(id).is_none_or(|session| session.phase() == SessionPhase::Closing) {
            return;
        }
        self.advance(id, Stage::Open);
        let Some(session) = self.session_mut(id) else { return };
        session.seat.insist();
        session.counted = Some(counted);
        session.life = Life::new(now.at);
        let trace_id = session.join.as_ref().map(|join| tracing::field::display(join.trace));
        debug!(peer = ?session.peer, address = %session.address, trace_id, "peer_connected");
        self.trace_admitted(id, now);
        self.wheel.schedule(now.at + interval, Due::Silence(id));
        if let Some(renewal) = self.ice_renewal {
            self.look_at_ice(id, now.at + renewal, now);
        }
        self.admitted_in_drain(id, now);
    }

    fn input(&mut self, input: Input<'_>, now: Now) {
        self.router.handle_input(input, now);
        self.perform_outputs(now);
    }

    /// Processes letters from another shard or from the mesh, as many as fit into one turn. The caller passes the
    /// remaining letters in the next turn.
    pub(crate) fn letters(&mut self, letters: &mut impl Iterator<Item = ToShard>) {
        self.begin_turn(SHARD_TURN_NANOS);
        let now = self.now();
        let _turn = TurnGuard::of("letters", ());
        planted("letters");
        while !self.is_turn_over()
            && let Some(letter) = letters.next()
        {
            self.input(Input::Letter(letter), now);
        }
        self.mail.count(self.turn.output_cost());
    }

    /// Whether letters must wait, because too much output is queued and recent letters have caused much output. If
    /// recent letters have caused little output, as signals do, letters need not wait.
    pub(crate) fn holds_letters(&self) -> bool {
        self.is_behind() && self.mail.is_loud()
    }

    /// Continues work that did not fit into earlier turns. The function does nothing if no work is left, if too much
    /// output is queued, or if too many letters wait for other threads. Call this function when all ready tasks have
    /// had their turn.
    pub(crate) fn continue_work(&mut self) -> bool {
        let is_left = self.unfinished || self.overdue || !self.closed.is_empty() || !self.due.is_empty();
        if !is_left || self.is_behind() || !self.outboxes.has_room_for_a_slice() {
            return false;
        }
        self.begin_turn(SHARD_TURN_NANOS);
        let now = self.now();
        let _turn = TurnGuard::of("continue", ());
        planted("continue");
        self.perform_outputs(now);
        if std::mem::take(&mut self.unfinished) {
            self.input(Input::Continue, now);
        }
        if self.overdue {
            self.router_timeout(now);
        }
        self.expire(now);
        true
    }

    /// Performs the router's outputs and passes the resulting inputs to the router, until there are no more inputs.
    /// When the turn is over, ended sessions wait for the next turn.
    fn perform_outputs(&mut self, now: Now) {
        loop {
            while let Some(output) = self.router.poll_output() {
                self.carry_out(output, now);
            }
            let Some(followup) = self.followups.pop_front() else {
                if self.is_turn_over() && !self.closed.is_empty() {
                    self.wake_flusher();
                    break;
                }
                let Some((session, reason)) = self.closed.pop_front() else { break };
                self.router.handle_input(Input::Closed { session, reason }, now);
                self.slots.release(session);
                continue;
            };
            let input = match followup {
                Followup::AskedOn(session) => Input::AskedOn { session },
                Followup::Delivered(origin, target) => Input::Delivered { origin, target },
                Followup::Undelivered(origin, target, reason) => Input::Undelivered { origin, target, reason },
                Followup::Authorized(session, no) => Input::Authorized { session, grant: Err(no.explain()) },
                Followup::GoAway(session) => {
                    // The session was admitted in this turn, and the drain cannot have ended in the same turn.
                    let Some(drain) = &self.drain else {
                        bug!(self.bugs, DrainMissing, "{session:?}");
                        continue;
                    };
                    let (close_in, reconnect_in) = (Duration::ZERO, drain.reconnect_in(now.at));
                    Input::GoAway { session, close_in, reconnect_in, hubs: &drain.plan.hubs }
                }
                Followup::Room(session) => Input::Room { session },
            };
            self.router.handle_input(input, now);
        }
    }

    fn carry_out(&mut self, output: Output, now: Now) {
        self.turn.count();
        match output {
            Output::Send { session, frame, kind, origin, from } => {
                self.enqueue(session, &frame, kind, origin.zip(from), now);
            }
            Output::ToShard { to, letter } => self.post_to_shard(to, letter),
            Output::ToMesh(letter) => self.post_to_mesh(letter),
            Output::Ping { session, payload } => {
                self.stats.pings += 1;
                self.push_control(session, |queue| queue.push_question(&payload));
            }
            Output::Admit { session } => self.admitted(session, now),
            Output::Authorize { session, peer, token } => self.authorize(Renewal { session, peer, token }),
            Output::Backlog { session, more } => {
                if let Some(open) = self.session_mut(session) {
                    open.backlog = more;
                }
                if !more {
                    self.trace_roster_sent(session, now);
                }
                if more {
                    // Even if this turn has queued no frame for the session, the flusher must ask for the next chunk of
                    // the roster.
                    self.mark_dirty(session, 0, Urgency::Later);
                }
            }
            Output::Close { session, reason } => self.send_close(session, reason, now),
            Output::Unfinished => {
                self.unfinished = true;
                self.wake_flusher();
            }
            Output::Acted(acted) => self.acted(acted),
            Output::Event(event) => self.peer_event(&event, now),
            Output::Bug(note) => log_bug(&note),
        }
    }
}

/// Sets two options of a socket. TCP_NOTSENT_LOWAT limits the data that the kernel queues before a ping. With
/// TCP_USER_TIMEOUT, the kernel closes a connection whose client acknowledges no data, even if only a few bytes are
/// queued.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn tune(write: &OwnedWriteHalf, dead_after: Duration) {
    let socket = socket2::SockRef::from(write.as_ref());
    let tuned =
        socket.set_tcp_notsent_lowat(SOCKET_UNSENT_BYTES).and_then(|()| socket.set_tcp_user_timeout(Some(dead_after)));
    if let Err(error) = tuned {
        debug!(%error, "socket_not_tuned");
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn tune(_: &OwnedWriteHalf, _: Duration) {}

fn epoch_ms(now: Now) -> u64 {
    now.wall_ms.saturating_sub(now.at.as_millis() as u64)
}
