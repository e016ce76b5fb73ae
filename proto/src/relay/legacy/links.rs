//! The legacy links of this hub, and the peers behind each of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::time::Duration;

use smallvec::SmallVec;

use crate::bugs::ensure;
use crate::id::{HubId, LinkId, NetworkName, PeerId};
use crate::keys::Keys;
use crate::limits::SNAPSHOT_PEERS;
use crate::wire::SignalKind;

use super::recent::Recent;
use super::waiting::Waiting;

/// The legacy links of this hub, and the link through which each peer of a Go hub is reached.
///
/// This type stores the state of legacy links and makes the decisions. The relay sends messages and changes this hub's
/// presence. Methods that take a link and return an `Option` return `None` if there is no such link.
#[derive(Debug)]
pub(in crate::relay) struct Legacy {
    links: BTreeMap<LinkId, LegacyLink>,
    /// Links that have ended, each with its peers that have not left yet. These peers leave in slices.
    ended: BTreeMap<LinkId, BTreeSet<PeerId>>,
    /// The link of each peer is the first link that announced the peer. An announcement of the same peer on another
    /// link may be an echo, because Go hubs echo messages. If an echo counted, the peer would stay after its own link
    /// has ended.
    peers: HashMap<PeerId, LinkId, Keys>,
    /// Peers that have recently left the mesh, and Go peers that have recently left a network. A late signal of such a
    /// peer does not announce the peer again.
    left: Recent,
    keys: Keys,
}

#[derive(Debug)]
struct LegacyLink {
    hub: HubId,
    /// Whether this hub dialed.
    dialed: bool,
    peers: BTreeSet<PeerId>,
    heard_at: Duration,
    /// Whether the link's queue is above the high-water mark.
    saturated: bool,
    /// Whether this hub has announced nothing on the link yet. Before the first announcement of this hub, no message
    /// that arrives on the link can be an echo.
    fresh: bool,
    /// Announcements to send when there is room.
    owed: BTreeSet<(PeerId, NetworkName)>,
    /// The progress of announcing the peers that were connected before the link. `None` when all these peers have been
    /// read.
    earlier: Option<Earlier>,
    /// Announcements that were recently sent on the link and have not been echoed yet. This hub remembers these
    /// announcements, so that it does not take an echo for a new announcement after the peer has left.
    told: Recent,
    /// Signals that the Go hub has recently sent on this link.
    said: Recent,
    /// Go peers behind other links whose signals were recently sent on this link. A Go hub sends a signal with an
    /// unknown target to all its hubs, including the hub from which the signal arrived. So a signal of such a peer on
    /// this link may be an echo.
    passed: Recent,
    /// Announcements of the Go hub for peers to which a greater or equal claim exists.
    waiting: Waiting,
}

/// A position in the presence of all hubs. The presence of this hub is first, and the presences of other hubs follow in
/// ascending order of hub ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct Position {
    /// The hub whose peers are read. `None` means this hub.
    pub(super) hub: Option<HubId>,
    /// The last peer of the hub that has been read.
    pub(super) after: Option<PeerId>,
}

/// The progress of a new legacy link in announcing the peers that were connected before it.
///
/// These peers are read in slices when the link has room. Each peer is announced with the data that it has at that
/// time.
#[derive(Debug, Default)]
struct Earlier {
    read: Position,
    /// Peers that were announced before their turn.
    done: BTreeSet<PeerId>,
}

/// The state of an open legacy link, as the pages of this hub show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LinkView {
    pub(super) link: LinkId,
    pub(super) hub: HubId,
    /// Number of peers behind the link.
    pub(super) peers: usize,
    pub(super) heard_at: Duration,
}

/// The result of queueing an announcement for a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owed {
    /// The announcement was added to an empty queue. The caller then puts out `Backlog` for the link.
    First,
    /// The announcement was added to a queue with other announcements.
    Added,
    /// The announcement was dropped, because the queue of the link is full.
    Dropped,
}

/// The result of recording a Go peer at a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// The peer is recorded at the link.
    Behind,
    /// The link has the maximum number of peers.
    Full,
}

impl Earlier {
    /// Whether a peer in the presence of `hub` has not been announced yet. `None` means this hub.
    fn awaits(&self, hub: Option<HubId>, peer: &PeerId) -> bool {
        Position { hub, after: Some(*peer) } > self.read && !self.done.contains(peer)
    }
}

impl LegacyLink {
    fn has_backlog(&self) -> bool {
        !self.owed.is_empty() || self.earlier.is_some()
    }
}

impl Legacy {
    pub(in crate::relay) fn new(keys: Keys) -> Self {
        let (links, ended) = (BTreeMap::new(), BTreeMap::new());
        Self { links, ended, peers: HashMap::with_hasher(keys), left: Recent::default(), keys }
    }

