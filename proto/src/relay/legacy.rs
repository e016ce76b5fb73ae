//! Links of the seed's kind: to Go hubs, and to whatever else speaks as one (protocol: part A, "hub to hub").
//!
//! To the rest of the mesh the peers behind such a link are this hub's own, by the least of all claims: what any other hub
//! says of an id is worth more. What the protocol cannot say, leaves above all, ends with the link.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::codec::{self, LegacyMessage};
use crate::envelope::What;
use crate::id::{Claim, HubId, HubIncarnation, Keys, LinkId, NetworkName, PeerId, PeerIncarnation, ShardId, Via};
use crate::limits::{
    DEFAULT_MAX_NETWORKS_PER_PEER, LEGACY_ECHO, MAX_LEGACY_ECHOES, MAX_LEGACY_OWED, MAX_PEERS_PER_LEGACY_LINK,
    SNAPSHOT_BYTES, SNAPSHOT_PEERS,
};
use crate::reason::{CloseReason, ErrorCode, LeaveReason, Outcome};
use crate::router::{Announcement, Letter, Origin, Sender, Stay};
use crate::time::Now;
use crate::{wire, ws};

use super::{HubView, Relay, RelayOutput, Way};

/// The session by which peers behind a legacy link are claimed: less than any clock says.
pub(super) const LEGACY_SESSION: PeerIncarnation = PeerIncarnation::LEGACY;

#[derive(Debug)]
pub(super) struct Legacy {
    links: BTreeMap<LinkId, LegacyLink>,
    /// The link that each peer is behind: the first that announced it. A Go hub repeats what it is told, so another link's
    /// word for a peer that is here may be this hub's own come back, and would keep the peer when its link has ended.
    peers: HashMap<PeerId, LinkId, Keys>,
    keys: Keys,
}

#[derive(Debug)]
struct LegacyLink {
    hub: HubId,
    peers: BTreeSet<PeerId>,
    heard_at: Duration,
    /// More waits for it than is good.
    saturated: bool,
    /// What it is to be told when there is room.
    owed: BTreeSet<(PeerId, NetworkName)>,
    /// What it was told a moment ago and has not repeated yet. If the peer leaves meanwhile, it is not to come back that way.
    told: VecDeque<(Duration, u64)>,
}

impl Legacy {
    pub(super) fn new(keys: Keys) -> Self {
        Self { links: BTreeMap::new(), peers: HashMap::with_hasher(keys), keys }
    }

    pub(super) fn is_link(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// Whether this peer is behind a legacy link of this hub.
    pub(super) fn holds(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// This peer is no longer taken for one that is behind a legacy link.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        if let Some(link) = self.peers.remove(peer).and_then(|link| self.links.get_mut(&link)) {
            link.peers.remove(peer);
        }
    }

    fn has_announced(&self, link: LinkId, peer: &PeerId) -> bool {
        self.peers.get(peer) == Some(&link)
    }

    fn note_told(&mut self, link: LinkId, peer: &PeerId, network: &str, now: Duration) {
        let hash = self.keys.hash_one((peer, network));
        let Some(open) = self.links.get_mut(&link) else { return };
        if open.told.len() >= MAX_LEGACY_ECHOES {
            open.told.pop_front();
        }
        open.told.push_back((now, hash));
    }

    /// Whether what is said repeats what that link was told a moment ago; once for each time.
    fn is_echo(&mut self, link: LinkId, peer: &PeerId, network: &str, now: Duration) -> bool {
        let hash = self.keys.hash_one((peer, network));
        let Some(open) = self.links.get_mut(&link) else { return false };
        while open.told.pop_front_if(|(at, _)| *at + LEGACY_ECHO <= now).is_some() {}
        let at = open.told.iter().position(|(_, told)| *told == hash);
        at.and_then(|at| open.told.remove(at)).is_some()
    }
}

