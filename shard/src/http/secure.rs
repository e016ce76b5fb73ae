//! TLS handshakes at ports that speak TLS, and the answer to clients without TLS.

use std::cell::Cell;
use std::io;
use std::time::Instant;

use proto::limits::{TLS_HANDSHAKE_TIMEOUT, TLS_REFUSAL_LINGER, TLS_TURNS};
use tls::{Acceptor, Fault, Handshake, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::entrance::Entrance;
use crate::socket::TLS_HANDSHAKE;
use crate::stats::HandshakeFailure;

/// The answer to a request without TLS.
const SPEAK_TLS: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 51\r\n\
                         Connection: close\r\n\r\nthis port speaks TLS: ask with https:// or wss://\r\n";

/// The handshakes of a shard.
pub(crate) struct Handshakes {
    acceptor: Acceptor,
    /// Allows one step of a handshake at a time. A step takes about 100 us of CPU, and all other work of the shard has
    /// its turn between two steps.
    turn: Semaphore,
    waiting: Cell<usize>,
}

/// Why no TLS connection was made.
pub(super) struct NoTls {
    /// `None` if the client left before it had sent anything, or if the connection was the challenge of a certificate
    /// authority.
    pub(super) failure: Option<HandshakeFailure>,
    pub(super) detail: String,
}

impl NoTls {
    fn new(failure: HandshakeFailure, detail: impl Into<String>) -> Self {
        Self { failure: Some(failure), detail: detail.into() }
    }

    /// The failure of a client that speaks TLS at a port without TLS.
    pub(super) fn at_plain_port(port: u16) -> Self {
        let detail = format!(
            "a client uses TLS at port {port}, which has no TLS: set TLS_CERT, TLS_KEY and TLS_PORTS to use TLS \
             there, or use http:// and ws:// in the client"
        );
        Self::new(HandshakeFailure::TlsAtPlainPort, detail)
    }

    fn gone() -> Self {
        Self { failure: None, detail: String::new() }
    }
}

impl From<io::Error> for NoTls {
    fn from(error: io::Error) -> Self {
        let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>());
        let failure = match fault {
            Some(Fault::ClientCertificate(_)) => HandshakeFailure::LinkCertificate,
            Some(Fault::Refused(_)) => HandshakeFailure::TlsRefused,
            Some(Fault::NothingInCommon(_)) => HandshakeFailure::TlsNothingInCommon,
            Some(Fault::NotTls | Fault::Violation(_)) | None => HandshakeFailure::TlsHandshake,
        };
        Self::new(failure, error.to_string())
    }
}

impl Handshakes {
    pub(crate) fn new(acceptor: Acceptor) -> Self {
        Self { acceptor, turn: Semaphore::new(1), waiting: Cell::new(0) }
    }

    /// Does the handshake with a client whose connection was accepted at `since`. Clients are asked for a certificate
    /// only at MESH_PORT, because browsers would ask their users to choose one.
    pub(super) async fn shake_hands(
        &self,
        entrance: Entrance,
        tcp: TcpStream,
        since: Instant,
    ) -> Result<Stream, NoTls> {
        let deadline = tokio::time::Instant::from_std(since + TLS_HANDSHAKE_TIMEOUT);
        let mut first = [0];
        // `peek` needs no buffer for TLS, so a connection without data costs little memory.
        match tokio::time::timeout_at(deadline, tcp.peek(&mut first)).await {
            Err(_) => return Err(NoTls::new(HandshakeFailure::BadRequest, "nothing arrived")),
            Ok(Err(_) | Ok(0)) => return Err(NoTls::gone()),
            Ok(Ok(_)) => {}
        }
        if first != [TLS_HANDSHAKE] {
            let is_http = first[0].is_ascii_alphabetic();
            leave(tcp, if is_http { SPEAK_TLS.as_bytes() } else { &[] }).await;
            let failure = if is_http { HandshakeFailure::HttpAtTlsPort } else { HandshakeFailure::TlsHandshake };
            return Err(NoTls::new(failure, "the received data is not TLS"));
        }
        let tls = match entrance {
            Entrance::Hubs => self.acceptor.link_connection()?,
            Entrance::Admin | Entrance::Both | Entrance::Peers | Entrance::Redirect => self.acceptor.connection()?,
        };
        let mut stream = Stream::new(tcp, Box::new(tls), Vec::new());
        let done = tokio::time::timeout_at(deadline, self.take_steps(&mut stream)).await;
        match done.unwrap_or_else(|_| Err(NoTls::new(HandshakeFailure::TlsTimeout, "the handshake took too long"))) {
            Ok(()) if stream.tls().is_challenge() => {
                leave(stream.into_parts().0, &[]).await;
                Err(NoTls::gone())
            }
            Ok(()) => Ok(stream),
            Err(no) => {
                // TLS may have sent an alert with the reason. `leave` gives the client time to read the alert before
                // the connection is reset.
                leave(stream.into_parts().0, &[]).await;
                Err(no)
            }
        }
    }

