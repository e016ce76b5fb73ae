//! Messages to a Go hub on a legacy link: announcements, as the link has room, and signals.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::ops::Bound;

use smallvec::SmallVec;

use crate::bug;
use crate::codec::{self, LegacyMessage};
use crate::id::{HubId, LinkId, NetworkName, PeerId};
use crate::limits::{SNAPSHOT_BYTES, SNAPSHOT_PEERS};
use crate::reason::{ErrorCode, Outcome};
use crate::router::{Announcement, Origin};
use crate::time::Now;
use crate::{wire, ws};

use super::super::{Relay, RelayOutput, Way};
use super::links::{Earlier, LegacyLink};
use super::recent::Recent;
use super::waiting::Waiting;

impl Relay {
    pub(in crate::relay) fn legacy_up(&mut self, link: LinkId, hub: HubId, dialed: bool, now: Now) {
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

    /// Announces a peer to the Go hubs on legacy links, as soon as they have room.
    pub(in crate::relay) fn tell_legacy(&mut self, announcement: &Announcement) {
        if self.legacy.links.is_empty() {
            return;
        }
        let peer = &announcement.peer;
        let hub = self.directory.holder(peer).map(|claim| claim.hub).filter(|hub| *hub != self.config.hub);
        // An earlier peer whose turn is still to come is announced in its turn, with its state at that time.
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

    /// Adds a peer's announcements to those that a link must still send, if the peer is an earlier one whose turn has
    /// not come.
    pub(super) fn owe_earlier(&mut self, link: LinkId, peer: &PeerId) {
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
            // A peer that another hub holds now is announced in that hub's turn, or was announced when it moved there.
            let holder = self.directory.holder(&peer).map(|claim| claim.hub);
            let is_held = holder == Some(hub.unwrap_or(self.config.hub));
            let was_done = earlier.done.remove(&peer);
            let is_behind = self.legacy.has_announced(link, &peer) || self.legacy.is_leaving(&peer);
            if is_held && !was_done && !is_behind {
                self.owe_all(link, &peer);
            }
        }
    }

    pub(in crate::relay) fn legacy_saturated(&mut self, link: LinkId) {
        if let Some(open) = self.legacy.links.get_mut(&link) {
            open.saturated = true;
        } else {
            bug!(self.bugs, LegacyLink, "{link:?} is saturated");
        }
    }

    pub(in crate::relay) fn legacy_room(&mut self, link: LinkId, now: Now) {
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
    pub(in crate::relay) fn signal_legacy(
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
}
