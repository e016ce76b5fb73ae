//! Runs a simulator with many seeds. Both simulators use this code.
#![expect(clippy::print_stdout, reason = "tests print which seed failed, and how to run it again")]

use std::fmt::Debug;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

/// The result of a run.
pub(crate) struct Ended {
    /// The first complaint of an oracle, if there is one.
    pub(crate) complaint: Option<String>,
    /// One line for each event, if the run is traced.
    pub(crate) trace: String,
}

/// A simulator, and the number of seeds that its tests run.
pub(crate) struct Simulator<F: 'static> {
    /// Runs a seed, with or without a planted bug and a trace. A panic counts as a complaint.
    pub(crate) play: fn(u64, Option<F>, bool) -> Ended,
    /// All planted bugs.
    pub(crate) faults: &'static [F],
    /// Number of seeds to run, unless `SIM_SEEDS` is set.
    pub(crate) seeds: u64,
    /// Number of seeds within which a planted bug must be found.
    pub(crate) seeds_of_a_fault: u64,
    /// Number of seeds that are run twice, to compare the runs.
    pub(crate) repeated: u64,
    /// Module of the tests, for the command that repeats a failed run.
    pub(crate) name: &'static str,
}

/// Runs a world. Returns a complaint if it panicked.
pub(crate) fn panics(run: impl FnOnce()) -> Option<String> {
    catch_unwind(AssertUnwindSafe(run)).is_err().then(|| "the run panicked: see the message above".to_owned())
}

/// The number in an environment variable.
pub(crate) fn told_to(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

impl<F: Copy + Debug + Send + Sync> Simulator<F> {
    /// Runs `SIM_SEEDS` seeds, beginning with the seed `SIM_FROM` (default: 0). If `SIM_SEED` is set, runs only this
    /// seed, with the planted bug that `SIM_FAULT` names. If `SIM_ALL` is set, continues after the first failure.
    pub(crate) fn no_seed_breaks_a_promise(&self) {
        if let Some(seed) = told_to("SIM_SEED") {
            let fault = std::env::var("SIM_FAULT").ok().map(|name| {
                let of_name = |fault: &&F| format!("{fault:?}") == name;
                *self.faults.iter().find(of_name).expect("the name of a planted bug")
            });
            let Ended { complaint, trace } = (self.play)(seed, fault, true);
            println!("{trace}");
            assert!(complaint.is_none(), "seed {seed}: {}", complaint.unwrap_or_default());
            return;
        }
        let first = told_to("SIM_FROM").unwrap_or(0);
        let last = first + told_to("SIM_SEEDS").unwrap_or(self.seeds);
        let all = told_to("SIM_ALL").is_some();
        let began = Instant::now();
        let next = AtomicU64::new(first);
        let player = || {
            let mut found = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= last {
                    return found;
                }
                if let Some(complaint) = (self.play)(seed, None, false).complaint {
                    found.push((seed, complaint));
                    if !all {
                        next.store(last, Ordering::Relaxed);
                    }
                }
            }
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let mut found = thread::scope(|scope| {
            let players: Vec<_> = (0..threads).map(|_| scope.spawn(player)).collect();
            players.into_iter().flat_map(|player| player.join().expect("a player does not panic")).collect::<Vec<_>>()
        });
        found.sort_unstable();
        for (seed, complaint) in &found {
            println!("seed {seed}: {complaint}");
        }
        if let Some((seed, complaint)) = found.first() {
            let trace = (self.play)(*seed, None, true).trace;
            let lines: Vec<&str> = trace.lines().collect();
            let end = lines[lines.len().saturating_sub(40)..].join("\n");
            let test = format!("{}::no_seed_breaks_a_promise", self.name);
            let again = format!("SIM_SEED={seed} cargo test --test sim -- --exact {test} --nocapture");
            panic!("{end}\n\nseed {seed}: {complaint}\nagain: {again}");
        }
        let seeds = last - first;
        println!("{seeds} seeds, {:.1} a second", seeds as f64 / began.elapsed().as_secs_f64());
    }

    /// Checks that the same seed gives the same run.
    pub(crate) fn the_same_seed_gives_the_same_run(&self) {
        for seed in 0..self.repeated {
            let [one, other] = [0, 1].map(|_| (self.play)(seed, None, true).trace);
            assert!(one.lines().count() > 100, "seed {seed} has a short trace");
            assert_eq!(one, other, "seed {seed}");
        }
    }

    /// Checks that each planted bug is found within [`Self::seeds_of_a_fault`] seeds.
    pub(crate) fn planted_bugs_are_found(&self) {
        let next = AtomicUsize::new(0);
        let search = || {
            let mut unseen = Vec::new();
            while let Some(&fault) = self.faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                let found = (0..self.seeds_of_a_fault)
                    .find_map(|seed| Some((seed, (self.play)(seed, Some(fault), false).complaint?)));
                match found {
                    Some((seed, complaint)) => println!("{fault:?}: seed {seed}: {complaint}"),
                    None => unseen.push(fault),
                }
            }
            unseen
        };
        let unseen: Vec<_> = thread::scope(|scope| {
            let searches: Vec<_> = (0..2).map(|_| scope.spawn(search)).collect();
            searches.into_iter().flat_map(|search| search.join().expect("a search does not panic")).collect()
        });
        assert!(unseen.is_empty(), "these planted bugs were not found: {unseen:?}");
    }
}
