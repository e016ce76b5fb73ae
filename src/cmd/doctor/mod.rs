//! The command `peerpigeon doctor` examines a hub from outside, as clients see it, and says what to do.

mod address;
mod apart;
mod finding;
mod ice;
mod idle;
mod pace;
mod pages;
mod peers;
mod stun;
mod upgrade;
mod visitor;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::LocalSet;

use self::address::Trust;
use self::apart::Operator;
use self::finding::{Finding, Grade, Report, Topic};
use self::pace::Pace;
use self::pages::Pages;
use self::upgrade::Entry;
use super::duration;
use crate::client::{Endpoint, HubUrl};
use crate::config::{certificates, token};

/// Exit code if there are warnings and no problems.
const WARNINGS: u8 = 2;

/// Check a hub from outside, and say what to do
///
/// Checks everything between a client and the hub: names and addresses, TLS, proxies, tokens and origins, presence and
/// signals between two peers, large messages, idle connections, links to other hubs, ICE servers, clocks. Each note,
/// warning and problem has a link to its causes.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "The doctor connects as a few peers for about as long as --patience. Its peers join only networks \
        whose names begin with doctor-. Like other peers, they appear in the hub's pages, metrics and logs: in the \
        numbers of connections, in the lists of networks, and with an idle connection that a proxy cuts also among \
        the lost connections.\n\nExit codes: 0 no problem; 1 a problem; 2 warnings; 64 invalid command line."
)]
pub struct Args {
    /// URL that clients use: ws://host[:port][/path] or wss://host; http:// and https:// mean the same
    #[arg(value_name = "URL", value_parser = hub_url)]
    url: HubUrl,

    /// AUTH_TOKEN of the hub
    #[arg(long, env = "AUTH_TOKEN", hide_env_values = true, value_parser = token)]
    token: Option<String>,

    #[arg(
        long,
        value_name = "ORIGIN",
        help = "Origin of the web pages that use the hub, such as https://app.example.com"
    )]
    origin: Option<String>,

    /// Another hub of the mesh, to check that its peers and those of the first hub discover each other; can be given
    /// several times
    #[arg(long = "other", value_name = "URL", value_parser = hub_url)]
    others: Vec<HubUrl>,

    /// ADMIN_TOKEN of the hubs, to read /hubstats if a hub of --other is not connected to the first hub
    #[arg(long, env = "ADMIN_TOKEN", hide_env_values = true, value_parser = token)]
    admin_token: Option<String>,

    /// Time for which a connection is kept idle, to find proxies that close idle connections; 0 skips this check
    #[arg(long, value_name = "DURATION", default_value = "35s", value_parser = duration::parse)]
    patience: Duration,

    /// ICE servers to check instead of those that the hub sends: a JSON array as for RTCPeerConnection
    #[arg(long, value_name = "JSON", value_parser = ice_servers)]
    ice_servers: Option<IceServers>,

    /// File with additional CA certificates (PEM)
    #[arg(long, value_name = "FILE", value_parser = certificates)]
    ca: Option<Arc<[u8]>>,

    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

/// The value of `--ice-servers`.
#[derive(Clone, Debug)]
struct IceServers(Vec<ice::Server>);

fn ice_servers(text: &str) -> Result<IceServers, String> {
    let read = serde_json::from_str(text).map(IceServers);
    read.map_err(|error| format!("not an array of ICE servers ({error}): use [{{\"urls\": \"stun:host\"}}]"))
}

fn hub_url(text: &str) -> Result<HubUrl, String> {
    let text = match text.split_once("://") {
        Some(("http", rest)) => format!("ws://{rest}"),
        Some(("https", rest)) => format!("wss://{rest}"),
        _ => text.to_owned(),
    };
    text.parse().map_err(|error: crate::client::HubUrlError| error.to_string())
}

/// Examines the hub, and prints the findings.
pub async fn run(args: Args) -> ExitCode {
    let mut report = Report::new(args.url.to_string(), args.json);
    LocalSet::new().run_until(Box::pin(examine(&args, &mut report))).await;
    match report.finish() {
        Grade::Problem => ExitCode::FAILURE,
        Grade::Warning => ExitCode::from(WARNINGS),
        Grade::Ok | Grade::Skipped | Grade::Note => ExitCode::SUCCESS,
    }
}

