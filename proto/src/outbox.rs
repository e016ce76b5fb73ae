//! Queues of letters.

use std::collections::VecDeque;

use crate::limits::{LETTER_BATCH, LETTER_BATCH_BYTES, OUTBOX_HIGH_WATER, OUTBOX_HIGH_WATER_BYTES};
use crate::router::Letter;

/// Letters for one receiver, in the order in which they were posted. No letter is dropped. The outbox itself is
/// unbounded. While an outbox [is over](Self::is_over) its mark, its owner reads nothing from sessions or links.
#[derive(Debug)]
pub struct Outbox<L> {
    letters: VecDeque<L>,
    /// Bytes of the signals' frames and of the meetings' lists of peers in the letters.
    bytes: usize,
    posted: u64,
    taken: u64,
}

impl<L> Default for Outbox<L> {
    fn default() -> Self {
        Self { letters: VecDeque::new(), bytes: 0, posted: 0, taken: 0 }
    }
}

impl<L: Letter> Outbox<L> {
    /// Appends a letter, which is never refused.
    pub fn push(&mut self, letter: L) {
        self.bytes += letter.owned_bytes();
        self.posted += 1;
        self.letters.push_back(letter);
    }

    /// Removes and returns the next batch, which has at most [`LETTER_BATCH`] letters. The batch also ends with the
    /// letter that brings the batch to [`LETTER_BATCH_BYTES`]. The batch of an empty outbox is empty.
    pub fn take_batch(&mut self) -> Vec<L> {
        let mut batch = Vec::with_capacity(self.letters.len().min(LETTER_BATCH));
        let mut bytes = 0;
        while batch.len() < LETTER_BATCH && bytes < LETTER_BATCH_BYTES {
            let Some(letter) = self.letters.pop_front() else { break };
            bytes += letter.owned_bytes();
            batch.push(letter);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        self.taken += batch.len() as u64;
        batch
    }

    /// Number of posted letters that were removed without being taken. The result is at least 1 if an empty outbox
    /// still counts bytes. Any result except 0 is a bug.
    pub fn lost(&self) -> u64 {
        let expected = self.posted - self.taken;
        let here = self.letters.len() as u64;
        if here == 0 && self.bytes > 0 { expected.max(1) } else { expected.abs_diff(here) }
    }

    /// Number of queued letters.
    pub fn len(&self) -> usize {
        self.letters.len()
    }

    /// Whether the outbox is empty.
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Whether the outbox holds more than 1/`part` of the high-water mark. The mark is [`OUTBOX_HIGH_WATER`] letters,
    /// or letters with [`OUTBOX_HIGH_WATER_BYTES`] in their frames and lists.
    ///
    /// # Panics
    ///
    /// If `part` is 0.
    pub fn is_over(&self, part: usize) -> bool {
        self.letters.len() > OUTBOX_HIGH_WATER / part || self.bytes > OUTBOX_HIGH_WATER_BYTES / part
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::time::Duration;

    use super::*;
    use crate::id::{NetworkName, PeerId, SessionId, ShardId};
    use crate::router::{Origin, Sender, SignalLetter, Standing, ToShard};
    use crate::wire::SignalKind;

    fn signal(bytes: usize, n: u64) -> ToShard {
        let session = SessionId { slot: 0, generation: 0 };
        let sender = Sender::Session { shard: ShardId(0), session, ticket: NonZeroU64::new(n), detour: false };
        let (kind, network, standing) = (SignalKind::Offer, NetworkName::new("n"), Standing::Member(1));
        let origin = Origin { sender, kind, network, standing, read_at: Duration::ZERO };
        let peer = PeerId::from_bytes([0; 20]);
        ToShard::Signal(SignalLetter { origin, from: peer, target: peer, frame: vec![0; bytes].into() })
    }

    #[test]
    fn batches_are_bounded_by_letters_and_by_bytes() {
        for (bytes, expected) in [(1, LETTER_BATCH), (LETTER_BATCH_BYTES / 4, 4), (2 * LETTER_BATCH_BYTES, 1)] {
            let mut outbox = Outbox::default();
            (1..=600).for_each(|n| outbox.push(signal(bytes, n)));
            let mut next = 1;
            while !outbox.is_empty() {
                let waiting = outbox.len();
                let batch = outbox.take_batch();
                assert_eq!(batch.len(), expected.min(waiting), "{bytes} bytes each");
                for letter in batch {
                    let ToShard::Signal(SignalLetter { origin, .. }) = letter else {
                        panic!("the letter is not a signal")
                    };
                    let Sender::Session { ticket, .. } = origin.sender else { panic!("the sender is not a session") };
                    assert_eq!(ticket, NonZeroU64::new(next));
                    next += 1;
                }
            }
            assert_eq!((next, outbox.bytes), (601, 0));
        }
    }

    #[test]
    fn letters_removed_by_other_means_are_detected() {
        let mut outbox = Outbox::default();
        (0..600).for_each(|n| outbox.push(signal(1, n)));
        outbox.take_batch();
        assert_eq!(outbox.lost(), 0);
        outbox.letters.truncate(3);
        assert_eq!(outbox.lost(), 600 - LETTER_BATCH as u64 - 3);
    }

    #[test]
    fn the_mark_is_exceeded_by_letters_or_by_bytes() {
        let mut many = Outbox::default();
        (0..=OUTBOX_HIGH_WATER as u64).for_each(|n| many.push(signal(0, n)));
        let mut heavy = Outbox::default();
        (0..17).for_each(|n| heavy.push(signal(OUTBOX_HIGH_WATER_BYTES / 16, n)));
        for mut outbox in [many, heavy] {
            assert!(outbox.is_over(1) && outbox.is_over(2));
            outbox.take_batch();
            assert!(!outbox.is_over(1) && outbox.is_over(2));
        }
    }

    #[test]
    fn an_outbox_at_its_mark_is_not_over_it() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.lost(), 0);
        (1..=OUTBOX_HIGH_WATER as u64).for_each(|n| outbox.push(signal(0, n)));
        assert!(!outbox.is_over(1));
        outbox.push(signal(0, 1));
        assert!(outbox.is_over(1));
        while !outbox.take_batch().is_empty() {}
        assert_eq!(outbox.lost(), 0, "all letters were taken");
    }

    #[test]
    fn bytes_that_remain_without_letters_are_detected() {
        let mut outbox = Outbox::default();
        outbox.push(signal(100, 1));
        outbox.take_batch();
        assert_eq!(outbox.lost(), 0);
        outbox.bytes = 1;
        assert_eq!(outbox.lost(), 1);
    }
}
