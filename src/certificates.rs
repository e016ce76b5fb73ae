//! Reloads the certificate files when they change, and on SIGHUP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use proto::limits::TLS_RELOAD_INTERVAL;
use tls::{Acceptor, Certificates, FileStamps, LoadError};
use tokio::signal::unix::Signal;
use tracing::{info, warn};

use crate::acme::{Acme, AcmeFacts, Wakes};
use crate::config::{CertificateSources, TlsSettings, expiry_warning};

/// The state of the certificates, for metrics.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    acceptor: Acceptor,
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
    /// The certificates for new connections.
    pub fn certificates(&self) -> Arc<Certificates> {
        self.acceptor.certificates()
    }

    /// Number of reloads that succeeded, and of reloads that failed.
    pub fn reloads(&self) -> (u64, u64) {
        (self.counts.done.load(Ordering::Relaxed), self.counts.failed.load(Ordering::Relaxed))
    }

    /// The state of the certificates that the hub orders; `None` without TLS_ACME.
    pub fn acme(&self) -> Option<&AcmeFacts> {
        self.acme.as_ref()
    }

    /// Why clients cannot connect yet: the hub has no certificate.
    pub fn lacks_certificate(&self) -> Option<String> {
        let acme = self.acme.as_ref().filter(|_| self.certificates().facts().is_empty())?;
        let problem = acme.view().problem;
        Some(format!("no certificate yet: {}", problem.as_deref().unwrap_or("it was ordered")))
    }

    /// Whether the latest files are invalid, so that new connections still use the previous certificates.
    pub fn is_stale(&self) -> bool {
        self.counts.stale.load(Ordering::Relaxed)
    }
}

/// Keeps the certificates of an [`Acceptor`] equal to their files.
#[derive(Debug)]
pub struct Reloader {
    sources: Arc<CertificateSources>,
    seen: FileStamps,
    facts: TlsFacts,
    wakes: Wakes,
}

impl Reloader {
    /// Starts with the certificates that were loaded with the settings. With TLS_ACME, also returns the part that
    /// orders certificates.
    ///
    /// # Errors
    ///
    /// If the system provides no random bytes for keys.
    pub fn new(settings: &TlsSettings) -> std::io::Result<(Self, Option<Acme>)> {
        let secret = settings.ticket_key.as_ref().map(|key| key.expose().as_bytes());
        let mut acceptor = Acceptor::new(Arc::clone(&settings.certificates), secret)?;
        if settings.acme.is_some() {
            acceptor = acceptor.with_challenges(crate::acme::stand_in()?);
        }
        let wakes = Wakes::default();
        let acme = settings.acme.as_ref();
        let acme = acme.map(|acme| Acme::new(acme.clone(), acceptor.clone(), wakes.clone())).transpose()?;
        let facts = TlsFacts { acceptor, counts: Arc::default(), acme: acme.as_ref().map(Acme::facts) };
        // The first check finds changes since the settings were read.
        let seen = settings.stamps.clone();
        Ok((Self { sources: Arc::new(settings.sources()), seen, facts, wakes }, acme))
    }

    /// The acceptor, which creates TLS connections.
    pub fn acceptor(&self) -> &Acceptor {
        &self.facts.acceptor
    }

    /// The current state, for metrics.
    pub fn facts(&self) -> TlsFacts {
        self.facts.clone()
    }

    /// Checks the files periodically, and reloads them on each message of `asked`.
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
            let (sources, seen) = (Arc::clone(&self.sources), self.seen.clone());
            // A blocking thread reads the files, because a file system can be slow.
            let looked = tokio::task::spawn_blocking(move || {
                let now = sources.stamps();
                (is_asked || now != seen).then(|| (now, sources.load()))
            });
            if let Ok(Some((stamps, loaded))) = looked.await {
                self.seen = stamps;
                self.take(loaded.map(|(_, certificates)| certificates));
            }
        }
    }

    /// Installs the loaded certificates, or logs why they are invalid.
    fn take(&self, loaded: Result<Certificates, LoadError>) {
        let TlsFacts { acceptor, counts, .. } = &self.facts;
        match loaded {
            Ok(certificates) => {
                for detail in certificates.facts().iter().filter_map(|facts| expiry_warning(facts, SystemTime::now())) {
                    warn!(detail, "tls_certificate_expires");
                }
                let number = certificates.facts().len();
                acceptor.replace(Arc::new(certificates));
                counts.done.fetch_add(1, Ordering::Relaxed);
                counts.stale.store(false, Ordering::Relaxed);
                info!(certificates = number, "tls_certificates_read");
            }
            Err(error) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                counts.stale.store(true, Ordering::Relaxed);
                warn!(%error, detail = "the previous certificates stay in use", "tls_certificates_refused");
            }
        }
    }
}
