//! Messages of clients. This file checks the budgets of messages, dispatches messages, and answers refused messages.

use std::borrow::Cow;
use std::time::Duration;

use crate::budget::{BudgetItem, BudgetOwner, Exceeded};
use crate::bug;
use crate::codec::{ClientMessage, RefusedMessage, Signal, Unfit};
use crate::id::{NetworkName, SessionId};
use crate::limits::TOKEN_MESSAGES;
use crate::reason::{CloseReason, ErrorCode, Outcome};
use crate::sentences;
use crate::time::Now;
use crate::wire::{self, ErrorReport, MessageKind, ReceiptReport};

use super::Router;
use super::letter::Frame;
use super::roster::NetworkIx;
use super::session::Membership;
use super::stats::Flooder;

impl Router {
    /// Processes a message of `bytes` bytes. `parsed` is the result of the parser.
    pub(super) fn message(
        &mut self,
        id: SessionId,
        parsed: Result<ClientMessage<'_>, Box<RefusedMessage<'_>>>,
        bytes: usize,
        now: Now,
    ) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let (usage, budget, bytes) = (session.usage_mut(), &self.config.budget, bytes as u64);
        let messages = if matches!(parsed, Ok(ClientMessage::Auth(_))) { TOKEN_MESSAGES } else { 1 };
        let taken = usage
            .take(BudgetItem::Messages, messages, budget, now.at)
            .and_then(|()| usage.take(BudgetItem::Bytes, bytes, budget, now.at))
            .and_then(|()| match parsed {
                Ok(ClientMessage::Announce(_)) => usage.take_announcement(bytes, budget, now.at),
                Ok(ClientMessage::Discover(_)) => usage.take(BudgetItem::Pages, 1, budget, now.at),
                _ => Ok(()),
            });
        if let Err(exceeded) = taken {
            let refusal = over_budget(parsed, &exceeded);
            self.count_in(refusal.kind);
            return self.refuse_exceeding(id, &refusal, &exceeded, now);
        }
        match parsed {
            Ok(ClientMessage::Announce(announce)) => {
                self.count_in(MessageKind::Announce);
                self.announced(id, &announce, now);
            }
            Ok(ClientMessage::Auth(token)) => {
                self.count_in(MessageKind::Auth);
                self.renew_token(id, &token, now);
            }
            Ok(ClientMessage::Discover(discover)) => {
                self.count_in(MessageKind::Discover);
                self.asked_for_more(id, &discover, now);
            }
            Ok(ClientMessage::Goodbye(goodbye)) => {
                self.count_in(MessageKind::Goodbye);
                self.goodbye(id, &goodbye, now);
            }
            Ok(ClientMessage::Ignored) => self.count_in(MessageKind::Ignored),
            Ok(ClientMessage::Ping) => {
                self.count_in(MessageKind::Ping);
                self.pinged(id, now);
            }
            Ok(ClientMessage::Signal(signal)) => {
                self.count_in(MessageKind::Signal(signal.kind));
                if signal.has_unfit_id {
                    self.refuse_id(id, &signal, now);
                }
                self.signalled(id, signal, now);
            }
            Err(refusal) => {
                let withheld = self.stats.errors_withheld;
                self.refuse(id, &refusal, now);
                // The client has exhausted its budget of errors and still sends invalid messages, so it seems to ignore
                // errors. Therefore this message counts like a message above a budget.
                if self.stats.errors_withheld > withheld {
                    self.note_refused(id, now);
                }
            }
        }
    }

    /// Sends an error about a signal whose `id` is not a string. The caller relays the signal as if it had no id.
    fn refuse_id(&mut self, id: SessionId, signal: &Signal<'_>, now: Now) {
        let report = ErrorReport {
            code: ErrorCode::InvalidMessage,
            message: sentences::ID_NOT_A_STRING,
            in_reply_to: Some(signal.kind.label()),
            target: Some(signal.target),
            id: None,
            retry_in: None,
            network: &signal.network,
        };
        self.send_error(id, &report, now);
    }

    /// Handles a panic of the parser by closing the session of the sender.
    pub(super) fn parser_failed(&mut self, id: SessionId, now: Now) {
        if self.sessions.get(id).is_some() {
            self.close(id, CloseReason::Internal, now);
        }
    }

    pub(super) fn too_large(&mut self, id: SessionId, now: Now) {
        if self.sessions.get(id).is_none() {
            return;
        }
        self.refuse(id, &RefusedMessage::too_large(), now);
        self.close(id, CloseReason::MessageTooLarge, now);
    }

    fn pinged(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.sessions.get(id) else {
            return bug!(self.bugs, MessageSession, "ping of {id:?}");
        };
        let frame = wire::pong(&mut self.arena, &session.peer(), now.wall_ms);
        self.send(id, Frame::Arena(frame), MessageKind::Pong);
    }

    pub(super) fn go_away(
        &mut self,
        id: SessionId,
        (close_in, reconnect_in): (Duration, Duration),
        hubs: &[String],
        now: Now,
    ) {
        let Some(session) = self.sessions.get(id) else { return };
        let (peer, network) = (session.peer(), self.spoken_network(id));
        let arena = &mut self.arena;
        let frame = wire::go_away(arena, &peer, close_in, reconnect_in, hubs, network.as_str(), now.wall_ms);
        self.send(id, Frame::Arena(frame), MessageKind::GoAway);
    }

    fn count_in(&mut self, kind: MessageKind) {
        self.stats.messages_in[kind.index()] += 1;
    }

    /// Counts and answers a refused message.
    fn refuse(&mut self, id: SessionId, refusal: &RefusedMessage<'_>, now: Now) {
        self.count_in(refusal.kind);
        self.answer(id, refusal, None, now);
    }

    /// Refuses a message that exceeds a budget. Closes the session if it has ignored such refusals for too long.
    pub(super) fn refuse_exceeding(
        &mut self,
        id: SessionId,
        refusal: &RefusedMessage<'_>,
        exceeded: &Exceeded,
        now: Now,
    ) {
        self.stats.exceeded[exceeded.owner as usize][exceeded.item as usize] += 1;
        self.answer(id, refusal, Some(exceeded.retry_in), now);
        self.note_refused(id, now);
    }

    /// Records a message that was refused because of a budget.
    fn note_refused(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let refusals = session.usage_mut().note_refused(now.at);
        let flooder = Flooder { peer: session.peer(), refused: refusals.count, at: now.at };
        self.stats.note_flooder(flooder);
        if refusals.client_ignores {
            self.close(id, CloseReason::RateLimited, now);
        }
    }

    /// Takes `n` units of an item from the budget of one of a session's networks.
    ///
    /// # Errors
    ///
    /// If the network's budget is exhausted, and the session has used more than 1/LIGHT_PART of its own burst.
    pub(super) fn take_of_network(
        &mut self,
        id: SessionId,
        ix: NetworkIx,
        (item, n): (BudgetItem, u64),
        now: Now,
    ) -> Result<(), Exceeded> {
        let (Some(session), Some(network)) = (self.sessions.get(id), self.rosters.network_mut(ix)) else {
            bug!(self.bugs, MessageSession, "{id:?} in {ix:?}");
            return Ok(());
        };
        let budgets = (&self.config.budget, &self.config.network_budget);
        session.usage().take_of(network.usage_mut(), (item, n), budgets, now.at)
    }

    fn answer(&mut self, id: SessionId, refusal: &RefusedMessage<'_>, retry_in: Option<Duration>, now: Now) {
        let network = match &refusal.network {
            Some(network) => Cow::Borrowed(&**network),
            None => Cow::Owned(self.spoken_network(id).as_str().to_owned()),
        };
        let network = &*network;
        if let MessageKind::Signal(_) = refusal.kind {
            self.stats.failed[refusal.code as usize] += 1;
            if let Some(ticket) = &refusal.id {
                let outcome = Outcome::Failed(refusal.code);
                let report = ReceiptReport { id: ticket, outcome, target: refusal.target, retry_in, network };
                return self.send_receipt(id, &report, now);
            }
        }
        let report = ErrorReport {
            code: refusal.code,
            message: refusal.message,
            in_reply_to: refusal.in_reply_to.as_deref(),
            target: refusal.target,
            id: refusal.id.as_deref(),
            retry_in,
            network,
        };
        self.send_error(id, &report, now);
    }

    /// Refuses a valid message with the explanation of `code`.
    pub(super) fn refuse_public(&mut self, id: SessionId, code: ErrorCode, kind: MessageKind, network: &str, now: Now) {
        self.refuse_because(id, code, code.explain(), kind, network, now);
    }

    /// Refuses a message whose data must not be sent to a whole network.
    pub(super) fn refuse_data(&mut self, id: SessionId, unfit: Unfit, kind: MessageKind, network: &str, now: Now) {
        self.refuse_because(id, unfit.code(), unfit.explain(), kind, network, now);
    }

    pub(super) fn refuse_because(
        &mut self,
        id: SessionId,
        code: ErrorCode,
        message: &'static str,
        kind: MessageKind,
        network: &str,
        now: Now,
    ) {
        let in_reply_to = Some(kind.label());
        let report = ErrorReport { code, message, in_reply_to, target: None, id: None, retry_in: None, network };
        self.send_error(id, &report, now);
    }

    /// Sends an `error`, unless the session has reached its limit of errors.
    pub(super) fn send_error(&mut self, id: SessionId, report: &ErrorReport<'_>, now: Now) {
        let Some(session) = self.sessions.get_mut(id).filter(|session| session.is_open()) else { return };
        if session.usage_mut().take(BudgetItem::Errors, 1, &self.config.budget, now.at).is_ok() {
            self.stats.errors[report.code as usize] += 1;
            let frame = wire::error(&mut self.arena, &session.peer(), report, now.wall_ms);
            self.send(id, Frame::Arena(frame), MessageKind::Error);
        } else {
            self.stats.errors_withheld += 1;
            self.stats.exceeded[BudgetOwner::Session as usize][BudgetItem::Errors as usize] += 1;
        }
    }

    /// The network that messages about the peer itself name. This is the peer's first network, because clients ignore
    /// messages of networks that they have not joined. For a peer in no network, it is `global`.
    pub(super) fn spoken_network(&mut self, id: SessionId) -> NetworkName {
        let Some(session) = self.sessions.get(id) else {
            bug!(self.bugs, MessageSession, "{id:?} receives a message about itself");
            return NetworkName::new(NetworkName::GLOBAL);
        };
        let Some(first) = session.memberships().first().map(Membership::network) else {
            return NetworkName::new(NetworkName::GLOBAL);
        };
        match self.rosters.network(first) {
            Some(network) => network.name().clone(),
            None => {
                bug!(self.bugs, MessageSession, "{id:?} is a member of {first:?}, which does not exist");
                NetworkName::new(NetworkName::GLOBAL)
            }
        }
    }
}

