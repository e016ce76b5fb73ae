//! Counts failed attempts to prove an operator, per address, so that nobody can guess the token quickly.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::Keys;
use proto::limits::{FAILED_TRIES, FAILED_TRY_ENTRIES, FAILED_TRY_PAUSE, FAILED_TRY_WAYS};

/// The addresses with the latest failed attempts.
///
/// A keyed hash gives each address a set of [`FAILED_TRY_WAYS`] entries, which it shares with other addresses. Only an
/// address that fails takes an entry: the one in its set that has been idle for longest. So operators with the right
/// token are never refused because of others, and an attacker with many addresses only evicts its own entries.
#[derive(Debug)]
pub(super) struct Tries {
    keys: Keys,
    entries: Box<[Entry]>,
    start: Instant,
}

#[derive(Default, Debug)]
struct Entry {
    /// The hash of the address; 0 is free.
    of: AtomicU64,
    /// Time at which all its attempts are forgotten, in nanoseconds since the start.
    forgiven: AtomicU64,
}

impl Tries {
    pub(super) fn new(keys: Keys) -> Self {
        let entries = (0..FAILED_TRY_ENTRIES).map(|_| Entry::default()).collect();
        Self { keys, entries, start: Instant::now() }
    }

    /// Time that an address has to wait before its next attempt. `None` if it need not wait.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let hash = shard::address_hash(self.keys, address);
        let entry = self.set(hash).iter().find(|entry| entry.of.load(Ordering::Relaxed) == hash)?;
        let ahead = entry.forgiven.load(Ordering::Relaxed).saturating_sub(self.nanos(now));
        let slack = (FAILED_TRY_PAUSE * (FAILED_TRIES - 1)).as_nanos() as u64;
        (ahead > slack).then(|| Duration::from_nanos(ahead - slack))
    }

    /// Counts a failed attempt of an address.
    pub(super) fn failed(&self, address: IpAddr, now: Instant) {
        let (hash, now) = (shard::address_hash(self.keys, address), self.nanos(now));
        let set = self.set(hash);
        let known = set.iter().find(|entry| entry.of.load(Ordering::Relaxed) == hash);
        let entry = known.or_else(|| set.iter().min_by_key(|entry| entry.forgiven.load(Ordering::Relaxed)));
        let Some(entry) = entry else { return };
        if entry.of.swap(hash, Ordering::Relaxed) != hash {
            entry.forgiven.store(0, Ordering::Relaxed);
        }
        let pause = FAILED_TRY_PAUSE.as_nanos() as u64;
        let most = now + pause * u64::from(FAILED_TRIES);
        let next = |forgiven: u64| Some((forgiven.max(now) + pause).min(most));
        _ = entry.forgiven.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    fn set(&self, hash: u64) -> &[Entry] {
        let sets = FAILED_TRY_ENTRIES / FAILED_TRY_WAYS;
        let at = (hash % sets as u64) as usize * FAILED_TRY_WAYS;
        &self.entries[at..at + FAILED_TRY_WAYS]
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn five_attempts_are_free_and_then_one_in_ten_seconds() {
        let (tries, now) = (Tries::new(Keys(1, 2)), Instant::now());
        for _ in 0..FAILED_TRIES {
            assert_eq!(tries.wait(address(1), now), None);
            tries.failed(address(1), now);
        }
        let waits = tries.wait(address(1), now).unwrap();
        assert!(waits <= FAILED_TRY_PAUSE && waits > FAILED_TRY_PAUSE / 2, "{waits:?}");
        assert_eq!(tries.wait(address(2), now), None, "another address");
        assert_eq!(tries.wait(address(1), now + FAILED_TRY_PAUSE), None);
        tries.failed(address(1), now + FAILED_TRY_PAUSE);
        assert!(tries.wait(address(1), now + FAILED_TRY_PAUSE).is_some());
        assert_eq!(tries.wait(address(1), now + FAILED_TRY_PAUSE * (FAILED_TRIES + 1)), None);
    }

    #[test]
    fn all_addresses_of_one_host_share_a_count() {
        let (tries, now) = (Tries::new(Keys(1, 2)), Instant::now());
        let host = |n: u32| -> IpAddr { format!("2001:db8::{n:x}").parse().unwrap() };
        (0..FAILED_TRIES).for_each(|n| tries.failed(host(n), now));
        assert!(tries.wait(host(99), now).is_some());
    }

    #[test]
    fn failures_of_many_addresses_refuse_no_other_address() {
        let (tries, now) = (Tries::new(Keys(1, 2)), Instant::now());
        for n in 0..10 * FAILED_TRY_ENTRIES as u32 {
            (0..FAILED_TRIES).for_each(|_| tries.failed(address(n), now));
        }
        assert!((1 << 20..(1 << 20) + 1000).all(|n| tries.wait(address(n), now).is_none()));
    }
}
