//! Tests of the admission of links: tokens, ports, and Go hubs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::client::{Client, id, upgrade};
use crate::door::{body, status};
use crate::hub::{DEADLINE, Hub};
use crate::mesh::{eventually, json};

/// Requests a link with the given path, subprotocol and token. Returns the socket and the answer, without the frames
/// that follow it.
fn ask(address: SocketAddr, path: &str, subprotocol: &str, token: &str) -> (TcpStream, String) {
    let bearer = if token.is_empty() { String::new() } else { format!("Bearer {token}") };
    ask_with(address, path, subprotocol, &bearer)
}

/// Like [`ask`], with the given value of the header `Authorization`.
fn ask_with(address: SocketAddr, path: &str, subprotocol: &str, authorization: &str) -> (TcpStream, String) {
    let mut request = upgrade(path);
    for (name, value) in [("Sec-WebSocket-Protocol: ", subprotocol), ("Authorization: ", authorization)] {
        if !value.is_empty() {
            request = request.replace("\r\n\r\n", &format!("\r\n{name}{value}\r\n\r\n"));
        }
    }
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !is_whole(&answer) {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&answer));
        answer.push(byte[0]);
    }
    (stream, String::from_utf8(answer).unwrap())
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    body.len() >= length.parse().unwrap()
}

const MESH: &str = "peerpigeon-mesh.1";

/// The answer to hub 7 when it requests a link.
fn answer(hub: &Hub, subprotocol: &str, token: &str) -> String {
    ask(hub.address, &format!("/?peerId={}", id(7)), subprotocol, token).1
}

fn free_port() -> String {
    crate::ports::free_port().to_string()
}

fn is_link(answer: &str) -> bool {
    let answer = answer.to_ascii_lowercase();
    answer.starts_with("http/1.1 101") && answer.contains("\r\nsec-websocket-protocol: peerpigeon-mesh.1\r\n")
}

#[test]
fn a_hub_without_links_refuses_links_with_a_reason() {
    let alone = Hub::start(&[]);
    let refused = answer(&alone, MESH, "");
    assert_eq!(status(&refused), "403");
    assert!(body(&refused).contains("not part of a mesh"), "{refused}");
    alone.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="link-off"}"#, |n| n == 1.0);

    // As with the Go hub, IS_HUB alone is enough to serve peers.
    let hub = Hub::start(&[("IS_HUB", "true")]);
    let refused = answer(&hub, MESH, "guess");
    assert_eq!(status(&refused), "403");
    assert!(body(&refused).contains("MESH_TOKEN"), "{refused}");
    Client::join(&hub, 1, "n");
}

#[test]
fn links_require_mesh_token_and_refuse_auth_token() {
    let hub = Hub::start(&[("IS_HUB", "true"), ("MESH_TOKEN", "hubs-only"), ("AUTH_TOKEN", "peers-only")]);
    for token in ["", "peers-only", "hubs-onl", "hubs-only2"] {
        let refused = answer(&hub, MESH, token);
        assert_eq!(status(&refused), "401", "{token}");
        assert!(body(&refused).contains("MESH_TOKEN"), "{refused}");
    }
    for (subprotocol, path, expected, said) in [
        ("peerpigeon-mesh.2", format!("/?peerId={}", id(7)), "400", MESH),
        ("chat, peerpigeon-mesh.99", format!("/?peerId={}", id(7)), "400", MESH),
        (MESH, "/ws".to_owned(), "403", "invalid peerId"),
        (MESH, "/ws?peerId=7".to_owned(), "403", "invalid peerId"),
    ] {
        let refused = ask(hub.address, &path, subprotocol, "hubs-only").1;
        assert_eq!(status(&refused), expected, "{refused}");
        assert!(body(&refused).contains(said), "{refused}");
    }
    for subprotocol in [MESH, "peerpigeon-mesh.2, peerpigeon-mesh.1"] {
        let (_link, taken) = ask(hub.address, &format!("/ws?peerId={}", id(7)), subprotocol, "hubs-only");
        assert!(is_link(&taken), "{taken}");
    }
    // MESH_TOKEN admits no peers.
    assert_eq!(status(&answer(&hub, "", "hubs-only")), "401");
    hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="link-unauthorized"}"#, |n| n == 4.0);
    hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="link-version"}"#, |n| n == 2.0);
}

