//! The links and the bridge of this hub. `Links` and `BridgeState` store which link to each hub is in use, which links
//! do not work, and which queues are full.
//!
//! `Links` also decides which link to use. The modules `linking` and `silence` carry out its decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::bugs::ensure;
use crate::id::{HubId, HubIncarnation, LinkId};
use crate::limits::LINK_SILENCE;

use super::outgoing::SnapshotQueue;

/// All links to other hubs, and the link in use for each hub.
#[derive(Debug, Default)]
pub(super) struct Links {
    open: BTreeMap<LinkId, LinkState>,
    /// The link in use for each linked hub.
    used: BTreeMap<HubId, LinkId>,
}

/// A link to another hub.
#[derive(Debug)]
pub(super) struct LinkState {
    hub: HubId,
    /// The incarnation in that hub's hello.
    incarnation: HubIncarnation,
    queue: Queue,
    /// Time at which data last arrived on the link.
    heard_at: Duration,
    /// Whether nothing has arrived on the link for [`LINK_SILENCE`].
    silent: bool,
    /// Whether the other hub reports that it receives nothing on the link.
    unheard: bool,
}

/// A link that has closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Closed {
    /// The hub at the other end of the link.
    pub(super) hub: HubId,
    /// Whether the link was in use. If the link was in use, call [`Links::choose`].
    pub(super) was_used: bool,
}

/// A link that has begun or ceased to work in both directions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Changed {
    /// The hub at the other end of the link.
    pub(super) hub: HubId,
    /// Whether the link works in both directions now.
    pub(super) works: bool,
}

/// The state of the queue of a link or of the bridge, and the snapshots that are sent over this link or bridge.
#[derive(Debug, Default)]
pub(super) struct Queue {
    saturated: bool,
    /// Whether a change was left out because the queue was full.
    missed: bool,
    snapshots: SnapshotQueue,
}

/// A queue that has become short again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Room {
    /// Whether the queue was full.
    pub(super) was_saturated: bool,
    /// Whether a change was left out while the queue was full, so that the neighbour's replica lacks this change.
    pub(super) missed: bool,
}

/// The bridge of this hub.
#[derive(Debug, Default)]
pub(super) struct BridgeState {
    up: bool,
    queue: Queue,
}

impl Queue {
    /// Whether the queue is above its high-water mark.
    pub(super) fn is_saturated(&self) -> bool {
        self.saturated
    }

    #[cfg(test)]
    pub(super) fn snapshots(&self) -> &SnapshotQueue {
        &self.snapshots
    }

    /// The snapshots that are sent over this link or bridge.
    pub(super) fn snapshots_mut(&mut self) -> &mut SnapshotQueue {
        &mut self.snapshots
    }

    pub(super) fn saturate(&mut self) {
        self.saturated = true;
    }

    pub(super) fn free(&mut self) -> Room {
        Room { was_saturated: std::mem::take(&mut self.saturated), missed: std::mem::take(&mut self.missed) }
    }

    /// Decides whether a change is sent. If the change is not sent, the neighbour's replica lacks this change. The
    /// neighbour notices this by the next heartbeat, and requests a snapshot.
    pub(super) fn take_or_miss_change(&mut self) -> bool {
        self.missed |= self.saturated;
        !self.saturated
    }
}

impl LinkState {
    /// The hub at the other end of the link.
    pub(super) fn hub(&self) -> HubId {
        self.hub
    }

    /// Whether nothing has arrived on the link for [`LINK_SILENCE`].
    pub(super) fn is_silent(&self) -> bool {
        self.silent
    }

    /// Whether the link fails in at least one direction. Such a link is used only if there is no other route.
    pub(super) fn is_spare(&self) -> bool {
        self.silent || self.unheard
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    fn changed(&self) -> Changed {
        Changed { hub: self.hub, works: !self.is_spare() }
    }
}

impl Links {
    /// Adds a link. [`Self::choose`] then decides whether the link is used.
    pub(super) fn open(&mut self, link: LinkId, hub: HubId, incarnation: HubIncarnation, now: Duration) {
        let queue = Queue::default();
        self.open.insert(link, LinkState { hub, incarnation, queue, heard_at: now, silent: false, unheard: false });
    }

    /// Removes a link. Returns `None` if the link is unknown.
    pub(super) fn close(&mut self, link: LinkId) -> Option<Closed> {
        let hub = self.open.remove(&link)?.hub;
        Some(Closed { hub, was_used: self.used.get(&hub) == Some(&link) })
    }

    /// Removes all links.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Chooses the link to a hub. Working links are preferred, then links to the hub's current incarnation (`present`),
    /// then newer links. A link to `rival`, another live hub with the same id, comes last.
    ///
    /// If two links between two hubs are opened at the same moment, the two hubs may choose different links.
    pub(super) fn choose(&mut self, hub: HubId, present: Option<HubIncarnation>, rival: Option<HubIncarnation>) {
        let links = self.open.iter().filter(|(_, open)| open.hub == hub);
        let is = |open: &LinkState, incarnation| Some(open.incarnation) == incarnation;
        match links.max_by_key(|(link, open)| (!is(open, rival), !open.is_spare(), is(open, present), **link)) {
            Some((&link, _)) => _ = self.used.insert(hub, link),
            None => _ = self.used.remove(&hub),
        }
    }

