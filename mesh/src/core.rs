//! The state of the mesh, and the methods that process its events. The core never waits.
//!
//! This file drives the relay. [`dials`] selects the hubs to dial, and [`hello`] starts links. [`inbound`] processes
//! received data, and [`outbound`] queues and writes the output. [`ending`] ends links. [`post`] queues letters for
//! shards, and [`time`] processes timeouts. [`traces`] records the spans of links.

mod dials;
mod ending;
mod hello;
mod inbound;
mod outbound;
mod post;
#[cfg(test)]
mod tests;
mod time;
mod traces;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use proto::envelope::HubStatus;
use proto::limits::{LINK_MESSAGE_BYTES, LINK_QUEUE_HIGH, LINK_QUEUE_LOW, MAX_LINKS, READ_BUFFER_BYTES};
use proto::{Bugs, Discovery, HubId, LinkAuth, LinkId, MeshEvent, Now, Relay, RelayInput, RelayOutput, ToMesh};
use thread::{Outboxes, Tracer, Turn, TurnGuard, log_bug, planted};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::bridge::{Bridge, BridgeEvent};
use crate::config::MeshConfig;
use crate::dial::{TargetId, Targets};
use crate::link::{Link, Unread};
use crate::stats::{LinkEnd, LinkStats, MeshReading};
use outbound::Pressure;
pub(crate) use traces::LinkTrace;

pub(crate) struct Core {
    own: HubId,
    namespace: String,
    discovery: Discovery,
    relay: Relay,
    clock: Arc<dyn Fn() -> Now + Send + Sync>,
    /// Maximum length of a message on a link, and on a legacy link, in bytes.
    max_message: usize,
    max_text: usize,
    links: BTreeMap<LinkId, Link>,
    last_link: u64,
    targets: Targets,
    /// Inputs for the relay, to be processed when its outputs are drained.
    followups: VecDeque<RelayInput<'static>>,
    outboxes: Outboxes,
    flusher: Option<Waker>,
    /// Whether the relay has more work than fits into one turn.
    unfinished: bool,
    turn: Turn,
    parked: Vec<LinkId>,
    bridge: Option<Bridge>,
    /// Starts a bridge for a hub id.
    make_bridge: Option<Box<dyn Fn(HubId) -> Bridge>>,
    /// The previous bridge, which still sends its last frames, and the time at which it is dropped.
    last_bridge: Option<(Bridge, Duration)>,
    /// The bridge event that the last turn did not finish: the hub that sent it, and the remaining bytes.
    bridge_unread: Option<(HubId, Unread)>,
    bridge_pressure: Pressure,
    /// Time at which the mesh last began to read links again. The silence of a link is measured from this time at the
    /// earliest.
    listening_since: Duration,
    last_tick: Duration,
    /// No timeouts are checked before this time.
    judge_from: Duration,
    /// The next timeout of the relay for which the timer waits. `timer` notifies the timer of an earlier timeout.
    armed: Option<Duration>,
    timer: Rc<Notify>,
    ending: bool,
    /// The status of this hub, which its heartbeats report to other hubs.
    status: watch::Receiver<Option<Arc<HubStatus>>>,
    /// Refused hubs, each with the reason that was logged last.
    complaints: BTreeMap<HubId, LinkEnd>,
    read_buffer: Vec<u8>,
    /// Maximum number of bytes in all queues together.
    queues_cap: usize,
    /// Length of one queue, in bytes, at which the relay sends only heartbeats and short envelopes, such as outcomes:
    /// [`LINK_QUEUE_HIGH`], or a quarter of `queues_cap` if that is less, but at least [`LINK_QUEUE_LOW`].
    queue_high: usize,
    /// Maximum memory for messages that have not arrived or been processed completely.
    partial_cap: usize,
    tracer: Option<Tracer>,
    /// Number of the last trace of a link.
    last_trace: u64,
    stats: LinkStats,
    bugs: Bugs,
}

/// A socket that becomes a link.
pub(crate) struct NewLink {
    pub(crate) address: SocketAddr,
    /// The dialed target; `None` for an accepted socket.
    pub(crate) target: Option<(TargetId, String)>,
    /// The hub id in the request of an accepted socket, or the id made for a dialed Go hub.
    pub(crate) hub: Option<HubId>,
    pub(crate) legacy: bool,
    /// How the other end has authenticated itself.
    pub(crate) auth: LinkAuth,
    pub(crate) leftover: Bytes,
    /// The trace of the dial. An accepted socket gets its trace when it becomes a link.
    pub(crate) trace: Option<LinkTrace>,
}

