//! The progress bar of a running test. Nothing is drawn if stderr is not a terminal.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::swarm::Swarm;

/// Time between two updates of the bar.
const TICK: Duration = Duration::from_millis(200);

/// The progress bar with the current phase of the run.
pub(super) struct Progress {
    bar: ProgressBar,
    phase: Cell<&'static str>,
    measure: Cell<Measure>,
}

/// The unit of the bar.
#[derive(Clone, Copy)]
enum Measure {
    /// Open sessions.
    Connected,
    /// Milliseconds since this time.
    Time(Instant),
}

impl Progress {
    pub(super) fn new(peers: usize) -> Self {
        let bar = ProgressBar::new(peers as u64);
        let style = ProgressStyle::with_template("{prefix:12} [{bar:30}] {elapsed:>4}  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, phase: Cell::new("connecting"), measure: Cell::new(Measure::Connected) }
    }

    pub(super) fn connect(&self) {
        self.phase("connecting");
    }

    /// Begins the measured part.
    pub(super) fn run(&self, phase: &'static str, duration: Duration) {
        self.phase(phase);
        self.bar.set_length(duration.as_millis() as u64);
        self.measure.set(Measure::Time(Instant::now()));
    }

    pub(super) fn phase(&self, phase: &'static str) {
        self.phase.set(phase);
    }

    /// Draws until the future is dropped.
    pub(super) async fn draw(&self, swarm: Rc<Swarm>) {
        let mut relayed = 0;
        let mut drawn_at = Instant::now();
        loop {
            tokio::time::sleep(TICK).await;
            let connected = swarm.connected();
            let tally = swarm.tally.borrow();
            let per_sec = (tally.delivered - relayed) as f64 / drawn_at.elapsed().as_secs_f64();
            (relayed, drawn_at) = (tally.delivered, Instant::now());
            let violations: u64 = tally.violations.values().map(|violations| violations.count).sum();
            self.bar.set_position(match self.measure.get() {
                Measure::Connected => connected as u64,
                Measure::Time(begin) => begin.elapsed().as_millis() as u64,
            });
            self.bar.set_prefix(self.phase.get());
            self.bar.set_message(format!(
                "{connected}/{} connected  {} discoveries  {} relays/s  {} failures",
                swarm.seats.len(),
                HumanCount(tally.discoveries),
                HumanCount(per_sec as u64),
                tally.failed + violations,
            ));
        }
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
