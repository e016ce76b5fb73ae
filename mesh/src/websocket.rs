//! Opens WebSockets to hubs: addresses, TCP, TLS, upgrade. Links and the command-line tools use the same code.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{
    AUTHORIZATION, CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use proto::envelope::TOKEN_WANTED;
use proto::limits::{DIAL_TIMEOUT, MAX_CONNECT_ATTEMPTS, MAX_REQUEST_HEAD_BYTES, UPGRADE_SHARE};
use proto::{HubId, LINK_SCHEME, LinkCredentials};
use sha1::{Digest, Sha1};
use tls::Explained;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::race::{self, Experience, Race};
use crate::resolve::resolve;
use crate::stream::MaybeTlsStream;
use crate::tls::Tls;

/// Maximum number of bytes read from the body of a refusal.
const MAX_REFUSAL_BYTES: usize = 4 * 1024;

/// A socket after a successful upgrade.
#[derive(Debug)]
pub struct WebSocket {
    /// The socket.
    pub stream: MaybeTlsStream,
    /// Bytes that arrived after the answer. The leftover bytes precede everything that is read from the socket.
    pub leftover: Bytes,
    /// The address of the other end.
    pub address: SocketAddr,
    /// Whether the other end has proved that it knows MESH_TOKEN.
    pub is_proven: bool,
}

/// Why no WebSocket was opened.
#[derive(Debug)]
pub enum ConnectError {
    /// The name could not be resolved, no TCP connection was made, or the connection failed.
    Tcp(io::Error),
    /// The other side did not prove its identity, or does not use TLS.
    Tls(io::Error),
    /// The server answered the request without an upgrade.
    Refused {
        /// Status of the answer.
        status: StatusCode,
        /// The beginning of the answer's body, at most 4 KiB.
        body: String,
    },
    /// The answer was not HTTP, or ended early.
    Http(hyper::Error),
    /// The request is invalid: the token or the URL has characters that HTTP does not allow.
    Request(hyper::http::Error),
    /// The answer is 101, but violates RFC 6455 section 4.1.
    Handshake(&'static str),
    /// The answer opens a WebSocket without the requested subprotocol.
    NoSubprotocol {
        /// Whether the request contained the token, or a proof that this hub knows it.
        shown: bool,
    },
    /// The server asked for a token, and ended the connection before the token was sent.
    Asked,
    /// The hub asks for the token itself, as hubs of version 2.0.0 do, but MESH_AUTH=challenge forbids sending it.
    NoChallenge,
    /// The hub opened a link and did not prove that it knows MESH_TOKEN.
    Unproven,
    /// The server did not answer in time.
    Late,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(error) => write!(f, "{error}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Refused { status, body } => {
                let body = body.trim().replace(char::is_control, " ");
                let colon = if body.is_empty() { "" } else { ": " };
                write!(f, "the hub answered {status}{colon}{body}")
            }
            Self::Http(error) if let Some(sentence) = Explained::among(error) => write!(f, "TLS: {sentence}"),
            Self::Http(error) => {
                // hyper's own text is too short to be understood alone.
                write!(f, "the handshake failed: {error}")?;
                std::error::Error::source(error).map_or(Ok(()), |source| write!(f, ": {source}"))
            }
            Self::Request(error) => write!(f, "the request cannot be written: {error}"),
            Self::Handshake(what) => write!(f, "the handshake failed: {what}"),
            Self::NoSubprotocol { .. } => f.write_str("the handshake failed: the subprotocol is missing"),
            Self::Asked => f.write_str(
                "the hub asked for the token, and the connection ended before the token was sent: let the proxy in \
                 front of the hub keep the connection open after 401",
            ),
            Self::NoChallenge => f.write_str(
                "the hub asked for MESH_TOKEN itself, which was not sent: update that hub, or set MESH_AUTH=both until \
                 every hub is of version 2.1",
            ),
            Self::Unproven => f.write_str(
                "the other side did not prove that it knows MESH_TOKEN: check the address, and MESH_TOKEN and \
                 MESH_AUTH of that hub",
            ),
            Self::Late => f.write_str("no answer in time"),
        }
    }
}

