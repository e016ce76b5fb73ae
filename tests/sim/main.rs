//! The rules of a hub, played out without a socket or a clock.
//!
//! Two ways to the same router. *Transcripts* are conversations, one behaviour each, in files that know nothing of
//! its interface. The *simulator* draws conversations by the thousand from seeds, loses, delays and interrupts
//! what a network can lose, delay and interrupt, and holds every output against the promises. A second one, in `mesh`,
//! has many hubs.

mod clients;
mod heard;
mod io;
mod mailbox;
mod mesh;
mod oracle;
mod plan;
mod rng;
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
                    super::check(concat!(stringify!($name), ".txt"), include_str!(concat!("transcripts/", stringify!($name), ".txt")));
                }
            )*

            /// A file that no test names would look like one that passes.
            #[test]
            fn every_file_is_played() {
                let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim/transcripts");
                for file in std::fs::read_dir(here).unwrap() {
                    let name = file.unwrap().file_name().into_string().unwrap();
                    assert!([$(concat!(stringify!($name), ".txt")),*].contains(&name.as_str()), "{name} is not in main.rs");
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
    goodbye
    ignored
    limits
    networks
    ping
    rate
    receipts
    resume
    signals
    takeover
    trust
}
