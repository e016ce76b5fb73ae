//! Tests of the live view, of the rights that it requires, of its stream of events, and of its limits.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use proto::limits::{LIVE_INTERVAL, LIVE_NAMES, LIVE_RETRY, LIVE_STREAMS};
use serde_json::Value;

use crate::admin::free_port;
use crate::client::{Client, id};
use crate::door::{body, status};
use crate::hub::{DEADLINE, Hub};

const TOKEN: &str = "token-of-the-live-view";

/// A reader of the stream of events.
struct Events {
    stream: BufReader<TcpStream>,
    /// Bytes of the body that have arrived and are not part of an event yet.
    read: String,
    head: String,
}

#[derive(Debug)]
struct Event {
    name: String,
    id: String,
    data: Value,
    text: String,
}

impl Events {
    fn open(address: SocketAddr, headers: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET /dashboard/events HTTP/1.1\r\nHost: hub\r\nAccept: text/event-stream\r\n{headers}\r\n")
            .unwrap();
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
        }
        Self { stream, read: String::new(), head: head.to_ascii_lowercase() }
    }

    /// Opens the stream as an operator.
    fn of(hub: &Hub) -> Self {
        Self::open(hub.address, &format!("Authorization: Bearer {TOKEN}\r\n"))
    }

    /// Returns the next event, or `None` at the end of the stream.
    fn next(&mut self) -> Option<Event> {
        while !self.read.contains("\n\n") {
            let mut size = String::new();
            self.stream.read_line(&mut size).unwrap();
            let size = usize::from_str_radix(size.trim(), 16).unwrap_or_else(|_| panic!("a chunk's size: {size:?}"));
            let mut chunk = vec![0; size + 2];
            self.stream.read_exact(&mut chunk).unwrap();
            if size == 0 {
                return None;
            }
            self.read.push_str(std::str::from_utf8(&chunk[..size]).unwrap());
        }
        let (text, rest) = self.read.split_once("\n\n").unwrap();
        let (text, rest) = (text.to_owned(), rest.to_owned());
        self.read = rest;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let event = Event {
            name: field("event").unwrap_or_default().to_owned(),
            id: field("id").unwrap_or_default().to_owned(),
            data: field("data").map(|data| serde_json::from_str(data).unwrap()).unwrap_or_default(),
            text: text.clone(),
        };
        Some(event)
    }

    /// Skips events until one satisfies the condition.
    fn until(&mut self, will_do: impl Fn(&Event) -> bool) -> Event {
        let end = std::time::Instant::now() + DEADLINE;
        loop {
            let event = self.next().expect("the stream continues");
            if will_do(&event) {
                return event;
            }
            assert!(std::time::Instant::now() < end, "only {event:?}");
        }
    }
}

fn get(hub: &Hub, path: &str, headers: &str) -> String {
    hub.http(&format!("GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{headers}\r\n"))
}

