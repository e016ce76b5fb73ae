use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use proto::limits::MAX_TOKEN_KEYS;
use serde_json::Value;
use shard::{TokenKey, TokenRules, Tokens};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
/// The time of the check, in seconds since 1970.
const NOW: u64 = 1_800_000_000;

/// A text without the signature of a known key must be refused. A signed token may be accepted only if the rules allow
/// its claims, and must be refused after one of its characters is changed. A set of keys must be refused, or must yield
/// at most [`MAX_TOKEN_KEYS`] keys.
///
/// The first byte selects whether the other bytes are a token, claims to be signed, a set of keys, or keys in PEM.
pub fn jwt(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match how % 4 {
        0 => assert!(check(&tokens(true), &text).is_none(), "accepted: {text}"),
        1 => claims(rest, how & 4 != 0),
        2 => assert!(TokenKey::all_of_jwks(rest).map_or(0, |keys| keys.len()) <= MAX_TOKEN_KEYS),
        _ => assert!(TokenKey::all_of_pem(&text).map_or(0, |keys| keys.len()) <= MAX_TOKEN_KEYS),
    }
}

/// If `is_strict`, tokens must have an audience and an issuer.
fn tokens(is_strict: bool) -> Tokens {
    let names = |name: &str| if is_strict { vec![name.to_owned()] } else { Vec::new() };
    let rules = TokenRules { audiences: names("a"), issuers: names("i") };
    Tokens::new(rules, vec![TokenKey::of_secret(SECRET).expect("the secret is long enough")])
}

/// Returns `None` if the token is refused. For an accepted token, returns the time at which it expires, if it expires.
fn check(tokens: &Tokens, token: &str) -> Option<Option<u64>> {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    tokens.check(token, at).ok().map(|allowed| allowed.grant.expires_ms())
}

fn claims(claims: &[u8], is_strict: bool) {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", part(br#"{"alg":"HS256"}"#), part(claims));
    let key = EncodingKey::from_secret(SECRET).expect("the secret is long enough");
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("an HMAC");
    let token = format!("{message}.{signature}");
    let tokens = tokens(is_strict);
    let Some(end) = check(&tokens, &token) else { return };
    assert!(end.is_none_or(|end| end > NOW * 1_000), "the token was accepted after its expiry");
    // Claims that the hub does not read may contain a single surrogate, which `Value` refuses.
    let Ok(value) = serde_json::from_slice::<Value>(claims) else { return };
    assert_eq!(value["exp"].is_number(), end.is_some(), "the expiry of {value}");
    let has = |claim: &Value, name: &str| {
        claim == name || claim.as_array().is_some_and(|names| names.iter().any(|each| each == name))
    };
    if is_strict {
        assert!(has(&value["aud"], "a") && value["iss"] == "i", "accepted: {value}");
    } else {
        assert!(value["aud"].is_null(), "accepted: {value}");
    }
    let mut changed = token.into_bytes();
    let at = claims.iter().map(|byte| usize::from(*byte)).sum::<usize>() % changed.len();
    // Some bits of the last character of a part have no meaning, so a change of this character may have no effect.
    let is_last = changed.get(at + 1).is_none_or(|next| *next == b'.');
    changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).expect("ASCII");
    assert!(
        is_last || check(&tokens, &changed).is_none(),
        "the token was accepted with a change at byte {at}: {changed}"
    );
}
