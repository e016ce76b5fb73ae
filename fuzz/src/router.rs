mod client;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proto::{
    Budget, BudgetRates, ClientMessage, CloseReason, Frame, HubId, Input, Keys, MessageKind, NetworkName, Now, Order,
    Origin, Output, PeerEvent, PeerId, ResumeKeys, Router, RouterConfig, RouterTuning, SessionId, ShardId, ToShard,
};

use client::Client;

/// A hub with up to three shards must keep its guarantees, whatever its peers send and however long the letters between
/// its shards take.
///
/// The bytes are a script of steps of equal length, so that the removal of a step does not change the other steps.
pub fn router(bytes: &[u8]) {
    let Some((setting, script)) = bytes.split_first() else { return };
    let (shards, roster_chunk) = (1 + setting % 3, 1 + setting / 3 % 4);
    let mut hub = Hub::new(shards.into(), roster_chunk.into());
    let mut steps = script.as_chunks().0.iter().take(1_000);
    while let Some(step) = steps.next() {
        hub.step(*step, &mut steps);
    }
    hub.come_to_rest();
    hub.check_nobody_waits();
    hub.check_everybody_knows_everybody();
    hub.check_every_signal_has_an_outcome();
}

/// The kind of step, its subject, and three bytes whose meaning depends on the kind.
type Step = [u8; 5];

fn pick<T: Clone>(from: &[T], byte: u8) -> Option<T> {
    from.get(usize::from(byte) % from.len().max(1)).cloned()
}

type Name = (ShardId, SessionId);

/// The I/O of a hub, and its clients.
struct Hub {
    shards: Vec<Router>,
    post: BTreeMap<(ShardId, ShardId), VecDeque<ToShard>>,
    sessions: BTreeMap<Name, Session>,
    opened: u32,
    at: Duration,
    /// The times at which the hub read signals of members. Each time belongs to one signal.
    from_members: BTreeSet<Duration>,
}

/// A session, as far as the I/O of the hub knows it.
struct Session {
    client: Client,
    admitted: bool,
    /// The hub is closing the session, but still reads its messages.
    retiring: bool,
    backlog: bool,
    ping: Option<[u8; 8]>,
    /// Signals in the send queue of the session, which have neither been written nor failed.
    unsent: VecDeque<Origin>,
}

