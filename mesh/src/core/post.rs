//! Letters to shards.

use std::collections::VecDeque;

use proto::limits::{LETTER_BATCH, LETTER_BATCH_BYTES, OUTBOX_HIGH_WATER, OUTBOX_HIGH_WATER_BYTES};
use proto::{Letter, LinkId, ShardId};
use std::task::Waker;

use super::Core;

impl Core {
    pub(super) fn post(&mut self, to: ShardId, letter: Letter) {
        let Some(outbox) = self.outboxes.get_mut(usize::from(to.0)) else {
            return tracing::error!(shard = to.0, "a letter to a shard that is not there");
        };
        outbox.push(letter);
        self.stats.letters_out += 1;
        self.stats.outbox_peak = self.stats.outbox_peak.max(outbox.letters.len() as u64);
        if outbox.is_over(1) && !self.stalled {
            self.stalled = true;
            self.stats.stalls += 1;
        }
        self.wake_flusher();
    }

    pub(crate) fn has_letters_for(&self, shard: ShardId) -> bool {
        self.outboxes.get(usize::from(shard.0)).is_some_and(|outbox| !outbox.letters.is_empty())
    }

    /// Takes the next batch for a shard.
    pub(crate) fn take_letters(&mut self, shard: ShardId) -> Vec<Letter> {
        let batch = self.outboxes.get_mut(usize::from(shard.0)).map(Outbox::take_batch).unwrap_or_default();
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

    /// Whether links are not to be read just now: what they say could not be passed on.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Has a link's task woken when links are read again.
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

/// Letters for one shard that its mailbox has not taken yet.
#[derive(Default)]
pub(super) struct Outbox {
    letters: VecDeque<Letter>,
    /// Of the frames in them.
    bytes: usize,
}

impl Outbox {
    fn push(&mut self, letter: Letter) {
        self.bytes += weight(&letter);
        self.letters.push_back(letter);
    }

    fn take_batch(&mut self) -> Vec<Letter> {
        let mut batch = Vec::with_capacity(self.letters.len().min(LETTER_BATCH));
        let mut bytes = 0;
        while batch.len() < LETTER_BATCH && bytes < LETTER_BATCH_BYTES {
            let Some(letter) = self.letters.pop_front() else { break };
            bytes += weight(&letter);
            batch.push(letter);
        }
        self.bytes -= bytes;
        batch
    }

    /// Whether more waits than a `part` of the high-water mark.
    fn is_over(&self, part: usize) -> bool {
        self.letters.len() > OUTBOX_HIGH_WATER / part || self.bytes > OUTBOX_HIGH_WATER_BYTES / part
    }
}

/// Bytes that a letter alone holds; what others share is not counted.
fn weight(letter: &Letter) -> usize {
    if let Letter::Signal { frame, .. } = letter { frame.len() } else { 0 }
}
