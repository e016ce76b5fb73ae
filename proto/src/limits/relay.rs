//! Bounds of a relay, for other hubs, their presence, snapshots, and signals between hubs.

use std::time::Duration;

use super::*;

/// Interval between two heartbeats of a hub.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// Minimum time between two extra heartbeats. A hub sends an extra heartbeat, for example, when a link's queue becomes
/// full or has room again. The rate of extra heartbeats is limited because each heartbeat goes to every hub.
pub const EXTRA_BEAT_PAUSE: Duration = Duration::from_millis(100);

/// Time without a received byte on a link after which signals use another route. The time is longer than two intervals
/// of heartbeats, because a timer or a busy socket can delay a heartbeat.
///
/// A silent link stays open, and is used again when data arrives on it. If no more data arrives, the envelopes that
/// were sent over the link are lost. Presence is then repaired through other hubs, and the lost signals get `unknown`
/// after [`RECEIPT_TIMEOUT`].
pub const LINK_SILENCE: Duration = Duration::from_millis(2_200);

/// Time after which signals use another route if no signal over their present route has been answered.
pub const OUTCOME_PATIENCE: Duration = Duration::from_secs(2);

/// Time for which the signals of this hub's peers avoid an unanswered route if there is another route. Signals use the
/// unanswered route again earlier if a signal over it is answered.
pub const ROUTE_AVOIDED: Duration = Duration::from_secs(10);

/// Maximum number of unanswered signals to one hub that are examined per second. A route counts as failed if signals to
/// two different targets have no outcome. A single target without an outcome can be a peer that reads slowly.
pub const MAX_UNANSWERED_LOOKED_AT: usize = 1024;

/// Time without a heartbeat of a hub after which the hub counts as lost and its peers leave. The time is eight
/// heartbeats long, so that a hub with a lost link or a pause of a few seconds does not count as lost. A peer of a dead
/// hub stays visible for at most this time, one heartbeat interval, and the time that a heartbeat needs to arrive.
pub const LEASE: Duration = Duration::from_secs(8);

/// Time for which another incarnation of a hub's id must send heartbeats before the incarnation counts as another live
/// hub. An incarnation that has identified itself with a hello on a link counts immediately. The time is longer than
/// [`LINK_SILENCE`], in which third hubs can still forward the last heartbeat of an ended incarnation.
pub const RIVAL_EVIDENCE: Duration = Duration::from_millis(2_500);

/// Maximum age of the last heartbeat of another incarnation of a hub's id. An incarnation with an older last heartbeat
/// does not count as alive, unless it has identified itself with a hello on a link.
pub const RIVAL_MEMORY: Duration = Duration::from_secs(4);

/// Time for which a hub with a fixed HUB_ID observes whether a later incarnation of its id is alive, before it begins
/// an even later incarnation. A hub that has just started does not wait, because the later incarnation is its own
/// previous process.
pub const RIVAL_PATIENCE: Duration = Duration::from_secs(3);

/// Time for which the earlier of two live hubs with one id waits for the later one to take a new id. If the later hub
/// keeps the id for longer, the earlier hub takes a new id. Hubs before 2.1 never take a new id.
pub const RIVAL_YIELD: Duration = Duration::from_secs(10);

/// Minimum time between two answers to a neighbour about one incarnation of a hub. An answer is a heartbeat of the
/// incarnation that this hub knows. The answer is sent when the neighbour has sent a heartbeat of another incarnation.
/// The pause is shorter than [`HEARTBEAT`], so that two live hubs with one id receive each other's heartbeats. Without
/// the pause, two hubs that know different incarnations of one id would answer each other's answers forever.
pub const CONTEST_PAUSE: Duration = Duration::from_millis(500);

