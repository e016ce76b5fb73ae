//! Tests of two live hubs with one id, and of numbers so great that no hub may exceed them.

use super::*;
use crate::limits::{GREATEST_TIME, GREATEST_TIME_FOLLOWED, MAX_ENDED_INCARNATIONS, RIVAL_PATIENCE, RIVAL_YIELD};

/// Time after which one of two hubs with one id has taken a new id.
const PARTED: Duration = Duration::from_secs(8);

/// Hubs 1 and 9 both have the id of hub 1. Hub 9 starts later, with a clock that differs by `later_by` milliseconds.
/// Hubs 1 and 9 are linked with hub 3. Each of the three hubs has a peer.
fn namesakes(later_by: i64) -> Net {
    let mut net = Net::new(0);
    net.start(1);
    net.start(3);
    net.link(1, 3);
    net.pass(3 * RIVAL_PATIENCE);
    net.now.wall_ms = net.now.wall_ms.saturating_add_signed(later_by);
    net.start_as(9, hub(1), 9);
    net.joins(1, 11, 0);
    net.joins(3, 13, 0);
    net.joins(9, 19, 0);
    net.link(9, 3);
    net
}

impl Net {
    /// For each hub with a new id, closes all its links and opens them again, as the mesh does.
    fn make_links_anew(&mut self) {
        for n in std::mem::take(&mut self.relink) {
            let others: Vec<u8> =
                self.wires.iter().filter(|((from, _), _)| *from == n).map(|(_, (to, _))| *to).collect();
            for other in others {
                self.cut(n, other);
                self.link(n, other);
            }
        }
    }

    fn part(&mut self, time: Duration) {
        let until = self.now.at + time;
        while self.now.at < until {
            self.pass(HEARTBEAT / 4);
            self.make_links_anew();
        }
    }
}

#[test]
fn the_later_of_two_live_hubs_with_one_id_takes_a_new_id_and_each_peer_is_seen_once() {
    // The clock of hub 9 may be behind the clock of hub 1. Hub 9 still started later.
    for later_by in [1_000, -3_600_000] {
        let mut net = namesakes(later_by);
        net.part(PARTED);
        let mut heard = net.hears(3);
        heard.sort();
        assert_eq!(heard, ["elsewhere 11", "elsewhere 19", "joined 11 n", "joined 19 n"], "{later_by}");
        assert_eq!((net.hubs[&1].hub(), net.hubs[&3].hub()), (hub(1), hub(3)));
        let new = net.hubs[&9].hub();
        assert_ne!(new, hub(1));
        let told: Vec<_> = net.events.iter().filter(|(_, e)| matches!(e, MeshEvent::IdGivenUp(..))).collect();
        assert_eq!(told, [&(9, MeshEvent::IdGivenUp(hub(1), new))]);
        assert!(net.events.contains(&(3, MeshEvent::TwoHubs(hub(1)))), "a third hub reports two hubs with one id");
        assert_eq!(net.hears(9).iter().filter(|line| **line == "renamed").count(), 1);
        // From now on, hubs 1 and 9 are two different hubs, also for each other.
        assert_eq!(net.hubs[&9].locate(&id(11)), Some(hub(1)));
        assert_eq!(net.hubs[&9].locate(&id(19)), Some(new));
        assert_eq!(net.hubs[&1].locate(&id(19)), Some(new));
        let now = net.now;
        let mut seen: Vec<HubId> =
            net.hubs[&9].hubs(now).iter().filter(|view| view.live).map(|view| view.hub).collect();
        seen.sort();
        assert_eq!(seen, [hub(1), hub(3)]);
        for (n, from, target) in [(1, 11, 19), (9, 19, 11), (3, 13, 11), (3, 13, 19)] {
            net.hears(n);
            net.signals(n, from, target, 1);
            net.pass(HEARTBEAT);
            assert_eq!(net.hears(n), [format!("outcome {target} delivered")]);
        }
        net.hears(3);
        net.leaves(9, 19, 0);
        net.leaves(1, 11, 0);
        assert_eq!(
            net.hears(3),
            ["left 19 n peer-disconnected", "nowhere 19", "left 11 n peer-disconnected", "nowhere 11"]
        );
        net.part(3 * PARTED);
        assert_eq!(net.hears(3), [""; 0], "no peer leaves and returns");
        net.nothing_is_left();
    }
}

