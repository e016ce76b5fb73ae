//! Tests of listeners that share a few file descriptors.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::{HubId, Keys, PeerId, ResumeKeys, RouterConfig};
use shard::{FileShares, HandshakeFailure, HubConfig, ShardReading};
use tokio::sync::{mpsc, watch};

fn config(peers: usize) -> HubConfig {
    let hub = HubId(PeerId::from_bytes([0; 20]));
    let router = RouterConfig::single(hub, Keys(1, 2), ResumeKeys::new("mesh", b"key", None));
    let files = FileShares { peers, ..FileShares::UNLIMITED };
    HubConfig { max_connections: peers, files, ..HubConfig::single(router) }
}

/// Returns true if a request on this connection is answered, and false if the connection has ended.
fn is_served(stream: &mut TcpStream) -> bool {
    _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    let is_served = reader.read_line(&mut line).is_ok() && line.starts_with("HTTP/1.1 200");
    while is_served && line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line).is_ok_and(|bytes| bytes == 0) {
            return false;
        }
    }
    is_served
}

#[test]
fn a_listener_drops_a_connection_to_make_room_at_another_listener() {
    let listeners: Vec<_> = (0..4).map(|_| shard::bind(([127, 0, 0, 1], 0).into(), 1).unwrap().remove(0)).collect();
    let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    let (publish, readings) = watch::channel(Arc::new(ShardReading::default()));
    let (ended, _end) = mpsc::channel(1);
    let _shards = shard::start(&config(6), vec![listeners], vec![publish], None, &ended).unwrap();
    let connect = |at: usize| {
        let stream = TcpStream::connect(addresses[at]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    };
    // Three of the four listeners have two connections each, which use all six file descriptors.
    let mut kept: Vec<_> = [1, 1, 2, 2, 3, 3].map(connect).into();
    assert!(kept.iter_mut().all(is_served));
    assert!(is_served(&mut connect(0)));
    let failures = |failure: HandshakeFailure| readings.borrow().io.handshake_failures[failure as usize];
    let began = Instant::now();
    while failures(HandshakeFailure::CrowdedOut) == 0 {
        assert!(began.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
    let still_served = kept.iter_mut().filter_map(|stream| is_served(stream).then_some(())).count();
    assert_eq!((still_served, failures(HandshakeFailure::CrowdedOut)), (5, 1));
    assert_eq!(failures(HandshakeFailure::BadRequest), 0);
}
