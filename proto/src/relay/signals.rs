//! Signals between hubs, and their outcomes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::bug;
use crate::codec::is_deeper_than;
use crate::envelope::{Envelope, Route, Routed, SignalEnvelope};
use crate::id::{HubId, PeerId, ShardId};
use crate::limits::{
    COUNT_PATIENCE, HOLD, MAX_COUNTER_STEP, MAX_HOPS, MAX_OUTCOMES, MAX_SIGNAL_DEPTH, MAX_SIGNALS_HELD,
    MAX_UNANSWERED_LOOKED_AT, OUTCOME_DELAY, RECEIPT_TIMEOUT, SLICE_PEERS,
};
use crate::reason::{ErrorCode, Outcome};
use crate::route::Via;
use crate::router::{Origin, OutcomeLetter, RouterStats, Sender, SignalLetter, Standing, ToShard};
use crate::time::Now;
use crate::ws;

use super::{Destination, Relay, Way};

/// Signals to one hub without an outcome yet.
///
/// Outcomes return in nearly the order of the counters, so most signals are found by their distance from the oldest. A
/// target that reads slowly delays the outcomes of its own signals for long: those are put aside, and delay nothing
/// else.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// The last counter assigned.
    counter: u64,
    /// The latest signals, up to the last; the first of them has no outcome yet.
    recent: VecDeque<Option<Pending>>,
    /// Older signals without an outcome.
    aside: BTreeMap<u64, Pending>,
    open: usize,
}

#[derive(Debug)]
struct Pending {
    deadline: Duration,
    origin: Origin,
    target: PeerId,
}

const _: () = assert!(size_of::<Option<Pending>>() <= 136);

impl Outbound {
    /// Number of signals that are found by their position: 4,096 x 136 B, about half of a core's cache.
    const RECENT: usize = 4096;

    pub(super) fn len(&self) -> usize {
        self.open
    }

    /// The last counter assigned.
    pub(super) fn counter(&self) -> u64 {
        self.counter
    }

    /// Time at which the oldest expires: all have the same timeout.
    pub(super) fn due(&self) -> Option<Duration> {
        let recent = || self.recent.front().and_then(Option::as_ref);
        self.aside.values().next().or_else(recent).map(|pending| pending.deadline)
    }

    /// Adds signals that were sent and lost, and whose outcomes have expired.
    #[cfg(test)]
    pub(super) fn lose(&mut self, count: u64) {
        debug_assert!(self.recent.is_empty(), "none is open");
        self.counter += count;
    }

    fn issue(&mut self, origin: Origin, target: PeerId, now: Duration) -> u64 {
        if self.recent.len() >= Self::RECENT {
            let first = self.first_recent();
            self.aside.extend(self.recent.pop_front().flatten().map(|pending| (first, pending)));
            self.forget_settled();
        }
        self.counter += 1;
        self.open += 1;
        self.recent.push_back(Some(Pending { deadline: now + RECEIPT_TIMEOUT, origin, target }));
        self.counter
    }

    fn settle(&mut self, counter: u64) -> Option<Pending> {
        let pending = match counter.checked_sub(self.first_recent()) {
            Some(place) => self.recent.get_mut(usize::try_from(place).ok()?)?.take(),
            None => self.aside.remove(&counter),
        }?;
        self.open -= 1;
        self.forget_settled();
        Some(pending)
    }

    /// Whether signals to at least two targets, sent after this counter and before `before`, have no outcome. A single
    /// target may just read slowly.
    pub(super) fn has_open(&self, after: u64, before: Duration) -> bool {
        let sent = |pending: &Pending| pending.deadline.saturating_sub(RECEIPT_TIMEOUT);
        let aside = self.aside.range(after.saturating_add(1)..).map(|(_, pending)| pending);
        let place = after.saturating_add(1).saturating_sub(self.first_recent());
        let recent = self.recent.iter().skip(usize::try_from(place).unwrap_or(usize::MAX)).flatten();
        let all = aside.chain(recent).take(MAX_UNANSWERED_LOOKED_AT);
        let mut targets = all.take_while(|p| sent(p) < before).map(|p| p.target);
        let first = targets.next();
        targets.any(|target| first != Some(target))
    }

    /// Takes out those whose time has passed, as many at the most. The rest stays due.
    fn expire(&mut self, most: usize, now: Duration) -> Vec<Pending> {
        let mut expired = Vec::new();
        while expired.len() < most && self.due().is_some_and(|at| at <= now) {
            let Some(oldest) = self.take_oldest() else { break };
            expired.push(oldest);
        }
        expired
    }

