//! The inputs and outputs of a relay.

use std::sync::Arc;

use crate::bugs::BugNote;
use crate::envelope::{Envelope, HubStatus};
use crate::id::{HubId, HubIncarnation, LinkId, ShardId};
use crate::route::Hop;
use crate::router::{ToMesh, ToShard};

/// Inputs of a relay. Each variant says when it may come. Inputs of one link arrive in order: `LinkUp` or `LegacyUp`,
/// then everything else, then `LinkDown`. Inputs of an unknown link are ignored.
#[derive(Debug)]
pub enum RelayInput<'a> {
    /// A letter from a shard. At any time. Letters of one shard arrive in the order in which they were posted, and none
    /// is lost.
    Letter(ToMesh),
    /// A link is ready: both ends have exchanged hellos and agreed to keep it. First input of a link. An older link to
    /// the same hub may still exist for a while; envelopes received on it are still processed. At most
    /// [`MAX_LINKS`](crate::limits::MAX_LINKS) at a time.
    LinkUp {
        /// The link. Its id must not have been used before.
        link: LinkId,
        /// The other hub.
        hub: HubId,
        /// The incarnation in that hub's hello, in milliseconds since 1970.
        incarnation: HubIncarnation,
    },
    /// Another process sent a hello with this hub's id on a link. At any time.
    Namesake {
        /// Its incarnation.
        incarnation: HubIncarnation,
        /// Its [`Heartbeat::process`](crate::envelope::Heartbeat::process).
        process: u64,
    },
    /// A link has closed: a native link or a legacy link. Last input of a link. Messages still in its queue are lost.
    LinkDown {
        /// The link.
        link: LinkId,
    },
    /// A part of a long message arrived on a link, and the rest has not. Between [`Self::LinkUp`] and
    /// [`Self::LinkDown`]. It shows that the link is not silent.
    Heard {
        /// The link.
        link: LinkId,
    },
    /// An envelope arrived from a neighbour: on a link after [`Self::LinkUp`], or on the bridge after
    /// [`Self::BridgeUp`]. Never [`Envelope::Hello`], which the mesh handles itself. The contents may be wrong in any
    /// way. Envelopes that a hub may not send are ignored or refused, and counted in [`RelayStats`](super::RelayStats).
    Received {
        /// The link, or the hub on the bridge.
        via: Hop,
        /// The envelope.
        envelope: Envelope,
    },
    /// The queue of a link or of the bridge rose above its high-water mark
    /// ([`LINK_QUEUE_HIGH`](crate::limits::LINK_QUEUE_HIGH)). Until [`Self::Room`], the relay puts out only heartbeats
    /// and short answers for it.
    Saturated {
        /// The link, or [`Transport::Bridge`].
        transport: Transport,
    },
    /// The queue of a transport is short again: once after [`Self::Saturated`], and once as the answer to
    /// [`RelayOutput::Backlog`].
    Room {
        /// The link, or [`Transport::Bridge`].
        transport: Transport,
    },
    /// The bridge works: published frames reach all subscribers. Repeated when a new hub subscribes.
    BridgeUp,
    /// The bridge has failed. The frames published last may be lost. Only after [`Self::BridgeUp`].
    BridgeDown,
    /// A legacy link is ready: to a Go hub, or to a hub that speaks its protocol. First input of a legacy link.
    LegacyUp {
        /// The link. Its id must not have been used before.
        link: LinkId,
        /// The Go hub.
        hub: HubId,
        /// Whether this hub dialed. The dialing side sends first.
        dialed: bool,
    },
    /// A text message arrived on a legacy link: after [`Self::LegacyUp`], until [`Self::LinkDown`]. A message that is
    /// invalid or not allowed is ignored, and counted in
    /// [`legacy_refused`](super::RelayStats::legacy_refused).
    LegacyText {
        /// The link.
        link: LinkId,
        /// The message, of at most [`LINK_MESSAGE_BYTES`](crate::limits::LINK_MESSAGE_BYTES).
        text: &'a str,
    },
    /// The answer to [`RelayOutput::Unfinished`]: once for each.
    Continue,
    /// The hub begins to drain, so other hubs must not dial it any more; or an operator has ended the drain.
    Draining(bool),
    /// New figures of this hub for its heartbeats. At any time.
    Status(Arc<HubStatus>),
    /// The hub stops now: its peers have left. Once; the last input. Other hubs need not wait for its lease.
    Ending,
}

