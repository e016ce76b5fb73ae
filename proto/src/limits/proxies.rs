//! Proxies in front of a hub.

use std::time::Duration;

/// Maximum length of a head of the PROXY protocol, version 2, in bytes. The connection of a longer one is closed. Its
/// addresses are 36 bytes; the rest are extensions of the proxy, such as the name in a client's certificate.
pub const MAX_PROXY_HEAD_BYTES: usize = 4 * 1024;

/// Time in which a trusted proxy must have sent the head of the PROXY protocol. Later, the connection is closed. The
/// protocol asks receivers for at least 3 s, which is one retransmission.
pub const PROXY_HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of proxies behind one another in `X-Forwarded-For` and `Forwarded`. Only the last 32 addresses are
/// read, because each is compared with all ranges of TRUSTED_PROXIES.
pub const MAX_FORWARDED_HOPS: usize = 32;

/// Maximum number of ranges in TRUSTED_PROXIES. More are refused at start. 32 hops x 64 ranges = 2,048 comparisons for
/// a request.
pub const MAX_PROXY_RANGES: usize = 64;

/// Maximum number of proxies that TRUSTED_PROXIES does not name and that have no limits per address. Further ones have
/// the limits of an address. 8 B each: 512 B for a hub.
pub const MAX_UNNAMED_PROXIES: usize = 64;
