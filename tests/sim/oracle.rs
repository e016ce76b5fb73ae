//! The oracle of one hub, which checks which peers know each other, and when peers discover each other.
//!
//! The simulator reports each input to the oracle before the router gets it. From these inputs, the oracle computes the
//! roster that each shard must have, and compares the router's outputs with it. The oracle shares no code with the
//! router. The oracle records errors as complaints, and the first complaint ends the run.

mod router;
mod signals;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::{CloseReason, Lineage, PeerId, ResumeOutcome, Rights, SessionId};

use crate::heard::Heard;
use signals::Signals;
pub(crate) use signals::{Fate, Signal};

/// A session, with its shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Sid {
    pub(crate) shard: u16,
    pub(crate) session: SessionId,
}

/// A network by its number in the plan.
pub(crate) type Net = usize;

/// The rights of a client's token in each network of the plan, and the time at which the token expires. The token gives
/// no rights in other networks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Granted {
    pub(crate) rights: Vec<Rights>,
    pub(crate) ends: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Oracle {
    pub(crate) complaints: Vec<String>,
    pub(crate) now: Duration,
    networks: Vec<&'static str>,
    max_networks: usize,
    max_peers: usize,
    sessions: BTreeMap<Sid, Client>,
    live: BTreeMap<PeerId, Sid>,
    waiting: BTreeMap<PeerId, Waiting>,
    /// The greatest session number of each peer so far.
    latest: BTreeMap<PeerId, u64>,
    rosters: Vec<BTreeMap<(Net, PeerId), u64>>,
    epochs: u64,
    pub(crate) signals: Signals,
    /// Number of takeovers in which the second connection got the id, and number in which the first connection kept the
    /// id.
    pub(crate) takeovers: [u64; 2],
    /// Number of resume secrets that clients have sent, by outcome.
    pub(crate) resumes: [u64; ResumeOutcome::ALL.len()],
    /// Number of sessions whose id an owner has taken over.
    pub(crate) owners: u64,
    /// Number of `error` messages.
    pub(crate) errors: u64,
    /// Outputs that the router must produce because of the current input.
    due: Due,
}

#[derive(Debug, Default)]
struct Due {
    leaves: Vec<(Net, PeerId)>,
    how_left: BTreeMap<(Net, PeerId), Option<CloseReason>>,
    announced: Option<(PeerId, Net)>,
    opened: Option<Opened>,
    too_large: bool,
    retire: Option<Sid>,
    /// The peer that an operator kicks, and its session.
    kick: Option<PeerId>,
    kicked: Option<Sid>,
    room: Option<Sid>,
    room_answered: bool,
    told_to_reader: usize,
}

/// A new session that the router must still admit, refuse or let wait.
#[derive(Clone, Debug)]
struct Opened {
    sid: Sid,
    peer: PeerId,
    seat: bool,
    resume: Option<Lineage>,
    /// Whether the client has proven that the id is its own.
    owner: bool,
    granted: Option<Granted>,
    /// Whether the session takes the id over at once, because of its secret or its proof.
    at_once: bool,
    /// Whether no other session has precedence for the id: none waits, or this session has a proof or a stronger secret
    /// than the waiting session.
    first: bool,
}

#[derive(Debug)]
struct Client {
    peer: PeerId,
    began: Duration,
    /// The lineage of the secret that the client sent when it connected.
    resume: Option<Lineage>,
    owner: bool,
    granted: Option<Granted>,
    /// The lineage of the secret that the client has received.
    lineage: Option<Lineage>,
    retiring: bool,
    connected: bool,
    /// Whether a roster is still being read.
    reading: bool,
    views: BTreeMap<Net, View>,
}

