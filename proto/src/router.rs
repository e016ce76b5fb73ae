//! The rules of one shard: sessions, rosters, signals, receipts, takeovers.

mod audit;
mod circle;
mod closest;
mod discovery;
mod leaving;
mod letter;
mod mode;
mod picks;
mod presence;
mod roster;
mod session;
mod signal;
mod stats;
mod takeover;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::bug;
use crate::bugs::Bugs;
use crate::codec::{self, ClientMessage, Refusal};
use crate::id::{Address, Claim, HubId, Keys, NetworkName, PeerId, PeerIncarnation, SessionId, ShardId};
use crate::isolated::isolated;
use crate::limits::{
    ANNOUNCE_BURST_BYTES, ANNOUNCE_RATE_BYTES, DEFAULT_ANNOUNCE_BUDGET_BYTES, DEFAULT_MAX_MESSAGE_BYTES,
    DEFAULT_MAX_NETWORKS_PER_PEER, DEFAULT_MAX_PEERS_PER_NETWORK, DEFAULT_MESSAGE_RATE, DEFAULT_MESSAGE_RATE_BYTES,
    ERROR_BURST, ERROR_RATE, MEMBER_BYTES, MESSAGE_BURST_LARGEST, MESSAGE_BURST_SECS, PING_INTERVAL,
};
use crate::outputs::Outputs;
use crate::reason::{CloseReason, ErrorCode};
use crate::resume::ResumeKeys;
use crate::sentences;
use crate::time::Now;
use crate::tuning::RouterTuning;
use crate::wire::{self, ErrorReport, MessageKind, Welcome};

pub use letter::{
    Announcement, Asker, Event, Farewell, Frame, Input, Letter, Meeting, MeetingEnd, Origin, OutcomeLetter, Output,
    Sender, SignalLetter, Standing, Stay, ToMesh, ToShard, Word,
};
pub use mode::Discovery;
pub use stats::RouterStats;

use discovery::Meetings;
use leaving::{Leaver, Leaving, Parting};
use roster::{NetworkIx, Rosters};
use session::{Overrun, Session, Sessions, State};
use signal::Tickets;
use takeover::Takeovers;

/// Configuration of a router. It does not change.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// The router's own shard.
    pub shard: ShardId,
    /// Number of shards of the hub.
    pub shards: u16,
    /// Secret keys of the process, the same as the relay's.
    pub keys: Keys,
    /// Keys of resume secrets: issued ones, and those that clients show.
    pub resume_keys: ResumeKeys,
    /// Id of the hub.
    pub hub: HubId,
    /// Interval between two pings, for `connected`.
    pub heartbeat: Duration,
    /// Maximum length of a message in bytes, for `connected`.
    pub max_message_bytes: usize,
    /// Maximum number of networks of a peer.
    pub max_networks_per_peer: usize,
    /// Maximum number of members of a network.
    pub max_peers_per_network: usize,
    /// Maximum number of bytes of announcements of this shard's sessions: its share of ANNOUNCE_BUDGET_BYTES.
    pub announce_budget_bytes: usize,
    /// Average number of messages per second and session (MESSAGE_RATE).
    pub message_rate: u32,
    /// Average number of bytes of messages per second and session (MESSAGE_RATE_BYTES).
    pub message_rate_bytes: u64,
    /// Discovery of peers whose announcement does not ask for another one (DISCOVERY).
    pub discovery: Discovery,
    /// Whether the hub has a mesh thread. Without one, there is no [`Output::ToMesh`].
    pub meshed: bool,
    /// Whether to put out [`Event`]s for the log.
    pub events: bool,
    /// Limits that tests make small.
    pub tuning: RouterTuning,
}

impl RouterConfig {
    /// The only shard of a hub without a mesh, with the default of each limit.
    pub fn single(hub: HubId, keys: Keys, resume_keys: ResumeKeys) -> Self {
        Self {
            shard: ShardId(0),
            shards: 1,
            keys,
            resume_keys,
            hub,
            heartbeat: PING_INTERVAL,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            max_networks_per_peer: DEFAULT_MAX_NETWORKS_PER_PEER,
            max_peers_per_network: DEFAULT_MAX_PEERS_PER_NETWORK,
            announce_budget_bytes: DEFAULT_ANNOUNCE_BUDGET_BYTES,
            message_rate: DEFAULT_MESSAGE_RATE,
            message_rate_bytes: DEFAULT_MESSAGE_RATE_BYTES,
            discovery: Discovery::All,
            meshed: false,
            events: false,
            tuning: RouterTuning::default(),
        }
    }
}

