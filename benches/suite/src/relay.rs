//! Pairs that send offers back and forth: the cost of a relayed message.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::figures::Figures;
use crate::frames;
use crate::machine::Cpu;
use crate::message::{self, Heard};
use crate::secure;
use crate::server::Server;
use crate::swarm::Swarm;

/// The parameters of a relay scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Length of a message's JSON, in bytes.
    pub(crate) size: usize,
    /// Number of messages in flight per pair.
    pub(crate) in_flight: usize,
    /// Number of peers in a network. The peers of a pair are in the same network.
    pub(crate) members: usize,
    /// Length of the measured part.
    pub(crate) window: Duration,
}

/// Warm-up before the measured part.
pub(crate) const WARM_UP: Duration = Duration::from_millis(700);

/// Two peers that exchange messages, by number, and the server of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) servers: [&'a Server; 2],
    pub(crate) peers: [usize; 2],
}

/// Pairs of the peers 2n and 2n + 1 at one server.
pub(crate) fn pairs(server: &Server, count: usize) -> Vec<Pair<'_>> {
    (0..count).map(|n| Pair { servers: [server; 2], peers: [2 * n, 2 * n + 1] }).collect()
}

/// Measures a closed loop: a peer answers each received message immediately with a message of the same size.
pub(crate) fn closed(pairs: &[Pair<'_>], plan: Plan, spin: bool) -> io::Result<Figures> {
    let mut talk = Talk::assemble(pairs, plan, (!spin).then_some(Duration::from_millis(100)))?;
    for at in (0..2 * pairs.len()).step_by(2) {
        talk.send(at, plan.in_flight, Instant::now())?;
    }
    talk.measure(plan.window, |talk, time| {
        let begin = Instant::now();
        while begin.elapsed() < time {
            for at in talk.wait()? {
                let came = talk.take(at);
                if came > 0 {
                    talk.send(at, came, Instant::now())?;
                }
            }
        }
        Ok(())
    })
}

/// The first peer of each pair sends to the second at a fixed rate, and does not wait for the server. Latency counts
/// from the time at which a message was due, even if the generator is late.
pub(crate) fn open(pairs: &[Pair<'_>], plan: Plan, rate: f64, spin: bool) -> io::Result<Figures> {
    /// Number of messages that the generator sends before it reads again.
    const BURST: u64 = 32;
    let mut talk = Talk::assemble(pairs, plan, (!spin).then_some(Duration::from_micros(100)))?;
    let figures = talk.measure(plan.window, |talk, time| {
        let (begin, mut sent) = (Instant::now(), 0u64);
        while begin.elapsed() < time {
            let due = (begin.elapsed().as_secs_f64() * rate) as u64;
            let stop = due.min(sent + BURST);
            while sent < stop {
                let at = 2 * (sent % pairs.len() as u64) as usize;
                talk.send(at, 1, begin + Duration::from_secs_f64(sent as f64 / rate))?;
                sent += 1;
            }
            for at in talk.wait()? {
                talk.take(at);
            }
        }
        Ok(())
    })?;
    let reached = figures["rate"] / rate;
    Ok(figures.into_iter().chain([("asked", rate), ("reached", reached)]).collect())
}

/// Like [`open`], but the generator sleeps between messages. At the end, the generator waits for every sent message, so
/// that delays longer than the window are measured.
pub(crate) fn quiet(pairs: &[Pair<'_>], plan: Plan, rate: f64) -> io::Result<Figures> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let mut talk = Talk::assemble(pairs, plan, Some(Duration::from_micros(100)))?;
    talk.measure(plan.window, |talk, time| {
        let (begin, mut sent) = (Instant::now(), 0u64);
        let is_under_way = |talk: &Talk| talk.sent.iter().any(|sent| !sent.is_empty());
        while begin.elapsed() < time || (is_under_way(talk) && begin.elapsed() < time + PATIENCE) {
            let due = (begin.elapsed().min(time).as_secs_f64() * rate) as u64;
            while sent < due {
                let at = 2 * (sent % pairs.len() as u64) as usize;
                talk.send(at, 1, begin + Duration::from_secs_f64((sent + 1) as f64 / rate))?;
                sent += 1;
            }
            for at in talk.wait()? {
                talk.take(at);
            }
        }
        Ok(())
    })
}

/// Like [`open`], while `hellos` clients per second begin TLS handshakes at the first server.
pub(crate) fn beside_handshakes(
    pairs: &[Pair<'_>],
    plan: Plan,
    rate: f64,
    hellos: f64,
    spin: bool,
) -> io::Result<Figures> {
    let mut crowd =
        Crowd { hello: secure::hello()?, port: pairs[0].servers[0].port, open: VecDeque::new(), answered: 0 };
    let mut talk = Talk::assemble(pairs, plan, (!spin).then_some(Duration::from_micros(100)))?;
    let figures = talk.measure(plan.window, |talk, time| {
        let (begin, mut sent, mut came) = (Instant::now(), 0u64, 0u64);
        while begin.elapsed() < time {
            let now = begin.elapsed().as_secs_f64();
            if came < (now * hellos) as u64 {
                came += 1;
                crowd.come()?;
            }
            if sent < (now * rate) as u64 {
                let at = 2 * (sent % pairs.len() as u64) as usize;
                talk.send(at, 1, begin + Duration::from_secs_f64(sent as f64 / rate))?;
                sent += 1;
            }
            for at in talk.wait()? {
                talk.take(at);
            }
        }
        Ok(())
    })?;
    Ok(figures.into_iter().chain([("answered", crowd.answered as f64)]).collect())
}

/// Clients that begin handshakes and leave after the first answer.
struct Crowd {
    hello: Vec<u8>,
    port: u16,
    open: VecDeque<TcpStream>,
    answered: u64,
}

impl Crowd {
    /// Maximum number of open connections. 64 connections are enough, because a server answers within milliseconds.
    const OPEN: usize = 64;

    fn come(&mut self) -> io::Result<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_nonblocking(true)?;
        stream.write_all(&self.hello)?;
        self.open.push_back(stream);
        if self.open.len() > Self::OPEN
            && let Some(mut oldest) = self.open.pop_front()
        {
            self.answered += u64::from(oldest.read(&mut [0; 4096]).is_ok_and(|n| n > 0));
            rustix::net::sockopt::set_socket_linger(&oldest, Some(Duration::ZERO))?;
        }
        Ok(())
    }
}

/// Pairs whose peers have the connections 2n and 2n + 1.
struct Talk {
    swarm: Swarm,
    pids: Vec<u32>,
    /// The frames that each peer sends.
    frames: Vec<Vec<u8>>,
    /// Send times of each peer's messages in flight.
    sent: Vec<VecDeque<Instant>>,
    /// Minimum length of the frame of an offer. Shorter frames are other messages.
    floor: usize,
    latency: Histogram<u64>,
    moved: u64,
    stray: u64,
    /// Maximum time to sleep. With `None`, the generator never sleeps. A generator with its own core usually does not
    /// sleep, because waking it would count as CPU time of the server.
    sleep: Option<Duration>,
}

impl Talk {
    /// Connects all pairs, and announces them.
    fn assemble(pairs: &[Pair<'_>], plan: Plan, sleep: Option<Duration>) -> io::Result<Self> {
        let mut swarm = Swarm::new()?;
        let seats: Vec<(&Server, usize)> =
            pairs.iter().flat_map(|pair| [0, 1].map(|side| (pair.servers[side], pair.peers[side]))).collect();
        let room = |at: usize| message::network(at / plan.members);
        let mut discovered = 0;
        swarm
            .connect(seats.iter().enumerate().map(|(at, &(server, peer))| server.seat(peer, at / 2)), |_, heard| {
                discovered += u64::from(matches!(heard, Heard::Discovered(_)))
            })?;
        if seats[0].0.kind.is_hub() {
            for at in 0..seats.len() {
                swarm.send(at, &message::announce(&room(at)))?;
            }
            let rooms =
                (0..seats.len()).step_by(plan.members).map(|first| plan.members.min(seats.len() - first) as u64);
            let goal = rooms.map(|members| members * (members - 1)).sum();
            swarm.until("discoveries", goal, &mut discovered, |count, _, heard| {
                *count += u64::from(matches!(heard, Heard::Discovered(_)));
            })?;
        }
        let mut pids: Vec<u32> = seats.iter().flat_map(|(server, _)| server.pids()).collect();
        pids.sort_unstable();
        pids.dedup();
        Ok(Self {
            swarm,
            pids,
            frames: (0..seats.len()).map(|at| message::offer(seats[at ^ 1].1, &room(at), plan.size)).collect(),
            sent: vec![VecDeque::new(); seats.len()],
            floor: plan.size * 3 / 4,
            latency: Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(io::Error::other)?,
            moved: 0,
            stray: 0,
            sleep,
        })
    }

    /// Runs the warm-up and then the measured part. Reads the servers' CPU times before and after the measured part.
    fn measure(
        &mut self,
        window: Duration,
        mut run: impl FnMut(&mut Self, Duration) -> io::Result<()>,
    ) -> io::Result<Figures> {
        run(self, WARM_UP)?;
        self.latency.reset();
        let (before, begin, moved) = (Cpu::of(&self.pids)?, Instant::now(), self.moved);
        run(self, window)?;
        let (secs, cpu) = (begin.elapsed().as_secs_f64(), Cpu::of(&self.pids)?.since(&before));
        let messages = (self.moved - moved) as f64;
        if self.stray > 0 || self.swarm.lost > 0 {
            let (stray, lost) = (self.stray, self.swarm.lost);
            return Err(io::Error::other(format!("{stray} unexpected messages, {lost} lost connections")));
        }
        let quantile = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Figures::from([
            ("cpu_us", cpu.us() / messages),
            ("mesh_us", cpu.us_of("mesh") / messages),
            ("rate", messages / secs),
            ("p50_us", quantile(0.5)),
            ("p99_us", quantile(0.99)),
            ("busy", cpu.us() / 1e6 / secs),
        ]))
    }

    fn send(&mut self, at: usize, times: usize, when: Instant) -> io::Result<()> {
        self.sent[at].extend(std::iter::repeat_n(when, times));
        self.swarm.send_times(at, &self.frames[at], times)
    }

    /// The readable connections.
    fn wait(&mut self) -> io::Result<Vec<usize>> {
        let mut ready = Vec::new();
        self.swarm.wait(self.sleep, &mut ready)?;
        Ok(ready)
    }

    /// Reads once, and records the latencies. Returns the number of received offers.
    fn take(&mut self, at: usize) -> usize {
        let mut buffer = std::mem::take(&mut self.swarm.buffer);
        let read = self.swarm.read(at, &mut buffer);
        let (mut offers, mut pings) = (0, 0);
        if let Some(conn) = self.swarm.conn(at) {
            conn.scan.feed(&buffer[..read], |header| match header.opcode {
                frames::TEXT if header.payload >= self.floor => offers += 1,
                frames::PING => pings += 1,
                _ => self.stray += 1,
            });
        }
        self.swarm.buffer = buffer;
        let now = Instant::now();
        for _ in 0..offers {
            match self.sent[at ^ 1].pop_front() {
                Some(then) => self.latency.saturating_record(now.saturating_duration_since(then).as_nanos() as u64),
                None => self.stray += 1,
            }
        }
        for _ in 0..pings {
            _ = self.swarm.send(at, &frames::pong());
        }
        self.moved += offers as u64;
        offers
    }
}
