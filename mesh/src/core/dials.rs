//! Chooses the targets to dial, and processes the results of dials.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::net::SocketAddr;

use proto::{HubId, LinkId, PeerId};
use siphasher::sip128::{Hasher128, SipHasher13};
use thread::{TurnGuard, planted};
use tracing::{debug, warn};

use super::{Core, NewLink};
use crate::backoff::chance;
use crate::dial::{DialError, Dialed, Known, Plan};
use crate::stream::MaybeTlsStream;
use crate::websocket::WebSocket;

impl Core {
    /// Marks targets that are due as being dialed, within the limits on dials. Returns their plans.
    pub(crate) fn due_dials(&mut self) -> Vec<Plan> {
        if self.ending {
            return Vec::new();
        }
        let now = self.now();
        let _turn = TurnGuard::of("dials", ());
        planted("dials");
        let hubs = self.relay.hubs(now);
        let wanted = hubs.iter().filter(|hub| hub.live && hub.link.is_none());
        let wanted = wanted.filter_map(|hub| hub.advertise.as_deref().map(|url| (hub.hub, hub.draining, url)));
        self.targets.advertised(self.own, wanted, now);
        self.targets.learn(Known {
            // Accepted legacy links do not count, because a Go hub can send any id in its request.
            linked: self
                .links
                .values()
                .filter(|link| link.is_ready() && (link.dialed() || !link.legacy))
                .filter_map(|link| link.hub)
                .collect(),
            // A hub that has ended no longer drains: its successor at this address is dialed.
            draining: hubs.iter().filter(|hub| hub.live && hub.draining).map(|hub| hub.hub).collect(),
        });
        let mut plans = self.targets.due(now);
        for plan in &mut plans {
            plan.trace = self.trace_link(now);
        }
        self.stats.dial_attempts += plans.len() as u64;
        plans
    }

    /// Processes an answer for MESH_DNS.
    pub(crate) fn resolved(&mut self, name: &str, tls: bool, addresses: &BTreeSet<SocketAddr>) {
        let now = self.now();
        let _turn = TurnGuard::of("dials", ());
        self.targets.resolved(name, tls, addresses, now);
    }

    /// Processes the result of a dial. A successful dial becomes a link, and the caller runs the link's task.
    pub(crate) fn dialed(&mut self, plan: Plan, result: Result<Dialed, DialError>) -> Option<(LinkId, MaybeTlsStream)> {
        let now = self.now();
        let _turn = TurnGuard::of("dials", ());
        let url = plan.shown();
        let trace = plan.trace;
        let trace_id = trace.map(|link| tracing::field::display(link.trace));
        match result {
            Ok(Dialed { socket: WebSocket { stream, leftover, address, .. }, auth, lacks_proof }) => {
                if lacks_proof {
                    let detail = "the hub has not proved that it knows MESH_TOKEN (hubs of version 2.0.0 cannot prove \
                        it): set MESH_AUTH=challenge when no hub of version 2.0.0 is left";
                    warn!(url, %address, detail, "link_unproven");
                }
                let hub = plan.legacy.then(|| hub_at(&url));
                let target = plan.target.clone();
                let (legacy, target_url) = (plan.legacy, Some((plan.target, url)));
                let adopted = NewLink { address, target: target_url, hub, legacy, auth, leftover, trace };
                let Some(link) = self.adopt(adopted) else {
                    self.targets.failed(
                        &target,
                        "this hub has its maximum number of links or is stopping",
                        now,
                        chance(),
                    );
                    return None;
                };
                if self.links.contains_key(&link) {
                    self.targets.dialed(&target, link, address);
                }
                Some((link, stream))
            }
            Err(error) => {
                self.stats.dial_failures += 1;
                self.trace_dial_failed(&plan, &error.to_string(), now);
                if self.targets.failed(&plan.target, &error.to_string(), now, chance()) {
                    warn!(url, %error, trace_id, "dial_failed");
                } else {
                    debug!(url, %error, trace_id, "dial_failed");
                }
                None
            }
        }
    }
}

/// Makes an id for a dialed Go hub, because a Go hub that is dialed does not send its id. All hubs that dial the same
/// URL make the same id for the Go hub there.
fn hub_at(url: &str) -> HubId {
    let mut bytes = [0; 20];
    for (part, key) in bytes.chunks_mut(16).zip(0..) {
        let mut hasher = SipHasher13::new_with_keys(key, 0);
        hasher.write(url.as_bytes());
        part.copy_from_slice(&hasher.finish128().as_bytes()[..part.len()]);
    }
    HubId(PeerId::from_bytes(bytes))
}
