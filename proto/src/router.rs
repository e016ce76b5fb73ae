//! The rules of one shard for sessions, rosters, signals, receipts and takeovers.

// Modules that own the state of a router. Each of them has a type with private fields, whose methods return decisions.
mod circle;
mod cursor;
mod exclusions;
mod expiries;
mod home;
mod leaving;
mod meetings;
mod roster;
mod session;
mod takeovers;
mod tickets;
mod usage;
// Inputs and outputs.
mod discovery;
mod letter;
mod stats;
// Methods of `Router`, which call the owners of state and put out the results.
mod announce;
mod audit;
mod authorize;
mod leave;
mod life;
mod meeting_in;
mod meeting_out;
mod message;
mod network;
mod observe;
mod operator;
mod order;
mod picks;
mod presence;
mod roster_sending;
mod signal;
mod takeover;
// Algorithms.
mod closest;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::budget::{Budget, BudgetRates};
use crate::bug;
use crate::bugs::Bugs;
use crate::codec::{self, RefusedMessage};
use crate::ice::IceServers;
use crate::id::{HubId, NetworkName, PeerId, SessionId, ShardId};
use crate::isolated::isolated;
use crate::keys::Keys;
use crate::limits::{
    DEFAULT_ANNOUNCE_BUDGET_BYTES, DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_MAX_NETWORKS_PER_PEER,
    DEFAULT_MAX_PEERS_PER_NETWORK, DEFAULT_NETWORK_BUDGETS, PING_INTERVAL,
};
use crate::outputs::Outputs;
use crate::resume::ResumeKeys;
use crate::route::Address;
use crate::time::Now;
use crate::tuning::RouterTuning;
use crate::wire::{MessageKind, Welcome};

pub use discovery::Discovery;
pub use letter::{
    Announcement, Asker, Frame, Input, Leave, Letter, Meeting, MeetingEnd, MeetingKind, Origin, OutcomeLetter, Output,
    PeerEvent, Sender, SignalLetter, Standing, Stay, ToMesh, ToShard,
};
pub use order::{Acted, KickedFrom, Order};
pub use stats::{Flooder, RouterStats};

use exclusions::Exclusions;
use expiries::Expiries;
use home::Home;
use leaving::Leaving;
use meetings::Meetings;
use operator::Closing;
use roster::Rosters;
use session::{Session, Sessions};
use takeovers::Takeovers;
use tickets::Tickets;

/// A member in the list of [`Router::members_of`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedMember {
    /// The peer.
    pub peer: PeerId,
    /// The other hub to which the peer is connected. `None` if the peer is connected to this hub.
    pub hub: Option<HubId>,
    /// Time of the join, in milliseconds since 1970: [`Stay::number`], by the clock of the peer's hub. 0 if the peer is
    /// behind a legacy link.
    pub since_ms: u64,
}

