//! Tests of bounds that other hubs can reach.

use super::numbers::{forged_signal, receives, triangle};
use super::*;
use crate::envelope::{Change, ChangeKind, Heartbeat, Routed};
use crate::limits::{
    EXTRA_BEAT_PAUSE, GAP_PATIENCE, HOLD, HUB_MEMORY, MAX_ANNOUNCE_DATA_BYTES, MAX_CHANGES_AHEAD, MAX_HOPS, MAX_HUBS,
    MAX_OUTCOMES, MAX_SIGNALS_HELD, OUTCOME_DELAY, ROUTE_PATIENCE, SNAPSHOT_BYTES,
};
use crate::relay::holding::PresenceRefusal;
use crate::relay::remote::Paths;

/// The id of a hub that does not exist.
fn invented(n: usize) -> HubId {
    let mut bytes = [0xee; 20];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    HubId(PeerId::from_bytes(bytes))
}

#[test]
fn heartbeats_of_more_hubs_than_a_hub_remembers_are_ignored() {
    let mut net = Net::full(2);
    net.joins(2, 8, 0);
    let link = Hop::Link(net.hubs[&1].links.used_for(&hub(2)).unwrap());
    let known: Heartbeat = (**net.hubs[&1].hubs[&hub(2)].beat()).clone();
    for n in 0..MAX_HUBS + 10 {
        let beat =
            Heartbeat { hub: invented(n), number: 1, seq: 0, digest: 0, neighbours: Vec::new(), ..known.clone() };
        net.input(1, RelayInput::Received { via: link, envelope: Envelope::Heartbeat(Arc::new(beat)) });
    }
    net.run();
    let is_known = |net: &Net, n| net.hubs[&1].hubs.contains_key(&invented(n));
    assert_eq!(net.hubs[&1].hubs.len(), MAX_HUBS);
    assert!(
        is_known(&net, MAX_HUBS - 2) && !is_known(&net, MAX_HUBS - 1),
        "hub 2 and the first invented hubs are remembered"
    );
    assert_eq!(net.hubs[&1].stats.presence_refused, [11, 0, 0, 0, 0]);
    net.pass(GONE);
    assert_eq!(net.hubs[&1].locate(&id(8)), Some(hub(2)), "a known hub stays");
}

#[test]
fn hubs_that_a_neighbour_invents_do_not_displace_real_hubs() {
    let mut net = Net::full(3);
    let link = Hop::Link(net.hubs[&1].links.used_for(&hub(3)).unwrap());
    let known: Heartbeat = (**net.hubs[&1].hubs[&hub(3)].beat()).clone();
    let invents = |net: &mut Net, n| {
        let beat =
            Heartbeat { hub: invented(n), number: 1, seq: 0, digest: 0, neighbours: Vec::new(), ..known.clone() };
        net.input(1, RelayInput::Received { via: link, envelope: Envelope::Heartbeat(Arc::new(beat)) });
        net.under_way.clear();
    };
    (0..MAX_HUBS).for_each(|n| invents(&mut net, n));
    assert_eq!(net.hubs[&1].hubs.len(), MAX_HUBS);
    // Hub 4 is linked with hub 1, and hub 5 with hub 2.
    for (n, neighbour) in [(4, 1), (5, 2)] {
        net.start(n);
        net.link(n, neighbour);
        net.joins(n, 100 + n, 0);
        net.pass(3 * HEARTBEAT);
        invents(&mut net, MAX_HUBS + usize::from(n));
        assert_eq!(net.hubs[&1].locate(&id(100 + n)), Some(hub(n)), "hub {n}");
        net.hubs.get_mut(&1).unwrap().audit();
    }
    assert!([2, 3, 4, 5].iter().all(|n| net.hubs[&1].hubs[&hub(*n)].is_live()));
    assert!(net.hubs[&1].hubs.len() <= MAX_HUBS);
    assert!(net.hubs[&1].stats.presence_refused[PresenceRefusal::Hubs as usize] > 0);
    // The invented hubs stop sending, and make room for other hubs.
    net.pass(GONE);
    (0..10).for_each(|n| invents(&mut net, 2 * MAX_HUBS + n));
    assert!(net.hubs[&1].hubs.len() <= MAX_HUBS && net.hubs[&1].hubs[&hub(5)].is_live());
}

#[test]
fn a_hub_that_ended_is_remembered_for_a_time() {
    let mut net = Net::full(2);
    let began = net.now.at;
    net.kill(2);
    net.pass(HUB_MEMORY - 2 * HEARTBEAT);
    assert!(
        net.hubs[&1].hubs.contains_key(&hub(2)),
        "the hub is still remembered, so that its late envelopes are recognized"
    );
    net.pass(4 * HEARTBEAT);
    assert!(!net.hubs[&1].hubs.contains_key(&hub(2)), "{:?}", net.now.at - began);
}

