//! One HTTP request to a hub, for the tools.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{HOST, HeaderValue};
use hyper::http::request::Builder;
use hyper::http::response::Parts;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use mesh::{ConnectError, MaybeTlsStream, Tls};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Maximum length of an answer's body, in bytes. A longer body is an error. `/metrics` of a hub with 16 shards has 100
/// KiB, and `/hubstats` in a mesh of 100 hubs has 50 KiB.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Reads the URL of a page.
pub(super) fn url(text: &str) -> Result<Uri, &'static str> {
    const TAKES: &str = "not an HTTP URL: use http://host[:port]/path or https://host[:port]/path";
    let url: Uri = text.parse().map_err(|_| TAKES)?;
    if matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some() { Ok(url) } else { Err(TAKES) }
}

/// Like [`ask_whole`], but returns only the status and the body of the answer.
pub(super) async fn ask(
    page: &Uri,
    request: Builder,
    body: Bytes,
    tls: impl FnOnce() -> io::Result<Tls>,
    proxies: &[IpNet],
    patience: Duration,
) -> Result<(StatusCode, String), ConnectError> {
    let (head, text) = ask_whole(page, request, body, tls, proxies, patience).await?;
    Ok((head.status, text))
}

/// Like [`ask`], but ends after the part of the body that contains `end`. The body of a stream of events has no other
/// end.
pub(super) async fn ask_until(
    page: &Uri,
    request: Builder,
    tls: impl FnOnce() -> io::Result<Tls>,
    patience: Duration,
    end: &str,
) -> Result<(StatusCode, String), ConnectError> {
    let (head, text) = send(page, request.body(Full::default()), tls, &[], patience, Some(end)).await?;
    Ok((head.status, text))
}

/// Sends a request to the host of `page`. If the URL has the scheme `https`, the connection uses `tls`. Returns the
/// head and the body of the answer. The function adds the `Host` header and `body` to `request`. If this machine's
/// address is in `proxies`, the hub expects the first line of the PROXY protocol. In this case, the function sends the
/// line `PROXY UNKNOWN` first, so that the hub treats the sender itself as the client.
pub(super) async fn ask_whole(
    page: &Uri,
    request: Builder,
    body: Bytes,
    tls: impl FnOnce() -> io::Result<Tls>,
    proxies: &[IpNet],
    patience: Duration,
) -> Result<(Parts, String), ConnectError> {
    send(page, request.body(Full::new(body)), tls, proxies, patience, None).await
}

async fn send(
    page: &Uri,
    request: hyper::http::Result<Request<Full<Bytes>>>,
    tls: impl FnOnce() -> io::Result<Tls>,
    proxies: &[IpNet],
    patience: Duration,
    end: Option<&str>,
) -> Result<(Parts, String), ConnectError> {
    let mut request = request.map_err(ConnectError::Request)?;
    let is_tls = page.scheme_str() == Some("https");
    let tls = is_tls.then(tls).transpose().map_err(ConnectError::Tls)?;
    let (host, port) = (page.host().unwrap_or_default(), page.port_u16().unwrap_or(if is_tls { 443 } else { 80 }));
    let authority = page.authority().map_or(host, |authority| authority.as_str());
    let authority = HeaderValue::from_str(authority).map_err(|error| ConnectError::Request(error.into()))?;
    request.headers_mut().insert(HOST, authority);
    let host = host.trim_matches(['[', ']']);
    let exchange = async |mut tcp: TcpStream| {
        let own = tcp.local_addr().map_err(ConnectError::Tcp)?.ip().to_canonical();
        if proxies.iter().any(|range| range.contains(&own)) {
            tcp.write_all(b"PROXY UNKNOWN\r\n").await.map_err(ConnectError::Tcp)?;
        }
        let stream = match &tls {
            None => MaybeTlsStream::Plain(tcp),
            Some(tls) => tls.connect(host, tcp).await.map_err(ConnectError::Tls)?,
        };
        exchange(stream, request.clone(), end).await
    };
    mesh::ask(host, port, patience, exchange).await
}

async fn exchange(
    stream: MaybeTlsStream,
    request: Request<Full<Bytes>>,
    end: Option<&str>,
) -> Result<(Parts, String), ConnectError> {
    let failed = |error: hyper::Error| ConnectError::Tcp(io::Error::other(error));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let (head, body) = response.into_parts();
        let mut body = Limited::new(body, MAX_ANSWER_BYTES);
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ConnectError::Tcp(io::Error::other(error)))?;
            read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if end.is_some_and(|end| read.windows(end.len()).any(|part| part == end.as_bytes())) {
                break;
            }
        }
        Ok((head, String::from_utf8_lossy(&read).into_owned()))
    };
    tokio::select! {
        answer = answer => answer,
        Err(error) = connection => Err(failed(error)),
    }
}
