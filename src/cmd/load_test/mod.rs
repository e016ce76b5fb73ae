//! The command `peerpigeon load-test` runs many peers in one process. The peers check every message of the hub.
//!
//! All peers run on one thread, so they share their counts without locks. One thread receives more messages per second
//! than a hub on two cores sends.

mod churn;
mod hear;
mod hostile;
mod html;
mod ledger;
mod message;
mod plan;
mod progress;
mod report;
mod scenario;
mod swarm;
mod tally;
mod timeline;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proto::limits::DEFAULT_MAX_MESSAGE_BYTES;
use tokio::task::LocalSet;

use self::plan::{Plan, Spread};
use self::progress::Progress;
use self::report::{Report, ReportedArgs};
use self::scenario::{Outcome, Pace};
use self::swarm::{Options, Swarm};
use self::tally::Check;
use self::timeline::{Point, Timeline};
use super::duration;
use crate::client::HubUrl;
use crate::config::{certificates, token};

/// Exit code of an invalid command line (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

/// In the scenario `churn`, one in this many members of a network stays and observes the other members.
const OBSERVER_SHARE: usize = 10;

/// Maximum time from sending a signal to its arrival in the scenario `hostile`. A later arrival is a violation.
const LATEST: Duration = Duration::from_secs(2);

/// Maximum number of files that this program has open besides its peers' sockets.
const OTHER_FILES: usize = 64;

/// Put load on hubs with many peers, and check every message that each peer receives
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Hub to put load on; can be given several times to spread the peers over hubs
    #[arg(long = "hub", value_name = "URL", default_value = HubUrl::DEFAULT)]
    pub hubs: Vec<HubUrl>,

    /// Number of peers
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub peers: u32,

    /// Time to run after all peers have joined, in seconds (or 500ms, 2m)
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = duration::parse_secs)]
    pub duration: Duration,

    /// Interval in seconds. join, hostile: time between two offers of a peer (0: no offers). churn: maximum time for
    /// which a peer stays connected or away. storm: pause between two rounds
    #[arg(long, value_name = "TIME", default_value = "5", value_parser = duration::parse_secs)]
    pub interval: Duration,

    /// Connections per second while joining; 0 means as fast as possible, 128 at a time
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub ramp: u32,

    /// What the peers do
    #[arg(long, value_enum, default_value_t = Scenario::Join)]
    pub scenario: Scenario,

    /// Number of networks over which the peers are spread [default: join, storm: 1; relay, hostile: one per pair;
    /// churn: one per 50 peers; idle: one per 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub networks: Option<u32>,

    /// Size of the data of a signal, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub size: usize,

    /// relay: number of signals in flight per pair
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub in_flight: u32,

    /// Request a receipt for each signal, and check that exactly one arrives
    #[arg(long)]
    pub receipts: bool,

    /// AUTH_TOKEN of the hub
    #[arg(long, env = "AUTH_TOKEN", hide_env_values = true, value_parser = token)]
    pub token: Option<String>,

    /// File with additional CA certificates (PEM) for wss://
    #[arg(long, value_name = "FILE", value_parser = certificates)]
    pub ca: Option<Arc<[u8]>>,

    /// Make a full TLS handshake for each connection; by default, a peer that reconnects resumes its TLS session
    #[arg(long)]
    pub full_handshakes: bool,

    /// Write the results to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write a page with charts of the run to this file, as HTML
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Seed of ids, networks and every random choice [default: a random number]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// What the peers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// All peers join, and each must discover every other member exactly once. Then they send offers
    Join,
    /// Pairs send offers and answers back and forth, as fast as possible
    Relay,
    /// Nine of ten peers repeatedly join and leave; the tenth stays and must receive every join and leave
    Churn,
    /// All peers join and stay silent
    Idle,
    /// All peers join. Then all sockets are cut and all peers reconnect at once, repeatedly
    Storm,
    /// Pairs send offers, which must arrive within two seconds, while other clients break the rules: they send garbage,
    /// incomplete and oversized frames and wrong masks, reset connections, compete for an id, flood the hub with
    /// announcements, or do not read. For ws:// only
    Hostile,
}

impl Scenario {
    const fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Relay => "relay",
            Self::Churn => "churn",
            Self::Idle => "idle",
            Self::Storm => "storm",
            Self::Hostile => "hostile",
        }
    }

    /// Whether the peers form pairs.
    fn has_pairs(self) -> bool {
        matches!(self, Self::Relay | Self::Hostile)
    }

    fn default_networks(self, peers: usize) -> usize {
        match self {
            Self::Join | Self::Storm => 1,
            Self::Relay | Self::Hostile => peers / 2,
            Self::Churn => peers.div_ceil(50),
            Self::Idle => peers.div_ceil(100),
        }
    }
}

