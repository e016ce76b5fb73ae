//! Rosters: the members of each network. Every shard has complete rosters; only the notifications can be bounded.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, Range};
use std::sync::Arc;

use crate::bugs::ensure;
use crate::id::{Address, Claim, Keys, NetworkName, PeerId, SessionId};
use crate::wire::MessageKind;

use super::letter::{Announcement, Frame, Output};

/// A network's place in [`Rosters`]. Valid while the network has a member, a session, or a session that leaves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct NetworkIx(u32);

/// A member of a network.
#[derive(Debug)]
pub(super) struct Member {
    /// Where it is connected: a shard of this hub, or another hub.
    pub(super) place: Address,
    /// Its index in [`Network::lots`], while there are lots.
    lot: u32,
    /// Its latest announcement.
    pub(super) announcement: Arc<Announcement>,
    /// Bounded sessions of this shard that know it.
    #[expect(clippy::box_collection, reason = "most members have none: eight bytes for each, and not 24")]
    pub(super) knowers: Option<Box<Vec<SessionId>>>,
}

impl Member {
    pub(super) fn new(place: Address, announcement: Arc<Announcement>) -> Self {
        Self { place, lot: 0, announcement, knowers: None }
    }

    /// Whether its discovery is bounded.
    pub(super) fn is_bounded(&self) -> bool {
        self.announcement.stay.closest > 0
    }

    /// The output that announces it to a session.
    pub(super) fn discovered_by(&self, session: SessionId) -> Output {
        let frame = Frame::Template(Arc::clone(&self.announcement.discovered));
        Output::Send { session, frame, kind: MessageKind::PeerDiscovered, origin: None, from: None }
    }

    pub(super) fn note_knower(&mut self, id: SessionId) {
        self.knowers.get_or_insert_default().push(id);
    }

    pub(super) fn forget_knower(&mut self, id: SessionId) {
        let Some(knowers) = &mut self.knowers else { return };
        if let Some(at) = knowers.iter().position(|knower| *knower == id) {
            knowers.swap_remove(at);
        }
        if knowers.is_empty() {
            self.knowers = None;
        }
    }
}

/// Position of a reading cursor in a roster: members of this hub come first, then those of other hubs, each in
/// ascending order of ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Rank {
    remote: bool,
    peer: PeerId,
}

impl Rank {
    pub(super) fn of(peer: PeerId, place: Address) -> Self {
        Self { remote: place == Address::Mesh, peer }
    }

    pub(super) fn peer(&self) -> PeerId {
        self.peer
    }
}

/// One network.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) name: NetworkName,
    pub(super) members: BTreeMap<PeerId, Member>,
    /// Unbounded members with sessions on this shard, in no particular order.
    pub(super) locals: Vec<SessionId>,
    /// Number of bounded members, on any shard or hub.
    pub(super) bounded: u32,
    /// Number of bounded members with sessions on this shard.
    pub(super) bounded_locals: u32,
    /// Sessions of this shard that have left it and whose leave its members are still to be told.
    pub(super) leavers: u32,
    /// The members in no order, to draw from. None until somebody draws: most networks never do.
    lots: Option<Vec<PeerId>>,
}

impl Network {
    /// Prepares [`Self::draw`].
    pub(super) fn make_lots(&mut self) {
        if self.lots.is_none() {
            let mut lots = Vec::with_capacity(self.members.len());
            for (peer, member) in &mut self.members {
                member.lot = lots.len() as u32;
                lots.push(*peer);
            }
            self.lots = Some(lots);
        }
    }

    /// The member chosen by a random number; all are equally likely.
    pub(super) fn draw(&self, random: u64) -> Option<PeerId> {
        let lots = self.lots.as_ref()?;
        let at = (u128::from(random) * lots.len() as u128) >> 64;
        lots.get(at as usize).copied()
    }

    /// All members in turn, from the one chosen by a random number.
    pub(super) fn draw_in_turn(&self, random: u64) -> impl Iterator<Item = PeerId> {
        let lots = self.lots.as_deref().unwrap_or_default();
        let at = (u128::from(random) * lots.len() as u128) >> 64;
        let (before, after) = lots.split_at(at as usize);
        after.iter().chain(before).copied()
    }

    fn is_deserted(&self) -> bool {
        self.members.is_empty() && self.locals.is_empty() && self.bounded_locals == 0 && self.leavers == 0
    }

    fn enter(&mut self, peer: PeerId, mut member: Member) -> bool {
        self.bounded += u32::from(member.is_bounded());
        match self.members.get_mut(&peer) {
            Some(known) => {
                self.bounded -= u32::from(known.is_bounded());
                member.lot = known.lot;
                member.knowers = known.knowers.take();
                *known = member;
                false
            }
            None => {
                if let Some(lots) = &mut self.lots {
                    member.lot = lots.len() as u32;
                    lots.push(peer);
                }
                self.members.insert(peer, member);
                true
            }
        }
    }

    fn strike(&mut self, peer: &PeerId) -> Option<Member> {
        let struck = self.members.remove(peer)?;
        self.bounded -= u32::from(struck.is_bounded());
        if let Some(lots) = &mut self.lots {
            lots.swap_remove(struck.lot as usize);
            if let Some(moved) = lots.get(struck.lot as usize).and_then(|moved| self.members.get_mut(moved)) {
                moved.lot = struck.lot;
            }
        }
        Some(struck)
    }