/// A member's view of its network.
#[derive(Debug, Default)]
struct View {
    epoch: u64,
    /// Whether the client is an observer, which discovers the members but is not a member itself.
    observes: bool,
    /// Peers that the router has announced to this client.
    told: BTreeMap<PeerId, u64>,
    /// Peers that the router must still announce to this client, at once or while the client reads the roster.
    owed: BTreeSet<PeerId>,
    /// Peers whose `peer-discovered` message has reached the client.
    heard: BTreeMap<PeerId, u64>,
}

#[derive(Debug)]
struct Waiting {
    sid: Sid,
    since: Duration,
    question: Option<[u8; 8]>,
    answered: bool,
    resume: Option<Lineage>,
    owner: bool,
    granted: Option<Granted>,
}

impl Oracle {
    pub(crate) fn new(networks: &[&'static str], shards: u16, max_networks: usize, max_peers: usize) -> Self {
        Self {
            complaints: Vec::new(),
            now: Duration::ZERO,
            networks: networks.to_vec(),
            max_networks,
            max_peers,
            sessions: BTreeMap::new(),
            live: BTreeMap::new(),
            waiting: BTreeMap::new(),
            rosters: (0..shards).map(|_| BTreeMap::new()).collect(),
            epochs: 0,
            signals: Signals::default(),
            takeovers: [0; 2],
            resumes: [0; ResumeOutcome::ALL.len()],
            owners: 0,
            latest: BTreeMap::new(),
            errors: 0,
            due: Due::default(),
        }
    }

    pub(crate) fn complain(&mut self, what: String) {
        self.complaints.push(what);
    }

    // --- inputs (called before the router gets the input) -------------------------------------------------------

    pub(crate) fn opened(
        &mut self,
        sid: Sid,
        peer: PeerId,
        seat: bool,
        (resume, owner): (Option<Lineage>, bool),
        granted: Option<Granted>,
    ) {
        let holder = self.live.get(&peer).and_then(|sid| self.sessions.get(sid));
        let takes = owner && holder.is_some();
        let outcome = resume.filter(|_| !owner).zip(holder).map(|(resume, holder)| self.worth(resume, holder));
        self.owners += u64::from(takes);
        if let Some(outcome) = outcome {
            self.resumes[outcome as usize] += 1;
        }
        let at_once = takes || outcome == Some(ResumeOutcome::Resumed);
        // A secret is stronger if its root is older. Of two secrets with the same root, the secret of the later session
        // is stronger. A client without a secret comes last.
        let rank = |resume: Option<Lineage>| resume.map(|l| (std::cmp::Reverse(l.root), l.session));
        let goes_before = |waiting: &Waiting| !waiting.owner && rank(resume) > rank(waiting.resume);
        let first = owner || self.waiting.get(&peer).is_none_or(goes_before);
        self.due.opened = Some(Opened { sid, peer, seat, resume, owner, granted, at_once, first });
    }

    /// The outcome of a secret, by the rule in docs/protocol.md, "Resuming".
    fn worth(&self, resume: Lineage, holder: &Client) -> ResumeOutcome {
        if holder.owner {
            return ResumeOutcome::Owned;
        }
        let Some(lineage) = holder.lineage else { return ResumeOutcome::Malformed };
        // The age counts from the whole second in which the session began, because the hub stores only that second.
        let age = self.now - Duration::from_secs(holder.began.as_secs());
        if resume.root > lineage.root {
            ResumeOutcome::Younger
        } else if resume.root < lineage.root {
            if age < Duration::from_secs(120) { ResumeOutcome::Resumed } else { ResumeOutcome::Late }
        } else if resume.session < lineage.session {
            ResumeOutcome::Outdated
        } else {
            ResumeOutcome::Resumed
        }
    }

    pub(crate) fn ponged(&mut self, sid: Sid, payload: &[u8]) {
        let Some(peer) = self.sessions.get(&sid).map(|client| client.peer) else { return };
        if let Some(waiting) = self.waiting.get_mut(&peer)
            && waiting.question.is_some_and(|question| question == payload)
        {
            waiting.answered = true;
        }
    }

    pub(crate) fn announces(&mut self, sid: Sid, net: Net, version: u64) {
        let roster = &mut self.rosters[usize::from(sid.shard)];
        let Some(client) = self.sessions.get_mut(&sid) else { return };
        let peer = client.peer;
        let rights = client.rights(Some(net));
        let observes = client.views.get(&net).map_or(rights.observe && !rights.join, |view| view.observes);
        if !rights.join && !observes {
            return;
        }
        if !client.views.contains_key(&net) {
            let size = roster.keys().filter(|(n, _)| *n == net).count();
            if client.views.len() >= self.max_networks || !observes && size >= self.max_peers {
                return;
            }
        }
        self.epochs += 1;
        let epoch = self.epochs;
        let view = client.views.entry(net).or_insert_with(|| View { epoch, observes, ..View::default() });
        if !client.retiring {
            view.owed.extend(roster.keys().filter(|&&(n, p)| n == net && p != peer).map(|&(_, p)| p));
        }
        if observes {
            return;
        }
        self.due.announced = Some((peer, net));
        self.joined(sid.shard, net, peer, version);
    }

    /// Processes an announcement that reaches a shard.
    pub(crate) fn joined(&mut self, shard: u16, net: Net, peer: PeerId, version: u64) {
        self.rosters[usize::from(shard)].insert((net, peer), version);
        for (_, client) in on_shard(&mut self.sessions, shard) {
            if client.peer != peer
                && !client.retiring
                && let Some(view) = client.views.get_mut(&net)
            {
                view.owed.insert(peer);
            }
        }
    }

    pub(crate) fn says_goodbye(&mut self, sid: Sid, only: Option<Option<Net>>) {
        let Some(client) = self.sessions.get_mut(&sid) else { return };
        let peer = client.peer;
        let left =
            |(net, view): (&Net, &View)| only.is_none_or(|only| only == Some(*net)).then_some((*net, view.observes));
        let nets: Vec<(Net, bool)> = client.views.iter().filter_map(left).collect();
        self.leaves(sid, peer, nets);
    }

    /// Records that a client has a new token, which may end some of its memberships.
    pub(crate) fn renews(&mut self, sid: Sid, granted: Granted) {
        let Some(client) = self.sessions.get_mut(&sid) else { return };
        let peer = client.peer;
        client.granted = Some(granted);
        let lost = |(net, view): (&Net, &View)| {
            let rights = client.rights(Some(*net));
            let stays = rights.join || rights.observe && view.observes;
            (!stays).then_some((*net, view.observes))
        };
        let nets: Vec<(Net, bool)> = client.views.iter().filter_map(lost).collect();
        self.leaves(sid, peer, nets);
    }

    /// Records that a client has left networks. Members do not receive the leave of an observer.
    fn leaves(&mut self, sid: Sid, peer: PeerId, nets: Vec<(Net, bool)>) {
        for (net, observed) in nets {
            client_left(&mut self.sessions, sid, net);
            if !observed {
                self.left(sid.shard, net, peer, None);
            }
        }
    }

    /// Processes a leave that reaches a shard.
    pub(crate) fn left(&mut self, shard: u16, net: Net, peer: PeerId, how: Option<CloseReason>) {
        self.rosters[usize::from(shard)].remove(&(net, peer));
        for (_, client) in on_shard(&mut self.sessions, shard) {
            if let Some(view) = client.views.get_mut(&net) {
                view.owed.remove(&peer);
            }
        }
        self.due.leaves.push((net, peer));
        self.due.how_left.insert((net, peer), how);
    }

    pub(crate) fn says_too_much(&mut self) {
        self.due.too_large = true;
    }

    pub(crate) fn retires(&mut self, sid: Sid) {
        self.due.retire = Some(sid);
    }

    pub(crate) fn kicks(&mut self, peer: PeerId) {
        self.due.kick = Some(peer);
        self.due.kicked = self.live.get(&peer).copied();
    }

    pub(crate) fn has_room(&mut self, sid: Sid) {
        self.due.room = Some(sid);
    }

    /// Processes the end of a session that was admitted or still waited for its id.
    pub(crate) fn ended(&mut self, sid: Sid, reason: CloseReason) {
        if let Some(peer) = self.waiting.iter().find(|(_, waiting)| waiting.sid == sid).map(|(peer, _)| *peer) {
            self.waiting.remove(&peer);
        }
        let Some(client) = self.sessions.remove(&sid) else { return };
        self.live.remove(&client.peer);
        for (&net, _) in client.views.iter().filter(|(_, view)| !view.observes) {
            self.left(sid.shard, net, client.peer, Some(reason));
        }
    }

    /// The reason for which a peer has just left a network, or `None` after a `goodbye`.
    pub(crate) fn how_left(&self, net: Net, peer: PeerId) -> Option<CloseReason> {
        self.due.how_left.get(&(net, peer)).copied().flatten()
    }

    // --- arriving frames ----------------------------------------------------------------------------------------

    /// Processes a frame that was written to its client.
    pub(crate) fn heard(&mut self, sid: Sid, heard: &Heard, epoch: u64) {
        if let Heard::Signal { number, .. } = heard
            && let Err(what) = self.signals.arrived(*number)
        {
            self.complain(format!("{sid:?} {what}: signal {number}"));
        }
        let Some(client) = self.sessions.get_mut(&sid) else { return };
        // If the client has left and rejoined the network meanwhile, the message belongs to its earlier view.
        let Some(view) = client.views.values_mut().find(|view| view.epoch == epoch) else { return };
        if let Heard::Discovered { subject, version, .. } = heard {
            view.heard.insert(*subject, *version);
        } else if let Heard::Left { subject, .. } = heard
            && view.heard.remove(subject).is_none()
        {
            self.complain(format!("{sid:?} receives the leave of a peer that it does not know: {subject:?}"));
        }
    }

    // --- at rest -----------------------------------------------------------------------------------------------

    /// Checks that each peer knows exactly the other members of its networks. Must be called only when nothing is in
    /// flight.
    pub(crate) fn at_rest(&mut self) {
        let mut wrong = Vec::new();
        let mut members: BTreeMap<(Net, PeerId), ()> = BTreeMap::new();
        for client in self.sessions.values() {
            let joined = client.views.iter().filter(|(_, view)| !view.observes);
            members.extend(joined.map(|(&net, _)| ((net, client.peer), ())));
        }
        for (shard, roster) in self.rosters.iter().enumerate() {
            if !roster.keys().eq(members.keys()) {
                wrong.push(format!("shard {shard} has the roster {roster:?} instead of {members:?}"));
            }
        }
        for (sid, client) in &self.sessions {
            for (net, view) in client.views.iter().filter(|_| !client.retiring) {
                let others = self.rosters[0].iter().filter(|((n, p), _)| n == net && *p != client.peer);
                let others: BTreeMap<PeerId, u64> = others.map(|((_, peer), version)| (*peer, *version)).collect();
                if others != view.heard {
                    wrong.push(format!(
                        "{sid:?} {:?} in {} knows {:?}, but the other members are {others:?}",
                        client.peer, self.networks[*net], view.heard
                    ));
                }
            }
        }
        if let Some((_, waiting)) = self.waiting.first_key_value() {
            wrong.push(format!("{:?} still waits", waiting.sid));
        }
        self.complaints.append(&mut wrong);
        let here = |sid: Sid| self.sessions.get(&sid).is_some_and(|client| !client.retiring);
        let wrong = self.signals.at_rest(here);
        self.complaints.extend(wrong);
    }

    /// Checks that each sender has received its outcomes. Must be called only when nothing is in flight. Without this
    /// check, no oracle would notice a lost outcome, because the router later reports `unknown` for the signal.
    pub(crate) fn nothing_moves(&mut self) {
        let here = |sid: Sid| self.sessions.get(&sid).is_some_and(|client| !client.retiring);
        self.complaints.extend(self.signals.nothing_moves(here));
    }

    /// The peers that a client knows, by network.
    pub(crate) fn acquaintances(&self, sid: Sid) -> Vec<(Net, PeerId)> {
        let views = self.sessions.get(&sid).into_iter().flat_map(|client| &client.views);
        views.flat_map(|(&net, view)| view.heard.keys().map(move |&peer| (net, peer))).collect()
    }

    pub(crate) fn live_on(&self, shard: u16) -> usize {
        self.live.values().filter(|sid| sid.shard == shard).count()
    }

    pub(crate) fn members(&self) -> usize {
        self.rosters[0].len()
    }

    /// The number of members of each network that has members, by the network's name.
    pub(crate) fn inhabited(&self) -> BTreeMap<&'static str, usize> {
        let mut inhabited = BTreeMap::new();
        for (net, _) in self.rosters[0].keys() {
            *inhabited.entry(self.networks[*net]).or_default() += 1;
        }
        inhabited
    }

