//! The Go hub's end of a link, which a test controls message by message.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proto::ws::{self, Decoder, Event, Opcode, Progress};
use serde_json::{Value, json};
use sha1::Digest as _;

use crate::client::{id, upgrade};
use crate::hub::DEADLINE;
use crate::mesh::{TOKEN, eventually};

/// The Go hub's end of a link.
pub(super) struct GoHub {
    stream: TcpStream,
    dialed: bool,
    decoder: Decoder,
    buffer: Vec<u8>,
    /// The announcements that the Go hub has received.
    cached: BTreeSet<(u32, String)>,
}

impl GoHub {
    /// Accepts the connection of a hub. Returns the id of that hub from its request.
    pub(super) fn accept(door: &TcpListener) -> (Self, String) {
        door.set_nonblocking(true).unwrap();
        let mut accepted = None;
        eventually("the hub dials", || {
            accepted = door.accept().ok();
            accepted.is_some()
        });
        let (stream, _) = accepted.unwrap();
        stream.set_nonblocking(false).unwrap();
        let mut go = Self::new(stream, false);
        let head = go.head();
        let asked = head.strip_prefix("GET /?peerId=").unwrap_or_else(|| panic!("{head}"));
        let (own, rest) = asked.split_at(40);
        assert!(own.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')), "{head}");
        assert!(rest.starts_with(" HTTP/1.1\r\n"), "{head}");
        let lower = head.to_ascii_lowercase();
        assert!(!lower.contains("authorization") && !lower.contains("sec-websocket-protocol"), "{head}");
        go.stream.write_all(upgraded(&head).as_bytes()).unwrap();
        let own = own.to_owned();
        let from = r#""fromPeerId":"system","networkName":"global","timestamp":1"#;
        go.say(&format!(r#"{{"type":"connected","data":{{"peerId":"{own}"}},{from}}}"#));
        let announce = go.hear();
        assert!(announce.starts_with(&hub_announcement("")), "{announce}");
        (go, own)
    }

    /// Dials from 127.0.0.2 as hub `n`, and sends only messages that a peer would send.
    pub(super) fn ask(hub: SocketAddr, n: u32) -> Self {
        let mut go = Self::new(connect(hub, [127, 0, 0, 2]), true);
        go.stream.write_all(upgrade(&format!("/?peerId={}", id(n))).as_bytes()).unwrap();
        let head = go.head();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(!head.to_ascii_lowercase().contains("sec-websocket-protocol"), "{head}");
        go
    }

    /// Dials as hub `n` and sends the first messages of a Go hub.
    pub(super) fn dial(hub: SocketAddr, n: u32) -> Self {
        let mut go = Self::ask(hub, n);
        let connected = go.hear();
        assert!(
            connected.starts_with(&format!(r#"{{"type":"connected","data":{{"peerId":"{}""#, id(n))),
            "{connected}"
        );
        go.announce();
        go
    }

    pub(super) fn announce(&mut self) {
        self.say(&format!("{}1}}}}", hub_announcement("localhost")));
    }

    fn new(stream: TcpStream, dialed: bool) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { stream, dialed, decoder: Decoder::new(1 << 20), buffer: Vec::new(), cached: BTreeSet::new() }
    }

    fn fill(&mut self) -> bool {
        let mut more = [0; 65536];
        let n = loop {
            match self.stream.read(&mut more) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read.unwrap(),
            }
        };
        self.buffer.extend_from_slice(&more[..n]);
        n > 0
    }

    fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8(self.buffer.drain(..end + 4).collect()).unwrap();
                assert!(!head.contains(TOKEN), "{head}");
                return head;
            }
            assert!(self.fill(), "{}", String::from_utf8_lossy(&self.buffer));
        }
    }

    pub(super) fn say(&mut self, text: &str) {
        self.put(Opcode::Text, text.as_bytes());
    }

    fn put(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut frame = Vec::new();
        if self.dialed {
            ws::put_masked_header(&mut frame, opcode, payload.len(), [1, 2, 3, 4]);
            let start = frame.len();
            frame.extend_from_slice(payload);
            ws::mask(&mut frame[start..], [1, 2, 3, 4]);
        } else {
            ws::put_header(&mut frame, opcode, payload.len());
            frame.extend_from_slice(payload);
        }
        self.stream.write_all(&frame).unwrap();
    }