/// Configuration of a router, which does not change. The router checks no value: the hub checks its settings when it
/// parses them.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// The router's own shard, less than `shards`.
    pub shard: ShardId,
    /// Number of shards of the hub (SHARDS), at least 1. All routers of a hub must have the same number.
    pub shards: u16,
    /// Secret keys of the process. The relay and all routers of a hub must have the same keys.
    pub keys: Keys,
    /// Keys that issue and verify resume secrets.
    pub resume_keys: ResumeKeys,
    /// Id of the hub in claims. The message `connected` contains the same id until [`ToShard::Renamed`] arrives.
    pub hub: HubId,
    /// Interval between two pings, for `heartbeatMs` of `connected`. The router itself sends no regular pings.
    pub heartbeat: Duration,
    /// Maximum length of a message in bytes (MAX_MESSAGE_BYTES), for `maxMessageBytes` of `connected`. The caller
    /// enforces this limit, and reports a longer message with [`Input::TooLarge`].
    pub max_message_bytes: usize,
    /// Maximum number of networks of a peer (MAX_NETWORKS_PER_PEER). An announcement in one more network is refused as
    /// `too-many-networks`.
    pub max_networks_per_peer: usize,
    /// Maximum number of members of a network (MAX_PEERS_PER_NETWORK), as far as this shard knows. A peer that wants to
    /// join a full network gets `network-full`. The limit can be exceeded if peers join at the same moment on other
    /// shards or hubs.
    pub max_peers_per_network: usize,
    /// Maximum number of bytes of announcements of this shard's sessions. The maximum is the shard's part of
    /// ANNOUNCE_BUDGET_BYTES. An announcement that would exceed the maximum is refused as `hub-full`, unless its
    /// session then has at most [`ANNOUNCE_FLOOR_BYTES`](crate::limits::ANNOUNCE_FLOOR_BYTES).
    pub announce_budget_bytes: usize,
    /// Budget of each session. A message that exceeds this budget is refused as `rate-limited`. A session whose
    /// messages are refused for [`RATE_LIMIT_PATIENCE`](crate::limits::RATE_LIMIT_PATIENCE) without a pause is closed.
    pub budget: Budget,
    /// Budget of each network on this shard, which its members share. While this budget is exhausted, messages of
    /// members that have used more than an eighth ([`LIGHT_PART`](crate::limits::LIGHT_PART)) of their own burst are
    /// refused as `rate-limited`.
    pub network_budget: Budget,
    /// Discovery mode of peers whose announcement does not request another mode (DISCOVERY).
    pub discovery: Discovery,
    /// STUN and TURN servers for clients (ICE_SERVERS, TURN_URLS). `None` if the hub has no such servers.
    pub ice: Option<Arc<IceServers>>,
    /// Whether the hub has a mesh thread. Without a mesh thread, the router puts out no [`Output::ToMesh`].
    pub meshed: bool,
    /// Whether to put out [`PeerEvent`]s, for the log or for traces.
    pub events: bool,
    /// Limits that tests set to small values.
    pub tuning: RouterTuning,
}

impl RouterConfig {
    /// Makes the configuration of a hub with one shard and no mesh, with the default of each limit.
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
            budget: Budget::of_session(&BudgetRates::default(), DEFAULT_MAX_MESSAGE_BYTES),
            network_budget: Budget::of_network(&BudgetRates::default(), DEFAULT_NETWORK_BUDGETS),
            discovery: Discovery::All,
            ice: None,
            meshed: false,
            events: false,
            tuning: RouterTuning::default(),
        }
    }
}

/// The rules of one shard. The [crate's documentation](crate) has the contract.
///
/// The state of a router belongs to types with private fields, such as the types for sessions, rosters and takeovers.
/// Their methods return decisions. The router calls the methods and puts out the results.
#[derive(Debug)]
pub struct Router {
    config: RouterConfig,
    /// The hub's current id, which clients and other hubs see. Claims keep the hub's first id.
    shown_hub: HubId,
    sessions: Sessions,
    /// The session of each connected peer of this shard.
    by_peer: HashMap<PeerId, SessionId, Keys>,
    home: Home,
    rosters: Rosters,
    meetings: Meetings,
    /// The latest number given to a stay.
    last_stay: u64,
    takeovers: Takeovers,
    tickets: Tickets,
    leaving: Leaving,
    exclusions: Exclusions,
    /// When the tokens of sessions expire.
    expiries: Expiries,
    /// The network that an operator is closing.
    closing: Option<Closing>,
    /// Whether [`Output::Unfinished`] was put out and has not been answered with [`Input::Continue`].
    unfinished: bool,
    outputs: Outputs<Output>,
    arena: Vec<u8>,
    stats: RouterStats,
    bugs: Bugs,
}

/// Capacity above which the arena is freed before the next input, in bytes. Large messages are rare, so their memory is
/// not kept.
const ARENA_KEPT_BYTES: usize = 256 * 1024;

