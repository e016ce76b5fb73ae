//! The cost of connections in time and memory: opening, staying and closing.

use std::io;
use std::time::{Duration, Instant};

use crate::figures::Figures;
use crate::frames;
use crate::machine;
use crate::message::{self, Heard};
use crate::server::Server;
use crate::swarm::Swarm;

/// Peers in a network.
const MEMBERS: usize = 10;

/// Connects all peers, and then ends half of the connections with a reset and, except at the yardstick, the other half
/// with a close frame.
pub(crate) fn connect(server: &Server, peers: usize) -> io::Result<Figures> {
    let mut swarm = Swarm::new()?;
    // The first 200 connections are not measured, because a server does some work only for its first connections.
    swarm.connect((peers..peers + 200).map(|peer| server.seat(peer, peer)), |_, _| {})?;
    (0..200).try_for_each(|at| swarm.reset(at))?;
    swarm.rest(SETTLED)?;
    let (before, begin) = (server.cpu()?, Instant::now());
    let first = swarm.len();
    swarm.connect((0..peers).map(|peer| server.seat(peer, peer)), |_, _| {})?;
    let (secs, opened) = (begin.elapsed().as_secs_f64(), server.cpu()?);
    let middle = first + peers / 2;
    (first..middle).try_for_each(|at| swarm.reset(at))?;
    swarm.rest(SETTLED)?;
    let reset = server.cpu()?;
    if server.kind.is_hub() {
        // The yardstick gets no close frames, because it forwards all frames to other peers without parsing them.
        (middle..first + peers).try_for_each(|at| swarm.send(at, &frames::close()))?;
    }
    swarm.rest(SETTLED)?;
    let closed = server.cpu()?;
    let each = |cpu: machine::Cpu, since: &machine::Cpu, count: usize| cpu.since(since).us() / count as f64;
    Ok(Figures::from([
        ("cpu_us", each(opened.clone(), &before, peers)),
        ("rate", peers as f64 / secs),
        ("reset_us", each(reset.clone(), &opened, peers / 2)),
        ("close_us", each(closed, &reset, peers - peers / 2)),
    ]))
}

/// Time between two phases of a measurement. A server finishes the work of the previous phase in this time.
const SETTLED: Duration = Duration::from_secs(1);

/// How long all peers stay connected, and how long they stay disconnected, before memory is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    pub(crate) there: Duration,
    pub(crate) gone: Duration,
}

impl Rest {
    /// The allocators of hub and baseline return free memory to the system within ten seconds. After a shorter rest, as
    /// in a quick run, the measured memory would include free memory that announcements have used. The amount of this
    /// free memory depends on the load of the machine.
    pub(crate) fn new(quick: bool) -> Self {
        let [there, gone] = if quick { [3, 5] } else { [15, 30] };
        Self { there: Duration::from_secs(there), gone: Duration::from_secs(gone) }
    }
}

/// All peers connect, announce in networks of ten, stay idle, and leave. This happens twice.
pub(crate) fn idle(server: &Server, peers: usize, rest: Rest) -> io::Result<Figures> {
    let empty = server.rss()? as f64;
    let mut rounds = Vec::new();
    for _ in 0..2 {
        let mut swarm = Swarm::new()?;
        swarm.connect((0..peers).map(|peer| server.seat(peer, peer / MEMBERS)), |_, _| {})?;
        swarm.rest(rest.there)?;
        let connected = server.rss()? as f64;
        announce_all(&mut swarm, peers)?;
        swarm.rest(rest.there)?;
        let announced = server.rss()? as f64;
        let cpu = server.cpu()?;
        swarm.rest(rest.there)?;
        let idle = server.cpu()?.since(&cpu).us() / rest.there.as_secs_f64();
        if swarm.lost > 0 {
            return Err(io::Error::other(format!("{} connections lost", swarm.lost)));
        }
        drop(swarm);
        std::thread::sleep(rest.gone);
        let gone = server.rss()? as f64;
        rounds.push([connected, announced, gone, idle]);
    }
    let [[connected, announced, gone, idle], [_, again, gone_again, _]] = rounds[..] else { return Ok(Figures::new()) };
    let each = |bytes: f64| bytes / peers as f64;
    Ok(Figures::from([
        ("connected_bytes", each(connected - empty)),
        ("announced_bytes", each(announced - empty)),
        ("kept_part", (gone - empty) / (announced - empty)),
        ("second_bytes", each(again - empty)),
        ("second_adds_bytes", each(again - announced)),
        ("second_kept_part", (gone_again - empty) / (announced - empty)),
        ("idle_us_per_sec", idle / peers as f64),
        ("empty_mib", empty / 1024.0 / 1024.0),
    ]))
}

