//! Tests of bounded discovery in one shard, with picks, `discover`, full circles, and peers that are leaving.

use super::*;
use crate::limits::MAX_CLOSEST;

/// The peers that these outputs announce to a session (`+`) or report to it as left (`-`).
fn news(outputs: &[Output], to: SessionId) -> Vec<(char, u8)> {
    let line = |output: &Output| {
        let Output::Send { session, frame: Frame::Template(template), kind, .. } = output else { return None };
        let mut bytes = Vec::new();
        template.write_to(&mut bytes, &peer(0), WALL_MS);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // The subject is the first id in `peerId` or `fromPeerId` that is not peer 0, the receiver.
        let ids = text.split(r#"eerId":""#).skip(1).map(|hex| u8::from_str_radix(&hex[..2], 16).unwrap());
        let subject = ids.into_iter().find(|n| *n > 0)?;
        let sign = if *kind == MessageKind::PeerDiscovered { '+' } else { '-' };
        (*session == to).then_some((sign, subject))
    };
    outputs.iter().filter_map(line).collect()
}

impl Day {
    /// A hub with one shard. Each peer requests to know `closest` other peers, and knows at most `most`.
    fn of_circles(closest: u8, most: usize) -> Self {
        let mut day = Self::new(8);
        day.router.config.discovery = Discovery::from_closest(closest);
        day.router.config.tuning.max_acquaintances = most;
        day.router.config.tuning.random_picks = 0;
        day
    }

    fn joins_as(&mut self, n: u8, text: &str) -> Vec<Output> {
        self.opens(session(n.into(), 0), n);
        self.sends(n, text)
    }

    fn sends(&mut self, n: u8, text: &str) -> Vec<Output> {
        let input = Input::Message { session: session(n.into(), 0), text };
        self.router.handle_input(input, Now { at: self.now, wall_ms: WALL_MS });
        let outputs = std::iter::from_fn(|| self.router.poll_output()).collect();
        self.router.audit();
        outputs
    }

    /// The number of members that `discover` finds, and whether it could find more.
    fn discovers(&mut self, n: u8, limit: u64) -> (u64, bool) {
        let text = format!(r#"{{"type":"discover","networkName":"n","data":{{"limit":{limit}}}}}"#);
        self.sends(n, &text);
        let arena = String::from_utf8_lossy(self.router.arena()).into_owned();
        let field = |name: &str| arena.split(&format!(r#""{name}":"#)).nth(1).unwrap().to_owned();
        let digits: String = field("count").chars().take_while(char::is_ascii_digit).collect();
        (digits.parse().unwrap(), field("more").starts_with("true"))
    }

    fn offers(&mut self, n: u8, to: u8) -> Vec<Output> {
        self.sends(n, &format!(r#"{{"type":"offer","networkName":"n","targetPeerId":"{}"}}"#, peer(to)))
    }

    fn failures(&mut self, code: ErrorCode) -> u64 {
        self.router.stats().failed[code as usize]
    }
}

/// An announcement that requests to know two members. An announcement without this request gets the hub's discovery
/// mode.
const BOUNDED: &str = r#"{"type":"announce","networkName":"n","data":{"discover":{"closest":2}}}"#;

#[test]
fn discover_finds_the_other_members_page_by_page() {
    let mut day = Day::of_circles(1, 100);
    for n in 1..=8 {
        day.joins_as(n, ANNOUNCE);
    }
    let known = |day: &mut Day| {
        let ix = day.router.rosters.find("n").unwrap();
        u64::from(day.router.sessions.membership(session(1, 0), ix).unwrap().circle().unwrap().announced())
    };
    let left = 7 - known(&mut day);
    assert!(left >= 3, "{left}");
    assert_eq!(day.discovers(1, 2), (2, true));
    assert_eq!(day.discovers(1, 0), (1, left > 3), "a page has at least one member");
    assert_eq!(day.discovers(1, u64::MAX), (left - 3, false));
    assert_eq!(day.discovers(1, 5), (0, false));
    assert_eq!(known(&mut day), 7);
}

#[test]
fn an_unbounded_member_discovers_everyone() {
    let mut day = Day::of_circles(0, 100);
    for n in 1..=4 {
        day.joins_as(n, ANNOUNCE);
    }
    assert_eq!(day.discovers(1, 5), (0, false));
}

#[test]
fn a_peer_with_a_full_circle_signals_only_its_acquaintances() {
    let mut day = Day::of_circles(2, 2);
    for n in 1..=2 {
        day.joins_as(n, ANNOUNCE);
    }
    day.joins_as(3, ANNOUNCE);
    // Peers 1, 2 and 3 know each other, so their circles have no room for peer 4.
    assert_eq!(news(&day.joins_as(4, ANNOUNCE), session(4, 0)), []);
    let signal = [MessageKind::Signal(wire::SignalKind::Offer)];
    assert_eq!(told(&day.offers(1, 3)), signal);
    assert_eq!(told(&day.offers(1, 4)), [MessageKind::Error], "the sender's circle is full");
    assert_eq!(told(&day.offers(4, 1)), [MessageKind::Error], "the target's circle is full");
    assert_eq!(day.failures(ErrorCode::NetworkFull), 2);
    let more = r#"{"type":"discover","networkName":"n","data":{"limit":5}}"#;
    assert_eq!(told(&day.sends(1, more)), [MessageKind::Error]);
    assert_eq!(day.discovers(4, 5), (0, false));
    // When a peer leaves, the circles of the other peers have room again.
    day.closes(session(3, 0));
    assert!(told(&day.offers(4, 1)).contains(&signal[0]));
}

#[test]
fn unbounded_members_signal_each_other_however_full_their_circles_are() {
    let mut day = Day::of_circles(0, 1);
    day.joins_as(1, ANNOUNCE);
    day.joins_as(2, ANNOUNCE);
    // The bounded peer 3 fills the circle of the unbounded member that it meets.
    assert_eq!(news(&day.joins_as(3, BOUNDED), session(3, 0)).len(), 1);
    day.joins_as(4, ANNOUNCE);
    for (from, to) in [(1, 2), (2, 1), (1, 4), (4, 2)] {
        assert!(told(&day.offers(from, to)).contains(&MessageKind::Signal(wire::SignalKind::Offer)), "{from} to {to}");
    }
    assert_eq!(day.failures(ErrorCode::NetworkFull), 0);
}

#[test]
fn only_bounded_peers_in_their_current_stay_meet() {
    let mut day = Day::bounded(1);
    day.router.config.discovery = Discovery::All;
    day.says(session(0, 0), ANNOUNCE);
    let own = day.router.sessions.get(session(0, 0)).unwrap().memberships()[0].stay().number;
    let meets = |day: &mut Day, about: u8, stay: u64| {
        let (network, others) = (NetworkName::new("n"), vec![(peer(1), own)]);
        let (to, kind) = (MeetingEnd::Others, MeetingKind::Met);
        day.hears(ToShard::Meeting(Arc::new(Meeting { network, about: peer(about), stay, others, to, kind })))
    };
    day.hears(joined(9, at_hub(9, 10), Stay { number: 5, discovery: Discovery::All }));
    assert_eq!(meets(&mut day, 9, 5).len(), 0, "two unbounded peers do not meet");
    assert_eq!(meets(&mut day, 1, own).len(), 0, "a peer does not meet itself");
    day.hears(joined(8, at_hub(8, 10), Stay { number: 6, discovery: Discovery::Closest(1) }));
    assert_eq!(meets(&mut day, 8, 7).len(), 0, "the peer is in another stay");
    day.hears(joined(7, at_hub(7, 10), Stay { number: 6, discovery: Discovery::Closest(1) }));
    let known = day.router.meetings.known();
    assert!(!meets(&mut day, 7, 6).is_empty(), "the meeting is answered");
    assert!(day.router.meetings.known() >= known);
}

#[test]
fn a_newcomer_meets_every_peer_except_one_that_is_leaving() {
    let mut day = Day::of_circles(3, 100);
    day.router.config.tuning.turn_outputs = 1;
    for n in 1..=2 {
        day.opens(session(n.into(), 0), n);
        for network in ["a", "b", "n"] {
            day.sends(n, &format!(r#"{{"type":"announce","networkName":"{network}"}}"#));
        }
    }
    day.joins_as(3, ANNOUNCE);
    // Peer 1 has left all its networks, and the members of "n" are notified later.
    day.sends(1, r#"{"type":"goodbye"}"#);
    assert!(!day.router.leaving.is_empty());
    let met = news(&day.joins_as(4, ANNOUNCE), session(4, 0));
    assert!(met.contains(&('+', 2)) && met.contains(&('+', 3)), "{met:?}");
    let mut rest = Vec::new();
    while said_more(&mut day, &mut rest) {}
    let all: Vec<_> = met.into_iter().chain(news(&rest, session(4, 0))).collect();
    let of_leaver: Vec<_> = all.iter().filter(|(_, n)| *n == 1).map(|(sign, _)| *sign).collect();
    assert!(of_leaver.is_empty() || of_leaver == ['+', '-'], "{all:?}");
    let ix = day.router.rosters.find("n").unwrap();
    for n in [2, 3] {
        let circle = day.router.sessions.membership(session(n, 0), ix).and_then(|m| m.circle()).unwrap();
        assert!(circle.knows(&peer(4)) && !circle.knows(&peer(1)), "{n}");
    }
}

/// Does the next slice. Returns whether there is another one.
fn said_more(day: &mut Day, all: &mut Vec<Output>) -> bool {
    day.router.handle_input(Input::Continue, Now { at: day.now, wall_ms: WALL_MS });
    let outputs: Vec<Output> = std::iter::from_fn(|| day.router.poll_output()).collect();
    let more = outputs.iter().any(|output| matches!(output, Output::Unfinished));
    all.extend(outputs);
    more
}

/// A peer that is the `n`th closest to peer 0.
fn near(n: u32) -> PeerId {
    let mut id = [0; 20];
    id[16..].copy_from_slice(&n.to_be_bytes());
    PeerId::from_bytes(id)
}

#[test]
fn a_pick_skips_acquaintances_and_members_that_cannot_be_picked() {
    const KNOWN: u32 = 960;
    const LEGACY: u32 = 240;
    let mut day = Day::of_circles(1, 1024);
    day.router.config.max_peers_per_network = 10_000;
    let seeker = session(0, 0);
    let opens = |day: &mut Day, n: u32| {
        let id = session(n, 0);
        day.input(Input::Opened { session: id, peer: near(n), seat: true, resume: None, owner: false, grant: None });
        day.router.handle_input(Input::Message { session: id, text: ANNOUNCE }, Now { at: day.now, wall_ms: WALL_MS });
        while day.router.poll_output().is_some() {}
    };
    // The closest members are peers of a Go hub, which cannot be picked. After these peers, the closest members are
    // members that the seeker already knows.
    for n in 1..=LEGACY {
        let data = codec::describe(&near(n), None).unwrap();
        let discovered = Arc::new(wire::peer_discovered(&data, PeerIncarnation::LEGACY, "n", 0));
        let claim = Claim { incarnation: PeerIncarnation::LEGACY, hub: HubId(peer(9)) };
        let (network, stay) = (NetworkName::new("n"), Stay { number: 0, discovery: Discovery::All });
        let announcement = Announcement { peer: near(n), network, claim, remote: true, stay, discovered };
        day.input(Input::Letter(ToShard::Joined(Arc::new(announcement))));
    }
    opens(&mut day, 0);
    for n in LEGACY + 1..=LEGACY + KNOWN + 1 {
        opens(&mut day, n);
    }
    let ix = day.router.rosters.find("n").unwrap();
    let known =
        |day: &Day| day.router.sessions.membership(seeker, ix).and_then(|m| m.circle()).map_or(0, |c| c.announced());
    let page = r#"{"type":"discover","networkName":"n","data":{"limit":64}}"#;
    let mut before = known(&day);
    while known(&day) < KNOWN + 1 {
        day.says(seeker, page);
        assert!(known(&day) > before, "{before} of {}", KNOWN + 1);
        assert!(known(&day) - before <= u32::from(MAX_CLOSEST));
        before = known(&day);
    }
}
