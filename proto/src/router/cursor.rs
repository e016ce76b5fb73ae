//! The progress of a new member through a roster.

use std::collections::BTreeSet;

use crate::id::PeerId;

use super::network::Rank;

/// The progress of a new member through a roster, at the speed of its socket.
///
/// A member has its turn when the cursor reaches the rank of this member. In its turn, a member is announced to the new
/// member that reads the roster. Changes of members after the cursor need no event, because the later announcement
/// covers them. However, the new member is notified of changes of members that it already knows from an early
/// announcement or an earlier pass.
#[derive(Debug, Default)]
pub(super) struct RosterCursor {
    /// In this pass, members up to this rank have had their turn.
    after: Option<Rank>,
    /// Rank that earlier passes reached. The new member knows all members up to this rank. `known` is set when the new
    /// member announces itself again.
    known: Option<Rank>,
    /// Members announced before their turn in this pass.
    early: BTreeSet<PeerId>,
    /// Members announced before their turn in an interrupted pass.
    known_early: BTreeSet<PeerId>,
    /// Whether `announced` must be sent after the last member.
    ack: bool,
}

/// A change of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MemberEvent {
    Joined,
    Renewed,
    Left,
}

impl RosterCursor {
    /// The cursor of another pass, for a new member that knows all members up to `known`.
    pub(super) fn again(known: Option<Rank>) -> Self {
        Self { known, ..Self::default() }
    }

    /// The cursor of the next pass, for a new member that announces itself again before this pass has ended.
    pub(super) fn interrupted(mut self) -> Self {
        self.known_early.append(&mut self.early);
        let known = self.after.max(self.known);
        Self { known, known_early: self.known_early, ack: self.ack, ..Self::default() }
    }

    /// Records that `announced` must be sent after the last member, even if this pass is interrupted.
    pub(super) fn want_ack(&mut self) {
        self.ack = true;
    }

    /// Whether `announced` must be sent after the last member.
    pub(super) fn wants_ack(&self) -> bool {
        self.ack
    }

    /// The rank up to which members have had their turn.
    pub(super) fn after(&self) -> Option<Rank> {
        self.after
    }

    /// Moves the cursor, because all members up to `rank` have had their turn.
    pub(super) fn advance(&mut self, rank: Rank) {
        self.after = Some(rank);
    }

    /// Gives a member its turn. Returns true if the member must be announced now: it was not announced before its turn.
    pub(super) fn turn(&mut self, peer: &PeerId) -> bool {
        !self.early.remove(peer)
    }

    /// Records that a member is announced before its turn. Returns false if the new member knew that member already.
    pub(super) fn introduce(&mut self, rank: Rank, peer: &PeerId) -> bool {
        !self.knows(rank, peer) && self.early.insert(*peer)
    }

    /// Processes a change of a member. Returns whether the new member must be notified now. Otherwise, a later
    /// announcement of the changed member covers the change.
    pub(super) fn notify(&mut self, rank: Rank, peer: &PeerId, event: MemberEvent) -> bool {
        match event {
            MemberEvent::Left => {
                let knew = self.knows(rank, peer);
                self.early.remove(peer);
                self.known_early.remove(peer);
                knew
            }
            MemberEvent::Joined | MemberEvent::Renewed if !self.awaits(rank, peer) => true,
            MemberEvent::Joined | MemberEvent::Renewed => {
                // A new member that knows the changed member from an earlier pass will receive its leave. So it must
                // also receive this event.
                let known = self.knows(rank, peer);
                if known {
                    self.early.insert(*peer);
                }
                known
            }
        }
    }

    /// Whether this member has been announced to the new member.
    fn knows(&self, rank: Rank, peer: &PeerId) -> bool {
        self.after.is_some_and(|after| rank <= after)
            || self.known.is_some_and(|known| rank <= known)
            || self.early.contains(peer)
            || self.known_early.contains(peer)
    }

    /// Whether this member has not had its turn in this pass and was not announced early.
    fn awaits(&self, rank: Rank, peer: &PeerId) -> bool {
        self.after.is_none_or(|after| rank > after) && !self.early.contains(peer)
    }

    #[cfg(test)]
    pub(super) fn early(&self) -> usize {
        self.early.len() + self.known_early.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Address;

    fn member(n: u8) -> (Rank, PeerId) {
        let peer = PeerId::from_bytes([n; 20]);
        (Rank::of(peer, Address::Mesh), peer)
    }

    fn at(n: u8) -> RosterCursor {
        let mut cursor = RosterCursor::default();
        cursor.advance(member(n).0);
        cursor
    }

    #[test]
    fn changes_of_members_after_the_cursor_cause_no_event() {
        for (n, event, notified) in [
            (3, MemberEvent::Joined, true),
            (3, MemberEvent::Left, true),
            (5, MemberEvent::Joined, true),
            (7, MemberEvent::Joined, false),
            (7, MemberEvent::Renewed, false),
            (7, MemberEvent::Left, false),
        ] {
            let (rank, peer) = member(n);
            let mut cursor = at(5);
            assert_eq!(cursor.notify(rank, &peer, event), notified, "{n} {event:?}");
            assert_eq!(cursor.early(), 0, "{n} {event:?}: no member is recorded as announced early");
        }
    }

    #[test]
    fn a_member_announced_early_is_not_announced_again_in_its_turn() {
        let (mut cursor, (rank, peer)) = (at(5), member(7));
        assert!(
            cursor.introduce(rank, &peer) && !cursor.introduce(rank, &peer),
            "a member is announced early at most once"
        );
        assert!(cursor.notify(rank, &peer, MemberEvent::Renewed), "the new member knows this member");
        assert!(!cursor.turn(&peer) && cursor.turn(&peer));
        assert_eq!(cursor.early(), 0);
    }

    #[test]
    fn every_peer_that_knew_a_member_is_notified_of_its_leave() {
        let (mut cursor, (rank, peer)) = (at(5), member(7));
        cursor.introduce(rank, &peer);
        assert!(cursor.notify(rank, &peer, MemberEvent::Left));
        assert!(!cursor.notify(rank, &peer, MemberEvent::Left), "the member has left already");
        assert_eq!(cursor.early(), 0);
    }

    #[test]
    fn members_announced_before_an_interruption_are_known_after_it() {
        let mut cursor = at(5);
        let ((rank, early), (later_rank, later)) = (member(7), member(9));
        cursor.introduce(rank, &early);
        let mut cursor = cursor.interrupted();
        assert_eq!(cursor.after(), None);
        // Both members were announced in the first pass, so they have no further turn.
        for (rank, peer) in [member(3), (rank, early)] {
            assert!(cursor.notify(rank, &peer, MemberEvent::Renewed) && !cursor.turn(&peer));
        }
        assert!(!cursor.notify(later_rank, &later, MemberEvent::Joined));
        assert!(!cursor.wants_ack());
        cursor.want_ack();
        assert!(cursor.interrupted().wants_ack(), "the answer is still pending");
        let mut all = RosterCursor::again(Some(member(255).0));
        assert!(all.notify(later_rank, &later, MemberEvent::Left), "all members are known after a complete pass");
    }
}
