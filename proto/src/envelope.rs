//! Envelopes are the messages between hubs. This module has the types and the binary form of envelopes.
//!
//! A frame of a link is a sequence of envelopes. Each envelope is `length: u32, kind: u8, body`, with little-endian
//! integers. Envelopes of unknown kinds are skipped. Unknown bytes at the end of a body are ignored. A field at the end
//! of a body gets its default if the sender's release does not have this field yet. A change that these rules do not
//! cover requires a new [`VERSION`].

mod form;

use std::sync::Arc;

use crate::id::{HubId, HubIncarnation, NetworkName, PeerId, PeerIncarnation};
use crate::reason::{LeaveReason, Outcome};
use crate::resume::Lineage;
use crate::router::{Announcement, Discovery, Meeting, Standing};
use crate::wire::{SignalKind, Template};

/// Version of the binary form of envelopes. The name of the subprotocol and [`Hello`] contain this version.
pub const VERSION: u16 = 1;

/// The subprotocol of links (RFC 6455 section 1.9).
pub const SUBPROTOCOL: &str = "peerpigeon-mesh.1";

/// The body of the 401 that refuses a link with a missing or wrong token. No program except a hub answers with this
/// text. So a hub sends its first request without the token, and proves that it knows the token only after it has
/// received this text. The text is part of the protocol, because hubs of version 2.0.0 send these exact bytes.
pub const TOKEN_WANTED: &str = "unauthorized: a link takes this hub's MESH_TOKEN, as a bearer token";

/// A message from one hub to another.
#[derive(Clone, Debug)]
pub enum Envelope {
    /// The first envelope on every link, in both directions. It contains the sender's identity.
    Hello(Box<Hello>),
    /// States that a hub is alive, and the number of its last change.
    Heartbeat(Arc<Heartbeat>),
    /// One change of a hub's presence.
    Change(Arc<Change>),
    /// Asks a neighbour for its replica of a hub's presence.
    SnapshotRequest(SnapshotRequest),
    /// A part of a snapshot.
    Snapshot(Box<SnapshotPart>),
    /// An incarnation of a hub has ended, because the hub has stopped or has taken a new id.
    Farewell(HubId, HubIncarnation),
    /// An envelope for one hub, forwarded by other hubs if necessary.
    Routed(RouteHeader, Box<Routed>),
    /// Declines a request for a snapshot that the hub cannot send now. Hubs before 2.1 skip this envelope.
    SnapshotDeclined(SnapshotRequest),
}

/// The kinds of envelope, as metrics count them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "labels name the kinds")]
pub enum EnvelopeKind {
    Hello,
    Heartbeat,
    Change,
    SnapshotRequest,
    Snapshot,
    Farewell,
    Signal,
    Outcomes,
    Takeover,
    TakeoverAnswer,
    Meeting,
    SnapshotDeclined,
}

impl EnvelopeKind {
    /// Every kind, in the order of its discriminant.
    pub const ALL: [Self; 12] = [
        Self::Hello,
        Self::Heartbeat,
        Self::Change,
        Self::SnapshotRequest,
        Self::Snapshot,
        Self::Farewell,
        Self::Signal,
        Self::Outcomes,
        Self::Takeover,
        Self::TakeoverAnswer,
        Self::Meeting,
        Self::SnapshotDeclined,
    ];

    /// The name in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Heartbeat => "heartbeat",
            Self::Change => "change",
            Self::SnapshotRequest => "snapshot-request",
            Self::Snapshot => "snapshot",
            Self::Farewell => "farewell",
            Self::Signal => "signal",
            Self::Outcomes => "outcomes",
            Self::Takeover => "takeover",
            Self::TakeoverAnswer => "takeover-answer",
            Self::Meeting => "meeting",
            Self::SnapshotDeclined => "snapshot-declined",
        }
    }
}

/// The sender's identity on a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// [`VERSION`] of the sender.
    pub version: u16,
    /// The sender.
    pub hub: HubId,
    /// The hub's current incarnation.
    pub incarnation: HubIncarnation,
    /// HUB_MESH_NAMESPACE. Hubs with different namespaces do not link.
    pub namespace: String,
    /// DISCOVERY. Hubs with different modes of discovery do not link.
    pub discovery: Discovery,
    /// A random number of the process, as in [`Heartbeat::process`].
    pub process: u64,
}

