//! Tests with hubs that check each other's frames.

use proto::envelope::{RouteHeader, Routed};
use proto::{Envelope, HubIncarnation, PeerId};

use super::super::frame::{HEADER, PREFIX};
use super::super::question::ask;
use super::*;

/// A hub on the bridge, and its published frames: their receivers and payloads.
struct Hub {
    id: HubId,
    fresh: Fresh,
    published: Vec<(Option<HubId>, Vec<u8>)>,
}

fn id(n: u16) -> HubId {
    let mut bytes = [0; 20];
    bytes[..2].copy_from_slice(&n.to_le_bytes());
    HubId(PeerId::from_bytes(bytes))
}

impl Hub {
    fn new(n: u16) -> Self {
        Self { id: id(n), fresh: Fresh::new().unwrap(), published: Vec::new() }
    }

    fn publish(&mut self, to: Option<HubId>) -> (Option<HubId>, Vec<u8>) {
        let mut frame = vec![0; PREFIX];
        self.fresh.stamp(to, &mut frame);
        let published = (to, frame.split_off(HEADER));
        self.published.push(published.clone());
        published
    }

    fn receives(&mut self, from: HubId, (to, payload): &(Option<HubId>, Vec<u8>)) -> Judgment {
        self.fresh.judge(from, to.map_or(0, |_| OWN), payload)
    }

    fn rounds(&mut self, n: usize) {
        (0..n as u32 * ROUND_TICKS).for_each(|_| self.fresh.tick());
    }

    fn one_way(&self) -> Vec<HubId> {
        self.fresh.one_way().collect()
    }
}

/// Hub `a` publishes a frame for all hubs. Then `a` and `b` answer each other until no answer is due.
fn say(a: &mut Hub, b: &mut Hub) -> Judgment {
    let mut frame = a.publish(None);
    let judgment = b.receives(a.id, &frame);
    let (mut from, mut to) = (a, b);
    let mut answer = judgment.answer;
    while answer {
        std::mem::swap(&mut from, &mut to);
        frame = from.publish(Some(to.id));
        answer = to.receives(from.id, &frame).answer;
    }
    judgment
}

/// Two hubs that accept each other's frames.
fn two() -> (Hub, Hub) {
    let (mut a, mut b) = (Hub::new(1), Hub::new(2));
    assert!(!say(&mut a, &mut b).taken);
    assert!(say(&mut a, &mut b).taken && say(&mut b, &mut a).taken);
    (a, b)
}

/// Publishes all frames of a hub again, and checks that none is accepted.
fn nothing_is_taken(recorded: &Hub, by: &mut Hub) {
    for _ in 0..2 {
        for frame in &recorded.published {
            let judgment = by.receives(recorded.id, frame);
            assert!(!judgment.taken && !judgment.met && !judgment.twins, "{judgment:?}");
        }
    }
}

#[test]
fn a_hub_that_has_answered_has_its_frames_accepted_once_and_in_order() {
    let (mut a, mut b) = two();
    let early = a.publish(None);
    let late = a.publish(None);
    let own = a.publish(Some(b.id));
    assert!(b.receives(a.id, &late).taken);
    for old in [&early, &late] {
        assert_eq!(b.receives(a.id, old), Judgment { repeated: true, ..Judgment::default() });
    }
    assert!(b.receives(a.id, &own).taken, "each channel has its own count");
    assert!(b.receives(a.id, &own).repeated);
}

#[test]
fn no_hub_accepts_recorded_frames() {
    let (a, mut b) = two();
    nothing_is_taken(&a, &mut b);
    // The recorded frames are also rejected by hubs that have just started or reconnected, or that have forgotten the
    // sender.
    nothing_is_taken(&a, &mut Hub::new(3));
    nothing_is_taken(&a, &mut Hub::new(2));
    b.rounds(20);
    assert!(!b.fresh.hubs.contains_key(&a.id));
    nothing_is_taken(&a, &mut b);
}

#[test]
fn frames_older_than_the_first_answer_are_rejected() {
    let mut a = Hub::new(1);
    let old = a.publish(None);
    let mut b = Hub::new(2);
    say(&mut a, &mut b);
    assert!(b.receives(a.id, &old).repeated);
    assert!(say(&mut a, &mut b).taken);
}