impl Relay {
    pub(super) fn legacy_up(&mut self, link: LinkId, hub: HubId, dialed: bool, now: Now) {
        let (peers, owed, told) = (BTreeSet::new(), BTreeSet::new(), VecDeque::new());
        let open = LegacyLink { hub, peers, heard_at: now.at, saturated: false, owed, told };
        self.legacy.links.insert(link, open);
        let own = self.config.hub;
        let greeting = if dialed {
            wire::legacy_announce(&self.config.namespace, self.config.advertise.as_deref(), now.wall_ms)
        } else {
            wire::legacy_connected(&hub.0, &own, now.wall_ms)
        };
        self.outputs.push_back(RelayOutput::SendText { link, text: greeting.into() });
        let held = std::iter::once((own, &self.own)).chain(self.hubs.iter().map(|(&hub, r)| (hub, &r.holding)));
        let mut owed = Vec::new();
        for (hub, holding) in held {
            for presence in holding.peers.values() {
                if self.directory.holder(&presence.peer).is_some_and(|claim| claim.hub == hub) {
                    owed.extend(presence.memberships.iter().map(|a| (a.peer, a.network.clone())));
                }
            }
        }
        for (peer, network) in owed {
            self.owe(link, peer, network);
        }
    }

    pub(super) fn legacy_down(&mut self, link: LinkId, now: Now) {
        let Some(ended) = self.legacy.links.remove(&link) else { return };
        for peer in ended.peers {
            self.leave_legacy(peer, LeaveReason::HubLost, now);
        }
    }

    fn leave_legacy(&mut self, peer: PeerId, reason: LeaveReason, now: Now) {
        self.change(peer, LEGACY_SESSION, What::Down(reason), now);
        self.legacy.forget(&peer);
    }

    /// Tells the hubs behind legacy links, as soon as they take it, of a peer that has announced itself elsewhere.
    pub(super) fn tell_legacy(&mut self, announcement: &Announcement) {
        let links: SmallVec<[LinkId; 4]> = self.legacy.links.keys().copied().collect();
        for link in links {
            self.owe(link, announcement.peer, announcement.network.clone());
        }
    }

    fn owe(&mut self, link: LinkId, peer: PeerId, network: NetworkName) {
        let Some(open) = self.legacy.links.get_mut(&link) else { return };
        if open.owed.len() >= MAX_LEGACY_OWED {
            return;
        }
        if open.owed.is_empty() {
            self.outputs.push_back(RelayOutput::Backlog { way: Way::Link(link) });
        }
        open.owed.insert((peer, network));
    }

    pub(super) fn legacy_saturated(&mut self, link: LinkId) {
        if let Some(open) = self.legacy.links.get_mut(&link) {
            open.saturated = true;
        }
    }

    pub(super) fn legacy_room(&mut self, link: LinkId, now: Now) {
        let Some(open) = self.legacy.links.get_mut(&link) else { return };
        open.saturated = false;
        let (mut told, mut bytes) = (0, 0);
        while told < SNAPSHOT_PEERS
            && bytes < SNAPSHOT_BYTES
            && let Some((peer, network)) = self.legacy.links.get_mut(&link).and_then(|open| open.owed.pop_first())
        {
            told += 1;
            bytes += self.pay(link, &peer, &network, now);
        }
        if self.legacy.links.get(&link).is_some_and(|open| !open.owed.is_empty()) {
            self.outputs.push_back(RelayOutput::Backlog { way: Way::Link(link) });
        }
    }

