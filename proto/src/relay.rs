//! The rules between hubs: presence, routing, takeovers. A hub has one relay.

// Owners of state.
mod ahead;
mod budgets;
mod directory;
mod holding;
mod legacy;
mod links;
mod names;
mod outgoing;
mod remote;
mod repair;

// Inputs and outputs.
mod io;
mod view;

// The relay, one file per task.
mod audit;
mod heartbeats;
mod incarnations;
mod linking;
mod meeting;
mod presence;
mod reach;
mod rival;
mod routing;
mod signals;
mod silence;
mod slices;
mod snapshots;
mod takeover;
#[cfg(test)]
mod tests;
mod traces;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::bug;
use crate::bugs::Bugs;
use crate::envelope::{ChangeKind, Envelope, HubStatus};
use crate::id::{HubId, HubIncarnation, PeerId};
use crate::keys::Keys;
use crate::limits::{GREATEST_TIME_FOLLOWED, HEARTBEAT};
use crate::outputs::Outputs;
use crate::reason::LeaveReason;
use crate::route::Hop;
use crate::router::{Discovery, OutcomeLetter, SignalLetter, ToMesh};
use crate::time::Now;
use crate::tuning::RelayTuning;

pub use holding::PresenceRefusal;
pub use io::{Destination, MeshEvent, RelayInput, RelayOutput, Transport};
pub use view::{HubView, RelayStats};

use budgets::Budgets;
use directory::Directory;
use holding::Holding;
use legacy::Legacy;
use links::{BridgeState, Links};
use names::Names;
use reach::Reach;
use remote::Remote;
use rival::Rival;
use slices::Discarded;
use traces::Traces;

/// Configuration of a relay. Only the incarnation changes later.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// This hub's first id. [`Relay::hub`] returns the current id.
    pub hub: HubId,
    /// The wall clock at this hub's start, in milliseconds since 1970. A time after [`GREATEST_TIME_FOLLOWED`] is
    /// replaced by [`GREATEST_TIME_FOLLOWED`].
    pub incarnation: HubIncarnation,
    /// Number of shards of the hub, at least 1.
    pub shards: u16,
    /// Secret keys of this process. The shards of this process must have the same keys.
    pub keys: Keys,
    /// The setting HUB_MESH_NAMESPACE, which the relay sends only on legacy links.
    pub namespace: String,
    /// The setting DISCOVERY, which is the same on all hubs of a mesh.
    pub discovery: Discovery,
    /// URL at which other hubs can dial this one (MESH_ADVERTISE), of at most
    /// [`MAX_HUB_URL_BYTES`](crate::limits::MAX_HUB_URL_BYTES).
    pub advertise: Option<Arc<str>>,
    /// URL at which clients reach this hub (PUBLIC_URL), of at most
    /// [`MAX_HUB_URL_BYTES`](crate::limits::MAX_HUB_URL_BYTES).
    pub public_url: Option<Arc<str>>,
    /// Maximum size of the presence of all other hubs together, in bytes (MESH_PRESENCE_BYTES). One hub can use at most
    /// half of this size. Peers and networks beyond this size are counted but not stored.
    pub presence_bytes: usize,
    /// Limits that tests set to small values.
    pub tuning: RelayTuning,
}

