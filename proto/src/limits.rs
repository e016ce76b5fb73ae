//! Every bound, with its arithmetic and with what happens at it.

use std::time::Duration;

/// Longest network name, in bytes. Longer: `invalid-message`.
pub const MAX_NETWORK_NAME_BYTES: usize = 256;

/// Longest `id` of a signal, in bytes. Longer: `invalid-message`, and no receipt.
pub const MAX_MESSAGE_ID_BYTES: usize = 64;

/// Longest `data` of an announcement, in bytes of JSON. Longer: `data-too-large`.
///
/// An announcement is kept once per hub while its peer is in the network. What they come to is bounded by
/// [`DEFAULT_ANNOUNCE_BUDGET_BYTES`].
pub const MAX_ANNOUNCE_DATA_BYTES: usize = 16 * 1024;

/// Default of ANNOUNCE_BUDGET_BYTES: bytes of announcements that are kept for all peers of the hub together. One more than its share
/// of it has room for a shard refuses with `hub-full`, unless its peer has said no more than [`ANNOUNCE_FLOOR_BYTES`] in all.
///
/// An announcement is kept as the message that it becomes, 250 B longer than its data, and counted with [`MEMBER_BYTES`]; once in each hub
/// of the mesh: the worst case of a hub is hubs x (budget + MAX_CONNECTIONS x floor) = 3 x (256 MiB + 1,000 x 2 KiB) = 774 MiB.
pub const DEFAULT_ANNOUNCE_BUDGET_BYTES: usize = 256 * 1024 * 1024;

/// What a member's place in the rosters counts for in that budget, in bytes: about 100 B on each shard and at each hub, and its announcement's own
/// fields.
pub const MEMBER_BYTES: usize = 256;

/// What a peer may have announced, in all its networks, however little of the budget is left, in bytes.
pub const ANNOUNCE_FLOOR_BYTES: usize = 2 * 1024;

/// Deepest nesting of an announcement's `data`. Deeper: `invalid-message`.
///
/// Announcements are pushed at peers that did not ask, so their parsers are not put to the test.
pub const MAX_ANNOUNCE_DEPTH: usize = 64;

/// Deepest nesting of a signal's `data`. Deeper: `invalid-message`.
///
/// A target's parser that recurses would fail at the whole message: Python's at about 1,000 levels. Offers have two.
pub const MAX_SIGNAL_DEPTH: usize = 512;

/// Longest part of a client's `type` that is echoed back in `inReplyTo`, in bytes.
pub const MAX_ECHOED_TYPE_BYTES: usize = 64;

/// Default of MAX_MESSAGE_BYTES: longest message of a client, in bytes, all fragments together.
/// Longer: `message-too-large`, then close 1009.
///
/// Offers are 7 KB in practice; 1 MiB leaves room for the odd application that sends more than signals.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// Default of MAX_CONNECTIONS (seed: README).
pub const DEFAULT_MAX_CONNECTIONS: usize = 1000;

/// Default of MAX_NETWORKS_PER_PEER. One more: `too-many-networks`.
pub const DEFAULT_MAX_NETWORKS_PER_PEER: usize = 32;

/// Default of MAX_PEERS_PER_NETWORK. One more: `network-full`.
///
/// Checked against the roster of the newcomer's own shard, so peers that announce on several shards at the same
/// moment can pass it by as many as there are shards.
pub const DEFAULT_MAX_PEERS_PER_NETWORK: usize = 100_000;

/// Default of SEND_QUEUE_FRAMES: frames that may wait for one session. One more: close 4003.
///
/// A network of 10,000 that leaves at once is 10,000 frames within one turn.
pub const DEFAULT_SEND_QUEUE_FRAMES: usize = 32 * 1024;

/// Default of SEND_QUEUE_BYTES: bytes that may wait for one session. More: close 4003.
///
/// 10,000 leaves x 300 B = 3 MB; four times that for the largest messages behind them.
pub const DEFAULT_SEND_QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Default of SEND_BUDGET_BYTES: bytes that may wait for all sessions of the hub together. Over its share of it, a
/// shard closes (4003) each session that would queue past [`SEND_FLOOR_BYTES`].
///
/// Together with the floor the worst case is budget + connections x floor: 512 MiB + 1,000 x 256 KiB = 768 MiB.
pub const DEFAULT_SEND_BUDGET_BYTES: usize = 512 * 1024 * 1024;

/// What a session may queue however little of the budget is left, in bytes.
pub const SEND_FLOOR_BYTES: usize = 256 * 1024;

/// What share of a session's queue signals may fill, in quarters of its frames and bytes. The rest is kept for what the hub itself
/// has to say: who comes and goes.
pub const SIGNAL_QUARTERS: usize = 3;

/// Bytes that each sender's signals may fill of a queue while there is any room for signals. Beyond it a sender may have as much as
/// half of that room has left, so one sender has at most a quarter of it. One more: `slow-peer`, and the target stays.
///
/// Of the 12 MiB for signals one sender has at most 3 MiB, another one 1.5 MiB, and so on; 6 MiB are left for small parts: 384 senders
/// with two offers each. Only whoever is more than those at once can keep another one's signal from a peer.
pub const SENDER_SMALL_BYTES: usize = 16 * 1024;

/// The same in signals: 384 senders have 12,288, half of those that [`DEFAULT_SEND_QUEUE_FRAMES`] leaves for signals.
pub const SENDER_SMALL_FRAMES: usize = 32;

/// Bytes of signals in a queue below which nobody asks whose they are: so what a peer that reads well is sent costs no more.
pub const SENDER_FLOOR_BYTES: usize = 64 * 1024;

/// Signals in a queue below which nobody asks whose they are.
pub const SENDER_FLOOR_FRAMES: usize = 256;

/// Default of MESSAGE_RATE: messages per second and session in the long run. Over it: `rate-limited`.
///
/// A peer that joins a mesh of 16 sends about 150 messages in its first second. The limit is there to stop a loop,
/// not to shape traffic: 20,000 a second is about a tenth of a core.
pub const DEFAULT_MESSAGE_RATE: u32 = 20_000;

/// Default of MESSAGE_RATE_BYTES: bytes of messages per second and session in the long run. Over it: `rate-limited`.
///
/// A peer that joins a mesh of 16 sends about 1 MB of offers in its first second. The limit is there to stop a loop: 4 MiB/s from
/// each of 1,000 peers is what a network of 32 Gbit/s carries.
pub const DEFAULT_MESSAGE_RATE_BYTES: u64 = 4 * 1024 * 1024;

