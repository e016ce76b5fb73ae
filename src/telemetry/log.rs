//! The log: its destination and its format.
//!
//! The message of a line is the name of an event, such as `peer_connected`. The name consists of the letters a to z and
//! `_`, so that queries find it. The other fields contain the details, and the field `detail` is a sentence for people.
//! The log never contains the contents of peers' messages.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;
use std::sync::{OnceLock, PoisonError};

use proto::limits::LOG_FLUSH_TIMEOUT;
use tracing::{Subscriber, error};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use super::sink::{LogState, Sink};
use super::tail::TailLayer;
use crate::config::{LogConfig, LogFormat};

/// The log of this process.
static LOG: OnceLock<Sink> = OnceLock::new();

/// The place and the message of each thread's last panic, by the thread's name. The hub gives its threads a fixed set
/// of names, so the map is bounded.
#[expect(
    clippy::disallowed_types,
    reason = "any thread can panic; the lock is held while one entry is written or read"
)]
static PANICS: std::sync::Mutex<BTreeMap<String, (String, String)>> = std::sync::Mutex::new(BTreeMap::new());

/// Guard of the log. Dropping it writes the queued lines, within [`LOG_FLUSH_TIMEOUT`].
#[derive(Debug)]
pub struct Log(&'static Sink);

impl Log {
    /// Writes a line for the person who started the process, at any LOG_LEVEL. This function never waits for stderr.
    pub fn say(&self, line: &str) {
        self.0.push(format!("peerpigeon: {line}\n").as_bytes());
    }

    /// Logs why the process fails, at any LOG_LEVEL, and even if the buffer of the log is full. The line includes the
    /// thread's panic, if it panicked.
    pub fn say_last(&self, event: &'static str, thread: &str) {
        self.0.keep_last_lines();
        let panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
        let (place, detail) = panics.get(thread).cloned().unwrap_or_default();
        drop(panics);
        if tracing::enabled!(tracing::Level::ERROR) {
            error!(event, thread, place, detail, "hub_failed");
        } else {
            self.say(&format!("{event}: thread {thread} panicked at {place}: {detail}"));
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush(LOG_FLUSH_TIMEOUT);
    }
}

/// Starts logging to stderr, panics included. If the process logs already, this call changes nothing.
///
/// After this call, nothing else in the process may write to stderr, because such a write blocks if stderr is stalled.
///
/// # Errors
///
/// If the writing thread cannot be started.
pub fn init(config: &LogConfig) -> io::Result<Log> {
    let terminal = io::stderr().is_terminal();
    let colors = terminal && std::env::var_os("NO_COLOR").is_none_or(|said| said.is_empty());
    let sink = match LOG.get() {
        Some(sink) => sink,
        None => {
            let sink = Sink::start(io::stderr())?;
            let sink = LOG.get_or_init(|| sink);
            _ = tracing::subscriber::set_global_default(subscriber(config, terminal, colors, sink.clone()));
            std::panic::set_hook(Box::new(|panic| report(sink, panic)));
            sink
        }
    };
    Ok(Log(sink))
}

/// The state of this process's log. Returns the default state if the process does not log.
pub fn state() -> LogState {
    LOG.get().map(Sink::state).unwrap_or_default()
}

/// Logs a panic. The default hook writes to stderr itself, so the panicking thread would wait if the reader of stderr
/// has stalled.
fn report(sink: &Sink, panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or_default();
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let detail = panic.payload_as_str().unwrap_or_default();
    let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    panics.insert(thread.to_owned(), (place.clone(), detail.to_owned()));
    drop(panics);
    if tracing::enabled!(tracing::Level::ERROR) {
        error!(thread, place, detail, "thread_panicked");
    } else {
        sink.push(format!("peerpigeon: thread {thread} panicked at {place}: {detail}\n").as_bytes());
    }
}

fn subscriber<W>(config: &LogConfig, terminal: bool, colors: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let human = match config.format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let filter = EnvFilter::builder().parse_lossy(&config.filter);
    // If the subscriber logged errors of the writer, it would print them to stderr, and printing can panic.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    if human {
        Box::new(builder.with_ansi(colors).finish().with(TailLayer))
    } else {
        let json = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
        Box::new(json.with_ansi(false).finish().with(TailLayer))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{SyncSender, sync_channel};

    use serde_json::Value;

    use super::*;

    struct Line(SyncSender<Vec<u8>>);

    impl io::Write for Line {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, terminal: bool, filter: &str) -> String {
        let (sender, receiver) = sync_channel(16);
        let config = LogConfig { format, filter: filter.to_owned() };
        let subscriber = subscriber(&config, terminal, false, move || Line(sender.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(peer = "deadbeef", port = 8080, "peer_connected");
            tracing::debug!("peer_announced");
        });
        receiver.try_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
    }

    #[test]
    fn json_lines_have_the_event_as_their_message() {
        for (format, terminal) in [(LogFormat::Json, true), (LogFormat::Auto, false)] {
            let text = logged(format, terminal, "info");
            let line: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(line["message"], "peer_connected");
            assert_eq!(line["level"], "INFO");
            assert_eq!(line["peer"], "deadbeef");
            assert_eq!(line["port"], 8080);
            assert!(line["timestamp"].is_string());
        }
    }

    #[test]
    fn human_lines_have_no_braces() {
        for (format, terminal) in [(LogFormat::Human, false), (LogFormat::Auto, true)] {
            let text = logged(format, terminal, "info");
            assert!(text.contains("peer_connected") && text.contains("port=8080"), "{text}");
            assert!(!text.contains('{') && !text.contains('\u{1b}'), "{text}");
        }
    }

    #[test]
    fn the_filter_selects_lines() {
        assert_eq!(logged(LogFormat::Json, false, "off"), "");
        assert_eq!(logged(LogFormat::Json, false, "debug").lines().count(), 2);
        assert_eq!(logged(LogFormat::Json, false, "info,peerpigeon=debug").lines().count(), 2);
        assert_eq!(logged(LogFormat::Json, false, "error,shard=trace").lines().count(), 0);
    }
}
