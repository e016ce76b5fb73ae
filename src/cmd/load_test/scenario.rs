//! The scenarios `join`, `idle`, `relay` and `storm`, and the steps that several scenarios share.

use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use super::hear::partner;
use super::plan::{Place, Rng};
use super::progress::Progress;
use super::swarm::{Membership, Swarm};
use super::tally::Check;

/// Maximum number of handshakes in progress. Further peers wait until a handshake ends.
const MAX_DIALS: usize = 128;

/// Time without any message after which a scenario gives up waiting.
const QUIET: Duration = Duration::from_secs(10);

/// Time between two checks for expected events.
const POLL: Duration = Duration::from_millis(10);

/// Measurements of a run, in addition to the counts in `Tally`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outcome {
    /// Time until each peer was connected or had failed to connect, in milliseconds. In `churn`, only the observers
    /// count.
    pub(super) connect_ms: u64,
    /// Time from the first dial until every peer knew all other members of its network, in milliseconds. `None` if that
    /// did not happen.
    pub(super) exact_ms: Option<u64>,
    /// Number of discoveries that a correct hub sends. `None` if the scenario does not determine this number.
    pub(super) expected_discoveries: Option<u64>,
    /// Length of the measured part of the run, in seconds.
    pub(super) measured_secs: f64,
    /// Number of signals delivered within the measured part of the run.
    pub(super) relays: u64,
    /// Rounds of a storm.
    pub(super) storms: Vec<Storm>,
    /// Steps of each attack.
    pub(super) attacks: Vec<(&'static str, u64)>,
}

/// One round of a storm: all sockets are cut at once.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Storm {
    /// `reset` or `fin`.
    pub(super) cut: &'static str,
    /// Time until all peers were connected again, in milliseconds.
    pub(super) connected_ms: u64,
    /// Time until every peer knew all other members of its network again, in milliseconds. `None` if that did not
    /// happen.
    pub(super) exact_ms: Option<u64>,
}

/// The arguments of a scenario.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) duration: Duration,
    pub(super) interval: Duration,
    /// Connections per second; 0 means as many as possible.
    pub(super) ramp: u32,
    pub(super) in_flight: u32,
    pub(super) seed: u64,
}

/// Runs the scenario `join` or `idle`. All peers connect and announce, and should discover each other once. Then, with
/// `chatter`, each peer sends an offer to a random other member every `interval`. Without `chatter`, all peers stay
/// silent.
pub(super) async fn join(swarm: &Rc<Swarm>, pace: Pace, chatter: bool, progress: &Progress) -> Outcome {
    let mut outcome = assemble(swarm, pace, progress).await;
    outcome.expected_discoveries = Some(swarm.expected());
    if swarm.connected() == 0 {
        return outcome;
    }
    let begin = Instant::now();
    progress.run(if chatter { "talking" } else { "waiting" }, pace.duration);
    if chatter && !pace.interval.is_zero() {
        talk(swarm, pace, begin + pace.duration).await;
    } else {
        rest(swarm, begin + pace.duration).await;
    }
    outcome.relays = swarm.tally.borrow().delivered;
    outcome.measured_secs = begin.elapsed().as_secs_f64();
    settle(swarm, || swarm.is_exact()).await;
    outcome
}

