//! Inputs and outputs of a router, and the letters between shards.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::bugs::BugNote;
use crate::claim::Claim;
use crate::grant::Grant;
use crate::id::{HubId, HubIncarnation, NetworkName, PeerId, SessionId, ShardId};
use crate::reason::{CloseReason, Outcome};
use crate::resume::Lineage;
use crate::wire::{MessageKind, SignalKind, Template};

use super::Discovery;
use super::order::{Acted, Order};

/// Inputs of a router. The documentation of each variant says when it may be passed. `Opened` is the first input of a
/// session, and `Closed` is the last one. The router ignores inputs of a session that it has closed, because the caller
/// may have read them before it learned of the close.
#[derive(Debug)]
pub enum Input<'a> {
    /// A WebSocket of `peer` was opened on the home shard of the peer. The session id must not be in use.
    Opened {
        /// The id of the new session.
        session: SessionId,
        /// The peer that connected.
        peer: PeerId,
        /// Whether the hub has a free seat. Without a free seat, the session is admitted only if it replaces a session
        /// of this hub with the same id.
        seat: bool,
        /// The lineage that the client's resume secret proves, if the client sent a valid one.
        resume: Option<Lineage>,
        /// Whether the client has proven that the id is its own, by a token for this id or by the key of the id. A
        /// client with this proof takes over the id, and the session that holds the id is not pinged first.
        owner: bool,
        /// What the client's token allows. `None` if the session may do everything.
        grant: Option<Box<Grant>>,
    },
    /// A new token was checked. This input must be passed once for each [`Output::Authorize`].
    Authorized {
        /// The session.
        session: SessionId,
        /// What the new token allows, or a sentence that says why the token is refused.
        grant: Result<Box<Grant>, &'static str>,
    },
    /// The client sent a message. This input may be passed only after [`Output::Admit`].
    Message {
        /// The sender's session.
        session: SessionId,
        /// The message, all fragments together.
        text: &'a str,
    },
    /// The client sent a binary message that is not UTF-8. This input may be passed only after [`Output::Admit`].
    NotText {
        /// The sender's session.
        session: SessionId,
    },
    /// The client sent a message longer than the limit. The router sends an error and closes the session. This input
    /// may be passed only after [`Output::Admit`].
    TooLarge {
        /// The sender's session.
        session: SessionId,
    },
    /// The client answered a ping. This input may be passed at any time while the session is open.
    Pong {
        /// The sender's session.
        session: SessionId,
        /// The payload of the pong.
        payload: &'a [u8],
    },
    /// The socket of a session accepted bytes of an [`Output::Ping`], or bytes queued before the ping. This input may
    /// be passed only after [`Output::Ping`], until the last byte of the ping is written.
    AskedOn {
        /// The session.
        session: SessionId,
    },
    /// The queue of a session has room again. This input must be passed once for each [`Output::Backlog`] with `more`.
    Room {
        /// The session.
        session: SessionId,
    },
    /// The target's socket accepted the last byte of a signal's frame. For each [`Output::Send`] with an origin, the
    /// caller must pass this input or [`Self::Undelivered`] once.
    Delivered {
        /// The origin of the frame.
        origin: Origin,
        /// The target.
        target: PeerId,
    },
    /// A signal's frame cannot be delivered, because the target's session has ended, or because the sender's share of
    /// the target's queue is full.
    Undelivered {
        /// The origin of the frame.
        origin: Origin,
        /// The target.
        target: PeerId,
        /// Why the signal could not be delivered.
        reason: CloseReason,
    },
    /// The socket of a session has closed. This is the last input of a session. This input is not passed if an
    /// [`Output::Close`] has already ended the session.
    Closed {
        /// The session.
        session: SessionId,
        /// The reason.
        reason: CloseReason,
    },
    /// A letter from another shard or from the mesh. Letters from one sender arrive in the order in which they were
    /// posted.
    Letter(ToShard),
    /// The answer to [`Output::Unfinished`].
    Continue,
    /// The hub drains, and will close this session after `close_in`, which differs between sessions. This input is
    /// passed once for each drain, before [`Self::Retire`]. An operator can end a drain and begin another one.
    GoAway {
        /// The session.
        session: SessionId,
        /// Time until the hub closes the session.
        close_in: Duration,
        /// Time from the close until the client should reconnect to this hub, if the client knows no other hub.
        reconnect_in: Duration,
        /// PUBLIC_URLs of the other hubs.
        hubs: &'a [String],
    },
    /// The credentials of a session's TURN servers expire soon. This input is passed repeatedly after
    /// [`Output::Admit`], at the interval [`IceServers::renewal`](crate::IceServers::renewal).
    RenewIce {
        /// The session.
        session: SessionId,
    },
    /// The hub drains, and the time to close this session has come. The router closes the session.
    Retire {
        /// The session.
        session: SessionId,
    },
    /// An operator's order. The documentation of [`Order`] says which shards get the order, and when. [`Output::Acted`]
    /// is the answer.
    Order(Order),
}

