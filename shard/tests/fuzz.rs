//! Runs the fuzz targets `http_head` and `jwt` with their stored inputs, and `http_head` with random inputs, so that
//! every test run builds and executes the targets. `just fuzz jwt` reaches more states.

#[path = "../../fuzz/src/jwt.rs"]
#[allow(clippy::expect_used, unreachable_pub, reason = "in that crate, it is public")]
mod jwt_target;
#[path = "../../fuzz/src/replay.rs"]
#[allow(clippy::print_stdout, unreachable_pub, reason = "several tests share it")]
mod replay;
#[path = "../../fuzz/src/http_head.rs"]
#[allow(clippy::expect_used, unreachable_pub, reason = "in that crate, it is public")]
mod target;

use proptest::prelude::*;

#[test]
fn the_corpus_of_http_head_passes() {
    replay::replay("http_head", target::http_head);
}

#[test]
fn the_corpus_of_jwt_passes() {
    replay::replay("jwt", jwt_target::jwt);
}

/// Parts of requests. Random sequences of such parts reach more code than random bytes, because the parser refuses
/// random bytes in the first line.
const PARTS: [&[u8]; 12] = [
    b"GET / HTTP/1.1\r\n",
    b"POST /ws HTTP/1.0\r\n",
    b"Host: hub\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: Upgrade, keep-alive\r\n",
    b"Sec-WebSocket-Protocol: peerpigeon-mesh.1\r\n",
    b"Authorization: Bearer t\r\n",
    b"PROXY TCP6 ::1 ::1 1 2\r\n",
    b"\r\n\r\n",
    b"\r\n",
    b"\x81\x85\0\0\0\0hello",
];

proptest! {
    // Each run has other random inputs. A failure prints the shortest input that fails.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_end_only_their_connection(
        how in 0..16u8,
        cut: u8,
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        target::http_head(&[&[how, cut][..], &bytes].concat());
    }

    #[test]
    fn random_requests_end_only_their_connection(
        how in 0..16u8,
        cut: u8,
        parts in prop::collection::vec((0..PARTS.len(), prop::collection::vec(any::<u8>(), 0..3)), 0..20),
    ) {
        let bytes = parts.iter().flat_map(|(part, noise)| [PARTS[*part], noise]).collect::<Vec<_>>().concat();
        target::http_head(&[&[how, cut][..], &bytes].concat());
    }
}
