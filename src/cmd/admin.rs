//! The command `peerpigeon admin` sends orders to a running hub.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use hyper::{Request, StatusCode, Uri};
use mesh::{ConnectError, Tls};
use proto::{NetworkName, Order, PeerId, Redacted};
use serde::{Deserialize, Serialize};

use super::http;
use crate::admin::{Act, span};
use crate::config::{Token, certificates};

/// Maximum time for an answer. A hub answers each order within 20 s.
const PATIENCE: Duration = Duration::from_secs(25);

/// Exit code if the peer of an order is not connected, is at another hub, or is not in the network.
const NOT_THERE: u8 = 2;

/// Order a running hub to remove a peer, close a network or drain
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Without --token-file, the variable ADMIN_TOKEN contains the token of the hub.\n\nExit codes: 0 done; \
        1 refused or no answer; 2 no such peer or member at this hub; 64 invalid command line."
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Remove a peer from a hub, or from one of its networks
    Kick {
        #[command(flatten)]
        hub: HubArgs,
        /// Id of the peer, 40 hexadecimal digits
        #[arg(value_name = "PEER")]
        peer: PeerId,
        /// Network that the peer is removed from [default: the whole hub]
        #[arg(long, value_parser = network)]
        network: Option<NetworkName>,
        /// Seconds for which the peer may not return; 0 ends an earlier exclusion [default: the peer may return at
        /// once]
        #[arg(long, value_name = "SECONDS", value_parser = span)]
        secs: Option<Duration>,
    },
    /// Remove all peers of a hub from a network
    CloseNetwork {
        #[command(flatten)]
        hub: HubArgs,
        /// Name of the network
        #[arg(value_parser = network)]
        network: NetworkName,
        /// Seconds for which nobody may join the network; 0 ends an earlier exclusion [default: everybody may join at
        /// once]
        #[arg(long, value_name = "SECONDS", value_parser = span)]
        secs: Option<Duration>,
    },
    /// Close all connections of a hub and refuse new ones; the hub keeps running
    Drain {
        #[command(flatten)]
        hub: HubArgs,
        /// Seconds over which the connections are closed [default: DRAIN_SECS of the hub]
        #[arg(long, value_name = "SECONDS", value_parser = span)]
        secs: Option<Duration>,
    },
    /// End the drain of a hub
    Undrain {
        #[command(flatten)]
        hub: HubArgs,
    },
}

#[derive(clap::Args, Debug)]
struct HubArgs {
    /// URL at which the hub serves the pages of operators (ADMIN_PORT, or else PORT), such as http://localhost:8082
    #[arg(value_name = "URL", value_parser = http::url)]
    url: Uri,

    /// File with the ADMIN_TOKEN of the hub
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// File with additional CA certificates (PEM) for https://
    #[arg(long, value_name = "FILE", value_parser = certificates)]
    ca: Option<Arc<[u8]>>,

    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// The order to send, and the hub that receives it.
#[derive(Debug)]
pub struct Question {
    hub: Uri,
    ca: Option<Arc<[u8]>>,
    json: bool,
    token: Token,
    act: Act,
}

/// The part of an answer that this tool prints for people.
#[derive(Deserialize)]
struct Answer {
    message: String,
}

/// The output for `--json` if the hub sends no answer, or an answer that is not JSON.
#[derive(Serialize)]
struct Refused<'a> {
    act: &'static str,
    outcome: &'static str,
    message: &'a str,
}

fn network(name: &str) -> Result<NetworkName, &'static str> {
    match NetworkName::resolve(Some(name)) {
        Some(resolved) if !name.trim().is_empty() => Ok(NetworkName::new(resolved)),
        Some(_) => Err("the name is blank: give the name of a network, such as global"),
        None => Err("the name is too long: give at most 256 bytes"),
    }
}

impl Args {
    /// The request for this command line. `env` returns a variable by its name.
    ///
    /// # Errors
    ///
    /// A sentence about the token, if there is none, or if it is invalid.
    pub fn question(self, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Question, String> {
        let (hub, act) = match self.command {
            Command::Kick { hub, peer, network, secs } => {
                (hub, Act::Order(Order::Kick { peer, network, out_for: secs }))
            }
            Command::CloseNetwork { hub, network, secs } => {
                (hub, Act::Order(Order::CloseNetwork { network, out_for: secs }))
            }
            Command::Drain { hub, secs } => (hub, Act::Drain { over: secs }),
            Command::Undrain { hub } => (hub, Act::Undrain),
        };
        let HubArgs { url, token_file, ca, json } = hub;
        let from = token_file.as_ref().map_or_else(|| "ADMIN_TOKEN".to_owned(), |file| file.display().to_string());
        let token = super::admin_token(token_file.as_deref(), env)?.ok_or_else(|| {
            format!("{from} has no token: set ADMIN_TOKEN, or use --token-file with the token of the hub")
        })?;
        Ok(Question { hub: url, ca, json, token, act })
    }
}

/// Sends the order, and prints the answer.
pub async fn run(question: Question) -> ExitCode {
    let Question { hub, ca, json, token, act } = question;
    let path = format!("{}/admin/{}", hub.path().trim_end_matches('/'), act.label());
    let request = Request::post(path)
        .header(AUTHORIZATION, format!("Bearer {}", token.expose()))
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    let asked = http::ask(&hub, request, act.form().into(), || Tls::new(ca.as_deref()), &[], PATIENCE).await;
    let (status, text) = match asked {
        Ok(answer) => answer,
        Err(problem) => {
            let problem = if matches!(problem, ConnectError::Late) {
                format!("no answer within {} s: look at the hub's log for admin_act", PATIENCE.as_secs())
            } else {
                problem.to_string()
            };
            let shown = format!("{}: {problem}", Redacted(&hub.to_string()));
            return print(json, &act, "no-answer", &shown);
        }
    };
    let Ok(answer) = serde_json::from_str::<Answer>(&text) else {
        let sentence = text.trim();
        let shown =
            if sentence.is_empty() { status.to_string() } else { format!("{sentence:.1000} ({})", status.as_u16()) };
        return print(json, &act, "refused", &shown);
    };
    if json {
        _ = writeln!(io::stdout(), "{}", text.trim());
    } else {
        _ = writeln!(io::stdout(), "{}", answer.message);
    }
    match status {
        status if status.is_success() => ExitCode::SUCCESS,
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => ExitCode::from(NOT_THERE),
        _ => ExitCode::FAILURE,
    }
}

/// Prints a failure as JSON on stdout, or as a sentence on stderr.
fn print(json: bool, act: &Act, outcome: &'static str, message: &str) -> ExitCode {
    // If the stream is closed, only the exit code shows the failure.
    _ = if json {
        let text = serde_json::to_string(&Refused { act: act.label(), outcome, message }).unwrap_or_default();
        writeln!(io::stdout(), "{text}")
    } else {
        writeln!(io::stderr(), "peerpigeon admin: {message}")
    };
    ExitCode::FAILURE
}
