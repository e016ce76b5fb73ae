//! The mesh's thread: its runtime, its mailbox, its loops.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use proto::limits::{
    BRIDGE_EVENTS, DNS_INTERVAL, LINK_FLUSH_TIMEOUT, MAX_DIALS, MAX_DIALS_AT_ONCE, MAX_EXTRA_ATTEMPTS, TICK,
};
use proto::{HubId, LinkAuth, ToMesh, ToShard};
use thread::{Mailboxes, check, planted};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::bridge::{Bridge, BridgeConfig, BridgeEvent};
use crate::config::MeshConfig;
use crate::core::{Core, NewLink};
use crate::dial::{self, Dialer};
use crate::link_task;
use crate::stats::MeshReading;
use crate::stream::MaybeTlsStream;
use crate::tls::Tls;

/// An accepted socket that becomes a link. The request on this socket was checked and answered with 101.
#[derive(Debug)]
pub struct LinkSocket {
    /// The socket, in non-blocking mode.
    pub stream: std::net::TcpStream,
    /// The TLS state of the socket, if it uses TLS.
    pub tls: Option<Box<tls::Connection>>,
    /// Bytes that arrived after the request. The leftover bytes precede everything that is read from the socket.
    pub leftover: Bytes,
    /// The address of the other end.
    pub address: SocketAddr,
    /// The id in the request (`peerId`).
    pub hub: HubId,
    /// Whether the link is a legacy link.
    pub legacy: bool,
    /// How the other hub has authenticated itself.
    pub auth: LinkAuth,
}

/// What the hub wants its mesh to do. Only the latest value matters, so a mesh that hangs never delays the hub.
#[derive(Clone, Copy, Debug, Default)]
struct Wish {
    /// Whether other hubs must not dial this hub.
    drains: bool,
    ends: bool,
}

/// The hub's handle of its mesh. Dropping the handle ends the mesh without a farewell.
#[derive(Debug)]
pub struct MeshHandle {
    wish: watch::Sender<Wish>,
    thread: std::thread::JoinHandle<()>,
}

impl MeshHandle {
    /// Notifies the other hubs whether this hub drains and must not be dialed.
    pub fn draining(&self, drains: bool) {
        self.wish.send_modify(|wish| wish.drains = drains);
    }

    /// Sends a farewell to the other hubs, and ends the thread when the farewell is written, after
    /// [`LINK_FLUSH_TIMEOUT`] at the latest.
    pub fn end(self) -> std::thread::JoinHandle<()> {
        self.wish.send_modify(|wish| wish.ends = true);
        self.thread
    }
}

/// Starts the mesh. `shards` are the mailboxes of the hub's shards in order, and `mailbox` is the mesh's own. The mesh
/// publishes its statistics once per tick. `ended` is called on the mesh's thread when the thread ends, whether the
/// mesh was stopped or has failed.
///
/// # Errors
///
/// Fails if MESH_CA has no valid certificates, or if the thread cannot be started.
pub fn start(
    config: MeshConfig,
    shards: Vec<mpsc::Sender<Vec<ToShard>>>,
    mailbox: mpsc::Receiver<Vec<ToMesh>>,
    sockets: mpsc::Receiver<LinkSocket>,
    publish: watch::Sender<Arc<MeshReading>>,
    ended: impl FnOnce() + Send + 'static,
) -> io::Result<MeshHandle> {
    let tls = Tls::new(config.extra_roots.as_deref())
        .map_err(|error| io::Error::new(error.kind(), format!("MESH_CA: {error}")))?;
    let extra_attempts = (config.max_dials / (MAX_DIALS_AT_ONCE / MAX_EXTRA_ATTEMPTS)).clamp(1, MAX_EXTRA_ATTEMPTS);
    let dialer = Dialer {
        hub: config.relay.hub,
        token: config.token.clone(),
        sends_bearer: config.sends_bearer,
        has_certificate: config.certificate.is_some(),
        prefers_certificate: config.prefers_certificate,
        is_open: config.is_open,
        tls: match &config.certificate {
            Some(certificate) => tls.with_certificate(certificate),
            None => tls,
        },
        extra_attempts: Arc::new(Semaphore::new(extra_attempts)),
    };
    let (wish, wishes) = watch::channel(Wish::default());
    let channels = Channels { shards, mailbox, sockets, wishes, publish };
    let thread = thread::spawn("mesh".to_owned(), ended, move |busy| run(config, dialer, channels, busy))?;
    Ok(MeshHandle { wish, thread })
}

