//! The door: HTTP requests, and among them those for a WebSocket.

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
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use proto::limits::{ANSWER_TIMEOUT, MAX_REQUEST_HEAD_BYTES, REQUEST_HEAD_TIMEOUT};
use proto::{CloseReason, Keys, PeerId, ShardId, ws};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;

use crate::core::Core;
use crate::session::{HandOff, Seat};
use crate::stats::HandshakeFailure;
use crate::{Gauges, Pages};

/// Who may come in, and where they go.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) shards: u16,
    pub(crate) keys: Keys,
    pub(crate) max_connections: usize,
    pub(crate) gauges: Arc<Gauges>,
    /// What a client has to show, if anything.
    pub(crate) auth_token: Option<Arc<str>>,
    pub(crate) cors: HeaderMap,
    pub(crate) pages: Pages,
    pub(crate) homes: Arc<[mpsc::Sender<HandOff>]>,
}

/// Serves one connection until it ends or becomes a WebSocket, which goes to its home shard.
pub(crate) async fn serve(door: Rc<Door>, core: Rc<RefCell<Core>>, stream: TcpStream, address: SocketAddr) {
    let admitted: Rc<RefCell<Option<PeerId>>> = Rc::default();
    let answered = Cell::new(0u32);
    let service = service_fn(|request: Request<Incoming>| {
        answered.update(|n| n.wrapping_add(1));
        std::future::ready(Ok::<_, std::convert::Infallible>(answer(&door, &core, &admitted, request)))
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
    let (Some(peer), Some(connection)) = (admitted.take(), connection.get_mut().take()) else { return };
    let parts = connection.into_parts();
    let Ok(stream) = parts.io.into_inner().into_std() else { return };
    let seat = Seat::request(&door.gauges, door.max_connections);
    let home = ShardId::home(&peer, door.shards, door.keys);
    core.borrow_mut().stats_mut().handed_off += 1;
    let handed = HandOff { stream, leftover: parts.read_buf, peer, address, seat };
    let sent = door.homes[usize::from(home.0)].send_timeout(handed, REQUEST_HEAD_TIMEOUT).await;
    if let Err(SendTimeoutError::Timeout(handed) | SendTimeoutError::Closed(handed)) = sent {
        let reason = CloseReason::TryAgainLater;
        let mut core = core.borrow_mut();
        core.stats_mut().handshake_failures[HandshakeFailure::HandOff as usize] += 1;
        core.stats_mut().closes[reason as usize] += 1;
        if let Some((code, text)) = reason.close_frame() {
            let mut frame = Vec::new();
            ws::put_close(&mut frame, code, text);
            // The first bytes behind the 101: the socket has room for them, or is gone.
            _ = (&handed.stream).write(&frame);
        }
    }
}

fn answer(
    door: &Door,
    core: &RefCell<Core>,
    admitted: &RefCell<Option<PeerId>>,
    mut request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let query = Query::of(&request);
    let wants_socket = match request.uri().path() {
        "/ws" | "/ws/" => request.method() == Method::GET,
        "/" => request.method() == Method::GET && (request.headers().contains_key(UPGRADE) || query.peer_id.is_some()),
        _ => false,
    };
    let mut core = core.borrow_mut();
    if !wants_socket {
        core.stats_mut().http_requests += 1;
        return (door.pages)(&request.into_parts().0, core.router());
    }
    let mut refuse = |failure: HandshakeFailure, status: StatusCode, text: &'static str| {
        core.stats_mut().handshake_failures[failure as usize] += 1;
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response.headers_mut().extend(door.cors.clone());
        response
    };
    // The order is the seed's: token, id, upgrade.
    if !door.auth_token.as_deref().is_none_or(|token| query.shows(&request, token)) {
        return refuse(HandshakeFailure::Unauthorized, StatusCode::UNAUTHORIZED, "unauthorized");
    }
    let Some(peer) = query.peer_id.as_deref().and_then(|id| PeerId::from_str(id).ok()) else {
        return refuse(HandshakeFailure::InvalidPeerId, StatusCode::FORBIDDEN, "invalid peerId");
    };
    let http_1_1 = request.version() == Version::HTTP_11;
    let upgraded =
        if http_1_1 && upgrade::is_upgrade_request(&request) { upgrade::upgrade(&mut request).ok() } else { None };
    let Some((response, _)) = upgraded else {
        let text = "this is a WebSocket endpoint: ask for an upgrade (RFC 6455), version 13";
        return refuse(HandshakeFailure::NotAnUpgrade, StatusCode::BAD_REQUEST, text);
    };
    *admitted.borrow_mut() = Some(peer);
    response.map(|_| Full::default())
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
