//! The server's side of TLS: connections that keep no buffer while nothing is under way, certificates that can be
//! replaced while they serve, and tickets that every shard accepts.
//!
//! [`Connection`] is the state of one connection, without a socket: callers read and write for it. [`Stream`] is a
//! connection with tokio's socket, for code that wants [`AsyncRead`](tokio::io::AsyncRead) and
//! [`AsyncWrite`](tokio::io::AsyncWrite). A connection is `Send`: it moves to another runtime as (socket,
//! connection, plaintext that was decrypted and not read), see [`Stream::into_parts`].
//!
//! rustls' unbuffered API appears in `connection.rs` alone, since later versions of rustls replace it.

mod certificates;
mod connection;
mod stream;
#[cfg(test)]
mod tests;
mod tickets;

pub use certificates::{Acceptor, CertificateFacts, Certificates, FileRole, FileStamps, LoadError, PairFiles};
pub use connection::{Connection, Fault, Received};
pub use stream::{Handshake, Stream};
