//! Runs the fuzz target `tls_door` with its kept inputs and with some random ones, so that every test run builds and
//! executes it. `just fuzz tls_door` reaches more states.

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
    #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(1), ..ProptestConfig::default() })]

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