    /// Takes out all that is outstanding. Counters go on from here.
    fn give_up(&mut self) -> Self {
        let counter = self.counter;
        std::mem::replace(self, Self { counter, ..Self::default() })
    }

    fn take_oldest(&mut self) -> Option<Pending> {
        self.oldest().and_then(|oldest| self.settle(oldest))
    }

    fn oldest(&self) -> Option<u64> {
        let recent = || (!self.recent.is_empty()).then(|| self.first_recent());
        self.aside.keys().next().copied().or_else(recent)
    }

    /// The counter of the first of the latest signals.
    fn first_recent(&self) -> u64 {
        self.counter + 1 - self.recent.len() as u64
    }

    fn forget_settled(&mut self) {
        while self.recent.front().is_some_and(Option::is_none) {
            self.recent.pop_front();
        }
    }
}

/// Signals from one hub, in order.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// The last counter that was processed.
    taken: u64,
    held: BTreeMap<u64, (Duration, SignalEnvelope)>,
    /// Counters that are no longer waited for. If one arrives after all, it is answered.
    skipped: BTreeSet<u64>,
    /// Since when only signals with unexpected counters have arrived, and the last of those counters.
    astray: Option<(Duration, u64)>,
}

impl Inbound {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn due(&self) -> Option<Duration> {
        self.held.values().map(|(at, _)| *at).min()
    }

    /// Whether a signal with this counter can be one of the next.
    fn expects(&self, counter: u64) -> bool {
        // If none has arrived yet, any counter may be the first: this hub may have forgotten that one.
        counter > self.taken && (self.taken == 0 || counter - self.taken <= MAX_COUNTER_STEP)
    }

    /// Records an unexpected counter. True if only such counters have arrived for so long that counting continues from
    /// it.
    fn goes_on_from(&mut self, counter: u64, now: Duration) -> bool {
        let follows = |last: u64| last < counter && counter - last <= MAX_COUNTER_STEP;
        let since = self.astray.filter(|&(_, last)| follows(last)).map_or(now, |(since, _)| since);
        self.astray = Some((since, counter));
        now.saturating_sub(since) >= COUNT_PATIENCE
    }

    fn took(&mut self, counter: u64) {
        self.taken = counter;
        self.astray = None;
    }

    /// Removes the next signal in order, if the presence of its hub is known up to `seq`.
    fn next(&mut self, seq: u64) -> Option<SignalEnvelope> {
        let first = self.held.first_entry()?;
        if *first.key() != self.taken + 1 || first.get().1.seq > seq {
            return None;
        }
        let signal = first.remove().1;
        self.took(signal.counter);
        Some(signal)
    }

