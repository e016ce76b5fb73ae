//! Drains: closes every session in its slot.

use std::sync::Arc;
use std::time::Duration;

use proto::limits::SHARD_TURN_NANOS;
use proto::{Input, Now, SessionId, SessionPhase};
use thread::{TurnGuard, planted};

use super::{Core, Due, Followup};
use crate::drain::{Drain, Draining};

impl Core {
    /// Begins a drain: gives every open session a slot. Sessions that are admitted during the drain are closed as well.
    /// If the hub does not stop, it also refuses new peers.
    pub(crate) fn drain(&mut self, plan: Drain) {
        self.begin_turn(SHARD_TURN_NANOS);
        let now = self.now();
        let _turn = TurnGuard::of("drain", ());
        planted("drain");
        let spread = plan.spread;
        self.drains += 1;
        self.drain = Some(Draining { plan, began: now.at, number: self.drains });
        let open: Vec<SessionId> = self.slots.open().collect();
        let shards = u32::from(self.shards);
        for (i, id) in open.iter().enumerate() {
            // The slots of the shards are interleaved.
            let place = i as u32 * shards + u32::from(self.shard.0);
            let slot = spread.mul_f64(f64::from(place) / f64::from((open.len() as u32 * shards).max(1)));
            self.due.push_back(Due::GoAway(*id, slot, self.drains));
        }
        self.expire(now);
    }

    /// Ends the drain. Sessions whose slot has not come stay open.
    pub(crate) fn undrain(&mut self) {
        self.drain = None;
    }

    /// Whether new peers are refused, because an operator drains the hub.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| !drain.plan.stops)
    }

    /// Whether a drain has finished.
    pub(crate) fn is_drained(&self) -> bool {
        let is_left = self.unfinished || !self.closed.is_empty() || !self.due.is_empty();
        self.slots.len() == 0 && self.outboxes.waiting() == 0 && !is_left
    }

    /// The drain with this number. `None` if it has ended: the timer keeps the entries of ended drains for a while, and
    /// they have no effect.
    fn drain_of(&self, number: u32) -> Option<&Draining> {
        self.drain.as_ref().filter(|drain| drain.number == number)
    }

    /// Informs a session at the start of a drain that it will be closed in `close_in`, and schedules its slot.
    pub(super) fn go_away(&mut self, id: SessionId, close_in: Duration, drain: u32, now: Now) {
        let Some(drain) = self.drain_of(drain) else { return };
        let (hubs, closes_at, number) = (Arc::clone(&drain.plan.hubs), now.at + close_in, drain.number);
        let reconnect_in = drain.reconnect_in(closes_at);
        if self.session_mut(id).is_some_and(|session| session.phase() == SessionPhase::Open) {
            self.input(Input::GoAway { session: id, close_in, reconnect_in, hubs: &hubs }, now);
            self.wheel.schedule(closes_at, Due::Retire(id, number));
        }
    }

    /// Closes a session whose slot in a drain has come.
    pub(super) fn retire(&mut self, id: SessionId, drain: u32, now: Now) {
        if self.drain_of(drain).is_some() {
            self.input(Input::Retire { session: id }, now);
        }
    }

    /// Schedules the end of a session that was admitted during a drain.
    pub(super) fn admitted_in_drain(&mut self, id: SessionId, now: Now) {
        if let Some(drain) = &self.drain {
            self.wheel.schedule(now.at, Due::Retire(id, drain.number));
            self.followups.push_back(Followup::GoAway(id));
        }
    }
}
