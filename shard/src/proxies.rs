//! Finds the client of a connection that arrives through proxies.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use hyper::header::{FORWARDED, HeaderMap, HeaderName};
use ipnet::IpNet;
use proto::limits::{MAX_FORWARDED_HOPS, PROXY_HEAD_TIMEOUT};
use proto::proxied::{BadProxyHead, MAX_PROXY_LINE, ProxyHead, forwarded, forwarded_for, proxy_head};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Proxies that are trusted to name their clients.
#[derive(Clone, Default, Debug)]
pub struct Proxies {
    /// The addresses of the proxies (TRUSTED_PROXIES).
    pub ranges: Vec<IpNet>,
    /// The ports at which the proxies use the PROXY protocol (PROXY_PROTOCOL).
    pub ports: Vec<u16>,
}

/// The error for a trusted proxy that names two clients in two headers, or that sends a malformed header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unclear;

impl Unclear {
    /// A sentence for the client and for the log.
    pub(crate) const EXPLAINED: &str = "X-Forwarded-For and Forwarded name two different clients, or one of them is \
        malformed: the proxy must delete the header that it does not write";
}

/// Why a connection has no head of the PROXY protocol.
#[derive(Debug)]
pub(crate) enum NoHead {
    Bad(BadProxyHead),
    /// The head did not arrive in time, or the connection ended before the end of the head.
    Absent,
    /// The connection ended before any data had arrived, as after the health check of a load balancer.
    Gone,
}

impl NoHead {
    pub(crate) const fn explain(&self) -> &'static str {
        match self {
            Self::Bad(bad) => bad.explain(),
            Self::Absent | Self::Gone => "the proxy's PROXY head did not arrive in time",
        }
    }
}

impl Proxies {
    /// Whether this address belongs to a trusted proxy. An IPv4-mapped IPv6 address counts as IPv4.
    pub(crate) fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.ranges.iter().any(|range| range.contains(&address))
    }

    /// Whether a request comes from a trusted proxy that reports that its client uses TLS.
    pub(crate) fn end_tls(&self, hop: IpAddr, headers: &HeaderMap) -> bool {
        self.trust(hop)
            && headers.get(X_FORWARDED_PROTO).is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
    }

    /// Whether this address seems to belong to a proxy that the operator has not configured. An address seems to belong
    /// to a proxy if TRUSTED_PROXIES is empty, the address is internal, and its request names a client. Hubs behind a
    /// proxy worked without TRUSTED_PROXIES before hubs had limits per address, and must continue to work.
    pub(crate) fn seem_to_miss(&self, hop: IpAddr, headers: &HeaderMap) -> bool {
        self.ranges.is_empty()
            && (headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(FORWARDED))
            && is_internal(hop)
    }

    /// Whether a connection must begin with a head of the PROXY protocol.
    pub(crate) fn expect_head(&self, port: u16, address: IpAddr) -> bool {
        self.ports.contains(&port) && self.trust(address)
    }

    /// Finds the client of a request. The client is the first address, seen from the hub, that does not belong to a
    /// trusted proxy. Addresses behind the client are not trustworthy, because the client could have written them.
    pub(crate) fn client(&self, hop: SocketAddr, headers: &HeaderMap) -> Result<SocketAddr, Unclear> {
        if self.ranges.is_empty() || !self.trust(hop.ip()) {
            return Ok(hop);
        }
        let mut clients = [X_FORWARDED_FOR, FORWARDED].map(|name| headers.contains_key(name).then_some(hop));
        let [ours, standard] = &mut clients;
        if let Some(client) = ours {
            let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
            *client = self.first_stranger(hop, lines.flat_map(|line| forwarded_for(line.as_bytes())));
        }
        if let Some(client) = standard {
            let lines = headers.get_all(FORWARDED).iter().rev();
            let named = lines.map(|line| forwarded(line.as_bytes())).collect::<Option<Vec<_>>>().ok_or(Unclear)?;
            *client = self.first_stranger(hop, named.into_iter().flatten());
        }
        match clients {
            // A proxy writes one of the two headers, and forwards the other header as the client sent it. So if the
            // headers name different clients, the hub cannot know which one is right.
            [Some(one), Some(other)] if one.ip() != other.ip() => Err(Unclear),
            [one, other] => Ok(one.or(other).unwrap_or(hop)),
        }
    }

    /// `named` contains the clients that the proxies name, beginning with the client of the last proxy.
    fn first_stranger(&self, hop: SocketAddr, named: impl Iterator<Item = Option<SocketAddr>>) -> SocketAddr {
        let mut client = hop;
        for named in named.take(MAX_FORWARDED_HOPS).map_while(|named| named) {
            client = named;
            if !self.trust(client.ip()) {
                break;
            }
        }
        client
    }
}

