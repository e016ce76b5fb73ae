//! Tests of takeovers, in which two sessions want one id.

use super::*;

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
        "the next session must wait"
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
fn a_client_with_the_secret_at_another_hub_gets_the_id_before_a_waiting_session() {
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
fn the_client_with_the_stronger_secret_gets_the_id() {
    let mut day = Day::new(8);
    day.router.config.meshed = true;
    let holder = session(0, 0);
    day.opens(holder, 1);
    let root = day.lineage_of(holder).root.0;
    let outdated = |ago| Some(lineage(root, root - ago));
    assert_eq!(day.challenged(1, 1, None), (vec![], vec![]), "the holder is pinged");
    assert_eq!(day.challenged(1, 2, None), (vec![(2, true)], vec![]));
    assert_eq!(
        day.challenged(1, 3, outdated(2)),
        (vec![(1, true)], vec![]),
        "the session with the stronger secret replaces the waiting session"
    );
    assert_eq!(day.challenged(1, 4, outdated(2)), (vec![(4, true)], vec![]));
    assert_eq!(day.challenged(1, 5, outdated(1)), (vec![(3, true)], vec![]));
    day.now += TAKEOVER_GRACE;
    day.router.handle_timeout(Now { at: day.now, wall_ms: WALL_MS });
    let outputs: Vec<Output> = std::iter::from_fn(|| day.router.poll_output()).collect();
    assert_eq!(closed(&outputs), [(holder, CloseReason::Replaced)]);
    assert_eq!(day.router.stats.resumes[ResumeOutcome::Outdated as usize], 3);
}

#[test]
fn a_takeover_is_an_event_if_events_are_requested() {
    for events in [false, true] {
        let mut day = Day::new(8);
        day.router.config.events = events;
        day.opens(session(0, 0), 1);
        let opened = Input::Opened {
            session: session(1, 0),
            peer: peer(1),
            seat: true,
            resume: None,
            owner: false,
            grant: None,
        };
        let opened = outputs(&mut day.router, opened);
        let is_event = |output: &&Output| matches!(output, Output::Event(PeerEvent::TakeoverAsked { .. }));
        assert_eq!(opened.iter().filter(is_event).count(), usize::from(events));
    }
}

#[test]
fn a_session_that_waits_for_another_hub_is_admitted_when_the_peer_has_left_that_hub() {
    let mut day = Day::new(8);
    day.router.config.meshed = true;
    day.hears(ToShard::Elsewhere { peer: peer(1), claim: at_hub(9, 10) });
    day.opens(session(0, 0), 1);
    assert!(!day.router.by_peer.contains_key(&peer(1)));
    day.hears(ToShard::Nowhere { peer: peer(1), claim: at_hub(9, 9) });
    assert!(!day.router.by_peer.contains_key(&peer(1)), "another claim has ended");
    day.hears(ToShard::Nowhere { peer: peer(1), claim: at_hub(9, 10) });
    assert!(day.router.by_peer.contains_key(&peer(1)));
}

#[test]
fn each_question_to_another_hub_has_its_own_ticket() {
    let mut day = Day::new(8);
    day.router.config.meshed = true;
    let tickets: Vec<u64> = (1..=3)
        .filter_map(|n| {
            day.opens(session(n.into(), 0), n);
            let rival = Input::Opened {
                session: session(100 + u32::from(n), 0),
                peer: peer(n),
                seat: true,
                resume: None,
                owner: false,
                grant: None,
            };
            outputs(&mut day.router, rival);
            // The id moves to another hub, and the waiting session asks that hub.
            let claim = day.router.sessions.get(session(n.into(), 0)).unwrap().claim();
            let other = Claim { incarnation: PeerIncarnation(claim.incarnation.0 + 1), hub: HubId(peer(9)) };
            day.hears(ToShard::Elsewhere { peer: peer(n), claim: other }).into_iter().find_map(|output| {
                if let Output::ToMesh(ToMesh::AskTakeover { ticket, .. }) = output { Some(ticket) } else { None }
            })
        })
        .collect();
    assert_eq!(tickets.len(), 3);
    assert!(tickets.windows(2).all(|pair| pair[0] < pair[1]), "{tickets:?}");
}
