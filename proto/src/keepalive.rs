//! When a silent session is pinged and when it is dead; and the wheel that says whose turn it is.

use std::time::Duration;

use crate::limits::{PING_INTERVAL, PONG_GRACE, TICK};

/// How long silence is borne.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    interval: Duration,
    dead_after: Duration,
}

/// What is to be done about a session's silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet: look again when the silence has lasted this long.
    Wait(Duration),
    /// Ping it, and look again when the silence has lasted this long.
    Ping(Duration),
    /// Close it.
    Dead,
}

impl Patience {
    /// Pings every min(25 s, a third of `peer_timeout`); dead after two unanswered pings and ten seconds, and never
    /// later than `peer_timeout`.
    pub fn new(peer_timeout: Duration) -> Self {
        let interval = PING_INTERVAL.min(peer_timeout / 3).max(TICK);
        let dead_after = (2 * interval + PONG_GRACE).min(peer_timeout.max(TICK));
        Self { interval, dead_after }
    }

    /// Time between two pings of a silent session.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Silence after which a session is dead.
    pub fn dead_after(&self) -> Duration {
        self.dead_after
    }

    /// Judges a session of which nothing was heard for `silence` and that was sent `pings` since.
    pub fn judge(&self, silence: Duration, pings: u8) -> Verdict {
        if silence >= self.dead_after {
            return Verdict::Dead;
        }
        let threshold = |pings: u8| match pings {
            0 | 1 => (u32::from(pings) + 1) * self.interval,
            _ => self.dead_after,
        };
        if pings < 2 && silence >= threshold(pings) {
            Verdict::Ping(threshold(pings + 1).min(self.dead_after))
        } else {
            Verdict::Wait(threshold(pings).min(self.dead_after))
        }
    }
}

/// A timing wheel: things to look at again, in slots of one [`TICK`].
///
/// What lies further ahead than the wheel reaches waits in its farthest slot and is put back from there.
#[derive(Debug)]
pub struct Wheel<T> {
    slots: Vec<Vec<(u64, T)>>,
    /// The first tick that has not expired.
    next: u64,
}

impl<T> Wheel<T> {
    /// Ticks ahead that have a slot of their own: 1,024 x 100 ms = 102 s, longer than any interval in use.
    const SLOTS: u64 = 1024;

    /// An empty wheel.
    pub fn new() -> Self {
        Self { slots: (0..Self::SLOTS).map(|_| Vec::new()).collect(), next: 0 }
    }

    /// Puts `item` where [`Self::expire`] finds it at `at` or up to one tick later.
    pub fn schedule(&mut self, at: Duration, item: T) {
        let tick = (at.as_millis().div_ceil(TICK.as_millis()) as u64).max(self.next);
        self.place(tick, item);
    }

    /// Takes out everything that is due at `now`.
    pub fn expire(&mut self, now: Duration, due: &mut Vec<T>) {
        let now = (now.as_millis() / TICK.as_millis()) as u64;
        // After a long stop every slot is due once; going round more often would find nothing new.
        let rounds = (now + 1).saturating_sub(self.next).min(Self::SLOTS);
        let first = (now + 1).saturating_sub(rounds);
        for tick in first..=now {
            self.next = tick + 1;
            let slot = std::mem::take(&mut self.slots[(tick % Self::SLOTS) as usize]);
            for (at, item) in slot {
                if at <= now { due.push(item) } else { self.place(at, item) }
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

    #[test]
    fn the_seeds_timeout_pings_twice_and_gives_up_after_a_minute() {
        let patience = Patience::new(secs(300));
        assert_eq!(patience.judge(secs(3), 0), Verdict::Wait(secs(25)));
        assert_eq!(patience.judge(secs(25), 0), Verdict::Ping(secs(50)));
        assert_eq!(patience.judge(secs(30), 1), Verdict::Wait(secs(50)));
        assert_eq!(patience.judge(secs(50), 1), Verdict::Ping(secs(60)));
        assert_eq!(patience.judge(secs(59), 2), Verdict::Wait(secs(60)));
        assert_eq!(patience.judge(secs(60), 2), Verdict::Dead);
    }

    #[test]
    fn a_short_timeout_is_never_passed() {
        let patience = Patience::new(secs(3));
        assert_eq!(patience.interval(), secs(1));
        assert_eq!(patience.judge(secs(2), 1), Verdict::Ping(secs(3)));
        assert_eq!(patience.judge(secs(3), 2), Verdict::Dead);
    }

    #[test]
    fn nothing_is_early_and_nothing_is_forgotten() {
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
                assert!(seen[i].replace(now).is_none(), "{i} came twice");
                assert!(now >= ats[i] && now < ats[i] + 2 * TICK, "{i} due {:?} came {now:?}", ats[i]);
            }
        }
        assert!(seen.iter().all(Option::is_some));
    }

    #[test]
    fn a_long_stop_finds_everything_due() {
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
}
