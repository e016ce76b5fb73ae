use std::net::SocketAddr;
use std::str::FromStr;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use proto::limits::LONGEST_EXCLUSION;
use proto::{NetworkName, Order, PeerId};
use shard::{Audience, Visitor};

use super::*;
use crate::config::Config;

const ID: &str = "00112233445566778899aabbccddeeff00112233";

fn peer() -> PeerId {
    PeerId::from_str(ID).unwrap()
}

fn visitor(address: &str) -> Visitor {
    let address: SocketAddr = address.parse().unwrap();
    Visitor { audience: Audience::Operators, has_token: false, address, is_tls: false }
}

fn headers(of: &[(HeaderName, &str)]) -> HeaderMap {
    of.iter().map(|(name, value)| (name.clone(), HeaderValue::try_from(*value).unwrap())).collect()
}

fn gatekeeper() -> Gatekeeper {
    let config = Config::from_pairs(&[("ADMIN_TOKEN", "right")]).unwrap();
    Gatekeeper::new(config.admin_token, [7; 32])
}

fn bearer(token: &str) -> HeaderMap {
    headers(&[(AUTHORIZATION, &format!("Bearer {token}"))])
}

#[test]
fn an_order_is_read_from_the_form_that_it_writes() {
    let network = Some(NetworkName::new("a&b=ü "));
    let minute = Some(Duration::from_secs(60));
    for act in [
        Act::Order(Order::Kick { peer: peer(), network: None, out_for: None }),
        Act::Order(Order::Kick { peer: peer(), network: Some(NetworkName::new("n&m=ü")), out_for: minute }),
        Act::Order(Order::CloseNetwork { network: NetworkName::new("n"), out_for: Some(Duration::ZERO) }),
        Act::Drain { over: None },
        Act::Drain { over: minute },
        Act::Undrain,
    ] {
        assert_eq!(Act::read(act.label(), act.form().as_bytes()), Ok(act));
    }
    assert!(network.is_some());
    // Empty fields count as missing.
    let empty = Act::read("kick", format!("peer={ID}&network=&secs=").as_bytes());
    assert_eq!(empty, Ok(Act::Order(Order::Kick { peer: peer(), network: None, out_for: None })));
}

#[test]
fn a_wrong_form_is_refused_with_advice() {
    let long = format!("network={}", "n".repeat(257));
    for (name, form, says) in [
        ("kick", "", "the field peer is missing"),
        ("kick", "peer=", "the field peer is missing"),
        ("kick", "peer=12", "\"12\" is not a peer's id: send 40"),
        ("kick", "peer=1&peer=2", "the field peer occurs twice"),
        ("kick", "pier=1", "kick has no field \"pier\""),
        ("close-network", "", "the field network is missing"),
        ("close-network", "network=%20", "the field network is missing"),
        ("close-network", &long, "the name in network is too long"),
        ("close-network", "network=n&peer=1", "close-network has no field \"peer\""),
        ("drain", "secs=-1", "\"-1\" is not a time"),
        ("undrain", "secs=1", "undrain has no field"),
        ("explode", "", "there is no order"),
    ] {
        let refused = Act::read(name, form.as_bytes()).unwrap_err();
        assert!(refused.starts_with(says) && refused.contains(": "), "{name} {form}: {refused}");
    }
}

