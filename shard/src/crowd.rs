//! Limits per client address. All shards share the counters. A connection is checked before anything is read from it,
//! or when a proxy has named its client.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use proto::Keys;
use proto::limits::{ADDRESS_BURST_SECS, ADDRESS_LOG_PAUSE, ADDRESS_ROWS, MAX_UNNAMED_PROXIES, QUIET_CONNECTS};

use crate::stats::HandshakeFailure;

/// Why the gate refuses a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoEntry {
    /// The client's address has too many connections.
    AddressConnections,
    /// The client's address has too many connections without a request.
    AddressUnfinished,
    /// The client's address connects too fast.
    AddressRate,
    /// The shard has reached CONNECT_RATE.
    Busy,
    /// The hub is full, and already answers enough other connections.
    Full,
}

impl NoEntry {
    /// The label under which the refusal is counted.
    pub(crate) const fn failure(self) -> HandshakeFailure {
        match self {
            Self::AddressConnections => HandshakeFailure::AddressConnections,
            Self::AddressUnfinished => HandshakeFailure::AddressUnfinished,
            Self::AddressRate => HandshakeFailure::AddressRate,
            Self::Busy => HandshakeFailure::Busy,
            Self::Full => HandshakeFailure::Full,
        }
    }

    /// The message for the client and for the log.
    pub(crate) const fn explain(self) -> &'static str {
        match self {
            Self::AddressConnections => {
                "this address has too many connections (MAX_CONNECTIONS_PER_ADDRESS; a proxy belongs in \
                 TRUSTED_PROXIES)"
            }
            Self::AddressUnfinished => {
                "this address has too many connections without a request (MAX_UNFINISHED_PER_ADDRESS; a proxy belongs \
                 in \
                 TRUSTED_PROXIES)"
            }
            Self::AddressRate => {
                "this address connects too often (CONNECT_RATE_PER_ADDRESS; a proxy belongs in TRUSTED_PROXIES)"
            }
            Self::Busy => "too many connections come at once (CONNECT_RATE)",
            Self::Full => "the hub is full (MAX_CONNECTIONS)",
        }
    }
}

/// Limits of one address. 0 means no limit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct AddressLimits {
    /// Open connections (MAX_CONNECTIONS_PER_ADDRESS).
    pub connections: u32,
    /// Open connections whose first request has not arrived (MAX_UNFINISHED_PER_ADDRESS).
    pub unfinished: u32,
    /// New connections per second (CONNECT_RATE_PER_ADDRESS), with bursts of [`ADDRESS_BURST_SECS`].
    pub connects: u32,
}

/// Counts the connections of each address. IPv6 clients are counted by their /64.
///
/// The table has a fixed size. A keyed hash gives each address two rows of the table. A row counts the connections of
/// all addresses that share it. An address is refused only if both of its rows have reached a limit. An address below
/// its limits is refused by mistake only if it shares both of its rows with other addresses. With `n` addresses at
/// their limit, one in ([`ADDRESS_ROWS`] / 2n)^2 other addresses is refused by mistake. If several shards admit a
/// connection at the same moment, each of them can exceed a limit by one.
#[derive(Debug)]
pub(crate) struct Crowd {
    limits: AddressLimits,
    keys: Keys,
    rows: Box<[Row]>,
    /// Hashes of addresses that have no limits. 0 marks a free entry.
    unlimited: [AtomicU64; MAX_UNNAMED_PROXIES],
    start: Instant,
    log: Log,
}

#[derive(Default, Debug)]
struct Row {
    open: AtomicU32,
    unfinished: AtomicU32,
    /// Time at which the next connection would be due if connections arrived exactly at the maximum rate, in
    /// nanoseconds since the start.
    due: AtomicU64,
}

/// The rate limit of log lines about refused addresses.
#[derive(Default, Debug)]
struct Log {
    /// Time of the last log line, in nanoseconds since the start, plus one. 0 means that no line was logged yet.
    last: AtomicU64,
    since: AtomicU64,
}