    /// Stops waiting for whatever precedes the first overdue signal. Returns that signal if only its sender is still
    /// unknown.
    fn give_up(&mut self, seq: u64) -> Option<SignalEnvelope> {
        let first = self.held.first_entry()?;
        let counter = *first.key();
        if counter == self.taken + 1 {
            if first.get().1.seq <= seq {
                return None;
            }
            let signal = first.remove().1;
            self.took(counter);
            return Some(signal);
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
    /// Sends a signal of this hub's peer to another hub.
    pub(super) fn signalled(&mut self, origin: Origin, from: PeerId, target: PeerId, frame: Box<[u8]>, now: Now) {
        self.settle(&target, now);
        self.settle(&from, now);
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
        let way = self.signal_route(&holder.hub, now).filter(|&via| !self.is_saturated(via));
        let own = (self.config.hub, self.config.incarnation, self.own.seq);
        let Some((via, remote)) = way.zip(self.hubs.get_mut(&holder.hub)).filter(|(_, r)| r.is_live()) else {
            return self.resolve(origin, target, Outcome::Failed(ErrorCode::Unreachable));
        };
        if remote.in_flight() >= self.config.tuning.max_signals_in_flight {
            return self.resolve(origin, target, Outcome::Failed(ErrorCode::Unreachable));
        }
        remote.note_sent(via);
        let receipt = matches!(origin.sender, Sender::Session { ticket, .. } if ticket != 0);
        let (kind, network, standing) = (origin.kind, origin.network.clone(), origin.standing);
        let counter = remote.outbound.issue(origin, target, now.at);
        let signal =
            SignalEnvelope { counter, seq: own.2, receipt, kind, sender: from, target, network, frame, standing };
        let (to, to_incarnation) = (holder.hub, remote.incarnation);
        let route = Route { to, to_incarnation, from: own.0, from_incarnation: own.1, hops: 0 };
        self.stats.relayed += 1;
        self.send(Destination::from(via), Envelope::Routed(route, Box::new(Routed::Signal(signal))));
    }

    /// Whether a signal keeps its order among those to the same session of its target.
    ///
    /// Signals to members arrive straight from their senders' shards, others make a detour through the target's home.
    /// For each session of the target, detoured signals are sent first. After the target's first join only direct ones
    /// are sent.
    fn is_in_order(&self, origin: &Origin, from: &PeerId, target: &PeerId) -> Result<(), ErrorCode> {
        let Sender::Session { detour, .. } = origin.sender else { return Ok(()) };
        let has_been_member = self.directory.has_been_member(target);
        if detour && has_been_member {
            let elsewhere = self.is_in_a_network(target) && self.membership(target, &origin.network).is_none();
            return Err(if elsewhere { ErrorCode::WrongNetwork } else { ErrorCode::PeerNotFound });
        }
        // Its sender's announcement may still be on its way here, or its leave may have arrived.
        let stay = || self.membership(from, &origin.network).map(|announcement| announcement.stay.number);
        let is_late = || detour && !origin.standing.fits(stay(), &origin.network);
        // A signal to a member is for an earlier session of its target, if this session has never been in a network.
        if detour == has_been_member || is_late() { Err(ErrorCode::PeerNotFound) } else { Ok(()) }
    }

    /// Reports an outcome to a sender of this hub.
    fn resolve(&mut self, origin: Origin, target: PeerId, outcome: Outcome) {
        // Signals from a Go hub have no receipt.
        let Sender::Session { shard, ticket, .. } = origin.sender else { return };
        match outcome {
            Outcome::Delivered if ticket == 0 => self.stats.delivered += 1,
            Outcome::Forwarded if ticket == 0 => self.stats.forwarded_to_go += 1,
            Outcome::Delivered | Outcome::Forwarded | Outcome::Failed(_) => {
                self.post(shard, ToShard::Outcome(OutcomeLetter { origin, target, outcome }))
            }
        }
    }

    /// Processes a routed envelope.
    pub(super) fn routed(&mut self, via: Via, route: Route, routed: Routed, now: Now) {
        if route.to != self.config.hub {
            return self.forward(via, route, routed, now);
        }
        if route.to_incarnation != self.config.incarnation {
            // It was for an incarnation that has ended.
            return self.bounce(route, &routed, now);
        }
        let of_this_life = self.hubs.get(&route.from).is_some_and(|r| r.incarnation == route.from_incarnation);
        match routed {
            Routed::Signal(signal) if of_this_life => self.arrived(route.from, signal, now),
            Routed::Signal(_) => self.bounce(route, &routed, now),
            Routed::Outcomes(outcomes) if of_this_life => self.heard_outcomes(route.from, outcomes, now),
            Routed::Outcomes(outcomes) => self.stats.late_outcomes += outcomes.len() as u64,
            Routed::Takeover { peer, ticket, resume } => self.takeover_asked(route, peer, ticket, resume, now),
            Routed::TakeoverAnswer { peer, ticket, in_use } => self.takeover_answered(peer, ticket, in_use),
            Routed::Meeting(meeting) if of_this_life => self.meeting_came(route.from, &meeting),
            // The sender repeats it for the hub's current incarnation.
            Routed::Meeting(_) => {}
        }
    }

    fn forward(&mut self, via: Via, route: Route, routed: Routed, now: Now) {
        // Answers and questions have a few bytes. A question that is not forwarded would be answered as if its hub were
        // gone.
        let large = matches!(routed, Routed::Signal(_) | Routed::Meeting(_));
        let waits = |relay: &Self, next| large && relay.is_saturated(next);
        let next = self.route(&route.to, now).filter(|&next| next != via);
        // The previous hub has no better way than this hub's link to the target, whatever this hub thinks of that link.
        let direct = || self.by_hub.get(&route.to).map(|&link| Via::Link(link)).filter(|&direct| direct != via);
        let next = next.or_else(direct).filter(|&next| !waits(self, next));
        let Some(next) = next.filter(|_| route.hops.saturating_add(1) < MAX_HOPS) else {
            return self.bounce(route, &routed, now);
        };
        if matches!(routed, Routed::Signal(_)) {
            self.stats.forwarded += 1;
        }
        let route = Route { hops: route.hops + 1, ..route };
        self.send(Destination::from(next), Envelope::Routed(route, Box::new(routed)));
    }

    /// Answers the source of an undeliverable envelope in the name of its destination.
    fn bounce(&mut self, route: Route, routed: &Routed, now: Now) {
        let answer = match routed {
            Routed::Signal(signal) => Routed::Outcomes(vec![(signal.counter, Outcome::Failed(ErrorCode::Unreachable))]),
            // An unreachable hub cannot object.
            Routed::Takeover { peer, ticket, .. } => {
                Routed::TakeoverAnswer { peer: *peer, ticket: *ticket, in_use: false }
            }
            Routed::Outcomes(_) | Routed::TakeoverAnswer { .. } | Routed::Meeting(_) => return,
        };
        let back = Route {
            to: route.from,
            to_incarnation: route.from_incarnation,
            from: route.to,
            from_incarnation: route.to_incarnation,
            // The way back may be as long. Answers are never bounced, so they do not go around for ever.
            hops: 0,
        };
        if let Some(via) = self.route(&back.to, now) {
            self.send(Destination::from(via), Envelope::Routed(back, Box::new(answer)));
        }
    }

    fn arrived(&mut self, from: HubId, signal: SignalEnvelope, now: Now) {
        let Some(remote) = self.hubs.get_mut(&from) else {
            return bug!(self.bugs, HubMissing, "signal of {from:?}");
        };
        let counter = signal.counter;
        if remote.inbound.held.contains_key(&counter) {
            self.stats.out_of_order += 1;
            return;
        }
        if !remote.inbound.expects(counter) {
            if !remote.inbound.goes_on_from(counter, now.at) {
                let is_far = counter > remote.inbound.taken;
                if remote.inbound.skipped.remove(&counter) || is_far {
                    self.answer(from, counter, Outcome::Failed(ErrorCode::Unreachable), true, now);
                }
                self.stats.out_of_order += u64::from(!is_far);
                self.stats.numbers_refused += u64::from(is_far);
                return;
            }
            let before = std::mem::replace(&mut remote.inbound, Inbound { taken: counter - 1, ..Default::default() });
            for counter in before.held.into_keys() {
                self.answer(from, counter, Outcome::Failed(ErrorCode::Unreachable), true, now);
            }
            return self.arrived(from, signal, now);
        }
        if counter == remote.inbound.taken + 1
            && remote.inbound.held.is_empty()
            && signal.seq <= remote.holding.seq
            && remote.is_live()
        {
            // The usual case: nothing to wait for.
            remote.inbound.took(counter);
            self.take_in(from, signal, now);
        } else if remote.inbound.len() >= MAX_SIGNALS_HELD {
            self.answer(from, counter, Outcome::Failed(ErrorCode::Unreachable), true, now);
        } else {
            remote.inbound.held.insert(counter, (now.at + HOLD, signal));
            self.release_signals(from, now);
        }
    }

    /// Delivers the held signals of a hub whose turn has come.
    pub(super) fn release_signals(&mut self, from: HubId, now: Now) {
        while let Some(remote) = self.hubs.get_mut(&from).filter(|remote| remote.is_live())
            && let Some(signal) = remote.inbound.next(remote.holding.seq)
        {
            self.take_in(from, signal, now);
        }
    }

    /// Delivers a signal whose turn has come.
    fn take_in(&mut self, from: HubId, signal: SignalEnvelope, now: Now) {
        let SignalEnvelope { counter, receipt, kind, sender, target, network, frame, standing, .. } = signal;
        self.settle(&target, now);
        self.settle(&sender, now);
        self.settle_at(from, &sender, now);
        let Some(hub) = self.hubs.get(&from).map(|remote| remote.number) else {
            return bug!(self.bugs, HubMissing, "signal of {from:?}");
        };
        let origin = Origin { sender: Sender::Hub { hub, counter, receipt }, kind, network, standing, read_at: now.at };
        let gone = match self.directory.holder(&sender) {
            Some(holder) => holder.hub != from,
            // A sender in no network needs no presence.
            None => standing != Standing::Outsider,
        };
        // Hubs of version 2.0.0 let any depth through. The link has done nothing wrong, and carries other peers' signals.
        if is_deeper_than(ws::payload(&frame), MAX_SIGNAL_DEPTH + 1) {
            self.answer(from, counter, Outcome::Failed(ErrorCode::InvalidMessage), receipt, now);
        } else if gone {
            // Its sender has left, or has lost its id to another session, and peers here know that.
            self.answer(from, counter, Outcome::Failed(ErrorCode::Unreachable), receipt, now);
        } else if self.legacy.holds(&target) {
            let outcome = self.signal_legacy(&origin, &sender, &target, &frame, now);
            self.answer(from, counter, outcome, receipt, now);
        } else if self.own.peers.contains_key(&target) {
            let home = ShardId::home(&target, self.config.shards, self.config.keys);
            self.post(home, ToShard::Signal(SignalLetter { origin, from: sender, target, frame }));
        } else {
            self.answer(from, counter, Outcome::Failed(ErrorCode::PeerNotFound), receipt, now);
        }
    }

    /// Stops waiting for signals or senders that do not arrive.
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
            let Some(remote) = self.hubs.get_mut(&from) else {
                return bug!(self.bugs, HubMissing, "held signals of {from:?}");
            };
            if !live || before == (remote.inbound.taken, remote.inbound.len()) {
                // Signals of a lost hub are not delivered.
                remote.inbound.held.clear();
            }
        }
    }

