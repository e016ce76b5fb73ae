use proto::PeerId;
use proto::limits::{DIAL_TIMEOUT, LEASE, TICK};

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
    Targets::new(&uris, &[], MAX_DIALS_AT_ONCE)
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
fn hub_urls_are_parsed() {
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
fn urls_other_than_websocket_urls_are_not_dialed() {
    for url in ["http://hub", "hub:80", "/path"] {
        assert!(plan(url).is_none(), "{url}");
    }
    assert_eq!(due(&mut targets(&["http://hub", "ws://hub"]), 0), ["ws://hub:80/"]);
}

#[test]
fn a_shown_url_contains_no_secrets() {
    let plan = plan("ws://me:secret@Hub:81/ws?token=secret").unwrap();
    assert_eq!(plan.shown(), "ws://hub:81/ws");
}

#[test]
fn different_spellings_of_one_address_are_dialed_once() {
    assert_eq!(due(&mut targets(&["ws://hub", "ws://HUB:80/", "ws://hub:80"]), 0), ["ws://hub:80/"]);
}

#[test]
fn legacy_addresses_are_known_by_any_spelling() {
    let uri = "ws://old:80".parse().unwrap();
    let mut targets = Targets::new(&[uri], &["ws://old/".to_owned()], MAX_DIALS_AT_ONCE);
    assert!(targets.due(at(0))[0].legacy);
}

#[test]
fn a_failure_causes_a_pause_and_one_warning() {
    let mut targets = targets(&["ws://hub"]);
    let hub = only(&targets);
    assert_eq!(due(&mut targets, 0).len(), 1);
    assert_eq!(due(&mut targets, 0).len(), 0, "the dial is in progress");
    assert!(targets.failed(&hub, "refused", at(0), LONGEST));
    assert_eq!(due(&mut targets, 199).len(), 0);
    assert_eq!(due(&mut targets, 200).len(), 1);
    assert!(!targets.failed(&hub, "refused", at(200), LONGEST));
    assert_eq!(due(&mut targets, 599).len(), 0);
    assert_eq!(due(&mut targets, 600).len(), 1);
    let view = &targets.views()[0];
    assert_eq!((view.attempt_number, view.last_error.as_deref()), (3, Some("refused")));
}

/// Dials `id` at this time, and simulates a link that is in use for `lived_ms`. Returns the longest possible pause
/// after its end.
fn flap(targets: &mut Targets, id: &TargetId, ms: u64, lived_ms: u64) -> u64 {
    targets.targets.get_mut(id).unwrap().next = Duration::ZERO;
    assert!(targets.due(at(ms)).iter().any(|plan| plan.target == *id));
    targets.dialed(id, LinkId(1), ADDRESS);
    targets.ready(id);
    let ended = ms + lived_ms;
    targets.ended(id, LinkEnd::Lost, "", Some(Duration::from_millis(lived_ms)), at(ended), LONGEST);
    targets.targets[id].next.as_millis() as u64 - ended
}

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

#[test]
fn a_link_that_worked_resets_the_pause() {
    let mut targets = targets(&["ws://hub"]);
    let hub = only(&targets);
    let pauses =
        [(1_000, 0), (2_000, 499), (3_000, 500), (4_000, 0)].map(|(ms, lived)| flap(&mut targets, &hub, ms, lived));
    assert_eq!(pauses, [200, 400, 200, 400]);
    // A connection that never becomes ready does not count as a working link, even if it lasted long.
    let mut never_ready = |ms| {
        targets.targets.get_mut(&hub).unwrap().next = Duration::ZERO;
        assert_eq!(due(&mut targets, ms).len(), 1);
        targets.dialed(&hub, LinkId(1), ADDRESS);
        targets.ended(&hub, LinkEnd::Silent, "", None, at(ms), LONGEST);
        targets.targets[&hub].next.as_millis() as u64 - ms
    };
    assert_eq!((never_ready(5_000), never_ready(10_000)), (800, 1_600));
}

#[test]
fn a_link_that_is_lost_repeatedly_returns_long_before_the_lease_ends() {
    let mut targets = targets(&["ws://hub"]);
    let hub = only(&targets);
    let mut ms = 0;
    for lived in [0, 100, 499].repeat(50) {
        let pause = flap(&mut targets, &hub, ms, lived);
        assert!(pause * 4 <= LEASE.as_millis() as u64, "{pause}");
        ms += lived + pause;
    }
}

#[test]
fn pauses_grow_with_the_time_that_a_hub_is_missing() {
    let mut targets = targets(&["ws://hub"]);
    let hub = only(&targets);
    flap(&mut targets, &hub, 1_000_000, 60_000);
    let lost = 1_060_000;
    let (mut ms, mut dials) = (lost, 0);
    while ms < lost + 60_000 {
        ms = targets.targets[&hub].next.as_millis() as u64 + 1;
        assert_eq!(due(&mut targets, ms).len(), 1);
        targets.failed(&hub, "refused", at(ms), LONGEST);
        let pause = targets.targets[&hub].next.as_millis() as u64 - ms;
        assert!(pause <= 2_000.max((ms - lost) / 4), "{pause} after {}", ms - lost);
        dials += 1;
    }
    assert!((10..=20).contains(&dials), "{dials}");
    targets.failed(&hub, "refused", at(lost + 600_000), LONGEST);
    assert_eq!(targets.targets[&hub].next, at(lost + 600_000).at + DIAL_BACKOFF_MAX);
}

#[test]
fn a_hub_that_is_linked_is_not_dialed() {
    let mut targets = targets(&["ws://hub"]);
    let hub = only(&targets);
    targets.met(&hub, id(2));
    targets.learn(Known { linked: [id(2)].into(), draining: BTreeSet::new() });
    assert_eq!(due(&mut targets, 0).len(), 0);
    assert!(targets.views()[0].connected);
    targets.lost(id(2), None, at(0), LONGEST);
    assert!(!targets.views()[0].connected);
    assert_eq!((due(&mut targets, 199).len(), due(&mut targets, 200).len()), (0, 1));
}

#[test]
fn a_lost_link_resets_the_failures_of_other_addresses_of_its_hub() {
    let mut targets = targets(&["ws://hub", "ws://other"]);
    let [hub, other] = [0, 1].map(|n| targets.targets.keys().nth(n).unwrap().clone());
    due(&mut targets, 0);
    targets.met(&hub, id(2));
    targets.met(&other, id(2));
    for _ in 0..20 {
        targets.failed(&hub, "refused", at(100_000), LONGEST);
        targets.failed(&other, "refused", at(100_000), LONGEST);
    }
    // The link was dialed at `other`, which has its own pause.
    targets.lost(id(2), Some(&other), at(100_000), LONGEST);
    assert_eq!(due(&mut targets, 100_200), ["ws://hub:80/"]);
}

#[test]
fn the_hubs_own_address_is_dialed_once_a_minute() {
    let mut targets = targets(&["ws://me"]);
    let me = only(&targets);
    let mut pauses = Vec::new();
    let mut ms = 0;
    for _ in 0..9 {
        assert_eq!(due(&mut targets, ms).len(), 1);
        targets.dialed(&me, LinkId(1), ADDRESS);
        assert!(!targets.ended(&me, LinkEnd::SelfLink, "", None, at(ms), LONGEST));
        assert!(targets.views()[0].own && targets.views()[0].last_error.is_none());
        pauses.push(targets.targets[&me].next.as_millis() as u64 - ms);
        ms = targets.targets[&me].next.as_millis() as u64;
    }
    assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
    // Behind a load balancer, another hub may answer later.
    due(&mut targets, ms);
    targets.dialed(&me, LinkId(1), ADDRESS);
    targets.met(&me, id(2));
    targets.ready(&me);
    assert!(!targets.views()[0].own);
}

#[test]
fn a_target_remembers_the_address_that_worked_and_the_hubs_own_address() {
    let mut targets = targets(&["ws://hubs"]);
    let hubs = only(&targets);
    let [own, other] = [2, 3].map(|port| SocketAddr::new(ADDRESS.ip(), port));
    let mut dial = |ms, address| {
        let plan = targets.due(at(ms)).pop().unwrap();
        targets.dialed(&hubs, LinkId(1), address);
        if address == own {
            targets.ended(&hubs, LinkEnd::SelfLink, "", None, at(ms), LONGEST);
        } else {
            targets.ready(&hubs);
            targets.ended(&hubs, LinkEnd::Lost, "", Some(DIAL_PROVEN), at(ms), LONGEST);
        }
        let Experience { worked, own, failures } = plan.experience;
        (worked, own, failures)
    };
    assert_eq!(dial(0, own), (None, None, 0));
    assert_eq!(dial(1_000, other), (None, Some(own), 1));
    assert_eq!(dial(2_000, other), (Some(other), Some(own), 0));
    targets.failed(&hubs, "late", at(2_000), 0);
    assert_eq!(targets.due(at(3_000))[0].experience.worked, None);
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
    targets.ended(&me, LinkEnd::SelfLink, "", None, at(0), 0);
    resolve(&mut targets, &[1, 2]);
    assert_eq!(due(&mut targets, 0).len(), 0, "an unchanged answer changes nothing");
    resolve(&mut targets, &[1, 3]);
    assert_eq!(
        due(&mut targets, 0),
        ["ws://10.0.0.3:80/", "ws://10.0.0.1:80/"],
        "the address may now belong to another hub"
    );
}

#[test]
fn an_address_without_a_hub_is_forgotten_when_dns_omits_it() {
    let mut targets = targets(&["ws://static"]);
    resolve(&mut targets, &[1]);
    resolve(&mut targets, &[2]);
    assert_eq!(due(&mut targets, 0), ["ws://10.0.0.2:80/", "ws://static:80/"]);
}

#[test]
fn the_hub_with_the_smaller_id_dials_first() {
    let mut targets = targets(&[]);
    let hubs = [(id(1), false, "ws://one"), (id(9), false, "ws://nine"), (id(7), false, "nonsense")];
    targets.advertised(id(5), hubs.into_iter(), at(0));
    assert_eq!(due(&mut targets, 0), ["ws://nine:80/"]);
    assert_eq!(due(&mut targets, 1_000), ["ws://one:80/"]);
}

#[test]
fn addresses_no_longer_advertised_are_not_dialed() {
    let mut targets = targets(&[]);
    targets.advertised(id(1), [(id(9), false, "ws://nine")].into_iter(), at(0));
    targets.advertised(id(1), std::iter::empty(), at(0));
    assert!(due(&mut targets, 1_000).is_empty() && targets.views().is_empty());
}

#[test]
fn an_advertised_address_belongs_to_the_latest_hub_that_advertises_it() {
    let mut targets = targets(&[]);
    targets.advertised(id(1), [(id(8), false, "ws://x")].into_iter(), at(0));
    let x = only(&targets);
    targets.met(&x, id(8));
    targets.ready(&x);
    // The hub at this address has a new id, while the hub with the old id still drains.
    let hubs = [(id(8), true, "ws://x"), (id(9), false, "ws://x")];
    targets.advertised(id(1), hubs.into_iter(), at(0));
    targets.learn(Known { linked: BTreeSet::new(), draining: [id(8)].into() });
    assert_eq!(due(&mut targets, 1_000), ["ws://x:80/"]);
    assert_eq!(targets.targets[&x].hub, Some(id(9)));
}

fn draining(hub: HubId) -> Known {
    Known { linked: BTreeSet::new(), draining: [hub].into() }
}

#[test]
fn only_the_bootstrap_url_of_a_draining_hub_is_dialed() {
    let mut targets = targets(&["ws://static"]);
    resolve(&mut targets, &[1]);
    targets.advertised(id(1), [(id(2), true, "ws://advertised")].into_iter(), at(0));
    for target in targets.targets.values_mut() {
        target.hub = Some(id(2));
    }
    targets.learn(draining(id(2)));
    assert_eq!(due(&mut targets, 1_000), ["ws://static:80/"]);
}

#[test]
fn a_hub_at_the_address_of_an_ended_hub_is_found_soon() {
    let mut targets = targets(&["ws://static"]);
    resolve(&mut targets, &[1]);
    let ids: Vec<TargetId> = targets.targets.keys().cloned().collect();
    assert_eq!(due(&mut targets, 0).len(), 2);
    for id in &ids {
        targets.dialed(id, LinkId(1), ADDRESS);
        targets.met(id, self::id(2));
        targets.ready(id);
    }
    // The hub drains, sends a farewell, and closes the links.
    targets.learn(draining(id(2)));
    for id in &ids {
        targets.ended(id, LinkEnd::Closed, "this hub ends", Some(Duration::from_secs(60)), at(60_000), LONGEST);
    }
    targets.learn(Known::default());
    assert_eq!(due(&mut targets, 60_200).len(), 2);
}

#[test]
fn a_lost_link_to_a_draining_hub_is_dialed_again() {
    let mut targets = targets(&[]);
    resolve(&mut targets, &[1]);
    targets.advertised(id(1), [(id(3), false, "ws://three")].into_iter(), at(0));
    let ids: Vec<TargetId> = targets.targets.keys().cloned().collect();
    assert_eq!(due(&mut targets, 0).len(), 2);
    for (id, hub) in ids.iter().zip([2, 3]) {
        targets.dialed(id, LinkId(1), ADDRESS);
        targets.met(id, self::id(hub));
        targets.ready(id);
        targets.ended(id, LinkEnd::Lost, "", Some(Duration::from_secs(60)), at(60_000), LONGEST);
    }
    targets.learn(Known { linked: BTreeSet::new(), draining: [id(2), id(3)].into() });
    targets.advertised(id(1), [(id(3), true, "ws://three")].into_iter(), at(60_000));
    assert_eq!(due(&mut targets, 60_200).len(), 2);
}

/// Time until the address of a responsive hub is dialed, if this number of unresponsive addresses come before it.
fn delay_behind(dead: u16) -> Duration {
    let mut targets = targets(&["ws://z-alive"]);
    let addresses = (0..dead).map(|host| SocketAddr::from(([10, 0, (host >> 8) as u8, host as u8], 80))).collect();
    targets.resolved("hubs", false, &addresses, at(0));
    let mut under_way: Vec<(u64, TargetId)> = Vec::new();
    for ms in (0..120_000).step_by(TICK.as_millis() as usize) {
        under_way.retain(|(since, id)| {
            let is_late = ms - since >= DIAL_TIMEOUT.as_millis() as u64;
            if is_late {
                targets.failed(id, "no answer in time", at(ms), LONGEST);
            }
            !is_late
        });
        let plans = targets.due(at(ms));
        if plans.iter().any(|plan| plan.host == "z-alive") {
            return at(ms).at;
        }
        under_way.extend(plans.into_iter().map(|plan| (ms, plan.target)));
        assert!(under_way.len() <= MAX_DIALS_AT_ONCE);
    }
    panic!("the responsive hub is not dialed after {dead} unresponsive addresses")
}

#[test]
fn unresponsive_addresses_delay_a_responsive_address_for_a_bounded_time() {
    assert_eq!(delay_behind(31), Duration::ZERO);
    assert!(delay_behind(64) <= Duration::from_secs(1));
    assert!(delay_behind(100) <= Duration::from_millis(1_500));
    assert!(delay_behind(MAX_DIALS as u16 - 1) <= Duration::from_secs(40));
}

#[test]
fn the_number_of_simultaneous_dials_is_bounded() {
    let mut targets = targets(&[]);
    let addresses = (0..100).map(|host| SocketAddr::from(([10, 0, 0, host], 80))).collect();
    targets.resolved("hubs", false, &addresses, at(0));
    assert_eq!(due(&mut targets, 0).len(), MAX_YOUNG_DIALS);
    assert_eq!(due(&mut targets, 499).len(), 0);
    assert_eq!(due(&mut targets, 500).len(), MAX_YOUNG_DIALS);
}
