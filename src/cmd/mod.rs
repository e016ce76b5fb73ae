//! The subcommands, one module each: `Args` are its arguments, `run` executes it.

use std::io::Write;
use std::process::ExitCode;

use tokio::runtime::LocalOptions;

pub mod admin;
pub mod duration;
pub mod generate_peer_ids;
pub mod health;
mod http;
pub mod load_test;
pub mod peer;

/// Runs a tool on this thread, and returns its exit code.
pub fn block_on(tool: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime.block_on(tool),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "peerpigeon: cannot create a runtime: {error}");
            ExitCode::FAILURE
        }
    }
}