/// Outputs of a router. The caller must perform them in order.
#[derive(Debug)]
pub enum Output {
    /// Append this frame to the send queue of a session.
    Send {
        /// The session.
        session: SessionId,
        /// The bytes.
        frame: Frame,
        /// The kind of the message, for metrics.
        kind: MessageKind,
        /// The origin of a signal, which the caller must return with [`Input::Delivered`] or [`Input::Undelivered`].
        /// `None` for other messages.
        origin: Option<Origin>,
        /// The sender of a signal, which may fill only its share of the queue. If the signal exceeds that share, the
        /// caller must pass [`Input::Undelivered`] with [`CloseReason::SlowConsumer`] and keep the session open.
        from: Option<PeerId>,
    },
    /// Send a ping ahead of the queued messages, with a payload that only this session can return. Until the last byte
    /// of the ping is written, pass [`Input::AskedOn`] whenever the socket accepts bytes. This ping replaces an earlier
    /// queued ping.
    Ping {
        /// The session.
        session: SessionId,
        /// The ping's payload.
        payload: [u8; 8],
    },
    /// Start to read the session's messages. Before this output, the router had not decided whether the session may use
    /// its id.
    Admit {
        /// The session.
        session: SessionId,
    },
    /// If `more`, pass [`Input::Room`] when the session's queue is short. The router answers each [`Input::Room`] with
    /// the next members of the roster and another `Backlog`.
    Backlog {
        /// The session.
        session: SessionId,
        /// Whether members of the roster remain to be sent.
        more: bool,
    },
    /// Send a close frame and close the connection. If
    /// [`routes_messages_in_flight`](CloseReason::routes_messages_in_flight) is true for the reason, continue to read
    /// until the client's own close frame, for at most [`CLOSE_LINGER`](crate::limits::CLOSE_LINGER). Then pass
    /// [`Input::Closed`]. If `routes_messages_in_flight` is false, the router has already removed the session.
    Close {
        /// The session.
        session: SessionId,
        /// The reason, which determines the code and the text of the close frame.
        reason: CloseReason,
    },
    /// Check this token, which a session sent to replace its present token, and pass [`Input::Authorized`]. The token
    /// must be valid for the session's peer, or for any peer.
    Authorize {
        /// The session.
        session: SessionId,
        /// The peer.
        peer: PeerId,
        /// The token, at most [`MAX_TOKEN_BYTES`](crate::limits::MAX_TOKEN_BYTES).
        token: Box<str>,
    },
    /// Post this letter to another shard. Letters to one shard must arrive in the order of the outputs, and none may be
    /// dropped.
    ToShard {
        /// The shard.
        to: ShardId,
        /// The letter.
        letter: ToShard,
    },
    /// Post this letter to the mesh. Letters to the mesh must arrive in the order of the outputs, and none may be
    /// dropped. Only a router with [`RouterConfig::meshed`](crate::RouterConfig::meshed) has this output.
    ToMesh(ToMesh),
    /// The result of an operator's order.
    Acted(Acted),
    /// The router has more work than it may do in one turn. Pass [`Input::Continue`] after all other ready tasks have
    /// had a turn, when few letters are queued for each receiver.
    Unfinished,
    /// An event for the log or for traces.
    Event(PeerEvent),
    /// A note for the log that a line of the code has found an impossible state for the first time. Only builds without
    /// debug assertions have this output.
    Bug(BugNote),
}

