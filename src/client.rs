//! A WebSocket client for the command-line tools.
//!
//! One connection has one [`Receiver`] and any number of [`MessageSender`]s. One task reads the receiver without
//! cancellation, because a dropped half-read frame would desynchronize the stream. Senders never wait, because one
//! writer task writes all queued frames at once. The receiver and the senders live on one thread, inside a
//! [`tokio::task::LocalSet`].

mod connection;
mod dial;
#[cfg(test)]
mod tests;
mod url;

pub use connection::{Ended, MessageSender, Receiver, SendError};
pub use dial::Endpoint;
pub use mesh::ConnectError;
pub use url::{HubUrl, HubUrlError};
