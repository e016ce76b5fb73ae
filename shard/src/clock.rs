use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proto::Now;

/// The clock of a hub. All shards share one clock, so their times are comparable.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The current time.
    pub fn now(self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { at: self.elapsed(), wall_ms: wall.as_millis() as u64 }
    }

    /// Time since the start.
    pub fn elapsed(self) -> Duration {
        self.start.elapsed()
    }
}
