//! The turn that runs: what it has done, and how long turns take.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use proto::Turns;
use proto::limits::{NOTICED_STOP, TURN_OUTPUTS};

/// The present turn of a thread: one piece of work before everything else that is ready has its turn.
#[derive(Debug, Default)]
pub struct Turn {
    outputs: usize,
    /// Whether it has begun and the clock has not been read yet.
    is_new: Cell<bool>,
    lengths: RefCell<Turns>,
}

impl Turn {
    /// Begins the next turn. The one before has ended.
    pub fn begin(&mut self) {
        self.outputs = 0;
        self.is_new.set(true);
    }

    /// Counts one output of the rules that is performed, or work of about that size.
    pub fn count(&mut self) {
        self.outputs += 1;
    }

    /// Whether [`TURN_OUTPUTS`] are counted: what is left is for the next turn.
    pub fn is_over(&self) -> bool {
        self.outputs >= TURN_OUTPUTS
    }

    /// Records a reading of the clock. The first one in a turn is its beginning.
    pub fn look(&self, at: Duration) {
        if self.is_new.take() {
            self.lengths.borrow_mut().begin(at, crate::take_idle());
        }
    }

    /// Turns so far by their length.
    pub fn lengths(&self) -> Turns {
        self.lengths.borrow().clone()
    }
}

/// Whether the process was stopped since the last tick, so that what arrived meanwhile has not been read yet: silence
/// and timeouts must not be judged by it.
pub fn was_stopped(last_tick: Duration, now: Duration) -> bool {
    now.saturating_sub(last_tick) > NOTICED_STOP
}

#[cfg(test)]
mod tests {
    use proto::limits::TICK;

    use super::*;

    #[test]
    fn turn_is_over_after_its_outputs_and_begins_with_its_first_look() {
        let mut turn = Turn::default();
        turn.begin();
        turn.look(Duration::from_millis(5));
        for _ in 0..TURN_OUTPUTS {
            assert!(!turn.is_over());
            turn.count();
        }
        assert!(turn.is_over());
        // Only the first look of a turn is its beginning.
        turn.look(Duration::from_millis(6));
        turn.begin();
        assert!(!turn.is_over());
        turn.look(Duration::from_millis(25));
        assert_eq!(turn.lengths().counts.iter().sum::<u64>(), 1);
    }

    #[test]
    fn stop_is_noticed_by_missed_ticks() {
        let ticks = |n| n * TICK;
        assert!(!was_stopped(ticks(3), ticks(13)));
        assert!(was_stopped(ticks(3), ticks(13) + Duration::from_millis(1)));
    }
}
