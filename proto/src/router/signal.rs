//! Signals, and what became of them.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::codec::Signal;
use crate::id::{Address, Keys, NetworkName, PeerId, SessionId, ShardId};
use crate::limits::{MAX_OPEN_RECEIPTS, RECEIPT_TIMEOUT};
use crate::reason::{CloseReason, ErrorCode, Outcome};
use crate::time::Now;
use crate::wire::{self, ErrorReport, MessageKind};

use super::Router;
use super::letter::{Frame, Letter, Origin, Output, Sender};
use super::roster::NetworkIx;
use super::session::{Session, State};

/// Receipts that have been promised and not yet sent.
#[derive(Debug)]
pub(super) struct Tickets {
    issued: u64,
    open: HashMap<u64, Ticket, Keys>,
    /// In the order of their deadlines, since all have the same. Those of settled tickets stay until they are more than
    /// the open ones, so that this is at most twice what is open, and [`Self::SLACK`].
    deadlines: VecDeque<(Duration, u64)>,
}

#[derive(Debug)]
struct Ticket {
    session: SessionId,
    id: Box<str>,
    target: PeerId,
    network: NetworkName,
}

impl Tickets {
    const SLACK: usize = 1024;

    pub(super) fn new(keys: Keys) -> Self {
        Self { issued: 0, open: HashMap::with_hasher(keys), deadlines: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.deadlines.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.front().map(|(at, _)| *at)
    }

    fn issue(&mut self, ticket: Ticket, now: Duration) -> u64 {
        self.issued += 1;
        self.open.insert(self.issued, ticket);
        if self.deadlines.len() > 2 * self.open.len() + Self::SLACK {
            let open = &self.open;
            self.deadlines.retain(|(_, number)| open.contains_key(number));
        }
        self.deadlines.push_back((now + RECEIPT_TIMEOUT, self.issued));
        self.issued
    }

    fn settle(&mut self, number: u64) -> Option<Ticket> {
        self.open.remove(&number)
    }
}

impl Router {
    pub(super) fn signalled(&mut self, id: SessionId, signal: Signal<'_>, now: Now) {
        let Some(session) = self.sessions.get(id) else { return };
        let from = session.peer;
        let own = self.own_network(session, &signal.network);
        let shared = own.is_some() || (session.memberships.is_empty() && signal.network == NetworkName::GLOBAL);
        let network = match own.and_then(|ix| self.rosters.network(ix)) {
            Some(network) => network.name.clone(),
            None => NetworkName::new(&signal.network),
        };
        let mut origin = Origin {
            sender: Sender::Session {
                shard: self.config.shard,
                session: id,
                ticket: 0,
                told: self.told_mesh,
                heard: self.ahead.heard,
            },
            kind: signal.kind,
            network,
            read_at: now.at,
        };
        let network = &origin.network;
        if let Some(wanted) = signal.id {
            let Some(session) = self.sessions.get_mut(id) else { return };
            if session.open_receipts >= MAX_OPEN_RECEIPTS {
                let outcome = Outcome::Failed(ErrorCode::RateLimited);
                self.stats.count_outcome(outcome);
                self.send_receipt(id, &wanted, outcome, Some(signal.target), network.as_str(), now);
                return;
            }
            session.open_receipts += 1;
            let ticket = Ticket { session: id, id: wanted.into(), target: signal.target, network: network.clone() };
            let ticket = self.tickets.issue(ticket, now.at);
            origin.sender = Sender::Session {
                shard: self.config.shard,
                session: id,
                ticket,
                told: self.told_mesh,
                heard: self.ahead.heard,
            };
        }
        if !shared {
            return self.settle(origin, signal.target, Outcome::Failed(ErrorCode::WrongNetwork), now);
        }
        if own.is_some_and(|ix| self.is_too_crowded_for(id, ix, &signal.target)) {
            return self.settle(origin, signal.target, Outcome::Failed(ErrorCode::NetworkFull), now);
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
        let home = ShardId::home(&signal.target, self.config.shards, self.config.keys);
        if home == self.config.shard {
            self.deliver(origin, from, signal.target, Frame::Arena(frame), now);
        } else {
            let frame = self.arena[frame].into();
            let letter = Letter::Signal { origin, from, target: signal.target, frame };
            self.outputs.push_back(Output::Letter { to: Address::Shard(home), letter });
        }
    }

    /// The network of that name, if the session is in it.
    fn own_network(&self, session: &Session, name: &str) -> Option<NetworkIx> {
        // Most peers are in one network or two, whose names cost less to look at than a search among all names.
        if session.memberships.len() > Self::FEW_NETWORKS {
            return self.rosters.find(name).filter(|&ix| session.is_member(ix));
        }
        let is_it = |ix| self.rosters.network(ix).is_some_and(|network| network.name.as_str() == name);
        session.memberships.iter().map(|m| m.network).find(|&ix| is_it(ix))
    }

    const FEW_NETWORKS: usize = 4;

    /// Passes a signal to its target, whose home is this shard.
    pub(super) fn deliver(&mut self, origin: Origin, from: PeerId, target: PeerId, frame: Frame, now: Now) {
        let found = self.by_peer.get(&target).copied();
        let live = found.and_then(|id| Some((id, self.sessions.get(id).filter(|s| s.state == State::Live)?)));
        let Some((id, session)) = live else {
            let from_here = matches!(origin.sender, Sender::Session { .. });
            if from_here && self.elsewhere.contains_key(&target) {
                let frame = match frame {
                    Frame::Arena(range) => self.arena[range].into(),
                    Frame::Owned(frame) => frame,
                    // Signals are for one.
                    Frame::Template(_) => Box::default(),
                };
                return self.post_to_mesh(|| Letter::Signal { origin, from, target, frame });
            }
            return self.settle(origin, target, Outcome::Failed(ErrorCode::PeerNotFound), now);
        };
        match self.own_network(session, origin.network.as_str()) {
            Some(ix) => {
                self.introduce(id, ix, &from);
                if !self.introduce_stranger(id, ix, from, now) {
                    return self.settle(origin, target, Outcome::Failed(ErrorCode::NetworkFull), now);
                }
            }
            None if session.memberships.is_empty() && origin.network.as_str() == NetworkName::GLOBAL => {}
            None => return self.settle(origin, target, Outcome::Failed(ErrorCode::WrongNetwork), now),
        }
        let kind = MessageKind::Signal(origin.kind);
        self.outputs.push_back(Output::Send { session: id, frame, kind, origin: Some(origin) });
    }

    pub(super) fn delivered(&mut self, origin: Origin, target: PeerId, now: Now) {
        if let Sender::Session { ticket, .. } = origin.sender {
            self.stats.observe_latency(now.at.saturating_sub(origin.read_at));
            if ticket == 0 {
                return self.stats.count_outcome(Outcome::Delivered);
            }
        }
        self.settle(origin, target, Outcome::Delivered, now);
    }

    pub(super) fn undelivered(&mut self, origin: Origin, target: PeerId, reason: CloseReason, now: Now) {
        let slow = reason == CloseReason::SlowConsumer;
        let code = if slow { ErrorCode::SlowPeer } else { ErrorCode::PeerNotFound };
        self.settle(origin, target, Outcome::Failed(code), now);
    }

    /// Tells the sender what became of its signal, by letter where the sender is on another shard.
    pub(super) fn settle(&mut self, origin: Origin, target: PeerId, outcome: Outcome, now: Now) {
        let (shard, session, ticket) = match origin.sender {
            Sender::Session { shard, session, ticket, .. } => (shard, session, ticket),
            Sender::Hub { .. } => return self.post_to_mesh(|| Letter::Outcome { origin, target, outcome }),
        };
        if shard != self.config.shard {
            let to = Address::Shard(shard);
            self.outputs.push_back(Output::Letter { to, letter: Letter::Outcome { origin, target, outcome } });
        } else if ticket != 0 {
            match self.tickets.settle(ticket) {
                Some(ticket) => self.close_ticket(&ticket, outcome, now),
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
                network: origin.network.as_str(),
            };
            self.send_error(session, &report, now);
        }
    }

    pub(super) fn expire_receipts(&mut self, now: Now) {
        while let Some((_, number)) = self.tickets.deadlines.pop_front_if(|(at, _)| *at <= now.at) {
            if let Some(ticket) = self.tickets.settle(number) {
                self.close_ticket(&ticket, Outcome::Failed(ErrorCode::Unknown), now);
            }
        }
    }

    fn close_ticket(&mut self, ticket: &Ticket, outcome: Outcome, now: Now) {
        self.stats.count_outcome(outcome);
        if let Some(session) = self.sessions.get_mut(ticket.session) {
            session.open_receipts -= 1;
            self.send_receipt(ticket.session, &ticket.id, outcome, Some(ticket.target), ticket.network.as_str(), now);
        }
    }

    pub(super) fn send_receipt(
        &mut self,
        to: SessionId,
        id: &str,
        outcome: Outcome,
        target: Option<PeerId>,
        network: &str,
        now: Now,
    ) {
        let Some(session) = self.sessions.get(to) else { return };
        let frame = wire::receipt(&mut self.arena, &session.peer, id, outcome, target, network, now.wall_ms);
        self.send(to, Frame::Arena(frame), MessageKind::Receipt);
    }
}
