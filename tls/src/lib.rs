//! The server's side of TLS: connections without buffers while idle, certificates that can be replaced at any time, and
//! tickets that every shard accepts. The crate also has the client certificates by which hubs recognize each other, and
//! the error texts of TLS.
//!
//! [`Connection`] is the TLS state of one connection without its socket: callers do the I/O. [`Stream`] is a connection
//! with tokio's socket, for code that needs [`AsyncRead`](tokio::io::AsyncRead) and
//! [`AsyncWrite`](tokio::io::AsyncWrite). A connection is `Send`. To move to another runtime, [`Stream::into_parts`]
//! splits a stream into socket, connection and unread plaintext.
//!
//! Only `connection.rs` uses rustls' unbuffered API, since later versions of rustls replace it.

mod certificates;
mod clients;
mod connection;
mod explain;
mod stream;
#[cfg(test)]
mod tests;
mod tickets;

pub use certificates::{
    Acceptor, CertificateFacts, CertificateId, Certificates, FileRole, FileStamps, LoadError, OwnKey, PairFiles,
};
pub use clients::{ClientAuthorities, ClientCertificate};
pub use connection::{Connection, Fault, Received};
pub use explain::{Explained, Presenter, explain_certificate};
pub use stream::{Handshake, Stream};
