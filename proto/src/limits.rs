//! Every bound, with its arithmetic and its effect.

use std::time::Duration;

/// Maximum length of a network name, in bytes. Longer names get `invalid-message`.
pub const MAX_NETWORK_NAME_BYTES: usize = 256;

/// Maximum length of a signal's `id`, in bytes. Signals with longer ids get `invalid-message`, and no receipt.
pub const MAX_MESSAGE_ID_BYTES: usize = 64;

/// Maximum length of announced `data`, in bytes of JSON. Longer data gets `data-too-large`.
///
/// An announcement is stored once per hub while its peer is in the network. [`DEFAULT_ANNOUNCE_BUDGET_BYTES`] bounds
/// their sum.
pub const MAX_ANNOUNCE_DATA_BYTES: usize = 16 * 1024;

/// Default of ANNOUNCE_BUDGET_BYTES: maximum size of all stored announcements of a hub's peers, in bytes. A shard that
/// exceeds its share refuses further announcements with `hub-full`, except from peers with at most
/// [`ANNOUNCE_FLOOR_BYTES`] in total.
///
/// An announcement is stored as its `peer-discovered` message, 250 B longer than its data, plus [`MEMBER_BYTES`], on
/// each hub of the mesh. The worst case of a hub is hubs x (budget + MAX_CONNECTIONS x floor) = 3 x (256 MiB + 1,000 x
/// 2 KiB) = 774 MiB.
pub const DEFAULT_ANNOUNCE_BUDGET_BYTES: usize = 256 * 1024 * 1024;

/// Bytes that a membership counts in that budget: about 100 B per shard and hub for its place in the rosters, and the
/// announcement's own fields.
pub const MEMBER_BYTES: usize = 256;

/// Bytes that a peer may announce in all its networks together, even if the budget is exhausted.
pub const ANNOUNCE_FLOOR_BYTES: usize = 2 * 1024;

/// Maximum nesting of announced `data`, in levels. Deeper data gets `invalid-message`.
///
/// Members receive announcements unasked, so this protects their parsers.
pub const MAX_ANNOUNCE_DEPTH: usize = 64;

/// Maximum nesting of a signal's `data`, in levels. Deeper data gets `invalid-message`.
///
/// A recursive parser of a target would fail on the whole message: Python's at about 1,000 levels. Offers have two.
/// A deeper signal that another hub relayed, as hubs of version 2.0.0 do, has the outcome `invalid-message`.
pub const MAX_SIGNAL_DEPTH: usize = 512;

/// Maximum length of a client's `type` in `inReplyTo`, in bytes. Longer types are truncated.
pub const MAX_ECHOED_TYPE_BYTES: usize = 64;

/// Default of MAX_MESSAGE_BYTES: maximum length of a client's message, in bytes, all fragments together. Longer
/// messages get `message-too-large`, then close 1009.
///
/// Offers have 7 KB in practice. 1 MiB leaves room for applications that send more than signals.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// Default of MAX_CONNECTIONS, as in the Go hub.
pub const DEFAULT_MAX_CONNECTIONS: usize = 1000;

/// Default of MAX_NETWORKS_PER_PEER: maximum number of networks of a peer. One more gets `too-many-networks`.
pub const DEFAULT_MAX_NETWORKS_PER_PEER: usize = 32;

/// Default of MAX_PEERS_PER_NETWORK: maximum number of members of a network. One more gets `network-full`.
///
/// Each shard checks its own roster, so peers that announce on several shards at the same moment can exceed the maximum
/// by the number of shards.
pub const DEFAULT_MAX_PEERS_PER_NETWORK: usize = 100_000;

/// Default of SEND_QUEUE_FRAMES: maximum number of frames queued for one session. A session with more is closed with
/// 4003.
///
/// If a network of 10,000 leaves at once, a member receives 10,000 frames in one turn.
pub const DEFAULT_SEND_QUEUE_FRAMES: usize = 32 * 1024;

/// Default of SEND_QUEUE_BYTES: maximum number of bytes queued for one session. A session with more is closed with
/// 4003.
///
/// 10,000 leaves x 300 B = 3 MB, and four times that for large messages behind them.
pub const DEFAULT_SEND_QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Default of SEND_BUDGET_BYTES: maximum number of bytes queued for all sessions of the hub together. Above its share,
/// a shard closes (4003) each session that would queue more than [`SEND_FLOOR_BYTES`].
///
/// With the floor, the worst case is budget + connections x floor: 512 MiB + 1,000 x 256 KiB = 768 MiB.
pub const DEFAULT_SEND_BUDGET_BYTES: usize = 512 * 1024 * 1024;

/// Bytes that a session may queue even if the budget is exhausted.
pub const SEND_FLOOR_BYTES: usize = 256 * 1024;

/// Share of a session's queue that signals may fill, in quarters of its frames and bytes. The rest is reserved for the
/// hub's own messages about presence.
pub const SIGNAL_QUARTERS: usize = 3;

/// Bytes that each sender's signals may fill in a queue while there is any room for signals. Beyond that, a sender may
/// have half of the remaining room, so one sender fills at most a quarter of it. Further signals get `slow-peer`, and
/// the target stays connected.
///
/// Of the 12 MiB for signals, one sender fills at most 3 MiB, the next one 1.5 MiB, and so on. 6 MiB remain for small
/// shares: 384 senders with two offers each. To block another sender's signals, an attacker needs more senders than
/// that at once.
pub const SENDER_SMALL_BYTES: usize = 16 * 1024;

/// The same in signals: 384 senders have 12,288, half of those that [`DEFAULT_SEND_QUEUE_FRAMES`] leaves for signals.
pub const SENDER_SMALL_FRAMES: usize = 32;

/// Bytes of signals in a queue below which their senders are not counted, so signals to peers that read well cost
/// nothing extra.
pub const SENDER_FLOOR_BYTES: usize = 64 * 1024;

/// Number of signals in a queue below which their senders are not counted.
pub const SENDER_FLOOR_FRAMES: usize = 256;

