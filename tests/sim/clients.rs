//! Random actions of clients and of the I/O code.

use std::collections::VecDeque;
use std::time::Duration;

use proto::{CloseReason, Grant, Input, Lineage, Order, PeerId, Rights, SessionId, limits};

use crate::io::{Cause, Phase, Socket, Up};
use crate::oracle::{Granted, Net, Sid, Signal};
use crate::plan::Saying;
use crate::saboteur::Fault;
use crate::world::World;

impl World {
    pub(crate) fn open(&mut self) {
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
        let resume = self.resume(&peer);
        let owner = self.plan.has_grants && self.rng.one_in(5);
        let rights = (self.plan.has_grants && self.rng.one_in(2)).then(|| self.rights());
        let grant = rights.as_ref().map(|rights| self.grant(rights));
        self.oracle.opened(sid, peer, seat, (resume, owner), rights);
        let grant = grant.filter(|_| !self.saboteur.strikes(Fault::ForgetsGrant));
        let session = sid.session;
        self.input(shard, Input::Opened { session, peer, seat, resume, owner, grant }, Cause::default());
    }

    /// The random rights of a client.
    pub(crate) fn rights(&mut self) -> Granted {
        let mut right = || !self.rng.one_in(3);
        let networks = self.plan.networks.iter();
        let some = networks.map(|_| Rights { join: right(), observe: right(), signal: right() }).collect();
        let ends = self.rng.one_in(4).then(|| self.now + Duration::from_millis(self.rng.below(90_000) as u64));
        Granted { rights: some, ends }
    }

    pub(crate) fn grant(&self, granted: &Granted) -> Box<Grant> {
        let mut grant = Grant::nowhere();
        for (name, rights) in self.plan.networks.iter().zip(&granted.rights) {
            grant.allow(name, *rights).expect("few networks");
        }
        let wall = self.time().wall_ms - self.now.as_millis() as u64;
        Box::new(match granted.ends {
            Some(ends) => grant.until(wall + ends.as_millis() as u64),
            None => grant,
        })
    }

    /// The lineage of the resume secret that a client sends. Most clients send no secret or the last secret of their
    /// id. Some clients send an earlier secret, or a secret of another id.
    fn resume(&mut self, peer: &PeerId) -> Option<Lineage> {
        if self.rng.one_in(2) {
            return None;
        }
        let whose = if self.rng.one_in(10) { *self.rng.pick(&self.plan.peers) } else { *peer };
        let secrets = self.secrets.get(&whose)?;
        let secret = if self.rng.one_in(3) { self.rng.pick(secrets) } else { secrets.last()? };
        self.plan.config.resume_keys.check(peer, secret).ok()
    }

    pub(crate) fn say(&mut self, sid: Sid) {
        if self.oracle.signals.is_flooder(sid) {
            return;
        }
        let said = match self.plan.saying(&mut self.rng) {
            Saying::Announce => vec![self.announcement()],
            Saying::Goodbye => vec![self.goodbye()],
            Saying::Signal => vec![self.signal(sid)],
            Saying::Parting if self.rng.one_in(2) => vec![self.signal(sid), self.goodbye()],
            Saying::Parting => vec![self.announcement(), self.signal(sid), Up::Close],
            Saying::Nonsense => vec![self.nonsense()],
            Saying::Close => vec![Up::Close],
        };
        if let Some(socket) = self.socket(sid) {
            socket.sayings += said.len();
            socket.uplink.extend(said);
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
            // A blank name means `global`, as in an announcement.
            3 => {
                let global = self.plan.networks.iter().position(|&name| name == "global");
                (r#","networkName":" ""#.to_owned(), Some(global))
            }
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
        let sender = self.socket(sid).expect("only connected clients send").peer;
        let mut target = *self.rng.pick(&self.plan.peers);
        let (mut net, mut network) = self.network();
        // Most targets are peers that the sender has discovered, because signals to other peers rarely arrive.
        let acquaintances = self.oracle.acquaintances(sid);
        if !acquaintances.is_empty() && !self.rng.one_in(4) {
            (net, target) = *self.rng.pick(&acquaintances);
            network = serde_json::to_string(self.plan.networks[net]).expect("a string");
        }
        let kind = *self.rng.pick(&["offer", "answer", "ice-candidate"]);
        let mut signal = Signal::new(sid, sender, target, kind);
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
        Up::Other(match self.rng.below(if self.plan.has_grants { 13 } else { 12 }) {
            0 => r#"{"type":"ping"}"#.to_owned(),
            1 => "{".to_owned(),
            2 => format!(r#"{{"type":"peer-discovered","data":{{"peerId":"{peer}","isHub":true,"v":1}}}}"#),
            3 => format!(r#"{{"type":"connection-rejected","targetPeerId":"{peer}"}}"#),
            4 => format!(r#"{{"type":"dance","targetPeerId":"{peer}","id":"x"}}"#),
            5 => r#"{"type":"offer","data":{"s":0},"id":"i"}"#.to_owned(),
            6 => format!(r#"{{"type":"offer","targetPeerId":"{peer}","data":1,"data":2}}"#),
            7 => format!(r#"["offer",{{"s":0}},"{peer}",null,null,null]"#),
            8 => return Up::NotText,
            12 => r#"{"type":"auth","data":{"token":"t"}}"#.to_owned(),
            9 if self.rng.one_in(4) => return Up::TooLarge,
            10 => {
                let pong = self.rng.next().to_be_bytes();
                return Up::Pong(pong.to_vec());
            }
            _ => (0..self.rng.below(20)).map(|_| char::from(self.rng.next() as u8)).collect(),
        })
    }

    /// Sends more messages at once than the rate allows. Some clients continue until the hub closes the session.
    pub(crate) fn flood(&mut self, sid: Sid) {
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

    pub(crate) fn drain(&mut self, sid: Sid) {
        let session = sid.session;
        if self.rng.one_in(2) {
            let hubs = ["wss://hub.example".to_owned()];
            let (close_in, reconnect_in) = (Duration::from_secs(1), Duration::ZERO);
            let input = Input::GoAway { session, close_in, reconnect_in, hubs: &hubs };
            return self.input(sid.shard, input, Cause::default());
        }
        if self.rng.one_in(3)
            && let Some(peer) = self.socket(sid).map(|socket| socket.peer)
        {
            self.oracle.kicks(peer);
            return self.input(
                sid.shard,
                Input::Order(Order::Kick { peer, network: None, out_for: None }),
                Cause::default(),
            );
        }
        self.oracle.retires(sid);
        self.input(sid.shard, Input::Retire { session }, Cause::default());
    }

    /// Gives a router an input that correct I/O code never gives. Such inputs must not harm the router.
    pub(crate) fn oddity(&mut self) {
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
}
