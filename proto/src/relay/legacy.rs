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
use crate::limits::{DEFAULT_MAX_NETWORKS_PER_PEER, LEGACY_ECHO, MAX_LEGACY_ECHOES, MAX_PEERS_PER_LEGACY_LINK};
use crate::reason::{CloseReason, ErrorCode, LeaveReason, Outcome};
use crate::router::{Announcement, Letter, Origin, Sender};
use crate::time::Now;
use crate::{wire, ws};

use super::{HubView, Relay, RelayOutput};

/// The session by which peers behind a legacy link are claimed: less than any clock says.
pub(super) const LEGACY_SESSION: PeerIncarnation = PeerIncarnation(1);

#[derive(Debug)]
pub(super) struct Legacy {
    links: BTreeMap<LinkId, LegacyLink>,
    /// The links over which each peer is announced; signals take the first.
    peers: HashMap<PeerId, SmallVec<[LinkId; 1]>, Keys>,
    /// What came a moment ago. A Go hub that is linked both ways says everything twice.
    echoes: VecDeque<(Duration, u64, LinkId)>,
    keys: Keys,
}

#[derive(Debug)]
struct LegacyLink {
    hub: HubId,
    peers: BTreeSet<PeerId>,
    heard_at: Duration,
}

impl Legacy {
    pub(super) fn new(keys: Keys) -> Self {
        Self { links: BTreeMap::new(), peers: HashMap::with_hasher(keys), echoes: VecDeque::new(), keys }
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
        for link in self.peers.remove(peer).unwrap_or_default() {
            if let Some(link) = self.links.get_mut(&link) {
                link.peers.remove(peer);
            }
        }
    }

    fn is_echo(&mut self, link: LinkId, message: &LegacyMessage<'_>, now: Duration) -> bool {
        let LegacyMessage::Signal { kind, from, target, network, data } = message else { return false };
        if self.links.len() < 2 {
            return false;
        }
        let hash = self.keys.hash_one((kind, from, target, network, data));
        while self.echoes.front().is_some_and(|(at, ..)| *at + LEGACY_ECHO <= now)
            || self.echoes.len() >= MAX_LEGACY_ECHOES
        {
            self.echoes.pop_front();
        }
        match self.echoes.iter().position(|(_, known, other)| *known == hash && *other != link) {
            Some(at) => {
                self.echoes.remove(at);
                true
            }
            None => {
                self.echoes.push_back((now, hash, link));
                false
            }
        }
    }
}

impl Relay {
    pub(super) fn legacy_up(&mut self, link: LinkId, hub: HubId, dialed: bool, now: Now) {
        self.legacy.links.insert(link, LegacyLink { hub, peers: BTreeSet::new(), heard_at: now.at });
        let own = self.config.hub;
        let greeting = if dialed {
            wire::legacy_announce(&self.config.namespace, self.config.advertise.as_deref(), now.wall_ms)
        } else {
            wire::legacy_connected(&hub.0, &own, now.wall_ms)
        };
        self.outputs.push_back(RelayOutput::SendText { link, text: greeting.into() });
        let held = std::iter::once((own, &self.own)).chain(self.hubs.iter().map(|(&hub, r)| (hub, &r.holding)));
        let mut texts = Vec::new();
        for (hub, holding) in held {
            for presence in holding.peers.values() {
                if self.directory.holder(&presence.peer).is_some_and(|claim| claim.hub == hub) {
                    texts.extend(presence.memberships.iter().map(|a| discovered(a, now)));
                }
            }
        }
        self.outputs.extend(texts.into_iter().map(|text| RelayOutput::SendText { link, text }));
    }

    pub(super) fn legacy_down(&mut self, link: LinkId, now: Now) {
        let Some(ended) = self.legacy.links.remove(&link) else { return };
        for peer in ended.peers {
            self.leave_legacy(link, peer, LeaveReason::HubLost, now);
        }
    }

    fn leave_legacy(&mut self, link: LinkId, peer: PeerId, reason: LeaveReason, now: Now) {
        let Some(links) = self.legacy.peers.get_mut(&peer) else { return };
        links.retain(|other| *other != link);
        if links.is_empty() {
            self.change(peer, LEGACY_SESSION, What::Down(reason), now);
            self.legacy.peers.remove(&peer);
        }
    }

    /// Tells the hubs behind legacy links of a peer that has announced itself elsewhere.
    pub(super) fn tell_legacy(&mut self, announcement: &Announcement, now: Now) {
        if self.legacy.links.is_empty() {
            return;
        }
        let behind = self.legacy.peers.get(&announcement.peer).cloned().unwrap_or_default();
        for &link in self.legacy.links.keys().filter(|link| !behind.contains(link)) {
            let text = discovered(announcement, now);
            self.outputs.push_back(RelayOutput::SendText { link, text });
        }
    }

    /// Passes a signal to a peer behind a legacy link. Whether it arrives, that protocol does not say.
    pub(super) fn signal_legacy(&mut self, target: &PeerId, frame: &[u8]) -> Outcome {
        let link = self.legacy.peers.get(target).and_then(|links| links.first()).copied();
        match (link, std::str::from_utf8(ws::payload(frame))) {
            (Some(link), Ok(text)) => {
                self.outputs.push_back(RelayOutput::SendText { link, text: text.into() });
                Outcome::Delivered
            }
            _ => Outcome::Failed(ErrorCode::PeerNotFound),
        }
    }

    pub(super) fn legacy_said(&mut self, link: LinkId, text: &str, now: Now) {
        let Some(open) = self.legacy.links.get_mut(&link) else { return };
        open.heard_at = now.at;
        let Some(message) = codec::parse_legacy(text) else {
            self.stats.legacy_refused += 1;
            return;
        };
        if self.legacy.is_echo(link, &message, now.at) {
            return;
        }
        let taken = match message {
            LegacyMessage::Discovered { peer, network, data } => {
                self.legacy_discovered(link, peer, &network, data, now)
            }
            LegacyMessage::Disconnected { peer } => {
                let known = self.is_behind(link, &peer);
                if known {
                    if let Some(open) = self.legacy.links.get_mut(&link) {
                        open.peers.remove(&peer);
                    }
                    self.leave_legacy(link, peer, LeaveReason::Closed(CloseReason::ConnectionLost), now);
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
        let announced = self.legacy.peers.get(peer).is_some_and(|links| links.contains(&link));
        let own = Claim { incarnation: LEGACY_SESSION, hub: self.config.hub };
        announced && self.directory.holder(peer).is_some_and(|holder| holder.incarnation <= own.incarnation)
    }

    fn legacy_discovered(&mut self, link: LinkId, peer: PeerId, network: &str, data: &str, now: Now) -> bool {
        let holder = self.directory.holder(&peer);
        if holder.is_some_and(|holder| holder.incarnation > LEGACY_SESSION) {
            // An echo of what this hub has said itself, or an id that is another's.
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
        let links = self.legacy.peers.entry(peer).or_default();
        let is_new = links.is_empty();
        if !links.contains(&link) {
            links.push(link);
        }
        let claim = Claim { incarnation: LEGACY_SESSION, hub: self.config.hub };
        if known == Some(true) {
            // Said over two links to one hub, or said again: nobody is told twice.
            return true;
        }
        let discovered = Arc::new(wire::peer_discovered(&data, network, now.wall_ms));
        let announcement = Arc::new(Announcement { peer, network: name, claim, remote: true, discovered });
        if is_new {
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

fn discovered(announcement: &Announcement, now: Now) -> Box<str> {
    wire::legacy_discovered(announcement.discovered.data(), announcement.network.as_str(), now.wall_ms).into()
}
