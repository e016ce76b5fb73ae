//! Rate limits of pages. Each address has its own share, and all addresses together have a common share.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use proto::Keys;
use proto::limits::{PAGE_PATIENCE, PAGE_RATE, PAGE_RESERVE_BURST, PAGE_RESERVE_RATE, PAGE_RESERVES};

use crate::crowd::address_hash;
use crate::pace::Pace;

/// The rate limits of a shard's pages for one group of readers.
#[derive(Debug)]
pub(crate) struct PageRates {
    keys: Keys,
    /// The shares of addresses, indexed by a keyed hash of the address. So a new address evicts no other address, and
    /// nobody can choose an address that shares the slot of another address.
    reserves: Box<[Pace]>,
    shared: Pace,
}

impl PageRates {
    /// Makes rate limits of which nothing is used.
    pub(crate) fn new(keys: Keys) -> Self {
        let reserves = (0..PAGE_RESERVES).map(|_| Pace::new(PAGE_RESERVE_RATE, PAGE_RESERVE_BURST)).collect();
        Self { keys, reserves, shared: Pace::new(PAGE_RATE, PAGE_RATE) }
    }

    /// Takes a turn from the address's own share if it has one, and otherwise from the common share. Returns the time
    /// to wait for the turn, or `None` if this wait would be too long.
    pub(crate) fn take(&mut self, address: IpAddr, now: Instant) -> Option<Duration> {
        let place = self.place(address);
        let own = self.reserves.get_mut(place).and_then(|own| own.take_within(now, Duration::ZERO));
        own.or_else(|| self.shared.take_within(now, PAGE_PATIENCE))
    }

    fn place(&self, address: IpAddr) -> usize {
        (address_hash(self.keys, address) % PAGE_RESERVES as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn rare_requests_get_a_turn_during_a_flood() {
        let (mut rates, start) = (PageRates::new(Keys(1, 2)), Instant::now());
        let flood: Vec<_> = (1..=5).map(|n| address(&format!("192.0.2.{n}"))).collect();
        let quiet = [address("198.51.100.7"), address("2001:db8:7::1")];
        assert!(quiet.iter().all(|quiet| flood.iter().all(|other| rates.place(*other) != rates.place(*quiet))));
        // Each second, each address of the flood sends a thousand requests, and each quiet address sends two.
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            let mut answered = 0;
            for _ in 0..1000 {
                answered += flood.iter().filter(|from| rates.take(**from, now).is_some()).count();
            }
            let shared = if second == 0 { 2 * PAGE_RATE } else { PAGE_RATE };
            let own = if second == 0 { PAGE_RESERVE_BURST } else { PAGE_RESERVE_RATE };
            let most = (shared + 5 * own) as usize;
            assert!(answered <= most + 1, "{answered} in second {second}");
            for from in quiet {
                assert_eq!([rates.take(from, now), rates.take(from, now)], [Some(Duration::ZERO); 2]);
            }
        }
    }

    #[test]
    fn a_single_address_can_use_the_whole_common_share() {
        let (mut rates, now) = (PageRates::new(Keys(1, 2)), Instant::now());
        let from = address("192.0.2.1");
        let waits: Vec<_> = (0..1000).map_while(|_| rates.take(from, now)).collect();
        assert_eq!(waits.iter().filter(|wait| wait.is_zero()).count() as u32, PAGE_RESERVE_BURST + PAGE_RATE);
        assert_eq!(waits.len() as u32, PAGE_RESERVE_BURST + 2 * PAGE_RATE);
    }

    #[test]
    fn all_addresses_of_one_host_share_a_count() {
        let rates = PageRates::new(Keys(1, 2));
        let place = |text: &str| rates.place(address(text));
        assert_eq!(place("2001:db8::1"), place("2001:db8::ffff:2"));
        assert_eq!(place("192.0.2.1"), place("::ffff:192.0.2.1"));
        assert_ne!(place("2001:db8::1"), place("2001:db8:0:1::1"));
        assert_ne!(place("192.0.2.1"), place("192.0.2.2"));
    }
}
