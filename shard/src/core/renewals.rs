//! New tokens of sessions, which replace the tokens with which the sessions connected.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use proto::limits::{MAX_TOKENS_WAITING, SHARD_TURN_NANOS};
use proto::{Input, PeerId, SessionId};
use thread::TurnGuard;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::debug;

use super::{Core, Followup};
use crate::tokens::{Allowed, TokenRefusal, Tokens};

/// The new token of a session.
#[derive(Debug)]
pub(crate) struct Renewal {
    pub(crate) session: SessionId,
    pub(crate) peer: PeerId,
    pub(crate) token: Box<str>,
}

impl Core {
    /// Starts the check of a new token.
    pub(super) fn authorize(&mut self, renewal: Renewal) {
        let session = renewal.session;
        let is_taken = self.renewals.as_ref().is_some_and(|renewals| renewals.try_send(renewal).is_ok());
        if !is_taken {
            self.refusals.count_token(TokenRefusal::Busy);
            self.followups.push_back(Followup::Authorized(session, TokenRefusal::Busy));
        }
    }

    /// Handles the result of the check of a new token.
    fn authorized(&mut self, session: SessionId, peer: PeerId, checked: Result<Allowed, TokenRefusal>) {
        self.begin_turn(SHARD_TURN_NANOS);
        let now = self.now();
        let _turn = TurnGuard::of("token", peer);
        let checked = checked.and_then(|allowed| {
            let is_own = allowed.peer.is_none_or(|allowed| allowed == peer);
            if is_own { Ok(Box::new(allowed.grant)) } else { Err(TokenRefusal::Subject) }
        });
        match &checked {
            Ok(_) => self.stats.tokens_accepted += 1,
            Err(no) => {
                self.refusals.count_token(*no);
                debug!(?peer, reason = no.label(), "token_refused");
            }
        }
        self.input(Input::Authorized { session, grant: checked.map_err(TokenRefusal::explain) }, now);
    }
}

/// Checks the new tokens of a shard's sessions. Tokens with unknown keys wait for the next load of keys.
pub(crate) async fn check_tokens(core: Rc<RefCell<Core>>, tokens: Arc<Tokens>) {
    let (renewals, mut asked) = mpsc::channel(MAX_TOKENS_WAITING);
    core.borrow_mut().renewals = Some(renewals);
    let mut checks = JoinSet::new();
    loop {
        tokio::select! {
            Some(Renewal { session, peer, token }) = asked.recv(), if checks.len() < MAX_TOKENS_WAITING => {
                let (core, tokens) = (Rc::clone(&core), Arc::clone(&tokens));
                checks.spawn_local(async move {
                    tokens.wait_for_keys(&token).await;
                    let checked = tokens.check(&token, SystemTime::now());
                    core.borrow_mut().authorized(session, peer, checked);
                });
            }
            Some(ended) = checks.join_next() => thread::check(ended),
        }
    }
}
