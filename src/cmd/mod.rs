//! The subcommands, one module each: `Args` are its arguments, `run` executes it.

use std::io::{self, Write};
use std::process::ExitCode;

use tokio::runtime::LocalOptions;

pub mod admin;
pub mod completions;
pub mod doctor;
pub mod duration;
pub mod generate_peer_ids;
pub mod health;
mod http;
pub mod load_test;
pub mod man;
pub mod peer;

/// Runs a tool on this thread, and returns its exit code.
pub fn block_on(tool: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime.block_on(tool),
        Err(error) => {
            let _ = writeln!(io::stderr(), "peerpigeon: cannot create a runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The exit code of a tool that has printed what it was asked for. That the reader closes the pipe is no failure.
fn printed(result: io::Result<()>) -> ExitCode {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}
