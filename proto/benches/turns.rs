//! Measures the turns of a hub's threads during events that concern 100,000 peers of another hub or of a Go hub. The
//! other hub dies, its snapshot is installed, and all of its peers leave. A legacy link starts and ends. The benchmark
//! also measures the end of a session in 1,024 networks, and joins to a large network.
//!
//! The measured hub has 16 shards. The simulation of this hub has a relay and 16 routers with the queues of a real hub
//! between them, but no threads and no sockets. In each step, the relay and each router take the turns for which they
//! have work, as the threads of a real hub would do. For each event, the printed table has the longest turn of the mesh
//! and of a shard, the maximum number of outputs in one turn, and the number of turns of the mesh. The table also has
//! the maximum number of letters queued for one shard. The last three columns are the allocated memory before the
//! event, its maximum after any turn, and the memory after the event. Times are CPU times of the benchmark's thread.
//! The allocator is the hub's allocator, jemalloc. With the allocator of glibc, one turn takes 13 ms, because that
//! allocator first merges the memory that the simulated other hub has freed in this thread.
//!
//! `cargo bench -p peerpigeon-proto --bench turns` runs the benchmark. `cargo test` runs the same events with few peers
//! and measures no time. Both commands check the numbers of outputs and letters against the limits.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;

use cap::Cap;
use proto::limits::{
    HEARTBEAT, LEASE, LETTER_BATCH, MAILBOX_BATCHES, MAX_MEMBERSHIPS, READ_BUFFER_BYTES, SLICE_LETTERS, SLICE_ROOM,
    TURN_OUTPUTS,
};
use proto::{
    Budget, Claim, CloseReason, Destination, Discovery, Envelope, Hop, HubId, HubIncarnation, Input, Keys, Letter,
    LinkId, Now, Outbox, Output, PeerId, Relay, RelayConfig, RelayInput, RelayOutput, RelayTuning, ResumeKeys, Router,
    RouterConfig, SessionId, ShardId, ToMesh, ToShard, Transport,
};
use rustix::time::{ClockId, clock_gettime};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static MEMORY: Cap<Jemalloc> = Cap::new(Jemalloc, usize::MAX);

