//! Bounds of a relay: other hubs, their presence, snapshots, and signals between hubs.

use std::time::Duration;

use super::*;

/// Interval between two heartbeats of a hub.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// Minimum time between two heartbeats when links become full or free, since each goes to every hub.
pub const EXTRA_BEAT_PAUSE: Duration = Duration::from_millis(100);

/// Time without a received byte on a link after which signals take another way: two heartbeats, plus the delay of a
/// timer or a busy socket.
///
/// The link stays open as a spare, and is used again when something arrives on it. If it never recovers, the envelopes
/// sent into it are lost. Presence is repaired through other hubs, and the signals of this time get `unknown` after
/// [`RECEIPT_TIMEOUT`].
pub const LINK_SILENCE: Duration = Duration::from_millis(2_200);

/// Time without an answer to any signal on a way after which another way is tried.
pub const OUTCOME_PATIENCE: Duration = Duration::from_secs(2);

/// Time for which this hub's own signals avoid such a way if there is another, unless one of its signals is answered
/// after all.
pub const WAY_AVOIDED: Duration = Duration::from_secs(10);

/// Maximum number of unanswered signals examined per second and hub, to find two with different targets.
pub const MAX_UNANSWERED_LOOKED_AT: usize = 1024;

/// Time without a heartbeat after which a hub's peers leave: eight heartbeats, so that a lost link or a pause of a few
/// seconds does not look like the end of a hub. A ghost lives at most this long, plus one heartbeat and its transit.
pub const LEASE: Duration = Duration::from_secs(8);

/// Time for which another incarnation of a hub's id must send heartbeats before it counts as another live hub. Longer
/// than third hubs forward the last heartbeat of an ended incarnation ([`LINK_SILENCE`]).
pub const RIVAL_EVIDENCE: Duration = Duration::from_millis(2_500);

/// Maximum age of the last heartbeat of such an incarnation for it to count as alive.
pub const RIVAL_MEMORY: Duration = Duration::from_secs(4);

/// Time for which a hub with a fixed HUB_ID observes whether a later incarnation of its id is alive, before it begins
/// an even later one. A hub that has just started does not wait, because that incarnation is its own earlier process.
pub const RIVAL_PATIENCE: Duration = Duration::from_secs(3);

/// Time for which the earlier of two live hubs with one id waits for the later one to take a new id, before it takes
/// one itself. Hubs before 2.1 never take one.
pub const RIVAL_YIELD: Duration = Duration::from_secs(10);

/// Latest accepted start of a hub's incarnation or of a session, in milliseconds since 1970: the year 2527.
///
/// Heartbeats of later incarnations, and sessions with later starts, are ignored and counted. They are not compared
/// with a clock, so clocks of hubs may differ by any amount. A hub must always be able to choose a number that is
/// greater than an accepted one and is accepted as well. Therefore no hub exceeds a number beyond
/// [`GREATEST_TIME_FOLLOWED`] with its own.
pub const GREATEST_TIME: u64 = 1 << 44;

/// Latest time that a hub exceeds with its own incarnation or sessions: the year 2248. Beyond it, a hub that receives a
/// later incarnation of its own id takes a new id, and a session at another hub keeps its peer's id until it ends.
pub const GREATEST_TIME_FOLLOWED: u64 = GREATEST_TIME / 2;

/// Maximum number of hubs that a hub remembers, dead ones included. Heartbeats of more are ignored and counted.
///
/// About 1 KiB each without their peers. In a full mesh, the hubs x (hubs - 1)^2 heartbeats per second are a much lower
/// bound.
pub const MAX_HUBS: usize = 1024;

/// Maximum number of neighbours in a heartbeat. More are left out, which costs duplicate envelopes and loses nothing.
pub const MAX_NEIGHBOURS: usize = 1024;

/// Time for which a stopped hub is remembered, so that its late envelopes are not accepted as new.
pub const HUB_MEMORY: Duration = Duration::from_secs(600);

/// Maximum number of incarnations of one hub that are remembered after their farewell, until the hub is forgotten. A
/// further one replaces the oldest. A hub reaches it if it is restarted four times while a heartbeat travels around the
/// mesh (seconds).
pub const MAX_ENDED_LIVES: usize = 4;

/// Maximum length of a hub's URL, in bytes.
pub const MAX_HUB_URL_BYTES: usize = 512;

/// Maximum number of links between the hubs of a signal's sender and of its target: one less forward it. Signals that
/// would need more get `unreachable`.
pub const MAX_HOPS: u8 = 16;