impl Router {
    /// Makes a router without sessions.
    pub fn new(config: RouterConfig) -> Self {
        Self {
            shown_hub: config.hub,
            sessions: Sessions::default(),
            by_peer: HashMap::with_hasher(config.keys),
            home: Home::new(config.keys),
            rosters: Rosters::new(config.keys),
            meetings: Meetings::default(),
            last_stay: 0,
            takeovers: Takeovers::new(config.keys),
            tickets: Tickets::new(config.keys),
            leaving: Leaving::default(),
            exclusions: Exclusions::new(config.keys),
            expiries: Expiries::default(),
            closing: None,
            unfinished: false,
            outputs: Outputs::default(),
            arena: Vec::new(),
            stats: RouterStats::default(),
            bugs: Bugs::default(),
            config,
        }
    }

    /// Processes one input. `now` must not be earlier than at the last call. The caller then drains all outputs with
    /// [`Self::poll_output`]. The documentation of each variant of [`Input`] says when it may be passed.
    ///
    /// # Panics
    ///
    /// The function never panics on messages of clients or hubs. In builds with debug assertions, it panics if it finds
    /// an impossible state, or if outputs of the last input have not been drained.
    pub fn handle_input(&mut self, input: Input<'_>, now: Now) {
        self.begin();
        match input {
            Input::AskedOn { session } => self.asked_on(session, now),
            Input::Authorized { session, grant } => self.authorized(session, grant, now),
            Input::Closed { session, reason } => self.end(session, reason, now),
            Input::Continue => self.continue_work(now),
            Input::Delivered { origin, target } => self.delivered(origin, target, now),
            Input::GoAway { session, close_in, reconnect_in, hubs } => {
                self.go_away(session, (close_in, reconnect_in), hubs, now);
            }
            Input::Letter(letter) => self.letter(letter, now),
            Input::Message { session, text } => match isolated(|| codec::parse(text)) {
                Some(parsed) => self.message(session, parsed, text.len(), now),
                None => self.parser_failed(session, now),
            },
            Input::NotText { session } => self.message(session, Err(RefusedMessage::not_text()), 0, now),
            Input::Order(order) => self.ordered(order, now),
            Input::Opened { session, peer, seat, resume, owner, grant } => {
                self.opened(session, peer, seat, (resume, owner), grant, now);
            }
            Input::Pong { session, payload } => self.ponged(session, payload, now),
            Input::RenewIce { session } => self.renew_ice(session, now),
            Input::Retire { session } => self.retire(session, now),
            Input::Room { session } => self.send_roster_chunk(session, now),
            Input::TooLarge { session } => self.too_large(session, now),
            Input::Undelivered { origin, target, reason } => self.undelivered(origin, target, reason, now),
        }
    }

    /// Processes the work that is due at `now`, as far as it fits into a turn. [`Self::poll_timeout`] shows whether
    /// more is due. The caller then drains all outputs. Panics in the same cases as [`Self::handle_input`].
    pub fn handle_timeout(&mut self, now: Now) {
        self.begin();
        self.expire_takeovers(now);
        self.expire_receipts(now);
        self.repeat_meetings(now);
        self.expire_grants(now);
    }

