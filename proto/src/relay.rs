//! The rules between hubs: presence, routing, takeovers. A hub has one relay.

mod audit;
mod directory;
mod heartbeats;
mod holding;
mod legacy;
mod links;
mod lives;
mod meeting;
mod names;
mod presence;
mod reach;
mod remote;
mod rival;
mod signals;
mod silence;
mod slices;
mod snapshots;
mod takeover;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::bug;
use crate::bugs::{BugCounts, BugNote, Bugs};
use crate::envelope::{ChangeKind, Envelope, EnvelopeKind};
use crate::id::{HubId, HubIncarnation, LinkId, PeerId, ShardId};
use crate::keys::Keys;
use crate::limits::{GREATEST_TIME_FOLLOWED, HEARTBEAT, LINK_SILENCE};
use crate::outputs::Outputs;
use crate::reason::LeaveReason;
use crate::route::Via;
use crate::router::{Discovery, OutcomeLetter, RouterStats, SignalLetter, ToMesh, ToShard};
use crate::time::Now;
use crate::tuning::RelayTuning;

use directory::Directory;
use holding::Holding;
use legacy::Legacy;
use links::{Bridge, Link};
use names::Names;
use reach::Reach;
use remote::Remote;
use rival::Rival;
use slices::Discarded;

/// Configuration of a relay. It does not change.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// This hub.
    pub hub: HubId,
    /// The wall clock at its start, in milliseconds.
    pub incarnation: HubIncarnation,
    /// Number of shards of the hub.
    pub shards: u16,
    /// Secret of this process, the same as the shards'.
    pub keys: Keys,
    /// HUB_MESH_NAMESPACE.
    pub namespace: String,
    /// DISCOVERY. All hubs of a mesh have the same value.
    pub discovery: Discovery,
    /// URL at which other hubs can dial this one (MESH_ADVERTISE).
    pub advertise: Option<Arc<str>>,
    /// URL at which clients reach this hub (PUBLIC_URL).
    pub public_url: Option<Arc<str>>,
    /// Limits that tests make small.
    pub tuning: RelayTuning,
}

/// Inputs of a relay. Each variant says when it may come. Inputs of one link arrive in order: `LinkUp` or `LegacyUp`,
/// then everything else, then `LinkDown`. Inputs of an unknown link are ignored.
#[derive(Debug)]
pub enum RelayInput<'a> {
    /// A letter from a shard. Letters of one shard arrive in the order in which they were posted.
    Letter(ToMesh),
    /// A link is ready: both ends have exchanged hellos and agreed to keep it. First input of a link. An older link to
    /// the same hub may still exist for a while; envelopes received on it are still processed.
    LinkUp {
        /// The link. Its id must not have been used before.
        link: LinkId,
        /// The other hub.
        hub: HubId,
        /// The incarnation in that hub's hello.
        incarnation: HubIncarnation,
    },
    /// Another process sent a hello with this hub's id on a link. At any time.
    Namesake {
        /// Its incarnation.
        incarnation: HubIncarnation,
        /// Its [`Heartbeat::process`](crate::envelope::Heartbeat::process).
        process: u64,
    },
    /// A link has closed. Last input of a link. Its queue, if it was not sent, is lost.
    LinkDown {
        /// The link.
        link: LinkId,
    },
    /// A part of a long message arrived on a link, and the rest has not. So the link is not silent, although there is
    /// no complete envelope yet.
    Heard {
        /// The link.
        link: LinkId,
    },
    /// An envelope arrived from a neighbour: on a link after [`Self::LinkUp`], or on the bridge after
    /// [`Self::BridgeUp`]. Never [`Envelope::Hello`], which the mesh handles itself.
    Received {
        /// The link, or the hub on the bridge.
        via: Via,
        /// The envelope.
        envelope: Envelope,
    },
    /// A link's queue, or the bridge's, rose above its high-water mark. Until [`Self::Room`] the relay puts out only
    /// heartbeats and short answers for it.
    Saturated {
        /// The way: a link, or [`Way::Bridge`].
        way: Way,
    },
    /// The queue of a way is short again: once after [`Self::Saturated`], and once as the answer to
    /// [`RelayOutput::Backlog`].
    Room {
        /// The way: a link, or [`Way::Bridge`].
        way: Way,
    },
    /// The bridge works: published frames reach all subscribers. Repeated when a new hub subscribes.
    BridgeUp,
    /// The bridge has failed; frames published last may be lost. Only after [`Self::BridgeUp`].
    BridgeDown,
    /// A legacy link is ready: to a Go hub, or to a hub that speaks its protocol. First input of a legacy link.
    LegacyUp {
        /// The link. Its id must not have been used before.
        link: LinkId,
        /// The Go hub.
        hub: HubId,
        /// Whether this hub dialed. Then it sends first.
        dialed: bool,
    },
    /// A text message arrived on a legacy link. Its last input is [`Self::LinkDown`].
    LegacyText {
        /// The link.
        link: LinkId,
        /// The message.
        text: &'a str,
    },
    /// The answer to [`RelayOutput::Unfinished`].
    Continue,
    /// The hub drains. Once. Other hubs must not dial it any more.
    Draining,
    /// The hub stops now: its peers have left. Once; the last input. Other hubs need not wait for its lease.
    Ending,
}

