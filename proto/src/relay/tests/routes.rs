//! Tests of routes to hubs, and of the envelopes that hubs on the bridge forward for hubs that are not on the bridge.

use super::*;
use crate::envelope::Heartbeat;
use crate::limits::{LINK_SILENCE, ROUTE_PATIENCE};
use crate::relay::remote::Paths;

fn link_to(net: &Net, n: u8, to: u8) -> Hop {
    Hop::Link(net.hubs[&n].links.used_for(&hub(to)).unwrap())
}

fn route(net: &mut Net, n: u8, to: u8) -> Option<Hop> {
    let now = net.now;
    net.hubs.get_mut(&n).unwrap().route(&hub(to), now)
}

/// Puts hubs on the bridge.
fn bridge(net: &mut Net, hubs: &[u8]) {
    net.bridged = hubs.to_vec();
    for &n in hubs {
        net.input(n, RelayInput::BridgeUp);
    }
    net.run();
    net.pass(2 * HEARTBEAT);
}

/// The next heartbeat of hub `about`, which hub `n` has not received yet.
fn next_beat(net: &Net, n: u8, about: u8) -> Heartbeat {
    let beat = (**net.hubs[&n].hubs[&hub(about)].beat()).clone();
    Heartbeat { number: beat.number + 1, ..beat }
}

/// The number of heartbeats that a hub publishes on the bridge when it receives `beat`.
fn published(net: &mut Net, n: u8, via: Hop, beat: Heartbeat) -> usize {
    let now = net.now;
    let relay = net.hubs.get_mut(&n).unwrap();
    relay.handle_input(RelayInput::Received { via, envelope: Envelope::Heartbeat(Arc::new(beat)) }, now);
    let is_published = |output: &RelayOutput| matches!(output, RelayOutput::Send { to: Destination::Everyone, envelope } if envelope.kind() == EnvelopeKind::Heartbeat);
    std::iter::from_fn(|| relay.poll_output()).filter(is_published).count()
}

#[test]
fn a_link_is_preferred_to_the_bridge() {
    let mut net = Net::full(2);
    bridge(&mut net, &[1, 2]);
    assert_eq!(route(&mut net, 1, 2), Some(link_to(&net, 1, 2)));
    net.cut(1, 2);
    net.pass(HEARTBEAT);
    assert_eq!(route(&mut net, 1, 2), Some(Hop::Bridge(hub(2))));
}

#[test]
fn a_hub_is_on_the_bridge_until_its_lease_there_ends() {
    let mut net = Net::full(2);
    let now = net.now.at;
    let remote = net.hubs.get_mut(&1).unwrap().hubs.get_mut(&hub(2)).unwrap();
    remote.note_bridged(now);
    assert!(remote.is_bridged(now - Duration::from_nanos(1)) && !remote.is_bridged(now));
}

#[test]
fn routes_change_when_a_hub_reports_other_neighbours() {
    let mut net = Net::chain(3);
    net.pass(2 * HEARTBEAT);
    let via = link_to(&net, 1, 2);
    let beats = [vec![hub(1), hub(3)], vec![hub(1)], vec![hub(1), hub(3)]];
    for (neighbours, expected) in beats.into_iter().zip([Some(via), None, Some(via)]) {
        let beat = Heartbeat { neighbours, ..next_beat(&net, 1, 2) };
        net.input(1, RelayInput::Received { via, envelope: Envelope::Heartbeat(Arc::new(beat)) });
        net.hubs.get_mut(&1).unwrap().hubs.get_mut(&hub(3)).unwrap().paths = Paths::default();
        assert_eq!(route(&mut net, 1, 3), expected);
    }
}

#[test]
fn a_hub_publishes_a_heartbeat_when_the_bridge_comes_up() {
    let mut net = Net::full(2);
    net.pass(HEARTBEAT / 4);
    let now = net.now;
    let relay = net.hubs.get_mut(&1).unwrap();
    let mut published = |input| {
        relay.handle_input(input, now);
        let outputs = std::iter::from_fn(|| relay.poll_output());
        outputs.filter(|output| matches!(output, RelayOutput::Send { to: Destination::Everyone, .. })).count()
    };
    assert_eq!(published(RelayInput::BridgeUp), 1, "a heartbeat is published at once");
    assert_eq!(published(RelayInput::BridgeUp), 0, "a new subscriber gets a heartbeat soon, not at once");
}

