//! Signals from one hub. `Inbound` decides the order in which the signals are delivered, and stores signals that wait
//! for an earlier signal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::Bugs;
use crate::bug;
use crate::envelope::SignalEnvelope;
use crate::limits::{COUNT_PATIENCE, MAX_COUNTER_STEP, MAX_SIGNALS_HELD, MEMBER_BYTES};

/// The decision about a signal that has just arrived.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// The signal is the next signal in order and does not have to wait. From now on, the signal counts as processed.
    Deliver,
    /// The signal must wait for an earlier signal, or for the presence of its sender. Pass it to [`Inbound::hold`].
    Hold,
    /// The signal would have to wait, but [`MAX_SIGNALS_HELD`] signals wait already, or the waiting signals would
    /// exceed their maximum total size.
    Full,
    /// A signal with the same counter is already waiting.
    Repeated,
    /// The counter of the signal is not greater than the last processed counter.
    Late {
        /// Whether this hub had given up the signal before it arrived. If this hub had given up the signal, the sending
        /// hub has no outcome yet, and needs an answer.
        is_answered: bool,
    },
    /// The counter of the signal is more than [`MAX_COUNTER_STEP`] ahead of the last processed counter.
    TooFar,
    /// For [`COUNT_PATIENCE`], signals arrived whose counters were too low or too far ahead, and no other signal was
    /// processed. Therefore, this hub continues with the counter of this signal. The caller passes the signal to
    /// [`Inbound::arrives`] again.
    Restarted {
        /// Counters of the waiting signals, which are dropped.
        dropped: Vec<u64>,
    },
}

/// Size in bytes of a signal that waits for an earlier signal.
fn bytes(signal: &SignalEnvelope) -> usize {
    MEMBER_BYTES + signal.frame.len()
}

/// Signals from one hub, in order.
#[derive(Debug, Default)]
pub(in crate::relay) struct Inbound {
    /// The last counter that was processed.
    taken: u64,
    held: BTreeMap<u64, (Duration, SignalEnvelope)>,
    /// Size of the held signals, in bytes.
    bytes: usize,
    /// Counters for which this hub no longer waits. If a signal with one of these counters arrives, the signal's hub
    /// receives an outcome.
    skipped: BTreeSet<u64>,
    /// Time since which signals with unexpected counters arrive and no signal was processed, and the last unexpected
    /// counter.
    astray: Option<(Duration, u64)>,
}

impl Inbound {
    pub(in crate::relay) fn len(&self) -> usize {
        self.held.len()
    }

    /// Size of the held signals, in bytes.
    pub(in crate::relay) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(in crate::relay) fn due(&self) -> Option<Duration> {
        self.held.values().map(|(at, _)| *at).min()
    }

    /// Decides about a signal. `known` is the number of the last change in this hub's replica of the sending hub.
    /// `most` is the maximum size of all held signals, in bytes.
    pub(super) fn arrives(
        &mut self,
        signal: &SignalEnvelope,
        known: u64,
        is_live: bool,
        most: usize,
        now: Duration,
    ) -> Arrival {
        let counter = signal.counter;
        if self.held.contains_key(&counter) {
            return Arrival::Repeated;
        }
        if !self.expects(counter) {
            if self.goes_on_from(counter, now) {
                let before = std::mem::replace(self, Self { taken: counter - 1, ..Self::default() });
                return Arrival::Restarted { dropped: before.held.into_keys().collect() };
            }
            if counter > self.taken {
                return Arrival::TooFar;
            }
            return Arrival::Late { is_answered: self.skipped.remove(&counter) };
        }
        if counter == self.taken + 1 && self.held.is_empty() && signal.seq <= known && is_live {
            self.took(counter);
            return Arrival::Deliver;
        }
        let has_room = self.held.len() < MAX_SIGNALS_HELD && self.bytes + bytes(signal) <= most;
        if has_room { Arrival::Hold } else { Arrival::Full }
    }

