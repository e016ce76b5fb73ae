//! Queues and writes the output of links.

use proto::envelope::ChangeKind;
use proto::limits::{LINK_COUNT_STEP, LINK_QUEUE_CAP, LINK_QUEUE_HIGH, LINK_QUEUE_LOW};
use proto::ws::Opcode;
use proto::{Destination, Envelope, LinkId, Now, RelayInput, Transport, bug};
use thread::TurnGuard;

use super::Core;
use crate::queue::LinkQueue;
use crate::stats::LinkEnd;

/// The state of the bridge's queue, with the same meaning as the fields `saturated` and `backlog` of a link.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    saturated: bool,
    backlog: bool,
}

impl Core {
    pub(super) fn send(&mut self, to: Destination, envelope: &Envelope, now: Now) {
        let to = match to {
            Destination::Link(link) => {
                // Expected: a link that is not ready is ending, and the relay has not processed its end yet. The
                // envelope is lost, like data that is in flight when a socket fails.
                if self.links.get(&link).is_some_and(|link| link.is_ready()) {
                    self.push(link, now, |queue| queue.push(|out| envelope.encode(out)));
                }
                return;
            }
            Destination::Everyone => None,
            Destination::Bridged(hub) => Some(hub),
        };
        let Some(bridge) = &mut self.bridge else { return bug!(self.bugs, BridgeMissing, "an envelope for {to:?}") };
        if is_leave(envelope) {
            // A signal that arrives after its sender's leave is refused, so the signals already queued should arrive
            // first.
            bridge.fence();
        }
        bridge.push(to, |out| envelope.encode(out));
        if bridge.queued_bytes() > LINK_QUEUE_HIGH && !self.bridge_pressure.saturated {
            self.bridge_pressure.saturated = true;
            self.stats.saturations += 1;
            self.followups.push_back(RelayInput::Saturated { transport: Transport::Bridge });
        }
        self.wake_flusher();
    }

    pub(super) fn send_text(&mut self, link: LinkId, text: &str, now: Now) {
        self.push(link, now, |queue| queue.message(Opcode::Text, text.as_bytes()));
    }

    pub(super) fn backlog(&mut self, transport: Transport) {
        match transport {
            Transport::Link(id) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.backlog = true;
                    // The link reports room in its next turn, even if its queue is already empty.
                    link.wake();
                }
            }
            Transport::Bridge => {
                self.bridge_pressure.backlog = true;
                self.wake_flusher();
            }
        }
    }

    /// Appends to the queue of a link, unless the link is ending.
    pub(super) fn push(&mut self, id: LinkId, now: Now, write: impl FnOnce(&mut LinkQueue)) {
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.is_ending()) else { return };
        if link.queue.is_empty() {
            link.last_progress = now.at;
        }
        let before = link.queue.len_bytes();
        write(&mut link.queue);
        let waiting = link.queue.len_bytes();
        self.stats.queue_peak_bytes = self.stats.queue_peak_bytes.max(waiting as u64);
        link.wake();
        if waiting > LINK_QUEUE_CAP {
            return self.close(id, LinkEnd::Overflow, now);
        }
        let mut is_high = waiting > self.queue_high;
        if waiting / LINK_COUNT_STEP > before / LINK_COUNT_STEP {
            let (all, half) = (self.queued_bytes(), self.queues_cap / 2);
            is_high |= all > half && waiting > half / self.links.len().max(1);
            if all > self.queues_cap {
                self.limit_queues(now);
            }
        }
        if is_high && let Some(link) = self.links.get_mut(&id).filter(|link| !link.saturated) {
            link.saturated = true;
            self.stats.saturations += 1;
            self.followups.push_back(RelayInput::Saturated { transport: Transport::Link(id) });
        }
    }

    /// Closes the links with the longest queues until all queues together are within their maximum.
    fn limit_queues(&mut self, now: Now) {
        while self.queued_bytes() > self.queues_cap
            && let Some((&id, _)) = self.links.iter().max_by_key(|(_, link)| link.queue.len_bytes())
        {
            self.close(id, LinkEnd::Overflow, now);
        }
    }

    /// Number of bytes queued for all links together.
    pub(super) fn queued_bytes(&self) -> usize {
        self.links.values().map(|link| link.queue.len_bytes()).sum()
    }

    /// Records that the socket accepted `n` more bytes.
    pub(crate) fn wrote(&mut self, id: LinkId, n: usize) {
        let now = self.now();
        self.stats.bytes_out += n as u64;
        self.stats.writes += 1;
        if let Some(link) = self.links.get_mut(&id) {
            link.queue.advance(n);
            link.bytes[1] += n as u64;
            link.last_progress = now.at;
            self.stats.frames_out += link.queue.take_frames();
        }
    }

    /// Called when the queue of a link is empty, or its socket accepts no more now.
    pub(crate) fn after_write(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let now = (self.clock)();
        if link.other_done && link.queue.is_empty() {
            return self.remove(id, now);
        }
        let has_room = link.queue.len_bytes() < LINK_QUEUE_LOW && link.has_been_heard_out(now.at);
        if (link.saturated || link.backlog) && has_room {
            link.saturated = false;
            link.backlog = false;
            if link.is_ready() {
                self.input(RelayInput::Room { transport: Transport::Link(id) }, now);
                self.turn_ends(now);
            }
        }
    }

    /// Flushes the bridge's queue, and notifies the relay when the queue is short again.
    pub(crate) fn flush_bridge(&mut self) {
        let Some(bridge) = &mut self.bridge else { return };
        bridge.flush();
        let waiting = bridge.queued_bytes();
        let pressed = self.bridge_pressure.saturated || self.bridge_pressure.backlog;
        if pressed && waiting < LINK_QUEUE_LOW {
            self.bridge_pressure = Pressure::default();
            let now = self.now();
            let _turn = TurnGuard::of("bridge-flush", ());
            self.input(RelayInput::Room { transport: Transport::Bridge }, now);
            self.turn_ends(now);
        }
    }

    /// Whether the bridge's queue is not empty.
    pub(crate) fn bridge_has_more(&self) -> bool {
        self.bridge.as_ref().is_some_and(|bridge| bridge.queued_bytes() > 0)
    }
}

/// Whether the envelope reports that a peer leaves.
fn is_leave(envelope: &Envelope) -> bool {
    matches!(envelope, Envelope::Change(change) if matches!(change.kind, ChangeKind::Left { .. } | ChangeKind::Down(_)))
}