/// Whether an address is private (RFC 1918, RFC 4193), shared by customers of a carrier (RFC 6598), link-local, or an
/// address of this machine.
fn is_internal(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            let is_shared = first == 100 && second & 0xc0 == 64;
            address.is_loopback() || address.is_private() || address.is_link_local() || is_shared
        }
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
}

/// Reads the PROXY head of a connection that was accepted at `since`, and no further bytes. Returns the client's
/// address if the head has one.
pub(crate) async fn read_head(stream: &mut TcpStream, since: Instant) -> Result<Option<SocketAddr>, NoHead> {
    let deadline = tokio::time::Instant::from_std(since + PROXY_HEAD_TIMEOUT);
    tokio::time::timeout_at(deadline, read(stream)).await.unwrap_or(Err(NoHead::Absent))
}

async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, NoHead> {
    let mut head = Vec::new();
    loop {
        let more = match proxy_head(&head).map_err(NoHead::Bad)? {
            ProxyHead::Whole(client) => return Ok(client),
            ProxyHead::Needs(length) => length - head.len(),
            ProxyHead::NeedsLine => {
                let mut ahead = [0; MAX_PROXY_LINE];
                let arrived = stream.peek(&mut ahead).await.map_err(|_| NoHead::Absent)?;
                let line = ahead[..arrived].iter().position(|c| *c == b'\n').map_or(arrived, |end| end + 1);
                // At the end of the connection, `arrived` is 0. Then the read below fails.
                line.clamp(1, MAX_PROXY_LINE - head.len().min(MAX_PROXY_LINE - 1))
            }
        };
        let had = head.len();
        head.resize(had + more, 0);
        let read = stream.read_exact(&mut head[had..]).await;
        read.map_err(|_| if had == 0 { NoHead::Gone } else { NoHead::Absent })?;
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn proxies(ranges: &[&str]) -> Proxies {
        Proxies { ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(), ports: vec![443] }
    }

    fn client(proxies: &Proxies, hop: &str, lines: &[(&'static str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let hop = format!("{hop}:1").parse().unwrap();
        proxies.client(hop, &headers).ok().map(|client| client.ip().to_string())
    }

    #[test]
    fn unconfigured_proxies_are_detected_by_an_internal_address_and_a_named_client() {
        let named = |name: &'static str| {
            HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static("203.0.113.9"))])
        };
        for (hop, is_internal) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("172.16.0.1", true),
            ("192.168.7.7", true),
            ("100.64.0.1", true),
            ("169.254.1.1", true),
            ("::ffff:10.1.2.3", true),
            ("::1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("172.32.0.1", false),
            ("100.128.0.1", false),
            ("203.0.113.9", false),
            ("2001:db8::1", false),
        ] {
            let seems = |proxies: &Proxies, headers: &HeaderMap| proxies.seem_to_miss(hop.parse().unwrap(), headers);
            assert_eq!(seems(&proxies(&[]), &named(XFF)), is_internal, "{hop}");
            assert_eq!(seems(&proxies(&[]), &named(RFC)), is_internal, "{hop}");
            assert!(!seems(&proxies(&[]), &named("accept")), "{hop}");
            assert!(!seems(&proxies(&["192.0.2.1/32"]), &named(XFF)), "{hop}: the operator has named the proxies");
        }
    }

    const XFF: &str = "x-forwarded-for";
    const RFC: &str = "forwarded";

    #[test]
    fn the_last_untrusted_address_is_the_client() {
        let proxies = proxies(&["10.0.0.0/8", "2001:db8::/32"]);
        for (hop, lines, expected) in [
            // An untrusted address cannot name a client.
            ("192.0.2.1", &[(XFF, "203.0.113.9"), (RFC, "for=203.0.113.9")][..], "192.0.2.1"),
            ("[::1]", &[(XFF, "203.0.113.9")], "::1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("[::ffff:10.0.0.1]", &[(XFF, "203.0.113.9")], "203.0.113.9"),
            ("10.0.0.1", &[(XFF, "203.0.113.9")], "203.0.113.9"),
            // The client's own entries come before the entries that the proxy appends, in the same line or in an
            // earlier line.
            ("10.0.0.1", &[(XFF, "1.2.3.4, 10.9.9.9, 203.0.113.9, 10.0.0.2")], "203.0.113.9"),
            ("10.0.0.1", &[(XFF, "1.2.3.4"), (XFF, "203.0.113.9"), (XFF, "10.0.0.2")], "203.0.113.9"),
            ("10.0.0.1", &[(XFF, "10.0.0.3,10.0.0.2")], "10.0.0.3"),
            ("10.0.0.1", &[(XFF, "1.2.3.4,unknown,10.0.0.2")], "10.0.0.2"),
            ("10.0.0.1", &[(RFC, "for=1.2.3.4, for=203.0.113.9;proto=https")], "203.0.113.9"),
            ("10.0.0.1", &[(RFC, "for=\"1.2.3.4\""), (RFC, "for=\"[2001:db9::7]:443\"")], "2001:db9::7"),
            ("[2001:db8::1]", &[(XFF, "203.0.113.9"), (RFC, "for=203.0.113.9")], "203.0.113.9"),
        ] {
            assert_eq!(client(&proxies, hop, lines).as_deref(), Some(expected), "{hop} {lines:?}");
        }
        // The proxy wrote one of the two headers, and the client wrote the other.
        for lines in [
            [(XFF, "203.0.113.9"), (RFC, "for=1.2.3.4")],
            [(XFF, "203.0.113.9"), (RFC, "for=\"1.2.3.4")],
            [(XFF, "203.0.113.9"), (RFC, "for=_hidden")],
        ] {
            assert_eq!(client(&proxies, "10.0.0.1", &lines), None, "{lines:?}");
        }
        assert_eq!(client(&proxies, "10.0.0.1", &[(RFC, "for=\"1.2.3.4"), (RFC, "for=203.0.113.9")]), None);
    }

    #[test]
    fn only_the_end_of_a_long_list_is_read() {
        let proxies = proxies(&["10.0.0.0/8"]);
        let list = |hops: usize| format!("203.0.113.9{}", ",10.0.0.2".repeat(hops));
        assert_eq!(
            client(&proxies, "10.0.0.1", &[(XFF, &list(MAX_FORWARDED_HOPS - 1))]).as_deref(),
            Some("203.0.113.9")
        );
        assert_eq!(client(&proxies, "10.0.0.1", &[(XFF, &list(MAX_FORWARDED_HOPS))]).as_deref(), Some("10.0.0.2"));
    }

    /// The bytes after the head are left for the next reader, no matter how the data is split into packets.
    #[test]
    fn a_head_is_read_and_the_bytes_after_it_are_left() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let v1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec();
        let v2 =
            [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb]].concat();
        runtime.block_on(async {
            for (head, piece) in [(&v1, 1), (&v1, 7), (&v1, 200), (&v2, 1), (&v2, 13), (&v2, 200)] {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let mut proxy = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                proxy.set_nodelay(true).unwrap();
                let (mut hub, _) = listener.accept().await.unwrap();
                let bytes = [&head[..], b"GET / HTTP/1.1\r\n"].concat();
                let write = async {
                    for piece in bytes.chunks(piece) {
                        proxy.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                };
                let (read, ()) = tokio::join!(read_head(&mut hub, Instant::now()), write);
                assert_eq!(read.unwrap(), Some("192.0.2.7:56324".parse().unwrap()), "{piece}");
                let mut rest = [0; 16];
                hub.read_exact(&mut rest).await.unwrap();
                assert_eq!(&rest, b"GET / HTTP/1.1\r\n", "{piece}");
            }
            // A head that does not arrive completely in time, a truncated head, and bytes that are not a head.
            for (bytes, late) in
                [(&b"PROXY TCP4 1"[..], true), (b"PROXY TCP4 1", false), (b"GET / HTTP/1.1\r\n", false)]
            {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let mut proxy = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let (mut hub, _) = listener.accept().await.unwrap();
                proxy.write_all(bytes).await.unwrap();
                if !late {
                    proxy.shutdown().await.unwrap();
                }
                let since = if late { Instant::now() - PROXY_HEAD_TIMEOUT } else { Instant::now() };
                let no = read_head(&mut hub, since).await.unwrap_err();
                let is_missing = bytes.starts_with(b"GET");
                assert_eq!(matches!(no, NoHead::Bad(BadProxyHead::Missing)), is_missing, "{no:?}");
            }
        });
    }
}
