//! The subcommands, one module each: `Args` is what the command line says, `run` does it.

pub mod duration;
pub mod generate_peer_ids;
pub mod peer;
