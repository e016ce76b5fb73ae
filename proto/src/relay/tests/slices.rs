//! Tests of long work in slices, and of events between the slices.

use super::*;
use crate::Slices;
use crate::limits::{GAP_PATIENCE, SLICE_PEERS};

/// Number of peers that a slice of these tests examines.
const SLICE: usize = 4;

/// Three linked hubs with small slices. Hub 3 has the peers 10 to `last`.
fn crowded(last: u8) -> Net {
    let mut net = Net::new(0);
    net.tuning.slices = Slices { letters: usize::MAX, peers: SLICE, changes: SLICE, discarded: SLICE, kept: 8 };
    (1..=3).for_each(|n| net.start(n));
    for (a, b) in [(1, 2), (1, 3), (2, 3)] {
        net.link(a, b);
    }
    net.pass(HEARTBEAT * 2);
    (10..=last).for_each(|peer| {
        net.opens(3, peer, 1);
        net.joins(3, peer, 1);
    });
    net.run();
    net.hears(1);
    net
}

impl Net {
    /// Runs the slices of hub `n` until no work is left. Checks that each slice has at most `most` letters, and returns
    /// all letters.
    fn finish(&mut self, n: u8, most: usize) -> Vec<String> {
        let mut heard = Vec::new();
        while self.go_on(n) {
            let slice = self.hears(n);
            assert!(slice.len() <= most, "{slice:?}");
            heard.extend(slice);
        }
        heard
    }

    fn loses_the_third(&mut self) {
        self.pauses = vec![1];
        self.kill(3);
        self.pass(LEASE + HEARTBEAT);
    }

    fn knows(&self, n: u8, peer: u8) -> Option<HubId> {
        self.hubs[&n].locate(&id(peer))
    }
}

/// The events that a shard received, by peer and in order.
fn by_peer(heard: &[String]) -> BTreeMap<u8, Vec<&str>> {
    let mut by_peer = BTreeMap::new();
    for line in heard {
        let mut words = line.split(' ');
        let (what, peer) = (words.next().unwrap(), words.next().unwrap().parse::<u8>().unwrap());
        by_peer.entry(peer).or_insert_with(Vec::new).push(what);
    }
    by_peer
}

#[test]
fn the_end_of_a_hub_reaches_the_shards_in_slices() {
    let mut net = crowded(59);
    net.loses_the_third();
    let begun = net.hears(1);
    assert_eq!(begun.len(), 2 * SLICE, "the first slice: {begun:?}");
    assert!(net.events.contains(&(1, MeshEvent::HubLost(hub(3), 50))));
    let stats = net.hubs.get_mut(&1).unwrap().stats(net.now).clone();
    assert_eq!((stats.unreconciled_hubs, stats.remote_peers, stats.ghosts_evicted), (1, 50 - SLICE as u64, 50));
    assert!(stats.ghost_age_ms >= LEASE.as_millis() as u64, "the peers are still visible");
    // Between two slices, heartbeats are still received and sent.
    net.pass(HEARTBEAT * 2);
    assert!(net.hubs.get_mut(&1).unwrap().stats(net.now).hubs == 1 && net.hears(1).is_empty());
    let mut heard = begun;
    heard.extend(net.finish(1, 2 * SLICE));
    let by_peer = by_peer(&heard);
    assert!(by_peer.keys().copied().eq(10..=59) && by_peer.values().all(|news| *news == ["left", "nowhere"]));
    assert!(net.hubs[&1].discarded.is_empty() && net.hubs[&1].busy.is_empty());
    net.pauses.clear();
    net.nothing_is_left();
}