/// The rules of one shard. The [crate's documentation](crate) has the contract.
#[derive(Debug)]
pub struct Router {
    config: RouterConfig,
    /// The hub's id outside. Claims keep the id that it started with.
    shown_hub: HubId,
    sessions: Sessions,
    /// The session of each connected peer of this shard.
    by_peer: HashMap<PeerId, SessionId, Keys>,
    /// Peers of this home shard that are connected to another hub.
    elsewhere: HashMap<PeerId, Claim, Keys>,
    /// The latest incarnation that was given to a session or received from another hub. It only grows, so the later of
    /// two sessions of a peer has the greater one.
    incarnation: PeerIncarnation,
    rosters: Rosters,
    /// Announcements with smaller claims than those in the rosters: at most one per member there.
    hidden: BTreeMap<(NetworkIx, PeerId), Arc<Announcement>>,
    meetings: Meetings,
    /// The latest number given to a stay.
    last_stay: u64,
    takeovers: Takeovers,
    tickets: Tickets,
    leaving: Leaving,
    /// [`Output::Unfinished`] has been put out and not been answered.
    unfinished: bool,
    outputs: Outputs<Output>,
    arena: Vec<u8>,
    stats: RouterStats,
    bugs: Bugs,
}

/// Capacity above which an empty arena is freed, in bytes: large messages are rare.
const ARENA_KEPT_BYTES: usize = 256 * 1024;

impl Router {
    /// Makes a router without sessions.
    pub fn new(config: RouterConfig) -> Self {
        Self {
            shown_hub: config.hub,
            sessions: Sessions::default(),
            by_peer: HashMap::with_hasher(config.keys),
            elsewhere: HashMap::with_hasher(config.keys),
            incarnation: PeerIncarnation::default(),
            rosters: Rosters::new(config.keys),
            hidden: BTreeMap::new(),
            meetings: Meetings::new(),
            last_stay: 0,
            takeovers: Takeovers::new(config.keys),
            tickets: Tickets::new(config.keys),
            leaving: Leaving::default(),
            unfinished: false,
            outputs: Outputs::default(),
            arena: Vec::new(),
            stats: RouterStats::default(),
            bugs: Bugs::default(),
            config,
        }
    }

    /// Processes one input. `now` must not be earlier than at the last call. The caller then drains all outputs with
    /// [`Self::poll_output`].
    pub fn handle_input(&mut self, input: Input<'_>, now: Now) {
        self.begin();
        match input {
            Input::AskedOn { session } => self.asked_on(session, now),
            Input::Closed { session, reason } => self.end(session, reason, now),
            Input::Continue => self.continue_work(now),
            Input::Delivered { origin, target } => self.delivered(origin, target, now),
            Input::GoAway { session, reconnect_in, hubs } => self.go_away(session, reconnect_in, hubs, now),
            Input::Letter(letter) => self.letter(letter, now),
            Input::Message { session, text } => match isolated(|| codec::parse(text)) {
                Some(parsed) => self.message(session, parsed, text.len(), now),
                None => self.parser_failed(session, now),
            },
            Input::NotText { session } => self.message(session, Err(Refusal::not_text()), 0, now),
            Input::Opened { session, peer, seat, resume } => self.opened(session, peer, seat, resume, now),
            Input::Pong { session, payload } => self.ponged(session, payload, now),
            Input::Retire { session } => self.retire(session, now),
            Input::Room { session } => self.read_roster(session, now),
            Input::TooLarge { session } => self.too_large(session, now),
            Input::Undelivered { origin, target, reason } => self.undelivered(origin, target, reason, now),
        }
    }

    /// Processes everything that is due at `now`. The caller then drains all outputs.
    pub fn handle_timeout(&mut self, now: Now) {
        self.begin();
        self.expire_takeovers(now);
        self.expire_receipts(now);
        self.meet_again(now);
    }