    async fn take_steps(&self, stream: &mut Stream) -> Result<(), NoTls> {
        loop {
            stream.tcp().readable().await?;
            match self.step(stream).await? {
                Handshake::Done => return Ok(()),
                Handshake::Ended => {
                    return Err(NoTls::new(HandshakeFailure::TlsHandshake, "the client ended the handshake"));
                }
                Handshake::Waiting => {}
            }
            while stream.tls().has_pending() {
                stream.tcp().writable().await?;
                stream.flush_pending()?;
            }
        }
    }

    /// Waits for a turn, and does one step of a handshake.
    async fn step(&self, stream: &mut Stream) -> Result<Handshake, NoTls> {
        let Some(_waits) = Waiting::among(&self.waiting) else {
            return Err(NoTls::new(HandshakeFailure::TlsBusy, "too many handshakes wait for their turn"));
        };
        let _turn = self.turn.acquire().await.map_err(io::Error::other)?;
        let step = stream.shake_hands();
        // The next step follows after all other ready tasks have run and sockets have been polled.
        tokio::task::yield_now().await;
        Ok(step?)
    }
}

/// One of [`TLS_TURNS`] places for handshakes that wait for their turn.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn among(waiting: &'a Cell<usize>) -> Option<Self> {
        (waiting.get() < TLS_TURNS).then(|| {
            waiting.update(|n| n + 1);
            Self(waiting)
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.update(|n| n - 1);
    }
}

/// Writes a last message and waits briefly for the client to end the connection. Closing a socket with unread data
/// resets the connection, and the client might never read the message.
async fn leave(mut tcp: TcpStream, word: &[u8]) {
    _ = timeout(TLS_REFUSAL_LINGER, async {
        let mut unread = [0; 1024];
        if tcp.try_write(word).is_err() || tcp.shutdown().await.is_err() {
            return;
        }
        while tcp.read(&mut unread).await.is_ok_and(|n| n > 0) {}
    })
    .await;
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn the_answer_to_http_has_its_declared_length() {
        let (head, body) = SPEAK_TLS.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }

    pub(in crate::http) fn acceptor() -> Acceptor {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let place = std::env::temp_dir().join(format!("peerpigeon-secure-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let files = tls::PairFiles { certificate: place.join("crt"), key: place.join("key") };
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        let certificates = tls::Certificates::load(&[files]).unwrap();
        std::fs::remove_dir_all(&place).unwrap();
        Acceptor::new(std::sync::Arc::new(certificates), None).unwrap()
    }

    /// A ClientHello for TLS 1.3, with X25519, and without a server name.
    pub(in crate::http) fn hello() -> Vec<u8> {
        let mut extensions = Vec::new();
        let mut extension = |kind: u16, body: &[u8]| {
            extensions.extend(kind.to_be_bytes());
            extensions.extend((body.len() as u16).to_be_bytes());
            extensions.extend(body);
        };
        // The extensions are groups, signature schemes, versions and a key share.
        extension(10, &[0, 2, 0, 0x1d]);
        extension(13, &[0, 2, 4, 3]);
        extension(43, &[2, 3, 4]);
        extension(51, &[&[0, 36, 0, 0x1d, 0, 32][..], &[9; 32]].concat());
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut hello = vec![0x16, 3, 1];
        hello.extend((body.len() as u16 + 4).to_be_bytes());
        hello.extend([1, 0]);
        hello.extend((body.len() as u16).to_be_bytes());
        hello.extend(body);
        hello
    }

    /// Between two steps, all ready tasks run, and sockets are polled.
    #[test]
    fn handshakes_take_their_steps_one_by_one() {
        const CROWD: usize = 20;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
        let (handshakes, turns) = (Handshakes::new(acceptor()), std::rc::Rc::new(Cell::new(0)));
        let handshakes = std::rc::Rc::new(handshakes);
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (mut crowd, mut servers) = (Vec::new(), Vec::new());
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..CROWD {
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                client.write_all(&hello()).await.unwrap();
                let (server, _) = listener.accept().await.unwrap();
                server.readable().await.unwrap();
                crowd.push(client);
                servers.push(server);
            }
            // All handshakes are ready at the same moment.
            for server in servers {
                let handshakes = std::rc::Rc::clone(&handshakes);
                tasks.spawn_local(async move {
                    handshakes.shake_hands(Entrance::Both, server, Instant::now()).await.is_ok()
                });
            }
            let others = std::rc::Rc::clone(&turns);
            tasks.spawn_local(async move {
                loop {
                    others.set(others.get() + 1);
                    tokio::task::yield_now().await;
                }
            });
            for client in &mut crowd {
                let mut answer = [0; 3];
                client.read_exact(&mut answer).await.unwrap();
                assert_eq!(answer, [0x16, 3, 3], "a ServerHello");
            }
            assert!(turns.get() >= CROWD, "the other task had only {} turns", turns.get());
        });
    }

    #[test]
    fn the_number_of_waiting_handshakes_is_bounded() {
        let waiting = Cell::new(0);
        let mut places: Vec<_> = (0..TLS_TURNS).map(|_| Waiting::among(&waiting).unwrap()).collect();
        assert!(Waiting::among(&waiting).is_none());
        places.pop();
        assert!(Waiting::among(&waiting).is_some());
    }
}
