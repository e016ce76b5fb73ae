//! Presence between hubs. Each hub changes its own presence, and all other hubs have replicas. Changes are flooded, and
//! snapshots repair gaps.

use std::sync::Arc;

use crate::bug;
use crate::claim::Claim;
use crate::envelope::{Change, ChangeKind, Envelope, Presence};
use crate::id::{HubId, PeerId, PeerIncarnation};
use crate::reason::LeaveReason;
use crate::route::Hop;
use crate::router::Announcement;
use crate::time::Now;

use super::directory::LeaveCause;
use super::holding::PresenceRefusal;
use super::{Destination, Relay};

impl Relay {
    /// Handles a change of one of this hub's own peers, which a shard has reported.
    pub(super) fn own_peer_reported(&mut self, peer: PeerId, claim: Claim, kind: ChangeKind, now: Now) {
        self.reconcile(&peer, now);
        if matches!(kind, ChangeKind::Up) {
            // A Go hub may have announced a peer with the same id. A session of this hub has precedence.
            self.legacy.forget(&peer);
        }
        self.publish_change(peer, claim.incarnation, kind, now);
    }

    /// Appends a change to this hub's own presence, and floods it.
    pub(super) fn publish_change(&mut self, peer: PeerId, session: PeerIncarnation, kind: ChangeKind, now: Now) {
        let (hub, incarnation) = (self.config.hub, self.config.incarnation);
        let change = Arc::new(Change { hub, incarnation, seq: self.own.seq + 1, peer, session, kind });
        self.keep_for_snapshots(hub, &peer);
        if let Err(limit) = self.own.apply(&change, usize::MAX) {
            self.stats.presence_refused[limit as usize] += 1;
        }
        self.flood(&change, None, now);
        self.update_claim(peer, hub, &leave_cause(&change), now);
        if let ChangeKind::Joined(announcement) = &change.kind
            && !self.legacy.holds(&peer)
        {
            self.tell_legacy(announcement);
        }
    }

    /// Processes another hub's change.
    pub(super) fn change_received(&mut self, via: Hop, change: Arc<Change>, now: Now) {
        let Some(remote) = self.hubs.get_mut(&change.hub).filter(|remote| remote.is_live()) else {
            self.stats.duplicates += 1;
            return;
        };
        let known = change.seq <= remote.holding.seq || remote.ahead.contains(change.seq);
        if change.incarnation != remote.incarnation() || known {
            self.stats.duplicates += 1;
            return;
        }
        if !remote.repair.is_under_way() && change.seq == remote.holding.seq + 1 {
            self.flood(&change, Some(via), now);
            self.apply(&change, now);
            self.catch_up(change.hub, now);
        } else if remote.keep_ahead(&change, self.budgets.ahead) {
            let is_catching_up = remote.is_catching_up();
            if !remote.repair.is_under_way() && !is_catching_up {
                remote.repair.note_behind(now.at);
            }
            self.account(change.hub);
            self.flood(&change, Some(via), now);
            if is_catching_up {
                // Each received change also causes some held changes to be applied, so that held changes do not
                // accumulate.
                self.catch_up(change.hub, now);
            }
        } else {
            self.stats.presence_refused[PresenceRefusal::ChangesAhead as usize] += 1;
        }
    }

    /// Updates the budgets with the bytes that are now stored for a hub.
    pub(super) fn account(&mut self, hub: HubId) {
        match self.hubs.get_mut(&hub) {
            Some(remote) => {
                let (before, now) = remote.account();
                self.budgets.change(before, now);
            }
            None => bug!(self.bugs, HubMissing, "{hub:?} is accounted for"),
        }
    }

    fn apply(&mut self, change: &Change, now: Now) {
        self.reconcile(&change.peer, now);
        self.reconcile_at(change.hub, &change.peer, now);
        self.keep_for_snapshots(change.hub, &change.peer);
        if let Some(remote) = self.hubs.get_mut(&change.hub) {
            let most = self.budgets.presence.allows(remote.accounted().presence);
            if let Err(limit) = remote.holding.apply(change, most) {
                self.stats.presence_refused[limit as usize] += 1;
            }
            self.account(change.hub);
            self.update_claim(change.peer, change.hub, &leave_cause(change), now);
        } else {
            bug!(self.bugs, HubMissing, "change {} of {:?}", change.seq, change.hub);
        }
    }

