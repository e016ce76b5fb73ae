//! Detects threads of the hub that hang because of a deadlock, an endless loop or a blocking call.
//!
//! Each thread records a turn once a tick. The watchdog counts only time in which at least *one* thread has turns. The
//! whole process can be stopped for a time (by SIGSTOP, in a frozen container, on a suspended machine). When the
//! stopped process resumes, none of its threads counts as stuck.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::limits::WATCHDOG_STEP;

/// Records the time of each thread's last turn. Clones share the records.
#[derive(Clone, Debug)]
pub struct Watchdog(Arc<Threads>);

#[derive(Debug)]
struct Threads {
    /// Maximum time between two turns of a thread.
    patience: Duration,
    /// Time of the last turn of any thread, in milliseconds of the hub's clock.
    last: AtomicU64,
    /// Time that has passed while at least one thread had turns, in milliseconds. The time does not grow while the
    /// whole process is stopped.
    awake: AtomicU64,
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    name: String,
    /// Time of the thread's last turn, in milliseconds of `awake`.
    turned: AtomicU64,
}

/// A thread and the time since its last turn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stuck {
    /// The name of the thread.
    pub thread: String,
    /// Time since the thread's last turn.
    pub since: Duration,
}

impl Watchdog {
    /// A watchdog for threads with these names. The watchdog assumes that each thread has just had a turn.
    pub fn new(names: impl IntoIterator<Item = String>, patience: Duration) -> Self {
        let threads = names.into_iter().map(|name| Thread { name, turned: AtomicU64::new(0) }).collect();
        Self(Arc::new(Threads { patience, last: AtomicU64::new(0), awake: AtomicU64::new(0), threads }))
    }

    /// Records a turn of a thread, at `now` on the hub's clock.
    pub fn turned(&self, thread: usize, now: Duration) {
        let now = millis(now);
        let last = self.0.last.fetch_max(now, Ordering::Relaxed);
        let passed = now.saturating_sub(last).min(millis(WATCHDOG_STEP));
        let awake = self.0.awake.fetch_add(passed, Ordering::Relaxed) + passed;
        if let Some(thread) = self.0.threads.get(thread) {
            thread.turned.store(awake, Ordering::Relaxed);
        }
    }

    /// The thread whose last turn is the longest ago.
    pub fn oldest(&self) -> Option<Stuck> {
        let oldest = self.0.threads.iter().max_by_key(|thread| self.0.since(thread))?;
        Some(Stuck { thread: oldest.name.clone(), since: self.0.since(oldest) })
    }

    /// All threads that have exceeded the maximum time without a turn.
    pub fn all_stuck(&self) -> Vec<Stuck> {
        let stuck = |thread: &Thread| Stuck { thread: thread.name.clone(), since: self.0.since(thread) };
        self.0.threads.iter().map(stuck).filter(|stuck| stuck.since > self.0.patience).collect()
    }

    /// A thread that has exceeded the maximum time without a turn, if there is one.
    pub fn stuck(&self) -> Option<Stuck> {
        self.oldest().filter(|oldest| oldest.since > self.0.patience)
    }
}

impl Threads {
    /// Time since the thread's last turn.
    fn since(&self, thread: &Thread) -> Duration {
        let awake = self.awake.load(Ordering::Relaxed);
        Duration::from_millis(awake.saturating_sub(thread.turned.load(Ordering::Relaxed)))
    }
}