    /// Returns the next output. `None` when the input is fully processed.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front().or_else(|| {
            let lost = self.outputs.take_lost();
            if lost > 0 {
                bug!(self.bugs, OutputsLost, "{lost} outputs");
            }
            self.bugs.take_note().map(Output::Bug)
        })
    }

    /// The time at which [`Self::handle_timeout`] should be called. Earlier calls are allowed.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let meetings = self.meetings.next_deadline(self.config.meshed);
        [self.takeovers.next_deadline(), self.tickets.next_deadline(), meetings].into_iter().flatten().min()
    }

    /// The bytes that [`Frame::Arena`] refers to. Valid until the next input.
    pub fn arena(&self) -> &[u8] {
        &self.arena
    }

    /// Counters since the start, and current gauges.
    pub fn stats(&mut self) -> &RouterStats {
        self.stats.peers = self.by_peer.len() as u64;
        self.stats.networks = self.rosters.len() as u64;
        self.stats.members = self.rosters.members() as u64;
        self.stats.open_receipts = self.tickets.len() as u64;
        self.stats.acquaintances = self.meetings.known();
        self.stats.bugs.clone_from(self.bugs.counts());
        &self.stats
    }

    /// All networks of the hub with at least one member, with their numbers of members.
    pub fn networks(&self) -> impl Iterator<Item = (&NetworkName, usize)> {
        self.rosters.iter()
    }

    /// The [`Self::networks`] in a range of slots, for a reader in parts. `None` after the last slot. Networks that are
    /// added or removed between two parts may be missed.
    pub fn networks_in(&self, slots: Range<usize>) -> Option<impl Iterator<Item = (&NetworkName, usize)>> {
        self.rosters.iter_in(slots)
    }

    fn begin(&mut self) {
        if self.outputs.len() > 0 {
            bug!(self.bugs, OutputsLeft, "{} outputs", self.outputs.len());
        }
        if self.arena.capacity() > ARENA_KEPT_BYTES {
            self.arena = Vec::new();
        }
        self.arena.clear();
    }

    fn letter(&mut self, letter: ToShard, now: Now) {
        match letter {
            ToShard::Challenge { peer, asker, resume } => self.challenged(peer, asker, resume, now),
            ToShard::Elsewhere { peer, claim } => self.came_to_other_hub(peer, claim, now),
            ToShard::Joined(announcement) => self.joined_elsewhere(&announcement, now),
            ToShard::Left(farewell) => self.left_elsewhere(&farewell, now),
            ToShard::Meeting(meeting) => self.heard_meeting(&meeting, now),
            ToShard::Renamed { hub } => self.shown_hub = hub,
            ToShard::Nowhere { peer, claim } => self.left_other_hub(peer, claim, now),
            ToShard::Outcome(OutcomeLetter { origin, target, outcome }) => self.settle(origin, target, outcome, now),
            ToShard::Signal(SignalLetter { origin, from, target, frame }) => {
                self.deliver(origin, from, target, Frame::Owned(frame), now);
            }
            ToShard::TakeoverAnswered { peer, ticket, in_use } => self.takeover_answered(peer, ticket, in_use, now),
        }
    }

    fn message(&mut self, id: SessionId, parsed: Result<ClientMessage<'_>, Box<Refusal<'_>>>, bytes: usize, now: Now) {
        let wrong = self.over_rate(id, &parsed, bytes as u64, now);
        let Some(session) = self.sessions.get_mut(id) else { return };
        if let Some(wrong) = wrong {
            let exhausted = Overrun::note(&mut session.overrun, now.at);
            self.refuse(id, &over_rate(parsed, wrong), now);
            if exhausted {
                self.close(id, CloseReason::RateLimited, now);
            }
            return;
        }
        match parsed {
            Ok(ClientMessage::Announce(announce)) => {
                self.count_in(MessageKind::Announce);
                self.announced(id, &announce, now);
            }
            Ok(ClientMessage::Discover(discover)) => {
                self.count_in(MessageKind::Discover);
                self.asked_for_more(id, &discover, now);
            }
            Ok(ClientMessage::Goodbye(goodbye)) => {
                self.count_in(MessageKind::Goodbye);
                self.said_goodbye(id, &goodbye, now);
            }
            Ok(ClientMessage::Ignored) => self.count_in(MessageKind::Ignored),
            Ok(ClientMessage::Ping) => {
                self.count_in(MessageKind::Ping);
                self.pinged(id, now);
            }
            Ok(ClientMessage::Signal(signal)) => {
                self.count_in(MessageKind::Signal(signal.kind));
                self.signalled(id, signal, now);
            }
            Err(refusal) => self.refuse(id, &refusal, now),
        }
    }

    /// Which rate limit of the session the message exceeds, if any.
    fn over_rate(
        &mut self,
        id: SessionId,
        parsed: &Result<ClientMessage<'_>, Box<Refusal<'_>>>,
        bytes: u64,
        now: Now,
    ) -> Option<&'static str> {
        let session = self.sessions.get_mut(id)?;
        let RouterConfig { message_rate, message_rate_bytes, max_message_bytes, .. } = self.config;
        let (rate, burst) = (u64::from(message_rate), u64::from(MESSAGE_BURST_SECS));
        let largest = MESSAGE_BURST_LARGEST * max_message_bytes as u64;
        let announced = bytes + MEMBER_BYTES as u64;
        if !session.messages.take(now.at, 1, rate, burst * rate) {
            Some(ErrorCode::RateLimited.explain())
        } else if !session.bytes.take(now.at, bytes, message_rate_bytes, largest.max(burst * message_rate_bytes)) {
            Some(sentences::TOO_MANY_BYTES)
        } else if matches!(parsed, Ok(ClientMessage::Announce(_)))
            && !session.announced.take(now.at, announced, ANNOUNCE_RATE_BYTES, ANNOUNCE_BURST_BYTES)
        {
            Some(sentences::ANNOUNCED_TOO_OFTEN)
        } else {
            None
        }
    }

    /// The parser has a defect that this message shows. Only its sender is affected.
    fn parser_failed(&mut self, id: SessionId, now: Now) {
        if self.sessions.get(id).is_some() {
            self.close(id, CloseReason::Internal, now);
        }
    }

    fn too_large(&mut self, id: SessionId, now: Now) {
        if self.sessions.get(id).is_none() {
            return;
        }
        self.refuse(id, &Refusal::too_large(), now);
        self.close(id, CloseReason::MessageTooLarge, now);
    }

    fn pinged(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.sessions.get(id) else {
            return bug!(self.bugs, MessageSession, "ping of {id:?}");
        };
        let frame = wire::pong(&mut self.arena, &session.peer, now.wall_ms);
        self.send(id, Frame::Arena(frame), MessageKind::Pong);
    }

    fn go_away(&mut self, id: SessionId, reconnect_in: Duration, hubs: &[String], now: Now) {
        let Some(session) = self.sessions.get(id) else { return };
        let network = self.spoken_network(session);
        let reconnect_in_ms = reconnect_in.as_millis() as u64;
        let frame = wire::go_away(&mut self.arena, &session.peer, reconnect_in_ms, hubs, network.as_str(), now.wall_ms);
        self.send(id, Frame::Arena(frame), MessageKind::GoAway);
    }

    fn retire(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        match session.state {
            State::Live => {
                session.state = State::Retiring;
                self.outputs.push_back(Output::Close { session: id, reason: CloseReason::Draining });
            }
            // It has sent nothing yet. If it stayed, it would be admitted after the drain began.
            State::Pending => self.close(id, CloseReason::Draining, now),
            State::Retiring => {}
        }
    }

    /// Ends a session and closes its socket.
    fn close(&mut self, id: SessionId, reason: CloseReason, now: Now) {
        self.outputs.push_back(Output::Close { session: id, reason });
        self.end(id, reason, now);
    }

    /// Removes a session, and notifies the members of its networks.
    fn end(&mut self, id: SessionId, reason: CloseReason, now: Now) {
        let Some(mut session) = self.sessions.remove(id) else { return };
        let peer = session.peer;
        if session.state == State::Pending {
            self.takeovers.forget(&peer);
            return;
        }
        let spoke = self.by_peer.remove(&peer);
        if spoke != Some(id) {
            bug!(self.bugs, SpeakerReplaced, "{peer:?}: {id:?} ends, {spoke:?} spoke");
        }
        let leaver = Leaver { peer, claim: session.claim, how: Parting::Ended(reason) };
        self.leave_all(id, leaver, std::mem::take(&mut session.memberships).into_vec(), now);
        self.post_to_mesh(|| ToMesh::Closed { peer, claim: session.claim, reason });
        self.promote_pending(&peer, now);
    }

    fn send(&mut self, session: SessionId, frame: Frame, kind: MessageKind) {
        if self.sessions.get(session).is_some_and(|s| s.state == State::Live) {
            self.outputs.push_back(Output::Send { session, frame, kind, origin: None, from: None });
        }
    }

    fn count_in(&mut self, kind: MessageKind) {
        self.stats.messages_in[kind.index()] += 1;
    }

    /// Counts and answers a refused message.
    fn refuse(&mut self, id: SessionId, refusal: &Refusal<'_>, now: Now) {
        self.count_in(refusal.kind);
        let spoken = match (&refusal.network, self.sessions.get(id)) {
            (None, Some(session)) => Some(self.spoken_network(session)),
            _ => None,
        };
        let spoken = spoken.as_ref().map_or(NetworkName::GLOBAL, NetworkName::as_str);
        let network = refusal.network.as_deref().unwrap_or(spoken);
        if let MessageKind::Signal(_) = refusal.kind {
            self.stats.failed[refusal.code as usize] += 1;
            if let Some(ticket) = &refusal.id {
                self.send_receipt(id, ticket, crate::Outcome::Failed(refusal.code), refusal.target, network, now);
                return;
            }
        }
        let report = ErrorReport {
            code: refusal.code,
            message: refusal.message,
            in_reply_to: refusal.in_reply_to.as_deref(),
            target: refusal.target,
            id: refusal.id.as_deref(),
            network,
        };
        self.send_error(id, &report, now);
    }

    /// Sends an `error`, unless the session has reached its limit of errors.
    fn send_error(&mut self, id: SessionId, report: &ErrorReport<'_>, now: Now) {
        let Some(session) = self.sessions.get_mut(id).filter(|s| s.state == State::Live) else { return };
        if session.errors.take(now.at, 1, ERROR_RATE, ERROR_BURST) {
            self.stats.errors[report.code as usize] += 1;
            let frame = wire::error(&mut self.arena, &session.peer, report, now.wall_ms);
            self.send(id, Frame::Arena(frame), MessageKind::Error);
        } else {
            self.stats.errors_withheld += 1;
        }
    }

    /// The network named in messages about the peer itself: clients ignore messages of other networks than their own.
    fn spoken_network(&self, session: &Session) -> NetworkName {
        let first = session.memberships.first().and_then(|m| self.rosters.network(m.network));
        first.map_or_else(|| NetworkName::new(NetworkName::GLOBAL), |network| network.name.clone())
    }

    fn post(&mut self, to: ShardId, letter: ToShard) {
        self.outputs.push_back(Output::ToShard { to, letter });
    }

    fn post_to_shards(&mut self, letter: &ToShard) {
        let RouterConfig { shard: here, shards, .. } = self.config;
        for shard in (0..shards).map(ShardId).filter(|&shard| shard != here) {
            self.post(shard, letter.clone());
        }
    }

    fn post_to_mesh(&mut self, letter: impl FnOnce() -> ToMesh) {
        if self.config.meshed {
            self.outputs.push_back(Output::ToMesh(letter()));
        }
    }

    fn here(&self) -> Address {
        Address::Shard(self.config.shard)
    }

    fn welcome(&self) -> Welcome {
        Welcome {
            hub: self.shown_hub,
            heartbeat_ms: self.config.heartbeat.as_millis() as u64,
            max_message_bytes: self.config.max_message_bytes,
        }
    }
}

