//! Who is in which network. Each shard has the whole roster; only what is told of it differs.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::id::{Address, Claim, Keys, NetworkName, PeerId, SessionId};

use super::letter::Announcement;

/// A network's place in [`Rosters`]. Valid while the network has a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NetworkIx(u32);

/// A member of a network.
#[derive(Debug)]
pub(super) struct Member {
    /// Where it is.
    pub(super) place: Address,
    /// What it said last.
    pub(super) announcement: Arc<Announcement>,
}

/// Where a roster's reading stands: members of this hub come first, then those of others, each ascending by id.
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
    /// The members whose sessions are on this shard, in no order that means anything.
    pub(super) locals: Vec<SessionId>,
}

impl Network {
    /// Looks at up to `steps` members ranked behind `after` and calls `tell` for each.
    /// Returns the rank of the last, or `None` when there are no more.
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
                // Members of the other kind are stepped over, and the step counts: a chunk is a bound on work.
                last = Some(Rank { remote, peer: *peer });
            }
        }
        None
    }
}

/// All networks that have a member.
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
        let network = Network { name: name.clone(), members: BTreeMap::new(), locals: Vec::new() };
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

    /// Enters or renews a member. Returns what it replaced.
    pub(super) fn enter(&mut self, ix: NetworkIx, peer: PeerId, member: Member) -> Option<Member> {
        let network = self.slots.get_mut(ix.0 as usize)?.as_mut()?;
        let replaced = network.members.insert(peer, member);
        self.members += usize::from(replaced.is_none());
        replaced
    }

    /// Strikes a member off, if it is there by that claim.
    pub(super) fn strike(&mut self, ix: NetworkIx, peer: &PeerId, claim: Claim) -> Option<Member> {
        let network = self.slots.get_mut(ix.0 as usize)?.as_mut()?;
        if network.members.get(peer)?.announcement.claim != claim {
            return None;
        }
        self.members -= 1;
        network.members.remove(peer)
    }

    /// Forgets the network if nobody is left in it: neither a member nor a session, whose id may be a member at another hub.
    pub(super) fn tidy(&mut self, ix: NetworkIx) {
        let Some(slot) = self.slots.get_mut(ix.0 as usize) else { return };
        if let Some(network) = slot.take_if(|network| network.members.is_empty() && network.locals.is_empty()) {
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

    /// Every network with its number of members, in the order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&NetworkName, usize)> {
        self.slots.iter().flatten().map(|network| (&network.name, network.members.len()))
    }
}
