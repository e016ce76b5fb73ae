//! Clients, and the sockets between them and their hubs.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proto::{CloseReason, Frame, Input, Lineage, Origin, PeerId, SessionId, Template, limits};

use super::agenda::Event;
use super::presence::View;
use super::world::World;
use crate::heard::{self, Heard};
use crate::oracle::Net;

/// A session of a client, with both ends of its connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) peer: PeerId,
    pub(crate) hub: usize,
    pub(crate) life: usize,
    pub(crate) shard: usize,
    pub(crate) session: SessionId,
    pub(crate) phase: Phase,
    /// Whether the client answers pings.
    pub(crate) answers: bool,
    /// Whether the connection is lost. The hub may not know that yet.
    pub(crate) lost: bool,
    queue: VecDeque<Queued>,
    backlog: bool,
    pub(crate) opened: Duration,
    /// The lineage of the resume secret that the client sent when it connected.
    pub(crate) resume: Option<Lineage>,
    /// The lineage of the resume secret that the client has received.
    pub(crate) lineage: Option<Lineage>,
    /// Time at which the session ended, and time until which other peers may still consider the client present.
    pub(crate) ended: Option<(Duration, Duration)>,
    /// The client's view of each network of which it is a member.
    pub(crate) views: BTreeMap<Net, View>,
    /// The client's latest announcement in each network.
    pub(crate) said: BTreeMap<Net, u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Pending,
    Open,
    /// The session drains, but its messages are still read.
    Retiring,
    Ended,
}

#[derive(Debug)]
enum Queued {
    Frame(Option<(Origin, usize)>),
    Ping([u8; 8]),
}

/// An action of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Saying {
    Announce,
    Goodbye,
    Signal,
    /// A signal to a peer that the client has just discovered.
    Greeting(PeerId, Net),
    /// Several signals to one target at once.
    Burst,
    /// A signal, immediately followed by the sender's leave.
    Parting,
    /// A `discover` message.
    Discover,
    Close,
}

/// Signals whose frames the target's socket did not accept. The router gets them back.
pub(crate) type Undelivered = Vec<(Origin, PeerId, usize, CloseReason)>;

impl Client {
    /// The number of this client among all clients of the run.
    pub(crate) fn number(&self) -> usize {
        self.session.generation as usize
    }
}

impl World {
    /// The client that has this session.
    fn client(&self, session: SessionId) -> usize {
        session.generation as usize
    }

    /// The clients that satisfy a condition.
    pub(crate) fn those(&self, so: impl Fn(&Client) -> bool) -> Vec<usize> {
        (0..self.clients.len()).filter(|&client| so(&self.clients[client])).collect()
    }

    pub(crate) fn any(&mut self, so: impl Fn(&Client) -> bool) -> Option<usize> {
        let those = self.those(so);
        (!those.is_empty()).then(|| *self.rng.pick(&those))
    }

    pub(crate) fn name(&self, client: usize) -> String {
        let Client { peer, hub, life, phase, .. } = &self.clients[client];
        format!("c{client} ({peer:?} on h{hub}/{life}, {phase:?})")
    }

    // --- actions of clients ------------------------------------------------------------------------------------

    /// Draws the next action of a client.
    pub(crate) fn deed(&mut self) {
        if self.resting {
            return;
        }
        let at = self.now + self.up_to(self.plan.deed_ms * 1_000);
        self.agenda.put(at, Event::Deed);
        let crowd = self.plan.peers.len();
        let live = self.those(|client| client.phase != Phase::Ended).len();
        let opens = if live < crowd * 3 / 4 { self.rng.one_in(2) } else { self.rng.one_in(12) };
        if opens {
            let (hub, peer) = (self.rng.below(self.hubs.len()), self.rng.below(crowd));
            return self.agenda.put(self.now, Event::Open { hub, peer });
        }
        let saying = match self.rng.below(100) {
            0..25 => Saying::Announce,
            25..32 => Saying::Goodbye,
            32..36 => Saying::Close,
            36..39 => {
                if let Some(client) = self.any(|client| client.phase != Phase::Ended && !client.lost) {
                    self.clients[client].lost = true;
                    let at = self.now + self.ms(0, 1_000);
                    self.agenda.put(at, Event::Lose { client });
                }
                return;
            }
            39..48 => Saying::Burst,
            48..52 if self.is_bounded() => Saying::Discover,
            52..60 => Saying::Parting,
            _ => Saying::Signal,
        };
        if let Some(client) = self.any(|c| matches!(c.phase, Phase::Open | Phase::Retiring) && !c.lost) {
            self.agenda.put(self.now, Event::Say { client, saying });
        }
    }

