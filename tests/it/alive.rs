//! Tests of keepalive with a hub that sends nothing, a client that reads slowly, and a client that reads nothing.

use std::io::Read;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use crate::client::{Client, Heard, frame, id};
use crate::hub::{DEADLINE, Hub};

/// A silent peer is pinged after 0.5 s and closed after 1.5 s.
const IMPATIENT: (&str, &str) = ("PEER_TIMEOUT_MS", "1500");

const QUEUED: &str = r#"peerpigeon_session_queued_bytes{shard="0"}"#;

/// Sleeps for 10 ms.
fn pause() {
    std::thread::park_timeout(Duration::from_millis(10));
}

/// Sends `n` signals from `from` to peer `target`, with `bytes` bytes of data each.
fn fill(from: &mut Client, target: u32, n: usize, bytes: usize) {
    let data = format!(r#""{}""#, "x".repeat(bytes));
    for _ in 0..n {
        from.offer(&id(target), "n", &data, "");
    }
}

/// Answers pings and sends messages from time to time until `done`.
fn keep_alive(mut client: Client, done: std::sync::mpsc::Receiver<()>) -> std::thread::JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let mut heard = Vec::new();
        client.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        while done.try_recv() == Err(TryRecvError::Empty) {
            client.say(r#"{"type":"cleanup"}"#);
            heard.extend(client.heard_so_far());
        }
        heard
    })
}