/// The most that MESSAGE_RATE_BYTES can be set to.
pub const LARGEST_MESSAGE_RATE_BYTES: u64 = 1024 * 1024 * 1024;

/// How many of the longest messages a session may send at once, however low MESSAGE_RATE_BYTES is.
pub const MESSAGE_BURST_LARGEST: u64 = 4;

/// Bytes of announcements per second and session in the long run, each counted with [`MEMBER_BYTES`]. Over it: `rate-limited`.
///
/// Each goes to every member of its network, ahead of signals' share of their queues: 4 a second of the largest, 180 of 100 B.
pub const ANNOUNCE_RATE_BYTES: u64 = 64 * 1024;

/// Bytes of announcements that a session may send at once: 64 of the largest, or 3,000 of 100 B. A sixteenth of
/// [`DEFAULT_SEND_QUEUE_BYTES`].
pub const ANNOUNCE_BURST_BYTES: u64 = 1024 * 1024;

/// How many seconds of [`DEFAULT_MESSAGE_RATE`] and of [`DEFAULT_MESSAGE_RATE_BYTES`] a session may send at once.
pub const MESSAGE_BURST_SECS: u32 = 5;

/// A session over its message rate for this long without a pause is closed (1008).
pub const RATE_LIMIT_PATIENCE: Duration = Duration::from_secs(10);

/// This long without a refused message is a pause.
pub const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(1);

/// `error` messages per second and session, in the long run. More are counted and not sent; receipts always are.
pub const ERROR_RATE: u64 = 20;

/// `error` messages a session may be sent at once.
pub const ERROR_BURST: u64 = 100;

/// Receipts a session may have outstanding. One more signal with an `id`: its receipt says `rate-limited`.
///
/// A ticket is about 150 B: 8,192 of them are 1.2 MB. They end within [`RECEIPT_TIMEOUT`].
pub const MAX_OPEN_RECEIPTS: u32 = 8_192;

/// A receipt without an outcome after this long says `unknown`.
pub const RECEIPT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a session has to answer the ping that a second connection with its id caused, from the moment at which its socket
/// has taken the ping. A socket that takes nothing for this time has not answered.
pub const TAKEOVER_GRACE: Duration = Duration::from_secs(2);

/// How long a second connection waits for that at most. A session whose socket is still taking what is before the ping, or
/// took it less than [`TAKEOVER_GRACE`] ago, then keeps its id: one message of 1 MiB that was begun takes 8 s at 1 Mbit/s.
pub const TAKEOVER_LIMIT: Duration = Duration::from_secs(10);

/// How long after a session's beginning a client with the secret of an older [`Lineage`](crate::Lineage) takes its id back at once,
/// from a stranger who took the id while that client was away. Later the liveness check decides.
///
/// 120 s are longer than it takes a hub to notice a dead connection (60 s) and a client to come back with backoff (30 s).
pub const RESUME_PRECEDENCE: Duration = Duration::from_secs(120);

/// Length of MESH_TOKEN, in bytes, from which on the keys of resume secrets are made of it. With a shorter token each hub draws its
/// own key, since every client could try guesses of the token. 32 random hexadecimal digits are 128 bits.
pub const LEAST_RESUME_TOKEN_BYTES: usize = 32;

/// Members of the roster a newcomer is told of at a time, before its socket is asked for room again.
///
/// 128 x 250 B = 32 KB: about half of a default socket send buffer.
pub const ROSTER_CHUNK: usize = 128;

/// Chunks of a roster that are written in one turn while the socket takes them: 8 x 32 KB. With one, a newcomer among 2,000 that are
/// written to all the time would wait sixteen rounds of all of them to hear of all.
pub const ROSTER_CHUNKS: usize = 8;

/// A session's queue is asked for more of the roster when fewer bytes than this wait in it.
pub const ROSTER_LOW_WATER_BYTES: usize = 64 * 1024;

/// Most of the closest that a peer may want to know, and most that one `discover` tells of.
pub const MAX_CLOSEST: u8 = 64;

/// Members drawn at random that a newcomer meets besides the closest, where it does not meet everybody: they tie the
/// neighbourhoods of a network together. With two to each node a random graph is in one piece but for stragglers; four leave
/// it so while half of them are away.
pub const RANDOM_PICKS: usize = 4;

/// Others that a peer may know in a network where it does not know everybody. Beyond it others' picks are declined, a stranger's
/// signal is `network-full`, and so is `discover`.
///
/// Ids are chosen, so a crowd can aim at one peer. Without aim a peer among 100,000 knows about 2 x (K + R), and one that has been
/// there from the beginning (K + R) x ln(100,000 / (K + R)): for K = 16 40 and 170, for K = 64 140 and 500. An acquaintance
/// is 21 B at the peer's home and 8 B in the roster: 1,024 x 29 B = 30 KB.
pub const MAX_ACQUAINTANCES: usize = 1024;

/// Members that have declined to know a peer, and are remembered for that. One more is forgotten, and nobody is picked in its
/// place: so a join among members that are all crowded costs 2 x 64 events more than another, and is over.
pub const MAX_DECLINED: usize = 64;

/// Members that are looked at one after another where drawing at random has found too few that a newcomer does not know: in a network
/// of fewer than these it is told of all that it wants.
pub const PICKS_IN_TURN: usize = 256;

/// Pairs in one meeting between hubs: 28 B each.
pub const MAX_MEETING: usize = 256;

/// How long another hub may take to say that its peer knows one of this hub's, before it is told again.
pub const MEETING_PATIENCE: Duration = Duration::from_millis(500);

/// How often each peer's acquaintances at other hubs are named to those hubs, answered or not: what one side has forgotten while it
/// could not hear the other is mended within this. 10,000 peers with three other hubs are 500 envelopes a second of 400 B.
pub const MEETING_AGAIN: Duration = Duration::from_secs(60);

/// Time between two parts of that.
pub const MEETING_SWEEP: Duration = Duration::from_secs(1);

/// Longest time between two pings of a silent session.
pub const PING_INTERVAL: Duration = Duration::from_secs(25);

/// How long after the second unanswered ping a silent session is dead.
pub const PONG_GRACE: Duration = Duration::from_secs(10);

/// Bytes of pings and pongs that may wait ahead of a session's messages. Of more pongs only the last is sent (RFC 6455 section 5.5.3).
///
/// 32 of the longest. Newer pongs replace a queued pong only if the client does not read.
pub const CONTROL_LANE_BYTES: usize = 4 * 1024;