struct Channels {
    shards: Vec<mpsc::Sender<Vec<ToShard>>>,
    mailbox: mpsc::Receiver<Vec<ToMesh>>,
    sockets: mpsc::Receiver<LinkSocket>,
    wishes: watch::Receiver<Wish>,
    publish: watch::Sender<Arc<MeshReading>>,
}

async fn run(config: MeshConfig, dialer: Dialer, channels: Channels, busy: Arc<AtomicU64>) {
    let Channels { shards, mailbox, sockets, mut wishes, publish } = channels;
    let (events, bridge_events) = mpsc::channel(BRIDGE_EVENTS);
    let bridged = config.redis.is_some();
    let make_bridge = config.redis.clone().map(|redis| -> Box<dyn Fn(HubId) -> Bridge> {
        Box::new(move |hub| Bridge::start(BridgeConfig { hub, ..redis.clone() }, events.clone()))
    });
    let core = Rc::new(RefCell::new(Core::new(&config, shards.len(), make_bridge)));
    let mut tasks = JoinSet::new();
    tasks.spawn_local(read_mail(Rc::clone(&core), mailbox));
    tasks.spawn_local(welcome(Rc::clone(&core), sockets));
    tasks.spawn_local(dial_out(Rc::clone(&core), dialer));
    tasks.spawn_local(flush(Rc::clone(&core), Mailboxes::new(&shards, None)));
    tasks.spawn_local(keep_time(Rc::clone(&core), publish, busy, config.turned));
    tasks.spawn_local(await_timeouts(Rc::clone(&core)));
    if bridged {
        tasks.spawn_local(read_bridge(Rc::clone(&core), bridge_events));
    }
    if let Some((name, port)) = config.dns {
        tasks.spawn_local(resolve(Rc::clone(&core), name, port, config.dns_tls));
    }

    let mut end_by: Option<tokio::time::Instant> = None;
    let mut drains = false;
    loop {
        tokio::select! {
            biased;
            changed = wishes.changed(), if end_by.is_none() => {
                if changed.is_err() {
                    break;
                }
                let wish = *wishes.borrow_and_update();
                if wish.drains != drains {
                    drains = wish.drains;
                    core.borrow_mut().draining(drains);
                }
                if wish.ends {
                    core.borrow_mut().end();
                    end_by = Some(tokio::time::Instant::now() + LINK_FLUSH_TIMEOUT);
                }
            }
            Some(ended) = tasks.join_next() => check(ended),
            () = tokio::time::sleep(TICK / 10), if end_by.is_some() => {
                if core.borrow().has_ended() || end_by.is_some_and(|by| by <= tokio::time::Instant::now()) {
                    break;
                }
            }
        }
    }
}

/// Processes letters from the shards, even while links are not read.
async fn read_mail(core: Rc<RefCell<Core>>, mailbox: mpsc::Receiver<Vec<ToMesh>>) {
    thread::read_mail(mailbox, |letters| core.borrow_mut().letters(letters), || false).await;
}

/// Processes events of the bridge. Pauses while letters cannot be posted.
async fn read_bridge(core: Rc<RefCell<Core>>, mut events: mpsc::Receiver<(HubId, BridgeEvent)>) {
    while let Some((own, event)) = events.recv().await {
        while core.borrow().is_stalled() {
            tokio::time::sleep(TICK / 10).await;
        }
        core.borrow_mut().bridged(own, event);
        tokio::task::yield_now().await;
        while core.borrow_mut().go_on_with_bridge() {
            tokio::task::yield_now().await;
        }
    }
}

