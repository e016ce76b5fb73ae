//! Bounds of links and of dialing.

use std::time::Duration;

use super::*;

/// Maximum number of upgraded sockets of hubs that are queued for the mesh. A further socket is closed with `try again
/// later`.
pub const LINK_SOCKET_QUEUE: usize = 256;

/// Maximum number of other hubs in `go-away`. Further hubs are left out. The URLs take at most 16 x 512 B = 8 KiB per
/// peer.
pub const MAX_GO_AWAY_HUBS: usize = 16;

/// Payload at which a frame of a link is full, in bytes. A frame contains several queued envelopes. The last envelope
/// of a frame can make the frame longer.
///
/// A frame has at most about a quarter of [`READ_BUFFER_BYTES`]. So at least three quarters of a full read are whole
/// frames, which are parsed in place. Only the incomplete last frame must be copied. The header of a frame has 4 to 8
/// B, which is negligible.
pub const LINK_FRAME_BYTES: usize = 16 * 1024;

/// Room for the other parts of an envelope with the longest signal, in bytes. The header, the route header, the ids and
/// the network's name take about 450 B.
pub const ENVELOPE_ROOM: usize = 4 * 1024;

/// Maximum length of a message on a link. A longer message closes the link. A message can have other envelopes that
/// almost fill a frame, and then the longest signal that any hub's settings allow. The maximum does not depend on this
/// hub's settings, because the hubs of a mesh can have different settings during an upgrade. The longest part of a
/// snapshot has one peer in 1,024 networks, and takes 17 MiB.
pub const LINK_MESSAGE_BYTES: usize = LARGEST_MAX_MESSAGE_BYTES + LINK_FRAME_BYTES + ENVELOPE_ROOM;

/// Number of bytes queued for one link (or for the bridge) at which the relay sends only heartbeats and short
/// envelopes, such as outcomes. For a link of a hub with little memory, the number is less, but at least
/// [`LINK_QUEUE_LOW`].
///
/// 8 MiB are enough for 400 parts of a snapshot of 20 KB, or for 10,000 signals of 800 B. A link at full speed sends 8
/// MiB in about a tenth of a second.
pub const LINK_QUEUE_HIGH: usize = 8 * 1024 * 1024;

/// Number of bytes queued for one link below which the relay sends all envelopes again. A socket accepts 1 MiB in a few
/// writes.
pub const LINK_QUEUE_LOW: usize = 1024 * 1024;

/// Number of bytes queued for one link at which the link is closed. A queue can have [`LINK_QUEUE_HIGH`], one message
/// of the maximum length, and then 24 MiB of heartbeats and short envelopes. 24 MiB have room for 200,000 heartbeats
/// and short envelopes. So a hub whose link is closed at this bound has not read for a long time.
pub const LINK_QUEUE_CAP: usize = 4 * LINK_QUEUE_HIGH + LINK_MESSAGE_BYTES;

/// Maximum number of links of a hub, including links that are not ready. A further link is refused.
///
/// An idle link takes about 2 KiB. [`LINK_QUEUES_BYTES`] and [`LINK_PARTIAL_BYTES`] bound the memory of links that are
/// not idle.
pub const MAX_LINKS: usize = 256;

/// Maximum number of bytes queued for all links together. When half of the maximum is queued, a link with more than its
/// equal share of this half gets only heartbeats and short envelopes. Above the maximum, the link with the longest
/// queue is closed.
///
/// The maximum is 32 full queues of 8 MiB. Without this bound, 256 hubs that do not read could make a hub queue 256 x 8
/// MiB = 2 GiB until [`LINK_PATIENCE`] closes their links. 256 queues of [`LINK_QUEUE_CAP`] could even take 256 x 96
/// MiB = 24 GiB.
pub const LINK_QUEUES_BYTES: usize = 32 * LINK_QUEUE_HIGH;

/// Minimum of [`LINK_QUEUES_BYTES`] on a hub with little memory. The minimum is enough for four queues of
/// [`LINK_QUEUE_LOW`].
pub const LEAST_LINK_QUEUES_BYTES: usize = 4 * LINK_QUEUE_LOW;

