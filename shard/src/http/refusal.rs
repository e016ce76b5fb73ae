//! The answers, counters and log lines for refused connections and requests.

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Instant;

use hyper::StatusCode;
use proto::CloseReason;
use tracing::{error, warn};

use super::gate::Gate;
use super::handshake::NoHandshake;
use crate::core::Core;
use crate::crowd::NoEntry;
use crate::stats::HandshakeFailure;
use crate::tokens::TokenRefusal;

/// The close code that corresponds to the HTTP status 403.
pub(super) const FORBIDDEN: u16 = 4403;

/// Maximum length of the text of a close frame, in bytes (RFC 6455, 5.5). A longer text is cut off.
const MAX_CLOSE_TEXT: usize = 123;

/// A refused request, with its answer.
pub(super) struct HttpRefusal {
    pub(super) failure: HandshakeFailure,
    pub(super) status: StatusCode,
    pub(super) text: Cow<'static, str>,
    /// Additional headers of the answer.
    pub(super) headers: &'static [(&'static str, &'static str)],
    /// Seconds after which the client should try again.
    pub(super) retry_after: Option<u64>,
    /// Why a token of the request was refused.
    pub(super) token: Option<TokenRefusal>,
    /// The challenge for a hub, as a value of `WWW-Authenticate`.
    pub(super) challenge: Option<String>,
    /// Whether the refusal is counted and logged. A 401 that only gives a hub its challenge is not counted and not
    /// logged.
    pub(super) is_counted: bool,
}

impl HttpRefusal {
    pub(super) fn new(failure: HandshakeFailure, status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            failure,
            status,
            text: text.into(),
            headers: &[],
            retry_after: None,
            token: None,
            challenge: None,
            is_counted: true,
        }
    }

    /// The close frame for this refusal. A client that offers [`CLIENT_SUBPROTOCOL`](proto::CLIENT_SUBPROTOCOL) is
    /// upgraded, and then gets a close frame instead of an HTTP answer. A browser would hide the status and the text of
    /// a refused upgrade from the page. `None` if the client gets an HTTP answer in any case, because a wrong URL,
    /// program or proxy causes this refusal.
    pub(super) fn close_frame(&self) -> Option<(u16, String)> {
        let (code, mut text) = match (self.status, self.retry_after) {
            (StatusCode::UNAUTHORIZED, _) => (4401, self.text.to_string()),
            (StatusCode::FORBIDDEN, _) => (FORBIDDEN, self.text.to_string()),
            (StatusCode::SERVICE_UNAVAILABLE, Some(seconds)) => {
                (1013, format!("retry after {seconds} s: {}", self.text))
            }
            _ => return None,
        };
        text.truncate(text.floor_char_boundary(MAX_CLOSE_TEXT));
        Some((code, text))
    }

    /// 401, with the required challenge (RFC 9110, 11.6.1; RFC 6750, 3).
    pub(super) fn unauthorized(
        failure: HandshakeFailure,
        text: impl Into<Cow<'static, str>>,
        token_shown: bool,
    ) -> Self {
        let headers: &[_] = if token_shown {
            &[("www-authenticate", r#"Bearer realm="peerpigeon", error="invalid_token""#)]
        } else {
            &[("www-authenticate", r#"Bearer realm="peerpigeon""#)]
        };
        Self { headers, ..Self::new(failure, StatusCode::UNAUTHORIZED, text) }
    }

    /// The refusal of a JWT. The status is 401, or 403 if the JWT is valid but for another peer id.
    pub(super) fn of_token(no: TokenRefusal) -> Self {
        let failure = HandshakeFailure::Unauthorized;
        let refusal = if no == TokenRefusal::Subject {
            Self::new(failure, StatusCode::FORBIDDEN, no.explain())
        } else {
            Self::unauthorized(failure, format!("unauthorized: {}", no.explain()), true)
        };
        Self { token: Some(no), ..refusal }
    }

    /// The refusal of a client behind a proxy that exceeds a limit of its address. A client without a proxy gets the
    /// same answer before its request is read.
    pub(super) fn before_reading(no: NoEntry, retry_after: u64) -> Self {
        let refusal = Self::new(no.failure(), StatusCode::SERVICE_UNAVAILABLE, no.explain());
        Self { retry_after: Some(retry_after), ..refusal }
    }
}

impl From<NoHandshake> for HttpRefusal {
    fn from(no: NoHandshake) -> Self {
        Self { headers: no.headers(), ..Self::new(HandshakeFailure::NotAnUpgrade, no.status(), no.explain()) }
    }
}

/// Counts and logs a panic of the task that serves a connection. The panic ends only this connection, because no rules
/// run before a connection is a WebSocket.
pub(super) struct PanicGuard<'a> {
    core: &'a RefCell<Core>,
    address: SocketAddr,
}

impl<'a> PanicGuard<'a> {
    pub(super) fn new(core: &'a RefCell<Core>, address: SocketAddr) -> Self {
        Self { core, address }
    }
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Self { core, address } = self;
        let detail = "the hub panicked before this connection was a WebSocket, and has closed it";
        error!(%address, detail, "connection_failed");
        // After a panic, no other borrow of the core should be left. `try_borrow_mut` cannot panic in any case, and a
        // second panic would end the process.
        if let Ok(mut core) = core.try_borrow_mut() {
            core.refusals_mut().count(HandshakeFailure::Internal);
            core.stats_mut().closes[CloseReason::Internal as usize] += 1;
        }
    }
}

/// Counts a connection that the gate refuses. Such connections are logged at a limited rate.
pub(crate) fn count_no_entry(gate: &Gate, core: &mut Core, refusal: NoEntry, address: SocketAddr) {
    let failure = refusal.failure();
    core.refusals_mut().count(failure);
    log_no_entry(gate, refusal, address);
}

pub(super) fn log_no_entry(gate: &Gate, refusal: NoEntry, address: SocketAddr) {
    if let Some(times) = gate.refused(Instant::now()) {
        let (address, reason) = (address.ip(), refusal.failure().label());
        warn!(%address, reason, detail = refusal.explain(), times, "connections_refused");
    }
}
