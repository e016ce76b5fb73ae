//! Redis as one more way to all hubs at once.
//!
//! Each hub subscribes to two channels, `<namespace>:mesh.1:presence` for everyone and `<namespace>:mesh.1:hub:<id>` for
//! itself. Pub/sub forgets: what is published while nobody is connected, or while a queue is full, is gone, and the digests in
//! heartbeats repair it. So nothing is kept for a Redis that is not there, and nobody waits for it.
//!
//! The bridge is Up while what it publishes to its own two channels comes back. It says Down when that stops, connects again
//! until the end of time, and says Up when it has come back again.
//!
//! An ACL user needs [`REDIS_ACL`], or [`REDIS_CLUSTER_ACL`] in a cluster.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use proto::limits::{BRIDGE_BACKOFF_MAX, BRIDGE_BACKOFF_MIN, MAX_ERROR_TEXT_BYTES};
use proto::{HubId, PeerId};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::backoff::{Backoff, chance};
use frame::Seal;
use fresh::Fresh;
use outbox::{Outbox, To};
use server::Server;
use session::End;

mod connection;
mod frame;
mod fresh;
mod inbox;
mod outbox;
mod server;
mod session;
#[cfg(test)]
mod tests;

/// The rights that a Redis user of the hubs needs, as `ACL SETUSER` reads them. `<namespace>` stands for HUB_MESH_NAMESPACE.
/// HELLO switches to RESP3 and tells the server's role.
pub const REDIS_ACL: &str = "resetchannels &<namespace>:* -@all +hello +publish +subscribe";

/// The same for a Redis Cluster, where the user is needed on every node.
pub const REDIS_CLUSTER_ACL: &str = "resetchannels &<namespace>:* -@all +hello +cluster|slots +spublish +ssubscribe";

/// Where Redis is, and who this hub is there.
#[derive(Clone)]
pub struct BridgeConfig {
    /// `redis[s]://[user][:password]@host[:port][/db]`, or, for a Redis Cluster with sharded pub/sub,
    /// `redis[s]+cluster://[user][:password]@host[:port],host[:port]..`, where some of its nodes are enough.
    /// `rediss` is TLS. Special characters of a password are percent-encoded.
    pub url: String,
    /// HUB_MESH_NAMESPACE: the first part of every channel's name.
    pub namespace: String,
    /// This hub.
    pub hub: HubId,
    /// MESH_TOKEN: what frames are authenticated with. Without it everyone who reaches Redis is believed.
    pub token: Option<Arc<str>>,
    /// MESH_TOKEN_ALSO: frames of those who authenticate with this are taken as well.
    pub also: Option<Arc<str>>,
    /// Certificates in PEM to trust beside the public roots.
    pub extra_roots: Option<Arc<[u8]>>,
}

impl BridgeConfig {
    /// Whether [`Self::url`] can be understood.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong, without the password.
    pub fn check(&self) -> Result<(), String> {
        Server::parse(&self.url, None).map(drop)
    }

