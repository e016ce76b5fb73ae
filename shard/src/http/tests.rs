//! Tests of connections before they are WebSockets, with the shard's own tasks and real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Response;
use proto::limits::TICK;
use proto::{HubId, Keys, PeerId, ResumeKeys, Router, RouterConfig};
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};

use super::door::DoorTuning;
use super::kept::Timeouts;
use super::secure::tests::{acceptor, hello};
use super::*;
use crate::accept::accept;
use crate::config::HubConfig;
use crate::crowd::Crowd;
use crate::{Pages, core};

const DEADLINE: Duration = Duration::from_secs(20);

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n";

/// The only shard of a hub, without its listeners.
struct Shard {
    door: Door,
    core: Rc<RefCell<core::Core>>,
}

fn shard(pages: Pages, homes: mpsc::Sender<HandOff>) -> Shard {
    let hub = HubId(PeerId::from_bytes([0; 20]));
    let config = HubConfig::single(RouterConfig::single(hub, Keys(1, 2), ResumeKeys::new("mesh", b"key", None)));
    let (rules, limits, gauges) = (&config.router, config.limits, Arc::clone(&config.gauges));
    let core = core::Core::new(Router::new(rules.clone()), rules, limits, config.clock, gauges, false);
    let crowd = Arc::new(Crowd::new(config.door.addresses, rules.keys));
    let door = Door {
        shards: 1,
        keys: rules.keys,
        resume_keys: rules.resume_keys.clone(),
        max_connections: config.max_connections,
        tuning: DoorTuning::default(),
        files: DoorFiles::new(config.files),
        gauges: config.gauges,
        auth_token: None,
        tokens: None,
        id_proofs: None,
        links: None,
        admin_port: None,
        redirect: None,
        tls: None,
        gate: Gate::new(crowd, rules.keys, 0),
        config: config.door,
        pages,
        homes: [homes].into(),
        page_rates: Door::page_rates(rules.keys),
    };
    Shard { door, core: Rc::new(RefCell::new(core)) }
}

fn empty_pages() -> Pages {
    Arc::new(|_, _| Answer::Now(Response::default()))
}

fn failures(core: &RefCell<core::Core>, failure: HandshakeFailure) -> u64 {
    core.borrow_mut().reading().io.handshake_failures[failure as usize]
}

/// Runs a test on a runtime like that of a shard.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.unwrap().block_on(test);
}

/// A client that has sent these bytes, and the hub's end of its connection.
fn connection(bytes: &[u8]) -> (TcpStream, tokio::net::TcpStream, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(bytes).unwrap();
    let (stream, address) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    (client, tokio::net::TcpStream::from_std(stream).unwrap(), address)
}

async fn serve_one(shard: Shard, stream: tokio::net::TcpStream, address: SocketAddr) {
    let FilePool { files, .. } = shard.door.files.at(Entrance::Peers);
    let file = files.acquire_owned().await.unwrap();
    serve(Rc::new(shard.door), (Entrance::Peers, 1), shard.core, stream, address, (file, None), Rc::default()).await;
}

fn handshake(peer: &str) -> String {
    format!(
        "GET /ws?peerId={peer} HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

#[test]
fn a_peer_whose_shard_accepts_no_sockets_is_closed_with_1013() {
    run(async {
        let (homes, arrivals) = mpsc::channel(1);
        drop(arrivals);
        let shard = shard(empty_pages(), homes);
        let core = Rc::clone(&shard.core);
        let peer = "a".repeat(40);
        let request = handshake(&peer);
        let (mut client, stream, address) = connection(request.as_bytes());
        serve_one(shard, stream, address).await;
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        let mut expected = Vec::new();
        ws::put_close(&mut expected, 1013, CloseReason::TryAgainLater.close_frame().unwrap().1);
        assert_eq!(answer[end..], expected);
        assert_eq!(failures(&core, HandshakeFailure::HandOff), 1);
    });
}

#[test]
fn a_connection_ends_when_its_answer_is_not_ready_in_time() {
    run(async {
        let pages: Pages = Arc::new(|_, _| Answer::Soon(Box::pin(std::future::pending())));
        let (homes, _arrivals) = mpsc::channel(1);
        let mut shard = shard(pages, homes);
        let answer = Duration::from_millis(50);
        shard.door.tuning.timeouts = Timeouts { head: answer / 2, answer, idle: DEADLINE };
        let (mut client, stream, address) = connection(GET);
        let (core, began) = (Rc::clone(&shard.core), Instant::now());
        tokio::time::timeout(DEADLINE, serve_one(shard, stream, address)).await.expect("the connection ends");
        assert!(began.elapsed() >= answer, "the connection ended for another reason");
        assert_eq!(
            (client.read(&mut [0; 1]).unwrap_or_default(), failures(&core, HandshakeFailure::BadRequest)),
            (0, 0)
        );
    });
}

/// An endless body that counts its parts.
struct Endless(Arc<AtomicUsize>);

impl hyper::body::Body for Endless {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, std::convert::Infallible>>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(vec![b'x'; 16 * 1024].into()))))
    }
}

