//! Tests of floods from one address, and of their effect on other clients.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Client, id, upgrade};
use crate::door::{body, status};
use crate::hub::{DEADLINE, Hub};
use crate::proxies::connect_from;
use crate::wire::{self, Certificate};

const FLOOD: [u8; 4] = [127, 0, 0, 2];
const STRANGER: [u8; 4] = [127, 0, 0, 3];

/// The default limits of a hub. Other tests disable them.
const LIMITS: [(&str, &str); 4] = [
    ("MAX_CONNECTIONS_PER_ADDRESS", ""),
    ("MAX_UNFINISHED_PER_ADDRESS", ""),
    ("CONNECT_RATE_PER_ADDRESS", ""),
    ("CONNECT_RATE", ""),
];

/// Reads all data until the connection ends.
fn answer(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn handshake(n: u32) -> String {
    upgrade(&format!("/ws?peerId={}", id(n)))
}

/// Opens a WebSocket. Returns `None` if the hub refuses it.
fn try_open(from: [u8; 4], hub: &Hub, n: u32) -> Option<TcpStream> {
    let mut stream = connect_from(from, hub.address)?;
    _ = stream.write_all(handshake(n).as_bytes());
    let mut first = [0; 12];
    (stream.read_exact(&mut first).is_ok() && first == *b"HTTP/1.1 101").then_some(stream)
}

#[test]
fn one_address_cannot_use_the_connections_of_others() {
    let hub = Hub::start(&[("MAX_CONNECTIONS_PER_ADDRESS", "5")]);
    let Some(first) = try_open(FLOOD, &hub, 0) else { return };
    let mut inside: Vec<_> =
        (1..5).map(|n| try_open(FLOOD, &hub, n).expect("a connection below the limit was refused")).collect();
    let refused = answer(connect_from(FLOOD, hub.address).unwrap());
    assert_eq!(status(&refused), "503", "{refused}");
    assert!(
        body(&refused).starts_with("this address has too many connections (MAX_CONNECTIONS_PER_ADDRESS"),
        "{refused}"
    );
    let after: u64 = refused.split("Retry-After: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
    assert!((1..=proto::limits::RETRY_SPREAD_SECS).contains(&after), "{refused}");
    inside.push(try_open(STRANGER, &hub, 10).expect("another address"));
    let line = hub.logged("connections_refused");
    assert!(line.contains(r#""address":"127.0.0.2","reason":"address-connections""#), "{line}");
    hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="address-connections"}"#, |n| n == 1.0);
    // When the hub has noticed that a connection ended, it admits another one from the same address.
    drop(first);
    let end = Instant::now() + DEADLINE;
    while try_open(FLOOD, &hub, 11).is_none() {
        assert!(Instant::now() < end, "a closed connection still counts");
    }
}

#[test]
fn a_refused_connection_to_a_port_with_tls_gets_an_alert() {
    let Certificate { certificate, key, .. } = wire::common();
    let limits = [("MAX_UNFINISHED_PER_ADDRESS", "1"), ("SHARDS", "1"), ("TLS_CERT", certificate), ("TLS_KEY", key)];
    let hub = Hub::start(&limits);
    let Some(_first) = connect_from(FLOOD, hub.address) else { return };
    let mut refused = connect_from(FLOOD, hub.address).unwrap();
    let mut alert = Vec::new();
    _ = refused.read_to_end(&mut alert);
    assert_eq!(alert, [0x15, 3, 3, 0, 2, 2, 80]);
}

#[test]
fn connections_without_a_request_are_bounded_per_address() {
    let hub = Hub::start(&[("MAX_UNFINISHED_PER_ADDRESS", "3"), ("SHARDS", "1")]);
    let Some(first) = connect_from(FLOOD, hub.address) else { return };
    let mut silent: Vec<_> =
        [first].into_iter().chain((0..2).map(|_| connect_from(FLOOD, hub.address).unwrap())).collect();
    assert_eq!(status(&answer(connect_from(FLOOD, hub.address).unwrap())), "503");
    // After a connection has sent its request, it stays open and no longer counts as unfinished.
    for (n, stream) in silent.iter_mut().enumerate() {
        stream.write_all(handshake(n as u32).as_bytes()).unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(first, *b"HTTP/1.1 101");
    }
    assert!(try_open(FLOOD, &hub, 5).is_some());
    hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="address-unfinished"}"#, |n| n == 1.0);
}

#[test]
fn connections_have_a_rate_per_address_and_in_total() {
    // With CONNECT_RATE=2, the rate per address is so high that only the total rate refuses connections. Addresses that
    // rarely connect have a reserve in the total rate. After a few connections, this address has no reserve.
    let limits = [
        (("CONNECT_RATE_PER_ADDRESS", "2"), ("CONNECT_RATE", "0"), "address-rate"),
        (("CONNECT_RATE", "2"), ("CONNECT_RATE_PER_ADDRESS", "10"), "busy"),
    ];
    for (setting, other, reason) in limits {
        let port = crate::admin::free_port();
        let mut hub = Hub::start(&[setting, other, ("SHARDS", "1"), ("ADMIN_PORT", &port)]);
        let Some(stream) = connect_from(FLOOD, hub.address) else { return };
        drop(stream);
        // Even a slow machine opens these 60 connections faster than 2 per second. 60 is more than the burst plus the
        // reserve for addresses that rarely connect.
        let opened = (0..60).filter(|n| try_open(FLOOD, &hub, *n).is_some()).count();
        assert!((1..60).contains(&opened), "{opened} with {setting:?}");
        // An address that rarely connects is admitted under both limits.
        assert!(try_open(STRANGER, &hub, 100).is_some(), "{setting:?}");
        hub.address.set_port(port.parse().unwrap());
        let refused = format!(r#"peerpigeon_handshake_failures_total{{reason="{reason}"}}"#);
        hub.metric_becomes(&refused, |n| n == (60 - opened) as f64);
    }
}

/// While TRUSTED_PROXIES is unset, a loopback or private address that sends X-Forwarded-For has no limits per address.
/// Such an address is probably a proxy with many clients.
#[test]
fn an_unconfigured_proxy_is_not_limited() {
    let env = [("MAX_CONNECTIONS_PER_ADDRESS", "2"), ("CONNECT_RATE_PER_ADDRESS", "")];
    let hub = Hub::start(&env);
    let opens = |n: u32, header: &str| {
        let mut stream = connect_from(STRANGER, hub.address)?;
        _ = stream.write_all(handshake(n).replace("Host: hub\r\n", header).as_bytes());
        let mut first = [0; 12];
        stream.read_exact(&mut first).ok()?;
        Some((String::from_utf8_lossy(&first[9..]).into_owned(), stream))
    };
    let Some(first) = opens(0, "Host: hub\r\nX-Forwarded-For: 192.0.2.1\r\n") else { return };
    let mut inside = vec![first.1];
    for n in 1..20 {
        let (status, stream) = opens(n, "Host: hub\r\nX-Forwarded-For: 192.0.2.1\r\n").unwrap();
        assert_eq!(status, "101");
        inside.push(stream);
    }
    let line = hub.logged("proxy_not_named");
    assert!(line.contains("127.0.0.3") && line.contains("TRUSTED_PROXIES"), "{line}");
    // The limits apply to another address whose requests have no X-Forwarded-For.
    let admitted = (0..5).filter_map(|n| try_open(FLOOD, &hub, 100 + n)).collect::<Vec<_>>();
    assert_eq!(admitted.len(), 2);
}

/// The hub counts each client behind a trusted proxy by its own address, and does not count the proxy's address.
#[test]
fn clients_of_a_proxy_have_their_own_limits() {
    let env =
        [("MAX_CONNECTIONS_PER_ADDRESS", "2"), ("CONNECT_RATE_PER_ADDRESS", ""), ("TRUSTED_PROXIES", "127.0.0.2")];
    for protocol in ["", "PORT"] {
        let hub = Hub::start(&[&env[..], &[("PROXY_PROTOCOL", protocol)]].concat());
        if connect_from(FLOOD, hub.address).is_none() {
            return;
        }
        let opens = |client: u8, n: u32| {
            let mut stream = connect_from(FLOOD, hub.address).unwrap();
            let (head, header) = if protocol.is_empty() {
                (String::new(), format!("Host: hub\r\nX-Forwarded-For: 192.0.2.{client}\r\n"))
            } else {
                (format!("PROXY TCP4 192.0.2.{client} 192.0.2.1 5 6\r\n"), "Host: hub\r\n".to_owned())
            };
            _ = stream.write_all((head + &handshake(n).replace("Host: hub\r\n", &header)).as_bytes());
            let mut first = [0; 12];
            stream.read_exact(&mut first).unwrap();
            (String::from_utf8_lossy(&first[9..]).into_owned(), stream)
        };
        let mut inside = Vec::new();
        for n in 0..20 {
            let (status, stream) = opens(n / 2, n.into());
            assert_eq!(status, "101");
            inside.push(stream);
        }
        let (status, mut stream) = opens(3, 100);
        let mut rest = vec![0; 512];
        let n = stream.read(&mut rest).unwrap();
        let rest = String::from_utf8_lossy(&rest[..n]).to_ascii_lowercase();
        assert!(status == "503" && rest.contains("retry-after: "), "{status} {rest}");
        hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="address-connections"}"#, |n| n == 1.0);
    }
}

#[test]
fn one_address_cannot_fill_the_hub() {
    let hub = Hub::start(&LIMITS);
    let Some(first) = try_open(FLOOD, &hub, 0) else { return };
    let mut inside = vec![first];
    inside.extend((1..1100).filter_map(|n| try_open(FLOOD, &hub, n)));
    // The default limit admits the peers of a school behind one address.
    assert_eq!(inside.len(), 512);
    let mut stranger = Client::over(connect_from(STRANGER, hub.address).unwrap(), 2000, b"");
    assert_eq!(stranger.hear()["type"], "connected");
}

/// During a flood of connections whose requests never end, the hub serves new peers, probes and connected peers.
#[test]
fn a_flood_of_unfinished_requests_does_not_affect_others() {
    const LASTS: Duration = Duration::from_secs(3);
    let hub = Hub::start(&LIMITS);
    if connect_from(FLOOD, hub.address).is_none() {
        return;
    }
    let (mut a, mut b) = (Client::join(&hub, 1, "n"), Client::join(&hub, 2, "n"));
    b.hear_type("peer-discovered");
    a.hear_type("peer-discovered");
    let (goes_on, opened, start) = (AtomicBool::new(true), AtomicUsize::new(0), Instant::now());
    let address = hub.address;
    let mut held = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut sockets = VecDeque::new();
            while goes_on.load(Ordering::Relaxed) {
                let Some(mut stream) = connect_from(FLOOD, address) else { continue };
                opened.fetch_add(1, Ordering::Relaxed);
                _ = stream.write_all(b"GET /ws?peerId=");
                _ = stream.set_nonblocking(true);
                sockets.push_back(stream);
                if sockets.len() > 1500 {
                    sockets.drain(..500);
                }
            }
            sockets
        });
        // The flood must end even if an assertion below fails, because the scope waits for its thread.
        let stop = Stop(&goes_on);
        let (mut slowest, mut newcomers) = ([Duration::ZERO; 3], 1000);
        while start.elapsed() < LASTS {
            let time = |slowest: &mut Duration, since: Instant| *slowest = since.elapsed().max(*slowest);
            let since = Instant::now();
            let mut newcomer = Client::over(connect_from(STRANGER, hub.address).unwrap(), newcomers, b"");
            assert_eq!(newcomer.hear()["type"], "connected");
            time(&mut slowest[0], since);
            newcomers += 1;
            let since = Instant::now();
            assert_eq!(status(&hub.get("/livez")), "200");
            time(&mut slowest[1], since);
            for _ in 0..10 {
                let since = Instant::now();
                a.offer(&id(2), "n", "1", "");
                assert_eq!(b.hear()["data"], 1);
                time(&mut slowest[2], since);
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        drop(stop);
        assert!(slowest.iter().all(|slowest| *slowest < Duration::from_secs(3)), "{slowest:?}");
        flood.join().unwrap()
    });
    let opened = opened.into_inner();
    assert!(opened > 1500, "{opened} connections are not a flood");
    // The hub has refused most connections of the flood. The hub has not closed any connection for its unfinished
    // request, because all connections are too young for that time limit.
    let end = Instant::now() + proto::limits::REQUEST_HEAD_TIMEOUT / 2;
    loop {
        let is_open = |stream: &mut TcpStream| {
            stream.read(&mut [0; 512]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        };
        held.retain_mut(is_open);
        if held.len() <= 512 + 1 {
            break;
        }
        assert!(Instant::now() < end, "{} of {opened} are open", held.len());
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let line = hub.logged("connections_refused");
    assert!(line.contains("127.0.0.2"), "{line}");
    // All shards together may log one line per ten seconds, regardless of the number of refused connections.
    let most = start.elapsed().as_secs() / 10;
    hub.signal("-KILL");
    let more = hub.rest_of_the_log().iter().filter(|line| line.contains("connections_refused")).count();
    assert!(more as u64 <= most, "the hub logged {more} further lines, but at most {most} are allowed");
}

/// Ends the flood when it is dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn pairs_are_served_during_all_attacks() {
    // The attackers of load-test write to sockets without TLS.
    if wire::is_over_tls() {
        return;
    }
    for shards in ["1", "2"] {
        // The test disables the limits per address, because they would also refuse its own requests.
        let hub = Hub::start(&[("SHARDS", shards)]);
        let url = format!("ws://{}", hub.address);
        let run = crate::hub::command(&[])
            .args(["load-test", "--hub", &url, "--scenario", "hostile", "--peers", "8", "--duration", "3"])
            .args(["--interval", "0.1", "--receipts"])
            .output()
            .unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert!(run.status.success(), "{said}");
        for attack in
            ["announce", "garbage", "half", "id-fight", "masks", "nobody", "oversized", "pings", "reset", "slow"]
        {
            assert!(said.contains(&format!("{attack}: ")), "{said}");
        }
        // The counts of these reasons show that the attacks have reached the hub.
        for reason in ["protocol-error", "message-too-large", "connection-lost", "id-in-use"] {
            hub.metric_becomes(&format!(r#"peerpigeon_closes_total{{reason="{reason}"}}"#), |n| n > 0.0);
        }
        hub.metric_becomes(r#"peerpigeon_rate_limited_total{budget="announcements",owner="peer"}"#, |n| n > 0.0);
        hub.metric_becomes("peerpigeon_connections", |n| n == 0.0);
    }
}
