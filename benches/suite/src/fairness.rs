//! The latency of a pair of peers that send little, while other clients flood the pair's hub or another hub on the same
//! core.
//!
//! The core is equally busy in both cases. If the pair's latency is higher when the flood arrives at the pair's own
//! hub, the cause is the order in which this hub does its work.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::figures::{Figures, Round};
use crate::frames;
use crate::machine::Cpu;
use crate::mesh;
use crate::message::{self, Heard};
use crate::relay::{self, Pair, Plan};
use crate::server::{Kind, Server, Setup};
use crate::swarm::{Seat, Swarm};

/// The three measured cases: no flood, a flood at the pair's own hub, and a flood at another hub.
pub(crate) const PLACES: [&str; 3] = ["no flood", "flood here", "flood at another hub"];

/// Number of messages per second that the measured pair sends.
const RATE: f64 = 200.0;

/// Number of connections of a flood with several peers.
const MANY: usize = 10;

/// The number of a flood's first peer. The two peers of the measured pair have smaller numbers.
const FIRST: usize = 1000;

/// The network of a flood.
const ROOM: usize = FIRST;

/// A flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    /// One member of a network of 500 announces 16 KiB again and again.
    Announce,
    /// Each member of a network of 500 announces 16 KiB again and again.
    AnnounceByAll,
    /// Messages that are not JSON.
    Braces,
    /// Connections that are reset immediately.
    Connect,
    /// `discover` in a network with bounded discovery.
    Discover,
    /// Empty fragments of a message that never ends.
    Fragments,
    /// Connections with the id of a connected peer.
    IdFight,
    /// Members of a network of 500 join and leave.
    JoinAndLeave,
    /// Signals of 256 KiB between pairs.
    Large,
    /// Signals to a peer that does not exist.
    Nobody,
    /// Requests for the metrics on persistent connections, without waiting for answers.
    Pages,
    /// Requests for the playground's files on persistent connections, without waiting for answers.
    Files,
    /// Pings of the WebSocket protocol.
    Pings,
    /// Signals to an unknown peer, with receipts.
    Receipts,
    /// Signals of all peers to one peer, which reads them.
    Victim,
}

impl Flood {
    /// Every flood.
    pub(crate) const ALL: [Self; 15] = [
        Self::Announce,
        Self::AnnounceByAll,
        Self::Braces,
        Self::Connect,
        Self::Discover,
        Self::Files,
        Self::Fragments,
        Self::IdFight,
        Self::JoinAndLeave,
        Self::Large,
        Self::Nobody,
        Self::Pages,
        Self::Pings,
        Self::Receipts,
        Self::Victim,
    ];

