//! STUN and TURN servers for clients, and time-limited credentials for TURN.
//!
//! A credential has the form that coturn's `use-auth-secret` expects. The user name is `expiry:peer`, which are the
//! Unix time of the expiry in seconds and the id of the peer. The password is the HMAC-SHA1 of the user name with the
//! secret that hub and TURN server share, in base64. So the TURN server needs no list of users, and its log names the
//! peer.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use sha1::Sha1;

use crate::id::PeerId;

/// The servers that a hub sends to its clients. All shards share one value.
pub struct IceServers {
    /// The elements of a JSON array of `RTCIceServer`, with commas between them.
    fixed: Box<str>,
    turn: Option<Turn>,
}

/// TURN servers that share secrets with the hub.
pub struct Turn {
    /// URLs of the servers, as a JSON array of strings.
    pub urls: Box<str>,
    /// The secrets. Clients get one credential for each secret, so that both the old and the new secret work while an
    /// operator replaces a secret.
    pub secrets: Vec<Box<str>>,
    /// Validity of a credential.
    pub ttl: Duration,
}

impl fmt::Debug for IceServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Shows neither the secrets nor the credentials in ICE_SERVERS.
        let turn = self.turn.as_ref().map(|turn| (&turn.urls, turn.ttl));
        f.debug_struct("IceServers").field("turn", &turn).finish_non_exhaustive()
    }
}

impl IceServers {
    /// `fixed` are the elements of a valid JSON array, without its brackets.
    pub fn new(fixed: &str, turn: Option<Turn>) -> Self {
        Self { fixed: fixed.into(), turn }
    }

    /// Time after which a client gets new credentials: three quarters of the credentials' validity. `None` without
    /// TURN.
    pub fn renewal(&self) -> Option<Duration> {
        self.turn.as_ref().map(|turn| turn.ttl * 3 / 4)
    }

    /// Validity of the credentials. `None` without TURN.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        self.turn.as_ref().map(|turn| turn.ttl)
    }

    /// Appends the servers for a peer, as a JSON array.
    pub(crate) fn put(&self, out: &mut Vec<u8>, peer: &PeerId, wall_ms: u64) {
        out.push(b'[');
        out.extend_from_slice(self.fixed.as_bytes());
        if let Some(turn) = &self.turn {
            let user = format!("{}:{peer}", wall_ms / 1000 + turn.ttl.as_secs());
            for secret in &turn.secrets {
                if out.last() != Some(&b'[') {
                    out.push(b',');
                }
                let password = password(secret, &user);
                // Neither the user name nor the password has a character that JSON escapes.
                let server = format!(r#"{{"urls":{},"username":"{user}","credential":"{password}"}}"#, turn.urls);
                out.extend_from_slice(server.as_bytes());
            }
        }
        out.push(b']');
    }
}

fn password(secret: &str, user: &str) -> String {
    // HMAC accepts a key of any length, so this never fails.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(user.as_bytes());
    BASE64.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(servers: &IceServers, at_ms: u64) -> String {
        let mut out = Vec::new();
        servers.put(&mut out, &PeerId::from_bytes([0xab; 20]), at_ms);
        String::from_utf8(out).unwrap()
    }

    fn turn(secrets: &[&str]) -> Option<Turn> {
        let secrets = secrets.iter().map(|&secret| secret.into()).collect();
        Some(Turn { urls: r#"["turn:t.example"]"#.into(), secrets, ttl: Duration::from_secs(3600) })
    }

    /// `printf %s 1700003600:abab… | openssl dgst -sha1 -hmac secret -binary | base64`
    #[test]
    fn credentials_have_the_form_that_coturn_expects() {
        let user = format!("1700003600:{}", "ab".repeat(20));
        assert_eq!(password("secret", &user), "XKMFn5NvyGDZWMvdEH4BNsD98wY=");
        let servers = IceServers::new("", turn(&["secret"]));
        let expected = format!(
            r#"[{{"urls":["turn:t.example"],"username":"{user}","credential":"XKMFn5NvyGDZWMvdEH4BNsD98wY="}}]"#
        );
        assert_eq!(put(&servers, 1_700_000_000_999), expected);
        assert_eq!(servers.renewal(), Some(Duration::from_secs(2700)));
    }

    #[test]
    fn each_secret_adds_a_credential_after_the_fixed_servers() {
        let fixed = r#"{"urls":"stun:s.example"}"#;
        assert_eq!(put(&IceServers::new(fixed, None), 0), format!("[{fixed}]"));
        let both: serde_json::Value =
            serde_json::from_str(&put(&IceServers::new(fixed, turn(&["new", "old"])), 0)).unwrap();
        let credentials = |at: usize| both[at]["credential"].as_str().unwrap();
        assert_eq!((both.as_array().unwrap().len(), &both[0]["urls"]), (3, &"stun:s.example".into()));
        assert_ne!(credentials(1), credentials(2));
        assert_eq!(both[1]["username"], both[2]["username"]);
    }

    #[test]
    fn debug_output_has_no_secret() {
        let servers = IceServers::new(r#"{"urls":"turn:t","credential":"hidden"}"#, turn(&["hidden"]));
        assert!(!format!("{servers:?}").contains("hidden"), "{servers:?}");
    }
}
