//! Tests of a hub's rules without sockets or clocks.
//!
//! Two drivers use the same router. *Transcripts* are conversations in files. Each scene of a transcript tests one
//! behaviour. Transcripts do not depend on the router's interface. The *simulator* generates thousands of conversations
//! from seeds. The simulator loses and delays data and interrupts connections, as networks do. The simulator checks
//! every output against the invariants. A second simulator, in `mesh`, runs many hubs.

mod clients;
mod heard;
mod io;
mod mailbox;
mod mesh;
mod oracle;
mod plan;
mod rng;
mod runs;
mod saboteur;
mod seeds;
mod transcript;
mod world;

use transcript::check;

macro_rules! transcripts {
    ($($name:ident)*) => {
        mod transcripts {
            $(
                #[test]
                fn $name() {
                    let text = include_str!(concat!("transcripts/", stringify!($name), ".txt"));
                    super::check(concat!(stringify!($name), ".txt"), text);
                }
            )*

            /// Without this check, nobody would notice a transcript that no test plays.
            #[test]
            fn every_file_is_played() {
                let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim/transcripts");
                for file in std::fs::read_dir(here).unwrap() {
                    let name = file.unwrap().file_name().into_string().unwrap();
                    let listed = [$(concat!(stringify!($name), ".txt")),*];
                    assert!(listed.contains(&name.as_str()), "{name} is not in main.rs");
                }
            }
        }
    };
}

transcripts! {
    announce
    bytes
    connect
    disconnect
    discovery
    drain
    errors
    grants
    goodbye
    ice
    ignored
    kick
    limits
    networks
    owner
    ping
    rate
    receipts
    resume
    signals
    takeover
    trust
}
