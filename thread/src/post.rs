//! Letters from one thread to other threads.

use std::fmt;
use std::task::{Context, Poll};

use proto::limits::SLICE_ROOM;
use proto::{Bugs, Letter, Outbox, ShardId, ToMesh, ToShard, bug};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

/// The mailboxes of a hub's threads, for one thread that posts letters to them.
pub struct Mailboxes {
    shards: Vec<PollSender<Vec<ToShard>>>,
    mesh: Option<PollSender<Vec<ToMesh>>>,
}

impl Mailboxes {
    /// `shards` are the mailboxes of all shards in order, and `mesh` is the mailbox of the mesh.
    pub fn new(shards: &[mpsc::Sender<Vec<ToShard>>], mesh: Option<&mpsc::Sender<Vec<ToMesh>>>) -> Self {
        Self { shards: shards.iter().cloned().map(PollSender::new).collect(), mesh: mesh.cloned().map(PollSender::new) }
    }
}

impl fmt::Debug for Mailboxes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailboxes").field("shards", &self.shards.len()).field("mesh", &self.mesh.is_some()).finish()
    }
}

/// Counters of a thread's outboxes since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PostStats {
    /// Number of posted letters.
    pub letters: u64,
    /// Number of batches in which letters were moved to mailboxes.
    pub batches: u64,
    /// Maximum number of letters ever queued for one receiver.
    pub peak: u64,
    /// Number of times that an outbox rose above its high-water mark, so that reading stopped.
    pub stalls: u64,
}

/// The outboxes of one thread. An outbox has the letters that the thread has posted and that no mailbox has accepted
/// yet. No letter is dropped, so the thread must not read sockets while the outboxes [are stalled](Self::is_stalled).
#[derive(Debug)]
pub struct Outboxes {
    shards: Vec<Outbox<ToShard>>,
    mesh: Option<Outbox<ToMesh>>,
    /// Number of letters in all outboxes.
    waiting: usize,
    stalled: bool,
    stats: PostStats,
}

impl Outboxes {
    /// Makes an empty outbox for each shard, and one for the mesh if `to_mesh` is true.
    pub fn new(shards: usize, to_mesh: bool) -> Self {
        Self {
            shards: (0..shards).map(|_| Outbox::default()).collect(),
            mesh: to_mesh.then(Outbox::default),
            waiting: 0,
            stalled: false,
            stats: PostStats::default(),
        }
    }

    /// Queues a letter for a shard.
    pub fn post_to_shard(&mut self, to: ShardId, letter: ToShard, bugs: &mut Bugs) {
        let shards = self.shards.len();
        let Some(outbox) = self.shards.get_mut(usize::from(to.0)) else {
            return bug!(bugs, LetterToNobody, "to {to:?}, of {shards} shards");
        };
        outbox.push(letter);
        let (len, is_full) = (outbox.len(), outbox.is_over(1));
        self.note_posted(len, is_full);
    }

    /// Queues a letter for the mesh.
    pub fn post_to_mesh(&mut self, letter: ToMesh, bugs: &mut Bugs) {
        let Some(outbox) = &mut self.mesh else {
            return bug!(bugs, LetterToNobody, "a letter to the mesh of a hub without a mesh");
        };
        outbox.push(letter);
        let (len, is_full) = (outbox.len(), outbox.is_over(1));
        self.note_posted(len, is_full);
    }

    fn note_posted(&mut self, len: usize, is_full: bool) {
        self.waiting += 1;
        self.stats.letters += 1;
        self.stats.peak = self.stats.peak.max(len as u64);
        if is_full && !self.stalled {
            self.stalled = true;
            self.stats.stalls += 1;
        }
    }

    /// Moves letters to the mailboxes until the mailboxes are full. The waker of `cx` is notified when a full mailbox
    /// accepts letters again. Returns whether a stall has ended.
    pub fn deliver(&mut self, to: &mut Mailboxes, cx: &mut Context<'_>, bugs: &mut Bugs) -> bool {
        if self.waiting == 0 {
            return false;
        }
        let (mut batches, mut left) = (0, 0);
        for (outbox, mailbox) in self.shards.iter_mut().zip(&mut to.shards) {
            batches += deliver(outbox, mailbox, cx, bugs);
            left += outbox.len();
        }
        if let (Some(outbox), Some(mailbox)) = (&mut self.mesh, &mut to.mesh) {
            batches += deliver(outbox, mailbox, cx, bugs);
            left += outbox.len();
        }
        self.waiting = left;
        self.stats.batches += batches;
        let ends = self.stalled && !self.is_any(|outbox| outbox.is_over(2), |outbox| outbox.is_over(2));
        self.stalled &= !ends;
        ends
    }

