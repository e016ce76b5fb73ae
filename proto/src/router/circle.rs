//! The acquaintances of a peer under bounded discovery.

use crate::bugs::ensure;
use crate::id::PeerId;
use crate::limits::MAX_DECLINED;

/// The acquaintances of a peer in a network. Two unbounded members know each other without an entry in their circles.
///
/// A circle has at most [`MAX_ACQUAINTANCES`](crate::limits::MAX_ACQUAINTANCES) acquaintances that were announced to
/// the peer, and at most [`MAX_DECLINED`] that declined.
#[derive(Debug, Default)]
pub(super) struct Circle {
    /// Acquaintances in ascending order of ids.
    all: Vec<Acquaintance>,
    /// Number of acquaintances announced to the peer. Acquaintances that have declined are not counted.
    announced: u32,
    /// Whether the circle is in the queue of [`Meetings`](super::meetings::Meetings).
    queued: bool,
}

/// One acquaintance, in 21 bytes. An acquaintance must be small, because a peer can have 1,024 acquaintances.
#[derive(Clone, Copy, Debug)]
struct Acquaintance {
    peer: PeerId,
    /// A combination of [`CLOSE`], [`RANDOM`], [`UNANSWERED`] and [`DECLINED`].
    marks: u8,
}

const CLOSE: u8 = 1;
const RANDOM: u8 = 2;
/// A peer of another hub that has not confirmed the meeting yet.
const UNANSWERED: u8 = 4;
/// A peer that declined because its circle is full. The owner of this circle has received a leave of the peer. The peer
/// is not picked again.
const DECLINED: u8 = 8;

/// Why an acquaintance is in a circle. The reason decides whether another member replaces the acquaintance when the
/// acquaintance leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bond {
    /// The acquaintance is one of the peer's closest picks. If the acquaintance leaves, another member replaces it.
    Close,
    /// The acquaintance is one of the peer's random picks. If the acquaintance leaves, another member replaces it.
    Random,
    /// The acquaintance is no pick of the peer. The two met by a signal, by `discover`, or by a pick of the
    /// acquaintance. Another member replaces the acquaintance only if the peer then has fewer acquaintances than it
    /// requested.
    Met,
}

/// The result of a meeting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Met {
    /// The other peer was added.
    Now,
    /// The other peer was added after it had declined.
    AtLast,
    /// The other peer was already in the circle.
    Before,
    /// The circle is full.
    Not,
}

/// The result of a decline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Declined {
    /// The other peer is not in the circle.
    Unknown,
    /// The other peer had declined before.
    Before,
    /// The other peer stays in the circle as declined, so that it is not picked again.
    Remembered(Bond),
    /// The other peer was removed, because the circle already has [`MAX_DECLINED`] peers that declined.
    Forgotten,
}

impl Bond {
    const fn marks(self) -> u8 {
        match self {
            Self::Close => CLOSE,
            Self::Random => RANDOM,
            Self::Met => 0,
        }
    }

    const fn of(marks: u8) -> Self {
        if marks & RANDOM != 0 {
            Self::Random
        } else if marks & CLOSE != 0 {
            Self::Close
        } else {
            Self::Met
        }
    }
}

impl Acquaintance {
    const fn has_declined(self) -> bool {
        self.marks & DECLINED != 0
    }
}

impl Circle {
    fn find(&self, peer: &PeerId) -> Result<usize, usize> {
        self.all.binary_search_by(|other| other.peer.cmp(peer))
    }

