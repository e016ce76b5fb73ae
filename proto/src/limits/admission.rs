//! Bounds of the admission of connections. The hub refuses a connection above these bounds before it reads anything,
//! except from the clients of a trusted proxy, whose addresses it must read first.

use std::time::Duration;

/// Number of rows of the table that counts the connections of each address (each /64 of IPv6). Each address is counted
/// in two rows, and is refused if both rows are above a limit. So an address can be refused because other addresses use
/// both of its rows. With 100 addresses at their limit, one in 6,700 other addresses is refused although it has few
/// connections. With 10 addresses at their limit, one in 670,000 other addresses is refused.
///
/// A row takes 16 B, so the table of a hub takes 256 KiB.
pub const ADDRESS_ROWS: usize = 16 * 1024;

/// Largest default of MAX_CONNECTIONS_PER_ADDRESS, the maximum number of connections of an address. The default is two
/// thirds of MAX_CONNECTIONS, but at most 512. Further connections of the address are refused. So a school behind one
/// address can have 512 peers.
pub const DEFAULT_ADDRESS_CONNECTIONS: u32 = 512;

/// Smallest default of MAX_CONNECTIONS_PER_ADDRESS, for hubs with a small MAX_CONNECTIONS.
pub const LEAST_ADDRESS_CONNECTIONS: u32 = 64;

/// Default of MAX_UNFINISHED_PER_ADDRESS, the maximum number of connections of an address on which no complete request
/// has arrived yet. Further connections of the address are refused. The default is enough for a school behind one
/// address whose 512 peers reconnect at the same moment.
pub const DEFAULT_ADDRESS_UNFINISHED: u32 = 512;

/// Default of CONNECT_RATE_PER_ADDRESS, in connections per second. Connections above this rate are refused.
pub const DEFAULT_ADDRESS_CONNECT_RATE: u32 = 64;

/// Burst of connections of an address, in seconds of CONNECT_RATE_PER_ADDRESS. By default, a burst has 8 x 64 = 512
/// connections.
pub const ADDRESS_BURST_SECS: u64 = 8;

/// Maximum number of recent connections of a quiet address. Probes, scrapes and single peers that reconnect come from
/// quiet addresses. A shard that has reached CONNECT_RATE still admits [`QUIET_RATE`] connections from quiet addresses.
pub const QUIET_CONNECTS: u64 = 8;

/// Default of CONNECT_RATE, the number of connections per second that each shard admits. Further connections get 503,
/// or an alert at a port with TLS.
///
/// A connection with an upgrade costs 60 us of CPU, and 180 us with a full TLS handshake. So 2,000 connections per
/// second take 12 % of a core without TLS, and 36 % with TLS. With [`CONNECT_BURST_SECS`], a hub with 2 shards admits
/// 8,000 returning clients in one burst.
pub const DEFAULT_CONNECT_RATE: u32 = 2_000;

/// Burst of connections of a shard, in seconds of CONNECT_RATE.
pub const CONNECT_BURST_SECS: u32 = 2;

/// Additional connections per second that a shard admits from quiet addresses when CONNECT_RATE is reached or the hub
/// is full. These connections are meant for probes, scrapes and links.
pub const QUIET_RATE: u32 = 100;

/// Connections per second that a shard of a full hub admits. If an admitted connection does not replace a session with
/// the same id, it is closed as `max connections`. Further connections get 503 before anything is read, except
/// [`QUIET_RATE`] connections per second from quiet addresses.
pub const FULL_RATE: u32 = 100;

/// Refused connections per second that a shard answers with 503, or with an alert at a port with TLS. Further refused
/// connections are closed without an answer, so that a flood costs little.
pub const REFUSALS_ANSWERED: u32 = 100;

/// Number of refused connections after which a listener lets other tasks run. A refusal takes up to 10 us, so 32
/// refusals take 0.3 ms.
pub const REFUSALS_PER_TURN: u32 = 32;

/// Maximum of `Retry-After`, in seconds, in the 503 for a connection that is refused before anything is read. Each 503
/// has a random value of at least 1, so that clients do not all return at the same time.
pub const RETRY_SPREAD_SECS: u64 = 10;

/// Minimum time between two log lines about refused addresses, and between two log lines about refused operators.
pub const ADDRESS_LOG_PAUSE: Duration = Duration::from_secs(10);
