//! Orders certificates from an ACME authority (RFC 8555), and renews them in time.
//!
//! To verify a name, the authority connects to it with TLS (TLS-ALPN-01, RFC 8737), and the [`Acceptor`] answers. A
//! certificate is stored with its chain and key in one file. The [`Reloader`](crate::certificates::Reloader) installs
//! this file like any other certificate file. While orders fail, the previous certificate stays in use.

mod order;
mod renewal;
mod store;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::Account;
use mesh::Tls;
use proto::limits::{ACME_LOOK_INTERVAL, ACME_ORDER_TIMEOUT, TLS_RELOAD_INTERVAL};
use tls::{Acceptor, OwnKey};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::config::AcmeSettings;
use order::{Failure, Http, Line};
use renewal::Plan;

/// Wake-ups between the parts that order and load certificates.
#[derive(Clone, Debug, Default)]
pub struct Wakes {
    /// A new certificate has been stored.
    pub stored: Arc<Notify>,
    /// The operator has asked for a reload. After a reload, orders that failed are repeated at once.
    pub asked: Arc<Notify>,
}

/// The state of the certificate orders, for metrics and probes. All clones show the same state.
#[derive(Clone, Debug)]
pub struct AcmeFacts(watch::Receiver<AcmeView>);

impl AcmeFacts {
    /// The current state.
    pub fn view(&self) -> AcmeView {
        self.0.borrow().clone()
    }
}

/// The state of the orders.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct AcmeView {
    /// Number of certificates that were issued.
    pub issued: u64,
    /// Number of orders that failed.
    pub failed: u64,
    /// Number of names whose latest order failed.
    pub failing: usize,
    /// Number of names without a valid certificate.
    pub missing: usize,
    /// The error of a name whose latest order failed, if there is such a name.
    pub problem: Option<String>,
}

/// Orders and renews the certificates of a hub.
pub struct Acme {
    settings: AcmeSettings,
    acceptor: Acceptor,
    http: Http,
    /// `None` once `run` has started.
    line: Option<Line>,
    wakes: Wakes,
    view: watch::Sender<AcmeView>,
    names: Vec<Name>,
    account: Option<Account>,
}

impl std::fmt::Debug for Acme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acme").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A name with its certificate.
#[derive(Debug)]
struct Name {
    name: String,
    plan: Option<Plan>,
    /// Number of orders in a row that failed.
    failures: u32,
    problem: Option<String>,
    /// No order begins before this time.
    not_before: Option<Instant>,
}

/// The outcome of an attempt to renew a certificate, if the attempt did not fail.
enum Attempt {
    /// The certificate has been renewed.
    Issued,
    /// Another hub that shares the directory is ordering a certificate, or has just renewed this certificate.
    Elsewhere,
}

/// A self-signed certificate that the hub uses until the first certificate is issued. Clients refuse this certificate,
/// and their error shows its host name, `hub-without-certificate-yet.invalid`.
///
/// # Errors
///
/// If the system provides no random bytes for the key.
pub fn stand_in() -> io::Result<Arc<OwnKey>> {
    let made = order::self_signed("hub-without-certificate-yet.invalid", None).map_err(io::Error::other)?;
    Ok(Arc::new(made))
}

impl Acme {
    /// Prepares the orders. [`Self::run`] reads the stored certificates.
    ///
    /// # Errors
    ///
    /// If TLS cannot be set up.
    pub fn new(settings: AcmeSettings, acceptor: Acceptor, wakes: Wakes) -> io::Result<Self> {
        // TLS sessions are not resumed. An authority can have several servers, and a ticket from one of them can make a
        // handshake with another one fail.
        let (http, line) = Line::new(Tls::new(settings.roots.as_deref())?.keeping_tickets(0));
        let name =
            |name: &String| Name { name: name.clone(), plan: None, failures: 0, problem: None, not_before: None };
        let names: Vec<_> = settings.names.iter().map(name).collect();
        let view = AcmeView { missing: names.len(), ..AcmeView::default() };
        Ok(Self {
            settings,
            acceptor,
            http,
            line: Some(line),
            wakes,
            view: watch::Sender::new(view),
            names,
            account: None,
        })
    }

    /// The state of the orders, for metrics and probes.
    pub fn facts(&self) -> AcmeFacts {
        AcmeFacts(self.view.subscribe())
    }

    /// Orders each certificate that is missing or due for renewal. The future never completes.
    pub async fn run(mut self) {
        let Some(line) = self.line.take() else { return std::future::pending().await };
        tokio::select! {
            () = self.look_after_all() => {}
            () = line.serve() => {}
        }
    }