/// Bytes that a peer's socket takes beyond what is on the wire (TCP_NOTSENT_LOWAT). What a ping waits for is this, a segment
/// of 64 KiB and the rest of one message: 0.7 s at 1 Mbit/s.
///
/// So "takes bytes" means that the client's TCP has acknowledged earlier ones, and "takes nothing" that it has not.
pub const SOCKET_UNSENT_BYTES: u32 = 16 * 1024;

/// How long the hub waits for a client's close frame after its own.
pub const CLOSE_LINGER: Duration = Duration::from_secs(2);

/// Letters for one shard that may wait before this shard stops reading frames.
///
/// At the mark, what can still be added is what one turn of the loop reads plus one mass close:
/// sessions of the shard x networks per peer.
pub const OUTBOX_HIGH_WATER: usize = 8 * 1024;

/// Bytes of frames in letters for one shard that may wait before this shard stops reading frames.
///
/// Passed by what one read can hold: [`READ_BUFFER_BYTES`] for each of the sessions that have their turn before the next
/// is refused, or one longest message.
pub const OUTBOX_HIGH_WATER_BYTES: usize = 16 * 1024 * 1024;

/// Letters in one batch: at 64 B a letter plus its frame, about what fits in a core's cache.
pub const LETTER_BATCH: usize = 256;

/// Bytes of frames after which a batch is full: at most this and one longest message.
pub const LETTER_BATCH_BYTES: usize = 256 * 1024;

/// Batches that may wait in a shard's mailbox, and in the mesh's: 64 x 256 letters = 16,384 letters, and 64 x (256 KiB + a message of 1 MiB)
/// = 80 MiB at the worst.
pub const MAILBOX_BATCHES: usize = 64;

/// Upgraded sockets that may wait to be taken over by their home shard. The acceptor of one more waits.
pub const HANDOFF_QUEUE: usize = 256;

/// Upgraded sockets of other hubs that may wait to be taken over by the mesh. One more is closed with `try again later`.
pub const LINK_SOCKET_QUEUE: usize = 256;

/// Other hubs that a peer is told of in `go-away`. More are left out: 16 x 512 B = 8 KiB a peer.
pub const MAX_GO_AWAY_HUBS: usize = 16;

/// Connections of one listener that are not yet, or never become, WebSockets. One more takes the place of the oldest. A shard has
/// one listener for each address the hub listens at: two for `localhost`.
///
/// About 20 KiB each while hyper reads a request ([`MAX_REQUEST_HEAD_BYTES`] and its own): 4,096 x 20 KiB = 80 MiB.
pub const MAX_HTTP_CONNECTIONS: usize = 4_096;

/// Handshakes of TLS whose next step waits for its turn on a shard. One more is refused: its connection is closed at once.
///
/// A step is up to 130 us of CPU, and one has its turn between any two turns of everything else: 1,024 are 0.13 s of a shard with
/// nothing else to do. Handshakes that wait for their clients are among [`MAX_HTTP_CONNECTIONS`].
pub const TLS_TURNS: usize = 1_024;

/// Time in which a handshake of TLS and the first request behind it must have arrived: those of [`REQUEST_HEAD_TIMEOUT`], not twice.
/// Later: the connection is closed.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = REQUEST_HEAD_TIMEOUT;

/// How long a client that is refused before it is a TLS connection may take to read why and to end the connection.
pub const TLS_REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// Longest record of TLS, in bytes: 16 KiB of plaintext, what TLS 1.2 lets it grow by, and its header. A connection keeps at
/// most so much of a record that has not arrived whole; a longer one breaks the protocol, and ends the connection.
pub const TLS_RECORD_BYTES: usize = 16 * 1024 + 2048 + 5;

/// Plaintext that is encrypted at a time, in bytes: two records. What the socket does not take of them is kept, encrypted,
/// beside the session's queue: 1,000 sessions whose clients do not read keep 33 MB.
pub const TLS_WRITE_BYTES: usize = 32 * 1024;

/// Ciphertext of TLS itself (handshake, answers to KeyUpdate) that may wait for a socket beside [`TLS_WRITE_BYTES`]. More: the client
/// does not read, and the connection ends. A handshake with a long chain of certificates is 16 KiB.
pub const TLS_PENDING_BYTES: usize = 128 * 1024;

/// Ciphertext that is read at a time before a connection is a WebSocket, and from links, in bytes.
///
/// With [`TLS_RECORD_BYTES`] and what hyper keeps, a connection has up to 72 KiB meanwhile: 4,096 x 72 KiB = 288 MiB at worst,
/// and 20 KiB each if they send what browsers send.
pub const TLS_STREAM_READ_BYTES: usize = 16 * 1024;

/// Certificates that a hub may have (TLS_CERT). More are refused at start. Each costs a scan of its files at
/// [`TLS_RELOAD_INTERVAL`].
pub const MAX_TLS_PAIRS: usize = 64;

/// Longest file of certificates or of a key, in bytes. Longer files are refused. A chain is 4 to 8 KiB.
pub const MAX_TLS_FILE_BYTES: usize = 256 * 1024;

/// Time between two looks at whether the files of certificates have changed.
pub const TLS_RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Longest head of a request, in bytes, and what may have come behind it before its socket is handed on. Longer: 431.
pub const MAX_REQUEST_HEAD_BYTES: usize = 16 * 1024;

/// Header lines that a request may have. One more: 431.
pub const MAX_REQUEST_HEADERS: usize = 100;

/// Time in which the first request of a connection must have arrived. Later: the connection is closed without an answer.
pub const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection is kept for its next request, which must have arrived by then. Longer than the 60 s for which
/// load balancers keep idle connections, so that it is the balancer that closes, and never sends a request into a
/// connection that is closing.
///
/// A connection that is needed for another one is dropped earlier: the oldest of its listener first.
pub const HTTP_IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// How long an answer may take to be made and read, before its connection is dropped.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests that one connection may send at once. Each further one waits for its turn at [`REQUEST_RATE`].
pub const REQUEST_BURST: u32 = 20;

/// Requests a second that one connection gets answered in the long run. It waits and nothing is refused: who pipelines
/// slows down itself.
pub const REQUEST_RATE: u32 = 20;

/// Pages (all but /livez, /readyz, /, files such as /client.js, and errors) that a shard answers a second, at the ports for everybody and again at
/// ADMIN_PORT, beyond what each address has for itself ([`PAGE_RESERVE_RATE`]). Further ones wait for their turn.
///
/// An answer is shared bytes, 60 KB for /metrics: about 20 us of the shard, so that 100 are 0.2 % of it. A balancer with 50
/// nodes behind one address that asks for /health each second has room.
pub const PAGE_RATE: u32 = 100;

