//! Runs the simulator of one hub with many seeds.

use crate::runs::{Ended, Simulator, panics};
use crate::saboteur::Fault;
use crate::world::World;

const ONE_HUB: Simulator<Fault> =
    Simulator { play, faults: &Fault::ALL, seeds: 5_000, seeds_of_a_fault: 200, repeated: 30, name: "seeds" };

fn play(seed: u64, fault: Option<Fault>, traced: bool) -> Ended {
    let mut world = World::new(seed, fault, traced);
    let panicked = panics(|| world.run());
    let complaint = panicked.or_else(|| world.oracle.complaints.into_iter().next());
    Ended { complaint, trace: world.trace.unwrap_or_default() }
}

#[test]
fn no_seed_breaks_a_promise() {
    ONE_HUB.no_seed_breaks_a_promise();
}

#[test]
fn the_same_seed_gives_the_same_run() {
    ONE_HUB.the_same_seed_gives_the_same_run();
}

#[test]
fn planted_bugs_are_found() {
    ONE_HUB.planted_bugs_are_found();
}
