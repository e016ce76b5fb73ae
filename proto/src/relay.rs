//! The rules between hubs: presence, routing, takeovers. One for each hub.

mod audit;
mod directory;
mod holding;
mod hubs;
mod legacy;
mod life;
mod meeting;
mod names;
mod presence;
mod reach;
mod remote;
mod rival;
mod signals;
mod takeover;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::bug;
use crate::bugs::{BugCounts, BugNote, Bugs};
use crate::envelope::{Envelope, EnvelopeKind};
use crate::id::{HubId, HubIncarnation, Keys, LinkId, PeerId, ShardId, Via};
use crate::limits::{GREATEST_TIME_FOLLOWED, HEARTBEAT, LINK_SILENCE};
use crate::outputs::Outputs;
use crate::router::{Discovery, Letter, RouterStats};
use crate::time::Now;

use directory::Directory;
use holding::Holding;
use legacy::Legacy;
use names::Names;
use presence::Outgoing;
use reach::Reach;
use remote::Remote;
use rival::Rival;

/// What a relay is told of its hub when it is made.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// This hub.
    pub hub: HubId,
    /// The wall clock when it started, in milliseconds.
    pub incarnation: HubIncarnation,
    /// How many shards the hub has.
    pub shards: u16,
    /// Secret of this process, the same as the shards'.
    pub keys: Keys,
    /// HUB_MESH_NAMESPACE.
    pub namespace: String,
    /// DISCOVERY: the mesh has one.
    pub discovery: Discovery,
    /// Where other hubs may dial this one (MESH_ADVERTISE).
    pub advertise: Option<Arc<str>>,
    /// Where clients find this hub (PUBLIC_URL).
    pub public_url: Option<Arc<str>>,
}

/// What happened.
#[derive(Debug)]
pub enum RelayInput<'a> {
    /// Post from a shard.
    Letter(Letter),
    /// A link is ready: both ends have said who they are, and it is the one to this hub that stays. Another one to the same
    /// hub may still be there for a while; what comes over it counts.
    LinkUp {
        /// Which.
        link: LinkId,
        /// To whom.
        hub: HubId,
        /// The life in which that hub said hello.
        incarnation: HubIncarnation,
    },
    /// Another process has said hello on a link, with this hub's id.
    Namesake {
        /// Its life.
        incarnation: HubIncarnation,
        /// Its [`Heartbeat::process`](crate::envelope::Heartbeat::process).
        process: u64,
    },
    /// A link has ended. What was queued for it and not sent is lost. One that the relay does not know is ignored.
    LinkDown {
        /// Which.
        link: LinkId,
    },
    /// Part of something long has been received on a link, and more has to follow. So the link is not silent, though for the time
    /// being there is no envelope to tell.
    Heard {
        /// Which.
        link: LinkId,
    },
    /// A neighbour said something. Not [`Envelope::Hello`], which is the links' own.
    Received {
        /// Who, and how.
        via: Via,
        /// What.
        envelope: Envelope,
    },
    /// More waits for a link, or for the bridge, than is good: until [`Self::Room`] only heartbeats and answers of a few
    /// bytes are put out for it.
    Saturated {
        /// What does not take more: [`Way::Bridge`] for the bridge.
        way: Way,
    },
    /// What waits is little again. Also the answer to [`RelayOutput::Backlog`].
    Room {
        /// What takes more.
        way: Way,
    },
    /// The bridge works: what is published reaches all who listen. Repeated when one more listens.
    BridgeUp,
    /// It does not, and what was published last may be lost.
    BridgeDown,
    /// A link of the seed's kind is ready: a Go hub, or a hub that speaks as one.
    LegacyUp {
        /// Which.
        link: LinkId,
        /// To whom.
        hub: HubId,
        /// Whether this hub dialed. It speaks first, then.
        dialed: bool,
    },
    /// It said something. Its end is [`Self::LinkDown`].
    LegacyText {
        /// Which.
        link: LinkId,
        /// The message.
        text: &'a str,
    },
    /// The hub begins to go away: it is not to be dialed any more.
    Draining,
    /// The hub ends now: all its peers are gone, and others need not wait for its lease.
    Ending,
}

/// A way out of a hub.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Way {
    /// A link.
    Link(LinkId),
    /// The bridge.
    Bridge,
}

