//! Processes messages from a Go hub on a legacy link. The messages are announcements, leaves and signals of the Go
//! hub's peers.

use std::sync::Arc;

use crate::bug;
use crate::claim::Claim;
use crate::codec::{self, LegacyMessage};
use crate::envelope::ChangeKind;
use crate::id::{HubId, LinkId, NetworkName, PeerId, PeerIncarnation, ShardId};
use crate::isolated::isolated;
use crate::limits::DEFAULT_MAX_NETWORKS_PER_PEER;
use crate::reason::{CloseReason, LeaveReason};
use crate::router::{Announcement, Origin, Sender, SignalLetter, Standing, Stay, ToShard};
use crate::time::Now;
use crate::wire;

use super::super::Relay;
use super::super::directory::LeaveCause;
use super::LEGACY_SESSION;
use super::links::Entry;

impl Relay {
    pub(in crate::relay) fn legacy_said(&mut self, link: LinkId, text: &str, now: Now) {
        if self.legacy.hear(link, now.at).is_none() {
            return bug!(self.bugs, LegacyLink, "{link:?} sends a message");
        }
        let Some(message) = isolated(|| codec::parse_legacy(text)).flatten() else {
            self.stats.legacy_refused += 1;
            return;
        };
        match &message {
            LegacyMessage::Discovered { peer, .. }
            | LegacyMessage::Disconnected { peer }
            | LegacyMessage::Goodbye { peer, .. }
            | LegacyMessage::Signal { from: peer, .. } => self.reconcile(peer, now),
            LegacyMessage::Other => {}
        }
        let taken = match message {
            LegacyMessage::Discovered { peer, network, data } => {
                self.legacy_discovered(link, peer, &network, data, now)
            }
            LegacyMessage::Disconnected { peer } => {
                let waited = self.legacy.forget_waiting(link, &peer, None);
                let known = self.is_behind(link, &peer);
                if known {
                    self.leave_legacy(peer, LeaveReason::Closed(CloseReason::ConnectionLost), now);
                }
                known || waited
            }
            LegacyMessage::Goodbye { peer, network, data } => self.legacy_goodbye(link, peer, &network, data, now),
            LegacyMessage::Signal { kind, from, target, network, data } => {
                let hash = self.legacy.signal_hash(kind, &from, &target, &network, data);
                self.legacy.note_said(link, hash, now.at);
                let known = self.may_signal(link, from, &network, now);
                // A Go hub sends the signal to every hub with which it is linked. Only the hub with the winning claim
                // to the sender forwards the signal.
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

    /// Whether a signal of this peer in this network is accepted on this link.
    ///
    /// A Go hub that this hub dialed does not announce peers that were connected to the Go hub before the link was
    /// opened. A peer's first signal in a network therefore counts as its announcement in that network, with empty
    /// data. The signal does not count as an announcement if its sender has another claim, has recently left, or has
    /// the id of a hub. A signal that may be an echo does not count as an announcement either.
    fn may_signal(&mut self, link: LinkId, peer: PeerId, network: &str, now: Now) -> bool {
        let known = self.is_behind(link, &peer);
        if known && self.is_in(&peer, network) {
            return true;
        }
        if self.legacy.has_left(&peer, network, now.at)
            || self.is_a_hub(&peer)
            || self.legacy.has_passed(link, &peer, now.at)
        {
            return false;
        }
        if !known && let Some(holder) = self.directory.holder(&peer) {
            if holder.is_legacy() && holder.hub != self.config.hub {
                // The hub with the claim to the peer may be dead. If that hub is dead, this hub accepts the peer when
                // that hub's lease expires. Until then, the peer's signals are dropped, because this hub has no claim
                // to the peer.
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
        hub == self.config.hub || self.hubs.contains_key(&hub) || self.legacy.is_hub(hub)
    }

    /// Whether messages of a peer are accepted on this link. The peer must be announced on this link, and no greater
    /// claim to the peer may exist.
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
            // Another link of this hub has announced the peer first.
            return false;
        }
        self.owe_earlier(link, &peer);
        match self.legacy.may_be_news(link, peer, network, is_echo, holder.is_legacy()) {
            Some(may_be_news) => may_be_news && self.wait_for(link, peer, network, data, now),
            None => {
                bug!(self.bugs, LegacyLink, "{link:?} announces {peer:?}");
                false
            }
        }
    }

    /// Stores a Go hub's announcement of a peer until the existing claim ends.
    fn wait_for(&mut self, link: LinkId, peer: PeerId, network: &str, data: &str, now: Now) -> bool {
        codec::check_public(data).is_ok() && self.legacy.wait(link, peer, network, data, now.at)
    }

    /// Handles a change of a peer's claim. Stored announcements of Go hubs take effect when no claim is left.
    pub(in crate::relay) fn legacy_reconsiders(
        &mut self,
        peer: PeerId,
        held: [Option<Claim>; 2],
        cause: &LeaveCause,
        now: Now,
    ) {
        let [before, after] = held;
        if self.legacy.is_empty() || before == after {
            return;
        }
        if after.is_none() && !cause.is_hub_lost() {
            self.legacy.note_left(&peer, "", now.at);
        }
        if after < before && after.is_some() {
            return;
        }
        let waiting = self.legacy.take_waiting(&peer, now.at);
        // Stored announcements take effect if the ended claim may have been outdated for some time, because it belonged
        // to a dead connection or a lost hub. Stored announcements take no effect if a hub has reported the leave of a
        // Go peer, because other Go hubs announced that peer before its leave.
        let counts = after.is_none()
            && (before.is_some_and(|before| !before.is_legacy()) || matches!(cause, LeaveCause::HubGone));
        for (link, network, data) in waiting {
            let is_taken = self.legacy.holds(&peer) && !self.legacy.has_announced(link, &peer);
            if counts && !is_taken {
                self.legacy_joins(link, peer, network.as_str(), &data, now);
            }
        }
    }

    /// Adds a peer of the Go hub to a network, or updates its data. Returns false if there is no room, or if the data
    /// is invalid.
    fn legacy_joins(&mut self, link: LinkId, peer: PeerId, network: &str, data: &str, now: Now) -> bool {
        let is_its_own = self.legacy.has_announced(link, &peer);
        let Ok(data) = codec::describe(&peer, Some(data)) else { return false };
        let name = NetworkName::new(network);
        let memberships = self.own.peers.get(&peer).map_or(&[][..], |presence| &presence.memberships);
        let at = memberships.binary_search_by(|a| a.network.cmp(&name));
        let known = at.ok().map(|at| memberships[at].discovered.data() == data);
        if known.is_none() && memberships.len() >= DEFAULT_MAX_NETWORKS_PER_PEER {
            return false;
        }
        match self.legacy.enter(link, peer, &name, self.config.tuning.max_peers_per_legacy_link) {
            Some(Entry::Behind) => {}
            Some(Entry::Full) => return false,
            None => {
                bug!(self.bugs, LegacyLink, "{peer:?} joins behind {link:?}");
                return false;
            }
        }
        let claim = Claim { incarnation: LEGACY_SESSION, hub: self.config.hub };
        if known == Some(true) {
            // This announcement repeats a known announcement, so no peer is notified.
            return true;
        }
        let discovered = Arc::new(wire::peer_discovered(&data, PeerIncarnation::LEGACY, network, now.wall_ms));
        let announcement =
            Arc::new(Announcement { peer, network: name, claim, remote: true, stay: Stay::default(), discovered });
        if !is_its_own {
            self.publish_change(peer, LEGACY_SESSION, ChangeKind::Up, now);
        }
        self.publish_change(peer, LEGACY_SESSION, ChangeKind::Joined(announcement), now);
        true
    }

    /// Handles a Go peer's goodbye to a network. A goodbye to all networks contains no network name, so the Go hub
    /// sends it with the name `global`. Therefore `global` means all networks if the peer is not in `global`.
    fn legacy_goodbye(&mut self, link: LinkId, peer: PeerId, network: &str, data: &str, now: Now) -> bool {
        if codec::check_public(data).is_err() {
            return false;
        }
        let all = network == NetworkName::GLOBAL && !self.is_in(&peer, network);
        let waited = self.legacy.forget_waiting(link, &peer, (!all).then(|| NetworkName::new(network)));
        if !self.is_behind(link, &peer) {
            return waited;
        }
        let memberships = self.own.peers.get(&peer).map_or(&[][..], |presence| &presence.memberships);
        let names = memberships.iter().map(|announcement| announcement.network.clone());
        let names: Vec<NetworkName> = names.filter(|name| all || name.as_str() == network).collect();
        for name in names {
            let frame = Arc::new(wire::goodbye(&peer, data, name.as_str(), now.wall_ms));
            self.legacy.note_left(&peer, name.as_str(), now.at);
            self.publish_change(peer, LEGACY_SESSION, ChangeKind::Left { network: name, frame }, now);
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
}