    /// Whether posting is stalled. A stall begins when an outbox exceeds its high-water mark, and ends when no outbox
    /// exceeds half of its mark.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Whether the next slice of long work may begin, because at most [`SLICE_ROOM`] letters are queued for each
    /// receiver.
    pub fn has_room_for_a_slice(&self) -> bool {
        !self.is_any(|outbox| outbox.len() > SLICE_ROOM, |outbox| outbox.len() > SLICE_ROOM)
    }

    /// Number of letters in all outboxes.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Counters since the start.
    pub fn stats(&self) -> PostStats {
        self.stats
    }

    fn is_any(&self, shard: impl FnMut(&Outbox<ToShard>) -> bool, mesh: impl FnOnce(&Outbox<ToMesh>) -> bool) -> bool {
        self.shards.iter().any(shard) || self.mesh.as_ref().is_some_and(mesh)
    }
}

/// Moves letters of one outbox to its mailbox until the mailbox is full. Returns the number of batches.
fn deliver<L: Letter + Send>(
    outbox: &mut Outbox<L>,
    mailbox: &mut PollSender<Vec<L>>,
    cx: &mut Context<'_>,
    bugs: &mut Bugs,
) -> u64 {
    let mut batches = 0;
    while !outbox.is_empty() {
        let accepts = match mailbox.poll_reserve(cx) {
            Poll::Pending => break,
            Poll::Ready(reserved) => reserved.is_ok(),
        };
        if outbox.lost() > 0 {
            bug!(bugs, LettersLost, "{} letters", outbox.lost());
        }
        let batch = outbox.take_batch();
        batches += 1;
        // If the receiver's thread has ended, the hub ends, too. Until then, letters to a thread that has ended are
        // discarded.
        if accepts {
            _ = mailbox.send_item(batch);
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use proto::limits::{LETTER_BATCH, OUTBOX_HIGH_WATER};
    use proto::{Claim, HubId, PeerId, PeerIncarnation};

    use super::*;

    const PEER: PeerId = PeerId::from_bytes([7; 20]);
    const CLAIM: Claim = Claim { incarnation: PeerIncarnation(1), hub: HubId(PEER) };

    fn deliver(outboxes: &mut Outboxes, to: &mut Mailboxes) -> bool {
        outboxes.deliver(to, &mut Context::from_waker(Waker::noop()), &mut Bugs::default())
    }

    #[test]
    fn letters_stay_in_the_outbox_while_the_mailbox_is_full() {
        let (shard, mut shard_mailbox) = mpsc::channel(1);
        let (mesh, mut mesh_mailbox) = mpsc::channel(1);
        let mut mailboxes = Mailboxes::new(&[shard], Some(&mesh));
        let mut outboxes = Outboxes::new(1, true);
        let mut bugs = Bugs::default();
        outboxes.post_to_shard(ShardId(0), ToShard::Nowhere { peer: PEER, claim: CLAIM }, &mut bugs);
        for _ in 0..=OUTBOX_HIGH_WATER {
            assert!(!outboxes.is_stalled());
            outboxes.post_to_mesh(ToMesh::Opened { peer: PEER, claim: CLAIM }, &mut bugs);
        }
        assert!(outboxes.is_stalled() && !outboxes.has_room_for_a_slice());
        assert_eq!(outboxes.waiting(), OUTBOX_HIGH_WATER + 2);
        assert!(!deliver(&mut outboxes, &mut mailboxes));
        assert_eq!(shard_mailbox.try_recv().map(|batch| batch.len()), Ok(1));
        let mut taken = 0;
        loop {
            let batch = mesh_mailbox.try_recv().unwrap().len();
            assert_eq!(batch, LETTER_BATCH);
            taken += batch;
            assert!(outboxes.is_stalled());
            if deliver(&mut outboxes, &mut mailboxes) {
                break;
            }
        }
        assert!(!outboxes.is_stalled());
        assert!(
            taken + LETTER_BATCH >= OUTBOX_HIGH_WATER / 2,
            "half of the letters must leave before reading continues"
        );
        assert_eq!(outboxes.waiting() + LETTER_BATCH + taken, OUTBOX_HIGH_WATER + 1);
        let stats = outboxes.stats();
        assert_eq!((stats.letters, stats.stalls), (OUTBOX_HIGH_WATER as u64 + 2, 1));
        assert_eq!(stats.peak, OUTBOX_HIGH_WATER as u64 + 1);
        assert_eq!(stats.batches, 2 + (taken / LETTER_BATCH) as u64);
    }

    #[test]
    fn letters_for_a_thread_that_has_ended_are_discarded() {
        let (shard, mailbox) = mpsc::channel(1);
        let mut mailboxes = Mailboxes::new(&[shard], None);
        let mut outboxes = Outboxes::new(1, false);
        drop(mailbox);
        for _ in 0..2 * LETTER_BATCH {
            outboxes.post_to_shard(ShardId(0), ToShard::Nowhere { peer: PEER, claim: CLAIM }, &mut Bugs::default());
        }
        deliver(&mut outboxes, &mut mailboxes);
        assert_eq!(outboxes.waiting(), 0);
    }
}
