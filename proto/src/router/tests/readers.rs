//! Tests of new members that read a roster in chunks.

use super::*;

fn more(outputs: &[Output]) -> Option<bool> {
    outputs.iter().find_map(|output| if let Output::Backlog { more, .. } = output { Some(*more) } else { None })
}

fn takes(day: &mut Day, input: Input<'_>) -> Vec<Output> {
    day.router.handle_input(input, Now { at: day.now, wall_ms: WALL_MS });
    std::iter::from_fn(|| day.router.poll_output()).collect()
}

fn offer(day: &mut Day, from: u8, to: u8) -> Vec<Output> {
    let text = format!(r#"{{"type":"offer","networkName":"n","targetPeerId":"{}"}}"#, peer(to));
    takes(day, Input::Message { session: session(from.into(), 0), text: &text })
}

/// Unbounded members 1 to 5, and the outputs for peer 9, which joins and reads two members at a time.
fn reader() -> (Day, Vec<Output>) {
    let mut day = Day::new(2);
    for n in 1..=5 {
        day.opens(session(n.into(), 0), n);
        day.says(session(n.into(), 0), ANNOUNCE);
    }
    day.opens(session(9, 0), 9);
    let outputs = takes(&mut day, Input::Message { session: session(9, 0), text: ANNOUNCE });
    (day, outputs)
}

#[test]
fn a_roster_is_read_in_chunks_until_its_end() {
    let (mut day, outputs) = reader();
    let mut chunks = vec![(told_to(&outputs, 9).len(), more(&outputs))];
    while chunks.last().unwrap().1 == Some(true) {
        assert!(chunks.len() < 10, "{chunks:?}");
        let outputs = takes(&mut day, Input::Room { session: session(9, 0) });
        chunks.push((told_to(&outputs, 9).len(), more(&outputs)));
    }
    assert_eq!(chunks.iter().map(|(told, _)| told).sum::<usize>(), 5, "each member is announced once: {chunks:?}");
    assert_eq!(chunks[..2], [(2, Some(true)), (2, Some(true))]);
}

#[test]
fn a_member_is_announced_to_a_reader_before_its_first_signal() {
    let (mut day, outputs) = reader();
    assert_eq!(told_to(&outputs, 9).len(), 2);
    let signal = MessageKind::Signal(wire::SignalKind::Offer);
    assert_eq!(told_to(&offer(&mut day, 5, 9), 9), [MessageKind::PeerDiscovered, signal]);
    assert_eq!(told_to(&offer(&mut day, 5, 9), 9), [signal], "the sender is announced only once");
    assert_eq!(told_to(&offer(&mut day, 1, 9), 9), [signal], "member 1 was in the first chunk");
    let (mut rest, mut is_reading) = (Vec::new(), true);
    while is_reading {
        let outputs = takes(&mut day, Input::Room { session: session(9, 0) });
        rest.extend(told_to(&outputs, 9));
        is_reading = more(&outputs) == Some(true);
    }
    assert_eq!(rest.len(), 2, "members 3 and 4 remain");
    // A bounded member is announced once, because the two peers meet.
    let (mut day, _) = reader();
    day.router.config.discovery = Discovery::Closest(1);
    day.opens(session(6, 0), 6);
    day.says(session(6, 0), ANNOUNCE);
    day.router.config.discovery = Discovery::All;
    assert_eq!(told_to(&offer(&mut day, 6, 9), 9), [MessageKind::PeerDiscovered, signal]);
}

#[test]
fn a_reader_of_a_roster_that_fits_into_a_chunk_needs_no_more_room() {
    let mut day = Day::new(8);
    day.opens(session(1, 0), 1);
    let outputs = takes(&mut day, Input::Message { session: session(1, 0), text: ANNOUNCE });
    assert_eq!(more(&outputs), Some(false));
}

#[test]
fn a_network_name_with_spaces_is_sent_unchanged() {
    let mut day = Day::new(8);
    day.opens(session(1, 0), 1);
    day.says(session(1, 0), r#"{"type":"announce","networkName":"a b","ack":true}"#);
    let arena = String::from_utf8_lossy(day.router.arena()).into_owned();
    assert!(arena.contains(r#""networkName":"a b""#), "{arena}");
}
