//! The router's state of one session.

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
    /// Draining: its messages are still routed, and it is sent nothing.
    Retiring,
}

/// The membership of a session in one network.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) network: NetworkIx,
    /// The current stay.
    pub(super) stay: Stay,
    /// Bytes that its announcement and its membership count in the budget.
    pub(super) announced_bytes: u32,
    /// Index in the network's `locals`, if it is unbounded.
    pub(super) local: u32,
    /// Reading cursor of the roster. `None` when it has discovered all members.
    pub(super) reading: Option<Box<Reading>>,
    /// Its acquaintances. `Some` if it is bounded.
    pub(super) circle: Option<Box<Circle>>,
}

/// The progress of a new member through the roster, at the speed of its socket.
///
/// Members ranked after `after` have not had their turn in this pass. Changes to them are left to their turn, unless
/// the new member knows them already: from `early`, or from an earlier pass up to `known`.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) after: Option<Rank>,
    /// Rank that earlier passes reached: members up to it are known. Set when a peer announces itself again.
    pub(super) known: Option<Rank>,
    /// Members announced before their turn in this pass.
    pub(super) early: BTreeSet<PeerId>,
    /// Members announced before their turn in an interrupted pass.
    pub(super) known_early: BTreeSet<PeerId>,
    /// Whether `announced` follows the last member.
    pub(super) ack: bool,
}

impl Reading {
    /// Whether the member has been announced to the new member.
    pub(super) fn knows(&self, rank: Rank, peer: &PeerId) -> bool {
        self.after.is_some_and(|after| rank <= after)
            || self.known.is_some_and(|known| rank <= known)
            || self.early.contains(peer)
            || self.known_early.contains(peer)
    }

    /// The state for the next pass, when the peer announces itself again before this one has ended.
    pub(super) fn interrupted(mut self) -> Self {
        self.known_early.append(&mut self.early);
        let (known, ack) = (self.after.max(self.known), self.ack);
        Self { after: None, known, early: BTreeSet::new(), known_early: self.known_early, ack }
    }

    /// Whether the member's turn in this pass is still to come.
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

    /// Bytes of its announcements in all its networks.
    pub(super) fn announced_bytes(&self) -> usize {
        self.memberships.iter().map(|m| m.announced_bytes as usize).sum()
    }

    pub(super) fn is_member(&self, network: NetworkIx) -> bool {
        self.memberships.iter().any(|m| m.network == network)
    }
}

/// A token bucket, stored as the time at which it will be full again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Throttle {
    full_at: Duration,
}

impl Throttle {
    /// Takes `n` tokens of a bucket that refills at `rate` per second up to `burst`. False if it has fewer. All values
    /// are at most 10^10.
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

/// A session above its message rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overrun {
    since: Duration,
    last: Duration,
}

impl Overrun {
    /// Records a refused message. True if refusals have continued for too long without a pause.
    pub(super) fn note(overrun: &mut Option<Self>, now: Duration) -> bool {
        let kept = overrun.filter(|o| now.saturating_sub(o.last) < RATE_LIMIT_PAUSE);
        let noted = Self { since: kept.map_or(now, |o| o.since), last: now };
        *overrun = Some(noted);
        now.saturating_sub(noted.since) >= RATE_LIMIT_PATIENCE
    }
}

/// The sessions of a shard, by slot. An unused slot takes one pointer.
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

    /// Number of slots ever used.
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