/// Turns accepted sockets into links, and owns the links' tasks.
async fn welcome(core: Rc<RefCell<Core>>, mut sockets: mpsc::Receiver<LinkSocket>) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            socket = sockets.recv() => {
                let Some(LinkSocket { stream, tls, leftover, address, hub, legacy, auth }) = socket else { break };
                let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                let stream = match stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
                    Ok(stream) => stream,
                    Err(error) => {
                        debug!(%error, "link_socket_failed");
                        continue;
                    }
                };
                let link = NewLink { address, target: None, hub: Some(hub), legacy, auth, leftover, trace: None };
                let adopted = core.borrow_mut().adopt(link);
                if let Some(id) = adopted {
                    let stream = match tls {
                        None => MaybeTlsStream::Plain(stream),
                        Some(tls) => MaybeTlsStream::Accepted(Box::new(tls::Stream::new(stream, tls, Vec::new()))),
                    };
                    links.spawn_local(link_task::run(Rc::clone(&core), id, stream));
                }
            }
            Some(ended) = links.join_next() => check(ended),
        }
    }
    while let Some(ended) = links.join_next().await {
        check(ended);
    }
}

/// Dials the due targets, and owns their links' tasks.
async fn dial_out(core: Rc<RefCell<Core>>, dialer: Dialer) {
    let (mut dials, mut links) = (JoinSet::new(), JoinSet::new());
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                planted("dial-out");
                let (hub, plans) = {
                    let mut core = core.borrow_mut();
                    (core.own(), core.due_dials())
                };
                for plan in plans {
                    let dialer = Dialer { hub, ..dialer.clone() };
                    dials.spawn_local(async move { (plan.clone(), Box::pin(dial::dial(dialer, plan)).await) });
                }
            }
            Some(dialed) = dials.join_next() => match dialed {
                Ok((plan, result)) => {
                    let dialed = core.borrow_mut().dialed(plan, result);
                    if let Some((id, stream)) = dialed {
                        links.spawn_local(link_task::run(Rc::clone(&core), id, stream));
                    }
                }
                Err(error) => check(Err(error)),
            },
            Some(ended) = links.join_next() => check(ended),
        }
    }
}

/// Resolves MESH_DNS repeatedly. While resolving fails, the last answer is used.
async fn resolve(core: Rc<RefCell<Core>>, name: String, port: u16, tls: bool) {
    let mut ticks = tokio::time::interval(DNS_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut worked = true;
    loop {
        ticks.tick().await;
        match tokio::net::lookup_host((name.as_str(), port)).await {
            Ok(addresses) => {
                let addresses: BTreeSet<SocketAddr> = addresses.take(MAX_DIALS).collect();
                core.borrow_mut().resolved(&name, tls, &addresses);
                worked = true;
            }
            Err(error) => {
                if std::mem::take(&mut worked) {
                    warn!(name, %error, "dns_failed");
                }
            }
        }
    }
}

/// Posts queued letters and bridge frames after all ready tasks have had a turn.
async fn flush(core: Rc<RefCell<Core>>, mut mailboxes: Mailboxes) {
    loop {
        std::future::poll_fn(|cx| {
            let mut core = core.borrow_mut();
            core.set_flusher(cx.waker());
            core.deliver(&mut mailboxes, cx);
            core.flush_bridge();
            if core.continue_work() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        // Links with data to read get their turn before the next slice.
        tokio::task::yield_now().await;
    }
}

async fn keep_time(
    core: Rc<RefCell<Core>>,
    publish: watch::Sender<Arc<MeshReading>>,
    busy: Arc<AtomicU64>,
    turned: Arc<dyn Fn() + Send + Sync>,
) {
    thread::each_tick(|| {
        let mut core = core.borrow_mut();
        core.tick();
        publish.send_replace(Arc::new(core.reading(thread::awake_micros(&busy))));
        turned();
    })
    .await;
}

/// Lets the relay process timeouts when they are due, which is often before the next tick.
async fn await_timeouts(core: Rc<RefCell<Core>>) {
    loop {
        let (wait, sooner): (Duration, _) = core.borrow_mut().arm();
        tokio::select! {
            () = tokio::time::sleep(wait) => core.borrow_mut().timeout(),
            () = sooner.notified() => {}
        }
    }
}
