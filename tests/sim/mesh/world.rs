//! The simulated mesh with its clients, its faults and its clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use proto::envelope::EnvelopeKind;
use proto::{HubId, HubIncarnation, LinkId, Now};

use super::agenda::{Agenda, Event};
use super::bridge::{Channels, Subscription};
use super::claims::Claims;
use super::clients::Client;
use super::hubs::Hub;
use super::links::Link;
use super::plan::Plan;
use super::presence::Version;
use super::saboteur::{Fault, Saboteur};
use super::signals::Signals;
use crate::oracle::Net;
use crate::rng::Rng;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    pub(crate) now: Duration,
    pub(crate) agenda: Agenda,
    pub(crate) hubs: Vec<Hub>,
    /// All links of the run. The id of a link's end is twice the index of the link in this list, plus the number of the
    /// side.
    pub(crate) links: Vec<Link>,
    /// Time until which two hubs cannot be linked.
    pub(crate) blocked: BTreeMap<(usize, usize), Duration>,
    pub(crate) channels: BTreeMap<Subscription, Channels>,
    /// All clients of the run. The index of a client is the generation in its session's id.
    pub(crate) clients: Vec<Client>,
    pub(crate) versions: Vec<Version>,
    /// Number of announcements that clients have sent.
    pub(crate) announced: usize,
    pub(crate) signals: Signals,
    /// The claims that each shard must know, because of the letters that it has received.
    pub(crate) claims: Claims,
    pub(crate) saboteur: Saboteur,
    /// Time at which each heartbeat was first sent.
    pub(crate) beats: BTreeMap<(HubId, HubIncarnation, u64), Duration>,
    /// Number of envelopes that hubs have sent, by kind.
    pub(crate) sent: [u64; EnvelopeKind::ALL.len()],
    /// Number of sent envelopes that ask another hub about an acquaintance.
    pub(crate) asked: u64,
    /// Whether an operator removes a peer in this step.
    pub(crate) kicks: bool,
    /// The networks that operators have closed: the hub, the number of its process, and the network.
    pub(crate) closed: BTreeSet<(usize, usize, Net)>,
    /// Whether the run is at rest, without new actions or faults.
    pub(crate) resting: bool,
    /// Time at which the rest began.
    pub(crate) rested_at: Option<Duration>,
    /// Complaints of the oracles. The first complaint ends the run.
    pub(crate) complaints: Vec<String>,
    pub(crate) trace: Option<String>,
    events: usize,
}

/// Maximum number of events of a run. A run that exceeds this maximum would never come to rest.
const MOST_EVENTS: usize = 3_000_000;

/// Time zero of the world's clocks.
const EPOCH_MS: u64 = 1_700_000_000_000;

impl World {
    pub(crate) fn new(seed: u64, fault: Option<Fault>, traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        let mut world = Self {
            now: Duration::from_secs(1),
            agenda: Agenda::default(),
            hubs: Vec::new(),
            links: Vec::new(),
            blocked: BTreeMap::new(),
            channels: BTreeMap::new(),
            clients: Vec::new(),
            versions: Vec::new(),
            announced: 0,
            signals: Signals::default(),
            claims: Claims::default(),
            saboteur: Saboteur::new(fault, seed),
            beats: BTreeMap::new(),
            sent: Default::default(),
            asked: 0,
            kicks: false,
            closed: BTreeSet::new(),
            resting: false,
            rested_at: None,
            complaints: Vec::new(),
            trace: traced.then(|| format!("{plan:?}\n")),
            events: 0,
            plan,
            rng,
        };
        for place in 0..world.plan.hubs {
            let hub = Hub::new(&world.plan, place, world.now, &mut world.rng);
            world.hubs.push(hub);
        }
        world
    }

    /// A world with at least this number of hubs, for tests of the world itself.
    #[cfg(test)]
    pub(crate) fn of_hubs(hubs: usize) -> Self {
        let mut worlds = (0..100).map(|seed| Self::new(seed, None, false));
        worlds.find(|world| world.hubs.len() >= hubs).expect("one of a hundred plans has more hubs")
    }

    /// Runs the simulation. Afterwards, `complaints` contains the findings of the oracles.
    pub(crate) fn run(&mut self, length: Option<Duration>) {
        for hub in 0..self.hubs.len() {
            self.wake(hub);
        }
        // Without faults, the hubs are linked before the first client connects.
        let settled = if self.plan.calm { Duration::from_secs(4) } else { Duration::ZERO };
        self.pass(settled);
        self.agenda.put(self.now, Event::Deed);
        if !self.plan.calm {
            self.agenda.put(self.now + Duration::from_millis(500), Event::Trouble);
        }
        self.pass(length.unwrap_or(self.plan.length));
        self.rest();
    }

