//! The directory, which stores the hub of each peer in the mesh, and the state of each peer that the shards of this hub
//! know.
//!
//! Several hubs can claim one peer for a moment, for example while the peer moves, or when a partition between hubs
//! ends. A [`Claim`] is a hub's statement that a peer is connected to that hub. The greatest claim wins. The shards
//! receive a peer of another hub only if that hub's claim is the greatest.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::bug;
use crate::bugs::Bugs;
use crate::claim::Claim;
use crate::envelope::{ChangeKind, Presence};
use crate::id::{HubId, NetworkName, PeerId, PeerIncarnation, ShardId};
use crate::keys::Keys;
use crate::limits::{DIRECTORY_SEGMENTS, GREATEST_TIME};
use crate::lower;
use crate::reason::LeaveReason;
use crate::router::{Announcement, Leave, ToShard};
use crate::time::Now;
use crate::wire::{self, MessageKind, Template};

use super::legacy::LEGACY_SESSION;
use super::{Relay, RelayOutput};

#[derive(Debug)]
pub(super) struct Directory {
    entries: Entries,
    /// Number of peers at other hubs and behind legacy links that the shards know.
    pub(super) shown: usize,
}

/// The entries of the directory, in [`DIRECTORY_SEGMENTS`] maps. When one map grows, only a small part of all entries
/// is moved.
#[derive(Debug)]
struct Entries {
    segments: Box<[HashMap<PeerId, Entry, Keys>]>,
    keys: Keys,
}

impl Entries {
    fn new(keys: Keys) -> Self {
        Self { segments: (0..DIRECTORY_SEGMENTS).map(|_| HashMap::with_hasher(keys)).collect(), keys }
    }

    /// The segment of a peer. Peers choose their ids, but without the keys they cannot choose their segment.
    fn segment_of(&self, peer: &PeerId) -> usize {
        let bytes = peer.as_bytes();
        let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let Keys(a, b) = self.keys;
        let parts = [(word(0), a), (word(8), b), (word(12), a.rotate_left(32) ^ b)];
        let mixed = parts.iter().fold(0, |sum: u64, (word, key)| sum.wrapping_add(word.wrapping_mul(key | 1)));
        (mixed >> 32) as usize % DIRECTORY_SEGMENTS
    }

    fn get(&self, peer: &PeerId) -> Option<&Entry> {
        self.segments[self.segment_of(peer)].get(peer)
    }

    fn get_mut(&mut self, peer: &PeerId) -> Option<&mut Entry> {
        self.segments[self.segment_of(peer)].get_mut(peer)
    }

    fn get_or_create(&mut self, peer: PeerId) -> &mut Entry {
        self.segments[self.segment_of(&peer)].entry(peer).or_default()
    }

    fn remove(&mut self, peer: &PeerId) {
        self.segments[self.segment_of(peer)].remove(peer);
    }
}

/// The presence of a peer that the shards know, with the claim to which it belongs.
type Shown = Option<(Claim, Arc<Presence>)>;

#[derive(Debug, Default)]
struct Entry {
    claims: SmallVec<[Claim; 1]>,
    shown: Shown,
    /// Whether the peer has been in a network since the shards received its current claim.
    has_been_member: bool,
}

/// The event that members receive when a peer leaves.
#[derive(Clone, Debug)]
pub(super) enum LeaveCause {
    /// `peer-disconnected` with this reason.
    Disconnected(LeaveReason),
    /// `goodbye`, as the peer or its hub sent it.
    Goodbye(Arc<Template>),
    /// `peer-disconnected` with the reason [`LeaveReason::HubLost`], because the hub's lease or incarnation has ended.
    /// The hub has not reported the leave of the peer.
    HubGone,
}

impl LeaveCause {
    /// Whether a hub or a link was lost, so that the state of the peer itself is unknown.
    pub(super) const fn is_hub_lost(&self) -> bool {
        matches!(self, Self::HubGone | Self::Disconnected(LeaveReason::HubLost))
    }
}

impl Directory {
    pub(super) fn new(keys: Keys) -> Self {
        Self { entries: Entries::new(keys), shown: 0 }
    }

    /// The winning claim to a peer.
    pub(super) fn holder(&self, peer: &PeerId) -> Option<Claim> {
        Claim::winner(&self.entries.get(peer)?.claims)
    }

    /// Every peer with its winning claim, and whether the shards know it.
    #[expect(clippy::disallowed_methods, reason = "only audits iterate, and they change nothing")]
    pub(super) fn claims(&self) -> impl Iterator<Item = (PeerId, Option<Claim>, bool)> {
        let entries = self.entries.segments.iter().flat_map(HashMap::iter);
        entries.map(|(peer, entry)| (*peer, Claim::winner(&entry.claims), entry.shown.is_some()))
    }

    /// The hubs that claim a peer.
    pub(super) fn claimants(&self, peer: &PeerId) -> impl Iterator<Item = HubId> {
        self.entries.get(peer).into_iter().flat_map(|entry| entry.claims.iter().map(|claim| claim.hub))
    }

