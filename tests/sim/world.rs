//! One hub and its clients. A run takes a number of random steps, and then continues without new messages until nothing
//! is in flight.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proto::{
    CloseReason, ErrorCode, MessageKind, PeerId, ResumeOutcome, Router, RouterConfig, ShardId, SignalKind, Template,
    limits,
};

use crate::heard::Heard;
use crate::io::{Phase, Post, Shard, Socket};
use crate::oracle::{Oracle, Sid};
use crate::plan::{Deed, Plan};
use crate::rng::Rng;
use crate::saboteur::{Fault, Saboteur};

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    pub(crate) now: Duration,
    pub(crate) shards: Vec<Shard>,
    /// Letters in flight, one queue for each pair of shards.
    pub(crate) mail: Vec<Post>,
    pub(crate) oracle: Oracle,
    pub(crate) saboteur: Saboteur,
    pub(crate) trace: Option<String>,
    pub(crate) templates: BTreeMap<usize, (Arc<Template>, Rc<Heard>)>,
    pub(crate) templates_sent: usize,
    pub(crate) opened: u32,
    /// All resume secrets that clients have received.
    pub(crate) secrets: BTreeMap<PeerId, Vec<String>>,
    pub(crate) versions: u64,
}

/// Maximum number of rounds of deliveries after which a run must be at rest.
const MOST_ROUNDS: usize = 10_000;

impl World {
    pub(crate) fn new(seed: u64, fault: Option<Fault>, traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        let router = |shard| {
            let config = RouterConfig { shard: ShardId(shard), ..plan.config.clone() };
            Shard::new(Router::new(config))
        };
        let shards = plan.config.shards;
        let limits = (plan.config.max_networks_per_peer, plan.config.max_peers_per_network);
        Self {
            now: Duration::from_secs(1),
            shards: (0..shards).map(router).collect(),
            mail: (0..shards * shards).map(|_| Post::default()).collect(),
            oracle: Oracle::new(&plan.networks, shards, limits.0, limits.1),
            saboteur: Saboteur::new(fault, seed),
            trace: traced.then(|| format!("{plan:?}\n")),
            templates: BTreeMap::new(),
            templates_sent: 0,
            opened: 0,
            secrets: BTreeMap::new(),
            versions: 0,
            plan,
            rng,
        }
    }

    /// Runs the simulation. If an invariant is violated, the oracle has a complaint afterwards.
    pub(crate) fn run(&mut self) {
        self.oracle.now = self.now;
        for _ in 0..self.plan.peers.len() * 3 / 4 {
            self.open();
        }
        for _ in 0..self.plan.steps {
            let deed = self.plan.deed(&mut self.rng);
            self.step(deed);
            if !self.oracle.complaints.is_empty() {
                return;
            }
        }
        self.rest();
        if self.oracle.complaints.is_empty() {
            self.oracle.at_rest();
            self.count();
        }
    }

    pub(crate) fn home(&self, peer: &PeerId) -> u16 {
        ShardId::home(peer, self.plan.config.shards, self.plan.config.keys).0
    }

    pub(crate) fn sockets(&self) -> impl Iterator<Item = &Socket> {
        self.shards.iter().flat_map(|shard| shard.slots.iter().flatten())
    }

    /// A socket that satisfies a condition.
    pub(crate) fn any(&mut self, so: impl Fn(&Socket) -> bool) -> Option<Sid> {
        let those: Vec<Sid> = self.sockets().filter(|socket| so(socket)).map(|socket| socket.sid).collect();
        (!those.is_empty()).then(|| *self.rng.pick(&those))
    }

