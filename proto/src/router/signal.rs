//! Signals and their outcomes.

use std::num::NonZeroU64;

use crate::budget::{BudgetItem, Exceeded};
use crate::bug;
use crate::bugs::Bugs;
use crate::codec::{RefusedMessage, Signal};
use crate::id::{NetworkName, PeerId, SessionId, ShardId};
use crate::limits::RATE_LIMIT_PAUSE;
use crate::reason::{CloseReason, ErrorCode, Outcome};
use crate::route::Address;
use crate::sentences;
use crate::time::Now;
use crate::wire::{self, ErrorReport, MessageKind, ReceiptReport};

use super::Router;
use super::letter::{Frame, Origin, OutcomeLetter, Output, Sender, SignalLetter, Standing, ToMesh, ToShard};
use super::message::refusal;
use super::network::Member;
use super::roster::{NetworkIx, Rosters};
use super::session::{Membership, Session};
use super::tickets::Ticket;

impl Router {
    pub(super) fn signalled(&mut self, id: SessionId, signal: Signal<'_>, now: Now) {
        if !self.leaving.is_empty()
            && let Some(ix) = self.rosters.find(&signal.network)
        {
            // Members receive the leave of a peer before any signal that the peer sends after its leave.
            self.finish_leaving(id, Some(ix), now);
        }
        let Some(session) = self.sessions.get(id) else {
            return bug!(self.bugs, MessageSession, "signal of {id:?}");
        };
        let from = session.peer();
        let own = membership_in(&self.rosters, &mut self.bugs, session, &signal.network)
            .map(|membership| (membership.network(), membership.stay()));
        if let Some((ix, _)) = own {
            // The budget is checked before a receipt is opened, so that the refusal can be a receipt with the time to
            // wait.
            let taken = self.take_signal(id, ix, signal.data.len() as u64, now);
            if let Err(exceeded) = taken {
                let refusal = refusal(&exceeded, MessageKind::Signal(signal.kind), Some(&signal.network));
                let refusal = RefusedMessage { target: Some(signal.target), id: signal.id, ..refusal };
                return self.refuse_exceeding(id, &refusal, &exceeded, now);
            }
        }
        let Some(session) = self.sessions.get(id) else {
            return bug!(self.bugs, MessageSession, "signal of {id:?}");
        };
        let sender_is_in = own.is_some() || (signal.network == NetworkName::GLOBAL && session.is_outsider());
        let is_forbidden = !session.rights(&signal.network).signal;
        let network = match own.and_then(|(ix, _)| self.rosters.network(ix)) {
            Some(network) => network.name().clone(),
            None => NetworkName::new(&signal.network),
        };
        let home = ShardId::home(&signal.target, self.config.shards, self.config.keys);
        let address = self.address_of(&signal, own.map(|(ix, _)| ix), home);
        let standing = own.map_or(Standing::Outsider, |(_, stay)| Standing::Member(stay.number));
        let ticket = match &signal.id {
            None => None,
            Some(wanted) => {
                let ticket =
                    Ticket { session: id, id: (**wanted).into(), target: signal.target, network: network.clone() };
                match self.open_ticket(ticket, now) {
                    None => return,
                    opened => opened,
                }
            }
        };
        let (shard, detour) = (self.config.shard, address.is_none());
        let sender = Sender::Session { shard, session: id, ticket, detour };
        let origin = Origin { sender, kind: signal.kind, network, standing, read_at: now.at };
        if is_forbidden {
            let refusal = (ErrorCode::Forbidden, ErrorCode::Forbidden.explain());
            return self.refuse_signal(id, origin, signal.target, refusal, now);
        }
        if !sender_is_in {
            let refusal = (ErrorCode::WrongNetwork, sentences::NOT_A_MEMBER);
            return self.refuse_signal(id, origin, signal.target, refusal, now);
        }
        if own.is_some_and(|(ix, _)| self.is_too_crowded_for(id, ix, &signal.target)) {
            return self.report_outcome(origin, signal.target, Outcome::Failed(ErrorCode::NetworkFull), now);
        }
        let frame = wire::signal(
            &mut self.arena,
            signal.kind,
            signal.data,
            &from,
            &signal.target,
            origin.network.as_str(),
            now.wall_ms,
        );
        let to = address.unwrap_or(Address::Shard(home));
        if to == self.here() {
            return self.deliver(origin, from, signal.target, Frame::Arena(frame), now);
        }
        let letter = SignalLetter { origin, from, target: signal.target, frame: self.arena[frame].into() };
        match to {
            Address::Shard(shard) => self.post(shard, ToShard::Signal(letter)),
            Address::Mesh => self.post_to_mesh(|| ToMesh::Signal(letter)),
        }
    }