    // --- links ---

    /// Adds a link. `has_earlier` is true if any peer is already connected. The caller then puts out `Backlog` for the
    /// link, and [reads](Self::read_earlier) these peers when the link has room.
    pub(super) fn open(&mut self, link: LinkId, hub: HubId, dialed: bool, has_earlier: bool, now: Duration) {
        let open = LegacyLink {
            hub,
            dialed,
            peers: BTreeSet::new(),
            heard_at: now,
            saturated: false,
            fresh: true,
            owed: BTreeSet::new(),
            earlier: has_earlier.then(Earlier::default),
            told: Recent::default(),
            said: Recent::default(),
            passed: Recent::default(),
            waiting: Waiting::default(),
        };
        self.links.insert(link, open);
    }

    /// Removes a link, whose peers then leave in slices. Returns false if there is no such legacy link.
    pub(super) fn end(&mut self, link: LinkId) -> bool {
        let Some(ended) = self.links.remove(&link) else { return false };
        if !ended.peers.is_empty() {
            self.ended.insert(link, ended.peers);
        }
        true
    }

    pub(in crate::relay) fn is_link(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// Whether there is no open link.
    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Whether this id belongs to a Go hub at the other end of a link.
    pub(super) fn is_hub(&self, hub: HubId) -> bool {
        self.links.values().any(|open| open.hub == hub)
    }

    pub(super) fn views(&self) -> impl Iterator<Item = LinkView> {
        let view = |(&link, open): (&LinkId, &LegacyLink)| LinkView {
            link,
            hub: open.hub,
            peers: open.peers.len(),
            heard_at: open.heard_at,
        };
        self.links.iter().map(view)
    }

    /// Records that a message arrived on a link.
    pub(super) fn hear(&mut self, link: LinkId, now: Duration) -> Option<()> {
        self.links.get_mut(&link).map(|open| open.heard_at = now)
    }

    /// Records whether the queue of a link is above its high-water mark.
    pub(super) fn set_saturated(&mut self, link: LinkId, saturated: bool) -> Option<()> {
        self.links.get_mut(&link).map(|open| open.saturated = saturated)
    }

    // --- peers behind links ---

    /// Whether this peer is behind a legacy link of this hub.
    pub(in crate::relay) fn holds(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// The link through which a peer is reached. The link may have ended.
    pub(super) fn link_of(&self, peer: &PeerId) -> Option<LinkId> {
        self.peers.get(peer).copied()
    }

    /// Whether a peer is recorded at this link.
    pub(super) fn has_announced(&self, link: LinkId, peer: &PeerId) -> bool {
        self.peers.get(peer) == Some(&link)
    }

    /// Records that a Go hub has announced a peer in a network. Returns [`Entry::Full`] if `most` other peers are
    /// already recorded at its link.
    pub(super) fn enter(&mut self, link: LinkId, peer: PeerId, network: &NetworkName, most: usize) -> Option<Entry> {
        let open = self.links.get_mut(&link)?;
        if open.peers.len() >= most && !open.peers.contains(&peer) {
            return Some(Entry::Full);
        }
        open.peers.insert(peer);
        open.owed.remove(&(peer, network.clone()));
        self.peers.insert(peer, link);
        Some(Entry::Behind)
    }

    /// Removes a peer that is no longer behind a legacy link.
    pub(in crate::relay) fn forget(&mut self, peer: &PeerId) {
        // Most peers are not behind a legacy link.
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

    /// Number of ended links with peers that have not left yet.
    pub(in crate::relay) fn ended_links(&self) -> usize {
        self.ended.len()
    }

    /// Whether the link of a peer has ended. Such a peer must leave before the relay decides anything about it.
    pub(in crate::relay) fn is_leaving(&self, peer: &PeerId) -> bool {
        !self.ended.is_empty() && self.peers.get(peer).is_some_and(|link| !self.links.contains_key(link))
    }

    /// The next peer that must leave because its link has ended.
    pub(super) fn next_leaver(&self) -> Option<PeerId> {
        self.ended.values().find_map(|peers| peers.first()).copied()
    }

    // --- announcements to Go hubs ---

    /// The links on which a change of a peer is announced now. The peer's own link is excluded. A link on which the
    /// peer is announced later in its turn is also excluded. `hub` is the hub to which the peer is connected. `None`
    /// means this hub.
    pub(super) fn to_announce(&self, hub: Option<HubId>, peer: &PeerId) -> SmallVec<[LinkId; 4]> {
        let awaits = |open: &LegacyLink| open.earlier.as_ref().is_some_and(|earlier| earlier.awaits(hub, peer));
        let links = self.links.iter().filter(|(link, open)| !awaits(open) && !self.has_announced(**link, peer));
        links.map(|(link, _)| *link).collect()
    }

    /// Adds an announcement to the queue of a link. If the queue has `most` entries, the announcement is dropped.
    pub(super) fn owe(&mut self, link: LinkId, peer: PeerId, network: NetworkName, most: usize) -> Option<Owed> {
        let open = self.links.get_mut(&link)?;
        if open.owed.len() >= most {
            return Some(Owed::Dropped);
        }
        let owed = if open.has_backlog() { Owed::Added } else { Owed::First };
        open.owed.insert((peer, network));
        Some(owed)
    }

    /// Removes and returns the next announcement in the queue of a link.
    pub(super) fn next_owed(&mut self, link: LinkId) -> Option<(PeerId, NetworkName)> {
        self.links.get_mut(&link)?.owed.pop_first()
    }

    /// Removes and returns this peer's next announcement in the queue of a link, if the link has room.
    pub(super) fn next_owed_of(&mut self, link: LinkId, peer: &PeerId) -> Option<NetworkName> {
        let open = self.links.get_mut(&link).filter(|open| !open.saturated)?;
        let next = open.owed.range((*peer, NetworkName::new(""))..).next().filter(|(owed, _)| owed == peer).cloned()?;
        open.owed.remove(&next);
        Some(next.1)
    }

    /// Whether a link has queued announcements, or peers that were connected before it and have not been read.
    pub(super) fn has_backlog(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(LegacyLink::has_backlog)
    }

    /// Whether a link has room.
    pub(super) fn has_room(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|open| !open.saturated)
    }

    /// The position of the last peer that was read for the link, among the peers that were connected before the link.
    /// Returns `None` if all such peers have been read, or if the link must first send its queue, which fills one turn.
    pub(super) fn earlier(&self, link: LinkId) -> Option<Position> {
        let open = self.links.get(&link).filter(|open| open.owed.len() < SNAPSHOT_PEERS)?;
        open.earlier.as_ref().map(|earlier| earlier.read)
    }

    /// Records that a peer that was connected before the link has been read. Returns whether the peer must be announced
    /// now. The peer must not be announced if [`Self::hasten`] has already announced it, or if this link leads to the
    /// peer. A leaving peer must not be announced either. Returns `None` if the link is unknown, or if all such peers
    /// have been read already.
    pub(super) fn read_earlier(&mut self, link: LinkId, hub: Option<HubId>, peer: PeerId) -> Option<bool> {
        let is_behind = self.has_announced(link, &peer) || self.is_leaving(&peer);
        let earlier = self.links.get_mut(&link)?.earlier.as_mut()?;
        earlier.read = Position { hub, after: Some(peer) };
        Some(!earlier.done.remove(&peer) && !is_behind)
    }

    /// Records that all peers that were connected before the link have been read.
    pub(super) fn end_earlier(&mut self, link: LinkId) {
        if let Some(open) = self.links.get_mut(&link) {
            open.earlier = None;
        }
    }

    /// Decides whether a peer that was connected before the link must be announced now, because it has not been read
    /// yet. If this function returns true, the peer is not announced again when it is read.
    pub(super) fn hasten(&mut self, link: LinkId, hub: Option<HubId>, peer: &PeerId) -> bool {
        let earlier = self.links.get_mut(&link).and_then(|open| open.earlier.as_mut());
        earlier.is_some_and(|earlier| earlier.awaits(hub, peer) && earlier.done.insert(*peer))
    }

    /// Records that a peer was announced on a link.
    pub(super) fn note_told(&mut self, link: LinkId, peer: &PeerId, network: &str, now: Duration) -> Option<()> {
        let hash = self.keys.hash_one((peer, network));
        let open = self.links.get_mut(&link)?;
        open.fresh = false;
        open.told.note(hash, now);
        Some(())
    }

    // --- announcements of Go hubs ---

    /// Whether a message echoes an announcement that was recently sent on the same link. An announcement has at most
    /// one echo on a link. A Go hub that this hub dialed does not echo by itself. An echo from it has passed through
    /// another Go hub, so a dialed Go hub with the only legacy link sends no echo.
    pub(super) fn is_echo(&mut self, link: LinkId, peer: &PeerId, network: &str, now: Duration) -> bool {
        let hash = self.keys.hash_one((peer, network));
        let is_only_one = self.links.len() == 1;
        self.links.get_mut(&link).is_some_and(|open| open.told.take(hash, now) && !(open.dialed && is_only_one))
    }

    /// Whether a Go hub's announcement of a peer with another claim may be new information. The announcement may be new
    /// because the other claim may belong to a dead hub or connection. Returns false if the announcement is an echo of
    /// an announcement that a hub of this mesh has sent to Go hubs.
    ///
    /// `is_go_peer` is true if the other claim belongs to a peer behind a legacy link of another hub. The queued
    /// announcement of the peer on this link is removed, because the Go hub knows the peer already.
    pub(super) fn may_be_news(
        &mut self,
        link: LinkId,
        peer: PeerId,
        network: &str,
        is_echo: bool,
        is_go_peer: bool,
    ) -> Option<bool> {
        let open = self.links.get_mut(&link)?;
        let is_owed = open.owed.remove(&(peer, NetworkName::new(network)));
        // A Go hub that this hub dialed does not echo by itself.
        Some(if is_go_peer { !is_echo || open.dialed } else { !is_echo && (!is_owed || open.fresh) })
    }

    /// Stores an announcement of a peer until the existing claim to the peer ends. Returns false if there is no room.
    pub(super) fn wait(&mut self, link: LinkId, peer: PeerId, network: &str, data: &str, now: Duration) -> bool {
        let open = self.links.get_mut(&link);
        open.is_some_and(|open| open.waiting.keep(peer, NetworkName::new(network), data, now))
    }

    /// Drops the stored announcements of a link for a peer, in one network or in all networks. Returns true if there
    /// were any.
    pub(super) fn forget_waiting(&mut self, link: LinkId, peer: &PeerId, network: Option<NetworkName>) -> bool {
        self.links.get_mut(&link).is_some_and(|open| open.waiting.forget(peer, network))
    }

    /// Removes and returns the stored announcements of a peer on all links, each with its link, network and data.
    pub(super) fn take_waiting(&mut self, peer: &PeerId, now: Duration) -> Vec<(LinkId, NetworkName, Box<str>)> {
        let kept = self.links.iter_mut().map(|(&link, open)| (link, open.waiting.take(peer, now)));
        kept.flat_map(|(link, kept)| kept.into_iter().map(move |(network, data)| (link, network, data))).collect()
    }

    /// Records that a peer has left a network. The name "" stands for the whole mesh.
    pub(super) fn note_left(&mut self, peer: &PeerId, network: &str, now: Duration) {
        if !self.links.is_empty() {
            self.left.note(self.keys.hash_one((peer, network)), now);
        }
    }

    pub(super) fn has_left(&mut self, peer: &PeerId, network: &str, now: Duration) -> bool {
        [network, ""].iter().any(|of| self.left.holds(self.keys.hash_one((peer, of)), now))
    }

    // --- signals ---

    /// A hash that identifies a signal of a Go peer.
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

    /// Records a signal that a Go hub has sent on a link.
    pub(super) fn note_said(&mut self, link: LinkId, signal: u64, now: Duration) {
        if let Some(open) = self.links.get_mut(&link) {
            open.said.note(signal, now);
        }
    }

    /// Whether the Go hub itself has sent this signal on the link, so that the signal must not be sent back. If the Go
    /// hub has not sent the signal, records that a signal of this sender is sent on the link.
    pub(super) fn has_said(&mut self, link: LinkId, from: &PeerId, signal: u64, now: Duration) -> Option<bool> {
        let sender = self.keys.hash_one(from);
        let open = self.links.get_mut(&link)?;
        let has_said = open.said.holds(signal, now);
        if !has_said {
            open.passed.note(sender, now);
        }
        Some(has_said)
    }

    /// Whether a signal of this peer was recently sent on the link. A signal of the same peer that arrives on the link
    /// may then be an echo.
    pub(super) fn has_passed(&mut self, link: LinkId, from: &PeerId, now: Duration) -> bool {
        let sender = self.keys.hash_one(from);
        self.links.get_mut(&link).is_some_and(|open| open.passed.holds(sender, now))
    }

    /// Checks that the records of links and of peers agree.
    pub(in crate::relay) fn audit(&self) -> Result<(), String> {
        for (peer, link) in &self.peers {
            let open = self.links.get(link).map(|open| &open.peers);
            let behind = open.or_else(|| self.ended.get(link)).is_some_and(|peers| peers.contains(peer));
            ensure(behind, || format!("{peer:?} is not behind {link:?}"))?;
        }
        ensure(self.ended.values().all(|peers| !peers.is_empty()), || {
            "an ended link without peers was not removed".to_owned()
        })?;
        let behind: usize =
            self.links.values().map(|open| &open.peers).chain(self.ended.values()).map(BTreeSet::len).sum();
        ensure(behind == self.peers.len(), || {
            format!("{behind} peers are behind links, but {} peers are recorded", self.peers.len())
        })
    }
}

#[cfg(test)]
mod tests;
