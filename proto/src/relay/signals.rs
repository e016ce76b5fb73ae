//! Signals between hubs, and their outcomes.

mod inbound;
mod outbound;
mod outcomes;

use std::time::Duration;

use crate::bug;
use crate::codec::is_deeper_than;
use crate::envelope::{Envelope, Routed, SignalEnvelope};
use crate::id::{HubId, PeerId, ShardId};
use crate::limits::{HOLD, MAX_OUTCOMES, MAX_SIGNAL_DEPTH, SLICE_PEERS};
use crate::reason::{ErrorCode, Outcome};
use crate::router::{Origin, OutcomeLetter, RouterStats, Sender, SignalLetter, Standing, ToShard};
use crate::time::Now;
use crate::ws;

use super::remote::Remote;
use super::traces::Side;
use super::{Destination, Relay};

use inbound::Arrival;
pub(super) use inbound::Inbound;
pub(super) use outbound::Outbound;
pub(super) use outbound::Pending;
pub(super) use outcomes::Outcomes;

impl Relay {
    /// Sends a signal of this hub's peer to another hub, or to a Go hub.
    pub(super) fn signalled(&mut self, origin: Origin, from: PeerId, target: PeerId, frame: Box<[u8]>, now: Now) {
        self.reconcile(&target, now);
        self.reconcile(&from, now);
        let Some(holder) = self.directory.holder(&target) else {
            return self.resolve(origin, target, Outcome::Failed(ErrorCode::PeerNotFound));
        };
        if let Err(code) = self.is_in_order(&origin, &from, &target) {
            return self.resolve(origin, target, Outcome::Failed(code));
        }
        if holder.hub == self.config.hub {
            let outcome = if self.legacy.holds(&target) {
                self.signal_legacy(&origin, &from, &target, &frame, now)
            } else {
                Outcome::Failed(ErrorCode::PeerNotFound)
            };
            return self.resolve(origin, target, outcome);
        }
        let hop = self.signal_route(&holder.hub, now).filter(|&via| !self.is_saturated(via));
        let Some(remote) = self.hubs.get_mut(&holder.hub) else {
            bug!(self.bugs, HubMissing, "{holder:?} is the claim to {target:?}");
            return self.resolve(origin, target, Outcome::Failed(ErrorCode::Unreachable));
        };
        let Some(via) = hop.filter(|_| remote.is_live()) else {
            return self.resolve(origin, target, Outcome::Failed(ErrorCode::Unreachable));
        };
        if remote.in_flight() >= self.config.tuning.max_signals_in_flight {
            return self.resolve(origin, target, Outcome::Failed(ErrorCode::Unreachable));
        }
        let receipt = matches!(origin.sender, Sender::Session { ticket: Some(_), .. });
        let (kind, network, standing) = (origin.kind, origin.network.clone(), origin.standing);
        let read_at = origin.read_at;
        let counter = remote.issue(via, origin, target, now.at);
        let signal = SignalEnvelope {
            counter,
            seq: self.own.seq,
            receipt,
            kind,
            sender: from,
            target,
            network,
            frame,
            standing,
        };
        let to = (holder.hub, remote.incarnation());
        let route = self.header_to(to);
        self.stats.relayed += 1;
        self.trace_sent((&route, via), &signal, read_at, now);
        self.send(Destination::from(via), Envelope::Routed(route, Box::new(Routed::Signal(signal))));
    }