/// Sends one offer per peer and interval, spread evenly over the interval.
pub(super) async fn talk(swarm: &Swarm, pace: Pace, until: Instant) {
    let mut rng = Rng::new(pace.seed ^ 1);
    let begin = Instant::now();
    let mut turns = 0u64;
    while Instant::now() < until && swarm.connected() > 0 {
        let due = begin.elapsed().as_secs_f64() / pace.interval.as_secs_f64() * swarm.seats.len() as f64;
        while (turns as f64) < due {
            let peer = (turns % swarm.seats.len() as u64) as usize;
            turns += 1;
            let Place { network, slot } = swarm.plan.place(peer);
            let others = swarm.plan.members(network) - 1;
            let other = rng.below(others as u64) as usize;
            let target = swarm.plan.peer_at(Place { network, slot: other + usize::from(other >= slot) });
            if others > 0 && swarm.seats[peer].member.get() && swarm.seats[target].member.get() {
                swarm.signal(peer, target, "offer");
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Pairs send offers and answers back and forth. Each pair has `in_flight` signals under way at a time.
pub(super) async fn relay(swarm: &Rc<Swarm>, pace: Pace, progress: &Progress) -> Outcome {
    let mut outcome = assemble(swarm, pace, progress).await;
    outcome.expected_discoveries = Some(swarm.expected());
    if swarm.connected() == 0 {
        return outcome;
    }
    let begin = Instant::now();
    progress.run("relaying", pace.duration);
    swarm.bouncing.set(true);
    for peer in (0..swarm.seats.len()).step_by(2) {
        if swarm.seats[peer].member.get() && swarm.seats[partner(peer)].member.get() {
            (0..pace.in_flight).for_each(|_| _ = swarm.signal(peer, partner(peer), "offer"));
        }
    }
    rest(swarm, begin + pace.duration).await;
    swarm.bouncing.set(false);
    outcome.relays = swarm.tally.borrow().delivered;
    outcome.measured_secs = begin.elapsed().as_secs_f64();
    progress.phase("settling");
    settle(swarm, || swarm.is_exact()).await;
    outcome
}

/// All peers connect. In each round, all sockets are cut at once, and all peers reconnect at once with the same ids.
pub(super) async fn storm(swarm: &Rc<Swarm>, pace: Pace, progress: &Progress) -> Outcome {
    let mut outcome = assemble(swarm, pace, progress).await;
    if swarm.connected() == 0 {
        return outcome;
    }
    let begin = Instant::now();
    let peers: Vec<usize> = (0..swarm.seats.len()).filter(|&peer| swarm.seats[peer].member.get()).collect();
    progress.run("storming", pace.duration);
    loop {
        let reset = outcome.storms.len().is_multiple_of(2);
        let cut_at = Instant::now();
        peers.iter().for_each(|&peer| swarm.cut(peer, reset));
        let mut returns = JoinSet::new();
        for &peer in &peers {
            returns.spawn_local(come_back(swarm.clone(), peer, Rng::new(pace.seed ^ peer as u64)));
        }
        returns.join_all().await;
        let connected_ms = millis(cut_at.elapsed());
        let exact = settle(swarm, || swarm.is_exact()).await;
        let exact_ms = exact.then(|| millis(swarm.until_last_discovery(cut_at)));
        outcome.storms.push(Storm { cut: if reset { "reset" } else { "fin" }, connected_ms, exact_ms });
        swarm.compare_all();
        if exact_ms.is_none() || begin.elapsed() + pace.interval >= pace.duration {
            break;
        }
        tokio::time::sleep(pace.interval).await;
    }
    outcome.measured_secs = begin.elapsed().as_secs_f64();
    outcome
}

async fn come_back(swarm: Rc<Swarm>, peer: usize, mut rng: Rng) {
    if redial(&swarm, peer, &mut rng).await {
        swarm.announce(peer);
        swarm.enter(peer);
    }
}

/// Connects again and again until a session is open. Reports a violation if no session is open after 60 s, because
/// within this time a hub notices that the peer's old session is dead.
pub(super) async fn redial(swarm: &Rc<Swarm>, peer: usize, rng: &mut Rng) -> bool {
    const PATIENCE: Duration = Duration::from_secs(60);
    const LONGEST_PAUSE_MS: u64 = 2_000;
    let begin = Instant::now();
    let mut pause_ms = 50;
    while let Err(failure) = swarm.dial(peer).await {
        if begin.elapsed() > PATIENCE {
            let mut tally = swarm.tally.borrow_mut();
            tally.failed += 1;
            tally.violate(Check::NotBack, || format!("{}: {failure}", swarm.called(peer)));
            return false;
        }
        tokio::time::sleep(Duration::from_millis(pause_ms / 2 + rng.below(pause_ms))).await;
        pause_ms = (pause_ms * 2).min(LONGEST_PAUSE_MS);
    }
    true
}

/// All peers connect, announce, and discover each other.
pub(super) async fn assemble(swarm: &Rc<Swarm>, pace: Pace, progress: &Progress) -> Outcome {
    let begin = Instant::now();
    progress.connect();
    connect(swarm, pace.ramp, 0..swarm.seats.len()).await;
    let connect_ms = millis(begin.elapsed());
    progress.phase("discovering");
    let exact = settle(swarm, || swarm.is_exact()).await;
    let exact_ms = exact.then(|| millis(swarm.until_last_discovery(begin)).max(connect_ms));
    Outcome { connect_ms, exact_ms, ..Outcome::default() }
}

/// Connects and announces these peers. Failures are counted.
pub(super) async fn connect(swarm: &Rc<Swarm>, ramp: u32, peers: impl Iterator<Item = usize>) {
    let mut ticks = (ramp > 0).then(|| tokio::time::interval(Duration::from_secs(1) / ramp));
    let mut dials = JoinSet::new();
    for peer in peers {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        while dials.len() >= MAX_DIALS {
            dials.join_next().await;
        }
        let swarm = swarm.clone();
        dials.spawn_local(async move {
            if swarm.dial(peer).await.is_ok() {
                swarm.announce(peer);
                swarm.enter(peer);
            } else {
                swarm.tally.borrow_mut().failed += 1;
            }
        });
    }
    dials.join_all().await;
}

/// Waits until this time, or until no peer is connected.
async fn rest(swarm: &Swarm, until: Instant) {
    const LOOK: Duration = Duration::from_millis(200);
    while Instant::now() < until && swarm.connected() > 0 {
        tokio::time::sleep_until((Instant::now() + LOOK).min(until).into()).await;
    }
}

/// Waits until `done` returns true. Returns false if no message has arrived for [`QUIET`].
pub(super) async fn settle(swarm: &Swarm, done: impl Fn() -> bool) -> bool {
    let mut heard = swarm.heard();
    let mut quiet_since = Instant::now();
    while !done() {
        if heard != swarm.heard() {
            heard = swarm.heard();
            quiet_since = Instant::now();
        }
        if quiet_since.elapsed() > QUIET {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

/// Makes the last checks after the last message has arrived. Then all peers leave.
pub(super) async fn finish(swarm: &Rc<Swarm>, progress: &Progress) {
    progress.phase("checking");
    // A receipt may arrive after its signal.
    settle(swarm, || swarm.seats.iter().all(|seat| seat.unreceipted.borrow().is_empty())).await;
    swarm.compare_all();
    {
        let mut tally = swarm.tally.borrow_mut();
        let (sent, delivered) = (tally.sent, tally.delivered);
        for _ in delivered..sent {
            tally.violate(Check::SignalLost, || format!("{delivered} of {sent} signals arrived"));
        }
        for _ in sent..delivered {
            tally.violate(Check::SignalRepeated, || format!("{sent} signals sent, {delivered} arrived"));
        }
        for (peer, seat) in swarm.seats.iter().enumerate() {
            for number in seat.unreceipted.borrow().iter() {
                tally.violate(Check::ReceiptMissing, || format!("{}, signal {number}", swarm.called(peer)));
            }
        }
    }
    progress.phase("leaving");
    for seat in &swarm.seats {
        seat.state.set(Membership::Leaving);
    }
    let mut leaves = JoinSet::new();
    for peer in 0..swarm.seats.len() {
        let swarm = swarm.clone();
        leaves.spawn_local(async move { swarm.close(peer).await });
    }
    leaves.join_all().await;
}

pub(super) fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}
