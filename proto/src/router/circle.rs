//! The acquaintances of a peer under bounded discovery.

use crate::id::PeerId;

/// The acquaintances of a peer in a network, except those that it knows without stored state.
#[derive(Debug, Default)]
pub(super) struct Circle {
    /// In ascending order of ids.
    pub(super) known: Vec<Acquaintance>,
    /// Number of those that were announced to the peer: all except those that declined.
    pub(super) told: u32,
    /// Whether the circle is queued in [`Meetings::due`].
    pub(super) due: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Acquaintance {
    pub(super) peer: PeerId,
    pub(super) marks: u8,
}

/// One of the peer's closest picks. It is replaced when it leaves.
pub(super) const CLOSE: u8 = 1;
/// One of the peer's random picks. It is replaced when it leaves.
pub(super) const RANDOM: u8 = 2;
/// A peer of another hub that has not confirmed the meeting yet.
pub(super) const UNANSWERED: u8 = 4;
/// A peer that declined because it knows its maximum of others. It was announced as left, and is not picked again.
pub(super) const DECLINED: u8 = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Met {
    Now,
    /// Added after it had declined.
    AtLast,
    Before,
    /// The circle is full.
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

    /// Number of peers that have declined.
    pub(super) fn declined(&self) -> usize {
        self.known.len() - self.told as usize
    }

    /// All acquaintances that were announced to the peer.
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
                    // Grows by a half instead of doubling: most circles have reached their size.
                    self.known.reserve_exact(8 + self.known.len() / 2);
                }
                self.known.insert(at, Acquaintance { peer, marks });
            }
        }
        self.told += 1;
        Met::Now
    }

    /// Removes a peer that has left. Returns its marks, if it was announced to the peer.
    pub(super) fn part(&mut self, peer: &PeerId) -> Option<u8> {
        let gone = self.known.remove(self.find(peer).ok()?);
        if gone.marks & DECLINED != 0 {
            return None;
        }
        self.told -= 1;
        Some(gone.marks)
    }
}