#[test]
fn links_do_not_count_as_connections() {
    let hub = Hub::start(&[("IS_HUB", "true"), ("MESH_INSECURE", "true"), ("MAX_CONNECTIONS", "1")]);
    let _links: Vec<_> = (1..5)
        .map(|n| {
            let (link, taken) = ask(hub.address, &format!("/?peerId={}", id(n)), MESH, "");
            assert!(is_link(&taken), "{taken}");
            link
        })
        .collect();
    let _peer = Client::join(&hub, 9, "n");
    assert_eq!(hub.metric("peerpigeon_connections"), 1.0);
    assert_eq!(hub.metric("peerpigeon_peers"), 1.0);
}

#[test]
fn a_websocket_without_subprotocol_from_a_legacy_range_is_a_link() {
    let hub = Hub::start(&[("IS_HUB", "true"), ("MESH_LEGACY", "127.0.0.0/8"), ("AUTH_TOKEN", "t")]);
    let (_link, taken) = ask(hub.address, &format!("/?peerId={}", id(7)), "", "");
    assert!(taken.starts_with("HTTP/1.1 101"), "{taken}");
    assert!(!taken.to_ascii_lowercase().contains("sec-websocket-protocol"), "{taken}");
    assert_eq!(status(&ask(hub.address, "/?peerId=x", "", "").1), "403");
    assert_eq!(
        status(&answer(&hub, MESH, "t")),
        "403",
        "an address in MESH_LEGACY must not open a link of a new hub without MESH_TOKEN"
    );
    // A Go hub sends an upgrade without a subprotocol. The hub treats all other requests from an address in MESH_LEGACY
    // as requests of clients.
    assert_eq!(status(&answer(&hub, "chat", "")), "401");
    assert_eq!(status(&hub.get(&format!("/ws?peerId={}", id(1)))), "401");
    let (_peer, taken) = ask(hub.address, &format!("/?peerId={}", id(8)), "chat", "t");
    assert!(taken.starts_with("HTTP/1.1 101"), "{taken}");
    hub.metric_becomes("peerpigeon_peers", |n| n == 1.0);

    let elsewhere = Hub::start(&[("IS_HUB", "true"), ("MESH_LEGACY", "10.0.0.0/8")]);
    Client::join(&elsewhere, 1, "n");
}

#[test]
fn mesh_port_accepts_only_links() {
    let port = free_port();
    let hub = Hub::start(&[("IS_HUB", "true"), ("MESH_TOKEN", "t"), ("MESH_PORT", &port)]);
    let links: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    let path = format!("/?peerId={}", id(7));
    assert!(is_link(&ask(links, &path, MESH, "t").1));
    assert_eq!(status(&ask(links, &path, MESH, "x").1), "401");
    let refused = ask(links, &path, "", "").1;
    assert_eq!(status(&refused), "404");
    assert!(body(&refused).contains("MESH_PORT"), "{refused}");
    let mut stream = TcpStream::connect(links).unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n").unwrap();
    let mut refused = String::new();
    stream.read_to_string(&mut refused).unwrap();
    assert_eq!(status(&refused), "404");

    let refused = answer(&hub, MESH, "t");
    assert_eq!(status(&refused), "403");
    assert!(body(&refused).contains("MESH_PORT"), "{refused}");
    Client::join(&hub, 1, "n");
    assert_eq!(status(&hub.get("/livez")), "200");
    hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="wrong-port"}"#, |n| n == 1.0);
    hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="link-wrong-port"}"#, |n| n == 1.0);
}

/// `/hubstats` and the log of the dialing hub show why a link was refused, and docs/troubleshooting.md has an action
/// for each reason.
#[test]
fn a_dialing_hub_shows_why_its_link_was_refused() {
    let help = include_str!("../../docs/troubleshooting.md");
    let mesh_port = free_port();
    for (there, said) in [
        (&[][..], "this hub is not part of a mesh"),
        (&[("IS_HUB", "true")], "this hub accepts no links: set MESH_TOKEN"),
        (&[("IS_HUB", "true"), ("MESH_TOKEN", "another")], "unauthorized: the proof is of another MESH_TOKEN"),
        (&[("MESH_PORT", &mesh_port), ("IS_HUB", "true"), ("MESH_TOKEN", "t")], "this port accepts no links"),
        (&[("HUB_MESH_NAMESPACE", "x"), ("IS_HUB", "true"), ("MESH_TOKEN", "t")], "HUB_MESH_NAMESPACE differs"),
        (&[("DISCOVERY", "closest:8"), ("IS_HUB", "true"), ("MESH_TOKEN", "t")], "DISCOVERY differs"),
    ] {
        assert!(help.contains(said), "docs/troubleshooting.md does not explain this error: {said}");
        let other = Hub::start(there);
        let url = format!("ws://{}", other.address);
        let hub = Hub::start(&[("BOOTSTRAP_HUBS", &url), ("MESH_TOKEN", "t")]);
        eventually(said, || {
            let stats = json(&hub, "/hubstats");
            stats["bootstrapHubs"][0]["lastError"].as_str().is_some_and(|error| error.contains(said))
        });
    }
}

