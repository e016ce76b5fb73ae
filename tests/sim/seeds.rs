//! Many runs, each from its seed.

use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::saboteur::Fault;
use crate::world::World;

/// The complaint in the run of this seed, if there is one.
fn complaint(seed: u64, fault: Option<Fault>) -> Option<String> {
    let day = || {
        let mut world = World::new(seed, fault, false);
        world.run();
        world.oracle.complaints.into_iter().next()
    };
    catch_unwind(AssertUnwindSafe(day)).unwrap_or_else(|_| Some("a panic: see above".to_owned()))
}

fn trace(seed: u64) -> String {
    let mut world = World::new(seed, None, true);
    _ = catch_unwind(AssertUnwindSafe(|| world.run()));
    world.trace.unwrap_or_default()
}

fn told_to(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Runs the seeds from 0 to `SIM_SEEDS`, or the one of `SIM_SEED`.
#[test]
fn no_seed_breaks_a_promise() {
    if let Some(seed) = told_to("SIM_SEED") {
        println!("{}", trace(seed));
        let complaint = complaint(seed, None);
        assert!(complaint.is_none(), "seed {seed}: {}", complaint.unwrap_or_default());
        return;
    }
    let seeds = told_to("SIM_SEEDS").unwrap_or(5_000);
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let play = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return None;
            }
            if let Some(complaint) = complaint(seed, None) {
                next.store(seeds, Ordering::Relaxed);
                return Some((seed, complaint));
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let found = thread::scope(|scope| {
        let players: Vec<_> = (0..threads).map(|_| scope.spawn(play)).collect();
        players.into_iter().filter_map(|player| player.join().expect("a player does not panic")).min()
    });
    if let Some((seed, complaint)) = found {
        let trace = trace(seed);
        let lines: Vec<&str> = trace.lines().collect();
        let last = lines[lines.len().saturating_sub(40)..].join("\n");
        panic!("{last}\n\nseed {seed}: {complaint}\nagain: SIM_SEED={seed} cargo test --test sim seed -- --nocapture");
    }
    println!("{seeds} seeds, {:.0} a second", seeds as f64 / began.elapsed().as_secs_f64());
}

/// The same seed gives the same run.
#[test]
fn the_same_seed_is_the_same_day() {
    for seed in 0..30 {
        let (one, other) = (trace(seed), trace(seed));
        assert!(one.lines().count() > 100, "seed {seed} has an empty day");
        assert_eq!(one, other, "seed {seed}");
    }
}

/// Each planted bug is found, and soon.
#[test]
fn planted_bugs_are_found() {
    for fault in Fault::ALL {
        let found = (0..200).find_map(|seed| Some((seed, complaint(seed, Some(fault))?)));
        let Some((seed, complaint)) = found else { panic!("{fault:?} goes unseen") };
        println!("{fault:?}: seed {seed}: {complaint}");
    }
}