/// What is to be done.
#[derive(Debug)]
pub enum RelayOutput {
    /// Queue this for a neighbour.
    Send {
        /// To whom, and how.
        to: Destination,
        /// What.
        envelope: Envelope,
    },
    /// Queue this text message for a link of the seed's kind.
    SendText {
        /// Which.
        link: LinkId,
        /// The message.
        text: Box<str>,
    },
    /// Give [`RelayInput::Room`] once little waits on this way: there is more to say.
    Backlog {
        /// Which.
        way: Way,
    },
    /// Post this. Letters to one shard arrive in the order in which they are put out; none is dropped.
    Letter {
        /// To whom.
        to: ShardId,
        /// What.
        letter: Letter,
    },
    /// This hub has left its id to another one and is [`Relay::hub`] from now on. All links but legacy links are to be ended, once what was
    /// put out for them is written, and made anew. So is the bridge. The relay has forgotten them.
    Renamed {
        /// The new id.
        hub: HubId,
    },
    /// For the log.
    Event(MeshEvent),
    /// For the log: an impossible state was found, for the first time at its site. Only in builds without debug assertions.
    Bug(BugNote),
}

/// To whom an envelope goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// To the hub at the other end of a link.
    Link(LinkId),
    /// To all hubs on the bridge.
    Everyone,
    /// To one hub on the bridge.
    Bridged(HubId),
}

/// What a log has about other hubs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MeshEvent {
    /// A hub was heard of for the first time, or again.
    HubFound(HubId),
    /// A hub's lease has ended; so many peers left with it.
    HubLost(HubId, usize),
    /// A hub has said that it ends.
    HubLeft(HubId, usize),
    /// Another live hub uses this hub's id. The later of the two takes a new one.
    SameId,
    /// Others remembered a life of this hub that is later than this one and has ended. It has begun a later one.
    LaterLife,
    /// This hub has left its id to another live one, and has taken the second.
    IdGivenUp(HubId, HubId),
    /// Two live hubs have this id.
    TwoHubs(HubId),
    /// What is known of a hub was replaced by a snapshot.
    Repaired(HubId),
    /// Nothing is received on the link to this hub. Signals take another way if there is one.
    LinkSilent(HubId),
    /// This hub says that it receives nothing on the link from here. Signals take another way if there is one.
    LinkUnheard(HubId),
    /// The link to this hub works in both directions again.
    LinkWorks(HubId),
}

/// A hub as the pages show it.
#[derive(Clone, Debug)]
pub struct HubView {
    /// Which.
    pub hub: HubId,
    /// Its present life.
    pub incarnation: HubIncarnation,
    /// Whether its lease runs. Its peers are in the rosters only then.
    pub live: bool,
    /// It goes away.
    pub draining: bool,
    /// How it is reached now.
    pub route: Option<Via>,
    /// Its direct link, if there is one.
    pub link: Option<LinkId>,
    /// Whether it is on the bridge.
    pub bridged: bool,
    /// Whether it speaks the seed's protocol.
    pub legacy: bool,
    /// Its peers.
    pub peers: usize,
    /// The last change that is known here.
    pub seq: u64,
    /// How many changes it has said beyond that.
    pub lag: u64,
    /// How long ago it was last heard of.
    pub heard: Duration,
    /// Where hubs may dial it.
    pub advertise: Option<Arc<str>>,
    /// Where clients find it.
    pub public_url: Option<Arc<str>>,
}

