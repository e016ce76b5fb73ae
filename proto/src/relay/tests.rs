//! Tests of relays without shards, connected by links without delay. The simulator tests relays with shards and delays.

mod bounds;
mod bytes;
mod counters;
mod edges;
mod forged;
mod legacy;
mod meetings;
mod namesakes;
mod numbers;
mod presence;
mod repairs;
mod replicas;
mod rivals;
mod room;
mod routes;
mod signals;
mod silence;
mod slices;
mod snapshots;
mod traces;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU64;

use super::*;
use crate::claim::Claim;
use crate::envelope::EnvelopeKind;
use crate::id::{LinkId, NetworkName, PeerIncarnation, SessionId, ShardId};
use crate::limits::{HEARTBEAT, LEASE, RECEIPT_TIMEOUT, SNAPSHOT_PEERS};
use crate::reason::{CloseReason, ErrorCode, Outcome};
use crate::router::{Announcement, Asker, Discovery, Leave, Origin, Sender, Standing, Stay, ToShard};
use crate::trace::{Sampling, Span};
use crate::wire::{self, MessageKind, SignalKind};

struct Net {
    now: Now,
    hubs: BTreeMap<u8, Relay>,
    /// Both ends of all links. Each end, as (hub, link), is mapped to the other end.
    wires: BTreeMap<(u8, LinkId), (u8, LinkId)>,
    next_link: u64,
    under_way: VecDeque<(u8, Hop, Envelope)>,
    bridged: Vec<u8>,
    /// Letters posted to each hub's only shard.
    heard: BTreeMap<u8, Vec<String>>,
    texts: Vec<(u8, LinkId, Box<str>)>,
    changes: usize,
    signals: usize,
    loses: fn(&Envelope) -> bool,
    /// Transports whose queues have no room, as (hub, transport).
    full: Vec<(u8, Transport)>,
    /// Pairs of hubs. Links silently drop all data from the first hub to the second.
    swallows: Vec<(u8, u8)>,
    /// Hubs with a new id whose links must be dialed again.
    relink: Vec<u8>,
    events: Vec<(u8, MeshEvent)>,
    spans: Vec<(u8, Span)>,
    /// The share of signals that hubs trace. It is read when a hub starts.
    sampling: Sampling,
    /// A hub whose outgoing signals are lost.
    loses_signals: Option<u8>,
    /// Hubs that do the next slice of long work only when a test calls [`Net::go_on`].
    pauses: Vec<u8>,
    tuning: RelayTuning,
    presence_bytes: usize,
    unfinished: BTreeSet<u8>,
    /// A stopped hub, and the inputs that are queued for it.
    stopped: Option<u8>,
    waits: Vec<(u8, Hop, Envelope)>,
}

fn id(n: u8) -> PeerId {
    let mut bytes = [0; 20];
    bytes[19] = n;
    PeerId::from_bytes(bytes)
}

fn hub(n: u8) -> HubId {
    HubId(id(n))
}

impl Net {
    fn new(hubs: u8) -> Self {
        let mut net = Self {
            now: Now { at: Duration::from_secs(100), wall_ms: 1_700_000_000_000 },
            hubs: BTreeMap::new(),
            wires: BTreeMap::new(),
            next_link: 0,
            under_way: VecDeque::new(),
            bridged: Vec::new(),
            heard: BTreeMap::new(),
            texts: Vec::new(),
            changes: 0,
            signals: 0,
            loses: |_| false,
            full: Vec::new(),
            swallows: Vec::new(),
            relink: Vec::new(),
            events: Vec::new(),
            spans: Vec::new(),
            sampling: Sampling::OFF,
            loses_signals: None,
            pauses: Vec::new(),
            tuning: RelayTuning::default(),
            presence_bytes: usize::MAX,
            unfinished: BTreeSet::new(),
            stopped: None,
            waits: Vec::new(),
        };
        for n in 1..=hubs {
            net.start(n);
        }
        net
    }

    fn chain(hubs: u8) -> Self {
        let mut net = Self::new(hubs);
        (1..hubs).for_each(|n| net.link(n, n + 1));
        net
    }

