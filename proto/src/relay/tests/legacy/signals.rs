//! Tests of signals between Go hubs and other hubs.

use super::*;

#[test]
fn if_two_hubs_are_linked_to_one_go_hub_one_forwards_its_signals() {
    let mut net = Net::full(2);
    net.joins(1, 8, 0);
    net.pass(HEARTBEAT);
    for n in [1, 2] {
        net.go_hub(n, LinkId(99));
        net.go_hub_says(n, LinkId(99), &discovered(7, "n"));
    }
    assert_eq!(net.hears(1), ["elsewhere 7", "joined 7 n"], "the first announcement counts");
    let (peer, target) = (id(7), id(8));
    let offer =
        format!(r#"{{"type":"offer","data":1,"fromPeerId":"{peer}","targetPeerId":"{target}","networkName":"n"}}"#);
    for n in [1, 2] {
        net.go_hub_says(n, LinkId(99), &offer);
    }
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(1), ["signal 7 8"]);
}

#[test]
fn the_first_signal_of_an_unannounced_go_peer_introduces_it() {
    for dialed in [true, false] {
        let mut net = Net::full(2);
        let link = LinkId(99);
        net.joins(2, 8, 0);
        net.joins(1, 9, 0);
        net.input(1, RelayInput::LegacyUp { link, hub: hub(50), dialed });
        net.hears(1);
        for (n, target) in [(2, 8), (1, 9)] {
            net.hears(n);
            net.go_hub_says(1, link, &offer(target + 10, target, "n"));
            let (from, heard) = (target + 10, net.hears(n));
            let signal = format!("signal {from} {target}");
            assert!(heard.contains(&format!("joined {from} n")) && heard.last() == Some(&signal), "{heard:?}");
        }
        net.hears(2);
        // The target can answer, and discovers the sender once.
        net.texts.clear();
        net.signals(2, 8, 18, 1);
        net.pass(HEARTBEAT);
        assert_eq!(net.hears(2), ["outcome 18 forwarded"]);
        assert_eq!(net.sent_to_go(), [link]);
        net.go_hub_says(1, link, &offer(18, 8, "n"));
        assert_eq!(net.hears(2), ["signal 18 8"]);
        // The sender is still unknown in the network `m`, so its first signal there introduces it in `m`.
        net.go_hub_says(1, link, &offer(18, 8, "m"));
        assert_eq!(net.hears(2), ["joined 18 m", "signal 18 8"]);
        let now = net.now;
        assert_eq!(net.hubs.get_mut(&1).unwrap().stats(now).legacy_introduced, 3);
        net.input(1, RelayInput::LinkDown { link });
        net.run();
        assert_eq!(net.hears(2).iter().filter(|line| line.starts_with("left")).count(), 3);
    }
}

#[test]
fn an_echoed_signal_introduces_no_peer() {
    let mut net = Net::full(2);
    let link = LinkId(99);
    net.go_hub(1, link);
    net.joins(1, 9, 0);
    net.joins(2, 8, 0);
    net.go_hub_says(1, link, &discovered(7, "n"));
    for from in [8, 9] {
        net.signals(if from == 8 { 2 } else { 1 }, from, 7, 0);
        net.go_hub_says(1, link, &offer(from, 7, "n"));
    }
    net.leaves(1, 9, 0);
    net.leaves(2, 8, 0);
    net.hears(2);
    for from in [8, 9] {
        net.go_hub_says(1, link, &offer(from, 7, "n"));
    }
    // Messages in flight of a Go peer that has left do not introduce the peer again.
    net.go_hub_says(1, link, &disconnected(7));
    net.hears(2);
    net.go_hub_says(1, link, &offer(7, 8, "n"));
    net.go_hub_says(1, link, &offer(50, 8, "n"));
    assert_eq!(net.hears(2), [""; 0], "hubs are not peers");
    // After LEGACY_ECHO, messages of the peer count again.
    net.pass(crate::limits::LEGACY_ECHO);
    net.go_hub_says(1, link, &offer(7, 8, "n"));
    assert_eq!(net.hears(2), ["elsewhere 7", "joined 7 n"]);
}

