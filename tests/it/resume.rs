//! Tests of resume secrets. A client with the current secret of its id takes the id over at once.

use std::net::TcpStream;

use serde_json::Value;

use crate::client::{Client, Heard, frame, id, upgrade};
use crate::hub::Hub;
use crate::mesh;

/// A token that is long enough to derive the keys of the whole mesh from it.
const LONG_TOKEN: &str = "a-token-with-thirty-two-letters.";

/// Connects as peer `n`, and returns the secret of the new session.
fn connect(hub: &Hub, n: u32, secret: Option<&str>) -> (Client, String) {
    let mut client = open(hub, n, secret);
    let connected = client.hear();
    assert_eq!(connected["type"], "connected", "{connected}");
    (client, secret_of(&connected))
}

fn open(hub: &Hub, n: u32, secret: Option<&str>) -> Client {
    let shown = secret.map_or(String::new(), |secret| format!("&resume={secret}"));
    let stream = TcpStream::connect(hub.address).unwrap();
    Client::open_by(stream, &format!("/ws?peerId={}{shown}", id(n)), n, b"")
}

fn secret_of(connected: &Value) -> String {
    let secret = connected["data"]["resume"].as_str().unwrap();
    assert!(secret.len() == 64 && secret.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)), "{secret}");
    secret.to_owned()
}

fn answers(client: &mut Client) {
    let Heard::Ping(nonce) = client.frame() else { panic!("no ping") };
    client.raw(&frame(10, &nonce));
}

fn assert_resumes(hub: &Hub, outcome: &str, times: f64) {
    let series = format!("peerpigeon_resumes_total{{outcome=\"{outcome}\"}}");
    assert_eq!(hub.metric_becomes(&series, |n| n >= times), times, "{outcome}");
}

/// A page reloads while the previous page in the back/forward cache still answers pings.
#[test]
fn a_client_with_its_secret_takes_its_id_over_at_once() {
    let hub = Hub::start(&[("SHARDS", "4")]);
    let mut watcher = Client::join(&hub, 1, "n");
    let (mut first, secret) = connect(&hub, 2, None);
    first.announce("n");
    watcher.hear_type("peer-discovered");
    first.hear_type("peer-discovered");
    let (mut second, next) = connect(&hub, 2, Some(&secret));
    assert_ne!(secret, next);
    // The hub replaced the first connection without a ping.
    assert_eq!(first.frame(), Heard::Close(4001, "replaced".to_owned()));
    second.announce("n");
    assert_eq!(watcher.hear()["data"]["reason"], "replaced");
    assert_eq!(watcher.hear()["data"]["peerId"], id(2).as_str());
    watcher.hears_nothing();
    assert_resumes(&hub, "resumed", 1.0);
    assert_eq!(hub.metric("peerpigeon_takeovers_total{outcome=\"replaced\"}"), 0.0);
    // The third session takes the id over with the secret of the second session, in upper case. Ids may be in upper
    // case, too.
    let (_third, _) = connect(&hub, 2, Some(&next.to_uppercase()));
    assert_eq!(second.closed(), (4001, "replaced".to_owned()));
}

/// A browser copies sessionStorage into a duplicated tab, so both tabs have the same secret. Each tab reconnects as
/// soon as the hub closes its connection.
#[test]
fn two_tabs_with_one_secret_do_not_replace_each_other_in_a_loop() {
    let hub = Hub::start(&[]);
    let (mut tab, secret) = connect(&hub, 1, None);
    let (mut copy, _) = connect(&hub, 1, Some(&secret));
    assert_eq!(tab.closed(), (4001, "replaced".to_owned()));
    for _ in 0..3 {
        let mut again = open(&hub, 1, Some(&secret));
        answers(&mut copy);
        assert_eq!(again.closed(), (4009, "peer id in use".to_owned()));
    }
    copy.hears_nothing();
    assert_resumes(&hub, "resumed", 1.0);
    assert_resumes(&hub, "outdated", 3.0);
}

#[test]
fn the_owner_of_an_id_takes_it_back_from_a_stranger() {
    let hub = Hub::start(&[]);
    let (owner, secret) = connect(&hub, 1, None);
    owner.reset();
    hub.metric_becomes("peerpigeon_peers", |peers| peers == 0.0);
    let (mut stranger, strange) = connect(&hub, 1, None);
    let (mut back, _) = connect(&hub, 1, Some(&secret));
    assert_eq!(stranger.frame(), Heard::Close(4001, "replaced".to_owned()));
    let mut again = open(&hub, 1, Some(&strange));
    answers(&mut back);
    assert_eq!(again.closed(), (4009, "peer id in use".to_owned()));
    assert_resumes(&hub, "younger", 1.0);
}

#[test]
fn a_wrong_secret_counts_as_no_secret() {
    let hub = Hub::start(&[]);
    let (_other, of_another) = connect(&hub, 9, None);
    let (mut first, secret) = connect(&hub, 1, None);
    let mut turned = secret.clone().into_bytes();
    turned[40] = if turned[40] == b'0' { b'1' } else { b'0' };
    let turned = String::from_utf8(turned).unwrap();
    let wrong = ["", "x", &secret[1..], &format!("{secret}00"), &"%00".repeat(64), &of_another, &turned];
    for (n, shown) in (2..).zip(wrong) {
        let mut second = open(&hub, 1, Some(shown));
        answers(&mut first);
        assert_eq!(second.closed(), (4009, "peer id in use".to_owned()), "{shown}");
        // If the id is free, a wrong secret does no harm.
        connect(&hub, n, Some(shown));
    }
    // An empty secret counts as no secret, so clients may always send `&resume=`. All other wrong secrets are
    // malformed, or count as secrets of another id.
    assert_resumes(&hub, "malformed", 8.0);
    assert_resumes(&hub, "foreign", 4.0);
    assert_eq!(hub.metric("peerpigeon_resumes_total{outcome=\"resumed\"}"), 0.0);
}

