//! Legacy links: to Go hubs, and to anything else that speaks their protocol.
//!
//! To the rest of the mesh, the peers behind a legacy link belong to this hub, with the smallest of all claims: any
//! other hub's claim to an id is greater. Events that the Go protocol does not report, above all leaves, take effect
//! when the link ends.
//!
//! A Go hub announces a peer to another hub only once. Two consequences: peers that are older than the link become
//! known by their first signal, and an announcement that cannot take effect yet is kept ([`waiting`]).

mod recent;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::bug;
use crate::bugs::ensure;
use crate::claim::Claim;
use crate::codec::{self, LegacyMessage};
use crate::envelope::ChangeKind;
use crate::id::{HubId, HubIncarnation, LinkId, NetworkName, PeerId, PeerIncarnation, ShardId};
use crate::isolated::isolated;
use crate::keys::Keys;
use crate::limits::{DEFAULT_MAX_NETWORKS_PER_PEER, SNAPSHOT_BYTES, SNAPSHOT_PEERS};
use crate::reason::{CloseReason, ErrorCode, LeaveReason, Outcome};
use crate::route::Via;
use crate::router::{Announcement, Origin, Sender, SignalLetter, Standing, Stay, ToShard};
use crate::time::Now;
use crate::wire::SignalKind;
use crate::{wire, ws};

use super::directory::LeaveCause;
use super::{HubView, Relay, RelayOutput, Way};
use recent::Recent;
use waiting::Waiting;

/// The session incarnation in claims of peers behind legacy links: less than any clock.
pub(super) const LEGACY_SESSION: PeerIncarnation = PeerIncarnation::LEGACY;

#[derive(Debug)]
pub(super) struct Legacy {
    links: BTreeMap<LinkId, LegacyLink>,
    /// Links that have ended, with those of their peers that have not left yet. They leave in slices.
    ended: BTreeMap<LinkId, BTreeSet<PeerId>>,
    /// The link of each peer: the first that announced it. A Go hub echoes what it is sent, so another link's
    /// announcement of a known peer may be this hub's own, and would keep the peer when its link has ended.
    peers: HashMap<PeerId, LinkId, Keys>,
    /// Peers that have left the mesh, and Go peers that have left a network, while there were legacy links. A late
    /// signal of theirs announces nobody.
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
    /// Whether nothing has been announced on it yet, so that nothing it sends can be an echo.
    fresh: bool,
    /// Announcements to send when there is room.
    owed: BTreeSet<(PeerId, NetworkName)>,
    /// The peers that were there before the link: how far they have been announced. `None` when all have.
    earlier: Option<Earlier>,
    /// Events that were sent to it recently and have not been echoed yet. If the peer leaves meanwhile, an echo must
    /// not bring it back.
    told: Recent,
    /// Signals between Go peers that the Go hub sent on it recently.
    said: Recent,
    /// Go peers behind other links whose signals were sent on it recently. A Go hub sends a signal for an unknown
    /// target to all its hubs, including the one it came from.
    passed: Recent,
    /// Announcements of the Go hub for peers with a greater or equal claim.
    waiting: Waiting,
}

/// Position in the presence of all hubs: first this hub's, then that of each other hub, in ascending order of ids.
///
/// A new legacy link announces all peers that are connected already. They are read in slices as the link has room, each
/// as it is by then.
#[derive(Debug, Default)]
struct Earlier {
    /// The hub whose peers are read. `None`: this hub's.
    hub: Option<HubId>,
    /// Its peers up to this one have been read.
    after: Option<PeerId>,
    /// Peers that were announced before their turn.
    done: BTreeSet<PeerId>,
}

impl Earlier {
    /// Whether the turn of a peer of this hub is still to come.
    fn awaits(&self, hub: Option<HubId>, peer: &PeerId) -> bool {
        (hub, Some(*peer)) > (self.hub, self.after) && !self.done.contains(peer)
    }
}

impl Legacy {
    pub(super) fn new(keys: Keys) -> Self {
        let (links, ended) = (BTreeMap::new(), BTreeMap::new());
        Self { links, ended, peers: HashMap::with_hasher(keys), left: Recent::default(), keys }
    }

