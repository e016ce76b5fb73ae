//! Decides which session is read next. All sessions get equal shares of the core, measured by the cost of their turns.
//!
//! The algorithm is start-time fair queueing. A shard has a virtual time, which advances with the cost of the turns
//! that it serves. The [`Meter`] of a session has the virtual time at which the session's next turn begins. The less
//! time a session has used, the earlier its next turn begins. But no turn begins before the virtual time of the shard,
//! so an idle session does not save up time.
//!
//! In a round, every ready task has one turn, and then the flusher has one turn. A session with cheap turns is read
//! without waiting, once per round, until the turns of the round cost [`ROUND_CHEAP_NANOS`]. A session with expensive
//! turns is read without waiting only while the round has budget and no session with an earlier end waits. A session
//! that must wait enters a line, which is a queue ordered by the expected end of the sessions' next turns in virtual
//! time. Each round calls sessions from this line. So a quiet session usually waits for at most one round, even if many
//! sessions flood the shard. A flood without competitors has the whole core.
//!
//! Sessions whose turns cause much output ("loud" sessions) have a separate line. While too much output is queued for
//! sockets, at most one loud session is called in [`HELD_ROUNDS`] rounds. Sessions in the other line are still called,
//! because their turns add little output. A session with cheap turns can get into the other line by mistake, because
//! the time for which another process interrupts a turn counts as cost of the turn.
//!
//! Costs are in nanoseconds. The caller reads the clock.

use std::collections::{BTreeMap, VecDeque};

use proto::limits::{
    CHEAP_TURN_NANOS, DEAREST_TURN_NANOS, HELD_ROUNDS, LEAST_TURN_NANOS, LOUD_TURNS, ROUND_CALLS, ROUND_CHEAP_NANOS,
    ROUND_DEAR_NANOS, ROUND_DEBT_NANOS,
};
use proto::{Bugs, SessionId, bug};

/// The cost that a session has used, and the line in which it waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    /// Virtual time at which the session's next turn begins, at the earliest.
    start: u64,
    /// Expected cost of the session's next turn.
    expected: u32,
    /// Number that the session got when it entered a line. The number distinguishes two sessions in a line whose turns
    /// have the same expected end.
    ticket: u32,
    /// Whether the session has not run yet, so that the cost of its turns is unknown.
    is_new: bool,
    /// The output that the turns of the session cause.
    loudness: Loudness,
    /// The last round in which the session ran.
    ran_in: u32,
    state: State,
}

/// Whether the turns of a session cause much output. One turn with much output makes the session loud. After
/// [`LOUD_TURNS`] successive turns with little output, the session is no longer loud.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Loudness {
    /// Number of turns with little output after which the session is no longer loud.
    left: u8,
}

impl Loudness {
    /// The initial value of a session that has had no turn yet.
    const UNKNOWN: Self = Self { left: 1 };

    /// Whether the next turn may cause much output.
    pub(crate) fn is_loud(self) -> bool {
        self.left > 0
    }

    /// Counts a turn. `nanos` is the estimated cost of the output that it has caused.
    pub(crate) fn count(&mut self, nanos: u64) {
        self.left = if nanos > u64::from(CHEAP_TURN_NANOS) { LOUD_TURNS } else { self.left.saturating_sub(1) };
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The session is in no line. A turn that the session has in this state uses the round's budget.
    Free,
    /// The session is in no line. A turn that the session has in this state does not use the round's budget, if it is
    /// cheap.
    Exempt,
    /// The session is in the queue of sessions with cheap turns.
    WaitsCheap,
    /// The session is in the line of sessions with expensive turns.
    WaitsDear,
    /// The session is in the line of sessions with expensive turns that cause much output.
    WaitsLoud,
    /// The session was called from a line of expensive turns in the round with this number, and has not run yet.
    Called(u32),
}

impl Default for Meter {
    /// The meter of a new session. The first turn of a session counts as expensive, so that many new sessions do not
    /// delay the existing ones.
    fn default() -> Self {
        Self {
            start: 0,
            expected: DEAREST_TURN_NANOS,
            ticket: 0,
            is_new: true,
            loudness: Loudness::UNKNOWN,
            ran_in: 0,
            state: State::Free,
        }
    }
}

impl Meter {
    /// Whether the session has data to read and must wait.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, State::WaitsCheap | State::WaitsDear | State::WaitsLoud | State::Called(_))
    }

