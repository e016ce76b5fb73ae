//! A bounded memory of recent events on legacy links.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits::{LEGACY_ECHO, MAX_LEGACY_ECHOES};

/// Hashes of the events of the last [`LEGACY_ECHO`]. If there are more than [`MAX_LEGACY_ECHOES`] events, the oldest
/// events are dropped.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<(Duration, u64)>);

impl Recent {
    pub(super) fn note(&mut self, hash: u64, now: Duration) {
        if self.0.len() >= MAX_LEGACY_ECHOES {
            self.0.pop_front();
        }
        self.0.push_back((now, hash));
    }

    pub(super) fn holds(&mut self, hash: u64, now: Duration) -> bool {
        self.find(hash, now).is_some()
    }

    /// Like [`Self::holds`], but also removes the event. So this function returns true only once for each recorded
    /// event.
    pub(super) fn take(&mut self, hash: u64, now: Duration) -> bool {
        self.find(hash, now).and_then(|at| self.0.remove(at)).is_some()
    }

    fn find(&mut self, hash: u64, now: Duration) -> Option<usize> {
        while self.0.pop_front_if(|(at, _)| *at + LEGACY_ECHO <= now).is_some() {}
        self.0.iter().position(|(_, noted)| *noted == hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_recent_messages_is_bounded_in_time_and_number() {
        let mut recent = Recent::default();
        recent.note(1, Duration::ZERO);
        recent.note(1, Duration::ZERO);
        assert!(recent.take(1, Duration::ZERO) && recent.holds(1, LEGACY_ECHO - Duration::from_millis(1)));
        assert!(!recent.holds(1, LEGACY_ECHO));
        for hash in 0..=MAX_LEGACY_ECHOES as u64 {
            recent.note(hash, LEGACY_ECHO);
        }
        assert!(
            !recent.holds(0, LEGACY_ECHO) && recent.holds(1, LEGACY_ECHO),
            "above the maximum, the oldest event is dropped"
        );
        assert_eq!(recent.0.len(), MAX_LEGACY_ECHOES);
    }
}