/// Pages a second that each address (of IPv6 each /64) has for itself at a shard, whatever others ask for: a balancer's
/// /health each second and a scrape.
pub const PAGE_RESERVE_RATE: u32 = 2;

/// Pages that an address may have of its own at once.
pub const PAGE_RESERVE_BURST: u32 = 10;

/// Places for what addresses have for themselves. Addresses whose keyed hashes meet share a place, so that with a flood from
/// 5 addresses one other in 100 has only what all share.
///
/// 48 B each, 24 KiB for each of the two kinds of ports. All of them asking are 1,024 pages a second: 2 % of the shard.
pub const PAGE_RESERVES: usize = 512;

/// Longest time a page waits for its turn at [`PAGE_RATE`]. If its turn is later: 429 with `Retry-After`, at once.
pub const PAGE_PATIENCE: Duration = Duration::from_secs(1);

/// Renderings of one page that may follow each other at once. Each request gets a page that was rendered after it
/// arrived, as long as this lasts.
pub const RENDER_BURST: u32 = 10;

/// Renderings of one page a second in the long run. Requests beyond that get the last one, so that no page is older
/// than a quarter of a second.
///
/// /metrics takes 1.2 ms: 4 a second of each of the 7 pages are at most 3 % of a core.
pub const RENDER_RATE: u32 = 4;

/// How long a page's rendering is waited for. Later: 503 with `Retry-After`.
pub const RENDER_TIMEOUT: Duration = Duration::from_secs(5);

/// Networks that the list of the largest ones looks at in one turn of a shard: 4,096 x 20 ns = 80 us.
pub const NETWORKS_CHUNK: usize = 4_096;

/// How long the JSON form of /metrics waits for the list of networks. Later: it has the list of before.
pub const NETWORKS_TIMEOUT: Duration = Duration::from_secs(1);

/// Sessions waiting to be written to, and bytes waiting for them, at which a shard stops reading frames until there is half of
/// either. What is read would only wait behind them, and queues of peers that read well would grow.
///
/// Both, because a crowd that is told of many newcomers is told of them in one write: one announcement in a network of 2,000 is 2,000
/// sessions and 600 KB, and 16 MiB are 27 such in each write.
pub const FLUSH_BACKLOG: usize = 4 * FLUSH_CHUNK;

/// See [`FLUSH_BACKLOG`].
pub const FLUSH_BACKLOG_BYTES: usize = 16 * 1024 * 1024;

/// Bytes that one shard reads from a socket at a time, into the one buffer all its sessions share.
pub const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Sessions that are written to before other tasks of the shard have their turn: 64 x about 8 us = half a millisecond.
pub const FLUSH_CHUNK: usize = 64;

/// Bytes that are written before other tasks of the shard have their turn, with what one session's turn adds.
pub const FLUSH_CHUNK_BYTES: u64 = 1024 * 1024;

/// Networks listed by name in `/metrics?format=json`, largest first. The rest are only counted.
pub const MAX_LISTED_NETWORKS: usize = 1_000;

/// The coarsest grain of a shard's timers: keepalive, receipts, takeovers and drain slots are this late at the most.
pub const TICK: Duration = Duration::from_millis(100);

/// Bytes after which a frame of the Redis bridge is full: at most this and one envelope.
///
/// Redis copies each frame once for every hub: 64 KiB fits its caches, and 200 envelopes share one command.
pub const BRIDGE_FRAME_BYTES: usize = 64 * 1024;

/// Bytes of the bridge that Redis has not yet accepted, waiting or under way. One more envelope: dropped and counted as lost;
/// digests repair presence, and a signal's outcome is `unknown`.
///
/// At 10 MB/s it takes 1.6 s to write, which is less than the lease.
pub const BRIDGE_QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of frames in one pipeline to Redis: at most this and one frame.
pub const BRIDGE_PIPELINE_BYTES: usize = 256 * 1024;

/// Pipelines to Redis that are under way at a time. The rest waits, and leaves together.
///
/// 8 x (256 + 64 KiB) = 2.5 MiB are before a probe in the socket: at 1.25 MB/s it is still answered in time.
pub const BRIDGE_PIPELINES: usize = 8;

/// Messages that Redis has sent and the bridge has not read. One more: dropped and counted as lost. The connection itself
/// never waits for the bridge, as it would not see answers either.
///
/// What a runtime reads of one socket in one turn is about 1 MiB; the smallest frame is about 150 B with its channel's name:
/// 7,000 of them, and as many again.
pub const BRIDGE_INBOX: usize = 16 * 1024;

/// Bytes of the messages in [`BRIDGE_INBOX`]. One more: dropped and counted as lost. A longer frame is never taken.
pub const BRIDGE_INBOX_BYTES: usize = 32 * 1024 * 1024;

/// Messages of [`BRIDGE_INBOX`] that are taken before anything else has its turn.
pub const BRIDGE_BATCH: usize = 256;

/// Time between two probes: empty frames of its own that a bridge publishes and has to hear within this time. So a Redis that
/// does not answer is noticed within twice this time.
pub const BRIDGE_PROBE: Duration = Duration::from_secs(2);

/// Time between two challenges of a hub on the bridge: random numbers that the others echo, which shows that they live and
/// receive it. A multiple of [`BRIDGE_PROBE`].
///
/// A mesh of n hubs publishes n x (n - 1) answers of about 150 B in this time: 64 hubs 1,008 a second, of the 100,000 that
/// Redis can.
pub const BRIDGE_CHALLENGE: Duration = Duration::from_secs(4);

/// A hub's frames are dropped unless it has answered one of this hub's last 3 challenges.
///
/// 3 x 4 s: the answers to two in a row may be lost, and a hub that stops receiving counts as lost 8 to 12 s and a lease later.
pub const BRIDGE_CHALLENGES: usize = 3;

/// Sessions of one hub id whose answers are accepted. Frames of one more are dropped until the answers of the oldest have expired.
///
/// A hub that connects anew begins a session: 16 in 12 s are more than the pauses between its attempts allow for long. 48 B each.
pub const BRIDGE_SESSIONS: usize = 16;

/// Hubs that are listed as one-way on the bridge. The rest is left out: 64 x 40 B on a page.
pub const MAX_ONE_WAY: usize = 64;

