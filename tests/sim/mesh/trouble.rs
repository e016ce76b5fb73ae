//! Random faults of links, the bridge, processes and clocks, and orders of operators.

use std::time::Duration;

use proto::{Input, NetworkName, Order, RelayInput, limits};

use super::agenda::Event;
use super::clients::{Client, Phase};
use super::hubs::{Hub, State};
use super::world::World;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// The bridge fails for one hub, or for all.
    Bridge,
    /// The wall clock of a hub jumps.
    Clock,
    /// A link ends.
    Cut,
    /// A second link opens between two linked hubs, and the first link ends later.
    Double,
    /// A hub drains.
    Drain,
    /// The queue of the bridge rises above its high-water mark.
    Fill,
    /// A process is killed.
    Kill,
    /// Some hubs cannot reach the others.
    Partition,
    /// One side of a link is not read for some time.
    Stall,
    /// A process is stopped for a while.
    Stop,
    /// A link silently drops all data, in one direction or both, and stays open until a timeout.
    Swallow,
    /// An operator closes a network of a hub.
    Close,
    /// An operator removes a peer, from its hub or from a network.
    Kick,
}

impl Trouble {
    pub(crate) const FAULTS: [Self; 11] = [
        Self::Bridge,
        Self::Clock,
        Self::Cut,
        Self::Double,
        Self::Drain,
        Self::Fill,
        Self::Kill,
        Self::Partition,
        Self::Stall,
        Self::Stop,
        Self::Swallow,
    ];

    /// The orders of operators.
    const ORDERS: [Self; 2] = [Self::Kick, Self::Close];

    /// The trouble with this number. The numbers of [`Self::FAULTS`] come first, followed by the numbers of
    /// [`Self::ORDERS`].
    fn at(number: usize) -> Self {
        Self::FAULTS.get(number).copied().unwrap_or_else(|| Self::ORDERS[number - Self::FAULTS.len()])
    }

    /// Relative frequency of a fault. The plan of a run multiplies the frequency by 1 or 3 at random, or omits the
    /// fault.
    pub(crate) const fn weight(self) -> usize {
        match self {
            Self::Cut => 6,
            Self::Double | Self::Kill | Self::Stall => 3,
            Self::Bridge | Self::Drain | Self::Fill | Self::Partition | Self::Stop | Self::Swallow => 2,
            Self::Clock => 1,
            // The plan sets the frequency of operators' orders.
            Self::Close | Self::Kick => 0,
        }
    }

    pub(crate) const fn is_of_the_bridge(self) -> bool {
        matches!(self, Self::Bridge | Self::Fill)
    }
}

impl World {
    pub(crate) fn trouble(&mut self) {
        if self.resting {
            return;
        }
        let at = self.now + self.up_to(self.plan.trouble_ms * 1_000);
        self.agenda.put(at, Event::Trouble);
        let trouble = Trouble::at(self.rng.weighted(&self.plan.troubles));
        let hub = self.rng.below(self.hubs.len());
        self.note(|| format!("trouble: {trouble:?}, h{hub}"));
        match trouble {
            Trouble::Bridge => self.bridge_fails(hub),
            Trouble::Clock => self.hubs[hub].skew_ms += self.rng.below(120_000) as i64 - 60_000,
            Trouble::Close => self.close_network(hub),
            Trouble::Kick => self.kick(),
            Trouble::Cut => {
                if let Some(link) = self.any_link() {
                    self.cut(link);
                }
            }
            Trouble::Double => self.double(),
            Trouble::Drain => self.drain(hub),
            Trouble::Fill => self.fill_bridge(hub),
            Trouble::Kill => self.kill(hub),
            Trouble::Partition => self.partition(),
            Trouble::Stall => {
                if let Some(link) = self.any_link() {
                    let (side, until) = (self.rng.below(2), self.now + self.ms(50, 6_000));
                    self.links[link].pipes[side].stalled_until = until;
                }
            }
            Trouble::Swallow => {
                if let Some(link) = self.any_link() {
                    let sides = *self.rng.pick(&[[true, true], [true, false], [false, true]]);
                    self.swallow(link, sides);
                    let at = self.now + self.up_to(limits::LINK_PATIENCE.as_micros() as usize);
                    self.agenda.put(at, Event::Cut { link });
                }
            }
            Trouble::Stop => {
                if self.hubs[hub].lives() && self.hubs[hub].frozen_until.is_none_or(|thaw| thaw < self.now) {
                    let span = if self.rng.one_in(2) { self.ms(500, 4_000) } else { self.ms(4_000, 20_000) };
                    self.hubs[hub].frozen_until = Some(self.now + span);
                }
            }
        }
    }

