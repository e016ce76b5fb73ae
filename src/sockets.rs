//! Listening sockets that the supervisor, such as systemd, has opened for the hub (socket activation).
//!
//! The supervisor may bind ports for which the hub has no privilege. The supervisor keeps the sockets open while the
//! hub restarts, so new connections wait in the kernel's queue for the next process. A socket belongs to the setting
//! that names its port.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// Sockets of the supervisor that no setting has claimed yet.
#[derive(Debug, Default)]
pub struct Handed(Vec<(SocketAddr, TcpListener)>);

impl Handed {
    /// The sockets that the environment names (LISTEN_FDS, LISTEN_PID). Call this function before any thread starts,
    /// because it removes these variables from the environment.
    ///
    /// # Errors
    ///
    /// Returns a sentence about a socket that does not listen for TCP.
    pub fn from_env() -> Result<Self, String> {
        let mut all = ListenFd::from_env();
        let mut handed = Vec::new();
        for number in 0..all.len() {
            let taken = all.take_tcp_listener(number).and_then(|listener| {
                let listener = shard::take_over(listener.ok_or(io::ErrorKind::NotFound)?)?;
                Ok((listener.local_addr()?, listener))
            });
            handed.push(taken.map_err(|error| {
                format!("socket {number} of the supervisor (LISTEN_FDS) is not a listening TCP socket: {error}")
            })?);
        }
        Ok(Self(handed))
    }

    /// Takes the sockets of this port, and gives each shard at least one socket per address. Returns `None` if the port
    /// has no sockets.
    ///
    /// If an address has fewer sockets than there are shards, several shards accept from the same socket. For each new
    /// connection, all these shards wake up, and one of them accepts it.
    ///
    /// # Errors
    ///
    /// Returns a sentence if a socket cannot be duplicated.
    pub fn take(&mut self, port: u16, shards: u16) -> Result<Option<Vec<Vec<TcpListener>>>, String> {
        let (mut taken, rest): (Vec<_>, Vec<_>) = self.0.drain(..).partition(|(at, _)| port != 0 && at.port() == port);
        self.0 = rest;
        if taken.is_empty() {
            return Ok(None);
        }
        let shards = usize::from(shards);
        let mut spread: Vec<Vec<TcpListener>> = (0..shards).map(|_| Vec::new()).collect();
        while let Some((address, _)) = taken.first() {
            let address = *address;
            let (same, others): (Vec<_>, Vec<_>) = taken.into_iter().partition(|(at, _)| *at == address);
            taken = others;
            for number in 0..same.len().max(shards) {
                let socket = same[number % same.len()].1.try_clone();
                spread[number % shards].push(socket.map_err(|error| {
                    format!("the socket at {address} cannot be duplicated for each shard ({error}): raise `ulimit -n`")
                })?);
            }
        }
        Ok(Some(spread))
    }

    /// The address of a socket that no setting has claimed.
    pub fn unclaimed(&self) -> Option<SocketAddr> {
        self.0.first().map(|(address, _)| *address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(addresses: &[&str]) -> Handed {
        let open = |address: &&str| {
            let listener = TcpListener::bind(*address).unwrap();
            (listener.local_addr().unwrap(), listener)
        };
        Handed(addresses.iter().map(open).collect())
    }

    #[test]
    fn each_shard_gets_a_socket_of_each_address() {
        for shards in [1, 2, 5] {
            let mut handed = handed(&["127.0.0.1:0", "127.0.0.1:0"]);
            let port = handed.0[0].0.port();
            // Adds a second address at the same port.
            handed.0[1] = {
                let listener = TcpListener::bind(("127.0.0.2", port)).unwrap();
                (listener.local_addr().unwrap(), listener)
            };
            let spread = handed.take(port, shards).unwrap().unwrap();
            assert_eq!(spread.len(), usize::from(shards));
            for of_shard in &spread {
                let mut ips: Vec<_> = of_shard.iter().map(|socket| socket.local_addr().unwrap().ip()).collect();
                ips.sort_unstable();
                assert_eq!(ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1", "127.0.0.2"]);
            }
            assert_eq!(handed.unclaimed(), None);
        }
    }

    #[test]
    fn several_sockets_of_an_address_are_spread_over_the_shards() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // In production, each socket has a queue of its own (ReusePort=yes).
        let same = |n: usize| Handed((0..n).map(|_| (address, listener.try_clone().unwrap())).collect());
        let counts = |sockets: usize, shards: u16| {
            let spread = same(sockets).take(address.port(), shards).unwrap().unwrap();
            spread.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(counts(1, 4), [1, 1, 1, 1]);
        assert_eq!(counts(2, 4), [1, 1, 1, 1]);
        assert_eq!(counts(4, 4), [1, 1, 1, 1]);
        assert_eq!(counts(5, 2), [3, 2], "no socket may be left out: its connections would wait forever");
    }

    #[test]
    fn a_socket_of_another_port_is_not_taken() {
        let mut handed = handed(&["127.0.0.1:0"]);
        let address = handed.0[0].0;
        assert!(handed.take(address.port() ^ 1, 2).unwrap().is_none() && handed.take(0, 2).unwrap().is_none());
        assert_eq!(handed.unclaimed(), Some(address));
    }
}
