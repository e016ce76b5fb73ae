//! Tests of the maximum sizes, in bytes, of the data that a hub stores for other hubs.

use super::numbers::{forged_signal, receives, triangle};
use super::*;
use crate::envelope::{Change, ChangeKind};
use crate::limits::{GAP_PATIENCE, HOLD, MAX_ANNOUNCE_DATA_BYTES, MEMBER_BYTES, REMOTE_PEER_BYTES};
use crate::relay::holding::PresenceRefusal;

/// Three hubs. Hub 1 is linked with hubs 2 and 3, and stores at most this number of bytes of their presence.
fn small(presence_bytes: usize) -> Net {
    let mut net = Net::new(0);
    net.start(2);
    net.start(3);
    net.presence_bytes = presence_bytes;
    net.start(1);
    net.link(1, 2);
    net.link(1, 3);
    net.pass(2 * HEARTBEAT);
    net
}

fn large() -> String {
    format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_ANNOUNCE_DATA_BYTES - 20))
}

fn refused(net: &Net, limit: PresenceRefusal) -> u64 {
    net.hubs[&1].stats.presence_refused[limit as usize]
}

fn stored(net: &mut Net) -> u64 {
    let now = net.now;
    net.hubs.get_mut(&1).unwrap().audit();
    net.hubs.get_mut(&1).unwrap().stats(now).presence_bytes
}

fn joins_with(net: &mut Net, n: u8, peer: u8, data: &str) {
    net.opens(n, peer, 0);
    net.announces_data(n, peer, 0, Stay::default(), Some(data));
}

#[test]
fn one_hub_uses_at_most_half_of_the_presence_budget() {
    const MOST: usize = 200_000;
    let mut net = small(MOST);
    net.joins(3, 200, 0);
    (10..40).for_each(|peer| joins_with(&mut net, 2, peer, &large()));
    let held = net.hubs[&1].hubs[&hub(2)].holding.bytes();
    assert!(held <= MOST / 2 && held + MAX_ANNOUNCE_DATA_BYTES + REMOTE_PEER_BYTES + 1_000 > MOST / 2, "{held}");
    assert!(refused(&net, PresenceRefusal::Bytes) > 0);
    let full = held / (MAX_ANNOUNCE_DATA_BYTES + REMOTE_PEER_BYTES);
    assert_eq!(net.hears(1).iter().filter(|line| line.starts_with("joined")).count(), 1 + full);
    // Peers that announce little data still fit. A snapshot of hub 2 does not fit.
    net.pass(20 * HEARTBEAT);
    assert!(stored(&mut net) <= MOST as u64 / 2 + 2_000);
    assert!(net.hubs[&1].stats.snapshots_refused > 0);
    assert_eq!(net.hubs[&1].locate(&id(200)), Some(hub(3)));
    // There is room for peers of hub 3.
    net.joins(3, 201, 0);
    joins_with(&mut net, 3, 202, &large());
    assert_eq!(net.hubs[&1].locate(&id(202)), Some(hub(3)));
    assert!(net.hubs[&1].membership(&id(202), &NetworkName::new("n")).is_some());
    // When the peers with large announcements have left, the remaining peer of hub 2 becomes known.
    (10..40).for_each(|peer| net.leaves(2, peer, 0));
    net.joins(2, 50, 0);
    net.pass(20 * HEARTBEAT);
    assert_eq!(net.hubs[&1].locate(&id(50)), Some(hub(2)));
    let least = (4 * (REMOTE_PEER_BYTES + MEMBER_BYTES) + MAX_ANNOUNCE_DATA_BYTES) as u64;
    let now = stored(&mut net);
    assert!((least..least + 4_000).contains(&now), "{now} bytes, expected {least} or a little more");
    net.nothing_is_left();
    // A lost hub uses none of the budget.
    net.kill(3);
    net.kill(2);
    net.pass(GONE);
    assert_eq!(stored(&mut net), 0);
}

