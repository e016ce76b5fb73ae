//! A signaling server of the usual design, to measure the benefit of a thread per core.
//!
//! This server uses tokio's multi-threaded runtime, one map of networks behind a lock, two tasks and a channel per
//! connection, fastwebsockets, and `serde_json::Value` for all messages. The baseline supports the messages that the
//! load generator needs: `connected`, announcements, discoveries, signals and goodbyes. The baseline is not slowed down
//! on purpose.
#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "the hub is compared with this usual design")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fastwebsockets::{FragmentCollectorRead, Frame, OpCode, Payload, WebSocketError, WebSocketWrite, upgrade};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

type Socket = TokioIo<Upgraded>;

/// Maximum number of messages queued for one peer. Further messages are dropped.
const QUEUE: usize = 32 * 1024;

/// A message for the task that writes to a peer's connection.
enum Outgoing {
    Text(String),
    Pong(Vec<u8>),
}

/// A peer in a network: its announcement, and its channel.
struct Member {
    data: Value,
    sender: mpsc::Sender<Outgoing>,
}

/// The members of each network, by id.
type Networks = RwLock<HashMap<String, HashMap<String, Member>>>;

/// Serves until the process is killed.
pub(crate) fn run(port: u16, workers: usize) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(async {
        let networks = Arc::new(Networks::default());
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
        let listener: TcpListener = socket.listen(4096)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let networks = networks.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| std::future::ready(answer(request, &networks)));
                _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            });
        }
    })
}

fn answer(mut request: Request<Incoming>, networks: &Arc<Networks>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let query = request.uri().query().unwrap_or_default();
    let id = query.split('&').find_map(|pair| pair.strip_prefix("peerId=")).map(str::to_owned);
    if let Some(id) = id
        && upgrade::is_upgrade_request(&request)
        && let Ok((response, socket)) = upgrade::upgrade(&mut request)
    {
        let networks = networks.clone();
        tokio::spawn(async move {
            if let Ok(socket) = socket.await {
                let (reader, writer) = socket.split(tokio::io::split);
                serve(id, FragmentCollectorRead::new(reader), writer, &networks).await;
            }
        });
        return Ok(response);
    }
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    Ok(response)
}

/// Serves one peer.
async fn serve(
    id: String,
    mut reader: FragmentCollectorRead<ReadHalf<Socket>>,
    writer: WebSocketWrite<WriteHalf<Socket>>,
    networks: &Networks,
) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(write(writer, receiver));
    let mut peer = Peer { id, networks, sender, joined: Vec::new() };
    peer.say(&peer.sender, "connected", &json!({ "peerId": peer.id }), "system", "global");
    let pongs = peer.sender.clone();
    // Queues the pongs that fastwebsockets requests. The requested echo of a close is not sent.
    let mut obliged = move |frame: Frame<'_>| {
        if frame.opcode == OpCode::Pong {
            _ = pongs.try_send(Outgoing::Pong(frame.payload.to_vec()));
        }
        std::future::ready(Ok::<_, WebSocketError>(()))
    };
    while let Ok(frame) = reader.read_frame(&mut obliged).await {
        match frame.opcode {
            OpCode::Text => {
                if let Ok(message) = serde_json::from_slice::<Value>(&frame.payload) {
                    peer.heard(message);
                }
            }
            OpCode::Close => break,
            OpCode::Binary | OpCode::Continuation | OpCode::Ping | OpCode::Pong => {}
        }
    }
    for network in std::mem::take(&mut peer.joined) {
        peer.leave(&network, "peer-disconnected");
    }
}

async fn write(mut writer: WebSocketWrite<WriteHalf<Socket>>, mut receiver: mpsc::Receiver<Outgoing>) {
    while let Some(outgoing) = receiver.recv().await {
        let frame = match outgoing {
            Outgoing::Text(text) => Frame::text(Payload::Owned(text.into_bytes())),
            Outgoing::Pong(payload) => Frame::pong(Payload::Owned(payload)),
        };
        if writer.write_frame(frame).await.is_err() {
            break;
        }
    }
}

struct Peer<'a> {
    id: String,
    networks: &'a Networks,
    sender: mpsc::Sender<Outgoing>,
    joined: Vec<String>,
}

impl Peer<'_> {
    fn heard(&mut self, mut message: Value) {
        let network = message["networkName"].as_str().unwrap_or("global").to_owned();
        match message["type"].as_str() {
            Some("announce") => self.announce(&network, message["data"].take()),
            Some("goodbye") => {
                self.joined.retain(|joined| *joined != network);
                self.leave(&network, "goodbye");
            }
            Some("ping") => self.say(&self.sender, "pong", &json!({}), "system", &network),
            Some(_) => self.signal(&network, message),
            None => {}
        }
    }

    fn announce(&mut self, network: &str, mut data: Value) {
        if !data.is_object() {
            data = json!({});
        }
        data["peerId"] = json!(self.id);
        data["isHub"] = json!(false);
        let mut networks = self.networks.write().unwrap_or_else(PoisonError::into_inner);
        let members = networks.entry(network.to_owned()).or_default();
        let is_new = !members.contains_key(&self.id);
        for (_, member) in members.iter().filter(|(id, _)| **id != self.id) {
            self.say(&member.sender, "peer-discovered", &data, "system", network);
            if is_new {
                self.say(&self.sender, "peer-discovered", &member.data, "system", network);
            }
        }
        members.insert(self.id.clone(), Member { data, sender: self.sender.clone() });
        if is_new {
            self.joined.push(network.to_owned());
        }
    }

    fn signal(&self, network: &str, mut message: Value) {
        message["fromPeerId"] = json!(self.id);
        message["timestamp"] = json!(now_ms());
        let text = message.to_string();
        let networks = self.networks.read().unwrap_or_else(PoisonError::into_inner);
        let target = message["targetPeerId"].as_str().unwrap_or_default();
        match networks.get(network).and_then(|members| members.get(target)) {
            Some(target) => _ = target.sender.try_send(Outgoing::Text(text)),
            None => self.say(&self.sender, "error", &json!({ "code": "peer-not-found" }), "system", network),
        }
    }

    fn leave(&self, network: &str, how: &str) {
        let mut networks = self.networks.write().unwrap_or_else(PoisonError::into_inner);
        let Some(members) = networks.get_mut(network) else { return };
        members.remove(&self.id);
        for member in members.values() {
            self.say(&member.sender, how, &json!({ "peerId": self.id }), &self.id, network);
        }
        if members.is_empty() {
            networks.remove(network);
        }
    }

    fn say(&self, to: &mpsc::Sender<Outgoing>, kind: &str, data: &Value, from: &str, network: &str) {
        let message = json!({
            "type": kind, "data": data, "fromPeerId": from, "targetPeerId": Value::Null, "networkName": network,
            "timestamp": now_ms(),
        });
        _ = to.try_send(Outgoing::Text(message.to_string()));
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
