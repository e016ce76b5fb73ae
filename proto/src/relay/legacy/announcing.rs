//! Sends messages to a Go hub on a legacy link. The messages are a greeting, announcements and signals. Announcements
//! are sent when the link has room.

use std::ops::Bound;

use smallvec::SmallVec;

use crate::bug;
use crate::codec::{self, LegacyMessage};
use crate::id::{HubId, LinkId, NetworkName, PeerId};
use crate::limits::{SNAPSHOT_BYTES, SNAPSHOT_PEERS};
use crate::reason::{ErrorCode, Outcome};
use crate::router::{Announcement, Origin};
use crate::time::Now;
use crate::wire::SignalKind;
use crate::{wire, ws};

use super::super::{Relay, RelayOutput, Transport};
use super::links::{Owed, Position};

impl Relay {
    pub(in crate::relay) fn legacy_up(&mut self, link: LinkId, hub: HubId, dialed: bool, now: Now) {
        let has_earlier =
            !self.own.peers.is_empty() || self.hubs.values().any(|remote| !remote.holding.peers.is_empty());
        self.legacy.open(link, hub, dialed, has_earlier, now.at);
        let greeting = if dialed {
            wire::legacy_announce(&self.config.namespace, self.config.advertise.as_deref(), now.wall_ms)
        } else {
            wire::legacy_connected(&hub.0, &self.names.outside(), now.wall_ms)
        };
        self.outputs.push_back(RelayOutput::SendText { link, text: greeting.into() });
        if has_earlier {
            self.outputs.push_back(RelayOutput::Backlog { transport: Transport::Link(link) });
        }
    }

    /// Queues the announcement of a peer on legacy links. Each link sends the announcement when it has room.
    pub(in crate::relay) fn tell_legacy(&mut self, announcement: &Announcement) {
        if self.legacy.is_empty() {
            return;
        }
        let hub = self.other_holder(&announcement.peer);
        for link in self.legacy.to_announce(hub, &announcement.peer) {
            self.owe(link, announcement.peer, announcement.network.clone());
        }
    }

    /// The hub with the winning claim to a peer. Returns `None` if this hub has the winning claim, or if no hub claims
    /// the peer.
    fn other_holder(&self, peer: &PeerId) -> Option<HubId> {
        self.directory.holder(peer).map(|claim| claim.hub).filter(|hub| *hub != self.config.hub)
    }

    fn owe(&mut self, link: LinkId, peer: PeerId, network: NetworkName) {
        match self.legacy.owe(link, peer, network, self.config.tuning.max_legacy_owed) {
            Some(Owed::First) => self.outputs.push_back(RelayOutput::Backlog { transport: Transport::Link(link) }),
            Some(Owed::Added | Owed::Dropped) => {}
            None => bug!(self.bugs, LegacyLink, "{link:?} has yet to announce {peer:?}"),
        }
    }

