//! Tests of the orders that operators give to a running hub, such as kick and drain.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use proto::limits::{PAGE_RATE, WRONG_TOKEN_DELAY};
use serde_json::Value;

use crate::client::{Client, Heard, id, upgrade};
use crate::door::{body, status};
use crate::hub::Hub;
use crate::mesh::eventually;
use crate::wire::over_tls;

const TOKEN: &str = "orders-of-operators";

/// Posts a form with these header lines. Returns the answer.
fn post(hub: &Hub, path: &str, headers: &str, form: &str) -> String {
    let length = form.len();
    hub.http(&format!(
        "POST {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{form}"
    ))
}

/// Posts an order. Returns the status and the JSON of the answer.
fn order(hub: &Hub, name: &str, form: &str) -> (String, Value) {
    let answer = post(hub, &format!("/admin/{name}"), &format!("Authorization: Bearer {TOKEN}\r\n"), form);
    let json = serde_json::from_str(body(&answer)).unwrap_or_else(|_| panic!("{answer}"));
    (status(&answer).to_owned(), json)
}

fn metric(hub: &Hub, series: &str) -> f64 {
    let head =
        format!("GET /metrics HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    let answer = hub.http(&head);
    let line = answer.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {answer}")).parse().unwrap()
}

fn hub(env: &[(&str, &str)]) -> Hub {
    Hub::start(&[&[("ADMIN_TOKEN", TOKEN)], env].concat())
}

#[test]
fn a_peer_on_any_shard_can_be_kicked_and_kept_out() {
    for shards in ["1", "4"] {
        let hub = hub(&[("SHARDS", shards)]);
        for n in 1..=6 {
            let network = format!("n{n}");
            let mut witness = Client::join(&hub, 100 + n, &network);
            let mut peer = Client::join(&hub, n, &network);
            peer.hear_type("peer-discovered");
            witness.hear_type("peer-discovered");
            let (status, answer) = order(&hub, "kick", &format!("peer={}&secs=600", id(n)));
            assert_eq!((status.as_str(), &answer["outcome"]), ("200", &"closed".into()), "{answer}");
            assert_eq!(peer.closed(), (4011, "kicked by an operator".to_owned()));
            let left = witness.hear_type("peer-disconnected");
            assert_eq!((&left["data"]["reason"], &left["data"]["peerId"]), (&"kicked".into(), &id(n).into()));
            let logged = hub.logged("admin_act");
            for part in
                [r#""act":"kick""#, r#""by":"bearer""#, r#""address":"127.0.0.1:"#, &id(n), r#""outcome":"closed""#]
            {
                assert!(logged.contains(part), "{logged}");
            }
            let mut back = Client::open(hub.address, n, b"");
            assert_eq!(back.frame(), Heard::Close(4011, "kicked by an operator".to_owned()));
        }
        assert_eq!(order(&hub, "kick", &format!("peer={}&secs=0", id(1))).1["outcome"], "not-connected");
        Client::join(&hub, 1, "n");
        assert_eq!(order(&hub, "kick", &format!("peer={}", id(77))).0, "404");
    }
}

#[test]
fn a_peer_is_kicked_from_one_network_and_a_network_is_closed() {
    let hub = hub(&[]);
    let mut a = Client::join(&hub, 1, "n");
    let mut b = Client::join(&hub, 2, "n");
    a.hear_type("peer-discovered");
    b.hear_type("peer-discovered");
    let (_, answer) = order(&hub, "kick", &format!("peer={}&network=n", id(1)));
    assert_eq!(answer["outcome"], "removed", "{answer}");
    let told = a.hear_type("error");
    assert_eq!((&told["data"]["code"], &told["networkName"]), (&"kicked".into(), &"n".into()));
    let left = b.hear_type("goodbye");
    assert_eq!((&left["fromPeerId"], &left["data"]["reason"]), (&id(1).into(), &"kicked".into()));
    assert_eq!(order(&hub, "kick", &format!("peer={}&network=n", id(1))).1["outcome"], "not-a-member");

    let others: Vec<Client> = (10..30).map(|n| Client::join(&hub, n, "n")).collect();
    eventually("all peers have joined", || metric(&hub, "peerpigeon_members") == 21.0);
    let (status, answer) = order(&hub, "close-network", "network=n&secs=60");
    assert_eq!((status.as_str(), &answer["members"]), ("200", &21.into()), "{answer}");
    for mut member in others.into_iter().chain([b]) {
        assert_eq!(member.hear_type("error")["data"]["code"], "kicked");
        member.announce("n");
        let refused = member.hear_type("error");
        assert_eq!((&refused["data"]["code"], &refused["data"]["inReplyTo"]), (&"kicked".into(), &"announce".into()));
    }
    eventually("the network is empty", || metric(&hub, "peerpigeon_members") == 0.0);
}

#[test]
fn the_answer_names_the_hub_of_a_peer_at_another_hub() {
    let port = crate::admin::free_port();
    let mesh = [("IS_HUB", "true"), ("MESH_TOKEN", "t"), ("PUBLIC_URL", "wss://b.example")];
    let there = Hub::start(&[&mesh[..], &[("PORT", &port), ("ADMIN_TOKEN", TOKEN)]].concat());
    let bootstrap = format!("ws://127.0.0.1:{port}");
    let here = Hub::start(&[&mesh[..2], &[("BOOTSTRAP_HUBS", &bootstrap), ("ADMIN_TOKEN", TOKEN)]].concat());
    let mut witness = Client::join(&here, 2, "n");
    let mut peer = Client::join(&there, 1, "n");
    witness.hear_type("peer-discovered");
    // The answer names the hub only after the next tick, so the test repeats the order until then.
    let form = format!("peer={}", id(1));
    eventually("the hub of the peer is known", || !order(&here, "kick", &form).1["url"].is_null());
    let (status, answer) = order(&here, "kick", &form);
    assert_eq!(
        (status.as_str(), &answer["outcome"], &answer["url"]),
        ("409", &"elsewhere".into(), &"wss://b.example".into())
    );
    assert_eq!(order(&there, "kick", &format!("peer={}", id(1))).0, "200");
    assert_eq!(peer.closed().0, 4011);
    assert_eq!(witness.hear_type("peer-disconnected")["data"]["reason"], "kicked");
}

#[test]
fn orders_need_the_token() {
    let open = Hub::start(&[]);
    let answer = post(&open, "/admin/drain", "", "");
    assert_eq!(status(&answer), "403");
    assert!(body(&answer).contains("set ADMIN_TOKEN"), "{answer}");

    let mut hub = hub(&[("AUTH_TOKEN", "t")]);
    for wrong in ["", "Authorization: Bearer t\r\n", "Authorization: Bearer x\r\n", "Cookie: peerpigeon_admin=1.2\r\n"]
    {
        let answer = post(&hub, "/admin/kick", wrong, &format!("peer={}", id(1)));
        assert_eq!(status(&answer), "401", "{wrong}");
    }
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(status(&post(&hub, "/admin/kick", &right, "peer=x")), "400");
    assert_eq!(status(&post(&hub, "/admin/nothing", &right, "")), "404");
    assert_eq!(status(&post(&hub, "/admin/kick", &right, &"x".repeat(5000))), "413");
    for path in ["/admin/kick", "/admin/logout"] {
        let get = hub.http(&format!("GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{right}\r\n"));
        assert_eq!(status(&get), "405");
    }
    hub.signal("-TERM");
    hub.wait();
    let log = hub.rest_of_the_log();
    assert!(!log.iter().any(|line| line.contains("admin_act")), "an order was executed: {log:#?}");
}

#[test]
fn a_wrong_token_is_answered_late_and_does_not_block_the_right_one() {
    let hub = hub(&[("SHARDS", "1")]);
    let wrong = "Authorization: Bearer guess\r\n";
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    let began = Instant::now();
    // The hub closes a connection after one wrong token, so the second request gets no answer.
    let request = format!("POST /admin/undrain HTTP/1.1\r\nHost: hub\r\nContent-Length: 0\r\n{wrong}\r\n");
    let answers = hub.http(&request.repeat(2));
    assert_eq!((status(&answers), answers.matches("HTTP/1.1").count()), ("401", 1), "{answers}");
    assert!(began.elapsed() >= WRONG_TOKEN_DELAY, "the wrong token was answered too early");
    // Other clients with the same address guess tokens, as clients behind one proxy could.
    let mut guessing: Vec<TcpStream> = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(hub.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        guessing.push(stream);
    }
    assert_eq!(status(&post(&hub, "/admin/undrain", &right, "")), "200");
    // The guessing clients also exhaust the rate limit for pages of their address, and the common rate limit of all
    // clients without a token. A slow machine needs more than one attempt, because the limits recover between the
    // requests.
    let mut flood = |requests: u32| {
        for _ in 0..requests {
            let mut stream = TcpStream::connect(hub.address).unwrap();
            stream.write_all(b"GET /health HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n").unwrap();
            guessing.push(stream);
        }
    };
    eventually("clients without a token are refused", || {
        flood(3 * PAGE_RATE);
        status(&hub.get("/health")) == "429"
    });
    for _ in 0..8 {
        flood(PAGE_RATE);
        assert_eq!(status(&post(&hub, "/admin/undrain", &right, "")), "200");
    }
    assert_eq!(metric(&hub, "peerpigeon_ready"), 1.0);
    let refused = hub.logged("admin_refused");
    assert!(
        refused.contains("wrong-token") && refused.contains("127.0.0.1") && !refused.contains("guess"),
        "{refused}"
    );
}

#[test]
fn a_drained_hub_sends_its_peers_away_and_takes_them_back_after_undrain() {
    let hub = hub(&[("DRAIN_SECS", "600")]);
    let mut peers: Vec<Client> = (1..=8).map(|n| Client::join(&hub, n, "n")).collect();
    for peer in &mut peers {
        for _ in 0..7 {
            peer.hear_type("peer-discovered");
        }
    }
    let (status_, answer) = order(&hub, "drain", "secs=1");
    assert_eq!((status_.as_str(), &answer["outcome"], &answer["secs"]), ("200", &"draining".into(), &1.into()));
    assert_eq!((status(&hub.get("/readyz")), body(&hub.get("/readyz"))), ("503", "draining\n"));
    assert_eq!(status(&hub.get("/livez")), "200");
    for mut peer in peers {
        assert_eq!(peer.hear_type("go-away")["data"]["reason"], "draining");
        assert_eq!(peer.closed().0, 1012);
    }
    let refused = hub.begins(&upgrade(&format!("/ws?peerId={}", id(9))));
    assert!(refused.starts_with("HTTP/1.1 503") && refused.to_ascii_lowercase().contains("retry-after: "), "{refused}");
    let refusals = "peerpigeon_handshake_failures_total{reason=\"draining\"}";
    eventually("the refusal is counted", || metric(&hub, refusals) == 1.0);

    let (_, answer) = order(&hub, "undrain", "");
    assert_eq!(answer["outcome"], "undrained");
    assert_eq!(status(&hub.get("/readyz")), "200");
    assert_eq!(order(&hub, "undrain", "").1["outcome"], "not-draining");
    Client::join(&hub, 9, "n");
}

#[test]
fn peers_that_are_not_yet_closed_stay_when_the_drain_ends() {
    let mut hub = hub(&[("SHARDS", "1"), ("DRAIN_SECS", "600")]);
    let mut peers: Vec<Client> = (1..=4).map(|n| Client::join(&hub, n, "n")).collect();
    let slots = |peers: &mut [Client]| -> Vec<u64> {
        let slot = |peer: &mut Client| peer.hear_type("go-away")["data"]["closeInMs"].as_u64().unwrap();
        peers.iter_mut().map(slot).collect()
    };
    order(&hub, "drain", "secs=2");
    let first = slots(&mut peers);
    order(&hub, "undrain", "");
    // A second drain gives each session a new time for its close. The hub must forget the times of the first drain.
    order(&hub, "drain", "secs=600");
    let second = slots(&mut peers[2..]);
    assert!(first.iter().all(|slot| *slot < 2000) && second.iter().all(|slot| *slot > 200_000), "{first:?} {second:?}");
    let over = Instant::now() + Duration::from_millis(first.iter().max().unwrap() + 300);
    eventually("the times of the first drain are over", || Instant::now() > over);
    order(&hub, "undrain", "");
    for peer in &mut peers[2..] {
        peer.say(r#"{"type":"ping"}"#);
        peer.hear_type("pong");
    }
    // SIGTERM stops a hub during an operator's drain, as at any other time.
    order(&hub, "drain", "secs=600");
    hub.signal("-TERM");
    hub.logged("server_draining");
    hub.signal("-TERM");
    drop(peers);
    assert_eq!(hub.wait().code(), Some(0));
}

/// The value of a header in an answer.
fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

#[test]
fn a_browser_logs_in_with_a_form_and_orders_with_its_cookie() {
    let hub = hub(&[("PLAYGROUND", "false")]);
    let browse = |path: &str, cookie: &str| {
        let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
        hub.http(&format!(
            "GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nAccept: text/html,*/*;q=0.8\r\n{cookie}\r\n"
        ))
    };
    for path in ["/admin", "/dashboard", "/metrics", "/stats", "/hubs", "/hubstats"] {
        let form = browse(path, "");
        assert_eq!(status(&form), "401", "{path}");
        let next = format!("name=\"next\" value=\"{path}\"");
        assert!(body(&form).contains(&next) && body(&form).contains("type=\"password\""), "{form}");
        let policy = header(&form, "content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(header(&form, "x-frame-options"), Some("DENY"));
        assert_eq!(header(&form, "access-control-allow-origin"), None);
    }
    let own = "Origin: http://hub\r\n";
    let log_in = |token: &str, next: &str, headers: &str| {
        post(&hub, "/admin", &format!("Accept: text/html\r\n{headers}"), &format!("token={token}&next={next}"))
    };
    let wrong = log_in("x", "/stats", own);
    assert!(
        status(&wrong) == "401" && header(&wrong, "set-cookie").is_none() && !wrong.contains("value=\"x\""),
        "{wrong}"
    );
    assert_eq!(status(&log_in(TOKEN, "/stats", "Origin: http://evil\r\n")), "403");
    let elsewhere = log_in(TOKEN, "https://evil.example/", own);
    assert_eq!((status(&elsewhere), header(&elsewhere, "location")), ("303", Some("/admin")));
    let right = log_in(TOKEN, "/stats", own);
    assert_eq!((status(&right), header(&right, "location")), ("303", Some("/stats")));
    let set = header(&right, "set-cookie").unwrap();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict") && !set.contains(TOKEN), "{set}");
    let cookie = set.split(';').next().unwrap();
    for path in ["/admin", "/dashboard", "/metrics", "/stats", "/hubs", "/hubstats"] {
        assert_eq!(status(&browse(path, cookie)), "200", "{path}");
    }
    let order = |headers: &str| post(&hub, "/admin/undrain", &format!("Cookie: {cookie}\r\n{headers}"), "");
    for wrong in ["", "Origin: http://evil\r\n", "Origin: null\r\n"] {
        let refused = order(wrong);
        assert!(status(&refused) == "403" && body(&refused).contains("Origin"), "{wrong}: {refused}");
    }
    assert_eq!(status(&order(own)), "200");
    assert!(
        body(&order(&format!("{own}Accept: text/html\r\n"))).contains("<p role=\"status\">the hub was not draining")
    );
    assert!(hub.logged("admin_act").contains(r#""by":"cookie""#));
    for foreign in ["", "Origin: http://evil\r\n"] {
        let out = post(&hub, "/admin/logout", &format!("Cookie: {cookie}\r\n{foreign}"), "");
        assert_eq!(header(&out, "set-cookie"), None, "{foreign}");
        assert_eq!(status(&browse("/stats", cookie)), "200", "another site's page must not end the login");
    }
    let out = post(&hub, "/admin/logout", &format!("Cookie: {cookie}\r\n{own}"), "");
    assert!(header(&out, "set-cookie").unwrap().contains("Max-Age=0"), "{out}");
    assert_eq!(status(&browse("/stats", cookie)), "401", "a copy of the cookie must be invalid after the logout");
    let changed = cookie.replace('=', "=9");
    assert_eq!(status(&browse("/stats", &changed)), "401");
}

#[test]
fn health_without_the_token_shows_only_that_the_hub_runs() {
    let hub = hub(&[]);
    let _peer = Client::join(&hub, 1, "n");
    let get = |headers: &str| -> Value {
        let answer = hub.http(&format!("GET /health HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{headers}\r\n"));
        assert_eq!(status(&answer), "200");
        serde_json::from_str(body(&answer)).unwrap()
    };
    let (brief, full) = (get(""), get(&format!("Authorization: Bearer {TOKEN}\r\n")));
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&brief), ["isHub", "memory", "status", "timestamp"]);
    // The npm client's server-status reads this field.
    assert_eq!(brief["memory"]["heapUsed"], 0);
    assert_eq!((&full["connections"], &full["peers"], &brief["status"]), (&1.into(), &1.into(), &"healthy".into()));

    // The short answer of /health shows a client that its token is wrong. Therefore the hub delays this answer like a
    // refusal, and closes the connection.
    let began = Instant::now();
    let request = "GET /health HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer guess\r\n\r\n";
    let answers = hub.http(&request.repeat(2));
    assert_eq!((status(&answers), answers.matches("HTTP/1.1").count()), ("200", 1), "{answers}");
    assert!(began.elapsed() >= WRONG_TOKEN_DELAY && !answers.contains("uptime"), "{answers}");
    assert!(hub.logged("admin_refused").contains("wrong-token"));
}

/// Logs in and out, and returns the cookies that the hub sets each time.
fn cookies(hub: &Hub, headers: &str) -> [String; 2] {
    let set = |path: &str, headers: &str, form: &str| {
        let answer = post(hub, path, headers, form);
        header(&answer, "set-cookie").unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let login = set("/admin", headers, &format!("token={TOKEN}"));
    let pair = login.split(';').next().unwrap();
    let logout = set("/admin/logout", &format!("{headers}Cookie: {pair}\r\nOrigin: https://hub\r\n"), "");
    [login, logout]
}

#[test]
fn a_cookie_over_tls_is_secure() {
    let is_secure = |hub: &Hub, headers: &str| {
        let [login, logout] = cookies(hub, headers).map(|set| set.ends_with("; Secure"));
        assert_eq!(login, logout);
        login
    };
    let https = "X-Forwarded-Proto: https\r\n";
    // Here a proxy terminates TLS. The hub uses X-Forwarded-Proto only if a trusted proxy sends it.
    let behind = hub(&[("TRUSTED_PROXIES", "127.0.0.1")]);
    assert!(is_secure(&behind, https) && is_secure(&behind, "X-Forwarded-Proto: HTTPS\r\n"));
    assert!(!is_secure(&behind, "") && !is_secure(&behind, "X-Forwarded-Proto: http\r\n"));
    assert!(!is_secure(&hub(&[]), https) && !is_secure(&hub(&[("TRUSTED_PROXIES", "192.0.2.1")]), https));
    // Here the hub terminates TLS itself, but only at PORT. A browser would refuse a secure cookie from ADMIN_PORT, which
    // has no TLS.
    let port = crate::admin::free_port();
    over_tls(|| {
        let mut own = hub(&[]);
        assert!(is_secure(&own, ""));
        let plain = post(&own, "/admin", "Origin: http://hub\r\n", &format!("token={TOKEN}"));
        assert_eq!((status(&plain), header(&plain, "set-cookie")), ("403", None), "a page without TLS has logged in");
        own = hub(&[("ADMIN_PORT", &port)]);
        own.address = std::net::SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
        assert!(!is_secure(&own, ""));
    });
}

#[test]
fn browsers_must_not_store_or_frame_answers_for_operators_or_guess_their_type() {
    let hub = hub(&[("AUTH_TOKEN", "t")]);
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    let browser = "Accept: text/html\r\n";
    let check = |answer: &str, what: &str| {
        assert_eq!(header(answer, "cache-control"), Some("no-store"), "{what}: {answer}");
        assert_eq!(header(answer, "x-content-type-options"), Some("nosniff"), "{what}: {answer}");
        assert_eq!(header(answer, "x-frame-options"), Some("DENY"), "{what}: {answer}");
        if header(answer, "content-type").unwrap().starts_with("text/html") {
            let policy = header(answer, "content-security-policy").unwrap_or_else(|| panic!("{what}: {answer}"));
            assert!(policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'none'"), "{policy}");
            if body(answer).contains("<form method=\"post\"") {
                assert!(policy.contains("form-action 'self';"), "{policy}");
                assert_eq!(header(answer, "referrer-policy"), Some("same-origin"), "{what}: {answer}");
            }
        }
        status(answer).to_owned()
    };
    let mut statuses = Vec::new();
    let pages = ["/dashboard", "/metrics", "/metrics?format=json", "/stats", "/hubs", "/hubstats", "/health"];
    let more = ["/admin", "/admin/kick", "/admin/none", "/dashboard/", "/dashboard/events", "/dashboard/networks"];
    for path in pages.into_iter().chain(more).chain(["/dashboard/network?name=n", "/dashboard/none"]) {
        for proof in ["", &right, &format!("{right}{browser}"), &format!("{right}If-None-Match: *\r\n"), browser] {
            let request = |method| format!("{method} {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{proof}\r\n");
            statuses.push(check(&hub.http(&request("HEAD")), path));
            // A stream never ends, so its body is not requested.
            if path != "/dashboard/events" {
                statuses.push(check(&hub.http(&request("GET")), path));
            }
        }
    }
    let log_in = |token: &str, headers: &str| post(&hub, "/admin", headers, &format!("token={token}"));
    let order = |name: &str, headers: &str, form: &str| {
        post(&hub, &format!("/admin/{name}"), &format!("{right}{headers}"), form)
    };
    for accept in ["", browser] {
        for answer in [
            log_in("x", accept),
            log_in(TOKEN, accept),
            log_in(TOKEN, &format!("{accept}Origin: http://evil\r\n")),
            order("undrain", accept, ""),
            order("kick", accept, ""),
            order("kick", accept, &format!("peer={}", id(1))),
            order("logout", accept, ""),
            order("none", accept, ""),
        ] {
            statuses.push(check(&answer, "an order"));
        }
    }
    statuses.sort();
    statuses.dedup();
    assert_eq!(statuses, ["200", "303", "304", "308", "400", "401", "403", "404", "405"]);
    // The same headers are in the answers of a hub without ADMIN_TOKEN.
    let open = Hub::start(&[]);
    for path in pages {
        assert_eq!(check(&open.get(path), path), "200");
    }
    assert_eq!(check(&open.get("/admin"), "/admin"), "403");
}

#[test]
fn logins_logouts_and_refusals_are_logged() {
    let hub = hub(&[("AUTH_TOKEN", "t")]);
    // Requests without a wrong ADMIN_TOKEN are not attempts to guess the token. The hub answers at once, and logs
    // nothing.
    let peers = "Authorization: Bearer t\r\n";
    for proof in ["", peers, "Authorization: Basic dTpw\r\n"] {
        let request = format!("GET /stats HTTP/1.1\r\nHost: hub\r\n{proof}\r\n");
        let last = request.replace("Host", "Connection: close\r\nHost");
        let answers = hub.http(&(request + &last));
        assert_eq!((status(&answers), answers.matches("HTTP/1.1 401").count()), ("401", 2), "{answers}");
    }
    let login = post(&hub, "/admin", "", &format!("token={TOKEN}"));
    let cookie = header(&login, "set-cookie").unwrap().split(';').next().unwrap();
    let line = hub.logged("admin_login");
    assert!(line.contains(r#""address":"127.0.0.1:"#) && !line.contains(TOKEN), "{line}");
    // The hub refuses a request of another site's page with the cookie, and logs the first refusal at once.
    let refused = post(&hub, "/admin/undrain", &format!("Cookie: {cookie}\r\nOrigin: http://evil\r\n"), "");
    assert_eq!(status(&refused), "403");
    let line = hub.logged("admin_refused");
    assert!(line.contains(r#""reason":"foreign-page""#) && line.contains(r#""address":"127.0.0.1:"#), "{line}");
    let form = format!("peer={}&network=n&secs=60", id(1));
    post(&hub, "/admin/kick", &format!("Cookie: {cookie}\r\nOrigin: http://hub\r\n"), &form);
    let line = hub.logged("admin_act");
    for part in [
        r#""act":"kick""#,
        r#""by":"cookie""#,
        r#""address":"127.0.0.1:"#,
        &id(1),
        r#""network":"n""#,
        r#""secs":60"#,
        r#""outcome":"not-connected""#,
    ] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    post(&hub, "/admin/logout", &format!("Cookie: {cookie}\r\nOrigin: http://hub\r\n"), "");
    let line = hub.logged("admin_logout");
    assert!(line.contains(r#""address":"127.0.0.1:"#), "{line}");

    // The hub also refuses and logs a login by another site's page, and a login with a wrong token.
    for (token, origin, reason) in [(TOKEN, "http://evil", "foreign-page"), ("wrong", "http://hub", "wrong-token")] {
        let hub = self::hub(&[]);
        post(&hub, "/admin", &format!("Origin: {origin}\r\n"), &format!("token={token}"));
        let (line, before) = hub.logged_after("admin_refused");
        assert!(line.contains(reason) && !line.contains(TOKEN) && !line.contains(r#""wrong""#), "{line}");
        assert!(!before.iter().any(|line| line.contains("admin_login")), "{before:#?}");
    }
}

/// Runs `peerpigeon admin`. Returns its exit code, stdout and stderr.
fn admin(args: &[&str], token: &str) -> (Option<i32>, String, String) {
    let output = crate::hub::command(&[("ADMIN_TOKEN", token)]).arg("admin").args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_gives_orders_and_prints_the_result() {
    let hub = hub(&[]);
    let url = format!("http://{}", hub.address);
    let mut peer = Client::join(&hub, 1, "n");
    let (code, out, _) = admin(&["kick", &url, &id(1), "--network", "n"], TOKEN);
    assert_eq!((code, out.as_str()), (Some(0), "the peer was removed from the network\n"));
    assert_eq!(peer.hear_type("error")["data"]["code"], "kicked");
    let (code, out, _) = admin(&["kick", &url, &id(1), "--json"], TOKEN);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["outcome"], &json["peer"]), (Some(0), &"closed".into(), &id(1).into()));
    assert_eq!(peer.closed().0, 4011);
    let (code, out, _) = admin(&["kick", &url, &id(7)], TOKEN);
    assert_eq!((code, out.as_str()), (Some(2), "no peer with this id is connected\n"));
    assert_eq!(admin(&["close-network", &url, "n", "--secs", "60"], TOKEN).0, Some(0));
    assert_eq!(admin(&["drain", &url, "--secs", "0"], TOKEN).0, Some(0));
    assert_eq!(status(&hub.get("/readyz")), "503");

    let file = std::env::temp_dir().join(format!("peerpigeon-admin-token-{}", std::process::id()));
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let (code, out, _) = admin(&["undrain", &url, "--token-file", file.to_str().unwrap()], "");
    std::fs::remove_file(&file).unwrap();
    assert_eq!((code, out.as_str()), (Some(0), "the drain has ended: the hub accepts peers again\n"));
    assert_eq!(status(&hub.get("/readyz")), "200");

    let (code, _, err) = admin(&["undrain", &url], "wrong");
    assert!(
        code == Some(1) && err.contains("the token is wrong") && err.contains("401") && !err.contains(" wrong-"),
        "{err}"
    );
    let (code, out, _) = admin(&["undrain", &url, "--json"], "wrong");
    assert!(code == Some(1) && out.contains(r#""outcome":"refused""#), "{out}");
    let (code, _, err) = admin(&["undrain", &url], "");
    assert!(code == Some(64) && err.contains("set ADMIN_TOKEN"), "{err}");
    for wrong in
        [&["kick", &url, "12"][..], &["kick", "ftp://a", &id(1)], &["explode", &url], &["drain", &url, "--secs", "x"]]
    {
        assert_eq!(admin(wrong, TOKEN).0, Some(64), "{wrong:?}");
    }
    let (code, _, err) = admin(&["undrain", "http://127.0.0.1:1"], TOKEN);
    assert!(code == Some(1) && !err.contains(TOKEN), "{err}");
}

#[test]
fn the_operators_port_can_listen_at_a_separate_address() {
    let port = crate::admin::free_port();
    let mut hub = Hub::start(&[("ADMIN_PORT", &port), ("ADMIN_HOST", "127.0.0.2")]);
    let port: u16 = port.parse().unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "the operators' port must not listen at HOST");
    hub.address = std::net::SocketAddr::from(([127, 0, 0, 2], port));
    assert_eq!(status(&hub.get("/metrics")), "200");
}

#[test]
fn the_peers_port_has_no_operators_page_if_admin_port_is_set() {
    let port = crate::admin::free_port();
    let hub = hub(&[("ADMIN_PORT", &port)]);
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    for path in ["/admin", "/admin/kick", "/admin/drain", "/admin/logout", "/dashboard/networks"] {
        let get = hub.http(&format!("GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{right}\r\n"));
        assert_eq!((status(&get), header(&get, "www-authenticate")), ("404", None), "GET {path}");
        let answer = post(&hub, path, &right, &format!("token={TOKEN}"));
        assert_eq!((status(&answer), header(&answer, "set-cookie")), ("404", None), "POST {path}");
    }
    assert_eq!(status(&hub.get("/readyz")), "200", "a drain was executed");
}