    /// Keeps a signal until [`Self::next`] returns it. The signal is overdue at `until`.
    pub(super) fn hold(&mut self, signal: SignalEnvelope, until: Duration, bugs: &mut Bugs) {
        if self.held.len() >= MAX_SIGNALS_HELD {
            bug!(bugs, SignalsHeld, "{} are held", self.held.len());
        }
        self.bytes += bytes(&signal);
        self.held.insert(signal.counter, (until, signal));
    }

    /// Drops the waiting signals.
    pub(super) fn drop_held(&mut self) {
        self.held.clear();
        self.bytes = 0;
    }

    /// The last counter that was processed, and the number of waiting signals.
    pub(super) fn position(&self) -> (u64, usize) {
        (self.taken, self.held.len())
    }

    /// Whether a signal with this counter is expected. The counter must be greater than the last processed counter, by
    /// at most [`MAX_COUNTER_STEP`].
    fn expects(&self, counter: u64) -> bool {
        // If no signal has arrived yet, any counter is accepted as the first. This hub may have forgotten the other hub
        // and its counter.
        counter > self.taken && (self.taken == 0 || counter - self.taken <= MAX_COUNTER_STEP)
    }

    /// Records an unexpected counter. Returns true if unexpected counters that follow each other have arrived for
    /// [`COUNT_PATIENCE`], and no signal was processed meanwhile. If this function returns true, counting restarts from
    /// this counter.
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

    /// Removes and returns the next signal in order. Returns `None` if this signal does not wait here, or if it needs a
    /// later change of its hub's presence than `seq`.
    pub(super) fn next(&mut self, seq: u64) -> Option<SignalEnvelope> {
        let first = self.held.first_entry()?;
        if *first.key() != self.taken + 1 || first.get().1.seq > seq {
            return None;
        }
        let signal = first.remove().1;
        self.bytes -= bytes(&signal);
        self.took(signal.counter);
        Some(signal)
    }

