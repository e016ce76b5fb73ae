//! The sessions of a shard, with the state that the rules need for each session.

use std::time::Duration;

use smallvec::SmallVec;

use crate::bug;
use crate::bugs::Bugs;
use crate::claim::Claim;
use crate::grant::{Grant, Rights};
use crate::id::{HubId, NetworkName, PeerId, PeerIncarnation, SessionId};
use crate::limits::MAX_OPEN_RECEIPTS;
use crate::lower;
use crate::phase::SessionPhase;
use crate::resume::Lineage;

use super::circle::Circle;
use super::cursor::RosterCursor;
use super::expiries::Held;
use super::letter::Stay;
use super::network::Rank;
use super::roster::NetworkIx;
use super::usage::SessionUsage;

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    peer: PeerId,
    claim: Claim,
    /// The first session of its lineage.
    root: PeerIncarnation,
    /// Time of the session's admission, in seconds of the hub's clock.
    began_s: u32,
    phase: SessionPhase,
    memberships: SmallVec<[Membership; 1]>,
    usage: SessionUsage,
    open_receipts: u32,
    /// Whether the client has proven that the id is its own.
    owner: bool,
    /// The grant of the session's token. `None` if the session may do everything.
    held: Option<Box<Held>>,
}

impl Session {
    /// A session that waits for its id. A waiting session has no claim yet, so `claim` is the smallest claim of this
    /// hub.
    pub(super) fn pending(peer: PeerId, hub: HubId) -> Self {
        Self {
            peer,
            claim: Claim { incarnation: PeerIncarnation::default(), hub },
            root: PeerIncarnation::default(),
            began_s: 0,
            phase: SessionPhase::Pending,
            memberships: SmallVec::new(),
            usage: SessionUsage::default(),
            open_receipts: 0,
            owner: false,
            held: None,
        }
    }

    /// Sets the rights of the session's client. `owner` says whether the client has proven that the id is its own.
    /// `grant` is what the client's token allows.
    pub(super) fn with(self, owner: bool, grant: Option<Box<Grant>>) -> Self {
        Self { owner, held: grant.map(|grant| Box::new(Held::new(*grant))), ..self }
    }

    pub(super) fn is_owner(&self) -> bool {
        self.owner
    }

    /// The session's grant. `None` if the session may do everything.
    pub(super) fn held(&self) -> Option<&Held> {
        self.held.as_deref()
    }

    pub(super) fn held_mut(&mut self) -> Option<&mut Held> {
        self.held.as_deref_mut()
    }

    /// What the session may do in a network.
    pub(super) fn rights(&self, network: &str) -> Rights {
        self.held.as_ref().map_or(Rights::MEMBER, |held| held.grant().rights(network))
    }

    /// Whether the session counts as a member of `global`, because it is in no network and may join `global`.
    pub(super) fn is_outsider(&self) -> bool {
        self.memberships.is_empty() && self.rights(NetworkName::GLOBAL).join
    }

    pub(super) fn peer(&self) -> PeerId {
        self.peer
    }

    pub(super) fn claim(&self) -> Claim {
        self.claim
    }

    pub(super) fn phase(&self) -> SessionPhase {
        self.phase
    }

    /// Whether the session receives messages.
    pub(super) fn is_open(&self) -> bool {
        self.phase == SessionPhase::Open
    }

    pub(super) fn lineage(&self) -> Lineage {
        Lineage { root: self.root, session: self.claim.incarnation }
    }

