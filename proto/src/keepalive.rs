//! Keepalive decides when a session is pinged and when it counts as dead. A timer wheel schedules the checks.

use std::time::Duration;

use crate::limits::{PING_INTERVAL, PONG_GRACE, TICK};

/// Keepalive times of a hub.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    interval: Duration,
    dead_after: Duration,
}

/// The keepalive state of one session, in 24 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    /// Time of the last sign of life, in milliseconds. A sign of life is that bytes arrive from the client, or that the
    /// client's full socket accepts bytes.
    alive: u64,
    /// Time at which the socket last accepted bytes, in milliseconds.
    wrote: u64,
    /// Pings since the last sign of life.
    pings: u8,
}

/// The result of a check of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Do nothing until the next check at this time.
    Wait(Duration),
    /// Send a ping, and check again at this time.
    Ping(Duration),
    /// Close the session.
    Dead,
}

impl Life {
    /// The state of a session that begins now.
    pub fn new(now: Duration) -> Self {
        Self { alive: millis(now), wrote: millis(now), pings: 0 }
    }

    /// Records a sign of life, which is that bytes arrived from the client, or that its full socket accepted bytes.
    pub fn shown(&mut self, now: Duration) {
        (self.alive, self.pings) = (millis(now), 0);
    }

    /// Records that the socket accepted bytes. An accepted byte alone is not a sign of life, because the kernel accepts
    /// bytes for a frozen client until its buffers are full.
    pub fn wrote(&mut self, now: Duration) {
        self.wrote = millis(now);
    }

    /// Number of pings since the last sign of life, at most 2.
    pub fn pings(&self) -> u8 {
        self.pings
    }
}

fn millis(at: Duration) -> u64 {
    at.as_millis() as u64
}

impl Patience {
    /// Computes the times from `peer_timeout` (PEER_TIMEOUT_MS). The ping interval is 25 s or a third of
    /// `peer_timeout`, whichever is less, but at least one [`TICK`]. A session is dead ten seconds after the second
    /// unanswered ping, and at the latest after `peer_timeout`.
    pub fn new(peer_timeout: Duration) -> Self {
        let interval = PING_INTERVAL.min(peer_timeout / 3).max(TICK);
        let dead_after = (2 * interval + PONG_GRACE).min(peer_timeout.max(TICK));
        Self { interval, dead_after }
    }

    /// A session is pinged if nothing has arrived from it for this time, or if nothing was sent to it for this time.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Time without a sign of life after which a session is closed. A session is also closed if its socket accepts none
    /// of its queued bytes for as long.
    pub fn dead_after(&self) -> Duration {
        self.dead_after
    }

    /// Checks a session at `now`. `behind` means that the session has queued bytes that its socket does not accept.
    /// Time before `listening_since` does not count as silence, because the hub did not read during that time.
    ///
    /// A session is pinged after [`Self::interval`] of silence, and again after twice that interval. A session is also
    /// pinged when nothing has been sent to it for [`Self::interval`]. So a client can distinguish a hub that has
    /// nothing to send from a dead hub.
    pub fn judge(&self, life: &mut Life, behind: bool, listening_since: Duration, now: Duration) -> Verdict {
        let at = Duration::from_millis;
        let alive = at(life.alive).max(listening_since);
        let took = at(life.wrote).max(listening_since);
        let silence = now.saturating_sub(alive);
        if silence >= self.dead_after || behind && now.saturating_sub(took) >= self.dead_after {
            return Verdict::Dead;
        }
        let asks = life.pings < 2 && silence >= self.threshold(life.pings);
        // A client with queued messages needs no ping. The queued messages also show that the hub is alive, and would
        // arrive before a ping.
        let speaks = !behind && now.saturating_sub(at(life.wrote)) >= self.interval;
        let ping = asks || speaks;
        // A ping that is sent only to show that the hub is alive also counts as unanswered if the client has been
        // silent for half an interval.
        if asks || speaks && silence >= self.interval / 2 {
            life.pings = (life.pings + 1).min(2);
        }
        let quiet = match (behind, ping) {
            (true, _) => (took + self.dead_after).min(now + self.interval),
            (false, true) => now + self.interval,
            (false, false) => at(life.wrote) + self.interval,
        };
        let look = (alive + self.threshold(life.pings).min(self.dead_after)).min(quiet);
        if ping { Verdict::Ping(look) } else { Verdict::Wait(look) }
    }

    /// Silence after which the next ping, or the close, is due.
    fn threshold(&self, pings: u8) -> Duration {
        match pings {
            0 | 1 => (u32::from(pings) + 1) * self.interval,
            _ => self.dead_after,
        }
    }
}

/// A timer wheel with slots of one [`TICK`]. The wheel is unbounded, but its owner schedules a bounded number of items.
///
/// An item beyond the wheel's range goes into its last slot and is scheduled again from there.
#[derive(Debug)]
pub struct Wheel<T> {
    slots: Vec<Vec<(u64, T)>>,
    /// The first tick that has not expired.
    next: u64,
}

