//! One second of the history. A sample has the increases of the counters in one second, and the gauges at the end of
//! that second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::mesh::MeshReading;
use proto::envelope::HubStatus;
use proto::{BudgetItem, CloseReason, ErrorCode, MessageKind, Outcome, RouterStats, TurnLengths};
use serde::{Serialize, Serializer};
use shard::{HandshakeFailure, ShardReading};

/// The counters of a hub, added up over its shards.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    /// Time at which the counters were read.
    at: Instant,
    opened: u64,
    announces: u64,
    goodbyes: u64,
    messages: [u64; 2],
    bytes: [u64; 2],
    link_bytes: [u64; 2],
    delivered: u64,
    forwarded: u64,
    failed: [u64; ErrorCode::ALL.len()],
    errors: [u64; ErrorCode::ALL.len()],
    exceeded: [u64; BudgetItem::ALL.len()],
    closes: [u64; CloseReason::ALL.len()],
    refused: [u64; HandshakeFailure::ALL.len()],
    latency: [u64; RouterStats::LATENCY_BOUNDS.len() + 1],
    turns: [u64; TurnLengths::BOUNDS.len() + 1],
    busy: Vec<u64>,
    mesh_busy: u64,
    cpu: Duration,
}

impl Totals {
    /// The counters of a hub before its start.
    pub(super) fn zero(at: Instant, shards: usize) -> Self {
        Self {
            at,
            opened: 0,
            announces: 0,
            goodbyes: 0,
            messages: [0; 2],
            bytes: [0; 2],
            link_bytes: [0; 2],
            delivered: 0,
            forwarded: 0,
            failed: [0; ErrorCode::ALL.len()],
            errors: [0; ErrorCode::ALL.len()],
            exceeded: [0; BudgetItem::ALL.len()],
            closes: [0; CloseReason::ALL.len()],
            refused: [0; HandshakeFailure::ALL.len()],
            latency: [0; RouterStats::LATENCY_BOUNDS.len() + 1],
            turns: [0; TurnLengths::BOUNDS.len() + 1],
            busy: vec![0; shards],
            mesh_busy: 0,
            cpu: Duration::ZERO,
        }
    }

    /// Adds up the numbers that the shards and the mesh published last.
    pub(super) fn read<'a>(
        at: Instant,
        cpu: Duration,
        shards: impl Iterator<Item = &'a ShardReading>,
        mesh: &MeshReading,
    ) -> Self {
        let mut totals = Self { cpu, mesh_busy: mesh.busy_micros, ..Self::zero(at, 0) };
        for ShardReading { router, io } in shards {
            totals.opened += io.handshakes;
            totals.announces += router.messages_in[MessageKind::Announce.index()];
            totals.goodbyes += router.messages_in[MessageKind::Goodbye.index()];
            totals.messages[0] += router.messages_in.iter().sum::<u64>();
            totals.messages[1] += io.messages_out.iter().sum::<u64>();
            totals.bytes[0] += io.bytes_in;
            totals.bytes[1] += io.bytes_out;
            totals.delivered += router.delivered;
            totals.forwarded += router.forwarded;
            add(&mut totals.failed, &router.failed);
            add(&mut totals.errors, &router.errors);
            router.exceeded.iter().for_each(|owner| add(&mut totals.exceeded, owner));
            add(&mut totals.closes, &io.closes);
            add(&mut totals.refused, &*io.handshake_failures);
            add(&mut totals.latency, &router.latency);
            add(&mut totals.turns, &io.turns.counts);
            totals.busy.push(io.busy_micros);
        }
        // If a signal to a peer of another hub requests no receipt, only the relay counts its delivery.
        totals.delivered += mesh.relay.delivered;
        totals.forwarded += mesh.relay.forwarded_to_go;
        add(&mut totals.latency, &mesh.relay.latency);
        add(&mut totals.turns, &mesh.turns.counts);
        totals.link_bytes = [mesh.io.bytes_in, mesh.io.bytes_out];
        totals
    }

    /// Returns a sample of the time since `before`. `gauges` are the current values.
    pub(super) fn since(&self, before: &Self, gauges: Gauges) -> Sample {
        let over = self.at.saturating_duration_since(before.at);
        // Converts a busy time to thousandths of a core.
        let part = |busy: Duration| (busy.as_secs_f64() / over.as_secs_f64().max(0.001) * 1000.0).round() as u64;
        let micros = |now: u64, before: u64| part(Duration::from_micros(now.saturating_sub(before)));
        let two = |now: [u64; 2], before: [u64; 2]| [now[0] - before[0].min(now[0]), now[1] - before[1].min(now[1])];
        let outcomes = [
            (Outcome::Delivered.label(), self.delivered.saturating_sub(before.delivered)),
            (Outcome::Forwarded.label(), self.forwarded.saturating_sub(before.forwarded)),
        ];
        let failed = grown(&self.failed, &before.failed, |code| Outcome::Failed(ErrorCode::ALL[code]).label());
        Sample {
            over: over.as_millis() as u64,
            gauges,
            opened: self.opened.saturating_sub(before.opened),
            announces: self.announces.saturating_sub(before.announces),
            goodbyes: self.goodbyes.saturating_sub(before.goodbyes),
            messages: two(self.messages, before.messages),
            bytes: two(self.bytes, before.bytes),
            link_bytes: two(self.link_bytes, before.link_bytes),
            outcomes: Counts(outcomes.into_iter().filter(|(_, n)| *n > 0).chain(failed.0).collect()),
            errors: grown(&self.errors, &before.errors, |code| ErrorCode::ALL[code].label()),
            exceeded: grown(&self.exceeded, &before.exceeded, |item| BudgetItem::ALL[item].label()),
            closes: grown(&self.closes, &before.closes, |reason| CloseReason::ALL[reason].label()),
            refused: grown(&self.refused, &before.refused, |failure| HandshakeFailure::ALL[failure].label()),
            latency: buckets(&self.latency, &before.latency),
            turns: buckets(&self.turns, &before.turns),
            busy: self.busy.iter().zip(&before.busy).map(|(now, before)| micros(*now, *before)).collect(),
            mesh_busy: micros(self.mesh_busy, before.mesh_busy),
            cpu: part(self.cpu.saturating_sub(before.cpu)),
        }
    }
}

