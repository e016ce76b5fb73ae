//! The state of one network, with its members, its sessions on this shard, and the sessions that have met a member
//! under bounded discovery.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use crate::Bugs;
use crate::bugs::ensure;
use crate::id::{NetworkName, PeerId, SessionId};
use crate::lower;
use crate::route::Address;
use crate::wire::MessageKind;

use super::Discovery;
use super::closest::visit_closest;
use super::letter::{Announcement, Frame, Output};
use super::usage::Usage;

/// A member of a network.
#[derive(Debug)]
pub(super) struct Member {
    /// The shard to which the member is connected, or the mesh if the member is connected to another hub.
    address: Address,
    /// Index of the member in [`Network::lots`], if that list exists.
    lot: u32,
    /// The member's latest announcement.
    announcement: Arc<Announcement>,
    /// Sessions of this shard that have met the member under bounded discovery.
    #[expect(clippy::box_collection, reason = "most members have none, and a Box takes 8 bytes instead of 24")]
    knowers: Option<Box<Vec<SessionId>>>,
}

impl Member {
    pub(super) fn new(address: Address, announcement: Arc<Announcement>) -> Self {
        Self { address, lot: 0, announcement, knowers: None }
    }

    /// The shard to which the member is connected, or the mesh if the member is connected to another hub.
    pub(super) fn address(&self) -> Address {
        self.address
    }

    /// The member's latest announcement.
    pub(super) fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    /// Whether the member's discovery is bounded.
    pub(super) fn is_bounded(&self) -> bool {
        self.announcement.is_bounded()
    }

    /// Sessions of this shard that have met the member under bounded discovery.
    pub(super) fn knowers(&self) -> &[SessionId] {
        self.knowers.as_deref().map_or(&[], Vec::as_slice)
    }

    /// The output that announces the member to a session.
    pub(super) fn discovered_by(&self, session: SessionId) -> Output {
        let frame = Frame::Template(Arc::clone(&self.announcement.discovered));
        Output::Send { session, frame, kind: MessageKind::PeerDiscovered, origin: None, from: None }
    }

    /// Records that a session of this shard has met the member.
    pub(super) fn note_knower(&mut self, id: SessionId) {
        self.knowers.get_or_insert_default().push(id);
    }

    /// Records that a session no longer knows the member. Returns false if the session had not met the member.
    fn forget_knower(&mut self, id: SessionId) -> bool {
        let Some(knowers) = &mut self.knowers else { return false };
        let Some(at) = knowers.iter().position(|knower| *knower == id) else { return false };
        knowers.swap_remove(at);
        if knowers.is_empty() {
            self.knowers = None;
        }
        true
    }
}

/// Position in a roster. Members of this hub precede members of other hubs. Within each of the two groups, members are
/// in ascending order of ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Rank {
    remote: bool,
    peer: PeerId,
}

impl Rank {
    pub(super) fn of(peer: PeerId, address: Address) -> Self {
        Self { remote: address == Address::Mesh, peer }
    }

    pub(super) fn peer(&self) -> PeerId {
        self.peer
    }
}

/// One network.
#[derive(Debug)]
pub(super) struct Network {
    name: NetworkName,
    members: BTreeMap<PeerId, Member>,
    /// Unbounded members with sessions on this shard, in no particular order.
    locals: Vec<SessionId>,
    /// Observers on this shard, which discover the members without being members, in no particular order.
    #[expect(clippy::box_collection, reason = "most networks have none, and a Box takes 8 bytes instead of 24")]
    observers: Option<Box<Vec<SessionId>>>,
    /// Number of bounded members, on any shard or hub.
    bounded: u32,
    /// Number of bounded members with sessions on this shard.
    bounded_locals: u32,
    /// Number of sessions of this shard that have left, but whose leave the members have not received yet.
    leavers: u32,
    /// The members in arbitrary order. Random members are drawn from this list. The list is `None` until the first
    /// draw, which most networks never need.
    lots: Option<Vec<PeerId>>,
    /// The part of the network's budget that its members on this shard have used.
    usage: Usage,
}

