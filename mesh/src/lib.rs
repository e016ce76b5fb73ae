//! The I/O between hubs: links over WebSockets, Redis as an optional bridge, and the [`Relay`](proto::Relay) they drive.
//!
//! One thread owns all of it. A link is one task that borrows the core for a turn and never across an await; what waits for a
//! link is written when all that was ready has had its turn, so that envelopes leave together.
//!
//! # What this crate will never do
//!
//! It never knows of sessions, and shards never know of links: letters go to shards by their mailboxes, which `src/` introduces.
//! It always takes in what shards post. It never drops a letter, and a link's end always has a [`LinkEnd`]. It never decides
//! what a hub is told: the relay does.

mod backoff;
mod bridge;
mod choice;
mod core;
mod dial;
mod link;
mod queue;
mod race;
mod runtime;
mod stats;
mod stream;
mod tls;
mod websocket;

pub use bridge::{BridgeConfig, BridgeView, REDIS_ACL, REDIS_CLUSTER_ACL};
pub use runtime::{LinkSocket, MeshConfig, MeshHandle, start};
pub use stream::Stream;
pub use tls::Tls;
pub use websocket::{ConnectError, WebSocket, accept, ask, open, order};

pub use stats::{DialSource, DialView, LinkEnd, LinkStats, LinkView, MeshReading};