    /// Waits for the next message. Answers pings until then; pings do not extend the deadline.
    pub(super) fn hear(&mut self) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            assert!(Instant::now() < end, "the hub sent only pings");
            let (decoder, buffer) = (&mut self.decoder, &mut self.buffer);
            match if self.dialed { decoder.decode_from_server(buffer) } else { decoder.decode(buffer) }.unwrap() {
                Progress::Need(_) => assert!(self.fill(), "the hub closed the link"),
                Progress::Took { consumed, event } => {
                    let (mut text, mut ping) = (None, None);
                    match event {
                        Some(Event::Text(said)) => text = Some(said.to_owned()),
                        Some(Event::Ping(payload)) => ping = Some(payload.to_vec()),
                        Some(Event::Pong(_)) | None => {}
                        Some(other) => panic!("{other:?}"),
                    }
                    self.buffer.drain(..consumed);
                    if let Some(ping) = ping {
                        self.put(Opcode::Pong, &ping);
                    }
                    if let Some(text) = text {
                        assert!(!text.contains(TOKEN), "{text}");
                        return text;
                    }
                }
            }
        }
    }

    /// Expects `peer-discovered` of peer `n`. If this Go hub has dialed, it echoes the first such message for each peer
    /// and network, as real Go hubs do.
    pub(super) fn hears_of(&mut self, n: u32, network: &str, info: Option<&str>) {
        let text = self.hear();
        let heard: Value = serde_json::from_str(&text).unwrap();
        let mut data = json!({"isHub": false, "peerId": id(n)});
        if let Some(info) = info {
            data["info"] = info.into();
        }
        let parts = (&heard["type"], &heard["data"], &heard["networkName"], &heard["fromPeerId"]);
        assert_eq!(parts, (&"peer-discovered".into(), &data, &network.into(), &"system".into()), "{text}");
        if self.dialed && self.cached.insert((n, network.to_owned())) {
            self.say(&text);
        }
    }

    /// Announces one of the Go hub's peers.
    pub(super) fn has(&mut self, n: u32, network: &str) {
        let data = format!(r#"{{"peerId":"{}","isHub":false,"info":"go"}}"#, id(n));
        let from = format!(r#""networkName":"{network}","fromPeerId":"system","timestamp":1"#);
        self.say(&format!(r#"{{"type":"peer-discovered","data":{data},{from}}}"#));
    }

    pub(super) fn passes(&mut self, kind: &str, from: u32, target: u32, data: &str) {
        self.say(&format!("{}1}}", signal(kind, from, target, data)));
    }

    pub(super) fn hears_signal(&mut self, kind: &str, from: u32, target: u32, data: &str) {
        is_signal(&self.hear(), kind, from, target, data);
    }
}

pub(super) fn connect(to: SocketAddr, from: [u8; 4]) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

/// The announcement of a Go hub, up to its timestamp.
fn hub_announcement(host: &str) -> String {
    let data =
        format!(r#"{{"isHub":true,"port":8080,"host":"{host}","capabilities":["signaling","relay"],"timestamp":"#);
    format!(r#"{{"type":"announce","networkName":"pigeonhub-mesh","data":{data}"#)
}

/// A signal in the network n, up to its timestamp.
fn signal(kind: &str, from: u32, target: u32, data: &str) -> String {
    let peers = format!(r#""fromPeerId":"{}","targetPeerId":"{}""#, id(from), id(target));
    format!(r#"{{"type":"{kind}","data":{data},{peers},"networkName":"n","timestamp":"#)
}

pub(super) fn is_signal(text: &str, kind: &str, from: u32, target: u32, data: &str) {
    assert!(text.starts_with(&signal(kind, from, target, data)), "{text}");
}

/// Returns the answer to a handshake with the head `head`.
pub(super) fn upgraded(head: &str) -> String {
    let lower = head.to_ascii_lowercase();
    let key = lower.find("sec-websocket-key: ").map(|at| head[at + 19..].lines().next().unwrap()).unwrap();
    let hash = sha1::Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: \
            {}\r\n\r\n",
        BASE64.encode(hash)
    )
}
