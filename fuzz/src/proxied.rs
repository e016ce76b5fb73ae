use proto::limits::MAX_PROXY_HEAD_BYTES;
use proto::proxied::{ProxyHead, forwarded, forwarded_for, proxy_head};

/// The parser must give the same result for a PROXY head in one piece and byte by byte. The parser must never request
/// more bytes than a head can have, or bytes after the head. The target also parses the bytes as `Forwarded` and
/// `X-Forwarded-For`.
pub fn proxied(bytes: &[u8]) {
    let whole = proxy_head(bytes);
    let mut end = None;
    for length in 0..=bytes.len() {
        match proxy_head(&bytes[..length]) {
            Ok(ProxyHead::Needs(more)) => assert!(
                length < more && more <= MAX_PROXY_HEAD_BYTES,
                "the parser requests {more} bytes after {length} bytes"
            ),
            Ok(ProxyHead::NeedsLine) => {
                assert!(length < MAX_PROXY_HEAD_BYTES, "the parser requests a line after {length} bytes")
            }
            found => {
                end = Some((length, found));
                break;
            }
        }
    }
    match end {
        Some((_, found)) => assert_eq!(found, whole, "of {bytes:02x?}"),
        None => assert!(matches!(whole, Ok(ProxyHead::Needs(_) | ProxyHead::NeedsLine)), "{whole:?} of {bytes:02x?}"),
    }
    if let Some((length, Ok(ProxyHead::Whole(_)))) = end {
        // A reader that reads only the requested bytes never reads a byte after the head.
        let mut read = 0;
        loop {
            match proxy_head(&bytes[..read]) {
                Ok(ProxyHead::Needs(more)) => read = more,
                Ok(ProxyHead::NeedsLine) => read += 1,
                _ => break,
            }
            assert!(read <= length, "{read} of {length} bytes");
        }
    }
    assert!(forwarded_for(bytes).count() <= bytes.len() + 1);
    if let Some(clients) = forwarded(bytes) {
        assert!(clients.count() <= bytes.len() + 1);
    }
}