/// What a relay has counted since it was made. All but the gauges only grow.
#[derive(Clone, Debug, Default)]
pub struct RelayStats {
    /// Envelopes received, by the kind's discriminant.
    pub received: [u64; EnvelopeKind::ALL.len()],
    /// Envelopes put out, by the kind's discriminant: one for each link it goes over.
    pub sent: [u64; EnvelopeKind::ALL.len()],
    /// Changes and heartbeats that were known already.
    pub duplicates: u64,
    /// Signals passed on for other hubs.
    pub forwarded: u64,
    /// Signals of this hub's peers that went to other hubs.
    pub relayed: u64,
    /// Those that were delivered and for which nobody waited: they are told to no shard, and counted here.
    pub delivered: u64,
    /// Those that were sent to a Go hub and for which nobody waited.
    pub forwarded_to_go: u64,
    /// By the time from read to the outcome's return, as in [`RouterStats::latency`].
    pub latency: [u64; RouterStats::LATENCY_BOUNDS.len() + 1],
    /// Signals that came too late for their order, or twice, and were dropped.
    pub out_of_order: u64,
    /// Outcomes that nobody waited for any more.
    pub late_outcomes: u64,
    /// Snapshots sent, and taken over.
    pub snapshots: [u64; 2],
    /// Snapshots that were not what they said, or came too late.
    pub snapshots_refused: u64,
    /// Hubs whose lease ended.
    pub hubs_lost: u64,
    /// Peers that left because their hub was lost.
    pub ghosts_evicted: u64,
    /// Takeovers asked of other hubs, by answer: free, in use.
    pub takeovers: [u64; 2],
    /// Messages of legacy links that were not understood, or not allowed.
    pub legacy_refused: u64,
    /// Peers of Go hubs that became known in a network by a signal: they were there before the link was made.
    pub legacy_introduced: u64,
    /// Times that a link carried nothing, in one direction at least, for [`LINK_SILENCE`](crate::limits::LINK_SILENCE).
    pub link_silences: u64,
    /// Times that all signals on a way went unanswered, and another way was taken.
    pub ways_avoided: u64,
    /// Heartbeats of a life, and sessions, that begin too late to be believed; signals that are too far ahead in their order.
    pub numbers_refused: u64,
    /// Times that this hub left its id to another one.
    pub ids_given_up: u64,
    /// Impossible states that were found.
    pub bugs: BugCounts,
    /// Gauge: links that carry nothing, in one direction at least.
    pub links_silent: u64,
    /// Gauge: hubs whose lease runs.
    pub hubs: u64,
    /// Gauge: peers at other hubs.
    pub remote_peers: u64,
    /// Gauge: signals whose outcome is outstanding.
    pub in_flight: u64,
    /// Gauge: signals that wait for their turn.
    pub held: u64,
    /// Gauge: the longest time for which a hub has been known to be ahead of what is known of it here, in milliseconds.
    pub presence_lag_ms: u64,
    /// Gauge: the longest time since a hub whose peers are in the rosters was heard of, in milliseconds.
    pub ghost_age_ms: u64,
}

impl RelayStats {
    /// Signals of this hub's peers whose outcome was counted here and by no shard.
    pub fn outcomes(&self) -> u64 {
        self.delivered + self.forwarded_to_go
    }
}

/// The rules between hubs. See the [crate's documentation](crate) for how to drive it.
#[derive(Debug)]
pub struct Relay {
    config: RelayConfig,
    /// What this hub holds. Others replicate it.
    own: Holding,
    hubs: BTreeMap<HubId, Remote>,
    /// The hubs by the numbers that shards call them: another one for each life, or outcomes of one would be taken for
    /// those of the next.
    numbers: BTreeMap<u32, HubId>,
    last_number: u32,
    directory: Directory,
    links: BTreeMap<LinkId, Link>,
    /// The link to each neighbour.
    by_hub: BTreeMap<HubId, LinkId>,
    bridge: Bridge,
    legacy: Legacy,
    names: Names,
    /// How often this hub has taken a new id.
    renamed: u64,
    /// Another life of this hub's id.
    rival: Option<Rival>,
    started: Duration,
    /// Counts this hub's own heartbeats.
    beats: u64,
    next_beat: Duration,
    /// Leases are not judged before: what came while the process was stopped has to be read first.
    judge_from: Duration,
    last_timeout: Duration,
    draining: bool,
    ended: bool,
    /// What follows from what the hubs say of their neighbours, while they say nothing else.
    reach: Option<Reach>,
    outputs: Outputs<RelayOutput>,
    stats: RelayStats,
    bugs: Bugs,
}

#[derive(Debug)]
struct Link {
    hub: HubId,
    /// The life in which that hub said hello.
    incarnation: HubIncarnation,
    saturated: bool,
    /// Something was not sent for want of room.
    missed: bool,
    outgoing: VecDeque<Outgoing>,
    /// When something was last received on it.
    heard_at: Duration,
    /// Nothing has been received on it for [`LINK_SILENCE`](crate::limits::LINK_SILENCE).
    silent: bool,
    /// The other hub says that it receives nothing on it.
    unheard: bool,
}

impl Link {
    fn new(hub: HubId, incarnation: HubIncarnation, now: Duration) -> Self {
        Self {
            hub,
            incarnation,
            saturated: false,
            missed: false,
            outgoing: VecDeque::new(),
            heard_at: now,
            silent: false,
            unheard: false,
        }
    }

