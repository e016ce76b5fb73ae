//! Tests of requests for snapshots that the asked hub cannot serve at that time.

use super::*;
use crate::envelope::{Heartbeat, SnapshotRequest};
use crate::limits::{GAP_PATIENCE, MAX_SNAPSHOT_WAITERS, MAX_SNAPSHOTS_OUT, SNAPSHOT_PATIENCE};

#[test]
fn a_chain_of_hubs_is_repaired_as_soon_as_its_missing_link_returns() {
    let mut net = Net::chain(4);
    net.joins(1, 7, 0);
    net.joins(4, 8, 0);
    net.cut(1, 2);
    net.pass(GONE);
    for n in 1..=4 {
        net.hears(n);
    }
    // The snapshot is slow, so that hubs farther along the chain request it before it has arrived.
    let slow = Transport::Link(LinkId(net.next_link));
    net.full.push((1, slow));
    net.link(1, 2);
    net.full.clear();
    net.input(1, RelayInput::Room { transport: slow });
    net.run();
    // No timeout of the three hubs is necessary for the repair.
    for n in 2..=4 {
        assert_eq!(net.hears(n), ["elsewhere 7", "joined 7 n"], "hub {n}");
    }
    assert_eq!(net.hears(1), ["elsewhere 8", "joined 8 n"]);
    net.nothing_is_left();
}

/// A chain of three hubs. Hub 2 has requested a snapshot from hub 1 that does not arrive, so its repair is still in
/// progress.
fn repairing() -> (Net, HubIncarnation) {
    let mut net = Net::chain(3);
    net.joins(1, 7, 0);
    net.cut(1, 2);
    net.pass(GONE);
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Snapshot;
    net.link(1, 2);
    assert!(net.hubs[&2].hubs[&hub(1)].repair.is_under_way() && net.hubs[&3].hubs[&hub(1)].repair.is_under_way());
    let life = net.hubs[&1].incarnation();
    (net, life)
}

#[test]
fn a_snapshot_request_is_declined_when_the_asked_hub_gives_up_its_own_repair() {
    let (mut net, _) = repairing();
    net.hears(3);
    net.pass(SNAPSHOT_PATIENCE);
    assert!(
        !net.hubs[&3].hubs[&hub(1)].repair.is_under_way(),
        "hub 3 stops waiting when hub 2 gives up its own repair"
    );
    net.loses = |_| false;
    net.pass(2 * GAP_PATIENCE);
    assert_eq!(net.hears(3), ["elsewhere 7", "joined 7 n"]);
    net.nothing_is_left();
}

#[test]
fn a_bounded_number_of_snapshot_requests_waits_for_a_repair() {
    let (mut net, incarnation) = repairing();
    let asks = |net: &mut Net, n: u8| {
        let request = SnapshotRequest { hub: hub(1), incarnation, have: 0 };
        let via = Hop::Bridge(hub(n));
        net.input(2, RelayInput::Received { via, envelope: Envelope::SnapshotRequest(request) });
        net.run();
    };
    net.bridged = vec![2];
    net.input(2, RelayInput::BridgeUp);
    let declined = |net: &Net| net.hubs[&2].stats.sent[EnvelopeKind::SnapshotDeclined as usize];
    // Hub 3 already waits for the snapshot.
    for n in 100..100 + MAX_SNAPSHOT_WAITERS as u8 - 1 {
        asks(&mut net, n);
        asks(&mut net, n);
    }
    assert_eq!(net.hubs[&2].hubs[&hub(1)].repair.waiters(), MAX_SNAPSHOT_WAITERS);
    assert_eq!(declined(&net), 0);
    asks(&mut net, 250);
    assert_eq!(declined(&net), 1);
    // Hub 2 has asked hub 1 for this snapshot. A request of hub 1 for the same snapshot is declined, so that the two
    // hubs do not wait for each other.
    asks(&mut net, 1);
    assert_eq!(declined(&net), 2);
}

#[test]
fn a_snapshot_request_for_an_unknown_hub_is_declined() {
    let mut net = Net::chain(2);
    let life = net.hubs[&1].incarnation();
    let link = net.hubs[&2].links.used_for(&hub(1)).unwrap();
    let unknown = [(hub(9), life), (hub(1), HubIncarnation(life.0 + 1)), (hub(2), HubIncarnation(1))];
    for (n, (hub, incarnation)) in unknown.into_iter().enumerate() {
        let request = SnapshotRequest { hub, incarnation, have: 0 };
        net.input(2, RelayInput::Received { via: Hop::Link(link), envelope: Envelope::SnapshotRequest(request) });
        net.run();
        assert_eq!(net.hubs[&1].stats.received[EnvelopeKind::SnapshotDeclined as usize], n as u64 + 1);
    }
}

#[test]
fn snapshots_beyond_the_maximum_of_a_link_are_declined() {
    let mut net = Net::chain(2);
    let link = net.hubs[&2].links.used_for(&hub(1)).unwrap();
    net.full.push((2, Transport::Link(link)));
    for n in 0..=MAX_SNAPSHOTS_OUT {
        let beat = |relay: &Relay| relay.hubs[&hub(1)].beat().clone();
        let mut beat = (*beat(&net.hubs[&2])).clone();
        beat.hub = HubId(PeerId::from_bytes([n as u8 + 1; 20]));
        let (hub, incarnation) = (beat.hub, beat.incarnation);
        let via = Hop::Link(link);
        net.input(2, RelayInput::Received { via, envelope: Envelope::Heartbeat(Arc::new(beat)) });
        net.hubs.get_mut(&2).unwrap().hubs.get_mut(&hub).unwrap().repair.end();
        let request = SnapshotRequest { hub, incarnation, have: 0 };
        net.input(2, RelayInput::Received { via, envelope: Envelope::SnapshotRequest(request) });
    }
    assert_eq!(net.hubs[&2].links.get(link).unwrap().queue().snapshots().len(), MAX_SNAPSHOTS_OUT);
    assert_eq!(net.hubs[&2].stats.sent[EnvelopeKind::SnapshotDeclined as usize], 1);
}

