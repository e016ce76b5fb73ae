//! The pauses between failed attempts to connect.

use std::time::Duration;

/// Computes the pauses between attempts to connect. Links and the Redis bridge use the same rule.
///
/// The first pause is the shortest one, and each later pause is twice the previous one, up to the longest. The first
/// half of a pause is fixed, which bounds the rate of attempts. The second half of a pause is random, so that hubs that
/// failed together do not retry together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure and returns the pause after it. The random number `chance` determines the length of the random
    /// half.
    pub(crate) fn failed(&mut self, shortest: Duration, longest: Duration, chance: u32) -> Duration {
        // The limit of 16 prevents an overflow. 2^16 times the shortest pause exceeds every `longest` in use.
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        spread((shortest * 2_u32.pow(doublings)).min(longest), chance)
    }

    /// Records a success: the next pause is the shortest again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A pause whose second half is random.
pub(crate) fn spread(pause: Duration, chance: u32) -> Duration {
    pause / 2 + (pause / 2).mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

/// A random number.
pub(crate) fn chance() -> u32 {
    // If the system provides no random numbers, the pause has its full length.
    getrandom::u32().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORTEST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(15);

    #[test]
    fn pauses_double_up_to_the_longest_pause() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..100).map(|_| backoff.failed(SHORTEST, LONGEST, u32::MAX)).collect();
        assert_eq!(pauses[..3], [SHORTEST, 2 * SHORTEST, 4 * SHORTEST]);
        assert_eq!(pauses[99], LONGEST);
        assert_eq!(backoff.failures, 100);
        backoff.reset();
        assert_eq!(backoff.failed(SHORTEST, LONGEST, u32::MAX), SHORTEST);
    }

    #[test]
    fn the_second_half_of_a_pause_is_random() {
        assert_eq!(spread(SHORTEST, 0), SHORTEST / 2);
        assert_eq!(spread(SHORTEST, u32::MAX), SHORTEST);
        let middle = spread(SHORTEST, u32::MAX / 2);
        assert!(middle.abs_diff(SHORTEST * 3 / 4) < Duration::from_micros(1), "{middle:?}");
    }
}