    /// The database number in [`Self::url`], where it is not 0. It has no effect: pub/sub has no databases, so hubs with
    /// different numbers at one Redis still share their channels.
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

/// The bridge as it is, for pages and metrics. Counts begin with the process.
#[derive(Clone, Debug, Default)]
pub struct BridgeView {
    /// What is published comes back.
    pub connected: bool,
    /// Frames that Redis has accepted.
    pub published: u64,
    /// Frames of other hubs.
    pub received: u64,
    /// Bytes of frames sent to Redis.
    pub bytes_out: u64,
    /// Bytes of frames of other hubs.
    pub bytes_in: u64,
    /// Frames that are not of this mesh: another token, or no frame at all.
    pub refused: u64,
    /// Frames of hubs of this mesh that were dropped since they were not fresh, by cause: the sender has not answered this
    /// hub's challenge; the frame repeats one that was taken.
    pub stale: [u64; 2],
    /// Hubs whose frames arrive and that do not answer: they do not receive this hub, or somebody publishes recorded frames
    /// of theirs. Ascending, at most [`MAX_ONE_WAY`](proto::limits::MAX_ONE_WAY).
    pub one_way: Vec<HubId>,
    /// Envelopes that found the queue full, and messages that were not read in time.
    pub lost: u64,
    /// Connections that failed, and frames that Redis refused.
    pub errors: u64,
    /// Times that the bridge came up again.
    pub reconnects: u64,
    /// The latest of the errors.
    pub last_error: Option<String>,
    /// The URL without user and password.
    pub address: String,
}

/// What the bridge tells the mesh. `Up` and `Down` alternate, `Up` first; frames come in between.
#[derive(Debug)]
pub(crate) enum BridgeEvent {
    /// What is pushed goes out.
    Up,
    /// What was pushed and not published is dropped, and so is all that will be.
    Down,
    /// This hub and another one receive each other, from here on. What was published before did not reach it.
    Met,
    /// Envelopes of one hub.
    Received {
        /// Who published them.
        from: HubId,
        /// The envelopes.
        frame: Vec<u8>,
    },
}

/// The hold on the bridge. It ends when this is dropped.
pub(crate) struct Bridge {
    state: Rc<State>,
    _task: JoinSet<()>,
}

/// What the hold and the task share.
struct State {
    hub: HubId,
    seal: Seal,
    /// Everyone's, and this hub's own.
    channels: [Arc<str>; 2],
    /// Of the channel of any hub.
    prefix: String,
    outbox: RefCell<Outbox>,
    /// Of the present connection; `None` before the first.
    fresh: RefCell<Option<Fresh>>,
    wake: Notify,
    up: Cell<bool>,
    /// It was up once.
    risen: Cell<bool>,
    view: RefCell<BridgeView>,
}

impl Bridge {
    /// Begins to connect, and goes on for ever. To be called inside a `LocalRuntime`.
    ///
    /// With a URL that [`BridgeConfig::check`] refuses it only says so in its view.
    pub(crate) fn start(config: BridgeConfig, events: mpsc::Sender<BridgeEvent>) -> Self {
        let server = Server::parse(&config.url, config.extra_roots.as_deref());
        let prefix = format!("{}:mesh.1:hub:", config.namespace);
        let state = Rc::new(State {
            hub: config.hub,
            seal: Seal::new(config.hub, config.token.as_deref(), config.also.as_deref()),
            channels: [
                format!("{}:mesh.1:presence", config.namespace).into(),
                format!("{prefix}{}", config.hub).into(),
            ],
            prefix,
            outbox: RefCell::default(),
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
                    // An error is that there is one already, which does as well.
                    _ = rustls::crypto::ring::default_provider().install_default();
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

    /// Appends one envelope to the frame for everyone, or for one hub. While the bridge is not up, or when
    /// [`BRIDGE_QUEUE_BYTES`](proto::limits::BRIDGE_QUEUE_BYTES) wait, it is dropped.
    pub(crate) fn push(&mut self, to: Option<HubId>, write: impl FnOnce(&mut Vec<u8>)) {
        let state = &self.state;
        if state.up.get() && !state.outbox.borrow_mut().push(to, &state.seal, write) {
            state.view.borrow_mut().lost += 1;
        }
    }

    /// Has the next envelope for everyone leave behind what was pushed for single hubs.
    pub(crate) fn fence(&mut self) {
        self.state.outbox.borrow_mut().fence();
    }

    /// Has what was pushed leave, together.
    pub(crate) fn flush(&mut self) {
        if self.queued_bytes() > 0 {
            self.state.wake.notify_one();
        }
    }

    /// A hub has answered, over a link, whether the id is free. It may be what the bridge has asked a hub of version 2.0.
    pub(crate) fn answered(&mut self, hub: HubId, peer: PeerId, ticket: u64) {
        if let Some(fresh) = &mut *self.state.fresh.borrow_mut() {
            fresh.answered(hub, &(peer, ticket));
        }
    }

    /// Bytes that were pushed and that Redis has not accepted.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.state.outbox.borrow().bytes()
    }

    /// The bridge as it is.
    pub(crate) fn view(&self) -> BridgeView {
        self.state.view.borrow().clone()
    }
}

impl State {
    fn channel(&self, to: To) -> Arc<str> {
        match to {
            None => Arc::clone(&self.channels[0]),
            Some(hub) if hub == self.hub => Arc::clone(&self.channels[1]),
            Some(hub) => format!("{}{hub}", self.prefix).into(),
        }
    }

    /// The address of what is up.
    fn rise(&self) -> String {
        self.up.set(true);
        let mut view = self.view.borrow_mut();
        view.connected = true;
        view.reconnects += u64::from(self.risen.replace(true));
        view.address.clone()
    }

    /// Whether it was up.
    fn fall(&self) -> bool {
        self.outbox.borrow_mut().clear();
        let mut view = self.view.borrow_mut();
        view.connected = false;
        view.one_way.clear();
        self.up.replace(false)
    }

    /// Whether the error is another than the last. The text is [bounded](bounded).
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

/// An error as it is logged and shown: Redis says as much as it likes.
fn bounded(error: &str) -> &str {
    &error[..error.floor_char_boundary(MAX_ERROR_TEXT_BYTES)]
}

/// Makes one connection after the other.
async fn keep(state: Rc<State>, server: Rc<Server>, events: mpsc::Sender<BridgeEvent>) {
    let mut backoff = Backoff::default();
    loop {
        // A task of its own: should it panic, the next one goes on.
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
            if events.send(BridgeEvent::Down).await.is_err() {
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