/// Default of MESSAGE_RATE: average number of messages per second and session. Further messages get `rate-limited`.
///
/// A peer that joins a mesh of 16 peers sends about 150 messages in its first second. The limit stops loops and does
/// not shape traffic: 20,000 per second is about a tenth of a core.
pub const DEFAULT_MESSAGE_RATE: u32 = 20_000;

/// Default of MESSAGE_RATE_BYTES: average number of bytes of messages per second and session. Further messages get
/// `rate-limited`.
///
/// A peer that joins a mesh of 16 peers sends about 1 MB of offers in its first second. The limit stops loops: 4 MiB/s
/// from each of 1,000 peers fill a network of 32 Gbit/s.
pub const DEFAULT_MESSAGE_RATE_BYTES: u64 = 4 * 1024 * 1024;

/// Maximum of the setting MESSAGE_RATE_BYTES.
pub const LARGEST_MESSAGE_RATE_BYTES: u64 = 1024 * 1024 * 1024;

/// Number of messages of the maximum length that a session may send in one burst, however low MESSAGE_RATE_BYTES is.
pub const MESSAGE_BURST_LARGEST: u64 = 4;

/// Average number of bytes of announcements per second and session, each plus [`MEMBER_BYTES`]. Further announcements
/// get `rate-limited`.
///
/// Each announcement goes to every member, ahead of signals' share of their queues. The rate allows 4 of the largest
/// per second, or 180 of 100 B.
pub const ANNOUNCE_RATE_BYTES: u64 = 64 * 1024;

/// Bytes of announcements that a session may send in one burst: 64 of the largest, or 3,000 of 100 B. A sixteenth of
/// [`DEFAULT_SEND_QUEUE_BYTES`].
pub const ANNOUNCE_BURST_BYTES: u64 = 1024 * 1024;

/// Length of a burst, in seconds of [`DEFAULT_MESSAGE_RATE`] and of [`DEFAULT_MESSAGE_RATE_BYTES`].
pub const MESSAGE_BURST_SECS: u32 = 5;

/// Time above the message rate without a pause after which a session is closed (1008).
pub const RATE_LIMIT_PATIENCE: Duration = Duration::from_secs(10);

/// Time without a refused message that counts as a pause.
pub const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(1);

/// Average number of `error` messages per second and session. Further ones are counted and not sent; receipts are
/// always sent.
pub const ERROR_RATE: u64 = 20;

/// Number of `error` messages that a session may get in one burst.
pub const ERROR_BURST: u64 = 100;

/// Maximum number of outstanding receipts of a session. The receipt of a further signal has the outcome `rate-limited`.
///
/// A ticket takes about 150 B: 8,192 take 1.2 MB. They end within [`RECEIPT_TIMEOUT`].
pub const MAX_OPEN_RECEIPTS: u32 = 8_192;

/// Time after which a receipt without an outcome gets `unknown`.
pub const RECEIPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time in which a session must answer the ping caused by a second connection with its id, from the moment at which its
/// socket accepted the ping. A socket that accepts nothing for this time counts as no answer.
pub const TAKEOVER_GRACE: Duration = Duration::from_secs(2);

/// Maximum time for which the second connection waits. If the first session's socket still accepts bytes queued before
/// the ping, or did less than [`TAKEOVER_GRACE`] ago, that session keeps the id. A message of 1 MiB that has begun
/// takes 8 s at 1 Mbit/s.
pub const TAKEOVER_LIMIT: Duration = Duration::from_secs(10);

/// How long after a session's beginning a client with the secret of an older [`Lineage`](crate::Lineage) takes its id back at once,
/// from a stranger who took the id while that client was away. Later the liveness check decides.
///
/// 120 s are longer than it takes a hub to notice a dead connection (60 s) and a client to come back with backoff (30 s).
pub const RESUME_PRECEDENCE: Duration = Duration::from_secs(120);

/// Length of MESH_TOKEN, in bytes, from which on the keys of resume secrets are made of it. With a shorter token each hub draws its
/// own key, since every client could try guesses of the token. 32 random hexadecimal digits are 128 bits.
pub const LEAST_RESUME_TOKEN_BYTES: usize = 32;

/// Number of members of the roster that a new member receives at a time, before its socket is checked for room again.
///
/// 128 x 250 B = 32 KB, about half of a default socket send buffer.
pub const ROSTER_CHUNK: usize = 128;

/// Maximum number of such chunks in one turn while the socket accepts them: 8 x 32 KB. With one chunk, a new member
/// among 2,000 busy sockets would wait for sixteen rounds of all of them.
pub const ROSTER_CHUNKS: usize = 8;

/// Number of queued bytes of a session below which it gets the next chunk of the roster.
pub const ROSTER_LOW_WATER_BYTES: usize = 64 * 1024;

/// Maximum K of `closest`, and maximum number of members that one `discover` introduces.
pub const MAX_CLOSEST: u8 = 64;

/// Number of random members that a new member meets besides the closest, under bounded discovery. They connect the
/// neighbourhoods of a network. A random graph with two per node is connected except for stragglers; with four, it
/// stays so while half of the nodes are away.
pub const RANDOM_PICKS: usize = 4;

/// Maximum number of others that a peer knows in a network under bounded discovery. Beyond that, picks are declined,
/// and strangers' signals and `discover` get `network-full`.
///
/// Peers choose their ids, so a crowd can aim at one peer. Without that, a peer among 100,000 knows about 2 x (K + R)
/// others, and one that has been there from the beginning (K + R) x ln(100,000 / (K + R)): 40 and 170 for K = 16, 140
/// and 500 for K = 64. An acquaintance takes 21 B at the peer's home and 8 B in the roster: 1,024 x 29 B = 30 KB.
pub const MAX_ACQUAINTANCES: usize = 1024;

/// Maximum number of members remembered as having declined a peer. A further one is not remembered, and nobody is
/// picked in its place. So a join among members that are all crowded costs at most 2 x 64 more events.
pub const MAX_DECLINED: usize = 64;

