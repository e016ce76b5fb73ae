//! When to dial again.

use std::time::Duration;

use proto::limits::{DIAL_BACKOFF_MAX, DIAL_BACKOFF_MIN};

/// How often in a row it did not work. Has no end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It did not work: how long to wait. `chance` picks the part of the pause that is waited; any number will do.
    pub(crate) fn failed(&mut self, chance: u32) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let pause = (DIAL_BACKOFF_MIN * 2_u32.pow(doublings)).min(DIAL_BACKOFF_MAX);
        pause.mul_f64(f64::from(chance) / f64::from(u32::MAX))
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_go_on() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..100).map(|_| backoff.failed(u32::MAX)).collect();
        assert_eq!(pauses[..3], [DIAL_BACKOFF_MIN, 2 * DIAL_BACKOFF_MIN, 4 * DIAL_BACKOFF_MIN]);
        assert_eq!(pauses[99], DIAL_BACKOFF_MAX);
        assert_eq!(backoff.failures, 100);
        backoff.reset();
        assert_eq!(backoff.failed(u32::MAX), DIAL_BACKOFF_MIN);
    }

    #[test]
    fn any_part_of_a_pause_may_be_waited() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.failed(0), Duration::ZERO);
        let half = backoff.failed(u32::MAX / 2);
        assert!(half.abs_diff(DIAL_BACKOFF_MIN) < Duration::from_micros(1), "{half:?}");
    }
}