thread_local! {
    /// The maximum of allocated memory after any turn of an event, in bytes.
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

const KEYS: Keys = Keys(1, 2);

/// The id of the link between the two hubs. Both hubs use the same id.
const LINK: LinkId = LinkId(1);
const GO_LINK: LinkId = LinkId(2);
const SECOND_GO_LINK: LinkId = LinkId(3);

/// The sizes of the measured hub.
#[derive(Clone, Copy)]
struct Size {
    shards: u16,
    /// Number of peers of the other hub.
    peers: u32,
    networks: u32,
    /// Number of members of one large network on one shard.
    crowd: u32,
    measures: bool,
}

const FULL: Size = Size { shards: 16, peers: 100_000, networks: 2_000, crowd: 6_250, measures: true };
const SHORT: Size = Size { shards: 4, peers: 3_000, networks: 60, crowd: 200, measures: false };

fn peer(number: u32) -> PeerId {
    let mut bytes = [0; 20];
    for (i, four) in bytes.chunks_exact_mut(4).enumerate() {
        four.copy_from_slice(&number.wrapping_add(i as u32).wrapping_mul(0x9e37_79b9).to_be_bytes());
    }
    PeerId::from_bytes(bytes)
}

fn announce(network: &str) -> String {
    format!(r#"{{"type":"announce","networkName":"{network}","data":{{"name":"Ann","version":"1.2.3"}}}}"#)
}

/// CPU time of this thread, so that other load on the machine is not counted.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Turns of one thread since the last event began.
#[derive(Default)]
struct Turns {
    longest: Duration,
    outputs: usize,
    count: u64,
}

impl Turns {
    fn ended(&mut self, began: Duration, outputs: usize) {
        self.longest = self.longest.max(cpu_time() - began);
        PEAK.set(PEAK.get().max(MEMORY.allocated()));
        self.outputs = self.outputs.max(outputs);
        self.count += 1;
    }
}

/// Letters queued for a thread.
struct Mailbox<L> {
    batches: VecDeque<Vec<L>>,
    /// The letters of the open batch that have not been read.
    rest: VecDeque<L>,
}

impl<L> Default for Mailbox<L> {
    fn default() -> Self {
        Self { batches: VecDeque::new(), rest: VecDeque::new() }
    }
}

impl<L: Letter> Mailbox<L> {
    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.rest.is_empty()
    }

    fn next(&mut self) -> Option<L> {
        self.rest.pop_front()
    }

    /// Moves batches from an outbox to this mailbox while there is room.
    fn fill(&mut self, from: &mut Outbox<L>) {
        while !from.is_empty() && self.batches.len() < MAILBOX_BATCHES {
            self.batches.push_back(from.take_batch());
        }
    }

    /// Begins a turn with the unread letters of the open batch, or else with the next batch. Returns false if there are
    /// no letters.
    fn open(&mut self) -> bool {
        if self.rest.is_empty()
            && let Some(batch) = self.batches.pop_front()
        {
            self.rest = batch.into();
        }
        !self.rest.is_empty()
    }
}

/// The rules of one thread, with its mailbox and its counted turns.
trait Machine {
    type Letter: Letter;
    type Input<'a>;

    /// Passes one input to the rules, and performs their outputs. Returns the number of outputs.
    fn input(&mut self, input: Self::Input<'_>, now: Now) -> usize;

    /// The next letter of the open batch.
    fn next_letter(&mut self) -> Option<Self::Input<'static>>;

    fn thread(&mut self) -> (&mut Mailbox<Self::Letter>, &mut Turns);

    /// One turn with one input.
    fn turn(&mut self, input: Self::Input<'_>, now: Now) {
        let began = cpu_time();
        let outputs = self.input(input, now);
        self.thread().1.ended(began, outputs);
    }

    /// Takes one turn with letters. Returns false if there are no letters.
    fn read_letters(&mut self, now: Now) -> bool {
        let works = self.thread().0.open();
        if works {
            let (began, mut outputs) = (cpu_time(), 0);
            while outputs < TURN_OUTPUTS
                && let Some(letter) = self.next_letter()
            {
                outputs += self.input(letter, now);
            }
            self.thread().1.ended(began, outputs);
        }
        works
    }
}

struct Shard {
    router: Router,
    mailbox: Mailbox<ToShard>,
    outboxes: Vec<Outbox<ToShard>>,
    to_mesh: Outbox<ToMesh>,
    unfinished: bool,
    rooms: Vec<SessionId>,
    /// Number of opened sessions.
    sessions: u32,
    turns: Turns,
}

impl Machine for Shard {
    type Letter = ToShard;
    type Input<'a> = Input<'a>;

    fn input(&mut self, input: Input<'_>, now: Now) -> usize {
        self.router.handle_input(input, now);
        let mut outputs = 0;
        while let Some(output) = self.router.poll_output() {
            outputs += 1;
            match output {
                Output::ToMesh(letter) => self.to_mesh.push(letter),
                Output::ToShard { to, letter } => self.outboxes[usize::from(to.0)].push(letter),
                Output::Backlog { session, more: true } => self.rooms.push(session),
                Output::Unfinished => self.unfinished = true,
                Output::Bug(note) => panic!("{note:?}"),
                Output::Send { .. }
                | Output::Ping { .. }
                | Output::Admit { .. }
                | Output::Backlog { .. }
                | Output::Close { .. }
                | Output::Acted(_)
                | Output::Authorize { .. }
                | Output::Event(_) => {}
            }
        }
        outputs
    }

    fn next_letter(&mut self) -> Option<Input<'static>> {
        self.mailbox.next().map(Input::Letter)
    }

    fn thread(&mut self) -> (&mut Mailbox<ToShard>, &mut Turns) {
        (&mut self.mailbox, &mut self.turns)
    }
}

impl Shard {
    fn new(shard: u16, shards: u16) -> Self {
        let config = RouterConfig {
            shards,
            shard: ShardId(shard),
            max_networks_per_peer: MAX_MEMBERSHIPS,
            max_peers_per_network: usize::MAX,
            announce_budget_bytes: usize::MAX,
            budget: Budget::UNLIMITED,
            network_budget: Budget::UNLIMITED,
            meshed: true,
            ..RouterConfig::single(HubId(peer(u32::MAX)), KEYS, ResumeKeys::new("mesh", b"key", None))
        };
        Self {
            router: Router::new(config),
            mailbox: Mailbox::default(),
            outboxes: (0..shards).map(|_| Outbox::default()).collect(),
            to_mesh: Outbox::default(),
            unfinished: false,
            rooms: Vec::new(),
            sessions: 0,
            turns: Turns::default(),
        }
    }

    /// Takes a turn with letters, and a turn with unfinished work of earlier turns. Returns whether one of the two
    /// turns took place.
    fn step(&mut self, now: Now) -> bool {
        let mut works = self.read_letters(now);
        let has_room =
            self.to_mesh.len() <= SLICE_ROOM && self.outboxes.iter().all(|outbox| outbox.len() <= SLICE_ROOM);
        if self.unfinished && has_room {
            works = true;
            self.unfinished = false;
            self.turn(Input::Continue, now);
        }
        works
    }

    /// Connects a peer. Returns its session.
    fn opens(&mut self, peer: PeerId, now: Now) -> SessionId {
        let session = SessionId { slot: self.sessions, generation: 0 };
        self.sessions += 1;
        self.input(Input::Opened { session, peer, seat: true, resume: None, owner: false, grant: None }, now);
        session
    }

    /// Announces a peer in a network, and reads the roster.
    fn joins(&mut self, session: SessionId, network: &str, now: Now) {
        self.turn(Input::Message { session, text: &announce(network) }, now);
        while let Some(session) = self.rooms.pop() {
            self.input(Input::Room { session }, now);
        }
    }
}

struct Mesh {
    relay: Relay,
    mailbox: Mailbox<ToMesh>,
    outboxes: Vec<Outbox<ToShard>>,
    unfinished: bool,
    /// Envelopes that the other hub has sent, one per entry.
    socket: VecDeque<Vec<u8>>,
    /// Envelopes that this hub has sent to the other hub.
    sent: VecDeque<Vec<u8>>,
    rooms: VecDeque<Transport>,
    waiting: usize,
    turns: Turns,
}

impl Machine for Mesh {
    type Letter = ToMesh;
    type Input<'a> = RelayInput<'a>;

    fn input(&mut self, input: RelayInput<'_>, now: Now) -> usize {
        self.relay.handle_input(input, now);
        self.drain()
    }

    fn next_letter(&mut self) -> Option<RelayInput<'static>> {
        self.mailbox.next().map(RelayInput::Letter)
    }

    fn thread(&mut self) -> (&mut Mailbox<ToMesh>, &mut Turns) {
        (&mut self.mailbox, &mut self.turns)
    }
}