impl<T> Wheel<T> {
    /// Number of slots. 1,024 slots of 100 ms are 102 s, which is longer than any interval in use.
    const SLOTS: u64 = 1024;

    /// An empty wheel.
    pub fn new() -> Self {
        Self { slots: (0..Self::SLOTS).map(|_| Vec::new()).collect(), next: 0 }
    }

    /// Schedules `item` at `at`. [`Self::expire`] returns the item at this time, or up to one tick later.
    pub fn schedule(&mut self, at: Duration, item: T) {
        let tick = (at.as_millis().div_ceil(TICK.as_millis()) as u64).max(self.next);
        self.place(tick, item);
    }

    /// Moves all items that are due at `now` to `due`.
    pub fn expire(&mut self, now: Duration, due: &mut impl Extend<T>) {
        let now = (now.as_millis() / TICK.as_millis()) as u64;
        // After a long pause, the loop visits every slot once. A second visit of a slot would find no further items.
        let rounds = (now + 1).saturating_sub(self.next).min(Self::SLOTS);
        let first = (now + 1).saturating_sub(rounds);
        for tick in first..=now {
            self.next = tick + 1;
            let slot = std::mem::take(&mut self.slots[(tick % Self::SLOTS) as usize]);
            for (at, item) in slot {
                if at <= now { due.extend(Some(item)) } else { self.place(at, item) }
            }
        }
    }

    fn place(&mut self, tick: u64, item: T) {
        let reachable = tick.min(self.next + Self::SLOTS - 1);
        self.slots[(reachable % Self::SLOTS) as usize].push((tick, item));
    }
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    /// A session that has neither sent nor received anything for `silence`.
    fn silent_for(silence: Duration, pings: u8) -> Life {
        Life { alive: millis(NOW - silence), wrote: millis(NOW - silence), pings }
    }

    const NOW: Duration = secs(1000);

    fn judge(patience: Patience, mut life: Life, behind: bool) -> (Verdict, u8) {
        (patience.judge(&mut life, behind, Duration::ZERO, NOW), life.pings)
    }

    #[test]
    fn with_the_go_hubs_timeout_a_silent_session_gets_two_pings_and_is_dead_after_a_minute() {
        let patience = Patience::new(secs(300));
        let told = |silence, quiet, pings| {
            let life = Life { wrote: millis(NOW - secs(quiet)), ..silent_for(secs(silence), pings) };
            judge(patience, life, false)
        };
        assert_eq!(told(3, 3, 0), (Verdict::Wait(NOW + secs(22)), 0));
        assert_eq!(told(25, 25, 0), (Verdict::Ping(NOW + secs(25)), 1));
        assert_eq!(told(30, 5, 1), (Verdict::Wait(NOW + secs(20)), 1));
        assert_eq!(told(50, 25, 1), (Verdict::Ping(NOW + secs(10)), 2));
        assert_eq!(told(59, 9, 2), (Verdict::Wait(NOW + secs(1)), 2));
        assert_eq!(told(60, 10, 2), (Verdict::Dead, 2));
        // Messages sent to the session do not keep it alive.
        assert_eq!(told(60, 0, 2), (Verdict::Dead, 2));
    }

    #[test]
    fn no_session_outlives_a_short_timeout() {
        let patience = Patience::new(secs(3));
        assert_eq!(patience.interval(), secs(1));
        assert_eq!(judge(patience, silent_for(secs(2), 1), false), (Verdict::Ping(NOW + secs(1)), 2));
        assert_eq!(judge(patience, silent_for(secs(3), 2), false).0, Verdict::Dead);
    }

    #[test]
    fn a_session_that_only_sends_is_pinged() {
        let patience = Patience::new(secs(300));
        let talks = |quiet| Life { alive: millis(NOW), wrote: millis(NOW - quiet), pings: 0 };
        assert_eq!(judge(patience, talks(secs(24)), false), (Verdict::Wait(NOW + secs(1)), 0));
        assert_eq!(judge(patience, talks(secs(25)), false), (Verdict::Ping(NOW + secs(25)), 0));
        // The client receives its queued bytes before a ping.
        assert!(matches!(judge(patience, talks(secs(25)), true), (Verdict::Wait(_), 0)));
    }

    #[test]
    fn a_ping_of_a_hub_that_has_sent_nothing_counts_as_unanswered() {
        let patience = Patience::new(secs(300));
        let life = Life { wrote: millis(NOW - secs(25)), ..silent_for(secs(24), 0) };
        assert_eq!(
            judge(patience, life, false),
            (Verdict::Ping(NOW + secs(25)), 1),
            "the ping counts as unanswered, and the next check is one interval later"
        );
    }

