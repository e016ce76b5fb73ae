//! Bounds of TLS, for handshakes, records and certificates.

use std::time::Duration;

use super::*;

/// Maximum number of TLS handshakes that wait for their next step on a shard. The connection of a further handshake is
/// closed immediately.
///
/// A step takes up to 130 us of CPU, and other tasks run between two steps. 1,024 steps take 0.13 s of an otherwise
/// idle shard. Handshakes that wait for bytes of their clients count only in [`MAX_HTTP_CONNECTIONS`].
pub const TLS_TURNS: usize = 1_024;

/// Time limit for the TLS handshake and the first request together, before the connection is closed. The limit equals
/// [`REQUEST_HEAD_TIMEOUT`], so a client with TLS has no additional time.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = REQUEST_HEAD_TIMEOUT;

/// Time for which a connection stays open after it was refused before its TLS handshake. So the client can read the
/// reason and close the connection.
pub const TLS_REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// Maximum length of a TLS record, in bytes. A record has up to 16 KiB of plaintext, the growth that TLS 1.2 allows,
/// and the header. A connection stores at most one incomplete record. A longer record violates the protocol and ends
/// the connection.
pub const TLS_RECORD_BYTES: usize = 16 * 1024 + 2048 + 5;

/// Maximum plaintext that is encrypted at a time, in bytes. 32 KiB fit into two records. If the socket does not accept
/// the ciphertext, the hub stores the ciphertext in addition to the session's queue. For 1,000 sessions whose clients
/// do not read, the ciphertext takes 33 MB.
pub const TLS_WRITE_BYTES: usize = 32 * 1024;

/// Maximum ciphertext of handshakes and of answers to KeyUpdate that is queued for a socket in addition to
/// [`TLS_WRITE_BYTES`], in bytes. A connection with more ciphertext is closed, because its client does not read. A
/// handshake with a long chain of certificates takes 16 KiB.
pub const TLS_PENDING_BYTES: usize = 128 * 1024;

/// Maximum ciphertext that is read at a time from links, and from connections that are not WebSockets yet, in bytes.
///
/// Together with [`TLS_RECORD_BYTES`] and the buffers of hyper, a connection that is not a WebSocket takes up to 72
/// KiB. 4,096 of these connections take at most 288 MiB. A connection of a browser takes only 20 KiB.
pub const TLS_STREAM_READ_BYTES: usize = 16 * 1024;

/// Maximum number of certificates in TLS_CERT, and of names in TLS_ACME. A longer list is refused at the start. The
/// files of each certificate are checked every [`TLS_RELOAD_INTERVAL`].
pub const MAX_TLS_PAIRS: usize = 64;

/// Maximum length of a file of certificates or of a key, in bytes. Longer files are refused. A chain of certificates
/// takes 4 to 8 KiB.
pub const MAX_TLS_FILE_BYTES: usize = 256 * 1024;

/// Interval between two checks of the files of certificates and of token keys for changes.
pub const TLS_RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// First and longest pause after a failed order of a certificate. Each pause is twice as long as the previous one, plus
/// up to a quarter at random.
///
/// With these pauses, the hub makes at most five orders in the first hour. Let's Encrypt refuses further orders for a
/// name after five failures in an hour.
pub const ACME_PAUSES: [Duration; 2] = [Duration::from_secs(2 * 60), Duration::from_secs(4 * 3600)];

/// Time limit for one request to an ACME authority. If a request takes longer, the request and its order fail.
pub const ACME_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Time limit for an order of a certificate. An order that takes longer fails.
pub const ACME_ORDER_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Maximum length of an answer of an ACME authority, in bytes. A longer answer makes the order fail. A chain of
/// certificates takes 4 to 8 KiB.
pub const MAX_ACME_ANSWER_BYTES: usize = 256 * 1024;

/// Maximum time between two checks whether a certificate must be renewed.
pub const ACME_LOOK_INTERVAL: Duration = Duration::from_secs(3600);

/// Minimum and maximum time between two requests that ask an authority when to renew a certificate. The hub uses the
/// interval that the authority requests, within these bounds.
pub const ACME_ASK_INTERVALS: [Duration; 2] = [Duration::from_secs(3600), Duration::from_secs(24 * 3600)];
