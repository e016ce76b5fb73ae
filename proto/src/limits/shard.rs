//! Bounds of a shard, for queues of sessions, letters to other shards, and turns.

use std::time::Duration;

use super::*;

/// Default of SEND_QUEUE_FRAMES, the maximum number of frames queued for one session. A session with more frames is
/// closed with 4003.
///
/// When 10,000 members of a network leave at once, a member receives 10,000 frames in one turn.
pub const DEFAULT_SEND_QUEUE_FRAMES: usize = 32 * 1024;

/// Largest default of SEND_QUEUE_BYTES, the maximum number of bytes queued for one session. A session with more bytes
/// is closed with 4003.
///
/// When 10,000 members of a network leave at once, the events take 10,000 x 300 B = 3 MB. The remaining 13 MB of a
/// queue are for large messages.
pub const DEFAULT_SEND_QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Largest default of SEND_BUDGET_BYTES, the maximum number of bytes queued for all sessions of the hub together. While
/// a shard exceeds its share of the budget, it closes (4003) each session that would queue more than
/// [`SEND_FLOOR_BYTES`].
///
/// In the worst case, all queues together have budget + connections x [`SEND_FLOOR_BYTES`]. With 1,000 connections,
/// these are 512 MiB + 250 MiB = 762 MiB.
pub const DEFAULT_SEND_BUDGET_BYTES: usize = 512 * 1024 * 1024;

/// Bytes that may be queued for a session even if SEND_BUDGET_BYTES is exhausted.
pub const SEND_FLOOR_BYTES: usize = 256 * 1024;

/// Minimum of [`SEND_FLOOR_BYTES`] on a hub with little memory, in bytes.
pub const LEAST_SEND_FLOOR_BYTES: usize = 32 * 1024;

/// Largest default of RECEIVE_BUDGET_BYTES, the maximum memory for incomplete messages of all sessions of the hub
/// together. While a shard exceeds its share of the budget, it closes (1013) each session whose incomplete message
/// takes more than [`RECEIVE_FLOOR_BYTES`].
///
/// A client can send [`DEFAULT_MAX_MESSAGE_BYTES`] without ever completing a message. Without the budget, 1,000
/// incomplete messages of 1 MiB would take 1 GiB. In the worst case with the budget, incomplete messages take budget +
/// connections x [`RECEIVE_FLOOR_BYTES`]. With 1,000 connections, these are 256 MiB + 63 MiB = 319 MiB.
pub const DEFAULT_RECEIVE_BUDGET_BYTES: usize = 256 * 1024 * 1024;

/// Memory for an incomplete message that a session may use even if RECEIVE_BUDGET_BYTES is exhausted, in bytes. 64 KiB
/// are enough for several offers of 7 KB.
pub const RECEIVE_FLOOR_BYTES: usize = 64 * 1024;

/// Maximum number of bytes of one read while RECEIVE_BUDGET_BYTES is exhausted, so that the incomplete message after a
/// turn is below [`RECEIVE_FLOOR_BYTES`].
pub const SHORT_READ_BYTES: usize = 16 * 1024;

/// Share of a session's queue that signals may fill, in quarters of the queue's frames and bytes. The last quarter of
/// the queue is reserved for the hub's own messages, such as presence.
pub const SIGNAL_QUARTERS: usize = 3;

/// Bytes that the signals of each sender may always fill in a target's queue while the queue has any room for signals.
/// A sender with more bytes may fill half of what the other senders leave free in one half of the room for signals. So
/// a single sender fills at most a quarter of the room. Further signals get `slow-peer`, and the target stays
/// connected.
///
/// Of the 12 MiB for signals, the first sender fills at most 3 MiB, the next sender at most 1.5 MiB, and so on. The
/// other 6 MiB for signals are enough for 384 senders with 16 KiB (two offers) each. To block another sender's signals,
/// an attacker needs more than 384 senders at the same time.
pub const SENDER_SMALL_BYTES: usize = 16 * 1024;

