//! Checks of RFC 9112 and RFC 6455 that hyper leaves to the server. The functions in this module depend only on the
//! head of a request.

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use hyper::http::uri::Authority;
use hyper::{Request, StatusCode, Version};
use proto::CLIENT_SUBPROTOCOL;

/// Checks the Host header (RFC 9112, 3.2). The error is a sentence for the client.
pub(super) fn check_host(version: Version, headers: &HeaderMap) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        // HTTP/1.0 does not require the header.
        let missing = "the request has no Host header: send one (RFC 9112, 3.2)";
        return if version == Version::HTTP_11 { Err(missing) } else { Ok(()) };
    };
    if hosts.next().is_some() {
        return Err("the request has several Host headers: send one (RFC 9112, 3.2)");
    }
    if host.to_str().is_ok_and(|host| host.is_empty() || is_host(host)) {
        return Ok(());
    }
    Err("the Host header is not a host with an optional port: send host or host:port (RFC 9112, 3.2)")
}

/// Whether the text is a host with an optional port.
fn is_host(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else { return false };
    // The parser silently drops an invalid port.
    let port = &text[authority.host().len().min(text.len())..];
    !text.contains('@') && (matches!(port, "" | ":") || authority.port_u16().is_some())
}

/// Whether a request asks for an upgrade to WebSocket. Upgrades to anything else are ignored, and so are all upgrades
/// in HTTP/1.0 (RFC 9110, 7.8).
pub(super) fn wants_websocket<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_11 && fastwebsockets::upgrade::is_upgrade_request(request)
}

/// Whether a request offers the subprotocol `protocol`.
pub(super) fn offers(headers: &HeaderMap, protocol: &str) -> bool {
    subprotocols(headers).any(|name| name == protocol)
}

/// The subprotocols that a request offers, in its order of preference.
pub(crate) fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

/// Why a request is not a valid handshake of RFC 6455.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoHandshake {
    /// The request does not ask for a WebSocket, or does not have exactly one header with the version.
    NotAnUpgrade,
    /// The request names another version than 13.
    Version,
    /// The request's key is missing, repeated, or not 16 bytes in base64.
    Key,
}

impl NoHandshake {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NotAnUpgrade | Self::Key => StatusCode::BAD_REQUEST,
            Self::Version => StatusCode::UPGRADE_REQUIRED,
        }
    }

    pub(super) fn explain(self) -> &'static str {
        match self {
            Self::NotAnUpgrade => "this is a WebSocket endpoint: send an upgrade request (RFC 6455), version 13",
            Self::Version => "unsupported version of WebSocket: use version 13 (RFC 6455)",
            Self::Key => "Sec-WebSocket-Key is not 16 bytes in base64: send one valid header (RFC 6455, 4.1)",
        }
    }

    /// The headers of the refusal. Every refusal names the version (RFC 6455, 4.2.2), and 426 also names the protocol
    /// (RFC 9110, 15.5.22).
    pub(super) fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::NotAnUpgrade | Self::Key => &[("sec-websocket-version", "13")],
            Self::Version => &[("sec-websocket-version", "13"), ("upgrade", "websocket"), ("connection", "upgrade")],
        }
    }
}

/// Checks a handshake (RFC 6455, 4.2.1).
pub(super) fn check<B>(request: &Request<B>) -> Result<(), NoHandshake> {
    if !wants_websocket(request) {
        return Err(NoHandshake::NotAnUpgrade);
    }
    let only = |name| {
        let mut values = request.headers().get_all(name).iter().map(|value| value.as_bytes().trim_ascii());
        values.next().filter(|_| values.next().is_none())
    };
    match only(SEC_WEBSOCKET_VERSION) {
        Some(b"13") => {}
        Some(_) => return Err(NoHandshake::Version),
        None => return Err(NoHandshake::NotAnUpgrade),
    }
    if only(SEC_WEBSOCKET_KEY).is_some_and(is_key) { Ok(()) } else { Err(NoHandshake::Key) }
}

/// Whether the key is 16 bytes in base64: 22 digits and the padding.
fn is_key(key: &[u8]) -> bool {
    key.strip_suffix(b"==").is_some_and(|digits| {
        digits.len() == 22 && digits.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/'))
    })
}

/// The tokens in the `Authorization: Bearer` headers of a request. The scheme's name is case-insensitive (RFC 9110,
/// 11.1).
pub fn bearer_tokens(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let value = value.as_bytes().trim_ascii();
        let (scheme, token) = value.split_at(value.iter().position(|c| *c == b' ')?);
        scheme.eq_ignore_ascii_case(b"bearer").then_some(token.trim_ascii())
    })
}

/// Prefix of a token among the subprotocols.
const BEARER: &str = "bearer.";

