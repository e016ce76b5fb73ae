//! Signals that overtook their sender's presence inside this hub.
//!
//! A change of presence comes from the shard of its peer, a signal by way of the shard of its target: of two mailboxes one can
//! be slower. Each signal says how many changes its shard had told before it, and waits until they are here. Letters are never
//! dropped, so it does not wait for longer than one is under way, and no more wait than shards have letters under way.

use std::collections::{BTreeMap, VecDeque};

use crate::id::{PeerId, ShardId};
use crate::router::{Origin, Sender};
use crate::time::Now;

use super::Relay;

#[derive(Debug, Default)]
pub(super) struct Early {
    shards: BTreeMap<ShardId, FromShard>,
}

/// What has come from one shard.
#[derive(Debug, Default)]
struct FromShard {
    /// Changes of presence.
    told: u64,
    /// In the order in which they came.
    waiting: VecDeque<(u64, Posted)>,
}

/// A signal, as it was posted.
#[derive(Debug)]
struct Posted {
    origin: Origin,
    from: PeerId,
    target: PeerId,
    frame: Box<[u8]>,
}

impl Relay {
    /// A shard has posted a signal of a session of this hub.
    pub(super) fn signal_posted(&mut self, origin: Origin, from: PeerId, target: PeerId, frame: Box<[u8]>, now: Now) {
        if let Sender::Session { shard, told, .. } = origin.sender {
            let of_shard = self.early.shards.entry(shard).or_default();
            if of_shard.told < told || !of_shard.waiting.is_empty() {
                return of_shard.waiting.push_back((told, Posted { origin, from, target, frame }));
            }
        }
        self.signalled(origin, from, target, frame, now);
    }

    /// The shard of this peer has told of a change.
    pub(super) fn shard_told(&mut self, peer: &PeerId, now: Now) {
        let shard = ShardId::home(peer, self.config.shards, self.config.keys);
        self.early.shards.entry(shard).or_default().told += 1;
        while let Some(of_shard) = self.early.shards.get_mut(&shard)
            && let told = of_shard.told
            && let Some((_, posted)) = of_shard.waiting.pop_front_if(|(after, _)| *after <= told)
        {
            let Posted { origin, from, target, frame } = posted;
            self.signalled(origin, from, target, frame, now);
        }
    }
}
