//! Bounds of bounded discovery: how many peers a peer knows, and how hubs introduce peers to each other.

use std::time::Duration;

/// Maximum K of `closest`, and maximum number of members that one `discover` introduces.
pub const MAX_CLOSEST: u8 = 64;

/// Number of random members that a new member meets in addition to the closest ones, under bounded discovery. The
/// random members connect groups of close peers with each other. A random graph with two edges per node is connected
/// except for a few nodes. With four edges per node, the graph stays connected while half of the nodes are missing.
pub const RANDOM_PICKS: usize = 4;

/// Maximum number of other peers that a peer knows in a network under bounded discovery. At this limit, the peer's hub
/// declines meetings with further members. Signals between the peer and a member that it does not know get
/// `network-full`. A `discover` of the peer gets `network-full`, too.
///
/// Clients choose their ids, so many clients can choose ids close to one peer. With random ids, a peer in a network of
/// 100,000 peers knows about 2 x (K + [`RANDOM_PICKS`]) others, which are 40 for K = 16 and 140 for K = 64. The first
/// peer of a network of 100,000 peers knows 170 others for K = 16, and 500 others for K = 64. With P = K + 4 picks for
/// each peer, the first peer knows P x ln(100,000 / P) others. An acquaintance takes 21 B in the peer's circle and 8 B
/// in the roster, so 1,024 acquaintances take 30 KB.
pub const MAX_ACQUAINTANCES: usize = 1024;

/// Maximum number of declines that a hub remembers for a peer in a network. After a remembered decline, the hub can
/// pick another member for the peer. Further declines are not remembered, and the hub then picks no other member. So a
/// peer that joins a network whose members all decline causes at most 2 x 64 additional events.
pub const MAX_DECLINED: usize = 64;

/// Maximum number of members that a pick examines one after another. A pick does so when random draws have not found
/// enough members that the peer does not know. In a network with fewer members, the pick examines all members, and so
/// finds the requested number of members if the peer does not know that many.
pub const PICKS_IN_TURN: usize = 256;

/// Maximum number of pairs in one meeting between hubs. A pair takes 28 B.
pub const MAX_MEETING: usize = 256;

/// Time in which another hub must confirm a meeting. After that, the meeting is sent again.
pub const MEETING_PATIENCE: Duration = Duration::from_millis(500);

/// Interval at which a hub sends the complete list of each peer's acquaintances at other hubs to those hubs. The lists
/// restore acquaintances that one of the two hubs lost in a partition of the mesh. In a mesh of four hubs, the 10,000
/// peers of a hub cause 500 envelopes of 400 B per second.
pub const MEETING_AGAIN: Duration = Duration::from_secs(60);

/// Minimum interval between two parts of the sweep that sends the lists of [`MEETING_AGAIN`]. Each part sends the lists
/// of some of the peers.
pub const MEETING_SWEEP: Duration = Duration::from_secs(1);
