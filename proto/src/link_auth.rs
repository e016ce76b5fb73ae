//! Mutual authentication of two hubs that link. Each hub proves that it knows MESH_TOKEN, and neither hub sends the
//! token.
//!
//! The dialer requests the link, and the acceptor answers 401 with a [challenge](LinkChallenges::issue). The dialer
//! repeats the request with its [`LinkCredentials`], which are a nonce, the challenge and a proof. The acceptor answers
//! 101 with its own proof. A proof is an HMAC-SHA256 with the token as the key. The HMAC covers the end of the link
//! that makes the proof, the dialer's id, the nonce and the challenge.
//!
//! So a proof is useless to an attacker. A proof cannot be sent back to its maker, because the two ends make different
//! proofs. A proof cannot be replayed, because each challenge is accepted once and each nonce is new. A proof is not
//! valid for another hub id. But whoever receives a proof can test guesses of the token, so the token must be long and
//! random.
//!
//! Proofs are not bound to the connection. A server that a hub dials can forward the handshake to a hub of the mesh,
//! and then read and change what the two hubs send. On a link without TLS, everybody on the network path can also read
//! and change the data of the link. With `wss://`, the dialer checks the server's certificate before it sends anything.
//! A binding of proofs to the TLS connection would add nothing to this check, and would prevent links through a proxy
//! that ends TLS.

use std::collections::BTreeSet;
use std::time::Duration;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::id::HubId;
use crate::limits::{LINK_CHALLENGE_TIME, MAX_LINK_CHALLENGES_USED};

/// The authentication scheme in `WWW-Authenticate` and `Authorization` (RFC 9110 section 11.1).
pub const LINK_SCHEME: &str = "PeerPigeon-Link";

/// How the other end of a link has shown that it is a hub of the mesh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkAuth {
    /// By its address or URL, as Go hubs do (MESH_LEGACY).
    Address,
    /// By sending MESH_TOKEN itself, as hubs of version 2.0.0 do.
    Bearer,
    /// By its TLS certificate. If this hub dialed the link, the certificate is a server certificate, and otherwise a
    /// client certificate.
    Certificate,
    /// Not at all (MESH_INSECURE, or a hub of version 2.0.0 that was dialed).
    Nothing,
    /// By a proof that it knows MESH_TOKEN.
    Token,
}

impl LinkAuth {
    /// The name on pages and in logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Bearer => "bearer",
            Self::Certificate => "certificate",
            Self::Nothing => "none",
            Self::Token => "token",
        }
    }
}

const NONCE: usize = 32;
const PROOF: usize = 32;
const RANDOM: usize = 16;
const TIME: usize = size_of::<u64>();
const TAG: usize = 16;
const CHALLENGE: usize = RANDOM + TIME + TAG;

/// The end of a link that makes a proof.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Prover {
    Dialer,
    Acceptor,
}

/// The dialer's answer to a challenge. The text form of these credentials is the value of the header `Authorization`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkCredentials {
    nonce: [u8; NONCE],
    challenge: [u8; CHALLENGE],
    proof: [u8; PROOF],
}

impl LinkCredentials {
    /// Answers a challenge, which is the value of the header `WWW-Authenticate`. `nonce` must be random. Returns `None`
    /// if the value has no challenge.
    pub fn answer(challenge: &str, token: &[u8], dialer: HubId, nonce: [u8; NONCE]) -> Option<Self> {
        let challenge = bytes(parameter(challenge, "challenge")?)?;
        let mut credentials = Self { nonce, challenge, proof: [0; PROOF] };
        credentials.proof = credentials.mac(Prover::Dialer, token, dialer).finalize().into_bytes().into();
        Some(credentials)
    }

    /// Parses a value of the header `Authorization`. Returns `None` if the value has another scheme or is malformed.
    pub fn parse(value: &str) -> Option<Self> {
        Some(Self {
            nonce: bytes(parameter(value, "nonce")?)?,
            challenge: bytes(parameter(value, "challenge")?)?,
            proof: bytes(parameter(value, "proof")?)?,
        })
    }