/// A way on which envelopes leave a hub.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Way {
    /// A link.
    Link(LinkId),
    /// The bridge.
    Bridge,
}

/// Outputs of a relay. The caller must perform them in order.
#[derive(Debug)]
pub enum RelayOutput {
    /// Append this envelope to the queue of a neighbour.
    Send {
        /// The destination.
        to: Destination,
        /// The envelope.
        envelope: Envelope,
    },
    /// Append this text message to the queue of a legacy link.
    SendText {
        /// The way.
        link: LinkId,
        /// The message.
        text: Box<str>,
    },
    /// Give [`RelayInput::Room`] when the queue of this way is short: there is more to send.
    Backlog {
        /// The link.
        way: Way,
    },
    /// Post this letter. Letters to one shard must arrive in this order; none may be dropped.
    Letter {
        /// The shard.
        to: ShardId,
        /// The letter.
        letter: ToShard,
    },
    /// This hub has given up its id and has the new id [`Relay::hub`]. End all links except legacy links after their
    /// queues are written, and dial them again; restart the bridge. The relay has forgotten them.
    Renamed {
        /// The new id.
        hub: HubId,
    },
    /// There is more to do than fits into one turn. Give [`RelayInput::Continue`] once whatever else is ready has had its turn and few
    /// letters wait for each shard.
    Unfinished,
    /// For the log.
    Event(MeshEvent),
    /// For the log: an impossible state was found, for the first time at its site. Only in builds without debug assertions.
    Bug(BugNote),
}

/// The destination of an envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// The hub at the other end of a link.
    Link(LinkId),
    /// All hubs on the bridge.
    Everyone,
    /// One hub on the bridge.
    Bridged(HubId),
}

/// An event about other hubs, for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MeshEvent {
    /// The first heartbeat of a hub arrived, or the first after it was lost.
    HubFound(HubId),
    /// A hub's lease has expired; this number of its peers has left.
    HubLost(HubId, usize),
    /// A hub sent its farewell; this number of its peers has left.
    HubLeft(HubId, usize),
    /// Another live hub uses this hub's id. The one that started later takes a new id.
    SameId,
    /// Other hubs remembered a later incarnation of this hub, which has ended. This hub has begun an even later one.
    LaterLife,
    /// This hub gave up its first id to another live hub, and has the second.
    IdGivenUp(HubId, HubId),
    /// Two live hubs have this id.
    TwoHubs(HubId),
    /// A snapshot replaced this hub's replica of another hub.
    Repaired(HubId),
    /// Nothing arrives on the link to this hub. Signals take another way if there is one.
    LinkSilent(HubId),
    /// This hub reports that nothing arrives on the link from here. Signals take another way if there is one.
    LinkUnheard(HubId),
    /// The link to this hub works in both directions again.
    LinkWorks(HubId),
}

/// State of another hub, for the pages.
#[derive(Clone, Debug)]
pub struct HubView {
    /// The hub.
    pub hub: HubId,
    /// Its current incarnation.
    pub incarnation: HubIncarnation,
    /// Whether its lease is valid. Only then are its peers in the rosters.
    pub live: bool,
    /// Whether it drains.
    pub draining: bool,
    /// The way to it.
    pub route: Option<Via>,
    /// Its direct link, if there is one.
    pub link: Option<LinkId>,
    /// Whether it is on the bridge.
    pub bridged: bool,
    /// Whether it is a Go hub.
    pub legacy: bool,
    /// Number of its peers.
    pub peers: usize,
    /// Number of its last change that is known here.
    pub seq: u64,
    /// Number of its changes that are missing here.
    pub lag: u64,
    /// Time since its last heartbeat.
    pub heard: Duration,
    /// URL at which hubs can dial it.
    pub advertise: Option<Arc<str>>,
    /// URL at which clients reach it.
    pub public_url: Option<Arc<str>>,
}

