//! Signals between hubs, and what became of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::envelope::{Envelope, Route, Routed, SignalEnvelope};
use crate::id::{HubId, PeerId, ShardId, Via};
use crate::limits::{
    HOLD, MAX_HOPS, MAX_OUTCOMES, MAX_SIGNALS_HELD, MAX_SIGNALS_IN_FLIGHT, OUTCOME_DELAY, RECEIPT_TIMEOUT,
};
use crate::reason::{ErrorCode, Outcome};
use crate::router::{Letter, Origin, RouterStats, Sender};
use crate::time::Now;

use super::{Destination, Relay, Way};

/// Signals to one hub whose outcome is outstanding.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    counter: u64,
    open: HashMap<u64, Pending, Fixed>,
    /// In the order of their deadlines, since all have the same. Those of settled signals stay until they are more than the
    /// open ones.
    deadlines: VecDeque<(Duration, u64)>,
}

/// Counters are the hub's own, so that nobody can aim them; they are spread by a multiplication (Fibonacci hashing), which is
/// a tenth of what SipHash costs.
type Fixed = std::hash::BuildHasherDefault<Spread>;

#[derive(Debug, Default)]
struct Spread(u64);

impl std::hash::Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(self.0 ^ u64::from(byte)));
    }

    fn write_u64(&mut self, n: u64) {
        // The table takes its place from the high bits as well as from the low ones.
        let product = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}

#[derive(Debug)]
struct Pending {
    origin: Origin,
    target: PeerId,
}

impl Outbound {
    /// Deadlines of settled signals that may stay: 16 B each.
    const SLACK: usize = 16 * 1024;

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn due(&self) -> Option<Duration> {
        self.deadlines.front().map(|(at, _)| *at)
    }

    fn issue(&mut self, pending: Pending, now: Duration) -> u64 {
        self.counter += 1;
        self.open.insert(self.counter, pending);
        if self.deadlines.len() > 4 * self.open.len() + Self::SLACK {
            let open = &self.open;
            self.deadlines.retain(|(_, counter)| open.contains_key(counter));
        }
        self.deadlines.push_back((now + RECEIPT_TIMEOUT, self.counter));
        self.counter
    }

    fn expire(&mut self, now: Duration) -> Vec<Pending> {
        let mut expired = Vec::new();
        while let Some((_, counter)) = self.deadlines.pop_front_if(|(at, _)| *at <= now) {
            expired.extend(self.open.remove(&counter));
        }
        expired
    }

    /// Gives up all that is outstanding, in the order in which it was sent.
    fn give_up(&mut self) -> Vec<Pending> {
        let deadlines = std::mem::take(&mut self.deadlines);
        deadlines.into_iter().filter_map(|(_, counter)| self.open.remove(&counter)).collect()
    }
}

/// Signals from one hub, in their order.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// The last that was taken.
    taken: u64,
    held: BTreeMap<u64, (Duration, SignalEnvelope)>,
    /// Not waited for any longer: if one comes after all, it is answered.
    skipped: BTreeSet<u64>,
}

impl Inbound {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn due(&self) -> Option<Duration> {
        self.held.values().map(|(at, _)| *at).min()
    }

    /// The next signal whose turn it is, if the presence of its hub is known so far.
    fn next(&mut self, seq: u64) -> Option<SignalEnvelope> {
        let first = self.held.first_entry()?;
        if *first.key() != self.taken + 1 || first.get().1.seq > seq {
            return None;
        }
        self.taken += 1;
        Some(first.remove().1)
    }

    /// Stops to wait for what is missing before the first that has waited for too long. Returns that one if it is its
    /// sender that is still not known.
    fn give_up(&mut self, seq: u64) -> Option<SignalEnvelope> {
        let first = self.held.first_entry()?;
        let counter = *first.key();
        if counter == self.taken + 1 {
            if first.get().1.seq <= seq {
                return None;
            }
            self.taken += 1;
            return Some(first.remove().1);
        }
        let from = (self.taken + 1).max(counter.saturating_sub(MAX_SIGNALS_HELD as u64));
        self.skipped.extend(from..counter);
        while self.skipped.len() > MAX_SIGNALS_HELD {
            self.skipped.pop_first();
        }
        self.taken = counter - 1;
        None
    }
}

