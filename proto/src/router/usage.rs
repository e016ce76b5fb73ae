//! The used parts of the budgets of a session and of a network.

use std::num::NonZero;
use std::time::Duration;

use crate::budget::{Budget, BudgetItem, BudgetOwner, Exceeded, Used};
use crate::limits::{ANNOUNCE_COST_BYTES, LIGHT_PART, RATE_LIMIT_PATIENCE, RATE_LIMIT_PAUSE};

/// The used part of each item of a budget. Times are in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Usage([Used; BudgetItem::ALL.len()]);

impl Usage {
    /// Takes `n` units of an item.
    ///
    /// # Errors
    ///
    /// If less than `n` of the item is left. For events, if nothing is left.
    fn take(&mut self, item: BudgetItem, n: u64, budget: &Budget, now: u64) -> Result<(), u64> {
        let (used, allowance) = (&mut self.0[item as usize], budget.allowance(item));
        if item == BudgetItem::Events {
            // Events are accepted while any of the budget is left, because one event can cost more than a burst.
            used.take_if_any(n, allowance, now)
        } else {
            used.take(n, allowance, now)
        }
    }

    /// Takes `n` units of an item, even if less is left. Used for events that cannot be refused.
    pub(super) fn spend(&mut self, item: BudgetItem, n: u64, budget: &Budget, now: Duration) {
        self.0[item as usize].spend(n, budget.allowance(item), nanos(now));
    }

    /// The time until a session uses at most 1/[`LIGHT_PART`] of its burst, in nanoseconds. While a session uses no
    /// more than this, none of its messages is refused because of a network's budget.
    fn until_light(&self, item: BudgetItem, budget: &Budget, now: u64) -> u64 {
        self.0[item as usize].until_light(LIGHT_PART, budget.allowance(item), now)
    }
}

/// The used part of a session's budget, and whether the session ignores refusals.
#[derive(Debug, Default)]
pub(super) struct SessionUsage {
    usage: Usage,
    overrun: Option<Overrun>,
}

/// Successive messages of a session that exceeded a budget.
#[derive(Clone, Copy, Debug)]
struct Overrun {
    since: u64,
    last: u64,
    refused: NonZero<u32>,
}

/// The state of a session after a refused message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refusals {
    /// Number of refused messages since the last pause of [`RATE_LIMIT_PAUSE`], including this message.
    pub(super) count: u32,
    /// Whether refused messages have continued for [`RATE_LIMIT_PATIENCE`] without a pause.
    pub(super) client_ignores: bool,
}

impl SessionUsage {
    /// Takes `n` units of an item.
    ///
    /// # Errors
    ///
    /// If the session's budget has too little left.
    pub(super) fn take(&mut self, item: BudgetItem, n: u64, budget: &Budget, now: Duration) -> Result<(), Exceeded> {
        let taken = self.usage.take(item, n, budget, nanos(now));
        taken.map_err(|wait| exceeded(BudgetOwner::Session, item, wait))
    }

    /// Takes an announcement of `bytes` bytes.
    ///
    /// # Errors
    ///
    /// If the announcement exceeds the session's budget of announcements.
    pub(super) fn take_announcement(&mut self, bytes: u64, budget: &Budget, now: Duration) -> Result<(), Exceeded> {
        self.take(BudgetItem::Announcements, bytes + ANNOUNCE_COST_BYTES, budget, now)
    }

    /// Takes `n` units of an item, even if less is left.
    pub(super) fn spend(&mut self, item: BudgetItem, n: u64, budget: &Budget, now: Duration) {
        self.usage.spend(item, n, budget, now);
    }

    /// Takes `n` units of an item from the budget of one of the session's networks, which all members share. A session
    /// that has used at most 1/[`LIGHT_PART`] of its own burst is not refused.
    ///
    /// # Errors
    ///
    /// If the network's budget has too little left, and the session has used more than 1/[`LIGHT_PART`] of its own
    /// burst.
    pub(super) fn take_of(
        &self,
        network: &mut Usage,
        (item, n): (BudgetItem, u64),
        (own, shared): (&Budget, &Budget),
        now: Duration,
    ) -> Result<(), Exceeded> {
        let at = nanos(now);
        let Err(wait) = network.take(item, n, shared, at) else { return Ok(()) };
        match self.usage.until_light(item, own, at) {
            0 => {
                network.spend(item, n, shared, now);
                Ok(())
            }
            until_light => Err(exceeded(BudgetOwner::Network, item, wait.min(until_light))),
        }
    }

