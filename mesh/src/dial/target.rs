//! The dialed addresses, and the time of each dial.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hyper::Uri;
use proto::limits::{
    DIAL_BACKOFF_MAX, DIAL_BACKOFF_MIN, DIAL_BACKOFF_NEAR, DIAL_COURTESY, DIAL_OWN_BACKOFF_MAX, DIAL_OWN_BACKOFF_MIN,
    DIAL_PROVEN, DIAL_YOUNG, MAX_DIALS, MAX_DIALS_AT_ONCE, MAX_YOUNG_DIALS,
};
use proto::{HubId, LinkId, Now};

use crate::backoff::{Backoff, spread};
use crate::core::LinkTrace;
use crate::race::Experience;
use crate::stats::{DialSource, DialView, LinkEnd};

/// Identifies a target: its URL in normal form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct TargetId(Rc<str>);

/// The arguments of one dial.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) target: TargetId,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The address to dial; `None` to use the resolver.
    pub(crate) address: Option<SocketAddr>,
    /// The value of the `Host` header.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) tls: bool,
    /// Whether a Go hub is expected there.
    pub(crate) legacy: bool,
    /// Results of earlier dials to the addresses of `host`.
    pub(crate) experience: Experience,
    /// The trace of the dial. `None` if the hub does not trace.
    pub(crate) trace: Option<LinkTrace>,
}

impl Plan {
    /// Parses a URL of the form `ws://host:port/path` or `wss://...`. `None` for any other URL.
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
        // `ws://host?token=…` has a query and no path, but a request needs a path.
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let scheme = if tls { "wss" } else { "ws" };
        let target = TargetId(format!("{scheme}://{}:{port}{path}", host.to_ascii_lowercase()).into());
        // User and password are not sent.
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
            trace: None,
        })
    }

    /// Makes a plan for one address of a DNS name. With TLS, the certificate of the other side must be for this name.
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
            trace: None,
        }
    }

    /// The URL without its possible secrets: user and query.
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

/// One dialed address.
#[derive(Debug)]
pub(crate) struct Target {
    plan: Plan,
    source: DialSource,
    state: State,
    backoff: Backoff,
    /// The earliest time of the next dial.
    next: Duration,
    /// The time of the last dial.
    last_dial: Option<Duration>,
    /// Time since which the target has had no link. The maximum pause between dials grows with the time without a link.
    missing_since: Duration,
    /// The hub that last answered at this address or advertised it.
    hub: Option<HubId>,
    /// Whether a link to `hub` was in use.
    was_linked: bool,
    /// Whether the last dial reached this hub itself.
    own: bool,
    /// The address of the last link.
    address: Option<SocketAddr>,
    /// Number of dials since a link was last in use.
    attempts: u32,
    last_attempt_ms: u64,
    last_error: Option<String>,
    /// Whether a warning has been logged since a link to this target was last ready.
    warned: bool,
}

/// State of other hubs that determines which targets are dialed.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) linked: BTreeSet<HubId>,
    pub(crate) draining: BTreeSet<HubId>,
}

/// All targets.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    targets: BTreeMap<TargetId, Target>,
    /// Targets of Go hubs, from any source.
    legacy: BTreeSet<TargetId>,
    known: Known,
    /// Maximum number of dials in progress.
    most: usize,
}

