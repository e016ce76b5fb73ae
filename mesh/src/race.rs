//! The order and timing of connection attempts to the addresses of a name: Happy Eyeballs (RFC 8305), without I/O and
//! without a clock.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use proto::limits::{CONNECT_STAGGER, MAX_CONNECT_ATTEMPTS, MAX_DIAL_ADDRESSES};

/// Results of earlier dials to the same name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Experience {
    /// The address that worked last. This address is tried first.
    pub(crate) worked: Option<SocketAddr>,
    /// An address that leads to the dialing hub itself. This address is tried last.
    pub(crate) own: Option<SocketAddr>,
    /// Number of dials since a link to the target was last in use. Each dial starts further down the list than the
    /// previous one, so that every address is tried.
    pub(crate) failures: u32,
}

/// Orders the addresses of a name, and returns at most [`MAX_DIAL_ADDRESSES`] of them.
///
/// `resolved` is in the resolver's order, which is that of RFC 6724. Families alternate, beginning with the family of
/// the first address.
pub(crate) fn order(resolved: impl IntoIterator<Item = SocketAddr>, known: &Experience) -> VecDeque<SocketAddr> {
    let mut families: [VecDeque<SocketAddr>; 2] = Default::default();
    let mut first = None;
    for address in resolved {
        let first = *first.get_or_insert(address.is_ipv6());
        let family = &mut families[usize::from(address.is_ipv6() != first)];
        if !family.contains(&address) {
            family.push_back(address);
        }
    }
    let mut ordered = VecDeque::new();
    while families.iter().any(|family| !family.is_empty()) {
        ordered.extend(families.iter_mut().filter_map(VecDeque::pop_front));
    }
    if !ordered.is_empty() {
        // One dial waits for at most five silent upgrades. So each dial starts five addresses after the previous one.
        let turn = (known.failures as usize).saturating_mul(5) % ordered.len();
        ordered.rotate_left(turn);
    }
    if let Some(own) = take(&mut ordered, known.own) {
        ordered.push_back(own);
    }
    if let Some(worked) = take(&mut ordered, known.worked) {
        ordered.push_front(worked);
    }
    ordered.truncate(MAX_DIAL_ADDRESSES);
    ordered
}

fn take(addresses: &mut VecDeque<SocketAddr>, wanted: Option<SocketAddr>) -> Option<SocketAddr> {
    let at = addresses.iter().position(|address| Some(*address) == wanted)?;
    addresses.remove(at)
}

/// Attempts to connect to one of several addresses. Times count from the start of the dial.
#[derive(Debug)]
pub(crate) struct Race {
    /// Addresses to try.
    left: VecDeque<SocketAddr>,
    /// Addresses that are being tried, the oldest attempt first.
    running: VecDeque<SocketAddr>,
    /// Time at which the next address is tried, if no attempt fails earlier.
    next: Duration,
    /// Time at which the last attempt began.
    began: Duration,
}

/// Minimum time between the starts of two attempts while there is no room for more. In this case, a new attempt ends
/// the oldest attempt, which must not end too early.
const OLDEST: Duration = CONNECT_STAGGER.saturating_mul(MAX_CONNECT_ATTEMPTS as u32);

/// The result of [`Race::start`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) address: SocketAddr,
    /// The attempt that must end to make room for the new attempt.
    pub(crate) give_up: Option<SocketAddr>,
}

impl Race {
    pub(crate) fn new(addresses: VecDeque<SocketAddr>) -> Self {
        Self { left: addresses, running: VecDeque::new(), next: Duration::ZERO, began: Duration::ZERO }
    }

    /// The attempt to begin now, if one is due. `has_room` says whether one more attempt may run at the same time.
    pub(crate) fn start(&mut self, now: Duration, has_room: bool) -> Option<Start> {
        if now < self.next && !self.running.is_empty() {
            return None;
        }
        let has_room = has_room || self.running.is_empty();
        if !has_room && now < self.began + OLDEST {
            self.next = now + CONNECT_STAGGER;
            return None;
        }
        let address = self.left.pop_front()?;
        let is_full = !has_room || self.running.len() >= MAX_CONNECT_ATTEMPTS;
        let give_up = is_full.then(|| self.running.pop_front()).flatten();
        self.running.push_back(address);
        (self.began, self.next) = (now, now + CONNECT_STAGGER);
        Some(Start { address, give_up })
    }

    /// When to call [`Self::start`] again. `None` if no address is left.
    pub(crate) fn due(&self) -> Option<Duration> {
        (!self.left.is_empty()).then_some(self.next)
    }

    /// Records a failed attempt: the next address is tried at once.
    pub(crate) fn failed(&mut self, address: SocketAddr, now: Duration) {
        self.running.retain(|running| *running != address);
        self.next = now;
    }

    /// Records that an attempt has connected, so that the other attempts end. The addresses of the ended attempts are
    /// the first to be tried if this connection does not work.
    pub(crate) fn connected(&mut self, address: SocketAddr, now: Duration) {
        while let Some(other) = self.running.pop_back() {
            if other != address {
                self.left.push_front(other);
            }
        }
        self.next = now;
    }

    /// Number of addresses that can still be tried.
    pub(crate) fn left(&self) -> usize {
        self.left.len()
    }

