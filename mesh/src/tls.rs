//! TLS for outgoing connections to hubs.

use std::collections::VecDeque;
use std::io;
#[expect(clippy::disallowed_types, reason = "rustls requires a store that threads can share")]
use std::sync::Mutex;
use std::sync::{Arc, PoisonError};

use tls::{ClientCertificate, Explained};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use tokio_rustls::rustls::crypto::{
    WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, NamedGroup, RootCertStore, SignatureScheme};

use crate::stream::MaybeTlsStream;

/// The TLS settings for outgoing connections: trusted roots, own certificate, session tickets. Clones share them.
#[derive(Clone)]
pub struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Trusts the public roots and `extra_roots` (PEM).
    ///
    /// # Errors
    ///
    /// Fails if `extra_roots` contains an invalid certificate, or no certificate.
    pub fn new(extra_roots: Option<&[u8]>) -> io::Result<Self> {
        connector(extra_roots).map(Self)
    }

    /// Trusts any certificate. Use this method only for probes of the hub on this machine, and never for secret data.
    ///
    /// # Errors
    ///
    /// Fails if TLS cannot be set up.
    pub fn without_proof() -> io::Result<Self> {
        let provider = aws_lc_rs::default_provider();
        let anyone = Anyone(provider.signature_verification_algorithms);
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(anyone))
            .with_no_client_auth();
        Ok(Self(Arc::new(config).into()))
    }

    /// Presents this certificate to servers that ask for one.
    #[must_use]
    pub fn with_certificate(self, certificate: &ClientCertificate) -> Self {
        let mut config = ClientConfig::clone(self.0.config());
        config.client_auth_cert_resolver = certificate.resolver();
        Self(Arc::new(config).into())
    }

    /// Keeps up to this number of TLS session tickets, for many connections to one server. The default is eight tickets
    /// per server. With 0, no TLS session is resumed.
    #[must_use]
    #[expect(clippy::disallowed_types, reason = "rustls requires a store that threads can share")]
    pub fn keeping_tickets(self, most: usize) -> Self {
        let mut config = ClientConfig::clone(self.0.config());
        config.resumption = match most {
            0 => Resumption::disabled(),
            most => Resumption::store(Arc::new(Tickets { most, kept: Mutex::default() })),
        };
        Self(Arc::new(config).into())
    }

    /// Does the TLS handshake with `host`, a name or an address without brackets.
    ///
    /// # Errors
    ///
    /// Fails if `host` is invalid, or if the handshake fails, for example because the other side does not prove its
    /// identity.
    pub async fn connect(&self, host: &str, tcp: TcpStream) -> io::Result<MaybeTlsStream> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = self.0.connect(name, tcp).await.map_err(Explained::io)?;
        Ok(MaybeTlsStream::Tls(Box::new(stream)))
    }
}

/// The session tickets of one server (TLS 1.3), oldest first. Sessions of TLS 1.2 are not stored.
#[derive(Debug)]
#[expect(clippy::disallowed_types, reason = "rustls requires a store that threads can share")]
struct Tickets {
    most: usize,
    kept: Mutex<VecDeque<Tls13ClientSessionValue>>,
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == self.most {
            kept.pop_front();
        }
        kept.push_back(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// Accepts every certificate, and verifies only that the other side has the key of its certificate.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

fn connector(extra_roots: Option<&[u8]>) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(pem) = extra_roots {
        let public = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| invalid(&error))?;
            roots.add(certificate).map_err(|error| invalid(&error))?;
        }
        if roots.len() == public {
            return Err(invalid(&"the file contains no certificate"));
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

fn invalid(error: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("certificates to trust: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_certificates_are_refused() {
        assert!(connector(None).is_ok());
        for bad in [&b""[..], b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let error = connector(Some(bad)).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.starts_with("certificates to trust: ")), "{bad:?}");
        }
    }
}