    /// Whether a hub can execute orders.
    fn is_ordered(&self, hub: usize) -> bool {
        self.hubs[hub].lives() && self.hubs[hub].frozen_until.is_none_or(|thaw| thaw < self.now)
    }

    fn kick(&mut self) {
        let Some(client) = self.any(|client| client.phase == Phase::Open) else { return };
        let Client { hub, shard, peer, ref views, .. } = self.clients[client];
        if !self.is_ordered(hub) {
            return;
        }
        let net = views.keys().next().copied().filter(|_| self.rng.one_in(2));
        let network = net.map(|net| NetworkName::new(self.plan.networks[net]));
        self.kicks = true;
        self.tell_router(hub, shard, Input::Order(Order::Kick { peer, network, out_for: None }));
        self.kicks = false;
        let stays = match net {
            None => self.clients[client].phase != Phase::Ended,
            Some(net) => self.clients[client].views.contains_key(&net),
        };
        if stays {
            self.complain(format!("{} was kicked, but is still there", self.name(client)));
        }
    }

    /// Closes a network at a hub. The hub removes the members in slices, so the members do not all receive the error at
    /// the same time.
    fn close_network(&mut self, hub: usize) {
        if !self.is_ordered(hub) {
            return;
        }
        let net = self.rng.below(self.plan.networks.len());
        let (name, life) = (self.plan.networks[net], self.hubs[hub].life);
        self.closed.insert((hub, life, net));
        for shard in 0..self.hubs[hub].routers.len() {
            self.tell_router(
                hub,
                shard,
                Input::Order(Order::CloseNetwork { network: NetworkName::new(name), out_for: None }),
            );
        }
    }

    pub(crate) fn any_link(&mut self) -> Option<usize> {
        let those: Vec<usize> = (0..self.links.len()).filter(|&link| !self.links[link].cut).collect();
        (!those.is_empty()).then(|| *self.rng.pick(&those))
    }

    fn bridge_fails(&mut self, hub: usize) {
        let all = self.rng.one_in(2);
        let back = self.now + self.ms(100, 15_000);
        for hub in (0..self.hubs.len()).filter(|&other| all || other == hub) {
            let life = self.hubs[hub].life;
            if self.plan.bridged[hub] {
                let (down, up) = (self.now + self.ms(0, 300), back + self.ms(0, 1_000));
                self.agenda.put(down, Event::Bridge { hub, life, up: false });
                self.agenda.put(up.max(down), Event::Bridge { hub, life, up: true });
            }
        }
    }

    fn double(&mut self) {
        let Some(link) = self.any_link() else { return };
        let edge = self.links[link].edge;
        if self.hubs[edge.0].is_up() && self.hubs[edge.1].is_up() {
            self.link(edge);
            let at = self.now + self.ms(20, 800);
            self.agenda.put(at, Event::Cut { link });
        }
    }

    fn partition(&mut self) {
        let until = self.now + self.ms(500, 20_000);
        let side: Vec<bool> = (0..self.hubs.len()).map(|_| self.rng.one_in(2)).collect();
        let crossing: Vec<_> = self.plan.edges.iter().copied().filter(|&(a, b)| side[a] != side[b]).collect();
        for edge in crossing {
            self.blocked.insert(edge, until);
            if let Some(link) = self.link_between(edge) {
                self.cut(link);
            }
            let at = until + self.ms(0, 500);
            self.agenda.put(at, Event::Dial { a: edge.0, b: edge.1 });
        }
    }