    /// Returns a link. Returns `None` if the link has closed, or was opened under a former id of this hub.
    pub(super) fn get(&self, link: LinkId) -> Option<&LinkState> {
        self.open.get(&link)
    }

    /// The hub at the other end of a link.
    pub(super) fn hub_of(&self, link: LinkId) -> Option<HubId> {
        self.open.get(&link).map(|open| open.hub)
    }

    pub(super) fn queue_mut(&mut self, link: LinkId) -> Option<&mut Queue> {
        self.open.get_mut(&link).map(|open| &mut open.queue)
    }

    pub(super) fn queues_mut(&mut self) -> impl Iterator<Item = &mut Queue> {
        self.open.values_mut().map(|open| &mut open.queue)
    }

    /// All links, in the order of their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (LinkId, &LinkState)> {
        self.open.iter().map(|(&link, open)| (link, open))
    }

    /// The link in use for a hub.
    pub(super) fn used_for(&self, hub: &HubId) -> Option<LinkId> {
        self.used.get(hub).copied()
    }

    /// The links in use, in the order of their hubs.
    pub(super) fn in_use(&self) -> impl Iterator<Item = (HubId, LinkId)> {
        self.used.iter().map(|(&hub, &link)| (hub, link))
    }

    /// The hubs whose links in use are silent.
    pub(super) fn silent_hubs(&self) -> impl Iterator<Item = HubId> {
        self.in_use().filter(|(_, link)| self.get(*link).is_some_and(LinkState::is_silent)).map(|(hub, _)| hub)
    }

    /// Records that data arrived on a link. If the link was silent, returns the change. Returns `None` for a link that
    /// was opened under a former id of this hub, although data still arrives on it.
    pub(super) fn hear(&mut self, link: LinkId, now: Duration) -> Option<Changed> {
        let open = self.open.get_mut(&link)?;
        open.heard_at = now;
        std::mem::take(&mut open.silent).then(|| open.changed())
    }

    /// Records whether the other end receives nothing on a link, as a heartbeat of `hub` reports. Returns the change,
    /// if there is one. The report is ignored if `hub` is not at the other end of the link.
    pub(super) fn report(&mut self, link: LinkId, hub: HubId, unheard: bool) -> Option<Changed> {
        let open = self.open.get_mut(&link).filter(|open| open.hub == hub)?;
        let before = std::mem::replace(&mut open.unheard, unheard);
        (before != unheard).then(|| open.changed())
    }

    /// Finds the links that have become silent by `now`.
    pub(super) fn find_silent(&mut self, now: Duration) -> Vec<(LinkId, HubId)> {
        let is_late = |open: &LinkState| now.saturating_sub(open.heard_at) >= LINK_SILENCE;
        let late = self.open.iter_mut().filter(|(_, open)| !open.silent && is_late(open));
        late.map(|(&link, open)| {
            open.silent = true;
            (link, open.hub)
        })
        .collect()
    }

    /// Time at which [`Self::find_silent`] may find a link.
    pub(super) fn next_silence(&self) -> Option<Duration> {
        self.open.values().filter(|open| !open.silent).map(|open| open.heard_at + LINK_SILENCE).min()
    }

    /// Handles a pause of the process. Data that arrived during the pause has not been read yet, so the silence of each
    /// link is counted from now.
    pub(super) fn thaw(&mut self, now: Duration) {
        self.open.values_mut().for_each(|open| open.heard_at = now);
    }

    /// Checks that one link of each linked hub is in use.
    pub(super) fn audit(&self) -> Result<(), String> {
        for (hub, link) in &self.used {
            let end = self.hub_of(*link);
            ensure(end == Some(*hub), || format!("{link:?} is used for {hub:?}, but leads to {end:?}"))?;
        }
        let linked: BTreeSet<HubId> = self.open.values().map(|open| open.hub).collect();
        ensure(linked.iter().eq(self.used.keys()), || {
            format!("{linked:?} are linked, but the links in use are {:?}", self.used)
        })
    }
}

impl BridgeState {
    /// Whether the bridge works.
    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    /// Records that the bridge works. Returns true if the bridge did not work before.
    pub(super) fn rise(&mut self) -> bool {
        !std::mem::replace(&mut self.up, true)
    }

