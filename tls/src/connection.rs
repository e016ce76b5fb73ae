//! The TLS state machine of one connection, which decrypts received bytes and encrypts data to send.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use proto::limits::{READ_BUFFER_BYTES, TLS_PENDING_BYTES, TLS_RECORD_BYTES, TLS_WRITE_BYTES};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{AlertDescription, Error, HandshakeKind, InvalidMessage, ServerConfig};

use crate::certificates::CHALLENGE;
use crate::explain::{Presenter, explain_certificate};

thread_local! {
    /// Input buffer, in which records are received and decrypted. All connections of a thread share it.
    static INCOMING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// Output buffer for encrypted records. All connections of a thread share it.
    static OUTGOING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The TLS state of one connection, without its socket.
///
/// Between two calls, the connection keeps an incomplete record (at most [`TLS_RECORD_BYTES`]) and unwritten ciphertext
/// (of at most [`TLS_WRITE_BYTES`] of plaintext, and [`TLS_PENDING_BYTES`] of the TLS protocol). An idle connection
/// keeps neither.
pub struct Connection {
    tls: UnbufferedServerConnection,
    /// Unconsumed ciphertext. rustls may have decrypted parts of it in place.
    incoming: Vec<u8>,
    /// Ciphertext that is pending for the socket.
    outgoing: Vec<u8>,
    /// Number of bytes of `outgoing` that the socket has accepted.
    written: usize,
    /// Whether the client has sent close_notify, so that no data follows.
    has_ended: bool,
    /// Whether an error has ended the connection. A failed connection reads and encrypts nothing more.
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

/// The result of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// The connection is open. The plaintext may be empty, because a record may be incomplete or contain no data.
    More,
    /// The client will send no more data, because it has sent close_notify or its stream has ended.
    End,
}

/// Why a connection failed. Each variant is a cause that operators must distinguish from the other causes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The received data is not TLS.
    NotTls,
    /// The client ended the handshake with this alert. `unknown_ca` and `bad_certificate` concern the hub's
    /// certificate.
    Refused(AlertDescription),
    /// The certificate of the client is invalid. Contains the reason, and what to do.
    ClientCertificate(String),
    /// The client and the hub have no common version, cipher suite, key exchange or protocol (ALPN).
    NothingInCommon(String),
    /// Any other violation of the protocol.
    Violation(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTls => f.write_str("the received data is not TLS"),
            Self::Refused(alert) => write!(f, "the client ended the handshake: {alert:?}"),
            Self::ClientCertificate(why) => write!(f, "the client certificate {why}"),
            Self::NothingInCommon(detail) | Self::Violation(detail) => f.write_str(detail),
        }
    }
}

