//! The I/O of one core of a hub: its listener, its sessions, its mailbox, and the [`Router`](proto::Router) they drive.
//!
//! # What this crate will never do
//!
//! It never speaks to another hub: letters go to an [`Address`](proto::Address), and a socket over which another hub wants to
//! link goes out of the door again, as a [`LinkSocket`].
//! It never decides what a peer is told: the router does. A letter between shards is never dropped, and a session's
//! end always has a [`CloseReason`](proto::CloseReason).

mod clock;
mod core;
mod http;
mod links;
mod listen;
mod networks;
mod pace;
mod queue;
mod runtime;
mod session;
mod socket;
mod sparse;
mod stats;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, http::request};
use proto::{BugNote, Event};

pub use clock::Clock;
pub use core::SessionLimits;
pub use links::{Admission, LinkDoor, LinkSocket, TakeLink};
pub use listen::bind;
pub use networks::{Largest, NetworkList};
pub use pace::Pace;
pub use runtime::{FileShares, HubConfig, ShardHandle, Shards, TlsDoor, start};
pub use socket::Socket;
pub use stats::{HandshakeFailure, IoStats, Reading};

/// What every shard of a hub sees of the others at once.
#[derive(Debug, Default)]
pub struct Gauges {
    /// WebSockets that count against MAX_CONNECTIONS.
    pub connections: AtomicUsize,
    /// Admitted peers.
    pub peers: AtomicUsize,
}

/// Answers requests that are not for a WebSocket.
pub type Pages = Arc<dyn Fn(&request::Parts, Visitor) -> Answer + Send + Sync>;

/// A page that is made elsewhere.
pub type Page = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// The answer to a request.
pub enum Answer {
    /// It costs next to nothing, and is never refused.
    Now(Response<Full<Bytes>>),
    /// A page. Nothing happens for one that is not polled: it can be refused where there are too many.
    Soon(Page),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(response) => f.debug_tuple("Now").field(response).finish(),
            Self::Soon(_) => f.debug_tuple("Soon").finish(),
        }
    }
}

/// Who asks for a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Visitor {
    /// Where the question came in.
    pub audience: Audience,
    /// It shows AUTH_TOKEN. False where none is set.
    pub has_token: bool,
}

/// Who asks for a page, by the port that was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Audience {
    /// Whoever reaches the port where peers come in, while operators have a port of their own.
    Public,
    /// Whoever may see everything: at the operators' port, or where there is one port for all.
    Operators,
}

/// Logs an impossible state.
fn log_bug(BugNote { site, place, context }: &BugNote) {
    tracing::error!(site = site.label(), place, context, "bug_found");
}

/// Writes what the router has for the log.
fn log(event: &Event) {
    match event {
        Event::Announced { peer, network, members } => {
            tracing::debug!(?peer, network = network.as_str(), members, "peer_announced");
        }
        Event::TakeoverAsked { peer } => tracing::debug!(?peer, "peer_takeover_asked"),
    }
}
