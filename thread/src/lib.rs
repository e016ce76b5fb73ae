//! Starts and supervises a thread that owns one part of a hub. The part is a shard, or the mesh.
//!
//! # Panics
//!
//! A panic in the rules, in any turn, ends the process. After a panic, the state of the part may be half changed, and
//! its outputs (events, letters, outcomes) are lost. No code of the hub could repair this state. When the process ends,
//! its peers reconnect, and their new state is correct. So the part stops at once. [`TurnGuard`] calls the callback
//! `ended` of [`spawn`], and no other task of the thread runs. The hub then logs the reason and exits with code 70.

mod part;
mod post;
mod tracer;
mod turn;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use part::{check, each_tick, log_bug, poll_read, read_isolated, read_mail};
pub use post::{Mailboxes, Outboxes, PostStats};
pub use tracer::Tracer;
pub use turn::{Turn, was_stopped};

thread_local! {
    /// Callback that reports the end of this thread's part.
    static ENDED: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    static WOKEN: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Awake time of this thread that its counter does not contain yet, in nanoseconds. The value is less than 1,000,
    /// because the counter counts whole microseconds.
    static AWAKE_NANOS: Cell<u64> = const { Cell::new(0) };
    static PARKED: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Time for which this thread has waited for events since the last call of `take_idle`.
    static IDLE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Starts a thread with its own runtime and runs `part` on it. `part` receives a counter of the time for which the
/// thread was awake, in microseconds. [`awake_micros`] reads this counter. `ended` is called once, on the thread, when
/// the part returns or panics.
///
/// # Errors
///
/// If the thread cannot be started. If the thread cannot create its runtime, it logs this error, and the part ends.
pub fn spawn<F: Future<Output = ()>>(
    name: String,
    ended: impl FnOnce() + Send + 'static,
    part: impl FnOnce(Arc<AtomicU64>) -> F + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(move || {
        ENDED.set(Some(Box::new(ended)));
        let _on_end = OnEnd;
        WOKEN.set(Some(Instant::now()));
        let busy = Arc::new(AtomicU64::new(0));
        match runtime(&busy).build_local(tokio::runtime::LocalOptions::default()) {
            Ok(runtime) => {
                runtime.block_on(part(busy));
                // A name lookup may be in progress. The shutdown does not wait for the lookup.
                runtime.shutdown_background();
            }
            Err(error) => tracing::error!(%error, "runtime_failed"),
        }
    })
}

/// A guard that reports the end of this thread's part when the guard is dropped, also during a panic.
struct OnEnd;

impl Drop for OnEnd {
    fn drop(&mut self) {
        end();
    }
}

/// Reports the end of this thread's part, once. Returns false if the thread has no part, or if the end of the part was
/// already reported.
fn end() -> bool {
    let ended = ENDED.try_with(RefCell::take).ok().flatten();
    ended.map(|ended| ended()).is_some()
}

/// The value of this thread's counter of the time for which it was awake, in microseconds. The value includes the time
/// since the thread last woke up, because a thread that always has work never parks.
pub fn awake_micros(busy: &AtomicU64) -> u64 {
    let now = Instant::now();
    if let Some(woken) = WOKEN.replace(Some(now)) {
        add_awake(busy, now - woken);
    }
    busy.load(Ordering::Relaxed)
}

/// Adds a time to the counter. Fractions of a microsecond are counted when they add up to a microsecond.
fn add_awake(busy: &AtomicU64, time: Duration) {
    let nanos = AWAKE_NANOS.take() + time.as_nanos() as u64;
    AWAKE_NANOS.set(nanos % 1000);
    busy.fetch_add(nanos / 1000, Ordering::Relaxed);
}

/// Time for which this thread has waited since the last call.
fn take_idle() -> Duration {
    IDLE.take()
}

/// A runtime for one thread that adds up the time for which the thread was busy.
fn runtime(busy: &Arc<AtomicU64>) -> tokio::runtime::Builder {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let busy = Arc::clone(busy);
    builder.enable_all();
    builder.on_thread_unpark(|| {
        let now = Instant::now();
        WOKEN.set(Some(now));
        if let Some(parked) = PARKED.take() {
            IDLE.set(IDLE.get() + (now - parked));
        }
    });
    builder.on_thread_park(move || {
        let now = Instant::now();
        PARKED.set(Some(now));
        if let Some(woken) = WOKEN.take() {
            add_awake(&busy, now - woken);
        }
    });
    builder
}

/// Guard of one turn of a part, with the turn's subject for the log. If the turn panics, the guard logs the panic and
/// stops the part.
#[derive(Debug)]
pub struct TurnGuard<A: fmt::Debug>(&'static str, A);

impl<A: fmt::Debug> TurnGuard<A> {
    /// Begins a turn.
    pub fn of(what: &'static str, about: A) -> Self {
        Self(what, about)
    }
}

impl<A: fmt::Debug> Drop for TurnGuard<A> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Self(turn, about) = self;
        tracing::error!(turn, ?about, "turn_panicked");
        if end() {
            // Without this endless loop, the runtime would catch the panic and run the next task.
            loop {
                std::thread::park();
            }
        }
    }
}

