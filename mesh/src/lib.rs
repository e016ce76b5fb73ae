//! The I/O between hubs: links over WebSockets, and Redis as an optional bridge.
//!
//! A shell so far. Its seam is [`proto::Address::Mesh`]: shards will post letters to it as they do to each other, and it
//! will post theirs to shards; `src/` introduces the two. It never knows of sessions, and shards never know of links.

#[cfg_attr(not(test), expect(dead_code, reason = "the mesh that drives it is still to come"))]
mod bridge;

pub use bridge::{BridgeConfig, BridgeView};
