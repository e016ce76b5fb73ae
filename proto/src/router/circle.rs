//! Whom a peer knows where it does not know everybody.

use crate::id::PeerId;

/// Whom a peer knows in a network, of those it does not know by right.
#[derive(Debug, Default)]
pub(super) struct Circle {
    /// Ascending by id.
    pub(super) known: Vec<Acquaintance>,
    /// How many of them are told of: all but those that declined.
    pub(super) told: u32,
    /// Waits in [`Meetings::due`].
    pub(super) due: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Acquaintance {
    pub(super) peer: PeerId,
    pub(super) marks: u8,
}

/// The peer's own pick, as one of the closest: replaced when it leaves.
pub(super) const CLOSE: u8 = 1;
/// The peer's own pick, at random: replaced when it leaves.
pub(super) const RANDOM: u8 = 2;
/// At another hub, which has not yet said that it knows.
pub(super) const UNANSWERED: u8 = 4;
/// Knows as many as it may: this peer was told that it left, and does not pick it again.
pub(super) const DECLINED: u8 = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Met {
    Now,
    /// After it had declined.
    AtLast,
    Before,
    /// There is no room in the circle.
    Not,
}

impl Circle {
    pub(super) fn find(&self, peer: &PeerId) -> Result<usize, usize> {
        self.known.binary_search_by(|other| other.peer.cmp(peer))
    }

    pub(super) fn knows(&self, peer: &PeerId) -> bool {
        self.find(peer).is_ok_and(|at| self.known[at].marks & DECLINED == 0)
    }

    pub(super) fn is_full(&self, most: usize) -> bool {
        self.told as usize >= most
    }

    /// How many have declined.
    pub(super) fn declined(&self) -> usize {
        self.known.len() - self.told as usize
    }

    /// Everybody in it whom the peer was told of.
    pub(super) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.known.iter().filter(|other| other.marks & DECLINED == 0).map(|other| other.peer)
    }

    pub(super) fn meet(&mut self, peer: PeerId, marks: u8, most: usize) -> Met {
        match self.find(&peer) {
            Ok(at) if self.known[at].marks & DECLINED == 0 => {
                let known = &mut self.known[at];
                known.marks = known.marks & !UNANSWERED | marks;
                return Met::Before;
            }
            _ if self.is_full(most) => return Met::Not,
            Ok(at) => {
                self.known[at].marks = marks;
                self.told += 1;
                return Met::AtLast;
            }
            Err(at) => {
                if self.known.len() == self.known.capacity() {
                    // By a half, and not to the double: most circles have found their size.
                    self.known.reserve_exact(8 + self.known.len() / 2);
                }
                self.known.insert(at, Acquaintance { peer, marks });
            }
        }
        self.told += 1;
        Met::Now
    }

    /// Takes one out that has left. Returns its marks, if the peer was told of it.
    pub(super) fn part(&mut self, peer: &PeerId) -> Option<u8> {
        let gone = self.known.remove(self.find(peer).ok()?);
        if gone.marks & DECLINED != 0 {
            return None;
        }
        self.told -= 1;
        Some(gone.marks)
    }
}
