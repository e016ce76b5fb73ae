//! Tests of rules at their exact limits, for example at the last millisecond, and of hubs that an event must not
//! affect.

use super::*;
use crate::envelope::{Change, ChangeKind, Heartbeat};
use crate::limits::{GAP_PATIENCE, LINK_SILENCE, MAX_ANNOUNCE_DATA_BYTES, RIVAL_MEMORY, SNAPSHOT_BYTES};
use crate::relay::holding::Holding;

fn change(seq: u64, session: u64, kind: ChangeKind) -> Change {
    let (incarnation, session) = (HubIncarnation(1), PeerIncarnation(session));
    Change { hub: hub(1), incarnation, seq, peer: id(7), session, kind }
}

/// Only a faulty hub reports the end of a session before its start.
#[test]
fn the_leave_of_a_session_that_has_not_begun_removes_nothing() {
    let mut holding = Holding::new(10);
    let claim = Claim { incarnation: PeerIncarnation(5), hub: hub(1) };
    let discovered = Arc::new(wire::peer_discovered(b"{}", claim.incarnation, "n", 0));
    let (network, stay) = (NetworkName::new("n"), Stay::default());
    let joined =
        Arc::new(Announcement { peer: id(7), network: network.clone(), claim, remote: true, stay, discovered });
    assert!(holding.apply(&change(1, 5, ChangeKind::Joined(joined)), 10_000).is_ok());
    let digest = holding.digest;
    let frame = Arc::new(wire::goodbye(&id(7), "null", "n", 0));
    let left = |session| change(2, session, ChangeKind::Left { network: network.clone(), frame: Arc::clone(&frame) });
    let down = |session| change(3, session, ChangeKind::Down(LeaveReason::Moved));
    assert!(holding.apply(&left(6), 10_000).is_ok() && holding.apply(&down(6), 10_000).is_ok());
    assert_eq!((holding.digest, holding.peers[&id(7)].memberships.len()), (digest, 1));
    assert!(holding.apply(&left(5), 10_000).is_ok());
    assert_eq!(holding.peers[&id(7)].memberships.len(), 0);
    assert!(holding.apply(&down(5), 10_000).is_ok());
    assert_eq!((holding.digest, holding.peers.len(), holding.bytes()), (0, 0, 0));
}

#[test]
fn a_hub_counts_as_bridged_while_its_heartbeats_arrive_over_the_bridge() {
    let mut net = Net::new(2);
    net.link(1, 2);
    net.bridged = vec![1, 2];
    (1..=2).for_each(|n| net.input(n, RelayInput::BridgeUp));
    net.pass(2 * HEARTBEAT);
    let bridged = |net: &Net| net.hubs[&2].hubs(net.now)[0].bridged;
    assert!(bridged(&net));
    // Hub 1 loses the bridge. The heartbeats of hub 1 continue to arrive over the link.
    net.bridged = vec![2];
    net.input(1, RelayInput::BridgeDown);
    net.pass(LEASE - 2 * HEARTBEAT);
    assert!(bridged(&net));
    net.pass(3 * HEARTBEAT);
    assert!(!bridged(&net) && net.hubs[&2].hubs(net.now)[0].live);
}

#[test]
fn nothing_is_sent_to_a_bridge_that_has_failed() {
    let mut net = Net::new(2);
    net.bridged = vec![1, 2];
    (1..=2).for_each(|n| net.input(n, RelayInput::BridgeUp));
    net.joins(1, 11, 0);
    net.joins(2, 12, 0);
    net.pass(2 * HEARTBEAT);
    net.input(1, RelayInput::BridgeDown);
    let view = net.hubs[&1].hubs(net.now).remove(0);
    assert!(view.live && !view.bridged && view.next_hop.is_none(), "{view:?}");
    net.hears(1);
    net.signals(1, 11, 12, 1);
    assert_eq!(net.hears(1), ["outcome 12 unreachable"], "a signal over a failed bridge fails immediately");
    let sent = net.hubs[&1].stats.sent;
    net.joins(1, 13, 0);
    net.pass(2 * HEARTBEAT);
    assert_eq!(net.hubs[&1].stats.sent, sent);
    net.input(1, RelayInput::BridgeUp);
    net.pass(2 * HEARTBEAT);
    assert_eq!(net.hubs[&2].locate(&id(13)), Some(hub(1)));
}