    /// The value of the header `Authorization`.
    pub fn header(&self) -> String {
        let (nonce, challenge, proof) = (hex(&self.nonce), hex(&self.challenge), hex(&self.proof));
        format!("{LINK_SCHEME} nonce={nonce}, challenge={challenge}, proof={proof}")
    }

    /// Whether the dialer with this id made the proof with this token.
    pub fn are_of(&self, token: &[u8], dialer: HubId) -> bool {
        self.mac(Prover::Dialer, token, dialer).verify_slice(&self.proof).is_ok()
    }

    /// The acceptor's proof, as the value of the header `Authentication-Info` (RFC 9110 section 11.6.3).
    pub fn reply(&self, token: &[u8], dialer: HubId) -> String {
        format!("proof={}", hex(&self.mac(Prover::Acceptor, token, dialer).finalize().into_bytes()))
    }

    /// Whether a value of the header `Authentication-Info` is the acceptor's proof.
    pub fn is_reply(&self, value: &str, token: &[u8], dialer: HubId) -> bool {
        let proof = value.trim().strip_prefix("proof=").and_then(bytes::<PROOF>);
        proof.is_some_and(|proof| self.mac(Prover::Acceptor, token, dialer).verify_slice(&proof).is_ok())
    }

    fn mac(&self, role: Prover, token: &[u8], dialer: HubId) -> Hmac<Sha256> {
        let mut mac = keyed(token);
        // All parts of the HMAC's input have fixed lengths, so two different sets of parts cannot give the same bytes.
        mac.update(b"peerpigeon link 1 ");
        mac.update(match role {
            Prover::Dialer => b"dialer  ",
            Prover::Acceptor => b"acceptor",
        });
        mac.update(dialer.0.as_bytes());
        mac.update(&self.nonce);
        mac.update(&self.challenge);
        mac
    }
}

/// Why a challenge is not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StaleChallenge {
    /// This process did not issue the challenge.
    Foreign,
    /// The challenge was issued [`LINK_CHALLENGE_TIME`] ago or earlier.
    Expired,
    /// The challenge was answered before. The hub also returns this error if [`MAX_LINK_CHALLENGES_USED`] other
    /// answered challenges are stored. If no further challenge can be stored, the hub could not detect a second answer
    /// to the same challenge.
    Used,
}

/// The challenges of one process. A new challenge is not stored, so clients without the token cannot fill the memory.
#[derive(Debug)]
pub struct LinkChallenges {
    key: [u8; 32],
    /// Challenges that were answered with a valid proof and have not expired. Each entry has the time at which the
    /// challenge was issued, in milliseconds, and the random part of the challenge.
    used: BTreeSet<(u64, [u8; RANDOM])>,
}