/// Threads that hang now, and threads that have recovered, between two results of [`Watchdog::all_stuck`].
pub fn changes<'a>(before: &'a [Stuck], now: &'a [Stuck]) -> (Vec<&'a Stuck>, Vec<&'a Stuck>) {
    let lacks = |stuck: &[Stuck], thread: &str| stuck.iter().all(|other| other.thread != thread);
    let new = now.iter().filter(|stuck| lacks(before, &stuck.thread)).collect();
    let over = before.iter().filter(|stuck| lacks(now, &stuck.thread)).collect();
    (new, over)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn watchdog() -> Watchdog {
        Watchdog::new(["main", "shard-0", "shard-1"].map(str::to_owned), PATIENCE)
    }

    /// Records a turn of each of these threads ten times a second, from `from` to `to`. Returns the stuck thread that
    /// was detected, if any.
    fn run(watchdog: &Watchdog, threads: &[usize], from: u64, to: u64) -> Option<Stuck> {
        for tick in from * 10..to * 10 {
            for thread in threads {
                watchdog.turned(*thread, Duration::from_millis(tick * 100 + *thread as u64));
            }
        }
        watchdog.stuck()
    }

    #[test]
    fn a_thread_without_turns_is_reported_after_the_maximum() {
        let watchdog = watchdog();
        assert_eq!(run(&watchdog, &[0, 1, 2], 0, 60), None);
        assert_eq!(run(&watchdog, &[0, 1], 60, 70), None);
        let stuck = run(&watchdog, &[0, 1], 70, 72).unwrap();
        assert_eq!(stuck.thread, "shard-1");
        assert!(stuck.since > Duration::from_secs(11) && stuck.since < Duration::from_secs(13), "{stuck:?}");
        // The thread recovers.
        assert_eq!(run(&watchdog, &[0, 1, 2], 72, 73), None);
    }

    #[test]
    fn each_hang_and_each_recovery_is_reported_once() {
        let watchdog = watchdog();
        let mut before = Vec::new();
        let mut said = Vec::new();
        let mut look = |threads: &[usize], from: u64, to: u64| {
            for second in from..to {
                run(&watchdog, threads, second, second + 1);
                let now = watchdog.all_stuck();
                let (new, over) = changes(&before, &now);
                said.extend(new.iter().map(|stuck| format!("{} stuck", stuck.thread)));
                said.extend(over.iter().map(|stuck| format!("{} turns", stuck.thread)));
                before = now;
            }
            std::mem::take(&mut said)
        };
        assert!(look(&[0, 1, 2], 0, 20).is_empty());
        assert_eq!(look(&[0, 1], 20, 35), ["shard-1 stuck"]);
        // A second stuck thread is reported, just like the first stuck thread.
        assert_eq!(look(&[0], 35, 60), ["shard-0 stuck"]);
        assert_eq!(look(&[0, 2], 60, 80), ["shard-1 turns"]);
        assert_eq!(look(&[0, 1, 2], 80, 90), ["shard-0 turns"]);
    }

    #[test]
    fn a_thread_that_never_turned_is_reported() {
        let watchdog = watchdog();
        assert_eq!(run(&watchdog, &[0, 2], 0, 12).unwrap().thread, "shard-0");
    }

    #[test]
    fn a_stopped_process_has_no_stuck_thread() {
        let watchdog = watchdog();
        assert_eq!(run(&watchdog, &[0, 1, 2], 0, 60), None);
        // One hour later, one thread has a turn before the other threads, and all threads are checked immediately.
        assert_eq!(run(&watchdog, &[1], 3660, 3661), None);
        assert_eq!(run(&watchdog, &[0, 1, 2], 3661, 3662), None);
        // The process is stopped repeatedly, with a single turn in between.
        for stop in 1..100 {
            watchdog.turned(0, Duration::from_secs(4000 + 100 * stop));
            watchdog.turned(1, Duration::from_secs(4000 + 100 * stop));
            watchdog.turned(2, Duration::from_secs(4000 + 100 * stop));
            assert_eq!(watchdog.stuck(), None);
        }
    }

    #[test]
    fn a_starved_process_has_no_stuck_thread() {
        let watchdog = watchdog();
        for turn in 0..100 {
            watchdog.turned(turn % 3, Duration::from_secs(4 * turn as u64));
            assert_eq!(watchdog.stuck(), None);
        }
    }
}