fn add(sums: &mut [u64], more: &[u64]) {
    sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// The counters that have grown, by their labels.
fn grown(now: &[u64], before: &[u64], label: impl Fn(usize) -> &'static str) -> Counts {
    let all = now.iter().zip(before).enumerate().map(|(i, (now, before))| (label(i), now.saturating_sub(*before)));
    Counts(all.filter(|(_, n)| *n > 0).collect())
}

/// The buckets that have grown, by their index.
fn buckets(now: &[u64], before: &[u64]) -> Vec<(usize, u64)> {
    let all = now.iter().zip(before).map(|(now, before)| now.saturating_sub(*before)).enumerate();
    all.filter(|(_, n)| *n > 0).collect()
}

/// Counts by label, as a JSON object.
#[derive(Default, Debug)]
pub(super) struct Counts(Vec<(&'static str, u64)>);

impl Counts {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The count of a label.
    fn of(&self, label: &str) -> u64 {
        self.0.iter().find(|(name, _)| *name == label).map_or(0, |(_, n)| *n)
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// The gauges of a sample.
#[derive(Serialize, Default, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct Gauges {
    /// Time of the sample, in milliseconds since 1970.
    pub(super) at: u64,
    pub(super) peers: usize,
    pub(super) connections: usize,
    pub(super) networks: u64,
    pub(super) members: u64,
    pub(super) remote_peers: u64,
    /// Other hubs with valid leases.
    pub(super) hubs: u64,
    /// Links in use.
    pub(super) links: usize,
    /// Slowest round trip to a linked hub, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rtt_ms: Option<f64>,
    /// Bytes queued for all sessions.
    pub(super) queued_bytes: u64,
    /// Resident memory, in bytes. Absent if it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<u64>,
}

/// The events of one second. Counts that are 0 and empty lists and objects are left out.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sample {
    #[serde(flatten)]
    gauges: Gauges,
    /// Time that the sample covers, in milliseconds.
    over: u64,
    /// WebSockets opened.
    opened: u64,
    /// Number of `announce` messages, by which peers join networks, and of `goodbye` messages, by which peers leave on
    /// purpose.
    announces: u64,
    goodbyes: u64,
    /// Messages of peers, and to peers.
    messages: [u64; 2],
    /// Bytes read from WebSockets of peers, and written to them.
    bytes: [u64; 2],
    /// Bytes read from links, and written to them.
    link_bytes: [u64; 2],
    /// Signals by outcome.
    #[serde(skip_serializing_if = "Counts::is_empty")]
    outcomes: Counts,
    /// `error` messages by code.
    #[serde(skip_serializing_if = "Counts::is_empty")]
    errors: Counts,
    /// Messages above a budget, by the budget's item. The item `errors` counts errors that were not sent.
    #[serde(skip_serializing_if = "Counts::is_empty")]
    exceeded: Counts,
    /// WebSockets closed, by reason.
    #[serde(skip_serializing_if = "Counts::is_empty")]
    closes: Counts,
    /// Requests for a WebSocket refused, by reason.
    #[serde(skip_serializing_if = "Counts::is_empty")]
    refused: Counts,
    /// Signals by latency. Each entry has the index of a bucket and the number of signals in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    latency: Vec<(usize, u64)>,
    /// Turns of all threads by length. Each entry has the index of a bucket and the number of turns in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    turns: Vec<(usize, u64)>,
    /// Time for which each shard was busy, in thousandths of a core.
    busy: Vec<u64>,
    mesh_busy: u64,
    /// CPU time of the process, in thousandths of a core.
    cpu: u64,
}

impl Sample {
    /// The figures that this hub sends to other hubs.
    pub(super) fn status(&self, admin_url: Option<Arc<str>>, max_connections: usize) -> HubStatus {
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let per_second = |n: u64| number(n.saturating_mul(1000) / self.over.max(1));
        HubStatus {
            admin_url,
            version: env!("CARGO_PKG_VERSION").into(),
            connections: number(self.gauges.connections as u64),
            max_connections: number(max_connections as u64),
            cpu: number(self.cpu),
            busiest_shard: number(self.busy.iter().copied().max().unwrap_or(0)),
            signals: per_second(self.outcomes.of(Outcome::Delivered.label())),
            memory: self.gauges.memory.unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::limits::{LIVE_RING_BYTES, LIVE_SAMPLES};
    use serde_json::json;

    #[test]
    fn a_sample_contains_the_gauges_and_the_increase_of_each_counter() {
        let mut mesh = MeshReading::default();
        let mut shards = vec![ShardReading::default(), ShardReading::default()];
        let start = Instant::now();
        let read = |shards: &[ShardReading], mesh: &MeshReading, secs, cpu| {
            let at = start + Duration::from_secs(secs);
            Totals::read(at, Duration::from_millis(cpu), shards.iter(), mesh)
        };
        shards[0].io.handshakes = 5;
        let before = read(&shards, &mesh, 1, 100);
        shards[0].io.handshakes = 7;
        shards[0].io.busy_micros = 250_000;
        shards[1].io.closes[CloseReason::SlowConsumer as usize] = 1;
        shards[1].io.handshake_failures[HandshakeFailure::Unauthorized as usize] = 2;
        shards[1].router.messages_in[MessageKind::Announce.index()] = 3;
        shards[1].router.delivered = 4;
        shards[1].router.failed[ErrorCode::RateLimited as usize] = 6;
        shards[1].router.exceeded = [[3; BudgetItem::ALL.len()], [0; BudgetItem::ALL.len()]];
        shards[0].router.exceeded[1][BudgetItem::Bytes as usize] = 2;
        shards[1].router.latency[2] = 8;
        shards[1].io.turns.counts[5] = 9;
        mesh.relay.delivered = 1;
        mesh.relay.latency[17] = 1;
        mesh.io.bytes_out = 1000;
        let sample = read(&shards, &mesh, 2, 600)
            .since(&before, Gauges { at: 12, peers: 7, memory: Some(3), ..Gauges::default() });
        let written = serde_json::to_value(&sample).unwrap();
        let expected = json!({
            "at": 12, "over": 1000, "peers": 7, "connections": 0, "networks": 0, "members": 0, "remotePeers": 0,
            "hubs": 0, "links": 0, "queuedBytes": 0, "memory": 3, "opened": 2, "announces": 3, "goodbyes": 0,
            "messages": [3, 0], "bytes": [0, 0], "linkBytes": [0, 1000],
            "outcomes": {"delivered": 5, "rate-limited": 6}, "closes": {"slow-consumer": 1},
            "exceeded": {"messages": 3, "bytes": 5, "announcements": 3, "events": 3, "discover": 3, "errors": 3},
            "refused": {"unauthorized": 2}, "latency": [[2, 8], [17, 1]], "turns": [[5, 9]], "busy": [250, 0],
            "meshBusy": 0, "cpu": 500
        });
        assert_eq!(written, expected);
    }

    /// Even if every sample contains every reason, the history covers ten minutes with 32 shards, and more than six
    /// minutes with 256 shards.
    #[test]
    fn ten_minutes_of_the_largest_samples_fit() {
        let mut shard = ShardReading::default();
        shard.io.closes = [99; CloseReason::ALL.len()];
        shard.io.handshake_failures = shard::FailureCounts([99; HandshakeFailure::ALL.len()]);
        shard.router.failed = [99; ErrorCode::ALL.len()];
        shard.router.exceeded = [[99; BudgetItem::ALL.len()]; 2];
        shard.router.latency = [999; RouterStats::LATENCY_BOUNDS.len() + 1];
        shard.io.turns.counts = [999; TurnLengths::BOUNDS.len() + 1];
        let now = Instant::now();
        let shards = vec![shard; 256];
        let totals = Totals::read(now + Duration::from_secs(1), Duration::ZERO, shards.iter(), &MeshReading::default());
        let sample = totals.since(&Totals::zero(now, 256), Gauges { memory: Some(1 << 40), ..Gauges::default() });
        let length = serde_json::to_vec(&sample).unwrap().len();
        let mut busy = sample;
        // Every shard is busy all the time.
        busy.busy = vec![1000; 256];
        let length = length.max(serde_json::to_vec(&busy).unwrap().len());
        assert!(length * LIVE_SAMPLES <= LIVE_RING_BYTES * 3 / 2, "{length}");
        busy.busy = vec![1000; 32];
        let length = serde_json::to_vec(&busy).unwrap().len();
        assert!(length * LIVE_SAMPLES <= LIVE_RING_BYTES, "{length}");
    }
}
