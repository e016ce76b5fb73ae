//! The URL of a hub.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use proto::{PeerId, Redacted};

/// The URL of a hub: `ws://host[:port][/path][?query]`, or `wss://` with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubUrl(Uri);

/// Why a text is not a [`HubUrl`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HubUrlError {
    /// The text is not a URL, or the URL has no host.
    Malformed,
    /// The scheme is neither `ws` nor `wss`.
    Scheme,
}

impl fmt::Display for HubUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not the URL of a hub: use ws://host:port or wss://host, with or without a path",
            Self::Scheme => "unknown scheme: use a URL that begins with ws:// or wss://",
        })
    }
}

impl std::error::Error for HubUrlError {}

impl FromStr for HubUrl {
    type Err = HubUrlError;

    fn from_str(text: &str) -> Result<Self, HubUrlError> {
        let uri: Uri = text.parse().map_err(|_| HubUrlError::Malformed)?;
        match (uri.scheme_str(), uri.host()) {
            (Some("ws" | "wss"), Some(host)) if !host.is_empty() => Ok(Self(uri)),
            (Some("ws" | "wss") | None, _) => Err(HubUrlError::Malformed),
            (Some(_), _) => Err(HubUrlError::Scheme),
        }
    }
}

/// Shows the URL without its secrets.
impl fmt::Display for HubUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Redacted(&self.0.to_string()).fmt(f)
    }
}

impl HubUrl {
    /// The default of `--hub`.
    pub const DEFAULT: &'static str = "ws://localhost:8080";

    /// The URL for a peer's connection. A URL without a path gets `/ws`.
    pub fn for_peer(&self, peer: &PeerId) -> String {
        let scheme = if self.is_tls() { "wss" } else { "ws" };
        format!("{scheme}://{}{}", self.authority(), self.request_target(peer))
    }

    /// The URL with a token in its query.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        let token: String = form_urlencoded::byte_serialize(token.as_bytes()).collect();
        let path = match self.0.path() {
            "" | "/" => "/ws",
            path => path,
        };
        let query = self.0.query().filter(|query| !query.is_empty()).map(|query| format!("{query}&"));
        let target = format!("{path}?{}token={token}", query.unwrap_or_default());
        let mut parts = self.0.clone().into_parts();
        // If the token makes the URL invalid, the token is left out, and the hub refuses the peer.
        parts.path_and_query = target.parse().ok().or(parts.path_and_query);
        Self(Uri::from_parts(parts).unwrap_or_else(|_| self.0.clone()))
    }

    /// The name of the hub's host, or its address without brackets.
    pub(crate) fn host(&self) -> &str {
        let host = self.0.host().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// The port, or the default of the scheme.
    pub(crate) fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(if self.is_tls() { 443 } else { 80 })
    }

    /// The path of the URL, without its query.
    pub(crate) fn path(&self) -> &str {
        self.0.path()
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.0.scheme_str() == Some("wss")
    }

    pub(crate) fn authority(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    pub(crate) fn request_target(&self, peer: &PeerId) -> String {
        let path = match self.0.path() {
            "" | "/" => "/ws",
            path => path,
        };
        match self.0.query() {
            Some(query) if !query.is_empty() => format!("{path}?{query}&peerId={peer}"),
            Some(_) | None => format!("{path}?peerId={peer}"),
        }
    }
}
