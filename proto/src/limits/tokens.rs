//! Bounds of tokens, grants and proofs of ids.

use std::time::Duration;

use super::{MAX_NETWORK_NAME_BYTES, MAX_REQUEST_HEAD_BYTES};

/// Maximum length of a JWT, in bytes. A longer one is refused before it is parsed. It is half of a request's head, in
/// which it must fit with everything else.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Maximum number of rules in a grant: entries of the claim `networks`. A token with more is refused.
///
/// 32 B and a name each. [`MAX_TOKEN_BYTES`] bounds the names together, so a grant has at most 10 KiB.
pub const MAX_GRANT_RULES: usize = 64;

/// Maximum length of the claim `class`, in bytes. A token with a longer one is refused.
pub const MAX_GRANT_CLASS_BYTES: usize = 64;

/// Time before the end of a grant at which its session receives `token-expires`. A client needs a round trip to its
/// identity provider and one to the hub. If a grant ends within twice this time, the warning comes when half of the
/// time has passed. So a client with short tokens, or one that sends the same token again and again, is not warned in a
/// loop.
pub const TOKEN_WARNING: Duration = Duration::from_secs(60);

/// Time for which the clock of an identity provider may be ahead: a token whose `nbf` is that far in the future is
/// accepted. `exp` has no such tolerance.
pub const TOKEN_CLOCK_SKEW: Duration = Duration::from_secs(30);

/// Maximum number of renewed tokens that wait in a shard for new keys. One more is refused and can be sent again.
///
/// 64 of [`MAX_TOKEN_BYTES`]: 512 KiB.
pub const MAX_TOKENS_WAITING: usize = 64;

/// Number of messages that an `auth` counts as in the budget of its session. While the budget is exhausted, no token is
/// checked.
///
/// A check of EdDSA or ES256 takes 0.1 ms, as long as some 50 small messages. By default a session can send 4 tokens a
/// second, and 100 in a burst.
pub const TOKEN_MESSAGES: u64 = 50;

/// Maximum number of keys of each kind (JWT_SECRET, JWT_PUBLIC_KEY, JWT_JWKS). More are an error. A token without `kid`
/// is checked with each key of its algorithm, and 16 checks of RS256 take 0.5 ms.
pub const MAX_TOKEN_KEYS: usize = 16;

/// Maximum length of a set of keys (JWT_JWKS), in bytes. A longer one is refused. Identity providers publish 2 to 10 KiB.
pub const MAX_JWKS_BYTES: usize = 256 * 1024;

/// Time between two requests for the keys at a URL.
pub const JWKS_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Minimum time between two requests for the keys, if tokens with an unknown `kid` cause them: someone who invents such
/// tokens makes the hub send at most 6 requests a minute.
pub const JWKS_FLOOR: Duration = Duration::from_secs(10);

/// Time limit of a request for keys. A token with an unknown `kid` waits if keys can be requested within this time, and
/// for at most twice this time.
pub const JWKS_TIMEOUT: Duration = Duration::from_secs(5);

/// Time within which a client must prove its id. Later, the connection is closed.
pub const ID_PROOF_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum length of the message that proves an id, in bytes. A longer one is refused. A signature has 128 hexadecimal
/// digits, and a host 253 characters.
pub const MAX_ID_PROOF_BYTES: usize = 1024;

/// Maximum number of hosts in PEER_ID_HOSTS. More are an error. Each proof is checked with one of them.
pub const MAX_ID_HOSTS: usize = 16;

// Checks of the figures and orderings in the comments above.
const _: () = assert!(2 * MAX_TOKEN_BYTES <= MAX_REQUEST_HEAD_BYTES);
const _: () = assert!(MAX_GRANT_RULES * 32 + MAX_TOKEN_BYTES <= 10 * 1024);
const _: () = assert!(MAX_NETWORK_NAME_BYTES < MAX_TOKEN_BYTES);
const _: () = assert!(JWKS_FLOOR.as_secs() < JWKS_INTERVAL.as_secs() && JWKS_TIMEOUT.as_secs() < JWKS_FLOOR.as_secs());
