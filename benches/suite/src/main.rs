//! Benchmarks that compare a hub with a relay without any logic (the yardstick) and with a server of the usual design
//! (the baseline).
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod baseline;
mod connections;
mod crossing;
mod crowd;
mod discovery;
mod fairness;
mod figures;
mod frames;
mod ledger;
mod machine;
mod mesh;
mod message;
mod relay;
mod report;
mod secure;
mod server;
mod suite;
mod swarm;
mod yardstick;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};

use figures::medians;
use relay::Plan;
use report::Done;
use server::{Kind, Server, Setup};
use suite::Size;

#[derive(Debug, Parser)]
#[command(about = "Measures a PeerPigeon hub, a bare epoll relay and a server of the usual design")]
struct Cli {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run a signaling server of the usual design, for comparison, until it is killed
    Baseline {
        #[arg(long)]
        port: u16,
        #[arg(long, default_value_t = 2)]
        workers: usize,
    },
    /// Run the yardstick and the hub in turn, with each message length and number in flight, and print medians and
    /// ratios
    Ratio {
        #[arg(long, default_value_t = 3)]
        runs: usize,
        /// Message lengths in bytes, separated by commas
        #[arg(long, value_delimiter = ',', default_value = "250,1200,2500")]
        sizes: Vec<usize>,
        /// Messages in flight per pair, separated by commas
        #[arg(long, value_delimiter = ',', default_value = "1,16")]
        flights: Vec<usize>,
        #[command(flatten)]
        talk: Talk,
    },
    /// Measure pairs that send offers back and forth, and print a line of JSON
    Relay {
        #[arg(long, default_value = "hub")]
        server: Kind,
        /// Message length in bytes
        #[arg(long, default_value_t = 1200)]
        size: usize,
        /// Messages in flight per pair
        #[arg(long, default_value_t = 1)]
        in_flight: usize,
        #[command(flatten)]
        talk: Talk,
    },
    /// Run all or some scenarios, and print a table
    Suite {
        /// Use fewer peers and only one round, as a smoke test
        #[arg(long)]
        quick: bool,
        /// Run only scenarios whose name contains one of these words, separated by commas
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Number of rounds of each scenario
        #[arg(long)]
        rounds: Option<usize>,
        /// Write all results to this file, as JSON
        #[arg(long)]
        json: Option<PathBuf>,
        /// Write the table into this Markdown file, between the two marks in it
        #[arg(long)]
        md: Option<PathBuf>,
        /// Program of the hub [default: the one in the folder of this program]
        #[arg(long)]
        hub: Option<PathBuf>,
    },
    /// Run the yardstick, which forwards bytes unchanged, until it is killed
    Yardstick {
        #[arg(long)]
        port: u16,
    },
}

#[derive(Clone, Debug, Args)]
struct Talk {
    #[arg(long, default_value_t = 100)]
    pairs: usize,
    /// Peers in a network
    #[arg(long, default_value_t = 2)]
    members: usize,
    /// Length of the measured part, in seconds
    #[arg(long, default_value_t = 3.0)]
    secs: f64,
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// Program of the hub [default: the one in the folder of this program]
    #[arg(long)]
    hub: Option<PathBuf>,
}

impl Talk {
    fn plan(&self, size: usize, in_flight: usize) -> Plan {
        Plan { size, in_flight, members: self.members.max(2), window: Duration::from_secs_f64(self.secs) }
    }

    fn run(&self, kind: Kind, setup: &Setup, plan: Plan) -> io::Result<figures::Figures> {
        let server = Server::start(kind, setup)?;
        relay::closed(&relay::pairs(&server, self.pairs), plan, setup.spin)
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> io::Result<ExitCode> {
    match what {
        What::Baseline { port, workers } => {
            machine::raise_file_limit()?;
            baseline::run(port, workers)?;
        }
        What::Ratio { runs, sizes, flights, talk } => ratio(runs, &sizes, &flights, &talk)?,
        What::Relay { server, size, in_flight, talk } => {
            let setup = Setup::new(talk.hub.clone(), talk.shards)?;
            println!("{}", serde_json::to_string(&talk.run(server, &setup, talk.plan(size, in_flight))?)?);
        }
        What::Suite { quick, only, rounds, json, md, hub } => {
            return suite(Size { quick, rounds }, &only, json, md, hub);
        }
        What::Yardstick { port } => {
            machine::raise_file_limit()?;
            yardstick::run(port)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn ratio(runs: usize, sizes: &[usize], flights: &[usize], talk: &Talk) -> io::Result<()> {
    let setup = Setup::new(talk.hub.clone(), talk.shards)?;
    println!(" bytes  flight  yardstick us     hub us  ratio   yardstick p99 us  hub p99 us   busy");
    for &size in sizes {
        for &in_flight in flights {
            let plan = talk.plan(size, in_flight);
            let mut seen = [Vec::new(), Vec::new()];
            for _ in 0..runs {
                for (runs, kind) in seen.iter_mut().zip([Kind::Yardstick, Kind::Hub]) {
                    runs.push(talk.run(kind, &setup, plan)?);
                }
            }
            let [yardstick, hub] = seen.map(|runs| medians(&runs));
            println!(
                "{size:>6} {in_flight:>7} {:>13.3} {:>10.3} {:>6.2} {:>18.0} {:>11.0}   {:.2} {:.2}",
                yardstick["cpu_us"],
                hub["cpu_us"],
                hub["cpu_us"] / yardstick["cpu_us"],
                yardstick["p99_us"],
                hub["p99_us"],
                yardstick["busy"],
                hub["busy"]
            );
        }
    }
    Ok(())
}

fn suite(
    size: Size,
    only: &[String],
    json: Option<PathBuf>,
    md: Option<PathBuf>,
    hub: Option<PathBuf>,
) -> io::Result<ExitCode> {
    let machine = machine::description();
    let setup = Setup::new(hub, 1)?;
    if !setup.spin {
        eprintln!("only one core: servers and generator share it. Ratios are still meaningful, but latencies are not.");
    }
    let (mut done, mut table, mut failed) = (Vec::<Done>::new(), String::new(), 0);
    for case in suite::cases(&setup, size) {
        if !only.is_empty() && !only.iter().any(|part| case.name.contains(part.as_str())) {
            continue;
        }
        let begin = Instant::now();
        let rounds: io::Result<Vec<_>> = (0..case.rounds).map(|_| (case.run)()).collect();
        match rounds {
            Ok(rounds) => {
                let one = Done { name: case.name, servers: case.servers, columns: case.columns, rounds };
                let mut lines = one.lines();
                if done.last().is_none_or(|last| last.servers != one.servers) {
                    // This scenario compares other servers than the previous one, so it starts a new table.
                    let gap = if done.is_empty() { "" } else { "\n" };
                    lines = format!("{gap}{}{lines}", report::head(one.servers));
                }
                print!("{lines}");
                table.push_str(&lines);
                done.push(one);
            }
            Err(error) => {
                failed += 1;
                eprintln!("{}: {error}", case.name);
            }
        }
        eprintln!("({:.0} s)", begin.elapsed().as_secs_f64());
    }
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_string_pretty(&report::json(&machine, &done))? + "\n")?;
    }
    if let Some(page) = md {
        report::put_between_marks(&page, &format!("{}\n\n{table}", report::machine_line(&machine)))?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
