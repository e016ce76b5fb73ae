//! Tests of meetings between peers of two hubs. A hub may send meetings only for its own peers.

use super::numbers::{receives, triangle};
use super::*;
use crate::envelope::{RouteHeader, Routed};
use crate::router::{Meeting, MeetingEnd, MeetingKind};

fn meeting(about: u8, others: &[u8], to: MeetingEnd) -> Arc<Meeting> {
    let others = others.iter().map(|n| (id(*n), 1)).collect();
    Arc::new(Meeting { network: NetworkName::new("n"), about: id(about), stay: 1, others, to, kind: MeetingKind::Met })
}

/// Passes a meeting in the name of hub 1 to hub 2. Returns the peers of the meetings that the shard of hub 2 receives,
/// as pairs of `about` and `others`.
fn met(net: &mut Net, life: HubIncarnation, meeting: Arc<Meeting>) -> Vec<(u8, Vec<u8>)> {
    let to_incarnation = net.hubs[&2].incarnation();
    let route = RouteHeader { to: hub(2), to_incarnation, from: hub(1), from_incarnation: life, hops: 1 };
    let relay = net.hubs.get_mut(&2).unwrap();
    let via = Hop::Link(relay.links.used_for(&hub(3)).unwrap());
    let envelope = Envelope::Routed(route, Box::new(Routed::Meeting(meeting)));
    relay.handle_input(RelayInput::Received { via, envelope }, net.now);
    let digit = |peer: &PeerId| peer.as_bytes()[19];
    let posted = std::iter::from_fn(|| relay.poll_output()).filter_map(|output| {
        let RelayOutput::Letter { letter: ToShard::Meeting(meeting), .. } = output else { return None };
        Some((digit(&meeting.about), meeting.others.iter().map(|(other, _)| digit(other)).collect()))
    });
    posted.collect()
}

#[test]
fn a_hub_reports_meetings_of_its_own_peers_only() {
    let mut net = triangle();
    let life = net.hubs[&1].incarnation();
    for (about, others, to, expected) in [
        (11, vec![12], MeetingEnd::Others, vec![(11, vec![12])]),
        (13, vec![12], MeetingEnd::Others, vec![]),
        (12, vec![12], MeetingEnd::Others, vec![]),
        (12, vec![11, 13], MeetingEnd::About, vec![(12, vec![11])]),
        (12, vec![13], MeetingEnd::About, vec![(12, vec![])]),
    ] {
        assert_eq!(met(&mut net, life, meeting(about, &others, to)), expected, "{about} {others:?} {to:?}");
    }
}

#[test]
fn a_meeting_of_an_ended_incarnation_has_no_effect() {
    let mut net = triangle();
    let earlier = HubIncarnation(net.hubs[&1].incarnation().0 - 1);
    assert_eq!(met(&mut net, earlier, meeting(11, &[12], MeetingEnd::Others)), []);
}

#[test]
fn a_meeting_is_sent_to_a_live_hub_over_a_hop_with_room() {
    let mut net = triangle();
    let sent = |net: &Net| net.hubs[&1].stats.sent[EnvelopeKind::Meeting as usize];
    let post = |net: &mut Net, to| {
        net.letter(1, ToMesh::Meeting { hub: to, meeting: meeting(11, &[12], MeetingEnd::Others) });
    };
    post(&mut net, hub(2));
    assert_eq!((sent(&net), net.hears(2)), (1, vec!["meeting 11 Others Met".to_owned()]));
    post(&mut net, hub(99));
    assert_eq!(sent(&net), 1, "there is no such hub");
    for other in [2, 3] {
        let link = net.hubs[&1].links.used_for(&hub(other)).unwrap();
        net.full.push((1, Transport::Link(link)));
        net.input(1, RelayInput::Saturated { transport: Transport::Link(link) });
    }
    post(&mut net, hub(2));
    assert_eq!((sent(&net), net.hears(2)), (1, vec![]), "the meeting is dropped, and its sender repeats it");
}

/// An outcome without a signal arrives if another hub answers a forged signal.
#[test]
fn outcomes_for_which_no_signal_waits_are_counted() {
    let mut net = triangle();
    let lives = [1, 2].map(|n| net.hubs[&n].incarnation());
    let route = RouteHeader { to: hub(1), to_incarnation: lives[0], from: hub(2), from_incarnation: lives[1], hops: 1 };
    for expected in 1..=2 {
        let outcomes = Routed::Outcomes(vec![(77, Outcome::Delivered)]);
        receives(&mut net, 1, Envelope::Routed(route, Box::new(outcomes)));
        assert_eq!(net.hubs[&1].stats.late_outcomes, expected);
    }
    assert_eq!(net.hears(1), [""; 0]);
}
