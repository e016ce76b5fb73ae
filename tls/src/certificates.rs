//! Certificates and keys: loading, selection by name, and replacement while connections stay open.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::limits::MAX_TLS_FILE_BYTES;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, ServerConfig, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use tokio::sync::watch;
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, ParsedExtension, X509Certificate};

use crate::clients::ClientAuthorities;
use crate::connection::Connection;
use crate::tickets::SharedTickets;

/// The files of one certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PairFiles {
    /// Path of the certificate with its intermediate certificates, in PEM format.
    pub certificate: PathBuf,
    /// Path of the private key, in PEM format.
    pub key: PathBuf,
}

/// State of files for detecting changes: device, inode, size and time of the last change. Symbolic links are followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileStamps(Vec<Option<(u64, u64, u64, SystemTime)>>);

impl FileStamps {
    /// The current state of the files. The state includes which files are missing.
    pub fn of(pairs: &[PairFiles]) -> Self {
        Self::of_files(pairs.iter().flat_map(|pair| [&*pair.certificate, &*pair.key]))
    }

    /// The current state of files.
    pub fn of_files<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let stamp = |file: &Path| {
            let found = std::fs::metadata(file).ok()?;
            Some((found.dev(), found.ino(), found.len(), found.modified().ok()?))
        };
        Self(files.into_iter().map(stamp).collect())
    }
}

/// The purpose of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileRole {
    /// The file contains certificates.
    Certificate,
    /// The file contains a private key.
    Key,
}

/// Why a file is invalid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadError {
    /// The purpose of the file.
    pub role: FileRole,
    /// Path of the file.
    pub file: PathBuf,
    /// The error, and what to do.
    pub problem: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.problem)
    }
}

impl std::error::Error for LoadError {}

/// Facts about a certificate for operators.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFacts {
    /// Path of its file.
    pub file: PathBuf,
    /// The host names in the certificate.
    pub names: Vec<String>,
    /// Start of its validity.
    pub not_before: SystemTime,
    /// Time of its expiry.
    pub not_after: SystemTime,
    /// The id of the certificate at its authority (RFC 9773). `None` if the certificate does not name the authority's
    /// key.
    pub id: Option<CertificateId>,
}

/// The id of a certificate at its authority (RFC 9773). With this id, a hub asks the authority when to renew the
/// certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateId {
    /// The identifier of the authority's key.
    pub authority_key: Vec<u8>,
    /// The serial number as encoded in the certificate.
    pub serial: Vec<u8>,
}

impl CertificateFacts {
    /// Reads a certificate in DER format. The function does not open `file`, and only stores this path in the result.
    ///
    /// # Errors
    ///
    /// Fails if the certificate is invalid. The error text is the end of a sentence that begins with the name of the
    /// file.
    pub fn read(file: &Path, certificate: &CertificateDer<'_>) -> Result<Self, String> {
        facts(file, certificate)
    }

    /// Seconds until the expiry; negative afterwards.
    pub fn seconds_left(&self, now: SystemTime) -> f64 {
        match self.not_after.duration_since(now) {
            Ok(left) => left.as_secs_f64(),
            Err(error) => -error.duration().as_secs_f64(),
        }
    }
}

/// Certificates and keys, as loaded from their files.
#[derive(Debug)]
pub struct Certificates {
    /// The certificates with their keys, in the order of the files. The first certificate is for clients whose server
    /// name matches no certificate.
    keys: Vec<Arc<CertifiedKey>>,
    facts: Vec<CertificateFacts>,
    /// Index of the certificate for each name. A wildcard certificate has a key such as `*.example.com`.
    by_name: HashMap<String, usize>,
}

impl Certificates {
    /// Loads certificates and keys.
    ///
    /// # Errors
    ///
    /// Returns the first invalid file, and the reason.
    pub fn load(pairs: &[PairFiles]) -> Result<Self, LoadError> {
        let provider = aws_lc_rs::default_provider();
        let mut loaded = Self { keys: Vec::new(), facts: Vec::new(), by_name: HashMap::new() };
        for pair in pairs {
            let (key, facts) = load_pair(pair, &provider)?;
            for name in &facts.names {
                // If two certificates contain the same name, the first one is used.
                loaded.by_name.entry(name.clone()).or_insert(loaded.keys.len());
            }
            loaded.keys.push(Arc::new(key));
            loaded.facts.push(facts);
        }
        Ok(loaded)
    }

