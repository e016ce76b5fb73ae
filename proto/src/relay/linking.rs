//! Handles events of links and of the Redis bridge. A link or the bridge comes up, goes down, has a full queue, or has
//! room in its queue again.

use std::sync::Arc;

use crate::envelope::{Envelope, Heartbeat};
use crate::id::{HubId, HubIncarnation, LinkId};
use crate::route::Hop;
use crate::time::Now;

use super::links::LinkState;
use super::{Destination, Relay, Transport};

impl Relay {
    pub(super) fn link_up(&mut self, link: LinkId, hub: HubId, incarnation: HubIncarnation, now: Now) {
        self.links.open(link, hub, incarnation, now.at);
        self.choose_link(hub);
        self.beat(now);
        self.tell_of_others(Destination::Link(link), now);
    }

    pub(super) fn link_down(&mut self, link: LinkId, now: Now) {
        if self.legacy.is_link(link) {
            return self.legacy_down(link, now);
        }
        // When this hub takes a new id, its old links leave the table at once and close later.
        let Some(closed) = self.links.close(link) else { return };
        for remote in self.hubs.values_mut() {
            remote.paths.forget(|via| via == Hop::Link(link));
        }
        if closed.was_used {
            // The next link is chosen first, because the statements below can send envelopes over the links in use.
            self.choose_link(closed.hub);
        }
        self.cancel_snapshots(|via| via == Hop::Link(link), now);
        if closed.was_used {
            if self.links.used_for(&closed.hub).is_none()
                // The hub is missing in `hubs` until its first heartbeat has arrived.
                && let Some(remote) = self.hubs.get_mut(&closed.hub)
            {
                remote.note_link_lost(now.at);
            }
            // The heartbeat informs all hubs that this link no longer exists.
            self.beat(now);
        }
    }

    /// Sends a neighbour the last heartbeats of all live hubs, with their ages.
    fn tell_of_others(&mut self, to: Destination, now: Now) {
        let beats: Vec<Heartbeat> = self
            .hubs
            .values()
            .filter(|remote| remote.is_live())
            .map(|remote| {
                let age_ms = remote.age(now.at).as_millis() as u32;
                Heartbeat { age_ms, ..(**remote.beat()).clone() }
            })
            .collect();
        for beat in beats {
            self.send(to, Envelope::Heartbeat(Arc::new(beat)));
        }
    }

    pub(super) fn saturated(&mut self, transport: Transport, now: Now) {
        match transport {
            Transport::Link(link) if self.legacy.is_link(link) => self.legacy_saturated(link),
            Transport::Link(link) => {
                // When this hub takes a new id, its old links leave the table at once. The queues of these links are
                // still written.
                let Some(queue) = self.links.queue_mut(link) else { return };
                queue.saturate();
                self.reach = None;
                self.beat_soon(now);
            }
            Transport::Bridge => self.bridge.queue_mut().saturate(),
        }
    }

    pub(super) fn room(&mut self, transport: Transport, now: Now) {
        let room = match transport {
            Transport::Link(link) if self.legacy.is_link(link) => return self.legacy_room(link, now),
            Transport::Link(link) => {
                // A link that was opened under a former id of this hub is not in the table.
                let Some(queue) = self.links.queue_mut(link) else { return };
                queue.free()
            }
            Transport::Bridge => self.bridge.queue_mut().free(),
        };
        if room.was_saturated {
            self.reach = None;
            self.beat_soon(now);
        }
        if room.missed
            && let Transport::Link(link) = transport
        {
            self.tell_of_others(Destination::Link(link), now);
        }
        self.send_snapshots(transport, now);
    }

    pub(super) fn bridge_up(&mut self, now: Now) {
        if !self.bridge.rise() {
            // The bridge was up already. Another hub has just subscribed to the bridge and needs a heartbeat of this
            // hub.
            return self.beat_soon(now);
        }
        self.reach = None;
        self.beat(now);
    }

    pub(super) fn bridge_down(&mut self) {
        self.bridge.fail();
        self.reach = None;
        for remote in self.hubs.values_mut() {
            remote.note_bridge_lost();
        }
        // Snapshots over the bridge are not cancelled here, because they have their own deadline.
    }

    /// The hub at the other end of a hop. `None` if the link has closed.
    pub(super) fn neighbour(&self, via: Hop) -> Option<HubId> {
        match via {
            Hop::Link(link) => self.links.hub_of(link),
            Hop::Bridge(hub) => Some(hub),
        }
    }

    /// Whether a hop is a link that carries no data in at least one direction. Returns true for a closed link, too.
    pub(super) fn is_spare(&self, via: Hop) -> bool {
        match via {
            Hop::Link(link) => self.links.get(link).is_none_or(LinkState::is_spare),
            Hop::Bridge(_) => false,
        }
    }

    pub(super) fn is_saturated(&self, via: Hop) -> bool {
        match via {
            Hop::Link(link) => self.links.get(link).is_none_or(|link| link.queue().is_saturated()),
            Hop::Bridge(_) => !self.bridge.is_up() || self.bridge.queue().is_saturated(),
        }
    }
}
