//! Operators' orders to the routers of a hub, and their results.

use std::time::Duration;

use crate::id::{HubId, NetworkName, PeerId};

/// An operator's order. The router answers with [`Output::Acted`](crate::Output::Acted).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Remove a peer. Only the peer's home shard gets this order.
    Kick {
        /// The peer.
        peer: PeerId,
        /// The network from which the peer is removed. If `network` is `None`, the peer's session is closed.
        network: Option<NetworkName>,
        /// Time for which the peer may not return to the network or the hub. Zero ends an earlier exclusion, and `None`
        /// leaves the earlier exclusion unchanged.
        out_for: Option<Duration>,
    },
    /// Close a network by ending the memberships of the shard's sessions. Every shard gets this order, but only after
    /// it has answered the previous order.
    CloseNetwork {
        /// The network.
        network: NetworkName,
        /// Time for which nobody may join the network on this hub. Zero ends an earlier exclusion, and `None` leaves
        /// the earlier exclusion unchanged.
        out_for: Option<Duration>,
    },
}

impl Order {
    /// The time of exclusion that the order requests.
    pub const fn out_for(&self) -> Option<Duration> {
        match self {
            Self::Kick { out_for, .. } | Self::CloseNetwork { out_for, .. } => *out_for,
        }
    }
}

/// The result of an operator's order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acted {
    /// The answer to [`Order::Kick`].
    Kicked {
        /// Whether the peer was removed from the hub or from the network.
        from: KickedFrom,
        /// False if the order requested an exclusion of the peer, but [`MAX_EXCLUSIONS`](crate::limits::MAX_EXCLUSIONS)
        /// other exclusions are in force.
        excluded: bool,
    },
    /// The answer to [`Order::CloseNetwork`].
    Closed {
        /// Number of sessions that were removed, including observers.
        members: usize,
        /// False if the order requested an exclusion from the network, but
        /// [`MAX_EXCLUSIONS`](crate::limits::MAX_EXCLUSIONS) other exclusions are in force.
        excluded: bool,
    },
}

impl Acted {
    /// Whether this result can be the answer to this order.
    pub const fn answers(&self, order: &Order) -> bool {
        match order {
            Order::Kick { .. } => matches!(self, Self::Kicked { .. }),
            Order::CloseNetwork { .. } => matches!(self, Self::Closed { .. }),
        }
    }
}

/// The place from which a kicked peer was removed, or the reason why it was not removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KickedFrom {
    /// The peer's session was closed.
    Hub,
    /// The peer was removed from the network.
    Network,
    /// The peer was not removed, because it is connected to this hub, but is not a member of the network.
    NotAMember,
    /// The peer was not removed, because it is connected to this other hub.
    Elsewhere(HubId),
    /// The peer was not removed, because this hub knows no connection of the peer.
    Nowhere,
}
