//! Parses the client address that a proxy sends with the PROXY protocol, with `Forwarded` or with `X-Forwarded-For`.
//!
//! The callers of this module decide which proxies to trust.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits::MAX_PROXY_HEAD_BYTES;

/// The first bytes of a PROXY head of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The first bytes of a PROXY head of version 1.
const FIRST_WORD: &[u8] = b"PROXY ";

/// Maximum length of a PROXY head of version 1, in bytes, including its end of line.
pub const MAX_PROXY_LINE: usize = 107;

/// Length of a PROXY head of version 2 without its addresses, in bytes.
const FIXED: usize = 16;

/// The progress of reading the PROXY head of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyHead {
    /// The head is incomplete, and has at least this number of bytes. Do not read more: later bytes may not belong to
    /// the head.
    Needs(usize),
    /// The head ends with the next end of line (`\r\n`), which has not arrived.
    NeedsLine,
    /// The head is complete. The value is the client's address. The value is `None` if the proxy connects on its own
    /// behalf, as in health checks, or does not know the client.
    Whole(Option<SocketAddr>),
}

/// Why bytes are not a PROXY head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadProxyHead {
    /// The bytes do not begin like a head, so the proxy does not use the PROXY protocol.
    Missing,
    /// The head is longer than [`MAX_PROXY_HEAD_BYTES`] (version 2) or [`MAX_PROXY_LINE`] (version 1).
    TooLong,
    /// The head violates the protocol.
    Malformed,
}

impl BadProxyHead {
    /// A sentence for the operator.
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Missing => {
                "the proxy sent no PROXY head: configure it to send one (send-proxy-v2), or remove the port from \
                    PROXY_PROTOCOL"
            }
            Self::TooLong => "the proxy's PROXY head is too long: configure the proxy to send fewer TLVs",
            Self::Malformed => {
                "the proxy's PROXY head violates the protocol: configure the proxy to send version 1 or 2"
            }
        }
    }
}

/// Parses the first bytes of a connection as the head of the PROXY protocol, version 1 or 2 (HAProxy's
/// `proxy-protocol.txt`).
///
/// # Errors
///
/// If the bytes cannot be the beginning of a valid head.
pub fn proxy_head(bytes: &[u8]) -> Result<ProxyHead, BadProxyHead> {
    if bytes.is_empty() {
        return Ok(ProxyHead::Needs(FIRST_WORD.len()));
    }
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, expected)| byte == expected);
    if begins(&SIGNATURE) {
        // The first 16 bytes of the head contain its length. Until 16 bytes have arrived, the caller must read more.
        let Some(fixed) = bytes.first_chunk::<FIXED>() else { return Ok(ProxyHead::Needs(FIXED)) };
        let &[.., command, family, high, low] = fixed;
        let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
        if length > MAX_PROXY_HEAD_BYTES {
            return Err(BadProxyHead::TooLong);
        }
        return match bytes.get(FIXED..length) {
            Some(addresses) => version_2(command, family, addresses).map(ProxyHead::Whole),
            None => Ok(ProxyHead::Needs(length)),
        };
    }
    if !begins(FIRST_WORD) {
        return Err(BadProxyHead::Missing);
    }
    let line = &bytes[..bytes.len().min(MAX_PROXY_LINE)];
    match line.windows(2).position(|end| end == b"\r\n") {
        Some(end) => version_1(&line[..end]).map(ProxyHead::Whole),
        None if bytes.len() >= MAX_PROXY_LINE => Err(BadProxyHead::TooLong),
        None if bytes.len() < FIRST_WORD.len() => Ok(ProxyHead::Needs(FIRST_WORD.len())),
        None => Ok(ProxyHead::NeedsLine),
    }
}

fn version_1(line: &[u8]) -> Result<Option<SocketAddr>, BadProxyHead> {
    let line = str::from_utf8(line).map_err(|_| BadProxyHead::Malformed)?;
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next().ok_or(BadProxyHead::Malformed);
    let family = word()?;
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let (source, destination) = (word()?, word()?);
    let (source_port, destination_port) = (word()?, word()?);
    let is_family = |address: &str| match family {
        "TCP4" => address.parse::<Ipv4Addr>().map(IpAddr::V4).ok(),
        "TCP6" => address.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
        _ => None,
    };
    let parsed = (is_family(source), is_family(destination), port(source_port), port(destination_port), words.next());
    let (Some(source), Some(_), Some(port), Some(_), None) = parsed else { return Err(BadProxyHead::Malformed) };
    Ok(Some(SocketAddr::new(source.to_canonical(), port)))
}

