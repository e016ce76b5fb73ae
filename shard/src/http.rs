//! HTTP requests, including WebSocket upgrades of peers and hubs.

mod gate;
mod handshake;
mod kept;
mod secure;
mod turns;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use fastwebsockets::upgrade;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use proto::envelope::{SUBPROTOCOL, TOKEN_WANTED};
use proto::limits::{MAX_REQUEST_HEAD_BYTES, REQUEST_HEAD_TIMEOUT};
use proto::{CloseReason, HubId, Keys, Lineage, PeerId, ResumeKeys, ShardId, is_secret, ws};
use thread::planted;
use tokio::net::TcpStream;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::{debug, warn};

use crate::config::{DoorConfig, FileShares};
use crate::core::Core;
use crate::crowd::{NoEntry, Place};
use crate::links::{Admission, LinkDoor, LinkSocket, Offer};
use crate::proxies::{self, NoHead, Unclear};
use crate::session::{Arrival, HandOff, Seat};
use crate::socket::{RequestSocket, Socket};
use crate::stats::{HandshakeFailure, IoStats};
use crate::{Answer, Audience, Gauges, Page, Pages, Visitor};
pub(crate) use gate::Gate;
use handshake::NoHandshake;
use kept::{Kept, Stream};
pub(crate) use secure::Handshakes;
use secure::NoTls;
use turns::Turns;

/// Admission: who may connect, and where sockets go.
pub(crate) struct Door {
    pub(crate) shards: u16,
    pub(crate) keys: Keys,
    pub(crate) resume_keys: ResumeKeys,
    pub(crate) max_connections: usize,
    pub(crate) files: DoorFiles,
    pub(crate) gauges: Arc<Gauges>,
    /// AUTH_TOKEN.
    pub(crate) auth_token: Option<Arc<str>>,
    pub(crate) links: Option<LinkDoor>,
    /// ADMIN_PORT, if it is a separate port.
    pub(crate) admin_port: Option<u16>,
    /// The ports that speak TLS, and the handshakes there.
    pub(crate) tls: Option<(Arc<[u16]>, Handshakes)>,
    /// Decides before anything is read.
    pub(crate) gate: Gate,
    pub(crate) config: DoorConfig,
    pub(crate) pages: Pages,
    pub(crate) homes: Arc<[mpsc::Sender<HandOff>]>,
    /// Rate limits of pages: at ADMIN_PORT, and at the other ports, so that the public cannot use up the operators'
    /// share.
    pub(crate) turns: [RefCell<Turns>; 2],
}

/// The kind of connections that a listener accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entrance {
    /// Only pages.
    Admin,
    Both,
    Hubs,
    Peers,
}

impl Entrance {
    /// For the listener of this port.
    pub(crate) fn at(port: u16, links: Option<&LinkDoor>, admin: Option<u16>) -> Self {
        if admin == Some(port) {
            return Self::Admin;
        }
        match links.map(|links| links.port) {
            None => Self::Peers,
            Some(None) => Self::Both,
            Some(Some(own)) if own == port => Self::Hubs,
            Some(Some(_)) => Self::Peers,
        }
    }
}

/// Maximum number of sockets of one kind of listener, counted over all shards.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub(crate) files: Arc<Semaphore>,
    pub(crate) wanted: Arc<Wanted>,
}

/// A listener without a connection to drop waits for a file. Another listener of the same kind drops a connection for
/// it.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    is_open: AtomicBool,
    others: Notify,
}

impl Wanted {
    /// Has another listener drop one connection.
    pub(crate) fn ask(&self) {
        self.is_open.store(true, Ordering::Relaxed);
        self.others.notify_waiters();
    }

    /// Waits until another listener asks.
    pub(crate) async fn asked(&self) {
        self.others.notified().await;
    }

    /// Accepts the request to drop a connection. Returns `false` if another listener has accepted it already.
    pub(crate) fn take(&self) -> bool {
        self.is_open.swap(false, Ordering::Relaxed)
    }
}

/// Each kind has a share of its own, so that a crowd of peers leaves files to links and operators.
#[derive(Clone, Debug)]
pub(crate) struct DoorFiles {
    peers: Share,
    links: Share,
    admin: Share,
}

