//! Certificates that a hub orders from pebble, the test server of Let's Encrypt (Debian: `pebble`).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use crate::admin::free_port;
use crate::client::{frame, id, upgrade};
use crate::hub::{DEADLINE, Hub, command};
use crate::mesh::eventually;
use crate::tls::{TlsStream, ask, read_until};
use crate::wire::{Authority, Certificate, client_config};

const NAME: &str = "hub.example";

/// pebble, and a name server that resolves every name to 127.0.0.1.
struct Pebble {
    authority: Authority,
    server: Certificate,
    place: PathBuf,
    port: String,
    management: String,
    running: Vec<Child>,
}

/// Id and key of an external account that pebble accepts.
const BINDING: (&str, &str) = ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W");

impl Pebble {
    /// pebble will verify names at port `verified`, and its certificates are valid for `seconds`. If pebble is not
    /// installed, this function prints a message and returns `None`.
    fn new(verified: &str, seconds: u32) -> Option<Self> {
        if Command::new("pebble").arg("-h").stderr(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: pebble is not installed");
            return None;
        }
        let authority = Authority::new();
        let server = authority.issue("pebble", 1);
        let place = PathBuf::from(&server.certificate).parent().unwrap().to_owned();
        let (port, management) = (free_port(), free_port());
        let settings = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": server.certificate,
            "privateKey": server.key,
            "httpPort": 1,
            "tlsPort": verified.parse::<u16>().unwrap(),
            "certificateValidityPeriod": seconds,
        }});
        let pebble = Self { authority, server, place, port, management, running: Vec::new() };
        pebble.write(&settings);
        Some(pebble)
    }

    fn settings(&self) -> PathBuf {
        self.place.join("pebble.json")
    }

    fn write(&self, settings: &Value) {
        std::fs::write(self.settings(), settings.to_string()).unwrap();
    }

    /// Lets pebble create only accounts that are bound with [`BINDING`].
    fn require_binding(&self) {
        let mut settings: Value = serde_json::from_slice(&std::fs::read(self.settings()).unwrap()).unwrap();
        settings["pebble"]["externalAccountBindingRequired"] = true.into();
        settings["pebble"]["externalAccountMACKeys"] = serde_json::json!({ BINDING.0: BINDING.1 });
        self.write(&settings);
    }

    fn start(&mut self) {
        let (dns, management) = (free_port(), free_port());
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
        names.args(["-dns01", &format!("127.0.0.1:{dns}"), "-management", &format!("127.0.0.1:{management}")]);
        let mut pebble = Command::new("pebble");
        pebble.arg("-config").arg(self.settings()).args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
        // By default, pebble randomly refuses nonces and delays verifications. These variables prevent both.
        pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "0");
        for command in [&mut names, &mut pebble] {
            self.running.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        }
        eventually("pebble listens", || {
            [&self.port, &self.management, &dns].iter().all(|port| TcpStream::connect(at(port)).is_ok())
        });
    }

    fn stop(&mut self) {
        for mut child in self.running.drain(..) {
            _ = child.kill();
            _ = child.wait();
        }
    }

    /// A client that trusts only pebble's certificates.
    fn trusting(&self) -> Arc<ClientConfig> {
        let get = "GET /roots/0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let answer = ask(at(&self.management), &Arc::new(client_config(&self.server)), get);
        let root = CertificateDer::from_pem_slice(answer.split_once("\r\n\r\n").unwrap().1.as_bytes()).unwrap();
        let mut config = client_config(&Certificate { authority: root.to_vec(), ..self.authority.issue("other", 1) });
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }

    fn hub(&self, port: &str, admin: &str, directory: &str) -> Hub {
        self.hub_with(port, admin, &[("TLS_ACME_DIR", directory)])
    }

    fn hub_with(&self, port: &str, admin: &str, env: &[(&str, &str)]) -> Hub {
        let url = format!("https://localhost:{}/dir", self.port);
        let usual = [
            ("PORT", port),
            ("ADMIN_PORT", admin),
            ("TLS_ACME", NAME),
            ("TLS_ACME_URL", &url),
            ("TLS_ACME_CA", &self.server.authority_file),
            ("TLS_ACME_EMAIL", "ops@example.com"),
            ("LOG_LEVEL", "peerpigeon=debug,info"),
        ];
        Hub::start(&[&usual[..], env].concat())
    }

    fn directory(&self) -> String {
        self.place.join("acme").to_str().unwrap().to_owned()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
    }
}

