//! Changes of one hub that arrived before an earlier change of the same hub.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::envelope::Change;
use crate::limits::{DOUBT_BEATS, MAX_CHANGES_AHEAD};

use super::budgets::change_bytes;

/// Changes of one hub that wait for a missing earlier change, or for a snapshot that is on its way. There are at most
/// [`MAX_CHANGES_AHEAD`] such changes.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// The changes by their numbers. The first element of each value is the number of the last heartbeat that arrived
    /// before the change.
    changes: BTreeMap<u64, (u64, Arc<Change>)>,
    bytes: usize,
}

impl Ahead {
    /// Size of the changes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn contains(&self, seq: u64) -> bool {
        self.changes.contains_key(&seq)
    }

    /// The number of the first change.
    pub(super) fn first(&self) -> Option<u64> {
        self.changes.first_key_value().map(|(seq, _)| *seq)
    }

    /// Stores a change that arrived after the heartbeat `beat`. Returns false if there are already
    /// [`MAX_CHANGES_AHEAD`] changes, or if all changes together would take more than `most` bytes.
    pub(super) fn keep(&mut self, change: Arc<Change>, beat: u64, most: usize) -> bool {
        let bytes = self.bytes + change_bytes(&change);
        let fits = self.changes.len() < MAX_CHANGES_AHEAD && bytes <= most;
        if fits && self.changes.insert(change.seq, (beat, change)).is_none() {
            self.bytes = bytes;
        }
        fits
    }

    /// Removes and returns the first change.
    pub(super) fn pop(&mut self) -> Option<Arc<Change>> {
        let (_, (_, change)) = self.changes.pop_first()?;
        self.bytes -= change_bytes(&change);
        Some(change)
    }

    /// Drops forged changes. `seq` is the hub's last change according to the hub's heartbeat `beat`. A change with a
    /// greater number than `seq` counts as forged if it arrived at least [`DOUBT_BEATS`] heartbeats earlier.
    pub(super) fn forget_unconfirmed(&mut self, beat: u64, seq: u64) {
        if self.changes.last_key_value().is_some_and(|(&last, _)| last > seq) {
            self.changes.retain(|&ahead, (at, change)| {
                let is_kept = ahead <= seq || beat < at.saturating_add(DOUBT_BEATS);
                self.bytes -= if is_kept { 0 } else { change_bytes(change) };
                is_kept
            });
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::ChangeKind;
    use crate::id::{HubId, HubIncarnation, PeerId, PeerIncarnation};

    fn change(seq: u64) -> Arc<Change> {
        let peer = PeerId::from_bytes([2; 20]);
        let (hub, incarnation, session) = (HubId(peer), HubIncarnation(1), PeerIncarnation(1));
        Arc::new(Change { hub, incarnation, seq, peer, session, kind: ChangeKind::Up })
    }

    fn seqs(ahead: &Ahead) -> Vec<u64> {
        ahead.changes.keys().copied().collect()
    }

    #[test]
    fn a_change_is_dropped_after_four_heartbeats_with_a_lower_last_change() {
        let mut ahead = Ahead::default();
        for seq in [6, 7, 20] {
            assert!(ahead.keep(change(seq), 10, usize::MAX));
        }
        let one = ahead.bytes() / 3;
        for (beat, expected) in
            [(10, vec![6, 7, 20]), (10 + DOUBT_BEATS - 1, vec![6, 7, 20]), (10 + DOUBT_BEATS, vec![6, 7])]
        {
            ahead.forget_unconfirmed(beat, 7);
            assert_eq!((seqs(&ahead), ahead.bytes()), (expected.clone(), expected.len() * one), "{beat}");
        }
    }

    #[test]
    fn changes_are_kept_up_to_a_maximum_of_bytes() {
        let mut ahead = Ahead::default();
        let one = change_bytes(&change(1));
        assert!(ahead.keep(change(2), 1, 2 * one) && ahead.keep(change(3), 1, 2 * one));
        assert!(!ahead.keep(change(4), 1, 2 * one) && ahead.bytes() == 2 * one);
        assert_eq!((ahead.first(), ahead.pop().map(|change| change.seq)), (Some(2), Some(2)));
        assert!(ahead.keep(change(4), 1, 2 * one) && ahead.contains(4) && !ahead.contains(2));
        ahead.clear();
        assert_eq!((ahead.bytes(), ahead.is_empty(), ahead.pop().is_none()), (0, true, true));
    }
}
