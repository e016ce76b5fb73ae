//! The named ends: why a session was closed, what became of a signal.

/// Why a session ended. It is at once the close frame, the log field and the metric label.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CloseReason {
    /// The client sent a close frame.
    ClientClosed,
    /// The TCP connection ended without a close frame.
    ConnectionLost,
    /// Nothing was heard for two pings and ten seconds, or for the peer timeout; or its socket took nothing for that time of
    /// what waited for it.
    DeadPeer,
    /// The hub is going away.
    Draining,
    /// The session's own code failed.
    Internal,
    /// The id is in use by a session that answers.
    IdInUse,
    /// The hub is full.
    MaxConnections,
    /// A message is longer than the hub takes.
    MessageTooLarge,
    /// A text message is not UTF-8.
    NotUtf8,
    /// The client broke RFC 6455.
    ProtocolError,
    /// More messages than the limit, for ten seconds without a pause.
    RateLimited,
    /// A newer connection with the same id took its place.
    Replaced,
    /// The client read more slowly than messages came for it.
    SlowConsumer,
    /// The hub has no room to admit this session just now.
    TryAgainLater,
}

impl CloseReason {
    /// Every reason, in the order of its discriminant.
    pub const ALL: [Self; 14] = [
        Self::ClientClosed,
        Self::ConnectionLost,
        Self::DeadPeer,
        Self::Draining,
        Self::Internal,
        Self::IdInUse,
        Self::MaxConnections,
        Self::MessageTooLarge,
        Self::NotUtf8,
        Self::ProtocolError,
        Self::RateLimited,
        Self::Replaced,
        Self::SlowConsumer,
        Self::TryAgainLater,
    ];

    /// The name in logs, metrics and `peer-disconnected`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ClientClosed => "client-closed",
            Self::ConnectionLost => "connection-lost",
            Self::DeadPeer => "dead-peer",
            Self::Draining => "draining",
            Self::Internal => "internal",
            Self::IdInUse => "id-in-use",
            Self::MaxConnections => "max-connections",
            Self::MessageTooLarge => "message-too-large",
            Self::NotUtf8 => "not-utf8",
            Self::ProtocolError => "protocol-error",
            Self::RateLimited => "rate-limited",
            Self::Replaced => "replaced",
            Self::SlowConsumer => "slow-consumer",
            Self::TryAgainLater => "try-again-later",
        }
    }

    /// Code and text of the close frame the hub sends (RFC 6455 section 7.4; 4000 and up are ours).
    ///
    /// `None` where nobody is left to read one.
    pub const fn close_frame(self) -> Option<(u16, &'static str)> {
        Some(match self {
            Self::ClientClosed => (1000, ""),
            Self::ConnectionLost => return None,
            Self::DeadPeer => (4008, "dead peer"),
            Self::Draining => (1012, "restarting"),
            Self::Internal => (1011, "internal error"),
            Self::IdInUse => (4009, "peer id in use"),
            Self::MaxConnections => (1008, "max connections"),
            Self::MessageTooLarge => (1009, "message too large"),
            Self::NotUtf8 => (1007, "not UTF-8"),
            Self::ProtocolError => (1002, "protocol error"),
            Self::RateLimited => (1008, "rate limit"),
            Self::Replaced => (4001, "replaced"),
            Self::SlowConsumer => (4003, "slow consumer"),
            Self::TryAgainLater => (1013, "try again later"),
        })
    }

    /// Whether the close frame goes ahead of the messages that wait, which are dropped: their socket takes them too slowly, or
    /// nobody reads them any more.
    pub const fn passes_what_waits(self) -> bool {
        matches!(self, Self::DeadPeer | Self::Replaced | Self::SlowConsumer)
    }

    /// Whether messages that the client sent before it learned of the end are still routed.
    pub const fn routes_what_is_in_flight(self) -> bool {
        matches!(self, Self::Draining)
    }
}

/// Why a peer is no longer in its networks, as the others hear it in `peer-disconnected`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LeaveReason {
    /// Its session ended.
    Closed(CloseReason),
    /// Its hub has not been heard of for the time of a lease.
    HubLost,
    /// It is at another hub, where it is discovered anew.
    Moved,
    /// It is still there, and knows as many others as it may: its hub took back what this one had said.
    Crowded,
}

impl LeaveReason {
    const CROWDED: u8 = 253;
    const HUB_LOST: u8 = 254;
    const MOVED: u8 = 255;

    /// The name in `peer-disconnected`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed(reason) => reason.label(),
            Self::HubLost => "hub-lost",
            Self::Moved => "moved",
            Self::Crowded => "crowded",
        }
    }

    /// Its number between hubs.
    pub(crate) const fn index(self) -> u8 {
        match self {
            Self::Closed(reason) => reason as u8,
            Self::HubLost => Self::HUB_LOST,
            Self::Moved => Self::MOVED,
            Self::Crowded => Self::CROWDED,
        }
    }

    /// What a number means. One that a later hub has added is a lost connection to this one.
    pub(crate) fn from_index(index: u8) -> Self {
        match index {
            Self::HUB_LOST => Self::HubLost,
            Self::MOVED => Self::Moved,
            Self::CROWDED => Self::Crowded,
            index => Self::Closed(*CloseReason::ALL.get(usize::from(index)).unwrap_or(&CloseReason::ConnectionLost)),
        }
    }
}

