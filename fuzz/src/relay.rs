mod rogue;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proto::envelope::{ChangeKind, Envelope};
use proto::trace::Sampling;
use proto::{
    Announcement, Budget, CloseReason, Frame, Hop, HubId, HubIncarnation, Input, Keys, LinkId, MessageKind, Now,
    Output, PeerId, Relay, RelayConfig, RelayInput, RelayOutput, RelayTuning, ResumeKeys, Router, RouterConfig,
    RouterTuning, SessionId, ShardId, Slices, ToMesh, ToShard, Transport,
};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Two honest hubs must not panic or break an invariant, whatever a rogue hub with their token sends. The rogue hub can
/// also send in the name of other hubs.
///
/// The bytes are a script of steps of equal length, so that the removal of a step does not change the other steps.
pub fn relay(bytes: &[u8]) {
    run(bytes);
}

/// After the rogue hub of a script has left, every peer must again know exactly the other live members of its networks.
/// 60,000 random scripts were tried, and none of them failed.
pub fn relay_heals(bytes: &[u8]) {
    assert_eq!(
        run(bytes).is_whole(),
        Ok(()),
        "a peer knows the wrong members {REST_SECS} s after the rogue hub has left"
    );
}

fn run(bytes: &[u8]) -> Mesh {
    let mut mesh = Mesh::new();
    let mut steps = bytes.as_chunks().0.iter().take(400);
    while let Some(step) = steps.next() {
        mesh.step(*step, &mut steps);
        mesh.audit();
    }
    mesh.come_to_rest();
    mesh
}

/// The kind of step, its subject, and three bytes whose meaning depends on the kind.
type Step = [u8; 5];

const NETWORKS: [&str; 2] = ["n", "global"];
const START_MS: u64 = 1_700_000_000_000;
/// Time after which no hub may know the rogue hub any more. The time is the rogue hub's lease plus a few heartbeats.
const FORGOTTEN_SECS: u64 = 12;
/// Time after which every peer must know all other members again.
const REST_SECS: u64 = 120;
/// Maximum number of recorded frames of the honest hubs.
const RECORDED: usize = 64;

/// Two honest hubs, the link between them, and the links of a rogue hub.
struct Mesh {
    hubs: [Hub; 2],
    at: Duration,
    links: u64,
    /// The ends of the link between the honest hubs while it is up.
    link: Option<[LinkId; 2]>,
    /// The frames in flight to each honest hub over the link between them.
    wires: [VecDeque<Vec<u8>>; 2],
    /// Frames that honest hubs have sent, which the rogue hub can read and repeat.
    recorded: Vec<Vec<u8>>,
}

/// One hub with one shard, and its clients.
struct Hub {
    id: HubId,
    router: Router,
    relay: Relay,
    to_mesh: VecDeque<ToMesh>,
    to_shard: VecDeque<ToShard>,
    sessions: BTreeMap<SessionId, Client>,
    opened: u32,
    /// The rogue hub's link to this hub, and the id that the rogue hub uses on this link.
    rogue: Option<(LinkId, HubId)>,
    legacy: Option<LinkId>,
    /// Transports whose queues are full, so that the relay waits for room.
    backlogs: Vec<Transport>,
    is_bridged: bool,
}

struct Client {
    peer: PeerId,
    admitted: bool,
    retiring: bool,
    backlog: bool,
    ping: Option<[u8; 8]>,
    /// The networks in which the client has announced itself, with the peers that it knows there.
    networks: BTreeMap<String, BTreeSet<PeerId>>,
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n % 6; 20])
}

