//! Letters for other shards and for the mesh.

use proto::{Address, Letter, SessionId, bug};

use super::Core;

impl Core {
    pub(super) fn post(&mut self, to: Address, letter: Letter) {
        let place = match to {
            Address::Shard(shard) => usize::from(shard.0),
            Address::Mesh => usize::from(self.shards),
        };
        let Some(outbox) = self.outboxes.get_mut(place) else {
            return bug!(self.bugs, LetterToNobody, "to {to:?}, of {} shards", self.shards);
        };
        outbox.push(letter);
        self.stats.letters_out += 1;
        self.stats.outbox_peak = self.stats.outbox_peak.max(outbox.len() as u64);
        self.waiting_letters += 1;
        if outbox.is_over(1) && !self.stalled {
            self.stalled = true;
            self.stats.stalls += 1;
        }
        self.wake_flusher();
    }

    pub(crate) fn has_letters(&self, place: usize) -> bool {
        !self.outboxes[place].is_empty()
    }

    /// Removes the next batch for the shard with this number; the mesh's number follows the last shard's.
    pub(crate) fn take_letters(&mut self, place: usize) -> Vec<Letter> {
        let outbox = &mut self.outboxes[place];
        if outbox.lost() > 0 {
            bug!(self.bugs, LettersLost, "{} letters for {place}", outbox.lost());
        }
        let batch = outbox.take_batch();
        self.waiting_letters -= batch.len();
        self.stats.letter_batches_out += 1;
        if self.stalled && !self.outboxes.iter().any(|outbox| outbox.is_over(2)) {
            self.stalled = false;
            self.listening_since = self.now().at;
        }
        self.unpark();
        batch
    }

    /// Whether no frames may be read now, because the resulting letters could not be posted.
    pub(crate) fn is_busy(&self) -> bool {
        self.stalled || self.is_behind()
    }

    /// Whether so much is queued that further messages would only wait behind it.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Wakes the parked tasks, if they may read again.
    pub(super) fn unpark(&mut self) {
        if self.is_busy() {
            return;
        }
        if self.parked.is_empty() {
            return;
        }
        let now = self.clock.now().at;
        for id in std::mem::take(&mut self.parked) {
            if let Some(session) = self.session_mut(id) {
                session.parked = false;
                // Its silence counts from now: until now it was not read.
                session.life.shown(now);
                session.wake();
            }
        }
    }

    /// Wakes a session's task when frames are read again.
    pub(crate) fn park(&mut self, id: SessionId) {
        if let Some(session) = self.session_mut(id).filter(|session| !session.parked) {
            session.parked = true;
            self.parked.push(id);
        }
    }
}
