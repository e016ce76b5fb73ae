//! Long work of the relay, one slice per turn.
//!
//! The end of a hub, the installation of a snapshot, and the application of held changes concern many peers. The
//! replicas of hubs change immediately. The directory and the shards follow peer by peer, in the order of ids, and
//! [`Slices`](crate::Slices) limits the number of peers in each turn. The remaining work is stored as a position in the
//! order of ids, so no list is necessary. If an event concerns a peer that the slices have not reached,
//! [`Relay::settle`] first processes the pending change of this peer. Therefore, an event between two slices cannot
//! overtake earlier events of the same peer.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::bug;
use crate::envelope::Presence;
use crate::id::{HubId, PeerId};
use crate::reason::LeaveReason;
use crate::time::Now;

use super::directory::LeaveCause;
use super::remote::Remote;
use super::{Relay, RelayOutput};

/// Peers of a hub whose claims and letters do not match the hub's presence yet.
#[derive(Debug)]
pub(super) struct Unsettled {
    /// The last peer that a slice has settled.
    after: Option<PeerId>,
    /// The event that networks receive about peers that have left.
    cause: LeaveCause,
}

/// Replicas that are no longer used. Their memory is also freed in slices.
#[derive(Debug, Default)]
pub(super) struct Discarded(VecDeque<BTreeMap<PeerId, Arc<Presence>>>);

impl Discarded {
    pub(super) fn add(&mut self, peers: BTreeMap<PeerId, Arc<Presence>>) {
        if !peers.is_empty() {
            self.0.push_back(peers);
        }
    }