    /// The facts about each certificate, in the order of the files.
    pub fn facts(&self) -> &[CertificateFacts] {
        &self.facts
    }

    /// The first certificate with its key.
    pub(crate) fn first(&self) -> Option<Arc<CertifiedKey>> {
        self.keys.first().cloned()
    }

    #[cfg(test)]
    pub(crate) fn choose_der(&self, name: &str) -> Vec<u8> {
        self.choose(Some(name)).map(|key| key.cert[0].to_vec()).unwrap_or_default()
    }

    /// The certificate for clients with this server name.
    fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let at = name.and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let wildcard = || name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
            self.by_name.get(&name).copied().or_else(|| self.by_name.get(&wildcard()?).copied())
        });
        self.keys.get(at.unwrap_or_default()).cloned()
    }
}

fn load_pair(files: &PairFiles, provider: &CryptoProvider) -> Result<(CertifiedKey, CertificateFacts), LoadError> {
    let wrong = |role, problem: String| LoadError {
        role,
        file: match role {
            FileRole::Certificate => files.certificate.clone(),
            FileRole::Key => files.key.clone(),
        },
        problem,
    };
    let text = read(&files.certificate).map_err(|problem| wrong(FileRole::Certificate, problem))?;
    let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| wrong(FileRole::Certificate, format!("is not valid PEM: {error}")))?;
    let Some(own) = chain.first() else {
        let has_key = PrivateKeyDer::from_pem_slice(&text).is_ok();
        let problem = if has_key {
            "has a private key and no certificate: use the file of the certificate here, and this file for the key"
        } else {
            "has no certificate: use a PEM file with BEGIN CERTIFICATE, the hub's own certificate first"
        };
        return Err(wrong(FileRole::Certificate, problem.to_owned()));
    };
    let facts = facts(&files.certificate, own).map_err(|problem| wrong(FileRole::Certificate, problem))?;
    let text = read(&files.key).map_err(|problem| wrong(FileRole::Key, problem))?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        #[allow(clippy::wildcard_enum_match_arm, reason = "non-exhaustive")]
        let problem = match error {
            pem::Error::NoItemsFound if text.windows(21).any(|part| part == b"ENCRYPTED PRIVATE KEY") => {
                "has an encrypted key: decrypt it with `openssl pkey -in FILE -out PLAIN_FILE`".to_owned()
            }
            pem::Error::NoItemsFound => {
                "has no private key: use a PEM file with BEGIN PRIVATE KEY (or EC, or RSA PRIVATE KEY)".to_owned()
            }
            error => format!("is not valid PEM: {error}"),
        };
        wrong(FileRole::Key, problem)
    })?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        let certificate = files.certificate.display();
        let problem = if error == Error::InconsistentKeys(InconsistentKeys::KeyMismatch) {
            format!("does not match the certificate in {certificate}: use the key of that certificate")
        } else {
            format!("has a key that cannot be used: {error}")
        };
        wrong(FileRole::Key, problem)
    })?;
    Ok((key, facts))
}

pub(crate) fn read(file: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let mut text = Vec::new();
    let longest = MAX_TLS_FILE_BYTES as u64;
    std::fs::File::open(file).map_err(failed)?.take(longest + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > longest {
        return Err(format!("is too long: certificates and keys have at most {longest} bytes"));
    }
    Ok(text)
}

fn facts(file: &Path, certificate: &CertificateDer<'_>) -> Result<CertificateFacts, String> {
    let unreadable = |error: &dyn fmt::Display| format!("has a certificate that cannot be read: {error}");
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| unreadable(&error))?;
    let mut names = Vec::new();
    if let Some(alternatives) = parsed.subject_alternative_name().map_err(|error| unreadable(&error))? {
        for name in &alternatives.value.general_names {
            if let GeneralName::DNSName(name) = name {
                names.push(name.to_ascii_lowercase());
            }
        }
    }
    let time = |at: ASN1Time| UNIX_EPOCH + Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or_default());
    let (not_before, not_after) = (time(parsed.validity().not_before), time(parsed.validity().not_after));
    let authority_key = parsed.iter_extensions().find_map(|extension| {
        let ParsedExtension::AuthorityKeyIdentifier(found) = extension.parsed_extension() else { return None };
        Some(found.key_identifier.as_ref()?.0.to_vec())
    });
    let id = authority_key.map(|authority_key| CertificateId { authority_key, serial: parsed.raw_serial().to_vec() });
    Ok(CertificateFacts { file: file.to_owned(), names, not_before, not_after, id })
}