    /// The state of a peer that the shards know, if this state belongs to the given session at the given hub.
    pub(super) fn shown_at(&self, peer: &PeerId, hub: HubId, session: PeerIncarnation) -> Option<&Arc<Presence>> {
        let (claim, presence) = self.entries.get(peer)?.shown.as_ref()?;
        (*claim == Claim { incarnation: session, hub }).then_some(presence)
    }

    /// Whether the shards have received a membership of this peer in its current session.
    pub(super) fn has_been_member(&self, peer: &PeerId) -> bool {
        self.entries.get(peer).is_some_and(|entry| entry.has_been_member)
    }

    /// Records the session of a peer that a hub claims now. `None` removes the hub's claim.
    pub(super) fn set_claim(&mut self, peer: PeerId, hub: HubId, session: Option<PeerIncarnation>) {
        let entry = self.entries.get_or_create(peer);
        entry.claims.retain(|claim| claim.hub != hub);
        entry.claims.extend(session.map(|incarnation| Claim { incarnation, hub }));
        if entry.claims.is_empty() && entry.shown.is_none() {
            self.entries.remove(&peer);
        }
    }

    /// Records the presence that the shards now have of a peer. Returns the earlier one. The outer option is `None` if
    /// the directory has no entry for the peer.
    fn set_shown(&mut self, peer: &PeerId, now: Shown, bugs: &mut Bugs) -> Option<Shown> {
        let entry = self.entries.get_mut(peer)?;
        let before = std::mem::replace(&mut entry.shown, now);
        let claim = |shown: &Shown| shown.as_ref().map(|(claim, _)| *claim);
        entry.has_been_member &= claim(&before) == claim(&entry.shown);
        entry.has_been_member |= entry.shown.as_ref().is_some_and(|(_, presence)| !presence.memberships.is_empty());
        self.shown += usize::from(entry.shown.is_some());
        lower!(bugs, self.shown, usize::from(before.is_some()));
        if entry.claims.is_empty() && entry.shown.is_none() {
            self.entries.remove(peer);
        }
        Some(before)
    }
}

impl Relay {
    /// Processes a possible change of a hub's claim to a peer, and posts the resulting changes to the shards.
    ///
    /// This function reads the claim from the hub's current presence, so late and repeated calls have the same result.
    pub(super) fn update_claim(&mut self, peer: PeerId, hub: HubId, cause: &LeaveCause, now: Now) {
        let holding = if hub == self.config.hub { Some(&self.own) } else { self.hubs.get(&hub).map(|h| &h.holding) };
        let Some(holding) = holding else {
            return bug!(self.bugs, HubMissing, "{hub:?} claims {peer:?}");
        };
        let session = holding.peers.get(&peer).map(|presence| presence.session);
        let before = self.directory.holder(&peer);
        // A session above [`GREATEST_TIME`] gets no claim, because no later session could win against such a claim.
        let believed = session.filter(|session| session.0 <= GREATEST_TIME);
        self.stats.numbers_refused += u64::from(believed != session);
        self.directory.set_claim(peer, hub, believed);
        if let Some(remote) = self.hubs.get_mut(&hub) {
            remote.record_claim(peer, believed.is_some());
        }
        self.update_shards(peer, cause, now);
        let holder = self.directory.holder(&peer);
        if holder.is_some_and(|holder| holder.hub != self.config.hub && !holder.is_legacy()) && self.legacy.holds(&peer)
        {
            // The peer has moved from its Go hub to another hub, or the Go hub only echoed the announcement of that
            // hub. Some Go hubs do not report the leave of this peer, so the peer is removed from its legacy link here.
            // If the peer were not removed, it would reappear at the Go hub when it leaves its current hub.
            self.legacy.forget(&peer);
            self.publish_change(peer, LEGACY_SESSION, ChangeKind::Down(LeaveReason::Moved), now);
        }
        self.legacy_reconsiders(peer, [before, holder], cause, now);
    }

    /// The presence of a peer at the hub with the winning claim. `None` if no hub claims the peer. Also `None` if the
    /// replica of the winning hub was replaced and no slice has processed the peer yet.
    pub(super) fn presence(&self, peer: &PeerId) -> Option<&Arc<Presence>> {
        let holder = self.directory.holder(peer)?;
        let own = (holder.hub == self.config.hub).then_some(&self.own);
        let holding = own.or_else(|| self.hubs.get(&holder.hub).map(|remote| &remote.holding))?;
        holding.peers.get(peer).filter(|presence| presence.session == holder.incarnation)
    }

    pub(super) fn is_in_a_network(&self, peer: &PeerId) -> bool {
        self.presence(peer).is_some_and(|presence| !presence.memberships.is_empty())
    }

    /// The announcement of a peer in a network.
    pub(super) fn membership(&self, peer: &PeerId, network: &NetworkName) -> Option<&Arc<Announcement>> {
        let memberships = &self.presence(peer)?.memberships;
        let at = memberships.binary_search_by(|announcement| announcement.network.cmp(network)).ok()?;
        memberships.get(at)
    }

