//! Tests of relays alone, connected by links that deliver at once. The simulator tests them with shards and delays.

mod bounds;
mod bytes;
mod counters;
mod edges;
mod legacy;
mod namesakes;
mod numbers;
mod replicas;
mod rivals;
mod silence;
mod slices;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU64;

use super::*;
use crate::claim::Claim;
use crate::envelope::EnvelopeKind;
use crate::id::{LinkId, NetworkName, PeerIncarnation, SessionId, ShardId};
use crate::limits::{HEARTBEAT, LEASE, RECEIPT_TIMEOUT, SNAPSHOT_PEERS};
use crate::reason::{CloseReason, ErrorCode, Outcome};
use crate::router::{Announcement, Asker, Discovery, Leave, Origin, Sender, Standing, Stay, ToShard};
use crate::wire::{self, MessageKind, SignalKind};

struct Net {
    now: Now,
    hubs: BTreeMap<u8, Relay>,
    /// Both ends of each link: (hub, link) to (hub, link).
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
    /// Transports without room.
    full: Vec<(u8, Transport)>,
    /// Links that silently drop all data from the first hub to the second.
    swallows: Vec<(u8, u8)>,
    /// Hubs with a new id whose links must be dialed again.
    relink: Vec<u8>,
    events: Vec<(u8, MeshEvent)>,
    /// A hub that forwards no signals.
    loses_signals: Option<u8>,
    /// Hubs whose long work continues only when a test asks for it.
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

    /// Starts a hub with any id.
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
        self.hubs.insert(n, Relay::new(config, self.now));
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

    /// Lets a hub do the next slice of its long work. Returns false if there is none.
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
        // The shard's sockets accept everything at once.
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

    /// A signal that its sender's shard sent through the target's home shard.
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
                relay.hubs.values().all(|r| r.ahead.is_empty() && !r.repair.is_under_way() && r.outcomes.is_empty())
            );
            assert!(relay.links.iter().all(|(_, link)| link.queue().snapshots().is_empty()));
        }
    }
}

const GONE: Duration = Duration::from_secs(LEASE.as_secs() + 2);

#[test]
fn a_peer_is_known_along_a_chain_and_leaves_it() {
    let mut net = Net::chain(4);
    net.joins(1, 7, 0);
    assert_eq!(net.hears(4), ["elsewhere 7", "joined 7 n"]);
    net.leaves(1, 7, 0);
    assert_eq!(net.hears(4), ["left 7 n peer-disconnected", "nowhere 7"]);
    net.pass(HEARTBEAT * 3);
    net.nothing_is_left();
}

#[test]
fn a_late_hub_learns_the_existing_peers() {
    let mut net = Net::chain(2);
    for peer in 10..200 {
        net.joins(1, peer, 0);
    }
    net.start(3);
    net.link(2, 3);
    net.pass(HEARTBEAT * 2);
    assert_eq!(net.hears(3).iter().filter(|line| line.starts_with("joined")).count(), 190);
    net.nothing_is_left();
}

#[test]
fn a_signal_goes_hop_by_hop_and_its_outcome_comes_back() {
    let mut net = Net::chain(4);
    net.joins(1, 7, 0);
    net.joins(4, 8, 0);
    net.pass(HEARTBEAT * 2);
    net.hears(4);
    net.hears(1);
    for ticket in [1, 0, 2] {
        net.signals(1, 7, 8, ticket);
    }
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(4), ["signal 7 8", "signal 7 8", "signal 7 8"]);
    assert_eq!(net.hears(1), ["outcome 8 delivered", "outcome 8 delivered"], "of those with a receipt");
    let now = net.now;
    let stats = net.hubs.get_mut(&1).unwrap().stats(now).clone();
    assert_eq!((stats.relayed, stats.delivered, stats.latency.iter().sum::<u64>()), (3, 1, 3));
    assert_eq!(net.signals, 9, "three hops each");
    net.nothing_is_left();
}

#[test]
fn in_a_full_mesh_one_change_is_one_envelope_for_each_other_hub() {
    for hubs in [3, 5] {
        let mut net = Net::full(hubs);
        let before = net.changes;
        net.opens(1, 7, 0);
        assert_eq!(net.changes - before, usize::from(hubs) - 1, "{hubs} hubs");
    }
}