#[test]
fn an_ended_session_is_rejected() {
    let (first, mut b) = two();
    let mut second = Hub::new(1);
    say(&mut second, &mut b);
    assert!(say(&mut second, &mut b).taken);
    nothing_is_taken(&first, &mut b);
    assert!(say(&mut second, &mut b).taken);
    b.rounds(BRIDGE_CHALLENGES);
    nothing_is_taken(&first, &mut b);
}

#[test]
fn two_live_hubs_with_one_id_are_noticed_once() {
    let (mut first, mut b) = two();
    let mut second = Hub::new(1);
    say(&mut second, &mut b);
    let mut noticed = 0;
    for _ in 0..5 {
        b.rounds(1);
        say(&mut b, &mut second);
        let frame = b.publish(None);
        first.receives(b.id, &frame);
        let answer = first.publish(Some(b.id));
        let judgment = b.receives(first.id, &answer);
        noticed += u32::from(judgment.twins);
        assert!(judgment.taken && say(&mut second, &mut b).taken, "the bridge accepts frames of both hubs");
    }
    assert_eq!(noticed, 1);
}

#[test]
fn a_hub_that_stops_answering_is_rejected() {
    let (mut a, mut b) = two();
    let mut taken = 0;
    for _ in 0..BRIDGE_CHALLENGES + 3 {
        b.rounds(1);
        let frame = a.publish(None);
        taken += usize::from(b.receives(a.id, &frame).taken);
    }
    assert_eq!(taken, BRIDGE_CHALLENGES - 1);
    assert_eq!(b.one_way(), [a.id]);
    // The hub receives frames again.
    say(&mut b, &mut a);
    assert!(say(&mut a, &mut b).taken);
    assert!(b.one_way().is_empty());
    // A hub whose frames have stopped arriving is not one-way.
    b.rounds(20);
    assert!(b.one_way().is_empty());
}

#[test]
fn a_stopped_process_accepts_the_frames_that_arrived_meanwhile() {
    let (mut a, mut b) = two();
    for _ in 0..20 {
        a.rounds(1);
        b.rounds(1);
        assert!(say(&mut a, &mut b).taken && say(&mut b, &mut a).taken);
    }
    // Hub `a` publishes these frames while hub `b` is stopped.
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            a.rounds(1);
            a.publish(None)
        })
        .collect();
    for frame in &waiting {
        assert!(b.receives(a.id, frame).taken);
    }
}

/// A frame of a hub of version 2.0.
fn plain(to: Option<HubId>, envelopes: &[Envelope]) -> (Option<HubId>, Vec<u8>) {
    let mut payload = Vec::new();
    envelopes.iter().for_each(|envelope| envelope.encode(&mut payload));
    (to, payload)
}

fn beat() -> Envelope {
    Envelope::Farewell(id(1), HubIncarnation(7))
}

/// The immediate answer of a hub of version 2.0, which does not have the incarnation that the question names.
fn answer(question: Question) -> Envelope {
    let Envelope::Routed(route, routed) = ask(question, id(1), id(2)) else { unreachable!() };
    let Routed::Takeover { peer, ticket, .. } = *routed else { unreachable!() };
    let back = RouteHeader { to: route.from, from: route.to, hops: 1, ..route };
    Envelope::Routed(back, Box::new(Routed::TakeoverAnswer { peer, ticket, in_use: false }))
}

