//! Rosters: the members of each network. Every shard has complete rosters. Bounded discovery limits only which members
//! are notified.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use crate::Bugs;
use crate::bug;
use crate::bugs::ensure;
use crate::claim::{Claim, Precedence};
use crate::id::{NetworkName, PeerId};
use crate::keys::Keys;
use crate::route::Address;

use super::letter::Announcement;
use super::network::{Member, Network};

/// A network's index in [`Rosters`]. The index is valid while the network has a member, a session on this shard, or a
/// session with an unfinished leave.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct NetworkIx(u32);

/// All networks that this shard knows. Decides which claim to a membership wins.
#[derive(Debug)]
pub(super) struct Rosters {
    by_name: HashMap<NetworkName, NetworkIx, Keys>,
    slots: Vec<Option<Network>>,
    free: Vec<NetworkIx>,
    /// Announcements whose claims are smaller than the claim in the roster. There is at most one for each member.
    hidden: BTreeMap<(NetworkIx, PeerId), Arc<Announcement>>,
    members: usize,
    /// Number of networks with members. Other networks have only observers, or sessions with unfinished leaves.
    inhabited: usize,
}

/// The decision about an announcement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MemberArrival {
    /// [Enter](Rosters::enter) the announcement.
    Enters,
    /// [Strike](Rosters::strike) the member with this claim, then enter the announcement. The announcement belongs to
    /// another session or another stay of the peer.
    Replaces(Claim),
    /// Do nothing, because a greater claim wins. The announcement is stored, because it wins if the greater claim ends
    /// first.
    Hidden,
}

/// Error: a member that has left is still in the roster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StillEntered;

impl Rosters {
    pub(super) fn new(keys: Keys) -> Self {
        let by_name = HashMap::with_hasher(keys);
        Self { by_name, slots: Vec::new(), free: Vec::new(), hidden: BTreeMap::new(), members: 0, inhabited: 0 }
    }

    pub(super) fn find(&self, name: &str) -> Option<NetworkIx> {
        self.by_name.get(name).copied()
    }

    pub(super) fn find_or_create(&mut self, name: &NetworkName) -> NetworkIx {
        if let Some(&ix) = self.by_name.get(name) {
            return ix;
        }
        let network = Network::new(name.clone());
        let ix = match self.free.pop() {
            Some(ix) => {
                self.slots[ix.0 as usize] = Some(network);
                ix
            }
            None => {
                self.slots.push(Some(network));
                NetworkIx(self.slots.len() as u32 - 1)
            }
        };
        self.by_name.insert(name.clone(), ix);
        ix
    }

    /// Decides about an announcement.
    ///
    /// If a peer is connected to two hubs for a moment, the greater claim wins, in whatever order the two announcements
    /// arrive. The smaller claim is stored until it ends, because it wins if the greater claim ends first. A different
    /// stay means that the peer left and returned unnoticed, during a partition. A member with a different stay is
    /// replaced if it is or was bounded, or has met a bounded member. Only these members must meet again.
    pub(super) fn arrive(&mut self, ix: NetworkIx, announcement: &Arc<Announcement>) -> MemberArrival {
        let (peer, claim) = (announcement.peer, announcement.claim);
        let Some(member) = self.member(ix, &peer) else { return MemberArrival::Enters };
        let held = member.announcement().claim;
        match claim.against(held) {
            Precedence::Loses => {
                let hidden = self.hidden.entry((ix, peer)).or_insert_with(|| Arc::clone(announcement));
                if claim.against(hidden.claim) != Precedence::Loses {
                    *hidden = Arc::clone(announcement);
                }
                MemberArrival::Hidden
            }
            Precedence::Wins => MemberArrival::Replaces(held),
            Precedence::Same => {
                let met = member.is_bounded() || announcement.is_bounded() || !member.knowers().is_empty();
                let returned = member.announcement().stay != announcement.stay;
                if returned && met { MemberArrival::Replaces(held) } else { MemberArrival::Enters }
            }
        }
    }

