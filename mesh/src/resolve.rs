//! Finds the addresses of a host.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

/// Resolves a host's addresses. If there is no `/etc/hosts`, as in an empty container image, `localhost` gets the
/// loopback addresses (RFC 6761 section 6.3). Without this rule, the system would ask a DNS server for `localhost`, and
/// wait for seconds.
///
/// # Errors
///
/// Fails if the name is unknown, or if DNS does not answer.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    resolve_with(Path::new("/etc/hosts"), host, port).await
}

async fn resolve_with(hosts: &Path, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if is_localhost(host) && !hosts.exists() {
        return Ok(loopback().into_iter().map(|address| (address, port).into()).collect());
    }
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

/// Whether this host name is `localhost`, which means this machine.
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
    async fn localhost_is_this_machine_where_no_file_names_it() {
        let missing = Path::new("/no/such/file");
        for host in ["localhost", "LocalHost"] {
            let addresses = resolve_with(missing, host, 80).await.unwrap();
            assert_eq!(addresses, loopback().into_iter().map(|address| (address, 80).into()).collect::<Vec<_>>());
            assert!(addresses.contains(&"127.0.0.1:80".parse().unwrap()), "{addresses:?}");
        }
        assert_eq!(resolve_with(missing, "127.0.0.2", 80).await.unwrap(), ["127.0.0.2:80".parse().unwrap()]);
        assert!(!is_localhost("localhost.example") && !is_localhost(""));
    }
}
