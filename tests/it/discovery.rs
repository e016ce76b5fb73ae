//! Tests of bounded discovery on real sockets. The tests check which peers know each other, and how many events joins
//! cause.

use std::collections::BTreeSet;

use proto::limits::RANDOM_PICKS;

use crate::client::{Client, Heard, id};
use crate::hub::Hub;
use crate::mesh::{TOKEN, eventually, free_port, mesh};

const K: usize = 8;
const PEERS: u32 = 100;

/// A peer with the ids it has discovered.
struct Peer {
    client: Client,
    known: BTreeSet<String>,
}

impl Peer {
    fn join(hub: &Hub, n: u32) -> Self {
        // The factor spreads the ids like random ids. Ids of consecutive numbers would all be close to each other.
        let client = Client::join(hub, n.wrapping_mul(0x9e37_79b1), "n");
        let mut peer = Self { client, known: BTreeSet::new() };
        peer.listen();
        peer
    }

    /// Processes all messages that have arrived.
    fn listen(&mut self) {
        self.client.say(r#"{"type":"ping"}"#);
        loop {
            let Heard::Text(text) = self.client.next() else { panic!("{} is gone", self.client.id) };
            let heard: serde_json::Value = serde_json::from_str(&text).unwrap();
            let subject = || heard["data"]["peerId"].as_str().unwrap().to_owned();
            match heard["type"].as_str().unwrap() {
                "pong" => return,
                "peer-discovered" => assert!(self.known.insert(subject()), "{} discovers {text} again", self.client.id),
                "peer-disconnected" => assert!(self.known.remove(&subject()), "{} hears {text}", self.client.id),
                other => panic!("{} hears {other}", self.client.id),
            }
        }
    }
}

const ACQUAINTANCES: &str = "peerpigeon_acquaintances";
const DISCOVERED: &str = r#"peerpigeon_messages_total{direction="out",type="peer-discovered"}"#;

/// Waits until all acquaintances are mutual and the hubs' counters match. Returns the number of acquaintances.
fn settled(hubs: &[Hub], peers: &mut [Peer]) -> usize {
    let mut known = 0;
    eventually("all acquaintances are mutual", || {
        peers.iter_mut().for_each(Peer::listen);
        let pairs: BTreeSet<(&str, &str)> = peers
            .iter()
            .flat_map(|peer| peer.known.iter().map(|other| (peer.client.id.as_str(), other.as_str())))
            .collect();
        known = pairs.len();
        pairs.iter().all(|&(a, b)| pairs.contains(&(b, a)))
            && hubs.iter().map(|hub| hub.metric(ACQUAINTANCES)).sum::<f64>() == known as f64
    });
    known
}

/// Returns the number of discovery events if `peers` peers join one after another.
fn events(peers: u32) -> usize {
    (0..peers as usize).map(|n| 2 * n.min(K + RANDOM_PICKS)).sum()
}

#[test]
fn a_hundred_peers_on_two_shards_each_know_a_bounded_circle() {
    let hub = Hub::start(&[("DISCOVERY", "closest:8")]);
    let mut peers: Vec<Peer> = (0..PEERS).map(|n| Peer::join(&hub, n)).collect();
    let hubs = [hub];
    let known = settled(&hubs, &mut peers);
    // Two joins at different shards may overlap, which causes a few more events.
    let expected = events(PEERS);
    assert!((expected..=expected * 21 / 20).contains(&known), "{known} events instead of {expected}");
    assert_eq!(hubs[0].metric(DISCOVERED), known as f64);
    assert!(peers.iter().all(|peer| peer.known.len() >= K));
    // Peers that knew a leaving peer receive its leave. A peer for which the leaving peer had been picked also
    // discovers a replacement.
    let mut told = known;
    for _ in 0..20 {
        told -= 2 * peers.pop().unwrap().known.len();
    }
    hubs[0].metric_becomes("peerpigeon_members", |members| members == 80.0);
    let after = settled(&hubs, &mut peers);
    assert!(peers.iter().all(|peer| peer.known.len() >= K));
    assert!(
        after > told && after <= known,
        "acquaintances: {known} before, {told} without the peers that left, {after} in the end"
    );
    // A signal from a peer that the target does not know first introduces that peer to the target.
    let far = id((PEERS - 30).wrapping_mul(0x9e37_79b1));
    let stranger = peers.iter().position(|peer| peer.client.id != far && !peer.known.contains(&far)).unwrap();
    peers[stranger].client.offer(&far, "n", "1", "");
    let target = peers.iter_mut().find(|peer| peer.client.id == far).unwrap();
    let from = target.client.hear();
    assert_eq!(from["type"], "peer-discovered", "{from}");
    assert_eq!(target.client.hear()["type"], "offer");
    target.known.insert(from["data"]["peerId"].as_str().unwrap().to_owned());
    assert_eq!(settled(&hubs, &mut peers), after + 2);
}

#[test]
fn a_hundred_peers_on_two_hubs_each_know_a_bounded_circle() {
    let hubs = mesh(2, &[("DISCOVERY", "closest:8")]);
    let mut peers: Vec<Peer> = (0..PEERS).map(|n| Peer::join(&hubs[n as usize % 2], n)).collect();
    let known = settled(&hubs, &mut peers);
    // Joins that are in flight between the hubs cause additional introductions.
    let expected = events(PEERS);
    assert!((expected..=2 * expected).contains(&known), "{known} events instead of {expected}");
    assert!(peers.iter().all(|peer| peer.known.len() >= K));
    for _ in 0..20 {
        peers.remove(0);
    }
    for hub in &hubs {
        hub.metric_becomes("peerpigeon_members", |members| members == 80.0);
    }
    settled(&hubs, &mut peers);
    assert!(peers.iter().all(|peer| peer.known.len() >= K));
}

#[test]
fn hubs_with_different_discovery_settings_do_not_link() {
    let port = free_port().to_string();
    let url = format!("ws://127.0.0.1:{port}");
    let common = [("IS_HUB", "true"), ("MESH_TOKEN", TOKEN)];
    let some = [common[0], common[1], ("PORT", port.as_str()), ("DISCOVERY", "closest:8")];
    let other = Hub::start(&some);
    let all = Hub::start(&[common[0], common[1], ("BOOTSTRAP_HUBS", &url)]);
    let refusal = all.logged("DISCOVERY differs: set the same value on every hub");
    assert!(refusal.contains("WARN"), "{refusal}");
    other.metric_becomes(r#"peerpigeon_link_ends_total{reason="wrong-discovery"}"#, |n| n >= 1.0);
}
