//! Tests of the maximum number of known hubs. These tests check which hub a new hub displaces, and which numbers hubs
//! get.

use super::*;
use crate::envelope::{Change, ChangeKind, Heartbeat};
use crate::limits::MAX_HUBS;
use crate::relay::remote::Liveness;

/// The id of a hub that does not exist.
fn invented(n: usize) -> HubId {
    let mut bytes = [0xee; 20];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    HubId(PeerId::from_bytes(bytes))
}

/// Hubs 2, 3 and 4 are linked with hub 1. Hub 3 invents as many hubs as hub 1 has room for.
struct Crowd {
    net: Net,
    room: usize,
}

impl Crowd {
    fn new() -> Self {
        let mut crowd = Self { net: Net::full(4), room: MAX_HUBS - 3 };
        for n in 0..crowd.room {
            crowd.introduces(3, n);
        }
        assert_eq!(crowd.net.hubs[&1].hubs.len(), MAX_HUBS);
        crowd
    }

    /// Passes a heartbeat of invented hub `n`, and a change that adds a peer of this hub, from neighbour `by` to hub 1.
    fn introduces(&mut self, by: u8, n: usize) {
        let relay = &self.net.hubs[&1];
        let via = Hop::Link(relay.links.used_for(&hub(by)).unwrap());
        let known = (**relay.hubs[&hub(by)].beat()).clone();
        let (hub, incarnation) = (invented(n), known.incarnation);
        let beat = Heartbeat { hub, number: 1, seq: 0, digest: 0, neighbours: Vec::new(), ..known };
        let (peer, session) = (hub.0, PeerIncarnation(1));
        let up = Change { hub, incarnation, seq: 1, peer, session, kind: ChangeKind::Up };
        for envelope in [Envelope::Heartbeat(Arc::new(beat)), Envelope::Change(Arc::new(up))] {
            self.net.input(1, RelayInput::Received { via, envelope });
            self.net.under_way.clear();
        }
    }

    fn knows(&self, n: usize) -> bool {
        self.net.hubs[&1].hubs.contains_key(&invented(n))
    }

    /// Number of known hubs that a neighbour introduced.
    fn introduced_by(&self, n: u8) -> usize {
        self.net.hubs[&1].hubs.values().filter(|remote| remote.introduced_by() == hub(n)).count()
    }
}

#[test]
fn a_new_hub_displaces_the_latest_hub_of_the_neighbour_that_introduced_the_most() {
    let mut crowd = Crowd::new();
    let latest = crowd.room - 1;
    for n in 0..3 {
        crowd.introduces(2, 10_000 + n);
        assert!(crowd.knows(10_000 + n) && !crowd.knows(latest - n), "{n}");
        assert!((0..latest - n).all(|other| crowd.knows(other)), "{n}");
        let stats = &crowd.net.hubs[&1].stats;
        assert_eq!((stats.hubs_lost, stats.ghosts_evicted), (n as u64 + 1, n as u64 + 1), "{n}");
    }
    assert!((0..3).all(|n| crowd.knows(10_000 + n)) && crowd.net.hubs[&1].hubs.contains_key(&hub(3)));
    crowd.net.hubs.get_mut(&1).unwrap().audit();
}

#[test]
fn no_second_hub_is_ended_while_a_hub_is_being_forgotten() {
    let mut crowd = Crowd::new();
    let now = crowd.net.now;
    let relay = crowd.net.hubs.get_mut(&1).unwrap();
    // The hub that makes room is not forgotten in the same turn.
    relay.config.tuning.slices.peers = 1;
    let via = Hop::Link(relay.links.used_for(&hub(2)).unwrap());
    for number in 1..4 {
        let known = (**relay.hubs[&hub(2)].beat()).clone();
        let beat = Heartbeat { hub: invented(10_000), number, seq: 0, digest: 0, neighbours: Vec::new(), ..known };
        relay.handle_input(RelayInput::Received { via, envelope: Envelope::Heartbeat(Arc::new(beat)) }, now);
        while relay.poll_output().is_some() {}
        assert_eq!(relay.stats.hubs_lost, 1, "{number}");
    }
    relay.handle_input(RelayInput::Continue, now);
    crowd.net.drain(1);
    crowd.introduces(2, 10_000);
    assert!(crowd.knows(10_000) && !crowd.knows(crowd.room - 1) && crowd.knows(crowd.room - 2));
    assert_eq!(crowd.net.hubs[&1].stats.hubs_lost, 1);
}

#[test]
fn a_new_hub_displaces_a_stopped_hub_before_all_others() {
    let mut crowd = Crowd::new();
    let now = crowd.net.now;
    crowd.net.hubs.get_mut(&1).unwrap().end_incarnation(invented(5), Liveness::Lost, now);
    crowd.net.drain(1);
    crowd.introduces(2, 10_000);
    assert!(crowd.knows(10_000) && !crowd.knows(5) && crowd.knows(crowd.room - 1));
    assert_eq!(crowd.net.hubs[&1].stats.hubs_lost, 0, "invented hub 5 was lost before, so it is not counted again");
}

#[test]
fn neighbours_that_introduced_equally_many_hubs_do_not_displace_each_others_hubs() {
    let mut crowd = Crowd::new();
    for n in 0..MAX_HUBS {
        crowd.introduces(2, 10_000 + n);
    }
    // Hub 4 introduced only itself. Hubs 2 and 3 introduced nearly equal shares of all other hubs.
    let shares = [2, 3, 4].map(|n| crowd.introduced_by(n));
    assert_eq!(shares, [MAX_HUBS / 2 - 1, MAX_HUBS / 2, 1]);
}

#[test]
fn a_number_in_use_and_the_greatest_number_are_not_assigned() {
    let mut net = Net::full(2);
    let relay = net.hubs.get_mut(&1).unwrap();
    relay.last_number = u32::MAX - 3;
    let in_use = relay.hubs[&hub(2)].number();
    assert_eq!(in_use, 1);
    let mut numbers = Vec::new();
    for n in 0..4 {
        numbers.push(relay.number(invented(n)));
    }
    assert_eq!(numbers, [u32::MAX - 2, u32::MAX - 1, 0, 2]);
}