impl std::error::Error for ConnectError {}

impl ConnectError {
    /// Whether another address of the same name may work.
    fn is_of_the_address(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Tls(_) | Self::Http(_) | Self::Handshake(_) | Self::Asked | Self::Late => true,
            Self::NoChallenge | Self::Unproven => true,
            // The name may lead to Go hubs and to PeerPigeon 2 hubs, so another address may work. The token is sent
            // only to a server that has asked for it.
            Self::NoSubprotocol { shown } => !shown,
            // The server is busy or draining, or is a proxy without a hub.
            Self::Refused { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Request(_) => false,
        }
    }
}

/// How this hub proves, when it requests a link, that it knows MESH_TOKEN. This hub sends a proof only after the other
/// side has answered as only PeerPigeon 2 hubs do ([`TOKEN_WANTED`]).
///
/// The first request has no credentials. The second request follows on the same connection, and answers the other
/// side's challenge. Hubs of version 2.0.0 send no challenge. A hub without a challenge receives the token itself if
/// [`Self::sends_bearer`] is true.
#[derive(Clone)]
pub(crate) struct LinkLogin {
    /// MESH_TOKEN.
    pub(crate) token: Arc<str>,
    /// The id of this hub in the request.
    pub(crate) dialer: HubId,
    /// Whether MESH_AUTH=both is set, so that any server at a dialed address that asks for the token receives it.
    pub(crate) sends_bearer: bool,
}

impl fmt::Debug for LinkLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkLogin").field("sends_bearer", &self.sends_bearer).finish_non_exhaustive()
    }
}

/// Opens a WebSocket to one of `addresses`, tried in their order.
///
/// The next address is tried when the previous one has failed, or has not connected within
/// [`CONNECT_STAGGER`](proto::limits::CONNECT_STAGGER). The first address that completes its TCP and TLS handshakes
/// gets the upgrade request, and the other attempts end. An upgrade that exceeds its share of the time is abandoned for
/// the next address. Only one upgrade is in progress at a time, so a hub never receives one peer's request twice at the
/// same time.
///
/// The headers of a WebSocket upgrade are added to `request`. If `tls` is given, the connection uses TLS, and the
/// certificate must be for the name in `tls`.
///
/// # Errors
///
/// The error of the last failed address, or [`ConnectError::Late`] after `patience`.
pub async fn open(
    addresses: VecDeque<SocketAddr>,
    tls: Option<(&Tls, &str)>,
    request: &Request<Empty<Bytes>>,
    patience: Duration,
) -> Result<WebSocket, ConnectError> {
    open_beside(addresses, tls, request, patience, &enough()).await
}

/// Like [`open`], but for one of several simultaneous dials. Each attempt beyond the first takes a permit of `extra`
/// while it runs.
pub(crate) async fn open_beside(
    addresses: VecDeque<SocketAddr>,
    tls: Option<(&Tls, &str)>,
    request: &Request<Empty<Bytes>>,
    patience: Duration,
    extra: &Semaphore,
) -> Result<WebSocket, ConnectError> {
    let connect = async |address| {
        let tcp = tcp(address).await?;
        match tls {
            None => Ok(MaybeTlsStream::Plain(tcp)),
            Some((tls, host)) => tls.connect(host, tcp).await.map_err(ConnectError::Tls),
        }
    };
    let exchange = async |_, stream| Box::pin(upgrade(stream, request.clone())).await;
    let reached = Box::pin(reach(addresses, patience, extra, &connect, exchange)).await?;
    let (address, (stream, leftover, is_proven)) = reached;
    Ok(WebSocket { stream, leftover, address, is_proven })
}

