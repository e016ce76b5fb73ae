//! Tests of the cost of bounded discovery, and of which peers know each other. The tests use hubs of one, two and three
//! shards.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod crowd;

use std::collections::BTreeSet;

use crowd::{Crowd, any_id};
use proptest::prelude::*;
use proto::limits::{MAX_ACQUAINTANCES, MAX_CLOSEST, MAX_DECLINED, RANDOM_PICKS};
use proto::{Discovery, PeerId};

/// The ids in `of` that are closest to `to`, found by sorting.
fn closest(of: &[PeerId], to: PeerId, count: usize) -> BTreeSet<PeerId> {
    let mut all: Vec<PeerId> = of.iter().copied().filter(|other| *other != to).collect();
    let xor = |a: &PeerId| -> [u8; 20] { std::array::from_fn(|i| a.as_bytes()[i] ^ to.as_bytes()[i]) };
    all.sort_by_key(xor);
    all.truncate(count);
    all.into_iter().collect()
}

/// Lets `n` peers join, one after another. Checks the cost of each join, and which peers the new peer knows.
fn filled(shards: u16, k: u8, n: u64) -> Crowd {
    let mut crowd = Crowd::new(shards, Discovery::Closest(k), MAX_ACQUAINTANCES);
    let wanted = usize::from(k) + RANDOM_PICKS;
    for i in 0..n {
        let (peer, others) = (any_id(i), crowd.members());
        let events = crowd.joins(peer);
        assert_eq!(events, 2 * wanted.min(others.len()), "{shards} shards, K = {k}, peer number {i}");
        let knows = crowd.knows(peer);
        assert!(knows.is_superset(&closest(&others, peer, k.into())), "{peer:?} does not know its closest members");
    }
    crowd.is_symmetric();
    crowd
}

fn empties(mut crowd: Crowd, k: u8, leave: usize) {
    let mut events = 0;
    let mut degrees = 0;
    for i in 0..leave {
        let members = crowd.members();
        let peer = members[(i * 7919) % members.len()];
        let degree = crowd.knows(peer).len();
        let cost = crowd.leaves(peer);
        assert!(
            (degree..=3 * degree).contains(&cost),
            "the leave of a peer with {degree} acquaintances cost {cost} events"
        );
        events += cost;
        degrees += degree;
    }
    crowd.is_symmetric();
    let members = crowd.members();
    for &peer in &members {
        let wanted = usize::from(k).min(members.len() - 1);
        assert!(crowd.knows(peer).len() >= wanted, "{peer:?} knows {} of {wanted}", crowd.knows(peer).len());
    }
    assert!(events <= 3 * degrees);
}

#[test]
fn a_join_costs_two_events_for_each_pick_and_a_leave_three_for_each_acquaintance() {
    for shards in 1..=3 {
        for k in [1, 8, 16] {
            empties(filled(shards, k, 100), k, 80);
        }
    }
}

#[test]
fn two_thousand_peers_discover_within_the_bounds() {
    for (shards, k) in [(1, 16), (2, 8), (3, 1)] {
        empties(filled(shards, k, 2_000), k, 500);
    }
}

/// An id with the number `n` in its last ten bits. The other 150 bits of each such id are equal.
fn neighbour(n: u32) -> PeerId {
    assert!(n < 1024);
    let mut id = [0xa5; 20];
    id[18] = (0xa5 & 0xfc) | (n >> 8) as u8;
    id[19] = n as u8;
    PeerId::from_bytes(id)
}

#[test]
fn ids_that_share_a_prefix_have_the_same_cost() {
    for shards in 1..=3 {
        let mut crowd = Crowd::new(shards, Discovery::Closest(8), MAX_ACQUAINTANCES);
        for n in 0..700 {
            let others = crowd.members();
            let peer = neighbour(n * 389 % 1024);
            assert_eq!(crowd.joins(peer), 2 * (8 + RANDOM_PICKS).min(others.len()));
            assert!(crowd.knows(peer).is_superset(&closest(&others, peer, 8)));
        }
        empties(crowd, 8, 600);
    }
}

/// Every peer signals the same victim. The id of each peer differs from the victim's id only in the last ten bits.
#[test]
fn a_crowd_around_one_peer_is_declined_with_errors() {
    const MOST: usize = 40;
    for shards in 1..=3 {
        let mut crowd = Crowd::new(shards, Discovery::Closest(16), MOST);
        let victim = neighbour(0);
        crowd.joins(victim);
        let mut refused = 0;
        for n in 1..300 {
            let peer = neighbour(n);
            let events = crowd.joins(peer);
            let most = 2 * (16 + RANDOM_PICKS) + 2 * MAX_DECLINED;
            assert!(events <= 2 * most, "a join cost {events} events");
            crowd.said.clear();
            let cost = crowd.signals(peer, victim);
            assert!(cost <= 4, "a signal cost {cost} events");
            refused += crowd.said.iter().filter(|(_, text)| text.contains("network-full")).count();
            assert!(crowd.knows(victim).len() <= MOST);
        }
        assert!(refused > 200, "{refused} of 299 received network-full");
        crowd.is_symmetric();
        assert!(crowd.members().iter().all(|peer| crowd.knows(*peer).len() <= MOST));
        // When acquaintances of the victim leave, the victim can meet other peers again.
        while crowd.knows(victim).len() == MOST {
            let leaver = *crowd.knows(victim).last().unwrap();
            crowd.leaves(leaver);
        }
        crowd.joins(any_id(1));
        crowd.signals(any_id(1), victim);
        assert!(crowd.knows(victim).contains(&any_id(1)) && crowd.knows(any_id(1)).contains(&victim));
        crowd.is_symmetric();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Acquaintance is mutual and bounded after any sequence of joins, leaves, requests and signals.
    #[test]
    fn acquaintance_is_mutual(
        shards in 1u16..=3,
        k in 1..=MAX_CLOSEST,
        most in 1usize..30,
        deeds in prop::collection::vec((0u8..6, 0u32..60, 0u32..60), 1..200),
    ) {
        let mut crowd = Crowd::new(shards, Discovery::Closest(k), most);
        for (deed, who, whom) in deeds {
            let (peer, other) = (neighbour(who), neighbour(whom));
            let here = crowd.members().contains(&peer);
            match deed {
                0 | 1 if !here => {
                    crowd.joins(peer);
                }
                0 if here => {
                    crowd.leaves(peer);
                }
                _ if !here => {}
                2 => {
                    crowd.says(peer, r#"{"type":"discover","networkName":"n","data":{"limit":7}}"#);
                }
                _ => {
                    crowd.signals(peer, other);
                }
            }
            crowd.said.clear();
        }
        crowd.is_symmetric();
        for peer in crowd.members() {
            prop_assert!(crowd.knows(peer).len() <= most);
        }
    }
}
