//! Statistics of the lengths of a thread's turns.

use std::time::Duration;

/// Counts the turns of one thread by length, and keeps the start of the current turn.
///
/// A turn is the work that a thread does before other ready tasks run. Examples are a batch of letters, the bytes of
/// one read, a chunk of writes, and a slice of long work. The length of a turn is the time until the next turn begins,
/// minus the time for which the thread waited. So the thread reads the clock only once per turn, when the next turn
/// begins.
#[derive(Clone, Debug, Default)]
pub struct TurnLengths {
    /// Start of the current turn.
    began: Option<Duration>,
    /// Number of turns in each bucket. The last bucket counts the turns that are longer than the greatest of
    /// [`Self::BOUNDS`].
    pub counts: [u64; Self::BOUNDS.len() + 1],
    /// Sum of all lengths.
    pub sum: Duration,
    /// The longest turn since the start.
    pub longest: Duration,
}

impl TurnLengths {
    /// Upper bounds of the buckets, in microseconds.
    pub const BOUNDS: [u64; 12] =
        [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000];

    /// Ends the current turn and begins the next one at `now`. `idle` is the time for which the thread waited since the
    /// current turn began.
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
    fn a_turn_excludes_the_time_for_which_the_thread_waited() {
        let ms = Duration::from_millis;
        let mut turns = TurnLengths::default();
        for (at, idle) in [(10, 10), (12, 0), (100, 87), (105, 0), (105, 0)] {
            turns.begin(ms(at), ms(idle));
        }
        // The turns took 2, 1, 5 and 0 ms.
        assert_eq!(turns.counts, [1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((turns.sum, turns.longest), (ms(8), ms(5)));
        turns.begin(ms(60_000), ms(0));
        assert_eq!(turns.counts[TurnLengths::BOUNDS.len()], 1);
    }
}
