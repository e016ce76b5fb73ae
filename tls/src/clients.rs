//! Client certificates: the certificate that a hub presents, and the authorities whose certificates a hub accepts.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificates::{CertificateFacts, Certificates, FileRole, LoadError, PairFiles, read};

/// The certificate that a hub presents to servers that ask for one. Clones share it.
#[derive(Clone)]
pub struct ClientCertificate(Arc<Presented>);

struct Presented(watch::Sender<Arc<Certificates>>);

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Presented").field(&self.0.borrow().facts()).finish()
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ClientCertificate {
    /// Loads a certificate with its key.
    ///
    /// # Errors
    ///
    /// Returns the first invalid file, and the reason. CA certificates and certificates that are not for clients are
    /// invalid, because other hubs refuse them.
    pub fn load(pair: &PairFiles) -> Result<Certificates, LoadError> {
        let loaded = Certificates::load(std::slice::from_ref(pair))?;
        let invalid = |problem| LoadError { role: FileRole::Certificate, file: pair.certificate.clone(), problem };
        let own = loaded.first().ok_or_else(|| invalid("has no certificate".to_owned()))?;
        check_usage(&own.cert[0]).map_err(invalid)?;
        Ok(loaded)
    }

    /// Presents the first of these certificates.
    pub fn new(certificates: Arc<Certificates>) -> Self {
        Self(Arc::new(Presented(watch::Sender::new(certificates))))
    }

    /// The certificates.
    pub fn certificates(&self) -> Arc<Certificates> {
        Arc::clone(&self.0.0.borrow())
    }

    /// Replaces the certificate for new connections.
    pub fn replace(&self, certificates: Arc<Certificates>) {
        self.0.0.send_replace(certificates);
    }

    /// Presents the certificate in connections of a client configuration.
    pub fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::clone(&self.0) as Arc<dyn ResolvesClientCert>
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().first()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The CAs whose certificates a hub accepts from its clients.
pub struct ClientAuthorities {
    roots: Arc<RootCertStore>,
    facts: Vec<CertificateFacts>,
}

impl fmt::Debug for ClientAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuthorities").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl ClientAuthorities {
    /// Loads CA certificates.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, has no certificate, or has a certificate that is unsuitable. A certificate
    /// that is not a CA is invalid, because its key could then sign certificates that this hub accepts. A public CA is
    /// invalid, because anyone can get a certificate from it.
    pub fn load(file: &Path) -> Result<Self, LoadError> {
        let wrong = |problem| LoadError { role: FileRole::Certificate, file: file.to_owned(), problem };
        let text = read(file).map_err(wrong)?;
        let mut roots = RootCertStore::empty();
        let mut facts = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| wrong(format!("is not valid PEM: {error}")))?;
            facts.push(CertificateFacts::read(file, &certificate).map_err(wrong)?);
            if !is_authority(&certificate) {
                return Err(wrong(
                    "has a certificate that is not a CA: use the certificate of the CA that signs the \
                     certificates of hubs"
                        .to_owned(),
                ));
            }
            roots.add(certificate).map_err(|error| wrong(format!("has a CA that cannot be used: {error}")))?;
        }
        if facts.is_empty() {
            return Err(wrong("has no certificate: use a PEM file with the certificates of CAs".to_owned()));
        }
        let is_public = |root: &rustls::pki_types::TrustAnchor<'_>| {
            webpki_roots::TLS_SERVER_ROOTS.iter().any(|public| {
                public.subject == root.subject && public.subject_public_key_info == root.subject_public_key_info
            })
        };
        if roots.roots.iter().any(is_public) {
            return Err(wrong(
                "has a public CA, of which anyone can get a certificate: use a CA that signs only certificates of hubs"
                    .to_owned(),
            ));
        }
        Ok(Self { roots: Arc::new(roots), facts })
    }

    /// The facts about each CA, in the order of the file.
    pub fn facts(&self) -> &[CertificateFacts] {
        &self.facts
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.roots)
    }
}

fn is_authority(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| parsed.is_ca())
}

/// Whether servers can accept a certificate from a client.
fn check_usage(certificate: &CertificateDer<'_>) -> Result<(), String> {
    let unreadable = |error: &dyn fmt::Display| format!("has a certificate that cannot be read: {error}");
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| unreadable(&error))?;
    if parsed.is_ca() {
        return Err("has a CA certificate, as `openssl req -x509` makes: issue a certificate with CA:FALSE".to_owned());
    }
    let usage = parsed.extended_key_usage().map_err(|error| unreadable(&error))?;
    if usage.is_some_and(|usage| !usage.value.client_auth) {
        return Err(
            "has a certificate that is not for clients: issue it with the extended key usage clientAuth".to_owned()
        );
    }
    Ok(())
}
