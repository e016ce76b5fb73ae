//! Signals that arrived from one hub: which is the next, and which wait for an earlier one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::envelope::SignalEnvelope;
use crate::limits::{COUNT_PATIENCE, MAX_COUNTER_STEP, MAX_SIGNALS_HELD};

/// Signals from one hub, in order.
#[derive(Debug, Default)]
pub(in crate::relay) struct Inbound {
    /// The last counter that was processed.
    pub(super) taken: u64,
    pub(super) held: BTreeMap<u64, (Duration, SignalEnvelope)>,
    /// Counters that are no longer waited for. If one arrives after all, it is answered.
    pub(super) skipped: BTreeSet<u64>,
    /// Since when only signals with unexpected counters have arrived, and the last of those counters.
    pub(super) astray: Option<(Duration, u64)>,
}

impl Inbound {
    pub(in crate::relay) fn len(&self) -> usize {
        self.held.len()
    }

    pub(in crate::relay) fn due(&self) -> Option<Duration> {
        self.held.values().map(|(at, _)| *at).min()
    }

    /// Whether a signal with this counter can be one of the next.
    pub(super) fn expects(&self, counter: u64) -> bool {
        // If none has arrived yet, any counter may be the first: this hub may have forgotten that one.
        counter > self.taken && (self.taken == 0 || counter - self.taken <= MAX_COUNTER_STEP)
    }

    /// Records an unexpected counter. True if only such counters have arrived for so long that counting continues from
    /// it.
    pub(super) fn goes_on_from(&mut self, counter: u64, now: Duration) -> bool {
        let follows = |last: u64| last < counter && counter - last <= MAX_COUNTER_STEP;
        let since = self.astray.filter(|&(_, last)| follows(last)).map_or(now, |(since, _)| since);
        self.astray = Some((since, counter));
        now.saturating_sub(since) >= COUNT_PATIENCE
    }

    pub(super) fn took(&mut self, counter: u64) {
        self.taken = counter;
        self.astray = None;
    }

    /// Removes the next signal in order, if the presence of its hub is known up to `seq`.
    pub(super) fn next(&mut self, seq: u64) -> Option<SignalEnvelope> {
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
    pub(super) fn give_up(&mut self, seq: u64) -> Option<SignalEnvelope> {
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
