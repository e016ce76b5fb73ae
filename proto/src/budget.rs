//! Budgets limit the use per second of a session, and of all sessions of a network together.

use std::time::Duration;

use crate::limits::{
    ANNOUNCE_BURST_SECS, BURST_SECS, DEFAULT_ANNOUNCE_RATE_BYTES, DEFAULT_DISCOVER_RATE, DEFAULT_ERROR_RATE,
    DEFAULT_EVENT_RATE_BYTES, DEFAULT_MESSAGE_RATE, DEFAULT_MESSAGE_RATE_BYTES, ERROR_BURST_SECS,
    MESSAGE_BURST_LARGEST, NETWORK_BURST_SECS,
};

/// A kind of usage that a budget limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BudgetItem {
    /// Messages.
    Messages,
    /// Bytes of messages.
    Bytes,
    /// Bytes of announcements.
    Announcements,
    /// Bytes of the presence events that other peers receive because of a session, and of the rosters that the session
    /// receives.
    Events,
    /// `discover` messages.
    Pages,
    /// `error` messages to the session.
    Errors,
}

impl BudgetItem {
    /// All items, in the order of their discriminants.
    pub const ALL: [Self; 6] =
        [Self::Messages, Self::Bytes, Self::Announcements, Self::Events, Self::Pages, Self::Errors];

    /// Whether budgets of this owner limit this item.
    pub const fn is_of(self, owner: BudgetOwner) -> bool {
        matches!(owner, BudgetOwner::Session) || !matches!(self, Self::Announcements | Self::Errors)
    }

    /// The item in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Bytes => "bytes",
            Self::Announcements => "announcements",
            Self::Events => "events",
            Self::Pages => "discover",
            Self::Errors => "errors",
        }
    }
}

/// The owner of a budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BudgetOwner {
    /// One session.
    Session,
    /// The members of a network on one shard.
    Network,
}

impl BudgetOwner {
    /// All owners, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::Session, Self::Network];

    /// The owner in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Session => "peer",
            Self::Network => "network",
        }
    }
}

/// Average rates of a session, per second. The setting of each rate is in parentheses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BudgetRates {
    /// Messages (MESSAGE_RATE).
    pub messages: u64,
    /// Bytes of messages (MESSAGE_RATE_BYTES).
    pub bytes: u64,
    /// Bytes of announcements (ANNOUNCE_RATE_BYTES).
    pub announcements: u64,
    /// Bytes of events (EVENT_RATE_BYTES).
    pub events: u64,
    /// `discover` messages (DISCOVER_RATE).
    pub pages: u64,
    /// `error` messages (ERROR_RATE).
    pub errors: u64,
}

impl Default for BudgetRates {
    fn default() -> Self {
        Self {
            messages: DEFAULT_MESSAGE_RATE.into(),
            bytes: DEFAULT_MESSAGE_RATE_BYTES,
            announcements: DEFAULT_ANNOUNCE_RATE_BYTES,
            events: DEFAULT_EVENT_RATE_BYTES,
            pages: DEFAULT_DISCOVER_RATE.into(),
            errors: DEFAULT_ERROR_RATE.into(),
        }
    }
}

/// The budget of a session or of a network: an [`Allowance`] for each item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget([Allowance; BudgetItem::ALL.len()]);

impl Budget {
    /// A budget without limits.
    pub const UNLIMITED: Self = Self([Allowance::UNLIMITED; BudgetItem::ALL.len()]);

    /// The budget of a session with these rates. The burst of bytes in this budget is at least
    /// [`MESSAGE_BURST_LARGEST`] messages of the maximum length.
    pub fn of_session(rates: &BudgetRates, max_message_bytes: usize) -> Self {
        let largest = MESSAGE_BURST_LARGEST * max_message_bytes as u64;
        let of = |rate: u64, secs: u64| Allowance::new(rate, rate.saturating_mul(secs));
        Self([
            of(rates.messages, BURST_SECS),
            Allowance::new(rates.bytes, largest.max(rates.bytes.saturating_mul(BURST_SECS))),
            of(rates.announcements, ANNOUNCE_BURST_SECS),
            of(rates.events, BURST_SECS),
            of(rates.pages, BURST_SECS),
            of(rates.errors, ERROR_BURST_SECS),
        ])
    }