impl Hub {
    fn new(n: u8, now: Now) -> Self {
        let id = HubId(PeerId::from_bytes([0xa0 + n; 20]));
        let keys = Keys(n.into(), 2);
        let router = RouterConfig {
            meshed: true,
            budget: Budget::UNLIMITED,
            network_budget: Budget::UNLIMITED,
            tuning: RouterTuning { roster_chunk: 2, ..RouterTuning::default() },
            ..RouterConfig::single(id, keys, ResumeKeys::new("mesh", b"key", None))
        };
        let slices = Slices { letters: 3, peers: 2, changes: 2, discarded: 2, kept: 4 };
        let relay = RelayConfig {
            hub: id,
            incarnation: HubIncarnation(now.wall_ms + u64::from(n)),
            shards: 1,
            keys,
            namespace: "mesh".to_owned(),
            discovery: proto::Discovery::All,
            advertise: None,
            public_url: None,
            presence_bytes: 16 * 1024,
            tuning: RelayTuning { slices, max_peers_per_hub: 8, ..RelayTuning::default() },
        };
        Self {
            id,
            router: Router::new(router),
            relay: traced(Relay::new(relay, now)),
            to_mesh: VecDeque::new(),
            to_shard: VecDeque::new(),
            sessions: BTreeMap::new(),
            opened: 0,
            rogue: None,
            legacy: None,
            backlogs: Vec::new(),
            is_bridged: false,
        }
    }
}

/// Traces all signals, so that spans of forged signals are made, too.
fn traced(mut relay: Relay) -> Relay {
    relay.trace(Sampling::ALL);
    relay
}

impl Mesh {
    fn new() -> Self {
        let now = Now { at: Duration::ZERO, wall_ms: START_MS };
        let mut mesh = Self {
            hubs: [Hub::new(0, now), Hub::new(1, now)],
            at: Duration::ZERO,
            links: 0,
            link: None,
            wires: [VecDeque::new(), VecDeque::new()],
            recorded: Vec::new(),
        };
        mesh.connect();
        mesh.become_idle();
        mesh
    }

    fn now(&self) -> Now {
        Now { at: self.at, wall_ms: START_MS + self.at.as_millis() as u64 }
    }

