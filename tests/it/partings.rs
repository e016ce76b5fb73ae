//! Tests with peers that join, signal a peer of another hub, and leave. A peer sends all messages from its join to its
//! leave in one write.

use std::collections::BTreeMap;

use crate::client::{Client, Heard, frame, id};
use crate::hub::Hub;
use crate::mesh::{chain, discovered, mesh};

/// How a peer leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    Goodbye,
    CloseFrame,
    /// The peer ends its stream.
    End,
    /// The peer resets its connection. The hub loses the data that it has not yet read from its kernel.
    Reset,
}

const LEAVES: [Leave; 4] = [Leave::Goodbye, Leave::CloseFrame, Leave::End, Leave::Reset];

/// Number of offers from each peer to the observer.
const OFFERS: usize = 3;

const OBSERVER: u32 = 1;

fn offer(data: u32) -> Vec<u8> {
    let target = id(OBSERVER);
    let text = format!(r#"{{"type":"offer","targetPeerId":"{target}","networkName":"n","data":{data}}}"#);
    frame(1, text.as_bytes())
}

/// Peer `n` joins, sends its offers and leaves in one write. Returns the client if its connection is still open.
fn pass_by(hub: &Hub, n: u32, leave: Leave) -> Option<Client> {
    let mut client = Client::connect(hub, n);
    let mut said = frame(1, br#"{"type":"announce","networkName":"n"}"#);
    (0..OFFERS).for_each(|_| said.extend(offer(n)));
    match leave {
        Leave::Goodbye => said.extend(frame(1, br#"{"type":"goodbye"}"#)),
        Leave::CloseFrame => said.extend(frame(8, &1000_u16.to_be_bytes())),
        Leave::End | Leave::Reset => {}
    }
    client.raw(&said);
    match leave {
        Leave::Goodbye | Leave::CloseFrame => Some(client),
        Leave::End => {
            client.stream.shutdown(std::net::Shutdown::Write).unwrap();
            Some(client)
        }
        Leave::Reset => {
            client.reset();
            None
        }
    }
}

fn is_leave(message: &serde_json::Value, n: u32) -> bool {
    match message["type"].as_str() {
        Some("goodbye") => message["fromPeerId"] == id(n),
        Some("peer-disconnected") => message["data"]["peerId"] == id(n),
        _ => false,
    }
}

/// Asserts that the observer received each signal between the discovery and the leave of its sender. Returns the number
/// of signals.
fn in_between(told: &[serde_json::Value]) -> usize {
    let mut present: BTreeMap<String, bool> = BTreeMap::new();
    let mut signals = 0;
    for message in told {
        let subject = |field: &str| message["data"][field].as_str().map(str::to_owned);
        match message["type"].as_str() {
            Some("peer-discovered") => {
                present.insert(subject("peerId").unwrap(), true);
            }
            Some("peer-disconnected") => {
                assert_eq!(present.insert(subject("peerId").unwrap(), false), Some(true), "{message}");
            }
            Some("goodbye") => {
                let from = message["fromPeerId"].as_str().unwrap().to_owned();
                assert_eq!(present.insert(from, false), Some(true), "{message}");
            }
            Some("offer") => {
                signals += 1;
                let from = message["fromPeerId"].as_str().unwrap();
                assert_eq!(
                    present.get(from),
                    Some(&true),
                    "a signal arrived while its sender was not present: {told:#?}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    signals
}

/// Number of signals that have an outcome.
fn outcomes(hub: &Hub) -> f64 {
    let page = hub.get("/metrics");
    let of_signals = page.lines().filter(|line| line.starts_with("peerpigeon_relay_outcomes_total{"));
    of_signals.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Peers join, signal and leave at hub `here`. An observer at hub `there` must receive each signal between the
/// discovery and the leave of its sender.
pub fn signals_arrive_while_their_sender_is_present(here: &Hub, there: &Hub, every_signal_arrives: bool) {
    let mut observer = Client::join(there, OBSERVER, "n");
    let mut told = Vec::new();
    let mut sent = 0;
    for n in 100..132 {
        // When this first session of the id has discovered the observer, the id's home shard knows the observer.
        let mut before = Client::join(here, n, "n");
        while discovered(&mut before) != id(OBSERVER) {}
        drop(before);
        while told.last().is_none_or(|message| !is_leave(message, n)) {
            told.push(observer.hear());
        }
        let seen = told.len();
        let leave = LEAVES[n as usize % LEAVES.len()];
        let client = pass_by(here, n, leave);
        if leave != Leave::Reset {
            sent += OFFERS;
            while told[seen..].last().is_none_or(|message| !is_leave(message, n)) {
                told.push(observer.hear());
            }
        }
        drop(client);
    }
    // When each signal that the hub has read has an outcome, no signal is in flight.
    let series = r#"peerpigeon_messages_total{direction="in",type="offer"}"#;
    let read = here.metric_becomes(series, |read| read >= sent as f64 && outcomes(here) == read);
    observer.say(r#"{"type":"ping"}"#);
    loop {
        match observer.next() {
            Heard::Text(text) if text.contains(r#""type":"pong""#) => break,
            Heard::Text(text) => told.push(serde_json::from_str(&text).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    let arrived = in_between(&told);
    let delivered = here.metric(r#"peerpigeon_relay_outcomes_total{outcome="delivered"}"#);
    assert_eq!(arrived as f64, delivered, "of {read}");
    if every_signal_arrives {
        assert_eq!(delivered, read);
    }
}

#[test]
fn signals_over_links_arrive_while_their_sender_is_present() {
    for shards in ["1", "2", "4", "8"] {
        let hubs = mesh(2, &[("SHARDS", shards)]);
        signals_arrive_while_their_sender_is_present(&hubs[0], &hubs[1], true);
    }
}

#[test]
fn signals_under_bounded_discovery_arrive_while_their_sender_is_present() {
    let hubs = mesh(2, &[("SHARDS", "8"), ("DISCOVERY", "closest:2")]);
    signals_arrive_while_their_sender_is_present(&hubs[0], &hubs[1], true);
}

#[test]
fn signals_over_a_third_hub_arrive_while_their_sender_is_present() {
    let hubs = chain(3, &[("SHARDS", "4")]);
    signals_arrive_while_their_sender_is_present(&hubs[0], &hubs[2], true);
}
