//! The mesh and its clients, and the passing of time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use proto::envelope::EnvelopeKind;
use proto::{HubId, HubIncarnation, LinkId, Now};

use super::agenda::{Agenda, Event};
use super::bridge::{Channel, Channels};
use super::clients::Client;
use super::hubs::Hub;
use super::links::Link;
use super::plan::Plan;
use super::presence::Version;
use super::saboteur::{Fault, Saboteur};
use super::signals::Signals;
use crate::rng::Rng;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    pub(crate) now: Duration,
    pub(crate) agenda: Agenda,
    pub(crate) hubs: Vec<Hub>,
    /// All that ever were. A link's ends are numbered as its place here twice, and one more.
    pub(crate) links: Vec<Link>,
    /// Until when two hubs cannot be linked.
    pub(crate) blocked: BTreeMap<(usize, usize), Duration>,
    pub(crate) channels: BTreeMap<(usize, usize, Channel), Channels>,
    /// All that ever were, by the generation in their session's id.
    pub(crate) clients: Vec<Client>,
    pub(crate) versions: Vec<Version>,
    /// How often somebody has announced itself.
    pub(crate) announced: usize,
    pub(crate) signals: Signals,
    pub(crate) saboteur: Saboteur,
    /// When each heartbeat was said first.
    pub(crate) beats: BTreeMap<(HubId, HubIncarnation, u64), Duration>,
    /// Envelopes that hubs put out, by kind.
    pub(crate) sent: [u64; EnvelopeKind::ALL.len()],
    /// Of those the ones by which a hub asks another whether two peers know each other.
    pub(crate) asked: u64,
    /// Nothing new happens of its own accord.
    pub(crate) resting: bool,
    /// Only now and then does somebody complain; the first complaint ends the day.
    pub(crate) complaints: Vec<String>,
    pub(crate) trace: Option<String>,
    events: usize,
}

/// A world that still moves after so many events has found a way to move for ever.
const MOST_EVENTS: usize = 3_000_000;

/// When the world's clocks began.
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
            saboteur: Saboteur::new(fault, seed),
            beats: BTreeMap::new(),
            sent: Default::default(),
            asked: 0,
            resting: false,
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

    /// Lets the day happen. Afterwards somebody has complained, or nobody has.
    pub(crate) fn run(&mut self, length: Option<Duration>) {
        for hub in 0..self.hubs.len() {
            self.wake(hub);
        }
        // Where nothing goes wrong, the hubs have found each other before the first client comes.
        let settled = if self.plan.calm { Duration::from_secs(4) } else { Duration::ZERO };
        self.pass(settled);
        self.agenda.put(self.now, Event::Deed);
        if !self.plan.calm {
            self.agenda.put(self.now + Duration::from_millis(500), Event::Trouble);
        }
        self.pass(length.unwrap_or(self.plan.length));
        self.rest();
    }

    /// Lets time pass, with all that is due in it.
    pub(crate) fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        while self.complaints.is_empty() {
            let Some((at, event)) = self.agenda.next(until) else { break };
            self.now = at;
            self.events += 1;
            if self.events > MOST_EVENTS {
                self.complain("there is no rest".to_owned());
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
            Event::Bridged { from, to, channel } => self.bridged(from, to, channel),
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

    /// When the hub that is to take part in this wakes up, if it is stopped.
    fn frozen_until(&mut self, event: &Event) -> Option<Duration> {
        let hub = match *event {
            Event::Bridge { hub, .. }
            | Event::BridgeRoom { hub, .. }
            | Event::End { hub, .. }
            | Event::Open { hub, .. }
            | Event::Post { hub, .. }
            | Event::Timer { hub, .. } => hub,
            Event::Bridged { to, .. } => to,
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
        // What had come meanwhile is mostly read before timers are looked at.
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

    /// The number of a link's end, as its hub knows it.
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
