//! Checks the upgrade to a WebSocket. Proxies may change the request or the answer, and the hub may refuse peers.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderName, ORIGIN};

use super::finding::{Finding, Report, Topic};
use super::visitor::{Message, Missing, Visitor, Welcome};
use crate::client::{ConnectError, Ended, Endpoint, HubUrl};

/// Maximum time for the answer to a handshake, and for `connected` after it. A takeover can take two seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Number of pings that are sent if the hub's first message does not arrive. The answers to these pings have about 40
/// KB in total, which is more than proxies buffer by default.
const FLUSHING_PINGS: usize = 400;

/// The URL and the credentials of a connection.
pub(super) struct Entry<'a> {
    pub(super) url: &'a HubUrl,
    pub(super) endpoint: &'a Endpoint,
    pub(super) token: Option<&'a str>,
    pub(super) origin: Option<&'a str>,
    /// Whether a token was given but is not sent, because the hub's certificate is invalid.
    pub(super) withheld: bool,
}

impl Entry<'_> {
    /// The headers of every connection.
    pub(super) fn headers(&self) -> Vec<(HeaderName, String)> {
        let token = self.token.map(|token| (AUTHORIZATION, format!("Bearer {token}")));
        let origin = self.origin.map(|origin| (ORIGIN, origin.to_owned()));
        token.into_iter().chain(origin).collect()
    }

    /// Connects and waits for `connected`.
    pub(super) async fn connect(&self) -> Result<(Visitor, Welcome), Refusal> {
        self.connect_with(self.headers()).await
    }

    async fn connect_with(&self, headers: Vec<(HeaderName, String)>) -> Result<(Visitor, Welcome), Refusal> {
        let connected = Visitor::connect(self.endpoint, headers, PATIENCE).await;
        let mut visitor = connected.map_err(Refusal::Handshake)?;
        match visitor.expect_kind(PATIENCE, "connected").await {
            Ok(message) => welcomed(visitor, &message),
            Err(Missing::Ended(ended)) => Err(Refusal::Ended(ended)),
            Err(Missing::Late) => {
                for _ in 0..FLUSHING_PINGS {
                    visitor.say(r#"{"type":"ping"}"#);
                }
                let flushed = visitor.expect_kind(PATIENCE, "connected").await;
                Err(if flushed.is_ok() { Refusal::Buffered } else { Refusal::Silent })
            }
        }
    }
}

fn welcomed(visitor: Visitor, message: &Message) -> Result<(Visitor, Welcome), Refusal> {
    let welcome = Welcome::of(message);
    welcome.map(|welcome| (visitor, welcome)).ok_or(Refusal::Strange)
}

/// Why a peer was not admitted.
pub(super) enum Refusal {
    Handshake(ConnectError),
    /// The connection ended after the upgrade.
    Ended(Ended),
    /// The first message arrived only after many more had followed it.
    Buffered,
    /// There was no first message.
    Silent,
    /// The message `connected` does not have the form that a hub sends.
    Strange,
}

