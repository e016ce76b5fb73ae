use std::time::Duration;

use crate::budget::{BudgetItem, BudgetOwner};
use crate::bugs::BugCounts;
use crate::reason::{ErrorCode, Outcome};
use crate::resume::ResumeOutcome;
use crate::wire::MessageKind;

/// Counters of a router since its start, and gauges. Counters only grow.
#[derive(Clone, Debug, Default)]
pub struct RouterStats {
    /// Messages read, by [`MessageKind::index`].
    pub messages_in: [u64; MessageKind::COUNT],
    /// Signals delivered.
    pub delivered: u64,
    /// Signals sent to a Go hub.
    pub forwarded: u64,
    /// Signals not delivered, by the code's discriminant.
    pub failed: [u64; ErrorCode::ALL.len()],
    /// Outcomes that arrived after their receipt had been sent as `unknown`.
    pub late_outcomes: u64,
    /// Picks declined because a peer of this shard knew its maximum of others.
    pub meetings_declined: u64,
    /// `error` messages sent, by the code's discriminant.
    pub errors: [u64; ErrorCode::ALL.len()],
    /// Credentials for TURN that clients received.
    pub turn_credentials: u64,
    /// `error` messages not sent because the session had reached its limit.
    pub errors_withheld: u64,
    /// Messages refused because they exceeded a budget, by the discriminants of its owner and its item. For errors:
    /// those withheld.
    pub exceeded: [[u64; BudgetItem::ALL.len()]; BudgetOwner::ALL.len()],
    /// Takeovers by result: the second connection replaced the first; the first answered.
    pub takeovers: [u64; 2],
    /// Sessions whose id was taken over at once by a client that has proven the id to be its own.
    pub owner_takeovers: u64,
    /// Valid resume secrets, by the outcome's discriminant. If the id is connected to another hub, that hub counts the
    /// takeover.
    pub resumes: [u64; ResumeOutcome::ALL.len()],
    /// Signals by the time from reading to writing, in [`Self::LATENCY_BOUNDS`] and above.
    pub latency: [u64; Self::LATENCY_BOUNDS.len() + 1],
    /// Impossible states that were found.
    pub bugs: BugCounts,
    /// Gauge: admitted sessions.
    pub peers: u64,
    /// Gauge: networks with at least one member anywhere.
    pub networks: u64,
    /// Gauge: members of all networks, wherever they are.
    pub members: u64,
    /// Gauge: receipts outstanding.
    pub open_receipts: u64,
    /// Gauge: bytes of announcements stored for sessions of this shard.
    pub announced_bytes: u64,
    /// Gauge: acquaintances of this shard's bounded peers.
    pub acquaintances: u64,
}

impl RouterStats {
    /// Upper bounds of the latency buckets, in microseconds.
    pub const LATENCY_BOUNDS: [u64; 18] = [
        10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_500_000, 5_000_000,
    ];

    /// Number of signals with an outcome. Summed over all shards, it is the number of signals read, minus those in
    /// flight and those that the relay counts.
    pub fn outcomes(&self) -> u64 {
        self.delivered + self.forwarded + self.failed.iter().sum::<u64>()
    }

    pub(super) fn count_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Delivered => self.delivered += 1,
            Outcome::Forwarded => self.forwarded += 1,
            Outcome::Failed(code) => self.failed[code as usize] += 1,
        }
    }

    pub(super) fn observe_latency(&mut self, took: Duration) {
        self.latency[Self::latency_bucket(took)] += 1;
    }

    /// The index of the bucket that counts a signal which took this long.
    pub(crate) fn latency_bucket(took: Duration) -> usize {
        let micros = took.as_micros() as u64;
        Self::LATENCY_BOUNDS.partition_point(|&bound| bound < micros)
    }
}
