//! What travels between a router, its sockets and the other shards.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{Address, NetworkName, PeerId, SessionId, ShardId};
use crate::reason::{CloseReason, Outcome};
use crate::wire::{MessageKind, SignalKind, Template};

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A WebSocket of `peer` was opened on its home shard, under a session id that is not in use.
    Opened {
        /// The new session.
        session: SessionId,
        /// Whose it is.
        peer: PeerId,
        /// Whether the hub has room for one more. Without, only an id that is here already is let in, in its own place.
        seat: bool,
    },
    /// The client sent a message.
    Message {
        /// Who.
        session: SessionId,
        /// The message, all fragments together.
        text: &'a str,
    },
    /// The client sent a binary message that is not UTF-8.
    NotText {
        /// Who.
        session: SessionId,
    },
    /// The client sent more than a message may have. It is answered and closed.
    TooLarge {
        /// Who.
        session: SessionId,
    },
    /// The client answered a ping.
    Pong {
        /// Who.
        session: SessionId,
        /// The ping's payload, as it came back.
        payload: &'a [u8],
    },
    /// The queue of a session that has a backlog (see [`Output::Backlog`]) has room again.
    Room {
        /// Whose.
        session: SessionId,
    },
    /// The last byte of a signal's frame was accepted by the target's socket.
    Delivered {
        /// As it came with the frame.
        origin: Origin,
        /// To whom.
        target: PeerId,
    },
    /// A signal's frame can no longer be delivered, because its target's session ended.
    Undelivered {
        /// As it came with the frame.
        origin: Origin,
        /// To whom.
        target: PeerId,
        /// Why the target's session ended.
        reason: CloseReason,
    },
    /// The session has ended. One that the router does not know (any more) is ignored.
    Closed {
        /// Which.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// Post from another shard or from the mesh.
    Letter(Letter),
    /// The hub is going away; this session is closed at its turn.
    GoAway {
        /// Which.
        session: SessionId,
        /// When the client should come back.
        reconnect_in: Duration,
        /// Where the client finds the other hubs.
        hubs: &'a [String],
    },
    /// It is this session's turn to go.
    Retire {
        /// Which.
        session: SessionId,
    },
}

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Queue this frame for the session's socket.
    Send {
        /// Whose socket.
        session: SessionId,
        /// The bytes.
        frame: Frame,
        /// What the frame says.
        kind: MessageKind,
        /// For a signal: to be given back with [`Input::Delivered`] or [`Input::Undelivered`].
        origin: Option<Origin>,
    },
    /// Send a ping that only this session can answer.
    Ping {
        /// Whose socket.
        session: SessionId,
        /// The ping's payload.
        payload: [u8; 8],
    },
    /// Start to read the session's messages: until here it was not certain that its peer may use its id.
    Admit {
        /// Whose.
        session: SessionId,
    },
    /// While `more`, give [`Input::Room`] whenever the session's queue is short.
    Backlog {
        /// Whose.
        session: SessionId,
        /// Whether there is more to say than was said.
        more: bool,
    },
    /// Say why and close. For a reason that
    /// [`routes_what_is_in_flight`](CloseReason::routes_what_is_in_flight) go on reading until
    /// the client's own close frame or [`CLOSE_LINGER`](crate::limits::CLOSE_LINGER), then give [`Input::Closed`];
    /// for any other the router has forgotten the session already.
    Close {
        /// Which.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// Post this. Letters to one address arrive in the order in which they are put out; none is dropped.
    Letter {
        /// To whom.
        to: Address,
        /// What.
        letter: Letter,
    },
    /// For the log.
    Event(Event),
}

/// The bytes of an output.
#[derive(Clone, Debug)]
pub enum Frame {
    /// In the router's arena, until its next input.
    Arena(Range<usize>),
    /// A whole frame that came with a letter.
    Owned(Box<[u8]>),
    /// One for many: to be patched with the recipient's id and the time.
    Template(Arc<Template>),
}

/// What one shard tells another.
#[derive(Clone, Debug)]
pub enum Letter {
    /// A peer has announced itself, for the first time or again.
    Joined(Arc<Announcement>),
    /// A peer has left a network.
    Left(Arc<Farewell>),
    /// A signal for a peer whose home is the addressee.
    Signal {
        /// Where the outcome is to be told.
        origin: Origin,
        /// Who sent it.
        from: PeerId,
        /// For whom.
        target: PeerId,
        /// The frame, ready for the target's socket.
        frame: Box<[u8]>,
    },
    /// What became of a signal that the addressee had sent.
    Outcome {
        /// As it came with the signal.
        origin: Origin,
        /// For whom it was.
        target: PeerId,
        /// What became of it.
        outcome: Outcome,
    },
}

/// Where a signal came from: goes with it, and back with its outcome.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The sender's shard.
    pub shard: ShardId,
    /// The sender's session.
    pub session: SessionId,
    /// Names an outstanding receipt at the sender's shard; 0: none was asked for.
    pub ticket: u64,
    /// What kind of signal.
    pub kind: SignalKind,
    /// The network it was sent in.
    pub network: NetworkName,
    /// When it was read.
    pub read_at: Duration,
}

/// What a peer says of itself in a network. Shared by all rosters of a hub.
#[derive(Debug)]
pub struct Announcement {
    /// Who.
    pub peer: PeerId,
    /// Where.
    pub network: NetworkName,
    /// How others are told.
    pub discovered: Arc<Template>,
}

/// How a peer left a network.
#[derive(Debug)]
pub struct Farewell {
    /// Who.
    pub peer: PeerId,
    /// Where.
    pub network: NetworkName,
    /// How others are told.
    pub frame: Arc<Template>,
    /// `goodbye` or `peer-disconnected`.
    pub kind: MessageKind,
}

/// What a log has about peers.
#[derive(Clone, Debug)]
pub enum Event {
    /// A peer announced itself.
    Announced {
        /// Who.
        peer: PeerId,
        /// Where.
        network: NetworkName,
        /// How many the network has, the peer included.
        members: usize,
    },
    /// A second connection with an id that is here already waits for the first to answer.
    TakeoverAsked {
        /// Whose id.
        peer: PeerId,
    },
}
