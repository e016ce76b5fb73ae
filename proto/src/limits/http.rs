//! Bounds of connections that are not WebSockets, and of pages.

use std::time::Duration;

use super::ACT_TIMEOUT;

/// Maximum number of connections of one listener that are not WebSockets, or not WebSockets yet. A further connection
/// replaces the oldest. A shard has one listener per address of HOST: two for `localhost`.
///
/// A connection takes about 20 KiB while hyper reads a request ([`MAX_REQUEST_HEAD_BYTES`] and the buffers of hyper):
/// 4,096 x 20 KiB = 80 MiB.
pub const MAX_HTTP_CONNECTIONS: usize = 4_096;

/// Maximum length of the head of a request, in bytes. Bytes of the body that are read together with the head count,
/// too. Longer heads get 431.
pub const MAX_REQUEST_HEAD_BYTES: usize = 16 * 1024;

/// Maximum number of headers of a request. Requests with more headers get 431.
pub const MAX_REQUEST_HEADERS: usize = 100;

/// Time in which the first request of a connection must arrive. After that, the connection is closed without an answer.
pub const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for which a connection is kept open for its next request, which must be complete by then. It exceeds the 60 s
/// for which load balancers keep idle connections, so that the balancer closes first and never sends a request into a
/// closing connection.
///
/// The oldest connection of a listener is closed earlier if its place is needed for another connection.
pub const HTTP_IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Time in which the hub must produce an answer and the client must read it. After that, the connection is closed.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Number of requests that one connection may send in a burst. Further requests are delayed to [`REQUEST_RATE`].
pub const REQUEST_BURST: u32 = 20;

/// Average number of answers per second for one connection. Requests above this rate are delayed and never refused. So
/// a client that pipelines requests slows down only itself.
pub const REQUEST_RATE: u32 = 20;

/// Number of pages per second that a shard answers in addition to each address's own share ([`PAGE_RESERVE_RATE`]).
/// Three groups of readers have separate limits: operators with ADMIN_TOKEN, other readers at ADMIN_PORT, and all
/// readers at other ports. All answers are pages, except /livez, /readyz, /, errors, and files such as /client.js.
/// Further requests wait for their turn.
///
/// All requests for a page share its bytes, 60 KB for /metrics. An answer takes about 20 us of the shard, so 100
/// answers per second take 0.2 %. This is enough for a balancer with 50 nodes behind one address that all request
/// /health each second.
pub const PAGE_RATE: u32 = 100;

/// Number of pages per second that are reserved for each address (each /64 of IPv6) at a shard. This is enough for a
/// balancer that requests /health each second and for a scrape of /metrics.
pub const PAGE_RESERVE_RATE: u32 = 2;

/// Number of reserved pages in a burst.
pub const PAGE_RESERVE_BURST: u32 = 10;

/// Number of slots for the shares of addresses. Addresses with the same keyed hash share a slot. During a flood from 5
/// addresses, one in 100 other addresses shares a slot with one of these 5, and has only the common [`PAGE_RATE`].
///
/// A slot takes 48 B: 24 KiB for each of the three groups of readers. If all slots are used, their shares allow 1,024
/// pages per second, which take 2 % of the shard.
pub const PAGE_RESERVES: usize = 512;

/// Maximum time for which [`PAGE_RATE`] delays a page. A request that would be delayed longer immediately gets 429 with
/// `Retry-After`.
pub const PAGE_PATIENCE: Duration = Duration::from_secs(1);

/// Number of renderings of a page in a burst. During the burst, each request gets a page that was rendered after the
/// request arrived.
pub const RENDER_BURST: u32 = 10;

/// Average number of renderings of a page per second. Further requests get the last rendering, so no page is older than
/// a quarter of a second.
///
/// A rendering of /metrics takes 1.2 ms. 4 renderings per second of each of the 7 pages take at most 3 % of a core.
pub const RENDER_RATE: u32 = 4;

/// Time limit for the rendering of a page. After that, the answer is 503 with `Retry-After`.
pub const RENDER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for which the JSON form of /metrics waits for the list of networks. After that, it contains the previous list.
pub const NETWORKS_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of networks in `/metrics?format=json`, largest first. Further networks are only counted.
pub const MAX_LISTED_NETWORKS: usize = 1_000;

/// Maximum length of the body of a form, in bytes. A longer form gets 413. An order has a peer's id, a network's name
/// of 256 bytes (three times as long when encoded), and a number.
pub const MAX_FORM_BYTES: usize = 4 * 1024;

/// Maximum number of operators' orders that are queued for the hub's main thread. A further order gets 503.
pub const MAX_ORDERS: usize = 3;

/// Time for which an operator's login in a browser is valid.
pub const LOGIN_TIME: Duration = Duration::from_secs(8 * 60 * 60);

/// Time after which a request with a wrong ADMIN_TOKEN is answered, and its connection closed. A request with the right
/// token is answered without this delay, even if others send wrong tokens from the same address.
///
/// This delay does not protect the token, because clients can guess over many connections. The length of the token
/// protects it ([`LEAST_ADMIN_TOKEN_BYTES`]).
pub const WRONG_TOKEN_DELAY: Duration = Duration::from_secs(1);

/// Length of ADMIN_TOKEN, in bytes, below which the hub warns at the start. A shard accepts fewer than 20,000 guesses
/// per second. At this rate, a token of 16 hexadecimal digits is found after 29 million years at the latest.
pub const LEAST_ADMIN_TOKEN_BYTES: usize = 16;

// These assertions check figures and orderings in the comments above.
const _: () = assert!(ACT_TIMEOUT.as_secs() * (MAX_ORDERS as u64 + 1) < ANSWER_TIMEOUT.as_secs());
const _: () = assert!(HTTP_IDLE_TIMEOUT.as_secs() > 60);
const _: () = assert!(WRONG_TOKEN_DELAY.as_secs() + PAGE_PATIENCE.as_secs() < ANSWER_TIMEOUT.as_secs());
const _: () = assert!(REQUEST_HEAD_TIMEOUT.as_secs() < ANSWER_TIMEOUT.as_secs());
