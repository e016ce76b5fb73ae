//! The output of the log. The log has a bounded buffer, and a thread that writes the buffer.
//!
//! A logging thread appends its line to the buffer and continues. The logging thread never waits for the output and
//! never sees errors of the output. While the output accepts nothing (the disk is full, the reader of the pipe has
//! stalled or died), the buffer fills. When the buffer is full, new lines are dropped and counted. The writing thread
//! retries until the output works.
//!
//! tracing-appender's `non_blocking` is similar. But `non_blocking` limits the number of lines instead of bytes, and
//! does not count lines that the output refused.

#![allow(clippy::disallowed_types, reason = "threads hold this lock only while they copy one line")]

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::limits::{LOG_CHUNK_BYTES, LOG_LAST_BYTES, LOG_QUEUE_BYTES, LOG_RETRY};
use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

/// The destination of log lines. Clones share one buffer and one thread.
#[derive(Clone, Debug)]
pub(super) struct Sink(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<Buffer>,
    /// Signaled when a line is queued in an empty buffer, when a batch is written, and when a write fails.
    changed: Condvar,
}

#[derive(Debug)]
struct Buffer {
    /// Complete lines that the thread has not taken yet. At most `most` bytes.
    waiting: Vec<u8>,
    /// Maximum length of `waiting`: [`LOG_QUEUE_BYTES`]. When the process fails, [`LOG_LAST_BYTES`] are added to this
    /// limit.
    most: usize,
    /// Whether the thread has taken lines and is still writing them.
    writing: bool,
    /// Whether the latest write failed.
    failing: bool,
    /// The time from which a stall is measured. This time is set when the output accepts a write, and when a line is
    /// queued while no other lines are queued or being written.
    progress: Instant,
    /// Number of dropped lines.
    dropped: u64,
}

/// The state of the log's output, for pages and metrics.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct LogState {
    /// Number of lines dropped since the process started.
    pub dropped: u64,
    /// Time for which lines have been queued while the output accepted no write. Zero if no lines are queued or being
    /// written.
    pub stalled: Duration,
}

impl Sink {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub(super) fn start(out: impl io::Write + Send + 'static) -> io::Result<Self> {
        let state = Buffer {
            waiting: Vec::new(),
            most: LOG_QUEUE_BYTES,
            writing: false,
            failing: false,
            progress: Instant::now(),
            dropped: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let own = Arc::clone(&shared);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            let mut out = out;
            // A panic loses the batch in progress. Without this loop, a panic would end the thread, and all later lines
            // would be lost as well.
            while catch_unwind(AssertUnwindSafe(|| own.run(&mut out))).is_err() {
                std::thread::sleep(LOG_RETRY);
            }
        })?;
        Ok(Self(shared))
    }

    /// Appends complete lines, or drops them if there is no room.
    pub(super) fn push(&self, lines: &[u8]) {
        self.0.push(lines);
    }

    /// Makes room for the last lines of a process that fails.
    pub(super) fn keep_last_lines(&self) {
        self.0.lock().most = LOG_QUEUE_BYTES + LOG_LAST_BYTES;
    }

    /// Waits until all lines are written, for at most `patience`. Returns immediately while the output fails.
    pub(super) fn flush(&self, patience: Duration) {
        let busy = |state: &mut Buffer| !state.failing && (state.writing || !state.waiting.is_empty());
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), patience, busy);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// The state of the output.
    pub(super) fn state(&self) -> LogState {
        let state = self.0.lock();
        let busy = state.writing || !state.waiting.is_empty();
        let stalled = if busy { state.progress.elapsed() } else { Duration::ZERO };
        LogState { dropped: state.dropped, stalled }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        // Code that holds the lock of the log's buffer must not panic, because a panic is logged, and logging needs
        // this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, lines: &[u8]) {
        let mut state = self.lock();
        if state.waiting.len() + lines.len() > state.most {
            state.dropped += lines.iter().filter(|byte| **byte == b'\n').count() as u64;
            return;
        }
        if state.waiting.is_empty() {
            if !state.writing {
                state.progress = Instant::now();
            }
            self.changed.notify_all();
        }
        state.waiting.extend_from_slice(lines);
    }

    /// Writes queued lines in an endless loop.
    fn run(&self, out: &mut impl io::Write) {
        let mut batch = Vec::new();
        let mut reported = 0;
        loop {
            batch.clear();
            batch.shrink_to(LOG_CHUNK_BYTES);
            let mut state = self.lock();
            state.writing = false;
            self.changed.notify_all();
            let idle = |state: &mut Buffer| state.waiting.is_empty();
            let mut state = self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut batch, &mut state.waiting);
            state.writing = true;
            // The dropped lines are reported after this batch, because they were dropped while the batch filled the
            // buffer.
            let dropped = state.dropped;
            drop(state);
            self.write(&batch, out);
            if dropped > reported {
                warn!(lines = dropped - reported, "log_lines_dropped");
                reported = dropped;
            }
        }
    }

    /// Writes the batch in pieces of complete lines. Such pieces keep lines whole even if several processes write to
    /// one pipe.
    fn write(&self, batch: &[u8], out: &mut impl io::Write) {
        let mut rest = batch;
        while !rest.is_empty() {
            let taken = match out.write(chunk(rest)) {
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            rest = rest.get(taken..).unwrap_or_default();
            let mut state = self.lock();
            if taken > 0 {
                state.failing = false;
                state.progress = Instant::now();
            } else {
                state.failing = true;
                self.changed.notify_all();
                drop(state);
                std::thread::sleep(LOG_RETRY);
            }
        }
    }
}

