//! Admission of connections. This module decides who may connect, and to which shard or to the mesh a socket goes.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use hyper::{Request, Response, StatusCode};
use proto::envelope::{SUBPROTOCOL, TOKEN_WANTED};
use proto::limits::MAX_HTTP_CONNECTIONS;
use proto::{HubId, Keys, LinkAuth, PeerId, ResumeKeys, proof};
use tokio::sync::mpsc;

use super::entrance::{DoorFiles, Entrance};
use super::gate::Gate;
use super::handshake;
use super::kept::Timeouts;
use super::page_rates::PageRates;
use super::prove::IdProofs;
use super::query::Query;
use super::refusal::HttpRefusal;
use super::secure::Handshakes;
use crate::config::{DoorConfig, RedirectDoor};
use crate::crowd::{NoEntry, Place};
use crate::links::{Admission, LinkCheck, LinkDoor, Offer};
use crate::session::{HandOff, PeerRequest};
use crate::stats::HandshakeFailure;
use crate::tokens::{Allowed, TokenRefusal, Tokens};
use crate::{Gauges, Pages};

/// The refusal of a WebSocket at the operators' port.
const ADMIN_ONLY: &str = "this port serves only pages for operators (ADMIN_PORT): connect WebSockets to PORT";

const BEARER_REFUSED: &str = "unauthorized: this hub accepts proofs of MESH_TOKEN and not the token itself \
                              (MESH_AUTH=challenge): update the dialing hub";

const WRONG_PROOF: &str = "unauthorized: the proof is of another MESH_TOKEN: set the same MESH_TOKEN on every hub";

const STALE_CHALLENGE: &str = "unauthorized: the challenge has expired or was answered before: ask for a new challenge";

const NO_CERTIFICATE: &str = "this hub accepts links only by certificate, and this connection has none: set MESH_CERT \
                              and MESH_KEY on the dialing hub, and let it dial wss:// at MESH_PORT";

/// Maximum length of an origin in an answer and in the log, in bytes. A longer origin is cut off.
const MAX_SHOWN_ORIGIN: usize = 256;

/// Maximum number of tokens of a request that are checked. A proxy adds at most one token.
const MOST_TOKENS: usize = 4;

/// An accepted request for a link.
pub(super) struct Admitted {
    pub(super) hub: HubId,
    /// How the other hub has authenticated itself.
    pub(super) auth: LinkAuth,
    /// This hub's own proof, which is the answer to the other hub's proof. `None` if the other hub sent no proof.
    pub(super) own_proof: Option<String>,
}

/// Groups of readers of pages. Each group has rate limits of its own, so that no group can use up the share of another
/// group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Readers {
    /// Everybody at PORT.
    Public,
    /// Everybody at ADMIN_PORT.
    AdminPort,
    /// Operators who have shown ADMIN_TOKEN or the cookie of a login, at any port.
    Operators,
}

impl Readers {
    /// The group of readers without ADMIN_TOKEN and login cookie, at a listener of this kind.
    pub(super) fn at(entrance: Entrance) -> Self {
        if entrance == Entrance::Admin { Self::AdminPort } else { Self::Public }
    }
}

/// Limits that tests set to smaller values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DoorTuning {
    /// Maximum number of connections of one listener that are not WebSockets.
    pub(crate) max_requests: usize,
    pub(crate) timeouts: Timeouts,
}

impl Default for DoorTuning {
    fn default() -> Self {
        Self { max_requests: MAX_HTTP_CONNECTIONS, timeouts: Timeouts::default() }
    }
}

