//! Tests of the decisions about takeovers.

use super::*;
use crate::id::{HubId, HubIncarnation, PeerIncarnation};

const PEER: PeerId = PeerId::from_bytes([1; 20]);
const START: Duration = Duration::from_secs(100);

const fn session(slot: u32) -> SessionId {
    SessionId { slot, generation: 0 }
}

const fn asker(ticket: u64) -> Asker {
    Asker { hub: HubId(PeerId::from_bytes([9; 20])), incarnation: HubIncarnation(1), ticket }
}

fn secret(root: u64) -> Option<Lineage> {
    Some(Lineage { root: PeerIncarnation(root), session: PeerIncarnation(root) })
}

impl Takeovers {
    fn here(&mut self, slot: u32, holder: Holder, resume: Option<Lineage>) -> (Opened, Option<Parties>) {
        self.here_as(slot, holder, (resume, false))
    }

    fn here_as(&mut self, slot: u32, holder: Holder, proven: (Option<Lineage>, bool)) -> (Opened, Option<Parties>) {
        let decided = self.opened(session(slot), PEER, holder, true, proven, START);
        self.audit().unwrap();
        decided
    }

    fn there(&mut self, ticket: u64, holder: Holder, resume: Option<Lineage>) -> (Challenged, Option<Parties>) {
        let decided = self.challenged(asker(ticket), PEER, holder, (resume, false), START);
        self.audit().unwrap();
        decided
    }
}

fn takeovers() -> Takeovers {
    Takeovers::new(Keys(1, 2))
}

#[test]
fn the_holder_decides_what_happens_to_a_new_session() {
    let refused = |reason| (Opened::Refuse(reason), None);
    for (holder, seat, expected) in [
        (Holder::Nobody, true, (Opened::Admit, None)),
        (Holder::Nobody, false, refused(CloseReason::MaxConnections)),
        (Holder::Elsewhere, true, (Opened::AskHub(1), None)),
        (Holder::Elsewhere, false, refused(CloseReason::MaxConnections)),
        (Holder::Here(Some(Right::AtOnce)), false, (Opened::Replace, None)),
    ] {
        let opened = takeovers().opened(session(1), PEER, holder, seat, (None, false), START);
        assert_eq!(opened, expected, "{holder:?} {seat}");
    }
    for right in [None, Some(Right::Late), Some(Right::Outdated), Some(Right::Owned), Some(Right::Younger)] {
        assert!(matches!(takeovers().here(1, Holder::Here(right), None), (Opened::Ping(_), None)), "{right:?}");
    }
}

#[test]
fn a_waiting_newcomer_is_replaced_only_by_a_newcomer_with_a_stronger_secret() {
    for (waits, comes, gives_way) in [
        (None, None, false),
        (None, secret(5), true),
        (secret(5), None, false),
        (secret(5), secret(5), false),
        (secret(5), secret(4), true),
        (secret(4), secret(5), false),
    ] {
        let mut takeovers = takeovers();
        let holder = Holder::Here(None);
        takeovers.here(1, holder, waits);
        let (opened, displaced) = takeovers.here(2, holder, comes);
        assert_eq!(displaced.is_some(), gives_way, "{waits:?} {comes:?}");
        assert_eq!(opened == Opened::Refuse(CloseReason::IdInUse), !gives_way);
        let waits = if gives_way { session(2) } else { session(1) };
        assert_eq!(takeovers.parties(&PEER), Some(Parties::BothHere(waits)));
    }
}

#[test]
fn a_waiting_newcomer_is_replaced_by_an_owner_and_an_owner_only_by_a_newer_owner() {
    for (waits, comes, gives_way) in [
        ((secret(1), false), (None, true), true),
        ((None, true), (None, true), true),
        ((None, true), (secret(1), false), false),
        ((None, true), (None, false), false),
    ] {
        let mut takeovers = takeovers();
        takeovers.here_as(1, Holder::Elsewhere, waits);
        let (_, displaced) = takeovers.here_as(2, Holder::Elsewhere, comes);
        assert_eq!(displaced.is_some(), gives_way, "{waits:?} {comes:?}");
    }
}

#[test]
fn another_hub_gets_an_immediate_answer_if_no_session_is_pinged() {
    let answer = |in_use| (Challenged::Answer { in_use }, None);
    let mut takeovers = takeovers();
    assert_eq!(takeovers.there(1, Holder::Nobody, None), answer(false));
    takeovers.here(1, Holder::Elsewhere, None);
    assert_eq!(takeovers.there(2, Holder::Elsewhere, None), answer(true), "a session on this shard waits for the id");
    assert_eq!(takeovers.parties(&PEER), Some(Parties::HolderElsewhere(session(1))));
}