/// The first lines that fit into [`LOG_CHUNK_BYTES`]. If the first line is too long, the result is the first
/// [`LOG_CHUNK_BYTES`] bytes of this line.
fn chunk(lines: &[u8]) -> &[u8] {
    let Some(most) = lines.get(..LOG_CHUNK_BYTES) else { return lines };
    most.iter().rposition(|byte| *byte == b'\n').map_or(most, |end| &most[..=end])
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Lines<'a>;

    fn make_writer(&'a self) -> Lines<'a> {
        Lines(&self.0)
    }
}

/// Receives lines from the formatter, each in one write.
#[derive(Debug)]
pub(super) struct Lines<'a>(&'a Shared);

impl io::Write for Lines<'_> {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.0.push(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    /// The result of one write. `None` blocks forever.
    type Order = Option<io::Result<usize>>;

    /// An output with scripted results.
    struct Output {
        orders: Receiver<Order>,
        written: SyncSender<Vec<u8>>,
    }

    impl io::Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let Ok(Some(order)) = self.orders.recv() else {
                loop {
                    std::thread::park()
                }
            };
            let taken = order?.min(bytes.len());
            _ = self.written.send(bytes[..taken].to_vec());
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn sink() -> (Sink, SyncSender<Order>, Receiver<Vec<u8>>) {
        let (order, orders) = sync_channel(10_000);
        let (written, writes) = sync_channel(10_000);
        (Sink::start(Output { orders, written }).unwrap(), order, writes)
    }

    fn error(code: i32) -> Order {
        Some(Err(io::Error::from_raw_os_error(code)))
    }

    #[test]
    fn lines_are_written_in_order_despite_every_kind_of_error() {
        let (sink, order, writes) = sink();
        let (enospc, epipe, eio, eagain, eintr) = (28, 32, 5, 11, 4);
        sink.push(b"one\n");
        for step in [error(enospc), error(epipe), Some(Ok(2)), error(eio), error(eagain), error(eintr), Some(Ok(0))] {
            order.send(step).unwrap();
        }
        assert_eq!(writes.recv_timeout(DEADLINE).unwrap(), b"on");
        assert_eq!(writes.recv_timeout(DEADLINE).unwrap(), b"");
        sink.push(b"two\n");
        order.send(Some(Ok(usize::MAX))).unwrap();
        assert_eq!(writes.recv_timeout(DEADLINE).unwrap(), b"e\n");
        order.send(Some(Ok(usize::MAX))).unwrap();
        assert_eq!(writes.recv_timeout(DEADLINE).unwrap(), b"two\n");
        sink.flush(DEADLINE);
        assert_eq!(sink.state(), LogState::default());
    }

    #[test]
    fn a_stalled_output_uses_bounded_memory_and_delays_nobody() {
        let (sink, order, writes) = sink();
        let line = [[b'x'; 99].as_slice(), b"\n"].concat();
        let lines = 10 + LOG_QUEUE_BYTES / line.len();
        // The writing thread has taken the first line from the buffer, and is blocked while it writes this line.
        sink.push(b"first\n");
        while !sink.0.lock().writing {
            std::thread::yield_now();
        }
        for _ in 0..lines {
            sink.push(&line);
        }
        assert_eq!(sink.state().dropped, 10);
        assert!(sink.0.lock().waiting.len() <= LOG_QUEUE_BYTES);
        assert!(sink.state().stalled > Duration::ZERO);
        let asked = Instant::now();
        sink.flush(Duration::from_millis(50));
        assert!(asked.elapsed() < DEADLINE, "a flush has a time limit");
        // When the output works again, the kept lines arrive in pieces of complete lines.
        let mut kept = 0;
        while kept < lines - 10 {
            order.send(Some(Ok(usize::MAX))).unwrap();
            let written = writes.recv_timeout(DEADLINE).unwrap();
            assert!(written.len() <= LOG_CHUNK_BYTES && written.ends_with(b"\n"));
            kept += written.chunks(line.len()).filter(|written| *written == line).count();
        }
        sink.flush(DEADLINE);
        assert_eq!(sink.state(), LogState { dropped: 10, stalled: Duration::ZERO });
    }

    #[test]
    fn the_last_lines_have_room_in_a_full_buffer() {
        let (sink, order, writes) = sink();
        sink.push(b"first\n");
        while !sink.0.lock().writing {
            std::thread::yield_now();
        }
        let line = [[b'x'; 99].as_slice(), b"\n"].concat();
        (0..=LOG_QUEUE_BYTES / line.len()).for_each(|_| sink.push(&line));
        sink.push(b"dropped\n");
        sink.keep_last_lines();
        sink.push(b"last\n");
        let mut written = Vec::new();
        while !written.ends_with(b"last\n") {
            order.send(Some(Ok(usize::MAX))).unwrap();
            written = writes.recv_timeout(DEADLINE).unwrap();
        }
        assert!(!String::from_utf8(written).unwrap().contains("dropped"));
    }

    #[test]
    fn a_panic_of_the_writer_loses_only_the_batch_in_progress() {
        struct PanicsOnce(bool, SyncSender<Vec<u8>>);
        impl io::Write for PanicsOnce {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                assert!(std::mem::replace(&mut self.0, true), "a planted panic");
                self.1.send(bytes.to_vec()).unwrap();
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (written, writes) = sync_channel(8);
        let sink = Sink::start(PanicsOnce(false, written)).unwrap();
        sink.push(b"lost\n");
        while !sink.0.lock().writing {
            std::thread::yield_now();
        }
        while sink.0.lock().writing {
            std::thread::yield_now();
        }
        sink.push(b"two\n");
        assert_eq!(writes.recv_timeout(DEADLINE).unwrap(), b"two\n");
        sink.flush(DEADLINE);
        assert_eq!(sink.state(), LogState::default());
    }

    #[test]
    fn a_flush_does_not_wait_for_a_failing_output() {
        let (sink, order, _writes) = sink();
        sink.push(b"x\n");
        order.send(error(28)).unwrap();
        // If the flush waited for the output, it would not end before the deadline.
        let (flushed, done) = sync_channel(1);
        let flushing = sink.clone();
        std::thread::spawn(move || {
            flushing.flush(10 * DEADLINE);
            _ = flushed.send(());
        });
        done.recv_timeout(DEADLINE).unwrap();
        assert!(sink.state().stalled > Duration::ZERO);
    }

    #[test]
    fn a_long_line_is_cut_and_short_ones_stay_whole() {
        let long = vec![b'x'; LOG_CHUNK_BYTES + 1];
        assert_eq!(chunk(&long).len(), LOG_CHUNK_BYTES);
        assert_eq!(chunk(b"a\nb\n"), b"a\nb\n");
        let lines = [b"a\n".as_slice(), &long].concat();
        assert_eq!(chunk(&lines), b"a\n");
    }
}
