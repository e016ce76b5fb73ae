//! Letters to other shards and to the mesh.

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

    /// Takes the next batch for the shard of that number; the mesh's place is behind the last shard's.
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

    /// Whether no frames are to be read just now: what they say could not be passed on.
    pub(crate) fn is_busy(&self) -> bool {
        self.stalled || self.is_behind()
    }

    /// Whether more waits to be written than is good for those that it is for.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Has the tasks read on that were kept from it, if they may.
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
                // Its silence counts from here: until now nobody listened.
                session.life.shown(now);
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
