//! Tests of a hub that receives heartbeats of another incarnation of its own id, or of the id of a known hub.

use super::*;
use crate::envelope::Heartbeat;
use crate::limits::{
    CONTEST_PAUSE, GREATEST_TIME_FOLLOWED, LINK_SILENCE, MAX_CONTEST_HEARTBEATS, RIVAL_EVIDENCE, RIVAL_PATIENCE,
    RIVAL_YIELD,
};

/// Maximum number of milliseconds by which an incarnation is later than the ended incarnation that it follows.
const ABOUT_A_MINUTE: u64 = 1 << 16;

/// Passes a heartbeat to hub `n` over its link with hub `from`. Returns the heartbeats that hub `n` then sends, each
/// with its receiver.
fn hears_beat(net: &mut Net, n: u8, from: u8, beat: Heartbeat) -> Vec<(u8, Heartbeat)> {
    let sent = beats_after(net, n, from, beat);
    net.run();
    sent
}

/// Like [`hears_beat`], but the sent heartbeats do not arrive at their receivers yet.
fn beats_after(net: &mut Net, n: u8, from: u8, beat: Heartbeat) -> Vec<(u8, Heartbeat)> {
    let via = Hop::Link(net.hubs[&n].links.used_for(&hub(from)).unwrap());
    net.input(n, RelayInput::Received { via, envelope: Envelope::Heartbeat(Arc::new(beat)) });
    let sent = net.under_way.iter().filter_map(|(to, _, envelope)| {
        if let Envelope::Heartbeat(beat) = envelope { Some((*to, (**beat).clone())) } else { None }
    });
    sent.collect()
}

/// The last heartbeat of a hub that hub 2 has received.
fn last_beat(net: &Net, of: u8) -> Heartbeat {
    (**net.hubs[&2].hubs[&hub(of)].beat()).clone()
}

/// Hub 2 reports to hub 1 that other hubs remember a later incarnation of hub 1's own process.
fn is_recalled(net: &mut Net, life: u64) {
    let process = net.hubs[&1].process();
    let beat = Heartbeat { incarnation: HubIncarnation(life), process, number: 1, ..last_beat(net, 1) };
    hears_beat(net, 1, 2, beat);
}

#[test]
fn processes_that_follow_the_same_incarnation_begin_different_ones() {
    let lives = [5, 77].map(|key| {
        let mut net = Net::new(1);
        net.start_as(1, hub(1), key);
        net.start(2);
        net.link(1, 2);
        net.pass(HEARTBEAT);
        let ended = net.hubs[&1].incarnation().0 + 1_000;
        is_recalled(&mut net, ended);
        let begun = net.hubs[&1].incarnation().0 - ended;
        assert!(begun > 0 && begun <= ABOUT_A_MINUTE, "{begun}");
        begun
    });
    assert_ne!(lives[0], lives[1]);
}

#[test]
fn a_hub_follows_incarnations_up_to_the_greatest_time_and_then_takes_a_new_id() {
    let step = {
        let mut net = Net::full(2);
        let ended = net.hubs[&1].incarnation().0 + 1_000;
        is_recalled(&mut net, ended);
        net.hubs[&1].incarnation().0 - ended
    };
    for (recalled, keeps_id) in [(GREATEST_TIME_FOLLOWED - step, true), (GREATEST_TIME_FOLLOWED - step + 1, false)] {
        let mut net = Net::full(2);
        is_recalled(&mut net, recalled);
        let relay = &net.hubs[&1];
        assert_eq!(relay.hub() == hub(1), keeps_id, "{recalled}");
        assert!(relay.incarnation().0 <= GREATEST_TIME_FOLLOWED, "{recalled}");
        assert_eq!(relay.incarnation().0 == GREATEST_TIME_FOLLOWED, keeps_id, "{recalled}");
    }
}

