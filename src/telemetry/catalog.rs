//! All metrics, each with its name, type, labels and help.

/// A family of time series.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: MetricType,
    /// The names of the labels. The values of labels come from enums, thread numbers, the build and certificate files,
    /// never from clients.
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MetricType {
    Counter,
    /// A counter with a fraction.
    CounterSeconds,
    Gauge,
    Histogram,
}

impl MetricType {
    /// The name of the type in Prometheus.
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
            Metric { name: $name, kind: MetricType::$kind, labels: &[$($label),*], help: $help };)*

        /// All metrics, in the order of the documentation.
        pub(super) static ALL: &[&Metric] = &[$(&$id),*];
    };
}

catalog! {
    CONNECTIONS "peerpigeon_connections" Gauge []
        "Open WebSockets of peers."
    MAX_CONNECTIONS "peerpigeon_max_connections" Gauge []
        "Maximum number of open WebSockets: MAX_CONNECTIONS, or less if the process may open too few files."
    PEERS "peerpigeon_peers" Gauge []
        "Connected peers: WebSockets whose peer was admitted."
    NETWORKS "peerpigeon_networks" Gauge []
        "Networks with at least one member."
    MEMBERS "peerpigeon_members" Gauge []
        "Members of all networks together: a peer in two networks counts twice."
    ANNOUNCED_BYTES "peerpigeon_announced_bytes" Gauge []
        "Bytes of announced data stored for the peers of this hub."
    ANNOUNCE_BUDGET "peerpigeon_announce_budget_bytes" Gauge []
        "Maximum number of bytes of announced data stored for the peers of this hub (ANNOUNCE_BUDGET_BYTES)."
    ACQUAINTANCES "peerpigeon_acquaintances" Gauge []
        "Peers known under bounded discovery (DISCOVERY=closest:K), summed over the peers of this hub that know them."
    MEETINGS_DECLINED "peerpigeon_meetings_declined_total" Counter []
        "Introductions declined because a peer already knew 1,024 others. This does not happen with random ids."
    MESSAGES "peerpigeon_messages_total" Counter ["direction", "type"]
        "Messages read from peers (in) and queued for peers (out)."
    BYTES "peerpigeon_bytes_total" Counter ["direction"]
        "Bytes read from (in) and written to (out) WebSockets, frame headers included."
    WRITES "peerpigeon_writes_total" Counter []
        "Writes to WebSockets. Messages out divided by writes shows how well messages are batched."
    PINGS "peerpigeon_pings_total" Counter []
        "WebSocket pings sent: to peers that have sent or received nothing for a time, and to check the old connection \
            in a takeover."
    RELAY_OUTCOMES "peerpigeon_relay_outcomes_total" Counter ["outcome"]
        "Outcomes of signals (offers, answers, candidates) from peers. Each signal has exactly one."
    RELAY_LATE_OUTCOMES "peerpigeon_relay_late_outcomes_total" Counter []
        "Outcomes that arrived after the sender had received `unknown`."
    RELAY_LATENCY "peerpigeon_relay_latency_seconds" Histogram []
        "Time from reading a signal to writing it to its target; for a target at another hub, until its outcome \
            returns. The sum counts each signal at its bucket's upper bound."
    OPEN_RECEIPTS "peerpigeon_open_receipts" Gauge []
        "Outstanding receipts."
    ERRORS "peerpigeon_errors_total" Counter ["code"]
        "Error messages sent to peers."
    ERRORS_WITHHELD "peerpigeon_errors_withheld_total" Counter []
        "Error messages not sent because the peer had reached the limit of ERROR_RATE."
    RATE_LIMITED "peerpigeon_rate_limited_total" Counter ["budget", "owner"]
        "Messages refused because their sender, or its network, had used up a budget. The budget `errors` counts error \
            messages that were not sent."
    TURN_CREDENTIALS "peerpigeon_turn_credentials_total" Counter []
        "Credentials for TURN (TURN_URLS) sent to peers: one at each connection, and one at each renewal."
    HANDSHAKES "peerpigeon_handshakes_total" Counter []
        "WebSockets opened."
    HANDSHAKE_FAILURES "peerpigeon_handshake_failures_total" Counter ["reason"]
        "Refused requests for a WebSocket."
    TLS_HANDSHAKES "peerpigeon_tls_handshakes_total" Counter ["kind"]
        "Completed TLS handshakes: full, or resumed by a ticket. Failed ones count in \
            peerpigeon_handshake_failures_total."
    TLS_DAYS_LEFT "peerpigeon_tls_certificate_days_left" Gauge ["file"]
        "Days until the certificate in the file expires; negative after that."
    TLS_RELOADS "peerpigeon_tls_reloads_total" Counter ["outcome"]
        "Reloads of the certificate files, after a change or on SIGHUP, by result: taken or refused."
    TLS_STALE "peerpigeon_tls_certificates_stale" Gauge []
        "1 while changed certificate files are invalid, so the previous certificates are served."
    ACME_ORDERS "peerpigeon_acme_orders_total" Counter ["outcome"]
        "Orders of certificates (TLS_ACME): issued or failed."
    ACME_FAILING "peerpigeon_acme_names_failing" Gauge []
        "Names of TLS_ACME whose latest order failed. Their previous certificates, if any, stay in use."
    ACME_MISSING "peerpigeon_acme_names_missing" Gauge []
        "Names of TLS_ACME without a valid certificate."
    CLOSES "peerpigeon_closes_total" Counter ["reason"]
        "WebSockets closed."
    TAKEOVERS "peerpigeon_takeovers_total" Counter ["outcome"]
        "Second connections with an id in use on this hub, by outcome: the first connection was dead and was replaced, \
            or it answered and stayed, or the owner of the id took the id over."
    RESUMES "peerpigeon_resumes_total" Counter ["outcome"]
        "Resume secrets that clients sent, by outcome: the client took the id over at once (resumed), the id was free \
            (continued), the liveness check decided (outdated, younger, late, owned), or the secret was ignored \
            (foreign, malformed)."
    TOKENS "peerpigeon_tokens_total" Counter ["outcome"]
        "Tokens (JWT) that peers sent with a request or with `auth`, by outcome: accepted, or the reason for the \
            refusal."
    IDS_PROVEN "peerpigeon_ids_proven_total" Counter []
        "Clients that proved, with the private key of their id, that they own the id."
    TOKEN_KEY_LOADS "peerpigeon_token_key_loads_total" Counter ["outcome"]
        "Loads of changed keys for tokens, by result: taken, or refused (the previous keys stay in use)."
    HTTP_REQUESTS "peerpigeon_http_requests_total" Counter []
        "HTTP requests that were not for a WebSocket."
    PAGES_REFUSED "peerpigeon_pages_refused_total" Counter []
        "Requests for pages refused with 429: each shard answers 2 per second per address, and 100 more."
    PAGE_RENDERS "peerpigeon_page_renders_total" Counter ["page"]
        "Renderings of a page. Simultaneous requests share one; the average is at most 4 per second."
    SEND_BUDGET "peerpigeon_send_budget_bytes" Gauge []
        "Maximum number of bytes queued for all peers together (SEND_BUDGET_BYTES)."
    QUEUED_BYTES "peerpigeon_session_queued_bytes" Gauge ["shard"]
        "Bytes queued for all peers of the shard."
    QUEUE_PEAK_BYTES "peerpigeon_session_queue_peak_bytes" Gauge ["shard"]
        "Most bytes ever queued for one peer since the start (bound: SEND_QUEUE_BYTES)."
    QUEUE_PEAK_FRAMES "peerpigeon_session_queue_peak_frames" Gauge ["shard"]
        "Most messages ever queued for one peer since the start (bound: SEND_QUEUE_FRAMES)."
    SHARD_SESSIONS "peerpigeon_shard_sessions" Gauge ["shard"]
        "WebSockets on the shard."
    TURN "peerpigeon_turn_seconds" Histogram ["thread"]
        "Lengths of the turns of a shard's or the mesh's thread. A turn is the work for one task, before the thread \
            runs the next ready task. If the process is stopped during a turn, that time counts as well."
    SHARD_BUSY "peerpigeon_shard_busy_seconds_total" CounterSeconds ["shard"]
        "Time the shard was busy. Its rate is the load of its core, at most 1."
    SHARD_LETTERS "peerpigeon_shard_letters_total" Counter ["shard"]
        "Letters the shard posted to other shards and to the mesh."
    SHARD_LETTER_BATCHES "peerpigeon_shard_letter_batches_total" Counter ["shard"]
        "Batches in which the shard posted its letters."
    OUTBOX_PEAK "peerpigeon_shard_outbox_peak_letters" Gauge ["shard"]
        "Most letters ever queued on the shard for one other shard, or for the mesh, since the start."
    SHARD_STALLS "peerpigeon_shard_stalls_total" Counter ["shard"]
        "Times the shard stopped reading because other shards, or the mesh, did not accept its letters fast enough."
    SHARD_HANDOFFS "peerpigeon_shard_handoffs_total" Counter ["shard"]
        "WebSockets that the shard accepted and handed to the shard of their peer."
    MESH_HUBS "peerpigeon_mesh_hubs" Gauge []
        "Other hubs of the mesh with a valid lease."
    MESH_REMOTE_PEERS "peerpigeon_mesh_remote_peers" Gauge []
        "Peers of other hubs that this hub knows."
    MESH_PRESENCE_LAG "peerpigeon_mesh_presence_lag_seconds" Gauge []
        "Longest time for which this hub has been behind the presence of another hub."
    MESH_GHOST_AGE "peerpigeon_mesh_ghost_age_seconds" Gauge []
        "Longest time since the last heartbeat of a hub whose peers still count as connected."
    MESH_UNSETTLED "peerpigeon_mesh_unsettled_hubs" Gauge []
        "Other hubs and legacy links whose end, snapshot or changes are still being forwarded to the shards, one \
            slice per turn."
    MESH_HUBS_LOST "peerpigeon_mesh_hubs_lost_total" Counter []
        "Hubs whose lease expired without a farewell."
    MESH_GHOSTS_EVICTED "peerpigeon_mesh_ghosts_evicted_total" Counter []
        "Peers that left because their hub was lost."
    MESH_ENVELOPES "peerpigeon_mesh_envelopes_total" Counter ["direction", "kind"]
        "Envelopes received from other hubs (in) and sent to them (out), counted once per link."
    MESH_DUPLICATES "peerpigeon_mesh_duplicates_total" Counter []
        "Changes and heartbeats that arrived again over another link."
    MESH_RELAYED "peerpigeon_mesh_relayed_total" Counter []
        "Signals of this hub's peers sent to other hubs. Summed over all hubs, \
            peerpigeon_mesh_envelopes_total{direction=\"out\",kind=\"signal\"} divided by this is the number of \
            envelopes per relay: 1 in a full mesh."
    MESH_FORWARDED "peerpigeon_mesh_forwarded_total" Counter []
        "Signals forwarded for other hubs."
    MESH_SIGNALS_IN_FLIGHT "peerpigeon_mesh_signals_in_flight" Gauge []
        "Signals to other hubs without an outcome yet."
    MESH_SIGNALS_HELD "peerpigeon_mesh_signals_held" Gauge []
        "Signals from other hubs held until an earlier signal, or the presence of their sender, arrives."
    MESH_OUT_OF_ORDER "peerpigeon_mesh_out_of_order_total" Counter []
        "Signals from other hubs dropped because they arrived twice, or too late for their order."
    MESH_LATE_OUTCOMES "peerpigeon_mesh_late_outcomes_total" Counter []
        "Outcomes from other hubs that arrived after the signal had expired."
    MESH_SNAPSHOTS "peerpigeon_mesh_snapshots_total" Counter ["direction"]
        "Snapshots of a hub's peers that were sent (out) or installed (in)."
    MESH_SNAPSHOTS_REFUSED "peerpigeon_mesh_snapshots_refused_total" Counter []
        "Snapshots rejected: wrong digest, wrong part number, or late."
    MESH_NUMBERS_REFUSED "peerpigeon_mesh_numbers_refused_total" Counter []
        "Implausible numbers from other hubs that were ignored: heartbeats and sessions that begin after the year \
            2527, and signals whose counter is too far ahead."
    MESH_PRESENCE_REFUSED "peerpigeon_mesh_presence_refused_total" Counter ["limit"]
        "Changes and heartbeats of other hubs that this hub ignores, by the limit that they exceed: 1,024 hubs in the \
            mesh, 1,000,000 peers of a hub, 1,024 networks of a peer, MESH_PRESENCE_BYTES, or changes that wait for an \
            earlier one."
    MESH_SIGNALS_NOT_HELD "peerpigeon_mesh_signals_not_held_total" Counter []
        "Signals of other hubs answered with `unreachable` because the queue of signals that wait for an earlier one \
            was full."
    MESH_PRESENCE_BYTES "peerpigeon_mesh_presence_bytes" Gauge []
        "Size of the data that this hub stores about the peers of other hubs, in bytes. MESH_PRESENCE_BYTES limits it."
    MESH_IDS_GIVEN_UP "peerpigeon_mesh_ids_given_up_total" Counter []
        "Times this hub found another live hub with its HUB_ID and took a new id."
    MESH_TAKEOVERS "peerpigeon_mesh_takeovers_total" Counter ["answer"]
        "Connections whose id was already known at another hub, by the answer of that hub."
    MESH_BUSY "peerpigeon_mesh_busy_seconds_total" CounterSeconds []
        "Time the mesh thread was busy. Its rate is the load of its core, at most 1."
    MESH_LETTERS "peerpigeon_mesh_letters_total" Counter []
        "Letters the mesh posted to shards."
    MESH_LETTER_BATCHES "peerpigeon_mesh_letter_batches_total" Counter []
        "Batches in which the mesh posted its letters."
    MESH_OUTBOX_PEAK "peerpigeon_mesh_outbox_peak_letters" Gauge []
        "Most letters ever queued in the mesh for one shard since the start."
    MESH_STALLS "peerpigeon_mesh_stalls_total" Counter []
        "Times the mesh stopped reading links because shards did not accept its letters fast enough."
    LINKS "peerpigeon_links" Gauge ["direction"]
        "Links to other hubs: dialed by them (in) or by this hub (out)."
    LINKS_SATURATED "peerpigeon_links_saturated" Gauge []
        "Links above the high-water mark (8 MiB queued). Such a link carries only heartbeats and outcomes until its \
            queue falls below 1 MiB."
    LINK_SATURATIONS "peerpigeon_link_saturations_total" Counter []
        "Times a link, or the queue for Redis, rose above its high-water mark."
    LINKS_SILENT "peerpigeon_links_silent" Gauge []
        "Open links on which nothing arrives in at least one direction. Signals use another route if there is one."
    LINK_SILENCES "peerpigeon_link_silences_total" Counter []
        "Times the hub found that nothing arrived on an open link in at least one direction."
    MESH_ROUTES_AVOIDED "peerpigeon_mesh_routes_avoided_total" Counter []
        "Times another route to a hub was tried because no signal over the first route was answered for two seconds."
    LINK_QUEUED_BYTES "peerpigeon_link_queued_bytes" Gauge []
        "Bytes queued for all links."
    LINK_QUEUE_PEAK_BYTES "peerpigeon_link_queue_peak_bytes" Gauge []
        "Most bytes ever queued for one link since the start."
    LINK_RTT "peerpigeon_link_rtt_seconds" Gauge []
        "Time from ping to pong on the slowest link."
    LINK_BYTES "peerpigeon_link_bytes_total" Counter ["direction"]
        "Bytes read from (in) and written to (out) links, frame headers included."
    LINK_FRAMES "peerpigeon_link_frames_total" Counter ["direction"]
        "Messages read from (in) and written to (out) links. Envelopes divided by messages shows how well they are \
            batched."
    LINK_WRITES "peerpigeon_link_writes_total" Counter []
        "Writes to links."
    LINKS_OPENED "peerpigeon_links_opened_total" Counter []
        "Links that became ready."
    LINKS_REFUSED "peerpigeon_links_refused_total" Counter []
        "WebSockets of other hubs refused because there was no free place. Refused handshakes count in \
            peerpigeon_handshake_failures_total, refused hubs in peerpigeon_link_ends_total."
    LINK_ENDS "peerpigeon_link_ends_total" Counter ["reason"]
        "Links that ended."
    LINK_DIALS "peerpigeon_link_dials_total" Counter []
        "Attempts to dial another hub."
    LINK_DIAL_FAILURES "peerpigeon_link_dial_failures_total" Counter []
        "Failed attempts to dial another hub."
    LINK_LEGACY_REFUSED "peerpigeon_link_legacy_refused_total" Counter []
        "Messages of legacy links that were invalid or not allowed."
    LINK_LEGACY_INTRODUCED "peerpigeon_link_legacy_introduced_total" Counter []
        "Peers of Go hubs that became known in a network by their first signal, because they had connected before \
            their hub was linked."
    REDIS_CONNECTED "peerpigeon_redis_connected" Gauge []
        "1 while the Redis bridge works; 0 while it does not, or if there is none."
    REDIS_FRAMES "peerpigeon_redis_frames_total" Counter ["direction"]
        "Frames received from Redis (in) and published there (out)."
    REDIS_BYTES "peerpigeon_redis_bytes_total" Counter ["direction"]
        "Bytes of those frames."
    REDIS_REFUSED "peerpigeon_redis_refused_total" Counter []
        "Frames from Redis that were refused: malformed, or not written by a hub with the same MESH_TOKEN."
    REDIS_STALE "peerpigeon_redis_stale_total" Counter ["reason"]
        "Frames from Redis, written by hubs of this mesh, that were dropped as not fresh: the hub had not answered \
            this hub's challenge, or the frame repeated an earlier one."
    REDIS_ONE_WAY "peerpigeon_redis_one_way_hubs" Gauge []
        "Hubs whose frames arrive from Redis but that do not answer this hub there, at most 64."
    REDIS_LOST "peerpigeon_redis_lost_total" Counter []
        "Envelopes dropped because the queue for Redis was full, and frames from Redis that were not read in time."
    REDIS_ERRORS "peerpigeon_redis_errors_total" Counter []
        "Errors of Redis or of the connection to it."
    REDIS_RECONNECTS "peerpigeon_redis_reconnects_total" Counter []
        "Reconnects to Redis."
    READY "peerpigeon_ready" Gauge []
        "1 while the hub is ready for peers; 0 while it starts or drains."
    FULL "peerpigeon_full" Gauge []
        "1 while the hub is full: from the probe (/readyz) or scrape that finds all of peerpigeon_max_connections in \
            use, until one finds 5 % of them free. Meanwhile /readyz answers 503, unless READY_WHEN_FULL is set."
    OLDEST_TURN "peerpigeon_oldest_turn_seconds" Gauge []
        "Longest time since the last turn of any thread (shards, mesh, main, pages). Above 10, /livez answers 503 and \
            names the thread."
    BUGS "peerpigeon_bugs_total" Counter ["site"]
        "Impossible states, by the place in the code that found them. Each is a bug of the hub; the log has the first \
            one of each place as bug_found."
    LOG_LINES_DROPPED "peerpigeon_log_lines_dropped_total" Counter []
        "Log lines dropped because stderr did not accept them fast enough, or at all."
    LOG_STALLED "peerpigeon_log_stalled_seconds" Gauge []
        "Time for which log lines have been queued while stderr accepts none: the disk is full, or the program that \
            reads stderr has stalled or ended. 0 while the log works."
    TRACE_SPANS "peerpigeon_trace_spans_total" Counter ["outcome"]
        "Spans of traces (OTEL_EXPORTER_OTLP_ENDPOINT): accepted by the collector (exported), dropped because too many \
            waited (overflow), dropped because the collector did not answer (failed), or refused by it (rejected)."
    UPTIME "peerpigeon_uptime_seconds" Gauge []
        "Time since the hub started."
    BUILD_INFO "peerpigeon_build_info" Gauge ["version", "commit"]
        "Always 1; the labels name the version and the commit."
    MEMORY_LIMIT "peerpigeon_memory_limit_bytes" Gauge []
        "Memory limit of the process's control group; 0 if there is none."
    PROCESS_START "process_start_time_seconds" Gauge []
        "Start time of the hub, in seconds since 1970."
    PROCESS_CPU "process_cpu_seconds_total" CounterSeconds []
        "CPU time of the process, user and system."
    PROCESS_MEMORY "process_resident_memory_bytes" Gauge []
        "Resident memory of the process. Absent if the hub cannot read `/proc`."
    PROCESS_OPEN_FDS "process_open_fds" Gauge []
        "Open files and sockets of the process. Absent if the hub cannot read `/proc`."
    PROCESS_MAX_FDS "process_max_fds" Gauge []
        "Maximum number of open files and sockets of the process."
}
