//! The resume secret. A client that connects with its resume secret takes over its id immediately (docs/protocol.md,
//! "Resuming").
//!
//! A hub sends a secret with `connected` and does not store it. The secret is `root, session, tag`, in hexadecimal
//! digits. `root` and `session` are a [`Lineage`], and `tag` is an HMAC-SHA256 over the peer's id, `root` and
//! `session`. So every hub with the key can verify the secret.
//!
//! Two clients cannot replace each other in a loop. If both clients have the same root, the new client takes over
//! immediately only if its secret is not older than the replaced session. The new session is then later than the
//! replaced session. If the roots differ, the new client takes over immediately only if its root is older. In both
//! cases, the replaced client cannot use its own secret to replace the new session.

use std::fmt;
use std::time::Duration;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::id::{PeerId, PeerIncarnation, read_hex, write_hex};
use crate::limits::RESUME_PRECEDENCE;

/// A session and its lineage. A lineage is a series of sessions of one id. Every session of the series, except the
/// first, began with the secret of an earlier session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lineage {
    /// The first session, which identifies the lineage. If an id has two lineages, the older one has precedence.
    pub root: PeerIncarnation,
    /// The latest session.
    pub session: PeerIncarnation,
}

/// The right of a client with a valid secret to an id that another session holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// The client takes over the id immediately.
    AtOnce,
    /// The holder is a later session of the same lineage.
    Outdated,
    /// The holder's lineage is older.
    Younger,
    /// The holder's lineage is younger, but its session began [`RESUME_PRECEDENCE`] ago or earlier.
    Late,
    /// The holder has proven that the id is its own, and the client has not.
    Owned,
}

impl Lineage {
    /// Whether a client with the secret of this lineage may take over the id from the session `holder`. `age` is the
    /// time since the session of `holder` began.
    pub fn against(self, holder: Self, age: Duration) -> Right {
        use std::cmp::Ordering::{Equal, Greater, Less};
        match self.root.cmp(&holder.root) {
            Equal if self.session >= holder.session => Right::AtOnce,
            Equal => Right::Outdated,
            Less if age < RESUME_PRECEDENCE => Right::AtOnce,
            Less => Right::Late,
            Greater => Right::Younger,
        }
    }

    /// Whether a waiting client with this secret has precedence over a client with `other`, if both want the same id.
    pub fn outranks(self, other: Option<Self>) -> bool {
        other.is_none_or(|other| self.root < other.root || (self.root == other.root && self.session > other.session))
    }
}

/// The result of a resume secret that a client sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResumeOutcome {
    /// The client took over its id immediately.
    Resumed,
    /// No session had the id. The client continues its lineage.
    Continued,
    /// A later session of the lineage has the id, so the liveness check decided.
    Outdated,
    /// A session of an older lineage has the id, so the liveness check decided.
    Younger,
    /// A session of a younger lineage has had the id for too long, so the liveness check decided.
    Late,
    /// The session with the id has proven that the id is its own, so the liveness check decided.
    Owned,
    /// The secret belongs to another mesh or to another id. It was ignored.
    Foreign,
    /// The value is not [`Secret::HEX_LEN`] hexadecimal digits. It was ignored.
    Malformed,
}

impl ResumeOutcome {
    /// Every outcome, in the order of its discriminant.
    pub const ALL: [Self; 8] = [
        Self::Resumed,
        Self::Continued,
        Self::Outdated,
        Self::Younger,
        Self::Late,
        Self::Owned,
        Self::Foreign,
        Self::Malformed,
    ];

    /// The name in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Resumed => "resumed",
            Self::Continued => "continued",
            Self::Outdated => "outdated",
            Self::Younger => "younger",
            Self::Late => "late",
            Self::Owned => "owned",
            Self::Foreign => "foreign",
            Self::Malformed => "malformed",
        }
    }
}

impl From<Right> for ResumeOutcome {
    fn from(right: Right) -> Self {
        match right {
            Right::AtOnce => Self::Resumed,
            Right::Outdated => Self::Outdated,
            Right::Younger => Self::Younger,
            Right::Late => Self::Late,
            Right::Owned => Self::Owned,
        }
    }
}

const NUMBER: usize = size_of::<u64>();
const TAG: usize = 16;
const BYTES: usize = 2 * NUMBER + TAG;

