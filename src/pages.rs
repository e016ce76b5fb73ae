//! The HTTP endpoints other than the WebSocket.
//!
//! JSON answers have the fields of the Go hub, in the same order, because dashboards and clients read them. New fields
//! are between or after them.
//!
//! A separate thread renders the large pages (`rendered`), and the shards only copy the finished bytes.

mod admin;
mod assets;
mod body;
mod clock;
mod dashboard;
mod mesh;
mod render;
mod rendered;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use ::mesh::MeshReading;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use proto::envelope::HubStatus;
use serde::Serialize;
use shard::{Answer, Audience, Gauges, NetworkList, Pages, ShardReading, Visitor};
use tokio::sync::watch;

use crate::admin::{Desk, Entry, Gatekeeper};
use crate::certificates::TlsFacts;
use crate::config::Config;
use crate::lifecycle::{Fullness, Lifecycle, Stage};
use crate::token_keys::KeyFacts;
use crate::traces::TraceFacts;
use crate::watchdog::{Stuck, Watchdog};
use assets::Asset;
use dashboard::Live;
use render::{PageKind, Renderer};
use rendered::Rendered;

pub use dashboard::Sampler;

/// The data that the pages show.
#[derive(Debug)]
pub struct HubFacts {
    /// Start time of the hub.
    pub started: Instant,
    /// Start time by the wall clock.
    pub started_at: SystemTime,
    /// The bound port. It differs from PORT if PORT is 0.
    pub port: u16,
    /// Maximum number of open WebSockets. The maximum is MAX_CONNECTIONS, or less if the process may open too few
    /// files.
    pub max_connections: usize,
    /// Counters shared by all shards.
    pub gauges: Arc<Gauges>,
    /// The statistics that each shard published last, in the order of the shards.
    pub readings: Vec<watch::Receiver<Arc<ShardReading>>>,
    /// The names of the largest networks.
    pub networks: Arc<NetworkList>,
    /// The state that the mesh published last; empty without a mesh.
    pub mesh: watch::Receiver<Arc<MeshReading>>,
    /// Receives the figures of the hub for other hubs.
    pub status: watch::Sender<Option<Arc<HubStatus>>>,
    /// The stage of the hub.
    pub lifecycle: Lifecycle,
    /// The hub's watchdog.
    pub watchdog: Watchdog,
    /// The hub's certificates; `None` without TLS.
    pub tls: Option<TlsFacts>,
    /// How often the keys of tokens were loaded. `None` if the hub checks no JWTs.
    pub token_keys: Option<KeyFacts>,
    /// Numbers of spans. `None` if the hub sends no traces.
    pub traces: Option<TraceFacts>,
}

impl HubFacts {
    /// Open WebSockets.
    fn connections(&self) -> usize {
        self.gauges.connections.load(Ordering::Relaxed)
    }
}

/// Creates the pages of a hub, and the thread that renders them. `gatekeeper` decides who is an operator, and
/// operators' orders go to `desk`. The thread calls `turned` once a tick. The thread ends when the last copy of the
/// pages is dropped. The sampler fills the history of the live view while it runs.
///
/// # Errors
///
/// If the thread cannot be started.
pub fn pages(
    config: Arc<Config>,
    facts: HubFacts,
    gatekeeper: Gatekeeper,
    desk: Desk,
    turned: impl Fn() + Send + 'static,
) -> io::Result<(Pages, Sampler)> {
    let (fullness, facts) = (Arc::new(Fullness::of(facts.max_connections)), Arc::new(facts));
    let renderer = Renderer::new(Arc::clone(&config), Arc::clone(&facts), Arc::clone(&fullness));
    let rendered = Rendered::start(renderer, turned)?;
    let (live, sampler) = dashboard::live(&config, &facts, &fullness);
    let site = Arc::new(Site { config, facts, fullness, gatekeeper, desk, rendered, live });
    Ok((Arc::new(move |request, visitor| site.answer(request, visitor)), sampler))
}

/// The values of the label `page`, one for each rendered page.
#[cfg(test)]
pub(crate) fn labels() -> impl Iterator<Item = &'static str> {
    PageKind::ALL.into_iter().map(PageKind::label)
}

struct Site {
    config: Arc<Config>,
    facts: Arc<HubFacts>,
    fullness: Arc<Fullness>,
    gatekeeper: Gatekeeper,
    desk: Desk,
    rendered: Rendered,
    live: Live,
}