#[test]
fn a_dead_hubs_peers_leave_once_and_it_returns_with_others() {
    let mut net = Net::full(3);
    net.joins(1, 7, 0);
    net.joins(2, 8, 0);
    net.pass(HEARTBEAT);
    net.kill(1);
    net.hears(2);
    net.hears(3);
    net.signals(2, 8, 7, 0);
    assert_eq!(net.hears(2), ["outcome 7 unreachable"]);
    net.pass(GONE);
    assert_eq!(net.hears(2), ["left 7 n peer-disconnected", "nowhere 7"]);
    assert_eq!(net.hears(3), ["left 7 n peer-disconnected", "nowhere 7"]);
    net.start(1);
    net.link(1, 2);
    net.link(1, 3);
    net.joins(1, 7, 1);
    assert_eq!(net.hears(2), ["elsewhere 7", "joined 7 n"]);
    net.pass(HEARTBEAT * 2);
    net.nothing_is_left();
}

#[test]
fn a_signal_in_flight_to_a_hub_that_dies_is_answered() {
    let mut net = Net::full(2);
    net.joins(1, 7, 0);
    net.joins(2, 8, 0);
    net.pass(HEARTBEAT);
    net.hears(1);
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Signal;
    net.signals(1, 7, 8, 0);
    net.pass(RECEIPT_TIMEOUT + HEARTBEAT);
    assert_eq!(net.hears(1), ["outcome 8 unknown"]);
}

#[test]
fn an_id_that_is_live_on_two_hubs_stays_with_the_later_session() {
    let mut net = Net::new(2);
    net.joins(1, 7, 5);
    net.joins(2, 7, 9);
    net.hears(1);
    net.hears(2);
    net.link(1, 2);
    net.pass(HEARTBEAT);
    let heard = net.hears(1);
    assert!(heard.contains(&"elsewhere 7".to_owned()) && heard.contains(&"joined 7 n".to_owned()), "{heard:?}");
    assert_eq!(net.hears(2), [""; 0], "members here do not learn of the earlier session");
    net.leaves(1, 7, 5);
    assert_eq!(net.hubs[&1].locate(&id(7)), Some(hub(2)));
    assert_eq!(net.hears(2), [""; 0]);
}

#[test]
fn a_lost_change_is_repaired_without_a_repeated_event() {
    let mut net = Net::full(2);
    net.joins(1, 7, 0);
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Change;
    net.joins(1, 8, 0);
    net.leaves(1, 7, 0);
    net.loses = |_| false;
    net.joins(1, 9, 0);
    assert_eq!(net.hears(2), ["elsewhere 7", "joined 7 n"]);
    net.pass(HEARTBEAT * 2);
    let mut heard = net.hears(2);
    heard.sort();
    let told = ["elsewhere 8", "elsewhere 9", "joined 8 n", "joined 9 n", "left 7 n peer-disconnected", "nowhere 7"];
    assert_eq!(heard, told);
    let now = net.now;
    assert_eq!(net.hubs.get_mut(&2).unwrap().stats(now).snapshots, [0, 1]);
    net.nothing_is_left();
}

#[test]
fn a_peer_that_returned_unnoticed_is_known_in_its_new_stay() {
    let mut net = Net::full(2);
    net.opens(1, 7, 0);
    net.announces(1, 7, 0, Stay { number: 1, discovery: Discovery::Closest(8) });
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Change;
    net.says_goodbye(1, 7, 0);
    net.announces(1, 7, 0, Stay { number: 2, discovery: Discovery::Closest(8) });
    net.loses = |_| false;
    net.hears(2);
    net.pass(HEARTBEAT * 2);
    assert_eq!(net.hears(2), ["joined 7 n"], "its new stay has no acquaintances");
    net.says_goodbye(1, 7, 0);
    net.pass(HEARTBEAT * 4);
    let now = net.now;
    assert_eq!(net.hubs.get_mut(&2).unwrap().stats(now).snapshots, [0, 1], "the repair is complete");
    net.nothing_is_left();
}

#[test]
fn a_full_link_answers_at_once_and_is_repaired_later() {
    let mut net = Net::full(2);
    net.joins(2, 8, 0);
    let link = net.hubs[&1].links.used_for(&hub(2)).unwrap();
    net.input(1, RelayInput::Saturated { transport: Transport::Link(link) });
    net.hears(1);
    net.joins(1, 7, 0);
    net.signals(1, 7, 8, 3);
    assert_eq!(net.hears(1), ["outcome 8 unreachable"]);
    assert_eq!(net.hears(2), [""; 0]);
    net.input(1, RelayInput::Room { transport: Transport::Link(link) });
    net.pass(HEARTBEAT * 2);
    assert_eq!(net.hears(2), ["elsewhere 7", "joined 7 n"]);
    net.nothing_is_left();
}

