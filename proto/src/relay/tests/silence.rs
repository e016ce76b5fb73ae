//! Tests of links that stay open but carry no data, and of routes that lose signals.

use super::*;
use crate::limits::{HOLD, LINK_SILENCE, OUTCOME_PATIENCE, ROUTE_AVOIDED};

const NOTICED: Duration = Duration::from_secs(3);

/// Three hubs, each linked to both other hubs. Hubs 1, 2 and 3 have the peers 11, 12 and 13.
fn triangle() -> Net {
    let mut net = Net::full(3);
    for n in 1..=3 {
        net.joins(n, 10 + n, 0);
    }
    net.pass(HEARTBEAT);
    (1..=3).for_each(|n| drop(net.hears(n)));
    net
}

fn reaches(net: &mut Net, n: u8, from: u8, target: u8) -> bool {
    (1..=3).for_each(|n| drop(net.hears(n)));
    net.signals(n, from, target, 1);
    // After this time, the target's hub has stopped waiting for an earlier signal that was lost.
    net.pass(HOLD + Duration::from_millis(100));
    net.hears(n) == [format!("outcome {target} delivered")]
}

#[test]
fn signals_avoid_a_link_that_drops_them_in_either_direction() {
    for swallows in [&[(1, 2), (2, 1)][..], &[(1, 2)], &[(2, 1)]] {
        let mut net = triangle();
        net.swallows = swallows.to_vec();
        assert!(!reaches(&mut net, 1, 11, 12), "no hub can have noticed the loss yet: {swallows:?}");
        net.pass(NOTICED);
        assert!(reaches(&mut net, 1, 11, 12) && reaches(&mut net, 2, 12, 11), "{swallows:?}");
        // Changes avoid the link, too.
        let now = net.now;
        let snapshots = |net: &mut Net| net.hubs.get_mut(&2).unwrap().stats(now).snapshots[1];
        let before = snapshots(&mut net);
        net.joins(1, 20, 0);
        assert_eq!(net.hears(2), ["elsewhere 20", "joined 20 n"], "{swallows:?}");
        net.pass(3 * LEASE);
        assert_eq!(net.hears(2), [""; 0], "no peer counts as gone: {swallows:?}");
        assert_eq!(snapshots(&mut net), before);
        assert_eq!(net.hubs.get_mut(&1).unwrap().stats(now).links_silent, 1, "{swallows:?}");
        net.swallows.clear();
        net.pass(2 * HEARTBEAT);
        let signals = net.signals;
        assert!(reaches(&mut net, 1, 11, 12));
        assert_eq!(net.signals - signals, 1, "the link is used again: {swallows:?}");
        assert_eq!(net.hubs.get_mut(&1).unwrap().stats(now).links_silent, 0, "{swallows:?}");
        net.nothing_is_left();
    }
}

#[test]
fn a_silent_link_is_used_if_there_is_no_other_route() {
    let mut net = Net::full(2);
    net.joins(1, 11, 0);
    net.joins(2, 12, 0);
    net.swallows = vec![(2, 1)];
    net.pass(LINK_SILENCE + HEARTBEAT);
    net.hears(2);
    net.signals(1, 11, 12, 1);
    assert_eq!(net.hears(2), ["signal 11 12"]);
}

#[test]
fn a_link_that_receives_a_long_message_in_parts_is_not_silent() {
    let mut net = triangle();
    let link = net.hubs[&1].links.used_for(&hub(2)).unwrap();
    net.swallows = vec![(2, 1)];
    for _ in 0..20 {
        net.pass(HEARTBEAT / 2);
        net.input(1, RelayInput::Heard { link });
    }
    assert!(!net.hubs[&1].links.get(link).unwrap().is_silent());
    net.pass(NOTICED);
    assert!(net.hubs[&1].links.get(link).unwrap().is_silent());
}

#[test]
fn links_do_not_count_as_silent_after_a_stop_of_the_hub() {
    let mut net = triangle();
    // All hubs are stopped. Hub 1 continues first.
    let now = Now { at: net.now.at + LEASE / 2, wall_ms: net.now.wall_ms + 4_000 };
    net.now = now;
    let stopped = net.hubs.get_mut(&1).unwrap();
    stopped.handle_timeout(now);
    assert!(stopped.links.iter().all(|(_, link)| !link.is_spare()));
    net.drain(1);
    net.pass(NOTICED);
    assert_eq!(net.hubs[&1].stats.link_silences, 0);
}

