//! Bounds of legacy links, the links to Go hubs.

use std::time::Duration;

#[allow(unused_imports, reason = "links in doc comments")]
use super::*;

/// Maximum number of peers that one legacy link may announce, each in [`DEFAULT_MAX_NETWORKS_PER_PEER`] networks.
/// Announcements of more peers are refused and counted. When the link ends, its peers leave in slices. On a hub with 16
/// shards, 100,000 peers need 1,700,000 letters, which are 830 slices of [`SLICE_LETTERS`]. Until a slice processes a
/// peer, the peer stays in the link's own set, so the end of a link copies nothing.
pub const MAX_PEERS_PER_LEGACY_LINK: usize = 100_000;

/// Time within which a Go hub may echo a message. A Go hub's first message about a departed peer after this time counts
/// as a new announcement.
pub const LEGACY_ECHO: Duration = Duration::from_secs(5);

/// Maximum number of events of each kind within [`LEGACY_ECHO`] that are remembered to recognize the echoes of a Go
/// hub. An event takes 24 B. Each legacy link remembers three kinds: events sent to it, signals received from it, and
/// senders of signals sent to it. The relay remembers one kind for all links: departed peers. At the bound, the oldest
/// entry is dropped. If a departed peer's entry is dropped, a late echo announces the peer again until the link ends.
pub const MAX_LEGACY_ECHOES: usize = 8192;

/// Time for which a Go hub's announcement of a peer is kept while another claim to that peer wins. This time is longer
/// than the claim of a dead peer or hub can last: a lease takes 8 s, and a lost connection is noticed after 60 s at
/// most.
pub const LEGACY_WAIT: Duration = Duration::from_secs(120);

/// Maximum number of a Go hub's announcements kept for [`LEGACY_WAIT`], at most [`DEFAULT_MAX_NETWORKS_PER_PEER`] per
/// peer. Further announcements are refused and counted. An announcement takes about 200 B in addition to names and
/// data: 20 MB.
pub const MAX_LEGACY_WAITING: usize = MAX_PEERS_PER_LEGACY_LINK;

/// Maximum size of the names and data of the announcements in [`MAX_LEGACY_WAITING`], in bytes: about 160 B for each. A
/// Go hub that dials announces 70 B per peer. Further announcements are refused and counted.
pub const MAX_LEGACY_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// Time in which a Go hub that dialed should answer the first ping. After this time, peers are announced to the Go hub
/// even if it has not answered. If it then sends nothing at all, its link ends after [`LINK_PATIENCE`].
pub const LEGACY_PATIENCE: Duration = Duration::from_secs(2);

/// Maximum number of announcements queued for one legacy link. A queued announcement takes about 60 B. Further
/// announcements reach the Go hub only after it is linked again.
///
/// Peers that were connected before the link do not count. When the link has room, the relay reads these peers from the
/// presence of all hubs, [`SNAPSHOT_PEERS`] or [`SLICE_PEERS`] at a time.
pub const MAX_LEGACY_OWED: usize = 1_000_000;
