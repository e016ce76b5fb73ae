//! Tests of the picks of a new member: which members it meets, and how many.

use std::collections::BTreeSet;

use super::*;
use crate::router::circle::Bond;

/// Peer 100 and these others in network `n`, all unbounded.
fn crowd(others: impl IntoIterator<Item = u8>) -> Day {
    let mut day = Day::new(8);
    for n in others {
        day.opens(session(n.into(), 0), n);
        day.says(session(n.into(), 0), ANNOUNCE);
    }
    day.opens(session(100, 0), 100);
    day.says(session(100, 0), ANNOUNCE);
    day
}

/// The close and the random picks of peer 100.
fn picks(day: &mut Day, closest: usize, random: usize) -> (Vec<u8>, Vec<u8>) {
    let ix = day.router.rosters.find("n").unwrap();
    let picks = day.router.pick(session(100, 0), ix, closest, random);
    let of = |bond| {
        let peers = picks.iter().filter(|(_, of)| *of == bond).map(|(peer, _)| peer.as_bytes()[0]);
        peers.collect::<Vec<u8>>()
    };
    (of(Bond::Close), of(Bond::Random))
}

#[test]
fn picks_are_the_closest_members_and_random_others_each_once() {
    let mut day = crowd((0..40).map(|n| 3 * n + 1).filter(|n| *n != 100));
    for (closest, random) in [(3, 4), (0, 4), (3, 0), (5, 20), (1, 1), (0, 0)] {
        let (close, drawn) = picks(&mut day, closest, random);
        assert_eq!((close.len(), drawn.len()), (closest, random));
        let mut nearest: Vec<u8> = (0..40).map(|n| 3 * n + 1).filter(|n| *n != 100).collect();
        nearest.sort_by_key(|n| n ^ 100);
        assert_eq!(close, nearest[..closest], "the closest ones by the exclusive or");
        let all: BTreeSet<u8> = close.iter().chain(&drawn).copied().collect();
        assert!(all.len() == closest + random && !all.contains(&100), "{close:?} and {drawn:?}");
    }
}

#[test]
fn all_members_of_a_small_network_are_found() {
    for others in 1..=6 {
        let mut day = crowd(1..=others);
        let all: BTreeSet<u8> = (1..=others).collect();
        for (closest, random) in [(0, 6), (2, 6), (0, usize::from(others))] {
            let (close, drawn) = picks(&mut day, closest, random);
            assert_eq!(close.len(), closest.min(others.into()));
            assert_eq!(close.into_iter().chain(drawn).collect::<BTreeSet<_>>(), all, "{others}, {closest}, {random}");
        }
    }
    assert_eq!(picks(&mut crowd([]), 3, 3), (vec![], vec![]), "it is alone");
}

#[test]
fn random_picks_differ_from_time_to_time() {
    let mut day = crowd(1..=60);
    let drawn: Vec<u8> = (0..40).flat_map(|_| picks(&mut day, 0, 1).1).collect();
    let different = drawn.iter().collect::<BTreeSet<_>>().len();
    assert!(drawn.len() == 40 && different > 15, "{drawn:?}");
}

#[test]
fn picks_leave_room_for_the_maximum_of_acquaintances() {
    let mut day = crowd(1..=60);
    day.router.config.tuning.max_acquaintances = 5;
    for (closest, random, expected) in [(3, 4, (3, 2)), (9, 4, (5, 0)), (0, 9, (0, 5)), (5, 0, (5, 0))] {
        let (close, drawn) = picks(&mut day, closest, random);
        assert_eq!((close.len(), drawn.len()), expected);
    }
}

#[test]
fn members_behind_legacy_links_are_not_picked() {
    let mut day = crowd([1, 2]);
    day.router.config.meshed = true;
    day.hears(joined(101, at_hub(9, 0), Stay { number: 1, discovery: Discovery::All }));
    day.hears(joined(102, at_hub(9, 10), Stay { number: 1, discovery: Discovery::All }));
    let (close, drawn) = picks(&mut day, 2, 5);
    assert_eq!((close, drawn), (vec![102, 1], vec![2]));
}