    /// Connects a client. If a client with the same id has received a secret before, half of the new clients send such
    /// a secret. Most of these clients send the latest secret.
    pub(crate) fn open(&mut self, hub: usize, peer: usize) {
        let secrets = self.those(|client| client.peer == self.plan.peers[peer] && client.lineage.is_some());
        let shown = match self.rng.below(6) {
            0..3 => None,
            3 if !secrets.is_empty() => Some(*self.rng.pick(&secrets)),
            _ => secrets.last().copied(),
        };
        let resume = shown.and_then(|client| self.clients[client].lineage);
        self.open_with(hub, peer, resume);
    }

    pub(crate) fn open_with(&mut self, hub: usize, peer: usize, resume: Option<Lineage>) {
        let resume = resume.filter(|_| !self.is_of_2_0_0(hub));
        if !self.hubs[hub].is_up() {
            return;
        }
        let peer = self.plan.peers[peer];
        let shard = self.hubs[hub].home(&peer);
        let client = self.clients.len();
        let slots = &mut self.hubs[hub].slots[shard];
        let slot = slots.iter().position(Option::is_none).unwrap_or(slots.len());
        if slot == slots.len() {
            slots.push(None);
        }
        slots[slot] = Some(client);
        let session = SessionId { slot: slot as u32, generation: client as u32 };
        self.clients.push(Client {
            peer,
            hub,
            life: self.hubs[hub].life,
            shard,
            session,
            phase: Phase::Pending,
            answers: !self.rng.one_in(self.plan.half_dead),
            lost: false,
            queue: VecDeque::new(),
            backlog: false,
            opened: self.now,
            resume,
            lineage: None,
            ended: None,
            views: BTreeMap::new(),
            said: BTreeMap::new(),
        });
        let late = Duration::from_micros(4 * self.plan.letter_us as u64) + 2 * limits::TICK;
        // The hub pings the session that has the id. If another session takes the id meanwhile, the hub may ping that
        // session, too, which takes as long again.
        let patience = 2 * limits::TAKEOVER_GRACE + limits::TAKEOVER_MARGIN + late;
        self.agenda.put(self.now + patience, Event::Waited { client });
        self.tell_router(hub, shard, Input::Opened { session, peer, seat: true, resume, owner: false, grant: None });
    }

    pub(crate) fn say(&mut self, client: usize, saying: Saying) {
        let Client { phase, hub, shard, session, .. } = self.clients[client];
        if !matches!(phase, Phase::Open | Phase::Retiring) || self.clients[client].lost {
            return;
        }
        match saying {
            Saying::Announce => {
                let net = self.rng.below(self.plan.networks.len());
                self.announce(client, net);
            }
            Saying::Goodbye => {
                let net = self.rng.below(self.plan.networks.len());
                let only = (!self.rng.one_in(3)).then_some(net);
                self.say_goodbye(client, only);
            }
            Saying::Signal => {
                let (net, target) = self.addressee(client);
                self.signal(client, target, net);
            }
            Saying::Greeting(target, net) => _ = self.signal(client, target, net),
            Saying::Burst => {
                let (net, target) = self.addressee(client);
                for _ in 0..self.rng.between(3, 12) {
                    self.signal(client, target, net);
                }
            }
            Saying::Parting => self.part(client),
            Saying::Discover => {
                let nets: Vec<Net> = self.clients[client].views.keys().copied().collect();
                if !nets.is_empty() {
                    let net = *self.rng.pick(&nets);
                    self.discover(client, net);
                }
            }
            Saying::Close => self.leave(client, CloseReason::ClientClosed),
        }
        debug_assert!(self.hubs[hub].routers.len() > shard && session.generation as usize == client);
    }

    /// Makes a client join a network if necessary, send signals and leave, all at the same moment.
    fn part(&mut self, client: usize) {
        let (net, target) = self.addressee(client);
        if !self.clients[client].views.contains_key(&net) {
            self.announce(client, net);
        }
        for _ in 0..self.rng.between(1, 3) {
            self.signal(client, target, net);
        }
        match self.rng.below(5) {
            0 | 1 => self.say_goodbye(client, Some(net)),
            2 => self.say_goodbye(client, None),
            3 => self.leave(client, CloseReason::ClientClosed),
            _ => self.leave(client, CloseReason::ConnectionLost),
        }
    }