impl LinkChallenges {
    /// Starts without answered challenges. `key` must be random.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key, used: BTreeSet::new() }
    }

    /// A new challenge, as a value of the header `WWW-Authenticate`. Each call needs a new `random`. `now` is the time
    /// since the process began.
    pub fn issue(&self, random: [u8; RANDOM], now: Duration) -> String {
        let mut challenge = [0; CHALLENGE];
        challenge[..RANDOM].copy_from_slice(&random);
        challenge[RANDOM..RANDOM + TIME].copy_from_slice(&(now.as_millis() as u64).to_be_bytes());
        let tag = self.tag(&challenge).finalize().into_bytes();
        challenge[RANDOM + TIME..].copy_from_slice(&tag[..TAG]);
        format!("{LINK_SCHEME} challenge={}", hex(&challenge))
    }

    /// Accepts a challenge once. Call this function after [`LinkCredentials::are_of`] has found the proof to be valid.
    ///
    /// # Errors
    ///
    /// [`StaleChallenge`] if the challenge must not be accepted.
    pub fn redeem(&mut self, credentials: &LinkCredentials, now: Duration) -> Result<(), StaleChallenge> {
        let challenge = &credentials.challenge;
        if self.tag(challenge).verify_truncated_left(&challenge[RANDOM + TIME..]).is_err() {
            return Err(StaleChallenge::Foreign);
        }
        let (mut random, mut issued) = ([0; RANDOM], [0; TIME]);
        random.copy_from_slice(&challenge[..RANDOM]);
        issued.copy_from_slice(&challenge[RANDOM..RANDOM + TIME]);
        let (issued, now) = (u64::from_be_bytes(issued), now.as_millis() as u64);
        let is_over = |issued: u64| issued.saturating_add(LINK_CHALLENGE_TIME.as_millis() as u64) <= now;
        while self.used.first().is_some_and(|&(issued, _)| is_over(issued)) {
            self.used.pop_first();
        }
        if is_over(issued) {
            Err(StaleChallenge::Expired)
        } else if self.used.len() < MAX_LINK_CHALLENGES_USED && self.used.insert((issued, random)) {
            Ok(())
        } else {
            Err(StaleChallenge::Used)
        }
    }

    fn tag(&self, challenge: &[u8; CHALLENGE]) -> Hmac<Sha256> {
        let mut mac = keyed(&self.key);
        mac.update(&challenge[..RANDOM + TIME]);
        mac
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC accepts keys of any length")
}

