//! Signals that were sent to one hub and wait for their outcomes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::id::PeerId;
use crate::limits::{MAX_UNANSWERED_LOOKED_AT, RECEIPT_TIMEOUT};
use crate::router::Origin;

/// The signals to one hub that have no outcome yet.
///
/// Outcomes return in nearly the order of the counters, so most signals are found by their distance from the oldest
/// signal in `recent`. A target that reads slowly delays the outcomes of its own signals for a long time. Old signals
/// without an outcome are moved to `aside`, so that `recent` stays short.
#[derive(Debug, Default)]
pub(in crate::relay) struct Outbound {
    /// The last counter assigned.
    counter: u64,
    /// The latest signals, in the order of their counters. `None` stands for a signal that has its outcome. The first
    /// element is never `None`.
    recent: VecDeque<Option<Pending>>,
    /// Older signals without an outcome.
    aside: BTreeMap<u64, Pending>,
    open: usize,
}

#[derive(Debug)]
pub(in crate::relay) struct Pending {
    deadline: Duration,
    pub(super) origin: Origin,
    pub(super) target: PeerId,
}

const _: () = assert!(size_of::<Option<Pending>>() <= 136);

impl Outbound {
    /// Maximum length of `recent`, in signals. 4,096 x 136 B = 557 KB fit into a core's cache.
    const RECENT: usize = 4096;

    pub(in crate::relay) fn len(&self) -> usize {
        self.open
    }

    /// The last counter assigned.
    pub(in crate::relay) fn counter(&self) -> u64 {
        self.counter
    }

    /// Time at which the oldest signal expires. All signals have the same timeout.
    pub(in crate::relay) fn due(&self) -> Option<Duration> {
        let recent = || self.recent.front().and_then(Option::as_ref);
        self.aside.values().next().or_else(recent).map(|pending| pending.deadline)
    }

    /// Advances the counter as if this number of signals had been sent, lost and given up.
    #[cfg(test)]
    pub(in crate::relay) fn lose(&mut self, count: u64) {
        debug_assert!(self.recent.is_empty(), "no signal is outstanding");
        self.counter += count;
    }

    pub(in crate::relay) fn issue(&mut self, origin: Origin, target: PeerId, now: Duration) -> u64 {
        if self.recent.len() >= Self::RECENT {
            let first = self.first_recent();
            self.aside.extend(self.recent.pop_front().flatten().map(|pending| (first, pending)));
            self.drop_answered();
        }
        self.counter += 1;
        self.open += 1;
        self.recent.push_back(Some(Pending { deadline: now + RECEIPT_TIMEOUT, origin, target }));
        self.counter
    }

    /// Removes and returns the signal to which an outcome belongs. Returns `None` if the signal has expired or was
    /// never sent.
    pub(in crate::relay) fn take(&mut self, counter: u64) -> Option<Pending> {
        let pending = match counter.checked_sub(self.first_recent()) {
            Some(place) => self.recent.get_mut(usize::try_from(place).ok()?)?.take(),
            None => self.aside.remove(&counter),
        }?;
        self.open -= 1;
        self.drop_answered();
        Some(pending)
    }

    /// Whether signals to at least two targets have no outcome. Only signals with counters after `after` that were sent
    /// before `before` count. At most [`MAX_UNANSWERED_LOOKED_AT`] signals are examined. Two targets are required,
    /// because a single target may only read slowly.
    pub(in crate::relay) fn has_open(&self, after: u64, before: Duration) -> bool {
        let sent = |pending: &Pending| pending.deadline.saturating_sub(RECEIPT_TIMEOUT);
        let aside = self.aside.range(after.saturating_add(1)..).map(|(_, pending)| pending);
        let place = after.saturating_add(1).saturating_sub(self.first_recent());
        let recent = self.recent.iter().skip(usize::try_from(place).unwrap_or(usize::MAX)).flatten();
        let all = aside.chain(recent).take(MAX_UNANSWERED_LOOKED_AT);
        let mut targets = all.take_while(|p| sent(p) < before).map(|p| p.target);
        let first = targets.next();
        targets.any(|target| first != Some(target))
    }

    /// Removes and returns at most `most` expired signals. A later call returns further expired signals.
    pub(in crate::relay) fn expire(&mut self, most: usize, now: Duration) -> Vec<Pending> {
        let mut expired = Vec::new();
        while expired.len() < most
            && self.due().is_some_and(|at| at <= now)
            && let Some(oldest) = self.take_oldest()
        {
            expired.push(oldest);
        }
        expired
    }

    /// Removes and returns all outstanding signals. The counter continues from its current value.
    pub(in crate::relay) fn give_up(&mut self) -> Self {
        let counter = self.counter;
        std::mem::replace(self, Self { counter, ..Self::default() })
    }