impl Mesh {
    fn drain(&mut self) -> usize {
        let mut outputs = 0;
        while let Some(output) = self.relay.poll_output() {
            outputs += 1;
            match output {
                RelayOutput::Letter { to, letter } => {
                    let outbox = &mut self.outboxes[usize::from(to.0)];
                    outbox.push(letter);
                    self.waiting = self.waiting.max(outbox.len());
                }
                RelayOutput::Send { to: Destination::Link(_), envelope } => {
                    let mut bytes = Vec::new();
                    envelope.encode(&mut bytes);
                    self.sent.push_back(bytes);
                }
                RelayOutput::Backlog { transport } => self.rooms.push_back(transport),
                RelayOutput::Unfinished => self.unfinished = true,
                RelayOutput::Bug(note) => panic!("{note:?}"),
                RelayOutput::Send { .. }
                | RelayOutput::SendText { .. }
                | RelayOutput::Renamed { .. }
                | RelayOutput::Span(_)
                | RelayOutput::Event(_) => {}
            }
        }
        outputs
    }

    fn step(&mut self, now: Now) -> bool {
        let mut works = self.read_letters(now);
        if !self.socket.is_empty() && !self.outboxes.iter().any(|outbox| outbox.is_over(1)) {
            works = true;
            let (began, mut outputs, mut bytes) = (cpu_time(), 0, 0);
            while bytes < READ_BUFFER_BYTES
                && outputs < TURN_OUTPUTS
                && let Some(envelope) = self.socket.pop_front()
            {
                bytes += envelope.len();
                let envelope = Envelope::decode(&mut &envelope[..]).unwrap().unwrap();
                outputs += self.input(RelayInput::Received { via: Hop::Link(LINK), envelope }, now);
            }
            self.turns.ended(began, outputs);
        }
        if let Some(transport) = self.rooms.pop_front() {
            works = true;
            self.turn(RelayInput::Room { transport }, now);
        }
        if self.unfinished && self.outboxes.iter().all(|outbox| outbox.len() <= SLICE_ROOM) {
            works = true;
            self.unfinished = false;
            self.turn(RelayInput::Continue, now);
        }
        works
    }
}

