//! Checks at the end of a run, when the mesh is at rest: how many envelopes a single change and a single signal cause,
//! and how hubs react to a single fault.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proto::envelope::EnvelopeKind;
use proto::{PeerId, limits};

use super::clients::Phase;
use super::world::World;

/// The links between hubs.
struct Graph {
    neighbours: BTreeMap<usize, BTreeSet<usize>>,
    links: usize,
}

impl Graph {
    fn is_full(&self) -> bool {
        self.neighbours.values().all(|those| those.len() == self.neighbours.len() - 1)
    }

    fn is_tree(&self) -> bool {
        self.links + 1 == self.neighbours.len()
    }

    fn distance(&self, from: usize, to: usize) -> Option<usize> {
        let mut far = BTreeMap::from([(from, 0)]);
        let mut next = VecDeque::from([from]);
        while let Some(here) = next.pop_front() {
            for &there in &self.neighbours[&here] {
                if !far.contains_key(&there) {
                    far.insert(there, far[&here] + 1);
                    next.push_back(there);
                }
            }
        }
        far.get(&to).copied()
    }
}

impl World {
    fn graph(&self) -> Graph {
        let up = (0..self.hubs.len()).filter(|&hub| self.hubs[hub].lives());
        let mut neighbours: BTreeMap<_, BTreeSet<_>> = up.map(|hub| (hub, BTreeSet::new())).collect();
        let edges: BTreeSet<_> = self.links.iter().filter(|link| !link.cut).map(|link| link.edge).collect();
        for &(a, b) in &edges {
            neighbours.entry(a).or_default().insert(b);
            neighbours.entry(b).or_default().insert(a);
        }
        Graph { neighbours, links: edges.len() }
    }

    pub(crate) fn epilogue(&mut self) {
        for _ in 0..3 {
            self.one_change();
        }
        for _ in 0..8 {
            self.one_signal();
        }
        self.one_leave();
        if self.rng.one_in(2) {
            self.one_silent_link();
        }
        self.one_newcomer();
        self.one_resumes();
    }

    /// Checks that a peer without another session is admitted at once.
    fn one_newcomer(&mut self) {
        let hub = self.rng.below(self.hubs.len());
        let gone = |peer: &PeerId| !self.clients.iter().any(|c| c.phase != Phase::Ended && c.peer == *peer);
        let Some(peer) = self.plan.peers.iter().rposition(gone) else { return };
        if !self.hubs[hub].is_up() || !self.complaints.is_empty() {
            return;
        }
        self.open(hub, peer);
        let client = self.clients.len() - 1;
        if self.clients[client].phase != Phase::Open {
            self.complain(format!("{} waits for its id, which no other session has", self.name(client)));
        }
        self.pass(Duration::from_secs(2) + 2 * self.transit());
    }

    /// Checks that a client with the latest secret of an id takes the id over at once, at any hub, and that the
    /// replaced client cannot take the id back.
    fn one_resumes(&mut self) {
        let up: Vec<usize> = (0..self.hubs.len()).filter(|&hub| self.hubs[hub].is_up()).collect();
        let Some(first) = self.any(|client| client.phase == Phase::Open && client.lineage.is_some()) else { return };
        if !self.complaints.is_empty() || up.is_empty() || self.plan.old.contains(&true) {
            return;
        }
        let Some(peer) = self.plan.peers.iter().position(|peer| *peer == self.clients[first].peer) else { return };
        let secret = self.clients[first].lineage;
        self.clients[first].answers = true;
        let hub = *self.rng.pick(&up);
        self.open_with(hub, peer, secret);
        let second = self.clients.len() - 1;
        self.clients[second].answers = true;
        self.pass(Duration::from_secs(1) + 2 * self.transit());
        if (self.clients[first].phase, self.clients[second].phase) != (Phase::Ended, Phase::Open) {
            self.complain(format!("{} did not take the place of {}", self.name(second), self.name(first)));
        }
        let hub = *self.rng.pick(&up);
        self.open_with(hub, peer, secret);
        let third = self.clients.len() - 1;
        self.pass(Duration::from_secs(3) + 4 * self.transit());
        if (self.clients[second].phase, self.clients[third].phase) != (Phase::Open, Phase::Ended) {
            self.complain(format!("{} was replaced by {}", self.name(second), self.name(third)));
        }
        if self.is_bounded() {
            // Peers that knew the replaced client now look for other acquaintances, one after another.
            self.pass(limits::MEETING_AGAIN);
        }
    }

    fn one_change(&mut self) {
        let Some(client) = self.any(|client| client.phase == Phase::Open) else { return };
        if !self.complaints.is_empty() {
            return;
        }
        let net = self.rng.below(self.plan.networks.len());
        self.sent = Default::default();
        self.announce(client, net);
        self.pass(Duration::from_secs(2) + 2 * self.transit());
        self.only(&[EnvelopeKind::Heartbeat, EnvelopeKind::Change], "for one change");
        let graph = self.graph();
        let (changes, hubs) = (self.sent[EnvelopeKind::Change as usize], graph.neighbours.len() as u64);
        let exact = self.plan.is_bridgeless() && (graph.is_full() || graph.is_tree());
        let most = if exact { hubs - 1 } else { 2 * graph.links as u64 + hubs };
        if (changes < hubs - 1 && self.plan.is_bridgeless()) || changes > most {
            self.complain(format!("one change among {hubs} hubs cost {changes} envelopes"));
        }
    }

