//! HTTP requests, including WebSocket upgrades of peers and hubs.

mod answer;
mod door;
mod entrance;
mod gate;
mod handshake;
mod kept;
mod page_rates;
mod prove;
mod query;
mod redirect;
mod refusal;
mod refusals;
mod secure;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::ORIGIN;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use proto::limits::{ID_PROOF_TIMEOUT, MAX_REQUEST_HEAD_BYTES, REQUEST_HEAD_TIMEOUT};
use proto::{CloseReason, ShardId, bug, ws};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::error::SendTimeoutError;
use tracing::warn;

use crate::core::Core;
use crate::crowd::Place;
use crate::links::LinkHandOff;
use crate::proxies::{self, NoHead};
use crate::session::{Arrival, HandOff, PeerRequest, Seat};
use crate::socket::{RequestSocket, Socket};
use crate::stats::HandshakeFailure;
use crate::{Answer, Parts};
use answer::{Caller, Guest, Reply, answer, answer_form, in_turn, page_in_turn};
use door::Readers;
pub(crate) use door::{Door, DoorTuning};
pub(crate) use entrance::{DoorFiles, Entrance, FilePool};
pub(crate) use gate::Gate;
pub use handshake::bearer_tokens;
pub(crate) use handshake::subprotocols;
use kept::{Kept, KeptStream};
pub use prove::IdProofs;
use prove::{NoProof, prove};
pub(crate) use refusal::count_no_entry;
use refusal::{FORBIDDEN, PanicGuard};
pub(crate) use refusals::Refusals;
pub(crate) use secure::Handshakes;
use secure::NoTls;

/// A connection that is being served.
#[derive(Clone, Copy)]
struct Visit<'a> {
    door: &'a Door,
    core: &'a RefCell<Core>,
    entrance: Entrance,
    port: u16,
    /// The address of the client, as the PROXY head names it if there is one.
    address: SocketAddr,
    since: Instant,
}

/// An upgraded connection.
struct Upgraded {
    guest: Guest,
    /// The address of the client, as trusted proxies name it.
    address: SocketAddr,
    socket: RequestSocket,
    /// Bytes that arrived after the request.
    read: Bytes,
}

/// Serves one connection until it ends or becomes a WebSocket. The WebSocket goes to its home shard or to the mesh.
/// Sets `is_websocket` if the connection becomes a WebSocket that is not refused.
pub(crate) async fn serve(
    door: Rc<Door>,
    (entrance, port): (Entrance, u16),
    core: Rc<RefCell<Core>>,
    stream: TcpStream,
    address: SocketAddr,
    (file, place): (OwnedSemaphorePermit, Option<Place>),
    is_websocket: Rc<Cell<bool>>,
) {
    let (door, core, since) = (&*door, &*core, Instant::now());
    let _panics = PanicGuard::new(core, address);
    let visit = Visit { door, core, entrance, port, address, since };
    let Some((visit, stream, place)) = visit.read_proxy_head(stream, place).await else { return };
    let Some(socket) = visit.shake_hands(stream).await else { return };
    let place = Cell::new(place);
    if let Some(upgraded) = visit.serve_requests(socket, &place, &is_websocket).await {
        visit.hand_over(upgraded, (file, place.take())).await;
    }
}

