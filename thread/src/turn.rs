//! The work of a thread's current turn so far, and the lengths of earlier turns.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use proto::TurnLengths;
use proto::limits::{BYTE_NANOS, NOTICED_STOP, TURN_OUTPUTS, WRITE_NANOS};

/// The current turn of a thread. A turn is one piece of work, after which the other ready tasks run.
#[derive(Debug, Default)]
pub struct Turn {
    outputs: usize,
    /// Number of writes that the turn has caused.
    writes: u64,
    /// Number of bytes that the turn has queued for sockets.
    bytes: u64,
    /// Cost after which the turn is over, in nanoseconds. If `None`, only the number of outputs limits the turn.
    most_nanos: Option<u64>,
    began: Cell<Duration>,
    /// Duration of the turn at the last reading of the clock, in nanoseconds.
    nanos: Cell<u64>,
    /// Whether the clock has not been read since the turn began.
    is_new: Cell<bool>,
    lengths: RefCell<TurnLengths>,
}

impl Turn {
    /// Ends the previous turn, and begins the next one.
    pub fn begin(&mut self) {
        (self.outputs, self.writes, self.bytes) = (0, 0, 0);
        self.most_nanos = None;
        self.nanos.set(0);
        self.is_new.set(true);
    }

    /// Begins the next turn, which is also over when its cost reaches `most_nanos` nanoseconds.
    pub fn begin_within(&mut self, most_nanos: u64) {
        self.begin();
        self.most_nanos = Some(most_nanos);
    }

    /// Counts one write to a socket that the turn causes.
    pub fn add_write(&mut self) {
        self.writes += 1;
    }

    /// Counts bytes that the turn queues for a socket.
    pub fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Cost of the turn so far, in nanoseconds. The cost is the turn's time at the last reading of the clock, plus an
    /// estimate for the writes and bytes that the turn has caused.
    pub fn cost(&self) -> u64 {
        self.nanos.get() + self.output_cost()
    }

    /// The part of [`Self::cost`] that is the estimate for the writes and bytes, in nanoseconds.
    pub fn output_cost(&self) -> u64 {
        self.writes * WRITE_NANOS + self.bytes * BYTE_NANOS
    }

    /// Counts one performed output of the rules, or work of about that size.
    pub fn count(&mut self) {
        self.outputs += 1;
    }

    /// Whether the turn has reached [`TURN_OUTPUTS`] or its maximum cost. Work that is left when a turn is over must
    /// wait for the next turn.
    pub fn is_over(&self) -> bool {
        self.outputs >= TURN_OUTPUTS || self.most_nanos.is_some_and(|most| self.cost() >= most)
    }

    /// Records a reading of the clock. The first reading in a turn is the beginning of the turn.
    pub fn look(&self, at: Duration) {
        if self.is_new.take() {
            self.began.set(at);
            self.lengths.borrow_mut().begin(at, crate::take_idle());
        } else {
            self.nanos.set(at.saturating_sub(self.began.get()).as_nanos() as u64);
        }
    }

    /// The lengths of all turns so far.
    pub fn lengths(&self) -> TurnLengths {
        self.lengths.borrow().clone()
    }
}

/// Whether the process was stopped since the last tick, for example by SIGSTOP. Data that arrived meanwhile has not
/// been read yet, so callers must ignore silence and timeouts.
pub fn was_stopped(last_tick: Duration, now: Duration) -> bool {
    now.saturating_sub(last_tick) > NOTICED_STOP
}

#[cfg(test)]
mod tests {
    use proto::limits::TICK;

    use super::*;

    #[test]
    fn a_turn_ends_after_a_number_of_outputs_and_begins_with_the_first_reading_of_the_clock() {
        let mut turn = Turn::default();
        assert!(!turn.is_over());
        turn.begin();
        turn.look(Duration::from_millis(5));
        for _ in 0..TURN_OUTPUTS {
            assert!(!turn.is_over());
            turn.count();
        }
        assert!(turn.is_over());
        // Only the first reading of the clock in a turn is the beginning of the turn.
        turn.look(Duration::from_millis(6));
        turn.begin();
        assert!(!turn.is_over());
        turn.look(Duration::from_millis(25));
        assert_eq!(turn.lengths().counts.iter().sum::<u64>(), 1);
    }

    #[test]
    fn turn_is_over_after_its_cost() {
        let mut turn = Turn::default();
        turn.begin_within(2 * WRITE_NANOS + 1000 * BYTE_NANOS);
        turn.look(Duration::from_millis(5));
        turn.add_write();
        turn.add_bytes(1000);
        assert!(!turn.is_over());
        turn.look(Duration::from_millis(5) + Duration::from_nanos(WRITE_NANOS));
        assert!(turn.is_over());
        assert_eq!(turn.cost(), 2 * WRITE_NANOS + 1000 * BYTE_NANOS);
        turn.begin_within(1);
        assert!(!turn.is_over());
    }

    #[test]
    fn stop_is_noticed_by_missed_ticks() {
        let ticks = |n| n * TICK;
        assert!(!was_stopped(ticks(3), ticks(13)));
        assert!(was_stopped(ticks(3), ticks(13) + Duration::from_millis(1)));
    }
}
