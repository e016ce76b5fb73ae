use proto::PeerId;

use super::*;

const LONGEST: u32 = u32::MAX;

fn id(n: u8) -> HubId {
    HubId(PeerId::from_bytes([n; 20]))
}

fn at(ms: u64) -> Now {
    Now { at: Duration::from_millis(ms), wall_ms: 0 }
}

fn targets(urls: &[&str]) -> Targets {
    let uris: Vec<Uri> = urls.iter().map(|url| url.parse().unwrap()).collect();
    Targets::new(&uris, &[])
}

fn due(targets: &mut Targets, ms: u64) -> Vec<String> {
    targets.due(at(ms)).iter().map(Plan::shown).collect()
}

fn only(targets: &Targets) -> TargetId {
    targets.targets.keys().next().unwrap().clone()
}

fn plan(url: &str) -> Option<Plan> {
    Plan::of(&url.parse().unwrap())
}

#[test]
fn addresses_are_understood() {
    let plan = |url| {
        let plan = plan(url).unwrap();
        (plan.host, plan.port, plan.authority, plan.path, plan.tls)
    };
    let expected = |host: &str, port, authority: &str, path: &str, tls| {
        (host.to_owned(), port, authority.to_owned(), path.to_owned(), tls)
    };
    assert_eq!(plan("ws://hub"), expected("hub", 80, "hub", "/", false));
    assert_eq!(plan("ws://hub?token=x"), expected("hub", 80, "hub", "/?token=x", false));
    assert_eq!(plan("wss://hub/ws?x=1"), expected("hub", 443, "hub", "/ws?x=1", true));
    assert_eq!(plan("ws://me:secret@hub:81"), expected("hub", 81, "hub:81", "/", false));
    assert_eq!(plan("ws://[::1]:81"), expected("::1", 81, "[::1]:81", "/", false));
}

#[test]
fn what_is_no_websocket_is_not_dialed() {
    for url in ["http://hub", "hub:80", "/path"] {
        assert!(plan(url).is_none(), "{url}");
    }
    assert_eq!(due(&mut targets(&["http://hub", "ws://hub"]), 0), ["ws://hub:80/"]);
}

#[test]
fn secrets_are_not_shown() {
    let plan = plan("ws://me:secret@Hub:81/ws?token=secret").unwrap();
    assert_eq!(plan.shown(), "ws://hub:81/ws");
}

#[test]
fn one_address_is_dialed_once_however_it_is_written() {
    assert_eq!(due(&mut targets(&["ws://hub", "ws://HUB:80/", "ws://hub:80"]), 0), ["ws://hub:80/"]);
}

#[test]
fn legacy_addresses_are_known_by_any_spelling() {
    let uri = "ws://old:80".parse().unwrap();
    let mut targets = Targets::new(&[uri], &["ws://old/".to_owned()]);
    assert!(targets.due(at(0))[0].legacy);
}

#[test]
fn failures_are_paused_after_and_told_once() {
    let mut targets = targets(&["ws://hub"]);
    let hub = only(&targets);
    assert_eq!(due(&mut targets, 0).len(), 1);
    assert_eq!(due(&mut targets, 0).len(), 0, "it is under way");
    assert!(targets.failed(&hub, "refused", at(0), LONGEST));
    assert_eq!(due(&mut targets, 199).len(), 0);
    assert_eq!(due(&mut targets, 200).len(), 1);
    assert!(!targets.failed(&hub, "refused", at(200), LONGEST));
    assert_eq!(due(&mut targets, 599).len(), 0);
    assert_eq!(due(&mut targets, 600).len(), 1);
    let view = &targets.views()[0];
    assert_eq!((view.attempt_number, view.last_error.as_deref()), (3, Some("refused")));
}

#[test]
fn only_a_link_that_lived_resets_the_pause() {
    let mut targets = targets(&["ws://hub"]);
    let hub = only(&targets);
    let mut end = |lived_s, ms| {
        targets.targets.get_mut(&hub).unwrap().next = Duration::ZERO;
        assert_eq!(due(&mut targets, ms).len(), 1);
        targets.dialed(&hub, LinkId(1));
        targets.ended(&hub, LinkEnd::Lost, "", Duration::from_secs(lived_s), at(ms), LONGEST);
        targets.targets[&hub].next.as_millis() as u64 - ms
    };
    assert_eq!((end(1, 1_000), end(9, 2_000), end(10, 3_000), end(1, 4_000)), (200, 400, 200, 400));
}

