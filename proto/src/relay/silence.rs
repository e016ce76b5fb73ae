//! Detects links that carry nothing, from what arrives on them and from the other hub's reports.
//!
//! TCP notices a dead path after ten seconds at the earliest, and by then everything sent is lost. But each neighbour
//! sends a heartbeat per second on every link, however many ways there are. So a link on which nothing arrives for
//! [`LINK_SILENCE`] does not work. It stays open as a spare: it is used if there is no other way, and again when it
//! works.

use crate::envelope::Heartbeat;
use crate::id::{HubId, LinkId};
use crate::limits::{LINK_SILENCE, OUTCOME_PATIENCE, WAY_AVOIDED};
use crate::route::Via;
use crate::time::Now;

use super::remote::Avoided;
use super::{MeshEvent, Relay};

impl Relay {
    /// Records that something arrived on a link.
    pub(super) fn heard_on(&mut self, link: LinkId, now: Now) {
        // Expected: links of a former id are no longer in the table, but are still read.
        let Some(open) = self.links.get_mut(&link) else { return };
        open.heard_at = now.at;
        if open.silent {
            open.silent = false;
            let (hub, works) = (open.hub, !open.is_spare());
            self.link_changed(hub, works.then_some(MeshEvent::LinkWorks(hub)), now);
        }
    }

    /// Finds links on which nothing has arrived for too long.
    pub(super) fn notice_silence(&mut self, now: Now) {
        let is_late = |at| now.at.saturating_sub(at) >= LINK_SILENCE;
        let mut found = Vec::new();
        for (&link, open) in self.links.iter_mut().filter(|(_, open)| !open.silent && is_late(open.heard_at)) {
            open.silent = true;
            found.push((link, open.hub));
        }
        for (link, hub) in found {
            for remote in self.hubs.values_mut() {
                remote.ways.forget(|via| via == Via::Link(link));
            }
            self.cancel_snapshots(|via| via == Via::Link(link), now);
            self.stats.link_silences += 1;
            self.link_changed(hub, Some(MeshEvent::LinkSilent(hub)), now);
        }
    }

    /// Processes a neighbour's report about the link on which its heartbeat arrived.
    pub(super) fn note_unheard(&mut self, via: Via, beat: &Heartbeat, now: Now) {
        let Via::Link(link) = via else { return };
        let unheard = beat.link_unheard;
        let Some(open) = self.links.get_mut(&link).filter(|open| open.hub == beat.hub) else { return };
        if std::mem::replace(&mut open.unheard, unheard) == unheard {
            return;
        }
        let (hub, works) = (open.hub, !open.is_spare());
        self.stats.link_silences += u64::from(unheard);
        let event =
            if unheard { Some(MeshEvent::LinkUnheard(hub)) } else { works.then_some(MeshEvent::LinkWorks(hub)) };
        self.link_changed(hub, event, now);
    }

    fn link_changed(&mut self, hub: HubId, event: Option<MeshEvent>, now: Now) {
        self.choose_link(hub);
        if let Some(event) = event {
            self.event(event);
        }
        // Other hubs must stop using this link, or may use it again.
        self.beat_soon(now);
    }

    /// Chooses the link to a hub: the newest working one to its present incarnation.
    ///
    /// The two ends of two links at once may choose different ones. A link to another live hub with the same id comes last.
    pub(super) fn choose_link(&mut self, hub: HubId) {
        let links = self.links.iter().filter(|(_, open)| open.hub == hub);
        let remote = self.hubs.get(&hub);
        let life = remote.map(|remote| remote.incarnation);
        let rival = remote.and_then(|remote| remote.contest).map(|((life, _), ..)| life);
        let is = |open: &super::Link, life| Some(open.incarnation) == life;
        match links.max_by_key(|(link, open)| (!is(open, rival), !open.is_spare(), is(open, life), **link)) {
            Some((&link, _)) => _ = self.by_hub.insert(hub, link),
            None => _ = self.by_hub.remove(&hub),
        }
        self.reach = None;
    }

    /// Finds ways on which no signal is answered: a hub farther on loses them.
    pub(super) fn notice_unanswered(&mut self, now: Now) {
        for remote in self.hubs.values_mut().filter(|remote| remote.is_live() && remote.outbound.len() > 0) {
            let Some((via, before)) = remote.sent_by else { continue };
            let after = before.max(remote.answered);
            if remote.outbound.has_open(after, now.at.saturating_sub(OUTCOME_PATIENCE)) {
                let last = remote.outbound.counter();
                remote.avoided = Some(Avoided { via, after, last, until: now.at + WAY_AVOIDED });
                self.stats.ways_avoided += 1;
            }
        }
    }
}
