//! The functions that end sessions. These functions queue the close frame, report undelivered signals, and remove the
//! session.

use std::collections::VecDeque;

use proto::limits::CLOSE_LINGER;
use proto::{Bugs, CloseReason, Input, Now, SessionId, SessionPhase, bug, ws};
use socket2::SockRef;
use tracing::{debug, warn};

use super::{Core, Due, Followup};
use crate::session::{SocketSession, Stage};
use crate::stats::{IoStats, lower};

impl Core {
    /// Ends a session that the router still considers open.
    pub(super) fn close_and_tell(&mut self, id: SessionId, reason: CloseReason, now: Now) {
        self.close(id, reason, now);
        self.input(Input::Closed { session: id, reason }, now);
    }

    /// Queues the close frame of a session, and begins the session's end. `reason` determines whether queued messages
    /// are dropped, and whether messages of the client are still processed.
    pub(super) fn close(&mut self, id: SessionId, reason: CloseReason, now: Now) {
        let Some(session) = self.session_mut(id) else { return };
        if matches!(session.phase(), SessionPhase::Closing | SessionPhase::Retiring) {
            return;
        }
        // A session that still waits for its id has sent no messages that could be in flight.
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

    /// Removes from a session's queue every message of which no byte has been written.
    pub(super) fn drop_unstarted(&mut self, id: SessionId, reason: CloseReason) {
        let Some(session) = self.session_mut(id) else { return };
        let peer = session.peer;
        let Some(queue) = &mut session.queue else { return };
        let before = queue.len_bytes();
        let dropped = queue.drop_unstarted();
        let freed = before - queue.len_bytes();
        self.followups.extend(dropped.map(|origin| Followup::Undelivered(origin, peer, reason)));
        lower(&mut self.stats.queued_bytes, freed as u64, &mut self.bugs, "queued bytes");
    }

    /// Ends a session that its client has closed, or that has timed out. Notifies the router.
    pub(super) fn end(&mut self, id: SessionId, reason: CloseReason, now: Now) {
        if self.session_mut(id).is_none_or(|session| session.phase() == SessionPhase::Closing) {
            return;
        }
        self.wheel.schedule(now.at + CLOSE_LINGER, Due::Linger(id));
        self.mark_ended(id, reason);
        self.input(Input::Closed { session: id, reason }, now);
        self.finish_if_written(id);
    }

    pub(super) fn mark_ended(&mut self, id: SessionId, reason: CloseReason) {
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

    /// Closes the socket of a closing session when its queue has been written. If the client's close frame has arrived,
    /// both halves of the socket are closed. If the hub no longer parses the client's data, only the sending half is
    /// closed. In all other cases, the socket stays open until the client's close frame arrives.
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
        lower(&mut self.stats.kept_bytes, session.read.kept_bytes() as u64, &mut self.bugs, "kept bytes");
        self.fair.remove(&session.meter, &mut self.bugs);
        session.wake();
        give_back(&mut session, &mut self.stats, &mut self.followups, &mut self.bugs);
    }

    /// Drops the queue of a session, and reports its signals as undelivered.
    pub(super) fn drop_queue(&mut self, id: SessionId) {
        let Self { slots, stats, followups, bugs, .. } = self;
        if let Some(session) = slots.get_mut(id) {
            give_back(session, stats, followups, bugs);
        }
    }
}

/// Returns the signals in a session's queue to the router.
fn give_back(session: &mut SocketSession, stats: &mut IoStats, followups: &mut VecDeque<Followup>, bugs: &mut Bugs) {
    let Some(mut queue) = session.queue.take() else { return };
    lower(&mut stats.queued_bytes, queue.len_bytes() as u64, bugs, "queued bytes");
    let reason = session.reason().unwrap_or_else(|| {
        bug!(bugs, SessionLife, "the queue of {:?} is dropped in phase {:?}", session.peer, session.phase());
        CloseReason::Internal
    });
    let undelivered = queue.take_signals().map(|origin| Followup::Undelivered(origin, session.peer, reason));
    followups.extend(undelivered);
}
