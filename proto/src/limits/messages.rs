//! Bounds of the length and nesting of messages from clients.

#[allow(unused_imports, reason = "links in doc comments")]
use super::*;

/// Maximum length of a network name, in bytes. Longer names get `invalid-message`.
pub const MAX_NETWORK_NAME_BYTES: usize = 256;

/// Maximum length of a signal's `id`, in bytes. Signals with longer ids get `invalid-message`, and no receipt.
pub const MAX_MESSAGE_ID_BYTES: usize = 64;

/// Maximum length of announced `data`, in bytes of JSON. Longer data gets `data-too-large`.
///
/// An announcement is stored once per hub while its peer is in the network. [`DEFAULT_ANNOUNCE_BUDGET_BYTES`] bounds
/// their sum.
pub const MAX_ANNOUNCE_DATA_BYTES: usize = 16 * 1024;

/// Maximum nesting of announced `data`, in levels. Deeper data gets `invalid-message`.
///
/// Members receive announcements that they did not request, so this protects their parsers.
pub const MAX_ANNOUNCE_DEPTH: usize = 64;

/// Maximum nesting of a signal's `data`, in levels. Deeper data gets `invalid-message`.
///
/// A deeper signal would make a recursive parser of the target fail on the whole message: Python's at about 1,000
/// levels. Offers have two levels. A deeper signal that another hub has relayed, as hubs of version 2.0.0 do, has the
/// outcome `invalid-message`.
pub const MAX_SIGNAL_DEPTH: usize = 512;

/// Maximum length of a client's `type` in `inReplyTo`, in bytes. Longer types are truncated.
pub const MAX_ECHOED_TYPE_BYTES: usize = 64;

/// Default of MAX_MESSAGE_BYTES: maximum length of a client's message, in bytes, all fragments together. Longer
/// messages get `message-too-large`, then close 1009.
///
/// Offers have 7 KB in practice. 1 MiB leaves room for applications that send more than signals.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// Maximum of the setting MAX_MESSAGE_BYTES.
pub const LARGEST_MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
