//! Reloads the certificate files when they change, and on SIGHUP.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use proto::limits::TLS_RELOAD_INTERVAL;
use tls::{
    Acceptor, CertificateFacts, Certificates, ClientAuthorities, ClientCertificate, FileStamps, LoadError, PairFiles,
};
use tokio::signal::unix::Signal;
use tracing::{info, warn};

use crate::acme::{Acme, AcmeFacts, Wakes};
use crate::config::{CertificateSources, MeshCertificates, TlsSettings, expiry_warning};

/// The state of the certificates, for metrics.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// `None` if the hub does not speak TLS itself.
    acceptor: Option<Acceptor>,
    /// The certificate for other hubs (MESH_CERT).
    own: Option<ClientCertificate>,
    counts: Arc<ReloadCounts>,
    acme: Option<AcmeFacts>,
}

#[derive(Default, Debug)]
struct ReloadCounts {
    done: AtomicU64,
    failed: AtomicU64,
    stale: AtomicBool,
}

impl TlsFacts {
    /// Facts about the certificates that new connections use, including the hub's certificate for links to other hubs.
    pub fn certificates(&self) -> Vec<CertificateFacts> {
        let served = self.acceptor.as_ref().map(Acceptor::certificates);
        let own = self.own.as_ref().map(ClientCertificate::certificates);
        served.iter().chain(&own).flat_map(|certificates| certificates.facts()).cloned().collect()
    }

    /// Number of reloads of certificate files that succeeded, and of reloads that failed.
    pub fn reloads(&self) -> (u64, u64) {
        (self.counts.done.load(Ordering::Relaxed), self.counts.failed.load(Ordering::Relaxed))
    }

    /// The state of the certificates that the hub orders; `None` without TLS_ACME.
    pub fn acme(&self) -> Option<&AcmeFacts> {
        self.acme.as_ref()
    }

    /// If the hub has no certificate yet, returns a sentence that says why. Clients cannot connect until it has one.
    pub fn lacks_certificate(&self) -> Option<String> {
        let is_served = |acceptor: &Acceptor| !acceptor.certificates().facts().is_empty();
        let acme = self.acme.as_ref().filter(|_| !self.acceptor.as_ref().is_some_and(is_served))?;
        let problem = acme.view().problem;
        Some(format!("no certificate yet: {}", problem.as_deref().unwrap_or("the order is not complete")))
    }

    /// Whether the latest files are invalid, so that new connections still use the previous certificates.
    pub fn is_stale(&self) -> bool {
        self.counts.stale.load(Ordering::Relaxed)
    }
}

/// Certificate files that are loaded together.
#[derive(Clone, Debug)]
enum Source {
    /// The certificates that the hub serves, from TLS_CERT, TLS_KEY and the files of ordered certificates.
    Served(CertificateSources),
    /// MESH_CERT and MESH_KEY.
    Own(PairFiles),
    /// MESH_CLIENT_CA.
    Authorities(PathBuf),
}

/// The content of a [`Source`].
enum Loaded {
    Served(Certificates),
    Own(Certificates),
    Authorities(ClientAuthorities),
}

impl Source {
    /// The setting that names the files.
    fn setting(&self) -> &'static str {
        match self {
            Self::Served(_) => "TLS_CERT",
            Self::Own(_) => "MESH_CERT",
            Self::Authorities(_) => "MESH_CLIENT_CA",
        }
    }

    fn stamps(&self) -> FileStamps {
        match self {
            Self::Served(sources) => sources.stamps(),
            Self::Own(pair) => FileStamps::of(std::slice::from_ref(pair)),
            Self::Authorities(file) => FileStamps::of_files([&**file]),
        }
    }

    fn load(&self) -> Result<Loaded, LoadError> {
        match self {
            Self::Served(sources) => sources.load().map(|(_, certificates)| Loaded::Served(certificates)),
            Self::Own(pair) => ClientCertificate::load(pair).map(Loaded::Own),
            Self::Authorities(file) => ClientAuthorities::load(file).map(Loaded::Authorities),
        }
    }
}

/// A source with the state of its files when they were last read.
#[derive(Clone, Debug)]
struct Watched {
    source: Source,
    seen: FileStamps,
    /// Whether the files were invalid when they were last read.
    is_stale: bool,
}

/// Reloads the files of certificates when they change, and installs them for new connections.
#[derive(Debug)]
pub struct Reloader {
    watched: Vec<Watched>,
    facts: TlsFacts,
    wakes: Wakes,
}