#[derive(Clone, Copy, Debug)]
enum Page {
    Dashboard,
    Health,
    HubStats,
    Hubs,
    Index,
    Livez,
    Metrics,
    Readyz,
    Stats,
    WebSocket,
}

impl Page {
    /// Whether the page is for everyone, even if operators have a separate port (ADMIN_PORT).
    fn is_public(self) -> bool {
        match self {
            Self::Health | Self::Index | Self::Livez | Self::Readyz | Self::WebSocket => true,
            Self::Dashboard | Self::HubStats | Self::Hubs | Self::Metrics | Self::Stats => false,
        }
    }
}

/// The paths of the pages. The WebSocket has the path `/ws`, and also `/` for clients that omit the path.
const PATHS: [(&str, Page); 10] = [
    ("/", Page::Index),
    (dashboard::PATH, Page::Dashboard),
    ("/health", Page::Health),
    ("/hubs", Page::Hubs),
    ("/hubstats", Page::HubStats),
    ("/livez", Page::Livez),
    ("/metrics", Page::Metrics),
    ("/readyz", Page::Readyz),
    ("/stats", Page::Stats),
    ("/ws", Page::WebSocket),
];

/// The answer of /readyz while the hub is full.
pub const FULL: &str = "full";

const METHODS: &str = "GET, HEAD, OPTIONS";

/// Time for which a browser may cache a preflight, in seconds. Browsers cache no preflight for longer.
const PREFLIGHT_SECS: &str = "86400";

/// The target of a path.
enum Found {
    Asset(&'static Asset),
    Page(Page),
}

/// The answer to a request.
enum Reply {
    Now(Response<Full<Bytes>>),
    /// The refusal of a visitor who is not an operator.
    Denied(Answer),
    Page(PageKind, Entry),
}

impl Site {
    fn answer(self: &Arc<Self>, request: &Parts, visitor: Visitor) -> Answer {
        let (method, origin) = (request.method.clone(), request.headers.get(ORIGIN));
        if visitor.audience == Audience::Operators
            && method != Method::OPTIONS
            && let Some(name) = admin::below(path_of(request))
        {
            return self.admin(name, request, visitor);
        }
        if visitor.audience == Audience::Operators
            && method != Method::OPTIONS
            && let Some(name) = dashboard::below(path_of(request))
        {
            return self.dashboard(name, request, visitor);
        }
        match self.reply(request, visitor) {
            Reply::Now(response) => Answer::Now(self.finish(&method, origin, response)),
            Reply::Denied(answer) => answer,
            Reply::Page(kind, entry) => {
                let (site, origin) = (Arc::clone(self), origin.cloned());
                let answer = if entry.is_proved() { Answer::ForOperator } else { Answer::Soon };
                // The answer shows whether the token is right, so the answer to a wrong token is delayed here, too.
                let is_wrong = entry == Entry::Wrong;
                if is_wrong {
                    self.gatekeeper.refused(visitor, entry.label());
                }
                answer(Box::pin(async move {
                    let body = site.rendered.page(kind).await;
                    let response =
                        body.map_or_else(unavailable, |body| text(StatusCode::OK, kind.content_type(), body));
                    let mut response = site.finish(&method, origin.as_ref(), response);
                    if is_wrong {
                        admin::delay(&mut response).await;
                    }
                    response
                }))
            }
        }
    }

