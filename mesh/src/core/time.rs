//! Processes timeouts: silence, pings, and the relay's timeouts.

use std::rc::Rc;
use std::time::Duration;

use proto::limits::{LINK_PATIENCE, LINK_PING_INTERVAL, THAW, TICK};
use proto::ws::Opcode;
use proto::{LinkId, Now, RelayInput};
use thread::{TurnGuard, planted, was_stopped};
use tokio::sync::Notify;

use super::Core;
use crate::link::Phase;
use crate::stats::LinkEnd;

impl Core {
    /// Processes everything that is due. Called once a [`TICK`].
    pub(crate) fn tick(&mut self) {
        self.begin_turn();
        let now = self.now();
        let _turn = TurnGuard::of("tick", ());
        planted("mesh-tick");
        if self.has_thawed(now) {
            // Data that arrived during the pause has not been read yet, so nothing counts as late before [`THAW`] has
            // passed.
            self.judge_from = now.at + THAW;
            self.listening_since = now.at;
        }
        self.last_tick = now.at;
        if now.at >= self.judge_from {
            let ids: Vec<LinkId> = self.links.keys().copied().collect();
            for id in ids {
                self.look_after(id, now);
            }
        }
        if self.status.has_changed().unwrap_or(false) {
            let status = self.status.borrow_and_update().clone();
            if let Some(status) = status {
                self.input(RelayInput::Status(status), now);
            }
        }
        self.last_bridge.take_if(|(_, until)| *until <= now.at);
        self.turn_ends(now);
        self.flush_bridge();
    }

    fn has_thawed(&self, now: Now) -> bool {
        was_stopped(self.last_tick, now.at)
    }

    /// Whether timeouts may be checked. Timeouts must wait while letters cannot be posted, or while received data is
    /// unread.
    fn may_judge(&self, now: Now) -> bool {
        now.at >= self.judge_from && !self.has_thawed(now) && !self.outboxes.is_stalled()
    }

    /// Lets the relay process its timeouts, if they may be checked now.
    pub(super) fn judge(&mut self, now: Now) {
        if self.may_judge(now) && self.relay.poll_timeout().is_some_and(|at| at <= now.at) {
            self.relay.handle_timeout(now);
            self.perform_outputs(now);
        }
        let next = self.relay.poll_timeout();
        if next.is_some_and(|next| self.armed.is_none_or(|armed| next < armed)) {
            self.timer.notify_one();
        }
    }

    /// Called when the timer has fired.
    pub(crate) fn timeout(&mut self) {
        self.begin_turn();
        let now = self.now();
        let _turn = TurnGuard::of("timeout", ());
        planted("timeout");
        self.judge(now);
    }

    /// Time until the timer must fire, at most [`TICK`].
    pub(crate) fn arm(&mut self) -> (Duration, Rc<Notify>) {
        let now = self.now();
        self.armed = self.relay.poll_timeout();
        let wait = self.armed.map_or(TICK, |at| at.saturating_sub(now.at).min(TICK));
        // A due timeout that may not be checked yet would wake the timer again and again.
        let least = if self.may_judge(now) { Duration::from_millis(1) } else { TICK };
        (wait.max(least), Rc::clone(&self.timer))
    }

    fn look_after(&mut self, id: LinkId, now: Now) {
        let (since, stalled) = (self.listening_since, self.outboxes.is_stalled());
        let Some(link) = self.links.get_mut(&id) else { return };
        let late = |last: Duration| now.at.saturating_sub(last.max(since)) >= LINK_PATIENCE;
        if link.is_overdue(now.at) {
            return match link.phase() {
                Phase::Retiring | Phase::Closing => self.remove(id, now),
                Phase::Greeting | Phase::Answered(_) | Phase::Ready => self.close(id, LinkEnd::Silent, now),
            };
        }
        if !link.is_ready() {
            return;
        }
        if !link.queue.is_empty() && late(link.last_progress) {
            return self.close(id, LinkEnd::Stalled, now);
        }
        if !stalled && late(link.last_heard) {
            return self.close(id, LinkEnd::Dead, now);
        }
        if link.backlog && link.legacy {
            link.wake();
        }
        if link.next_ping <= now.at {
            link.next_ping = now.at + LINK_PING_INTERVAL;
            let sent = now.at.as_micros() as u64;
            self.push(id, now, |queue| queue.control(Opcode::Ping, &sent.to_be_bytes()));
        }
    }
}