/// The bytes of a frame.
#[derive(Clone, Debug)]
pub enum Frame {
    /// A range of the router's arena, valid until the router's next input.
    Arena(Range<usize>),
    /// A complete frame that arrived with a letter.
    Owned(Box<[u8]>),
    /// A shared frame, which must be patched with the recipient's id and the time.
    Template(Arc<Template>),
}

/// A letter to a shard, from another shard of the hub or from the mesh.
#[derive(Clone, Debug)]
pub enum ToShard {
    /// Notifies a peer's home shard that the peer is connected to another hub. A later `Elsewhere` about a peer
    /// replaces an earlier one. If the shard has a session of the peer with a smaller claim, the shard closes this
    /// session.
    Elsewhere {
        /// The peer.
        peer: PeerId,
        /// The claim of the other hub.
        claim: Claim,
    },
    /// Notifies a peer's home shard that the peer is no longer connected to another hub.
    Nowhere {
        /// The peer.
        peer: PeerId,
        /// The claim that ended.
        claim: Claim,
    },
    /// The answer to [`ToMesh::AskTakeover`], for the shard that asked.
    TakeoverAnswered {
        /// The id.
        peer: PeerId,
        /// The ticket of the question.
        ticket: u64,
        /// Whether the id stays in use at the other hub. If not, the other hub has no session with this id any more.
        in_use: bool,
    },
    /// Asks a peer's home shard whether its session of this peer is alive, because another hub has a new session with
    /// this id.
    Challenge {
        /// The id.
        peer: PeerId,
        /// The hub that asks, which is returned with the answer.
        asker: Asker,
        /// The lineage that the resume secret of the new session proves.
        resume: Option<Lineage>,
        /// As in [`Input::Opened`].
        owner: bool,
    },
    /// This hub has taken a new id, which other hubs and clients see. Claims keep the first id.
    Renamed {
        /// The new id.
        hub: HubId,
    },
    /// A peer announced itself in a network, for the first time or again.
    Joined(Arc<Announcement>),
    /// A peer left a network.
    Left(Arc<Leave>),
    /// A meeting of peers under bounded discovery. This shard is the home of some of the peers.
    Meeting(Arc<Meeting>),
    /// A signal, for the target's home shard.
    Signal(SignalLetter),
    /// The outcome of a signal, for the sender's shard.
    Outcome(OutcomeLetter),
}

/// A letter to the mesh, from a shard.
#[derive(Clone, Debug)]
pub enum ToMesh {
    /// A peer's session began.
    Opened {
        /// The peer.
        peer: PeerId,
        /// The claim of the session.
        claim: Claim,
    },
    /// A peer's session ended, and all memberships of the session ended with it.
    Closed {
        /// The peer.
        peer: PeerId,
        /// The claim that ended.
        claim: Claim,
        /// The reason.
        reason: CloseReason,
    },
    /// Asks the hub that has a session with this id whether a new session of this hub may use the id.
    AskTakeover {
        /// The id.
        peer: PeerId,
        /// The shard that asks.
        shard: ShardId,
        /// Identifies the question.
        ticket: u64,
        /// The lineage that the new session's resume secret proves.
        resume: Option<Lineage>,
        /// As in [`Input::Opened`].
        owner: bool,
    },
    /// The result of a challenge.
    ChallengeAnswered {
        /// The id.
        peer: PeerId,
        /// The asker of the challenge.
        asker: Asker,
        /// Whether the id stays in use at this hub.
        in_use: bool,
    },
    /// A peer of this hub announced itself in a network, for the first time or again.
    Joined(Arc<Announcement>),
    /// A peer of this hub left a network before its session ended.
    Left(Arc<Leave>),
    /// A meeting of peers under bounded discovery. Some of the peers are connected to another hub.
    Meeting {
        /// The hub.
        hub: HubId,
        /// The meeting.
        meeting: Arc<Meeting>,
    },
    /// A signal for a peer of another hub.
    Signal(SignalLetter),
    /// The outcome of another hub's signal.
    Outcome(OutcomeLetter),
}