/// Makes a shard whose pages never end. `answer` is the timeout for an answer. Also returns a counter of the parts of
/// pages that were made.
fn endless(answer: Duration) -> (Shard, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let pages: Pages = Arc::new(move |_, _| {
        let body = http_body_util::combinators::UnsyncBoxBody::new(Endless(Arc::clone(&count)));
        Answer::Stream(Response::new(body))
    });
    let mut shard = shard(pages, mpsc::channel(1).0);
    shard.door.tuning.timeouts = Timeouts { head: answer / 2, answer, idle: DEADLINE };
    (shard, made)
}

#[test]
fn a_stream_that_is_not_read_ends_and_makes_no_more_parts() {
    run(async {
        let answer = Duration::from_millis(50);
        let (shard, made) = endless(answer);
        let (_client, stream, address) = connection(GET);
        let began = Instant::now();
        tokio::time::timeout(DEADLINE, serve_one(shard, stream, address)).await.expect("the connection ends");
        assert!(began.elapsed() >= answer, "the connection ended for another reason");
        // The page makes as many parts as the buffers of hyper and of the kernel accept, and one more.
        let bytes = made.load(Ordering::Relaxed) * 16 * 1024;
        assert!(bytes < 32 << 20, "{bytes}");
    });
}

#[test]
fn a_stream_that_is_read_outlasts_the_timeout_of_an_answer() {
    run(async {
        let answer = Duration::from_millis(200);
        let (shard, _) = endless(answer);
        let (client, stream, address) = connection(GET);
        client.set_nonblocking(true).unwrap();
        let mut client = tokio::net::TcpStream::from_std(client).unwrap();
        let began = Instant::now();
        let read = async {
            let mut buffer = vec![0; 64 * 1024];
            while began.elapsed() < 5 * answer {
                assert!(client.read(&mut buffer).await.unwrap() > 0, "the stream continues");
            }
        };
        tokio::select! {
            () = serve_one(shard, stream, address) => panic!("the stream must not end while it is read"),
            () = read => {}
        }
    });
}

/// Starts the loop of a listener, which uses TLS if the door has an acceptor.
fn listen(
    mut door: Door,
    core: &Rc<RefCell<core::Core>>,
    open: bool,
) -> (SocketAddr, impl Future<Output = ()> + use<>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    if let Some((ports, _)) = &mut door.tls {
        *ports = [listener.local_addr().unwrap().port()].into();
    }
    let address = listener.local_addr().unwrap();
    let (is_open, open) = watch::channel(open);
    let (door, core) = (Rc::new(door), Rc::clone(core));
    let accepts = async move {
        accept(door, core, listener, open).await;
        drop(is_open);
    };
    (address, accepts)
}

async fn answer_to(client: TcpStream) -> Vec<u8> {
    client.set_nonblocking(true).unwrap();
    let mut client = tokio::net::TcpStream::from_std(client).unwrap();
    let mut answer = vec![0; 12];
    match tokio::time::timeout(DEADLINE, client.read_exact(&mut answer)).await.expect("an answer, or the end") {
        Ok(_) => answer,
        Err(_) => Vec::new(),
    }
}

/// Waits until the hub closes the connection.
async fn end_of(client: TcpStream) {
    client.set_nonblocking(true).unwrap();
    let mut client = tokio::net::TcpStream::from_std(client).unwrap();
    // A connection with unread data is reset.
    _ = tokio::time::timeout(DEADLINE, client.read_to_end(&mut Vec::new())).await.expect("the connection is closed");
}

#[test]
fn connections_that_the_kernel_accepted_before_a_drain_are_answered() {
    run(async {
        let (homes, _arrivals) = mpsc::channel(1);
        let Shard { door, core } = shard(empty_pages(), homes);
        let (address, accepts) = listen(door, &core, false);
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let mut client = TcpStream::connect(address).unwrap();
                client.write_all(GET).unwrap();
                client
            })
            .collect();
        let accepts = tokio::task::spawn_local(accepts);
        for client in clients {
            assert_eq!(answer_to(client).await, b"HTTP/1.1 200");
        }
        accepts.abort();
    });
}

