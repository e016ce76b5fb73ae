//! Counts the bytes that this hub stores for other hubs. A hub stores the presence of other hubs, changes that wait for
//! an earlier change, and signals that wait.
//!
//! Each kind has a budget for all hubs together. One hub can use at most half of a budget, so that a broken or hostile
//! hub leaves room for the other hubs.

use crate::envelope::{Change, ChangeKind, Presence};
use crate::limits::{MEMBER_BYTES, REMOTE_PEER_BYTES};
use crate::router::Announcement;
use crate::tuning::RelayTuning;

/// The budgets of all kinds.
#[derive(Debug)]
pub(super) struct Budgets {
    /// Bytes of replicas and snapshots. The maximum is MESH_PRESENCE_BYTES.
    pub(super) presence: Budget,
    /// Bytes of changes that wait for an earlier change. The maximum is
    /// [`MAX_AHEAD_BYTES`](crate::limits::MAX_AHEAD_BYTES).
    pub(super) ahead: Budget,
    /// Bytes of signals that wait. The maximum is [`MAX_HELD_BYTES`](crate::limits::MAX_HELD_BYTES).
    pub(super) held: Budget,
}

/// A budget for all hubs together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    used: usize,
    most: usize,
}

/// The bytes that this hub stores for one other hub, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Kept {
    pub(super) presence: usize,
    pub(super) ahead: usize,
    pub(super) held: usize,
}

impl Budget {
    const fn of(most: usize) -> Self {
        Self { used: 0, most }
    }

    /// Maximum number of bytes for a hub that uses `own` bytes now.
    pub(super) fn allows(&self, own: usize) -> usize {
        (self.most / 2).min((self.most - self.used.min(self.most)).saturating_add(own))
    }

    /// The bytes in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    fn change(&mut self, before: usize, now: usize) {
        self.used = self.used.saturating_sub(before) + now;
    }
}

impl Budgets {
    pub(super) fn new(presence: usize, tuning: &RelayTuning) -> Self {
        Self {
            presence: Budget::of(presence),
            ahead: Budget::of(tuning.max_ahead_bytes),
            held: Budget::of(tuning.max_held_bytes),
        }
    }

    /// Sets a smaller budget for signals that wait.
    #[cfg(test)]
    pub(super) fn limit_held(&mut self, most: usize) {
        self.held.most = most;
    }

    /// Records that the bytes kept for a hub have changed from `before` to `now`.
    pub(super) fn change(&mut self, before: Kept, now: Kept) {
        self.presence.change(before.presence, now.presence);
        self.ahead.change(before.ahead, now.ahead);
        self.held.change(before.held, now.held);
    }
}

/// Size in bytes of a membership in the memory of this hub.
pub(super) fn membership_bytes(announcement: &Announcement) -> usize {
    announcement.discovered.frame_len() + MEMBER_BYTES
}

/// Size in bytes of a peer with its memberships in the memory of this hub.
pub(super) fn presence_bytes(presence: &Presence) -> usize {
    REMOTE_PEER_BYTES + presence.memberships.iter().map(|announcement| membership_bytes(announcement)).sum::<usize>()
}

/// Size in bytes of a change that waits for an earlier change.
pub(super) fn change_bytes(change: &Change) -> usize {
    let data = match &change.kind {
        ChangeKind::Joined(announcement) => announcement.discovered.frame_len(),
        ChangeKind::Left { frame, .. } => frame.frame_len(),
        ChangeKind::Up | ChangeKind::Down(_) => 0,
    };
    MEMBER_BYTES + data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hub_uses_half_of_a_budget_and_two_use_all_of_it() {
        let mut budget = Budget::of(100);
        assert_eq!((budget.allows(0), budget.allows(30)), (50, 50));
        budget.change(0, 50);
        budget.change(0, 30);
        assert_eq!((budget.used(), budget.allows(0), budget.allows(30), budget.allows(50)), (80, 20, 50, 50));
        budget.change(30, 50);
        assert_eq!((budget.allows(0), budget.allows(50)), (0, 50));
        budget.change(50, 0);
        assert_eq!((budget.used(), budget.allows(0)), (50, 50));
    }
}
