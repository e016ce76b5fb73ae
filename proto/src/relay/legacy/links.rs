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

/// The legacy links of this hub, and which link each Go peer is behind.
///
/// This type keeps the state and decides. The relay sends, and changes this hub's presence. Methods with a link that
/// return an `Option` return `None` if there is no such link.
#[derive(Debug)]
pub(in crate::relay) struct Legacy {
    links: BTreeMap<LinkId, LegacyLink>,
    /// Links that have ended, each with its peers that have not left yet. They leave in slices.
    ended: BTreeMap<LinkId, BTreeSet<PeerId>>,
    /// The link of each peer: the first one that announced it. A Go hub echoes messages, so an announcement of a known
    /// peer on another link may be an echo. If it counted, the peer would stay after its own link has ended.
    peers: HashMap<PeerId, LinkId, Keys>,
    /// Peers that have left the mesh, and Go peers that have left a network, while there were legacy links. A late
    /// signal of such a peer does not announce it.
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
    /// Whether its queue is above the high-water mark.
    saturated: bool,
    /// Whether nothing has been announced on it yet, so that nothing received can be an echo.
    fresh: bool,
    /// Announcements to send when there is room.
    owed: BTreeSet<(PeerId, NetworkName)>,
    /// The progress of announcing the peers that are older than the link. `None` when all have been announced.
    earlier: Option<Earlier>,
    /// Events that were recently sent to it and have not been echoed yet. If the peer leaves meanwhile, an echo must
    /// not bring it back.
    told: Recent,
    /// Signals between Go peers that the Go hub has recently sent on it.
    said: Recent,
    /// Go peers behind other links whose signals were recently sent on it. A Go hub sends a signal for an unknown
    /// target to all its hubs, including the one it came from.
    passed: Recent,
    /// Announcements of the Go hub for peers with a greater or equal claim.
    waiting: Waiting,
}

/// A position in the presence of all hubs: first that of this hub, then that of each other hub, in ascending order of
/// ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct Position {
    /// The hub whose peers are read. `None` means this hub.
    pub(super) hub: Option<HubId>,
    /// The hub's peers up to this one have been read.
    pub(super) after: Option<PeerId>,
}

/// The progress of a new legacy link in announcing the peers that were connected before it.
///
/// They are read in slices when the link has room, and each is announced in its state at that time.
#[derive(Debug, Default)]
struct Earlier {
    read: Position,
    /// Peers that were announced before their turn.
    done: BTreeSet<PeerId>,
}

/// An open link, for the pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LinkView {
    pub(super) link: LinkId,
    pub(super) hub: HubId,
    /// Number of peers behind it.
    pub(super) peers: usize,
    pub(super) heard_at: Duration,
}

/// The result of queueing an announcement for a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owed {
    /// It was added to an empty queue: ask for room.
    First,
    /// It was added to a queue with others.
    Added,
    /// It was dropped, because the queue of the link is full.
    Dropped,
}

/// The result of putting a Go peer behind a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// It is behind the link.
    Behind,
    /// The link has the maximum number of peers.
    Full,
}

impl Earlier {
    /// Whether the turn of a peer of this hub is still to come.
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

    // --- links ---------------------------------------------------------------------------------------------------

    /// Adds a link. `has_earlier` is true if any peer is already connected. Then ask for room, and
    /// [read](Self::read_earlier) those peers.
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

    /// Removes a link. Its peers leave in slices. Returns false if it is not a legacy link.
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

    /// Whether this is a Go hub at the other end of a link.
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

    /// Records that a message arrived.
    pub(super) fn hear(&mut self, link: LinkId, now: Duration) -> Option<()> {
        self.links.get_mut(&link).map(|open| open.heard_at = now)
    }

    /// Records whether the queue of a link is above its high-water mark.
    pub(super) fn set_saturated(&mut self, link: LinkId, saturated: bool) -> Option<()> {
        self.links.get_mut(&link).map(|open| open.saturated = saturated)
    }

    // --- peers behind links --------------------------------------------------------------------------------------

    /// Whether this peer is behind a legacy link of this hub.
    pub(in crate::relay) fn holds(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// The link that a peer is behind. It may have ended.
    pub(super) fn link_of(&self, peer: &PeerId) -> Option<LinkId> {
        self.peers.get(peer).copied()
    }

    /// Whether a peer is behind this link.
    pub(super) fn has_announced(&self, link: LinkId, peer: &PeerId) -> bool {
        self.peers.get(peer) == Some(&link)
    }

    /// Records that a Go hub has announced a peer in a network, unless `most` others are already behind its link.
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

    /// Number of links that have ended and have peers that have not left yet.
    pub(in crate::relay) fn ended_links(&self) -> usize {
        self.ended.len()
    }

    /// Whether the link of a peer has ended, so that the peer must leave before any decision about it.
    pub(in crate::relay) fn is_leaving(&self, peer: &PeerId) -> bool {
        !self.ended.is_empty() && self.peers.get(peer).is_some_and(|link| !self.links.contains_key(link))
    }

    /// The next peer whose link has ended.
    pub(super) fn next_leaver(&self) -> Option<PeerId> {
        self.ended.values().find_map(|peers| peers.first()).copied()
    }

    // --- announcements to Go hubs --------------------------------------------------------------------------------

    /// The links that announce a change of a peer now. Excluded are links that the peer is behind, and links that have
    /// not yet announced this older peer. `hub` is the other hub that holds it.
    pub(super) fn to_announce(&self, hub: Option<HubId>, peer: &PeerId) -> SmallVec<[LinkId; 4]> {
        let awaits = |open: &LegacyLink| open.earlier.as_ref().is_some_and(|earlier| earlier.awaits(hub, peer));
        let links = self.links.iter().filter(|(link, open)| !awaits(open) && !self.has_announced(**link, peer));
        links.map(|(link, _)| *link).collect()
    }

    /// Adds an announcement to the queue of a link, unless it has `most` entries.
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

    /// Whether a link has queued announcements.
    pub(super) fn has_backlog(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(LegacyLink::has_backlog)
    }

    /// Whether a link has room.
    pub(super) fn has_room(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|open| !open.saturated)
    }

