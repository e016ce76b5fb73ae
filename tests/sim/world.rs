//! One hub and its clients, moved by chance: the next step is drawn, until there were enough; then all comes to rest.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proto::{
    CloseReason, ErrorCode, Input, MessageKind, PeerId, Router, RouterConfig, SessionId, ShardId, SignalKind, Template,
    limits,
};

use crate::heard::Heard;
use crate::io::{Cause, Phase, Post, Shard, Socket, Up};
use crate::oracle::{Net, Oracle, Sid, Signal};
use crate::plan::{Deed, Plan, Saying};
use crate::rng::Rng;
use crate::saboteur::{Fault, Saboteur};

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    pub(crate) now: Duration,
    pub(crate) shards: Vec<Shard>,
    /// Letters under way, first in first out from each shard to each other.
    pub(crate) mail: Vec<VecDeque<Post>>,
    pub(crate) oracle: Oracle,
    pub(crate) saboteur: Saboteur,
    pub(crate) trace: Option<String>,
    pub(crate) templates: BTreeMap<usize, (Arc<Template>, Rc<Heard>)>,
    pub(crate) templates_sent: usize,
    opened: u32,
    versions: u64,
}

/// Time and again is enough: a world that still moves after so many rounds has found a way to move for ever.
const MOST_ROUNDS: usize = 10_000;

impl World {
    pub(crate) fn new(seed: u64, fault: Option<Fault>, traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        let router = |shard| {
            let config = RouterConfig { shard: ShardId(shard), ..plan.config.clone() };
            Shard::new(Router::new(config).with_roster_chunk(plan.roster_chunk))
        };
        let shards = plan.config.shards;
        let limits = (plan.config.max_networks_per_peer, plan.config.max_peers_per_network);
        Self {
            now: Duration::from_secs(1),
            shards: (0..shards).map(router).collect(),
            mail: (0..shards * shards).map(|_| VecDeque::new()).collect(),
            oracle: Oracle::new(&plan.networks, shards, limits.0, limits.1),
            saboteur: Saboteur::new(fault, seed),
            trace: traced.then(|| format!("{plan:?}\n")),
            templates: BTreeMap::new(),
            templates_sent: 0,
            opened: 0,
            versions: 0,
            plan,
            rng,
        }
    }

    /// Lets the day happen. Afterwards the oracle has complained, or it has not.
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

    fn sockets(&self) -> impl Iterator<Item = &Socket> {
        self.shards.iter().flat_map(|shard| shard.slots.iter().flatten())
    }

