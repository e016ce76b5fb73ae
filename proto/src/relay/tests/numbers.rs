//! Tests of wrong numbers, snapshots and orders of envelopes, which only faulty or hostile hubs send. The effect of
//! such envelopes on other hubs must end after a bounded time.

use super::*;
use crate::envelope::{Change, ChangeKind, Presence, RouteHeader, Routed, SignalEnvelope, SnapshotPart};
use crate::limits::{
    COUNT_PATIENCE, DOUBT_BEATS, GAP_PATIENCE, HOLD, MAX_COUNTER_STEP, MAX_MEMBERSHIPS, MAX_SIGNAL_DEPTH,
    SNAPSHOT_LIMIT, SNAPSHOT_PATIENCE, SNAPSHOT_SLACK,
};

/// Time after which a forged change or snapshot has no effect any more.
const DOUBTED: Duration = HEARTBEAT.saturating_mul(2 * DOUBT_BEATS as u32 + 1);

/// Three hubs, each linked to both others, with the peers 11, 12 and 13. Hub 3 sends the forged envelopes.
pub(super) fn triangle() -> Net {
    let mut net = Net::full(3);
    for n in 1..=3 {
        net.joins(n, 10 + n, 0);
    }
    net.pass(2 * HEARTBEAT);
    (1..=3).for_each(|n| drop(net.hears(n)));
    net
}

/// Passes an envelope from hub 3 to hub `n`.
pub(super) fn receives(net: &mut Net, n: u8, envelope: Envelope) {
    let via = Hop::Link(net.hubs[&n].links.used_for(&hub(3)).unwrap());
    net.input(n, RelayInput::Received { via, envelope });
    net.run();
}

/// A forged signal from hub 1 to hub 2.
pub(super) fn forged_signal(net: &Net, counter: u64) -> Envelope {
    let lives = [1, 2].map(|n| net.hubs[&n].incarnation());
    let route = RouteHeader { to: hub(2), to_incarnation: lives[1], from: hub(1), from_incarnation: lives[0], hops: 1 };
    let ToMesh::Signal(SignalLetter { from, target, frame, origin }) = net.signal(11, 12, 0, false) else { panic!() };
    let Origin { kind, network, standing, .. } = origin;
    let receipt = false;
    let signal = SignalEnvelope { counter, seq: 0, receipt, kind, sender: from, target, network, frame, standing };
    Envelope::Routed(route, Box::new(Routed::Signal(signal)))
}

/// Sends a signal from hub 1 to hub 2. Returns its outcome.
fn outcome(net: &mut Net) -> String {
    net.hears(1);
    net.signals(1, 11, 12, 1);
    net.pass(HOLD + HEARTBEAT / 4);
    net.hears(1).pop().unwrap_or_default()
}

const DELIVERED: &str = "outcome 12 delivered";

#[test]
fn a_forged_signal_counter_delays_a_pair_of_hubs_for_a_bounded_time() {
    let steps = [2, 500, 5_000, MAX_COUNTER_STEP, MAX_COUNTER_STEP + 1, 1 << 40, (1 << 62) - 10];
    for step in steps {
        for known in [false, true] {
            let mut net = triangle();
            if known {
                assert_eq!(outcome(&mut net), DELIVERED);
            }
            let forged = forged_signal(&net, step);
            receives(&mut net, 2, forged);
            net.pass(HEARTBEAT);
            let began = net.now.at;
            while outcome(&mut net) != DELIVERED {
                assert!(net.now.at < began + COUNT_PATIENCE + 2 * HEARTBEAT, "{step}");
            }
            if step > MAX_COUNTER_STEP + 1 && known {
                assert!(net.now.at < began + HEARTBEAT, "a counter that is too far ahead delays no signal: {step}");
                assert_eq!(net.hubs[&2].stats.numbers_refused, 1);
            }
            for _ in 0..5 {
                assert_eq!(outcome(&mut net), DELIVERED, "{step}");
            }
            net.pass(HEARTBEAT);
            net.nothing_is_left();
        }
    }
}