/// Counters of a relay since its start, and gauges. Counters only grow.
#[derive(Clone, Debug, Default)]
pub struct RelayStats {
    /// Envelopes received, by the kind's discriminant.
    pub received: [u64; EnvelopeKind::ALL.len()],
    /// Envelopes put out, by the kind's discriminant, counted once per link.
    pub sent: [u64; EnvelopeKind::ALL.len()],
    /// Changes and heartbeats that arrived before.
    pub duplicates: u64,
    /// Signals forwarded for other hubs.
    pub forwarded: u64,
    /// Signals of this hub's peers sent to other hubs.
    pub relayed: u64,
    /// Of those, the delivered ones without a receipt. They are reported to no shard, and counted here.
    pub delivered: u64,
    /// Of those, signals to Go hubs without a receipt.
    pub forwarded_to_go: u64,
    /// Of those, by the time from read to the return of the outcome, as in [`RouterStats::latency`].
    pub latency: [u64; RouterStats::LATENCY_BOUNDS.len() + 1],
    /// Signals dropped because they arrived too late for their order, or twice.
    pub out_of_order: u64,
    /// Outcomes that arrived after their signal had expired.
    pub late_outcomes: u64,
    /// Snapshots sent, and installed.
    pub snapshots: [u64; 2],
    /// Snapshots rejected: wrong digest, wrong part number, or late.
    pub snapshots_refused: u64,
    /// Hubs whose lease expired.
    pub hubs_lost: u64,
    /// Peers that left because their hub was lost.
    pub ghosts_evicted: u64,
    /// Takeovers asked of other hubs, by answer: free, in use.
    pub takeovers: [u64; 2],
    /// Messages of legacy links that were invalid or not allowed.
    pub legacy_refused: u64,
    /// Peers of Go hubs that became known in a network by a signal, because they are older than the link.
    pub legacy_introduced: u64,
    /// Times that a link carried nothing in at least one direction for [`LINK_SILENCE`](crate::limits::LINK_SILENCE).
    pub link_silences: u64,
    /// Times that no signal on a way was answered, and another way was taken.
    pub ways_avoided: u64,
    /// Implausible numbers: incarnations and sessions that begin too late, and signals too far ahead in their order.
    pub numbers_refused: u64,
    /// Times that this hub gave up its id.
    pub ids_given_up: u64,
    /// Impossible states that were found.
    pub bugs: BugCounts,
    /// Gauge: links that carry nothing in at least one direction.
    pub links_silent: u64,
    /// Gauge: hubs with a valid lease.
    pub hubs: u64,
    /// Gauge: peers at other hubs.
    pub remote_peers: u64,
    /// Gauge: signals without an outcome yet.
    pub in_flight: u64,
    /// Gauge: signals held for their turn.
    pub held: u64,
    /// Gauge: longest time for which this hub has been behind another hub's presence, in milliseconds.
    pub presence_lag_ms: u64,
    /// Gauge: longest time since the last heartbeat of a hub whose peers are in the rosters, in milliseconds.
    pub ghost_age_ms: u64,
    /// Gauge: hubs and legacy links whose end, snapshot or changes have not completely been passed on to the shards.
    pub unsettled_hubs: u64,
}

impl RelayStats {
    /// Outcomes of this hub's peers' signals that were counted here and by no shard.
    pub fn outcomes(&self) -> u64 {
        self.delivered + self.forwarded_to_go
    }
}

