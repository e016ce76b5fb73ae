//! A WebSocket client for the command-line tools.
//!
//! One connection has one [`Receiver`] and any number of [`MessageSender`]s. One task reads from the receiver and never
//! cancels a read. A cancelled read could lose the first half of a frame, and the following bytes would be misread.
//! Senders queue frames and never wait. One task writes all queued frames at once. The receiver and its senders stay on
//! one thread, inside a [`tokio::task::LocalSet`].

mod connection;
mod dial;
#[cfg(test)]
mod tests;
mod url;

pub use connection::{Ended, MessageSender, Receiver, SendError};
pub use dial::Endpoint;
pub use mesh::ConnectError;
pub use url::{HubUrl, HubUrlError};