    /// Time since the session's admission. The returned time can be up to a second too long.
    pub(super) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(Duration::from_secs(self.began_s.into()))
    }

    pub(super) fn memberships(&self) -> &[Membership] {
        &self.memberships
    }

    pub(super) fn membership(&self, network: NetworkIx) -> Option<&Membership> {
        self.memberships.iter().find(|membership| membership.network == network)
    }

    pub(super) fn membership_mut(&mut self, network: NetworkIx) -> Option<&mut Membership> {
        self.memberships.iter_mut().find(|membership| membership.network == network)
    }

    pub(super) fn is_member(&self, network: NetworkIx) -> bool {
        self.membership(network).is_some_and(|membership| !membership.observes())
    }

    /// Bytes of the session's announcements in all its networks.
    pub(super) fn announced_bytes(&self) -> usize {
        self.memberships.iter().map(|membership| membership.announced_bytes as usize).sum()
    }

    pub(super) fn join(&mut self, membership: Membership) {
        self.memberships.push(membership);
    }

    /// Removes and returns the memberships that `leaves` accepts.
    pub(super) fn leave(&mut self, leaves: impl Fn(NetworkIx) -> bool) -> Vec<Membership> {
        let (left, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.memberships).into_iter().partition(|membership| leaves(membership.network));
        self.memberships = kept.into();
        left
    }

    /// The first membership whose roster is still being sent to the session.
    pub(super) fn receiving_roster_mut(&mut self) -> Option<&mut Membership> {
        self.memberships.iter_mut().find(|membership| membership.cursor.is_some())
    }

    /// Whether the session is still receiving the roster of one of its networks.
    pub(super) fn receives_roster(&self) -> bool {
        self.memberships.iter().any(|membership| membership.cursor.is_some())
    }

    /// The used part of the session's budget.
    pub(super) fn usage(&self) -> &SessionUsage {
        &self.usage
    }

    pub(super) fn usage_mut(&mut self) -> &mut SessionUsage {
        &mut self.usage
    }

    /// Counts one more outstanding receipt. Returns false if the session has [`MAX_OPEN_RECEIPTS`] already.
    pub(super) fn open_receipt(&mut self) -> bool {
        let opens = self.open_receipts < MAX_OPEN_RECEIPTS;
        self.open_receipts += u32::from(opens);
        opens
    }

    pub(super) fn close_receipt(&mut self, bugs: &mut Bugs) {
        lower!(bugs, self.open_receipts, 1);
    }

    pub(super) fn open_receipts(&self) -> usize {
        self.open_receipts as usize
    }
}

/// The membership of a session in one network.
#[derive(Debug)]
pub(super) struct Membership {
    network: NetworkIx,
    stay: Stay,
    /// Bytes of the budget for announcements that the announcement and the membership use.
    announced_bytes: u32,
    /// Index in the network's list of unbounded sessions, or of observers. [`Self::UNLISTED`] if the membership is
    /// bounded.
    local: u32,
    /// Whether the session is an observer, which discovers the members without being a member.
    observes: bool,
    cursor: Option<Box<RosterCursor>>,
    circle: Option<Box<Circle>>,
}

impl Membership {
    const UNLISTED: u32 = u32::MAX;

    /// A new membership. `local` is the session's index in the network's list of unbounded sessions, or `None` if the
    /// membership is bounded. A bounded membership gets an empty circle, and an unbounded membership gets a cursor at
    /// the beginning of the roster.
    pub(super) fn new(network: NetworkIx, stay: Stay, local: Option<u32>) -> Self {
        let (cursor, circle) =
            if local.is_some() { (Some(Box::default()), None) } else { (None, Some(Box::default())) };
        let local = local.unwrap_or(Self::UNLISTED);
        Self { network, stay, announced_bytes: 0, local, observes: false, cursor, circle }
    }

    /// A new membership of an observer, with a cursor at the beginning of the roster. `local` is the session's index in
    /// the list of observers.
    pub(super) fn of_observer(network: NetworkIx, stay: Stay, local: u32) -> Self {
        Self { observes: true, ..Self::new(network, stay, Some(local)) }
    }

    /// Whether the session is an observer, which discovers the members without being a member.
    pub(super) fn observes(&self) -> bool {
        self.observes
    }

    pub(super) fn network(&self) -> NetworkIx {
        self.network
    }

