//! Orders of operators to a running hub: remove a peer, close a network, drain.
//!
//! A shard receives the request (`POST /admin/kick` and so on), and the [`Gatekeeper`] checks that an operator sends
//! it. The [`Desk`] passes the order to the hub's main thread, which executes it on the shards that it concerns. Each
//! order is logged with its outcome, unless its request ends first.

mod act;
mod cookie;
mod gatekeeper;
pub mod page;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use mesh::MeshReading;
use proto::limits::{ACT_TIMEOUT, MAX_EXCLUSIONS, MAX_ORDERS};
use proto::{HubId, KickedFrom};
use tokio::sync::{mpsc, oneshot};

pub use act::{Act, NAMES, span};
pub use gatekeeper::{Entry, Gatekeeper, is_own_page};

/// A request of an operator, for the hub's main thread.
#[derive(Debug)]
pub struct Request {
    /// The order.
    pub act: Act,
    /// Receives the outcome.
    pub answer: oneshot::Sender<Outcome>,
}

/// The receiver of the requests, for the hub's main thread.
pub type Requests = mpsc::Receiver<Request>;

/// Passes orders to the hub's main thread.
#[derive(Clone, Debug)]
pub struct Desk(mpsc::Sender<Request>);

impl Desk {
    /// Creates a desk, and the receiver of its orders.
    pub fn new() -> (Self, Requests) {
        let (orders, received) = mpsc::channel(MAX_ORDERS);
        (Self(orders), received)
    }

    /// Sends an order to the main thread, and waits for its outcome.
    pub async fn order(&self, act: Act) -> Outcome {
        let (answer, answered) = oneshot::channel();
        match self.0.try_send(Request { act, answer }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Outcome::Busy,
            Err(mpsc::error::TrySendError::Closed(_)) => return Outcome::Stopping,
        }
        // The orders that are queued before this one may take ACT_TIMEOUT each.
        match tokio::time::timeout(ACT_TIMEOUT * (MAX_ORDERS as u32 + 1), answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Outcome::Stopping,
            Err(_) => Outcome::Unknown,
        }
    }
}

/// The outcome of an order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The session of the peer was closed.
    Closed {
        /// Whether the requested exclusion is in place. True if none was requested.
        kept_out: bool,
    },
    /// The peer left the network.
    Removed {
        /// As in [`Self::Closed`].
        kept_out: bool,
    },
    /// The peer is connected, but is not a member of the network.
    NotAMember {
        /// As in [`Self::Closed`].
        kept_out: bool,
    },
    /// The peer is connected to another hub.
    Elsewhere {
        /// That hub.
        hub: HubId,
        /// The PUBLIC_URL of the hub that has the peer, or else the URL of that hub's links. `None` if the hub has
        /// neither.
        url: Option<Arc<str>>,
        /// As in [`Self::Closed`], at this hub.
        kept_out: bool,
    },
    /// No hub that this hub knows has a peer with this id.
    NotConnected {
        /// As in [`Self::Closed`].
        kept_out: bool,
    },
    /// This hub's peers have left the network.
    NetworkClosed {
        /// The number of peers that were members.
        members: usize,
        /// Whether the requested exclusion is in place. True if none was requested.
        kept_out: bool,
    },
    /// The hub drains.
    Draining {
        /// The time over which the hub closes its connections.
        over: Duration,
    },
    /// The drain has ended.
    Undrained,
    /// The hub is not draining, so the operator cannot end a drain.
    NotDraining,
    /// The hub is stopping and accepts no orders.
    Stopping,
    /// The maximum number of orders, [`MAX_ORDERS`], is already queued.
    Busy,
    /// A shard has not answered in time. The order may be executed later.
    Unknown,
}