#[test]
fn after_a_forged_counter_only_the_first_signal_is_lost_if_signals_are_rare() {
    let mut net = triangle();
    assert_eq!(outcome(&mut net), DELIVERED);
    let forged = forged_signal(&net, 5_000);
    receives(&mut net, 2, forged);
    net.pass(HEARTBEAT);
    assert_ne!(outcome(&mut net), DELIVERED);
    for _ in 0..3 {
        net.pass(COUNT_PATIENCE);
        assert_eq!(outcome(&mut net), DELIVERED);
    }
}

#[test]
fn signals_continue_after_more_were_lost_than_may_be_in_flight() {
    let mut net = triangle();
    assert_eq!(outcome(&mut net), DELIVERED);
    net.hubs.get_mut(&1).unwrap().hubs.get_mut(&hub(2)).unwrap().outbound.lose(MAX_COUNTER_STEP + 1);
    let began = net.now.at;
    assert_eq!(outcome(&mut net), "outcome 12 unreachable");
    while outcome(&mut net) != DELIVERED {
        assert!(net.now.at < began + COUNT_PATIENCE + 2 * HEARTBEAT);
    }
    assert_eq!(outcome(&mut net), DELIVERED);
}

#[test]
fn delayed_signals_that_were_given_up_are_not_delivered() {
    let mut net = triangle();
    // Four signals are delayed, and the fifth uses another route.
    net.signals(1, 11, 12, 0);
    net.stopped = Some(2);
    (0..4).for_each(|_| net.signals(1, 11, 12, 1));
    net.stopped = None;
    let late: Vec<_> = std::mem::take(&mut net.waits);
    net.signals(1, 11, 12, 1);
    net.pass(HOLD + HEARTBEAT);
    net.hears(2);
    for signal in late {
        if signal.2.kind() == EnvelopeKind::Signal {
            net.under_way.push_back(signal);
            net.run();
            net.pass((COUNT_PATIENCE - HEARTBEAT) / 4);
        }
    }
    assert_eq!(net.hears(2), [""; 0]);
    assert_eq!(outcome(&mut net), DELIVERED);
    assert_eq!(net.hubs[&2].hubs[&hub(1)].inbound.len(), 0);
}

fn change(net: &Net, seq: u64, peer: u8, kind: ChangeKind) -> Envelope {
    let incarnation = net.hubs[&1].incarnation();
    let session = PeerIncarnation(77);
    Envelope::Change(Arc::new(Change { hub: hub(1), incarnation, seq, peer: id(peer), session, kind }))
}

fn requests(net: &Net) -> u64 {
    net.hubs.values().map(|relay| relay.stats.sent[EnvelopeKind::SnapshotRequest as usize]).sum()
}

fn agree(net: &Net, n: u8) -> bool {
    let (own, replica) = (&net.hubs[&1].own, &net.hubs[&n].hubs[&hub(1)].holding);
    (own.seq, own.digest) == (replica.seq, replica.digest)
}

#[test]
fn a_forged_change_far_ahead_is_forgotten_and_causes_few_snapshots() {
    for seq in [9, 1 << 20, 1 << 62] {
        let mut net = triangle();
        let before = requests(&net);
        for more in 0..3 {
            let forged = change(&net, seq - more, 99, ChangeKind::Up);
            receives(&mut net, 2, forged);
        }
        net.pass(DOUBTED);
        assert!([2, 3].iter().all(|n| net.hubs[n].hubs[&hub(1)].ahead.is_empty()), "{seq}");
        assert!(requests(&net) - before <= 2 * 5, "{seq}: {}", requests(&net) - before);
        let after = requests(&net);
        net.pass(20 * HEARTBEAT);
        assert_eq!(requests(&net), after, "{seq}");
        net.nothing_is_left();
        net.hears(2);
        net.joins(1, 20, 0);
        assert_eq!(net.hears(2), ["elsewhere 20", "joined 20 n"], "{seq}");
    }
}