    /// One of the sockets that are so.
    fn any(&mut self, so: impl Fn(&Socket) -> bool) -> Option<Sid> {
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

    // --- what clients do ---------------------------------------------------------------------------------------

    fn open(&mut self) {
        let peer = *self.rng.pick(&self.plan.peers);
        let shard = self.home(&peer);
        let seat = self.sockets().count() < self.plan.seats;
        let slots = &mut self.shards[usize::from(shard)].slots;
        let free = slots.iter().position(Option::is_none).unwrap_or(slots.len());
        self.opened += 1;
        let sid = Sid { shard, session: SessionId { slot: free as u32, generation: self.opened } };
        let socket = Socket {
            sid,
            peer,
            phase: Phase::Pending,
            queue: VecDeque::new(),
            uplink: VecDeque::new(),
            backlog: false,
            deaf: false,
            answers: !self.rng.one_in(3),
            linger_until: None,
            sayings: 0,
            forgotten: false,
        };
        if free == slots.len() {
            slots.push(None);
        }
        slots[free] = Some(socket);
        self.oracle.opened(sid, peer, seat);
        self.input(shard, Input::Opened { session: sid.session, peer, seat }, Cause::default());
    }

    fn say(&mut self, sid: Sid) {
        if self.oracle.signals.is_flooder(sid) {
            return;
        }
        let up = match self.plan.saying(&mut self.rng) {
            Saying::Announce => self.announcement(),
            Saying::Goodbye => self.goodbye(),
            Saying::Signal => self.signal(sid),
            Saying::Nonsense => self.nonsense(),
            Saying::Close => Up::Close,
        };
        if let Some(socket) = self.socket(sid) {
            socket.sayings += 1;
            socket.uplink.push_back(up);
        }
    }

    fn network(&mut self) -> (Net, String) {
        let net = self.rng.below(self.plan.networks.len());
        (net, serde_json::to_string(self.plan.networks[net]).expect("a string"))
    }

    fn announcement(&mut self) -> Up {
        let (net, network) = self.network();
        self.versions += 1;
        let version = self.versions;
        let (extra, valid) = match self.rng.below(24) {
            0 => (format!(r#","deep":{}1{}"#, "[".repeat(64), "]".repeat(64)), false),
            1 => (format!(r#","long":"{}""#, "x".repeat(limits::MAX_ANNOUNCE_DATA_BYTES)), false),
            2 => (r#","peerId":"0000000000000000000000000000000000000000","isHub":true"#.to_owned(), true),
            3 => (r#","z":"\u00e9","a" : [ 1.0 ]"#.to_owned(), true),
            _ => (String::new(), true),
        };
        let forged = if self.rng.one_in(4) { r#""fromPeerId":"system","# } else { "" };
        let name = match self.plan.networks[net] {
            "global" if self.rng.one_in(2) => String::new(),
            _ => format!(r#""networkName":{network},"#),
        };
        let text = format!(r#"{{"type":"announce",{forged}{name}"data":{{"v":{version}{extra}}}}}"#);
        Up::Announce { text, net, version, valid }
    }

    fn goodbye(&mut self) -> Up {
        let (net, network) = self.network();
        let (name, only) = match self.rng.below(6) {
            0 | 1 => (format!(r#","networkName":{network}"#), Some(Some(net))),
            2 => (r#","networkName":"nowhere""#.to_owned(), Some(None)),
            3 => (r#","networkName":" ""#.to_owned(), None),
            _ => (String::new(), None),
        };
        let (data, valid) = match self.rng.below(8) {
            0 => (format!(r#","data":{}{}"#, "[".repeat(65), "]".repeat(65)), false),
            1 => (r#","data":{"peerId":"x","v":7}"#.to_owned(), true),
            _ => (String::new(), true),
        };
        Up::Goodbye { text: format!(r#"{{"type":"goodbye"{name}{data}}}"#), only, valid }
    }

    fn signal(&mut self, sid: Sid) -> Up {
        let number = self.oracle.signals.next_number();
        let sender = self.socket(sid).expect("only a client that is there says something").peer;
        let target = *self.rng.pick(&self.plan.peers);
        let kind = *self.rng.pick(&["offer", "answer", "ice-candidate"]);
        let mut signal = Signal::new(sid, sender, target, kind);
        let (net, network) = self.network();
        let name = match self.rng.below(12) {
            0 => {
                signal.network = "nowhere".to_owned();
                r#""networkName":"nowhere","#.to_owned()
            }
            1 => {
                signal.net = self.plan.networks.iter().position(|&name| name == "global");
                signal.network = "global".to_owned();
                r#""networkName":null,"#.to_owned()
            }
            _ => {
                signal.net = Some(net);
                signal.network = self.plan.networks[net].to_owned();
                format!(r#""networkName":{network},"#)
            }
        };
        let odd = self.rng.pick(&[
            "1",
            " { } ",
            r#""\u00e9\ud83d\ude00é\\\"""#,
            "12345678901234567890.5e-7",
            r#"{"a":1,"a":2}"#,
            "[ [\t1 ] ,null]",
            r#""v=0\r\no=- 1 2 IN IP4 127.0.0.1""#,
        ]);
        signal.data = format!(r#"{{"s":{number},"d":{odd}}}"#);
        let id = if self.rng.one_in(2) {
            signal.id = Some(format!("r{number}"));
            format!(r#","id":"r{number}""#)
        } else {
            String::new()
        };
        let to = if self.rng.one_in(8) { target.to_string().to_uppercase() } else { target.to_string() };
        let forged = if self.rng.one_in(8) { format!(r#""fromPeerId":"{target}","#) } else { String::new() };
        let data = &signal.data;
        let text = format!(r#"{{"type":"{kind}",{forged}"targetPeerId":"{to}",{name}"data":{data}{id}}}"#);
        self.oracle.signals.add(signal);
        Up::Signal { text, number }
    }

    fn nonsense(&mut self) -> Up {
        let peer = *self.rng.pick(&self.plan.peers);
        Up::Other(match self.rng.below(12) {
            0 => r#"{"type":"ping"}"#.to_owned(),
            1 => "{".to_owned(),
            2 => format!(r#"{{"type":"peer-discovered","data":{{"peerId":"{peer}","isHub":true,"v":1}}}}"#),
            3 => format!(r#"{{"type":"connection-rejected","targetPeerId":"{peer}"}}"#),
            4 => format!(r#"{{"type":"dance","targetPeerId":"{peer}","id":"x"}}"#),
            5 => r#"{"type":"offer","data":{"s":0},"id":"i"}"#.to_owned(),
            6 => format!(r#"{{"type":"offer","targetPeerId":"{peer}","data":1,"data":2}}"#),
            7 => format!(r#"["offer",{{"s":0}},"{peer}",null,null,null]"#),
            8 => return Up::NotText,
            9 if self.rng.one_in(4) => return Up::TooLarge,
            10 => {
                let pong = self.rng.next().to_be_bytes();
                return Up::Pong(pong.to_vec());
            }
            _ => (0..self.rng.below(20)).map(|_| char::from(self.rng.next() as u8)).collect(),
        })
    }

    /// More messages at once than the rate allows; sometimes for so long that the hub has enough of it.
    fn flood(&mut self, sid: Sid) {
        self.oracle.signals.floods(sid);
        let rounds = if self.rng.one_in(3) { 12 } else { 1 };
        for _ in 0..rounds {
            for _ in 0..self.rng.between(50, 300) {
                let up = if self.rng.one_in(4) { self.signal(sid) } else { self.nonsense() };
                let Some(socket) = self.socket(sid).filter(|socket| socket.phase == Phase::Open) else { return };
                socket.uplink.push_back(up);
                self.read(sid);
            }
            if rounds > 1 {
                self.wait(Duration::from_millis(950));
            }
        }
    }

    fn drain(&mut self, sid: Sid) {
        let session = sid.session;
        if self.rng.one_in(2) {
            let hubs = ["wss://hub.example".to_owned()];
            let input = Input::GoAway { session, reconnect_in: Duration::from_secs(1), hubs: &hubs };
            return self.input(sid.shard, input, Cause::default());
        }
        self.oracle.retires(sid);
        self.input(sid.shard, Input::Retire { session }, Cause::default());
    }

    /// What no I/O should do, and no router should mind.
    fn oddity(&mut self) {
        let shard = self.rng.below(self.shards.len()) as u16;
        let session = SessionId { slot: self.rng.below(6) as u32, generation: self.rng.below(50) as u32 };
        let known = self.any(|socket| socket.phase == Phase::Open);
        let stale = !self.sockets().any(|socket| socket.sid == Sid { shard, session });
        match (self.rng.below(7), known) {
            (0, Some(Sid { shard, session })) => self.input(shard, Input::Room { session }, Cause::default()),
            (1, _) if stale => {
                self.input(shard, Input::Message { session, text: r#"{"type":"announce"}"# }, Cause::default());
            }
            (2, _) if stale => self.input(shard, Input::TooLarge { session }, Cause::default()),
            (3, _) if stale => {
                let reason = CloseReason::ConnectionLost;
                self.input(shard, Input::Closed { session, reason }, Cause::default());
            }
            (4, _) if stale => self.input(shard, Input::Room { session }, Cause::default()),
            (5, _) if stale => self.input(shard, Input::Retire { session }, Cause::default()),
            _ => self.timeout(shard),
        }
    }

    // --- time --------------------------------------------------------------------------------------------------

    fn wait(&mut self, span: Duration) {
        let until = self.now + span;
        while self.now < until {
            self.tick((until - self.now).min(limits::TICK / 2));
        }
    }

    fn tick(&mut self, span: Duration) {
        self.now += span;
        self.oracle.now = self.now;
        for shard in 0..self.shards.len() {
            // A timer may be late by a tick.
            let late = Duration::from_millis(self.rng.below(100) as u64).min(limits::TICK);
            if self.shards[shard].router.poll_timeout().is_some_and(|at| at + late <= self.now) {
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

    /// Nobody says anything new; everything under way arrives.
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
                let timers = self.shards.iter().filter_map(|shard| shard.router.poll_timeout());
                let lingers = self.sockets().filter_map(|socket| socket.linger_until);
                let Some(next) = timers.chain(lingers).min() else { return };
                self.wait(next.saturating_sub(self.now).max(Duration::from_millis(1)));
            }
        }
        self.oracle.complain("there is no rest".to_owned());
    }

    /// What the routers have counted is what has happened.
    fn count(&mut self) {
        let mut wrong = Vec::new();
        let (mut signals, mut ended, mut withheld, mut errors, mut takeovers) = (0, 0, 0, 0, [0; 2]);
        for (index, shard) in self.shards.iter_mut().enumerate() {
            let stats = shard.router.stats();
            let kinds = [SignalKind::Offer, SignalKind::Answer, SignalKind::IceCandidate];
            signals += kinds.iter().map(|&kind| stats.messages_in[MessageKind::Signal(kind).index()]).sum::<u64>();
            ended += stats.delivered + stats.failed.iter().sum::<u64>();
            withheld += stats.errors_withheld;
            if stats.open_receipts != 0 {
                wrong.push(format!("{} receipts are open", stats.open_receipts));
            }
            if stats.failed[ErrorCode::Unreachable as usize] != 0 {
                wrong.push("a signal was unreachable in one hub".to_owned());
            }
            let live = self.oracle.live_on(index as u16);
            if stats.peers != live as u64 || stats.members != self.oracle.members() as u64 {
                wrong.push(format!("gauges: {} peers for {live}, {} members", stats.peers, stats.members));
            }
            if stats.networks != self.oracle.inhabited().len() as u64 {
                wrong.push(format!("gauges: {} networks", stats.networks));
            }
            takeovers[0] += stats.takeovers[0];
            takeovers[1] += stats.takeovers[1];
            errors += stats.errors.iter().sum::<u64>();
            let mut listed: Vec<_> = shard.router.networks().map(|(name, size)| (name.as_str(), size)).collect();
            listed.sort_unstable();
            let inhabited = self.oracle.inhabited();
            if !listed.iter().copied().eq(inhabited.iter().map(|(name, size)| (*name, *size))) {
                wrong.push(format!("networks are listed as {listed:?}, and are {inhabited:?}"));
            }
        }
        if signals != ended {
            wrong.push(format!("{signals} signals have {ended} outcomes"));
        }
        if (takeovers, errors) != (self.oracle.takeovers, self.oracle.errors) {
            wrong.push(format!("{takeovers:?} takeovers for {:?}, {errors} errors", self.oracle.takeovers));
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