impl Reloader {
    /// Creates a reloader, which starts with the certificates that were loaded with the settings. With TLS_ACME, also
    /// returns the [`Acme`] that orders certificates. Returns `None` if no certificate is configured.
    ///
    /// # Errors
    ///
    /// If the system provides no random bytes for keys.
    pub fn new(tls: Option<&TlsSettings>, mesh: &MeshCertificates) -> std::io::Result<Option<(Self, Option<Acme>)>> {
        if tls.is_none() && mesh.own.is_none() {
            return Ok(None);
        }
        let wakes = Wakes::default();
        // `seen` dates from the time when the settings were read, so the first check finds all later changes.
        let watch = |source, seen: &FileStamps| Watched { source, seen: seen.clone(), is_stale: false };
        let mut watched = Vec::new();
        let (mut acceptor, mut acme) = (None, None);
        if let Some(tls) = tls {
            watched.push(watch(Source::Served(tls.sources()), &tls.stamps));
            let secret = tls.ticket_key.as_ref().map(|key| key.expose().as_bytes());
            let mut made = Acceptor::new(Arc::clone(&tls.certificates), secret)?;
            if tls.acme.is_some() {
                made = made.with_challenges(crate::acme::stand_in()?);
            }
            if let Some(of_hubs) = &mesh.authorities {
                watched.push(watch(Source::Authorities(of_hubs.file.clone()), &of_hubs.stamps));
                made = made.with_authorities(&of_hubs.authorities)?;
            }
            let settings = tls.acme.as_ref();
            acme = settings.map(|acme| Acme::new(acme.clone(), made.clone(), wakes.clone())).transpose()?;
            acceptor = Some(made);
        }
        let own = mesh.own.as_ref().map(|own| {
            watched.push(watch(Source::Own(own.files.clone()), &own.stamps));
            ClientCertificate::new(Arc::clone(&own.certificates))
        });
        let facts = TlsFacts { acceptor, own, counts: Arc::default(), acme: acme.as_ref().map(Acme::facts) };
        Ok(Some((Self { watched, facts, wakes }, acme)))
    }

    /// The acceptor, which creates TLS connections. `None` if the hub does not speak TLS itself.
    pub fn acceptor(&self) -> Option<&Acceptor> {
        self.facts.acceptor.as_ref()
    }

    /// The certificate for other hubs.
    pub fn own(&self) -> Option<&ClientCertificate> {
        self.facts.own.as_ref()
    }

    /// The current state, for metrics.
    pub fn facts(&self) -> TlsFacts {
        self.facts.clone()
    }

    /// Reloads the certificate files when a periodic check finds a change, on each signal of `asked`, and when a new
    /// certificate has been issued.
    pub async fn run(mut self, asked: &mut Signal) {
        let mut looks = tokio::time::interval(TLS_RELOAD_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_asked = tokio::select! {
                _ = looks.tick() => false,
                () = self.wakes.stored.notified() => true,
                came = asked.recv() => match came {
                    Some(()) => {
                        self.wakes.asked.notify_one();
                        true
                    }
                    None => std::future::pending().await,
                },
            };
            let watched = self.watched.clone();
            // A blocking thread reads the files, because a file system can be slow.
            let looked = tokio::task::spawn_blocking(move || {
                let look = |Watched { source, seen, .. }: &Watched| {
                    // The stamps of the files are read before their contents, so that the next check finds a change
                    // during the read.
                    let now = source.stamps();
                    (is_asked || now != *seen).then(|| (now, source.load()))
                };
                watched.iter().map(look).collect::<Vec<_>>()
            });
            for (at, looked) in looked.await.into_iter().flatten().enumerate() {
                if let Some((stamps, loaded)) = looked {
                    let is_stale = !self.take(self.watched[at].source.setting(), loaded);
                    let watched = &mut self.watched[at];
                    (watched.seen, watched.is_stale) = (stamps, is_stale);
                }
            }
            let is_stale = self.watched.iter().any(|watched| watched.is_stale);
            self.facts.counts.stale.store(is_stale, Ordering::Relaxed);
        }
    }

    /// Installs the loaded files, or logs why they are invalid. Returns whether they are installed.
    fn take(&self, setting: &'static str, loaded: Result<Loaded, LoadError>) -> bool {
        let TlsFacts { acceptor, own, counts, .. } = &self.facts;
        let installed = loaded.map_err(|error| error.to_string()).and_then(|loaded| match loaded {
            Loaded::Served(certificates) => {
                let facts = certificates.facts().to_vec();
                if let Some(acceptor) = acceptor {
                    acceptor.replace(Arc::new(certificates));
                }
                Ok(facts)
            }
            Loaded::Own(certificates) => {
                let facts = certificates.facts().to_vec();
                if let Some(own) = own {
                    own.replace(Arc::new(certificates));
                }
                Ok(facts)
            }
            Loaded::Authorities(authorities) => {
                if let Some(acceptor) = acceptor {
                    acceptor.replace_authorities(&authorities).map_err(|error| error.to_string())?;
                }
                Ok(authorities.facts().to_vec())
            }
        });
        match installed {
            Ok(facts) => {
                // A CA in MESH_CLIENT_CA that expires soon causes no warning, because TLS does not check the expiry of
                // trusted CAs.
                let expiring = facts.iter().filter(|_| setting != "MESH_CLIENT_CA");
                for detail in expiring.filter_map(|facts| expiry_warning(setting, facts, SystemTime::now())) {
                    warn!(detail, "tls_certificate_expires");
                }
                counts.done.fetch_add(1, Ordering::Relaxed);
                info!(setting, certificates = facts.len(), "tls_certificates_read");
                true
            }
            Err(error) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                warn!(setting, %error, detail = "the previous certificates stay in use", "tls_certificates_refused");
                false
            }
        }
    }
}
