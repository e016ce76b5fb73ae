//! The page `/admin`, at which operators log in and send orders.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, HeaderValue, LOCATION, ORIGIN,
    REFERRER_POLICY, SET_COOKIE, WWW_AUTHENTICATE,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use proto::limits::WRONG_TOKEN_DELAY;
use serde::Serialize;
use shard::{Answer, Visitor};
use tracing::info;

use super::{PATHS, Site, accepted, json, media_type, plain, restrict, text};
use crate::admin::{self, Act, Entry, Outcome, is_own_page, page};

/// The path of the form for the token.
const PATH: &str = "/admin";

/// The answer to all requests below [`PATH`], if there is no ADMIN_TOKEN.
const NO_TOKEN: &str =
    "this hub accepts no orders over HTTP: set ADMIN_TOKEN on it, and send it as Authorization: Bearer";

/// The refusal of an order that a browser sends for a page of another host.
const FOREIGN: &str = "with a cookie, the Origin header must name this host: send orders from the page /admin, or send \
                       Authorization: Bearer";

/// The refusal of a token in the form that a page of another host sends.
const FOREIGN_FORM: &str = "the Origin header must name this host: open the page /admin of this hub, and sign in there";

/// The answer to an order.
#[derive(Serialize)]
struct Done<'a> {
    act: &'static str,
    outcome: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<&'a str>,
    /// Seconds of the exclusion, or of the drain.
    #[serde(skip_serializing_if = "Option::is_none")]
    secs: Option<u64>,
    /// The number of peers that were removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<usize>,
    /// The hub at which the peer is.
    #[serde(skip_serializing_if = "Option::is_none")]
    hub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
}

