//! Tests of HTTP: the admission of peers, and the pages.

use serde_json::Value;

use crate::client::{Client, id, upgrade};
use crate::hub::{DEADLINE, Hub};

pub fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

pub fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

/// The value of this header in an answer.
fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split_once("\r\n\r\n").unwrap().0;
    let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Builds a handshake of peer 1 in which the lines of `changes` replace lines or are added. The hub closes the
/// connection if it refuses the handshake.
fn handshake(changes: &[(&str, &str)]) -> String {
    let mut request = upgrade(&format!("/ws?peerId={}", id(1)));
    for (name, line) in changes {
        request = match request.lines().find(|known| known.starts_with(name)) {
            Some(known) => request.replace(&format!("{known}\r\n"), line),
            None => request.replace("Host: hub\r\n", &format!("Host: hub\r\n{line}")),
        };
    }
    request.replace("Connection: Upgrade", "Connection: Upgrade, close")
}

/// Offers the subprotocol of clients, and returns the head of the answer and the close frame after it.
fn refusal(hub: &Hub, query: &str, more: &str) -> (String, (u16, String)) {
    use std::io::{Read, Write};
    let request = upgrade(&format!("/ws?{query}"));
    let request =
        request.replace("Host: hub\r\n", &format!("Host: hub\r\nSec-WebSocket-Protocol: x, peerpigeon\r\n{more}"));
    let mut stream = std::net::TcpStream::connect(hub.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let (head, frame) = answer.split_at(end);
    let head = String::from_utf8(head.to_vec()).unwrap();
    assert!(frame.len() >= 4 && frame[0] == 0x88 && usize::from(frame[1]) == frame.len() - 2, "{head}{frame:?}");
    let text = String::from_utf8(frame[4..].to_vec()).unwrap();
    (head, (u16::from_be_bytes([frame[2], frame[3]]), text))
}

#[test]
fn clients_with_the_subprotocol_are_refused_by_a_close_frame() {
    let hub =
        Hub::start(&[("AUTH_TOKEN", "secret"), ("ALLOWED_ORIGINS", "https://good.example"), ("MAX_CONNECTIONS", "1")]);
    let me = format!("peerId={}", id(1));
    let origin = |name: &str| format!("Origin: https://{name}.example\r\n");
    let close = |query: &str, more: &str| {
        let (head, close) = refusal(&hub, query, more);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(header(&head, "sec-websocket-protocol"), Some("peerpigeon"), "{head}");
        close
    };
    assert_eq!(close(&me, ""), (4401, "unauthorized".into()));
    assert_eq!(close(&format!("{me}&token=wrong"), &origin("good")), (4401, "unauthorized".into()));
    let (code, text) = close(&format!("{me}&token=secret"), &origin("bad"));
    assert_eq!(code, 4403);
    assert!(text.contains("https://bad.example") && text.contains("ALLOWED_ORIGINS"), "{text}");
    // The text of a close frame has at most 123 bytes, so the hub shortens the message.
    let (code, text) = close(&me, &origin(&"é".repeat(60)));
    assert!(code == 4403 && (122..=123).contains(&text.len()), "{} {text}", text.len());
    assert_eq!(close("peerId=x&token=secret", ""), (4403, "invalid peerId".into()));
    let open = |n: u32| {
        let stream = std::net::TcpStream::connect(hub.address).unwrap();
        Client::open_by(stream, &format!("/ws?peerId={}&token=secret", id(n)), n, b"")
    };
    let mut only = open(2);
    only.hear_type("connected");
    assert_eq!(close(&format!("{me}&token=secret"), ""), (1013, "max connections".into()));
    assert_eq!(open(1).closed(), (1008, "max connections".into()));
    let counted = hub.get("/metrics?token=secret");
    for (reason, times) in [("unauthorized", 2), ("origin", 2), ("invalid-peer-id", 1)] {
        let series = format!("peerpigeon_handshake_failures_total{{reason=\"{reason}\"}} {times}\n");
        assert!(counted.contains(&series), "{series}");
    }
}

#[test]
fn a_request_with_the_subprotocol_but_without_an_upgrade_is_refused_by_http() {
    let hub = Hub::start(&[("AUTH_TOKEN", "secret")]);
    let protocol = ("Sec-WebSocket-Protocol", "Sec-WebSocket-Protocol: peerpigeon\r\n");
    let refused = hub.http(&handshake(&[protocol, ("Upgrade", "")]));
    assert_eq!(status(&refused), "401", "{refused}");
    let other = hub.http(&handshake(&[("Sec-WebSocket-Protocol", "Sec-WebSocket-Protocol: peerpigeon.x\r\n")]));
    assert_eq!(status(&other), "401", "{other}");
}

fn json(answer: &str) -> Value {
    serde_json::from_str(body(answer)).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

#[test]
pub fn the_token_is_checked_before_the_id_and_the_id_before_the_upgrade() {
    let hub = Hub::start(&[("AUTH_TOKEN", "se%cret&"), ("CORS_ORIGIN", "https://app.example")]);
    let plain = |path: &str| hub.get(path);
    for path in ["/ws", "/ws?peerId=zz", &format!("/?peerId={}", id(1)), "/ws?token=wrong", "/ws?token=se%25cret%2"] {
        let answer = plain(path);
        assert_eq!((status(&answer), body(&answer)), ("401", "unauthorized"), "{path}");
        assert!(answer.contains("access-control-allow-origin: https://app.example"), "{answer}");
        assert_eq!(header(&answer, "cache-control"), Some("no-store"));
        assert_eq!(header(&answer, "x-content-type-options"), Some("nosniff"));
    }
    for path in ["/ws?token=se%25cret%26", "/ws?token=se%25cret%26&peerId=12", "/ws/?token=se%25cret%26&peerId="] {
        let answer = plain(path);
        assert_eq!((status(&answer), body(&answer)), ("403", "invalid peerId"), "{path}");
    }
    let answer = plain(&format!("/ws?token=se%25cret%26&peerId={}", id(1)));
    assert_eq!(status(&answer), "400", "{answer}");
    for path in ["/", "/ws", "/ws/"] {
        let request = upgrade(&format!("{path}?peerId={}", id(1)));
        let request = request.replace("Host: hub", "Host: hub\r\nConnection: close");
        assert_eq!(status(&hub.http(&request)), "401");
    }
    hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="unauthorized"}"#, |n| n == 8.0);
}

#[test]
fn a_page_of_another_origin_is_refused_with_its_origin_in_the_answer() {
    let hub = Hub::start(&[("AUTH_TOKEN", "t"), ("ALLOWED_ORIGINS", "https://app.example,https://*.sub.example,null")]);
    let with = |path: &str, origin: &str| {
        let host = format!("Host: hub\r\nConnection: close\r\n{origin}");
        hub.begins(&upgrade(&format!("{path}?token=t&peerId={}", id(1))).replace("Host: hub\r\n", &host))
    };
    for path in ["/ws", "/"] {
        for origin in ["", "Origin: https://app.example\r\n", "Origin: https://x.sub.example\r\n", "Origin: null\r\n"] {
            assert_eq!(status(&with(path, origin)), "101", "{origin}");
        }
        for origin in ["https://evil.example", "http://app.example", "https://sub.example"] {
            assert_eq!(status(&with(path, &format!("Origin: {origin}\r\n"))), "403", "{origin}");
        }
    }
    // The hub checks the origin first. So a request without a token, and a request for a link, get the same refusal.
    let refused = handshake(&[("Origin", "Origin: https://evil.example\r\n")]);
    assert_eq!(status(&hub.http(&refused)), "403");
    let answer = hub.http(&refused.replace("Host: hub", "Host: hub\r\nSec-WebSocket-Protocol: peerpigeon-mesh.1"));
    assert_eq!(body(&answer), "pages of https://evil.example may not connect here: ALLOWED_ORIGINS does not name it");
    assert_eq!((header(&answer, "access-control-allow-origin"), header(&answer, "vary")), (None, Some("Origin")));
    hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="origin"}"#, |n| n == 8.0);
    let line = hub.logged("origin_refused");
    assert!(line.contains("pages of https://evil.example may not connect here"), "{line}");
    // Without CORS headers, a browser does not pass the answer to a page of another origin.
    for (origin, allowed) in [("https://x.sub.example", Some("https://x.sub.example")), ("https://evil.example", None)]
    {
        let asked = format!("GET /health HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nOrigin: {origin}\r\n\r\n");
        let answer = hub.http(&asked);
        assert_eq!((status(&answer), header(&answer, "access-control-allow-origin")), ("200", allowed), "{answer}");
    }
}

