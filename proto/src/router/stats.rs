use std::time::Duration;

use crate::budget::{BudgetItem, BudgetOwner};
use crate::bugs::BugCounts;
use crate::id::PeerId;
use crate::limits::RATE_LIMIT_PAUSE;
use crate::reason::{ErrorCode, Outcome};
use crate::resume::ResumeOutcome;
use crate::wire::MessageKind;

/// A peer that sends messages above a budget, and does not wait when the hub refuses them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flooder {
    /// The peer.
    pub peer: PeerId,
    /// Number of the peer's refused messages since its last pause.
    pub refused: u32,
    /// Time of the last refused message.
    pub at: Duration,
}

/// Counters of a router since its start, and gauges. Counters only grow.
#[derive(Clone, Debug, Default)]
pub struct RouterStats {
    /// Messages read, by [`MessageKind::index`].
    pub messages_in: [u64; MessageKind::COUNT],
    /// Signals delivered.
    pub delivered: u64,
    /// Signals sent to a Go hub.
    pub forwarded: u64,
    /// Signals that were not delivered, by the discriminant of their [`ErrorCode`].
    pub failed: [u64; ErrorCode::ALL.len()],
    /// Outcomes that arrived after the receipt of their signal had been sent with `unknown`.
    pub late_outcomes: u64,
    /// Meetings from other shards and hubs that were declined because a peer of this shard knew its maximum number of
    /// other peers.
    pub meetings_declined: u64,
    /// `error` messages sent, by the discriminant of their [`ErrorCode`].
    pub errors: [u64; ErrorCode::ALL.len()],
    /// Credentials for TURN that clients received.
    pub turn_credentials: u64,
    /// `error` messages that were not sent because the session had exhausted its budget of errors.
    pub errors_withheld: u64,
    /// Messages refused because they exceeded a budget, by the discriminants of the budget's owner and item. The item
    /// `Errors` counts withheld `error` messages.
    pub exceeded: [[u64; BudgetItem::ALL.len()]; BudgetOwner::ALL.len()],
    /// Takeovers in which the new connection had to wait, by result. The first number counts takeovers in which the new
    /// connection got the id. The second number counts takeovers in which the old connection kept the id.
    pub takeovers: [u64; 2],
    /// Sessions that lost their id immediately to a client that has proven that the id is its own.
    pub owner_takeovers: u64,
    /// Valid resume secrets, by the discriminant of their outcome. If a session at another hub holds the id, that hub
    /// counts the outcome.
    pub resumes: [u64; ResumeOutcome::ALL.len()],
    /// Delivered signals, by the time between the reading and the writing of a signal. The buckets end at
    /// [`Self::LATENCY_BOUNDS`]. The last bucket is for longer times.
    pub latency: [u64; Self::LATENCY_BOUNDS.len() + 1],
    /// Impossible states that were found.
    pub bugs: BugCounts,
    /// Gauge of admitted sessions.
    pub peers: u64,
    /// Gauge of networks with at least one member on any shard or hub.
    pub networks: u64,
    /// Gauge of the members of all networks, on all shards and hubs.
    pub members: u64,
    /// Gauge of outstanding receipts.
    pub open_receipts: u64,
    /// Gauge of the bytes of announcements that are stored for sessions of this shard.
    pub announced_bytes: u64,
    /// Gauge of the acquaintances of this shard's peers under bounded discovery.
    pub acquaintances: u64,
    /// The peer with the most refused messages since its last pause, as a gauge.
    pub flooder: Option<Flooder>,
}

impl RouterStats {
    /// Upper bounds of the latency buckets, in microseconds.
    pub const LATENCY_BOUNDS: [u64; 18] = [
        10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_500_000, 5_000_000,
    ];

    /// Records a refused message of a peer. A peer with fewer refused messages than the recorded peer replaces it only
    /// if the recorded peer has paused.
    pub(super) fn note_flooder(&mut self, noted: Flooder) {
        let is_worse = |kept: &Flooder| kept.peer != noted.peer && kept.refused > noted.refused;
        let kept = self.flooder.filter(|kept| is_worse(kept) && noted.at.saturating_sub(kept.at) < RATE_LIMIT_PAUSE);
        self.flooder = kept.or(Some(noted));
    }

    /// Number of signals with an outcome. Summed over all shards, these are the signals read, minus the signals in
    /// flight and the signals that the relay counts.
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

    /// The index of the bucket for a signal that took this time.
    pub(crate) fn latency_bucket(took: Duration) -> usize {
        let micros = took.as_micros() as u64;
        Self::LATENCY_BOUNDS.partition_point(|&bound| bound < micros)
    }
}
