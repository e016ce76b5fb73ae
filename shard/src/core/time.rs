//! Processes timeouts of the router, and of sessions: silence, linger, credentials for TURN, and slots in a drain.

use std::time::Duration;

use proto::keepalive::Verdict;
use proto::limits::{ICE_LOOK, SHARD_TURN_NANOS};
use proto::{CloseReason, Input, Now, SessionId, SessionPhase, bug};
use thread::{TurnGuard, planted, was_stopped};

use super::{Core, Due, epoch_ms};
use crate::queue::SendQueue;

impl Core {
    /// Processes the timeouts that are due. The shard calls this function once per [`TICK`](proto::limits::TICK).
    pub(crate) fn tick(&mut self) {
        self.begin_turn(SHARD_TURN_NANOS);
        let now = self.clock.now();
        self.turn.look(now.at);
        let _turn = TurnGuard::of("tick", ());
        if self.slots.len() > 0 {
            planted("tick");
        }
        self.epoch_ms = epoch_ms(now);
        if now.at.as_secs() != self.last_tick.as_secs() {
            self.queues.tidy();
        }
        let thawed = was_stopped(self.last_tick, now.at);
        if thawed {
            // The process was stopped, and data that arrived meanwhile has not been read yet.
            self.listening_since = now.at;
        }
        self.last_tick = now.at;
        // The pong that a takeover waits for may not have been read yet, so the router's timeouts must wait.
        let deaf = thawed || self.outboxes.is_stalled();
        if !deaf {
            self.router_timeout(now);
        }
        self.wheel.expire(now.at, &mut self.due);
        self.expire(now);
    }

    /// Lets the router process its due timeouts. Timeouts that do not fit into this turn are processed in the next
    /// turn.
    pub(super) fn router_timeout(&mut self, now: Now) {
        let is_due = |core: &Self| core.router.poll_timeout().is_some_and(|at| at <= now.at);
        if is_due(self) {
            self.router.handle_timeout(now);
            self.perform_outputs(now);
        }
        self.overdue = is_due(self);
        if self.overdue {
            self.wake_flusher();
        }
    }

    /// Processes due entries of the timer wheel, as many as fit into this turn.
    pub(super) fn expire(&mut self, now: Now) {
        while let Some(due) = self.due.pop_front() {
            self.turn.count();
            match due {
                Due::Silence(id) => self.judge_silence(id, now),
                Due::Linger(id) => self.lingered(id, now),
                Due::Ice(id, due) => self.look_at_ice(id, due, now),
                Due::GoAway(id, close_in, drain) => self.go_away(id, close_in, drain, now),
                Due::Retire(id, drain) => self.retire(id, drain, now),
            }
            if self.is_turn_over() && !self.due.is_empty() {
                return self.wake_flusher();
            }
        }
    }

    /// Sends a session new credentials for TURN if `due` has come, and schedules the next check. Checks are frequent,
    /// because the entry of an ended session takes memory in the timer wheel until its check.
    pub(super) fn look_at_ice(&mut self, id: SessionId, due: Duration, now: Now) {
        let Some(renewal) = self.ice_renewal else { return bug!(self.bugs, RenewalMissing, "{id:?}") };
        if self.session_mut(id).is_none_or(|session| session.phase() != SessionPhase::Open) {
            return;
        }
        let mut due = due;
        if due <= now.at {
            self.input(Input::RenewIce { session: id }, now);
            due = now.at + renewal;
        }
        self.wheel.schedule(due.min(now.at + ICE_LOOK), Due::Ice(id, due));
    }

    pub(super) fn judge_silence(&mut self, id: SessionId, now: Now) {
        let Self { listening_since, patience, .. } = *self;
        let stalled = self.outboxes.is_stalled();
        let Some(session) = self.session_mut(id).filter(|s| s.phase() == SessionPhase::Open) else { return };
        // A socket that is not read at the moment may contain messages of the client, so its silence does not count.
        let since =
            if stalled || session.read.is_parked() || session.meter.is_waiting() { now.at } else { listening_since };
        let look_again = match patience.judge(&mut session.life, session.writes.is_blocked(), since, now.at) {
            Verdict::Wait(at) => at,
            Verdict::Ping(at) => {
                self.stats.pings += 1;
                self.push_control(id, SendQueue::push_ping);
                at
            }
            Verdict::Dead => return self.close(id, CloseReason::DeadPeer, now),
        };
        self.wheel.schedule(look_again, Due::Silence(id));
    }
}