fn relay(hub: HubId, shards: u16, now: Now) -> Relay {
    let config = RelayConfig {
        hub,
        shards,
        incarnation: HubIncarnation(now.wall_ms),
        keys: KEYS,
        namespace: "mesh".to_owned(),
        discovery: Discovery::All,
        advertise: None,
        public_url: None,
        presence_bytes: usize::MAX,
        tuning: RelayTuning::default(),
    };
    Relay::new(config, now)
}

/// The measured hub and the other hub. The other hub is only a relay, without a shard.
struct Scene {
    size: Size,
    now: Now,
    mesh: Mesh,
    shards: Vec<Shard>,
    other: Option<Relay>,
    /// The claims of the other hub's peers.
    claims: Vec<Claim>,
    /// Number of times that the other hub has reported unsent parts of a snapshot. The benchmark answers each report
    /// with one [`RelayInput::Room`].
    other_rooms: usize,
    /// Whether the shards are stopped. Stopped shards have no turns and accept no letters.
    stopped: bool,
}

const OTHER: u32 = 1 << 30;

impl Scene {
    fn new(size: Size) -> Self {
        let now = Now { at: Duration::from_secs(100), wall_ms: 1_700_000_000_000 };
        let mesh = Mesh {
            relay: relay(HubId(peer(u32::MAX)), size.shards, now),
            mailbox: Mailbox::default(),
            outboxes: (0..size.shards).map(|_| Outbox::default()).collect(),
            unfinished: false,
            socket: VecDeque::new(),
            sent: VecDeque::new(),
            rooms: VecDeque::new(),
            waiting: 0,
            turns: Turns::default(),
        };
        let shards = (0..size.shards).map(|shard| Shard::new(shard, size.shards)).collect();
        Self { size, now, mesh, shards, other: None, claims: Vec::new(), other_rooms: 0, stopped: false }
    }

    /// Steps until nothing is left to do.
    fn run(&mut self) {
        loop {
            let mut works = self.mesh.step(self.now);
            self.step_other();
            if self.stopped {
                if works { continue } else { break }
            }
            for (at, outbox) in self.mesh.outboxes.iter_mut().enumerate() {
                self.shards[at].mailbox.fill(outbox);
            }
            for at in 0..self.shards.len() {
                works |= self.shards[at].step(self.now);
                for to in 0..self.shards.len() {
                    let mut outbox = std::mem::take(&mut self.shards[at].outboxes[to]);
                    self.shards[to].mailbox.fill(&mut outbox);
                    self.shards[at].outboxes[to] = outbox;
                }
                self.mesh.mailbox.fill(&mut self.shards[at].to_mesh);
            }
            works |= !self.mesh.mailbox.is_empty() || self.shards.iter().any(|shard| !shard.mailbox.is_empty());
            works |= !self.mesh.socket.is_empty() || self.other_rooms > 0 && self.other.is_some();
            if !works {
                break;
            }
        }
    }

    fn step_other(&mut self) {
        while let Some(bytes) = self.mesh.sent.pop_front() {
            let envelope = Envelope::decode(&mut &bytes[..]).unwrap().unwrap();
            self.other(RelayInput::Received { via: Hop::Link(LINK), envelope });
        }
        // The other hub sends a part only while the queue of its link is short.
        while self.other_rooms > 0 && self.mesh.socket.len() < 16 {
            self.other_rooms -= 1;
            self.other(RelayInput::Room { transport: Transport::Link(LINK) });
        }
    }

    fn other(&mut self, input: RelayInput<'_>) {
        let Some(other) = &mut self.other else { return };
        other.handle_input(input, self.now);
        self.drain_other();
    }