    fn step(&mut self, deed: Deed) {
        match deed {
            Deed::Open => self.open(),
            Deed::Say => {
                let most = self.plan.sayings_per_session;
                if let Some(sid) = self.any(|s| !matches!(s.phase, Phase::Closing(_)) && s.sayings < most) {
                    self.say(sid);
                }
            }
            Deed::Read => {
                if let Some(sid) = self.any(can_be_read) {
                    for _ in 0..self.rng.between(1, 4) {
                        self.read(sid);
                    }
                }
            }
            Deed::Post => {
                let full: Vec<usize> = (0..self.mail.len()).filter(|&at| !self.mail[at].is_empty()).collect();
                if !full.is_empty() {
                    let at = *self.rng.pick(&full);
                    for _ in 0..self.rng.between(1, 5) {
                        self.deliver(at);
                    }
                }
            }
            Deed::Write => {
                if let Some(sid) = self.any(can_be_written) {
                    for _ in 0..self.rng.between(1, 12) {
                        self.write(sid);
                    }
                    self.forget_if_done(sid);
                }
            }
            Deed::Room => {
                let low = self.plan.low_water;
                if let Some(sid) = self.any(|socket| has_room(socket, low)) {
                    self.room(sid);
                }
            }
            Deed::Lose => {
                if let Some(sid) = self.any(|_| true) {
                    self.end(sid, CloseReason::ConnectionLost);
                    if self.rng.one_in(2) {
                        self.remove(sid);
                    }
                }
            }
            Deed::Hang => {
                if let Some(sid) = self.any(|_| true)
                    && let Some(socket) = self.socket(sid)
                {
                    socket.deaf = !socket.deaf;
                }
            }
            Deed::Wait => {
                let ms = self.rng.below(60);
                self.wait(Duration::from_millis(ms as u64));
            }
            Deed::WaitLong => {
                let ms = self.rng.between(300, 3000);
                self.wait(Duration::from_millis(ms as u64));
            }
            Deed::Drain => {
                if let Some(sid) = self.any(|socket| !matches!(socket.phase, Phase::Closing(_))) {
                    self.drain(sid);
                }
            }
            Deed::Oddity => self.oddity(),
            Deed::Flood => {
                if let Some(sid) = self.any(|socket| socket.phase == Phase::Open) {
                    self.flood(sid);
                }
            }
        }
    }

    // --- time --------------------------------------------------------------------------------------------------

    pub(crate) fn wait(&mut self, span: Duration) {
        let until = self.now + span;
        while self.now < until {
            self.tick((until - self.now).min(limits::TICK / 2));
        }
    }

    fn tick(&mut self, span: Duration) {
        self.now += span;
        self.oracle.now = self.now;
        for shard in 0..self.shards.len() {
            // A timer may fire up to one tick late.
            let late = Duration::from_millis(self.rng.below(100) as u64).min(limits::TICK);
            // What does not fit into a turn is done in the next turns, as a shard does it, without another delay.
            while self.shards[shard].router.poll_timeout().is_some_and(|at| at + late <= self.now) {
                self.timeout(shard as u16);
            }
        }
        let over: Vec<Sid> = self.sockets().filter(|s| s.linger_until <= Some(self.now)).map(|s| s.sid).collect();
        for sid in over {
            if self.socket(sid).is_some_and(|socket| socket.linger_until.is_some()) {
                self.end(sid, CloseReason::Draining);
                self.remove(sid);
            }
        }
    }

    fn forget_if_done(&mut self, sid: Sid) {
        if self.socket(sid).is_some_and(|s| matches!(s.phase, Phase::Closing(_)) && s.queue.is_empty()) {
            self.remove(sid);
        }
    }

    /// Delivers all messages and letters in flight, without new actions of clients.
    fn rest(&mut self) {
        self.note(|| "rest".to_owned());
        for _ in 0..MOST_ROUNDS {
            if !self.oracle.complaints.is_empty() {
                return;
            }
            let mut moved = false;
            for at in 0..self.mail.len() {
                moved |= !self.mail[at].is_empty();
                self.deliver(at);
            }
            let all: Vec<Sid> = self.sockets().map(|socket| socket.sid).collect();
            for sid in all {
                let low = self.plan.low_water;
                let Some(socket) = self.socket(sid) else { continue };
                socket.deaf = false;
                if can_be_read(socket) {
                    moved |= self.read(sid);
                }
                moved |= self.write(sid);
                if self.socket(sid).is_some_and(|socket| has_room(socket, low)) {
                    moved = true;
                    self.room(sid);
                }
                self.forget_if_done(sid);
            }
            if !moved {
                self.oracle.nothing_moves();
                let timers = self.shards.iter().filter_map(|shard| shard.router.poll_timeout());
                let lingers = self.sockets().filter_map(|socket| socket.linger_until);
                let Some(next) = timers.chain(lingers).min() else { return };
                self.wait(next.saturating_sub(self.now).max(Duration::from_millis(1)));
            }
        }
        self.oracle.complain("the run does not come to rest".to_owned());
    }