#[test]
fn a_hub_ignores_its_own_heartbeats_and_follows_greater_numbers_of_its_process() {
    let mut net = Net::full(2);
    let life = net.hubs[&1].incarnation();
    let own = last_beat(&net, 1);
    hears_beat(&mut net, 1, 2, own.clone());
    hears_beat(&mut net, 1, 2, Heartbeat { incarnation: HubIncarnation(life.0 - 1), ..own.clone() });
    assert_eq!(net.hubs[&1].incarnation(), life, "the hub ignores its own heartbeats, even of an earlier incarnation");
    hears_beat(&mut net, 1, 2, Heartbeat { number: own.number + 100, ..own.clone() });
    let next = net.hubs[&1].incarnation();
    assert!(next > life, "otherwise, other hubs would ignore the next 100 heartbeats of hub 1");
    hears_beat(&mut net, 1, 2, Heartbeat { incarnation: HubIncarnation(next.0 + 1), number: 1, ..own });
    assert!(net.hubs[&1].incarnation().0 > next.0 + 1, "otherwise, other hubs would ignore the incarnation of hub 1");
}

#[test]
fn a_hub_takes_a_different_id_each_time() {
    let mut net = Net::new(1);
    let mut ids = BTreeSet::from([net.hubs[&1].hub()]);
    for process in 7..10 {
        let incarnation = HubIncarnation(net.hubs[&1].incarnation().0 - 1);
        net.input(1, RelayInput::Namesake { incarnation, process });
        assert!(ids.insert(net.hubs[&1].hub()), "{ids:?}");
    }
    assert_eq!(net.hubs[&1].stats.ids_given_up, 3);
}

/// A heartbeat of another process with the id of hub 1, whose incarnation is `later` milliseconds later.
fn namesake(net: &Net, later: i64, process: u64, number: u64) -> Heartbeat {
    let known = last_beat(net, 1);
    let incarnation = HubIncarnation(known.incarnation.0.saturating_add_signed(later));
    Heartbeat { incarnation, process, number, age_ms: 0, ..known }
}

#[test]
fn a_second_hub_with_one_id_receives_the_first_hubs_heartbeat_with_its_age() {
    let mut net = Net::full(3);
    net.pass(HEARTBEAT);
    let known = last_beat(&net, 1);
    let age = net.now.at - net.hubs[&2].hubs[&hub(1)].beat_at() + Duration::from_millis(30);
    net.now.at += Duration::from_millis(30);
    let second = namesake(&net, 1_000, 7, 1);
    let sent = hears_beat(&mut net, 2, 3, second);
    let back: Vec<_> = sent.iter().filter(|(to, _)| *to == 3).map(|(_, beat)| (beat.process, beat.age_ms)).collect();
    assert_eq!(back, [(known.process, age.as_millis() as u32)]);
    let forward: Vec<_> = sent.iter().filter(|(to, _)| *to == 1).map(|(_, beat)| beat.process).collect();
    assert_eq!(forward, [7], "hub 1 receives the heartbeat of the second hub");
}

#[test]
fn two_hubs_with_one_id_are_reported_when_the_same_two_have_sent_heartbeats_for_a_while() {
    let mut net = Net::full(3);
    let reported = |net: &Net| net.events.contains(&(2, MeshEvent::TwoHubs(hub(1))));
    // Three processes send one heartbeat each. The three processes may be restarts of one hub, so they are not
    // reported.
    for process in 7..10 {
        let second = namesake(&net, 1_000, process, 1);
        hears_beat(&mut net, 2, 3, second);
        assert!(!reported(&net), "{process}");
        net.pass(RIVAL_EVIDENCE + HEARTBEAT);
    }
    let second = namesake(&net, 1_000, 9, 2);
    hears_beat(&mut net, 2, 3, second);
    assert!(reported(&net));
}

#[test]
fn a_heartbeat_of_an_earlier_incarnation_is_answered_and_forwarded_to_the_later_process() {
    let mut net = Net::full(3);
    let known = last_beat(&net, 1);
    let age_of_the_ended = LEASE.as_millis() as u32;
    let sorted = |mut sent: Vec<(u8, Heartbeat)>| {
        sent.sort_by_key(|(to, _)| *to);
        sent.into_iter().map(|(to, beat)| (to, beat.process, beat.age_ms)).collect::<Vec<_>>()
    };
    let earlier = namesake(&net, -5, 7, 1);
    let sent = hears_beat(&mut net, 2, 3, earlier.clone());
    assert_eq!(sorted(sent), [(1, 7, 0), (3, known.process, age_of_the_ended)]);
    let sent = hears_beat(&mut net, 2, 1, earlier);
    assert_eq!(
        sorted(sent),
        [(1, known.process, age_of_the_ended)],
        "the heartbeat is not sent back to hub 1, from which it came"
    );
    net.now.at += CONTEST_PAUSE;
    let own = namesake(&net, -5, known.process, 1);
    let sent = hears_beat(&mut net, 2, 3, own);
    assert_eq!(
        sorted(sent),
        [(3, known.process, age_of_the_ended)],
        "the process knows that it has begun a later incarnation"
    );
}