impl DoorFiles {
    pub(crate) fn new(shares: FileShares) -> Self {
        let share = |files: usize| Share {
            files: Arc::new(Semaphore::new(files.clamp(1, Semaphore::MAX_PERMITS))),
            wanted: Arc::default(),
        };
        Self { peers: share(shares.peers), links: share(shares.links), admin: share(shares.admin) }
    }

    /// The share of a listener.
    pub(crate) fn at(&self, entrance: Entrance) -> Share {
        match entrance {
            Entrance::Admin => &self.admin,
            Entrance::Both | Entrance::Peers => &self.peers,
            Entrance::Hubs => &self.links,
        }
        .clone()
    }
}

/// An admitted peer or hub.
#[derive(Clone, Copy, Debug)]
enum Guest {
    Hub {
        hub: HubId,
        legacy: bool,
    },
    /// A peer, with the lineage that its resume secret proves.
    Peer(PeerId, Option<Lineage>),
}

/// The refusal of a WebSocket at the operators' port.
const ADMIN_ONLY: &str = "this port serves only pages for operators (ADMIN_PORT): connect WebSockets to PORT";

/// Maximum length of an origin in an answer and in the log, in bytes. The rest of a longer one is cut off.
const MAX_SHOWN_ORIGIN: usize = 256;

/// A refused request, with its answer.
struct Refusal {
    failure: HandshakeFailure,
    status: StatusCode,
    text: Cow<'static, str>,
    /// Headers required in this refusal.
    headers: &'static [(&'static str, &'static str)],
    /// After how many seconds to try again.
    retry_after: Option<u64>,
}

impl Refusal {
    fn new(failure: HandshakeFailure, status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { failure, status, text: text.into(), headers: &[], retry_after: None }
    }

