//! Tests how links end, and what hubs do afterwards.

use mesh::LinkEnd;
use proto::ws::Opcode;

use crate::hub::{DEADLINE, Hub, config, door, hub, id, url};
use crate::wire::{Said, Wire};

#[tokio::test]
async fn a_returning_hub_is_dialed_again() {
    let door = door();
    let mut hub = hub(1, &[url(&door)]);
    for end in 0..3 {
        let mut wire = Wire::accept_link(&door, 2);
        hub.until_linked_to(&[2]).await;
        if end == 1 {
            wire.say(Opcode::Close, &1001_u16.to_be_bytes());
            assert_eq!(wire.hear_end(), Said::Closed(1001, String::new()));
        }
        drop(wire);
        hub.until("lost", |reading| reading.links.is_empty() && !reading.dials[0].connected).await;
    }
    let reading = hub.reading();
    assert_eq!((reading.io.ended[LinkEnd::Lost as usize], reading.io.ended[LinkEnd::Closed as usize]), (2, 1));
}

#[tokio::test]
async fn a_malformed_message_ends_only_its_link() {
    let mut hub = hub(1, &[]);
    let _other = Wire::link(hub.address, 9);
    let bad: [&dyn Fn(&mut Wire); 5] = [
        &|wire| wire.say(Opcode::Binary, &[9, 0, 0, 0, 1, 2]),
        &|wire| wire.say(Opcode::Binary, &[1, 0, 0, 0, 1]),
        &|wire| wire.say(Opcode::Text, b"{}"),
        &|wire| wire.say_hello(2, |_| ()),
        &|wire| wire.say(Opcode::Continuation, b""),
    ];
    for say in bad {
        let mut wire = Wire::link(hub.address, 2);
        hub.until_linked_to(&[2, 9]).await;
        say(&mut wire);
        assert_eq!(wire.hear_end(), Said::Closed(1002, "malformed message".into()));
        drop(wire);
        hub.until_linked_to(&[9]).await;
    }
    let reading = hub.reading();
    assert_eq!((reading.io.ended[LinkEnd::Malformed as usize], reading.io.opened), (5, 6));
}

#[tokio::test]
async fn messages_other_than_hello_before_ready_end_the_link() {
    let hub = hub(1, &[]);
    let mut wire = Wire::dial(hub.address, id(2), false);
    wire.say_hello(2, |_| ());
    wire.hear_hello();
    wire.say_hello(2, |_| ());
    assert!(matches!(wire.hear_end(), Said::Closed(1002, _)));
}

#[tokio::test]
async fn a_link_without_hello_is_closed() {
    let hub = hub(1, &[]);
    let mut wire = Wire::dial(hub.address, id(2), false);
    assert_eq!(wire.hear_end(), Said::Closed(4010, "no hello in time".into()));
}

#[tokio::test]
async fn a_stopping_hub_sends_a_farewell_and_ends_its_thread() {
    let door = door();
    let mut hub = Hub::start(crate::hub::door(), config(1, &[url(&door)]));
    let wire = Wire::accept_link(&door, 2);
    hub.until_linked_to(&[2]).await;
    let other = std::thread::spawn(move || {
        let mut wire = wire;
        let said = wire.hear_end();
        wire.say(Opcode::Close, &1001_u16.to_be_bytes());
        said
    });
    let ended = std::mem::replace(&mut hub.ended, tokio::sync::oneshot::channel().1);
    let mail = hub.mail.clone();
    tokio::time::timeout(DEADLINE, hub.end()).await.unwrap();
    assert_eq!(other.join().unwrap(), Said::Closed(1001, "hub is stopping".into()));
    ended.await.unwrap();
    assert!(mail.is_closed());
}

#[tokio::test]
async fn a_stopping_hub_does_not_wait_for_a_hub_that_does_not_read() {
    let mut hub = hub(1, &[]);
    let _deaf = Wire::link(hub.address, 2);
    hub.until_linked_to(&[2]).await;
    tokio::time::timeout(DEADLINE, hub.end()).await.unwrap();
}

#[tokio::test]
async fn a_hub_that_returns_after_a_farewell_is_dialed_soon() {
    let mut a = hub(1, &[]);
    let address = a.address;
    let mut b = hub(2, &[a.url()]);
    b.until_linked_to(&[1]).await;
    a.until_linked_to(&[2]).await;
    a.draining();
    b.until("a drains", |reading| reading.hubs[0].draining).await;
    a.end().await;
    b.until("a is gone", |reading| reading.links.is_empty() && !reading.hubs[0].live).await;
    let mut next = config(3, &[]);
    next.relay.incarnation = proto::HubIncarnation(9);
    let mut a = Hub::start(std::net::TcpListener::bind(address).unwrap(), next);
    b.until_linked_to(&[3]).await;
    a.until_linked_to(&[2]).await;
}
