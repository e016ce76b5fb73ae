//! Making a link: TCP, TLS, upgrade.

mod target;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::header::{AUTHORIZATION, HOST, SEC_WEBSOCKET_PROTOCOL};
use proto::HubId;
use proto::envelope::SUBPROTOCOL;
use proto::limits::{DIAL_TIMEOUT, MAX_ERROR_TEXT_BYTES};
use tokio::time::Instant;

use crate::race;
use crate::tls::Tls;
use crate::websocket::{self, ConnectError, WebSocket};
pub(crate) use target::{Known, Plan, TargetId, Targets};

/// What a dial shows of this hub.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) hub: HubId,
    /// Never shown to a hub of the seed's kind.
    pub(crate) token: Option<Arc<str>>,
    pub(crate) tls: Tls,
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
}

impl From<ConnectError> for DialError {
    fn from(error: ConnectError) -> Self {
        if matches!(error, ConnectError::NoSubprotocol) {
            return Self::new(
                "a hub that does not speak peerpigeon-mesh.1: to link to an old one, list its URL in MESH_LEGACY",
            );
        }
        Self::new(error.to_string())
    }
}

/// Dials once.
pub(crate) async fn dial(caller: Caller, plan: Plan) -> Result<WebSocket, DialError> {
    let deadline = Instant::now() + DIAL_TIMEOUT;
    let request = request(&caller, &plan)?;
    let addresses = match plan.address {
        Some(address) => [address].into(),
        None => {
            let resolved = tokio::net::lookup_host((plan.host.as_str(), plan.port));
            let resolved = tokio::time::timeout_at(deadline, resolved).await;
            let resolved = resolved.map_err(|_| DialError::new("the name was not resolved in time"))?;
            race::order(resolved.map_err(ConnectError::Tcp)?, &plan.experience)
        }
    };
    let tls = plan.tls.then_some((&caller.tls, plan.host.as_str()));
    let left: Duration = deadline.saturating_duration_since(Instant::now());
    Ok(Box::pin(websocket::open(addresses, tls, &request, left)).await?)
}

fn request(caller: &Caller, plan: &Plan) -> Result<Request<Empty<Bytes>>, DialError> {
    let separator = if plan.path.contains('?') { '&' } else { '?' };
    let mut request =
        Request::get(format!("{}{separator}peerId={}", plan.path, caller.hub)).header(HOST, plan.authority.as_str());
    if !plan.legacy {
        request = request.header(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
        if let Some(token) = &caller.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
    }
    Ok(request.body(Empty::new()).map_err(ConnectError::Request)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_without_the_subprotocol_is_an_old_one() {
        assert!(DialError::from(ConnectError::NoSubprotocol).to_string().contains("MESH_LEGACY"));
    }

    #[test]
    fn errors_are_cut_between_characters() {
        assert_eq!(DialError::new("é".repeat(300)).0.len(), MAX_ERROR_TEXT_BYTES);
        assert_eq!(DialError::new(format!("x{}", "é".repeat(300))).0.len(), MAX_ERROR_TEXT_BYTES - 1);
    }
}
