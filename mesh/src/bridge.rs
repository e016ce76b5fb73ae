//! The Redis bridge: pub/sub as an additional transport to all hubs.
//!
//! Each hub subscribes to two channels of Redis: `<namespace>:mesh.1:presence` for everyone and
//! `<namespace>:mesh.1:hub:<id>` for itself. Pub/sub stores nothing. A hub loses messages that are published while it
//! is not connected, or while a queue is full. After such a loss, the digests in heartbeats repair presence. So the
//! bridge keeps no envelopes while Redis is unreachable, and no other part of the hub waits for Redis.
//!
//! The bridge is up while the frames that it publishes to its two channels come back. When these frames stop, the
//! bridge sends `Down`, and reconnects without a limit on attempts. When frames come back again, the bridge sends `Up`.
//!
//! An ACL user needs [`REDIS_ACL`], or [`REDIS_CLUSTER_ACL`] in a cluster.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use proto::limits::{BRIDGE_BACKOFF_MAX, BRIDGE_BACKOFF_MIN, MAX_ERROR_TEXT_BYTES};
use proto::{HubId, PeerId};
use thread::{TurnGuard, planted};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::backoff::{Backoff, chance};
use frame::Seal;
use fresh::Fresh;
use publish_queue::{PublishQueue, To};
use server::Server;
use session::End;

mod connection;
mod frame;
mod fresh;
mod inbox;
mod publish_queue;
mod question;
mod server;
mod session;
mod stamp;
#[cfg(test)]
mod tests;

/// The rights that a Redis user of the hubs needs, as `ACL SETUSER` reads them. `<namespace>` stands for
/// HUB_MESH_NAMESPACE. HELLO switches to RESP3 and returns the server's role.
pub const REDIS_ACL: &str = "resetchannels &<namespace>:* -@all +hello +publish +subscribe";

/// The rights that a Redis user of the hubs needs in a Redis Cluster. This user must exist on every node.
pub const REDIS_CLUSTER_ACL: &str = "resetchannels &<namespace>:* -@all +hello +cluster|slots +spublish +ssubscribe";

/// The settings of the bridge.
#[derive(Clone)]
pub struct BridgeConfig {
    /// `redis[s]://[user][:password]@host[:port][/db]`. For a Redis Cluster with sharded pub/sub:
    /// `redis[s]+cluster://[user][:password]@host[:port],host[:port]..`, with at least one node of the cluster.
    /// `rediss` is TLS. Special characters of a password are percent-encoded.
    pub url: String,
    /// HUB_MESH_NAMESPACE: the first part of every channel's name.
    pub namespace: String,
    /// The id of this hub.
    pub hub: HubId,
    /// MESH_TOKEN, the key that frames are signed with. Without a token, everyone who can publish to Redis can act as a
    /// hub.
    pub token: Option<Arc<str>>,
    /// MESH_TOKEN_ALSO, a second key that received frames may be signed with.
    pub also: Option<Arc<str>>,
    /// Certificates in PEM, trusted in addition to the public roots.
    pub extra_roots: Option<Arc<[u8]>>,
}

impl BridgeConfig {
    /// Checks that [`Self::url`] is valid.
    ///
    /// # Errors
    ///
    /// Returns a sentence that says what is wrong with the URL, without the password.
    pub fn check(&self) -> Result<(), String> {
        Server::parse(&self.url, None).map(drop)
    }

    /// The database number in [`Self::url`], if it is not 0. The number has no effect: pub/sub has no databases, so
    /// hubs with different numbers on one Redis server still share their channels.
    pub fn ignored_database(&self) -> Option<i64> {
        Server::parse(&self.url, None).ok().map(|server| server.database).filter(|&database| database != 0)
    }
}

impl fmt::Debug for BridgeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BridgeConfig")
            .field("namespace", &self.namespace)
            .field("hub", &self.hub)
            .finish_non_exhaustive()
    }
}

