//! Tests of one router, such as tests that its memory does not grow with past sessions. Transcripts and the simulator
//! (`tests/sim`) also test routers.

mod answers;
mod budgets;
mod circles;
mod counts;
mod edges;
mod grants;
mod leaves;
mod meetings;
mod networks;
mod orders;
mod picks;
mod proposals;
mod readers;
mod secrets;
mod signals;
mod takeovers;

use std::num::NonZeroU64;
use std::sync::Arc;

use super::*;
use crate::budget::{Allowance, BudgetItem};
use crate::claim::Claim;
use crate::id::PeerIncarnation;
use crate::limits::{DEFAULT_ERROR_RATE, ERROR_BURST_SECS, RECEIPT_TIMEOUT, TAKEOVER_GRACE};
use crate::phase::SessionPhase;
use crate::reason::{CloseReason, ErrorCode, Outcome};
use crate::resume::{Lineage, ResumeOutcome};
use crate::wire;

const WALL_MS: u64 = 1_700_000_000_000;

struct Day {
    router: Router,
    now: Duration,
}

impl Day {
    fn new(chunk: usize) -> Self {
        let config = RouterConfig {
            ice: None,
            discovery: crate::Discovery::All,
            shard: ShardId(0),
            shards: 1,
            keys: Keys(1, 2),
            resume_keys: ResumeKeys::new("mesh", b"key", None),
            hub: HubId(peer(0)),
            heartbeat: Duration::from_secs(25),
            max_message_bytes: 1024,
            max_networks_per_peer: 4,
            max_peers_per_network: 1000,
            announce_budget_bytes: usize::MAX,
            budget: Budget::UNLIMITED.with(
                BudgetItem::Errors,
                Allowance::new(DEFAULT_ERROR_RATE.into(), u64::from(DEFAULT_ERROR_RATE) * ERROR_BURST_SECS),
            ),
            network_budget: Budget::UNLIMITED,
            meshed: false,
            events: false,
            tuning: RouterTuning { roster_chunk: chunk, ..RouterTuning::default() },
        };
        Self { router: Router::new(config), now: Duration::ZERO }
    }

    fn input(&mut self, input: Input<'_>) {
        self.router.handle_input(input, Now { at: self.now, wall_ms: WALL_MS });
        while self.router.poll_output().is_some() {}
        self.router.audit();
    }

    fn pass(&mut self, span: Duration) {
        self.now += span;
        self.router.handle_timeout(Now { at: self.now, wall_ms: WALL_MS });
        while self.router.poll_output().is_some() {}
    }

    fn opens(&mut self, session: SessionId, n: u8) {
        self.input(Input::Opened { session, peer: peer(n), seat: true, resume: None, owner: false, grant: None });
    }

    fn says(&mut self, session: SessionId, text: &str) {
        self.input(Input::Message { session, text });
    }

    fn closes(&mut self, session: SessionId) {
        self.input(Input::Closed { session, reason: CloseReason::ClientClosed });
    }
}

const fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 20])
}

const fn session(slot: u32, generation: u32) -> SessionId {
    SessionId { slot, generation }
}