/// Number of members that are tried in turn if random picks find too few unknown ones. In a smaller network a new
/// member therefore meets as many as it wants.
pub const PICKS_IN_TURN: usize = 256;

/// Maximum number of pairs in one meeting between hubs: 28 B each.
pub const MAX_MEETING: usize = 256;

/// Time in which another hub must confirm a meeting, before it is sent again.
pub const MEETING_PATIENCE: Duration = Duration::from_millis(500);

/// Interval at which each peer's complete acquaintances at other hubs are sent to those hubs. It repairs what one side
/// forgot in a partition. 10,000 peers with three other hubs cause 500 envelopes per second of 400 B.
pub const MEETING_AGAIN: Duration = Duration::from_secs(60);

/// Interval between two parts of that sweep.
pub const MEETING_SWEEP: Duration = Duration::from_secs(1);

/// Maximum time between two pings of a silent session.
pub const PING_INTERVAL: Duration = Duration::from_secs(25);

/// Time from the second unanswered ping until a silent session is dead.
pub const PONG_GRACE: Duration = Duration::from_secs(10);

/// Maximum number of bytes of pings and pongs queued ahead of a session's messages. Beyond that, a new pong replaces
/// the last one (RFC 6455 section 5.5.3).
///
/// 32 of the longest. They fill up only if the client does not read.
pub const CONTROL_LANE_BYTES: usize = 4 * 1024;

/// Bytes that a peer's socket accepts beyond those on the wire (TCP_NOTSENT_LOWAT). A ping waits for these, a segment
/// of 64 KiB and the rest of one message: 0.7 s at 1 Mbit/s.
///
/// So a socket that accepts bytes shows that the client's TCP has acknowledged earlier ones.
pub const SOCKET_UNSENT_BYTES: u32 = 16 * 1024;

/// Time for which the hub waits for a client's close frame after its own.
pub const CLOSE_LINGER: Duration = Duration::from_secs(2);

/// Number of letters queued for one shard at which this shard stops reading frames.
///
/// Above the mark, one turn of the loop can still add what it has read, plus one mass close: sessions of the shard x
/// networks per peer.
pub const OUTBOX_HIGH_WATER: usize = 8 * 1024;

/// Bytes of frames in letters queued for one shard at which this shard stops reading frames.
///
/// One read can exceed it by [`READ_BUFFER_BYTES`] for each session whose turn precedes the check, or by one longest
/// message.
pub const OUTBOX_HIGH_WATER_BYTES: usize = 16 * 1024 * 1024;

/// Outputs of a router after which a turn of its shard ends, with those of the letter, message or network that passes them. What is left of a
/// batch of letters, of what was read of a socket, or of the networks that a session leaves has its turn when everything else
/// that is ready has had one.
///
/// 4,096 x 0.25 us = 1 ms. Passed by one event in one network: a frame for each of its members on this shard, 6,250 of 100,000 on 16
/// shards, 1.6 ms.
pub const TURN_OUTPUTS: usize = 4096;

/// Letters in one batch: at 64 B a letter plus its frame, about what fits in a core's cache.
pub const LETTER_BATCH: usize = 256;

/// Bytes of frames at which a batch is full. One longest message can exceed it.
pub const LETTER_BATCH_BYTES: usize = 256 * 1024;

/// Maximum number of batches in a shard's mailbox, and in the mesh's: 64 x 256 letters = 16,384 letters, and at worst
/// 64 x (256 KiB + a message of 1 MiB) = 80 MiB.
pub const MAILBOX_BATCHES: usize = 64;

/// Maximum number of upgraded sockets that wait for their home shard. The acceptor of a further one waits.
pub const HANDOFF_QUEUE: usize = 256;

/// Maximum number of upgraded sockets of hubs that wait for the mesh. A further one is closed with `try again later`.
pub const LINK_SOCKET_QUEUE: usize = 256;

/// Maximum number of other hubs in `go-away`. More are left out: 16 x 512 B = 8 KiB per peer.
pub const MAX_GO_AWAY_HUBS: usize = 16;

/// Maximum number of connections of one listener that are not WebSockets (yet). A further one replaces the oldest. A
/// shard has one listener per address of HOST: two for `localhost`.
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

/// Maximum length of the head of a request, in bytes, including bytes read after it. Longer heads get 431.
pub const MAX_REQUEST_HEAD_BYTES: usize = 16 * 1024;

/// Maximum number of headers of a request. More get 431.
pub const MAX_REQUEST_HEADERS: usize = 100;

/// Time in which the first request of a connection must arrive. Later, the connection is closed without an answer.
pub const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for which a connection is kept for its next request, which must be complete by then. It exceeds the 60 s for
/// which load balancers keep idle connections, so that the balancer closes first and never sends a request into a
/// closing connection.
///
/// If a connection is needed for another one, the oldest of its listener is closed earlier.
pub const HTTP_IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Time in which an answer must be made and read, before its connection is closed.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Number of requests that one connection may send in a burst. Further ones wait for [`REQUEST_RATE`].
pub const REQUEST_BURST: u32 = 20;

/// Average number of answers per second for one connection. Requests wait and are never refused: a client that
/// pipelines slows down only itself.
pub const REQUEST_RATE: u32 = 20;

/// Pages (all but /livez, /readyz, /, files such as /client.js, and errors) that a shard answers a second, at the ports for everybody and again at
/// ADMIN_PORT, beyond what each address has for itself ([`PAGE_RESERVE_RATE`]). Further ones wait for their turn.
///
/// An answer is shared bytes, 60 KB for /metrics, and takes about 20 us of the shard, so 100 take 0.2 %. This is enough
/// for a balancer with 50 nodes behind one address that all request /health each second.
pub const PAGE_RATE: u32 = 100;

/// Number of pages per second that each address (each /64 of IPv6) has for itself at a shard: for a balancer's /health
/// each second and a scrape.
pub const PAGE_RESERVE_RATE: u32 = 2;

