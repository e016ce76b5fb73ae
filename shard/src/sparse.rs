//! Rate-limited logging of repeated events.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Minimum time between two log lines about the same kind of event.
const PAUSE: Duration = Duration::from_secs(10);

/// Counts repeated events and decides which of them to log. The first event is logged, and then at most one event every
/// ten seconds.
#[derive(Debug, Default)]
pub(crate) struct Sparse {
    said: Cell<Option<Instant>>,
    since: Cell<u64>,
}

impl Sparse {
    /// Counts one event. If it is time for a log line, returns the number of events since the last line.
    pub(crate) fn count(&self) -> Option<u64> {
        self.count_at(Instant::now())
    }

    fn count_at(&self, now: Instant) -> Option<u64> {
        let times = self.since.get() + 1;
        if self.said.get().is_some_and(|said| now.duration_since(said) < PAUSE) {
            self.since.set(times);
            return None;
        }
        self.said.set(Some(now));
        self.since.set(0);
        Some(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_event_is_logged_at_once_and_then_every_ten_seconds() {
        let (sparse, begin) = (Sparse::default(), Instant::now());
        let said = |ms| sparse.count_at(begin + Duration::from_millis(ms));
        assert_eq!(said(0), Some(1));
        assert_eq!((said(1), said(9_999)), (None, None));
        assert_eq!(said(10_000), Some(3));
        assert_eq!(said(60_000), Some(1));
    }
}