/// A resume secret as its client receives it.
pub struct Secret([u8; BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Length of a secret in its written form, in bytes.
    pub const HEX_LEN: usize = 2 * BYTES;

    /// The written form: lower-case hexadecimal digits.
    pub fn to_hex(&self) -> [u8; Self::HEX_LEN] {
        let mut hex = [0; Self::HEX_LEN];
        write_hex(&mut hex, &self.0);
        hex
    }
}

/// The keys of resume secrets. Hubs with the same key accept each other's secrets.
#[derive(Clone)]
pub struct ResumeKeys {
    keyed: Hmac<Sha256>,
    also: Option<Hmac<Sha256>>,
}

impl fmt::Debug for ResumeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeKeys")
    }
}

impl ResumeKeys {
    /// Derives two keys. The key derived from `key` issues and checks secrets. The key derived from `also` checks
    /// secrets and issues none.
    ///
    /// Every client receives tags made with `key`, and can test guesses of `key` offline. Therefore `key` must be
    /// unguessable. `key` may also be used elsewhere, because the derived key is only for resume secrets of the mesh
    /// with this name.
    pub fn new(mesh: &str, key: &[u8], also: Option<&[u8]>) -> Self {
        let keyed = |key: &[u8]| {
            let mut derived = hmac(key);
            derived.update(b"peerpigeon resume secret 1\0");
            derived.update(mesh.as_bytes());
            hmac(&derived.finalize().into_bytes())
        };
        Self { keyed: keyed(key), also: also.map(keyed) }
    }

    /// Makes the secret of a session. Secrets do not expire. A secret is valid as long as a hub has its key.
    pub fn issue(&self, peer: &PeerId, lineage: Lineage) -> Secret {
        let mut bytes = [0; BYTES];
        let (numbers, tag) = bytes.split_at_mut(2 * NUMBER);
        numbers.copy_from_slice(&written(lineage));
        tag.copy_from_slice(&mac(&self.keyed, peer, numbers).finalize().into_bytes()[..TAG]);
        Secret(bytes)
    }

    /// Verifies a client's secret. Returns the lineage that the secret proves for this id. `shown` is the text that the
    /// client sent.
    ///
    /// The comparison takes constant time, so its duration does not show where a wrong tag differs.
    ///
    /// # Errors
    ///
    /// [`ResumeOutcome::Malformed`] if the text is not a secret, and [`ResumeOutcome::Foreign`] if it was issued with
    /// another key or for another id. A client with a refused secret is admitted like a client without a secret.
    pub fn check(&self, peer: &PeerId, shown: &str) -> Result<Lineage, ResumeOutcome> {
        let mut bytes = [0; BYTES];
        read_hex(&mut bytes, shown).ok_or(ResumeOutcome::Malformed)?;
        let (numbers, tag) = bytes.split_at(2 * NUMBER);
        let made_with = |keyed: &Hmac<Sha256>| mac(keyed, peer, numbers).verify_truncated_left(tag).is_ok();
        if !made_with(&self.keyed) && !self.also.as_ref().is_some_and(made_with) {
            return Err(ResumeOutcome::Foreign);
        }
        let number = |at: usize| {
            let bytes = numbers[at..].first_chunk::<NUMBER>();
            PeerIncarnation(bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes)))
        };
        Ok(Lineage { root: number(0), session: number(NUMBER) })
    }
}

fn written(lineage: Lineage) -> [u8; 2 * NUMBER] {
    let mut numbers = [0; 2 * NUMBER];
    numbers[..NUMBER].copy_from_slice(&lineage.root.0.to_be_bytes());
    numbers[NUMBER..].copy_from_slice(&lineage.session.0.to_be_bytes());
    numbers
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC accepts keys of any length")
}

