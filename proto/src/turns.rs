//! Lengths of the turns of a thread.

use std::time::Duration;

/// Turns of one thread by their length, and the turn that runs.
///
/// A turn is one piece of work that a thread does before anything else that is ready has its turn: one batch of letters, what was read
/// of one socket, one chunk of writes, one slice of long work. It is measured from its beginning to the beginning of the next one,
/// less the time for which the thread waited between the two, so that it costs no look at the clock of its own.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    /// When the present one began.
    began: Option<Duration>,
    /// Turns by length: at most each of [`Self::BOUNDS`], and longer.
    pub counts: [u64; Self::BOUNDS.len() + 1],
    /// Sum of all lengths.
    pub sum: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Turns {
    /// Upper bounds of the buckets, in microseconds.
    pub const BOUNDS: [u64; 12] =
        [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000];

    /// A turn begins at `now`, and the one before has ended. `idle` is the time since that one's beginning for which the thread
    /// waited.
    pub fn begin(&mut self, now: Duration, idle: Duration) {
        if let Some(began) = self.began.replace(now) {
            let length = now.saturating_sub(began).saturating_sub(idle);
            let micros = length.as_micros() as u64;
            self.counts[Self::BOUNDS.partition_point(|&bound| bound < micros)] += 1;
            self.sum += length;
            self.longest = self.longest.max(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_lasts_until_the_next_less_what_the_thread_waited() {
        let ms = Duration::from_millis;
        let mut turns = Turns::default();
        for (at, idle) in [(10, 10), (12, 0), (100, 87), (105, 0), (105, 0)] {
            turns.begin(ms(at), ms(idle));
        }
        // 2, 1, 5 and 0 ms.
        assert_eq!(turns.counts, [1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((turns.sum, turns.longest), (ms(8), ms(5)));
        turns.begin(ms(60_000), ms(0));
        assert_eq!(turns.counts[Turns::BOUNDS.len()], 1);
    }
}
