//! The oracle of claims: what a shard knows about a peer at another shard or hub must follow from the letters about
//! this peer.
//!
//! A roster shows the greatest claim among those whose `Joined` has arrived and whose `Left` has not. A shown claim
//! that a greater claim replaces does not return. After an `Elsewhere`, a home shard knows the claim in that letter
//! until the matching `Nowhere` arrives.
//!
//! Other oracles, which check the messages to clients, would find a forgotten claim much later than this oracle. If
//! another letter repaired the state, those oracles would not find the forgotten claim at all.

use std::collections::{BTreeMap, BTreeSet};

use proto::{Claim, NetworkName, PeerId, ToShard};

use super::clients::Phase;
use super::world::World;

/// One shard of one process: the hub, the number of its process, and the shard.
type Place = (usize, usize, usize);

/// Claims whose beginning a letter has reported, but whose end no letter has reported yet.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Memberships, by shard, peer and network.
    joined: BTreeMap<(Place, PeerId, NetworkName), BTreeSet<Claim>>,
    /// Claims of other hubs, by the home shard and the peer.
    elsewhere: BTreeMap<(Place, PeerId), Claim>,
}

/// What a shard must know after it has received a letter.
#[derive(Debug)]
pub(crate) enum Known {
    /// The claim under which the peer is a member of the network.
    Member {
        peer: PeerId,
        network: NetworkName,
        claim: Option<Claim>,
        /// Whether the letter began a claim that is not the greatest.
        is_hidden: bool,
    },
    /// The claim of another hub to the peer.
    Elsewhere {
        peer: PeerId,
        claim: Option<Claim>,
        /// Whether the letter ended the claim.
        has_ended: bool,
    },
}

impl Claims {
    /// Records a letter that a shard is about to receive.
    pub(crate) fn note(&mut self, place: Place, letter: &ToShard) -> Option<Known> {
        let (peer, network, claim, joins) = match letter {
            ToShard::Joined(a) => (a.peer, &a.network, a.claim, true),
            ToShard::Left(l) => (l.peer, &l.network, l.claim, false),
            &ToShard::Elsewhere { peer, claim } => {
                self.elsewhere.insert((place, peer), claim);
                return Some(Known::Elsewhere { peer, claim: Some(claim), has_ended: false });
            }
            &ToShard::Nowhere { peer, claim } => {
                let has_ended = self.elsewhere.get(&(place, peer)) == Some(&claim);
                if has_ended {
                    self.elsewhere.remove(&(place, peer));
                }
                let claim = self.elsewhere.get(&(place, peer)).copied();
                return Some(Known::Elsewhere { peer, claim, has_ended });
            }
            ToShard::Challenge { .. }
            | ToShard::Meeting(_)
            | ToShard::Outcome(_)
            | ToShard::Renamed { .. }
            | ToShard::Signal(_)
            | ToShard::TakeoverAnswered { .. } => return None,
        };
        let claims = self.joined.entry((place, peer, network.clone())).or_default();
        if joins {
            // The greater claim replaces the shown claim. The `Left` of the replaced claim is still in transit, from
            // the peer's own shard or from the relay.
            if claims.last().is_some_and(|shown| *shown < claim) {
                claims.pop_last();
            }
            claims.insert(claim);
        } else {
            claims.remove(&claim);
        }
        let greatest = claims.last().copied();
        let is_hidden = joins && greatest != Some(claim);
        Some(Known::Member { peer, network: network.clone(), claim: greatest, is_hidden })
    }
}

impl World {
    /// Checks a shard's knowledge after a letter.
    pub(crate) fn knows_claims(&mut self, hub: usize, shard: usize, known: &Known) {
        let router = &self.hubs[hub].routers[shard];
        let life = self.hubs[hub].life;
        let here = |client: &&super::clients::Client| (client.hub, client.life) == (hub, life);
        match known {
            // The home shard of the peer also knows the claims of its own sessions, so the letters alone do not
            // determine its roster.
            Known::Member { peer, .. } if self.hubs[hub].home(peer) == shard => {}
            Known::Member { peer, network, claim, .. } => {
                let found = router.claim_in(network, peer);
                if found != *claim {
                    self.complain(format!(
                        "h{hub} s{shard} has {peer:?} in {network} with {found:?}, but its letters say {claim:?}"
                    ));
                }
            }
            Known::Elsewhere { peer, claim, has_ended } => {
                let found = router.claim_elsewhere(peer);
                let of_peer = self.clients.iter().filter(here).filter(|client| client.peer == *peer);
                let phases: Vec<Phase> = of_peer.map(|client| client.phase).filter(|p| *p != Phase::Ended).collect();
                if found != *claim {
                    self.complain(format!(
                        "h{hub} s{shard} has {peer:?} at another hub with {found:?}, but its letters say {claim:?}"
                    ));
                } else if *has_ended && phases == [Phase::Pending] {
                    self.complain(format!("h{hub} s{shard}: {peer:?} waits for an id that no other hub claims"));
                }
            }
        }
    }
}