/// Number of such pages in a burst.
pub const PAGE_RESERVE_BURST: u32 = 10;

/// Number of slots for the shares of addresses. Addresses with the same keyed hash share a slot: with a flood from 5
/// addresses, one other in 100 has only the common share.
///
/// 48 B each, 24 KiB for each of the two kinds of ports. If all are used, they are 1,024 pages per second: 2 % of the
/// shard.
pub const PAGE_RESERVES: usize = 512;

/// Maximum time for which a page waits for [`PAGE_RATE`]. If it would wait longer, it gets 429 with `Retry-After` at
/// once.
pub const PAGE_PATIENCE: Duration = Duration::from_secs(1);

/// Number of renderings of a page in a burst. Within it, each request gets a page that was rendered after it arrived.
pub const RENDER_BURST: u32 = 10;

/// Average number of renderings per second of a page. Further requests get the last one, so no page is older than a
/// quarter of a second.
///
/// /metrics takes 1.2 ms: 4 per second of each of the 7 pages take at most 3 % of a core.
pub const RENDER_RATE: u32 = 4;

/// Time for which a page's rendering is waited for. Later, the answer is 503 with `Retry-After`.
pub const RENDER_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of networks that one turn of a shard examines for the list of the largest: 4,096 x 20 ns = 80 us.
pub const NETWORKS_CHUNK: usize = 4_096;

/// Time for which the JSON form of /metrics waits for the list of networks. Later, it contains the previous list.
pub const NETWORKS_TIMEOUT: Duration = Duration::from_secs(1);

/// Number of sessions with queued bytes, and number of those bytes, at which a shard stops reading frames until half of
/// either is left. Further messages would only wait behind them, and grow the queues of peers that read well.
///
/// Both, because a crowd that receives many announcements gets them in one write: one announcement in a network of
/// 2,000 is 2,000 sessions and 600 KB, and 16 MiB are 27 of them per write.
pub const FLUSH_BACKLOG: usize = 4 * FLUSH_CHUNK;

/// See [`FLUSH_BACKLOG`].
pub const FLUSH_BACKLOG_BYTES: usize = 16 * 1024 * 1024;

/// Size of the one read buffer that all sessions of a shard share, in bytes.
pub const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Number of sessions that are written before other tasks of the shard run: 64 x about 8 us = half a millisecond.
pub const FLUSH_CHUNK: usize = 64;

/// Number of bytes that are written before other tasks of the shard run, plus the last session's.
pub const FLUSH_CHUNK_BYTES: u64 = 1024 * 1024;

/// Maximum number of networks in `/metrics?format=json`, largest first. The rest are only counted.
pub const MAX_LISTED_NETWORKS: usize = 1_000;

/// Resolution of a shard's timers: keepalive, receipts, takeovers and drain slots are at most this late.
pub const TICK: Duration = Duration::from_millis(100);

/// Bytes at which a frame of the Redis bridge is full. One envelope can exceed it.
///
/// Redis copies each frame once per hub: 64 KiB fits its caches, and 200 envelopes share one command.
pub const BRIDGE_FRAME_BYTES: usize = 64 * 1024;

/// Maximum number of bytes of the bridge that Redis has not accepted, queued or in flight. Further envelopes are
/// dropped and counted as lost: digests repair presence, and the outcome of a signal is `unknown`.
///
/// Writing them takes 1.6 s at 10 MB/s, less than the lease.
pub const BRIDGE_QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of frames at which a pipeline to Redis is full. One frame can exceed it.
pub const BRIDGE_PIPELINE_BYTES: usize = 256 * 1024;

/// Maximum number of pipelines to Redis in flight. Other frames wait, and are sent together.
///
/// 8 x (256 + 64 KiB) = 2.5 MiB precede a probe in the socket: at 1.25 MB/s it is still answered in time.
pub const BRIDGE_PIPELINES: usize = 8;

/// Maximum number of messages from Redis that the bridge has not processed. Further ones are dropped and counted as
/// lost. The connection itself never waits for the bridge, because it would then miss answers too.
///
/// A runtime reads about 1 MiB of one socket in one turn; the smallest frame has about 150 B with its channel's name:
/// 7,000 of them, doubled.
pub const BRIDGE_INBOX: usize = 16 * 1024;

/// Maximum number of bytes of the messages in [`BRIDGE_INBOX`]. Further messages are dropped and counted as lost. A
/// longer frame is never accepted.
pub const BRIDGE_INBOX_BYTES: usize = 32 * 1024 * 1024;

/// Number of messages of [`BRIDGE_INBOX`] that are processed before anything else runs.
pub const BRIDGE_BATCH: usize = 256;

/// Interval between two probes: empty frames that a bridge publishes and must receive back within this time. So an
/// unresponsive Redis is noticed within twice this time.
pub const BRIDGE_PROBE: Duration = Duration::from_secs(2);

/// Interval between two challenges of a hub on the bridge: random numbers that the others echo, which proves that they
/// live and receive. A multiple of [`BRIDGE_PROBE`].
///
/// A mesh of n hubs publishes n x (n - 1) answers of about 150 B in this time: 1,008 per second for 64 hubs, of the
/// 100,000 that Redis can do.
pub const BRIDGE_CHALLENGE: Duration = Duration::from_secs(4);

/// Number of recent challenges. A hub's frames are dropped unless it has answered one of them.
///
/// 3 x 4 s: two answers in a row may be lost, and a hub that stops receiving counts as lost 8 to 12 s plus a lease
/// later.
pub const BRIDGE_CHALLENGES: usize = 3;

/// Maximum number of sessions of one hub id whose answers are accepted. Frames of a further session are dropped until
/// the oldest answers expire.
///
/// A reconnecting hub begins a new session; the pauses between its attempts allow fewer than 16 in 12 s. 48 B each.
pub const BRIDGE_SESSIONS: usize = 16;

/// Maximum number of hubs listed as one-way on the bridge. The rest are left out: 64 x 40 B on a page.
pub const MAX_ONE_WAY: usize = 64;

