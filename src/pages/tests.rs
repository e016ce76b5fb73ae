mod mesh;

use std::convert::Infallible;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};

use http_body_util::BodyExt;
use hyper::Request;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proto::{HubId, Input, Keys, NetworkName, Now, PeerId, RouterConfig, SessionId, ShardId};
use serde_json::{Value, json};
use shard::IoStats;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const HUB: &str = "00000000000000000000000000000000000000aa";

struct Hub {
    pages: Pages,
    router: Router,
    lifecycle: Lifecycle,
    gauges: Arc<Gauges>,
    mesh: watch::Sender<Arc<MeshReading>>,
    watchdog: Watchdog,
}

/// A hub of these settings, and in each network that many peers.
fn hub(settings: &[(&str, &str)], networks: &[(&str, usize)]) -> Hub {
    let settings: Vec<_> = [("HUB_ID", HUB)].iter().chain(settings).copied().collect();
    let config = Arc::new(Config::from_pairs(&settings).unwrap());
    let mut router = Router::new(RouterConfig {
        discovery: proto::Discovery::All,
        shard: ShardId(0),
        shards: 1,
        keys: Keys(1, 2),
        hub: HubId(PeerId::from_bytes([1; 20])),
        heartbeat: Duration::from_secs(25),
        max_message_bytes: 1 << 20,
        max_networks_per_peer: 32,
        max_peers_per_network: 1000,
        announce_budget_bytes: usize::MAX,
        message_rate: 1000,
        meshed: false,
        events: false,
    });
    let mut slot = 0;
    for (network, members) in networks {
        for _ in 0..*members {
            join(&mut router, slot, network);
            slot += 1;
        }
    }
    let lifecycle = Lifecycle::new();
    let gauges = Arc::new(Gauges { connections: AtomicUsize::new(9), peers: AtomicUsize::new(8) });
    let reading = Arc::new(Reading { router: router.stats().clone(), io: IoStats::default() });
    let (mesh, reading_of_mesh) = watch::channel(Arc::default());
    let watchdog = Watchdog::new(["shard-0", "shard-1"].map(str::to_owned), Duration::from_secs(10));
    let facts = HubFacts {
        started: Instant::now(),
        started_at: SystemTime::now(),
        port: 4321,
        gauges: Arc::clone(&gauges),
        readings: vec![watch::channel(reading).1],
        mesh: reading_of_mesh,
        lifecycle: lifecycle.clone(),
        max_connections: config.max_connections,
        watchdog: watchdog.clone(),
    };
    Hub { pages: pages(config, facts), router, lifecycle, gauges, mesh, watchdog }
}

fn join(router: &mut Router, slot: u32, network: &str) {
    let now = Now { at: Duration::ZERO, wall_ms: 1_700_000_000_000 };
    let session = SessionId { slot, generation: 0 };
    let mut id = [0; 20];
    id[..4].copy_from_slice(&slot.to_be_bytes());
    let text = json!({"type": "announce", "networkName": network}).to_string();
    router.handle_input(Input::Opened { session, peer: PeerId::from_bytes(id), seat: true }, now);
    while router.poll_output().is_some() {}
    router.handle_input(Input::Message { session, text: &text }, now);
    while router.poll_output().is_some() {}
}

impl Hub {
    fn ask(&self, method: Method, uri: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let (parts, body) = (self.pages)(&parts, &self.router, Audience::Operators).into_parts();
        let body = futures_body(body);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    fn get(&self, uri: &str) -> Answer {
        self.ask(Method::GET, uri, &[])
    }
}

fn futures_body(body: Full<Bytes>) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let bytes = runtime.block_on(body.collect()).unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body with what differs from run to run made plain.
    fn plain(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json");
        let mut value: Value = serde_json::from_str(&self.body).unwrap();
        for key in ["uptime", "uptime_ms"] {
            if let Some(uptime) = value.get_mut(key) {
                assert!(uptime.as_u64().unwrap() < 60_000);
                *uptime = json!(0);
            }
        }
        if let Some(timestamp) = value.get_mut("timestamp") {
            let text = timestamp.as_str().unwrap();
            assert!(text.len() == 24 && text.ends_with('Z') && text.as_bytes()[10] == b'T', "{text}");
            *timestamp = json!("T");
        }
        value
    }
}

