//! Bounds of TLS: handshakes, records, certificates.

use std::time::Duration;

use super::*;

/// Maximum number of TLS handshakes whose next step waits for its turn on a shard. The connection of a further one is
/// closed at once.
///
/// A step takes up to 130 us of CPU, and one step runs between any two turns of other work. 1,024 steps take 0.13 s of
/// an otherwise idle shard. Handshakes that wait for their clients are among [`MAX_HTTP_CONNECTIONS`].
pub const TLS_TURNS: usize = 1_024;

/// Time limit for the TLS handshake and the first request together: one [`REQUEST_HEAD_TIMEOUT`], not two. Later, the
/// connection is closed.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = REQUEST_HEAD_TIMEOUT;

/// Time in which a client that is refused before its TLS handshake must read the reason and end the connection.
pub const TLS_REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// Longest record of TLS, in bytes: 16 KiB of plaintext, the growth that TLS 1.2 allows, and its header. A connection
/// keeps at most this much of an incomplete record. A longer record violates the protocol and ends the connection.
pub const TLS_RECORD_BYTES: usize = 16 * 1024 + 2048 + 5;

/// Maximum plaintext that is encrypted at a time, in bytes: two records. Unwritten bytes are kept, encrypted, in
/// addition to the session's queue: 1,000 sessions whose clients do not read keep 33 MB.
pub const TLS_WRITE_BYTES: usize = 32 * 1024;

/// Maximum ciphertext of TLS itself (handshake, answers to KeyUpdate) that waits for a socket besides
/// [`TLS_WRITE_BYTES`], in bytes. A connection with more ends, since its client does not read. A handshake with a long
/// chain of certificates is 16 KiB.
pub const TLS_PENDING_BYTES: usize = 128 * 1024;

/// Ciphertext that is read at a time before a connection is a WebSocket, and from links, in bytes.
///
/// With [`TLS_RECORD_BYTES`] and the buffers of hyper, a connection has up to 72 KiB meanwhile: 4,096 x 72 KiB = 288
/// MiB at worst. With requests of browsers it is 20 KiB each.
pub const TLS_STREAM_READ_BYTES: usize = 16 * 1024;

/// Maximum number of certificates in TLS_CERT, and of names in TLS_ACME. More are refused at start. Each costs a scan
/// of its files at [`TLS_RELOAD_INTERVAL`].
pub const MAX_TLS_PAIRS: usize = 64;

/// Longest file of certificates or of a key, in bytes. Longer files are refused. A chain is 4 to 8 KiB.
pub const MAX_TLS_FILE_BYTES: usize = 256 * 1024;

/// Interval between two checks of the certificate files for changes.
pub const TLS_RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Pauses after failed orders of a certificate: the first one, and the longest one. Each is twice the one before it.
///
/// Five orders fail in the first hour. Let's Encrypt refuses further orders for a name after five failures in an hour.
pub const ACME_PAUSES: [Duration; 2] = [Duration::from_secs(2 * 60), Duration::from_secs(4 * 3600)];

/// Time limit for one request to an ACME authority. A request that takes longer has failed, and with it the order.
pub const ACME_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Time limit for an order of a certificate. An order that takes longer has failed.
pub const ACME_ORDER_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Longest answer of an ACME authority, in bytes. A longer one fails the order. A chain is 4 to 8 KiB.
pub const MAX_ACME_ANSWER_BYTES: usize = 256 * 1024;

/// Longest time between two looks at whether a certificate must be renewed.
pub const ACME_LOOK_INTERVAL: Duration = Duration::from_secs(3600);

/// Shortest and longest time between two questions to an authority about when it wants a certificate renewed. Its own
/// wish is respected within these bounds.
pub const ACME_ASK_INTERVALS: [Duration; 2] = [Duration::from_secs(3600), Duration::from_secs(24 * 3600)];
