//! Bounds of a router: networks, announcements, receipts, takeovers, pings.

use std::time::Duration;

/// Default of ANNOUNCE_BUDGET_BYTES: maximum size of all stored announcements of a hub's peers, in bytes. A shard that
/// exceeds its share refuses further announcements with `hub-full`, except from peers with at most
/// [`ANNOUNCE_FLOOR_BYTES`] in total.
///
/// Each hub of the mesh stores an announcement as its `peer-discovered` message, which is 250 B longer than the data,
/// plus [`MEMBER_BYTES`]. The worst case of a hub is hubs x (budget + MAX_CONNECTIONS x floor). In a mesh of three hubs
/// this is 3 x (256 MiB + 1,000 x 2 KiB) = 774 MiB.
pub const DEFAULT_ANNOUNCE_BUDGET_BYTES: usize = 256 * 1024 * 1024;

/// Bytes that a membership counts in ANNOUNCE_BUDGET_BYTES in addition to its message. They account for its entries in
/// the rosters, about 100 B per shard and hub, and for the announcement's own fields.
pub const MEMBER_BYTES: usize = 256;

/// Bytes that a peer may announce in all its networks together, even if the budget is exhausted.
pub const ANNOUNCE_FLOOR_BYTES: usize = 2 * 1024;

/// Default of MAX_CONNECTIONS, as in the Go hub.
pub const DEFAULT_MAX_CONNECTIONS: usize = 1000;

/// Default of MAX_NETWORKS_PER_PEER: maximum number of networks of a peer. A further announcement gets
/// `too-many-networks`.
pub const DEFAULT_MAX_NETWORKS_PER_PEER: usize = 32;

/// Default of MAX_PEERS_PER_NETWORK: maximum number of members of a network. A further announcement gets
/// `network-full`.
///
/// Each shard checks its own roster, so peers that announce on several shards at the same moment can exceed the maximum
/// by the number of shards.
pub const DEFAULT_MAX_PEERS_PER_NETWORK: usize = 100_000;

/// Maximum number of outstanding receipts of a session. The receipt of a further signal has the outcome `rate-limited`.
///
/// The ticket of a receipt takes about 150 B: 8,192 tickets take 1.2 MB. A ticket ends within [`RECEIPT_TIMEOUT`].
pub const MAX_OPEN_RECEIPTS: u32 = 8_192;

/// Time after which a receipt without an outcome gets `unknown`.
pub const RECEIPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time in which a session must answer the ping that the hub sends because a second connection has the same id. The
/// time starts when the socket accepts the ping. If the socket accepts nothing for this time, the session counts as
/// dead, too.
pub const TAKEOVER_GRACE: Duration = Duration::from_secs(2);

/// Maximum time for which the second connection waits. After that, the first session keeps the id if its socket still
/// accepts bytes queued before the ping, or accepted some less than [`TAKEOVER_GRACE`] ago. A message of 1 MiB that is
/// partly written takes 8 s at 1 Mbit/s.
pub const TAKEOVER_LIMIT: Duration = Duration::from_secs(10);

/// Time in which another hub must answer a takeover, in addition to its own [`TAKEOVER_GRACE`]. The other hub decides
/// within half of this time. The other half is for the transfer between the hubs.
pub const TAKEOVER_MARGIN: Duration = Duration::from_secs(1);

/// Maximum number of unanswered takeovers that other hubs have asked for. A further request is answered with "in use".
pub const MAX_TAKEOVERS_ASKED: usize = 64 * 1024;

/// Time after the start of a session in which a client with the secret of an older [`Lineage`](crate::Lineage) takes
/// the id back immediately. In this case, the session belongs to a stranger who took the id while the client was
/// disconnected. After this time, the liveness check decides.
///
/// A hub needs 60 s to notice a dead connection, and a client needs 30 s to return with backoff, so 120 s are enough.
pub const RESUME_PRECEDENCE: Duration = Duration::from_secs(120);

/// Minimum length of a MESH_TOKEN, in bytes, at which the keys of resume secrets are derived from it. With a shorter
/// token, each hub draws its own random key, because every client could try to guess the token. 32 random hexadecimal
/// digits are 128 bits.
pub const LEAST_RESUME_TOKEN_BYTES: usize = 32;

/// Number of members of the roster that a new member receives at a time. Before the next members are sent, the new
/// member's queue is checked for room again.
///
/// 128 x 250 B = 32 KB, about half of a default socket send buffer.
pub const ROSTER_CHUNK: usize = 128;

/// Maximum time between two pings of a silent session.
pub const PING_INTERVAL: Duration = Duration::from_secs(25);

/// Time from the second unanswered ping until a silent session counts as dead.
pub const PONG_GRACE: Duration = Duration::from_secs(10);

/// Number of outputs of a router after which a turn of its shard ends. The letter, message or network that exceeds this
/// number is still completed. The remaining letters of a batch, bytes of a socket, or networks that a session leaves
/// are processed after all other ready tasks.
///
/// 4,096 x 0.25 us = 1 ms. One event in a network can exceed this number, because each member on this shard gets a
/// frame. If a network has 100,000 members on 16 shards, these are 6,250 frames, which take 1.6 ms.
pub const TURN_OUTPUTS: usize = 4096;

/// Maximum number of exclusions of peers and networks that operators have ordered and a shard enforces at the same
/// time. A further kick still removes its peer, and reports that the peer is not excluded.
///
/// An entry takes 48 B, and up to 256 B for the name of its network.
pub const MAX_EXCLUSIONS: usize = 1024;

/// Maximum time for which an operator can exclude a peer or a network: 30 days. Exclusions end with the process.
pub const LONGEST_EXCLUSION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Number of sessions that one turn examines when an operator closes a network, to find the network's members. With a
/// cache miss of 100 ns for each session, 4,096 sessions take 0.4 ms.
pub const SLOTS_PER_SLICE: usize = 4096;

// These assertions check figures and orderings in the comments above.
const _: () = assert!(TAKEOVER_LIMIT.as_millis() > TAKEOVER_GRACE.as_millis());
const _: () = assert!(RESUME_PRECEDENCE.as_secs() > 60 + 30);
