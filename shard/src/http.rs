//! The door: HTTP requests, and among them those for a WebSocket, of peers and of hubs.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use fastwebsockets::upgrade;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use proto::envelope::{SUBPROTOCOL, TOKEN_WANTED};
use proto::limits::{ANSWER_TIMEOUT, MAX_REQUEST_HEAD_BYTES, REQUEST_HEAD_TIMEOUT};
use proto::{CloseReason, HubId, Keys, PeerId, ShardId, ws};
use tokio::net::TcpStream;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::warn;

use crate::core::Core;
use crate::links::{Admission, LinkDoor, LinkSocket, Offer};
use crate::runtime::FileShares;
use crate::session::{HandOff, Seat};
use crate::stats::HandshakeFailure;
use crate::{Audience, Gauges, Pages};

/// Who may come in, and where they go.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) shards: u16,
    pub(crate) keys: Keys,
    pub(crate) max_connections: usize,
    pub(crate) files: DoorFiles,
    pub(crate) gauges: Arc<Gauges>,
    /// What a client has to show, if anything.
    pub(crate) auth_token: Option<Arc<str>>,
    pub(crate) links: Option<LinkDoor>,
    /// Where operators come in, if not where everybody does.
    pub(crate) admin_port: Option<u16>,
    pub(crate) cors: HeaderMap,
    pub(crate) pages: Pages,
    pub(crate) homes: Arc<[mpsc::Sender<HandOff>]>,
}

/// Whom a listener lets in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entrance {
    /// Pages, and nothing else.
    Admin,
    Both,
    Hubs,
    Peers,
}

impl Entrance {
    /// At the listener of that port.
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

/// The sockets that the listeners of one kind may hold at once, counted over all shards.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub(crate) files: Arc<Semaphore>,
    /// Wakes the other listeners of the kind when one has none to drop and waits for a file.
    pub(crate) wanted: Arc<Notify>,
}

/// Each kind has a share of its own, so that a crowd of peers leaves links and operators their files.
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

    /// That of a listener.
    pub(crate) fn at(&self, entrance: Entrance) -> Share {
        match entrance {
            Entrance::Admin => &self.admin,
            Entrance::Both | Entrance::Peers => &self.peers,
            Entrance::Hubs => &self.links,
        }
        .clone()
    }
}

/// Who was let in.
#[derive(Clone, Copy, Debug)]
enum Guest {
    Hub { hub: HubId, legacy: bool },
    Peer(PeerId),
}

/// What a WebSocket hears at the operators' port.
const ADMIN_ONLY: &str = "this port has pages for operators and nothing else (ADMIN_PORT): WebSockets are at PORT";

