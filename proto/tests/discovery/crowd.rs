//! A simulated hub without threads, and the peers of one network. Letters between its shards arrive without delay. The
//! crowd counts events, and records which peers know each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proto::{
    Budget, CloseReason, Discovery, Frame, HubId, Input, Keys, MessageKind, Now, Output, PeerId, ResumeKeys, Router,
    RouterConfig, RouterTuning, SessionId, ShardId, ToShard, limits,
};

/// Maximum number of turns for one input. More turns indicate a loop.
const MOST_LETTERS: usize = 200_000;

pub(crate) struct Crowd {
    shards: u16,
    routers: Vec<Router>,
    letters: VecDeque<(ShardId, ToShard)>,
    /// Shards with unfinished work.
    unfinished: VecDeque<ShardId>,
    at: BTreeMap<PeerId, (ShardId, SessionId)>,
    /// The peers of each shard, by slot.
    slots: Vec<Vec<Option<PeerId>>>,
    free: Vec<Vec<u32>>,
    generation: u32,
    /// Number of discoveries and leaves that peers received since the last action of a peer began.
    events: usize,
    /// The peers that each peer knows, if acquaintances are tracked.
    known: Option<BTreeMap<PeerId, BTreeSet<PeerId>>>,
    /// Messages to peers that are not discoveries or leaves, until the test clears them.
    pub(crate) said: Vec<(PeerId, String)>,
}

const KEYS: Keys = Keys(11, 12);

const NOW: Now = Now { at: Duration::from_secs(9), wall_ms: 1_700_000_000_000 };

impl Crowd {
    pub(crate) fn new(shards: u16, discovery: Discovery, max_acquaintances: usize) -> Self {
        let router = |shard| {
            let config = RouterConfig {
                ice: None,
                discovery,
                shard: ShardId(shard),
                shards,
                keys: KEYS,
                resume_keys: ResumeKeys::new("mesh", b"key", None),
                hub: HubId(PeerId::from_bytes([7; 20])),
                heartbeat: limits::PING_INTERVAL,
                max_message_bytes: limits::DEFAULT_MAX_MESSAGE_BYTES,
                max_networks_per_peer: limits::DEFAULT_MAX_NETWORKS_PER_PEER,
                max_peers_per_network: 1_000_000,
                announce_budget_bytes: usize::MAX,
                budget: Budget::UNLIMITED,
                network_budget: Budget::UNLIMITED,
                meshed: false,
                events: false,
                tuning: RouterTuning { max_acquaintances, ..RouterTuning::default() },
            };
            Router::new(config)
        };
        Self {
            shards,
            routers: (0..shards).map(router).collect(),
            letters: VecDeque::new(),
            unfinished: VecDeque::new(),
            at: BTreeMap::new(),
            slots: vec![Vec::new(); shards.into()],
            free: vec![Vec::new(); shards.into()],
            generation: 0,
            events: 0,
            known: Some(BTreeMap::new()),
            said: Vec::new(),
        }
    }

    /// Makes a crowd that does not record which peers know each other. A benchmark would otherwise spend more time on
    /// this record than on the measured work.
    #[allow(dead_code, reason = "for the benchmark")]
    pub(crate) fn forgetful(self) -> Self {
        Self { known: None, ..self }
    }

    pub(crate) fn opens(&mut self, peer: PeerId) {
        let shard = ShardId::home(&peer, self.shards, KEYS);
        let slots = &mut self.slots[usize::from(shard.0)];
        let slot = self.free[usize::from(shard.0)].pop().unwrap_or(slots.len() as u32);
        if slot as usize == slots.len() {
            slots.push(None);
        }
        slots[slot as usize] = Some(peer);
        self.generation += 1;
        let session = SessionId { slot, generation: self.generation };
        self.at.insert(peer, (shard, session));
        if let Some(known) = &mut self.known {
            known.insert(peer, BTreeSet::new());
        }
        self.feed(shard, Input::Opened { session, peer, seat: true, resume: None, owner: false, grant: None });
        self.events = 0;
    }

    pub(crate) fn says(&mut self, peer: PeerId, text: &str) -> usize {
        let (shard, session) = self.at[&peer];
        self.feed(shard, Input::Message { session, text });
        std::mem::take(&mut self.events)
    }

    /// Connects a peer and announces it. Returns the number of events that the announcement causes.
    pub(crate) fn joins(&mut self, peer: PeerId) -> usize {
        self.opens(peer);
        self.announces(peer)
    }

