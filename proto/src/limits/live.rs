//! Bounds of the live view (`/dashboard`) and its history.

use std::time::Duration;

/// Time between two samples of the history.
///
/// A sample adds up counters that the shards publish each [`TICK`](super::TICK). A sample takes about 0.2 ms of the
/// main thread per second, which is 0.02 % of a core.
pub const LIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of samples in the history of ten minutes. A new sample replaces the oldest.
pub const LIVE_SAMPLES: usize = 600;

/// Maximum number of bytes of all samples. If the samples are larger, the oldest samples are dropped early, and the
/// history gets shorter.
///
/// A sample has 400 to 700 B. With 32 busy shards and every close reason in one second, a sample has 2.4 KB, so 600
/// samples take 1.5 MB. With 256 busy shards, the history has only seven minutes. With [`LIVE_LINES`] (2 x 100 KiB) and
/// [`LIVE_LISTED`] (134 KB), the live view takes less than 2 MiB.
pub const LIVE_RING_BYTES: usize = 1_536 * 1024;

/// Maximum number of log lines at WARN and ERROR that the hub stores for the live view. The hub stores these lines
/// twice, as the end of the log and in the history. A new line replaces the oldest.
///
/// A line has at most [`LIVE_LINE_BYTES`], so all lines take at most 2 x 100 KiB.
pub const LIVE_LINES: usize = 100;

/// Maximum length of a log line in the live view, in bytes. Fields of a log line that do not fit are left out, and the
/// line says so.
pub const LIVE_LINE_BYTES: usize = 1024;

/// Maximum number of hubs, of links, and of dialed addresses in the state that the live view shows. Further entries are
/// only counted.
///
/// An entry takes at most 350 B, so all entries take 128 x 3 x 350 B = 134 KB.
pub const LIVE_LISTED: usize = 128;

/// Maximum number of networks, and of members of one network, in the lists of the live view. The lists have the largest
/// networks, and the members with the smallest ids. All other networks and members are only counted.
///
/// A list takes 200 x 350 B = 70 KB, since a network's name has at most 256 B. A shard reads the members in one turn,
/// which takes 20 us.
pub const LIVE_NAMES: usize = 200;

/// Maximum number of streams of `/dashboard/events` that stay open. A further stream sends the history and then ends,
/// and its browser requests a new stream after [`LIVE_RETRY`]. So every browser gets the history, even if one browser
/// opens many streams.
///
/// In a turn, a stream makes its shard copy at most [`LIVE_CHUNK_BYTES`]. 32 streams take about 0.1 % of a core.
pub const LIVE_STREAMS: usize = 32;

/// Maximum number of bytes of events that a stream writes in a turn. A stream reads its events from the history, so a
/// slow browser takes only the memory of one chunk. A slow browser misses samples that are dropped from the history
/// before it has read them.
///
/// An event that is longer than 16 KiB is sent alone.
pub const LIVE_CHUNK_BYTES: usize = 16 * 1024;

/// Maximum duration of a stream of `/dashboard/events`. The browser then requests a new stream, and the hub checks the
/// login again.
pub const LIVE_STREAM_TIME: Duration = Duration::from_secs(60 * 60);

/// Time after which a browser requests an ended stream again.
pub const LIVE_RETRY: Duration = Duration::from_secs(3);

// Checks of the figures above.
const _: () = assert!(LIVE_SAMPLES as u64 * LIVE_INTERVAL.as_secs() == 600);
const _: () = assert!(LIVE_RING_BYTES + 2 * LIVE_LINES * LIVE_LINE_BYTES + 3 * LIVE_LISTED * 350 < 2 << 20);