/// How long Redis may take to accept a connection, TLS and authentication included, and then both subscriptions.
pub const BRIDGE_CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a node of a Redis Cluster may take to answer one pipeline: as long as a probe that was sent just before the next.
pub const BRIDGE_NODE_TIMEOUT: Duration = Duration::from_secs(4);

/// Shortest pause before the bridge connects to Redis again.
pub const BRIDGE_BACKOFF_MIN: Duration = Duration::from_millis(100);

/// Longest pause before the bridge connects to Redis again: what its return costs at the most. 1,000 hubs are 300 attempts
/// a second.
pub const BRIDGE_BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Longest text of an error that is kept to be shown, in bytes.
pub const MAX_ERROR_TEXT_BYTES: usize = 256;

/// Time between two heartbeats of a hub.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// Shortest time between two heartbeats when links are full and are not: each goes to every hub.
pub const EXTRA_BEAT_PAUSE: Duration = Duration::from_millis(100);

/// How long nothing may be received on a link before signals take another way: two heartbeats, and what a timer or a busy socket adds.
///
/// The link stays open as a spare, and is used again when something is received on it. What was sent into it meanwhile is lost if it
/// never recovers: presence is repaired through other hubs, and the signals of this time are `unknown` after [`RECEIPT_TIMEOUT`].
pub const LINK_SILENCE: Duration = Duration::from_millis(2_200);

/// How long the signals on a way may go unanswered, all of them, before another way is tried.
pub const OUTCOME_PATIENCE: Duration = Duration::from_secs(2);

/// How long a way whose signals went unanswered is not used by this hub's own signals while there is another, unless one of them is
/// answered after all.
pub const WAY_AVOIDED: Duration = Duration::from_secs(10);

/// Unanswered signals that are looked at, once a second and hub, to find two with different targets.
pub const MAX_UNANSWERED_LOOKED_AT: usize = 1024;

/// How long a hub that is not heard of keeps its peers in others' rosters: eight heartbeats, so that neither a lost link nor a
/// stop of a few seconds looks like the end of a hub. A ghost lives for this, one heartbeat and the way at the most.
pub const LEASE: Duration = Duration::from_secs(8);

/// How long another life of a hub's id has to go on saying heartbeats before it counts as another live hub: longer than third hubs show
/// the last heartbeat of a life that has ended ([`LINK_SILENCE`]).
pub const RIVAL_EVIDENCE: Duration = Duration::from_millis(2_500);

/// How long ago the last heartbeat of such a life may be for it to count as live.
pub const RIVAL_MEMORY: Duration = Duration::from_secs(4);

/// How long a hub with a fixed HUB_ID waits to see whether a later life of its id goes on, before it begins one that is later still. A
/// hub that has just started does not wait: the life is its predecessor's.
pub const RIVAL_PATIENCE: Duration = Duration::from_secs(3);

/// How long the earlier of two live hubs with one id waits for the later one to take a new id, before it takes one itself. Hubs before
/// 2.1 never do.
pub const RIVAL_YIELD: Duration = Duration::from_secs(10);

/// Latest time, in milliseconds of a wall clock, that is believed as the beginning of a hub's life or of a session: the year 2527.
///
/// Heartbeats of a later life, and sessions with a later beginning, are ignored and counted. There is no need to compare with a
/// clock here, and clocks of hubs may differ by any amount: what matters is that whoever has to be later than a number that was
/// believed can be, and is believed too. So numbers beyond [`GREATEST_TIME_FOLLOWED`] are not exceeded by anybody's own.
pub const GREATEST_TIME: u64 = 1 << 44;

/// Latest such time that a hub makes its own life or sessions later than: the year 2248. Told of a later life of its own, a hub takes a
/// new id instead; beyond it a session at another hub holds its peer's id until it ends.
pub const GREATEST_TIME_FOLLOWED: u64 = GREATEST_TIME / 2;

/// Hubs that a hub remembers, dead ones included. The heartbeats of more are ignored and counted.
///
/// About 1 KiB each without their peers. In a full mesh, hubs x (hubs - 1)^2 heartbeats a second is what bounds it much earlier.
pub const MAX_HUBS: usize = 1024;

/// Neighbours a hub may name in its heartbeat. More are left out, which costs envelopes and loses nothing.
pub const MAX_NEIGHBOURS: usize = 1024;

/// How long a hub that has ended is remembered, so that what is still under way of it is not taken for news.
pub const HUB_MEMORY: Duration = Duration::from_secs(600);

/// Longest URL of a hub, in bytes.
pub const MAX_HUB_URL_BYTES: usize = 512;

/// Hubs that may pass one envelope on. One more: `unreachable`.
pub const MAX_HOPS: u8 = 16;

/// Changes of one hub that are kept while an earlier one is missing. One more: it is dropped, and a snapshot repairs that.
///
/// About 500 B each: 8,192 x 500 B = 4 MB for each hub that is behind.
pub const MAX_CHANGES_AHEAD: usize = 8 * 1024;

/// How long a missing change is waited for, before a snapshot is asked for.
pub const GAP_PATIENCE: Duration = Duration::from_millis(300);

/// How long the next part of a snapshot is waited for, before it is asked for anew.
pub const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(3);

/// Longest time that a snapshot may take in all. One that takes longer is refused, and another neighbour is asked.
///
/// A hub of 1,000,000 peers is about 300 MB: 1 MB/s is enough.
pub const SNAPSHOT_LIMIT: Duration = Duration::from_secs(300);

/// How long a snapshot may arrive more slowly than at [`SNAPSHOT_RATE_BYTES`]. Later it is refused.
pub const SNAPSHOT_SLACK: Duration = Duration::from_secs(12);

/// The least that has to arrive of a snapshot, in bytes per second, on the average since it was asked for. 64 snapshots at once on
/// a link of 20 Mbit/s have as much each.
///
/// So a neighbour that keeps a repair open has to send distinct peers all the time, at most [`MAX_PEERS_PER_HUB`].
pub const SNAPSHOT_RATE_BYTES: u64 = 32 * 1024;

/// Heartbeats of a hub that have to say less than what is known of it here, before that is doubted: counts of changes beyond what its
/// hub says are forgotten, and a snapshot that says less is accepted.
///
/// Heartbeats and changes can take different ways, of which one is seconds slower. So a forged change or snapshot is believed for
/// 4 to 8 heartbeats at each hub on the way, and then repaired.
pub const DOUBT_BEATS: u64 = 4;

