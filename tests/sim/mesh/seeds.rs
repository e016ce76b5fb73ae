//! Runs the simulator of a mesh with many seeds.

use std::time::Duration;

use super::saboteur::Fault;
use super::world::World;
use crate::runs::{Ended, Simulator, panics, told_to};

const MESH: Simulator<Fault> =
    Simulator { play, faults: &Fault::ALL, seeds: 400, seeds_of_a_fault: 300, repeated: 8, name: "mesh::seeds" };

/// Runs a seed. SIM_SECONDS shortens the run, which helps to find the time at which the run goes wrong.
fn play(seed: u64, fault: Option<Fault>, traced: bool) -> Ended {
    let mut world = World::new(seed, fault, traced);
    let length = told_to("SIM_SECONDS").map(Duration::from_secs);
    let panicked = panics(|| world.run(length));
    Ended {
        complaint: panicked.or_else(|| world.complaints.into_iter().next()),
        trace: world.trace.unwrap_or_default(),
    }
}

#[test]
fn no_seed_breaks_a_promise() {
    MESH.no_seed_breaks_a_promise();
}

#[test]
fn the_same_seed_gives_the_same_run() {
    MESH.the_same_seed_gives_the_same_run();
}

#[test]
fn planted_bugs_are_found() {
    MESH.planted_bugs_are_found();
}