    // --- signals -------------------------------------------------------------------------------------------------

    /// Processes a signal that is read from its sender's socket. Returns true if the target's shard must decide whether
    /// to deliver the signal.
    pub(crate) fn signal_read(&mut self, number: usize, sid: Sid, wall_ms: u64) -> bool {
        let Some(client) = self.sessions.get(&sid) else { return false };
        let (net, name) = self.signals.network(number);
        let member = net.and_then(|net| client.views.get(&net)).is_some_and(|view| !view.observes);
        let global = self.networks.iter().position(|&name| name == "global");
        let verdict = if !client.rights(net).signal {
            Err("forbidden")
        } else if shares(client, net, name, global) {
            Ok(())
        } else {
            Err("wrong-network")
        };
        self.signals.read(number, self.now, wall_ms, verdict, member)
    }

    /// Processes a signal that has reached its target's shard.
    pub(crate) fn signal_judged(&mut self, number: usize) {
        let target = self.signals.target(number);
        let (net, name) = self.signals.network(number);
        let client = self.live.get(&target).and_then(|sid| self.sessions.get(sid)).filter(|c| !c.retiring);
        let global = self.networks.iter().position(|&name| name == "global");
        let verdict = match client {
            None => Err("peer-not-found"),
            Some(client) if shares(client, net, name, global) => Ok(()),
            Some(_) => Err("wrong-network"),
        };
        self.signals.judged(number, verdict);
    }
}

