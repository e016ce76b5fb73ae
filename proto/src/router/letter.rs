//! What travels between a router, its sockets and the other shards.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::bugs::BugNote;
use crate::id::{Address, Claim, HubId, HubIncarnation, NetworkName, PeerId, SessionId, ShardId};
use crate::reason::{CloseReason, Outcome};
use crate::resume::Lineage;
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
        /// What the resume secret proves that the client showed, if it showed a valid one.
        resume: Option<Lineage>,
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
    /// The socket of a session took bytes while an [`Output::Ping`] waited behind them, or took that ping.
    AskedOn {
        /// Whose.
        session: SessionId,
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
        /// For a signal: who sent it, since one sender may fill a part of the queue only. A signal beyond it is undelivered because of
        /// [`CloseReason::SlowConsumer`], and nothing is closed.
        from: Option<PeerId>,
    },
    /// Send a ping that only this session can answer, ahead of the messages that wait. Until its last byte is out,
    /// [`Input::AskedOn`] says whenever the socket takes bytes. It takes the place of an earlier one that waits.
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
    /// While `more`, give [`Input::Room`] whenever the session's queue is short. Each is answered with another of these,
    /// and perhaps with nothing else: what was next on the roster may be known to the session already.
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
    /// For the log: an impossible state was found, for the first time at its site. Only in builds without debug assertions.
    Bug(BugNote),
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

/// What one shard tells another, or the mesh, or the mesh a shard.
#[derive(Clone, Debug)]
pub enum Letter {
    /// To the mesh: a session began to speak for its peer.
    Opened {
        /// Who.
        peer: PeerId,
        /// By which claim.
        claim: Claim,
    },
    /// To the mesh: that session ended, and with it all its memberships.
    Closed {
        /// Who.
        peer: PeerId,
        /// By which claim.
        claim: Claim,
        /// Why.
        reason: CloseReason,
    },
    /// To a peer's home: it is at another hub. A later one takes the place of an earlier one, and a session here that has the
    /// lesser claim is void.
    Elsewhere {
        /// Who.
        peer: PeerId,
        /// By which claim.
        claim: Claim,
    },
    /// To a peer's home: it is no longer at another hub.
    Nowhere {
        /// Who.
        peer: PeerId,
        /// By which claim it was there.
        claim: Claim,
    },
    /// To the mesh: may a session here use this id, which is at another hub?
    AskTakeover {
        /// Which.
        peer: PeerId,
        /// Where the answer goes.
        shard: ShardId,
        /// Names the question.
        ticket: u64,
        /// What the newcomer's resume secret proves.
        resume: Option<Lineage>,
    },
    /// To the shard that asked: it may, or the other session answers.
    TakeoverAnswered {
        /// Which.
        peer: PeerId,
        /// As it came with the question.
        ticket: u64,
        /// The other session answers.
        in_use: bool,
    },
    /// To a peer's home: another hub has a session with this id. Does the one here still answer?
    Challenge {
        /// Which.
        peer: PeerId,
        /// Goes back with the answer.
        asker: Asker,
        /// What the resume secret of that session proves.
        resume: Option<Lineage>,
    },
    /// To the mesh: it does, or it is gone.
    ChallengeAnswered {
        /// Which.
        peer: PeerId,
        /// As it came with the challenge.
        asker: Asker,
        /// The session here answers.
        in_use: bool,
    },
    /// To a shard: others know this hub by another id from now on, and so do those who connect. Claims keep the first one.
    Renamed {
        /// The new id.
        hub: HubId,
    },
    /// A peer has announced itself, for the first time or again.
    Joined(Arc<Announcement>),
    /// A peer has left a network.
    Left(Arc<Farewell>),
    /// To a shard: peers know each other, and some of them have their home there.
    Meeting(Arc<Meeting>),
    /// To the mesh: the same, for a hub.
    MeetingAt {
        /// Which.
        hub: HubId,
        /// What.
        meeting: Arc<Meeting>,
    },
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

/// A hub that waits for the answer to a [`Letter::Challenge`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asker {
    /// Which.
    pub hub: HubId,
    /// In which life.
    pub incarnation: HubIncarnation,
    /// Names its question.
    pub ticket: u64,
}