/// The tokens among the subprotocols of a request, as in `peerpigeon, bearer.<token>`. Clients in browsers send tokens
/// in this form, because pages cannot set the headers of a WebSocket request.
pub(super) fn offered_tokens(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let is_of_peers = offers(headers, CLIENT_SUBPROTOCOL);
    let tokens = subprotocols(headers).filter_map(|name| name.strip_prefix(BEARER));
    tokens.filter(move |_| is_of_peers).map(str::as_bytes)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).fold(
            HeaderMap::new(),
            |mut map, (name, value): (hyper::header::HeaderName, HeaderValue)| {
                map.append(name, value);
                map
            },
        )
    }

    #[test]
    fn a_refusal_says_what_is_wrong_and_what_to_send() {
        let (none, two, bad) = (headers(&[]), headers(&[("host", "a"), ("host", "a")]), headers(&[("host", "a b")]));
        let hosts = [none, two, bad].map(|headers| check_host(Version::HTTP_11, &headers).unwrap_err());
        let upgrades = [NoHandshake::NotAnUpgrade, NoHandshake::Version, NoHandshake::Key].map(NoHandshake::explain);
        for sentence in hosts.into_iter().chain(upgrades) {
            let (problem, advice) = sentence.split_once(": ").unwrap();
            assert!(!problem.is_empty() && ["send ", "use "].iter().any(|verb| advice.starts_with(verb)), "{sentence}");
            assert!(sentence.len() <= 120 && !sentence.ends_with('.'), "{sentence}");
        }
    }

    #[test]
    fn a_request_has_one_host() {
        for host in ["", "a", "a.example:8080", "127.0.0.1", "[::1]:80", "a_b.example"] {
            assert_eq!(check_host(Version::HTTP_11, &headers(&[("host", host)])), Ok(()), "{host}");
        }
        for host in ["a b", "user@a", "a/b", "a:x", "[::1"] {
            let checked = check_host(Version::HTTP_11, &headers(&[("host", host)]));
            assert!(checked.is_err_and(|text| text.contains("not a host")), "{host}");
        }
        let (none, two) = (headers(&[]), headers(&[("host", "a"), ("host", "a")]));
        assert!(check_host(Version::HTTP_11, &none).is_err_and(|text| text.contains("no Host")));
        assert_eq!(check_host(Version::HTTP_10, &none), Ok(()));
        for version in [Version::HTTP_10, Version::HTTP_11] {
            assert!(check_host(version, &two).is_err_and(|text| text.contains("several")));
        }
    }

    #[test]
    fn a_key_is_sixteen_bytes() {
        for key in ["dGhlIHNhbXBsZSBub25jZQ==", "AAAAAAAAAAAAAAAAAAAAAA==", "++++/////+++++////++++=="] {
            assert!(is_key(key.as_bytes()), "{key}");
        }
        for key in [
            "",
            "==",
            "x",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZ===",
            "dGhlIHNhbXBsZSBub25jZSE=",
            "dGhlIHNhbXBsZSBub25jZ-==",
            "dGhlIHNhbXBsZSBub25j ZQ==",
            "dGhlIHNhbXBsZSBub25jZWVlZQ==",
        ] {
            assert!(!is_key(key.as_bytes()), "{key}");
        }
    }

    #[test]
    fn the_name_of_a_scheme_is_case_insensitive() {
        let shown = |value| {
            let headers = headers(&[("authorization", value)]);
            bearer_tokens(&headers).map(|token| String::from_utf8(token.to_vec()).unwrap()).collect::<Vec<_>>()
        };
        for value in ["Bearer t", "bearer t", "BEARER  t", "bEaReR t "] {
            assert_eq!(shown(value), ["t"], "{value}");
        }
        for value in ["Basic t", "Bearert", "t", "", "Bearer"] {
            assert_eq!(shown(value), [""; 0], "{value}");
        }
        let several = headers(&[("authorization", "Bearer a"), ("authorization", "bearer b")]);
        assert_eq!(bearer_tokens(&several).collect::<Vec<_>>(), [b"a", b"b"]);
    }

    #[test]
    fn a_token_is_offered_beside_the_subprotocol_of_peers_only() {
        let tokens = |of: &[(&'static str, &str)]| {
            let headers = headers(of);
            offered_tokens(&headers).map(|token| String::from_utf8(token.to_vec()).unwrap()).collect::<Vec<_>>()
        };
        const NAME: &str = "sec-websocket-protocol";
        assert_eq!(tokens(&[(NAME, "peerpigeon, bearer.a.b.c")]), ["a.b.c"]);
        assert_eq!(tokens(&[(NAME, "bearer.a"), (NAME, "peerpigeon ,bearer.b")]), ["a", "b"]);
        for other in ["bearer.a", "peerpigeon-mesh.1, bearer.a", "peerpigeon, Bearer.a", "peerpigeon"] {
            assert_eq!(tokens(&[(NAME, other)]), [""; 0], "{other}");
        }
    }

    #[test]
    fn a_handshake_has_version_13_and_a_key() {
        const RIGHT: [(&str, &str); 5] = [
            ("host", "a"),
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let checked = |version, name: &str, values: &[&str]| {
            let mut request = Request::builder().version(version);
            for (name, value) in RIGHT.into_iter().filter(|(known, _)| *known != name) {
                request = request.header(name, value);
            }
            for value in values {
                request = request.header(name, *value);
            }
            check(&request.body(()).unwrap())
        };
        let with = |name, values: &[&str]| checked(Version::HTTP_11, name, values);
        assert_eq!(with("x", &[]), Ok(()));
        assert_eq!(with("upgrade", &["h2c, WebSocket"]), Ok(()));
        assert_eq!(with("sec-websocket-version", &[" 13"]), Ok(()));
        for (name, values, refusal) in [
            ("upgrade", &["h2c"][..], NoHandshake::NotAnUpgrade),
            ("connection", &["keep-alive"], NoHandshake::NotAnUpgrade),
            ("sec-websocket-version", &[], NoHandshake::NotAnUpgrade),
            ("sec-websocket-version", &["8"], NoHandshake::Version),
            ("sec-websocket-version", &["13, 8"], NoHandshake::Version),
            ("sec-websocket-key", &[], NoHandshake::Key),
            ("sec-websocket-key", &["x"], NoHandshake::Key),
            ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ=="; 2], NoHandshake::Key),
        ] {
            assert_eq!(with(name, values), Err(refusal), "{name} {values:?}");
        }
        assert_eq!(checked(Version::HTTP_10, "x", &[]), Err(NoHandshake::NotAnUpgrade));
    }
}