/// Maximum number of heartbeats of one hub id that a hub sends in one [`CONTEST_PAUSE`] as answers to heartbeats of
/// another incarnation. The answers to all neighbours are counted together. Further answers are not sent. A hub
/// remembers each answer until the pause ends. An answer takes 56 B. The answers take 3.5 KiB for each id that two live
/// hubs have, and 3.5 MiB for [`MAX_HUBS`] such ids.
///
/// Without this bound, a hub would send at most n answers in a mesh of n hubs in which two live hubs have one id. The
/// maximum is enough even for n > 64, because the first answers go to the two hubs or to their neighbours.
pub const MAX_CONTEST_HEARTBEATS: usize = 64;

/// Latest accepted start of a hub's incarnation or of a session, in milliseconds since 1970. This time is in the year
/// 2527.
///
/// Heartbeats of later incarnations, and sessions with later starts, are ignored and counted. Starts are not compared
/// with a clock, so the clocks of hubs may differ by any amount. A hub must be able to choose a later start than every
/// start that it has accepted, and other hubs must accept the chosen start. Therefore a hub does not exceed starts
/// above [`GREATEST_TIME_FOLLOWED`].
pub const GREATEST_TIME: u64 = 1 << 44;

/// Latest start of an incarnation or a session that a hub still exceeds with a later start. This time is in the year
/// 2248. If another incarnation of the hub's own id has a later start, the hub takes a new id. If a session at another
/// hub has a later start, that session keeps its peer's id until it ends.
pub const GREATEST_TIME_FOLLOWED: u64 = GREATEST_TIME / 2;

/// Maximum number of hubs that a hub remembers, including dead hubs. Heartbeats of further hubs are ignored and
/// counted. There is one exception. The new hub replaces a known hub if another neighbour has introduced at least two
/// hubs more than the neighbour that sent the heartbeat. The replaced hub is one that has stopped, or else one that the
/// neighbour with the most introductions has introduced.
///
/// A hub takes about 1 KiB without its peers. With two lists of [`MAX_NEIGHBOURS`] ids and two URLs, a hub takes at
/// most 43 KiB. In practice, heartbeats limit a mesh to fewer hubs, because the n hubs of a full mesh send n x (n -
/// 1)^2 heartbeats per second.
pub const MAX_HUBS: usize = 1024;

/// Maximum number of neighbours that a heartbeat lists. Further neighbours are left out. A shortened list causes
/// duplicate envelopes, but no envelope is lost.
pub const MAX_NEIGHBOURS: usize = 1024;

/// Time for which a stopped hub is remembered, so that its late envelopes are not accepted as new.
pub const HUB_MEMORY: Duration = Duration::from_secs(600);

/// Maximum number of incarnations of one hub that are remembered after their farewell, until the hub is forgotten. A
/// further ended incarnation replaces the oldest one. Four remembered incarnations are enough, unless a hub is
/// restarted more than four times in the few seconds in which a heartbeat can travel around the mesh.
pub const MAX_ENDED_INCARNATIONS: usize = 4;

/// Maximum length of a hub's URL, in bytes.
pub const MAX_HUB_URL_BYTES: usize = 512;

/// Maximum length of a hub's version in its heartbeats, in bytes. Heartbeats with a longer version are malformed.
pub const MAX_VERSION_BYTES: usize = 32;

/// Maximum number of links between the hubs of a signal's sender and its target. A signal that needs more links gets
/// `unreachable`.
pub const MAX_HOPS: u8 = 16;

/// Largest default of MESH_PRESENCE_BYTES, the maximum size of the stored presence of all other hubs together, in
/// bytes. A single hub can use half of this size. Peers and networks that exceed the maximum are counted and not
/// stored. Peers that are already stored stay.
///
/// A peer counts [`REMOTE_PEER_BYTES`]. A membership counts its `peer-discovered` message and [`MEMBER_BYTES`]. If each
/// peer is in one network and announces 50 B, 1,000,000 peers take 1,000,000 x (512 B + 300 B + 256 B) = 1.07 GB, which
/// is about 1 GiB. While a snapshot arrives, the hub stores both the replica and the snapshot, but counts only the
/// larger one.
pub const DEFAULT_MESH_PRESENCE_BYTES: usize = 1024 * 1024 * 1024;

