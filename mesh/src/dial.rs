//! Dials links: TCP, TLS, upgrade.

mod target;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::{HOST, SEC_WEBSOCKET_PROTOCOL};
use hyper::{Request, StatusCode};
use proto::HubId;
use proto::envelope::{SUBPROTOCOL, TOKEN_WANTED};
use proto::limits::{DIAL_TIMEOUT, MAX_ERROR_TEXT_BYTES};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::race;
use crate::tls::Tls;
use crate::websocket::{self, ConnectError, LinkLogin, WebSocket};
pub(crate) use target::{Known, Plan, TargetId, Targets};

/// Data about this hub that a dial sends.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) hub: HubId,
    /// MESH_TOKEN. This hub sends neither the token nor a proof of it to a Go hub.
    pub(crate) token: Option<Arc<str>>,
    /// Whether hubs of version 2.0.0 receive the token itself (MESH_AUTH=both).
    pub(crate) sends_bearer: bool,
    pub(crate) tls: Tls,
    /// Permits for attempts that dials make beyond their first.
    pub(crate) extra_attempts: Arc<Semaphore>,
}

/// Why a dial failed.
#[derive(Debug)]
pub(crate) struct DialError {
    text: String,
}

impl std::fmt::Display for DialError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl DialError {
    fn new(text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(text.floor_char_boundary(MAX_ERROR_TEXT_BYTES));
        Self { text }
    }

    /// The error of a dial that sent no token.
    fn unproven(self) -> Self {
        let text =
            format!("MESH_TOKEN was not sent, since the other side does not answer as a PeerPigeon 2 hub: {self}");
        Self::new(text)
    }
}

impl From<ConnectError> for DialError {
    fn from(error: ConnectError) -> Self {
        if matches!(error, ConnectError::NoSubprotocol { .. }) {
            let text = "the hub does not speak peerpigeon-mesh.1: if it is a Go hub, add its URL to MESH_LEGACY";
            return Self::new(text);
        }
        Self::new(error.to_string())
    }
}

/// Makes one dial.
pub(crate) async fn dial(dialer: Dialer, plan: Plan) -> Result<WebSocket, DialError> {
    let deadline = Instant::now() + DIAL_TIMEOUT;
    let request = request(&dialer, &plan)?;
    let addresses = match plan.address {
        Some(address) => [address].into(),
        None => {
            let resolved = tokio::net::lookup_host((plan.host.as_str(), plan.port));
            let resolved = tokio::time::timeout_at(deadline, resolved).await;
            let resolved =
                resolved.map_err(|_| DialError::new("DNS did not answer in time: check the name and the resolver"))?;
            race::order(resolved.map_err(ConnectError::Tcp)?, &plan.experience)
        }
    };
    let tls = plan.tls.then_some((&dialer.tls, plan.host.as_str()));
    let left: Duration = deadline.saturating_duration_since(Instant::now());
    let opened = Box::pin(websocket::open_beside(addresses, tls, &request, left, &dialer.extra_attempts)).await;
    let asked = request.extensions().get::<LinkLogin>().is_some();
    opened.map_err(|error| {
        let refuses = |body: &String| asked && body != TOKEN_WANTED;
        let is_unproven =
            matches!(&error, ConnectError::Refused { status: StatusCode::UNAUTHORIZED, body } if refuses(body));
        let error = DialError::from(error);
        if is_unproven { error.unproven() } else { error }
    })
}

fn request(dialer: &Dialer, plan: &Plan) -> Result<Request<Empty<Bytes>>, DialError> {
    let separator = if plan.path.contains('?') { '&' } else { '?' };
    let mut request =
        Request::get(format!("{}{separator}peerId={}", plan.path, dialer.hub)).header(HOST, plan.authority.as_str());
    if !plan.legacy {
        request = request.header(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
        if let Some(token) = &dialer.token {
            let (token, sends_bearer) = (Arc::clone(token), dialer.sends_bearer);
            request = request.extension(LinkLogin { token, dialer: dialer.hub, sends_bearer });
        }
    }
    Ok(request.body(Empty::new()).map_err(ConnectError::Request)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_go_hub_names_mesh_legacy() {
        let error = DialError::from(ConnectError::NoSubprotocol { shown: true });
        assert!(error.to_string().contains("MESH_LEGACY"));
    }

    #[test]
    fn errors_are_cut_between_characters() {
        assert_eq!(DialError::new("é".repeat(300)).text.len(), MAX_ERROR_TEXT_BYTES);
        assert_eq!(DialError::new(format!("x{}", "é".repeat(300))).text.len(), MAX_ERROR_TEXT_BYTES - 1);
    }
}