/// Figures of a hub for operators, who see them on the pages of every hub of the mesh. The protocol does not depend on
/// these figures.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HubStatus {
    /// URL of the hub's pages for operators (MESH_ADMIN_URL), of at most
    /// [`MAX_HUB_URL_BYTES`](crate::limits::MAX_HUB_URL_BYTES).
    pub admin_url: Option<Arc<str>>,
    /// Version of the hub, of at most [`MAX_VERSION_BYTES`](crate::limits::MAX_VERSION_BYTES).
    pub version: Arc<str>,
    /// Number of the hub's WebSockets of peers.
    pub connections: u32,
    /// Maximum number of the hub's WebSockets of peers.
    pub max_connections: u32,
    /// CPU time that the process used in the last second, in thousandths of a core.
    pub cpu: u32,
    /// CPU time that the busiest shard used in the last second, in thousandths of a core.
    pub busiest_shard: u32,
    /// Number of signals from the hub's peers that were delivered in the last second.
    pub signals: u32,
    /// Resident memory of the process, in bytes.
    pub memory: u64,
}

/// A sign of life of a hub. Heartbeats are sent to every hub, even over full links.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// The hub.
    pub hub: HubId,
    /// The hub's current incarnation.
    pub incarnation: HubIncarnation,
    /// Number of this heartbeat in the incarnation, from 1.
    pub number: u64,
    /// Number of the last change of the hub's presence.
    pub seq: u64,
    /// Digest of the hub's presence after its last change.
    pub digest: u64,
    /// Age of this heartbeat in milliseconds, as far as the hubs on its route know.
    pub age_ms: u32,
    /// The hub is draining: do not dial it.
    pub draining: bool,
    /// Hubs to which the sender has a link that works in both directions and is not full.
    pub neighbours: Vec<HubId>,
    /// URL at which other hubs can dial the sender (MESH_ADVERTISE).
    pub advertise: Option<Arc<str>>,
    /// URL at which clients reach the sender (PUBLIC_URL).
    pub public_url: Option<Arc<str>>,
    /// A random number of the process, which distinguishes two processes with one id. Hubs before 2.1 do not send the
    /// number, and it is then 0.
    pub process: u64,
    /// Hubs whose link to the sender is in use but delivers nothing to the sender. Other hubs therefore choose no route
    /// to the sender over the link of such a hub.
    pub unheard: Vec<HubId>,
    /// Whether the sender receives nothing on the link over which it sends this heartbeat. A hub that forwards a
    /// heartbeat does not adapt this field, so the field has no meaning there.
    pub link_unheard: bool,
    /// The hub's figures. `None` if the hub has no figures yet. Hubs before 2.1 never send figures.
    pub status: Option<Arc<HubStatus>>,
}

/// One change of a hub's presence, identified by (hub, incarnation, seq).
#[derive(Clone, Debug)]
pub struct Change {
    /// The hub of the peer.
    pub hub: HubId,
    /// The hub's incarnation.
    pub incarnation: HubIncarnation,
    /// Number of this change in the incarnation, without gaps.
    pub seq: u64,
    /// The peer.
    pub peer: PeerId,
    /// The peer's session.
    pub session: PeerIncarnation,
    /// What happened.
    pub kind: ChangeKind,
}

/// An event of a peer's presence.
#[derive(Clone, Debug)]
pub enum ChangeKind {
    /// The peer's session began.
    Up,
    /// The peer announced itself in a network, for the first time or again.
    Joined(Arc<Announcement>),
    /// The peer left a network or was removed from it, and its session continues.
    Left {
        /// The network.
        network: NetworkName,
        /// The `goodbye` message for the members.
        frame: Arc<Template>,
    },
    /// The peer's session ended, and with it all memberships of the peer.
    Down(LeaveReason),
}

/// One session of a peer and its memberships, in ascending order of networks.
#[derive(Clone, Debug)]
pub struct Presence {
    /// The peer.
    pub peer: PeerId,
    /// The peer's session.
    pub session: PeerIncarnation,
    /// The memberships of the session.
    pub memberships: Vec<Arc<Announcement>>,
}

/// A request for the complete presence of a hub.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotRequest {
    /// The hub.
    pub hub: HubId,
    /// The hub's incarnation.
    pub incarnation: HubIncarnation,
    /// Number of the last change that the requesting hub has. A neighbour declines the request if it doubts its own
    /// replica, or if its replica is incomplete and has no later change. The number is 0 if the requesting hub doubts
    /// its own replica. Hubs before 2.1 always send 0. In [`Envelope::SnapshotDeclined`], the number has no meaning and
    /// is ignored.
    pub have: u64,
}