    /// The position from which the next older peer of a link is read. Returns `None` if all have been read, or if the
    /// link must first send its queue, which fills one turn.
    pub(super) fn earlier(&self, link: LinkId) -> Option<Position> {
        let open = self.links.get(&link).filter(|open| open.owed.len() < SNAPSHOT_PEERS)?;
        open.earlier.as_ref().map(|earlier| earlier.read)
    }

    /// Records that an older peer has been read. Returns whether it must be announced now: not if it was announced
    /// before its turn, is behind the link, or is leaving. Also `None` if the link reads no older peers.
    pub(super) fn read_earlier(&mut self, link: LinkId, hub: Option<HubId>, peer: PeerId) -> Option<bool> {
        let is_behind = self.has_announced(link, &peer) || self.is_leaving(&peer);
        let earlier = self.links.get_mut(&link)?.earlier.as_mut()?;
        earlier.read = Position { hub, after: Some(peer) };
        Some(!earlier.done.remove(&peer) && !is_behind)
    }

    /// Records that all older peers of a link have been read.
    pub(super) fn end_earlier(&mut self, link: LinkId) {
        if let Some(open) = self.links.get_mut(&link) {
            open.earlier = None;
        }
    }

    /// Whether an older peer must be announced before its turn. It is then not announced in its turn.
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

    // --- announcements of Go hubs --------------------------------------------------------------------------------

    /// Whether a message echoes an event that was recently sent on that link. Each sent event has one echo. A dialed Go
    /// hub does not echo by itself. An echo from it has passed through another Go hub.
    pub(super) fn is_echo(&mut self, link: LinkId, peer: &PeerId, network: &str, now: Duration) -> bool {
        let hash = self.keys.hash_one((peer, network));
        let is_only_one = self.links.len() == 1;
        self.links.get_mut(&link).is_some_and(|open| open.told.take(hash, now) && !(open.dialed && is_only_one))
    }

    /// Whether a Go hub's announcement of a peer with another claim may be news, because that claim may belong to a
    /// dead hub or connection. Otherwise it echoes an announcement that this hub, or an earlier one, has sent to Go
    /// hubs.
    ///
    /// `is_go_peer` is true if that claim belongs to a peer behind a legacy link of another hub. The peer is no longer
    /// announced on this link, because the Go hub knows it.
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
        // A dialed Go hub echoes nothing.
        Some(if is_go_peer { !is_echo || open.dialed } else { !is_echo && (!is_owed || open.fresh) })
    }

    /// Keeps an announcement until the claim that holds the peer ends. Returns false if there is no room.
    pub(super) fn wait(&mut self, link: LinkId, peer: PeerId, network: &str, data: &str, now: Duration) -> bool {
        let open = self.links.get_mut(&link);
        open.is_some_and(|open| open.waiting.keep(peer, NetworkName::new(network), data, now))
    }

    /// Drops the kept announcements of a link for a peer, in one network or in all. Returns true if there were any.
    pub(super) fn forget_waiting(&mut self, link: LinkId, peer: &PeerId, network: Option<NetworkName>) -> bool {
        self.links.get_mut(&link).is_some_and(|open| open.waiting.forget(peer, network))
    }

    /// Removes and returns the kept announcements of all links for a peer: links, networks and data.
    pub(super) fn take_waiting(&mut self, peer: &PeerId, now: Duration) -> Vec<(LinkId, NetworkName, Box<str>)> {
        let kept = self.links.iter_mut().map(|(&link, open)| (link, open.waiting.take(peer, now)));
        kept.flat_map(|(link, kept)| kept.into_iter().map(move |(network, data)| (link, network, data))).collect()
    }

    /// Records that a peer has left this network. The name "" means the whole mesh.
    pub(super) fn note_left(&mut self, peer: &PeerId, network: &str, now: Duration) {
        if !self.links.is_empty() {
            self.left.note(self.keys.hash_one((peer, network)), now);
        }
    }

    pub(super) fn has_left(&mut self, peer: &PeerId, network: &str, now: Duration) -> bool {
        [network, ""].iter().any(|of| self.left.holds(self.keys.hash_one((peer, of)), now))
    }

    // --- signals -------------------------------------------------------------------------------------------------

    /// Identifies a signal of a Go peer.
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

    /// Whether the Go hub itself has sent this signal on the link, so that it must not be sent back. If not, records
    /// that a signal of its sender is sent on the link.
    pub(super) fn has_said(&mut self, link: LinkId, from: &PeerId, signal: u64, now: Duration) -> Option<bool> {
        let sender = self.keys.hash_one(from);
        let open = self.links.get_mut(&link)?;
        let has_said = open.said.holds(signal, now);
        if !has_said {
            open.passed.note(sender, now);
        }
        Some(has_said)
    }

    /// Whether a signal of this peer was recently sent on the link, so that one received there may be an echo.
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
        ensure(self.ended.values().all(|peers| !peers.is_empty()), || "a link has ended without peers".to_owned())?;
        let behind: usize =
            self.links.values().map(|open| &open.peers).chain(self.ended.values()).map(BTreeSet::len).sum();
        ensure(behind == self.peers.len(), || format!("{behind} peers behind links, {} known", self.peers.len()))
    }
}

#[cfg(test)]
mod tests;