/// Maximum memory of all links for incomplete and unprocessed messages, in bytes. Above this maximum, the link with the
/// longest incomplete or unprocessed message is closed.
///
/// A hub can send [`LINK_MESSAGE_BYTES`] without ever completing a message, and the buffer of its link can have twice
/// this size. So 256 links could take 32 GiB without this maximum. The maximum has room for two of the longest
/// messages. Ordinary frames are shorter than 32 KiB.
pub const LINK_PARTIAL_BYTES: usize = 256 * 1024 * 1024;

/// Number of bytes by which the queue or the incomplete message of a link grows before the sums over all links are
/// compared with [`LINK_QUEUES_BYTES`] and [`LINK_PARTIAL_BYTES`].
///
/// A comparison takes 256 x 1 ns, which is little compared with the 10 us for reading 64 KiB. The sum over all links
/// can exceed its maximum by 256 x 64 KiB = 16 MiB, and by one message.
pub const LINK_COUNT_STEP: usize = 64 * 1024;

/// Time after which a link is closed if no byte has been received on it, or if its socket has accepted no queued byte.
/// The time is longer than [`LEASE`], so that a hub that resumes within its lease still has its links.
pub const LINK_PATIENCE: Duration = Duration::from_secs(10);

/// Interval between two pings on a link. A link is dead after four unanswered pings.
pub const LINK_PING_INTERVAL: Duration = Duration::from_millis(2_500);

/// Time from the upgrade in which both ends of a link must exchange hellos.
pub const LINK_HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Time in which the hub that dials must answer the challenge of the other hub. A later answer is refused, and the hub
/// dials again. An answer takes one round trip.
pub const LINK_CHALLENGE_TIME: Duration = Duration::from_secs(10);

/// Maximum number of answered challenges that a hub remembers until they expire, so that it refuses repeated answers.
/// When the maximum is reached, answers to other challenges are refused, too. The maximum is four times [`MAX_LINKS`],
/// and only hubs with MESH_TOKEN can reach it. Each remembered challenge takes about 40 B.
pub const MAX_LINK_CHALLENGES_USED: usize = 4 * MAX_LINKS;

/// Time for which a stopping hub waits until its links have accepted its last envelopes.
pub const LINK_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Time after a pause of the whole process in which links are only read, and no timeouts of links are checked.
pub const THAW: Duration = Duration::from_millis(300);

/// Time limit for a complete dial over all addresses of a name, with look-up, TCP, TLS and upgrade.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between the starts of two attempts to connect to addresses of one name (the Connection Attempt Delay of RFC
/// 8305).
pub const CONNECT_STAGGER: Duration = Duration::from_millis(250);

/// Maximum number of parallel attempts to connect to addresses of one name. A further attempt ends the oldest one.
///
/// The oldest attempt then has lasted 6 x 250 ms = 1.5 s, so the kernel has sent a lost SYN again, after 1 s.
pub const MAX_CONNECT_ATTEMPTS: usize = 6;

/// Maximum number of addresses of one name that one dial tries. The next dial of the name begins with the address after
/// the last one that was tried.
///
/// The 5 s of a dial are enough for 20 attempts. An address takes 32 bytes.
pub const MAX_DIAL_ADDRESSES: usize = 16;

/// Minimum time that a dial gives an address to answer the upgrade request while other addresses of the name have not
/// been tried. The maximum of this time is half of [`DIAL_TIMEOUT`].
///
/// The minimum is enough for four round trips of 250 ms. A dial has time for five addresses that do not answer.
pub const UPGRADE_SHARE: Duration = Duration::from_secs(1);

/// First pause after a failed dial. The pause doubles with each successive failure, up to [`DIAL_BACKOFF_MAX`]. The
/// second half of each pause is random, so that hubs that lost each other at the same time do not dial at the same
/// time.
pub const DIAL_BACKOFF_MIN: Duration = Duration::from_millis(200);

/// Maximum pause between two dials to a hub that has been missing for a minute.
pub const DIAL_BACKOFF_MAX: Duration = Duration::from_secs(15);

