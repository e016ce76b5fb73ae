//! Bounds of a router, for networks, announcements, receipts, takeovers and pings.

use std::time::Duration;

/// Largest default of ANNOUNCE_BUDGET_BYTES, the maximum size of all stored announcements of a hub's peers, in bytes. A
/// shard refuses announcements that would exceed its share with `hub-full`, except from peers that then have at most
/// [`ANNOUNCE_FLOOR_BYTES`] in total.
///
/// Every hub of the mesh stores every announcement. An announcement takes the bytes of its data, 250 B for the other
/// fields of the `peer-discovered` message, and [`MEMBER_BYTES`]. In the worst case, a hub stores 256 MiB + 1,000 x 2
/// KiB = 258 MiB for its own peers. MESH_PRESENCE_BYTES bounds the announcements of other hubs' peers.
pub const DEFAULT_ANNOUNCE_BUDGET_BYTES: usize = 256 * 1024 * 1024;

/// Bytes that a membership counts in ANNOUNCE_BUDGET_BYTES in addition to its `peer-discovered` message. 256 B stand
/// for the membership's roster entries, about 100 B on each shard, and for the other fields of the announcement.
pub const MEMBER_BYTES: usize = 256;

/// Bytes that a peer may announce in all its networks together, even if ANNOUNCE_BUDGET_BYTES is exhausted.
pub const ANNOUNCE_FLOOR_BYTES: usize = 2 * 1024;

/// Default of MAX_CONNECTIONS, the maximum number of sessions of a hub. The Go hub has the same default.
pub const DEFAULT_MAX_CONNECTIONS: usize = 1000;

/// Default of MAX_NETWORKS_PER_PEER, the maximum number of networks of a peer. An announcement in one more network gets
/// `too-many-networks`.
pub const DEFAULT_MAX_NETWORKS_PER_PEER: usize = 32;

/// Default of MAX_PEERS_PER_NETWORK, the maximum number of members of a network. A further peer that wants to join gets
/// `network-full`.
///
/// Each shard checks its own roster. So a network can exceed the maximum if peers join it on several shards or hubs at
/// the same moment.
pub const DEFAULT_MAX_PEERS_PER_NETWORK: usize = 100_000;

/// Maximum number of outstanding receipts of a session. A further signal with an id is not relayed, and its receipt has
/// the outcome `rate-limited`.
///
/// An outstanding receipt takes about 150 B, so 8,192 receipts take 1.2 MB. Each receipt is sent within
/// [`RECEIPT_TIMEOUT`].
pub const MAX_OPEN_RECEIPTS: u32 = 8_192;

/// Time after which a receipt is sent with `unknown` if its signal has no outcome yet.
pub const RECEIPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time in which a session must answer a ping to keep its id. The hub sends this ping when a second connection wants
/// the same id. The time starts again whenever the session's socket accepts bytes of the ping, or bytes queued before
/// the ping.
pub const TAKEOVER_GRACE: Duration = Duration::from_secs(2);

/// Maximum time for which a second connection waits for an id. At the end of this time, the first session keeps the id
/// if its socket has accepted bytes less than [`TAKEOVER_GRACE`] ago. At 1 Mbit/s, a socket needs 8 s to accept a
/// message of 1 MiB that was queued before the ping.
pub const TAKEOVER_LIMIT: Duration = Duration::from_secs(10);

/// Time that another hub has to answer a request for an id, in addition to its own [`TAKEOVER_GRACE`]. The other hub
/// decides in the first half of this time. The second half of this time is for the messages between the hubs.
pub const TAKEOVER_MARGIN: Duration = Duration::from_secs(1);

/// Number of takeovers of a shard at which the shard accepts no further requests of other hubs. Ended takeovers count
/// until their deadlines. A further request for an id in use is answered with "in use", unless its client has the
/// immediate right to the id.
pub const MAX_TAKEOVERS_ASKED: usize = 64 * 1024;

/// Time after the start of a session in which a client with the secret of an older [`Lineage`](crate::Lineage) takes
/// the session's id immediately. Such a session probably belongs to a stranger who took the id while the client was
/// disconnected. After two minutes, the client gets the id only if the session does not answer a ping.
///
/// A hub needs 60 s to notice a dead connection, and a client needs 30 s to return with backoff, so 120 s are enough.
pub const RESUME_PRECEDENCE: Duration = Duration::from_secs(120);

/// Minimum length of a MESH_TOKEN, in bytes, at which the keys of resume secrets are derived from the token. With a
/// shorter token, each hub draws its own random key, because a client could find a short token by trying all tokens. 32
/// random hexadecimal digits are 128 bits.
pub const LEAST_RESUME_TOKEN_BYTES: usize = 32;

/// Number of members of a roster that a new member receives at a time. The next members are sent when the new member's
/// queue has room again.
///
/// 128 x 250 B = 32 KB, about half of a default socket send buffer.
pub const ROSTER_CHUNK: usize = 128;

/// Maximum time between two pings to a session that sends nothing.
pub const PING_INTERVAL: Duration = Duration::from_secs(25);

/// Maximum time from the second unanswered ping until a silent session counts as dead.
pub const PONG_GRACE: Duration = Duration::from_secs(10);

/// Number of outputs of a router after which a turn of its shard ends. The router still completes the letter, message
/// or leave that exceeds this number. The remaining work of the turn is done after all other ready tasks.
///
/// 4,096 x 0.25 us = 1 ms. One event in a network can cause more outputs, because each member on this shard gets a
/// frame. If a network has 100,000 members on 16 shards, an event causes 6,250 frames on each shard, which take 1.6 ms.
pub const TURN_OUTPUTS: usize = 4096;

/// Maximum number of exclusions of peers and networks that a shard enforces at the same time. At the maximum, a kick
/// still removes its peer, and reports that the peer is not excluded.
///
/// An entry takes 48 B, and up to 256 B for the name of its network.
pub const MAX_EXCLUSIONS: usize = 1024;

/// Maximum time for which an operator can exclude a peer or close a network. The maximum is 30 days. Exclusions end
/// with the process.
pub const LONGEST_EXCLUSION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Number of sessions that a shard examines in one turn to find the members of a network that an operator closes. With
/// a cache miss of 100 ns for each session, 4,096 sessions take 0.4 ms.
pub const SLOTS_PER_SLICE: usize = 4096;

// Checks of the figures above.
const _: () = assert!(TAKEOVER_LIMIT.as_millis() > TAKEOVER_GRACE.as_millis());
const _: () = assert!(RESUME_PRECEDENCE.as_secs() > 60 + 30);