#[test]
fn secrets_never_appear_in_logs_pages_or_answers() {
    let mut hub = Hub::start(&[("LOG_LEVEL", "trace"), ("AUTH_TOKEN", "let-me-in")]);
    let by = |query: &str| format!("/ws?peerId={}&token=let-me-in{query}", id(1));
    let over = |path: &str| Client::open_by(TcpStream::connect(hub.address).unwrap(), path, 1, b"");
    let mut first = over(&by(""));
    let secret = secret_of(&first.hear());
    let mut second = over(&by(&format!("&resume={secret}")));
    let next = secret_of(&second.hear());
    assert_eq!(first.closed().0, 4001);
    let wrong = "0123456789abcdef".repeat(4);
    let mut third = over(&by(&format!("&resume={wrong}")));
    answers(&mut second);
    assert_eq!(third.closed().0, 4009);
    let secrets = [secret, next, wrong];
    for shown in &secrets {
        // The hub refuses each handshake of this list for a reason that does not concern the secret in its query.
        for path in [
            format!("/ws?resume={shown}"),
            format!("/ws?peerId=x&token=let-me-in&resume={shown}"),
            format!("/x?resume={shown}"),
        ] {
            let answer = hub.http(&upgrade(&path).replace("Connection: Upgrade", "Connection: Upgrade, close"));
            assert!(!secrets.iter().any(|secret| answer.contains(secret.as_str())), "{answer}");
        }
    }
    for page in ["/health", "/stats", "/hubs", "/hubstats", "/metrics", "/metrics?format=json", "/"] {
        let answer = hub.get(page);
        assert!(!secrets.iter().any(|secret| answer.contains(secret.as_str())), "{answer}");
    }
    hub.signal("-TERM");
    hub.wait();
    let log = hub.rest_of_the_log();
    assert!(log.iter().any(|line| line.contains("peer_connected")), "{log:#?}");
    let tells =
        |line: &&String| secrets.iter().any(|secret| line.contains(secret.as_str()) || line.contains("let-me-in"));
    assert_eq!(log.iter().find(tells), None);
}

#[test]
fn a_secret_is_valid_at_every_hub_of_the_mesh() {
    let hubs = mesh::mesh(3, &[("MESH_TOKEN", LONG_TOKEN)]);
    let mut watcher = Client::join(&hubs[2], 1, "n");
    let (mut first, secret) = connect(&hubs[0], 7, None);
    first.announce("n");
    watcher.hear_type("peer-discovered");
    first.hear_type("peer-discovered");
    mesh::eventually("the second hub knows both peers", || hubs[1].metric("peerpigeon_mesh_remote_peers") == 2.0);
    let (mut second, next) = connect(&hubs[1], 7, Some(&secret));
    assert_eq!(first.frame(), Heard::Close(4001, "replaced".to_owned()), "the first connection was not pinged");
    second.announce("n");
    assert_eq!(watcher.hear()["type"], "peer-disconnected");
    assert_eq!(watcher.hear()["data"]["peerId"], id(7).as_str());
    second.hear_type("peer-discovered");
    assert_resumes(&hubs[0], "resumed", 1.0);
    assert_eq!(hubs[1].metric("peerpigeon_resumes_total{outcome=\"resumed\"}"), 0.0);
    // The replaced client cannot take the id back, at whatever hub it connects.
    let mut again = open(&hubs[2], 7, Some(&secret));
    answers(&mut second);
    assert_eq!(again.closed(), (4009, "peer id in use".to_owned()));
    // The client returns before the hub has noticed that the old connection is dead.
    let (_third, _) = connect(&hubs[0], 7, Some(&next));
    assert_eq!(second.frame(), Heard::Close(4001, "replaced".to_owned()));
}

/// With a resume secret, an attacker could find out a short token by guessing. With a short token, each hub therefore
/// uses its own random key.
#[test]
fn with_a_short_token_a_secret_is_valid_only_at_its_own_hub() {
    let hubs = mesh::mesh(2, &[("MESH_TOKEN", "short")]);
    let (mut first, secret) = connect(&hubs[0], 7, None);
    mesh::eventually("the other hub knows the peer", || hubs[1].metric("peerpigeon_mesh_remote_peers") == 1.0);
    let mut second = open(&hubs[1], 7, Some(&secret));
    answers(&mut first);
    assert_eq!(second.closed(), (4009, "peer id in use".to_owned()));
    assert_resumes(&hubs[1], "foreign", 1.0);
    connect(&hubs[0], 7, Some(&secret));
    assert_eq!(first.frame(), Heard::Close(4001, "replaced".to_owned()));
}

/// If keys are derived from MESH_TOKEN, secrets stay valid after a restart.
#[test]
fn a_secret_stays_valid_after_a_restart() {
    let env = [("MESH_TOKEN", LONG_TOKEN)];
    let hub = Hub::start(&env);
    let (_first, secret) = connect(&hub, 1, None);
    drop(hub);
    let hub = Hub::start(&env);
    let (mut stranger, _) = connect(&hub, 1, None);
    connect(&hub, 1, Some(&secret));
    assert_eq!(stranger.frame(), Heard::Close(4001, "replaced".to_owned()));
}
