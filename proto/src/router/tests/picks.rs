//! Tests that a new member meets the right members, and the right number of them.

use std::collections::BTreeSet;

use super::*;
use crate::router::circle::Bond;

/// A router with peer 100 and these other peers in network `n`, all unbounded.
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
fn picks_are_the_closest_members_and_random_members_without_repetition() {
    let mut day = crowd((0..40).map(|n| 3 * n + 1).filter(|n| *n != 100));
    for (closest, random) in [(3, 4), (0, 4), (3, 0), (5, 20), (1, 1), (0, 0)] {
        let (close, drawn) = picks(&mut day, closest, random);
        assert_eq!((close.len(), drawn.len()), (closest, random));
        let mut nearest: Vec<u8> = (0..40).map(|n| 3 * n + 1).filter(|n| *n != 100).collect();
        nearest.sort_by_key(|n| n ^ 100);
        assert_eq!(close, nearest[..closest], "the close picks are the closest members");
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
    assert_eq!(picks(&mut crowd([]), 3, 3), (vec![], vec![]), "the peer is the only member");
}

#[test]
fn repeated_random_picks_differ() {
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

#[test]
fn random_picks_find_the_few_members_that_a_peer_does_not_know() {
    let mut day = crowd(1..=90);
    let ix = day.router.rosters.find("n").unwrap();
    let unknown = [7, 38, 90];
    for n in (1..=90).filter(|n| !unknown.contains(n)) {
        day.router.meet(session(100, 0), ix, peer(n), Bond::Met);
    }
    for wanted in 1..=3 {
        let (close, drawn) = picks(&mut day, 0, wanted);
        let found: BTreeSet<u8> = drawn.iter().copied().collect();
        assert!(close.is_empty() && drawn.len() == wanted && found.len() == wanted, "{drawn:?}");
        assert!(found.iter().all(|n| unknown.contains(n)), "{found:?}");
    }
}

/// A member of network `n` that is connected to another shard of this hub.
fn at_another_shard(n: u8) -> ToShard {
    let claim = Claim { incarnation: PeerIncarnation(5), hub: HubId(peer(0)) };
    let stay = Stay { number: 1, discovery: Discovery::Closest(8) };
    let ToShard::Joined(announcement) = joined(n, claim, stay) else { panic!() };
    ToShard::Joined(Arc::new(Announcement { remote: false, ..Announcement::clone(&announcement) }))
}

/// The letters about meetings that a peer of shard 0 causes when it joins. Returns the receiver, the other peers, and
/// the kind of each letter.
fn meetings_of_a_join(day: &mut Day, n: u8) -> Vec<(String, Vec<u8>, MeetingKind)> {
    day.opens(session(0, 0), n);
    let input = Input::Message { session: session(0, 0), text: ANNOUNCE };
    day.router.handle_input(input, Now { at: day.now, wall_ms: WALL_MS });
    let mut found = Vec::new();
    while let Some(output) = day.router.poll_output() {
        let (to, meeting) = if let Output::ToShard { to, letter: ToShard::Meeting(meeting) } = output {
            (format!("shard {}", to.0), meeting)
        } else if let Output::ToMesh(ToMesh::Meeting { hub, meeting }) = output {
            (format!("hub {}", hub.0.as_bytes()[0]), meeting)
        } else {
            continue;
        };
        let mut others: Vec<u8> = meeting.others.iter().map(|(other, _)| other.as_bytes()[0]).collect();
        others.sort_unstable();
        assert_eq!((meeting.about, meeting.to), (peer(n), MeetingEnd::Others));
        found.push((to, others, meeting.kind));
    }
    found.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    found
}

#[test]
fn a_new_member_is_introduced_by_one_letter_to_all_shards_and_one_to_each_hub_of_its_picks() {
    let (mut day, at) = Day::meshed(0);
    day.router.config.discovery = Discovery::Closest(8);
    let mut on_shards = vec![at(1, 30), at(2, 40)];
    for n in &on_shards {
        day.hears(at_another_shard(*n));
    }
    for (n, hub) in [(201, 8), (202, 9), (203, 9)] {
        day.hears(joined(n, at_hub(hub, 10), Stay { number: 1, discovery: Discovery::Closest(8) }));
    }
    on_shards.sort_unstable();
    let mut expected =
        vec![("hub 8".to_owned(), vec![201], MeetingKind::Met), ("hub 9".to_owned(), vec![202, 203], MeetingKind::Met)];
    expected.extend((1..4).map(|shard| (format!("shard {shard}"), on_shards.clone(), MeetingKind::Joined)));
    assert_eq!(meetings_of_a_join(&mut day, at(0, 20)), expected);
    // A shard without a pick of the new member also gets a letter, because members on that shard may pick the new
    // member.
    let (mut day, at) = Day::meshed(0);
    day.router.config.discovery = Discovery::Closest(8);
    let nobody: Vec<_> = (1..4).map(|shard| (format!("shard {shard}"), vec![], MeetingKind::Joined)).collect();
    assert_eq!(meetings_of_a_join(&mut day, at(0, 20)), nobody);
}