    /// Whether a peer is in the circle, even if it has declined.
    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.find(peer).is_ok()
    }

    /// Whether a peer is in the circle and has not declined.
    pub(super) fn knows(&self, peer: &PeerId) -> bool {
        self.find(peer).is_ok_and(|at| !self.all[at].has_declined())
    }

    /// Whether a peer has confirmed the meeting. `None` if the peer is not in the circle.
    pub(super) fn is_confirmed(&self, peer: &PeerId) -> Option<bool> {
        self.find(peer).ok().map(|at| self.all[at].marks & (UNANSWERED | DECLINED) == 0)
    }

    /// Whether the maximum number of acquaintances, `most`, were announced to the peer.
    pub(super) fn is_full(&self, most: usize) -> bool {
        self.announced as usize >= most
    }

    /// Number of acquaintances that were announced to the peer.
    pub(super) fn announced(&self) -> u32 {
        self.announced
    }

    /// Number of acquaintances, including those that declined.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// All acquaintances that were announced to the peer.
    pub(super) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.all.iter().filter(|other| !other.has_declined()).map(|other| other.peer)
    }

    /// All acquaintances, including those that declined.
    pub(super) fn all(&self) -> impl Iterator<Item = PeerId> {
        self.all.iter().map(|other| other.peer)
    }

    /// Adds a peer, unless the circle is full with `most` announced peers.
    pub(super) fn meet(&mut self, peer: PeerId, bond: Bond, most: usize) -> Met {
        match self.find(&peer) {
            Ok(at) if !self.all[at].has_declined() => {
                let known = &mut self.all[at];
                known.marks = known.marks & !UNANSWERED | bond.marks();
                return Met::Before;
            }
            _ if self.is_full(most) => return Met::Not,
            Ok(at) => {
                self.all[at].marks = bond.marks();
                self.announced += 1;
                return Met::AtLast;
            }
            Err(at) => {
                if self.all.len() == self.all.capacity() {
                    // The capacity grows by a half instead of doubling, because most circles grow little after the
                    // first growth.
                    self.all.reserve_exact(8 + self.all.len() / 2);
                }
                self.all.insert(at, Acquaintance { peer, marks: bond.marks() });
            }
        }
        self.announced += 1;
        Met::Now
    }

    /// Removes an acquaintance that has left. Returns the bond of the acquaintance. `None` if it had declined, or was
    /// not in the circle.
    pub(super) fn part(&mut self, peer: &PeerId) -> Option<Bond> {
        let gone = self.all.remove(self.find(peer).ok()?);
        if gone.has_declined() {
            return None;
        }
        self.announced -= 1;
        Some(Bond::of(gone.marks))
    }

    /// Records that a peer has declined.
    pub(super) fn decline(&mut self, peer: &PeerId) -> Declined {
        let Ok(at) = self.find(peer) else { return Declined::Unknown };
        let marks = self.all[at].marks;
        if self.all[at].has_declined() {
            return Declined::Before;
        }
        let remembered = self.all.len() - (self.announced as usize) < MAX_DECLINED;
        self.announced -= 1;
        if remembered {
            self.all[at].marks = DECLINED;
            Declined::Remembered(Bond::of(marks))
        } else {
            self.all.remove(at);
            Declined::Forgotten
        }
    }

    /// Marks an acquaintance whose answer to a meeting is awaited. Returns false if the peer is not in the circle.
    pub(super) fn await_answer(&mut self, peer: &PeerId) -> bool {
        let found = self.find(peer);
        if let Ok(at) = found {
            self.all[at].marks |= UNANSWERED;
        }
        found.is_ok()
    }

    /// Marks the circle as queued. Returns true if the circle was not queued before.
    pub(super) fn enqueue(&mut self) -> bool {
        !std::mem::replace(&mut self.queued, true)
    }

    /// Marks the circle as not queued, and returns the peers whose answers are awaited.
    pub(super) fn dequeue(&mut self) -> Vec<PeerId> {
        self.queued = false;
        let unanswered = |other: &&Acquaintance| other.marks & (UNANSWERED | DECLINED) == UNANSWERED;
        self.all.iter().filter(unanswered).map(|other| other.peer).collect()
    }

    /// Checks the order of the acquaintances, and their counter.
    pub(super) fn audit(&self) -> Result<(), String> {
        ensure(self.all.is_sorted_by_key(|other| other.peer), || "the acquaintances are not sorted".to_owned())?;
        let announced = self.peers().count();
        ensure(announced == self.announced as usize, || {
            format!("{announced} acquaintances are announced, but {} are counted", self.announced)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 6;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Meet(Bond),
        Part,
        Decline,
        Await,
    }

    fn step() -> impl Strategy<Value = (u8, Step)> {
        let meet = |bond| Just(Step::Meet(bond));
        let step = prop_oneof![
            meet(Bond::Close),
            meet(Bond::Random),
            meet(Bond::Met),
            Just(Step::Part),
            Just(Step::Decline),
            Just(Step::Await)
        ];
        (0u8..12, step)
    }

    proptest! {
        /// The model maps each peer in the circle to its bond, or to `None` if it has declined.
        #[test]
        fn a_circle_matches_its_model_after_every_step(steps in prop::collection::vec(step(), 0..80)) {
            let (mut circle, mut model) = (Circle::default(), BTreeMap::<PeerId, Option<Bond>>::new());
            for (n, step) in steps {
                let peer = PeerId::from_bytes([n; 20]);
                let announced = model.values().flatten().count();
                match step {
                    Step::Meet(bond) => {
                        let expected = match model.get(&peer) {
                            Some(Some(_)) => Met::Before,
                            _ if announced >= MOST => Met::Not,
                            Some(None) => Met::AtLast,
                            None => Met::Now,
                        };
                        prop_assert_eq!(circle.meet(peer, bond, MOST), expected);
                        if matches!(expected, Met::Now | Met::AtLast) {
                            model.insert(peer, Some(bond));
                        }
                    }
                    Step::Part => {
                        let bond = circle.part(&peer);
                        prop_assert_eq!(bond.is_some(), model.remove(&peer).flatten().is_some());
                    }
                    Step::Decline => {
                        let declined = circle.decline(&peer);
                        match model.get_mut(&peer) {
                            None => prop_assert_eq!(declined, Declined::Unknown),
                            Some(None) => prop_assert_eq!(declined, Declined::Before),
                            Some(known) => {
                                prop_assert!(matches!(declined, Declined::Remembered(_)));
                                *known = None;
                            }
                        }
                    }
                    Step::Await => prop_assert_eq!(circle.await_answer(&peer), model.contains_key(&peer)),
                }
                prop_assert_eq!(circle.audit(), Ok(()));
                prop_assert!(circle.all().eq(model.keys().copied()));
                prop_assert_eq!(circle.announced() as usize, model.values().flatten().count());
                prop_assert_eq!(circle.knows(&peer), model.get(&peer).is_some_and(Option::is_some));
            }
        }
    }

    #[test]
    fn an_answer_is_awaited_until_the_peer_meets_declines_or_leaves() {
        let peers = [1, 2, 3, 4].map(|n| PeerId::from_bytes([n; 20]));
        let mut circle = Circle::default();
        for peer in &peers {
            circle.meet(*peer, Bond::Close, MOST);
            circle.await_answer(peer);
        }
        assert!(circle.enqueue() && !circle.enqueue());
        circle.meet(peers[0], Bond::Met, MOST);
        circle.decline(&peers[1]);
        circle.part(&peers[2]);
        assert_eq!(circle.dequeue(), [peers[3]]);
        assert!(circle.enqueue(), "the circle is no longer queued");
        let confirmed = |at: usize| circle.is_confirmed(&peers[at]);
        assert_eq!([0, 1, 2, 3].map(confirmed), [Some(true), Some(false), None, Some(false)]);
    }

    #[test]
    fn a_picked_peer_keeps_its_bond_when_it_is_met_again() {
        let peer = PeerId::from_bytes([1; 20]);
        for bond in [Bond::Close, Bond::Random, Bond::Met] {
            let mut circle = Circle::default();
            circle.meet(peer, bond, MOST);
            circle.meet(peer, Bond::Met, MOST);
            assert_eq!(circle.part(&peer), Some(bond));
        }
    }

    #[test]
    fn declines_are_remembered_up_to_a_bound() {
        let mut circle = Circle::default();
        for n in 0..=MAX_DECLINED as u32 {
            let mut id = [0; 20];
            id[..4].copy_from_slice(&n.to_be_bytes());
            let peer = PeerId::from_bytes(id);
            circle.meet(peer, Bond::Random, MOST);
            let expected =
                if (n as usize) < MAX_DECLINED { Declined::Remembered(Bond::Random) } else { Declined::Forgotten };
            assert_eq!(circle.decline(&peer), expected, "{n}");
        }
        assert_eq!((circle.len(), circle.announced()), (MAX_DECLINED, 0));
    }
}
