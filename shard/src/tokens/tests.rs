//! Tests of the keys of each algorithm, of the confusion of two algorithms, and of the claims of tokens.

use jsonwebtoken::{EncodingKey, encode, get_current_timestamp};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

use super::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A pair of keys, in PEM.
struct Pair {
    algorithm: Algorithm,
    private: EncodingKey,
    public: String,
    jwk: Value,
}

fn encoded(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn pairs() -> Vec<Pair> {
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let ec = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let jwk = |kind: Value, kid: &str| {
        let mut jwk = kind;
        jwk["kid"] = json!(kid);
        jwk["use"] = json!("sig");
        jwk
    };
    let point = ec.public_key_raw();
    let ed_jwk = jwk(json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(ed.public_key_raw())}), "ed");
    let (x, y) = (encoded(&point[1..33]), encoded(&point[33..65]));
    let ec_jwk = jwk(json!({"kty": "EC", "crv": "P-256", "x": x, "y": y}), "ec");
    // RSAPublicKey of 2048 bits and the exponent 65537 (RFC 8017, A.1.1).
    let rsa_jwk = jwk(json!({"kty": "RSA", "n": encoded(&rsa.public_key_raw()[9..265]), "e": "AQAB"}), "rsa");
    vec![
        Pair {
            algorithm: Algorithm::EdDSA,
            private: EncodingKey::from_ed_pem(ed.serialize_pem().as_bytes()).unwrap(),
            public: ed.public_key_pem(),
            jwk: ed_jwk,
        },
        Pair {
            algorithm: Algorithm::ES256,
            private: EncodingKey::from_ec_pem(ec.serialize_pem().as_bytes()).unwrap(),
            public: ec.public_key_pem(),
            jwk: ec_jwk,
        },
        Pair {
            algorithm: Algorithm::RS256,
            private: EncodingKey::from_rsa_pem(rsa.serialize_pem().as_bytes()).unwrap(),
            public: rsa.public_key_pem(),
            jwk: rsa_jwk,
        },
    ]
}

fn header(algorithm: Algorithm, kid: Option<&str>) -> jsonwebtoken::Header {
    jsonwebtoken::Header { kid: kid.map(str::to_owned), ..jsonwebtoken::Header::new(algorithm) }
}

fn hmac(claims: &Value) -> String {
    encode(&header(Algorithm::HS256, None), claims, &EncodingKey::from_secret(SECRET).unwrap()).unwrap()
}

fn with_secret(rules: TokenRules) -> Tokens {
    Tokens::new(rules, vec![TokenKey::of_secret(SECRET).unwrap()])
}

impl Tokens {
    fn now(&self, token: &str) -> Result<Allowed, TokenRefusal> {
        self.check(token, SystemTime::now())
    }

    fn refusal(&self, token: &str) -> Option<TokenRefusal> {
        self.now(token).err()
    }
}