impl Relay {
    /// A peer of this hub has sent a signal to one that is elsewhere.
    pub(super) fn signalled(&mut self, origin: Origin, from: PeerId, target: PeerId, frame: Box<[u8]>, now: Now) {
        let Some(holder) = self.directory.holder(&target) else {
            return self.settle(origin, target, Outcome::Failed(ErrorCode::PeerNotFound));
        };
        if holder.hub == self.config.hub {
            let outcome = if self.legacy.holds(&target) {
                self.signal_legacy(&target, &frame)
            } else {
                Outcome::Failed(ErrorCode::PeerNotFound)
            };
            return self.settle(origin, target, outcome);
        }
        let way = self.route(&holder.hub, now).filter(|&via| !self.is_saturated(via));
        let own = (self.config.hub, self.config.incarnation, self.own.seq);
        let Some((via, remote)) = way.zip(self.hubs.get_mut(&holder.hub)).filter(|(_, r)| r.is_live()) else {
            return self.settle(origin, target, Outcome::Failed(ErrorCode::Unreachable));
        };
        if remote.outbound.len() >= MAX_SIGNALS_IN_FLIGHT {
            return self.settle(origin, target, Outcome::Failed(ErrorCode::Unreachable));
        }
        let receipt = matches!(origin.sender, Sender::Session { ticket, .. } if ticket != 0);
        let (kind, network) = (origin.kind, origin.network.clone());
        let counter = remote.outbound.issue(Pending { origin, target }, now.at);
        let signal = SignalEnvelope { counter, seq: own.2, receipt, kind, sender: from, target, network, frame };
        let (to, to_incarnation) = (holder.hub, remote.incarnation);
        let route = Route { to, to_incarnation, from: own.0, from_incarnation: own.1, hops: 0 };
        self.stats.relayed += 1;
        self.send(Destination::from(via), Envelope::Routed(route, Box::new(Routed::Signal(signal))));
    }

    /// Tells a sender of this hub what became of its signal.
    fn settle(&mut self, origin: Origin, target: PeerId, outcome: Outcome) {
        if let Sender::Session { shard, ticket, .. } = origin.sender {
            if ticket == 0 && outcome == Outcome::Delivered {
                self.stats.delivered += 1;
            } else {
                self.post(shard, Letter::Outcome { origin, target, outcome });
            }
        }
    }

    /// Something came that goes to one hub.
    pub(super) fn routed(&mut self, via: Via, route: Route, routed: Routed, now: Now) {
        if route.to != self.config.hub {
            return self.forward(via, route, routed, now);
        }
        if route.to_incarnation != self.config.incarnation {
            // It was for a life that has ended.
            return self.bounce(route, &routed, now);
        }
        let of_this_life = self.hubs.get(&route.from).is_some_and(|r| r.incarnation == route.from_incarnation);
        match routed {
            Routed::Signal(signal) if of_this_life => self.arrived(route.from, signal, now),
            Routed::Signal(_) => self.bounce(route, &routed, now),
            Routed::Outcomes(outcomes) if of_this_life => self.heard_outcomes(route.from, outcomes, now),
            Routed::Outcomes(outcomes) => self.stats.late_outcomes += outcomes.len() as u64,
            Routed::Takeover { peer, ticket } => self.takeover_asked(route, peer, ticket, now),
            Routed::TakeoverAnswer { peer, ticket, in_use } => self.takeover_answered(peer, ticket, in_use),
        }
    }

    fn forward(&mut self, via: Via, route: Route, routed: Routed, now: Now) {
        // Answers and questions are a few bytes. A question that is not passed on would be answered as if nobody could be asked.
        let waits = |relay: &Self, next| matches!(routed, Routed::Signal(_)) && relay.is_saturated(next);
        let next = self.route(&route.to, now).filter(|&next| next != via && !waits(self, next));
        let Some(next) = next.filter(|_| route.hops.saturating_add(1) < MAX_HOPS) else {
            return self.bounce(route, &routed, now);
        };
        if matches!(routed, Routed::Signal(_)) {
            self.stats.forwarded += 1;
        }
        let route = Route { hops: route.hops + 1, ..route };
        self.send(Destination::from(next), Envelope::Routed(route, Box::new(routed)));
    }

