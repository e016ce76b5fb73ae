//! Tests of properties that cannot be observed from outside: memory does not grow with the past. Transcripts and the
//! simulator (`tests/sim`) test everything else.

mod answers;
mod budgets;
mod circles;
mod counts;
mod edges;
mod networks;
mod picks;

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
fn peers_that_left_leave_no_state() {
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
    assert!(day.router.takeovers.deadlines() <= 4, "only those of the last two seconds");
    day.pass(RECEIPT_TIMEOUT);
    let Router { sessions, by_peer, rosters, takeovers, tickets, .. } = &day.router;
    assert_eq!((sessions.len(), by_peer.len(), rosters.len(), rosters.members()), (0, 0, 0, 0));
    assert!(rosters.slots() <= 2, "indexes of networks are reused");
    assert!(takeovers.is_empty() && tickets.is_empty() && rosters.hidden() == 0);
    assert_eq!(day.router.poll_timeout(), None);
}

#[test]
fn a_reader_without_room_remembers_only_present_members() {
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
        let cursor = day.router.sessions.get_mut(reader).and_then(|s| s.reading_mut()?.cursor()).unwrap();
        assert_eq!(cursor.early(), 0, "round {i}: {cursor:?}");
    }
}

#[test]
fn a_session_admitted_before_a_greater_claim_arrives_loses_its_id() {
    let mut day = Day::new(128);
    let (first, second) = (session(0, 0), session(1, 0));
    day.opens(first, 1);
    day.says(first, r#"{"type":"announce"}"#);
    let elsewhere = |incarnation| {
        let claim = Claim { incarnation: PeerIncarnation(incarnation), hub: HubId(peer(9)) };
        ToShard::Elsewhere { peer: peer(1), claim }
    };
    let held = day.router.sessions.get(first).map(|session| session.claim().incarnation.0).unwrap();
    day.input(Input::Letter(elsewhere(held - 1)));
    assert!(day.router.sessions.get(first).is_some(), "a smaller claim changes nothing");
    day.input(Input::Letter(elsewhere(held + 10)));
    assert!(day.router.sessions.get(first).is_none() && day.router.rosters.len() == 0);
    day.opens(second, 1);
    assert!(
        day.router.sessions.get(second).is_some_and(|session| session.phase() == SessionPhase::Pending),
        "the next session asks"
    );
}

#[test]
fn a_takeover_continues_with_the_session_that_replaced_its_target() {
    let mut day = Day::new(8);
    day.router.config.meshed = true;
    let (first, second) = (session(0, 0), session(1, 0));
    day.opens(first, 1);
    day.opens(second, 1);
    let claim = day.router.sessions.get(first).unwrap().claim();
    let other = Claim { incarnation: PeerIncarnation(claim.incarnation.0 + 1), hub: HubId(peer(9)) };
    let elsewhere = ToShard::Elsewhere { peer: peer(1), claim: other };
    day.router.handle_input(Input::Letter(elsewhere), Now { at: day.now, wall_ms: WALL_MS });
    let outputs: Vec<Output> = std::iter::from_fn(|| day.router.poll_output()).collect();
    let asks = |output: &Output| matches!(output, Output::ToMesh(ToMesh::AskTakeover { .. }));
    assert!(outputs.iter().any(asks), "{outputs:?}");
    assert!(!outputs.iter().any(|output| matches!(output, Output::Admit { .. })), "{outputs:?}");
}

/// The lineage that the secret of a session proves.
fn lineage(root: u64, session: u64) -> Lineage {
    Lineage { root: PeerIncarnation(root), session: PeerIncarnation(session) }
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

    /// The answer to another hub whose new session has this lineage, and the sessions that are closed.
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

/// The secret was issued by a hub whose clock is ahead.
#[test]
fn each_session_of_a_lineage_is_later_than_the_one_before_it_whatever_the_clocks() {
    let mut day = Day::new(8);
    let shown = lineage(WALL_MS + 5_000, WALL_MS + 10_000);
    day.resumes(session(0, 0), 1, shown);
    let now = day.lineage_of(session(0, 0));
    assert!(now.root == shown.root && now.session > shown.session, "{now:?}");
    assert_eq!(day.router.stats.resumes[ResumeOutcome::Continued as usize], 1);
}

#[test]
fn a_secret_at_another_hub_takes_the_id_before_a_waiting_session() {
    let mut day = Day::new(8);
    day.router.config.meshed = true;
    let (holder, waits) = (session(0, 0), session(1, 0));
    day.opens(holder, 1);
    day.opens(waits, 1);
    let shown = day.lineage_of(holder);
    let (answers, closed) = day.challenged(1, 5, Some(shown));
    assert_eq!(answers, [(5, false)]);
    assert_eq!(closed, [(waits, CloseReason::IdInUse), (holder, CloseReason::Replaced)]);
    assert_eq!(day.router.stats.resumes[ResumeOutcome::Resumed as usize], 1);
    assert_eq!(day.router.stats.takeovers, [0, 0], "no session was pinged");
    day.opens(session(2, 0), 1);
    assert_eq!(day.router.by_peer.get(&peer(1)), Some(&session(2, 0)), "no session waits any more");
}

#[test]
fn the_hub_with_the_stronger_secret_gets_the_id() {
    let mut day = Day::new(8);
    day.router.config.meshed = true;
    let holder = session(0, 0);
    day.opens(holder, 1);
    let root = day.lineage_of(holder).root.0;
    let outdated = |ago| Some(lineage(root, root - ago));
    assert_eq!(day.challenged(1, 1, None), (vec![], vec![]), "the holder is asked");
    assert_eq!(day.challenged(1, 2, None), (vec![(2, true)], vec![]));
    assert_eq!(day.challenged(1, 3, outdated(2)), (vec![(1, true)], vec![]), "it replaces the other one");
    assert_eq!(day.challenged(1, 4, outdated(2)), (vec![(4, true)], vec![]));
    assert_eq!(day.challenged(1, 5, outdated(1)), (vec![(3, true)], vec![]));
    day.now += TAKEOVER_GRACE;
    day.router.handle_timeout(Now { at: day.now, wall_ms: WALL_MS });
    let outputs: Vec<Output> = std::iter::from_fn(|| day.router.poll_output()).collect();
    assert_eq!(closed(&outputs), [(holder, CloseReason::Replaced)]);
    assert_eq!(day.router.stats.resumes[ResumeOutcome::Outdated as usize], 3);
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

/// A shard reports the end of the greater claim, and the mesh reports the smaller claim: either may arrive first.
#[test]
fn a_smaller_claim_wins_after_the_greater_has_ended() {
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
    /// A bounded peer here, in a hub with a mesh.
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
    assert_eq!(asked.iter().filter(|kind| **kind == MeetingKind::Met).count(), 9, "every 500 ms");
    day.says(session(0, 0), r#"{"type":"goodbye"}"#);
    assert_eq!(day.asks(Duration::from_secs(5)), []);
    assert_eq!((day.router.meetings.known(), day.router.poll_timeout()), (0, None));
}

/// A hub that forgot a peer in a partition, and whose peer now knows its maximum of others, declines when it is
/// reminded.
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
    assert_eq!(
        said_to_hubs(day.hears(answer(MeetingKind::Declined))),
        [MeetingKind::Met],
        "one more meeting is requested"
    );
    assert_eq!(told(&day.hears(answer(MeetingKind::Declined))), [MessageKind::PeerDisconnected]);
    assert_eq!(day.hears(answer(MeetingKind::Declined)).len(), 0);
    assert_eq!(day.router.meetings.known(), 0);
    assert_eq!(
        told(&day.hears(answer(MeetingKind::Met))),
        [MessageKind::PeerDiscovered],
        "the other peer has room after all"
    );
    assert_eq!(day.hears(left(9, claim)).len(), 1);
    assert_eq!(day.router.meetings.known(), 0);
}

#[test]
fn an_unbounded_peer_that_returned_unnoticed_has_no_acquaintances() {
    let mut day = Day::bounded(1);
    let claim = at_hub(9, 10);
    day.says(session(0, 0), ANNOUNCE);
    let stay = |number| Stay { number, discovery: Discovery::All };
    assert_eq!(
        told(&day.hears(joined(9, claim, stay(1)))),
        [MessageKind::PeerDiscovered],
        "the peer wants to know one other"
    );
    assert_eq!(told(&day.hears(joined(9, claim, stay(1)))), [MessageKind::PeerDiscovered], "announced again");
    let returned = day.hears(joined(9, claim, stay(2)));
    assert_eq!(told(&returned), [MessageKind::PeerDisconnected, MessageKind::PeerDiscovered]);
    assert_eq!(said_to_hubs(returned), [MeetingKind::Met], "a peer that returns is introduced again");
}

impl Day {
    /// A shard of a hub with several shards and a mesh. Returns a function that finds peers whose home it is.
    fn meshed(shard: u16) -> (Self, impl Fn(u16, u8) -> u8) {
        let mut day = Self::new(8);
        (day.router.config.shard, day.router.config.shards, day.router.config.meshed) = (ShardId(shard), 4, true);
        let keys = day.router.config.keys;
        let at = move |shard, from| (from..255).find(|&n| ShardId::home(&peer(n), 4, keys) == ShardId(shard)).unwrap();
        (day, at)
    }
}

/// A signal of peer 9 that another hub, or another shard, has read.
fn signal(sender: Sender, network: &str, standing: Standing, target: u8) -> ToShard {
    let network = NetworkName::new(network);
    let origin = Origin { sender, kind: wire::SignalKind::Offer, network, standing, read_at: Duration::ZERO };
    ToShard::Signal(SignalLetter { origin, from: peer(9), target: peer(target), frame: Box::from(*b"{}") })
}

const FROM_HUB: Sender = Sender::Hub { hub: 1, counter: 1, receipt: false };

fn from_shard(detour: bool) -> Sender {
    Sender::Session { shard: ShardId(3), session: session(0, 0), ticket: Some(NonZeroU64::MIN), detour }
}

/// The addresses of letters, and the outcomes in them.
fn posted(outputs: Vec<Output>) -> Vec<(Address, Option<Outcome>)> {
    let letter = |output| {
        if let Output::ToShard { to, letter: ToShard::Outcome(letter) } = output {
            Some((Address::Shard(to), Some(letter.outcome)))
        } else if let Output::ToMesh(ToMesh::Outcome(letter)) = output {
            Some((Address::Mesh, Some(letter.outcome)))
        } else if let Output::ToShard { to, letter: ToShard::Signal(_) } = output {
            Some((Address::Shard(to), None))
        } else {
            matches!(output, Output::ToMesh(ToMesh::Signal(_))).then_some((Address::Mesh, None))
        }
    };
    outputs.into_iter().filter_map(letter).collect()
}

#[test]
fn a_signal_reaches_members_in_the_stay_in_which_it_was_sent() {
    let mut day = Day::new(8);
    day.router.config.meshed = true;
    day.opens(session(0, 0), 1);
    day.says(session(0, 0), ANNOUNCE);
    let (claim, stay) = (at_hub(9, 10), |number| Stay { number, discovery: Discovery::All });
    let late = (Address::Mesh, Some(Outcome::Failed(ErrorCode::Unreachable)));
    let of_stay = |number| signal(FROM_HUB, "n", Standing::Member(number), 1);
    assert_eq!(posted(day.hears(of_stay(5))), [late], "not before its discovery");
    day.hears(joined(9, claim, stay(5)));
    assert_eq!(told(&day.hears(of_stay(5))), [MessageKind::Signal(wire::SignalKind::Offer)]);
    assert_eq!(
        posted(day.hears(signal(from_shard(false), "n", Standing::Member(5), 1))).len(),
        1,
        "the sender is at another hub"
    );
    day.hears(left(9, claim));
    assert_eq!(posted(day.hears(of_stay(5))), [late], "nor after its leave");
    day.hears(joined(9, claim, stay(6)));
    assert_eq!(posted(day.hears(of_stay(5))), [late], "nor in its next stay");
    assert_eq!(told(&day.hears(of_stay(6))).len(), 1);
}

#[test]
fn signals_without_a_standing_are_delivered_only_in_global() {
    let mut day = Day::new(8);
    day.router.config.meshed = true;
    day.opens(session(0, 0), 1);
    day.says(session(0, 0), ANNOUNCE);
    day.says(session(0, 0), r#"{"type":"announce"}"#);
    let late = (Address::Mesh, Some(Outcome::Failed(ErrorCode::Unreachable)));
    assert_eq!(posted(day.hears(signal(FROM_HUB, "n", Standing::Unknown, 1))), [late]);
    assert_eq!(
        told(&day.hears(signal(FROM_HUB, "global", Standing::Unknown, 1))).len(),
        1,
        "its sender may be in no \
        network"
    );
    assert_eq!(
        told(&day.hears(signal(FROM_HUB, "global", Standing::Outsider, 1))).len(),
        1,
        "its sender is in no \
        network"
    );
    day.hears(joined(9, at_hub(9, 10), Stay { number: 5, discovery: Discovery::All }));
    assert_eq!(told(&day.hears(signal(FROM_HUB, "n", Standing::Unknown, 1))).len(), 1);
}

#[test]
fn a_signal_goes_straight_to_the_mesh_if_its_target_is_known_to_be_at_another_hub() {
    let (mut day, at) = Day::meshed(0);
    let (sender, known, unknown) = (at(0, 20), at(1, 20), at(2, 20));
    day.opens(session(0, 0), sender);
    day.says(session(0, 0), ANNOUNCE);
    day.hears(joined(known, at_hub(9, 10), Stay { number: 5, discovery: Discovery::All }));
    let offer = |target| format!(r#"{{"type":"offer","networkName":"n","targetPeerId":"{}"}}"#, peer(target));
    for (target, to) in [(known, Address::Mesh), (unknown, Address::Shard(ShardId(2)))] {
        let text = offer(target);
        let input = Input::Message { session: session(0, 0), text: &text };
        day.router.handle_input(input, Now { at: day.now, wall_ms: WALL_MS });
        assert_eq!(posted(std::iter::from_fn(|| day.router.poll_output()).collect()), [(to, None)]);
    }
}

/// The sender's next signals go straight to the mesh, where this one would arrive after them.
#[test]
fn a_signal_for_a_peer_that_was_here_does_not_follow_it_to_another_hub() {
    let (mut day, at) = Day::meshed(0);
    let gone = at(0, 20);
    day.hears(ToShard::Elsewhere { peer: peer(gone), claim: at_hub(9, 10) });
    let to = |detour| signal(from_shard(detour), "n", Standing::Member(1), gone);
    assert_eq!(posted(day.hears(to(true))), [(Address::Mesh, None)], "the place of the target was unknown");
    let not_found = Outcome::Failed(ErrorCode::PeerNotFound);
    assert_eq!(posted(day.hears(to(false))), [(Address::Shard(ShardId(3)), Some(not_found))]);
}

#[test]
#[should_panic(expected = "impossible state outputs-lost: 1 outputs")]
fn removed_outputs_are_detected() {
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
fn an_entry_that_remains_in_a_roster_is_found() {
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

/// The outputs of this input for sockets, as "session kind network", and whether work remains.
fn said(day: &mut Day, input: Input<'_>) -> (Vec<String>, bool) {
    let now = Now { at: day.now, wall_ms: WALL_MS };
    day.router.handle_input(input, now);
    let (mut lines, mut unfinished) = (Vec::new(), false);
    while let Some(output) = day.router.poll_output() {
        unfinished |= matches!(output, Output::Unfinished);
        if let Output::Send { session, frame: Frame::Template(template), kind, .. } = output {
            let mut bytes = Vec::new();
            template.write_to(&mut bytes, &peer(9), WALL_MS);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let network = text.split(r#""networkName":""#).nth(1).and_then(|rest| rest.split('"').next());
            lines.push(format!("{} {} {}", session.slot, kind.label(), network.unwrap_or_default()));
        }
    }
    (lines, unfinished)
}

/// Two peers in networks a to d, whose router notifies the members of one network per turn.
fn in_four_networks() -> (Day, SessionId, SessionId) {
    let mut day = Day::new(100);
    day.router.config.tuning.turn_outputs = 1;
    let ids = [0, 1].map(|slot| SessionId { slot, generation: 0 });
    for (n, id) in ids.into_iter().enumerate() {
        day.opens(id, 1 + n as u8);
        for network in ["a", "b", "c", "d"] {
            day.says(id, &format!(r#"{{"type":"announce","networkName":"{network}"}}"#));
        }
    }
    (day, ids[0], ids[1])
}

#[test]
fn the_end_of_a_session_in_many_networks_is_sliced() {
    let (mut day, leaver, _) = in_four_networks();
    let reason = CloseReason::ClientClosed;
    let (mut lines, mut unfinished) = said(&mut day, Input::Closed { session: leaver, reason });
    assert_eq!((lines.len(), day.router.leaving.networks()), (1, 3));
    assert_eq!(
        day.router.stats.announced_bytes,
        day.router.sessions.get(SessionId { slot: 1, generation: 0 }).map_or(0, |s| s.announced_bytes() as u64)
    );
    // A later session of the peer joins a network whose roster still has the first one. The two are not confused.
    let again = SessionId { slot: 0, generation: 1 };
    day.opens(again, 1);
    let (joined, _) =
        said(&mut day, Input::Message { session: again, text: r#"{"type":"announce","networkName":"c"}"# });
    assert_eq!(joined[..2], ["1 peer-disconnected c", "1 peer-discovered c"]);
    while unfinished {
        let (slice, more) = said(&mut day, Input::Continue);
        assert!(slice.len() <= 1);
        lines.extend(slice);
        unfinished = more;
    }
    lines.sort();
    assert_eq!(lines, ["1 peer-disconnected a", "1 peer-disconnected b", "1 peer-disconnected d"]);
    assert!(day.router.leaving.is_empty());
    let ix = day.router.rosters.find("c").unwrap();
    assert_eq!(day.router.rosters.network(ix).unwrap().len(), 2);
    for (slot, generation) in [(0, 1), (1, 0)] {
        day.closes(SessionId { slot, generation });
        while said(&mut day, Input::Continue).1 {}
    }
    assert_eq!((day.router.rosters.len(), day.router.stats.announced_bytes), (0, 0));
}

#[test]
fn a_return_during_a_sliced_leave_is_kept() {
    let (mut day, leaver, other) = in_four_networks();
    let (first, unfinished) = said(&mut day, Input::Message { session: leaver, text: r#"{"type":"goodbye"}"# });
    assert!(unfinished && first == ["1 goodbye a"], "{first:?}");
    // It receives no more events of networks that it has left.
    let (news, _) = said(&mut day, Input::Message { session: other, text: r#"{"type":"announce","networkName":"c"}"# });
    assert_eq!(news, ["1 peer-discovered c"]);
    let (back, _) =
        said(&mut day, Input::Message { session: leaver, text: r#"{"type":"announce","networkName":"b"}"# });
    assert_eq!(back[..2], ["1 goodbye b", "1 goodbye c"], "the leave of this network and one more are finished");
    assert!(back.contains(&"1 peer-discovered b".to_owned()));
    let (rest, more) = said(&mut day, Input::Continue);
    assert_eq!((rest, more), (vec!["1 goodbye d".to_owned()], false));
    let ix = day.router.rosters.find("b").unwrap();
    assert_eq!(day.router.rosters.network(ix).unwrap().len(), 2);
}

#[test]
fn the_unfinished_leaves_of_a_session_are_bounded() {
    let (mut day, leaver, _) = in_four_networks();
    for round in 0..10 {
        said(&mut day, Input::Message { session: leaver, text: r#"{"type":"goodbye"}"# });
        for n in 0..4 {
            let text = format!(r#"{{"type":"announce","networkName":"{round}-{n}"}}"#);
            said(&mut day, Input::Message { session: leaver, text: &text });
            let there = day.router.sessions.get(leaver).unwrap().memberships().len();
            assert!(there + day.router.leaving.networks() <= 4 + 1, "round {round}");
        }
    }
}

#[test]
fn a_signal_of_a_peer_that_has_just_left_follows_its_leave() {
    let (mut day, leaver, _) = in_four_networks();
    said(&mut day, Input::Message { session: leaver, text: r#"{"type":"goodbye"}"# });
    let target = peer(2);
    let text = format!(r#"{{"type":"offer","targetPeerId":"{target}","networkName":"d","data":1}}"#);
    let (lines, _) = said(&mut day, Input::Message { session: leaver, text: &text });
    assert_eq!(lines, ["1 goodbye d"]);
}

#[test]
fn a_parser_defect_ends_only_its_session() {
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

#[test]
fn an_excluded_peer_takes_no_id_from_another_hub() {
    let mut day = Day::new(128);
    day.router.config.meshed = true;
    let claim = Claim { incarnation: PeerIncarnation(5), hub: HubId(peer(9)) };
    day.input(Input::Letter(ToShard::Elsewhere { peer: peer(1), claim }));
    let out_for = Some(Duration::from_secs(60));
    let kicked = outputs(&mut day.router, Input::Order(Order::Kick { peer: peer(1), network: None, out_for }));
    let expected = Acted::Kicked { from: KickedFrom::Elsewhere(HubId(peer(9))), excluded: true };
    assert!(matches!(kicked[..], [Output::Acted(acted)] if acted == expected), "{kicked:?}");
    let opened =
        Input::Opened { session: session(0, 0), peer: peer(1), seat: true, resume: None, owner: false, grant: None };
    let refused = outputs(&mut day.router, opened);
    assert!(matches!(refused[..], [Output::Close { reason: CloseReason::Kicked, .. }]), "{refused:?}");
    day.router.audit();
}

#[test]
fn a_large_network_is_closed_in_slices() {
    let many = u32::try_from(crate::limits::SLOTS_PER_SLICE).unwrap() + 100;
    let mut day = Day::new(128);
    let id = |n: u32| {
        let mut bytes = [7; 20];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        PeerId::from_bytes(bytes)
    };
    let mut opens = |n| {
        let opened =
            Input::Opened { session: session(n, 0), peer: id(n), seat: true, resume: None, owner: false, grant: None };
        outputs(&mut day.router, opened);
    };
    (0..many).for_each(&mut opens);
    let says = |day: &mut Day, n, text| outputs(&mut day.router, Input::Message { session: session(n, 0), text });
    for n in [0, 1, many - 1] {
        says(&mut day, n, r#"{"type":"announce","networkName":"n"}"#);
    }
    let close = Input::Order(Order::CloseNetwork { network: NetworkName::new("n"), out_for: None });
    let first = outputs(&mut day.router, close);
    assert!(matches!(first.last(), Some(Output::Unfinished)), "{first:?}");
    assert!(!first.iter().any(|output| matches!(output, Output::Acted(_))));
    // It had left already, and joins again, in a slot that has not been examined.
    says(&mut day, 1, r#"{"type":"announce","networkName":"n"}"#);
    says(&mut day, many - 2, r#"{"type":"announce","networkName":"n"}"#);
    let second = outputs(&mut day.router, Input::Continue);
    let acted = second.iter().filter_map(|output| if let Output::Acted(acted) = output { Some(*acted) } else { None });
    assert_eq!(acted.collect::<Vec<_>>(), [Acted::Closed { members: 3, excluded: true }]);
    while day.router.unfinished {
        outputs(&mut day.router, Input::Continue);
    }
    let ix = day.router.rosters.find("n").unwrap();
    assert_eq!(day.router.rosters.network(ix).map(|network| network.len()), Some(2), "sessions that joined since stay");
    day.router.audit();
}
