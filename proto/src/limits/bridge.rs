//! Bounds of the Redis bridge.

use std::time::Duration;

/// Bytes at which a frame of the Redis bridge is full. The last envelope of a frame can make the frame longer.
///
/// Redis copies each frame once per hub. A frame of 64 KiB fits into the caches of a core, and sends about 200
/// envelopes with one command.
pub const BRIDGE_FRAME_BYTES: usize = 64 * 1024;

/// Maximum number of bytes that are queued for Redis or in flight to it. Further envelopes are dropped and counted as
/// lost. Hubs notice and repair lost presence. A lost signal has the outcome `unknown`.
///
/// Writing 16 MiB takes 1.7 s at 10 MB/s, which is less than the lease.
pub const BRIDGE_QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of frames at which a pipeline to Redis is full. The last frame of a pipeline can make the pipeline longer.
pub const BRIDGE_PIPELINE_BYTES: usize = 256 * 1024;

/// Maximum number of pipelines to Redis in flight. Further frames wait until a pipeline is answered, and are then sent
/// together.
///
/// At most 8 x (256 KiB + 64 KiB) = 2.5 MiB precede a probe in the socket. A link of 1.5 MB/s sends 2.5 MiB in 1.8 s,
/// so the probe is still answered in time.
pub const BRIDGE_PIPELINES: usize = 8;

/// Maximum number of messages from Redis that the bridge has not processed. Further messages are dropped and counted as
/// lost. The connection to Redis never waits for the bridge, because the answers of Redis arrive on it, too.
///
/// A runtime reads about 1 MiB of one socket in one turn. The smallest frame has about 150 B including the name of its
/// channel, so a turn reads at most 7,000 frames. The bound is about twice this number.
pub const BRIDGE_INBOX: usize = 16 * 1024;

/// Maximum number of bytes of the messages in [`BRIDGE_INBOX`]. Further messages are dropped and counted as lost. A
/// frame longer than 32 MiB is never accepted.
pub const BRIDGE_INBOX_BYTES: usize = 32 * 1024 * 1024;

/// Number of messages of [`BRIDGE_INBOX`] that are processed before other tasks run.
pub const BRIDGE_BATCH: usize = 256;

/// Interval between two probes. A probe is an empty frame that a bridge publishes and must receive back within this
/// interval. So the bridge notices within 4 s that Redis does not respond.
pub const BRIDGE_PROBE: Duration = Duration::from_secs(2);

/// Interval between two challenges of a hub on the bridge. A challenge is a random number that other hubs echo. The
/// echo proves that the other hubs are alive and receive frames. The interval between challenges is a multiple of
/// [`BRIDGE_PROBE`].
///
/// A mesh of 64 hubs publishes 64 x 63 answers of about 150 B in 4 s, which are 1,008 answers per second. Redis can
/// process 100,000 messages per second.
pub const BRIDGE_CHALLENGE: Duration = Duration::from_secs(4);

/// Number of its latest challenges that a hub remembers. The frames of a hub that has answered none of the remembered
/// challenges are dropped.
///
/// Because three challenges are remembered, two successive answers of a hub may be lost without effect. The frames of a
/// hub that receives nothing more are dropped after 8 to 12 s, and the hub counts as lost a lease later.
pub const BRIDGE_CHALLENGES: usize = 3;

/// Maximum number of bridge sessions of one hub id whose answers are accepted. Frames of a further session are dropped
/// until the oldest answers expire.
///
/// A hub begins a new session when it reconnects to Redis. The pauses between attempts to reconnect allow a hub fewer
/// than 16 sessions in 12 s. A session takes 48 B.
pub const BRIDGE_SESSIONS: usize = 16;

/// Maximum number of hubs that a page lists as one-way on the bridge. Frames of a one-way hub arrive, but the hub does
/// not answer challenges. Further hubs are left out. The list takes 64 x 40 B.
pub const MAX_ONE_WAY: usize = 64;

/// Time in which Redis must accept a connection, including TLS and authentication. Redis has another 4 s to accept both
/// subscriptions.
pub const BRIDGE_CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// Time in which a node of a Redis Cluster must answer one pipeline. The time is twice [`BRIDGE_PROBE`], like the time
/// within which a bridge notices a lost probe.
pub const BRIDGE_NODE_TIMEOUT: Duration = Duration::from_secs(4);

/// Minimum pause before the bridge reconnects to Redis.
pub const BRIDGE_BACKOFF_MIN: Duration = Duration::from_millis(100);

/// Maximum pause before the bridge reconnects to Redis. So the bridge connects again at most 5 s after Redis has
/// returned. While Redis is unreachable, 1,000 hubs together make about 300 attempts per second.
pub const BRIDGE_BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Maximum number of frames from the bridge that are queued for the mesh. In practice, 64 frames take at most 64 x 64
/// KiB = 4 MiB.
pub const BRIDGE_EVENTS: usize = 64;

/// Maximum length of a stored error text of the bridge, of a dial or of an order of a certificate, in bytes. Longer
/// texts are truncated.
pub const MAX_ERROR_TEXT_BYTES: usize = 256;

// Checks of the figures above.
const _: () = assert!(BRIDGE_CHALLENGE.as_millis().is_multiple_of(BRIDGE_PROBE.as_millis()));
const _: () = assert!(BRIDGE_PIPELINES * (BRIDGE_PIPELINE_BYTES + BRIDGE_FRAME_BYTES) == 5 * 512 * 1024);
