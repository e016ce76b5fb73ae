//! Bounds of bounded discovery: how many peers a peer knows, and how hubs introduce them.

use std::time::Duration;

/// Maximum K of `closest`, and maximum number of members that one `discover` introduces.
pub const MAX_CLOSEST: u8 = 64;

/// Number of random members that a new member meets in addition to the closest ones, under bounded discovery. They
/// connect the neighbourhoods of a network. A random graph with two edges per node is connected except for a few nodes.
/// With four, it stays so while half of the nodes are missing.
pub const RANDOM_PICKS: usize = 4;

/// Maximum number of others that a peer knows in a network under bounded discovery. At this limit, picks are declined,
/// and signals of strangers and `discover` get `network-full`.
///
/// Peers choose their ids, so many peers can aim at one peer. With random ids and P = K + [`RANDOM_PICKS`] picks, a
/// peer among 100,000 knows about 2P others: 40 for K = 16, 140 for K = 64. The first peer of a network knows P x
/// ln(100,000 / P) others: 170 and 500. An acquaintance takes 21 B at the peer's home and 8 B in the roster:
/// 1,024 x 29 B = 30 KB.
pub const MAX_ACQUAINTANCES: usize = 1024;

/// Maximum number of members remembered as having declined a peer. A further one is not remembered, and no other member
/// is picked in its place. So a join among members that are all crowded costs at most 2 x 64 more events.
pub const MAX_DECLINED: usize = 64;

/// Number of members that are tried one after another if random picks find too few unknown ones. In a smaller network a
/// new member therefore meets as many members as it wants.
pub const PICKS_IN_TURN: usize = 256;

/// Maximum number of pairs in one meeting between hubs: 28 B each.
pub const MAX_MEETING: usize = 256;

/// Time in which another hub must confirm a meeting, before it is sent again.
pub const MEETING_PATIENCE: Duration = Duration::from_millis(500);

/// Interval at which each peer's complete acquaintances at other hubs are sent to those hubs. It restores acquaintances
/// that one side forgot in a partition. 10,000 peers with three other hubs cause 500 envelopes per second of 400 B.
pub const MEETING_AGAIN: Duration = Duration::from_secs(60);

/// Interval between two parts of that sweep.
pub const MEETING_SWEEP: Duration = Duration::from_secs(1);