#[test]
fn an_announcement_beyond_the_byte_limit_does_not_replace_a_smaller_one() {
    let mut net = small(20_000);
    net.joins(2, 10, 0);
    let before = stored(&mut net);
    net.announces_data(2, 10, 0, Stay::default(), Some(&large()));
    assert_eq!((stored(&mut net), refused(&net, PresenceRefusal::Bytes)), (before, 1));
    assert!(net.hubs[&1].membership(&id(10), &NetworkName::new("n")).is_some(), "the earlier announcement stays");
}

#[test]
fn changes_that_wait_for_an_earlier_change_are_limited_in_bytes() {
    let mut net = Net::new(0);
    net.tuning.max_ahead_bytes = 100_000;
    net.start(1);
    net.start(2);
    net.link(1, 2);
    net.pass(2 * HEARTBEAT);
    // The first change is lost, and the later changes wait for it.
    net.loses = |envelope| matches!(envelope, Envelope::Change(change) if change.seq == 1);
    net.opens(2, 10, 0);
    net.loses = |_| false;
    for peer in 11..30 {
        joins_with(&mut net, 2, peer, &large());
    }
    let relay = &net.hubs[&1];
    let kept = relay.hubs[&hub(2)].ahead.bytes();
    assert!(kept <= 50_000 && kept + MAX_ANNOUNCE_DATA_BYTES + 1_000 > 50_000, "{kept}");
    assert!(refused(&net, PresenceRefusal::ChangesAhead) > 0);
    net.hubs.get_mut(&1).unwrap().audit();
    net.pass(HEARTBEAT + 2 * GAP_PATIENCE);
    let (own, replica) = (&net.hubs[&2].own, &net.hubs[&1].hubs[&hub(2)].holding);
    assert_eq!((own.seq, own.digest, 0), (replica.seq, replica.digest, net.hubs[&1].hubs[&hub(2)].ahead.bytes()));
    net.nothing_is_left();
}

#[test]
fn a_change_that_arrives_frees_the_changes_that_waited_for_it() {
    let mut net = triangle();
    let (seq, incarnation) = (net.hubs[&1].own.seq, net.hubs[&1].incarnation());
    let change = |seq: u64, n: u8| {
        let (hub, session) = (hub(1), PeerIncarnation(1));
        Envelope::Change(Arc::new(Change { hub, incarnation, seq, peer: id(n), session, kind: ChangeKind::Up }))
    };
    receives(&mut net, 2, change(seq + 2, 102));
    assert_eq!(net.hubs[&2].hubs[&hub(1)].ahead.bytes(), MEMBER_BYTES);
    receives(&mut net, 2, change(seq + 1, 101));
    assert_eq!(net.hubs[&2].hubs[&hub(1)].ahead.bytes(), 0);
    net.hubs.get_mut(&2).unwrap().audit();
}

#[test]
fn signals_that_wait_for_an_earlier_signal_are_limited_in_bytes() {
    let mut net = triangle();
    net.hubs.get_mut(&2).unwrap().budgets.limit_held(8 * (MEMBER_BYTES + 1_000));
    // The signal with counter 1 never arrives.
    for counter in 2..20 {
        let forged = forged_signal(&net, counter);
        receives(&mut net, 2, forged);
    }
    let remote = &net.hubs[&2].hubs[&hub(1)];
    let held = remote.inbound.bytes();
    assert!(held <= 4 * (MEMBER_BYTES + 1_000) && remote.inbound.len() >= 4, "{held} bytes");
    let refused = 18 - remote.inbound.len() as u64;
    assert!(refused > 0);
    assert_eq!(net.hubs[&2].stats.signals_not_held, refused);
    net.hubs.get_mut(&2).unwrap().audit();
    net.pass(HOLD + HEARTBEAT);
    assert_eq!(net.hubs[&2].hubs[&hub(1)].inbound.bytes(), 0);
    net.hubs.get_mut(&2).unwrap().audit();
}