impl Refusal {
    fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Handshake(ConnectError::Refused { status, .. }) => Some(*status),
            Self::Handshake(_) | Self::Ended(_) | Self::Buffered | Self::Silent | Self::Strange => None,
        }
    }

    fn body(&self) -> &str {
        match self {
            Self::Handshake(ConnectError::Refused { body, .. }) => body.trim(),
            Self::Handshake(_) | Self::Ended(_) | Self::Buffered | Self::Silent | Self::Strange => "",
        }
    }

    /// The finding for this refusal.
    pub(super) fn finding(&self, check: &'static str, entry: &Entry<'_>) -> Finding {
        let (topic, message) = match self {
            Self::Handshake(error @ ConnectError::Refused { status, body }) => {
                let topic = refused(*status, body, entry.token.is_some());
                let path = entry.url.path();
                let message = if topic == Topic::WrongPath {
                    format!("the URL leads to a hub, but peers cannot connect at its path {path}: they connect at /ws")
                } else {
                    error.to_string()
                };
                (topic, message)
            }
            Self::Handshake(ConnectError::Late) => {
                (Topic::NoAnswer, format!("no answer to the upgrade within {} s", PATIENCE.as_secs()))
            }
            Self::Handshake(ConnectError::Handshake(what)) => {
                (Topic::HeadersLost, format!("the answer is 101, but {what}"))
            }
            Self::Handshake(
                error @ (ConnectError::Tcp(_)
                | ConnectError::Tls(_)
                | ConnectError::Http(_)
                | ConnectError::Request(_)
                | ConnectError::NoSubprotocol { .. }
                | ConnectError::Asked
                | ConnectError::NoChallenge
                | ConnectError::Unproven),
            ) => (Topic::NoAnswer, error.to_string()),
            Self::Ended(ended @ Ended::Closed { code: 1008, .. }) => {
                (Topic::HubFull, format!("the hub admits nobody: {ended}"))
            }
            Self::Ended(ended @ Ended::Closed { code: 1012, .. }) => {
                (Topic::HubDrains, format!("the hub is being replaced: {ended}"))
            }
            Self::Ended(ended) => (Topic::NoAnswer, format!("the connection ended before the first message: {ended}")),
            Self::Buffered => {
                let seconds = PATIENCE.as_secs();
                let message =
                    format!("the hub's first message arrived only after {seconds} s, when many more followed");
                (Topic::Buffered, message)
            }
            Self::Silent => (Topic::NoAnswer, "the upgrade succeeded, but no message of the hub arrived".to_owned()),
            Self::Strange => (Topic::NotAHub, "the first message is not that of a hub".to_owned()),
        };
        Finding::problem(check, topic, message)
    }
}

/// The topic of an answer without an upgrade.
fn refused(status: StatusCode, body: &str, has_token: bool) -> Topic {
    match status.as_u16() {
        401 if has_token => Topic::TokenWrong,
        401 => Topic::TokenWanted,
        403 if body.starts_with("pages of ") => Topic::OriginRefused,
        403 if body.contains("peerId") => Topic::QueryLost,
        400 | 426 if body.contains("RFC 6455") => Topic::HeadersLost,
        // At an unknown path, the hub answers 404 with the path of the WebSocket. At `/ws`, it answers a request without
        // `Upgrade` with 400 and the same path.
        404 if body.contains("\"websocket\"") => Topic::WrongPath,
        400 if body.contains("\"websocket\"") => Topic::HeadersLost,
        503 if body.contains("drain") => Topic::HubDrains,
        503 if body.contains("address") || body.contains("connect") => Topic::AddressLimits,
        429 => Topic::AddressLimits,
        502..=504 => Topic::Gateway,
        _ => Topic::NotAHub,
    }
}

/// Connects like a page or a program. If that fails, finds out why, and returns `None`.
pub(super) async fn examine(entry: &Entry<'_>, report: &mut Report) -> Option<(Visitor, Welcome)> {
    const CHECK: &str = "upgrade";
    match entry.connect().await {
        Ok((visitor, welcome)) => {
            let version = welcome.protocol.map_or_else(
                || "version 1 of the protocol, as Go hubs do".to_owned(),
                |version| format!("version {version} of the protocol"),
            );
            report.add(Finding::ok(CHECK, format!("the hub speaks {version}")));
            Some((visitor, welcome))
        }
        Err(refusal) => {
            report.add(blamed(&refusal, entry).await);
            None
        }
    }
}

