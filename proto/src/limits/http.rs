//! Bounds of connections that are not WebSockets, and of pages.

use std::time::Duration;

use super::ACT_TIMEOUT;

/// Maximum number of connections of one listener that are not WebSockets, or not WebSockets yet. A further connection
/// replaces the oldest of them. A shard has one listener per address of HOST, which are two for `localhost`.
///
/// While hyper reads a request, a connection takes about 20 KiB for [`MAX_REQUEST_HEAD_BYTES`] and the buffers of
/// hyper. 4,096 connections take 80 MiB.
pub const MAX_HTTP_CONNECTIONS: usize = 4_096;

/// Maximum length of the head of a request, in bytes. If bytes of the body are read together with the head, they are
/// counted, too. Longer heads get 431.
pub const MAX_REQUEST_HEAD_BYTES: usize = 16 * 1024;

/// Maximum number of headers of a request. Requests with more headers get 431.
pub const MAX_REQUEST_HEADERS: usize = 100;

/// Time in which the first request of a connection must arrive, before the connection is closed without an answer.
pub const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Time in which the next request on an open connection must arrive completely, before the connection is closed. Load
/// balancers keep idle connections for 60 s. So a load balancer closes an idle connection before the hub does, and
/// never sends a request into a closing connection.
///
/// The oldest connection of a listener is closed earlier if its place is needed for another connection.
pub const HTTP_IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Time in which the hub must produce an answer and the client must read the answer, before the connection is closed. A
/// streamed answer may take longer while its reader accepts data.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Number of requests that one connection may send in a burst. Further requests are answered at [`REQUEST_RATE`].
pub const REQUEST_BURST: u32 = 20;

/// Average number of answers per second for one connection. Requests above this rate are delayed and never refused. So
/// a client that sends many requests slows down only its own connection.
pub const REQUEST_RATE: u32 = 20;

/// Number of pages per second that a shard answers in addition to each address's own share ([`PAGE_RESERVE_RATE`]).
/// Operators with ADMIN_TOKEN, other readers at ADMIN_PORT, and all readers at other ports have separate limits. All
/// answers are pages, except /livez, /readyz, /, errors, and files such as /client.js. Further requests are delayed for
/// up to [`PAGE_PATIENCE`].
///
/// An answer takes about 20 us of the shard, so 100 answers per second take 0.2 %. 100 pages per second are enough for
/// a load balancer with 50 nodes behind one address that all request /health each second.
pub const PAGE_RATE: u32 = 100;

/// Number of pages per second that a shard reserves for each address (each /64 of IPv6). 2 pages per second are enough
/// for a load balancer that requests /health each second and for a scrape of /metrics.
pub const PAGE_RESERVE_RATE: u32 = 2;

/// Number of reserved pages that an address may request in a burst.
pub const PAGE_RESERVE_BURST: u32 = 10;

/// Number of slots that store the reserved shares of addresses. The keyed hash of an address selects its slot, so
/// several addresses share a slot. During a flood from 5 addresses, one in 100 other addresses shares a slot with one
/// of them, and can then use only [`PAGE_RATE`].
///
/// A slot takes 48 B, so the slots of each of the three groups of readers take 24 KiB. If all slots are used, they
/// allow 1,024 pages per second, which take 2 % of the shard.
pub const PAGE_RESERVES: usize = 512;

/// Maximum time for which [`PAGE_RATE`] delays a page. A request that must wait for longer gets 429 with `Retry-After`
/// immediately.
pub const PAGE_PATIENCE: Duration = Duration::from_secs(1);

/// Number of times that a page may be rendered in a burst.
pub const RENDER_BURST: u32 = 10;

/// Average number of times that a page is rendered per second. Further requests get the last rendered page, which is at
/// most a quarter of a second old.
///
/// A rendering of /metrics takes 1.2 ms. 4 renderings per second of each of the 7 pages take less than 4 % of a core.
pub const RENDER_RATE: u32 = 4;

/// Time limit for the rendering of a page. If the rendering takes longer, the answer is 503 with `Retry-After`.
pub const RENDER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for which a page waits for a shard's list of networks or of members. If the list of networks takes longer, the
/// page contains the previous list.
pub const NETWORKS_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of networks in `/metrics?format=json`, largest first. Further networks are only counted.
pub const MAX_LISTED_NETWORKS: usize = 1_000;

/// Maximum length of the body of a form, in bytes. A longer form gets 413. An operator's order has a peer's id, a
/// network's name of 256 bytes (768 bytes when encoded), and a number.
pub const MAX_FORM_BYTES: usize = 4 * 1024;

/// Maximum number of operators' orders that are queued for the hub's main thread. A further order gets 503.
pub const MAX_ORDERS: usize = 3;

/// Time for which an operator's login in a browser is valid.
pub const LOGIN_TIME: Duration = Duration::from_secs(8 * 60 * 60);

/// Time after which a request with a wrong ADMIN_TOKEN is answered, and its connection is closed. A request with the
/// right token is answered without this delay, even if others send wrong tokens from the same address.
///
/// Clients can guess over many connections, so this delay alone does not protect the token. The length of the token
/// protects it ([`LEAST_ADMIN_TOKEN_BYTES`]).
pub const WRONG_TOKEN_DELAY: Duration = Duration::from_secs(1);

/// Minimum length of ADMIN_TOKEN in bytes. With a shorter ADMIN_TOKEN, the hub logs a warning at the start. A shard
/// accepts fewer than 20,000 guesses per second. At this rate, a token of 16 hexadecimal digits is found after 29
/// million years at the latest.
pub const LEAST_ADMIN_TOKEN_BYTES: usize = 16;

// Checks of the figures above.
const _: () = assert!(ACT_TIMEOUT.as_secs() * (MAX_ORDERS as u64 + 1) < ANSWER_TIMEOUT.as_secs());
const _: () = assert!(HTTP_IDLE_TIMEOUT.as_secs() > 60);
const _: () = assert!(WRONG_TOKEN_DELAY.as_secs() + PAGE_PATIENCE.as_secs() < ANSWER_TIMEOUT.as_secs());
const _: () = assert!(REQUEST_HEAD_TIMEOUT.as_secs() < ANSWER_TIMEOUT.as_secs());