    /// Picks the target of a signal. Most targets are peers that the client has discovered, because signals to other
    /// peers rarely arrive.
    fn addressee(&mut self, client: usize) -> (Net, PeerId) {
        let views = self.clients[client].views.iter();
        let known: Vec<_> = views.flat_map(|(&net, view)| view.told.keys().map(move |&peer| (net, peer))).collect();
        if known.is_empty() || self.rng.one_in(6) {
            return (self.rng.below(self.plan.networks.len()), *self.rng.pick(&self.plan.peers));
        }
        *self.rng.pick(&known)
    }

    pub(crate) fn tell_message(&mut self, client: usize, text: &str) {
        let Client { hub, shard, session, .. } = self.clients[client];
        self.tell_router(hub, shard, Input::Message { session, text });
    }

    pub(crate) fn lose(&mut self, client: usize) {
        self.leave(client, CloseReason::ConnectionLost);
    }

    /// Ends a connection, and notifies the router.
    fn leave(&mut self, client: usize, reason: CloseReason) {
        let Client { phase, hub, shard, session, .. } = self.clients[client];
        if phase == Phase::Ended {
            return;
        }
        let mut undelivered = Vec::new();
        self.ended(client, reason, &mut undelivered);
        self.tell_router(hub, shard, Input::Closed { session, reason });
        for (origin, target, number, reason) in undelivered {
            self.signals.undelivered(number);
            self.tell_router(hub, shard, Input::Undelivered { origin, target, reason });
        }
    }

    /// Handles the end of a session. The unwritten signals of the session return to the router.
    fn ended(&mut self, client: usize, reason: CloseReason, undelivered: &mut Undelivered) {
        self.note(|| format!("c{client} has ended: {reason:?}"));
        let Client { hub, shard, session, peer, .. } = self.clients[client];
        self.hubs[hub].slots[shard][session.slot as usize] = None;
        self.forget(client);
        for queued in std::mem::take(&mut self.clients[client].queue) {
            if let Queued::Frame(Some((origin, number))) = queued {
                undelivered.push((origin, peer, number, reason));
            }
        }
    }

    /// Notifies the oracles that a session has ended.
    pub(crate) fn forget(&mut self, client: usize) {
        let at = self.now + self.longest_memory(client);
        let ended = &mut self.clients[client];
        ended.phase = Phase::Ended;
        ended.ended = Some((self.now, at));
        ended.views.clear();
        self.agenda.put(at, Event::Forgotten { client });
    }

    // --- outputs of routers ------------------------------------------------------------------------------------

    pub(crate) fn admitted(&mut self, session: SessionId) {
        let client = self.client(session);
        self.note(|| format!("    c{client} is admitted"));
        if std::mem::replace(&mut self.clients[client].phase, Phase::Open) != Phase::Pending {
            self.complain(format!("{} is admitted twice", self.name(client)));
        }
        // Half of the clients announce themselves as soon as they are connected, as browsers do.
        if !self.resting && self.rng.one_in(2) {
            self.agenda.put(self.now, Event::Say { client, saying: Saying::Announce });
        }
    }

    pub(crate) fn backlog(&mut self, session: SessionId, more: bool) {
        let client = self.client(session);
        self.clients[client].backlog = more;
        if more {
            let at = self.now + self.up_to(self.plan.write_us);
            self.agenda.put(at, Event::Room { client });
        }
    }

    pub(crate) fn close(&mut self, session: SessionId, reason: CloseReason, undelivered: &mut Undelivered) {
        let client = self.client(session);
        self.note(|| format!("    c{client} is closed: {reason:?}"));
        if self.clients[client].phase == Phase::Ended {
            return;
        }
        self.is_closed(client, reason);
        if reason.routes_messages_in_flight() {
            self.clients[client].phase = Phase::Retiring;
            let at = self.now + limits::CLOSE_LINGER;
            self.agenda.put(at, Event::Linger { client });
        } else {
            self.ended(client, reason, undelivered);
        }
    }

    pub(crate) fn pinged(&mut self, session: SessionId, payload: [u8; 8]) {
        let client = self.client(session);
        self.note(|| format!("    c{client} is asked"));
        self.queue(client, Queued::Ping(payload));
    }

