//! How fast a hub answers, and how long the doctor therefore waits for its answers.

use std::time::Duration;

use super::finding::{Finding, Grade, Topic};

/// Time by which the median of the answers may be longer than a TCP connection. A slower hub is a warning.
///
/// An idle hub answers within 1 ms, and a busy hub within a turn of a few milliseconds. 20 ms are far above both, and a
/// tenth of the delay that people notice.
const SLOW: Duration = Duration::from_millis(20);

/// Like [`SLOW`], for the longest of several answers: a single answer may wait for a lost packet, which TCP sends again
/// after 200 ms.
const SLOW_ONCE: Duration = Duration::from_millis(200);

/// Time by which the median may be longer than a TCP connection, before a slow hub is a problem. `peerpigeon top`
/// reports a hub whose pages take as long. People notice a delay of 250 ms in each message, and the handshake of a peer
/// connection needs several messages.
const VERY_SLOW: Duration = Duration::from_millis(250);

/// Bytes per second that a path should carry: 8 Mbit/s, the upload of a slow line at home. An offer passes the path
/// twice, so it may take twice its size at this rate. 16 KiB get 33 ms, and 1 MiB gets 2.1 s.
const RATE: u32 = 1_000_000;

/// Maximum time for an answer of a hub that is not slow.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Maximum time for an answer of a slow hub. With a longer time, a hub that answers nothing would delay the report by
/// minutes.
const LONGEST_PATIENCE: Duration = Duration::from_secs(60);

/// Number of times that a slow answer may take longer than the slowest measured one. A larger number would delay the
/// report, and a smaller number would count outliers of a busy hub as losses.
const SPREAD: u32 = 8;

/// Size of a large offer of a browser with video, in bytes.
///
/// A hub reads a longer message in pieces of about this size. So a hub that needs a time T for 16 KiB can need 64 x T
/// for 1 MiB.
pub(super) const LARGE: usize = 16 * 1024;

pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The median and the maximum of the times of several answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) median: Duration,
    longest: Duration,
}

impl Times {
    /// `None` if there are no times.
    pub(super) fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        Some(Self { median: *times.get(times.len() / 2)?, longest: *times.last()? })
    }

    pub(super) fn shown(self) -> String {
        format!("{:.2} ms median, {:.2} ms at most", millis(self.median), millis(self.longest))
    }

    /// The grade of answers that should take `expected`. All checks use the same limits.
    pub(super) fn grade(self, expected: Duration) -> Grade {
        if self.median > expected + VERY_SLOW {
            Grade::Problem
        } else if self.median > expected + SLOW || self.longest > expected + SLOW_ONCE {
            Grade::Warning
        } else {
            Grade::Ok
        }
    }
}

/// The time that the network needs for a message of this size, which passes it twice.
pub(super) fn transfer(bytes: usize) -> Duration {
    Duration::from_secs(2 * bytes as u64) / RATE
}

/// The measured times of a hub.
#[derive(Debug)]
pub(super) struct Pace {
    /// The hub's host and port.
    pub(super) hub: String,
    /// Time of a TCP connection to the hub, which its kernel or its proxy accepts.
    pub(super) rtt: Duration,
    /// The name and the times of each kind of answer.
    measured: Vec<(String, Times)>,
    grade: Grade,
}

impl Pace {
    pub(super) fn new(hub: impl Into<String>, rtt: Duration) -> Self {
        Self { hub: hub.into(), rtt, measured: Vec::new(), grade: Grade::Ok }
    }

    /// Adds the times of `what`, which should take `expected`. Returns their grade.
    pub(super) fn add(&mut self, what: impl Into<String>, times: Times, expected: Duration) -> Grade {
        let grade = times.grade(expected);
        self.measured.push((what.into(), times));
        self.grade = self.grade.max(grade);
        grade
    }

    /// The times of this hub and of another hub, for signals between their peers.
    pub(super) fn with(&self, other: &Self) -> Self {
        Self {
            hub: format!("{} or {}", self.hub, other.hub),
            rtt: self.rtt.max(other.rtt),
            measured: self.measured.iter().chain(&other.measured).cloned().collect(),
            grade: self.grade.max(other.grade),
        }
    }

    /// Whether some answers of the hub were slow.
    pub(super) fn is_slow(&self) -> bool {
        self.grade > Grade::Ok
    }

    /// Whether the hub is so slow that a message which does not arrive in time may still be on its way.
    pub(super) fn is_very_slow(&self) -> bool {
        self.grade == Grade::Problem
    }

