//! Answers a request with a page, a WebSocket or a refusal.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use fastwebsockets::upgrade;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use proto::envelope::SUBPROTOCOL;
use proto::limits::MAX_FORM_BYTES;
use proto::{CLIENT_SUBPROTOCOL, HubId, Lineage, LinkAuth, PeerId};
use thread::planted;

use super::door::{Admitted, Door, Readers};
use super::entrance::Entrance;
use super::handshake::{self, NoHandshake};
use super::query::Query;
use super::redirect::redirect;
use super::refusal::{HttpRefusal, log_no_entry};
use crate::core::Core;
use crate::crowd::Place;
use crate::links::Offer;
use crate::proxies::Unclear;
use crate::session::PeerRequest;
use crate::stats::{HandshakeFailure, IoStats};
use crate::{Answer, Audience, Form, Page, Visitor};

/// The header of a hub's own proof (RFC 9110, 11.6.3).
const AUTHENTICATION_INFO: HeaderName = HeaderName::from_static("authentication-info");

/// The other end of an upgraded connection.
#[derive(Debug)]
pub(super) enum Guest {
    Hub {
        hub: HubId,
        legacy: bool,
        auth: LinkAuth,
    },
    /// A peer.
    Peer(PeerRequest),
    /// A client that is refused by a close frame with this code and text.
    Refused(u16, String),
}

/// The reply to a request.
pub(super) enum Reply {
    /// A page or a refusal. Contains the body of the request, if the page may depend on it.
    Page(Answer, Option<Incoming>),
    /// The answer that upgrades the connection, and the other end of the upgraded connection.
    Upgrade(Response<Full<Bytes>>, Guest),
}

impl Reply {
    fn now(response: Response<Full<Bytes>>) -> Self {
        Self::Page(Answer::Now(response), None)
    }
}

/// What is known about the sender of a request.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) entrance: Entrance,
    /// The client's address, as trusted proxies name it.
    pub(super) address: SocketAddr,
    /// Whether the client's address is known. If trusted proxies name two clients or send a malformed header, this is
    /// false, and `address` is the address of the proxy.
    pub(super) is_clear: bool,
    /// Whether a proxy has named the address in a header. A connection whose client a proxy names has not been counted
    /// for the client's address yet.
    pub(super) is_proxied: bool,
    /// Whether the client uses TLS, as far as is known.
    pub(super) is_tls: bool,
    /// Whether the client has a verified client certificate.
    pub(super) is_certified: bool,
    /// The connection's place among the connections of its address.
    pub(super) place: &'a Cell<Option<Place>>,
}

