//! The plan of a load test: ids, networks, and members. The seed determines the whole plan.

use proto::PeerId;

/// Pseudorandom numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }
}

/// How peers are spread over networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// Peers are spread over the networks one by one (round robin).
    Single,
    /// Peers 2k and 2k+1 form a pair. Pairs are spread over the networks one by one (round robin).
    Pairs,
}

/// The peers and networks of a load test.
#[derive(Debug)]
pub(super) struct Plan {
    ids: Vec<PeerId>,
    networks: Vec<String>,
    spread: Spread,
}

/// The network of a peer, and the peer's number among the members of that network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) network: usize,
    pub(super) slot: usize,
}

impl Plan {
    /// `peers` ids in `networks` networks. Names of networks contain the seed, so that two runs against one hub use
    /// different networks.
    pub(super) fn new(peers: usize, networks: usize, spread: Spread, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let ids = (0..peers).map(|number| random_id(&mut rng, number)).collect();
        let networks = (0..networks.max(1)).map(|network| format!("load-test-{seed:016x}-{network}")).collect();
        Self { ids, networks, spread }
    }

    pub(super) fn peers(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn networks(&self) -> usize {
        self.networks.len()
    }

    pub(super) fn id(&self, peer: usize) -> &PeerId {
        &self.ids[peer]
    }

    pub(super) fn network_name(&self, peer: usize) -> &str {
        &self.networks[self.place(peer).network]
    }

    /// The peer with this id.
    pub(super) fn find(&self, id: &str) -> Option<usize> {
        let id: PeerId = id.parse().ok()?;
        let [.., a, b, c, d] = *id.as_bytes();
        let peer = u32::from_be_bytes([a, b, c, d]) as usize;
        (self.ids.get(peer) == Some(&id)).then_some(peer)
    }

    pub(super) fn place(&self, peer: usize) -> Place {
        let networks = self.networks();
        match self.spread {
            Spread::Single => Place { network: peer % networks, slot: peer / networks },
            Spread::Pairs => {
                let pair = peer / 2;
                Place { network: pair % networks, slot: pair / networks * 2 + peer % 2 }
            }
        }
    }

    /// The peer at this place: the inverse of [`Self::place`].
    pub(super) fn peer_at(&self, Place { network, slot }: Place) -> usize {
        let networks = self.networks();
        match self.spread {
            Spread::Single => slot * networks + network,
            Spread::Pairs => (slot / 2 * networks + network) * 2 + slot % 2,
        }
    }

    /// Number of peers in a network.
    pub(super) fn members(&self, network: usize) -> usize {
        let share = |all: usize| (all + self.networks() - 1).saturating_sub(network) / self.networks();
        match self.spread {
            Spread::Single => share(self.peers()),
            Spread::Pairs => share(self.peers() / 2) * 2,
        }
    }
}

/// An id that ends in the number of its peer, so that no table is needed to find the peer.
fn random_id(rng: &mut Rng, number: usize) -> PeerId {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&rng.next().to_be_bytes());
    bytes[8..16].copy_from_slice(&rng.next().to_be_bytes());
    bytes[16..].copy_from_slice(&(number as u32).to_be_bytes());
    PeerId::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_peers_map_to_each_other() {
        for (peers, networks, spread) in [
            (1, 1, Spread::Single),
            (10, 3, Spread::Single),
            (9, 9, Spread::Single),
            (3, 5, Spread::Single),
            (10, 5, Spread::Pairs),
            (14, 3, Spread::Pairs),
            (2, 1, Spread::Pairs),
        ] {
            let plan = Plan::new(peers, networks, spread, 1);
            let mut members = vec![0; networks];
            for peer in 0..peers {
                let place = plan.place(peer);
                assert_eq!(plan.peer_at(place), peer);
                assert!(place.slot < plan.members(place.network), "{peers} in {networks}: {place:?}");
                members[place.network] += 1;
            }
            let counted: Vec<_> = (0..networks).map(|network| plan.members(network)).collect();
            assert_eq!(counted, members);
        }
    }

    #[test]
    fn pairs_share_their_network() {
        let plan = Plan::new(20, 3, Spread::Pairs, 1);
        assert!((0..20).all(|peer| plan.place(peer).network == plan.place(peer ^ 1).network));
    }

    #[test]
    fn ids_follow_from_the_seed_and_contain_the_number_of_their_peer() {
        let plan = Plan::new(300, 1, Spread::Single, 7);
        assert!((0..300).all(|peer| plan.find(&plan.id(peer).to_string()) == Some(peer)));
        assert_eq!(plan.id(5), Plan::new(10, 1, Spread::Single, 7).id(5));
        let other = Plan::new(300, 1, Spread::Single, 8);
        assert_eq!(plan.find(&other.id(5).to_string()), None);
        assert_eq!(plan.find("system"), None);
    }
}