impl std::error::Error for Fault {}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        // rustls adds errors in new versions, and only some errors have an explanation here.
        #[allow(clippy::wildcard_enum_match_arm, reason = "non-exhaustive")]
        match error {
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            // A server verifies only the certificates of clients.
            Error::InvalidCertificate(error) => Self::ClientCertificate(explain_certificate(&error, Presenter::Client)),
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
    /// A new connection.
    ///
    /// # Errors
    ///
    /// Fails if rustls refuses the configuration.
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

    /// Whether the handshake is in progress.
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Whether a ticket resumed an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Whether the client has proven in the handshake of this connection that it has a certificate of an authority of
    /// [`Acceptor::with_authorities`](crate::Acceptor::with_authorities). A resumed session proves nothing.
    pub fn is_certified(&self) -> bool {
        let is_shown = self.tls.peer_certificates().is_some_and(|chain| !chain.is_empty());
        is_shown && !self.is_handshaking() && !self.is_resumed()
    }

    /// Whether a certificate authority has verified a name with this connection. Such a connection carries no data.
    pub fn is_challenge(&self) -> bool {
        self.tls.alpn_protocol() == Some(CHALLENGE)
    }

    /// Whether ciphertext is pending for the socket.
    pub fn has_pending(&self) -> bool {
        self.written < self.outgoing.len()
    }

    /// Number of bytes of an incomplete record, and of pending ciphertext.
    pub fn waiting(&self) -> (usize, usize) {
        (self.incoming.len(), self.outgoing.len() - self.written)
    }

    /// Number of bytes kept between two calls.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.incoming.capacity() + self.outgoing.capacity()
    }

    /// Drops pending ciphertext, for a socket that accepts no more data.
    pub fn drop_pending(&mut self) {
        (self.outgoing, self.written) = (Vec::new(), 0);
    }

    /// Reads once, at most `most` bytes, and appends the decrypted data to `plain`. The appended data is shorter than
    /// `most` bytes plus one record. rustls may have produced an answer to the client, which is then pending
    /// ([`Self::flush`]).
    ///
    /// # Errors
    ///
    /// Returns errors of `read`, and a [`Fault`] if the client violates the protocol. After most faults, an alert for
    /// the client is pending.
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
                // The incomplete record is copied only now, so that a read without data leaves it in place.
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

    /// Keeps an incomplete record until its remaining bytes arrive.
    fn keep(&mut self, rest: &[u8]) -> io::Result<()> {
        if rest.is_empty() || self.has_ended {
            self.incoming = Vec::new();
            return Ok(());
        }
        if rest.len() > TLS_RECORD_BYTES {
            // The remaining data is longer than any record, so it is a handshake message in many pieces.
            self.has_failed = true;
            self.incoming = Vec::new();
            return Err(Fault::Violation("a handshake message is too long".to_owned()).into());
        }
        self.incoming.clear();
        self.incoming.reserve_exact(rest.len());
        self.incoming.extend_from_slice(rest);
        Ok(())
    }

    /// Lets rustls process the received bytes. Returns the number of consumed bytes.
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
                // Later data cannot overtake this data, because later data is queued behind pending data.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => done = true,
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.has_ended = true;
                    done = true;
                }
                Ok(_) => return Err(Fault::Violation("early data is not supported".to_owned())),
                Err(error) => {
                    self.encode_alert();
                    return Err(error.into());
                }
            }
            consumed += discard;
            if self.outgoing.len() - self.written > TLS_PENDING_BYTES {
                return Err(Fault::Violation("the client does not read the handshake".to_owned()));
            }
            if done {
                return Ok(consumed);
            }
        }
    }

    /// Takes the data for the client out of rustls after an error: data that was queued before, and in most cases an
    /// alert.
    fn encode_alert(&mut self) {
        // rustls returns data for the client before it processes input. The input is empty, because the remaining bytes
        // would cause a second error.
        while self.tls.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(mut data)) = self.tls.process_tls_records(&mut []).state else {
                return;
            };
            if encode(&mut data, &mut self.outgoing).is_err() {
                return;
            }
        }
    }

    /// Encrypts a prefix of `plain`, at most [`TLS_WRITE_BYTES`], and writes it. Returns the number of encrypted bytes
    /// of `plain`. Ciphertext that the socket does not accept becomes pending.
    ///
    /// # Errors
    ///
    /// Returns `WouldBlock` if earlier ciphertext is still pending, and errors of `write`. Returns a [`Fault`] if the
    /// connection has failed, or has encrypted the maximum number of records with its keys (TLS 1.2).
    pub fn send(&mut self, plain: &[u8], mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        while self.has_pending() {
            if self.flush(&mut write)? == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        let plain = &plain[..plain.len().min(TLS_WRITE_BYTES)];
        let mut records = OUTGOING.take();
        let sent = self.encrypt(plain, &mut records).map_err(io::Error::from).and_then(|n| {
            // Pending data of TLS itself goes first.
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

    /// Encrypts `plain` into `records`, and returns the number of bytes written to `records`.
    fn encrypt(&mut self, plain: &[u8], records: &mut Vec<u8>) -> Result<usize, Fault> {
        if records.is_empty() {
            // A KeyUpdate may precede the data.
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

    /// Calls `write` when rustls is ready to encrypt.
    fn when_writable<T>(
        &mut self,
        write: impl FnOnce(
            &mut rustls::unbuffered::WriteTraffic<'_, rustls::server::ServerConnectionData>,
        ) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if self.has_failed {
            return Err(Fault::Violation("the connection has failed".to_owned()));
        }
        // The input includes the kept bytes, because rustls remembers the positions of handshake pieces in them.
        let mut incoming = std::mem::take(&mut self.incoming);
        let mut consumed = 0;
        let result = loop {
            let UnbufferedStatus { discard, state, .. } = self.tls.process_tls_records(&mut incoming[consumed..]);
            consumed += discard;
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => break write(&mut traffic),
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.outgoing)?,
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(state) => break Err(Fault::Violation(format!("data cannot be sent in this state: {state:?}"))),
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

    /// Writes pending ciphertext once. Returns the number of bytes that the socket accepted; 0 if it accepts none now,
    /// or if nothing is pending.
    ///
    /// # Errors
    ///
    /// Returns errors of `write`, except `WouldBlock`.
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

    /// Sends close_notify, as far as the socket accepts it now.
    pub fn close(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) {
        self.queue_close();
        while self.has_pending() {
            match self.flush(&mut write) {
                Ok(n) if n > 0 => {}
                // If close_notify cannot be sent, the client sees only the end of the stream.
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Queues close_notify if the handshake is complete and close_notify is not queued yet.
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

/// Appends the data that rustls has for the client.
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