#[test]
fn times_are_whole_seconds_up_to_thirty_days() {
    assert_eq!(span("0"), Ok(Duration::ZERO));
    assert_eq!(span("2592000"), Ok(LONGEST_EXCLUSION));
    for wrong in ["2592001", "1.5", "60s", "", "18446744073709551616"] {
        assert!(span(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_token_or_the_cookie_of_a_login_proves_an_operator() {
    let (gatekeeper, me) = (gatekeeper(), visitor("192.0.2.1:5"));
    assert_eq!(gatekeeper.check(&bearer("right"), me), Entry::Bearer);
    assert_eq!(gatekeeper.check(&HeaderMap::new(), me), Entry::Unknown);
    assert_eq!(gatekeeper.check(&bearer("wrong"), me), Entry::Wrong);
    assert_eq!(gatekeeper.log_in(b"wrong", me), Err(Entry::Wrong));
    let cookie = gatekeeper.log_in(b"right", me).unwrap();
    assert!(!cookie.to_str().unwrap().contains("right"), "the cookie must not contain the token");
    let pair = cookie.to_str().unwrap().split(';').next().unwrap();
    assert_eq!(gatekeeper.check(&headers(&[(hyper::header::COOKIE, pair)]), me), Entry::Cookie);
    let open = Gatekeeper::new(None, [7; 32]);
    assert_eq!(open.check(&HeaderMap::new(), me), Entry::Open);
    assert!(open.log_in(b"", me).is_err() && !open.is_closed());
}

/// Behind a proxy, a stranger who guesses tokens can have the same address as the operators.
#[test]
fn a_right_token_is_accepted_from_an_address_that_guesses() {
    let (gatekeeper, guesser) = (gatekeeper(), visitor("192.0.2.1:5"));
    for _ in 0..1000 {
        assert_eq!(gatekeeper.log_in(b"x", guesser).err(), Some(Entry::Wrong));
        assert_eq!(gatekeeper.check(&bearer("x"), guesser), Entry::Wrong);
    }
    let operator = visitor("192.0.2.1:6");
    assert_eq!(gatekeeper.check(&bearer("right"), operator), Entry::Bearer);
    assert!(gatekeeper.log_in(b"right", operator).is_ok());
    // A client that sends AUTH_TOKEN does not count as guessing.
    let client = Visitor { has_token: true, ..visitor("192.0.2.3:5") };
    assert_eq!(gatekeeper.check(&bearer("peers"), client), Entry::Unknown);
}

#[test]
fn refusals_are_logged_once_in_ten_seconds_with_their_number() {
    let gatekeeper = gatekeeper();
    let at = |secs: f64| gatekeeper.count_failure(Duration::from_secs_f64(secs));
    assert_eq!(at(1.0), Some(1));
    assert_eq!([at(1.0), at(5.0), at(10.9)], [None; 3]);
    assert_eq!(at(11.0), Some(4));
    assert_eq!([at(11.0), at(20.9)], [None; 2]);
    assert_eq!(at(1000.0), Some(3));
}

/// The time of a comparison cannot be tested, so this test reads the source.
#[test]
fn secrets_of_operators_are_compared_in_constant_time() {
    let part = |source: &'static str, start: &str, end: &str| {
        let rest = source.split_once(start).unwrap_or_else(|| panic!("no {start}")).1;
        rest.split_once(end).unwrap_or_else(|| panic!("no {end}")).0
    };
    let token = part(include_str!("../config.rs"), "fn matches(&self, presented: &[u8]) -> bool {", "}");
    assert_eq!(token.trim(), "proto::is_secret(presented, self.0.as_bytes())");
    let cookie = part(include_str!("cookie.rs"), "fn is_valid(", "\n    }");
    assert!(cookie.contains("is_secret(tag.as_bytes(), self.tag(expires).as_bytes()) &&"), "{cookie}");
    let gatekeeper = include_str!("gatekeeper.rs");
    assert!(
        !gatekeeper.contains("expose") && !gatekeeper.contains("token =="),
        "gatekeeper.rs must not compare the token itself"
    );
}

#[test]
fn only_an_operator_ends_the_logins_of_operators() {
    let (gatekeeper, me) = (gatekeeper(), visitor("192.0.2.1:5"));
    let set = gatekeeper.log_in(b"right", me).unwrap();
    let cookie = headers(&[(hyper::header::COOKIE, set.to_str().unwrap().split(';').next().unwrap())]);
    let removed = gatekeeper.log_out(&HeaderMap::new(), me).unwrap();
    assert!(removed.to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(gatekeeper.check(&cookie, me), Entry::Cookie, "a stranger must not end the operator's login");
    gatekeeper.log_out(&cookie, me);
    assert_eq!(gatekeeper.check(&cookie, me), Entry::Unknown);
}

#[test]
fn only_pages_of_this_host_send_orders_with_a_cookie() {
    let is_own = |origin: Option<&str>, is_tls| {
        let mut all = headers(&[(HOST, "hub.example:8080")]);
        if let Some(origin) = origin {
            all.insert(ORIGIN, HeaderValue::try_from(origin).unwrap());
        }
        is_own_page(&all, Visitor { is_tls, ..visitor("192.0.2.1:5") })
    };
    assert!(is_own(Some("http://hub.example:8080"), false) && is_own(Some("https://HUB.example:8080"), false));
    assert!(is_own(Some("https://hub.example:8080"), true) && !is_own(Some("http://hub.example:8080"), true));
    for wrong in
        ["http://hub.example", "http://hub.example:80801", "http://evil.example", "null", "hub.example:8080", ""]
    {
        assert!(!is_own(Some(wrong), false), "{wrong}");
    }
    assert!(!is_own(None, false));
}

#[test]
fn an_outcome_has_a_status_and_a_sentence() {
    let kick = |out_for| Act::Order(Order::Kick { peer: peer(), network: None, out_for });
    let (just, minute) = (kick(None), kick(Some(Duration::from_secs(60))));
    let hub = HubId(peer());
    let url: Option<Arc<str>> = Some("wss://b.example".into());
    let of = |outcome: Outcome, act: &Act| (outcome.status(act).as_u16(), outcome.explain(act));
    assert_eq!(of(Outcome::Closed { kept_out: true }, &just), (200, "the peer was disconnected".to_owned()));
    let (status, sentence) = of(Outcome::Closed { kept_out: true }, &minute);
    assert!(status == 200 && sentence.ends_with("kept out of this hub for 60 s"), "{sentence}");
    let (status, sentence) = of(Outcome::Closed { kept_out: false }, &minute);
    assert!(status == 503 && sentence.contains("not kept out, because"), "{sentence}");
    assert_eq!(of(Outcome::NotConnected { kept_out: true }, &just).0, 404);
    assert_eq!(of(Outcome::NotConnected { kept_out: true }, &minute).0, 200);
    let (status, sentence) = of(Outcome::Elsewhere { hub, url, kept_out: true }, &just);
    assert!(status == 409 && sentence.contains("wss://b.example"), "{sentence}");
    assert_eq!(of(Outcome::Unknown, &just).0, 504);
}

#[tokio::test]
async fn orders_beyond_the_maximum_are_refused_at_once() {
    let (desk, mut orders) = Desk::new();
    let waiting: Vec<_> = (0..MAX_ORDERS)
        .map(|_| {
            let desk = desk.clone();
            tokio::spawn(async move { desk.order(Act::Undrain).await })
        })
        .collect();
    while orders.len() < MAX_ORDERS {
        tokio::task::yield_now().await;
    }
    assert_eq!(desk.order(Act::Undrain).await, Outcome::Busy);
    while let Ok(order) = orders.try_recv() {
        order.answer.send(Outcome::Undrained).unwrap();
    }
    for outcome in waiting {
        assert_eq!(outcome.await.unwrap(), Outcome::Undrained);
    }
    drop(orders);
    assert_eq!(desk.order(Act::Undrain).await, Outcome::Stopping);
}