#[test]
fn decisions_about_a_peer_of_a_lost_hub_do_not_wait_for_its_slice() {
    let mut net = crowded(59);
    net.loses_the_third();
    net.hears(1);
    // Peer 59 has moved to another hub. Members receive the peer's leave once, before they discover the peer again.
    net.opens(2, 59, 2);
    net.joins(2, 59, 2);
    net.run();
    assert_eq!(net.hears(1), ["left 59 n peer-disconnected", "nowhere 59", "elsewhere 59", "joined 59 n"]);
    // Another peer of the lost hub connects to hub 1.
    net.letter(1, ToMesh::AskTakeover { peer: id(58), shard: ShardId(0), ticket: 7, resume: None, owner: false });
    assert_eq!(net.hears(1), ["left 58 n peer-disconnected", "nowhere 58", "answered 7 false"]);
    // A third peer of the lost hub is the target of a signal.
    net.opens(1, 5, 1);
    net.joins(1, 5, 1);
    net.signals(1, 5, 57, 1);
    assert_eq!(net.hears(1), ["left 57 n peer-disconnected", "nowhere 57", "outcome 57 peer-not-found"]);
    let heard = net.finish(1, 2 * SLICE);
    assert!(by_peer(&heard).keys().copied().eq(10 + SLICE as u8..=56), "{heard:?}");
    assert_eq!(net.knows(1, 59), Some(hub(2)));
}

#[test]
fn a_hub_that_returns_during_its_sliced_end_causes_no_repeated_event() {
    let mut net = crowded(59);
    net.pauses = vec![1];
    // Hub 3 is stopped for longer than its lease, and one of its peers leaves.
    net.stopped = Some(3);
    net.pass(LEASE + HEARTBEAT);
    let left = net.hears(1);
    assert_eq!(left.len(), 2 * SLICE);
    net.stopped = None;
    net.waits.clear();
    net.leaves(3, 40, 1);
    net.run();
    net.pass(HEARTBEAT * 3);
    let returned = net.finish(1, 2 * SLICE);
    let news = by_peer(&returned);
    for peer in 10..=59 {
        let expected: &[&str] = match peer {
            40 => &["left", "nowhere"],
            _ if peer < 10 + SLICE as u8 => &["elsewhere", "joined"],
            _ => &[],
        };
        assert_eq!(news.get(&peer).map_or(&[][..], |news| &news[..]), expected, "peer {peer}");
    }
    assert_eq!(net.hubs.get_mut(&1).unwrap().stats(net.now).remote_peers, 49);
}

/// Hub 1 misses the changes of hub 3 that `meanwhile` makes, and then installs a snapshot. The first slice is done.
fn repaired(last: u8, meanwhile: impl FnOnce(&mut Net)) -> Net {
    let mut net = crowded(last);
    net.pauses = vec![1];
    net.loses = |envelope| matches!(envelope, Envelope::Change(_));
    meanwhile(&mut net);
    net.loses = |_| false;
    net.pass(HEARTBEAT + GAP_PATIENCE * 2);
    assert_eq!(net.hubs[&1].stats.snapshots[1], 1);
    net
}

#[test]
fn a_snapshot_is_installed_in_slices_with_changes_between_them() {
    let mut net = repaired(40, |net| {
        for peer in 41..=60 {
            net.opens(3, peer, 1);
            net.joins(3, peer, 1);
        }
        net.leaves(3, 39, 1);
    });
    let mut heard = net.hears(1);
    assert!(heard.is_empty(), "the first slice repeats events about known peers: {heard:?}");
    // Some peers that no slice has reached change. Peer 60 says goodbye, peer 59 leaves, and peer 38 leaves and
    // returns.
    net.says_goodbye(3, 60, 1);
    net.leaves(3, 59, 1);
    net.leaves(3, 38, 1);
    net.opens(3, 38, 2);
    net.joins(3, 38, 2);
    net.run();
    heard.extend(net.hears(1));
    // A peer that the shards do not know yet sends a signal.
    net.opens(1, 5, 1);
    net.joins(1, 5, 1);
    net.run();
    net.signals(3, 58, 5, 1);
    net.run();
    let signal = net.hears(1);
    assert_eq!(signal, ["elsewhere 58", "joined 58 n", "signal 58 5"]);
    heard.extend(signal.into_iter().take(2));
    heard.extend(net.finish(1, 2 * SLICE));
    let news = by_peer(&heard);
    for peer in 10..=60 {
        let expected: &[&str] = match peer {
            38 => &["left", "nowhere", "elsewhere", "joined"],
            39 => &["left", "nowhere"],
            59 => &["elsewhere", "joined", "left", "nowhere"],
            60 => &["elsewhere", "joined", "left"],
            41.. => &["elsewhere", "joined"],
            _ => &[],
        };
        assert_eq!(news.get(&peer).map_or(&[][..], |news| &news[..]), expected, "peer {peer}");
    }
}

