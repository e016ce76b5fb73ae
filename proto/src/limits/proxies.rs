//! Bounds of proxies in front of a hub.

use std::time::Duration;

/// Maximum length of a head of the PROXY protocol, version 2, in bytes. A connection with a longer head is closed. The
/// addresses in a head take 36 bytes. The other bytes of a head are extensions, such as the name in a client's
/// certificate.
pub const MAX_PROXY_HEAD_BYTES: usize = 4 * 1024;

/// Time in which a trusted proxy must send the head of the PROXY protocol. After that, the connection is closed. The
/// protocol requires at least 3 s, which allows one retransmission.
pub const PROXY_HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of successive proxies in `X-Forwarded-For` and `Forwarded`. Only the last 32 addresses of a header
/// are read, because each address is compared with all ranges of TRUSTED_PROXIES.
pub const MAX_FORWARDED_HOPS: usize = 32;

/// Maximum number of ranges in TRUSTED_PROXIES. A longer list is refused at the start. A request needs at most 32
/// addresses x 64 ranges = 2,048 comparisons.
pub const MAX_PROXY_RANGES: usize = 64;

/// Maximum number of proxies that are exempt from the limits per address although TRUSTED_PROXIES does not name them.
/// Further proxies get the limits of any other address. A proxy takes 8 B, so all these proxies take 512 B.
pub const MAX_UNNAMED_PROXIES: usize = 64;