    /// Whether no address is left and no attempt is in progress.
    pub(crate) fn is_over(&self) -> bool {
        self.left.is_empty() && self.running.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn v4(host: u8) -> SocketAddr {
        (Ipv4Addr::new(10, 0, 0, host), 80).into()
    }

    fn v6(host: u16) -> SocketAddr {
        (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host), 80).into()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn race(addresses: impl IntoIterator<Item = SocketAddr>) -> Race {
        Race::new(addresses.into_iter().collect())
    }

    fn started(race: &mut Race, at: u64) -> Option<SocketAddr> {
        race.start(ms(at), true).map(|start| start.address)
    }

    #[test]
    fn families_alternate_in_the_resolvers_order() {
        let resolved = [v6(1), v6(2), v6(3), v4(1), v4(2), v6(1)];
        assert_eq!(order(resolved, &Experience::default()), [v6(1), v4(1), v6(2), v4(2), v6(3)]);
        assert_eq!(order([v4(1), v6(1), v4(2)], &Experience::default()), [v4(1), v6(1), v4(2)]);
        assert!(order([], &Experience { failures: 3, ..Experience::default() }).is_empty());
    }

    #[test]
    fn the_address_that_worked_is_first_and_the_hubs_own_address_is_last() {
        let known = Experience { worked: Some(v4(3)), own: Some(v4(1)), failures: 0 };
        assert_eq!(order([v4(1), v4(2), v4(3)], &known), [v4(3), v4(2), v4(1)]);
        let moved = Experience { worked: Some(v4(9)), own: Some(v4(8)), failures: 0 };
        assert_eq!(order([v4(1), v4(2)], &moved), [v4(1), v4(2)], "addresses that no longer exist change nothing");
    }

    #[test]
    fn each_of_many_addresses_is_tried() {
        for addresses in 1..=200_u8 {
            let mut first = std::collections::BTreeSet::new();
            for failures in 0..u32::from(addresses) {
                let known = Experience { failures, ..Experience::default() };
                let ordered = order((1..=addresses).map(v4), &known);
                assert!(ordered.len() <= MAX_DIAL_ADDRESSES);
                first.extend(ordered.into_iter().take(5));
            }
            assert_eq!(first.len(), usize::from(addresses));
        }
    }

    #[test]
    fn attempts_begin_a_quarter_of_a_second_apart() {
        let mut race = race([v6(1), v4(1), v6(2)]);
        assert_eq!((started(&mut race, 0), started(&mut race, 249)), (Some(v6(1)), None));
        assert_eq!(race.due(), Some(ms(250)));
        assert_eq!((started(&mut race, 250), started(&mut race, 499)), (Some(v4(1)), None));
        assert_eq!((started(&mut race, 500), race.due()), (Some(v6(2)), None));
        assert_eq!(started(&mut race, 10_000), None);
        assert!(!race.is_over());
    }

    #[test]
    fn the_next_attempt_follows_a_failure_at_once() {
        let mut race = race([v6(1), v4(1)]);
        assert_eq!(started(&mut race, 0), Some(v6(1)));
        race.failed(v6(1), ms(3));
        assert_eq!(started(&mut race, 3), Some(v4(1)));
        race.failed(v4(1), ms(4));
        assert_eq!((started(&mut race, 4), race.is_over()), (None, true));
    }

    #[test]
    fn attempts_that_lost_the_race_are_repeated_first() {
        let mut race = race((1..=5).map(v4));
        for at in [0, 250, 500] {
            assert!(started(&mut race, at).is_some());
        }
        race.connected(v4(2), ms(600));
        assert_eq!(race.left(), 4);
        let rest: Vec<_> = (0..4).filter_map(|n| started(&mut race, 600 + n * 250)).collect();
        assert_eq!(rest, [v4(1), v4(3), v4(4), v4(5)]);
    }

    #[test]
    fn the_oldest_attempt_ends_when_too_many_are_in_progress() {
        let most = MAX_CONNECT_ATTEMPTS as u8;
        let mut race = race((1..=most + 1).map(v4));
        for n in 0..u64::from(most) {
            assert_eq!(race.start(ms(n * 250), true).and_then(|start| start.give_up), None);
        }
        let start = race.start(ms(u64::from(most) * 250), true).unwrap();
        assert_eq!((start.address, start.give_up), (v4(most + 1), Some(v4(1))));
        assert_eq!(race.running.len(), MAX_CONNECT_ATTEMPTS);
    }

    #[test]
    fn without_room_the_next_attempt_replaces_the_oldest_after_a_longer_time() {
        let mut race = race((1..=3).map(v4));
        let mut begins = |at| race.start(ms(at), false).map(|start| (start.address, start.give_up));
        assert_eq!(begins(0), Some((v4(1), None)));
        let began: Vec<u64> = (1..=16).map(|n| n * 250).filter(|&at| begins(at).is_some()).collect();
        assert_eq!(began, [1500, 3000]);
        assert_eq!(race.running, [v4(3)]);
    }

    #[test]
    fn an_attempt_begins_as_soon_as_there_is_room() {
        let mut race = race((1..=3).map(v4));
        assert!(race.start(ms(0), false).is_some() && race.start(ms(250), false).is_none());
        assert_eq!(race.due(), Some(ms(500)));
        assert_eq!(race.start(ms(500), true), Some(Start { address: v4(2), give_up: None }));
    }
}
