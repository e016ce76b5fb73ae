//! Tests of the places of a JWT in a request, of its rights and its expiry, and of the keys of an identity provider.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::client::{Client, id, upgrade};
use crate::hub::{DEADLINE, Hub};
use crate::mesh::{eventually, mesh};
use crate::wire::{Authority, Certificate};

const SECRET: &str = "a-secret-with-thirty-two-letters";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub fn token(claims: &Value) -> String {
    signed_by(SECRET, claims)
}

fn signed_by(secret: &str, claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.as_bytes()).unwrap()).unwrap()
}

fn member(network: &str, rights: &[&str]) -> String {
    token(&json!({ "networks": [{ "name": network, "rights": rights }] }))
}

/// Connects as peer `n` with a token, and receives `connected`.
fn connect(hub: &Hub, n: u32, token: &str) -> Client {
    let stream = TcpStream::connect(hub.address).unwrap();
    let mut client = Client::open_by(stream, &format!("/ws?peerId={}&token={token}", id(n)), n, b"");
    assert_eq!(client.hear()["type"], "connected");
    client
}

/// Requests a WebSocket with these headers. Each header in `headers` must end with its line break. Returns the head of
/// the answer.
pub fn ask(hub: &Hub, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(hub.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = upgrade(path).replacen("\r\n", &format!("\r\n{headers}"), 1);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or_default() > 0 {
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap().to_ascii_lowercase()
}

fn refusals(hub: &Hub, reason: &str) -> f64 {
    hub.metric_becomes(&format!("peerpigeon_tokens_total{{outcome=\"{reason}\"}}"), |n| n > 0.0)
}

#[test]
fn a_token_is_accepted_in_each_place_and_is_never_logged() {
    let mut hub = Hub::start(&[("JWT_SECRET", SECRET), ("LOG_LEVEL", "trace")]);
    let (good, bad) = (token(&json!({})), signed_by("another-secret-of-thirty-two-let", &json!({})));
    let path = format!("/ws?peerId={}", id(1));
    for (path, headers) in [
        (path.clone(), format!("Authorization: Bearer {good}\r\n")),
        (path.clone(), format!("Sec-WebSocket-Protocol: peerpigeon, bearer.{good}\r\n")),
        (format!("{path}&token={good}"), String::new()),
        (format!("{path}&token={bad}"), format!("Authorization: Bearer {good}\r\n")),
    ] {
        let answer = ask(&hub, &path, &headers);
        assert!(answer.starts_with("http/1.1 101"), "{answer}");
        let selects = answer.contains("sec-websocket-protocol: peerpigeon\r\n");
        assert_eq!(selects, headers.contains("Protocol"), "{answer}");
    }
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    // The header of this token is {"alg":"none"}, and its claims are {}.
    let unsigned = "eyJhbGciOiJub25lIn0.e30.";
    for (headers, reason) in [
        (String::new(), None),
        (bearer(&bad), Some("signature")),
        (format!("Sec-WebSocket-Protocol: bearer.{good}\r\n"), None),
        (bearer("secret-of-nobody"), Some("malformed")),
        (bearer(&token(&json!({ "exp": now() - 1 }))), Some("expired")),
        (bearer(&token(&json!({ "nbf": now() + 60 }))), Some("not-yet-valid")),
        (bearer(&token(&json!({ "aud": "another hub" }))), Some("audience")),
        (bearer(unsigned), Some("algorithm")),
    ] {
        let answer = ask(&hub, &path, &headers);
        assert!(answer.starts_with("http/1.1 401") && answer.contains("www-authenticate: bearer"), "{answer}");
        if let Some(reason) = reason {
            assert!(answer.contains("error=\"invalid_token\""), "{answer}");
            assert_eq!(refusals(&hub, reason), 1.0, "{reason}");
        }
    }
    let answer = ask(&hub, &path, &bearer(&"x".repeat(9_000)));
    assert!(answer.starts_with("http/1.1 401"), "{answer}");
    assert_eq!(hub.metric_becomes("peerpigeon_tokens_total{outcome=\"malformed\"}", |n| n > 1.0), 2.0);
    let answer = ask(&hub, &path, &bearer(&"x".repeat(20_000)));
    assert!(answer.starts_with("http/1.1 431"), "{answer}");
    // Signals between peers are not logged either.
    let (mut sender, mut target) = (connect(&hub, 2, &good), connect(&hub, 3, &good));
    sender.announce("n");
    target.announce("n");
    sender.hear_type("peer-discovered");
    sender.offer(&id(3), "n", r#"{"words":"between-the-two"}"#, "");
    assert_eq!(target.hear_type("offer")["data"]["words"], "between-the-two");
    sender.say(&format!(r#"{{"type":"auth","data":{{"token":"{bad}"}}}}"#));
    assert_eq!(sender.hear_type("error")["data"]["code"], "unauthorized");
    hub.signal("-TERM");
    drop((sender, target));
    hub.wait();
    let log = hub.rest_of_the_log().join("\n");
    assert!(log.contains("token_refused") && log.contains("\"signature\""), "{log}");
    for secret in [&good, &bad, SECRET, "secret-of-nobody", "between-the-two"] {
        assert!(!log.contains(secret), "{secret} is in {log}");
    }
}

#[test]
fn auth_token_stays_valid_beside_jwts_and_allows_everything() {
    let hub = Hub::start(&[("JWT_SECRET", SECRET), ("AUTH_TOKEN", "for-all")]);
    let mut everywhere = connect(&hub, 1, "for-all");
    let mut limited = connect(&hub, 2, &member("n", &["join", "signal"]));
    everywhere.announce("m");
    limited.announce("m");
    assert_eq!(limited.hear()["data"]["code"], "forbidden");
    everywhere.hears_nothing();
    let answer = ask(&hub, &format!("/ws?peerId={}&token=wrong", id(3)), "");
    assert!(answer.starts_with("http/1.1 401"), "{answer}");
}

#[test]
fn a_token_with_a_subject_takes_over_the_id_of_the_subject_at_once() {
    let hub = Hub::start(&[("JWT_SECRET", SECRET)]);
    let own = token(&json!({ "sub": id(1) }));
    let mut first = connect(&hub, 1, &token(&json!({})));
    let mut second = connect(&hub, 1, &own);
    assert_eq!(first.closed_without_ping(), (4001, "replaced".to_owned()));
    // A page in the browser's back/forward cache still answers pings, but it cannot keep the id.
    let _third = connect(&hub, 1, &own);
    assert_eq!(second.closed_without_ping(), (4001, "replaced".to_owned()));
    assert_eq!(hub.metric_becomes("peerpigeon_takeovers_total{outcome=\"owner\"}", |n| n > 1.0), 2.0);
    let answer = ask(&hub, &format!("/ws?peerId={}&token={own}", id(2)), "");
    assert!(answer.starts_with("http/1.1 403"), "{answer}");
    assert_eq!(refusals(&hub, "subject"), 1.0);
    // If the request contains no id, the hub derives the id from the token.
    let alice = token(&json!({ "sub": "alice" }));
    let stream = TcpStream::connect(hub.address).unwrap();
    let mut client = Client::open_by(stream, &format!("/ws?token={alice}"), 0, b"");
    assert_eq!(client.hear()["data"]["peerId"], "d03bb2d9f9efc0c8cee9aeafca32f12cf13fa657");
}

#[test]
fn a_token_can_be_renewed_and_its_expiry_closes_the_session() {
    let hub = Hub::start(&[("JWT_SECRET", SECRET)]);
    let mut client = connect(&hub, 1, &token(&json!({ "sub": id(1), "exp": now() + 6 })));
    let warned = client.hear();
    assert_eq!(warned["type"], "token-expires");
    assert!(warned["data"]["expiresInMs"].as_u64().is_some_and(|ms| ms <= 3_000), "{warned}");
    for (bad, why) in [
        (token(&json!({ "sub": id(2), "exp": now() + 60 })), "another peer id"),
        (token(&json!({ "sub": id(1), "exp": now() - 1 })), "expired"),
    ] {
        client.say(&format!(r#"{{"type":"auth","data":{{"token":"{bad}"}}}}"#));
        let refused = client.hear();
        assert_eq!((&refused["data"]["code"], &refused["data"]["inReplyTo"]), (&json!("unauthorized"), &json!("auth")));
        assert!(refused["data"]["message"].as_str().is_some_and(|message| message.contains(why)), "{refused}");
    }
    client.say(&format!(
        r#"{{"type":"auth","data":{{"token":"{}"}}}}"#,
        token(&json!({ "sub": id(1), "exp": now() + 2 }))
    ));
    assert_eq!(client.hear()["type"], "authorized");
    assert_eq!(client.hear()["type"], "token-expires");
    assert_eq!(client.closed(), (4012, "token expired".to_owned()));
    assert_eq!(hub.metric_becomes("peerpigeon_closes_total{reason=\"token-expired\"}", |n| n > 0.0), 1.0);
}

#[test]
fn a_new_token_with_fewer_rights_ends_memberships() {
    let hub = Hub::start(&[("JWT_SECRET", SECRET)]);
    let mut client = connect(&hub, 1, &token(&json!({ "networks": ["n", "m"] })));
    let mut other = connect(&hub, 2, &token(&json!({})));
    client.announce("n");
    client.announce("m");
    other.announce("n");
    other.hear_type("peer-discovered");
    client.hear_type("peer-discovered");
    let less = token(&json!({ "networks": ["m"] }));
    client.say(&format!(r#"{{"type":"auth","data":{{"token":"{less}"}}}}"#));
    assert_eq!(client.hear()["type"], "authorized");
    let told = client.hear();
    assert_eq!((&told["data"]["code"], &told["networkName"]), (&json!("forbidden"), &json!("n")), "{told}");
    assert_eq!(other.hear()["type"], "goodbye");
    client.announce("n");
    assert_eq!(client.hear()["data"]["inReplyTo"], "announce");
    other.hears_nothing();
}

/// Rights apply in the whole mesh. Peers at other hubs do not discover an observer either, and cannot send it a signal.
#[test]
fn an_observer_is_invisible_at_every_hub() {
    let hubs = mesh(2, &[("JWT_SECRET", SECRET), ("MESH_TOKEN", "mesh")]);
    let mut observer = connect(&hubs[0], 1, &member("n", &["observe"]));
    observer.announce("n");
    let mut here = connect(&hubs[0], 2, &member("n", &["join", "signal"]));
    let mut there = connect(&hubs[1], 3, &member("n", &["join", "signal"]));
    here.announce("n");
    assert_eq!(observer.hear_type("peer-discovered")["data"]["peerId"], id(2).as_str());
    there.announce("n");
    assert_eq!(observer.hear_type("peer-discovered")["data"]["peerId"], id(3).as_str());
    for (client, other) in [(&mut here, id(3)), (&mut there, id(2))] {
        assert_eq!(client.hear_type("peer-discovered")["data"]["peerId"], other.as_str());
        client.offer(&id(1), "n", "1", "");
        let refused = client.hear_type("error");
        assert!(["wrong-network", "peer-not-found"].contains(&refused["data"]["code"].as_str().unwrap()), "{refused}");
    }
    drop(observer);
    there.say(r#"{"type":"goodbye"}"#);
    assert_eq!(here.hear()["type"], "goodbye");
    here.hears_nothing();
    there.hears_nothing();
}

#[test]
fn a_changed_secret_is_read_on_sighup() {
    let authority = Authority::new();
    let file = authority.issue("secret", 1).key;
    std::fs::write(&file, SECRET).unwrap();
    let hub = Hub::start(&[("JWT_SECRET", &format!("file:{file}"))]);
    let _client = connect(&hub, 1, &token(&json!({})));
    let new = "a-second-secret-with-more-than-32";
    std::fs::write(&file, new).unwrap();
    hub.signal("-HUP");
    hub.logged("token_keys_read");
    let _client = connect(&hub, 2, &signed_by(new, &json!({})));
    let answer = ask(&hub, &format!("/ws?peerId={}&token={}", id(3), token(&json!({}))), "");
    assert!(answer.starts_with("http/1.1 401"), "{answer}");
    // If the file is invalid, the hub keeps its keys.
    std::fs::write(&file, "short").unwrap();
    hub.signal("-HUP");
    let line = hub.logged("token_keys_refused");
    assert!(line.contains("too short") && !line.contains("\"short\""), "{line}");
    let _client = connect(&hub, 4, &signed_by(new, &json!({})));
}

/// An identity provider, which publishes keys at a URL and signs tokens.
struct Provider {
    _authority: Authority,
    certificate: Certificate,
    port: u16,
    set: tokio::sync::watch::Sender<String>,
    asked: Arc<AtomicUsize>,
    keys: Vec<(String, rcgen::KeyPair)>,
}

impl Provider {
    fn start() -> Self {
        let authority = Authority::new();
        let certificate = authority.issue("provider", 1);
        let chain = CertificateDer::pem_file_iter(&certificate.certificate).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&certificate.key).unwrap();
        let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
        let config = ServerConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions();
        let config = Arc::new(config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (set, asked) = (tokio::sync::watch::Sender::new(String::new()), Arc::new(AtomicUsize::new(0)));
        let (published, counted) = (set.subscribe(), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or_default() > 0 {
                    head.push(byte[0]);
                }
                counted.fetch_add(1, Ordering::Relaxed);
                let body = published.borrow().clone();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                _ = stream.write_all(answer.as_bytes());
                stream.conn.send_close_notify();
                _ = stream.flush();
            }
        });
        Self { _authority: authority, certificate, port, set, asked, keys: Vec::new() }
    }

    /// Makes a new key.
    fn rotate(&mut self, kid: &str) {
        self.keys.push((kid.to_owned(), rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()));
    }

    /// Publishes all keys.
    fn publish(&self) {
        use base64::Engine;
        let encoded = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let keys = self.keys.iter().map(|(kid, key)| {
            let point = key.public_key_raw();
            let (x, y) = (encoded(&point[1..33]), encoded(&point[33..65]));
            json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": x, "y": y})
        });
        self.set.send_replace(json!({ "keys": keys.collect::<Vec<_>>() }).to_string());
    }

    fn token(&self, kid: &str) -> String {
        let (_, key) = self.keys.iter().find(|(known, _)| known == kid).unwrap();
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
        let claims = json!({
            "iss": "https://id.example", "aud": ["hub"], "sub": "auth0|7", "iat": now(), "exp": now() + 60, "azp": "app",
        });
        encode(&header, &claims, &EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).unwrap()).unwrap()
    }
}

#[test]
fn keys_of_an_identity_provider_are_replaced_when_it_signs_with_new_ones() {
    let mut provider = Provider::start();
    provider.rotate("first");
    provider.publish();
    let hub = Hub::start(&[
        ("JWT_JWKS", &format!("https://localhost:{}/keys", provider.port)),
        ("JWT_CA", &provider.certificate.authority_file),
        ("JWT_AUDIENCE", "hub"),
        ("JWT_ISSUER", "https://id.example"),
    ]);
    let answer = |token: &str| ask(&hub, &format!("/ws?token={token}"), "");
    let accepts = |token: &str| answer(token).starts_with("http/1.1 101");
    assert!(accepts(&provider.token("first")), "the hub must check the token after it has loaded the first keys");
    provider.rotate("second");
    let second = provider.token("second");
    assert!(answer(&second).starts_with("http/1.1 401"), "{}", answer(&second));
    provider.publish();
    let before = provider.asked.load(Ordering::Relaxed);
    eventually("the new key is known", || accepts(&second));
    // All tokens with unknown keys together caused at most one request to the provider.
    let asked = provider.asked.load(Ordering::Relaxed) - before;
    assert!(asked <= 1, "{asked} requests");
    assert!(accepts(&provider.token("first")), "the old key must stay valid beside the new one");
    assert!(refusals(&hub, "unknown-key") >= 1.0);
    // If the provider publishes no valid keys, the hub keeps its keys.
    provider.set.send_replace("{}".to_owned());
    hub.signal("-HUP");
    hub.logged("token_keys_refused");
    assert!(accepts(&second));
    assert!(hub.metric_becomes("peerpigeon_token_key_loads_total{outcome=\"refused\"}", |n| n > 0.0) >= 1.0);
}