fn mac(keyed: &Hmac<Sha256>, peer: &PeerId, numbers: &[u8]) -> Hmac<Sha256> {
    let mut mac = keyed.clone();
    mac.update(peer.as_bytes());
    mac.update(numbers);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId::from_bytes([7; 20]);

    fn lineage(root: u64, session: u64) -> Lineage {
        Lineage { root: PeerIncarnation(root), session: PeerIncarnation(session) }
    }

    fn issued(keys: &ResumeKeys, peer: &PeerId, lineage: Lineage) -> String {
        String::from_utf8(keys.issue(peer, lineage).to_hex().to_vec()).unwrap()
    }

    #[test]
    fn a_secret_proves_its_lineage_for_its_own_id() {
        let keys = ResumeKeys::new("mesh", b"key", None);
        let secret = issued(&keys, &PEER, lineage(3, u64::MAX));
        assert_eq!(secret.len(), 64);
        assert_eq!(keys.check(&PEER, &secret), Ok(lineage(3, u64::MAX)));
        assert_eq!(keys.check(&PEER, &secret.to_uppercase()), Ok(lineage(3, u64::MAX)));
        assert_eq!(keys.check(&PeerId::from_bytes([8; 20]), &secret), Err(ResumeOutcome::Foreign));
    }

    #[test]
    fn a_secret_with_one_other_digit_is_foreign() {
        let keys = ResumeKeys::new("mesh", b"key", None);
        let secret = issued(&keys, &PEER, lineage(1, 2));
        for at in 0..secret.len() {
            let other = if secret.as_bytes()[at] == b'0' { "1" } else { "0" };
            let wrong = format!("{}{other}{}", &secret[..at], &secret[at + 1..]);
            assert_eq!(keys.check(&PEER, &wrong), Err(ResumeOutcome::Foreign), "digit {at}");
        }
    }

    #[test]
    fn secrets_other_than_64_digits_are_malformed() {
        let keys = ResumeKeys::new("mesh", b"key", None);
        let secret = issued(&keys, &PEER, lineage(1, 2));
        for wrong in ["", "0", &secret[1..], &format!("{secret}0"), &format!("g{}", &secret[1..]), &"é".repeat(32)] {
            assert_eq!(keys.check(&PEER, wrong), Err(ResumeOutcome::Malformed), "{wrong}");
        }
    }

    #[test]
    fn keys_of_another_mesh_or_token_differ() {
        let secret = issued(&ResumeKeys::new("mesh", b"key", None), &PEER, lineage(1, 2));
        for (mesh, key, also, right) in [
            ("mesh", "key", None, true),
            ("mesh", "new", Some("key"), true),
            ("mesh", "new", Some("newer"), false),
            ("mesh", "new", None, false),
            ("other", "key", None, false),
        ] {
            let keys = ResumeKeys::new(mesh, key.as_bytes(), also.map(str::as_bytes));
            assert_eq!(keys.check(&PEER, &secret).is_ok(), right, "{mesh} {key} {also:?}");
            assert_eq!(keys.check(&PEER, &issued(&keys, &PEER, lineage(4, 5))), Ok(lineage(4, 5)));
        }
    }

    /// The form must stay stable, because clients move between hubs of several versions in one mesh.
    #[test]
    fn the_form_of_a_secret_is_stable() {
        let keys = ResumeKeys::new("mesh", b"key", None);
        assert_eq!(
            issued(&keys, &PEER, lineage(0x0102, 0x0304)),
            "00000000000001020000000000000304f3418c7709920708b2e6f7682dfcc89f"
        );
    }

    #[test]
    fn keys_are_not_printed() {
        assert_eq!(format!("{:?}", ResumeKeys::new("mesh", b"key", None)), "ResumeKeys");
    }

    #[test]
    fn secrets_are_compared_by_root_and_then_by_session() {
        let (soon, late) = (RESUME_PRECEDENCE - Duration::from_millis(1), RESUME_PRECEDENCE);
        for (shown, holder, age, right) in [
            (lineage(1, 5), lineage(1, 5), late, Right::AtOnce),
            (lineage(1, 6), lineage(1, 5), late, Right::AtOnce),
            (lineage(1, 4), lineage(1, 5), soon, Right::Outdated),
            (lineage(1, 4), lineage(2, 5), soon, Right::AtOnce),
            (lineage(1, 9), lineage(2, 5), late, Right::Late),
            (lineage(3, 9), lineage(2, 5), soon, Right::Younger),
        ] {
            assert_eq!(shown.against(holder, age), right, "{shown:?} against {holder:?}");
        }
    }

    /// A replaced client cannot immediately replace the new session.
    #[test]
    fn a_replaced_client_cannot_undo_an_immediate_takeover() {
        for shown in (1..5).flat_map(|root| (root..6).map(move |session| lineage(root, session))) {
            for holder in (1..5).flat_map(|root| (root..6).map(move |session| lineage(root, session))) {
                if shown.against(holder, Duration::ZERO) == Right::AtOnce {
                    let next = PeerIncarnation(shown.session.max(holder.session).0 + 1);
                    let now = Lineage { root: shown.root, session: next };
                    assert_ne!(holder.against(now, Duration::ZERO), Right::AtOnce, "{holder:?} after {now:?}");
                }
            }
        }
    }
}