    fn drain_other(&mut self) {
        let Some(other) = &mut self.other else { return };
        while let Some(output) = other.poll_output() {
            match output {
                RelayOutput::Send { envelope, .. } => {
                    let mut bytes = Vec::new();
                    envelope.encode(&mut bytes);
                    self.mesh.socket.push_back(bytes);
                }
                RelayOutput::Backlog { .. } => self.other_rooms += 1,
                RelayOutput::Bug(note) => panic!("{note:?}"),
                RelayOutput::SendText { .. }
                | RelayOutput::Letter { .. }
                | RelayOutput::Renamed { .. }
                | RelayOutput::Unfinished
                | RelayOutput::Span(_)
                | RelayOutput::Event(_) => {}
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now.at + time;
        while self.now.at < until {
            self.now.at += Duration::from_millis(100);
            self.now.wall_ms += 100;
            if self.mesh.relay.poll_timeout().is_some_and(|at| at <= self.now.at) {
                let began = cpu_time();
                self.mesh.relay.handle_timeout(self.now);
                let outputs = self.mesh.drain();
                self.mesh.turns.ended(began, outputs);
            }
            if let Some(other) = &mut self.other
                && other.poll_timeout().is_some_and(|at| at <= self.now.at)
            {
                other.handle_timeout(self.now);
                self.drain_other();
            }
            self.run();
        }
    }

    /// Connects the peers of the measured hub. Each network of the benchmark gets as many members as the hub has
    /// shards.
    fn fill(&mut self) {
        for number in 0..self.size.networks * u32::from(self.size.shards) {
            let id = peer(number);
            let home = ShardId::home(&id, self.size.shards, KEYS);
            let shard = &mut self.shards[usize::from(home.0)];
            let session = shard.opens(id, self.now);
            shard.joins(session, &format!("net-{}", number % self.size.networks), self.now);
            if number % 64 == 0 {
                self.run();
            }
        }
        self.run();
    }

    /// Starts the other hub with all its peers. The first peer is in the maximum number of networks. Every other peer
    /// is in one of `networks` networks.
    fn start_other(&mut self, networks: u32) {
        let now = self.now;
        self.claims.clear();
        let mut other = relay(HubId(peer(u32::MAX - 1)), 1, now);
        let mut shard = Shard::new(0, 1);
        for number in 0..self.size.peers {
            let session = shard.opens(peer(OTHER + number), now);
            let its = if number == 0 { 0..MAX_MEMBERSHIPS as u32 } else { number % networks..number % networks + 1 };
            for network in its {
                let text = announce(&format!("net-{network}"));
                shard.input(Input::Message { session, text: &text }, now);
            }
            shard.rooms.clear();
            shard.router.handle_input(Input::Closed { session, reason: CloseReason::ClientClosed }, now);
            while shard.router.poll_output().is_some() {}
            let letters = &mut shard.to_mesh;
            while !letters.is_empty() {
                for letter in letters.take_batch() {
                    if let ToMesh::Opened { claim, .. } = &letter {
                        self.claims.push(*claim);
                    }
                    other.handle_input(RelayInput::Letter(letter), now);
                    while other.poll_output().is_some() {}
                }
            }
        }
        self.other = Some(other);
    }

    fn link(&mut self) {
        let ends = [&self.mesh.relay, self.other.as_ref().unwrap()].map(|relay| (relay.hub(), relay.incarnation()));
        self.mesh.turn(RelayInput::LinkUp { link: LINK, hub: ends[1].0, incarnation: ends[1].1 }, self.now);
        self.other(RelayInput::LinkUp { link: LINK, hub: ends[0].0, incarnation: ends[0].1 });
        self.run();
    }

    /// The other hub is killed, and its lease expires.
    fn kill_other(&mut self) {
        self.other = None;
        self.mesh.turn(RelayInput::LinkDown { link: LINK }, self.now);
        self.pass(LEASE + HEARTBEAT * 2);
    }

    /// Makes the peers of the other hub leave, one after another.
    fn others_leave(&mut self) {
        for (number, claim) in std::mem::take(&mut self.claims).into_iter().enumerate() {
            let (peer, reason) = (peer(OTHER + number as u32), CloseReason::ClientClosed);
            self.other(RelayInput::Letter(ToMesh::Closed { peer, claim, reason }));
        }
        self.run();
    }

    /// Measures one event.
    fn measure(&mut self, what: &str, event: impl FnOnce(&mut Self)) {
        self.mesh.turns = Turns::default();
        self.mesh.waiting = 0;
        self.shards.iter_mut().for_each(|shard| shard.turns = Turns::default());
        let before = MEMORY.allocated();
        PEAK.set(before);
        event(self);
        self.run();
        let megabytes = |bytes: usize| bytes as f64 / 1e6;
        let memory = [before, PEAK.get(), MEMORY.allocated()].map(megabytes);
        let shard =
            |of: fn(&Turns) -> usize| self.shards.iter().map(|shard| of(&shard.turns)).max().unwrap_or_default();
        let millis = |longest: Duration| longest.as_secs_f64() * 1e3;
        let longest = self.shards.iter().map(|shard| shard.turns.longest).max().unwrap_or_default();
        if self.size.measures {
            println!(
                "| {what} | {:.2} | {:.2} | {} | {} | {} | {} | {:.0} | {:.0} | {:.0} |",
                millis(self.mesh.turns.longest),
                millis(longest),
                self.mesh.turns.outputs,
                shard(|turns| turns.outputs),
                self.mesh.turns.count,
                self.mesh.waiting,
                memory[0],
                memory[1],
                memory[2],
            );
        }
    }

    /// Checks the figures of the last event against the limits.
    fn check(&self, what: &str, most: usize) {
        let shards = usize::from(self.size.shards);
        let turns = &self.mesh.turns;
        assert!(turns.outputs <= most, "{what}: {} outputs in one turn of the mesh", turns.outputs);
        let outputs = self.shards.iter().map(|shard| shard.turns.outputs).max().unwrap_or_default();
        assert!(
            outputs <= TURN_OUTPUTS + self.size.crowd as usize * shards,
            "{what}: {outputs} outputs of a shard in one turn"
        );
        let room = SLICE_ROOM + most + MAILBOX_BATCHES * LETTER_BATCH;
        assert!(self.mesh.waiting <= room, "{what}: {} letters were queued for one shard", self.mesh.waiting);
    }
}

/// The text with which a Go hub announces a peer.
fn go_peer(number: u32, network: &str) -> String {
    let peer = peer(number);
    format!(
        r#"{{"type":"peer-discovered","data":{{"isHub":false,"peerId":"{peer}"}},"networkName":"{network}","fromPeerId":"system","timestamp":1}}"#
    )
}

fn large_networks(size: Size, scene: &mut Scene) {
    // The network has 100,000 members at another hub. The first member with `closest:16` picks its acquaintances among
    // all members.
    scene.start_other(1);
    scene.link();
    scene.pass(HEARTBEAT * 3);
    let now = scene.now;
    assert_eq!(scene.mesh.relay.stats(now).remote_peers, u64::from(size.peers), "all peers of the other hub are known");
    let number = OTHER * 3;
    let at = usize::from(ShardId::home(&peer(number), size.shards, KEYS).0);
    let session = scene.shards[at].opens(peer(number), now);
    let text = r#"{"type":"announce","networkName":"net-0","data":{"discover":{"closest":16}}}"#;
    scene.measure("the first peer under closest:16 joins a network of 100,000", |scene| {
        scene.shards[at].turn(Input::Message { session, text }, now);
    });
    // One more member joins a network with 6,250 members on this shard. A network of 100,000 members has as many
    // members on each of 16 shards.
    let shard = &mut scene.shards[0];
    let homes = (OTHER / 2..).filter(|&n| ShardId::home(&peer(n), size.shards, KEYS) == ShardId(0));
    let crowd: Vec<u32> = homes.take(size.crowd as usize + 1).collect();
    for &number in &crowd[1..] {
        let session = shard.opens(peer(number), now);
        shard.joins(session, "large", now);
    }
    scene.run();
    scene.measure("one member joins a network of 100,000", |scene| {
        let session = scene.shards[0].opens(peer(crowd[0]), now);
        scene.shards[0].joins(session, "large", now);
    });
}

fn main() {
    let size = if std::env::args().any(|arg| arg == "--bench") { FULL } else { SHORT };
    if size.measures {
        println!(
            "| event | mesh, ms | shard, ms | mesh, outputs | shard, outputs | mesh, turns | letters | MB before | \
             MB, most \
             | MB after |"
        );
        println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    }
    let shards = usize::from(size.shards);
    // The maximum number of outputs of a slice is its limit, plus the letters of the peer with which the slice exceeds
    // the limit. For each of its networks, such a peer causes one letter per shard and one more letter.
    let slice = SLICE_LETTERS + MAX_MEMBERSHIPS * (shards + 1) + 16;
    let mut scene = Scene::new(size);
    scene.fill();
    scene.start_other(size.networks);
    scene.measure("a snapshot is installed", |scene| {
        scene.link();
        scene.pass(HEARTBEAT * 3);
    });
    scene.check("snapshot", slice);
    let known = scene.mesh.relay.stats(scene.now).remote_peers;
    assert_eq!(known, u64::from(size.peers), "the snapshot was installed");
    scene.measure("a Go hub is linked", |scene| {
        let hub = HubId(peer(u32::MAX - 2));
        scene.mesh.turn(RelayInput::LegacyUp { link: GO_LINK, hub, dialed: false }, scene.now);
    });
    scene.check("Go hub", slice);
    scene.mesh.turn(RelayInput::LinkDown { link: GO_LINK }, scene.now);
    scene.other = None;
    scene.measure("the other hub dies", Scene::kill_other);
    scene.check("death", slice);
    assert_eq!(scene.mesh.relay.stats(scene.now).remote_peers, 0, "the peers of the dead hub have left");

    scene.start_other(size.networks);
    scene.link();
    scene.pass(HEARTBEAT * 3);
    scene.measure("the peers of the other hub leave one by one", Scene::others_leave);
    scene.check("leaves", TURN_OUTPUTS + slice);
    assert_eq!(scene.mesh.relay.stats(scene.now).remote_peers, 0, "all peers of the other hub have left");
    scene.kill_other();

    let hub = HubId(peer(u32::MAX - 3));
    scene.mesh.turn(RelayInput::LegacyUp { link: SECOND_GO_LINK, hub, dialed: false }, scene.now);
    scene.run();
    for number in 0..size.peers {
        let text = go_peer(OTHER + number, &format!("net-{}", number % size.networks));
        scene.mesh.input(RelayInput::LegacyText { link: SECOND_GO_LINK, text: &text }, scene.now);
        if number % 64 == 0 {
            scene.run();
        }
    }
    scene.run();
    scene.measure("the link of a Go hub with 100,000 peers ends", |scene| {
        scene.mesh.turn(RelayInput::LinkDown { link: SECOND_GO_LINK }, scene.now);
    });
    scene.check("end of a legacy link", slice);

    // One session is in the maximum number of networks, each with members.
    let number = OTHER * 2;
    let home = ShardId::home(&peer(number), size.shards, KEYS);
    let at = usize::from(home.0);
    let now = scene.now;
    let session = scene.shards[at].opens(peer(number), now);
    for network in 0..MAX_MEMBERSHIPS as u32 {
        scene.shards[at].joins(session, &format!("net-{network}"), now);
        scene.run();
    }
    scene.measure("a session in 1,024 networks ends", |scene| {
        scene.shards[at].turn(Input::Closed { session, reason: CloseReason::ClientClosed }, now);
    });
    scene.check("session in many networks", slice);
    large_networks(size, &mut scene);
    scene.check("large network", slice);
    scene.other = None;
    scene.measure("the other hub dies while the shards are stopped", |scene| {
        scene.stopped = true;
        scene.kill_other();
        assert!(scene.mesh.unfinished && scene.mesh.waiting > SLICE_ROOM, "{} letters are queued", scene.mesh.waiting);
        assert!(scene.mesh.waiting <= SLICE_ROOM + slice, "{} letters are queued", scene.mesh.waiting);
        scene.stopped = false;
    });
    assert_eq!(scene.mesh.relay.stats(scene.now).remote_peers, 0, "the peers of the dead hub have left");
}
