//! Routed envelopes: signals, outcomes, takeovers and meetings, which other hubs forward to their destination.

use crate::envelope::{Envelope, RouteHeader, Routed};
use crate::id::{HubId, HubIncarnation};
use crate::limits::MAX_HOPS;
use crate::reason::{ErrorCode, Outcome};
use crate::route::Hop;
use crate::time::Now;

use super::{Destination, Relay};

impl Relay {
    /// Processes a routed envelope.
    pub(super) fn routed(&mut self, via: Hop, route: RouteHeader, routed: Routed, now: Now) {
        if route.to != self.config.hub {
            return self.forward(via, route, routed, now);
        }
        if route.to_incarnation != self.config.incarnation {
            // The envelope is addressed to an earlier incarnation of this hub.
            return self.bounce(via, route, &routed, now);
        }
        let is_current = self.hubs.get(&route.from).is_some_and(|r| r.incarnation() == route.from_incarnation);
        match routed {
            Routed::Signal(signal) if is_current => {
                self.trace_arrived(via, &route, &signal, now);
                self.arrived(route.from, signal, now);
            }
            Routed::Signal(_) => self.bounce(via, route, &routed, now),
            Routed::Outcomes(outcomes) if is_current => self.outcomes_received(route.from, outcomes, now),
            Routed::Outcomes(outcomes) => self.stats.late_outcomes += outcomes.len() as u64,
            Routed::Takeover { peer, ticket, resume, owner } => {
                self.takeover_asked(route, peer, ticket, (resume, owner), now);
            }
            Routed::TakeoverAnswer { peer, ticket, in_use } => self.takeover_answered(peer, ticket, in_use),
            Routed::Meeting(meeting) if is_current => self.meeting_received(route.from, &meeting),
            // The sending hub repeats the meeting in its current incarnation.
            Routed::Meeting(_) => {}
        }
    }

    /// Sends an envelope on to the next hub of its route.
    fn forward(&mut self, via: Hop, route: RouteHeader, routed: Routed, now: Now) {
        // Outcomes and takeovers are short, so they are forwarded even over full links. A takeover that is not
        // forwarded would be answered as if its destination were gone.
        let large = matches!(routed, Routed::Signal(_) | Routed::Meeting(_));
        let waits = |relay: &Self, next| large && relay.is_saturated(next);
        let next = self.route(&route.to, now).filter(|&next| next != via);
        // If there is no other route, this hub's direct link to the destination is used even if it fails in one
        // direction. The hub that sent the envelope here has no better route.
        let direct = || self.links.used_for(&route.to).map(Hop::Link).filter(|&direct| direct != via);
        let next = next.or_else(direct).filter(|&next| !waits(self, next));
        let Some(next) = next.filter(|_| route.hops.saturating_add(1) < MAX_HOPS) else {
            return self.bounce(via, route, &routed, now);
        };
        if let Routed::Signal(signal) = &routed {
            self.stats.forwarded += 1;
            self.trace_passed((via, Some(next)), &route, signal, now);
        }
        let route = RouteHeader { hops: route.hops + 1, ..route };
        self.send(Destination::from(next), Envelope::Routed(route, Box::new(routed)));
    }

    /// Answers the source of an undeliverable envelope in the name of its destination.
    fn bounce(&mut self, via: Hop, route: RouteHeader, routed: &Routed, now: Now) {
        if let Routed::Signal(signal) = routed {
            self.trace_passed((via, None), &route, signal, now);
        }
        let answer = match routed {
            Routed::Signal(signal) => Routed::Outcomes(vec![(signal.counter, Outcome::Failed(ErrorCode::Unreachable))]),
            // A session at a hub that cannot be reached does not keep its id.
            Routed::Takeover { peer, ticket, .. } => {
                Routed::TakeoverAnswer { peer: *peer, ticket: *ticket, in_use: false }
            }
            Routed::Outcomes(_) | Routed::TakeoverAnswer { .. } | Routed::Meeting(_) => return,
        };
        let back = RouteHeader {
            to: route.from,
            to_incarnation: route.from_incarnation,
            from: route.to,
            from_incarnation: route.to_incarnation,
            // The hop count starts again at 0, because the route back can have the same length. Answers are never
            // bounced, so answers do not circulate.
            hops: 0,
        };
        if let Some(via) = self.route(&back.to, now) {
            self.send(Destination::from(via), Envelope::Routed(back, Box::new(answer)));
        }
    }

    /// Sends an envelope to a hub that may be several hops away. Returns false if there is no route.
    pub(super) fn send_routed(&mut self, to: (HubId, HubIncarnation), routed: Routed, now: Now) -> bool {
        let Some(via) = self.route(&to.0, now) else { return false };
        let route = self.header_to(to);
        self.send(Destination::from(via), Envelope::Routed(route, Box::new(routed)));
        true
    }

    /// The header of an envelope from this hub to an incarnation of another hub.
    pub(super) fn header_to(&self, (to, to_incarnation): (HubId, HubIncarnation)) -> RouteHeader {
        let (from, from_incarnation) = (self.config.hub, self.config.incarnation);
        RouteHeader { to, to_incarnation, from, from_incarnation, hops: 0 }
    }
}
