//! Tests of a shard that hangs. Another shard must report the hanging shard, and the hub must still be able to stop.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant, SystemTime};

use peerpigeon::admin::{Desk, Gatekeeper};
use peerpigeon::config::Config;
use peerpigeon::hub::{self, Hub};
use peerpigeon::lifecycle::{Lifecycle, Stage};
use peerpigeon::pages::{self, HubFacts};
use peerpigeon::watchdog::Watchdog;
use proto::{HubId, Keys, PeerId, ResumeKeys, RouterConfig};
use shard::{Clock, Gauges, HubConfig, Pages, ShardReading};
use tokio::sync::{mpsc, watch};

use crate::door::{body, status};
use crate::hub::DEADLINE;

const SHARDS: u16 = 3;

/// Starts a hub inside this process. A request for `/hang` blocks the shard that accepts it until the test reaches the
/// barrier.
fn start(patience: Duration) -> (Hub, SocketAddr, Arc<Barrier>, Arc<AtomicBool>) {
    let config = Arc::new(Config::from_pairs(&[("HOST", "127.0.0.1"), ("PORT", "0"), ("SHARDS", "3")]).unwrap());
    let listeners = hub::bind(&config.listen, SHARDS).unwrap();
    let address = listeners[0][0].local_addr().unwrap();
    let (clock, gauges, lifecycle) = (Clock::start(), Arc::<Gauges>::default(), Lifecycle::new());
    lifecycle.advance(Stage::Ready);
    let watchdog = Watchdog::new((0..SHARDS).map(|shard| format!("shard-{shard}")), patience);
    let (publish, readings) = (0..SHARDS).map(|_| watch::channel(Arc::new(ShardReading::default()))).unzip();
    let (_, mesh) = watch::channel(Arc::default());
    let facts = HubFacts {
        started: Instant::now(),
        started_at: SystemTime::now(),
        port: address.port(),
        max_connections: 10,
        gauges: Arc::clone(&gauges),
        readings,
        networks: Arc::default(),
        mesh: mesh.clone(),
        lifecycle,
        watchdog: watchdog.clone(),
        tls: None,
        status: watch::channel(None).0,
        token_keys: None,
        traces: None,
    };
    let pages = {
        let gatekeeper = Gatekeeper::new(None, [0; 32]);
        pages::pages(Arc::clone(&config), facts, gatekeeper, Desk::new().0, || {}).unwrap().0
    };
    let barrier = Arc::new(Barrier::new(2));
    let hangs = Arc::new(AtomicBool::new(false));
    let (wait, hanging) = (Arc::clone(&barrier), Arc::clone(&hangs));
    let pages: Pages = Arc::new(move |request, visitor| {
        if request.uri.path() == "/hang" {
            hanging.store(true, Ordering::Release);
            wait.wait();
        }
        pages(request, visitor)
    });
    let hub = HubId(PeerId::from_bytes([0; 20]));
    let router = RouterConfig::single(hub, Keys(1, 2), ResumeKeys::new("mesh", b"key", None));
    let shards = HubConfig {
        max_connections: 10,
        pages,
        gauges,
        clock,
        turned: Arc::new(move |shard| watchdog.turned(usize::from(shard.0), clock.elapsed())),
        ..HubConfig::single(RouterConfig { shards: SHARDS, ..router })
    };
    (Hub::start(&shards, listeners, publish, None, mesh).unwrap(), address, barrier, hangs)
}

/// The answer to a request, or `None` if the shard that accepted the connection hangs.
fn ask(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).is_ok().then_some(answer).filter(|answer| !answer.is_empty())
}

fn becomes(address: SocketAddr, path: &str, expected: &str) -> String {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask(address, path)
            && status(&answer) == expected
        {
            return body(&answer).to_owned();
        }
        assert!(Instant::now() < end, "{path} never says {expected}");
    }
}

#[test]
fn a_hanging_shard_is_reported_and_does_not_prevent_a_stop() {
    let (hub, address, barrier, hangs) = start(Duration::from_secs(1));
    becomes(address, "/livez", "200");
    let mut hanging = TcpStream::connect(address).unwrap();
    hanging.write_all(b"GET /hang HTTP/1.1\r\nHost: hub\r\n\r\n").unwrap();
    let said = becomes(address, "/livez", "503");
    assert!(hangs.load(Ordering::Acquire));
    assert!(said.starts_with("stuck: thread shard-") && said.contains(" has made no progress for "), "{said}");
    assert_eq!(becomes(address, "/readyz", "503").split(" has ").next(), said.split(" has ").next());

    barrier.wait();
    becomes(address, "/livez", "200");
    becomes(address, "/readyz", "200");

    // The shard hangs again, and the hub must still stop.
    let mut hanging = TcpStream::connect(address).unwrap();
    hanging.write_all(b"GET /hang HTTP/1.1\r\nHost: hub\r\n\r\n").unwrap();
    becomes(address, "/livez", "503");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (stop, stops) = mpsc::channel(1);
    stop.try_send(()).unwrap();
    let (lifecycle, orders) = (Lifecycle::new(), Desk::new().1);
    let running = hub.run(Duration::ZERO, stops, orders, &lifecycle);
    let ended = runtime.block_on(async { tokio::time::timeout(DEADLINE, running).await });
    assert!(ended.expect("the hub must not wait for a shard that hangs").is_ok());
    barrier.wait();
}
