//! Where a hub is in its life, for whoever asks whether it is ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

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

/// Whether a hub has seats left, for those who send it newcomers.
///
/// A full hub counts as full until 5 % of its seats (at least one) are free. Otherwise it would change with each peer that
/// comes or goes.
#[derive(Debug)]
pub struct Fullness {
    seats: usize,
    full: AtomicBool,
}

impl Fullness {
    /// A hub with so many seats, all of them free.
    pub fn of(seats: usize) -> Self {
        Self { seats, full: AtomicBool::new(false) }
    }

    /// Whether it is full while so many seats are taken.
    pub fn look(&self, taken: usize) -> bool {
        let free = self.seats.saturating_sub(taken);
        let was = self.full.load(Ordering::Relaxed);
        let full = if was { free < (self.seats / 20).max(1) } else { free == 0 };
        if full != was {
            self.full.store(full, Ordering::Relaxed);
        }
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_that_was_full_has_room_when_a_twentieth_is_free() {
        for (seats, again) in [(1000, 950), (100, 95), (19, 18), (5, 4), (1, 0)] {
            let hub = Fullness::of(seats);
            assert!(!hub.look(0) && !hub.look(seats - 1), "{seats}");
            assert!(hub.look(seats) && hub.look(seats + 1), "{seats}");
            assert!(hub.look(again + 1), "{seats}");
            assert!(!hub.look(again) && !hub.look(seats - 1), "{seats}");
            assert!(hub.look(seats), "{seats}");
        }
    }

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
