//! The last log lines at WARN and ERROR, for the live view.
//!
//! The lines are the same as in the log (LOG_LEVEL applies), so they do not contain tokens or data of peers.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use proto::limits::{LIVE_LINE_BYTES, LIVE_LINES};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The lines of this process.
#[expect(clippy::disallowed_types, reason = "any thread can log; the lock is held while one line is copied")]
static TAIL: std::sync::Mutex<Tail> = std::sync::Mutex::new(Tail { next: 1, lines: VecDeque::new() });

/// The last lines, with their numbers. At most [`LIVE_LINES`].
#[derive(Debug)]
struct Tail {
    next: u64,
    lines: VecDeque<(u64, String)>,
}

impl Tail {
    fn push(&mut self, line: String) {
        if self.lines.len() == LIVE_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back((self.next, line));
        self.next += 1;
    }

    fn after(&self, number: u64) -> Vec<(u64, String)> {
        let from = self.lines.partition_point(|(known, _)| *known <= number);
        self.lines.range(from..).cloned().collect()
    }
}

/// The stored lines with higher numbers than `number`, oldest first. Each line is a JSON object with `at` (milliseconds
/// since 1970), `level`, `event`, and the fields of the line as strings in `fields`.
pub fn lines_after(number: u64) -> Vec<(u64, String)> {
    TAIL.lock().unwrap_or_else(PoisonError::into_inner).after(number)
}

/// Stores the lines at WARN and ERROR.
pub(super) struct TailLayer;

impl<S: Subscriber> Layer<S> for TailLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        // Levels are ordered by verbosity, from ERROR to TRACE.
        if level > Level::WARN {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let line = fields.line(at as u64, level.as_str());
        TAIL.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// The event and the fields of a line.
#[derive(Default)]
struct Fields {
    event: String,
    /// The members of a JSON object, without its braces.
    members: String,
    /// Whether a field did not fit.
    cut: bool,
}

impl Fields {
    /// Space for the fields of a line. The other 160 bytes of a line are for the time, the level, the name of the
    /// event, and the JSON around them.
    const ROOM: usize = LIVE_LINE_BYTES - 160;

    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.event = value.chars().take(64).collect();
            return;
        }
        let comma = if self.members.is_empty() { "" } else { "," };
        // Strings can always be serialized.
        let (name, value) = (json(field.name()), json(value));
        if self.members.len() + comma.len() + name.len() + 1 + value.len() > Self::ROOM {
            self.cut = true;
            return;
        }
        _ = write!(self.members, "{comma}{name}:{value}");
    }

    fn line(&self, at: u64, level: &str) -> String {
        let Self { event, members, cut } = self;
        let cut = if *cut { ",\"cut\":true" } else { "" };
        format!("{{\"at\":{at},\"level\":\"{level}\",\"event\":{},\"fields\":{{{members}}}{cut}}}", json(event))
    }
}

fn json(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// The kept lines that contain `mark`. Other tests in this process log, too. Their lines do not contain `mark`.
    fn logged(mark: &str, log: impl FnOnce()) -> Vec<serde_json::Value> {
        let subscriber = tracing_subscriber::registry().with(TailLayer);
        tracing::subscriber::with_default(subscriber, log);
        let lines = lines_after(0).into_iter().map(|(_, line)| line).filter(|line| line.contains(mark));
        lines.map(|line| serde_json::from_str(&line).unwrap()).collect()
    }

    #[test]
    fn warnings_and_errors_are_kept_with_their_fields() {
        let lines = logged("of-this-test", || {
            tracing::info!(mark = "of-this-test", "not_kept");
            tracing::warn!(mark = "of-this-test", times = 3, text = %"a \"b\"", "link_lost");
            tracing::error!(mark = "of-this-test", "thread_stuck");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!((&lines[0]["event"], &lines[0]["level"]), (&"link_lost".into(), &"WARN".into()));
        assert_eq!((&lines[0]["fields"]["times"], &lines[0]["fields"]["text"]), (&"3".into(), &"a \"b\"".into()));
        assert!(lines[0]["at"].as_u64().unwrap() > 1_600_000_000_000);
        assert_eq!(lines[1]["event"], "thread_stuck");
    }

    #[test]
    fn long_lines_lose_their_last_fields() {
        let long = "\u{1}".repeat(LIVE_LINE_BYTES);
        let lines = logged("of-the-long-test", || {
            tracing::warn!(mark = "of-the-long-test", long, after = 1, "link_lost");
        });
        assert_eq!(lines[0]["cut"], true);
        assert!(lines[0]["fields"].get("long").is_none() && lines[0]["fields"]["after"] == "1");
        assert!(lines[0].to_string().len() <= LIVE_LINE_BYTES);
        let mut most = Fields { event: "e".repeat(64), ..Fields::default() };
        most.members = "x".repeat(Fields::ROOM);
        most.cut = true;
        assert!(most.line(u64::MAX, "ERROR").len() <= LIVE_LINE_BYTES);
    }

    #[test]
    fn tail_keeps_the_last_lines() {
        let mut tail = Tail { next: 1, lines: VecDeque::new() };
        (0..LIVE_LINES + 5).for_each(|n| tail.push(n.to_string()));
        let all = tail.after(0);
        assert_eq!((all.len(), all[0].1.as_str()), (LIVE_LINES, "5"));
        let last = all[LIVE_LINES - 1].0;
        assert_eq!(tail.after(last - 1), [(last, (LIVE_LINES + 4).to_string())]);
        assert!(tail.after(last).is_empty());
    }
}
