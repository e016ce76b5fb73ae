//! Tests of new links, and of the choice between two links.

use mesh::LinkEnd;
use proto::ws::Opcode;

use crate::hub::{Hub, Swallows, config, door, hub, id, only_link, url};
use crate::wire::{Said, Wire};

#[tokio::test]
async fn two_hubs_link() {
    let mut a = hub(1, &[]);
    let mut b = hub(2, &[a.url()]);
    let seen_by_b = b.until_linked_to(&[1]).await;
    let seen_by_a = a.until_linked_to(&[2]).await;
    let link = only_link(&seen_by_b);
    assert!(link.dialed && !link.legacy);
    assert_eq!(link.address, a.address);
    assert!(!only_link(&seen_by_a).dialed);
    let dialed = b.until("connected", |reading| reading.dials[0].connected).await;
    assert_eq!((dialed.dials[0].attempt_number, dialed.dials[0].last_attempt), (0, 1_700_000_000_000));
    b.until("the answer to a ping", |reading| only_link(reading).rtt.is_some()).await;
}

#[tokio::test]
async fn three_hubs_link_with_each_other() {
    let doors = [door(), door(), door()];
    let urls: Vec<String> = doors.iter().map(url).collect();
    let mut hubs: Vec<Hub> = doors.into_iter().zip(1..).map(|(door, n)| Hub::start(door, config(n, &urls))).collect();
    for (hub, others) in hubs.iter_mut().zip([[2, 3], [1, 3], [1, 2]]) {
        hub.until_linked_to(&others).await;
    }
}

#[tokio::test]
async fn hubs_that_dial_each_other_settle_on_one_link() {
    let (door_a, door_b) = (door(), door());
    let (url_a, url_b) = (url(&door_a), url(&door_b));
    let mut b = Hub::start(door_b, config(2, &[url_a]));
    let mut a = Hub::start(door_a, config(1, &[url_b]));
    a.until_linked_to(&[2]).await;
    // After both hubs have dialed, one link is left, and the hubs do not dial again and again.
    for (hub, other) in [(&mut a, 2), (&mut b, 1)] {
        let settled = |reading: &mesh::MeshReading| {
            reading.links.len() == 1 && reading.links[0].rtt.is_some() && reading.dials[0].connected
        };
        let reading = hub.until("settled", settled).await;
        assert_eq!(only_link(&reading).hub, Some(id(other)));
        assert!(reading.io.opened <= 2, "{:?}", reading.io);
        assert!(reading.io.dial_attempts <= 3, "{:?}", reading.io);
    }
    let dialed: Vec<bool> = [&a, &b].iter().map(|hub| only_link(&hub.reading()).dialed).collect();
    assert!(dialed[0] != dialed[1], "the two ends must keep the same link");
}

#[tokio::test]
async fn the_link_dialed_by_the_smaller_id_is_kept() {
    // The hub under test has id 5. Hub 5 and hub 9 dial each other. Then hub 5 and hub 1 dial each other.
    for (other, dialed_stays) in [(9, true), (1, false)] {
        let door = door();
        let mut hub = hub(5, &[url(&door)]);
        let mut dialed = Wire::accept_link(&door, other);
        hub.until_linked_to(&[other]).await;
        let mut accepted = Wire::link(hub.address, other);
        let (gone, stays) = if dialed_stays { (&mut accepted, &mut dialed) } else { (&mut dialed, &mut accepted) };
        assert_eq!(gone.hear_end(), Said::Closed(1000, "duplicate link: the other link stays open".into()));
        gone.say(Opcode::Close, &1000_u16.to_be_bytes());
        assert_eq!(gone.hear_end(), Said::End);
        let one_gone = |reading: &mesh::MeshReading| reading.io.ended[LinkEnd::Double as usize] == 1;
        let reading = hub.until("one link is left", one_gone).await;
        assert!(only_link(&reading).ready);
        assert_eq!(only_link(&reading).dialed, dialed_stays);
        stays.say(Opcode::Close, &1000_u16.to_be_bytes());
        hub.until("the last link is gone", |reading| reading.links.is_empty()).await;
    }
}

#[tokio::test]
async fn a_hub_that_dials_again_replaces_its_first_link() {
    let mut hub = hub(5, &[]);
    let mut first = Wire::link(hub.address, 9);
    hub.until_linked_to(&[9]).await;
    let _second = Wire::link(hub.address, 9);
    assert!(matches!(first.hear_end(), Said::Closed(1000, _)));
    drop(first);
    let second = |reading: &mesh::MeshReading| reading.io.opened == 2 && reading.links.len() == 1;
    let reading = hub.until("one link is left", second).await;
    assert!(only_link(&reading).ready);
}

