//! The addresses that are dialed, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hyper::Uri;
use proto::limits::{DIAL_BACKOFF_MAX, DIAL_BACKOFF_MIN, DIAL_COURTESY, DIAL_PROVEN, MAX_DIALS, MAX_DIALS_AT_ONCE};
use proto::{HubId, LinkId, Now};

use crate::backoff::Backoff;
use crate::race::Experience;
use crate::stats::{DialSource, DialView, LinkEnd};

/// Names a target: its address in one spelling.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct TargetId(Rc<str>);

/// Everything that one dial needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) target: TargetId,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Where, if it is not for the resolver to say.
    pub(crate) address: Option<SocketAddr>,
    /// As it goes into `Host`.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) tls: bool,
    /// It speaks the seed's protocol.
    pub(crate) legacy: bool,
    /// What earlier dials have shown of the addresses of `host`.
    pub(crate) experience: Experience,
}

impl Plan {
    /// What an address of the form `ws://host:port/path` or `wss://...` means. `None` for any other.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return None,
        };
        let authority = uri.authority()?;
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let host = authority.host();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        // `ws://host?token=…` has a query and no path, and a request needs one.
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let scheme = if tls { "wss" } else { "ws" };
        let target = TargetId(format!("{scheme}://{}:{port}{path}", host.to_ascii_lowercase()).into());
        // User and password, if there are any, are nobody's business here.
        let authority = format!("{host}{}", authority.port().map(|port| format!(":{port}")).unwrap_or_default());
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self {
            target,
            host,
            port,
            address: None,
            authority,
            path,
            tls,
            legacy: false,
            experience: Experience::default(),
        })
    }

    /// One address of a DNS name. With TLS, it is the name that is verified.
    fn resolved(address: SocketAddr, name: &str, tls: bool) -> Self {
        let scheme = if tls { "wss" } else { "ws" };
        let (host, authority) = if tls {
            (name.to_owned(), format!("{name}:{}", address.port()))
        } else {
            (address.ip().to_string(), address.to_string())
        };
        let target = TargetId(format!("{scheme}://{address}/").into());
        let (port, path) = (address.port(), "/".to_owned());
        Self {
            target,
            host,
            port,
            address: Some(address),
            authority,
            path,
            tls,
            legacy: false,
            experience: Experience::default(),
        }
    }

    /// The address without what may be a secret: user and query.
    pub(crate) fn shown(&self) -> String {
        self.target.0.split('?').next().unwrap_or_default().to_owned()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Waiting,
    Dialing,
    Linked(LinkId),
}

/// One address.
#[derive(Debug)]
pub(crate) struct Target {
    plan: Plan,
    source: DialSource,
    state: State,
    backoff: Backoff,
    /// Not before this.
    next: Duration,
    /// Who was found there last.
    hub: Option<HubId>,
    own: bool,
    attempts: u32,
    last_attempt_ms: u64,
    last_error: Option<String>,
    /// The log has been told that it does not work.
    warned: bool,
}

/// What is known of hubs when it is decided whom to dial.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) linked: BTreeSet<HubId>,
    pub(crate) draining: BTreeSet<HubId>,
}

/// All addresses.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    targets: BTreeMap<TargetId, Target>,
    /// Those that speak the seed's protocol, wherever they come from.
    legacy: BTreeSet<TargetId>,
    known: Known,
}

impl Targets {
    pub(crate) fn new(bootstrap: &[Uri], legacy: &[String]) -> Self {
        let plan = |url: &String| url.parse().ok().and_then(|uri| Plan::of(&uri));
        let legacy = legacy.iter().filter_map(plan).map(|plan| plan.target).collect();
        let mut targets = Self { targets: BTreeMap::new(), legacy, known: Known::default() };
        for uri in bootstrap {
            match Plan::of(uri) {
                Some(plan) => targets.add(plan, DialSource::Bootstrap, None, Duration::ZERO),
                None => tracing::warn!(scheme = uri.scheme_str(), "bootstrap_ignored: not ws:// or wss://"),
            }
        }
        targets
    }

    fn add(&mut self, mut plan: Plan, source: DialSource, hub: Option<HubId>, next: Duration) {
        if self.targets.contains_key(&plan.target) || self.targets.len() >= MAX_DIALS {
            return;
        }
        plan.legacy = self.legacy.contains(&plan.target);
        let target = Target {
            source,
            state: State::Waiting,
            backoff: Backoff::default(),
            next,
            hub,
            own: false,
            attempts: 0,
            last_attempt_ms: 0,
            last_error: None,
            warned: false,
            plan,
        };
        self.targets.insert(target.plan.target.clone(), target);
    }

    /// What MESH_DNS says. An address that is gone is dialed no more.
    pub(crate) fn resolved(&mut self, name: &str, tls: bool, addresses: &BTreeSet<SocketAddr>, now: Now) {
        let plans: Vec<Plan> = addresses.iter().map(|address| Plan::resolved(*address, name, tls)).collect();
        let ids: BTreeSet<&TargetId> = plans.iter().map(|plan| &plan.target).collect();
        let of_dns = |target: &Target| target.source == DialSource::Dns;
        let before: BTreeSet<&TargetId> =
            self.targets.values().filter(|t| of_dns(t)).map(|target| &target.plan.target).collect();
        if before == ids {
            return;
        }
        self.targets.retain(|id, target| !of_dns(target) || ids.contains(id) || target.state != State::Waiting);
        // Addresses may have changed hands: what was this hub's own may be another's.
        for target in self.targets.values_mut().filter(|target| of_dns(target) && target.own) {
            target.own = false;
            target.next = now.at;
        }
        for plan in plans {
            self.add(plan, DialSource::Dns, None, now.at);
        }
    }

