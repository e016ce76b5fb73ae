//! A TLS proxy between the tests' clients, which use plain TCP, and a hub with TLS. If a client closes one direction,
//! resets its connection or stops reading, the proxy does the same on its connection to the hub.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

thread_local! {
    static OVER_TLS: Cell<bool> = const { Cell::new(false) };
}

/// Runs `test` with TLS between clients and all hubs that the test starts on this thread.
pub fn over_tls(test: impl FnOnce()) {
    OVER_TLS.set(true);
    test();
    OVER_TLS.set(false);
}

pub fn is_over_tls() -> bool {
    OVER_TLS.get()
}

/// A certificate and its key in files, and the certificate of the authority that signed it.
pub struct Certificate {
    pub authority: Vec<u8>,
    pub authority_file: String,
    pub certificate: String,
    pub key: String,
}

/// Issues certificates for `localhost` in its own directory.
pub struct Authority {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    place: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let place = std::env::temp_dir().join(format!("peerpigeon-it-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("authority {number}"));
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        std::fs::write(place.join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, place }
    }

    /// Issues a certificate that expires in `days` days, in files that are named after `name`. A negative number means
    /// an expired certificate.
    pub fn issue(&self, name: &str, days: i64) -> Certificate {
        self.issue_as(name, days, |_| ())
    }

    /// Like [`Self::issue`], with changed parameters of the certificate.
    pub fn issue_as(&self, name: &str, days: i64, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let now = std::time::SystemTime::now();
        let day = Duration::from_secs(86_400);
        params.not_before = (now - 1000 * day).into();
        params.not_after = if days < 0 { now - day * (-days) as u32 } else { now + day * days as u32 }.into();
        change(&mut params);
        let made = params.signed_by(&key, &self.issuer).unwrap();
        let file = |what: &str, text: &str| {
            // The file is replaced atomically, as renewal tools should do.
            let (new, file) =
                (self.place.join(format!("{name}.{what}.new")), self.place.join(format!("{name}.{what}")));
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, &file).unwrap();
            file.to_str().unwrap().to_owned()
        };
        Certificate {
            authority: self.issuer.der().to_vec(),
            authority_file: self.place.join("ca.pem").to_str().unwrap().to_owned(),
            key: file("key", &key.serialize_pem()),
            certificate: file("crt", &made.pem()),
        }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.place);
    }
}

/// The certificate of all hubs that run with [`over_tls`].
pub fn common() -> &'static Certificate {
    static COMMON: OnceLock<(Authority, Certificate)> = OnceLock::new();
    &COMMON
        .get_or_init(|| {
            let authority = Authority::new();
            let certificate = authority.issue("common", 90);
            (authority, certificate)
        })
        .1
}

/// A client configuration that trusts the certificate's authority.
pub fn client_config(certificate: &Certificate) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certificate.authority.clone())).unwrap();
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Number of connections that a hub has ended without close_notify.
pub static CUT: AtomicUsize = AtomicUsize::new(0);

/// The runtime of all proxied connections, on its own thread.
fn runtime() -> &'static Handle {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    })
}

/// Returns an address whose connections are forwarded with TLS to the hub at `to`.
pub fn lay(to: SocketAddr) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // The proxy's buffers are small, so unread data stays in the hub instead of in the proxy.
    SockRef::from(&listener).set_send_buffer_size(4096).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let connector = TlsConnector::from(Arc::new(client_config(common())));
    runtime().spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, to, connector.clone()));
        }
    });
    address
}

async fn carry(client: TcpStream, to: SocketAddr, connector: TlsConnector) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8192).unwrap();
    let Ok(hub) = socket.connect(to).await else { return };
    client.set_nodelay(true).unwrap();
    hub.set_nodelay(true).unwrap();
    let resets = hub.into_std().unwrap();
    let also = resets.try_clone().unwrap();
    let Ok(hub) =
        connector.connect(ServerName::try_from("localhost").unwrap(), TcpStream::from_std(resets).unwrap()).await
    else {
        return;
    };
    let (mut from_hub, mut to_hub) = split(hub);
    let (mut from_client, mut to_client) = client.into_split();
    let out = async move {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match from_client.read(&mut buffer).await {
                Ok(0) => {
                    _ = to_hub.shutdown().await;
                    return true;
                }
                Ok(n) if to_hub.write_all(&buffer[..n]).await.is_ok() && to_hub.flush().await.is_ok() => {}
                Ok(_) => return true,
                Err(_) => return false,
            }
        }
    };
    let back = async move {
        let mut buffer = vec![0; 4096];
        loop {
            match from_hub.read(&mut buffer).await {
                Ok(n @ 1..) if to_client.write_all(&buffer[..n]).await.is_ok() => {}
                end => {
                    if end.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof) {
                        CUT.fetch_add(1, Ordering::Relaxed);
                    }
                    _ = to_client.shutdown().await;
                    return;
                }
            }
        }
    };
    tokio::pin!(back);
    tokio::select! {
        ended = out => if ended {
            back.await;
        } else {
            SockRef::from(&also).set_linger(Some(Duration::ZERO)).unwrap();
        },
        () = &mut back => {}
    }
}