/// Whether the client counts as a member of the network. A client without networks counts as a member of `global`, if
/// it may join `global`.
fn shares(client: &Client, net: Option<Net>, name: &str, global: Option<Net>) -> bool {
    let joined = net.and_then(|net| client.views.get(&net)).is_some_and(|view| !view.observes);
    joined || (client.views.is_empty() && name == "global" && client.rights(global).join)
}

impl Client {
    /// The client's rights in a network. `None` stands for all networks that are not in the plan.
    fn rights(&self, net: Option<Net>) -> Rights {
        let none = Rights::default();
        let in_net = |granted: &Granted| net.and_then(|net| granted.rights.get(net).copied()).unwrap_or(none);
        self.granted.as_ref().map_or(Rights::MEMBER, in_net)
    }
}

fn on_shard(sessions: &mut BTreeMap<Sid, Client>, shard: u16) -> impl Iterator<Item = (&Sid, &mut Client)> {
    let edge = |n| SessionId { slot: n, generation: n };
    sessions.range_mut(Sid { shard, session: edge(0) }..=Sid { shard, session: edge(u32::MAX) })
}

fn client_left(sessions: &mut BTreeMap<Sid, Client>, sid: Sid, net: Net) {
    if let Some(client) = sessions.get_mut(&sid) {
        client.views.remove(&net);
    }
}
