//! Keys that check tokens. Each key is for one algorithm, or for the three algorithms with an HMAC.
//!
//! The type of a key decides for which algorithms the key is used. The token never decides this, so a public key cannot
//! become the secret of an HMAC.

use std::fmt;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use proto::limits::{MAX_JWKS_BYTES, MAX_TOKEN_KEYS};
use serde::Deserialize;

/// Minimum length of a secret in bytes, which is the length of an HS256 hash (RFC 7518, 3.2).
const SHORTEST_SECRET: usize = 32;

/// Minimum length of an RSA modulus, in bytes (2048 bits).
const SHORTEST_RSA: usize = 256;

/// Length of an uncompressed point of P-256, in bytes.
const P256_POINT: usize = 65;

/// Length of a key of Ed25519, in bytes.
const ED25519_KEY: usize = 32;

/// A key that checks tokens.
#[derive(Clone)]
pub struct TokenKey {
    /// The name of the key. The key checks only tokens with this `kid` or without a `kid`. With `None`, the key checks
    /// tokens with any `kid`.
    kid: Option<Box<str>>,
    algorithms: &'static [Algorithm],
    key: DecodingKey,
}

impl PartialEq for TokenKey {
    fn eq(&self, other: &Self) -> bool {
        use jsonwebtoken::DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
        let is_same = match (self.key.kind(), other.key.kind()) {
            (SecretOrDer(a), SecretOrDer(b)) => proto::is_secret(a, b),
            (RsaModulusExponent { n, e }, RsaModulusExponent { n: other_n, e: other_e }) => {
                (n, e) == (other_n, other_e)
            }
            (SecretOrDer(_), RsaModulusExponent { .. }) | (RsaModulusExponent { .. }, SecretOrDer(_)) => false,
        };
        is_same && self.kid == other.kid && self.algorithms == other.algorithms
    }
}

impl Eq for TokenKey {}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("algorithms", &self.algorithms).finish_non_exhaustive()
    }
}

/// Why a key is not valid. The sentence says what is wrong, and then what to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyProblem(&'static str);

impl fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for KeyProblem {}

const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: &[Algorithm] = &[Algorithm::RS256];
const P256: &[Algorithm] = &[Algorithm::ES256];
const ED25519: &[Algorithm] = &[Algorithm::EdDSA];

impl TokenKey {
    /// Makes the key for HS256, HS384 and HS512 from a secret.
    ///
    /// # Errors
    ///
    /// If the secret is shorter than 32 bytes.
    pub fn of_secret(secret: &[u8]) -> Result<Self, KeyProblem> {
        const SHORT: KeyProblem =
            KeyProblem("a secret is too short: use 32 characters or more, for example from `openssl rand -hex 32`");
        if secret.len() < SHORTEST_SECRET {
            return Err(SHORT);
        }
        let key = DecodingKey::from_secret(secret).map_err(|_| SHORT)?;
        Ok(Self { kid: None, algorithms: HMAC, key })
    }

    /// The public keys in a PEM text. RSA keys are for RS256, P-256 keys for ES256, and Ed25519 keys for EdDSA.
    ///
    /// # Errors
    ///
    /// If the text contains no key, a key of another kind, or more than [`MAX_TOKEN_KEYS`] keys.
    pub fn all_of_pem(text: &str) -> Result<Vec<Self>, KeyProblem> {
        const END: &str = "-----END";
        if text.contains("PRIVATE KEY-----") {
            return Err(KeyProblem("it is a private key: use the public key (`openssl pkey -pubout`)"));
        }
        let mut keys = Vec::new();
        let mut rest = text;
        while let Some(begin) = rest.find("-----BEGIN") {
            let end = rest[begin..].find(END).map(|end| begin + end + END.len());
            let end = end.and_then(|end| Some(end + rest[end..].find("-----")? + 5));
            let Some(end) = end else {
                return Err(KeyProblem("it is not complete: use a PEM text with the last line of each key"));
            };
            keys.push(Self::of_pem(&rest[begin..end])?);
            rest = &rest[end..];
        }
        match keys.len() {
            0 => Err(KeyProblem("it has no public key: use PEM, with the line `-----BEGIN PUBLIC KEY-----`")),
            n if n > MAX_TOKEN_KEYS => Err(KeyProblem("it has too many keys: use 16 at most")),
            _ => Ok(keys),
        }
    }

