//! Tests of legacy links, without their sockets.

mod signals;

use super::*;

#[test]
fn peers_of_a_go_hub_are_members_until_its_link_ends() {
    let mut net = Net::full(2);
    net.joins(2, 8, 0);
    let link = LinkId(99);
    net.input(1, RelayInput::LegacyUp { link, hub: hub(50), dialed: true });
    let texts: Vec<_> = std::mem::take(&mut net.texts).into_iter().map(|(_, _, text)| text).collect();
    assert!(
        texts[0].starts_with(r#"{"type":"announce","networkName":"mesh","data":{"isHub":true,"port":8080"#),
        "{texts:?}"
    );
    assert!(texts[1].starts_with(r#"{"type":"peer-discovered","data":{"isHub":false,"peerId":"#), "{texts:?}");
    assert_eq!(texts.len(), 2);
    net.hears(1);
    let (peer, text) = (id(7), discovered(7, "n"));
    for _ in 0..2 {
        net.input(1, RelayInput::LegacyText { link, text: &text });
        net.run();
    }
    assert_eq!(net.hears(1), ["elsewhere 7", "joined 7 n"], "a repeated announcement has no effect");
    assert_eq!(net.hears(2), ["elsewhere 7", "joined 7 n"]);
    assert!(net.texts.is_empty(), "a Go hub's own peers are not announced to it");
    net.signals(2, 8, 7, 1);
    net.pass(HEARTBEAT);
    assert!(net.texts[0].2.starts_with(r#"{"type":"offer","data":null,"fromPeerId""#), "{:?}", net.texts);
    assert_eq!(net.hears(2), ["outcome 7 forwarded"]);
    let target = id(8);
    let offer =
        format!(r#"{{"type":"offer","data":1,"fromPeerId":"{peer}","targetPeerId":"{target}","networkName":"n"}}"#);
    net.input(1, RelayInput::LegacyText { link, text: &offer });
    net.run();
    assert_eq!(net.hears(2), ["signal 7 8"]);
    let stranger = offer.replace(&peer.to_string(), &target.to_string());
    net.input(1, RelayInput::LegacyText { link, text: &stranger });
    let echo = text.replace(&peer.to_string(), &target.to_string());
    net.input(1, RelayInput::LegacyText { link, text: &echo });
    net.run();
    assert_eq!(net.hears(2), [""; 0], "a Go hub may send messages only for its own peers");
    net.pass(HEARTBEAT);
    net.hears(1);
    net.input(1, RelayInput::LinkDown { link });
    net.run();
    assert_eq!(net.hears(2), ["left 7 n peer-disconnected", "nowhere 7"]);
    assert_eq!(net.hears(1), ["left 7 n peer-disconnected", "nowhere 7"]);
    assert!(matches!(Outcome::Failed(ErrorCode::Unreachable).label(), "unreachable"));
    net.nothing_is_left();
}

/// The message with which a Go hub announces a peer.
pub(super) fn discovered(peer: u8, network: &str) -> String {
    let data = format!(r#"{{"isHub":false,"peerId":"{}"}}"#, id(peer));
    let from = format!(r#""networkName":"{network}","fromPeerId":"system","timestamp":1"#);
    format!(r#"{{"type":"peer-discovered","data":{data},{from}}}"#)
}

impl Net {
    fn go_hub(&mut self, n: u8, link: LinkId) {
        self.input(n, RelayInput::LegacyUp { link, hub: hub(50), dialed: true });
        self.run();
    }

    /// The announcements sent on a link since the last call. Forgets all other sent messages.
    pub(super) fn told(&mut self, link: LinkId) -> Vec<String> {
        let texts = std::mem::take(&mut self.texts);
        let of_link = texts.into_iter().filter(|(_, to, _)| *to == link);
        of_link.map(|(_, _, text)| text.into()).filter(|text: &String| text.contains("peer-discovered")).collect()
    }

    fn go_hub_says(&mut self, n: u8, link: LinkId, text: &str) {
        self.input(n, RelayInput::LegacyText { link, text });
        self.run();
    }
}

#[test]
fn a_peer_that_moves_from_a_go_hub_and_leaves_is_gone() {
    let mut net = Net::full(2);
    net.go_hub(1, LinkId(99));
    net.go_hub_says(1, LinkId(99), &discovered(7, "n"));
    net.joins(2, 7, 0);
    net.hears(1);
    net.hears(2);
    net.leaves(2, 7, 0);
    assert_eq!(net.hears(1), ["left 7 n peer-disconnected", "nowhere 7"]);
    assert_eq!(net.hears(2), [""; 0]);
    assert_eq!((net.hubs[&1].locate(&id(7)), net.hubs[&2].locate(&id(7))), (None, None));
}

#[test]
fn a_peer_of_a_go_hub_joins_at_most_the_default_maximum_of_networks() {
    let mut net = Net::full(2);
    net.go_hub(1, LinkId(99));
    for network in 0..40 {
        net.go_hub_says(1, LinkId(99), &discovered(7, &network.to_string()));
    }
    let most = crate::limits::DEFAULT_MAX_NETWORKS_PER_PEER;
    assert_eq!(net.hears(2).iter().filter(|line| line.starts_with("joined")).count(), most);
}

#[test]
fn an_echo_of_one_go_hub_does_not_keep_a_peer_of_another_go_hub() {
    let mut net = Net::full(2);
    let (one, two) = (LinkId(98), LinkId(99));
    net.go_hub(1, one);
    net.go_hub(1, two);
    net.go_hub_says(1, two, &discovered(7, "n"));
    for echo in net.told(one) {
        net.go_hub_says(1, one, &echo);
    }
    // A second echo of the announcement arrives late.
    net.joins(1, 9, 0);
    net.pass(crate::limits::LEGACY_ECHO);
    net.texts.clear();
    for peer in [7, 9] {
        net.go_hub_says(1, one, &discovered(peer, "n"));
    }
    net.hears(1);
    net.signals(1, 9, 7, 0);
    assert_eq!(net.texts.pop().unwrap().1, two);
    net.joins(2, 8, 0);
    net.signals(2, 8, 9, 0);
    assert_eq!(net.hears(1).last().unwrap(), "signal 8 9");
    // A Go hub that is linked with another hub of the mesh must not keep the peer either.
    net.texts.clear();
    net.go_hub(2, one);
    assert_eq!(net.told(one).len(), 3);
    net.go_hub_says(2, one, &discovered(7, "n"));
    net.hears(1);
    net.hears(2);
    net.input(1, RelayInput::LinkDown { link: two });
    net.run();
    for n in [1, 2] {
        assert_eq!(net.hears(n), ["left 7 n peer-disconnected", "nowhere 7"], "hub {n}");
        assert_eq!(net.hubs[&n].locate(&id(7)), None);
    }
    // The peer returns, announced by the other Go hub.
    net.go_hub_says(1, one, &discovered(7, "n"));
    assert_eq!(net.hears(1), ["elsewhere 7", "joined 7 n"]);
    net.input(1, RelayInput::LinkDown { link: one });
    net.run();
    assert_eq!(net.hears(1), ["left 7 n peer-disconnected", "nowhere 7"]);
}

#[test]
fn an_echo_after_the_leave_brings_no_peer_back() {
    let mut net = Net::full(2);
    let link = LinkId(99);
    net.input(1, RelayInput::LegacyUp { link, hub: hub(50), dialed: false });
    net.joins(1, 7, 0);
    net.joins(2, 8, 0);
    let echoes = net.told(link);
    assert_eq!(echoes.len(), 2);
    net.leaves(1, 7, 0);
    net.leaves(2, 8, 0);
    net.hears(2);
    for echo in echoes {
        net.go_hub_says(1, link, &echo);
    }
    assert_eq!(net.hears(2), [""; 0]);
    // Each sent announcement has one echo. A second announcement of the same peer comes from the Go hub itself.
    net.go_hub_says(1, link, &discovered(7, "n"));
    assert_eq!(net.hears(2), ["elsewhere 7", "joined 7 n"]);
    net.joins(1, 9, 0);
    net.leaves(1, 9, 0);
    net.pass(crate::limits::LEGACY_ECHO);
    net.hears(2);
    net.go_hub_says(1, link, &discovered(9, "n"));
    assert_eq!(net.hears(2), ["elsewhere 9", "joined 9 n"]);
    // A Go hub on the only legacy link, dialed by this hub, sends no announcements back. So its announcement of a peer
    // that has just left this mesh is not an echo, and the peer is accepted at once.
    let mut net = Net::full(2);
    net.go_hub(1, link);
    net.joins(1, 7, 0);
    net.leaves(1, 7, 0);
    net.hears(2);
    net.go_hub_says(1, link, &discovered(7, "n"));
    assert_eq!(net.hears(2), ["elsewhere 7", "joined 7 n"]);
}

#[test]
fn a_go_hub_receives_as_much_as_its_link_accepts() {
    let mut net = Net::full(2);
    for peer in 0..200 {
        net.joins(if peer < 190 { 1 } else { 1 + peer % 2 }, peer, 0);
    }
    let link = LinkId(99);
    let transport = Transport::Link(link);
    net.full.push((1, transport));
    net.go_hub(1, link);
    assert_eq!(net.told(link).len(), 0);
    net.input(1, RelayInput::Room { transport });
    assert_eq!(net.told(link).len(), SNAPSHOT_PEERS);
    net.go_hub_says(1, link, &discovered(220, "n"));
    net.input(1, RelayInput::Saturated { transport });
    net.leaves(1, 198, 0);
    net.joins(2, 201, 0);
    net.signals(1, 196, 220, 1);
    assert_eq!(net.hears(1).last().unwrap(), "outcome 220 unreachable");
    assert!(net.texts.is_empty(), "{:?}", net.texts);
    net.input(1, RelayInput::Room { transport });
    let texts = net.told(link);
    assert_eq!(texts.len(), SNAPSHOT_PEERS, "{texts:#?}");
    assert!(texts.iter().any(|text| text.contains(&id(196).to_string())));
    // The sender is announced before its signal, so that the target knows the sender.
    net.signals(1, 194, 220, 1);
    assert_eq!(net.hears(1).last().unwrap(), "outcome 220 forwarded");
    let kinds: Vec<_> = net.texts.iter().map(|(_, _, text)| text.split('"').nth(3).unwrap()).collect();
    assert_eq!(kinds, ["peer-discovered", "offer"]);
    assert!(net.texts.iter().all(|(_, _, text)| text.contains(&id(194).to_string())));
    net.texts.clear();
    net.full.clear();
    net.input(1, RelayInput::Room { transport });
    let rest = net.told(link);
    assert_eq!(
        rest.len(),
        200 - 2 * SNAPSHOT_PEERS - 1,
        "all but the peer that left and the peer that was announced with its signal"
    );
    assert!(rest.iter().any(|text| text.contains(&id(201).to_string())));
}

/// A signal that a Go hub forwards.
fn offer(from: u8, target: u8, network: &str) -> String {
    let peers = format!(r#""fromPeerId":"{}","targetPeerId":"{}""#, id(from), id(target));
    format!(r#"{{"type":"offer","data":1,{peers},"networkName":"{network}","timestamp":1}}"#)
}

fn disconnected(peer: u8) -> String {
    let peer = id(peer);
    format!(r#"{{"type":"peer-disconnected","data":{{"peerId":"{peer}"}},"fromPeerId":"system","timestamp":1}}"#)
}

impl Net {
    /// A Go hub dials hub `n`, and has not answered the first ping yet.
    fn go_hub_dials(&mut self, n: u8, link: LinkId) {
        self.full.push((n, Transport::Link(link)));
        self.input(n, RelayInput::LegacyUp { link, hub: hub(50), dialed: false });
        self.run();
    }

    fn go_hub_answers(&mut self, n: u8, link: LinkId) {
        let transport = Transport::Link(link);
        self.full.retain(|full| *full != (n, transport));
        self.input(n, RelayInput::Room { transport });
        self.run();
    }

    /// The links on which signals have been sent to Go hubs since the last call.
    fn sent_to_go(&mut self) -> Vec<LinkId> {
        let texts = std::mem::take(&mut self.texts);
        texts.into_iter().filter(|(_, _, text)| text.contains("offer")).map(|(_, link, _)| link).collect()
    }
}

/// A Go hub is linked with hub 1, which is killed. Hub 3 starts immediately, while hub 2 still knows the peers of hub
/// 1.
fn restarted(peers: std::ops::Range<u8>) -> Net {
    let mut net = Net::full(2);
    net.go_hub(1, LinkId(98));
    for peer in peers {
        net.go_hub_says(1, LinkId(98), &discovered(peer, "n"));
    }
    net.pass(HEARTBEAT);
    net.kill(1);
    net.start(3);
    net.link(2, 3);
    net.pass(HEARTBEAT);
    net.hears(3);
    net.hears(2);
    net.texts.clear();
    net
}

#[test]
fn a_hub_that_restarts_learns_the_peers_of_its_go_hub_again() {
    let is_there = |net: &mut Net, peer| {
        let heard = net.hears(2);
        let joined = heard.iter().filter(|line| **line == format!("joined {peer} n")).count();
        let left = heard.iter().filter(|line| line.starts_with(&format!("left {peer} n"))).count();
        (net.hubs[&2].locate(&id(peer)), left, joined)
    };
    let link = LinkId(99);
    // The Go hub dials, and announces all its peers.
    let mut net = restarted(100..125);
    net.go_hub_dials(3, link);
    (100..125).for_each(|peer| net.go_hub_says(3, link, &discovered(peer, "n")));
    net.go_hub_answers(3, link);
    assert_eq!(net.told(link).len(), 0, "the Go hub itself has announced these peers");
    assert_eq!(net.hears(3), [""; 0], "the lease of hub 1 has not expired, so the peers still belong to hub 1");
    net.pass(GONE);
    let heard = net.hears(2);
    for peer in 100..125 {
        assert_eq!(net.hubs[&2].locate(&id(peer)), Some(hub(3)));
        assert_eq!(heard.iter().filter(|line| **line == format!("joined {peer} n")).count(), 1);
    }
    net.input(3, RelayInput::LinkDown { link });
    net.run();
    assert_eq!(net.hubs[&2].locate(&id(100)), None);

    // The Go hub is dialed, and one of its peers announces itself again, or only sends a signal.
    for word in [discovered(7, "n"), offer(7, 9, "n")] {
        let mut net = restarted(7..8);
        net.joins(2, 9, 0);
        net.go_hub(3, link);
        assert_eq!(
            net.told(link).len(),
            2,
            "the Go hub also receives an announcement of its own peer 7, which hub 3 still knows as a peer of hub 1"
        );
        net.go_hub_says(3, link, &word);
        net.hears(2);
        net.pass(GONE);
        assert_eq!(is_there(&mut net, 7), (Some(hub(3)), 1, 1), "{word}");
    }

    // The peer leaves before the lease of hub 1 expires.
    let mut net = restarted(7..8);
    net.go_hub_dials(3, link);
    net.go_hub_says(3, link, &discovered(7, "n"));
    net.go_hub_says(3, link, &disconnected(7));
    net.pass(GONE);
    assert_eq!(is_there(&mut net, 7), (None, 1, 0));

    // The Go hub only echoes the announcement of hub 3.
    let mut net = restarted(7..8);
    net.go_hub_dials(3, link);
    net.go_hub_answers(3, link);
    let echo = net.told(link).pop().unwrap();
    net.go_hub_says(3, link, &echo);
    net.pass(GONE);
    assert_eq!(is_there(&mut net, 7), (None, 1, 0));
}

#[test]
fn a_peer_that_moved_to_a_go_hub_is_known_once_its_old_connection_or_hub_is_dead() {
    let mut net = Net::full(3);
    let link = LinkId(99);
    net.go_hub(1, link);
    for (n, peer) in [(1, 7), (2, 8), (3, 9), (3, 10), (3, 11)] {
        net.joins(n, peer, 0);
    }
    net.pass(crate::limits::LEGACY_ECHO);
    for peer in 7..12 {
        net.go_hub_says(1, link, &discovered(peer, "n"));
    }
    net.hears(2);
    net.leaves(1, 7, 0);
    assert_eq!(net.hears(2), ["left 7 n peer-disconnected", "nowhere 7", "elsewhere 7", "joined 7 n"]);
    net.leaves(2, 8, 0);
    assert_eq!(net.hears(2), ["elsewhere 8", "joined 8 n"]);
    // Peer 9 has reconnected to its hub with a new session, which is later than the Go hub's announcement.
    net.joins(3, 9, 1);
    net.leaves(3, 9, 1);
    assert_eq!(net.hubs[&1].locate(&id(9)), None);
    net.kill(3);
    net.pass(GONE);
    let now = [10, 11].map(|peer| net.hubs[&2].locate(&id(peer)));
    assert_eq!(now, [Some(hub(1)), Some(hub(1))]);
}

#[test]
fn a_goodbye_without_a_network_is_to_all_networks() {
    let mut net = Net::full(2);
    let link = LinkId(99);
    net.go_hub(1, link);
    for network in ["m", "n", "o"] {
        net.go_hub_says(1, link, &discovered(7, network));
    }
    net.hears(2);
    let goodbye = |network: &str| {
        let peer = id(7);
        format!(r#"{{"type":"goodbye","data":null,"fromPeerId":"{peer}","networkName":"{network}","timestamp":1}}"#)
    };
    net.go_hub_says(1, link, &goodbye("o"));
    assert_eq!(net.hears(2), ["left 7 o goodbye"]);
    net.go_hub_says(1, link, &goodbye("global"));
    net.go_hub_says(1, link, &goodbye("global"));
    assert_eq!(net.hears(2), ["left 7 m goodbye", "left 7 n goodbye"]);
    net.go_hub_says(1, link, &offer(7, 8, "m"));
    assert_eq!(net.hears(2), [""; 0], "a message in flight does not make the peer known again in any network");
}

#[test]
fn a_go_hub_announces_at_most_the_maximum_number_of_peers() {
    let mut net = Net::new(0);
    net.tuning.max_peers_per_legacy_link = 3;
    net.start(1);
    let link = LinkId(99);
    net.go_hub(1, link);
    for peer in 7..12 {
        net.go_hub_says(1, link, &discovered(peer, "n"));
    }
    assert_eq!(net.hears(1).len(), 2 * 3);
    assert_eq!(net.hubs[&1].stats.legacy_refused, 2);
    net.go_hub_says(1, link, &disconnected(7));
    net.go_hub_says(1, link, &discovered(11, "n"));
    assert!(net.hears(1).contains(&"joined 11 n".to_owned()), "one peer has left, so another peer is accepted");
}

#[test]
fn announcements_beyond_the_maximum_queued_for_a_go_hub_are_dropped() {
    let mut net = Net::new(0);
    net.tuning.max_legacy_owed = 3;
    net.start(1);
    let (link, transport) = (LinkId(99), Transport::Link(LinkId(99)));
    net.full.push((1, transport));
    net.go_hub(1, link);
    (10..20).for_each(|peer| net.joins(1, peer, 0));
    net.full.clear();
    net.input(1, RelayInput::Room { transport });
    assert_eq!(net.told(link).len(), 3);
}
