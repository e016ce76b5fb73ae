//! Named results, such as why a session was closed, and the outcome of a signal.

/// Why a session ended. The reason determines the close frame, the log field and the metric label.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CloseReason {
    /// The client sent a close frame, without a code or with any code except 1001.
    ClientClosed,
    /// The TCP connection ended without a close frame.
    ConnectionLost,
    /// The session showed no sign of life for ten seconds after two pings, or for PEER_TIMEOUT_MS. The reason also
    /// applies if bytes are queued, and the session's socket has accepted none of them for
    /// [`dead_after`](crate::keepalive::Patience::dead_after).
    DeadPeer,
    /// The hub is stopping.
    Draining,
    /// The hub panicked while it parsed or decrypted bytes of the client. An alert fires if the hub closes a connection
    /// for this reason.
    Internal,
    /// Another session with this id is alive, because it answered a ping, or because its socket still accepts bytes.
    /// The reason also applies if another session waits for the id instead.
    IdInUse,
    /// The hub has MAX_CONNECTIONS sessions.
    MaxConnections,
    /// A message is longer than MAX_MESSAGE_BYTES.
    MessageTooLarge,
    /// A text message, or the reason in a close frame, is not UTF-8.
    NotUtf8,
    /// The client violated RFC 6455.
    ProtocolError,
    /// Messages exceeded a budget, such as MESSAGE_RATE, for ten seconds without a pause.
    RateLimited,
    /// A newer connection with the same id replaced this one.
    Replaced,
    /// The client reads more slowly than messages arrive for it. The send queue of the session exceeds SEND_QUEUE_BYTES
    /// or SEND_QUEUE_FRAMES, or [`SEND_FLOOR_BYTES`](crate::limits::SEND_FLOOR_BYTES) while SEND_BUDGET_BYTES is
    /// exhausted.
    SlowConsumer,
    /// The home shard did not accept the socket of a new session within ten seconds. The reason also applies if an
    /// incomplete message of the session is long while RECEIVE_BUDGET_BYTES is exhausted.
    TryAgainLater,
    /// An operator removed the peer, or has excluded it for a time.
    Kicked,
    /// The client sent a close frame with the code 1001. Browsers send this code when a page is closed or left.
    PageClosed,
    /// The token of the session has expired, and the client has sent no new one.
    TokenExpired,
}

impl CloseReason {
    /// Every reason, in the order of its discriminant.
    pub const ALL: [Self; 17] = [
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
        // Envelopes contain the discriminants, so new reasons are added at the end.
        Self::Kicked,
        Self::PageClosed,
        Self::TokenExpired,
    ];

    /// Number of reasons that hubs of version 2.0.0 know.
    const OF_2_0_0: usize = 14;

    /// The reason why a client sent a close frame with this code.
    pub const fn of_client(code: Option<u16>) -> Self {
        if matches!(code, Some(1001)) { Self::PageClosed } else { Self::ClientClosed }
    }

    /// The name in logs and metrics.
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
            Self::Kicked => "kicked",
            Self::PageClosed => "page-closed",
            Self::TokenExpired => "token-expired",
        }
    }

    /// Code and text of the close frame (RFC 6455 section 7.4; codes from 4000 are PeerPigeon's).
    ///
    /// `None` if the connection is already lost.
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
            Self::Kicked => (4011, "kicked by an operator"),
            Self::PageClosed => (1001, ""),
            Self::TokenExpired => (4012, "token expired"),
        })
    }

    /// The close frame for a client. If the client offers [`CLIENT_SUBPROTOCOL`](crate::CLIENT_SUBPROTOCOL), `max
    /// connections` gets the code 1013, which tells the client to try again later.
    pub const fn close_frame_for(self, names_protocol: bool) -> Option<(u16, &'static str)> {
        match (self, self.close_frame()) {
            (Self::MaxConnections, Some((_, text))) if names_protocol => Some((1013, text)),
            (_, frame) => frame,
        }
    }

    /// Whether the queued messages are dropped, so that the close frame is sent at once.
    pub const fn overtakes_queue(self) -> bool {
        matches!(self, Self::DeadPeer | Self::Kicked | Self::Replaced | Self::SlowConsumer)
    }

    /// Whether messages that the client sent before it received the close are still routed.
    pub const fn routes_messages_in_flight(self) -> bool {
        matches!(self, Self::Draining)
    }
}

/// Why a peer left its networks: the `reason` of `peer-disconnected`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LeaveReason {
    /// The peer's session ended.
    Closed(CloseReason),
    /// The lease or the incarnation of the peer's hub has ended, or the legacy link to the peer's Go hub.
    HubLost,
    /// The peer has connected to another hub, and is discovered there again.
    Moved,
    /// The peer is still connected, but it already knows MAX_ACQUAINTANCES other peers. So its hub declined the
    /// introduction.
    Crowded,
}

impl LeaveReason {
    const CROWDED: u8 = 253;
    const HUB_LOST: u8 = 254;
    const MOVED: u8 = 255;