/// Where an outcome is to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    /// A session of this hub.
    Session {
        /// The sender's shard.
        shard: ShardId,
        /// The sender's session.
        session: SessionId,
        /// Names an outstanding receipt at the sender's shard; 0: none was asked for.
        ticket: u64,
        /// The sender's shard knew the target neither as its own nor as a member. Only then does the target's home forward the signal to
        /// the mesh.
        detour: bool,
    },
    /// Another hub, by way of the mesh.
    Hub {
        /// The mesh's number for that hub.
        hub: u32,
        /// The signal's number between the two hubs.
        counter: u64,
        /// Whether somebody waits for a receipt.
        receipt: bool,
    },
}

/// What a signal's sender was in the signal's network when its hub read the signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// A member, in the stay with this number ([`Stay::number`]). Members receive the signal during this stay only: after the
    /// sender's discovery and before its leave.
    Member(u64),
    /// In no network at all, which counts as being in `global`. Nobody discovers such a sender, and nobody sees it leave.
    Outsider,
    /// The sender's hub did not say: it runs version 2.0.0.
    Unknown,
}

impl Standing {
    /// Whether the signal may go to those who know the sender in this stay, or do not know it (`None`).
    pub(crate) fn fits(self, known: Option<u64>, network: &NetworkName) -> bool {
        match self {
            Self::Member(stay) => known == Some(stay),
            Self::Outsider => true,
            // Outside `global` every sender is a member.
            Self::Unknown => known.is_some() || network.as_str() == NetworkName::GLOBAL,
        }
    }
}

/// Where a signal came from: goes with it, and back with its outcome.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Whom the outcome is for.
    pub sender: Sender,
    /// What kind of signal.
    pub kind: SignalKind,
    /// The network it was sent in.
    pub network: NetworkName,
    /// What its sender was there.
    pub standing: Standing,
    /// When this hub read it.
    pub read_at: Duration,
}

/// What a peer says of itself in a network. Shared by all rosters of a hub.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// Who.
    pub peer: PeerId,
    /// Where.
    pub network: NetworkName,
    /// By which claim.
    pub claim: Claim,
    /// Whether it is out of this hub's own hands: at another hub.
    pub remote: bool,
    /// How, and since when.
    pub stay: Stay,
    /// How others are told.
    pub discovered: Arc<Template>,
}

/// A peer's time in a network, from joining to leaving, over all its announcements.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stay {
    /// Tells it from other stays of the peer there: a later one has a greater number.
    pub number: u64,
    /// How many of the closest members it wants to know, and to be known to; 0: all.
    pub closest: u8,
}

/// Word that one peer and some others know each other, in a network where not everybody does. Whoever has it tells its own of
/// them, unless they have been told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meeting {
    /// Where.
    pub network: NetworkName,
    /// The one.
    pub about: PeerId,
    /// The number of its stay: of another stay this says nothing.
    pub stay: u64,
    /// The others, with the numbers of theirs.
    pub others: Vec<(PeerId, u64)>,
    /// Whose home the addressee is.
    pub to: MeetingEnd,
    /// In which sense.
    pub word: Word,
}

/// The peers of a [`Meeting`] whose home the addressee is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MeetingEnd {
    /// The one.
    About,
    /// The others, or some of them.
    Others,
}

/// What a [`Meeting`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// They know each other from here on; between hubs it is to be answered.
    Met,
    /// As [`Self::Met`], of one that has just joined: these are all of this hub that it has picked. Inside a hub only.
    Joined,
    /// They do. Not to be answered.
    Agreed,
    /// The addressee's cannot know any more peers.
    Declined,
}

/// How a peer left a network.
#[derive(Debug)]
pub struct Farewell {
    /// Who.
    pub peer: PeerId,
    /// Where.
    pub network: NetworkName,
    /// The claim that ends; another one stays.
    pub claim: Claim,
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
