//! Letters to other shards and to the mesh.

use std::collections::VecDeque;

use proto::limits::{FLUSH_BACKLOG, LETTER_BATCH, LETTER_BATCH_BYTES, OUTBOX_HIGH_WATER, OUTBOX_HIGH_WATER_BYTES};
use proto::{Address, Letter, SessionId};

use super::Core;

impl Core {
    pub(super) fn post(&mut self, to: Address, letter: Letter) {
        let place = match to {
            Address::Shard(shard) => usize::from(shard.0),
            Address::Mesh => usize::from(self.shards),
        };
        // The router writes to nobody whom its hub does not have: neither a shard too many nor a mesh.
        let Some(outbox) = self.outboxes.get_mut(place) else { return };
        outbox.push(letter);
        self.stats.letters_out += 1;
        self.stats.outbox_peak = self.stats.outbox_peak.max(outbox.letters.len() as u64);
        self.waiting_letters += 1;
        if outbox.is_over(1) && !self.stalled {
            self.stalled = true;
            self.stats.stalls += 1;
        }
        self.wake_flusher();
    }

    pub(crate) fn has_letters(&self, place: usize) -> bool {
        !self.outboxes[place].letters.is_empty()
    }

    /// Takes the next batch for the shard of that number; the mesh's place is behind the last shard's.
    pub(crate) fn take_letters(&mut self, place: usize) -> Vec<Letter> {
        let batch = self.outboxes[place].take_batch();
        self.waiting_letters -= batch.len();
        self.stats.letter_batches_out += 1;
        if self.stalled && !self.outboxes.iter().any(|outbox| outbox.is_over(2)) {
            self.stalled = false;
            self.listening_since = self.clock.now().at;
        }
        self.unpark();
        batch
    }

    /// Whether no frames are to be read just now: what they say could not be passed on.
    pub(crate) fn is_busy(&self) -> bool {
        self.stalled || self.is_behind()
    }

    /// Whether more sessions wait to be written to than is good for them.
    pub(crate) fn is_behind(&self) -> bool {
        self.dirty.len() > FLUSH_BACKLOG
    }

    /// Has the tasks read on that were kept from it, if they may.
    pub(super) fn unpark(&mut self) {
        if self.is_busy() {
            return;
        }
        for id in std::mem::take(&mut self.parked) {
            if let Some(session) = self.session_mut(id) {
                session.parked = false;
                session.wake();
            }
        }
    }

    /// Has a session's task woken when frames are read again.
    pub(crate) fn park(&mut self, id: SessionId) {
        if let Some(session) = self.session_mut(id).filter(|session| !session.parked) {
            session.parked = true;
            self.parked.push(id);
        }
    }
}

/// Letters for one address that its mailbox has not taken yet.
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

/// Bytes that a letter alone holds; the announcements of others are shared with the rosters.
fn weight(letter: &Letter) -> usize {
    match letter {
        Letter::Signal { frame, .. } => frame.len(),
        Letter::AskTakeover { .. }
        | Letter::Challenge { .. }
        | Letter::ChallengeAnswered { .. }
        | Letter::Closed { .. }
        | Letter::Elsewhere { .. }
        | Letter::Joined(_)
        | Letter::Left(_)
        | Letter::Nowhere { .. }
        | Letter::Opened { .. }
        | Letter::Outcome { .. }
        | Letter::TakeoverAnswered { .. } => 0,
    }
}