/// The part of a path after [`PATH`]. It is empty for [`PATH`] itself.
pub(super) fn below(path: &str) -> Option<&str> {
    let rest = path.strip_prefix(PATH)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

impl Site {
    /// Answers a request to a path below [`PATH`].
    pub(super) fn admin(self: &Arc<Self>, name: &str, request: &Parts, visitor: Visitor) -> Answer {
        let method = &request.method;
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if !self.gatekeeper.is_closed() {
            return now(method, plain(StatusCode::FORBIDDEN, NO_TOKEN));
        }
        match name {
            "" if reads => self.office(request, visitor),
            "" if method == Method::POST => self.log_in(request, visitor),
            "logout" if method == Method::POST => {
                let mut response = see(PATH);
                if is_own_page(&request.headers, visitor)
                    && let Some(cookie) = self.gatekeeper.log_out(&request.headers, visitor)
                {
                    response.headers_mut().insert(SET_COOKIE, cookie);
                }
                now(method, response)
            }
            name if admin::NAMES.contains(&name) && method == Method::POST => self.order(name, request, visitor),
            name if name.is_empty() || name == "logout" || admin::NAMES.contains(&name) => {
                let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed: use POST");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
                now(method, response)
            }
            _ => now(
                method,
                plain(StatusCode::NOT_FOUND, "there is no such order: use kick, close-network, drain or undrain"),
            ),
        }
    }

    /// The page for operators, or the form for the token.
    fn office(&self, request: &Parts, visitor: Visitor) -> Answer {
        let entry = self.gatekeeper.check(&request.headers, visitor);
        if entry.may_read() {
            now(&request.method, html(StatusCode::OK, page::office()))
        } else {
            self.refusal(entry, request, visitor, PATH)
        }
    }

    /// Checks the token of the form.
    fn log_in(self: &Arc<Self>, request: &Parts, visitor: Visitor) -> Answer {
        let site = Arc::clone(self);
        if request.headers.contains_key(ORIGIN) && !is_own_page(&request.headers, visitor) {
            self.gatekeeper.refused(visitor, "foreign-page");
            return now(&request.method, plain(StatusCode::FORBIDDEN, FOREIGN_FORM));
        }
        Answer::Form(Box::new(move |form| {
            let field = |name: &str| form_urlencoded::parse(&form).find(|(key, _)| key == name).map(|(_, value)| value);
            let token = field("token").unwrap_or_default();
            let wanted = field("next").unwrap_or_default();
            let next = PATHS.into_iter().map(|(path, _)| path).find(|path| *path == wanted).unwrap_or(PATH);
            match site.gatekeeper.log_in(token.trim().as_bytes(), visitor) {
                Ok(cookie) => {
                    let mut response = see(next);
                    response.headers_mut().insert(SET_COOKIE, cookie);
                    now(&Method::POST, response)
                }
                Err(entry) => {
                    site.gatekeeper.refused(visitor, entry.label());
                    denied(&Method::POST, entry, Some(next))
                }
            }
        }))
    }

    /// The answer to a request without a valid token or cookie. A browser gets the form for the token, and a program
    /// gets a sentence.
    pub(super) fn refusal(&self, entry: Entry, request: &Parts, visitor: Visitor, next: &'static str) -> Answer {
        if entry != Entry::Unknown {
            self.gatekeeper.refused(visitor, entry.label());
        }
        denied(&request.method, entry, wants_html(request).then_some(next))
    }

    /// Executes an order.
    fn order(self: &Arc<Self>, name: &str, request: &Parts, visitor: Visitor) -> Answer {
        let entry = self.gatekeeper.check(&request.headers, visitor);
        if !entry.may_read() {
            return self.refusal(entry, request, visitor, PATH);
        }
        // A browser that ignores SameSite could send the operator's cookie with an order of another page. So the Origin
        // header is checked.
        if entry == Entry::Cookie && !is_own_page(&request.headers, visitor) {
            self.gatekeeper.refused(visitor, "foreign-page");
            return now(&request.method, plain(StatusCode::FORBIDDEN, FOREIGN));
        }
        let (site, name, in_html) = (Arc::clone(self), name.to_owned(), wants_html(request));
        Answer::Form(Box::new(move |form| {
            let act = match Act::read(&name, &form) {
                Ok(act) => act,
                Err(sentence) if in_html => {
                    return now(&Method::POST, html(StatusCode::BAD_REQUEST, page::result(&sentence)));
                }
                Err(sentence) => return now(&Method::POST, plain(StatusCode::BAD_REQUEST, &sentence)),
            };
            Answer::ForOperator(Box::pin(async move {
                let outcome = site.desk.order(act.clone()).await;
                log(&act, &outcome, entry, visitor);
                sealed(&Method::POST, done(&act, &outcome, in_html))
            }))
        }))
    }
}

/// Logs who gave which order, and its outcome.
fn log(act: &Act, outcome: &Outcome, entry: Entry, visitor: Visitor) {
    let (peer, network, span) = act.subject();
    info!(
        act = act.label(),
        by = entry.label(),
        address = %visitor.address,
        peer = peer.map(tracing::field::display),
        network,
        secs = span.map(|span| span.as_secs()),
        outcome = outcome.label(),
        "admin_act"
    );
}

fn done(act: &Act, outcome: &Outcome, in_html: bool) -> Response<Full<Bytes>> {
    let sentence = outcome.explain(act);
    let status = outcome.status(act);
    if in_html {
        return html(status, page::result(&sentence));
    }
    let (peer, network, span) = act.subject();
    let mut body = Done {
        act: act.label(),
        outcome: outcome.label(),
        message: &sentence,
        peer: peer.map(|peer| peer.to_string()),
        network,
        secs: span.map(|span| span.as_secs()),
        members: None,
        hub: None,
        url: None,
    };
    match outcome {
        Outcome::NetworkClosed { members, .. } => body.members = Some(*members),
        Outcome::Draining { over } => body.secs = Some(over.as_secs()),
        Outcome::Elsewhere { hub, url, .. } => (body.hub, body.url) = (Some(hub.to_string()), url.as_deref()),
        Outcome::Closed { .. }
        | Outcome::Removed { .. }
        | Outcome::NotAMember { .. }
        | Outcome::NotConnected { .. }
        | Outcome::Undrained
        | Outcome::NotDraining
        | Outcome::Stopping
        | Outcome::Busy
        | Outcome::Unknown => {}
    }
    json(status, &body)
}

/// The refusal of a visitor who is not an operator. `next` is the path after a login, for a browser. A wrong token is
/// answered later ([`delay`]), and ends the connection, so that a connection cannot be used for a series of guesses.
fn denied(method: &Method, entry: Entry, next: Option<&'static str>) -> Answer {
    let sentence = if entry == Entry::Wrong {
        "the token is wrong: send ADMIN_TOKEN of this hub"
    } else {
        "this page is for operators: send Authorization: Bearer with ADMIN_TOKEN"
    };
    let mut response = match next {
        Some(next) => html(StatusCode::UNAUTHORIZED, page::login(next, (entry == Entry::Wrong).then_some(sentence))),
        None => plain(StatusCode::UNAUTHORIZED, sentence),
    };
    // An answer with the status 401 must have this header (RFC 9110, 11.6.1).
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="peerpigeon""#));
    if entry != Entry::Wrong {
        return now(method, response);
    }
    let mut response = sealed(method, response);
    Answer::Soon(Box::pin(async move {
        delay(&mut response).await;
        response
    }))
}

/// Delays the answer to a wrong token, and closes its connection.
pub(super) async fn delay(response: &mut Response<Full<Bytes>>) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    tokio::time::sleep(WRONG_TOKEN_DELAY).await;
}

/// Redirects the browser to this path, with GET (303).
fn see(path: &'static str) -> Response<Full<Bytes>> {
    let mut response = plain(StatusCode::SEE_OTHER, path);
    response.headers_mut().insert(LOCATION, HeaderValue::from_static(path));
    response
}

fn html(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    text(status, "text/html; charset=utf-8", body)
}

/// Whether a browser sends the request to open a page. Programs do not name `text/html` in `Accept`.
fn wants_html(request: &Parts) -> bool {
    accepted(request, ACCEPT).any(|range| media_type(range) == "text/html")
}

fn now(method: &Method, response: Response<Full<Bytes>>) -> Answer {
    Answer::Now(sealed(method, response))
}

/// Adds the headers of all answers below [`PATH`]. Pages of other origins may not read answers below [`PATH`].
pub(super) fn sealed(method: &Method, mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let length = hyper::body::Body::size_hint(response.body()).exact().unwrap_or(0);
    if method == Method::HEAD {
        *response.body_mut() = Full::default();
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(policy) = &*page::POLICY {
        headers.insert(CONTENT_SECURITY_POLICY, policy.clone());
    }
    restrict(headers);
    // With the policy `no-referrer`, browsers would send the forms of this page with `Origin: null`.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}
