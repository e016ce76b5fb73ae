//! Encodes outgoing messages as bytes ready for the socket.
//!
//! The keys of a message have the order `type, data, fromPeerId, targetPeerId, networkName, timestamp`, as in messages
//! of the Go hub.

mod frame;
mod json;
mod kind;
mod legacy;
mod template;

pub(crate) use frame::{
    ErrorReport, ReceiptReport, Welcome, announced, connected, discovered, error, go_away, ice_servers, pong, receipt,
    signal, token_state,
};
pub(crate) use json::put_string;
pub use kind::{MessageKind, SignalKind};
pub(crate) use legacy::{legacy_announce, legacy_connected, legacy_discovered};
pub use template::Template;
pub(crate) use template::{goodbye, peer_disconnected, peer_discovered};

/// The subprotocol of clients (RFC 6455 section 1.9). A browser does not show a page why an upgrade was refused. So if
/// a refused client offers this subprotocol, the hub sends a close frame instead of an HTTP status. The exceptions are
/// refusals that only a wrong URL or a wrong program can cause.
pub const CLIENT_SUBPROTOCOL: &str = "peerpigeon";

#[cfg(test)]
mod tests;
