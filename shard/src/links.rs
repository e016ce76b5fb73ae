//! Distinguishes links from peers, because other hubs request a WebSocket in the same way as peers do.

#![expect(
    clippy::disallowed_types,
    reason = "a challenge is accepted once by all shards together; the lock is held for one HMAC"
)]

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, HeaderMap};
use ipnet::IpNet;
use proto::envelope::SUBPROTOCOL;
use proto::{HubId, LINK_SCHEME, LinkAuth, LinkChallenges, LinkCredentials, is_secret};

use crate::http::{bearer_tokens, subprotocols};
use crate::socket::Socket;

/// Common beginning of the names of all versions of the links' subprotocol.
const FAMILY: &str = "peerpigeon-mesh.";

/// Configuration for links of other hubs.
#[derive(Clone)]
pub struct LinkDoor {
    /// How another hub must authenticate itself.
    pub admission: Admission,
    /// Addresses of Go hubs (MESH_LEGACY). A WebSocket from such an address is a link if it has no subprotocol.
    pub legacy: Arc<[IpNet]>,
    /// MESH_PORT. Only this port accepts links, and it accepts nothing else. With `None`, the ports for peers also
    /// accept links.
    pub port: Option<u16>,
    /// Accepts the sockets of hubs. Returns a socket that cannot be accepted.
    pub take: TakeLink,
}

/// Accepts the socket of a hub, or returns it.
pub type TakeLink = Arc<dyn Fn(LinkHandOff) -> Result<(), Socket> + Send + Sync>;

impl LinkDoor {
    /// Whether a WebSocket without a subprotocol from this address is a legacy link. An IPv4 address that arrives
    /// as an IPv4-mapped IPv6 address counts as IPv4.
    pub(crate) fn is_legacy(&self, address: SocketAddr) -> bool {
        let address = address.ip().to_canonical();
        self.legacy.iter().any(|range| range.contains(&address))
    }
}

impl fmt::Debug for LinkDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkDoor").field("legacy", &self.legacy).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Which hubs may open links. The choice does not apply to Go hubs, which send no token.
#[derive(Clone)]
pub enum Admission {
    /// No hub is accepted.
    Closed,
    /// Hubs with a verified client certificate are accepted (MESH_CLIENT_CA).
    Certificates,
    /// Every hub is accepted (MESH_INSECURE).
    Open,
    /// Hubs that know one of the tokens are accepted. A hub that sends no proof and no valid token, and asks for no
    /// challenge, is accepted if it has a verified client certificate.
    Tokens(LinkTokens),
}

/// The tokens of this mesh, and the challenges with which other hubs prove that they know a token.
#[derive(Clone)]
pub struct LinkTokens {
    /// MESH_TOKEN, and MESH_TOKEN_ALSO if it is set.
    pub tokens: Arc<[Arc<str>]>,
    /// Whether hubs may also send the token itself, as hubs of version 2.0.0 do (MESH_AUTH=both).
    pub takes_bearer: bool,
    /// The challenges, which all shards share, because a proxy can send a dialer's second request to another shard.
    challenges: Arc<Mutex<LinkChallenges>>,
}

/// The result of the check of a request for a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LinkCheck {
    /// The hub is accepted. The value is the acceptor's proof, if the hub has sent a proof.
    Accepted(Option<String>),
    /// The hub asks for a challenge, to prove that it knows the token.
    Asked,
    /// The hub has sent no proof and no valid token.
    NoToken,
    /// The hub has sent the token itself, which MESH_AUTH=challenge forbids.
    Bearer,
    /// The hub's proof was not made with one of the tokens, or not for the hub's id.
    WrongProof,
    /// The hub's proof is right, but the challenge has expired, was answered before, or was issued by another process.
    Stale,
}

impl LinkTokens {
    /// Makes the state of a hub that has issued no challenges yet. `key` is random.
    pub fn new(tokens: Arc<[Arc<str>]>, takes_bearer: bool, key: [u8; 32]) -> Self {
        Self { tokens, takes_bearer, challenges: Arc::new(Mutex::new(LinkChallenges::new(key))) }
    }