    /// Makes a link drop all data, in one direction or both, while it stays open. Checks that after three seconds
    /// signals use another route, if there is one, and that no hub counts as lost.
    fn one_silent_link(&mut self) {
        if !self.complaints.is_empty() {
            return;
        }
        let Some(link) = self.any_link() else { return };
        let (a, b) = self.links[link].edge;
        let mut graph = self.graph();
        for (here, there) in [(a, b), (b, a)] {
            graph.neighbours.entry(here).and_modify(|those| _ = those.remove(&there));
        }
        let bridged = self.hubs[a].bridge_told && self.hubs[b].bridge_told;
        if graph.distance(a, b).is_none() && !bridged {
            return;
        }
        let sides = *self.rng.pick(&[[true, true], [true, false], [false, true]]);
        self.swallow(link, sides);
        self.pass(Duration::from_secs(3) + 2 * self.transit());
        let mut sent = Vec::new();
        for _ in 0..6 {
            sent.extend(self.any_pair().map(|(client, net, target)| self.signal_with(client, target, net, true)));
        }
        self.pass(Duration::from_secs(1) + 4 * self.transit());
        for number in sent {
            let signal = &self.signals.all[number];
            // Under bounded discovery, the target's hub may refuse to introduce the sender, whatever link the signal
            // uses.
            if signal.receipt.as_deref() == Some("network-full") {
                continue;
            }
            if (signal.handed.is_none() || signal.receipt.as_deref() != Some("delivered")) && self.complaints.is_empty()
            {
                self.complain(format!(
                    "a signal that could avoid the silent link {a}-{b} ({sides:?}) had the outcome {signal:?}"
                ));
            }
        }
        self.at_rest();
        self.cut(link);
        self.pass(Duration::from_secs(20));
    }

    /// Picks a client, one of its networks, and a peer that it knows there.
    fn any_pair(&mut self) -> Option<(usize, usize, PeerId)> {
        let client = self.any(|client| client.phase == Phase::Open && !client.views.is_empty())?;
        let views = self.clients[client].views.iter();
        let known: Vec<_> = views.flat_map(|(&net, view)| view.told.keys().map(move |&peer| (net, peer))).collect();
        let (net, target) = *known.get(self.rng.below(known.len().max(1)))?;
        Some((client, net, target))
    }

    /// Checks that one leave causes no envelopes except heartbeats and changes: no hub needs a repair.
    fn one_leave(&mut self) {
        let Some(client) = self.any(|client| client.phase == Phase::Open && !client.views.is_empty()) else { return };
        if !self.complaints.is_empty() {
            return;
        }
        self.sent = Default::default();
        self.lose(client);
        self.pass(Duration::from_secs(2) + 2 * self.transit());
        self.only(&[EnvelopeKind::Heartbeat, EnvelopeKind::Change], "for one leave");
    }

    fn one_signal(&mut self) {
        let Some(client) = self.any(|client| client.phase == Phase::Open && !client.views.is_empty()) else { return };
        let views = self.clients[client].views.iter();
        let known: Vec<_> = views.flat_map(|(&net, view)| view.told.keys().map(move |&peer| (net, peer))).collect();
        if known.is_empty() || !self.complaints.is_empty() {
            return;
        }
        let (net, target) = *self.rng.pick(&known);
        let wants_receipt = self.rng.one_in(2);
        let Some(other) = self.clients.iter().find(|c| c.phase == Phase::Open && c.peer == target) else { return };
        let (from, to) = (self.clients[client].hub, other.hub);
        self.sent = Default::default();
        let number = self.signal_with(client, target, net, wants_receipt);
        self.pass(Duration::from_secs(2) + 2 * self.transit());
        let signal = &self.signals.all[number];
        let delivered = signal.handed.is_some() && (!wants_receipt || signal.receipt.as_deref() == Some("delivered"));
        if !delivered && self.complaints.is_empty() {
            self.complain(format!("a signal at rest had the outcome {signal:?}"));
        }
        self.only(&[EnvelopeKind::Heartbeat, EnvelopeKind::Outcomes, EnvelopeKind::Signal], "for one signal");
        let graph = self.graph();
        let cost = self.sent[EnvelopeKind::Signal as usize] as usize;
        let outcomes = self.sent[EnvelopeKind::Outcomes as usize] as usize;
        let distance = graph.distance(from, to);
        let right = |cost: usize| match distance {
            Some(distance) if distance <= 1 => cost == distance,
            Some(distance) if self.plan.is_bridgeless() && graph.is_tree() => cost == distance,
            _ => cost > 0 && cost < graph.neighbours.len(),
        };
        if self.complaints.is_empty() && !(right(cost) && right(outcomes)) {
            self.complain(format!(
                "one signal from h{from} to h{to} cost {cost} envelopes, and its outcome {outcomes}"
            ));
        }
    }
}