/// Greatest number of times that the pause before a snapshot is asked for, [`GAP_PATIENCE`], doubles while snapshots do not make
/// known what their hub's heartbeats say: 300 ms x 2^5 = 9.6 s. Whoever sends wrong snapshots is asked six times in 20 s, and
/// from then on every ten seconds.
pub const MAX_VAIN_REPAIRS: u32 = 5;

/// Peers in one part of a snapshot: 64 x 300 B = 20 KB in practice.
pub const SNAPSHOT_PEERS: usize = 64;

/// Announced data after which a part of a snapshot is full, in bytes: at most this and one peer's.
pub const SNAPSHOT_BYTES: usize = 64 * 1024;

/// Neighbours whose requests for a snapshot of one hub wait until this hub has received that snapshot itself. One more request is
/// declined, and the neighbour asks elsewhere, or again after [`GAP_PATIENCE`].
///
/// 16 B each, and no longer than one repair: [`SNAPSHOT_PATIENCE`] for each part.
pub const MAX_SNAPSHOT_WAITERS: usize = 64;

/// Snapshots that are being sent to one neighbour. One more request is declined; the neighbour asks again.
pub const MAX_SNAPSHOTS_OUT: usize = 64;

/// Peers of one hub that a snapshot may have. More: it is dropped, and the hub's peers are not known here.
pub const MAX_PEERS_PER_HUB: usize = 1_000_000;

/// Networks of one peer of another hub, the most that MAX_NETWORKS_PER_PEER can be set to. A snapshot with more for a peer is refused,
/// and a change that adds one more is left out.
pub const MAX_MEMBERSHIPS: usize = 1024;

/// Signals to one hub whose outcomes are outstanding. One more: `unreachable`.
///
/// About 150 B each: 256 Ki x 150 B = 39 MB a hub. They end within [`RECEIPT_TIMEOUT`].
pub const MAX_SIGNALS_IN_FLIGHT: usize = 256 * 1024;

/// Signals from one hub that wait for an earlier one, or for the presence of their sender. One more: `unreachable`.
pub const MAX_SIGNALS_HELD: usize = 1024;

/// How long a signal waits for an earlier one, or for the presence of its sender.
pub const HOLD: Duration = Duration::from_millis(500);

/// The most by which the counter of a signal may be ahead of the last one of its hub that was passed on: no hub has more under way.
/// Beyond it: `unreachable`, and the order does not move, unless this goes on for [`COUNT_PATIENCE`].
pub const MAX_COUNTER_STEP: u64 = MAX_SIGNALS_IN_FLIGHT as u64;

/// How long all signals from a hub have to come with counters that are in the past, or too far ahead, before counting goes on from
/// them: what was believed before is wrong. Until then they are `unreachable`.
///
/// As long as [`LINK_PATIENCE`], after which a link that has delivered nothing is closed: a signal that was held up on the way does not come later.
pub const COUNT_PATIENCE: Duration = LINK_PATIENCE;

/// How long outcomes that nobody waits for are collected before they go back together.
pub const OUTCOME_DELAY: Duration = Duration::from_millis(20);

/// Outcomes in one envelope: 9 B each.
pub const MAX_OUTCOMES: usize = 1024;

/// How long a hub that is asked for a takeover may take to answer, beyond its own [`TAKEOVER_GRACE`]. It decides within half of
/// this; the rest is for the ways there and back.
pub const TAKEOVER_MARGIN: Duration = Duration::from_secs(1);

/// Takeovers that other hubs have asked for and that are not answered. One more is answered with "in use".
pub const MAX_TAKEOVERS_ASKED: usize = 64 * 1024;

/// Heartbeats in a row that have to come better over another way, before signals take that one.
pub const ROUTE_PATIENCE: u8 = 3;

/// Peers that one legacy link may announce, each in [`DEFAULT_MAX_NETWORKS_PER_PEER`] networks. More are refused and counted.
pub const MAX_PEERS_PER_LEGACY_LINK: usize = 100_000;

/// How long a legacy link may take to repeat what it was told. Of a peer that has left and is said there for the first time
/// later than that, the word counts.
pub const LEGACY_ECHO: Duration = Duration::from_secs(5);

/// Events of each kind within [`LEGACY_ECHO`] that are remembered so that what comes back from a Go hub is known again: 24 B each,
/// three kinds for each legacy link (what it was told, the signals it said, whose signals it was sent) and one for the mesh (who
/// left). At the bound the oldest entry is forgotten. A peer that leaves before its echo arrives then stays until the link
/// ends.
pub const MAX_LEGACY_ECHOES: usize = 8192;

/// How long an announcement of a Go hub is kept for a peer that another claim holds. Longer than a dead claim can last: a hub's
/// lease is 8 s, and a lost connection is noticed after two pings and ten seconds.
pub const LEGACY_WAIT: Duration = Duration::from_secs(120);

/// Announcements of one Go hub that are kept for [`LEGACY_WAIT`], of one peer [`DEFAULT_MAX_NETWORKS_PER_PEER`] at the most. More
/// are refused and counted. About 200 B each besides their names and data: 20 MB.
pub const MAX_LEGACY_WAITING: usize = MAX_PEERS_PER_LEGACY_LINK;

/// Their names and data, in bytes, about 160 B for each: what a Go hub says of its peers when it dials is 70 B. More are refused
/// and counted.
pub const MAX_LEGACY_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// How long a Go hub that has dialed may take to answer the first ping, before it is told of peers all the same. A hub of a kind
/// that does not answer pings is linked with, too, until [`LINK_PATIENCE`] has passed without a word.
pub const LEGACY_PATIENCE: Duration = Duration::from_secs(2);

/// Announcements that wait for room on one legacy link: about 60 B each. Of one more the hub there does not hear before it is
/// linked again.
pub const MAX_LEGACY_OWED: usize = 1_000_000;

/// Payload at which a frame of a link is full: envelopes that wait leave together, in frames of this and at most one envelope.
///
/// A quarter of [`READ_BUFFER_BYTES`], so that three quarters of what is read are understood where they are, and only the
/// beginning of a frame is kept for later. A header is 4 to 8 B: nothing.
pub const LINK_FRAME_BYTES: usize = 16 * 1024;

/// What an envelope adds to the longest thing it carries: its head, a route, ids and a network's name, about 450 B.
pub const ENVELOPE_ROOM: usize = 4 * 1024;

