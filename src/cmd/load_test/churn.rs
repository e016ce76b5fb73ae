//! The churn scenario. Some peers stay and observe. All other peers join and leave repeatedly, in five ways.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::message;
use super::plan::Rng;
use super::progress::Progress;
use super::scenario::{Outcome, Pace, connect, millis, redial, settle};
use super::swarm::{Membership, Swarm};
use super::tally::Check;

/// Maximum time from a peer's announcement until it has discovered all observers, and from a ping until its answer.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);

/// The ways to leave.
#[derive(Clone, Copy, Debug)]
enum Departure {
    Close,
    Fin,
    Goodbye,
    GoodbyeThenClose,
    Reset,
}

impl Departure {
    const ALL: [Self; 5] = [Self::Close, Self::Fin, Self::Goodbye, Self::GoodbyeThenClose, Self::Reset];
}

/// Runs the scenario. Each observer must receive each join and each leave exactly once. The joins and leaves of one
/// peer must alternate.
pub(super) async fn churn(swarm: &Rc<Swarm>, pace: Pace, progress: &Progress) -> Outcome {
    let begin = Instant::now();
    progress.connect();
    connect(swarm, pace.ramp, (0..swarm.seats.len()).filter(|&peer| swarm.is_observer(peer))).await;
    let connect_ms = millis(begin.elapsed());
    let exact = settle(swarm, || swarm.is_exact()).await;
    let exact_ms = exact.then(|| millis(swarm.until_last_discovery(begin)));

    let begin = Instant::now();
    progress.run("churning", pace.duration);
    let joins: Rc<Vec<Cell<u64>>> = Rc::new(vec![Cell::new(0); swarm.plan.networks()]);
    let mut churners = JoinSet::new();
    for peer in (0..swarm.seats.len()).filter(|&peer| !swarm.is_observer(peer)) {
        let rng = Rng::new(pace.seed ^ (peer as u64) << 1);
        let churner = Churner { swarm: swarm.clone(), peer, rng, until: begin + pace.duration, joins: joins.clone() };
        churners.spawn_local(churner.run(pace.interval));
    }
    churners.join_all().await;
    let measured_secs = begin.elapsed().as_secs_f64();

    progress.phase("settling");
    settle(swarm, || swarm.is_exact()).await;
    let expected = check_observers(swarm, &joins);
    Outcome { connect_ms, exact_ms, measured_secs, expected_discoveries: Some(expected), ..Outcome::default() }
}

/// Returns the number of discoveries that observers should have received. Records a violation for each observer that
/// received more or fewer discoveries.
fn check_observers(swarm: &Swarm, joins: &[Cell<u64>]) -> u64 {
    let mut all = 0;
    for (peer, seat) in swarm.seats.iter().enumerate() {
        if swarm.is_observer(peer) && seat.member.get() {
            let network = swarm.plan.place(peer).network;
            let other_observers = swarm.present_observers(network) - 1;
            let expected = other_observers as u64 + joins[network].get();
            let heard = seat.ledger.borrow().discoveries();
            if heard != expected {
                swarm
                    .tally
                    .borrow_mut()
                    .violate(Check::NotTold, || format!("{} received {heard} of {expected} joins", swarm.called(peer)));
            }
            all += expected;
        }
    }
    all
}

struct Churner {
    swarm: Rc<Swarm>,
    peer: usize,
    rng: Rng,
    until: Instant,
    joins: Rc<Vec<Cell<u64>>>,
}

impl Churner {
    async fn run(mut self, interval: Duration) {
        loop {
            if !self.pause(interval).await || !self.join().await || !self.pause(interval).await {
                return;
            }
            let departure = Departure::ALL[self.rng.below(Departure::ALL.len() as u64) as usize];
            self.leave(departure).await;
        }
    }

    /// Waits for a random part of the interval. Returns false when the time of the run is over.
    async fn pause(&mut self, interval: Duration) -> bool {
        let pause = Duration::from_micros(self.rng.below(interval.as_micros() as u64));
        tokio::time::sleep_until((Instant::now() + pause).min(self.until).into()).await;
        Instant::now() < self.until
    }

    /// Connects if necessary, and announces. The join counts once this peer has discovered all observers, because this
    /// proves that the hub has read the announcement.
    async fn join(&mut self) -> bool {
        let swarm = &self.swarm;
        let seat = &swarm.seats[self.peer];
        if seat.connection.borrow().is_none() && !redial(swarm, self.peer, &mut self.rng).await {
            return false;
        }
        swarm.announce(self.peer);
        let told = self.wait_until(|| seat.ledger.borrow().knows_watched()).await;
        if !told {
            swarm.tally.borrow_mut().violate(Check::NotJoined, || swarm.called(self.peer));
            swarm.cut(self.peer, true);
            return false;
        }
        swarm.enter(self.peer);
        self.joins[swarm.plan.place(self.peer).network].update(|joins| joins + 1);
        true
    }

    async fn leave(&mut self, departure: Departure) {
        let (swarm, peer) = (&self.swarm, self.peer);
        match departure {
            Departure::Close => swarm.close(peer).await,
            Departure::Fin => swarm.cut(peer, false),
            Departure::Reset => swarm.cut(peer, true),
            Departure::GoodbyeThenClose => {
                self.say_goodbye();
                swarm.close(peer).await;
            }
            Departure::Goodbye => {
                self.say_goodbye();
                // The hub answers the ping after everything that it sent before it read the goodbye. After this answer,
                // the hub must not send any event to the peer.
                let seat = &swarm.seats[peer];
                let pongs = seat.app_pongs.get();
                swarm.say(peer, b"{\"type\":\"ping\"}");
                if self.wait_until(|| seat.app_pongs.get() > pongs).await {
                    swarm.leave(peer, Membership::Outside);
                } else {
                    swarm.cut(peer, true);
                }
            }
        }
    }

    fn say_goodbye(&self) {
        let goodbye = message::membership("goodbye", self.swarm.plan.network_name(self.peer));
        self.swarm.say(self.peer, goodbye.as_bytes());
        self.swarm.leave(self.peer, Membership::Leaving);
    }

    /// Returns false if the condition did not become true in time, or if the session ended first.
    async fn wait_until(&self, happened: impl Fn() -> bool) -> bool {
        let seat = &self.swarm.seats[self.peer];
        let wait = async {
            while !happened() {
                if seat.connection.borrow().is_none() {
                    return false;
                }
                seat.changed.notified().await;
            }
            true
        };
        tokio::time::timeout(JOIN_TIMEOUT, wait).await.unwrap_or(false)
    }
}
