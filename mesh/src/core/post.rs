//! Queues letters for shards. While too many letters wait, links are not read.

use std::task::{Context, Waker};

use proto::{LinkId, ShardId, ToShard};
use thread::Mailboxes;

use super::Core;

impl Core {
    pub(super) fn post(&mut self, to: ShardId, letter: ToShard) {
        self.outboxes.post_to_shard(to, letter, &mut self.bugs);
        self.wake_flusher();
    }

    /// Moves as many letters to the mailboxes as these accept.
    pub(crate) fn deliver(&mut self, to: &mut Mailboxes, cx: &mut Context<'_>) {
        if self.outboxes.deliver(to, cx, &mut self.bugs) {
            self.listening_since = self.now().at;
            for id in std::mem::take(&mut self.parked) {
                if let Some(link) = self.links.get_mut(&id) {
                    link.parked = false;
                    link.wake();
                }
            }
        }
    }

    /// Whether links must not be read now, because the resulting letters could not be posted.
    pub(crate) fn is_stalled(&self) -> bool {
        self.outboxes.is_stalled()
    }

    /// Parks a link. The task of a parked link is woken when links are read again.
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
