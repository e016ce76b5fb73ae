//! Tests of hubs that are connected by Redis, and of hubs that lose Redis but still have links.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::client::{Client, id};
use crate::hub::{DEADLINE, Hub};
use crate::mesh::{TOKEN, discovered, eventually, free_port, json, mesh, settled};
use crate::partings::signals_arrive_while_their_sender_is_present;

/// A Redis server for one test. Dropping it kills the server.
pub struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    pub fn start(port: u16) -> Self {
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (Debian: redis-server)");
        let redis = Self { child, port };
        eventually("redis answers", || redis.try_ask("PING").is_some_and(|answer| answer.starts_with("+PONG")));
        redis
    }

    fn try_ask(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Records all messages that are published from now on.
    fn record(&self) -> Recording {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connected");
        stream.write_all(b"PSUBSCRIBE *\r\n").expect("subscribed");
        let mut recording = Recording(stream);
        recording.reply();
        recording
    }

    fn publish(&self, frames: &[(Vec<u8>, Vec<u8>)]) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connected");
        for (channel, frame) in frames {
            let mut command = b"*3\r\n$7\r\nPUBLISH\r\n".to_vec();
            for part in [channel, frame] {
                command.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
                command.extend_from_slice(part);
                command.extend_from_slice(b"\r\n");
            }
            stream.write_all(&command).expect("published");
        }
        stream.write_all(b"QUIT\r\n").expect("said");
        _ = stream.read_to_end(&mut Vec::new());
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn kill(mut self) -> u16 {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        self.port
    }
}

struct Recording(TcpStream);