/// Why somebody was not, and what the answer is.
type Refusal = (HandshakeFailure, StatusCode, Cow<'static, str>);

/// Serves one connection until it ends or becomes a WebSocket, which goes to its home shard, or to the mesh. `let_in` says whether
/// it becomes one.
pub(crate) async fn serve(
    door: Rc<Door>,
    entrance: Entrance,
    core: Rc<RefCell<Core>>,
    stream: TcpStream,
    address: SocketAddr,
    file: OwnedSemaphorePermit,
    let_in: Rc<Cell<bool>>,
) {
    let admitted: Cell<Option<Guest>> = Cell::default();
    let answered = Cell::new(0u32);
    let service = service_fn(|request: Request<Incoming>| {
        answered.update(|n| n.wrapping_add(1));
        let caller = Caller { entrance, address };
        let response = answer(&door, caller, &core, &admitted, request);
        let_in.set(admitted.get().is_some());
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_HEAD_TIMEOUT)
        .max_buf_size(MAX_REQUEST_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(Some(connection));
    let mut end = std::pin::pin!(std::future::poll_fn(|cx| match connection.as_mut().get_mut() {
        Some(connection) => connection.poll_without_shutdown(cx),
        None => std::task::Poll::Ready(Ok(())),
    }));
    let ended = loop {
        let before = answered.get();
        match tokio::time::timeout(ANSWER_TIMEOUT, &mut end).await {
            Ok(ended) => break ended,
            // hyper's own timeout is for requests. A client that does not read its answer has a place here, too.
            Err(_) if answered.get() == before => return,
            Err(_) => {}
        }
    };
    // A connection that was kept for another request which never came has failed at nothing.
    if let Err(error) = ended
        && (error.is_parse() || error.is_timeout() && answered.get() == 0)
    {
        core.borrow_mut().stats_mut().handshake_failures[HandshakeFailure::BadRequest as usize] += 1;
    }
    let (Some(guest), Some(connection)) = (admitted.take(), connection.get_mut().take()) else { return };
    let parts = connection.into_parts();
    let Ok(stream) = parts.io.into_inner().into_std() else { return };
    let leftover = parts.read_buf;
    let untaken = match (guest, &door.links) {
        (Guest::Peer(peer), _) => send_home(&door, &core, peer, stream, leftover, address, file).await,
        (Guest::Hub { hub, legacy }, Some(links)) => {
            (links.take)(LinkSocket { stream, leftover, address, hub, legacy }).err()
        }
        (Guest::Hub { .. }, None) => None,
    };
    if let Some(stream) = untaken {
        turn_away(&mut core.borrow_mut(), &stream);
    }
}

/// Hands a socket to its peer's home. Gives it back if that does not take it in time.
async fn send_home(
    door: &Door,
    core: &RefCell<Core>,
    peer: PeerId,
    stream: std::net::TcpStream,
    leftover: Bytes,
    address: SocketAddr,
    file: OwnedSemaphorePermit,
) -> Option<std::net::TcpStream> {
    let seat = Seat::request(&door.gauges, door.max_connections).holding(file);
    let home = ShardId::home(&peer, door.shards, door.keys);
    core.borrow_mut().stats_mut().handed_off += 1;
    let handed = HandOff { stream, leftover, peer, address, seat };
    match door.homes[usize::from(home.0)].send_timeout(handed, REQUEST_HEAD_TIMEOUT).await {
        Ok(()) => None,
        Err(SendTimeoutError::Timeout(handed) | SendTimeoutError::Closed(handed)) => Some(handed.stream),
    }
}

/// Closes a WebSocket that nobody has taken.
fn turn_away(core: &mut Core, mut stream: &std::net::TcpStream) {
    let reason = CloseReason::TryAgainLater;
    core.stats_mut().handshake_failures[HandshakeFailure::HandOff as usize] += 1;
    core.stats_mut().closes[reason as usize] += 1;
    if let Some((code, text)) = reason.close_frame() {
        let mut frame = Vec::new();
        ws::put_close(&mut frame, code, text);
        // The first bytes behind the 101: the socket has room for them, or is gone.
        _ = stream.write(&frame);
    }
}

/// Where a request comes from, and where it came in.
#[derive(Clone, Copy)]
struct Caller {
    entrance: Entrance,
    address: SocketAddr,
}

fn answer(
    door: &Door,
    caller: Caller,
    core: &RefCell<Core>,
    admitted: &Cell<Option<Guest>>,
    mut request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let query = Query::of(&request);
    let wants_socket = match request.uri().path() {
        "/ws" | "/ws/" => request.method() == Method::GET,
        "/" => request.method() == Method::GET && (request.headers().contains_key(UPGRADE) || query.peer_id.is_some()),
        _ => false,
    };
    let mut core = core.borrow_mut();
    let offer = Offer::of(request.headers());
    if !wants_socket {
        core.stats_mut().http_requests += 1;
        if caller.entrance != Entrance::Hubs {
            let own = door.admin_port.is_none() || caller.entrance == Entrance::Admin;
            let audience = if own { Audience::Operators } else { Audience::Public };
            return (door.pages)(&request.into_parts().0, core.router(), audience);
        }
    }
    let mut refuse = |(failure, status, text): Refusal| {
        if wants_socket {
            core.stats_mut().handshake_failures[failure as usize] += 1;
            if failure.is_of_a_link()
                && let Some(times) = core.links_refused.count()
            {
                warn!(address = %caller.address, reason = failure.label(), times, "link_refused");
            }
        }
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response.headers_mut().extend(door.cors.clone());
        response
    };
    let http_1_1 = request.version() == Version::HTTP_11;
    let legacy = offer == Offer::Nothing
        && upgrade::is_upgrade_request(&request)
        && matches!(caller.entrance, Entrance::Both | Entrance::Hubs)
        && door.links.as_ref().is_some_and(|links| links.is_legacy(caller.address));
    let is_link = wants_socket && (legacy || matches!(offer, Offer::Spoken | Offer::Unknown));
    // The order is the seed's: token, id, upgrade. Which token depends on who asks: a peer's opens no link.
    let checked = if is_link {
        door.check_hub(caller.entrance, offer, &query, &request).map(|hub| Guest::Hub { hub, legacy })
    } else {
        door.check_peer(caller.entrance, &query, &request).map(Guest::Peer)
    };
    let guest = match checked {
        Ok(guest) => guest,
        Err(refusal) => return refuse(refusal),
    };
    let upgraded =
        if http_1_1 && upgrade::is_upgrade_request(&request) { upgrade::upgrade(&mut request).ok() } else { None };
    let Some((response, _)) = upgraded else {
        let text = "this is a WebSocket endpoint: ask for an upgrade (RFC 6455), version 13";
        return refuse((HandshakeFailure::NotAnUpgrade, StatusCode::BAD_REQUEST, text.into()));
    };
    admitted.set(Some(guest));
    let mut response = response.map(|_| Full::default());
    if offer == Offer::Spoken {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    response
}

impl Door {
    fn check_peer<B>(&self, entrance: Entrance, query: &Query, request: &Request<B>) -> Result<PeerId, Refusal> {
        if entrance == Entrance::Admin {
            return Err((HandshakeFailure::WrongPort, StatusCode::NOT_FOUND, ADMIN_ONLY.into()));
        }
        if entrance == Entrance::Hubs {
            let text = "this port takes links of hubs and nothing else (MESH_PORT): peers and pages are at PORT";
            return Err((HandshakeFailure::WrongPort, StatusCode::NOT_FOUND, text.into()));
        }
        if !self.auth_token.as_deref().is_none_or(|token| query.shows(request, token)) {
            return Err((HandshakeFailure::Unauthorized, StatusCode::UNAUTHORIZED, "unauthorized".into()));
        }
        query.id()
    }

    fn check_hub<B>(
        &self,
        entrance: Entrance,
        offer: Offer,
        query: &Query,
        request: &Request<B>,
    ) -> Result<HubId, Refusal> {
        let off = |text: &'static str| Err((HandshakeFailure::LinkOff, StatusCode::FORBIDDEN, text.into()));
        let Some(links) = &self.links else {
            return off("this hub makes no links: IS_HUB, BOOTSTRAP_HUBS, MESH_DNS and REDIS_URL are unset there");
        };
        if entrance == Entrance::Admin {
            return Err((HandshakeFailure::LinkWrongPort, StatusCode::NOT_FOUND, ADMIN_ONLY.into()));
        }
        if entrance == Entrance::Peers {
            let text = "this port takes no links: they are taken at MESH_PORT";
            return Err((HandshakeFailure::LinkWrongPort, StatusCode::FORBIDDEN, text.into()));
        }
        // A hub of the seed's kind has nothing to show but its address, and that has been looked at.
        if offer != Offer::Nothing {
            match &links.admission {
                Admission::Closed => {
                    return off("this hub takes no links: it has neither MESH_TOKEN nor MESH_INSECURE");
                }
                Admission::Open => {}
                Admission::Tokens(tokens) if tokens.iter().any(|token| query.shows(request, token)) => {}
                Admission::Tokens(_) => {
                    return Err((HandshakeFailure::LinkUnauthorized, StatusCode::UNAUTHORIZED, TOKEN_WANTED.into()));
                }
            }
        }
        if offer == Offer::Unknown {
            let text = format!("this hub links with Sec-WebSocket-Protocol: {SUBPROTOCOL}, and with no other version");
            return Err((HandshakeFailure::LinkVersion, StatusCode::BAD_REQUEST, text.into()));
        }
        query.id().map(HubId)
    }
}

/// What the query of a request for a WebSocket says.
struct Query {
    peer_id: Option<String>,
    token: Option<String>,
}

impl Query {
    fn of<B>(request: &Request<B>) -> Self {
        let pairs = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
        let mut query = Self { peer_id: None, token: None };
        for (key, value) in pairs {
            // The first of a repeated key counts, as in the seed.
            match key.as_ref() {
                "peerId" => _ = query.peer_id.get_or_insert_with(|| value.into_owned()),
                "token" => _ = query.token.get_or_insert_with(|| value.into_owned()),
                _ => {}
            }
        }
        query
    }

    /// Who asks.
    fn id(&self) -> Result<PeerId, Refusal> {
        let id = self.peer_id.as_deref().and_then(|id| PeerId::from_str(id).ok());
        id.ok_or((HandshakeFailure::InvalidPeerId, StatusCode::FORBIDDEN, "invalid peerId".into()))
    }

    fn shows<B>(&self, request: &Request<B>, token: &str) -> bool {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = header.and_then(|value| value.strip_prefix("Bearer "));
        bearer.or(self.token.as_deref()).is_some_and(|shown| same(shown.as_bytes(), token.as_bytes()))
    }
}

/// Compares in a time that depends only on the length of what was shown.
fn same(shown: &[u8], token: &[u8]) -> bool {
    let differing = shown.iter().enumerate().fold(0, |acc, (i, byte)| acc | (byte ^ token.get(i).unwrap_or(&!byte)));
    std::hint::black_box(differing) == 0 && shown.len() == token.len()
}