/// Creates the TLS connections of all shards of a hub. Clones share certificates and tickets.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    current: Arc<Current>,
    /// The configuration of the port that asks for client certificates. When the authorities are replaced, this
    /// configuration is replaced, too.
    links: Option<Arc<watch::Sender<Arc<ServerConfig>>>>,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("certificates", &self.certificates().facts).finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Makes an acceptor with these certificates. The ticket keys are derived from `ticket_secret`, which several hubs
    /// can share. Without a secret, the ticket keys are random. Derived keys and random keys change every six hours.
    ///
    /// # Errors
    ///
    /// Fails if the system provides no random bytes.
    pub fn new(certificates: Arc<Certificates>, ticket_secret: Option<&[u8]>) -> io::Result<Self> {
        let challenges = watch::Sender::new(HashMap::new());
        let current = Arc::new(Current { certificates: watch::Sender::new(certificates), challenges, stand_in: None });
        let tickets: Arc<dyn ProducesTickets> = match ticket_secret {
            Some(secret) => Arc::new(SharedTickets::new(secret)),
            None => aws_lc_rs::Ticketer::new().map_err(io::Error::other)?,
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![HTTP.to_vec()];
        // Tickets contain the sessions, so the hub stores nothing for clients that do not return.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = tickets;
        // One ticket is enough, because a client has one connection and gets a new ticket with its next connection.
        config.send_tls13_tickets = 1;
        Ok(Self { config: Arc::new(config), current, links: None })
    }

    /// A new connection.
    ///
    /// # Errors
    ///
    /// Fails if rustls refuses the configuration.
    pub fn connection(&self) -> io::Result<Connection> {
        Connection::new(Arc::clone(&self.config)).map_err(io::Error::other)
    }

    /// Makes an acceptor whose [`Self::link_connection`] asks for certificates of these authorities.
    ///
    /// # Errors
    ///
    /// Fails if rustls refuses the configuration.
    pub fn with_authorities(self, authorities: &ClientAuthorities) -> io::Result<Self> {
        let config = link_config(authorities, &self.current)?;
        Ok(Self { links: Some(Arc::new(watch::Sender::new(config))), ..self })
    }

    /// Replaces the authorities for new connections. Does nothing if the acceptor was made without
    /// [`Self::with_authorities`].
    ///
    /// # Errors
    ///
    /// Fails if rustls refuses the configuration.
    pub fn replace_authorities(&self, authorities: &ClientAuthorities) -> io::Result<()> {
        if let Some(links) = &self.links {
            links.send_replace(link_config(authorities, &self.current)?);
        }
        Ok(())
    }

    /// A new connection at the port for links. The connection asks the client for a certificate if there are
    /// authorities. A client without a certificate is accepted ([`Connection::is_certified`] is then false), and a
    /// client with an invalid certificate is refused.
    ///
    /// # Errors
    ///
    /// Fails if rustls refuses the configuration.
    pub fn link_connection(&self) -> io::Result<Connection> {
        let config = self.links.as_ref().map_or_else(|| Arc::clone(&self.config), |links| Arc::clone(&links.borrow()));
        Connection::new(config).map_err(io::Error::other)
    }

    /// The certificates of new connections.
    pub fn certificates(&self) -> Arc<Certificates> {
        Arc::clone(&self.current.certificates.borrow())
    }

    /// Replaces the certificates for new connections. Existing connections and tickets stay valid.
    pub fn replace(&self, certificates: Arc<Certificates>) {
        self.current.certificates.send_replace(certificates);
    }

    /// Makes the acceptor also answer the challenges of certificate authorities (TLS-ALPN-01, RFC 8737). While there is
    /// no certificate, clients get `stand_in`. Clients that verify certificates refuse `stand_in`. Health probes accept
    /// `stand_in`, because they do not verify certificates. Call this method before [`Self::with_authorities`], because
    /// it removes the configuration for links.
    pub fn with_challenges(self, stand_in: Arc<OwnKey>) -> Self {
        let mut config = ServerConfig::clone(&self.config);
        // HTTP comes first, so clients that also offer HTTP do not get the protocol of the challenge.
        config.alpn_protocols = vec![HTTP.to_vec(), CHALLENGE.to_vec()];
        let current = Arc::new(Current {
            certificates: watch::Sender::new(self.certificates()),
            challenges: watch::Sender::new(HashMap::new()),
            stand_in: Some(stand_in),
        });
        config.cert_resolver = Arc::clone(&current) as Arc<dyn ResolvesServerCert>;
        Self { config: Arc::new(config), current, links: None }
    }

    /// Presents the certificate `answer` to the authority that verifies `name`, until [`Self::end_challenge`] is
    /// called.
    pub fn begin_challenge(&self, name: &str, answer: Arc<OwnKey>) {
        self.current.challenges.send_modify(|challenges| _ = challenges.insert(name.to_owned(), answer));
    }

    /// Ends the challenge for `name`.
    pub fn end_challenge(&self, name: &str) {
        self.current.challenges.send_modify(|challenges| _ = challenges.remove(name));
    }
}

