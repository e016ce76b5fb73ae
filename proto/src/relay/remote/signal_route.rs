//! The hop of the signals to one hub.

use std::time::Duration;

use crate::limits::{OUTCOME_PATIENCE, ROUTE_AVOIDED};
use crate::relay::signals::Outbound;
use crate::route::Hop;

/// Detects a hop whose signals get no outcomes. Signals avoid such a hop for a time if there is another route.
#[derive(Debug, Default)]
pub(in crate::relay) struct SignalRoute {
    /// The hop of the latest signals, and the counter of the last signal that was sent over a different hop.
    sent_by: Option<(Hop, u64)>,
    /// The counter of the last signal that was sent before the latest outcome arrived.
    answered: u64,
    avoided: Option<Avoided>,
}

/// A hop whose signals were not answered.
#[derive(Debug)]
struct Avoided {
    via: Hop,
    /// One less than the counter of the first unanswered signal over this hop.
    after: u64,
    /// The counter of the last signal over this hop.
    last: u64,
    until: Duration,
}

impl SignalRoute {
    /// Records the hop of the next signal. `last` is the counter of the previous signal.
    pub(in crate::relay) fn note_sent(&mut self, via: Hop, last: u64) {
        if self.sent_by.is_none_or(|(before, _)| before != via) {
            self.sent_by = Some((via, last));
        }
    }

    /// Records that the outcome of the signal `counter` arrived. If this signal used the avoided hop, the hop works and
    /// is no longer avoided. `last` is the counter of the last signal that was sent.
    pub(in crate::relay) fn note_answered(&mut self, counter: u64, last: u64) {
        self.answered = last;
        self.avoided.take_if(|avoided| avoided.after < counter && counter <= avoided.last);
    }

    /// Avoids the current hop if signals to at least two targets over this hop have waited [`OUTCOME_PATIENCE`] for
    /// their outcomes. No outcome may have arrived after these signals were sent. Returns true if the hop is now
    /// avoided.
    pub(in crate::relay) fn avoid_unanswered(&mut self, outbound: &Outbound, now: Duration) -> bool {
        // Expected: no signal was sent since the counters started.
        let Some((via, before)) = self.sent_by else { return false };
        let after = before.max(self.answered);
        let is_unanswered = outbound.has_open(after, now.saturating_sub(OUTCOME_PATIENCE));
        if is_unanswered {
            self.avoided = Some(Avoided { via, after, last: outbound.counter(), until: now + ROUTE_AVOIDED });
        }
        is_unanswered
    }

    /// The hop that signals avoid.
    pub(in crate::relay) fn avoided(&self, now: Duration) -> Option<Hop> {
        self.avoided.as_ref().filter(|avoided| avoided.until > now).map(|avoided| avoided.via)
    }

    /// The hop of the latest signal.
    #[cfg(test)]
    pub(in crate::relay) fn last_hop(&self) -> Option<Hop> {
        self.sent_by.map(|(via, _)| via)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::LinkId;

    const NOW: Duration = Duration::from_secs(100);

    fn avoiding(after: u64, last: u64, until: Duration) -> SignalRoute {
        let avoided = Avoided { via: Hop::Link(LinkId(1)), after, last, until };
        SignalRoute { avoided: Some(avoided), ..SignalRoute::default() }
    }

    #[test]
    fn a_hop_is_avoided_until_a_signal_over_it_gets_an_outcome() {
        for (counter, avoided) in [(3, true), (4, false), (9, false), (10, true)] {
            let mut route = avoiding(3, 9, NOW + ROUTE_AVOIDED);
            route.note_answered(counter, 12);
            assert_eq!(route.avoided(NOW).is_some(), avoided, "{counter}");
        }
    }

    #[test]
    fn a_hop_is_avoided_for_a_limited_time() {
        let nanosecond = Duration::from_nanos(1);
        assert_eq!(avoiding(0, 1, NOW + nanosecond).avoided(NOW), Some(Hop::Link(LinkId(1))));
        assert_eq!(avoiding(0, 1, NOW).avoided(NOW), None);
    }
}