#[test]
fn hubs_on_a_bridge_are_one_mesh_with_those_that_are_linked() {
    let mut net = Net::new(4);
    // 1 and 2 are linked, 2 and 3 are on the bridge, and 3 and 4 are linked.
    net.link(1, 2);
    net.link(3, 4);
    for n in [2, 3] {
        net.bridged.push(n);
        net.input(n, RelayInput::BridgeUp);
        net.run();
    }
    net.pass(HEARTBEAT * 3);
    net.joins(1, 7, 0);
    net.joins(4, 8, 0);
    net.pass(HEARTBEAT * 3);
    assert_eq!(net.hears(4), ["elsewhere 7", "joined 7 n"]);
    net.hears(1);
    net.signals(1, 7, 8, 1);
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(4), ["signal 7 8"]);
    assert_eq!(net.hears(1), ["outcome 8 delivered"]);
    net.bridged.clear();
    for n in [2, 3] {
        net.input(n, RelayInput::BridgeDown);
    }
    net.pass(GONE);
    assert_eq!(net.hears(4), ["left 7 n peer-disconnected", "nowhere 7"]);
    for n in [2, 3] {
        net.bridged.push(n);
        net.input(n, RelayInput::BridgeUp);
    }
    net.pass(HEARTBEAT * 3);
    assert_eq!(net.hears(4), ["elsewhere 7", "joined 7 n"]);
    net.nothing_is_left();
}

#[test]
fn a_takeover_asks_the_hub_that_holds_the_id() {
    let mut net = Net::chain(3);
    net.joins(3, 7, 0);
    net.pass(HEARTBEAT);
    net.hears(3);
    net.hears(1);
    net.letter(1, ToMesh::AskTakeover { peer: id(7), shard: ShardId(0), ticket: 5, resume: None, owner: false });
    assert_eq!(net.hears(3), ["challenge 7"]);
    let life = net.hubs[&1].incarnation();
    let asker = Asker { hub: hub(1), incarnation: life, ticket: 5 };
    net.letter(3, ToMesh::ChallengeAnswered { peer: id(7), asker, in_use: true });
    assert_eq!(net.hears(1), ["answered 5 true"]);
    net.cut(2, 3);
    net.pass(HEARTBEAT * 4);
    net.letter(1, ToMesh::AskTakeover { peer: id(7), shard: ShardId(0), ticket: 6, resume: None, owner: false });
    assert_eq!(net.hears(1), ["answered 6 false"], "a session at an unreachable hub does not keep its id");
}

#[test]
fn a_hub_whose_clock_went_back_is_accepted_when_it_returns() {
    let mut net = Net::full(2);
    net.joins(1, 7, 0);
    net.kill(1);
    net.hears(2);
    net.now.wall_ms -= 3_600_000;
    net.start(1);
    net.link(1, 2);
    net.joins(1, 9, 0);
    net.pass(HEARTBEAT * 3);
    let heard = net.hears(2);
    assert!(heard.contains(&"left 7 n peer-disconnected".to_owned()), "{heard:?}");
    assert!(heard.ends_with(&["elsewhere 9".to_owned(), "joined 9 n".to_owned()]), "{heard:?}");
    net.nothing_is_left();
}

#[test]
fn a_goodbye_is_received_as_a_goodbye() {
    let mut net = Net::chain(3);
    net.joins(1, 7, 0);
    net.joins(3, 9, 0);
    net.hears(1);
    net.hears(3);
    net.says_goodbye(1, 7, 0);
    assert_eq!(net.hears(3), ["left 7 n goodbye"]);
    net.signals(3, 9, 7, 0);
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(1), ["signal 9 7"], "it is still connected");
}

/// Its sender may have sent later signals straight to the mesh.
#[test]
fn a_detoured_signal_is_not_delivered_after_its_target_has_joined() {
    let mut net = Net::chain(2);
    net.opens(1, 7, 0);
    net.joins(2, 8, 0);
    net.pass(HEARTBEAT);
    net.hears(2);
    net.signals_by_detour(2, 8, 7, 1);
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(2), ["outcome 7 delivered"]);
    net.announces(1, 7, 0, Stay::default());
    net.hears(2);
    net.signals_by_detour(2, 8, 7, 2);
    assert_eq!(net.hears(2), ["outcome 7 peer-not-found"]);
    net.says_goodbye(1, 7, 0);
    net.hears(2);
    net.signals_by_detour(2, 8, 7, 3);
    assert_eq!(net.hears(2), ["outcome 7 peer-not-found"], "nor when it has left again");
    // In another session, the target counts as one that has never joined.
    net.leaves(1, 7, 0);
    net.opens(1, 7, 1);
    net.hears(2);
    net.signals_by_detour(2, 8, 7, 4);
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(2), ["outcome 7 delivered"]);
    // A sender that announced itself after its signal, or whose announcement has not arrived yet.
    net.opens(2, 9, 0);
    net.signals_by_detour(2, 9, 7, 5);
    assert_eq!(net.hears(2), ["outcome 7 peer-not-found"]);
}