    fn full(hubs: u8) -> Self {
        let mut net = Self::new(hubs);
        for a in 1..=hubs {
            (a + 1..=hubs).for_each(|b| net.link(a, b));
        }
        net.pass(HEARTBEAT * 2);
        net
    }

    fn start(&mut self, n: u8) {
        self.start_as(n, hub(n), 1);
    }

    /// Starts a hub with the given id and key.
    fn start_as(&mut self, n: u8, hub: HubId, key: u64) {
        let config = RelayConfig {
            discovery: Discovery::All,
            hub,
            incarnation: HubIncarnation(self.now.wall_ms),
            shards: 1,
            keys: Keys(key, 2),
            namespace: "mesh".to_owned(),
            advertise: None,
            public_url: None,
            presence_bytes: self.presence_bytes,
            tuning: self.tuning,
        };
        let mut relay = Relay::new(config, self.now);
        relay.trace(self.sampling);
        self.hubs.insert(n, relay);
        self.heard.insert(n, Vec::new());
    }

    fn link(&mut self, a: u8, b: u8) {
        let (of_a, of_b) = (LinkId(self.next_link), LinkId(self.next_link + 1));
        self.next_link += 2;
        self.wires.insert((a, of_a), (b, of_b));
        self.wires.insert((b, of_b), (a, of_a));
        self.input(
            a,
            RelayInput::LinkUp { link: of_a, hub: self.hubs[&b].hub(), incarnation: self.hubs[&b].incarnation() },
        );
        self.input(
            b,
            RelayInput::LinkUp { link: of_b, hub: self.hubs[&a].hub(), incarnation: self.hubs[&a].incarnation() },
        );
        self.run();
    }

    fn cut(&mut self, a: u8, b: u8) {
        let ends: Vec<_> = self
            .wires
            .iter()
            .filter(|((from, _), (to, _))| (*from, *to) == (a, b) || (*from, *to) == (b, a))
            .map(|(end, _)| *end)
            .collect();
        for end in ends {
            self.wires.remove(&end);
            if self.hubs.contains_key(&end.0) {
                self.input(end.0, RelayInput::LinkDown { link: end.1 });
            }
        }
        self.run();
    }

    fn kill(&mut self, n: u8) {
        self.hubs.remove(&n);
        let others: Vec<u8> = self.hubs.keys().copied().collect();
        others.into_iter().for_each(|other| self.cut(n, other));
    }

    fn input(&mut self, n: u8, input: RelayInput<'_>) {
        let now = self.now;
        if let Some(relay) = self.hubs.get_mut(&n) {
            relay.handle_input(input, now);
            self.drain(n);
        }
    }

    fn drain(&mut self, n: u8) {
        let mut rooms = Vec::new();
        let mut delivered = Vec::new();
        let mut unfinished = false;
        while let Some(output) = self.hubs.get_mut(&n).and_then(Relay::poll_output) {
            match output {
                RelayOutput::Bug(note) => panic!("{note:?}"),
                RelayOutput::Send { to, envelope } => self.sent(n, to, &envelope),
                RelayOutput::SendText { link, text } => self.texts.push((n, link, text)),
                RelayOutput::Backlog { transport } => rooms.push(transport),
                RelayOutput::Letter { letter, .. } => delivered.extend(self.post(n, letter)),
                RelayOutput::Renamed { .. } => self.relink.push(n),
                RelayOutput::Unfinished => unfinished = true,
                RelayOutput::Event(event) => self.events.push((n, event)),
                RelayOutput::Span(span) => self.spans.push((n, *span)),
            }
        }
        rooms.retain(|transport| !self.full.contains(&(n, *transport)));
        rooms.into_iter().for_each(|transport| self.input(n, RelayInput::Room { transport }));
        delivered.into_iter().for_each(|letter| self.input(n, RelayInput::Letter(letter)));
        if unfinished && !self.unfinished.insert(n) {
            panic!("hub {n} reports unfinished work again before Continue");
        }
        if unfinished && !self.pauses.contains(&n) {
            self.go_on(n);
        }
    }

