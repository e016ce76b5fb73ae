//! Tests of the presence and signals that hubs exchange over links.

use std::sync::Arc;

use mesh::MeshReading;
use proto::envelope::{ChangeKind, EnvelopeKind};
use proto::limits::LINK_QUEUE_HIGH;
use proto::{Announcement, Claim, Envelope, HubId, PeerId, PeerIncarnation, ToMesh, ToShard};

use crate::hub::{DEADLINE, Hub, config, door, hub, id, url};
use crate::wire::Wire;

/// The letters that a shard posts to the mesh when a peer of hub `n` announces data of this size.
fn join(n: u8, peer: u32, data_bytes: usize) -> Vec<ToMesh> {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&peer.to_be_bytes());
    let (peer, session) = (PeerId::from_bytes(bytes), PeerIncarnation(1));
    let claim = Claim { incarnation: session, hub: id(n) };
    vec![ToMesh::Opened { peer, claim }, ToMesh::Joined(Arc::new(announcement(peer, claim, data_bytes)))]
}

/// The announcement of this peer, with data of this size.
fn announcement(peer: PeerId, claim: Claim, data_bytes: usize) -> Announcement {
    let data = format!("{{\"x\":\"{}\"}}", "x".repeat(data_bytes));
    let mut body = vec![EnvelopeKind::Change as u8];
    body.extend_from_slice(claim.hub.0.as_bytes());
    body.extend_from_slice(&[0; 16]);
    body.extend_from_slice(peer.as_bytes());
    body.extend_from_slice(&claim.incarnation.0.to_le_bytes());
    body.extend_from_slice(&[1, 1, 0, b'n']);
    body.extend_from_slice(&(data.len() as u32).to_le_bytes());
    body.extend_from_slice(data.as_bytes());
    // The number of the peer's stay, and one byte for unbounded discovery.
    body.extend_from_slice(&[0; 8 + 1]);
    let frame = [&(body.len() as u32).to_le_bytes()[..], &body].concat();
    let Ok(Some(Envelope::Change(change))) = Envelope::decode(&mut &frame[..]) else { panic!("no change") };
    let ChangeKind::Joined(joined) = &change.kind else { panic!("nobody joined") };
    let (network, discovered) = (joined.network.clone(), Arc::clone(&joined.discovered));
    Announcement { peer, network, claim, remote: false, stay: proto::Stay::default(), discovered }
}

impl Hub {
    /// The next peer of another hub that the mesh announces to the shard.
    async fn next_joined(&mut self) -> (PeerId, HubId) {
        loop {
            let letters = tokio::time::timeout(DEADLINE, self.shard.recv()).await.unwrap().unwrap();
            let joined = letters.into_iter().find_map(|letter| {
                let ToShard::Joined(announcement) = letter else { return None };
                Some((announcement.peer, announcement.claim.hub))
            });
            if let Some(joined) = joined {
                return joined;
            }
        }
    }
}

fn live(reading: &MeshReading) -> Vec<HubId> {
    reading.hubs.iter().filter(|hub| hub.live).map(|hub| hub.hub).collect()
}

#[tokio::test]
async fn a_peer_is_announced_to_a_linked_hub_and_to_a_hub_behind_it() {
    let mut a = hub(1, &[]);
    let mut b = hub(2, &[a.url()]);
    let mut c = hub(3, &[b.url()]);
    a.mail.send(join(1, 7, 10)).await.unwrap();
    for hub in [&mut b, &mut c] {
        assert_eq!(hub.next_joined().await.1, id(1));
    }
    c.mail.send(join(3, 8, 10)).await.unwrap();
    assert_eq!(a.next_joined().await.1, id(3));
}

#[tokio::test]
async fn hubs_that_advertise_turn_a_star_into_a_full_mesh() {
    let doors = [door(), door(), door(), door()];
    let urls: Vec<String> = doors.iter().map(url).collect();
    let mut hubs = Vec::new();
    for ((door, own), n) in doors.into_iter().zip(&urls).zip(1..) {
        let bootstrap = if n == 1 { &[][..] } else { &urls[..1] };
        let mut config = config(n, bootstrap);
        config.relay.advertise = Some(own.as_str().into());
        hubs.push(Hub::start(door, config));
    }
    for (hub, n) in hubs.iter_mut().zip(1..) {
        let others: Vec<u8> = (1..=4).filter(|other| *other != n).collect();
        hub.until_linked_to(&others).await;
    }
}

#[tokio::test]
async fn a_stopping_hub_leaves_the_mesh_at_once() {
    let mut a = hub(1, &[]);
    let mut b = hub(2, &[a.url()]);
    a.until("found", |reading| live(reading) == [id(2)]).await;
    b.until("found", |reading| live(reading) == [id(1)]).await;
    b.end().await;
    a.until("gone", |reading| live(reading).is_empty()).await;
    assert_eq!(a.reading().relay.hubs_lost, 0, "the hub must not wait for the lease");
}

#[tokio::test]
async fn a_hub_that_stops_reading_does_not_affect_others() {
    let mut a = hub(1, &[]);
    let _deaf = Wire::link(a.address, 9);
    let mut b = hub(2, &[a.url()]);
    a.until_linked_to(&[2, 9]).await;
    // The shard posts more data than the socket and a queue below its high-water mark can hold.
    let (letters, data_bytes) = (3_000, 8 * 1024);
    assert!(letters as usize * data_bytes > 2 * LINK_QUEUE_HIGH);
    let (mail, mut heard) = (a.mail.clone(), 0);
    let posting = async {
        for peer in 0..letters {
            mail.send(join(1, peer, data_bytes)).await.unwrap();
        }
    };
    let hearing = async {
        while heard < letters as usize {
            let letters = tokio::time::timeout(DEADLINE, b.shard.recv()).await.unwrap().unwrap();
            heard += letters.iter().filter(|letter| matches!(letter, ToShard::Joined(_))).count();
        }
    };
    tokio::join!(posting, hearing);
    let saturated = |reading: &MeshReading| {
        reading.io.saturations >= 1 && reading.links.iter().any(|link| link.saturated && link.hub == Some(id(9)))
    };
    a.until("the queue of the link is full", saturated).await;
    let ended = |reading: &MeshReading| {
        let ends = reading.io.ended;
        ends[mesh::LinkEnd::Stalled as usize] + ends[mesh::LinkEnd::Dead as usize] == 1
    };
    a.until("the link has ended", ended).await;
    a.until_linked_to(&[2]).await;
}