    #[test]
    fn a_socket_that_accepts_nothing_is_dead_even_if_its_client_sends() {
        let patience = Patience::new(secs(300));
        let stuck = |quiet| Life { alive: millis(NOW), wrote: millis(NOW - quiet), pings: 0 };
        assert_eq!(judge(patience, stuck(secs(59)), true).0, Verdict::Wait(NOW + secs(1)));
        assert_eq!(judge(patience, stuck(secs(60)), true).0, Verdict::Dead);
        assert_ne!(
            judge(patience, stuck(secs(60)), false).0,
            Verdict::Dead,
            "a session without queued bytes is not dead"
        );
    }

    #[test]
    fn pauses_of_the_hub_do_not_count_against_a_session() {
        let patience = Patience::new(secs(300));
        for behind in [false, true] {
            let mut life = silent_for(secs(500), 0);
            let verdict = patience.judge(&mut life, behind, NOW - secs(20), NOW);
            assert_ne!(verdict, Verdict::Dead);
        }
    }

    /// A simulation with random events, which checks that each silent session and each full socket is noticed in time.
    #[test]
    fn every_session_is_checked_in_time() {
        let patience = Patience::new(secs(300));
        for seed in 0..2000u64 {
            let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut next = |n: u64| {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (chance >> 33) % n
            };
            let (mut now, mut life) = (Duration::ZERO, Life::new(Duration::ZERO));
            let (mut heard, mut wrote, mut behind) = (now, now, false);
            let mut look = patience.interval();
            for _ in 0..200 {
                let at = now + Duration::from_millis(next(15_000));
                if look <= at {
                    now = look;
                    match patience.judge(&mut life, behind, Duration::ZERO, now) {
                        Verdict::Dead => {
                            let stuck = behind && now - wrote >= patience.dead_after();
                            assert!(
                                stuck || now - heard >= patience.dead_after(),
                                "seed {seed}: the session was judged dead too early"
                            );
                            break;
                        }
                        Verdict::Wait(again) => look = again,
                        Verdict::Ping(again) => {
                            look = again;
                            if !behind {
                                life.wrote(now);
                                wrote = now;
                            }
                        }
                    }
                    assert!(
                        look > now && look <= now + patience.interval(),
                        "seed {seed}: the next check is at {look:?}"
                    );
                    assert!(now - heard < patience.dead_after(), "seed {seed}: the session was silent for too long");
                    assert!(
                        !behind || now - wrote < patience.dead_after(),
                        "seed {seed}: the socket accepted nothing for too long"
                    );
                    assert!(behind || now - wrote < patience.interval(), "seed {seed}: nothing was sent for too long");
                } else {
                    now = at;
                    match next(4) {
                        0 => {
                            life.shown(now);
                            heard = now;
                        }
                        1 if !behind => {
                            life.wrote(now);
                            wrote = now;
                        }
                        2 => {
                            // A write has filled the socket, or the full socket has accepted bytes. Both count as a
                            // write.
                            behind = !behind;
                            life.wrote(now);
                            wrote = now;
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    #[test]
    fn every_deadline_is_reported_on_time() {
        let mut wheel = Wheel::new();
        let ats: Vec<Duration> = (0..2000).map(|i| Duration::from_millis(i * 137)).collect();
        for (i, at) in ats.iter().enumerate() {
            wheel.schedule(*at, i);
        }
        let mut seen = vec![None; ats.len()];
        let mut due = Vec::new();
        for step in 0..3000 {
            let now = Duration::from_millis(step * 100);
            wheel.expire(now, &mut due);
            for i in due.drain(..) {
                assert!(seen[i].replace(now).is_none(), "timer {i} expired twice");
                assert!(
                    now >= ats[i] && now < ats[i] + 2 * TICK,
                    "timer {i} was due at {:?} and expired at {now:?}",
                    ats[i]
                );
            }
        }
        assert!(seen.iter().all(Option::is_some));
    }

    #[test]
    fn every_timer_is_due_after_a_long_pause() {
        let mut wheel = Wheel::new();
        for i in 0..500u64 {
            wheel.schedule(secs(i), i);
        }
        let mut due = Vec::new();
        wheel.expire(secs(10_000), &mut due);
        due.sort_unstable();
        assert_eq!(due, (0..500).collect::<Vec<_>>());
        wheel.schedule(secs(1), 7);
        due.clear();
        wheel.expire(secs(10_001), &mut due);
        assert_eq!(due, [7]);
    }

    #[test]
    fn a_silent_session_is_pinged_twice_even_if_much_is_sent_to_it() {
        let patience = Patience::new(secs(300));
        let mut life = Life::new(NOW);
        let mut pings = Vec::new();
        for second in 0..60 {
            let now = NOW + secs(second);
            life.wrote(now);
            if let Verdict::Ping(_) = patience.judge(&mut life, false, Duration::ZERO, now) {
                pings.push((second, life.pings()));
            }
        }
        assert_eq!(pings, [(25, 1), (50, 2)]);
        life.shown(NOW);
        assert_eq!(life.pings(), 0);
    }
}
