//! Announcements of Go hubs that cannot take effect yet, because another claim to the peer exists.
//!
//! The other claim may be outdated. For example, the hub with the other claim was killed, and its lease has not expired
//! yet. Or the peer's connection was lost, and the hub with the other claim has not noticed the loss yet. A Go hub does
//! not repeat an announcement, so this hub stores the announcement until the other claim ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{NetworkName, PeerId};
use crate::limits::{DEFAULT_MAX_NETWORKS_PER_PEER, LEGACY_WAIT, MAX_LEGACY_WAITING, MAX_LEGACY_WAITING_BYTES};

/// Announcements of one Go hub for peers to which other claims exist. Each announcement is stored for [`LEGACY_WAIT`].
#[derive(Debug, Default)]
pub(super) struct Waiting {
    words: BTreeMap<(PeerId, NetworkName), Word>,
    /// The keys of `words`, the oldest first.
    by_age: BTreeSet<(Duration, PeerId, NetworkName)>,
    /// Size of all network names and data, in bytes.
    bytes: usize,
}

#[derive(Debug)]
struct Word {
    at: Duration,
    data: Box<str>,
}

impl Waiting {
    /// Removes expired announcements, and stores a new one. Returns false if there is no room.
    pub(super) fn keep(&mut self, peer: PeerId, network: NetworkName, data: &str, now: Duration) -> bool {
        self.expire(now);
        let key = (peer, network);
        self.remove(&key);
        let bytes = size(&key.1, data);
        let has_room = self.words.len() < MAX_LEGACY_WAITING
            && self.bytes + bytes <= MAX_LEGACY_WAITING_BYTES
            && self.networks(&peer).len() < DEFAULT_MAX_NETWORKS_PER_PEER;
        if has_room {
            self.bytes += bytes;
            self.by_age.insert((now, peer, key.1.clone()));
            self.words.insert(key, Word { at: now, data: data.into() });
        }
        has_room
    }

    /// Removes expired entries. Of the entries that have not expired, only the oldest is examined.
    fn expire(&mut self, now: Duration) {
        while let Some((at, ..)) = self.by_age.first()
            && *at + LEGACY_WAIT <= now
        {
            if let Some((_, peer, network)) = self.by_age.pop_first() {
                self.remove(&(peer, network));
            }
        }
    }

    fn remove(&mut self, key: &(PeerId, NetworkName)) -> Option<Word> {
        let word = self.words.remove(key)?;
        self.bytes -= size(&key.1, &word.data);
        self.by_age.remove(&(word.at, key.0, key.1.clone()));
        Some(word)
    }

    fn networks(&self, peer: &PeerId) -> Vec<NetworkName> {
        let of_peer = self.words.range((*peer, NetworkName::new(""))..).take_while(|((other, _), _)| other == peer);
        of_peer.map(|((_, network), _)| network.clone()).collect()
    }

    /// Removes and returns the unexpired announcements of a peer.
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

    /// Removes the announcements of a peer, in one network or in all networks. Returns true if there were any.
    pub(super) fn forget(&mut self, peer: &PeerId, network: Option<NetworkName>) -> bool {
        let networks = network.map_or_else(|| self.networks(peer), |network| vec![network]);
        networks.into_iter().filter(|network| self.remove(&(*peer, network.clone())).is_some()).count() > 0
    }
}

fn size(network: &NetworkName, data: &str) -> usize {
    network.as_str().len() + data.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 20])
    }

    #[test]
    fn waiting_announcements_are_bounded_in_bytes_and_time() {
        let mut waiting = Waiting::default();
        let name = NetworkName::new;
        let half = "x".repeat(MAX_LEGACY_WAITING_BYTES / 2 - "a".len());
        assert!(waiting.keep(peer(1), name("a"), &half, Duration::ZERO));
        assert!(
            waiting.keep(peer(1), name("a"), &half, Duration::from_secs(1)),
            "the repeated announcement replaces the first"
        );
        assert!(waiting.keep(peer(2), name("a"), &half, Duration::from_secs(2)));
        assert!(!waiting.keep(peer(3), name("a"), "x", Duration::from_secs(2)));
        let late = LEGACY_WAIT + Duration::from_secs(1);
        assert!(waiting.keep(peer(3), name("a"), "x", late), "the first announcement has expired");
        assert_eq!(waiting.bytes, size(&name("a"), &half) + size(&name("a"), "x"));
        assert!(waiting.take(&peer(1), late).is_empty());
        assert_eq!(waiting.take(&peer(2), late + Duration::from_secs(1)), [], "the announcement has expired");
        assert!(!waiting.forget(&peer(3), Some(name("b"))));
        assert!(waiting.forget(&peer(3), None) && is_empty(&waiting));
    }

    fn is_empty(waiting: &Waiting) -> bool {
        waiting.words.is_empty() && waiting.by_age.is_empty() && waiting.bytes == 0
    }

    #[test]
    fn waiting_announcements_are_bounded_in_number() {
        let mut waiting = Waiting::default();
        let peer = |n: usize| {
            let mut bytes = [0; 20];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            PeerId::from_bytes(bytes)
        };
        let millis = |n: usize| Duration::from_millis(n as u64);
        let mut keeps = |n: usize, now| waiting.keep(peer(n), NetworkName::new("n"), "null", now);
        assert!((0..MAX_LEGACY_WAITING).all(|n| keeps(n, millis(n))));
        // The next loop would take very long if each call of `keep` examined all entries instead of only the oldest.
        let full = millis(MAX_LEGACY_WAITING);
        assert!((0..MAX_LEGACY_WAITING).all(|n| !keeps(MAX_LEGACY_WAITING + n, full)));
        assert!(keeps(1, full), "a known announcement is replaced");
        let late = LEGACY_WAIT + millis(2);
        let kept = (0..4).map(|n| keeps(MAX_LEGACY_WAITING + n, late)).collect::<Vec<_>>();
        assert_eq!(kept, [true, true, false, false], "the expired announcements 0 and 2 make room");
        assert_eq!((waiting.words.len(), waiting.by_age.len()), (MAX_LEGACY_WAITING, MAX_LEGACY_WAITING));
        waiting.expire(Duration::MAX - LEGACY_WAIT);
        assert!(is_empty(&waiting));
    }

    #[test]
    fn network_names_count_as_bytes_and_their_number_per_peer_is_bounded() {
        let mut waiting = Waiting::default();
        let mut bytes = 0;
        for n in 0..DEFAULT_MAX_NETWORKS_PER_PEER {
            let name = format!("{n:0256}");
            assert!(waiting.keep(peer(1), NetworkName::new(&name), "{}", Duration::ZERO));
            bytes += 258;
            assert_eq!(waiting.bytes, bytes);
        }
        assert!(!waiting.keep(peer(1), NetworkName::new("one more"), "{}", Duration::ZERO));
        assert!(
            waiting.keep(peer(1), NetworkName::new(&format!("{:0256}", 0)), "{}", Duration::ZERO),
            "a repeated announcement needs no more room"
        );
        assert!(
            waiting.keep(peer(2), NetworkName::new("one more"), "{}", Duration::ZERO),
            "another peer has its own bound"
        );
        assert_eq!(waiting.take(&peer(1), Duration::ZERO).len(), DEFAULT_MAX_NETWORKS_PER_PEER);
        assert!(waiting.forget(&peer(2), None) && is_empty(&waiting));
    }
}