    /// Maximum time for the answer to a message of this size. The time grows with the slowest measured answer.
    pub(super) fn patience(&self, bytes: usize) -> Duration {
        let slowest = self.measured.iter().map(|(_, times)| times.median).max().unwrap_or_default();
        let pieces = u32::try_from(bytes.div_ceil(LARGE)).unwrap_or(u32::MAX).max(SPREAD);
        slowest.saturating_mul(pieces).clamp(PATIENCE, LONGEST_PATIENCE)
    }

    /// The measured times, for a message.
    pub(super) fn shown(&self) -> String {
        let each = self.measured.iter().map(|(what, times)| format!("{what} {:.1} ms", millis(times.median)));
        each.chain([format!("a TCP connection to {} {:.1} ms", self.hub, millis(self.rtt))])
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// The time of a TCP connection, for the message of a slow answer.
    pub(super) fn beside(&self) -> String {
        format!("a TCP connection to {} takes {:.1} ms", self.hub, millis(self.rtt))
    }

    /// The finding about a message that did not arrive within `patience`. If the hub is very slow, the message may
    /// still be on its way, so the finding blames neither the hub's limits nor a proxy. Otherwise, the topic is
    /// `topic`.
    pub(super) fn late(&self, check: &'static str, topic: Topic, message: String, patience: Duration) -> Finding {
        if !self.is_very_slow() {
            return Finding::problem(check, topic, message);
        }
        let message = format!(
            "{message}; the doctor waited for {:.0} s, but the hub or the path to it is too slow to tell the cause: {}",
            patience.as_secs_f64(),
            self.shown()
        );
        Finding::problem(check, Topic::Slow, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(times: &[u64]) -> Times {
        Times::of(times.iter().copied().map(Duration::from_millis).collect()).unwrap()
    }

    #[test]
    fn answers_are_slow_if_their_median_or_their_longest_time_is_too_long() {
        let grade = |values: &[u64]| times(values).grade(Duration::from_millis(10));
        assert_eq!(grade(&[30, 30, 210]), Grade::Ok);
        assert_eq!(grade(&[210, 30, 31, 31]), Grade::Warning, "the median is too long");
        assert_eq!(grade(&[211, 1, 1]), Grade::Warning, "the longest time is too long");
        assert_eq!((grade(&[260]), grade(&[261])), (Grade::Warning, Grade::Problem));
        assert!(Times::of(Vec::new()).is_none());
        assert_eq!(transfer(1_000_000), Duration::from_secs(2));
    }

    #[test]
    fn the_doctor_waits_longer_for_a_slow_hub() {
        let secs = Duration::from_secs;
        let mut pace = Pace::new("hub:80", Duration::ZERO);
        assert_eq!(pace.patience(1 << 20), PATIENCE, "nothing was measured");
        assert_eq!(pace.add("pings", times(&[1]), Duration::ZERO), Grade::Ok);
        assert_eq!(pace.patience(1 << 20), PATIENCE);
        pace.add("offers", times(&[700]), Duration::ZERO);
        assert_eq!(pace.patience(100), Duration::from_millis(5_600));
        assert_eq!(pace.patience(1 << 20), Duration::from_millis(44_800));
        pace.add("pings", times(&[100]), Duration::ZERO);
        assert_eq!(pace.patience(1 << 20), Duration::from_millis(44_800), "the slowest answer counts");
        assert_eq!(pace.patience(usize::MAX), secs(60));
    }

    #[test]
    fn a_message_that_a_very_slow_hub_delays_does_not_count_as_lost() {
        let mut pace = Pace::new("hub:80", Duration::ZERO);
        let late = |pace: &Pace| pace.late("size", Topic::LargeLost, "lost".to_owned(), Duration::from_secs(7));
        pace.add("pings", times(&[250]), Duration::ZERO);
        assert!(!pace.is_very_slow());
        assert_eq!((late(&pace).topic, late(&pace).message), (Some(Topic::LargeLost), "lost".to_owned()));
        pace.add("offers", times(&[251]), Duration::ZERO);
        assert_eq!(late(&pace).topic, Some(Topic::Slow));
        let figures = "waited for 7 s, but the hub or the path to it is too slow to tell the cause: pings 250.0 ms, \
                       offers 251.0 ms, a TCP connection to hub:80 0.0 ms";
        assert!(late(&pace).message.ends_with(figures), "{}", late(&pace).message);
    }
}