/// Names of an object's fields, in the order of the text.
fn keys(body: &str) -> Vec<String> {
    let mut depth = 0;
    let mut keys = Vec::new();
    let bytes = body.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => {
                let end = at + 1 + body[at + 1..].find('"').unwrap();
                if depth == 1 && bytes.get(end + 1) == Some(&b':') {
                    keys.push(body[at + 1..end].to_owned());
                }
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
    keys
}

#[test]
fn where_peers_show_a_token_so_does_who_reads_the_names_of_networks() {
    let names = |env: &[(&str, &str)], headers: &[(&str, &str)]| {
        let answer = hub(env, &[("secret-room", 2)]).ask(Method::GET, "/metrics?format=json", headers);
        assert_eq!((answer.status, &answer.plain()["networks"]), (200, &json!(1)));
        answer.plain()["peers"]["networks"].clone()
    };
    let (all, none) = (json!({"secret-room": 2}), json!({}));
    assert_eq!(names(&[], &[]), all);
    assert_eq!(names(&[("AUTH_TOKEN", "t")], &[]), none);
    assert_eq!(names(&[("AUTH_TOKEN", "t")], &[("authorization", "Bearer x")]), none);
    assert_eq!(names(&[("AUTH_TOKEN", "t")], &[("authorization", "Bearer t")]), all);
    assert_eq!(names(&[("AUTH_TOKEN", "t"), ("ADMIN_PORT", "9")], &[]), all);
}

#[test]
fn health_is_the_go_hubs_with_memory() {
    let answer = hub(&[], &[("global", 2), ("x", 1)]).get("/health");
    let mut body = answer.plain();
    let memory = body.as_object_mut().unwrap().remove("memory").unwrap();
    for field in ["rss", "heapTotal", "heapUsed"] {
        assert!(memory[field].as_u64().unwrap() > 100_000, "{memory}");
    }
    assert!(memory["external"].is_u64());
    assert_eq!(
        body,
        json!({"connections": 9, "hubs": 0, "isHub": false, "networks": 2, "peers": 8, "status": "healthy", "timestamp": "T", "uptime": 0})
    );
    let order = ["connections", "hubs", "isHub", "memory", "networks", "peers", "status", "timestamp", "uptime"];
    assert_eq!(keys(&answer.body), order);
}

#[test]
fn stats_are_the_go_hubs() {
    let answer =
        hub(&[("BOOTSTRAP_HUBS", "ws://a,ws://b"), ("MESH_TOKEN", "t"), ("MAX_CONNECTIONS", "5000")], &[("global", 3)])
            .get("/stats");
    assert_eq!(
        answer.plain(),
        json!({"bootstrapHubs": {"connected": 0, "total": 2}, "connections": 9, "host": "localhost",
            "hubMeshNamespace": "pigeonhub-mesh", "hubPeerId": HUB, "hubs": 0, "isHub": true, "isRunning": false,
            "maxConnections": 5000, "networks": 1, "peers": 8, "port": 4321, "uptime": 0})
    );
    assert!(keys(&answer.body).is_sorted(), "{}", answer.body);
    assert_eq!(keys(&answer.body).len(), 13);
}

#[test]
fn stats_of_a_hub_in_a_mesh_name_it() {
    let hub = hub(&[("IS_HUB", "true")], &[]);
    hub.lifecycle.advance(Stage::Ready);
    let stats = hub.get("/stats").plain();
    assert_eq!((&stats["isHub"], &stats["hubPeerId"], &stats["isRunning"]), (&json!(true), &json!(HUB), &json!(true)));
}

#[test]
fn counts_are_those_of_the_moment() {
    let hub = hub(&[], &[]);
    hub.gauges.connections.store(77, Ordering::Relaxed);
    hub.gauges.peers.store(66, Ordering::Relaxed);
    for path in ["/health", "/stats"] {
        let body = hub.get(path).plain();
        assert_eq!((&body["connections"], &body["peers"]), (&json!(77), &json!(66)), "{path}");
    }
    assert!(hub.get("/metrics").body.contains("\npeerpigeon_connections 77\n"));
}

#[test]
fn metrics_are_text_unless_json_is_asked_for() {
    let hub = hub(&[("FLY_REGION", "fra"), ("FLY_APP_NAME", "pigeonhub-b")], &[("global", 2), ("a \"b\"", 1)]);
    let expected = json!({"connections": {"active": 9, "max": 1000}, "hubs": {"bootstrap_connected": 0, "discovered": 0},
        "networks": 2, "peers": {"networks": {"global": 2, "a \"b\"": 1}, "total": 8},
        "server": {"app_name": "pigeonhub-b", "is_hub": false, "namespace": "pigeonhub-mesh", "region": "fra"},
        "timestamp": "T", "uptime_ms": 0});
    let accept = |accept: &str| hub.ask(Method::GET, "/metrics", &[("accept", accept)]);
    for answer in [
        hub.get("/metrics?format=json"),
        hub.get("/metrics?x=y&format=JSON"),
        accept("application/json"),
        accept("Application/JSON; charset=utf-8"),
        accept("application/json, text/plain, */*"),
        accept("text/plain;q=0.5, application/json"),
        hub.ask(Method::GET, "/metrics?format=json", &[("accept", "text/plain")]),
    ] {
        assert_eq!(answer.plain(), expected);
        assert!(keys(&answer.body).is_sorted());
    }
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    for answer in [
        hub.get("/metrics"),
        hub.get("/metrics/"),
        accept("*/*"),
        accept(prometheus),
        accept("text/plain, application/json;q=0.5"),
        accept("application/json;q=0"),
        accept("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        hub.ask(Method::GET, "/metrics?format=prometheus", &[("accept", "application/json")]),
    ] {
        assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        assert!(answer.body.contains("# TYPE peerpigeon_connections gauge\npeerpigeon_connections 9\n"));
        assert!(!answer.body.contains("global"));
    }
}

#[test]
fn only_the_largest_networks_are_listed() {
    let most = proto::limits::MAX_LISTED_NETWORKS;
    let names: Vec<String> = (0..most + 50).map(|i| format!("n{i:05}")).collect();
    let mut networks: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    networks.last_mut().unwrap().1 = 3;
    let hub = hub(&[], &networks);
    for _ in 0..2 {
        let body = hub.get("/metrics?format=json").plain();
        let listed = body["peers"]["networks"].as_object().unwrap();
        assert_eq!(body["networks"], json!(most + 50));
        assert_eq!(listed.len(), most);
        assert_eq!(listed[names.last().unwrap()], json!(3));
        assert!(listed.contains_key(&names[most - 2]) && !listed.contains_key(&names[most - 1]));
    }
}

#[test]
fn a_hub_is_alive_always_and_ready_between() {
    let hub = hub(&[], &[]);
    let ask = || (hub.get("/livez").status, hub.get("/readyz").status, hub.get("/readyz").body);
    assert_eq!(ask(), (200, 503, "starting\n".to_owned()));
    hub.lifecycle.advance(Stage::Ready);
    assert_eq!(ask(), (200, 200, "ready\n".to_owned()));
    hub.lifecycle.advance(Stage::Draining);
    assert_eq!(ask(), (200, 503, "draining\n".to_owned()));
}

#[test]
fn a_thread_that_does_not_turn_is_named() {
    let hub = hub(&[], &[]);
    hub.lifecycle.advance(Stage::Ready);
    for tick in 0..130 {
        hub.watchdog.turned(0, Duration::from_millis(100 * tick));
    }
    let said = "stuck: thread shard-1 has not turned for 12 s\n".to_owned();
    for path in ["/livez", "/readyz"] {
        let answer = hub.get(path);
        assert_eq!((answer.status, answer.body), (503, said.clone()), "{path}");
    }
    assert!(hub.get("/metrics").body.contains("\npeerpigeon_oldest_turn_seconds 12.9\n"));
    hub.watchdog.turned(1, Duration::from_secs(13));
    assert_eq!((hub.get("/livez").status, hub.get("/readyz").status), (200, 200));
}

#[test]
fn a_full_hub_lives_and_is_not_ready() {
    for (settings, status) in [(&[][..], 503), (&[("READY_WHEN_FULL", "true")], 200)] {
        let hub = hub(&[&[("MAX_CONNECTIONS", "100")], settings].concat(), &[]);
        hub.lifecycle.advance(Stage::Ready);
        let ask = |connections| {
            hub.gauges.connections.store(connections, Ordering::Relaxed);
            let full = hub.get("/metrics").body.contains("\npeerpigeon_full 1\n");
            (hub.get("/readyz").status, full, hub.get("/livez").status)
        };
        assert_eq!(ask(99), (200, false, 200));
        assert_eq!(ask(100), (status, true, 200));
        assert_eq!(ask(96), (status, true, 200));
        assert_eq!(ask(95), (200, false, 200));
        assert_eq!(ask(99), (200, false, 200));
        hub.lifecycle.advance(Stage::Draining);
        assert_eq!(hub.get("/readyz").body, "draining\n");
    }
}

#[test]
fn every_answer_can_be_read_by_other_origins() {
    for (settings, origin, vary) in
        [(&[][..], "*", ""), (&[("CORS_ORIGIN", "https://a.example")], "https://a.example", "Origin")]
    {
        let hub = hub(settings, &[]);
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST, Method::DELETE] {
            for path in PATHS.map(|(path, _)| path).into_iter().chain(["/nowhere"]) {
                let answer = hub.ask(method.clone(), path, &[("origin", "https://a.example")]);
                assert_eq!(answer.header("access-control-allow-origin"), origin, "{method} {path}");
                assert_eq!(answer.header("vary"), vary, "{method} {path}");
                assert_eq!(answer.header("cache-control"), "no-store", "{method} {path}");
                assert!(answer.status == 204 || !answer.header("content-type").is_empty(), "{method} {path}");
            }
        }
    }
}

#[test]
fn a_preflight_is_answered() {
    let asked = [
        ("origin", "https://a"),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "authorization"),
    ];
    let answer = hub(&[], &[]).ask(Method::OPTIONS, "/metrics", &asked);
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!(answer.header("access-control-allow-methods"), "GET, HEAD, OPTIONS");
    assert!(answer.header("access-control-allow-headers").contains("Authorization"));
    assert_eq!(answer.header("access-control-max-age"), "86400");
    assert!(!answer.headers.contains_key("content-length"));
}