    /// Takes a signal from the budget of its network.
    fn take_signal(&mut self, id: SessionId, ix: NetworkIx, bytes: u64, now: Now) -> Result<(), Exceeded> {
        self.take_of_network(id, ix, (BudgetItem::Messages, 1), now)?;
        self.take_of_network(id, ix, (BudgetItem::Bytes, bytes), now)
    }

    /// Issues a ticket for the receipt of a signal. If the session waits for too many receipts already, sends a receipt
    /// with `rate-limited`, and returns `None`.
    fn open_ticket(&mut self, ticket: Ticket, now: Now) -> Option<NonZeroU64> {
        let id = ticket.session;
        let Some(session) = self.sessions.get_mut(id) else {
            bug!(self.bugs, MessageSession, "signal of {id:?}");
            return None;
        };
        if session.open_receipt() {
            return Some(self.tickets.issue(ticket, now.at));
        }
        let outcome = Outcome::Failed(ErrorCode::RateLimited);
        self.stats.count_outcome(outcome);
        let (target, retry_in) = (Some(ticket.target), Some(RATE_LIMIT_PAUSE));
        let report = ReceiptReport { id: &ticket.id, outcome, target, retry_in, network: ticket.network.as_str() };
        self.send_receipt(id, &report, now);
        None
    }

