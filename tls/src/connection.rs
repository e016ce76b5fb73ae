//! One connection: ciphertext in, plaintext out, and the other way round.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use proto::limits::{READ_BUFFER_BYTES, TLS_PENDING_BYTES, TLS_RECORD_BYTES, TLS_WRITE_BYTES};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{AlertDescription, Error, HandshakeKind, InvalidMessage, ServerConfig};

thread_local! {
    /// Where records are received and decrypted. One buffer serves all connections of a thread.
    static INCOMING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// Where records are encrypted.
    static OUTGOING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The TLS state of one connection, without its socket.
///
/// Between two calls it keeps the beginning of a record that has not arrived whole (at most [`TLS_RECORD_BYTES`]) and
/// what the socket has not taken (at most [`TLS_WRITE_BYTES`] of plaintext, encrypted). An idle connection keeps
/// neither.
pub struct Connection {
    tls: UnbufferedServerConnection,
    /// Ciphertext that was not consumed. rustls may have decrypted parts of it in place.
    incoming: Vec<u8>,
    /// Ciphertext for the socket.
    outgoing: Vec<u8>,
    /// How many bytes of `outgoing` the socket has taken.
    written: usize,
    /// The client has sent close_notify: nothing follows.
    has_ended: bool,
    /// An error has ended it: nothing is read or encrypted any more.
    has_failed: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("incoming", &self.incoming.len())
            .field("outgoing", &(self.outgoing.len() - self.written))
            .field("has_ended", &self.has_ended)
            .field("has_failed", &self.has_failed)
            .finish_non_exhaustive()
    }
}

/// What one read came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// The connection goes on. The plaintext may be empty: a record may be incomplete, or have no data.
    More,
    /// The client sends nothing more: close_notify, or the end of its stream.
    End,
}

/// Why a connection failed, as far as operators can do something about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// What arrived is not TLS.
    NotTls,
    /// The client refused to go on, with this alert. `unknown_ca` and `bad_certificate` are about our certificate.
    Refused(AlertDescription),
    /// The client and this hub have no version, cipher suite, key exchange or protocol (ALPN) in common.
    NothingInCommon(String),
    /// Any other violation of the protocol.
    Violation(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTls => f.write_str("what arrived is not TLS"),
            Self::Refused(alert) => write!(f, "the client refused to go on: {alert:?}"),
            Self::NothingInCommon(detail) | Self::Violation(detail) => f.write_str(detail),
        }
    }
}

impl std::error::Error for Fault {}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        // The list of errors grows with versions of rustls, and only some of them are of interest here.
        #[allow(clippy::wildcard_enum_match_arm, reason = "non-exhaustive")]
        match error {
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            Error::AlertReceived(alert) => Self::Refused(alert),
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::NothingInCommon(error.to_string()),
            _ => Self::Violation(error.to_string()),
        }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(io::ErrorKind::InvalidData, fault)
    }
}