    /// Checks that signals to the same session of a target cannot overtake each other.
    ///
    /// The shard of the sender posts signals to members directly to the mesh. All other signals make a detour through
    /// the target's home shard. Before the first join of a target's session, only detoured signals are sent to this
    /// session. After the join, only direct signals are sent to this session.
    fn is_in_order(&self, origin: &Origin, from: &PeerId, target: &PeerId) -> Result<(), ErrorCode> {
        // All signals of a Go peer arrive over one link, so they are always in order.
        let Sender::Session { detour, .. } = origin.sender else { return Ok(()) };
        let has_been_member = self.directory.has_been_member(target);
        if detour && has_been_member {
            let elsewhere = self.is_in_a_network(target) && self.membership(target, &origin.network).is_none();
            return Err(if elsewhere { ErrorCode::WrongNetwork } else { ErrorCode::PeerNotFound });
        }
        // The sender's announcement may still be in transit, or the sender's leave may have arrived already.
        let stay = || self.membership(from, &origin.network).map(|announcement| announcement.stay.number);
        let is_late = || detour && !origin.standing.fits(stay(), &origin.network);
        // If the target's session has never been in a network, a direct signal was meant for an earlier session.
        if detour == has_been_member || is_late() { Err(ErrorCode::PeerNotFound) } else { Ok(()) }
    }

    /// Reports an outcome to a sender of this hub.
    fn resolve(&mut self, origin: Origin, target: PeerId, outcome: Outcome) {
        // The sender of a signal from a Go hub receives no outcome.
        let Sender::Session { shard, ticket, .. } = origin.sender else { return };
        match outcome {
            Outcome::Delivered if ticket.is_none() => self.stats.delivered += 1,
            Outcome::Forwarded if ticket.is_none() => self.stats.forwarded_to_go += 1,
            Outcome::Delivered | Outcome::Forwarded | Outcome::Failed(_) => {
                self.post(shard, ToShard::Outcome(OutcomeLetter { origin, target, outcome }))
            }
        }
    }

    pub(super) fn arrived(&mut self, from: HubId, signal: SignalEnvelope, now: Now) {
        let Some(remote) = self.hubs.get_mut(&from) else {
            return bug!(self.bugs, HubMissing, "signal of {from:?}");
        };
        let counter = signal.counter;
        let most = self.budgets.held.allows(remote.accounted().held);
        let arrival = remote.inbound.arrives(&signal, remote.holding.seq, remote.is_live(), most, now.at);
        match arrival {
            Arrival::Deliver => self.take_in(from, signal, now),
            Arrival::Hold => {
                remote.inbound.hold(signal, now.at + HOLD, &mut self.bugs);
                self.account(from);
                self.trace_event(Side::Received, from, counter, "held", now);
                self.release_signals(from, now);
            }
            Arrival::Full => {
                self.queue_outcome(from, counter, Outcome::Failed(ErrorCode::Unreachable), true, now);
                self.stats.signals_not_held += 1;
            }
            Arrival::Repeated => self.stats.out_of_order += 1,
            Arrival::Late { is_answered } => {
                if is_answered {
                    self.queue_outcome(from, counter, Outcome::Failed(ErrorCode::Unreachable), true, now);
                } else {
                    self.trace_end(Side::Received, from, counter, None, now);
                }
                self.stats.out_of_order += 1;
            }
            Arrival::TooFar => {
                self.queue_outcome(from, counter, Outcome::Failed(ErrorCode::Unreachable), true, now);
                self.stats.numbers_refused += 1;
            }
            Arrival::Restarted { dropped } => {
                self.account(from);
                for counter in dropped {
                    self.queue_outcome(from, counter, Outcome::Failed(ErrorCode::Unreachable), true, now);
                }
                self.arrived(from, signal, now);
            }
        }
    }

    /// Delivers those held signals of a hub that no longer have to wait.
    pub(super) fn release_signals(&mut self, from: HubId, now: Now) {
        loop {
            let Some(remote) = self.hubs.get_mut(&from) else {
                return bug!(self.bugs, HubMissing, "held signals of {from:?} are delivered");
            };
            // Expected: the held signals of a hub that has stopped stay held until they expire.
            if !remote.is_live() {
                return;
            }
            let Some(signal) = remote.inbound.next(remote.holding.seq) else { return };
            self.account(from);
            self.take_in(from, signal, now);
        }
    }