impl Core {
    pub(crate) fn new(config: &MeshConfig, shards: usize, make_bridge: Option<Box<dyn Fn(HubId) -> Bridge>>) -> Self {
        let now = (config.clock)();
        let mut relay = Relay::new(config.relay.clone(), now);
        if let Some(tracer) = &config.tracer {
            relay.trace(tracer.sampling());
        }
        Self {
            own: config.relay.hub,
            namespace: config.relay.namespace.clone(),
            discovery: config.relay.discovery,
            relay,
            clock: Arc::clone(&config.clock),
            max_message: LINK_MESSAGE_BYTES,
            max_text: Self::room_for(config.max_message_bytes),
            links: BTreeMap::new(),
            last_link: 0,
            targets: Targets::new(&config.bootstrap, &config.legacy, config.max_dials),
            followups: VecDeque::new(),
            outboxes: Outboxes::new(shards, false),
            flusher: None,
            unfinished: false,
            turn: Turn::default(),
            parked: Vec::new(),
            bridge: make_bridge.as_ref().map(|make| make(config.relay.hub)),
            make_bridge,
            last_bridge: None,
            bridge_unread: None,
            bridge_pressure: Pressure::default(),
            listening_since: now.at,
            last_tick: now.at,
            judge_from: now.at,
            armed: None,
            timer: Rc::new(Notify::new()),
            ending: false,
            status: config.status.clone(),
            complaints: BTreeMap::new(),
            read_buffer: vec![0; READ_BUFFER_BYTES],
            queues_cap: config.link_queues_bytes,
            queue_high: (config.link_queues_bytes / 4).clamp(LINK_QUEUE_LOW, LINK_QUEUE_HIGH),
            partial_cap: config.link_partial_bytes,
            tracer: config.tracer.clone(),
            last_trace: 0,
            stats: LinkStats::default(),
            bugs: Bugs::default(),
        }
    }

    fn room_for(message: usize) -> usize {
        message.saturating_add(proto::limits::LINK_FRAME_BYTES + proto::limits::ENVELOPE_ROOM)
    }

    /// Begins a turn: one piece of work, after which the other ready tasks run.
    pub(crate) fn begin_turn(&mut self) {
        self.turn.begin();
    }

    /// Whether this turn has done its maximum amount of work.
    pub(crate) fn is_turn_over(&self) -> bool {
        self.turn.is_over()
    }

    pub(crate) fn now(&self) -> Now {
        let now = (self.clock)();
        self.turn.look(now.at);
        now
    }

    /// The id of this hub for other hubs.
    pub(crate) fn own(&self) -> HubId {
        self.own
    }

