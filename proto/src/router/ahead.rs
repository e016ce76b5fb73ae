//! Signals that are ahead of the news of their target.
//!
//! What the mesh tells shards of other hubs' peers comes to each shard in the same order, and not at the same time. A peer that is told of
//! one may signal it before the shard that is home to that one, by way of which all its signals go, knows that it is at another hub. Such
//! a signal waits there until that shard has been told of as many peers as the sender's.

use std::collections::VecDeque;

use crate::id::PeerId;
use crate::limits::{MAX_SIGNALS_AHEAD, MAX_SIGNALS_AHEAD_BYTES};
use crate::reason::{ErrorCode, Outcome};
use crate::time::Now;

use super::Router;
use super::letter::{Frame, Origin, Sender};

/// Those that wait, in the order in which they came: of one sender in the order in which it said them, since what a shard has heard only grows.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Peers of other hubs that this shard was told of, each time one was.
    pub(super) heard: u64,
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    heard: u64,
    origin: Origin,
    from: PeerId,
    target: PeerId,
    frame: Box<[u8]>,
}

impl Router {
    /// A signal from another shard, or from another hub.
    pub(super) fn signal_came(&mut self, origin: Origin, from: PeerId, target: PeerId, frame: Box<[u8]>, now: Now) {
        let ahead = &mut self.ahead;
        if let Sender::Session { heard, .. } = origin.sender
            && heard > ahead.heard
        {
            // Whatever has become of the target meanwhile, one that came before this one goes before it.
            let behind = ahead.waiting.iter().any(|waiting| waiting.target == target);
            if behind || !(self.by_peer.contains_key(&target) || self.elsewhere.contains_key(&target)) {
                if ahead.waiting.len() == MAX_SIGNALS_AHEAD || ahead.bytes + frame.len() > MAX_SIGNALS_AHEAD_BYTES {
                    return self.settle(origin, target, Outcome::Failed(ErrorCode::Unreachable), now);
                }
                ahead.bytes += frame.len();
                return ahead.waiting.push_back(Waiting { heard, origin, from, target, frame });
            }
        }
        self.deliver(origin, from, target, Frame::Owned(frame), now);
    }

    /// This shard has been told of one more peer of another hub.
    pub(super) fn heard_of_one_more(&mut self, now: Now) {
        self.ahead.heard += 1;
        let mut at = 0;
        while let Some(waiting) = self.ahead.waiting.get(at) {
            if waiting.heard > self.ahead.heard {
                at += 1;
            } else if let Some(Waiting { origin, from, target, frame, .. }) = self.ahead.waiting.remove(at) {
                self.ahead.bytes -= frame.len();
                self.deliver(origin, from, target, Frame::Owned(frame), now);
            }
        }
    }
}
