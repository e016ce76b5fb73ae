//! The I/O between hubs: links over WebSockets, an optional Redis bridge, and the [`Relay`](proto::Relay) that they
//! drive.
//!
//! One thread owns the whole mesh. Each link is one task, which borrows the core for one turn at a time, and never
//! across an await. Queued envelopes are written after all ready tasks have had a turn, so that one write sends many.
//!
//! # What this crate will never do
//!
//! The mesh never knows sessions, and shards never know links. Letters go to the shards' mailboxes, which `src/`
//! connects. The mesh always accepts letters from shards. The mesh never drops a letter, and every link ends with a
//! [`LinkEnd`]. The mesh never decides what a hub receives: the relay does.

mod backoff;
mod bridge;
mod choice;
mod config;
mod core;
mod dial;
mod link;
mod link_task;
mod queue;
mod race;
mod resolve;
mod runtime;
mod stats;
mod stream;
mod tls;
mod websocket;

pub use bridge::{BridgeConfig, BridgeView, REDIS_ACL, REDIS_CLUSTER_ACL};
pub use config::MeshConfig;
pub use resolve::{is_localhost, loopback, resolve};
pub use runtime::{LinkSocket, MeshHandle, start};
pub use stream::MaybeTlsStream;
pub use tls::Tls;
pub use websocket::{ConnectError, WebSocket, accept, ask, open, order};

pub use stats::{DialSource, DialView, LinkEnd, LinkStats, LinkView, MeshReading};