/// Makes a change at hub 1 that no other hub receives.
fn misses_a_change(net: &mut Net) {
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Change;
    net.joins(1, 20, 0);
    net.loses = |_| false;
}

#[test]
fn a_replica_with_missing_changes_is_not_sent_to_a_neighbour_with_the_same_changes() {
    let mut net = Net::chain(3);
    net.joins(1, 7, 0);
    net.pass(2 * HEARTBEAT);
    misses_a_change(&mut net);
    net.hubs.get_mut(&1).unwrap().beat(net.now);
    net.drain(1);
    net.run();
    // Hub 2 waits for the missing change, and has not requested a snapshot from hub 1 yet.
    let relay = &net.hubs[&2];
    let (lag, have) = (relay.hubs[&hub(1)].lag(), relay.hubs[&hub(1)].holding.seq);
    assert!(lag > 0 && have > 0 && !relay.hubs[&hub(1)].repair.is_under_way());
    let incarnation = net.hubs[&1].incarnation();
    let via = Hop::Link(relay.links.used_for(&hub(3)).unwrap());
    let sent = |net: &Net, kind| net.hubs[&2].stats.sent[kind as usize];
    let (snapshots, declines) = (EnvelopeKind::Snapshot, EnvelopeKind::SnapshotDeclined);
    let before = sent(&net, snapshots);
    for (have, served, declined) in [(have, 0, 1), (have + lag, 0, 2), (have - 1, 1, 2), (0, 2, 2)] {
        let request = SnapshotRequest { hub: hub(1), incarnation, have };
        net.input(2, RelayInput::Received { via, envelope: Envelope::SnapshotRequest(request) });
        assert_eq!((sent(&net, snapshots) - before, sent(&net, declines)), (served, declined), "{have}");
    }
    net.under_way.clear();
    net.pass(3 * HEARTBEAT);
    net.nothing_is_left();
}

#[test]
fn a_hub_is_repaired_soon_after_a_neighbour_that_lacked_the_same_change() {
    let mut net = Net::chain(3);
    net.joins(1, 7, 0);
    net.pass(2 * HEARTBEAT);
    // For a long time, heartbeats of hub 1 arrive, but its changes and snapshots are lost.
    net.loses = |envelope| matches!(envelope.kind(), EnvelopeKind::Change | EnvelopeKind::Snapshot);
    net.joins(1, 20, 0);
    net.pass(30 * HEARTBEAT);
    assert!(net.hubs[&3].hubs[&hub(1)].lag() > 0);
    net.loses = |_| false;
    net.pass(SNAPSHOT_PATIENCE + 4 * GAP_PATIENCE);
    assert_eq!([2, 3].map(|n| net.hubs[&n].hubs[&hub(1)].lag()), [0, 0]);
    net.pass(2 * HEARTBEAT);
    net.nothing_is_left();
}

#[test]
fn a_hub_itself_is_asked_after_a_neighbour_has_sent_an_incomplete_snapshot() {
    let mut net = Net::new(3);
    net.bridged = vec![1, 2, 3];
    (1..=3).for_each(|n| net.input(n, RelayInput::BridgeUp));
    net.link(2, 3);
    net.joins(1, 7, 0);
    net.pass(2 * HEARTBEAT);
    misses_a_change(&mut net);
    // The heartbeats of hub 1 arrive earlier over the link with hub 3. So hub 2 asks hub 3, which lacks the change as
    // well.
    let link = net.hubs[&2].links.used_for(&hub(3)).unwrap();
    let asked = |net: &Net, n: u8| net.hubs[&n].stats.received[EnvelopeKind::SnapshotRequest as usize];
    let before = [asked(&net, 1), asked(&net, 3)];
    let beat = Heartbeat {
        seq: net.hubs[&1].own.seq,
        digest: net.hubs[&1].own.digest,
        ..(**net.hubs[&2].hubs[&hub(1)].beat()).clone()
    };
    for n in 1..=4 {
        let beat = Arc::new(Heartbeat { number: beat.number + n, ..beat.clone() });
        net.input(2, RelayInput::Received { via: Hop::Link(link), envelope: Envelope::Heartbeat(beat) });
    }
    net.under_way.clear();
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Heartbeat;
    net.pass(GAP_PATIENCE + Duration::from_millis(100));
    assert_eq!([asked(&net, 1), asked(&net, 3)], [before[0], before[1] + 1]);
    assert!(net.hubs[&2].hubs[&hub(1)].lag() > 0, "hub 3 lacks the same change");
    net.loses = |_| false;
    net.pass(HEARTBEAT + 2 * GAP_PATIENCE);
    assert_eq!(net.hubs[&2].hubs[&hub(1)].lag(), 0);
    assert_eq!(net.hubs[&2].locate(&id(20)), Some(hub(1)));
    net.pass(2 * HEARTBEAT);
    net.nothing_is_left();
}