/// Number of signals that each sender may always have in a target's queue while the queue has any room for signals.
/// [`SENDER_SMALL_BYTES`] is the corresponding bound in bytes. 384 senders with 32 signals each have 12,288 signals,
/// half of the frames of [`DEFAULT_SEND_QUEUE_FRAMES`] that signals may use.
pub const SENDER_SMALL_FRAMES: usize = 32;

/// Bytes of signals in a queue below which the queue does not count bytes per sender. So signals to peers that read
/// quickly have no extra cost.
pub const SENDER_FLOOR_BYTES: usize = 64 * 1024;

/// Number of signals in a queue below which the queue does not count signals per sender.
pub const SENDER_FLOOR_FRAMES: usize = 256;

/// Maximum number of chunks of a roster that a new member receives in one turn while its socket accepts them. With one
/// chunk per turn, a new member of a network of 2,000 members would wait for sixteen rounds over all busy sockets of
/// the shard.
pub const ROSTER_CHUNKS: usize = 8;

/// Number of queued bytes of a session below which the session gets the next chunk of the roster.
pub const ROSTER_LOW_WATER_BYTES: usize = 64 * 1024;

/// Maximum number of bytes of pings and pongs queued ahead of a session's messages. At the limit, a new pong replaces
/// all queued pongs (RFC 6455 section 5.5.3).
///
/// 4 KiB are enough for 32 pings or pongs of the maximum length. Pings and pongs accumulate only if the client does not
/// read.
pub const CONTROL_LANE_BYTES: usize = 4 * 1024;

/// Unsent bytes that the kernel accepts for a peer's socket, in addition to the bytes in flight (TCP_NOTSENT_LOWAT). A
/// ping waits until these bytes, a segment of 64 KiB and the current message have been sent. Without the message, this
/// takes 0.7 s at 1 Mbit/s.
///
/// With this limit, a socket that accepts bytes shows that the client's TCP has acknowledged earlier bytes.
pub const SOCKET_UNSENT_BYTES: u32 = 16 * 1024;

/// Length of a frame for many sessions, in bytes, from which a queue stores a reference to the frame instead of a copy.
/// Shorter frames are copied, because a copy takes less than a tenth of a microsecond, and all copied frames of a queue
/// leave in one write.
pub const SHARED_FRAME_BYTES: usize = 1024;

/// Time for which the hub waits for the close frame of a client or of another hub, after the hub has sent its own close
/// frame.
pub const CLOSE_LINGER: Duration = Duration::from_secs(2);

/// Number of letters in a thread's outbox for a shard or for the mesh above which the thread stops reading frames.
///
/// The outbox can exceed this number by the letters that the reads of one turn cause. If all sessions of a shard are
/// closed at once, the outbox can also exceed this number by sessions x networks per peer.
pub const OUTBOX_HIGH_WATER: usize = 8 * 1024;

/// Bytes of frames in the letters of a thread's outbox for a shard or for the mesh above which the thread stops reading
/// frames.
///
/// The outbox can exceed this number by [`READ_BUFFER_BYTES`] for each session that is read before the next check, or
/// by one message of the maximum length.
pub const OUTBOX_HIGH_WATER_BYTES: usize = 16 * 1024 * 1024;

/// Maximum number of letters in one batch. At 136 B per letter, a batch takes 35 KB in addition to the frames, about
/// the size of a core's first-level cache.
pub const LETTER_BATCH: usize = 256;

/// Bytes of frames at which a batch of letters is full. The last letter of a batch can make the batch longer.
pub const LETTER_BATCH_BYTES: usize = 256 * 1024;

/// Maximum number of batches in the mailbox of a shard, and in the mailbox of the mesh. A full mailbox has at most 64 x
/// 256 = 16,384 letters. The frames in these letters have at most 64 x (256 KiB + a message of 1 MiB) = 80 MiB.
pub const MAILBOX_BATCHES: usize = 64;