/// Time in which Redis must accept a connection, TLS and authentication included, and then both subscriptions.
pub const BRIDGE_CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// Time in which a node of a Redis Cluster must answer one pipeline: as long as a probe sent just before the next.
pub const BRIDGE_NODE_TIMEOUT: Duration = Duration::from_secs(4);

/// Minimum pause before the bridge connects to Redis again.
pub const BRIDGE_BACKOFF_MIN: Duration = Duration::from_millis(100);

/// Maximum pause before the bridge connects to Redis again, and so the maximum delay after its return. 1,000 hubs make
/// 300 attempts per second.
pub const BRIDGE_BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Maximum length of a stored error text, in bytes.
pub const MAX_ERROR_TEXT_BYTES: usize = 256;

/// Interval between two heartbeats of a hub.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// Minimum time between two heartbeats when links become full or free, since each goes to every hub.
pub const EXTRA_BEAT_PAUSE: Duration = Duration::from_millis(100);

/// Time without a received byte on a link after which signals take another way: two heartbeats, plus the delay of a
/// timer or a busy socket.
///
/// The link stays open as a spare, and is used again when something arrives on it. If it never recovers, what was sent
/// into it is lost: presence is repaired through other hubs, and the signals of this time get `unknown` after
/// [`RECEIPT_TIMEOUT`].
pub const LINK_SILENCE: Duration = Duration::from_millis(2_200);

/// Time in which no signal on a way is answered, after which another way is tried.
pub const OUTCOME_PATIENCE: Duration = Duration::from_secs(2);

/// Time for which this hub's own signals avoid such a way if there is another, unless one of its signals is answered
/// after all.
pub const WAY_AVOIDED: Duration = Duration::from_secs(10);

/// Maximum number of unanswered signals examined per second and hub, to find two with different targets.
pub const MAX_UNANSWERED_LOOKED_AT: usize = 1024;

/// Time without a heartbeat after which a hub's peers leave: eight heartbeats, so that a lost link or a pause of a few
/// seconds does not look like the end of a hub. A ghost lives at most this long, plus one heartbeat and its transit.
pub const LEASE: Duration = Duration::from_secs(8);

/// Time for which another incarnation of a hub's id must send heartbeats before it counts as another live hub. Longer
/// than third hubs forward the last heartbeat of an ended incarnation ([`LINK_SILENCE`]).
pub const RIVAL_EVIDENCE: Duration = Duration::from_millis(2_500);

/// Maximum age of the last heartbeat of such an incarnation for it to count as alive.
pub const RIVAL_MEMORY: Duration = Duration::from_secs(4);

/// Time for which a hub with a fixed HUB_ID observes whether a later incarnation of its id is alive, before it begins
/// an even later one. A hub that has just started does not wait: that incarnation is its predecessor.
pub const RIVAL_PATIENCE: Duration = Duration::from_secs(3);

/// Time for which the earlier of two live hubs with one id waits for the later one to take a new id, before it takes
/// one itself. Hubs before 2.1 never take one.
pub const RIVAL_YIELD: Duration = Duration::from_secs(10);

/// Latest accepted start of a hub's incarnation or of a session, in milliseconds since 1970: the year 2527.
///
/// Heartbeats of later incarnations, and sessions with later starts, are ignored and counted. They are not compared
/// with a clock, so clocks of hubs may differ by any amount. What matters is that a hub can always choose a greater
/// number than an accepted one, which is accepted in turn. Therefore no hub exceeds a number beyond
/// [`GREATEST_TIME_FOLLOWED`] with its own.
pub const GREATEST_TIME: u64 = 1 << 44;

/// Latest time that a hub exceeds with its own incarnation or sessions: the year 2248. Beyond it, a hub that receives a
/// later incarnation of its own id takes a new id, and a session at another hub keeps its peer's id until it ends.
pub const GREATEST_TIME_FOLLOWED: u64 = GREATEST_TIME / 2;

/// Maximum number of hubs that a hub remembers, dead ones included. Heartbeats of more are ignored and counted.
///
/// About 1 KiB each without their peers. In a full mesh, the hubs x (hubs - 1)^2 heartbeats per second are a much lower
/// bound.
pub const MAX_HUBS: usize = 1024;

/// Maximum number of neighbours in a heartbeat. More are left out, which costs duplicate envelopes and loses nothing.
pub const MAX_NEIGHBOURS: usize = 1024;

/// Time for which a stopped hub is remembered, so that its late envelopes are not accepted as new.
pub const HUB_MEMORY: Duration = Duration::from_secs(600);

/// Maximum length of a hub's URL, in bytes.
pub const MAX_HUB_URL_BYTES: usize = 512;

/// Maximum number of hubs that forward one envelope. Signals that would need more get `unreachable`.
pub const MAX_HOPS: u8 = 16;

/// Maximum number of changes of one hub that are held while an earlier one is missing. Further ones are dropped, and a
/// snapshot repairs that.
///
/// About 500 B each: 8,192 x 500 B = 4 MB for each hub that is behind.
pub const MAX_CHANGES_AHEAD: usize = 8 * 1024;

/// Time for which a missing change is waited for, before a snapshot is requested.
pub const GAP_PATIENCE: Duration = Duration::from_millis(300);

/// Time for which the next part of a snapshot is waited for, before the snapshot is requested again.
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

/// Maximum number of peers in one part of a snapshot: 64 x 300 B = 20 KB in practice.
pub const SNAPSHOT_PEERS: usize = 64;

/// Bytes of announced data at which a part of a snapshot is full. One peer can exceed it.
pub const SNAPSHOT_BYTES: usize = 64 * 1024;

/// Maximum number of neighbours whose requests for a snapshot of one hub wait until this hub has received that snapshot
/// itself. A further request is declined, and the neighbour asks another hub, or again after [`GAP_PATIENCE`].
///
/// 16 B each, for at most one repair: [`SNAPSHOT_PATIENCE`] per part.
pub const MAX_SNAPSHOT_WAITERS: usize = 64;