/// Maximum number of changes of one hub that are held while an earlier one is missing. Further ones are dropped, and a
/// snapshot repairs that.
///
/// About 500 B each: 8,192 x 500 B = 4 MB for each hub that is behind.
pub const MAX_CHANGES_AHEAD: usize = 8 * 1024;

/// Time for which a missing change is waited for, before a snapshot is requested.
pub const GAP_PATIENCE: Duration = Duration::from_millis(300);

/// Time for which the next part of a snapshot is waited for, before the snapshot is requested again.
pub const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(3);

/// Longest time that a snapshot may take in all. A slower snapshot is refused, and another neighbour is asked.
///
/// A hub of 1,000,000 peers is about 300 MB: 1 MB/s is enough.
pub const SNAPSHOT_LIMIT: Duration = Duration::from_secs(300);

/// Maximum time for which a snapshot may arrive more slowly than at [`SNAPSHOT_RATE_BYTES`]. Later it is refused.
pub const SNAPSHOT_SLACK: Duration = Duration::from_secs(12);

/// Minimum average rate of a snapshot since its request, in bytes per second. Each of 64 simultaneous snapshots has
/// this rate on a link of 20 Mbit/s.
///
/// A neighbour can therefore keep a repair open only while it sends distinct peers, at most [`MAX_PEERS_PER_HUB`].
pub const SNAPSHOT_RATE_BYTES: u64 = 32 * 1024;

/// Number of heartbeats of a hub with a lower change number than this hub knows, after which this hub doubts its own
/// number. It then forgets change numbers beyond the heartbeats', and accepts a snapshot with a lower one.
///
/// Heartbeats and changes can take different ways, of which one is seconds slower. A forged change or snapshot
/// therefore lasts for 4 to 8 heartbeats at each hub on the way, and is then repaired.
pub const DOUBT_BEATS: u64 = 4;

/// Maximum number of doublings of the pause before a request for a snapshot. The pause doubles while snapshots do not
/// reach the state in their hub's heartbeats: from [`GAP_PATIENCE`] to 300 ms x 2^5 = 9.6 s after the last snapshot. A
/// neighbour that sends wrong snapshots is asked six times in 20 s, and then every ten seconds. A request that is lost
/// or declined is repeated after [`GAP_PATIENCE`].
pub const MAX_VAIN_REPAIRS: u32 = 5;

/// Maximum number of peers in one part of a snapshot: 64 x 300 B = 20 KB in practice.
pub const SNAPSHOT_PEERS: usize = 64;

/// Bytes of announced data at which a part of a snapshot is full. One peer can exceed it.
pub const SNAPSHOT_BYTES: usize = 64 * 1024;

/// Maximum number of neighbours whose requests for a snapshot of one hub wait until this hub has received that snapshot
/// itself. A further request is declined, and the neighbour asks another hub, or again after [`GAP_PATIENCE`].
///
/// 16 B each, for at most one repair: [`SNAPSHOT_PATIENCE`] per part.
pub const MAX_SNAPSHOT_WAITERS: usize = 64;

/// Maximum number of peers whose old state is kept because they changed while a snapshot is being sent. A further one
/// ends the snapshot with a decline, and the neighbour asks again.
///
/// About 400 B each: 16 Ki x 400 B = 6.5 MB a snapshot. A snapshot of 100,000 peers takes some seconds, and 1,000 peers
/// a second may come and go meanwhile.
pub const MAX_SNAPSHOT_CHANGES: usize = 16 * 1024;

/// Maximum number of snapshots that are being sent to one neighbour. A further request is declined; the neighbour asks
/// again.
pub const MAX_SNAPSHOTS_OUT: usize = 64;

/// Maximum number of peers in a snapshot of one hub. A larger snapshot is dropped, and this hub does not know that
/// hub's peers.
pub const MAX_PEERS_PER_HUB: usize = 1_000_000;

/// Maximum number of networks of one peer of another hub: the maximum of the setting MAX_NETWORKS_PER_PEER. A snapshot
/// with more for a peer is refused, and a change that adds one more is left out.
pub const MAX_MEMBERSHIPS: usize = 1024;

/// Number of parts of the directory of all peers of the mesh. Each part is a separate hash map. A map that grows moves
/// all of its entries in one turn. With 100,000 peers in one map, this takes 57,000 x 0.25 us = 14 ms; in one of 256
/// maps, it takes 0.06 ms. With [`MAX_PEERS_PER_HUB`] peers, 0.6 ms. An empty map has 64 B: 16 KB.
pub const DIRECTORY_SEGMENTS: usize = 256;