    /// Adds the common headers to a response.
    fn finish(
        &self,
        method: &Method,
        origin: Option<&HeaderValue>,
        mut response: Response<Full<Bytes>>,
    ) -> Response<Full<Bytes>> {
        let length = hyper::body::Body::size_hint(response.body()).exact().unwrap_or(0);
        if method == Method::HEAD {
            *response.body_mut() = Full::default();
        }
        let has_length = method != Method::OPTIONS && response.status() != StatusCode::NOT_MODIFIED;
        let headers = response.headers_mut();
        self.config.cors.put(origin, headers);
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        restrict(headers);
        if has_length {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        response
    }

    fn reply(&self, request: &Parts, visitor: Visitor) -> Reply {
        if request.method == Method::OPTIONS {
            return Reply::Now(self.preflight(request));
        }
        let path = path_of(request);
        let operators = visitor.audience == Audience::Operators;
        let shown = || PATHS.into_iter().filter(|(_, page)| operators || page.is_public());
        let paths = || shown().map(|(path, _)| path).collect();
        let page = || shown().find(|(known, _)| *known == path).map(|(_, page)| Found::Page(page));
        let Some(found) = self.asset(path, request, operators).map(Found::Asset).or_else(page) else {
            return Reply::Now(json(StatusCode::NOT_FOUND, &body::Lost::new("not found", paths())));
        };
        if request.method != Method::GET && request.method != Method::HEAD {
            let lost = body::Lost::new("method not allowed", paths());
            let mut response = json(StatusCode::METHOD_NOT_ALLOWED, &lost);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
            return Reply::Now(response);
        }
        let page = match found {
            Found::Asset(asset) => return Reply::Now(asset.answer(request)),
            Found::Page(page) => page,
        };
        // Everybody may request /health. If there is an ADMIN_TOKEN, only operators see its numbers.
        let entry = match page {
            Page::Index | Page::Livez | Page::Readyz | Page::WebSocket => Entry::Open,
            Page::Dashboard | Page::Health | Page::HubStats | Page::Hubs | Page::Metrics | Page::Stats => {
                self.gatekeeper.check(&request.headers, visitor)
            }
        };
        if !page.is_public() && !entry.may_read() {
            let path = PATHS.into_iter().map(|(known, _)| known).find(|known| *known == path).unwrap_or("/admin");
            return Reply::Denied(self.refusal(entry, request, visitor, path));
        }
        Reply::Now(match page {
            // Requests of operators for the live view have already been answered.
            Page::Dashboard => json(StatusCode::NOT_FOUND, &body::Lost::new("not found", paths())),
            Page::Health if entry.may_read() => return Reply::Page(PageKind::Health, entry),
            Page::Health => return Reply::Page(PageKind::HealthBrief, entry),
            Page::HubStats => return Reply::Page(PageKind::HubStats, entry),
            Page::Hubs => return Reply::Page(PageKind::Hubs, entry),
            Page::Index => json(StatusCode::OK, &body::Index::new(paths())),
            Page::Livez => match self.stuck() {
                None => plain(StatusCode::OK, "ok"),
                Some(stuck) => plain(StatusCode::SERVICE_UNAVAILABLE, &stuck),
            },
            Page::Metrics if !wants_json(request) => return Reply::Page(PageKind::Metrics, entry),
            Page::Metrics if self.may_read_names(request, visitor) => {
                return Reply::Page(PageKind::MetricsJsonNames, entry);
            }
            Page::Metrics => return Reply::Page(PageKind::MetricsJson, entry),
            Page::Readyz => self.readyz(),
            Page::Stats => return Reply::Page(PageKind::Stats, entry),
            Page::WebSocket => {
                let lost = body::Lost::new("this path accepts WebSocket handshakes", paths());
                json(StatusCode::BAD_REQUEST, &lost)
            }
        })
    }

    /// Finds the requested file by its path. A browser at `/` gets the playground.
    fn asset(&self, path: &str, request: &Parts, operators: bool) -> Option<&'static Asset> {
        if operators && let Some(found) = Asset::of_the_dashboard(path) {
            return Some(found);
        }
        // ADMIN_PORT accepts no peers, so the browser client and the playground are not served there.
        if operators && self.config.admin_port.is_some() {
            return None;
        }
        let playground = self.config.playground;
        if path == "/" { Asset::page(request).filter(|_| playground) } else { Asset::at(path, playground) }
    }

    fn readyz(&self) -> Response<Full<Bytes>> {
        let stage = self.facts.lifecycle.stage();
        if stage != Stage::Ready {
            return plain(StatusCode::SERVICE_UNAVAILABLE, stage.label());
        }
        if let Some(stuck) = self.stuck() {
            return plain(StatusCode::SERVICE_UNAVAILABLE, &stuck);
        }
        if let Some(why) = self.facts.tls.as_ref().and_then(TlsFacts::lacks_certificate) {
            return plain(StatusCode::SERVICE_UNAVAILABLE, &why);
        }
        if !self.config.ready_when_full && self.fullness.update(self.facts.connections()) {
            return plain(StatusCode::SERVICE_UNAVAILABLE, FULL);
        }
        plain(StatusCode::OK, stage.label())
    }

    /// A sentence about a thread that hangs, if there is one.
    fn stuck(&self) -> Option<String> {
        let Stuck { thread, since } = self.facts.watchdog.stuck()?;
        Some(format!("stuck: thread {thread} has made no progress for {} s", since.as_secs()))
    }

