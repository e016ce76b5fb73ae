//! Ends sessions whose sockets, clients or parsers have failed.

use proto::limits::CLOSE_LINGER;
use proto::ws::Violation;
use proto::{CloseReason, Input, Now, SessionId, SessionPhase};
use tracing::{debug, error};

use super::{Core, Due};
use crate::session::{Stage, why_lost};

impl Core {
    /// Handles the end or the failure of a session's socket.
    pub(crate) fn lost(&mut self, id: SessionId, reason: CloseReason) {
        let now = self.now();
        let Some(session) = self.session_mut(id) else { return };
        let reason = session.why_it_goes().unwrap_or(reason);
        self.end(id, reason, now);
        self.remove(id);
        self.perform_outputs(now);
    }

    /// Handles a failure of a session's TLS or of its socket. The client receives the alert that TLS has made, if there
    /// is one.
    pub(crate) fn tls_failed(&mut self, id: SessionId, error: &std::io::Error) {
        if let Some(session) = self.session_mut(id) {
            debug!(peer = ?session.peer, address = %session.address, %error, "tls_failed");
            _ = session.write.flush();
        }
        self.lost(id, why_lost(error));
    }

    /// Closes a session after its parser has panicked.
    pub(super) fn parser_failed(&mut self, id: SessionId, now: Now) {
        if let Some(session) = self.session_mut(id) {
            session.read.deafen();
            let detail = "the parser panicked, and the session is closed";
            error!(peer = ?session.peer, address = %session.address, detail, "session_failed");
        }
        self.close(id, CloseReason::Internal, now);
    }

    /// Closes a session whose client has sent data that is not a valid WebSocket message.
    pub(super) fn violated(&mut self, id: SessionId, violation: Violation, now: Now) {
        let Some(session) = self.session_mut(id) else { return };
        session.read.deafen();
        if let Violation::Protocol(what) = violation {
            debug!(peer = ?session.peer, address = %session.address, what, "protocol_error");
        }
        if matches!(violation, Violation::TooLarge) {
            // The router sends an error first, and then closes the session.
            self.input(Input::TooLarge { session: id }, now);
        } else {
            self.close(id, violation.into(), now);
        }
    }

    /// Handles a socket that accepts no more data. Usually the client has reset the connection, perhaps with unread
    /// bytes. Data that the client sent before is still in the socket. The socket of an open session is therefore read
    /// to its end, at most for [`CLOSE_LINGER`].
    pub(super) fn unwritable(&mut self, id: SessionId, reason: CloseReason) {
        let now = self.now();
        let Some(session) = self.session_mut(id) else { return };
        match session.phase() {
            SessionPhase::Pending | SessionPhase::Closing => return self.lost(id, reason),
            SessionPhase::Open => {
                self.advance(id, Stage::Retiring(reason));
                self.wheel.schedule(now.at + CLOSE_LINGER, Due::Linger(id));
            }
            SessionPhase::Retiring => {}
        }
        self.drop_queue(id);
        if let Some(session) = self.session_mut(id) {
            session.write.drop_pending();
            session.writes.fail();
            session.wake();
        }
    }
}
