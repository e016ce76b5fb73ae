//! Tests of links with Go hubs. Some tests start Go hubs. The tests that do not start a Go hub send the frames of a Go
//! hub themselves.

mod go_hub;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpListener;

use proto::limits::LINK_QUEUE_LOW;
use serde_json::{Value, json};

use crate::client::{Client, Heard, id};
use crate::go::{Go, with_each};
use crate::hub::{DEADLINE, Hub};
use crate::mesh::{TOKEN, eventually, free_port, json as page};

use go_hub::{GoHub, connect, is_signal, upgraded};

/// JSON data that would change if a hub parsed it and wrote it again.
const DATA: &str = r#"{"sdp" : "v=0\r\n\u00e9",  "b":1.10, "a":12345678901234567890123}"#;

/// Expects a signal with these values and unchanged data as the client's next message.
fn hears_signal(client: &mut Client, kind: &str, from: u32, target: u32, data: &str) {
    match client.next() {
        Heard::Text(text) => is_signal(&text, kind, from, target, data),
        other => panic!("{other:?}"),
    }
}

/// Expects the discovery of peer `n` as the client's next message.
fn hears_of(client: &mut Client, n: u32, info: Option<&str>) {
    let heard = client.hear();
    let mut data = json!({"isHub": false, "peerId": id(n)});
    if let Some(info) = info {
        data["info"] = info.into();
    }
    let parts = (&heard["type"], &heard["data"], &heard["fromPeerId"], &heard["targetPeerId"]);
    let expected = (&"peer-discovered".into(), &data, &"system".into(), &client.id.as_str().into());
    assert_eq!(parts, expected, "{heard}");
}

fn hears_leave(client: &mut Client, n: u32, reason: &str) {
    let left = client.hear();
    let parts = (&left["type"], &left["data"]["peerId"], &left["data"]["reason"]);
    assert_eq!(parts, (&"peer-disconnected".into(), &id(n).into(), &reason.into()), "{left}");
}

fn door() -> (TcpListener, String) {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", door.local_addr().unwrap());
    (door, url)
}

/// Starts a hub with these values of BOOTSTRAP_HUBS and MESH_LEGACY.
fn hub(bootstrap: &str, legacy: &str) -> Hub {
    Hub::start(&[("IS_HUB", "true"), ("MESH_TOKEN", TOKEN), ("BOOTSTRAP_HUBS", bootstrap), ("MESH_LEGACY", legacy)])
}

/// Connects a peer from 127.0.0.9, which is not in MESH_LEGACY.
fn peer(hub: &Hub, n: u32) -> Client {
    let mut client = Client::over(connect(hub.address, [127, 0, 0, 9]), n, b"");
    assert_eq!(client.hear()["type"], "connected");
    client
}

