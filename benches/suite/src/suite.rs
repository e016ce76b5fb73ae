//! All scenarios, with their parameters and columns.

use std::io;
use std::time::Duration;

use crate::connections::{self, Rest};
use crate::figures::{Figures, Round};
use crate::relay::{self, Plan};
use crate::report::{Column, SERVERS};
use crate::secure;
use crate::server::{Kind, Server, Setup};
use crate::{crossing, crowd, discovery, fairness, mesh};

/// A scenario with its parameters.
pub(crate) struct Case {
    /// The name.
    pub(crate) name: String,
    /// Number of rounds.
    pub(crate) rounds: usize,
    /// The compared servers.
    pub(crate) servers: &'static [&'static str; 3],
    /// The columns of the table.
    pub(crate) columns: &'static [Column],
    /// Runs one round: all servers, one after the other.
    pub(crate) run: Box<dyn Fn() -> io::Result<Round>>,
}

/// The size of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) quick: bool,
    /// Number of rounds of every scenario, instead of the scenario's own number.
    pub(crate) rounds: Option<usize>,
}

const PAIRS: usize = 100;
const ALL: [Kind; 3] = [Kind::Yardstick, Kind::Hub, Kind::Baseline];

/// Starts a new server of each kind, and measures it.
fn each(kinds: &[Kind], setup: &Setup, run: impl Fn(&Server) -> io::Result<Figures>) -> io::Result<Round> {
    kinds
        .iter()
        .map(|&kind| {
            let server = Server::start(kind, setup)?;
            run(&server).map(|figures| (kind.label(), figures)).map_err(|error| of(kind, &error))
        })
        .collect()
}

fn of(kind: Kind, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", kind.label()))
}