    pub(in crate::relay) fn take_oldest(&mut self) -> Option<Pending> {
        self.oldest().and_then(|oldest| self.take(oldest))
    }

    fn oldest(&self) -> Option<u64> {
        let recent = || (!self.recent.is_empty()).then(|| self.first_recent());
        self.aside.keys().next().copied().or_else(recent)
    }

    /// The counter of the first signal in `recent`.
    fn first_recent(&self) -> u64 {
        self.counter + 1 - self.recent.len() as u64
    }

    fn drop_answered(&mut self) {
        while self.recent.front().is_some_and(Option::is_none) {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::id::{NetworkName, SessionId, ShardId};
    use crate::router::{Sender, Standing};
    use crate::wire::SignalKind;

    #[test]
    fn many_open_old_signals_do_not_hide_later_unanswered_signals() {
        let mut outbound = Outbound::default();
        let mut issue = |count: usize, target: u8| {
            for _ in 0..count {
                let session = SessionId { slot: 0, generation: 0 };
                let sender = Sender::Session { shard: ShardId(0), session, ticket: None, detour: false };
                let (kind, standing) = (SignalKind::Offer, Standing::Member(1));
                let origin = Origin { sender, kind, network: NetworkName::new("n"), standing, read_at: Duration::ZERO };
                outbound.issue(origin, PeerId::from_bytes([target; 20]), Duration::ZERO);
            }
            outbound.counter()
        };
        // So many signals are issued that some of them are moved to `aside`.
        let after = issue(Outbound::RECENT + 2 * MAX_UNANSWERED_LOOKED_AT, 1);
        issue(1, 2);
        issue(1, 3);
        let before = Duration::from_secs(1);
        assert!(outbound.has_open(after, before) && !outbound.has_open(after + 1, before));
        assert!(!outbound.has_open(u64::MAX, before) && !outbound.has_open(after, Duration::ZERO));
        for counter in 1..=after / 2 {
            outbound.take(counter);
        }
        assert!(outbound.has_open(after, before) && !outbound.has_open(after + 1, before));
    }

    #[test]
    fn outcomes_find_their_signals_in_whatever_order_they_come() {
        let session = SessionId { slot: 0, generation: 0 };
        let mut outbound = Outbound::default();
        let issue = |outbound: &mut Outbound, ticket, secs| {
            let sender = Sender::Session { shard: ShardId(0), session, ticket: NonZeroU64::new(ticket), detour: false };
            let network = NetworkName::new("n");
            let (kind, standing) = (SignalKind::Offer, Standing::Member(1));
            let origin = Origin { sender, kind, network, standing, read_at: Duration::ZERO };
            assert_eq!(outbound.issue(origin, PeerId::from_bytes([0; 20]), Duration::from_secs(secs)), ticket);
        };
        let ticket = |pending: &Pending| match pending.origin.sender {
            Sender::Session { ticket, .. } => ticket.map_or(0, NonZeroU64::get),
            Sender::Hub { .. } => 0,
        };
        let count = 3 * Outbound::RECENT as u64;
        // Every hundredth target reads slowly.
        let slow = |n: u64| n % 100 == 7;
        for n in 1..=count {
            issue(&mut outbound, n, n / 1000);
            if n > 20 && !slow(n - 20) {
                assert_eq!(outbound.take(n - 20).as_ref().map(ticket), Some(n - 20));
            }
            assert!(outbound.recent.len() <= Outbound::RECENT);
        }
        assert!(
            outbound.take(1).is_none() && outbound.take(count + 1).is_none(),
            "a signal is taken once, and only if it was sent"
        );
        let slow_ones: Vec<u64> = (1..=count - 20).filter(|&n| slow(n)).collect();
        assert_eq!(outbound.len(), slow_ones.len() + 20);
        let kept = outbound.aside.len() + outbound.recent.len();
        assert!(kept < slow_ones.len() + Outbound::RECENT, "{kept}");
        let at = outbound.due().unwrap();
        assert_eq!(at, RECEIPT_TIMEOUT);
        let expired = outbound.expire(usize::MAX, RECEIPT_TIMEOUT + Duration::from_secs(5));
        assert_eq!(expired.iter().map(ticket).collect::<Vec<_>>(), {
            slow_ones.iter().copied().filter(|n| n / 1000 <= 5).collect::<Vec<_>>()
        });
        assert_eq!(outbound.take(slow_ones[slow_ones.len() - 1]).as_ref().map(ticket), slow_ones.last().copied());
        let mut given_up = outbound.give_up();
        let left: Vec<_> = std::iter::from_fn(|| given_up.take_oldest()).collect();
        assert!(left.is_sorted_by_key(ticket) && outbound.len() == 0 && outbound.due().is_none(), "{}", left.len());
        issue(&mut outbound, count + 1, 0);
        assert_eq!(outbound.len(), 1);
    }
}