    /// Refuses a signal of this shard. The sender receives a receipt if it has requested one, and an `error` otherwise.
    fn refuse_signal(
        &mut self,
        id: SessionId,
        origin: Origin,
        target: PeerId,
        (code, message): (ErrorCode, &'static str),
        now: Now,
    ) {
        if matches!(origin.sender, Sender::Session { ticket: Some(_), .. }) {
            return self.report_outcome(origin, target, Outcome::Failed(code), now);
        }
        self.stats.count_outcome(Outcome::Failed(code));
        let report = ErrorReport {
            code,
            message,
            in_reply_to: Some(origin.kind.label()),
            target: Some(target),
            id: None,
            retry_in: None,
            network: origin.network.as_str(),
        };
        self.send_error(id, &report, now);
    }

    /// The address of a signal's target. A shard knows the addresses of its own peers and of the members of every
    /// network.
    ///
    /// A signal for a member at another hub is posted directly to the mesh, into the same mailbox as the sender's
    /// presence. A signal with an unknown target is posted to the home shard of the target.
    fn address_of(&self, signal: &Signal<'_>, own: Option<NetworkIx>, home: ShardId) -> Option<Address> {
        if !self.config.meshed || self.by_peer.contains_key(&signal.target) {
            return Some(Address::Shard(home));
        }
        let ix = own.or_else(|| self.rosters.find(&signal.network))?;
        self.rosters.member(ix, &signal.target).map(Member::address)
    }

    /// Delivers a signal to its target, whose home is this shard.
    pub(super) fn deliver(&mut self, origin: Origin, from: PeerId, target: PeerId, frame: Frame, now: Now) {
        let open = self
            .session_of(&target)
            .and_then(|id| Some((id, self.sessions.get(id).filter(|session| session.is_open())?)));
        let Some((id, session)) = open else {
            // Without a detour, the sender's shard knew that the target was on this shard. The target has moved or left
            // since then. A signal without a detour is not forwarded to the mesh. A forwarded signal could arrive after
            // the sender's next signals, which are posted directly to the mesh.
            let detour = matches!(origin.sender, Sender::Session { detour: true, .. });
            if detour && self.home.is_elsewhere(&target) {
                let frame = match frame {
                    Frame::Arena(range) => self.arena[range].into(),
                    Frame::Owned(frame) => frame,
                    Frame::Template(_) => return bug!(self.bugs, SignalFrame, "from {from:?}"),
                };
                return self.post_to_mesh(|| ToMesh::Signal(SignalLetter { origin, from, target, frame }));
            }
            return self.report_outcome(origin, target, Outcome::Failed(ErrorCode::PeerNotFound), now);
        };
        let target_membership = membership_in(&self.rosters, &mut self.bugs, session, origin.network.as_str());
        match target_membership.map(Membership::network) {
            Some(ix) => {
                if !self.members_know(ix, &from, &origin) {
                    return self.report_outcome(origin, target, Outcome::Failed(ErrorCode::Unreachable), now);
                }
                self.introduce(id, ix, &from);
                if !self.introduce_stranger(id, ix, from, now) {
                    return self.report_outcome(origin, target, Outcome::Failed(ErrorCode::NetworkFull), now);
                }
            }
            None if origin.network.as_str() == NetworkName::GLOBAL && session.is_outsider() => {}
            None => return self.report_outcome(origin, target, Outcome::Failed(ErrorCode::WrongNetwork), now),
        }
        let kind = MessageKind::Signal(origin.kind);
        self.outputs.push_back(Output::Send { session: id, frame, kind, origin: Some(origin), from: Some(from) });
    }

    /// Whether the members on this shard know the sender in the stay in which it sent the signal. If they do not know
    /// the sender, the signal has arrived before the sender's join or after its leave.
    fn members_know(&self, ix: NetworkIx, from: &PeerId, origin: &Origin) -> bool {
        let remote = match origin.sender {
            Sender::Session { shard, .. } if shard == self.config.shard => return true,
            Sender::Session { .. } => false,
            Sender::Hub { .. } => true,
        };
        let member = self.rosters.member(ix, from).map(Member::announcement);
        let stay = member.filter(|announcement| announcement.remote == remote).map(|announcement| announcement.stay);
        origin.standing.fits(stay.map(|stay| stay.number), &origin.network)
    }

    pub(super) fn delivered(&mut self, origin: Origin, target: PeerId, now: Now) {
        if let Sender::Session { ticket, .. } = origin.sender {
            self.stats.observe_latency(now.at.saturating_sub(origin.read_at));
            if ticket.is_none() {
                return self.stats.count_outcome(Outcome::Delivered);
            }
        }
        self.report_outcome(origin, target, Outcome::Delivered, now);
    }

    pub(super) fn undelivered(&mut self, origin: Origin, target: PeerId, reason: CloseReason, now: Now) {
        let slow = reason == CloseReason::SlowConsumer;
        let code = if slow { ErrorCode::SlowPeer } else { ErrorCode::PeerNotFound };
        self.report_outcome(origin, target, Outcome::Failed(code), now);
    }

    /// Reports the outcome of a signal to its sender, by letter if the sender is on another shard or hub.
    pub(super) fn report_outcome(&mut self, origin: Origin, target: PeerId, outcome: Outcome, now: Now) {
        let (shard, session, ticket) = match origin.sender {
            Sender::Session { shard, session, ticket, .. } => (shard, session, ticket),
            Sender::Hub { .. } => {
                return self.post_to_mesh(|| ToMesh::Outcome(OutcomeLetter { origin, target, outcome }));
            }
        };
        if shard != self.config.shard {
            self.post(shard, ToShard::Outcome(OutcomeLetter { origin, target, outcome }));
        } else if let Some(ticket) = ticket {
            match self.tickets.close(ticket) {
                Some(ticket) => self.redeem(&ticket, outcome, now),
                None => self.stats.late_outcomes += 1,
            }
        } else if let Outcome::Failed(code) = outcome {
            self.stats.count_outcome(outcome);
            let report = ErrorReport {
                code,
                message: code.explain(),
                in_reply_to: Some(origin.kind.label()),
                target: Some(target),
                id: None,
                retry_in: None,
                network: origin.network.as_str(),
            };
            self.send_error(session, &report, now);
        } else {
            bug!(self.bugs, OutcomeSender, "{outcome:?} of a signal of {session:?} without a receipt");
        }
    }

    pub(super) fn expire_receipts(&mut self, now: Now) {
        // Tickets that are not processed in this turn stay due.
        while !self.is_turn_over()
            && let Some(ticket) = self.tickets.expire(now.at)
        {
            self.redeem(&ticket, Outcome::Failed(ErrorCode::Unknown), now);
        }
    }

    /// Sends the receipt for a closed ticket.
    fn redeem(&mut self, ticket: &Ticket, outcome: Outcome, now: Now) {
        self.stats.count_outcome(outcome);
        if let Some(session) = self.sessions.get_mut(ticket.session) {
            session.close_receipt(&mut self.bugs);
            let (target, network) = (Some(ticket.target), ticket.network.as_str());
            let report = ReceiptReport { id: &ticket.id, outcome, target, retry_in: None, network };
            self.send_receipt(ticket.session, &report, now);
        }
    }

    pub(super) fn send_receipt(&mut self, to: SessionId, report: &ReceiptReport<'_>, now: Now) {
        // The session of the sender may have ended in the meantime.
        let Some(session) = self.sessions.get(to) else { return };
        let frame = wire::receipt(&mut self.arena, &session.peer(), report, now.wall_ms);
        self.send(to, Frame::Arena(frame), MessageKind::Receipt);
    }
}

/// Maximum number of networks of a session for which comparing all names is faster than a look-up. Most peers are in
/// one or two networks.
const FEW_NETWORKS: usize = 4;

/// The session's membership in the network with this name. `None` for an observer.
fn membership_in<'a>(rosters: &Rosters, bugs: &mut Bugs, session: &'a Session, name: &str) -> Option<&'a Membership> {
    let found = if session.memberships().len() > FEW_NETWORKS {
        rosters.find(name).and_then(|ix| session.membership(ix))
    } else {
        session.memberships().iter().find(|membership| match rosters.network(membership.network()) {
            Some(network) => network.name().as_str() == name,
            None => {
                bug!(bugs, MembershipNetwork, "{:?} is in {:?}", session.peer(), membership.network());
                false
            }
        })
    };
    found.filter(|membership| !membership.observes())
}