/// Hub 1 receives heartbeats of another process with its id. `at` are the times after the start of hub 1, in
/// milliseconds.
fn hears_rival(net: &mut Net, later: i64, at: &[u64]) {
    let began = net.hubs[&1].started;
    for (number, ms) in (1..).zip(at) {
        let beat = namesake(net, later, 7, number);
        net.now.at = began + Duration::from_millis(*ms);
        hears_beat(net, 1, 2, beat);
    }
}

fn linked() -> Net {
    let mut net = Net::new(2);
    net.link(1, 2);
    net
}

#[test]
fn another_incarnation_is_alive_when_its_heartbeat_number_has_grown_three_times() {
    let evidence = RIVAL_EVIDENCE.as_millis() as u64;
    for (at, is_alive) in [
        (vec![0, 1_000, 2_000, evidence], true),
        (vec![0, 1_000, 2_000, evidence - 1], false),
        (vec![0, 500, 1_000, 1_500], false),
        (vec![0, 1_000, evidence], false),
        (vec![0, 100, 200, 300, evidence], false),
        (vec![0, 499, 998, evidence], false),
        (vec![0, 500, 1_000, evidence], true),
    ] {
        let mut net = linked();
        hears_rival(&mut net, 1_000, &at);
        assert_eq!(net.events.contains(&(1, MeshEvent::SameId)), is_alive, "{at:?}");
        assert_eq!(net.hubs[&1].hub(), hub(1), "the later hub must take a new id");
    }
}

#[test]
fn a_hub_that_has_just_started_waits_for_an_earlier_hub_with_its_id_to_end() {
    let patience = RIVAL_PATIENCE.as_millis() as u64;
    for (last, keeps_id) in [(patience - 1, true), (patience, false)] {
        let mut net = linked();
        hears_rival(&mut net, -1_000, &[0, 1_000, 2_000, 2_500, last]);
        assert_eq!(net.hubs[&1].hub() == hub(1), keeps_id, "{last}");
    }
}

#[test]
fn a_later_hub_that_does_not_give_up_the_id_gets_it_after_a_while() {
    let whole = RIVAL_YIELD.as_millis() as u64;
    for (last, keeps_id) in [(whole - 1, true), (whole, false)] {
        let mut net = linked();
        let beats: Vec<u64> = (0..whole / 1_000).map(|second| 1_000 * second).chain([last]).collect();
        hears_rival(&mut net, 1_000, &beats);
        assert_eq!(net.hubs[&1].hub() == hub(1), keeps_id, "{last}");
    }
}

#[test]
fn a_hub_follows_an_ended_incarnation_at_once_if_it_is_young_and_otherwise_after_a_while() {
    let (patience, lease) = (RIVAL_PATIENCE.as_millis() as u64, LEASE.as_millis() as u32);
    for (at, follows) in [
        (vec![0], true),
        (vec![patience - 1], true),
        (vec![patience], false),
        (vec![10_000, 10_000 + patience - 1], false),
        (vec![10_000, 10_000 + patience], true),
    ] {
        let mut net = linked();
        let began = net.hubs[&1].started;
        let ended = namesake(&net, 5_000, 7, 1);
        for ms in &at {
            net.now.at = began + Duration::from_millis(*ms);
            hears_beat(&mut net, 1, 2, Heartbeat { age_ms: lease, ..ended.clone() });
        }
        assert_eq!(net.hubs[&1].incarnation() > ended.incarnation, follows, "{at:?}");
        assert_eq!(net.hubs[&1].hub(), hub(1));
    }
    // A heartbeat that is younger than a lease does not report an ended incarnation.
    let mut net = linked();
    let beat = namesake(&net, 5_000, 7, 1);
    hears_beat(&mut net, 1, 2, Heartbeat { age_ms: lease - 1, ..beat.clone() });
    assert!(net.hubs[&1].incarnation() < beat.incarnation);
}