impl Connection {
    /// A connection of which nothing has arrived.
    ///
    /// # Errors
    ///
    /// When rustls refuses its configuration.
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self {
            tls: UnbufferedServerConnection::new(config)?,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            written: 0,
            has_ended: false,
            has_failed: false,
        })
    }

    /// Whether the handshake is still going on.
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Whether the handshake resumed an earlier session by a ticket.
    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Whether ciphertext waits for the socket.
    pub fn has_pending(&self) -> bool {
        self.written < self.outgoing.len()
    }

    /// Bytes of a record that has not arrived whole, and bytes of ciphertext for the socket.
    pub fn waiting(&self) -> (usize, usize) {
        (self.incoming.len(), self.outgoing.len() - self.written)
    }

    /// Bytes that are kept between two calls.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.incoming.capacity() + self.outgoing.capacity()
    }

    /// Drops ciphertext that waits for a socket which takes nothing any more.
    pub fn drop_pending(&mut self) {
        (self.outgoing, self.written) = (Vec::new(), 0);
    }

    /// Reads once, up to `most` bytes, and appends what could be decrypted to `plain`. That is less than `most` and one
    /// record. An answer of TLS itself may be pending afterwards ([`Self::flush`]).
    ///
    /// # Errors
    ///
    /// Those of `read`, and a [`Fault`] when the client breaks the protocol. The alert that tells the client is pending then.
    pub fn receive(
        &mut self,
        most: usize,
        plain: &mut Vec<u8>,
        read: impl FnOnce(&mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<Received>> {
        if self.has_ended || self.has_failed {
            return Poll::Ready(Ok(Received::End));
        }
        let mut buffer = INCOMING.take();
        if buffer.is_empty() {
            buffer = vec![0; READ_BUFFER_BYTES + TLS_RECORD_BYTES];
        }
        let kept = self.incoming.len();
        let end = buffer.len().min(kept + most);
        let polled = read(&mut buffer[kept..end]);
        let received = match polled {
            Poll::Ready(Ok(0)) => Poll::Ready(Ok(Received::End)),
            Poll::Ready(Ok(n)) => {
                // Only now: a read that brings nothing leaves the beginning of a record where it is.
                buffer[..kept].copy_from_slice(&self.incoming);
                Poll::Ready(self.take_in(&mut buffer[..kept + n], plain))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        INCOMING.set(buffer);
        received
    }

    fn take_in(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> io::Result<Received> {
        match self.process(bytes, plain) {
            Ok(consumed) => {
                self.keep(&bytes[consumed..])?;
                Ok(if self.has_ended { Received::End } else { Received::More })
            }
            Err(fault) => {
                self.has_failed = true;
                self.incoming = Vec::new();
                Err(fault.into())
            }
        }
    }

    /// Keeps the beginning of a record until the rest of it arrives.
    fn keep(&mut self, rest: &[u8]) -> io::Result<()> {
        if rest.is_empty() || self.has_ended {
            self.incoming = Vec::new();
            return Ok(());
        }
        if rest.len() > TLS_RECORD_BYTES {
            // No record is so long: it is a message of a handshake in many pieces.
            self.has_failed = true;
            self.incoming = Vec::new();
            return Err(Fault::Violation("a handshake message is too long".to_owned()).into());
        }
        self.incoming.clear();
        self.incoming.reserve_exact(rest.len());
        self.incoming.extend_from_slice(rest);
        Ok(())
    }

    /// Has rustls process what is there. Returns how many bytes were consumed.
    fn process(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> Result<usize, Fault> {
        let mut consumed = 0;
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.tls.process_tls_records(&mut bytes[consumed..]);
            let mut done = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.outgoing)?,
                // Nothing that comes later overtakes it: what is sent goes behind what is pending.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => done = true,
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.has_ended = true;
                    done = true;
                }
                Ok(_) => return Err(Fault::Violation("early data was sent, which is not taken".to_owned())),
                Err(error) => {
                    self.encode_alert();
                    return Err(error.into());
                }
            }
            consumed += discard;
            if self.outgoing.len() - self.written > TLS_PENDING_BYTES {
                return Err(Fault::Violation("the client does not read what its handshake asks for".to_owned()));
            }
            if done {
                return Ok(consumed);
            }
        }
    }

    /// Moves pending data for the client out of rustls: after most errors an alert, and data queued before it.
    fn encode_alert(&mut self) {
        // While there is any, rustls processes no more bytes: the remaining ones would be a second error.
        while self.tls.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(mut data)) = self.tls.process_tls_records(&mut []).state else {
                return;
            };
            if encode(&mut data, &mut self.outgoing).is_err() {
                return;
            }
        }
    }

    /// Encrypts a beginning of `plain`, at most [`TLS_WRITE_BYTES`], and writes it. Returns how many bytes of `plain` were
    /// encrypted. What the socket does not take of them becomes pending.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if earlier ciphertext is still pending. Errors of `write`. A [`Fault`] if the connection has
    /// failed, or has used its keys for the maximum time (TLS 1.2).
    pub fn send(&mut self, plain: &[u8], mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        while self.has_pending() {
            if self.flush(&mut write)? == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        let plain = &plain[..plain.len().min(TLS_WRITE_BYTES)];
        let mut records = OUTGOING.take();
        let sent = self.encrypt(plain, &mut records).map_err(io::Error::from).and_then(|n| {
            // Something of TLS itself may have come to be pending. It goes first.
            let written = match self.has_pending() {
                true => 0,
                false => match write(&records[..n]) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    written => written?,
                },
            };
            self.outgoing.extend_from_slice(&records[written..n]);
            Ok(plain.len())
        });
        OUTGOING.set(records);
        sent
    }

    /// Encrypts into the beginning of `records`. Returns how many bytes that takes.
    fn encrypt(&mut self, plain: &[u8], records: &mut Vec<u8>) -> Result<usize, Fault> {
        if records.is_empty() {
            // A KeyUpdate may go in front.
            records.resize(TLS_WRITE_BYTES + TLS_RECORD_BYTES, 0);
        }
        self.when_writable(|traffic| {
            let mut encrypted = traffic.encrypt(plain, records);
            if let Err(EncryptError::InsufficientSize(needed)) = &encrypted {
                records.resize(needed.required_size, 0);
                encrypted = traffic.encrypt(plain, records);
            }
            encrypted.map_err(|error| Fault::Violation(error.to_string()))
        })
    }

    /// Calls `write` in the state in which rustls encrypts.
    fn when_writable<T>(
        &mut self,
        write: impl FnOnce(
            &mut rustls::unbuffered::WriteTraffic<'_, rustls::server::ServerConnectionData>,
        ) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if self.has_failed {
            return Err(Fault::Violation("the connection has failed".to_owned()));
        }
        // With what is kept, not without: rustls remembers where in it pieces of a handshake message are.
        let mut incoming = std::mem::take(&mut self.incoming);
        let mut consumed = 0;
        let result = loop {
            let UnbufferedStatus { discard, state, .. } = self.tls.process_tls_records(&mut incoming[consumed..]);
            consumed += discard;
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => break write(&mut traffic),
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.outgoing)?,
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(state) => break Err(Fault::Violation(format!("nothing can be sent now: {state:?}"))),
                Err(error) => break Err(error.into()),
            }
        };
        if consumed < incoming.len() {
            incoming.drain(..consumed);
            self.incoming = incoming;
        }
        self.has_failed |= result.is_err();
        result
    }

    /// Writes pending ciphertext once. Returns how many bytes the socket took; 0 when it takes none now, or nothing is pending.
    ///
    /// # Errors
    ///
    /// Those of `write`, without `WouldBlock`.
    pub fn flush(&mut self, write: impl FnOnce(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        if !self.has_pending() {
            return Ok(0);
        }
        let n = match write(&self.outgoing[self.written..]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            written => written?,
        };
        self.written += n;
        if !self.has_pending() {
            self.drop_pending();
        }
        Ok(n)
    }

    /// Tells the client that nothing more follows, as far as the socket takes it now.
    pub fn close(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) {
        self.queue_close();
        while self.has_pending() {
            match self.flush(&mut write) {
                Ok(n) if n > 0 => {}
                // The end of the stream says the same, if less surely.
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Makes close_notify pending, if the handshake is over and it has not been.
    pub(crate) fn queue_close(&mut self) {
        if self.has_failed || self.is_handshaking() {
            return;
        }
        let mut alert = vec![0; 256];
        let queued = self.when_writable(|traffic| {
            let mut queued = traffic.queue_close_notify(&mut alert);
            if let Err(EncryptError::InsufficientSize(needed)) = &queued {
                alert.resize(needed.required_size, 0);
                queued = traffic.queue_close_notify(&mut alert);
            }
            queued.map_err(|error| Fault::Violation(error.to_string()))
        });
        if let Ok(n) = queued {
            self.outgoing.extend_from_slice(&alert[..n]);
        }
    }
}

/// Appends what rustls has for the client.
fn encode<T>(data: &mut rustls::unbuffered::EncodeTlsData<'_, T>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let before = out.len();
    let mut encoded = data.encode(&mut []);
    if let Err(EncodeError::InsufficientSize(needed)) = &encoded {
        out.resize(before + needed.required_size, 0);
        encoded = data.encode(&mut out[before..]);
    }
    match encoded {
        Ok(n) => {
            out.truncate(before + n);
            Ok(())
        }
        Err(error) => {
            out.truncate(before);
            Err(Fault::Violation(error.to_string()))
        }
    }
}