#[test]
fn forged_changes_in_order_are_removed_even_if_their_hub_makes_no_change() {
    for count in [1, 40] {
        let mut net = triangle();
        let seq = net.hubs[&1].own.seq;
        for n in 1..=count {
            let forged = change(&net, seq + n, 100, if n % 2 == 1 { ChangeKind::Up } else { ChangeKind::Down(LEFT) });
            receives(&mut net, 2, forged);
        }
        assert!(!agree(&net, 2));
        let before = requests(&net);
        net.pass(DOUBTED);
        assert!(agree(&net, 2) && agree(&net, 3), "{count}");
        assert!(requests(&net) - before <= 4, "{count}");
        net.pass(20 * HEARTBEAT);
        assert!(requests(&net) - before <= 4, "{count}");
        net.nothing_is_left();
        net.hears(2);
        net.joins(1, 20, 0);
        assert_eq!(net.hears(2), ["elsewhere 20", "joined 20 n"], "{count}");
    }
}

const LEFT: crate::reason::LeaveReason = crate::reason::LeaveReason::Closed(CloseReason::ClientClosed);

#[test]
fn along_a_chain_forged_changes_are_removed_hub_by_hub() {
    let mut net = Net::chain(5);
    net.joins(1, 7, 0);
    net.pass(2 * HEARTBEAT);
    let seq = net.hubs[&1].own.seq + 1;
    let forged = change(&net, seq, 100, ChangeKind::Up);
    let via = Hop::Link(net.hubs[&2].links.used_for(&hub(1)).unwrap());
    net.input(2, RelayInput::Received { via, envelope: forged });
    net.run();
    assert!((2..=5).all(|n| net.hubs[&n].locate(&id(100)) == Some(hub(1))));
    net.pass(3 * DOUBTED);
    assert!((2..=5).all(|n| agree(&net, n)));
    net.nothing_is_left();
}

/// Lets hub 2 miss a change of hub 1, so that hub 2 requests a snapshot. The asked hub answers with the parts that
/// `part` returns.
fn repairs(net: &mut Net, part: impl FnOnce(&SnapshotPart) -> Vec<SnapshotPart>) {
    net.loses = |envelope| matches!(envelope.kind(), EnvelopeKind::Change | EnvelopeKind::Snapshot);
    net.joins(1, 20, 0);
    net.pass(HEARTBEAT + 2 * GAP_PATIENCE);
    let asked = net.hubs[&2].hubs[&hub(1)].repair.asked().unwrap();
    net.loses = |_| false;
    let own = &net.hubs[&1].own;
    let (incarnation, seq, digest) = (net.hubs[&1].incarnation(), own.seq, own.digest);
    let peers = own.peers.values().cloned().collect();
    let whole = SnapshotPart { hub: hub(1), incarnation, seq, digest, part: 0, last: true, peers };
    for part in part(&whole) {
        net.input(2, RelayInput::Received { via: asked, envelope: Envelope::Snapshot(Box::new(part)) });
        net.run();
    }
}

#[test]
fn a_snapshot_with_too_great_a_change_number_is_replaced() {
    for beyond in [1, 50, 1 << 40] {
        let mut net = triangle();
        let asked = |net: &Net| net.hubs[&2].stats.sent[EnvelopeKind::SnapshotRequest as usize];
        repairs(&mut net, |whole| vec![SnapshotPart { seq: whole.seq + beyond, ..whole.clone() }]);
        assert_eq!(net.hubs[&2].hubs[&hub(1)].holding.seq, net.hubs[&1].own.seq + beyond);
        net.joins(1, 21, 0);
        let before = asked(&net);
        net.pass(DOUBTED + HEARTBEAT);
        assert!(agree(&net, 2), "{beyond}");
        assert_eq!(net.hubs[&2].locate(&id(21)), Some(hub(1)), "{beyond}");
        net.pass(20 * HEARTBEAT);
        assert!(asked(&net) - before <= 2, "{beyond}: {}", asked(&net) - before);
        net.nothing_is_left();
    }
}

