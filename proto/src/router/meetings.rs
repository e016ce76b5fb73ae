//! Bounded discovery (DISCOVERY=closest:K), in which a peer knows only some members of a network.
//!
//! A peer that wants to know K others picks the K closest members and a few random ones when it joins. Two peers *meet*
//! when one of them picks the other, signals the other, or finds the other with `discover`. From the meeting on, each
//! of the two peers is notified of changes of the other. The acquaintances of a peer are its
//! [`Circle`](super::circle::Circle), which only the peer's home shard changes. The home shard of one peer notifies the
//! home shard of the other peer with a [`Meeting`](super::letter::Meeting). A meeting to another hub is repeated until
//! it is answered. A meeting to another shard of the hub always arrives.
//!
//! Two peers that join at the same moment do not find each other in their own shards' rosters. Therefore every shard
//! repeats the pick for a new member with its own roster. If the shard picks a peer that has not met the new member,
//! that peer joined at the same moment, and the two peers meet now.
//!
//! This file schedules the meetings that must be sent again. `meeting_out.rs` sends meetings, `meeting_in.rs` processes
//! received meetings, and `picks.rs` chooses the picks.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::Bugs;
use crate::id::SessionId;
use crate::limits::{MEETING_AGAIN, MEETING_PATIENCE, MEETING_SWEEP};
use crate::lower;

use super::roster::NetworkIx;

/// Meetings that must be sent again.
#[derive(Debug, Default)]
pub(super) struct Meetings {
    /// Circles with unconfirmed acquaintances, in the order in which they are due. Each circle has one entry. The entry
    /// of an ended stay remains until it is due. So there is at most one entry for each stay that is current or has
    /// ended within the last [`MEETING_PATIENCE`].
    due: VecDeque<Due>,
    /// Time and first slot of the next part of the sweep. The sweep sends the acquaintances of all sessions to other
    /// hubs again.
    sweep_at: Duration,
    sweep_from: u32,
    draws: u64,
    /// Number of acquaintances of this shard's peers.
    known: u64,
}

/// A circle with unconfirmed acquaintances.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Waiting {
    /// The session of the circle.
    pub(super) session: SessionId,
    /// The network of the circle.
    pub(super) network: NetworkIx,
    /// The number of the stay. An entry of an ended stay has no effect.
    pub(super) stay: u64,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    at: Duration,
    circle: Waiting,
}

impl Meetings {
    /// Number of acquaintances of this shard's peers.
    pub(super) fn known(&self) -> u64 {
        self.known
    }

    /// Counts one more acquaintance.
    pub(super) fn met(&mut self) {
        self.known += 1;
    }

    /// Counts fewer acquaintances.
    pub(super) fn parted(&mut self, acquaintances: u64, bugs: &mut Bugs) {
        lower!(bugs, self.known, acquaintances);
    }

    /// Number of random draws so far. Each draw must have a different number, because the number determines the draw.
    pub(super) fn draws(&self) -> u64 {
        self.draws
    }

    /// Records draws up to this number.
    pub(super) fn set_draws(&mut self, draws: u64) {
        self.draws = draws;
    }

    /// The time at which [`Self::next_due`] or [`Self::sweep`] may return something.
    pub(super) fn next_deadline(&self, meshed: bool) -> Option<Duration> {
        let sweep = (meshed && self.known > 0).then_some(self.sweep_at);
        [self.due.front().map(|due| due.at), sweep].into_iter().flatten().min()
    }

    /// Records that a circle waits for answers. The circle is due after [`MEETING_PATIENCE`].
    pub(super) fn wait(&mut self, circle: Waiting, now: Duration) {
        self.due.push_back(Due { at: now + MEETING_PATIENCE, circle });
    }

    /// Removes and returns the next circle that is due at `now`.
    pub(super) fn next_due(&mut self, now: Duration) -> Option<Waiting> {
        self.due.pop_front_if(|due| due.at <= now).map(|due| due.circle)
    }

    /// The slots of sessions whose acquaintances at other hubs must be sent again now. Each of the `slots` slots is
    /// returned at least once within [`MEETING_AGAIN`].
    pub(super) fn sweep(&mut self, slots: u32, now: Duration) -> Option<Range<u32>> {
        if self.known == 0 || self.sweep_at > now {
            return None;
        }
        let steps = MEETING_AGAIN.as_millis().div_ceil(MEETING_SWEEP.as_millis()) as u32;
        let from = if self.sweep_from < slots { self.sweep_from } else { 0 };
        let to = (from + slots.div_ceil(steps)).min(slots);
        self.sweep_at = now + (MEETING_AGAIN / slots.max(1)).max(MEETING_SWEEP);
        self.sweep_from = to;
        Some(from..to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NetworkName;
    use crate::keys::Keys;
    use crate::router::roster::Rosters;

    const START: Duration = Duration::from_secs(100);

    fn circle(stay: u64) -> Waiting {
        let network = Rosters::new(Keys(1, 2)).find_or_create(&NetworkName::new("n"));
        Waiting { session: SessionId { slot: 0, generation: 0 }, network, stay }
    }

    #[test]
    fn circles_are_due_in_order_after_the_meeting_patience() {
        let mut meetings = Meetings::default();
        meetings.wait(circle(1), START);
        meetings.wait(circle(2), START + Duration::from_millis(1));
        assert_eq!(meetings.next_deadline(false), Some(START + MEETING_PATIENCE));
        assert_eq!(meetings.next_due(START), None);
        assert_eq!(meetings.next_due(START + MEETING_PATIENCE), Some(circle(1)));
        assert_eq!(meetings.next_due(START + MEETING_PATIENCE), None);
        assert_eq!(meetings.next_due(START + 2 * MEETING_PATIENCE), Some(circle(2)));
        assert_eq!(meetings.next_deadline(true), None, "no peer knows another, so there is nothing to sweep");
    }

    #[test]
    fn every_slot_is_swept_in_time_and_only_while_a_peer_knows_another() {
        for slots in [1u32, 3, 1_000, 100_003] {
            let mut meetings = Meetings::default();
            assert_eq!(meetings.sweep(slots, START), None);
            meetings.met();
            let (mut now, mut swept) = (START, vec![0u8; slots as usize]);
            while now < START + MEETING_AGAIN {
                if let Some(range) = meetings.sweep(slots, now) {
                    swept[range.start as usize..range.end as usize].iter_mut().for_each(|n| *n += 1);
                }
                let next = meetings.next_deadline(true).unwrap();
                assert!(next > now);
                now = next;
            }
            assert!(swept.iter().all(|&n| n >= 1), "{slots}");
            meetings.parted(1, &mut Bugs::default());
            assert_eq!(meetings.sweep(slots, now), None);
        }
    }
}
