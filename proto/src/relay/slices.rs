//! Long work of the relay, one slice per turn.
//!
//! The end of a hub, the installation of a snapshot, and the application of held changes concern many peers. When a hub
//! ends or a snapshot is installed, the replica changes immediately. The directory and the shards follow peer by peer,
//! in the order of ids, and [`Slices`](crate::Slices) limits the number of peers in each turn. The remaining work is
//! stored as a position in the order of ids, so no list is necessary. If an event concerns a peer that the slices have
//! not reached, [`Relay::reconcile`] first processes the pending change of this peer. Therefore, an event between two
//! slices cannot overtake earlier events of the same peer. Held changes are applied in slices, too.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::bug;
use crate::envelope::Presence;
use crate::id::{HubId, PeerId};
use crate::reason::LeaveReason;
use crate::time::Now;

use super::{Relay, RelayOutput};

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
            if is_full || !(self.write_off_next(hub) | self.reconcile_next(hub, now)) {
                break;
            }
        }
        self.catch_up(hub, now);
        if self.hubs.get(&hub).is_none_or(|remote| !remote.is_busy()) {
            self.busy.remove(&hub);
        }
    }

    fn reconcile_next(&mut self, hub: HubId, now: Now) -> bool {
        let Some(remote) = self.hubs.get_mut(&hub) else {
            bug!(self.bugs, HubMissing, "peers of {hub:?} are reconciled");
            return false;
        };
        let Some(peer) = remote.next_unreconciled() else {
            return false;
        };
        self.reconcile(&peer, now);
        self.reconcile_at(hub, &peer, now);
        match self.hubs.get_mut(&hub) {
            Some(remote) => remote.note_reconciled(peer),
            None => bug!(self.bugs, HubMissing, "{peer:?} of {hub:?} was reconciled"),
        }
        true
    }

    /// Processes the pending change of a peer that no slice has reached. Such a peer belongs to a lost hub, to an ended
    /// legacy link, or to a snapshot. Call this function before any decision about the peer.
    pub(super) fn reconcile(&mut self, peer: &PeerId, now: Now) {
        if self.legacy.is_leaving(peer) {
            self.leave_legacy(*peer, LeaveReason::HubLost, now);
        }
        if self.busy.is_empty() {
            return;
        }
        let hubs: SmallVec<[HubId; 2]> = self.directory.claimants(peer).filter(|hub| self.busy.contains(hub)).collect();
        for hub in hubs {
            self.reconcile_at(hub, peer, now);
        }
    }

    /// Like [`Self::reconcile`], but only for the given hub. This function also works for a peer to which the directory
    /// has no claim of the given hub.
    pub(super) fn reconcile_at(&mut self, hub: HubId, peer: &PeerId, now: Now) {
        if self.busy.is_empty() {
            return;
        }
        if let Some(cause) = self.hubs.get(&hub).and_then(|remote| remote.pending_leave(peer)).cloned() {
            self.update_claim(*peer, hub, &cause, now);
        }
    }

    /// Replaces announcements of a snapshot by equal announcements that the shards have already. So members do not
    /// receive the same announcements again.
    pub(super) fn keep_what_is_shown(&mut self, peer: &PeerId, hub: HubId) {
        if let Some(remote) = self.hubs.get_mut(&hub)
            && remote.pending_leave(peer).is_some()
            && let Some(held) = remote.holding.peers.get_mut(peer)
            && let Some(shown) = self.directory.shown_at(peer, hub, held.session)
        {
            super::presence::keep_what_is_known(held, shown);
        }
    }
}
