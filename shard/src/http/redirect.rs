//! The port that redirects clients without TLS to the port with TLS (HTTP_REDIRECT_PORT).

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode};

use super::handshake;

/// Redirects a request to `https://` or `wss://`, with the same path of the same host, at `https_port`. The answer has
/// a sentence for programs that do not follow redirects. A request with another method than GET and HEAD gets only this
/// sentence. The client may have sent data without TLS, and a redirect would make the client send the data again.
pub(super) fn redirect<B>(request: &Request<B>, https_port: u16) -> Response<Full<Bytes>> {
    let scheme = if handshake::wants_websocket(request) { "wss" } else { "https" };
    let target = host(request).map(|host| match https_port {
        443 => format!("{scheme}://{host}"),
        port => format!("{scheme}://{host}:{port}"),
    });
    let shown = target.as_deref().unwrap_or("https:// or wss://");
    let explained = format!("this port only redirects to the one with TLS: use {shown}\n");
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let location = target
        .filter(|_| matches!(*request.method(), Method::GET | Method::HEAD))
        .and_then(|target| HeaderValue::try_from(format!("{target}{path}")).ok());
    let mut response = Response::new(Full::from(explained));
    *response.status_mut() = if location.is_some() { StatusCode::PERMANENT_REDIRECT } else { StatusCode::BAD_REQUEST };
    let headers = response.headers_mut();
    headers.extend(location.map(|location| (LOCATION, location)));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // Browsers must not store the redirect, because the operator may switch TLS off later.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // The text contains the host that the client has sent, and browsers must not interpret the text as HTML.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The host that the request names, without its port.
fn host<B>(request: &Request<B>) -> Option<String> {
    let named = request.headers().get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let named = request.uri().authority().cloned().or(named)?;
    Some(named.host().to_owned()).filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status and the `Location` of the answer.
    fn answer(method: Method, uri: &str, headers: &[(&str, &str)], port: u16) -> (u16, String) {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = redirect(&request.body(()).unwrap(), port);
        assert_eq!(response.headers()[CONNECTION], "close");
        let location = response.headers().get(LOCATION).map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), location.unwrap_or_default())
    }

    #[test]
    fn a_request_leads_to_the_same_path_of_the_same_host() {
        let get = |uri: &str, host: &str, port| answer(Method::GET, uri, &[("host", host)], port);
        let to = |target: &str| (308, target.to_owned());
        assert_eq!(get("/", "hub.example", 443), to("https://hub.example/"));
        assert_eq!(get("/a?b=c%20d", "hub.example:80", 443), to("https://hub.example/a?b=c%20d"));
        assert_eq!(get("/", "[2001:db8::1]:80", 8443), to("https://[2001:db8::1]:8443/"));
        assert_eq!(get("http://hub.example:80/x", "other.example", 443), to("https://hub.example/x"));
        assert_eq!(get("//evil.example/", "hub.example", 443), to("https://hub.example//evil.example/"));
        assert_eq!(answer(Method::HEAD, "/x", &[("host", "h")], 443), to("https://h/x"));
        let upgrade = [("host", "h"), ("connection", "Upgrade"), ("upgrade", "websocket")];
        assert_eq!(answer(Method::GET, "/ws?peerId=1", &upgrade, 443), to("wss://h/ws?peerId=1"));
    }

    #[test]
    fn a_request_without_a_host_or_with_data_gets_a_sentence() {
        let refused = (400, String::new());
        assert_eq!(answer(Method::GET, "/", &[], 443), refused);
        for method in [Method::POST, Method::PUT, Method::OPTIONS, Method::CONNECT] {
            assert_eq!(answer(method, "/", &[("host", "h")], 443), refused);
        }
    }
}