/// Runs the scenario and prints the results. Succeeds only if every peer and every check succeeded.
pub async fn run(args: Args) -> ExitCode {
    let (plan, seed) = match plan(&args) {
        Ok(planned) => planned,
        Err(problem) => {
            complain(&problem);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    // The output files are checked first, so that a long run does not fail at its end.
    for (name, path) in [("--json", &args.json), ("--report", &args.report)] {
        if let Some(path) = path
            && let Err(error) = fs::OpenOptions::new().create(true).append(true).open(path)
        {
            complain(&format!("{name}: cannot write {}: {error}", path.display()));
            return ExitCode::from(EXIT_USAGE);
        }
    }
    match LocalSet::new().run_until(measure(&args, plan, seed)).await {
        Ok((report, points)) => tell(&report, &points, &args),
        Err(problem) => {
            complain(&problem);
            ExitCode::FAILURE
        }
    }
}

/// Turns the arguments into a plan, or explains why they are invalid.
fn plan(args: &Args) -> Result<(Plan, u64), String> {
    let peers = args.peers as usize;
    let spread = if args.scenario.has_pairs() { Spread::Pairs } else { Spread::Single };
    let networks = args.networks.map_or(args.scenario.default_networks(peers), |networks| networks as usize);
    let (unit, least) = match args.scenario {
        Scenario::Relay | Scenario::Hostile => ("pair", 2),
        Scenario::Churn => ("member that stays and one that comes and goes", 2),
        Scenario::Join | Scenario::Idle | Scenario::Storm => ("peer", 1),
    };
    if args.scenario.has_pairs() && !peers.is_multiple_of(2) {
        return Err(format!("--peers must be even for {}, not {peers}", args.scenario.name()));
    }
    if networks * least > peers {
        return Err(format!(
            "--networks: each network needs a {unit}, so {peers} peers can fill at most {} networks, not {networks}",
            peers / least
        ));
    }
    if args.size > DEFAULT_MAX_MESSAGE_BYTES {
        return Err(format!("--size must be at most {DEFAULT_MAX_MESSAGE_BYTES}, not {}", args.size));
    }
    if let Some(limit) = open_files_limit().filter(|&limit| peers + OTHER_FILES > limit) {
        return Err(format!("--peers: this process may open {limit} files, too few for {peers} peers (see ulimit -n)"));
    }
    let seed = match args.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(|error| error.to_string())?,
    };
    Ok((Plan::new(peers, networks, spread, seed), seed))
}

/// The soft limit of open files, if the system reports it.
fn open_files_limit() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

async fn measure(args: &Args, plan: Plan, seed: u64) -> Result<(Report, Vec<Point>), String> {
    let mut endpoints = Vec::new();
    for hub in &args.hubs {
        let found = hub.resolve(args.ca.as_deref()).await.map_err(|error| format!("cannot find {hub}: {error}"))?;
        endpoints.push(found.keeping_tickets(if args.full_handshakes { 0 } else { plan.peers() }));
    }
    let asked = ReportedArgs {
        scenario: args.scenario.name(),
        hubs: args.hubs.iter().map(HubUrl::to_string).collect(),
        seed,
        peers: plan.peers(),
        networks: plan.networks(),
    };
    let options = Options {
        token: args.token.clone(),
        padding: message::padding(args.size),
        pairs: args.scenario.has_pairs(),
        latest: (args.scenario == Scenario::Hostile).then_some(LATEST),
        receipts: args.receipts,
        observer_share: if args.scenario == Scenario::Churn { OBSERVER_SHARE } else { 0 },
    };
    if args.scenario == Scenario::Hostile {
        endpoints.iter().try_for_each(hostile::check)?;
    }
    let swarm = Rc::new(Swarm::new(plan, options, endpoints));
    let progress = Progress::new(swarm.seats.len());
    let timeline = args.report.is_some().then(Timeline::new);
    let record = async {
        match &timeline {
            Some(timeline) => timeline.record(swarm.clone()).await,
            None => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        outcome = play(args, &swarm, &progress, seed) => outcome,
        () = progress.draw(swarm.clone()) => Outcome::default(),
        () = record => Outcome::default(),
        _ = tokio::signal::ctrl_c() => {
            swarm.tally.borrow_mut().violate(Check::Interrupted, || "by the user".to_owned());
            Outcome::default()
        }
    };
    progress.clear();
    let points = timeline.map(|timeline| timeline.finish(&swarm)).unwrap_or_default();
    Ok((Report::new(asked, outcome, &swarm.tally.borrow()), points))
}

async fn play(args: &Args, swarm: &Rc<Swarm>, progress: &Progress, seed: u64) -> Outcome {
    let pace =
        Pace { duration: args.duration, interval: args.interval, ramp: args.ramp, in_flight: args.in_flight, seed };
    let outcome = match args.scenario {
        Scenario::Join => scenario::join(swarm, pace, true, progress).await,
        Scenario::Relay => scenario::relay(swarm, pace, progress).await,
        Scenario::Churn => churn::churn(swarm, pace, progress).await,
        Scenario::Idle => scenario::join(swarm, pace, false, progress).await,
        Scenario::Storm => scenario::storm(swarm, pace, progress).await,
        Scenario::Hostile => hostile::hostile(swarm, pace, swarm.endpoints(), progress).await,
    };
    scenario::finish(swarm, progress).await;
    outcome
}

fn tell(report: &Report, points: &[Point], args: &Args) -> ExitCode {
    // A write error on stdout is ignored, because the output files and the exit code still matter.
    let _ = write!(io::stdout().lock(), "{report}");
    let save = |path: &Path, text: io::Result<Vec<u8>>| {
        let written = text.and_then(|text| fs::write(path, text));
        written.map_err(|error| complain(&format!("cannot write {}: {error}", path.display()))).is_ok()
    };
    let json = || {
        let mut text = serde_json::to_vec_pretty(report)?;
        text.push(b'\n');
        Ok(text)
    };
    let page = || Ok(html::page(report, points).into_bytes());
    let saved = args.json.as_deref().is_none_or(|path| save(path, json()))
        & args.report.as_deref().is_none_or(|path| save(path, page()));
    if !saved {
        return ExitCode::FAILURE;
    }
    if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn complain(problem: &str) {
    // If stderr is closed, only the exit code shows the failure.
    _ = writeln!(io::stderr(), "peerpigeon load-test: {problem}");
}

#[cfg(test)]
mod tests;
