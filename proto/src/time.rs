use std::time::Duration;

/// The time of an input, as its caller read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time since the process started. Every decision is taken by this one.
    pub at: Duration,
    /// Milliseconds since the Unix epoch. Only ever printed.
    pub wall_ms: u64,
}
