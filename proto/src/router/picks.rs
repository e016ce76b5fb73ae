//! Chooses the picks of a peer, which are the closest members and random members.

use std::hash::BuildHasher;
use std::ops::ControlFlow;

use crate::bug;
use crate::id::{PeerId, SessionId};
use crate::limits::{MAX_ACQUAINTANCES, MAX_CLOSEST, PICKS_IN_TURN};

use super::Router;
use super::circle::{Bond, Met};
use super::network::Member;
use super::roster::NetworkIx;

/// Maximum number of members that one search for close members examines. The search also examines members that the peer
/// already knows, and members that cannot be picked.
const STEPS: usize = MAX_ACQUAINTANCES + 4 * MAX_CLOSEST as usize;

impl Router {
    /// Chooses members that a session does not know. `closest` is the number of closest members, and `random` is the
    /// number of random members.
    pub(super) fn pick(&mut self, id: SessionId, ix: NetworkIx, closest: usize, random: usize) -> Vec<(PeerId, Bond)> {
        let mut picks = Vec::with_capacity(closest + random);
        if random > 0
            && let Some(network) = self.rosters.network_mut(ix)
        {
            network.make_lots();
        }
        let session = self.sessions.get(id).and_then(|session| Some((session.peer(), session.membership(ix)?)));
        let (Some((peer, membership)), Some(network)) = (session, self.rosters.network(ix)) else {
            bug!(self.bugs, CircleSession, "{id:?} picks in {ix:?}");
            return picks;
        };
        let circle = membership.circle();
        let (announced, known) = circle.map_or((0, 0), |circle| (circle.announced() as usize, circle.len()));
        let room = self.config.tuning.max_acquaintances.saturating_sub(announced);
        if known + 1 >= network.len() {
            return picks;
        }
        let free = |other: &PeerId, member: &Member| {
            *other != peer
                && circle.is_none_or(|circle| !circle.contains(other))
                && !member.announcement().claim.is_legacy()
                && !self.is_full_here(ix, other, member)
        };
        let closest = closest.min(room);
        if closest > 0 {
            let mut steps = STEPS;
            network.visit_closest(peer, |other, member| {
                if free(&other, member) {
                    picks.push((other, Bond::Close));
                }
                steps -= 1;
                if picks.len() == closest || steps == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        }
        let wanted = (picks.len() + random).min(room);
        let mut draws = self.meetings.draws();
        for _ in 0..4 * random {
            if picks.len() >= wanted {
                break;
            }
            draws += 1;
            let random = self.config.keys.hash_one((peer, draws));
            let Some(other) = network.draw(random) else { break };
            let is_free = network.member(&other).is_some_and(|member| free(&other, member));
            if is_free && !picks.iter().any(|(pick, _)| *pick == other) {
                picks.push((other, Bond::Random));
            }
        }
        if picks.len() < wanted {
            // Most random draws found members that this peer already knows, because the network is small or the peer
            // knows nearly all members.
            draws += 1;
            let from = self.config.keys.hash_one((peer, draws));
            for other in network.draw_in_turn(from).take(PICKS_IN_TURN) {
                let is_free = network.member(&other).is_some_and(|member| free(&other, member));
                if is_free && !picks.iter().any(|(pick, _)| *pick == other) {
                    picks.push((other, Bond::Random));
                }
                if picks.len() == wanted {
                    break;
                }
            }
        }
        self.meetings.set_draws(draws);
        picks
    }

    /// Whether a member of this shard already knows its maximum number of other peers. False for members of other
    /// shards and hubs, because only a member's home shard has this information.
    pub(super) fn is_full_here(&self, ix: NetworkIx, peer: &PeerId, member: &Member) -> bool {
        member.address() == self.here()
            && self
                .by_peer
                .get(peer)
                .and_then(|&id| self.sessions.membership(id, ix))
                .is_some_and(|membership| membership.is_crowded(self.config.tuning.max_acquaintances))
    }

    /// Introduces a new member to those peers of this shard that a pick for the new member finds in this shard's
    /// roster. Returns the peers that have met the new member now.
    ///
    /// A peer that knows fewer members than it requested also meets a new member that does not pick it. In a network
    /// with many members, hardly any peer knows fewer members than it requested. So the search covers more than the
    /// picks only if the network is small, or if the new member is unbounded and has no picks.
    pub(super) fn propose(&mut self, ix: NetworkIx, newcomer: PeerId) -> Vec<(SessionId, PeerId, u64)> {
        let network = self.rosters.network(ix);
        let Some((network, member)) = network.and_then(|network| Some((network, network.member(&newcomer)?))) else {
            bug!(self.bugs, CircleMember, "{newcomer:?} has joined {ix:?}");
            return Vec::new();
        };
        if network.bounded_locals() == 0 && (!member.is_bounded() || network.locals().is_empty()) {
            return Vec::new();
        }
        if member.announcement().claim.is_legacy() {
            return Vec::new();
        }
        let closest = usize::from(member.announcement().stay.discovery.closest());
        let bounded = member.is_bounded();
        let small = network.len() <= usize::from(MAX_CLOSEST) + 1;
        let here = self.here();
        if bounded && !small && member.address() == here {
            // The new member has just chosen its picks from the same roster.
            return Vec::new();
        }
        let looked_at = if bounded && !small { closest } else { usize::from(MAX_CLOSEST) };
        let (mut seen, mut steps) = (0, STEPS);
        let mut found = Vec::new();
        network.visit_closest(newcomer, |other, member| {
            steps -= 1;
            if steps == 0 {
                return ControlFlow::Break(());
            }
            // Members that cannot be picked are not counted in `seen`.
            if other == newcomer || member.announcement().claim.is_legacy() {
                return ControlFlow::Continue(());
            }
            seen += 1;
            if member.address() == here && (bounded || member.is_bounded()) {
                found.push((other, bounded && seen <= closest));
            }
            if seen == looked_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let mut met = Vec::new();
        for (other, picked) in found {
            let id = self.by_peer.get(&other).copied();
            let resident = id.and_then(|id| Some((id, self.sessions.membership(id, ix)?)));
            let Some((id, membership)) = resident else {
                if self.is_leaving(id, ix) {
                    continue;
                }
                bug!(self.bugs, ResidentSession, "{other:?}, {id:?} in {ix:?}");
                continue;
            };
            let stay = membership.stay();
            let knows = membership.circle().map_or(0, |circle| circle.announced());
            if !picked && knows >= u32::from(stay.discovery.closest()) {
                continue;
            }
            let bond = if picked { Bond::Met } else { Bond::Close };
            if membership.circle().is_none_or(|circle| !circle.contains(&newcomer))
                && self.meet(id, ix, newcomer, bond) == Met::Now
            {
                met.push((id, other, stay.number));
            }
        }
        met
    }
}