    /// Tells a link of a peer what holds now. Returns the bytes of it.
    fn pay(&mut self, link: LinkId, peer: &PeerId, network: &NetworkName, now: Now) -> usize {
        let Some(holder) = self.directory.holder(peer) else { return 0 };
        let own = (holder.hub == self.config.hub).then_some(&self.own);
        let holding = own.or_else(|| self.hubs.get(&holder.hub).map(|remote| &remote.holding));
        let Some(presence) = holding.and_then(|holding| holding.peers.get(peer)) else { return 0 };
        let at = presence.memberships.binary_search_by(|a| a.network.cmp(network));
        let Some(announcement) = at.ok().map(|at| &presence.memberships[at]) else { return 0 };
        // A Go hub would tell all its peers of one that is to be known to some.
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

    /// Passes a signal to a peer behind a legacy link. Whether it arrives, that protocol does not say.
    pub(super) fn signal_legacy(&mut self, from: &PeerId, target: &PeerId, frame: &[u8], now: Now) -> Outcome {
        let link = self.legacy.peers.get(target).copied();
        let (Some(link), Ok(text)) = (link, std::str::from_utf8(ws::payload(frame))) else {
            return Outcome::Failed(ErrorCode::PeerNotFound);
        };
        while let Some(open) = self.legacy.links.get_mut(&link).filter(|open| !open.owed.is_empty()) {
            if open.saturated {
                break;
            }
            // Who gets an offer has to have heard of its sender.
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

    pub(super) fn legacy_said(&mut self, link: LinkId, text: &str, now: Now) {
        let Some(open) = self.legacy.links.get_mut(&link) else { return };
        open.heard_at = now.at;
        let Some(message) = codec::parse_legacy(text) else {
            self.stats.legacy_refused += 1;
            return;
        };
        let taken = match message {
            LegacyMessage::Discovered { peer, network, data } => {
                self.legacy_discovered(link, peer, &network, data, now)
            }
            LegacyMessage::Disconnected { peer } => {
                let known = self.is_behind(link, &peer);
                if known {
                    self.leave_legacy(peer, LeaveReason::Closed(CloseReason::ConnectionLost), now);
                }
                known
            }
            LegacyMessage::Goodbye { peer, network, data } => self.legacy_goodbye(link, peer, &network, data, now),
            LegacyMessage::Signal { kind, from, target, network, data } => {
                let known = self.is_behind(link, &from);
                // A Go hub says it to every hub that it is linked to. Of ours the one that holds the sender passes it on.
                if known && self.directory.holder(&from).is_some_and(|holder| holder.hub == self.config.hub) {
                    let mut frame = Vec::new();
                    let range = wire::signal(&mut frame, kind, data, &from, &target, &network, now.wall_ms);
                    let frame = frame[range].into();
                    let sender = Sender::Hub { hub: u32::MAX, counter: 0, receipt: false };
                    let origin = Origin { sender, kind, network: NetworkName::new(&network), read_at: now.at };
                    self.legacy_signalled(origin, from, target, frame, now);
                }
                known
            }
            LegacyMessage::Other => true,
        };
        self.stats.legacy_refused += u64::from(!taken);
    }

    /// Whether this link may speak for a peer: it has announced it, and nobody's word for it is worth more.
    fn is_behind(&self, link: LinkId, peer: &PeerId) -> bool {
        self.legacy.has_announced(link, peer)
            && self.directory.holder(peer).is_some_and(|holder| holder.incarnation <= LEGACY_SESSION)
    }

    fn legacy_discovered(&mut self, link: LinkId, peer: PeerId, network: &str, data: &str, now: Now) -> bool {
        let is_its_own = self.legacy.has_announced(link, &peer);
        let is_here = self.directory.holder(&peer).is_some();
        if !is_its_own && (self.legacy.is_echo(link, &peer, network, now.at) || is_here) {
            return false;
        }
        let Ok(data) = codec::describe(&peer, Some(data)) else { return false };
        let name = NetworkName::new(network);
        let memberships = self.own.peers.get(&peer).map_or(&[][..], |presence| &presence.memberships);
        let at = memberships.binary_search_by(|a| a.network.cmp(&name));
        let known = at.ok().map(|at| memberships[at].discovered.data() == data);
        let Some(open) = self.legacy.links.get_mut(&link) else { return false };
        let is_one_more = open.peers.len() >= MAX_PEERS_PER_LEGACY_LINK && !open.peers.contains(&peer);
        if is_one_more || known.is_none() && memberships.len() >= DEFAULT_MAX_NETWORKS_PER_PEER {
            return false;
        }
        open.peers.insert(peer);
        self.legacy.peers.insert(peer, link);
        let claim = Claim { incarnation: LEGACY_SESSION, hub: self.config.hub };
        if known == Some(true) {
            // Said again: nobody is told twice.
            return true;
        }
        let discovered = Arc::new(wire::peer_discovered(&data, network, now.wall_ms));
        let announcement =
            Arc::new(Announcement { peer, network: name, claim, remote: true, stay: Stay::default(), discovered });
        if !is_its_own {
            self.change(peer, LEGACY_SESSION, What::Up, now);
        }
        self.change(peer, LEGACY_SESSION, What::Joined(announcement), now);
        true
    }

    fn legacy_goodbye(&mut self, link: LinkId, peer: PeerId, network: &str, data: &str, now: Now) -> bool {
        if !self.is_behind(link, &peer) || codec::check_public(data).is_err() {
            return false;
        }
        let frame = Arc::new(wire::goodbye(&peer, data, network, now.wall_ms));
        let what = What::Left { network: NetworkName::new(network), frame };
        self.change(peer, LEGACY_SESSION, what, now);
        true
    }

    fn legacy_signalled(&mut self, origin: Origin, from: PeerId, target: PeerId, frame: Box<[u8]>, now: Now) {
        if self.own.peers.contains_key(&target) && !self.legacy.holds(&target) {
            let home = ShardId::home(&target, self.config.shards, self.config.keys);
            self.post(home, Letter::Signal { origin, from, target, frame });
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
