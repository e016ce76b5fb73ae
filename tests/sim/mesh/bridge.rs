//! Simulates the Redis bridge. A frame that one hub publishes reaches all other hubs on the bridge, or the one hub to
//! which it is addressed, unless the frame is lost.

use std::collections::VecDeque;
use std::time::Duration;

use proto::envelope::EnvelopeKind;
use proto::{Destination, Hop, HubId, RelayInput, Transport};

use super::agenda::Event;
use super::links::is_bulk;
use super::world::World;

/// The channel of a frame. Frames of one channel keep their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Channel {
    Everyone,
    One,
}

/// Identifies the frames of one publisher in one channel of a subscriber. The frames of one subscription arrive in the
/// order in which they were published.
///
/// A subscriber is one process of a hub. When the hub starts again, its new process does not receive frames that were
/// published before its start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Subscription {
    from: usize,
    pub(crate) to: usize,
    life: usize,
    channel: Channel,
}

/// Frames in flight to a subscriber.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    /// The frames, each with the id of its sender. A hub can have another id after a restart.
    frames: VecDeque<(HubId, Box<[u8]>)>,
    last: Duration,
}

impl World {
    pub(crate) fn publish(&mut self, hub: usize, to: Destination, kind: EnvelopeKind, frame: &[u8]) {
        if !self.hubs[hub].bridge_told {
            return self.complain(format!("h{hub} publishes {}, and has no bridge", kind.label()));
        }
        if self.hubs[hub].bridge_full && is_bulk(kind) {
            return self.complain(format!("h{hub} publishes {}, and the bridge is full", kind.label()));
        }
        let (channel, only) = match to {
            Destination::Bridged(id) => (Channel::One, Some(id)),
            Destination::Everyone => (Channel::Everyone, None),
            Destination::Link(_) => return,
        };
        for other in 0..self.hubs.len() {
            let heard = other != hub
                && self.plan.bridged[other]
                && self.hubs[other].lives()
                && only.is_none_or(|only| self.hubs[other].id == only);
            let lost = !self.resting && self.plan.bridge_loses > 0 && self.rng.one_in(self.plan.bridge_loses);
            if !heard || lost {
                continue;
            }
            let delay = self.up_to(self.plan.link_us);
            let subscription = Subscription { from: hub, to: other, life: self.hubs[other].life, channel };
            let channel = self.channels.entry(subscription).or_default();
            channel.last = channel.last.max(self.now + delay);
            channel.frames.push_back((self.hubs[hub].id, frame.into()));
            self.agenda.put(channel.last, Event::Bridged(subscription));
        }
    }

    pub(crate) fn bridged(&mut self, subscription: Subscription) {
        let frame = self.channels.get_mut(&subscription).and_then(|channel| channel.frames.pop_front());
        let Some((id, frame)) = frame else { return };
        let Subscription { to, life, .. } = subscription;
        // Hubs without a subscription receive nothing.
        if self.hubs[to].life == life && self.hubs[to].lives() && self.hubs[to].bridge_told {
            self.receive(to, Hop::Bridge(id), &frame);
        }
    }

    pub(crate) fn bridge_turns(&mut self, hub: usize, life: usize, up: bool) {
        if self.hubs[hub].life != life || !self.hubs[hub].lives() || self.hubs[hub].bridge_told == up {
            return;
        }
        self.hubs[hub].bridge_told = up;
        self.hubs[hub].bridge_full = false;
        self.tell_relay(hub, if up { RelayInput::BridgeUp } else { RelayInput::BridgeDown });
    }

    pub(crate) fn bridge_has_room(&mut self, hub: usize, life: usize) {
        if self.hubs[hub].life == life && self.hubs[hub].lives() && self.hubs[hub].bridge_told {
            self.hubs[hub].bridge_full = false;
            self.tell_relay(hub, RelayInput::Room { transport: Transport::Bridge });
        }
    }

    /// Fills the bridge's queue above its high mark for a while.
    pub(crate) fn fill_bridge(&mut self, hub: usize) {
        if self.hubs[hub].lives() && self.hubs[hub].bridge_told && !self.hubs[hub].bridge_full {
            self.hubs[hub].bridge_full = true;
            self.tell_relay(hub, RelayInput::Saturated { transport: Transport::Bridge });
            let (at, life) = (self.now + self.ms(50, 2_000), self.hubs[hub].life);
            self.agenda.put(at, Event::BridgeRoom { hub, life });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_receives_nothing_that_was_published_to_the_previous_one() {
        let mut world = World::of_hubs(2);
        world.plan.bridged = vec![true; world.hubs.len()];
        world.plan.edges.clear();
        world.plan.bridge_loses = 0;
        (0..world.hubs.len()).for_each(|hub| world.wake(hub));
        world.pass(Duration::from_secs(3));
        let received = |world: &mut World| {
            let now = world.time(1);
            world.hubs[1].relay.stats(now).received.iter().sum::<u64>()
        };
        assert!(received(&mut world) > 0);
        // The process of hub 1 is stopped, so frames for it remain unread. Then it is killed. No hub publishes while
        // the next process of hub 1 starts.
        let long = world.now + Duration::from_secs(60);
        world.hubs[1].frozen_until = Some(world.now + Duration::from_secs(5));
        world.pass(Duration::from_secs(3));
        world.kill(1);
        for hub in (0..world.hubs.len()).filter(|&hub| hub != 1) {
            world.hubs[hub].frozen_until = Some(long);
        }
        world.start(1);
        world.pass(Duration::from_secs(5));
        assert!(world.complaints.is_empty(), "{:?}", world.complaints);
        assert_eq!(received(&mut world), 0);
    }
}