/// Answers a request.
pub(super) fn answer(door: &Door, caller: Caller<'_>, core: &RefCell<Core>, mut request: Request<Incoming>) -> Reply {
    let query = Query::of(&request);
    let is_get = request.method() == Method::GET;
    let wants_socket = match request.uri().path() {
        "/ws" | "/ws/" => is_get,
        "/" => is_get && (handshake::wants_websocket(&request) || query.peer_id.is_some()),
        _ => false,
    };
    let mut core = core.borrow_mut();
    let is_draining = core.is_draining();
    let now = core.now().at;
    let names_protocol = wants_socket && handshake::offers(request.headers(), CLIENT_SUBPROTOCOL);
    let offer = Offer::of(request.headers());
    let host = handshake::check_host(request.version(), request.headers());
    let origin = request.headers().get(ORIGIN).cloned();
    if caller.entrance == Entrance::Redirect
        && let Some(door) = door.redirect
    {
        core.stats_mut().http_requests += 1;
        if wants_socket {
            core.refusals_mut().count(HandshakeFailure::WrongPort);
        }
        return Reply::now(redirect(&request, door.https_port));
    }
    if !wants_socket {
        core.stats_mut().http_requests += 1;
        if caller.entrance != Entrance::Hubs && host.is_ok() && caller.is_clear {
            let own = door.admin_port.is_none() || caller.entrance == Entrance::Admin;
            let audience = if own { Audience::Operators } else { Audience::Public };
            let has_token = door.auth_token.as_deref().is_some_and(|token| query.shows(request.headers(), token));
            let visitor = Visitor { audience, has_token, address: caller.address, is_tls: caller.is_tls };
            let (parts, incoming) = request.into_parts();
            return Reply::Page((door.pages)(&parts, visitor), Some(incoming));
        }
    }
    let mut refuse = |refusal: HttpRefusal, request: &mut Request<Incoming>| {
        let close = refusal.close_frame();
        let HttpRefusal { failure, status, text, headers, retry_after, token, challenge, is_counted } = refusal;
        if (wants_socket && is_counted) || matches!(failure, HandshakeFailure::BadRequest | HandshakeFailure::Forwarded)
        {
            core.refusals_mut().count_request((failure, token), caller.address, &text);
        }
        if let Some((code, text)) = close.filter(|_| names_protocol && handshake::check(request).is_ok())
            && let Ok((response, _)) = upgrade::upgrade(&mut *request)
        {
            return Reply::Upgrade(switched(response, Some(CLIENT_SUBPROTOCOL)), Guest::Refused(code, text));
        }
        let mut response = door.plain(status, text, origin.as_ref());
        for (name, value) in headers {
            response.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        if let Some(challenge) = challenge.and_then(|challenge| HeaderValue::from_str(&challenge).ok()) {
            response.headers_mut().append(WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        Reply::now(response)
    };
    if let Err(text) = host {
        let refusal = HttpRefusal::new(HandshakeFailure::BadRequest, StatusCode::BAD_REQUEST, text);
        // The client and the hub may disagree about where this request ends, so the connection is closed.
        return refuse(HttpRefusal { headers: &[("connection", "close")], ..refusal }, &mut request);
    }
    if !caller.is_clear {
        let refusal = HttpRefusal::new(HandshakeFailure::Forwarded, StatusCode::BAD_REQUEST, Unclear::EXPLAINED);
        return refuse(refusal, &mut request);
    }
    let legacy = offer == Offer::Nothing
        && handshake::wants_websocket(&request)
        && matches!(caller.entrance, Entrance::Both | Entrance::Hubs)
        && door.links.as_ref().is_some_and(|links| links.is_legacy(caller.address));
    let is_link = wants_socket && (legacy || matches!(offer, Offer::Spoken | Offer::Unknown));
    // The token, the id and the upgrade are checked in this order, as in the Go hub. The origin is checked first, so
    // that a page of a refused origin learns nothing about tokens. Peers and hubs have different tokens, so a peer's
    // token opens no link.
    let headers = request.headers();
    let mut proof = None;
    let checked = door.check_origin(headers).and_then(|()| {
        if is_link {
            let checked = door.check_hub((caller.entrance, caller.is_certified), offer, &query, headers, now);
            checked.map(|Admitted { hub, auth, own_proof }| {
                proof = own_proof;
                Guest::Hub { hub, legacy, auth }
            })
        } else {
            let peer = door.check_peer(caller.entrance, &query, headers);
            peer.map(|peer_request| Guest::Peer(PeerRequest { names_protocol, ..peer_request }))
        }
    });
    // A draining hub refuses new peers, because it would soon have to send them away. The hub keeps its links, and
    // accepts new links.
    let checked = checked.and_then(|guest| match guest {
        Guest::Peer(_) if is_draining => Err(door.draining()),
        Guest::Hub { .. } | Guest::Peer(_) | Guest::Refused(..) => Ok(guest),
    });
    planted("upgrade");
    let guest = match checked.and_then(|guest| handshake::check(&request).map(|()| guest).map_err(HttpRefusal::from)) {
        Ok(guest) => guest,
        Err(refusal) => return refuse(refusal, &mut request),
    };
    if caller.is_proxied
        && let Guest::Peer(_) = guest
    {
        match door.enter(caller.address) {
            Ok(mut entered) => {
                entered.iter_mut().for_each(Place::finish);
                caller.place.set(entered);
            }
            Err(no) => {
                log_no_entry(&door.gate, no, caller.address);
                return refuse(HttpRefusal::before_reading(no, door.gate.retry_after()), &mut request);
            }
        }
    }
    let Ok((response, _)) = upgrade::upgrade(&mut request) else {
        return refuse(NoHandshake::NotAnUpgrade.into(), &mut request);
    };
    let guest = match guest {
        Guest::Peer(peer_request) => {
            let stats = core.stats_mut();
            stats.tokens_accepted += u64::from(peer_request.grant.is_some());
            let resume = resumed(door, &query, &peer_request.peer, stats);
            Guest::Peer(PeerRequest { resume, ..peer_request })
        }
        Guest::Hub { .. } | Guest::Refused(..) => guest,
    };
    let protocol = match offer {
        Offer::Spoken => Some(SUBPROTOCOL),
        Offer::Nothing | Offer::Other | Offer::Unknown => names_protocol.then_some(CLIENT_SUBPROTOCOL),
    };
    let mut response = switched(response, protocol);
    if let Some(proof) = proof.and_then(|proof| HeaderValue::from_str(&proof).ok()) {
        response.headers_mut().insert(AUTHENTICATION_INFO, proof);
    }
    Reply::Upgrade(response, guest)
}

/// The answer that upgrades a connection, with the subprotocol that the hub selects.
fn switched<B>(response: Response<B>, protocol: Option<&'static str>) -> Response<Full<Bytes>> {
    let mut response = response.map(|_| Full::default());
    if let Some(protocol) = protocol {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    response
}

/// Checks the resume secret of a request. A wrong secret is counted, and the peer is admitted as if it had sent no
/// secret.
fn resumed(door: &Door, query: &Query, peer: &PeerId, stats: &mut IoStats) -> Option<Lineage> {
    let checked =
        query.resume.as_deref().filter(|shown| !shown.is_empty()).map(|shown| door.resume_keys.check(peer, shown));
    checked?.map_err(|wrong| stats.resumes[wrong as usize] += 1).ok()
}

/// Reads the body of a form, and answers it.
pub(super) async fn answer_form(
    door: &Door,
    form: Form,
    body: Option<Incoming>,
    origin: Option<&HeaderValue>,
) -> Answer {
    let Some(body) = body else { return form(Bytes::new()) };
    match Limited::new(body, MAX_FORM_BYTES).collect().await {
        Ok(body) => form(body.to_bytes()),
        Err(_) => {
            let text =
                format!("the body ends early, or has more than {MAX_FORM_BYTES} bytes: send the fields of a form\n");
            let mut response = door.plain(StatusCode::PAYLOAD_TOO_LARGE, text, origin);
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            Answer::Now(response)
        }
    }
}

/// Waits until the rate limit allows the page, and then for the page. Refuses the request if the wait would be too
/// long.
pub(super) async fn page_in_turn(
    door: &Door,
    caller: Caller<'_>,
    core: &RefCell<Core>,
    (page, readers): (Page, Readers),
    origin: Option<&HeaderValue>,
) -> Response<Full<Bytes>> {
    match in_turn(door, caller, core, readers, origin).await {
        Ok(()) => page.await,
        Err(refusal) => refusal,
    }
}

/// Waits until the rate limit allows another page.
///
/// # Errors
///
/// Returns the refusal if the wait would be too long.
pub(super) async fn in_turn(
    door: &Door,
    caller: Caller<'_>,
    core: &RefCell<Core>,
    readers: Readers,
    origin: Option<&HeaderValue>,
) -> Result<(), Response<Full<Bytes>>> {
    let rates = &door.page_rates[readers as usize];
    let turn = rates.borrow_mut().take(caller.address.ip(), Instant::now());
    let Some(wait) = turn else {
        core.borrow_mut().stats_mut().pages_refused += 1;
        return Err(door.too_many(origin));
    };
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    Ok(())
}
