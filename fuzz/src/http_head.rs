use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use proto::{HubId, Keys, PeerId, ResumeKeys, RouterConfig};
use shard::{DoorConfig, HubConfig, Proxies, ShardReading};

/// Whatever bytes a client sends, the hub must send an HTTP response or nothing. After the client has sent all its data
/// and closed its half of the connection, the hub must close the connection.
///
/// The first byte selects the plain port or the port for proxies. On the port for proxies, the first byte also selects
/// whether the client sends a PROXY head first. The first byte also selects how the request starts. The start can be
/// nothing, a request line, a request up to the value of `X-Forwarded-For`, or a handshake without its last empty line.
/// The second byte selects where the other bytes are divided into two writes.
pub fn http_head(bytes: &[u8]) {
    static CONNECTIONS: AtomicU32 = AtomicU32::new(0);
    let [how, cut, rest @ ..] = bytes else { return };
    let (plain, proxied) = *hub();
    let before = match how % 4 {
        0 => "",
        1 => "GET /ws?peerId=0000000000000000000000000000000000000000&token=t HTTP/1.1\r\n",
        2 => "GET / HTTP/1.1\r\nHost: hub\r\nForwarded: for=192.0.2.1\r\nX-Forwarded-For: ",
        _ => {
            "GET /ws?peerId=0000000000000000000000000000000000000000 HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        }
    };
    // Each connection goes to another loopback address. With only one address, the client's ports would run out,
    // because the system reserves the port of a closed connection for some time.
    let [_, a, b, c] = CONNECTIONS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let port = if how & 4 == 0 { plain } else { proxied };
    let mut client = TcpStream::connect((Ipv4Addr::new(127, a, b, c.max(1)), port)).expect("the hub accepts");
    client.set_read_timeout(Some(Duration::from_secs(15))).expect("set");
    let head: &[u8] = match how & 12 {
        4 => b"PROXY TCP4 192.0.2.7 192.0.2.8 56324 443\r\n",
        _ => b"",
    };
    let (first, second) = rest.split_at(usize::from(*cut).min(rest.len()));
    for piece in [head, before.as_bytes(), first, second] {
        // The write fails if the hub has already refused the request.
        _ = client.write_all(piece);
    }
    _ = client.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match client.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            panic!("the connection does not end: {answer:?}")
        }
        // The connection is reset if the hub has not read all data of the client.
        Ok(_) | Err(_) => {}
    }
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

static PANICS: AtomicU32 = AtomicU32::new(0);

/// Starts a hub with one shard that echoes messages. Returns the hub's plain port, and the hub's port for connections
/// with PROXY heads.
fn hub() -> &'static (u16, u16) {
    static HUB: OnceLock<(u16, u16)> = OnceLock::new();
    HUB.get_or_init(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            hook(info);
        }));
        let bind = || shard::bind((Ipv4Addr::UNSPECIFIED, 0).into(), 1).expect("bound").remove(0);
        let listeners = [bind(), bind()];
        let [plain, proxied] = [0, 1].map(|at: usize| listeners[at].local_addr().expect("bound").port());
        let config = config(proxied);
        let (publish, readings) = tokio::sync::watch::channel(Arc::<ShardReading>::default());
        let (ended, end) = tokio::sync::mpsc::channel(1);
        let shards = shard::start(&config, vec![listeners.into()], vec![publish], None, &ended).expect("started");
        // The hub runs until the process ends.
        std::mem::forget((shards, readings, end, ended));
        (plain, proxied)
    })
}

fn config(proxied: u16) -> HubConfig {
    let hub = HubId(PeerId::from_bytes([0; 20]));
    let router = RouterConfig::single(hub, Keys(1, 2), ResumeKeys::new("mesh", b"key", None));
    let proxies = Proxies { ranges: vec!["127.0.0.0/8".parse().expect("a range")], ports: vec![proxied] };
    let single = HubConfig::single(router);
    let door = DoorConfig { proxies: Arc::new(proxies), ..DoorConfig::default() };
    HubConfig { door, echo: true, ..single }
}