/// A signal on its way to the shard of its target, or to the mesh.
#[derive(Clone, Debug)]
pub struct SignalLetter {
    /// The place to which the outcome of the signal is reported.
    pub origin: Origin,
    /// The sender.
    pub from: PeerId,
    /// The target.
    pub target: PeerId,
    /// The complete frame for the target's socket.
    pub frame: Box<[u8]>,
}

/// The outcome of a signal, on its way to the shard of the signal's sender, or to the mesh.
#[derive(Clone, Debug)]
pub struct OutcomeLetter {
    /// The origin of the signal.
    pub origin: Origin,
    /// The target.
    pub target: PeerId,
    /// The outcome.
    pub outcome: Outcome,
}

// Comments in `proto/src/limits` calculate with 136 bytes per letter.
const _: () = assert!(size_of::<ToShard>() <= 136 && size_of::<ToMesh>() <= 136);

/// A letter to a shard or to the mesh.
pub trait Letter {
    /// Bytes that only this letter owns, in addition to the size of its type. Shared data is not counted.
    fn owned_bytes(&self) -> usize;
}

impl Letter for ToShard {
    fn owned_bytes(&self) -> usize {
        match self {
            Self::Signal(signal) => signal.frame.len(),
            Self::Meeting(meeting) => meeting.owned_bytes(),
            Self::Elsewhere { .. }
            | Self::Nowhere { .. }
            | Self::TakeoverAnswered { .. }
            | Self::Challenge { .. }
            | Self::Renamed { .. }
            | Self::Joined(_)
            | Self::Left(_)
            | Self::Outcome(_) => 0,
        }
    }
}

impl Letter for ToMesh {
    fn owned_bytes(&self) -> usize {
        match self {
            Self::Signal(signal) => signal.frame.len(),
            Self::Meeting { meeting, .. } => meeting.owned_bytes(),
            Self::Opened { .. }
            | Self::Closed { .. }
            | Self::AskTakeover { .. }
            | Self::ChallengeAnswered { .. }
            | Self::Joined(_)
            | Self::Left(_)
            | Self::Outcome(_) => 0,
        }
    }
}

/// The hub that waits for the answer to a [`ToShard::Challenge`]. The relay creates this value, and receives it back
/// unchanged with the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asker {
    /// The hub.
    pub hub: HubId,
    /// The incarnation of the asking hub. The answer is not sent to a later incarnation.
    pub incarnation: HubIncarnation,
    /// The number that the asking hub has given to its question.
    pub ticket: u64,
}

/// The place to which a signal's outcome is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    /// A session of this hub.
    Session {
        /// The sender's shard.
        shard: ShardId,
        /// The sender's session.
        session: SessionId,
        /// The number of the outstanding receipt at the sender's shard. `None` if no receipt was requested.
        ticket: Option<NonZeroU64>,
        /// Whether the signal was posted to the target's home shard because the sender's shard did not know where the
        /// target is. Only a signal with a detour may be forwarded from the target's home shard to the mesh.
        detour: bool,
    },
    /// Another hub, through the mesh.
    Hub {
        /// The number that the mesh has given to the incarnation of the sender's hub.
        hub: u32,
        /// The counter of the signal between the two hubs.
        counter: u64,
        /// Whether the sender waits for a receipt.
        receipt: bool,
    },
}

/// The sender's standing in the signal's network when its hub read the signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// The sender was a member, in the stay with this number ([`Stay::number`]). Members receive the signal only after
    /// they have discovered the sender in this stay, and before the sender's leave.
    Member(u64),
    /// The sender was in no network. A sender in no network counts as a member of `global`, but no peer discovers it or
    /// receives its leave.
    Outsider,
    /// The standing is unknown. For example, a hub of version 2.0.0 does not send the standing.
    Unknown,
}

impl Standing {
    /// Whether a signal may be delivered to members on this shard. `known` is the stay in which these members know the
    /// sender. `None` if these members do not know the sender.
    pub(crate) fn fits(self, known: Option<u64>, network: &NetworkName) -> bool {
        match self {
            Self::Member(stay) => known == Some(stay),
            Self::Outsider => true,
            // In a network other than `global`, every sender is a member.
            Self::Unknown => known.is_some() || network.as_str() == NetworkName::GLOBAL,
        }
    }
}