    fn step<'s>(&mut self, [action, who, x, y, z]: Step, following: &mut impl Iterator<Item = &'s Step>) {
        let hub = usize::from(x & 1);
        match action % 16 {
            0 => self.open(hub, peer(who)),
            1 => _ = self.one_letter(who),
            2 => self.become_idle(),
            3 => self.pass([1, 300, 2_000, 9_000][usize::from(x >> 1 & 3)]),
            kind @ 4..=7 => self.client(hub, who, kind, y, z),
            8 if self.link.is_some() => self.disconnect(),
            8 => self.connect(),
            9 => self.rogue_link(hub, who),
            10 => {
                let Some(frame) = self.recorded.get(usize::from(who) % self.recorded.len().max(1)) else { return };
                let mut frame = frame.clone();
                let at = usize::from(y) % frame.len();
                frame[at] = frame[at].wrapping_add(z);
                self.rogue_sends(hub, &frame, x >> 1 & 3 == 3);
            }
            11 | 12 => {
                let frame = rogue::frame(who, &self.parts(x >> 2, y, z));
                self.rogue_sends(hub, &frame, x & 2 != 0);
            }
            13 => {
                let bytes = following.take((who % 32).into()).flatten().copied().collect::<Vec<_>>();
                if y & 1 == 0 {
                    let mut frame = (bytes.len() as u32).to_le_bytes().to_vec();
                    frame.extend(bytes);
                    self.rogue_sends(hub, &frame, z & 1 == 0);
                } else if let Some(link) = self.hubs[hub].legacy {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    self.tell_relay(hub, RelayInput::LegacyText { link, text: &text });
                }
            }
            14 => match self.hubs[hub].legacy {
                Some(link) if who < 16 => {
                    self.hubs[hub].legacy = None;
                    self.tell_relay(hub, RelayInput::LinkDown { link });
                }
                Some(link) => {
                    let text = rogue::legacy(who, &self.parts(x >> 2, y, z));
                    self.tell_relay(hub, RelayInput::LegacyText { link, text: &text });
                }
                None => {
                    let link = self.new_link();
                    self.hubs[hub].legacy = Some(link);
                    let other = HubId(PeerId::from_bytes([0xc0; 20]));
                    self.tell_relay(hub, RelayInput::LegacyUp { link, hub: other, dialed: y & 1 == 0 });
                }
            },
            _ => self.transport(hub, who, y, z),
        }
    }

    /// The content of an envelope of the rogue hub. The lowest two bits of `x` and of `y` select the hubs that the
    /// envelope names.
    fn parts(&self, x: u8, y: u8, z: u8) -> rogue::Parts {
        let hub = |n: u8| {
            let later = u64::from(n >> 2 & 1);
            match n & 3 {
                honest @ (0 | 1) => {
                    let relay = &self.hubs[usize::from(honest)].relay;
                    (relay.hub(), relay.incarnation().0 + later)
                }
                rogue => (HubId(PeerId::from_bytes([0xe0 + rogue; 20])), START_MS + later),
            }
        };
        rogue::Parts {
            hubs: [hub(x), hub(y)],
            peers: [peer(y >> 3), peer(z >> 3)],
            session: START_MS + self.at.as_millis() as u64 * u64::from(y & 1),
            network: NETWORKS[usize::from(x >> 3 & 1)],
            numbers: [u64::from(z % 8), u64::from(y % 8)],
        }
    }

    fn client(&mut self, hub: usize, who: u8, kind: u8, y: u8, z: u8) {
        let names: Vec<SessionId> = self.hubs[hub].sessions.keys().copied().collect();
        let Some(&session) = names.get(usize::from(who) % names.len().max(1)) else { return };
        let client = &self.hubs[hub].sessions[&session];
        let network = NETWORKS[usize::from(y & 1)];
        match kind {
            7 if z & 3 == 0 => return self.end(hub, session),
            7 if z & 3 == 1 => return self.pong(hub, session),
            _ if !client.admitted || client.retiring => return,
            _ => {}
        }
        let text = match kind {
            4 | 5 => format!(r#"{{"type":"announce","networkName":"{network}","data":{{"z":{z}}}}}"#),
            6 => {
                let id = if y & 2 == 0 { r#","id":"r""# } else { "" };
                format!(r#"{{"type":"offer","targetPeerId":"{}","networkName":"{network}"{id}}}"#, peer(z))
            }
            _ => format!(r#"{{"type":"goodbye","networkName":"{network}"}}"#),
        };
        if let (4 | 5, Some(client)) = (kind, self.hubs[hub].sessions.get_mut(&session)) {
            client.networks.entry(network.to_owned()).or_default();
        }
        self.tell_router(hub, Input::Message { session, text: &text });
        if let (7, Some(client)) = (kind, self.hubs[hub].sessions.get_mut(&session)) {
            client.networks.remove(network);
        }
    }

    fn open(&mut self, hub: usize, peer: PeerId) {
        let Hub { sessions, opened, .. } = &mut self.hubs[hub];
        let Some(slot) = (0..).find(|&slot| sessions.keys().all(|id| id.slot != slot)) else { return };
        *opened += 1;
        let session = SessionId { slot, generation: *opened };
        let client =
            Client { peer, admitted: false, retiring: false, backlog: false, ping: None, networks: BTreeMap::new() };
        sessions.insert(session, client);
        self.tell_router(hub, Input::Opened { session, peer, seat: true, resume: None, owner: false, grant: None });
    }

    fn end(&mut self, hub: usize, session: SessionId) {
        self.hubs[hub].sessions.remove(&session);
        self.tell_router(hub, Input::Closed { session, reason: CloseReason::ConnectionLost });
    }

    fn pong(&mut self, hub: usize, session: SessionId) {
        let ping = self.hubs[hub].sessions.get_mut(&session).and_then(|client| client.ping.take());
        if let Some(payload) = ping {
            self.tell_router(hub, Input::Pong { session, payload: &payload });
        }
    }

    fn new_link(&mut self) -> LinkId {
        self.links += 1;
        LinkId(self.links)
    }

    fn connect(&mut self) {
        let ends = [self.new_link(), self.new_link()];
        self.link = Some(ends);
        for (hub, link) in ends.into_iter().enumerate() {
            let other = &self.hubs[1 - hub].relay;
            let up = RelayInput::LinkUp { link, hub: other.hub(), incarnation: other.incarnation() };
            self.tell_relay(hub, up);
        }
    }

    fn disconnect(&mut self) {
        let Some(ends) = self.link.take() else { return };
        for (hub, link) in ends.into_iter().enumerate() {
            self.wires[hub].clear();
            self.tell_relay(hub, RelayInput::LinkDown { link });
        }
    }

    fn rogue_link(&mut self, hub: usize, who: u8) {
        if let Some((link, _)) = self.hubs[hub].rogue.take() {
            return self.tell_relay(hub, RelayInput::LinkDown { link });
        }
        let (other, incarnation) = self.parts(who, 0, 0).hubs[0];
        let incarnation = HubIncarnation(incarnation);
        if other == self.hubs[hub].relay.hub() {
            return self.tell_relay(hub, RelayInput::Namesake { incarnation, process: who.into() });
        }
        let link = self.new_link();
        self.hubs[hub].rogue = Some((link, other));
        self.tell_relay(hub, RelayInput::LinkUp { link, hub: other, incarnation });
    }

    fn rogue_sends(&mut self, hub: usize, frame: &[u8], by_bridge: bool) {
        let via = match self.hubs[hub].rogue {
            _ if by_bridge && self.hubs[hub].is_bridged => Hop::Bridge(HubId(PeerId::from_bytes([0xe2; 20]))),
            Some((link, _)) => Hop::Link(link),
            None => return,
        };
        self.receive(hub, via, frame);
    }

    fn receive(&mut self, hub: usize, via: Hop, frame: &[u8]) {
        let mut rest = frame;
        while let Ok(Some(envelope)) = Envelope::decode(&mut rest) {
            if !matches!(envelope, Envelope::Hello(_)) && names_its_peers(&envelope) {
                self.tell_relay(hub, RelayInput::Received { via, envelope });
            }
        }
    }

    /// Lets a queue to another hub become full or empty, lets the bridge fail or work again, or reports that a link has
    /// received data.
    fn transport(&mut self, hub: usize, who: u8, y: u8, z: u8) {
        let link = match who % 4 {
            0 => self.link.map(|ends| ends[hub]),
            1 => self.hubs[hub].rogue.map(|(link, _)| link),
            2 => self.hubs[hub].legacy,
            _ => None,
        };
        let is_bridged = self.hubs[hub].is_bridged;
        let transport = link.map(Transport::Link).or(is_bridged.then_some(Transport::Bridge));
        match (y % 4, transport) {
            (0, Some(transport)) => {
                self.tell_relay(hub, RelayInput::Saturated { transport });
                self.hubs[hub].backlogs.push(transport);
            }
            (1, Some(transport)) => {
                if let Some(at) = self.hubs[hub].backlogs.iter().position(|waits| *waits == transport) {
                    self.hubs[hub].backlogs.remove(at);
                    self.tell_relay(hub, RelayInput::Room { transport });
                }
            }
            (2, _) => {
                self.hubs[hub].is_bridged = !is_bridged || z & 1 == 0;
                let still = self.hubs[hub].is_bridged;
                self.tell_relay(hub, if still { RelayInput::BridgeUp } else { RelayInput::BridgeDown });
            }
            (3, Some(Transport::Link(link))) => self.tell_relay(hub, RelayInput::Heard { link }),
            _ => {}
        }
    }

    fn pass(&mut self, ms: u64) {
        self.at += Duration::from_millis(ms);
        let now = self.now();
        for hub in 0..2 {
            if self.hubs[hub].router.poll_timeout().is_some_and(|due| due <= now.at) {
                self.hubs[hub].router.handle_timeout(now);
                self.drain_router(hub);
            }
            if self.hubs[hub].relay.poll_timeout().is_some_and(|due| due <= now.at) {
                self.hubs[hub].relay.handle_timeout(now);
                self.drain_relay(hub);
            }
        }
    }

    fn one_letter(&mut self, which: u8) -> bool {
        for lane in 0..6 {
            let lane = (usize::from(which) + lane) % 6;
            let hub = lane % 2;
            match lane / 2 {
                0 => {
                    if let Some(letter) = self.hubs[hub].to_mesh.pop_front() {
                        self.tell_relay(hub, RelayInput::Letter(letter));
                        return true;
                    }
                }
                1 => {
                    if let Some(letter) = self.hubs[hub].to_shard.pop_front() {
                        self.tell_router(hub, Input::Letter(letter));
                        return true;
                    }
                }
                _ => {
                    if let (Some(frame), Some(ends)) = (self.wires[hub].pop_front(), self.link) {
                        self.receive(hub, Hop::Link(ends[hub]), &frame);
                        return true;
                    }
                }
            }
        }
        false
    }

    fn become_idle(&mut self) {
        for step in 0.. {
            assert!(step < 100_000, "the hubs do not become idle");
            if self.one_letter(0) {
                continue;
            }
            let waits = |hub: &Hub| {
                hub.sessions.iter().find(|(_, client)| client.backlog || client.retiring).map(|(id, _)| *id)
            };
            let Some((hub, session)) = (0..2).find_map(|hub| Some((hub, waits(&self.hubs[hub])?))) else { return };
            if self.hubs[hub].sessions[&session].retiring {
                self.end(hub, session);
            } else {
                self.tell_router(hub, Input::Room { session });
            }
        }
    }

    fn tell_router(&mut self, hub: usize, input: Input<'_>) {
        let now = self.now();
        self.hubs[hub].router.handle_input(input, now);
        self.drain_router(hub);
    }

    fn tell_relay(&mut self, hub: usize, input: RelayInput<'_>) {
        let now = self.now();
        self.hubs[hub].relay.handle_input(input, now);
        self.drain_relay(hub);
    }

    fn drain_router(&mut self, hub: usize) {
        let now = self.now();
        let mut sent = Vec::new();
        let mut unfinished = false;
        let Hub { router, sessions, to_mesh, .. } = &mut self.hubs[hub];
        while let Some(output) = router.poll_output() {
            match output {
                Output::Send { session, frame, kind, origin, .. } => {
                    let client =
                        sessions.get_mut(&session).expect("the router sends a message to a session that is not open");
                    let mut patched = Vec::new();
                    let frame = match &frame {
                        Frame::Arena(range) => &router.arena()[range.clone()],
                        Frame::Owned(bytes) => bytes,
                        Frame::Template(template) => {
                            template.write_to(&mut patched, &client.peer, now.wall_ms);
                            &patched
                        }
                    };
                    client.hear(frame, kind);
                    sent.extend(origin.map(|origin| (origin, client.peer)));
                }
                Output::Ping { session, payload } => {
                    sessions.get_mut(&session).expect("the router sends a ping to a session that is not open").ping =
                        Some(payload);
                }
                Output::Admit { session } => {
                    sessions.get_mut(&session).expect("the router admits a session that is not open").admitted = true;
                }
                Output::Backlog { session, more } => {
                    sessions
                        .get_mut(&session)
                        .expect("the router reports a backlog of a session that is not open")
                        .backlog = more;
                }
                Output::Close { session, reason } if reason.routes_messages_in_flight() => {
                    sessions.get_mut(&session).expect("the router closes a session that is not open").retiring = true;
                }
                Output::Close { session, .. } => {
                    sessions.remove(&session).expect("the router closes a session that is not open");
                }
                Output::ToMesh(letter) => to_mesh.push_back(letter),
                Output::Unfinished => unfinished = true,
                Output::ToShard { to, .. } => panic!("the router sends a letter to {to:?} in a hub with one shard"),
                Output::Acted(_) | Output::Authorize { .. } | Output::Event(_) => {}
                Output::Bug(note) => panic!("{note:?}"),
            }
        }
        for (origin, target) in sent {
            let is_here = self.hubs[hub].sessions.values().any(|client| client.peer == target && client.admitted);
            let reason = CloseReason::ConnectionLost;
            let input = if is_here {
                Input::Delivered { origin, target }
            } else {
                Input::Undelivered { origin, target, reason }
            };
            self.tell_router(hub, input);
        }
        if unfinished {
            self.tell_router(hub, Input::Continue);
        }
    }

    fn drain_relay(&mut self, hub: usize) {
        let mut unfinished = false;
        let mut renamed = false;
        while let Some(output) = self.hubs[hub].relay.poll_output() {
            match output {
                RelayOutput::Send { to, envelope } => {
                    let mut frame = Vec::new();
                    envelope.encode(&mut frame);
                    let honest = self.link.map(|ends| proto::Destination::Link(ends[hub]));
                    if self.recorded.len() < RECORDED {
                        self.recorded.push(frame.clone());
                    } else {
                        self.recorded[frame.len() % RECORDED] = frame.clone();
                    }
                    if honest == Some(to) && !renamed {
                        self.wires[1 - hub].push_back(frame);
                    }
                }
                RelayOutput::Letter { to, letter } => {
                    assert_eq!(to, ShardId(0));
                    self.hubs[hub].to_shard.push_back(letter);
                }
                RelayOutput::Backlog { transport } => self.hubs[hub].backlogs.push(transport),
                RelayOutput::Renamed { hub: id } => {
                    assert_eq!(id, self.hubs[hub].relay.hub());
                    self.hubs[hub].id = id;
                    renamed = true;
                }
                RelayOutput::Unfinished => unfinished = true,
                RelayOutput::SendText { .. } | RelayOutput::Event(_) | RelayOutput::Span(_) => {}
                RelayOutput::Bug(note) => panic!("{note:?}"),
            }
        }
        if renamed {
            let is_up = self.link.is_some();
            self.disconnect();
            if let Some((link, _)) = self.hubs[hub].rogue.take() {
                self.tell_relay(hub, RelayInput::LinkDown { link });
            }
            if std::mem::take(&mut self.hubs[hub].is_bridged) {
                self.tell_relay(hub, RelayInput::BridgeDown);
            }
            if is_up {
                self.connect();
            }
        }
        if unfinished {
            self.tell_relay(hub, RelayInput::Continue);
        }
    }

    /// Ends the links of the rogue hub, and lets time pass until no hub knows the rogue hub any more. At the end, every
    /// peer should know the other members of its networks.
    fn come_to_rest(&mut self) {
        for hub in 0..2 {
            if let Some((link, _)) = self.hubs[hub].rogue.take() {
                self.tell_relay(hub, RelayInput::LinkDown { link });
            }
            if let Some(link) = self.hubs[hub].legacy.take() {
                self.tell_relay(hub, RelayInput::LinkDown { link });
            }
            if std::mem::take(&mut self.hubs[hub].is_bridged) {
                self.tell_relay(hub, RelayInput::BridgeDown);
            }
            for transport in std::mem::take(&mut self.hubs[hub].backlogs) {
                self.tell_relay(hub, RelayInput::Room { transport });
            }
        }
        // Hubs that have a new id or a new incarnation dial their links again.
        self.disconnect();
        self.connect();
        for second in 0..REST_SECS {
            self.become_idle();
            for hub in 0..2 {
                for transport in std::mem::take(&mut self.hubs[hub].backlogs) {
                    self.tell_relay(hub, RelayInput::Room { transport });
                }
                let asked: Vec<SessionId> = self.hubs[hub].sessions.keys().copied().collect();
                for session in asked {
                    self.pong(hub, session);
                }
            }
            self.pass(1_000);
            self.become_idle();
            self.audit();
            if second >= FORGOTTEN_SECS && self.is_whole() == Ok(()) {
                return;
            }
        }
    }

    fn audit(&mut self) {
        for hub in &mut self.hubs {
            hub.router.audit();
            hub.relay.audit();
        }
    }

    /// Whether every peer knows exactly the other members of its networks.
    fn is_whole(&self) -> Result<(), String> {
        let mut members: BTreeMap<&str, BTreeSet<PeerId>> = BTreeMap::new();
        let clients = || self.hubs.iter().flat_map(|hub| hub.sessions.values());
        for client in clients() {
            if !client.admitted {
                return Err(format!("{} is neither admitted nor closed", client.peer));
            }
            for network in client.networks.keys() {
                if !members.entry(network).or_default().insert(client.peer) {
                    return Err(format!("two sessions of {} are members of {network}", client.peer));
                }
            }
        }
        for client in clients() {
            for (network, known) in &client.networks {
                let mut others = members[network.as_str()].clone();
                others.remove(&client.peer);
                if *known != others {
                    return Err(format!("{} knows {known:?} in {network}, but should know {others:?}", client.peer));
                }
            }
        }
        Ok(())
    }
}

impl Client {
    fn hear(&mut self, frame: &[u8], kind: MessageKind) {
        assert!(!self.retiring, "the router sends a message to a closed session");
        if !matches!(kind, MessageKind::PeerDiscovered | MessageKind::PeerDisconnected | MessageKind::Goodbye) {
            return;
        }
        let start = frame.iter().position(|&byte| byte == b'{').expect("an object");
        let heard: Heard<'_> = serde_json::from_slice(&frame[start..]).expect("a message");
        let Some(known) = self.networks.get_mut(heard.network_name) else {
            panic!("{} received a message of {}, but is not a member", self.peer, heard.network_name);
        };
        let named = match heard.kind {
            "goodbye" => heard.from_peer_id.parse().ok(),
            _ => named(heard.data.get().as_bytes()),
        };
        let peer = named.unwrap_or_else(|| panic!("this message names no peer: {}", frame.escape_ascii()));
        if heard.kind == "peer-discovered" {
            known.insert(peer);
        } else {
            assert!(known.remove(&peer), "{} received a leave of {peer}, but does not know that peer", self.peer);
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Heard<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    from_peer_id: &'a str,
    network_name: &'a str,
}

/// The peer that the announced data describes.
fn named(data: &[u8]) -> Option<PeerId> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct About<'a> {
        peer_id: &'a str,
    }

    serde_json::from_slice::<About<'_>>(data).ok()?.peer_id.parse().ok()
}

/// Whether the announced data in an envelope describes the peers of that envelope. A hub of the mesh can send other
/// data, but this harms only the peers of that hub. So the target skips envelopes with other data.
fn names_its_peers(envelope: &Envelope) -> bool {
    let is_named = |announced: &Announcement| named(announced.discovered.data()) == Some(announced.peer);
    match envelope {
        Envelope::Change(change) => match &change.kind {
            ChangeKind::Joined(announced) => is_named(announced),
            ChangeKind::Up | ChangeKind::Left { .. } | ChangeKind::Down(_) => true,
        },
        Envelope::Snapshot(part) => part.peers.iter().all(|peer| peer.memberships.iter().all(|each| is_named(each))),
        Envelope::Hello(_)
        | Envelope::Heartbeat(_)
        | Envelope::SnapshotRequest(_)
        | Envelope::SnapshotDeclined(_)
        | Envelope::Farewell(..)
        | Envelope::Routed(..) => true,
    }
}
