//! Checks that the records of a relay's state agree with each other. Simulators and tests call these checks.

use std::collections::BTreeMap;

use crate::bug;
use crate::bugs::ensure;
use crate::id::PeerId;
use crate::limits::GREATEST_TIME;

use super::budgets::{Budgets, Kept, presence_bytes};
use super::{Relay, holding};

impl Relay {
    /// Compares the records of this hub with each other, and reports a contradiction as an impossible state. Call this
    /// function between two inputs. The comparison takes time in proportion to the state, so only tests and simulators
    /// call it.
    ///
    /// # Panics
    ///
    /// With debug assertions, if there is a contradiction.
    pub fn audit(&mut self) {
        let checks = [Self::audit_links, Self::audit_hubs, Self::audit_claims, Self::audit_legacy];
        if let Some(Err(what)) = checks.into_iter().map(|check| check(self)).find(Result::is_err) {
            bug!(self.bugs, Audit, "{what}");
        }
    }

    /// Checks that one link of each linked hub is in use.
    fn audit_links(&self) -> Result<(), String> {
        self.links.audit()
    }

    /// Checks the numbers, the stored bytes and the introducers of hubs, and the digest of this hub's own presence.
    fn audit_hubs(&self) -> Result<(), String> {
        for (hub, remote) in &self.hubs {
            let called = self.numbers.get(&remote.number());
            ensure(called == Some(hub), || {
                format!("number {} belongs to {called:?}, but must belong to {hub:?}", remote.number())
            })?;
        }
        let (numbers, hubs) = (self.numbers.len(), self.hubs.len());
        ensure(numbers == hubs, || format!("{hubs} hubs have {numbers} numbers"))?;
        let mut counted = Kept::default();
        for (hub, remote) in &self.hubs {
            let (kept, accounted) = (remote.kept(), remote.accounted());
            ensure(kept == accounted, || format!("{kept:?} is kept for {hub:?}, but {accounted:?} is counted"))?;
            let held: usize = remote.holding.peers.values().map(|presence| presence_bytes(presence)).sum();
            ensure(held == remote.holding.bytes(), || {
                format!("the replica of {hub:?} has {held} bytes, but another number is counted")
            })?;
            counted.presence += kept.presence;
            counted.ahead += kept.ahead;
            counted.held += kept.held;
        }
        let mut introducers = BTreeMap::new();
        self.hubs.values().for_each(|remote| *introducers.entry(remote.introduced_by()).or_default() += 1);
        ensure(introducers == self.introducers, || {
            format!("{introducers:?} introduced the hubs, but {:?} is counted", self.introducers)
        })?;
        let Budgets { presence, ahead, held } = &self.budgets;
        let used = Kept { presence: presence.used(), ahead: ahead.used(), held: held.used() };
        ensure(counted == used, || format!("{counted:?} is kept for all hubs, but {used:?} is counted"))?;
        let digest = holding::digest(self.own.peers.values());
        ensure(digest == self.own.digest, || format!("the digest of {} own peers is wrong", self.own.peers.len()))
    }

    /// Checks that each winning claim belongs to a peer in the presence of its hub, and that each peer in the presence
    /// of a hub has a claim. Peers that a later slice processes are not checked.
    fn audit_claims(&self) -> Result<(), String> {
        let mut shown = 0;
        for (peer, claim, is_shown) in self.directory.claims() {
            shown += usize::from(is_shown);
            let Some(claim) = claim else { continue };
            let remote = self.hubs.get(&claim.hub);
            if remote.is_some_and(|remote| remote.pending_leave(&peer).is_some()) {
                // The peer's change of claim will be processed in a later slice.
                continue;
            }
            let held = if claim.hub == self.config.hub {
                self.own.peers.get(&peer)
            } else {
                self.hubs.get(&claim.hub).and_then(|remote| remote.holding.peers.get(&peer))
            };
            let session = held.map(|presence| presence.session);
            ensure(session == Some(claim.incarnation), || {
                format!("the claim to {peer:?} is {claim:?}, but its hub has the session {session:?}")
            })?;
        }
        ensure(shown == self.directory.shown, || {
            format!("the shards know {shown} peers, but {} are counted", self.directory.shown)
        })?;
        for (hub, remote) in &self.hubs {
            let (awaits, believed) =
                (|peer: &PeerId| remote.pending_leave(peer).is_some(), |session| session <= GREATEST_TIME);
            let held = remote.holding.peers.iter().filter(|(_, presence)| believed(presence.session.0));
            let forgotten = held.map(|(peer, _)| peer).find(|peer| !awaits(peer) && !remote.claims().contains(peer));
            ensure(forgotten.is_none(), || format!("{forgotten:?} of {hub:?} is in the replica, but has no claim"))?;
            let left = remote.claims().iter().find(|peer| !awaits(peer) && !remote.holding.peers.contains_key(peer));
            ensure(left.is_none(), || format!("{left:?} of {hub:?} has a claim, but is not in the replica"))?;
            ensure(!remote.is_busy() || self.busy.contains(hub), || {
                format!("{hub:?} has unfinished work, but is not in the list of busy hubs")
            })?;
        }
        let idle = self.busy.is_empty() && self.legacy.ended_links() == 0 || self.unfinished;
        ensure(idle, || {
            format!("no slice is requested for {:?} and {} ended links", self.busy, self.legacy.ended_links())
        })?;
        let unclaimed = |peer: &&PeerId| self.directory.holder(peer).is_none();
        let own = self.own.peers.keys().find(unclaimed);
        ensure(own.is_none(), || format!("own peer {own:?} has no claim"))
    }

    /// Checks that each peer of a Go hub is recorded at the link that announced it.
    fn audit_legacy(&self) -> Result<(), String> {
        self.legacy.audit()
    }
}
