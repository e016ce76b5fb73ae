//! Tests of peers that meet a new member although it did not pick them, and of replacements for acquaintances that
//! leave.

use std::collections::BTreeSet;

use super::*;
use crate::limits::{MAX_CLOSEST, MAX_DECLINED};
use crate::router::circle::Bond;

const SMALL: usize = MAX_CLOSEST as usize + 1;
const NEWCOMER: PeerId = nth(0);

/// The peer at this distance from [`NEWCOMER`].
const fn nth(n: u32) -> PeerId {
    let mut id = [0; 20];
    let bytes = n.to_be_bytes();
    (id[16], id[17], id[18], id[19]) = (bytes[0], bytes[1], bytes[2], bytes[3]);
    PeerId::from_bytes(id)
}

fn at_other_hub(n: u32, incarnation: u64, discovery: Discovery) -> ToShard {
    let ToShard::Joined(announcement) = joined(1, at_hub(9, incarnation), Stay { number: 1, discovery }) else {
        panic!()
    };
    let peer = nth(n);
    let data = codec::describe(&peer, None).unwrap();
    let discovered = Arc::new(wire::peer_discovered(&data, PeerIncarnation::LEGACY, "n", 0));
    ToShard::Joined(Arc::new(Announcement { peer, discovered, ..Announcement::clone(&announcement) }))
}

struct Shard {
    day: Day,
    /// The sessions of this shard in network `n`, by their distance from the new member.
    here: Vec<u32>,
}

impl Shard {
    fn new() -> Self {
        let mut day = Day::new(8);
        day.router.config.meshed = true;
        day.router.config.max_peers_per_network = 10_000;
        day.router.config.tuning.random_picks = 0;
        Self { day, here: Vec::new() }
    }

    /// A peer joins on this shard. The peer requests to know `closest` other members, or all members if `closest` is 0.
    fn joins(&mut self, n: u32, closest: u8) -> Vec<Output> {
        let opened =
            Input::Opened { session: session(n, 0), peer: nth(n), seat: true, resume: None, owner: false, grant: None };
        self.day.input(opened);
        self.here.push(n);
        self.day.router.config.discovery = Discovery::from_closest(closest);
        self.says(n, ANNOUNCE)
    }

    fn says(&mut self, n: u32, text: &str) -> Vec<Output> {
        let input = Input::Message { session: session(n, 0), text };
        self.day.router.handle_input(input, Now { at: self.day.now, wall_ms: WALL_MS });
        std::iter::from_fn(|| self.day.router.poll_output()).collect()
    }

    fn leaves(&mut self, n: u32) -> Vec<Output> {
        self.here.retain(|other| *other != n);
        let closed = Input::Closed { session: session(n, 0), reason: CloseReason::ClientClosed };
        self.day.router.handle_input(closed, Now { at: self.day.now, wall_ms: WALL_MS });
        std::iter::from_fn(|| self.day.router.poll_output()).collect()
    }

    fn others_arrive(&mut self, members: impl IntoIterator<Item = u32>, incarnation: u64) {
        for n in members {
            self.day.hears(at_other_hub(n, incarnation, Discovery::Closest(1)));
        }
    }

    fn knows(&self, n: u32, other: u32) -> bool {
        let ix = self.day.router.rosters.find("n").unwrap();
        let membership = self.day.router.sessions.membership(session(n, 0), ix).unwrap();
        membership.circle().is_some_and(|circle| circle.knows(&nth(other)))
    }

    /// The peers of this shard that know a member.
    fn knowers(&self, other: u32) -> BTreeSet<u32> {
        self.here.iter().copied().filter(|n| self.knows(*n, other)).collect()
    }

    /// How many others a peer of this shard knows.
    fn acquaintances(&self, n: u32) -> usize {
        let ix = self.day.router.rosters.find("n").unwrap();
        let membership = self.day.router.sessions.membership(session(n, 0), ix).unwrap();
        membership.circle().map_or(0, |circle| circle.announced() as usize)
    }
}

/// The members of this shard. The first number of each pair is the distance from the new member. The second number is
/// the number of members that the peer requests to know.
const RESIDENTS: [(u32, u8); 8] = [(2, 3), (4, 0), (6, 1), (12, 0), (40, 3), (62, 3), (66, 3), (100, 3)];

/// A network with `len` members. Each member on this shard knows at most one other member. After this function, each
/// member may know 100 others.
fn network(len: u32) -> Shard {
    let mut shard = Shard::new();
    shard.day.router.config.tuning.max_acquaintances = 1;
    for (n, closest) in RESIDENTS.into_iter().filter(|(n, _)| *n <= len) {
        shard.joins(n, closest);
    }
    let here = shard.here.clone();
    shard.others_arrive((1..=len).filter(|n| *n != LEGACY && !here.contains(n)), 10);
    shard.others_arrive([LEGACY], 0);
    shard.day.router.config.tuning.max_acquaintances = 100;
    shard
}

/// A member of a Go hub, which nobody can pick.
const LEGACY: u32 = 3;