    /// The name in `peer-disconnected`. The name is the same for every close by the client, because clients of version
    /// 2.0.0 know only one name.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed(CloseReason::PageClosed) => CloseReason::ClientClosed.label(),
            Self::Closed(reason) => reason.label(),
            Self::HubLost => "hub-lost",
            Self::Moved => "moved",
            Self::Crowded => "crowded",
        }
    }

    /// The close code of the peer's connection, for `peer-disconnected`. 1006 stands for an end without a close frame
    /// (RFC 6455, 7.4.1). `None` if the connection is open, or if this hub does not know whether it has ended.
    pub const fn close_code(self) -> Option<u16> {
        match self {
            Self::Closed(reason) => Some(match reason.close_frame() {
                Some((code, _)) => code,
                None => 1006,
            }),
            Self::HubLost | Self::Moved | Self::Crowded => None,
        }
    }

    /// The most similar reason that hubs of version 2.0.0 know.
    pub(crate) const fn as_of_2_0_0(self) -> Self {
        match self {
            Self::Closed(CloseReason::PageClosed) => Self::Closed(CloseReason::ClientClosed),
            Self::Closed(reason) if reason as usize >= CloseReason::OF_2_0_0 => {
                Self::Closed(CloseReason::ConnectionLost)
            }
            Self::Closed(_) | Self::HubLost | Self::Moved | Self::Crowded => self,
        }
    }

    /// The number of the reason in envelopes.
    pub(crate) const fn index(self) -> u8 {
        match self {
            Self::Closed(reason) => reason as u8,
            Self::HubLost => Self::HUB_LOST,
            Self::Moved => Self::MOVED,
            Self::Crowded => Self::CROWDED,
        }
    }

    /// The reason with this number. `None` if the number is unknown because a newer hub sent it.
    pub(crate) fn from_index(index: u8) -> Option<Self> {
        match index {
            Self::HUB_LOST => Some(Self::HubLost),
            Self::MOVED => Some(Self::Moved),
            Self::CROWDED => Some(Self::Crowded),
            index => CloseReason::ALL.get(usize::from(index)).copied().map(Self::Closed),
        }
    }
}

/// Why a client's message failed. The text form is the `code` of an `error` message, or the `outcome` of a receipt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ErrorCode {
    /// Announced data is longer than [`MAX_ANNOUNCE_DATA_BYTES`](crate::limits::MAX_ANNOUNCE_DATA_BYTES).
    DataTooLarge,
    /// ANNOUNCE_BUDGET_BYTES is exhausted.
    HubFull,
    /// The message is not JSON.
    InvalidJson,
    /// The message is JSON, but not a message of the protocol.
    InvalidMessage,
    /// The message is longer than MAX_MESSAGE_BYTES.
    MessageTooLarge,
    /// The network has MAX_PEERS_PER_NETWORK members, or a member knows its maximum number of other members.
    NetworkFull,
    /// Only hubs send this type of message.
    NotAllowed,
    /// No connected peer has this id.
    PeerNotFound,
    /// Messages exceed a rate, such as MESSAGE_RATE, or too many receipts are outstanding.
    RateLimited,
    /// The target reads too slowly: it was closed, or its queue is full.
    SlowPeer,
    /// The peer is in MAX_NETWORKS_PER_PEER networks.
    TooManyNetworks,
    /// No answer arrived in time: the signal may have been delivered.
    Unknown,
    /// The type of the message is unknown.
    UnknownType,
    /// The target's hub is unreachable.
    Unreachable,
    /// Sender and target are not both members of the network.
    WrongNetwork,
    /// An operator removed the peer from the network, or closed the network.
    Kicked,
    /// The session's token does not allow this message in this network.
    Forbidden,
    /// A new token was refused. The session keeps its present token.
    Unauthorized,
}

impl ErrorCode {
    /// Every code, in the order of its discriminant.
    pub const ALL: [Self; 18] = [
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
        // Envelopes contain the discriminants, so new codes are added at the end.
        Self::Kicked,
        Self::Forbidden,
        Self::Unauthorized,
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
            Self::Kicked => "kicked",
            Self::Forbidden => "forbidden",
            Self::Unauthorized => "unauthorized",
        }
    }

    /// One sentence for people: what is wrong, then what to do.
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
            Self::WrongNetwork => "the target is not in this network: signal peers that have been discovered there",
            Self::Kicked => "an operator keeps you out of this network: wait before you announce yourself there again",
            Self::Forbidden => "your token does not allow this in this network: use a token whose `networks` allows it",
            Self::Unauthorized => "the token is not valid here: send a valid one before the present one expires",
        }
    }
}

/// The result of a signal. Every signal that a hub has read has exactly one outcome.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// The target's socket accepted the last byte of the frame.
    Delivered,
    /// The signal was sent to a Go hub, whose protocol does not report the result.
    Forwarded,
    /// The signal was not delivered, or the result is unknown.
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

    /// Whether it is possible that the signal has not arrived. The hub notifies the sender of a failed signal
    /// immediately, by the receipt, or by an `error` message if the sender requested no receipt.
    pub(crate) const fn is_failure(self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::envelope::EnvelopeKind;

    #[test]
    fn labels_are_distinct_and_fit_for_metrics() {
        let closes = CloseReason::ALL.map(CloseReason::label);
        let errors = ErrorCode::ALL.map(ErrorCode::label);
        let envelopes = EnvelopeKind::ALL.map(EnvelopeKind::label);
        for labels in [&closes[..], &errors, &envelopes] {
            assert_eq!(labels.iter().collect::<BTreeSet<_>>().len(), labels.len(), "{labels:?}");
            let is_fit =
                |label: &&str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase() || b"-8".contains(&b));
            assert!(labels.iter().all(is_fit), "{labels:?}");
        }
    }
}
