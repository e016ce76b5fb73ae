//! Reads the files of certificates again when they change, or when SIGHUP asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use proto::limits::TLS_RELOAD_INTERVAL;
use tls::{Acceptor, Certificates, FileStamps, LoadError, PairFiles};
use tokio::signal::unix::Signal;
use tracing::{info, warn};

use crate::config::{TlsSettings, expiry_warning};

/// What metrics show of certificates.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    acceptor: Acceptor,
    counts: Arc<Counts>,
}

#[derive(Default, Debug)]
struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
    stale: AtomicBool,
}

impl TlsFacts {
    /// The certificates that new connections are served with.
    pub fn certificates(&self) -> Arc<Certificates> {
        self.acceptor.certificates()
    }

    /// How often changed files were taken, and how often they were refused.
    pub fn reloads(&self) -> (u64, u64) {
        (self.counts.done.load(Ordering::Relaxed), self.counts.failed.load(Ordering::Relaxed))
    }

    /// Whether the files have changed and cannot be used, so that older certificates are served.
    pub fn is_stale(&self) -> bool {
        self.counts.stale.load(Ordering::Relaxed)
    }
}

/// Keeps the certificates of an [`Acceptor`] as their files are.
#[derive(Debug)]
pub struct Reloader {
    files: Arc<[PairFiles]>,
    seen: FileStamps,
    facts: TlsFacts,
}

impl Reloader {
    /// Serves with the certificates that were found when the settings were read.
    ///
    /// # Errors
    ///
    /// When there is no randomness for tickets.
    pub fn new(settings: &TlsSettings) -> std::io::Result<Self> {
        let secret = settings.ticket_key.as_ref().map(|key| key.expose().as_bytes());
        let acceptor = Acceptor::new(Arc::clone(&settings.certificates), secret)?;
        let files: Arc<[PairFiles]> = settings.files.clone().into();
        // What has changed since then is found by the first look.
        let seen = settings.stamps.clone();
        Ok(Self { files, seen, facts: TlsFacts { acceptor, counts: Arc::default() } })
    }

    /// Begins connections.
    pub fn acceptor(&self) -> &Acceptor {
        &self.facts.acceptor
    }

    /// What metrics show.
    pub fn facts(&self) -> TlsFacts {
        self.facts.clone()
    }

    /// Looks at the files now and then, and reads them whenever `asked` says so.
    pub async fn run(mut self, asked: &mut Signal) {
        let mut looks = tokio::time::interval(TLS_RELOAD_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_asked = tokio::select! {
                _ = looks.tick() => false,
                came = asked.recv() => match came {
                    Some(()) => true,
                    None => std::future::pending().await,
                },
            };
            let (files, seen) = (Arc::clone(&self.files), self.seen.clone());
            // A file system may take its time.
            let looked = tokio::task::spawn_blocking(move || {
                let now = FileStamps::of(&files);
                (is_asked || now != seen).then(|| (now, Certificates::load(&files)))
            });
            if let Ok(Some((stamps, loaded))) = looked.await {
                self.seen = stamps;
                self.take(loaded);
            }
        }
    }

    /// Takes what was read, if it can be served.
    fn take(&self, loaded: Result<Certificates, LoadError>) {
        let TlsFacts { acceptor, counts } = &self.facts;
        match loaded {
            Ok(certificates) => {
                for detail in certificates.facts().iter().filter_map(|facts| expiry_warning(facts, SystemTime::now())) {
                    warn!(detail, "tls_certificate_expires");
                }
                acceptor.replace(Arc::new(certificates));
                counts.done.fetch_add(1, Ordering::Relaxed);
                counts.stale.store(false, Ordering::Relaxed);
                info!(certificates = self.files.len(), "tls_certificates_read");
            }
            Err(error) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                counts.stale.store(true, Ordering::Relaxed);
                warn!(%error, detail = "the certificates of before are served", "tls_certificates_refused");
            }
        }
    }
}
