//! Tests of letters between shards, of counters for operators, and of estimated costs.

use super::*;
use crate::ice::{IceServers, Turn};
use crate::limits::TAKEOVER_MARGIN;

#[test]
fn a_join_and_a_leave_are_posted_to_each_other_shard() {
    let (mut day, at) = Day::meshed(1);
    day.opens(session(0, 0), at(1, 20));
    for text in [ANNOUNCE, r#"{"type":"goodbye","networkName":"n"}"#] {
        let outputs = said_by(&mut day, session(0, 0), text);
        let shard = |output: &Output| {
            let Output::ToShard { to, letter: ToShard::Joined(_) | ToShard::Left(_) } = output else { return None };
            Some(*to)
        };
        let shards: Vec<ShardId> = outputs.iter().filter_map(shard).collect();
        assert_eq!(shards, [0, 2, 3].map(ShardId), "{text}");
    }
}

fn said_by(day: &mut Day, session: SessionId, text: &str) -> Vec<Output> {
    day.router.handle_input(Input::Message { session, text }, Now { at: day.now, wall_ms: WALL_MS });
    std::iter::from_fn(|| day.router.poll_output()).collect()
}

#[test]
fn memory_for_frames_is_kept_up_to_a_bound() {
    let mut day = Day::new(8);
    day.opens(session(0, 0), 1);
    for (capacity, kept) in [(ARENA_KEPT_BYTES, true), (ARENA_KEPT_BYTES + 1, false), (4 * ARENA_KEPT_BYTES, false)] {
        day.router.arena = Vec::with_capacity(capacity);
        let capacity = day.router.arena.capacity();
        day.says(session(0, 0), r#"{"type":"ping"}"#);
        assert_eq!(day.router.arena.capacity() == capacity, kept, "{capacity}");
        assert!(day.router.arena.capacity() <= ARENA_KEPT_BYTES);
    }
}

#[test]
fn credentials_are_counted_when_a_peer_connects_and_when_they_are_renewed() {
    let ttl = Duration::from_secs(600);
    let turn = || Turn { urls: r#"["turn:t"]"#.into(), secrets: vec!["s".into()], ttl };
    for (turn, expected) in [(Some(turn()), [1, 2]), (None, [0, 0])] {
        let mut day = Day::new(8);
        day.router.config.ice = Some(Arc::new(IceServers::new("", turn)));
        day.opens(session(0, 0), 1);
        let first = day.router.stats().turn_credentials;
        day.router.handle_input(Input::RenewIce { session: session(0, 0) }, Now { at: day.now, wall_ms: WALL_MS });
        let outputs: Vec<Output> = std::iter::from_fn(|| day.router.poll_output()).collect();
        assert_eq!(told(&outputs), [MessageKind::IceServers]);
        assert_eq!([first, day.router.stats().turn_credentials], expected);
    }
}

#[test]
fn takeovers_are_counted_by_their_result() {
    // The first holder is on this hub and dead. Three more holders are at another hub. That hub answers that holder 1
    // is alive and that holder 2 is gone. It does not answer for holder 3.
    let mut day = Day::new(8);
    day.opens(session(0, 0), 1);
    day.opens(session(1, 0), 1);
    day.pass(TAKEOVER_GRACE);
    assert_eq!(day.router.stats().takeovers, [1, 0]);
    let mut day = Day::new(8);
    day.router.config.meshed = true;
    for (n, answer) in [(1, Some(true)), (2, Some(false)), (3, None)] {
        day.hears(ToShard::Elsewhere { peer: peer(n), claim: at_hub(9, 10) });
        day.router.handle_input(
            Input::Opened {
                session: session(n.into(), 0),
                peer: peer(n),
                seat: true,
                resume: None,
                owner: false,
                grant: None,
            },
            Now { at: day.now, wall_ms: WALL_MS },
        );
        let asked = std::iter::from_fn(|| day.router.poll_output()).find_map(|output| {
            if let Output::ToMesh(ToMesh::AskTakeover { ticket, .. }) = output { Some(ticket) } else { None }
        });
        let ticket = asked.unwrap();
        let Some(in_use) = answer else { continue };
        assert_eq!(day.hears(ToShard::TakeoverAnswered { peer: peer(n), ticket: ticket + 1, in_use }).len(), 0);
        day.hears(ToShard::TakeoverAnswered { peer: peer(n), ticket, in_use });
    }
    assert_eq!(day.router.stats().takeovers, [1, 1]);
    assert_eq!([1, 2, 3].map(|n| day.router.by_peer.contains_key(&peer(n))), [false, true, false]);
    day.pass(TAKEOVER_GRACE + TAKEOVER_MARGIN - Duration::from_millis(1));
    assert_eq!(day.router.stats().takeovers, [1, 1]);
    day.pass(Duration::from_millis(1));
    assert_eq!(day.router.stats().takeovers, [2, 1], "a holder at a silent hub loses its id");
    assert!(day.router.by_peer.contains_key(&peer(3)));
}

/// A bounded member and each of its picks discover each other. All unbounded members discover each other.
#[test]
fn an_announcement_costs_as_much_as_the_peers_that_receive_it() {
    let mut day = Day::new(8);
    day.router.config.tuning.random_picks = 4;
    let receivers =
        |day: &Day, n: u8, discovery| day.router.receivers(day.router.rosters.find("n"), peer(n), discovery);
    assert_eq!(receivers(&day, 1, Discovery::All), 1, "the network does not exist");
    assert_eq!(receivers(&day, 1, Discovery::Closest(8)), 24);
    for n in 1..=3 {
        day.opens(session(n.into(), 0), n);
        day.says(session(n.into(), 0), ANNOUNCE);
    }
    assert_eq!(receivers(&day, 1, Discovery::All), 3);
    assert_eq!(receivers(&day, 9, Discovery::All), 3, "the peer has not joined yet");
    day.router.config.discovery = Discovery::Closest(2);
    day.opens(session(4, 0), 4);
    day.says(session(4, 0), ANNOUNCE);
    let ix = day.router.rosters.find("n").unwrap();
    let knowers = |n| day.router.rosters.member(ix, &peer(n)).unwrap().knowers().len() as u64;
    assert_eq!(knowers(3), 1, "peer 4 has picked peer 3");
    assert_eq!(
        receivers(&day, 3, Discovery::All),
        3 + knowers(3),
        "unbounded members, and bounded members that know peer 3"
    );
    assert_eq!(receivers(&day, 4, Discovery::Closest(2)), 12 + knowers(4));
}

#[test]
fn signals_without_a_receipt_are_counted_by_their_outcome() {
    let mut day = Day::new(8);
    for outcome in [Outcome::Delivered, Outcome::Forwarded, Outcome::Forwarded, Outcome::Failed(ErrorCode::Unknown)] {
        day.router.stats.count_outcome(outcome);
    }
    let stats = day.router.stats();
    let failed = stats.failed[ErrorCode::Unknown as usize];
    assert_eq!((stats.delivered, stats.forwarded, failed, stats.outcomes()), (1, 2, 1, 4));
}

#[test]
fn the_size_of_a_letter_is_that_of_the_frames_and_lists_that_it_owns() {
    let origin = Origin {
        sender: Sender::Hub { hub: 1, counter: 1, receipt: false },
        kind: wire::SignalKind::Offer,
        network: NetworkName::new("n"),
        standing: Standing::Outsider,
        read_at: Duration::ZERO,
    };
    let signal = SignalLetter { origin, from: peer(1), target: peer(2), frame: vec![0; 77].into() };
    let (network, others) = (NetworkName::new("n"), vec![(peer(1), 1), (peer(2), 1)]);
    let (to, kind) = (MeetingEnd::Others, MeetingKind::Met);
    let meeting = Arc::new(Meeting { network, about: peer(3), stay: 1, others, to, kind });
    let of_two = 2 * size_of::<(PeerId, u64)>();
    assert_eq!(ToShard::Signal(signal.clone()).owned_bytes(), 77);
    assert_eq!(ToMesh::Signal(signal).owned_bytes(), 77);
    assert_eq!(ToShard::Meeting(Arc::clone(&meeting)).owned_bytes(), of_two);
    assert_eq!(ToMesh::Meeting { hub: HubId(peer(9)), meeting }.owned_bytes(), of_two);
    assert_eq!(joined(1, at_hub(9, 1), Stay::default()).owned_bytes(), 0, "announcements are shared");
}

#[test]
fn unwritten_signals_fail_with_the_error_for_the_end_of_the_targets_session() {
    for (reason, code) in [
        (CloseReason::SlowConsumer, ErrorCode::SlowPeer),
        (CloseReason::ConnectionLost, ErrorCode::PeerNotFound),
        (CloseReason::Draining, ErrorCode::PeerNotFound),
    ] {
        let mut day = Day::new(8);
        for n in 1..=2 {
            day.opens(session(n.into(), 0), n);
        }
        let text = format!(r#"{{"type":"offer","targetPeerId":"{}"}}"#, peer(2));
        let origin = said_by(&mut day, session(1, 0), &text)
            .into_iter()
            .find_map(|output| if let Output::Send { origin, .. } = output { origin } else { None });
        day.input(Input::Undelivered { origin: origin.unwrap(), target: peer(2), reason });
        let stats = day.router.stats();
        assert_eq!((stats.failed[code as usize], stats.outcomes(), stats.delivered), (1, 1, 0), "{reason:?}");
    }
}

#[test]
fn a_message_that_is_too_large_is_answered_and_ends_its_session() {
    let mut day = Day::new(8);
    day.opens(session(0, 0), 1);
    let input = Input::TooLarge { session: session(0, 0) };
    day.router.handle_input(input, Now { at: day.now, wall_ms: WALL_MS });
    let outputs: Vec<Output> = std::iter::from_fn(|| day.router.poll_output()).collect();
    assert_eq!(told(&outputs), [MessageKind::Error]);
    assert_eq!(closed(&outputs), [(session(0, 0), CloseReason::MessageTooLarge)]);
    assert_eq!(day.router.stats().errors[ErrorCode::MessageTooLarge as usize], 1);
}