    /// Checks that the routers' counters match the events.
    fn count(&mut self) {
        let mut wrong = Vec::new();
        let mut resumes = [0; ResumeOutcome::ALL.len()];
        let (mut signals, mut ended, mut withheld, mut errors, mut takeovers, mut owners) = (0, 0, 0, 0, [0; 2], 0);
        for (index, shard) in self.shards.iter_mut().enumerate() {
            let stats = shard.router.stats();
            let kinds = [SignalKind::Offer, SignalKind::Answer, SignalKind::IceCandidate];
            signals += kinds.iter().map(|&kind| stats.messages_in[MessageKind::Signal(kind).index()]).sum::<u64>();
            ended += stats.outcomes();
            withheld += stats.errors_withheld;
            if stats.open_receipts != 0 {
                wrong.push(format!("{} receipts are open", stats.open_receipts));
            }
            if stats.failed[ErrorCode::Unreachable as usize] != 0 {
                wrong.push("a signal was unreachable in one hub".to_owned());
            }
            let live = self.oracle.live_on(index as u16);
            if stats.peers != live as u64 || stats.members != self.oracle.members() as u64 {
                wrong.push(format!(
                    "the gauges show {} peers and {} members instead of {live} and {}",
                    stats.peers,
                    stats.members,
                    self.oracle.members()
                ));
            }
            if stats.networks != self.oracle.inhabited().len() as u64 {
                wrong.push(format!("gauges: {} networks", stats.networks));
            }
            takeovers[0] += stats.takeovers[0];
            takeovers[1] += stats.takeovers[1];
            owners += stats.owner_takeovers;
            resumes.iter_mut().zip(stats.resumes).for_each(|(sum, n)| *sum += n);
            errors += stats.errors.iter().sum::<u64>();
            let mut listed: Vec<_> = shard.router.networks().map(|(name, size)| (name.as_str(), size)).collect();
            listed.sort_unstable();
            let inhabited = self.oracle.inhabited();
            if !listed.iter().copied().eq(inhabited.iter().map(|(name, size)| (*name, *size))) {
                wrong.push(format!("networks are listed as {listed:?} instead of {inhabited:?}"));
            }
        }
        if signals != ended {
            wrong.push(format!("{signals} signals have {ended} outcomes"));
        }
        if (takeovers, errors) != (self.oracle.takeovers, self.oracle.errors) {
            wrong.push(format!("{takeovers:?} takeovers instead of {:?}, and {errors} errors", self.oracle.takeovers));
        }
        if owners != self.oracle.owners {
            wrong.push(format!("{owners} takeovers of owners instead of {}", self.oracle.owners));
        }
        if resumes != self.oracle.resumes {
            wrong.push(format!("{resumes:?} resumes instead of {:?}", self.oracle.resumes));
        }
        if withheld == 0 {
            wrong.extend(self.oracle.signals.senders_know());
        }
        wrong.into_iter().for_each(|what| self.oracle.complain(what));
    }
}

fn can_be_read(socket: &Socket) -> bool {
    matches!(socket.phase, Phase::Open | Phase::Retiring) && !socket.uplink.is_empty()
}

fn can_be_written(socket: &Socket) -> bool {
    !socket.deaf && (!socket.queue.is_empty() || matches!(socket.phase, Phase::Closing(_)))
}

fn has_room(socket: &Socket, low_water: usize) -> bool {
    socket.phase == Phase::Open && socket.backlog && !socket.forgotten && socket.queue.len() < low_water
}