    /// Handles the end of a membership with this claim. If the roster has the member with this claim, the caller must
    /// remove the member first. Returns the hidden announcement that now wins, if there is one. The caller must enter
    /// this announcement.
    ///
    /// # Errors
    ///
    /// [`StillEntered`] if the member is still in the roster with this claim.
    pub(super) fn reveal(
        &mut self,
        ix: NetworkIx,
        peer: PeerId,
        ended: Claim,
    ) -> Result<Option<Arc<Announcement>>, StillEntered> {
        let held = self.member(ix, &peer).map(|member| member.announcement().claim);
        let is_hidden = self.hidden.get(&(ix, peer)).is_some_and(|hidden| hidden.claim == ended);
        let revealed = if is_hidden || held.is_none() { self.hidden.remove(&(ix, peer)) } else { None };
        if held == Some(ended) { Err(StillEntered) } else { Ok(revealed.filter(|_| !is_hidden)) }
    }

    /// A member of a network.
    pub(super) fn member(&self, ix: NetworkIx, peer: &PeerId) -> Option<&Member> {
        self.network(ix)?.member(peer)
    }

    pub(super) fn network(&self, ix: NetworkIx) -> Option<&Network> {
        self.slots.get(ix.0 as usize)?.as_ref()
    }

    pub(super) fn network_mut(&mut self, ix: NetworkIx) -> Option<&mut Network> {
        self.slots.get_mut(ix.0 as usize)?.as_mut()
    }

    /// Enters a member, or updates its announcement. Returns whether the member is new. `None` if there is no such
    /// network.
    pub(super) fn enter(&mut self, ix: NetworkIx, address: Address, announcement: Arc<Announcement>) -> Option<bool> {
        let network = self.slots.get_mut(ix.0 as usize)?.as_mut()?;
        let was_empty = network.len() == 0;
        let new = network.enter(announcement.peer, Member::new(address, announcement));
        self.inhabited += usize::from(was_empty);
        self.members += usize::from(new);
        Some(new)
    }

    /// Removes a member if its entry has this claim.
    pub(super) fn strike(&mut self, ix: NetworkIx, peer: &PeerId, claim: Claim) -> Option<Member> {
        let network = self.slots.get_mut(ix.0 as usize)?.as_mut()?;
        if network.member(peer)?.announcement().claim != claim {
            return None;
        }
        self.members -= 1;
        let struck = network.strike(peer);
        self.inhabited -= usize::from(network.len() == 0);
        struck
    }

    /// Removes the network if it has no members, no sessions on this shard, and no unfinished leaves.
    pub(super) fn tidy(&mut self, ix: NetworkIx, bugs: &mut Bugs) {
        let Some(slot) = self.slots.get_mut(ix.0 as usize) else {
            return bug!(bugs, LeaveNetwork, "{ix:?} has lost a member");
        };
        if let Some(network) = slot.take_if(|network| network.is_deserted()) {
            self.by_name.remove(network.name());
            self.free.push(ix);
        }
    }

    /// Number of networks with members.
    pub(super) fn len(&self) -> usize {
        self.inhabited
    }

    pub(super) fn members(&self) -> usize {
        self.members
    }

    #[cfg(test)]
    pub(super) fn hidden(&self) -> usize {
        self.hidden.len()
    }

    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Every network with its index.
    pub(super) fn all(&self) -> impl Iterator<Item = (NetworkIx, &Network)> {
        self.slots.iter().enumerate().filter_map(|(slot, network)| Some((NetworkIx(slot as u32), network.as_ref()?)))
    }

    /// Checks that the names, indexes and counters of networks agree.
    pub(super) fn audit(&self) -> Result<(), String> {
        let (mut networks, mut members) = (0, 0);
        for (ix, network) in self.all() {
            networks += 1;
            members += network.len();
            let found = self.find(network.name().as_str());
            ensure(found == Some(ix), || format!("the name of {ix:?} finds {found:?}"))?;
            ensure(!network.is_deserted(), || format!("{ix:?} has no members and no sessions"))?;
            network.audit().map_err(|wrong| format!("{ix:?}: {wrong}"))?;
        }
        for ((ix, peer), hidden) in &self.hidden {
            let held = self.member(*ix, peer).map(|member| member.announcement().claim);
            ensure(held.is_some_and(|held| hidden.claim.against(held) == Precedence::Loses), || {
                format!("an announcement of {peer:?} in {ix:?} is hidden without a greater claim")
            })?;
        }
        let inhabited = self.all().filter(|(_, network)| network.len() > 0).count();
        ensure(inhabited == self.inhabited, || {
            format!("{inhabited} networks have members, but {} are counted", self.inhabited)
        })?;
        ensure(networks == self.by_name.len(), || {
            format!("{networks} networks exist, but {} names are listed", self.by_name.len())
        })?;
        ensure(networks + self.free.len() == self.slots.len(), || {
            format!("{} slots are listed as free", self.free.len())
        })?;
        ensure(members == self.members, || format!("{members} members exist, but {} are counted", self.members))
    }

