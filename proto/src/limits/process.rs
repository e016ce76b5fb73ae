//! Bounds of the hub's process, for its log, its open files and its watchdog.

use std::time::Duration;

use super::*;

/// Maximum number of bytes of log lines queued for stderr. Further lines are dropped and counted
/// (`peerpigeon_log_lines_dropped_total`).
///
/// A line has about 200 B, so the queue has room for 20,000 lines. At the level `debug`, the hub logs this number of
/// lines when 5,000 peers reconnect. The queue can fill again while its previous lines are written, so the log takes at
/// most 2 x 4 MiB = 8 MiB.
pub const LOG_QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// Maximum number of bytes of log lines in one write to stderr. If several processes write to one pipe, the kernel does
/// not mix writes up to this size (`PIPE_BUF`).
pub const LOG_CHUNK_BYTES: usize = 4096;

/// Additional room in the log queue for the last lines of a process that fails, in bytes. So the last lines are written
/// even if the queue is full. A process that fails writes two or three lines of a few hundred bytes.
pub const LOG_LAST_BYTES: usize = 16 * 1024;

/// Pause after stderr has refused a write, before the next attempt.
pub const LOG_RETRY: Duration = Duration::from_millis(200);

/// Time for which a stopping process waits until stderr accepts the last lines. Unwritten lines are lost.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Memory reserved for everything that no budget counts, in bytes. Examples are stacks of threads, letters between
/// threads, the state of connections (4 KB each) and the state of TLS. The reserve is at most half of the process's
/// memory limit.
pub const MEMORY_RESERVE_BYTES: usize = 64 * 1024 * 1024;

/// Number of files that the process opens besides sockets, such as the standard streams, the pipe for signals, and
/// files of jemalloc and the resolver.
pub const STANDARD_FILES: usize = 8;

/// Number of files that one tokio runtime opens, which are its poll instance, its waker and its copy of the pipe for
/// signals.
pub const RUNTIME_FILES: usize = 3;

/// Number of files that are reserved for links ([`MAX_LINKS`]) and dials ([`MAX_DIALS_AT_ONCE`] and
/// [`MAX_EXTRA_ATTEMPTS`]). Peers do not use these files. If the process may open only few files, it reserves a
/// sixteenth of all its files for links and dials. The process reserves at least [`SMALLEST_FILE_SHARE`] files for
/// links and dials, and at least two for each hub in BOOTSTRAP_HUBS.
pub const LINK_FILES: usize = MAX_LINKS + MAX_DIALS_AT_ONCE + MAX_EXTRA_ATTEMPTS;

/// Maximum number of connections to ADMIN_PORT. A further connection to ADMIN_PORT replaces the oldest one. If the
/// process may open only few files, the maximum is a thirty-second of all its files.
pub const ADMIN_FILES: usize = 256;

/// Number of files reserved for connections to PORT that are not peers, such as requests for pages and refused
/// connections. If the process may open only few files, it reserves a thirty-second of all its files.
pub const REQUEST_FILES: usize = 256;

/// Number of files reserved for connections to Redis, name lookups, reads of `/proc` and similar purposes. If the
/// process may open only few files, it reserves a sixty-fourth of all its files.
pub const OTHER_FILES: usize = 64;

/// Minimum number of files that are reserved for each of four purposes ([`LINK_FILES`], [`ADMIN_FILES`],
/// [`REQUEST_FILES`], [`OTHER_FILES`]).
pub const SMALLEST_FILE_SHARE: usize = 8;

/// Expected time from the stop of a hub until the restarted hub accepts connections. A hub that stops adds this time to
/// the delay after which its clients should reconnect.
///
/// The process starts in some tens of milliseconds. The supervisor of a hub also needs time to restart the hub. For
/// example, systemd waits 100 ms, and a container runtime needs less than a second. Clients that reconnect too early
/// try again with growing pauses.
pub const RESTART_TIME: Duration = Duration::from_secs(1);

/// Time after which `/livez` and `/readyz` report a thread of the hub whose loop has not begun a new turn.
///
/// A thread records a turn each [`TICK`]. Turns are designed to end within 5 ms. On a machine with too little CPU,
/// turns take longer.
pub const TURN_PATIENCE: Duration = Duration::from_secs(10);

/// Maximum time in which no thread of a running process begins a turn. After a longer gap, the watchdog assumes that
/// the whole process was stopped, and counts only this maximum as running time.
pub const WATCHDOG_STEP: Duration = Duration::from_secs(1);
