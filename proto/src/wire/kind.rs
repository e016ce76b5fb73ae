//! The kinds of message.

/// The kinds of signal. A signal is a message from one peer to another. The hub relays a signal without reading the
/// signal's data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SignalKind {
    /// The signal `offer`, the first description of a connection.
    Offer,
    /// The signal `answer`, the reply to an `offer`.
    Answer,
    /// The signal `ice-candidate`, an address at which a peer may be reached.
    IceCandidate,
    /// The signal `renegotiation-offer`, a new description of an open connection.
    RenegotiationOffer,
    /// The signal `renegotiation-answer`, the reply to a `renegotiation-offer`.
    RenegotiationAnswer,
    /// The signal `ice-restart-offer`, a description with new credentials for ICE.
    IceRestartOffer,
    /// The signal `ice-restart-answer`, the reply to an `ice-restart-offer`.
    IceRestartAnswer,
    /// The signal `signal`, for any other data that an application sends to one peer through the hub.
    Signal,
}

impl SignalKind {
    /// Every kind, in the order of its discriminant.
    pub const ALL: [Self; 8] = [
        Self::Offer,
        Self::Answer,
        Self::IceCandidate,
        Self::RenegotiationOffer,
        Self::RenegotiationAnswer,
        Self::IceRestartOffer,
        Self::IceRestartAnswer,
        // Envelopes contain the discriminants, so new kinds are added at the end.
        Self::Signal,
    ];

    /// The `type` on the wire.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Answer => "answer",
            Self::IceCandidate => "ice-candidate",
            Self::RenegotiationOffer => "renegotiation-offer",
            Self::RenegotiationAnswer => "renegotiation-answer",
            Self::IceRestartOffer => "ice-restart-offer",
            Self::IceRestartAnswer => "ice-restart-answer",
            Self::Signal => "signal",
        }
    }

    /// The kind under which this signal is sent to hubs of version 2.0.0. A hub of version 2.0.0 closes a link on which
    /// an unknown kind arrives. The receiving hub uses the kind only for its counters, so a wrong kind has no other
    /// effect.
    pub(crate) const fn as_of_2_0_0(self) -> Self {
        if matches!(self, Self::Signal) { Self::IceCandidate } else { self }
    }
}

/// The kinds of message, as metrics count them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MessageKind {
    /// A peer joins a network, or changes its data there.
    Announce,
    /// A peer sends a signal of one of the eight kinds.
    Signal(SignalKind),
    /// A peer's application sends a ping.
    Ping,
    /// A peer asks for more members of a network.
    Discover,
    /// A peer leaves a network or is removed from it, and stays connected.
    Goodbye,
    /// A peer sends a message of a type that the hub drops on purpose, such as `cleanup`.
    Ignored,
    /// A peer sends a message of an unknown type.
    UnknownType,
    /// A peer sends text or bytes that are not a message of the protocol.
    Invalid,
    /// The first message that the hub sends to a peer.
    Connected,
    /// The hub notifies a peer that a member of its network is connected.
    PeerDiscovered,
    /// The hub notifies a peer that a member has left, in most cases because the member's session has ended.
    PeerDisconnected,
    /// The hub answers `discover`, with the number of new members.
    Discovered,
    /// The hub answers `announce` after the peer has discovered the members.
    Announced,
    /// The hub answers a ping of a peer's application.
    Pong,
    /// The hub reports to a peer why its message failed.
    Error,
    /// The hub reports to a peer the outcome of its signal.
    Receipt,
    /// The hub notifies a peer that the hub is about to stop.
    GoAway,
    /// The hub sends a peer new credentials for TURN.
    IceServers,
    /// A peer sends a new token for its session.
    Auth,
    /// The hub notifies a peer that its token expires soon.
    TokenExpires,
    /// The hub notifies a peer that its new token was accepted.
    Authorized,
}

impl MessageKind {
    /// Number of kinds, which is the length of an array indexed by [`Self::index`].
    pub const COUNT: usize = 28;

    /// Every kind, in the order of [`Self::index`].
    pub const ALL: [Self; Self::COUNT] = [
        Self::Announce,
        Self::Signal(SignalKind::Offer),
        Self::Signal(SignalKind::Answer),
        Self::Signal(SignalKind::IceCandidate),
        Self::Signal(SignalKind::RenegotiationOffer),
        Self::Signal(SignalKind::RenegotiationAnswer),
        Self::Signal(SignalKind::IceRestartOffer),
        Self::Signal(SignalKind::IceRestartAnswer),
        Self::Signal(SignalKind::Signal),
        Self::Ping,
        Self::Goodbye,
        Self::Ignored,
        Self::UnknownType,
        Self::Invalid,
        Self::Connected,
        Self::PeerDiscovered,
        Self::PeerDisconnected,
        Self::Pong,
        Self::Error,
        Self::Receipt,
        Self::GoAway,
        Self::Discover,
        Self::Discovered,
        Self::Announced,
        Self::IceServers,
        Self::Auth,
        Self::TokenExpires,
        Self::Authorized,
    ];

    /// The index of this kind, from 0 without gaps.
    pub const fn index(self) -> usize {
        match self {
            Self::Announce => 0,
            Self::Signal(kind) => 1 + kind as usize,
            Self::Ping => 9,
            Self::Goodbye => 10,
            Self::Ignored => 11,
            Self::UnknownType => 12,
            Self::Invalid => 13,
            Self::Connected => 14,
            Self::PeerDiscovered => 15,
            Self::PeerDisconnected => 16,
            Self::Pong => 17,
            Self::Error => 18,
            Self::Receipt => 19,
            Self::GoAway => 20,
            Self::Discover => 21,
            Self::Discovered => 22,
            Self::Announced => 23,
            Self::IceServers => 24,
            Self::Auth => 25,
            Self::TokenExpires => 26,
            Self::Authorized => 27,
        }
    }

    /// The name in metrics. For kinds that appear on the wire, it is also the `type` of the message.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Announce => "announce",
            Self::Signal(kind) => kind.label(),
            Self::Ping => "ping",
            Self::Discover => "discover",
            Self::Discovered => "discovered",
            Self::Announced => "announced",
            Self::Goodbye => "goodbye",
            Self::Ignored => "ignored",
            Self::UnknownType => "unknown-type",
            Self::Invalid => "invalid",
            Self::Connected => "connected",
            Self::PeerDiscovered => "peer-discovered",
            Self::PeerDisconnected => "peer-disconnected",
            Self::Pong => "pong",
            Self::Error => "error",
            Self::Receipt => "receipt",
            Self::GoAway => "go-away",
            Self::IceServers => "ice-servers",
            Self::Auth => "auth",
            Self::TokenExpires => "token-expires",
            Self::Authorized => "authorized",
        }
    }
}
