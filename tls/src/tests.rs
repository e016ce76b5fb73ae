//! Tests of a [`Connection`] with a rustls client, in memory.

mod certificates;

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use proto::limits::{READ_BUFFER_BYTES, TLS_RECORD_BYTES, TLS_WRITE_BYTES};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, ProtocolVersion, RootCertStore,
    SignatureScheme, SupportedProtocolVersion,
};

use crate::{
    Acceptor, Certificates, ClientAuthorities, ClientCertificate, Connection, Fault, FileRole, FileStamps, OwnKey,
    PairFiles, Received,
};

/// Files that are deleted at the end of a test.
struct Files(PathBuf);

impl Files {
    fn new(test: &str) -> Self {
        let place = std::env::temp_dir().join(format!("peerpigeon-tls-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        Self(place)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.join(name);
        std::fs::write(&file, text).unwrap();
        file
    }

    /// Creates a self-signed certificate for these names, and its key.
    fn pair(&self, name: &str, names: &[&str]) -> PairFiles {
        let made =
            rcgen::generate_simple_self_signed(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        PairFiles {
            certificate: self.write(&format!("{name}.crt"), &made.cert.pem()),
            key: self.write(&format!("{name}.key"), &made.signing_key.serialize_pem()),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

fn acceptor(pairs: &[PairFiles]) -> Acceptor {
    Acceptor::new(Arc::new(Certificates::load(pairs).unwrap()), None).unwrap()
}

/// A client configuration that trusts these certificates.
fn client_config(pairs: &[PairFiles], versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    use rustls::pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    for pair in pairs {
        roots.add(rustls::pki_types::CertificateDer::from_pem_file(&pair.certificate).unwrap()).unwrap();
    }
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

const BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// A client and a server, connected by a wire that transfers `step` bytes at a time.
struct Pair {
    client: ClientConnection,
    server: Connection,
    to_server: Vec<u8>,
    step: usize,
    heard: Vec<u8>,
    told: Vec<u8>,
    ended: bool,
}

impl Pair {
    fn new(acceptor: &Acceptor, config: &Arc<ClientConfig>, name: &str, step: usize) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
        client.set_buffer_limit(None);
        let server = acceptor.connection().unwrap();
        Self { client, server, to_server: Vec::new(), step, heard: Vec::new(), told: Vec::new(), ended: false }
    }

    /// Transfers data in both directions until none is left.
    fn carry(&mut self) -> io::Result<()> {
        loop {
            while self.client.wants_write() {
                self.client.write_tls(&mut self.to_server).unwrap();
            }
            let (out, back) = (self.to_server.len(), self.server.has_pending());
            while !self.to_server.is_empty() && !self.ended {
                let n = self.to_server.len().min(self.step);
                let bytes: Vec<u8> = self.to_server.drain(..n).collect();
                self.feed(&bytes)?;
            }
            let mut to_client = Vec::new();
            while self.server.has_pending() {
                self.server.flush(|bytes| {
                    to_client.extend_from_slice(&bytes[..bytes.len().min(self.step)]);
                    Ok(bytes.len().min(self.step))
                })?;
            }
            self.give(&to_client)?;
            if out == 0 && !back && !self.client.wants_write() {
                return Ok(());
            }
        }
    }

    fn feed(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut plain = Vec::new();
        let received = self.server.receive(READ_BUFFER_BYTES, &mut plain, |into| {
            into[..bytes.len()].copy_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        });
        self.heard.extend(plain);
        let Poll::Ready(received) = received else { panic!("the connection had no bytes to read") };
        self.ended = received? == Received::End;
        Ok(())
    }

    fn give(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes)?;
            self.client.process_new_packets().map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn shake_hands(&mut self) {
        self.carry().unwrap();
        assert!(!self.client.is_handshaking() && !self.server.is_handshaking());
    }

    /// Sends data from the server over a socket that accepts at most `step` bytes of each write.
    fn send(&mut self, mut plain: &[u8]) {
        while !plain.is_empty() {
            let step = self.step;
            let mut to_client = Vec::new();
            let n = self.server.send(plain, |bytes| {
                let n = bytes.len().min(step);
                to_client.extend_from_slice(&bytes[..n]);
                Ok(n)
            });
            let n = n.unwrap();
            assert!(n > 0 && n <= TLS_WRITE_BYTES);
            plain = &plain[n..];
            for piece in to_client.chunks(4_000) {
                self.give(piece).unwrap();
                let received = self.received();
                self.told.extend(received);
            }
        }
        self.carry().unwrap();
        let received = self.received();
        self.told.extend(received);
    }

    /// The data that the client has received from [`Self::send`].
    fn told(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.told)
    }

    /// The data that the client has received since the last call.
    fn received(&mut self) -> Vec<u8> {
        let mut plain = Vec::new();
        match self.client.reader().read_to_end(&mut plain) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => _ = read.unwrap(),
        }
        plain
    }
}

fn is_send<T: Send>() {}

#[test]
fn data_flows_both_ways_in_pieces_and_leaves_no_buffer() {
    is_send::<Connection>();
    let files = Files::new("talk");
    let pairs = [files.pair("a", &["localhost"])];
    let acceptor = acceptor(&pairs);
    let data: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    for version in BOTH {
        let config = Arc::new(client_config(&pairs, &[version]));
        for step in [1, 2, 5, 97, 1400, 60_000] {
            let mut pair = Pair::new(&acceptor, &config, "localhost", step);
            pair.shake_hands();
            for len in [0, 1, 100, 16_384, 100_000] {
                pair.client.writer().write_all(&data[..len]).unwrap();
                pair.carry().unwrap();
                assert_eq!(std::mem::take(&mut pair.heard), &data[..len], "{len} bytes, {step} at a time");
                pair.send(&data[..len]);
                assert_eq!(pair.told(), &data[..len], "{len} bytes, {step} at a time");
            }
            assert_eq!(pair.server.kept(), 0, "an idle connection must keep no buffer");
        }
    }
}

#[test]
fn data_after_the_handshake_is_received() {
    let files = Files::new("first");
    let pairs = [files.pair("a", &["localhost"])];
    let acceptor = acceptor(&pairs);
    for version in BOTH {
        let config = Arc::new(client_config(&pairs, &[version]));
        let mut pair = Pair::new(&acceptor, &config, "localhost", usize::MAX);
        // rustls sends this data as early as possible: in TLS 1.3 right after Finished.
        pair.client.writer().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        pair.shake_hands();
        assert_eq!(pair.heard, b"GET / HTTP/1.1\r\n\r\n");
        assert!(!pair.server.is_resumed());
    }
}

#[test]
fn unwritten_ciphertext_is_pending_and_keeps_its_order() {
    let files = Files::new("pending");
    let pairs = [files.pair("a", &["localhost"])];
    let config = Arc::new(client_config(&pairs, &BOTH));
    let mut pair = Pair::new(&acceptor(&pairs), &config, "localhost", 1000);
    pair.shake_hands();
    let (mut taken, mut wire) = (0, Vec::new());
    let data: Vec<u8> = (0..200_000u32).map(|n| (n % 253) as u8).collect();
    let mut room = 3_000;
    while taken < data.len() {
        let sent = pair.server.send(&data[taken..], |bytes| {
            if room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let n = bytes.len().min(room);
            room -= n;
            wire.extend_from_slice(&bytes[..n]);
            Ok(n)
        });
        match sent {
            Ok(n) => taken += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => room = 3_000,
            Err(error) => panic!("{error}"),
        }
        assert!(pair.server.kept() <= TLS_WRITE_BYTES + 100, "{}", pair.server.kept());
        if !pair.server.has_pending() {
            assert_eq!(pair.server.kept(), 0);
        }
    }
    let mut received = Vec::new();
    for piece in wire.chunks(4_000) {
        pair.give(piece).unwrap();
        received.extend(pair.received());
    }
    pair.carry().unwrap();
    received.extend(pair.received());
    assert_eq!(received, data);
}

#[test]
fn both_ends_can_update_keys() {
    let files = Files::new("update");
    let pairs = [files.pair("a", &["localhost"])];
    let config = Arc::new(client_config(&pairs, &[&rustls::version::TLS13]));
    let mut pair = Pair::new(&acceptor(&pairs), &config, "localhost", usize::MAX);
    pair.shake_hands();
    for n in 0..20 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.client.writer().write_all(b"in").unwrap();
        pair.carry().unwrap();
        assert_eq!(std::mem::take(&mut pair.heard), b"in", "{n}");
        // The answer to the key update precedes the next data.
        pair.send(b"out");
        assert_eq!(pair.told(), b"out", "{n}");
        assert_eq!(pair.server.kept(), 0);
    }
}

#[test]
fn both_ends_send_close_notify() {
    let files = Files::new("close");
    let pairs = [files.pair("a", &["localhost"])];
    for version in BOTH {
        let config = Arc::new(client_config(&pairs, &[version]));
        let mut pair = Pair::new(&acceptor(&pairs), &config, "localhost", 7);
        pair.shake_hands();
        pair.client.writer().write_all(b"bye").unwrap();
        pair.client.send_close_notify();
        pair.carry().unwrap();
        assert!(pair.ended && pair.heard == b"bye");
        // This is a half close: the server may still send.
        pair.send(b"farewell");
        let mut wire = Vec::new();
        pair.server.close(|bytes| {
            wire.extend_from_slice(bytes);
            Ok(bytes.len())
        });
        pair.give(&wire).unwrap();
        let mut plain = Vec::new();
        pair.client.reader().read_to_end(&mut plain).expect("the end must come from close_notify");
        assert_eq!(pair.told(), b"farewell");
        wire.clear();
        pair.server.close(|bytes| Ok(bytes.len()));
        assert!(!pair.server.has_pending());
    }
}

/// The error of the handshake, and the alert that the client receives.
fn failure(pair: &mut Pair) -> (Fault, Option<AlertDescription>) {
    let error = pair.carry().expect_err("the handshake fails");
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()).cloned();
    let mut told = None;
    let mut wire = Vec::new();
    _ = pair.server.flush(|bytes| {
        wire.extend_from_slice(bytes);
        Ok(bytes.len())
    });
    let mut wire = &wire[..];
    while !wire.is_empty() {
        pair.client.read_tls(&mut wire).unwrap();
        match pair.client.process_new_packets() {
            Err(rustls::Error::AlertReceived(alert)) => told = Some(alert),
            Err(rustls::Error::NoApplicationProtocol) => told = Some(AlertDescription::NoApplicationProtocol),
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
    (fault.unwrap_or_else(|| panic!("{error}")), told)
}

#[test]
fn a_failed_handshake_ends_with_an_alert() {
    let files = Files::new("refused");
    let pairs = [files.pair("a", &["localhost"])];
    let acceptor = acceptor(&pairs);
    let mut config = client_config(&pairs, &BOTH);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut pair = Pair::new(&acceptor, &Arc::new(config), "localhost", usize::MAX);
    let (fault, told) = failure(&mut pair);
    assert!(matches!(fault, Fault::NothingInCommon(_)), "{fault}");
    assert_eq!(told, Some(AlertDescription::NoApplicationProtocol));

    let mut config = client_config(&pairs, &BOTH);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut pair = Pair::new(&acceptor, &Arc::new(config), "localhost", usize::MAX);
    pair.shake_hands();
    assert_eq!(pair.client.alpn_protocol(), Some(&b"http/1.1"[..]));

    let other = [files.pair("b", &["localhost"])];
    let mut pair = Pair::new(&acceptor, &Arc::new(client_config(&other, &BOTH)), "localhost", usize::MAX);
    _ = pair.carry();
    // The client's alert is still in flight.
    pair.client.write_tls(&mut pair.to_server).unwrap();
    let bytes = std::mem::take(&mut pair.to_server);
    let error = pair.feed(&bytes).unwrap_err();
    assert!(error.to_string().contains("ended the handshake"), "{error}");

    for hello in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", &[0; 64]]
    {
        let mut server = Pair::new(&acceptor, &Arc::new(client_config(&pairs, &BOTH)), "localhost", usize::MAX);
        let error = server.feed(hello).unwrap_err();
        assert!(error.get_ref().is_some_and(|inner| inner.is::<Fault>()), "{error}");
        assert!(server.server.has_pending(), "no alert is pending after {hello:?}");
        let again = server.server.send(b"x", |bytes| Ok(bytes.len()));
        assert!(again.is_err(), "a failed connection sends no data");
    }
}

#[test]
fn an_endless_record_is_buffered_within_its_bound() {
    let files = Files::new("endless");
    let pairs = [files.pair("a", &["localhost"])];
    let acceptor = acceptor(&pairs);
    // The pieces of a ClientHello with a declared length of 60,000 bytes.
    let mut pair = Pair::new(&acceptor, &Arc::new(client_config(&pairs, &BOTH)), "localhost", usize::MAX);
    let mut record = vec![0x16, 3, 1, 0x40, 0];
    record.extend([1, 0, 0xea, 0x60]);
    record.resize(5 + 0x4000, 0);
    let mut most = 0;
    let failed = (0..10).any(|_| {
        let failed = pair.feed(&record).is_err();
        most = most.max(pair.server.kept());
        failed
    });
    assert!(failed && most <= TLS_RECORD_BYTES, "{most}");
    // A record whose length is invalid.
    let mut pair = Pair::new(&acceptor, &Arc::new(client_config(&pairs, &BOTH)), "localhost", usize::MAX);
    pair.shake_hands();
    assert!(pair.feed(&[0x17, 3, 3, 0xff, 0xff]).is_err());
    // A record of nearly the maximum length that arrives byte by byte.
    let mut pair = Pair::new(&acceptor, &Arc::new(client_config(&pairs, &BOTH)), "localhost", usize::MAX);
    pair.shake_hands();
    pair.feed(&[0x17, 3, 3, 0x41, 0x00]).unwrap();
    for _ in 0..0x40ff {
        pair.feed(&[1]).unwrap();
    }
    assert!(pair.server.kept() <= TLS_RECORD_BYTES);
    assert!(pair.feed(&[1]).is_err(), "the record is not authentic");
}

/// Pseudorandom numbers, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

#[test]
fn damaged_bytes_end_only_the_connection() {
    let files = Files::new("damaged");
    let pairs = [files.pair("a", &["localhost"])];
    let acceptor = acceptor(&pairs);
    for seed in 1..400 {
        let mut numbers = Numbers(seed);
        let version = BOTH[numbers.below(2)];
        let step = 1 + numbers.below(3000);
        let mut pair = Pair::new(&acceptor, &Arc::new(client_config(&pairs, &[version])), "localhost", step);
        if numbers.below(2) == 0 {
            pair.shake_hands();
        }
        let data = vec![7; numbers.below(40_000)];
        pair.client.writer().write_all(&data).unwrap();
        let mut wire = Vec::new();
        while pair.client.wants_write() {
            pair.client.write_tls(&mut wire).unwrap();
        }
        for _ in 0..1 + numbers.below(3) {
            match numbers.below(4) {
                0 => wire.truncate(numbers.below(wire.len() + 1)),
                1 if !wire.is_empty() => {
                    let at = numbers.below(wire.len());
                    wire[at] ^= 1 << numbers.below(8);
                }
                2 => {
                    let at = numbers.below(wire.len() + 1);
                    let piece: Vec<u8> = (0..numbers.below(50)).map(|_| numbers.below(256) as u8).collect();
                    wire.splice(at..at, piece);
                }
                _ => {
                    let end = numbers.below(wire.len() + 1).min(6000);
                    let piece = wire[..end].to_vec();
                    wire.extend(piece);
                }
            }
        }
        for piece in wire.chunks(step) {
            if pair.feed(piece).is_err() || pair.ended {
                break;
            }
            assert!(pair.server.kept() <= TLS_RECORD_BYTES + TLS_WRITE_BYTES, "seed {seed}");
        }
        // Writing and closing must not panic in any state.
        _ = pair.server.send(b"x", |bytes| Ok(bytes.len()));
        pair.server.close(|bytes| Ok(bytes.len()));
    }
}