async fn examine(args: &Args, report: &mut Report) {
    let (url, ca) = (&args.url, args.ca.as_deref());
    let Some(mut reachable) = address::addresses(url, report).await else { return };
    let trust = if url.is_tls() {
        address::tls(url, &mut reachable, ca, report).await
    } else {
        let speaks_http = Pages { url, tls: None }.are_plain().await;
        address::plain(url, &reachable, speaks_http, report).await
    };
    let (tls, is_proven) = match trust {
        Trust::Proven(tls) => (tls, true),
        Trust::Unproven(tls) => (Some(tls), false),
        Trust::Broken => return,
    };
    let pages = Pages { url, tls: tls.as_ref() };
    let by_pages = pages.examine(args.origin.as_deref(), report).await;

    let endpoint = url.at(reachable.addresses.clone(), tls.clone());
    let entry = Entry {
        url,
        endpoint: &endpoint,
        token: args.token.as_deref().filter(|_| is_proven),
        origin: args.origin.as_deref(),
        withheld: args.token.is_some() && !is_proven,
    };
    let Some((mut visitor, welcome)) = upgrade::examine(&entry, report).await else {
        clock(by_pages, 0, report);
        return;
    };
    clock(by_pages, welcome.clock_ms, report);
    // The connection for `idle` stays idle while the checks below run.
    let idle = if args.patience.is_zero() {
        None
    } else {
        match entry.connect().await {
            Ok((visitor, welcome)) => {
                let patience = args.patience;
                Some(tokio::task::spawn_local(async move { idle::wait(visitor, &welcome, patience).await }))
            }
            Err(refusal) => {
                report.add(refusal.finding("idle", &entry));
                None
            }
        }
    };
    upgrade::admission(&entry, report).await;
    families(&entry, &reachable, report).await;
    let mut pace = Pace::new(address::host_and_port(url), reachable.rtt);
    peers::ping(&mut visitor, &mut pace, report).await;
    peers::meet(&entry, &mut visitor, &welcome, &mut pace, report).await;
    for other in &args.others {
        mesh(args, other, &entry, &mut pace, report).await;
    }
    let servers = match &args.ice_servers {
        Some(servers) => servers.0.clone(),
        None => ice::read(&welcome.ice_servers, report),
    };
    ice::examine(&servers, ca, report).await;
    match idle {
        None => report.add(Finding::skipped("idle", "no connection was kept idle: use --patience 35s")),
        Some(idle) => match idle.await {
            Ok(finding) => report.add(finding),
            Err(error) => report.add(Finding::problem("idle", Topic::NoAnswer, error.to_string())),
        },
    }
}

fn clock(by_pages: Option<Duration>, clock_ms: u64, report: &mut Report) {
    if let Some(finding) = pages::clock(by_pages, clock_ms) {
        report.add(finding);
    }
}

/// Connects to an address of the other family (IPv4 or IPv6), if the hub has addresses of both families.
async fn families(entry: &Entry<'_>, reachable: &address::Reachable, report: &mut Report) {
    let Some(first) = reachable.addresses.first() else { return };
    let other = reachable.addresses.iter().find(|address| address.is_ipv6() != first.is_ipv6());
    let Some(&other) = other else { return };
    let endpoint: Endpoint = entry.endpoint.only(other);
    let entry = Entry { endpoint: &endpoint, ..*entry };
    report.add(match entry.connect().await {
        Ok(_) => Finding::ok("address", format!("the hub admits peers at {} too", other.ip())),
        Err(refusal) => {
            let finding = refusal.finding("address", &entry);
            Finding { message: format!("{}: {}", other.ip(), finding.message), ..finding }
        }
    });
}

/// Examines another hub of the mesh.
async fn mesh(args: &Args, other: &HubUrl, entry: &Entry<'_>, pace: &mut Pace, report: &mut Report) {
    let resolved = other.resolve(args.ca.as_deref()).await;
    let endpoint = match resolved {
        Ok(endpoint) => endpoint,
        Err(error) => {
            report.add(Finding::problem("mesh", Topic::NoAddress, format!("{other} cannot be resolved: {error}")));
            return;
        }
    };
    // A new peer connects for each other hub, so no peer of an earlier check is in its network.
    match entry.connect().await {
        Ok((mut visitor, welcome)) => {
            let other = Entry { url: other, endpoint: &endpoint, ..*entry };
            let operator = Operator { token: args.admin_token.as_deref(), ca: args.ca.as_deref() };
            peers::mesh(&mut visitor, (entry, &other), &welcome, pace, &operator, report).await;
        }
        Err(refusal) => report.add(refusal.finding("mesh", entry)),
    }
}
