//! Detects links that carry no data, by missing heartbeats and by reports of the other hub.
//!
//! A link on a dead path is closed only after ten seconds ([`LINK_PATIENCE`](crate::limits::LINK_PATIENCE)), and all
//! data sent until then is lost. However, each neighbour sends one heartbeat per second on every link, even if there
//! are other routes. So a link without received data for [`LINK_SILENCE`](crate::limits::LINK_SILENCE) does not work. A
//! link that does not work stays open as a spare link. A spare link is used if there is no other route, and becomes a
//! normal link again when it works.

use crate::envelope::Heartbeat;
use crate::id::{HubId, LinkId};
use crate::route::Hop;
use crate::time::Now;

use super::links::Changed;
use super::remote::Remote;
use super::{MeshEvent, Relay};

impl Relay {
    /// Records that data arrived on a link.
    pub(super) fn heard_on(&mut self, link: LinkId, now: Now) {
        if let Some(changed) = self.links.hear(link, now.at) {
            self.link_changed(changed.hub, changed.works.then_some(MeshEvent::LinkWorks(changed.hub)), now);
        }
    }

    /// Finds links on which nothing has arrived for too long.
    pub(super) fn notice_silence(&mut self, now: Now) {
        let found = self.links.find_silent(now.at);
        for (link, hub) in found {
            for remote in self.hubs.values_mut() {
                remote.paths.forget(|via| via == Hop::Link(link));
            }
            self.cancel_snapshots(|via| via == Hop::Link(link), now);
            self.stats.link_silences += 1;
            self.link_changed(hub, Some(MeshEvent::LinkSilent(hub)), now);
        }
    }

    /// Processes a neighbour's report about the link on which its heartbeat arrived.
    pub(super) fn note_unheard(&mut self, via: Hop, beat: &Heartbeat, now: Now) {
        // Heartbeats on the bridge contain no report about a link.
        let Hop::Link(link) = via else { return };
        let unheard = beat.link_unheard;
        if let Some(Changed { hub, works }) = self.links.report(link, beat.hub, unheard) {
            self.stats.link_silences += u64::from(unheard);
            let event =
                if unheard { Some(MeshEvent::LinkUnheard(hub)) } else { works.then_some(MeshEvent::LinkWorks(hub)) };
            self.link_changed(hub, event, now);
        }
    }

    fn link_changed(&mut self, hub: HubId, event: Option<MeshEvent>, now: Now) {
        self.choose_link(hub);
        if let Some(event) = event {
            self.event(event);
        }
        // The heartbeat informs other hubs whether they may use this link.
        self.beat_soon(now);
    }

    /// Chooses the link to a hub.
    pub(super) fn choose_link(&mut self, hub: HubId) {
        let remote = self.hubs.get(&hub);
        let rival = remote.and_then(Remote::contested_by);
        self.links.choose(hub, remote.map(Remote::incarnation), rival);
        self.reach = None;
    }

    /// Finds hops over which signals get no outcomes, because a hub farther along the route loses them.
    pub(super) fn notice_unanswered(&mut self, now: Now) {
        for remote in self.hubs.values_mut() {
            self.stats.routes_avoided += u64::from(remote.avoid_unanswered(now.at));
        }
    }
}