/// Every scenario, in the order of the table.
pub(crate) fn cases(setup: &Setup, size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    let rounds = size.rounds.unwrap_or(if size.quick { 1 } else { 3 });
    let window = Duration::from_secs(if size.quick { 1 } else { 3 });
    let plan = Plan { size: 1200, in_flight: 1, members: 2, window };
    let one = setup.clone().with_shards(1);
    let two = setup.clone().with_shards(2);
    let mut add = |name: String, rounds: usize, columns, run: Box<dyn Fn() -> io::Result<Round>>| {
        cases.push(Case { name, rounds, servers: &SERVERS, columns, run });
    };

    for bytes in [250, 1200, 2500] {
        for in_flight in [1, 16] {
            let (setup, plan) = (one.clone(), Plan { size: bytes, in_flight, ..plan });
            add(
                format!("relay {bytes} B, {in_flight} in flight"),
                rounds,
                RELAY,
                Box::new(move || {
                    each(&ALL, &setup, |server| relay::closed(&relay::pairs(server, PAIRS), plan, setup.spin))
                }),
            );
        }
    }
    for in_flight in [1, 16] {
        let (setup, plan) = (one.clone(), Plan { in_flight, ..plan });
        add(
            format!("latency at half the hub's rate with {in_flight} in flight"),
            rounds,
            LATENCY,
            Box::new(move || {
                let hub = Server::start(Kind::Hub, &setup)?;
                let full = relay::closed(&relay::pairs(&hub, PAIRS), plan, setup.spin)?["rate"];
                drop(hub);
                let kinds = [Kind::Yardstick, Kind::Hub];
                each(&kinds, &setup, |server| relay::open(&relay::pairs(server, PAIRS), plan, full / 2.0, setup.spin))
            }),
        );
    }
    let peers = if size.quick { 500 } else { 2000 };
    let own = one.clone();
    add(
        format!("join storm, {peers} at once"),
        rounds,
        STORM,
        Box::new(move || each(&ALL, &own, |server| crowd::join(server, peers, None))),
    );
    let own = one.clone();
    add(
        format!("joins at a steady rate, to {peers}"),
        rounds,
        PACED,
        Box::new(move || each(&ALL[..2], &own, |server| crowd::join(server, peers, Some(250.0)))),
    );
    let own = one.clone();
    add(
        format!("fan-out to {peers}"),
        rounds,
        FAN_OUT,
        Box::new(move || each(&ALL, &own, |server| crowd::fan_out(server, peers, 30))),
    );
    if !size.quick {
        let own = one.clone();
        add(
            "fan-out to 10000".to_owned(),
            size.rounds.unwrap_or(1),
            FAN_OUT,
            Box::new(move || each(&ALL[..2], &own, |server| crowd::fan_out(server, 10_000, 30))),
        );
    }
    let peers = if size.quick { 4000 } else { setup.most_connections.min(19_000) };
    let rest = Rest::new(size.quick);
    let own = two.clone();
    add(
        format!("idle, {peers} in networks of ten"),
        size.rounds.unwrap_or(1),
        IDLE,
        Box::new(move || each(&ALL[1..], &own, |server| connections::idle(server, peers, rest))),
    );
    if !size.quick {
        let own = setup.clone().with_shards(16);
        add(
            format!("idle, {peers} in networks of ten, 16 shards"),
            size.rounds.unwrap_or(1),
            IDLE,
            Box::new(move || each(&[Kind::Hub], &own, |server| connections::idle(server, peers, rest))),
        );
    }
    let own = one.clone();
    let peers = if size.quick { 2000 } else { 6000 };
    add(
        format!("connect, {peers}"),
        rounds,
        CONNECT,
        Box::new(move || each(&ALL, &own, |server| connections::connect(server, peers))),
    );
    let own = one.clone();
    add(
        "churn in 100 networks of ten".to_owned(),
        rounds,
        CHURN,
        Box::new(move || each(&ALL[1..], &own, |server| connections::churn(server, 100, window))),
    );
    for in_flight in [1, 16] {
        let (setup, plan) = (two.clone(), Plan { in_flight, ..plan });
        add(
            format!("from shard to shard, {in_flight} in flight"),
            rounds,
            CROSSING,
            Box::new(move || each(&[Kind::Hub], &setup, |server| crossing::run(server, plan, setup.spin))),
        );
    }
    for in_flight in [1, 16] {
        let (setup, plan) = (one.clone(), Plan { in_flight, ..plan });
        add(
            format!("from hub to hub, {in_flight} in flight"),
            rounds,
            CROSS_HUB,
            Box::new(move || {
                let mut local = {
                    let hub = Server::start(Kind::Hub, &setup)?;
                    relay::closed(&relay::pairs(&hub, PAIRS), plan, setup.spin)?
                };
                let linked = mesh::relay(&mesh::linked(&setup)?, PAIRS, plan, setup.spin)?;
                local = Figures::from([("local_cpu_us", local["cpu_us"]), ("local_p50_us", local["p50_us"])]);
                local.extend([("linked_by_local", linked["cpu_us"] / local["local_cpu_us"])]);
                local.extend(linked);
                Ok(vec![(Kind::Hub.label(), local)])
            }),
        );
    }
    let own = one.clone();
    let joins = if size.quick { 1000 } else { 4000 };
    add(
        format!("presence from hub to hub, {joins} joins"),
        rounds,
        PRESENCE,
        Box::new(move || Ok(vec![(Kind::Hub.label(), mesh::presence(&mesh::linked(&own)?, joins)?)])),
    );
    if setup.knows("DISCOVERY") {
        for peers in [100, if size.quick { 1000 } else { 10_000 }] {
            let own = one.clone().with("DISCOVERY", "closest:16");
            add(
                format!("closest:16, {peers} in one network"),
                rounds,
                DISCOVERY,
                Box::new(move || {
                    each(&ALL[..2], &own, |server| match server.kind {
                        Kind::Yardstick => discovery::bare(server, peers),
                        Kind::Baseline | Kind::Hub | Kind::HubWithTls | Kind::NginxAndHub => {
                            discovery::run(server, peers)
                        }
                    })
                }),
            );
        }
    }
    for flood in fairness::Flood::ALL {
        let own = one.clone();
        cases.push(Case {
            name: format!("fairness: {}", flood.label()),
            rounds: size.rounds.unwrap_or(1),
            servers: &fairness::PLACES,
            columns: FAIRNESS,
            run: Box::new(move || fairness::run(flood, &own, window)),
        });
        let own = one.clone();
        cases.push(Case {
            name: format!("fairness over a link: {}", flood.label()),
            rounds: size.rounds.unwrap_or(1),
            servers: &fairness::PLACES,
            columns: FAIRNESS,
            run: Box::new(move || fairness::run_linked(flood, &own, window)),
        });
    }
    if setup.knows("TLS_CERT") && secure::has_nginx() {
        cases.extend(tls_cases(&one, &two, size, rounds, plan));
    }
    cases
}

