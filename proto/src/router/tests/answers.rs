//! Tests of the answers to messages that a router refuses, and of sessions that ignore these answers.

use serde_json::Value;

use super::*;
use crate::budget::BudgetOwner;
use crate::limits::{MAX_ANNOUNCE_DEPTH, RATE_LIMIT_PATIENCE, RATE_LIMIT_PAUSE};
use crate::{sentences, ws};

/// The messages from the hub to a session in answer to this text.
fn answers(day: &mut Day, session: SessionId, text: &str) -> Vec<Value> {
    day.router.handle_input(Input::Message { session, text }, Now { at: day.now, wall_ms: WALL_MS });
    let outputs: Vec<Output> = std::iter::from_fn(|| day.router.poll_output()).collect();
    let arena = day.router.arena();
    let sent = outputs.iter().filter_map(|output| {
        let Output::Send { session: to, frame: Frame::Arena(range), .. } = output else { return None };
        (*to == session).then(|| serde_json::from_slice(ws::payload(&arena[range.clone()])).unwrap())
    });
    sent.collect()
}

/// A field of a message, or of its data.
fn field(message: &Value, name: &str) -> String {
    let found = message.get(name).or_else(|| message["data"].get(name));
    found.map_or(String::new(), |value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// A router with one session, whose budget allows one unit of `item` per second. The session has announced itself and
/// has sent a ping.
fn exhausted(item: BudgetItem) -> Day {
    let mut day = Day::new(8);
    day.now = Duration::from_secs(1_000_000);
    day.opens(session(0, 0), 1);
    day.says(session(0, 0), ANNOUNCE);
    day.router.config.budget = day.router.config.budget.with(item, Allowance::new(1, 1));
    day.says(session(0, 0), r#"{"type":"ping"}"#);
    day
}

#[test]
fn the_answer_to_a_message_over_budget_names_its_type_and_network() {
    let target = peer(9);
    let mut day = exhausted(BudgetItem::Messages);
    for (text, in_reply_to, network) in [
        (r#"{"type":"announce","networkName":"m"}"#.to_owned(), "announce", "m"),
        (r#"{"type":"discover","networkName":"m"}"#.to_owned(), "discover", "m"),
        (r#"{"type":"goodbye","networkName":"m"}"#.to_owned(), "goodbye", "m"),
        (r#"{"type":"ping"}"#.to_owned(), "ping", "n"),
        (format!(r#"{{"type":"offer","targetPeerId":"{target}","networkName":"m"}}"#), "offer", "m"),
        (r#"{"type":"unheard-of"}"#.to_owned(), "unheard-of", "global"),
        ("{".to_owned(), "", "n"),
    ] {
        let [answer] = &answers(&mut day, session(0, 0), &text)[..] else { panic!("{text}") };
        let named = ["type", "code", "inReplyTo", "networkName"].map(|name| field(answer, name));
        assert_eq!(named, ["error", "rate-limited", in_reply_to, network], "{text}: {answer}");
        assert!(field(answer, "retryInMs").parse::<u64>().is_ok_and(|wait| wait > 0), "{answer}");
    }
    assert_eq!(day.router.stats().failed[ErrorCode::RateLimited as usize], 1, "the refused offer is counted");
    let offer = format!(r#"{{"type":"offer","targetPeerId":"{target}","networkName":"m","id":"x"}}"#);
    let [receipt] = &answers(&mut day, session(0, 0), &offer)[..] else { panic!() };
    let named = ["type", "id", "networkName"].map(|name| field(receipt, name));
    assert_eq!(named, ["receipt", "x", "m"], "{receipt}");
    assert_eq!(day.router.stats().failed[ErrorCode::RateLimited as usize], 2);
}

#[test]
fn the_sentence_about_an_exceeded_budget_names_its_setting() {
    use BudgetItem::{Announcements, Bytes, Events, Messages, Pages};
    let again = r#"{"type":"announce","networkName":"n","data":{"a":1}}"#;
    for (item, text, sentence) in [
        (Messages, r#"{"type":"ping"}"#, ErrorCode::RateLimited.explain()),
        (Bytes, r#"{"type":"ping"}"#, sentences::TOO_MANY_BYTES),
        (Announcements, again, sentences::ANNOUNCED_TOO_OFTEN),
        (Events, again, sentences::TOO_MANY_EVENTS),
        (Pages, r#"{"type":"discover","networkName":"n"}"#, sentences::DISCOVERS_TOO_OFTEN),
    ] {
        let mut day = exhausted(item);
        let last = (0..3).filter_map(|_| answers(&mut day, session(0, 0), text).pop()).last();
        assert_eq!(field(&last.unwrap(), "message"), sentence, "{item:?}");
        assert!(day.router.stats().exceeded[BudgetOwner::Session as usize][item as usize] > 0, "{item:?}");
    }
}

/// Sends this text four times per [`RATE_LIMIT_PAUSE`]. Returns the time after which the session is closed.
fn closed_after(day: &mut Day, text: &str) -> Option<Duration> {
    let began = day.now;
    while day.now < began + 2 * RATE_LIMIT_PATIENCE {
        day.router.handle_input(Input::Message { session: session(0, 0), text }, Now { at: day.now, wall_ms: WALL_MS });
        let outputs: Vec<Output> = std::iter::from_fn(|| day.router.poll_output()).collect();
        if let [(_, reason)] = closed(&outputs)[..] {
            assert_eq!(reason, CloseReason::RateLimited);
            return Some(day.now - began);
        }
        day.now += RATE_LIMIT_PAUSE / 4;
    }
    None
}

#[test]
fn a_session_that_ignores_refusals_for_long_is_closed() {
    let mut day = exhausted(BudgetItem::Messages);
    // One message per second is accepted. The time between two refused messages is always shorter than a pause.
    let after = closed_after(&mut day, r#"{"type":"ping"}"#).unwrap();
    assert!(after >= RATE_LIMIT_PATIENCE && after < RATE_LIMIT_PATIENCE + RATE_LIMIT_PAUSE, "{after:?}");
}

#[test]
fn a_session_that_sends_invalid_messages_is_closed_only_if_their_errors_are_withheld() {
    for (errors, is_closed) in [(1, true), (1_000, false)] {
        let mut day = exhausted(BudgetItem::Pages);
        day.router.config.budget =
            day.router.config.budget.with(BudgetItem::Errors, Allowance::new(errors, errors * 10));
        assert_eq!(closed_after(&mut day, "{").is_some(), is_closed, "{errors} errors per second");
    }
}

#[test]
fn a_signal_with_an_id_that_is_not_a_string_is_relayed_and_reported() {
    let mut day = Day::new(8);
    for n in 1..=2 {
        day.opens(session(n.into(), 0), n);
    }
    let offer = format!(r#"{{"type":"offer","targetPeerId":"{}","id":5}}"#, peer(2));
    let [error] = &answers(&mut day, session(1, 0), &offer)[..] else { panic!("the answer is not one error") };
    let named = ["code", "message", "inReplyTo"].map(|name| field(error, name));
    assert_eq!(named, ["invalid-message", sentences::ID_NOT_A_STRING, "offer"]);
    let input = Input::Message { session: session(1, 0), text: &offer };
    day.router.handle_input(input, Now { at: day.now, wall_ms: WALL_MS });
    let outputs: Vec<Output> = std::iter::from_fn(|| day.router.poll_output()).collect();
    assert!(told(&outputs).contains(&MessageKind::Signal(wire::SignalKind::Offer)));
}

#[test]
fn announced_data_and_goodbye_data_are_refused_if_nested_too_deep() {
    let mut day = Day::new(8);
    day.opens(session(0, 0), 1);
    day.says(session(0, 0), ANNOUNCE);
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(MAX_ANNOUNCE_DEPTH), "]".repeat(MAX_ANNOUNCE_DEPTH));
    for kind in ["announce", "goodbye"] {
        let text = format!(r#"{{"type":"{kind}","networkName":"n","data":{deep}}}"#);
        let [error] = &answers(&mut day, session(0, 0), &text)[..] else { panic!("{kind}") };
        let named = ["code", "message", "inReplyTo", "networkName"].map(|name| field(error, name));
        assert_eq!(named, ["invalid-message", sentences::PUBLIC_DATA_TOO_DEEP, kind, "n"]);
    }
    assert_eq!(day.router.rosters.members(), 1, "the peer has not left");
}

#[test]
fn a_peer_joins_a_bounded_number_of_networks_and_only_networks_with_room() {
    let mut day = Day::new(8);
    day.router.config.max_networks_per_peer = 2;
    day.router.config.max_peers_per_network = 1;
    for n in 1..=2 {
        day.opens(session(n.into(), 0), n);
    }
    let announce = |day: &mut Day, n: u8, network: &str| {
        let text = format!(r#"{{"type":"announce","networkName":"{network}","ack":true}}"#);
        let answers = answers(day, session(n.into(), 0), &text);
        answers.iter().map(|answer| (field(answer, "code"), field(answer, "count"))).collect::<Vec<_>>()
    };
    let (joined, refused) =
        (vec![(String::new(), "0".to_owned())], |code: &str| vec![(code.to_owned(), String::new())]);
    assert_eq!(announce(&mut day, 1, "a"), joined);
    assert_eq!(announce(&mut day, 2, "a"), refused("network-full"));
    assert_eq!(announce(&mut day, 1, "b"), joined);
    assert_eq!(announce(&mut day, 1, "c"), refused("too-many-networks"));
    assert_eq!(announce(&mut day, 1, "a"), joined, "the peer is a member already");
    assert_eq!(announce(&mut day, 2, "c"), joined);
}

#[test]
fn the_answer_to_an_announcement_counts_the_members_that_the_peer_has_discovered() {
    let mut day = Day::new(8);
    let ack = r#"{"type":"announce","networkName":"n","ack":true}"#;
    let count = |day: &mut Day, n: u8| {
        day.opens(session(n.into(), 0), n);
        let answers = answers(day, session(n.into(), 0), ack);
        assert_eq!(answers.len(), 1, "only the answer is in the arena, not the roster");
        field(&answers[0], "count")
    };
    assert_eq!([1, 2, 3].map(|n| count(&mut day, n)), ["0", "1", "2"]);
    // A bounded peer discovers its picks. Each pick discovers the bounded peer in addition to the unbounded members.
    day.router.config.discovery = Discovery::Closest(2);
    day.router.config.tuning.random_picks = 0;
    assert_eq!(count(&mut day, 4), "2");
    let picked: Vec<String> = (1..=3).map(|n| field(&answers(&mut day, session(n, 0), ack)[0], "count")).collect();
    assert_eq!(picked.iter().filter(|count| *count == "3").count(), 2, "{picked:?}");
}

#[test]
fn each_announcement_is_an_event_if_events_are_requested() {
    for events in [true, false] {
        let mut day = Day::new(8);
        day.router.config.events = events;
        day.opens(session(0, 0), 1);
        let input = Input::Message { session: session(0, 0), text: ANNOUNCE };
        day.router.handle_input(input, Now { at: day.now, wall_ms: WALL_MS });
        let announced = |output: &Output| matches!(output, Output::Event(PeerEvent::Announced { peer: of, members: 1, .. }) if *of == peer(1));
        let outputs: Vec<Output> = std::iter::from_fn(|| day.router.poll_output()).collect();
        assert_eq!(outputs.iter().any(announced), events);
    }
}

#[test]
fn a_signal_needs_a_network_of_both_peers() {
    let mut day = Day::new(8);
    for n in 1..=2 {
        day.opens(session(n.into(), 0), n);
    }
    day.says(session(1, 0), ANNOUNCE);
    let failures = |day: &mut Day, from: u32, network: &str| {
        let target = peer(3 - from as u8);
        day.says(
            session(from, 0),
            &format!(r#"{{"type":"offer","targetPeerId":"{target}","networkName":"{network}"}}"#),
        );
        day.router.stats().failed[ErrorCode::WrongNetwork as usize]
    };
    assert_eq!(failures(&mut day, 1, "n"), 1, "the target is in no network, and the signal is not for `global`");
    day.says(session(2, 0), r#"{"type":"announce","networkName":"m"}"#);
    assert_eq!(failures(&mut day, 1, "n"), 2);
    assert_eq!(failures(&mut day, 2, "m"), 3);
    day.says(session(2, 0), ANNOUNCE);
    assert_eq!(failures(&mut day, 1, "n"), 3, "both peers are in the network");
}

#[test]
fn a_member_of_many_networks_receives_signals_in_each() {
    let mut day = Day::new(8);
    day.router.config.max_networks_per_peer = 10;
    for n in 1..=2 {
        day.opens(session(n.into(), 0), n);
        for network in 0..6 {
            day.says(session(n.into(), 0), &format!(r#"{{"type":"announce","networkName":"{network}"}}"#));
        }
    }
    for network in 0..6 {
        let target = peer(2);
        let text = format!(r#"{{"type":"offer","targetPeerId":"{target}","networkName":"{network}"}}"#);
        day.router.handle_input(
            Input::Message { session: session(1, 0), text: &text },
            Now { at: day.now, wall_ms: WALL_MS },
        );
        let outputs: Vec<Output> = std::iter::from_fn(|| day.router.poll_output()).collect();
        assert_eq!(told(&outputs), [MessageKind::Signal(wire::SignalKind::Offer)], "{network}");
    }
}

#[test]
fn a_pinged_session_that_answers_keeps_its_id() {
    let mut day = Day::new(8);
    day.opens(session(0, 0), 1);
    let opened =
        Input::Opened { session: session(1, 0), peer: peer(1), seat: true, resume: None, owner: false, grant: None };
    day.router.handle_input(opened, Now { at: day.now, wall_ms: WALL_MS });
    let ping = std::iter::from_fn(|| day.router.poll_output()).find_map(|output| {
        if let Output::Ping { session, payload } = output { Some((session, payload)) } else { None }
    });
    let (pinged, payload) = ping.unwrap();
    assert_eq!(pinged, session(0, 0));
    let mut pong = |payload: &[u8], of: SessionId| {
        day.router.handle_input(Input::Pong { session: of, payload }, Now { at: day.now, wall_ms: WALL_MS });
        closed(&std::iter::from_fn(|| day.router.poll_output()).collect::<Vec<_>>())
    };
    assert_eq!(pong(b"anything", session(0, 0)), []);
    assert_eq!(pong(&payload, session(1, 0)), [], "a pong of the new session has no effect");
    assert_eq!(pong(&payload, session(0, 0)), [(session(1, 0), CloseReason::IdInUse)]);
    assert_eq!(day.router.stats().takeovers, [0, 1]);
}

#[test]
#[should_panic(expected = "impossible state outputs-left: 1 outputs")]
fn outputs_that_are_left_for_the_next_input_are_detected() {
    let mut day = Day::new(8);
    day.opens(session(0, 0), 1);
    for _ in 0..2 {
        let input = Input::Message { session: session(0, 0), text: r#"{"type":"ping"}"# };
        day.router.handle_input(input, Now { at: day.now, wall_ms: WALL_MS });
    }
}

#[test]
fn a_signal_over_the_budget_of_its_network_is_answered_with_its_target_and_id() {
    let mut day = Day::new(8);
    day.now = Duration::from_secs(1_000_000);
    day.opens(session(0, 0), 1);
    day.says(session(0, 0), ANNOUNCE);
    day.router.config.network_budget =
        day.router.config.network_budget.with(BudgetItem::Messages, Allowance::new(1, 1));
    day.router.config.budget = day.router.config.budget.with(BudgetItem::Messages, Allowance::new(1, 100));
    for _ in 0..60 {
        day.says(session(0, 0), r#"{"type":"ping"}"#);
    }
    let offer = |id: &str| format!(r#"{{"type":"offer","targetPeerId":"{}","networkName":"n"{id}}}"#, peer(9));
    let exceeded = |day: &mut Day| day.router.stats().exceeded[BudgetOwner::Network as usize][0];
    day.says(session(0, 0), &offer(""));
    assert_eq!(exceeded(&mut day), 0, "the network's budget allows one message");
    for (id, kind) in [("", "error"), (r#","id":"x""#, "receipt")] {
        let [answer] = &answers(&mut day, session(0, 0), &offer(id))[..] else { panic!("{id}") };
        assert_eq!(field(answer, "type"), kind, "{answer}");
        assert!(answer["data"].to_string().contains(&peer(9).to_string()), "{answer}");
        assert!(id.is_empty() || field(answer, "id") == "x", "{answer}");
    }
    assert_eq!(exceeded(&mut day), 2);
}
