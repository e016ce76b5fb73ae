//! The order in which sessions are written.

use std::collections::VecDeque;

use proto::limits::{FLUSH_BACKLOG, FLUSH_BACKLOG_BYTES};
use proto::{Bugs, MessageKind, SessionId};

use super::slots::Slots;
use crate::queue::SendQueue;
use proto::lower;

/// The two lists of sessions to write. Neither list changes the order of frames within a session's queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Urgency {
    /// Sessions that, since they were last written, were given a frame other than the presence of peers. Also sessions
    /// whose last write has left a signal in the queue.
    First,
    /// Sessions that were given only the presence of peers since then. Also sessions that were blocked, and sessions
    /// whose last write has left a part of the queue without signals.
    Later,
}

impl Urgency {
    pub(super) fn of(kind: MessageKind) -> Self {
        let is_presence =
            matches!(kind, MessageKind::PeerDiscovered | MessageKind::PeerDisconnected | MessageKind::Goodbye);
        if is_presence { Self::Later } else { Self::First }
    }

    pub(super) fn of_queue(queue: &SendQueue) -> Self {
        if queue.has_signals() { Self::First } else { Self::Later }
    }
}

/// What the lists record about one session, and whether its socket accepts bytes.
#[derive(Debug, Default)]
pub(crate) struct WriteState {
    /// Whether the session is scheduled for a write.
    dirty: bool,
    /// Bytes queued for the session, as counted in [`WriteLists::dirty_bytes`].
    dirty_bytes: u64,
    /// Whether the session is in the list of sessions that are written first.
    in_first: bool,
    /// Whether the session is in the list of sessions that are written later.
    in_later: bool,
    /// Whether the socket accepts no bytes at the moment.
    blocked: bool,
    /// Whether the blocked socket has become writable since the session was last written.
    regained: bool,
}

impl WriteState {
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Records that the socket accepts no more bytes. From now on, the session is not scheduled for another write until
    /// the socket may accept bytes again.
    pub(super) fn block(&mut self) {
        self.blocked = true;
    }

    /// Records that the socket may accept bytes again.
    pub(super) fn unblock(&mut self) {
        (self.blocked, self.regained) = (false, true);
    }

    /// Records that the socket has failed, so that nobody waits until it accepts bytes.
    pub(super) fn fail(&mut self) {
        self.blocked = false;
    }

    /// Whether the blocked socket has become writable since the last call.
    pub(super) fn take_regained(&mut self) -> bool {
        std::mem::take(&mut self.regained)
    }

    #[cfg(test)]
    pub(super) fn is_in_later(&self) -> bool {
        self.in_later
    }
}

/// The sessions of a shard that have data to write.
#[derive(Default)]
pub(super) struct WriteLists {
    /// Sessions to write first. A session is at most once in each of the two lists, and may already have been written
    /// from the other one.
    first: VecDeque<SessionId>,
    /// Sessions to write later.
    later: VecDeque<SessionId>,
    /// Number of sessions with data to write.
    dirty: u64,
    /// Bytes queued for these sessions.
    dirty_bytes: u64,
    /// Whether too much output is queued. Sessions with expensive turns that cause much output then have only one turn
    /// in [`HELD_ROUNDS`](proto::limits::HELD_ROUNDS) rounds, all together.
    behind: bool,
}

impl WriteLists {
    /// Lists a session, with `added` more bytes. Returns true if the session had no data to write before. Does nothing
    /// if the session is blocked.
    pub(super) fn add(&mut self, id: SessionId, state: &mut WriteState, added: usize, urgency: Urgency) -> bool {
        if state.blocked {
            return false;
        }
        state.dirty_bytes += added as u64;
        self.dirty_bytes += added as u64;
        let was_dirty = std::mem::replace(&mut state.dirty, true);
        let (list, is_listed) = match urgency {
            Urgency::First => (&mut self.first, &mut state.in_first),
            Urgency::Later => (&mut self.later, &mut state.in_later),
        };
        // A session in the first list need not be in the second list too.
        if (!was_dirty || urgency == Urgency::First) && !std::mem::replace(is_listed, true) {
            list.push_back(id);
        }
        self.dirty += u64::from(!was_dirty);
        self.behind |= self.dirty > FLUSH_BACKLOG as u64 && self.dirty_bytes > FLUSH_BACKLOG_BYTES as u64;
        !was_dirty
    }

    /// Removes and returns the next session to write. Every fourth session of a flush comes from the second list, so
    /// that no session waits for ever.
    pub(super) fn next(&mut self, nth: usize, sessions: &mut Slots, bugs: &mut Bugs) -> Option<SessionId> {
        loop {
            let is_later = self.first.is_empty() || (nth % 4 == 3 && !self.later.is_empty());
            let id = if is_later { self.later.pop_front() } else { self.first.pop_front() }?;
            // The session may have ended since it was listed.
            let Some(session) = sessions.get_mut(id) else { continue };
            let state = &mut session.writes;
            if is_later {
                state.in_later = false;
            } else {
                state.in_first = false;
            }
            if state.dirty {
                self.uncount(state, bugs);
                return Some(id);
            }
        }
    }

    /// Removes the data of a session that is written now, or that has ended, from the counters.
    pub(super) fn uncount(&mut self, state: &mut WriteState, bugs: &mut Bugs) {
        let (bytes, dirty) = (std::mem::take(&mut state.dirty_bytes), std::mem::take(&mut state.dirty));
        lower!(bugs, self.dirty_bytes, bytes);
        lower!(bugs, self.dirty, u64::from(dirty));
    }

    /// Checks whether too much output is still queued after some sessions were written. Returns true if sessions are
    /// left to write.
    pub(super) fn catch_up(&mut self) -> bool {
        self.behind &= self.dirty > FLUSH_BACKLOG as u64 / 2 && self.dirty_bytes > FLUSH_BACKLOG_BYTES as u64 / 2;
        self.has_any()
    }

    pub(super) fn has_any(&self) -> bool {
        self.dirty > 0
    }

    pub(super) fn is_behind(&self) -> bool {
        self.behind
    }

    #[cfg(test)]
    pub(super) fn set_behind(&mut self, behind: bool) {
        self.behind = behind;
    }

    /// Number of sessions with data to write, and the bytes queued for them.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.dirty, self.dirty_bytes)
    }
}
