//! Exclusions of peers and networks. For a limited time, a peer may not connect, a peer may not join a network, or
//! nobody may join a network.

use std::collections::HashMap;
use std::time::Duration;

use crate::id::{NetworkName, PeerId};
use crate::keys::Keys;
use crate::limits::MAX_EXCLUSIONS;

/// The subject of an exclusion.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Excluded {
    /// A peer may not connect.
    Peer(PeerId),
    /// A peer may not join one network.
    Member(PeerId, NetworkName),
    /// Nobody may join this network.
    Network(NetworkName),
}

/// The exclusions of a shard, each with the time at which it ends. An expired exclusion has no effect, and is removed
/// when another exclusion is added.
#[derive(Debug)]
pub(super) struct Exclusions {
    until: HashMap<Excluded, Duration, Keys>,
}

impl Exclusions {
    pub(super) fn new(keys: Keys) -> Self {
        Self { until: HashMap::with_hasher(keys) }
    }

    /// Excludes `what` for `out_for` from now on, and replaces an earlier exclusion of the same subject. Zero ends the
    /// earlier exclusion. If [`MAX_EXCLUSIONS`] other exclusions are in force, nothing changes and the result is false.
    pub(super) fn set(&mut self, what: Excluded, out_for: Duration, now: Duration) -> bool {
        self.until.retain(|_, until| *until > now);
        if out_for.is_zero() {
            self.until.remove(&what);
            return true;
        }
        let has_room = self.until.len() < MAX_EXCLUSIONS || self.until.contains_key(&what);
        if has_room {
            self.until.insert(what, now.saturating_add(out_for));
        }
        has_room
    }

    /// Whether a peer may not connect.
    pub(super) fn has_peer(&self, peer: &PeerId, now: Duration) -> bool {
        !self.until.is_empty() && self.has(&Excluded::Peer(*peer), now)
    }

    /// Whether a peer may not join a network.
    pub(super) fn has_member(&self, peer: &PeerId, network: &str, now: Duration) -> bool {
        if self.until.is_empty() {
            return false;
        }
        let network = NetworkName::new(network);
        self.has(&Excluded::Network(network.clone()), now) || self.has(&Excluded::Member(*peer, network), now)
    }

    fn has(&self, what: &Excluded, now: Duration) -> bool {
        self.until.get(what).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(100);
    const MINUTE: Duration = Duration::from_secs(60);

    fn peer(n: u32) -> PeerId {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    #[test]
    fn an_exclusion_ends_after_its_time_or_when_it_is_set_to_zero() {
        let mut out = Exclusions::new(Keys(1, 2));
        assert!(out.set(Excluded::Peer(peer(1)), MINUTE, START));
        assert!(out.has_peer(&peer(1), START) && !out.has_peer(&peer(2), START));
        assert!(out.has_peer(&peer(1), START + MINUTE - Duration::from_nanos(1)));
        assert!(!out.has_peer(&peer(1), START + MINUTE));
        assert!(out.set(Excluded::Peer(peer(1)), Duration::ZERO, START));
        assert!(!out.has_peer(&peer(1), START));
    }

    #[test]
    fn a_network_is_closed_for_one_peer_or_for_all() {
        let mut out = Exclusions::new(Keys(1, 2));
        out.set(Excluded::Member(peer(1), NetworkName::new("a")), MINUTE, START);
        out.set(Excluded::Network(NetworkName::new("b")), MINUTE, START);
        let has = |n, network| out.has_member(&peer(n), network, START);
        assert_eq!([has(1, "a"), has(2, "a"), has(1, "b"), has(2, "b"), has(1, "c")], [true, false, true, true, false]);
        assert!(!out.has_peer(&peer(1), START));
    }

    #[test]
    fn exclusions_are_bounded_and_expired_ones_make_room() {
        let mut out = Exclusions::new(Keys(1, 2));
        assert!((0..MAX_EXCLUSIONS as u32).all(|n| out.set(Excluded::Peer(peer(n)), MINUTE, START)));
        let one_more = Excluded::Peer(peer(u32::MAX));
        assert!(!out.set(one_more.clone(), MINUTE, START));
        assert!(out.set(Excluded::Peer(peer(0)), MINUTE * 2, START), "the peer already has an entry");
        assert!(out.set(one_more, MINUTE, START + MINUTE));
        assert_eq!(out.until.len(), 2);
    }
}