    /// Examines up to `steps` members ranked after `after` and calls `tell` for each. Returns the rank of the last, or
    /// `None` at the end.
    pub(super) fn read(
        &self,
        after: Option<Rank>,
        mut steps: usize,
        mut tell: impl FnMut(Rank, &Member),
    ) -> Option<Rank> {
        let mut last = after;
        for remote in [false, true] {
            let from = match after {
                Some(after) if after.remote == remote => Bound::Excluded(after.peer),
                Some(after) if after.remote => continue,
                _ => Bound::Unbounded,
            };
            for (peer, member) in self.members.range((from, Bound::Unbounded)) {
                if steps == 0 {
                    return last;
                }
                steps -= 1;
                let rank = Rank::of(*peer, member.place);
                if rank.remote == remote {
                    tell(rank, member);
                }
                // Members of the other kind are skipped and count as steps: a chunk bounds the work.
                last = Some(Rank { remote, peer: *peer });
            }
        }
        None
    }
}

/// All networks with members.
#[derive(Debug)]
pub(super) struct Rosters {
    by_name: HashMap<NetworkName, NetworkIx, Keys>,
    slots: Vec<Option<Network>>,
    free: Vec<NetworkIx>,
    members: usize,
}

impl Rosters {
    pub(super) fn new(keys: Keys) -> Self {
        Self { by_name: HashMap::with_hasher(keys), slots: Vec::new(), free: Vec::new(), members: 0 }
    }

    pub(super) fn find(&self, name: &str) -> Option<NetworkIx> {
        self.by_name.get(name).copied()
    }

    pub(super) fn find_or_create(&mut self, name: &NetworkName) -> NetworkIx {
        if let Some(&ix) = self.by_name.get(name) {
            return ix;
        }
        let members = BTreeMap::new();
        let network = Network {
            name: name.clone(),
            members,
            locals: Vec::new(),
            bounded: 0,
            bounded_locals: 0,
            leavers: 0,
            lots: None,
        };
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

    pub(super) fn network(&self, ix: NetworkIx) -> Option<&Network> {
        self.slots.get(ix.0 as usize)?.as_ref()
    }

    pub(super) fn network_mut(&mut self, ix: NetworkIx) -> Option<&mut Network> {
        self.slots.get_mut(ix.0 as usize)?.as_mut()
    }

    /// Enters a member. False: it was there, and what it says of itself is renewed. `None`: there is no such network.
    pub(super) fn enter(&mut self, ix: NetworkIx, peer: PeerId, member: Member) -> Option<bool> {
        let network = self.slots.get_mut(ix.0 as usize)?.as_mut()?;
        let new = network.enter(peer, member);
        self.members += usize::from(new);
        Some(new)
    }

    /// Removes a member, if it is there with this claim.
    pub(super) fn strike(&mut self, ix: NetworkIx, peer: &PeerId, claim: Claim) -> Option<Member> {
        let network = self.slots.get_mut(ix.0 as usize)?.as_mut()?;
        if network.members.get(peer)?.announcement.claim != claim {
            return None;
        }
        self.members -= 1;
        network.strike(peer)
    }

    /// Removes the network when it has no members and no local sessions. A local session may remain although its id now
    /// belongs to a member at another hub.
    pub(super) fn tidy(&mut self, ix: NetworkIx) {
        let Some(slot) = self.slots.get_mut(ix.0 as usize) else { return };
        if let Some(network) = slot.take_if(|network| network.is_deserted()) {
            self.by_name.remove(&network.name);
            self.free.push(ix);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn members(&self) -> usize {
        self.members
    }

    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Every network with its place.
    pub(super) fn all(&self) -> impl Iterator<Item = (NetworkIx, &Network)> {
        self.slots.iter().enumerate().filter_map(|(slot, network)| Some((NetworkIx(slot as u32), network.as_ref()?)))
    }

    /// Whether names, places and counts agree.
    pub(super) fn audit(&self) -> Result<(), String> {
        let (mut networks, mut members) = (0, 0);
        for (ix, network) in self.all() {
            networks += 1;
            members += network.members.len();
            let found = self.find(network.name.as_str());
            ensure(found == Some(ix), || format!("the name of {ix:?} finds {found:?}"))?;
            ensure(!network.is_deserted(), || format!("nobody is in {ix:?}"))?;
            let bounded = network.members.values().filter(|member| member.is_bounded()).count();
            ensure(bounded == network.bounded as usize, || format!("{ix:?}: {bounded} members know some only"))?;
            let lots = network.lots.as_ref();
            let drawn =
                |(peer, member): (&PeerId, &Member)| lots.is_none_or(|l| l.get(member.lot as usize) == Some(peer));
            ensure(network.members.iter().all(drawn), || format!("{ix:?}: a member has another's lot"))?;
            ensure(lots.is_none_or(|lots| lots.len() == network.members.len()), || format!("{ix:?}: a lot too many"))?;
        }
        ensure(networks == self.by_name.len(), || format!("{networks} networks have {} names", self.by_name.len()))?;
        ensure(networks + self.free.len() == self.slots.len(), || format!("{} places are free", self.free.len()))?;
        ensure(members == self.members, || format!("{members} members, {} counted", self.members))
    }

    /// All networks with their numbers of members, in the order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&NetworkName, usize)> {
        sizes(&self.slots)
    }

    /// The networks in these slots. `None` after the last slot.
    pub(super) fn iter_in(&self, slots: Range<usize>) -> Option<impl Iterator<Item = (&NetworkName, usize)>> {
        let end = slots.end.min(self.slots.len());
        self.slots.get(slots.start..end).filter(|slots| !slots.is_empty()).map(sizes)
    }
}

fn sizes(slots: &[Option<Network>]) -> impl Iterator<Item = (&NetworkName, usize)> {
    slots.iter().flatten().map(|network| (&network.name, network.members.len()))
}
