//! Certificates that a hub orders from pebble, the test server of Let's Encrypt (Debian: `pebble`).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::admin::free_port;
use crate::client::{frame, id, upgrade};
use crate::hub::{DEADLINE, Hub, command};
use crate::mesh::eventually;
use crate::tls::{TlsStream, ask, read_until};
use crate::wire::{Authority, Certificate, client_config};

const NAME: &str = "hub.example";

/// pebble, with a name server for which every name is 127.0.0.1.
struct Pebble {
    authority: Authority,
    server: Certificate,
    place: PathBuf,
    port: String,
    management: String,
    running: Vec<Child>,
}

impl Pebble {
    /// Returns `None`, with a message, if pebble is not installed. It verifies names at port `verified`. Its
    /// certificates are valid for `seconds`.
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
        std::fs::write(place.join("pebble.json"), settings.to_string()).unwrap();
        Some(Self { authority, server, place, port, management, running: Vec::new() })
    }

    fn start(&mut self) {
        let (dns, management) = (free_port(), free_port());
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
        names.args(["-dns01", &format!("127.0.0.1:{dns}"), "-management", &format!("127.0.0.1:{management}")]);
        let mut pebble = Command::new("pebble");
        pebble.arg("-config").arg(self.place.join("pebble.json")).args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
        pebble.env("PEBBLE_VA_NOSLEEP", "1");
        for command in [&mut names, &mut pebble] {
            self.running.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        }
        eventually("pebble listens", || {
            [&self.port, &self.management].iter().all(|port| TcpStream::connect(at(port)).is_ok())
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
        let url = format!("https://localhost:{}/dir", self.port);
        Hub::start(&[
            ("PORT", port),
            ("ADMIN_PORT", admin),
            ("TLS_ACME", NAME),
            ("TLS_ACME_DIR", directory),
            ("TLS_ACME_URL", &url),
            ("TLS_ACME_CA", &self.server.authority_file),
            ("TLS_ACME_EMAIL", "ops@example.com"),
        ])
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

/// A WebSocket to the hub, opened under its name.
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
    // The authority cannot be reached.
    let line = hub.logged("acme_order_failed");
    assert!(line.contains("cannot be reached") && line.contains("TLS_ACME_CA"), "{line}");
    eventually("probes get the reason", || {
        let ready = page(&admin, "/readyz");
        ready.starts_with("HTTP/1.1 503") && ready.contains("no certificate yet: hub.example: ")
    });
    let missing = || metric(&admin, "peerpigeon_acme_names_missing");
    eventually("both are counted", || (missing(), metric(&admin, "peerpigeon_acme_names_failing")) == (1.0, 1.0));
    // Probes, which verify nothing, get the same answer at the port of TLS.
    let probe = command(&[("HOST", "127.0.0.1"), ("PORT", &port), ("TLS_ACME", NAME)]).arg("health").output().unwrap();
    assert!(String::from_utf8_lossy(&probe.stdout).contains("no certificate yet"), "{probe:?}");

    pebble.start();
    hub.signal("-HUP");
    hub.logged("acme_certificate_issued");
    hub.logged("tls_certificates_read");
    let config = pebble.trusting();
    let first = shown(&peer(&port, &config, 1));
    eventually("the hub is ready", || page(&admin, "/readyz").starts_with("HTTP/1.1 200"));
    eventually("nothing is missing", || missing() == 0.0);
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

    // The stored certificate needs neither an order nor an authority.
    pebble.stop();
    let hub = pebble.hub(&port, &admin, &directory);
    assert!(shown(&peer(&port, &config, 1)) == first && page(&admin, "/readyz").starts_with("HTTP/1.1 200"));
    hub.signal("-HUP");
    hub.logged("tls_certificates_read");
    assert_eq!((orders("issued"), orders("failed"), missing()), (0.0, 0.0, 0.0));
}

#[test]
fn a_certificate_is_renewed_in_time_and_stays_when_that_fails() {
    let (port, admin) = (free_port(), free_port());
    let Some(mut pebble) = Pebble::new(&port, 15) else { return };
    pebble.start();
    let hub = pebble.hub(&port, &admin, &pebble.directory());
    hub.logged("acme_certificate_issued");
    hub.logged("tls_certificates_read");
    let config = pebble.trusting();
    let mut open = peer(&port, &config, 1);
    // After two thirds of 15 s.
    hub.logged("acme_certificate_issued");
    hub.logged("tls_certificates_read");
    let renewed = shown(&peer(&port, &config, 2));
    assert_ne!(shown(&open), renewed);
    pebble.stop();
    hub.logged("acme_order_failed");
    assert_eq!(shown(&peer(&port, &config, 3)), renewed);
    eventually("it is counted", || metric(&admin, "peerpigeon_acme_names_failing") == 1.0);
    assert!(page(&admin, "/readyz").starts_with("HTTP/1.1 200"));
    open.write_all(&frame(1, br#"{"type":"ping"}"#)).unwrap();
    read_until(&mut open, &mut Vec::new(), b"pong");
    // The authority returns without its memory of the account.
    pebble.start();
    hub.signal("-HUP");
    let line = hub.logged("acme_order_failed");
    assert!(line.contains("account"), "{line}");
    hub.signal("-HUP");
    hub.logged("acme_certificate_issued");
}

#[test]
fn a_name_that_leads_elsewhere_is_logged_with_advice() {
    let (port, admin, elsewhere) = (free_port(), free_port(), free_port());
    let Some(mut pebble) = Pebble::new(&elsewhere, 90 * 86_400) else { return };
    pebble.start();
    let hub = pebble.hub(&port, &admin, &pebble.directory());
    let line = hub.logged("acme_order_failed");
    assert!(line.contains("cannot verify the name") && line.contains("port 443 there leads to PORT"), "{line}");
    eventually("probes get the reason", || page(&admin, "/readyz").contains("cannot verify the name"));
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