#[test]
fn a_hello_of_an_earlier_hub_with_the_same_id_makes_a_hub_take_a_new_id() {
    let mut net = Net::new(2);
    let (life, process) = (net.hubs[&1].incarnation(), net.hubs[&1].process());
    net.input(1, RelayInput::Namesake { incarnation: HubIncarnation(life.0 + 1), process: 7 });
    net.input(1, RelayInput::Namesake { incarnation: life, process });
    assert_eq!(net.hubs[&1].hub(), hub(1), "hellos of a later hub and of hub 1 itself do not change the id");
    net.input(1, RelayInput::Namesake { incarnation: HubIncarnation(life.0 - 1), process: 7 });
    assert_ne!(net.hubs[&1].hub(), hub(1));
}

#[test]
fn a_hub_with_the_same_id_and_millisecond_is_another_hub() {
    let mut net = namesakes(-9_000);
    net.hubs.remove(&9);
    net.start_as(9, hub(1), 9);
    let life = net.hubs[&1].incarnation();
    net.hubs.get_mut(&9).unwrap().config.incarnation = life;
    net.link(9, 3);
    net.part(PARTED);
    let ids = [net.hubs[&1].hub(), net.hubs[&9].hub()];
    assert_eq!(ids.iter().filter(|id| **id == hub(1)).count(), 1, "{ids:?}");
}

#[test]
fn a_restarted_hub_keeps_its_id() {
    // The previous process of hub 1 sent a farewell or was killed, and its clock may have been ahead.
    for (polite, back) in [(true, 0), (false, 0), (true, 60_000), (false, 60_000)] {
        let mut net = Net::chain(4);
        net.pass(3 * RIVAL_PATIENCE);
        net.joins(1, 7, 0);
        if polite {
            net.input(1, RelayInput::Ending);
            net.run();
        }
        net.kill(1);
        net.pass(HEARTBEAT / 2);
        net.now.wall_ms -= back;
        net.start_as(1, hub(1), 77);
        net.link(1, 2);
        net.joins(1, 8, 0);
        (2..=4).for_each(|n| drop(net.hears(n)));
        let began = net.now.at;
        while net.hubs[&4].locate(&id(8)).is_none() {
            net.part(HEARTBEAT / 4);
            assert!(net.now.at < began + 4 * HEARTBEAT, "polite: {polite}, back: {back}");
        }
        net.part(PARTED);
        assert_eq!(net.hubs[&1].hub(), hub(1), "polite: {polite}, back: {back}");
        let about_ids =
            |e: &MeshEvent| matches!(e, MeshEvent::TwoHubs(_) | MeshEvent::SameId | MeshEvent::IdGivenUp(..));
        assert!(!net.events.iter().any(|(_, e)| about_ids(e)), "{:?}", net.events);
        assert_eq!(net.hubs[&4].locate(&id(7)), None);
    }
}

#[test]
fn the_earlier_hub_takes_a_new_id_if_the_later_one_keeps_it() {
    let mut net = Net::full(2);
    net.pass(RIVAL_PATIENCE);
    let link = net.hubs[&1].links.used_for(&hub(2)).unwrap();
    let mut beat = (**net.hubs[&2].hubs[&hub(1)].beat()).clone();
    (beat.incarnation.0, beat.process) = (beat.incarnation.0 + 5, 0);
    for _ in 0..=RIVAL_YIELD.as_secs() {
        beat.number += 1;
        let envelope = Envelope::Heartbeat(Arc::new(beat.clone()));
        net.input(1, RelayInput::Received { via: Hop::Link(link), envelope });
        net.run();
        net.pass(HEARTBEAT);
    }
    assert_ne!(net.hubs[&1].hub(), hub(1));
}

#[test]
fn two_ended_incarnations_that_are_recalled_in_turn_do_not_hide_a_hub_forever() {
    let mut net = Net::full(2);
    net.pass(RIVAL_PATIENCE);
    let link = net.hubs[&1].links.used_for(&hub(2)).unwrap();
    let beat = (**net.hubs[&2].hubs[&hub(1)].beat()).clone();
    let lives = [5_000, 9_000].map(|later| HubIncarnation(beat.incarnation.0 + later));
    for (turn, incarnation) in (0..2 * RIVAL_YIELD.as_secs()).zip(lives.into_iter().cycle()) {
        let recalled = crate::envelope::Heartbeat {
            incarnation,
            process: 1 + turn % 2,
            number: 1,
            age_ms: LEASE.as_millis() as u32 + 1,
            ..beat.clone()
        };
        net.input(1, RelayInput::Received { via: Hop::Link(link), envelope: Envelope::Heartbeat(Arc::new(recalled)) });
        net.run();
        net.pass(HEARTBEAT);
    }
    assert!(net.hubs[&1].incarnation() > lives[1]);
    assert_eq!(net.hubs[&1].hub(), hub(1));
}