    fn of_pem(text: &str) -> Result<Self, KeyProblem> {
        let bytes = text.as_bytes();
        let parsed = DecodingKey::from_ed_pem(bytes)
            .map(|key| (ED25519, key))
            .or_else(|_| DecodingKey::from_ec_pem(bytes).map(|key| (P256, key)))
            .or_else(|_| DecodingKey::from_rsa_pem(bytes).map(|key| (RSA, key)));
        let (algorithms, key) = parsed.map_err(|_| UNUSABLE)?;
        let length = key.try_get_as_bytes().map_or(0, <[u8]>::len);
        Self { kid: None, algorithms, key }.of_length(length)
    }

    /// The public keys for signatures in a set (RFC 7517, 5). Symmetric keys are skipped, because a set is public. Keys
    /// of unsupported algorithms are skipped, too.
    ///
    /// # Errors
    ///
    /// If the bytes are not a set, or if the set is too large or has no usable key.
    pub fn all_of_jwks(bytes: &[u8]) -> Result<Vec<Self>, KeyProblem> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        if bytes.len() > MAX_JWKS_BYTES {
            return Err(KeyProblem("the set is longer than 256 KiB: use a set with fewer keys"));
        }
        let set: Set = serde_json::from_slice(bytes)
            .map_err(|_| KeyProblem("it is not a set of keys: use JSON with a list `keys` (RFC 7517)"))?;
        let usable = set.keys.into_iter().filter_map(|key| Self::of_jwk(&serde_json::from_value(key).ok()?));
        let keys: Vec<_> = usable.collect();
        match keys.len() {
            0 => Err(KeyProblem("the set has no key of RS256, ES256 or EdDSA: add a key of one of these algorithms")),
            n if n > MAX_TOKEN_KEYS => Err(KeyProblem("the set has too many keys: use 16 at most")),
            _ => Ok(keys),
        }
    }

    fn of_jwk(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        if common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature)
            || common.key_operations.as_ref().is_some_and(|operations| !operations.contains(&KeyOperations::Verify))
        {
            return None;
        }
        let algorithms = if let AlgorithmParameters::RSA(_) = &jwk.algorithm {
            RSA
        } else if let AlgorithmParameters::EllipticCurve(key) = &jwk.algorithm
            && key.curve == EllipticCurve::P256
        {
            P256
        } else if let AlgorithmParameters::OctetKeyPair(key) = &jwk.algorithm
            && key.curve == EllipticCurve::Ed25519
        {
            ED25519
        } else {
            return None;
        };
        let said = common.key_algorithm.map(|algorithm| algorithm.to_string());
        if said.is_some_and(|said| !algorithms.iter().any(|algorithm| format!("{algorithm:?}") == said)) {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let length = match key.kind() {
            jsonwebtoken::DecodingKeyKind::SecretOrDer(bytes) => bytes.len(),
            jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } => n.len(),
        };
        let kid = common.key_id.as_deref().map(Into::into);
        Self { kid, algorithms, key }.of_length(length).ok()
    }

    /// Refuses a key whose length is not valid for its algorithm.
    fn of_length(self, length: usize) -> Result<Self, KeyProblem> {
        let fits = if self.algorithms == RSA {
            length >= SHORTEST_RSA
        } else {
            length == if self.algorithms == P256 { P256_POINT } else { ED25519_KEY }
        };
        if fits { Ok(self) } else { Err(UNUSABLE) }
    }

    /// Whether this key may check a token with this key id and algorithm.
    pub(super) fn is_for(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        self.has(algorithm) && (self.kid.is_none() || kid.is_none() || self.is_named(kid))
    }

    /// Whether this key has this name.
    pub(super) fn is_named(&self, kid: Option<&str>) -> bool {
        self.kid.is_some() && self.kid.as_deref() == kid
    }

    pub(super) fn has(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Checks a signature, which is in base64url.
    pub(super) fn verify(&self, signature: &str, message: &[u8], algorithm: Algorithm) -> bool {
        self.has(algorithm) && crypto::verify(signature, message, &self.key, algorithm).unwrap_or(false)
    }
}

const UNUSABLE: KeyProblem = KeyProblem(
    "it is not a key of RS256 (2048 bits or more), ES256 (P-256) or EdDSA (Ed25519): use a key of one of these \
     algorithms",
);