#[test]
fn a_sender_of_wrong_snapshots_is_asked_rarely_and_other_neighbours_are_asked_too() {
    let mut net = triangle();
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Snapshot;
    let wrong = |net: &mut Net| {
        let sync = net.hubs[&2].hubs[&hub(1)].repair.asked()?;
        let own = &net.hubs[&1].own;
        let (incarnation, seq) = (net.hubs[&1].incarnation(), own.seq);
        let part = SnapshotPart { hub: hub(1), incarnation, seq, digest: 0, part: 0, last: true, peers: Vec::new() };
        net.input(2, RelayInput::Received { via: sync, envelope: Envelope::Snapshot(Box::new(part)) });
        net.run();
        Some(sync)
    };
    // One change is missing at hub 2, and every asked hub answers with an empty snapshot.
    let own = net.hubs[&1].own.seq;
    let forged = change(&net, own + 1, 99, ChangeKind::Up);
    receives(&mut net, 2, forged);
    net.joins(1, 20, 0);
    let before = requests(&net);
    let mut asked = Vec::new();
    let until = net.now.at + Duration::from_secs(60);
    while net.now.at < until {
        net.pass(HEARTBEAT / 4);
        asked.extend(wrong(&mut net));
    }
    let vias: std::collections::BTreeSet<_> = asked.iter().collect();
    assert!(vias.len() == 2, "{asked:?}");
    assert!((5..=14).contains(&asked.len()), "{}", asked.len());
    assert!(requests(&net) - before < 40, "{}", requests(&net) - before);
    net.loses = |_| false;
    net.pass(12 * HEARTBEAT);
    assert!(agree(&net, 2));
    net.nothing_is_left();
}

#[test]
fn a_snapshot_without_an_end_is_refused() {
    // The parts are empty, or all have the same peer.
    for bytes in [0, 1] {
        let mut net = triangle();
        repairs(&mut net, |whole| {
            let part = |n| SnapshotPart { part: n, last: false, peers: whole.peers[..bytes].to_vec(), ..whole.clone() };
            vec![part(0), part(1), part(2)]
        });
        let relay = &net.hubs[&2];
        assert!(!relay.hubs[&hub(1)].repair.is_under_way() && relay.stats.snapshots_refused > 0);
        // Hub 3 has lost the same change, and first waits for its own snapshot.
        net.pass(3 * SNAPSHOT_PATIENCE);
        assert!(agree(&net, 2));
        net.nothing_is_left();
    }
}

/// Sends an endless snapshot to hub 2, in parts of `peers` peers at the interval `every`. Returns the time after which
/// hub 2 gives up the snapshot.
fn trickles(peers: usize, every: Duration) -> Duration {
    let mut net = triangle();
    let mut parts = Vec::new();
    repairs(&mut net, |whole| {
        parts.push(whole.clone());
        vec![]
    });
    let whole = parts.remove(0);
    let began = net.now.at;
    let via = net.hubs[&2].hubs[&hub(1)].repair.asked().unwrap();
    for n in 0u32.. {
        let peer = |k: usize| {
            let mut bytes = [0; 20];
            bytes[..8].copy_from_slice(&(u64::from(n) * 1000 + k as u64).to_be_bytes());
            let presence = Presence { peer: PeerId::from_bytes(bytes), ..(*whole.peers[0]).clone() };
            Arc::new(presence)
        };
        let part = SnapshotPart { part: n, last: false, peers: (0..peers).map(peer).collect(), ..whole.clone() };
        let deadline = |net: &Net| net.hubs[&2].hubs[&hub(1)].repair.deadline();
        let before = deadline(&net);
        let relay = net.hubs.get_mut(&2).unwrap();
        let now = Now { at: began + every * n, wall_ms: 0 };
        if before.is_none_or(|at| at <= now.at) {
            return before.unwrap() - began;
        }
        relay.handle_input(RelayInput::Received { via, envelope: Envelope::Snapshot(Box::new(part)) }, now);
        while relay.poll_output().is_some() {}
        assert!(now.at < began + 2 * SNAPSHOT_LIMIT);
    }
    unreachable!()
}

