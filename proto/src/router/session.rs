//! What a router knows of one session.

use std::collections::BTreeSet;
use std::time::Duration;

use smallvec::SmallVec;

use crate::id::{Claim, PeerId, PeerIncarnation, SessionId};
use crate::limits::{RATE_LIMIT_PATIENCE, RATE_LIMIT_PAUSE};
use crate::resume::Lineage;

use super::circle::Circle;
use super::letter::Stay;
use super::roster::{NetworkIx, Rank};

#[derive(Debug)]
pub(super) struct Session {
    pub(super) peer: PeerId,
    pub(super) claim: Claim,
    /// The first session of its lineage.
    pub(super) root: PeerIncarnation,
    /// When it was admitted, in seconds of the hub's clock.
    pub(super) began_s: u32,
    pub(super) state: State,
    pub(super) memberships: SmallVec<[Membership; 1]>,
    pub(super) messages: Throttle,
    pub(super) bytes: Throttle,
    pub(super) announced: Throttle,
    pub(super) errors: Throttle,
    pub(super) overrun: Option<Overrun>,
    pub(super) open_receipts: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Waits for the end of another session with its id.
    Pending,
    Live,
    /// Told to go: what it still says is routed, nothing is said to it.
    Retiring,
}

/// A session's place in one network.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) network: NetworkIx,
    /// Which of its session's stays there.
    pub(super) stay: Stay,
    /// Bytes of its announcement there, and for its place.
    pub(super) announced_bytes: u32,
    /// Index into the network's `locals`, if it is told of everybody.
    pub(super) local: u32,
    /// How far the session has been told who is there, until it has been told of all.
    pub(super) reading: Option<Box<Reading>>,
    /// Whom it knows and does not know by right: always there if it is told of some only.
    pub(super) circle: Option<Box<Circle>>,
}

/// A newcomer being told who is there, as its socket takes it.
///
/// Members behind `after` have not had their turn in this pass. What happens to them meanwhile is left to their turn,
/// unless the newcomer knows them already: from `early`, or from an earlier pass that came as far as `known`.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) after: Option<Rank>,
    /// How far earlier passes came: members up to here are known. Set when a peer announces itself again.
    pub(super) known: Option<Rank>,
    /// Told of before their turn in this pass.
    pub(super) early: BTreeSet<PeerId>,
    /// Told of before their turn in a pass that was interrupted.
    pub(super) known_early: BTreeSet<PeerId>,
}

impl Reading {
    /// Whether the newcomer has been told of this member.
    pub(super) fn knows(&self, rank: Rank, peer: &PeerId) -> bool {
        self.after.is_some_and(|after| rank <= after)
            || self.known.is_some_and(|known| rank <= known)
            || self.early.contains(peer)
            || self.known_early.contains(peer)
    }

    /// What is known when the peer announces itself again before this pass has ended.
    pub(super) fn interrupted(mut self) -> Self {
        self.known_early.append(&mut self.early);
        Self { after: None, known: self.after.max(self.known), early: BTreeSet::new(), known_early: self.known_early }
    }

    /// Whether this member's turn in this pass is still to come.
    pub(super) fn awaits(&self, rank: Rank, peer: &PeerId) -> bool {
        self.after.is_none_or(|after| rank > after) && !self.early.contains(peer)
    }
}

impl Session {
    pub(super) fn new(peer: PeerId, claim: Claim, state: State) -> Self {
        Self {
            peer,
            claim,
            root: claim.incarnation,
            began_s: 0,
            state,
            memberships: SmallVec::new(),
            messages: Throttle::default(),
            bytes: Throttle::default(),
            announced: Throttle::default(),
            errors: Throttle::default(),
            overrun: None,
            open_receipts: 0,
        }
    }

    pub(super) fn lineage(&self) -> Lineage {
        Lineage { root: self.root, session: self.claim.incarnation }
    }

    /// How long ago it was admitted, up to a second more.
    pub(super) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(Duration::from_secs(self.began_s.into()))
    }

    pub(super) fn membership(&mut self, network: NetworkIx) -> Option<&mut Membership> {
        self.memberships.iter_mut().find(|m| m.network == network)
    }

    pub(super) fn membership_in(&self, network: NetworkIx) -> Option<&Membership> {
        self.memberships.iter().find(|m| m.network == network)
    }

    /// Bytes of its announcements, in all its networks.
    pub(super) fn announced_bytes(&self) -> usize {
        self.memberships.iter().map(|m| m.announced_bytes as usize).sum()
    }

    pub(super) fn is_member(&self, network: NetworkIx) -> bool {
        self.memberships.iter().any(|m| m.network == network)
    }
}

/// A token bucket, kept as the moment at which it will be full again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Throttle {
    full_at: Duration,
}

impl Throttle {
    /// Takes `n` tokens of a bucket that gains `rate` a second and holds `burst`; false when it has fewer. At most 10^10 of any.
    pub(super) fn take(&mut self, now: Duration, n: u64, rate: u64, burst: u64) -> bool {
        let time = |tokens: u64| Duration::from_nanos(tokens.saturating_mul(1_000_000_000) / rate.max(1));
        let full_at = self.full_at.max(now) + time(n);
        if full_at - now > time(burst.max(1)) {
            return false;
        }
        self.full_at = full_at;
        true
    }
}

/// A session over its message rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overrun {
    since: Duration,
    last: Duration,
}

impl Overrun {
    /// Notes a refused message. True when they have gone on for too long without a pause.
    pub(super) fn note(overrun: &mut Option<Self>, now: Duration) -> bool {
        let kept = overrun.filter(|o| now.saturating_sub(o.last) < RATE_LIMIT_PAUSE);
        let noted = Self { since: kept.map_or(now, |o| o.since), last: now };
        *overrun = Some(noted);
        now.saturating_sub(noted.since) >= RATE_LIMIT_PATIENCE
    }
}

/// The sessions of a shard, by the slot that the I/O gave them. What is not in use is a pointer.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slots: Vec<(u32, Option<Box<Session>>)>,
}

impl Sessions {
    pub(super) fn insert(&mut self, id: SessionId, session: Session) {
        let slot = id.slot as usize;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || (0, None));
        }
        self.slots[slot] = (id.generation, Some(Box::new(session)));
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

    /// How many slots there have been.
    pub(super) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(super) fn at(&self, slot: u32) -> Option<(SessionId, &Session)> {
        let (generation, session) = self.slots.get(slot as usize)?;
        Some((SessionId { slot, generation: *generation }, session.as_ref()?))
    }

    pub(super) fn remove(&mut self, id: SessionId) -> Option<Session> {
        let (generation, session) = self.slots.get_mut(id.slot as usize)?;
        if *generation == id.generation { session.take().map(|session| *session) } else { None }
    }
}