impl Crowd {
    /// An empty table.
    pub(crate) fn new(limits: AddressLimits, keys: Keys) -> Self {
        let rows = (0..ADDRESS_ROWS).map(|_| Row::default()).collect();
        let unlimited = [const { AtomicU64::new(0) }; MAX_UNNAMED_PROXIES];
        Self { limits, keys, rows, unlimited, start: Instant::now(), log: Log::default() }
    }

    /// Counts a new connection of this address whose request has not arrived yet.
    ///
    /// # Errors
    ///
    /// If the address has reached a limit.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Place, NoEntry> {
        let hash = address_hash(self.keys, address);
        let numbers = numbers(hash);
        let rows = numbers.map(|number| &self.rows[usize::from(number)]);
        let AddressLimits { connections, unfinished, .. } = self.limits;
        // When the place is dropped, the counts go down again, even if this function refuses the connection.
        let mut place = Place { crowd: Arc::clone(self), rows: numbers, is_unfinished: true, is_quiet: false };
        let open = rows.map(|row| row.open.fetch_add(1, Ordering::Relaxed));
        let heads = rows.map(|row| row.unfinished.fetch_add(1, Ordering::Relaxed));
        let is_full = |limit: u32, counts: [u32; 2]| limit > 0 && counts.iter().all(|count| *count >= limit);
        let refusal = if is_full(connections, open) {
            NoEntry::AddressConnections
        } else if is_full(unfinished, heads) {
            NoEntry::AddressUnfinished
        } else if let Some(is_quiet) = self.take_turn(rows, now) {
            place.is_quiet = is_quiet;
            return Ok(place);
        } else {
            NoEntry::AddressRate
        };
        if self.unlimited.iter().any(|entry| entry.load(Ordering::Relaxed) == hash) { Ok(place) } else { Err(refusal) }
    }

    /// Exempts an address from the limits. Returns false if the address was already exempt, or if
    /// [`MAX_UNNAMED_PROXIES`] other addresses are exempt.
    pub(crate) fn free(&self, address: IpAddr) -> bool {
        let hash = address_hash(self.keys, address);
        for entry in &self.unlimited {
            match entry.compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(held) if held == hash => return false,
                Err(_) => {}
            }
        }
        false
    }

    /// Decides whether to log a refusal. The first refusal is logged, and then at most one every [`ADDRESS_LOG_PAUSE`].
    /// Returns the number of refusals since the last log line if it is time for a new log line.
    pub(crate) fn refused(&self, now: Instant) -> Option<u64> {
        let times = self.log.since.fetch_add(1, Ordering::Relaxed) + 1;
        let at = self.nanos(now) + 1;
        let last = self.log.last.load(Ordering::Relaxed);
        let is_due = last == 0 || at.saturating_sub(last) >= ADDRESS_LOG_PAUSE.as_nanos() as u64;
        let first = is_due && self.log.last.compare_exchange(last, at, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        first.then(|| {
            self.log.since.fetch_sub(times, Ordering::Relaxed);
            times
        })
    }

    /// Applies the maximum rate to a new connection, with the generic cell rate algorithm. Returns whether the address
    /// has connected rarely in the last seconds. `None` if the address exceeds the rate.
    fn take_turn(&self, rows: [&Row; 2], now: Instant) -> Option<bool> {
        let gap = match self.limits.connects {
            0 => return Some(true),
            rate => 1_000_000_000 / u64::from(rate),
        };
        let (now, slack) = (self.nanos(now), gap * (u64::from(self.limits.connects) * ADDRESS_BURST_SECS - 1));
        let ahead = rows.iter().map(|row| row.due.load(Ordering::Relaxed).saturating_sub(now)).min()?;
        if ahead > slack {
            return None;
        }
        for row in rows {
            // Other addresses that share the row may have advanced the row's time already. So the new time is at most
            // the time that this address alone can reach.
            let next = |due: u64| Some((due.max(now) + gap).min(now + slack + gap));
            _ = row.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        }
        Some(ahead < gap * QUIET_CONNECTS)
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_nanos() as u64
    }
}