/// The finding for a refused upgrade. If the hub refuses the token in the header, another connection sends the token in
/// the URL.
async fn blamed(refusal: &Refusal, entry: &Entry<'_>) -> Finding {
    const CHECK: &str = "upgrade";
    let is_wrong_token = refusal.status() == Some(StatusCode::UNAUTHORIZED);
    if is_wrong_token && entry.withheld {
        let message =
            "the hub requires a token, but the doctor did not send it because the hub's certificate is invalid";
        return Finding::skipped("auth", message);
    }
    if let Some(token) = entry.token.filter(|_| is_wrong_token) {
        let endpoint = entry.endpoint.with_token(token);
        let entry = Entry { endpoint: &endpoint, token: None, ..*entry };
        if entry.connect().await.is_ok() {
            let message = "the hub accepts the token in the URL, but not in the header Authorization";
            return Finding::problem("auth", Topic::TokenHeaderLost, message);
        }
    }
    let check = match refusal.status().map(|status| status.as_u16()) {
        Some(401) => "auth",
        Some(403) if refusal.body().starts_with("pages of ") => "origin",
        _ => CHECK,
    };
    refusal.finding(check, entry)
}

/// Checks whether the hub also admits strangers. If the doctor has a token, it connects as a peer without a token. If
/// the doctor has no token, it connects as a page of another site. If it withholds the token, the check is skipped.
pub(super) async fn admission(entry: &Entry<'_>, report: &mut Report) {
    const CHECK: &str = "auth";
    if entry.withheld {
        report
            .add(Finding::skipped(CHECK, "the doctor did not send the token because the hub's certificate is invalid"));
    } else if entry.token.is_some() {
        let stranger = Entry { token: None, ..*entry };
        report.add(match stranger.connect().await {
            Ok(_) => {
                let message = "the hub accepts the token, but it also accepts peers without a token";
                Finding::warning(CHECK, Topic::OpenHub, message)
            }
            Err(refusal) if refusal.status() == Some(StatusCode::UNAUTHORIZED) => {
                Finding::ok(CHECK, "the hub accepts the token, and refuses peers without a token")
            }
            Err(refusal) => refusal.finding(CHECK, &stranger),
        });
    } else {
        let elsewhere = Entry { origin: Some("https://another-site.invalid"), ..*entry };
        report.add(match elsewhere.connect().await {
            Err(refusal) if refusal.status() == Some(StatusCode::FORBIDDEN) => {
                Finding::ok(CHECK, "the hub requires no token, and refuses pages of other sites")
            }
            _ => Finding::note(CHECK, Topic::OpenHub, "the hub requires no token: everyone may connect"),
        });
    }
    if let Some(origin) = entry.origin {
        report.add(Finding::ok("origin", format!("pages of {origin} may connect")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_topic() {
        for (status, body, has_token, topic) in [
            (401, "unauthorized", true, Topic::TokenWrong),
            (401, "unauthorized", false, Topic::TokenWanted),
            (403, "pages of https://a may not connect here", false, Topic::OriginRefused),
            (403, "invalid peerId", false, Topic::QueryLost),
            (403, "forbidden", false, Topic::NotAHub),
            (400, "use the opening handshake of RFC 6455", false, Topic::HeadersLost),
            (426, "RFC 6455", false, Topic::HeadersLost),
            (404, "{\"websocket\":\"/ws\"}", false, Topic::WrongPath),
            (400, "{\"websocket\":\"/ws\"}", false, Topic::HeadersLost),
            (400, "bad request", false, Topic::NotAHub),
            (503, "draining", false, Topic::HubDrains),
            (503, "this address has too many connections", false, Topic::AddressLimits),
            (503, "too many connections come at once", false, Topic::AddressLimits),
            (503, "no server is available", false, Topic::Gateway),
            (429, "", false, Topic::AddressLimits),
            (502, "", false, Topic::Gateway),
            (504, "", false, Topic::Gateway),
            (505, "", false, Topic::NotAHub),
            (200, "hello", false, Topic::NotAHub),
        ] {
            assert_eq!(refused(StatusCode::from_u16(status).unwrap(), body, has_token), topic, "{status} {body}");
        }
    }
}