    /// The budget of a network. On average, the members of the network together may use as much as `sessions` sessions
    /// with these rates (NETWORK_BUDGETS).
    pub fn of_network(rates: &BudgetRates, sessions: u32) -> Self {
        let of = |rate: u64| {
            let rate = rate.saturating_mul(sessions.into());
            Allowance::new(rate, rate.saturating_mul(NETWORK_BURST_SECS))
        };
        let BudgetRates { messages, bytes, announcements, events, pages, errors } = *rates;
        Self([messages, bytes, announcements, events, pages, errors].map(of))
    }

    /// One of `parts` equal shares of this budget. Each shard enforces one share.
    #[must_use]
    pub fn share(self, parts: u16) -> Self {
        Self(
            self.0.map(|Allowance { unit, burst }| Allowance { unit: unit.saturating_mul(parts.max(1).into()), burst }),
        )
    }

    /// The same budget with another allowance for one item.
    #[must_use]
    pub fn with(mut self, item: BudgetItem, allowance: Allowance) -> Self {
        self.0[item as usize] = allowance;
        self
    }

    pub(crate) fn allowance(&self, item: BudgetItem) -> Allowance {
        self.0[item as usize]
    }
}

/// A token bucket: an average rate, and a burst above it. Used units are counted as the time in which the bucket
/// refills them, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowance {
    /// Nanoseconds in which one unit refills, times 2^[`Self::FRACTION`].
    unit: u64,
    /// Nanoseconds in which the burst refills.
    burst: u64,
}

impl Allowance {
    /// Number of binary digits of [`Self::unit`] after the binary point. At 1 GiB per second, a byte refills in less
    /// than a nanosecond, so whole nanoseconds would be too coarse.
    const FRACTION: u32 = 20;

    /// An allowance without a limit.
    pub const UNLIMITED: Self = Self { unit: 0, burst: u64::MAX / 4 };

    /// Allows `rate` units per second on average, and at most `burst` units at once. A rate or burst of zero counts as
    /// one.
    pub fn new(rate: u64, burst: u64) -> Self {
        let unit = (1_000_000_000 << Self::FRACTION) / rate.max(1);
        let mut allowance = Self { unit, burst: u64::MAX / 4 };
        allowance.burst = allowance.nanos(burst.max(1)).clamp(1, u64::MAX / 4);
        allowance
    }

    /// The time in which `n` units refill.
    fn nanos(self, n: u64) -> u64 {
        u64::try_from((u128::from(n) * u128::from(self.unit)) >> Self::FRACTION).unwrap_or(u64::MAX / 4)
    }
}

/// The used part of an allowance. The used part is stored as the time at which the bucket will be full again, in
/// nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    full_at: u64,
}

impl Used {
    /// Takes `n` units. More units than a burst count as a burst.
    ///
    /// # Errors
    ///
    /// Returns the time until `n` units are available, in nanoseconds, and takes nothing.
    pub(crate) fn take(&mut self, n: u64, allowance: Allowance, now: u64) -> Result<(), u64> {
        let cost = allowance.nanos(n).min(allowance.burst);
        let full_at = self.full_at.max(now).saturating_add(cost);
        match (full_at - now).checked_sub(allowance.burst) {
            None | Some(0) => {
                self.full_at = full_at;
                Ok(())
            }
            Some(wait) => Err(wait),
        }
    }

    /// Takes `n` units if anything is available. After the call, the bucket can be in debt by at most one burst.
    ///
    /// # Errors
    ///
    /// Returns the time until something is available, in nanoseconds, and takes nothing.
    pub(crate) fn take_if_any(&mut self, n: u64, allowance: Allowance, now: u64) -> Result<(), u64> {
        match self.full_at.saturating_sub(now).checked_sub(allowance.burst) {
            None => {
                self.spend(n, allowance, now);
                Ok(())
            }
            Some(wait) => Err(wait + 1),
        }
    }

    /// Takes `n` units, even if fewer are available.
    pub(crate) fn spend(&mut self, n: u64, allowance: Allowance, now: u64) {
        let cost = allowance.nanos(n).min(allowance.burst);
        self.full_at = self.full_at.max(now).saturating_add(cost).min(now.saturating_add(2 * allowance.burst));
    }

