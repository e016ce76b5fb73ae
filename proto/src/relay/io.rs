//! The inputs and outputs of a relay.

use std::sync::Arc;

use crate::bugs::BugNote;
use crate::envelope::{Envelope, HubStatus};
use crate::id::{HubId, HubIncarnation, LinkId, ShardId};
use crate::route::Hop;
use crate::router::{ToMesh, ToShard};
use crate::trace::Span;

/// Inputs of a relay. The documentation of each variant says when the variant may be passed. The first input of a link
/// is `LinkUp` or `LegacyUp`, and its last input is `LinkDown`. The inputs `Heard`, `Saturated`, `Room` and `LinkDown`
/// of an unknown link are ignored.
#[derive(Debug)]
pub enum RelayInput<'a> {
    /// A letter from a shard. A letter may be passed at any time. Letters of one shard must be passed in the order in
    /// which they were posted, and none may be lost.
    Letter(ToMesh),
    /// A link is ready, because both ends have exchanged hellos and agreed to keep the link. This is the first input of
    /// a link. An older link to the same hub may still exist for a while, and envelopes received on the older link are
    /// still processed. At most [`MAX_LINKS`](crate::limits::MAX_LINKS) links may exist at a time.
    LinkUp {
        /// The link. Its id must not have been used before.
        link: LinkId,
        /// The other hub.
        hub: HubId,
        /// The incarnation in that hub's hello, in milliseconds since 1970.
        incarnation: HubIncarnation,
    },
    /// Another process sent a hello with this hub's id on a link. This input may be passed at any time.
    Namesake {
        /// The incarnation of the other process.
        incarnation: HubIncarnation,
        /// The [`Heartbeat::process`](crate::envelope::Heartbeat::process) of the other process.
        process: u64,
    },
    /// A native link or a legacy link has closed. This is the last input of a link. Messages that are still in the
    /// link's queue are lost.
    LinkDown {
        /// The link.
        link: LinkId,
    },
    /// The first part of a long message has arrived on a link, so the link is not silent. This input may be passed
    /// between [`Self::LinkUp`] and [`Self::LinkDown`].
    Heard {
        /// The link.
        link: LinkId,
    },
    /// An envelope arrived from a neighbour, either on a link after [`Self::LinkUp`], or on the bridge after
    /// [`Self::BridgeUp`]. The envelope is never [`Envelope::Hello`], which the mesh handles itself. The contents of
    /// the envelope may be wrong in any way. Envelopes that a hub may not send are ignored or refused, and most of them
    /// are counted in [`RelayStats`](super::RelayStats).
    Received {
        /// The link, or the hub on the bridge.
        via: Hop,
        /// The envelope.
        envelope: Envelope,
    },
    /// The queue of a link or of the bridge rose above its high-water mark
    /// ([`LINK_QUEUE_HIGH`](crate::limits::LINK_QUEUE_HIGH)). Until [`Self::Room`], the relay puts out only heartbeats
    /// and short envelopes for this queue, such as outcomes.
    Saturated {
        /// The link, or [`Transport::Bridge`].
        transport: Transport,
    },
    /// The queue of a transport is short again. This input must be passed once after [`Self::Saturated`], and once as
    /// the answer to each [`RelayOutput::Backlog`].
    Room {
        /// The link, or [`Transport::Bridge`].
        transport: Transport,
    },
    /// The bridge works, so published frames reach all subscribers. This input is passed again when a new hub
    /// subscribes.
    BridgeUp,
    /// The bridge has failed. The frames that were published last may be lost. This input may be passed only after
    /// [`Self::BridgeUp`].
    BridgeDown,
    /// A legacy link to a Go hub, or to a program that speaks the Go hub's protocol, is ready. This is the first input
    /// of a legacy link.
    LegacyUp {
        /// The link. Its id must not have been used before.
        link: LinkId,
        /// The Go hub.
        hub: HubId,
        /// Whether this hub dialed. The hub that dialed sends the first message.
        dialed: bool,
    },
    /// A text message arrived on a legacy link. This input may be passed after [`Self::LegacyUp`] and before
    /// [`Self::LinkDown`]. A message that is invalid or not allowed is ignored, and counted in
    /// [`legacy_refused`](super::RelayStats::legacy_refused).
    LegacyText {
        /// The link.
        link: LinkId,
        /// The message, of at most [`LINK_MESSAGE_BYTES`](crate::limits::LINK_MESSAGE_BYTES).
        text: &'a str,
    },
    /// The answer to [`RelayOutput::Unfinished`]. This input must be passed once for each output `Unfinished`.
    Continue,
    /// With `true`, this hub begins to drain, so other hubs must not dial it any more. With `false`, an operator has
    /// ended the drain.
    Draining(bool),
    /// New figures of this hub, for its heartbeats. This input may be passed at any time.
    Status(Arc<HubStatus>),
    /// This hub stops now, and its peers have left. This input is the last one, and is passed once. The relay then
    /// sends a farewell, so that other hubs do not have to wait for the end of the lease.
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
    /// There is more to send on this transport. Pass [`RelayInput::Room`] when the queue of the transport is short.
    Backlog {
        /// The link, or [`Transport::Bridge`].
        transport: Transport,
    },
    /// Post this letter to a shard. Letters to one shard must arrive in the order of the outputs, and none may be
    /// dropped.
    Letter {
        /// The shard.
        to: ShardId,
        /// The letter.
        letter: ToShard,
    },
    /// This hub has given up its id and has the new id [`Relay::hub`](super::Relay::hub). The relay has forgotten its
    /// links, except legacy links. Close each forgotten link after its queue is written, dial its hub again, and
    /// restart the bridge.
    Renamed {
        /// The new id.
        hub: HubId,
    },
    /// The relay has more work than fits into one turn. Pass [`RelayInput::Continue`] after all other ready tasks have
    /// had a turn, and when few letters are queued for each shard.
    Unfinished,
    /// An event for the log.
    Event(MeshEvent),
    /// A span of a traced signal. The relay outputs no span before [`Relay::trace`](super::Relay::trace) is called.
    Span(Box<Span>),
    /// A note for the log about an impossible state. Each [`BugSite`](crate::BugSite) causes this output only once.
    /// Builds with debug assertions panic instead.
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
    /// The first heartbeat of a hub or of its new incarnation arrived, or the first heartbeat after the hub was lost.
    HubFound(HubId),
    /// A hub's lease has expired, or a new hub has displaced it, and this number of its peers has left.
    HubLost(HubId, usize),
    /// A hub sent its farewell, and this number of its peers has left.
    HubLeft(HubId, usize),
    /// Another live hub uses this hub's id. The hub that started later takes a new id.
    SameId,
    /// This hub has begun a later incarnation, because other hubs would ignore heartbeats of its previous incarnation.
    LaterIncarnation,
    /// This hub gave up its id (the first value) to another live hub, and has taken a new id (the second value).
    IdGivenUp(HubId, HubId),
    /// Two live hubs have this id.
    TwoHubs(HubId),
    /// A snapshot replaced this hub's replica of another hub.
    Repaired(HubId),
    /// No data arrives on the link from this other hub. Signals to that hub use another route if there is one.
    LinkSilent(HubId),
    /// This other hub reports that no data from this hub arrives on the link. Signals to that hub use another route if
    /// there is one.
    LinkUnheard(HubId),
    /// The link to this other hub works in both directions again.
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