#[test]
fn a_signal_between_go_hubs_does_not_come_back() {
    let mut net = Net::full(2);
    let (one, two) = (LinkId(98), LinkId(99));
    net.go_hub(1, one);
    net.go_hub(2, two);
    net.go_hub_says(1, one, &discovered(7, "n"));
    net.go_hub_says(1, one, &discovered(6, "n"));
    net.go_hub_says(2, two, &discovered(8, "n"));
    net.texts.clear();
    net.go_hub_says(1, one, &offer(7, 6, "n"));
    net.go_hub_says(1, one, &offer(66, 6, "n"));
    net.pass(HEARTBEAT);
    assert_eq!(net.sent_to_go(), [], "both peers are behind that link");
    net.go_hub_says(1, one, &offer(7, 8, "n"));
    net.pass(HEARTBEAT);
    assert_eq!(net.sent_to_go(), [two]);
    // The Go hub at hub 2 no longer has the target, and sends the signal back to hub 2. Even if hub 1 is dead, this
    // signal does not announce peer 7.
    net.kill(1);
    net.hears(2);
    net.go_hub_says(2, two, &offer(7, 8, "n"));
    net.pass(GONE);
    assert_eq!(net.hears(2).iter().filter(|line| line.starts_with("joined 7")).count(), 0);
    assert_eq!(net.hubs[&2].locate(&id(7)), None);
}

#[test]
fn if_two_hubs_are_linked_to_one_go_hub_neither_sends_its_signal_back() {
    let mut net = Net::full(2);
    let link = LinkId(99);
    net.go_hub(2, link);
    // Peer 8 is connected to the Go hub with which hub 2 is linked.
    net.go_hub_says(2, link, &discovered(8, "n"));
    net.go_hub(1, link);
    net.go_hub_says(1, link, &discovered(7, "n"));
    net.go_hub_says(2, link, &discovered(7, "n"));
    assert_eq!([7, 8].map(|peer| net.hubs[&1].locate(&id(peer))), [Some(hub(1)), Some(hub(2))]);
    net.texts.clear();
    for n in [2, 1] {
        net.go_hub_says(n, link, &offer(7, 8, "n"));
    }
    net.pass(HEARTBEAT);
    assert_eq!(net.sent_to_go(), []);
}

#[test]
fn a_signal_restores_a_peer_of_a_lost_hub_or_link_but_no_peer_that_has_left() {
    let (link, other) = (LinkId(99), LinkId(98));
    let mut net = Net::full(3);
    net.go_hub(1, link);
    net.go_hub(1, other);
    net.joins(2, 7, 0);
    net.joins(3, 8, 0);
    net.kill(2);
    net.pass(GONE);
    assert_eq!(net.hubs[&1].locate(&id(7)), None);
    for peer in [9, 10] {
        net.go_hub_says(1, other, &discovered(peer, "n"));
    }
    net.go_hub_says(1, other, &disconnected(9));
    net.input(1, RelayInput::LinkDown { link: other });
    net.joins(1, 11, 0);
    net.leaves(1, 11, 0);
    for peer in [7, 9, 10, 11] {
        net.go_hub_says(1, link, &offer(peer, 8, "n"));
    }
    let known = [7, 9, 10, 11].map(|peer| net.hubs[&3].locate(&id(peer)));
    assert_eq!(known, [Some(hub(1)), None, Some(hub(1)), None]);
}

#[test]
fn signals_are_received_between_discovery_and_leave_at_a_go_hub_and_at_this_hub() {
    let mut net = Net::full(2);
    let link = LinkId(99);
    net.go_hub(1, link);
    net.joins(2, 8, 0);
    net.texts.clear();
    let (peer, target) = (id(7), id(8));
    let said = |kind: &str| {
        format!(r#"{{"type":"{kind}","data":null,"fromPeerId":"{peer}","targetPeerId":"{target}","networkName":"n"}}"#)
    };
    net.hears(2);
    for text in [discovered(7, "n"), said("offer"), said("goodbye")] {
        net.input(1, RelayInput::LegacyText { link, text: &text });
    }
    net.run();
    assert_eq!(net.hears(2), ["elsewhere 7", "joined 7 n", "signal 7 8", "left 7 n goodbye"]);
    // In the other direction, too, a signal is sent only between discovery and leave. The sender is first a peer of hub
    // 1, and then a peer of hub 2.
    net.go_hub_says(1, link, &discovered(7, "n"));
    net.texts.clear();
    for hub in [1, 2] {
        let sender = 10 + hub;
        net.joins(hub, sender, 0);
        net.signals(hub, sender, 7, 1);
        net.leaves(hub, sender, 0);
        let kinds: Vec<_> =
            net.texts.drain(..).map(|(_, _, text)| text.split('"').nth(3).unwrap().to_owned()).collect();
        assert_eq!(kinds, ["peer-discovered", "offer"], "the signal of a peer of hub {hub}");
        net.signals(hub, sender, 7, 1);
        net.pass(HEARTBEAT);
        assert!(net.texts.is_empty(), "the sender has left: {:?}", net.texts);
        assert_eq!(net.hears(hub).last().unwrap(), "outcome 7 unreachable");
    }
}