/// Scenarios that compare a hub with TLS, the same hub without TLS, and the same hub behind an nginx with TLS.
fn tls_cases(one: &Setup, two: &Setup, size: Size, rounds: usize, plan: Plan) -> Vec<Case> {
    const ALL: [Kind; 3] = [Kind::Hub, Kind::HubWithTls, Kind::NginxAndHub];
    const SERVERS: [&str; 3] = ["hub", "hub with TLS", "nginx and hub"];
    let mut cases = Vec::new();
    let mut add = |name: String, rounds: usize, columns, run: Box<dyn Fn() -> io::Result<Round>>| {
        cases.push(Case { name, rounds, servers: &SERVERS, columns, run });
    };
    for in_flight in [1, 16] {
        let (setup, plan) = (one.clone(), Plan { in_flight, ..plan });
        add(
            format!("TLS, relay {} B, {in_flight} in flight", plan.size),
            rounds,
            RELAY,
            Box::new(move || {
                each(&ALL, &setup, |server| relay::closed(&relay::pairs(server, PAIRS), plan, setup.spin))
            }),
        );
    }
    let own = one.clone();
    let peers = if size.quick { 500 } else { 2000 };
    add(
        format!("TLS, connect with a full handshake, {peers}"),
        rounds,
        CONNECT,
        Box::new(move || each(&ALL, &own, |server| connections::connect(server, peers))),
    );
    let own = two.clone();
    let peers = if size.quick { 2000 } else { 8000 };
    let rest = Rest::new(size.quick);
    add(
        format!("TLS, idle, {peers} in networks of ten"),
        size.rounds.unwrap_or(1),
        IDLE,
        Box::new(move || each(&ALL, &own, |server| connections::idle(server, peers, rest))),
    );
    let own = one.clone();
    add(
        "TLS, a pair at 1000 messages per second during 500 handshakes per second".to_owned(),
        rounds,
        BESIDE,
        Box::new(move || {
            let kinds = [Kind::HubWithTls, Kind::NginxAndHub];
            each(&kinds, &own, |server| {
                let pairs = relay::pairs(server, 1);
                let quiet = relay::beside_handshakes(&pairs, plan, 1000.0, 0.0, own.spin)?;
                let busy = relay::beside_handshakes(&pairs, plan, 1000.0, 500.0, own.spin)?;
                Ok(Figures::from([
                    ("quiet_p99_us", quiet["p99_us"]),
                    ("p50_us", busy["p50_us"]),
                    ("p99_us", busy["p99_us"]),
                    ("by_quiet", busy["p99_us"] / quiet["p99_us"]),
                    ("answered", busy["answered"]),
                ]))
            })
        }),
    );
    cases
}

