//! An orderly stop, which closes each session in a slot. This module computes when each client should reconnect.

use std::sync::Arc;
use std::time::Duration;

use proto::limits::RESTART_TIME;

/// The plan of a drain, in which the hub closes every session in the session's slot.
#[derive(Clone, Debug)]
pub struct Drain {
    /// Time over which the slots are spread.
    pub spread: Duration,
    /// PUBLIC_URLs of the other hubs.
    pub hubs: Arc<[String]>,
    /// Whether no other hub accepts peers, so that clients must return to this one.
    pub is_alone: bool,
    /// Whether the hub stops. If true, the hub accepts no more connections, except at ADMIN_PORT. If false, the hub
    /// accepts connections, but refuses new peers until the end of the drain.
    pub stops: bool,
}

/// A drain that has begun.
#[derive(Debug)]
pub(crate) struct Draining {
    pub(crate) plan: Drain,
    /// When the drain began, on the shard's clock.
    pub(crate) began: Duration,
    /// The number of the drain: the first drain of a shard has 1.
    pub(crate) number: u32,
}

impl Draining {
    /// Time from the close of a session at `closes_at` until its client should reconnect to this hub.
    ///
    /// Other hubs accept the client at once. A hub that is alone accepts the client after the drain, when the hub has
    /// started again. The returns of the clients are spread over half of the time over which their sessions were
    /// closed, so that the clients do not all arrive at once.
    pub(crate) fn reconnect_in(&self, closes_at: Duration) -> Duration {
        if !self.plan.is_alone {
            return Duration::ZERO;
        }
        let slot = closes_at.saturating_sub(self.began);
        self.plan.spread.saturating_sub(slot) + RESTART_TIME + slot.min(self.plan.spread) / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draining(is_alone: bool) -> Draining {
        let plan = Drain { spread: Duration::from_secs(8), hubs: [].into(), is_alone, stops: true };
        Draining { plan, began: Duration::from_secs(100), number: 1 }
    }

    #[test]
    fn clients_of_the_only_hub_come_back_after_its_drain() {
        let back_at =
            |closes_at| Duration::from_secs(closes_at) + draining(true).reconnect_in(Duration::from_secs(closes_at));
        let over = Duration::from_secs(108) + RESTART_TIME;
        assert_eq!([100, 104, 108].map(back_at), [over, over + Duration::from_secs(2), over + Duration::from_secs(4)]);
        // A new peer arrives in an operator's drain, long after the last slot of this drain.
        assert_eq!(back_at(500), Duration::from_secs(504) + RESTART_TIME);
    }

    #[test]
    fn clients_with_another_hub_reconnect_at_once() {
        assert_eq!(draining(false).reconnect_in(Duration::from_secs(103)), Duration::ZERO);
    }
}
