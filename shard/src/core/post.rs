//! Posts letters for other shards and for the mesh, and pauses reading while too many letters wait.

use std::task::Context;

use proto::{SessionId, ShardId, ToMesh, ToShard};
use thread::Mailboxes;

use super::Core;

impl Core {
    pub(super) fn post_to_shard(&mut self, to: ShardId, letter: ToShard) {
        self.outboxes.post_to_shard(to, letter, &mut self.bugs);
        self.wake_flusher();
    }

    pub(super) fn post_to_mesh(&mut self, letter: ToMesh) {
        self.outboxes.post_to_mesh(letter, &mut self.bugs);
        self.wake_flusher();
    }

    /// Moves letters to the mailboxes until the mailboxes are full.
    pub(crate) fn deliver(&mut self, to: &mut Mailboxes, cx: &mut Context<'_>) {
        if self.outboxes.deliver(to, cx, &mut self.bugs) {
            self.listening_since = self.now().at;
            self.unpark();
        }
    }

    /// Whether sessions must not read frames now, because too many letters wait in the outboxes.
    pub(crate) fn is_busy(&self) -> bool {
        self.outboxes.is_stalled()
    }

    /// Whether too much output is queued for sockets.
    pub(crate) fn is_behind(&self) -> bool {
        self.writes.is_behind()
    }

    /// Wakes the tasks of parked sessions, if they may read again.
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
                session.read.unpark();
                // The silence of the session is measured from now, because the shard did not read while it was parked.
                session.life.shown(now);
                session.wake();
            }
        }
    }

    /// Parks a session. The task of a parked session is woken when the shard reads frames again.
    pub(crate) fn park(&mut self, id: SessionId) {
        if self.session_mut(id).is_some_and(|session| session.read.park()) {
            self.parked.push(id);
        }
    }
}