#[test]
fn changes_that_were_held_are_applied_in_slices() {
    let mut net = crowded(12);
    net.pauses = vec![1];
    // One change is lost, and later changes wait for it.
    net.loses = |envelope| matches!(envelope, Envelope::Change(change) if change.peer == id(13));
    (13..=90).for_each(|peer| net.opens(3, peer, 1));
    net.run();
    let waiting = net.hubs[&1].hubs[&hub(3)].ahead.len();
    assert!(waiting > 70 && net.hears(1).is_empty(), "{waiting}");
    net.loses = |_| false;
    // The snapshot has the state of hub 3 at the time of the request. Later changes are held, and applied after the
    // snapshot.
    net.pass(GAP_PATIENCE * 2);
    let mut heard = net.hears(1);
    heard.extend(net.finish(1, 4 * SLICE));
    assert!(by_peer(&heard).keys().copied().eq(13..=90));
    let remote = &net.hubs[&1].hubs[&hub(3)];
    assert!(remote.ahead.is_empty() && remote.repair.behind_since().is_none() && remote.lag() == 0);
}

#[test]
fn senders_of_signals_lost_with_a_hub_are_notified_in_slices() {
    let mut net = crowded(10);
    net.opens(1, 5, 1);
    net.joins(1, 5, 1);
    net.run();
    net.hears(1);
    net.pauses = vec![1];
    net.swallows = vec![(1, 3)];
    (0..20).for_each(|_| net.signals(1, 5, 10, 0));
    assert_eq!(net.hubs.get_mut(&1).unwrap().stats(net.now).in_flight, 20);
    net.input(
        1,
        RelayInput::Received {
            via: Hop::Link(net.hubs[&1].links.used_for(&hub(3)).unwrap()),
            envelope: Envelope::Farewell(hub(3), net.hubs[&3].incarnation()),
        },
    );
    let mut heard = net.hears(1);
    assert_eq!(net.hubs.get_mut(&1).unwrap().stats(net.now).in_flight, 20 - SLICE as u64, "{heard:?}");
    heard.extend(net.finish(1, 2 * SLICE));
    assert_eq!(heard.iter().filter(|line| *line == "outcome 10 unknown").count(), 20);
    assert_eq!(net.hubs.get_mut(&1).unwrap().stats(net.now).in_flight, 0);
}

#[test]
fn peers_of_a_lost_hub_leave_while_signals_to_it_are_written_off() {
    let mut net = crowded(29);
    net.joins(1, 5, 1);
    net.pauses = vec![1];
    net.swallows = vec![(1, 3)];
    (0..200).for_each(|_| net.signals(1, 5, 10, 0));
    net.hears(1);
    let via = Hop::Link(net.hubs[&1].links.used_for(&hub(3)).unwrap());
    let envelope = Envelope::Farewell(hub(3), net.hubs[&3].incarnation());
    net.input(1, RelayInput::Received { via, envelope });
    for slice in 1..=20 / SLICE {
        let stats = net.hubs.get_mut(&1).unwrap().stats(net.now);
        let (peers, signals) = (20 - slice * SLICE, 200 - slice * SLICE);
        assert_eq!((stats.remote_peers, stats.in_flight), (peers as u64, signals as u64), "after slice {slice}");
        net.go_on(1);
    }
    net.hears(1);
    net.finish(1, SLICE);
    assert_eq!(net.hubs.get_mut(&1).unwrap().stats(net.now).in_flight, 0);
}