/// The refusal of a message above a rate limit, with the fields of its answer.
fn over_rate<'a>(parsed: Result<ClientMessage<'a>, Box<Refusal<'a>>>, message: &'static str) -> Refusal<'a> {
    let mut refusal = Refusal {
        code: ErrorCode::RateLimited,
        message,
        kind: MessageKind::Invalid,
        in_reply_to: None,
        target: None,
        id: None,
        network: None,
    };
    match parsed {
        Ok(ClientMessage::Announce(announce)) => {
            refusal.kind = MessageKind::Announce;
            refusal.network = Some(announce.network);
        }
        Ok(ClientMessage::Discover(discover)) => {
            refusal.kind = MessageKind::Discover;
            refusal.network = Some(discover.network);
        }
        Ok(ClientMessage::Goodbye(goodbye)) => {
            refusal.kind = MessageKind::Goodbye;
            refusal.network = goodbye.network;
        }
        Ok(ClientMessage::Ignored) => refusal.kind = MessageKind::Ignored,
        Ok(ClientMessage::Ping) => refusal.kind = MessageKind::Ping,
        Ok(ClientMessage::Signal(signal)) => {
            refusal.kind = MessageKind::Signal(signal.kind);
            refusal.target = Some(signal.target);
            refusal.id = signal.id;
            refusal.network = Some(signal.network);
        }
        Err(other) => {
            refusal.kind = other.kind;
            refusal.in_reply_to = other.in_reply_to;
            refusal.target = other.target;
            refusal.id = other.id;
            refusal.network = other.network;
        }
    }
    if refusal.in_reply_to.is_none() && !matches!(refusal.kind, MessageKind::Invalid | MessageKind::UnknownType) {
        refusal.in_reply_to = Some(refusal.kind.label().into());
    }
    refusal
}

#[cfg(test)]
mod tests;