/// A conversation between peers of a hub and of a Go hub. At the start, the Go hub knows peer 1. At the end, the hub
/// has peers 1 and 2, and the Go hub has peer 7.
fn conversation(hub: &Hub, go: &mut GoHub, a: &mut Client) -> Client {
    // Announcements from each hub reach the other hub. Repeated announcements of peer 2 reach the Go hub as well.
    let mut b = Client::connect(hub, 2);
    b.say(r#"{"type":"announce","networkName":"n","data":{"info":"hi","isHub":true}}"#);
    go.hears_of(2, "n", Some("hi"));
    hears_of(a, 2, Some("hi"));
    hears_of(&mut b, 1, None);
    go.has(7, "n");
    hears_of(a, 7, Some("go"));
    hears_of(&mut b, 7, Some("go"));
    // A repeated announcement by the Go hub has no effect.
    go.has(7, "n");
    b.say(r#"{"type":"announce","networkName":"n","data":{"info":"again"}}"#);
    go.hears_of(2, "n", Some("again"));
    hears_of(a, 2, Some("again"));
    hears_of(&mut b, 1, None);
    hears_of(&mut b, 7, Some("go"));
    // Signals arrive in order, and no other message arrives between them.
    for kind in ["offer", "answer", "ice-candidate"] {
        go.passes(kind, 7, 1, DATA);
        hears_signal(a, kind, 7, 1, DATA);
        a.say(&format!(r#"{{"type":"{kind}","targetPeerId":"{}","networkName":"n","data":{DATA},"id":"x"}}"#, id(7)));
        go.hears_signal(kind, 1, 7, DATA);
        assert_eq!(a.hear()["data"]["outcome"], "forwarded");
    }
    // The Go hub may send messages only for its own peers, so the hub ignores its messages for peer 2.
    go.passes("offer", 2, 1, "1");
    go.say(&format!(r#"{{"type":"peer-disconnected","data":{{"peerId":"{}"}}}}"#, id(2)));
    go.passes("offer", 7, 1, "2");
    hears_signal(a, "offer", 7, 1, "2");
    a.hears_nothing();
    b.hears_nothing();
    b
}

#[test]
fn a_hub_and_a_go_hub_that_it_dials_exchange_peers() {
    let (door, url) = door();
    let hub = hub(&url, &url);
    // Peers that connected before the link existed are announced when the link is up.
    let mut a = Client::join(&hub, 1, "n");
    let (mut go, own) = GoHub::accept(&door);
    assert_eq!(page(&hub, "/stats")["hubPeerId"], own.as_str());
    go.hears_of(1, "n", None);
    let mut b = conversation(&hub, &mut go, &mut a);
    eventually("the page shows the peer", || {
        let shown = page(&hub, "/hubs")["hubs"].clone();
        (&shown[0]["legacy"], &shown[0]["peers"]) == (&true.into(), &1.into())
    });
    drop(go);
    hears_leave(&mut a, 7, "hub-lost");
    hears_leave(&mut b, 7, "hub-lost");
    a.offer(&id(7), "n", "1", r#","id":"x""#);
    assert_eq!(a.hear()["data"]["outcome"], "peer-not-found");
    // The hub dials the Go hub again and restores the state.
    let (mut go, again) = GoHub::accept(&door);
    assert_eq!(again, own);
    go.hears_of(1, "n", None);
    go.hears_of(2, "n", Some("again"));
    go.has(7, "n");
    hears_of(&mut a, 7, Some("go"));
    hears_of(&mut b, 7, Some("go"));
    // When a peer of a Go hub leaves, the Go hub notifies the hub that dialed it.
    let data = format!(r#"{{"isHub":false,"peerId":"{}","reason":"x","timestamp":1}}"#, id(7));
    let from = format!(r#""fromPeerId":"system","targetPeerId":"{own}","networkName":"n","timestamp":1"#);
    go.say(&format!(r#"{{"type":"peer-disconnected","data":{data},{from}}}"#));
    hears_leave(&mut a, 7, "connection-lost");
    hears_leave(&mut b, 7, "connection-lost");
}

#[test]
fn a_hub_and_a_go_hub_that_dials_it_exchange_peers() {
    let hub = hub("", "127.0.0.2/32");
    let mut a = Client::join(&hub, 1, "n");
    let mut go = GoHub::dial(hub.address, 50);
    go.hears_of(1, "n", None);
    let mut b = conversation(&hub, &mut go, &mut a);
    assert_eq!(hub.metric("peerpigeon_peers"), 2.0, "the Go hub must not be a peer");
    drop(go);
    hears_leave(&mut a, 7, "hub-lost");
    hears_leave(&mut b, 7, "hub-lost");
}

#[test]
fn peers_of_a_go_hub_are_known_in_the_whole_mesh() {
    let (door, url) = door();
    let one = hub(&url, &url);
    let two = hub(&format!("ws://{}", one.address), "");
    let (mut go, _) = GoHub::accept(&door);
    eventually("the hubs are linked", || page(&two, "/health")["hubs"] == 1);
    let mut c = Client::join(&two, 3, "n");
    go.hears_of(3, "n", None);
    go.has(7, "n");
    hears_of(&mut c, 7, Some("go"));
    c.say(&format!(r#"{{"type":"offer","targetPeerId":"{}","networkName":"n","data":{DATA},"id":"x"}}"#, id(7)));
    assert_eq!(c.hear()["data"]["outcome"], "forwarded");
    go.hears_signal("offer", 3, 7, DATA);
    go.passes("answer", 7, 3, DATA);
    hears_signal(&mut c, "answer", 7, 3, DATA);
    // A peer can move from the Go hub to this mesh without a goodbye. When the moved peer leaves, no other peer knows
    // it any more.
    let moved = Client::join(&two, 7, "n");
    hears_leave(&mut c, 7, "moved");
    hears_of(&mut c, 7, None);
    go.hears_of(7, "n", None);
    let mut d = Client::join(&one, 4, "n");
    hears_of(&mut d, 3, None);
    hears_of(&mut d, 7, None);
    hears_of(&mut c, 4, None);
    drop(moved);
    hears_leave(&mut c, 7, "connection-lost");
    // The peer can move back to the Go hub after the hub that is linked with the Go hub has processed its leave.
    hears_leave(&mut d, 7, "connection-lost");
    go.has(7, "n");
    hears_of(&mut c, 7, Some("go"));
    drop(go);
    hears_leave(&mut c, 7, "hub-lost");
    c.hears_nothing();
}

#[test]
fn messages_of_a_go_hub_on_two_links_count_once() {
    let (door, url) = door();
    let hub = hub(&url, &format!("{url},127.0.0.2/32"));
    let (mut dialed, _) = GoHub::accept(&door);
    let mut dials = GoHub::dial(hub.address, 50);
    let mut a = Client::join(&hub, 1, "n");
    for go in [&mut dialed, &mut dials] {
        go.hears_of(1, "n", None);
        go.has(7, "n");
    }
    hears_of(&mut a, 7, Some("go"));
    for n in 0..20 {
        let data = n.to_string();
        dialed.passes("offer", 7, 1, &data);
        dials.passes("offer", 7, 1, &data);
    }
    for n in 0..20 {
        hears_signal(&mut a, "offer", 7, 1, &n.to_string());
    }
    a.offer(&id(7), "n", DATA, r#","id":"x""#);
    assert_eq!(a.hear()["data"]["outcome"], "forwarded");
    a.announce("n");
    hears_of(&mut a, 7, Some("go"));
    let heard = [&mut dialed, &mut dials].map(|go| {
        let mut offers = 0;
        loop {
            let heard: Value = serde_json::from_str(&go.hear()).unwrap();
            match (heard["type"].as_str().unwrap(), heard["data"]["peerId"].as_str()) {
                ("offer", _) => offers += 1,
                // The hub announces the peer of the first link on the second link.
                ("peer-discovered", Some(peer)) if peer == id(7) => {}
                _ => return offers,
            }
        }
    });
    assert_eq!(heard.iter().sum::<usize>(), 1, "{heard:?}");
    a.hears_nothing();
}

#[test]
fn a_peer_leaves_with_its_go_hub_although_another_go_hub_echoed_it() {
    let (door, url) = door();
    let hub = hub(&url, &format!("{url},127.0.0.2/32"));
    let (mut one, _) = GoHub::accept(&door);
    let mut two = GoHub::dial(hub.address, 50);
    let mut a = Client::join(&hub, 1, "n");
    one.hears_of(1, "n", None);
    two.hears_of(1, "n", None);
    two.has(7, "n");
    hears_of(&mut a, 7, Some("go"));
    one.hears_of(7, "n", Some("go"));
    one.has(8, "n");
    hears_of(&mut a, 8, Some("go"));
    two.hears_of(8, "n", Some("go"));
    drop(two);
    hears_leave(&mut a, 7, "hub-lost");
    one.passes("offer", 8, 1, "1");
    hears_signal(&mut a, "offer", 8, 1, "1");
    a.hears_nothing();
}

#[test]
fn a_slow_go_hub_receives_everything_within_a_bounded_queue() {
    let hub = hub("", "127.0.0.2/32");
    // All announcements together have 24 MB. If the hub queued all announcements at once, the queue of the link would
    // be much longer than the test allows.
    let data = "x".repeat(16_000);
    let (peers, networks) = (50, 30);
    let mut here: Vec<Client> = (0..peers).map(|n| Client::connect(&hub, 100 + n)).collect();
    for network in 0..networks {
        for (n, peer) in here.iter_mut().enumerate() {
            peer.say(&format!(r#"{{"type":"announce","networkName":"{n}-{network}","data":{{"info":"{data}"}}}}"#));
        }
    }
    for peer in &mut here {
        peer.hears_nothing();
    }
    let mut go = GoHub::dial(hub.address, 50);
    eventually("the hub and the Go hub are linked", || page(&hub, "/health")["hubs"] == 1);
    go.has(7, "0-0");
    let mut told = BTreeSet::new();
    while told.len() < peers as usize * networks {
        let heard: Value = serde_json::from_str(&go.hear()).unwrap();
        assert!(told.insert(heard["networkName"].as_str().unwrap().to_owned()), "twice");
    }
    let all = (peers as usize * networks) as f64;
    hub.metric_becomes(r#"peerpigeon_link_frames_total{direction="out"}"#, |frames| frames > all);
    let waited = hub.metric("peerpigeon_link_queue_peak_bytes");
    assert!(waited < 2.0 * LINK_QUEUE_LOW as f64, "{waited} B were queued at once");
}

#[test]
fn without_mesh_legacy_a_go_hub_is_a_peer() {
    let hub = Hub::start(&[("IS_HUB", "true"), ("MESH_TOKEN", TOKEN)]);
    let mut a = Client::join(&hub, 1, "pigeonhub-mesh");
    let mut go = GoHub::ask(hub.address, 50);
    assert!(go.hear().starts_with(r#"{"type":"connected","#));
    go.announce();
    let heard = a.hear();
    assert_eq!((&heard["data"]["isHub"], &heard["data"]["peerId"]), (&false.into(), &id(50).into()), "{heard}");
    let heard: Value = serde_json::from_str(&go.hear()).unwrap();
    assert_eq!((&heard["type"], &heard["data"]["peerId"]), (&"peer-discovered".into(), &id(1).into()));
    go.has(7, "pigeonhub-mesh");
    let heard: Value = serde_json::from_str(&go.hear()).unwrap();
    let parts = (&heard["type"], &heard["data"]["code"], &heard["data"]["inReplyTo"]);
    assert_eq!(parts, (&"error".into(), &"not-allowed".into(), &"peer-discovered".into()), "{heard}");
    a.hears_nothing();
    assert_eq!(hub.metric("peerpigeon_peers"), 2.0);
}

/// Waits until a peer of a Go hub receives a message of the type `kind` from or about peer `n`. Skips all other
/// messages.
fn hears_from(client: &mut Client, kind: &str, n: u32) -> Value {
    loop {
        let heard = client.hear_type(kind);
        if heard["fromPeerId"] == id(n).as_str() || heard["data"]["peerId"] == id(n).as_str() {
            return heard;
        }
    }
}

/// A peer of a Go hub and a peer of this hub exchange an offer and an answer.
fn exchange(there: &mut Client, b: u32, here: &mut Client, a: u32) {
    there.offer(&id(a), "n", r#"{"sdp":"x"}"#, "");
    let offer = here.hear();
    assert_eq!((&offer["type"], &offer["fromPeerId"]), (&"offer".into(), &id(b).into()), "{offer}");
    here.say(&format!(r#"{{"type":"answer","targetPeerId":"{}","networkName":"n","data":1,"id":"x"}}"#, id(b)));
    assert_eq!(here.hear()["data"]["outcome"], "forwarded");
    assert_eq!(hears_from(there, "answer", a)["data"], 1);
}

#[test]
fn a_peer_that_joined_before_the_link_becomes_known_by_its_first_signal() {
    with_each(|kind| {
        let go = Go::start(kind, "");
        let mut b = go.join(7, "n");
        let hub = hub(&go.url(), &go.url());
        let mut a = Client::join(&hub, 1, "n");
        hears_from(&mut b, "peer-discovered", 1);
        a.hears_nothing();
        b.offer(&id(1), "n", "1", "");
        hears_of(&mut a, 7, None);
        assert_eq!(a.hear()["fromPeerId"], id(7));
        exchange(&mut b, 7, &mut a, 1);
        hub.metric_becomes("peerpigeon_link_legacy_introduced_total", |n| n == 1.0);
        eventually("the page shows the peer", || page(&hub, "/hubs")["hubs"][0]["peers"] == 1);
        // The Go hub announces peers that join later. Because this hub has dialed the Go hub, the Go hub also sends the
        // leaves of these peers.
        let c = go.join(8, "n");
        hears_of(&mut a, 8, Some("go"));
        drop(c);
        hears_leave(&mut a, 8, "connection-lost");
        drop(b);
        hears_leave(&mut a, 7, "connection-lost");
        a.hears_nothing();
    });
}

#[test]
fn a_go_hub_that_dials_announces_its_peers() {
    with_each(|kind| {
        let hub = hub("", "127.0.0.1/32");
        let go = Go::start(kind, &format!("ws://{}", hub.address));
        let mut b = go.join(7, "n");
        let mut a = peer(&hub, 1);
        a.announce("n");
        hears_of(&mut a, 7, None);
        hears_from(&mut b, "peer-discovered", 1);
        exchange(&mut b, 7, &mut a, 1);
        drop(go);
        hears_leave(&mut a, 7, "hub-lost");
    });
}

#[test]
fn a_signal_between_peers_of_go_hubs_arrives_once() {
    with_each(|kind| {
        // The first Go hub is linked with the second Go hub and with this hub.
        let one = Go::start(kind, "");
        let two = Go::start(kind, &one.url());
        let (mut b, mut c) = (one.join(7, "n"), two.join(8, "n"));
        hears_from(&mut b, "peer-discovered", 8);
        let hub = hub(&one.url(), &one.url());
        let mut a = Client::join(&hub, 1, "n");
        for (n, peer) in [(7, &mut b), (8, &mut c)] {
            hears_from(peer, "peer-discovered", 1);
            peer.offer(&id(1), "n", "1", "");
            hears_of(&mut a, n, None);
            assert_eq!(a.hear()["fromPeerId"], id(n));
        }
        let signals = 20;
        for n in 0..signals {
            b.offer(&id(8), "n", &n.to_string(), "");
        }
        for n in 0..signals {
            assert_eq!(hears_from(&mut c, "offer", 7)["data"], n);
        }
        // A copy relayed by this hub would arrive before the last offer.
        a.offer(&id(8), "n", r#""last""#, "");
        assert_eq!(c.hear_type("offer")["fromPeerId"], id(1));
    });
}

#[test]
fn go_hubs_linked_only_through_this_hub_reach_each_other() {
    with_each(|kind| {
        let one = Go::start(kind, "");
        let hub = hub(&one.url(), &format!("{},127.0.0.1/32", one.url()));
        let two = Go::start(kind, &format!("ws://{}", hub.address));
        eventually("both Go hubs are linked", || page(&hub, "/health")["hubs"] == 2);
        let (mut b, mut c) = (one.join(7, "n"), two.join(8, "n"));
        hears_from(&mut b, "peer-discovered", 8);
        hears_from(&mut c, "peer-discovered", 7);
        for n in 0..20 {
            b.offer(&id(8), "n", &n.to_string(), "");
            assert_eq!(hears_from(&mut c, "offer", 7)["data"], n);
            c.say(&format!(r#"{{"type":"answer","targetPeerId":"{}","networkName":"n","data":{n}}}"#, id(7)));
            assert_eq!(hears_from(&mut b, "answer", 8)["data"], n);
        }
    });
}

#[test]
fn a_restarted_hub_learns_the_peers_of_its_go_hub_again() {
    with_each(|kind| {
        let port = free_port();
        let other = hub("", "");
        let (port, bootstrap) = (port.to_string(), format!("ws://{}", other.address));
        let env = [
            ("IS_HUB", "true"),
            ("MESH_TOKEN", TOKEN),
            ("BOOTSTRAP_HUBS", bootstrap.as_str()),
            ("MESH_LEGACY", "127.0.0.1/32"),
            ("PORT", port.as_str()),
        ];
        let first = Hub::start(&env);
        let go = Go::start(kind, &format!("ws://127.0.0.1:{port}"));
        // The hubs are linked one by one, because the Go hub crashes if it writes to one socket from two goroutines.
        eventually("the other hub and the Go hub are linked", || page(&first, "/health")["hubs"] == 2);
        let join = |n| {
            let mut peer = go.join(n, "n");
            peer.say(r#"{"type":"ping"}"#);
            peer.hear_type("pong");
            peer
        };
        let mut there: Vec<Client> = (100..125).map(join).collect();
        let mut a = Client::join(&other, 1, "n");
        // Whether each peer is present, and how often it was discovered.
        type Known = BTreeMap<String, (bool, usize)>;
        let mut known = Known::new();
        let mut hear = |a: &mut Client, until: &dyn Fn(&Known) -> bool| {
            while !until(&known) {
                let heard = a.hear();
                let peer = heard["data"]["peerId"].as_str().unwrap().to_owned();
                let entry = known.entry(peer).or_insert((false, 0));
                let joined = heard["type"] == "peer-discovered";
                assert!(joined != entry.0 || joined, "{heard}");
                *entry = (joined, entry.1 + usize::from(joined && !entry.0));
            }
        };
        hear(&mut a, &|known| known.values().filter(|(here, _)| *here).count() == 25);
        drop(first);
        let _second = Hub::start(&env);
        hear(&mut a, &|known| known.values().filter(|(here, times)| *here && *times == 2).count() == 25);
        a.hears_nothing();
        for (n, there) in (100..).zip(&mut there) {
            exchange(there, n, &mut a, 1);
        }
    });
}

/// Starts a listener that sends `answer` to each request. Returns its URL, and the heads of the requests.
fn listener(answer: fn(&str) -> String) -> (String, std::sync::mpsc::Receiver<String>) {
    let (door, url) = door();
    let (asked, heard) = std::sync::mpsc::sync_channel(16);
    std::thread::spawn(move || {
        for mut stream in door.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            _ = stream.write_all(answer(&head).as_bytes());
            if asked.send(head).is_err() {
                return;
            }
        }
    });
    (url, heard)
}

#[test]
fn with_mesh_legacy_no_token_is_sent_to_an_unknown_kind_of_hub() {
    let unauthorized = |_: &str| "HTTP/1.1 401 Unauthorized\r\nContent-Length: 13\r\n\r\nunauthorized\n".to_owned();
    for answer in [upgraded, unauthorized] {
        // MESH_LEGACY names the same hub by a different URL. The hub cannot detect such a difference when it checks its
        // settings.
        let (url, heard) = listener(answer);
        let hub = hub(&url, "ws://go.invalid:3000");
        for _ in 0..2 {
            let asked = heard.recv_timeout(DEADLINE).unwrap();
            assert!(asked.contains("peerpigeon-mesh.1"), "{asked}");
            let shows = asked.contains(TOKEN) || asked.contains("proof=");
            assert!(!shows && asked.contains("authorization: PeerPigeon-Link\r\n"), "{asked}");
        }
        // Hubs of the current version still link.
        let other = self::hub(&format!("ws://{}", hub.address), "10.9.9.9");
        eventually("the two hubs are linked", || page(&other, "/health")["hubs"] == 1);
    }
}

#[test]
fn an_address_that_answers_like_a_go_hub_gets_no_token() {
    let (url, heard) = listener(upgraded);
    let _hub = hub(&url, "");
    let shown: Vec<bool> = (0..3).map(|_| heard.recv_timeout(DEADLINE).unwrap().contains(TOKEN)).collect();
    assert_eq!(shown, [false; 3]);
}

#[test]
fn two_spellings_of_a_go_hub_are_an_error_at_the_start() {
    let env = [
        ("BOOTSTRAP_HUBS", "ws://127.0.0.1:3000/ws"),
        ("MESH_LEGACY", "ws://localhost:3000"),
        ("MESH_TOKEN", TOKEN),
        ("PORT", "0"),
    ];
    let output = crate::hub::command(&env).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("BOOTSTRAP_HUBS") && said.contains("MESH_LEGACY") && !said.contains(TOKEN), "{said}");
}