#[test]
fn the_oldest_request_is_closed_when_a_listener_is_full() {
    run(async {
        let (homes, _arrivals) = mpsc::channel(1);
        let Shard { mut door, core } = shard(empty_pages(), homes);
        door.tuning.max_requests = 2;
        let (address, accepts) = listen(door, &core, true);
        let silent: Vec<_> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(GET).unwrap();
        let accepts = tokio::task::spawn_local(accepts);
        assert_eq!(answer_to(client).await, b"HTTP/1.1 200");
        let [oldest, other] = silent.try_into().unwrap();
        assert_eq!(answer_to(oldest).await, b"", "the oldest connection is closed");
        assert_eq!(failures(&core, HandshakeFailure::CrowdedOut), 1);
        drop(other);
        accepts.abort();
    });
}

/// A listener makes room when a connection arrives, and not only at the next tick.
#[test]
fn a_full_listener_makes_room_when_a_connection_arrives() {
    run(async {
        let (homes, _arrivals) = mpsc::channel(1);
        let Shard { mut door, core } = shard(empty_pages(), homes);
        door.tuning.max_requests = 2;
        let (address, accepts) = listen(door, &core, true);
        let accepts = tokio::task::spawn_local(accepts);
        let began = Instant::now();
        let mut kept = Vec::new();
        for _ in 0..50 {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(GET).unwrap();
            kept.push(client.try_clone().unwrap());
            assert_eq!(answer_to(client).await, b"HTTP/1.1 200");
        }
        assert!(began.elapsed() < 25 * TICK, "{:?} for 48 clients that need room", began.elapsed());
        assert_eq!(failures(&core, HandshakeFailure::CrowdedOut), 48);
        accepts.abort();
    });
}

#[test]
fn a_listener_whose_connections_are_all_admitted_waits_until_one_ends() {
    run(async {
        // One socket fits into the queue of the home shard. The next two sockets wait, and must not be dropped.
        let (homes, arrivals) = mpsc::channel(1);
        let Shard { mut door, core } = shard(empty_pages(), homes);
        door.tuning.max_requests = 2;
        let (address, accepts) = listen(door, &core, true);
        let accepts = tokio::task::spawn_local(accepts);
        let mut peers = Vec::new();
        for digit in ["a", "b", "c"] {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(handshake(&digit.repeat(40)).as_bytes()).unwrap();
            peers.push(client.try_clone().unwrap());
            assert_eq!(answer_to(client).await, b"HTTP/1.1 101");
        }
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(GET).unwrap();
        let answer = tokio::task::spawn_local(answer_to(client));
        // If the listener served the connection, the answer would arrive within this number of turns.
        for _ in 0..5000 {
            tokio::task::yield_now().await;
        }
        assert!(!answer.is_finished(), "the listener has more connections than its maximum");
        drop(arrivals);
        assert_eq!(answer.await.unwrap(), b"HTTP/1.1 200");
        assert_eq!(failures(&core, HandshakeFailure::CrowdedOut), 0);
        accepts.abort();
    });
}

#[test]
fn the_oldest_handshake_makes_room_at_a_port_with_tls() {
    run(async {
        let (homes, _arrivals) = mpsc::channel(1);
        let Shard { mut door, core } = shard(empty_pages(), homes);
        door.tuning.max_requests = 3;
        door.tls = Some(([].into(), Handshakes::new(acceptor())));
        let (address, accepts) = listen(door, &core, true);
        let connect = |bytes: &[u8]| {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(bytes).unwrap();
            client
        };
        // A silent client, a client that has sent half a hello, and a client in the middle of its handshake.
        let clients = [connect(&[]), connect(&hello()[..20]), connect(&hello())];
        let accepts = tokio::task::spawn_local(accepts);
        let [silent, half, waiting] = clients;
        let server_hello = [0x16, 3, 3];
        assert_eq!(answer_to(waiting.try_clone().unwrap()).await[..3], server_hello);
        let mut newcomers = Vec::new();
        for oldest in [silent, half, waiting] {
            newcomers.push(connect(&hello()));
            let newcomer = newcomers.last().unwrap().try_clone().unwrap();
            assert_eq!(answer_to(newcomer).await[..3], server_hello);
            end_of(oldest).await;
        }
        assert_eq!(failures(&core, HandshakeFailure::CrowdedOut), 3);
        accepts.abort();
    });
}
