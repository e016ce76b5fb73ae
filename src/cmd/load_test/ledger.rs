//! Records which members one peer of the load test knows, and checks that the events it receives are consistent.
//!
//! An observer receives a discovery and a leave of each other peer alternately. No peer announces twice without leaving
//! in between, so a second discovery is a duplicate. A leave without a discovery is called a ghost.

/// The events that one peer has received since it joined its network.
#[derive(Debug)]
pub(super) struct Ledger {
    own: usize,
    present: Vec<u64>,
    known: usize,
    discoveries: u64,
    watched: usize,
    watched_known: usize,
}

/// An event that an observer must not receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anomaly {
    /// A discovery of a peer that was already present.
    Duplicate,
    /// A leave of a peer that was not present.
    Ghost,
    /// An event about the observer itself.
    Itself,
    /// An event about a peer that is not a member of the network.
    Stranger,
}

/// The difference between an observer's view and the actual members.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Members that the observer has not discovered.
    pub(super) missing: Vec<usize>,
    /// Peers that the observer wrongly considers members.
    pub(super) ghosts: Vec<usize>,
}

impl Ledger {
    /// An empty ledger of the member `own` of a network with `members` members. The ledger counts how many of the first
    /// `watched` members are known.
    pub(super) fn new(own: usize, members: usize, watched: usize) -> Self {
        Self { own, present: vec![0; members.div_ceil(64)], known: 0, discoveries: 0, watched, watched_known: 0 }
    }

    /// Resets the ledger for a new session.
    pub(super) fn clear(&mut self) {
        self.present.fill(0);
        self.known = 0;
        self.discoveries = 0;
        self.watched_known = 0;
    }

    pub(super) fn discovered(&mut self, slot: usize) -> Result<(), Anomaly> {
        self.set(slot, true).map_err(|anomaly| anomaly.unwrap_or(Anomaly::Duplicate))?;
        self.known += 1;
        self.discoveries += 1;
        self.watched_known += usize::from(slot < self.watched);
        Ok(())
    }

    pub(super) fn left(&mut self, slot: usize) -> Result<(), Anomaly> {
        self.set(slot, false).map_err(|anomaly| anomaly.unwrap_or(Anomaly::Ghost))?;
        self.known -= 1;
        self.watched_known -= usize::from(slot < self.watched);
        Ok(())
    }

    /// Records whether a member is present. Returns `Err(None)` if the member was already in that state.
    fn set(&mut self, slot: usize, present: bool) -> Result<(), Option<Anomaly>> {
        if slot == self.own {
            return Err(Some(Anomaly::Itself));
        }
        let word = self.present.get_mut(slot / 64).ok_or(Some(Anomaly::Stranger))?;
        let bit = 1 << (slot % 64);
        if (*word & bit != 0) == present {
            return Err(None);
        }
        *word ^= bit;
        Ok(())
    }

    fn knows(&self, slot: usize) -> bool {
        self.present.get(slot / 64).is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    /// Number of members that this peer knows.
    pub(super) fn known(&self) -> usize {
        self.known
    }

    /// Number of discoveries received.
    pub(super) fn discoveries(&self) -> u64 {
        self.discoveries
    }

    /// Whether this peer knows all of the first `watched` members, except itself.
    pub(super) fn knows_watched(&self) -> bool {
        self.watched_known + usize::from(self.own < self.watched) == self.watched
    }

    /// Compares the view with the actual members.
    pub(super) fn compare(&self, members: usize, is_there: impl Fn(usize) -> bool) -> Difference {
        let mut difference = Difference::default();
        for slot in (0..members).filter(|&slot| slot != self.own) {
            match (is_there(slot), self.knows(slot)) {
                (true, false) => difference.missing.push(slot),
                (false, true) => difference.ghosts.push(slot),
                (true, true) | (false, false) => {}
            }
        }
        difference
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MEMBERS: usize = 130;

    #[test]
    fn events_alternate() {
        let mut ledger = Ledger::new(0, MEMBERS, 0);
        assert_eq!(ledger.left(5), Err(Anomaly::Ghost));
        assert_eq!(ledger.discovered(5), Ok(()));
        assert_eq!(ledger.discovered(5), Err(Anomaly::Duplicate));
        assert_eq!(ledger.left(5), Ok(()));
        assert_eq!(ledger.left(5), Err(Anomaly::Ghost));
        assert_eq!(ledger.discovered(5), Ok(()));
        assert_eq!((ledger.known(), ledger.discoveries()), (1, 2));
    }

    #[test]
    fn events_about_oneself_and_non_members_are_violations() {
        let mut ledger = Ledger::new(3, 64, 0);
        assert_eq!(ledger.discovered(3), Err(Anomaly::Itself));
        assert_eq!(ledger.left(3), Err(Anomaly::Itself));
        assert_eq!(ledger.discovered(64), Err(Anomaly::Stranger));
    }

    #[test]
    fn watched_members_are_known_when_all_are_discovered() {
        let mut observer = Ledger::new(1, MEMBERS, 3);
        observer.discovered(0).unwrap();
        observer.discovered(9).unwrap();
        assert!(!observer.knows_watched());
        observer.discovered(2).unwrap();
        assert!(observer.knows_watched());
        observer.left(2).unwrap();
        assert!(!observer.knows_watched());

        assert!(Ledger::new(0, MEMBERS, 1).knows_watched());
        assert!(!Ledger::new(1, MEMBERS, 1).knows_watched());
    }

    proptest! {
        /// Every missing, repeated or invented event is reported, and no correct event is reported.
        #[test]
        fn missing_duplicate_and_ghost_members_are_reported(
            own in 0..MEMBERS,
            skipped in prop::collection::btree_set(0..MEMBERS, 0..5),
            repeated in prop::collection::btree_set(0..MEMBERS, 0..5),
            gone in prop::collection::btree_set(0..MEMBERS, 0..5),
        ) {
            let mut ledger = Ledger::new(own, MEMBERS, 0);
            let mut duplicates = 0;
            let others = || (0..MEMBERS).filter(|&slot| slot != own);
            for slot in others().filter(|slot| !skipped.contains(slot)) {
                prop_assert_eq!(ledger.discovered(slot), Ok(()));
                if repeated.contains(&slot) {
                    prop_assert_eq!(ledger.discovered(slot), Err(Anomaly::Duplicate));
                    duplicates += 1;
                }
            }
            let expected_duplicates =
                repeated.iter().filter(|&slot| *slot != own && !skipped.contains(slot)).count();
            prop_assert_eq!(duplicates, expected_duplicates);

            let difference = ledger.compare(MEMBERS, |slot| !gone.contains(&slot));
            let missing: Vec<_> = others().filter(|s| skipped.contains(s) && !gone.contains(s)).collect();
            let ghosts: Vec<_> = others().filter(|s| gone.contains(s) && !skipped.contains(s)).collect();
            prop_assert_eq!(difference, Difference { missing, ghosts });
        }
    }
}
