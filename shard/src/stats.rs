//! Statistics of one shard, published once a tick.

use std::ops::{Deref, DerefMut};

use proto::{BugCounts, CloseReason, MessageKind, ResumeOutcome, RouterStats, TurnLengths};
use thread::PostStats;

use crate::tokens::TokenRefusal;

/// Statistics of one shard. The counters only grow.
#[derive(Clone, Debug, Default)]
pub struct ShardReading {
    /// Statistics of the router.
    pub router: RouterStats,
    /// Statistics of the sockets.
    pub io: IoStats,
}

/// Why a connection, or a request for a WebSocket, was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeFailure {
    /// The token is missing or wrong (401), or is for another peer id (403).
    Unauthorized,
    /// The `peerId` is missing or invalid (403).
    InvalidPeerId,
    /// A client sent the key of its id without a valid proof, or sent no key although PEER_ID_PROOF requires a proof
    /// (403).
    IdProof,
    /// ALLOWED_ORIGINS does not contain the origin of the web page (403).
    Origin,
    /// The request is not a valid WebSocket upgrade by RFC 6455 (400, 426).
    NotAnUpgrade,
    /// The request did not arrive in time, or was not valid HTTP.
    BadRequest,
    /// The connection was not a WebSocket yet when its place was needed for a newer connection.
    CrowdedOut,
    /// The home shard, or the mesh, did not accept the socket in time, or the socket could not be moved there.
    HandOff,
    /// The hub panicked while it handled the request. `closes` counts the panic as well.
    Internal,
    /// A hub requested a link, but this hub accepts none (403).
    LinkOff,
    /// A hub sent no MESH_TOKEN, or a wrong MESH_TOKEN (401).
    LinkUnauthorized,
    /// A hub sent MESH_TOKEN itself, and this hub accepts only proofs (401).
    LinkBearer,
    /// The client certificate of a hub is invalid, because it has expired, is from another CA, or is not for clients.
    LinkCertificate,
    /// A hub answered a challenge that has expired, was answered before, or was issued by another process (401).
    LinkChallenge,
    /// A hub has no client certificate, and this hub accepts links only with such a certificate (403).
    LinkNoCertificate,
    /// A hub sent a proof that was not made with this hub's MESH_TOKEN, or not for the sender's id (401).
    LinkProof,
    /// A hub offered only unsupported versions of the links' protocol (400).
    LinkVersion,
    /// A hub connected to a port that accepts no links (403, 404).
    LinkWrongPort,
    /// A peer connected to a port that accepts no peers (404), or to HTTP_REDIRECT_PORT (a redirect).
    WrongPort,
    /// The client's address has MAX_CONNECTIONS_PER_ADDRESS connections (503).
    AddressConnections,
    /// The client's address has MAX_UNFINISHED_PER_ADDRESS connections without a request (503).
    AddressUnfinished,
    /// The client's address connects faster than CONNECT_RATE_PER_ADDRESS (503).
    AddressRate,
    /// The shard has reached CONNECT_RATE (503).
    Busy,
    /// The hub is full, and so many connections arrive that this one is refused before its request is read (503). At
    /// lower rates, connections to a full hub become WebSockets that are closed with `max connections`.
    Full,
    /// An operator drains the hub (503).
    Draining,
    /// A trusted proxy named two clients in two headers, or sent a malformed header (400).
    Forwarded,
    /// A trusted proxy sent no valid head of the PROXY protocol in time.
    ProxyHead,
    /// A client used TLS at a port without TLS.
    TlsAtPlainPort,
    /// A client sent HTTP without TLS to a port that speaks TLS (400).
    HttpAtTlsPort,
    /// Too many TLS handshakes waited for their turn.
    TlsBusy,
    /// A TLS handshake violated the protocol, or its client ended it.
    TlsHandshake,
    /// A client and this hub have no version, cipher suite or protocol of TLS in common.
    TlsNothingInCommon,
    /// A client ended the handshake with an alert, usually because it does not trust the certificate.
    TlsRefused,
    /// A TLS handshake was not complete in time.
    TlsTimeout,
}

impl HandshakeFailure {
    /// Every failure, in the order of its discriminant.
    pub const ALL: [Self; 34] = [
        Self::Unauthorized,
        Self::InvalidPeerId,
        Self::IdProof,
        Self::Origin,
        Self::NotAnUpgrade,
        Self::BadRequest,
        Self::CrowdedOut,
        Self::HandOff,
        Self::Internal,
        Self::LinkOff,
        Self::LinkUnauthorized,
        Self::LinkBearer,
        Self::LinkCertificate,
        Self::LinkChallenge,
        Self::LinkNoCertificate,
        Self::LinkProof,
        Self::LinkVersion,
        Self::LinkWrongPort,
        Self::WrongPort,
        Self::AddressConnections,
        Self::AddressUnfinished,
        Self::AddressRate,
        Self::Busy,
        Self::Full,
        Self::Draining,
        Self::Forwarded,
        Self::ProxyHead,
        Self::TlsAtPlainPort,
        Self::HttpAtTlsPort,
        Self::TlsBusy,
        Self::TlsHandshake,
        Self::TlsNothingInCommon,
        Self::TlsRefused,
        Self::TlsTimeout,
    ];