#[test]
fn ids_in_either_case_are_accepted_at_every_path() {
    let hub = Hub::start(&[]);
    let mut watcher = Client::join(&hub, 1, "global");
    for path in ["/", "/ws", "/ws/"] {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(hub.address).unwrap();
        let id = "ABCDEF0123456789abcdef0123456789ABCDEF01";
        stream.write_all(upgrade(&format!("{path}?peerId={id}")).as_bytes()).unwrap();
        stream.write_all(&crate::client::frame(1, br#"{"type":"announce"}"#)).unwrap();
        assert_eq!(watcher.hear()["data"]["peerId"], id.to_lowercase().as_str());
        drop(stream);
        watcher.hear_type("peer-disconnected");
    }
}

#[test]
pub fn pages_count_connections_peers_and_networks() {
    let hub = Hub::start(&[("SHARDS", "4")]);
    let mut peers: Vec<Client> = (0..5).map(|n| Client::join(&hub, n, if n < 3 { "a" } else { "b" })).collect();
    for peer in &mut peers {
        peer.say(r#"{"type":"ping"}"#);
        peer.hear_type("pong");
    }
    let health = json(&hub.get("/health"));
    assert_eq!(
        (&health["status"], &health["connections"], &health["peers"]),
        (&"healthy".into(), &5.into(), &5.into())
    );
    assert!(health["memory"]["heapUsed"].as_u64().unwrap() > 0);
    hub.metric_becomes("peerpigeon_peers", |n| n == 5.0);
    // Shard 0 collects the networks for this page, and receives the joins of other shards with a delay. 20 right
    // answers in a row show that the list no longer changes.
    let end = std::time::Instant::now() + DEADLINE;
    let mut right = 0;
    while right < 20 {
        let metrics = json(&hub.get("/metrics?format=json"));
        right = if metrics["peers"]["networks"] == serde_json::json!({"a": 3, "b": 2}) { right + 1 } else { 0 };
        assert!(std::time::Instant::now() < end, "{metrics}");
    }
    hub.metric_becomes("peerpigeon_networks", |n| n == 2.0);
    drop(peers);
    hub.metric_becomes("peerpigeon_connections", |n| n == 0.0);
    hub.metric_becomes("peerpigeon_networks", |n| n == 0.0);
}

#[test]
pub fn an_http_connection_serves_many_requests() {
    use std::io::{Read, Write};
    let hub = Hub::start(&[]);
    let mut stream = std::net::TcpStream::connect(hub.address).unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: hub\r\n\r\nHEAD /nope HTTP/1.1\r\nHost: hub\r\n\r\n").unwrap();
    }
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n").unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 4, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 404").count(), 3, "{answers}");
}

