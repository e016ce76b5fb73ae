//! Tests of links by certificates: MESH_CERT, MESH_KEY and MESH_CLIENT_CA.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
};

use crate::client::{Client, id, upgrade};
use crate::door::status;
use crate::hub::{DEADLINE, DEFAULTS, Hub, command};
use crate::mesh::{eventually, json};
use crate::ports::free_port;
use crate::tls::TlsStream;
use crate::wire::{Authority, Certificate};

const MESH: &str = "peerpigeon-mesh.1";

/// A hub that speaks TLS at its MESH_PORT.
struct Acceptor {
    hub: Hub,
    url: String,
    links: SocketAddr,
}

impl Acceptor {
    /// Starts a hub whose server certificate is `served`.
    fn start(served: &Certificate, env: &[(&str, &str)]) -> Self {
        let port = free_port().to_string();
        let own = [
            ("IS_HUB", "true"),
            ("MESH_PORT", &port),
            ("TLS_PORTS", "MESH_PORT"),
            ("TLS_CERT", &served.certificate),
            ("TLS_KEY", &served.key),
            ("MESH_CA", &served.authority_file),
        ];
        let hub = Hub::start(&[&own[..], env].concat());
        let links = format!("127.0.0.1:{port}").parse().unwrap();
        Self { hub, url: format!("wss://localhost:{port}"), links }
    }

    fn failures(&self, reason: &str) -> f64 {
        self.hub.metric(&format!("peerpigeon_handshake_failures_total{{reason=\"{reason}\"}}"))
    }

    /// Waits until a link is up whose other end has authenticated itself by `auth`.
    fn is_linked_by(&self, auth: &str) {
        is_linked_by(&self.hub, auth);
    }
}

fn is_linked_by(hub: &Hub, auth: &str) {
    eventually(&format!("a link by {auth}"), || {
        let stats = json(hub, "/hubstats");
        stats["links"]
            .as_array()
            .is_some_and(|links| links.iter().any(|link| link["ready"] == true && link["auth"] == auth))
    });
}

/// Returns the settings of a hub that presents the certificate `own`.
fn presenting(own: &Certificate) -> [(&str, &str); 3] {
    [("MESH_CERT", &own.certificate), ("MESH_KEY", &own.key), ("MESH_CA", &own.authority_file)]
}

/// Starts a hub that dials `url`.
fn dialing(url: &str, env: &[(&str, &str)]) -> Hub {
    Hub::start(&[&[("BOOTSTRAP_HUBS", url)], env].concat())
}

/// Waits until the error of a hub's dial contains the text `said`.
fn fails_with(hub: &Hub, said: &str) {
    let mut last = String::new();
    let end = std::time::Instant::now() + DEADLINE;
    loop {
        let stats = json(hub, "/hubstats");
        let error = stats["bootstrapHubs"][0]["lastError"].as_str().unwrap_or_default();
        if error.contains(said) {
            return;
        }
        if !error.is_empty() {
            last = error.to_owned();
        }
        assert!(std::time::Instant::now() < end, "the dial must fail with {said:?}, but its last error is {last:?}");
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}

/// Presents one certificate, with a key that need not match. Records whether a server has requested a certificate.
#[derive(Debug)]
struct Presented {
    key: Arc<CertifiedKey>,
    is_asked: AtomicBool,
}

impl Presented {
    fn new(certificate: &Certificate, key: &Certificate) -> Arc<Self> {
        let chain = CertificateDer::pem_file_iter(&certificate.certificate).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&key.key).unwrap();
        let key = aws_lc_rs::default_provider().key_provider.load_private_key(key).unwrap();
        // Unlike `CertifiedKey::from_der`, `CertifiedKey::new` does not check that the key matches the certificate.
        Arc::new(Self { key: Arc::new(CertifiedKey::new(chain, key)), is_asked: AtomicBool::new(false) })
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.is_asked.store(true, Ordering::Relaxed);
        Some(Arc::clone(&self.key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn config(
    server: &Certificate,
    versions: &[&'static SupportedProtocolVersion],
    presented: Option<Arc<Presented>>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(server.authority.clone())).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match presented {
        Some(presented) => config.with_client_cert_resolver(presented),
        None => config.with_no_client_auth(),
    })
}

/// Requests a link over TLS. Returns the stream and the head of the answer; an error if the server refuses the
/// certificate.
fn request(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    authorization: &str,
) -> std::io::Result<(TlsStream, String)> {
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), tcp);
    let more = if authorization.is_empty() { String::new() } else { format!("Authorization: {authorization}\r\n") };
    let head = format!("\r\nSec-WebSocket-Protocol: {MESH}\r\n{more}\r\n");
    let head = upgrade(&format!("/?peerId={}", id(7))).replace("\r\n\r\n", &head);
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            break;
        }
        answer.push(byte[0]);
    }
    let text = String::from_utf8(answer).unwrap();
    Ok((stream, text))
}