/// Maximum number of upgraded sockets that are queued for their home shard. While the queue is full, the shard that has
/// accepted a socket keeps the socket, for at most [`REQUEST_HEAD_TIMEOUT`]. Then the socket is closed with 1013.
pub const HANDOFF_QUEUE: usize = 256;

/// Number of sessions with queued bytes above which a shard stops reading messages and letters that cause much output,
/// because further output would only lengthen the queues. The queued bytes must also exceed [`FLUSH_BACKLOG_BYTES`].
/// The shard reads these messages and letters again when the number of sessions or of bytes has fallen to half of its
/// bound.
///
/// A bound on bytes is necessary, because one announcement in a network of 2,000 members adds bytes to 2,000 sessions,
/// but only 600 KB in total. 16 MiB are 27 of these announcements.
pub const FLUSH_BACKLOG: usize = 4 * FLUSH_CHUNK;

/// Number of queued bytes of a shard's sessions that must be exceeded together with [`FLUSH_BACKLOG`].
pub const FLUSH_BACKLOG_BYTES: usize = 16 * 1024 * 1024;

/// Size of the one read buffer that all sessions of a shard share, in bytes. All links share another read buffer of
/// this size.
pub const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Number of sessions that the flusher writes before other tasks of the shard run. 64 writes of about 8 us take half a
/// millisecond.
pub const FLUSH_CHUNK: usize = 64;

/// Number of written bytes after which the flusher lets other tasks of the shard run. The flusher still completes the
/// session that reaches this number. All these writes take at most half a millisecond.
pub const FLUSH_CHUNK_BYTES: u64 = 256 * 1024;

/// Maximum number of bytes that one write to a session takes. A session that receives a roster can have several writes
/// in a turn.
pub const WRITE_CHUNK_BYTES: usize = 256 * 1024;

/// Cost at which a turn of a session ends, in nanoseconds. The remaining received bytes are processed in another turn.
///
/// A turn costs its time, and [`WRITE_NANOS`] and [`BYTE_NANOS`] for the writes that it causes. One message can exceed
/// this cost. For example, an announcement of 16 KiB in a network of 500 members makes the shard write 8 MB.
pub const TURN_NANOS: u64 = 250_000;

/// Cost at which a turn ends in which a shard does other work than processing a session's messages, in nanoseconds. A
/// batch of [`LETTER_BATCH`] letters with one signal each costs 2 ms.
pub const SHARD_TURN_NANOS: u64 = 2_000_000;

/// Cost of the system call that writes to one more session, in nanoseconds.
pub const WRITE_NANOS: u64 = 5_000;

/// Cost of writing one byte, in nanoseconds. Each byte is copied twice.
pub const BYTE_NANOS: u64 = 1;

/// Expected cost of a turn up to which a session counts as cheap, in nanoseconds. Cheap sessions are read first in each
/// round. 5 messages to 5 peers have this cost.
pub const CHEAP_TURN_NANOS: u32 = 50_000;

/// Maximum expected cost of a session's next turn, in nanoseconds. A cheap turn halves the expected cost. So after 5
/// cheap turns, the expected cost is below [`CHEAP_TURN_NANOS`].
pub const DEAREST_TURN_NANOS: u32 = 1_000_000;

/// Minimum cost of a turn, in nanoseconds, so that an empty turn is not free.
pub const LEAST_TURN_NANOS: u64 = 1_000;

/// Maximum cost of all expensive turns of one round together, in nanoseconds. Further expensive turns wait for the next
/// round.
///
/// A round lasts 1 to 2 ms, including one turn that exceeds the maximum and the turn of the flusher. So a session with
/// cheap turns waits for at most 2 ms.
pub const ROUND_DEAR_NANOS: i64 = 500_000;

