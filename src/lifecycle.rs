//! Where a hub is in its life, for whoever asks whether it is ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// A stretch of a hub's life. They only follow each other in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// It does not serve yet.
    Starting,
    /// It serves.
    Ready,
    /// It sends its peers away and ends.
    Draining,
}

impl Stage {
    /// The name in answers.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

/// A hub's stage, seen by all who have a clone of this.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle(Arc<AtomicU8>);

impl Lifecycle {
    /// A hub that is starting.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on to `stage`. There is no way back: a hub that drains does not become ready again.
    pub fn advance(&self, stage: Stage) {
        self.0.fetch_max(stage as u8, Ordering::Release);
    }

    /// Where the hub is.
    pub fn stage(&self) -> Stage {
        match self.0.load(Ordering::Acquire) {
            0 => Stage::Starting,
            1 => Stage::Ready,
            _ => Stage::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_way_back() {
        let lifecycle = Lifecycle::new();
        let other = lifecycle.clone();
        assert_eq!(other.stage(), Stage::Starting);
        lifecycle.advance(Stage::Ready);
        assert_eq!(other.stage(), Stage::Ready);
        lifecycle.advance(Stage::Draining);
        lifecycle.advance(Stage::Ready);
        assert_eq!(other.stage(), Stage::Draining);
    }
}