#[test]
fn a_hub_is_reached_through_its_neighbour_although_no_heartbeat_came_that_way() {
    let mut net = Net::chain(3);
    net.pass(2 * HEARTBEAT);
    let (via, now) = (link_to(&net, 1, 2), net.now);
    let forget = |net: &mut Net, unheard: Vec<HubId>| {
        let relay = net.hubs.get_mut(&1).unwrap();
        relay.reach = None;
        let remote = relay.hubs.get_mut(&hub(3)).unwrap();
        remote.paths = Paths::default();
        remote.edit_beat(|beat| beat.unheard = unheard);
    };
    forget(&mut net, vec![]);
    assert_eq!(route(&mut net, 1, 3), Some(via));
    assert_eq!(route(&mut net, 1, 1), None, "no route leads to the hub itself");
    // Hub 3 does not receive what hub 2 sends.
    forget(&mut net, vec![hub(2)]);
    assert_eq!(route(&mut net, 1, 3), None);
    // The queue of the link to hub 2 is full.
    forget(&mut net, vec![]);
    let Hop::Link(link) = via else { panic!() };
    net.hubs.get_mut(&1).unwrap().handle_input(RelayInput::Saturated { transport: Transport::Link(link) }, now);
    forget(&mut net, vec![]);
    assert_eq!(route(&mut net, 1, 3), None);
}

#[test]
fn the_bridge_is_saturated_while_it_is_down() {
    let mut net = Net::full(2);
    assert!(net.hubs[&1].is_saturated(Hop::Bridge(hub(2))));
    bridge(&mut net, &[1, 2]);
    assert!(!net.hubs[&1].is_saturated(Hop::Bridge(hub(2))));
    let now = net.now;
    net.hubs.get_mut(&1).unwrap().handle_input(RelayInput::Saturated { transport: Transport::Bridge }, now);
    assert!(net.hubs[&1].is_saturated(Hop::Bridge(hub(2))), "the queue of the bridge is full");
}

#[test]
fn routes_do_not_use_a_hub_that_has_left_the_bridge_as_a_step() {
    // Hubs 1 and 2 are on the bridge. A chain of links leads from hub 1 through hubs 4 and 2 to hub 3.
    let mut net = Net::new(4);
    for (a, b) in [(1, 4), (4, 2), (2, 3)] {
        net.link(a, b);
    }
    bridge(&mut net, &[1, 2]);
    net.hubs.get_mut(&1).unwrap().reach = None;
    assert_eq!(route(&mut net, 1, 3), Some(Hop::Bridge(hub(2))));
    net.bridged = vec![1];
    net.input(2, RelayInput::BridgeDown);
    net.pass(GONE);
    assert!(net.hubs[&1].hubs[&hub(2)].is_live());
    assert_eq!(route(&mut net, 1, 3), Some(link_to(&net, 1, 4)));
}

#[test]
fn one_hub_on_the_bridge_forwards_for_all_hubs_that_are_linked_with_it() {
    // Hub 4 is only on the bridge. Hub 3 is linked with hubs 1 and 2, and hub 5 with hub 3.
    let mut net = Net::new(5);
    for (a, b) in [(1, 3), (2, 3), (3, 5)] {
        net.link(a, b);
    }
    bridge(&mut net, &[1, 2, 4]);
    let now = net.now;
    let mut speaks = |n: u8, about: u8| net.hubs.get_mut(&n).unwrap().speaks_for(&hub(about), now);
    assert_eq!([1, 2, 4].map(|n| speaks(n, 3)), [true, false, false], "the hub with the smallest id forwards");
    assert_eq!(
        [1, 2, 4].map(|n| speaks(n, 5)),
        [true, false, false],
        "it also forwards for hub 5, which is linked with hub 3"
    );
    assert!(!speaks(1, 4) && !speaks(1, 2), "hubs 4 and 2 are on the bridge themselves");
}

#[test]
fn only_heartbeats_that_arrive_on_links_are_published_on_the_bridge() {
    let mut net = Net::new(4);
    for (a, b) in [(1, 3), (2, 3)] {
        net.link(a, b);
    }
    bridge(&mut net, &[1, 2, 4]);
    let (link, beat) = (link_to(&net, 1, 3), next_beat(&net, 1, 3));
    assert_eq!(published(&mut net, 1, link, beat), 1, "hub 3 is not on the bridge");
    let beat = next_beat(&net, 1, 3);
    assert_eq!(published(&mut net, 1, Hop::Bridge(hub(2)), beat), 0, "the heartbeat came from the bridge");
    let beat = next_beat(&net, 1, 4);
    assert_eq!(published(&mut net, 1, link, beat), 0, "hub 4 is on the bridge");
    net.input(1, RelayInput::BridgeDown);
    let beat = next_beat(&net, 1, 3);
    assert_eq!(published(&mut net, 1, link, beat), 0, "the bridge is down");
}

