//! One hub: its routers, its relay, and the letters between them. A *machine* is a router or the relay.

use std::time::Duration;

use proto::{
    Allowance, Budget, BudgetItem, HubId, HubIncarnation, Input, Keys, Letter, LinkId, MeshEvent, Output, PeerId,
    Relay, RelayConfig, RelayInput, RelayOutput, ResumeKeys, Router, RouterConfig, ShardId, ToMesh, ToShard, Transport,
    limits,
};

use super::agenda::Event;
use super::describe::{describe, describe_letter, describe_relay};
use super::plan::Plan;
use super::world::World;
use crate::mailbox::Mailbox;
use crate::rng::Rng;

/// One process of a hub.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) place: usize,
    pub(crate) id: HubId,
    /// Number of earlier processes of this hub.
    pub(crate) life: usize,
    pub(crate) state: State,
    pub(crate) born: Duration,
    pub(crate) skew_ms: i64,
    pub(crate) frozen_until: Option<Duration>,
    pub(crate) keys: Keys,
    pub(crate) routers: Vec<Router>,
    pub(crate) relay: Relay,
    /// Letters in flight between machines. The relay is the last machine.
    mail: Vec<Post>,
    /// Time of each machine's timer, by the hub's clock.
    timers: Vec<Option<Duration>>,
    /// Number of successive timer calls after which the same machine requested another call at once.
    idle_timeouts: usize,
    /// The clients of each shard by slot.
    pub(crate) slots: Vec<Vec<Option<usize>>>,
    /// Whether the relay knows that the bridge works.
    pub(crate) bridge_told: bool,
    pub(crate) bridge_full: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Up,
    /// The hub drains, and its sessions retire.
    Draining,
    /// The hub has sent its farewell. Its links stay open for a moment.
    Ended,
    Down,
}

/// A letter between two machines of a hub.
#[derive(Debug)]
pub(crate) enum Posted {
    ToShard(ToShard),
    ToMesh(ToMesh),
}

impl Letter for Posted {
    fn owned_bytes(&self) -> usize {
        match self {
            Self::ToShard(letter) => letter.owned_bytes(),
            Self::ToMesh(letter) => letter.owned_bytes(),
        }
    }
}

#[derive(Debug, Default)]
struct Post {
    letters: Mailbox<Posted>,
    last: Duration,
}

