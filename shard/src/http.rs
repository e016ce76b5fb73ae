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
mod secure;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Either;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::ORIGIN;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use proto::limits::{ID_PROOF_TIMEOUT, MAX_REQUEST_HEAD_BYTES, REQUEST_HEAD_TIMEOUT};
use proto::{CloseReason, ShardId, ws};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::error::SendTimeoutError;
use tracing::warn;

use crate::Answer;
use crate::core::Core;
use crate::crowd::Place;
use crate::links::LinkHandOff;
use crate::proxies::{self, NoHead};
use crate::session::{Arrival, HandOff, Newcomer, Seat};
use crate::socket::{RequestSocket, Socket};
use crate::stats::HandshakeFailure;
use answer::{Caller, Guest, answer, answer_form, in_turn, page_in_turn};
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
use refusal::{FORBIDDEN, PanicGuard, count_no_head, count_no_proof, count_no_tls};
pub(crate) use secure::Handshakes;
use secure::NoTls;

/// Serves one connection until it ends or becomes a WebSocket. The WebSocket goes to its home shard or to the mesh.
/// Sets `is_websocket` if the connection becomes a WebSocket.
pub(crate) async fn serve(
    door: Rc<Door>,
    (entrance, port): (Entrance, u16),
    core: Rc<RefCell<Core>>,
    mut stream: TcpStream,
    address: SocketAddr,
    (file, place): (OwnedSemaphorePermit, Option<Place>),
    is_websocket: Rc<Cell<bool>>,
) {
    let since = Instant::now();
    let (door, core) = (&*door, &*core);
    let _panics = PanicGuard::new(core, address);
    let (mut address, place) = (address, Cell::new(place));
    if door.config.proxies.expect_head(port, address.ip()) {
        match Box::pin(proxies::read_head(&mut stream, since)).await {
            Ok(Some(client)) => {
                address = client;
                match door.enter(client) {
                    Ok(entered) => place.set(entered),
                    Err(no) => {
                        count_no_entry(&door.gate, &mut core.borrow_mut(), no, client);
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
        Some((_, handshakes)) if door.speaks_tls(port) => {
            match Box::pin(handshakes.shake_hands(entrance, stream, since)).await {
                Ok(stream) => {
                    core.borrow_mut().stats_mut().tls_handshakes[usize::from(stream.tls().is_resumed())] += 1;
                    RequestSocket::Tls(Box::new(stream))
                }
                Err(no) => return count_no_tls(&mut core.borrow_mut(), &no, address),
            }
        }
        _ => RequestSocket::plain(stream),
    };
    let is_certified = socket.is_certified();
    let admitted: Cell<Option<(Guest, SocketAddr)>> = Cell::default();
    let kept = Rc::new(Kept::new(since, door.tuning.timeouts));
    let service = service_fn(|request: Request<Incoming>| {
        let (kept, admitted, place) = (&*kept, &admitted, &place);
        let is_websocket = &is_websocket;
        // The box makes the future `Unpin`, as `poll_without_shutdown` requires.
        Box::pin(async move {
            let mut counted = place.take();
            counted.iter_mut().for_each(Place::finish);
            place.set(counted);
            kept.asked().await;
            let origin = request.headers().get(ORIGIN).cloned();
            let client = door.config.proxies.client(address, request.headers());
            let is_proxied = client.is_ok_and(|client| client != address);
            if door.config.proxies.seem_to_miss(address.ip(), request.headers()) && door.gate.free(address.ip()) {
                let detail = "this address sends the addresses of its clients, as a proxy does, so its connections \
                    are not limited: set TRUSTED_PROXIES to count each client";
                warn!(address = %address.ip(), detail, "proxy_not_named");
            }
            let is_tls = door.speaks_tls(port) || door.config.proxies.end_tls(address.ip(), request.headers());
            let (client, is_clear) = (client.unwrap_or(address), client.is_ok());
            let caller = Caller { entrance, address: client, is_clear, is_proxied, is_tls, is_certified, place };
            door.await_keys(&request).await;
            let mut body = None;
            let mut answer = answer(door, caller, core, admitted, request, &mut body);
            let response = loop {
                match answer {
                    Answer::Now(response) => break response.map(Either::Left),
                    Answer::Soon(page) => {
                        let page = page_in_turn(door, caller, core, (page, Readers::at(entrance)), origin.as_ref());
                        break page.await.map(Either::Left);
                    }
                    Answer::ForOperator(page) => {
                        let page = page_in_turn(door, caller, core, (page, Readers::Operators), origin.as_ref());
                        break page.await.map(Either::Left);
                    }
                    Answer::Stream(response) => {
                        match in_turn(door, caller, core, Readers::at(entrance), origin.as_ref()).await {
                            Ok(()) => {
                                kept.streams();
                                return Ok::<_, std::convert::Infallible>(response.map(Either::Right));
                            }
                            Err(refusal) => break refusal.map(Either::Left),
                        }
                    }
                    Answer::Form(form) => answer = answer_form(door, form, body.take(), origin.as_ref()).await,
                }
            };
            let upgraded = admitted.take();
            is_websocket.set(matches!(upgraded, Some((Guest::Peer(_) | Guest::Hub { .. }, _))));
            admitted.set(upgraded);
            kept.answered();
            Ok(response)
        })
    });
    let stream = KeptStream { io: TokioIo::new(socket), kept: Rc::clone(&kept) };
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
    // `take` always returns the connection, because no other code takes it.
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
    let Some((mut guest, address)) = admitted.take() else { return socket.close() };
    let (mut socket, mut read) = (socket, parts.read_buf);
    if let Guest::Peer(newcomer) = &mut guest
        && let Err(no) = Box::pin(prove_id(door, core, (&mut socket, &mut read), newcomer)).await
    {
        count_no_proof(&mut core.borrow_mut(), no, address);
        let Ok((socket, _)) = socket.leave(read) else { return };
        return close_at_once(socket, FORBIDDEN, no.explain());
    }
    let Ok((socket, leftover)) = socket.leave(read) else { return };
    let untaken = match (guest, &door.links) {
        (Guest::Peer(newcomer), _) => {
            let seat = Seat::request(&door.gauges, door.max_connections).holding(file, place.take());
            send_home(door, core, HandOff { socket, leftover, arrival: Arrival { newcomer, address, seat } }).await
        }
        (Guest::Refused(code, text), _) => return close_at_once(socket, code, &text),
        (Guest::Hub { hub, legacy, auth }, Some(links)) => {
            (links.take)(LinkHandOff { socket, leftover, address, hub, legacy, auth }).err()
        }
        (Guest::Hub { .. }, None) => None,
    };
    if let Some(socket) = untaken {
        turn_away(&mut core.borrow_mut(), socket);
    }
}

/// Lets a peer with a key prove its id. After the proof, the peer counts as the owner of the id.
async fn prove_id(
    door: &Door,
    core: &RefCell<Core>,
    (socket, read): (&mut RequestSocket, &mut Bytes),
    newcomer: &mut Newcomer,
) -> Result<(), NoProof> {
    let (Some(key), Some(proofs)) = (newcomer.key.take(), &door.id_proofs) else { return Ok(()) };
    let wall_ms = core.borrow().now().wall_ms;
    let early = std::mem::take(read);
    *read = prove(socket, early, (&newcomer.peer, &key), &proofs.hosts, ID_PROOF_TIMEOUT, wall_ms).await?;
    newcomer.owner = true;
    core.borrow_mut().stats_mut().ids_proven += 1;
    Ok(())
}

/// Hands a socket to its peer's home shard. Returns the socket if the shard does not accept it in time.
async fn send_home(door: &Door, core: &RefCell<Core>, handed: HandOff) -> Option<Socket> {
    let home = ShardId::home(&handed.arrival.newcomer.peer, door.shards, door.keys);
    core.borrow_mut().stats_mut().handed_off += 1;
    match door.homes[usize::from(home.0)].send_timeout(handed, REQUEST_HEAD_TIMEOUT).await {
        Ok(()) => None,
        Err(SendTimeoutError::Timeout(handed) | SendTimeoutError::Closed(handed)) => Some(handed.socket),
    }
}

/// Closes a WebSocket that its home shard or the mesh has not accepted.
fn turn_away(core: &mut Core, socket: Socket) {
    let reason = CloseReason::TryAgainLater;
    core.stats_mut().handshake_failures[HandshakeFailure::HandOff as usize] += 1;
    core.stats_mut().closes[reason as usize] += 1;
    if let Some((code, text)) = reason.close_frame() {
        close_at_once(socket, code, text);
    }
}

/// Sends a close frame as the first bytes after the answer 101. The frame fits into the socket's buffer, unless the
/// socket is closed.
fn close_at_once(mut socket: Socket, code: u16, text: &str) {
    let mut frame = Vec::new();
    ws::put_close(&mut frame, code, text);
    socket.say_last(&frame);
}