    /// All networks with at least one member, with their numbers of members, in the order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&NetworkName, usize)> {
        sizes(&self.slots)
    }

    /// The networks in these slots, as in [`Self::iter`]. `None` after the last slot.
    pub(super) fn iter_in(&self, slots: Range<usize>) -> Option<impl Iterator<Item = (&NetworkName, usize)>> {
        let end = slots.end.min(self.slots.len());
        self.slots.get(slots.start..end).filter(|slots| !slots.is_empty()).map(sizes)
    }
}

fn sizes(slots: &[Option<Network>]) -> impl Iterator<Item = (&NetworkName, usize)> {
    slots.iter().flatten().map(|network| (network.name(), network.len())).filter(|(_, members)| *members > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{HubId, PeerIncarnation, SessionId, ShardId};
    use crate::router::Discovery;
    use crate::router::letter::Stay;
    use crate::wire;

    const HERE: Address = Address::Shard(ShardId(0));
    const PEER: PeerId = PeerId::from_bytes([1; 20]);

    fn claim(incarnation: u64) -> Claim {
        Claim { incarnation: PeerIncarnation(incarnation), hub: HubId(PeerId::from_bytes([9; 20])) }
    }

    fn announcement(peer: PeerId, incarnation: u64, stay: u64, discovery: Discovery) -> Arc<Announcement> {
        Arc::new(Announcement {
            peer,
            network: NetworkName::new("n"),
            claim: claim(incarnation),
            remote: false,
            stay: Stay { number: stay, discovery },
            discovered: Arc::new(wire::peer_discovered(b"{}", PeerIncarnation(incarnation), "n", 0)),
        })
    }

    fn rosters() -> (Rosters, NetworkIx) {
        let mut rosters = Rosters::new(Keys(1, 2));
        let ix = rosters.find_or_create(&NetworkName::new("n"));
        (rosters, ix)
    }

    #[test]
    fn bounded_members_are_counted_separately() {
        let (mut rosters, ix) = rosters();
        let bounded = Discovery::Closest(2);
        for (n, discovery) in
            [(1, Discovery::All), (2, bounded), (3, Discovery::All), (4, bounded), (5, Discovery::All)]
        {
            rosters.enter(ix, Address::Mesh, announcement(PeerId::from_bytes([n; 20]), 1, 1, discovery));
        }
        let counted = rosters.network(ix).map(|network| (network.len(), network.unbounded()));
        assert_eq!(counted, Some((5, 3)));
    }

    #[test]
    fn the_greater_claim_wins() {
        for (held, comes, expected) in
            [(5, 4, MemberArrival::Hidden), (5, 5, MemberArrival::Enters), (5, 6, MemberArrival::Replaces(claim(5)))]
        {
            let (mut rosters, ix) = rosters();
            let first = announcement(PEER, held, 1, Discovery::All);
            assert_eq!(rosters.arrive(ix, &first), MemberArrival::Enters);
            assert_eq!(rosters.enter(ix, HERE, first), Some(true));
            assert_eq!(rosters.arrive(ix, &announcement(PEER, comes, 1, Discovery::All)), expected, "{comes}");
        }
    }

    #[test]
    fn a_new_stay_replaces_a_member_that_is_bounded_or_has_met_others() {
        let (all, some) = (Discovery::All, Discovery::Closest(1));
        for (known, comes, met, expected) in [
            (all, all, false, MemberArrival::Enters),
            (all, all, true, MemberArrival::Replaces(claim(5))),
            (all, some, false, MemberArrival::Replaces(claim(5))),
            (some, all, false, MemberArrival::Replaces(claim(5))),
        ] {
            let (mut rosters, ix) = rosters();
            rosters.enter(ix, HERE, announcement(PEER, 5, 1, known));
            if met {
                let member = rosters.network_mut(ix).unwrap().member_mut(&PEER).unwrap();
                member.note_knower(SessionId { slot: 1, generation: 0 });
            }
            assert_eq!(rosters.arrive(ix, &announcement(PEER, 5, 1, known)), MemberArrival::Enters);
            assert_eq!(rosters.arrive(ix, &announcement(PEER, 5, 2, comes)), expected, "{known:?} {comes:?} {met}");
        }
    }

    #[test]
    fn the_greatest_hidden_claim_wins_after_the_member_has_left() {
        let (mut rosters, ix) = rosters();
        rosters.enter(ix, HERE, announcement(PEER, 9, 1, Discovery::All));
        for hidden in [3, 5, 4] {
            assert_eq!(rosters.arrive(ix, &announcement(PEER, hidden, 1, Discovery::All)), MemberArrival::Hidden);
        }
        assert!(rosters.reveal(ix, PEER, claim(9)).is_err(), "the member is still in the roster");
        assert!(rosters.strike(ix, &PEER, claim(8)).is_none() && rosters.strike(ix, &PEER, claim(9)).is_some());
        let revealed = rosters.reveal(ix, PEER, claim(9)).unwrap();
        assert_eq!(revealed.map(|announcement| announcement.claim), Some(claim(5)));
        assert_eq!(rosters.hidden(), 0);
    }

    #[test]
    fn a_hidden_claim_that_ends_is_removed() {
        let (mut rosters, ix) = rosters();
        rosters.enter(ix, HERE, announcement(PEER, 9, 1, Discovery::All));
        rosters.arrive(ix, &announcement(PEER, 5, 1, Discovery::All));
        assert!(rosters.reveal(ix, PEER, claim(5)).unwrap().is_none());
        rosters.strike(ix, &PEER, claim(9));
        assert!(rosters.reveal(ix, PEER, claim(9)).unwrap().is_none());
        assert!(rosters.audit().is_err(), "an empty network must not remain");
        rosters.tidy(ix, &mut Bugs::default());
        assert_eq!((rosters.len(), rosters.audit()), (0, Ok(())));
    }

    proptest! {
        #[test]
        fn the_lists_and_counters_of_a_network_match_its_members(
            steps in prop::collection::vec((0u8..10, any::<bool>(), any::<bool>(), any::<bool>()), 1..60),
        ) {
            let (mut rosters, ix) = rosters();
            let mut locals = BTreeMap::new();
            // One member stays in the network, so that the network is kept.
            rosters.enter(ix, HERE, announcement(PeerId::from_bytes([255; 20]), 1, 1, Discovery::All));
            for (n, joins, bounded, draws) in steps {
                let (peer, id) = (PeerId::from_bytes([n; 20]), SessionId { slot: n.into(), generation: 0 });
                let discovery = if bounded { Discovery::Closest(1) } else { Discovery::All };
                if draws {
                    let network = rosters.network_mut(ix).unwrap();
                    network.make_lots();
                    prop_assert!(network.draw(u64::MAX / 2).is_some());
                }
                if joins && !locals.contains_key(&n) {
                    prop_assert_eq!(rosters.enter(ix, HERE, announcement(peer, 1, 1, discovery)), Some(true));
                    locals.insert(n, rosters.network_mut(ix).unwrap().add_local(id, discovery));
                } else if !joins && let Some(local) = locals.remove(&n) {
                    let network = rosters.network_mut(ix).unwrap();
                    if let Some(moved) = network.remove_local(id, local, &mut Bugs::default()).unwrap() {
                        locals.insert(moved.slot as u8, local);
                    }
                    network.notified_of_leave(&mut Bugs::default());
                    prop_assert!(rosters.strike(ix, &peer, claim(1)).is_some());
                }
                prop_assert_eq!(rosters.audit(), Ok(()));
                let network = rosters.network(ix).unwrap();
                for (n, local) in &locals {
                    let listed = local.map(|local| network.locals()[local as usize].slot);
                    prop_assert!(listed.is_none_or(|slot| slot == u32::from(*n)));
                }
                prop_assert_eq!(network.len(), locals.len() + 1);
            }
        }
    }
}