const RELAY: &[Column] = &[
    Column { figure: "cpu_us", name: "CPU per message, µs", decimals: 2 },
    Column { figure: "p99_us", name: "p99, µs", decimals: 0 },
];
const LATENCY: &[Column] = &[
    Column { figure: "p50_us", name: "p50, µs", decimals: 0 },
    Column { figure: "p99_us", name: "p99, µs", decimals: 0 },
    Column { figure: "reached", name: "reached part of the rate", decimals: 2 },
];
const STORM: &[Column] = &[
    Column { figure: "cpu_us", name: "CPU per discovery, µs", decimals: 3 },
    Column { figure: "p99_ms", name: "lag p99, ms", decimals: 0 },
    Column { figure: "max_ms", name: "longest lag, ms", decimals: 0 },
];
const PACED: &[Column] = &[
    Column { figure: "cpu_us", name: "CPU per discovery, µs", decimals: 3 },
    Column { figure: "p99_ms", name: "lag p99, ms", decimals: 1 },
    Column { figure: "max_ms", name: "longest lag, ms", decimals: 1 },
];
const FAN_OUT: &[Column] = &[
    Column { figure: "leave_us", name: "CPU per recipient of a goodbye, µs", decimals: 2 },
    Column { figure: "join_us", name: "CPU per recipient of a join, µs", decimals: 2 },
    Column { figure: "all_ms", name: "time until the last recipient, ms", decimals: 1 },
];
const IDLE: &[Column] = &[
    Column { figure: "connected_bytes", name: "bytes per connection, connected", decimals: 0 },
    Column { figure: "announced_bytes", name: "bytes per connection, announced", decimals: 0 },
    Column { figure: "kept_part", name: "part of the memory kept after all peers have left", decimals: 2 },
    Column { figure: "second_adds_bytes", name: "bytes per connection added by a second round", decimals: 0 },
];
const CONNECT: &[Column] = &[
    Column { figure: "cpu_us", name: "CPU per connection, µs", decimals: 1 },
    Column { figure: "reset_us", name: "CPU per reset, µs", decimals: 1 },
];
const BESIDE: &[Column] = &[
    Column { figure: "quiet_p99_us", name: "p99 without handshakes, µs", decimals: 0 },
    Column { figure: "p99_us", name: "p99 with handshakes, µs", decimals: 0 },
    Column { figure: "by_quiet", name: "with / without", decimals: 2 },
    Column { figure: "answered", name: "answered handshakes", decimals: 0 },
];
const FAIRNESS: &[Column] = &[
    Column { figure: "p50_us", name: "the pair's p50, µs", decimals: 0 },
    Column { figure: "p99_us", name: "the pair's p99, µs", decimals: 0 },
    Column { figure: "flood_busy", name: "cores that the flood's hub used", decimals: 2 },
];
const CHURN: &[Column] = &[
    Column { figure: "cpu_us", name: "CPU per leave and join, µs", decimals: 1 },
    Column { figure: "event_us", name: "CPU per event, µs", decimals: 2 },
];
const CROSSING: &[Column] = &[
    Column { figure: "same_cpu_us", name: "CPU per message within a shard, µs", decimals: 2 },
    Column { figure: "cross_cpu_us", name: "CPU per message across shards, µs", decimals: 2 },
    Column { figure: "cross_by_same", name: "across / within", decimals: 2 },
];
const CROSS_HUB: &[Column] = &[
    Column { figure: "cpu_us", name: "CPU per message, both hubs, µs", decimals: 2 },
    Column { figure: "linked_by_local", name: "both hubs / one hub", decimals: 2 },
    Column { figure: "mesh_us_each", name: "CPU per message of each mesh thread, µs", decimals: 2 },
    Column { figure: "shards_us_each", name: "CPU per message of each shard, µs", decimals: 2 },
];
const PRESENCE: &[Column] = &[
    Column { figure: "cpu_us", name: "CPU per join, both hubs, µs", decimals: 2 },
    Column { figure: "mesh_us_each", name: "CPU per join of each mesh thread, µs", decimals: 2 },
];
const DISCOVERY: &[Column] = &[
    Column { figure: "late_events_per_join", name: "events per join", decimals: 1 },
    Column { figure: "cpu_us", name: "CPU per join, µs", decimals: 1 },
    Column { figure: "event_us", name: "CPU per event of a join, µs", decimals: 2 },
    Column { figure: "events_per_leave", name: "events per leave", decimals: 1 },
];
