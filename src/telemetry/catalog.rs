//! Every metric, once: its name, its type, its labels and its meaning.

/// A family of time series.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Their values come from enums, from the number of shards or from the build, never from what a client sent.
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Counter,
    /// A counter with a fraction.
    CounterSeconds,
    Gauge,
    Histogram,
}

impl Kind {
    /// As Prometheus names it.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Counter | Self::CounterSeconds => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! catalog {
    ($($id:ident $name:literal $kind:ident [$($label:literal),*] $help:literal)*) => {
        $(pub(super) static $id: Metric =
            Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// Every metric, in the order in which a reader wants them.
        pub(super) static ALL: &[&Metric] = &[$(&$id),*];
    };
}

catalog! {
    CONNECTIONS "peerpigeon_connections" Gauge []
        "WebSockets open now."
    MAX_CONNECTIONS "peerpigeon_max_connections" Gauge []
        "WebSockets that may be open at once (MAX_CONNECTIONS)."
    PEERS "peerpigeon_peers" Gauge []
        "Peers connected now: WebSockets whose peer was let in."
    NETWORKS "peerpigeon_networks" Gauge []
        "Networks with at least one member."
    MEMBERS "peerpigeon_members" Gauge []
        "Members of all networks together: a peer in two networks counts twice."
    MESSAGES "peerpigeon_messages_total" Counter ["direction", "type"]
        "Messages read from peers (in) and queued for peers (out)."
    BYTES "peerpigeon_bytes_total" Counter ["direction"]
        "Bytes read from (in) and written to (out) WebSockets, frame headers included."
    WRITES "peerpigeon_writes_total" Counter []
        "Writes to WebSockets: messages out by writes is how well messages are put together."
    PINGS "peerpigeon_pings_total" Counter []
        "WebSocket pings sent to silent peers."
    RELAY_OUTCOMES "peerpigeon_relay_outcomes_total" Counter ["outcome"]
        "What became of the signals (offers, answers, candidates) that peers sent: each has one outcome."
    RELAY_LATE_OUTCOMES "peerpigeon_relay_late_outcomes_total" Counter []
        "Outcomes that came after the sender had been told that it is unknown."
    RELAY_LATENCY "peerpigeon_relay_latency_seconds" Histogram []
        "Time from reading a signal to having written it to its target. The sum takes each at its bucket's upper bound."
    OPEN_RECEIPTS "peerpigeon_open_receipts" Gauge []
        "Receipts that senders are waiting for."
    ERRORS "peerpigeon_errors_total" Counter ["code"]
        "Error messages sent to peers."
    ERRORS_WITHHELD "peerpigeon_errors_withheld_total" Counter []
        "Error messages not sent because the peer had had its share."
    HANDSHAKES "peerpigeon_handshakes_total" Counter []
        "WebSockets opened."
    HANDSHAKE_FAILURES "peerpigeon_handshake_failures_total" Counter ["reason"]
        "Requests for a WebSocket that were refused."
    CLOSES "peerpigeon_closes_total" Counter ["reason"]
        "WebSockets closed."
    TAKEOVERS "peerpigeon_takeovers_total" Counter ["outcome"]
        "Second connections with an id in use: the first was dead and replaced, or answered and stayed."
    HTTP_REQUESTS "peerpigeon_http_requests_total" Counter []
        "HTTP requests that were not for a WebSocket."
    QUEUED_BYTES "peerpigeon_session_queued_bytes" Gauge ["shard"]
        "Bytes that wait for all peers of the shard."
    QUEUE_PEAK_BYTES "peerpigeon_session_queue_peak_bytes" Gauge ["shard"]
        "Most bytes that ever waited for one peer (bound: SEND_QUEUE_BYTES)."
    QUEUE_PEAK_FRAMES "peerpigeon_session_queue_peak_frames" Gauge ["shard"]
        "Most messages that ever waited for one peer (bound: SEND_QUEUE_FRAMES)."
    SHARD_SESSIONS "peerpigeon_shard_sessions" Gauge ["shard"]
        "WebSockets that live on the shard."
    SHARD_BUSY "peerpigeon_shard_busy_seconds_total" CounterSeconds ["shard"]
        "Time the shard was at work: its rate is the load of its core, 1 at the most."
    SHARD_LETTERS "peerpigeon_shard_letters_total" Counter ["shard"]
        "Letters the shard posted to other shards."
    SHARD_LETTER_BATCHES "peerpigeon_shard_letter_batches_total" Counter ["shard"]
        "Batches in which the shard posted its letters."
    OUTBOX_PEAK "peerpigeon_shard_outbox_peak_letters" Gauge ["shard"]
        "Most letters that ever waited on the shard for one other shard."
    SHARD_STALLS "peerpigeon_shard_stalls_total" Counter ["shard"]
        "Times the shard stopped reading because other shards did not take its letters fast enough."
    SHARD_HANDOFFS "peerpigeon_shard_handoffs_total" Counter ["shard"]
        "WebSockets that the shard accepted and handed to the shard of their peer."
    READY "peerpigeon_ready" Gauge []
        "1 while the hub is ready for peers; 0 while it starts or drains."
    UPTIME "peerpigeon_uptime_seconds" Gauge []
        "Time since the hub started."
    BUILD_INFO "peerpigeon_build_info" Gauge ["version"]
        "Always 1; its label says what runs."
    PROCESS_CPU "process_cpu_seconds_total" CounterSeconds []
        "Time that the process was on a core, user and system."
    PROCESS_MEMORY "process_resident_memory_bytes" Gauge []
        "Memory of the process that is in RAM."
    PROCESS_OPEN_FDS "process_open_fds" Gauge []
        "Files and sockets the process has open."
    PROCESS_MAX_FDS "process_max_fds" Gauge []
        "Files and sockets the process may have open."
}