/// The most that MAX_MESSAGE_BYTES can be set to.
pub const LARGEST_MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Longest message that any link takes: the longest signal that any hub can be set to let through, behind a frame that was all
/// but full. Not what this hub is set to: hubs of one mesh differ, while they are replaced at least. One peer in 1,024
/// networks, whole in one part of a snapshot, is 17 MiB. Longer: the link is closed.
pub const LINK_MESSAGE_BYTES: usize = LARGEST_MAX_MESSAGE_BYTES + LINK_FRAME_BYTES + ENVELOPE_ROOM;

/// Bytes waiting for one link (or for the bridge) at which the rules are told to say no more than they must.
///
/// 400 parts of a snapshot of 20 KB, or 10,000 signals of 800 B: about a tenth of a second of a link at full speed.
pub const LINK_QUEUE_HIGH: usize = 8 * 1024 * 1024;

/// Bytes waiting for one link below which the rules may say what they have: what a socket takes in a few writes.
pub const LINK_QUEUE_LOW: usize = 1024 * 1024;

/// Bytes waiting for one link at which it is closed. Beyond [`LINK_QUEUE_HIGH`] come the message that passed it, heartbeats and short
/// answers: 24 MiB of those are 200,000, and the other side has stopped reading long before.
pub const LINK_QUEUE_CAP: usize = 4 * LINK_QUEUE_HIGH + LINK_MESSAGE_BYTES;

/// Links of a hub, those included that are not ready. One more is refused.
///
/// One that is idle is about 2 KiB. At their caps they would be 256 x 96 MiB = 24 GiB; what bounds that in practice is
/// [`LINK_PATIENCE`], after which a link that takes nothing is closed with what waits for it.
pub const MAX_LINKS: usize = 256;

/// Silence, or time without a byte of what waits being taken, after which a link is dead: longer than [`LEASE`], so that a
/// hub that thaws within its lease finds its links as they were.
pub const LINK_PATIENCE: Duration = Duration::from_secs(10);

/// Time between two pings on a link: four go unanswered before it is dead.
pub const LINK_PING_INTERVAL: Duration = Duration::from_millis(2_500);

/// How long the two ends of a link may take to say who they are, from the upgrade on.
pub const LINK_HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a dial may take in all: name, TCP, TLS and upgrade, over all addresses of the name.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an attempt to connect to one address is alone before the next address of the same name is tried beside it: the
/// Connection Attempt Delay of RFC 8305.
pub const CONNECT_STAGGER: Duration = Duration::from_millis(250);

/// Attempts to connect to addresses of one name at once. The oldest ends when one more begins.
///
/// The oldest has had 6 x 250 ms = 1.5 s by then: time for a lost SYN to be sent again after 1 s.
pub const MAX_CONNECT_ATTEMPTS: usize = 6;

/// Addresses of one name that one dial tries. The next dial begins further down the list.
///
/// 5 s are enough to begin 20 attempts, and 16 addresses of 32 bytes are nothing to keep.
pub const MAX_DIAL_ADDRESSES: usize = 16;

/// The least time that an address has to answer the request to upgrade, when others of the same name wait. Half of
/// [`DIAL_TIMEOUT`] is the most.
///
/// Four round trips of 250 ms. Five silent addresses fill a dial.
pub const UPGRADE_SHARE: Duration = Duration::from_secs(1);

/// The first pause after a dial that failed. It doubles with each failure in a row, up to [`DIAL_BACKOFF_MAX`]. The second half
/// of each pause is random: hubs that lost each other at one moment do not dial at one moment.
pub const DIAL_BACKOFF_MIN: Duration = Duration::from_millis(200);

/// The longest pause between two dials, when a hub has been away for a minute.
pub const DIAL_BACKOFF_MAX: Duration = Duration::from_secs(15);

/// The longest pause between two dials to a hub whose link was lost, or that became known, less than a lease ago. Later it is
/// a quarter of that time, up to [`DIAL_BACKOFF_MAX`].
///
/// A quarter of [`LEASE`]: a link that is lost again and again is back three times before presence would be. A hub that comes
/// back after a minute costs about 20 dials.
pub const DIAL_BACKOFF_NEAR: Duration = Duration::from_secs(2);

const _: () = assert!(DIAL_BACKOFF_NEAR.as_millis() * 4 <= LEASE.as_millis());

/// A link that was in use for so long has worked: the next pause is the first again. Half a [`HEARTBEAT`]: a link that is lost
/// every second is away for a fifth of that at the most.
pub const DIAL_PROVEN: Duration = Duration::from_millis(500);

/// The first pause after a dial that led to the dialing hub itself. It doubles up to [`DIAL_OWN_BACKOFF_MAX`].
pub const DIAL_OWN_BACKOFF_MIN: Duration = Duration::from_secs(1);

/// The longest pause between two dials to an address that leads to the dialing hub itself. Behind a balancer another hub may
/// answer; an address that is this hub's own costs one dial a minute.
pub const DIAL_OWN_BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How long the hub with the greater id leaves it to the other to dial, when both have learned of each other.
pub const DIAL_COURTESY: Duration = Duration::from_secs(1);

/// Addresses to dial that a hub knows at once, from all sources. One more is not dialed.
pub const MAX_DIALS: usize = 1024;

/// How long a dial may take before it keeps no other waiting.
pub const DIAL_YOUNG: Duration = Duration::from_millis(500);

/// Dials at once that are younger than [`DIAL_YOUNG`]. The other targets wait.
///
/// 100 addresses that swallow packets are dialed within 1.5 s, and delay one that answers by no more.
pub const MAX_YOUNG_DIALS: usize = 32;

/// Dials at once, however old. The other targets wait.
///
/// 128 end every [`DIAL_TIMEOUT`] if none answers: [`MAX_DIALS`] targets have been dialed within 40 s. With
/// [`MAX_CONNECT_ATTEMPTS`] each, if all are names with many addresses that swallow packets, they are 768 sockets.
pub const MAX_DIALS_AT_ONCE: usize = 128;

/// Time between two look-ups of MESH_DNS.
pub const DNS_INTERVAL: Duration = Duration::from_secs(5);

/// How long a hub that ends waits for its links to take what it says last.
pub const LINK_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// After a stop of the whole process, how long links are read before anything is judged by the time.
pub const THAW: Duration = Duration::from_millis(300);

/// Frames from the bridge that may wait for the mesh: 64 x 64 KiB = 4 MiB in practice.
pub const BRIDGE_EVENTS: usize = 64;

