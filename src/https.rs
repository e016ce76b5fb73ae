//! Sends requests to servers that are not hubs, over HTTP/1.1, with TLS for `https` URLs.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use mesh::{ConnectError, MaybeTlsStream, Tls};

/// Sends a request to the host of its URL, and returns the answer. The body of the answer may have at most `most`
/// bytes.
///
/// # Errors
///
/// If the server cannot be reached, does not answer within `patience`, or sends a longer body.
pub(crate) async fn exchange(
    tls: &Tls,
    request: Request<Bytes>,
    most: usize,
    patience: Duration,
) -> Result<Response<Bytes>, ConnectError> {
    let (mut head, body) = request.into_parts();
    let uri = std::mem::take(&mut head.uri);
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = HeaderValue::try_from(authority).map_err(|error| ConnectError::Request(error.into()))?;
    head.headers.insert(HOST, host);
    head.uri = uri.path_and_query().cloned().map_or_else(|| Uri::from_static("/"), Uri::from);
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let request = Request::from_parts(head, Full::new(body));
    let is_plain = uri.scheme_str() == Some("http");
    mesh::ask(host, uri.port_u16().unwrap_or(if is_plain { 80 } else { 443 }), patience, async |tcp| {
        let stream = match is_plain {
            true => MaybeTlsStream::Plain(tcp),
            false => tls.connect(host, tcp).await.map_err(ConnectError::Tls)?,
        };
        let failed = |error: hyper::Error| ConnectError::Tcp(io::Error::other(error));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let answer = async {
            let (head, body) = sender.send_request(request.clone()).await.map_err(failed)?.into_parts();
            let body = Limited::new(body, most).collect().await;
            let body = body.map_err(|error| ConnectError::Tcp(io::Error::other(error)))?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        let ended = async {
            let ended = connection.await;
            // Some servers end the connection right after a complete answer, without close_notify, which is an error of
            // the connection. The answer is read before the error of the connection is reported.
            tokio::task::yield_now().await;
            ended
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            Err(error) = ended => Err(failed(error)),
        }
    })
    .await
}