#[test]
pub fn request_heads_are_bounded() {
    let hub = Hub::start(&[]);
    let begin = "GET /livez HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nCookie: ";
    let whole = format!("{begin}{}\r\n\r\n", "x".repeat(12 * 1024));
    assert_eq!(status(&hub.http(&whole)), "200");
    // The unfinished head of this request has exactly the maximum size. With a longer head, the hub would leave bytes
    // unread. The kernel would then reset the connection, which could discard the answer.
    let endless = format!("{begin}{}", "x".repeat(16 * 1024 - begin.len()));
    assert_eq!(status(&hub.http(&endless)), "431");
    hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="bad-request"}"#, |n| n == 1.0);
}

#[test]
fn an_unsupported_websocket_version_is_refused_with_the_supported_one() {
    let hub = Hub::start(&[("AUTH_TOKEN", "t")]);
    let token = ("Authorization", "Authorization: Bearer t\r\n");
    let refused = hub.http(&handshake(&[token, ("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8\r\n")]));
    assert_eq!((status(&refused), header(&refused, "sec-websocket-version")), ("426", Some("13")), "{refused}");
    assert_eq!(header(&refused, "upgrade"), Some("websocket"), "{refused}");
    // The hub checks the token before the version. Like the Go hub, the hub answers 400 to an incomplete handshake.
    let refused = hub.http(&handshake(&[("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8\r\n")]));
    assert_eq!(status(&refused), "401");
    for missing in ["Sec-WebSocket-Version", "Sec-WebSocket-Key", "Upgrade"] {
        let refused = hub.http(&handshake(&[token, (missing, "")]));
        assert_eq!((status(&refused), header(&refused, "sec-websocket-version")), ("400", Some("13")), "{missing}");
    }
}

#[test]
fn an_invalid_websocket_key_is_refused() {
    let hub = Hub::start(&[]);
    for key in ["x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZSE="] {
        let line = format!("Sec-WebSocket-Key: {key}\r\n");
        let refused = hub.http(&handshake(&[("Sec-WebSocket-Key", &line)]));
        assert_eq!(status(&refused), "400", "{refused}");
        assert!(body(&refused).contains("Sec-WebSocket-Key"), "{refused}");
    }
}