    /// Returns the next output. `None` if there is no further output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front().or_else(|| {
            let lost = self.outputs.take_lost();
            if lost > 0 {
                bug!(self.bugs, OutputsLost, "{lost} outputs");
            }
            self.bugs.take_note().map(Output::Bug)
        })
    }

    /// The time at which [`Self::handle_timeout`] should be called; `None` while nothing is due. Earlier calls are
    /// allowed.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let meetings = self.meetings.next_deadline(self.config.meshed);
        let expiry = self.expiries.next_deadline();
        [self.takeovers.next_deadline(), self.tickets.next_deadline(), meetings, expiry].into_iter().flatten().min()
    }

    /// The bytes that [`Frame::Arena`] refers to. Valid until the next input.
    pub fn arena(&self) -> &[u8] {
        &self.arena
    }

    /// Counters since the start, and current gauges. Takes constant time.
    pub fn stats(&mut self) -> &RouterStats {
        self.stats.peers = self.by_peer.len() as u64;
        self.stats.networks = self.rosters.len() as u64;
        self.stats.members = self.rosters.members() as u64;
        self.stats.open_receipts = self.tickets.len() as u64;
        self.stats.acquaintances = self.meetings.known();
        self.stats.bugs.clone_from(self.bugs.counts());
        &self.stats
    }

    /// All networks with at least one member on any shard or hub, with their numbers of members.
    pub fn networks(&self) -> impl Iterator<Item = (&NetworkName, usize)> {
        self.rosters.iter()
    }

    /// The networks of [`Self::networks`] in a range of slots, for a caller that reads the list in parts. Returns
    /// `None` after the last slot. Networks that are added or removed between two parts may be missed.
    pub fn networks_in(&self, slots: Range<usize>) -> Option<impl Iterator<Item = (&NetworkName, usize)>> {
        self.rosters.iter_in(slots)
    }

    /// The first `most` members of a network, in ascending order of ids, and the number of all members.
    pub fn members_of(&self, network: &str, most: usize) -> (Vec<ListedMember>, usize) {
        let found = self.rosters.find(network).and_then(|ix| self.rosters.network(ix));
        let Some(network) = found else { return (Vec::new(), 0) };
        let listed = network.members().take(most).map(|(peer, member)| {
            let is_elsewhere = member.address() == Address::Mesh;
            let announcement = member.announcement();
            ListedMember {
                peer: *peer,
                hub: is_elsewhere.then_some(announcement.claim.hub),
                since_ms: announcement.stay.number,
            }
        });
        (listed.collect(), network.len())
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
            ToShard::Challenge { peer, asker, resume, owner } => self.challenged(peer, asker, (resume, owner), now),
            ToShard::Elsewhere { peer, claim } => self.connected_elsewhere(peer, claim, now),
            ToShard::Joined(announcement) => self.member_joined(&announcement, now),
            ToShard::Left(leave) => self.member_left(&leave, now),
            ToShard::Meeting(meeting) => self.meeting_received(&meeting, now),
            ToShard::Renamed { hub } => self.shown_hub = hub,
            ToShard::Nowhere { peer, claim } => self.ended_elsewhere(peer, claim, now),
            ToShard::Outcome(OutcomeLetter { origin, target, outcome }) => {
                self.report_outcome(origin, target, outcome, now);
            }
            ToShard::Signal(SignalLetter { origin, from, target, frame }) => {
                self.deliver(origin, from, target, Frame::Owned(frame), now);
            }
            ToShard::TakeoverAnswered { peer, ticket, in_use } => self.takeover_answered(peer, ticket, in_use, now),
        }
    }

    fn send(&mut self, session: SessionId, frame: Frame, kind: MessageKind) {
        if self.sessions.get(session).is_some_and(Session::is_open) {
            self.outputs.push_back(Output::Send { session, frame, kind, origin: None, from: None });
        }
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

    /// The session of a connected peer of this shard.
    fn session_of(&mut self, peer: &PeerId) -> Option<SessionId> {
        let id = *self.by_peer.get(peer)?;
        if self.sessions.get(id).is_none() {
            bug!(self.bugs, PeerSession, "{id:?} of {peer:?}");
            return None;
        }
        Some(id)
    }

    fn here(&self) -> Address {
        Address::Shard(self.config.shard)
    }

    fn welcome(&self) -> Welcome {
        Welcome {
            hub: self.shown_hub,
            heartbeat_ms: self.config.heartbeat.as_millis() as u64,
            max_message_bytes: self.config.max_message_bytes,
            ice: self.config.ice.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
