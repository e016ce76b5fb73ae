//! The hops over which a hub's heartbeats arrive.

use crate::limits::{HEARTBEAT, LEASE, ROUTE_PATIENCE};
use crate::route::Hop;

/// The hops over which a hub's heartbeats arrive, and the hop with the fastest heartbeats.
#[derive(Debug, Default)]
pub(in crate::relay) struct Paths {
    /// The hops, each with the number of the last heartbeat that arrived over it. The hop with the latest arrival is
    /// last.
    heard: Vec<(Hop, u64)>,
    best: Option<Hop>,
    worse: u8,
}

impl Paths {
    /// Maximum difference between the number of the newest heartbeat and the number of the last heartbeat over a hop.
    /// If the difference is greater, the hop is removed.
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

    /// The hop over which new heartbeats usually arrive first.
    pub(in crate::relay) fn best(&self) -> Option<Hop> {
        self.best
    }

    /// All hops over which heartbeats arrived recently, the latest first.
    pub(in crate::relay) fn newest_first(&self) -> impl Iterator<Item = Hop> {
        self.heard.iter().rev().map(|(hop, _)| *hop)
    }

    /// Removes the hops for which `gone` returns true. If the best hop is removed, the hop with the latest heartbeat
    /// replaces it.
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
    fn a_removed_best_hop_is_replaced_by_the_hop_with_the_latest_heartbeat() {
        let hops = [1, 2, 3].map(|n| Hop::Link(LinkId(n)));
        let mut paths = Paths::default();
        for (hop, number) in hops.into_iter().zip([5, 7, 6]) {
            paths.note(hop, number, number == 5);
        }
        assert_eq!(paths.best(), Some(hops[0]));
        paths.forget(|via| via == hops[2]);
        assert_eq!(paths.best(), Some(hops[0]), "the best hop stays when another hop is removed");
        paths.note(hops[2], 6, false);
        paths.forget(|via| via == hops[0]);
        assert_eq!(paths.best(), Some(hops[1]));
        assert_eq!(paths.newest_first().collect::<Vec<_>>(), [hops[2], hops[1]]);
        paths.note(hops[0], 7 + Paths::SLACK, false);
        assert_eq!(paths.newest_first().count(), 2, "the last heartbeat over the removed hop, number 6, is too old");
        assert!(paths.newest_first().all(|hop| hop != hops[2]));
    }
}