    /// Tells the hub where something came from that it cannot go on, in the name of the one it was for.
    fn bounce(&mut self, route: Route, routed: &Routed, now: Now) {
        let answer = match routed {
            Routed::Signal(signal) => Routed::Outcomes(vec![(signal.counter, Outcome::Failed(ErrorCode::Unreachable))]),
            // Whoever cannot be asked cannot object.
            Routed::Takeover { peer, ticket } => Routed::TakeoverAnswer { peer: *peer, ticket: *ticket, in_use: false },
            Routed::Outcomes(_) | Routed::TakeoverAnswer { .. } => return,
        };
        let back = Route {
            to: route.from,
            to_incarnation: route.from_incarnation,
            from: route.to,
            from_incarnation: route.to_incarnation,
            hops: route.hops,
        };
        if let Some(via) = self.route(&back.to, now)
            && back.hops.saturating_add(1) < MAX_HOPS
        {
            self.send(
                Destination::from(via),
                Envelope::Routed(Route { hops: back.hops + 1, ..back }, Box::new(answer)),
            );
        }
    }

    fn arrived(&mut self, from: HubId, signal: SignalEnvelope, now: Now) {
        let Some(remote) = self.hubs.get_mut(&from) else { return };
        let counter = signal.counter;
        if counter <= remote.inbound.taken || remote.inbound.held.contains_key(&counter) {
            if remote.inbound.skipped.remove(&counter) {
                self.answer(from, counter, Outcome::Failed(ErrorCode::Unreachable), true, now);
            }
            self.stats.out_of_order += 1;
        } else if counter == remote.inbound.taken + 1
            && remote.inbound.held.is_empty()
            && signal.seq <= remote.holding.seq
            && remote.is_live()
        {
            // The usual case: nothing to wait for.
            remote.inbound.taken = counter;
            self.take_in(from, signal, now);
        } else if remote.inbound.len() >= MAX_SIGNALS_HELD {
            self.answer(from, counter, Outcome::Failed(ErrorCode::Unreachable), true, now);
        } else {
            remote.inbound.held.insert(counter, (now.at + HOLD, signal));
            self.release_signals(from, now);
        }
    }

    /// Passes on the signals of a hub whose turn has come.
    pub(super) fn release_signals(&mut self, from: HubId, now: Now) {
        while let Some(remote) = self.hubs.get_mut(&from).filter(|remote| remote.is_live())
            && let Some(signal) = remote.inbound.next(remote.holding.seq)
        {
            self.take_in(from, signal, now);
        }
    }

    /// Passes a signal on whose turn has come.
    fn take_in(&mut self, from: HubId, signal: SignalEnvelope, now: Now) {
        let SignalEnvelope { counter, receipt, kind, sender, target, network, frame, .. } = signal;
        if self.directory.holder(&sender).is_some_and(|holder| holder.hub != from) {
            // Its sender has lost its id to another session, and peers here know that one.
            self.answer(from, counter, Outcome::Failed(ErrorCode::Unreachable), receipt, now);
        } else if self.legacy.holds(&target) {
            let outcome = self.signal_legacy(&target, &frame);
            self.answer(from, counter, outcome, receipt, now);
        } else if self.own.peers.contains_key(&target) {
            let hub = self.hubs.get(&from).map_or(u32::MAX, |remote| remote.number);
            let origin = Origin { sender: Sender::Hub { hub, counter, receipt }, kind, network, read_at: now.at };
            let home = ShardId::home(&target, self.config.shards, self.config.keys);
            self.post(home, Letter::Signal { origin, from: sender, target, frame });
        } else {
            self.answer(from, counter, Outcome::Failed(ErrorCode::PeerNotFound), receipt, now);
        }
    }

    /// Stops to wait for signals that do not come, or whose senders do not.
    pub(super) fn expire_held(&mut self, from: HubId, now: Now) {
        while let Some(remote) = self.hubs.get_mut(&from)
            && remote.inbound.due().is_some_and(|at| at <= now.at)
        {
            let before = (remote.inbound.taken, remote.inbound.len());
            let live = remote.is_live();
            if let Some(signal) = remote.inbound.give_up(remote.holding.seq) {
                self.answer(from, signal.counter, Outcome::Failed(ErrorCode::Unreachable), signal.receipt, now);
            }
            self.release_signals(from, now);
            let Some(remote) = self.hubs.get_mut(&from) else { return };
            if !live || before == (remote.inbound.taken, remote.inbound.len()) {
                // Of a hub that is lost nothing is passed on.
                remote.inbound.held.clear();
            }
        }
    }