/// A transport over which envelopes leave a hub.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    /// A link.
    Link(LinkId),
    /// The bridge.
    Bridge,
}

/// Outputs of a relay. The caller must perform them in order.
#[derive(Debug)]
pub enum RelayOutput {
    /// Append this envelope to the queue for this destination.
    Send {
        /// The destination.
        to: Destination,
        /// The envelope.
        envelope: Envelope,
    },
    /// Append this text message to the queue of a legacy link.
    SendText {
        /// The link.
        link: LinkId,
        /// The message.
        text: Box<str>,
    },
    /// Give [`RelayInput::Room`] when the queue of this transport is short: there is more to send.
    Backlog {
        /// The link, or [`Transport::Bridge`].
        transport: Transport,
    },
    /// Post this letter. Letters to one shard must arrive in this order; none may be dropped.
    Letter {
        /// The shard.
        to: ShardId,
        /// The letter.
        letter: ToShard,
    },
    /// This hub has given up its id and has the new id [`Relay::hub`](super::Relay::hub). End all links except
    /// legacy links after their queues are written, and dial them again; restart the bridge. The relay has forgotten
    /// them.
    Renamed {
        /// The new id.
        hub: HubId,
    },
    /// There is more to do than fits into one turn. Give [`RelayInput::Continue`] after everything else that is ready
    /// has had its turn, when few letters are queued for each shard.
    Unfinished,
    /// For the log.
    Event(MeshEvent),
    /// For the log: an impossible state was found, for the first time at its site. Only in builds without debug
    /// assertions.
    Bug(BugNote),
}

/// The destination of an envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// The hub at the other end of a link.
    Link(LinkId),
    /// All hubs on the bridge.
    Everyone,
    /// One hub on the bridge.
    Bridged(HubId),
}

/// An event about other hubs, for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MeshEvent {
    /// The first heartbeat of a hub arrived, or the first after it was lost.
    HubFound(HubId),
    /// A hub's lease has expired, and this number of its peers has left.
    HubLost(HubId, usize),
    /// A hub sent its farewell, and this number of its peers has left.
    HubLeft(HubId, usize),
    /// Another live hub uses this hub's id. The one that started later takes a new id.
    SameId,
    /// Other hubs remembered a later incarnation of this hub, which has ended. This hub has begun an even later one.
    LaterLife,
    /// This hub gave up its first id to another live hub, and has the second.
    IdGivenUp(HubId, HubId),
    /// Two live hubs have this id.
    TwoHubs(HubId),
    /// A snapshot replaced this hub's replica of another hub.
    Repaired(HubId),
    /// Nothing arrives on the link to this hub. Signals use another route if there is one.
    LinkSilent(HubId),
    /// This hub reports that it receives nothing on the link from here. Signals use another route if there is one.
    LinkUnheard(HubId),
    /// The link to this hub works in both directions again.
    LinkWorks(HubId),
}

impl From<Hop> for Destination {
    fn from(via: Hop) -> Self {
        match via {
            Hop::Link(link) => Self::Link(link),
            Hop::Bridge(hub) => Self::Bridged(hub),
        }
    }
}

impl From<Hop> for Transport {
    fn from(via: Hop) -> Self {
        match via {
            Hop::Link(link) => Self::Link(link),
            Hop::Bridge(_) => Self::Bridge,
        }
    }
}
