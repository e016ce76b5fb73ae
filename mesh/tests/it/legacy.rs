//! Tests of legacy links.

use proto::ws::Opcode;

use crate::hub::{Hub, config, door, hub, id, only_link, url};
use crate::wire::{Said, Wire};

#[tokio::test]
async fn a_go_hub_is_dialed_without_the_token() {
    let old = door();
    let mut config = config(1, &[url(&old)]);
    config.legacy = vec![url(&old) + "/"];
    let mut hub = Hub::start(door(), config);
    let (mut wire, asked) = Wire::accept(&old);
    assert!(asked.legacy && !asked.head.to_lowercase().contains("authorization"), "{}", asked.head);
    assert!(asked.head.starts_with(&format!("GET /?peerId={} HTTP/1.1", id(1))), "{}", asked.head);
    let reading = hub.until("the Go hub is linked", |reading| reading.links.iter().any(|link| link.ready)).await;
    let link = only_link(&reading);
    assert!(link.legacy && link.dialed && link.hub.is_some_and(|hub| hub != id(1)));
    wire.say(Opcode::Text, br#"{"type":"announce"}"#);
    wire.say(Opcode::Binary, br#"{"type":"announce"}"#);
    hub.until("two frames are read", |reading| reading.io.frames_in == 2).await;
    drop(wire);
    let (_wire, _) = Wire::accept(&old);
}

#[tokio::test]
async fn a_go_hub_may_dial() {
    let mut hub = hub(1, &[]);
    let mut first = Wire::dial(hub.address, id(7), true);
    hub.until_linked_to(&[7]).await;
    first.say(Opcode::Text, br#"{"type":"announce"}"#);
    hub.until("one frame is read", |reading| reading.io.frames_in == 1).await;
    // The Go hub dials again only after it has lost its first link.
    let mut second = Wire::dial(hub.address, id(7), true);
    assert!(matches!(first.hear_end(), Said::Closed(1000, _)));
    drop(first);
    hub.until_linked_to(&[7]).await;
    second.say(Opcode::Binary, b"\xff");
    assert!(matches!(second.hear_end(), Said::Closed(1002, _)));
}