    /// The time until at most 1/`part` of the burst is in use, in nanoseconds.
    pub(crate) fn until_light(self, part: u64, allowance: Allowance, now: u64) -> u64 {
        self.full_at.saturating_sub(now).saturating_sub(allowance.burst / part)
    }
}

/// The error for a message that exceeds a budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Exceeded {
    pub(crate) owner: BudgetOwner,
    pub(crate) item: BudgetItem,
    /// Time after which the message would be accepted, if nothing else uses the budget until then.
    pub(crate) retry_in: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 100_000_000_000;
    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_bucket_holds_its_burst_and_refills_at_its_rate() {
        let (mut used, allowance) = (Used::default(), Allowance::new(10, 20));
        assert!((0..20).all(|_| used.take(1, allowance, START).is_ok()));
        assert_eq!(used.take(1, allowance, START), Err(SECOND / 10));
        let later = START + SECOND / 2;
        assert!((0..5).all(|_| used.take(1, allowance, later).is_ok()));
        assert_eq!(used.take(3, allowance, later), Err(3 * SECOND / 10));
        assert!(used.take(20, allowance, later + 60 * SECOND).is_ok(), "the bucket has refilled");
        assert!(
            Used::default().take(100, allowance, START).is_ok(),
            "a use of more than one burst counts as one burst"
        );
    }

    #[test]
    fn rates_are_exact_from_one_unit_to_a_gibibyte_per_second() {
        for rate in [1, 3, 7, 200, 1 << 20, 1 << 30] {
            let (mut used, allowance) = (Used::default(), Allowance::new(rate, 5 * rate));
            assert!((0..5).all(|_| used.take(rate, allowance, START).is_ok()), "{rate}");
            let wait = used.take(rate, allowance, START).unwrap_err();
            assert!(wait.abs_diff(SECOND) <= 5_000, "{rate}: {wait}");
        }
        let mut used = Used::default();
        assert!((0..1000).all(|_| used.take(u64::MAX, Allowance::UNLIMITED, START).is_ok()));
    }

    #[test]
    fn an_event_is_accepted_while_one_unit_is_available_and_all_its_units_are_counted() {
        let (mut used, allowance) = (Used::default(), Allowance::new(10, 100));
        assert!(used.take_if_any(99, allowance, START).is_ok());
        assert!(used.take_if_any(500, allowance, START).is_ok(), "one unit is available");
        assert_eq!(
            used.take_if_any(1, allowance, START),
            Err(99 * SECOND / 10 + 1),
            "the debt of the bucket is at most one burst"
        );
        assert!(used.take_if_any(1, allowance, START + 10 * SECOND).is_ok());
    }

    #[test]
    fn a_network_has_the_budget_of_many_sessions_divided_by_the_shards() {
        let rates = BudgetRates::default();
        let messages = |budget: Budget| {
            let (mut used, allowance) = (Used::default(), budget.allowance(BudgetItem::Messages));
            std::iter::from_fn(|| used.take(1, allowance, START).ok()).count() as u64
        };
        assert_eq!(messages(Budget::of_session(&rates, 1000)), rates.messages * BURST_SECS);
        assert_eq!(messages(Budget::of_network(&rates, 64)), 64 * rates.messages * NETWORK_BURST_SECS);
        assert_eq!(messages(Budget::of_network(&rates, 64).share(4)), 16 * rates.messages * NETWORK_BURST_SECS);
    }

    #[test]
    fn a_burst_of_bytes_has_room_for_some_messages_of_the_maximum_length() {
        let rates = BudgetRates { bytes: 1, ..BudgetRates::default() };
        let budget = Budget::of_session(&rates, 1_000);
        let (mut used, allowance) = (Used::default(), budget.allowance(BudgetItem::Bytes));
        assert!((0..MESSAGE_BURST_LARGEST).all(|_| used.take(1_000, allowance, START).is_ok()));
        assert!(used.take(1_000, allowance, START).is_err());
    }

    #[test]
    fn a_burst_beyond_the_range_of_its_type_becomes_the_greatest_burst() {
        let (mut used, allowance) = (Used::default(), Allowance::new(1, u64::MAX));
        assert!(used.take(1_000_000_000, allowance, START).is_ok());
        assert!(used.take(u64::MAX, allowance, START).is_err(), "a cost beyond the range counts as a whole burst");
    }
}
