//! The kinds of message.

/// The kinds of signal: messages from one peer to another. The hub relays them without reading their data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SignalKind {
    /// `offer`: the first description of a connection.
    Offer,
    /// `answer`: the reply to an offer.
    Answer,
    /// `ice-candidate`: an address at which a peer may be reached.
    IceCandidate,
    /// `renegotiation-offer`: a new description of an open connection.
    RenegotiationOffer,
    /// `renegotiation-answer`: the reply to a `renegotiation-offer`.
    RenegotiationAnswer,
    /// `ice-restart-offer`: a description with new credentials for ICE.
    IceRestartOffer,
    /// `ice-restart-answer`: the reply to an `ice-restart-offer`.
    IceRestartAnswer,
    /// `signal`: anything else that an application sends to one peer through the hub.
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

    /// The kind under which this signal is sent to hubs of version 2.0.0. Such a hub closes a link on which an unknown
    /// kind arrives. The receiving hub uses the kind only for its counters, so a wrong kind has no other effect.
    pub(crate) const fn as_of_2_0_0(self) -> Self {
        if matches!(self, Self::Signal) { Self::IceCandidate } else { self }
    }
}

/// The kinds of message, as metrics count them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MessageKind {
    /// From a peer: it joins a network, or changes its data there.
    Announce,
    /// From a peer: a signal of one of the eight kinds.
    Signal(SignalKind),
    /// From a peer: the application's ping.
    Ping,
    /// From a peer: a request to discover more members.
    Discover,
    /// From a peer: it leaves a network on purpose.
    Goodbye,
    /// From a peer: a type that is dropped on purpose, such as `cleanup`.
    Ignored,
    /// From a peer: an unknown type.
    UnknownType,
    /// From a peer: text or bytes that are not a message of the protocol.
    Invalid,
    /// To a peer: the first message.
    Connected,
    /// To a peer: a member of its network is connected.
    PeerDiscovered,
    /// To a peer: the session of a member has ended.
    PeerDisconnected,
    /// To a peer: the answer to `discover`, with the number of new members.
    Discovered,
    /// To a peer: it has discovered all members that were in the network when the peer announced itself.
    Announced,
    /// To a peer: the answer to its ping.
    Pong,
    /// To a peer: the reason why its message failed.
    Error,
    /// To a peer: the outcome of its signal.
    Receipt,
    /// To a peer: this hub is about to stop.
    GoAway,
    /// To a peer: new credentials for TURN.
    IceServers,
    /// From a peer: a new token for its session.
    Auth,
    /// To a peer: its token expires soon.
    TokenExpires,
    /// To a peer: its new token was accepted.
    Authorized,
}

impl MessageKind {
    /// Number of kinds: the length of an array indexed by [`Self::index`].
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