#[test]
fn a_hub_that_is_linked_is_not_dialed() {
    let mut targets = targets(&["ws://hub"]);
    let hub = only(&targets);
    targets.met(&hub, id(2));
    targets.learn(Known { linked: [id(2)].into(), draining: BTreeSet::new() });
    assert_eq!(due(&mut targets, 0).len(), 0);
    assert!(targets.views()[0].connected);
    targets.lost(id(2), at(0), LONGEST);
    assert!(!targets.views()[0].connected);
    assert_eq!((due(&mut targets, 199).len(), due(&mut targets, 200).len()), (0, 1));
}

#[test]
fn ones_own_address_is_dialed_once() {
    let mut targets = targets(&["ws://me"]);
    let me = only(&targets);
    due(&mut targets, 0);
    assert!(!targets.ended(&me, LinkEnd::SelfLink, "", Duration::ZERO, at(0), 0));
    assert_eq!(due(&mut targets, 1_000_000).len(), 0);
    assert!(targets.views()[0].own);
}

fn resolve(targets: &mut Targets, hosts: &[u8]) {
    let addresses = hosts.iter().map(|host| SocketAddr::from(([10, 0, 0, *host], 80))).collect();
    targets.resolved("hubs", false, &addresses, at(0));
}

#[test]
fn addresses_come_and_go_with_dns() {
    let mut targets = targets(&[]);
    resolve(&mut targets, &[1, 2]);
    assert_eq!(due(&mut targets, 0), ["ws://10.0.0.1:80/", "ws://10.0.0.2:80/"]);
    let me = only(&targets);
    targets.ended(&me, LinkEnd::SelfLink, "", Duration::ZERO, at(0), 0);
    resolve(&mut targets, &[1, 2]);
    assert_eq!(due(&mut targets, 0).len(), 0, "an answer that is the same changes nothing");
    resolve(&mut targets, &[1, 3]);
    assert_eq!(due(&mut targets, 0), ["ws://10.0.0.1:80/", "ws://10.0.0.3:80/"], "it may be another's");
}

#[test]
fn an_address_without_a_hub_leaves_with_the_answer_that_lacks_it() {
    let mut targets = targets(&["ws://static"]);
    resolve(&mut targets, &[1]);
    resolve(&mut targets, &[2]);
    assert_eq!(due(&mut targets, 0), ["ws://10.0.0.2:80/", "ws://static:80/"]);
}

#[test]
fn the_smaller_id_dials_first_what_both_advertise() {
    let mut targets = targets(&[]);
    let hubs = [(id(1), "ws://one"), (id(9), "ws://nine"), (id(7), "nonsense")];
    targets.advertised(id(5), hubs.into_iter(), at(0));
    assert_eq!(due(&mut targets, 0), ["ws://nine:80/"]);
    assert_eq!(due(&mut targets, 1_000), ["ws://one:80/"]);
}

#[test]
fn what_is_advertised_no_more_is_not_dialed() {
    let mut targets = targets(&[]);
    targets.advertised(id(1), [(id(9), "ws://nine")].into_iter(), at(0));
    targets.advertised(id(1), std::iter::empty(), at(0));
    assert!(due(&mut targets, 1_000).is_empty() && targets.views().is_empty());
}

#[test]
fn a_hub_that_drains_is_left_alone_unless_it_is_a_bootstrap() {
    let mut targets = targets(&["ws://static"]);
    resolve(&mut targets, &[1]);
    for target in targets.targets.values_mut() {
        target.hub = Some(id(2));
    }
    targets.learn(Known { linked: BTreeSet::new(), draining: [id(2)].into() });
    assert_eq!(due(&mut targets, 0), ["ws://static:80/"]);
    let fixed = TargetId("ws://static:80/".into());
    targets.ended(&fixed, LinkEnd::Closed, "", Duration::ZERO, at(0), 0);
    assert_eq!((due(&mut targets, 14_999).len(), due(&mut targets, 15_000).len()), (0, 1));
}

#[test]
fn so_many_are_dialed_at_once() {
    let mut targets = targets(&[]);
    let addresses = (0..100).map(|host| SocketAddr::from(([10, 0, 0, host], 80))).collect();
    targets.resolved("hubs", false, &addresses, at(0));
    assert_eq!(due(&mut targets, 0).len(), MAX_DIALS_AT_ONCE);
    assert_eq!(due(&mut targets, 0).len(), 0);
}