/// Decides who may connect, and to which shard or to the mesh a socket goes.
pub(crate) struct Door {
    pub(crate) shards: u16,
    pub(crate) keys: Keys,
    pub(crate) resume_keys: ResumeKeys,
    pub(crate) max_connections: usize,
    pub(crate) files: DoorFiles,
    pub(crate) gauges: Arc<Gauges>,
    /// AUTH_TOKEN.
    pub(crate) auth_token: Option<Arc<str>>,
    /// Checks JWTs.
    pub(crate) tokens: Option<Arc<Tokens>>,
    /// PEER_ID_PROOF.
    pub(crate) id_proofs: Option<IdProofs>,
    pub(crate) links: Option<LinkDoor>,
    /// ADMIN_PORT, if it is a separate port.
    pub(crate) admin_port: Option<u16>,
    pub(crate) redirect: Option<RedirectDoor>,
    /// The ports that speak TLS, and the handshakes there.
    pub(crate) tls: Option<(Arc<[u16]>, Handshakes)>,
    pub(crate) tuning: DoorTuning,
    /// Decides about connections before anything is read.
    pub(crate) gate: Gate,
    pub(crate) config: DoorConfig,
    pub(crate) pages: Pages,
    pub(crate) homes: Arc<[mpsc::Sender<HandOff>]>,
    /// Rate limits of pages, by [`Readers`].
    pub(crate) page_rates: [RefCell<PageRates>; 3],
}

impl Door {
    /// The initial state of the pages' rate limits.
    pub(crate) fn page_rates(keys: Keys) -> [RefCell<PageRates>; 3] {
        [(); 3].map(|()| RefCell::new(PageRates::new(keys)))
    }

    pub(crate) fn speaks_tls(&self, port: u16) -> bool {
        self.tls.as_ref().is_some_and(|(ports, _)| ports.contains(&port))
    }

    /// Decides about a connection before anything is read from it. A connection of a trusted proxy is not counted for
    /// the proxy. When the client is known, [`Self::enter`] counts the connection for the client.
    pub(crate) fn admit(&self, entrance: Entrance, address: SocketAddr) -> Result<Option<Place>, NoEntry> {
        match entrance {
            // The ports of operators and hubs have their own file descriptors, which peers cannot use up.
            Entrance::Admin | Entrance::Hubs => Ok(None),
            Entrance::Both | Entrance::Peers | Entrance::Redirect => {
                let connections = self.gauges.connections.load(Ordering::Relaxed);
                let is_full = connections >= self.max_connections && entrance != Entrance::Redirect;
                let counted = (!self.config.proxies.trust(address.ip())).then(|| address.ip());
                self.gate.admit(counted, is_full, Instant::now())
            }
        }
    }

    /// Counts a client that a trusted proxy has named. A client that is itself a trusted proxy is not counted.
    pub(super) fn enter(&self, client: SocketAddr) -> Result<Option<Place>, NoEntry> {
        let counted = (!self.config.proxies.trust(client.ip())).then_some(client.ip());
        counted.map(|client| self.gate.enter(client, Instant::now())).transpose()
    }

    /// An answer of one sentence.
    pub(super) fn plain(
        &self,
        status: StatusCode,
        text: impl Into<Full<Bytes>>,
        origin: Option<&HeaderValue>,
    ) -> Response<Full<Bytes>> {
        let mut response = Response::new(text.into());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // The text can contain data of the client, which browsers must not interpret as HTML.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        self.config.cors.put(origin, headers);
        response
    }

    pub(super) fn too_many(&self, origin: Option<&HeaderValue>) -> Response<Full<Bytes>> {
        let text = "too many requests for pages: try again after a second, and less often\n";
        let mut response = self.plain(StatusCode::TOO_MANY_REQUESTS, text, origin);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        response
    }

    /// The refusal of a peer while an operator drains the hub.
    pub(super) fn draining(&self) -> HttpRefusal {
        let text = "the hub is draining: connect to another hub, or later";
        let refusal = HttpRefusal::new(HandshakeFailure::Draining, StatusCode::SERVICE_UNAVAILABLE, text);
        HttpRefusal { retry_after: Some(self.gate.retry_after()), ..refusal }
    }

    /// Checks the origin of the page, if the request comes from a browser. Hubs send no origin, so the check also
    /// prevents pages from opening links.
    pub(super) fn check_origin(&self, headers: &HeaderMap) -> Result<(), HttpRefusal> {
        let Some(origin) = self.config.origins.refused(headers) else { return Ok(()) };
        let origin = String::from_utf8_lossy(&origin.as_bytes()[..origin.len().min(MAX_SHOWN_ORIGIN)]);
        let text = format!("pages of {} may not connect here: ALLOWED_ORIGINS does not name it", origin.escape_debug());
        Err(HttpRefusal::new(HandshakeFailure::Origin, StatusCode::FORBIDDEN, text))
    }