    pub(crate) fn send(
        &mut self,
        hub: usize,
        shard: usize,
        session: SessionId,
        frame: &Frame,
        origin: Option<Origin>,
        undelivered: &mut Undelivered,
    ) {
        let client = self.client(session);
        let peer = self.clients[client].peer;
        let read = |bytes: &[u8]| heard::read(crate::transcript::payload(bytes), &peer);
        let heard = match frame {
            Frame::Arena(range) => read(&self.hubs[hub].routers[shard].arena()[range.clone()]),
            Frame::Owned(bytes) => read(bytes),
            Frame::Template(template) => {
                let mut bytes = Vec::with_capacity(template.frame_len());
                Template::write_to(template, &mut bytes, &peer, self.time(hub).wall_ms);
                read(&bytes)
            }
        };
        let heard = match heard {
            Ok(heard) => heard,
            Err(wrong) => return self.complain(format!("{} receives {wrong}", self.name(client))),
        };
        self.note(|| format!("    c{client} < {heard:?}"));
        let signal = match (&heard, origin) {
            (Heard::Signal { number, .. }, Some(origin)) => Some((origin, *number)),
            (Heard::Signal { .. }, None) | (_, Some(_)) => {
                return self
                    .complain(format!("c{client}: a signal has no origin, or another message has one: {heard:?}"));
            }
            (_, None) => None,
        };
        if let Heard::Connected { peer, secret } = &heard
            && !self.is_of_2_0_0(hub)
        {
            let Ok(lineage) = proto::ResumeKeys::new("mesh", b"key", None).check(peer, secret) else {
                return self.complain(format!("{} received no secret: {heard:?}", self.name(client)));
            };
            self.clients[client].lineage = Some(lineage);
        }
        self.hears(client, &heard);
        if self.clients[client].phase != Phase::Ended {
            return self.queue(client, Queued::Frame(signal));
        }
        if let Some((origin, number)) = signal {
            undelivered.push((origin, peer, number, CloseReason::ConnectionLost));
        }
    }

    // --- sockets -----------------------------------------------------------------------------------------------

    fn queue(&mut self, client: usize, queued: Queued) {
        if self.clients[client].phase == Phase::Ended {
            return;
        }
        self.clients[client].queue.push_back(queued);
        if self.clients[client].queue.len() == 1 {
            let at = self.now + self.up_to(self.plan.write_us);
            self.agenda.put(at, Event::Write { client });
        }
    }

    /// Lets the socket accept the next frame.
    pub(crate) fn write(&mut self, client: usize) {
        let Client { hub, shard, peer, lost, answers, .. } = self.clients[client];
        // A lost connection accepts nothing.
        if self.clients[client].phase == Phase::Ended || lost {
            return;
        }
        let Some(queued) = self.clients[client].queue.pop_front() else { return };
        if !self.clients[client].queue.is_empty() {
            let at = self.now + self.up_to(if self.clients[client].queue.len() > 20 { 50 } else { self.plan.write_us });
            self.agenda.put(at, Event::Write { client });
        }
        match queued {
            Queued::Frame(Some((origin, number))) => {
                self.signals.written(number);
                self.tell_router(hub, shard, Input::Delivered { origin, target: peer });
            }
            Queued::Ping(payload) if answers => {
                let at = self.now + self.up_to(20_000);
                self.agenda.put(at, Event::Pong { client, payload });
            }
            Queued::Frame(None) | Queued::Ping(_) => {}
        }
    }

    pub(crate) fn ponged(&mut self, client: usize, payload: [u8; 8]) {
        let Client { hub, shard, session, phase, lost, .. } = self.clients[client];
        if phase != Phase::Ended && !lost {
            self.tell_router(hub, shard, Input::Pong { session, payload: &payload });
        }
    }

    pub(crate) fn room(&mut self, client: usize) {
        let Client { hub, shard, session, phase, backlog, .. } = self.clients[client];
        if phase != Phase::Ended && backlog {
            self.tell_router(hub, shard, Input::Room { session });
        }
    }

    pub(crate) fn retire(&mut self, client: usize) {
        let Client { hub, shard, session, phase, .. } = self.clients[client];
        if phase != Phase::Ended {
            self.tell_router(hub, shard, Input::Retire { session });
        }
    }

    pub(crate) fn lingered(&mut self, client: usize) {
        if self.clients[client].phase == Phase::Retiring {
            self.leave(client, CloseReason::Draining);
        }
    }

    pub(crate) fn has_waited(&mut self, client: usize) {
        let Client { hub, phase, .. } = self.clients[client];
        let stopped = self.plan.has(super::trouble::Trouble::Stop);
        if phase == Phase::Pending && self.hubs[hub].lives() && !stopped {
            self.complain(format!("{} still waits for admission", self.name(client)));
        }
    }
}