#[test]
fn signals_that_expire_together_are_written_off_over_several_turns() {
    let mut net = crowded(10);
    net.opens(1, 5, 1);
    net.joins(1, 5, 1);
    net.run();
    net.hears(1);
    net.swallows = vec![(1, 3)];
    (0..SLICE_PEERS + 10).for_each(|_| net.signals(1, 5, 10, 0));
    let relay = net.hubs.get_mut(&1).unwrap();
    relay.expire_outbound(hub(3), Now { at: net.now.at + RECEIPT_TIMEOUT, ..net.now });
    assert_eq!(std::iter::from_fn(|| relay.poll_output()).count(), SLICE_PEERS);
    assert_eq!(relay.hubs[&hub(3)].outbound.len(), 10);
}

#[test]
fn a_snapshot_has_the_state_at_its_start() {
    let mut net = crowded(250);
    let to_new = net.link_without_room();
    // The new hub accepts one part, and has no room for the other parts yet.
    net.input(3, RelayInput::Room { transport: to_new });
    net.run();
    assert_eq!(net.hubs[&3].stats.sent[EnvelopeKind::Snapshot as usize], 1);
    // Peer 11, which has been read, leaves. Peers that have not been read change, too. Peer 249 leaves, peer 200
    // returns in a new session, and peer 255 joins.
    net.leaves(3, 11, 1);
    net.leaves(3, 249, 1);
    net.leaves(3, 200, 1);
    net.opens(3, 200, 2);
    net.opens(3, 255, 1);
    net.joins(3, 255, 1);
    net.run();
    net.full.clear();
    net.input(3, RelayInput::Room { transport: to_new });
    net.run();
    net.pass(HEARTBEAT);
    let (sent, received) = (&net.hubs[&3], &net.hubs[&4]);
    assert_eq!((received.stats.snapshots[1], received.stats.snapshots_refused), (1, 0));
    let held = &received.hubs[&hub(3)].holding;
    assert_eq!((held.seq, held.digest), (sent.own.seq, sent.own.digest));
}

#[test]
fn a_snapshot_during_which_too_many_peers_change_is_declined() {
    let mut net = crowded(250);
    net.link_without_room();
    for peer in 240..=248 {
        assert_eq!(
            net.hubs[&3].links.iter().map(|(_, link)| link.queue().snapshots().len()).sum::<usize>(),
            1,
            "{peer}"
        );
        net.leaves(3, peer, 1);
    }
    assert_eq!(net.hubs[&3].links.iter().map(|(_, link)| link.queue().snapshots().len()).sum::<usize>(), 0);
    assert!(net.hubs[&3].stats.sent[EnvelopeKind::SnapshotDeclined as usize] > 0);
    net.full.clear();
    net.run();
    net.pass(HEARTBEAT * 3);
    assert_eq!(net.hubs[&4].hubs[&hub(3)].holding.digest, net.hubs[&3].own.digest);
}

impl Net {
    /// Links hub 4 with hub 3. The queue of hub 3 has no room for the snapshot that hub 4 requests.
    fn link_without_room(&mut self) -> Transport {
        self.start(4);
        let transport = Transport::Link(LinkId(self.next_link));
        self.full.push((3, transport));
        self.link(3, 4);
        assert_eq!(self.hubs[&3].stats.snapshots[0], 1);
        transport
    }
}