    /// 401, with the required challenge (RFC 9110, 11.6.1; RFC 6750, 3).
    fn unauthorized(failure: HandshakeFailure, text: &'static str, token_shown: bool) -> Self {
        let headers: &[_] = if token_shown {
            &[("www-authenticate", r#"Bearer realm="peerpigeon", error="invalid_token""#)]
        } else {
            &[("www-authenticate", r#"Bearer realm="peerpigeon""#)]
        };
        Self { headers, ..Self::new(failure, StatusCode::UNAUTHORIZED, text) }
    }

    /// The refusal of a proxied client, with the answer that a direct client gets before its request is read.
    fn before_reading(no: NoEntry, retry_after: u64) -> Self {
        let refusal = Self::new(no.failure(), StatusCode::SERVICE_UNAVAILABLE, no.explain());
        Self { retry_after: Some(retry_after), ..refusal }
    }
}

impl From<NoHandshake> for Refusal {
    fn from(no: NoHandshake) -> Self {
        Self { headers: no.headers(), ..Self::new(HandshakeFailure::NotAnUpgrade, no.status(), no.explain()) }
    }
}

/// Serves one connection until it ends or becomes a WebSocket, which goes to its home shard or to the mesh. Sets
/// `let_in` if it becomes one.
pub(crate) async fn serve(
    door: Rc<Door>,
    (entrance, port): (Entrance, u16),
    core: Rc<RefCell<Core>>,
    mut stream: TcpStream,
    address: SocketAddr,
    (file, place): (OwnedSemaphorePermit, Option<Place>),
    let_in: Rc<Cell<bool>>,
) {
    let since = Instant::now();
    let (door, core) = (&*door, &*core);
    let (mut address, place) = (address, Cell::new(place));
    if door.config.proxies.expect_head(port, address.ip()) {
        match Box::pin(proxies::read_head(&mut stream, since)).await {
            Ok(Some(client)) => {
                address = client;
                match door.enter(client) {
                    Ok(entered) => place.set(entered),
                    Err(no) => {
                        count_no_entry(door, &mut core.borrow_mut(), no, client);
                        if let Ok(stream) = stream.into_std() {
                            door.gate.turn_away(&stream, no, door.speaks_tls(port));
                        }
                        return;
                    }
                }
            }
            Ok(None) => {}
            Err(NoHead::Gone) => return,
            Err(no) => return count_no_head(&mut core.borrow_mut(), &no, address),
        }
    }
    let socket = match &door.tls {
        Some((_, handshakes)) if door.speaks_tls(port) => match Box::pin(handshakes.shake_hands(stream, since)).await {
            Ok(stream) => {
                core.borrow_mut().stats_mut().tls_handshakes[usize::from(stream.tls().is_resumed())] += 1;
                RequestSocket::Tls(Box::new(stream))
            }
            Err(no) => return count_no_tls(&mut core.borrow_mut(), &no, address),
        },
        _ => RequestSocket::plain(stream),
    };
    let admitted: Cell<Option<(Guest, SocketAddr)>> = Cell::default();
    let kept = Rc::new(Kept::new(since));
    let service = service_fn(|request: Request<Incoming>| {
        let (kept, admitted, place) = (&*kept, &admitted, &place);
        let let_in = &let_in;
        // hyper returns a connection only if its answers can be moved.
        Box::pin(async move {
            let mut counted = place.take();
            counted.iter_mut().for_each(Place::finish);
            place.set(counted);
            kept.asked().await;
            let origin = request.headers().get(ORIGIN).cloned();
            let client = door.config.proxies.client(address, request.headers());
            let is_proxied = client.is_ok_and(|client| client != address);
            if door.config.proxies.seem_to_miss(address.ip(), request.headers()) && door.gate.free(address.ip()) {
                let detail = "this address sends the names of its clients, as a proxy does, so its connections are not limited: \
                    set TRUSTED_PROXIES to count each client";
                warn!(address = %address.ip(), detail, "proxy_not_named");
            }
            let caller =
                Caller { entrance, address: client.unwrap_or(address), is_clear: client.is_ok(), is_proxied, place };
            let response = match answer(door, caller, core, admitted, request) {
                Answer::Now(response) => response,
                Answer::Soon(page) => page_in_turn(door, caller, core, page, origin.as_ref()).await,
            };
            let_in.set(admitted.get().is_some());
            kept.answered();
            Ok::<_, std::convert::Infallible>(response)
        })
    });
    let stream = Stream { io: TokioIo::new(socket), kept: Rc::clone(&kept) };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(MAX_REQUEST_HEAD_BYTES)
        .serve_connection(stream, service);
    let mut connection = std::pin::pin!(Some(connection));
    let mut end = std::pin::pin!(std::future::poll_fn(|cx| match connection.as_mut().get_mut() {
        Some(connection) => connection.poll_without_shutdown(cx),
        None => std::task::Poll::Ready(Ok(())),
    }));
    let bad_request = || core.borrow_mut().stats_mut().handshake_failures[HandshakeFailure::BadRequest as usize] += 1;
    // hyper's own timeout does not distinguish the first head from a pause between two requests, and does not cover
    // answers.
    let ended = loop {
        let Some(patience) = kept.patience(Instant::now()) else {
            if kept.is_new() {
                bad_request();
            }
            return;
        };
        if let Ok(ended) = tokio::time::timeout(patience, &mut end).await {
            break ended;
        }
    };
    let Some(connection) = connection.get_mut().take() else { return };
    let parts = connection.into_parts();
    let socket = parts.io.io.into_inner();
    if ended.is_err_and(|error| error.is_parse()) {
        if socket.is_met_by_tls() {
            let no = NoTls::at_plain_port(port);
            count_no_tls(&mut core.borrow_mut(), &no, address);
        } else {
            bad_request();
        }
    }
    let Some((guest, address)) = admitted.take() else { return socket.close() };
    let Ok((socket, leftover)) = socket.leave(parts.read_buf) else { return };
    let untaken = match (guest, &door.links) {
        (Guest::Peer(peer, resume), _) => {
            let seat = Seat::request(&door.gauges, door.max_connections).holding(file, place.take());
            send_home(door, core, HandOff { socket, leftover, arrival: Arrival { peer, resume, address, seat } }).await
        }
        (Guest::Hub { hub, legacy }, Some(links)) => {
            (links.take)(LinkSocket { socket, leftover, address, hub, legacy }).err()
        }
        (Guest::Hub { .. }, None) => None,
    };
    if let Some(mut socket) = untaken {
        turn_away(&mut core.borrow_mut(), &mut socket);
    }
}

/// Counts a failed TLS handshake, and logs it if an operator can remove the cause.
fn count_no_tls(core: &mut Core, no: &NoTls, address: SocketAddr) {
    let Some(failure) = no.failure else { return };
    core.stats_mut().handshake_failures[failure as usize] += 1;
    let (reason, detail) = (failure.label(), &no.detail);
    let is_ours = matches!(
        failure,
        HandshakeFailure::TlsAtPlainPort | HandshakeFailure::TlsRefused | HandshakeFailure::TlsNothingInCommon
    );
    match is_ours.then(|| core.tls_refused.count()).flatten() {
        Some(times) => warn!(%address, reason, detail, times, "tls_refused"),
        None => debug!(%address, reason, detail, "tls_refused"),
    }
}

/// Counts a connection of a trusted proxy that did not begin with a PROXY head, and logs it once in a while.
fn count_no_head(core: &mut Core, no: &NoHead, address: SocketAddr) {
    core.stats_mut().handshake_failures[HandshakeFailure::ProxyHead as usize] += 1;
    if let Some(times) = core.proxies_refused.count() {
        warn!(%address, reason = HandshakeFailure::ProxyHead.label(), detail = no.explain(), times, "proxy_refused");
    }
}

/// Counts a connection that is refused before anything is read, and logs such connections once in a while.
pub(crate) fn count_no_entry(door: &Door, core: &mut Core, no: NoEntry, address: SocketAddr) {
    let failure = no.failure();
    core.stats_mut().handshake_failures[failure as usize] += 1;
    log_no_entry(door, no, address);
}

fn log_no_entry(door: &Door, no: NoEntry, address: SocketAddr) {
    if let Some(times) = door.gate.refused(Instant::now()) {
        let (address, reason) = (address.ip(), no.failure().label());
        warn!(%address, reason, detail = no.explain(), times, "connections_refused");
    }
}

/// Waits for a page's turn, and for the page. Refuses it if it would wait too long.
async fn page_in_turn(
    door: &Door,
    caller: Caller<'_>,
    core: &RefCell<Core>,
    page: Page,
    origin: Option<&HeaderValue>,
) -> Response<Full<Bytes>> {
    let turns = &door.turns[usize::from(caller.entrance == Entrance::Admin)];
    let turn = turns.borrow_mut().take(caller.address.ip(), Instant::now());
    let Some(wait) = turn else {
        core.borrow_mut().stats_mut().pages_refused += 1;
        return door.too_many(origin);
    };
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    page.await
}

/// Hands a socket to its peer's home shard. Returns it if the shard does not accept it in time.
async fn send_home(door: &Door, core: &RefCell<Core>, handed: HandOff) -> Option<Socket> {
    let home = ShardId::home(&handed.arrival.peer, door.shards, door.keys);
    core.borrow_mut().stats_mut().handed_off += 1;
    match door.homes[usize::from(home.0)].send_timeout(handed, REQUEST_HEAD_TIMEOUT).await {
        Ok(()) => None,
        Err(SendTimeoutError::Timeout(handed) | SendTimeoutError::Closed(handed)) => Some(handed.socket),
    }
}

/// Closes a WebSocket that was not accepted.
fn turn_away(core: &mut Core, socket: &mut Socket) {
    let reason = CloseReason::TryAgainLater;
    core.stats_mut().handshake_failures[HandshakeFailure::HandOff as usize] += 1;
    core.stats_mut().closes[reason as usize] += 1;
    if let Some((code, text)) = reason.close_frame() {
        let mut frame = Vec::new();
        ws::put_close(&mut frame, code, text);
        // The first bytes after the 101: they fit into the socket's buffer, unless it is closed.
        socket.say_last(&frame);
    }
}

/// The origin of a request.
#[derive(Clone, Copy)]
struct Caller<'a> {
    entrance: Entrance,
    /// The client's address, as trusted proxies name it.
    address: SocketAddr,
    /// Whether they name one client. If not, it is the proxy's address.
    is_clear: bool,
    /// Whether a proxy has named it in a header, so that it has not been counted yet.
    is_proxied: bool,
    /// The connection's place among those of its address.
    place: &'a Cell<Option<Place>>,
}

fn answer(
    door: &Door,
    caller: Caller<'_>,
    core: &RefCell<Core>,
    admitted: &Cell<Option<(Guest, SocketAddr)>>,
    mut request: Request<Incoming>,
) -> Answer {
    let query = Query::of(&request);
    let is_get = request.method() == Method::GET;
    let wants_socket = match request.uri().path() {
        "/ws" | "/ws/" => is_get,
        "/" => is_get && (handshake::wants_websocket(&request) || query.peer_id.is_some()),
        _ => false,
    };
    let mut core = core.borrow_mut();
    let offer = Offer::of(request.headers());
    let host = handshake::check_host(request.version(), request.headers());
    let origin = request.headers().get(ORIGIN).cloned();
    if !wants_socket {
        core.stats_mut().http_requests += 1;
        if caller.entrance != Entrance::Hubs && host.is_ok() && caller.is_clear {
            let own = door.admin_port.is_none() || caller.entrance == Entrance::Admin;
            let audience = if own { Audience::Operators } else { Audience::Public };
            let has_token = door.auth_token.as_deref().is_some_and(|token| query.shows(request.headers(), token));
            // In a URL, it would be in the logs of proxies.
            let may_operate = door.config.admin_token.as_deref().is_none_or(|token| {
                handshake::bearer_tokens(request.headers()).any(|shown| is_secret(shown, token.as_bytes()))
            });
            return (door.pages)(&request.into_parts().0, Visitor { audience, has_token, may_operate });
        }
    }
    let mut refuse = |refusal: Refusal| {
        let Refusal { failure, status, text, headers, retry_after } = refusal;
        if wants_socket || matches!(failure, HandshakeFailure::BadRequest | HandshakeFailure::Forwarded) {
            core.stats_mut().handshake_failures[failure as usize] += 1;
            if failure.is_of_a_link()
                && let Some(times) = core.links_refused.count()
            {
                warn!(address = %caller.address, reason = failure.label(), times, "link_refused");
            }
            if failure == HandshakeFailure::Forwarded
                && let Some(times) = core.proxies_refused.count()
            {
                warn!(address = %caller.address, reason = failure.label(), detail = &*text, times, "proxy_refused");
            }
            if failure == HandshakeFailure::Origin
                && let Some(times) = core.origins_refused.count()
            {
                warn!(address = %caller.address, detail = &*text, times, "origin_refused");
            }
        }
        let mut response = door.plain(status, text, origin.as_ref());
        for (name, value) in headers {
            response.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        Answer::Now(response)
    };
    if let Err(text) = host {
        let refusal = Refusal::new(HandshakeFailure::BadRequest, StatusCode::BAD_REQUEST, text);
        // The client may frame requests differently, so the connection ends.
        return refuse(Refusal { headers: &[("connection", "close")], ..refusal });
    }
    if !caller.is_clear {
        return refuse(Refusal::new(HandshakeFailure::Forwarded, StatusCode::BAD_REQUEST, Unclear::EXPLAINED));
    }
    let legacy = offer == Offer::Nothing
        && handshake::wants_websocket(&request)
        && matches!(caller.entrance, Entrance::Both | Entrance::Hubs)
        && door.links.as_ref().is_some_and(|links| links.is_legacy(caller.address));
    let is_link = wants_socket && (legacy || matches!(offer, Offer::Spoken | Offer::Unknown));
    // The order of checks is the Go hub's: token, id, upgrade. Before them, a page that may not be here at all learns
    // nothing about tokens. Peers and hubs have different tokens: a peer's opens no link.
    let headers = request.headers();
    let checked = door.check_origin(headers).and_then(|()| {
        if is_link {
            door.check_hub(caller.entrance, offer, &query, headers).map(|hub| Guest::Hub { hub, legacy })
        } else {
            door.check_peer(caller.entrance, &query, headers).map(|peer| Guest::Peer(peer, None))
        }
    });
    planted("upgrade");
    let guest = match checked.and_then(|guest| handshake::check(&request).map(|()| guest).map_err(Refusal::from)) {
        Ok(guest) => guest,
        Err(refusal) => return refuse(refusal),
    };
    if caller.is_proxied
        && let Guest::Peer(..) = guest
    {
        match door.enter(caller.address) {
            Ok(mut entered) => {
                entered.iter_mut().for_each(Place::finish);
                caller.place.set(entered);
            }
            Err(no) => {
                log_no_entry(door, no, caller.address);
                return refuse(Refusal::before_reading(no, door.gate.retry_after()));
            }
        }
    }
    let Ok((response, _)) = upgrade::upgrade(&mut request) else {
        return refuse(NoHandshake::NotAnUpgrade.into());
    };
    let guest = match guest {
        Guest::Peer(peer, _) => Guest::Peer(peer, resumed(door, &query, &peer, core.stats_mut())),
        Guest::Hub { .. } => guest,
    };
    admitted.set(Some((guest, caller.address)));
    let mut response = response.map(|_| Full::default());
    if offer == Offer::Spoken {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Answer::Now(response)
}

/// Checks the resume secret of a request. A wrong one is counted and ignored: the peer is admitted without it.
fn resumed(door: &Door, query: &Query, peer: &PeerId, stats: &mut IoStats) -> Option<Lineage> {
    let checked =
        query.resume.as_deref().filter(|shown| !shown.is_empty()).map(|shown| door.resume_keys.check(peer, shown));
    checked?.map_err(|wrong| stats.resumes[wrong as usize] += 1).ok()
}

impl Door {
    /// The initial state of the pages' rate limits.
    pub(crate) fn turns(keys: Keys) -> [RefCell<Turns>; 2] {
        [(); 2].map(|()| RefCell::new(Turns::new(keys)))
    }

    pub(crate) fn speaks_tls(&self, port: u16) -> bool {
        self.tls.as_ref().is_some_and(|(ports, _)| ports.contains(&port))
    }

    /// Decides about a connection before anything is read from it. A trusted proxy's is not counted for the proxy's address, but
    /// for its client's when that is known.
    pub(crate) fn admit(&self, entrance: Entrance, address: SocketAddr) -> Result<Option<Place>, NoEntry> {
        match entrance {
            // Operators and hubs have ports of their own, with files of their own, which peers cannot use up.
            Entrance::Admin | Entrance::Hubs => Ok(None),
            Entrance::Both | Entrance::Peers => {
                let is_full = self.gauges.connections.load(Ordering::Relaxed) >= self.max_connections;
                let counted = (!self.config.proxies.trust(address.ip())).then(|| address.ip());
                self.gate.admit(counted, is_full, Instant::now())
            }
        }
    }

    /// Counts a client that a trusted proxy has named, unless it is a trusted proxy itself.
    fn enter(&self, client: SocketAddr) -> Result<Option<Place>, NoEntry> {
        let counted = (!self.config.proxies.trust(client.ip())).then_some(client.ip());
        counted.map(|client| self.gate.enter(client, Instant::now())).transpose()
    }

    /// An answer of one sentence.
    fn plain(
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
        self.config.cors.put(origin, headers);
        response
    }

    fn too_many(&self, origin: Option<&HeaderValue>) -> Response<Full<Bytes>> {
        let text = "too many requests for pages: try again after a second, and less often\n";
        let mut response = self.plain(StatusCode::TOO_MANY_REQUESTS, text, origin);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        response
    }

    /// Checks the origin of the page, if the request comes from a browser. Hubs send no origin, so the check also keeps
    /// pages from opening links.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(origin) = self.config.origins.refused(headers) else { return Ok(()) };
        let origin = String::from_utf8_lossy(&origin.as_bytes()[..origin.len().min(MAX_SHOWN_ORIGIN)]);
        let text = format!("pages of {} may not connect here: ALLOWED_ORIGINS does not name it", origin.escape_debug());
        Err(Refusal::new(HandshakeFailure::Origin, StatusCode::FORBIDDEN, text))
    }

    fn check_peer(&self, entrance: Entrance, query: &Query, headers: &HeaderMap) -> Result<PeerId, Refusal> {
        if entrance == Entrance::Admin {
            return Err(Refusal::new(HandshakeFailure::WrongPort, StatusCode::NOT_FOUND, ADMIN_ONLY));
        }
        if entrance == Entrance::Hubs {
            let text = "this port accepts only links of hubs (MESH_PORT): connect peers to PORT, and read pages there";
            return Err(Refusal::new(HandshakeFailure::WrongPort, StatusCode::NOT_FOUND, text));
        }
        if !self.auth_token.as_deref().is_none_or(|token| query.shows(headers, token)) {
            let shown = query.shown(headers).next().is_some();
            return Err(Refusal::unauthorized(HandshakeFailure::Unauthorized, "unauthorized", shown));
        }
        query.id()
    }

    fn check_hub(
        &self,
        entrance: Entrance,
        offer: Offer,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<HubId, Refusal> {
        let off = |text: &'static str| Err(Refusal::new(HandshakeFailure::LinkOff, StatusCode::FORBIDDEN, text));
        let Some(links) = &self.links else {
            return off("this hub is not part of a mesh: set IS_HUB=true on it");
        };
        if entrance == Entrance::Admin {
            return Err(Refusal::new(HandshakeFailure::LinkWrongPort, StatusCode::NOT_FOUND, ADMIN_ONLY));
        }
        if entrance == Entrance::Peers {
            let text = "this port accepts no links: dial MESH_PORT of this hub";
            return Err(Refusal::new(HandshakeFailure::LinkWrongPort, StatusCode::FORBIDDEN, text));
        }
        // A Go hub has no token, only its address, which has been checked.
        if offer != Offer::Nothing {
            match &links.admission {
                Admission::Closed => {
                    return off("this hub accepts no links: set MESH_TOKEN on it, or MESH_INSECURE=true");
                }
                Admission::Open => {}
                Admission::Tokens(tokens) if tokens.iter().any(|token| query.shows(headers, token)) => {}
                Admission::Tokens(_) => {
                    let shown = query.shown(headers).next().is_some();
                    return Err(Refusal::unauthorized(HandshakeFailure::LinkUnauthorized, TOKEN_WANTED, shown));
                }
            }
        }
        if offer == Offer::Unknown {
            let text = format!("unknown version of links: use Sec-WebSocket-Protocol: {SUBPROTOCOL}");
            return Err(Refusal::new(HandshakeFailure::LinkVersion, StatusCode::BAD_REQUEST, text));
        }
        query.id().map(HubId)
    }
}

/// The query of a request for a WebSocket.
struct Query {
    peer_id: Option<String>,
    token: Option<String>,
    resume: Option<String>,
}

impl Query {
    fn of<B>(request: &Request<B>) -> Self {
        let pairs = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
        let mut query = Self { peer_id: None, token: None, resume: None };
        for (key, value) in pairs {
            // The first of a repeated key counts, as in the Go hub.
            match key.as_ref() {
                "peerId" => _ = query.peer_id.get_or_insert_with(|| value.into_owned()),
                "resume" => _ = query.resume.get_or_insert_with(|| value.into_owned()),
                "token" => _ = query.token.get_or_insert_with(|| value.into_owned()),
                _ => {}
            }
        }
        query
    }

    /// The id of the peer or hub.
    fn id(&self) -> Result<PeerId, Refusal> {
        let id = self.peer_id.as_deref().and_then(|id| PeerId::from_str(id).ok());
        id.ok_or_else(|| Refusal::new(HandshakeFailure::InvalidPeerId, StatusCode::FORBIDDEN, "invalid peerId"))
    }

    /// All tokens in a request. There can be several: a proxy's own header in addition to the client's `?token=`.
    fn shown<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> {
        handshake::bearer_tokens(headers).chain(self.token.as_deref().map(str::as_bytes))
    }

    fn shows(&self, headers: &HeaderMap, token: &str) -> bool {
        self.shown(headers).any(|shown| is_secret(shown, token.as_bytes()))
    }
}