/// The rules between hubs. The [crate's documentation](crate) has the contract.
#[derive(Debug)]
pub struct Relay {
    config: RelayConfig,
    /// The presence of this hub's own peers. Other hubs replicate it.
    own: Holding,
    hubs: BTreeMap<HubId, Remote>,
    budgets: Budgets,
    /// Number of hubs that each neighbour introduced.
    introducers: BTreeMap<HubId, usize>,
    /// Hubs by the numbers that shards use for them. Each incarnation of a hub has its own number, so that outcomes for
    /// one incarnation are never confused with outcomes for the next incarnation.
    numbers: BTreeMap<u32, HubId>,
    last_number: u32,
    directory: Directory,
    links: Links,
    bridge: BridgeState,
    legacy: Legacy,
    names: Names,
    /// Number of times this hub has taken a new id.
    renamed: u64,
    /// Another process with this hub's id, or an earlier process with this id that other hubs still remember.
    rival: Option<Rival>,
    started: Duration,
    /// Number of this hub's own heartbeats.
    beats: u64,
    last_beat: Duration,
    next_beat: Duration,
    /// Time before which no lease expires. After the process was suspended, the hub must first read the heartbeats that
    /// arrived meanwhile.
    judge_from: Duration,
    last_timeout: Duration,
    draining: bool,
    /// This hub's figures for its heartbeats.
    status: Option<Arc<HubStatus>>,
    ended: bool,
    /// The routes to other hubs, derived from the neighbours in heartbeats. `None` after neighbours have changed.
    reach: Option<Reach>,
    /// Hubs whose long work (such as their end) continues in later turns.
    busy: BTreeSet<HubId>,
    /// The hub for which the last slice was done.
    last_worked_on: Option<HubId>,
    /// Whether [`RelayOutput::Unfinished`] was put out and has not been answered with [`RelayInput::Continue`].
    unfinished: bool,
    discarded: Discarded,
    traces: Traces,
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
            introducers: BTreeMap::new(),
            budgets: Budgets::new(config.presence_bytes, &config.tuning),
            numbers: BTreeMap::new(),
            last_number: 0,
            directory: Directory::new(config.keys),
            links: Links::default(),
            bridge: BridgeState::default(),
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
            status: None,
            ended: false,
            reach: None,
            busy: BTreeSet::new(),
            last_worked_on: None,
            unfinished: false,
            discarded: Discarded::default(),
            traces: Traces::default(),
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
            RelayInput::Status(status) => self.status = Some(status),
            RelayInput::Draining(drains) => self.set_draining(drains, now),
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
            RelayInput::Room { transport } => self.room(transport, now),
            RelayInput::Saturated { transport } => self.saturated(transport, now),
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
            self.end_old_spans(now);
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

    /// Returns the next output. Returns `None` when the input is fully processed.
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
        // The next timeout is at most one heartbeat interval after the last one, even if extra heartbeats have
        // postponed the next heartbeat. A longer gap between timeouts would look as if the process had been suspended.
        let next_look = self.next_beat.min(self.last_timeout + HEARTBEAT);
        let next_look = self.links.next_silence().map_or(next_look, |at| at.min(next_look));
        // No lease is due before `judge_from`.
        let hubs = hubs.map(|at| if at <= self.last_timeout { at.max(self.judge_from) } else { at });
        Some(hubs.map_or(next_look, |at| at.min(next_look)))
    }

    /// The current id of this hub for other hubs.
    pub fn hub(&self) -> HubId {
        self.names.outside()
    }

    /// The current incarnation of this hub. It differs from the configured incarnation after this hub has begun a later
    /// incarnation or has taken a new id.
    pub fn incarnation(&self) -> HubIncarnation {
        self.config.incarnation
    }

    /// The hub to which a peer is connected, possibly this hub.
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
            ToMesh::AskTakeover { peer, shard, ticket, resume, owner } => {
                self.ask_takeover(peer, shard, ticket, (resume, owner), now);
            }
            ToMesh::ChallengeAnswered { peer, asker, in_use } => self.challenge_answered(peer, asker, in_use, now),
            ToMesh::Closed { peer, claim, reason } => {
                self.own_peer_reported(peer, claim, ChangeKind::Down(LeaveReason::Closed(reason)), now);
            }
            ToMesh::Joined(announcement) => {
                self.own_peer_reported(announcement.peer, announcement.claim, ChangeKind::Joined(announcement), now);
            }
            ToMesh::Left(leave) => {
                let kind = ChangeKind::Left { network: leave.network.clone(), frame: Arc::clone(&leave.frame) };
                self.own_peer_reported(leave.peer, leave.claim, kind, now);
            }
            ToMesh::Meeting { hub, meeting } => self.meeting_posted(hub, meeting, now),
            ToMesh::Opened { peer, claim } => self.own_peer_reported(peer, claim, ChangeKind::Up, now),
            ToMesh::Outcome(OutcomeLetter { origin, outcome, .. }) => self.outcome(&origin, outcome, now),
            ToMesh::Signal(SignalLetter { origin, from, target, frame }) => {
                self.signalled(origin, from, target, frame, now);
            }
        }
    }

    fn received(&mut self, via: Hop, envelope: Envelope, now: Now) {
        if let Hop::Link(link) = via {
            self.heard_on(link, now);
        }
        self.stats.received[envelope.kind() as usize] += 1;
        match envelope {
            Envelope::Change(change) => self.change_received(via, change, now),
            Envelope::Farewell(hub, incarnation) => self.farewell_received(via, hub, incarnation, now),
            Envelope::Heartbeat(beat) => self.heartbeat_received(via, &beat, now),
            Envelope::Hello(hello) => bug!(self.bugs, Hello, "of {} by {via:?}", hello.hub),
            Envelope::Routed(route, routed) => self.routed(via, route, *routed, now),
            Envelope::Snapshot(part) => self.snapshot_received(via, *part, now),
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