impl Visit<'_> {
    /// Reads the PROXY head of a connection that must begin with one, and counts the client that the head names. `None`
    /// if the connection is refused or has ended.
    async fn read_proxy_head(
        self,
        mut stream: TcpStream,
        place: Option<Place>,
    ) -> Option<(Self, TcpStream, Option<Place>)> {
        let Self { door, core, port, address, since, .. } = self;
        if !door.config.proxies.expect_head(port, address.ip()) {
            return Some((self, stream, place));
        }
        let client = match Box::pin(proxies::read_head(&mut stream, since)).await {
            Ok(Some(client)) => client,
            Ok(None) => return Some((self, stream, place)),
            Err(NoHead::Gone) => return None,
            Err(no) => {
                core.borrow_mut().refusals_mut().count_no_head(&no, address);
                return None;
            }
        };
        match door.enter(client) {
            Ok(place) => Some((Self { address: client, ..self }, stream, place)),
            Err(no) => {
                count_no_entry(&door.gate, &mut core.borrow_mut(), no, client);
                if let Ok(stream) = stream.into_std() {
                    door.gate.turn_away(&stream, no, door.speaks_tls(port));
                }
                None
            }
        }
    }

    /// Does the TLS handshake at a port that speaks TLS. `None` if it fails.
    async fn shake_hands(self, stream: TcpStream) -> Option<RequestSocket> {
        let Self { door, core, entrance, port, address, since } = self;
        let Some((_, handshakes)) = door.tls.as_ref().filter(|_| door.speaks_tls(port)) else {
            return Some(RequestSocket::plain(stream));
        };
        match Box::pin(handshakes.shake_hands(entrance, stream, since)).await {
            Ok(stream) => {
                core.borrow_mut().stats_mut().tls_handshakes[usize::from(stream.tls().is_resumed())] += 1;
                Some(RequestSocket::Tls(Box::new(stream)))
            }
            Err(no) => {
                core.borrow_mut().refusals_mut().count_no_tls(&no, address);
                None
            }
        }
    }

    /// Answers requests until the connection ends or is upgraded. Sets `is_websocket` if it becomes a WebSocket that is
    /// not refused.
    async fn serve_requests(
        self,
        socket: RequestSocket,
        place: &Cell<Option<Place>>,
        is_websocket: &Cell<bool>,
    ) -> Option<Upgraded> {
        let Self { door, core, port, address, since, .. } = self;
        let is_certified = socket.is_certified();
        let upgraded = Cell::new(None);
        let kept = Rc::new(Kept::new(since, door.tuning.timeouts));
        let service = service_fn(|request: Request<Incoming>| {
            let (kept, upgraded) = (&*kept, &upgraded);
            // The box makes the future `Unpin`, as `poll_without_shutdown` requires.
            Box::pin(async move {
                let (response, guest) = self.answer(request, kept, place, is_certified).await;
                is_websocket.set(matches!(guest, Some((Guest::Peer(_) | Guest::Hub { .. }, _))));
                upgraded.set(guest);
                Ok::<_, std::convert::Infallible>(response)
            })
        });
        let stream = KeptStream { io: TokioIo::new(socket), kept: Rc::clone(&kept) };
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(MAX_REQUEST_HEAD_BYTES)
            .serve_connection(stream, service);
        // hyper's own timeout does not distinguish the first head from a pause between two requests, and does not cover
        // answers.
        let ended = loop {
            let Some(patience) = kept.patience(Instant::now()) else {
                if kept.is_new() {
                    core.borrow_mut().refusals_mut().count(HandshakeFailure::BadRequest);
                }
                return None;
            };
            let end = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx));
            if let Ok(ended) = tokio::time::timeout(patience, end).await {
                break ended;
            }
        };
        let parts = connection.into_parts();
        let socket = parts.io.io.into_inner();
        if ended.is_err_and(|error| error.is_parse()) {
            let mut core = core.borrow_mut();
            if socket.is_met_by_tls() {
                core.refusals_mut().count_no_tls(&NoTls::at_plain_port(port), address);
            } else {
                core.refusals_mut().count(HandshakeFailure::BadRequest);
            }
        }
        match upgraded.take() {
            Some((guest, address)) => Some(Upgraded { guest, address, socket, read: parts.read_buf }),
            None => {
                socket.close();
                None
            }
        }
    }

    /// Answers one request. If the answer upgrades the connection, also returns the other end and its address.
    async fn answer(
        self,
        request: Request<Incoming>,
        kept: &Kept,
        place: &Cell<Option<Place>>,
        is_certified: bool,
    ) -> (Response<Either<Full<Bytes>, Parts>>, Option<(Guest, SocketAddr)>) {
        let Self { door, core, entrance, port, address, .. } = self;
        let mut counted = place.take();
        counted.iter_mut().for_each(Place::finish);
        place.set(counted);
        kept.asked().await;
        let origin = request.headers().get(ORIGIN).cloned();
        let origin = origin.as_ref();
        let client = door.config.proxies.client(address, request.headers());
        let is_proxied = client.is_ok_and(|client| client != address);
        if door.config.proxies.seem_to_miss(address.ip(), request.headers()) && door.gate.free(address.ip()) {
            let detail = "this address sends the addresses of its clients, as a proxy does, so its connections are not \
                          limited: set TRUSTED_PROXIES to count each client";
            warn!(address = %address.ip(), detail, "proxy_not_named");
        }
        let is_tls = door.speaks_tls(port) || door.config.proxies.end_tls(address.ip(), request.headers());
        let (client, is_clear) = (client.unwrap_or(address), client.is_ok());
        let caller = Caller { entrance, address: client, is_clear, is_proxied, is_tls, is_certified, place };
        door.await_keys(&request).await;
        let (mut answer, mut body) = match answer(door, caller, core, request) {
            Reply::Page(answer, body) => (answer, body),
            Reply::Upgrade(response, guest) => {
                kept.answered();
                return (response.map(Either::Left), Some((guest, client)));
            }
        };
        let response = loop {
            match answer {
                Answer::Now(response) => break response,
                Answer::Soon(page) => {
                    break page_in_turn(door, caller, core, (page, Readers::at(entrance)), origin).await;
                }
                Answer::ForOperator(page) => {
                    break page_in_turn(door, caller, core, (page, Readers::Operators), origin).await;
                }
                Answer::Stream(response) => match in_turn(door, caller, core, Readers::at(entrance), origin).await {
                    Ok(()) => {
                        kept.streams();
                        return (response.map(Either::Right), None);
                    }
                    Err(refusal) => break refusal,
                },
                Answer::Form(form) => answer = answer_form(door, form, body.take(), origin).await,
            }
        };
        kept.answered();
        (response.map(Either::Left), None)
    }

    /// Hands an upgraded connection to the home shard of its peer, or to the mesh. Closes it if it is refused, or if
    /// nobody accepts it.
    async fn hand_over(self, upgraded: Upgraded, (file, place): (OwnedSemaphorePermit, Option<Place>)) {
        let Self { door, core, .. } = self;
        let Upgraded { mut guest, address, mut socket, mut read } = upgraded;
        if let Guest::Peer(peer_request) = &mut guest
            && let Err(no) = Box::pin(prove_id(door, core, (&mut socket, &mut read), peer_request)).await
        {
            core.borrow_mut().refusals_mut().count_no_proof(no, address);
            guest = Guest::Refused(FORBIDDEN, no.explain().into());
        }
        let (socket, leftover) = match socket.leave(read) {
            Ok(left) => left,
            Err(error) => {
                core.borrow_mut().refusals_mut().count(HandshakeFailure::HandOff);
                return warn!(%address, %error, "hand_off_failed");
            }
        };
        let untaken = match (guest, &door.links) {
            (Guest::Peer(peer_request), _) => {
                let seat = Seat::request(&door.gauges, door.max_connections).holding(file, place);
                send_home(
                    door,
                    core,
                    HandOff { socket, leftover, arrival: Arrival { request: peer_request, address, seat } },
                )
                .await
            }
            (Guest::Refused(code, text), _) => return close_at_once(socket, code, &text),
            (Guest::Hub { hub, legacy, auth }, Some(links)) => {
                (links.take)(LinkHandOff { socket, leftover, address, hub, legacy, auth }).err()
            }
            (Guest::Hub { hub, .. }, None) => {
                let mut core = core.borrow_mut();
                let bugs = core.bugs_mut();
                bug!(bugs, LinkDoor, "{hub} at {address}");
                Some(socket)
            }
        };
        if let Some(socket) = untaken {
            turn_away(&mut core.borrow_mut(), socket);
        }
    }
}

