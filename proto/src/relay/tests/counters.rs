//! Tests of the counters of a relay, and of envelopes of an ended incarnation.

use super::legacy::discovered;
use super::numbers::{forged_signal, receives, triangle};
use super::*;
use crate::envelope::{RouteHeader, Routed};
use crate::limits::{HOLD, LINK_SILENCE, MAX_MEMBERSHIPS};
use crate::relay::holding::PresenceRefusal;

#[test]
fn each_signal_is_counted_at_its_senders_hub_and_at_each_forwarding_hub() {
    let mut net = Net::chain(3);
    net.joins(1, 11, 0);
    net.joins(3, 13, 0);
    net.pass(2 * HEARTBEAT);
    for _ in 0..3 {
        net.signals(1, 11, 13, 1);
    }
    net.pass(HEARTBEAT);
    let counts = |n: u8| (net.hubs[&n].stats.relayed, net.hubs[&n].stats.forwarded);
    assert_eq!([counts(1), counts(2), counts(3)], [(3, 0), (0, 3), (0, 0)]);
}

#[test]
fn a_signal_of_an_ended_incarnation_is_not_delivered() {
    let mut net = triangle();
    let Envelope::Routed(route, signal) = forged_signal(&net, 1) else { panic!() };
    let earlier = RouteHeader { from_incarnation: HubIncarnation(route.from_incarnation.0 - 1), ..route };
    receives(&mut net, 2, Envelope::Routed(earlier, signal.clone()));
    assert_eq!(net.hears(2), [""; 0]);
    receives(&mut net, 2, Envelope::Routed(route, signal));
    assert_eq!(net.hears(2), ["signal 11 12"]);
}

#[test]
fn outcomes_of_an_ended_incarnation_count_as_late_and_reach_no_sender() {
    let mut net = triangle();
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Signal;
    net.signals(1, 11, 12, 1);
    let lives = [1, 2].map(|n| net.hubs[&n].incarnation());
    let outcomes = |life| {
        let route = RouteHeader { to: hub(1), to_incarnation: lives[0], from: hub(2), from_incarnation: life, hops: 1 };
        Envelope::Routed(route, Box::new(Routed::Outcomes(vec![(1, Outcome::Delivered), (2, Outcome::Delivered)])))
    };
    receives(&mut net, 1, outcomes(HubIncarnation(lives[1].0 - 1)));
    assert_eq!((net.hears(1), net.hubs[&1].stats.late_outcomes), (vec![], 2));
    receives(&mut net, 1, outcomes(lives[1]));
    assert_eq!(net.hears(1), ["outcome 12 delivered"]);
    assert_eq!(net.hubs[&1].stats.late_outcomes, 3, "no signal with counter 2 waits for an outcome");
}

#[test]
fn a_signal_waits_for_an_earlier_signal_for_a_fixed_time_and_its_repetition_is_counted() {
    let mut net = triangle();
    net.signals(1, 11, 12, 1);
    net.hears(2);
    for _ in 0..2 {
        let forged = forged_signal(&net, 3);
        receives(&mut net, 2, forged);
    }
    assert_eq!(net.hubs[&2].stats.out_of_order, 1);
    net.pass(HOLD - Duration::from_millis(100));
    assert_eq!(net.hears(2), [""; 0]);
    net.pass(Duration::from_millis(200));
    assert_eq!(net.hears(2), ["signal 11 12"]);
}

#[test]
fn a_link_that_carries_nothing_in_one_direction_counts_once_at_each_end() {
    let mut net = triangle();
    net.swallows = vec![(2, 1)];
    net.pass(LINK_SILENCE + 2 * HEARTBEAT);
    assert_eq!([1, 2, 3].map(|n| net.hubs[&n].stats.link_silences), [1, 1, 0]);
}

/// Answers about takeovers, which the relay has posted to shards. Each answer has the shard, the ticket, and whether the id
/// is in use.
fn answers(relay: &mut Relay) -> Vec<(ShardId, u64, bool)> {
    let answer = |output| {
        let RelayOutput::Letter { to, letter: ToShard::TakeoverAnswered { ticket, in_use, .. } } = output else {
            return None;
        };
        Some((to, ticket, in_use))
    };
    std::iter::from_fn(|| relay.poll_output()).filter_map(answer).collect()
}

