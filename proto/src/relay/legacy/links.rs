//! The legacy links of this hub, and the peers behind each of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::time::Duration;

use crate::bugs::ensure;
use crate::id::{HubId, LinkId, NetworkName, PeerId};
use crate::keys::Keys;
use crate::wire::SignalKind;

use super::recent::Recent;
use super::waiting::Waiting;

#[derive(Debug)]
pub(in crate::relay) struct Legacy {
    pub(super) links: BTreeMap<LinkId, LegacyLink>,
    /// Links that have ended, with those of their peers that have not left yet. They leave in slices.
    ended: BTreeMap<LinkId, BTreeSet<PeerId>>,
    /// The link of each peer: the first that announced it. A Go hub echoes what it is sent, so another link's
    /// announcement of a known peer may be this hub's own, and would keep the peer when its link has ended.
    pub(super) peers: HashMap<PeerId, LinkId, Keys>,
    /// Peers that have left the mesh, and Go peers that have left a network, while there were legacy links. A late
    /// signal of these peers announces no peer.
    left: Recent,
    pub(super) keys: Keys,
}

#[derive(Debug)]
pub(super) struct LegacyLink {
    pub(super) hub: HubId,
    /// Whether this hub dialed.
    pub(super) dialed: bool,
    pub(super) peers: BTreeSet<PeerId>,
    pub(super) heard_at: Duration,
    /// Whether its queue is above the high-water mark.
    pub(super) saturated: bool,
    /// Whether nothing has been announced on it yet, so that nothing it sends can be an echo.
    pub(super) fresh: bool,
    /// Announcements to send when there is room.
    pub(super) owed: BTreeSet<(PeerId, NetworkName)>,
    /// The peers that were there before the link: how far they have been announced. `None` when all have.
    pub(super) earlier: Option<Earlier>,
    /// Events that were sent to it recently and have not been echoed yet. If the peer leaves meanwhile, an echo must
    /// not bring it back.
    pub(super) told: Recent,
    /// Signals between Go peers that the Go hub sent on it recently.
    pub(super) said: Recent,
    /// Go peers behind other links whose signals were sent on it recently. A Go hub sends a signal for an unknown
    /// target to all its hubs, including the one it came from.
    pub(super) passed: Recent,
    /// Announcements of the Go hub for peers with a greater or equal claim.
    pub(super) waiting: Waiting,
}

/// Position in the presence of all hubs: first this hub's, then that of each other hub, in ascending order of ids.
///
/// A new legacy link announces all peers that are connected already. They are read in slices as the link has room, each
/// as it is by then.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    /// The hub whose peers are read. `None`: this hub's.
    pub(super) hub: Option<HubId>,
    /// Its peers up to this one have been read.
    pub(super) after: Option<PeerId>,
    /// Peers that were announced before their turn.
    pub(super) done: BTreeSet<PeerId>,
}

impl Earlier {
    /// Whether the turn of a peer of this hub is still to come.
    pub(super) fn awaits(&self, hub: Option<HubId>, peer: &PeerId) -> bool {
        (hub, Some(*peer)) > (self.hub, self.after) && !self.done.contains(peer)
    }
}

impl Legacy {
    pub(in crate::relay) fn new(keys: Keys) -> Self {
        let (links, ended) = (BTreeMap::new(), BTreeMap::new());
        Self { links, ended, peers: HashMap::with_hasher(keys), left: Recent::default(), keys }
    }

    pub(in crate::relay) fn is_link(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// Whether this peer is behind a legacy link of this hub.
    pub(in crate::relay) fn holds(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// Removes a peer that is no longer behind a legacy link.
    pub(in crate::relay) fn forget(&mut self, peer: &PeerId) {
        let Some(link) = self.peers.remove(peer) else { return };
        if let Some(open) = self.links.get_mut(&link) {
            open.peers.remove(peer);
        } else if let Some(left) = self.ended.get_mut(&link) {
            left.remove(peer);
            if left.is_empty() {
                self.ended.remove(&link);
            }
        }
    }

    /// Number of links that have ended and have peers that have not left yet.
    pub(in crate::relay) fn ended_links(&self) -> usize {
        self.ended.len()
    }

    /// Whether the link of a peer has ended, so that the peer leaves before anything is decided about it.
    pub(in crate::relay) fn is_leaving(&self, peer: &PeerId) -> bool {
        !self.ended.is_empty() && self.peers.get(peer).is_some_and(|link| !self.links.contains_key(link))
    }

    /// The next peer whose link has ended.
    pub(super) fn next_leaver(&self) -> Option<PeerId> {
        self.ended.values().find_map(|peers| peers.first()).copied()
    }

    /// Removes a link. Its peers leave in slices.
    pub(super) fn end(&mut self, link: LinkId) -> bool {
        let Some(ended) = self.links.remove(&link) else { return false };
        if !ended.peers.is_empty() {
            self.ended.insert(link, ended.peers);
        }
        true
    }

    /// Whether the records of links and of peers agree.
    pub(in crate::relay) fn audit(&self) -> Result<(), String> {
        for (peer, link) in &self.peers {
            let open = self.links.get(link).map(|open| &open.peers);
            let behind = open.or_else(|| self.ended.get(link)).is_some_and(|peers| peers.contains(peer));
            ensure(behind, || format!("{peer:?} is not behind {link:?}"))?;
        }
        ensure(self.ended.values().all(|peers| !peers.is_empty()), || "a link has ended without peers".to_owned())?;
        let behind: usize =
            self.links.values().map(|open| &open.peers).chain(self.ended.values()).map(BTreeSet::len).sum();
        ensure(behind == self.peers.len(), || format!("{behind} peers behind links, {} known", self.peers.len()))
    }

    pub(super) fn has_announced(&self, link: LinkId, peer: &PeerId) -> bool {
        self.peers.get(peer) == Some(&link)
    }

    pub(super) fn note_told(&mut self, link: LinkId, peer: &PeerId, network: &str, now: Duration) {
        let hash = self.keys.hash_one((peer, network));
        if let Some(open) = self.links.get_mut(&link) {
            open.fresh = false;
            open.told.note(hash, now);
        }
    }

    /// Whether a message echoes an event that was sent to that link recently; once for each time. A dialed Go hub sends
    /// no echoes of its own: an echo from it has passed through another Go hub.
    pub(super) fn is_echo(&mut self, link: LinkId, peer: &PeerId, network: &str, now: Duration) -> bool {
        let hash = self.keys.hash_one((peer, network));
        let is_only_one = self.links.len() == 1;
        self.links.get_mut(&link).is_some_and(|open| open.told.take(hash, now) && !(open.dialed && is_only_one))
    }

    /// Records that a peer has left this network, or with "" the whole mesh.
    pub(super) fn note_left(&mut self, peer: &PeerId, network: &str, now: Duration) {
        if !self.links.is_empty() {
            self.left.note(self.keys.hash_one((peer, network)), now);
        }
    }

    pub(super) fn has_left(&mut self, peer: &PeerId, network: &str, now: Duration) -> bool {
        [network, ""].iter().any(|of| self.left.holds(self.keys.hash_one((peer, of)), now))
    }

    pub(super) fn signal_hash(
        &self,
        kind: SignalKind,
        from: &PeerId,
        target: &PeerId,
        network: &str,
        data: &str,
    ) -> u64 {
        self.keys.hash_one((kind as u8, from, target, network, data))
    }
}
