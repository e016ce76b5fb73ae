//! A TLS connection with its socket, for tokio.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use proto::limits::TLS_STREAM_READ_BYTES;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::connection::{Connection, Received};

/// A socket with TLS.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    tls: Box<Connection>,
    /// Unread plaintext: less than [`TLS_STREAM_READ_BYTES`] plus one record.
    plain: Vec<u8>,
    /// Number of bytes of `plain` that have been read.
    read: usize,
}

/// Progress of a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handshake {
    /// The handshake waits for data from the client.
    Waiting,
    /// The handshake is complete.
    Done,
    /// The client has closed the connection.
    Ended,
}

impl Stream {
    /// Combines a connection with its socket. `plain` is unread plaintext.
    pub fn new(tcp: TcpStream, tls: Box<Connection>, plain: Vec<u8>) -> Self {
        Self { tcp, tls, plain, read: 0 }
    }

    /// The socket, the connection and the unread plaintext.
    pub fn into_parts(mut self) -> (TcpStream, Box<Connection>, Vec<u8>) {
        self.plain.drain(..self.read);
        (self.tcp, self.tls, self.plain)
    }

    /// The socket.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The connection.
    pub fn tls(&self) -> &Connection {
        &self.tls
    }

    /// Does one step of a handshake: reads once, without waiting, and answers. A ClientHello takes about 100 us of CPU
    /// time.
    ///
    /// # Errors
    ///
    /// Returns errors of the socket, and a [`Fault`](crate::Fault) after the alert for it has been written, as far as
    /// the socket accepts it.
    pub fn shake_hands(&mut self) -> io::Result<Handshake> {
        let Self { tcp, tls, plain, .. } = self;
        let received = tls.receive(TLS_STREAM_READ_BYTES, plain, |buffer| match tcp.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            read => Poll::Ready(read),
        });
        tls.flush(|bytes| tcp.try_write(bytes))?;
        match received {
            Poll::Ready(Ok(Received::End)) => Ok(Handshake::Ended),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(Received::More)) | Poll::Pending if tls.is_handshaking() => Ok(Handshake::Waiting),
            Poll::Ready(Ok(Received::More)) | Poll::Pending => Ok(Handshake::Done),
        }
    }

    /// Writes pending data, as far as the socket accepts it now.
    ///
    /// # Errors
    ///
    /// Returns errors of the socket.
    pub fn flush_pending(&mut self) -> io::Result<()> {
        let Self { tcp, tls, .. } = self;
        tls.flush(|bytes| tcp.try_write(bytes)).map(drop)
    }

    /// Writes pending data.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { tcp, tls, .. } = self;
        while tls.has_pending() {
            if tls.flush(|bytes| tcp.try_write(bytes))? == 0 {
                ready!(tcp.poll_write_ready(cx))?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Sends messages of TLS itself, even if the caller writes nothing.
        if let Poll::Ready(written) = self.poll_pending(cx) {
            written?;
        }
        let Self { tcp, tls, plain, read } = &mut *self;
        while *read == plain.len() {
            plain.clear();
            *read = 0;
            let received = tls.receive(TLS_STREAM_READ_BYTES, plain, |buffer| {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(&mut *tcp).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            });
            if tls.has_pending() {
                _ = tls.flush(|bytes| tcp.try_write(bytes));
            }
            let ended = match received {
                Poll::Ready(received) => received? == Received::End,
                Poll::Pending => {
                    // A connection that waits for its client must keep no buffer.
                    *plain = Vec::new();
                    return Poll::Pending;
                }
            };
            if ended && plain.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        let n = into.remaining().min(plain.len() - *read);
        into.put_slice(&plain[*read..*read + n]);
        *read += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, plain: &[u8]) -> Poll<io::Result<usize>> {
        let Self { tcp, tls, .. } = &mut *self;
        loop {
            match tls.send(plain, |bytes| tcp.try_write(bytes)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(tcp.poll_write_ready(cx))?,
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_pending(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tls.queue_close();
        ready!(self.poll_pending(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