fn version_2(command: u8, family: u8, addresses: &[u8]) -> Result<Option<SocketAddr>, BadProxyHead> {
    let is_proxied = match command {
        0x20 => false,
        0x21 => true,
        _ => return Err(BadProxyHead::Malformed),
    };
    if !matches!(family >> 4, 0..=3) || !matches!(family & 0xf, 0..=2) {
        return Err(BadProxyHead::Malformed);
    }
    // The addresses are the source, the destination, and their ports. Datagrams and UNIX sockets have no client
    // address.
    let (source, port) = match (is_proxied, family) {
        (true, 0x11) => {
            let Some(&[a, b, c, d, _, _, _, _, high, low, _, _]) = addresses.first_chunk() else {
                return Err(BadProxyHead::Malformed);
            };
            (IpAddr::from([a, b, c, d]), u16::from_be_bytes([high, low]))
        }
        (true, 0x21) => {
            let (Some(source), Some(&[high, low])) =
                (addresses.first_chunk::<16>(), addresses.get(32..).and_then(|ports| ports.first_chunk::<2>()))
            else {
                return Err(BadProxyHead::Malformed);
            };
            if addresses.len() < 36 {
                return Err(BadProxyHead::Malformed);
            }
            (IpAddr::from(*source), u16::from_be_bytes([high, low]))
        }
        _ => return Ok(None),
    };
    Ok(Some(SocketAddr::new(source.to_canonical(), port)))
}

/// Parses a decimal number without a sign.
fn port(text: &str) -> Option<u16> {
    text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The clients in a value of `X-Forwarded-For`, the last one first, because each proxy appends the address that it
/// sees. An entry without an address is `None`.
pub fn forwarded_for(value: &[u8]) -> impl Iterator<Item = Option<SocketAddr>> {
    value.rsplit(|c| *c == b',').map(|entry| node(entry.trim_ascii(), false))
}

/// The clients in a value of `Forwarded` (RFC 7239), the last one first. An entry without an address is `None`. An
/// entry has no address if its client is unknown or obfuscated, or if `for` is missing.
///
/// Returns `None` if the value violates the grammar. So a client cannot hide the entries of the proxy by sending an
/// opening quotation mark without a closing one.
pub fn forwarded(value: &[u8]) -> Option<impl Iterator<Item = Option<SocketAddr>>> {
    let mut clients = Vec::new();
    for element in split(value, b',')? {
        let mut client = None;
        for pair in split(element, b';')?.into_iter().map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_at(pair.iter().position(|c| *c == b'=')?);
            if name.trim_ascii().eq_ignore_ascii_case(b"for") {
                let value = value[1..].trim_ascii();
                let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
                client = node(bare.unwrap_or(value), true);
            }
        }
        clients.push(client);
    }
    Some(clients.into_iter().rev())
}

/// Splits a text at separators outside of quotations. Returns `None` if a quotation does not end.
fn split(text: &[u8], at: u8) -> Option<Vec<&[u8]>> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (i, c) in text.iter().enumerate() {
        match c {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            c if *c == at && !quoted => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!quoted).then_some(parts)
}