/// Maximum pause between two dials to a hub in the first [`LEASE`] after its link was lost, or after its address became
/// known. After the first [`LEASE`], the maximum is a quarter of the time since the loss, up to [`DIAL_BACKOFF_MAX`].
///
/// The pause is a quarter of [`LEASE`], so that a hub dials at least three times before the lease of the other hub
/// expires. A hub that returns after a minute costs about 20 dials.
pub const DIAL_BACKOFF_NEAR: Duration = Duration::from_secs(2);

const _: () = assert!(DIAL_BACKOFF_NEAR.as_millis() * 4 <= LEASE.as_millis());

/// Time for which a link must have been in use, so that the pause after its loss is only [`DIAL_BACKOFF_MIN`]. Half a
/// [`HEARTBEAT`] is enough, because a link that is lost every second is then missing for at most a fifth of the time.
pub const DIAL_PROVEN: Duration = Duration::from_millis(500);

/// First pause after a dial that reached the dialing hub itself. The pause doubles up to [`DIAL_OWN_BACKOFF_MAX`].
pub const DIAL_OWN_BACKOFF_MIN: Duration = Duration::from_secs(1);

/// Maximum pause between two dials to an address that reaches the dialing hub itself. The hub continues to dial this
/// address, because the address may belong to a load balancer that leads a later dial to another hub.
pub const DIAL_OWN_BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Time for which the hub with the greater id waits before it dials a hub that it has just learned of. While this hub
/// waits, the other hub dials, because one link between two hubs is enough.
pub const DIAL_COURTESY: Duration = Duration::from_secs(1);

/// Maximum number of addresses to dial, from all sources. A further address is not dialed.
pub const MAX_DIALS: usize = 1024;

/// Age from which a dial no longer counts in [`MAX_YOUNG_DIALS`], and no longer delays other dials.
pub const DIAL_YOUNG: Duration = Duration::from_millis(500);

/// Maximum number of dials younger than [`DIAL_YOUNG`]. Dials to further addresses wait.
///
/// 100 unresponsive addresses are dialed within 1.5 s, and delay a responsive address by at most 1.5 s.
pub const MAX_YOUNG_DIALS: usize = 32;

/// Maximum number of dials in progress. Dials to further addresses wait.
///
/// If no address answers, 128 dials end in each [`DIAL_TIMEOUT`], so [`MAX_DIALS`] addresses are dialed within 40 s.
/// Together with [`MAX_EXTRA_ATTEMPTS`], dials use at most 160 sockets.
pub const MAX_DIALS_AT_ONCE: usize = 128;

/// Maximum number of additional attempts to connect, over all dials. An additional attempt is any parallel attempt of a
/// dial except its first attempt. A dial without an additional attempt ends its only attempt after 1.5 s and tries the
/// next address.
///
/// If a hub may open only few files, it makes fewer than [`MAX_DIALS_AT_ONCE`] dials at once, and this maximum is a
/// quarter of that number. A dial to a name whose first address answers needs no additional attempt.
pub const MAX_EXTRA_ATTEMPTS: usize = MAX_DIALS_AT_ONCE / 4;

/// Interval between two look-ups of MESH_DNS.
pub const DNS_INTERVAL: Duration = Duration::from_secs(5);

// Checks of the figures above.
const _: () = assert!(LINK_FRAME_BYTES == READ_BUFFER_BYTES / 4);
const _: () = assert!(LINK_PARTIAL_BYTES == 2 * 2 * LARGEST_MAX_MESSAGE_BYTES);
const _: () = assert!(LINK_PATIENCE.as_millis() > LEASE.as_millis());
const _: () = assert!(LINK_PATIENCE.as_millis() == 4 * LINK_PING_INTERVAL.as_millis());
const _: () = assert!(MAX_CONNECT_ATTEMPTS as u128 * CONNECT_STAGGER.as_millis() == 1_500);
const _: () = assert!(5 * UPGRADE_SHARE.as_millis() == DIAL_TIMEOUT.as_millis());
const _: () = assert!(2 * DIAL_PROVEN.as_millis() == HEARTBEAT.as_millis());
const _: () = assert!((MAX_DIALS / MAX_DIALS_AT_ONCE) as u64 * DIAL_TIMEOUT.as_secs() == 40);
const _: () = assert!(MAX_DIALS_AT_ONCE + MAX_EXTRA_ATTEMPTS == 160);
