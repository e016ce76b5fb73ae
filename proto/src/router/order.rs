//! Operators' orders to the routers of a hub, and their results.

use std::time::Duration;

use crate::id::{HubId, NetworkName, PeerId};

/// An operator's order. [`Output::Acted`](crate::Output::Acted) is the answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Remove a peer. Only the peer's home shard gets this order.
    Kick {
        /// The peer.
        peer: PeerId,
        /// The network to remove the peer from. `None` closes its session.
        network: Option<NetworkName>,
        /// Time for which the peer may not return to the network, or to the hub. Zero ends an earlier exclusion, and
        /// `None` leaves it unchanged.
        out_for: Option<Duration>,
    },
    /// Close a network: the memberships of the shard's own sessions end. Each shard gets this order, but only after
    /// [`Output::Acted`](crate::Output::Acted) has answered the previous order.
    CloseNetwork {
        /// The network.
        network: NetworkName,
        /// Time for which nobody may join it on this hub. Zero ends an earlier exclusion, and `None` leaves it
        /// unchanged.
        out_for: Option<Duration>,
    },
}

impl Order {
    /// The requested time of exclusion.
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
        /// Number of sessions that were members.
        members: usize,
        /// False if the order requested an exclusion from the network, but
        /// [`MAX_EXCLUSIONS`](crate::limits::MAX_EXCLUSIONS) other exclusions are in force.
        excluded: bool,
    },
}

impl Acted {
    /// Whether this is an answer to an order of this kind.
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
    /// The peer was not removed: it is connected here, but is not a member of the network.
    NotAMember,
    /// The peer was not removed: it is connected to this other hub.
    Elsewhere(HubId),
    /// The peer was not removed: it is not connected, as far as this hub knows.
    Nowhere,
}
