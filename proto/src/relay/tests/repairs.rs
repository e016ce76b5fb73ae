//! Tests of a repair. These tests check when a snapshot is requested, and from which neighbour.

use super::*;
use crate::relay::repair::{Repair, Wait};

const NOW: Duration = Duration::from_secs(100);
const A: Hop = Hop::Link(LinkId(1));
const B: Hop = Hop::Link(LinkId(2));

fn asks(repair: &mut Repair) -> Option<Hop> {
    repair.ask([A, B].into_iter(), NOW)
}

#[test]
fn a_replica_that_has_caught_up_needs_no_snapshot() {
    let mut repair = Repair::default();
    repair.note_behind(NOW);
    assert!(repair.due().is_some() && repair.behind_since() == Some(NOW));
    repair.note_caught_up();
    assert_eq!((repair.due(), repair.behind_since()), (None, None));
}

#[test]
fn a_cancelled_request_is_not_sent() {
    let mut repair = Repair::default();
    repair.note_far_behind(NOW);
    assert!(repair.is_asking(NOW));
    repair.do_not_ask();
    assert!(!repair.is_asking(NOW) && repair.due().is_none());
}

#[test]
fn a_neighbour_whose_snapshot_was_stale_is_not_asked_next() {
    let mut repair = Repair::default();
    repair.note_stale(A);
    assert_eq!(asks(&mut repair), Some(B));
    let mut repair = Repair::default();
    assert_eq!(asks(&mut repair), Some(A));
}

#[test]
fn a_new_incarnation_forgets_snapshots_of_the_previous_one() {
    let mut repair = Repair::default();
    assert!(!repair.is_vain());
    repair.note_stale(A);
    repair.note_vain(NOW);
    assert!(repair.is_vain());
    repair.begin_incarnation();
    assert!(!repair.is_vain());
    assert_eq!(asks(&mut repair), Some(A));
}

#[test]
fn a_repair_that_ends_returns_the_neighbours_that_wait_for_it() {
    let mut repair = Repair::default();
    repair.note_behind(NOW);
    asks(&mut repair);
    assert!(matches!(repair.wait(B, false), Wait::Waits));
    let abandoned = repair.end();
    assert_eq!(abandoned.waiters, [B]);
    assert!(!repair.is_under_way() && repair.waiters() == 0 && repair.behind_since().is_none());
}
