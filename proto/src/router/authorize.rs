//! Renewal of grants by `auth`, and the end of grants.

use crate::grant::{Grant, Rights};
use crate::id::SessionId;
use crate::reason::{CloseReason, ErrorCode};
use crate::time::Now;
use crate::wire::{self, ErrorReport, MessageKind};
use crate::{bug, sentences};

use super::Router;
use super::expiries::{Expiry, Held};
use super::letter::{Frame, Output};
use super::session::Session;

/// `data` of the `goodbye` that the hub sends for a peer whose new token does not allow the network.
const FORBIDDEN: &str = r#"{"reason":"forbidden"}"#;

impl Router {
    /// Schedules the warning before a session's grant ends. The warning is scheduled when the session begins, and again
    /// when it is admitted, because a waiting session receives no warning.
    pub(super) fn watch_grant(&mut self, id: SessionId, now: Now) {
        if let Some(held) = self.sessions.get_mut(id).and_then(Session::held_mut) {
            self.expiries.watch(id, held, now);
        }
    }

    /// Processes `auth`, and requests a check of the new token.
    pub(super) fn renew_token(&mut self, id: SessionId, token: &str, now: Now) {
        let Some(session) = self.sessions.get_mut(id) else {
            return bug!(self.bugs, MessageSession, "auth of {id:?}");
        };
        let peer = session.peer();
        let refusal = match session.held_mut().map(Held::begin_renewal) {
            None => (ErrorCode::NotAllowed, sentences::NO_TOKEN_TO_RENEW),
            Some(false) => (ErrorCode::RateLimited, sentences::NEW_TOKEN_WAITS),
            Some(true) => return self.outputs.push_back(Output::Authorize { session: id, peer, token: token.into() }),
        };
        self.refuse_token(id, refusal, now);
    }

    /// Processes the result of the check of a new token.
    pub(super) fn authorized(&mut self, id: SessionId, grant: Result<Box<Grant>, &'static str>, now: Now) {
        // The session may have ended during the check.
        let Some(session) = self.sessions.get_mut(id) else { return };
        let peer = session.peer();
        let Some(held) = session.held_mut().filter(|held| held.is_renewing()) else {
            return bug!(self.bugs, MessageSession, "a token of {id:?} was checked");
        };
        held.end_renewal();
        match grant {
            Err(message) => self.refuse_token(id, (ErrorCode::Unauthorized, message), now),
            Ok(grant) => {
                self.expiries.replace(id, held, *grant, now);
                let left = held.left(now.at);
                self.send_token_state(id, MessageKind::Authorized, left.map(|left| left.as_millis() as u64), now);
                self.apply_rights(id, peer, now);
            }
        }
    }

    /// Ends the memberships that a session's new grant does not allow.
    fn apply_rights(&mut self, id: SessionId, peer: crate::PeerId, now: Now) {
        let Some(session) = self.sessions.get(id) else {
            return bug!(self.bugs, MessageSession, "rights of {id:?}, {peer:?}");
        };
        let lost: Vec<_> = session
            .memberships()
            .iter()
            .filter_map(|membership| {
                let name = self.rosters.network(membership.network())?.name().clone();
                let Rights { join, observe, .. } = session.rights(name.as_str());
                let is_allowed = join || observe && membership.observes();
                (!is_allowed).then(|| (membership.network(), name))
            })
            .collect();
        for (ix, name) in lost {
            if let Some((leaver, networks)) = self.detach_removed(id, ix, FORBIDDEN) {
                self.leave_detached(id, leaver, networks, now);
                let report = ErrorReport {
                    code: ErrorCode::Forbidden,
                    message: ErrorCode::Forbidden.explain(),
                    in_reply_to: None,
                    target: None,
                    id: None,
                    network: name.as_str(),
                    retry_in: None,
                };
                self.send_error(id, &report, now);
            }
        }
    }

    /// Warns sessions whose grants end soon, and closes sessions whose grants have ended, until the turn is over.
    pub(super) fn expire_grants(&mut self, now: Now) {
        while !self.is_turn_over()
            && let Some(id) = self.expiries.next_due(now.at)
        {
            let Some((is_open, held)) =
                self.sessions.get_mut(id).and_then(|session| Some((session.is_open(), session.held_mut()?)))
            else {
                bug!(self.bugs, MessageSession, "the grant of {id:?} ends");
                continue;
            };
            match self.expiries.judge(id, held, now.at) {
                // Nothing is sent to a session that waits or retires.
                Expiry::Soon(_) if !is_open => {}
                Expiry::Soon(left) => {
                    self.send_token_state(id, MessageKind::TokenExpires, Some(left.as_millis() as u64), now);
                }
                Expiry::Now => self.close(id, CloseReason::TokenExpired, now),
            }
        }
    }

    fn send_token_state(&mut self, id: SessionId, kind: MessageKind, expires_in_ms: Option<u64>, now: Now) {
        let Some(session) = self.sessions.get(id) else {
            return bug!(self.bugs, MessageSession, "{kind:?} for {id:?}");
        };
        let (peer, network) = (session.peer(), self.spoken_network(id));
        let frame = wire::token_state(&mut self.arena, &peer, kind, expires_in_ms, network.as_str(), now.wall_ms);
        self.send(id, Frame::Arena(frame), kind);
    }

    fn refuse_token(&mut self, id: SessionId, (code, message): (ErrorCode, &'static str), now: Now) {
        let network = self.spoken_network(id);
        self.refuse_because(id, code, message, MessageKind::Auth, network.as_str(), now);
    }
}