    /// Checks a request of the hub `dialer`. `query` is the token in the URL. `now` is the time since the process
    /// began.
    pub(crate) fn check(
        &self,
        dialer: Option<HubId>,
        headers: &HeaderMap,
        query: Option<&str>,
        now: Duration,
    ) -> LinkCheck {
        let sent = || headers.get_all(AUTHORIZATION).iter().filter_map(|value| value.to_str().ok()).map(str::trim);
        if let Some(credentials) = sent().find_map(LinkCredentials::parse) {
            let proven = |dialer| self.tokens.iter().find(|token| credentials.are_of(token.as_bytes(), dialer));
            let Some((token, dialer)) = dialer.and_then(|dialer| Some((proven(dialer)?, dialer))) else {
                return LinkCheck::WrongProof;
            };
            // A panic cannot leave the locked value half changed.
            let mut challenges = self.challenges.lock().unwrap_or_else(PoisonError::into_inner);
            return match challenges.redeem(&credentials, now) {
                Ok(()) => LinkCheck::Accepted(Some(credentials.reply(token.as_bytes(), dialer))),
                Err(_) => LinkCheck::Stale,
            };
        }
        let mut shown = bearer_tokens(headers).chain(query.map(str::as_bytes));
        let is_shown = shown.any(|shown| self.tokens.iter().any(|token| is_secret(shown, token.as_bytes())));
        match is_shown {
            true if self.takes_bearer => LinkCheck::Accepted(None),
            true => LinkCheck::Bearer,
            false if sent().any(|value| value.eq_ignore_ascii_case(LINK_SCHEME)) => LinkCheck::Asked,
            false => LinkCheck::NoToken,
        }
    }

    /// A new challenge, as a value of `WWW-Authenticate`. `None` if the system provides no random bytes.
    pub(crate) fn challenge(&self, now: Duration) -> Option<String> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        Some(self.challenges.lock().unwrap_or_else(PoisonError::into_inner).issue(random, now))
    }
}

/// The upgraded socket of another hub.
#[derive(Debug)]
pub struct LinkHandOff {
    /// The socket.
    pub socket: Socket,
    /// Bytes that arrived after the request. The hub must process these bytes before it processes bytes from the
    /// socket.
    pub leftover: Bytes,
    /// The address of the other end.
    pub address: SocketAddr,
    /// The id in the request.
    pub hub: HubId,
    /// Whether the link is a legacy link.
    pub legacy: bool,
    /// How the hub has authenticated itself.
    pub auth: LinkAuth,
}

/// The subprotocols for links in a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Offer {
    /// No subprotocol at all.
    Nothing,
    /// Only subprotocols that are not for links.
    Other,
    /// The version of the links' subprotocol that this hub uses.
    Spoken,
    /// Only unsupported versions of the links' subprotocol.
    Unknown,
}

impl Offer {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut offer = Self::Nothing;
        for name in subprotocols(headers) {
            match name {
                SUBPROTOCOL => return Self::Spoken,
                name if name.starts_with(FAMILY) => offer = Self::Unknown,
                _ if offer == Self::Nothing => offer = Self::Other,
                _ => {}
            }
        }
        offer
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};

    use super::*;

    #[test]
    fn a_legacy_range_contains_the_addresses_with_its_prefix() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", &["10.255.0.1", "::ffff:10.1.2.3"][..], &["11.0.0.0", "::1", "::a00:1"][..]),
            ("10.1.2.3/24", &["10.1.2.0", "10.1.2.255"], &["10.1.3.0"]),
            ("10.1.2.3/32", &["10.1.2.3"], &["10.1.2.2"]),
            ("0.0.0.0/0", &["1.2.3.4"], &["::1"]),
            ("fd00::/8", &["fd12::1"], &["fe80::1", "10.0.0.1"]),
            ("::/0", &["::2", "fd00::"], &["0.0.0.0", "::ffff:1.2.3.4"]),
        ] {
            let legacy = Arc::from([range.parse().unwrap()]);
            let door = LinkDoor {
                admission: Admission::Closed,
                legacy,
                port: None,
                take: Arc::new(|socket| Err(socket.socket)),
            };
            let is_legacy = |address: &&str| door.is_legacy(SocketAddr::new(address.parse().unwrap(), 1));
            assert!(inside.iter().all(is_legacy), "{range}");
            assert!(!outside.iter().any(is_legacy), "{range}");
        }
    }

    #[test]
    fn a_hub_is_recognized_by_its_subprotocols() {
        for (named, offer) in [
            (&[][..], Offer::Nothing),
            (&["chat"], Offer::Other),
            (&["chat, superchat"], Offer::Other),
            (&["peerpigeon-mesh.1"], Offer::Spoken),
            (&["peerpigeon-mesh.2 , peerpigeon-mesh.1,x"], Offer::Spoken),
            (&["peerpigeon-mesh.2", "peerpigeon-mesh.1"], Offer::Spoken),
            (&["chat,peerpigeon-mesh.2"], Offer::Unknown),
            (&["peerpigeon-mesh.2,chat"], Offer::Unknown),
            (&["peerpigeon-mesh.10"], Offer::Unknown),
            (&["peerpigeon-mesh"], Offer::Other),
        ] {
            let mut headers = HeaderMap::new();
            for value in named {
                headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value));
            }
            assert_eq!(Offer::of(&headers), offer, "{named:?}");
        }
    }
}
