//! Tests of signals, outcomes and takeovers between hubs.

use super::*;

#[test]
fn a_signal_goes_hop_by_hop_and_its_outcome_returns() {
    let mut net = Net::chain(4);
    net.joins(1, 7, 0);
    net.joins(4, 8, 0);
    net.pass(HEARTBEAT * 2);
    net.hears(4);
    net.hears(1);
    for ticket in [1, 0, 2] {
        net.signals(1, 7, 8, ticket);
    }
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(4), ["signal 7 8", "signal 7 8", "signal 7 8"]);
    assert_eq!(
        net.hears(1),
        ["outcome 8 delivered", "outcome 8 delivered"],
        "shards receive an outcome letter only for signals with a receipt"
    );
    let now = net.now;
    let stats = net.hubs.get_mut(&1).unwrap().stats(now).clone();
    assert_eq!((stats.relayed, stats.delivered, stats.latency.iter().sum::<u64>()), (3, 1, 3));
    assert_eq!(net.signals, 9, "each of the three signals crosses three links");
    net.nothing_is_left();
}

#[test]
fn a_signal_that_is_lost_on_a_link_gets_the_outcome_unknown() {
    let mut net = Net::full(2);
    net.joins(1, 7, 0);
    net.joins(2, 8, 0);
    net.pass(HEARTBEAT);
    net.hears(1);
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Signal;
    net.signals(1, 7, 8, 0);
    net.pass(RECEIPT_TIMEOUT + HEARTBEAT);
    assert_eq!(net.hears(1), ["outcome 8 unknown"]);
}

#[test]
fn a_takeover_asks_the_hub_at_which_the_id_has_a_session() {
    let mut net = Net::chain(3);
    net.joins(3, 7, 0);
    net.pass(HEARTBEAT);
    net.hears(3);
    net.hears(1);
    net.letter(1, ToMesh::AskTakeover { peer: id(7), shard: ShardId(0), ticket: 5, resume: None, owner: false });
    assert_eq!(net.hears(3), ["challenge 7"]);
    let life = net.hubs[&1].incarnation();
    let asker = Asker { hub: hub(1), incarnation: life, ticket: 5 };
    net.letter(3, ToMesh::ChallengeAnswered { peer: id(7), asker, in_use: true });
    assert_eq!(net.hears(1), ["answered 5 true"]);
    net.cut(2, 3);
    net.pass(HEARTBEAT * 4);
    net.letter(1, ToMesh::AskTakeover { peer: id(7), shard: ShardId(0), ticket: 6, resume: None, owner: false });
    assert_eq!(net.hears(1), ["answered 6 false"], "a session at an unreachable hub does not keep its id");
}

/// After the target has joined a network, the sender's shard posts signals directly to the mesh. A detoured signal
/// could arrive after these direct signals.
#[test]
fn a_detoured_signal_is_not_delivered_after_its_target_has_joined() {
    let mut net = Net::chain(2);
    net.opens(1, 7, 0);
    net.joins(2, 8, 0);
    net.pass(HEARTBEAT);
    net.hears(2);
    net.signals_by_detour(2, 8, 7, 1);
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(2), ["outcome 7 delivered"]);
    net.announces(1, 7, 0, Stay::default());
    net.hears(2);
    net.signals_by_detour(2, 8, 7, 2);
    assert_eq!(net.hears(2), ["outcome 7 peer-not-found"]);
    net.says_goodbye(1, 7, 0);
    net.hears(2);
    net.signals_by_detour(2, 8, 7, 3);
    assert_eq!(net.hears(2), ["outcome 7 peer-not-found"], "the target has left the network again");
    // A new session of the target counts as never having joined a network.
    net.leaves(1, 7, 0);
    net.opens(1, 7, 1);
    net.hears(2);
    net.signals_by_detour(2, 8, 7, 4);
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(2), ["outcome 7 delivered"]);
    // The next sender, peer 9, sends its signal before its announcement arrives.
    net.opens(2, 9, 0);
    net.signals_by_detour(2, 9, 7, 5);
    assert_eq!(net.hears(2), ["outcome 7 peer-not-found"]);
}

#[test]
fn a_signal_of_a_departed_sender_is_not_delivered() {
    let mut net = Net::chain(2);
    net.joins(1, 7, 0);
    net.joins(2, 8, 0);
    net.pass(HEARTBEAT);
    net.signals(1, 7, 8, 1);
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(2).pop().unwrap(), "signal 7 8");
    net.hears(1);
    // The sender's leave arrives over a shorter route than its signal.
    let signal = net.signal(7, 8, 2, false);
    net.input(1, RelayInput::Letter(signal));
    let late = net.under_way.pop_back();
    net.leaves(1, 7, 0);
    assert_eq!(net.hears(2), ["left 7 n peer-disconnected", "nowhere 7"]);
    net.under_way.extend(late);
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(2), [""; 0]);
    assert_eq!(net.hears(1), ["outcome 8 unreachable"]);
    net.nothing_is_left();
}

#[test]
fn a_takeover_is_forwarded_over_a_full_link() {
    let mut net = Net::chain(3);
    net.joins(3, 7, 0);
    net.pass(HEARTBEAT);
    let link = net.hubs[&2].links.used_for(&hub(3)).unwrap();
    net.input(2, RelayInput::Saturated { transport: Transport::Link(link) });
    net.hears(1);
    net.hears(3);
    net.letter(1, ToMesh::AskTakeover { peer: id(7), shard: ShardId(0), ticket: 5, resume: None, owner: false });
    assert_eq!(net.hears(3), ["challenge 7"]);
    assert_eq!(net.hears(1), [""; 0], "only the session at hub 3 may answer");
}

#[test]
fn an_outcome_for_an_earlier_incarnation_is_ignored() {
    let mut net = Net::full(2);
    net.joins(2, 8, 0);
    net.pass(HEARTBEAT);
    let number = net.hubs[&2].hubs[&hub(1)].number();
    net.kill(1);
    net.now.wall_ms += 1;
    net.start(1);
    net.link(1, 2);
    net.joins(1, 7, 1);
    net.pass(HEARTBEAT * 2);
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Signal;
    net.signals(1, 7, 8, 3);
    net.hears(1);
    let sender = Sender::Hub { hub: number, counter: 1, receipt: true };
    let (kind, network, standing) = (SignalKind::Offer, NetworkName::new("n"), Standing::Member(0));
    let origin = Origin { sender, kind, network, standing, read_at: net.now.at };
    net.letter(2, ToMesh::Outcome(OutcomeLetter { origin, target: id(8), outcome: Outcome::Delivered }));
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(1), [""; 0]);
}
