//! Bounds of the process: its log, its open files, its watchdog.

use std::time::Duration;

use super::*;

/// Maximum number of bytes of log lines queued for stderr. Further lines are dropped and counted
/// (`peerpigeon_log_lines_dropped_total`).
///
/// A line has about 200 B, so the queue holds 20,000 lines. The hub logs this number of lines at `debug` when 5,000
/// peers reconnect. While lines are written to stderr, the queue can fill again, so the log takes at most 2 x 4 MiB = 8
/// MiB.
pub const LOG_QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// Maximum number of bytes of log lines in one write to stderr. If several processes write to one pipe, the kernel does
/// not mix writes up to this size (`PIPE_BUF`).
pub const LOG_CHUNK_BYTES: usize = 4096;

/// Additional bytes for the last lines of a process that fails, so that these lines are kept even if the buffer is
/// full. Such a process writes two or three lines of a few hundred bytes.
pub const LOG_LAST_BYTES: usize = 16 * 1024;

/// Pause after stderr has refused a write, before the next attempt.
pub const LOG_RETRY: Duration = Duration::from_millis(200);

/// Time for which a stopping process waits for stderr to accept the last lines. Unwritten lines are lost.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Memory reserved for everything that no budget counts, in bytes: stacks of threads, letters between threads, the
/// state of connections (4 KB each) and of TLS. The reserve is at most half of the process's memory limit.
pub const MEMORY_RESERVE_BYTES: usize = 64 * 1024 * 1024;

/// Number of files of the process besides sockets: the standard streams, the pipe for signals, and files that jemalloc
/// or the resolver opens.
pub const STANDARD_FILES: usize = 8;

/// Number of files that one runtime opens: its poll instance, its waker and its copy of the pipe for signals.
pub const RUNTIME_FILES: usize = 3;

/// Files that are reserved for links and dials: [`MAX_LINKS`], [`MAX_DIALS_AT_ONCE`] and [`MAX_EXTRA_ATTEMPTS`]. Peers
/// do not use them. A process that may open few files reserves only a sixteenth of them. This is never less than
/// [`SMALLEST_FILE_SHARE`], and never less than two files for each hub to dial.
pub const LINK_FILES: usize = MAX_LINKS + MAX_DIALS_AT_ONCE + MAX_EXTRA_ATTEMPTS;

/// Maximum number of connections to ADMIN_PORT. A further connection replaces the oldest. If the process may open only
/// few files, the maximum is a thirty-second of these files.
pub const ADMIN_FILES: usize = 256;

/// Number of files reserved for connections to PORT that are not peers yet: requests for pages, and peers that are
/// refused. If the process may open only few files, a thirty-second of these files is reserved instead.
pub const REQUEST_FILES: usize = 256;

/// Number of files reserved for everything else: connections to Redis, name lookups, reads of `/proc`. If the process
/// may open only few files, a sixty-fourth of these files is reserved instead.
pub const OTHER_FILES: usize = 64;

/// Minimum number of files for each of these four purposes: links, ADMIN_PORT, requests, everything else.
pub const SMALLEST_FILE_SHARE: usize = 8;

/// Expected time from the stop of a hub until the restarted hub accepts connections. A hub that stops adds this time to
/// the delay after which its clients should reconnect.
///
/// The process starts in some tens of milliseconds. The remaining time is for its supervisor (systemd: 100 ms, a
/// container: less than a second). Clients that reconnect too early try again with growing pauses.
pub const RESTART_TIME: Duration = Duration::from_secs(1);

/// Time after which `/livez` and `/readyz` report a thread of the hub whose loop has not begun a new turn.
///
/// A thread records a turn each [`TICK`]. Turns are designed to end within 5 ms. On a machine with too little CPU,
/// turns take longer.
pub const TURN_PATIENCE: Duration = Duration::from_secs(10);

/// Maximum time between two successive turns of any threads. If no thread begins a turn for longer, the whole process
/// was stopped, and the gap does not count as running time.
pub const WATCHDOG_STEP: Duration = Duration::from_secs(1);
