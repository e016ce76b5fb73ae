//! Tests of leaves in slices.

use super::*;

/// Passes an input. Returns its outputs for sockets, as "session kind network", and whether work remains.
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

/// A router with two peers in the networks a to d. The router notifies the members of one network per turn.
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
    // A later session of the peer joins a network whose roster still has the first session. The router must not confuse
    // the two sessions.
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
fn a_peer_that_returns_during_its_sliced_leave_stays_a_member() {
    let (mut day, leaver, other) = in_four_networks();
    let (first, unfinished) = said(&mut day, Input::Message { session: leaver, text: r#"{"type":"goodbye"}"# });
    assert!(unfinished && first == ["1 goodbye a"], "{first:?}");
    // The leaver receives no more events of networks that it has left.
    let (news, _) = said(&mut day, Input::Message { session: other, text: r#"{"type":"announce","networkName":"c"}"# });
    assert_eq!(news, ["1 peer-discovered c"]);
    let (back, _) =
        said(&mut day, Input::Message { session: leaver, text: r#"{"type":"announce","networkName":"b"}"# });
    assert_eq!(
        back[..2],
        ["1 goodbye b", "1 goodbye c"],
        "the leave from this network and one other leave are finished"
    );
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
