//! A mesh with a listener: the part of a hub that other hubs see.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mesh::{LinkSocket, LinkView, MeshConfig, MeshHandle, MeshReading};
use proto::{HubId, HubIncarnation, Keys, Now, PeerId, RelayConfig, RelayTuning, ToMesh, ToShard};
use socket2::{Domain, Socket, Type};
use tokio::sync::{mpsc, oneshot, watch};

use crate::wire;

/// Deadline of each wait in these tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const TOKEN: &str = "between hubs";

pub(crate) fn id(n: u8) -> HubId {
    HubId(PeerId::from_bytes([n; 20]))
}

pub(crate) struct Hub {
    pub(crate) address: SocketAddr,
    pub(crate) mail: mpsc::Sender<Vec<ToMesh>>,
    pub(crate) ended: oneshot::Receiver<()>,
    handle: Option<MeshHandle>,
    readings: watch::Receiver<Arc<MeshReading>>,
    closed: Arc<AtomicBool>,
    pub(crate) shard: mpsc::Receiver<Vec<ToShard>>,
}

/// A bound listener without a server, so that hubs can know each other's addresses before they start.
pub(crate) fn door() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

pub(crate) fn url(door: &TcpListener) -> String {
    format!("ws://{}", door.local_addr().unwrap())
}

pub(crate) fn config(n: u8, bootstrap: &[String]) -> MeshConfig {
    let start = Instant::now();
    MeshConfig {
        relay: RelayConfig {
            discovery: proto::Discovery::All,
            hub: id(n),
            incarnation: HubIncarnation(u64::from(n)),
            shards: 1,
            keys: Keys(1, 2),
            namespace: "mesh".into(),
            advertise: None,
            public_url: None,
            presence_bytes: proto::limits::DEFAULT_MESH_PRESENCE_BYTES,
            tuning: RelayTuning::default(),
        },
        token: Some(TOKEN.into()),
        bootstrap: bootstrap.iter().map(|url| url.parse().unwrap()).collect(),
        dns: None,
        dns_tls: false,
        extra_roots: None,
        legacy: Vec::new(),
        sends_bearer: true,
        certificate: None,
        prefers_certificate: false,
        is_open: false,
        max_message_bytes: 64 * 1024,
        link_queues_bytes: proto::limits::LINK_QUEUES_BYTES,
        link_partial_bytes: proto::limits::LINK_PARTIAL_BYTES,
        max_dials: proto::limits::MAX_DIALS_AT_ONCE,
        redis: None,
        clock: Arc::new(move || Now { at: start.elapsed(), wall_ms: 1_700_000_000_000 }),
        status: tokio::sync::watch::channel(None).1,
        tracer: None,
        turned: Arc::new(|| {}),
    }
}

pub(crate) fn hub(n: u8, bootstrap: &[String]) -> Hub {
    Hub::start(door(), config(n, bootstrap))
}

impl Hub {
    pub(crate) fn start(door: TcpListener, config: MeshConfig) -> Self {
        let address = door.local_addr().unwrap();
        let (to_shard, shard) = mpsc::channel(1);
        let (mail, mailbox) = mpsc::channel(1);
        let (sockets, receive) = mpsc::channel(16);
        let (publish, readings) = watch::channel(Arc::default());
        let (on_end, ended) = oneshot::channel();
        let ended_call = move || _ = on_end.send(());
        let handle = mesh::start(config, vec![to_shard], mailbox, receive, publish, ended_call).unwrap();
        let closed = Arc::new(AtomicBool::new(false));
        let open = Arc::clone(&closed);
        std::thread::spawn(move || {
            while let Ok((stream, address)) = door.accept() {
                if open.load(Ordering::Relaxed) {
                    return;
                }
                let Some(asked) = wire::answer(&stream) else { continue };
                let socket = LinkSocket {
                    stream,
                    tls: None,
                    leftover: asked.leftover,
                    address,
                    hub: asked.hub,
                    legacy: asked.legacy,
                    auth: proto::LinkAuth::Token,
                };
                if sockets.blocking_send(socket).is_err() {
                    return;
                }
            }
        });
        Self { address, mail, ended, handle: Some(handle), readings, closed, shard }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) fn reading(&self) -> Arc<MeshReading> {
        Arc::clone(&self.readings.borrow())
    }

    /// Waits until the state of the mesh satisfies the condition.
    pub(crate) async fn until(&mut self, what: &str, is: impl Fn(&MeshReading) -> bool) -> Arc<MeshReading> {
        // The initial value does not count, because the mesh has not published it.
        let seen = |reading: &Arc<MeshReading>| reading.busy_micros > 0 && is(reading);
        let found = tokio::time::timeout(DEADLINE, self.readings.wait_for(seen));
        let found = found.await.map(|reading| Arc::clone(&reading.unwrap()));
        found.unwrap_or_else(|_| panic!("this did not happen in time: {what}: {:#?}", self.reading()))
    }

    /// Waits until the hub has one link to each of these hubs, and no other links.
    pub(crate) async fn until_linked_to(&mut self, hubs: &[u8]) -> Arc<MeshReading> {
        self.until("the hubs are linked", |reading| linked(reading) == hubs.iter().map(|n| id(*n)).collect::<Vec<_>>())
            .await
    }

    /// Announces that the hub drains, as it does at SIGTERM.
    pub(crate) fn draining(&self) {
        self.handle.as_ref().unwrap().draining(true);
    }

    /// Ends the hub, and waits until its thread has ended.
    pub(crate) async fn end(mut self) {
        self.closed.store(true, Ordering::Relaxed);
        let thread = self.handle.take().unwrap().end();
        // Wakes the listener, so that it closes.
        drop(std::net::TcpStream::connect(self.address));
        tokio::task::spawn_blocking(|| thread.join()).await.unwrap().unwrap();
    }
}

/// The hubs at the other ends of links. Empty while any link is not ready.
fn linked(reading: &MeshReading) -> Vec<HubId> {
    let all_ready = reading.links.iter().all(|link| link.ready);
    let mut hubs: Vec<HubId> = reading.links.iter().filter(|_| all_ready).filter_map(|link| link.hub).collect();
    hubs.sort();
    hubs
}

pub(crate) fn only_link(reading: &MeshReading) -> &LinkView {
    assert_eq!(reading.links.len(), 1);
    &reading.links[0]
}

/// A port that accepts no connections at any local address, because its backlog is full and the kernel drops each SYN.
pub(crate) struct Swallows {
    pub(crate) address: SocketAddr,
    _sockets: Vec<Socket>,
}

impl Swallows {
    pub(crate) fn new() -> Self {
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let mut sockets = vec![socket()];
        sockets[0].bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
        sockets[0].listen(0).unwrap();
        let port = sockets[0].local_addr().unwrap().as_socket().unwrap().port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        // A backlog of 0 still accepts one or two connections.
        loop {
            sockets.push(socket());
            if sockets[sockets.len() - 1].connect_timeout(&address.into(), Duration::from_millis(300)).is_err() {
                return Self { address, _sockets: sockets };
            }
            assert!(sockets.len() < 20, "the backlog did not fill");
        }
    }
}