/// The state of the bridge, for pages and metrics. Counters are zero when the bridge starts: at the start of the
/// process, and when the hub takes another id.
#[derive(Clone, Debug, Default)]
pub struct BridgeView {
    /// Whether published frames come back.
    pub connected: bool,
    /// Frames that Redis has accepted, probes not included.
    pub published: u64,
    /// Frames of other hubs that contained envelopes and were accepted.
    pub received: u64,
    /// Bytes of frames sent to Redis, probes not included.
    pub bytes_out: u64,
    /// Bytes of the frames that `received` counts.
    pub bytes_in: u64,
    /// Messages that are not frames of this mesh: signed with another token, or malformed.
    pub refused: u64,
    /// Frames of hubs of this mesh that were dropped because they were not fresh. Element 0 counts frames whose sender
    /// has not answered this hub's challenge. Element 1 counts frames that are not newer than the last accepted frame
    /// of their session.
    pub stale: [u64; 2],
    /// Hubs whose frames arrive but that do not answer. Either these hubs do not receive this hub's frames, or somebody
    /// publishes their recorded frames. The list is in ascending order, and has at most
    /// [`MAX_ONE_WAY`](proto::limits::MAX_ONE_WAY) entries.
    pub one_way: Vec<HubId>,
    /// Envelopes dropped because the queue was full, and messages dropped because they were not read in time.
    pub lost: u64,
    /// Number of failed connections, plus the number of frames that Redis refused.
    pub errors: u64,
    /// Number of times the bridge came up again.
    pub reconnects: u64,
    /// The latest error, also after the bridge has recovered.
    pub last_error: Option<String>,
    /// The URL without user and password.
    pub address: String,
}

/// The channel for the events of a bridge. Each event comes with the id that this hub has on that bridge. After a
/// change of the id, events of the previous bridge can still arrive.
pub(crate) type Events = mpsc::Sender<(HubId, BridgeEvent)>;

/// An event of the bridge for the mesh. `Up` and `Down` alternate, starting with `Up`. All other events come between an
/// `Up` and the next `Down`.
#[derive(Debug)]
pub(crate) enum BridgeEvent {
    /// From now on, pushed envelopes are published.
    Up,
    /// Unpublished envelopes are dropped. Envelopes that are pushed before the next `Up` are dropped, too.
    Down,
    /// This hub and another hub receive each other's frames from now on. The other hub may have dropped earlier frames
    /// of this hub.
    Met,
    /// Envelopes from one hub.
    Received {
        /// The hub that published them.
        from: HubId,
        /// The envelopes.
        frame: Vec<u8>,
    },
}

/// The handle of the bridge. Dropping the handle ends the bridge.
pub(crate) struct Bridge {
    state: Rc<BridgeState>,
    _task: JoinSet<()>,
}

/// State shared by the handle and the task.
struct BridgeState {
    hub: HubId,
    seal: Seal,
    /// The channel of all hubs, and the channel of this hub.
    channels: [Arc<str>; 2],
    /// The name of a hub's channel without the hub's id.
    prefix: String,
    queue: RefCell<PublishQueue>,
    /// Freshness checks of the current connection; `None` before the first connection.
    fresh: RefCell<Option<Rc<RefCell<Fresh>>>>,
    wake: Notify,
    up: Cell<bool>,
    /// Whether the bridge has been up before.
    risen: Cell<bool>,
    view: RefCell<BridgeView>,
}

impl Bridge {
    /// Connects, and reconnects after each failure. Call this function inside a `LocalRuntime`.
    ///
    /// If [`BridgeConfig::check`] refuses the URL, the bridge only logs the error and shows it in its view.
    pub(crate) fn start(config: BridgeConfig, events: Events) -> Self {
        let server = Server::parse(&config.url, config.extra_roots.as_deref());
        let prefix = format!("{}:mesh.1:hub:", config.namespace);
        let state = Rc::new(BridgeState {
            hub: config.hub,
            seal: Seal::new(config.hub, config.token.as_deref(), config.also.as_deref()),
            channels: [
                format!("{}:mesh.1:presence", config.namespace).into(),
                format!("{prefix}{}", config.hub).into(),
            ],
            prefix,
            queue: RefCell::default(),
            fresh: RefCell::default(),
            wake: Notify::new(),
            up: Cell::new(false),
            risen: Cell::new(false),
            view: RefCell::default(),
        });
        let mut task = JoinSet::new();
        match server {
            Ok(server) => {
                if server.is_tls() {
                    // An error means that a crypto provider is already installed, which is fine.
                    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
                }
                state.view.borrow_mut().address.clone_from(&server.address);
                task.spawn_local(keep(Rc::clone(&state), Rc::new(server), events));
            }
            Err(error) => {
                warn!(%error, "bridge_url_refused");
                state.failed(1, bounded(&error));
            }
        }
        Self { state, _task: task }
    }

