//! Links and the bridge: they come up and go down, and have room or not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::envelope::{Envelope, Heartbeat};
use crate::id::{HubId, HubIncarnation, LinkId};
use crate::route::Via;
use crate::time::Now;

use super::snapshots::Outgoing;
use super::{Destination, Relay, Way};

#[derive(Debug)]
pub(super) struct Link {
    pub(super) hub: HubId,
    /// The incarnation in that hub's hello.
    pub(super) incarnation: HubIncarnation,
    pub(super) saturated: bool,
    /// Whether a change was left out because its queue was full.
    pub(super) missed: bool,
    pub(super) outgoing: VecDeque<Outgoing>,
    /// Time at which something last arrived on it.
    pub(super) heard_at: Duration,
    /// Nothing has arrived on it for [`LINK_SILENCE`](crate::limits::LINK_SILENCE).
    pub(super) silent: bool,
    /// The other hub reports that nothing arrives on it.
    pub(super) unheard: bool,
}

impl Link {
    pub(super) fn new(hub: HubId, incarnation: HubIncarnation, now: Duration) -> Self {
        Self {
            hub,
            incarnation,
            saturated: false,
            missed: false,
            outgoing: VecDeque::new(),
            heard_at: now,
            silent: false,
            unheard: false,
        }
    }

    /// Whether it does not work in both directions, and is used only if there is no other way.
    pub(super) fn is_spare(&self) -> bool {
        self.silent || self.unheard
    }
}

#[derive(Debug, Default)]
pub(super) struct Bridge {
    pub(super) up: bool,
    pub(super) saturated: bool,
    pub(super) missed: bool,
    pub(super) outgoing: VecDeque<Outgoing>,
}

impl Relay {
    pub(super) fn link_up(&mut self, link: LinkId, hub: HubId, incarnation: HubIncarnation, now: Now) {
        self.links.insert(link, Link::new(hub, incarnation, now.at));
        self.choose_link(hub);
        self.beat(now);
        self.tell_of_others(Destination::Link(link), now);
    }

    pub(super) fn link_down(&mut self, link: LinkId, now: Now) {
        if self.legacy.is_link(link) {
            return self.legacy_down(link, now);
        }
        let Some(ended) = self.links.remove(&link) else { return };
        for remote in self.hubs.values_mut() {
            remote.ways.forget(|via| via == Via::Link(link));
        }
        self.cancel_snapshots(|via| via == Via::Link(link), now);
        if self.by_hub.get(&ended.hub) == Some(&link) {
            self.choose_link(ended.hub);
            if !self.by_hub.contains_key(&ended.hub)
                && let Some(remote) = self.hubs.get_mut(&ended.hub)
            {
                remote.link_lost_at = Some(now.at);
            }
            // Other hubs must stop to use this hub's link to that one.
            self.beat(now);
        }
    }

    /// Sends a neighbour the heartbeats of all known hubs, with their ages.
    fn tell_of_others(&mut self, to: Destination, now: Now) {
        let beats: Vec<Heartbeat> = self
            .hubs
            .values()
            .filter(|remote| remote.is_live())
            .map(|remote| {
                let age_ms = remote.age(now.at).as_millis() as u32;
                Heartbeat { age_ms, ..(*remote.beat).clone() }
            })
            .collect();
        for beat in beats {
            self.send(to, Envelope::Heartbeat(Arc::new(beat)));
        }
    }

    pub(super) fn saturated(&mut self, way: Way, now: Now) {
        match way {
            Way::Link(link) if self.legacy.is_link(link) => self.legacy_saturated(link),
            Way::Link(link) => {
                // Links of a former id are no longer in the table, but still write their queues.
                if let Some(link) = self.links.get_mut(&link) {
                    link.saturated = true;
                    self.reach = None;
                    self.beat_soon(now);
                }
            }
            Way::Bridge => self.bridge.saturated = true,
        }
    }

    pub(super) fn room(&mut self, way: Way, now: Now) {
        let (was_saturated, missed) = match way {
            Way::Link(link) if self.legacy.is_link(link) => return self.legacy_room(link, now),
            Way::Link(link) => {
                let Some(link) = self.links.get_mut(&link) else { return };
                (std::mem::take(&mut link.saturated), std::mem::take(&mut link.missed))
            }
            Way::Bridge => (std::mem::take(&mut self.bridge.saturated), std::mem::take(&mut self.bridge.missed)),
        };
        if was_saturated {
            self.reach = None;
            self.beat_soon(now);
        }
        if missed && let Way::Link(link) = way {
            self.tell_of_others(Destination::Link(link), now);
        }
        self.send_snapshots(way, now);
    }

    pub(super) fn bridge_up(&mut self, now: Now) {
        if std::mem::replace(&mut self.bridge.up, true) {
            // A new subscriber needs a heartbeat.
            return self.beat_soon(now);
        }
        self.reach = None;
        self.beat(now);
    }

    pub(super) fn bridge_down(&mut self) {
        self.bridge = Bridge::default();
        self.reach = None;
        for remote in self.hubs.values_mut() {
            remote.ways.forget(|via| matches!(via, Via::Bridge(_)));
            remote.bridged_until = Duration::ZERO;
        }
        // Snapshots in progress have a deadline of their own.
    }

    /// Whether a way is a link that does not work in both directions.
    pub(super) fn is_spare(&self, via: Via) -> bool {
        match via {
            Via::Link(link) => self.links.get(&link).is_none_or(Link::is_spare),
            Via::Bridge(_) => false,
        }
    }

    pub(super) fn is_saturated(&self, via: Via) -> bool {
        match via {
            Via::Link(link) => self.links.get(&link).is_none_or(|link| link.saturated),
            Via::Bridge(_) => !self.bridge.up || self.bridge.saturated,
        }
    }
}
