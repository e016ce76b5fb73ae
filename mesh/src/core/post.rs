//! Letters for shards.

use proto::{Letter, LinkId, ShardId, bug};
use std::task::Waker;

use super::Core;

impl Core {
    pub(super) fn post(&mut self, to: ShardId, letter: Letter) {
        let Some(outbox) = self.outboxes.get_mut(usize::from(to.0)) else {
            return bug!(self.bugs, LetterToNobody, "to {to:?}, of {} shards", self.outboxes.len());
        };
        outbox.push(letter);
        self.stats.letters_out += 1;
        self.stats.outbox_peak = self.stats.outbox_peak.max(outbox.len() as u64);
        if outbox.is_over(1) && !self.stalled {
            self.stalled = true;
            self.stats.stalls += 1;
        }
        self.wake_flusher();
    }

    pub(crate) fn has_letters_for(&self, shard: ShardId) -> bool {
        self.outboxes.get(usize::from(shard.0)).is_some_and(|outbox| !outbox.is_empty())
    }

    /// Removes the next batch for a shard.
    pub(crate) fn take_letters(&mut self, shard: ShardId) -> Vec<Letter> {
        let Some(outbox) = self.outboxes.get_mut(usize::from(shard.0)) else {
            bug!(self.bugs, LetterToNobody, "to {shard:?}, of {} shards", self.outboxes.len());
            return Vec::new();
        };
        if outbox.lost() > 0 {
            bug!(self.bugs, LettersLost, "{} letters for {shard:?}", outbox.lost());
        }
        let batch = outbox.take_batch();
        self.stats.letter_batches_out += 1;
        if self.stalled && !self.outboxes.iter().any(|outbox| outbox.is_over(2)) {
            self.stalled = false;
            self.listening_since = self.now().at;
            for id in std::mem::take(&mut self.parked) {
                if let Some(link) = self.links.get_mut(&id) {
                    link.parked = false;
                    link.wake();
                }
            }
        }
        batch
    }

    /// Whether links must not be read now, because the resulting letters could not be posted.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Wakes a link's task when links are read again.
    pub(crate) fn park(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id).filter(|link| !link.parked) {
            link.parked = true;
            self.parked.push(id);
        }
    }

    pub(super) fn wake_flusher(&mut self) {
        if let Some(flusher) = self.flusher.take() {
            flusher.wake();
        }
    }

    pub(crate) fn set_flusher(&mut self, waker: &Waker) {
        self.flusher = Some(waker.clone());
    }
}