/// Number of bytes that each connection allowed by MAX_CONNECTIONS adds to the default of MESH_PRESENCE_BYTES. With
/// 8,192 connections, the default reaches its maximum, [`DEFAULT_MESH_PRESENCE_BYTES`].
///
/// 128 KiB per connection are enough for 64 hubs with the same number of connections, if each peer takes 2 KiB. 128 KiB
/// per connection are also enough for seven hubs whose peers announce 16 KiB in one network each, and take 17 KiB each.
pub const PRESENCE_BYTES_PER_CONNECTION: usize = 128 * 1024;

/// Smallest default of MESH_PRESENCE_BYTES in a process without a memory limit. A hub with few connections can have
/// large neighbours, and this default has room for 64,000 peers of 2 KiB. Hubs with up to 1,024 connections have this
/// default. With this default, a hostile hub that reports 20,000 peers of 16 KiB makes a hub store at most 64 MiB. Many
/// invented hubs together make a hub store at most 128 MiB.
pub const LEAST_DEFAULT_PRESENCE_BYTES: usize = 128 * 1024 * 1024;

/// Minimum of MESH_PRESENCE_BYTES, and of the budgets for waiting changes and waiting signals. 1 MiB is enough for
/// 1,000 peers.
pub const LEAST_PRESENCE_BYTES: usize = 1024 * 1024;

/// Bytes that a peer of another hub counts in MESH_PRESENCE_BYTES, without its memberships. 512 B stand for the peer's
/// entries in the replica, in the directory, in the claims of its hub, and on its home shard.
pub const REMOTE_PEER_BYTES: usize = 512;

/// Maximum number of changes of one hub that are held while an earlier change is missing. Further changes are dropped
/// and counted, and a snapshot repairs the loss.
///
/// A change takes about 500 B, so 8,192 changes take 4 MB for each hub with a missing change.
pub const MAX_CHANGES_AHEAD: usize = 8 * 1024;

/// Maximum size of the changes of all hubs that are held while earlier changes are missing, in bytes. A single hub can
/// use half of this size, which is enough for 8,192 changes of 4 KB. Further changes are dropped and counted.
///
/// Without this bound, 1,024 hubs could make a hub store 1,024 x 8,192 changes of 17 KB, which are 146 GB.
pub const MAX_AHEAD_BYTES: usize = 64 * 1024 * 1024;

/// Time for which this hub waits for a missing change before it requests a snapshot.
pub const GAP_PATIENCE: Duration = Duration::from_millis(300);

/// Time for which this hub waits for the next part of a snapshot before it requests the snapshot again.
pub const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(3);

/// Maximum time for a whole snapshot. A slower snapshot is refused, and another neighbour is asked.
///
/// A snapshot of 1,000,000 peers has about 300 MB, so 1 MB/s is enough.
pub const SNAPSHOT_LIMIT: Duration = Duration::from_secs(300);

/// Time after the request in which a snapshot may arrive more slowly than [`SNAPSHOT_RATE_BYTES`]. A snapshot that is
/// still too slow after this time is refused.
pub const SNAPSHOT_SLACK: Duration = Duration::from_secs(12);

/// Minimum average rate of a snapshot since its request, in bytes per second. A link of 20 Mbit/s can transfer 64
/// snapshots at this rate at the same time.
///
/// A slow neighbour cannot keep a repair open without end, because it must send further peers at this rate, up to
/// [`MAX_PEERS_PER_HUB`].
pub const SNAPSHOT_RATE_BYTES: u64 = 32 * 1024;

/// A hub doubts its replica of another hub after this number of heartbeats whose change number is lower than the
/// replica's. The hub then drops changes with greater numbers than the heartbeats', and accepts a snapshot with a lower
/// number than the replica's.
///
/// More than one heartbeat is necessary, because heartbeats and changes can use different routes, and one route can be
/// seconds slower. A hub that receives a forged change or snapshot repairs its replica after 4 to 8 heartbeats.
pub const DOUBT_BEATS: u64 = 4;

