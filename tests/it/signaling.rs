//! Tests of discovery and signals between peers of the same and of different shards.

use crate::client::{Client, frame, id};
use crate::hub::Hub;

fn with_shards(test: impl Fn(&Hub)) {
    for shards in ["1", "2", "8"] {
        test(&Hub::start(&[("SHARDS", shards)]));
    }
}

#[test]
pub fn two_peers_discover_each_other_and_exchange_signals() {
    with_shards(|hub| {
        let mut a = Client::join(hub, 1, "n");
        a.hears_nothing();
        let mut b = Client::join(hub, 2, "n");
        assert_eq!(a.hear()["data"]["peerId"], id(2).as_str());
        assert_eq!(b.hear()["data"]["peerId"], id(1).as_str());
        a.offer(&id(2), "n", r#"{"sdp":"v=0\r\n","n":1e400}"#, r#","id":"1""#);
        let crate::client::Heard::Text(offer) = b.next() else { panic!("no offer") };
        assert!(offer.starts_with(r#"{"type":"offer","data":{"sdp":"v=0\r\n","n":1e400},"fromPeerId":"#), "{offer}");
        let receipt = a.hear();
        assert_eq!((&receipt["type"], &receipt["data"]["outcome"]), (&"receipt".into(), &"delivered".into()));
        a.offer(&id(3), "n", "null", "");
        assert_eq!(a.hear()["data"]["code"], "peer-not-found");
        drop(b);
        let left = a.hear();
        assert_eq!((&left["type"], &left["data"]["peerId"]), (&"peer-disconnected".into(), &id(2).into()));
    });
}

#[test]
pub fn a_message_sent_with_the_request_is_processed_first() {
    with_shards(|hub| {
        let mut watcher = Client::join(hub, 100, "n");
        for n in 0..16 {
            let mut early = frame(1, br#"{"type":"announce","networkName":"n"}"#);
            early.extend(frame(1, br#"{"type":"ping"}"#));
            // Up to six bytes arrive later, so a frame can be incomplete when the connection moves to its home shard.
            let late = early.split_off(early.len() - usize::try_from(n).unwrap() % 7);
            let mut client = Client::open(hub.address, n, &early);
            client.raw(&late);
            assert_eq!(client.hear()["type"], "connected");
            client.hear_type("pong");
            assert_eq!(watcher.hear_type("peer-discovered")["data"]["peerId"], id(n).as_str());
        }
    });
}

#[test]
pub fn a_message_may_arrive_byte_by_byte() {
    let hub = Hub::start(&[]);
    let mut a = Client::connect(&hub, 1);
    for byte in frame(1, br#"{"type":"ping"}"#) {
        a.raw(&[byte]);
    }
    assert_eq!(a.hear()["type"], "pong");
}

#[test]
pub fn signals_of_two_fast_senders_arrive_in_order_and_once() {
    // All signals of a sender together are less data than the sender's share of the target's queue. So nothing is
    // dropped even if the target reads late.
    const EACH: usize = 2_000;
    with_shards(|hub| {
        let mut target = Client::join(hub, 9, "n");
        let senders: Vec<_> = (1..=2)
            .map(|n| {
                let mut sender = Client::join(hub, n, "n");
                sender.hear_type("peer-discovered");
                std::thread::spawn(move || {
                    for i in 0..EACH {
                        sender.offer(&id(9), "n", &format!(r#"{{"i":{i},"pad":"{}"}}"#, "x".repeat(300)), "");
                    }
                    sender
                })
            })
            .collect();
        let mut next = [0; 3];
        while next.iter().sum::<usize>() < 2 * EACH {
            let offer = target.hear();
            if offer["type"] == "offer" {
                let from = usize::from_str_radix(offer["fromPeerId"].as_str().unwrap(), 16).unwrap();
                assert_eq!(offer["data"]["i"], next[from], "from {from}");
                next[from] += 1;
            }
        }
        for sender in senders {
            sender.join().unwrap();
        }
        hub.metric_becomes(r#"peerpigeon_relay_outcomes_total{outcome="delivered"}"#, |n| n == 2.0 * EACH as f64);
    });
}

#[test]
pub fn a_thousand_joins_at_once_are_announced_exactly_once() {
    for shards in ["1", "8"] {
        let hub = Hub::start(&[("SHARDS", shards), ("MAX_CONNECTIONS", "2000")]);
        let url = format!("ws://{}", hub.address);
        let run = crate::hub::command(&[])
            .args(["load-test", "--hub", &url, "--peers", "1000", "--duration", "2", "--scenario", "join"])
            .output()
            .unwrap();
        assert!(
            run.status.success(),
            "{}{}",
            String::from_utf8_lossy(&run.stdout),
            String::from_utf8_lossy(&run.stderr)
        );
        hub.metric_becomes("peerpigeon_connections", |n| n == 0.0);
    }
}

#[test]
fn repeated_joins_and_forged_discoveries_have_no_effect() {
    with_shards(|hub| {
        let mut a = Client::join(hub, 1, "n");
        let mut b = Client::join(hub, 2, "n");
        a.hear_type("peer-discovered");
        b.hear_type("peer-discovered");
        for _ in 0..50 {
            a.say(r#"{"type":"goodbye"}"#);
            assert_eq!(b.hear()["type"], "goodbye");
            a.announce("n");
            assert_eq!(b.hear()["type"], "peer-discovered");
            assert_eq!(a.hear()["type"], "peer-discovered");
        }
        for _ in 0..1000 {
            a.say(&format!(r#"{{"type":"peer-discovered","networkName":"n","data":{{"peerId":"{}"}}}}"#, id(77)));
        }
        b.hears_nothing();
    });
}
