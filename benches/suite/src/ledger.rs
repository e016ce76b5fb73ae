//! Records which other peers each peer has discovered.

/// Has one bit for each pair of an observer and a subject. The bit is set when the observer has discovered the subject.
#[derive(Debug)]
pub(crate) struct Ledger {
    peers: usize,
    seen: Vec<u64>,
    /// Number of recorded pairs.
    pub(crate) pairs: u64,
    /// Number of wrong discoveries. A discovery is wrong if it is repeated, or if a peer discovers itself or an unknown
    /// peer.
    pub(crate) wrong: u64,
}

impl Ledger {
    /// An empty ledger for this number of peers.
    pub(crate) fn new(peers: usize) -> Self {
        Self { peers, seen: vec![0; (peers * peers).div_ceil(64)], pairs: 0, wrong: 0 }
    }

    /// Records that `observer` discovered `subject`. Returns whether that was correct.
    pub(crate) fn enter(&mut self, observer: usize, subject: usize) -> bool {
        let bit = observer * self.peers + subject;
        if observer == subject
            || observer >= self.peers
            || subject >= self.peers
            || self.seen[bit / 64] >> (bit % 64) & 1 == 1
        {
            self.wrong += 1;
            return false;
        }
        self.seen[bit / 64] |= 1 << (bit % 64);
        self.pairs += 1;
        true
    }

    /// Whether every peer has discovered every other exactly once.
    pub(crate) fn is_exact(&self) -> bool {
        self.wrong == 0 && self.pairs == (self.peers * self.peers.saturating_sub(1)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_ledger_has_each_pair_once() {
        let mut ledger = Ledger::new(9);
        for observer in 0..9 {
            for subject in (0..9).filter(|&subject| subject != observer) {
                assert!(!ledger.is_exact());
                assert!(ledger.enter(observer, subject));
            }
        }
        assert!(ledger.is_exact());
        assert!(!ledger.enter(3, 4));
        assert!(!ledger.is_exact());
    }

    #[test]
    fn discoveries_of_oneself_and_of_non_members_are_wrong() {
        for (observer, subject) in [(2, 2), (0, 3), (3, 0)] {
            let mut ledger = Ledger::new(3);
            assert!(!ledger.enter(observer, subject));
            assert_eq!((ledger.pairs, ledger.wrong), (0, 1));
        }
    }
}
