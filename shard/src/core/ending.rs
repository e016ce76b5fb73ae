//! The end of a session, from the reason to the last byte.
//!
//! A session ends in one of these ways:
//!
//! * `send_close` queues the close frame, and does not notify the router. The router calls it with
//!   [`Output::Close`](proto::Output::Close), and `close` and `cut_slow_consumer` call it.
//! * `close` ends a session that the router still considers open: it calls `send_close`, and notifies the router. It is
//!   called for silent clients, for invalid data, after a panic of the parser, and if incomplete messages take too much
//!   memory.
//! * `cut_slow_consumer` ends a session whose queue is full.
//! * `end` ends a session without a new close frame, and notifies the router. It is called when the client has sent a
//!   close frame, when the socket has ended (`lost`), and when a retiring session has no time left (`lingered`).
//! * `lost` handles the end of a socket: it calls `end` and `remove`.
//! * `unwritable` handles a socket that accepts no more data but may still contain messages of the client.
//! * `remove` removes a session that has ended. `finish_if_written` calls it when both sides have sent a close frame,
//!   `lost` at once, and `lingered` when the client does not close the socket in time.
//!
//! [`super::failures`] contains `lost`, `unwritable`, and the reactions to invalid data.

use std::collections::VecDeque;

use proto::limits::CLOSE_LINGER;
use proto::{Bugs, CloseReason, Input, Now, SessionId, SessionPhase, bug, ws};
use socket2::SockRef;
use tracing::{debug, warn};

use super::{Core, Due, Followup};
use crate::session::{SocketSession, Stage};
use crate::stats::IoStats;
use proto::lower;

impl Core {
    /// Ends a session that the router still considers open, with a close frame. Notifies the router.
    pub(super) fn close(&mut self, id: SessionId, reason: CloseReason, now: Now) {
        self.send_close(id, reason, now);
        self.input(Input::Closed { session: id, reason }, now);
    }

    /// Sends the close frame that the reason requires. The session is then closing, or retiring if its client's last
    /// messages are still routed. Does not notify the router.
    pub(super) fn send_close(&mut self, id: SessionId, reason: CloseReason, now: Now) {
        let Some(session) = self.session_mut(id) else { return };
        if matches!(session.phase(), SessionPhase::Closing | SessionPhase::Retiring) {
            return;
        }
        // The shard does not read messages of a session that waits for its id, so there are none to route.
        let is_open = session.phase() == SessionPhase::Open;
        let names_protocol = session.names_protocol;
        if reason.overtakes_queue() {
            self.drop_unstarted(id, reason);
        }
        if let Some((code, text)) = reason.close_frame_for(names_protocol) {
            self.push_close(id, |out| ws::put_close(out, code, text));
        }
        self.wheel.schedule(now.at + CLOSE_LINGER, Due::Linger(id));
        if reason.routes_messages_in_flight() && is_open {
            self.advance(id, Stage::Retiring(reason));
        } else {
            self.mark_ended(id, reason);
        }
    }

    /// Ends a session whose queue is full. The router processes the end later, because it may be in the middle of an
    /// event of many sessions.
    pub(super) fn cut_slow_consumer(&mut self, id: SessionId) {
        let now = self.now();
        let reason = CloseReason::SlowConsumer;
        self.drop_unstarted(id, reason);
        self.closed.push_back((id, reason));
        self.slots.keep(id);
        self.send_close(id, reason, now);
    }

    /// Removes from a session's queue every message of which no byte has been written.
    pub(super) fn drop_unstarted(&mut self, id: SessionId, reason: CloseReason) {
        let Some(session) = self.session_mut(id) else { return };
        let peer = session.peer;
        let Some(queue) = &mut session.queue else { return };
        let before = queue.len_bytes();
        let dropped = queue.drop_unstarted();
        let freed = before - queue.len_bytes();
        self.followups.extend(dropped.map(|origin| Followup::Undelivered(origin, peer, reason)));
        lower!(self.bugs, self.stats.queued_bytes, freed as u64);
    }