/// A token with this header and this signature, which may be wrong or empty.
fn raw(header: &Value, claims: &Value, signature: &str) -> String {
    format!("{}.{}.{signature}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()))
}

#[test]
fn each_algorithm_is_accepted_with_its_key_and_no_other() {
    let pairs = pairs();
    for Pair { algorithm, private, public, .. } in &pairs {
        let tokens = Tokens::new(TokenRules::default(), TokenKey::all_of_pem(public).unwrap());
        let token = encode(&header(*algorithm, Some("any")), &json!({}), private).unwrap();
        assert_eq!(tokens.now(&token).unwrap().grant, Grant::everywhere(), "{algorithm:?}");
        for other in pairs.iter().filter(|other| other.algorithm != *algorithm) {
            let token = encode(&header(other.algorithm, None), &json!({}), &other.private).unwrap();
            assert_eq!(
                tokens.refusal(&token),
                Some(TokenRefusal::Algorithm),
                "{:?} for {algorithm:?}",
                other.algorithm
            );
        }
    }
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let key = EncodingKey::from_secret(SECRET).unwrap();
        let token = encode(&header(algorithm, None), &json!({}), &key).unwrap();
        assert!(with_secret(TokenRules::default()).now(&token).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn a_public_key_is_never_the_secret_of_an_hmac() {
    for Pair { public, jwk, .. } in pairs() {
        let by_pem = Tokens::new(TokenRules::default(), TokenKey::all_of_pem(&public).unwrap());
        let set = json!({ "keys": [jwk] }).to_string();
        let by_set = Tokens::new(TokenRules::default(), TokenKey::all_of_jwks(set.as_bytes()).unwrap());
        by_set.keep(Some(Instant::now()));
        let kid = jwk["kid"].as_str();
        let x = jwk["x"].as_str().unwrap_or_default();
        for secret in [public.as_bytes(), public.trim().as_bytes(), x.as_bytes(), set.as_bytes()] {
            let Ok(key) = EncodingKey::from_secret(secret) else { continue };
            for kid in [None, kid] {
                let token = encode(&header(Algorithm::HS256, kid), &json!({}), &key).unwrap();
                for tokens in [&by_pem, &by_set] {
                    assert_eq!(tokens.refusal(&token), Some(TokenRefusal::Algorithm));
                }
            }
        }
    }
}

#[test]
fn tokens_without_a_signature_or_of_other_algorithms_are_refused() {
    let tokens = with_secret(TokenRules::default());
    for algorithm in ["none", "None", "NONE", "", "HS1", "RS512", "PS256", "ES384", "hs256"] {
        for signature in ["", "AAAA"] {
            let token = raw(&json!({ "alg": algorithm }), &json!({}), signature);
            assert_eq!(tokens.refusal(&token), Some(TokenRefusal::Algorithm), "{algorithm}");
        }
    }
    let crit = raw(&json!({ "alg": "HS256", "crit": ["b64"], "b64": false }), &json!({}), "AAAA");
    assert_eq!(tokens.refusal(&crit), Some(TokenRefusal::Algorithm));
    for signature in ["", "AAAA", "*"] {
        let token = raw(&json!({ "alg": "HS256" }), &json!({}), signature);
        assert_eq!(tokens.refusal(&token), Some(TokenRefusal::Signature), "{signature}");
    }
}

#[test]
fn changed_and_cut_tokens_are_refused() {
    let tokens = with_secret(TokenRules::default());
    let token = hmac(&json!({ "sub": "a".repeat(40) }));
    assert!(tokens.now(&token).is_ok());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (head, _) = message.split_once('.').unwrap();
    let other = encoded(json!({ "sub": "b".repeat(40) }).to_string().as_bytes());
    assert_eq!(tokens.refusal(&format!("{head}.{other}.{signature}")), Some(TokenRefusal::Signature));
    for wrong in ["", ".", "..", "a.b", message, &format!("{token}.x"), &format!(" {token}"), &"x".repeat(9000)] {
        assert_eq!(tokens.refusal(wrong), Some(TokenRefusal::Malformed), "{wrong}");
    }
    let long = hmac(&json!({ "x": "y".repeat(MAX_TOKEN_BYTES) }));
    assert_eq!(tokens.refusal(&long), Some(TokenRefusal::Malformed));
}

#[test]
fn two_secrets_are_valid_at_once() {
    let other = b"another secret of 32 characters!!";
    let keys = [SECRET, other].map(|secret| TokenKey::of_secret(secret).unwrap());
    let tokens = Tokens::new(TokenRules::default(), keys.to_vec());
    for secret in [SECRET, other] {
        let key = EncodingKey::from_secret(secret).unwrap();
        assert!(tokens.now(&encode(&header(Algorithm::HS256, None), &json!({}), &key).unwrap()).is_ok());
    }
    let [_, new] = keys;
    tokens.replace(vec![new], None);
    assert_eq!(tokens.refusal(&hmac(&json!({}))), Some(TokenRefusal::Signature));
    assert!(TokenKey::of_secret(&SECRET[1..]).is_err());
}

#[test]
fn a_set_of_keys_finds_the_key_by_its_name() {
    let pairs = pairs();
    let mut all: Vec<Value> = pairs.iter().map(|pair| pair.jwk.clone()).collect();
    all.push(json!({"kty": "oct", "k": encoded(SECRET), "kid": "secret"}));
    all.push(json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA", "kid": "other"}));
    all.push(json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "short"}));
    all.push(json!({"no": "key"}));
    let set = json!({ "keys": all }).to_string();
    let keys = TokenKey::all_of_jwks(set.as_bytes()).unwrap();
    assert_eq!(keys.len(), 3);
    let tokens = Tokens::new(TokenRules::default(), keys);
    for pair in &pairs {
        let token = |kid| encode(&header(pair.algorithm, kid), &json!({}), &pair.private).unwrap();
        assert!(tokens.now(&token(pair.jwk["kid"].as_str())).is_ok() && tokens.now(&token(None)).is_ok());
        assert_eq!(tokens.refusal(&token(Some("new"))), Some(TokenRefusal::UnknownKey));
    }
    let secret =
        encode(&header(Algorithm::HS256, Some("secret")), &json!({}), &EncodingKey::from_secret(SECRET).unwrap());
    assert_eq!(tokens.refusal(&secret.unwrap()), Some(TokenRefusal::Algorithm));
    for wrong in ["", "{}", "[]", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#] {
        assert!(TokenKey::all_of_jwks(wrong.as_bytes()).is_err(), "{wrong}");
    }
    let many = json!({ "keys": vec![pairs[0].jwk.clone(); proto::limits::MAX_TOKEN_KEYS + 1] }).to_string();
    assert!(TokenKey::all_of_jwks(many.as_bytes()).is_err());
    assert!(TokenKey::all_of_jwks(&vec![b' '; proto::limits::MAX_JWKS_BYTES + 1]).is_err());
}

#[test]
fn keys_of_a_set_for_other_purposes_are_left_out() {
    let mut key = pairs().remove(1).jwk;
    for (field, value) in [("use", json!("enc")), ("key_ops", json!(["encrypt"])), ("alg", json!("ES384"))] {
        let before = std::mem::replace(&mut key[field], value);
        assert!(TokenKey::all_of_jwks(json!({ "keys": [key] }).to_string().as_bytes()).is_err(), "{field}");
        key[field] = before;
        if key[field].is_null() {
            key.as_object_mut().unwrap().remove(field);
        }
    }
    key["alg"] = json!("ES256");
    assert!(TokenKey::all_of_jwks(json!({ "keys": [key] }).to_string().as_bytes()).is_ok());
}

#[test]
fn only_public_keys_of_the_algorithms_are_taken_from_pem() {
    let ec = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let two = ec.public_key_pem() + &KeyPair::generate_for(&PKCS_ED25519).unwrap().public_key_pem();
    assert_eq!(TokenKey::all_of_pem(&two).unwrap().len(), 2);
    let private = ec.serialize_pem();
    let large = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap().public_key_pem();
    for wrong in ["", "x", &private, &large, "-----BEGIN PUBLIC KEY-----", &ec.public_key_pem().replace("M", "*")] {
        assert!(TokenKey::all_of_pem(wrong).is_err(), "{wrong}");
    }
    let many = ec.public_key_pem().repeat(proto::limits::MAX_TOKEN_KEYS + 1);
    assert!(TokenKey::all_of_pem(&many).is_err());
}

#[test]
fn times_audiences_and_issuers_are_checked() {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let rules = TokenRules { audiences: names(&["hub", "other"]), issuers: names(&["idp"]) };
    let (strict, open) = (with_secret(rules), with_secret(TokenRules::default()));
    let now = get_current_timestamp();
    let good = json!({ "aud": ["x", "other"], "iss": "idp", "exp": now + 60, "nbf": now - 60 });
    assert_eq!(strict.now(&hmac(&good)).unwrap().grant.expires_ms(), Some((now + 60) * 1000));
    for (field, value, refusal) in [
        ("exp", json!(now), TokenRefusal::Expired),
        ("exp", json!(-1), TokenRefusal::Expired),
        ("exp", json!("tomorrow"), TokenRefusal::Claims),
        ("nbf", json!(now + 90), TokenRefusal::NotYetValid),
        ("aud", json!("x"), TokenRefusal::Audience),
        ("aud", json!([]), TokenRefusal::Audience),
        ("aud", Value::Null, TokenRefusal::Audience),
        ("iss", json!("idp2"), TokenRefusal::Issuer),
        ("iss", Value::Null, TokenRefusal::Issuer),
    ] {
        let mut claims = good.clone();
        claims[field] = value;
        assert_eq!(strict.refusal(&hmac(&claims)), Some(refusal), "{claims}");
    }
    // The clock of the issuer may be a little ahead.
    assert!(open.now(&hmac(&json!({ "nbf": now + 20, "exp": now as f64 + 0.9 + 60.0 }))).is_ok());
    assert_eq!(
        open.refusal(&hmac(&json!({ "aud": "hub" }))),
        Some(TokenRefusal::Audience),
        "the token is for another program"
    );
    let twice = format!(r#"{{"exp":1,"exp":{}}}"#, now + 60);
    let message = format!("{}.{}", encoded(br#"{"alg":"HS256"}"#), encoded(twice.as_bytes()));
    let key = EncodingKey::from_secret(SECRET).unwrap();
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    assert_eq!(open.refusal(&format!("{message}.{signature}")), Some(TokenRefusal::Claims));
}

#[test]
fn a_subject_is_a_peer_id_or_a_name_from_which_an_id_is_derived() {
    let tokens = with_secret(TokenRules::default());
    let peer = |claims| tokens.now(&hmac(&claims)).unwrap().peer;
    assert_eq!(peer(json!({})), None);
    assert_eq!(peer(json!({ "sub": "AB".repeat(20) })), Some(PeerId::from_bytes([0xab; 20])));
    assert_eq!(peer(json!({ "sub": "auth0|7" })), Some(PeerId::of_subject("auth0|7")));
    assert_eq!(PeerId::of_subject("alice").to_string(), "d03bb2d9f9efc0c8cee9aeafca32f12cf13fa657");
}

#[test]
fn networks_and_class_become_a_grant() {
    let tokens = with_secret(TokenRules::default());
    let claims = json!({
        "networks": ["lobby", { "name": "room-*", "rights": ["observe"] }, { "name": "x" }, { "name": "y", "rights": [] }],
        "class": "gold",
    });
    let grant = tokens.now(&hmac(&claims)).unwrap().grant;
    assert_eq!(grant.to_string(), "lobby=join,signal room-*=observe x=join,signal y=");
    assert_eq!(grant.class(), Some("gold"));
    for wrong in [
        json!({ "networks": "n" }),
        json!({ "networks": [7] }),
        json!({ "networks": [{ "name": "n", "rights": ["jump"] }] }),
        json!({ "networks": [{ "name": "n", "right": ["join"] }] }),
        json!({ "networks": vec!["n"; proto::limits::MAX_GRANT_RULES + 1] }),
        json!({ "class": "c".repeat(65) }),
        json!({ "class": 7 }),
        json!({ "sub": 7 }),
    ] {
        assert_eq!(tokens.refusal(&hmac(&wrong)), Some(TokenRefusal::Claims), "{wrong}");
    }
}

#[tokio::test]
async fn a_token_with_an_unknown_key_waits_for_keys_that_may_come_soon() {
    let pair = pairs().remove(0);
    let token = encode(&header(pair.algorithm, Some("ed")), &json!({}), &pair.private).unwrap();
    let tokens = Arc::new(Tokens::new(TokenRules::default(), Vec::new()));
    assert!(!tokens.wait_for_keys(&token).await, "the hub requests no keys");
    tokens.keep(Some(Instant::now() + 2 * JWKS_TIMEOUT));
    assert!(!tokens.wait_for_keys(&token).await, "keys cannot be requested soon");
    tokens.keep(Some(Instant::now()));
    let waiting = Arc::clone(&tokens);
    let loads = async {
        waiting.wanted().await;
        let set = json!({ "keys": [pair.jwk] }).to_string();
        waiting.replace(TokenKey::all_of_jwks(set.as_bytes()).unwrap(), Some(Instant::now()));
    };
    let (waited, ()) = tokio::join!(tokens.wait_for_keys(&token), loads);
    assert!(waited && tokens.now(&token).is_ok());
    assert!(!tokens.wait_for_keys(&token).await, "the token's key is known");
    let other = encode(&header(pair.algorithm, Some("new")), &json!({}), &pair.private).unwrap();
    let (waited, ()) = tokio::join!(tokens.wait_for_keys(&other), async {
        tokens.wanted().await;
        tokens.keep(Some(Instant::now()));
    });
    assert!(waited, "an attempt that failed ends the wait");
}
