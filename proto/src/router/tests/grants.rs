//! Tests of the rights that a grant gives to a session, and of the renewal and expiry of its token. Also tests of
//! observers.

use super::*;
use crate::grant::{Grant, Rights};
use crate::limits::{MAX_GRANT_CLASS_BYTES, MAX_NETWORK_NAME_BYTES, MEMBER_BYTES, TOKEN_WARNING};
use crate::{Acted, KickedFrom, Order};

const OBSERVER: Rights = Rights { join: false, observe: true, signal: false };
const EVERY_RIGHT: Rights = Rights { join: true, observe: true, signal: true };
const AUTH: &str = r#"{"type":"auth","data":{"token":"new"}}"#;

fn grant(rules: &[(&str, Rights)]) -> Grant {
    let mut grant = Grant::nowhere();
    for (network, rights) in rules {
        grant.allow(network, *rights).unwrap();
    }
    grant
}

/// A grant that ends this number of seconds after the start of the test.
fn for_secs(secs: u64) -> Grant {
    Grant::everywhere().until(WALL_MS + secs * 1000)
}

impl Day {
    fn takes(&mut self, input: Input<'_>) -> Vec<Output> {
        self.router.handle_input(input, Now { at: self.now, wall_ms: WALL_MS });
        let outputs = std::iter::from_fn(|| self.router.poll_output()).collect();
        self.router.audit();
        outputs
    }

    fn opens_with(&mut self, slot: u32, n: u8, owner: bool, grant: Option<Grant>) -> Vec<Output> {
        let (session, grant) = (session(slot, 0), grant.map(Box::new));
        self.takes(Input::Opened { session, peer: peer(n), seat: true, resume: None, owner, grant })
    }

    fn hears_from(&mut self, slot: u32, text: &str) -> Vec<Output> {
        self.takes(Input::Message { session: session(slot, 0), text })
    }

    fn checked(&mut self, slot: u32, grant: Result<Grant, &'static str>) -> Vec<Output> {
        self.takes(Input::Authorized { session: session(slot, 0), grant: grant.map(Box::new) })
    }

    fn waits(&mut self, until: Duration) -> Vec<Output> {
        self.now = until;
        self.router.handle_timeout(Now { at: self.now, wall_ms: WALL_MS });
        std::iter::from_fn(|| self.router.poll_output()).collect()
    }

    fn errors(&mut self, code: ErrorCode) -> u64 {
        self.router.stats().errors[code as usize]
    }
}

fn checks(outputs: &[Output]) -> Vec<(SessionId, PeerId, &str)> {
    let mut found = Vec::new();
    for output in outputs {
        if let Output::Authorize { session, peer, token } = output {
            found.push((*session, *peer, &**token));
        }
    }
    found
}

#[test]
fn one_new_token_is_checked_at_a_time() {
    let mut day = Day::new(8);
    day.opens_with(0, 1, false, Some(for_secs(1000)));
    assert_eq!(checks(&day.hears_from(0, AUTH)), [(session(0, 0), peer(1), "new")]);
    let second = day.hears_from(0, AUTH);
    assert_eq!((checks(&second), told(&second)), (vec![], vec![MessageKind::Error]));
    assert_eq!(day.errors(ErrorCode::RateLimited), 1);
    assert_eq!(told(&day.checked(0, Err("it is wrong"))), [MessageKind::Error]);
    assert_eq!(day.errors(ErrorCode::Unauthorized), 1);
    assert_eq!(checks(&day.hears_from(0, AUTH)).len(), 1, "the first check has ended");
    assert_eq!(told(&day.checked(0, Ok(for_secs(2000)))), [MessageKind::Authorized]);
    assert_eq!(checks(&day.hears_from(0, AUTH)).len(), 1);
}

#[test]
fn a_session_without_a_token_cannot_renew_a_token() {
    let mut day = Day::new(8);
    day.opens_with(0, 1, false, None);
    let outputs = day.hears_from(0, AUTH);
    assert_eq!((checks(&outputs), told(&outputs)), (vec![], vec![MessageKind::Error]));
    assert_eq!(day.errors(ErrorCode::NotAllowed), 1);
}