impl Targets {
    pub(crate) fn new(bootstrap: &[Uri], legacy: &[String], most: usize) -> Self {
        let plan = |url: &String| url.parse().ok().and_then(|uri| Plan::of(&uri));
        let legacy = legacy.iter().filter_map(plan).map(|plan| plan.target).collect();
        let (known, most) = (Known::default(), most.min(MAX_DIALS_AT_ONCE));
        let mut targets = Self { targets: BTreeMap::new(), legacy, known, most };
        for uri in bootstrap {
            match Plan::of(uri) {
                Some(plan) => targets.add(plan, DialSource::Bootstrap, None, Duration::ZERO),
                None => tracing::warn!(
                    scheme = uri.scheme_str(),
                    detail = "unknown scheme: use ws:// or wss://",
                    "bootstrap_ignored"
                ),
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
            last_dial: None,
            missing_since: next,
            hub,
            was_linked: false,
            own: false,
            address: None,
            attempts: 0,
            last_attempt_ms: 0,
            last_error: None,
            warned: false,
            plan,
        };
        self.targets.insert(target.plan.target.clone(), target);
    }

    /// Processes the answer for MESH_DNS. Targets that are no longer in the answer are removed, unless they are linked
    /// or being dialed.
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
        // The addresses may now belong to another hub, even if they belonged to this hub before.
        for target in self.targets.values_mut().filter(|target| of_dns(target) && target.own) {
            target.own = false;
            target.backoff.reset();
            target.next = now.at;
        }
        for plan in plans {
            self.add(plan, DialSource::Dns, None, now.at);
        }
    }