fn at(port: &str) -> SocketAddr {
    ([127, 0, 0, 1], port.parse().unwrap()).into()
}

fn page(port: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(at(port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn metric(port: &str, series: &str) -> f64 {
    let page = page(port, "/metrics");
    let line = page.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(f64::NAN)
}

/// Opens a WebSocket to the hub as peer `n`, with [`NAME`] as the name in the TLS handshake.
fn peer(port: &str, config: &Arc<ClientConfig>, n: u32) -> TlsStream {
    let tcp = TcpStream::connect(at(port)).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), tcp);
    stream.write_all(upgrade(&format!("/ws?peerId={}", id(n))).as_bytes()).unwrap();
    read_until(&mut stream, &mut Vec::new(), b"connected");
    stream
}

fn shown(stream: &TlsStream) -> Vec<u8> {
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn a_certificate_is_ordered_served_and_kept_over_a_restart() {
    let (port, admin) = (free_port(), free_port());
    let Some(mut pebble) = Pebble::new(&port, 90 * 86_400) else { return };
    let directory = pebble.directory();
    let mut hub = pebble.hub(&port, &admin, &directory);
    // pebble does not run yet, so the hub cannot reach the authority.
    let line = hub.logged("acme_order_failed");
    assert!(line.contains("cannot be reached") && line.contains("TLS_ACME_CA"), "{line}");
    eventually("/readyz gives the reason", || {
        let ready = page(&admin, "/readyz");
        ready.starts_with("HTTP/1.1 503") && ready.contains("no certificate yet: hub.example: ")
    });
    let missing = || metric(&admin, "peerpigeon_acme_names_missing");
    eventually("the metrics count the missing certificate and the failed order", || {
        (missing(), metric(&admin, "peerpigeon_acme_names_failing")) == (1.0, 1.0)
    });
    // `peerpigeon health` verifies no certificate, so it gets the answer of /readyz from the port with TLS.
    let probe = command(&[("HOST", "127.0.0.1"), ("PORT", &port), ("TLS_ACME", NAME)]).arg("health").output().unwrap();
    assert!(String::from_utf8_lossy(&probe.stdout).contains("no certificate yet"), "{probe:?}");

    pebble.start();
    hub.signal("-HUP");
    hub.logged("acme_certificate_issued");
    hub.logged("tls_certificates_read");
    let config = pebble.trusting();
    let first = shown(&peer(&port, &config, 1));
    eventually("the hub is ready", || page(&admin, "/readyz").starts_with("HTTP/1.1 200"));
    eventually("no certificate is missing", || missing() == 0.0);
    assert_eq!(metric(&admin, "peerpigeon_acme_names_failing"), 0.0);
    let orders = |outcome: &str| metric(&admin, &format!("peerpigeon_acme_orders_total{{outcome=\"{outcome}\"}}"));
    assert_eq!((orders("issued"), orders("failed")), (1.0, 1.0));
    let stored = PathBuf::from(format!("{directory}/localhost:{}/{NAME}.pem", pebble.port));
    assert_eq!(stored.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(stored.with_file_name("account.json").exists());
    let days = metric(&admin, &format!("peerpigeon_tls_certificate_days_left{{file=\"{}\"}}", stored.display()));
    assert!(days > 89.0, "{days}");
    hub.signal("-TERM");
    assert_eq!(hub.wait().code(), Some(0));

    // With the stored certificate, the hub starts without an order and without the authority.
    pebble.stop();
    let hub = pebble.hub(&port, &admin, &directory);
    assert!(shown(&peer(&port, &config, 1)) == first && page(&admin, "/readyz").starts_with("HTTP/1.1 200"));
    hub.signal("-HUP");
    hub.logged("tls_certificates_read");
    assert_eq!((orders("issued"), orders("failed"), missing()), (0.0, 0.0, 0.0));
}

#[test]
fn a_certificate_is_renewed_and_stays_in_use_if_a_renewal_fails() {
    let (port, admin) = (free_port(), free_port());
    let Some(mut pebble) = Pebble::new(&port, 15) else { return };
    pebble.start();
    let hub = pebble.hub(&port, &admin, &pebble.directory());
    hub.logged("acme_certificate_issued");
    hub.logged("tls_certificates_read");
    let config = pebble.trusting();
    let mut open = peer(&port, &config, 1);
    // The hub renews the certificate after two thirds of its lifetime of 15 s.
    hub.logged("acme_certificate_issued");
    hub.logged("tls_certificates_read");
    let renewed = shown(&peer(&port, &config, 2));
    assert_ne!(shown(&open), renewed);
    pebble.stop();
    hub.logged("acme_order_failed");
    assert_eq!(shown(&peer(&port, &config, 3)), renewed);
    eventually("the failed renewal is counted", || metric(&admin, "peerpigeon_acme_names_failing") == 1.0);
    assert!(page(&admin, "/readyz").starts_with("HTTP/1.1 200"));
    open.write_all(&frame(1, br#"{"type":"ping"}"#)).unwrap();
    read_until(&mut open, &mut Vec::new(), b"pong");
    // A new pebble process does not know the account of the hub.
    pebble.start();
    hub.signal("-HUP");
    let line = hub.logged("acme_order_failed");
    assert!(line.contains("account"), "{line}");
    hub.signal("-HUP");
    hub.logged("acme_certificate_issued");
}

#[test]
fn a_name_that_leads_to_another_port_is_logged_with_advice() {
    let (port, admin, elsewhere) = (free_port(), free_port(), free_port());
    let Some(mut pebble) = Pebble::new(&elsewhere, 90 * 86_400) else { return };
    pebble.start();
    let hub = pebble.hub(&port, &admin, &pebble.directory());
    let line = hub.logged("acme_order_failed");
    assert!(line.contains("cannot verify the name") && line.contains("port 443 there leads to PORT"), "{line}");
    eventually("/readyz gives the reason", || page(&admin, "/readyz").contains("cannot verify the name"));
    let pause = line.split("\"again_in_secs\":").nth(1).unwrap();
    let pause: u64 = pause.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap();
    assert!((120..=150).contains(&pause), "{line}");
}

#[test]
fn a_directory_that_cannot_be_written_ends_the_hub_with_64() {
    let env = [("TLS_ACME", NAME), ("TLS_ACME_DIR", "/dev/null/acme"), ("PORT", "0"), ("HOST", "127.0.0.1")];
    let out = command(&env).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(64), "{said}");
    assert!(said.contains("TLS_ACME_DIR (--tls-acme-dir): /dev/null/acme/"), "{said}");
}

#[test]
fn hubs_with_one_directory_order_one_at_a_time_and_share_the_result() {
    let ports: Vec<String> = (0..4).map(|_| free_port()).collect();
    let Some(mut pebble) = Pebble::new(&ports[0], 90 * 86_400) else { return };
    pebble.start();
    let directory = pebble.directory();
    // The test holds the lock of the directory, so the hubs behave as if another hub were ordering a certificate.
    let store = PathBuf::from(format!("{directory}/localhost:{}", pebble.port));
    std::fs::create_dir_all(&store).unwrap();
    let lock = std::fs::File::create(store.join("lock")).unwrap();
    lock.lock().unwrap();
    let hubs = [0, 2].map(|at: usize| pebble.hub(&ports[at], &ports[at + 1], &directory));
    for hub in &hubs {
        let (_, before) = hub.logged_after("acme_other_hub_orders");
        assert!(!before.iter().any(|line| line.contains("acme_order_begins")), "{before:#?}");
    }
    drop(lock);
    // The authority verifies the name at the port of the first hub, so only the first hub can order.
    hubs[0].signal("-HUP");
    hubs[0].logged("acme_certificate_issued");
    hubs[0].logged("tls_certificates_read");
    hubs[1].signal("-HUP");
    let (_, before) = hubs[1].logged_after("tls_certificates_read");
    assert!(!before.iter().any(|line| line.contains("acme_order_begins")), "{before:#?}");
    let config = pebble.trusting();
    assert_eq!(shown(&peer(&ports[0], &config, 1)), shown(&peer(&ports[2], &config, 2)));
    eventually("the other hub has loaded the certificate", || {
        metric(&ports[3], "peerpigeon_acme_names_missing") == 0.0
    });
    let issued = |admin: &str| metric(admin, "peerpigeon_acme_orders_total{outcome=\"issued\"}");
    assert_eq!((issued(&ports[1]), issued(&ports[3])), (1.0, 0.0));
}

#[test]
fn an_acme_account_is_bound_to_an_existing_account() {
    let (port, admin) = (free_port(), free_port());
    let Some(mut pebble) = Pebble::new(&port, 90 * 86_400) else { return };
    pebble.require_binding();
    pebble.start();
    let directory = pebble.directory();
    let hub = pebble.hub(&port, &admin, &directory);
    let line = hub.logged("acme_order_failed");
    assert!(line.contains("set TLS_ACME_EAB_KID and TLS_ACME_EAB_HMAC"), "{line}");
    drop(hub);
    let binding = [("TLS_ACME_DIR", &*directory), ("TLS_ACME_EAB_KID", BINDING.0), ("TLS_ACME_EAB_HMAC", BINDING.1)];
    let hub = pebble.hub_with(&port, &admin, &binding);
    let (_, before) = hub.logged_after("acme_certificate_issued");
    assert!(!before.iter().any(|line| line.contains(BINDING.1)), "the key is logged: {before:#?}");
}

/// Serves pebble's directory together with renewal information (RFC 9773), which Debian's pebble does not serve. The
/// renewal information advises the hub to renew the first certificate at once, and to renew no later certificate.
/// Returns the URL of the directory, and the ids of the certificates for which hubs request this information.
fn with_renewal_information(pebble: &Pebble) -> (String, mpsc::Receiver<String>) {
    let chain = CertificateDer::pem_file_iter(&pebble.server.certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&pebble.server.key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let get = format!("GET /dir HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\r\n", pebble.port);
    let answer = ask(at(&pebble.port), &Arc::new(client_config(&pebble.server)), &get);
    let mut directory: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    directory["renewalInfo"] = format!("{url}/renewal").into();
    let (asked, ids) = mpsc::sync_channel(100);
    std::thread::spawn(move || {
        let mut first = None;
        for tcp in listener.incoming().map_while(Result::ok) {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), tcp);
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte) {
                    Ok(1) => head.push(byte[0]),
                    _ => break,
                }
            }
            let head = String::from_utf8(head).unwrap();
            let body = match head.strip_prefix("GET /renewal/") {
                None => directory.to_string(),
                Some(rest) => {
                    let id = rest.split(' ').next().unwrap();
                    let years =
                        if *first.get_or_insert_with(|| id.to_owned()) == id { [2001, 2002] } else { [2101, 2102] };
                    _ = asked.try_send(id.to_owned());
                    let [start, end] = years.map(|year| format!("{year}-01-01T00:00:00Z"));
                    serde_json::json!({ "suggestedWindow": { "start": start, "end": end } }).to_string()
                }
            };
            let length = body.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nRetry-After: 21600\r\nContent-Length: {length}\r\nConnection: close");
            _ = write!(stream, "{head}\r\n\r\n{body}");
            stream.conn.send_close_notify();
            _ = stream.flush();
        }
    });
    (format!("{url}/dir"), ids)
}

#[test]
fn a_certificate_is_renewed_when_the_authority_advises_it() {
    let (port, admin) = (free_port(), free_port());
    let Some(mut pebble) = Pebble::new(&port, 90 * 86_400) else { return };
    pebble.start();
    let (url, asked) = with_renewal_information(&pebble);
    let directory = pebble.directory();
    let hub = pebble.hub_with(&port, &admin, &[("TLS_ACME_DIR", &directory), ("TLS_ACME_URL", &url)]);
    hub.logged("acme_certificate_issued");
    let first = asked.recv_timeout(DEADLINE).unwrap();
    // pebble refuses an order that names the certificate to be replaced. The hub then repeats the order without naming
    // it.
    hub.logged("acme_replacement_refused");
    hub.logged("acme_certificate_issued");
    let mut second = first.clone();
    eventually("the hub requests the renewal information of the new certificate", || {
        second = asked.try_recv().unwrap_or_else(|_| second.clone());
        second != first
    });
    let stored = format!("{directory}/{}/{NAME}.pem", url.trim_start_matches("https://").trim_end_matches("/dir"));
    let pair = ::tls::PairFiles { certificate: stored.clone().into(), key: stored.into() };
    let loaded = ::tls::Certificates::load(&[pair]).unwrap();
    let id = loaded.facts()[0].id.clone().unwrap();
    let expected = [&id.authority_key, &id.serial].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    assert_eq!(second, expected);
    assert_eq!(
        metric(&admin, "peerpigeon_acme_orders_total{outcome=\"issued\"}"),
        2.0,
        "the new certificate must not be renewed"
    );
}
