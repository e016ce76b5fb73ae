//! Statistics and state of the mesh, published once a tick.

use std::net::SocketAddr;
use std::time::Duration;

use proto::{BugCounts, HubId, HubView, LinkAuth, LinkId, RelayStats, TurnLengths};
use thread::PostStats;

use crate::bridge::BridgeView;

/// The state of the mesh in this hub's view.
#[derive(Clone, Debug, Default)]
pub struct MeshReading {
    /// Statistics of the relay.
    pub relay: RelayStats,
    /// The id under which other hubs know this hub. `None` before the mesh runs.
    pub hub: Option<HubId>,
    /// All other known hubs in ascending order of ids, followed by the Go hubs behind legacy links.
    pub hubs: Vec<HubView>,
    /// All links, in the order in which they began.
    pub links: Vec<LinkView>,
    /// All addresses to dial.
    pub dials: Vec<DialView>,
    /// Statistics of the links.
    pub io: LinkStats,
    /// State of the bridge, if there is one.
    pub bridge: Option<BridgeView>,
    /// Time for which the thread was busy, in microseconds.
    pub busy_micros: u64,
    /// Turns of the mesh's thread, by their length.
    pub turns: TurnLengths,
}

/// One link.
#[derive(Clone, Debug)]
pub struct LinkView {
    /// The link's handle.
    pub link: LinkId,
    /// The other hub; `None` before the hello on a dialed link.
    pub hub: Option<HubId>,
    /// The address of the other end.
    pub address: SocketAddr,
    /// The dialed URL without secrets; `None` for an accepted link.
    pub url: Option<String>,
    /// Whether this hub dialed.
    pub dialed: bool,
    /// Whether the link is in use: both ends have agreed to use it, and it does not end yet.
    pub ready: bool,
    /// Round-trip time of the last ping.
    pub rtt: Option<Duration>,
    /// Bytes read from the link, and bytes written to it.
    pub bytes: [u64; 2],
    /// Bytes queued for the link.
    pub queued_bytes: usize,
    /// Whether the link is saturated: its queue rose above the high-water mark, and is not short again yet.
    pub saturated: bool,
    /// Whether the link is a legacy link.
    pub legacy: bool,
    /// How the other end has shown that it is a hub of the mesh.
    pub auth: LinkAuth,
    /// Time of the link's upgrade, by the hub's monotonic clock.
    pub since: Duration,
}

/// The source of an address to dial.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DialSource {
    /// A hub's heartbeat (MESH_ADVERTISE).
    Advertised,
    /// BOOTSTRAP_HUBS.
    Bootstrap,
    /// MESH_DNS.
    Dns,
}

impl DialSource {
    /// The name on pages and in logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Advertised => "advertised",
            Self::Bootstrap => "bootstrap",
            Self::Dns => "dns",
        }
    }
}

/// One dialed address.
#[derive(Clone, Debug)]
pub struct DialView {
    /// The address, without secrets.
    pub uri: String,
    /// The source of the address.
    pub source: DialSource,
    /// Number of dials since the last link to this address.
    pub attempt_number: u32,
    /// Whether the hub at this address is linked, by this dial or otherwise.
    pub connected: bool,
    /// Whether the last dial reached this hub itself. After some attempts, an address of this hub is dialed about once
    /// a minute, because another hub may answer there behind a load balancer.
    pub own: bool,
    /// The wall clock at the last dial, in milliseconds; 0 before the first dial.
    pub last_attempt: u64,
    /// The error of the last dial or of its link.
    pub last_error: Option<String>,
}

/// Statistics of links since the start. All fields except the gauges only grow.
#[derive(Clone, Debug, Default)]
pub struct LinkStats {
    /// Bytes read from links.
    pub bytes_in: u64,
    /// Bytes written to links.
    pub bytes_out: u64,
    /// Data frames read from links.
    pub frames_in: u64,
    /// Data frames queued for links.
    pub frames_out: u64,
    /// Writes to links. The number of sent envelopes divided by the number of writes shows how well envelopes are
    /// batched.
    pub writes: u64,
    /// Links that became ready.
    pub opened: u64,
    /// Number of closed link sockets for each [`LinkEnd`], indexed by its discriminant.
    pub ended: [u64; LinkEnd::ALL.len()],
    /// Sockets of other hubs that were closed because there were too many links, or because this hub was stopping.
    pub refused: u64,
    /// Number of times that a link or the bridge became saturated.
    pub saturations: u64,
    /// Dials.
    pub dial_attempts: u64,
    /// Failed dials.
    pub dial_failures: u64,
    /// Malformed frames from the bridge.
    pub bridge_malformed: u64,
    /// Letters to shards.
    pub post: PostStats,
    /// Maximum number of bytes ever queued for one link.
    pub queue_peak_bytes: u64,
    /// Impossible states found outside the relay.
    pub bugs: BugCounts,
    /// Gauge: bytes queued for all links.
    pub queued_bytes: u64,
}

