//! Tests of one network, with draws of random members, chunks of its roster, and its audit.

use std::collections::BTreeSet;

use super::*;
use crate::router::network::{Member, Network, Rank};

/// A network with these members. The two flags of a member say whether it is bounded, and whether it is connected to
/// this hub.
fn network(members: &[(u8, bool, bool)]) -> Network {
    let mut network = Network::new(NetworkName::new("n"));
    for &(n, bounded, here) in members {
        network.enter(peer(n), member(n, bounded, here));
    }
    network
}

fn member(n: u8, bounded: bool, here: bool) -> Member {
    let discovery = if bounded { Discovery::Closest(8) } else { Discovery::All };
    let ToShard::Joined(announcement) = joined(n, at_hub(9, 1), Stay { number: 1, discovery }) else { panic!() };
    Member::new(if here { Address::Shard(ShardId(0)) } else { Address::Mesh }, announcement)
}

const ALL: u64 = u64::MAX;

#[test]
fn draws_select_all_members_evenly_whatever_the_random_number() {
    let mut network = network(&(1..=8).map(|n| (n, false, true)).collect::<Vec<_>>());
    assert_eq!(network.draw(0), None, "the draws are not prepared");
    assert_eq!(network.draw_in_turn(0).count(), 0);
    network.make_lots();
    let drawn: Vec<_> = (0..8).map(|eighth| network.draw(ALL / 8 * eighth + 100)).collect();
    assert_eq!(drawn, (1..=8).map(|n| Some(peer(n))).collect::<Vec<_>>());
    assert_eq!((network.draw(0), network.draw(ALL)), (Some(peer(1)), Some(peer(8))));
    for (random, first) in [(0, 1), (ALL / 2 + 1, 5), (ALL, 8)] {
        let turn: Vec<PeerId> = network.draw_in_turn(random).collect();
        assert_eq!((turn[0], turn.len()), (peer(first), 8));
        assert_eq!(turn.into_iter().collect::<BTreeSet<_>>().len(), 8, "each member is returned once");
    }
}

#[test]
fn draws_select_only_the_current_members() {
    let mut network = network(&[(1, false, true), (2, false, true), (3, false, true)]);
    network.make_lots();
    network.strike(&peer(1));
    network.enter(peer(4), member(4, false, true));
    network.enter(peer(2), member(2, true, true));
    network.make_lots();
    let drawn: BTreeSet<PeerId> = network.draw_in_turn(0).collect();
    assert_eq!(drawn, BTreeSet::from([2, 3, 4].map(peer)));
    assert_eq!(network.audit(), Ok(()));
}

#[test]
fn bounded_members_are_counted_after_each_change_of_their_mode() {
    let mut network = network(&[(1, false, true)]);
    assert!(!network.has_bounded() && network.unbounded() == 1);
    for (bounded, unbounded) in [(true, 0), (true, 0), (false, 1), (true, 0)] {
        assert!(!network.enter(peer(1), member(1, bounded, true)), "the peer is a member already");
        assert_eq!((network.has_bounded(), network.unbounded()), (bounded, unbounded));
    }
    network.enter(peer(2), member(2, false, true));
    network.strike(&peer(1));
    assert!(!network.has_bounded() && network.unbounded() == 1);
    assert_eq!(network.audit(), Ok(()));
}

#[test]
fn a_roster_is_read_in_chunks_first_this_hubs_members_then_others() {
    let network = network(&[(1, false, false), (2, false, true), (3, false, false), (4, false, true)]);
    let last = network.last_rank();
    assert_eq!(last, Some(Rank::of(peer(4), Address::Mesh)), "no member can have a greater rank");
    for chunk in 1..=9 {
        let (mut read, mut after, mut chunks) = (Vec::new(), None, 0);
        loop {
            let mut steps = 0;
            after = network.read(after, chunk, |rank, _| {
                read.push(rank.peer());
                steps += 1;
            });
            chunks += 1;
            assert!(steps <= chunk, "{chunk}");
            if after.is_none() {
                break;
            }
        }
        assert_eq!(read, [2, 4, 1, 3].map(peer), "{chunk}");
        assert_eq!(chunks, 8_usize.div_ceil(chunk), "both passes examine four members: {chunk}");
    }
}

#[test]
fn members_of_a_network_are_listed_in_order_with_their_hubs() {
    let mut day = Day::new(8);
    day.router.config.meshed = true;
    for n in [3, 1] {
        day.opens(session(n.into(), 0), n);
        day.says(session(n.into(), 0), ANNOUNCE);
    }
    day.hears(joined(2, at_hub(9, 10), Stay { number: 1, discovery: Discovery::All }));
    let listed = |n, hub, since_ms| ListedMember { peer: peer(n), hub, since_ms };
    // Peer 3 joined first.
    let all = [listed(1, None, WALL_MS + 1), listed(2, Some(HubId(peer(9))), 1), listed(3, None, WALL_MS)];
    assert_eq!(day.router.members_of("n", 10), (all.to_vec(), 3));
    assert_eq!(day.router.members_of("n", 2), (all[..2].to_vec(), 3), "the number counts all members");
    assert_eq!(day.router.members_of("m", 2), (vec![], 0));
}

#[test]
fn networks_are_listed_in_parts_until_the_last_slot() {
    let mut day = Day::new(8);
    day.opens(session(0, 0), 1);
    for name in ["a", "b", "c"] {
        day.says(session(0, 0), &format!(r#"{{"type":"announce","networkName":"{name}"}}"#));
    }
    day.says(session(0, 0), r#"{"type":"goodbye","networkName":"b"}"#);
    let part = |slots| {
        let names = day.router.networks_in(slots)?.map(|(name, members)| (name.as_str().to_owned(), members));
        Some(names.collect::<Vec<_>>())
    };
    let (a, c) = (("a".to_owned(), 1), ("c".to_owned(), 1));
    assert_eq!([part(0..2), part(1..2)], [Some(vec![a]), Some(vec![])]);
    assert_eq!([part(2..4), part(3..5), part(9..10)], [Some(vec![c]), None, None]);
}
