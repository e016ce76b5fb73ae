//! Bounds of connections that are not WebSockets, and of pages.

use std::time::Duration;

use super::ACT_TIMEOUT;

/// Maximum number of connections of one listener that are not WebSockets (yet). A further one replaces the oldest. A
/// shard has one listener per address of HOST: two for `localhost`.
///
/// About 20 KiB each while hyper reads a request ([`MAX_REQUEST_HEAD_BYTES`] and its own): 4,096 x 20 KiB = 80 MiB.
pub const MAX_HTTP_CONNECTIONS: usize = 4_096;

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

/// Number of pages per second that a shard answers beyond each address's own share ([`PAGE_RESERVE_RATE`]). ADMIN_PORT
/// and the other ports have separate limits. Pages are all answers but /livez, /readyz, /, files such as /client.js,
/// and errors. Further ones wait for their turn.
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

/// Time for which the JSON form of /metrics waits for the list of networks. Later, it contains the previous list.
pub const NETWORKS_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of networks in `/metrics?format=json`, largest first. The rest are only counted.
pub const MAX_LISTED_NETWORKS: usize = 1_000;

/// Maximum length of the body of a form, in bytes. A longer one gets 413. An order has a peer's id, a network's name of
/// 256 bytes, three times as long when it is encoded, and a number.
pub const MAX_FORM_BYTES: usize = 4 * 1024;

/// Maximum number of orders of operators that wait for the hub's main thread. One more gets 503.
pub const MAX_ORDERS: usize = 3;

/// Validity of an operator's login in a browser.
pub const LOGIN_TIME: Duration = Duration::from_secs(8 * 60 * 60);

/// Number of wrong ADMIN_TOKENs that an address (a /64 of IPv6) may send at once. Later it may send one per
/// [`FAILED_TRY_PAUSE`], and gets 429 in between, even with the right token. 8,640 tries a day do not guess a token of
/// 16 random characters.
pub const FAILED_TRIES: u32 = 5;

/// Time after which a wrong ADMIN_TOKEN is forgiven.
pub const FAILED_TRY_PAUSE: Duration = Duration::from_secs(10);

/// Number of addresses whose wrong tokens a hub remembers. Of more, the ones that have been quiet for longest are
/// forgotten.
///
/// 16 B each: 16 KiB.
pub const FAILED_TRY_ENTRIES: usize = 1024;

/// Number of entries among which an address has its own.
pub const FAILED_TRY_WAYS: usize = 8;

// Checks of the figures and orderings in the comments above.
const _: () = assert!(ACT_TIMEOUT.as_secs() * (MAX_ORDERS as u64 + 1) < ANSWER_TIMEOUT.as_secs());
const _: () = assert!(FAILED_TRY_ENTRIES.is_multiple_of(FAILED_TRY_WAYS));
const _: () = assert!(HTTP_IDLE_TIMEOUT.as_secs() > 60);
const _: () = assert!(REQUEST_HEAD_TIMEOUT.as_secs() < ANSWER_TIMEOUT.as_secs());
