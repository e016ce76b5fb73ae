//! Tests of the presence of hubs and peers.

use super::*;

#[test]
fn the_join_and_leave_of_a_peer_reach_every_hub_of_a_chain() {
    let mut net = Net::chain(4);
    net.joins(1, 7, 0);
    assert_eq!(net.hears(4), ["elsewhere 7", "joined 7 n"]);
    net.leaves(1, 7, 0);
    assert_eq!(net.hears(4), ["left 7 n peer-disconnected", "nowhere 7"]);
    net.pass(HEARTBEAT * 3);
    net.nothing_is_left();
}

#[test]
fn a_hub_that_starts_later_learns_the_existing_peers() {
    let mut net = Net::chain(2);
    for peer in 10..200 {
        net.joins(1, peer, 0);
    }
    net.start(3);
    net.link(2, 3);
    net.pass(HEARTBEAT * 2);
    assert_eq!(net.hears(3).iter().filter(|line| line.starts_with("joined")).count(), 190);
    net.nothing_is_left();
}

#[test]
fn in_a_full_mesh_one_change_is_one_envelope_for_each_other_hub() {
    for hubs in [3, 5] {
        let mut net = Net::full(hubs);
        let before = net.changes;
        net.opens(1, 7, 0);
        assert_eq!(net.changes - before, usize::from(hubs) - 1, "{hubs} hubs");
    }
}

#[test]
fn peers_of_a_dead_hub_leave_once_and_the_hub_can_return() {
    let mut net = Net::full(3);
    net.joins(1, 7, 0);
    net.joins(2, 8, 0);
    net.pass(HEARTBEAT);
    net.kill(1);
    net.hears(2);
    net.hears(3);
    net.signals(2, 8, 7, 0);
    assert_eq!(net.hears(2), ["outcome 7 unreachable"]);
    net.pass(GONE);
    assert_eq!(net.hears(2), ["left 7 n peer-disconnected", "nowhere 7"]);
    assert_eq!(net.hears(3), ["left 7 n peer-disconnected", "nowhere 7"]);
    net.start(1);
    net.link(1, 2);
    net.link(1, 3);
    net.joins(1, 7, 1);
    assert_eq!(net.hears(2), ["elsewhere 7", "joined 7 n"]);
    net.pass(HEARTBEAT * 2);
    net.nothing_is_left();
}

#[test]
fn an_id_that_is_live_on_two_hubs_stays_with_the_later_session() {
    let mut net = Net::new(2);
    net.joins(1, 7, 5);
    net.joins(2, 7, 9);
    net.hears(1);
    net.hears(2);
    net.link(1, 2);
    net.pass(HEARTBEAT);
    let heard = net.hears(1);
    assert!(heard.contains(&"elsewhere 7".to_owned()) && heard.contains(&"joined 7 n".to_owned()), "{heard:?}");
    assert_eq!(net.hears(2), [""; 0], "members at hub 2 do not learn of the earlier session");
    net.leaves(1, 7, 5);
    assert_eq!(net.hubs[&1].locate(&id(7)), Some(hub(2)));
    assert_eq!(net.hears(2), [""; 0]);
}

#[test]
fn a_lost_change_is_repaired_without_a_repeated_event() {
    let mut net = Net::full(2);
    net.joins(1, 7, 0);
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Change;
    net.joins(1, 8, 0);
    net.leaves(1, 7, 0);
    net.loses = |_| false;
    net.joins(1, 9, 0);
    assert_eq!(net.hears(2), ["elsewhere 7", "joined 7 n"]);
    net.pass(HEARTBEAT * 2);
    let mut heard = net.hears(2);
    heard.sort();
    let told = ["elsewhere 8", "elsewhere 9", "joined 8 n", "joined 9 n", "left 7 n peer-disconnected", "nowhere 7"];
    assert_eq!(heard, told);
    let now = net.now;
    assert_eq!(net.hubs.get_mut(&2).unwrap().stats(now).snapshots, [0, 1]);
    net.nothing_is_left();
}

#[test]
fn a_peer_that_returned_unnoticed_is_known_in_its_new_stay() {
    let mut net = Net::full(2);
    net.opens(1, 7, 0);
    net.announces(1, 7, 0, Stay { number: 1, discovery: Discovery::Closest(8) });
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Change;
    net.says_goodbye(1, 7, 0);
    net.announces(1, 7, 0, Stay { number: 2, discovery: Discovery::Closest(8) });
    net.loses = |_| false;
    net.hears(2);
    net.pass(HEARTBEAT * 2);
    assert_eq!(net.hears(2), ["joined 7 n"], "the peer is announced again, because it has a new stay");
    net.says_goodbye(1, 7, 0);
    net.pass(HEARTBEAT * 4);
    let now = net.now;
    assert_eq!(net.hubs.get_mut(&2).unwrap().stats(now).snapshots, [0, 1], "the repair is complete");
    net.nothing_is_left();
}

