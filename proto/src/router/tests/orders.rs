//! Tests of operators' orders.

use super::*;

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
    // Session 1 was removed already, and joins again. Another session, whose slot has not been examined yet, joins,
    // too.
    says(&mut day, 1, r#"{"type":"announce","networkName":"n"}"#);
    says(&mut day, many - 2, r#"{"type":"announce","networkName":"n"}"#);
    let second = outputs(&mut day.router, Input::Continue);
    let acted = second.iter().filter_map(|output| if let Output::Acted(acted) = output { Some(*acted) } else { None });
    assert_eq!(acted.collect::<Vec<_>>(), [Acted::Closed { members: 3, excluded: true }]);
    while day.router.unfinished {
        outputs(&mut day.router, Input::Continue);
    }
    let ix = day.router.rosters.find("n").unwrap();
    assert_eq!(
        day.router.rosters.network(ix).map(|network| network.len()),
        Some(2),
        "sessions that joined after the order stay"
    );
    day.router.audit();
}

#[test]
fn a_peer_that_is_removed_from_a_network_receives_an_error() {
    let mut day = Day::new(8);
    for n in 1..=2 {
        day.opens(session(n.into(), 0), n);
        day.says(session(n.into(), 0), ANNOUNCE);
    }
    let network = Some(NetworkName::new("n"));
    let kicked = outputs(&mut day.router, Input::Order(Order::Kick { peer: peer(1), network, out_for: None }));
    assert_eq!(told_to(&kicked, 1), [MessageKind::Error]);
    assert_eq!(told_to(&kicked, 2), [MessageKind::Goodbye]);
    assert_eq!(day.router.stats().errors[ErrorCode::Kicked as usize], 1);
}

#[test]
fn a_draining_hub_closes_admitted_and_waiting_sessions() {
    let mut day = Day::new(8);
    day.opens(session(0, 0), 1);
    // The second session waits for the id.
    day.opens(session(1, 0), 1);
    for n in [1, 0] {
        let retired = outputs(&mut day.router, Input::Retire { session: session(n, 0) });
        assert_eq!(closed(&retired), [(session(n, 0), CloseReason::Draining)]);
    }
}