#[test]
fn a_session_is_warned_before_its_token_expires_and_then_closed() {
    let mut day = Day::new(8);
    let lasts = TOKEN_WARNING.as_secs() * 3;
    day.opens_with(0, 1, false, Some(for_secs(lasts)));
    let ends = Duration::from_secs(lasts);
    let kind = |outputs: &[Output]| told(outputs).contains(&MessageKind::TokenExpires);
    assert!(!kind(&day.waits(ends - TOKEN_WARNING - Duration::from_millis(1))));
    let outputs = day.waits(ends - TOKEN_WARNING);
    assert!(kind(&outputs) && closed(&outputs).is_empty());
    let outputs = day.waits(ends - Duration::from_millis(1));
    assert!(!kind(&outputs) && closed(&outputs).is_empty());
    assert_eq!(closed(&day.waits(ends)), [(session(0, 0), CloseReason::TokenExpired)]);
}

#[test]
fn a_session_with_a_renewed_token_lasts_until_the_new_token_expires() {
    let mut day = Day::new(8);
    day.opens_with(0, 1, false, Some(for_secs(100)));
    day.hears_from(0, AUTH);
    day.checked(0, Ok(for_secs(500)));
    assert_eq!(closed(&day.waits(Duration::from_secs(499))), []);
    assert_eq!(closed(&day.waits(Duration::from_secs(500))), [(session(0, 0), CloseReason::TokenExpired)]);
}

#[test]
fn a_session_whose_token_has_expired_is_closed_without_a_warning() {
    let mut day = Day::new(8);
    let outputs = day.opens_with(0, 1, false, Some(for_secs(0)));
    assert_eq!(closed(&outputs), [(session(0, 0), CloseReason::TokenExpired)]);
    assert_eq!(told(&outputs), []);
    assert_eq!(closed(&day.opens_with(1, 2, false, Some(for_secs(100)))), []);
    // The process was stopped when the warning was due.
    let outputs = day.waits(Duration::from_secs(200));
    assert_eq!(closed(&outputs), [(session(1, 0), CloseReason::TokenExpired)]);
    assert!(!told(&outputs).contains(&MessageKind::TokenExpires));
}

#[test]
fn a_session_that_waits_for_its_id_is_not_warned_before_it_is_admitted() {
    let mut day = Day::new(8);
    day.opens_with(0, 1, false, None);
    let lasts = TAKEOVER_GRACE.as_secs() + 1;
    day.opens_with(1, 1, false, Some(for_secs(lasts)));
    // More than half of the token's time passes while the session waits for its id.
    let mut told_while_waiting = Vec::new();
    while let Some(at) = day.router.poll_timeout().filter(|at| *at < TAKEOVER_GRACE) {
        told_while_waiting.extend(told_to(&day.waits(at), 1));
    }
    assert_eq!(told_while_waiting, []);
    day.waits(TAKEOVER_GRACE);
    day.closes(session(0, 0));
    assert!(day.router.sessions.get(session(1, 0)).is_some_and(|session| session.phase() == SessionPhase::Open));
    let mut told_when_open = Vec::new();
    // The wall clock has not moved, so the same time is left.
    let ends = day.now + Duration::from_secs(lasts);
    while let Some(at) = day.router.poll_timeout().filter(|at| *at < ends) {
        let at = at.max(day.now);
        told_when_open.extend(told_to(&day.waits(at), 1));
    }
    assert!(told_when_open.contains(&MessageKind::TokenExpires), "{told_when_open:?}");
}

const ANNOUNCE_OTHER: &str = r#"{"type":"announce","networkName":"other"}"#;