#[test]
fn an_ended_process_of_the_same_millisecond_is_not_followed() {
    let mut net = linked();
    let life = net.hubs[&1].incarnation();
    let ended = namesake(&net, 0, u64::MAX, 1);
    hears_beat(&mut net, 1, 2, Heartbeat { age_ms: LEASE.as_millis() as u32, ..ended });
    assert_eq!(net.hubs[&1].incarnation(), life);
}

#[test]
fn a_later_process_replaces_a_hub_that_is_silent_and_contests_one_that_is_not() {
    for (silent, replaces) in [(LINK_SILENCE - Duration::from_millis(1), false), (LINK_SILENCE, true)] {
        let mut net = Net::full(3);
        let later = namesake(&net, 1_000, 7, 1);
        net.now.at = net.hubs[&2].hubs[&hub(1)].beat_at() + silent;
        hears_beat(&mut net, 2, 3, later.clone());
        assert_eq!(net.hubs[&2].hubs[&hub(1)].incarnation() == later.incarnation, replaces, "{silent:?}");
    }
}

#[test]
fn two_hubs_with_one_id_are_reported_once() {
    let mut net = Net::full(3);
    let mut at = net.now.at;
    let reports = |net: &Net| net.events.iter().filter(|event| **event == (2, MeshEvent::TwoHubs(hub(1)))).count();
    for (number, evidence, expected) in [
        (1, Duration::ZERO, 0),
        (2, RIVAL_EVIDENCE, 0),
        (3, RIVAL_EVIDENCE + Duration::from_millis(1), 1),
        (4, RIVAL_EVIDENCE + HEARTBEAT, 1),
        (5, RIVAL_EVIDENCE + 2 * HEARTBEAT, 1),
    ] {
        if number == 1 {
            at = net.now.at;
        }
        net.now.at = at + evidence;
        // Both hubs have just sent a heartbeat.
        let known = last_beat(&net, 1);
        hears_beat(&mut net, 2, 1, Heartbeat { number: known.number + 1, ..known });
        let second = namesake(&net, 1_000, 7, number);
        hears_beat(&mut net, 2, 3, second);
        assert_eq!(reports(&net), expected, "{number}");
    }
}

#[test]
fn a_second_hub_with_one_id_is_reported_to_the_first_over_other_hubs() {
    let mut net = Net::new(4);
    for (a, b) in [(1, 4), (4, 2), (2, 3)] {
        net.link(a, b);
    }
    net.pass(2 * HEARTBEAT);
    let second = namesake(&net, 1_000, 7, 1);
    let sent = hears_beat(&mut net, 2, 3, second);
    let to: Vec<(u8, u64)> = sent.iter().map(|(to, beat)| (*to, beat.process)).filter(|(_, of)| *of == 7).collect();
    assert_eq!(to, [(4, 7)], "hub 2 has no link with hub 1");
}

#[test]
fn a_hub_receives_its_last_known_heartbeat_if_its_numbers_are_far_lower() {
    const LATE: u64 = 16;
    let mut net = Net::full(3);
    let known = Heartbeat { number: 1_000, ..last_beat(&net, 1) };
    beats_after(&mut net, 2, 1, known.clone());
    net.under_way.clear();
    for (from, behind, reminded) in
        [(1, LATE + 1, true), (1, LATE, false), (1, 1, false), (1, 0, false), (3, LATE + 1, false), (3, LATE, false)]
    {
        let sent = beats_after(&mut net, 2, from, Heartbeat { number: known.number - behind, ..known.clone() });
        net.under_way.clear();
        let told: Vec<_> = sent.iter().map(|(to, beat)| (*to, beat.number, beat.age_ms)).collect();
        let expected = if reminded { vec![(1, known.number, LEASE.as_millis() as u32)] } else { vec![] };
        assert_eq!(told, expected, "{behind} heartbeats behind, received from hub {from}");
    }
}

