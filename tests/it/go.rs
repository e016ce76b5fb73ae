//! Runs Go hubs for tests. A Go hub is a scripted imitation, or the real Go hub if `GO_HUB` is the path of its program.
//!
//! Observed behaviour of the real Go hub. The Go hub accepts links from other hubs, and dials the hubs in its
//! BOOTSTRAP_HUBS:
//!
//! * The Go hub treats a hub that dialed it as a peer that announces `isHub`. The Go hub sends the dialing hub all
//!   later announcements, goodbyes and disconnects of peers, but no earlier announcements. The Go hub echoes the
//!   dialing hub's announcement of itself, and no other message.
//! * When the Go hub dials, it announces itself and then its peers, without their data. To a hub that it dialed, the Go
//!   hub also sends later announcements, but never goodbyes or disconnects. The Go hub echoes each announcement that it
//!   receives once.
//! * The Go hub forwards the announcement of a peer to its other hubs and to its own peers, but only once while its
//!   process runs.
//! * The Go hub sends a signal with an unknown target to all its hubs, including the hub from which the signal arrived.
//!   The Go hub drops such a signal if it has recently received the same signal from the same connection. The Go hub sends a
//!   signal from a hub that it dialed only to its own peers.
//! * The Go hub dials one second after its start. The Go hub dials again five seconds after a link has ended or failed,
//!   but at most ten times while its process runs.

#![allow(clippy::disallowed_types, reason = "one thread per connection is enough for the scripted program")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proto::ws::{self, Decoder, Event, Opcode, Progress};
use serde_json::{Value, json};
use sha1::Digest as _;

use crate::client::{Client, upgrade};
use crate::mesh::{eventually, free_port};

const NAMESPACE: &str = "pigeonhub-mesh";
const REDIAL: Duration = Duration::from_secs(5);
const DIALS: usize = 10;

/// A running Go hub.
pub enum Go {
    Scripted(SocketAddr, Arc<Mutex<Program>>),
    Real(SocketAddr, Child),
}

/// The kind of Go hub in a test.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Scripted,
    Real,
}

/// Runs a test with the scripted hub, and with the real one if it is available.
pub fn with_each(test: impl Fn(Kind)) {
    test(Kind::Scripted);
    if std::env::var_os("GO_HUB").is_some() {
        test(Kind::Real);
    } else {
        eprintln!("skipped with a real Go hub: set GO_HUB to the path of its program");
    }
}

impl Go {
    /// Starts a Go hub. `bootstrap` is its BOOTSTRAP_HUBS.
    pub fn start(kind: Kind, bootstrap: &str) -> Self {
        match kind {
            Kind::Scripted => Self::scripted(bootstrap),
            Kind::Real => Self::real(bootstrap),
        }
    }