/// Sends a signal along a chain over `links` links. Returns the letters that the sender's shard and the target's shard
/// received.
fn outcome_over(links: u8) -> (Vec<String>, Vec<String>) {
    let mut net = Net::chain(links + 1);
    net.joins(1, 207, 0);
    net.joins(links + 1, 208, 0);
    net.pass(2 * HEARTBEAT);
    net.hears(1);
    net.hears(links + 1);
    net.signals(1, 207, 208, 3);
    net.pass(HEARTBEAT);
    (net.hears(1), net.hears(links + 1))
}

#[test]
fn a_signal_crosses_a_bounded_number_of_links() {
    let (outcome, heard) = outcome_over(MAX_HOPS);
    assert_eq!((&outcome[..], &heard[..]), (&["outcome 208 delivered".into()][..], &["signal 207 208".into()][..]));
    let (outcome, heard) = outcome_over(MAX_HOPS + 1);
    assert_eq!((&outcome[..], &heard[..]), (&["outcome 208 unreachable".into()][..], &[][..]));
}

#[test]
fn waiting_changes_beyond_the_maximum_are_dropped_and_repaired() {
    let mut net = Net::full(2);
    net.joins(2, 8, 0);
    net.pass(HEARTBEAT);
    let via = Hop::Link(net.hubs[&1].links.used_for(&hub(2)).unwrap());
    let (seq, incarnation) = (net.hubs[&2].own.seq, net.hubs[&2].incarnation());
    // The next change does not arrive, but all changes after the next one arrive.
    for n in 2..MAX_CHANGES_AHEAD as u64 + 10 {
        let kind = ChangeKind::Up;
        let (peer, session) = (invented(n as usize).0, PeerIncarnation(n));
        let change = Change { hub: hub(2), incarnation, seq: seq + n, peer, session, kind };
        net.input(1, RelayInput::Received { via, envelope: Envelope::Change(Arc::new(change)) });
    }
    assert_eq!(net.hubs[&1].hubs[&hub(2)].ahead.len(), MAX_CHANGES_AHEAD);
    assert_eq!(net.hubs[&1].stats.presence_refused[PresenceRefusal::ChangesAhead as usize], 8);
    net.pass(10 * HEARTBEAT);
    let (own, replica) = (&net.hubs[&2].own, &net.hubs[&1].hubs[&hub(2)].holding);
    assert_eq!((own.seq, own.digest), (replica.seq, replica.digest));
    assert!(net.hubs[&1].hubs[&hub(2)].ahead.is_empty());
}

#[test]
fn a_hub_with_too_many_peers_costs_other_hubs_bounded_memory() {
    const MOST: usize = 4;
    let mut net = Net::new(0);
    net.start(2);
    net.tuning.max_peers_per_hub = MOST;
    net.start(1);
    net.link(1, 2);
    net.pass(HEARTBEAT);
    (10..20).for_each(|peer| net.joins(2, peer, 0));
    assert_eq!(net.hubs[&1].hubs[&hub(2)].holding.peers.len(), MOST, "changes add no more peers");
    assert!(net.hubs[&1].stats.presence_refused[PresenceRefusal::Peers as usize] > 0);
    net.pass(10 * HEARTBEAT);
    assert!(net.hubs[&1].hubs[&hub(2)].holding.peers.len() <= MOST, "a snapshot adds no more peers");
    assert!(net.hubs[&1].stats.snapshots_refused > 0);
    (10..17).for_each(|peer| net.leaves(2, peer, 0));
    net.pass(GONE);
    assert_eq!(
        net.hubs[&1].hubs[&hub(2)].holding.peers.len(),
        3,
        "all peers are known when their number is below the maximum again"
    );
    net.nothing_is_left();
}

#[test]
fn signals_beyond_the_maximum_in_flight_get_unreachable() {
    let mut net = Net::new(0);
    net.tuning.max_signals_in_flight = 3;
    net.start(1);
    net.start(2);
    net.link(1, 2);
    net.joins(1, 7, 0);
    net.joins(2, 8, 0);
    net.pass(HEARTBEAT);
    net.hears(1);
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Signal;
    (1..=4).for_each(|ticket| net.signals(1, 7, 8, ticket));
    assert_eq!(net.hears(1), ["outcome 8 unreachable"], "the fourth signal fails immediately");
    net.pass(RECEIPT_TIMEOUT + HEARTBEAT);
    assert_eq!(net.hears(1), [""; 0], "the senders' shards have reported `unknown` already");
    net.loses = |_| false;
    net.signals(1, 7, 8, 5);
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(1), ["outcome 8 delivered"], "there is room for signals again");
    net.nothing_is_left();
}

