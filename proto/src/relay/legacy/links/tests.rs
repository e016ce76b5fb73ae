//! Tests of the decisions about legacy links.

use super::*;

const NOW: Duration = Duration::from_secs(100);
const LINK: LinkId = LinkId(1);
const OTHER: LinkId = LinkId(2);

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 20])
}

fn name() -> NetworkName {
    NetworkName::new("n")
}

/// Links 1 and 2. This hub has dialed the Go hub of link 2.
fn legacy(has_earlier: bool) -> Legacy {
    let mut legacy = Legacy::new(Keys(1, 2));
    legacy.open(LINK, HubId(peer(101)), false, has_earlier, NOW);
    legacy.open(OTHER, HubId(peer(102)), true, false, NOW);
    legacy
}

#[test]
fn peers_of_an_ended_link_leave_one_by_one() {
    let mut legacy = legacy(false);
    for n in [1, 2, 3] {
        assert_eq!(legacy.enter(LINK, peer(n), &name(), 3), Some(Entry::Behind));
    }
    assert_eq!(legacy.enter(LINK, peer(4), &name(), 3), Some(Entry::Full));
    assert_eq!(legacy.enter(LINK, peer(3), &name(), 3), Some(Entry::Behind), "a repeated announcement is accepted");
    assert_eq!(legacy.enter(OTHER, peer(5), &name(), 3), Some(Entry::Behind));
    assert!(legacy.end(LINK) && !legacy.end(LINK) && legacy.is_leaving(&peer(1)) && !legacy.is_leaving(&peer(5)));
    assert_eq!(legacy.enter(LINK, peer(6), &name(), 3), None);
    let leavers: Vec<_> = std::iter::from_fn(|| {
        let leaver = legacy.next_leaver()?;
        legacy.forget(&leaver);
        legacy.audit().unwrap();
        Some(leaver)
    })
    .collect();
    assert_eq!(leavers, [peer(1), peer(2), peer(3)]);
    assert!(legacy.ended_links() == 0 && legacy.holds(&peer(5)));
}

#[test]
fn a_link_asks_for_room_once_and_its_queue_is_bounded() {
    let mut legacy = legacy(false);
    let mut owe = |link, n| legacy.owe(link, peer(n), name(), 2);
    assert_eq!([owe(LINK, 2), owe(LINK, 1), owe(LINK, 3)], [Owed::First, Owed::Added, Owed::Dropped].map(Some));
    assert_eq!(owe(LinkId(9), 1), None);
    assert_eq!(legacy.next_owed_of(LINK, &peer(2)), Some(name()));
    assert_eq!(legacy.next_owed_of(LINK, &peer(2)), None);
    legacy.set_saturated(LINK, true);
    assert!(legacy.next_owed_of(LINK, &peer(1)).is_none() && !legacy.has_room(LINK) && legacy.has_backlog(LINK));
    assert_eq!(legacy.next_owed(LINK), Some((peer(1), name())), "`next_owed` does not check whether the link has room");
    assert!(!legacy.has_backlog(LINK));
}

#[test]
fn a_peer_that_was_connected_before_the_link_is_announced_once() {
    let mut legacy = legacy(true);
    let hub = Some(HubId(peer(50)));
    assert_eq!(legacy.to_announce(None, &peer(1))[..], [OTHER], "the first link announces the peer in its turn");
    assert_eq!(legacy.earlier(OTHER), None);
    assert_eq!(legacy.earlier(LINK), Some(Position::default()));
    assert_eq!(legacy.read_earlier(LINK, None, peer(1)), Some(true));
    assert_eq!(legacy.to_announce(None, &peer(1))[..], [LINK, OTHER]);
    assert!(
        legacy.hasten(LINK, hub, &peer(1)) && !legacy.hasten(LINK, hub, &peer(1)),
        "the peer has moved to another hub"
    );
    assert!(!legacy.hasten(LINK, None, &peer(1)), "the peer has been read already");
    assert_eq!(legacy.to_announce(hub, &peer(1))[..], [LINK, OTHER]);
    assert_eq!(legacy.read_earlier(LINK, hub, peer(1)), Some(false), "the peer has been announced before its turn");
    assert_eq!(legacy.enter(LINK, peer(2), &name(), 9), Some(Entry::Behind));
    assert_eq!(legacy.read_earlier(LINK, hub, peer(2)), Some(false), "the Go hub has announced the peer itself");
    assert_eq!(legacy.read_earlier(OTHER, hub, peer(2)), None);
    assert!(legacy.has_backlog(LINK));
    legacy.end_earlier(LINK);
    assert!(!legacy.has_backlog(LINK) && legacy.earlier(LINK).is_none());
}

