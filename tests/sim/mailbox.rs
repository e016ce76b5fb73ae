//! Letters in flight from one machine (a shard or the relay) to another. These letters pass through the type `Outbox`,
//! which real hubs use, too.

use std::collections::VecDeque;

use proto::{Letter, Outbox};

/// A queue of letters. Letters leave the outbox in batches, and arrive one by one in their order.
#[derive(Debug)]
pub(crate) struct Mailbox<L> {
    outbox: Outbox<L>,
    batch: VecDeque<L>,
}

impl<L> Default for Mailbox<L> {
    fn default() -> Self {
        Self { outbox: Outbox::default(), batch: VecDeque::new() }
    }
}

impl<L: Letter> Mailbox<L> {
    pub(crate) fn push(&mut self, letter: L) {
        self.outbox.push(letter);
    }

    pub(crate) fn pop(&mut self) -> Option<L> {
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