    /// Lets a hub do the next slice of its long work. Returns false if the hub has no long work.
    fn go_on(&mut self, n: u8) -> bool {
        let had = self.unfinished.remove(&n);
        if had {
            self.input(n, RelayInput::Continue);
        }
        had
    }

    fn sent(&mut self, n: u8, to: Destination, envelope: &Envelope) {
        let mut bytes = Vec::new();
        envelope.encode(&mut bytes);
        let decoded = || Envelope::decode(&mut &bytes[..]).unwrap().unwrap();
        self.changes += usize::from(matches!(envelope, Envelope::Change(_)));
        self.signals += usize::from(envelope.kind() == EnvelopeKind::Signal);
        if (self.loses)(envelope) || self.loses_signals == Some(n) && envelope.kind() == EnvelopeKind::Signal {
            return;
        }
        match to {
            Destination::Link(link) => {
                if let Some((other, link)) = self.wires.get(&(n, link))
                    && !self.swallows.contains(&(n, *other))
                {
                    self.under_way.push_back((*other, Hop::Link(*link), decoded()));
                }
            }
            Destination::Everyone => {
                let own = self.hubs.get(&n).map_or(hub(n), Relay::hub);
                for &other in self.bridged.iter().filter(|other| **other != n) {
                    self.under_way.push_back((other, Hop::Bridge(own), decoded()));
                }
            }
            Destination::Bridged(other) => {
                let other = other.0.as_bytes()[19];
                if self.bridged.contains(&other) {
                    self.under_way.push_back((other, Hop::Bridge(hub(n)), decoded()));
                }
            }
        }
    }

    /// Records a letter for a shard, and returns the shard's answer.
    fn post(&mut self, n: u8, letter: ToShard) -> Option<ToMesh> {
        let digit = |peer: &PeerId| peer.as_bytes()[19];
        let line = match &letter {
            ToShard::Joined(a) => format!("joined {} {}", digit(&a.peer), a.network),
            ToShard::Left(f) => format!("left {} {} {}", digit(&f.peer), f.network, f.kind.label()),
            ToShard::Elsewhere { peer, .. } => format!("elsewhere {}", digit(peer)),
            ToShard::Nowhere { peer, .. } => format!("nowhere {}", digit(peer)),
            ToShard::Signal(SignalLetter { from, target, .. }) => format!("signal {} {}", digit(from), digit(target)),
            ToShard::Outcome(OutcomeLetter { target, outcome, .. }) => {
                format!("outcome {} {}", digit(target), outcome.label())
            }
            ToShard::Challenge { peer, .. } => format!("challenge {}", digit(peer)),
            ToShard::TakeoverAnswered { in_use, ticket, .. } => format!("answered {ticket} {in_use}"),
            ToShard::Renamed { .. } => "renamed".to_owned(),
            ToShard::Meeting(m) => format!("meeting {} {:?} {:?}", digit(&m.about), m.to, m.kind),
        };
        self.heard.get_mut(&n).unwrap().push(line);
        // The shard's sockets accept every signal immediately.
        let ToShard::Signal(SignalLetter { origin, target, .. }) = letter else { return None };
        Some(ToMesh::Outcome(OutcomeLetter { origin, target, outcome: Outcome::Delivered }))
    }