/// Maximum number of peers whose old state is kept because they changed while a snapshot is being sent. A further one
/// ends the snapshot with a decline, and the neighbour asks again.
///
/// About 400 B each: 16 Ki x 400 B = 6.5 MB a snapshot. A snapshot of 100,000 peers takes some seconds, and 1,000 peers a second may
/// come and go meanwhile.
pub const MAX_SNAPSHOT_CHANGES: usize = 16 * 1024;

/// Snapshots that are being sent to one neighbour. One more request is declined; the neighbour asks again.
pub const MAX_SNAPSHOTS_OUT: usize = 64;

/// Maximum number of peers in a snapshot of one hub. A larger snapshot is dropped, and this hub does not know that
/// hub's peers.
pub const MAX_PEERS_PER_HUB: usize = 1_000_000;

/// Networks of one peer of another hub, the most that MAX_NETWORKS_PER_PEER can be set to. A snapshot with more for a peer is refused,
/// and a change that adds one more is left out.
pub const MAX_MEMBERSHIPS: usize = 1024;

/// Letters to shards after which a slice of the relay's long work ends, with those of the peer that passes it. The next slice follows
/// when everything else that is ready has had its turn and no more than [`SLICE_ROOM`] letters wait for any shard.
///
/// 2,048 x 0.2 us = 0.4 ms. The longest slice is this and one peer in 1,024 networks on 16 shards: 2,048 + 16,400 letters, 3.7 ms. The
/// end of a hub with 100,000 peers is 1,700,000 letters: 830 slices.
pub const SLICE_LETTERS: usize = 2048;

/// Peers and lost signals that such a slice looks at, if they need fewer letters.
pub const SLICE_PEERS: usize = 1024;

/// Changes of one hub that waited for an earlier one and are applied in one turn. The rest, at most [`MAX_CHANGES_AHEAD`], follows
/// in slices, and with each change that is received.
pub const SLICE_CHANGES: usize = 64;

/// Peers of replicas that are no longer used whose memory is freed in one turn: 1,024 x 0.3 us.
///
/// Such replicas hold no more peers than all hubs had: as much memory again as the replicas in use, for the second that their slices
/// take. A part of a snapshot adds [`SNAPSHOT_PEERS`] and frees as many.
pub const SLICE_DISCARDED: usize = 1024;

/// Letters that may wait for one shard, beside those in its mailbox, when a slice of long work begins. More: it begins later, so that
/// news of links and peers, which only stops at [`OUTBOX_HIGH_WATER`], is not held up behind long work.
///
/// With a full mailbox that is 16,384 + 2,048 letters of 136 B = 2.5 MB a shard, however much work is left.
pub const SLICE_ROOM: usize = OUTBOX_HIGH_WATER / 4;

/// Signals to one hub whose outcomes are outstanding. One more: `unreachable`.
///
/// About 150 B each: 256 Ki x 150 B = 39 MB per hub. They end within [`RECEIPT_TIMEOUT`].
pub const MAX_SIGNALS_IN_FLIGHT: usize = 256 * 1024;

/// Maximum number of signals from one hub that are held for an earlier signal, or for the presence of their sender.
/// Further ones get `unreachable`.
pub const MAX_SIGNALS_HELD: usize = 1024;

/// Time for which a signal is held for an earlier one, or for the presence of its sender.
pub const HOLD: Duration = Duration::from_millis(500);

/// The most by which the counter of a signal may be ahead of the last one of its hub that was passed on: no hub has more under way.
/// Beyond it: `unreachable`, and the order does not move, unless this goes on for [`COUNT_PATIENCE`].
pub const MAX_COUNTER_STEP: u64 = MAX_SIGNALS_IN_FLIGHT as u64;

/// How long all signals from a hub have to come with counters that are in the past, or too far ahead, before counting goes on from
/// them: what was believed before is wrong. Until then they are `unreachable`.
///
/// As long as [`LINK_PATIENCE`], after which a link that has delivered nothing is closed: a signal that was held up on the way does not come later.
pub const COUNT_PATIENCE: Duration = LINK_PATIENCE;

/// Time for which outcomes without a receipt are collected before they are sent together.
pub const OUTCOME_DELAY: Duration = Duration::from_millis(20);

/// Maximum number of outcomes in one envelope: 9 B each.
pub const MAX_OUTCOMES: usize = 1024;

/// Time in which another hub must answer a takeover, beyond its own [`TAKEOVER_GRACE`]. It decides within half of this;
/// the rest is for the network.
pub const TAKEOVER_MARGIN: Duration = Duration::from_secs(1);

/// Maximum number of unanswered takeovers that other hubs have asked for. A further one is answered "in use".
pub const MAX_TAKEOVERS_ASKED: usize = 64 * 1024;

/// Number of heartbeats in a row that must arrive faster over another way before signals take it.
pub const ROUTE_PATIENCE: u8 = 3;

/// Maximum number of peers that one legacy link may announce, each in [`DEFAULT_MAX_NETWORKS_PER_PEER`] networks. More
/// are refused and counted.
pub const MAX_PEERS_PER_LEGACY_LINK: usize = 100_000;

/// Time in which a legacy link may echo what it was sent. If a Go hub first mentions a departed peer after this time,
/// it is believed.
pub const LEGACY_ECHO: Duration = Duration::from_secs(5);

/// Maximum number of events of each kind within [`LEGACY_ECHO`] that are remembered to recognize the echoes of a Go
/// hub. 24 B each, three kinds for each legacy link (events sent to it, signals received from it, senders of signals
/// sent to it) and one for the mesh (departed peers). At the bound the oldest entry is dropped. A peer that leaves
/// before its echo arrives then stays until the link ends.
pub const MAX_LEGACY_ECHOES: usize = 8192;

/// Time for which a Go hub's announcement is kept for a peer with another claim. Longer than a dead claim can last: a
/// lease takes 8 s, and a lost connection is noticed after two pings and ten seconds.
pub const LEGACY_WAIT: Duration = Duration::from_secs(120);