    fn end(&self) -> u64 {
        self.start + u64::from(self.expected)
    }

    /// Records that the session has been called in this round. The caller wakes its task.
    pub(crate) fn call(&mut self, round: u32) {
        self.state = if self.state == State::WaitsCheap { State::Free } else { State::Called(round) };
    }
}

/// Sessions by the expected end of their next turn and their ticket. Each value contains a session and the start of its
/// next turn.
type Line = BTreeMap<(u64, u32), (SessionId, u64)>;

/// The lines of a shard's sessions, and the budget of the round.
#[derive(Debug, Default)]
pub(crate) struct Fair {
    /// The virtual time.
    time: u64,
    /// Number of the round.
    round: u32,
    /// Budget that is left for expensive turns in this round. A negative value reduces the budget of the next rounds.
    left: i64,
    /// Cost of all turns of this round.
    used: u64,
    /// Number of sessions that were called from a line of expensive turns in this round and have not run yet.
    called: usize,
    /// Number of successive rounds in which no loud session was called because too much output was queued.
    held: u32,
    tickets: u32,
    /// Sessions with expensive turns that cause little output.
    dear: Line,
    /// Sessions with expensive turns that cause much output.
    loud: Line,
    /// Sessions with cheap turns that wait for the next round, because this round has reached [`ROUND_CHEAP_NANOS`].
    cheap: VecDeque<SessionId>,
}

impl Fair {
    /// Whether a session that may have data to read may be read now. Otherwise it waits, and [`Self::begin_round`] will
    /// call it. `is_held` means that so much output is queued that sessions should not add much to it.
    pub(crate) fn admits(&mut self, id: SessionId, meter: &mut Meter, is_held: bool, bugs: &mut Bugs) -> bool {
        match meter.state {
            State::WaitsCheap | State::WaitsDear | State::WaitsLoud => {}
            State::Called(round) => {
                self.count_served(round, bugs);
                // Whether too much output is queued does not matter here: [`Self::begin_round`] has decided to call the
                // session.
                if self.left > 0 {
                    meter.state = State::Free;
                    return true;
                }
                // The ticket stays the same, so the session keeps its place in the line.
                self.enter_line(id, meter);
            }
            State::Free | State::Exempt => {
                meter.start = meter.start.max(self.time);
                // One cheap turn of a session per round is exempt. Further turns of the session in the round count as
                // expensive.
                let is_cheap = meter.expected <= CHEAP_TURN_NANOS && meter.ran_in != self.round;
                if is_cheap && self.used < ROUND_CHEAP_NANOS {
                    meter.state = State::Exempt;
                    return true;
                }
                let is_first = self.next_end(is_held).is_none_or(|end| meter.end() < end);
                let is_held = is_held && meter.loudness.is_loud();
                let is_near = meter.start <= self.time + ROUND_DEAR_NANOS as u64;
                if is_first && is_near && self.called == 0 && self.left > 0 && !is_held {
                    meter.state = State::Free;
                    return true;
                }
                self.tickets = self.tickets.wrapping_add(1);
                meter.ticket = self.tickets;
                if is_cheap {
                    meter.state = State::WaitsCheap;
                    self.cheap.push_back(id);
                } else {
                    self.enter_line(id, meter);
                }
            }
        }
        false
    }

