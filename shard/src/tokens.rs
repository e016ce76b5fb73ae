//! Tokens of peers, which are JWTs (RFC 7519) signed by an identity provider.
//!
//! A token is checked by the shard that receives it. The rights in the token become a [`Grant`], which the router
//! applies. Keys can be replaced at any time. A session whose token was accepted keeps its rights until that token
//! expires.

mod claims;
mod keys;
mod refusal;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jsonwebtoken::Algorithm;
use proto::limits::{JWKS_TIMEOUT, MAX_TOKEN_BYTES, TOKEN_CLOCK_SKEW};
use proto::{Grant, PeerId};
use tokio::sync::{Notify, watch};

use claims::Claims;
pub use keys::{KeyProblem, TokenKey};
pub use refusal::TokenRefusal;

/// What a token must contain besides its signature.
#[derive(Clone, Default, Debug)]
pub struct TokenRules {
    /// JWT_AUDIENCE. The `aud` of a token must contain one of these names. If this list is empty, a token must have no
    /// `aud`.
    pub audiences: Vec<String>,
    /// JWT_ISSUER. The `iss` of a token must be one of these names. If this list is empty, any issuer is accepted.
    pub issuers: Vec<String>,
}

/// What an accepted token allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allowed {
    /// The only id that the peer may have, from `sub`. With `None`, the peer may have any id.
    pub peer: Option<PeerId>,
    /// What the session of the peer may do.
    pub grant: Grant,
}

/// The keys that are known now.
#[derive(Debug, Default)]
struct Known {
    keys: Vec<TokenKey>,
    /// Number of attempts to load keys that have ended, including failed attempts.
    loads: u64,
    /// Time before which the hub requests no keys. `None` if the hub requests no keys.
    next_load: Option<Instant>,
}

/// The checker of tokens, which all shards share.
pub struct Tokens {
    rules: TokenRules,
    known: watch::Sender<Arc<Known>>,
    /// Notified when a token names an unknown key.
    wanted: Notify,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Makes a checker of tokens, which uses `keys` until other keys are loaded.
    pub fn new(rules: TokenRules, keys: Vec<TokenKey>) -> Self {
        let known = watch::Sender::new(Arc::new(Known { keys, ..Known::default() }));
        Self { rules, known, wanted: Notify::new() }
    }

    /// Replaces all keys. `next_load` is the earliest time of the next request for keys. `None` if the hub requests no
    /// keys.
    pub fn replace(&self, keys: Vec<TokenKey>, next_load: Option<Instant>) {
        let loads = self.known.borrow().loads + 1;
        self.known.send_replace(Arc::new(Known { keys, loads, next_load }));
    }

    /// Keeps the current keys, because an attempt to load new keys has failed.
    pub fn keep(&self, next_load: Option<Instant>) {
        let known = Arc::clone(&self.known.borrow());
        let (keys, loads) = (known.keys.clone(), known.loads + 1);
        self.known.send_replace(Arc::new(Known { keys, loads, next_load }));
    }

    /// Waits until a token names an unknown key, which may have been published since the last load.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Checks a token. `at` is the current time.
    ///
    /// # Errors
    ///
    /// The reason for the refusal. After [`TokenRefusal::UnknownKey`], the token may become valid with the next load of
    /// keys ([`Self::wait_for_keys`]).
    pub fn check(&self, token: &str, at: SystemTime) -> Result<Allowed, TokenRefusal> {
        let known = Arc::clone(&self.known.borrow());
        let parts = Parts::of(token)?;
        let mut candidates =
            known.keys.iter().filter(|key| key.is_for(parts.kid.as_deref(), parts.algorithm)).peekable();
        if candidates.peek().is_none() {
            return Err(self.no_key(&known, &parts));
        }
        let is_signed = |key: &TokenKey| key.verify(parts.signature, parts.message.as_bytes(), parts.algorithm);
        if !candidates.any(is_signed) {
            return Err(TokenRefusal::Signature);
        }
        Claims::parse(parts.claims)?.judge(&self.rules, at)
    }

    /// The refusal of a token for which the hub has no key.
    fn no_key(&self, known: &Known, parts: &Parts<'_>) -> TokenRefusal {
        let is_named = known.keys.iter().any(|key| key.is_named(parts.kid.as_deref()));
        let has_algorithm = known.keys.iter().any(|key| key.has(parts.algorithm));
        // Published sets of keys contain no secrets, so the next load cannot add a key for HMAC.
        let is_hmac = matches!(parts.algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
        let may_come = known.next_load.is_some() && !is_hmac;
        if is_named || !has_algorithm && !may_come { TokenRefusal::Algorithm } else { TokenRefusal::UnknownKey }
    }

    /// Waits until the next attempt to load keys has ended, if the token's key is unknown and keys can be requested
    /// soon. Returns whether it waited.
    pub async fn wait_for_keys(&self, token: &str) -> bool {
        if self.check(token, SystemTime::now()) != Err(TokenRefusal::UnknownKey) {
            return false;
        }
        let mut known = self.known.subscribe();
        let is_soon = |known: &Known| {
            known.next_load.is_some_and(|at| at.saturating_duration_since(Instant::now()) < JWKS_TIMEOUT)
        };
        let loads = known.borrow_and_update().loads;
        if !is_soon(&known.borrow()) {
            return false;
        }
        self.wanted.notify_one();
        let loaded = known.wait_for(|known| known.loads > loads);
        _ = tokio::time::timeout(2 * JWKS_TIMEOUT, loaded).await;
        true
    }
}

/// The parts of a token (RFC 7515, 7.1). Only the header is parsed.
struct Parts<'a> {
    algorithm: Algorithm,
    kid: Option<String>,
    /// The header and the claims, which are signed.
    message: &'a str,
    claims: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Result<Self, TokenRefusal> {
        let malformed = TokenRefusal::Malformed;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, claims) = message.split_once('.').filter(|(_, claims)| !claims.contains('.')).ok_or(malformed)?;
        let header: claims::Header = claims::decoded(header).ok_or(malformed)?;
        if header.crit.is_some() {
            // The token requires an extension (`crit`) that this hub does not support, so the hub must refuse it (RFC
            // 7515, 4.1.11).
            return Err(TokenRefusal::Algorithm);
        }
        let algorithm = match header.alg.as_str() {
            "HS256" => Algorithm::HS256,
            "HS384" => Algorithm::HS384,
            "HS512" => Algorithm::HS512,
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            "EdDSA" => Algorithm::EdDSA,
            // The hub accepts no algorithm except the six above, so it also refuses `none`.
            _ => return Err(TokenRefusal::Algorithm),
        };
        Ok(Self { algorithm, kid: header.kid, message, claims, signature })
    }
}

/// Milliseconds since 1970.
fn millis(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX))
}

/// Converts a time in a token (seconds since 1970; RFC 7519, 2) to milliseconds.
fn numeric_date(seconds: f64) -> u64 {
    // The conversion saturates: a negative number becomes 0.
    (seconds * 1000.0) as u64
}

/// Maximum time by which the issuer's clock may be ahead of the hub's clock, in milliseconds.
const SKEW_MS: u64 = Duration::as_millis(&TOKEN_CLOCK_SKEW) as u64;
