//! Finds the addresses of a host.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Resolves a host's addresses. `localhost` has the loopback addresses, and nothing is asked for it (RFC 6761 section
/// 6.3): in an image without `/etc/hosts` and `/etc/resolv.conf`, the system would wait for a DNS server for seconds.
///
/// # Errors
///
/// If the name is unknown, or DNS does not answer.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if is_localhost(host) {
        return Ok(loopback().into_iter().map(|address| (address, port).into()).collect());
    }
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

/// Whether a host is this machine by its name.
pub fn is_localhost(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
}

/// The loopback addresses of this machine. Many containers have no IPv6, so `::1` can be missing.
pub fn loopback() -> Vec<IpAddr> {
    let has = |address: &IpAddr| UdpSocket::bind((*address, 0)).is_ok();
    let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut found: Vec<IpAddr> = [v4, IpAddr::V6(Ipv6Addr::LOCALHOST)].into_iter().filter(has).collect();
    if found.is_empty() {
        found.push(v4);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_is_this_machine_without_a_resolver() {
        for host in ["localhost", "LocalHost"] {
            let addresses = resolve(host, 80).await.unwrap();
            assert!(addresses.contains(&"127.0.0.1:80".parse().unwrap()), "{addresses:?}");
            assert!(addresses.iter().all(|address| address.ip().is_loopback()), "{addresses:?}");
        }
        assert_eq!(resolve("127.0.0.2", 80).await.unwrap(), ["127.0.0.2:80".parse().unwrap()]);
        assert!(!is_localhost("localhost.example") && !is_localhost(""));
    }
}
