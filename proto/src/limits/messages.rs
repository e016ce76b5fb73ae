//! Bounds of the length and nesting of messages from clients.

#[allow(unused_imports, reason = "links in doc comments")]
use super::*;

/// Maximum length of a network name, in bytes. Longer names get `invalid-message`.
pub const MAX_NETWORK_NAME_BYTES: usize = 256;

/// Maximum length of a signal's `id`, in bytes. Signals with longer ids get `invalid-message`, and no receipt.
pub const MAX_MESSAGE_ID_BYTES: usize = 64;

/// Maximum length of announced `data`, in bytes of JSON. Longer data gets `data-too-large`.
///
/// Each hub stores an announcement once, while its peer is in the network. [`DEFAULT_ANNOUNCE_BUDGET_BYTES`] bounds the
/// sum of all announcements of a hub's peers.
pub const MAX_ANNOUNCE_DATA_BYTES: usize = 16 * 1024;

/// Maximum nesting of announced `data`, in levels. Deeper data gets `invalid-message`.
///
/// The bound protects the parsers of members, which receive announcements that they did not request.
pub const MAX_ANNOUNCE_DEPTH: usize = 64;

/// Maximum nesting of a signal's `data`, in levels. Deeper data gets `invalid-message`.
///
/// A recursive parser of the target can fail on deeper data. Python's JSON parser fails at about 1,000 levels. Offers
/// have two levels. Hubs of version 2.0.0 relay deeper signals to this hub, where these signals get the outcome
/// `invalid-message`.
pub const MAX_SIGNAL_DEPTH: usize = 512;

/// Maximum length of `inReplyTo`, which repeats the `type` of the client's message, in bytes. Longer types are
/// truncated.
pub const MAX_ECHOED_TYPE_BYTES: usize = 64;

/// Default of MAX_MESSAGE_BYTES, the maximum length of a client's message, in bytes, all fragments together. A longer
/// message gets `message-too-large`, and then its session is closed with 1009.
///
/// Offers have 7 KB in practice. With 1 MiB, applications can also send other data in signals.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// Maximum value of the setting MAX_MESSAGE_BYTES, in bytes.
pub const LARGEST_MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