/// An input of a machine.
pub(crate) enum Told<'a> {
    Input(usize, Input<'a>),
    Relay(RelayInput<'a>),
    Timeout(usize),
}

/// Maximum number of successive timer calls after which a machine requests another call at once. A machine that exceeds
/// this maximum would request timer calls for ever.
const MOST_IDLE_TIMEOUTS: usize = 50;

impl Hub {
    pub(crate) fn new(plan: &Plan, place: usize, now: Duration, rng: &mut Rng) -> Self {
        Self::with_id(plan, place, plan.ids[place], plan.skews[place], now, rng)
    }

    pub(crate) fn with_id(plan: &Plan, place: usize, id: HubId, skew_ms: i64, now: Duration, rng: &mut Rng) -> Self {
        let keys = Keys(rng.next(), rng.next());
        let shards = plan.shards[place];
        let router = |shard| {
            let config = RouterConfig {
                ice: None,
                discovery: plan.discovery,
                shard: ShardId(shard),
                shards,
                keys,
                resume_keys: ResumeKeys::new("mesh", b"key", None),
                hub: id,
                heartbeat: Duration::from_secs(25),
                max_message_bytes: limits::DEFAULT_MAX_MESSAGE_BYTES,
                max_networks_per_peer: limits::DEFAULT_MAX_NETWORKS_PER_PEER,
                max_peers_per_network: limits::DEFAULT_MAX_PEERS_PER_NETWORK,
                announce_budget_bytes: usize::MAX,
                budget: Budget::UNLIMITED.with(BudgetItem::Errors, Allowance::new(20, 100)),
                network_budget: Budget::UNLIMITED,
                meshed: true,
                events: false,
                tuning: plan.router,
            };
            Router::new(config)
        };
        let wall_ms = (1_700_000_000_000 + now.as_millis() as u64).saturating_add_signed(skew_ms);
        let config = RelayConfig {
            discovery: plan.discovery,
            hub: id,
            incarnation: HubIncarnation(wall_ms),
            shards,
            keys,
            namespace: "mesh".to_owned(),
            advertise: None,
            public_url: None,
            presence_bytes: plan.presence_bytes,
            tuning: plan.relay,
        };
        let machines = usize::from(shards) + 1;
        // A process measures time from its own start.
        let born = now - Duration::from_millis(rng.below(1_000) as u64);
        Self {
            place,
            id,
            life: 0,
            state: State::Up,
            born,
            skew_ms,
            frozen_until: None,
            keys,
            routers: (0..shards).map(router).collect(),
            relay: Relay::new(config, proto::Now { at: now - born, wall_ms }),
            mail: (0..machines * machines).map(|_| Post::default()).collect(),
            timers: vec![None; machines],
            idle_timeouts: 0,
            slots: vec![Vec::new(); usize::from(shards)],
            bridge_told: false,
            bridge_full: false,
        }
    }

    pub(crate) fn lives(&self) -> bool {
        self.state != State::Down
    }

    pub(crate) fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// The relay's number among the machines.
    pub(crate) fn relay_machine(&self) -> usize {
        self.routers.len()
    }

    pub(crate) fn has_mail(&self) -> bool {
        self.mail.iter().any(|mailbox| !mailbox.letters.is_empty())
    }

    pub(crate) fn home(&self, peer: &PeerId) -> usize {
        usize::from(ShardId::home(peer, self.routers.len() as u16, self.keys).0)
    }
}

impl World {
    /// Starts a process.
    pub(crate) fn wake(&mut self, hub: usize) {
        let (id, life, wall) = (self.hubs[hub].id, self.hubs[hub].life, self.time(hub).wall_ms);
        self.note(|| format!("h{hub} is {id:?}, life {life}, its wall clock is at {wall}"));
        let machine = self.hubs[hub].relay_machine();
        self.set_timer(hub, machine);
        let edges: Vec<_> = self.plan.edges.iter().copied().filter(|&(a, b)| a == hub || b == hub).collect();
        for (a, b) in edges {
            let at = self.now + self.ms(10, 1_000);
            self.agenda.put(at, Event::Dial { a, b });
        }
        if self.plan.bridged[hub] {
            let at = self.now + self.ms(0, 500);
            self.agenda.put(at, Event::Bridge { hub, life, up: true });
        }
    }

    pub(crate) fn tell_router(&mut self, hub: usize, shard: usize, input: Input<'_>) {
        self.tell(hub, Told::Input(shard, input));
    }

    pub(crate) fn tell_relay(&mut self, hub: usize, input: RelayInput<'_>) {
        self.tell(hub, Told::Relay(input));
    }

    /// Gives a machine one input, and performs its outputs.
    fn tell(&mut self, hub: usize, told: Told<'_>) {
        let now = self.time(hub);
        match told {
            Told::Input(shard, input) => {
                self.note(|| format!("h{hub} s{shard} {}", describe(&input)));
                self.hubs[hub].routers[shard].handle_input(input, now);
                self.carry_out(hub, shard);
            }
            Told::Relay(input) => {
                self.note(|| format!("h{hub} relay {}", describe_relay(&input)));
                self.hubs[hub].relay.handle_input(input, now);
                self.carry_out_relay(hub);
            }
            Told::Timeout(machine) if machine == self.hubs[hub].relay_machine() => {
                self.hubs[hub].relay.handle_timeout(now);
                self.carry_out_relay(hub);
            }
            Told::Timeout(shard) => {
                self.hubs[hub].routers[shard].handle_timeout(now);
                self.carry_out(hub, shard);
            }
        }
    }

    fn carry_out(&mut self, hub: usize, shard: usize) {
        let mut undelivered = Vec::new();
        while let Some(output) = self.hubs[hub].routers[shard].poll_output() {
            match output {
                Output::Admit { session } => self.admitted(session),
                Output::Backlog { session, more } => self.backlog(session, more),
                Output::Close { session, reason } => self.close(session, reason, &mut undelivered),
                Output::Acted(_) | Output::Authorize { .. } | Output::Event(_) => {}
                Output::Bug(note) => self.complain(format!("h{hub} {note:?}")),
                Output::Unfinished => self.is_unfinished(hub, shard),
                Output::ToShard { to, letter } => self.post(hub, shard, usize::from(to.0), Posted::ToShard(letter)),
                Output::ToMesh(letter) => {
                    let relay = self.hubs[hub].relay_machine();
                    self.post(hub, shard, relay, Posted::ToMesh(letter));
                }
                Output::Ping { session, payload } => self.pinged(session, payload),
                Output::Send { session, frame, origin, .. } => {
                    self.send(hub, shard, session, &frame, origin, &mut undelivered);
                }
            }
        }
        self.hubs[hub].routers[shard].audit();
        self.set_timer(hub, shard);
        for (origin, target, number, reason) in undelivered {
            self.signals.undelivered(number);
            self.tell_router(hub, shard, Input::Undelivered { origin, target, reason });
        }
    }

    fn carry_out_relay(&mut self, hub: usize) {
        let relay = self.hubs[hub].relay_machine();
        while let Some(output) = self.hubs[hub].relay.poll_output() {
            match output {
                RelayOutput::Backlog { transport: Transport::Link(link) } => self.link_backlog(hub, link),
                RelayOutput::Backlog { transport: Transport::Bridge } => {
                    let (at, life) = (self.now + self.up_to(20_000), self.hubs[hub].life);
                    self.agenda.put(at, Event::BridgeRoom { hub, life });
                }
                RelayOutput::Event(event) => self.mesh_event(hub, event),
                RelayOutput::Bug(note) => self.complain(format!("h{hub} {note:?}")),
                RelayOutput::Unfinished => self.is_unfinished(hub, relay),
                RelayOutput::Span(_) => {}
                RelayOutput::Letter { to, letter } => {
                    self.post(hub, relay, usize::from(to.0), Posted::ToShard(letter));
                }
                RelayOutput::Send { to, envelope } => self.put_out(hub, to, envelope),
                RelayOutput::Renamed { hub: id } => self.complain(format!("h{hub} takes the id {id}")),
                RelayOutput::SendText { link: LinkId(link), .. } => {
                    self.complain(format!("h{hub} uses the Go hub's protocol on link {link}"));
                }
            }
        }
        self.hubs[hub].relay.audit();
        self.set_timer(hub, relay);
    }

    fn mesh_event(&mut self, hub: usize, event: MeshEvent) {
        self.note(|| format!("    h{hub} logs {event:?}"));
        if matches!(event, MeshEvent::SameId | MeshEvent::IdGivenUp(..) | MeshEvent::TwoHubs(_)) {
            self.complain(format!("h{hub} counts another hub as itself"));
        }
    }

    // --- letters -----------------------------------------------------------------------------------------------

    fn post(&mut self, hub: usize, from: usize, to: usize, letter: Posted) {
        self.note(|| format!("    h{hub} {from}>{to} {}", describe_letter(&letter)));
        let (relay, life) = (self.hubs[hub].relay_machine(), self.hubs[hub].life);
        for letter in self.saboteur.letter(hub, from, to, relay, letter) {
            let delay = self.up_to(self.plan.letter_us);
            let mailbox = &mut self.hubs[hub].mail[from * (relay + 1) + to];
            mailbox.last = mailbox.last.max(self.now + delay);
            mailbox.letters.push(letter);
            let at = mailbox.last;
            self.agenda.put(at, Event::Post { hub, life, from, to });
        }
    }

    pub(crate) fn posted(&mut self, hub: usize, life: usize, from: usize, to: usize) {
        if self.hubs[hub].life != life || !self.hubs[hub].lives() {
            return;
        }
        let relay = self.hubs[hub].relay_machine();
        let Some(letter) = self.hubs[hub].mail[from * (relay + 1) + to].letters.pop() else { return };
        match letter {
            Posted::ToMesh(letter) => self.tell_relay(hub, RelayInput::Letter(letter)),
            Posted::ToShard(letter) => {
                let known = self.claims.note((hub, life, to), &letter);
                if known.as_ref().is_none_or(|known| !self.saboteur.ignores(known)) {
                    self.tell_router(hub, to, Input::Letter(letter));
                }
                if let Some(known) = known {
                    self.knows_claims(hub, to, &known);
                }
            }
        }
    }

    /// Handles a machine's report that it has more work. The machine continues after a random delay, at the latest
    /// after the maximum transit time of a letter.
    fn is_unfinished(&mut self, hub: usize, machine: usize) {
        let (at, life) = (self.now + self.up_to(self.plan.letter_us), self.hubs[hub].life);
        if self.saboteur.loses_continue() {
            return;
        }
        self.agenda.put(at, Event::Continue { hub, life, machine });
    }

    pub(crate) fn goes_on(&mut self, hub: usize, life: usize, machine: usize) {
        if self.hubs[hub].life != life || !self.hubs[hub].lives() {
            return;
        }
        if machine == self.hubs[hub].relay_machine() {
            self.saboteur.slice(Some(hub));
            self.tell_relay(hub, RelayInput::Continue);
            self.saboteur.slice(None);
        } else {
            self.tell_router(hub, machine, Input::Continue);
        }
    }

    // --- timers ------------------------------------------------------------------------------------------------

    fn set_timer(&mut self, hub: usize, machine: usize) {
        let late = self.up_to(30_000);
        let Hub { relay, routers, timers, born, life, .. } = &mut self.hubs[hub];
        let wants = if machine == routers.len() { relay.poll_timeout() } else { routers[machine].poll_timeout() };
        let Some(wants) = wants else { return };
        if timers[machine].is_none_or(|set| wants < set) {
            timers[machine] = Some(wants);
            let (at, life) = ((*born + wants).max(self.now) + late, *life);
            self.agenda.put(at, Event::Timer { hub, life, machine });
        }
    }

    pub(crate) fn timer(&mut self, hub: usize, life: usize, machine: usize) {
        if self.hubs[hub].life != life || !self.hubs[hub].lives() {
            return;
        }
        let now = self.time(hub).at;
        // This event is outdated, because the timer was set to an earlier time and has already fired.
        if self.hubs[hub].timers[machine].is_none_or(|set| set > now) {
            return;
        }
        self.hubs[hub].timers[machine] = None;
        self.tell(hub, Told::Timeout(machine));
        let Hub { relay, routers, idle_timeouts, .. } = &mut self.hubs[hub];
        let wants = if machine == routers.len() { relay.poll_timeout() } else { routers[machine].poll_timeout() };
        *idle_timeouts = if wants.is_some_and(|at| at <= now) { *idle_timeouts + 1 } else { 0 };
        if *idle_timeouts > MOST_IDLE_TIMEOUTS {
            self.complain(format!(
                "h{hub}: machine {machine} requests a timer call at {wants:?}, but the time is already {now:?}"
            ));
        }
    }
}
