//! Announcements of Go hubs that cannot count yet, because their peer is held by another claim.
//!
//! That claim may be dead: of a hub that was killed, whose lease runs for another eight seconds, or of a connection that nobody
//! has noticed to be lost. A Go hub does not repeat what it has said once, so it is kept until the claim has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{NetworkName, PeerId};
use crate::limits::{LEGACY_WAIT, MAX_LEGACY_WAITING, MAX_LEGACY_WAITING_BYTES};

/// What one Go hub has said of peers that are held by others, for [`LEGACY_WAIT`].
#[derive(Debug, Default)]
pub(super) struct Waiting {
    words: BTreeMap<(PeerId, NetworkName), Word>,
    /// Bytes of all data.
    bytes: usize,
}

#[derive(Debug)]
struct Word {
    at: Duration,
    data: Box<str>,
}

impl Waiting {
    /// Keeps an announcement. False when there is no room, also not after what has waited for too long has gone.
    pub(super) fn keep(&mut self, peer: PeerId, network: NetworkName, data: &str, now: Duration) -> bool {
        let key = (peer, network);
        self.remove(&key);
        if !self.has_room(data) {
            self.words.retain(|_, word| word.at + LEGACY_WAIT > now);
            self.bytes = self.words.values().map(|word| word.data.len()).sum();
        }
        let has_room = self.has_room(data);
        if has_room {
            self.bytes += data.len();
            self.words.insert(key, Word { at: now, data: data.into() });
        }
        has_room
    }

    fn has_room(&self, data: &str) -> bool {
        self.words.len() < MAX_LEGACY_WAITING && self.bytes + data.len() <= MAX_LEGACY_WAITING_BYTES
    }

    fn remove(&mut self, key: &(PeerId, NetworkName)) -> Option<Word> {
        let word = self.words.remove(key)?;
        self.bytes -= word.data.len();
        Some(word)
    }

    fn networks(&self, peer: &PeerId) -> Vec<NetworkName> {
        let of_peer = self.words.range((*peer, NetworkName::new(""))..).take_while(|((other, _), _)| other == peer);
        of_peer.map(|((_, network), _)| network.clone()).collect()
    }

    /// Takes out what is kept of a peer and has not waited for too long.
    pub(super) fn take(&mut self, peer: &PeerId, now: Duration) -> Vec<(NetworkName, Box<str>)> {
        if self.words.is_empty() {
            return Vec::new();
        }
        let words = self.networks(peer).into_iter().filter_map(|network| {
            let word = self.remove(&(*peer, network.clone()))?;
            (word.at + LEGACY_WAIT > now).then_some((network, word.data))
        });
        words.collect()
    }

    /// Forgets what is kept of a peer, in one network or in all. True if there was something.
    pub(super) fn forget(&mut self, peer: &PeerId, network: Option<NetworkName>) -> bool {
        let networks = network.map_or_else(|| self.networks(peer), |network| vec![network]);
        networks.into_iter().filter(|network| self.remove(&(*peer, network.clone())).is_some()).count() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 20])
    }

    #[test]
    fn it_is_bounded_in_bytes_and_time() {
        let mut waiting = Waiting::default();
        let name = NetworkName::new;
        let half = "x".repeat(MAX_LEGACY_WAITING_BYTES / 2);
        assert!(waiting.keep(peer(1), name("a"), &half, Duration::ZERO));
        assert!(waiting.keep(peer(1), name("a"), &half, Duration::from_secs(1)), "in the place of the first");
        assert!(waiting.keep(peer(2), name("a"), &half, Duration::from_secs(2)));
        assert!(!waiting.keep(peer(3), name("a"), "x", Duration::from_secs(2)));
        let late = LEGACY_WAIT + Duration::from_secs(1);
        assert!(waiting.keep(peer(3), name("a"), "x", late), "the first has waited for too long");
        assert_eq!(waiting.bytes, half.len() + 1);
        assert!(waiting.take(&peer(1), late).is_empty());
        assert_eq!(waiting.take(&peer(2), late + Duration::from_secs(1)), [], "too late");
        assert!(!waiting.forget(&peer(3), Some(name("b"))));
        assert!(waiting.forget(&peer(3), None) && waiting.words.is_empty() && waiting.bytes == 0);
    }

    #[test]
    fn it_is_bounded_in_number() {
        let mut waiting = Waiting::default();
        let mut keeps = |n: usize| {
            let mut bytes = [0; 20];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            waiting.keep(PeerId::from_bytes(bytes), NetworkName::new("n"), "null", Duration::ZERO)
        };
        assert!((0..MAX_LEGACY_WAITING).all(&mut keeps));
        assert!(!keeps(MAX_LEGACY_WAITING) && keeps(1), "what is known is kept anew");
    }
}