#[test]
fn of_two_links_to_one_hub_the_working_link_is_used() {
    let mut net = Net::full(2);
    let first = net.hubs[&1].links.used_for(&hub(2)).unwrap();
    net.link(1, 2);
    let second = net.hubs[&1].links.used_for(&hub(2)).unwrap();
    assert_ne!(first, second);
    let (_, other_end) = net.wires.remove(&(1, second)).unwrap();
    net.wires.remove(&(2, other_end));
    net.pass(NOTICED);
    assert_eq!(net.hubs[&1].links.used_for(&hub(2)).unwrap(), first);
}

#[test]
fn a_working_link_is_preferred_to_one_that_works_in_one_direction() {
    for newest in [false, true] {
        let mut net = Net::full(2);
        let first = net.hubs[&1].links.used_for(&hub(2)).unwrap();
        net.link(1, 2);
        let second = net.hubs[&1].links.used_for(&hub(2)).unwrap();
        // Data that hub 1 sends on the link `deaf` is lost. Data that hub 2 sends on this link still arrives.
        let (deaf, works) = if newest { (second, first) } else { (first, second) };
        let other_end = net.wires.remove(&(1, deaf)).unwrap().1;
        net.pass(NOTICED);
        assert_eq!(net.hubs[&1].links.used_for(&hub(2)).unwrap(), works, "{newest}");
        assert!(net.hubs[&1].links.get(deaf).unwrap().is_spare() && !net.hubs[&1].links.get(works).unwrap().is_spare());
        net.joins(1, 11, 0);
        net.joins(2, 12, 0);
        net.hears(1);
        net.signals(1, 11, 12, 1);
        net.pass(HEARTBEAT);
        assert!(net.hears(1).contains(&"outcome 12 delivered".to_owned()), "{newest}");
        net.wires.insert((1, deaf), (2, other_end));
        net.pass(3 * HEARTBEAT);
        assert!(!net.hubs[&1].links.get(deaf).unwrap().is_spare(), "{newest}");
    }
}

#[test]
fn a_working_link_is_preferred_to_a_silent_one_of_any_incarnation() {
    let mut net = Net::full(2);
    let first = net.hubs[&1].links.used_for(&hub(2)).unwrap();
    let (of_2, _) = net.wires.remove(&(1, first)).map(|(_, link)| (link, ())).unwrap();
    net.wires.remove(&(2, of_2));
    net.pass(NOTICED);
    // The hub has restarted, and its first heartbeat is in flight.
    let (link, incarnation) = (LinkId(99), HubIncarnation(net.hubs[&2].incarnation().0 + 1));
    net.input(1, RelayInput::LinkUp { link, hub: hub(2), incarnation });
    assert_eq!(net.hubs[&1].links.used_for(&hub(2)).unwrap(), link);
    // If the incarnation of the new link belongs to another live hub, that link must not be used.
    let now = net.now.at;
    net.hubs.get_mut(&1).unwrap().hubs.get_mut(&hub(2)).unwrap().note_contest((incarnation, 7), now);
    net.hubs.get_mut(&1).unwrap().choose_link(hub(2));
    assert_eq!(net.hubs[&1].links.used_for(&hub(2)).unwrap(), first);
}

#[test]
fn a_route_on_which_signals_get_no_outcomes_is_replaced() {
    // There are two routes from hub 1 to hub 4. One route leads through hub 2, and the other route leads through hub 3.
    let mut net = Net::new(4);
    for (a, b) in [(1, 2), (1, 3), (2, 4), (3, 4)] {
        net.link(a, b);
    }
    for (n, peer) in [(1, 11), (4, 14), (4, 15)] {
        net.joins(n, peer, 0);
    }
    net.pass(3 * HEARTBEAT);
    net.hears(1);
    net.signals(1, 11, 14, 1);
    net.pass(HEARTBEAT / 2);
    assert_eq!(net.hears(1), ["outcome 14 delivered"]);
    let taken = |net: &Net| net.hubs[&1].hubs[&hub(4)].signal_route.last_hop().unwrap();
    let first = taken(&net);
    let (through, _) = net.wires[&(
        1,
        match first {
            Hop::Link(link) => link,
            Hop::Bridge(_) => panic!(),
        },
    )];
    net.loses_signals = Some(through);
    // Unanswered signals to only one target are no reason to avoid the route, because that target may only read slowly.
    net.signals(1, 11, 14, 2);
    net.pass(OUTCOME_PATIENCE + 2 * HEARTBEAT);
    net.signals(1, 11, 15, 3);
    assert_eq!(taken(&net), first);
    net.signals(1, 11, 14, 4);
    net.pass(OUTCOME_PATIENCE + 2 * HEARTBEAT);
    net.hears(1);
    net.signals(1, 11, 14, 5);
    net.pass(HEARTBEAT);
    assert_ne!(taken(&net), first);
    let heard = net.hears(1);
    assert!(heard.contains(&"outcome 14 delivered".to_owned()), "{heard:?}");
    net.loses_signals = None;
    net.pass(ROUTE_AVOIDED + HEARTBEAT);
    net.signals(1, 11, 14, 6);
    assert_eq!(taken(&net), first, "the route is tried again");
}