    /// The name in the table.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Announce => "one re-announces 16 KiB to 500",
            Self::AnnounceByAll => "500 re-announce 16 KiB to 500",
            Self::Braces => "10 send `{`",
            Self::Connect => "connections that end at once",
            Self::Discover => "10 send `discover`",
            Self::Files => "10 request /playground.html",
            Self::Fragments => "10 send empty fragments",
            Self::IdFight => "connections with an id in use",
            Self::JoinAndLeave => "10 join and leave a network of 500",
            Self::Large => "10 send signals of 256 KiB",
            Self::Nobody => "10 send signals to nobody",
            Self::Pages => "10 request /metrics",
            Self::Pings => "10 send WebSocket pings",
            Self::Receipts => "10 send signals to nobody, with receipts",
            Self::Victim => "10 send signals to one peer",
        }
    }

    /// The bytes that each connection sends repeatedly; `at` is the connection's number.
    fn frame(self, at: usize) -> Vec<u8> {
        let room = message::network(ROOM);
        let nobody = |receipt: &str| {
            let target = message::id(FIRST - 1);
            frames::text(&format!(
                r#"{{"type":"offer"{receipt},"targetPeerId":"{target}","networkName":"{room}","data":{{}}}}"#
            ))
        };
        match self {
            Self::Announce | Self::AnnounceByAll => message::announce_of(&room, 16 * 1024 - 100),
            Self::Braces => frames::text("{"),
            Self::Discover => {
                frames::text(&format!(r#"{{"type":"discover","networkName":"{room}","data":{{"limit":64}}}}"#))
            }
            Self::Fragments => frames::empty_fragment(),
            Self::JoinAndLeave => [message::announce(&room), message::goodbye(&room)].concat(),
            Self::Large => message::offer(FIRST + (at ^ 1), &room, 256 * 1024),
            Self::Nobody => nobody(""),
            Self::Pages => page("/metrics"),
            Self::Files => page("/playground.html"),
            Self::Pings => frames::ping(),
            Self::Receipts => nobody(r#","id":"receipt""#),
            Self::Victim => message::offer(FIRST + MANY, &room, 300),
            Self::Connect | Self::IdFight => Vec::new(),
        }
    }

    /// Number of the flood's peers, and how many of these peers send.
    fn peers(self) -> (usize, usize) {
        match self {
            Self::Announce => (500, 1),
            Self::AnnounceByAll => (500, 500),
            Self::JoinAndLeave => (500, MANY),
            Self::Victim => (MANY + 1, MANY),
            Self::IdFight => (1, 0),
            Self::Connect | Self::Pages | Self::Files => (0, 0),
            Self::Braces
            | Self::Discover
            | Self::Fragments
            | Self::Large
            | Self::Nobody
            | Self::Pings
            | Self::Receipts => (MANY, MANY),
        }
    }

    /// Floods the server until `stop` is set. Sends a message on `begun` right before the flood begins.
    fn run(self, port: u16, begun: &SyncSender<()>, stop: &AtomicBool, sent: &AtomicU64) -> io::Result<()> {
        // The flood and the generator of the pair use the same core. The flood gets a lower priority, so that the
        // pair's generator runs first.
        _ = rustix::process::nice(10);
        let (peers, senders) = self.peers();
        let mut swarm = Swarm::new()?;
        let seat = |peer| Seat { port, peer, group: 0, welcomed: true, secure: false };
        swarm.connect((FIRST..FIRST + peers).map(seat), |_, _| {})?;
        let mut discovered = 0;
        for at in 0..peers {
            let announce = if self == Self::Discover { message::announce_bounded } else { message::announce };
            swarm.send(at, &announce(&message::network(ROOM)))?;
        }
        if self != Self::Discover {
            let goal = (peers * peers.saturating_sub(1)) as u64;
            swarm.until("discoveries", goal, &mut discovered, |count, _, heard| {
                *count += u64::from(matches!(heard, Heard::Discovered(_)));
            })?;
        }
        _ = begun.send(());
        match self {
            Self::Connect | Self::IdFight => connect_again_and_again(self, port, &mut swarm, stop, sent),
            Self::Pages | Self::Files => request_again_and_again(&self.frame(0), port, stop, sent),
            Self::Announce
            | Self::AnnounceByAll
            | Self::Braces
            | Self::Discover
            | Self::Fragments
            | Self::JoinAndLeave
            | Self::Large
            | Self::Nobody
            | Self::Pings
            | Self::Receipts
            | Self::Victim => self.send_again_and_again(senders, &mut swarm, stop, sent),
        }
    }

    fn send_again_and_again(
        self,
        senders: usize,
        swarm: &mut Swarm,
        stop: &AtomicBool,
        sent: &AtomicU64,
    ) -> io::Result<()> {
        /// Minimum number of bytes of one write.
        const BYTES: usize = 64 * 1024;
        let frames: Vec<(Vec<u8>, u64)> = (0..senders)
            .map(|at| {
                let frame = self.frame(at);
                let times = BYTES.div_ceil(frame.len());
                (frame.repeat(times), times as u64)
            })
            .collect();
        if self == Self::Fragments {
            (0..senders).try_for_each(|at| swarm.send(at, &frames::first_fragment()))?;
        }
        while !stop.load(Ordering::Relaxed) {
            let mut some = false;
            for (at, (frame, times)) in frames.iter().enumerate() {
                if swarm.conn(at).is_some_and(|conn| conn.has_sent_all()) {
                    swarm.send(at, frame)?;
                    sent.fetch_add(*times, Ordering::Relaxed);
                    some = true;
                }
            }
            swarm.count_texts((!some).then_some(Duration::from_millis(1)))?;
        }
        Ok(())
    }
}

/// Sends requests for a WebSocket, each on a separate connection.
fn connect_again_and_again(
    flood: Flood,
    port: u16,
    swarm: &mut Swarm,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> io::Result<()> {
    /// Maximum number of open connections.
    const OPEN: usize = 64;
    let mut open = VecDeque::new();
    let mut peer = FIRST + 10;
    while !stop.load(Ordering::Relaxed) {
        peer += 1;
        let request = message::request(if flood == Flood::IdFight { FIRST } else { peer }, 0);
        // A failed attempt is not an error, because the flood may exceed what the hub accepts.
        let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        let Ok(stream) = connected.and_then(|mut stream| stream.write_all(&request).map(|()| stream)) else { continue };
        sent.fetch_add(1, Ordering::Relaxed);
        open.push_back(stream);
        if open.len() > OPEN
            && let Some(oldest) = open.pop_front()
        {
            rustix::net::sockopt::set_socket_linger(&oldest, Some(Duration::ZERO))?;
        }
        swarm.turn(None, |_, _| {})?;
    }
    open.iter().try_for_each(|stream| Ok(rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?))
}

/// Sends requests for a page on persistent connections, many at a time.
fn request_again_and_again(request: &[u8], port: u16, stop: &AtomicBool, sent: &AtomicU64) -> io::Result<()> {
    const AT_ONCE: usize = 100;
    let requests = request.repeat(AT_ONCE);
    let connect = || {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nonblocking(true)?;
        io::Result::Ok((stream, 0))
    };
    let mut open = (0..MANY).map(|_| connect()).collect::<io::Result<Vec<_>>>()?;
    let mut buffer = vec![0; 256 * 1024];
    while !stop.load(Ordering::Relaxed) {
        let mut some = false;
        for (stream, written) in &mut open {
            match stream.write(&requests[*written..]) {
                Ok(n) => {
                    *written = (*written + n) % requests.len();
                    sent.fetch_add(n as u64 / request.len() as u64, Ordering::Relaxed);
                    some = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    (*stream, *written) = connect()?;
                    continue;
                }
            }
            match stream.read(&mut buffer) {
                Ok(n) if n > 0 => some = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => (*stream, *written) = connect()?,
            }
        }
        if !some {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    Ok(())
}

fn page(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// Measures the pair in each of the [`PLACES`]. The hubs' budgets are disabled, so that each flood has its full effect.
pub(crate) fn run(flood: Flood, setup: &Setup, window: Duration) -> io::Result<Round> {
    let plan = Plan { size: 300, in_flight: 1, members: 2, window };
    let mut round = Vec::new();
    for (place, name) in PLACES.into_iter().enumerate() {
        let [here, other] = [Server::start(Kind::Hub, setup)?, Server::start(Kind::Hub, setup)?];
        let at = [None, Some(&here), Some(&other)][place];
        let pairs = relay::pairs(&here, 1);
        let figures = match at {
            None => relay::quiet(&pairs, plan, RATE)?,
            Some(server) => beside(flood, server, || relay::quiet(&pairs, plan, RATE))?,
        };
        round.push((name, figures));
    }
    Ok(round)
}

/// Like [`run`], but with the pair's peers at two linked hubs. The flood arrives at the first of these hubs, or at a
/// third hub.
pub(crate) fn run_linked(flood: Flood, setup: &Setup, window: Duration) -> io::Result<Round> {
    let plan = Plan { size: 300, in_flight: 1, members: 2, window };
    let mut round = Vec::new();
    for (place, name) in PLACES.into_iter().enumerate() {
        let hubs = mesh::linked(setup)?;
        let other = Server::start(Kind::Hub, setup)?;
        let at = [None, Some(&hubs[0]), Some(&other)][place];
        let pairs = [Pair { servers: [&hubs[0], &hubs[1]], peers: [0, 1] }];
        let figures = match at {
            None => relay::quiet(&pairs, plan, RATE)?,
            Some(server) => beside(flood, server, || relay::quiet(&pairs, plan, RATE))?,
        };
        round.push((name, figures));
    }
    Ok(round)
}

/// Runs `measure` while a server receives a flood. Adds the flood's rate, and the cores that the server used, to the
/// figures.
fn beside(flood: Flood, server: &Server, measure: impl FnOnce() -> io::Result<Figures>) -> io::Result<Figures> {
    let (begun, begins) = sync_channel(1);
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let flooder = {
        let (port, stop, sent) = (server.port, Arc::clone(&stop), Arc::clone(&sent));
        std::thread::spawn(move || flood.run(port, &begun, &stop, &sent))
    };
    let begin = begins.recv().map_err(|_| io::Error::other("the flood did not begin"));
    let (cpu, since, before) = (Cpu::of(&[server.pid()])?, Instant::now(), sent.load(Ordering::Relaxed));
    let figures = begin.and_then(|()| measure());
    let secs = since.elapsed().as_secs_f64();
    let messages = sent.load(Ordering::Relaxed) - before;
    let busy = server.cpu()?.since(&cpu).us() / 1e6 / secs;
    stop.store(true, Ordering::Relaxed);
    match flooder.join() {
        Ok(ended) => ended?,
        Err(_) => return Err(io::Error::other("the flood panicked")),
    }
    Ok(figures?.into_iter().chain([("flood_rate", messages as f64 / secs), ("flood_busy", busy)]).collect())
}