    /// A shard says what became of a signal that came from another hub.
    pub(super) fn outcome(&mut self, origin: &Origin, outcome: Outcome, now: Now) {
        let Sender::Hub { hub, counter, receipt } = origin.sender else { return };
        if let Some(&from) = self.numbers.get(&hub) {
            self.answer(from, counter, outcome, receipt, now);
        }
    }

    /// Notes an outcome for the hub a signal came from. Those that somebody waits for go at once, the others together.
    fn answer(&mut self, to: HubId, counter: u64, outcome: Outcome, receipt: bool, now: Now) {
        let Some(remote) = self.hubs.get_mut(&to) else { return };
        remote.outcomes.push((counter, outcome));
        let urgent = receipt || outcome != Outcome::Delivered || remote.outcomes.len() >= MAX_OUTCOMES;
        let due = if urgent { now.at } else { now.at + OUTCOME_DELAY };
        remote.outcomes_due = Some(remote.outcomes_due.map_or(due, |at| at.min(due)));
    }

    pub(super) fn send_outcomes(&mut self, to: HubId, now: Now) {
        let via = self.route(&to, now);
        let Some(remote) = self.hubs.get_mut(&to) else { return };
        remote.outcomes_due = None;
        let outcomes = std::mem::take(&mut remote.outcomes);
        let to_incarnation = remote.incarnation;
        // Without a way back the sender's hub is on its own: it says `unknown` in time.
        let Some(via) = via else { return };
        let route =
            Route { to, to_incarnation, from: self.config.hub, from_incarnation: self.config.incarnation, hops: 0 };
        for outcomes in outcomes.chunks(MAX_OUTCOMES) {
            let routed = Box::new(Routed::Outcomes(outcomes.to_vec()));
            self.send(Destination::from(via), Envelope::Routed(route, routed));
        }
    }

    fn heard_outcomes(&mut self, from: HubId, outcomes: Vec<(u64, Outcome)>, now: Now) {
        for (counter, outcome) in outcomes {
            let Some(remote) = self.hubs.get_mut(&from) else { return };
            match remote.outbound.open.remove(&counter) {
                Some(Pending { origin, target }) => {
                    if outcome == Outcome::Delivered {
                        self.observe_latency(now.at.saturating_sub(origin.read_at));
                    }
                    self.settle(origin, target, outcome);
                }
                None => self.stats.late_outcomes += 1,
            }
        }
    }

    pub(super) fn expire_outbound(&mut self, to: HubId, now: Now) {
        let expired = self.hubs.get_mut(&to).map(|remote| remote.outbound.expire(now.at));
        self.write_off(expired.unwrap_or_default(), true);
    }

    /// A hub is gone: what was sent there may have been delivered, and nobody will say.
    pub(super) fn give_up_outbound(&mut self, to: HubId) {
        let given_up = self.hubs.get_mut(&to).map(|remote| remote.outbound.give_up());
        self.write_off(given_up.unwrap_or_default(), false);
    }

    fn write_off(&mut self, signals: Vec<Pending>, receipts_are_due: bool) {
        for Pending { origin, target } in signals {
            let waited_for = matches!(origin.sender, Sender::Session { ticket, .. } if ticket != 0);
            // Receipts have the same time at their sender's shard, which has said `unknown` by itself.
            if !(waited_for && receipts_are_due) {
                self.settle(origin, target, Outcome::Failed(ErrorCode::Unknown));
            }
        }
    }

    fn observe_latency(&mut self, took: Duration) {
        let micros = took.as_micros() as u64;
        let bucket = RouterStats::LATENCY_BOUNDS.partition_point(|&bound| bound < micros);
        self.stats.latency[bucket] += 1;
    }

    pub(super) fn is_saturated(&self, via: Via) -> bool {
        match via {
            Via::Link(link) => self.links.get(&link).is_none_or(|link| link.saturated),
            Via::Bridge(_) => !self.bridge.up || self.bridge.saturated,
        }
    }
}

impl From<Via> for Destination {
    fn from(via: Via) -> Self {
        match via {
            Via::Link(link) => Self::Link(link),
            Via::Bridge(hub) => Self::Bridged(hub),
        }
    }
}

impl From<Via> for Way {
    fn from(via: Via) -> Self {
        match via {
            Via::Link(link) => Self::Link(link),
            Via::Bridge(_) => Self::Bridge,
        }
    }
}