/// Sends a request to a host with one or more addresses. Like [`open`], but for other protocols than WebSocket.
///
/// # Errors
///
/// The error of the last failed address, or [`ConnectError::Late`] after `patience`.
pub async fn ask<T>(
    host: &str,
    port: u16,
    patience: Duration,
    exchange: impl AsyncFn(TcpStream) -> Result<T, ConnectError>,
) -> Result<T, ConnectError> {
    let deadline = Instant::now() + patience;
    let resolved = timeout_at(deadline, resolve(host, port)).await;
    let resolved = resolved.map_err(|_| ConnectError::Late)?.map_err(ConnectError::Tcp)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let (_, answer) =
        Box::pin(reach(order(resolved, None), left, &enough(), &tcp, async |_, tcp| exchange(tcp).await)).await?;
    Ok(answer)
}

/// Connects as [`Race`] decides, and runs the exchange on the first connection. An exchange that exceeds its share of
/// the time is abandoned for the next connection.
async fn reach<S, T>(
    addresses: VecDeque<SocketAddr>,
    patience: Duration,
    extra: &Semaphore,
    connect: &impl AsyncFn(SocketAddr) -> Result<S, ConnectError>,
    exchange: impl AsyncFn(SocketAddr, S) -> Result<T, ConnectError>,
) -> Result<(SocketAddr, T), ConnectError> {
    let start = Instant::now();
    let deadline = start + patience;
    let mut race = Race::new(addresses);
    loop {
        let connected = timeout_at(deadline, Box::pin(run(&mut race, start, extra, connect)));
        let (address, stream) = connected.await.unwrap_or(Err(ConnectError::Late))?;
        let others = u32::try_from(race.left()).unwrap_or(u32::MAX);
        let left = deadline.saturating_duration_since(Instant::now());
        let share = (left / others.saturating_add(1)).clamp(UPGRADE_SHARE, DIAL_TIMEOUT / 2);
        let answer_by = if others == 0 { deadline } else { deadline.min(Instant::now() + share) };
        let answered = timeout_at(answer_by, Box::pin(exchange(address, stream)));
        match answered.await.unwrap_or(Err(ConnectError::Late)) {
            Ok(answer) => return Ok((address, answer)),
            Err(error) if race.left() == 0 || !error.is_of_the_address() => return Err(error),
            Err(_) => {}
        }
    }
}

/// Orders the addresses from a resolver for [`open`]: families alternate, and the address that `worked` before is
/// first.
pub fn order(resolved: impl IntoIterator<Item = SocketAddr>, worked: Option<SocketAddr>) -> VecDeque<SocketAddr> {
    race::order(resolved, &Experience { worked, ..Experience::default() })
}

/// Permits for the maximum number of attempts for one host.
fn enough() -> Semaphore {
    Semaphore::new(MAX_CONNECT_ATTEMPTS)
}

async fn tcp(address: SocketAddr) -> Result<TcpStream, ConnectError> {
    let stream = TcpStream::connect(address).await.map_err(ConnectError::Tcp)?;
    stream.set_nodelay(true).map_err(ConnectError::Tcp)?;
    Ok(stream)
}

/// An attempt to connect.
struct Attempt<'a, F> {
    address: SocketAddr,
    /// The permit of an additional attempt; `None` for the one attempt that each dial may always make.
    extra: Option<SemaphorePermit<'a>>,
    connecting: Pin<Box<F>>,
}