/// The refusal of a message that exceeds a budget. The refusal has those fields of the message that the answer repeats.
fn over_budget<'a>(
    parsed: Result<ClientMessage<'a>, Box<RefusedMessage<'a>>>,
    exceeded: &Exceeded,
) -> RefusedMessage<'a> {
    let mut refusal = RefusedMessage { in_reply_to: None, ..refusal(exceeded, MessageKind::Invalid, None) };
    match parsed {
        Ok(ClientMessage::Announce(announce)) => {
            refusal.kind = MessageKind::Announce;
            refusal.network = Some(announce.network);
        }
        Ok(ClientMessage::Auth(_)) => refusal.kind = MessageKind::Auth,
        Ok(ClientMessage::Discover(discover)) => {
            refusal.kind = MessageKind::Discover;
            refusal.network = Some(discover.network);
        }
        Ok(ClientMessage::Goodbye(goodbye)) => {
            refusal.kind = MessageKind::Goodbye;
            refusal.network = goodbye.network;
        }
        Ok(ClientMessage::Ignored) => refusal.kind = MessageKind::Ignored,
        Ok(ClientMessage::Ping) => refusal.kind = MessageKind::Ping,
        Ok(ClientMessage::Signal(signal)) => {
            refusal.kind = MessageKind::Signal(signal.kind);
            refusal.target = Some(signal.target);
            refusal.id = signal.id;
            refusal.network = Some(signal.network);
        }
        Err(other) => {
            refusal.kind = other.kind;
            refusal.in_reply_to = other.in_reply_to;
            refusal.target = other.target;
            refusal.id = other.id;
            refusal.network = other.network;
        }
    }
    if refusal.in_reply_to.is_none() && !matches!(refusal.kind, MessageKind::Invalid | MessageKind::UnknownType) {
        refusal.in_reply_to = Some(refusal.kind.label().into());
    }
    refusal
}

/// The refusal of a message of this kind that exceeds a budget.
pub(super) fn refusal<'a>(exceeded: &Exceeded, kind: MessageKind, network: Option<&'a str>) -> RefusedMessage<'a> {
    RefusedMessage {
        code: ErrorCode::RateLimited,
        message: explain(exceeded),
        kind,
        in_reply_to: Some(kind.label().into()),
        target: None,
        id: None,
        network: network.map(Into::into),
    }
}

/// The sentence that explains which budget a message exceeds.
const fn explain(exceeded: &Exceeded) -> &'static str {
    match (exceeded.owner, exceeded.item) {
        (BudgetOwner::Network, _) => sentences::NETWORK_BUSY,
        (_, BudgetItem::Messages | BudgetItem::Errors) => ErrorCode::RateLimited.explain(),
        (_, BudgetItem::Bytes) => sentences::TOO_MANY_BYTES,
        (_, BudgetItem::Announcements) => sentences::ANNOUNCED_TOO_OFTEN,
        (_, BudgetItem::Events) => sentences::TOO_MANY_EVENTS,
        (_, BudgetItem::Pages) => sentences::DISCOVERS_TOO_OFTEN,
    }
}
