//! Decides whether a request comes from an operator.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use proto::limits::ADDRESS_LOG_PAUSE;
use shard::Visitor;
use tracing::{info, warn};

use super::cookie::Cookies;
use crate::config::Token;

/// How a request shows that an operator sends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// ADMIN_TOKEN is not set, so no proof is needed.
    Open,
    /// With ADMIN_TOKEN in `Authorization`.
    Bearer,
    /// With the cookie of a login.
    Cookie,
    /// The request has no proof.
    Unknown,
    /// The token is wrong.
    Wrong,
}

impl Entry {
    /// Whether the request may read the operators' pages.
    pub const fn may_read(self) -> bool {
        matches!(self, Self::Open | Self::Bearer | Self::Cookie)
    }

    /// Whether the request has proved that an operator sends it.
    pub const fn is_proved(self) -> bool {
        matches!(self, Self::Bearer | Self::Cookie)
    }

    /// The name in the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Bearer => "bearer",
            Self::Cookie => "cookie",
            Self::Unknown => "no-token",
            Self::Wrong => "wrong-token",
        }
    }
}

/// Checks tokens and cookies, and counts failures. All shards share one gatekeeper.
///
/// A right token is always accepted, even from an address that has sent wrong tokens before. Behind a proxy, strangers
/// and operators share an address. Strangers cannot guess the token, because it is long, and because guessing is slow.
/// The hub answers a wrong token only after [`WRONG_TOKEN_DELAY`](proto::limits::WRONG_TOKEN_DELAY), and closes the
/// connection.
pub struct Gatekeeper {
    token: Option<Token>,
    cookies: Cookies,
    start: Instant,
    /// Time of the last log line about failures, in nanoseconds since the start, plus one. 0 means that there was none.
    logged: AtomicU64,
    /// Number of failures since that log line.
    failures: AtomicU64,
}

impl Gatekeeper {
    /// Creates the gatekeeper of a hub with this ADMIN_TOKEN. `cookie_key` is random.
    pub fn new(token: Option<Token>, cookie_key: [u8; 32]) -> Self {
        Self {
            token,
            cookies: Cookies::new(cookie_key),
            start: Instant::now(),
            logged: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Whether there is an ADMIN_TOKEN.
    pub fn is_closed(&self) -> bool {
        self.token.is_some()
    }

    /// Determines whether a request comes from an operator, and whether a token or a cookie proves this.
    pub fn check(&self, headers: &HeaderMap, visitor: Visitor) -> Entry {
        let Some(token) = &self.token else { return Entry::Open };
        if self.cookies.are_in(headers, SystemTime::now()) {
            return Entry::Cookie;
        }
        let mut shown = shard::bearer_tokens(headers).peekable();
        // Peers send AUTH_TOKEN in the header in which operators send ADMIN_TOKEN. A request with AUTH_TOKEN does not
        // count as an attempt to guess ADMIN_TOKEN.
        if shown.peek().is_none() || visitor.has_token {
            return Entry::Unknown;
        }
        if shown.any(|shown| token.matches(shown)) { Entry::Bearer } else { Entry::Wrong }
    }

    /// Checks the token of a form. Returns the cookie to set.
    ///
    /// # Errors
    ///
    /// Returns why there is no cookie.
    pub fn log_in(&self, shown: &[u8], visitor: Visitor) -> Result<HeaderValue, Entry> {
        let Some(token) = &self.token else { return Err(Entry::Unknown) };
        if !token.matches(shown) {
            return Err(Entry::Wrong);
        }
        info!(address = %visitor.address, "admin_login");
        self.cookies.set(SystemTime::now(), visitor.is_tls).ok_or(Entry::Unknown)
    }

    /// Ends all logins at this hub if the request has a valid cookie. Returns the header that removes the cookie from
    /// the browser.
    pub fn log_out(&self, headers: &HeaderMap, visitor: Visitor) -> Option<HeaderValue> {
        if self.cookies.are_in(headers, SystemTime::now()) {
            self.cookies.end_all();
            info!(address = %visitor.address, "admin_logout");
        }
        Cookies::clear(visitor.is_tls)
    }

    /// Logs a refused request, at most once in ten seconds.
    pub fn refused(&self, visitor: Visitor, reason: &str) {
        if let Some(times) = self.count_failure(self.start.elapsed()) {
            warn!(address = %visitor.address, reason, times, "admin_refused");
        }
    }

    /// Counts a failure. `at` is the time since the hub's start. If the next log line is due, returns the number of
    /// failures since the last line.
    pub(super) fn count_failure(&self, at: Duration) -> Option<u64> {
        let times = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let now = at.as_nanos() as u64 + 1;
        let logged = self.logged.load(Ordering::Relaxed);
        let is_due = logged == 0 || now - logged.min(now) >= ADDRESS_LOG_PAUSE.as_nanos() as u64;
        if is_due && self.logged.compare_exchange(logged, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.failures.fetch_sub(times, Ordering::Relaxed);
            return Some(times);
        }
        None
    }
}

/// Whether a request comes from a page of the host that receives the request. Browsers name the page in `Origin`.
pub fn is_own_page(headers: &HeaderMap, visitor: Visitor) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let (Some(origin), Some(host)) = (text(ORIGIN), text(HOST)) else { return false };
    let of = |scheme: &str| origin.strip_prefix(scheme).is_some_and(|of| of.eq_ignore_ascii_case(host));
    // A proxy may end TLS and not say so in a header. An `https` origin is therefore also accepted on a plain
    // connection.
    of("https://") || !visitor.is_tls && of("http://")
}