#[test]
fn mesh_token_can_be_replaced_hub_by_hub() {
    let steps: [&[(&str, &str)]; 4] = [
        &[("MESH_TOKEN", "old")],
        &[("MESH_TOKEN", "old"), ("MESH_TOKEN_ALSO", "new")],
        &[("MESH_TOKEN", "new"), ("MESH_TOKEN_ALSO", "old")],
        &[("MESH_TOKEN", "new")],
    ];
    for pair in steps.windows(2) {
        for (there, here) in [(pair[0], pair[1]), (pair[1], pair[0])] {
            let other = Hub::start(&[&[("IS_HUB", "true")], there].concat());
            let url = format!("ws://{}", other.address);
            let hub = Hub::start(&[&[("BOOTSTRAP_HUBS", url.as_str())], here].concat());
            eventually("the two hubs are linked", || json(&hub, "/hubstats")["totalHubs"] == 1);
        }
    }
    assert_eq!(status(&answer(&Hub::start(&[&[("IS_HUB", "true")], steps[2]].concat()), MESH, "older")), "401");
}

/// Returns the first value of a header that does not begin with `Bearer`. An answer can have the header several times.
fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let lines = answer.lines().filter_map(|line| line.split_once(": "));
    let mut values = lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    values.find(|value| !value.starts_with("Bearer")).unwrap_or_default()
}

#[test]
fn a_recorded_or_foreign_proof_opens_no_link() {
    let hub = Hub::start(&[("IS_HUB", "true"), ("MESH_TOKEN", "of-the-mesh")]);
    let dialer = |n| proto::HubId(id(n).parse().unwrap());
    let request = |n, authorization: &str| ask_with(hub.address, &format!("/?peerId={}", id(n)), MESH, authorization);
    let answered = |n, token: &str| {
        let (_, refused) = request(n, "PeerPigeon-Link");
        assert_eq!(status(&refused), "401");
        let challenge = header(&refused, "WWW-Authenticate");
        proto::LinkCredentials::answer(challenge, token.as_bytes(), dialer(n), [9; 32]).unwrap()
    };
    let credentials = answered(7, "of-the-mesh");
    let (_link, taken) = request(7, &credentials.header());
    assert!(is_link(&taken), "{taken}");
    assert!(credentials.is_reply(header(&taken, "Authentication-Info"), b"of-the-mesh", dialer(7)), "{taken}");
    // The hub refuses a recorded handshake, because its challenge has been answered before.
    let repeated = request(7, &credentials.header()).1;
    assert!(status(&repeated) == "401" && body(&repeated).contains("answered before"), "{repeated}");
    hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="link-challenge"}"#, |n| n == 1.0);
    // The hub also refuses a proof that another hub sends, and a proof that was made with another token.
    let of_another = answered(7, "of-the-mesh").header();
    for (n, credentials) in [(8, of_another), (7, answered(7, "a-guess").header())] {
        let refused = request(n, &credentials).1;
        assert!(status(&refused) == "401" && body(&refused).contains("another MESH_TOKEN"), "{refused}");
    }
    hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="link-proof"}"#, |n| n == 2.0);
    // A request for a challenge does not count as a failure.
    assert_eq!(hub.metric(r#"peerpigeon_handshake_failures_total{reason="link-unauthorized"}"#), 0.0);
}

#[test]
fn hubs_of_version_2_0_0_link_while_mesh_auth_is_both() {
    let env = |auth| [("IS_HUB", "true"), ("MESH_TOKEN", "of-the-mesh"), ("MESH_AUTH", auth)];
    for (auth, links) in [("both", true), ("challenge", false)] {
        // Hubs of version 2.0.0 dial with the token itself.
        let hub = Hub::start(&env(auth));
        let (_link, taken) = ask(hub.address, &format!("/?peerId={}", id(7)), MESH, "of-the-mesh");
        assert_eq!(is_link(&taken), links, "{taken}");
        let refused = if links { 0.0 } else { 1.0 };
        hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="link-bearer"}"#, |n| n == refused);
        // Hubs of version 2.0.0 ask a hub that dials them for the token itself.
        let old = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", old.local_addr().unwrap());
        let dialing = Hub::start(&[&env(auth)[..], &[("BOOTSTRAP_HUBS", &url)]].concat());
        let (mut stream, _) = old.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut read_head = || {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                head.push(byte[0]);
            }
            String::from_utf8(head).unwrap()
        };
        assert!(!read_head().contains("of-the-mesh"), "the hub must not send the token before it is asked");
        // Version 2.0.0 sends exactly these bytes.
        let wanted = "unauthorized: a link takes this hub's MESH_TOKEN, as a bearer token";
        let answer = format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\n\r\n{wanted}", wanted.len());
        (&stream).write_all(answer.as_bytes()).unwrap();
        let mut again = Vec::new();
        if links {
            while !again.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                assert_eq!((&stream).read(&mut byte).unwrap(), 1);
                again.push(byte[0]);
            }
            let head = std::str::from_utf8(&again).unwrap();
            let accept = ::mesh::accept(header(head, "Sec-WebSocket-Key"));
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {MESH}\r\n\r\n"
            );
            (&stream).write_all(answer.as_bytes()).unwrap();
            assert!(
                dialing.logged("link_unproven").contains(&url),
                "the log must name the hub that received the token"
            );
        } else {
            // The hub ends the connection, and shows why.
            (&stream).read_to_end(&mut again).unwrap();
            eventually("the reason is shown", || {
                let error = json(&dialing, "/hubstats")["bootstrapHubs"][0]["lastError"].to_string();
                error.contains("the hub asked for MESH_TOKEN itself")
            });
        }
        assert_eq!(String::from_utf8(again).unwrap().contains("Bearer of-the-mesh"), links);
    }
}

