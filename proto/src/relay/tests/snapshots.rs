//! Requests for snapshots that arrive at a bad moment.

use super::*;
use crate::envelope::SnapshotRequest;
use crate::limits::{GAP_PATIENCE, MAX_SNAPSHOT_WAITERS, MAX_SNAPSHOTS_OUT, SNAPSHOT_PATIENCE};

#[test]
fn a_chain_is_whole_again_as_soon_as_its_cut_heals() {
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
    net.input(1, RelayInput::Room { way: slow });
    net.run();
    // The repair needs no timeout of any of the three hubs.
    for n in 2..=4 {
        assert_eq!(net.hears(n), ["elsewhere 7", "joined 7 n"], "hub {n}");
    }
    assert_eq!(net.hears(1), ["elsewhere 8", "joined 8 n"]);
    net.nothing_is_left();
}

/// The middle hub of a chain of three requests a snapshot from hub 1 that does not arrive, so its repair takes long.
fn repairing() -> (Net, HubIncarnation) {
    let mut net = Net::chain(3);
    net.joins(1, 7, 0);
    net.cut(1, 2);
    net.pass(GONE);
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Snapshot;
    net.link(1, 2);
    assert!(net.hubs[&2].hubs[&hub(1)].sync.is_some() && net.hubs[&3].hubs[&hub(1)].sync.is_some());
    let life = net.hubs[&1].incarnation();
    (net, life)
}

#[test]
fn a_request_is_declined_when_the_asked_hub_gives_up_its_own_repair() {
    let (mut net, _) = repairing();
    net.hears(3);
    net.pass(SNAPSHOT_PATIENCE);
    assert!(net.hubs[&3].hubs[&hub(1)].sync.is_none(), "it does not wait for longer than the hub it asked");
    net.loses = |_| false;
    net.pass(2 * GAP_PATIENCE);
    assert_eq!(net.hears(3), ["elsewhere 7", "joined 7 n"]);
    net.nothing_is_left();
}

#[test]
fn a_bounded_number_of_requests_waits_for_a_repair() {
    let (mut net, incarnation) = repairing();
    let asks = |net: &mut Net, n: u8| {
        let request = SnapshotRequest { hub: hub(1), incarnation };
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
    assert_eq!(net.hubs[&2].hubs[&hub(1)].snapshot_waiters.len(), MAX_SNAPSHOT_WAITERS);
    assert_eq!(declined(&net), 0);
    asks(&mut net, 250);
    assert_eq!(declined(&net), 1);
    // A hub that itself requests this snapshot from another hub must not make that hub wait.
    asks(&mut net, 1);
    assert_eq!(declined(&net), 2);
}

#[test]
fn a_request_that_nothing_is_known_about_is_declined() {
    let mut net = Net::chain(2);
    let life = net.hubs[&1].incarnation();
    let link = net.hubs[&2].links.used_for(&hub(1)).unwrap();
    let unknown = [(hub(9), life), (hub(1), HubIncarnation(life.0 + 1)), (hub(2), HubIncarnation(1))];
    for (n, (hub, incarnation)) in unknown.into_iter().enumerate() {
        let request = SnapshotRequest { hub, incarnation };
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
        let beat = |relay: &Relay| relay.hubs[&hub(1)].beat.clone();
        let mut beat = (*beat(&net.hubs[&2])).clone();
        beat.hub = HubId(PeerId::from_bytes([n as u8 + 1; 20]));
        let (hub, incarnation) = (beat.hub, beat.incarnation);
        let via = Hop::Link(link);
        net.input(2, RelayInput::Received { via, envelope: Envelope::Heartbeat(Arc::new(beat)) });
        net.hubs.get_mut(&2).unwrap().hubs.get_mut(&hub).unwrap().sync = None;
        let request = SnapshotRequest { hub, incarnation };
        net.input(2, RelayInput::Received { via, envelope: Envelope::SnapshotRequest(request) });
    }
    assert_eq!(net.hubs[&2].links.get(link).unwrap().queue().snapshots().len(), MAX_SNAPSHOTS_OUT);
    assert_eq!(net.hubs[&2].stats.sent[EnvelopeKind::SnapshotDeclined as usize], 1);
}