/// Passes a forged heartbeat of hub 1 to hub 2.
fn lies(net: &mut Net, change: impl FnOnce(&mut crate::envelope::Heartbeat)) {
    let mut beat = (**net.hubs[&2].hubs[&hub(1)].beat()).clone();
    change(&mut beat);
    let via = Hop::Link(net.hubs[&2].links.used_for(&hub(3)).unwrap());
    net.input(2, RelayInput::Received { via, envelope: Envelope::Heartbeat(Arc::new(beat)) });
    net.run();
}

fn is_whole(net: &mut Net) {
    net.part(4 * PARTED);
    net.joins(1, 30, 50);
    net.pass(HEARTBEAT);
    for n in [2, 3] {
        assert_eq!(net.hubs[&n].locate(&id(30)), Some(net.hubs[&1].hub()), "hub {n}");
    }
    net.nothing_is_left();
}

#[test]
fn no_forged_incarnation_cuts_a_hub_off_forever() {
    for life in [GREATEST_TIME_FOLLOWED - 1, GREATEST_TIME_FOLLOWED, GREATEST_TIME, GREATEST_TIME + 1, 1 << 62] {
        for process in [0, 5] {
            let mut net = Net::full(3);
            net.pass(RIVAL_PATIENCE);
            net.joins(1, 7, 0);
            lies(&mut net, |beat| (beat.incarnation, beat.process) = (HubIncarnation(life), process));
            is_whole(&mut net);
            let ignored = net.hubs[&2].stats.numbers_refused > 0;
            assert_eq!(ignored, life > GREATEST_TIME, "{life}");
            assert!(net.hubs[&1].incarnation().0 <= GREATEST_TIME, "{life}");
        }
    }
}

#[test]
fn no_forged_heartbeat_or_change_number_cuts_a_hub_off_forever() {
    for (number, seq) in [(1 << 62, 0), (1 << 40, 1 << 40), (1, 1 << 62)] {
        let mut net = Net::full(3);
        net.pass(RIVAL_PATIENCE);
        net.joins(1, 7, 0);
        lies(&mut net, |beat| (beat.number, beat.seq) = (number.max(beat.number + 1), seq.max(beat.seq)));
        is_whole(&mut net);
    }
}

#[test]
fn a_session_with_an_implausible_time_is_ignored() {
    let mut net = Net::full(2);
    net.opens(1, 7, 0);
    for session in [GREATEST_TIME + 1, 1 << 62] {
        net.letter(
            2,
            ToMesh::Opened { peer: id(7), claim: Claim { incarnation: PeerIncarnation(session), hub: hub(2) } },
        );
        assert_eq!(net.hubs[&1].locate(&id(7)), Some(hub(1)));
        assert!(net.hubs[&1].stats.numbers_refused > 0);
        net.pass(2 * HEARTBEAT);
        net.nothing_is_left();
    }
}

#[test]
fn no_ended_incarnation_returns() {
    let mut net = Net::full(2);
    net.pass(HEARTBEAT);
    let via = Hop::Link(net.hubs[&1].links.used_for(&hub(2)).unwrap());
    // Hub 7 is known only by envelopes that hub 2 forwards. The incarnations of hub 7 end one after another.
    let beat = |life: u64| {
        let known = net.hubs[&1].hubs[&hub(2)].beat().as_ref().clone();
        let incarnation = HubIncarnation(known.incarnation.0 + life);
        crate::envelope::Heartbeat { hub: hub(7), incarnation, process: 1 + life, number: 1, ..known }
    };
    let lives: Vec<_> = (0..=MAX_ENDED_INCARNATIONS as u64).map(beat).collect();
    let hears = |net: &mut Net, envelope| {
        net.input(1, RelayInput::Received { via, envelope });
        net.run();
    };
    let known = |net: &Net| net.hubs[&1].hubs[&hub(7)].is_live();
    for beat in &lives {
        hears(&mut net, Envelope::Heartbeat(Arc::new(beat.clone())));
        assert!(known(&net));
        hears(&mut net, Envelope::Farewell(hub(7), beat.incarnation));
        assert!(!known(&net));
    }
    for beat in &lives[1..] {
        // The heartbeat is later than the known heartbeat of that incarnation.
        let late = crate::envelope::Heartbeat { number: 9, ..beat.clone() };
        hears(&mut net, Envelope::Heartbeat(Arc::new(late)));
        assert!(!known(&net), "{beat:?}");
    }
    // More incarnations have ended than are remembered, so the oldest is forgotten.
    let oldest = crate::envelope::Heartbeat { number: 9, ..lives[0].clone() };
    hears(&mut net, Envelope::Heartbeat(Arc::new(oldest)));
    assert!(known(&net));
}
