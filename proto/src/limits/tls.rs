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

/// Maximum number of certificates of a hub (TLS_CERT). More are refused at start. Each costs a scan of its files at
/// [`TLS_RELOAD_INTERVAL`].
pub const MAX_TLS_PAIRS: usize = 64;

/// Longest file of certificates or of a key, in bytes. Longer files are refused. A chain is 4 to 8 KiB.
pub const MAX_TLS_FILE_BYTES: usize = 256 * 1024;

/// Interval between two checks of the certificate files for changes.
pub const TLS_RELOAD_INTERVAL: Duration = Duration::from_secs(10);