#[test]
fn signals_over_a_full_link_fail_immediately_and_presence_is_repaired_later() {
    let mut net = Net::full(2);
    net.joins(2, 8, 0);
    let link = net.hubs[&1].links.used_for(&hub(2)).unwrap();
    net.input(1, RelayInput::Saturated { transport: Transport::Link(link) });
    net.hears(1);
    net.joins(1, 7, 0);
    net.signals(1, 7, 8, 3);
    assert_eq!(net.hears(1), ["outcome 8 unreachable"]);
    assert_eq!(net.hears(2), [""; 0]);
    net.input(1, RelayInput::Room { transport: Transport::Link(link) });
    net.pass(HEARTBEAT * 2);
    assert_eq!(net.hears(2), ["elsewhere 7", "joined 7 n"]);
    net.nothing_is_left();
}

#[test]
fn hubs_on_a_bridge_and_linked_hubs_are_one_mesh() {
    let mut net = Net::new(4);
    // Hubs 1 and 2 are linked, hubs 2 and 3 are on the bridge, and hubs 3 and 4 are linked.
    net.link(1, 2);
    net.link(3, 4);
    for n in [2, 3] {
        net.bridged.push(n);
        net.input(n, RelayInput::BridgeUp);
        net.run();
    }
    net.pass(HEARTBEAT * 3);
    net.joins(1, 7, 0);
    net.joins(4, 8, 0);
    net.pass(HEARTBEAT * 3);
    assert_eq!(net.hears(4), ["elsewhere 7", "joined 7 n"]);
    net.hears(1);
    net.signals(1, 7, 8, 1);
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(4), ["signal 7 8"]);
    assert_eq!(net.hears(1), ["outcome 8 delivered"]);
    net.bridged.clear();
    for n in [2, 3] {
        net.input(n, RelayInput::BridgeDown);
    }
    net.pass(GONE);
    assert_eq!(net.hears(4), ["left 7 n peer-disconnected", "nowhere 7"]);
    for n in [2, 3] {
        net.bridged.push(n);
        net.input(n, RelayInput::BridgeUp);
    }
    net.pass(HEARTBEAT * 3);
    assert_eq!(net.hears(4), ["elsewhere 7", "joined 7 n"]);
    net.nothing_is_left();
}

#[test]
fn a_hub_whose_clock_went_back_is_accepted_when_it_returns() {
    let mut net = Net::full(2);
    net.joins(1, 7, 0);
    net.kill(1);
    net.hears(2);
    net.now.wall_ms -= 3_600_000;
    net.start(1);
    net.link(1, 2);
    net.joins(1, 9, 0);
    net.pass(HEARTBEAT * 3);
    let heard = net.hears(2);
    assert!(heard.contains(&"left 7 n peer-disconnected".to_owned()), "{heard:?}");
    assert!(heard.ends_with(&["elsewhere 9".to_owned(), "joined 9 n".to_owned()]), "{heard:?}");
    net.nothing_is_left();
}

#[test]
fn a_goodbye_is_received_as_a_goodbye() {
    let mut net = Net::chain(3);
    net.joins(1, 7, 0);
    net.joins(3, 9, 0);
    net.hears(1);
    net.hears(3);
    net.says_goodbye(1, 7, 0);
    assert_eq!(net.hears(3), ["left 7 n goodbye"]);
    net.signals(3, 9, 7, 0);
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(1), ["signal 9 7"], "the peer is still connected after its goodbye");
}

#[test]
fn the_peers_of_a_stopping_hub_leave_immediately() {
    let mut net = Net::full(3);
    net.joins(1, 7, 0);
    net.hears(2);
    net.input(1, RelayInput::Draining(true));
    net.run();
    let now = net.now;
    assert!(net.hubs[&2].hubs(now)[0].draining);
    net.input(1, RelayInput::Draining(false));
    net.run();
    assert!(!net.hubs[&2].hubs(now)[0].draining);
    net.input(1, RelayInput::Draining(true));
    net.run();
    assert!(net.hubs[&2].hubs(now)[0].draining);
    net.input(1, RelayInput::Ending);
    net.run();
    assert_eq!(net.hears(2), ["left 7 n peer-disconnected", "nowhere 7"]);
}

#[test]
fn frequent_heartbeats_do_not_delay_the_expiry_of_leases() {
    let mut net = Net::full(2);
    let link = net.hubs[&1].links.used_for(&hub(2)).unwrap();
    net.hubs.remove(&2);
    let killed = net.now.at;
    // Hub 1's link to hub 2 alternates between full and free, and hub 1 sends a heartbeat each time.
    while net.hubs[&1].hubs[&hub(2)].is_live() {
        net.input(1, RelayInput::Saturated { transport: Transport::Link(link) });
        net.input(1, RelayInput::Room { transport: Transport::Link(link) });
        net.pass(HEARTBEAT / 2);
        assert!(
            net.now.at <= killed + LEASE + HEARTBEAT / 2,
            "hub 1 must not take the extra heartbeats for a pause of its process"
        );
    }
}