    /// Checks the token and the id of a peer.
    pub(super) fn check_peer(
        &self,
        entrance: Entrance,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<PeerRequest, HttpRefusal> {
        if entrance == Entrance::Admin {
            return Err(HttpRefusal::new(HandshakeFailure::WrongPort, StatusCode::NOT_FOUND, ADMIN_ONLY));
        }
        if entrance == Entrance::Hubs {
            let text = "this port accepts only links of hubs (MESH_PORT): connect peers to PORT, and read pages there";
            return Err(HttpRefusal::new(HandshakeFailure::WrongPort, StatusCode::NOT_FOUND, text));
        }
        let allowed = self.check_token(query, headers)?;
        let in_token = allowed.as_ref().and_then(|allowed| allowed.peer);
        let key = self.check_key(query, in_token.is_some())?;
        let of_key = key.as_ref().map(PeerId::of_key);
        let peer = query.peer(in_token.or(of_key))?;
        if in_token.is_some_and(|allowed| allowed != peer) {
            return Err(HttpRefusal::of_token(TokenRefusal::Subject));
        }
        if of_key.is_some_and(|hash| hash != peer) {
            let text = "peerId is not the id of the key: use the first 40 digits of the key's SHA-256";
            return Err(HttpRefusal::new(HandshakeFailure::IdProof, StatusCode::FORBIDDEN, text));
        }
        let grant = allowed.map(|allowed| Box::new(allowed.grant));
        Ok(PeerRequest { peer, resume: None, owner: in_token.is_some(), key, grant, names_protocol: false })
    }

    /// Parses the public key that a peer sends to prove its id. A token with a `sub` also proves the id, so such a peer
    /// needs no key.
    fn check_key(&self, query: &Query, has_subject: bool) -> Result<Option<[u8; 32]>, HttpRefusal> {
        let refused = |text| Err(HttpRefusal::new(HandshakeFailure::IdProof, StatusCode::FORBIDDEN, text));
        let Some(proofs) = &self.id_proofs else { return Ok(None) };
        match query.key.as_deref().filter(|key| !key.is_empty()) {
            Some(text) => match proof::parse_key(text) {
                Some(key) => Ok(Some(key)),
                None => refused("the key is not valid: use the 64 hexadecimal digits of a public key of Ed25519"),
            },
            None if proofs.is_required && !has_subject => {
                refused("this hub requires a proof of the id (PEER_ID_PROOF): send the public key of the id as `key`")
            }
            None => Ok(None),
        }
    }

    /// Checks the tokens of a peer's request. One valid token is enough. Returns `None` if the peer may do everything,
    /// because the peer has AUTH_TOKEN, or because the hub requires no token.
    fn check_token(&self, query: &Query, headers: &HeaderMap) -> Result<Option<Allowed>, HttpRefusal> {
        let is_open = self.auth_token.is_none() && self.tokens.is_none();
        if is_open || self.auth_token.as_deref().is_some_and(|token| query.shows(headers, token)) {
            return Ok(None);
        }
        let mut refusal = None;
        if let Some(tokens) = &self.tokens {
            for shown in query.shown(headers).take(MOST_TOKENS) {
                let token = str::from_utf8(shown).map_err(|_| TokenRefusal::Malformed);
                match token.and_then(|token| tokens.check(token, SystemTime::now())) {
                    Ok(allowed) => return Ok(Some(allowed)),
                    // The refusal of a JWT is more specific than the refusal of text that is not a JWT.
                    Err(no) if refusal.is_none_or(|had| had == TokenRefusal::Malformed) => refusal = Some(no),
                    Err(_) => {}
                }
            }
        }
        let shown = query.shown(headers).next().is_some();
        Err(match refusal {
            // The client may have intended the text as AUTH_TOKEN.
            Some(TokenRefusal::Malformed) if self.auth_token.is_some() => {
                let refusal = HttpRefusal::unauthorized(HandshakeFailure::Unauthorized, "unauthorized", shown);
                HttpRefusal { token: Some(TokenRefusal::Malformed), ..refusal }
            }
            Some(no) => HttpRefusal::of_token(no),
            None => HttpRefusal::unauthorized(HandshakeFailure::Unauthorized, "unauthorized", shown),
        })
    }

    /// Waits for new keys if a request for a WebSocket has a token with an unknown key. The function does not wait if
    /// keys cannot be requested now.
    pub(super) async fn await_keys<B>(&self, request: &Request<B>) {
        let Some(tokens) = self.tokens.as_ref().filter(|_| handshake::wants_websocket(request)) else { return };
        let query = Query::of(request);
        let shown = query.shown(request.headers()).take(MOST_TOKENS);
        for token in shown.filter_map(|token| str::from_utf8(token).ok()) {
            if tokens.wait_for_keys(token).await {
                return;
            }
        }
    }

    /// Checks a request for a link. `is_certified` says whether the hub has a verified client certificate.
    pub(super) fn check_hub(
        &self,
        (entrance, is_certified): (Entrance, bool),
        offer: Offer,
        query: &Query,
        headers: &HeaderMap,
        now: Duration,
    ) -> Result<Admitted, HttpRefusal> {
        let off = |text: &'static str| Err(HttpRefusal::new(HandshakeFailure::LinkOff, StatusCode::FORBIDDEN, text));
        let Some(links) = &self.links else {
            return off("this hub is not part of a mesh: set IS_HUB=true on it");
        };
        if entrance == Entrance::Admin {
            return Err(HttpRefusal::new(HandshakeFailure::LinkWrongPort, StatusCode::NOT_FOUND, ADMIN_ONLY));
        }
        if entrance == Entrance::Peers {
            let text = "this port accepts no links: dial MESH_PORT of this hub";
            return Err(HttpRefusal::new(HandshakeFailure::LinkWrongPort, StatusCode::FORBIDDEN, text));
        }
        let mut own_proof = None;
        let mut auth = LinkAuth::Address;
        // A Go hub has no token. The address of the Go hub has already been checked.
        if offer != Offer::Nothing {
            match &links.admission {
                Admission::Closed => {
                    return off("this hub accepts no links: set MESH_TOKEN on it, or MESH_INSECURE=true");
                }
                Admission::Open => auth = LinkAuth::Nothing,
                Admission::Certificates if is_certified => auth = LinkAuth::Certificate,
                Admission::Certificates => {
                    let failure = HandshakeFailure::LinkNoCertificate;
                    return Err(HttpRefusal::new(failure, StatusCode::FORBIDDEN, NO_CERTIFICATE));
                }
                Admission::Tokens(tokens) => {
                    let dialer = query.id().ok().map(HubId);
                    let checked = tokens.check(dialer, headers, query.token.as_deref(), now);
                    let is_counted = checked != LinkCheck::Asked;
                    let refused = match checked {
                        LinkCheck::Accepted(proof) => {
                            auth = if proof.is_some() { LinkAuth::Token } else { LinkAuth::Bearer };
                            own_proof = proof;
                            None
                        }
                        // A certificate does not replace a wrong proof. A hub that asks for a challenge still gets one,
                        // because it also wants this hub to prove that it knows the token.
                        LinkCheck::NoToken if is_certified => {
                            auth = LinkAuth::Certificate;
                            None
                        }
                        LinkCheck::Asked | LinkCheck::NoToken => {
                            Some((HandshakeFailure::LinkUnauthorized, TOKEN_WANTED))
                        }
                        LinkCheck::Bearer => Some((HandshakeFailure::LinkBearer, BEARER_REFUSED)),
                        LinkCheck::WrongProof => Some((HandshakeFailure::LinkProof, WRONG_PROOF)),
                        LinkCheck::Stale => Some((HandshakeFailure::LinkChallenge, STALE_CHALLENGE)),
                    };
                    if let Some((failure, text)) = refused {
                        let shown = query.shown(headers).next().is_some();
                        let refusal = HttpRefusal::unauthorized(failure, text, shown);
                        return Err(HttpRefusal { challenge: tokens.challenge(now), is_counted, ..refusal });
                    }
                }
            }
        }
        if offer == Offer::Unknown {
            let text = format!("unknown version of links: use Sec-WebSocket-Protocol: {SUBPROTOCOL}");
            return Err(HttpRefusal::new(HandshakeFailure::LinkVersion, StatusCode::BAD_REQUEST, text));
        }
        query.id().map(|id| Admitted { hub: HubId(id), auth, own_proof })
    }
}
