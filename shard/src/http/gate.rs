//! The gate refuses connections before anything is read from them.

use std::cell::{Cell, RefCell};
use std::hash::BuildHasher;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::Keys;
use proto::limits::{CONNECT_BURST_SECS, FULL_RATE, QUIET_RATE, REFUSALS_ANSWERED, RETRY_SPREAD_SECS};
use socket2::SockRef;

use crate::crowd::{Crowd, NoEntry, Place};
use crate::pace::Pace;

/// Decides about connections to a shard before anything is read from them.
pub(crate) struct Gate {
    crowd: Arc<Crowd>,
    turns: RefCell<GateTurns>,
    keys: Keys,
    answers: Cell<u64>,
}

struct GateTurns {
    /// CONNECT_RATE. `None` if there is no limit.
    all: Option<Pace>,
    /// Reserved turns for addresses that connect rarely.
    quiet: Pace,
    /// Turns for connections to a full hub.
    full: Pace,
    /// Turns for refusals with an answer.
    answered: Pace,
}

impl Gate {
    /// `connect_rate` is CONNECT_RATE; 0 means no limit.
    pub(crate) fn new(crowd: Arc<Crowd>, keys: Keys, connect_rate: u32) -> Self {
        let steady = |rate| Pace::new(rate, rate);
        let all = (connect_rate > 0).then(|| Pace::new(connect_rate, connect_rate.saturating_mul(CONNECT_BURST_SECS)));
        let turns =
            GateTurns { all, quiet: steady(QUIET_RATE), full: steady(FULL_RATE), answered: steady(REFUSALS_ANSWERED) };
        Self { crowd, turns: RefCell::new(turns), keys, answers: Cell::new(0) }
    }

    /// Admits or refuses a connection. `address` is `None` for a connection of a trusted proxy. [`Self::enter`] counts
    /// the clients of the proxy.
    pub(crate) fn admit(&self, address: Option<IpAddr>, is_full: bool, now: Instant) -> Result<Option<Place>, NoEntry> {
        let place = address.map(|address| self.crowd.enter(address, now)).transpose()?;
        let turns = &mut *self.turns.borrow_mut();
        let has_turn = |pace: &mut Pace| pace.take_within(now, Duration::ZERO).is_some();
        let refusal = if is_full && !has_turn(&mut turns.full) {
            NoEntry::Full
        } else if turns.all.as_mut().is_some_and(|all| !has_turn(all)) {
            NoEntry::Busy
        } else {
            return Ok(place);
        };
        let is_quiet = place.as_ref().is_some_and(Place::is_quiet);
        if is_quiet && has_turn(&mut turns.quiet) { Ok(place) } else { Err(refusal) }
    }

    /// Counts the client of a trusted proxy.
    pub(crate) fn enter(&self, client: IpAddr, now: Instant) -> Result<Place, NoEntry> {
        self.crowd.enter(client, now)
    }

    /// Exempts a proxy that TRUSTED_PROXIES does not name from the limits of its address, because it has many clients.
    /// Returns true if the proxy had limits before and has none now.
    pub(crate) fn free(&self, proxy: IpAddr) -> bool {
        self.crowd.free(proxy)
    }

    /// Decides whether to log a refusal. The rate of log lines about refused connections is limited for the whole hub.
    /// If it is time for a log line, returns the number of refusals since the last line.
    pub(crate) fn refused(&self, now: Instant) -> Option<u64> {
        self.crowd.refused(now)
    }

    /// Number of seconds after which a refused client should retry.
    pub(crate) fn retry_after(&self) -> u64 {
        self.answers.update(|n| n.wrapping_add(1));
        1 + self.keys.hash_one(self.answers.get()) % RETRY_SPREAD_SECS
    }

