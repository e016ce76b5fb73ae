//! Dials links: TCP, TLS, upgrade.

mod target;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::{HOST, SEC_WEBSOCKET_PROTOCOL};
use hyper::{Request, StatusCode};
use proto::envelope::{SUBPROTOCOL, TOKEN_WANTED};
use proto::limits::{DIAL_TIMEOUT, MAX_ERROR_TEXT_BYTES};
use proto::{HubId, LinkAuth};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::race;
use crate::resolve::resolve;
use crate::tls::Tls;
use crate::websocket::{self, ConnectError, LinkLogin, WebSocket};
pub(crate) use target::{Known, Plan, TargetId, Targets};

/// The identity, the credentials and the TLS settings that this hub uses for all its dials.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) hub: HubId,
    /// MESH_TOKEN. This hub sends neither the token nor a proof of it to a Go hub.
    pub(crate) token: Option<Arc<str>>,
    /// Whether hubs of version 2.0.0 receive the token itself (MESH_AUTH=both).
    pub(crate) sends_bearer: bool,
    /// Whether `tls` presents a certificate (MESH_CERT).
    pub(crate) has_certificate: bool,
    /// Whether the certificate replaces the token at `wss://` URLs (MESH_AUTH=certificate).
    pub(crate) prefers_certificate: bool,
    /// Whether a hub with a certificate and no token may also dial URLs without TLS (MESH_INSECURE).
    pub(crate) is_open: bool,
    pub(crate) tls: Tls,
    /// Permits for additional attempts to connect. The first attempt of a dial needs no permit.
    pub(crate) extra_attempts: Arc<Semaphore>,
}

/// How the two ends of a dialed link authenticate each other.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Login {
    /// The URL is that of a Go hub.
    Legacy,
    /// TLS authenticates both ends: the server's certificate is for the dialed name, and this hub presents its own
    /// certificate.
    Certificate,
    /// The two ends prove to each other that they know MESH_TOKEN.
    Token(Arc<str>),
    /// The two ends prove nothing.
    Nothing,
}

/// A socket that a dial has opened.
pub(crate) struct Dialed {
    pub(crate) socket: WebSocket,
    /// How the other side has authenticated itself.
    pub(crate) auth: LinkAuth,
    /// Whether this hub asked the other side to prove that it knows MESH_TOKEN, and accepted it without a proof.
    pub(crate) lacks_proof: bool,
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

    /// The error of a dial that showed a certificate to a hub that wants the token.
    fn unseen() -> Self {
        Self::new(
            "the hub wants MESH_TOKEN, and has not seen the certificate of this hub: set MESH_CLIENT_CA there and dial \
             its MESH_PORT, or set MESH_TOKEN here",
        )
    }

