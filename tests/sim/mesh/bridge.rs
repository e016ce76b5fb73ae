//! The bridge: other hubs on it receive what one hub publishes, unless it is lost.

use std::collections::VecDeque;
use std::time::Duration;

use proto::envelope::EnvelopeKind;
use proto::{Destination, HubId, RelayInput, Via, Way};

use super::agenda::Event;
use super::links::is_bulk;
use super::world::World;

/// The channel of a frame. Each channel keeps its own order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Channel {
    Everyone,
    One,
}

/// Frames in flight from one hub to another.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    /// The sender and the frame: a restarted hub may have another id.
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
            let way = self.channels.entry((hub, other, channel)).or_default();
            way.last = way.last.max(self.now + delay);
            way.frames.push_back((self.hubs[hub].id, frame.into()));
            self.agenda.put(way.last, Event::Bridged { from: hub, to: other, channel });
        }
    }

    pub(crate) fn bridged(&mut self, from: usize, to: usize, channel: Channel) {
        let frame = self.channels.get_mut(&(from, to, channel)).and_then(|way| way.frames.pop_front());
        let Some((id, frame)) = frame else { return };
        // Hubs without a subscription receive nothing.
        if self.hubs[to].lives() && self.hubs[to].bridge_told {
            self.receive(to, Via::Bridge(id), &frame);
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
            self.tell_relay(hub, RelayInput::Room { way: Way::Bridge });
        }
    }

    /// The bridge's queue is above its mark for a while.
    pub(crate) fn fill_bridge(&mut self, hub: usize) {
        if self.hubs[hub].lives() && self.hubs[hub].bridge_told && !self.hubs[hub].bridge_full {
            self.hubs[hub].bridge_full = true;
            self.tell_relay(hub, RelayInput::Saturated { way: Way::Bridge });
            let (at, life) = (self.now + self.ms(50, 2_000), self.hubs[hub].life);
            self.agenda.put(at, Event::BridgeRoom { hub, life });
        }
    }
}