#[test]
fn sessions_that_have_ended_leave_no_state() {
    let mut day = Day::new(128);
    for i in 0..1000 {
        let (a, b, newcomer) = (session(0, i), session(1, i), session(2, i));
        day.opens(a, 1);
        day.opens(b, 2);
        for session in [a, b] {
            day.says(session, &format!(r#"{{"type":"announce","networkName":"{i}"}}"#));
            day.says(session, r#"{"type":"announce"}"#);
        }
        day.says(a, &format!(r#"{{"type":"offer","targetPeerId":"{}","id":"x"}}"#, peer(2)));
        day.says(a, &format!(r#"{{"type":"offer","targetPeerId":"{}","id":"y"}}"#, peer(3)));
        day.says(b, r#"{"type":"goodbye","networkName":"global"}"#);
        day.opens(newcomer, 1);
        day.pass(TAKEOVER_GRACE / 3);
        for session in [newcomer, a, b] {
            day.closes(session);
        }
    }
    assert!(day.router.takeovers.deadlines() <= 4, "only the deadlines of the last two seconds remain");
    day.pass(RECEIPT_TIMEOUT);
    let Router { sessions, by_peer, rosters, takeovers, tickets, .. } = &day.router;
    assert_eq!((sessions.len(), by_peer.len(), rosters.len(), rosters.members()), (0, 0, 0, 0));
    assert!(rosters.slots() <= 2, "indexes of networks are reused");
    assert!(takeovers.is_empty() && tickets.is_empty() && rosters.hidden() == 0);
    assert_eq!(day.router.poll_timeout(), None);
}

#[test]
fn a_reader_without_room_stores_no_member_that_has_left() {
    let mut day = Day::new(1);
    let (reader, there, fleeting) = (session(0, 0), session(1, 0), session(2, 0));
    for (session, n) in [(there, 1), (reader, 9), (fleeting, 5)] {
        day.opens(session, n);
    }
    day.says(there, r#"{"type":"announce"}"#);
    day.says(fleeting, r#"{"type":"announce"}"#);
    day.says(reader, r#"{"type":"announce"}"#);
    for i in 0..100 {
        day.says(fleeting, r#"{"type":"announce"}"#);
        day.says(fleeting, &format!(r#"{{"type":"offer","targetPeerId":"{}"}}"#, peer(9)));
        if i % 3 == 0 {
            day.says(reader, r#"{"type":"announce"}"#);
        }
        day.says(fleeting, r#"{"type":"goodbye"}"#);
        let cursor = day.router.sessions.get_mut(reader).and_then(|s| s.receiving_roster_mut()?.cursor()).unwrap();
        assert_eq!(cursor.early(), 0, "round {i}: {cursor:?}");
    }
}

impl Day {
    fn resumes(&mut self, session: SessionId, n: u8, resume: Lineage) -> Vec<Output> {
        let opened =
            Input::Opened { session, peer: peer(n), seat: true, resume: Some(resume), owner: false, grant: None };
        self.router.handle_input(opened, Now { at: self.now, wall_ms: WALL_MS });
        std::iter::from_fn(|| self.router.poll_output()).collect()
    }

    fn lineage_of(&self, session: SessionId) -> Lineage {
        self.router.sessions.get(session).unwrap().lineage()
    }

    /// Passes a challenge of another hub, whose new session has this lineage, to the router. Returns the answers, and
    /// the sessions that are closed.
    fn challenged(&mut self, n: u8, ticket: u64, resume: Option<Lineage>) -> (Vec<(u64, bool)>, Closed) {
        let asker = Asker { hub: HubId(peer(9)), incarnation: crate::HubIncarnation(1), ticket };
        let outputs = self.hears(ToShard::Challenge { peer: peer(n), asker, resume, owner: false });
        let answer = |output: &Output| {
            if let Output::ToMesh(ToMesh::ChallengeAnswered { asker, in_use, .. }) = output {
                Some((asker.ticket, *in_use))
            } else {
                None
            }
        };
        (outputs.iter().filter_map(answer).collect(), closed(&outputs))
    }
}

type Closed = Vec<(SessionId, CloseReason)>;

fn closed(outputs: &[Output]) -> Closed {
    let close =
        |output: &Output| if let Output::Close { session, reason } = output { Some((*session, *reason)) } else { None };
    outputs.iter().filter_map(close).collect()
}

fn joined(n: u8, claim: Claim, stay: Stay) -> ToShard {
    let data = codec::describe(&peer(n), None).unwrap();
    let discovered = Arc::new(wire::peer_discovered(&data, PeerIncarnation::LEGACY, "n", 0));
    let network = NetworkName::new("n");
    ToShard::Joined(Arc::new(Announcement { peer: peer(n), network, claim, remote: true, stay, discovered }))
}

fn left(n: u8, claim: Claim) -> ToShard {
    let reason = crate::LeaveReason::Moved;
    let frame = Arc::new(wire::peer_disconnected(&peer(n), PeerIncarnation::LEGACY, reason, "n", 0));
    let network = NetworkName::new("n");
    ToShard::Left(Arc::new(Leave { peer: peer(n), network, claim, frame, kind: MessageKind::PeerDisconnected }))
}

fn at_hub(n: u8, incarnation: u64) -> Claim {
    Claim { incarnation: PeerIncarnation(incarnation), hub: HubId(peer(n)) }
}

/// A shard reports the end of the greater claim, and the mesh reports the end of the smaller claim. Either report may
/// arrive first.
#[test]
fn a_smaller_claim_wins_after_the_greater_claim_has_ended() {
    let mut day = Day::new(8);
    let (greater, lesser) = (at_hub(8, 20), at_hub(9, 10));
    let stay = Stay { number: 1, discovery: Discovery::All };
    for lesser_ends_first in [false, true] {
        day.input(Input::Letter(joined(1, greater, stay)));
        day.input(Input::Letter(joined(1, lesser, stay)));
        assert_eq!(day.router.rosters.members(), 1);
        let (first, second) = if lesser_ends_first { (lesser, greater) } else { (greater, lesser) };
        day.input(Input::Letter(left(1, first)));
        assert_eq!(day.router.rosters.members(), 1);
        day.input(Input::Letter(left(1, second)));
        assert_eq!((day.router.rosters.members(), day.router.rosters.len()), (0, 0));
        assert!(day.router.rosters.hidden() == 0);
    }
}

impl Day {
    /// A router with one bounded peer, on a hub with a mesh.
    fn bounded(closest: u8) -> Self {
        let mut day = Self::new(8);
        day.router.config.meshed = true;
        day.router.config.discovery = Discovery::Closest(closest);
        day.opens(session(0, 0), 1);
        day
    }

    fn hears(&mut self, letter: ToShard) -> Vec<Output> {
        self.router.handle_input(Input::Letter(letter), Now { at: self.now, wall_ms: WALL_MS });
        std::iter::from_fn(|| self.router.poll_output()).collect()
    }

    /// The meetings sent to other hubs within `span`.
    fn asks(&mut self, span: Duration) -> Vec<MeetingKind> {
        let mut words = Vec::new();
        let until = self.now + span;
        while let Some(at) = self.router.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.router.handle_timeout(Now { at: self.now, wall_ms: WALL_MS });
            words.extend(said_to_hubs(std::iter::from_fn(|| self.router.poll_output())));
        }
        self.now = until;
        words
    }
}

fn said_to_hubs(outputs: impl IntoIterator<Item = Output>) -> Vec<MeetingKind> {
    let kind = |output| {
        if let Output::ToMesh(ToMesh::Meeting { meeting, .. }) = output { Some(meeting.kind) } else { None }
    };
    outputs.into_iter().filter_map(kind).collect()
}

fn told(outputs: &[Output]) -> Vec<MessageKind> {
    let kind = |output: &Output| if let Output::Send { kind, .. } = output { Some(*kind) } else { None };
    outputs.iter().filter_map(kind).collect()
}

/// The messages to the first session of a slot.
fn told_to(outputs: &[Output], slot: u32) -> Vec<MessageKind> {
    let kind = |output: &Output| {
        let Output::Send { session: to, kind, .. } = output else { return None };
        (*to == session(slot, 0)).then_some(*kind)
    };
    outputs.iter().filter_map(kind).collect()
}

const ANNOUNCE: &str = r#"{"type":"announce","networkName":"n"}"#;

#[test]
fn an_ended_stay_repeats_no_meeting() {
    let mut day = Day::bounded(1);
    day.hears(joined(9, at_hub(9, 10), Stay { number: 1, discovery: Discovery::Closest(1) }));
    for _ in 0..50 {
        day.says(session(0, 0), ANNOUNCE);
        day.says(session(0, 0), r#"{"type":"goodbye"}"#);
    }
    day.says(session(0, 0), ANNOUNCE);
    let asked = day.asks(Duration::from_millis(4_990));
    assert_eq!(asked.iter().filter(|kind| **kind == MeetingKind::Met).count(), 9, "a meeting is repeated every 500 ms");
    day.says(session(0, 0), r#"{"type":"goodbye"}"#);
    assert_eq!(day.asks(Duration::from_secs(5)), []);
    assert_eq!((day.router.meetings.known(), day.router.poll_timeout()), (0, None));
}

/// The other hub has lost this acquaintance in a partition, and its own peer now knows its maximum number of other
/// peers. So the other hub declines the repeated meeting.
#[test]
fn a_member_that_is_asked_again_can_decline() {
    let mut day = Day::bounded(1);
    let (claim, stay) = (at_hub(9, 10), Stay { number: 1, discovery: Discovery::Closest(1) });
    day.hears(joined(9, claim, stay));
    day.says(session(0, 0), ANNOUNCE);
    let own = day.router.sessions.get(session(0, 0)).unwrap().memberships()[0].stay().number;
    let answer = |kind| {
        let (network, others) = (NetworkName::new("n"), vec![(peer(9), 1)]);
        let meeting = Meeting { network, about: peer(1), stay: own, others, to: MeetingEnd::About, kind };
        ToShard::Meeting(Arc::new(meeting))
    };
    assert_eq!(day.hears(answer(MeetingKind::Agreed)).len(), 0);
    assert_eq!(day.asks(Duration::from_secs(30)), [MeetingKind::Agreed], "meetings are repeated periodically");
    assert_eq!(said_to_hubs(day.hears(answer(MeetingKind::Declined))), [MeetingKind::Met], "the meeting is sent again");
    assert_eq!(told(&day.hears(answer(MeetingKind::Declined))), [MessageKind::PeerDisconnected]);
    assert_eq!(day.hears(answer(MeetingKind::Declined)).len(), 0);
    assert_eq!(day.router.meetings.known(), 0);
    assert_eq!(
        told(&day.hears(answer(MeetingKind::Met))),
        [MessageKind::PeerDiscovered],
        "the other peer has room again"
    );
    assert_eq!(day.hears(left(9, claim)).len(), 1);
    assert_eq!(day.router.meetings.known(), 0);
}

#[test]
fn an_unbounded_peer_that_returned_unnoticed_is_introduced_again() {
    let mut day = Day::bounded(1);
    let claim = at_hub(9, 10);
    day.says(session(0, 0), ANNOUNCE);
    let stay = |number| Stay { number, discovery: Discovery::All };
    assert_eq!(
        told(&day.hears(joined(9, claim, stay(1)))),
        [MessageKind::PeerDiscovered],
        "the peer has requested to know one other peer"
    );
    assert_eq!(
        told(&day.hears(joined(9, claim, stay(1)))),
        [MessageKind::PeerDiscovered],
        "the repeated announcement is sent to the peer"
    );
    let returned = day.hears(joined(9, claim, stay(2)));
    assert_eq!(told(&returned), [MessageKind::PeerDisconnected, MessageKind::PeerDiscovered]);
    assert_eq!(said_to_hubs(returned), [MeetingKind::Met], "a peer that returns is introduced again");
}

impl Day {
    /// A shard of a hub with four shards and a mesh. Also returns a function that finds a peer whose home is a given
    /// shard.
    fn meshed(shard: u16) -> (Self, impl Fn(u16, u8) -> u8) {
        let mut day = Self::new(8);
        (day.router.config.shard, day.router.config.shards, day.router.config.meshed) = (ShardId(shard), 4, true);
        let keys = day.router.config.keys;
        let at = move |shard, from| (from..255).find(|&n| ShardId::home(&peer(n), 4, keys) == ShardId(shard)).unwrap();
        (day, at)
    }
}

/// A signal of peer 9, which is connected to another hub or another shard.
fn signal(sender: Sender, network: &str, standing: Standing, target: u8) -> ToShard {
    let network = NetworkName::new(network);
    let origin = Origin { sender, kind: wire::SignalKind::Offer, network, standing, read_at: Duration::ZERO };
    ToShard::Signal(SignalLetter { origin, from: peer(9), target: peer(target), frame: Box::from(*b"{}") })
}

#[test]
#[should_panic(expected = "impossible state outputs-lost: 1 outputs")]
fn lost_outputs_are_reported_as_an_impossible_state() {
    let mut day = Day::new(128);
    day.opens(session(0, 0), 1);
    day.router.handle_input(
        Input::Message { session: session(0, 0), text: r#"{"type":"ping"}"# },
        Now { at: day.now, wall_ms: WALL_MS },
    );
    day.router.outputs.clear();
    day.router.poll_output();
}

#[test]
#[should_panic(expected = "impossible state audit: roster entry of 01010101 in NetworkIx(0) remains")]
fn the_audit_finds_a_roster_entry_without_a_session() {
    let mut day = Day::new(128);
    day.opens(session(0, 0), 1);
    day.opens(session(1, 0), 2);
    day.says(session(0, 0), r#"{"type":"announce"}"#);
    day.says(session(1, 0), r#"{"type":"announce"}"#);
    let ix = day.router.rosters.find("global").unwrap();
    let announcement = Arc::new(day.router.rosters.member(ix, &peer(1)).unwrap().announcement().clone());
    day.closes(session(0, 0));
    day.router.rosters.enter(ix, Address::Shard(ShardId(0)), announcement);
    day.pass(Duration::from_secs(1));
    day.router.audit();
}

#[test]
fn a_panic_of_the_parser_ends_only_the_session_of_the_sender() {
    let mut day = Day::new(128);
    day.opens(session(0, 0), 1);
    day.opens(session(1, 0), 2);
    let text = crate::codec::PLANTED_PANIC;
    day.router.handle_input(Input::Message { session: session(0, 0), text }, Now { at: day.now, wall_ms: WALL_MS });
    let outputs: Vec<Output> = std::iter::from_fn(|| day.router.poll_output()).collect();
    let closes = |output: &Output| matches!(output, Output::Close { session, reason: CloseReason::Internal } if session.slot == 0);
    assert!(matches!(&outputs[..], [output] if closes(output)), "{outputs:?}");
    assert_eq!(day.router.by_peer.len(), 1);
    day.says(session(1, 0), r#"{"type":"announce"}"#);
    assert_eq!(day.router.rosters.members(), 1);
}

fn outputs(router: &mut Router, input: Input<'_>) -> Vec<Output> {
    router.handle_input(input, Now { at: Duration::from_secs(1000), wall_ms: WALL_MS });
    std::iter::from_fn(|| router.poll_output()).collect()
}