#[test]
fn peers_connected_before_the_link_are_read_until_the_queue_fills_one_turn() {
    let mut legacy = legacy(true);
    for n in 0..SNAPSHOT_PEERS as u8 {
        assert!(legacy.earlier(LINK).is_some());
        assert_eq!(legacy.owe(LINK, peer(n), name(), usize::MAX), Some(Owed::Added));
    }
    assert_eq!(legacy.earlier(LINK), None);
}

#[test]
fn an_announcement_of_a_known_peer_is_news_or_an_echo() {
    for (link, is_go_peer, is_echo, is_owed, news) in [
        (LINK, true, false, false, true),
        (LINK, true, true, false, false),
        (OTHER, true, true, false, true),
        (LINK, false, false, false, true),
        (LINK, false, true, false, false),
        (LINK, false, false, true, false),
    ] {
        let mut legacy = legacy(false);
        legacy.note_told(link, &peer(9), "n", NOW).unwrap();
        if is_owed {
            legacy.owe(link, peer(1), name(), 9);
        }
        let found = legacy.may_be_news(link, peer(1), "n", is_echo, is_go_peer);
        assert_eq!(found, Some(news), "{link:?} {is_go_peer} {is_echo} {is_owed}");
        assert!(!legacy.has_backlog(link), "the Go hub already knows the peer");
    }
    let mut legacy = legacy(false);
    legacy.owe(LINK, peer(1), name(), 9);
    assert_eq!(
        legacy.may_be_news(LINK, peer(1), "n", false, false),
        Some(true),
        "nothing was announced on the link, so nothing can be an echo"
    );
}

#[test]
fn an_announcement_has_one_echo_but_none_from_a_dialed_hub_on_the_only_link() {
    let mut legacy = legacy(false);
    for link in [LINK, OTHER] {
        legacy.note_told(link, &peer(1), "n", NOW).unwrap();
        assert!(!legacy.is_echo(link, &peer(1), "m", NOW) && legacy.is_echo(link, &peer(1), "n", NOW));
        assert!(!legacy.is_echo(link, &peer(1), "n", NOW));
    }
    legacy.end(LINK);
    legacy.note_told(OTHER, &peer(1), "n", NOW).unwrap();
    assert!(!legacy.is_echo(OTHER, &peer(1), "n", NOW));
}

#[test]
fn a_signal_is_not_sent_back_and_its_echo_introduces_no_peer() {
    let mut legacy = legacy(false);
    let signal = legacy.signal_hash(SignalKind::Offer, &peer(1), &peer(2), "n", "null");
    legacy.note_said(LINK, signal, NOW);
    assert_eq!(legacy.has_said(LINK, &peer(1), signal, NOW), Some(true));
    assert!(!legacy.has_passed(LINK, &peer(1), NOW));
    assert_eq!(legacy.has_said(OTHER, &peer(1), signal, NOW), Some(false));
    assert!(legacy.has_passed(OTHER, &peer(1), NOW) && !legacy.has_passed(OTHER, &peer(2), NOW));
    assert_eq!(legacy.has_said(LinkId(9), &peer(1), signal, NOW), None);
}

#[test]
fn leaves_are_remembered_while_there_are_links() {
    let mut legacy = legacy(false);
    legacy.note_left(&peer(1), "n", NOW);
    legacy.note_left(&peer(2), "", NOW);
    assert!(legacy.has_left(&peer(1), "n", NOW) && !legacy.has_left(&peer(1), "m", NOW));
    assert!(legacy.has_left(&peer(2), "m", NOW));
    legacy.end(LINK);
    legacy.end(OTHER);
    legacy.note_left(&peer(3), "n", NOW);
    assert!(!legacy.has_left(&peer(3), "n", NOW));
}

#[test]
fn stored_announcements_of_all_links_are_returned() {
    let mut legacy = legacy(false);
    assert!(legacy.wait(LINK, peer(1), "n", "1", NOW) && legacy.wait(OTHER, peer(1), "n", "2", NOW));
    assert!(!legacy.wait(LinkId(9), peer(1), "n", "3", NOW));
    assert!(legacy.forget_waiting(LINK, &peer(1), None) && !legacy.forget_waiting(LINK, &peer(1), None));
    assert_eq!(legacy.take_waiting(&peer(1), NOW), [(OTHER, name(), "2".into())]);
}