    async fn look_after_all(&mut self) {
        loop {
            let mut pause = ACME_LOOK_INTERVAL;
            for at in 0..self.names.len() {
                pause = pause.min(Box::pin(self.look_after(at)).await);
            }
            let asked = Arc::clone(&self.wakes.asked);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = asked.notified() => self.names.iter_mut().for_each(|name| name.not_before = None),
            }
        }
    }

    /// Orders the certificate of this name if it is due. Returns the time until the next check.
    async fn look_after(&mut self, at: usize) -> Duration {
        self.update_plan(at).await;
        if self.is_due(at) && self.names[at].not_before.is_none_or(|time| time <= Instant::now()) {
            let done = self.attempt(at).await;
            self.finish(at, done);
            self.update_plan(at).await;
        }
        let view = &self.names;
        let missing = view.iter().filter(|name| name.plan.as_ref().is_none_or(|plan| plan.has_expired())).count();
        let failing = view.iter().filter(|name| name.problem.is_some()).count();
        let problem = view.iter().find_map(|name| name.problem.clone());
        self.view.send_modify(|view| (view.missing, view.failing, view.problem) = (missing, failing, problem));
        let name = &self.names[at];
        let until_due = name.plan.as_ref().map_or(Duration::ZERO, Plan::until_due);
        let until_allowed = name.not_before.map_or(Duration::ZERO, |time| time.duration_since(Instant::now()));
        until_due.max(until_allowed).max(Duration::from_secs(1))
    }

    fn is_due(&self, at: usize) -> bool {
        self.names[at].plan.as_ref().is_none_or(|plan| plan.until_due().is_zero())
    }

    /// Reads the stored certificate, and asks the authority from time to time when to renew it.
    async fn update_plan(&mut self, at: usize) {
        let name = self.names[at].name.clone();
        let facts = store::load(&self.settings, &name).await;
        let Some(facts) = facts else { return self.names[at].plan = None };
        let plan = self.names[at].plan.take().filter(|plan| plan.is_for(&facts));
        let mut plan = plan.unwrap_or_else(|| Plan::new(&facts, chance()));
        if plan.wants_advice()
            && let Some(id) = facts.id.as_ref()
        {
            let advice = match self.account().await {
                Ok(account) => order::advice(&account, id).await,
                Err(failure) => Err(failure),
            };
            match advice {
                Ok((window, ask_after)) => plan.advise(window, ask_after, chance()),
                // The advice is optional. Without the authority's advice, the time of renewal stays unchanged.
                Err(failure) => {
                    debug!(name, error = %failure, "acme_no_advice");
                    plan.ask_later();
                }
            }
        }
        self.names[at].plan = Some(plan);
    }

    async fn attempt(&mut self, at: usize) -> Result<Attempt, Failure> {
        let name = self.names[at].name.clone();
        let Some(lock) = store::lock(&self.settings).await? else { return Ok(Attempt::Elsewhere) };
        // Another hub may have renewed the certificate since the last check, and released the lock.
        self.update_plan(at).await;
        if !self.is_due(at) {
            return Ok(Attempt::Elsewhere);
        }
        info!(name, "acme_order_begins");
        let replaced = self.names[at].plan.as_ref().and_then(Plan::replaceable).cloned();
        let ordered = timeout(ACME_ORDER_TIMEOUT, async {
            let account = self.account().await?;
            order::order(&account, &self.acceptor, &name, replaced.as_ref()).await
        });
        let ordered = ordered.await.unwrap_or_else(|_| Err(Failure::Late));
        self.acceptor.end_challenge(&name);
        if ordered.as_ref().is_err_and(Failure::is_of_the_account) {
            // The authority no longer knows the account. The next order creates a new account.
            self.account = None;
            store::forget_account(&self.settings).await;
        }
        store::save(&self.settings, &name, ordered?).await?;
        drop(lock);
        Ok(Attempt::Issued)
    }

    fn finish(&mut self, at: usize, done: Result<Attempt, Failure>) {
        let name = &mut self.names[at];
        match done {
            Ok(Attempt::Issued) => {
                info!(name = name.name, "acme_certificate_issued");
                self.wakes.stored.notify_one();
                self.view.send_modify(|view| view.issued += 1);
                (name.failures, name.problem, name.not_before) = (0, None, None);
            }
            Ok(Attempt::Elsewhere) => {
                debug!(name = name.name, "acme_other_hub_orders");
                (name.failures, name.problem) = (0, None);
                name.not_before = Some(Instant::now() + TLS_RELOAD_INTERVAL);
            }
            Err(failure) => {
                let pause = renewal::pause(name.failures, chance());
                name.failures = name.failures.saturating_add(1);
                name.not_before = Some(Instant::now() + pause);
                let detail = failure.remedy(&name.name, &self.settings);
                warn!(name = name.name, error = %failure, detail, again_in_secs = pause.as_secs(), "acme_order_failed");
                name.problem = Some(format!("{}: {failure}", name.name));
                self.view.send_modify(|view| view.failed += 1);
            }
        }
    }

    /// The account at the authority. If no account is stored, one is created.
    async fn account(&mut self) -> Result<Account, Failure> {
        if let Some(account) = &self.account {
            return Ok(account.clone());
        }
        let stored = store::account(&self.settings).await;
        let (account, created) = order::account(&self.settings, self.http.clone(), stored).await?;
        if let Some(created) = created {
            store::save_account(&self.settings, &created).await?;
        }
        self.account = Some(account.clone());
        Ok(account)
    }
}

/// A random number, or 0 if the system provides none. If the random number is 0, hubs that started together also renew
/// together.
fn chance() -> u32 {
    getrandom::u32().unwrap_or_default()
}