/// Why the socket of a link closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkEnd {
    /// The other hub closed the link with another code than that of a refusal.
    Closed,
    /// Nothing arrived from the other hub for too long.
    Dead,
    /// Another link to the same hub is kept.
    Double,
    /// This hub stops.
    Ending,
    /// The socket ended without a close frame.
    Lost,
    /// Malformed data arrived.
    Malformed,
    /// Incomplete and unprocessed messages of all links took too much memory, and this link had the most of it.
    Memory,
    /// The queue exceeded its maximum, or all queues together exceeded theirs and this queue was the longest.
    Overflow,
    /// The other hub refused the link.
    Refused,
    /// This hub has taken another id.
    Renamed,
    /// The other side sent no hello in time, or the dialer did not confirm in time.
    Silent,
    /// The other side is this hub itself.
    SelfLink,
    /// Another hub has this hub's id.
    SameId,
    /// The socket accepted no queued bytes for too long.
    Stalled,
    /// DISCOVERY of the two hubs differs.
    WrongDiscovery,
    /// HUB_MESH_NAMESPACE of the two hubs differs.
    WrongNamespace,
    /// The hello and the request name different hubs.
    WrongHub,
    /// The other hub speaks another version of the links' protocol.
    WrongVersion,
}

impl LinkEnd {
    /// Every end, in the order of its discriminant.
    pub const ALL: [Self; 18] = [
        Self::Closed,
        Self::Dead,
        Self::Double,
        Self::Ending,
        Self::Lost,
        Self::Malformed,
        Self::Memory,
        Self::Overflow,
        Self::Refused,
        Self::Renamed,
        Self::Silent,
        Self::SelfLink,
        Self::SameId,
        Self::Stalled,
        Self::WrongDiscovery,
        Self::WrongNamespace,
        Self::WrongHub,
        Self::WrongVersion,
    ];

    /// The name in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Dead => "dead",
            Self::Double => "double",
            Self::Ending => "ending",
            Self::Lost => "lost",
            Self::Malformed => "malformed",
            Self::Memory => "memory",
            Self::Overflow => "overflow",
            Self::Refused => "refused",
            Self::Renamed => "renamed",
            Self::Silent => "silent",
            Self::SelfLink => "self-link",
            Self::SameId => "same-id",
            Self::Stalled => "stalled",
            Self::WrongDiscovery => "wrong-discovery",
            Self::WrongNamespace => "wrong-namespace",
            Self::WrongHub => "wrong-hub",
            Self::WrongVersion => "wrong-version",
        }
    }

    /// Code of the close frame. `None` if the link ends without a close frame.
    pub(crate) const fn close_code(self) -> Option<u16> {
        match self {
            Self::Closed | Self::Double | Self::SelfLink => Some(1000),
            Self::Ending | Self::Renamed => Some(1001),
            Self::Malformed => Some(1002),
            Self::Memory => Some(1013),
            Self::SameId
            | Self::Silent
            | Self::WrongDiscovery
            | Self::WrongHub
            | Self::WrongNamespace
            | Self::WrongVersion => Some(REFUSED_CODE),
            Self::Dead | Self::Lost | Self::Overflow | Self::Refused | Self::Stalled => None,
        }
    }

    /// Reason in the close frame.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Closed | Self::Dead | Self::Lost | Self::Overflow | Self::Refused | Self::Stalled => "",
            Self::Double => "duplicate link: the other link stays open",
            Self::Ending => "hub is stopping",
            Self::Renamed => "hub has changed its id",
            Self::Malformed => "malformed message",
            Self::Memory => "incomplete messages take too much memory: send shorter messages",
            Self::Silent => "no hello in time",
            Self::SelfLink => "link to itself",
            Self::SameId => "two hubs have the same HUB_ID: unset it on one",
            Self::WrongHub => "the query's peerId and the hello name different hubs",
            Self::WrongDiscovery => "DISCOVERY differs: set the same value on every hub",
            Self::WrongNamespace => "HUB_MESH_NAMESPACE differs: set the same value on every hub",
            Self::WrongVersion => "unknown version of links: this hub speaks version 1",
        }
    }

    /// Whether somebody must change a setting before the two hubs can link.
    pub(crate) const fn wants_attention(self) -> bool {
        matches!(
            self,
            Self::Refused
                | Self::SameId
                | Self::WrongDiscovery
                | Self::WrongHub
                | Self::WrongNamespace
                | Self::WrongVersion
        )
    }
}

/// Code of a close frame that refuses a link. The reason in the frame is a sentence for people.
pub(crate) const REFUSED_CODE: u16 = 4010;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_a_link_says_what_is_wrong_and_a_reason_fits_into_a_close_frame() {
        for end in LinkEnd::ALL {
            let reason = end.reason();
            assert_eq!(reason.is_empty(), end.close_code().is_none() || end == LinkEnd::Closed, "{end:?}");
            assert!(reason.len() <= 123 && !reason.ends_with('.'), "{end:?}: {reason}");
            if end.wants_attention() && end.close_code().is_some() {
                assert!(reason.len() >= 20, "{end:?}: {reason}");
            }
        }
    }
}