    /// Appends one envelope to the frame for everyone, or for one hub. The envelope is dropped while the bridge is
    /// down, and while [`BRIDGE_QUEUE_BYTES`](proto::limits::BRIDGE_QUEUE_BYTES) are queued.
    pub(crate) fn push(&mut self, to: Option<HubId>, write: impl FnOnce(&mut Vec<u8>)) {
        let state = &self.state;
        if state.up.get() && !state.queue.borrow_mut().push(to, &state.seal, write) {
            state.view.borrow_mut().lost += 1;
        }
    }

    /// Starts a new frame for the next envelope for all hubs, so that this frame follows frames already queued for
    /// single hubs.
    pub(crate) fn fence(&mut self) {
        self.state.queue.borrow_mut().fence();
    }

    /// Publishes the pushed envelopes together.
    pub(crate) fn flush(&mut self) {
        if self.queued_bytes() > 0 {
            self.state.wake.notify_one();
        }
    }

    /// Handles a hub's answer to the question whether an id is free. The answer arrived over a link. The bridge asks
    /// hubs of version 2.0 this question as a challenge.
    pub(crate) fn answered(&mut self, hub: HubId, peer: PeerId, ticket: u64) {
        if let Some(fresh) = &*self.state.fresh.borrow() {
            fresh.borrow_mut().answered(hub, &(peer, ticket));
        }
    }

    /// Bytes that Redis has not accepted yet.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.state.queue.borrow().bytes()
    }

    /// The current state of the bridge.
    pub(crate) fn view(&self) -> BridgeView {
        self.state.view.borrow().clone()
    }
}

impl BridgeState {
    fn channel(&self, to: To) -> Arc<str> {
        match to {
            None => Arc::clone(&self.channels[0]),
            Some(hub) if hub == self.hub => Arc::clone(&self.channels[1]),
            Some(hub) => format!("{}{hub}", self.prefix).into(),
        }
    }

    /// Records that the bridge is up. Returns its address.
    fn rise(&self) -> String {
        self.up.set(true);
        let mut view = self.view.borrow_mut();
        view.connected = true;
        view.reconnects += u64::from(self.risen.replace(true));
        view.address.clone()
    }

    /// Records that the bridge is down. Returns whether it was up.
    fn fall(&self) -> bool {
        self.queue.borrow_mut().clear();
        let mut view = self.view.borrow_mut();
        view.connected = false;
        view.one_way.clear();
        self.up.replace(false)
    }

    /// Counts an error `times` times, and stores its text. Callers truncate the text with [`bounded`]. Returns whether
    /// the text differs from the previous error.
    fn failed(&self, times: u64, error: &str) -> bool {
        let mut view = self.view.borrow_mut();
        view.errors += times;
        let news = view.last_error.as_deref() != Some(error);
        if news {
            view.last_error = Some(error.to_owned());
        }
        news
    }
}

/// Truncates an error for logs and pages, since errors of Redis can have any length.
fn bounded(error: &str) -> &str {
    &error[..error.floor_char_boundary(MAX_ERROR_TEXT_BYTES)]
}

/// Makes one connection after another. If this function panics, the mesh ends, because nothing would reconnect.
async fn keep(state: Rc<BridgeState>, server: Rc<Server>, events: Events) {
    let mut reconnects = std::pin::pin!(reconnect(state, server, events));
    // The guard exists only during a poll. If the guard existed between polls, the log would blame this task for a
    // panic of another task of the thread.
    std::future::poll_fn(|cx| {
        let _turn = TurnGuard::of("bridge", ());
        reconnects.as_mut().poll(cx)
    })
    .await;
}

async fn reconnect(state: Rc<BridgeState>, server: Rc<Server>, events: Events) {
    planted("bridge");
    let mut backoff = Backoff::default();
    loop {
        // Each connection has its own task, so that a panic in the task ends only that connection.
        let mut life = JoinSet::new();
        life.spawn_local(session::run(Rc::clone(&state), Rc::clone(&server), events.clone()));
        let error = match life.join_next().await {
            Some(Ok(End::Failed(error))) => error,
            Some(Err(error)) => error.to_string(),
            Some(Ok(End::Unwanted)) | None => return,
        };
        let error = bounded(&error);
        let news = state.failed(1, error);
        let address = &server.address;
        if state.fall() {
            warn!(%address, %error, "bridge_down");
            backoff.reset();
            if events.send((state.hub, BridgeEvent::Down)).await.is_err() {
                return;
            }
        } else if news {
            warn!(%address, %error, "bridge_cannot_connect");
        } else {
            debug!(%address, %error, "bridge_cannot_connect");
        }
        tokio::time::sleep(backoff.failed(BRIDGE_BACKOFF_MIN, BRIDGE_BACKOFF_MAX, chance())).await;
    }
}