#[test]
fn a_new_token_ends_the_memberships_that_it_does_not_allow() {
    let mut day = Day::new(8);
    day.opens(session(0, 0), 1);
    day.says(session(0, 0), ANNOUNCE);
    day.says(session(0, 0), ANNOUNCE_OTHER);
    day.opens_with(1, 2, false, Some(Grant::everywhere()));
    day.hears_from(1, ANNOUNCE);
    day.hears_from(1, ANNOUNCE_OTHER);
    day.hears_from(1, AUTH);
    let outputs = day.checked(1, Ok(grant(&[("n", Rights::MEMBER), ("other", OBSERVER)])));
    assert_eq!(told_to(&outputs, 1), [MessageKind::Authorized, MessageKind::Error]);
    assert_eq!(told_to(&outputs, 0), [MessageKind::Goodbye]);
    let is_in = |day: &Day, network| {
        let ix = day.router.rosters.find(network).unwrap();
        day.router.rosters.member(ix, &peer(2)).is_some()
    };
    assert!(is_in(&day, "n") && !is_in(&day, "other"));
    assert_eq!(told(&day.hears_from(1, r#"{"type":"announce","networkName":"else"}"#)), [MessageKind::Error]);
    assert_eq!(day.errors(ErrorCode::Forbidden), 2);
}

#[test]
fn an_observer_keeps_observing_only_with_a_token_that_allows_it() {
    let mut day = Day::new(8);
    day.opens_with(1, 2, false, Some(grant(&[("n", OBSERVER)])));
    day.hears_from(1, ANNOUNCE);
    day.opens(session(0, 0), 1);
    day.hears_from(1, AUTH);
    assert_eq!(told_to(&day.checked(1, Ok(grant(&[("n", OBSERVER)]))), 1), [MessageKind::Authorized]);
    assert_eq!(told_to(&day.hears_from(0, ANNOUNCE), 1), [MessageKind::PeerDiscovered]);
    day.hears_from(1, AUTH);
    let outputs = day.checked(1, Ok(grant(&[("n", Rights { signal: true, ..Rights::default() })])));
    assert_eq!(told_to(&outputs, 1), [MessageKind::Authorized, MessageKind::Error]);
    assert_eq!(told_to(&day.hears_from(0, r#"{"type":"goodbye"}"#), 1), []);
}

#[test]
fn observers_discover_members_and_are_not_discovered() {
    let mut day = Day::new(8);
    day.opens(session(0, 0), 1);
    day.says(session(0, 0), ANNOUNCE);
    for slot in 1..=3 {
        day.opens_with(slot, slot as u8 + 1, false, Some(grant(&[("n", OBSERVER)])));
        let outputs = day.hears_from(slot, ANNOUNCE);
        assert_eq!(told_to(&outputs, slot), [MessageKind::PeerDiscovered]);
        assert_eq!(told_to(&outputs, 0), [], "the member does not discover the observer");
    }
    assert_eq!((day.router.rosters.members(), day.router.rosters.len()), (1, 1));
    assert_eq!(
        told_to(&day.hears_from(2, ANNOUNCE), 2),
        [MessageKind::PeerDiscovered],
        "the members are announced again"
    );
    // No signal reaches an observer, and an observer can send none.
    let offer = |n| format!(r#"{{"type":"offer","networkName":"n","targetPeerId":"{}"}}"#, peer(n));
    assert_eq!(told(&day.hears_from(0, &offer(2))), [MessageKind::Error]);
    assert_eq!(told(&day.hears_from(1, &offer(1))), [MessageKind::Error]);
    // When one observer leaves, the other observers still receive events.
    for (gone, rest) in [(1, &[2, 3][..]), (3, &[2])] {
        day.closes(session(gone, 0));
        let outputs = day.hears_from(0, ANNOUNCE);
        for slot in rest {
            assert_eq!(told_to(&outputs, *slot), [MessageKind::PeerDiscovered], "{slot} after {gone}");
        }
        assert_eq!(told_to(&outputs, gone), []);
    }
    day.closes(session(2, 0));
    day.closes(session(0, 0));
    assert_eq!(day.router.rosters.len(), 0);
}

#[test]
fn a_session_that_may_join_and_observe_becomes_a_member() {
    let mut day = Day::new(8);
    day.opens_with(0, 1, false, Some(grant(&[("n", EVERY_RIGHT)])));
    day.hears_from(0, ANNOUNCE);
    day.opens_with(1, 2, false, Some(grant(&[("n", Rights::MEMBER)])));
    day.hears_from(1, ANNOUNCE);
    assert_eq!(day.router.rosters.members(), 2);
    assert_eq!(told(&day.hears_from(1, ANNOUNCE_OTHER)), [MessageKind::Error]);
    assert_eq!(day.errors(ErrorCode::Forbidden), 1);
}

const ACKNOWLEDGED: &str = r#"{"type":"announce","networkName":"n","ack":true}"#;

#[test]
fn an_observer_receives_the_number_of_members() {
    let mut day = Day::new(8);
    day.router.config.meshed = true;
    let stay = Stay { number: 1, discovery: Discovery::All };
    for n in 4..=6 {
        day.hears(joined(n, at_hub(9, 10), stay));
    }
    let mut count = |slot: u32, n: u8| {
        day.opens_with(slot, n, false, Some(grant(&[("n", OBSERVER)])));
        let outputs = day.hears_from(slot, ACKNOWLEDGED);
        let arena = String::from_utf8_lossy(day.router.arena()).into_owned();
        let digits = arena.split(r#""count":"#).nth(1).unwrap().chars().take_while(char::is_ascii_digit);
        (digits.collect::<String>(), told_to(&outputs, slot).len())
    };
    assert_eq!(count(1, 1), ("3".to_owned(), 4), "the observer receives three members and the answer");
    assert_eq!(count(2, 6), ("2".to_owned(), 3), "the count excludes the observer's own peer, a member at another hub");
}

#[test]
fn networks_and_memory_of_observers_are_bounded_like_those_of_members() {
    let mut day = Day::new(8);
    day.router.config.max_networks_per_peer = 2;
    day.opens_with(0, 1, false, Some(grant(&[("*", OBSERVER)])));
    for network in ["a", "b"] {
        day.hears_from(0, &format!(r#"{{"type":"announce","networkName":"{network}"}}"#));
    }
    assert_eq!(day.errors(ErrorCode::TooManyNetworks), 0);
    assert_eq!(told(&day.hears_from(0, ANNOUNCE)), [MessageKind::Error]);
    assert_eq!(day.errors(ErrorCode::TooManyNetworks), 1);
    assert_eq!(day.router.stats().announced_bytes, 2 * MEMBER_BYTES as u64);
    day.closes(session(0, 0));
    assert_eq!(day.router.stats().announced_bytes, 0);
}

#[test]
fn a_session_counts_as_a_member_of_global_only_if_it_may_join_and_is_in_no_network() {
    let offer = |network| format!(r#"{{"type":"offer","networkName":"{network}","targetPeerId":"{}"}}"#, peer(9));
    let signals_only = Rights { signal: true, ..Rights::default() };
    for (rules, joins, network, delivered) in [
        (None, None, "global", true),
        (None, None, "x", false),
        (None, Some(ANNOUNCE), "global", false),
        (Some(grant(&[("global", Rights::MEMBER)])), None, "global", true),
        (Some(grant(&[("global", signals_only)])), None, "global", false),
        (Some(grant(&[("global", Rights { signal: false, ..Rights::MEMBER })])), None, "global", false),
        (Some(grant(&[("global", Rights::MEMBER), ("n", Rights::MEMBER)])), Some(ANNOUNCE), "global", false),
    ] {
        let mut day = Day::new(8);
        day.opens(session(9, 0), 9);
        let shown = format!("{rules:?}, {joins:?}, {network}");
        day.opens_with(0, 1, false, rules);
        joins.map(|text| day.hears_from(0, text));
        let outputs = day.hears_from(0, &offer(network));
        assert_eq!(told_to(&outputs, 9).len(), usize::from(delivered), "{shown}");
        assert_eq!(told_to(&outputs, 0).len(), usize::from(!delivered), "{shown}");
    }
}

#[test]
fn only_an_owner_takes_the_id_of_an_owner_at_once() {
    for is_owned in [false, true] {
        let mut day = Day::new(8);
        day.opens_with(0, 1, is_owned, None);
        let lineage = day.lineage_of(session(0, 0));
        day.pass(Duration::from_secs(5));
        let outputs = day.resumes(session(1, 0), 1, lineage);
        assert_eq!(closed(&outputs).is_empty(), is_owned, "a resume secret replaces only a session without an owner");
        assert_eq!(day.router.stats().owner_takeovers, 0);
        let mut day = Day::new(8);
        day.opens_with(0, 1, is_owned, None);
        let outputs = day.opens_with(1, 1, true, None);
        assert_eq!(closed(&outputs), [(session(0, 0), CloseReason::Replaced)], "{is_owned}");
        assert_eq!(day.router.stats().owner_takeovers, 1);
    }
}

#[test]
fn an_answer_matches_only_orders_of_its_own_kind() {
    let out_for = Some(Duration::from_secs(7));
    let kick = Order::Kick { peer: peer(1), network: None, out_for };
    let close = Order::CloseNetwork { network: NetworkName::new("n"), out_for: None };
    assert_eq!((kick.out_for(), close.out_for()), (out_for, None));
    let kicked = Acted::Kicked { from: KickedFrom::Hub, excluded: true };
    let closed = Acted::Closed { members: 1, excluded: true };
    assert!(kicked.answers(&kick) && closed.answers(&close));
    assert!(!kicked.answers(&close) && !closed.answers(&kick));
}

#[test]
fn the_longest_names_in_a_grant_are_accepted() {
    let name = "n".repeat(MAX_NETWORK_NAME_BYTES);
    assert_eq!(grant(&[(&name, OBSERVER)]).rights(&name), OBSERVER);
    let class = "c".repeat(MAX_GRANT_CLASS_BYTES);
    assert_eq!(Grant::everywhere().with_class(&class).unwrap().class(), Some(&*class));
}