#[test]
fn peers_of_a_process_that_was_replaced_are_counted_as_lost() {
    let mut net = Net::full(3);
    for peer in 11..14 {
        net.joins(1, peer, 0);
    }
    net.pass(HEARTBEAT);
    net.now.at += LINK_SILENCE;
    let later = namesake(&net, 1_000, 7, 1);
    hears_beat(&mut net, 2, 3, Heartbeat { seq: 0, digest: 0, ..later });
    assert_eq!(net.hubs[&2].stats.ghosts_evicted, 3);
}

/// The number of heartbeats that hubs send each other until no heartbeat is in flight. Fails if there are 1,000 or
/// more.
fn beats_until_quiet(net: &mut Net) -> usize {
    for number in 0..1_000 {
        let Some((n, via, envelope)) = net.under_way.pop_front() else { return number };
        net.input(n, RelayInput::Received { via, envelope });
    }
    panic!("the hubs send heartbeats without end");
}

#[test]
fn hubs_that_know_different_processes_of_one_hub_do_not_answer_each_other_forever() {
    // Hub 1 has ended. Each of the other hubs receives heartbeats of a different process with the id of hub 1.
    for hubs in [2..=3, 2..=4, 2..=6] {
        let mut net = Net::full(*hubs.end());
        let known = last_beat(&net, 1);
        net.kill(1);
        net.pass(GONE);
        let of = |n: u8| Heartbeat { process: 100 + u64::from(n), number: 1, ..known.clone() };
        for n in hubs.clone() {
            let via = Hop::Bridge(hub(1));
            net.input(n, RelayInput::Received { via, envelope: Envelope::Heartbeat(Arc::new(of(n))) });
        }
        for round in 0..4 {
            let sent = beats_until_quiet(&mut net);
            assert!(sent <= 12 * hubs.len().pow(2), "{sent} heartbeats of hubs {hubs:?} in round {round}");
            for n in hubs.clone() {
                assert_eq!(
                    net.hubs[&n].hubs[&hub(1)].beat().process,
                    100 + u64::from(n),
                    "hub {n} keeps the process that it knows"
                );
                let via = Hop::Bridge(hub(1));
                let beat = Heartbeat { number: 2 + round, ..of(n) };
                net.input(n, RelayInput::Received { via, envelope: Envelope::Heartbeat(Arc::new(beat)) });
            }
            net.now.at += HEARTBEAT;
        }
    }
}

#[test]
fn a_second_hub_with_one_id_is_answered_once_in_a_pause() {
    let mut net = Net::full(3);
    let second = |net: &Net, number| namesake(net, 1_000, 7, number);
    let mut begins = Duration::ZERO;
    for (number, after, answers) in [
        (1, Duration::ZERO, 2),
        (2, Duration::from_millis(1), 0),
        (3, CONTEST_PAUSE - Duration::from_millis(1), 0),
        (4, CONTEST_PAUSE, 2),
    ] {
        if number == 1 {
            begins = net.now.at;
        }
        net.now.at = begins + after;
        let beat = second(&net, number);
        assert_eq!(beats_after(&mut net, 2, 3, beat).len(), answers, "{number}");
        net.under_way.clear();
    }
    // Heartbeats from another neighbour, or of another process, are answered during the pause.
    let beat = second(&net, 5);
    assert_eq!(beats_after(&mut net, 2, 1, beat).len(), 1, "hub 1 has not received an answer yet");
    net.under_way.clear();
    let third = namesake(&net, 1_000, 8, 1);
    assert_eq!(beats_after(&mut net, 2, 3, third).len(), 1, "a hub answers the first heartbeat of a third process");
}

#[test]
fn heartbeats_of_more_processes_of_one_hub_than_the_limit_are_not_forwarded() {
    let mut net = Net::full(3);
    let mut sent = 0;
    for process in 0..MAX_CONTEST_HEARTBEATS as u64 + 10 {
        let beat = namesake(&net, 1_000, 1_000 + process, 1);
        sent += beats_after(&mut net, 2, 3, beat).len();
        net.under_way.clear();
    }
    assert_eq!(sent, MAX_CONTEST_HEARTBEATS);
    net.now.at += CONTEST_PAUSE;
    let beat = namesake(&net, 1_000, 7, 1);
    assert_eq!(beats_after(&mut net, 2, 3, beat).len(), 2);
}
