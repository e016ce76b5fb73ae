//! Making a link: TCP, TLS, upgrade.

mod target;

use std::error::Error;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{
    AUTHORIZATION, CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use proto::HubId;
use proto::envelope::SUBPROTOCOL;
use proto::limits::{DIAL_TIMEOUT, MAX_ERROR_TEXT_BYTES, MAX_REQUEST_HEAD_BYTES};
use sha1::{Digest, Sha1};
use tokio::net::TcpStream;

use crate::stream::Stream;
use crate::tls::Tls;
pub(crate) use target::{Known, Plan, TargetId, Targets};

/// Longest answer to a dial that is looked at for what it says, in bytes.
const MAX_REFUSAL_BYTES: usize = 4 * 1024;

/// What a dial shows of this hub.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) hub: HubId,
    /// Never shown to a hub of the seed's kind.
    pub(crate) token: Option<Arc<str>>,
    pub(crate) tls: Tls,
}

/// A socket that speaks WebSocket from its next byte on.
pub(crate) struct Dialed {
    pub(crate) stream: Stream,
    /// What came behind the answer. It comes before anything read from the socket.
    pub(crate) leftover: Bytes,
    pub(crate) address: SocketAddr,
}

/// Why a dial came to nothing.
#[derive(Debug)]
pub(crate) struct DialError(String);

impl std::fmt::Display for DialError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl DialError {
    fn new(text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(text.floor_char_boundary(MAX_ERROR_TEXT_BYTES));
        Self(text)
    }

    /// The error and what it came from: hyper's own texts alone say little.
    fn of(error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source.filter(|_| text.len() < MAX_ERROR_TEXT_BYTES) {
            _ = write!(text, ": {error}");
            source = error.source();
        }
        Self::new(text)
    }
}

/// Dials once.
pub(crate) async fn dial(caller: Caller, plan: Plan) -> Result<Dialed, DialError> {
    let timeout = tokio::time::timeout(DIAL_TIMEOUT, async {
        let (stream, address) = connect(&caller, &plan).await?;
        upgrade(&caller, &plan, stream, address).await
    });
    timeout.await.unwrap_or_else(|_| Err(DialError::new("no answer in time")))
}

async fn connect(caller: &Caller, plan: &Plan) -> Result<(Stream, SocketAddr), DialError> {
    let connected = match plan.address {
        Some(address) => TcpStream::connect(address).await,
        None => TcpStream::connect((plan.host.as_str(), plan.port)).await,
    };
    let tcp = connected.map_err(|error| DialError::of(&error))?;
    let address = tcp.peer_addr().map_err(|error| DialError::of(&error))?;
    tcp.set_nodelay(true).map_err(|error| DialError::of(&error))?;
    if !plan.tls {
        return Ok((Stream::Plain(tcp), address));
    }
    let stream = caller.tls.connect(&plan.host, tcp).await.map_err(|error| DialError::of(&error))?;
    Ok((stream, address))
}

async fn upgrade(caller: &Caller, plan: &Plan, stream: Stream, address: SocketAddr) -> Result<Dialed, DialError> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| DialError::new(error.to_string()))?;
    let key = BASE64.encode(nonce);
    let request = request(caller, plan, &key)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_REQUEST_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| DialError::of(&error))?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(|error| DialError::of(&error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused(response).await);
        }
        check(&response, &key, plan.legacy)?;
        hyper::upgrade::on(response).await.map_err(|error| DialError::of(&error))
    };
    let connection = async { connection.with_upgrades().await.map_err(|error| DialError::of(&error)) };
    let ((), upgraded) = tokio::try_join!(connection, exchange)?;
    let parts = upgraded
        .downcast::<TokioIo<Stream>>()
        .map_err(|_| DialError::new("the upgraded socket is not the one that was dialed"))?;
    Ok(Dialed { stream: parts.io.into_inner(), leftover: parts.read_buf, address })
}

fn request(caller: &Caller, plan: &Plan, key: &str) -> Result<Request<Empty<Bytes>>, DialError> {
    let separator = if plan.path.contains('?') { '&' } else { '?' };
    let mut request = Request::get(format!("{}{separator}peerId={}", plan.path, caller.hub))
        .header(HOST, plan.authority.as_str())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, key);
    if !plan.legacy {
        request = request.header(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
        if let Some(token) = &caller.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
    }
    request.body(Empty::new()).map_err(|error| DialError::of(&error))
}

/// What another hub, or what stands before it, says when it lets nobody in: its sentence, as far as there is room for it.
async fn refused(response: Response<Incoming>) -> DialError {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_REFUSAL_BYTES).collect().await;
    let body = body.map(Collected::to_bytes).unwrap_or_default();
    let said = String::from_utf8_lossy(&body).trim().replace(char::is_control, " ");
    DialError::new(if said.is_empty() {
        format!("answered with {status}")
    } else {
        format!("answered with {status}: {said}")
    })
}

/// Whether the answer opens a WebSocket of the kind that was asked for (RFC 6455 section 4.1).
fn check<B>(response: &Response<B>, key: &str, legacy: bool) -> Result<(), DialError> {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    if header(SEC_WEBSOCKET_ACCEPT) != Some(accept(key).as_str()) {
        return Err(DialError::new("Sec-WebSocket-Accept is wrong"));
    }
    match (legacy, header(SEC_WEBSOCKET_PROTOCOL)) {
        (true, None) | (false, Some(SUBPROTOCOL)) => Ok(()),
        (false, None) => Err(DialError::new(
            "a hub that does not speak peerpigeon-mesh.1: to link to an old one, list its URL in MESH_LEGACY",
        )),
        (_, Some(_)) => Err(DialError::new("answered with a subprotocol that was not asked for")),
    }
}

/// RFC 6455 section 4.2.2.
fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    fn answer(accept: &str, subprotocol: Option<&str>, legacy: bool) -> Result<(), String> {
        let mut response = Response::builder().status(101).header(SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(subprotocol) = subprotocol {
            response = response.header(SEC_WEBSOCKET_PROTOCOL, subprotocol);
        }
        check(&response.body(()).unwrap(), "dGhlIHNhbXBsZSBub25jZQ==", legacy).map_err(|error| error.to_string())
    }

    #[test]
    fn answers_are_checked() {
        const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert_eq!(answer(ACCEPT, Some(SUBPROTOCOL), false), Ok(()));
        assert_eq!(answer(ACCEPT, None, true), Ok(()));
        assert!(answer(ACCEPT, None, false).unwrap_err().contains("MESH_LEGACY"));
        assert!(answer(ACCEPT, Some("chat"), false).is_err());
        assert!(answer(ACCEPT, Some(SUBPROTOCOL), true).is_err());
        assert!(answer("AAAA", Some(SUBPROTOCOL), false).unwrap_err().contains("Accept"));
    }

    #[test]
    fn errors_are_cut_between_characters() {
        assert_eq!(DialError::new("é".repeat(300)).0.len(), MAX_ERROR_TEXT_BYTES);
        assert_eq!(DialError::new(format!("x{}", "é".repeat(300))).0.len(), MAX_ERROR_TEXT_BYTES - 1);
    }
}