    fn run(&mut self) {
        while let Some((n, via, envelope)) = self.under_way.pop_front() {
            if self.stopped == Some(n) {
                self.waits.push((n, via, envelope));
            } else {
                self.input(n, RelayInput::Received { via, envelope });
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now.at + time;
        while self.now.at < until {
            self.now.at += Duration::from_millis(50);
            self.now.wall_ms += 50;
            let now = self.now;
            for n in self.hubs.keys().copied().filter(|&n| self.stopped != Some(n)).collect::<Vec<_>>() {
                let relay = self.hubs.get_mut(&n).unwrap();
                if relay.poll_timeout().is_some_and(|at| at <= now.at) {
                    relay.handle_timeout(now);
                    self.drain(n);
                }
            }
            self.run();
        }
    }

    fn letter(&mut self, n: u8, letter: ToMesh) {
        self.input(n, RelayInput::Letter(letter));
        self.run();
    }

    fn claim(&self, n: u8, session: u64) -> Claim {
        Claim { incarnation: PeerIncarnation(1000 + session), hub: hub(n) }
    }

    fn opens(&mut self, n: u8, peer: u8, session: u64) {
        let claim = self.claim(n, session);
        self.letter(n, ToMesh::Opened { peer: id(peer), claim });
    }

    fn joins(&mut self, n: u8, peer: u8, session: u64) {
        self.opens(n, peer, session);
        self.announces(n, peer, session, Stay::default());
    }

    fn announces(&mut self, n: u8, peer: u8, session: u64, stay: Stay) {
        self.announces_data(n, peer, session, stay, None);
    }

    fn announces_data(&mut self, n: u8, peer: u8, session: u64, stay: Stay, data: Option<&str>) {
        let claim = self.claim(n, session);
        let network = NetworkName::new("n");
        let data = crate::codec::describe(&id(peer), data).unwrap();
        let discovered = Arc::new(wire::peer_discovered(&data, claim.incarnation, "n", 0));
        let announcement = Announcement { peer: id(peer), network, claim, remote: false, stay, discovered };
        self.letter(n, ToMesh::Joined(Arc::new(announcement)));
    }

    fn says_goodbye(&mut self, n: u8, peer: u8, session: u64) {
        let (network, claim) = (NetworkName::new("n"), self.claim(n, session));
        let frame = Arc::new(wire::goodbye(&id(peer), "null", "n", 0));
        let leave = Leave { peer: id(peer), network, claim, frame, kind: MessageKind::Goodbye };
        self.letter(n, ToMesh::Left(Arc::new(leave)));
    }

    fn leaves(&mut self, n: u8, peer: u8, session: u64) {
        let claim = self.claim(n, session);
        self.letter(n, ToMesh::Closed { peer: id(peer), claim, reason: CloseReason::ClientClosed });
    }

    fn signal(&self, from: u8, target: u8, ticket: u64, detour: bool) -> ToMesh {
        let mut frame = Vec::new();
        let range = wire::signal(&mut frame, SignalKind::Offer, "null", &id(from), &id(target), "n", 0);
        let session = SessionId { slot: 0, generation: 0 };
        let sender = Sender::Session { shard: ShardId(0), session, ticket: NonZeroU64::new(ticket), detour };
        let (kind, network, standing) = (SignalKind::Offer, NetworkName::new("n"), Standing::Member(0));
        let origin = Origin { sender, kind, network, standing, read_at: self.now.at };
        ToMesh::Signal(SignalLetter { origin, from: id(from), target: id(target), frame: frame[range].into() })
    }

    fn signals(&mut self, n: u8, from: u8, target: u8, ticket: u64) {
        let letter = self.signal(from, target, ticket, false);
        self.letter(n, letter);
    }

    /// Posts a signal that has made the detour through the target's home shard.
    fn signals_by_detour(&mut self, n: u8, from: u8, target: u8, ticket: u64) {
        let letter = self.signal(from, target, ticket, true);
        self.letter(n, letter);
    }

    fn hears(&mut self, n: u8) -> Vec<String> {
        std::mem::take(self.heard.get_mut(&n).unwrap())
    }

    fn nothing_is_left(&mut self) {
        let now = self.now;
        for (n, relay) in &mut self.hubs {
            let stats = relay.stats(now).clone();
            assert_eq!((stats.in_flight, stats.held, stats.presence_lag_ms), (0, 0, 0), "hub {n}");
            assert!(
                relay
                    .hubs
                    .values()
                    .all(|r| r.ahead.is_empty() && !r.repair.is_under_way() && r.outcomes.collected().is_empty())
            );
            assert!(relay.links.iter().all(|(_, link)| link.queue().snapshots().is_empty()));
        }
    }
}

const GONE: Duration = Duration::from_secs(LEASE.as_secs() + 2);
