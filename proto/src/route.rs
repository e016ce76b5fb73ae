//! Hops of envelopes and addresses of letters.

use crate::id::{HubId, LinkId, ShardId};

/// The neighbour to which an envelope leaves for another hub, or from which it arrived.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Hop {
    /// Over a link.
    Link(LinkId),
    /// Over the Redis bridge, to or from this hub.
    Bridge(HubId),
}

/// The part of a hub through which a peer is reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Address {
    /// The mesh thread, which has the links to other hubs.
    Mesh,
    /// A shard of this hub.
    Shard(ShardId),
}
