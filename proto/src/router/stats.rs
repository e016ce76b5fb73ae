use std::time::Duration;

use crate::bugs::BugCounts;
use crate::reason::{ErrorCode, Outcome};
use crate::resume::ResumeOutcome;
use crate::wire::MessageKind;

/// What a router has counted since it was made. All but the gauges only grow.
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
    /// Outcomes that came after their receipt had been written off as `unknown`.
    pub late_outcomes: u64,
    /// Picks of others that were declined, because a peer of this shard knows as many as it may.
    pub meetings_declined: u64,
    /// `error` messages sent, by the code's discriminant.
    pub errors: [u64; ErrorCode::ALL.len()],
    /// `error` messages not sent because the session had had its share.
    pub errors_withheld: u64,
    /// Takeovers by outcome: the newcomer stayed; the first session answered.
    pub takeovers: [u64; 2],
    /// Valid resume secrets, by the outcome's discriminant. Of an id at another hub, that hub counts.
    pub resumes: [u64; ResumeOutcome::ALL.len()],
    /// Signals by the time from read to written, in [`Self::LATENCY_BOUNDS`] and above.
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
    /// Gauge: bytes of announcements kept for sessions of this shard.
    pub announced_bytes: u64,
    /// Gauge: others that peers of this shard know, where they do not know everybody.
    pub acquaintances: u64,
}

impl RouterStats {
    /// Upper bounds of the latency buckets, in microseconds.
    pub const LATENCY_BOUNDS: [u64; 18] = [
        10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_500_000, 5_000_000,
    ];

    /// Signals that have had their outcome. All shards' sum is the signals read by this hub, less those under way and
    /// those that the relay has counted itself.
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
        let micros = took.as_micros() as u64;
        let bucket = Self::LATENCY_BOUNDS.partition_point(|&bound| bound < micros);
        self.latency[bucket] += 1;
    }
}