/// The origin of a signal, which accompanies the signal and its outcome.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The place to which the outcome is reported.
    pub sender: Sender,
    /// The kind of signal.
    pub kind: SignalKind,
    /// The network of the signal.
    pub network: NetworkName,
    /// The sender's standing in that network.
    pub standing: Standing,
    /// Time at which this hub read the signal.
    pub read_at: Duration,
}

/// The announcement of a peer in a network. All rosters of a hub share this value.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// The peer.
    pub peer: PeerId,
    /// The network.
    pub network: NetworkName,
    /// The claim of the peer's session.
    pub claim: Claim,
    /// Whether the peer is connected to another hub.
    pub remote: bool,
    /// The stay to which the announcement belongs.
    pub stay: Stay,
    /// The `peer-discovered` message for members.
    pub discovered: Arc<Template>,
}

/// A peer's time in a network, from join to leave, over all its announcements.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stay {
    /// A number that distinguishes the stays of a peer in a network. On one shard, a later stay has a greater number.
    /// The number is the wall clock in milliseconds at the join, or one more than the last number that the peer's home
    /// shard has used, whichever is greater.
    pub number: u64,
    /// Which members the peer discovers, and which members discover the peer.
    pub discovery: Discovery,
}

/// A statement about pairs of peers under bounded discovery. Each pair is the peer `about` and one of `others`. If the
/// meeting is not declined, the receiving shard announces the other peer of each pair to its own peer, unless it has
/// already done so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meeting {
    /// The network.
    pub network: NetworkName,
    /// The peer.
    pub about: PeerId,
    /// The number of the stay of `about`. The meeting has no effect on other stays.
    pub stay: u64,
    /// The other peers, with the numbers of their stays.
    pub others: Vec<(PeerId, u64)>,
    /// Which peers of the meeting are connected to the receiver.
    pub to: MeetingEnd,
    /// The kind of statement.
    pub kind: MeetingKind,
}

impl Meeting {
    fn owned_bytes(&self) -> usize {
        size_of_val(self.others.as_slice())
    }
}

/// The peers of a [`Meeting`] that are connected to the receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MeetingEnd {
    /// The peer [`Meeting::about`].
    About,
    /// Some or all of [`Meeting::others`].
    Others,
}

/// The kind of a [`Meeting`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MeetingKind {
    /// The peers know each other from now on. Another hub that receives this statement must answer it.
    Met,
    /// Like [`Self::Met`], for a peer that has just joined. `others` are all picks of the peer on other shards of its
    /// hub. Used only between shards of one hub.
    Joined,
    /// Confirms a meeting, or repeats a confirmation. It has no answer except [`Self::Declined`].
    Agreed,
    /// Declines a meeting, because the sender's peer already knows its maximum number of other peers.
    Declined,
}

/// A peer's leave from a network.
#[derive(Debug)]
pub struct Leave {
    /// The peer.
    pub peer: PeerId,
    /// The network.
    pub network: NetworkName,
    /// The claim of the membership that ends. A membership of the peer with another claim does not end.
    pub claim: Claim,
    /// The message for members.
    pub frame: Arc<Template>,
    /// The kind of the message, which is `goodbye` or `peer-disconnected`.
    pub kind: MessageKind,
}

/// An event about peers, for the log or for traces.
#[derive(Clone, Debug)]
pub enum PeerEvent {
    /// A peer announced itself.
    Announced {
        /// The peer's session.
        session: SessionId,
        /// The peer.
        peer: PeerId,
        /// The network.
        network: NetworkName,
        /// Number of members, including the peer.
        members: usize,
        /// Whether the peer receives the network's roster. After the last part of the roster, the router puts out an
        /// [`Output::Backlog`] whose `more` is false.
        reads: bool,
    },
    /// A new connection has an id that is in use. The connection waits until the session with that id has answered a
    /// ping or the time for its answer is over.
    TakeoverAsked {
        /// The id.
        peer: PeerId,
    },
}
