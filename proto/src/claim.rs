//! Claims. A claim is the statement of a hub that a peer is connected to this hub.

use crate::id::{HubId, PeerIncarnation};

/// A hub's statement that a peer is connected to it in a certain session.
///
/// Several hubs can claim one peer for a moment, while the peer moves or when a partition between hubs ends. Shards and
/// relays decide between claims by one rule: **the greater claim wins**. The claim of a later session (a greater
/// incarnation) is greater. If two sessions have the same incarnation, the claim of the hub with the greater id is
/// greater. All hubs apply the same rule, so they reach the same decision, no matter in which order the claims arrive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Claim {
    // The derived comparison compares the fields in this order. The rule requires this order.
    /// The session of the peer.
    pub incarnation: PeerIncarnation,
    /// The hub that the peer is connected to.
    pub hub: HubId,
}

/// The result of a comparison of two claims to one id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Precedence {
    /// This claim is greater, and wins.
    Wins,
    /// Both claims are the same.
    Same,
    /// This claim is smaller, and loses.
    Loses,
}

impl Claim {
    /// Compares this claim with another claim to the same id.
    pub(crate) fn against(self, other: Self) -> Precedence {
        match self.cmp(&other) {
            std::cmp::Ordering::Greater => Precedence::Wins,
            std::cmp::Ordering::Equal => Precedence::Same,
            std::cmp::Ordering::Less => Precedence::Loses,
        }
    }

    /// The winner among claims to one id.
    pub(crate) fn winner<'a>(claims: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        claims
            .into_iter()
            .copied()
            .reduce(|best, claim| if claim.against(best) == Precedence::Wins { claim } else { best })
    }

    /// Whether the peer of this claim is behind a legacy link.
    pub(crate) fn is_legacy(self) -> bool {
        self.incarnation <= PeerIncarnation::LEGACY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerId;

    fn claim(incarnation: u64, hub: u8) -> Claim {
        Claim { incarnation: PeerIncarnation(incarnation), hub: HubId(PeerId::from_bytes([hub; 20])) }
    }

    #[test]
    fn the_claim_of_the_later_session_wins_and_then_that_of_the_greater_hub() {
        for (claim, other, expected) in [
            (claim(2, 1), claim(1, 9), Precedence::Wins),
            (claim(1, 9), claim(2, 1), Precedence::Loses),
            (claim(2, 2), claim(2, 1), Precedence::Wins),
            (claim(2, 1), claim(2, 2), Precedence::Loses),
            (claim(2, 1), claim(2, 1), Precedence::Same),
        ] {
            assert_eq!(claim.against(other), expected, "{claim:?} against {other:?}");
        }
    }

    #[test]
    fn the_winner_does_not_depend_on_the_order() {
        let claims = [claim(3, 1), claim(5, 1), claim(5, 2), claim(4, 9)];
        for first in 0..claims.len() {
            let mut claims = claims;
            claims.rotate_left(first);
            assert_eq!(Claim::winner(&claims), Some(claim(5, 2)));
        }
        assert_eq!(Claim::winner([]), None);
    }

    #[test]
    fn any_session_wins_against_a_peer_behind_a_legacy_link() {
        assert!(claim(PeerIncarnation::LEGACY.0, 9).is_legacy() && !claim(2, 1).is_legacy());
        assert_eq!(claim(2, 1).against(claim(PeerIncarnation::LEGACY.0, 9)), Precedence::Wins);
    }
}
