//! TLS: the servers' certificate, the generator's side of a connection, and nginx in front of a hub.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// The certificate of all servers with TLS: ECDSA, P-256, for `localhost`.
pub(crate) struct Certificate {
    pub(crate) place: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    client: Arc<ClientConfig>,
}

/// The certificate. The first call makes it.
pub(crate) fn certificate() -> io::Result<&'static Certificate> {
    static MADE: OnceLock<Result<Certificate, String>> = OnceLock::new();
    MADE.get_or_init(|| make().map_err(|error| error.to_string()))
        .as_ref()
        .map_err(|error| io::Error::other(error.clone()))
}

fn make() -> io::Result<Certificate> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
    let place = std::env::temp_dir().join(format!("peerpigeon-bench-{}", std::process::id()));
    std::fs::create_dir_all(&place)?;
    let (certificate, key) = (place.join("crt.pem"), place.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(made.cert.der().to_vec())).map_err(io::Error::other)?;
    // The list has the cipher suites that browsers on hardware with AES offer first, and that all servers support.
    let provider = CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.resumption = Resumption::disabled();
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Certificate { place, certificate, key, client: Arc::new(client) })
}

/// The client's side of a TLS connection.
pub(crate) fn client() -> io::Result<ClientConnection> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut client = ClientConnection::new(Arc::clone(&certificate()?.client), name).map_err(io::Error::other)?;
    client.set_buffer_limit(None);
    Ok(client)
}

/// The first message of a TLS client, its ClientHello. The ClientHello causes most of the cost that a handshake has for
/// a server. All simulated clients send the same bytes, so the generator spends no time on making them.
pub(crate) fn hello() -> io::Result<Vec<u8>> {
    let mut hello = Vec::new();
    client()?.write_tls(&mut hello)?;
    Ok(hello)
}

/// Reads and decrypts available data, as far as the buffer has room. Returns 0 if the connection is over.
pub(crate) fn read(tls: &mut ClientConnection, mut stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    loop {
        match tls.read_tls(&mut stream) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && read > 0 => break,
            Err(error) => return Err(error),
        }
        tls.process_new_packets().map_err(io::Error::other)?;
        if tls.wants_write() {
            write(tls, stream)?;
        }
        match tls.reader().read(&mut into[read..]) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if read + 64 * 1024 > into.len() {
            break;
        }
    }
    Ok(read)
}

/// Writes encrypted data, as far as the socket accepts it.
pub(crate) fn write(tls: &mut ClientConnection, mut stream: &TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(&mut stream) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    stream.flush()
}

/// Writes the configuration of a single-process nginx that terminates TLS in front of the hub at port `hub`.
pub(crate) fn nginx(port: u16, hub: u16, connections: usize, place: &Path) -> io::Result<PathBuf> {
    let Certificate { certificate, key, .. } = certificate()?;
    let file = place.join(format!("nginx-{port}.conf"));
    let (certificate, key, place) = (certificate.display(), key.display(), place.display());
    let text = format!(
        "daemon off;\nmaster_process off;\nerror_log stderr crit;\npid {place}/nginx-{port}.pid;\n\
         worker_rlimit_nofile {files};\nevents {{ worker_connections {files}; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path {place}/body;\n  proxy_temp_path {place}/proxy;\n\
         fastcgi_temp_path {place}/fastcgi;\n  uwsgi_temp_path {place}/uwsgi;\n  scgi_temp_path {place}/scgi;\n\
         upstream hub {{ server 127.0.0.1:{hub}; }}\n  server {{\n    listen 127.0.0.1:{port} ssl backlog=4096;\n\
         ssl_certificate {certificate};\n    ssl_certificate_key {key};\n    ssl_protocols TLSv1.2 TLSv1.3;\n\
         location / {{\n      proxy_pass http://hub;\n      proxy_http_version 1.1;\n      proxy_buffering off;\n\
         proxy_set_header Host $host;\n      proxy_set_header Upgrade $http_upgrade;\n\
         proxy_set_header Connection upgrade;\n      proxy_read_timeout 300s;\n      proxy_send_timeout 300s;\n\
         tcp_nodelay on;\n    }}\n  }}\n}}\n",
        files = 2 * connections + 100,
    );
    std::fs::write(&file, text)?;
    Ok(file)
}

/// Whether nginx is installed.
pub(crate) fn has_nginx() -> bool {
    std::process::Command::new("nginx").arg("-v").output().is_ok()
}
