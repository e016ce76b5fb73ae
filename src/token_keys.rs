//! Loads the keys of tokens. Keys come from files and from the URL of an identity provider. Files are read again when
//! they change, and on SIGHUP.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use hyper::{Request, StatusCode, Uri};
use mesh::{ConnectError, Tls};
use proto::limits::{JWKS_FLOOR, JWKS_INTERVAL, JWKS_TIMEOUT, MAX_JWKS_BYTES, TLS_RELOAD_INTERVAL};
use shard::{KeyProblem, TokenKey, Tokens};
use tokio::signal::unix::Signal;
use tracing::{info, warn};

use crate::config::{TokenSettings, TokenSources};
use crate::https;

/// Numbers of loads, for metrics. All clones show the same numbers.
#[derive(Clone, Debug, Default)]
pub struct KeyFacts(Arc<[AtomicU64; 2]>);

impl KeyFacts {
    /// Number of loads of keys that succeeded, and of loads that failed.
    pub fn loads(&self) -> (u64, u64) {
        (self.0[0].load(Ordering::Relaxed), self.0[1].load(Ordering::Relaxed))
    }
}

/// Reloads the keys of [`Tokens`] when their sources change.
#[derive(Debug)]
pub struct KeyLoader {
    tokens: Arc<Tokens>,
    sources: TokenSources,
    remote: Option<(Uri, Tls)>,
    /// The keys from this machine and the keys from the URL, as they were loaded last.
    local: Vec<TokenKey>,
    fetched: Vec<TokenKey>,
    /// The earliest time of the next request to the URL that a token with an unknown key causes.
    floor: Instant,
    facts: KeyFacts,
}

/// Why the keys at a URL could not be loaded.
#[derive(Debug)]
pub(crate) enum FetchError {
    /// The server could not be reached.
    Unreachable(ConnectError),
    /// The server answered with this status.
    Status(StatusCode),
    /// The server's answer is not a set of keys.
    Keys(KeyProblem),
}

impl std::fmt::Display for FetchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "the server cannot be reached: {error}"),
            Self::Status(status) => write!(f, "the server answers {status}"),
            Self::Keys(problem) => write!(f, "the answer is not valid: {problem}"),
        }
    }
}

/// Requests the set of keys at a URL.
pub(crate) async fn fetch(tls: &Tls, url: &Uri) -> Result<Vec<TokenKey>, FetchError> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = url.clone();
    let answer = https::exchange(tls, request, MAX_JWKS_BYTES, JWKS_TIMEOUT).await.map_err(FetchError::Unreachable)?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status(answer.status()));
    }
    TokenKey::all_of_jwks(answer.body()).map_err(FetchError::Keys)
}

impl KeyLoader {
    /// Makes a loader that begins with the keys in the settings. [`Self::run`] requests the keys of a URL.
    ///
    /// # Errors
    ///
    /// If TLS cannot be set up.
    pub fn new(settings: &TokenSettings) -> io::Result<Self> {
        let tokens = Arc::new(Tokens::new(settings.rules.clone(), settings.keys.clone()));
        let tls = settings.url.clone().map(|url| Ok::<_, io::Error>((url, Tls::new(settings.roots.as_deref())?)));
        let remote = tls.transpose()?;
        let (sources, local) = (settings.sources.clone(), settings.keys.clone());
        if remote.is_some() {
            tokens.keep(Some(Instant::now()));
        }
        Ok(Self {
            tokens,
            sources,
            remote,
            local,
            fetched: Vec::new(),
            floor: Instant::now(),
            facts: KeyFacts::default(),
        })
    }

    /// The checker of tokens, which uses the current keys.
    pub fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&self.tokens)
    }

    /// Numbers of loads, for metrics.
    pub fn facts(&self) -> KeyFacts {
        self.facts.clone()
    }

    /// Reads files again periodically, and on each signal of `asked` (SIGHUP). Requests the keys of a URL periodically,
    /// and on each signal of `asked`. If a token names an unknown key, requests the keys as soon as the last request is
    /// [`JWKS_FLOOR`] ago. This function never returns.
    pub async fn run(mut self, asked: &mut Signal) {
        let mut next_fetch = Instant::now();
        let mut looks = tokio::time::interval(TLS_RELOAD_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        looks.tick().await;
        let mut is_wanted = false;
        loop {
            let has_remote = self.remote.is_some();
            let (files, url) = tokio::select! {
                _ = looks.tick() => (true, false),
                () = tokio::time::sleep_until(next_fetch.into()), if has_remote => (false, true),
                () = self.tokens.wanted(), if has_remote && !is_wanted => {
                    is_wanted = true;
                    (false, false)
                }
                () = tokio::time::sleep_until(self.floor.into()), if is_wanted => (false, true),
                came = asked.recv() => match came {
                    Some(()) => (true, true),
                    None => std::future::pending().await,
                },
            };
            if files {
                self.read_files().await;
            }
            if url && has_remote {
                is_wanted = false;
                self.floor = Instant::now() + JWKS_FLOOR;
                let is_loaded = self.fetch().await;
                let pause = if is_loaded { JWKS_INTERVAL } else { 3 * JWKS_FLOOR };
                next_fetch = Instant::now() + pause;
            }
        }
    }

    /// Reads the files again. Unchanged keys are kept, without a log line.
    async fn read_files(&mut self) {
        let sources = self.sources.clone();
        // A blocking thread reads the files, because a file system can be slow.
        let Ok(loaded) = tokio::task::spawn_blocking(move || sources.load()).await else { return };
        match loaded {
            Ok(keys) if keys == self.local => {}
            Ok(keys) => {
                self.local = keys;
                self.install();
            }
            Err((setting, error)) => {
                self.facts.0[1].fetch_add(1, Ordering::Relaxed);
                warn!(setting, error, detail = "the previous keys are used", "token_keys_refused");
            }
        }
    }

    /// Requests the keys of the URL. If the request fails, returns false, and the previous keys stay.
    async fn fetch(&mut self) -> bool {
        let Some((url, tls)) = &self.remote else { return true };
        match Box::pin(fetch(tls, url)).await {
            Ok(keys) => {
                let is_new = keys != self.fetched;
                self.fetched = keys;
                if is_new {
                    self.install();
                } else {
                    self.tokens.keep(Some(self.floor));
                }
                true
            }
            Err(error) => {
                self.facts.0[1].fetch_add(1, Ordering::Relaxed);
                warn!(%error, url = %url, detail = "the previous keys are used", "token_keys_refused");
                self.tokens.keep(Some(self.floor));
                false
            }
        }
    }

    fn install(&self) {
        let keys: Vec<_> = self.local.iter().chain(&self.fetched).cloned().collect();
        info!(keys = keys.len(), "token_keys_read");
        self.facts.0[0].fetch_add(1, Ordering::Relaxed);
        self.tokens.replace(keys, self.remote.as_ref().map(|_| self.floor));
    }
}
