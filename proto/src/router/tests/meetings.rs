//! Tests of letters about meetings, from other shards and hubs.

use super::*;

/// A bounded member of another shard of this hub, which requests to know `closest` others.
fn at_another_shard(n: u8, closest: u8) -> ToShard {
    let claim = Claim { incarnation: PeerIncarnation(5), hub: HubId(peer(0)) };
    let stay = Stay { number: 1, discovery: Discovery::Closest(closest) };
    let ToShard::Joined(announcement) = joined(n, claim, stay) else { panic!() };
    ToShard::Joined(Arc::new(Announcement { remote: false, ..Announcement::clone(&announcement) }))
}

/// Passes the shard a letter that says that a peer of another shard or hub has joined or has met others. Returns the
/// answers, each with its peers and its kind.
fn meets(day: &mut Day, about: u8, others: &[u8], kind: MeetingKind) -> Vec<(Vec<u8>, MeetingKind)> {
    let stay_of = |n: u8| {
        let ix = day.router.rosters.find("n").unwrap();
        day.router.rosters.member(ix, &peer(n)).unwrap().announcement().stay.number
    };
    let others = others.iter().map(|n| (peer(*n), stay_of(*n))).collect();
    let (network, to) = (NetworkName::new("n"), MeetingEnd::Others);
    let meeting = Meeting { network, about: peer(about), stay: 1, others, to, kind };
    let mut answers = Vec::new();
    for output in day.hears(ToShard::Meeting(Arc::new(meeting))) {
        let meeting = if let Output::ToShard { letter: ToShard::Meeting(meeting), .. } = output {
            meeting
        } else if let Output::ToMesh(ToMesh::Meeting { meeting, .. }) = output {
            meeting
        } else {
            continue;
        };
        assert_eq!((meeting.about, meeting.to), (peer(about), MeetingEnd::About));
        answers.push((meeting.others.iter().map(|(other, _)| other.as_bytes()[0]).collect(), meeting.kind));
    }
    answers
}

#[test]
fn a_bounded_peer_of_another_shard_is_met_when_its_own_shard_introduces_it() {
    let (mut day, at) = Day::meshed(0);
    let (resident, newcomer) = (at(0, 20), at(1, 30));
    day.router.config.discovery = Discovery::Closest(4);
    day.opens(session(0, 0), resident);
    day.says(session(0, 0), ANNOUNCE);
    let known = |day: &Day| day.router.meetings.known();
    day.hears(at_another_shard(newcomer, 1));
    assert_eq!(known(&day), 0, "the announcement alone introduces nobody");
    assert_eq!(meets(&mut day, newcomer, &[], MeetingKind::Met), []);
    assert_eq!(known(&day), 0, "a meeting of the kind `Met` without other peers introduces nobody");
    assert_eq!(meets(&mut day, newcomer, &[], MeetingKind::Joined), [(vec![resident], MeetingKind::Met)]);
    assert_eq!(known(&day), 1);
    assert_eq!(meets(&mut day, newcomer, &[], MeetingKind::Joined), [], "the two peers already know each other");
}

#[test]
fn declined_meetings_are_answered_and_counted() {
    let (mut day, at) = Day::meshed(0);
    let resident = at(0, 20);
    day.router.config.discovery = Discovery::Closest(1);
    day.router.config.tuning.max_acquaintances = 1;
    day.opens(session(0, 0), resident);
    day.says(session(0, 0), ANNOUNCE);
    for n in [201, 202] {
        day.hears(joined(n, at_hub(9, 10), Stay { number: 1, discovery: Discovery::Closest(1) }));
    }
    let known = [201, 202].map(|n| meets(&mut day, n, &[resident], MeetingKind::Met));
    let kinds: Vec<MeetingKind> = known.iter().flatten().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, [MeetingKind::Agreed, MeetingKind::Declined]);
    assert_eq!(day.router.stats().meetings_declined, 1);
}
