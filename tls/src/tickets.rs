//! Session tickets that several hubs accept.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use rustls::server::ProducesTickets;

/// Period during which one key encrypts tickets. A ticket is accepted in the period of its key and in the next period.
const PERIOD: Duration = Duration::from_secs(6 * 60 * 60);

/// Length of the header in bytes: number of the key's period, and nonce.
const HEAD: usize = 8 + NONCE_LEN;

/// Maximum length of a ticket, in bytes. Longer tickets are ignored. This hub's tickets have about 200 bytes.
const LONGEST: usize = 4 * 1024;

/// Encrypts tickets with keys derived from a secret and the time, so that all hubs with the secret have the same keys.
///
/// Nonces are random. With 2^32 tickets per period (200,000 per second), the probability of a repeated nonce is 2^-33.
pub(crate) struct SharedTickets {
    secret: Prk,
    now: fn() -> Duration,
}

impl fmt::Debug for SharedTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedTickets")
    }
}

impl SharedTickets {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self::by(secret, || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    fn by(secret: &[u8], now: fn() -> Duration) -> Self {
        Self { secret: Salt::new(HKDF_SHA256, b"peerpigeon tickets 1").extract(secret), now }
    }

    fn period(&self) -> u64 {
        (self.now)().as_secs() / PERIOD.as_secs()
    }

    fn key(&self, period: u64) -> Option<LessSafeKey> {
        let period = period.to_be_bytes();
        let info: [&[u8]; 1] = [&period];
        let key: UnboundKey = self.secret.expand(&info, &AES_256_GCM).ok()?.into();
        Some(LessSafeKey::new(key))
    }
}

impl ProducesTickets for SharedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        PERIOD.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let period = self.period();
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let mut body = plain.to_vec();
        let aad = Aad::from(period.to_be_bytes());
        self.key(period)?.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body).ok()?;
        Some([&period.to_be_bytes()[..], &nonce, &body].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > LONGEST {
            return None;
        }
        let (head, body) = ticket.split_at_checked(HEAD)?;
        let (period, nonce) = head.split_first_chunk::<8>()?;
        let number = u64::from_be_bytes(*period);
        let now = self.period();
        // Tickets of the next period are accepted, too, because the clock of the hub that issued them may be ahead.
        if !(now.saturating_sub(1)..=now + 1).contains(&number) {
            return None;
        }
        let mut body = body.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let len = self.key(number)?.open_in_place(nonce, Aad::from(*period), &mut body).ok()?.len();
        body.truncate(len);
        Some(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 60 * 60;

    fn at_hour<const HOURS: u64>() -> Duration {
        Duration::from_secs(1_000_000 * PERIOD.as_secs() + HOURS * HOUR)
    }

    #[test]
    fn hubs_with_one_secret_accept_each_others_tickets_and_no_others() {
        let (here, there, other) =
            (SharedTickets::new(b"secret"), SharedTickets::new(b"secret"), SharedTickets::new(b"another"));
        let ticket = here.encrypt(b"state").unwrap();
        assert_eq!(there.decrypt(&ticket).as_deref(), Some(&b"state"[..]));
        assert_eq!(other.decrypt(&ticket), None);
        assert_ne!(here.encrypt(b"state").unwrap(), ticket);
        for at in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[at] ^= 1;
            assert_eq!(there.decrypt(&forged), None, "byte {at}");
            assert_eq!(there.decrypt(&ticket[..at]), None);
        }
        assert_eq!(there.decrypt(&vec![0; 1 << 20]), None);
    }

    #[test]
    fn a_ticket_is_accepted_until_the_end_of_the_next_period() {
        let ticket = SharedTickets::by(b"secret", at_hour::<1>).encrypt(b"state").unwrap();
        let at = |now| SharedTickets::by(b"secret", now).decrypt(&ticket).is_some();
        assert!(at(at_hour::<0>) && at(at_hour::<5>) && at(at_hour::<11>));
        assert!(!at(at_hour::<12>));
        let ahead = SharedTickets::by(b"secret", at_hour::<7>).encrypt(b"state").unwrap();
        assert!(
            SharedTickets::by(b"secret", at_hour::<5>).decrypt(&ahead).is_some(),
            "a ticket of a hub whose clock is ahead is accepted"
        );
    }
}