    /// Delivers the next signal of a hub.
    fn take_in(&mut self, from: HubId, signal: SignalEnvelope, now: Now) {
        let SignalEnvelope { counter, receipt, kind, sender, target, network, frame, standing, .. } = signal;
        self.reconcile(&target, now);
        self.reconcile(&sender, now);
        self.reconcile_at(from, &sender, now);
        let Some(hub) = self.hubs.get(&from).map(Remote::number) else {
            return bug!(self.bugs, HubMissing, "signal of {from:?}");
        };
        let origin = Origin { sender: Sender::Hub { hub, counter, receipt }, kind, network, standing, read_at: now.at };
        let gone = match self.directory.holder(&sender) {
            Some(holder) => holder.hub != from,
            // A sender that is in no network does not have to be known here.
            None => standing != Standing::Outsider,
        };
        // Hubs of version 2.0.0 accept data of any nesting depth. Only the signal is refused. The link stays open,
        // because it carries signals of other peers.
        if is_deeper_than(ws::payload(&frame), MAX_SIGNAL_DEPTH + 1) {
            self.queue_outcome(from, counter, Outcome::Failed(ErrorCode::InvalidMessage), receipt, now);
        } else if gone {
            // The sender has left, or has lost its id to another session. This hub's peers have already been notified
            // that the sender has left.
            self.queue_outcome(from, counter, Outcome::Failed(ErrorCode::Unreachable), receipt, now);
        } else if self.legacy.holds(&target) {
            let outcome = self.signal_legacy(&origin, &sender, &target, &frame, now);
            self.queue_outcome(from, counter, outcome, receipt, now);
        } else if self.own.peers.contains_key(&target) {
            let home = ShardId::home(&target, self.config.shards, self.config.keys);
            self.trace_event(Side::Received, from, counter, "posted", now);
            self.post(home, ToShard::Signal(SignalLetter { origin, from: sender, target, frame }));
        } else {
            self.queue_outcome(from, counter, Outcome::Failed(ErrorCode::PeerNotFound), receipt, now);
        }
    }

    /// Stops waiting for missing signals, and for senders whose presence does not arrive.
    pub(super) fn expire_held(&mut self, from: HubId, now: Now) {
        loop {
            let Some(remote) = self.hubs.get_mut(&from) else {
                return bug!(self.bugs, HubMissing, "held signals of {from:?} expire");
            };
            if remote.inbound.due().is_none_or(|at| at > now.at) {
                return;
            }
            let before = remote.inbound.position();
            let live = remote.is_live();
            if let Some(signal) = remote.inbound.give_up(remote.holding.seq) {
                self.account(from);
                self.queue_outcome(from, signal.counter, Outcome::Failed(ErrorCode::Unreachable), signal.receipt, now);
            }
            self.release_signals(from, now);
            let Some(remote) = self.hubs.get_mut(&from) else {
                return bug!(self.bugs, HubMissing, "held signals of {from:?}");
            };
            if !live || before == remote.inbound.position() {
                // Signals of a lost hub are not delivered.
                remote.inbound.drop_held();
            }
            self.account(from);
        }
    }

    /// Handles a shard's report of the outcome of another hub's signal.
    pub(super) fn outcome(&mut self, origin: &Origin, outcome: Outcome, now: Now) {
        let Sender::Hub { hub, counter, receipt } = origin.sender else {
            return bug!(self.bugs, OutcomeSender, "{:?}", origin.sender);
        };
        // No hub has this number if the hub was forgotten or has begun another incarnation, or if the signal came from
        // a Go hub.
        if let Some(&from) = self.numbers.get(&hub) {
            self.queue_outcome(from, counter, outcome, receipt, now);
        }
    }