#[test]
fn hubs_link_with_each_combination_of_mesh_auth() {
    for (here, there) in [("challenge", "challenge"), ("both", "challenge"), ("challenge", "both")] {
        let env = |auth| [("IS_HUB", "true"), ("MESH_TOKEN", "of-the-mesh"), ("MESH_AUTH", auth)];
        let other = Hub::start(&env(there));
        let url = format!("ws://{}", other.address);
        let hub = Hub::start(&[&env(here)[..], &[("BOOTSTRAP_HUBS", url.as_str())]].concat());
        eventually("they link", || json(&hub, "/hubstats")["totalHubs"] == 1);
        assert_eq!(other.metric(r#"peerpigeon_handshake_failures_total{reason="link-unauthorized"}"#), 0.0);
    }
    // A hub with `challenge` refuses a hub that does not prove that it knows MESH_TOKEN.
    let open = Hub::start(&[("IS_HUB", "true"), ("MESH_INSECURE", "true")]);
    let url = format!("ws://{}", open.address);
    let env = [("BOOTSTRAP_HUBS", url.as_str()), ("MESH_TOKEN", "of-the-mesh"), ("MESH_AUTH", "challenge")];
    let hub = Hub::start(&env);
    eventually("the hub without a token is refused", || {
        let error = json(&hub, "/hubstats")["bootstrapHubs"][0]["lastError"].to_string();
        error.contains("did not prove that it knows MESH_TOKEN")
    });
}

#[test]
fn an_unknown_host_name_is_shown_with_its_error() {
    let hub = Hub::start(&[("BOOTSTRAP_HUBS", "ws://Nobody.invalid?token=x"), ("MESH_TOKEN", "t")]);
    eventually("the error of the name lookup is shown", || {
        let dialed = &json(&hub, "/hubstats")["bootstrapHubs"][0];
        dialed["lastError"].is_string() && dialed["attemptNumber"].as_u64() > Some(0)
    });
}

#[test]
fn a_hub_with_links_drains_like_a_hub_without_links() {
    let mut hub = Hub::start(&[("IS_HUB", "true"), ("MESH_TOKEN", "t"), ("DRAIN_SECS", "1")]);
    let mut peer = Client::join(&hub, 1, "n");
    let (_link, taken) = ask(hub.address, &format!("/?peerId={}", id(7)), MESH, "t");
    assert!(is_link(&taken), "{taken}");
    hub.signal("-TERM");
    assert!(peer.hear_type("go-away")["data"].get("hubs").is_none_or(|hubs| hubs == &serde_json::json!([])));
    assert_eq!(peer.closed().0, 1012);
    drop(peer);
    assert_eq!(hub.wait().code(), Some(0));
}