    pub(super) fn is_link(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// Whether this peer is behind a legacy link of this hub.
    pub(super) fn holds(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// Removes a peer that is no longer behind a legacy link.
    pub(super) fn forget(&mut self, peer: &PeerId) {
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
    pub(super) fn ended_links(&self) -> usize {
        self.ended.len()
    }

    /// Whether the link of a peer has ended, so that the peer leaves before anything is decided about it.
    pub(super) fn is_leaving(&self, peer: &PeerId) -> bool {
        !self.ended.is_empty() && self.peers.get(peer).is_some_and(|link| !self.links.contains_key(link))
    }

    /// The next peer whose link has ended.
    fn next_leaver(&self) -> Option<PeerId> {
        self.ended.values().find_map(|peers| peers.first()).copied()
    }

    /// Removes a link. Its peers leave in slices.
    fn end(&mut self, link: LinkId) -> bool {
        let Some(ended) = self.links.remove(&link) else { return false };
        if !ended.peers.is_empty() {
            self.ended.insert(link, ended.peers);
        }
        true
    }

    /// Whether links and peers agree on who is behind whom.
    pub(super) fn audit(&self) -> Result<(), String> {
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

    fn has_announced(&self, link: LinkId, peer: &PeerId) -> bool {
        self.peers.get(peer) == Some(&link)
    }

    fn note_told(&mut self, link: LinkId, peer: &PeerId, network: &str, now: Duration) {
        let hash = self.keys.hash_one((peer, network));
        if let Some(open) = self.links.get_mut(&link) {
            open.fresh = false;
            open.told.note(hash, now);
        }
    }

    /// Whether a message echoes an event that was sent to that link recently; once for each time. A dialed Go hub
    /// echoes nothing itself: there, an echo has passed through another Go hub.
    fn is_echo(&mut self, link: LinkId, peer: &PeerId, network: &str, now: Duration) -> bool {
        let hash = self.keys.hash_one((peer, network));
        let is_only_one = self.links.len() == 1;
        self.links.get_mut(&link).is_some_and(|open| open.told.take(hash, now) && !(open.dialed && is_only_one))
    }

    /// Records that a peer has left this network, or with "" the whole mesh.
    fn note_left(&mut self, peer: &PeerId, network: &str, now: Duration) {
        if !self.links.is_empty() {
            self.left.note(self.keys.hash_one((peer, network)), now);
        }
    }

    fn has_left(&mut self, peer: &PeerId, network: &str, now: Duration) -> bool {
        [network, ""].iter().any(|of| self.left.holds(self.keys.hash_one((peer, of)), now))
    }

    fn signal_hash(&self, kind: SignalKind, from: &PeerId, target: &PeerId, network: &str, data: &str) -> u64 {
        self.keys.hash_one((kind as u8, from, target, network, data))
    }
}

impl Relay {
    pub(super) fn legacy_up(&mut self, link: LinkId, hub: HubId, dialed: bool, now: Now) {
        let open = LegacyLink {
            hub,
            dialed,
            peers: BTreeSet::new(),
            heard_at: now.at,
            saturated: false,
            fresh: true,
            owed: BTreeSet::new(),
            earlier: Some(Earlier::default()),
            told: Recent::default(),
            said: Recent::default(),
            passed: Recent::default(),
            waiting: Waiting::default(),
        };
        self.legacy.links.insert(link, open);
        let greeting = if dialed {
            wire::legacy_announce(&self.config.namespace, self.config.advertise.as_deref(), now.wall_ms)
        } else {
            wire::legacy_connected(&hub.0, &self.names.outside(), now.wall_ms)
        };
        self.outputs.push_back(RelayOutput::SendText { link, text: greeting.into() });
        if !self.own.peers.is_empty() || self.hubs.values().any(|remote| !remote.holding.peers.is_empty()) {
            self.outputs.push_back(RelayOutput::Backlog { way: Way::Link(link) });
        } else if let Some(open) = self.legacy.links.get_mut(&link) {
            open.earlier = None;
        }
    }

    pub(super) fn legacy_down(&mut self, link: LinkId, now: Now) {
        if !self.legacy.end(link) {
            return bug!(self.bugs, LegacyLink, "{link:?} ends");
        }
        self.end_legacy_peers(now);
        self.ask_to_continue();
    }

    /// Has peers leave whose legacy link has ended: one slice of them.
    pub(super) fn end_legacy_peers(&mut self, now: Now) {
        let before = self.outputs.len();
        for _ in 0..self.config.tuning.slices.peers {
            let is_full = self.outputs.len() - before >= self.config.tuning.slices.letters;
            let Some(peer) = self.legacy.next_leaver().filter(|_| !is_full) else { break };
            self.leave_legacy(peer, LeaveReason::HubLost, now);
        }
    }

    pub(super) fn leave_legacy(&mut self, peer: PeerId, reason: LeaveReason, now: Now) {
        self.change(peer, LEGACY_SESSION, ChangeKind::Down(reason), now);
        self.legacy.forget(&peer);
    }

    /// Announces a peer to the Go hubs on legacy links, as soon as they have room.
    pub(super) fn tell_legacy(&mut self, announcement: &Announcement) {
        if self.legacy.links.is_empty() {
            return;
        }
        let peer = &announcement.peer;
        let hub = self.directory.holder(peer).map(|claim| claim.hub).filter(|hub| *hub != self.config.hub);
        // An earlier peer whose turn is still to come is announced then, as it is by then.
        let awaits = |open: &LegacyLink| open.earlier.as_ref().is_some_and(|earlier| earlier.awaits(hub, peer));
        let links =
            self.legacy.links.iter().filter(|(link, open)| !awaits(open) && !self.legacy.has_announced(**link, peer));
        let links: SmallVec<[LinkId; 4]> = links.map(|(link, _)| *link).collect();
        for link in links {
            self.owe(link, announcement.peer, announcement.network.clone());
        }
    }

    fn owe(&mut self, link: LinkId, peer: PeerId, network: NetworkName) {
        let Some(open) = self.legacy.links.get_mut(&link) else {
            return bug!(self.bugs, LegacyLink, "{link:?} is owed {peer:?}");
        };
        if open.owed.len() >= self.config.tuning.max_legacy_owed {
            return;
        }
        if open.owed.is_empty() && open.earlier.is_none() {
            self.outputs.push_back(RelayOutput::Backlog { way: Way::Link(link) });
        }
        open.owed.insert((peer, network));
    }

    /// The next peer in the presence of all hubs, in the order of [`Earlier`].
    fn next_earlier(&self, mut hub: Option<HubId>, after: Option<PeerId>) -> Option<(Option<HubId>, PeerId)> {
        let mut from = after.map_or(Bound::Unbounded, Bound::Excluded);
        loop {
            let holding = hub.map_or(Some(&self.own), |hub| self.hubs.get(&hub).map(|remote| &remote.holding));
            if let Some((peer, _)) = holding.and_then(|holding| holding.peers.range((from, Bound::Unbounded)).next()) {
                return Some((hub, *peer));
            }
            let hubs = (hub.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
            hub = Some(*self.hubs.range(hubs).next()?.0);
            from = Bound::Unbounded;
        }
    }

    /// Has a link owe what a peer announced, if the peer is an earlier one whose turn has not come.
    fn owe_earlier(&mut self, link: LinkId, peer: &PeerId) {
        let Some(holder) = self.directory.holder(peer).map(|claim| claim.hub) else { return };
        let hub = Some(holder).filter(|holder| *holder != self.config.hub);
        let earlier = self.legacy.links.get_mut(&link).and_then(|open| open.earlier.as_mut());
        let Some(earlier) = earlier.filter(|earlier| earlier.awaits(hub, peer)) else { return };
        earlier.done.insert(*peer);
        self.owe_all(link, peer);
    }

    fn owe_all(&mut self, link: LinkId, peer: &PeerId) {
        let memberships = self.presence(peer).map_or(&[][..], |presence| &presence.memberships);
        let networks: SmallVec<[NetworkName; 4]> = memberships.iter().map(|a| a.network.clone()).collect();
        for network in networks {
            self.owe(link, *peer, network);
        }
    }

    /// Reads the next earlier peers for a link: as many as one turn announces.
    fn read_earlier(&mut self, link: LinkId) {
        for _ in 0..self.config.tuning.slices.peers {
            let Some(open) = self.legacy.links.get(&link) else { return };
            let Some(earlier) = open.earlier.as_ref().filter(|_| open.owed.len() < SNAPSHOT_PEERS) else { return };
            let next = self.next_earlier(earlier.hub, earlier.after);
            let Some(open) = self.legacy.links.get_mut(&link) else { return };
            let (Some((hub, peer)), Some(earlier)) = (next, &mut open.earlier) else {
                open.earlier = None;
                return;
            };
            (earlier.hub, earlier.after) = (hub, Some(peer));
            // A peer that another hub holds by now is read there, or was announced when it came there.
            let holder = self.directory.holder(&peer).map(|claim| claim.hub);
            let is_held = holder == Some(hub.unwrap_or(self.config.hub));
            let was_done = earlier.done.remove(&peer);
            let is_behind = self.legacy.has_announced(link, &peer) || self.legacy.is_leaving(&peer);
            if is_held && !was_done && !is_behind {
                self.owe_all(link, &peer);
            }
        }
    }

    pub(super) fn legacy_saturated(&mut self, link: LinkId) {
        if let Some(open) = self.legacy.links.get_mut(&link) {
            open.saturated = true;
        } else {
            bug!(self.bugs, LegacyLink, "{link:?} is saturated");
        }
    }

    pub(super) fn legacy_room(&mut self, link: LinkId, now: Now) {
        let Some(open) = self.legacy.links.get_mut(&link) else {
            return bug!(self.bugs, LegacyLink, "{link:?} has room");
        };
        open.saturated = false;
        self.read_earlier(link);
        let (mut told, mut bytes) = (0, 0);
        while told < SNAPSHOT_PEERS
            && bytes < SNAPSHOT_BYTES
            && let Some((peer, network)) = self.legacy.links.get_mut(&link).and_then(|open| open.owed.pop_first())
        {
            told += 1;
            bytes += self.pay(link, &peer, &network, now);
        }
        let has_more = |open: &LegacyLink| !open.owed.is_empty() || open.earlier.is_some();
        if self.legacy.links.get(&link).is_some_and(has_more) {
            self.outputs.push_back(RelayOutput::Backlog { way: Way::Link(link) });
        }
    }

    /// Sends a link the current announcement of a peer. Returns its length in bytes.
    fn pay(&mut self, link: LinkId, peer: &PeerId, network: &NetworkName, now: Now) -> usize {
        self.settle(peer, now);
        // It may have left since.
        let Some(announcement) = self.membership(peer, network).cloned() else { return 0 };
        // A Go hub would announce a bounded peer to all its peers.
        if self.legacy.has_announced(link, peer) || announcement.is_bounded() {
            return 0;
        }
        let data = announcement.discovered.data();
        let text: Box<str> = wire::legacy_discovered(data, network.as_str(), now.wall_ms).into();
        let bytes = text.len();
        self.legacy.note_told(link, peer, network.as_str(), now.at);
        self.outputs.push_back(RelayOutput::SendText { link, text });
        bytes
    }

    /// Sends a signal to a peer behind a legacy link. The protocol does not report whether it arrives.
    pub(super) fn signal_legacy(
        &mut self,
        origin: &Origin,
        from: &PeerId,
        target: &PeerId,
        frame: &[u8],
        now: Now,
    ) -> Outcome {
        let stay = self.membership(from, &origin.network).map(|announcement| announcement.stay.number);
        if !origin.standing.fits(stay, &origin.network) {
            // Its sender has left, and the Go hub would not learn of it before the signal.
            return Outcome::Failed(ErrorCode::Unreachable);
        }
        let link = self.legacy.peers.get(target).copied();
        let (Some(link), Ok(text)) = (link, std::str::from_utf8(ws::payload(frame))) else {
            return Outcome::Failed(ErrorCode::PeerNotFound);
        };
        if self.is_go_peer(from) && self.has_said(link, from, text, now) {
            // The Go hub has delivered the signal itself; the target would get it twice.
            return Outcome::Forwarded;
        }
        self.owe_earlier(link, from);
        while let Some(open) = self.legacy.links.get_mut(&link).filter(|open| !open.owed.is_empty()) {
            if open.saturated {
                break;
            }
            // The target must know the sender before it gets an offer.
            let mut owed = open.owed.range((*from, NetworkName::new(""))..);
            let Some(next) = owed.next().filter(|(peer, _)| peer == from).cloned() else { break };
            open.owed.remove(&next);
            self.pay(link, from, &next.1, now);
        }
        if self.legacy.links.get(&link).is_none_or(|open| open.saturated) {
            return Outcome::Failed(ErrorCode::Unreachable);
        }
        self.outputs.push_back(RelayOutput::SendText { link, text: text.into() });
        Outcome::Forwarded
    }

    /// Whether a peer is behind a legacy link of any hub of the mesh.
    fn is_go_peer(&self, peer: &PeerId) -> bool {
        self.directory.holder(peer).is_some_and(|holder| holder.is_legacy())
    }

    /// Whether a Go peer's signal came from this link: its Go hub has sent it there, and does not need it back. A Go
    /// hub that is linked with several hubs of this mesh sends it to each of them.
    fn has_said(&mut self, link: LinkId, from: &PeerId, text: &str, now: Now) -> bool {
        if self.legacy.has_announced(link, from) {
            return true;
        }
        let hash = match codec::parse_legacy(text) {
            Some(LegacyMessage::Signal { kind, from, target, network, data }) => {
                self.legacy.signal_hash(kind, &from, &target, &network, data)
            }
            _ => return false,
        };
        let sender = self.legacy.keys.hash_one(from);
        let Some(open) = self.legacy.links.get_mut(&link) else {
            bug!(self.bugs, LegacyLink, "{link:?} holds a peer that is signaled");
            return false;
        };
        let said = open.said.holds(hash, now.at);
        if !said {
            open.passed.note(sender, now.at);
        }
        said
    }

    pub(super) fn legacy_said(&mut self, link: LinkId, text: &str, now: Now) {
        let Some(open) = self.legacy.links.get_mut(&link) else {
            return bug!(self.bugs, LegacyLink, "{link:?} sends a message");
        };
        open.heard_at = now.at;
        let Some(message) = isolated(|| codec::parse_legacy(text)).flatten() else {
            self.stats.legacy_refused += 1;
            return;
        };
        match &message {
            LegacyMessage::Discovered { peer, .. }
            | LegacyMessage::Disconnected { peer }
            | LegacyMessage::Goodbye { peer, .. }
            | LegacyMessage::Signal { from: peer, .. } => self.settle(peer, now),
            LegacyMessage::Other => {}
        }
        let taken = match message {
            LegacyMessage::Discovered { peer, network, data } => {
                self.legacy_discovered(link, peer, &network, data, now)
            }
            LegacyMessage::Disconnected { peer } => {
                let waited = self.legacy.links.get_mut(&link).is_some_and(|open| open.waiting.forget(&peer, None));
                let known = self.is_behind(link, &peer);
                if known {
                    self.leave_legacy(peer, LeaveReason::Closed(CloseReason::ConnectionLost), now);
                }
                known || waited
            }
            LegacyMessage::Goodbye { peer, network, data } => self.legacy_goodbye(link, peer, &network, data, now),
            LegacyMessage::Signal { kind, from, target, network, data } => {
                let hash = self.legacy.signal_hash(kind, &from, &target, &network, data);
                if let Some(open) = self.legacy.links.get_mut(&link) {
                    open.said.note(hash, now.at);
                }
                let known = self.may_signal(link, from, &network, now);
                // A Go hub sends it to every hub it is linked with. The hub that holds the sender forwards it.
                if known && self.directory.holder(&from).is_some_and(|holder| holder.hub == self.config.hub) {
                    let mut frame = Vec::new();
                    let range = wire::signal(&mut frame, kind, data, &from, &target, &network, now.wall_ms);
                    let frame = frame[range].into();
                    let sender = Sender::Hub { hub: u32::MAX, counter: 0, receipt: false };
                    let network = NetworkName::new(&network);
                    let stay = self.membership(&from, &network).map(|announcement| announcement.stay.number);
                    let standing = stay.map_or(Standing::Outsider, Standing::Member);
                    let origin = Origin { sender, kind, network, standing, read_at: now.at };
                    self.legacy_signalled(origin, from, target, frame, now);
                }
                known
            }
            LegacyMessage::Other => true,
        };
        self.stats.legacy_refused += u64::from(!taken);
    }

    /// Whether this link may send signals for a peer in this network.
    ///
    /// Peers older than the link have never been announced on it. Therefore a peer's first signal in a network counts
    /// as its announcement there, with empty data, unless the peer belongs to another hub or the signal may be an echo
    /// of this mesh.
    fn may_signal(&mut self, link: LinkId, peer: PeerId, network: &str, now: Now) -> bool {
        let known = self.is_behind(link, &peer);
        if known && self.is_in(&peer, network) {
            return true;
        }
        let sender = self.legacy.keys.hash_one(peer);
        let returned = |open: &mut LegacyLink| open.passed.holds(sender, now.at);
        if self.legacy.has_left(&peer, network, now.at)
            || self.is_a_hub(&peer)
            || self.legacy.links.get_mut(&link).is_none_or(returned)
        {
            return false;
        }
        if !known && let Some(holder) = self.directory.holder(&peer) {
            if holder.is_legacy() && holder.hub != self.config.hub {
                // If that hub is dead, the peer is accepted when its lease expires. Until then the signal has no sender
                // here.
                self.wait_for(link, peer, network, "null", now);
            }
            return false;
        }
        let joined = self.legacy_joins(link, peer, network, "null", now);
        self.stats.legacy_introduced += u64::from(joined);
        joined
    }

    fn is_in(&self, peer: &PeerId, network: &str) -> bool {
        let memberships = self.own.peers.get(peer).map_or(&[][..], |presence| &presence.memberships);
        memberships.iter().any(|announcement| announcement.network.as_str() == network)
    }

    fn is_a_hub(&self, peer: &PeerId) -> bool {
        let hub = HubId(*peer);
        hub == self.config.hub || self.hubs.contains_key(&hub) || self.legacy.links.values().any(|open| open.hub == hub)
    }

    /// Whether this link may speak for a peer: it has announced the peer, and no greater claim exists.
    fn is_behind(&self, link: LinkId, peer: &PeerId) -> bool {
        self.legacy.has_announced(link, peer) && self.directory.holder(peer).is_some_and(|holder| holder.is_legacy())
    }

    fn legacy_discovered(&mut self, link: LinkId, peer: PeerId, network: &str, data: &str, now: Now) -> bool {
        if self.legacy.has_announced(link, &peer) {
            return self.legacy_joins(link, peer, network, data, now);
        }
        let is_echo = self.legacy.is_echo(link, &peer, network, now.at);
        let Some(holder) = self.directory.holder(&peer) else {
            return !is_echo && !self.is_a_hub(&peer) && self.legacy_joins(link, peer, network, data, now);
        };
        if self.legacy.holds(&peer) {
            // Another link of this hub was first.
            return false;
        }
        self.owe_earlier(link, &peer);
        let Some(open) = self.legacy.links.get_mut(&link) else {
            bug!(self.bugs, LegacyLink, "{link:?} announces {peer:?}");
            return false;
        };
        let is_owed = open.owed.remove(&(peer, NetworkName::new(network)));
        // A Go hub's announcement of a known peer may be news: the existing claim may belong to a dead hub or
        // connection. Or it may be an echo of what this hub, or another one earlier, sent to Go hubs.
        let may_be_news = if holder.is_legacy() {
            // A dialed Go hub echoes nothing.
            !is_echo || open.dialed
        } else {
            !is_echo && (!is_owed || open.fresh)
        };
        may_be_news && self.wait_for(link, peer, network, data, now)
    }

    /// Keeps a Go hub's announcement of a peer until the existing claim ends.
    fn wait_for(&mut self, link: LinkId, peer: PeerId, network: &str, data: &str, now: Now) -> bool {
        let fits = codec::check_public(data).is_ok();
        let open = self.legacy.links.get_mut(&link).filter(|_| fits);
        open.is_some_and(|open| open.waiting.keep(peer, NetworkName::new(network), data, now.at))
    }

    /// The claim of a peer has changed. Kept announcements of Go hubs take effect when no claim is left.
    pub(super) fn legacy_reconsiders(&mut self, peer: PeerId, held: [Option<Claim>; 2], cause: &LeaveCause, now: Now) {
        let [before, after] = held;
        if self.legacy.links.is_empty() || before == after {
            return;
        }
        if after.is_none() && !cause.is_hub_lost() {
            self.legacy.note_left(&peer, "", now.at);
        }
        if after < before && after.is_some() {
            return;
        }
        let waiting: Vec<_> = self
            .legacy
            .links
            .iter_mut()
            .flat_map(|(&link, open)| open.waiting.take(&peer, now.at).into_iter().map(move |word| (link, word)))
            .collect();
        // A connection that ended here or at another hub may have been dead for long, and so may a lost hub. But if a
        // hub reports that a Go peer has left, other Go hubs' announcements of that peer are older.
        let counts = after.is_none()
            && (before.is_some_and(|before| !before.is_legacy()) || matches!(cause, LeaveCause::HubGone));
        for (link, (network, data)) in waiting {
            let is_taken = self.legacy.holds(&peer) && !self.legacy.has_announced(link, &peer);
            if counts && !is_taken {
                self.legacy_joins(link, peer, network.as_str(), &data, now);
            }
        }
    }

    /// Adds a peer of the Go hub to a network, or updates its data. False if there is no room.
    fn legacy_joins(&mut self, link: LinkId, peer: PeerId, network: &str, data: &str, now: Now) -> bool {
        let is_its_own = self.legacy.has_announced(link, &peer);
        let Ok(data) = codec::describe(&peer, Some(data)) else { return false };
        let name = NetworkName::new(network);
        let memberships = self.own.peers.get(&peer).map_or(&[][..], |presence| &presence.memberships);
        let at = memberships.binary_search_by(|a| a.network.cmp(&name));
        let known = at.ok().map(|at| memberships[at].discovered.data() == data);
        let Some(open) = self.legacy.links.get_mut(&link) else {
            bug!(self.bugs, LegacyLink, "{peer:?} joins behind {link:?}");
            return false;
        };
        let is_one_more =
            open.peers.len() >= self.config.tuning.max_peers_per_legacy_link && !open.peers.contains(&peer);
        if is_one_more || known.is_none() && memberships.len() >= DEFAULT_MAX_NETWORKS_PER_PEER {
            return false;
        }
        open.peers.insert(peer);
        open.owed.remove(&(peer, name.clone()));
        self.legacy.peers.insert(peer, link);
        let claim = Claim { incarnation: LEGACY_SESSION, hub: self.config.hub };
        if known == Some(true) {
            // A repetition: nobody is notified twice.
            return true;
        }
        let discovered = Arc::new(wire::peer_discovered(&data, PeerIncarnation::LEGACY, network, now.wall_ms));
        let announcement =
            Arc::new(Announcement { peer, network: name, claim, remote: true, stay: Stay::default(), discovered });
        if !is_its_own {
            self.change(peer, LEGACY_SESSION, ChangeKind::Up, now);
        }
        self.change(peer, LEGACY_SESSION, ChangeKind::Joined(announcement), now);
        true
    }

    /// A Go peer has left a network. Without a name, which the Go hub writes as `global`, it has left all networks.
    fn legacy_goodbye(&mut self, link: LinkId, peer: PeerId, network: &str, data: &str, now: Now) -> bool {
        if codec::check_public(data).is_err() {
            return false;
        }
        let all = network == NetworkName::GLOBAL && !self.is_in(&peer, network);
        let waited = self
            .legacy
            .links
            .get_mut(&link)
            .is_some_and(|open| open.waiting.forget(&peer, (!all).then(|| NetworkName::new(network))));
        if !self.is_behind(link, &peer) {
            return waited;
        }
        let memberships = self.own.peers.get(&peer).map_or(&[][..], |presence| &presence.memberships);
        let names = memberships.iter().map(|announcement| announcement.network.clone());
        let names: Vec<NetworkName> = names.filter(|name| all || name.as_str() == network).collect();
        for name in names {
            let frame = Arc::new(wire::goodbye(&peer, data, name.as_str(), now.wall_ms));
            self.legacy.note_left(&peer, name.as_str(), now.at);
            self.change(peer, LEGACY_SESSION, ChangeKind::Left { network: name, frame }, now);
        }
        true
    }

    fn legacy_signalled(&mut self, origin: Origin, from: PeerId, target: PeerId, frame: Box<[u8]>, now: Now) {
        if self.own.peers.contains_key(&target) && !self.legacy.holds(&target) {
            let home = ShardId::home(&target, self.config.shards, self.config.keys);
            self.post(home, ToShard::Signal(SignalLetter { origin, from, target, frame }));
        } else {
            self.signalled(origin, from, target, frame, now);
        }
    }

    pub(super) fn legacy_hubs(&self, now: Now) -> impl Iterator<Item = HubView> {
        self.legacy.links.iter().map(move |(&link, legacy)| HubView {
            hub: legacy.hub,
            incarnation: HubIncarnation::default(),
            live: true,
            draining: false,
            route: Some(Via::Link(link)),
            link: Some(link),
            bridged: false,
            legacy: true,
            peers: legacy.peers.len(),
            seq: 0,
            lag: 0,
            heard: now.at.saturating_sub(legacy.heard_at),
            advertise: None,
            public_url: None,
        })
    }
}