    /// Gives up the missing signals before the first waiting signal. If no signal is missing, the first waiting signal
    /// waits only for the presence of its sender. In this case, gives up and returns the first waiting signal.
    pub(super) fn give_up(&mut self, seq: u64) -> Option<SignalEnvelope> {
        let first = self.held.first_entry()?;
        let counter = *first.key();
        if counter == self.taken + 1 {
            if first.get().1.seq <= seq {
                return None;
            }
            let signal = first.remove().1;
            self.bytes -= bytes(&signal);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{NetworkName, PeerId};
    use crate::limits::HOLD;
    use crate::router::Standing;
    use crate::wire::SignalKind;

    const NOW: Duration = Duration::from_secs(1);

    fn signal(counter: u64, seq: u64) -> SignalEnvelope {
        let (kind, network, frame) = (SignalKind::Offer, NetworkName::new("n"), Box::default());
        let (sender, target) = (PeerId::from_bytes([1; 20]), PeerId::from_bytes([2; 20]));
        let standing = Standing::Member(1);
        SignalEnvelope { counter, seq, receipt: false, kind, sender, target, network, frame, standing }
    }

    fn after_the_first() -> Inbound {
        let mut inbound = Inbound::default();
        assert_eq!(inbound.arrives(&signal(1, 0), 0, true, usize::MAX, NOW), Arrival::Deliver);
        inbound
    }

    fn hold(inbound: &mut Inbound, counter: u64, seq: u64) {
        assert_eq!(inbound.arrives(&signal(counter, seq), 0, true, usize::MAX, NOW), Arrival::Hold);
        inbound.hold(signal(counter, seq), NOW + HOLD, &mut Bugs::default());
    }

    #[test]
    fn signals_are_delivered_in_order_and_once() {
        let mut inbound = after_the_first();
        assert_eq!(
            inbound.arrives(&signal(2, 0), 0, false, usize::MAX, NOW),
            Arrival::Hold,
            "the hub of the signal is lost"
        );
        hold(&mut inbound, 3, 0);
        assert_eq!(inbound.arrives(&signal(3, 0), 0, true, usize::MAX, NOW), Arrival::Repeated);
        assert!(inbound.next(0).is_none(), "signal 2 is missing");
        assert_eq!(inbound.arrives(&signal(2, 0), 0, true, usize::MAX, NOW), Arrival::Hold, "signal 3 already waits");
        hold(&mut inbound, 2, 7);
        assert!(inbound.next(6).is_none(), "the sender of signal 2 is not known yet");
        assert_eq!(inbound.next(7).map(|signal| signal.counter), Some(2));
        assert_eq!(inbound.next(7).map(|signal| signal.counter), Some(3));
        assert_eq!((inbound.position(), inbound.bytes()), ((3, 0), 0));
        for counter in 1..=3 {
            assert_eq!(
                inbound.arrives(&signal(counter, 0), 7, true, usize::MAX, NOW),
                Arrival::Late { is_answered: false }
            );
        }
    }

    #[test]
    fn a_missing_signal_is_given_up_and_answered_once_if_it_arrives_after_all() {
        let mut inbound = after_the_first();
        let last = MAX_SIGNALS_HELD as u64 + 2;
        (3..=last).for_each(|counter| hold(&mut inbound, counter, 0));
        assert_eq!(inbound.bytes(), MAX_SIGNALS_HELD * MEMBER_BYTES);
        assert_eq!(inbound.arrives(&signal(last + 1, 0), 0, true, usize::MAX, NOW), Arrival::Full);
        assert_eq!(inbound.due(), Some(NOW + HOLD));
        assert!(inbound.give_up(0).is_none(), "signal 3 is delivered, not dropped");
        assert_eq!(inbound.next(0).map(|signal| signal.counter), Some(3));
        assert_eq!(inbound.arrives(&signal(2, 0), 0, true, usize::MAX, NOW), Arrival::Late { is_answered: true });
        assert_eq!(inbound.arrives(&signal(2, 0), 0, true, usize::MAX, NOW), Arrival::Late { is_answered: false });
    }

    #[test]
    fn a_signal_whose_sender_stays_unknown_is_given_up() {
        let mut inbound = after_the_first();
        hold(&mut inbound, 2, 7);
        hold(&mut inbound, 3, 0);
        assert!(inbound.give_up(7).is_none(), "the sender is known");
        assert_eq!(inbound.give_up(6).map(|signal| signal.counter), Some(2));
        assert_eq!(inbound.next(6).map(|signal| signal.counter), Some(3));
    }

    #[test]
    fn counting_restarts_if_only_unexpected_signals_arrive_for_long() {
        let mut inbound = after_the_first();
        hold(&mut inbound, 3, 0);
        assert_eq!(inbound.arrives(&signal(1 + MAX_COUNTER_STEP, 0), 0, true, usize::MAX, NOW), Arrival::Hold);
        let far = 2 + MAX_COUNTER_STEP;
        assert_eq!(inbound.arrives(&signal(far, 0), 0, true, usize::MAX, NOW), Arrival::TooFar);
        let just_before = NOW + COUNT_PATIENCE - Duration::from_millis(1);
        assert_eq!(inbound.arrives(&signal(far + 1, 0), 0, true, usize::MAX, just_before), Arrival::TooFar);
        let (after, long_after) = (signal(far + 2, 0), NOW + COUNT_PATIENCE);
        assert_eq!(inbound.arrives(&after, 0, true, usize::MAX, long_after), Arrival::Restarted { dropped: vec![3] });
        assert_eq!(inbound.arrives(&after, 0, true, usize::MAX, long_after), Arrival::Deliver);
        assert_eq!(
            inbound.arrives(&signal(3, 0), 0, true, usize::MAX, long_after),
            Arrival::Late { is_answered: false }
        );
    }

    #[test]
    fn counting_continues_while_expected_signals_arrive() {
        let mut inbound = after_the_first();
        let far = 10 + MAX_COUNTER_STEP;
        assert_eq!(inbound.arrives(&signal(far, 0), 0, true, usize::MAX, NOW), Arrival::TooFar);
        assert_eq!(inbound.arrives(&signal(2, 0), 0, true, usize::MAX, NOW), Arrival::Deliver);
        assert_eq!(inbound.arrives(&signal(far + 1, 0), 0, true, usize::MAX, NOW + COUNT_PATIENCE), Arrival::TooFar);
    }
}