    /// Records that the bridge has failed, and forgets the state of its queue.
    pub(super) fn fail(&mut self) {
        *self = Self::default();
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    pub(super) fn queue_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerId;

    const NOW: Duration = Duration::from_secs(100);
    const OLD: HubIncarnation = HubIncarnation(1);
    const NEW: HubIncarnation = HubIncarnation(2);

    fn hub(n: u8) -> HubId {
        HubId(PeerId::from_bytes([n; 20]))
    }

    /// Links 1, 2, … to hub 7 with these incarnations.
    fn links(incarnations: &[HubIncarnation]) -> Links {
        let mut links = Links::default();
        for (n, incarnation) in (1..).zip(incarnations) {
            links.open(LinkId(n), hub(7), *incarnation, NOW);
            links.choose(hub(7), None, None);
            links.audit().unwrap();
        }
        links
    }

    #[test]
    fn the_newest_working_link_to_the_current_incarnation_is_used() {
        for (present, rival, silent, used) in [
            (None, None, None, 3),
            (Some(NEW), None, None, 3),
            (Some(OLD), None, None, 1),
            (Some(OLD), None, Some(1), 3),
            (Some(NEW), None, Some(3), 2),
            (Some(OLD), Some(NEW), None, 1),
            // A spare link to the hub itself is better than a working link to another hub with the same id.
            (Some(OLD), Some(NEW), Some(1), 1),
        ] {
            let mut links = links(&[OLD, NEW, NEW]);
            if let Some(n) = silent {
                assert_eq!(links.report(LinkId(n), hub(7), true), Some(Changed { hub: hub(7), works: false }));
            }
            links.choose(hub(7), present, rival);
            assert_eq!(links.used_for(&hub(7)), Some(LinkId(used)), "{present:?} {rival:?} {silent:?}");
        }
    }

    #[test]
    fn another_link_is_used_when_the_link_in_use_closes() {
        let mut links = links(&[OLD, OLD]);
        let closed = |was_used| Some(Closed { hub: hub(7), was_used });
        assert_eq!((links.close(LinkId(2)), links.close(LinkId(2))), (closed(true), None));
        assert!(links.audit().is_err(), "the used link has closed");
        links.choose(hub(7), None, None);
        assert_eq!((links.used_for(&hub(7)), links.audit()), (Some(LinkId(1)), Ok(())));
        links.open(LinkId(3), hub(7), OLD, NOW);
        assert_eq!(links.close(LinkId(3)), closed(false));
        links.close(LinkId(1));
        links.choose(hub(7), None, None);
        assert_eq!((links.in_use().next(), links.audit()), (None, Ok(())));
    }

    #[test]
    fn a_link_is_silent_until_something_arrives() {
        let mut links = links(&[OLD]);
        let late = NOW + LINK_SILENCE;
        assert_eq!(links.next_silence(), Some(late));
        assert!(links.find_silent(late - Duration::from_millis(1)).is_empty());
        links.thaw(NOW + Duration::from_secs(1));
        assert!(links.find_silent(late).is_empty(), "the silence during a pause of the process does not count");
        assert_eq!(links.find_silent(late + Duration::from_secs(1)), [(LinkId(1), hub(7))]);
        assert!(links.find_silent(late + Duration::from_secs(9)).is_empty(), "a silent link is reported once");
        assert_eq!(links.next_silence(), None);
        let works = |works| Some(Changed { hub: hub(7), works });
        assert_eq!((links.hear(LinkId(1), late), links.hear(LinkId(1), late)), (works(true), None));
        assert_eq!(links.hear(LinkId(9), late), None);
    }

    #[test]
    fn a_link_works_if_both_ends_receive_data() {
        let mut links = links(&[OLD]);
        let works = |works| Some(Changed { hub: hub(7), works });
        assert_eq!(links.report(LinkId(1), hub(8), true), None, "hub 8 is not at the other end of the link");
        assert_eq!(links.report(LinkId(1), hub(7), false), None);
        assert_eq!(links.report(LinkId(1), hub(7), true), works(false));
        links.find_silent(NOW + LINK_SILENCE);
        assert_eq!(links.hear(LinkId(1), NOW + LINK_SILENCE), works(false), "the other end still receives nothing");
        assert_eq!(links.report(LinkId(1), hub(7), false), works(true));
    }

    #[test]
    fn a_full_queue_refuses_a_change_and_records_that_a_change_is_missing() {
        let mut queue = Queue::default();
        assert!(queue.take_or_miss_change());
        queue.saturate();
        assert_eq!(queue.free(), Room { was_saturated: true, missed: false });
        queue.saturate();
        assert!(!queue.take_or_miss_change() && queue.is_saturated());
        assert_eq!(queue.free(), Room { was_saturated: true, missed: true });
        assert_eq!(queue.free(), Room { was_saturated: false, missed: false });
    }

    #[test]
    fn a_bridge_that_fails_forgets_its_queue() {
        let mut bridge = BridgeState::default();
        assert!(bridge.rise() && !bridge.rise() && bridge.is_up());
        bridge.queue_mut().saturate();
        bridge.fail();
        assert!(!bridge.is_up() && !bridge.queue().is_saturated());
    }
}
