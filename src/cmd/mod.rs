//! The subcommands, one module each. `Args` contains the arguments of a subcommand, and `run` executes it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use tokio::runtime::LocalOptions;

use crate::config::Token;

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
pub mod token;
pub mod top;

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

/// The exit code of a tool that has printed its output with this result. A write that failed because the reader has
/// closed the pipe is no failure.
fn printed(result: io::Result<()>) -> ExitCode {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

/// Returns the token of operators from `file`, or else from ADMIN_TOKEN. Returns `None` if the file or the variable is
/// empty.
///
/// # Errors
///
/// A sentence, if the file cannot be read, or the token is invalid.
fn admin_token(file: Option<&Path>, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<Token>, String> {
    let (from, token) = match file {
        Some(file) => {
            let token = std::fs::read_to_string(file);
            let from = file.display().to_string();
            (from.clone(), token.map_err(|error| format!("cannot read {from} ({error})"))?)
        }
        None => {
            let token = env("ADMIN_TOKEN").and_then(|token| token.into_string().ok());
            ("ADMIN_TOKEN".to_owned(), token.unwrap_or_default())
        }
    };
    if token.trim().is_empty() {
        return Ok(None);
    }
    Token::parse(&token).map(Some).map_err(|problem| format!("{from}: {problem}"))
}