#[test]
fn a_change_on_the_bridge_is_forwarded_only_to_hubs_that_are_not_on_it() {
    // Hubs 1, 2 and 3 are on the bridge. Hub 2 is also linked with hubs 3 and 4.
    let mut net = Net::new(4);
    net.bridged = vec![1, 2, 3];
    (1..=3).for_each(|n| net.input(n, RelayInput::BridgeUp));
    net.link(2, 3);
    net.link(2, 4);
    net.pass(3 * HEARTBEAT);
    let changes = net.changes;
    net.opens(1, 11, 0);
    assert_eq!(net.changes - changes, 2, "hub 1 sends one change to the bridge, and hub 2 sends one to hub 4");
    assert!((2..=4).all(|n| net.hubs[&n].locate(&id(11)) == Some(hub(1))));
    let changes = net.changes;
    net.opens(4, 14, 0);
    assert_eq!(
        net.changes - changes,
        3,
        "hub 4 sends one change to hub 2, and hub 2 sends one to hub 3 and one to the bridge"
    );
    assert!((1..=3).all(|n| net.hubs[&n].locate(&id(14)) == Some(hub(4))));
}

/// Stops hub 1 for `pause` around the end of the lease of the dead hub 2. Returns the time until hub 1 gives up hub 2.
/// The returned time is measured from the end of the stop, or from the end of the lease if that is later.
fn gives_up_after(pause: Duration) -> Duration {
    let mut net = Net::full(2);
    net.hubs.remove(&2);
    let lease_ends = net.hubs[&1].hubs[&hub(2)].lease_ends();
    let (step, relay) = (HEARTBEAT / 4, net.hubs.get_mut(&1).unwrap());
    let mut at = net.now.at;
    while at + step < lease_ends - pause / 2 {
        at += step;
        relay.handle_timeout(Now { at, wall_ms: 0 });
        while relay.poll_output().is_some() {}
    }
    at += pause;
    let resumed = at;
    loop {
        relay.handle_timeout(Now { at, wall_ms: 0 });
        while relay.poll_output().is_some() {}
        if !relay.hubs[&hub(2)].is_live() {
            return at - resumed.max(lease_ends);
        }
        at = relay.poll_timeout().unwrap();
    }
}

#[test]
fn after_a_stop_of_the_process_leases_are_checked_a_heartbeat_later() {
    assert!(gives_up_after(2 * HEARTBEAT) < HEARTBEAT, "a busy process may be two heartbeats late");
    let stopped = gives_up_after(2 * HEARTBEAT + Duration::from_millis(1));
    assert!(stopped >= HEARTBEAT && stopped < 2 * HEARTBEAT, "{stopped:?}");
}

#[test]
fn a_heartbeat_that_was_read_after_a_stop_counts_as_old_as_the_stop_was_long() {
    for (stopped, old) in [(2 * HEARTBEAT, Duration::ZERO), (3 * HEARTBEAT, 3 * HEARTBEAT), (LEASE, LEASE)] {
        let mut net = Net::full(2);
        let relay = net.hubs.get_mut(&1).unwrap();
        let since = relay.last_timeout;
        let beat = relay.hubs[&hub(2)].beat().clone();
        let (number, before) = (beat.number + 1, relay.hubs[&hub(2)].lease_ends());
        let envelope = Envelope::Heartbeat(Arc::new(Heartbeat { number, ..(*beat).clone() }));
        let via = Hop::Link(relay.links.used_for(&hub(2)).unwrap());
        let now = Now { at: since + stopped, wall_ms: 0 };
        relay.handle_input(RelayInput::Received { via, envelope }, now);
        let expected = if old < LEASE { now.at + LEASE - old } else { before };
        assert_eq!(relay.hubs[&hub(2)].lease_ends(), expected, "stopped for {stopped:?}");
    }
}