/// Lets a peer with a key prove its id. After the proof, the peer counts as the owner of the id.
async fn prove_id(
    door: &Door,
    core: &RefCell<Core>,
    (socket, read): (&mut RequestSocket, &mut Bytes),
    peer_request: &mut PeerRequest,
) -> Result<(), NoProof> {
    let (Some(key), Some(proofs)) = (peer_request.key.take(), &door.id_proofs) else { return Ok(()) };
    let wall_ms = core.borrow().now().wall_ms;
    let early = std::mem::take(read);
    *read = prove(socket, early, (&peer_request.peer, &key), &proofs.hosts, ID_PROOF_TIMEOUT, wall_ms).await?;
    peer_request.owner = true;
    core.borrow_mut().stats_mut().ids_proven += 1;
    Ok(())
}

/// Hands a socket to its peer's home shard. Returns the socket if the shard does not accept it in time.
async fn send_home(door: &Door, core: &RefCell<Core>, handed: HandOff) -> Option<Socket> {
    let home = ShardId::home(&handed.arrival.request.peer, door.shards, door.keys);
    core.borrow_mut().stats_mut().handed_off += 1;
    match door.homes[usize::from(home.0)].send_timeout(handed, REQUEST_HEAD_TIMEOUT).await {
        Ok(()) => None,
        Err(SendTimeoutError::Timeout(handed) | SendTimeoutError::Closed(handed)) => Some(handed.socket),
    }
}

/// Closes a WebSocket that its home shard or the mesh has not accepted.
fn turn_away(core: &mut Core, socket: Socket) {
    let reason = CloseReason::TryAgainLater;
    core.refusals_mut().count(HandshakeFailure::HandOff);
    core.stats_mut().closes[reason as usize] += 1;
    if let Some((code, text)) = reason.close_frame() {
        close_at_once(socket, code, text);
    }
}

/// Sends a close frame on a WebSocket that gets no session. The frame fits into the socket's buffer, unless the socket
/// is closed.
fn close_at_once(mut socket: Socket, code: u16, text: &str) {
    let mut frame = Vec::new();
    ws::put_close(&mut frame, code, text);
    socket.say_last(&frame);
}
