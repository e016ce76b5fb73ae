//! Sockets with or without TLS. This module has a type for reading requests, a type for moving a socket to another
//! runtime, and a type for writing the frames of a session.

use std::io::{self, Write};
use std::net::TcpStream as StdStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

/// The first byte of a TLS connection, which is the type of a record with a handshake message.
pub(crate) const TLS_HANDSHAKE: u8 = 0x16;

/// A socket that is being moved to another runtime, with the state of its TLS.
#[derive(Debug)]
pub struct Socket {
    /// The TCP connection, in non-blocking mode.
    pub stream: StdStream,
    /// The state of TLS, if the connection uses TLS.
    pub tls: Option<Box<tls::Connection>>,
}

impl Socket {
    /// Writes a few bytes if the socket's buffer has room for them, and then ends the connection's TLS.
    pub(crate) fn say_last(&mut self, bytes: &[u8]) {
        let mut stream = &self.stream;
        match &mut self.tls {
            None => _ = stream.write(bytes),
            Some(tls) => {
                _ = tls.send(bytes, |record| stream.write(record));
                tls.close(|record| stream.write(record));
            }
        }
    }
}

/// A socket over which requests arrive.
#[derive(Debug)]
pub(crate) enum RequestSocket {
    /// A socket without TLS. After the first byte of the connection has been read, the second value contains this byte.
    Plain(TcpStream, Option<u8>),
    /// A socket with TLS.
    Tls(Box<tls::Stream>),
}

impl RequestSocket {
    pub(crate) fn plain(stream: TcpStream) -> Self {
        Self::Plain(stream, None)
    }

    /// Whether a client uses TLS at a port without TLS.
    pub(crate) fn is_met_by_tls(&self) -> bool {
        matches!(self, Self::Plain(_, Some(TLS_HANDSHAKE)))
    }

    /// Whether the client has proven that it has a client certificate of an authority that this hub accepts.
    pub(crate) fn is_certified(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.tls().is_certified())
    }

    /// Notifies a TLS client that no more data follows.
    pub(crate) fn close(self) {
        if let Self::Tls(stream) = self {
            let (tcp, mut tls, _) = stream.into_parts();
            tls.close(|bytes| tcp.try_write(bytes));
        }
    }

    /// Returns the socket for another runtime, and the received plaintext: `read`, and the bytes that followed it.
    pub(crate) fn leave(self, read: Bytes) -> io::Result<(Socket, Bytes)> {
        match self {
            Self::Plain(stream, _) => Ok((Socket { stream: stream.into_std()?, tls: None }, read)),
            Self::Tls(stream) => {
                let (tcp, tls, unread) = stream.into_parts();
                let all = if unread.is_empty() { read } else { [&read[..], &unread].concat().into() };
                Ok((Socket { stream: tcp.into_std()?, tls: Some(tls) }, all))
            }
        }
    }
}

impl AsyncRead for RequestSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, first) => {
                let before = into.filled().len();
                let polled = Pin::new(stream).poll_read(cx, into);
                if first.is_none() {
                    *first = into.filled().get(before).copied();
                }
                polled
            }
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for RequestSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self, Self::Plain(..))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// The writing half of a session's socket, and the state of its TLS.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) tcp: OwnedWriteHalf,
    pub(crate) tls: Option<Box<tls::Connection>>,
}

impl Writer {
    /// Writes a prefix of `bytes`. Returns the length of the prefix. The caller must not write these bytes again.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let tcp = &self.tcp;
        match &mut self.tls {
            None => tcp.try_write(bytes),
            Some(tls) => tls.send(bytes, |record| tcp.try_write(record)),
        }
    }

    /// Whether encrypted bytes are queued for the socket.
    pub(crate) fn has_pending(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.has_pending())
    }

    /// Writes queued encrypted bytes. Returns the number of bytes that the socket accepted.
    pub(crate) fn flush(&mut self) -> io::Result<usize> {
        let tcp = &self.tcp;
        self.tls.as_mut().map_or(Ok(0), |tls| tls.flush(|bytes| tcp.try_write(bytes)))
    }

    /// Drops pending encrypted bytes of a socket that accepts no more data.
    pub(crate) fn drop_pending(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.drop_pending();
        }
    }

    /// Notifies a TLS client that no more data follows.
    pub(crate) fn close(&mut self) {
        let tcp = &self.tcp;
        if let Some(tls) = &mut self.tls {
            tls.close(|bytes| tcp.try_write(bytes));
        }
    }
}