#[test]
fn an_old_heartbeat_is_sent_back_only_to_its_hub() {
    // Hub 3 remembers a later incarnation of hub 1, and sends the heartbeat of that incarnation back to hub 1 along the
    // chain.
    let mut net = Net::chain(3);
    net.pass(2 * HEARTBEAT);
    let sent = |net: &Net, n: u8| net.hubs[&n].stats.sent[EnvelopeKind::Heartbeat as usize];
    let known = net.hubs[&2].hubs[&hub(1)].beat().clone();
    let via = Hop::Link(net.hubs[&2].links.used_for(&hub(3)).unwrap());
    let mut passes = |by: u64, age_ms: u32| {
        let incarnation = HubIncarnation(known.incarnation.0 + by);
        let beat = Heartbeat { incarnation, age_ms, process: 77, ..(*known).clone() };
        let before = sent(&net, 2);
        net.input(2, RelayInput::Received { via, envelope: Envelope::Heartbeat(Arc::new(beat)) });
        let age = |(n, _, envelope)| {
            let Envelope::Heartbeat(beat) = envelope else { panic!("hub {n}: {envelope:?}") };
            assert_eq!(n, 1);
            beat.age_ms
        };
        let ages: Vec<u32> = net.under_way.drain(..).map(age).collect();
        assert_eq!(sent(&net, 2) - before, ages.len() as u64);
        ages
    };
    let (lease, second) = (LEASE.as_millis() as u32, HEARTBEAT.as_millis() as u32);
    assert_eq!(passes(1, lease), [lease + second], "each hub adds one heartbeat interval to the age");
    let furthest = lease + second * u32::from(crate::limits::MAX_HOPS);
    assert_eq!(passes(1, furthest - second - 1), [furthest - 1]);
    assert_eq!(passes(1, furthest - second), [0; 0], "the heartbeat has reached the greatest age");
    assert_eq!(passes(0, lease), [0; 0], "the incarnation is not later");
}

#[test]
fn a_silent_hub_with_the_same_id_is_forgotten() {
    let mut net = Net::full(2);
    net.pass(2 * crate::limits::RIVAL_PATIENCE);
    let link = Hop::Link(net.hubs[&1].links.used_for(&hub(2)).unwrap());
    let own = net.hubs[&1].incarnation();
    let beat = |net: &Net, number| {
        let known = net.hubs[&1].hubs[&hub(2)].beat().clone();
        let incarnation = HubIncarnation(own.0 - 10);
        Envelope::Heartbeat(Arc::new(Heartbeat { hub: hub(1), incarnation, number, process: 77, ..(*known).clone() }))
    };
    // Heartbeats that arrive together do not show that their hub is alive, because they may have been queued in a
    // socket.
    for number in 1..20 {
        let envelope = beat(&net, number);
        net.input(1, RelayInput::Received { via: link, envelope });
    }
    assert!(net.hubs[&1].rival.is_some() && !net.events.contains(&(1, MeshEvent::SameId)));
    net.pass(crate::limits::RIVAL_YIELD + 2 * HEARTBEAT);
    assert!(net.hubs[&1].rival.is_none());
    assert_eq!(net.hubs[&1].hub(), hub(1));
    // Heartbeats that continue to arrive show that their hub is alive.
    for number in 20..26 {
        let envelope = beat(&net, number);
        net.input(1, RelayInput::Received { via: link, envelope });
        net.pass(HEARTBEAT);
        if net.hubs[&1].hub() != hub(1) {
            break;
        }
    }
    assert!(net.events.contains(&(1, MeshEvent::SameId)));
    assert_ne!(net.hubs[&1].hub(), hub(1), "the other hub began earlier, so hub 1 takes a new id");
    net.pass(RIVAL_MEMORY);
}

#[test]
fn a_hub_with_a_new_id_begins_with_no_links_and_no_bridge() {
    let mut net = Net::full(2);
    net.bridged = vec![1, 2];
    (1..=2).for_each(|n| net.input(n, RelayInput::BridgeUp));
    net.pass(2 * HEARTBEAT);
    let life = net.hubs[&1].incarnation();
    // Hub 1 requests a snapshot, which does not arrive.
    net.loses = |envelope| matches!(envelope.kind(), EnvelopeKind::Change | EnvelopeKind::Snapshot);
    net.joins(2, 12, 0);
    net.pass(2 * HEARTBEAT);
    assert!(net.hubs[&1].hubs[&hub(2)].repair.is_under_way());
    net.input(1, RelayInput::Namesake { incarnation: HubIncarnation(life.0 - 1), process: 7 });
    let relay = &net.hubs[&1];
    assert!(!relay.bridge.is_up() && relay.links.iter().next().is_none());
    assert!(!relay.hubs[&hub(2)].repair.is_under_way());
    assert_eq!(relay.hubs[&hub(2)].paths.best(), None);
    assert_eq!(relay.stats.ids_given_up, 1);
}