#[test]
pub fn a_client_that_sends_constantly_still_receives_pings() {
    let hub = Hub::start(&[("PEER_TIMEOUT_MS", "1200")]);
    let mut alone = Client::join(&hub, 1, "lonely");
    let mut writer = alone.stream.try_clone().unwrap();
    let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(1);
    let talk = std::thread::spawn(move || {
        while stopped.try_recv() == Err(TryRecvError::Empty) {
            std::io::Write::write_all(&mut writer, &frame(1, br#"{"type":"cleanup"}"#)).unwrap();
            pause();
        }
    });
    // This client sends constantly. The hub pings the client because the hub has sent nothing else on the connection.
    for _ in 0..4 {
        assert_eq!(alone.frame(), Heard::Ping(vec![]));
    }
    drop(stop);
    talk.join().unwrap();
}

#[test]
fn a_slow_reader_is_kept_until_it_stops_reading() {
    let hub = Hub::start(&[IMPATIENT, ("SHARDS", "1")]);
    let mut slow = Client::narrow(&hub, 1, "n");
    let mut sender = Client::join(&hub, 2, "n");
    sender.hear_type("peer-discovered");
    fill(&mut sender, 1, 60, 50_000);
    let (done, wait) = std::sync::mpsc::sync_channel(1);
    let sender = keep_alive(sender, wait);
    // For three times PEER_TIMEOUT_MS, the client reads slowly (less than a quarter of its queue) and answers no pings.
    let begun = Instant::now();
    let mut buffer = [0; 1600];
    while begun.elapsed() < Duration::from_millis(4500) {
        assert!(slow.stream.read(&mut buffer).expect("the client can read") > 0, "closed after {:?}", begun.elapsed());
        pause();
    }
    assert_eq!(hub.metric(r#"peerpigeon_closes_total{reason="dead-peer"}"#), 0.0);
    hub.metric_becomes(r#"peerpigeon_closes_total{reason="dead-peer"}"#, |closes| closes == 1.0);
    drop(done);
    let heard = sender.join().unwrap();
    assert!(heard.iter().any(|text| text.contains(r#""reason":"dead-peer""#)), "{heard:?}");
}

#[test]
fn a_client_that_sends_but_never_reads_is_closed() {
    let hub = Hub::start(&[IMPATIENT, ("SHARDS", "1")]);
    let slow = Client::narrow(&hub, 1, "n");
    let mut sender = Client::join(&hub, 2, "n");
    sender.hear_type("peer-discovered");
    fill(&mut sender, 1, 60, 50_000);
    let (done, wait) = std::sync::mpsc::sync_channel(1);
    let sender = keep_alive(sender, wait);
    hub.metric_becomes(QUEUED, |bytes| bytes > 2_000_000.0);
    let mut writer = slow.stream.try_clone().unwrap();
    let begun = Instant::now();
    while hub.metric(r#"peerpigeon_closes_total{reason="dead-peer"}"#) == 0.0 {
        assert!(begun.elapsed() < DEADLINE, "the client that reads nothing was not closed");
        // The write fails once the hub has closed the connection.
        _ = std::io::Write::write_all(&mut writer, &frame(1, br#"{"type":"cleanup"}"#));
        pause();
    }
    hub.metric_becomes(QUEUED, |bytes| bytes < 100_000.0);
    drop(done);
    sender.join().unwrap();
}

#[test]
fn data_left_in_the_kernel_counts_as_unread() {
    let hub = Hub::start(&[IMPATIENT, ("SHARDS", "1")]);
    let slow = Client::narrow(&hub, 1, "n");
    let mut sender = Client::join(&hub, 2, "n");
    sender.hear_type("peer-discovered");
    // A part of this data fits into the receive buffer of the client's kernel. The rest of the data fits into the send
    // buffer of the hub's kernel, so nothing stays in the hub's own queue.
    fill(&mut sender, 1, 1, 12_000);
    let (done, wait) = std::sync::mpsc::sync_channel(1);
    let sender = keep_alive(sender, wait);
    let mut writer = slow.stream.try_clone().unwrap();
    let begun = Instant::now();
    while hub.metric(r#"peerpigeon_closes_total{reason="dead-peer"}"#) == 0.0 {
        assert!(begun.elapsed() < DEADLINE, "the client that reads nothing was not closed");
        _ = std::io::Write::write_all(&mut writer, &frame(1, br#"{"type":"cleanup"}"#));
        pause();
    }
    drop(done);
    sender.join().unwrap();
}

#[test]
pub fn pings_overtake_queued_messages() {
    let hub = Hub::start(&[("PEER_TIMEOUT_MS", "15000"), ("SHARDS", "1")]);
    let mut slow = Client::narrow(&hub, 1, "n");
    let mut sender = Client::join(&hub, 2, "n");
    sender.hear_type("peer-discovered");
    slow.hear_type("peer-discovered");
    fill(&mut sender, 1, 60, 50_000);
    hub.metric_becomes(QUEUED, |bytes| bytes > 2_000_000.0);
    slow.raw(&frame(9, b"its own"));
    sender.hears_nothing();
    hub.metric_becomes("peerpigeon_pings_total", |pings| pings >= 1.0);
    let (mut messages, mut ping, mut pong) = (0, None, None);
    while ping.is_none() || pong.is_none() {
        match slow.frame() {
            Heard::Text(_) => messages += 1,
            Heard::Ping(_) => ping = Some(messages),
            Heard::Pong(payload) => {
                assert_eq!(payload, b"its own");
                pong = Some(messages);
            }
            other => panic!("{other:?}"),
        }
    }
    // The kernel had already accepted some bytes, and one message may have been partly written. The client receives the
    // ping right after these bytes, before all other queued messages.
    assert!(ping < Some(10) && pong < Some(10), "{ping:?} {pong:?} of 60");
}

/// Reads slowly and answers pings until `done`. Returns true if the hub closed the connection.
fn read_slowly(mut client: Client, done: std::sync::mpsc::Receiver<()>) -> std::thread::JoinHandle<bool> {
    std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        while done.try_recv() == Err(TryRecvError::Empty) {
            let Ok(n @ 1..) = client.stream.read(&mut buffer) else { return true };
            if client.take_in(&buffer[..n]).iter().any(|heard| matches!(heard, Heard::Close(..))) {
                return true;
            }
            pause();
        }
        false
    })
}

#[test]
fn a_flood_to_the_owner_of_an_id_does_not_free_the_id() {
    for hubs in [vec![Hub::start(&[])], crate::mesh::mesh(2, &[])] {
        let owner = Client::narrow(&hubs[0], 1, "n");
        let mut sender = Client::join(&hubs[0], 2, "n");
        sender.hear_type("peer-discovered");
        // The owner needs twenty seconds to read the data of these signals.
        fill(&mut sender, 1, 60, 50_000);
        sender.hears_nothing();
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        let owner = read_slowly(owner, wait);
        let mut thief = Client::open(hubs[hubs.len() - 1].address, 1, b"");
        assert_eq!(thief.closed(), (4009, "peer id in use".into()), "{} hubs", hubs.len());
        drop(done);
        assert!(!owner.join().unwrap(), "with {} hubs, the owner of the id must stay connected", hubs.len());
    }
}