    /// What hubs advertise: those that live and stay.
    pub(crate) fn advertised<'a>(&mut self, own: HubId, hubs: impl Iterator<Item = (HubId, &'a str)>, now: Now) {
        let mut wanted = BTreeSet::new();
        for (hub, url) in hubs {
            let Some(plan) = url.parse().ok().and_then(|uri| Plan::of(&uri)) else { continue };
            wanted.insert(plan.target.clone());
            // Both have learned of each other at about the same time, and one link is enough.
            let courtesy = if own < hub { Duration::ZERO } else { DIAL_COURTESY };
            self.add(plan, DialSource::Advertised, Some(hub), now.at + courtesy);
        }
        self.targets.retain(|id, target| {
            target.source != DialSource::Advertised || wanted.contains(id) || target.state != State::Waiting
        });
    }

    pub(crate) fn learn(&mut self, known: Known) {
        self.known = known;
    }

    /// Takes out what is to be dialed by now.
    pub(crate) fn due(&mut self, now: Now) -> Vec<Plan> {
        let mut room = MAX_DIALS_AT_ONCE - self.targets.values().filter(|t| t.state == State::Dialing).count();
        let mut plans = Vec::new();
        for target in self.targets.values_mut() {
            let is = |hubs: &BTreeSet<HubId>| target.hub.is_some_and(|hub| hubs.contains(&hub));
            let waits = target.state == State::Waiting && !target.own && target.next <= now.at;
            let leaving = target.source != DialSource::Bootstrap && is(&self.known.draining);
            if waits && !leaving && !is(&self.known.linked) && room > 0 {
                room -= 1;
                target.state = State::Dialing;
                target.attempts = target.attempts.saturating_add(1);
                target.last_attempt_ms = now.wall_ms;
                plans.push(target.plan.clone());
            }
        }
        plans
    }

    /// A dial came to nothing. True when the log should say so aloud.
    pub(crate) fn failed(&mut self, id: &TargetId, error: &str, now: Now, chance: u32) -> bool {
        let Some(target) = self.targets.get_mut(id) else { return false };
        target.last_error = Some(error.to_owned());
        target.pause(now, chance);
        !std::mem::replace(&mut target.warned, true)
    }

    /// A dial came to a socket.
    pub(crate) fn dialed(&mut self, id: &TargetId, link: LinkId) {
        if let Some(target) = self.targets.get_mut(id) {
            target.state = State::Linked(link);
        }
    }

    /// The socket's other end has said who it is.
    pub(crate) fn met(&mut self, id: &TargetId, hub: HubId) {
        if let Some(target) = self.targets.get_mut(id) {
            target.hub = Some(hub);
        }
    }

    /// Its link is ready.
    pub(crate) fn ready(&mut self, id: &TargetId) {
        if let Some(target) = self.targets.get_mut(id) {
            target.attempts = 0;
            target.last_error = None;
            target.warned = false;
        }
    }

    /// Its link has ended. True when the log should say so aloud.
    pub(crate) fn ended(
        &mut self,
        id: &TargetId,
        end: LinkEnd,
        why: &str,
        lived: Duration,
        now: Now,
        chance: u32,
    ) -> bool {
        let Some(target) = self.targets.get_mut(id) else { return false };
        if lived >= DIAL_PROVEN {
            target.backoff.reset();
        }
        target.pause(now, chance);
        if target.hub.is_some_and(|hub| self.known.draining.contains(&hub)) {
            target.next = now.at + DIAL_BACKOFF_MAX;
        }
        target.own = end == LinkEnd::SelfLink;
        if target.own || end == LinkEnd::Double {
            return false;
        }
        target.last_error =
            Some(if why.is_empty() { end.label().to_owned() } else { format!("{}: {why}", end.label()) });
        end.wants_attention() && !std::mem::replace(&mut target.warned, true)
    }

    /// The link to a hub has ended, whoever dialed it: others that lost it at this moment do not dial at one moment.
    pub(crate) fn lost(&mut self, hub: HubId, now: Now, chance: u32) {
        self.known.linked.remove(&hub);
        for target in self.targets.values_mut() {
            if target.hub == Some(hub) && target.state == State::Waiting && target.next <= now.at {
                target.pause(now, chance);
            }
        }
    }

    pub(crate) fn views(&self) -> Vec<DialView> {
        let linked = |target: &Target| target.hub.is_some_and(|hub| self.known.linked.contains(&hub));
        let view = |target: &Target| DialView {
            uri: target.plan.shown(),
            source: target.source,
            attempt_number: target.attempts,
            connected: linked(target),
            own: target.own,
            last_attempt: target.last_attempt_ms,
            last_error: target.last_error.clone(),
        };
        self.targets.values().map(view).collect()
    }
}

impl Target {
    fn pause(&mut self, now: Now, chance: u32) {
        self.state = State::Waiting;
        self.next = now.at + self.backoff.failed(DIAL_BACKOFF_MIN, DIAL_BACKOFF_MAX, chance);
    }
}

#[cfg(test)]
mod tests;
