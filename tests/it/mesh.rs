//! Tests of several linked hubs on one machine, some of which are killed, stopped or partitioned.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::client::{Client, Heard, frame, id};
use crate::hub::{DEADLINE, Hub, command};
pub use crate::ports::free_port;

pub const TOKEN: &str = "of-the-mesh";

/// Returns the URLs of hubs at the given ports, in the form of BOOTSTRAP_HUBS.
fn urls(ports: &[u16]) -> String {
    ports.iter().map(|port| format!("ws://127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
}

fn start(port: u16, bootstrap: &str, env: &[(&str, &str)]) -> Hub {
    let port = port.to_string();
    let mut all =
        vec![("PORT", port.as_str()), ("IS_HUB", "true"), ("MESH_TOKEN", TOKEN), ("BOOTSTRAP_HUBS", bootstrap)];
    all.extend_from_slice(env);
    Hub::start(&all)
}

fn live_hubs(hub: &Hub) -> u64 {
    json(hub, "/health")["hubs"].as_u64().unwrap()
}

pub fn json(hub: &Hub, path: &str) -> Value {
    let page = hub.get(path);
    let (_, body) = page.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// Waits until `is_so` returns true. `what` describes the condition in the error message.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < end, "timeout: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Starts a full mesh. Every hub gets the URLs of all hubs, including its own URL.
pub fn mesh(count: usize, env: &[(&str, &str)]) -> Vec<Hub> {
    let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
    let bootstrap = urls(&ports);
    let hubs: Vec<Hub> = ports.iter().map(|&port| start(port, &bootstrap, env)).collect();
    settled(&hubs);
    hubs
}

/// Starts a chain. Every hub gets the URL of the previous hub.
pub fn chain(count: usize, env: &[(&str, &str)]) -> Vec<Hub> {
    let mut hubs: Vec<Hub> = Vec::new();
    for _ in 0..count {
        let before = hubs.last().map(|hub| urls(&[hub.address.port()])).unwrap_or_default();
        hubs.push(start(free_port(), &before, env));
    }
    settled(&hubs);
    hubs
}

pub fn settled(hubs: &[Hub]) {
    for (n, hub) in hubs.iter().enumerate() {
        eventually(&format!("hub {n} knows all other hubs"), || live_hubs(hub) == hubs.len() as u64 - 1);
    }
}

pub fn discovered(client: &mut Client) -> String {
    client.hear_type("peer-discovered")["data"]["peerId"].as_str().unwrap().to_owned()
}

#[test]
fn peers_of_two_hubs_see_each_other_like_peers_of_one_hub() {
    let hubs = mesh(2, &[]);
    let mut a = Client::join(&hubs[0], 1, "n");
    let mut b = Client::connect(&hubs[1], 2);
    b.say(r#"{"type":"announce","networkName":"n","data":{"info":"hi","isHub":true}}"#);
    let heard = a.hear_type("peer-discovered");
    assert_eq!(heard["data"], serde_json::json!({"info": "hi", "isHub": false, "peerId": id(2)}));
    assert_eq!((&heard["targetPeerId"], &heard["fromPeerId"]), (&id(1).into(), &"system".into()));
    assert_eq!(discovered(&mut b), id(1));
    a.offer(&id(2), "n", r#"{"sdp": "v=0\r\n"}"#, r#","id":"one""#);
    let offer = b.hear();
    assert_eq!((&offer["type"], &offer["fromPeerId"]), (&"offer".into(), &id(1).into()));
    assert_eq!(offer["data"], serde_json::json!({"sdp": "v=0\r\n"}));
    let receipt = a.hear();
    assert_eq!((&receipt["type"], &receipt["data"]["outcome"]), (&"receipt".into(), &"delivered".into()));
    b.offer(&id(1), "other", "1", r#","id":"two""#);
    assert_eq!(b.hear()["data"]["outcome"], "wrong-network");
    b.offer(&id(3), "n", "1", r#","id":"three""#);
    assert_eq!(b.hear()["data"]["outcome"], "peer-not-found");
    b.say(r#"{"type":"goodbye"}"#);
    let heard = a.hear();
    assert_eq!((&heard["type"], &heard["fromPeerId"]), (&"goodbye".into(), &id(2).into()));
    b.announce("n");
    assert_eq!(discovered(&mut a), id(2));
    assert_eq!(discovered(&mut b), id(1));
    drop(b);
    let heard = a.hear();
    assert_eq!((&heard["type"], &heard["data"]["reason"]), (&"peer-disconnected".into(), &"connection-lost".into()));
    a.hears_nothing();
    let hub = json(&hubs[0], "/hubs")["hubs"].clone();
    assert!(hub.to_string().contains(&json(&hubs[1], "/stats")["hubPeerId"].as_str().unwrap().to_owned()), "{hub}");
}

#[test]
fn a_hub_that_joins_late_learns_the_existing_peers() {
    let (first, second) = (free_port(), free_port());
    let one = start(first, "", &[]);
    let mut early: Vec<Client> = (0..300).map(|n| Client::join(&one, n, "n")).collect();
    let two = start(second, &urls(&[first]), &[]);
    eventually("the hubs are linked", || live_hubs(&two) == 1);
    let mut late = Client::join(&two, 900, "n");
    let mut told: Vec<String> = (0..300).map(|_| discovered(&mut late)).collect();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 300);
    late.hears_nothing();
    assert_eq!(early[0].hear_type("peer-discovered")["type"], "peer-discovered");
}

#[test]
fn a_thousand_joins_on_two_hubs_are_announced_exactly_once() {
    let hubs = mesh(2, &[("MAX_CONNECTIONS", "2000")]);
    let urls: Vec<String> = hubs.iter().map(|hub| format!("ws://{}", hub.address)).collect();
    let run = command(&[])
        .args(["load-test", "--hub", &urls[0], "--hub", &urls[1], "--peers", "1000", "--duration", "2"])
        .args(["--interval", "0.5", "--receipts", "--scenario", "join"])
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}{err}");
    assert!(hubs[0].metric("peerpigeon_mesh_relayed_total") > 0.0, "no signal went from one hub to the other");
}

#[test]
fn peers_of_a_killed_hub_leave_and_return_with_it() {
    let ports = [free_port(), free_port(), free_port()];
    let bootstrap = urls(&ports);
    let mut hubs: Vec<Hub> = ports.iter().map(|&port| start(port, &bootstrap, &[])).collect();
    settled(&hubs);
    let mut watchers = [Client::join(&hubs[0], 1, "n"), Client::join(&hubs[1], 2, "n")];
    discovered(&mut watchers[0]);
    discovered(&mut watchers[1]);
    let lost: Vec<Client> = (100..150).map(|n| Client::join(&hubs[2], n, "n")).collect();
    for watcher in &mut watchers {
        for _ in 0..50 {
            discovered(watcher);
        }
    }
    hubs[2].signal("-KILL");
    // Signals to peers of other hubs are still delivered. A signal to a peer of the killed hub gets an outcome.
    let [a, b] = &mut watchers;
    a.offer(&id(2), "n", "1", r#","id":"alive""#);
    assert_eq!(b.hear()["type"], "offer");
    assert_eq!(a.hear()["data"]["outcome"], "delivered");
    a.offer(&id(100), "n", "1", r#","id":"dead""#);
    let outcome = a.hear()["data"]["outcome"].clone();
    assert!(["unreachable", "unknown"].contains(&outcome.as_str().unwrap()), "{outcome}");
    for watcher in &mut watchers {
        let mut left: Vec<Value> = (0..50).map(|_| watcher.hear()["data"].clone()).collect();
        assert!(left.iter().all(|data| data["reason"] == "hub-lost"), "{left:?}");
        left.sort_by_key(|data| data["peerId"].as_str().unwrap().to_owned());
        left.dedup_by_key(|data| data["peerId"].clone());
        assert_eq!(left.len(), 50, "each peer must leave exactly once");
        watcher.hears_nothing();
    }
    drop(lost);
    hubs[2].wait();
    hubs[2] = start(ports[2], &bootstrap, &[]);
    let mut back = Client::join(&hubs[2], 100, "n");
    let mut told = [discovered(&mut back), discovered(&mut back)];
    told.sort();
    assert_eq!(told, [id(1), id(2)]);
    for watcher in &mut watchers {
        assert_eq!(discovered(watcher), id(100));
        watcher.hears_nothing();
    }
}

#[test]
fn a_frozen_hub_does_not_disturb_the_others_and_recovers() {
    let hubs = mesh(3, &[]);
    let mut a = Client::join(&hubs[0], 1, "n");
    let mut b = Client::join(&hubs[1], 2, "n");
    discovered(&mut a);
    discovered(&mut b);
    let mut c = Client::join(&hubs[2], 3, "n");
    assert_eq!((discovered(&mut a), discovered(&mut b)), (id(3), id(3)));
    hubs[2].signal("-STOP");
    // The signals to the frozen third hub fill all buffers on the way to it. Signals to the frozen hub must not delay
    // signals to the second hub.
    let data = format!("{:?}", "x".repeat(60_000));
    for round in 0..400 {
        a.offer(&id(3), "n", &data, "");
        if round % 20 == 0 {
            a.offer(&id(2), "n", "1", &format!(r#","id":"r{round}""#));
            assert_eq!(b.hear_type("offer")["fromPeerId"], id(1).as_str());
            assert_eq!(a.hear_type("receipt")["data"]["outcome"], "delivered");
        }
    }
    let left = b.hear_type("peer-disconnected");
    assert_eq!((&left["data"]["peerId"], &left["data"]["reason"]), (&id(3).into(), &"hub-lost".into()));
    a.hear_type("peer-disconnected");
    hubs[2].signal("-CONT");
    // The first and the second hub each detect by themselves that the third hub is back.
    assert_eq!((discovered(&mut a), discovered(&mut b)), (id(3), id(3)));
    a.offer(&id(3), "n", "\"after\"", r#","id":"after""#);
    loop {
        if c.hear_type("offer")["data"] == "after" {
            break;
        }
    }
}

#[test]
fn an_id_is_connected_to_one_hub_at_a_time() {
    let hubs = mesh(2, &[]);
    let mut a = Client::join(&hubs[0], 7, "n");
    let mut watcher = Client::join(&hubs[1], 1, "n");
    discovered(&mut watcher);
    discovered(&mut a);
    // While the first connection answers pings, the hub refuses a second connection with the same id.
    let mut second = Client::open(hubs[1].address, 7, b"");
    let Heard::Ping(nonce) = a.frame() else { panic!("no ping") };
    a.raw(&frame(10, &nonce));
    assert_eq!(second.closed(), (4009, "peer id in use".to_owned()));
    watcher.hears_nothing();
    // If the first connection does not answer the ping, a new connection replaces it. Other peers receive a leave and a
    // discovery.
    let mut third = Client::open(hubs[1].address, 7, b"");
    let asked = Instant::now();
    assert_eq!(third.hear()["type"], "connected");
    assert!(asked.elapsed() > Duration::from_millis(1500), "replaced before the timeout of a ping");
    third.announce("n");
    assert_eq!(watcher.hear()["type"], "peer-disconnected");
    assert_eq!(discovered(&mut watcher), id(7));
    let Heard::Ping(_) = a.frame() else { panic!("no ping") };
    assert_eq!(a.closed(), (4001, "replaced".to_owned()));
    watcher.hears_nothing();
}

#[test]
fn a_draining_hub_sends_the_urls_of_other_hubs_and_leaves_the_mesh_at_once() {
    let ports = [free_port(), free_port()];
    let mut one = start(ports[0], "", &[("PUBLIC_URL", "wss://one.example"), ("DRAIN_SECS", "3")]);
    let two = start(ports[1], &urls(&ports[..1]), &[("PUBLIC_URL", "wss://two.example")]);
    eventually("the hubs are linked", || live_hubs(&one) == 1 && live_hubs(&two) == 1);
    let mut a = Client::join(&one, 1, "n");
    let mut b = Client::join(&two, 2, "n");
    discovered(&mut b);
    discovered(&mut a);
    one.signal("-TERM");
    assert_eq!(a.hear_type("go-away")["data"]["hubs"], serde_json::json!(["wss://two.example"]));
    assert_eq!(a.closed().0, 1012);
    a.raw(&frame(8, &[0x03, 0xf4]));
    assert_eq!(b.hear()["data"]["reason"], "draining");
    assert_eq!(one.wait().code(), Some(0));
    eventually("the other hub has forgotten the drained hub", || live_hubs(&two) == 0);
    assert_eq!(
        two.metric("peerpigeon_mesh_hubs_lost_total"),
        0.0,
        "the other hub must not wait for the end of the lease"
    );
    b.hears_nothing();
}

#[test]
fn a_hub_shows_the_figures_of_hubs_without_a_link_to_it() {
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let hubs: Vec<Hub> = (0..3)
        .map(|n| {
            let before = if n == 0 { String::new() } else { urls(&ports[n - 1..n]) };
            start(ports[n], &before, &[("MESH_ADMIN_URL", &format!("http://127.0.0.1:{}", ports[n]))])
        })
        .collect();
    settled(&hubs);
    let _peer = Client::join(&hubs[2], 1, "n");
    let last = |hubs: &[Hub]| {
        let all = json(&hubs[0], "/hubstats")["hubs"].as_array().unwrap().clone();
        all.into_iter().find(|hub| hub["linked"] == "relayed").map(|hub| hub["status"].clone()).unwrap_or_default()
    };
    eventually("the figures of the hub have arrived", || last(&hubs)["connections"] == 1);
    let status = last(&hubs);
    assert_eq!(status["adminUrl"], format!("http://127.0.0.1:{}", ports[2]));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(status["memory"].as_u64().unwrap() > 1_000_000, "{status}");
}

#[test]
fn hubs_in_a_chain_form_one_mesh() {
    let ports: Vec<u16> = (0..4).map(|_| free_port()).collect();
    let hubs: Vec<Hub> =
        (0..4).map(|n| start(ports[n], &if n == 0 { String::new() } else { urls(&ports[n - 1..n]) }, &[])).collect();
    settled(&hubs);
    let mut ends = [Client::join(&hubs[0], 1, "n"), Client::join(&hubs[3], 2, "n")];
    assert_eq!(discovered(&mut ends[0]), id(2));
    assert_eq!(discovered(&mut ends[1]), id(1));
    let [a, b] = &mut ends;
    for n in 0..50 {
        a.offer(&id(2), "n", &n.to_string(), "");
    }
    for n in 0..50 {
        assert_eq!(b.hear()["data"], n);
    }
    b.hears_nothing();
}

/// Network namespaces, one per hub. A bridge connects the hubs. Clients connect through separate interfaces.
struct Namespaces {
    names: Vec<String>,
    /// The second byte of all addresses.
    net: u8,
}

impl Namespaces {
    /// If the system does not allow network namespaces, prints a message and returns `None`.
    fn make(count: usize) -> Option<Self> {
        let pid = std::process::id();
        let made = Self { names: (0..count).map(|n| format!("pp{pid}x{n}")).collect(), net: 100 + (pid % 150) as u8 };
        let (bridge, net) = (made.bridge(), made.net);
        let mut script = format!("ip link add {bridge} type bridge && ip link set {bridge} up");
        for (n, space) in made.names.iter().enumerate() {
            let host = n + 1;
            script += &format!(
                " && ip netns add {space} && ip -n {space} link set lo up \
                 && ip link add {bridge}h{n} type veth peer name hubs netns {space} \
                 && ip link set {bridge}h{n} master {bridge} up \
                 && ip -n {space} addr add 10.{net}.0.{host}/24 dev hubs && ip -n {space} link set hubs up \
                 && ip link add {bridge}c{n} type veth peer name clients netns {space} \
                 && ip addr add 10.{net}.{host}.1/24 dev {bridge}c{n} && ip link set {bridge}c{n} up \
                 && ip -n {space} addr add 10.{net}.{host}.2/24 dev clients && ip -n {space} link set clients up"
            );
        }
        let run = Command::new("sh").args(["-c", &script]).output().ok()?;
        if run.status.success() {
            return Some(made);
        }
        eprintln!("SKIPPED: no network namespaces here ({})", String::from_utf8_lossy(&run.stderr).trim());
        None
    }

    fn bridge(&self) -> String {
        format!("pp{}", std::process::id() % 1_000_000)
    }

    /// URL of hub `n` for other hubs.
    fn url(&self, n: usize) -> String {
        format!("ws://10.{}.0.{}:8080", self.net, n + 1)
    }

    /// Address of hub `n` for clients.
    fn address(&self, n: usize) -> [u8; 4] {
        [10, self.net, n as u8 + 1, 2]
    }

    /// Disconnects the namespace of a hub from the network bridge (a device of Linux), or connects it again. While the
    /// hub is disconnected, packets are lost without an error.
    fn connect(&self, n: usize, on: bool) {
        let device = format!("{}h{n}", self.bridge());
        let state = if on { "up" } else { "down" };
        assert!(Command::new("ip").args(["link", "set", &device, state]).status().unwrap().success());
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for space in &self.names {
            _ = Command::new("ip").args(["netns", "delete", space]).stderr(Stdio::null()).status();
        }
        _ = Command::new("ip").args(["link", "delete", &self.bridge()]).stderr(Stdio::null()).status();
    }
}

#[test]
fn a_mesh_recovers_from_a_partition() {
    let Some(spaces) = Namespaces::make(3) else { return };
    let bootstrap = (0..3).map(|n| spaces.url(n)).collect::<Vec<_>>().join(",");
    let env = [("HOST", "0.0.0.0"), ("PORT", "8080"), ("MESH_TOKEN", TOKEN), ("BOOTSTRAP_HUBS", &bootstrap)];
    let hubs: Vec<Hub> = (0..3).map(|n| Hub::start_in(&spaces.names[n], spaces.address(n), &env)).collect();
    settled(&hubs);
    let mut a = Client::join(&hubs[0], 1, "n");
    let mut b = Client::join(&hubs[1], 2, "n");
    assert_eq!((discovered(&mut a), discovered(&mut b)), (id(2), id(1)));
    let mut c = Client::join(&hubs[2], 3, "n");
    assert_eq!((discovered(&mut a), discovered(&mut b)), (id(3), id(3)));
    assert_eq!([discovered(&mut c), discovered(&mut c)].iter().filter(|peer| **peer == id(3)).count(), 0);
    spaces.connect(2, false);
    for watcher in [&mut a, &mut b] {
        let left = watcher.hear();
        assert_eq!((&left["data"]["peerId"], &left["data"]["reason"]), (&id(3).into(), &"hub-lost".into()));
    }
    for _ in 0..2 {
        assert_eq!(
            c.hear()["data"]["reason"],
            "hub-lost",
            "the peer of the separated hub must receive the same leaves"
        );
    }
    // During the partition, a client with the same id connects to a hub on each side.
    let mut a_late = Client::join(&hubs[0], 9, "n");
    assert_eq!((discovered(&mut a), discovered(&mut b)), (id(9), id(9)));
    // The hubs order sessions by milliseconds, so the second session must begin in a later millisecond.
    let joined = SystemTime::now();
    while joined.elapsed().unwrap() < Duration::from_millis(2) {
        std::thread::yield_now();
    }
    let mut c_late = Client::join(&hubs[2], 9, "n");
    assert_eq!(discovered(&mut c), id(9));
    spaces.connect(2, true);
    assert_eq!((discovered(&mut a_late), discovered(&mut a_late)), (id(1), id(2)));
    assert_eq!(a_late.closed(), (4001, "replaced".to_owned()), "the later session must stay");
    let told = |watcher: &mut Client| {
        let mut events: Vec<String> = (0..3)
            .map(|_| watcher.hear())
            .map(|heard| format!("{} {}", heard["type"].as_str().unwrap(), heard["data"]["peerId"].as_str().unwrap()))
            .collect();
        watcher.hears_nothing();
        events.sort();
        events
    };
    let expected = [
        format!("peer-disconnected {}", id(9)),
        format!("peer-discovered {}", id(3)),
        format!("peer-discovered {}", id(9)),
    ];
    assert_eq!(told(&mut a), expected);
    assert_eq!(told(&mut b), expected);
    assert_eq!(discovered(&mut c_late), id(3));
    let mut back = [discovered(&mut c), discovered(&mut c)];
    back.sort();
    assert_eq!(back, [id(1), id(2)]);
    c.hears_nothing();
}