    /// The current stay.
    pub(super) fn stay(&self) -> Stay {
        self.stay
    }

    pub(super) fn is_bounded(&self) -> bool {
        self.stay.discovery.is_bounded()
    }

    /// Bytes of the budget for announcements that the announcement and the membership use.
    pub(super) fn announced_bytes(&self) -> u32 {
        self.announced_bytes
    }

    pub(super) fn set_announced_bytes(&mut self, bytes: u32) {
        self.announced_bytes = bytes;
    }

    /// Index in the network's list of unbounded sessions, or of observers. `None` if the membership is bounded.
    pub(super) fn local(&self) -> Option<u32> {
        (self.local != Self::UNLISTED).then_some(self.local)
    }

    /// Updates the index that [`Self::local`] returns.
    pub(super) fn set_local(&mut self, local: u32) {
        self.local = local;
    }

    /// The cursor of the roster. `None` after all members have been sent.
    pub(super) fn cursor(&mut self) -> Option<&mut RosterCursor> {
        self.cursor.as_deref_mut()
    }

    /// Begins another pass through the roster, whose last rank is `last`. After a finished pass, the session knows all
    /// members. After an interrupted pass, the new cursor still records which members the session knows.
    pub(super) fn read_again(&mut self, last: Option<Rank>) {
        let cursor = self.cursor.take();
        self.cursor = Some(Box::new(cursor.map_or_else(|| RosterCursor::again(last), |cursor| cursor.interrupted())));
    }

    /// Ends the pass through the roster. Returns whether `announced` must be sent now.
    pub(super) fn finish_roster(&mut self) -> bool {
        self.cursor.take().is_some_and(|cursor| cursor.wants_ack())
    }

    /// The acquaintances of the member. `Some` if the member is bounded, or has met a bounded member.
    pub(super) fn circle(&self) -> Option<&Circle> {
        self.circle.as_deref()
    }

    pub(super) fn circle_mut(&mut self) -> Option<&mut Circle> {
        self.circle.as_deref_mut()
    }

    /// The member's circle, which is created if the member has none.
    pub(super) fn make_circle(&mut self) -> &mut Circle {
        self.circle.get_or_insert_default()
    }

    /// Whether the circle has the maximum number of acquaintances, `most`.
    pub(super) fn is_crowded(&self, most: usize) -> bool {
        self.circle().is_some_and(|circle| circle.is_full(most))
    }
}

/// The sessions of a shard, by slot. An unused slot takes 16 bytes.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slots: Vec<(u32, Option<Box<Session>>)>,
}