/// Maximum number of a Go hub's announcements kept for [`LEGACY_WAIT`], at most [`DEFAULT_MAX_NETWORKS_PER_PEER`] per
/// peer. More are refused and counted. About 200 B each besides their names and data: 20 MB.
pub const MAX_LEGACY_WAITING: usize = MAX_PEERS_PER_LEGACY_LINK;

/// Maximum size of their names and data, in bytes: about 160 B each, where a Go hub that dials announces 70 B per peer.
/// More are refused and counted.
pub const MAX_LEGACY_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// Time in which a Go hub that dialed must answer the first ping, before peers are announced to it anyway. A hub that
/// answers no pings is linked, too, until [`LINK_PATIENCE`] has passed without a message.
pub const LEGACY_PATIENCE: Duration = Duration::from_secs(2);

/// Maximum number of announcements that wait for room on one legacy link: about 60 B each. Further ones reach that hub
/// only after it is linked again.
pub const MAX_LEGACY_OWED: usize = 1_000_000;

/// Payload at which a frame of a link is full, in bytes. Queued envelopes are sent together in such frames; one
/// envelope can exceed it.
///
/// A quarter of [`READ_BUFFER_BYTES`], so that three quarters of a read are parsed in place, and only the beginning of
/// a frame is kept. A header has 4 to 8 B, which is negligible.
pub const LINK_FRAME_BYTES: usize = 16 * 1024;

/// Bytes that an envelope adds to its longest content: its head, a route, ids and a network's name, about 450 B.
pub const ENVELOPE_ROOM: usize = 4 * 1024;

/// Maximum of the setting MAX_MESSAGE_BYTES.
pub const LARGEST_MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Maximum length of a message on a link: the longest signal that any hub's settings allow, after a frame that was
/// nearly full. It does not depend on this hub's settings, since hubs of one mesh can differ, at least during an
/// upgrade. One peer in 1,024 networks, complete in one part of a snapshot, takes 17 MiB. A longer message closes the
/// link.
pub const LINK_MESSAGE_BYTES: usize = LARGEST_MAX_MESSAGE_BYTES + LINK_FRAME_BYTES + ENVELOPE_ROOM;

/// Number of bytes queued for one link (or for the bridge) at which the relay sends only heartbeats and outcomes.
///
/// 400 parts of a snapshot of 20 KB, or 10,000 signals of 800 B: about a tenth of a second of a link at full speed.
pub const LINK_QUEUE_HIGH: usize = 8 * 1024 * 1024;

/// Number of bytes queued for one link below which the relay sends everything again: what a socket accepts in a few
/// writes.
pub const LINK_QUEUE_LOW: usize = 1024 * 1024;

/// Number of bytes queued for one link at which it is closed. Beyond [`LINK_QUEUE_HIGH`] come the message that exceeded
/// it, heartbeats and short answers: 24 MiB of those are 200,000, and the other side has stopped reading long before.
pub const LINK_QUEUE_CAP: usize = 4 * LINK_QUEUE_HIGH + LINK_MESSAGE_BYTES;

/// Maximum number of links of a hub, including those that are not ready. A further one is refused.
///
/// An idle link takes about 2 KiB. At their caps all would take 256 x 96 MiB = 24 GiB. In practice [`LINK_PATIENCE`]
/// bounds that: a link that accepts nothing for this time is closed with its queue.
pub const MAX_LINKS: usize = 256;

/// Time without a received byte, or without an accepted queued byte, after which a link is dead. Longer than [`LEASE`],
/// so that a hub that resumes within its lease still has its links.
pub const LINK_PATIENCE: Duration = Duration::from_secs(10);

/// Interval between two pings on a link: four are unanswered before it is dead.
pub const LINK_PING_INTERVAL: Duration = Duration::from_millis(2_500);

/// Time in which both ends of a link must exchange hellos, from the upgrade.
pub const LINK_HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a complete dial: name, TCP, TLS and upgrade, over all addresses of the name.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for which an attempt to connect to one address runs alone, before the next address of the same name is tried in
/// parallel: the Connection Attempt Delay of RFC 8305.
pub const CONNECT_STAGGER: Duration = Duration::from_millis(250);

/// Maximum number of parallel attempts to connect to addresses of one name. A further one ends the oldest.
///
/// The oldest has had 6 x 250 ms = 1.5 s by then, enough for a lost SYN to be sent again after 1 s.
pub const MAX_CONNECT_ATTEMPTS: usize = 6;

/// Maximum number of addresses of one name that one dial tries. The next dial begins further down the list.
///
/// 5 s are enough for 20 attempts; 16 addresses take 32 bytes each.
pub const MAX_DIAL_ADDRESSES: usize = 16;

/// Minimum time that an address has to answer the upgrade request when other addresses of the name wait. The maximum is
/// half of [`DIAL_TIMEOUT`].
///
/// Four round trips of 250 ms. Five silent addresses use up a dial.
pub const UPGRADE_SHARE: Duration = Duration::from_secs(1);

/// First pause after a failed dial. It doubles with each failure in a row, up to [`DIAL_BACKOFF_MAX`]. The second half
/// of each pause is random, so that hubs that lost each other at one moment do not dial at one moment.
pub const DIAL_BACKOFF_MIN: Duration = Duration::from_millis(200);

/// Maximum pause between two dials, when a hub has been away for a minute.
pub const DIAL_BACKOFF_MAX: Duration = Duration::from_secs(15);

/// Maximum pause between two dials to a hub whose link was lost, or that became known, less than a lease ago.
/// Afterwards it is a quarter of that time, up to [`DIAL_BACKOFF_MAX`].
///
/// A quarter of [`LEASE`]: a link that is lost repeatedly returns three times before presence would be lost. A hub that
/// returns after a minute costs about 20 dials.
pub const DIAL_BACKOFF_NEAR: Duration = Duration::from_secs(2);

const _: () = assert!(DIAL_BACKOFF_NEAR.as_millis() * 4 <= LEASE.as_millis());