/// Announces all peers in networks of ten. Returns when every peer knows the nine other members of its network.
fn announce_all(swarm: &mut Swarm, peers: usize) -> io::Result<()> {
    /// Number of announcements that the generator sends before it reads again.
    const CHUNK: usize = 500;
    let mut count = 0;
    let is_event = |heard| u64::from(matches!(heard, Heard::Discovered(_)));
    for first in (0..peers).step_by(CHUNK) {
        for at in first..peers.min(first + CHUNK) {
            swarm.send(at, &message::announce(&message::network(at / MEMBERS)))?;
        }
        swarm.turn(None, |_, heard| count += is_event(heard))?;
    }
    let rooms = (0..peers).step_by(MEMBERS).map(|first| MEMBERS.min(peers - first) as u64);
    let goal = rooms.map(|members| members * (members - 1)).sum();
    swarm.until("discoveries", goal, &mut count, |count, _, heard| *count += is_event(heard))
}

/// In each of many networks of ten, one member leaves and returns, repeatedly.
pub(crate) fn churn(server: &Server, networks: usize, window: Duration) -> io::Result<Figures> {
    let peers = networks * MEMBERS;
    let others = MEMBERS as u32 - 1;
    let mut swarm = Swarm::new()?;
    swarm.connect((0..peers).map(|peer| server.seat(peer, peer / MEMBERS)), |_, _| {})?;
    announce_all(&mut swarm, peers)?;
    let room: Vec<(Vec<u8>, Vec<u8>)> =
        (0..networks).map(message::network).map(|name| (message::announce(&name), message::goodbye(&name))).collect();
    // Number of events that the last step in each network has caused. A leave causes one event for each other member. A
    // join causes two events for each other member, because both peers discover each other.
    let mut heard = vec![0u32; networks];
    let mut away = vec![true; networks];
    let mut cycles = 0u64;
    let mut strange = 0u64;
    for (network, (_, goodbye)) in room.iter().enumerate() {
        swarm.send(network * MEMBERS, goodbye)?;
    }
    let (mut measured, mut begin) = (None, Instant::now());
    loop {
        let mut ready = Vec::new();
        swarm.turn(Some(Duration::from_millis(100)), |at, event| {
            let network = at / MEMBERS;
            match (event, away[network]) {
                (Heard::Left, true) | (Heard::Discovered(_), false) => heard[network] += 1,
                _ => strange += 1,
            }
            let goal = if away[network] { others } else { 2 * others };
            if heard[network] == goal {
                ready.push(network);
            }
        })?;
        for network in ready {
            heard[network] = 0;
            away[network] = !away[network];
            cycles += u64::from(away[network]);
            let (announce, goodbye) = &room[network];
            swarm.send(network * MEMBERS, if away[network] { goodbye } else { announce })?;
        }
        match &measured {
            None if begin.elapsed() > WARM_UP => {
                measured = Some((server.cpu()?, cycles));
                begin = Instant::now();
            }
            Some((cpu, before)) if begin.elapsed() > window => {
                let (secs, cpu) = (begin.elapsed().as_secs_f64(), server.cpu()?.since(cpu));
                let cycles = (cycles - before) as f64;
                if strange > 0 || swarm.lost > 0 || cycles < 1.0 {
                    let lost = swarm.lost;
                    return Err(io::Error::other(format!(
                        "{cycles} leaves and joins, {strange} unexpected events, {lost} lost connections"
                    )));
                }
                return Ok(Figures::from([
                    ("cpu_us", cpu.us() / cycles),
                    ("event_us", cpu.us() / cycles / f64::from(3 * others)),
                    ("rate", cycles / secs),
                ]));
            }
            _ => {}
        }
    }
}

const WARM_UP: Duration = Duration::from_millis(500);
