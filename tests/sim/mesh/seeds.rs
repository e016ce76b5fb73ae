//! Many runs, each from its seed.

use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::saboteur::Fault;
use super::world::World;

/// Runs a seed. SIM_SECONDS shortens the run, to find out how early it fails.
fn play(seed: u64, fault: Option<Fault>, traced: bool) -> (Option<String>, String) {
    let mut world = World::new(seed, fault, traced);
    let length = told_to("SIM_SECONDS").map(Duration::from_secs);
    let ended = catch_unwind(AssertUnwindSafe(|| world.run(length)));
    let panicked = ended.is_err().then(|| "a panic: see above".to_owned());
    (panicked.or_else(|| world.complaints.into_iter().next()), world.trace.unwrap_or_default())
}

fn told_to(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Runs the seeds from 0 to `SIM_SEEDS`, or from `SIM_FROM`, or the one of `SIM_SEED`, with the planted bug
/// that `SIM_FAULT` names. With `SIM_ALL` it goes on after the first that fails.
#[test]
fn no_seed_breaks_a_promise() {
    if let Some(seed) = told_to("SIM_SEED") {
        let fault = std::env::var("SIM_FAULT").ok().map(|name| {
            let of_name = |fault: &Fault| format!("{fault:?}") == name;
            Fault::ALL.into_iter().find(of_name).expect("the name of a planted bug")
        });
        let (complaint, trace) = play(seed, fault, true);
        println!("{trace}");
        assert!(complaint.is_none(), "seed {seed}: {}", complaint.unwrap_or_default());
        return;
    }
    let first = told_to("SIM_FROM").unwrap_or(0);
    let last = first + told_to("SIM_SEEDS").unwrap_or(400);
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
            if let (Some(complaint), _) = play(seed, None, false) {
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
        let (_, trace) = play(*seed, None, true);
        let lines: Vec<&str> = trace.lines().collect();
        let end = lines[lines.len().saturating_sub(40)..].join("\n");
        let again = format!("SIM_SEED={seed} cargo test --test sim mesh::seeds::no_seed -- --nocapture");
        panic!("{end}\n\nseed {seed}: {complaint}\nagain: {again}");
    }
    let seeds = last - first;
    println!("{seeds} seeds, {:.1} a second", seeds as f64 / began.elapsed().as_secs_f64());
}

/// The same seed gives the same run.
#[test]
fn the_same_seed_is_the_same_day() {
    for seed in 0..8 {
        let ((_, one), (_, other)) = (play(seed, None, true), play(seed, None, true));
        assert!(one.lines().count() > 100, "seed {seed} has an empty day");
        assert_eq!(one, other, "seed {seed}");
    }
}

/// Each planted bug is found, and soon.
#[test]
fn planted_bugs_are_found() {
    let most = told_to("SIM_SEEDS").unwrap_or(300);
    let next = AtomicUsize::new(0);
    let search = || {
        let mut unseen = Vec::new();
        while let Some(&fault) = Fault::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            match (0..most).find_map(|seed| Some((seed, play(seed, Some(fault), false).0?))) {
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
    assert!(unseen.is_empty(), "{unseen:?} go unseen");
}