#[test]
fn a_hub_of_version_2_0_is_accepted_while_it_answers_questions() {
    let (old, mut b) = (id(1), Hub::new(2));
    let everyone = plain(None, &[beat()]);
    let judgment = b.receives(old, &everyone);
    let question = judgment.ask.unwrap();
    assert!(!judgment.taken);
    let asked = (0..100).filter(|_| b.receives(old, &everyone).ask.is_some()).count();
    assert_eq!(asked, usize::from(SPARE_ANSWERS));
    b.fresh.tick();
    let question = b.receives(old, &everyone).ask.unwrap_or(question);
    let reply = plain(Some(b.id), &[beat(), answer(question)]);
    let judgment = b.receives(old, &reply);
    assert!(judgment.taken && judgment.met);
    assert!(b.receives(old, &everyone).taken);
    // The hub is asked again with each challenge, and is accepted while it answers one of the latest questions.
    let mut taken = 0;
    for _ in 0..BRIDGE_CHALLENGES + 3 {
        b.rounds(1);
        let judgment = b.receives(old, &everyone);
        assert!(judgment.ask.is_some());
        taken += usize::from(judgment.taken);
    }
    assert_eq!(taken, BRIDGE_CHALLENGES - 1);
    assert_eq!(b.one_way(), [old]);
    // An answer to an earlier question does not answer the current question.
    let judgment = b.receives(old, &reply);
    assert!(!judgment.taken && !judgment.met);
    assert!(!Hub::new(3).receives(old, &reply).taken);
}

#[test]
fn a_hub_of_version_2_0_may_answer_over_a_link() {
    let (old, mut b) = (id(1), Hub::new(2));
    let question = b.receives(old, &plain(None, &[beat()])).ask.unwrap();
    assert!(!b.fresh.answered(old, &(question.0, question.1 ^ 1)));
    assert!(!b.fresh.answered(id(3), &question));
    assert!(b.fresh.answered(old, &question));
    assert!(b.receives(old, &plain(None, &[beat()])).taken);
}

#[test]
fn frames_without_stamps_are_refused_once_a_hub_sends_stamps() {
    let (old, mut b) = (id(1), Hub::new(2));
    let frame = plain(None, &[beat()]);
    let question = b.receives(old, &frame).ask.unwrap();
    let reply = plain(Some(b.id), &[answer(question)]);
    assert!(b.receives(old, &reply).taken);
    let mut new = Hub::new(1);
    say(&mut new, &mut b);
    let judgment = b.receives(old, &frame);
    assert!(!judgment.taken);
    assert!(!b.receives(old, &reply).taken);
    // Like every hub, this hub answers the bridge's questions over links.
    b.fresh.tick();
    let question = b.receives(old, &frame).ask.unwrap();
    assert!(!b.fresh.answered(old, &question));
    assert!(!b.receives(old, &frame).taken && say(&mut new, &mut b).taken);
}

#[test]
fn state_that_other_hubs_can_grow_is_bounded() {
    let mut b = Hub::new(0);
    let mut last = Hub::new(1);
    for n in 1..=MAX_HUBS as u16 + 5 {
        last = Hub::new(n);
        let frame = last.publish(None);
        b.receives(last.id, &frame);
    }
    assert_eq!(b.fresh.hubs.len(), MAX_HUBS);
    // The hub `last` did not receive the answer to its first challenge. The two hubs answer each other after the next
    // challenge.
    last.rounds(1);
    say(&mut last, &mut b);
    assert!(say(&mut last, &mut b).taken);

    // Recorded frames of many sessions are answered only a few times. Frames of the current session are always
    // answered.
    b.fresh.tick();
    let mut answers = 0;
    for _ in 0..100 {
        let other = Hub { id: last.id, ..Hub::new(1) }.publish(None);
        answers += u8::from(b.receives(last.id, &other).answer);
    }
    assert_eq!(answers, SPARE_ANSWERS);
    last.rounds(1);
    assert!(say(&mut last, &mut b).answer);

    b.fresh.tick();
    let mut lives = 1;
    for _ in 0..2 * BRIDGE_SESSIONS {
        let mut next = Hub { id: last.id, ..Hub::new(1) };
        say(&mut next, &mut b);
        lives += usize::from(say(&mut next, &mut b).taken);
        b.fresh.hubs.get_mut(&last.id).unwrap().spare_answers = SPARE_ANSWERS;
    }
    assert_eq!((lives, b.fresh.hubs[&last.id].sessions.len()), (BRIDGE_SESSIONS, BRIDGE_SESSIONS));
    b.rounds(BRIDGE_CHALLENGES + 1);
    say(&mut last, &mut b);
    assert!(say(&mut last, &mut b).taken);
}