impl Outcome {
    /// The name of the outcome in answers and in the log.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Closed { .. } => "closed",
            Self::Removed { .. } => "removed",
            Self::NotAMember { .. } => "not-a-member",
            Self::Elsewhere { .. } => "elsewhere",
            Self::NotConnected { .. } => "not-connected",
            Self::NetworkClosed { .. } => "network-closed",
            Self::Draining { .. } => "draining",
            Self::Undrained => "undrained",
            Self::NotDraining => "not-draining",
            Self::Stopping => "stopping",
            Self::Busy => "busy",
            Self::Unknown => "unknown",
        }
    }

    /// The HTTP status of the answer.
    pub fn status(&self, act: &Act) -> StatusCode {
        let keeps_out = act.out_for().is_some();
        match self {
            _ if !self.kept_out() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Closed { .. }
            | Self::Removed { .. }
            | Self::NetworkClosed { .. }
            | Self::Draining { .. }
            | Self::Undrained
            | Self::NotDraining => StatusCode::OK,
            // No peer was removed, but the requested exclusion is in place.
            Self::NotAMember { .. } | Self::NotConnected { .. } if keeps_out => StatusCode::OK,
            Self::NotAMember { .. } | Self::NotConnected { .. } => StatusCode::NOT_FOUND,
            Self::Elsewhere { .. } => StatusCode::CONFLICT,
            Self::Stopping | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Returns a sentence that describes the outcome. If the order was not executed, the sentence also says what to do.
    pub fn explain(&self, act: &Act) -> String {
        let what = match self {
            Self::Closed { .. } => "the peer was disconnected".to_owned(),
            Self::Removed { .. } => "the peer was removed from the network".to_owned(),
            Self::NotAMember { .. } => "the peer is connected, but is not in this network".to_owned(),
            Self::Elsewhere { hub, url, .. } => match url {
                Some(url) => format!("the peer is connected to hub {hub}: send the order to that hub ({url})"),
                None => format!("the peer is connected to hub {hub}: send the order to that hub (see /hubstats)"),
            },
            Self::NotConnected { .. } => "no peer with this id is connected".to_owned(),
            Self::NetworkClosed { members: 1, .. } => "1 peer of this hub was removed from the network".to_owned(),
            Self::NetworkClosed { members, .. } => format!("{members} peers of this hub were removed from the network"),
            Self::Draining { over } => {
                format!(
                    "the hub is draining: it refuses new peers, and closes its connections over {} s",
                    over.as_secs()
                )
            }
            Self::Undrained => "the drain has ended: the hub accepts peers again".to_owned(),
            Self::NotDraining => "the hub was not draining: nothing has changed".to_owned(),
            Self::Stopping => "the hub is stopping and accepts no orders".to_owned(),
            Self::Busy => "too many orders are queued: send the order again later".to_owned(),
            Self::Unknown => {
                "the hub has not executed the order in time, but may do so later: look at its log".to_owned()
            }
        };
        match act.out_for() {
            None => what,
            Some(_) if !self.kept_out() => {
                format!("{what}; it is not kept out, because this hub already keeps out {MAX_EXCLUSIONS} others")
            }
            Some(span) if span.is_zero() => format!("{what}; it is not kept out any longer"),
            Some(span) => format!("{what}; it is kept out of this hub for {} s", span.as_secs()),
        }
    }

    /// Whether a requested exclusion is in place. Returns true for outcomes that have no exclusion.
    const fn kept_out(&self) -> bool {
        match self {
            Self::Closed { kept_out }
            | Self::Removed { kept_out }
            | Self::NotAMember { kept_out }
            | Self::Elsewhere { kept_out, .. }
            | Self::NotConnected { kept_out }
            | Self::NetworkClosed { kept_out, .. } => *kept_out,
            Self::Draining { .. }
            | Self::Undrained
            | Self::NotDraining
            | Self::Stopping
            | Self::Busy
            | Self::Unknown => true,
        }
    }
}

/// The outcome of a kick. If the peer is at another hub, the URL of that hub comes from `mesh`.
pub fn kicked(from: KickedFrom, kept_out: bool, mesh: &MeshReading) -> Outcome {
    match from {
        KickedFrom::Hub => Outcome::Closed { kept_out },
        KickedFrom::Network => Outcome::Removed { kept_out },
        KickedFrom::NotAMember => Outcome::NotAMember { kept_out },
        KickedFrom::Nowhere => Outcome::NotConnected { kept_out },
        KickedFrom::Elsewhere(hub) => {
            let known = mesh.hubs.iter().find(|known| known.hub == hub);
            let url = known.and_then(|known| known.public_url.as_ref().or(known.advertise.as_ref()));
            Outcome::Elsewhere { hub, url: url.map(Arc::clone), kept_out }
        }
    }
}