    /// A shard reports the outcome of a signal from another hub.
    pub(super) fn outcome(&mut self, origin: &Origin, outcome: Outcome, now: Now) {
        let Sender::Hub { hub, counter, receipt } = origin.sender else {
            return bug!(self.bugs, OutcomeSender, "{:?}", origin.sender);
        };
        // A hub that was lost, or has begun another life, has another number. A signal of a Go hub has none.
        if let Some(&from) = self.numbers.get(&hub) {
            self.answer(from, counter, outcome, receipt, now);
        }
    }

    /// Stores an outcome for the signal's hub. Outcomes with a receipt are sent at once, the others together.
    fn answer(&mut self, to: HubId, counter: u64, outcome: Outcome, receipt: bool, now: Now) {
        let Some(remote) = self.hubs.get_mut(&to) else {
            return bug!(self.bugs, HubMissing, "outcome for {to:?}");
        };
        remote.outcomes.push((counter, outcome));
        let urgent = receipt || outcome.is_failure() || remote.outcomes.len() >= MAX_OUTCOMES;
        let due = if urgent { now.at } else { now.at + OUTCOME_DELAY };
        remote.outcomes_due = Some(remote.outcomes_due.map_or(due, |at| at.min(due)));
    }

    pub(super) fn send_outcomes(&mut self, to: HubId, now: Now) {
        let via = self.route(&to, now);
        let Some(remote) = self.hubs.get_mut(&to) else {
            return bug!(self.bugs, HubMissing, "outcomes for {to:?}");
        };
        remote.outcomes_due = None;
        let outcomes = std::mem::take(&mut remote.outcomes);
        let to_incarnation = remote.incarnation;
        // Without a way back, the sender's hub times out and reports `unknown`.
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
            let Some(remote) = self.hubs.get_mut(&from) else {
                return bug!(self.bugs, HubMissing, "outcomes of {from:?}");
            };
            remote.note_answered(counter);
            match remote.outbound.settle(counter) {
                Some(Pending { origin, target, .. }) => {
                    if outcome == Outcome::Delivered {
                        self.observe_latency(now.at.saturating_sub(origin.read_at));
                    }
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

    /// A hub is gone: signals sent to it may have been delivered, and no outcome will arrive.
    pub(super) fn give_up_outbound(&mut self, to: HubId) {
        let Some(remote) = self.hubs.get_mut(&to) else {
            return bug!(self.bugs, HubMissing, "signals to {to:?} are given up");
        };
        let lost = remote.outbound.give_up();
        if lost.len() > 0 {
            remote.lost.push_back(lost);
            self.begin_work(to);
        }
    }

    /// Tells the sender of the next signal that is lost with its hub. False when there is none.
    pub(super) fn write_off_next(&mut self, to: HubId) -> bool {
        let Some(remote) = self.hubs.get_mut(&to) else { return false };
        while let Some(lost) = remote.lost.front_mut() {
            if let Some(pending) = lost.take_oldest() {
                self.write_off(pending, false);
                return true;
            }
            remote.lost.pop_front();
        }
        false
    }

    fn write_off(&mut self, Pending { origin, target, .. }: Pending, receipts_are_due: bool) {
        let waited_for = matches!(origin.sender, Sender::Session { ticket, .. } if ticket != 0);
        // Receipts have the same time at their sender's shard, which has said `unknown` by itself.
        if !(waited_for && receipts_are_due) {
            self.resolve(origin, target, Outcome::Failed(ErrorCode::Unknown));
        }
    }

    fn observe_latency(&mut self, took: Duration) {
        self.stats.latency[RouterStats::latency_bucket(took)] += 1;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{NetworkName, SessionId};
    use crate::wire::SignalKind;

    #[test]
    fn old_open_signals_do_not_hide_that_later_ones_go_unanswered() {
        let mut outbound = Outbound::default();
        let mut issue = |count: usize, target: u8| {
            for _ in 0..count {
                let session = SessionId { slot: 0, generation: 0 };
                let sender = Sender::Session { shard: ShardId(0), session, ticket: 0, detour: false };
                let (kind, standing) = (SignalKind::Offer, Standing::Member(1));
                let origin = Origin { sender, kind, network: NetworkName::new("n"), standing, read_at: Duration::ZERO };
                outbound.issue(origin, PeerId::from_bytes([target; 20]), Duration::ZERO);
            }
            outbound.counter()
        };
        // So many that some are put aside.
        let after = issue(Outbound::RECENT + 2 * MAX_UNANSWERED_LOOKED_AT, 1);
        issue(1, 2);
        issue(1, 3);
        let before = Duration::from_secs(1);
        assert!(outbound.has_open(after, before) && !outbound.has_open(after + 1, before));
        assert!(!outbound.has_open(u64::MAX, before) && !outbound.has_open(after, Duration::ZERO));
        for counter in 1..=after / 2 {
            outbound.settle(counter);
        }
        assert!(outbound.has_open(after, before) && !outbound.has_open(after + 1, before));
    }

    #[test]
    fn outcomes_find_their_signals_in_whatever_order_they_come() {
        let session = SessionId { slot: 0, generation: 0 };
        let mut outbound = Outbound::default();
        let issue = |outbound: &mut Outbound, ticket, secs| {
            let sender = Sender::Session { shard: ShardId(0), session, ticket, detour: false };
            let network = NetworkName::new("n");
            let (kind, standing) = (SignalKind::Offer, Standing::Member(1));
            let origin = Origin { sender, kind, network, standing, read_at: Duration::ZERO };
            assert_eq!(outbound.issue(origin, PeerId::from_bytes([0; 20]), Duration::from_secs(secs)), ticket);
        };
        let ticket = |pending: &Pending| match pending.origin.sender {
            Sender::Session { ticket, .. } => ticket,
            Sender::Hub { .. } => 0,
        };
        let count = 3 * Outbound::RECENT as u64;
        // Every hundredth target reads slowly.
        let slow = |n: u64| n % 100 == 7;
        for n in 1..=count {
            issue(&mut outbound, n, n / 1000);
            if n > 20 && !slow(n - 20) {
                assert_eq!(outbound.settle(n - 20).as_ref().map(ticket), Some(n - 20));
            }
            assert!(outbound.recent.len() <= Outbound::RECENT);
        }
        assert!(
            outbound.settle(1).is_none() && outbound.settle(count + 1).is_none(),
            "once each, and none that was not sent"
        );
        let slow_ones: Vec<u64> = (1..=count - 20).filter(|&n| slow(n)).collect();
        assert_eq!(outbound.len(), slow_ones.len() + 20);
        let kept = outbound.aside.len() + outbound.recent.len();
        assert!(kept < slow_ones.len() + Outbound::RECENT, "{kept}");
        let at = outbound.due().unwrap();
        assert_eq!(at, RECEIPT_TIMEOUT);
        let expired = outbound.expire(usize::MAX, RECEIPT_TIMEOUT + Duration::from_secs(5));
        assert_eq!(expired.iter().map(ticket).collect::<Vec<_>>(), {
            slow_ones.iter().copied().filter(|n| n / 1000 <= 5).collect::<Vec<_>>()
        });
        assert_eq!(outbound.settle(slow_ones[slow_ones.len() - 1]).as_ref().map(ticket), slow_ones.last().copied());
        let mut given_up = outbound.give_up();
        let left: Vec<_> = std::iter::from_fn(|| given_up.take_oldest()).collect();
        assert!(left.is_sorted_by_key(ticket) && outbound.len() == 0 && outbound.due().is_none(), "{}", left.len());
        issue(&mut outbound, count + 1, 0);
        assert_eq!(outbound.len(), 1);
    }
}