/// A part of a hub's presence at one moment. Parts are sent in order.
#[derive(Clone, Debug)]
pub struct SnapshotPart {
    /// The hub.
    pub hub: HubId,
    /// The hub's incarnation.
    pub incarnation: HubIncarnation,
    /// Number of the last change of the hub's presence that the snapshot includes.
    pub seq: u64,
    /// Digest of all parts together.
    pub digest: u64,
    /// Number of this part, from 0.
    pub part: u32,
    /// Whether this is the last part.
    pub last: bool,
    /// Peers in ascending order of ids, over all parts.
    pub peers: Vec<Arc<Presence>>,
}

/// Source and destination of a routed envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteHeader {
    /// The destination.
    pub to: HubId,
    /// The destination's incarnation. Another incarnation of the destination does not process the envelope. Instead,
    /// another incarnation answers a signal with `unreachable`, and a takeover with "not in use".
    pub to_incarnation: HubIncarnation,
    /// The source.
    pub from: HubId,
    /// The source's incarnation.
    pub from_incarnation: HubIncarnation,
    /// Number of hubs that have forwarded the envelope, less than [`MAX_HOPS`](crate::limits::MAX_HOPS).
    pub hops: u8,
}

/// The content of a routed envelope.
#[derive(Clone, Debug)]
pub enum Routed {
    /// A peer's signal.
    Signal(SignalEnvelope),
    /// Outcomes of signals, by their counters.
    Outcomes(Vec<(u64, Outcome)>),
    /// Asks whether a new session with this id may be admitted at the sender's hub.
    Takeover {
        /// The id.
        peer: PeerId,
        /// Identifies this question among the questions of the sender's hub.
        ticket: u64,
        /// The lineage that the resume secret of the asking session proves. Hubs before 2.1 do not send this field.
        resume: Option<Lineage>,
        /// Whether the new session has proven that the id is its own. Hubs before 2.1 do not send this field.
        owner: bool,
    },
    /// Answers a takeover.
    TakeoverAnswer {
        /// The id.
        peer: PeerId,
        /// The ticket of the question.
        ticket: u64,
        /// Whether the asked hub has a live session with this id. If the value is false, the id is free, because the
        /// asked hub has closed any session with this id or cannot be reached.
        in_use: bool,
    },
    /// Introduces peers of the two hubs to each other.
    Meeting(Arc<Meeting>),
}

/// A signal for a peer of another hub.
#[derive(Clone, Debug)]
pub struct SignalEnvelope {
    /// Number of this signal among the signals from the source to the destination.
    pub counter: u64,
    /// Number of the last change of the source's presence when the signal was sent. The destination delivers the signal
    /// only after it has applied this change.
    pub seq: u64,
    /// Whether the sender waits for a receipt.
    pub receipt: bool,
    /// The kind of signal.
    pub kind: SignalKind,
    /// The sender.
    pub sender: PeerId,
    /// The target.
    pub target: PeerId,
    /// The network of the signal.
    pub network: NetworkName,
    /// The complete frame for the target's socket.
    pub frame: Box<[u8]>,
    /// The sender's standing in the network of the signal. Hubs of version 2.0.0 do not send this field.
    pub standing: Standing,
}

/// Why an envelope of another hub is invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

impl Envelope {
    /// The kind of this envelope.
    pub fn kind(&self) -> EnvelopeKind {
        match self {
            Self::Hello(_) => EnvelopeKind::Hello,
            Self::Heartbeat(_) => EnvelopeKind::Heartbeat,
            Self::Change(_) => EnvelopeKind::Change,
            Self::SnapshotRequest(_) => EnvelopeKind::SnapshotRequest,
            Self::Snapshot(_) => EnvelopeKind::Snapshot,
            Self::Farewell(..) => EnvelopeKind::Farewell,
            Self::Routed(_, routed) => match **routed {
                Routed::Signal(_) => EnvelopeKind::Signal,
                Routed::Outcomes(_) => EnvelopeKind::Outcomes,
                Routed::Takeover { .. } => EnvelopeKind::Takeover,
                Routed::TakeoverAnswer { .. } => EnvelopeKind::TakeoverAnswer,
                Routed::Meeting(_) => EnvelopeKind::Meeting,
            },
            Self::SnapshotDeclined(_) => EnvelopeKind::SnapshotDeclined,
        }
    }
}
