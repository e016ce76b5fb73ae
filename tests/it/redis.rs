//! Hubs that are joined by Redis, and hubs that do not need it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proto::limits::LEASE;

use crate::client::{Client, id};
use crate::hub::{DEADLINE, Hub};
use crate::mesh::{TOKEN, discovered, eventually, free_port, json, mesh, settled};

/// A server of its own, killed with the test.
struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    fn start(port: u16) -> Self {
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

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn kill(mut self) -> u16 {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        self.port
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
fn hubs_with_one_redis_and_no_link_are_one_mesh() {
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

#[test]
fn what_needs_no_redis_does_not_miss_it() {
    let redis = Redis::start(free_port());
    let url = redis.url();
    // Two that are linked as well, and one that only Redis joins with them.
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
    // Gone for longer than any lease.
    let port = redis.kill();
    let killed = Instant::now();
    for watcher in [&mut a, &mut b] {
        let left = watcher.hear();
        assert_eq!((&left["data"]["peerId"], &left["data"]["reason"]), (&id(3).into(), &"hub-lost".into()));
    }
    for _ in 0..2 {
        assert_eq!(c.hear()["data"]["reason"], "hub-lost");
    }
    assert!(killed.elapsed() < LEASE + Duration::from_secs(5), "after {:?}", killed.elapsed());
    exchange(&mut a, &mut b, 3);
    for hub in &hubs {
        assert!(hub.get("/readyz").starts_with("HTTP/1.1 200"), "readiness does not ask Redis");
    }
    c.hears_nothing();
    let redis = Redis::start(port);
    let back = Instant::now();
    assert_eq!((discovered(&mut a), discovered(&mut b)), (id(3), id(3)));
    let mut told = [discovered(&mut c), discovered(&mut c)];
    told.sort();
    assert_eq!(told, [id(1), id(2)]);
    assert!(back.elapsed() < Duration::from_secs(10), "after {:?}", back.elapsed());
    c.offer(&id(1), "n", "4", r#","id":"y""#);
    assert_eq!(a.hear()["data"], 4);
    assert_eq!(c.hear()["data"]["outcome"], "delivered");
    for peer in [&mut a, &mut b, &mut c] {
        peer.hears_nothing();
    }
    assert!(json(&hubs[2], "/hubstats").to_string().contains("redis"), "{}", json(&hubs[2], "/hubstats"));
    drop(redis);
}