    /// Whether it is used only where there is no other way: it does not work in both directions.
    fn is_spare(&self) -> bool {
        self.silent || self.unheard
    }
}

#[derive(Debug, Default)]
struct Bridge {
    up: bool,
    saturated: bool,
    missed: bool,
    outgoing: VecDeque<Outgoing>,
}

impl Relay {
    /// A relay that knows no other hub.
    pub fn new(config: RelayConfig, now: Now) -> Self {
        Self {
            own: Holding::default(),
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
            next_beat: now.at,
            judge_from: Duration::ZERO,
            last_timeout: now.at,
            draining: false,
            ended: false,
            reach: None,
            outputs: Outputs::default(),
            stats: RelayStats::default(),
            bugs: Bugs::default(),
            config: RelayConfig {
                incarnation: config.incarnation.min(HubIncarnation(GREATEST_TIME_FOLLOWED)),
                ..config
            },
        }
    }

    /// Takes in what happened.
    pub fn handle_input(&mut self, input: RelayInput<'_>, now: Now) {
        self.begin();
        match input {
            RelayInput::BridgeDown => self.bridge_down(),
            RelayInput::BridgeUp => self.bridge_up(now),
            RelayInput::Heard { link } => self.heard_on(link, now),
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

    /// Does what [`Self::poll_timeout`] said is due.
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

    /// The next thing to do, or `None` when all has been said.
    pub fn poll_output(&mut self) -> Option<RelayOutput> {
        self.outputs.pop_front().or_else(|| {
            let lost = self.outputs.take_lost();
            if lost > 0 {
                bug!(self.bugs, OutputsLost, "{lost} outputs");
            }
            self.bugs.take_note().map(RelayOutput::Bug)
        })
    }

    /// When [`Self::handle_timeout`] wants to be called; it may be called earlier.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.ended {
            return None;
        }
        let hubs = self.hubs.values().filter_map(Remote::due).min();
        // However often it beats for other reasons: a longer pause looks like a stop of the process.
        let next_look = self.next_beat.min(self.last_timeout + HEARTBEAT);
        let silence = self.links.values().filter(|link| !link.silent).map(|link| link.heard_at + LINK_SILENCE).min();
        let next_look = silence.map_or(next_look, |at| at.min(next_look));
        // A lease that is not judged yet is not due.
        let hubs = hubs.map(|at| if at <= self.last_timeout { at.max(self.judge_from) } else { at });
        Some(hubs.map_or(next_look, |at| at.min(next_look)))
    }

    /// The id by which others know this hub now.
    pub fn hub(&self) -> HubId {
        self.names.outside()
    }

    /// This hub's present life: others may have remembered a later one than it was made with.
    pub fn incarnation(&self) -> HubIncarnation {
        self.config.incarnation
    }

    /// Where a peer is: the hub that holds it, this one included.
    pub fn locate(&self, peer: &PeerId) -> Option<HubId> {
        self.directory.holder(peer).map(|claim| self.names.outward(claim.hub))
    }

    fn begin(&mut self) {
        if self.outputs.len() > 0 {
            bug!(self.bugs, OutputsLeft, "{} outputs", self.outputs.len());
        }
    }

    fn letter(&mut self, letter: Letter, now: Now) {
        match letter {
            Letter::AskTakeover { peer, shard, ticket, resume } => self.ask_takeover(peer, shard, ticket, resume, now),
            Letter::ChallengeAnswered { peer, asker, in_use } => self.challenge_answered(peer, asker, in_use, now),
            Letter::Outcome { origin, outcome, .. } => self.outcome(&origin, outcome, now),
            Letter::MeetingAt { hub, meeting } => self.meeting_posted(hub, meeting, now),
            Letter::Signal { origin, from, target, frame } => self.signalled(origin, from, target, frame, now),
            Letter::Closed { .. } | Letter::Joined(_) | Letter::Left(_) | Letter::Opened { .. } => {
                self.own_peer_changed(&letter, now);
            }
            // These are the shards' to read.
            Letter::Challenge { .. }
            | Letter::Elsewhere { .. }
            | Letter::Meeting(_)
            | Letter::Nowhere { .. }
            | Letter::Renamed { .. }
            | Letter::TakeoverAnswered { .. } => {}
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