#[test]
fn the_answer_to_a_takeover_goes_to_the_shard_that_asked() {
    let mut net = Net::full(2);
    net.joins(2, 12, 0);
    net.pass(HEARTBEAT);
    let now = net.now;
    let relay = net.hubs.get_mut(&1).unwrap();
    relay.config.shards = 4;
    for (shard, ticket) in [(0, 1), (3, 5), (3, (1 << 48) - 1)] {
        let ask = ToMesh::AskTakeover { peer: id(12), shard: ShardId(shard), ticket, resume: None, owner: false };
        relay.handle_input(RelayInput::Letter(ask), now);
        let sent = std::iter::from_fn(|| relay.poll_output()).find_map(|output| {
            let RelayOutput::Send { envelope: Envelope::Routed(route, routed), .. } = output else { return None };
            Some((route, routed))
        });
        let Some((route, routed)) = sent else { panic!("hub 2 was not asked") };
        let Routed::Takeover { peer, ticket: of_hub, .. } = *routed else { panic!("{routed:?}") };
        let back = RouteHeader {
            to: route.from,
            to_incarnation: route.from_incarnation,
            from: route.to,
            from_incarnation: route.to_incarnation,
            hops: 0,
        };
        for in_use in [true, false] {
            let answer = Routed::TakeoverAnswer { peer, ticket: of_hub, in_use };
            let via = Hop::Link(relay.links.used_for(&hub(2)).unwrap());
            let envelope = Envelope::Routed(back, Box::new(answer));
            relay.handle_input(RelayInput::Received { via, envelope }, now);
            assert_eq!(answers(relay), [(ShardId(shard), ticket, in_use)]);
        }
    }
    assert_eq!(relay.stats.takeovers, [3, 3]);
}

#[test]
fn networks_beyond_the_maximum_of_a_peer_are_counted() {
    let mut net = Net::new(1);
    net.opens(1, 11, 0);
    let claim = net.claim(1, 0);
    for n in 0..MAX_MEMBERSHIPS + 2 {
        let data = crate::codec::describe(&id(11), None).unwrap();
        let network = NetworkName::new(&n.to_string());
        let discovered = Arc::new(wire::peer_discovered(&data, claim.incarnation, network.as_str(), 0));
        let stay = Stay::default();
        let announcement = Announcement { peer: id(11), network, claim, remote: false, stay, discovered };
        net.letter(1, ToMesh::Joined(Arc::new(announcement)));
    }
    assert_eq!(net.hubs[&1].stats.presence_refused[PresenceRefusal::Networks as usize], 2);
}

#[test]
fn messages_of_a_go_hub_that_are_refused_are_counted() {
    let mut net = Net::new(1);
    let link = LinkId(99);
    net.input(1, RelayInput::LegacyUp { link, hub: hub(50), dialed: true });
    for text in ["", "[]", r#"{"type":5}"#] {
        net.input(1, RelayInput::LegacyText { link, text });
    }
    net.input(1, RelayInput::LegacyText { link, text: &discovered(7, "n") });
    assert_eq!(net.hubs[&1].stats.legacy_refused, 3);
    assert_eq!(net.hubs[&1].locate(&id(7)), Some(hub(1)), "valid messages are processed");
}

#[test]
fn outcomes_include_delivered_signals_and_signals_sent_to_a_go_hub() {
    let mut net = Net::full(2);
    net.joins(1, 11, 0);
    net.joins(2, 12, 0);
    net.input(2, RelayInput::LegacyUp { link: LinkId(99), hub: hub(50), dialed: true });
    net.input(2, RelayInput::LegacyText { link: LinkId(99), text: &discovered(7, "n") });
    net.run();
    net.pass(HEARTBEAT);
    for target in [12, 7, 7] {
        net.signals(1, 11, target, 0);
    }
    net.pass(HEARTBEAT);
    let stats = &net.hubs[&1].stats;
    assert_eq!((stats.delivered, stats.forwarded_to_go, stats.outcomes()), (1, 2, 3));
}

#[test]
fn a_lost_hub_and_its_peers_are_counted() {
    let mut net = Net::full(2);
    for peer in 11..14 {
        net.joins(1, peer, 0);
    }
    net.pass(HEARTBEAT);
    net.kill(1);
    net.pass(GONE);
    let stats = &net.hubs[&2].stats;
    assert_eq!((stats.hubs_lost, stats.ghosts_evicted), (1, 3));
}