/// What went wrong with a client's message: the `code` of an `error` message, or the `outcome` of a receipt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ErrorCode {
    /// The announced data is longer than the hub keeps.
    DataTooLarge,
    /// The hub keeps as much announced data as it may.
    HubFull,
    /// Not JSON.
    InvalidJson,
    /// JSON, but not a message of the protocol.
    InvalidMessage,
    /// Longer than the hub takes.
    MessageTooLarge,
    /// The network is full.
    NetworkFull,
    /// Only a hub may say this.
    NotAllowed,
    /// No session has that id.
    PeerNotFound,
    /// Too many messages.
    RateLimited,
    /// The target reads too slowly: it was closed, or too much waits for it already.
    SlowPeer,
    /// The peer is in as many networks as it may be.
    TooManyNetworks,
    /// No answer in time: it may have been delivered.
    Unknown,
    /// The hub does not know this type of message.
    UnknownType,
    /// The target's hub cannot be reached.
    Unreachable,
    /// Sender and target do not share that network.
    WrongNetwork,
}

impl ErrorCode {
    /// Every code, in the order of its discriminant.
    pub const ALL: [Self; 15] = [
        Self::DataTooLarge,
        Self::HubFull,
        Self::InvalidJson,
        Self::InvalidMessage,
        Self::MessageTooLarge,
        Self::NetworkFull,
        Self::NotAllowed,
        Self::PeerNotFound,
        Self::RateLimited,
        Self::SlowPeer,
        Self::TooManyNetworks,
        Self::Unknown,
        Self::UnknownType,
        Self::Unreachable,
        Self::WrongNetwork,
    ];

    /// The code on the wire and in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::DataTooLarge => "data-too-large",
            Self::HubFull => "hub-full",
            Self::InvalidJson => "invalid-json",
            Self::InvalidMessage => "invalid-message",
            Self::MessageTooLarge => "message-too-large",
            Self::NetworkFull => "network-full",
            Self::NotAllowed => "not-allowed",
            Self::PeerNotFound => "peer-not-found",
            Self::RateLimited => "rate-limited",
            Self::SlowPeer => "slow-peer",
            Self::TooManyNetworks => "too-many-networks",
            Self::Unknown => "unknown",
            Self::UnknownType => "unknown-type",
            Self::Unreachable => "unreachable",
            Self::WrongNetwork => "wrong-network",
        }
    }

    /// One sentence for a person: what happened and, where there is something to do, what.
    pub const fn explain(self) -> &'static str {
        match self {
            Self::DataTooLarge => "data is larger than 16384 bytes: send less",
            Self::HubFull => {
                "announce budget exhausted (ANNOUNCE_BUDGET_BYTES): send less data, or join fewer networks"
            }
            Self::InvalidJson => "the message is not valid JSON: send one JSON object per message",
            Self::InvalidMessage => "the message does not follow the protocol: see docs/protocol.md",
            Self::MessageTooLarge => {
                "the message is too large (MAX_MESSAGE_BYTES): send at most maxMessageBytes of `connected`"
            }
            Self::NetworkFull => {
                "network full (MAX_PEERS_PER_NETWORK), or a member knows 1024 others: try later, or another network"
            }
            Self::NotAllowed => "only hubs send this type of message: send a type for clients",
            Self::PeerNotFound => "no connected peer has this id: signal peers that have been discovered",
            Self::RateLimited => "too many messages (MESSAGE_RATE): send fewer per second",
            Self::SlowPeer => "the target reads too slowly (SEND_QUEUE_BYTES): send less, or try again later",
            Self::TooManyNetworks => "too many networks (MAX_NETWORKS_PER_PEER): send goodbye for one of them first",
            Self::Unknown => {
                "no answer from the target's hub in time: the signal may have arrived, so wait before you repeat it"
            }
            Self::UnknownType => "unknown type of message: send a type of protocol version 2",
            Self::Unreachable => "the target's hub is unreachable: try again later",
            Self::WrongNetwork => "sender and target are not both in this network: announce in it, or name another",
        }
    }
}

/// What became of a signal. Every signal that a hub has read has exactly one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// The last byte of its frame was accepted by the target's socket.
    Delivered,
    /// It was sent to a Go hub, whose protocol does not say what became of it.
    Forwarded,
    /// It was not delivered, or nobody knows.
    Failed(ErrorCode),
}

impl Outcome {
    /// The outcome on the wire and in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Forwarded => "forwarded",
            Self::Failed(code) => code.label(),
        }
    }

    /// Whether the signal may not have arrived: its sender learns of that at once, by an `error` message if not by a receipt.
    pub(crate) const fn is_failure(self) -> bool {
        matches!(self, Self::Failed(_))
    }
}