/// The members of this shard that must meet a new member. `closest` is the number of members that the new member
/// requests to know, or 0 for all. A bounded new member meets its picks. If the network is small, or the new member is
/// unbounded, the new member also meets close members that know fewer others than they requested.
fn expected(shard: &Shard, len: u32, closest: u32) -> BTreeSet<u32> {
    let order: Vec<u32> = (1..=len).filter(|n| *n != LEGACY).collect();
    let nearby = &order[..order.len().min(MAX_CLOSEST.into())];
    let picks = &order[..order.len().min(closest as usize)];
    let all_look = closest == 0 || (len as usize) < SMALL;
    let wants_more = |n: u32, wanted: u8| shard.acquaintances(n) < usize::from(wanted);
    let meets =
        |&(n, wanted): &(u32, u8)| picks.contains(&n) || all_look && nearby.contains(&n) && wants_more(n, wanted);
    RESIDENTS.into_iter().filter(|(n, _)| *n <= len).filter(meets).map(|(n, _)| n).collect()
}

#[test]
fn a_new_member_meets_its_picks_and_close_members_that_know_too_few_others() {
    for len in [12, 62, 63, 64, 65, 66, 130] {
        for closest in [0, 4, 13, 60] {
            for is_here in [false, true] {
                let mut shard = network(len);
                let expected = expected(&shard, len, closest);
                let outputs = if is_here {
                    let outputs = shard.joins(0, closest as u8);
                    shard.here.retain(|n| *n != 0);
                    outputs
                } else {
                    shard.day.hears(at_other_hub(0, 10, Discovery::from_closest(closest as u8)))
                };
                assert_eq!(shard.knowers(0), expected, "{len} members, closest {closest}, here: {is_here}");
                if !is_here {
                    // A bounded peer's own hub introduces the peer to its picks. An unbounded peer has no picks, so
                    // this hub introduces it.
                    let asked = said_to_hubs(outputs);
                    assert_eq!(asked.len(), if closest == 0 { expected.len() } else { 0 }, "{len}, {closest}");
                }
                shard.day.router.audit();
            }
        }
    }
}

#[test]
fn a_bounded_peer_of_another_hub_meets_its_picks_although_all_of_them_are_unbounded() {
    let mut shard = Shard::new();
    (1..=4).for_each(|n| drop(shard.joins(n, 0)));
    shard.day.hears(at_other_hub(0, 10, Discovery::Closest(2)));
    assert_eq!(shard.knowers(0), BTreeSet::from([1, 2]));
}

#[test]
fn a_bounded_number_of_members_is_examined_for_a_new_member() {
    for (legacy, is_found) in [(1200, true), (1300, false)] {
        let mut shard = Shard::new();
        shard.others_arrive(1..=legacy, 0);
        shard.joins(2000, 3);
        assert_eq!(shard.acquaintances(2000), 0);
        shard.day.hears(at_other_hub(0, 10, Discovery::All));
        assert_eq!(shard.knowers(0).len(), usize::from(is_found), "a new member of another hub, {legacy}");
        let mut shard = Shard::new();
        shard.others_arrive(1..=legacy, 0);
        shard.joins(2000, 0);
        shard.joins(0, 3);
        assert_eq!(shard.acquaintances(0), usize::from(is_found), "a new member of this shard, {legacy}");
    }
}

/// Eight unbounded peers on this shard, and the peer [`NEWCOMER`], which requests to know two members.
fn crowd_of_eight() -> Shard {
    let mut shard = Shard::new();
    for n in 1..=8 {
        shard.joins(n, 0);
    }
    shard.joins(0, 2);
    assert!(shard.knows(0, 1) && shard.knows(0, 2) && shard.acquaintances(0) == 2);
    shard
}

#[test]
fn a_pick_that_leaves_is_replaced_by_the_next_closest_member() {
    let mut shard = crowd_of_eight();
    let outputs = shard.leaves(1);
    assert_eq!(told_to(&outputs, 0), [MessageKind::PeerDisconnected, MessageKind::PeerDiscovered]);
    assert!(shard.knows(0, 3) && shard.acquaintances(0) == 2);
    assert!(shard.knows(3, 0), "the replacement also knows the peer");
    assert_eq!(told_to(&outputs, 3), [MessageKind::PeerDisconnected, MessageKind::PeerDiscovered]);
    shard.day.router.audit();
}

#[test]
fn a_random_pick_that_leaves_is_replaced() {
    let mut shard = Shard::new();
    for n in 1..=8 {
        shard.joins(n, 0);
    }
    shard.day.router.config.tuning.random_picks = 1;
    shard.joins(0, 1);
    assert!(shard.knows(0, 1) && shard.acquaintances(0) == 2);
    for _ in 0..5 {
        let random = (2..=8).find(|n| shard.knows(0, *n)).unwrap();
        shard.leaves(random);
        assert!(shard.knows(0, 1) && shard.acquaintances(0) == 2, "after {random}");
    }
}