    pub fn address(&self) -> SocketAddr {
        let (Self::Scripted(address, _) | Self::Real(address, _)) = self;
        *address
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address())
    }

    /// Connects to the Go hub as peer `n` and joins a network.
    pub fn join(&self, n: u32, network: &str) -> Client {
        let mut client = Client::open(self.address(), n, b"");
        assert_eq!(client.hear()["type"], "connected");
        client.say(&format!(r#"{{"type":"announce","networkName":"{network}","data":{{"info":"go"}}}}"#));
        client
    }

    fn real(bootstrap: &str) -> Self {
        let port = free_port();
        let mut program = Command::new(std::env::var_os("GO_HUB").unwrap());
        program.envs([("HOST", "127.0.0.1"), ("IS_HUB", "true"), ("BOOTSTRAP_HUBS", bootstrap)]);
        program.env("PORT", port.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = program.spawn().expect("GO_HUB must be a program");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        eventually("the Go hub answers", || is_healthy(address));
        Self::Real(address, child)
    }

    fn scripted(bootstrap: &str) -> Self {
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = door.local_addr().unwrap();
        let program =
            Program { own: format!("{:040x}", 0xf000_0000_u32 + u32::from(address.port())), ..Program::default() };
        let program = Arc::new(Mutex::new(program));
        let shared = Arc::clone(&program);
        std::thread::spawn(move || {
            for stream in door.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                if lock(&shared).ended {
                    return;
                }
                std::thread::spawn(move || serve(&shared, stream));
            }
        });
        for url in bootstrap.split(',').filter(|url| !url.is_empty()) {
            let address: SocketAddr = url.strip_prefix("ws://").unwrap().parse().unwrap();
            let shared = Arc::clone(&program);
            std::thread::spawn(move || {
                let mut pause = Duration::from_secs(1);
                for _ in 0..=DIALS {
                    std::thread::park_timeout(pause);
                    if lock(&shared).ended {
                        return;
                    }
                    dial(&shared, address);
                    pause = REDIAL;
                }
            });
        }
        Self::Scripted(address, program)
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        match self {
            Self::Real(_, child) => {
                _ = child.kill();
                _ = child.wait();
            }
            Self::Scripted(address, program) => {
                let mut program = lock(program);
                program.ended = true;
                for socket in program.peers.values().map(|peer| &peer.socket).chain(program.dialed.values()) {
                    _ = socket.stream.shutdown(std::net::Shutdown::Both);
                }
                // The listener checks `ended` only after it has accepted a connection.
                _ = TcpStream::connect(*address);
            }
        }
    }
}

/// Whether the hub serves pages. An open port is no proof that the hub is ready. The real Go hub opens its port briefly
/// to check that the port is free.
fn is_healthy(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let mut answer = String::new();
    _ = stream.write_all(b"GET /health HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n");
    stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}

/// The state of a Go hub.
#[derive(Default)]
pub struct Program {
    own: String,
    ended: bool,
    peers: BTreeMap<String, Peer>,
    /// Hubs that this hub has dialed.
    dialed: BTreeMap<SocketAddr, Socket>,
    /// Peers of other hubs, by network and id.
    cached: BTreeMap<(String, String), Value>,
    /// Signals with unknown targets that this hub has already sent to other hubs.
    relayed: BTreeSet<String>,
}

struct Peer {
    socket: Socket,
    network: Option<String>,
    data: Value,
    is_hub: bool,
}

struct Socket {
    stream: TcpStream,
    masked: bool,
}

impl Socket {
    fn put(&self, opcode: Opcode, payload: &[u8]) {
        let mut frame = Vec::new();
        if self.masked {
            ws::put_masked_header(&mut frame, opcode, payload.len(), [1, 2, 3, 4]);
            let start = frame.len();
            frame.extend_from_slice(payload);
            ws::mask(&mut frame[start..], [1, 2, 3, 4]);
        } else {
            ws::put_header(&mut frame, opcode, payload.len());
            frame.extend_from_slice(payload);
        }
        // The write fails if the connection is closed. The Go hub ignores that.
        _ = (&self.stream).write_all(&frame);
    }

    fn say(&self, kind: &str, data: &Value, from: &str, target: Option<&str>, network: &str) {
        let mut message =
            json!({"type": kind, "data": data, "fromPeerId": from, "networkName": network, "timestamp": 1});
        if let Some(target) = target {
            message["targetPeerId"] = target.into();
        }
        self.put(Opcode::Text, message.to_string().as_bytes());
    }
}

fn lock(program: &Mutex<Program>) -> MutexGuard<'_, Program> {
    program.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn text<'a>(message: &'a Value, key: &str) -> &'a str {
    message[key].as_str().unwrap_or_default()
}

fn network(message: &Value) -> String {
    let name = text(message, "networkName");
    if name.trim().is_empty() { "global" } else { name }.to_owned()
}

fn merged(data: &Value, more: &Value) -> Value {
    let mut merged = data.as_object().cloned().unwrap_or_default();
    merged.extend(more.as_object().cloned().unwrap_or_default());
    merged.into()
}

fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// Reads messages until the other side closes.
fn read(mut stream: TcpStream, masked: bool, mut heard: impl FnMut(&Value)) {
    let pong = Socket { stream: stream.try_clone().unwrap(), masked };
    let (mut decoder, mut buffer, mut more) = (Decoder::new(1 << 20), Vec::new(), [0; 65536]);
    loop {
        let decoded = if masked { decoder.decode_from_server(&mut buffer) } else { decoder.decode(&mut buffer) };
        let (consumed, said) = match decoded {
            Ok(Progress::Need(_)) => match stream.read(&mut more) {
                Ok(n) if n > 0 => {
                    buffer.extend_from_slice(&more[..n]);
                    continue;
                }
                Ok(_) | Err(_) => return,
            },
            Ok(Progress::Took { consumed, event }) => match event {
                Some(Event::Text(text)) => (consumed, serde_json::from_str(text).ok()),
                Some(Event::Ping(payload)) => {
                    pong.put(Opcode::Pong, payload);
                    (consumed, None)
                }
                Some(Event::Close(_)) => return,
                _ => (consumed, None),
            },
            Err(_) => return,
        };
        buffer.drain(..consumed);
        if let Some(said) = said {
            heard(&said);
        }
    }
}

fn serve(shared: &Mutex<Program>, mut stream: TcpStream) {
    let Some(head) = head(&mut stream) else { return };
    let Some(id) = head.split("peerId=").nth(1).and_then(|rest| rest.get(..40)).map(str::to_owned) else { return };
    let lower = head.to_ascii_lowercase();
    let at = lower.find("sec-websocket-key: ").unwrap();
    let hash =
        sha1::Sha1::digest(format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", head[at + 19..].lines().next().unwrap()));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: \
            {}\r\n\r\n",
        BASE64.encode(hash)
    );
    if stream.write_all(answer.as_bytes()).is_err() {
        return;
    }
    let socket = Socket { stream: stream.try_clone().unwrap(), masked: false };
    socket.say("connected", &json!({"peerId": id}), "system", None, "global");
    let peer = Peer { socket, network: None, data: Value::Null, is_hub: false };
    lock(shared).peers.insert(id.clone(), peer);
    read(stream, false, |message| lock(shared).peer_said(&id, message));
    lock(shared).peer_ended(&id);
}

fn dial(shared: &Mutex<Program>, address: SocketAddr) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    let own = lock(shared).own.clone();
    _ = stream.write_all(upgrade(&format!("/?peerId={own}")).as_bytes());
    if !head(&mut stream).is_some_and(|head| head.starts_with("HTTP/1.1 101")) {
        return;
    }
    let socket = Socket { stream: stream.try_clone().unwrap(), masked: true };
    {
        // The Go hub announces itself and all its peers before it reads the first message of the other hub.
        let mut program = lock(shared);
        let data = json!({"isHub": true, "port": 3000, "host": "localhost", "capabilities": ["signaling", "relay"],
            "timestamp": 1});
        socket.put(
            Opcode::Text,
            json!({"type": "announce", "networkName": NAMESPACE, "data": data}).to_string().as_bytes(),
        );
        for (id, peer) in &program.peers {
            if let Some(network) = &peer.network {
                let data = json!({"peerId": id, "isHub": network == NAMESPACE});
                socket.say("peer-discovered", &data, "system", None, network);
            }
        }
        program.dialed.insert(address, socket);
    }
    read(stream, true, |message| lock(shared).hub_said(address, message));
    lock(shared).dialed.remove(&address);
}

impl Program {
    fn hubs(&self) -> impl Iterator<Item = &Socket> {
        self.dialed.values().chain(self.peers.values().filter(|peer| peer.is_hub).map(|peer| &peer.socket))
    }

    fn members(&self, network: &str) -> impl Iterator<Item = (&String, &Peer)> {
        self.peers.iter().filter(move |(_, peer)| peer.network.as_deref() == Some(network))
    }

