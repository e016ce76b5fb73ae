//! Queues of letters.

use std::collections::VecDeque;

use crate::limits::{LETTER_BATCH, LETTER_BATCH_BYTES, OUTBOX_HIGH_WATER, OUTBOX_HIGH_WATER_BYTES};
use crate::router::Letter;

/// Letters for one address, in the order in which they were posted. None is dropped: the sender stops reading its
/// sessions while an outbox [is over](Self::is_over) its mark. The outbox itself is unbounded.
///
/// It consists of batches, so that it grows by one batch at a time. A single queue of letters that grows moves all of
/// them in one turn: when a large hub ends, the queues for all shards grow at once, and 16 x 8,192 letters of 136 B are
/// 18 MB, some 10 ms.
#[derive(Debug)]
pub struct Outbox<L> {
    batches: VecDeque<Batch<L>>,
    /// Bytes of the frames in the letters.
    bytes: usize,
    posted: u64,
    taken: u64,
}

/// Letters that are taken together. All batches but the last are full.
#[derive(Debug)]
struct Batch<L> {
    letters: Vec<L>,
    bytes: usize,
}

impl<L> Default for Batch<L> {
    fn default() -> Self {
        Self { letters: Vec::new(), bytes: 0 }
    }
}

impl<L> Batch<L> {
    fn is_full(&self) -> bool {
        self.letters.len() >= LETTER_BATCH || self.bytes >= LETTER_BATCH_BYTES
    }
}

impl<L> Default for Outbox<L> {
    fn default() -> Self {
        Self { batches: VecDeque::new(), bytes: 0, posted: 0, taken: 0 }
    }
}

impl<L: Letter> Outbox<L> {
    /// Appends a letter. It is never refused: the caller stops its inputs when the outbox [is over](Self::is_over) its
    /// mark, so that the excess is what one turn can post.
    pub fn push(&mut self, letter: L) {
        let bytes = letter.owned_bytes();
        self.bytes += bytes;
        self.posted += 1;
        if self.batches.back().is_none_or(Batch::is_full) {
            self.batches.push_back(Batch::default());
        }
        if let Some(batch) = self.batches.back_mut() {
            batch.bytes += bytes;
            batch.letters.push(letter);
        }
    }

    /// Removes and returns the next batch: at most [`LETTER_BATCH`] letters, and no further letter once their frames
    /// have [`LETTER_BATCH_BYTES`]. Empty if the outbox is.
    pub fn take_batch(&mut self) -> Vec<L> {
        let batch = self.batches.pop_front().unwrap_or_default();
        self.bytes = self.bytes.saturating_sub(batch.bytes);
        self.taken += batch.letters.len() as u64;
        batch.letters
    }

    /// Number of letters that were posted and are neither taken nor queued. Any such letter is a bug.
    pub fn lost(&self) -> u64 {
        let here: usize = self.batches.iter().map(|batch| batch.letters.len()).sum();
        let expected = self.posted - self.taken;
        if here == 0 && self.bytes > 0 { expected.max(1) } else { expected.abs_diff(here as u64) }
    }

    /// Number of queued letters.
    pub fn len(&self) -> usize {
        (self.posted - self.taken) as usize
    }

    /// Whether the outbox is empty.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether more than 1/`part` of the high-water mark is queued: [`OUTBOX_HIGH_WATER`] letters, or
    /// [`OUTBOX_HIGH_WATER_BYTES`] of their frames.
    ///
    /// # Panics
    ///
    /// If `part` is 0.
    pub fn is_over(&self, part: usize) -> bool {
        self.len() > OUTBOX_HIGH_WATER / part || self.bytes > OUTBOX_HIGH_WATER_BYTES / part
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
                    let ToShard::Signal(SignalLetter { origin, .. }) = letter else { panic!("a letter nobody posted") };
                    let Sender::Session { ticket, .. } = origin.sender else { panic!("from nobody") };
                    assert_eq!(ticket, NonZeroU64::new(next));
                    next += 1;
                }
            }
            assert_eq!((next, outbox.bytes), (601, 0));
        }
    }

    #[test]
    fn an_outbox_grows_by_a_batch_however_long_it_is() {
        let mut outbox = Outbox::default();
        for n in 0..OUTBOX_HIGH_WATER as u64 {
            outbox.push(signal(0, n));
            let room: usize = outbox.batches.iter().map(|batch| batch.letters.capacity()).sum();
            assert!(room < outbox.len() + LETTER_BATCH, "{room} for {}", outbox.len());
        }
        assert_eq!(outbox.batches.len(), OUTBOX_HIGH_WATER / LETTER_BATCH);
        while !outbox.is_empty() {
            outbox.take_batch();
        }
        assert_eq!((outbox.len(), outbox.lost(), outbox.take_batch().len()), (0, 0, 0));
    }

    #[test]
    fn letters_removed_by_other_means_are_detected() {
        let mut outbox = Outbox::default();
        (0..600).for_each(|n| outbox.push(signal(1, n)));
        outbox.take_batch();
        assert_eq!(outbox.lost(), 0);
        outbox.batches.truncate(1);
        assert_eq!(outbox.lost(), 600 - 2 * LETTER_BATCH as u64);
    }

    #[test]
    fn the_mark_is_passed_by_letters_or_by_bytes() {
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
}
