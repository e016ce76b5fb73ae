//! Bounds of the budgets of sessions and networks. A session that stays above its budget for too long is closed.

use std::time::Duration;

use super::*;

/// Default of MESSAGE_RATE, the average number of messages per second and session. Further messages get `rate-limited`.
///
/// A peer that connects to 15 others sends about 150 messages in its first second. Later, the peer rarely sends more
/// than 50 messages per second, because a new connection takes about 10 messages in each direction. The default is four
/// times 50. A message costs about 5 us, so a peer at this rate uses a thousandth of a core.
pub const DEFAULT_MESSAGE_RATE: u32 = 200;

/// Default of MESSAGE_RATE_BYTES, the average number of bytes of messages per second and session. Further messages get
/// `rate-limited`.
///
/// A peer that connects to 15 others sends about 1 MB of offers in its first second. One offer of 7 KB and nine
/// candidates of 300 B have about 10 KB, so 200 messages per second have about 200 KB.
pub const DEFAULT_MESSAGE_RATE_BYTES: u64 = 1024 * 1024;

/// Default of ANNOUNCE_RATE_BYTES, the average number of bytes of announcements per second and session. An announcement
/// counts its length plus [`ANNOUNCE_COST_BYTES`]. Further announcements get `rate-limited`.
///
/// Each announcement is queued for every member, and can fill even the quarter of a member's queue that is closed to
/// signals. The default allows 3 announcements of the maximum size per second, or 15 announcements of 100 B.
pub const DEFAULT_ANNOUNCE_RATE_BYTES: u64 = 64 * 1024;

/// Default of EVENT_RATE_BYTES, the average number of bytes per second that all hubs together send because of a
/// session. EVENT_RATE_BYTES counts the session's announcements and goodbyes once for each receiver. EVENT_RATE_BYTES
/// also counts the rosters that the session receives. Further announcements get `rate-limited`.
///
/// A join of a network of 2,000 members costs 2 x 2,000 x 300 B = 1.2 MB, so the default allows 3 joins per second. An
/// announcement of 16 KiB in a network of 500 members costs 8 MB, so the default allows one announcement in 2 s. 4 MiB
/// take about 10 ms of a core.
pub const DEFAULT_EVENT_RATE_BYTES: u64 = 4 * 1024 * 1024;

/// Default of DISCOVER_RATE, the average number of `discover` messages per second and session. Further `discover`
/// messages get `rate-limited`.
///
/// A `discover` introduces a page of up to [`MAX_CLOSEST`] members, with an event for both peers of each pair. A peer
/// that wants to know [`MAX_ACQUAINTANCES`] members needs 16 pages of the largest size, or 64 pages of 16 members.
pub const DEFAULT_DISCOVER_RATE: u32 = 4;

/// Default of ERROR_RATE, the average number of `error` messages per second and session. Further errors are only
/// counted. Receipts are always sent.
pub const DEFAULT_ERROR_RATE: u32 = 20;

/// Default of NETWORK_BUDGETS, the number of session budgets that all members of a network at one hub may use together.
/// When the network has exhausted these budgets, members that have used more than an eighth ([`LIGHT_PART`]) of their
/// own burst get `rate-limited`.
///
/// 64 sessions at their maximum rates send 12,800 messages per second, which take 6 % of a core. 64 sessions cause 256
/// MiB of events per second.
pub const DEFAULT_NETWORK_BUDGETS: u32 = 64;

/// Maximum of the settings MESSAGE_RATE_BYTES, ANNOUNCE_RATE_BYTES and EVENT_RATE_BYTES.
pub const LARGEST_MESSAGE_RATE_BYTES: u64 = 1024 * 1024 * 1024;

/// Length of a session's burst, in seconds of its rates of messages, bytes, events and pages.
///
/// 25 s of [`DEFAULT_MESSAGE_RATE`] are 5,000 messages. A web page sends 5,000 messages if it opens 500 connections at
/// once, the maximum in browsers. A burst of events is 100 MiB, because a join of a network of 100,000 members takes 60
/// MB. A burst of pages is 100 `discover` messages.
pub const BURST_SECS: u64 = 25;

/// Length of a burst of announcements, in seconds of their rate. By default, the burst is 1 MiB, a sixteenth of
/// [`DEFAULT_SEND_QUEUE_BYTES`]. So a peer can join [`DEFAULT_MAX_NETWORKS_PER_PEER`] networks at once with data of the
/// maximum size.
pub const ANNOUNCE_BURST_SECS: u64 = 16;

/// Length of a session's burst of `error` messages, in seconds of their rate. By default, a burst has 100 errors.
pub const ERROR_BURST_SECS: u64 = 5;

/// Length of a network's burst, in seconds of its rates. A network's burst is shorter than the burst of a session,
/// because many members that use their bursts at the same time would slow down the hub.
pub const NETWORK_BURST_SECS: u64 = 5;

/// Number of messages of the maximum length that a session may send in one burst, even if MESSAGE_RATE_BYTES is low.
pub const MESSAGE_BURST_LARGEST: u64 = 4;

/// Bytes that are added to the length of each announcement, so that the rate also limits small announcements.
pub const ANNOUNCE_COST_BYTES: u64 = 4 * 1024;

/// Divisor of a session's burst. When the budget of a network is exhausted, the hub still accepts messages of sessions
/// that have used at most an eighth of their own burst (625 messages). So a flood in a network does not stop peers that
/// send little.
pub const LIGHT_PART: u64 = 8;

/// Time for which a session may exceed a budget without a pause, before it is closed with 1008.
pub const RATE_LIMIT_PATIENCE: Duration = Duration::from_secs(10);

/// Time without a refused message that counts as a pause. `retryInMs` is never shorter than a pause, so a client that
/// waits for `retryInMs` is never closed.
pub const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(1);

// Checks of the figures above.
const _: () = assert!(DEFAULT_MESSAGE_RATE as u64 * BURST_SECS == 5_000);
const _: () = assert!(DEFAULT_MESSAGE_RATE as u64 * BURST_SECS / LIGHT_PART == 625);
const _: () = assert!(DEFAULT_ANNOUNCE_RATE_BYTES / (MAX_ANNOUNCE_DATA_BYTES as u64 + ANNOUNCE_COST_BYTES) == 3);
const _: () = assert!(DEFAULT_ANNOUNCE_RATE_BYTES / (100 + ANNOUNCE_COST_BYTES) == 15);
const _: () = assert!(DEFAULT_ANNOUNCE_RATE_BYTES * ANNOUNCE_BURST_SECS == DEFAULT_SEND_QUEUE_BYTES as u64 / 16);
const _: () = assert!(
    DEFAULT_MAX_NETWORKS_PER_PEER as u64 * (MAX_ANNOUNCE_DATA_BYTES as u64 + ANNOUNCE_COST_BYTES + 500)
        <= DEFAULT_ANNOUNCE_RATE_BYTES * ANNOUNCE_BURST_SECS
);
const _: () = assert!(100_000 * 600 <= DEFAULT_EVENT_RATE_BYTES * BURST_SECS);
const _: () = assert!(DEFAULT_DISCOVER_RATE as u64 * BURST_SECS > MAX_ACQUAINTANCES as u64 / 16);
const _: () = assert!(DEFAULT_ERROR_RATE as u64 * ERROR_BURST_SECS == 100);
