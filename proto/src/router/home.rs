//! The claims of other hubs to the peers whose home is this shard, and the numbers for new claims.

use std::collections::HashMap;

use crate::claim::Claim;
use crate::id::{PeerId, PeerIncarnation};
use crate::keys::Keys;
use crate::limits::GREATEST_TIME_FOLLOWED;

/// The latest incarnation of any session, and the peers of this home shard that are connected to another hub.
///
/// Each new session gets a greater incarnation than every earlier session that this shard knows, up to
/// [`GREATEST_TIME_FOLLOWED`]. So the claim of the new session wins (see [`Claim`]), even if the clocks of the hubs
/// differ.
#[derive(Debug)]
pub(super) struct Home {
    /// The latest incarnation that this shard gave to a session or received from another hub. This incarnation only
    /// grows.
    latest: PeerIncarnation,
    /// The claims of other hubs. The relay reports at most `MAX_PEERS_PER_HUB` claims for each of `MAX_HUBS` hubs.
    elsewhere: HashMap<PeerId, Claim, Keys>,
}

impl Home {
    pub(super) fn new(keys: Keys) -> Self {
        Self { latest: PeerIncarnation::default(), elsewhere: HashMap::with_hasher(keys) }
    }

    /// Makes later sessions get a greater incarnation than `incarnation`, which another hub has assigned. Incarnations
    /// above [`GREATEST_TIME_FOLLOWED`] are not exceeded, so that one hub with a wrong clock cannot make all hubs use
    /// up the possible numbers.
    pub(super) fn follow(&mut self, incarnation: PeerIncarnation) {
        self.latest = self.latest.max(incarnation.min(PeerIncarnation(GREATEST_TIME_FOLLOWED)));
    }

    /// The incarnation of a session that begins now.
    pub(super) fn next_incarnation(&mut self, wall_ms: u64) -> PeerIncarnation {
        let clock = wall_ms.min(GREATEST_TIME_FOLLOWED);
        self.latest = PeerIncarnation(clock.max(self.latest.0.saturating_add(1)));
        self.latest
    }

    /// Whether a peer is connected to another hub.
    pub(super) fn is_elsewhere(&self, peer: &PeerId) -> bool {
        self.elsewhere.contains_key(peer)
    }

    /// The claim of another hub to a peer.
    pub(super) fn claim_elsewhere(&self, peer: &PeerId) -> Option<Claim> {
        self.elsewhere.get(peer).copied()
    }

    /// Records that a peer is connected to another hub. Later sessions of the peer get a greater claim even after the
    /// peer has left that hub, because the leave may reach other shards after the announcements of these sessions.
    pub(super) fn connected_elsewhere(&mut self, peer: PeerId, claim: Claim) {
        self.follow(claim.incarnation);
        self.elsewhere.insert(peer, claim);
    }

    /// Records that a claim of another hub to a peer has ended. Returns whether this claim was the current claim to the
    /// peer.
    pub(super) fn ended_elsewhere(&mut self, peer: &PeerId, claim: Claim) -> bool {
        let is_current = self.elsewhere.get(peer) == Some(&claim);
        if is_current {
            self.elsewhere.remove(peer);
        }
        is_current
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::HubId;

    const PEER: PeerId = PeerId::from_bytes([1; 20]);

    fn claim(incarnation: u64) -> Claim {
        Claim { incarnation: PeerIncarnation(incarnation), hub: HubId(PeerId::from_bytes([9; 20])) }
    }

    #[test]
    fn only_the_end_of_the_current_claim_of_another_hub_has_an_effect() {
        let mut home = Home::new(Keys(1, 2));
        assert!(!home.ended_elsewhere(&PEER, claim(1)));
        home.connected_elsewhere(PEER, claim(1));
        home.connected_elsewhere(PEER, claim(2));
        assert!(!home.ended_elsewhere(&PEER, claim(1)) && home.is_elsewhere(&PEER));
        assert!(home.ended_elsewhere(&PEER, claim(2)) && !home.is_elsewhere(&PEER));
    }

    proptest! {
        #[test]
        fn each_session_is_later_than_all_known_sessions(
            clocks in prop::collection::vec((0..=GREATEST_TIME_FOLLOWED, any::<bool>()), 1..20),
        ) {
            let mut home = Home::new(Keys(1, 2));
            let mut latest = PeerIncarnation::default();
            for (clock, elsewhere) in clocks {
                if elsewhere {
                    home.connected_elsewhere(PEER, claim(clock));
                    latest = latest.max(PeerIncarnation(clock));
                } else {
                    let next = home.next_incarnation(clock);
                    prop_assert!(next > latest);
                    latest = next;
                }
            }
        }
    }

    #[test]
    fn an_incarnation_too_far_in_the_future_is_not_exceeded() {
        let mut home = Home::new(Keys(1, 2));
        home.follow(PeerIncarnation(u64::MAX));
        assert_eq!(home.next_incarnation(0), PeerIncarnation(GREATEST_TIME_FOLLOWED + 1));
        assert_eq!(home.next_incarnation(u64::MAX), PeerIncarnation(GREATEST_TIME_FOLLOWED + 2));
    }
}