    /// The next peer after a position in the presence of all hubs, and the hub that has this peer in its presence. For
    /// this hub, the returned hub is `None`.
    fn next_earlier(&self, Position { mut hub, after }: Position) -> Option<(Option<HubId>, PeerId)> {
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

    /// Queues the announcements of a peer that was connected before the link. So the peer does not have to wait until
    /// [`Self::read_earlier`] reaches it. Does nothing if the peer has already been announced on the link.
    pub(super) fn owe_earlier(&mut self, link: LinkId, peer: &PeerId) {
        // A peer that is connected to no hub has nothing to announce.
        if self.directory.holder(peer).is_some() && self.legacy.hasten(link, self.other_holder(peer), peer) {
            self.owe_all(link, peer);
        }
    }

    fn owe_all(&mut self, link: LinkId, peer: &PeerId) {
        let memberships = self.presence(peer).map_or(&[][..], |presence| &presence.memberships);
        let networks: SmallVec<[NetworkName; 4]> = memberships.iter().map(|a| a.network.clone()).collect();
        for network in networks {
            self.owe(link, *peer, network);
        }
    }

    /// Reads the next peers that were connected before the link, and queues their announcements. Reads at most one
    /// slice of peers, and stops when the queued announcements fill one turn.
    fn read_earlier(&mut self, link: LinkId) {
        for _ in 0..self.config.tuning.slices.peers {
            // There is no position if all these peers have been read, or if the link must first send its queue.
            let Some(position) = self.legacy.earlier(link) else { return };
            let Some((hub, peer)) = self.next_earlier(position) else { return self.legacy.end_earlier(link) };
            let Some(is_announced) = self.legacy.read_earlier(link, hub, peer) else {
                return bug!(self.bugs, LegacyLink, "{link:?} reads {peer:?}");
            };
            // If the peer is now connected to a hub other than `hub`, the peer is not announced here. The peer was
            // announced when it moved, or is announced when the peers of the other hub are read.
            let holder = self.directory.holder(&peer).map(|claim| claim.hub);
            if is_announced && holder == Some(hub.unwrap_or(self.config.hub)) {
                self.owe_all(link, &peer);
            }
        }
    }

    pub(in crate::relay) fn legacy_saturated(&mut self, link: LinkId) {
        if self.legacy.set_saturated(link, true).is_none() {
            bug!(self.bugs, LegacyLink, "{link:?} is saturated");
        }
    }

    pub(in crate::relay) fn legacy_room(&mut self, link: LinkId, now: Now) {
        if self.legacy.set_saturated(link, false).is_none() {
            return bug!(self.bugs, LegacyLink, "{link:?} has room");
        }
        self.read_earlier(link);
        let (mut told, mut bytes) = (0, 0);
        while told < SNAPSHOT_PEERS
            && bytes < SNAPSHOT_BYTES
            && let Some((peer, network)) = self.legacy.next_owed(link)
        {
            told += 1;
            bytes += self.pay(link, &peer, &network, now);
        }
        if self.legacy.has_backlog(link) {
            self.outputs.push_back(RelayOutput::Backlog { transport: Transport::Link(link) });
        }
    }

    /// Sends the current announcement of a peer on a link. Returns the length of the sent message in bytes, or 0 if no
    /// message was sent.
    fn pay(&mut self, link: LinkId, peer: &PeerId, network: &NetworkName, now: Now) -> usize {
        self.reconcile(peer, now);
        // The peer may have left in the meantime.
        let Some(announcement) = self.membership(peer, network).cloned() else { return 0 };
        // A peer with bounded discovery is not announced, because a Go hub would announce it to all its own peers.
        if self.legacy.has_announced(link, peer) || announcement.is_bounded() {
            return 0;
        }
        let data = announcement.discovered.data();
        let text: Box<str> = wire::legacy_discovered(data, network.as_str(), now.wall_ms).into();
        let bytes = text.len();
        if self.legacy.note_told(link, peer, network.as_str(), now.at).is_none() {
            bug!(self.bugs, LegacyLink, "{link:?} announces {peer:?}");
            return 0;
        }
        self.outputs.push_back(RelayOutput::SendText { link, text });
        bytes
    }

    /// Sends a signal to a peer behind a legacy link. The Go protocol does not report whether the signal arrives.
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
            // A signal is delivered only during the stay in which it was sent. The stay of this signal has ended, or
            // the announcement of this stay has not arrived yet.
            return Outcome::Failed(ErrorCode::Unreachable);
        }
        if origin.kind == SignalKind::Signal {
            // Go hubs do not relay signals of this kind.
            return Outcome::Failed(ErrorCode::UnknownType);
        }
        let Some(link) = self.legacy.link_of(target) else {
            bug!(self.bugs, LegacyLink, "{target:?} is behind no link");
            return Outcome::Failed(ErrorCode::PeerNotFound);
        };
        // The decoder of envelopes checks that frames are UTF-8. The relay does not depend on this check.
        let Ok(text) = std::str::from_utf8(ws::payload(frame)) else {
            return Outcome::Failed(ErrorCode::PeerNotFound);
        };
        if self.is_go_peer(from) && self.has_said(link, from, text, now) {
            // The Go hub has delivered this signal itself. If this hub sent the signal back, the target would receive
            // it twice.
            return Outcome::Forwarded;
        }
        self.owe_earlier(link, from);
        // The target must know the sender before the target receives an offer.
        while let Some(network) = self.legacy.next_owed_of(link, from) {
            self.pay(link, from, &network, now);
        }
        if !self.legacy.has_room(link) {
            return Outcome::Failed(ErrorCode::Unreachable);
        }
        self.outputs.push_back(RelayOutput::SendText { link, text: text.into() });
        Outcome::Forwarded
    }

    /// Whether a peer is behind a legacy link of any hub of the mesh.
    fn is_go_peer(&self, peer: &PeerId) -> bool {
        self.directory.holder(peer).is_some_and(|holder| holder.is_legacy())
    }

    /// Whether the Go hub at this link sent this signal of a Go peer itself, so that the signal must not be sent back.
    /// A Go hub that is linked with several hubs of this mesh sends each signal to all these hubs.
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
        self.legacy.has_said(link, from, hash, now.at).unwrap_or_else(|| {
            bug!(self.bugs, LegacyLink, "{link:?} holds a peer that is signaled");
            false
        })
    }
}