    fn peer_said(&mut self, id: &str, message: &Value) {
        let from = Some(text(message, "fromPeerId")).filter(|from| !from.trim().is_empty()).unwrap_or(id);
        let (network, data) = (network(message), &message["data"]);
        match text(message, "type") {
            "announce" => self.announced(id, network, data),
            "goodbye" => {
                for (other, peer) in self.peers.iter().filter(|(other, _)| *other != id) {
                    peer.socket.say("goodbye", data, from, Some(other), &network);
                }
                if let Some(peer) = self.peers.get_mut(id) {
                    peer.network = None;
                }
            }
            kind @ ("offer" | "answer" | "ice-candidate") => {
                let target = text(message, "targetPeerId");
                if let Some(peer) = self.peers.get(target) {
                    if peer.network.as_deref().unwrap_or("global") == network {
                        peer.socket.say(kind, data, from, Some(target), &network);
                    }
                } else if self.relayed.insert(format!("{kind}:{id}:{target}:{data}")) {
                    self.hubs().for_each(|hub| hub.say(kind, data, from, Some(target), &network));
                }
            }
            "ping" => self.peers[id].socket.say("pong", &json!({"timestamp": 1}), "system", Some(id), "global"),
            "peer-discovered" => {
                let is_hub = self.peers.get(id).is_some_and(|peer| peer.is_hub);
                self.heard_of(data, &network, id, is_hub);
            }
            _ => {}
        }
    }

    fn announced(&mut self, id: &str, network: String, data: &Value) {
        let is_hub = data["isHub"] == true;
        let Some(peer) = self.peers.get_mut(id) else { return };
        (peer.network, peer.data) = (Some(network.clone()), data.clone());
        peer.is_hub = is_hub || network == NAMESPACE;
        let said = merged(data, &json!({"peerId": id, "isHub": is_hub}));
        for (other, peer) in self.members(&network).filter(|(other, _)| *other != id) {
            peer.socket.say("peer-discovered", &said, "system", Some(other), &network);
        }
        let own = &self.peers[id].socket;
        for (other, peer) in self.members(&network).filter(|(other, _)| *other != id) {
            let data = merged(&peer.data, &json!({"peerId": other, "isHub": peer.is_hub}));
            own.say("peer-discovered", &data, "system", Some(id), &network);
        }
        for ((_, other), data) in self.cached.iter().filter(|((of, _), _)| *of == network) {
            if !self.peers.contains_key(other) {
                own.say("peer-discovered", data, "system", Some(id), &network);
            }
        }
        self.hubs().for_each(|hub| hub.say("peer-discovered", &said, "system", None, &network));
    }

    /// Processes the announcement of another hub's peer. Announces the peer to local peers. If the announcement came
    /// from a hub, also announces the peer to the other hubs. Returns true if the peer was new.
    fn heard_of(&mut self, data: &Value, network: &str, from: &str, from_hub: bool) -> bool {
        let key = (network.to_owned(), text(data, "peerId").to_owned());
        if key.1.is_empty() || self.cached.contains_key(&key) {
            return false;
        }
        self.members(network).for_each(|(_, peer)| peer.socket.say("peer-discovered", data, "system", None, network));
        let inbound = self.peers.iter().filter(|(_, peer)| peer.is_hub).map(|(id, hub)| (id.clone(), &hub.socket));
        let dialed = self.dialed.iter().map(|(address, hub)| (address.to_string(), hub));
        for (_, hub) in inbound.chain(dialed).filter(|(hub, _)| from_hub && hub != from) {
            hub.say("peer-discovered", data, "system", None, network);
        }
        self.cached.insert(key, data.clone());
        true
    }

    /// Processes a message of a dialed hub.
    fn hub_said(&mut self, address: SocketAddr, message: &Value) {
        let (network, data, kind) = (network(message), &message["data"], text(message, "type"));
        if kind == "peer-discovered" && data["isHub"] != true {
            if self.heard_of(data, &network, &address.to_string(), true) {
                self.dialed[&address].say("peer-discovered", data, "system", None, &network);
            }
        } else if matches!(kind, "offer" | "answer" | "ice-candidate") {
            let target = text(message, "targetPeerId");
            if let Some(peer) = self.peers.get(target) {
                peer.socket.say(kind, data, text(message, "fromPeerId"), Some(target), &network);
            }
        }
    }

    fn peer_ended(&mut self, id: &str) {
        let Some(ended) = self.peers.remove(id) else { return };
        let network = ended.network.unwrap_or_else(|| "global".to_owned());
        let data = json!({"peerId": id, "isHub": ended.is_hub, "reason": "EOF", "timestamp": 1});
        for (other, peer) in &self.peers {
            peer.socket.say("peer-disconnected", &data, "system", Some(other), &network);
        }
        self.cached.remove(&(network, id.to_owned()));
    }
}
