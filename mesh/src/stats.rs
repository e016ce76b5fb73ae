//! What the mesh has counted and what it looks like, as it publishes it once a tick.

use std::net::SocketAddr;
use std::time::Duration;

use proto::{BugCounts, HubId, HubView, LinkId, RelayStats};

use crate::bridge::BridgeView;

/// The mesh as this hub sees it.
#[derive(Clone, Debug, Default)]
pub struct MeshReading {
    /// The rules' own numbers.
    pub relay: RelayStats,
    /// The id by which others know this hub, once the mesh runs.
    pub hub: Option<HubId>,
    /// Every other hub that is remembered, ascending by id.
    pub hubs: Vec<HubView>,
    /// Every link, in the order in which they came.
    pub links: Vec<LinkView>,
    /// Every address that is dialed.
    pub dials: Vec<DialView>,
    /// The links' numbers.
    pub io: LinkStats,
    /// The bridge, where there is one.
    pub bridge: Option<BridgeView>,
    /// Time the loop was busy, in microseconds.
    pub busy_micros: u64,
}

/// One link.
#[derive(Clone, Debug)]
pub struct LinkView {
    /// Its number.
    pub link: LinkId,
    /// To whom; `None` before the other side of a dialed link has said.
    pub hub: Option<HubId>,
    /// The other end of the socket.
    pub address: SocketAddr,
    /// What was dialed, without secrets; `None` for a link that was accepted.
    pub url: Option<String>,
    /// Whether this hub dialed.
    pub dialed: bool,
    /// Whether both ends have agreed to use it.
    pub ready: bool,
    /// The last ping's way there and back.
    pub rtt: Option<Duration>,
    /// Bytes that wait to be written.
    pub queued_bytes: usize,
    /// Whether more waits than is good.
    pub saturated: bool,
    /// Whether it speaks the seed's protocol.
    pub legacy: bool,
    /// When its socket was upgraded, by the hub's monotonic clock.
    pub since: Duration,
}

/// How an address came to be dialed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DialSource {
    /// A hub advertised it.
    Advertised,
    /// It is in BOOTSTRAP_HUBS.
    Bootstrap,
    /// MESH_DNS has it.
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

/// One address that is dialed.
#[derive(Clone, Debug)]
pub struct DialView {
    /// The address, without secrets.
    pub uri: String,
    /// How it came here.
    pub source: DialSource,
    /// Dials since the last link that was made.
    pub attempt_number: u32,
    /// Whether the hub that was found there is linked, by this dial or otherwise.
    pub connected: bool,
    /// The last dial led to this hub itself. It is dialed once a minute: behind a balancer, another hub may answer.
    pub own: bool,
    /// The wall clock at the last dial, in milliseconds; 0 before the first.
    pub last_attempt: u64,
    /// Why the last dial or its link failed, if it did.
    pub last_error: Option<String>,
}

/// What the sockets between hubs have seen. All but the gauges only grow.
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
    /// Writes to links: with the envelopes sent, how well they are put together.
    pub writes: u64,
    /// Sockets that became a link: both ends have agreed.
    pub opened: u64,
    /// Sockets of links closed, by the end's discriminant.
    pub ended: [u64; LinkEnd::ALL.len()],
    /// Accepted sockets for which there was no place.
    pub refused: u64,
    /// Times that more waited for a link or for the bridge than is good.
    pub saturations: u64,
    /// Dials.
    pub dial_attempts: u64,
    /// Dials that did not come to an upgraded socket.
    pub dial_failures: u64,
    /// Frames from the bridge that were not what they should be.
    pub bridge_malformed: u64,
    /// Letters posted to shards.
    pub letters_out: u64,
    /// Batches of letters posted to shards.
    pub letter_batches_out: u64,
    /// Most letters that ever waited for one shard.
    pub outbox_peak: u64,
    /// Times that links were not read because letters could not be posted fast enough.
    pub stalls: u64,
    /// Most bytes that ever waited for one link.
    pub queue_peak_bytes: u64,
    /// Impossible states that were found, outside the rules.
    pub bugs: BugCounts,
    /// Gauge: bytes that wait for all links.
    pub queued_bytes: u64,
}

/// Why the socket of a link closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkEnd {
    /// The other hub closed it, and said that it had no complaint.
    Closed,
    /// Nothing was heard of the other hub for too long.
    Dead,
    /// Another link to the same hub stays.
    Double,
    /// This hub ends.
    Ending,
    /// The socket ended without a word.
    Lost,
    /// What came was not of the form.
    Malformed,
    /// More waited than may.
    Overflow,
    /// The other hub would not have it.
    Refused,
    /// This hub has taken another id.
    Renamed,
    /// The other side did not say who it is in time.
    Silent,
    /// The other end is this hub itself.
    SelfLink,
    /// Another hub has this hub's id.
    SameId,
    /// Nothing of what waited was taken for too long.
    Stalled,
    /// The other hub tells its peers of all others, or of so many, and this one does not.
    WrongDiscovery,
    /// The other hub is of another mesh.
    WrongNamespace,
    /// The other hub is not who it said it was.
    WrongHub,
    /// The other hub speaks another version.
    WrongVersion,
}

impl LinkEnd {
    /// Every end, in the order of its discriminant.
    pub const ALL: [Self; 17] = [
        Self::Closed,
        Self::Dead,
        Self::Double,
        Self::Ending,
        Self::Lost,
        Self::Malformed,
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

    /// The code of the close frame that tells the other hub. `None`: the socket does not take one any more.
    pub(crate) const fn close_code(self) -> Option<u16> {
        match self {
            Self::Closed | Self::Double | Self::SelfLink => Some(1000),
            Self::Ending | Self::Renamed => Some(1001),
            Self::Malformed => Some(1002),
            Self::SameId
            | Self::Silent
            | Self::WrongDiscovery
            | Self::WrongHub
            | Self::WrongNamespace
            | Self::WrongVersion => Some(REFUSED_CODE),
            Self::Dead | Self::Lost | Self::Overflow | Self::Refused | Self::Stalled => None,
        }
    }

    /// What the close frame says besides the code.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Closed | Self::Dead | Self::Lost | Self::Overflow | Self::Refused | Self::Stalled => "",
            Self::Double => "duplicate link: the other link stays open",
            Self::Ending => "hub is stopping",
            Self::Renamed => "hub has changed its id",
            Self::Malformed => "malformed message",
            Self::Silent => "no hello in time",
            Self::SelfLink => "link to itself",
            Self::SameId => "two hubs have the same HUB_ID: unset it on one",
            Self::WrongHub => "the query's peerId and the hello name different hubs",
            Self::WrongDiscovery => "DISCOVERY differs: set the same value on every hub",
            Self::WrongNamespace => "HUB_MESH_NAMESPACE differs: set the same value on every hub",
            Self::WrongVersion => "unknown version of links: this hub speaks version 1",
        }
    }

    /// Whether somebody has to change a setting before the two can link.
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

/// The code of a close frame that refuses a link. Its reason is a text for people.
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
