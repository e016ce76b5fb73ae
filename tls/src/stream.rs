//! A connection with its socket, for tokio.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use proto::limits::TLS_STREAM_READ_BYTES;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::connection::{Connection, Received};

/// A socket that speaks TLS.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    tls: Box<Connection>,
    /// Plaintext that was decrypted and has not been read: less than [`TLS_STREAM_READ_BYTES`] and one record.
    plain: Vec<u8>,
    /// How many bytes of `plain` have been read.
    read: usize,
}

/// How far a handshake has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handshake {
    /// It waits for the client.
    Waiting,
    /// It is over, and data may go both ways.
    Done,
    /// The client has ended the connection.
    Ended,
}

impl Stream {
    /// Puts a connection and its socket together. `plain`: plaintext that was decrypted and has not been read.
    pub fn new(tcp: TcpStream, tls: Box<Connection>, plain: Vec<u8>) -> Self {
        Self { tcp, tls, plain, read: 0 }
    }

    /// The socket, the connection, and the plaintext that was decrypted and has not been read.
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

    /// Reads once, without waiting, and answers what arrived. This is where a handshake costs its CPU: about 100 us for a
    /// ClientHello.
    ///
    /// # Errors
    ///
    /// Those of the socket, and a [`Fault`](crate::Fault), after the client has been sent its alert.
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

    /// Writes what is pending as far as the socket takes it now.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub fn flush_pending(&mut self) -> io::Result<()> {
        let Self { tcp, tls, .. } = self;
        tls.flush(|bytes| tcp.try_write(bytes)).map(drop)
    }

    /// Writes what is pending.
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
        // What TLS itself has to say goes out even if nobody writes.
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
                    // A connection that waits for its client keeps no buffer.
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