    /// Whether a visitor may read the names of networks. Some networks are protected only by a secret name.
    ///
    /// With AUTH_TOKEN, visitors with the token may read the names. Without AUTH_TOKEN, or if there is an ADMIN_PORT,
    /// programs and pages of allowed origins may read the names. Pages of other origins may not read the names, because
    /// any web page could send the request from its user's browser.
    fn may_read_names(&self, request: &Parts, visitor: Visitor) -> bool {
        let is_open = self.config.auth_token.is_none() || self.config.admin_port.is_some();
        // If there is an ADMIN_TOKEN, requests without this token have been refused already.
        visitor.has_token || self.config.admin_token.is_some() || is_open && !self.is_of_a_strange_page(request)
    }

    /// Whether a browser sends the request for a web page whose origin the settings do not name. The setting `*` does
    /// not name an origin.
    fn is_of_a_strange_page(&self, request: &Parts) -> bool {
        match request.headers.get(ORIGIN) {
            Some(origin) => self.config.cors.is_open() || !self.config.cors.allow(origin),
            // Same-origin requests have no Origin header, and DNS rebinding makes a foreign page same-origin. `none`
            // means that a user typed the address.
            None => request.headers.get(SEC_FETCH_SITE).is_some_and(|site| site != "none"),
        }
    }

    /// The answer to a CORS preflight, which is a request with the method OPTIONS.
    fn preflight(&self, request: &Parts) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static(METHODS));
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECS));
        let cors = &self.config.cors;
        let allowed = cors.is_open() || request.headers.get(ORIGIN).is_some_and(|origin| cors.allow(origin));
        // Tracing libraries in web pages add headers such as `traceparent`. The hub ignores these headers, so every
        // requested header is allowed.
        let asked = request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS).filter(|_| allowed);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.unwrap_or(&USUAL_HEADERS).clone());
        let private = request.headers.get(ACCESS_CONTROL_REQUEST_PRIVATE_NETWORK);
        if allowed && self.config.cors_private_network && private.is_some_and(|asked| asked == "true") {
            headers.insert(ACCESS_CONTROL_ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
        response
    }
}

/// The allowed headers, for a preflight that names no headers or comes from an origin that is not allowed.
static USUAL_HEADERS: HeaderValue = HeaderValue::from_static("Accept, Authorization, Cache-Control, Content-Type");

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The request header with which a browser asks whether a public page may access a private network (Private Network
/// Access).
const ACCESS_CONTROL_REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");

const ACCESS_CONTROL_ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

/// Adds the headers that keep browsers from guessing another media type, and from showing the answer in a frame of
/// another page.
fn restrict(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
}

fn unavailable() -> Response<Full<Bytes>> {
    let sentence = "this page was not rendered in time: retry, and check the log of the hub for overload or an error";
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, sentence);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

fn plain(status: StatusCode, sentence: &str) -> Response<Full<Bytes>> {
    text(status, "text/plain; charset=utf-8", format!("{sentence}\n"))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    // Structs of numbers and strings always serialize.
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    text(status, "application/json", body)
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The path of a request, without a slash at its end.
fn path_of(request: &Parts) -> &str {
    let path = request.uri.path();
    if path.len() > 1 { path.trim_end_matches('/') } else { path }
}

/// Whether /metrics is requested as JSON. Clients request JSON by `?format=`, or by an `Accept` that prefers JSON to
/// text or accepts both equally.
fn wants_json(request: &Parts) -> bool {
    let query = request.uri.query().unwrap_or_default();
    if let Some(format) = query.split('&').find_map(|pair| pair.strip_prefix("format=")) {
        return format.eq_ignore_ascii_case("json");
    }
    let liking = |types: &[&str]| {
        let named = accepted(request, ACCEPT).filter(|range| types.contains(&media_type(range).as_str()));
        named.map(quality).fold(0.0, f32::max)
    };
    let json = liking(&["application/json"]);
    json > 0.0 && json >= liking(&["text/plain", "application/openmetrics-text"])
}

/// The members of a comma-separated header.
fn accepted(request: &Parts, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = request.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(','))
}

fn media_type(range: &str) -> String {
    range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The `q` value of a media range, 0 to 1.
fn quality(range: &str) -> f32 {
    let parameters = range.split(';').skip(1).map(str::trim);
    let q = parameters.filter_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q="))).next();
    q.map_or(1.0, |q| q.parse().unwrap_or(0.0))
}
