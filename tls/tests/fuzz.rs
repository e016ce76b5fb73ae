//! Runs the fuzz target `tls_door` with its stored inputs and with random inputs, so that every test run builds and
//! executes the target. `just fuzz tls_door` reaches more states.

#[path = "../../fuzz/src/replay.rs"]
#[allow(clippy::print_stdout, unreachable_pub, reason = "several tests share it")]
mod replay;
#[path = "../../fuzz/src/tls_door.rs"]
#[expect(unreachable_pub, reason = "in that crate, it is public")]
mod target;

use proptest::prelude::*;

#[test]
fn the_corpus_of_tls_door_passes() {
    replay::replay("tls_door", target::tls_door);
}

proptest! {
    // Each run has other inputs. A failure prints the shortest input that fails.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_end_only_the_connection(
        how in 0..4u8,
        seed: u8,
        bytes in prop::collection::vec(any::<u8>(), 0..4_000),
    ) {
        target::tls_door(&[&[how, seed][..], &bytes].concat());
    }

    #[test]
    fn damaged_first_flights_end_only_the_connection(seed: u8, bytes in prop::collection::vec(any::<u8>(), 0..12)) {
        target::tls_door(&[&[1, seed][..], &bytes].concat());
    }
}