/// The rules between hubs. The [crate's documentation](crate) has the contract.
#[derive(Debug)]
pub struct Relay {
    config: RelayConfig,
    /// The presence of this hub's own peers. Other hubs replicate it.
    own: Holding,
    hubs: BTreeMap<HubId, Remote>,
    /// Hubs by the numbers that shards use for them. Each incarnation has its own, or outcomes of one would be taken
    /// for those of the next.
    numbers: BTreeMap<u32, HubId>,
    last_number: u32,
    directory: Directory,
    links: BTreeMap<LinkId, Link>,
    /// The link to each neighbour.
    by_hub: BTreeMap<HubId, LinkId>,
    bridge: Bridge,
    legacy: Legacy,
    names: Names,
    /// Number of times this hub has taken a new id.
    renamed: u64,
    /// Another incarnation of this hub's id.
    rival: Option<Rival>,
    started: Duration,
    /// Number of this hub's own heartbeats.
    beats: u64,
    last_beat: Duration,
    next_beat: Duration,
    /// Leases do not expire before this time: what arrived while the process was stopped must be read first.
    judge_from: Duration,
    last_timeout: Duration,
    draining: bool,
    ended: bool,
    /// Derived from the neighbours in the heartbeats, until these change.
    reach: Option<Reach>,
    /// Hubs with work that is left for other turns.
    busy: BTreeSet<HubId>,
    /// The one that had the last slice.
    last_worked_on: Option<HubId>,
    /// [`RelayOutput::Unfinished`] has been put out and not been answered.
    unfinished: bool,
    discarded: Discarded,
    outputs: Outputs<RelayOutput>,
    stats: RelayStats,
    bugs: Bugs,
}

impl Relay {
    /// Makes a relay that knows no other hub.
    pub fn new(config: RelayConfig, now: Now) -> Self {
        Self {
            own: Holding::new(config.tuning.max_peers_per_hub),
            hubs: BTreeMap::new(),
            numbers: BTreeMap::new(),
            last_number: 0,
            directory: Directory::new(config.keys),
            links: BTreeMap::new(),
            by_hub: BTreeMap::new(),
            bridge: Bridge::default(),
            legacy: Legacy::new(config.keys),
            names: Names::new(config.hub),
            renamed: 0,
            rival: None,
            started: now.at,
            beats: 0,
            last_beat: Duration::ZERO,
            next_beat: now.at,
            judge_from: Duration::ZERO,
            last_timeout: now.at,
            draining: false,
            ended: false,
            reach: None,
            busy: BTreeSet::new(),
            last_worked_on: None,
            unfinished: false,
            discarded: Discarded::default(),
            outputs: Outputs::default(),
            stats: RelayStats::default(),
            bugs: Bugs::default(),
            config: RelayConfig {
                incarnation: config.incarnation.min(HubIncarnation(GREATEST_TIME_FOLLOWED)),
                ..config
            },
        }
    }

    /// Processes one input. `now` must not be earlier than at the last call. The caller then drains all outputs with
    /// [`Self::poll_output`].
    pub fn handle_input(&mut self, input: RelayInput<'_>, now: Now) {
        self.begin();
        match input {
            RelayInput::BridgeDown => self.bridge_down(),
            RelayInput::BridgeUp => self.bridge_up(now),
            RelayInput::Heard { link } => self.heard_on(link, now),
            RelayInput::Continue => self.continue_work(now),
            RelayInput::Draining => self.begin_drain(now),
            RelayInput::Ending => self.say_farewell(now),
            RelayInput::LegacyText { link, text } => self.legacy_said(link, text, now),
            RelayInput::LegacyUp { link, hub, dialed } => self.legacy_up(link, hub, dialed, now),
            RelayInput::Letter(letter) => self.letter(letter, now),
            RelayInput::LinkDown { link } => self.link_down(link, now),
            RelayInput::LinkUp { link, hub, incarnation } => {
                self.link_up(link, self.names.inward(hub), incarnation, now);
            }
            RelayInput::Namesake { incarnation, process } => self.met_namesake(incarnation, process, now),
            RelayInput::Received { via, envelope } => {
                let (via, envelope) = (self.names.via_inward(via), self.names.envelope_inward(envelope));
                self.received(via, envelope, now);
            }
            RelayInput::Room { way } => self.room(way, now),
            RelayInput::Saturated { way } => self.saturated(way, now),
        }
    }

    /// Processes everything that is due at `now`. The caller then drains all outputs.
    pub fn handle_timeout(&mut self, now: Now) {
        self.begin();
        self.notice_thaw(now);
        self.notice_silence(now);
        if self.next_beat <= now.at {
            self.check_reach(now);
            self.notice_unanswered(now);
            self.judge_rival(now);
            self.beat(now);
            self.forget_the_dead(now);
        }
        let due: Vec<HubId> = self
            .hubs
            .iter()
            .filter(|(_, remote)| remote.due().is_some_and(|at| at <= now.at))
            .map(|(&hub, _)| hub)
            .collect();
        for hub in due {
            self.hub_due(hub, now);
        }
    }

