//! Outcomes that must be sent to one hub.

use std::time::Duration;

use crate::limits::{MAX_OUTCOMES, OUTCOME_DELAY};
use crate::reason::Outcome;

/// Collects the outcomes of one hub's signals, so that several outcomes share an envelope.
#[derive(Debug, Default)]
pub(in crate::relay) struct Outcomes {
    collected: Vec<(u64, Outcome)>,
    due: Option<Duration>,
}

impl Outcomes {
    /// Stores the outcome of the signal with this counter. Failures, outcomes for a receipt (`is_urgent`), and an
    /// outcome that fills an envelope make all stored outcomes due immediately. Other outcomes are due after
    /// [`OUTCOME_DELAY`].
    pub(super) fn add(&mut self, counter: u64, outcome: Outcome, is_urgent: bool, now: Duration) {
        self.collected.push((counter, outcome));
        let is_urgent = is_urgent || outcome.is_failure() || self.collected.len() >= MAX_OUTCOMES;
        let due = if is_urgent { now } else { now + OUTCOME_DELAY };
        self.due = Some(self.due.map_or(due, |at| at.min(due)));
    }

    /// Time at which the outcomes must be sent.
    pub(in crate::relay) fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Removes and returns all outcomes.
    pub(super) fn take(&mut self) -> Vec<(u64, Outcome)> {
        self.due = None;
        std::mem::take(&mut self.collected)
    }

    /// The outcomes that have not been sent yet.
    #[cfg(test)]
    pub(in crate::relay) fn collected(&self) -> &[(u64, Outcome)] {
        &self.collected
    }
}