    /// Puts a session into a line of sessions with expensive turns.
    fn enter_line(&mut self, id: SessionId, meter: &mut Meter) {
        let line = if meter.loudness.is_loud() {
            meter.state = State::WaitsLoud;
            &mut self.loud
        } else {
            meter.state = State::WaitsDear;
            &mut self.dear
        };
        line.insert((meter.end(), meter.ticket), (id, meter.start));
    }

    /// Counts a session that was called in `round`, and that now runs, waits again or ends. A session that was called
    /// in an earlier round is no longer counted, because [`Self::begin_round`] starts the count again.
    fn count_served(&mut self, round: u32, bugs: &mut Bugs) {
        if round == self.round {
            match self.called.checked_sub(1) {
                Some(called) => self.called = called,
                None => bug!(bugs, Counter, "called sessions of round {round}"),
            }
        }
    }

    /// The earliest end of a waiting session with expensive turns that may be called.
    fn next_end(&self, is_held: bool) -> Option<u64> {
        let end = |line: &Line| line.first_key_value().map(|(&(end, _), _)| end);
        let loud = if is_held { None } else { end(&self.loud) };
        end(&self.dear).into_iter().chain(loud).min()
    }

    /// Charges a session for a turn. `nanos` is the whole cost of the turn. `output` is the part of this cost for the
    /// output that the turn has caused.
    pub(crate) fn charge(&mut self, meter: &mut Meter, nanos: u64, output: u64) {
        let nanos = nanos.max(LEAST_TURN_NANOS);
        meter.loudness.count(output);
        self.time = self.time.max(meter.start);
        meter.start += nanos;
        meter.ran_in = self.round;
        self.used += nanos;
        let cost = u32::try_from(nanos).map_or(DEAREST_TURN_NANOS, |nanos| nanos.min(DEAREST_TURN_NANOS));
        // The expected cost falls by at most half at a time, so that a few cheap turns do not hide an expensive one.
        let least = if meter.is_new { 0 } else { meter.expected / 2 };
        meter.is_new = false;
        meter.expected = cost.max(least);
        if meter.state != State::Exempt || cost > CHEAP_TURN_NANOS {
            self.left = self.left.saturating_sub_unsigned(nanos).max(-ROUND_DEBT_NANOS);
        }
    }

    /// Begins a round, and calls the sessions that may be read in it. `call` receives the number of the round.
    pub(crate) fn begin_round(&mut self, is_held: bool, mut call: impl FnMut(SessionId, u32)) {
        self.round = self.round.wrapping_add(1);
        let round = self.round;
        let mut call = |id| call(id, round);
        self.used = 0;
        self.called = 0;
        self.left = (self.left + ROUND_DEAR_NANOS).min(ROUND_DEAR_NANOS);
        self.cheap.drain(..).for_each(&mut call);
        if self.left <= 0 {
            return;
        }
        let mut loud_calls = ROUND_CALLS;
        if is_held && !self.loud.is_empty() {
            self.held += 1;
            loud_calls = usize::from(self.held > HELD_ROUNDS);
        }
        if loud_calls > 0 {
            self.held = 0;
        }
        let mut latest = u64::MAX;
        while self.called < ROUND_CALLS {
            let loud = self.loud.first_entry().filter(|_| loud_calls > 0);
            let (entry, is_loud) = match (self.dear.first_entry(), loud) {
                (Some(dear), Some(loud)) if loud.key() < dear.key() => (loud, true),
                (Some(dear), _) => (dear, false),
                (None, Some(loud)) => (loud, true),
                (None, None) => break,
            };
            let start = entry.get().1;
            // A session that was called in this round may enter the line again with an earlier end than the session of
            // `entry`. The session of `entry` must then wait for a later round.
            if start > latest {
                break;
            }
            latest = latest.min(start + ROUND_DEAR_NANOS as u64);
            loud_calls -= usize::from(is_loud);
            self.called += 1;
            call(entry.remove().0);
        }
    }