#[test]
fn the_end_of_a_legacy_link_reaches_the_shards_in_slices() {
    let mut net = crowded(10);
    let (link, next) = (LinkId(99), LinkId(98));
    net.input(1, RelayInput::LegacyUp { link, hub: hub(50), dialed: true });
    for peer in 100..150 {
        net.input(1, RelayInput::LegacyText { link, text: &super::legacy::discovered(peer, "n") });
    }
    net.run();
    net.hears(1);
    net.hears(2);
    net.pauses = vec![1];
    net.input(1, RelayInput::LinkDown { link });
    net.run();
    let begun = net.hears(1);
    assert_eq!(begun.len(), 2 * SLICE, "the first slice: {begun:?}");
    assert_eq!(net.hubs.get_mut(&1).unwrap().stats(net.now).unreconciled_hubs, 1);
    // A signal to a peer of the ended link fails, whether a peer of hub 1 or a peer of hub 3 sends it.
    net.opens(1, 5, 1);
    net.joins(1, 5, 1);
    net.signals(1, 5, 149, 1);
    assert_eq!(net.hears(1), ["left 149 n peer-disconnected", "nowhere 149", "outcome 149 peer-not-found"]);
    net.signals(3, 10, 148, 1);
    net.pass(HEARTBEAT);
    assert_eq!(net.hears(3).last().unwrap(), "outcome 148 peer-not-found");
    assert_eq!(net.hears(1), ["left 148 n peer-disconnected", "nowhere 148"]);
    // One peer returns on a new link, and another peer returns at another hub. Members receive the leave of each peer
    // before they discover it again.
    net.input(1, RelayInput::LegacyUp { link: next, hub: hub(50), dialed: true });
    net.input(1, RelayInput::LegacyText { link: next, text: &super::legacy::discovered(147, "n") });
    assert_eq!(net.hears(1), ["left 147 n peer-disconnected", "nowhere 147", "elsewhere 147", "joined 147 n"]);
    net.opens(2, 146, 1);
    net.joins(2, 146, 1);
    net.run();
    assert_eq!(net.hears(1), ["left 146 n peer-disconnected", "nowhere 146", "elsewhere 146", "joined 146 n"]);
    let heard = net.finish(1, 2 * SLICE);
    assert!(by_peer(&heard).keys().copied().eq(100 + SLICE as u8..=145), "{heard:?}");
    assert!(by_peer(&heard).values().all(|news| *news == ["left", "nowhere"]));
    assert_eq!((net.knows(1, 147), net.knows(1, 146), net.knows(1, 145)), (Some(hub(1)), Some(hub(2)), None));
    net.run();
    assert_eq!((net.knows(2, 147), net.knows(2, 145)), (Some(hub(1)), None));
}

#[test]
fn a_new_legacy_link_announces_older_peers_in_slices() {
    let mut net = crowded(59);
    let (link, transport) = (LinkId(99), Transport::Link(LinkId(99)));
    net.full.push((1, transport));
    net.input(1, RelayInput::LegacyUp { link, hub: hub(50), dialed: true });
    assert_eq!(net.announced(link), [0; 0], "the link has no room yet");
    net.input(1, RelayInput::LegacyText { link, text: &super::legacy::discovered(100, "n") });
    net.run();
    // Peer 58 is announced before its signal is sent. Peer 57 has left and is not announced. Peer 60 joins now and is
    // announced.
    net.signals(3, 58, 100, 1);
    net.leaves(3, 57, 1);
    net.opens(2, 60, 1);
    net.joins(2, 60, 1);
    net.pass(HEARTBEAT);
    assert_eq!(net.announced(link), [58]);
    net.input(1, RelayInput::Room { transport });
    let first = net.announced(link);
    assert_eq!(first, [10, 11, 60], "the slice examines four peers: the Go peer itself, the new peer 60, and two more");
    let mut announced = first;
    while announced.len() < 49 {
        net.input(1, RelayInput::Room { transport });
        let slice = net.announced(link);
        assert!((1..=SLICE).contains(&slice.len()), "{slice:?}");
        announced.extend(slice);
    }
    announced.sort_unstable();
    assert!(announced.into_iter().eq((10..=60).filter(|peer| ![57, 58].contains(peer))), "each peer is announced once");
    // Peers that join later are announced immediately.
    net.full.clear();
    net.input(1, RelayInput::Room { transport });
    net.opens(2, 61, 1);
    net.joins(2, 61, 1);
    net.run();
    assert_eq!(net.announced(link), [61]);
}

impl Net {
    /// The peers that were announced on a legacy link since the last call.
    fn announced(&mut self, link: LinkId) -> Vec<u8> {
        let told = self.told(link);
        let number = |text: &String| {
            let (_, rest) = text.split_once(r#""peerId":""#).unwrap();
            u8::from_str_radix(&rest[38..40], 16).unwrap()
        };
        told.iter().map(number).collect()
    }
}