/// Runs attempts until one connects or none is left.
async fn run<T>(
    race: &mut Race,
    start: Instant,
    extra: &Semaphore,
    attempt: &impl AsyncFn(SocketAddr) -> Result<T, ConnectError>,
) -> Result<(SocketAddr, T), ConnectError> {
    let mut running: Vec<Attempt<'_, _>> = Vec::new();
    let mut last = ConnectError::Tcp(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    loop {
        loop {
            let mut extra = if running.is_empty() { None } else { extra.try_acquire().ok() };
            let Some(race::Start { address, give_up }) = race.start(start.elapsed(), extra.is_some()) else { break };
            if let Some(at) = running.iter().position(|other| Some(other.address) == give_up) {
                extra = running.remove(at).extra;
            }
            running.push(Attempt { address, extra, connecting: Box::pin(attempt(address)) });
        }
        if race.is_over() {
            return Err(last);
        }
        let due = race.due();
        let next = async {
            match due {
                Some(due) => tokio::time::sleep_until(start + due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            (at, result) = first_of(&mut running) => {
                let Attempt { address, extra, .. } = running.swap_remove(at);
                // The attempt that needed no permit has ended, so another attempt no longer needs its permit and
                // returns it.
                if extra.is_none() && let Some(other) = running.first_mut() {
                    other.extra = None;
                }
                match result {
                    Ok(connected) => {
                        race.connected(address, start.elapsed());
                        return Ok((address, connected));
                    }
                    Err(error) => {
                        race.failed(address, start.elapsed());
                        last = error;
                    }
                }
            }
            () = next => {}
        }
    }
}

/// The index and the output of the first attempt that completes. At most
/// [`MAX_CONNECT_ATTEMPTS`](proto::limits::MAX_CONNECT_ATTEMPTS) attempts run at the same time.
async fn first_of<F: Future>(running: &mut [Attempt<'_, F>]) -> (usize, F::Output) {
    poll_fn(|cx| {
        for (at, attempt) in running.iter_mut().enumerate() {
            if let Poll::Ready(done) = attempt.connecting.as_mut().poll(cx) {
                return Poll::Ready((at, done));
            }
        }
        Poll::Pending
    })
    .await
}

/// Runs the exchange. Returns the raw stream, the bytes that arrived after the answer, and whether the other end has
/// proved that it knows MESH_TOKEN.
async fn upgrade(
    stream: MaybeTlsStream,
    mut request: Request<Empty<Bytes>>,
) -> Result<(MaybeTlsStream, Bytes, bool), ConnectError> {
    let key = key()?;
    let asked = request.headers().get(SEC_WEBSOCKET_PROTOCOL).cloned();
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).map_err(|e| ConnectError::Request(e.into()))?);

    let (mut requests, connection) = http1::Builder::new()
        .max_buf_size(MAX_REQUEST_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(ConnectError::Http)?;
    let login = request.extensions().get::<LinkLogin>().cloned();
    let first = login.as_ref().map(|_| request.clone());
    if login.is_some() {
        // The first request has only the name of the scheme. Hubs that send challenges do not count such a request as a
        // failed attempt to authenticate.
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static(LINK_SCHEME));
    }
    let mut unanswered = login.clone().zip(first);
    let mut credentials = None;
    // This future owns `requests`. When it drops them, the connection ends.
    let exchange = async move {
        loop {
            let shown = request.headers().get(AUTHORIZATION).is_some_and(|value| value != LINK_SCHEME);
            let response = requests.send_request(request).await.map_err(ConnectError::Http)?;
            let status = response.status();
            if status == StatusCode::SWITCHING_PROTOCOLS {
                check(&response, &key, asked.as_ref(), shown)?;
                return is_proven(login.as_ref(), credentials.as_ref(), response.headers());
            }
            let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
            let challenges: Vec<String> =
                challenges.filter_map(|value| value.to_str().ok()).map(ToOwned::to_owned).collect();
            let body = Limited::new(response.into_body(), MAX_REFUSAL_BYTES).collect().await;
            let body = body.map(Collected::to_bytes).unwrap_or_default();
            match unanswered.take() {
                Some((login, mut second)) if status == StatusCode::UNAUTHORIZED && body == TOKEN_WANTED => {
                    // The second request must use the same connection, because another one could lead to a hub that
                    // must not receive the token.
                    requests.ready().await.map_err(|_| ConnectError::Asked)?;
                    credentials = answered(&login, &challenges)?;
                    let sent = match &credentials {
                        Some(credentials) => credentials.header(),
                        None if login.sends_bearer => format!("Bearer {}", login.token),
                        None => return Err(ConnectError::NoChallenge),
                    };
                    let sent = HeaderValue::from_str(&sent).map_err(|error| ConnectError::Request(error.into()))?;
                    second.headers_mut().insert(AUTHORIZATION, sent);
                    request = second;
                }
                _ => return Err(ConnectError::Refused { status, body: String::from_utf8_lossy(&body).into_owned() }),
            }
        }
    };
    // The exchange makes progress only while the connection is polled, so both futures are awaited together.
    let (exchanged, driven) = tokio::join!(exchange, connection.without_shutdown());
    let is_proven = exchanged?;
    let parts = driven.map_err(ConnectError::Http)?;
    Ok((parts.io.into_inner(), parts.read_buf, is_proven))
}

/// Answers the other side's challenge. Returns `None` if the other side has sent no challenge.
fn answered(login: &LinkLogin, challenges: &[String]) -> Result<Option<LinkCredentials>, ConnectError> {
    let mut nonce = [0; 32];
    fill(&mut nonce)?;
    let answer = |challenge: &String| LinkCredentials::answer(challenge, login.token.as_bytes(), login.dialer, nonce);
    Ok(challenges.iter().find_map(answer))
}

/// Whether the other side has proved that it knows the token. A hub of version 2.0.0 sends no challenge, and cannot
/// prove it.
///
/// # Errors
///
/// Returns [`ConnectError::Unproven`] if `login` requires a proof and the other side has given none. If
/// [`LinkLogin::sends_bearer`] is true, a hub that sent no challenge is accepted without a proof.
fn is_proven(
    login: Option<&LinkLogin>,
    credentials: Option<&LinkCredentials>,
    headers: &HeaderMap,
) -> Result<bool, ConnectError> {
    let is_proven = login.zip(credentials).is_some_and(|(login, credentials)| {
        let proof = headers.get("authentication-info").and_then(|value| value.to_str().ok());
        proof.is_some_and(|proof| credentials.is_reply(proof, login.token.as_bytes(), login.dialer))
    });
    let is_accepted = is_proven || (credentials.is_none() && login.is_none_or(|login| login.sends_bearer));
    if is_accepted { Ok(is_proven) } else { Err(ConnectError::Unproven) }
}

fn fill(random: &mut [u8]) -> Result<(), ConnectError> {
    getrandom::fill(random).map_err(|error| ConnectError::Tcp(io::Error::other(error.to_string())))
}

fn key() -> Result<String, ConnectError> {
    let mut nonce = [0; 16];
    fill(&mut nonce)?;
    Ok(BASE64.encode(nonce))
}

/// Checks that a 101 answer opens the requested WebSocket (RFC 6455 section 4.1). `shown` says whether the request
/// contained the token, or a proof that this hub knows it.
fn check<B>(response: &Response<B>, key: &str, asked: Option<&HeaderValue>, shown: bool) -> Result<(), ConnectError> {
    let headers = response.headers();
    let lists = |name: HeaderName, token: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
    };
    if !lists(UPGRADE, "websocket") || !lists(CONNECTION, "upgrade") {
        return Err(ConnectError::Handshake("the answer is not an upgrade to a WebSocket"));
    }
    if headers.get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes) != Some(accept(key).as_bytes()) {
        return Err(ConnectError::Handshake("Sec-WebSocket-Accept is wrong"));
    }
    if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err(ConnectError::Handshake("the answer has an extension that was not requested"));
    }
    match (asked, headers.get(SEC_WEBSOCKET_PROTOCOL)) {
        (None, None) => Ok(()),
        (Some(asked), Some(answered)) if asked == answered => Ok(()),
        (Some(_), None) => Err(ConnectError::NoSubprotocol { shown }),
        (_, Some(_)) => Err(ConnectError::Handshake("the answer has a subprotocol that was not requested")),
    }
}

/// The value of `Sec-WebSocket-Accept` for a key (RFC 6455 section 4.2.2).
pub fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64.encode(hash.finalize())
}

#[cfg(test)]
mod tests;
