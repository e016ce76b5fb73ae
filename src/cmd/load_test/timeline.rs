//! The counts of a load test at regular times, for `--report`.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use proto::RouterStats;
use serde::Serialize;

use super::swarm::Swarm;
use super::tally::Tally;

/// Time between two points at the start of a run.
const INTERVAL: Duration = Duration::from_millis(250);

/// Maximum number of points. When a run has this number of points, every second point is dropped, and the interval
/// doubles. So a long run has 600 to 1,200 points of 0.3 KB.
const MAX_POINTS: usize = 1_200;

/// Number of buckets of latencies. The hub's metric has the same buckets, so that both can be compared.
pub(super) const BUCKETS: usize = RouterStats::LATENCY_BOUNDS.len() + 1;

/// The index of the bucket of a latency.
pub(super) fn bucket(micros: u64) -> usize {
    RouterStats::LATENCY_BOUNDS.partition_point(|&bound| bound < micros)
}

/// The counts since the start of the run, at one time.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Point {
    /// Time since the start of the run, in milliseconds.
    at: u64,
    connected: usize,
    discoveries: u64,
    leaves: u64,
    sent: u64,
    delivered: u64,
    errors: u64,
    /// As in [`Tally`].
    closes: u64,
    dial_failures: u64,
    violations: u64,
    latency: [u64; BUCKETS],
}

impl Point {
    fn of(at: u64, connected: usize, tally: &Tally) -> Self {
        let sum = |counts: &super::tally::Counts| counts.0.values().sum();
        Self {
            at,
            connected,
            discoveries: tally.discoveries,
            leaves: tally.leaves,
            sent: tally.sent,
            delivered: tally.delivered,
            errors: sum(&tally.errors),
            closes: sum(&tally.closes),
            dial_failures: sum(&tally.dial_failures),
            violations: tally.violations.values().map(|violations| violations.count).sum(),
            latency: tally.latency_buckets,
        }
    }
}

/// The points of a run.
pub(super) struct Timeline {
    begin: Instant,
    points: RefCell<Vec<Point>>,
}

impl Timeline {
    pub(super) fn new() -> Self {
        Self { begin: Instant::now(), points: RefCell::default() }
    }

    /// Adds points until the future is dropped.
    pub(super) async fn record(&self, swarm: Rc<Swarm>) {
        let mut interval = INTERVAL;
        loop {
            self.add(&swarm);
            if thin(&mut self.points.borrow_mut()) {
                interval *= 2;
            }
            tokio::time::sleep(interval).await;
        }
    }

    /// The points, including one for the current time.
    pub(super) fn finish(self, swarm: &Swarm) -> Vec<Point> {
        self.add(swarm);
        self.points.into_inner()
    }

    fn add(&self, swarm: &Swarm) {
        let at = self.begin.elapsed().as_millis() as u64;
        self.points.borrow_mut().push(Point::of(at, swarm.connected(), &swarm.tally.borrow()));
    }
}

/// Drops every second point if there are too many. The counts of a point are totals since the start of the run, so no
/// event is lost.
fn thin(points: &mut Vec<Point>) -> bool {
    if points.len() < MAX_POINTS {
        return false;
    }
    let mut index = 0;
    points.retain(|_| {
        index += 1;
        index % 2 == 1
    });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_bounded_and_keep_their_sums() {
        let mut tally = Tally::new();
        let (mut points, mut thinned) = (Vec::new(), 0);
        for at in 0..10_000 {
            tally.sent += 1;
            tally.latency(1_500_000);
            points.push(Point::of(at, 1, &tally));
            thinned += usize::from(thin(&mut points));
            assert!(points.len() <= MAX_POINTS);
        }
        assert!(thinned >= 8 && points.len() >= MAX_POINTS / 2);
        assert_eq!((points[0].at, points[0].sent), (0, 1));
        assert!(points.is_sorted_by(|a, b| a.at < b.at && a.sent < b.sent));
        let last = points.last().unwrap();
        assert_eq!(last.latency[bucket(1500)], last.sent);
    }
}
