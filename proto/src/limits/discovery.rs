//! Bounds of bounded discovery: how many peers a peer knows, and how hubs introduce them.

use std::time::Duration;

/// Maximum K of `closest`, and maximum number of members that one `discover` introduces.
pub const MAX_CLOSEST: u8 = 64;

/// Number of random members that a new member meets in addition to the closest ones, under bounded discovery. They
/// connect the neighbourhoods of a network. A random graph with two edges per node is connected except for a few nodes.
/// With four edges per node, the graph stays connected while half of the nodes are missing.
pub const RANDOM_PICKS: usize = 4;

/// Maximum number of other peers that a peer knows in a network under bounded discovery. At this limit, the peer's hub
/// declines meetings with further members. Signals between the peer and a member that it does not know get
/// `network-full`, and so does a `discover` of the peer.
///
/// Clients choose their ids, so many of them can choose ids close to one peer. With random ids and P = K +
/// [`RANDOM_PICKS`] picks, a peer among 100,000 knows about 2P others: 40 for K = 16, 140 for K = 64. The first peer of
/// a network knows P x ln(100,000 / P) others: 170 and 500. An acquaintance takes 21 B at the peer's home and 8 B in
/// the roster: 1,024 x 29 B = 30 KB.
pub const MAX_ACQUAINTANCES: usize = 1024;

/// Maximum number of members that a hub remembers as having declined a peer. A further member that declines is not
/// remembered, and no other member is picked in its place. So a join of a network whose members all decline costs at
/// most 2 x 64 more events.
pub const MAX_DECLINED: usize = 64;

/// Maximum number of members that are examined one after another, after random picks have found too few members that
/// the peer does not know yet. In a network with fewer members, all members are examined. So the peer meets the
/// requested number of members if there are as many.
pub const PICKS_IN_TURN: usize = 256;

/// Maximum number of pairs in one meeting between hubs. A pair takes 28 B.
pub const MAX_MEETING: usize = 256;

/// Time in which another hub must confirm a meeting. After that, the meeting is sent again.
pub const MEETING_PATIENCE: Duration = Duration::from_millis(500);

/// Interval at which a hub sends the complete list of each peer's acquaintances at other hubs to those hubs. This
/// restores acquaintances that one of the two hubs forgot in a partition. 10,000 peers with three other hubs cause 500
/// envelopes per second of 400 B.
pub const MEETING_AGAIN: Duration = Duration::from_secs(60);

/// Interval between two parts of the sweep that sends these lists ([`MEETING_AGAIN`]). Each part covers only some of
/// the peers.
pub const MEETING_SWEEP: Duration = Duration::from_secs(1);
