//! Secret keys for hashes of values that clients choose.

use std::hash::{BuildHasher, Hash, Hasher};

use siphasher::sip::SipHasher13;

use crate::id::{PeerId, ShardId};

/// The secret keys with which the hub hashes values that clients choose. The keys are two arbitrary numbers. Hash maps,
/// [`ShardId::home`], payloads of pings and random draws use the keys.
///
/// The caller draws the keys once per process from the system's random numbers. The relay and all shards must have
/// the same keys. With different keys, the threads of a hub would disagree about the home shards of peers, and letters
/// would be lost. The keys never leave the process.
#[derive(Clone, Copy)]
pub struct Keys(
    /// Key of maps and of home shards.
    pub u64,
    /// Key of maps. The hash for home shards uses the complement of this key, so that a peer's place in a map does not
    /// depend on its home shard.
    pub u64,
);

impl std::fmt::Debug for Keys {
    /// Prints no secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl BuildHasher for Keys {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

impl ShardId {
    /// The home shard of a peer in a hub with `shards` shards. 0 counts as 1.
    ///
    /// The hash is keyed because clients choose their ids. Without a key, clients could put many peers on one core.
    pub fn home(peer: &PeerId, shards: u16, keys: Keys) -> Self {
        if shards <= 1 {
            return Self(0);
        }
        let mut hasher = SipHasher13::new_with_keys(keys.0, !keys.1);
        peer.hash(&mut hasher);
        Self((hasher.finish() % u64::from(shards)) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_spread_and_depend_on_the_keys() {
        let peers = || (0..4000u32).map(|n| PeerId::from_bytes([0; 20]).shifted(n.into()));
        let mut counts = [0; 4];
        for peer in peers() {
            counts[usize::from(ShardId::home(&peer, 4, Keys(1, 2)).0)] += 1;
        }
        assert!(counts.iter().all(|&n| n > 800), "{counts:?}");
        let moved = peers().filter(|p| ShardId::home(p, 4, Keys(1, 2)) != ShardId::home(p, 4, Keys(1, 3))).count();
        assert!(moved > 2000, "{moved}");
        assert!(peers().all(|peer| ShardId::home(&peer, 1, Keys(1, 2)) == ShardId(0)));
    }

    #[test]
    fn keys_are_not_printed() {
        assert_eq!(format!("{:?}", Keys(12345, 67890)), "Keys");
    }
}