    /// Stores an outcome for the hub of the signal. Failures and outcomes for a receipt are due at once, so
    /// [`Relay::hub_due`] sends them at the end of this turn. Other outcomes wait for `OUTCOME_DELAY`, and are sent
    /// together.
    fn queue_outcome(&mut self, to: HubId, counter: u64, outcome: Outcome, receipt: bool, now: Now) {
        let Some(remote) = self.hubs.get_mut(&to) else {
            return bug!(self.bugs, HubMissing, "outcome for {to:?}");
        };
        remote.outcomes.add(counter, outcome, receipt, now.at);
        self.trace_end(Side::Received, to, counter, Some(outcome), now);
    }

    pub(super) fn send_outcomes(&mut self, to: HubId, now: Now) {
        let via = self.route(&to, now);
        let Some(remote) = self.hubs.get_mut(&to) else {
            return bug!(self.bugs, HubMissing, "outcomes for {to:?}");
        };
        let outcomes = remote.outcomes.take();
        let to_incarnation = remote.incarnation();
        // Without a route back, the sender's hub times out and reports `unknown`.
        let Some(via) = via else { return };
        let route = self.header_to((to, to_incarnation));
        for outcomes in outcomes.chunks(MAX_OUTCOMES) {
            let routed = Box::new(Routed::Outcomes(outcomes.to_vec()));
            self.send(Destination::from(via), Envelope::Routed(route, routed));
        }
    }

    pub(super) fn outcomes_received(&mut self, from: HubId, outcomes: Vec<(u64, Outcome)>, now: Now) {
        for (counter, outcome) in outcomes {
            let Some(remote) = self.hubs.get_mut(&from) else {
                return bug!(self.bugs, HubMissing, "outcomes of {from:?}");
            };
            match remote.answered(counter) {
                Some(Pending { origin, target, .. }) => {
                    if outcome == Outcome::Delivered {
                        self.observe_latency(now.at.saturating_sub(origin.read_at));
                    }
                    self.trace_end(Side::Sent, from, counter, Some(outcome), now);
                    self.resolve(origin, target, outcome);
                }
                None => self.stats.late_outcomes += 1,
            }
        }
    }

    pub(super) fn expire_outbound(&mut self, to: HubId, now: Now) {
        let Some(remote) = self.hubs.get_mut(&to) else {
            return bug!(self.bugs, HubMissing, "signals to {to:?} expire");
        };
        for pending in remote.outbound.expire(SLICE_PEERS, now.at) {
            self.write_off(pending, true);
        }
    }

    /// Gives up the signals to a lost hub. Some of these signals may have been delivered, but no outcomes will arrive.
    pub(super) fn give_up_outbound(&mut self, to: HubId) {
        let Some(remote) = self.hubs.get_mut(&to) else {
            return bug!(self.bugs, HubMissing, "signals to {to:?} are given up");
        };
        if remote.give_up_outbound() {
            self.begin_work(to);
        }
    }

    /// Notifies the sender of the next signal that was lost with the target's hub. Returns false if there is no such
    /// signal.
    pub(super) fn write_off_next(&mut self, to: HubId) -> bool {
        let Some(remote) = self.hubs.get_mut(&to) else {
            bug!(self.bugs, HubMissing, "signals to {to:?} are written off");
            return false;
        };
        // Expected: the senders of all lost signals were notified.
        let Some(pending) = remote.take_lost() else { return false };
        self.write_off(pending, false);
        true
    }

    fn write_off(&mut self, Pending { origin, target, .. }: Pending, receipts_are_due: bool) {
        let waited_for = matches!(origin.sender, Sender::Session { ticket: Some(_), .. });
        // If a receipt is due, the sender's shard has already sent this receipt with `unknown`, because the shard has
        // the same timeout.
        if !(waited_for && receipts_are_due) {
            self.resolve(origin, target, Outcome::Failed(ErrorCode::Unknown));
        }
    }

    fn observe_latency(&mut self, took: Duration) {
        self.stats.latency[RouterStats::latency_bucket(took)] += 1;
    }
}

#[cfg(test)]
mod tests;
