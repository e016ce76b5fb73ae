//! The query of a request for a WebSocket.

use std::str::FromStr;

use hyper::header::HeaderMap;
use hyper::{Request, StatusCode};
use proto::{PeerId, is_secret};

use super::handshake;
use super::refusal::HttpRefusal;
use crate::stats::HandshakeFailure;

/// The query of a request for a WebSocket.
pub(super) struct Query {
    pub(super) peer_id: Option<String>,
    pub(super) token: Option<String>,
    pub(super) resume: Option<String>,
    pub(super) key: Option<String>,
}

impl Query {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let pairs = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
        let mut query = Self { peer_id: None, token: None, resume: None, key: None };
        for (key, value) in pairs {
            // The first value of a repeated key counts, as in the Go hub.
            match key.as_ref() {
                "peerId" => _ = query.peer_id.get_or_insert_with(|| value.into_owned()),
                "key" => _ = query.key.get_or_insert_with(|| value.into_owned()),
                "resume" => _ = query.resume.get_or_insert_with(|| value.into_owned()),
                "token" => _ = query.token.get_or_insert_with(|| value.into_owned()),
                _ => {}
            }
        }
        query
    }

    /// The id of a peer, from the query, or else from the peer's token or key (`proven`).
    pub(super) fn peer(&self, proven: Option<PeerId>) -> Result<PeerId, HttpRefusal> {
        match (&self.peer_id, proven) {
            (None, Some(peer)) => Ok(peer),
            _ => self.id(),
        }
    }

    /// The id of the peer or hub.
    pub(super) fn id(&self) -> Result<PeerId, HttpRefusal> {
        let id = self.peer_id.as_deref().and_then(|id| PeerId::from_str(id).ok());
        id.ok_or_else(|| HttpRefusal::new(HandshakeFailure::InvalidPeerId, StatusCode::FORBIDDEN, "invalid peerId"))
    }

    /// All tokens in a request. A request can have several tokens, for example if a proxy adds a header to a request
    /// with `?token=`.
    pub(super) fn shown<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> {
        let in_query = self.token.as_deref().map(str::as_bytes);
        handshake::bearer_tokens(headers).chain(handshake::offered_tokens(headers)).chain(in_query)
    }

    pub(super) fn shows(&self, headers: &HeaderMap, token: &str) -> bool {
        self.shown(headers).any(|shown| is_secret(shown, token.as_bytes()))
    }
}