#[test]
fn a_signal_of_a_departed_sender_is_not_delivered() {
    let mut net = Net::chain(2);
    net.joins(1, 7, 0);
    net.joins(2, 8, 0);
    net.pass(HEARTBEAT);
    net.signals(1, 7, 8, 1);
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(2).pop().unwrap(), "signal 7 8");
    net.hears(1);
    // Its leave arrives over a shorter route.
    let signal = net.signal(7, 8, 2, false);
    net.input(1, RelayInput::Letter(signal));
    let late = net.under_way.pop_back();
    net.leaves(1, 7, 0);
    assert_eq!(net.hears(2), ["left 7 n peer-disconnected", "nowhere 7"]);
    net.under_way.extend(late);
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(2), [""; 0]);
    assert_eq!(net.hears(1), ["outcome 8 unreachable"]);
    net.nothing_is_left();
}

#[test]
fn a_stopping_hub_leaves_at_once() {
    let mut net = Net::full(3);
    net.joins(1, 7, 0);
    net.hears(2);
    net.input(1, RelayInput::Draining(true));
    net.run();
    let now = net.now;
    assert!(net.hubs[&2].hubs(now)[0].draining);
    net.input(1, RelayInput::Draining(false));
    net.run();
    assert!(!net.hubs[&2].hubs(now)[0].draining);
    net.input(1, RelayInput::Draining(true));
    net.run();
    assert!(net.hubs[&2].hubs(now)[0].draining);
    net.input(1, RelayInput::Ending);
    net.run();
    assert_eq!(net.hears(2), ["left 7 n peer-disconnected", "nowhere 7"]);
}

#[test]
fn a_question_is_forwarded_over_a_full_link() {
    let mut net = Net::chain(3);
    net.joins(3, 7, 0);
    net.pass(HEARTBEAT);
    let link = net.hubs[&2].links.used_for(&hub(3)).unwrap();
    net.input(2, RelayInput::Saturated { transport: Transport::Link(link) });
    net.hears(1);
    net.hears(3);
    net.letter(1, ToMesh::AskTakeover { peer: id(7), shard: ShardId(0), ticket: 5, resume: None, owner: false });
    assert_eq!(net.hears(3), ["challenge 7"]);
    assert_eq!(net.hears(1), [""; 0], "the session there must answer");
}

#[test]
fn an_outcome_for_an_earlier_incarnation_is_ignored() {
    let mut net = Net::full(2);
    net.joins(2, 8, 0);
    net.pass(HEARTBEAT);
    let number = net.hubs[&2].hubs[&hub(1)].number;
    net.kill(1);
    net.now.wall_ms += 1;
    net.start(1);
    net.link(1, 2);
    net.joins(1, 7, 1);
    net.pass(HEARTBEAT * 2);
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Signal;
    net.signals(1, 7, 8, 3);
    net.hears(1);
    let sender = Sender::Hub { hub: number, counter: 1, receipt: true };
    let (kind, network, standing) = (SignalKind::Offer, NetworkName::new("n"), Standing::Member(0));
    let origin = Origin { sender, kind, network, standing, read_at: net.now.at };
    net.letter(2, ToMesh::Outcome(OutcomeLetter { origin, target: id(8), outcome: Outcome::Delivered }));
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(1), [""; 0]);
}

#[test]
fn frequent_heartbeats_do_not_delay_the_expiry_of_leases() {
    let mut net = Net::full(2);
    let link = net.hubs[&1].links.used_for(&hub(2)).unwrap();
    net.hubs.remove(&2);
    let killed = net.now.at;
    // Its link to 2 alternates between full and free, and it sends a heartbeat each time.
    while net.hubs[&1].hubs[&hub(2)].is_live() {
        net.input(1, RelayInput::Saturated { transport: Transport::Link(link) });
        net.input(1, RelayInput::Room { transport: Transport::Link(link) });
        net.pass(HEARTBEAT / 2);
        assert!(net.now.at <= killed + LEASE + HEARTBEAT / 2, "no stop was assumed");
    }
}