/// The status of the answer to a request for a link.
fn asked(address: SocketAddr, config: &Arc<ClientConfig>) -> String {
    let (_, answer) = request(address, config, "").expect("an answer");
    status(&answer).to_owned()
}

#[test]
fn hubs_with_certificates_link_without_a_token() {
    let authority = Authority::new();
    let [a, b] = ["a", "b"].map(|name| authority.issue(name, 30));
    let ca = ("MESH_CLIENT_CA", a.authority_file.as_str());
    let one = Acceptor::start(&a, &[&presenting(&a)[..], &[ca]].concat());
    let two = Acceptor::start(&b, &[&presenting(&b)[..], &[ca, ("BOOTSTRAP_HUBS", &one.url)]].concat());
    for hub in [&one.hub, &two.hub] {
        let line = hub.logged("link_up");
        assert!(line.contains(r#""auth":"certificate""#), "{line}");
        is_linked_by(hub, "certificate");
        let warned = hub.before_start.iter().find(|line| line.contains("config_warning") && line.contains("MESH_"));
        assert!(warned.is_none(), "{warned:?}");
    }
    let mut here = Client::join(&one.hub, 1, "n");
    let mut there = Client::join(&two.hub, 2, "n");
    assert_eq!(here.hear_type("peer-discovered")["data"]["peerId"], id(2).as_str());
    there.offer(&id(1), "n", r#""x""#, "");
    assert_eq!(here.hear_type("offer")["data"], "x");
    // The hub that presents the certificate has a metric for its expiry.
    let days = two.hub.metric(&format!("peerpigeon_tls_certificate_days_left{{file=\"{}\"}}", b.certificate));
    assert!((29.0..31.0).contains(&days), "{days}");
}

#[test]
fn hubs_without_a_valid_certificate_are_refused_with_a_reason() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let served = authority.issue("served", 30);
    let usage = |usage| move |params: &mut rcgen::CertificateParams| params.extended_key_usages = vec![usage];
    let later = |params: &mut rcgen::CertificateParams| {
        let now = std::time::SystemTime::now();
        params.not_before = (now + std::time::Duration::from_secs(86_400)).into();
    };
    let of_a_ca = |params: &mut rcgen::CertificateParams| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    };
    let own = |certificate: Certificate| Presented::new(&certificate, &certificate);
    let (victim, thief) = (authority.issue("victim", 30), authority.issue("thief", 30));
    // Each case has a part of the reason in the log, and the certificate that the client presents.
    let cases = [
        ("expired", own(authority.issue("expired", -1))),
        ("not valid yet", own(authority.issue_as("later", 30, later))),
        ("not signed by a CA of MESH_CLIENT_CA", own(stranger.issue("other", 30))),
        ("not for clients", own(authority.issue_as("server", 30, usage(rcgen::ExtendedKeyUsagePurpose::ServerAuth)))),
        ("is a CA certificate", own(authority.issue_as("ca", 30, of_a_ca))),
        // The client has a certificate of the mesh, but not its key. Anyone can get such a certificate, because hubs
        // present it to others.
        ("wrong signature", Presented::new(&victim, &thief)),
    ];
    let env = [("MESH_CLIENT_CA", served.authority_file.as_str()), ("SHARDS", "1"), ("LOG_LEVEL", "info,shard=debug")];
    let there = Acceptor::start(&served, &env);
    let mut refused = 0.0;
    for (why, presented) in &cases {
        for version in BOTH {
            let config = config(&served, &[version], Some(Arc::clone(presented)));
            assert!(request(there.links, &config, "").is_err(), "{why}");
            assert!(presented.is_asked.swap(false, Ordering::Relaxed));
            refused += 1.0;
            eventually(why, || there.failures("link-certificate") == refused);
            let (line, before) = there.hub.logged_after("tls_refused");
            assert!(line.contains(r#""reason":"link-certificate""#) && line.contains(why), "{why}: {line}");
            for line in before.iter().chain([&line]) {
                assert!(!line.contains("OtherError") && !line.contains("BEGIN") && !line.contains("PRIVATE"), "{line}");
            }
        }
    }
    // Valid certificates open links, with and without the key usage of clients.
    for made in [victim, authority.issue_as("client", 30, usage(rcgen::ExtendedKeyUsagePurpose::ClientAuth))] {
        for version in BOTH {
            let config = config(&served, &[version], Some(Presented::new(&made, &made)));
            assert_eq!(asked(there.links, &config), "101");
            // A hub without MESH_TOKEN ignores the token in a request.
            let (_, answer) = request(there.links, &config, "Bearer guess").unwrap();
            assert_eq!(status(&answer), "101", "the certificate is enough");
        }
    }
    // A client without a certificate is refused, with or without a token, because this hub has no MESH_TOKEN.
    for authorization in ["", "Bearer guess", "PeerPigeon-Link"] {
        let (mut stream, answer) = request(there.links, &config(&served, &BOTH, None), authorization).unwrap();
        assert_eq!(status(&answer), "403");
        let mut text = [0; 200];
        let n = stream.read(&mut text).unwrap();
        assert!(String::from_utf8_lossy(&text[..n]).contains("MESH_CERT"), "{answer}");
    }
    eventually("hubs without a certificate are counted", || there.failures("link-no-certificate") == 3.0);
    there.hub.logged(r#""reason":"link-no-certificate""#);
    assert_eq!(there.failures("link-certificate"), refused);
}

/// `/hubstats` and the log of the dialing hub show why its certificate was refused. docs/troubleshooting.md explains
/// each of these errors.
#[test]
fn a_dialing_hub_shows_why_its_certificate_was_refused() {
    let help = include_str!("../../docs/troubleshooting.md");
    let (authority, stranger) = (Authority::new(), Authority::new());
    let served = authority.issue("served", 30);
    let there = Acceptor::start(&served, &[("MESH_CLIENT_CA", &served.authority_file)]);
    let with_token = Acceptor::start(&served, &[("MESH_TOKEN", "of-the-mesh")]);
    let trusted = ("MESH_CA", served.authority_file.as_str());
    let (expired, other, good) =
        (authority.issue("expired", -1), stranger.issue("other", 30), authority.issue("good", 30));
    let own = |made| presenting(made)[..2].to_vec();
    let cases = [
        (&there, own(&expired), "the client certificate, which has expired"),
        (&there, own(&other), "its MESH_CLIENT_CA has no CA of it"),
        (&there, vec![("MESH_TOKEN", "of-the-mesh")], "accepts links only by certificate"),
        (&with_token, own(&good), "has not seen the certificate of this hub"),
        // The dialing hub does not trust the CA of the dialed hub.
        (&there, [own(&good), vec![("MESH_CA", "")]].concat(), "a known authority"),
    ];
    for (there, env, said) in cases {
        assert!(help.contains(said), "docs/troubleshooting.md does not explain this error: {said}");
        let hub = dialing(&there.url, &[&[trusted], &env[..]].concat());
        fails_with(&hub, said);
        let line = hub.logged("dial_failed");
        assert!(!line.contains("OtherError") && !line.contains("of-the-mesh"), "{line}");
        let stats = json(&hub, "/hubstats");
        assert_eq!(stats["totalHubs"], 0, "{said}: {stats}");
    }
    let line = dialing(&there.url, &presenting(&expired)).before_start.join("\n");
    assert!(line.contains("MESH_CERT: the certificate in") && line.contains("other hubs refuse it"), "{line}");
}

#[test]
fn a_certificate_alone_opens_nothing_without_tls() {
    let authority = Authority::new();
    let own = authority.issue("own", 30);
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    plain.set_nonblocking(true).unwrap();
    let url = format!("ws://{}", plain.local_addr().unwrap());
    let hub = dialing(&url, &presenting(&own));
    let warned = |line: &String| line.contains("BOOTSTRAP_HUBS names ws://") && line.contains("use wss://");
    assert!(hub.before_start.iter().any(warned), "{:?}", hub.before_start);
    fails_with(&hub, "ws:// proves no certificates");
    assert!(plain.accept().is_err(), "the hub must not connect");
    // A hub that also has a token proves at a ws:// URL that it knows the token.
    let hub = dialing(&url, &[&presenting(&own)[..], &[("MESH_TOKEN", "t"), ("MESH_AUTH", "certificate")]].concat());
    let mut dialed = None;
    eventually("the hub dials", || {
        dialed = plain.accept().ok();
        dialed.is_some()
    });
    let (mut stream, _) = dialed.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut head = [0; 1024];
    let n = stream.read(&mut head).unwrap();
    let head = String::from_utf8_lossy(&head[..n]).to_ascii_lowercase();
    assert!(head.contains("authorization: peerpigeon-link\r\n"), "{head}");
    drop(hub);
}

#[test]
fn peers_are_not_asked_for_a_certificate() {
    let authority = Authority::new();
    let own = authority.issue("own", 30);
    let env = [("MESH_CLIENT_CA", own.authority_file.as_str()), ("TLS_PORTS", "PORT,MESH_PORT"), ("MESH_TOKEN", "t")];
    let there = Acceptor::start(&own, &env);
    for version in BOTH {
        for (address, asks) in [(there.hub.address, false), (there.links, true)] {
            let presented = Presented::new(&own, &own);
            _ = request(address, &config(&own, &[version], Some(Arc::clone(&presented))), "");
            assert_eq!(presented.is_asked.load(Ordering::Relaxed), asks, "{address}");
        }
    }
}

#[test]
fn tokens_and_certificates_open_links_at_the_same_hub() {
    let authority = Authority::new();
    let own = authority.issue("own", 30);
    let env =
        [("MESH_CLIENT_CA", own.authority_file.as_str()), ("MESH_TOKEN", "of-the-mesh"), ("MESH_AUTH", "challenge")];
    let there = Acceptor::start(&own, &env);
    let by_token = dialing(&there.url, &[("MESH_TOKEN", "of-the-mesh"), ("MESH_CA", &own.authority_file)]);
    let by_certificate = dialing(&there.url, &presenting(&own));
    there.is_linked_by("token");
    there.is_linked_by("certificate");
    is_linked_by(&by_token, "token");
    is_linked_by(&by_certificate, "certificate");
    // A hub with a token and a certificate proves that it knows the token. A wrong token is refused, even with a valid
    // certificate.
    let both = dialing(&there.url, &[&presenting(&own)[..], &env[1..]].concat());
    is_linked_by(&both, "token");
    let certified = config(&own, &BOTH, Some(Presented::new(&own, &own)));
    for (authorization, answer) in [("", "101"), ("PeerPigeon-Link", "401"), ("Bearer of-the-mesh", "401")] {
        let (_, said) = request(there.links, &certified, authorization).unwrap();
        assert_eq!(status(&said), answer, "{authorization}");
    }
    let wrong = dialing(&there.url, &[&presenting(&own)[..], &[("MESH_TOKEN", "another")]].concat());
    fails_with(&wrong, "the proof is of another MESH_TOKEN");
    let (_, refused) = request(there.links, &config(&own, &BOTH, None), "").unwrap();
    assert_eq!(status(&refused), "401");
}

/// Takes the three steps of docs/security.md, and then takes them back. Hubs of two successive steps link with each
/// other.
#[test]
fn a_mesh_changes_from_the_token_to_certificates_hub_by_hub() {
    let authority = Authority::new();
    let own = authority.issue("own", 30);
    let (ca, token) = (("MESH_CLIENT_CA", own.authority_file.as_str()), ("MESH_TOKEN", "of-the-mesh"));
    let certificate = presenting(&own);
    let steps = [
        vec![token, ("MESH_AUTH", "challenge")],
        [&certificate[..], &[ca, token, ("MESH_AUTH", "challenge")]].concat(),
        [&certificate[..], &[ca, token, ("MESH_AUTH", "certificate")]].concat(),
        [&certificate[..], &[ca]].concat(),
    ];
    for pair in steps.windows(2) {
        for (there, here) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
            let other = Acceptor::start(&own, there);
            let hub = Acceptor::start(&own, &[&[("BOOTSTRAP_HUBS", &*other.url)], &here[..]].concat());
            eventually("the two hubs are linked", || json(&hub.hub, "/hubstats")["totalHubs"] == 1);
            eventually("both ends know the link", || json(&other.hub, "/hubstats")["totalHubs"] == 1);
        }
    }
    // A hub of the first step reaches a hub without TLS by its previous URL.
    let before = Hub::start(&[("IS_HUB", "true"), token]);
    let urls = format!("ws://{},wss://localhost:{}", before.address, free_port());
    let after = Acceptor::start(&own, &[&steps[1][..], &[("BOOTSTRAP_HUBS", &urls)]].concat());
    after.is_linked_by("token");
}

fn replace(file: &str, text: &str) {
    let new = format!("{file}.new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, file).unwrap();
}

#[test]
fn certificates_and_authorities_are_replaced_without_losing_a_link() {
    let (old, new) = (Authority::new(), Authority::new());
    let served = old.issue("served", 30);
    let (by_old, by_new) = (old.issue("hub", 30), new.issue("hub", 60));
    let [old_ca, new_ca] = [&by_old, &by_new].map(|made| std::fs::read_to_string(&made.authority_file).unwrap());
    let file = format!("{}.clients", served.authority_file);
    replace(&file, &old_ca);
    let there = Acceptor::start(&served, &[("MESH_CLIENT_CA", &file)]);
    let hub_files = old.issue("reloaded", 30);
    let later = free_port().to_string();
    let both = format!("{},wss://localhost:{later}", there.url);
    let hub = dialing(&both, &presenting(&hub_files));
    there.is_linked_by("certificate");
    let [certified_by_old, certified_by_new] =
        [&by_old, &by_new].map(|made| config(&served, &BOTH, Some(Presented::new(made, made))));
    let reload = |hub: &Hub, event: &str, setting: &str| {
        hub.signal("-HUP");
        loop {
            let line = hub.logged(event);
            if line.contains(&format!(r#""setting":"{setting}""#)) {
                return line;
            }
        }
    };
    assert!(request(there.links, &certified_by_new, "").is_err());
    // The new CA is added to the old CA.
    replace(&file, &(old_ca.clone() + &new_ca));
    let line = reload(&there.hub, "tls_certificates_read", "MESH_CLIENT_CA");
    assert!(line.contains(r#""certificates":2"#), "{line}");
    eventually("the new CA is added", || request(there.links, &certified_by_new, "").is_ok());
    assert_eq!(asked(there.links, &certified_by_old), "101");
    // An invalid file is counted, and the hub keeps its CAs.
    replace(&file, "nothing");
    reload(&there.hub, "tls_certificates_refused", "MESH_CLIENT_CA");
    there.hub.metric_becomes("peerpigeon_tls_certificates_stale", |stale| stale == 1.0);
    assert_eq!(asked(there.links, &certified_by_old), "101");
    // The old CA is removed. Certificates of the old CA open no new links, and the existing link stays.
    replace(&file, &new_ca);
    reload(&there.hub, "tls_certificates_read", "MESH_CLIENT_CA");
    there.hub.metric_becomes("peerpigeon_tls_certificates_stale", |stale| stale == 0.0);
    eventually("the old CA is removed", || request(there.links, &certified_by_old, "").is_err());
    assert_eq!(asked(there.links, &certified_by_new), "101");
    // If the new certificate is invalid, the dialing hub keeps the previous one. If the new certificate is valid, the
    // dialing hub uses it for the next dial.
    let days = format!("peerpigeon_tls_certificate_days_left{{file=\"{}\"}}", hub_files.certificate);
    replace(&hub_files.certificate, "nothing");
    reload(&hub, "tls_certificates_refused", "MESH_CERT");
    assert!((29.0..31.0).contains(&hub.metric(&days)));
    replace(&hub_files.key, &std::fs::read_to_string(&by_new.key).unwrap());
    replace(&hub_files.certificate, &std::fs::read_to_string(&by_new.certificate).unwrap());
    reload(&hub, "tls_certificates_read", "MESH_CERT");
    hub.metric_becomes(&days, |days| (59.0..61.0).contains(&days));
    let env = [("MESH_CLIENT_CA", file.as_str()), ("MESH_PORT", &later)];
    let other = Acceptor::start(&served, &env);
    is_linked_by(&other.hub, "certificate");
    eventually("the dialing hub is linked to both hubs", || json(&hub, "/hubstats")["totalHubs"] == 2);
    assert_eq!(hub.metric("peerpigeon_link_ends_total{reason=\"lost\"}"), 0.0);
    let links = json(&there.hub, "/hubstats")["links"].clone();
    let dialed = links.as_array().unwrap().iter().filter(|link| link["ready"] == true).count();
    assert_eq!(dialed, 1, "the first link is still open: {links}");
}

/// A ticket would let a client return without a certificate, after its certificate has expired or its CA was removed.
#[test]
fn a_resumed_session_does_not_count_as_certified() {
    let authority = Authority::new();
    let own = authority.issue("own", 30);
    let file = format!("{}.clients", own.authority_file);
    replace(&file, &std::fs::read_to_string(&own.authority_file).unwrap());
    let ticket_key = "k".repeat(32);
    let env = [("MESH_CLIENT_CA", file.as_str()), ("TLS_PORTS", "PORT,MESH_PORT"), ("TLS_TICKET_KEY", &ticket_key)];
    let there = Acceptor::start(&own, &env);
    for version in BOTH {
        let config = config(&own, &[version], Some(Presented::new(&own, &own)));
        let kind = |address| {
            // A server sends its tickets before the answer.
            let (stream, answer) = request(address, &config, "").unwrap();
            assert!(!answer.is_empty());
            stream.conn.handshake_kind()
        };
        assert_eq!(kind(there.links), Some(HandshakeKind::Full));
        assert_eq!(kind(there.links), Some(HandshakeKind::Full), "no ticket is issued at MESH_PORT");
        // PORT issues tickets. MESH_PORT accepts no tickets of PORT, although both ports have the same ticket keys.
        assert_eq!(kind(there.hub.address), Some(HandshakeKind::Full));
        assert_eq!(kind(there.hub.address), Some(HandshakeKind::Resumed), "a ticket of PORT");
        assert_eq!(kind(there.links), Some(HandshakeKind::Full), "no ticket is accepted at MESH_PORT");
    }
}

#[test]
fn invalid_settings_of_certificates_exit_with_64_and_a_reason() {
    let authority = Authority::new();
    let own = authority.issue("own", 30);
    let only_server = authority.issue_as("server", 30, |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    let of_a_ca = authority.issue_as("ca", 30, |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let (cert, key) = (("MESH_CERT", own.certificate.as_str()), ("MESH_KEY", own.key.as_str()));
    let ca = ("MESH_CLIENT_CA", own.authority_file.as_str());
    let port = free_port().to_string();
    let served = [("TLS_CERT", own.certificate.as_str()), ("TLS_KEY", own.key.as_str())];
    let with_port = [&served[..], &[("MESH_PORT", port.as_str()), ca]].concat();
    for (env, expected) in [
        (vec![cert], "MESH_KEY (--mesh-key): it is unset"),
        (vec![key], "MESH_CERT (--mesh-cert): it is unset"),
        (vec![("MESH_CERT", &*of_a_ca.certificate), ("MESH_KEY", &of_a_ca.key)], "has a CA certificate"),
        (
            vec![("MESH_CERT", &*only_server.certificate), ("MESH_KEY", &only_server.key)],
            "is not for clients: issue it",
        ),
        (vec![cert, ("MESH_KEY", "/nowhere")], "MESH_KEY (--mesh-key): /nowhere cannot be read"),
        (vec![ca], "MESH_CLIENT_CA (--mesh-client-ca): hubs present certificates only at a MESH_PORT with TLS"),
        (with_port.clone(), "add MESH_PORT to TLS_PORTS"),
        ([&served[..], &[ca, ("TLS_PORTS", "PORT,MESH_PORT")]].concat(), "set MESH_PORT to another port than PORT"),
        (vec![("MESH_CLIENT_CA", &*own.certificate)], "has a certificate that is not a CA"),
        (vec![("MESH_AUTH", "certificate")], "MESH_AUTH (--mesh-auth): certificate needs a certificate"),
    ] {
        // With valid settings, `--print-config` ends with 0. Without `--print-config`, the hub would run until it is
        // stopped.
        let mut hub = command(DEFAULTS);
        hub.args(["serve", "--print-config"]);
        let out = hub.env("IS_HUB", "true").envs(env.iter().copied()).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(64), "{env:?}: {said}");
        assert!(said.contains(expected), "{env:?}: {said}");
    }
}

#[test]
fn the_documented_commands_make_certificates_for_hubs() {
    let place = std::env::temp_dir().join(format!("peerpigeon-certificates-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    // All servers of this test have the name localhost.
    let commands = crate::docs::commands("docs/security.md", "certificates").replace("hub-a.example.com", "localhost");
    let made = Command::new("bash").args(["-ec", &commands]).current_dir(&place).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let file = |name: &str| place.join(name).to_str().unwrap().to_owned();
    let own = Certificate {
        authority: CertificateDer::from_pem_file(place.join("mesh-ca.crt")).unwrap().to_vec(),
        authority_file: file("mesh-ca.crt"),
        certificate: file("hub.crt"),
        key: file("hub.key"),
    };
    let env = [&presenting(&own)[..], &[("MESH_CLIENT_CA", &own.authority_file)]].concat();
    let one = Acceptor::start(&own, &env);
    let two = dialing(&one.url, &presenting(&own));
    is_linked_by(&two, "certificate");
    one.is_linked_by("certificate");
    assert!(Path::new(&own.key).exists());
    drop((one, two));
    std::fs::remove_dir_all(&place).unwrap();
}

/// The tools explain certificates that no client accepts.
#[test]
fn the_tools_explain_a_ca_certificate_used_by_a_server() {
    let authority = Authority::new();
    let ca = authority.issue_as("ca", 30, |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let hub = Hub::start(&[("TLS_CERT", &ca.certificate), ("TLS_KEY", &ca.key)]);
    let at = |scheme: &str| format!("{scheme}://localhost:{}", hub.address.port());
    let doctor = at("wss").replace("localhost", "127.0.0.1");
    for (tool, url) in [
        (&["top", "--once"][..], at("https")),
        (&["peer", "--network", "n"], at("wss")),
        (&["doctor"], doctor),
        (&["health", "--url"], at("https") + "/livez"),
    ] {
        let mut command = command(&[]);
        command.args(tool);
        match tool[0] {
            "health" => command.arg(&url),
            "peer" => command.args(["--ca", &ca.authority_file, "--hub", &url]),
            _ => command.args(["--ca", &ca.authority_file, &url]),
        };
        let out = command.output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success(), "{tool:?}: {said}");
        assert!(said.contains("CA:FALSE") && !said.contains("OtherError"), "{tool:?}: {said}");
    }
    let dialing = dialing(&at("wss"), &[("MESH_TOKEN", "t"), ("MESH_CA", &ca.authority_file)]);
    fails_with(&dialing, "is a CA certificate, as `openssl req -x509` makes");
}