/// Maximum number of doublings of the pause before a request for a snapshot. The pause doubles each time a snapshot
/// does not match the heartbeats of its hub. The pause grows from [`GAP_PATIENCE`] to 300 ms x 2^5 = 9.6 s. A neighbour
/// that sends wrong snapshots is asked six times in 20 s, and then every ten seconds. A request that is lost or
/// declined is repeated after [`GAP_PATIENCE`].
pub const MAX_VAIN_REPAIRS: u32 = 5;

/// Maximum number of peers in one part of a snapshot. In practice, a part has 64 x 300 B = 20 KB.
pub const SNAPSHOT_PEERS: usize = 64;

/// Bytes of announcements at which a part of a snapshot is full. The last peer of a part can make the part longer.
pub const SNAPSHOT_BYTES: usize = 64 * 1024;

/// Maximum number of neighbours that wait for a snapshot of a third hub because this hub has not received that snapshot
/// itself yet. A further request is declined. The neighbour then asks another hub, or asks again after
/// [`GAP_PATIENCE`].
///
/// A waiting request takes 16 B until this hub has received the snapshot.
pub const MAX_SNAPSHOT_WAITERS: usize = 64;

/// Maximum number of peers that may change while a snapshot is being sent. The hub stores the old state of these peers
/// until the snapshot is complete. If more peers change, the hub declines the rest of the snapshot, and the neighbour
/// asks again.
///
/// A peer takes about 400 B, so the old states take at most 6.5 MB per snapshot. A snapshot of 100,000 peers takes some
/// seconds, in which 1,000 peers per second can join and leave.
pub const MAX_SNAPSHOT_CHANGES: usize = 16 * 1024;

/// Maximum number of snapshots that are being sent over one link, or over the bridge. A further request is declined,
/// and the neighbour asks again.
pub const MAX_SNAPSHOTS_OUT: usize = 64;

/// Maximum number of peers of one hub. A change that adds one more peer is refused. A snapshot with more peers is
/// refused, too, so the peers of its hub stay unknown.
pub const MAX_PEERS_PER_HUB: usize = 1_000_000;

/// Maximum number of networks of one peer of another hub, and of the setting MAX_NETWORKS_PER_PEER. A snapshot that has
/// a peer with more networks is refused. A change that adds one more network is ignored.
pub const MAX_MEMBERSHIPS: usize = 1024;

/// Number of segments of the directory of all peers of the mesh. Each segment is a separate hash map, because a map
/// that grows moves all its entries in one turn. The growth of a single map with 100,000 peers takes 57,000 x 0.25 us =
/// 14 ms. With 256 maps, the growth of one map takes 0.06 ms, or 0.6 ms with [`MAX_PEERS_PER_HUB`] peers. An empty map
/// takes 64 B, so 256 empty maps take 16 KB.
pub const DIRECTORY_SEGMENTS: usize = 256;

/// Number of letters to shards after which a slice of the relay's long work ends. The slice still completes the peer
/// that exceeds this number. The next slice begins after all other ready tasks have had a turn, if no shard has more
/// than [`SLICE_ROOM`] letters queued.
///
/// On a hub with 16 shards, the end of a hub with 100,000 peers takes 1,700,000 letters. 1,700,000 letters are posted
/// in 830 slices of at most 2.2 ms. A letter takes 0.9 us, including its share of the work for the peer. The longest
/// slice has one peer in 1,024 networks, the maximum of MAX_NETWORKS_PER_PEER. The longest slice has 2,048 + 16,400
/// letters, and takes 5.3 ms when a snapshot is installed. With the default of 32 networks, the longest slice has 2,048
/// + 528 letters.
pub const SLICE_LETTERS: usize = 2048;

/// Maximum number of peers and lost signals that a slice of the relay's long work examines, even if they cause fewer
/// letters than [`SLICE_LETTERS`].
pub const SLICE_PEERS: usize = 1024;

/// Maximum number of held changes of one hub that are applied in one turn after the change for which they waited has
/// arrived. The remaining changes are applied in later turns.
pub const SLICE_CHANGES: usize = 64;