#[test]
fn head_is_get_without_its_body() {
    let hub = hub(&[], &[]);
    for path in ["/livez", "/", "/hubstats", "/nowhere"] {
        let (get, head) = (hub.get(path), hub.ask(Method::HEAD, path, &[]));
        assert_eq!(head.body, "");
        assert_eq!(head.status, get.status);
        assert_eq!(head.headers, get.headers);
        assert_eq!(head.header("content-length"), get.body.len().to_string());
    }
}

#[test]
fn other_methods_are_refused() {
    let hub = hub(&[], &[]);
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        let answer = hub.ask(method, "/stats", &[]);
        assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD, OPTIONS"));
        assert_eq!(answer.plain()["error"], "method not allowed");
    }
    assert_eq!(hub.ask(Method::POST, "/nowhere", &[]).status, 404);
}

#[test]
fn who_is_lost_is_told_where_things_are() {
    let hub = hub(&[], &[]);
    for (path, status) in [
        ("/nowhere", 404),
        ("/health/x", 404),
        ("/HEALTH", 404),
        ("/ws", 400),
        ("/ws/", 400),
        ("/", 200),
        ("/?x=1", 200),
    ] {
        let answer = hub.get(path);
        assert_eq!(answer.status, status, "{path}");
        let body = answer.plain();
        assert_eq!(body["websocket"], "/ws?peerId=<40 hexadecimal digits>");
        assert_eq!(
            body["paths"],
            json!(["/", "/health", "/hubs", "/hubstats", "/livez", "/metrics", "/readyz", "/stats", "/ws"])
        );
        assert_eq!(body.get("error").is_some(), status != 200, "{path}");
        assert!(keys(&answer.body).is_sorted());
    }
    assert_eq!(hub.get("/health/").status, 200);
    assert_eq!(hub.get("//").status, 404);
}