    /// Whether any session waits to be called.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.dear.is_empty() || !self.loud.is_empty() || !self.cheap.is_empty()
    }

    /// Removes a session that ends. A session with a cheap turn may still be called once.
    pub(crate) fn remove(&mut self, meter: &Meter, bugs: &mut Bugs) {
        let key = (meter.end(), meter.ticket);
        match meter.state {
            State::WaitsDear => _ = self.dear.remove(&key),
            State::WaitsLoud => _ = self.loud.remove(&key),
            State::Called(round) => self.count_served(round, bugs),
            State::Free | State::Exempt | State::WaitsCheap => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Simulated sessions. All turns of one session have the same cost. The whole cost of a flood is the cost of its
    /// output. A quiet session causes no output.
    struct Crowd {
        fair: Fair,
        bugs: Bugs,
        meters: Vec<Meter>,
        costs: Vec<u64>,
        /// The cost that each session has used.
        used: Vec<u64>,
        /// Number of rounds for which each session has waited.
        waited: Vec<u64>,
        longest: Vec<u64>,
        /// Sessions that have data to read when the next round begins, and are in no line.
        ready: Vec<usize>,
        /// Index of the first quiet session. Quiet sessions have data to read once per round. The sessions before this
        /// index are floods, and always have data to read.
        quiet_from: usize,
    }

    fn id(n: usize) -> SessionId {
        SessionId { slot: n as u32, generation: 0 }
    }

    impl Crowd {
        fn new(floods: Vec<u64>, quiet: Vec<u64>) -> Self {
            let quiet_from = floods.len();
            let costs = [floods, quiet].concat();
            let n = costs.len();
            Self {
                fair: Fair::default(),
                bugs: Bugs::default(),
                meters: vec![Meter::default(); n],
                costs,
                used: vec![0; n],
                waited: vec![0; n],
                longest: vec![0; n],
                ready: (0..n).collect(),
                quiet_from,
            }
        }

        /// Runs one round. Returns its cost.
        fn round(&mut self, is_held: bool) -> u64 {
            let mut cost = 0;
            let mut queue = VecDeque::new();
            let Self { fair, meters, .. } = self;
            fair.begin_round(is_held, |id, round| {
                queue.push_back(id.slot as usize);
                meters[id.slot as usize].call(round);
            });
            queue.extend(self.ready.drain(..));
            while let Some(n) = queue.pop_front() {
                if self.fair.admits(id(n), &mut self.meters[n], is_held, &mut self.bugs) {
                    let output = if n < self.quiet_from { self.costs[n] } else { 0 };
                    self.fair.charge(&mut self.meters[n], self.costs[n], output);
                    self.used[n] += self.costs[n];
                    cost += self.costs[n];
                    self.longest[n] = self.longest[n].max(std::mem::take(&mut self.waited[n]));
                    if n < self.quiet_from {
                        queue.push_back(n);
                    } else {
                        self.ready.push(n);
                    }
                }
            }
            self.waited.iter_mut().for_each(|waited| *waited += 1);
            cost
        }

        fn rounds(&mut self, rounds: u64) -> &mut Self {
            (0..rounds).for_each(|_| _ = self.round(false));
            self
        }

        /// Forgets how long sessions have waited.
        fn reset(&mut self) {
            self.longest.fill(0);
            self.waited.fill(0);
        }
    }

    const QUANTUM: u64 = 250_000;

    #[test]
    fn floods_have_equal_shares_by_cost_and_not_by_turns() {
        const DEAREST: u64 = 14_000_000;
        let mut crowd = Crowd::new(vec![QUANTUM, QUANTUM, DEAREST, 2 * QUANTUM], vec![]);
        crowd.rounds(100_000);
        let (least, most) = (crowd.used.iter().min().unwrap(), crowd.used.iter().max().unwrap());
        assert!(most - least <= most / 50, "{:?}", crowd.used);
    }

    #[test]
    fn a_quiet_session_waits_for_one_round_during_any_number_of_floods() {
        const QUIET: u64 = 10_000;
        for floods in [1, 10, 1000] {
            let mut crowd = Crowd::new(vec![QUANTUM; floods], vec![QUIET]);
            crowd.rounds(50 * floods as u64).reset();
            for _ in 0..1000 {
                let cost = crowd.round(false);
                assert!(cost <= ROUND_DEAR_NANOS as u64 + QUANTUM + QUIET, "{cost}");
            }
            assert_eq!(crowd.longest[floods], 1, "{floods} floods");
        }
    }

    #[test]
    fn a_flood_alone_runs_in_every_round() {
        let mut crowd = Crowd::new(vec![QUANTUM], vec![]);
        crowd.rounds(10);
        for _ in 0..1000 {
            assert!(crowd.round(false) >= ROUND_DEAR_NANOS as u64 - QUANTUM);
        }
    }

    #[test]
    fn a_flood_of_cheap_turns_is_exempt_once_a_round() {
        let mut crowd = Crowd::new(vec![2_000; 10], vec![10_000]);
        crowd.rounds(100).reset();
        for _ in 0..100 {
            assert!(crowd.round(false) <= ROUND_DEAR_NANOS as u64 + 10 * 2_000 + 10_000);
        }
        assert_eq!(crowd.longest[10], 1);
    }

    #[test]
    fn more_cheap_turns_than_fit_into_a_round_are_served_in_turn() {
        const CHEAP: u64 = 40_000;
        let mut crowd = Crowd::new(vec![], vec![CHEAP; 1000]);
        crowd.rounds(3000).reset();
        for _ in 0..1000 {
            assert!(crowd.round(false) <= ROUND_CHEAP_NANOS + ROUND_DEAR_NANOS as u64 + CHEAP);
        }
        let longest = crowd.longest.iter().max().copied().unwrap();
        assert!(longest <= 1000 * CHEAP / ROUND_CHEAP_NANOS + 1, "{longest}");
    }

    #[test]
    fn queued_output_delays_expensive_turns_for_a_bounded_time() {
        let mut crowd = Crowd::new(vec![QUANTUM], vec![10_000]);
        crowd.rounds(100).reset();
        let before = crowd.used[0];
        for _ in 0..10 * (HELD_ROUNDS + 1) {
            crowd.round(true);
        }
        assert_eq!(crowd.longest[1], 1, "a session with cheap turns waits for only one round");
        let turns = (crowd.used[0] - before) / QUANTUM;
        assert!((9..=11).contains(&turns), "{turns}");
    }

    #[test]
    fn a_quiet_session_that_was_interrupted_waits_for_few_rounds() {
        const FLOODS: usize = 500;
        const ANNOUNCEMENT: u64 = 8_500_000;
        for is_held in [false, true] {
            let mut crowd = Crowd::new(vec![ANNOUNCEMENT; FLOODS], vec![10_000]);
            crowd.rounds(20_000);
            for interrupted in [DEAREST_TURN_NANOS.into(), ANNOUNCEMENT] {
                crowd.reset();
                crowd.costs[FLOODS] = interrupted;
                crowd.round(is_held);
                crowd.costs[FLOODS] = 10_000;
                // In 15 of 16 rounds, too much output is queued, so the flood must wait.
                (0..1000).for_each(|n| _ = crowd.round(is_held || n % 16 != 0));
                let bound = (ROUND_DEBT_NANOS / ROUND_DEAR_NANOS) as u64 + 1;
                let waited = crowd.longest[FLOODS].max(crowd.waited[FLOODS]);
                assert!(waited <= bound, "{waited} rounds, held: {is_held}");
            }
        }
    }

    #[test]
    fn a_session_is_loud_until_several_turns_have_caused_little_output() {
        let mut loudness = Loudness::default();
        assert!(!loudness.is_loud());
        loudness.count(u64::from(CHEAP_TURN_NANOS) + 1);
        for _ in 0..LOUD_TURNS {
            assert!(loudness.is_loud());
            loudness.count(u64::from(CHEAP_TURN_NANOS));
        }
        assert!(!loudness.is_loud());
    }

    #[test]
    fn an_idle_session_does_not_save_up_time() {
        let mut crowd = Crowd::new(vec![QUANTUM, QUANTUM], vec![]);
        crowd.ready = vec![0];
        crowd.rounds(1000);
        crowd.ready.push(1);
        let before = crowd.used[0];
        crowd.rounds(100);
        let (first, second) = (crowd.used[0] - before, crowd.used[1]);
        assert!(first.abs_diff(second) <= 2 * QUANTUM, "{first} {second}");
    }

    #[test]
    fn a_session_that_was_called_in_an_earlier_round_does_not_count_in_this_round() {
        let (mut fair, mut bugs, mut meters) = (Fair::default(), Bugs::default(), [Meter::default(); 3]);
        let begin_round = |fair: &mut Fair, meters: &mut [Meter; 3]| {
            fair.begin_round(false, |id, round| meters[id.slot as usize].call(round));
            fair.called
        };
        assert!(!fair.admits(id(0), &mut meters[0], false, &mut bugs), "the first round has not begun");
        assert_eq!(begin_round(&mut fair, &mut meters), 1);
        // The first session is parked for the whole round.
        for (n, meter) in meters.iter_mut().enumerate().skip(1) {
            assert!(!fair.admits(id(n), meter, false, &mut bugs), "a called session comes first");
        }
        assert_eq!(begin_round(&mut fair, &mut meters), 2);
        assert!(fair.admits(id(0), &mut meters[0], false, &mut bugs));
        assert_eq!(fair.called, 2, "the parked session was called in the round before");
        assert!(fair.admits(id(1), &mut meters[1], false, &mut bugs));
        fair.remove(&meters[2], &mut bugs);
        assert_eq!(fair.called, 0);
    }

    #[test]
    fn a_session_that_ends_leaves_the_line() {
        let (mut fair, mut bugs, mut meters) = (Fair::default(), Bugs::default(), [Meter::default(); 3]);
        for (n, meter) in meters.iter_mut().enumerate() {
            assert!(!fair.admits(id(n), meter, false, &mut bugs), "the first round has not begun");
        }
        fair.remove(&meters[1], &mut bugs);
        let mut called = Vec::new();
        for _ in 0..3 {
            fair.begin_round(false, |id, _| called.push(id));
        }
        assert_eq!(called, [id(0), id(2)]);
        assert!(!fair.has_waiting());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// No session waits forever. While a session waits, other sessions have only turns that start before the
        /// expected end of the waiting session's turn. Each turn of another session causes a debt, which lasts for a
        /// bounded number of rounds.
        #[test]
        fn each_session_is_served_and_charged(costs in proptest::collection::vec(200_000u64..20_000_000, 1..9)) {
            let rounds = (ROUND_DEBT_NANOS / ROUND_DEAR_NANOS) as u64 + 2;
            let turns = u64::from(DEAREST_TURN_NANOS) / 200_000 + 1;
            let bound = costs.len() as u64 * turns * rounds;
            let mut crowd = Crowd::new(costs.clone(), vec![]);
            for _ in 0..2000 {
                crowd.round(false);
                prop_assert!(crowd.waited.iter().all(|&waited| waited <= bound), "{:?}", crowd.waited);
                prop_assert!(crowd.fair.dear.len() + crowd.fair.loud.len() + crowd.fair.cheap.len() <= costs.len());
            }
            for (meter, &used) in crowd.meters.iter().zip(&crowd.used) {
                prop_assert!(used > 0 && meter.start >= used);
            }
        }
    }
}
