//! The I/O of one core of a hub. A shard has listeners, sessions and a mailbox, and drives a [`Router`](proto::Router).
//!
//! # What this crate will never do
//!
//! A shard never talks to another hub. The letters of a shard go to other shards and to the mesh, and another hub's
//! socket leaves the shard as a [`LinkHandOff`]. A shard never decides what a peer receives, because the router decides
//! this. A letter between shards is never dropped, and every session ends with a [`CloseReason`](proto::CloseReason).

mod accept;
mod clock;
mod config;
mod core;
mod crowd;
mod drain;
mod fair;
mod http;
mod links;
mod listen;
mod networks;
mod origins;
mod pace;
mod proxies;
mod queue;
mod reading;
mod runtime;
mod session;
mod session_task;
mod socket;
mod sparse;
mod stats;
mod tokens;

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::{Response, http::request};

pub use clock::Clock;
pub use config::{DoorConfig, FileShares, HubConfig, RedirectDoor, TlsDoor};
pub use core::SessionLimits;
pub use crowd::AddressLimits;
pub use drain::Drain;
pub use http::{IdProofs, bearer_tokens};
pub use links::{Admission, LinkDoor, LinkHandOff, LinkTokens, TakeLink};
pub use listen::{bind, take_over};
pub use networks::{Largest, Members, NetworkList};
pub use origins::Origins;
pub use pace::Pace;
pub use proxies::Proxies;
pub use runtime::{ShardHandle, Shards, start};
pub use socket::Socket;
pub use stats::{FailureCounts, HandshakeFailure, IoStats, ShardReading};
pub use tokens::{Allowed, KeyProblem, TokenKey, TokenRefusal, TokenRules, Tokens};

/// Counters that all shards of a hub share.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Number of WebSockets that count against MAX_CONNECTIONS.
    pub connections: AtomicUsize,
    /// Number of admitted peers.
    pub peers: AtomicUsize,
}

/// Answers HTTP requests other than WebSocket upgrades. This function is called on the shard's thread and must not
/// block.
pub type Pages = Arc<dyn Fn(&request::Parts, Visitor) -> Answer + Send + Sync>;

/// A page that another thread renders.
pub type Page = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// The answer to an HTTP request.
pub enum Answer {
    /// An answer that costs almost nothing and is never refused.
    Now(Response<Full<Bytes>>),
    /// A page. An unpolled page costs nothing, so the shard can still refuse it if there are too many requests.
    Soon(Page),
    /// A page for somebody who has proved to be an operator. Pages of this kind have their own rate limit, which other
    /// readers cannot use up.
    ForOperator(Page),
    /// An answer whose body arrives in parts, for as long as its reader stays. A streamed answer can be refused, as a
    /// page can.
    Stream(Response<Parts>),
    /// The answer depends on the request's body, which has at most [`MAX_FORM_BYTES`](proto::limits::MAX_FORM_BYTES).
    Form(Form),
}

/// A body in parts. hyper polls it only while less than MAX_REQUEST_HEAD_BYTES waits to be written, so a slow reader
/// slows the body down.
pub type Parts = UnsyncBoxBody<Bytes, Infallible>;

/// Answers a request with this body.
pub type Form = Box<dyn FnOnce(Bytes) -> Answer + Send>;

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(response) => f.debug_tuple("Now").field(response).finish(),
            Self::Soon(_) => f.debug_tuple("Soon").finish(),
            Self::ForOperator(_) => f.debug_tuple("ForOperator").finish(),
            Self::Stream(response) => f.debug_tuple("Stream").field(&response.status()).finish(),
            Self::Form(_) => f.debug_tuple("Form").finish(),
        }
    }
}

/// The sender of a request for a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Visitor {
    /// The kind of port at which the request arrived.
    pub audience: Audience,
    /// Whether the request carries AUTH_TOKEN. False if AUTH_TOKEN is not set.
    pub has_token: bool,
    /// The address of the client.
    pub address: SocketAddr,
    /// Whether the client is known to use TLS, either at this hub or at a trusted proxy that reports it.
    pub is_tls: bool,
}

/// The readers for whom a port serves pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Audience {
    /// PORT, if ADMIN_PORT is set. This port serves only public pages.
    Public,
    /// ADMIN_PORT, or PORT if ADMIN_PORT is not set. This port serves all pages.
    Operators,
}
