//! Tests of the counters and gauges for operators, and of the limits of one session.

use super::*;
use crate::limits::{DEFAULT_ERROR_RATE, ERROR_BURST_SECS, MEMBER_BYTES};

const ERROR_BURST: u64 = DEFAULT_ERROR_RATE as u64 * ERROR_BURST_SECS;

/// Passes an input and returns all outputs.
fn outputs(day: &mut Day, input: Input<'_>) -> Vec<Output> {
    day.router.handle_input(input, Now { at: day.now, wall_ms: WALL_MS });
    std::iter::from_fn(|| day.router.poll_output()).collect()
}

fn sends(day: &mut Day, session: SessionId, text: &str) -> Vec<Output> {
    outputs(day, Input::Message { session, text })
}

#[test]
fn messages_and_errors_are_counted_and_errors_beyond_the_burst_are_withheld() {
    let mut day = Day::new(8);
    day.opens(session(0, 0), 1);
    let wrong = ERROR_BURST + 7;
    for _ in 0..wrong {
        day.says(session(0, 0), "{");
    }
    day.says(session(0, 0), r#"{"type":"ping"}"#);
    let stats = day.router.stats();
    assert_eq!((stats.errors.iter().sum::<u64>(), stats.errors_withheld), (ERROR_BURST, 7));
    assert_eq!(stats.messages_in[MessageKind::Invalid.index()], wrong);
    assert_eq!(stats.messages_in[MessageKind::Ping.index()], 1);
    assert_eq!(stats.messages_in.iter().sum::<u64>(), wrong + 1);
}

#[test]
fn announced_bytes_are_the_bytes_of_the_latest_announcements() {
    let mut day = Day::new(8);
    day.opens(session(0, 0), 1);
    let bytes = |day: &mut Day| day.router.stats().announced_bytes;
    let announce =
        |data: &str, network: &str| format!(r#"{{"type":"announce","networkName":"{network}","data":{data}}}"#);
    let (short, long) = (r#"{"a":1}"#, r#"{"a":"a longer description of the peer"}"#);
    let counted = [short, long, long, short].map(|data| {
        day.says(session(0, 0), &announce(data, "n"));
        bytes(&mut day)
    });
    let more = (long.len() - short.len()) as u64;
    let one = counted[0];
    assert_eq!(counted, [one, one + more, one + more, one]);
    assert!(one > (MEMBER_BYTES + short.len()) as u64 && one < (MEMBER_BYTES + short.len()) as u64 + 400, "{one}");
    day.says(session(0, 0), &announce(long, "m"));
    assert!(bytes(&mut day) > one + MEMBER_BYTES as u64);
    day.says(session(0, 0), r#"{"type":"goodbye","networkName":"m"}"#);
    assert_eq!(bytes(&mut day), one);
    day.closes(session(0, 0));
    assert_eq!(bytes(&mut day), 0);
}

#[test]
fn a_receipt_without_an_outcome_says_unknown_after_the_timeout() {
    let (mut day, at) = Day::meshed(0);
    let (sender, target) = (at(0, 20), at(1, 20));
    day.opens(session(0, 0), sender);
    let text = format!(r#"{{"type":"offer","targetPeerId":"{}","id":"x"}}"#, peer(target));
    let sent = sends(&mut day, session(0, 0), &text);
    let letter = |output: &Output| {
        let Output::ToShard { letter: ToShard::Signal(letter), .. } = output else { return None };
        Some(letter.origin.clone())
    };
    let origin = sent.iter().find_map(letter).unwrap();
    assert_eq!(day.router.poll_timeout(), Some(day.now + RECEIPT_TIMEOUT));
    day.now += RECEIPT_TIMEOUT - Duration::from_millis(1);
    let early = Now { at: day.now, wall_ms: WALL_MS };
    day.router.handle_timeout(early);
    assert!(day.router.poll_output().is_none());
    day.now += Duration::from_millis(1);
    day.router.handle_timeout(Now { at: day.now, wall_ms: WALL_MS });
    let kinds: Vec<Output> = std::iter::from_fn(|| day.router.poll_output()).collect();
    assert_eq!(told(&kinds), [MessageKind::Receipt]);
    let stats = day.router.stats();
    assert_eq!((stats.failed[ErrorCode::Unknown as usize], stats.open_receipts, stats.late_outcomes), (1, 0, 0));
    let outcome = OutcomeLetter { origin, target: peer(target), outcome: Outcome::Delivered };
    assert!(day.hears(ToShard::Outcome(outcome)).is_empty(), "the sender has its receipt");
    let stats = day.router.stats();
    assert_eq!((stats.late_outcomes, stats.delivered, stats.outcomes()), (1, 0, 1));
}

#[test]
fn go_away_names_a_network_of_the_peer() {
    let mut day = Day::new(8);
    day.opens(session(0, 0), 1);
    day.says(session(0, 0), ANNOUNCE);
    let hubs = ["wss://other.example".to_owned()];
    let (close_in, reconnect_in) = (Duration::from_millis(1_500), Duration::from_millis(2_700));
    let input = Input::GoAway { session: session(0, 0), close_in, reconnect_in, hubs: &hubs };
    let sent = outputs(&mut day, input);
    assert_eq!(told(&sent), [MessageKind::GoAway]);
    let text = String::from_utf8_lossy(day.router.arena()).into_owned();
    for part in [r#""networkName":"n""#, "\"closeInMs\":1500", "\"reconnectInMs\":2700", "wss://other.example"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let unknown = Input::GoAway { session: session(9, 0), close_in, reconnect_in, hubs: &hubs };
    assert!(outputs(&mut day, unknown).is_empty());
}

#[test]
fn a_signal_is_counted_once_with_the_time_it_took() {
    let mut day = Day::new(8);
    for (n, id) in [(1, session(0, 0)), (2, session(1, 0))] {
        day.opens(id, n);
    }
    let text = format!(r#"{{"type":"offer","targetPeerId":"{}"}}"#, peer(2));
    let sent = sends(&mut day, session(0, 0), &text);
    let origin = sent.iter().find_map(|output| {
        let Output::Send { origin: Some(origin), .. } = output else { return None };
        Some(origin.clone())
    });
    let took = Duration::from_micros(30);
    day.now += took;
    day.input(Input::Delivered { origin: origin.unwrap(), target: peer(2) });
    let stats = day.router.stats();
    let bucket = RouterStats::LATENCY_BOUNDS.iter().position(|&bound| bound >= 30).unwrap();
    assert_eq!((stats.delivered, stats.outcomes(), stats.latency[bucket]), (1, 1, 1));
    assert_eq!(stats.latency.iter().sum::<u64>(), 1);
    assert_eq!(RouterStats::latency_bucket(Duration::from_micros(10)), 0, "bounds are inclusive");
    assert_eq!(RouterStats::latency_bucket(Duration::from_micros(11)), 1);
    assert_eq!(RouterStats::latency_bucket(Duration::from_secs(60)), RouterStats::LATENCY_BOUNDS.len());
}