    pub(crate) fn kill(&mut self, hub: usize) {
        if self.hubs[hub].lives() {
            self.vanish(hub);
            let at = if self.rng.one_in(4) { self.ms(10_000, 40_000) } else { self.ms(20, 5_000) };
            self.agenda.put(self.now + at, Event::Start { hub });
        }
    }

    /// Removes a process with all its state.
    fn vanish(&mut self, hub: usize) {
        self.hubs[hub].state = State::Down;
        self.hubs[hub].bridge_told = false;
        let life = self.hubs[hub].life;
        for client in self.those(|c| (c.hub, c.life) == (hub, life) && c.phase != Phase::Ended) {
            self.forget(client);
        }
        // Either the neighbours' sockets end soon, or the neighbours notice nothing until a timeout.
        let silent = self.rng.one_in(4);
        for link in 0..self.links.len() {
            let there =
                |side: usize| self.links[link].ends[side].hub == hub && self.links[link].ends[side].life == life;
            let Some(side) = (0..2).find(|&side| there(side)) else { continue };
            if std::mem::replace(&mut self.links[link].cut, true) {
                continue;
            }
            self.links[link].pipes[1 - side].frames.clear();
            if self.rng.one_in(2) {
                self.links[link].pipes[side].frames.clear();
            }
            let at = self.now + if silent { self.ms(8_000, 12_000) } else { self.ms(60, 400) };
            self.agenda.put(at, Event::EndDown { link, side: 1 - side });
        }
    }

    pub(crate) fn start(&mut self, hub: usize) {
        if self.hubs[hub].lives() {
            return;
        }
        let (place, life) = (self.hubs[hub].place, self.hubs[hub].life + 1);
        let mut id = self.hubs[hub].id;
        if self.rng.one_in(3) {
            id = proto::HubId(proto::PeerId::from_bytes(std::array::from_fn(|_| self.rng.next() as u8)));
        }
        let back = if self.rng.one_in(4) { self.rng.below(120_000) as i64 } else { 0 };
        let skew_ms = self.hubs[hub].skew_ms - back;
        self.hubs[hub] = Hub::with_id(&self.plan, place, id, skew_ms, self.now, &mut self.rng);
        self.hubs[hub].life = life;
        self.wake(hub);
    }

    fn drain(&mut self, hub: usize) {
        if !self.hubs[hub].is_up() {
            return;
        }
        self.hubs[hub].state = State::Draining;
        self.tell_relay(hub, RelayInput::Draining(true));
        let life = self.hubs[hub].life;
        for client in self.those(|c| (c.hub, c.life) == (hub, life) && c.phase != Phase::Ended) {
            let at = self.now + self.ms(0, 1_500);
            self.agenda.put(at, Event::Retire { client });
        }
        self.agenda.put(self.now + Duration::from_secs(4), Event::End { hub, life });
    }

    pub(crate) fn end_hub(&mut self, hub: usize, life: usize) {
        if self.hubs[hub].life != life || self.hubs[hub].state != State::Draining {
            return;
        }
        for client in self.those(|c| (c.hub, c.life) == (hub, life) && c.phase != Phase::Ended) {
            self.lose(client);
        }
        self.tell_relay(hub, RelayInput::Ending);
        self.hubs[hub].state = State::Ended;
        let at = self.now + self.ms(50, 500);
        self.agenda.put(at, Event::Gone { hub, life });
    }

    pub(crate) fn gone(&mut self, hub: usize, life: usize) {
        if self.hubs[hub].life == life && self.hubs[hub].state == State::Ended {
            self.vanish(hub);
            let at = self.now + self.ms(20, 5_000);
            self.agenda.put(at, Event::Start { hub });
        }
    }
}
