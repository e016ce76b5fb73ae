//! Links of the seed's kind, without their sockets.

use super::*;

#[test]
fn a_go_hub_takes_part_until_its_link_ends() {
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
    let peer = id(7);
    let text = format!(
        r#"{{"type":"peer-discovered","data":{{"isHub":false,"peerId":"{peer}"}},"networkName":"n","fromPeerId":"system","timestamp":1}}"#
    );
    for _ in 0..2 {
        net.input(1, RelayInput::LegacyText { link, text: &text });
        net.run();
    }
    assert_eq!(net.hears(1), ["elsewhere 7", "joined 7 n"], "once");
    assert_eq!(net.hears(2), ["elsewhere 7", "joined 7 n"]);
    assert!(net.texts.is_empty(), "its own peers are not told to it");
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
    let stranger = offer.replace(&peer.to_string(), &id(66).to_string());
    net.input(1, RelayInput::LegacyText { link, text: &stranger });
    let echo = text.replace(&peer.to_string(), &target.to_string());
    net.input(1, RelayInput::LegacyText { link, text: &echo });
    net.run();
    assert_eq!(net.hears(2), [""; 0], "it speaks for its own peers only");
    net.pass(HEARTBEAT);
    net.hears(1);
    net.input(1, RelayInput::LinkDown { link });
    net.run();
    assert_eq!(net.hears(2), ["left 7 n peer-disconnected", "nowhere 7"]);
    assert_eq!(net.hears(1), ["left 7 n peer-disconnected", "nowhere 7"]);
    assert!(matches!(Outcome::Failed(ErrorCode::Unreachable).label(), "unreachable"));
    net.nothing_is_left();
}

/// What a Go hub says of a peer.
fn discovered(peer: u8, network: &str) -> String {
    let peer = id(peer);
    format!(
        r#"{{"type":"peer-discovered","data":{{"isHub":false,"peerId":"{peer}"}},"networkName":"{network}","fromPeerId":"system","timestamp":1}}"#
    )
}

impl Net {
    fn go_hub(&mut self, n: u8, link: LinkId) {
        self.input(n, RelayInput::LegacyUp { link, hub: hub(50), dialed: true });
        self.run();
    }

    /// What a link has been told, and nothing else.
    fn told(&mut self, link: LinkId) -> Vec<String> {
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
fn a_peer_of_a_go_hub_that_comes_over_and_leaves_is_gone() {
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
fn of_two_hubs_that_are_linked_to_one_go_hub_one_passes_its_signals_on() {
    let mut net = Net::full(2);
    net.joins(1, 8, 0);
    net.pass(HEARTBEAT);
    for n in [1, 2] {
        net.go_hub(n, LinkId(99));
        net.go_hub_says(n, LinkId(99), &discovered(7, "n"));
    }
    assert_eq!(net.hears(1), ["elsewhere 7", "joined 7 n"], "the first word for it holds");
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
fn a_peer_of_a_go_hub_is_in_no_more_networks_than_another() {
    let mut net = Net::full(2);
    net.go_hub(1, LinkId(99));
    for network in 0..40 {
        net.go_hub_says(1, LinkId(99), &discovered(7, &network.to_string()));
    }
    let most = crate::limits::DEFAULT_MAX_NETWORKS_PER_PEER;
    assert_eq!(net.hears(2).iter().filter(|line| line.starts_with("joined")).count(), most);
}

#[test]
fn an_echo_of_one_go_hub_does_not_keep_the_peer_of_another() {
    let mut net = Net::full(2);
    let (one, two) = (LinkId(98), LinkId(99));
    net.go_hub(1, one);
    net.go_hub(1, two);
    net.go_hub_says(1, two, &discovered(7, "n"));
    for echo in net.told(one) {
        net.go_hub_says(1, one, &echo);
    }
    // Once more, and late.
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
    // One at another hub of the mesh, too.
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
    // It comes back behind the other.
    net.go_hub_says(1, one, &discovered(7, "n"));
    assert_eq!(net.hears(1), ["elsewhere 7", "joined 7 n"]);
    net.input(1, RelayInput::LinkDown { link: one });
    net.run();
    assert_eq!(net.hears(1), ["left 7 n peer-disconnected", "nowhere 7"]);
}

#[test]
fn an_echo_that_comes_after_the_leave_brings_nobody_back() {
    let mut net = Net::full(2);
    let link = LinkId(99);
    net.go_hub(1, link);
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
    // What it says once more is its own, and so is the first word for one that it never repeated.
    net.go_hub_says(1, link, &discovered(7, "n"));
    assert_eq!(net.hears(2), ["elsewhere 7", "joined 7 n"]);
    net.joins(1, 9, 0);
    net.leaves(1, 9, 0);
    net.pass(crate::limits::LEGACY_ECHO);
    net.hears(2);
    net.go_hub_says(1, link, &discovered(9, "n"));
    assert_eq!(net.hears(2), ["elsewhere 9", "joined 9 n"]);
}

#[test]
fn a_go_hub_is_told_as_much_as_its_link_takes() {
    let mut net = Net::full(2);
    for peer in 0..200 {
        net.joins(1 + peer % 2, peer, 0);
    }
    let link = LinkId(99);
    let way = Way::Link(link);
    net.full.push((1, way));
    net.go_hub(1, link);
    assert_eq!(net.told(link).len(), 0);
    net.input(1, RelayInput::Room { way });
    assert_eq!(net.told(link).len(), SNAPSHOT_PEERS);
    net.go_hub_says(1, link, &discovered(220, "n"));
    net.input(1, RelayInput::Saturated { way });
    net.leaves(1, 198, 0);
    net.joins(2, 201, 0);
    net.signals(1, 196, 220, 1);
    assert_eq!(net.hears(1).last().unwrap(), "outcome 220 unreachable");
    assert!(net.texts.is_empty(), "{:?}", net.texts);
    // Who gets a signal has heard of its sender by then.
    net.input(1, RelayInput::Room { way });
    assert_eq!(net.told(link).len(), SNAPSHOT_PEERS);
    net.signals(1, 196, 220, 1);
    assert_eq!(net.hears(1).last().unwrap(), "outcome 220 forwarded");
    let kinds: Vec<_> = net.texts.iter().map(|(_, _, text)| text.split('"').nth(3).unwrap()).collect();
    assert_eq!(kinds, ["peer-discovered", "offer"]);
    assert!(net.texts.iter().all(|(_, _, text)| text.contains(&id(196).to_string())));
    net.texts.clear();
    net.full.clear();
    net.input(1, RelayInput::Room { way });
    let rest = net.told(link);
    assert_eq!(rest.len(), 200 - 2 * SNAPSHOT_PEERS - 1, "without the one that left and the one that was told");
    assert!(rest.iter().any(|text| text.contains(&id(201).to_string())));
}
