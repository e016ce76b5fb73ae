//! The hops over which a hub's heartbeats arrive.

use crate::limits::{HEARTBEAT, LEASE, ROUTE_PATIENCE};
use crate::route::Hop;

/// The neighbours through which a hub's heartbeats arrive.
#[derive(Debug, Default)]
pub(in crate::relay) struct Paths {
    /// The last heartbeat over each hop, the newest last.
    heard: Vec<(Hop, u64)>,
    best: Option<Hop>,
    worse: u8,
}

impl Paths {
    /// Maximum difference between the newest heartbeat and the last heartbeat over a hop. A hop with a greater
    /// difference is removed.
    const SLACK: u64 = 2 * LEASE.as_secs() / HEARTBEAT.as_secs();

    /// Records that a heartbeat arrived over a hop. `first` means that this heartbeat had not arrived over another hop
    /// before.
    pub(in crate::relay) fn note(&mut self, via: Hop, number: u64, first: bool) {
        self.heard.retain(|(hop, last)| *hop != via && last + Self::SLACK >= number);
        self.heard.push((via, number));
        if !first {
            return;
        }
        match self.best {
            Some(best) if best == via => self.worse = 0,
            Some(best) if self.heard.iter().any(|(hop, _)| *hop == best) && self.worse + 1 < ROUTE_PATIENCE => {
                self.worse += 1;
            }
            Some(_) | None => {
                self.best = Some(via);
                self.worse = 0;
            }
        }
    }

    /// The hop to use.
    pub(in crate::relay) fn best(&self) -> Option<Hop> {
        self.best
    }

    /// All hops over which heartbeats arrived recently, the latest first.
    pub(in crate::relay) fn newest_first(&self) -> impl Iterator<Item = Hop> {
        self.heard.iter().rev().map(|(hop, _)| *hop)
    }

    /// Removes hops that no longer exist.
    pub(in crate::relay) fn forget(&mut self, gone: impl Fn(Hop) -> bool) {
        self.heard.retain(|(hop, _)| !gone(*hop));
        if self.best.is_some_and(&gone) {
            self.best = self.heard.iter().max_by_key(|(_, number)| *number).map(|(hop, _)| *hop);
            self.worse = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::LinkId;

    #[test]
    fn a_hop_that_is_gone_is_replaced_by_the_one_with_the_latest_heartbeat() {
        let hops = [1, 2, 3].map(|n| Hop::Link(LinkId(n)));
        let mut paths = Paths::default();
        for (hop, number) in hops.into_iter().zip([5, 7, 6]) {
            paths.note(hop, number, number == 5);
        }
        assert_eq!(paths.best(), Some(hops[0]));
        paths.forget(|via| via == hops[2]);
        assert_eq!(paths.best(), Some(hops[0]), "another hop is gone");
        paths.note(hops[2], 6, false);
        paths.forget(|via| via == hops[0]);
        assert_eq!(paths.best(), Some(hops[1]));
        assert_eq!(paths.newest_first().collect::<Vec<_>>(), [hops[2], hops[1]]);
        paths.note(hops[0], 7 + Paths::SLACK, false);
        assert_eq!(paths.newest_first().count(), 2, "the last heartbeat over the removed hop, number 6, is too old");
        assert!(paths.newest_first().all(|hop| hop != hops[2]));
    }
}