#[test]
fn late_heartbeats_and_repeated_changes_are_duplicates() {
    let mut net = triangle();
    let duplicates = |net: &Net| net.hubs[&2].stats.duplicates;
    let beat = Arc::clone(net.hubs[&2].hubs[&hub(1)].beat());
    let before = duplicates(&net);
    receives(&mut net, 2, Envelope::Heartbeat(Arc::clone(&beat)));
    assert_eq!(duplicates(&net) - before, 1, "the heartbeat is known");
    net.input(1, RelayInput::Ending);
    net.run();
    let before = duplicates(&net);
    receives(&mut net, 2, Envelope::Heartbeat(beat));
    assert_eq!(duplicates(&net) - before, 1, "the incarnation of the heartbeat has ended");
}

#[test]
fn a_hub_is_shown_without_a_route_from_the_end_of_its_lease() {
    let net = Net::full(2);
    let lease_ends = net.hubs[&1].hubs[&hub(2)].lease_ends();
    let routed = |at: Duration| net.hubs[&1].hubs(Now { at, wall_ms: 0 })[0].next_hop.is_some();
    assert!(routed(lease_ends - Duration::from_millis(1)));
    assert!(!routed(lease_ends));
    assert!(!routed(lease_ends + Duration::from_millis(1)));
}

#[test]
fn the_age_of_the_oldest_presence_counts_only_hubs_with_peers() {
    let mut net = Net::full(2);
    let age = |net: &mut Net| {
        let now = Now { at: net.hubs[&1].hubs[&hub(2)].beat_at() + Duration::from_millis(700), wall_ms: 0 };
        net.hubs.get_mut(&1).unwrap().stats(now).ghost_age_ms
    };
    assert_eq!(age(&mut net), 0);
    net.joins(2, 12, 0);
    assert_eq!(age(&mut net), 700);
    net.leaves(2, 12, 0);
    assert_eq!(age(&mut net), 0);
}

#[test]
fn the_answer_to_a_takeover_for_a_shard_that_does_not_exist_is_ignored() {
    let mut net = triangle();
    let lives = [1, 2].map(|n| net.hubs[&n].incarnation());
    let route = RouteHeader { to: hub(1), to_incarnation: lives[0], from: hub(2), from_incarnation: lives[1], hops: 1 };
    for (shard, posted) in [(0_u64, 1), (1, 0), (500, 0)] {
        let answer = Routed::TakeoverAnswer { peer: id(12), ticket: shard << 48 | 5, in_use: true };
        receives(&mut net, 1, Envelope::Routed(route, Box::new(answer)));
        assert_eq!(net.hears(1).len(), posted, "{shard}");
    }
}

#[test]
fn changes_of_unknown_incarnations_and_repeated_changes_are_duplicates() {
    let mut net = triangle();
    let claim = net.claim(1, 0);
    let known = net.hubs[&2].hubs[&hub(1)].holding.seq;
    let change = |net: &Net, of: u8, later: u64, seq: u64| {
        let incarnation = HubIncarnation(net.hubs[&1].incarnation().0 + later);
        let kind = crate::envelope::ChangeKind::Up;
        let change =
            crate::envelope::Change { hub: hub(of), incarnation, seq, peer: id(40), session: claim.incarnation, kind };
        Envelope::Change(Arc::new(change))
    };
    let before = net.hubs[&2].stats.duplicates;
    for (n, (of, later, seq)) in (1..).zip([(99, 0, 1), (1, 5, known + 1), (1, 0, known)]) {
        let envelope = change(&net, of, later, seq);
        receives(&mut net, 2, envelope);
        assert_eq!(net.hubs[&2].stats.duplicates - before, n);
        assert_eq!(net.hubs[&2].locate(&id(40)), None);
    }
    let next = change(&net, 1, 0, known + 1);
    receives(&mut net, 2, next);
    assert_eq!(net.hubs[&2].locate(&id(40)), Some(hub(1)));
    assert_eq!(net.hubs[&2].stats.duplicates - before, 3);
    // A change that waits for a missing change arrives a second time.
    for _ in 0..2 {
        let ahead = change(&net, 1, 0, known + 3);
        receives(&mut net, 2, ahead);
    }
    assert_eq!(net.hubs[&2].stats.duplicates - before, 4);
}

#[test]
#[should_panic(expected = "impossible state outputs-left: 1 outputs")]
fn outputs_that_are_left_for_the_next_input_are_detected() {
    let mut net = Net::full(2);
    let (now, relay) = (net.now, net.hubs.get_mut(&1).unwrap());
    let claim = Claim { incarnation: PeerIncarnation(1_000), hub: hub(1) };
    for n in 30..32 {
        relay.handle_input(RelayInput::Letter(ToMesh::Opened { peer: id(n), claim }), now);
    }
}