#[test]
fn waiting_signals_beyond_the_maximum_get_unreachable() {
    let mut net = triangle();
    // The signal with counter 1 never arrives.
    for counter in 2..MAX_SIGNALS_HELD as u64 + 2 {
        let forged = forged_signal(&net, counter);
        receives(&mut net, 2, forged);
    }
    assert_eq!(net.hubs[&2].hubs[&hub(1)].inbound.len(), MAX_SIGNALS_HELD);
    assert!(net.hubs[&2].hubs[&hub(1)].outcomes.collected().is_empty());
    let forged = forged_signal(&net, MAX_SIGNALS_HELD as u64 + 2);
    receives(&mut net, 2, forged);
    let remote = &net.hubs[&2].hubs[&hub(1)];
    assert_eq!(remote.inbound.len(), MAX_SIGNALS_HELD);
    assert!(matches!(remote.outcomes.collected(), [(_, Outcome::Failed(ErrorCode::Unreachable))]));
    net.hears(2);
    net.pass(HOLD + HEARTBEAT);
    assert_eq!(net.hears(2).len(), MAX_SIGNALS_HELD, "the held signals are delivered after the hold time");
    assert_eq!(net.hubs[&2].hubs[&hub(1)].inbound.len(), 0);
}

#[test]
fn outcomes_without_a_receipt_are_collected_for_a_time_and_up_to_a_number() {
    let sent = |net: &Net| net.hubs[&2].stats.sent[EnvelopeKind::Outcomes as usize];
    let mut net = triangle();
    net.signals(1, 11, 12, 0);
    let remote = |net: &Net| net.hubs[&2].hubs[&hub(1)].outcomes.due();
    assert_eq!((remote(&net), sent(&net)), (Some(net.now.at + OUTCOME_DELAY), 0));
    (2..MAX_OUTCOMES).for_each(|_| net.signals(1, 11, 12, 0));
    assert_eq!(remote(&net), Some(net.now.at + OUTCOME_DELAY));
    net.signals(1, 11, 12, 0);
    assert_eq!(remote(&net), Some(net.now.at), "the outcomes fill one envelope");
    net.signals(1, 11, 12, 0);
    net.loses = |envelope| {
        if let Envelope::Routed(_, routed) = envelope
            && let Routed::Outcomes(outcomes) = &**routed
        {
            assert!(outcomes.len() <= MAX_OUTCOMES, "{}", outcomes.len());
        }
        false
    };
    net.pass(HEARTBEAT);
    assert_eq!(sent(&net), 2, "one outcome does not fit into the first envelope");
    assert_eq!(net.hubs[&1].stats.delivered, MAX_OUTCOMES as u64 + 1);
    net.nothing_is_left();
}

#[test]
fn a_link_that_alternates_between_full_and_free_causes_few_heartbeats() {
    let mut net = Net::full(2);
    let link = Transport::Link(net.hubs[&1].links.used_for(&hub(2)).unwrap());
    let (before, began) = (net.hubs[&1].beats, net.now.at);
    while net.now.at < began + HEARTBEAT {
        net.input(1, RelayInput::Saturated { transport: link });
        net.input(1, RelayInput::Room { transport: link });
        net.pass(Duration::from_millis(50));
    }
    let most = HEARTBEAT.as_millis() / EXTRA_BEAT_PAUSE.as_millis();
    let beats = u128::from(net.hubs[&1].beats - before);
    assert!((most / 2..=most).contains(&beats), "{beats} in a second");
}

#[test]
fn signals_use_another_route_when_it_has_been_faster_for_some_heartbeats() {
    let (slow, fast) = (Hop::Link(LinkId(1)), Hop::Link(LinkId(2)));
    let mut paths = Paths::default();
    paths.note(slow, 1, true);
    assert_eq!(paths.best(), Some(slow));
    let mut number = 1;
    let mut beat = |paths: &mut Paths, first, second| {
        number += 1;
        paths.note(first, number, true);
        paths.note(second, number, false);
    };
    for _ in 1..ROUTE_PATIENCE {
        beat(&mut paths, fast, slow);
        assert_eq!(paths.best(), Some(slow));
    }
    beat(&mut paths, slow, fast);
    for _ in 1..ROUTE_PATIENCE {
        beat(&mut paths, fast, slow);
        assert_eq!(paths.best(), Some(slow), "the faster heartbeats must be successive");
    }
    beat(&mut paths, fast, slow);
    assert_eq!(paths.best(), Some(fast));
}

#[test]
fn a_part_of_a_snapshot_has_a_bounded_size_in_bytes() {
    let mut net = Net::full(2);
    let data = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_ANNOUNCE_DATA_BYTES - 20));
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Change;
    for peer in 10..30 {
        net.opens(1, peer, 0);
        net.announces_data(1, peer, 0, Stay::default(), Some(&data));
    }
    net.loses = |envelope| {
        if let Envelope::Snapshot(part) = envelope {
            let bytes = |peer: &Arc<crate::envelope::Presence>| peer.memberships[0].discovered.frame_len();
            let before: usize = part.peers.iter().rev().skip(1).map(bytes).sum();
            assert!(before < SNAPSHOT_BYTES, "only the last peer exceeds the limit");
            assert!(part.last || before + bytes(&part.peers[0]) >= SNAPSHOT_BYTES);
        }
        false
    };
    net.pass(2 * HEARTBEAT + 2 * GAP_PATIENCE);
    assert_eq!(net.hubs[&2].hubs[&hub(1)].holding.peers.len(), 20);
    assert!(net.hubs[&1].stats.sent[EnvelopeKind::Snapshot as usize] >= 4);
    net.nothing_is_left();
}