/// Number of letters to shards after which a slice of the relay's long work ends. The peer that exceeds it is
/// completed. The next slice follows when everything else that is ready has had its turn and no more than
/// [`SLICE_ROOM`] letters wait for any shard.
///
/// The end of a hub with 100,000 peers and 16 shards is 1,700,000 letters: 830 slices of at most 2.2 ms. A letter takes
/// 0.9 us, with its share of the work for the peer. The longest slice has one peer in 1,024 networks, the maximum of
/// MAX_NETWORKS_PER_PEER. It has 2,048 + 16,400 letters, and takes 5.3 ms when a snapshot is installed. With the
/// default of 32 networks it has 2,048 + 528 letters.
pub const SLICE_LETTERS: usize = 2048;

/// Maximum number of peers and lost signals that such a slice examines, if they need fewer letters.
pub const SLICE_PEERS: usize = 1024;

/// Maximum number of changes of one hub that waited for an earlier one and are applied in one turn. The rest, at most
/// [`MAX_CHANGES_AHEAD`], follows in slices, and with each change that is received.
pub const SLICE_CHANGES: usize = 64;

/// Maximum number of peers of discarded replicas whose memory is freed in one turn: 1,024 x 0.3 us.
///
/// Such replicas hold at most as many peers as the replicas in use. So they take at most the same amount of memory
/// again, for the second that their slices take. A part of a snapshot adds [`SNAPSHOT_PEERS`] and frees as many.
pub const SLICE_DISCARDED: usize = 1024;

/// Maximum number of letters that wait for one shard, besides those in its mailbox, when a slice of long work begins.
/// With more letters, the slice begins later. Events of links and peers, which stop only at [`OUTBOX_HIGH_WATER`],
/// therefore do not wait behind long work.
///
/// With a full mailbox that is 16,384 + 2,048 letters of 136 B = 2.5 MB a shard, however much work is left.
pub const SLICE_ROOM: usize = OUTBOX_HIGH_WATER / 4;

/// Maximum number of signals to one hub whose outcomes are outstanding. A further signal is answered `unreachable`.
///
/// About 150 B each: 256 Ki x 150 B = 39 MB per hub. They end within [`RECEIPT_TIMEOUT`].
pub const MAX_SIGNALS_IN_FLIGHT: usize = 256 * 1024;

/// Maximum number of signals from one hub that are held for an earlier signal, or for the presence of their sender.
/// Further ones get `unreachable`.
pub const MAX_SIGNALS_HELD: usize = 1024;

/// Time for which a signal is held for an earlier one, or for the presence of its sender.
pub const HOLD: Duration = Duration::from_millis(500);

/// Maximum by which the counter of a signal may be ahead of the last delivered signal of its hub: no hub has more in
/// flight. A signal beyond it gets `unreachable` and does not advance the counter, unless this lasts for
/// [`COUNT_PATIENCE`].
pub const MAX_COUNTER_STEP: u64 = MAX_SIGNALS_IN_FLIGHT as u64;

/// Time for which all signals from a hub must have counters in the past, or too far ahead, before counting continues
/// from these: the earlier counter was wrong. Until then they are `unreachable`.
///
/// Equal to [`LINK_PATIENCE`], after which a link that delivers nothing is closed, so a delayed signal cannot arrive
/// later.
pub const COUNT_PATIENCE: Duration = LINK_PATIENCE;

/// Time for which outcomes without a receipt are collected before they are sent together.
pub const OUTCOME_DELAY: Duration = Duration::from_millis(20);

/// Maximum number of outcomes in one envelope: 9 B each.
pub const MAX_OUTCOMES: usize = 1024;

/// Number of heartbeats in a row that must arrive faster over another way before signals take it.
pub const ROUTE_PATIENCE: u8 = 3;

// Checks of the figures and orderings in the comments above.
const _: () = assert!(LEASE.as_millis() == 8 * HEARTBEAT.as_millis());
const _: () = assert!(LINK_SILENCE.as_millis() > 2 * HEARTBEAT.as_millis());
const _: () = assert!(RIVAL_EVIDENCE.as_millis() > LINK_SILENCE.as_millis());
const _: () = assert!(GAP_PATIENCE.as_millis() << MAX_VAIN_REPAIRS == 9_600);
const _: () = assert!(MAX_LINKS <= MAX_NEIGHBOURS);
const _: () = assert!(SLICE_LETTERS + 1 + MAX_MEMBERSHIPS * 16 <= 18_500);
