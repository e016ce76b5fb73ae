//! Takeovers between hubs. In a takeover, two sessions at different hubs want one peer id. The hub of the new session
//! asks the hub of the old session whether the id is still in use.

use crate::bug;
use crate::envelope::{RouteHeader, Routed};
use crate::id::{PeerId, ShardId};
use crate::resume::Lineage;
use crate::router::{Asker, ToShard};
use crate::time::Now;

use super::Relay;

/// Size of a shard's ticket, in bits. A ticket between hubs also has the shard's number, in the bits above the shard's
/// ticket.
const TICKET_BITS: u32 = 48;

impl Relay {
    pub(super) fn ask_takeover(
        &mut self,
        peer: PeerId,
        shard: ShardId,
        ticket: u64,
        (resume, owner): (Option<Lineage>, bool),
        now: Now,
    ) {
        self.reconcile(&peer, now);
        let holder = self.directory.holder(&peer).filter(|claim| claim.hub != self.config.hub);
        let remote = holder.and_then(|claim| self.hubs.get(&claim.hub)).map(|r| (r.hub(), r.incarnation()));
        if holder.is_some() && remote.is_none() {
            bug!(self.bugs, HubMissing, "{holder:?} is the claim to {peer:?}");
        }
        let asked = remote.is_some_and(|to| {
            let ticket = u64::from(shard.0) << TICKET_BITS | ticket & ((1 << TICKET_BITS) - 1);
            self.send_routed(to, Routed::Takeover { peer, ticket, resume, owner }, now)
        });
        if !asked {
            // A session at an unreachable hub does not keep its id.
            self.post(shard, ToShard::TakeoverAnswered { peer, ticket, in_use: false });
        }
    }

    pub(super) fn takeover_asked(
        &mut self,
        route: RouteHeader,
        peer: PeerId,
        ticket: u64,
        (resume, owner): (Option<Lineage>, bool),
        now: Now,
    ) {
        let asker = Asker { hub: route.from, incarnation: route.from_incarnation, ticket };
        if self.own.peers.contains_key(&peer) && !self.legacy.holds(&peer) {
            let home = ShardId::home(&peer, self.config.shards, self.config.keys);
            self.post(home, ToShard::Challenge { peer, asker, resume, owner });
        } else {
            self.challenge_answered(peer, asker, false, now);
        }
    }

    pub(super) fn challenge_answered(&mut self, peer: PeerId, asker: Asker, in_use: bool, now: Now) {
        let answer = Routed::TakeoverAnswer { peer, ticket: asker.ticket, in_use };
        // If there is no route back, the asking hub decides without an answer after its timeout.
        self.send_routed((asker.hub, asker.incarnation), answer, now);
    }

    pub(super) fn takeover_answered(&mut self, peer: PeerId, ticket: u64, in_use: bool) {
        let shard = (ticket >> TICKET_BITS) as u16;
        // Another hub can send any ticket. The relay checks only the shard's number in the ticket, and the shard checks
        // the remaining bits.
        if shard < self.config.shards {
            self.stats.takeovers[usize::from(in_use)] += 1;
            let ticket = ticket & ((1 << TICKET_BITS) - 1);
            self.post(ShardId(shard), ToShard::TakeoverAnswered { peer, ticket, in_use });
        }
    }
}
