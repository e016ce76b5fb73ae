//! Scenarios with two linked hubs.

use std::io;
use std::time::{Duration, Instant};

use crate::figures::Figures;
use crate::machine::Cpu;
use crate::message::{self, Heard};
use crate::relay::{self, Pair, Plan};
use crate::server::{Kind, Server, Setup};
use crate::swarm::Swarm;

/// Starts two hubs that are linked.
pub(crate) fn linked(setup: &Setup) -> io::Result<[Server; 2]> {
    const PATIENCE: Duration = Duration::from_secs(15);
    let own = |bootstrap: String| {
        let mut setup = setup.clone();
        setup.env.extend([
            ("IS_HUB", "true".to_owned()),
            ("MESH_TOKEN", "bench".to_owned()),
            ("BOOTSTRAP_HUBS", bootstrap),
        ]);
        setup
    };
    let first = Server::start(Kind::Hub, &own(String::new()))?;
    let second = Server::start(Kind::Hub, &own(format!("ws://127.0.0.1:{}", first.port)))?;
    let begin = Instant::now();
    for hub in [&first, &second] {
        while !hub.get("/metrics")?.lines().any(|line| line == "peerpigeon_mesh_hubs 1") {
            if begin.elapsed() > PATIENCE {
                return Err(io::Error::other("the hubs do not link"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok([first, second])
}

/// Measures pairs that exchange messages, with one peer of each pair at each hub. `cpu_us` is the CPU time of both
/// hubs, and `mesh_us` is the CPU time of their two mesh threads.
pub(crate) fn relay(hubs: &[Server; 2], pairs: usize, plan: Plan, spin: bool) -> io::Result<Figures> {
    let pairs: Vec<Pair<'_>> =
        (0..pairs).map(|n| Pair { servers: [&hubs[0], &hubs[1]], peers: [2 * n, 2 * n + 1] }).collect();
    let mut figures = relay::closed(&pairs, plan, spin)?;
    // A message causes an envelope from one mesh thread to the other, and an outcome in the other direction.
    figures.insert("mesh_us_each", figures["mesh_us"] / 2.0);
    figures.insert("shards_us_each", (figures["cpu_us"] - figures["mesh_us"]) / 2.0);
    Ok(figures)
}

/// One hub has an observer in each of many networks; at the other hub, one peer joins each network. Each join causes
/// one envelope on the link and two discoveries.
pub(crate) fn presence(hubs: &[Server; 2], joins: usize) -> io::Result<Figures> {
    let mut observers = Swarm::new()?;
    let mut guests = Swarm::new()?;
    let room = |n: usize| message::announce(&message::network(n));
    observers.connect((0..joins).map(|peer| hubs[0].seat(peer, 0)), |_, _| {})?;
    (0..joins).try_for_each(|at| observers.send(at, &room(at)))?;
    guests.connect((joins..2 * joins).map(|peer| hubs[1].seat(peer, 0)), |_, _| {})?;
    // Waits until the other hub knows the observers.
    observers.rest(Duration::from_secs(2))?;
    let pids = [hubs[0].pid(), hubs[1].pid()];
    let mut figures = Figures::new();
    let (before, begin) = (Cpu::of(&pids)?, Instant::now());
    for at in 0..joins {
        guests.send(at, &room(at))?;
        if at % 64 == 63 {
            guests.turn(None, |_, _| {})?;
        }
    }
    let mut heard = 0u64;
    let mut last = Instant::now();
    while heard < joins as u64 {
        let seen = heard;
        observers.turn(Some(Duration::from_millis(1)), |_, event| {
            heard += u64::from(matches!(event, Heard::Discovered(_)));
        })?;
        guests.turn(None, |_, _| {})?;
        if heard > seen {
            last = Instant::now();
        } else if last.elapsed() > Duration::from_secs(20) {
            return Err(io::Error::other(format!("{heard} of {joins} joins arrived over the link")));
        }
    }
    let (secs, cpu) = (begin.elapsed().as_secs_f64(), Cpu::of(&pids)?.since(&before));
    figures.insert("cpu_us", cpu.us() / joins as f64);
    figures.insert("mesh_us_each", cpu.us_of("mesh") / 2.0 / joins as f64);
    figures.insert("rate", joins as f64 / secs);
    Ok(figures)
}