/// The keyed hash of an IPv4 address, or of the /64 prefix of an IPv6 address, because a host may use all addresses of
/// its /64. The hash is never 0.
pub(crate) fn address_hash(keys: Keys, address: IpAddr) -> u64 {
    let hash = match address.to_canonical() {
        IpAddr::V4(address) => keys.hash_one(address),
        IpAddr::V6(address) => keys.hash_one(address.to_bits() >> 64),
    };
    hash.max(1)
}

/// The two rows of an address with this hash.
fn numbers(hash: u64) -> [u16; 2] {
    let rows = ADDRESS_ROWS as u64;
    let (one, step) = (hash % rows, 1 + (hash >> 32) % (rows - 1));
    [one as u16, ((one + step) % rows) as u16]
}

/// A counted connection of an address. Dropping it reduces the count.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    rows: [u16; 2],
    is_unfinished: bool,
    is_quiet: bool,
}

impl Place {
    /// Records that the first request of the connection has arrived.
    pub(crate) fn finish(&mut self) {
        if std::mem::take(&mut self.is_unfinished) {
            self.count(|row| &row.unfinished);
        }
    }

    /// Whether the address had connected rarely before this connection.
    pub(crate) fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// Decrements a counter in both rows.
    fn count(&self, counter: impl Fn(&Row) -> &AtomicU32) {
        for number in self.rows {
            counter(&self.crowd.rows[usize::from(number)]).fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.finish();
        self.count(|row| &row.open);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use super::*;

    const LIMITS: AddressLimits = AddressLimits { connections: 5, unfinished: 3, connects: 4 };

    fn crowd(limits: AddressLimits) -> Arc<Crowd> {
        Arc::new(Crowd::new(limits, Keys(1, 2)))
    }

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    fn is_empty(crowd: &Crowd) -> bool {
        crowd.rows.iter().all(|row| row.open.load(Ordering::Relaxed) + row.unfinished.load(Ordering::Relaxed) == 0)
    }

    #[test]
    fn connections_of_an_address_are_bounded_with_and_without_a_request() {
        let (crowd, now) = (crowd(AddressLimits { connects: 0, ..LIMITS }), Instant::now());
        let enter = |n| crowd.enter(address(n), now);
        let mut places: Vec<_> = (0..3).map(|_| enter(1).unwrap()).collect();
        assert_eq!(enter(1).unwrap_err(), NoEntry::AddressUnfinished);
        places[0].finish();
        places[1].finish();
        places[1].finish();
        places.extend([enter(1).unwrap(), enter(1).unwrap()]);
        assert_eq!(enter(1).unwrap_err(), NoEntry::AddressConnections);
        assert!(enter(2).is_ok(), "another address has its own counts");
        places.pop();
        drop(enter(1).unwrap());
        drop(places);
        assert!(is_empty(&crowd));
    }

    #[test]
    fn connections_of_an_address_have_a_rate_and_a_burst() {
        let (crowd, start) = (crowd(AddressLimits { connections: 0, unfinished: 0, connects: 4 }), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let enter = |now| crowd.enter(address(1), now).map(|place| place.is_quiet());
        let burst = 4 * ADDRESS_BURST_SECS as usize;
        let quiet = (0..burst).map(|_| enter(at(0)).unwrap()).filter(|is_quiet| *is_quiet).count();
        assert_eq!(quiet, QUIET_CONNECTS as usize);
        // Refused connections do not delay the next turn.
        for _ in 0..1000 {
            assert_eq!(enter(at(0)), Err(NoEntry::AddressRate));
        }
        let admitted = (0..10_000).filter(|ms| enter(at(*ms)).is_ok()).count();
        assert_eq!(admitted, 39);
        assert!(crowd.enter(address(2), at(10_000)).unwrap().is_quiet());
        assert_eq!(enter(at(60_000)), Ok(true));
        assert!(is_empty(&crowd));
    }

    #[test]
    fn a_bounded_number_of_addresses_can_be_freed_from_the_limits() {
        let (crowd, now) = (crowd(LIMITS), Instant::now());
        let floods = |n| (0..100).filter_map(|_| crowd.enter(address(n), now).ok()).collect::<Vec<_>>().len();
        assert_eq!(floods(0), LIMITS.unfinished as usize);
        assert_eq!((crowd.free(address(0)), crowd.free(address(0))), (true, false));
        assert_eq!(floods(0), 100);
        assert_eq!(floods(1), LIMITS.unfinished as usize, "another address keeps its limits");
        let freed = (1..1000).filter(|n| crowd.free(address(*n))).count();
        assert_eq!(freed, MAX_UNNAMED_PROXIES - 1);
        assert_eq!(floods(999), LIMITS.unfinished as usize);
        assert!(is_empty(&crowd));
    }

    #[test]
    fn ipv6_addresses_are_counted_by_their_64_bit_prefix() {
        let crowd = crowd(AddressLimits::default());
        let numbers = |text: &str| numbers(address_hash(crowd.keys, text.parse().unwrap()));
        assert_eq!(numbers("2001:db8::1"), numbers("2001:db8::ffff:2"));
        assert_eq!(numbers("192.0.2.1"), numbers("::ffff:192.0.2.1"));
        assert_ne!(numbers("2001:db8::1"), numbers("2001:db8:0:1::1"));
        for n in 0..10_000 {
            let [one, other] = super::numbers(address_hash(crowd.keys, Ipv6Addr::from_bits(n << 64).into()));
            assert!(one != other && usize::from(one.max(other)) < ADDRESS_ROWS);
        }
    }

    /// With a hundred addresses at their limit, about one in 6,700 other addresses shares both rows with them.
    #[test]
    fn other_addresses_are_rarely_refused_by_mistake() {
        let limits = AddressLimits { connections: 10, unfinished: 0, connects: 0 };
        let (crowd, now) = (crowd(limits), Instant::now());
        let floods: Vec<_> = (0..1000).map(|n| crowd.enter(address(n % 100), now).unwrap()).collect();
        assert!((0..100).all(|n| crowd.enter(address(n), now).is_err()));
        let refused = (1000..21_000).filter(|n| crowd.enter(address(*n), now).is_err()).count();
        assert!(refused <= 20, "{refused} of 20,000");
        drop(floods);
        assert!(is_empty(&crowd));
    }

    #[test]
    fn all_shards_share_the_counts() {
        let limits = AddressLimits { connections: 100, unfinished: 0, connects: 0 };
        let crowd = crowd(limits);
        let admitted: usize = std::thread::scope(|scope| {
            let shards: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let places: Vec<_> =
                            (0..1000).filter_map(|_| crowd.enter(address(1), Instant::now()).ok()).collect();
                        let admitted = places.len();
                        std::mem::forget(places);
                        admitted
                    })
                })
                .collect();
            shards.into_iter().map(|shard| shard.join().unwrap()).sum()
        });
        // If two shards admit connections at the same moment, each of them can take the last place in one of the
        // address's two rows.
        assert!((97..=103).contains(&admitted), "{admitted}");
    }

    #[test]
    fn refused_connections_are_logged_at_a_limited_rate() {
        let (crowd, start) = (crowd(LIMITS), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(crowd.refused(at(0)), Some(1));
        assert_eq!((crowd.refused(at(1)), crowd.refused(at(9_999))), (None, None));
        assert_eq!(crowd.refused(at(10_001)), Some(3));
    }
}