#[test]
fn a_newcomer_with_the_immediate_right_ends_a_waiting_takeover() {
    let mut takeovers = takeovers();
    takeovers.here(1, Holder::Here(None), None);
    let decided = takeovers.there(1, Holder::Here(Some(Right::AtOnce)), secret(1));
    assert_eq!(decided, (Challenged::Replace, Some(Parties::BothHere(session(1)))));
    assert_eq!(takeovers.release(&PEER), None);
}

#[test]
fn questions_of_other_hubs_are_bounded() {
    let mut takeovers = takeovers();
    for n in 0..MAX_TAKEOVERS_ASKED as u64 {
        let mut id = [0; 20];
        id[..8].copy_from_slice(&n.to_be_bytes());
        let peer = PeerId::from_bytes(id);
        let (asked, _) = takeovers.challenged(asker(n), peer, Holder::Here(None), (None, false), START);
        assert!(matches!(asked, Challenged::Ping(_)), "{n}");
    }
    assert_eq!(takeovers.there(1, Holder::Here(None), None).0, Challenged::Answer { in_use: true });
    assert_eq!(takeovers.there(2, Holder::Here(Some(Right::AtOnce)), None).0, Challenged::Replace);
}

#[test]
fn only_the_pong_to_the_current_ping_keeps_the_holder() {
    let mut takeovers = takeovers();
    let (Opened::Ping(question), _) = takeovers.here(1, Holder::Here(None), None) else { panic!("it is asked") };
    assert_eq!(takeovers.answered(&PEER, &question[..7]), None);
    assert_eq!(takeovers.answered(&PeerId::from_bytes([2; 20]), &question), None);
    assert_eq!(takeovers.answered(&PEER, &question), Some(Parties::BothHere(session(1))));
    assert_eq!(takeovers.answered(&PEER, &question), None, "the takeover has ended");
    // The next question has another payload.
    let (Opened::Ping(next), _) = takeovers.here(2, Holder::Here(None), None) else { panic!("it is asked") };
    assert_ne!(next, question);
}

#[test]
fn a_silent_holder_loses_its_id_after_the_grace() {
    let mut takeovers = takeovers();
    takeovers.here(1, Holder::Here(None), None);
    assert_eq!(takeovers.expire(START + TAKEOVER_GRACE - Duration::from_nanos(1)), None);
    assert_eq!(takeovers.expire(START + TAKEOVER_GRACE), Some((PEER, Expired::HolderDead)));
    assert_eq!(takeovers.release(&PEER), Some((Parties::BothHere(session(1)), (None, false))));
    assert!(takeovers.is_empty());
}

#[test]
fn a_holder_whose_socket_accepts_bytes_keeps_its_id_at_the_limit() {
    let mut takeovers = takeovers();
    takeovers.here(1, Holder::Here(None), None);
    let mut now = START;
    while now < START + TAKEOVER_LIMIT {
        assert_eq!(takeovers.expire(now), None, "{now:?}");
        takeovers.asked_on(&PEER, now);
        now += TAKEOVER_GRACE / 4;
    }
    let alive = Expired::HolderAlive(Parties::BothHere(session(1)));
    assert_eq!(takeovers.expire(now), Some((PEER, alive)));
    assert!(takeovers.is_empty());
}

#[test]
fn a_session_at_a_silent_hub_loses_its_id() {
    let mut takeovers = takeovers();
    let (Opened::AskHub(ticket), _) = takeovers.here(1, Holder::Elsewhere, secret(3)) else { panic!("it asks") };
    assert_eq!(takeovers.asked_hub(&PEER, ticket + 1), None, "no question has this ticket");
    assert_eq!(takeovers.asked_hub(&PEER, ticket), Some(session(1)));
    let end = START + TAKEOVER_GRACE + TAKEOVER_MARGIN;
    assert_eq!(takeovers.expire(end), Some((PEER, Expired::HubSilent)));
    assert_eq!(takeovers.release(&PEER), Some((Parties::HolderElsewhere(session(1)), (secret(3), false))));
}

#[test]
fn only_the_waiting_session_can_withdraw_from_a_takeover() {
    let mut takeovers = takeovers();
    takeovers.here(1, Holder::Here(None), None);
    takeovers.withdraw(&PEER, session(2));
    assert!(takeovers.parties(&PEER).is_some());
    takeovers.withdraw(&PEER, session(1));
    assert_eq!(takeovers.parties(&PEER), None);
    assert_eq!(takeovers.expire(START + TAKEOVER_LIMIT), None);
}
