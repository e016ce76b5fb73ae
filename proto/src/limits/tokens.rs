//! Bounds of tokens, grants and proofs of ids.

use std::time::Duration;

use super::{MAX_NETWORK_NAME_BYTES, MAX_REQUEST_HEAD_BYTES};

/// Maximum length of a JWT, in bytes. A longer token is refused before it is parsed. The maximum is half of
/// [`MAX_REQUEST_HEAD_BYTES`], because the token must fit into the head of a request together with all other headers.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Maximum number of rules in a grant. A rule is an entry of the claim `networks`. A token with more rules is refused.
///
/// A rule takes 32 B and its name. [`MAX_TOKEN_BYTES`] bounds the length of all names together, so a grant takes at
/// most 10 KiB.
pub const MAX_GRANT_RULES: usize = 64;

/// Maximum length of the claim `class`, in bytes. A token with a longer class is refused.
pub const MAX_GRANT_CLASS_BYTES: usize = 64;

/// Time before the end of a grant at which its session receives `token-expires`. To renew its token, a client needs a
/// round trip to its identity provider and a round trip to the hub. If a grant ends within two minutes, the warning is
/// sent when half of the grant's time has passed. So a client with short-lived tokens is not warned again immediately
/// after each renewal.
pub const TOKEN_WARNING: Duration = Duration::from_secs(60);

/// Time by which the clock of an identity provider may be ahead of the hub's clock. A token is accepted if its `nbf` is
/// in the future by at most this time. A token is not accepted after its `exp`.
pub const TOKEN_CLOCK_SKEW: Duration = Duration::from_secs(30);

/// Maximum number of new tokens of sessions that a shard checks at the same time. A token can wait until keys have been
/// fetched. The same number of further tokens is queued. When the queue is full, a new token is refused, and the client
/// can send it again.
///
/// 2 x 64 tokens of [`MAX_TOKEN_BYTES`] take 1 MiB.
pub const MAX_TOKENS_WAITING: usize = 64;

/// Number of messages that an `auth` message counts in the budget of its session. While the budget is exhausted, the
/// hub checks no token of the session.
///
/// A check of EdDSA or ES256 takes 0.1 ms, the time of about 50 small messages. By default, a session can send 4 tokens
/// per second, and 100 in a burst.
pub const TOKEN_MESSAGES: u64 = 50;

/// Maximum number of keys in each of JWT_SECRET, JWT_PUBLIC_KEY and JWT_JWKS. More keys are an error. A token without
/// `kid` is checked with every key of its algorithm. 16 checks of RS256 take 0.5 ms.
pub const MAX_TOKEN_KEYS: usize = 16;

/// Maximum length of a set of keys (JWT_JWKS), in bytes. A longer set is refused. Identity providers publish 2 to 10
/// KiB.
pub const MAX_JWKS_BYTES: usize = 256 * 1024;

/// Time between two requests for the keys at the URL in JWT_JWKS. A failed request is repeated after 3 x
/// [`JWKS_FLOOR`].
pub const JWKS_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Minimum time between two requests for keys that are caused by tokens with an unknown `kid`. So an attacker with
/// invented tokens makes the hub send at most 6 requests per minute.
pub const JWKS_FLOOR: Duration = Duration::from_secs(10);

/// Time limit of a request for keys. A token with an unknown `kid` waits if [`JWKS_FLOOR`] allows a request within this
/// time. The token waits for at most twice this time.
pub const JWKS_TIMEOUT: Duration = Duration::from_secs(5);

/// Time within which a client must prove its id, before the connection is closed.
pub const ID_PROOF_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum length of the message that proves an id, in bytes. A longer message is refused. A signature has 128
/// hexadecimal digits, and a host at most 253 characters.
pub const MAX_ID_PROOF_BYTES: usize = 1024;

/// Maximum number of hosts in PEER_ID_HOSTS. A longer list is an error. The host in a client's proof of its id must be
/// one of these hosts.
pub const MAX_ID_HOSTS: usize = 16;

// Checks of the figures above.
const _: () = assert!(2 * MAX_TOKEN_BYTES <= MAX_REQUEST_HEAD_BYTES);
const _: () = assert!(MAX_GRANT_RULES * 32 + MAX_TOKEN_BYTES <= 10 * 1024);
const _: () = assert!(MAX_NETWORK_NAME_BYTES < MAX_TOKEN_BYTES);
const _: () = assert!(JWKS_FLOOR.as_secs() < JWKS_INTERVAL.as_secs() && JWKS_TIMEOUT.as_secs() < JWKS_FLOOR.as_secs());