    /// Lets time pass, and handles all events that become due.
    pub(crate) fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        while self.complaints.is_empty() {
            let Some((at, event)) = self.agenda.next(until) else { break };
            self.now = at;
            self.events += 1;
            if self.events > MOST_EVENTS {
                self.complain("the run does not come to rest".to_owned());
            }
            self.happen(event);
        }
        self.now = until;
    }

    fn happen(&mut self, event: Event) {
        if let Some(thaw) = self.frozen_until(&event) {
            return self.agenda.put(thaw, event);
        }
        match event {
            Event::Bridge { hub, life, up } => self.bridge_turns(hub, life, up),
            Event::BridgeRoom { hub, life } => self.bridge_has_room(hub, life),
            Event::Bridged(subscription) => self.bridged(subscription),
            Event::Continue { hub, life, machine } => self.goes_on(hub, life, machine),
            Event::Cut { link } => self.cut(link),
            Event::Deed => self.deed(),
            Event::Dial { a, b } => self.dial(a, b),
            Event::End { hub, life } => self.end_hub(hub, life),
            Event::EndDown { link, side } => self.end_down(link, side),
            Event::EndUp { link, side } => self.end_up(link, side),
            Event::Forgotten { client } => self.is_forgotten(client),
            Event::Frame { link, side } => self.frame(link, side),
            Event::Gone { hub, life } => self.gone(hub, life),
            Event::Linger { client } => self.lingered(client),
            Event::Lose { client } => self.lose(client),
            Event::Open { hub, peer } => self.open(hub, peer),
            Event::Pong { client, payload } => self.ponged(client, payload),
            Event::Post { hub, life, from, to } => self.posted(hub, life, from, to),
            Event::Pressure { link, side } => self.pressure(link, side),
            Event::Retire { client } => self.retire(client),
            Event::Room { client } => self.room(client),
            Event::Say { client, saying } => self.say(client, saying),
            Event::Start { hub } if !self.resting => self.start(hub),
            Event::Start { .. } => {}
            Event::Timer { hub, life, machine } => self.timer(hub, life, machine),
            Event::Trouble => self.trouble(),
            Event::Waited { client } => self.has_waited(client),
            Event::Write { client } => self.write(client),
        }
    }

    /// Time at which the hub of this event continues, if it is stopped.
    fn frozen_until(&mut self, event: &Event) -> Option<Duration> {
        let hub = match *event {
            Event::Bridge { hub, .. }
            | Event::BridgeRoom { hub, .. }
            | Event::Continue { hub, .. }
            | Event::End { hub, .. }
            | Event::Open { hub, .. }
            | Event::Post { hub, .. }
            | Event::Timer { hub, .. } => hub,
            Event::Bridged(subscription) => subscription.to,
            Event::EndDown { link, side }
            | Event::EndUp { link, side }
            | Event::Frame { link, side }
            | Event::Pressure { link, side } => self.links[link].ends[side].hub,
            Event::Linger { client }
            | Event::Lose { client }
            | Event::Pong { client, .. }
            | Event::Retire { client }
            | Event::Room { client }
            | Event::Say { client, .. }
            | Event::Write { client } => self.clients[client].hub,
            Event::Cut { .. }
            | Event::Deed
            | Event::Dial { .. }
            | Event::Forgotten { .. }
            | Event::Gone { .. }
            | Event::Start { .. }
            | Event::Trouble
            | Event::Waited { .. } => return None,
        };
        let thaw = self.hubs[hub].frozen_until.filter(|&thaw| thaw > self.now)?;
        // When a stopped process continues, it usually reads the frames that have arrived in the meantime before its
        // timers fire.
        let late = matches!(event, Event::Timer { .. }) && !self.rng.one_in(8);
        Some(if late { thaw + self.up_to(20_000) + Duration::from_micros(1) } else { thaw })
    }

    pub(crate) fn up_to(&mut self, micros: usize) -> Duration {
        Duration::from_micros(self.rng.below(micros + 1) as u64)
    }

    pub(crate) fn ms(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis(self.rng.between(from, to) as u64)
    }

    /// The clocks of a hub.
    pub(crate) fn time(&self, hub: usize) -> Now {
        let hub = &self.hubs[hub];
        Now { at: self.now - hub.born, wall_ms: self.wall_ms(hub.skew_ms) }
    }

    pub(crate) fn wall_ms(&self, skew_ms: i64) -> u64 {
        (EPOCH_MS + self.now.as_millis() as u64).saturating_add_signed(skew_ms)
    }

    /// The id of a link's end for its hub.
    pub(crate) fn link_id(link: usize, side: usize) -> LinkId {
        LinkId((2 * link + side) as u64)
    }

    pub(crate) fn complain(&mut self, what: String) {
        self.note(|| format!("!!! {what}"));
        self.complaints.push(what);
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{:>11.6} {}", self.now.as_secs_f64(), what());
        }
    }
}