    /// The link with this id, or `None` if it has ended. Tasks, outputs of the relay and lists keep the ids of ended
    /// links for a while, so `None` is not an error.
    pub(crate) fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(&id)
    }

    /// Adds a link for a socket. The caller runs the link's task. `None` if there are too many links, or if the hub
    /// stops.
    pub(crate) fn adopt(&mut self, adopted: NewLink) -> Option<LinkId> {
        let address = adopted.address;
        if self.links.len() >= MAX_LINKS || self.ending {
            self.stats.refused += 1;
            let detail = "this hub has its maximum number of links or is stopping, and closes this link";
            warn!(%address, detail, "link_refused");
            return None;
        }
        let now = self.now();
        let _turn = TurnGuard::of("adopt", address);
        planted("mesh-adopt");
        let trace = adopted.trace.or_else(|| self.trace_link(now));
        self.last_link += 1;
        let id = LinkId(self.last_link);
        let max_message = if adopted.legacy { self.max_text } else { self.max_message };
        self.links.insert(id, Link::new(NewLink { trace, ..adopted }, max_message, now.at));
        self.begin(id, now);
        self.turn_ends(now);
        Some(id)
    }

    fn input(&mut self, input: RelayInput<'_>, now: Now) {
        self.relay.handle_input(input, now);
        self.perform_outputs(now);
    }

    /// Performs the relay's outputs, passes the resulting inputs to the relay, and repeats until no outputs or inputs
    /// are left.
    fn perform_outputs(&mut self, now: Now) {
        loop {
            while let Some(output) = self.relay.poll_output() {
                self.carry_out(output, now);
            }
            let Some(followup) = self.followups.pop_front() else { break };
            self.relay.handle_input(followup, now);
        }
    }

    /// Finishes a turn: performs the relay's remaining outputs, and lets the relay process its timeouts.
    fn turn_ends(&mut self, now: Now) {
        self.perform_outputs(now);
        self.judge(now);
    }

    fn carry_out(&mut self, output: RelayOutput, now: Now) {
        self.turn.count();
        match output {
            RelayOutput::Renamed { hub } => self.renamed(hub, now),
            RelayOutput::Send { to, envelope } => self.send(to, &envelope, now),
            RelayOutput::SendText { link, text } => self.send_text(link, &text, now),
            RelayOutput::Backlog { transport } => self.backlog(transport),
            RelayOutput::Letter { to, letter } => self.post(to, letter),
            RelayOutput::Unfinished => {
                self.unfinished = true;
                self.wake_flusher();
            }
            RelayOutput::Event(event) => log(event),
            RelayOutput::Span(span) => self.traced(*span),
            RelayOutput::Bug(note) => log_bug(&note),
        }
    }

    /// Processes letters from the shards, as many as fit into one turn. The caller passes the remaining letters in the
    /// next turn.
    pub(crate) fn letters(&mut self, letters: &mut impl Iterator<Item = ToMesh>) {
        self.begin_turn();
        let now = self.now();
        let _turn = TurnGuard::of("letters", ());
        planted("mesh");
        while !self.is_turn_over()
            && let Some(letter) = letters.next()
        {
            self.input(RelayInput::Letter(letter), now);
        }
        self.turn_ends(now);
    }

    /// Processes an event of the bridge with the id `own`.
    pub(crate) fn bridged(&mut self, own: HubId, event: BridgeEvent) {
        // Events of the previous bridge do not concern the current one. The relay already knows that the previous
        // bridge has ended.
        if own != self.own {
            return;
        }
        self.begin_turn();
        let now = self.now();
        let _turn = TurnGuard::of("bridge-event", ());
        planted("bridge-event");
        match event {
            // After `Up`, and after `Met`, the relay sends a heartbeat.
            BridgeEvent::Up | BridgeEvent::Met => self.input(RelayInput::BridgeUp, now),
            BridgeEvent::Down => self.input(RelayInput::BridgeDown, now),
            BridgeEvent::Received { from, frame } => {
                self.heard_over_bridge(from, Unread { message: frame, at: 0 }, now);
            }
        }
        self.turn_ends(now);
    }

    /// Processes the remaining bytes of the bridge's last event. Returns false if there were none.
    pub(crate) fn go_on_with_bridge(&mut self) -> bool {
        let Some((from, unread)) = self.bridge_unread.take() else { return false };
        self.begin_turn();
        let now = self.now();
        let _turn = TurnGuard::of("bridge-event", ());
        self.heard_over_bridge(from, unread, now);
        self.turn_ends(now);
        true
    }

    /// Does the next slice of the relay's long work. Does nothing if the relay has no work left, or if too many letters
    /// for a shard are queued. Call this function when all ready tasks have had their turn.
    pub(crate) fn continue_work(&mut self) -> bool {
        let may = self.unfinished && self.outboxes.has_room_for_a_slice();
        if may {
            self.begin_turn();
            self.unfinished = false;
            let now = self.now();
            let _turn = TurnGuard::of("continue", ());
            planted("mesh-continue");
            self.input(RelayInput::Continue, now);
            self.turn_ends(now);
        }
        may
    }

    /// Records that the hub begins or ends a drain.
    pub(crate) fn draining(&mut self, drains: bool) {
        let now = self.now();
        let _turn = TurnGuard::of("drain", ());
        planted("mesh-drain");
        self.input(RelayInput::Draining(drains), now);
        self.turn_ends(now);
    }

    /// The current state of the mesh.
    pub(crate) fn reading(&mut self, busy_micros: u64) -> MeshReading {
        let now = self.now();
        self.stats.bugs.clone_from(self.bugs.counts());
        while let Some(note) = self.bugs.take_note() {
            log_bug(&note);
        }
        self.stats.post = self.outboxes.stats();
        self.stats.queued_bytes = self.queued_bytes() as u64;
        MeshReading {
            relay: self.relay.stats(now).clone(),
            hub: Some(self.own),
            hubs: self.relay.hubs(now),
            links: self.links.iter().map(|(id, link)| link.view(*id)).collect(),
            dials: self.targets.views(),
            io: self.stats.clone(),
            bridge: self.bridge.as_ref().map(Bridge::view),
            busy_micros,
            turns: self.turn.lengths(),
        }
    }
}

fn log(event: MeshEvent) {
    match event {
        MeshEvent::HubFound(hub) => info!(%hub, "hub_found"),
        MeshEvent::HubLost(hub, peers) => warn!(%hub, peers, "hub_lost"),
        MeshEvent::HubLeft(hub, peers) => info!(%hub, peers, "hub_left"),
        MeshEvent::SameId => {
            let detail = "another live hub has this HUB_ID, and the hub that started later takes a new id: leave \
                          HUB_ID unset, or give each hub its own";
            warn!(detail, "hub_id_taken");
        }
        MeshEvent::IdGivenUp(before, hub) => {
            let detail = "another live hub has this HUB_ID and started earlier, so this hub has taken a random id \
                          until it is restarted: leave HUB_ID unset, or give each hub its own";
            warn!(%before, %hub, detail, "hub_id_changed");
        }
        MeshEvent::TwoHubs(hub) => {
            let detail = "two live hubs have this HUB_ID: unset HUB_ID, or set a different one on each hub";
            warn!(%hub, detail, "hub_id_twice");
        }
        MeshEvent::LaterIncarnation => {
            let detail = "other hubs have seen a start time of this hub that is later than the time of its \
                          clock: set the clock of this machine";
            info!(detail, "hub_life_later");
        }
        MeshEvent::LinkSilent(hub) => {
            let detail = "nothing arrives on this open link; signals use another route if there is one";
            warn!(%hub, detail, "link_silent");
        }
        MeshEvent::LinkUnheard(hub) => {
            let detail = "nothing arrives at the other hub on this link; signals use another route if there is one";
            warn!(%hub, detail, "link_unheard");
        }
        MeshEvent::LinkWorks(hub) => info!(%hub, "link_works"),
        MeshEvent::Repaired(hub) => tracing::debug!(%hub, "hub_repaired"),
    }
}