    /// Returns the next output. `None` when the input is fully processed.
    pub fn poll_output(&mut self) -> Option<RelayOutput> {
        self.outputs.pop_front().or_else(|| {
            let lost = self.outputs.take_lost();
            if lost > 0 {
                bug!(self.bugs, OutputsLost, "{lost} outputs");
            }
            self.bugs.take_note().map(RelayOutput::Bug)
        })
    }

    /// The time at which [`Self::handle_timeout`] should be called. Earlier calls are allowed.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.ended {
            return None;
        }
        let hubs = self.hubs.values().filter_map(Remote::due).min();
        // However often it beats for other reasons: a longer gap would look like a stop of the process.
        let next_look = self.next_beat.min(self.last_timeout + HEARTBEAT);
        let silence = self.links.values().filter(|link| !link.silent).map(|link| link.heard_at + LINK_SILENCE).min();
        let next_look = silence.map_or(next_look, |at| at.min(next_look));
        // A lease that must not expire yet is not due.
        let hubs = hubs.map(|at| if at <= self.last_timeout { at.max(self.judge_from) } else { at });
        Some(hubs.map_or(next_look, |at| at.min(next_look)))
    }

    /// The current id of this hub for other hubs.
    pub fn hub(&self) -> HubId {
        self.names.outside()
    }

    /// The current incarnation of this hub. It can be later than the configured one, if other hubs remembered a later
    /// one.
    pub fn incarnation(&self) -> HubIncarnation {
        self.config.incarnation
    }

    /// The hub that holds a peer, possibly this one.
    pub fn locate(&self, peer: &PeerId) -> Option<HubId> {
        self.directory.holder(peer).map(|claim| self.names.outward(claim.hub))
    }

    fn begin(&mut self) {
        if self.outputs.len() > 0 {
            bug!(self.bugs, OutputsLeft, "{} outputs", self.outputs.len());
        }
    }

    fn letter(&mut self, letter: ToMesh, now: Now) {
        match letter {
            ToMesh::AskTakeover { peer, shard, ticket, resume } => self.ask_takeover(peer, shard, ticket, resume, now),
            ToMesh::ChallengeAnswered { peer, asker, in_use } => self.challenge_answered(peer, asker, in_use, now),
            ToMesh::Closed { peer, claim, reason } => {
                self.own_peer_changed(peer, claim, ChangeKind::Down(LeaveReason::Closed(reason)), now);
            }
            ToMesh::Joined(announcement) => {
                self.own_peer_changed(announcement.peer, announcement.claim, ChangeKind::Joined(announcement), now);
            }
            ToMesh::Left(farewell) => {
                let kind = ChangeKind::Left { network: farewell.network.clone(), frame: Arc::clone(&farewell.frame) };
                self.own_peer_changed(farewell.peer, farewell.claim, kind, now);
            }
            ToMesh::Meeting { hub, meeting } => self.meeting_posted(hub, meeting, now),
            ToMesh::Opened { peer, claim } => self.own_peer_changed(peer, claim, ChangeKind::Up, now),
            ToMesh::Outcome(OutcomeLetter { origin, outcome, .. }) => self.outcome(&origin, outcome, now),
            ToMesh::Signal(SignalLetter { origin, from, target, frame }) => {
                self.signalled(origin, from, target, frame, now);
            }
        }
    }

    fn received(&mut self, via: Via, envelope: Envelope, now: Now) {
        if let Via::Link(link) = via {
            self.heard_on(link, now);
        }
        self.stats.received[envelope.kind() as usize] += 1;
        match envelope {
            Envelope::Change(change) => self.changed(via, change, now),
            Envelope::Farewell(hub, incarnation) => self.heard_farewell(via, hub, incarnation, now),
            Envelope::Heartbeat(beat) => self.heard_heartbeat(via, &beat, now),
            Envelope::Hello(hello) => bug!(self.bugs, Hello, "of {} by {via:?}", hello.hub),
            Envelope::Routed(route, routed) => self.routed(via, route, *routed, now),
            Envelope::Snapshot(part) => self.snapshot_came(via, *part, now),
            Envelope::SnapshotDeclined(request) => self.snapshot_declined(via, request, now),
            Envelope::SnapshotRequest(request) => self.snapshot_asked(via, request, now),
        }
    }

    fn send(&mut self, to: Destination, envelope: Envelope) {
        let (to, envelope) = (self.names.destination_outward(to), self.names.envelope_outward(envelope));
        self.stats.sent[envelope.kind() as usize] += 1;
        self.outputs.push_back(RelayOutput::Send { to, envelope });
    }
}