#[test]
fn a_refusal_for_a_missing_token_says_how_to_send_it() {
    let hub = Hub::start(&[("AUTH_TOKEN", "t")]);
    let challenge = |changes: &[(&str, &str)]| {
        let refused = hub.http(&handshake(changes));
        assert_eq!(status(&refused), "401", "{refused}");
        header(&refused, "www-authenticate").unwrap().to_owned()
    };
    assert_eq!(challenge(&[]), r#"Bearer realm="peerpigeon""#);
    let wrong = challenge(&[("Authorization", "Authorization: Bearer x\r\n")]);
    assert_eq!(wrong, r#"Bearer realm="peerpigeon", error="invalid_token""#);
}

#[test]
fn a_token_is_accepted_in_the_header_and_in_the_query() {
    let hub = Hub::start(&[("AUTH_TOKEN", "t")]);
    let with = |query: &str, authorization: &str| {
        let request = upgrade(&format!("/ws?peerId={}{query}", id(1)));
        hub.begins(&request.replace("Host: hub\r\n", &format!("Host: hub\r\n{authorization}")))
    };
    for authorization in ["Authorization: Bearer t\r\n", "Authorization: bearer t\r\n", "authorization: BEARER  t\r\n"]
    {
        assert_eq!(status(&with("", authorization)), "101", "{authorization}");
    }
    // A proxy may add its own `Authorization` header to a request whose token is in the query.
    assert_eq!(status(&with("&token=t", "Authorization: Bearer a.proxys.jwt\r\n")), "101");
    assert_eq!(status(&with("&token=t", "Authorization: Basic dTpw\r\n")), "101");
    assert_eq!(status(&with("&token=x", "Authorization: Bearer t\r\n")), "101");
    assert_eq!(status(&with("&token=x", "Authorization: Bearer y\r\n")), "401");
}

#[test]
fn an_upgrade_to_another_protocol_is_ignored() {
    let hub = Hub::start(&[]);
    let get = |path: &str, version: &str, upgrade: &str| {
        hub.http(&format!(
            "GET {path} HTTP/{version}\r\nHost: hub\r\nConnection: close, Upgrade, HTTP2-Settings\r\nUpgrade: \
             {upgrade}\r\n\
             HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        ))
    };
    for path in ["/", "/health", "/livez"] {
        assert_eq!(status(&get(path, "1.1", "h2c")), "200", "{path}");
    }
    // The hub ignores an upgrade in a request with HTTP/1.0, because HTTP/1.0 has no upgrades.
    assert_eq!(status(&get("/", "1.0", "websocket")), "200");
    assert_eq!(status(&get(&format!("/?peerId={}", id(1)), "1.1", "h2c")), "400");
    assert_eq!(status(&get(&format!("/ws?peerId={}", id(1)), "1.1", "h2c")), "400");
}

#[test]
fn requests_must_have_exactly_one_host() {
    let hub = Hub::start(&[]);
    for (lines, expected) in [
        ("Host: hub\r\n", "200"),
        ("Host:\r\n", "200"),
        ("", "400"),
        ("Host: hub\r\nHost: hub\r\n", "400"),
        ("Host: a b\r\n", "400"),
    ] {
        // After an invalid request, the hub always closes the connection, because a proxy may send the bytes of another
        // client on the same connection.
        let connection = if expected == "200" { "Connection: close\r\n" } else { "" };
        let answer = hub.http(&format!("GET /livez HTTP/1.1\r\n{lines}{connection}\r\n"));
        assert_eq!(status(&answer), expected, "{lines}");
        assert!(expected == "200" || body(&answer).contains("Host"), "{answer}");
    }
    assert_eq!(status(&hub.http("GET /livez HTTP/1.0\r\n\r\n")), "200");
    let refused = hub.http(&handshake(&[("Host", "")]));
    assert_eq!(status(&refused), "400");
    hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="bad-request"}"#, |n| n == 4.0);
}

#[test]
fn requests_have_at_most_a_hundred_headers() {
    let hub = Hub::start(&[]);
    let with = |headers: usize| {
        let more = "X: y\r\n".repeat(headers - 2);
        status(&hub.http(&format!("GET /livez HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{more}\r\n"))).to_owned()
    };
    let most = proto::limits::MAX_REQUEST_HEADERS;
    assert_eq!((with(most), with(most + 1)), ("200".to_owned(), "431".to_owned()));
}

#[test]
fn programs_can_read_the_names_of_networks_but_web_pages_cannot() {
    let hub = Hub::start(&[]);
    let _peer = Client::join(&hub, 1, "secret-room");
    let names = |headers: &str| {
        let answer =
            hub.http(&format!("GET /metrics?format=json HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{headers}\r\n"));
        json(&answer)["peers"]["networks"].to_string()
    };
    let end = std::time::Instant::now() + DEADLINE;
    while names("") != r#"{"secret-room":1}"# {
        assert!(std::time::Instant::now() < end, "{}", names(""));
    }
    assert_eq!(names("Origin: https://evil.example\r\n"), "{}");
    assert_eq!(names("Sec-Fetch-Site: same-origin\r\n"), "{}");
}

#[test]
fn the_token_gives_access_to_names_of_networks() {
    let hub = Hub::start(&[("AUTH_TOKEN", "t")]);
    let request = upgrade(&format!("/ws?token=t&peerId={}", id(1)));
    let _stream = hub.begins(&request);
    let names = |query: &str, headers: &str| {
        let answer = hub.http(&format!(
            "GET /metrics?format=json{query} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{headers}\r\n"
        ));
        json(&answer)["peers"]["networks"].is_object()
    };
    assert!(names("", "") && names("&token=t", "") && names("", "Authorization: bearer t\r\n"));
}

/// A connection that sends many page requests at once must wait for its answers. It does not delay any peer.
#[test]
pub fn pipelined_page_requests_delay_only_their_connection() {
    use std::io::{Read, Write};
    let hub = Hub::start(&[("SHARDS", "1"), ("MESSAGE_RATE", "1000000"), ("NETWORK_BUDGETS", "0")]);
    let (mut a, mut b) = (Client::join(&hub, 1, "n"), Client::join(&hub, 2, "n"));
    b.hear_type("peer-discovered");
    a.hear_type("peer-discovered");
    let mut flood = std::net::TcpStream::connect(hub.address).unwrap();
    let mut answers = flood.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut seen, mut buffer) = (0, [0; 65536]);
        while let Ok(n @ 1..) = answers.read(&mut buffer) {
            seen += buffer[..n].windows(9).filter(|window| window == b"HTTP/1.1 ").count();
        }
        seen
    });
    let requests = "GET /metrics HTTP/1.1\r\nHost: hub\r\n\r\n".repeat(200);
    flood.write_all(requests.as_bytes()).unwrap();
    let start = std::time::Instant::now();
    let mut slowest = std::time::Duration::ZERO;
    while start.elapsed() < std::time::Duration::from_secs(2) {
        let sent = std::time::Instant::now();
        a.offer(&id(2), "n", "1", "");
        assert_eq!(b.hear()["data"], 1);
        slowest = slowest.max(sent.elapsed());
    }
    // Probes on other connections are answered at once.
    assert_eq!((status(&hub.get("/livez")), status(&hub.get("/readyz"))), ("200", "200"));
    flood.shutdown(std::net::Shutdown::Both).unwrap();
    let (answered, renders) = (reader.join().unwrap(), hub.metric(r#"peerpigeon_page_renders_total{page="metrics"}"#));
    // The hub answers a burst of requests, and then 20 requests per second. It leaves the other requests unread.
    assert!((20..=150).contains(&answered), "{answered} answers");
    assert!((1.0..=50.0).contains(&renders), "{renders} renders");
    // A signal that waited for the answers to all 200 requests would take nine seconds.
    assert!(slowest < std::time::Duration::from_secs(5), "{slowest:?}");
}

#[test]
fn a_flood_of_page_requests_is_refused_with_429() {
    use std::io::{Read, Write};
    let port = crate::ports::free_port().to_string();
    let mut hub = Hub::start(&[("SHARDS", "1"), ("ADMIN_PORT", &port)]);
    // The hub answers PAGE_RATE requests at once, answers the same number within the next second, and refuses all others.
    let connections = 4 * proto::limits::PAGE_RATE;
    let mut flood: Vec<_> = (0..connections).map(|_| std::net::TcpStream::connect(hub.address).unwrap()).collect();
    for stream in &mut flood {
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n").unwrap();
    }
    // During the flood, the hub answers probes at PORT, and it answers requests at ADMIN_PORT without a delay.
    assert_eq!((status(&hub.get("/livez")), status(&hub.get("/readyz"))), ("200", "200"));
    let public = hub.address.port();
    hub.address.set_port(port.parse().unwrap());
    assert_eq!(status(&hub.get("/metrics")), "200");
    hub.address.set_port(public);
    let mut refused = 0;
    for stream in &mut flood {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        if status(&answer) == "429" {
            assert_eq!(header(&answer, "retry-after"), Some("1"), "{answer}");
            refused += 1;
        } else {
            assert_eq!(status(&answer), "200", "{answer}");
        }
    }
    assert!(refused > 0 && refused <= 2 * proto::limits::PAGE_RATE, "{refused} of {connections}");
    hub.address.set_port(port.parse().unwrap());
    hub.metric_becomes("peerpigeon_pages_refused_total", |n| n == f64::from(refused));
}