/// Error: the network's list has another session at the index of the session that must be removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WrongLocal;

impl Network {
    pub(super) fn new(name: NetworkName) -> Self {
        let (members, locals) = (BTreeMap::new(), Vec::new());
        Self {
            name,
            members,
            locals,
            observers: None,
            bounded: 0,
            bounded_locals: 0,
            leavers: 0,
            lots: None,
            usage: Usage::default(),
        }
    }

    pub(super) fn name(&self) -> &NetworkName {
        &self.name
    }

    /// Number of members on any shard or hub.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn member(&self, peer: &PeerId) -> Option<&Member> {
        self.members.get(peer)
    }

    /// All members, in ascending order of ids.
    pub(super) fn members(&self) -> impl Iterator<Item = (&PeerId, &Member)> {
        self.members.iter()
    }

    /// Calls `visit` with members in ascending distance from `center`, until `visit` returns `Break`.
    pub(super) fn visit_closest<'a>(
        &'a self,
        center: PeerId,
        mut visit: impl FnMut(PeerId, &'a Member) -> ControlFlow<()>,
    ) {
        let _ = visit_closest(&self.members, center, &mut visit);
    }

    /// Unbounded members with sessions on this shard, in no particular order.
    pub(super) fn locals(&self) -> &[SessionId] {
        &self.locals
    }

    /// Observers on this shard, which discover the members without being members, in no particular order.
    pub(super) fn observers(&self) -> &[SessionId] {
        self.observers.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Adds an observer. Returns its index in the list.
    pub(super) fn add_observer(&mut self, id: SessionId) -> u32 {
        let observers = self.observers.get_or_insert_default();
        observers.push(id);
        observers.len() as u32 - 1
    }

    /// Removes an observer. Returns the session that moves to the index of the removed session, if there is one.
    ///
    /// # Errors
    ///
    /// [`WrongLocal`] if the list has another session at this index.
    pub(super) fn remove_observer(&mut self, id: SessionId, at: u32) -> Result<Option<SessionId>, WrongLocal> {
        let observers = self.observers.get_or_insert_default();
        if observers.get(at as usize) != Some(&id) {
            return Err(WrongLocal);
        }
        observers.swap_remove(at as usize);
        let moved = observers.get(at as usize).copied();
        if observers.is_empty() {
            self.observers = None;
        }
        Ok(moved)
    }

    /// Whether any member is bounded, on any shard or hub.
    pub(super) fn has_bounded(&self) -> bool {
        self.bounded > 0
    }

    /// Number of members that are not bounded, on any shard or hub.
    pub(super) fn unbounded(&self) -> usize {
        self.members.len() - self.bounded as usize
    }

    /// Number of bounded members with sessions on this shard.
    pub(super) fn bounded_locals(&self) -> usize {
        self.bounded_locals as usize
    }

    /// The greatest rank that a member can have now.
    pub(super) fn last_rank(&self) -> Option<Rank> {
        self.members.last_key_value().map(|(peer, _)| Rank::of(*peer, Address::Mesh))
    }

    /// Adds a session of this shard. Returns the index of the session in the list of unbounded sessions, or `None` if
    /// the session is bounded.
    pub(super) fn add_local(&mut self, id: SessionId, discovery: Discovery) -> Option<u32> {
        if discovery.is_bounded() {
            self.bounded_locals += 1;
            return None;
        }
        let local = self.locals.len() as u32;
        self.locals.push(id);
        Some(local)
    }

    /// Removes a session of this shard that leaves. The peer's entry in the roster may remain until
    /// [`Self::notified_of_leave`].
    ///
    /// The last session of the list moves to the index of the removed session. Returns the moved session, if there is
    /// one.
    ///
    /// # Errors
    ///
    /// [`WrongLocal`] if the list has another session at this index.
    pub(super) fn remove_local(
        &mut self,
        id: SessionId,
        local: Option<u32>,
        bugs: &mut Bugs,
    ) -> Result<Option<SessionId>, WrongLocal> {
        self.leavers += 1;
        let Some(local) = local else {
            lower!(bugs, self.bounded_locals, 1);
            return Ok(None);
        };
        let local = local as usize;
        if self.locals.get(local) != Some(&id) {
            return Err(WrongLocal);
        }
        self.locals.swap_remove(local);
        Ok(self.locals.get(local).copied())
    }

    /// Records that the members were notified of the leave of a session that [`Self::remove_local`] has removed.
    pub(super) fn notified_of_leave(&mut self, bugs: &mut Bugs) {
        lower!(bugs, self.leavers, 1);
    }

    /// The part of the network's budget that its members on this shard have used.
    pub(super) fn usage_mut(&mut self) -> &mut Usage {
        &mut self.usage
    }

    pub(super) fn member_mut(&mut self, peer: &PeerId) -> Option<&mut Member> {
        self.members.get_mut(peer)
    }

    /// Reverses [`Member::note_knower`]. Returns false if there is no such member, or if the session had not met it.
    pub(super) fn forget_knower(&mut self, peer: &PeerId, id: SessionId) -> bool {
        self.members.get_mut(peer).is_some_and(|member| member.forget_knower(id))
    }

    /// Creates the list from which [`Self::draw`] draws.
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

    /// The member selected by a random number. All members are equally likely.
    pub(super) fn draw(&self, random: u64) -> Option<PeerId> {
        let lots = self.lots.as_ref()?;
        let at = (u128::from(random) * lots.len() as u128) >> 64;
        lots.get(at as usize).copied()
    }

    /// All members in turn, starting with the member selected by a random number.
    pub(super) fn draw_in_turn(&self, random: u64) -> impl Iterator<Item = PeerId> {
        let lots = self.lots.as_deref().unwrap_or_default();
        let at = (u128::from(random) * lots.len() as u128) >> 64;
        let (before, after) = lots.split_at(at as usize);
        after.iter().chain(before).copied()
    }

    pub(super) fn is_deserted(&self) -> bool {
        self.members.is_empty()
            && self.locals.is_empty()
            && self.bounded_locals == 0
            && self.leavers == 0
            && self.observers.is_none()
    }

    pub(super) fn enter(&mut self, peer: PeerId, mut member: Member) -> bool {
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

    pub(super) fn strike(&mut self, peer: &PeerId) -> Option<Member> {
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

    /// Calls `tell` with members after `after`, in the order of ranks, for up to `steps` steps. Returns the rank that
    /// the reading has reached, or `None` at the end of the roster.
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
                let rank = Rank::of(*peer, member.address);
                if rank.remote == remote {
                    tell(rank, member);
                }
                // The first pass skips the members of other hubs, and the second pass skips the members of this hub.
                // Skipped members count as steps, so the size of a chunk bounds the work.
                last = Some(Rank { remote, peer: *peer });
            }
        }
        None
    }

    /// Checks that the counters and the list of lots agree with the members.
    pub(super) fn audit(&self) -> Result<(), String> {
        let bounded = self.members.values().filter(|member| member.is_bounded()).count();
        ensure(bounded == self.bounded as usize, || {
            format!("{bounded} members are bounded, but {} are counted", self.bounded)
        })?;
        let lots = self.lots.as_ref();
        let drawn = |(peer, member): (&PeerId, &Member)| lots.is_none_or(|l| l.get(member.lot as usize) == Some(peer));
        ensure(self.members.iter().all(drawn), || "a member's index in the list of lots is wrong".to_owned())?;
        ensure(lots.is_none_or(|lots| lots.len() == self.members.len()), || {
            "the number of lots differs from the number of members".to_owned()
        })
    }
}