    /// Records a message that was refused because of a budget.
    pub(super) fn note_refused(&mut self, now: Duration) -> Refusals {
        let now = nanos(now);
        let pause = RATE_LIMIT_PAUSE.as_nanos() as u64;
        let kept = self.overrun.filter(|overrun| now.saturating_sub(overrun.last) < pause);
        let noted = Overrun {
            since: kept.map_or(now, |overrun| overrun.since),
            last: now,
            refused: kept.map_or(NonZero::<u32>::MIN, |overrun| overrun.refused.saturating_add(1)),
        };
        self.overrun = Some(noted);
        let client_ignores = u128::from(now - noted.since) >= RATE_LIMIT_PATIENCE.as_nanos();
        Refusals { count: noted.refused.get(), client_ignores }
    }
}

fn exceeded(owner: BudgetOwner, item: BudgetItem, wait: u64) -> Exceeded {
    Exceeded { owner, item, retry_in: Duration::from_nanos(wait).max(RATE_LIMIT_PAUSE) }
}

fn nanos(now: Duration) -> u64 {
    now.as_secs().saturating_mul(1_000_000_000).saturating_add(now.subsec_nanos().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Allowance, BudgetRates};

    const START: Duration = Duration::from_secs(100);

    #[test]
    fn refusals_that_continue_without_a_pause_close_the_session() {
        let mut usage = SessionUsage::default();
        let step = RATE_LIMIT_PAUSE / 2;
        let mut now = START;
        let mut count = 0;
        while now < START + RATE_LIMIT_PATIENCE {
            count += 1;
            assert_eq!(usage.note_refused(now), Refusals { count, client_ignores: false }, "{now:?}");
            now += step;
        }
        assert_eq!(usage.note_refused(now), Refusals { count: count + 1, client_ignores: true });
        let again = usage.note_refused(now + RATE_LIMIT_PAUSE);
        assert_eq!(
            again,
            Refusals { count: 1, client_ignores: false },
            "after a pause, the time until the session is closed begins again"
        );
    }

    #[test]
    fn a_client_that_waits_for_the_requested_time_is_never_closed() {
        let budget = Budget::UNLIMITED.with(BudgetItem::Messages, Allowance::new(100, 200));
        let (mut usage, mut now, mut refusals) = (SessionUsage::default(), START, 0);
        for _ in 0..100_000 {
            if let Err(exceeded) = usage.take(BudgetItem::Messages, 1, &budget, now) {
                assert!(!usage.note_refused(now).client_ignores, "{now:?}");
                refusals += 1;
                now += exceeded.retry_in;
                assert_eq!(usage.take(BudgetItem::Messages, 1, &budget, now), Ok(()));
            }
        }
        assert!(refusals > 100, "{refusals}");
    }

    #[test]
    fn an_exhausted_network_refuses_sessions_that_have_used_much() {
        let own = Budget::of_session(&BudgetRates::default(), 1000);
        let shared = Budget::UNLIMITED.with(BudgetItem::Messages, Allowance::new(1, 1));
        let (mut network, mut busy, quiet) = (Usage::default(), SessionUsage::default(), SessionUsage::default());
        let item = (BudgetItem::Messages, 1);
        for _ in 0..1000 {
            busy.take(BudgetItem::Messages, 1, &own, START).unwrap();
        }
        assert_eq!(
            busy.take_of(&mut network, item, (&own, &shared), START),
            Ok(()),
            "the network's budget allows one message"
        );
        let exceeded = busy.take_of(&mut network, item, (&own, &shared), START).unwrap_err();
        // The session has used 1,000 messages, 375 more than an eighth of its burst. At 200 messages per second, the
        // session needs 1.875 s to recover 375 messages. The network's budget has a message left after one second.
        assert_eq!((exceeded.owner, exceeded.retry_in), (BudgetOwner::Network, Duration::from_secs(1)));
        for _ in 0..100 {
            assert_eq!(quiet.take_of(&mut network, item, (&own, &shared), START), Ok(()));
        }
        let later = START + Duration::from_millis(1_875);
        assert_eq!(
            busy.take_of(&mut network, item, (&own, &shared), later),
            Ok(()),
            "the session has now used at most an eighth of its burst"
        );
    }

    #[test]
    fn usage_takes_little_memory() {
        assert!(size_of::<SessionUsage>() <= 72 && size_of::<Usage>() == 48);
    }
}