/// The value of a parameter of [`LINK_SCHEME`]. Other schemes may precede this scheme in the same header, because a
/// proxy may join headers of the same name.
fn parameter<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let mut is_ours = false;
    value.split(',').map(str::trim).find_map(|part| {
        // A part with a space consists of a scheme and the scheme's first parameter.
        let parameter = match part.split_once(' ') {
            Some((scheme, parameter)) => {
                is_ours = scheme.eq_ignore_ascii_case(LINK_SCHEME);
                parameter.trim()
            }
            None => part,
        };
        parameter.strip_prefix(name)?.strip_prefix('=').filter(|_| is_ours)
    })
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits = hex.as_bytes();
    let mut out = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerId;

    const TOKEN: &[u8] = b"the token of the mesh";
    const DIALER: HubId = HubId(PeerId::from_bytes([1; 20]));
    const OTHER: HubId = HubId(PeerId::from_bytes([2; 20]));
    const NOW: Duration = Duration::from_secs(100);

    fn challenges() -> LinkChallenges {
        LinkChallenges::new([7; 32])
    }

    fn answer(challenge: &str) -> LinkCredentials {
        LinkCredentials::answer(challenge, TOKEN, DIALER, [3; NONCE]).unwrap()
    }

    #[test]
    fn each_end_proves_that_it_knows_the_token() {
        let mut acceptor = challenges();
        let sent = answer(&acceptor.issue([5; RANDOM], NOW)).header();
        let received = LinkCredentials::parse(&sent).unwrap();
        assert!(received.are_of(TOKEN, DIALER));
        assert_eq!(acceptor.redeem(&received, NOW), Ok(()));
        let reply = received.reply(TOKEN, DIALER);
        assert!(received.is_reply(&reply, TOKEN, DIALER));
        for header in [&sent, &reply] {
            assert!(!header.contains(&hex(TOKEN)) && !header.contains("token"), "{header}");
        }
    }

    #[test]
    fn a_proof_is_valid_only_for_its_token_its_dialer_its_nonce_and_its_challenge() {
        let credentials = answer(&challenges().issue([5; RANDOM], NOW));
        assert!(!credentials.are_of(b"another token", DIALER) && !credentials.are_of(TOKEN, OTHER));
        let mut changed = [credentials.clone(), credentials.clone()];
        changed[0].nonce[0] ^= 1;
        changed[1].challenge[0] ^= 1;
        let reply = credentials.reply(TOKEN, DIALER);
        for changed in changed {
            assert!(!changed.are_of(TOKEN, DIALER) && !changed.is_reply(&reply, TOKEN, DIALER), "{changed:?}");
        }
        // A server without the token sends the dialer's own proof back.
        let reflected = format!("proof={}", hex(&credentials.proof));
        assert!(!credentials.is_reply(&reflected, TOKEN, DIALER));
    }

    #[test]
    fn a_challenge_is_found_beside_other_schemes() {
        let challenge = challenges().issue([5; RANDOM], NOW);
        let is_answered = |header: &str| LinkCredentials::answer(header, TOKEN, DIALER, [3; NONCE]).is_some();
        assert!(is_answered(&challenge) && is_answered(&format!("Bearer realm=\"x\", {challenge}")));
        assert!(is_answered(&format!("{challenge}, Bearer")) && is_answered(&challenge.to_ascii_lowercase()));
        assert!(!is_answered(&challenge.replace(LINK_SCHEME, "Bearer")) && !is_answered("Bearer") && !is_answered(""));
        assert!(!is_answered(challenge.trim_start_matches("PeerPigeon-Link ")));
    }

    #[test]
    fn a_challenge_is_accepted_once_and_for_a_limited_time() {
        let mut acceptor = challenges();
        let credentials = answer(&acceptor.issue([5; RANDOM], NOW));
        assert_eq!(acceptor.redeem(&credentials, NOW), Ok(()));
        let late = NOW + LINK_CHALLENGE_TIME;
        let just_before = late - Duration::from_millis(1);
        assert_eq!(acceptor.redeem(&credentials, just_before), Err(StaleChallenge::Used), "the answer was used before");
        assert_eq!(acceptor.redeem(&credentials, late), Err(StaleChallenge::Expired));
        assert!(acceptor.used.is_empty());
        // A process refuses a challenge that another process has issued.
        assert_eq!(LinkChallenges::new([8; 32]).redeem(&credentials, NOW), Err(StaleChallenge::Foreign));
        let forged = LinkCredentials { challenge: [0; CHALLENGE], ..credentials };
        assert_eq!(acceptor.redeem(&forged, NOW), Err(StaleChallenge::Foreign));
    }

    #[test]
    fn a_bounded_number_of_answered_challenges_is_remembered() {
        let mut acceptor = challenges();
        let mut redeem = |n: u16, now| {
            let mut random = [0; RANDOM];
            random[..2].copy_from_slice(&n.to_be_bytes());
            let credentials = answer(&acceptor.issue(random, now));
            acceptor.redeem(&credentials, now)
        };
        let most = MAX_LINK_CHALLENGES_USED as u16;
        assert!((0..most).all(|n| redeem(n, NOW).is_ok()));
        assert_eq!(redeem(most, NOW), Err(StaleChallenge::Used));
        assert_eq!(redeem(most, NOW + LINK_CHALLENGE_TIME), Ok(()), "the stored challenges have expired");
    }

    #[test]
    fn malformed_headers_have_no_credentials() {
        let challenge = challenges().issue([5; RANDOM], NOW);
        let header = answer(&challenge).header();
        assert!(LinkCredentials::parse(&header.replace(LINK_SCHEME, "peerpigeon-link")).is_some());
        for wrong in [
            "",
            "Bearer the-token",
            LINK_SCHEME,
            &header.replace("proof=", "proof"),
            &header.replace("nonce=", "nonce=0"),
            &header.replace(LINK_SCHEME, "Bearer"),
            &header[..header.len() - 1],
        ] {
            assert_eq!(LinkCredentials::parse(wrong), None, "{wrong}");
        }
        for wrong in ["", "Bearer realm=\"peerpigeon\"", &challenge[..challenge.len() - 2]] {
            assert_eq!(LinkCredentials::answer(wrong, TOKEN, DIALER, [3; NONCE]), None, "{wrong}");
        }
        assert!(!answer(&challenge).is_reply("", TOKEN, DIALER));
    }
}
