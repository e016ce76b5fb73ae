//! The end of a link.

use proto::limits::{LINK_FLUSH_TIMEOUT, MAX_HUBS};
use proto::{HubId, LinkId, Now, RelayInput, Transport};
use thread::{TurnGuard, planted};
use tracing::{debug, info, warn};

use super::Core;
use crate::backoff::chance;
use crate::link::Phase;
use crate::stats::LinkEnd;

impl Core {
    /// Ends a link, with a close frame if the socket may accept one.
    pub(super) fn close(&mut self, id: LinkId, end: LinkEnd, now: Now) {
        // Expected: the link has already been removed, for example because its queue was full.
        let Some(link) = self.links.get_mut(&id) else { return };
        link.set_end(end);
        match end.close_code() {
            Some(code) if !link.is_ending() => link.queue.close(code, end.reason()),
            Some(_) => {}
            None => return self.remove(id, now),
        }
        self.begin_closing(id, now);
    }

    /// Stops processing the envelopes of a link, and writes its queue.
    pub(super) fn begin_closing(&mut self, id: LinkId, now: Now) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.advance(Phase::Closing, id, now.at, &mut self.bugs);
        self.report_down(id);
    }

    /// Ends a link that another link replaces, or that ends because this hub stops. Envelopes that still arrive on the
    /// link are processed.
    pub(super) fn retire(&mut self, id: LinkId, end: LinkEnd, now: Now) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.is_ready()) else { return };
        link.set_end(end);
        link.queue.close(end.close_code().unwrap_or(1000), end.reason());
        link.advance(Phase::Retiring, id, now.at, &mut self.bugs);
    }

    /// Handles a new id of this hub: all links except legacy links end after their queues are written.
    pub(super) fn renamed(&mut self, hub: HubId, now: Now) {
        self.own = hub;
        let links: Vec<LinkId> = self.links.iter().filter(|(_, link)| !link.legacy).map(|(&id, _)| id).collect();
        for id in links {
            self.close(id, LinkEnd::Renamed, now);
        }
        if let Some(make) = &self.make_bridge
            && let Some(mut before) = self.bridge.replace(make(hub))
        {
            before.flush();
            self.bridge_pressure = Default::default();
            self.bridge_unread = None;
            self.followups
                .retain(|followup| !matches!(followup, RelayInput::Saturated { transport: Transport::Bridge }));
            self.last_bridge = Some((before, now.at + LINK_FLUSH_TIMEOUT));
        }
    }

    /// Reports a link's end to the relay, once, if the relay knows the link.
    fn report_down(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id)
            && link.take_up()
        {
            self.followups.push_back(RelayInput::LinkDown { link: id });
        }
    }

    /// Handles the end or the failure of a link's socket.
    pub(crate) fn lost(&mut self, id: LinkId) {
        let now = self.now();
        if let Some(link) = self.links.get_mut(&id) {
            link.set_end(LinkEnd::Lost);
            self.remove(id, now);
            self.turn_ends(now);
        }
    }

    /// Removes a link. The task of the link closes the socket.
    pub(super) fn remove(&mut self, id: LinkId, now: Now) {
        self.report_down(id);
        let Some(link) = self.links.remove(&id) else { return };
        link.wake();
        let end = link.end().unwrap_or(LinkEnd::Lost);
        self.stats.ended[end as usize] += 1;
        let aloud = match &link.target {
            Some((target, _)) => {
                let lived = link.ready_at().map(|at| now.at.saturating_sub(at));
                self.targets.ended(target, end, &link.why, lived, now, chance())
            }
            // A refused hub dials again and again. So this hub logs a refusal as a warning only if its reason differs
            // from that of the last warning about the same hub.
            None => end.wants_attention() && self.is_news(link.hub, end),
        };
        if let Some(hub) = link.hub.filter(|_| link.ready_at().is_some())
            && !self.links.values().any(|link| link.is_ready() && link.hub == Some(hub))
        {
            let dialed = link.target.as_ref().map(|(target, _)| target);
            self.targets.lost(hub, dialed, now, chance());
        }
        let (hub, address) = (link.hub.map(tracing::field::display), link.address);
        let (reason, said) = (end.label(), link.why.as_str());
        let trace_id = link.trace.map(|link| tracing::field::display(link.trace));
        self.trace_down(&link, end, now);
        if aloud {
            warn!(hub, %address, reason, said, trace_id, "link_down");
        } else if link.ready_at().is_some() {
            info!(hub, %address, reason, said, trace_id, "link_down");
        } else {
            debug!(hub, %address, reason, said, trace_id, "link_down");
        }
    }

    /// Whether a refusal of `hub` is logged as a warning: if its reason differs from that of the last warning about
    /// `hub`.
    fn is_news(&mut self, hub: Option<HubId>, end: LinkEnd) -> bool {
        let Some(hub) = hub else { return true };
        if self.complaints.len() >= MAX_HUBS {
            self.complaints.clear();
        }
        self.complaints.insert(hub, end) != Some(end)
    }

    /// Ends all links after a farewell, because the hub stops.
    pub(crate) fn end(&mut self) {
        let now = self.now();
        let _turn = TurnGuard::of("end", ());
        planted("mesh-end");
        self.ending = true;
        self.input(RelayInput::Ending, now);
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            if self.links.get(&id).is_some_and(|link| link.is_ready()) {
                self.retire(id, LinkEnd::Ending, now);
            } else {
                self.close(id, LinkEnd::Ending, now);
            }
        }
        self.perform_outputs(now);
    }

    /// Whether all farewells are written.
    pub(crate) fn has_ended(&self) -> bool {
        self.links.is_empty() && !self.bridge_has_more()
    }
}
