//! The kinds of listeners, and the number of file descriptors that each kind may use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, Semaphore};

use crate::config::{FileShares, RedirectDoor};
use crate::links::LinkDoor;

/// Which connections a listener accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entrance {
    /// Only pages.
    Admin,
    Both,
    Hubs,
    Peers,
    /// Only redirects to the port with TLS.
    Redirect,
}

impl Entrance {
    /// The kind of the listener at this port.
    pub(crate) fn at(port: u16, links: Option<&LinkDoor>, admin: Option<u16>, redirect: Option<RedirectDoor>) -> Self {
        if admin == Some(port) {
            return Self::Admin;
        }
        if redirect.is_some_and(|redirect| redirect.port == port) {
            return Self::Redirect;
        }
        match links.map(|links| links.port) {
            None => Self::Peers,
            Some(None) => Self::Both,
            Some(Some(own)) if own == port => Self::Hubs,
            Some(Some(_)) => Self::Peers,
        }
    }
}

/// The free file descriptors of one kind of listener, on all shards together.
#[derive(Clone, Debug)]
pub(crate) struct FilePool {
    pub(crate) files: Arc<Semaphore>,
    pub(crate) wanted: Arc<Wanted>,
}

/// A request from one listener to the other listeners of its kind. A listener that waits for a file descriptor, and has
/// no connection to drop, asks the other listeners to drop a connection.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    is_open: AtomicBool,
    others: Notify,
}

impl Wanted {
    /// Asks another listener to drop one connection.
    pub(crate) fn ask(&self) {
        self.is_open.store(true, Ordering::Relaxed);
        self.others.notify_waiters();
    }

    /// Waits until another listener asks.
    pub(crate) async fn asked(&self) {
        self.others.notified().await;
    }

    /// Accepts the request to drop a connection. Returns `false` if another listener has already accepted the request.
    pub(crate) fn take(&self) -> bool {
        self.is_open.swap(false, Ordering::Relaxed)
    }
}

/// Separate pools of file descriptors, so that a crowd of peers cannot take the file descriptors of links and
/// operators. HTTP_REDIRECT_PORT uses the pool of peers.
#[derive(Clone, Debug)]
pub(crate) struct DoorFiles {
    peers: FilePool,
    links: FilePool,
    admin: FilePool,
}

impl DoorFiles {
    pub(crate) fn new(shares: FileShares) -> Self {
        let share = |files: usize| FilePool {
            files: Arc::new(Semaphore::new(files.clamp(1, Semaphore::MAX_PERMITS))),
            wanted: Arc::default(),
        };
        Self { peers: share(shares.peers), links: share(shares.links), admin: share(shares.admin) }
    }

    /// The pool of this kind of listener.
    pub(crate) fn at(&self, entrance: Entrance) -> FilePool {
        match entrance {
            Entrance::Admin => &self.admin,
            Entrance::Both | Entrance::Peers | Entrance::Redirect => &self.peers,
            Entrance::Hubs => &self.links,
        }
        .clone()
    }
}
