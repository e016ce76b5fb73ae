//! The stage of a hub's life, for probes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// A stage of a hub's life. A hub only moves to later stages, except that an operator can end a drain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// The hub does not accept peers yet.
    Starting,
    /// The hub accepts peers.
    Ready,
    /// An operator drains the hub. The hub closes its connections, but does not stop.
    Draining,
    /// The hub closes its connections and stops.
    Stopping,
}

impl Stage {
    /// The name in answers to probes.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining | Self::Stopping => "draining",
        }
    }
}

/// The stage of a hub. All clones show the same stage.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle(Arc<AtomicU8>);

impl Lifecycle {
    /// A hub that is starting.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves to `stage`. Does nothing if the hub is already at a later stage.
    pub fn advance(&self, stage: Stage) {
        self.0.fetch_max(stage as u8, Ordering::Release);
    }

    /// Ends a drain, so that the hub is ready again. Returns false if the hub was not draining, or if it is stopping.
    pub fn end_drain(&self) -> bool {
        let (from, to) = (Stage::Draining as u8, Stage::Ready as u8);
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The current stage.
    pub fn stage(&self) -> Stage {
        match self.0.load(Ordering::Acquire) {
            0 => Stage::Starting,
            1 => Stage::Ready,
            2 => Stage::Draining,
            _ => Stage::Stopping,
        }
    }
}

/// Whether a hub is full, for load balancers.
///
/// A full hub counts as full until 5 % of its seats (at least one) are free. Without this margin of 5 %, a hub near its
/// limit would change its state with each peer.
#[derive(Debug)]
pub struct Fullness {
    seats: usize,
    full: AtomicBool,
}

impl Fullness {
    /// A hub with this number of seats, all free.
    pub fn of(seats: usize) -> Self {
        Self { seats, full: AtomicBool::new(false) }
    }

    /// Stores and returns whether the hub is full with this number of seats taken. A full hub stays full until a
    /// twentieth of its seats is free.
    pub fn update(&self, taken: usize) -> bool {
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
    fn a_full_hub_has_room_again_when_a_twentieth_is_free() {
        for (seats, again) in [(1000, 950), (100, 95), (19, 18), (5, 4), (1, 0)] {
            let hub = Fullness::of(seats);
            assert!(!hub.update(0) && !hub.update(seats - 1), "{seats}");
            assert!(hub.update(seats) && hub.update(seats + 1), "{seats}");
            assert!(hub.update(again + 1), "{seats}");
            assert!(!hub.update(again) && !hub.update(seats - 1), "{seats}");
            assert!(hub.update(seats), "{seats}");
        }
    }

    #[test]
    fn only_a_drain_that_an_operator_began_can_be_ended() {
        let lifecycle = Lifecycle::new();
        let other = lifecycle.clone();
        assert_eq!(other.stage(), Stage::Starting);
        lifecycle.advance(Stage::Ready);
        assert_eq!(other.stage(), Stage::Ready);
        assert!(!lifecycle.end_drain());
        lifecycle.advance(Stage::Draining);
        lifecycle.advance(Stage::Ready);
        assert_eq!(other.stage(), Stage::Draining);
        assert!(lifecycle.end_drain());
        assert_eq!(other.stage(), Stage::Ready);
        lifecycle.advance(Stage::Stopping);
        lifecycle.advance(Stage::Draining);
        assert!(!lifecycle.end_drain());
        assert_eq!(other.stage(), Stage::Stopping);
    }
}