    /// Closes a refused connection without blocking. If the rate of answers allows it, sends an answer before the
    /// close. The answer is 503, or an alert at a port with TLS.
    pub(crate) fn turn_away(&self, stream: &TcpStream, no: NoEntry, speaks_tls: bool) {
        let now = Instant::now();
        let is_answered = self.turns.borrow_mut().answered.take_within(now, Duration::ZERO).is_some();
        if !is_answered {
            // A reset leaves nothing in the kernel. A normal close would leave a socket in TIME_WAIT for a minute.
            _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            return;
        }
        let (mut stream, text) = (stream, no.explain());
        if speaks_tls {
            // A text answer would need a TLS handshake, and the refusal must avoid the cost of a handshake. The alert
            // at least shows that the connection was ended by the hub, and not by the network.
            _ = stream.write(&REFUSAL_ALERT);
            _ = stream.read(&mut [0; 2048]);
            return;
        }
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             Retry-After: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{text}\n",
            text.len() + 1,
            self.retry_after(),
        );
        // The answer fits into the buffer of a new socket. The client's data is read, because unread data would reset
        // the connection, and the client might never receive the answer.
        _ = stream.write(answer.as_bytes());
        _ = stream.read(&mut [0; 2048]);
    }
}

/// A TLS record with the fatal alert `internal_error`, which any client can read before its handshake.
const REFUSAL_ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 80];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crowd::AddressLimits;

    fn gate(connect_rate: u32) -> Gate {
        let keys = Keys(1, 2);
        let limits = AddressLimits { connections: 0, unfinished: 0, connects: 64 };
        Gate::new(Arc::new(Crowd::new(limits, keys)), keys, connect_rate)
    }

    fn address(n: usize) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, (n >> 8) as u8, n as u8]))
    }

    #[test]
    fn a_shard_has_a_rate_and_a_reserve_for_quiet_addresses() {
        let (gate, now) = (gate(50), Instant::now());
        // Ten addresses connect in turn.
        let admitted = (0..500).filter(|n| gate.admit(address(n % 10), false, now).is_ok()).count();
        // The burst of two seconds admits 100 connections, which are 10 of each address. So no address counts as quiet,
        // and the reserve admits no further attempt.
        assert_eq!(admitted, 100);
        assert_eq!(gate.admit(address(3), false, now).err(), Some(NoEntry::Busy));
        assert_eq!(gate.admit(None, false, now).err(), Some(NoEntry::Busy), "a proxy has no reserve");
        let quiet = (0..500).filter(|n| gate.admit(address(1000 + n), false, now).is_ok()).count();
        assert_eq!(quiet, QUIET_RATE as usize);
        assert!(gate.admit(None, false, now + Duration::from_millis(20)).is_ok());
    }

    #[test]
    fn a_full_hub_answers_some_connections_and_refuses_the_others_early() {
        let (gate, now) = (gate(0), Instant::now());
        let told = (0..300).filter(|_| gate.admit(address(1), true, now).is_ok()).count();
        assert_eq!(told, FULL_RATE as usize);
        assert_eq!(gate.admit(address(1), true, now).err(), Some(NoEntry::Full));
        assert!(gate.admit(address(2), true, now).is_ok(), "an address that connects rarely uses the reserve");
        assert!(gate.admit(address(1), false, now).is_ok(), "the hub has a free seat again");
    }

    /// A flood of connections must cost the hub little more than the sockets.
    #[test]
    fn the_rate_of_answered_refusals_is_bounded() {
        let gate = gate(0);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let answered = |speaks_tls| {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            server.set_nonblocking(true).unwrap();
            gate.turn_away(&server, NoEntry::AddressRate, speaks_tls);
            drop(server);
            let mut answer = Vec::new();
            _ = client.read_to_end(&mut answer);
            answer
        };
        assert_eq!(answered(true), REFUSAL_ALERT, "before a handshake, only an alert can be sent");
        let start = Instant::now();
        let answers = (0..3 * REFUSALS_ANSWERED).map(|_| answered(false)).filter(|answer| !answer.is_empty());
        let many = answers
            .map(|answer| String::from_utf8(answer).unwrap())
            .inspect(|text| assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("CONNECT_RATE_PER_ADDRESS")))
            .count();
        let most = REFUSALS_ANSWERED + start.elapsed().as_millis() as u32 * REFUSALS_ANSWERED / 1000 + 1;
        assert!((REFUSALS_ANSWERED - 1..=most).contains(&(many as u32)), "{many} of at most {most}");
    }

    #[test]
    fn refused_clients_retry_at_different_times() {
        let gate = gate(0);
        let mut seconds: Vec<_> = (0..100).map(|_| gate.retry_after()).collect();
        seconds.sort_unstable();
        seconds.dedup();
        assert_eq!(seconds, (1..=RETRY_SPREAD_SECS).collect::<Vec<_>>());
    }
}
