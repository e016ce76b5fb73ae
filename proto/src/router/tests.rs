//! What cannot be seen from outside: that nothing grows with what has been. All else is tested by transcripts and by
//! the simulator (`tests/sim`).

use super::*;
use crate::limits::{RECEIPT_TIMEOUT, TAKEOVER_GRACE};

struct Day {
    router: Router,
    now: Duration,
}

impl Day {
    fn new(chunk: usize) -> Self {
        let config = RouterConfig {
            discovery: crate::Discovery::All,
            shard: ShardId(0),
            shards: 1,
            keys: Keys(1, 2),
            hub: HubId(peer(0)),
            heartbeat: Duration::from_secs(25),
            max_message_bytes: 1024,
            max_networks_per_peer: 4,
            max_peers_per_network: 1000,
            message_rate: 1_000_000,
            meshed: false,
            events: false,
        };
        Self { router: Router::new(config).with_roster_chunk(chunk), now: Duration::ZERO }
    }

    fn input(&mut self, input: Input<'_>) {
        self.router.handle_input(input, Now { at: self.now, wall_ms: 0 });
        while self.router.poll_output().is_some() {}
    }

    fn pass(&mut self, span: Duration) {
        self.now += span;
        self.router.handle_timeout(Now { at: self.now, wall_ms: 0 });
        while self.router.poll_output().is_some() {}
    }

    fn opens(&mut self, session: SessionId, n: u8) {
        self.input(Input::Opened { session, peer: peer(n), seat: true });
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
fn nothing_is_kept_of_those_who_left() {
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
    assert!(day.router.takeovers.deadlines.len() <= 4, "only those of the last two seconds");
    day.pass(RECEIPT_TIMEOUT);
    let Router { sessions, by_peer, rosters, takeovers, tickets, .. } = &day.router;
    assert_eq!((sessions.len(), by_peer.len(), rosters.len(), rosters.members()), (0, 0, 0, 0));
    assert!(rosters.slots() <= 2, "places of networks are used again");
    assert!(takeovers.is_empty() && tickets.is_empty());
    assert_eq!(day.router.poll_timeout(), None);
}

#[test]
fn a_reader_without_room_remembers_only_who_is_there() {
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
        let reading = day.router.sessions.get(reader).and_then(|s| s.memberships[0].reading.as_deref()).unwrap();
        assert!(reading.early.is_empty() && reading.known_early.is_empty(), "round {i}: {reading:?}");
    }
}

#[test]
fn a_session_admitted_in_ignorance_of_a_greater_claim_loses_its_id() {
    let mut day = Day::new(128);
    let (first, second) = (session(0, 0), session(1, 0));
    day.opens(first, 1);
    day.says(first, r#"{"type":"announce"}"#);
    let elsewhere = |incarnation| {
        let claim = Claim { incarnation: PeerIncarnation(incarnation), hub: HubId(peer(9)) };
        Letter::Elsewhere { peer: peer(1), claim }
    };
    let held = day.router.sessions.get(first).map(|session| session.claim.incarnation.0).unwrap();
    day.input(Input::Letter(elsewhere(held - 1)));
    assert!(day.router.sessions.get(first).is_some(), "a lesser claim changes nothing");
    day.input(Input::Letter(elsewhere(held + 10)));
    assert!(day.router.sessions.get(first).is_none() && day.router.rosters.len() == 0);
    day.opens(second, 1);
    assert!(
        day.router.sessions.get(second).is_some_and(|session| session.state == State::Pending),
        "who comes next asks"
    );
}

#[test]
fn who_waited_for_a_session_here_waits_for_the_one_elsewhere_that_took_its_place() {
    let mut day = Day::new(8);
    day.router.config.meshed = true;
    let (first, second) = (session(0, 0), session(1, 0));
    day.opens(first, 1);
    day.opens(second, 1);
    let claim = day.router.sessions.get(first).unwrap().claim;
    let other = Claim { incarnation: PeerIncarnation(claim.incarnation.0 + 1), hub: HubId(peer(9)) };
    let elsewhere = Letter::Elsewhere { peer: peer(1), claim: other };
    day.router.handle_input(Input::Letter(elsewhere), Now { at: day.now, wall_ms: 0 });
    let outputs: Vec<Output> = std::iter::from_fn(|| day.router.poll_output()).collect();
    let asks = |output: &Output| matches!(output, Output::Letter { letter: Letter::AskTakeover { .. }, .. });
    assert!(outputs.iter().any(asks), "{outputs:?}");
    assert!(!outputs.iter().any(|output| matches!(output, Output::Admit { .. })), "{outputs:?}");
}