#[test]
fn a_stream_begins_with_the_history_and_continues() {
    let hub = Hub::start(&[("SHARDS", "2")]);
    let (mut a, _b) = (Client::join(&hub, 1, "n"), Client::join(&hub, 2, "n"));
    a.hear_type("peer-discovered");
    a.say(&format!(r#"{{"type":"offer","networkName":"n","targetPeerId":"{}","data":1}}"#, id(2)));
    a.say(&format!(r#"{{"type":"offer","networkName":"n","targetPeerId":"{}","data":1}}"#, id(9)));
    a.hear_type("error");

    let mut events = Events::open(hub.address, "");
    assert!(events.head.starts_with("http/1.1 200") && events.head.contains("text/event-stream"), "{}", events.head);
    assert!(!events.head.contains("access-control"), "{}", events.head);
    let retry = events.next().unwrap();
    assert_eq!(retry.text, format!("retry: {}", LIVE_RETRY.as_millis()));
    let hello = events.next().unwrap();
    assert_eq!(
        (hello.name.as_str(), &hello.data["operator"], &hello.data["stays"]),
        ("hello", &false.into(), &true.into())
    );
    assert_eq!(hello.data["latencyBounds"].as_array().unwrap().len(), 18);
    // The history contains the earlier events, and each second adds a sample.
    let (mut announced, mut delivered, mut failed, mut times) = (0, 0, 0, Vec::new());
    let last = events.until(|event| event.name == "state" && event.data["shards"][0]["sessions"] != Value::Null);
    assert_eq!(last.data["stage"], "ready");
    let mut again = Events::open(hub.address, "");
    let mut ids = Vec::new();
    while times.len() < 4 || announced < 2 || delivered < 1 || failed < 1 {
        let event = again.until(|event| event.name == "sample");
        announced += event.data["announces"].as_u64().unwrap();
        delivered += event.data["outcomes"]["delivered"].as_u64().unwrap_or(0);
        failed += event.data["outcomes"]["peer-not-found"].as_u64().unwrap_or(0);
        times.push(event.data["at"].as_u64().unwrap());
        ids.push(event.id);
        assert!(times.len() < 20, "{announced} {delivered} {failed}");
    }
    assert_eq!((announced, delivered, failed), (2, 1, 1));
    let (first, last) = (times[times.len() - 3], times[times.len() - 1]);
    let interval = LIVE_INTERVAL.as_millis() as u64;
    assert!(last - first >= 2 * interval - 100, "{times:?}");
    let state = again.until(|event| event.name == "state");
    let sessions: u64 =
        state.data["shards"].as_array().unwrap().iter().map(|shard| shard["sessions"].as_u64().unwrap()).sum();
    assert_eq!(sessions, 2, "{}", state.text);
    assert!(state.data["budgets"].as_array().unwrap().iter().any(|budget| budget["name"] == "connections"));

    // A browser that reconnects receives the events that it has missed.
    let mut returned = Events::open(hub.address, &format!("Last-Event-ID: {}\r\n", ids[1]));
    assert_eq!(returned.until(|event| event.name == "sample").id, ids[2]);
    let mut stranger = Events::open(hub.address, "Last-Event-ID: 5.999999\r\n");
    assert_eq!(stranger.until(|event| event.name == "sample").id, ids[0], "an id of another process");
}

#[test]
fn the_live_view_is_for_operators() {
    let port = free_port();
    let mut hub = Hub::start(&[("ADMIN_PORT", &port), ("ADMIN_TOKEN", TOKEN), ("AUTH_TOKEN", "of-peers")]);
    let paths = ["/dashboard", "/dashboard/events", "/dashboard.js", "/dashboard-charts.js", "/dashboard.html"];
    for path in paths {
        assert_eq!(status(&hub.get(path)), "404", "{path}");
    }
    hub.address.set_port(port.parse().unwrap());
    for path in ["/dashboard", "/dashboard/events", "/dashboard/", "/dashboard/nowhere"] {
        for wrong in ["", "Authorization: Bearer of-peers\r\n", "Cookie: peerpigeon-admin=1.2\r\n"] {
            assert_eq!(status(&get(&hub, path, wrong)), "401", "{path} {wrong}");
        }
    }
    let form = get(&hub, "/dashboard", "Accept: text/html\r\n");
    assert!(body(&form).contains("name=\"next\" value=\"/dashboard\""), "{form}");
    let own = format!("Authorization: Bearer {TOKEN}\r\n");
    let page = get(&hub, "/dashboard", &own).to_ascii_lowercase();
    assert!(status(&page) == "200" && page.contains("content-type: text/html"), "{page}");
    assert!(!page.contains("access-control"), "{page}");
    let policy = page.lines().find(|line| line.starts_with("content-security-policy")).unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(
        !page.contains("<style") && !page.contains(" style=") && !page.contains("onclick"),
        "the page has inline code"
    );
    assert_eq!(status(&get(&hub, "/dashboard.js", "")), "200");
    assert_eq!(status(&get(&hub, "/dashboard.html", &own)), "404");
    let slash = get(&hub, "/dashboard/", &own).to_ascii_lowercase();
    assert!(status(&slash) == "308" && slash.contains("location: ../dashboard"), "{slash}");
    let foreign = format!("GET /dashboard/events HTTP/1.1\r\nHost: hub\r\n{own}Sec-Fetch-Site: cross-site\r\n\r\n");
    assert_eq!(status(&hub.begins(&foreign)), "403");
    let posted = hub
        .http(&format!("POST /dashboard HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nContent-Length: 0\r\n{own}\r\n"));
    assert_eq!(status(&posted), "405");
}

#[test]
fn log_lines_are_only_for_operators_and_contain_no_secrets() {
    for token in ["", TOKEN] {
        let hub = Hub::start(&[("ADMIN_TOKEN", token), ("AUTH_TOKEN", "secret-of-peers")]);
        // A refusal is logged as a warning. The warning contains neither the token in the request nor the valid token.
        let wrong = "Authorization: Bearer a-wrong-secret\r\n";
        if token.is_empty() {
            hub.metric_becomes("peerpigeon_uptime_seconds", |secs| secs > 1.5);
        } else {
            assert_eq!(status(&get(&hub, "/stats", wrong)), "401");
            hub.logged("admin_refused");
        }
        let mut events = Events::of(&hub);
        let mut seen = String::new();
        let mut lines = 0;
        let mut states = 0;
        while states < 3 || (!token.is_empty() && lines == 0) {
            let event = events.until(|_| true);
            states += usize::from(event.name == "state");
            if event.name == "line" {
                lines += usize::from(event.data["event"] == "admin_refused");
                assert!(["WARN", "ERROR"].contains(&event.data["level"].as_str().unwrap()), "{}", event.text);
            }
            seen += &event.text;
        }
        assert_eq!(lines, usize::from(!token.is_empty()), "{seen}");
        assert!(!seen.contains("secret") && !seen.contains(TOKEN), "{seen}");
    }
}

#[test]
fn streams_beyond_the_bound_end_after_the_history() {
    let hub = Hub::start(&[]);
    let stays = |events: &mut Events| events.until(|event| event.name == "hello").data["stays"] == true;
    let mut open: Vec<Events> = (0..LIVE_STREAMS).map(|_| Events::open(hub.address, "")).collect();
    assert!(open.iter_mut().all(stays));
    // A hub has no `state` event to send until it has run for some time.
    open[0].until(|event| event.name == "state");
    let mut further = Events::open(hub.address, "");
    assert_eq!(further.next().unwrap().text, format!("retry: {}", LIVE_RETRY.as_millis()));
    assert!(!stays(&mut further));
    let mut names = Vec::new();
    while let Some(event) = further.next() {
        names.push(event.name);
    }
    assert_eq!(names.last().map(String::as_str), Some("state"), "{names:?}");
    // When one of the allowed streams ends, one new stream can stay open. The other streams continue.
    drop(open.pop());
    crate::mesh::eventually("a new stream stays open", || stays(&mut Events::open(hub.address, "")));
    open.iter_mut().for_each(|events| _ = events.until(|event| event.name == "state"));
}

#[test]
fn operators_see_networks_and_members() {
    let open = Hub::start(&[]);
    for path in ["/dashboard/networks", "/dashboard/network?name=n"] {
        assert_eq!(status(&open.get(path)), "403", "{path}: names may be secret");
    }
    let hub = Hub::start(&[("ADMIN_TOKEN", TOKEN)]);
    let own = format!("Authorization: Bearer {TOKEN}\r\n");
    let json = |path: &str| -> Value { serde_json::from_str(body(&get(&hub, path, &own))).unwrap() };
    let mut peers: Vec<_> = (1..=3).map(|n| Client::join(&hub, n, "a room & more")).collect();
    peers.extend((0..LIVE_NAMES as u32 + 5).map(|n| Client::join(&hub, 100 + n, "large")));
    peers.push(Client::join(&hub, 9, "small"));
    crate::mesh::eventually("all members are listed", || {
        json("/dashboard/networks")["networks"]
            == serde_json::json!([["large", LIVE_NAMES + 5], ["a room & more", 3], ["small", 1]])
    });
    let mut members = json("/dashboard/network?name=a+room+%26+more");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    for member in members["members"].as_array_mut().unwrap() {
        let since = member.as_object_mut().unwrap().remove("since").unwrap().as_u64().unwrap();
        assert!((now - 60_000..=now).contains(&since), "{since} {now}");
    }
    let ids: Vec<_> = (1..=3).map(|n| serde_json::json!({ "peer": id(n) })).collect();
    assert_eq!(members, serde_json::json!({ "network": "a room & more", "count": 3, "members": ids }));
    let large = json("/dashboard/network?name=large");
    assert_eq!((large["members"].as_array().unwrap().len(), &large["count"]), (LIVE_NAMES, &(LIVE_NAMES + 5).into()));
    assert_eq!(json("/dashboard/network?name=none")["count"], 0);
    for wrong in ["/dashboard/network", &format!("/dashboard/network?name={}", "n".repeat(257))] {
        assert_eq!(status(&get(&hub, wrong, &own)), "400");
    }
    for path in ["/dashboard/networks", "/dashboard/network?name=small"] {
        assert_eq!(status(&get(&hub, path, "")), "401");
    }
}

#[test]
fn operators_see_the_peer_that_floods() {
    let flood = |hub: &Hub| {
        let mut calm = Client::join(hub, 1, "n");
        let mut peer = Client::join(hub, 2, "n");
        calm.hear_type("peer-discovered");
        // The budget allows a burst of 25 s.
        for _ in 0..150 {
            peer.say(r#"{"type":"ping"}"#);
        }
        peer.hear_type("error");
        (calm, peer)
    };
    let few = ("MESSAGE_RATE", "5");
    let hub = Hub::start(&[few, ("ADMIN_TOKEN", TOKEN)]);
    let _peers = flood(&hub);
    let mut events = Events::of(&hub);
    let refused = events.until(|event| event.data["exceeded"]["messages"] != Value::Null);
    assert!(refused.data["exceeded"]["messages"].as_u64() >= Some(1), "{}", refused.text);
    let state = events.until(|event| event.data["flooder"] != Value::Null);
    assert_eq!(state.data["flooder"]["peer"], id(2).as_str(), "{}", state.text);
    let own = format!("Authorization: Bearer {TOKEN}\r\n");
    let page: Value = serde_json::from_str(body(&get(&hub, "/metrics?format=json", &own))).unwrap();
    assert_eq!(page["peers"]["flooder"]["peer"], id(2).as_str(), "{page}");
    // The hub forgets the peer some time after its flood has stopped.
    events.until(|event| event.name == "state" && event.data["flooder"] == Value::Null);

    let open = Hub::start(&[few]);
    let _peers = flood(&open);
    let mut events = Events::open(open.address, "");
    events.until(|event| event.data["exceeded"]["messages"] != Value::Null);
    let state = events.until(|event| event.name == "state");
    assert_eq!(state.data["flooder"], Value::Null, "everyone can read it");
    let page: Value = serde_json::from_str(body(&get(&open, "/metrics?format=json", ""))).unwrap();
    assert_eq!(page["peers"]["flooder"], Value::Null);
}