const NETWORKS: [&str; 5] =
    ["", r#","networkName":"global""#, r#","networkName":"a""#, r#","networkName":"b\n""#, r#","networkName":" ""#];
/// The networks that an operator closes, or from which an operator removes a peer.
const CLOSED: [&str; 3] = ["global", "a", "b\n"];

/// The times for which an operator excludes peers.
const OUT_FOR: [Option<Duration>; 4] =
    [None, Some(Duration::ZERO), Some(Duration::from_secs(5)), Some(Duration::from_secs(1_000))];

const DATA: [&str; 5] = [
    "",
    r#","data":{"peerId":"x","zz":[1e999],"info":"hi"}"#,
    r#","data":null"#,
    r#","data":"\ud800""#,
    r#","data":[{}]"#,
];

impl Hub {
    fn new(shards: u16, roster_chunk: usize) -> Self {
        let rates = BudgetRates { messages: 4, bytes: 4_000, ..BudgetRates::default() };
        let config = |shard| RouterConfig {
            ice: None,
            discovery: proto::Discovery::All,
            shard: ShardId(shard),
            shards,
            keys: KEYS,
            resume_keys: ResumeKeys::new("mesh", b"key", None),
            hub: HubId(PeerId::from_bytes([7; 20])),
            heartbeat: Duration::from_secs(25),
            max_message_bytes: 1 << 20,
            max_networks_per_peer: 2,
            max_peers_per_network: 5,
            announce_budget_bytes: 4096,
            budget: Budget::of_session(&rates, 4096),
            network_budget: Budget::of_network(&rates, 2),
            meshed: false,
            events: true,
            tuning: RouterTuning { roster_chunk, ..RouterTuning::default() },
        };
        Self {
            shards: (0..shards).map(|shard| Router::new(config(shard))).collect(),
            post: BTreeMap::new(),
            sessions: BTreeMap::new(),
            opened: 0,
            at: Duration::ZERO,
            from_members: BTreeSet::new(),
        }
    }

    fn step<'s>(&mut self, [action, who, x, y, z]: Step, following: &mut impl Iterator<Item = &'s Step>) {
        match action % 16 {
            seat @ (0 | 1) => return self.open(PeerId::from_bytes([who; 20]), seat == 0),
            2..=4 => {
                let lanes: Vec<_> = self.post.keys().copied().collect();
                return pick(&lanes, who).map_or((), |lane| self.deliver(lane));
            }
            5 => {
                self.at += Duration::from_millis([1, 100, 2_000, 6_000][usize::from(x % 4)]);
                return self.time_passes();
            }
            _ => {}
        }
        let sessions: Vec<_> = self.sessions.iter().collect();
        let Some((&name, session)) = pick(&sessions, who) else { return };
        let network = NETWORKS[usize::from(x) % NETWORKS.len()];
        let data = DATA[usize::from(y) % DATA.len()];
        match action % 16 {
            11 => self.end(name, CloseReason::ConnectionLost),
            12 => self.socket(name, x),
            13 => self.pong(name, x & 1 == 0),
            _ if !session.admitted => {}
            6 | 7 => self.say(name, &format!(r#"{{"type":"announce"{network}{data}}}"#)),
            asked @ (8 | 9) => {
                let target = pick(&sessions, z).map_or(session.client.peer, |(_, other)| other.client.peer);
                let id = if asked == 9 { r#","id":"r""# } else { "" };
                self.say(name, &format!(r#"{{"type":"offer","targetPeerId":"{target}"{network}{data}{id}}}"#));
            }
            10 => self.say(name, &format!(r#"{{"type":"goodbye"{network}}}"#)),
            14 => {
                let text = following.take((x % 32).into()).flatten().copied().collect::<Vec<_>>();
                self.say(name, &String::from_utf8_lossy(&text));
            }
            _ => match x % 8 {
                0 => self.input(name.0, Input::NotText { session: name.1 }),
                1 => self.input(name.0, Input::TooLarge { session: name.1 }),
                2 => self.input(name.0, Input::Retire { session: name.1 }),
                3 => {
                    let hubs = &["ws://hub".to_owned()];
                    let (close_in, reconnect_in) = (Duration::from_secs(1), Duration::ZERO);
                    self.input(name.0, Input::GoAway { session: name.1, close_in, reconnect_in, hubs });
                }
                4 => self.kick(name, None, OUT_FOR[usize::from(y % 4)]),
                5 => self.kick(name, pick(&CLOSED, z), OUT_FOR[usize::from(y % 4)]),
                6 => self.close_network(CLOSED[usize::from(z) % CLOSED.len()], OUT_FOR[usize::from(y % 4)]),
                _ => self.say(name, r#"{"type":"ping"}"#),
            },
        }
    }

    /// An operator removes the peer of a session from the hub or from a network.
    fn kick(&mut self, name: Name, network: Option<&str>, out_for: Option<Duration>) {
        let peer = self.session(name).client.peer;
        let was_member = network.map(|network| self.session(name).client.is_member(network));
        let kick = Input::Order(Order::Kick { peer, network: network.map(NetworkName::new), out_for });
        self.input(name.0, kick);
        if let Some(network) = network {
            self.removed_while_closing(network, |other| *other == peer);
        }
        // If another session of the peer waits for the id, it may be admitted now.
        let session = self.sessions.get(&name).filter(|session| !session.retiring);
        match (network, was_member) {
            (Some(network), Some(true)) => {
                let still = session.is_some_and(|session| session.client.is_member(network));
                assert!(!still, "{peer} was kicked from {network:?}, but did not receive the error");
            }
            (Some(_), _) => {}
            (None, _) => assert!(session.is_none(), "{peer} was kicked, but is still connected"),
        }
    }

    /// Records that an operator's order has removed peers from a network. A session that the hub is closing receives no
    /// error, but it is not a member any more. So later signals of this session come from a peer that is not a member.
    fn removed_while_closing(&mut self, network: &str, is_removed: impl Fn(&PeerId) -> bool) {
        for session in self.sessions.values_mut().filter(|session| session.retiring && is_removed(&session.client.peer))
        {
            session.client.left(Some(network));
        }
    }

    /// An operator closes a network. Each shard removes its own peers from the network.
    fn close_network(&mut self, network: &str, out_for: Option<Duration>) {
        for shard in 0..self.shards.len() {
            self.input(
                ShardId(shard as u16),
                Input::Order(Order::CloseNetwork { network: NetworkName::new(network), out_for }),
            );
        }
        self.removed_while_closing(network, |_| true);
        let member = self.sessions.values().find(|session| session.client.is_member(network));
        assert!(member.is_none(), "a member of a closed network did not receive the error");
    }

    fn open(&mut self, peer: PeerId, seat: bool) {
        let shard = ShardId::home(&peer, self.shards.len() as u16, KEYS);
        // A new session uses the first free slot.
        let used = |slot| self.sessions.keys().any(|(s, id)| *s == shard && id.slot == slot);
        let Some(slot) = (0..).find(|&slot| !used(slot)) else { return };
        self.opened += 1;
        let session = SessionId { slot, generation: self.opened };
        let entry = Session {
            client: Client::new(peer),
            admitted: false,
            retiring: false,
            backlog: false,
            ping: None,
            unsent: VecDeque::new(),
        };
        self.sessions.insert((shard, session), entry);
        self.input(shard, Input::Opened { session, peer, seat, resume: None, owner: false, grant: None });
    }

    fn say(&mut self, name: Name, text: &str) {
        self.at += Duration::from_micros(1);
        let at = self.at;
        let complaints = self.complaints(name.0);
        let parsed = proto::parse(text);
        let client = &mut self.session(name).client;
        client.said(&parsed);
        match &parsed {
            Ok(ClientMessage::Signal(signal)) if client.is_member(&signal.network) => {
                self.from_members.insert(at);
            }
            _ => {}
        }
        self.input(name.0, Input::Message { session: name.1, text });
        if let (Ok(ClientMessage::Goodbye(goodbye)), true) = (parsed, complaints == self.complaints(name.0)) {
            self.session(name).client.left(goodbye.network.as_deref());
        }
    }

    fn complaints(&mut self, shard: ShardId) -> u64 {
        let stats = self.shards[usize::from(shard.0)].stats();
        stats.errors.iter().sum::<u64>() + stats.errors_withheld
    }

    /// Lets the session's socket accept a queued signal, or reports that the session's send queue has room again.
    fn socket(&mut self, name: Name, choice: u8) {
        let Some(session) = self.sessions.get_mut(&name) else { return };
        let target = session.client.peer;
        if choice & 1 == 0 {
            let Some(origin) = session.unsent.pop_front() else { return };
            self.input(name.0, Input::Delivered { origin, target });
        } else if session.backlog {
            self.input(name.0, Input::Room { session: name.1 });
        }
    }

    fn pong(&mut self, name: Name, right: bool) {
        let session = self.session(name);
        let peer = session.client.peer;
        let Some(mut payload) = session.ping else { return };
        payload[0] ^= u8::from(!right);
        self.input(name.0, Input::Pong { session: name.1, payload: &payload });
        let waits = self.sessions.values().any(|other| other.client.peer == peer && !other.admitted);
        assert!(!(right && waits), "{peer} has answered, but another session still waits for its id");
    }

    /// Ends the connection of a session.
    fn end(&mut self, name: Name, reason: CloseReason) {
        let Some(session) = self.sessions.remove(&name) else { return };
        self.input(name.0, Input::Closed { session: name.1, reason });
        for origin in session.unsent {
            self.input(name.0, Input::Undelivered { origin, target: session.client.peer, reason });
        }
    }

    fn deliver(&mut self, lane: (ShardId, ShardId)) {
        let Some(letters) = self.post.get_mut(&lane) else { return };
        let letter = letters.pop_front();
        if letters.is_empty() {
            self.post.remove(&lane);
        }
        if let Some(letter) = letter {
            self.input(lane.1, Input::Letter(letter));
        }
    }

    fn time_passes(&mut self) {
        for shard in 0..self.shards.len() {
            let due = |router: &Router| router.poll_timeout().filter(|&due| due <= self.at);
            if due(&self.shards[shard]).is_some() {
                let now = self.now();
                self.shards[shard].handle_timeout(now);
                self.drain(ShardId(shard as u16));
                let later = self.shards[shard].poll_timeout();
                assert!(
                    later.is_none_or(|later| later > now.at),
                    "the timeout due at {later:?} was not handled by {now:?}"
                );
            }
        }
    }

    fn now(&self) -> Now {
        Now { at: self.at, wall_ms: 1_700_000_000_000 + self.at.as_millis() as u64 }
    }

    fn input(&mut self, shard: ShardId, input: Input<'_>) {
        let now = self.now();
        self.shards[usize::from(shard.0)].handle_input(input, now);
        self.drain(shard);
    }

    /// Performs the outputs of a shard's router, and passes the resulting inputs to the router.
    fn drain(&mut self, shard: ShardId) {
        let mut ended = Vec::new();
        let mut unfinished = false;
        while let Some(output) = self.shards[usize::from(shard.0)].poll_output() {
            match output {
                Output::Send { session, frame, kind, origin, .. } => self.send((shard, session), frame, kind, origin),
                Output::Ping { session, payload } => self.session((shard, session)).ping = Some(payload),
                Output::Admit { session } => self.session((shard, session)).admitted = true,
                Output::Backlog { session, more } => self.session((shard, session)).backlog = more,
                Output::Close { session, reason } => {
                    if reason.routes_messages_in_flight() {
                        self.session((shard, session)).retiring = true;
                    } else {
                        let gone = self.sessions.remove(&(shard, session));
                        ended.push((
                            gone.unwrap_or_else(|| panic!("the router closes {session:?}, which is not open")),
                            reason,
                        ));
                    }
                }
                Output::ToShard { to, letter } => {
                    assert_ne!(to, shard, "a shard sends a letter to itself");
                    self.post.entry((shard, to)).or_default().push_back(letter);
                }
                Output::Event(PeerEvent::Announced { peer, network, .. }) => {
                    self.announced(shard, peer, network.as_str())
                }
                Output::Unfinished => unfinished = true,
                // No session in this target has a token.
                Output::Authorize { session, .. } => panic!("the router requests the check of a token of {session:?}"),
                Output::ToMesh(_) | Output::Acted(_) | Output::Event(PeerEvent::TakeoverAsked { .. }) => {}
                Output::Bug(note) => panic!("{note:?}"),
            }
        }
        self.shards[usize::from(shard.0)].audit();
        for (session, reason) in ended {
            for origin in session.unsent {
                self.input(shard, Input::Undelivered { origin, target: session.client.peer, reason });
            }
        }
        if unfinished {
            self.input(shard, Input::Continue);
        }
    }

    fn session(&mut self, name: Name) -> &mut Session {
        self.sessions.get_mut(&name).unwrap_or_else(|| panic!("an output concerns {name:?}, which is not open"))
    }

    /// Allows every member to discover `peer` once more, and `peer` to discover every member.
    fn announced(&mut self, shard: ShardId, peer: PeerId, network: &str) {
        let to_shard = self.post.iter().filter(|((_, to), _)| *to == shard).flat_map(|(_, letters)| letters);
        let on_their_way: Vec<_> = to_shard
            .filter_map(|letter| if let ToShard::Joined(joined) = letter { Some(joined) } else { None })
            .filter(|joined| joined.network.as_str() == network)
            .map(|joined| joined.peer)
            .collect();
        for session in self.sessions.values_mut().filter(|session| session.admitted) {
            if session.client.peer == peer {
                session.client.announced(network, &on_their_way);
            } else {
                session.client.may_hear_of(network, peer);
            }
        }
    }

    fn send(&mut self, name: Name, frame: Frame, kind: MessageKind, origin: Option<Origin>) {
        let to = self.session(name).client.peer;
        let mut patched = Vec::new();
        let frame = match &frame {
            Frame::Arena(range) => &self.shards[usize::from(name.0.0)].arena()[range.clone()],
            Frame::Owned(bytes) => bytes,
            Frame::Template(template) => {
                template.write_to(&mut patched, &to, self.now().wall_ms);
                assert_eq!(patched.len(), template.frame_len());
                &patched
            }
        };
        let session =
            self.sessions.get_mut(&name).unwrap_or_else(|| panic!("a message is sent to {name:?}, which is not open"));
        assert!(!session.retiring, "a message is sent to a closed session");
        let from_member = origin.as_ref().is_some_and(|origin| self.from_members.contains(&origin.read_at));
        session.client.hear(frame, kind, from_member);
        session.unsent.extend(origin);
    }

    /// Runs the hub until all letters have arrived, all sockets have accepted their data, and all closed sessions have
    /// ended.
    fn come_to_rest(&mut self) {
        for _ in 0..4 {
            self.at += Duration::from_secs(6);
            self.time_passes();
            for step in 0.. {
                assert!(step < 1_000_000, "the hub does not become idle");
                let lane = self.post.keys().next().copied();
                let busy = self.sessions.iter().find_map(|(name, session)| {
                    (session.retiring || session.backlog || !session.unsent.is_empty()).then_some(*name)
                });
                match (lane, busy) {
                    (Some(lane), _) => self.deliver(lane),
                    (None, Some(name)) if self.sessions[&name].retiring => self.end(name, CloseReason::Draining),
                    (None, Some(name)) => self.socket(name, u8::from(self.sessions[&name].unsent.is_empty())),
                    (None, None) => break,
                }
            }
        }
    }

    fn check_nobody_waits(&self) {
        for (name, session) in &self.sessions {
            assert!(session.admitted, "{name:?} of {} is neither admitted nor closed", session.client.peer);
        }
    }

    fn check_everybody_knows_everybody(&self) {
        let mut members: Option<BTreeMap<&str, usize>> = None;
        for shard in &self.shards {
            let here = shard.networks().map(|(name, members)| (name.as_str(), members)).collect();
            if let Some(there) = &members {
                assert_eq!(there, &here, "shards have different rosters");
            }
            members = Some(here);
        }
        let members = members.unwrap_or_default();
        let live: BTreeMap<_, _> =
            self.sessions.values().map(|session| (session.client.peer, &session.client)).collect();
        let mut pairs: BTreeMap<&str, usize> = BTreeMap::new();
        for client in live.values() {
            client.check_was_told_once();
            for (network, peer) in client.known() {
                *pairs.entry(network).or_default() += 1;
                let other = live
                    .get(&peer)
                    .unwrap_or_else(|| panic!("{} still knows {peer}, which has left {network}", client.peer));
                assert!(
                    other.knows(network, &client.peer),
                    "{} knows {peer} in {network}, but not the other way round",
                    client.peer
                );
            }
        }
        for (network, members) in members {
            let told = pairs.remove(network).unwrap_or_default();
            assert_eq!(told, members * (members - 1), "the {members} members of {network} do not all know each other");
        }
        assert!(
            pairs.values().all(|&pairs| pairs == 0),
            "peers know members of networks that the hub has forgotten: {pairs:?}"
        );
    }

    fn check_every_signal_has_an_outcome(&mut self) {
        let (mut read, mut ended) = (0, 0);
        for shard in &mut self.shards {
            let stats = shard.stats();
            assert_eq!(stats.open_receipts, 0);
            let signals = MessageKind::ALL.iter().filter(|kind| matches!(kind, MessageKind::Signal(_)));
            read += signals.map(|kind| stats.messages_in[kind.index()]).sum::<u64>();
            ended += stats.outcomes();
        }
        assert_eq!(ended, read, "the number of outcomes differs from the number of signals");
        for session in self.sessions.values() {
            session.client.check_has_its_receipts();
        }
    }
}

const KEYS: Keys = Keys(1, 2);