    /// Adds the advertised URLs of live hubs without a link, and removes URLs that are no longer needed. The URL of a
    /// draining hub is kept only if a link to that hub was in use.
    pub(crate) fn advertised<'a>(
        &mut self,
        own: HubId,
        hubs: impl Iterator<Item = (HubId, bool, &'a str)> + Clone,
        now: Now,
    ) {
        let staying: BTreeSet<HubId> = hubs.clone().filter(|(_, draining, _)| !draining).map(|(hub, ..)| hub).collect();
        let mut wanted = BTreeSet::new();
        for (hub, draining, url) in hubs {
            let Some(plan) = url.parse().ok().and_then(|uri| Plan::of(&uri)) else { continue };
            if let Some(target) = self.targets.get_mut(&plan.target).filter(|t| t.source == DialSource::Advertised) {
                // Another hub may now have the address of this target.
                if !draining && target.hub.is_none_or(|hub| !staying.contains(&hub)) {
                    target.found(hub);
                }
                if draining && !(target.was_linked && target.hub == Some(hub)) {
                    continue;
                }
            } else if draining {
                continue;
            }
            wanted.insert(plan.target.clone());
            // Both hubs learned of each other at about the same time, and one link is enough. So the hub with the
            // larger id waits before it dials.
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

    /// Returns the targets to dial now, and marks them as being dialed: first the targets that were never dialed, then
    /// the others in the order of their last dials.
    ///
    /// At most [`MAX_YOUNG_DIALS`] dials in progress are younger than [`DIAL_YOUNG`]. An older dial delays other
    /// targets only if the maximum number of all dials is reached.
    pub(crate) fn due(&mut self, now: Now) -> Vec<Plan> {
        let (mut under_way, mut young) = (0, 0);
        let mut due = Vec::new();
        for (id, target) in &self.targets {
            match target.state {
                State::Dialing => {
                    under_way += 1;
                    young += usize::from(target.last_dial.is_some_and(|at| now.at < at + DIAL_YOUNG));
                }
                State::Waiting if target.next <= now.at && !self.is_left_alone(target) => {
                    due.push((target.last_dial, id.clone()));
                }
                State::Waiting | State::Linked(_) => {}
            }
        }
        due.sort();
        due.truncate(self.most.saturating_sub(under_way).min(MAX_YOUNG_DIALS.saturating_sub(young)));
        due.into_iter().filter_map(|(_, id)| Some(self.targets.get_mut(&id)?.dial(now))).collect()
    }

    /// Whether a dial is unnecessary: the hub at the address is linked, or it drains and had no link. The URLs in
    /// BOOTSTRAP_HUBS are dialed even if their hubs drain. A draining hub still has peers, so a lost link to it is
    /// dialed again.
    fn is_left_alone(&self, target: &Target) -> bool {
        let is = |hubs: &BTreeSet<HubId>| target.hub.is_some_and(|hub| hubs.contains(&hub));
        let leaving = is(&self.known.draining) && !target.was_linked && target.source != DialSource::Bootstrap;
        leaving || is(&self.known.linked)
    }

    /// Records that a dial failed. Returns whether the caller should log a warning.
    pub(crate) fn failed(&mut self, id: &TargetId, error: &str, now: Now, chance: u32) -> bool {
        let Some(target) = self.targets.get_mut(id) else { return false };
        target.last_error = Some(error.to_owned());
        target.own = false;
        target.plan.experience.worked = None;
        target.pause(now, chance);
        !std::mem::replace(&mut target.warned, true)
    }

    /// Records that a dial opened a socket to this address.
    pub(crate) fn dialed(&mut self, id: &TargetId, link: LinkId, address: SocketAddr) {
        if let Some(target) = self.targets.get_mut(id) {
            target.state = State::Linked(link);
            target.address = Some(address);
        }
    }

    /// Records that the other side of the socket has identified itself.
    pub(crate) fn met(&mut self, id: &TargetId, hub: HubId) {
        if let Some(target) = self.targets.get_mut(id) {
            target.found(hub);
        }
    }

    /// Records that the link of a target is ready.
    pub(crate) fn ready(&mut self, id: &TargetId) {
        if let Some(target) = self.targets.get_mut(id) {
            target.attempts = 0;
            target.last_error = None;
            target.warned = false;
            target.was_linked = true;
            target.own = false;
            target.plan.experience.worked = target.address;
        }
    }

    /// Records that the link of a target has ended. `lived` is the time for which the link was in use; `None` if it was
    /// never in use. Returns whether the caller should log a warning.
    pub(crate) fn ended(
        &mut self,
        id: &TargetId,
        end: LinkEnd,
        why: &str,
        lived: Option<Duration>,
        now: Now,
        chance: u32,
    ) -> bool {
        let Some(target) = self.targets.get_mut(id) else { return false };
        target.own = end == LinkEnd::SelfLink;
        if target.own {
            target.plan.experience.own = target.address;
        }
        match lived {
            Some(lived) => {
                target.missing_since = now.at;
                if lived >= DIAL_PROVEN {
                    target.backoff.reset();
                }
            }
            None => target.plan.experience.worked = None,
        }
        target.pause(now, chance);
        if target.own || end == LinkEnd::Double {
            return false;
        }
        target.last_error =
            Some(if why.is_empty() { end.label().to_owned() } else { format!("{}: {why}", end.label()) });
        end.wants_attention() && !std::mem::replace(&mut target.warned, true)
    }

    /// Records that the last link in use to a hub has ended, whichever side dialed it. The hub is dialed soon at every
    /// known address, even if earlier dials have failed. `dialed` is the target of the lost link, which has its own
    /// pause.
    pub(crate) fn lost(&mut self, hub: HubId, dialed: Option<&TargetId>, now: Now, chance: u32) {
        self.known.linked.remove(&hub);
        for (id, target) in &mut self.targets {
            if target.hub == Some(hub) && target.state == State::Waiting && Some(id) != dialed {
                target.missing_since = now.at;
                target.backoff.reset();
                // The pause is partly random, so that hubs that lost their links at the same time do not dial at the
                // same time.
                target.next = now.at + spread(DIAL_BACKOFF_MIN, chance);
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
    fn found(&mut self, hub: HubId) {
        self.was_linked &= self.hub == Some(hub);
        self.hub = Some(hub);
    }

    fn dial(&mut self, now: Now) -> Plan {
        self.state = State::Dialing;
        self.plan.experience.failures = self.attempts;
        self.attempts = self.attempts.saturating_add(1);
        self.last_dial = Some(now.at);
        self.last_attempt_ms = now.wall_ms;
        self.plan.clone()
    }

    fn pause(&mut self, now: Now, chance: u32) {
        self.state = State::Waiting;
        let missing = now.at.saturating_sub(self.missing_since);
        let (shortest, longest) = match self.own {
            true => (DIAL_OWN_BACKOFF_MIN, DIAL_OWN_BACKOFF_MAX),
            false => (DIAL_BACKOFF_MIN, (missing / 4).clamp(DIAL_BACKOFF_NEAR, DIAL_BACKOFF_MAX)),
        };
        self.next = now.at + self.backoff.failed(shortest, longest, chance);
    }
}

#[cfg(test)]
mod tests;