    /// Ends a session without a new close frame. Notifies the router.
    pub(super) fn end(&mut self, id: SessionId, reason: CloseReason, now: Now) {
        if self.session_mut(id).is_none_or(|session| session.phase() == SessionPhase::Closing) {
            return;
        }
        self.wheel.schedule(now.at + CLOSE_LINGER, Due::Linger(id));
        self.mark_ended(id, reason);
        self.input(Input::Closed { session: id, reason }, now);
        self.finish_if_written(id);
    }

    /// Records that a session has ended. The session is removed later, because its queue must still be written.
    fn mark_ended(&mut self, id: SessionId, reason: CloseReason) {
        self.advance(id, Stage::Closing(reason));
        let trace = self.joins.is_some().then(|| self.now()).and_then(|now| self.end_join(id, Some(reason), now));
        let trace_id = trace.map(tracing::field::display);
        let Some(session) = self.session_mut(id) else { return };
        session.backlog = false;
        let admitted = session.counted.take().is_some();
        let address = session.address;
        debug!(peer = ?session.peer, %address, reason = reason.label(), admitted, trace_id, "peer_disconnected");
        if reason == CloseReason::MaxConnections
            && let Some(times) = self.turned_away.count()
        {
            let detail = "all connections are in use, so new peers are refused: raise MAX_CONNECTIONS or add hubs";
            warn!(%address, times, detail, "hub_full");
        }
        self.stats.closes[reason as usize] += 1;
    }

    /// Continues the end of a closing session when its queue is empty. If the client has sent a close frame, the
    /// session is removed, which closes the socket. If data from the client is no longer parsed, only the sending half
    /// is closed. In all other cases, the socket stays open until the client's close frame arrives, at most for
    /// [`CLOSE_LINGER`].
    pub(super) fn finish_if_written(&mut self, id: SessionId) {
        let Some(session) = self.session_mut(id).filter(|s| s.phase() == SessionPhase::Closing && s.has_written_all())
        else {
            return;
        };
        if session.read.is_client_done() {
            self.remove(id);
            self.perform_outputs(self.now());
        } else if session.read.is_deaf() {
            // The client's close frame will not be parsed, but the end of its stream will be noticed. Closing both
            // halves now would reset the connection, and the client might never read the close frame.
            session.write.close();
            _ = SockRef::from(session.write.tcp.as_ref()).shutdown(std::net::Shutdown::Write);
        }
    }

    /// Removes a session. The task of the session then drops the socket.
    pub(super) fn remove(&mut self, id: SessionId) {
        let Some(mut session) = self.slots.remove(id) else { return };
        session.write.close();
        self.writes.uncount(&mut session.writes, &mut self.bugs);
        lower!(self.bugs, self.stats.kept_bytes, session.read.kept_bytes() as u64);
        self.fair.remove(&session.meter, &mut self.bugs);
        session.wake();
        give_back(&mut session, &mut self.stats, &mut self.followups, &mut self.bugs);
    }

    /// Removes a session that has not ended completely within [`CLOSE_LINGER`].
    pub(super) fn lingered(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.session_mut(id) else { return };
        if let Some(reason) = session.why_it_goes() {
            self.end(id, reason, now);
        }
        self.remove(id);
        self.perform_outputs(now);
    }

    pub(super) fn drop_queue(&mut self, id: SessionId) {
        let Self { slots, stats, followups, bugs, .. } = self;
        if let Some(session) = slots.get_mut(id) {
            give_back(session, stats, followups, bugs);
        }
    }
}

/// Drops a session's queue, and reports its signals to the router as undelivered.
fn give_back(session: &mut SocketSession, stats: &mut IoStats, followups: &mut VecDeque<Followup>, bugs: &mut Bugs) {
    let Some(mut queue) = session.queue.take() else { return };
    lower!(bugs, stats.queued_bytes, queue.len_bytes() as u64);
    let reason = session.reason().unwrap_or_else(|| {
        bug!(bugs, SessionLife, "the queue of {:?} is dropped in phase {:?}", session.peer, session.phase());
        CloseReason::Internal
    });
    let undelivered = queue.take_signals().map(|origin| Followup::Undelivered(origin, session.peer, reason));
    followups.extend(undelivered);
}