    /// Whether this is the refusal of a link.
    pub(crate) const fn is_of_a_link(self) -> bool {
        matches!(
            self,
            Self::LinkOff
                | Self::LinkUnauthorized
                | Self::LinkBearer
                | Self::LinkCertificate
                | Self::LinkChallenge
                | Self::LinkNoCertificate
                | Self::LinkProof
                | Self::LinkVersion
                | Self::LinkWrongPort
        )
    }

    /// The name in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::InvalidPeerId => "invalid-peer-id",
            Self::IdProof => "id-proof",
            Self::Origin => "origin",
            Self::NotAnUpgrade => "not-an-upgrade",
            Self::BadRequest => "bad-request",
            Self::CrowdedOut => "crowded-out",
            Self::HandOff => "hand-off",
            Self::Internal => "internal",
            Self::LinkOff => "link-off",
            Self::LinkUnauthorized => "link-unauthorized",
            Self::LinkBearer => "link-bearer",
            Self::LinkCertificate => "link-certificate",
            Self::LinkChallenge => "link-challenge",
            Self::LinkNoCertificate => "link-no-certificate",
            Self::LinkProof => "link-proof",
            Self::LinkVersion => "link-version",
            Self::LinkWrongPort => "link-wrong-port",
            Self::WrongPort => "wrong-port",
            Self::AddressConnections => "address-connections",
            Self::AddressUnfinished => "address-unfinished",
            Self::AddressRate => "address-rate",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::Draining => "draining",
            Self::Forwarded => "forwarded",
            Self::ProxyHead => "proxy-head",
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

/// Numbers of failures, by the failure's discriminant.
#[derive(Clone, Debug)]
pub struct FailureCounts(pub [u64; HandshakeFailure::ALL.len()]);

impl Default for FailureCounts {
    fn default() -> Self {
        Self([0; HandshakeFailure::ALL.len()])
    }
}

impl Deref for FailureCounts {
    type Target = [u64; HandshakeFailure::ALL.len()];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for FailureCounts {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// Numbers of refused tokens, by the refusal's discriminant.
pub(crate) type TokenRefusalCounts = [u64; TokenRefusal::ALL.len()];

/// Statistics of a shard's sockets since its start.
#[derive(Clone, Debug, Default)]
pub struct IoStats {
    /// Number of messages queued for sockets, by [`MessageKind::index`].
    pub messages_out: [u64; MessageKind::COUNT],
    /// Bytes read from WebSockets.
    pub bytes_in: u64,
    /// Bytes written to WebSockets.
    pub bytes_out: u64,
    /// Number of writes to WebSockets. The sum of `messages_out` divided by `writes` is the average number of frames in
    /// one write.
    pub writes: u64,
    /// Number of closed sessions, by the reason's discriminant.
    pub closes: [u64; CloseReason::ALL.len()],
    /// Number of opened WebSockets.
    pub handshakes: u64,
    /// Number of refused connections and requests, by the failure's discriminant.
    pub handshake_failures: FailureCounts,
    /// Number of resume secrets that were ignored, by the outcome's discriminant.
    pub resumes: [u64; ResumeOutcome::ALL.len()],
    /// Number of tokens that were accepted, at connections and as renewals.
    pub tokens_accepted: u64,
    /// Tokens that were refused, by the refusal's discriminant.
    pub token_refusals: TokenRefusalCounts,
    /// Peers that have proven with a key that their id is their own.
    pub ids_proven: u64,
    /// Number of completed TLS handshakes. The first number counts handshakes with a certificate, and the second number
    /// counts handshakes with a ticket of an earlier TLS session.
    pub tls_handshakes: [u64; 2],
    /// Number of peers' sockets that this shard has accepted and handed to the home shard of the peer. The home shard
    /// can be this shard.
    pub handed_off: u64,
    /// Letters to other shards and to the mesh.
    pub post: PostStats,
    /// Maximum number of bytes ever queued for one session.
    pub queue_peak_bytes: u64,
    /// Maximum number of frames ever queued for one session.
    pub queue_peak_frames: u64,
    /// Bytes queued for all sessions (a gauge).
    pub queued_bytes: u64,
    /// Memory of incomplete messages of all sessions, in bytes (a gauge).
    pub kept_bytes: u64,
    /// Number of WebSockets on this shard, including closing WebSockets (a gauge).
    pub sessions: u64,
    /// Time for which the thread was busy, in microseconds.
    pub busy_micros: u64,
    /// Number of HTTP requests other than WebSocket upgrades.
    pub http_requests: u64,
    /// Number of requests for pages that were refused with 429.
    pub pages_refused: u64,
    /// Number of pings that the shard has queued. A ping also counts if the queue already has one.
    pub pings: u64,
    /// Number of impossible states found outside the router.
    pub bugs: BugCounts,
    /// Turns of the shard's thread, by their length.
    pub turns: TurnLengths,
}