#[test]
fn a_slow_snapshot_is_given_up_and_a_fast_one_has_a_time_limit() {
    assert!(trickles(1, SNAPSHOT_PATIENCE / 2) < SNAPSHOT_SLACK + HEARTBEAT);
    let flows = trickles(200, HEARTBEAT);
    assert!((SNAPSHOT_LIMIT - HEARTBEAT..=SNAPSHOT_LIMIT).contains(&flows), "{flows:?}");
}

#[test]
fn a_peer_with_too_many_or_unsorted_networks_makes_a_snapshot_invalid() {
    let network = |n: usize| NetworkName::new(&format!("{n:05}"));
    let in_networks = |presence: &Presence, names: Vec<NetworkName>| {
        let announcement = |network| Arc::new(Announcement { network, ..(*presence.memberships[0]).clone() });
        Arc::new(Presence { memberships: names.into_iter().map(announcement).collect(), ..presence.clone() })
    };
    for (names, is_sound) in [
        (vec![1, 2, 3], true),
        (vec![2, 1], false),
        (vec![1, 1], false),
        ((0..MAX_MEMBERSHIPS).collect(), true),
        ((0..=MAX_MEMBERSHIPS).collect(), false),
    ] {
        let mut net = triangle();
        let names: Vec<_> = names.into_iter().map(network).collect();
        repairs(&mut net, |whole| {
            let peers = vec![in_networks(&whole.peers[0], names)];
            let digest = crate::relay::holding::digest(peers.iter());
            vec![SnapshotPart { peers, digest, ..whole.clone() }]
        });
        assert_eq!(net.hubs[&2].stats.snapshots_refused == 0, is_sound);
    }
}

#[test]
fn changes_cannot_give_a_peer_more_than_its_maximum_number_of_networks() {
    let mut net = triangle();
    let (known, seq) = (&net.hubs[&1].own.peers[&id(11)], net.hubs[&1].own.seq);
    let (session, membership) = (known.session, Arc::clone(&known.memberships[0]));
    let incarnation = net.hubs[&1].incarnation();
    for n in 0..=MAX_MEMBERSHIPS as u64 {
        let network = NetworkName::new(&format!("{n:05}"));
        let kind = ChangeKind::Joined(Arc::new(Announcement { network, ..(*membership).clone() }));
        let change = Change { hub: hub(1), incarnation, seq: seq + 1 + n, peer: id(11), session, kind };
        net.input(
            2,
            RelayInput::Received {
                via: Hop::Link(net.hubs[&2].links.used_for(&hub(3)).unwrap()),
                envelope: Envelope::Change(Arc::new(change)),
            },
        );
    }
    assert_eq!(net.hubs[&2].hubs[&hub(1)].holding.peers[&id(11)].memberships.len(), MAX_MEMBERSHIPS);
    assert!(net.hubs[&2].stats.presence_refused[PresenceRefusal::Networks as usize] > 0);
    net.run();
    net.pass(DOUBTED);
    assert!(agree(&net, 2));
}

#[test]
fn a_signal_that_is_nested_too_deeply_is_refused_and_its_link_stays_open() {
    for (depth, outcome) in [(MAX_SIGNAL_DEPTH, "delivered"), (MAX_SIGNAL_DEPTH + 1, "invalid-message")] {
        let mut net = triangle();
        let ToMesh::Signal(SignalLetter { from, target, origin, .. }) = net.signal(11, 12, 1, false) else { panic!() };
        let data = ["[".repeat(depth), "]".repeat(depth)].concat();
        let mut frame = Vec::new();
        let range = wire::signal(&mut frame, SignalKind::Offer, &data, &from, &target, "n", 0);
        net.letter(1, ToMesh::Signal(SignalLetter { origin, from, target, frame: frame[range].into() }));
        net.pass(HEARTBEAT);
        assert_eq!(net.hears(1), [format!("outcome 12 {outcome}")]);
        assert_eq!(self::outcome(&mut net), DELIVERED);
        net.nothing_is_left();
    }
}
