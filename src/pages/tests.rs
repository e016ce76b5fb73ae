mod cors;
mod mesh;
mod probes;

use std::convert::Infallible;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};

use http_body_util::BodyExt;
use hyper::Request;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proto::{
    Budget, HubId, Input, Keys, NetworkName, Now, PeerId, ResumeKeys, Router, RouterConfig, RouterTuning, SessionId,
    ShardId,
};
use serde_json::{Value, json};
use shard::IoStats;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use proto::limits::{RENDER_BURST, RENDER_RATE};
use std::sync::atomic::Ordering;

const HUB: &str = "00000000000000000000000000000000000000aa";

struct TestHub {
    pages: Pages,
    lifecycle: Lifecycle,
    gauges: Arc<Gauges>,
    mesh: watch::Sender<Arc<MeshReading>>,
    watchdog: Watchdog,
}

/// A hub with these settings. `networks` has the name of each network, and the number of its peers.
fn hub(settings: &[(&str, &str)], networks: &[(&str, usize)]) -> TestHub {
    let settings: Vec<_> = [("HUB_ID", HUB)].iter().chain(settings).copied().collect();
    let config = Arc::new(Config::from_pairs(&settings).unwrap());
    let mut router = Router::new(RouterConfig {
        ice: None,
        discovery: proto::Discovery::All,
        shard: ShardId(0),
        shards: 1,
        keys: Keys(1, 2),
        resume_keys: ResumeKeys::new("mesh", b"key", None),
        hub: HubId(PeerId::from_bytes([1; 20])),
        heartbeat: Duration::from_secs(25),
        max_message_bytes: 1 << 20,
        max_networks_per_peer: 32,
        max_peers_per_network: 1000,
        announce_budget_bytes: usize::MAX,
        budget: Budget::UNLIMITED,
        network_budget: Budget::UNLIMITED,
        meshed: false,
        events: false,
        tuning: RouterTuning::default(),
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
    let reading = Arc::new(ShardReading { router: router.stats().clone(), io: IoStats::default() });
    let (mesh, reading_of_mesh) = watch::channel(Arc::default());
    let watchdog = Watchdog::new(["shard-0", "shard-1"].map(str::to_owned), Duration::from_secs(10));
    let networks = Arc::<NetworkList>::default();
    let facts = HubFacts {
        started: Instant::now(),
        started_at: SystemTime::now(),
        port: 4321,
        gauges: Arc::clone(&gauges),
        readings: vec![watch::channel(reading).1],
        networks: Arc::clone(&networks),
        mesh: reading_of_mesh,
        lifecycle: lifecycle.clone(),
        max_connections: config.max_connections,
        watchdog: watchdog.clone(),
        tls: None,
        status: watch::channel(None).0,
        token_keys: None,
        traces: None,
    };
    std::thread::spawn(move || {
        runtime().block_on(networks.collect(|slots, largest| {
            let Some(part) = router.networks_in(slots) else { return false };
            part.for_each(|(name, members)| largest.offer(name, members));
            true
        }));
    });
    let gatekeeper = Gatekeeper::new(config.admin_token.clone(), [1; 32]);
    let (desk, _) = Desk::new();
    TestHub { pages: pages(config, facts, gatekeeper, desk, || {}).unwrap().0, lifecycle, gauges, mesh, watchdog }
}

fn join(router: &mut Router, slot: u32, network: &str) {
    let now = Now { at: Duration::ZERO, wall_ms: 1_700_000_000_000 };
    let session = SessionId { slot, generation: 0 };
    let mut id = [0; 20];
    id[..4].copy_from_slice(&slot.to_be_bytes());
    let text = json!({"type": "announce", "networkName": network}).to_string();
    router.handle_input(
        Input::Opened { session, peer: PeerId::from_bytes(id), seat: true, resume: None, owner: false, grant: None },
        now,
    );
    while router.poll_output().is_some() {}
    router.handle_input(Input::Message { session, text: &text }, now);
    while router.poll_output().is_some() {}
}

impl TestHub {
    fn ask(&self, method: Method, uri: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        self.answer(&parts, OPERATOR)
    }

    fn answer(&self, request: &Parts, visitor: Visitor) -> Answer {
        let (parts, body) = respond(&self.pages, request, visitor).into_parts();
        let body = runtime().block_on(body.collect()).unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    fn get(&self, uri: &str) -> Answer {
        self.ask(Method::GET, uri, &[])
    }
}

const OPERATOR: Visitor = Visitor {
    audience: Audience::Operators,
    has_token: false,
    address: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1),
    is_tls: false,
};

fn respond(pages: &Pages, request: &Parts, visitor: Visitor) -> Response<Full<Bytes>> {
    match pages(request, visitor) {
        shard::Answer::Now(response) => response,
        shard::Answer::Soon(page) | shard::Answer::ForOperator(page) => runtime().block_on(page),
        shard::Answer::Form(_) | shard::Answer::Stream(_) => panic!("this test helper reads no forms and no streams"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
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

    /// The body, in which the values that differ from run to run are replaced.
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

/// Names of an object's fields, in textual order.
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
fn names_of_networks_are_shown_with_the_token_or_to_programs() {
    let names = |env: &[(&str, &str)], has_token, headers: &[(&str, &str)]| {
        let request = headers.iter().fold(Request::builder().uri("/metrics?format=json"), |request, (name, value)| {
            request.header(*name, *value)
        });
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let visitor = Visitor { has_token, ..OPERATOR };
        let answer = hub(env, &[("secret-room", 2)]).answer(&parts, visitor);
        assert_eq!((answer.status, &answer.plain()["networks"]), (200, &json!(1)));
        let listed = answer.plain()["peers"]["networks"].clone();
        assert!(listed == json!({"secret-room": 2}) || listed == json!({}), "{listed}");
        listed != json!({})
    };
    let (open, closed, admin) = (&[][..], &[("AUTH_TOKEN", "t")][..], &[("AUTH_TOKEN", "t"), ("ADMIN_PORT", "9")][..]);
    let own = &[("CORS_ORIGIN", "https://own.example")][..];
    // A program and a user who opens the address may read the names, as at the Go hub.
    for headers in [&[][..], &[("sec-fetch-site", "none")]] {
        assert!(names(open, false, headers) && names(admin, false, headers) && !names(closed, false, headers));
        assert!(names(closed, true, headers) && names(admin, true, headers));
    }
    // A page of another origin, a sandboxed page, and a page whose own host name was rebound to the hub's address may
    // not read the names.
    for header in [("origin", "https://own.example"), ("origin", "null"), ("sec-fetch-site", "same-origin")] {
        assert!(!names(open, false, &[header]) && !names(admin, false, &[header]) && !names(closed, false, &[header]));
        assert!(names(closed, true, &[header]) && names(admin, true, &[header]));
    }
    assert!(names(own, false, &[("origin", "https://own.example"), ("sec-fetch-site", "cross-site")]));
    // An operator may read the names, also from the page of the live view.
    let operators = &[("AUTH_TOKEN", "t"), ("ADMIN_TOKEN", "o")][..];
    for header in [("accept", "*/*"), ("sec-fetch-site", "same-origin")] {
        assert!(names(operators, false, &[("authorization", "Bearer o"), header]));
    }
    assert!(!names(own, false, &[("origin", "https://other.example"), ("sec-fetch-site", "cross-site")]));
}

#[test]
fn a_flood_of_requests_shares_fresh_renderings() {
    let hub = hub(&[], &[("n", 1)]);
    let renders = || {
        let metrics = hub.get("/metrics").body;
        let line = metrics.lines().find(|line| line.starts_with(r#"peerpigeon_page_renders_total{page="health"}"#));
        line.unwrap().rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    let start = Instant::now();
    let (mut asked, mut last) = (0, 0);
    // The loop makes more requests than the rate limit allows renderings. It makes more than two bursts of requests, in
    // at least two seconds.
    while asked <= 2 * RENDER_BURST as usize || start.elapsed() < Duration::from_secs(2) {
        asked += 1;
        hub.gauges.connections.store(9 + asked, Ordering::Relaxed);
        let shown = hub.get("/health").plain()["connections"].as_u64().unwrap() as usize - 9;
        if asked <= RENDER_BURST as usize {
            assert_eq!(shown, asked, "an answer shows the state at the time of its request, or a later state");
        }
        assert!((last..=asked).contains(&shown), "{shown} after {last}");
        last = shown;
    }
    let made = renders();
    let most = RENDER_BURST + (start.elapsed().as_secs_f64() * f64::from(RENDER_RATE)).ceil() as u32;
    assert!((RENDER_BURST..=most).contains(&made), "{made} renderings for {asked} requests, at most {most}");
    assert!((made as usize) < asked, "requests share renderings: {made} renderings for {asked} requests");
    hub.gauges.connections.store(1_000_000, Ordering::Relaxed);
    let changed = Instant::now();
    while hub.get("/health").plain()["connections"] != json!(1_000_000) {
        assert!(changed.elapsed() < Duration::from_secs(20), "the last state is not shown");
    }
}

#[test]
fn simultaneous_requests_share_one_rendering() {
    let hub = hub(&[], &[("n", 1)]);
    let (request, ()) = Request::builder().uri("/metrics?format=json").body(()).unwrap().into_parts();
    runtime().block_on(async {
        let pages = (0..1000).map(|_| match (hub.pages)(&request, OPERATOR) {
            shard::Answer::Soon(page) => tokio::spawn(page),
            shard::Answer::ForOperator(_)
            | shard::Answer::Form(_)
            | shard::Answer::Now(_)
            | shard::Answer::Stream(_) => panic!(),
        });
        for page in pages.collect::<Vec<_>>() {
            assert_eq!(page.await.unwrap().status(), 200);
        }
    });
    let made = r#"peerpigeon_page_renders_total{page="metrics-json-names"} "#;
    let metrics = hub.get("/metrics").body;
    let times = metrics.lines().find_map(|line| line.strip_prefix(made)).unwrap().parse::<u32>().unwrap();
    assert!((1..=RENDER_BURST).contains(&times), "{times}");
}

#[test]
fn health_has_the_fields_of_the_go_hub_and_memory() {
    let answer = hub(&[], &[("global", 2), ("x", 1)]).get("/health");
    let mut body = answer.plain();
    let memory = body.as_object_mut().unwrap().remove("memory").unwrap();
    for field in ["rss", "heapTotal", "heapUsed"] {
        assert!(memory[field].as_u64().unwrap() > 100_000, "{memory}");
    }
    assert!(memory["external"].is_u64());
    assert_eq!(
        body,
        json!({"connections": 9, "hubs": 0, "isHub": false, "networks": 2, "peers": 8, "status": "healthy",
            "timestamp": "T", "uptime": 0})
    );
    let order = ["connections", "hubs", "isHub", "memory", "networks", "peers", "status", "timestamp", "uptime"];
    assert_eq!(keys(&answer.body), order);
}

#[test]
fn stats_have_the_fields_of_the_go_hub() {
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
fn stats_of_a_hub_in_a_mesh_contain_its_id() {
    let hub = hub(&[("IS_HUB", "true")], &[]);
    hub.lifecycle.advance(Stage::Ready);
    let stats = hub.get("/stats").plain();
    assert_eq!((&stats["isHub"], &stats["hubPeerId"], &stats["isRunning"]), (&json!(true), &json!(HUB), &json!(true)));
}

#[test]
fn counts_are_current() {
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
fn metrics_are_text_unless_json_is_requested() {
    let hub = hub(&[("FLY_REGION", "fra"), ("FLY_APP_NAME", "pigeonhub-b")], &[("global", 2), ("a \"b\"", 1)]);
    let expected = json!({"connections": {"active": 9, "max": 1000}, "hubs": {"bootstrap_connected": 0,
        "discovered": 0},
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
fn unknown_paths_get_a_list_of_the_endpoints() {
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
            json!([
                "/",
                "/dashboard",
                "/health",
                "/hubs",
                "/hubstats",
                "/livez",
                "/metrics",
                "/readyz",
                "/stats",
                "/ws"
            ])
        );
        assert_eq!(body.get("error").is_some(), status != 200, "{path}");
        assert!(keys(&answer.body).is_sorted());
    }
    assert_eq!(hub.get("/health/").status, 200);
    assert_eq!(hub.get("//").status, 404);
}

/// The `Accept` headers of Chromium, Firefox and Safari when a user opens an address.
const BROWSER: (&str, &str) =
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8");

#[test]
fn browsers_get_the_playground_and_programs_get_json() {
    let shown = hub(&[], &[]);
    let page = shown.ask(Method::GET, "/", &[BROWSER]);
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert_eq!(page.header("cache-control"), "no-cache");
    let vary: Vec<_> = page.headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["Accept-Encoding", "Accept"]);
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    // The page contains nothing that its policy forbids, and nothing from other origins.
    assert!(!page.body.contains("<style") && !page.body.contains(" style=") && !page.body.contains("<script>"));
    for loaded in page.body.split("src=\"").chain(page.body.split("<link ")).skip(1) {
        assert!(!loaded.split('"').next().unwrap().contains("//"), "{loaded}");
    }
    for accept in ["", "*/*", "application/json", "text/html;q=0", "application/json, text/html;q=0.9", "text/plain"] {
        let answer = shown.ask(Method::GET, "/", &[("accept", accept)]);
        assert_eq!(answer.body, shown.get("/").body, "{accept}");
        assert_eq!((answer.header("content-type"), answer.header("vary")), ("application/json", ""), "{accept}");
    }
    assert_eq!(shown.ask(Method::POST, "/", &[BROWSER]).status, 405);
    assert_eq!(shown.get("/playground.html").status, 404);
    assert_eq!(shown.get("/playground.js").status, 200);

    let off = hub(&[("PLAYGROUND", "false")], &[]);
    assert_eq!(off.ask(Method::GET, "/", &[BROWSER]).header("content-type"), "application/json");
    assert_eq!((off.get("/playground.js").status, off.get("/client.js").status), (404, 200));

    // The operators' port has no playground, since it accepts no peers.
    let admin = hub(&[("ADMIN_PORT", "9")], &[]);
    assert_eq!(admin.ask(Method::GET, "/", &[BROWSER]).header("content-type"), "application/json");
    assert_eq!(admin.get("/client.js").status, 404);
}

#[test]
fn the_client_is_served_plain_compressed_and_under_a_hashed_path() {
    let hub = hub(&[("CORS_ORIGIN", "https://a.example")], &[]);
    let request = |headers: &[(&str, &str)], path: &str| {
        let request =
            headers.iter().fold(Request::builder().uri(path), |request, (name, value)| request.header(*name, *value));
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let (head, body) = respond(&hub.pages, &parts, OPERATOR).into_parts();
        (head, runtime().block_on(body.collect()).unwrap().to_bytes())
    };
    let source = |name: &str| std::fs::read(format!("{}/clients/js/dist/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    for name in ["client.js", "client.d.ts", "extras.js", "extras.d.ts"] {
        let path = format!("/{name}");
        let (head, plain) = request(&[], &path);
        assert!(plain == source(name), "{name}");
        assert_eq!(head.headers["cache-control"], "public, max-age=300");
        assert_eq!(head.headers["access-control-allow-origin"], "https://a.example");
        let vary: Vec<_> = head.headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["Accept-Encoding", "Origin"]);
        for coding in ["gzip", "deflate, gzip;q=0.5, br", "*"] {
            let (head, packed) = request(&[("accept-encoding", coding)], &path);
            assert_eq!(head.headers["content-encoding"], "gzip", "{coding}");
            let mut unpacked = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).unwrap();
            assert!(unpacked == plain && packed.len() < plain.len() * 2 / 3, "{name}");
        }
        for coding in ["br", "gzip;q=0", "identity"] {
            let (head, body) = request(&[("accept-encoding", coding)], &path);
            assert!(!head.headers.contains_key("content-encoding") && body == plain, "{coding}");
        }
        // An unchanged file is not sent again.
        let etag = head.headers["etag"].to_str().unwrap();
        for known in [etag, "*", &format!("\"x\", {}", etag.trim_start_matches("W/"))] {
            let (head, body) = request(&[("if-none-match", known), ("accept-encoding", "gzip")], &path);
            assert_eq!((head.status.as_u16(), body.len(), &head.headers["etag"]), (304, 0, &head.headers["etag"]));
            assert!(!head.headers.contains_key("content-length") && !head.headers.contains_key("content-encoding"));
        }
        assert_eq!(request(&[("if-none-match", "\"x\"")], &path).0.status, 200);
        // The path with the hash may be cached forever.
        let (stem, ending) = name.split_once('.').unwrap();
        let named = format!("/{stem}.{}.{ending}", etag.trim_matches(['W', '/', '"']));
        let (head, body) = request(&[], &named);
        assert_eq!(
            (&head.headers["cache-control"], body),
            (&HeaderValue::from_static("public, max-age=31536000, immutable"), plain)
        );
    }
    assert_eq!(hub.get("/client.0000000000000000.js").status, 404);
}

#[test]
fn names_of_networks_are_escaped_in_json() {
    let name = "\"},\"evil\":{\"";
    let body = hub(&[], &[(name, 1)]).get("/metrics?format=json").plain();
    assert_eq!(body["peers"]["networks"][name], 1);
    assert!(NetworkName::resolve(Some(name)).is_some());
}

/// Checks the bytes on the wire, because hyper determines the wire format of HEAD and 204.
#[test]
fn head_has_a_length_and_no_body_on_the_wire() {
    let hub = hub(&[], &[]);
    let talk = |request: &'static str| {
        runtime().block_on(async {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            let service = service_fn(|request: Request<hyper::body::Incoming>| {
                let shard::Answer::Now(response) = (hub.pages)(&request.into_parts().0, OPERATOR) else { panic!() };
                std::future::ready(Ok::<_, Infallible>(response))
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