/// Bytes of log lines that wait for stderr. More lines are dropped and counted (`peerpigeon_log_lines_dropped_total`).
///
/// A line is about 200 B: 20,000 lines, which is what 5,000 peers log at `debug` when they all reconnect. As much again can be
/// under way to stderr: 2 x 4 MiB = 8 MiB at the worst.
pub const LOG_QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of log lines in one write to stderr. The kernel does not mix writes of this size by several processes to one pipe (`PIPE_BUF`).
pub const LOG_CHUNK_BYTES: usize = 4096;

/// Pause after stderr has refused a write, before the next attempt.
pub const LOG_RETRY: Duration = Duration::from_millis(200);

/// How long a process that ends waits for stderr to take the last lines. What it has not taken then is lost.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Files of the process besides sockets: the standard streams, the signals' pipe, and what jemalloc or the system's resolver opens.
pub const STANDARD_FILES: usize = 8;

/// Files of one runtime: its poll instance, its waker and its copy of the signals' pipe.
pub const RUNTIME_FILES: usize = 3;

/// Files that are kept for links and dials: [`MAX_LINKS`] and [`MAX_DIALS_AT_ONCE`]. Peers do not get them. Where the process may
/// open few files, it is a sixteenth of those.
pub const LINK_FILES: usize = MAX_LINKS + MAX_DIALS_AT_ONCE;

/// Connections to ADMIN_PORT at once. One more takes the place of the oldest. Where the process may open few files, it is a
/// thirty-second of those.
pub const ADMIN_FILES: usize = 256;

/// Files that are kept for connections to PORT that are not peers yet: requests for pages, and peers that are turned away.
/// Where the process may open few files, it is a thirty-second of those.
pub const REQUEST_FILES: usize = 256;

/// Files that are kept for everything else: connections to Redis, look-ups of names, reads of `/proc`. Where the process may
/// open few files, it is a sixty-fourth of those.
pub const OTHER_FILES: usize = 64;

/// The least of each of these shares.
pub const SMALLEST_FILE_SHARE: usize = 8;

/// How long a thread of the hub may go without a turn of its loop, before `/livez` and `/readyz` say so.
///
/// A thread notes a turn each [`TICK`]. The longest turns known take half a second: the end of a hub of 50,000 peers.
pub const TURN_PATIENCE: Duration = Duration::from_secs(10);

/// The most that counts as time between two turns of a process's threads, whichever they are. In a longer pause the whole process
/// was stopped.
pub const WATCHDOG_STEP: Duration = Duration::from_secs(1);

/// Lives of one hub that are remembered after their farewell, until the hub is forgotten. Of one more the oldest is forgotten. A hub
/// that is restarted four times within the time that a heartbeat takes around the mesh (seconds) reaches it.
pub const MAX_ENDED_LIVES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::parse;

    /// The protocol as it is written down.
    const DOC: &str = include_str!("../../docs/protocol.md");

    /// The rows of the table of bounds: what is bounded, and what stands beside it.
    fn rows() -> Vec<(&'static str, &'static str)> {
        let (_, section) = DOC.split_once("### Bounds\n").unwrap();
        let table = section.lines().skip_while(|line| !line.starts_with("|---"));
        let rows = table.skip(1).take_while(|line| line.starts_with('|'));
        rows.map(|row| row.strip_prefix("| ").and_then(|row| row.split_once(" | ")).unwrap()).collect()
    }

    #[test]
    fn the_documented_bounds_are_the_ones_here() {
        let bounds = [
            ("bytes of a message, all fragments together", DEFAULT_MAX_MESSAGE_BYTES),
            ("bytes of a `networkName`", MAX_NETWORK_NAME_BYTES),
            ("bytes of an `id`", MAX_MESSAGE_ID_BYTES),
            ("bytes of `data` in `announce` and `goodbye`", MAX_ANNOUNCE_DATA_BYTES),
            ("depth of `data` in `announce` and `goodbye`", MAX_ANNOUNCE_DEPTH),
            ("depth of `data` in a signal", MAX_SIGNAL_DEPTH),
            ("bytes of a client's `type` in `inReplyTo`", MAX_ECHOED_TYPE_BYTES),
            ("K of `closest`, `data.limit` of `discover`", usize::from(MAX_CLOSEST)),
            ("networks of a peer", DEFAULT_MAX_NETWORKS_PER_PEER),
            ("members of a network", DEFAULT_MAX_PEERS_PER_NETWORK),
            ("peers that a peer knows under bounded discovery", MAX_ACQUAINTANCES),
            ("messages per second, on average", DEFAULT_MESSAGE_RATE as usize),
            ("burst of messages, in seconds of that rate", MESSAGE_BURST_SECS as usize),
            ("seconds above that rate without a pause", RATE_LIMIT_PATIENCE.as_secs() as usize),
            ("outstanding receipts", MAX_OPEN_RECEIPTS as usize),
            ("`error` messages per second, on average", ERROR_RATE as usize),
            ("burst of `error` messages", ERROR_BURST as usize),
        ];
        let documented: Vec<_> = rows()
            .into_iter()
            .map(|(what, rest)| (what, rest.split(' ').next().and_then(|most| most.parse().ok()).unwrap()))
            .collect();
        assert_eq!(documented, bounds);
    }

    #[test]
    fn what_is_said_of_a_bound_has_its_number() {
        let said = |text: String| parse(&text).unwrap_err().message;
        let target = "a".repeat(40);
        let deep = ["[".repeat(MAX_SIGNAL_DEPTH + 1), "]".repeat(MAX_SIGNAL_DEPTH + 1)].concat();
        let id = "i".repeat(MAX_MESSAGE_ID_BYTES + 1);
        let name = "n".repeat(MAX_NETWORK_NAME_BYTES + 1);
        for (most, sentence) in [
            (MAX_SIGNAL_DEPTH, said(format!(r#"{{"type":"offer","targetPeerId":"{target}","data":{deep}}}"#))),
            (MAX_MESSAGE_ID_BYTES, said(format!(r#"{{"type":"offer","targetPeerId":"{target}","id":"{id}"}}"#))),
            (MAX_NETWORK_NAME_BYTES, said(format!(r#"{{"type":"announce","networkName":"{name}"}}"#))),
            (MAX_ANNOUNCE_DEPTH, crate::codec::Unfit::TooDeep.explain()),
            (MAX_ANNOUNCE_DATA_BYTES, crate::codec::Unfit::TooLarge.explain()),
            (MAX_ACQUAINTANCES, crate::ErrorCode::NetworkFull.explain()),
        ] {
            assert!(sentence.contains(&format!(" {most} ")), "{most}: {sentence}");
        }
    }
}