    /// Applies held changes whose missing predecessor has arrived. A bounded number of changes is applied in this turn,
    /// and the remaining changes in later turns.
    pub(super) fn catch_up(&mut self, hub: HubId, now: Now) {
        for _ in 0..self.config.tuning.slices.changes {
            let Some(remote) = self.hubs.get_mut(&hub) else {
                return bug!(self.bugs, HubMissing, "{hub:?} catches up");
            };
            if !remote.is_catching_up() {
                break;
            }
            // Changes that a snapshot contains are dropped.
            if let Some(change) = remote.ahead.pop()
                && change.seq == remote.holding.seq + 1
            {
                self.apply(&change, now);
            }
        }
        self.account(hub);
        let Some(remote) = self.hubs.get_mut(&hub) else {
            return bug!(self.bugs, HubMissing, "{hub:?} catches up");
        };
        if remote.is_catching_up() {
            self.begin_work(hub);
        } else if remote.ahead.is_empty() && remote.lag() == 0 {
            remote.repair.note_caught_up();
        } else if !remote.repair.is_under_way() {
            remote.repair.note_behind(now.at);
        }
        self.release_signals(hub, now);
    }

    /// Forwards a change to all neighbours, with four exceptions. The exceptions are the hub that made the change, the
    /// neighbour that sent the change here, the neighbours to which that neighbour also sends it, and the neighbours
    /// whose queues are full.
    fn flood(&mut self, change: &Arc<Change>, from: Option<Hop>, now: Now) {
        let sender = from.and_then(|via| self.neighbour(via));
        let over_bridge = matches!(from, Some(Hop::Bridge(_)));
        let told = sender.and_then(|sender| self.hubs.get(&sender)).map(|sender| Arc::clone(sender.beat()));
        let mut to = Vec::new();
        for (hub, link) in self.links.in_use() {
            let tells = |beat: &crate::envelope::Heartbeat| beat.neighbours.contains(&hub);
            let is_told = if over_bridge {
                self.hubs.get(&hub).is_some_and(|remote| remote.is_bridged(now.at))
            } else {
                told.as_deref().is_some_and(tells)
            };
            if hub != change.hub && sender != Some(hub) && !is_told {
                to.push(link);
            }
        }
        for link in to {
            let Some(queue) = self.links.queue_mut(link) else {
                bug!(self.bugs, HubLink, "{link:?}");
                continue;
            };
            if queue.take_or_miss_change() {
                self.send(Destination::Link(link), Envelope::Change(Arc::clone(change)));
            }
        }
        let is_published = !over_bridge && (from.is_none() || self.speaks_for(&change.hub, now));
        if self.bridge.is_up() && is_published && self.bridge.queue_mut().take_or_miss_change() {
            self.send(Destination::Everyone, Envelope::Change(Arc::clone(change)));
        }
    }
}

/// The event that members receive if this change makes a peer leave.
fn leave_cause(change: &Change) -> LeaveCause {
    match &change.kind {
        ChangeKind::Down(reason) => LeaveCause::Disconnected(*reason),
        ChangeKind::Left { frame, .. } => LeaveCause::Goodbye(Arc::clone(frame)),
        ChangeKind::Up | ChangeKind::Joined(_) => LeaveCause::Disconnected(LeaveReason::Moved),
    }
}

/// Replaces announcements by known announcements with the same contents. So members do not receive the same
/// announcement again.
pub(super) fn keep_what_is_known(presence: &mut Arc<Presence>, known: &Arc<Presence>) {
    if Arc::ptr_eq(presence, known) {
        return;
    }
    // The stays are compared, too. A peer that left and returned has a new stay, in which it does not know the members
    // any more. So this peer must be announced again.
    let same = |a: &Announcement, b: &Announcement| {
        a.claim == b.claim && a.stay == b.stay && a.discovered.data() == b.discovered.data()
    };
    for announcement in &mut Arc::make_mut(presence).memberships {
        let at = known.memberships.binary_search_by(|a| a.network.cmp(&announcement.network));
        if let Ok(at) = at
            && same(&known.memberships[at], announcement)
        {
            *announcement = Arc::clone(&known.memberships[at]);
        }
    }
}
