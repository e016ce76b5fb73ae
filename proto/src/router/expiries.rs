//! Grants of sessions, and the times at which they end.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::grant::Grant;
use crate::id::SessionId;
use crate::limits::TOKEN_WARNING;
use crate::time::Now;

/// The grant of a session.
#[derive(Debug)]
pub(super) struct Held {
    grant: Grant,
    /// Time of the session's entry in [`Expiries`].
    due: Option<Duration>,
    /// Time at which the grant ends.
    ends: Duration,
    is_warned: bool,
    /// Whether a new token is being checked.
    is_renewing: bool,
}

impl Held {
    pub(super) fn new(grant: Grant) -> Self {
        Self { grant, due: None, ends: Duration::MAX, is_warned: false, is_renewing: false }
    }

    pub(super) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Records that a new token is being checked. Returns false if the hub is already checking another token of the
    /// session.
    pub(super) fn begin_renewal(&mut self) -> bool {
        !std::mem::replace(&mut self.is_renewing, true)
    }

    /// Whether a new token is being checked.
    pub(super) fn is_renewing(&self) -> bool {
        self.is_renewing
    }

    /// Records that the check of a new token has ended.
    pub(super) fn end_renewal(&mut self) {
        self.is_renewing = false;
    }

    /// Whether the grant has ended.
    pub(super) fn has_ended(&self, now: Duration) -> bool {
        self.ends <= now
    }

    /// The time until the grant ends. `None` if the grant does not end.
    pub(super) fn left(&self, now: Duration) -> Option<Duration> {
        self.due.map(|_| self.ends.saturating_sub(now))
    }
}

/// The event that is due for a session's grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expiry {
    /// The grant ends after this time.
    Soon(Duration),
    /// The grant has ended.
    Now,
}

/// The sessions whose grants end. Each session has one entry. The entry is the time of the session's warning. After the
/// warning, the entry is the time at which the grant ends.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    due: BTreeSet<(Duration, SessionId)>,
}

impl Expiries {
    /// The time at which [`Self::next_due`] may return something.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Schedules the warning before a session's grant ends. Later jumps of the wall clock do not move the end of the
    /// grant.
    pub(super) fn watch(&mut self, id: SessionId, held: &mut Held, now: Now) {
        self.forget(id, Some(held));
        held.is_warned = false;
        held.due = held.grant.expires_ms().map(|expires_ms| {
            let left = Duration::from_millis(expires_ms.saturating_sub(now.wall_ms));
            held.ends = now.at.saturating_add(left);
            held.ends.saturating_sub(TOKEN_WARNING.min(left / 2))
        });
        self.due.extend(held.due.map(|due| (due, id)));
    }

    /// Replaces a session's grant, and schedules the warning anew.
    pub(super) fn replace(&mut self, id: SessionId, held: &mut Held, grant: Grant, now: Now) {
        held.grant = grant;
        self.watch(id, held, now);
    }

    /// Records that a session has ended.
    pub(super) fn forget(&mut self, id: SessionId, held: Option<&Held>) {
        if let Some(due) = held.and_then(|held| held.due) {
            self.due.remove(&(due, id));
        }
    }

    /// Removes the next session that is due at `now`. The caller then calls [`Self::judge`] with the grant of this
    /// session.
    pub(super) fn next_due(&mut self, now: Duration) -> Option<SessionId> {
        let (at, _) = self.due.first()?;
        if *at > now { None } else { self.due.pop_first().map(|(_, id)| id) }
    }

    /// Decides whether a session must be warned, or whether its grant has ended.
    pub(super) fn judge(&mut self, id: SessionId, held: &mut Held, now: Duration) -> Expiry {
        let left = held.ends.saturating_sub(now);
        if held.is_warned || left.is_zero() {
            held.due = None;
            return Expiry::Now;
        }
        held.is_warned = true;
        held.due = Some(held.ends);
        self.due.insert((held.ends, id));
        Expiry::Soon(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u32) -> SessionId {
        SessionId { slot, generation: 0 }
    }

    fn at(secs: u64) -> Now {
        Now { at: Duration::from_secs(secs), wall_ms: 1_000_000 + secs * 1000 }
    }

    #[test]
    fn a_session_is_warned_once_and_its_grant_ends_once() {
        let (mut expiries, mut held) = (Expiries::default(), Held::new(Grant::everywhere().until(1_140_000)));
        expiries.watch(id(1), &mut held, at(10));
        let secs = Duration::from_secs;
        assert_eq!((expiries.next_deadline(), held.left(secs(10))), (Some(secs(80)), Some(secs(130))));
        assert_eq!((expiries.next_due(secs(79)), expiries.next_due(secs(80))), (None, Some(id(1))));
        assert_eq!(expiries.judge(id(1), &mut held, secs(80)), Expiry::Soon(secs(60)));
        assert_eq!((expiries.next_due(secs(139)), expiries.next_due(secs(140))), (None, Some(id(1))));
        assert_eq!(expiries.judge(id(1), &mut held, secs(140)), Expiry::Now);
        assert_eq!(expiries.next_deadline(), None);
    }

    #[test]
    fn a_new_grant_replaces_the_times_of_the_old_one() {
        let (mut expiries, mut held) = (Expiries::default(), Held::new(Grant::everywhere().until(1_030_000)));
        expiries.watch(id(1), &mut held, at(10));
        assert_eq!(expiries.next_due(at(19).at), None);
        assert_eq!(expiries.next_due(at(20).at), Some(id(1)), "half of the remaining 20 s has passed");
        expiries.judge(id(1), &mut held, at(20).at);
        expiries.replace(id(1), &mut held, Grant::everywhere().until(1_500_000), at(21));
        assert_eq!(expiries.next_deadline(), Some(Duration::from_secs(440)));
        expiries.replace(id(1), &mut held, Grant::everywhere(), at(22));
        assert_eq!((expiries.next_deadline(), held.left(at(22).at)), (None, None));
        expiries.replace(id(1), &mut held, Grant::everywhere().until(u64::MAX), at(23));
        expiries.forget(id(1), Some(&held));
        assert_eq!(expiries.next_deadline(), None);
    }
}
