//! Listeners: one per address and shard.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Maximum number of connections that the kernel queues for a listener. Linux caps it at `somaxconn` (4,096).
const BACKLOG: i32 = 4096;

/// Binds `address` once per shard. The kernel spreads connections over these listeners.
///
/// # Errors
///
/// If the address cannot be bound, for example because it is in use. SO_REUSEPORT would silently let a second hub share
/// the port, so the address is first bound without that option.
pub fn bind(address: SocketAddr, shards: u16) -> io::Result<Vec<TcpListener>> {
    let exclusive = open(address, false)?;
    let bound = exclusive.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    if shards == 1 {
        exclusive.listen(BACKLOG)?;
        return Ok(vec![exclusive.into()]);
    }
    drop(exclusive);
    (0..shards)
        .map(|_| {
            let socket = open(bound, true)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

/// Prepares a listener that another process, such as systemd, has opened.
///
/// # Errors
///
/// If the socket does not listen.
pub fn take_over(listener: TcpListener) -> io::Result<TcpListener> {
    if !SockRef::from(&listener).is_listener()? {
        return Err(io::Error::other("the socket is a connection, not a listener"));
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn open(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `::` means every address of both families, even if the system's default is different.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};

    use super::*;

    #[test]
    fn a_port_in_use_is_refused_whatever_the_number_of_shards() {
        for (first, second) in [(1, 1), (1, 3), (3, 1), (3, 3)] {
            let listeners = bind((Ipv4Addr::LOCALHOST, 0).into(), first).unwrap();
            let address = listeners[0].local_addr().unwrap();
            let error = bind(address, second).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{first} and {second} shards");
        }
    }

    #[test]
    fn the_wildcard_address_covers_both_families() {
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
            return;
        }
        for shards in [1, 3] {
            let listeners = bind((Ipv6Addr::UNSPECIFIED, 0).into(), shards).unwrap();
            let port = listeners[0].local_addr().unwrap().port();
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();

            let listeners = bind((Ipv6Addr::LOCALHOST, 0).into(), shards).unwrap();
            let port = listeners[0].local_addr().unwrap().port();
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
        }
    }
}