impl Recording {
    /// The strings in one reply.
    fn reply(&mut self) -> Vec<Vec<u8>> {
        let count: usize = self.line()[1..].parse().expect("an array");
        let mut parts = Vec::new();
        for _ in 0..count {
            let line = self.line();
            if let Some(len) = line.strip_prefix('$') {
                let mut part = vec![0; len.parse::<usize>().expect("a length") + 2];
                self.0.read_exact(&mut part).expect("read");
                part.truncate(part.len() - 2);
                parts.push(part);
            }
        }
        parts
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            self.0.read_exact(&mut byte).expect("read");
            line.push(byte[0]);
        }
        String::from_utf8(line).expect("text").trim_end().to_owned()
    }

    /// The recorded channels and frames, up to a message on the channel `stop`.
    fn stop(mut self, redis: &Redis) -> Vec<(Vec<u8>, Vec<u8>)> {
        redis.publish(&[(b"stop".to_vec(), Vec::new())]);
        let mut frames = Vec::new();
        loop {
            let mut parts = self.reply().into_iter().skip(2);
            match (parts.next(), parts.next()) {
                (Some(channel), Some(_)) if channel == b"stop" => return frames,
                (Some(channel), Some(frame)) => frames.push((channel, frame)),
                _ => panic!("not a message"),
            }
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn bridged(redis: &str) -> Hub {
    Hub::start(&[("REDIS_URL", redis), ("MESH_TOKEN", TOKEN)])
}

#[test]
fn hubs_with_one_redis_and_no_links_form_one_mesh() {
    let redis = Redis::start(free_port());
    let hubs = [bridged(&redis.url()), bridged(&redis.url())];
    settled(&hubs);
    let mut a = Client::join(&hubs[0], 1, "n");
    let mut b = Client::join(&hubs[1], 2, "n");
    assert_eq!((discovered(&mut a), discovered(&mut b)), (id(2), id(1)));
    for n in 0..100 {
        a.offer(&id(2), "n", &n.to_string(), &format!(r#","id":"{n}""#));
    }
    for n in 0..100 {
        assert_eq!(b.hear()["data"], n);
        assert_eq!(a.hear()["data"]["outcome"], "delivered");
    }
    drop(b);
    assert_eq!(a.hear()["type"], "peer-disconnected");
    a.hears_nothing();
}

/// Presence and signals use different channels. A hub must process a leave only after the signals that were sent before
/// it.
#[test]
fn signals_over_redis_arrive_while_their_sender_is_present() {
    let redis = Redis::start(free_port());
    for shards in ["1", "4"] {
        let url = redis.url();
        let start = || Hub::start(&[("REDIS_URL", &url), ("MESH_TOKEN", TOKEN), ("SHARDS", shards)]);
        let hubs = [start(), start()];
        settled(&hubs);
        signals_arrive_while_their_sender_is_present(&hubs[0], &hubs[1], true);
    }
}

#[test]
fn a_lost_redis_affects_only_traffic_that_needs_it() {
    let redis = Redis::start(free_port());
    let url = redis.url();
    // Two hubs are linked. Only Redis connects the third hub to the two linked hubs.
    let mut hubs = mesh(2, &[("REDIS_URL", &url)]);
    hubs.push(bridged(&url));
    settled(&hubs);
    let mut a = Client::join(&hubs[0], 1, "n");
    let mut b = Client::join(&hubs[1], 2, "n");
    assert_eq!((discovered(&mut a), discovered(&mut b)), (id(2), id(1)));
    let mut c = Client::join(&hubs[2], 3, "n");
    assert_eq!((discovered(&mut a), discovered(&mut b)), (id(3), id(3)));
    discovered(&mut c);
    discovered(&mut c);
    for peer in [&mut a, &mut b, &mut c] {
        peer.hears_nothing();
    }
    let exchange = |a: &mut Client, b: &mut Client, n: u32| {
        a.offer(&id(2), "n", &n.to_string(), r#","id":"x""#);
        assert_eq!(b.hear()["data"], n);
        assert_eq!(a.hear()["data"]["outcome"], "delivered");
    };
    exchange(&mut a, &mut b, 1);
    _ = redis.try_ask("CLIENT KILL TYPE normal");
    _ = redis.try_ask("CLIENT KILL TYPE pubsub");
    exchange(&mut a, &mut b, 2);
    // Redis stays down for longer than any lease.
    let port = redis.kill();
    for watcher in [&mut a, &mut b] {
        let left = watcher.hear();
        assert_eq!((&left["data"]["peerId"], &left["data"]["reason"]), (&id(3).into(), &"hub-lost".into()));
    }
    for _ in 0..2 {
        assert_eq!(c.hear()["data"]["reason"], "hub-lost");
    }
    exchange(&mut a, &mut b, 3);
    for hub in &hubs {
        assert!(hub.get("/readyz").starts_with("HTTP/1.1 200"), "readiness must not depend on Redis");
    }
    c.hears_nothing();
    let redis = Redis::start(port);
    assert_eq!((discovered(&mut a), discovered(&mut b)), (id(3), id(3)));
    let mut told = [discovered(&mut c), discovered(&mut c)];
    told.sort();
    assert_eq!(told, [id(1), id(2)]);
    c.offer(&id(1), "n", "4", r#","id":"y""#);
    assert_eq!(a.hear()["data"], 4);
    assert_eq!(c.hear()["data"]["outcome"], "delivered");
    for peer in [&mut a, &mut b, &mut c] {
        peer.hears_nothing();
    }
    assert!(json(&hubs[2], "/hubstats").to_string().contains("redis"), "{}", json(&hubs[2], "/hubstats"));
    drop(redis);
}

/// An attacker who can publish to Redis, but does not know the token, replays recorded frames.
#[test]
fn replayed_frames_do_not_revive_a_hub() {
    let redis = Redis::start(free_port());
    let recording = redis.record();
    let mut hubs = vec![bridged(&redis.url()), bridged(&redis.url())];
    settled(&hubs);
    let mut a = Client::join(&hubs[0], 1, "n");
    let b = Client::join(&hubs[1], 2, "n");
    assert_eq!(discovered(&mut a), id(2));
    let ended = hubs.pop().expect("two hubs");
    ended.signal("-KILL");
    assert_eq!(a.hear()["data"]["reason"], "hub-lost");
    drop(b);
    // The first hub has received all recorded frames before. The new hub, which starts here, has received none of them.
    let recorded = recording.stop(&redis);
    hubs.push(bridged(&redis.url()));
    settled(&hubs);
    let mut c = Client::join(&hubs[1], 3, "n");
    assert_eq!((discovered(&mut a), discovered(&mut c)), (id(3), id(1)));
    let began = Instant::now();
    let metric = |hub: &Hub| hub.metric("peerpigeon_redis_one_way_hubs");
    // The frames are published again until both hubs report a hub that sends frames but does not answer.
    while hubs.iter().any(|hub| metric(hub) == 0.0) {
        assert!(began.elapsed() < DEADLINE, "the hubs did not report the hub that does not answer");
        redis.publish(&recorded);
    }
    for hub in &hubs {
        assert_eq!(json(hub, "/hubs")["totalHubs"], 1, "{}", json(hub, "/hubs"));
        assert_eq!(json(hub, "/hubstats")["redis"]["oneWay"].as_array().map(Vec::len), Some(1));
    }
    for peer in [&mut a, &mut c] {
        peer.hears_nothing();
    }
    a.offer(&id(3), "n", "1", r#","id":"x""#);
    assert_eq!(c.hear()["data"], 1);
    assert_eq!(a.hear()["data"]["outcome"], "delivered");
}

#[test]
fn a_hub_reports_that_its_redis_is_a_replica_and_joins_after_the_promotion() {
    let (master, replica) = (Redis::start(free_port()), Redis::start(free_port()));
    _ = replica.try_ask(&format!("REPLICAOF 127.0.0.1 {}", master.port));
    let hub = bridged(&replica.url());
    eventually("the hub reports the replica", || {
        json(&hub, "/hubstats")["redis"]["lastError"].to_string().contains("is a replica")
    });
    assert_eq!(json(&hub, "/hubstats")["redis"]["connected"], false);
    _ = replica.try_ask("REPLICAOF NO ONE");
    let hubs = [hub, bridged(&replica.url())];
    settled(&hubs);
    // The server becomes a replica again while its connections stay open.
    _ = replica.try_ask(&format!("REPLICAOF 127.0.0.1 {}", master.port));
    for hub in &hubs {
        eventually("the hub reports the replica again", || json(hub, "/hubstats")["redis"]["connected"] == false);
    }
}
