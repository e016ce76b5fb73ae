//! What hubs say to each other, and how it is written.
//!
//! A frame of a link is a sequence of envelopes, each `length: u32, kind: u8, body`, integers little-endian. An envelope
//! of a kind that is not known is skipped; everything else about the form is fixed by [`VERSION`].

mod form;

use std::sync::Arc;

use crate::id::{HubId, HubIncarnation, NetworkName, PeerId, PeerIncarnation};
use crate::reason::{LeaveReason, Outcome};
use crate::resume::Lineage;
use crate::router::{Announcement, Discovery, Meeting, Standing};
use crate::wire::{SignalKind, Template};

/// Version of the form of envelopes, named in the subprotocol and in [`Hello`].
pub const VERSION: u16 = 1;

/// The subprotocol under which hubs link (RFC 6455 section 1.9).
pub const SUBPROTOCOL: &str = "peerpigeon-mesh.1";

/// The refusal of a link that shows no token, or a wrong one: the body of a 401. No other program answers with it, so a hub can ask
/// without its token first where a Go hub may be.
pub const TOKEN_WANTED: &str = "unauthorized: a link takes this hub's MESH_TOKEN, as a bearer token";

/// One thing that one hub says to another.
#[derive(Clone, Debug)]
pub enum Envelope {
    /// The first on every link, from both ends: who speaks.
    Hello(Box<Hello>),
    /// A hub lives, and how far it is.
    Heartbeat(Arc<Heartbeat>),
    /// One change of one hub's presence.
    Change(Arc<Change>),
    /// Asks a neighbour for all that it knows of a hub's presence.
    SnapshotRequest(SnapshotRequest),
    /// A part of the answer.
    Snapshot(Box<SnapshotPart>),
    /// A hub has ended, and with it all its peers.
    Farewell(HubId, HubIncarnation),
    /// To one hub, over as many others as it takes.
    Routed(Route, Box<Routed>),
    /// The answer to a request for a snapshot that cannot be served now. Hubs before 2.1 skip it.
    SnapshotDeclined(SnapshotRequest),
}

/// The kinds of envelope, as metrics count them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the labels say it")]
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

/// Who speaks on a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// [`VERSION`] of the speaker.
    pub version: u16,
    /// The speaker.
    pub hub: HubId,
    /// Its present life.
    pub incarnation: HubIncarnation,
    /// HUB_MESH_NAMESPACE: hubs of different meshes do not link.
    pub namespace: String,
    /// DISCOVERY: nor do hubs of which one tells its peers of all others, and the other does not.
    pub discovery: Discovery,
    /// As in [`Heartbeat::process`].
    pub process: u64,
}

/// A hub lives. Goes to every hub, never suppressed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// Who.
    pub hub: HubId,
    /// Its present life.
    pub incarnation: HubIncarnation,
    /// Counts the heartbeats of this life.
    pub number: u64,
    /// The last change of its presence.
    pub seq: u64,
    /// Of its presence after that change.
    pub digest: u64,
    /// How long ago it was said, in milliseconds, as far as hubs on the way know.
    pub age_ms: u32,
    /// It goes away: it is not to be dialed.
    pub draining: bool,
    /// Hubs to which it has a link that works in both directions and is not full.
    pub neighbours: Vec<HubId>,
    /// Where hubs may dial it (MESH_ADVERTISE).
    pub advertise: Option<Arc<str>>,
    /// Where clients find it (PUBLIC_URL).
    pub public_url: Option<Arc<str>>,
    /// A random number of the process, which tells two processes with one id apart. 0: a hub before 2.1, which does not say.
    pub process: u64,
    /// Hubs to which it has a link on which it receives nothing. They have to send by another way, too.
    pub unheard: Vec<HubId>,
}

/// One change of a hub's presence. (hub, incarnation, seq) names it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The hub that says it of its own peer.
    pub hub: HubId,
    /// The life in which it was said.
    pub incarnation: HubIncarnation,
    /// Counts the changes of this life.
    pub seq: u64,
    /// Whom it is about.
    pub peer: PeerId,
    /// Which session of that peer.
    pub session: PeerIncarnation,
    /// What happened.
    pub what: What,
}

/// What happened to a peer.
#[derive(Clone, Debug)]
pub enum What {
    /// Its session began.
    Up,
    /// It announced itself, for the first time or again.
    Joined(Arc<Announcement>),
    /// It said goodbye to a network.
    Left {
        /// Which.
        network: NetworkName,
        /// What it said, as it reaches the network's members.
        frame: Arc<Template>,
    },
    /// Its session ended, and with it all its memberships.
    Down(LeaveReason),
}

/// A peer as its hub knows it: one session and its memberships, ascending by network.
#[derive(Clone, Debug)]
pub struct Presence {
    /// Who.
    pub peer: PeerId,
    /// Which session.
    pub session: PeerIncarnation,
    /// The networks it is in.
    pub memberships: Vec<Arc<Announcement>>,
}

/// Asks for a hub's whole presence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotRequest {
    /// Whose.
    pub hub: HubId,
    /// In which life.
    pub incarnation: HubIncarnation,
}

/// A part of a hub's presence at one moment. Parts come in order.
#[derive(Clone, Debug)]
pub struct SnapshotPart {
    /// Whose.
    pub hub: HubId,
    /// In which life.
    pub incarnation: HubIncarnation,
    /// After which change.
    pub seq: u64,
    /// Of all parts together.
    pub digest: u64,
    /// Counts the parts from 0.
    pub part: u32,
    /// Whether this is the last.
    pub last: bool,
    /// Ascending by id through all parts.
    pub peers: Vec<Arc<Presence>>,
}

/// From where to where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// The hub it is for.
    pub to: HubId,
    /// In which life; another one does not take it.
    pub to_incarnation: HubIncarnation,
    /// The hub it is from.
    pub from: HubId,
    /// In which life.
    pub from_incarnation: HubIncarnation,
    /// How many hubs have passed it on.
    pub hops: u8,
}

/// What goes to one hub.
#[derive(Clone, Debug)]
pub enum Routed {
    /// A peer's signal.
    Signal(SignalEnvelope),
    /// What became of signals, by their counters.
    Outcomes(Vec<(u64, Outcome)>),
    /// May this id be used elsewhere?
    Takeover {
        /// Which.
        peer: PeerId,
        /// Names the question.
        ticket: u64,
        /// What the resume secret of the session there proves. Hubs before 2.1 do not say.
        resume: Option<Lineage>,
    },
    /// It may, or its session answers.
    TakeoverAnswer {
        /// Which.
        peer: PeerId,
        /// As it came with the question.
        ticket: u64,
        /// Its session answers.
        in_use: bool,
    },
    /// Peers of the two hubs know each other.
    Meeting(Arc<Meeting>),
}

/// A signal on its way to the hub of its target.
#[derive(Clone, Debug)]
pub struct SignalEnvelope {
    /// Counts the signals from this hub to that one.
    pub counter: u64,
    /// The last change of the sending hub's presence: the target is not to hear of the sender before.
    pub seq: u64,
    /// Whether the sender waits for a receipt.
    pub receipt: bool,
    /// What kind of signal.
    pub kind: SignalKind,
    /// Who sent it.
    pub sender: PeerId,
    /// For whom.
    pub target: PeerId,
    /// The network it was sent in.
    pub network: NetworkName,
    /// The frame, ready for the target's socket.
    pub frame: Box<[u8]>,
    /// What its sender was in that network. Hubs of version 2.0.0 do not say.
    pub standing: Standing,
}

/// What is wrong with what another hub sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

impl Envelope {
    /// Which kind it is.
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