#[test]
fn an_incarnation_is_replaced_at_once_if_its_link_ended_and_otherwise_after_a_silence() {
    let restarts = |cut_first: bool| {
        let mut net = Net::new(3);
        net.link(1, 2);
        net.link(2, 3);
        net.pass(2 * HEARTBEAT);
        let known = net.hubs[&2].hubs[&hub(1)].beat().clone();
        if cut_first {
            net.cut(1, 2);
        }
        net.hubs.remove(&1);
        // Another process with the same id, which started later, sends heartbeats through hub 3.
        let via = Hop::Link(net.hubs[&2].links.used_for(&hub(3)).unwrap());
        let incarnation = HubIncarnation(known.incarnation.0 + 5);
        let began = net.now.at;
        for number in 1..100 {
            let beat = Heartbeat { incarnation, number, process: 99, neighbours: Vec::new(), ..(*known).clone() };
            net.input(2, RelayInput::Received { via, envelope: Envelope::Heartbeat(Arc::new(beat)) });
            net.run();
            if net.hubs[&2].hubs[&hub(1)].incarnation() == incarnation {
                break;
            }
            net.pass(HEARTBEAT / 2);
        }
        net.now.at - began
    };
    assert_eq!(restarts(true), Duration::ZERO);
    let waited = restarts(false);
    assert!(waited > LINK_SILENCE - HEARTBEAT && waited <= LINK_SILENCE + HEARTBEAT, "{waited:?}");
}

#[test]
fn a_go_hub_receives_large_announcements_in_turns_of_bounded_size() {
    let mut net = Net::full(2);
    let data = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_ANNOUNCE_DATA_BYTES - 20));
    for peer in 10..30 {
        net.opens(1, peer, 0);
        net.announces_data(1, peer, 0, Stay::default(), Some(&data));
    }
    let link = LinkId(99);
    let transport = Transport::Link(link);
    net.full.push((1, transport));
    net.input(1, RelayInput::LegacyUp { link, hub: hub(100), dialed: false });
    net.texts.clear();
    let mut told = 0;
    for _ in 0..20 {
        net.input(1, RelayInput::Room { transport });
        let bytes: usize = net.texts.iter().map(|(_, _, text)| text.len()).sum();
        let last = net.texts.last().map_or(0, |(_, _, text)| text.len());
        assert!(bytes - last < SNAPSHOT_BYTES, "{bytes}");
        told += net.texts.len();
        net.texts.clear();
    }
    assert_eq!(told, 20);
}

#[test]
fn a_signal_to_a_hub_that_has_restarted_gets_an_outcome() {
    // Hub 3 has begun another incarnation, which hub 1 does not know yet.
    let mut net = Net::chain(3);
    net.joins(1, 11, 0);
    net.joins(3, 13, 0);
    net.pass(2 * HEARTBEAT);
    net.hears(1);
    net.hubs.get_mut(&3).unwrap().config.incarnation.0 += 1;
    net.signals(1, 11, 13, 1);
    net.pass(HEARTBEAT / 2);
    assert_eq!(net.hears(1), ["outcome 13 unreachable"]);
    assert_eq!(net.hears(3).iter().filter(|line| line.starts_with("signal")).count(), 0);
}

#[test]
fn a_hub_requests_a_snapshot_exactly_one_gap_patience_after_a_change_is_missing() {
    let mut net = Net::full(2);
    net.joins(1, 11, 0);
    net.pass(2 * HEARTBEAT);
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Change;
    net.joins(1, 12, 0);
    net.loses = |_| false;
    net.joins(1, 13, 0);
    let at = net.hubs[&2].hubs[&hub(1)].due().unwrap();
    assert_eq!(at, net.now.at + GAP_PATIENCE);
    let asked = |net: &Net| net.hubs[&2].stats.sent[EnvelopeKind::SnapshotRequest as usize];
    let before = asked(&net);
    net.pass(GAP_PATIENCE - Duration::from_millis(50));
    assert_eq!(asked(&net), before);
    net.pass(Duration::from_millis(50));
    assert_eq!(asked(&net), before + 1);
    net.nothing_is_left();
}
