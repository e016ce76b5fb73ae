//! The time of an input.

use std::time::Duration;

/// The time of an input. The caller reads the clocks. The times of successive inputs must not decrease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time since the process started. All timeouts use this time.
    pub at: Duration,
    /// Milliseconds since the Unix epoch. Messages contain this time. The hub also derives the incarnations of sessions
    /// and hubs from the wall clock. Incarnations grow even if the wall clock goes back.
    pub wall_ms: u64,
}