#[test]
fn a_new_neighbour_gets_heartbeats_of_others_with_their_age() {
    let mut net = Net::chain(2);
    net.pass(2 * HEARTBEAT);
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Heartbeat;
    net.pass(3 * HEARTBEAT / 2);
    let age = net.hubs[&2].hubs[&hub(1)].age(net.now.at);
    assert!(age > HEARTBEAT, "{age:?}");
    net.loses = |_| false;
    net.start(3);
    net.link(2, 3);
    let of_first = net.hubs[&3].hubs[&hub(1)].age(net.now.at);
    assert!(of_first >= age - Duration::from_millis(1), "{of_first:?} of {age:?}");
}

#[test]
fn a_hub_that_begins_to_report_its_process_is_the_same_hub() {
    let mut net = Net::full(2);
    net.joins(2, 8, 0);
    let via = link_to(&net, 1, 2);
    {
        let remote = net.hubs.get_mut(&1).unwrap().hubs.get_mut(&hub(2)).unwrap();
        remote.edit_beat(|beat| beat.process = 0);
    }
    let beat = Heartbeat { process: 5, ..next_beat(&net, 1, 2) };
    let number = beat.number;
    net.hears(1);
    net.input(1, RelayInput::Received { via, envelope: Envelope::Heartbeat(Arc::new(beat)) });
    assert_eq!(net.hubs[&1].hubs[&hub(2)].beat().number, number);
    assert_eq!(net.hubs[&1].locate(&id(8)), Some(hub(2)));
    assert_eq!(net.hears(1), [""; 0]);
}

#[test]
fn go_hubs_are_shown_among_the_hubs() {
    let mut net = Net::full(2);
    let link = LinkId(99);
    net.input(1, RelayInput::LegacyUp { link, hub: hub(50), dialed: true });
    let views = net.hubs[&1].hubs(net.now);
    let shown: Vec<_> = views.iter().map(|view| (view.hub, view.legacy, view.next_hop)).collect();
    assert_eq!(shown, [(hub(2), false, Some(link_to(&net, 1, 2))), (hub(50), true, Some(Hop::Link(link)))]);
    net.pass(HEARTBEAT);
    assert!(net.hubs[&1].hubs(net.now)[1].heard >= HEARTBEAT);
    net.input(1, RelayInput::LegacyText { link, text: "{}" });
    assert_eq!(net.hubs[&1].hubs(net.now)[1].heard, Duration::ZERO);
}

#[test]
fn a_heartbeat_lists_the_hubs_from_which_nothing_arrives() {
    let mut net = Net::full(3);
    let unheard = |net: &Net| net.hubs[&3].hubs[&hub(1)].beat().unheard.clone();
    assert_eq!(unheard(&net), []);
    net.swallows = vec![(2, 1)];
    net.pass(LINK_SILENCE + 2 * HEARTBEAT);
    assert_eq!(unheard(&net), [hub(2)]);
}

#[test]
fn a_heartbeat_from_the_bridge_counts_if_it_is_not_far_behind_the_links() {
    for (number, is_bridged) in [(2, false), (3, false), (4, true), (19, true)] {
        let mut net = Net::full(2);
        let now = net.now;
        let relay = net.hubs.get_mut(&1).unwrap();
        let remote = relay.hubs.get_mut(&hub(2)).unwrap();
        let beat = (**remote.beat()).clone();
        remote.edit_beat(|beat| beat.number = 20);
        let envelope = Envelope::Heartbeat(Arc::new(Heartbeat { number, ..beat }));
        relay.handle_input(RelayInput::Received { via: Hop::Bridge(hub(2)), envelope }, now);
        assert_eq!(relay.hubs[&hub(2)].is_bridged(now.at), is_bridged, "{number}");
    }
}

#[test]
fn another_hop_is_used_after_several_heartbeats_in_a_row_arrived_over_it_first() {
    let [one, two] = [1, 2].map(|n| Hop::Link(LinkId(n)));
    let mut paths = Paths::default();
    paths.note(one, 1, true);
    for number in 2..20 {
        // The two hops deliver the newest heartbeat in turn.
        paths.note(if number % 2 == 0 { two } else { one }, number, true);
        assert_eq!(paths.best(), Some(one), "{number}");
    }
    for _ in 0..ROUTE_PATIENCE {
        paths.note(two, 20, true);
    }
    assert_eq!(paths.best(), Some(two));
    paths.note(one, 1000, true);
    assert_eq!(paths.best(), Some(one), "nothing has arrived over the other hop for long");
}
