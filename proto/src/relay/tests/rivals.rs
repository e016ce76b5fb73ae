//! Tests of what one hub says and does about heartbeats of another incarnation: of its own id, or of the id of a known
//! hub.

use super::*;
use crate::envelope::Heartbeat;
use crate::limits::{GREATEST_TIME_FOLLOWED, RIVAL_EVIDENCE};

/// Number of milliseconds by which an incarnation may be later than the ended one that it follows.
const ABOUT_A_MINUTE: u64 = 1 << 16;

/// Gives a hub a heartbeat over its link with another hub, and returns the heartbeats that it sends at once: the
/// receiver and the heartbeat.
fn hears_beat(net: &mut Net, n: u8, from: u8, beat: Heartbeat) -> Vec<(u8, Heartbeat)> {
    let via = Hop::Link(net.hubs[&n].links.used_for(&hub(from)).unwrap());
    net.input(n, RelayInput::Received { via, envelope: Envelope::Heartbeat(Arc::new(beat)) });
    let sent = net.under_way.iter().filter_map(|(to, _, envelope)| {
        if let Envelope::Heartbeat(beat) = envelope { Some((*to, (**beat).clone())) } else { None }
    });
    let sent = sent.collect();
    net.run();
    sent
}

/// The last heartbeat of a hub that hub 2 has received.
fn last_beat(net: &Net, of: u8) -> Heartbeat {
    (*net.hubs[&2].hubs[&hub(of)].beat).clone()
}

/// Makes hub 1 learn from hub 2 that others remember a later incarnation of its own process.
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
    // With key 1, the next incarnation is two milliseconds later.
    for (recalled, keeps_id) in [(GREATEST_TIME_FOLLOWED - 2, true), (GREATEST_TIME_FOLLOWED - 1, false)] {
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
    assert_eq!(net.hubs[&1].incarnation(), life, "its own heartbeats, late or not");
    hears_beat(&mut net, 1, 2, Heartbeat { number: own.number + 100, ..own.clone() });
    let next = net.hubs[&1].incarnation();
    assert!(next > life, "others would ignore its next hundred heartbeats");
    hears_beat(&mut net, 1, 2, Heartbeat { incarnation: HubIncarnation(next.0 + 1), number: 1, ..own });
    assert!(net.hubs[&1].incarnation().0 > next.0 + 1, "others would ignore its incarnation");
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

/// A heartbeat of another process with the id of hub 1, `later` milliseconds later.
fn namesake(net: &Net, later: i64, process: u64, number: u64) -> Heartbeat {
    let known = last_beat(net, 1);
    let incarnation = HubIncarnation(known.incarnation.0.saturating_add_signed(later));
    Heartbeat { incarnation, process, number, age_ms: 0, ..known }
}

#[test]
fn the_heartbeat_that_a_second_hub_with_one_id_receives_has_its_age() {
    let mut net = Net::full(3);
    net.pass(HEARTBEAT);
    let known = last_beat(&net, 1);
    let age = net.now.at - net.hubs[&2].hubs[&hub(1)].beat_at + Duration::from_millis(30);
    net.now.at += Duration::from_millis(30);
    let second = namesake(&net, 1_000, 7, 1);
    let sent = hears_beat(&mut net, 2, 3, second);
    let back: Vec<_> = sent.iter().filter(|(to, _)| *to == 3).map(|(_, beat)| (beat.process, beat.age_ms)).collect();
    assert_eq!(back, [(known.process, age.as_millis() as u32)]);
    let forward: Vec<_> = sent.iter().filter(|(to, _)| *to == 1).map(|(_, beat)| beat.process).collect();
    assert_eq!(forward, [7], "the first hub learns of the second");
}

#[test]
fn two_hubs_with_one_id_are_reported_when_the_same_two_have_sent_heartbeats_for_a_while() {
    let mut net = Net::full(3);
    let reported = |net: &Net| net.events.contains(&(2, MeshEvent::TwoHubs(hub(1))));
    // Three processes each send one heartbeat: they may have been restarted one after another.
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
    assert_eq!(sorted(sent), [(1, known.process, age_of_the_ended)], "it is not sent back where it came from");
    let own = namesake(&net, -5, known.process, 1);
    let sent = hears_beat(&mut net, 2, 3, own);
    assert_eq!(sorted(sent), [(3, known.process, age_of_the_ended)], "the process knows that it began a later one");
}
