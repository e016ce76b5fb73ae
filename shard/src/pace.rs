//! Rate limits that give each caller the time to wait for its turn.

use std::time::{Duration, Instant};

/// A rate limit with bursts, by the generic cell rate algorithm. The caller reads the clock.
#[derive(Debug)]
pub struct Pace {
    gap: Duration,
    /// Time by which a turn may be taken before it is due, which determines the length of a burst.
    slack: Duration,
    /// Time at which the next turn is due, if all turns are taken exactly at the average rate.
    due: Option<Instant>,
}

impl Pace {
    /// A rate of `per_second` turns on average, with bursts of `burst`.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let gap = Duration::from_secs(1) / per_second.max(1);
        Self { gap, slack: gap * burst.saturating_sub(1), due: None }
    }

    /// Takes the next turn. Returns the time to wait for this turn.
    pub fn take(&mut self, now: Instant) -> Duration {
        self.take_within(now, Duration::MAX).unwrap_or(Duration::MAX)
    }

    /// Takes the next turn if it is due within `patience`. Returns the time to wait for the turn. `None` if the turn
    /// was not taken.
    pub fn take_within(&mut self, now: Instant, patience: Duration) -> Option<Duration> {
        let due = self.due.map_or(now, |due| due.max(now));
        let wait = due.duration_since(now).saturating_sub(self.slack);
        (wait <= patience).then(|| {
            self.due = Some(due + self.gap);
            wait
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn turns_of_a_burst_do_not_wait_and_later_turns_follow_at_the_rate() {
        let (mut pace, start) = (Pace::new(10, 3), Instant::now());
        let waits: Vec<_> = (0..6).map(|_| pace.take(start)).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200, 300].map(|ms| ms * MS));
        // After a pause as long as the taken turns, the full burst is available again.
        let later = start + 600 * MS;
        assert_eq!([(); 4].map(|()| pace.take(later)), [0, 0, 0, 100].map(|ms| ms * MS));
    }

    #[test]
    fn a_refused_turn_is_not_taken() {
        let (mut pace, start) = (Pace::new(10, 1), Instant::now());
        assert_eq!(pace.take_within(start, 150 * MS), Some(Duration::ZERO));
        assert_eq!(pace.take_within(start, 150 * MS), Some(100 * MS));
        for _ in 0..1000 {
            assert_eq!(pace.take_within(start, 150 * MS), None);
        }
        assert_eq!(pace.take_within(start + 100 * MS, 150 * MS), Some(100 * MS));
    }
}
