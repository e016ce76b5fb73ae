//! The cookie of an operator who has logged in with a browser.
//!
//! The value of the cookie is the time at which the cookie expires, with an HMAC. The key is random and new at each
//! start of the hub. The key is not derived from the token, so nobody can use a cookie to guess the token. The HMAC
//! also covers the number of logouts so far, so a logout invalidates all cookies, including copies that somebody else
//! has made.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, Mac};
use hyper::header::{COOKIE, HeaderMap, HeaderValue};
use proto::is_secret;
use proto::limits::LOGIN_TIME;
use sha2::Sha256;

/// The name of the cookie.
const NAME: &str = "peerpigeon_admin";

/// Makes and checks cookies.
pub(super) struct Cookies {
    key: [u8; 32],
    /// Number of logouts.
    ended: AtomicU64,
}

impl Cookies {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key, ended: AtomicU64::new(0) }
    }

    /// Makes all existing cookies invalid.
    pub(super) fn end_all(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// The `Set-Cookie` header of a login at `now`. `secure` keeps browsers from sending the cookie without TLS.
    pub(super) fn set(&self, now: SystemTime, secure: bool) -> Option<HeaderValue> {
        let expires = seconds(now) + LOGIN_TIME.as_secs();
        let value = format!("{expires}.{}", self.tag(expires));
        header(&value, LOGIN_TIME, secure)
    }

    /// The header that removes the cookie.
    pub(super) fn clear(secure: bool) -> Option<HeaderValue> {
        header("", Duration::ZERO, secure)
    }

    /// Whether a request carries a valid cookie.
    pub(super) fn are_in(&self, headers: &HeaderMap, now: SystemTime) -> bool {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let values = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|cookie| {
            let (name, value) = cookie.trim().split_once('=')?;
            (name == NAME).then_some(value)
        });
        values.into_iter().any(|value| self.is_valid(value, now))
    }

    fn is_valid(&self, value: &str, now: SystemTime) -> bool {
        let Some((expires, tag)) = value.split_once('.') else { return false };
        let Ok(expires) = expires.parse::<u64>() else { return false };
        is_secret(tag.as_bytes(), self.tag(expires).as_bytes()) && seconds(now) < expires
    }

    /// The HMAC of an expiry, in hexadecimal digits.
    fn tag(&self, expires: u64) -> String {
        use std::fmt::Write as _;
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return String::new() };
        mac.update(b"peerpigeon admin cookie");
        mac.update(&expires.to_be_bytes());
        mac.update(&self.ended.load(Ordering::Relaxed).to_be_bytes());
        mac.finalize().into_bytes().iter().fold(String::with_capacity(64), |mut text, byte| {
            _ = write!(text, "{byte:02x}");
            text
        })
    }
}

fn header(value: &str, max_age: Duration, secure: bool) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    let max_age = max_age.as_secs();
    HeaderValue::try_from(format!("{NAME}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Strict{secure}")).ok()
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    /// The headers of a request with this cookie.
    fn headers(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(cookie).unwrap())])
    }

    /// `name=value` of a `Set-Cookie` header.
    fn pair(set: &HeaderValue) -> &str {
        set.to_str().unwrap().split(';').next().unwrap()
    }

    #[test]
    fn a_cookie_is_valid_until_it_expires() {
        let cookies = Cookies::new([7; 32]);
        let set = cookies.set(now(), false).unwrap();
        let sent = headers(&format!("a=b; {}; c=d", pair(&set)));
        assert!(cookies.are_in(&sent, now()));
        assert!(cookies.are_in(&sent, now() + LOGIN_TIME - Duration::from_secs(1)));
        assert!(!cookies.are_in(&sent, now() + LOGIN_TIME));
        assert!(!Cookies::new([8; 32]).are_in(&sent, now()), "a cookie of another hub is invalid");
    }

    #[test]
    fn a_logout_ends_all_cookies() {
        let cookies = Cookies::new([7; 32]);
        let [one, other] = [0, 1].map(|secs| cookies.set(now() + Duration::from_secs(secs), false).unwrap());
        cookies.end_all();
        for set in [&one, &other] {
            assert!(!cookies.are_in(&headers(pair(set)), now()));
        }
        let again = cookies.set(now(), false).unwrap();
        assert!(cookies.are_in(&headers(pair(&again)), now()) && pair(&again) != pair(&one));
    }

    #[test]
    fn no_part_of_a_cookie_can_be_changed() {
        let cookies = Cookies::new([7; 32]);
        let set = cookies.set(now(), false).unwrap();
        let pair = pair(&set);
        let (start, tag) = pair.split_once('.').unwrap();
        let later = start.replace("18000", "19000");
        assert_ne!(later, start);
        let wrong = [
            format!("{later}.{tag}"),
            format!("{start}."),
            format!("{start}.{}", &tag[..63]),
            format!("{start}.{}", "0".repeat(64)),
            start.to_owned(),
            format!("{NAME}="),
            format!("{NAME}=.{tag}"),
            format!("x{pair}"),
        ];
        assert!(cookies.are_in(&headers(pair), now()));
        for wrong in wrong {
            assert!(!cookies.are_in(&headers(&wrong), now()), "{wrong}");
        }
    }

    #[test]
    fn scripts_other_sites_and_plain_http_do_not_get_the_cookie() {
        let cookies = Cookies::new([7; 32]);
        let set = |secure| cookies.set(now(), secure).unwrap().to_str().unwrap().to_owned();
        for attribute in ["; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age="] {
            assert!(set(false).contains(attribute) && set(true).contains(attribute), "{attribute}");
        }
        assert!(set(true).ends_with("; Secure") && !set(false).contains("Secure"));
        assert!(Cookies::clear(true).unwrap().to_str().unwrap().contains("Max-Age=0;"));
    }
}
