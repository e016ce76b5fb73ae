//! What one shard has counted, as it publishes it once a tick.

use proto::{BugCounts, CloseReason, MessageKind, ResumeOutcome, RouterStats};

/// One shard's numbers. All but the gauges only grow.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The rules' own numbers.
    pub router: RouterStats,
    /// The sockets' numbers.
    pub io: IoStats,
}

/// Why a request for a WebSocket was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeFailure {
    /// No token, or not the right one (401).
    Unauthorized,
    /// No `peerId`, or not 40 hexadecimal digits (403).
    InvalidPeerId,
    /// Not an upgrade of RFC 6455 (400).
    NotAnUpgrade,
    /// The request's head did not come in time, or was not HTTP.
    BadRequest,
    /// The home shard, or the mesh, did not take the socket.
    HandOff,
    /// A hub asked for a link, which this hub does not make (403).
    LinkOff,
    /// A hub showed no MESH_TOKEN, or not the right one (401).
    LinkUnauthorized,
    /// A hub speaks no version of the links' protocol that this hub speaks (400).
    LinkVersion,
    /// A hub came to a port that takes no links (403, 404).
    LinkWrongPort,
    /// A peer came to a port that takes no peers (404).
    WrongPort,
    /// A client spoke TLS at a port that does not.
    TlsAtPlainPort,
    /// A client sent HTTP without TLS to a port that speaks TLS (400).
    HttpAtTlsPort,
    /// Too many TLS handshakes waited for their turn.
    TlsBusy,
    /// A TLS handshake broke the protocol, or its client ended it.
    TlsHandshake,
    /// A client and this hub have no version, cipher suite or protocol of TLS in common.
    TlsNothingInCommon,
    /// A client refused to go on, as a rule because it does not trust the certificate.
    TlsRefused,
    /// A TLS handshake was not over in time.
    TlsTimeout,
}

impl HandshakeFailure {
    /// Every failure, in the order of its discriminant.
    pub const ALL: [Self; 17] = [
        Self::Unauthorized,
        Self::InvalidPeerId,
        Self::NotAnUpgrade,
        Self::BadRequest,
        Self::HandOff,
        Self::LinkOff,
        Self::LinkUnauthorized,
        Self::LinkVersion,
        Self::LinkWrongPort,
        Self::WrongPort,
        Self::TlsAtPlainPort,
        Self::HttpAtTlsPort,
        Self::TlsBusy,
        Self::TlsHandshake,
        Self::TlsNothingInCommon,
        Self::TlsRefused,
        Self::TlsTimeout,
    ];

    /// Whether it was a hub that was refused.
    pub(crate) const fn is_of_a_link(self) -> bool {
        matches!(self, Self::LinkOff | Self::LinkUnauthorized | Self::LinkVersion | Self::LinkWrongPort)
    }

    /// The name in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::InvalidPeerId => "invalid-peer-id",
            Self::NotAnUpgrade => "not-an-upgrade",
            Self::BadRequest => "bad-request",
            Self::HandOff => "hand-off",
            Self::LinkOff => "link-off",
            Self::LinkUnauthorized => "link-unauthorized",
            Self::LinkVersion => "link-version",
            Self::LinkWrongPort => "link-wrong-port",
            Self::WrongPort => "wrong-port",
            Self::TlsAtPlainPort => "tls-at-plain-port",
            Self::HttpAtTlsPort => "http-at-tls-port",
            Self::TlsBusy => "tls-busy",
            Self::TlsHandshake => "tls-handshake",
            Self::TlsNothingInCommon => "tls-nothing-in-common",
            Self::TlsRefused => "tls-refused",
            Self::TlsTimeout => "tls-timeout",
        }
    }
}

/// What the sockets of a shard have seen.
#[derive(Clone, Debug, Default)]
pub struct IoStats {
    /// Messages queued for sockets, by [`MessageKind::index`].
    pub messages_out: [u64; MessageKind::COUNT],
    /// Bytes read from WebSockets.
    pub bytes_in: u64,
    /// Bytes written to WebSockets.
    pub bytes_out: u64,
    /// Writes to WebSockets: with `messages_out`, how well frames are put together.
    pub writes: u64,
    /// Sessions closed, by the reason's discriminant.
    pub closes: [u64; CloseReason::ALL.len()],
    /// WebSockets opened.
    pub handshakes: u64,
    /// Requests for a WebSocket refused, by the failure's discriminant.
    pub handshake_failures: [u64; HandshakeFailure::ALL.len()],
    /// Resume secrets that were ignored, by the outcome's discriminant.
    pub resumes: [u64; ResumeOutcome::ALL.len()],
    /// TLS handshakes that were completed: with a certificate, and by a ticket of an earlier session.
    pub tls_handshakes: [u64; 2],
    /// Sockets accepted here and handed to another shard.
    pub handed_off: u64,
    /// Letters posted to other shards and to the mesh.
    pub letters_out: u64,
    /// Batches in which they were posted.
    pub letter_batches_out: u64,
    /// Most letters that ever waited for one other shard, or for the mesh.
    pub outbox_peak: u64,
    /// Times that reading stopped because letters could not be posted fast enough.
    pub stalls: u64,
    /// Most bytes that ever waited for one session.
    pub queue_peak_bytes: u64,
    /// Most frames that ever waited for one session.
    pub queue_peak_frames: u64,
    /// Gauge: bytes that wait for all sessions.
    pub queued_bytes: u64,
    /// Gauge: WebSockets on this shard, also those that are about to close.
    pub sessions: u64,
    /// Time the loop was busy, in microseconds.
    pub busy_micros: u64,
    /// HTTP requests that were not for a WebSocket.
    pub http_requests: u64,
    /// Those that were for a page and were refused because too many were before them (429).
    pub pages_refused: u64,
    /// Pings sent by the hub.
    pub pings: u64,
    /// Impossible states that were found, outside the rules.
    pub bugs: BugCounts,
}
