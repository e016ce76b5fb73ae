//! Scenarios with many peers in one network. Either all peers join at the same time, or one peer sends to all.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::figures::{Figures, median};
use crate::ledger::Ledger;
use crate::machine::Cpu;
use crate::message::{self, Heard};
use crate::server::Server;
use crate::swarm::Swarm;

/// The network of all peers.
const ROOM: usize = 0;

/// A peer's announcement. The yardstick gets the message that a hub would send, so that both send the same bytes.
fn announcement(server: &Server, peer: usize) -> Vec<u8> {
    if server.kind.is_hub() { message::announce(&message::network(ROOM)) } else { message::discovered(peer, ROOM) }
}

/// The discoveries that peers have received, and the delay of each discovery.
struct Hearing {
    ledger: Ledger,
    /// Time at which each peer announced, or should have announced.
    announced: Vec<Option<Instant>>,
    lag: Histogram<u64>,
    /// A hub sends a discovery when both peers have announced themselves. A yardstick sends a discovery when it
    /// receives one announcement.
    is_hub: bool,
}

impl Hearing {
    fn new(server: &Server, peers: usize) -> io::Result<Self> {
        Ok(Self {
            ledger: Ledger::new(peers),
            announced: vec![None; peers],
            lag: Histogram::new_with_bounds(1, 600_000_000, 3).map_err(io::Error::other)?,
            is_hub: server.kind.is_hub(),
        })
    }

    fn hear(&mut self, observer: usize, heard: Heard) {
        let Heard::Discovered(subject) = heard else { return };
        if !self.ledger.enter(observer, subject) {
            return;
        }
        let of = |peer: usize| self.announced[peer];
        let since = if self.is_hub { of(subject).max(of(observer)) } else { of(subject) };
        // The clock is read again for each message, so the delay includes the time for which earlier messages occupied
        // the generator.
        self.lag.saturating_record(since.map_or(0, |since| since.elapsed().as_micros() as u64));
    }

    /// The figures, if every peer has discovered every other exactly once.
    fn figures(&self, cpu: &Cpu, secs: f64) -> io::Result<Figures> {
        let Ledger { pairs, wrong, .. } = self.ledger;
        if !self.ledger.is_exact() {
            let all = self.announced.len() * (self.announced.len() - 1);
            return Err(io::Error::other(format!(
                "{pairs} of {all} pairs discovered each other, and {wrong} discoveries were wrong"
            )));
        }
        Ok(Figures::from([
            ("cpu_us", cpu.us() / pairs as f64),
            ("secs", secs),
            ("rate", pairs as f64 / secs),
            ("p50_ms", self.lag.value_at_quantile(0.5) as f64 / 1e3),
            ("p99_ms", self.lag.value_at_quantile(0.99) as f64 / 1e3),
            ("max_ms", self.lag.max() as f64 / 1e3),
        ]))
    }
}

/// All peers connect and then announce, `per_sec` of them per second or all at once. After every peer has discovered
/// every other one, the function waits for a short time, in which each further discovery is an error.
pub(crate) fn join(server: &Server, peers: usize, per_sec: Option<f64>) -> io::Result<Figures> {
    const QUIET: Duration = Duration::from_secs(20);
    const AFTERWARDS: Duration = Duration::from_millis(300);
    let mut swarm = Swarm::new()?;
    swarm.connect((0..peers).map(|peer| server.seat(peer, ROOM)), |_, _| {})?;
    let mut hearing = Hearing::new(server, peers)?;
    let goal = (peers * (peers - 1)) as u64;
    let (before, begin) = (server.cpu()?, Instant::now());
    let (mut next, mut last) = (0, begin);
    while hearing.ledger.pairs < goal && last.elapsed() < QUIET {
        let due = per_sec.map_or(peers, |rate| (begin.elapsed().as_secs_f64() * rate) as usize + 1);
        while next < due.min(peers) {
            // If `per_sec` is given, the delay is measured from the time at which the announcement was due, even if the
            // generator was late.
            let when = per_sec.map_or_else(Instant::now, |rate| begin + Duration::from_secs_f64(next as f64 / rate));
            hearing.announced[next] = Some(when);
            swarm.send(next, &announcement(server, next))?;
            next += 1;
        }
        let pairs = hearing.ledger.pairs;
        swarm.turn(Some(Duration::from_millis(1)), |observer, heard| hearing.hear(observer, heard))?;
        if hearing.ledger.pairs > pairs {
            last = Instant::now();
        }
    }
    let (secs, cpu) = (begin.elapsed().as_secs_f64(), server.cpu()?.since(&before));
    let begin = Instant::now();
    while begin.elapsed() < AFTERWARDS {
        swarm.turn(Some(AFTERWARDS), |observer, heard| hearing.hear(observer, heard))?;
    }
    hearing.figures(&cpu, secs)
}

/// Measures the cost per recipient when one of many connected peers leaves and returns, repeatedly. The returning peer
/// also receives the discoveries of all other peers, in few large writes. The yardstick only writes each message to
/// every peer.
pub(crate) fn fan_out(server: &Server, peers: usize, rounds: usize) -> io::Result<Figures> {
    let mut swarm = Swarm::new()?;
    swarm.connect((0..peers).map(|peer| server.seat(peer, ROOM)), |_, _| {})?;
    let is_hub = server.kind.is_hub();
    let others = peers as u64 - 1;
    let mut figures = Figures::new();
    if is_hub {
        figures.insert("fill_cpu_us", fill(server, &mut swarm, peers)?);
    }
    let (mut leaves, mut joins, mut times) = (0.0, 0.0, Vec::new());
    // The first round is a warm-up.
    for round in 0..=rounds {
        let speaker = round * 7 % peers;
        let announce = announcement(server, speaker);
        let goodbye = if is_hub { message::goodbye(&message::network(ROOM)) } else { announce.clone() };
        let before = server.cpu()?;
        swarm.send(speaker, &goodbye)?;
        swarm.until_texts("goodbyes", others)?;
        let (middle, begin) = (server.cpu()?, Instant::now());
        swarm.send(speaker, &announce)?;
        swarm.until_texts("discoveries", if is_hub { 2 * others } else { others })?;
        if round > 0 {
            times.push(begin.elapsed().as_secs_f64() * 1e3);
            joins += server.cpu()?.since(&middle).us();
            leaves += middle.since(&before).us();
        }
    }
    let each = (rounds as u64 * others) as f64;
    figures.extend([
        ("join_us", joins / each),
        ("leave_us", leaves / each),
        ("all_ms", median(times.into_iter()).unwrap_or_default()),
    ]);
    Ok(figures)
}

/// All peers announce, in groups that are small enough to keep queues short. Returns the CPU time per discovery.
fn fill(server: &Server, swarm: &mut Swarm, peers: usize) -> io::Result<f64> {
    const CHUNK: usize = 50;
    let before = server.cpu()?;
    let mut there = 0;
    while there < peers {
        let next = (there + CHUNK).min(peers);
        for peer in there..next {
            swarm.send(peer, &announcement(server, peer))?;
        }
        swarm.until_texts("discoveries", (next * (next - 1) - there * there.saturating_sub(1)) as u64)?;
        there = next;
    }
    Ok(server.cpu()?.since(&before).us() / (peers * (peers - 1)) as f64)
}
