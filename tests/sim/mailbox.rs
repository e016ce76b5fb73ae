//! Letters in flight from one machine to another, in the outbox of real hubs.

use std::collections::VecDeque;

use proto::{Letter, Outbox};

/// First in, first out. Letters leave the outbox in batches and arrive one by one.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    outbox: Outbox,
    batch: VecDeque<Letter>,
}

impl Mailbox {
    pub(crate) fn push(&mut self, letter: Letter) {
        self.outbox.push(letter);
    }

    pub(crate) fn pop(&mut self) -> Option<Letter> {
        assert_eq!(self.outbox.lost(), 0, "letters-lost: an outbox has lost letters");
        if self.batch.is_empty() {
            self.batch = self.outbox.take_batch().into();
        }
        self.batch.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.outbox.is_empty()
    }
}
