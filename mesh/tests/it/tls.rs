//! Tests of links over TLS (`wss://`).

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use crate::hub::{Hub, config, door, hub};

/// A TLS proxy in front of a hub. Returns the proxy's URL and the CA's certificate.
async fn proxy(hub: &Hub) -> (String, String) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let tls = ServerConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://localhost:{}", listener.local_addr().unwrap().port());
    let to = hub.address;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(stream).await else { return };
                let mut plain = TcpStream::connect(to).await.unwrap();
                _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    (url, ca.pem())
}

#[tokio::test]
async fn a_configured_private_root_is_trusted() {
    let mut a = hub(1, &[]);
    let (url, pem) = proxy(&a).await;
    let mut config = config(2, &[url]);
    config.extra_roots = Some(pem.into_bytes().into());
    let mut b = Hub::start(door(), config);
    b.until_linked_to(&[1]).await;
    a.until_linked_to(&[2]).await;
    b.until("the answer to a ping", |reading| reading.links[0].rtt.is_some()).await;
}

#[tokio::test]
async fn an_unknown_root_is_not_trusted() {
    let a = hub(1, &[]);
    let (url, _) = proxy(&a).await;
    let mut b = hub(2, &[url]);
    let failed = |reading: &mesh::MeshReading| reading.dials[0].last_error.is_some();
    let reading = b.until("refused", failed).await;
    let why = reading.dials[0].last_error.clone().unwrap_or_default();
    assert!(why.contains("certificate"), "{why}");
}

#[tokio::test]
async fn with_dns_the_certificate_must_be_for_the_name() {
    let mut a = hub(1, &[]);
    let (url, pem) = proxy(&a).await;
    let port = url.rsplit(':').next().unwrap().parse().unwrap();
    let mut config = config(2, &[]);
    config.extra_roots = Some(pem.into_bytes().into());
    config.dns = Some(("localhost".to_owned(), port));
    config.dns_tls = true;
    let mut b = Hub::start(door(), config);
    b.until_linked_to(&[1]).await;
    a.until_linked_to(&[2]).await;
}