    /// Posts the difference between what the shards know of a peer and what they should know now.
    fn update_shards(&mut self, peer: PeerId, cause: &LeaveCause, now: Now) {
        let holder = self.directory.holder(&peer);
        if let Some(claim) = holder
            && !self.busy.is_empty()
        {
            self.keep_what_is_shown(&peer, claim.hub);
        }
        let held = match holder {
            None => None,
            // Shards know the hub's own peers already, but not the peers behind a legacy link.
            Some(claim) if claim.hub == self.config.hub => {
                self.own.peers.get(&peer).filter(|_| self.legacy.holds(&peer))
            }
            Some(claim) => match self.hubs.get(&claim.hub) {
                // `None` is possible if the hub's replica was replaced and no slice has processed the peer yet.
                Some(remote) => remote.holding.peers.get(&peer).filter(|held| held.session == claim.incarnation),
                None => {
                    bug!(self.bugs, HubMissing, "{claim:?} is the claim to {peer:?}");
                    None
                }
            },
        };
        let desired = holder.zip(held.cloned());
        // A peer without an entry has no claim, and the shards do not know it.
        let Some(shown) = self.directory.set_shown(&peer, desired.clone(), &mut self.bugs) else { return };
        let home = ShardId::home(&peer, self.config.shards, self.config.keys);
        match (&shown, &desired) {
            (Some((old, before)), Some((new, after))) if old == new => self.tell_difference(before, after, cause, now),
            _ => {
                if let Some((claim, before)) = &shown {
                    let moved = LeaveCause::Disconnected(LeaveReason::Moved);
                    let cause = if desired.is_some() { &moved } else { cause };
                    for announcement in &before.memberships {
                        self.tell_left(announcement, cause, now);
                    }
                    if desired.is_none() {
                        self.post(home, ToShard::Nowhere { peer, claim: *claim });
                    }
                }
                if let Some((claim, after)) = &desired {
                    self.post(home, ToShard::Elsewhere { peer, claim: *claim });
                    for announcement in &after.memberships {
                        self.tell_joined(announcement);
                    }
                }
            }
        }
    }

    fn tell_difference(&mut self, before: &Presence, after: &Presence, cause: &LeaveCause, now: Now) {
        let find = |presence: &Presence, of: &Announcement| {
            let at = presence.memberships.binary_search_by(|a| a.network.cmp(&of.network)).ok()?;
            Some(Arc::clone(&presence.memberships[at]))
        };
        for announcement in &before.memberships {
            if find(after, announcement).is_none() {
                self.tell_left(announcement, cause, now);
            }
        }
        for announcement in &after.memberships {
            if find(before, announcement).is_none_or(|known| !Arc::ptr_eq(&known, announcement)) {
                self.tell_joined(announcement);
            }
        }
    }

    fn tell_joined(&mut self, announcement: &Arc<Announcement>) {
        for shard in (0..self.config.shards).map(ShardId) {
            self.post(shard, ToShard::Joined(Arc::clone(announcement)));
        }
        self.tell_legacy(announcement);
    }

    fn tell_left(&mut self, announcement: &Announcement, cause: &LeaveCause, now: Now) {
        let Announcement { peer, ref network, claim, .. } = *announcement;
        let (frame, kind) = match cause {
            LeaveCause::Disconnected(reason) => {
                let frame =
                    Arc::new(wire::peer_disconnected(&peer, claim.incarnation, *reason, network.as_str(), now.wall_ms));
                (frame, MessageKind::PeerDisconnected)
            }
            LeaveCause::HubGone => {
                return self.tell_left(announcement, &LeaveCause::Disconnected(LeaveReason::HubLost), now);
            }
            LeaveCause::Goodbye(frame) => (Arc::clone(frame), MessageKind::Goodbye),
        };
        let leave = Arc::new(Leave { peer, network: network.clone(), claim, frame, kind });
        for shard in (0..self.config.shards).map(ShardId) {
            self.post(shard, ToShard::Left(Arc::clone(&leave)));
        }
    }

    pub(super) fn post(&mut self, to: ShardId, letter: ToShard) {
        self.outputs.push_back(RelayOutput::Letter { to, letter });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_ids_are_spread_over_many_segments() {
        let mut directory = Directory::new(Keys(0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321));
        let per_segment = 64;
        for place in [0, 4, 8, 16] {
            for number in 0..(DIRECTORY_SEGMENTS * per_segment) as u32 {
                let mut bytes = [place as u8; 20];
                bytes[place..place + 4].copy_from_slice(&number.to_le_bytes());
                directory.entries.get_or_create(PeerId::from_bytes(bytes));
            }
            let largest = directory.entries.segments.iter().map(HashMap::len).max();
            assert!(
                largest.unwrap() < 4 * per_segment,
                "the largest segment has {largest:?} of the ids that differ at byte {place}"
            );
            directory = Directory::new(directory.entries.keys);
        }
    }
}