/// Hubs 1 and 3 avoid their links to hub 2, because signals over these links got no outcomes.
fn two_avoid_the_third() -> Net {
    let mut net = triangle();
    net.joins(2, 14, 0);
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Signal;
    for (n, from) in [(1, 11), (3, 13)] {
        net.signals(n, from, 12, 0);
        net.signals(n, from, 14, 0);
    }
    net.pass(OUTCOME_PATIENCE + 2 * HEARTBEAT);
    net.loses = |_| false;
    assert!([1, 3].iter().all(|n| net.hubs[n].stats.routes_avoided > 0));
    net
}

#[test]
fn two_hubs_reach_a_third_hub_whose_links_they_avoid() {
    let mut net = two_avoid_the_third();
    (1..=3).for_each(|n| drop(net.hears(n)));
    for (n, from) in [(1, 11), (3, 13), (1, 11)] {
        net.signals(n, from, 14, 1);
        // After this time, hub 2 has stopped waiting for earlier signals that were lost.
        net.pass(HOLD + HEARTBEAT / 5);
        let heard = net.hears(n);
        assert!(heard.contains(&"outcome 14 delivered".to_owned()), "{n}: {heard:?}");
    }
    let now = net.now;
    assert!(net.hubs[&1].avoided(&hub(2), now).is_some(), "answers over another route do not count");
}

#[test]
fn a_takeover_request_uses_a_route_that_signals_avoid() {
    let mut net = two_avoid_the_third();
    net.hears(1);
    net.hears(2);
    net.letter(1, ToMesh::AskTakeover { peer: id(12), shard: ShardId(0), ticket: 7, resume: None, owner: false });
    assert_eq!((net.hears(1), net.hears(2)), (vec![], vec!["challenge 12".to_owned()]));
}

#[test]
fn a_takeover_request_is_sent_although_all_links_to_the_hub_are_silent() {
    let mut net = triangle();
    net.swallows = vec![(2, 1), (2, 3)];
    net.pass(NOTICED);
    let used = |n: &u8| net.hubs[n].links.used_for(&hub(2)).and_then(|link| net.hubs[n].links.get(link));
    assert!([1, 3].iter().all(|n| used(n).unwrap().is_silent()));
    net.hears(2);
    net.letter(1, ToMesh::AskTakeover { peer: id(12), shard: ShardId(0), ticket: 7, resume: None, owner: false });
    assert_eq!((net.hears(1), net.hears(2)), (vec![], vec!["challenge 12".to_owned()]));
}

#[test]
fn a_route_is_used_again_when_its_signals_get_outcomes_after_all() {
    let mut net = triangle();
    net.joins(2, 14, 0);
    net.stopped = Some(2);
    for (n, from) in [(1, 11), (3, 13)] {
        net.signals(n, from, 12, 0);
        net.signals(n, from, 14, 0);
    }
    net.pass(NOTICED + HEARTBEAT / 2);
    let now = net.now;
    assert!([1, 3].iter().all(|n| net.hubs[n].avoided(&hub(2), now).is_some()));
    net.stopped = None;
    let waits = std::mem::take(&mut net.waits);
    net.under_way.extend(waits);
    net.run();
    net.pass(2 * HEARTBEAT);
    let signals = net.signals;
    assert!(reaches(&mut net, 1, 11, 12) && reaches(&mut net, 3, 13, 14));
    assert_eq!(net.signals - signals, 2, "both signals use the direct link");
    net.nothing_is_left();
}