/// Time in use after which a link counts as having worked, and the next pause is the first again. Half a [`HEARTBEAT`]:
/// a link that is lost every second is away for at most a fifth of that time.
pub const DIAL_PROVEN: Duration = Duration::from_millis(500);

/// First pause after a dial that reached the dialing hub itself. It doubles up to [`DIAL_OWN_BACKOFF_MAX`].
pub const DIAL_OWN_BACKOFF_MIN: Duration = Duration::from_secs(1);

/// Maximum pause between two dials to an address that reaches the dialing hub itself. Behind a balancer another hub may
/// answer; this hub's own address costs one dial per minute.
pub const DIAL_OWN_BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Time for which the hub with the greater id lets the other one dial, when both have learned of each other.
pub const DIAL_COURTESY: Duration = Duration::from_secs(1);

/// Maximum number of addresses to dial, from all sources. A further one is not dialed.
pub const MAX_DIALS: usize = 1024;

/// Age of a dial from which it no longer delays others.
pub const DIAL_YOUNG: Duration = Duration::from_millis(500);

/// Maximum number of dials younger than [`DIAL_YOUNG`]. Other targets wait.
///
/// 100 unresponsive addresses are dialed within 1.5 s, and delay a responsive one by no more.
pub const MAX_YOUNG_DIALS: usize = 32;

/// Maximum number of dials in progress. Other targets wait.
///
/// 128 end every [`DIAL_TIMEOUT`] if none answers: [`MAX_DIALS`] targets have been dialed within 40 s. With
/// [`MAX_EXTRA_ATTEMPTS`] they are 160 sockets.
pub const MAX_DIALS_AT_ONCE: usize = 128;

/// Attempts to connect beyond the first of each dial, of all dials together. A dial that gets none tries its next address in place of
/// its oldest attempt when that has had the time that the oldest of [`MAX_CONNECT_ATTEMPTS`] has: 1.5 s.
///
/// A quarter of the dials at once, where those are fewer, too. A dial to a name whose first address answers needs none.
pub const MAX_EXTRA_ATTEMPTS: usize = MAX_DIALS_AT_ONCE / 4;

/// Interval between two look-ups of MESH_DNS.
pub const DNS_INTERVAL: Duration = Duration::from_secs(5);

/// Time for which a stopping hub waits until its links have accepted its last envelopes.
pub const LINK_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Time after a pause of the whole process in which links are read before any timeout is checked.
pub const THAW: Duration = Duration::from_millis(300);

/// Maximum number of frames from the bridge that wait for the mesh: 64 x 64 KiB = 4 MiB in practice.
pub const BRIDGE_EVENTS: usize = 64;

/// Maximum number of bytes of log lines queued for stderr. Further lines are dropped and counted
/// (`peerpigeon_log_lines_dropped_total`).
///
/// A line has about 200 B: 20,000 lines, as many as 5,000 peers log at `debug` when they all reconnect. The same number
/// can be in flight to stderr: 2 x 4 MiB = 8 MiB at worst.
pub const LOG_QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// Maximum number of bytes of log lines in one write to stderr. The kernel does not mix writes of this size by several
/// processes to one pipe (`PIPE_BUF`).
pub const LOG_CHUNK_BYTES: usize = 4096;

/// Room for the last lines of a process that fails, beyond [`LOG_QUEUE_BYTES`]: so they are kept where the buffer is full. They are two or
/// three lines of a few hundred bytes.
pub const LOG_LAST_BYTES: usize = 16 * 1024;

/// Pause after stderr has refused a write, before the next attempt.
pub const LOG_RETRY: Duration = Duration::from_millis(200);

/// Time for which a stopping process waits for stderr to accept the last lines. The rest is lost.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Number of files of the process besides sockets: the standard streams, the pipe for signals, and files that jemalloc
/// or the resolver opens.
pub const STANDARD_FILES: usize = 8;

/// Number of files of one runtime: its poll instance, its waker and its copy of the pipe for signals.
pub const RUNTIME_FILES: usize = 3;

/// Files that are kept for links and dials: [`MAX_LINKS`], [`MAX_DIALS_AT_ONCE`] and [`MAX_EXTRA_ATTEMPTS`]. Peers do not get them.
/// Where the process may open few files, it is a sixteenth of those.
pub const LINK_FILES: usize = MAX_LINKS + MAX_DIALS_AT_ONCE + MAX_EXTRA_ATTEMPTS;

/// Maximum number of connections to ADMIN_PORT. A further one replaces the oldest. If the process may open few files, a
/// thirty-second of them.
pub const ADMIN_FILES: usize = 256;

/// Number of files reserved for connections to PORT that are not peers yet: requests for pages, and peers that are
/// refused. If the process may open few files, a thirty-second of them.
pub const REQUEST_FILES: usize = 256;

/// Number of files reserved for everything else: connections to Redis, look-ups of names, reads of `/proc`. If the
/// process may open few files, a sixty-fourth of them.
pub const OTHER_FILES: usize = 64;

/// Minimum of each of these shares.
pub const SMALLEST_FILE_SHARE: usize = 8;

/// Time without a turn of its loop after which `/livez` and `/readyz` report a thread of the hub.
///
/// A thread notes a turn each [`TICK`]. Turns are built to end within 5 ms; a machine that is short of CPU makes them longer.
pub const TURN_PATIENCE: Duration = Duration::from_secs(10);

/// Maximum time that counts between two turns of any threads of a process. In a longer gap the whole process was
/// stopped.
pub const WATCHDOG_STEP: Duration = Duration::from_secs(1);

/// Maximum number of incarnations of one hub that are remembered after their farewell, until the hub is forgotten. A
/// further one replaces the oldest. A hub reaches it if it is restarted four times while a heartbeat travels around the
/// mesh (seconds).
pub const MAX_ENDED_LIVES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::parse;

    /// The documented protocol.
    const DOC: &str = include_str!("../../docs/protocol.md");

    /// The rows of the table of bounds: the bound, and the rest of the row.
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
