//! Tests of proofs of ids. The id of a client is the hash of its public key, and the client signs a nonce of the hub.

use std::net::TcpStream;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use proto::PeerId;
use rcgen::{KeyPair, PKCS_ED25519};
use serde_json::{Value, json};

use crate::client::{Client, Heard, frame, id};
use crate::hub::Hub;
use crate::jwt::{ask, token};
use crate::mesh::mesh;

const HOST: &str = "hub.example";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A client that has the private key of its id.
struct Owner {
    signer: EncodingKey,
    key: String,
    id: String,
}

impl Owner {
    fn new() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let key = <[u8; 32]>::try_from(pair.public_key_raw()).unwrap();
        let signer = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self { signer, key: hex(&key), id: PeerId::of_key(&key).to_string() }
    }

    fn path(&self) -> String {
        format!("/ws?peerId={}&key={}", self.id, self.key)
    }

    fn proof(&self, host: &str, nonce: &str) -> String {
        let text = format!("peerpigeon-id-proof-1\n{host}\n{nonce}\n{}", self.id);
        let signature = crypto::sign(text.as_bytes(), &self.signer, Algorithm::EdDSA).unwrap();
        let signature = hex(&URL_SAFE_NO_PAD.decode(signature).unwrap());
        json!({ "type": "proof", "data": { "host": host, "signature": signature } }).to_string()
    }

    /// Connects, and receives the nonce.
    fn challenged(&self, hub: &Hub) -> (Client, String) {
        let mut client = Client::open_by(TcpStream::connect(hub.address).unwrap(), &self.path(), 0, b"");
        let challenge = client.hear();
        assert_eq!(
            (&challenge["type"], &challenge["targetPeerId"]),
            (&json!("challenge"), &json!(self.id)),
            "{challenge}"
        );
        let nonce = challenge["data"]["nonce"].as_str().unwrap().to_owned();
        (client, nonce)
    }

    /// Connects, and proves the id.
    fn connect(&self, hub: &Hub) -> Client {
        let (mut client, nonce) = self.challenged(hub);
        // The client may send further messages without waiting for the answer to its proof.
        let both = [frame(1, self.proof(HOST, &nonce).as_bytes()), frame(1, br#"{"type":"ping"}"#)].concat();
        client.raw(&both);
        let connected = client.hear();
        assert_eq!((&connected["type"], &connected["data"]["peerId"]), (&json!("connected"), &json!(self.id)));
        assert_eq!(client.hear()["type"], "pong");
        client
    }
}

fn hub(mode: &str, more: &[(&str, &str)]) -> Hub {
    let own = [("PEER_ID_PROOF", mode), ("PEER_ID_HOSTS", HOST)];
    Hub::start(&[&own[..], more].concat())
}

#[test]
fn the_owner_of_a_key_takes_its_id_over_from_strangers_and_from_its_own_old_page() {
    let (hub, owner) = (hub("offered", &[]), Owner::new());
    // A client without the key uses the id.
    let path = format!("/ws?peerId={}", owner.id);
    let mut squatter = Client::open_by(TcpStream::connect(hub.address).unwrap(), &path, 0, b"");
    assert_eq!(squatter.hear()["type"], "connected");
    let mut first = owner.connect(&hub);
    assert_eq!(squatter.closed_without_ping(), (4001, "replaced".to_owned()));
    let mut second = owner.connect(&hub);
    assert_eq!(first.closed_without_ping(), (4001, "replaced".to_owned()));
    assert_eq!(hub.metric_becomes("peerpigeon_ids_proven_total", |n| n > 1.0), 2.0);
    // No other client gets the id while the owner answers pings.
    let mut other = Client::open_by(TcpStream::connect(hub.address).unwrap(), &path, 0, b"");
    let Heard::Ping(payload) = second.frame() else { panic!("no ping") };
    second.raw(&frame(10, &payload));
    assert_eq!(other.closed(), (4009, "peer id in use".to_owned()));
}

/// Makes the first message of a client. The arguments are the owner of the id, another client, and the nonce.
type Proof = fn(&Owner, &Owner, &str) -> String;

#[test]
fn a_wrong_proof_is_refused_and_counted() {
    let (hub, owner, other) = (hub("offered", &[("LOG_LEVEL", "trace")]), Owner::new(), Owner::new());
    let wrong: [(Proof, &str); 4] = [
        (
            |owner, other, nonce| {
                Owner { id: owner.id.clone(), key: String::new(), signer: other.signer.clone() }.proof(HOST, nonce)
            },
            "wrong",
        ),
        (|owner, _, _| owner.proof(HOST, &"00".repeat(32)), "wrong"),
        (|owner, _, nonce| owner.proof("rogue.example", nonce), "host"),
        (|_, _, _| r#"{"type":"announce"}"#.to_owned(), "wrong"),
    ];
    for (at, (proof, why)) in wrong.iter().enumerate() {
        let (mut client, nonce) = owner.challenged(&hub);
        client.say(&proof(&owner, &other, &nonce));
        let (code, text) = client.closed();
        assert_eq!(code, 4403, "{at}");
        assert_eq!(text.contains("another host"), *why == "host", "{text}");
        let counted = hub.metric_becomes("peerpigeon_handshake_failures_total{reason=\"id-proof\"}", |n| n > at as f64);
        assert_eq!(counted, at as f64 + 1.0);
    }
    assert!(hub.logged("id_proof_refused").contains("\"wrong\""));
    // A recorded proof is not valid on another connection.
    let (mut client, nonce) = owner.challenged(&hub);
    let recorded = owner.proof(HOST, &nonce);
    client.say(&recorded);
    assert_eq!(client.hear()["type"], "connected");
    let (mut thief, _) = owner.challenged(&hub);
    thief.say(&recorded);
    assert_eq!(thief.closed().0, 4403);
    client.hears_nothing();
}

#[test]
fn only_the_id_of_the_key_can_be_proven() {
    let (hub, owner) = (hub("offered", &[]), Owner::new());
    for path in [format!("/ws?peerId={}&key={}", id(1), owner.key), format!("/ws?peerId={}&key=abc", owner.id)] {
        let answer = ask(&hub, &path, "");
        assert!(answer.starts_with("http/1.1 403"), "{answer}");
    }
    // If the request contains no id, the hub derives the id from the key.
    let path = format!("/ws?key={}", owner.key);
    let mut client = Client::open_by(TcpStream::connect(hub.address).unwrap(), &path, 0, b"");
    assert_eq!(client.hear()["targetPeerId"], owner.id.as_str());
}

#[test]
fn a_hub_that_requires_proofs_refuses_clients_without_one() {
    let hub = hub("required", &[("JWT_SECRET", "a-secret-with-thirty-two-letters"), ("AUTH_TOKEN", "for-all")]);
    let path = |n: u32, token: &str| format!("/ws?peerId={}&token={token}", id(n));
    assert!(ask(&hub, &path(1, "for-all"), "").starts_with("http/1.1 403"));
    assert!(ask(&hub, &path(1, &token(&json!({}))), "").starts_with("http/1.1 403"));
    // A token with the id in `sub` also counts as a proof.
    let own = token(&json!({ "sub": id(1) }));
    let mut client = Client::open_by(TcpStream::connect(hub.address).unwrap(), &path(1, &own), 1, b"");
    assert_eq!(client.hear()["type"], "connected");
    // A key does not replace the token.
    assert!(ask(&hub, &Owner::new().path(), "").starts_with("http/1.1 401"));
}

#[test]
fn keys_are_ignored_while_proofs_are_off() {
    let (hub, owner) = (Hub::start(&[]), Owner::new());
    let mut client = Client::open_by(TcpStream::connect(hub.address).unwrap(), &owner.path(), 0, b"");
    let connected: Value = client.hear();
    assert_eq!(connected["type"], "connected");
}

#[test]
fn an_owner_takes_its_id_over_from_another_hub() {
    let owner = Owner::new();
    let hubs = mesh(2, &[("PEER_ID_PROOF", "offered"), ("PEER_ID_HOSTS", HOST), ("MESH_TOKEN", "mesh")]);
    let mut first = owner.connect(&hubs[0]);
    first.announce("n");
    let mut witness = Client::join(&hubs[1], 7, "n");
    witness.hear_type("peer-discovered");
    let mut second = owner.connect(&hubs[1]);
    assert_eq!(first.closed_without_ping(), (4001, "replaced".to_owned()));
    second.hears_nothing();
}