impl Sessions {
    /// Adds a session. The slot must be free.
    pub(super) fn insert(&mut self, id: SessionId, session: Session, bugs: &mut Bugs) {
        let slot = id.slot as usize;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || (0, None));
        }
        let before = std::mem::replace(&mut self.slots[slot], (id.generation, Some(Box::new(session))));
        if let (generation, Some(_)) = before {
            bug!(bugs, SessionLife, "{id:?} takes the slot of the open session with generation {generation}");
        }
    }

    /// Admits a pending session, and returns its lineage. `None` if there is no such session.
    pub(super) fn admit(
        &mut self,
        id: SessionId,
        claim: Claim,
        resume: Option<Lineage>,
        now: Duration,
        bugs: &mut Bugs,
    ) -> Option<Lineage> {
        let session = self.get_mut(id)?;
        session.claim = claim;
        session.root = resume.map_or(claim.incarnation, |resume| resume.root);
        session.began_s = now.as_secs() as u32;
        session.phase.advance(SessionPhase::Open, id, bugs);
        Some(session.lineage())
    }

    /// Makes an open session retire.
    pub(super) fn retire(&mut self, id: SessionId, bugs: &mut Bugs) {
        match self.get_mut(id) {
            Some(session) => session.phase.advance(SessionPhase::Retiring, id, bugs),
            None => bug!(bugs, SessionLife, "{id:?} retires, but does not exist"),
        }
    }

    /// Removes a session that has ended.
    pub(super) fn remove(&mut self, id: SessionId) -> Option<Session> {
        let (generation, session) = self.slots.get_mut(id.slot as usize)?;
        if *generation == id.generation { session.take().map(|session| *session) } else { None }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.iter().filter(|(_, session)| session.is_some()).count()
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        let (generation, session) = self.slots.get(id.slot as usize)?;
        session.as_deref().filter(|_| *generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        let (generation, session) = self.slots.get_mut(id.slot as usize)?;
        session.as_deref_mut().filter(|_| *generation == id.generation)
    }

    /// The membership of a session in a network.
    pub(super) fn membership(&self, id: SessionId, network: NetworkIx) -> Option<&Membership> {
        self.get(id)?.membership(network)
    }

    /// The membership of a session in a network.
    pub(super) fn membership_mut(&mut self, id: SessionId, network: NetworkIx) -> Option<&mut Membership> {
        self.get_mut(id)?.membership_mut(network)
    }

    /// Number of slots, from the first to the last that was ever used.
    pub(super) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The session in a slot.
    pub(super) fn at(&self, slot: u32) -> Option<(SessionId, &Session)> {
        let (generation, session) = self.slots.get(slot as usize)?;
        Some((SessionId { slot, generation: *generation }, session.as_ref()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: HubId = HubId(PeerId::from_bytes([9; 20]));

    fn id(generation: u32) -> SessionId {
        SessionId { slot: 3, generation }
    }

    #[test]
    fn the_id_of_an_earlier_session_in_a_slot_finds_no_session() {
        let mut sessions = Sessions::default();
        sessions.insert(id(1), Session::pending(PeerId::from_bytes([1; 20]), HUB), &mut Bugs::default());
        assert!(sessions.get(id(0)).is_none() && sessions.get_mut(id(2)).is_none() && sessions.remove(id(0)).is_none());
        assert!(sessions.remove(id(1)).is_some() && sessions.remove(id(1)).is_none());
        assert_eq!((sessions.len(), sessions.slots()), (0, 4));
    }

    #[test]
    fn a_session_is_pending_then_open_then_retiring() {
        let (mut sessions, mut bugs) = (Sessions::default(), Bugs::default());
        let claim = Claim { incarnation: PeerIncarnation(7), hub: HUB };
        assert_eq!(sessions.admit(id(0), claim, None, Duration::ZERO, &mut bugs), None);
        sessions.insert(id(0), Session::pending(PeerId::from_bytes([1; 20]), HUB), &mut Bugs::default());
        let lineage = sessions.admit(id(0), claim, None, Duration::from_secs(5), &mut bugs);
        assert_eq!(lineage, Some(Lineage { root: claim.incarnation, session: claim.incarnation }));
        let session = sessions.get(id(0)).unwrap();
        assert!(session.is_open() && session.claim() == claim);
        assert_eq!(session.age(Duration::from_secs(9)), Duration::from_secs(4));
        sessions.retire(id(0), &mut bugs);
        assert_eq!(sessions.get(id(0)).map(Session::phase), Some(SessionPhase::Retiring));
    }

    #[test]
    fn outstanding_receipts_are_bounded() {
        let mut session = Session::pending(PeerId::from_bytes([1; 20]), HUB);
        assert!((0..MAX_OPEN_RECEIPTS).all(|_| session.open_receipt()) && !session.open_receipt());
        session.close_receipt(&mut Bugs::default());
        assert!(session.open_receipt() && !session.open_receipt());
    }

    #[test]
    fn a_session_takes_little_memory() {
        // An idle peer should take at most 2,000 bytes, including its socket and its task.
        assert!(size_of::<Session>() <= 256, "{}", size_of::<Session>());
        assert!(size_of::<Membership>() <= 48, "{}", size_of::<Membership>());
    }
}