/// Cost of a round's turns above which sessions with cheap turns also wait for the next round, in nanoseconds.
pub const ROUND_CHEAP_NANOS: u64 = 4_000_000;

/// Maximum cost above [`ROUND_DEAR_NANOS`] that is subtracted from the budgets of the next rounds, in nanoseconds. A
/// turn with an even higher cost usually causes much output, and [`FLUSH_BACKLOG`] then delays further expensive turns.
pub const ROUND_DEBT_NANOS: i64 = 4 * ROUND_DEAR_NANOS;

/// Maximum number of sessions with expensive turns that get a turn in one round.
pub const ROUND_CALLS: usize = 16;

/// Number of successive turns with little output (at most [`CHEAP_TURN_NANOS`]) after which a session may be read while
/// too much output is queued.
pub const LOUD_TURNS: u8 = 5;

/// Number of rounds after which one session whose turns cause much output is read although too much output is queued.
/// Without this bound, sessions with cheap turns could delay a session with much output without end. In 1,024 rounds,
/// the shard writes at least 1,024 x [`FLUSH_CHUNK`] queues, or 256 MiB.
pub const HELD_ROUNDS: u32 = 1024;

/// Number of networks that one turn of a shard examines for the list of the largest networks. 4,096 networks take 4,096
/// x 20 ns = 80 us.
pub const NETWORKS_CHUNK: usize = 4_096;

/// Resolution of a shard's timers. The timeouts of keepalive, receipts, takeovers and drains can be late by at most
/// this time.
pub const TICK: Duration = Duration::from_millis(100);

/// Time without a [`TICK`] after which a thread assumes that the process was paused. The thread then reads the bytes
/// that have arrived during the pause before it closes silent connections.
pub const NOTICED_STOP: Duration = Duration::from_secs(1);

const _: () = assert!(NOTICED_STOP.as_millis() == 10 * TICK.as_millis());

/// Maximum number of operators' orders queued for a shard. The hub sends the next order when the last one is answered
/// or has timed out. A further order is not executed, and its answer says that the outcome is unknown.
pub const SHARD_COMMANDS: usize = 4;

/// Time in which the shards must execute an operator's order. If the shards need longer, the operator's answer says
/// that the outcome is unknown.
pub const ACT_TIMEOUT: Duration = Duration::from_secs(5);

// Checks of the figures above.
const _: () = assert!(DEFAULT_SEND_QUEUE_BYTES / 4 * SIGNAL_QUARTERS / 2 == 384 * SENDER_SMALL_BYTES);
const _: () = assert!(DEFAULT_SEND_QUEUE_FRAMES / 4 * SIGNAL_QUARTERS / 2 == 384 * SENDER_SMALL_FRAMES);
const _: () = assert!(CONTROL_LANE_BYTES / (2 + 125) == 32);
const _: () = assert!(MAILBOX_BATCHES * LETTER_BATCH == 16_384);
const _: () = assert!(ROSTER_CHUNK * 250 < ROSTER_LOW_WATER_BYTES);

/// Maximum time between two checks whether a session needs new credentials for TURN. The timer wheel keeps the entry of
/// an ended session for at most this time.
///
/// If 2,000 connections per second open and end immediately, the timer wheel has 120,000 entries. These entries take
/// 120,000 x 56 B = 7 MB.
pub const ICE_LOOK: Duration = Duration::from_secs(60);

/// Maximum length of ICE_SERVERS in bytes. A longer value is refused. Every client receives the value in `connected`.
///
/// A server has about 100 B, so the limit allows about forty servers. Browsers warn about more than four STUN and TURN
/// servers.
pub const MAX_ICE_SERVERS_BYTES: usize = 4096;

/// Maximum number of TURN_URLS. A longer list is refused. Every client receives all TURN_URLS, or all of them twice if
/// TURN_SECRET_ALSO is set.
pub const MAX_TURN_URLS: usize = 8;