    /// Frees at most this number of peers.
    pub(super) fn free(&mut self, most: usize) {
        for _ in 0..most {
            let Some(peers) = self.0.front_mut() else { return };
            if peers.pop_first().is_none() {
                self.0.pop_front();
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Remote {
    /// Records that the directory and the shards must be updated for all peers of the hub.
    pub(super) fn unsettle(&mut self, cause: LeaveCause) {
        // If an incarnation of the hub has ended, the peers that are still unsettled leave because of that end, even if
        // the next incarnation has already sent changes.
        let is_ending = self.unsettled.as_ref().is_some_and(|unsettled| matches!(unsettled.cause, LeaveCause::HubGone));
        let cause = if is_ending { LeaveCause::HubGone } else { cause };
        self.unsettled = Some(Unsettled { after: None, cause });
    }

    /// The cause of a peer's pending leave, if no slice has settled the peer yet.
    pub(super) fn awaits(&self, peer: &PeerId) -> Option<&LeaveCause> {
        self.unsettled.as_ref().filter(|unsettled| unsettled.after.is_none_or(|after| *peer > after)).map(|u| &u.cause)
    }

    /// The next peer to settle. This peer is in the directory for this hub, or in the hub's presence.
    fn next_unsettled(&self) -> Option<PeerId> {
        let from = match self.unsettled.as_ref()?.after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Unbounded,
        };
        let claimed = self.claims.range((from, Bound::Unbounded)).next();
        let held = self.holding.peers.range((from, Bound::Unbounded)).next().map(|(peer, _)| peer);
        [claimed, held].into_iter().flatten().min().copied()
    }

    /// Records whether the directory has a claim of this hub to a peer.
    pub(super) fn note_claim(&mut self, peer: PeerId, is_there: bool) {
        if is_there {
            self.claims.insert(peer);
        } else {
            self.claims.remove(&peer);
        }
    }

    /// Whether the next change has arrived and can be applied. No change can be applied while a snapshot is requested.
    pub(super) fn is_catching_up(&self) -> bool {
        !self.repair.is_under_way() && self.ahead.first().is_some_and(|seq| seq <= self.holding.seq + 1)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.unsettled.is_some() || self.has_lost() || self.is_catching_up()
    }
}

impl Relay {
    /// Marks a hub as having long work, which continues in later turns.
    pub(super) fn begin_work(&mut self, hub: HubId) {
        self.busy.insert(hub);
        self.ask_to_continue();
    }

    pub(super) fn ask_to_continue(&mut self) {
        let is_left = !self.busy.is_empty() || !self.discarded.is_empty() || self.legacy.ended_links() > 0;
        if is_left && !std::mem::replace(&mut self.unfinished, true) {
            self.outputs.push_back(RelayOutput::Unfinished);
        }
    }

    /// Does the next slice of long work.
    pub(super) fn continue_work(&mut self, now: Now) {
        self.unfinished = false;
        self.discarded.free(self.config.tuning.slices.discarded);
        // Busy hubs have their turns in the order of ids, and the ended legacy links follow the last hub.
        let after = self.last_worked_on.map_or(Bound::Unbounded, Bound::Excluded);
        let first = || self.busy.first().filter(|_| self.legacy.ended_links() == 0);
        let next = self.busy.range((after, Bound::Unbounded)).next().or_else(first).copied();
        self.last_worked_on = next;
        match next {
            Some(hub) => self.work_on(hub, now),
            None => self.end_legacy_peers(now),
        }
        self.ask_to_continue();
    }

    /// Does one slice of the long work for a hub.
    pub(super) fn work_on(&mut self, hub: HubId, now: Now) {
        let before = self.outputs.len();
        for _ in 0..self.config.tuning.slices.peers {
            let is_full = self.outputs.len() - before >= self.config.tuning.slices.letters;
            // Each step handles one lost signal and one peer, so that many lost signals do not delay the leaves of
            // peers.
            if is_full || !(self.write_off_next(hub) | self.settle_next(hub, now)) {
                break;
            }
        }
        self.catch_up(hub, now);
        if self.hubs.get(&hub).is_none_or(|remote| !remote.is_busy()) {
            self.busy.remove(&hub);
        }
    }

    fn settle_next(&mut self, hub: HubId, now: Now) -> bool {
        let Some(remote) = self.hubs.get_mut(&hub) else {
            bug!(self.bugs, HubMissing, "peers of {hub:?} are settled");
            return false;
        };
        let Some(peer) = remote.next_unsettled() else {
            remote.unsettled = None;
            return false;
        };
        self.settle(&peer, now);
        self.settle_at(hub, &peer, now);
        match self.hubs.get_mut(&hub).and_then(|remote| remote.unsettled.as_mut()) {
            Some(unsettled) => unsettled.after = Some(peer),
            None => bug!(self.bugs, HubMissing, "{hub:?} has settled all peers with {peer:?}"),
        }
        true
    }

    /// Processes the pending change of a peer that no slice has reached. Such a peer belongs to a lost hub, to an ended
    /// legacy link, or to a snapshot. Call this function before any decision about the peer.
    pub(super) fn settle(&mut self, peer: &PeerId, now: Now) {
        if self.legacy.is_leaving(peer) {
            self.leave_legacy(*peer, LeaveReason::HubLost, now);
        }
        if self.busy.is_empty() {
            return;
        }
        let hubs: SmallVec<[HubId; 2]> = self.directory.claimants(peer).filter(|hub| self.busy.contains(hub)).collect();
        for hub in hubs {
            self.settle_at(hub, peer, now);
        }
    }

    /// Like [`Self::settle`], but only for the given hub. This function also works for a peer to which the directory
    /// has no claim of the given hub.
    pub(super) fn settle_at(&mut self, hub: HubId, peer: &PeerId, now: Now) {
        if self.busy.is_empty() {
            return;
        }
        if let Some(cause) = self.hubs.get(&hub).and_then(|remote| remote.awaits(peer)).cloned() {
            self.reconsider(*peer, hub, &cause, now);
        }
    }

    /// Replaces announcements of a snapshot by equal announcements that the shards have already. So members do not
    /// receive the same announcements again.
    pub(super) fn keep_what_is_shown(&mut self, peer: &PeerId, hub: HubId) {
        if let Some(remote) = self.hubs.get_mut(&hub)
            && remote.awaits(peer).is_some()
            && let Some(held) = remote.holding.peers.get_mut(peer)
            && let Some(shown) = self.directory.shown_at(peer, hub, held.session)
        {
            super::presence::keep_what_is_known(held, shown);
        }
    }
}
