use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use proto::limits::{READ_BUFFER_BYTES, TLS_PENDING_BYTES, TLS_RECORD_BYTES, TLS_WRITE_BYTES};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tls::{Acceptor, Certificates, Connection, PairFiles, Received};

/// Whatever bytes arrive at a TLS port, and in whatever pieces they arrive, the hub must not panic. The hub must not
/// use more memory than its bounds allow either.
///
/// The first byte selects what the client sends:
///
/// * only the other bytes,
/// * the first data of a handshake, with damage that the other bytes determine,
/// * a complete handshake, and then the other bytes as they are,
/// * a complete handshake, and then encrypted records whose plaintext is the other bytes. For some lengths of the
///   plaintext, the records are damaged.
///
/// The second byte determines the sizes of the pieces.
pub fn tls_door(bytes: &[u8]) {
    let [how, seed, rest @ ..] = bytes else { return };
    let (acceptor, config) = common();
    let mut server = acceptor.connection().expect("configured");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::clone(config), name).expect("configured");
    match how % 4 {
        0 => feed(&mut server, rest, *seed),
        1 => {
            let mut flight = flight(&mut client);
            damage(&mut flight, rest);
            feed(&mut server, &flight, *seed);
        }
        2 => {
            shake_hands(&mut server, &mut client);
            feed(&mut server, rest, *seed);
        }
        _ => {
            shake_hands(&mut server, &mut client);
            let mut records = Vec::new();
            for piece in rest.chunks(1 + usize::from(*seed) * 8) {
                client.writer().write_all(piece).expect("there is room");
                records.extend(flight(&mut client));
                if piece[0] % 7 == 0 {
                    client.refresh_traffic_keys().ok();
                }
            }
            if rest.len() % 3 == 0 {
                damage(&mut records, &rest[..rest.len().min(6)]);
            }
            feed(&mut server, &records, *seed);
        }
    }
    // Writing and closing must not panic in any state.
    _ = server.send(rest, |bytes| Ok(bytes.len().div_ceil(2)));
    server.close(|bytes| Ok(bytes.len()));
}

/// Returns the data that the TLS client has to send now.
fn flight(client: &mut ClientConnection) -> Vec<u8> {
    let mut flight = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut flight).expect("a vector accepts all bytes");
    }
    flight
}

/// Overwrites, inserts, repeats and cuts parts of the data. `how` determines the changes.
fn damage(flight: &mut Vec<u8>, how: &[u8]) {
    for step in how.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([step[0], step[1]])) % (flight.len() + 1);
        match step[2] % 8 {
            0 => flight.truncate(at),
            1 => flight.insert(at, step[2]),
            2 => flight.extend_from_within(at..),
            _ if at < flight.len() => flight[at] = step[2],
            _ => {}
        }
        flight.truncate(64 * 1024);
    }
}

fn shake_hands(server: &mut Connection, client: &mut ClientConnection) {
    while client.is_handshaking() || server.is_handshaking() {
        let flight = flight(client);
        receive(server, &flight).expect("the data is undamaged");
        let mut answer = Vec::new();
        server
            .flush(|bytes| {
                answer.extend_from_slice(bytes);
                Ok(bytes.len())
            })
            .expect("a vector accepts all bytes");
        let mut answer = &answer[..];
        while !answer.is_empty() {
            client.read_tls(&mut answer).expect("there is room");
            client.process_new_packets().expect("the data is undamaged");
        }
    }
}

fn receive(server: &mut Connection, piece: &[u8]) -> io::Result<Received> {
    let mut plain = Vec::new();
    let received = server.receive(READ_BUFFER_BYTES, &mut plain, |into| {
        into[..piece.len()].copy_from_slice(piece);
        Poll::Ready(Ok(piece.len()))
    });
    assert!(plain.len() <= piece.len() + TLS_RECORD_BYTES, "{} of {}", plain.len(), piece.len());
    match received {
        Poll::Ready(received) => received,
        Poll::Pending => panic!("the connection did not read the bytes"),
    }
}

fn feed(server: &mut Connection, mut stream: &[u8], seed: u8) {
    let mut state = u32::from(seed);
    while !stream.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let size = (1 + (state >> 16 & 63) as usize * (state >> 24 & 63) as usize).min(stream.len());
        let (piece, rest) = stream.split_at(size);
        stream = rest;
        if receive(server, piece).is_err() {
            return;
        }
        let (incoming, outgoing) = server.waiting();
        assert!(incoming <= TLS_RECORD_BYTES && outgoing <= TLS_PENDING_BYTES + TLS_WRITE_BYTES, "{server:?}");
    }
}

/// The acceptor of a hub with a certificate, and the configuration of a client that trusts this certificate.
fn common() -> &'static (Acceptor, Arc<ClientConfig>) {
    static COMMON: OnceLock<(Acceptor, Arc<ClientConfig>)> = OnceLock::new();
    COMMON.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let place = std::env::temp_dir().join(format!("peerpigeon-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&place).expect("made");
        let files = PairFiles { certificate: place.join("crt"), key: place.join("key") };
        std::fs::write(&files.certificate, made.cert.pem()).expect("written");
        std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("written");
        let certificates = Certificates::load(&[files]).expect("the key belongs to the certificate");
        std::fs::remove_dir_all(&place).expect("removed");
        let acceptor = Acceptor::new(Arc::new(certificates), None).expect("random numbers");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(made.cert.der().to_vec())).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("both")
            .with_root_certificates(roots)
            .with_no_client_auth();
        (acceptor, Arc::new(config))
    })
}