/// Parses an address with or without a port, such as `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]` or
/// `[2001:db8::1]:80`. Only `X-Forwarded-For` has IPv6 addresses without brackets.
fn node(text: &[u8], brackets: bool) -> Option<SocketAddr> {
    let text = str::from_utf8(text).ok()?;
    let (address, after) = if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        (IpAddr::V6(address.parse().ok()?), after)
    } else if let Ok(address) = text.parse::<Ipv6Addr>() {
        (IpAddr::V6((!brackets).then_some(address)?), "")
    } else {
        let end = text.find(':').unwrap_or(text.len());
        (IpAddr::V4(text[..end].parse().ok()?), &text[end..])
    };
    let port = match after.strip_prefix(':') {
        // RFC 7239 also allows an obfuscated name in place of a port. It counts as port 0.
        Some(after) => port(after).unwrap_or(0),
        None => after.is_empty().then_some(0)?,
    };
    Some(SocketAddr::new(address.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    fn head(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let mut head = SIGNATURE.to_vec();
        head.extend([command, family]);
        head.extend((addresses.len() as u16).to_be_bytes());
        head.extend(addresses);
        head
    }

    #[test]
    fn a_line_of_version_1_names_the_client() {
        for (line, client) in [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", address("192.0.2.7:56324")),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n", address("[2001:db8::7]:56324")),
            ("PROXY TCP6 ::ffff:192.0.2.7 ::ffff:10.0.0.1 1 2\r\n", address("192.0.2.7:1")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff:f...f:ffff ffff 65535 65535\r\nGET", None),
        ] {
            assert_eq!(proxy_head(line.as_bytes()), Ok(ProxyHead::Whole(client)), "{line}");
        }
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 5\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY  TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY \u{e9}\r\n",
        ] {
            assert_eq!(proxy_head(line.as_bytes()), Err(BadProxyHead::Malformed), "{line}");
        }
        let longest = format!("PROXY UNKNOWN {}", "x".repeat(MAX_PROXY_LINE - 14 - 2));
        assert_eq!(proxy_head(format!("{longest}\r\n").as_bytes()), Ok(ProxyHead::Whole(None)));
        assert_eq!(proxy_head(format!("{longest}x\r\n").as_bytes()), Err(BadProxyHead::TooLong));
    }

    #[test]
    fn a_head_of_version_2_names_the_client() {
        let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        v6[33] = 80;
        let with_more = [&v4[..], &[3, 0, 4, 0xde, 0xad, 0xbe, 0xef]].concat();
        for (command, family, addresses, client) in [
            (0x21, 0x11, &v4[..], address("192.0.2.7:56324")),
            (0x21, 0x11, &with_more, address("192.0.2.7:56324")),
            (0x21, 0x21, &v6, address("[2001:db8::7]:80")),
            (0x20, 0x00, &[], None),
            (0x20, 0x11, &v4, None),
            (0x21, 0x00, &[], None),
            (0x21, 0x12, &v4, None),
            (0x21, 0x31, &[0; 216], None),
        ] {
            let bytes = [&head(command, family, addresses)[..], b"GET /"].concat();
            assert_eq!(proxy_head(&bytes), Ok(ProxyHead::Whole(client)), "{command:#x} {family:#x}");
        }
        for (command, family, addresses) in [
            (0x11, 0x11, &v4[..]),
            (0x22, 0x11, &v4),
            (0x21, 0x41, &v4),
            (0x21, 0x13, &v4),
            (0x21, 0x11, &v4[1..]),
            (0x21, 0x21, &v6[1..]),
        ] {
            let bytes = head(command, family, addresses);
            assert_eq!(proxy_head(&bytes), Err(BadProxyHead::Malformed), "{command:#x} {family:#x}");
        }
        let most = MAX_PROXY_HEAD_BYTES - FIXED;
        assert_eq!(proxy_head(&head(0x20, 0, &vec![0; most])), Ok(ProxyHead::Whole(None)));
        assert_eq!(proxy_head(&head(0x20, 0, &vec![0; most + 1])[..FIXED]), Err(BadProxyHead::TooLong));
    }

    #[test]
    fn an_invalid_head_is_refused_at_its_first_wrong_byte() {
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"PROXZ", b"P\r", &[0x16, 3, 1], b"\r\n\r\n\0\r\nQUIT\r"] {
            assert_eq!(proxy_head(bytes), Err(BadProxyHead::Missing), "{bytes:?}");
        }
        assert_eq!(proxy_head(b""), Ok(ProxyHead::Needs(6)));
        assert_eq!(proxy_head(b"PRO"), Ok(ProxyHead::Needs(6)));
        assert_eq!(proxy_head(b"PROXY TCP4 1"), Ok(ProxyHead::NeedsLine));
        assert_eq!(proxy_head(&head(0x21, 0x11, &[0; 12])[..20]), Ok(ProxyHead::Needs(28)));
    }

    #[test]
    fn the_address_of_the_last_proxy_is_first() {
        let clients = |value: &str| forwarded_for(value.as_bytes()).collect::<Vec<_>>();
        assert_eq!(
            clients("evil, 203.0.113.9:1234 ,2001:db8::1, [2001:db8::2]:80,::ffff:10.0.0.1"),
            [
                address("10.0.0.1:0"),
                address("[2001:db8::2]:80"),
                address("[2001:db8::1]:0"),
                address("203.0.113.9:1234"),
                None
            ]
        );
        assert_eq!(clients(""), [None]);
        assert_eq!(clients("1.2.3.4:x"), [address("1.2.3.4:0")]);
        for nonsense in ["1.2.3", "1.2.3.4 5.6.7.8", "[::1", "[1.2.3.4]", "::1]", "1.2.3.4/8", "[::1]x", "localhost"] {
            assert_eq!(clients(nonsense), [None], "{nonsense}");
        }
    }

    #[test]
    fn a_forwarded_header_is_parsed_by_the_grammar_of_rfc_7239() {
        let clients = |value: &str| forwarded(value.as_bytes()).map(Iterator::collect::<Vec<_>>);
        for (value, expected) in [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", &[address("192.0.2.60:0")][..]),
            (
                r#"for=192.0.2.43, for="[2001:db8:cafe::17]:4711""#,
                &[address("[2001:db8:cafe::17]:4711"), address("192.0.2.43:0")],
            ),
            (r#"For="192.0.2.43:80" ; by=x,for=_hidden, for=unknown"#, &[None, None, address("192.0.2.43:80")]),
            ("proto=https", &[None]),
            (r#"host="a,for=1.2.3.4;";for=5.6.7.8"#, &[address("5.6.7.8:0")]),
            (r#"host="\",for=1.2.3.4";for=5.6.7.8"#, &[address("5.6.7.8:0")]),
            ("for=2001:db8::1", &[None]),
            ("", &[None]),
        ] {
            assert_eq!(clients(value).as_deref(), Some(expected), "{value}");
        }
        // A client may begin a quoted string and not end it. The proxy's entries after the open string must not become
        // part of the string.
        for broken in [r#"for="x, for=5.6.7.8"#, r#"for="x\", for=5.6.7.8"#, "for, for=5.6.7.8"] {
            assert_eq!(clients(broken), None, "{broken}");
        }
    }
}
