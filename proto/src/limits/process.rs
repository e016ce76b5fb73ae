//! Bounds of the process: its log, its open files, its watchdog.

use std::time::Duration;

use super::*;

/// Maximum number of bytes of log lines queued for stderr. Further lines are dropped and counted
/// (`peerpigeon_log_lines_dropped_total`).
///
/// A line has about 200 B, so this is 20,000 lines: as many as 5,000 peers log at `debug` when they all reconnect. The
/// same number of bytes can be in flight to stderr: 2 x 4 MiB = 8 MiB at worst.
pub const LOG_QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// Maximum number of bytes of log lines in one write to stderr. The kernel does not mix writes of this size by several
/// processes to one pipe (`PIPE_BUF`).
pub const LOG_CHUNK_BYTES: usize = 4096;

/// Additional bytes for the last lines of a process that fails, so that they are kept even if the buffer is full. They
/// are two or three lines of a few hundred bytes.
pub const LOG_LAST_BYTES: usize = 16 * 1024;

/// Pause after stderr has refused a write, before the next attempt.
pub const LOG_RETRY: Duration = Duration::from_millis(200);

/// Time for which a stopping process waits for stderr to accept the last lines. Unwritten lines are lost.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Memory reserved for everything that no budget counts, in bytes, up to half of the process's limit: stacks of
/// threads, letters between them, the state of connections (4 KB each) and of TLS.
pub const MEMORY_RESERVE_BYTES: usize = 64 * 1024 * 1024;

/// Number of files of the process besides sockets: the standard streams, the pipe for signals, and files that jemalloc
/// or the resolver opens.
pub const STANDARD_FILES: usize = 8;

/// Number of files of one runtime: its poll instance, its waker and its copy of the pipe for signals.
pub const RUNTIME_FILES: usize = 3;

/// Files that are reserved for links and dials: [`MAX_LINKS`], [`MAX_DIALS_AT_ONCE`] and [`MAX_EXTRA_ATTEMPTS`]. Peers
/// do not use them. If the process may open only few files, it is a sixteenth of their number.
pub const LINK_FILES: usize = MAX_LINKS + MAX_DIALS_AT_ONCE + MAX_EXTRA_ATTEMPTS;

/// Maximum number of connections to ADMIN_PORT. A further one replaces the oldest. If the process may open only few
/// files, it is a thirty-second of their number.
pub const ADMIN_FILES: usize = 256;

/// Number of files reserved for connections to PORT that are not peers yet: requests for pages, and peers that are
/// refused. If the process may open only few files, it is a thirty-second of their number.
pub const REQUEST_FILES: usize = 256;

/// Number of files reserved for everything else: connections to Redis, name lookups, reads of `/proc`. If the process
/// may open only few files, it is a sixty-fourth of their number.
pub const OTHER_FILES: usize = 64;

/// Minimum of each of these shares.
pub const SMALLEST_FILE_SHARE: usize = 8;

/// Time in which a stopped hub should accept connections again. A hub that stops adds it to the time after which its
/// clients should reconnect.
///
/// The process starts in some tens of milliseconds; the rest is for its supervisor (systemd: 100 ms, a container: less
/// than a second). Clients that reconnect too early try again with growing pauses.
pub const RESTART_TIME: Duration = Duration::from_secs(1);

/// Time without a turn of its loop after which `/livez` and `/readyz` report a thread of the hub.
///
/// A thread records a turn each [`TICK`]. Turns are designed to end within 5 ms. They take longer on a machine that is
/// short of CPU.
pub const TURN_PATIENCE: Duration = Duration::from_secs(10);

/// Maximum time between two turns, of whichever threads, that counts as running time. A longer gap means that the whole
/// process was stopped.
pub const WATCHDOG_STEP: Duration = Duration::from_secs(1);