    pub(crate) fn announces(&mut self, peer: PeerId) -> usize {
        self.says(peer, r#"{"type":"announce","networkName":"n"}"#)
    }

    pub(crate) fn signals(&mut self, from: PeerId, to: PeerId) -> usize {
        self.says(from, &format!(r#"{{"type":"offer","targetPeerId":"{to}","networkName":"n","id":"x"}}"#))
    }

    pub(crate) fn leaves(&mut self, peer: PeerId) -> usize {
        let (shard, session) = self.at.remove(&peer).unwrap();
        self.slots[usize::from(shard.0)][session.slot as usize] = None;
        self.free[usize::from(shard.0)].push(session.slot);
        if let Some(known) = &mut self.known {
            known.remove(&peer);
        }
        self.feed(shard, Input::Closed { session, reason: CloseReason::ClientClosed });
        std::mem::take(&mut self.events)
    }

    pub(crate) fn knows(&self, peer: PeerId) -> &BTreeSet<PeerId> {
        &self.known.as_ref().unwrap()[&peer]
    }

    pub(crate) fn members(&self) -> Vec<PeerId> {
        self.at.keys().copied().collect()
    }

    /// Checks that acquaintance is mutual, and that the hub's counter of acquaintances is correct.
    pub(crate) fn is_symmetric(&mut self) {
        let known = self.known.as_ref().unwrap();
        for (peer, others) in known {
            for other in others {
                assert!(known[other].contains(peer), "{peer:?} knows {other:?}, but not the other way round");
            }
        }
        let told = known.values().map(BTreeSet::len).sum::<usize>() as u64;
        assert_eq!(self.routers.iter_mut().map(|router| router.stats().acquaintances).sum::<u64>(), told);
    }

    fn feed(&mut self, shard: ShardId, input: Input<'_>) {
        self.routers[usize::from(shard.0)].handle_input(input, NOW);
        self.carry_out(shard);
        let mut turns = 0;
        loop {
            let (shard, input) = match self.letters.pop_front() {
                Some((to, letter)) => (to, Input::Letter(letter)),
                None => match self.unfinished.pop_front() {
                    Some(shard) => (shard, Input::Continue),
                    None => break,
                },
            };
            turns += 1;
            assert!(turns < MOST_LETTERS, "the routers do not finish");
            self.routers[usize::from(shard.0)].handle_input(input, NOW);
            self.carry_out(shard);
        }
    }

    fn carry_out(&mut self, shard: ShardId) {
        while let Some(output) = self.routers[usize::from(shard.0)].poll_output() {
            match output {
                Output::Send { session, frame, kind, .. } => self.hears(shard, session, &frame, kind),
                Output::ToShard { to, letter } => self.letters.push_back((to, letter)),
                Output::Admit { .. } | Output::Event(_) | Output::Backlog { .. } => {}
                Output::Unfinished => self.unfinished.push_back(shard),
                Output::Bug(note) => panic!("{note:?}"),
                Output::Acted(_)
                | Output::Authorize { .. }
                | Output::ToMesh(_)
                | Output::Ping { .. }
                | Output::Close { .. } => {
                    panic!("{output:?}")
                }
            }
        }
    }

    fn hears(&mut self, shard: ShardId, session: SessionId, frame: &Frame, kind: MessageKind) {
        let change = matches!(kind, MessageKind::PeerDiscovered | MessageKind::PeerDisconnected);
        self.events += usize::from(change);
        let Some(known) = &mut self.known else { return };
        let peer = self.slots[usize::from(shard.0)][session.slot as usize].expect("only open sessions get messages");
        if let Frame::Template(template) = frame
            && change
        {
            let subject = subject(template.data());
            let others = known.get_mut(&peer).unwrap();
            if kind == MessageKind::PeerDiscovered {
                assert!(others.insert(subject), "{peer:?} discovers {subject:?} again");
            } else {
                assert!(others.remove(&subject), "{peer:?} receives the leave of {subject:?}, which it does not know");
            }
            return;
        }
        let bytes = match frame {
            Frame::Arena(range) => &self.routers[usize::from(shard.0)].arena()[range.clone()],
            Frame::Owned(bytes) => bytes,
            Frame::Template(_) => return,
        };
        self.said.push((peer, String::from_utf8_lossy(proto::ws::payload(bytes)).into_owned()));
    }
}

fn subject(data: &[u8]) -> PeerId {
    let text = std::str::from_utf8(data).unwrap();
    let at = text.find("\"peerId\":\"").expect("a peerId") + 10;
    text[at..at + 40].parse().unwrap()
}

/// A pseudorandom id, which depends only on `n`.
pub(crate) fn any_id(n: u64) -> PeerId {
    use std::hash::BuildHasher;
    let words: Vec<u8> = (0..3).flat_map(|i| Keys(n, i).hash_one(n).to_be_bytes()).collect();
    PeerId::from_bytes(std::array::from_fn(|i| words[i]))
}