#[test]
fn an_acquaintance_that_is_no_pick_is_replaced_only_if_too_few_others_are_left() {
    let offer = format!(r#"{{"type":"offer","networkName":"n","targetPeerId":"{NEWCOMER}"}}"#);
    let mut shard = crowd_of_eight();
    shard.says(8, &offer);
    assert!(shard.knows(0, 8) && shard.acquaintances(0) == 3);
    let outputs = shard.leaves(8);
    assert_eq!(told_to(&outputs, 0), [MessageKind::PeerDisconnected]);
    assert_eq!(shard.acquaintances(0), 2, "the peer still knows as many members as it requested");

    let mut shard = Shard::new();
    for n in 1..=8 {
        shard.joins(n, 0);
    }
    shard.day.router.config.tuning.max_acquaintances = 1;
    shard.joins(0, 2);
    shard.day.router.config.tuning.max_acquaintances = 100;
    shard.says(8, &offer);
    assert!(shard.knows(0, 1) && shard.knows(0, 8) && shard.acquaintances(0) == 2);
    let outputs = shard.leaves(8);
    assert_eq!(told_to(&outputs, 0), [MessageKind::PeerDisconnected, MessageKind::PeerDiscovered]);
    assert!(shard.knows(0, 2) && shard.acquaintances(0) == 2);
}

#[test]
fn a_peer_that_announces_itself_again_receives_its_acquaintances_again() {
    let mut shard = crowd_of_eight();
    let outputs = shard.says(0, ANNOUNCE);
    assert_eq!(told_to(&outputs, 0), [MessageKind::PeerDiscovered; 2]);
}

#[test]
fn members_that_decline_beyond_the_bound_are_forgotten_by_both_sides() {
    let mut shard = Shard::new();
    let most = MAX_DECLINED as u32;
    shard.joins(0, 1);
    for n in 1..=most + 3 {
        shard.day.hears(at_other_hub(n, 10, Discovery::All));
    }
    let ix = shard.day.router.rosters.find("n").unwrap();
    let now = Now { at: shard.day.now, wall_ms: WALL_MS };
    let knowers = |shard: &Shard, n| shard.day.router.rosters.member(ix, &nth(n)).unwrap().knowers().len();
    shard.day.router.config.tuning.max_acquaintances = 1;
    for n in 2..=most + 3 {
        shard.day.router.config.tuning.max_acquaintances = 100;
        shard.day.router.meet(session(0, 0), ix, nth(n), Bond::Met);
        shard.day.router.config.tuning.max_acquaintances = 1;
        shard.day.router.part_as_crowded(session(0, 0), ix, nth(n), now);
        while shard.day.router.poll_output().is_some() {}
        assert_eq!(
            knowers(&shard, n),
            usize::from(n < most + 2),
            "member {n} lists the peer as a knower only while the member's decline is remembered"
        );
        shard.day.router.audit();
    }
}

#[test]
fn no_meetings_are_sent_for_peers_of_go_hubs() {
    let mut shard = Shard::new();
    shard.joins(0, 1);
    shard.others_arrive([1], 10);
    shard.others_arrive([2], 0);
    assert!(shard.knows(0, 1) && !shard.knows(0, 2));
    let signal = |n| {
        let sender = Sender::Hub { hub: 1, counter: 1, receipt: false };
        let (kind, network) = (wire::SignalKind::Offer, NetworkName::new("n"));
        let origin = Origin { sender, kind, network, standing: Standing::Member(1), read_at: Duration::ZERO };
        ToShard::Signal(SignalLetter { origin, from: nth(n), target: NEWCOMER, frame: Box::from(*b"{}") })
    };
    assert_eq!(said_to_hubs(shard.day.hears(signal(2))), []);
    assert!(shard.knows(0, 2));
    shard.others_arrive([5], 10);
    assert_eq!(
        said_to_hubs(shard.day.hears(signal(5))),
        [MeetingKind::Met],
        "a meeting is sent to a hub of this version"
    );
    // After the answers of the other hubs, only the periodic meetings are sent.
    let stay = shard.day.router.sessions.get(session(0, 0)).unwrap().memberships()[0].stay().number;
    for n in [1, 5] {
        let (network, others) = (NetworkName::new("n"), vec![(nth(n), 1)]);
        let (to, kind) = (MeetingEnd::About, MeetingKind::Agreed);
        let meeting = Meeting { network, about: NEWCOMER, stay, others, to, kind };
        shard.day.hears(ToShard::Meeting(Arc::new(meeting)));
    }
    let mut reminded = Vec::new();
    let until = shard.day.now + crate::limits::MEETING_AGAIN + Duration::from_secs(5);
    while let Some(at) = shard.day.router.poll_timeout().filter(|at| *at <= until) {
        shard.day.now = shard.day.now.max(at);
        shard.day.router.handle_timeout(Now { at: shard.day.now, wall_ms: WALL_MS });
        while let Some(output) = shard.day.router.poll_output() {
            if let Output::ToMesh(ToMesh::Meeting { meeting, .. }) = output {
                reminded.extend(meeting.others.iter().map(|(other, _)| *other));
            }
        }
    }
    assert!(reminded.contains(&nth(1)) && reminded.contains(&nth(5)), "{reminded:?}");
    assert!(!reminded.contains(&nth(2)), "{reminded:?}");
}