/// Maximum number of peers of discarded replicas whose memory is freed in one turn. 1,024 peers take 1,024 x 0.3 us =
/// 0.3 ms.
///
/// Discarded replicas hold at most as many peers as the replicas in use. So the memory for replicas at most doubles,
/// for about a second, until slices have freed the discarded replicas.
pub const SLICE_DISCARDED: usize = 1024;

/// Maximum length of each outbox of a shard or of the mesh, in letters, at which a slice of long work begins. While an
/// outbox is longer, the slice is delayed. Events of links and peers are delayed only at [`OUTBOX_HIGH_WATER`], so they
/// do not wait for long work.
///
/// A full mailbox and an outbox of this length have at most 16,384 + 2,048 letters of 136 B = 2.5 MB for a shard.
pub const SLICE_ROOM: usize = OUTBOX_HIGH_WATER / 4;

/// Maximum number of signals to one hub without an outcome. A further signal is answered `unreachable`.
///
/// A signal without an outcome takes about 150 B, so 256 Ki signals take 39 MB per hub. Each signal has an outcome
/// within [`RECEIPT_TIMEOUT`].
pub const MAX_SIGNALS_IN_FLIGHT: usize = 256 * 1024;

/// Maximum number of signals from one hub that wait for an earlier signal, or for the presence of their sender. Further
/// signals get `unreachable`, and are counted.
pub const MAX_SIGNALS_HELD: usize = 1024;

/// Maximum size of all waiting signals of other hubs ([`MAX_SIGNALS_HELD`]), in bytes. Further signals get
/// `unreachable`, and are counted. A single hub can use half of this size, which is enough for 1,024 signals of 32 KB.
/// A browser's offer for a video call has about 8 KB.
pub const MAX_HELD_BYTES: usize = 64 * 1024 * 1024;

/// Maximum time for which a signal waits for an earlier signal, or for the presence of its sender.
pub const HOLD: Duration = Duration::from_millis(500);

/// Maximum difference between the counter of a signal and the counter of the last delivered signal of its hub. The
/// bound is the maximum number of signals that a hub has in flight. A signal with a greater counter gets `unreachable`
/// and does not advance the receiver's counter. If only signals with greater counters arrive for [`COUNT_PATIENCE`],
/// the receiver adopts their counters.
pub const MAX_COUNTER_STEP: u64 = MAX_SIGNALS_IN_FLIGHT as u64;

/// Time after which a receiver adopts the counters of a hub's signals although they do not fit its own counter. The
/// receiver adopts them only if all counters in this time were too low or too high, because its own counter must then
/// be wrong. Until then, signals with these counters get `unreachable`.
///
/// A link that delivers nothing is closed after [`LINK_PATIENCE`], so no signal can be delayed for longer.
pub const COUNT_PATIENCE: Duration = LINK_PATIENCE;

/// Time for which outcomes are collected before they are sent together. Failures, and outcomes for which a sender
/// waits, are sent immediately.
pub const OUTCOME_DELAY: Duration = Duration::from_millis(20);

/// Maximum number of outcomes in one envelope. An outcome takes 9 B.
pub const MAX_OUTCOMES: usize = 1024;

/// Number of successive heartbeats that must arrive faster over another route before signals use it.
pub const ROUTE_PATIENCE: u8 = 3;

// Checks of the figures above.
const _: () = assert!(LEASE.as_millis() == 8 * HEARTBEAT.as_millis());
const _: () = assert!(LINK_SILENCE.as_millis() > 2 * HEARTBEAT.as_millis());
const _: () = assert!(RIVAL_EVIDENCE.as_millis() > LINK_SILENCE.as_millis());
const _: () = assert!(CONTEST_PAUSE.as_millis() * 2 <= HEARTBEAT.as_millis());
const _: () = assert!(GAP_PATIENCE.as_millis() << MAX_VAIN_REPAIRS == 9_600);
const _: () = assert!(MAX_LINKS <= MAX_NEIGHBOURS);
const _: () = assert!(SLICE_LETTERS + 1 + MAX_MEMBERSHIPS * 16 <= 18_500);