    /// The error of a dial that was refused before the token, or a proof of it, was sent.
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
pub(crate) async fn dial(dialer: Dialer, plan: Plan) -> Result<Dialed, DialError> {
    let deadline = Instant::now() + DIAL_TIMEOUT;
    let login = dialer.login(&plan)?;
    let request = request(&dialer, &plan, &login)?;
    let addresses = match plan.address {
        Some(address) => [address].into(),
        None => {
            let resolved = resolve(&plan.host, plan.port);
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
    let socket = opened.map_err(|error| {
        let wants_token = |body: &String| login == Login::Certificate && body == TOKEN_WANTED;
        if matches!(&error, ConnectError::Refused { status: StatusCode::UNAUTHORIZED, body } if wants_token(body)) {
            return DialError::unseen();
        }
        let refuses = |body: &String| asked && body != TOKEN_WANTED;
        let is_unproven =
            matches!(&error, ConnectError::Refused { status: StatusCode::UNAUTHORIZED, body } if refuses(body));
        let error = DialError::from(error);
        if is_unproven { error.unproven() } else { error }
    })?;
    let auth = match login {
        Login::Legacy => LinkAuth::Address,
        Login::Certificate => LinkAuth::Certificate,
        Login::Token(_) if socket.is_proven => LinkAuth::Token,
        Login::Token(_) | Login::Nothing => LinkAuth::Nothing,
    };
    let lacks_proof = asked && !socket.is_proven;
    Ok(Dialed { socket, auth, lacks_proof })
}

impl Dialer {
    /// Chooses how to authenticate at a URL.
    ///
    /// # Errors
    ///
    /// Fails if this hub has a certificate and no token, MESH_INSECURE is not set, and the URL has no TLS. Without TLS,
    /// a certificate proves nothing.
    fn login(&self, plan: &Plan) -> Result<Login, DialError> {
        if plan.legacy {
            return Ok(Login::Legacy);
        }
        let by_certificate = self.has_certificate && plan.tls;
        match &self.token {
            Some(token) if !(by_certificate && self.prefers_certificate) => Ok(Login::Token(Arc::clone(token))),
            _ if by_certificate => Ok(Login::Certificate),
            _ if self.has_certificate && !self.is_open => Err(DialError::new(
                "this hub has a certificate and no MESH_TOKEN, and ws:// proves no certificates: use wss://, or set \
                 MESH_TOKEN",
            )),
            _ => Ok(Login::Nothing),
        }
    }
}

fn request(dialer: &Dialer, plan: &Plan, login: &Login) -> Result<Request<Empty<Bytes>>, DialError> {
    let separator = if plan.path.contains('?') { '&' } else { '?' };
    let mut request =
        Request::get(format!("{}{separator}peerId={}", plan.path, dialer.hub)).header(HOST, plan.authority.as_str());
    if !plan.legacy {
        request = request.header(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
        if let Login::Token(token) = login {
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
    fn the_kind_of_proof_depends_on_the_url_and_the_settings() {
        let plan = |url: &str, legacy| Plan { legacy, ..Plan::of(&url.parse().unwrap()).unwrap() };
        let dialer = |token: Option<&str>, has_certificate, prefers_certificate, is_open| Dialer {
            hub: HubId(proto::PeerId::from_bytes([1; 20])),
            token: token.map(Into::into),
            sends_bearer: false,
            has_certificate,
            prefers_certificate,
            is_open,
            tls: Tls::new(None).unwrap(),
            extra_attempts: Arc::new(Semaphore::new(1)),
        };
        let token = || Some(Login::Token("t".into()));
        let (certificate, nothing) = (Some(Login::Certificate), Some(Login::Nothing));
        for (dialer, with_tls, without) in [
            (dialer(Some("t"), false, false, false), token(), token()),
            (dialer(Some("t"), true, false, false), token(), token()),
            (dialer(Some("t"), true, true, false), certificate.clone(), token()),
            (dialer(None, true, false, false), certificate.clone(), None),
            (dialer(None, true, true, false), certificate.clone(), None),
            (dialer(None, true, false, true), certificate, nothing.clone()),
            (dialer(None, false, false, true), nothing.clone(), nothing.clone()),
            // A hub with neither a token nor a certificate can still dial, for example hubs that it has found over
            // Redis.
            (dialer(None, false, false, false), nothing.clone(), nothing),
        ] {
            assert_eq!(dialer.login(&plan("wss://a", false)).ok(), with_tls);
            let plain = dialer.login(&plan("ws://a", false));
            assert!(plain.is_ok() || plain.as_ref().is_err_and(|error| error.text.contains("use wss://")));
            assert_eq!(plain.ok(), without);
            assert_eq!(dialer.login(&plan("ws://a", true)).ok(), Some(Login::Legacy));
        }
    }

    #[test]
    fn errors_are_cut_between_characters() {
        assert_eq!(DialError::new("é".repeat(300)).text.len(), MAX_ERROR_TEXT_BYTES);
        assert_eq!(DialError::new(format!("x{}", "é".repeat(300))).text.len(), MAX_ERROR_TEXT_BYTES - 1);
    }
}