#[test]
fn networks_named_like_json_stay_in_their_strings() {
    let name = "\"},\"evil\":{\"";
    let body = hub(&[], &[(name, 1)]).get("/metrics?format=json").plain();
    assert_eq!(body["peers"]["networks"][name], 1);
    assert!(NetworkName::resolve(Some(name)).is_some());
}

/// hyper has a say in what a HEAD and a 204 look like on the wire.
#[test]
fn on_the_wire_head_has_a_length_and_no_body() {
    let hub = hub(&[], &[]);
    let talk = |request: &'static str| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            let service = service_fn(|request: Request<hyper::body::Incoming>| {
                let (parts, _) = request.into_parts();
                std::future::ready(Ok::<_, Infallible>((hub.pages)(&parts, &hub.router, Audience::Operators)))
            });
            let serve = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
            let talk = async {
                client.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                client.read_to_string(&mut answer).await.unwrap();
                answer
            };
            let (served, answer) = tokio::join!(serve, talk);
            served.unwrap();
            answer.to_lowercase()
        })
    };
    let get = talk("GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(get.contains("\r\ncontent-length: 3\r\n") && get.ends_with("\r\n\r\nok\n"), "{get}");
    let head = talk("HEAD /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(head.contains("\r\ncontent-length: 3\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let options = talk("OPTIONS /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(options.starts_with("http/1.1 204") && !options.contains("content-length"), "{options}");
}