/// The configuration of connections that ask for a client certificate.
fn link_config(authorities: &ClientAuthorities, current: &Arc<Current>) -> io::Result<Arc<ServerConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    // The names of the authorities are not sent, because anyone who connects could read them. A hub has one
    // certificate and presents it in any case.
    let verifier = WebPkiClientVerifier::builder_with_provider(authorities.roots(), Arc::clone(&provider))
        .allow_unauthenticated()
        .clear_root_hint_subjects()
        .build()
        .map_err(io::Error::other)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(current) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![HTTP.to_vec()];
    // A resumed session would rely on a certificate that was verified earlier. Since then, the certificate may have
    // expired, or its authority may have been removed. So connections that ask for a client certificate issue no
    // tickets and accept no tickets.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A self-signed certificate with its key.
#[derive(Debug)]
pub struct OwnKey(Arc<CertifiedKey>);

impl OwnKey {
    /// Combines a certificate in DER format with its key in PKCS #8 format. The two must match.
    ///
    /// # Errors
    ///
    /// Fails if the key is invalid.
    pub fn new(certificate: Vec<u8>, key: Vec<u8>) -> io::Result<Self> {
        let key = PrivateKeyDer::Pkcs8(key.into());
        let key = aws_lc_rs::default_provider().key_provider.load_private_key(key).map_err(io::Error::other)?;
        // `CertifiedKey::from_der` would refuse the critical extension in the certificate of a challenge.
        Ok(Self(Arc::new(CertifiedKey::new(vec![certificate.into()], key))))
    }
}

const HTTP: &[u8] = b"http/1.1";

/// The ALPN protocol over which a certificate authority verifies a name.
pub(crate) const CHALLENGE: &[u8] = b"acme-tls/1";

#[derive(Debug)]
struct Current {
    certificates: watch::Sender<Arc<Certificates>>,
    /// The answers to challenges, by name.
    challenges: watch::Sender<HashMap<String, Arc<OwnKey>>>,
    stand_in: Option<Arc<OwnKey>>,
}

impl ResolvesServerCert for Current {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if hello.alpn().is_some_and(|mut offered| offered.next() == Some(CHALLENGE) && offered.next().is_none()) {
            let name = hello.server_name()?.to_ascii_lowercase();
            return self.challenges.borrow().get(&name).map(|answer| Arc::clone(&answer.0));
        }
        let found = self.certificates.borrow().choose(hello.server_name());
        found.or_else(|| self.stand_in.as_ref().map(|stand_in| Arc::clone(&stand_in.0)))
    }
}