/// Panics if the environment variable PEERPIGEON_PLANTED_PANIC names this place. Only tests of the whole program set
/// the variable. Release builds do not read it.
#[cfg(debug_assertions)]
#[track_caller]
pub fn planted(place: &str) {
    use std::sync::OnceLock;
    static PLANTED: OnceLock<Option<String>> = OnceLock::new();
    let planted = PLANTED.get_or_init(|| std::env::var("PEERPIGEON_PLANTED_PANIC").ok());
    assert!(planted.as_deref() != Some(place), "a planted panic: {place}");
}

/// Does nothing in release builds.
#[cfg(not(debug_assertions))]
#[inline]
pub fn planted(_: &str) {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc::sync_channel;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn a_panic_in_a_turn_is_reported_and_stops_the_thread() {
        let (ended, hears) = sync_channel(1);
        let went_on = Arc::new(AtomicBool::new(false));
        let other = Arc::clone(&went_on);
        let part = |_| async move {
            let mut tasks = tokio::task::JoinSet::new();
            tasks.spawn_local(async {
                let _turn = TurnGuard::of("test", 7);
                panic!("a planted panic");
            });
            tasks.spawn_local(async move { other.store(true, Ordering::SeqCst) });
            while tasks.join_next().await.is_some() {}
        };
        let thread = spawn("part".to_owned(), move || _ = ended.send(()), part).unwrap();
        hears.recv_timeout(DEADLINE).unwrap();
        assert!(!went_on.load(Ordering::SeqCst) && !thread.is_finished());
    }

    #[test]
    fn a_thread_that_never_waits_counts_as_awake() {
        let (ended, hears) = sync_channel(1);
        let part = |busy: Arc<AtomicU64>| async move {
            let begin = Instant::now();
            let mut awake = 0;
            while begin.elapsed() < Duration::from_millis(50) {
                // Unlike a wait, a yield does not park the thread.
                tokio::task::yield_now().await;
                awake = awake_micros(&busy);
            }
            let passed = begin.elapsed().as_micros() as u64;
            assert!(awake >= 40_000 && awake <= passed + 1_000_000, "{awake} of {passed} us");
            assert_eq!(busy.load(Ordering::Relaxed), awake, "each time counts once");
            ended.send(()).unwrap();
        };
        let thread = spawn("part".to_owned(), || (), part).unwrap();
        hears.recv_timeout(DEADLINE).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn the_end_of_a_part_and_a_panic_between_turns_are_reported() {
        for panics in [false, true] {
            let (ended, hears) = sync_channel(1);
            let part = move |_| async move { assert!(!panics, "a planted panic") };
            let thread = spawn("part".to_owned(), move || _ = ended.send(()), part).unwrap();
            hears.recv_timeout(DEADLINE).unwrap();
            assert_eq!(thread.join().is_err(), panics);
        }
    }
}
