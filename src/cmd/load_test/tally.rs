//! The results of a load test are counts, the latency histogram, and violations.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::timeline::{BUCKETS, bucket};

/// Maximum number of names from a hub that are counted separately. All further names are counted as `other`.
const MAX_NAMES: usize = 64;

/// Maximum number of examples per check.
const MAX_EXAMPLES: usize = 3;

/// Maximum latency in the histogram, in microseconds (60 s). A longer latency is recorded as this maximum.
const MAX_LATENCY_MICROS: u64 = 60_000_000;

/// The kinds of violations. A single violation fails the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Check {
    /// The hub ended a session, or the session was lost.
    Closed,
    /// A second discovery of a peer that was already present.
    Duplicate,
    /// The hub answered with an error.
    Error,
    /// A leave of a peer that was not present.
    Ghost,
    /// The user interrupted the run.
    Interrupted,
    /// An event about the peer itself.
    Itself,
    /// A signal arrived later than the scenario `hostile` allows.
    Late,
    /// A signal for another peer or network, or from a peer that should not have sent it.
    Misaddressed,
    /// A member did not discover another member.
    Missing,
    /// A peer did not reconnect.
    NotBack,
    /// A peer announced itself and did not discover the members.
    NotJoined,
    /// An observer received more or fewer joins than there were.
    NotTold,
    /// A receipt whose outcome is not `delivered` or `forwarded`.
    NotDelivered,
    /// A receipt did not arrive.
    ReceiptMissing,
    /// A receipt arrived twice, or without a signal.
    ReceiptUnasked,
    /// A signal did not arrive.
    SignalLost,
    /// A signal arrived although an earlier signal had not arrived.
    SignalSkipped,
    /// A signal arrived again, or after another signal that was sent later.
    SignalRepeated,
    /// A member that left is still considered present.
    StillThere,
    /// An event about a peer that is not in the network.
    Stranger,
    /// An event of a network that the peer has left.
    ToldOutside,
    /// A message that is not JSON, or has an unknown type.
    Unreadable,
    /// The hub did not read the peer's messages.
    Unsent,
}

impl Check {
    /// The name in tables.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Duplicate => "duplicate",
            Self::Error => "error",
            Self::Ghost => "ghost",
            Self::Interrupted => "interrupted",
            Self::Itself => "itself",
            Self::Late => "late",
            Self::Misaddressed => "misaddressed",
            Self::Missing => "missing",
            Self::NotBack => "not-back",
            Self::NotJoined => "not-joined",
            Self::NotTold => "not-told",
            Self::NotDelivered => "not-delivered",
            Self::ReceiptMissing => "receipt-missing",
            Self::ReceiptUnasked => "receipt-unasked",
            Self::SignalLost => "signal-lost",
            Self::SignalSkipped => "signal-skipped",
            Self::SignalRepeated => "signal-repeated",
            Self::StillThere => "still-there",
            Self::Stranger => "stranger",
            Self::ToldOutside => "told-outside",
            Self::Unreadable => "unreadable",
            Self::Unsent => "unsent",
        }
    }
}

/// Number of violations of a check, with examples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Violations {
    pub(super) count: u64,
    pub(super) examples: Vec<String>,
}

/// Counts by name. Names come from a hub, so their number is bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Counts(pub(super) BTreeMap<String, u64>);

impl Counts {
    pub(super) fn add(&mut self, name: &str) {
        if let Some(count) = self.0.get_mut(name) {
            *count += 1;
            return;
        }
        let name = if self.0.len() < MAX_NAMES { name } else { "other" };
        *self.0.entry(name.to_owned()).or_default() += 1;
    }
}

/// The counts of a run.
#[derive(Debug)]
pub(super) struct Tally {
    /// Sessions that were opened.
    pub(super) sessions: u64,
    /// Peers that could not connect, or could not connect again.
    pub(super) failed: u64,
    /// Failed attempts to open a session, including retries.
    pub(super) dial_failures: Counts,
    pub(super) discoveries: u64,
    pub(super) leaves: u64,
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) errors: Counts,
    pub(super) receipts: Counts,
    /// Sessions that this program did not end, by the close code, and closes that the hub did not answer.
    pub(super) closes: Counts,
    /// WebSocket pings that were answered.
    pub(super) pongs: u64,
    pub(super) violations: BTreeMap<Check, Violations>,
    latency_micros: Histogram<u64>,
    /// Number of signals by latency, in the buckets of the hub's latency metric.
    pub(super) latency_buckets: [u64; BUCKETS],
}

impl Tally {
    pub(super) fn new() -> Self {
        let latency_micros = Histogram::new_with_bounds(1, MAX_LATENCY_MICROS, 3);
        Self {
            sessions: 0,
            failed: 0,
            dial_failures: Counts::default(),
            discoveries: 0,
            leaves: 0,
            sent: 0,
            delivered: 0,
            errors: Counts::default(),
            receipts: Counts::default(),
            closes: Counts::default(),
            pongs: 0,
            violations: BTreeMap::new(),
            latency_micros: latency_micros.expect("the bounds are constants that fit"),
            latency_buckets: [0; BUCKETS],
        }
    }

    /// Records a violation. `example` is called only if fewer than [`MAX_EXAMPLES`] examples are recorded.
    pub(super) fn violate(&mut self, check: Check, example: impl FnOnce() -> String) {
        let violations = self.violations.entry(check).or_default();
        violations.count += 1;
        if violations.examples.len() < MAX_EXAMPLES {
            violations.examples.push(example());
        }
    }

    pub(super) fn latency(&mut self, nanos: u64) {
        let micros = (nanos / 1000).max(1);
        self.latency_micros.saturating_record(micros);
        self.latency_buckets[bucket(micros)] += 1;
    }

    /// `None` if no latency was measured.
    pub(super) fn latency_summary(&self) -> Option<Latency> {
        let histogram = &self.latency_micros;
        (!histogram.is_empty()).then(|| Latency {
            samples: histogram.len(),
            mean: histogram.mean().round() as u64,
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        })
    }
}

/// Latencies in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Latency {
    pub(super) samples: u64,
    pub(super) mean: u64,
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
    pub(super) max: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_match_the_recorded_latencies() {
        let mut tally = Tally::new();
        assert_eq!(tally.latency_summary(), None);
        for micros in 1..=1000 {
            tally.latency(micros * 1000);
        }
        let latency = tally.latency_summary().unwrap();
        assert_eq!((latency.samples, latency.p50, latency.p90, latency.max), (1000, 500, 900, 1000));
        assert_eq!((latency.p99, latency.p999), (990, 999));
    }

    #[test]
    fn latencies_out_of_range_are_counted() {
        let mut tally = Tally::new();
        tally.latency(0);
        tally.latency(u64::MAX);
        let latency = tally.latency_summary().unwrap();
        assert_eq!(latency.samples, 2);
        assert!(latency.max >= MAX_LATENCY_MICROS);
    }

    #[test]
    fn names_and_examples_are_bounded_and_all_events_count() {
        let mut counts = Counts::default();
        (0..1000).for_each(|name| counts.add(&name.to_string()));
        assert_eq!((counts.0.len(), counts.0.values().sum()), (MAX_NAMES + 1, 1000_u64));

        let mut tally = Tally::new();
        (0..10).for_each(|n| tally.violate(Check::Ghost, || n.to_string()));
        assert_eq!(
            tally.violations[&Check::Ghost],
            Violations { count: 10, examples: ["0", "1", "2"].map(String::from).to_vec() }
        );
    }
}
