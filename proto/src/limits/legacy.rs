//! Bounds of legacy links, the links to Go hubs.

use std::time::Duration;

#[allow(unused_imports, reason = "links in doc comments")]
use super::*;

/// Maximum number of peers that one legacy link may announce, each in [`DEFAULT_MAX_NETWORKS_PER_PEER`] networks.
/// Announcements of more peers are refused and counted. When the link ends, its peers leave in slices. On a hub with 16
/// shards, the leaves of 100,000 peers cause 1,700,000 letters, which need 830 slices of [`SLICE_LETTERS`].
pub const MAX_PEERS_PER_LEGACY_LINK: usize = 100_000;

/// Time within which a Go hub may echo a message. A Go hub's first message about a departed peer after this time counts
/// as a new announcement.
pub const LEGACY_ECHO: Duration = Duration::from_secs(5);

/// Maximum number of events of each kind within [`LEGACY_ECHO`] that are remembered to recognize the echoes of a Go
/// hub. An event takes 24 B. Each legacy link remembers the announcements sent to its Go hub, the signals received from the Go
/// hub, and the senders of signals sent to the Go hub. In addition, the relay remembers the departed peers of all links
/// together. At the bound, the oldest event is dropped. If the event of a departed peer is dropped, a late echo
/// announces the peer again until the link ends.
pub const MAX_LEGACY_ECHOES: usize = 8192;

/// Time for which a Go hub's announcement of a peer is stored while another claim to that peer wins. The claim of a
/// dead hub ends after a lease of 8 s, and the claim of a dead peer ends after 60 s at the latest.
pub const LEGACY_WAIT: Duration = Duration::from_secs(120);

/// Maximum number of a Go hub's announcements kept for [`LEGACY_WAIT`], at most [`DEFAULT_MAX_NETWORKS_PER_PEER`] per
/// peer. Further announcements are refused and counted. An announcement takes about 200 B in addition to names and
/// data, so all announcements take 20 MB.
pub const MAX_LEGACY_WAITING: usize = MAX_PEERS_PER_LEGACY_LINK;

/// Maximum size of the names and data of the announcements in [`MAX_LEGACY_WAITING`], in bytes. 16 MiB are about 160 B
/// for each announcement. A Go hub that dials this hub announces 70 B per peer. Further announcements are refused and
/// counted.
pub const MAX_LEGACY_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// Time for which this hub waits for the first pong of a Go hub that has dialed it. If no pong arrives in this time,
/// peers are announced to the Go hub all the same. If the Go hub sends nothing at all, its link ends after
/// [`LINK_PATIENCE`].
pub const LEGACY_PATIENCE: Duration = Duration::from_secs(2);

/// Maximum number of announcements queued for one legacy link. A queued announcement takes about 60 B. Further
/// announcements are dropped, and reach the Go hub only after it is linked again.
///
/// Peers that were connected before the link began do not count. When the link has room, the relay announces these
/// peers from the presence of all hubs, [`SNAPSHOT_PEERS`] or [`SLICE_PEERS`] at a time.
pub const MAX_LEGACY_OWED: usize = 1_000_000;