#[tokio::test]
async fn a_hub_that_dials_itself_does_not_link() {
    let door = door();
    let own = url(&door);
    let mut hub = Hub::start(door, config(1, &[own]));
    let both_ends = |reading: &mesh::MeshReading| reading.dials[0].own && reading.links.is_empty();
    let reading = hub.until("recognized", both_ends).await;
    assert_eq!((reading.io.opened, reading.io.dial_attempts), (0, 1));
    assert_eq!(reading.io.ended[LinkEnd::SelfLink as usize], 1);
}

#[tokio::test]
async fn a_hub_of_another_mesh_is_refused() {
    let mut a = hub(1, &[]);
    let mut other = config(2, &[a.url()]);
    other.relay.namespace = "another".into();
    let mut b = Hub::start(door(), other);
    let refused = |reading: &mesh::MeshReading| reading.io.ended[LinkEnd::Refused as usize] >= 2;
    let reading = b.until("refused, twice", refused).await;
    let why = reading.dials[0].last_error.clone().unwrap_or_default();
    assert!(why.contains("HUB_MESH_NAMESPACE"), "{why}");
    let reading = a.until("a link is refused", |reading| reading.io.ended[LinkEnd::WrongNamespace as usize] >= 1).await;
    assert_eq!(reading.io.opened, 0);
}

#[tokio::test]
async fn an_unknown_version_is_refused() {
    let hub = hub(1, &[]);
    let mut wire = Wire::dial(hub.address, id(2), false);
    wire.say_hello(2, |hello| hello.version = 2);
    assert_eq!(wire.hear_end(), Said::Closed(4010, "unknown version of links: this hub speaks version 1".into()));
}

#[tokio::test]
async fn a_hub_with_another_discovery_is_refused() {
    let mut hub = hub(1, &[]);
    let mut wire = Wire::dial(hub.address, id(2), false);
    wire.say_hello(2, |hello| hello.discovery = proto::Discovery::Closest(8));
    assert_eq!(wire.hear_end(), Said::Closed(4010, "DISCOVERY differs: set the same value on every hub".into()));
    hub.until("the refused link is counted", |reading| reading.io.ended[LinkEnd::WrongDiscovery as usize] == 1).await;
}

#[tokio::test]
async fn the_hello_must_name_the_hub_of_the_request() {
    let hub = hub(1, &[]);
    let mut wire = Wire::dial(hub.address, id(2), false);
    wire.say_hello(3, |_| ());
    assert!(matches!(wire.hear_end(), Said::Closed(4010, _)));
}

#[tokio::test]
async fn bytes_after_the_request_are_received() {
    let hub = hub(1, &[]);
    let mut wire = Wire::dial(hub.address, id(2), false);
    // The bytes arrive first in one segment, and then one by one.
    wire.say_hello(2, |_| ());
    wire.say(Opcode::Binary, &[]);
    assert_eq!(wire.hear_hello().hub, id(1));
    drop(hub);
}

#[tokio::test]
async fn a_go_hub_is_linked_only_if_it_is_configured() {
    let door = door();
    let mut hub = hub(1, &[url(&door)]);
    let (mut wire, asked) = Wire::accept_as(&door, false);
    assert!(asked.head.contains("peerpigeon-mesh.1"));
    assert_eq!(wire.hear_end(), Said::End);
    let failed = |reading: &mesh::MeshReading| {
        reading.dials[0].last_error.as_deref().is_some_and(|error| error.contains("MESH_LEGACY"))
    };
    hub.until("the error names the setting", failed).await;
}

#[tokio::test]
async fn a_hub_is_linked_although_a_hundred_silent_addresses_come_before_it() {
    let swallows = Swallows::new();
    let port = swallows.address.port();
    let mut a = hub(1, &[]);
    // The unreachable addresses come first in sorted order.
    let dead = (100..200).map(|host| format!("ws://127.0.0.{host}:{port}"));
    let mut b = hub(2, &dead.chain([a.url()]).collect::<Vec<_>>());
    b.until_linked_to(&[1]).await;
    a.until_linked_to(&[2]).await;
}

#[tokio::test]
async fn the_hubs_own_address_behind_a_balancer_is_dialed_again() {
    let own = door();
    let balancer = door();
    let (own_address, balanced) = (own.local_addr().unwrap(), url(&balancer));
    let mut other = hub(2, &[]);
    // The first connection goes to the hub itself, and later connections go to the other hub.
    let to = [own_address, other.address];
    std::thread::spawn(move || {
        for (n, stream) in balancer.incoming().enumerate() {
            let (mut from, mut to) = (stream.unwrap(), std::net::TcpStream::connect(to[n.min(1)]).unwrap());
            let (mut back_from, mut back_to) = (to.try_clone().unwrap(), from.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
        }
    });
    let mut hub = Hub::start(own, config(1, &[balanced]));
    hub.until("the hub has connected to itself", |reading| reading.dials[0].own).await;
    hub.until_linked_to(&[2]).await;
    other.until_linked_to(&[1]).await;
}
