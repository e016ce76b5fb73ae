//! The hostile scenario. Clients break the rules of the protocol, while pairs of ordinary peers send signals that must
//! arrive in time.
//!
//! Each kind of attack has its own thread per hub, with plain sockets, so a blocked or reset socket cannot delay the
//! pairs or another attack. Each thread sleeps for a moment between two steps. The load test usually runs on the hub's
//! machine, and the attacks must leave CPU time for the hub and for the pairs.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use proto::PeerId;
use proto::ws::{Opcode, mask, put_masked_header};
use socket2::SockRef;

use super::plan::Rng;
use super::progress::Progress;
use super::scenario::{Outcome, Pace, assemble, settle, talk};
use super::swarm::Swarm;
use crate::client::{Endpoint, HubUrl};

/// Maximum time for one read or write of an attacker.
const PATIENCE: Duration = Duration::from_millis(200);

/// Pause of an attacker between two steps.
const BREATH: Duration = Duration::from_millis(1);

/// Number of connections per attack, for attacks that keep connections open.
const CONNECTIONS: usize = 8;

/// A kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attack {
    /// Members of one network announce 16 KiB again and again, and read what the hub sends.
    Announce,
    /// Clients send text that is not JSON, JSON that is not a message, binary data, and messages of unknown types.
    Garbage,
    /// Clients begin a request or a message of 1 MiB, and never complete it.
    Half,
    /// Clients connect again and again, all with the same peer id.
    IdFight,
    /// Clients violate the WebSocket protocol, with wrong masks, reserved bits, unknown opcodes or impossible lengths.
    Masks,
    /// Clients send signals to a peer id that is not connected, with and without receipts.
    Nobody,
    /// Clients send the headers of messages that exceed the maximum length.
    Oversized,
    /// Clients send pings and empty fragments.
    Pings,
    /// Clients reset their connections in the middle of the request, or in the middle of a frame after a join.
    Reset,
    /// Members of the network of [`Self::Announce`] that read nothing.
    Slow,
}

impl Attack {
    const ALL: [Self; 10] = [
        Self::Announce,
        Self::Garbage,
        Self::Half,
        Self::IdFight,
        Self::Masks,
        Self::Nobody,
        Self::Oversized,
        Self::Pings,
        Self::Reset,
        Self::Slow,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Announce => "announce",
            Self::Garbage => "garbage",
            Self::Half => "half",
            Self::IdFight => "id-fight",
            Self::Masks => "masks",
            Self::Nobody => "nobody",
            Self::Oversized => "oversized",
            Self::Pings => "pings",
            Self::Reset => "reset",
            Self::Slow => "slow",
        }
    }

    /// Number of connections that the attack keeps open.
    const fn connections(self) -> usize {
        match self {
            Self::IdFight | Self::Masks | Self::Oversized | Self::Reset => 1,
            Self::Announce | Self::Garbage | Self::Half | Self::Nobody | Self::Pings | Self::Slow => CONNECTIONS,
        }
    }
}

/// The hub that an attacker connects to.
#[derive(Clone, Debug)]
struct Target {
    address: SocketAddr,
    url: HubUrl,
    token: Option<String>,
}

/// Checks that the URL of the hub does not use TLS, because attackers write to plain sockets.
pub(super) fn check(endpoint: &Endpoint) -> Result<(), String> {
    match endpoint.plain_address() {
        Some(_) => Ok(()),
        None => Err("--scenario hostile writes to plain sockets: use a ws:// URL".to_owned()),
    }
}

/// Runs the scenario. Pairs send offers to each other while all attacks run.
pub(super) async fn hostile(swarm: &Rc<Swarm>, pace: Pace, endpoints: &[Endpoint], progress: &Progress) -> Outcome {
    let mut outcome = assemble(swarm, pace, progress).await;
    outcome.expected_discoveries = Some(swarm.expected());
    if swarm.connected() == 0 {
        return outcome;
    }
    let targets = endpoints.iter().filter_map(|endpoint| {
        let address = endpoint.plain_address()?;
        Some(Target { address, url: endpoint.url().clone(), token: swarm.options.token.clone() })
    });
    let storm = Storm::begin(targets, pace.seed);
    let begin = Instant::now();
    progress.run("under attack", pace.duration);
    talk(swarm, pace, begin + pace.duration).await;
    outcome.relays = swarm.tally.borrow().delivered;
    outcome.measured_secs = begin.elapsed().as_secs_f64();
    outcome.attacks = storm.end();
    progress.phase("settling");
    settle(swarm, || swarm.is_exact()).await;
    outcome
}

/// The threads of all attacks.
struct Storm {
    stop: Arc<AtomicBool>,
    threads: Vec<(Attack, Arc<AtomicU64>, io::Result<JoinHandle<()>>)>,
}

impl Storm {
    fn begin(targets: impl Iterator<Item = Target>, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for target in targets {
            for attack in Attack::ALL {
                let steps = Arc::new(AtomicU64::new(0));
                let attacker = Attacker {
                    attack,
                    target: target.clone(),
                    rng: Rng::new(seed ^ (attack as u64) << 32),
                    stop: Arc::clone(&stop),
                    steps: Arc::clone(&steps),
                };
                let name = format!("attack-{}", attack.label());
                let thread = std::thread::Builder::new().name(name).spawn(move || attacker.run());
                threads.push((attack, steps, thread));
            }
        }
        Self { stop, threads }
    }

    /// Ends all attacks. Returns the number of steps that each attack took.
    fn end(self) -> Vec<(&'static str, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut ended: Vec<(&'static str, u64)> = Vec::new();
        for (attack, steps, thread) in self.threads {
            if let Ok(thread) = thread {
                // A panic of an attacker is ignored here. It shows in the low number of steps.
                let _ = thread.join();
            }
            let steps = steps.load(Ordering::Relaxed);
            match ended.iter_mut().find(|(label, _)| *label == attack.label()) {
                Some((_, sum)) => *sum += steps,
                None => ended.push((attack.label(), steps)),
            }
        }
        ended
    }
}

struct Attacker {
    attack: Attack,
    target: Target,
    rng: Rng,
    stop: Arc<AtomicBool>,
    steps: Arc<AtomicU64>,
}

impl Attacker {
    fn run(mut self) {
        let mut open: Vec<TcpStream> = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            // The hub ends or refuses many connections of an attacker. For each of them, the attacker opens a new
            // connection.
            if open.len() < self.attack.connections() {
                match self.open() {
                    Ok(stream) => open.push(stream),
                    Err(_) => std::thread::sleep(PATIENCE),
                }
            }
            open.retain_mut(|stream| self.step(stream).is_ok());
            self.steps.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(BREATH);
        }
    }

    fn id(&mut self) -> PeerId {
        if self.attack == Attack::IdFight {
            // All connections of the attack `IdFight` have the same peer id.
            return PeerId::from_bytes([0xf1; 20]);
        }
        PeerId::from_bytes(std::array::from_fn(|_| self.rng.next() as u8))
    }

    fn request(&mut self) -> Vec<u8> {
        let id = self.id();
        let token = self.target.token.as_ref().map_or(String::new(), |t| format!("Authorization: Bearer {t}\r\n"));
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{token}\r\n",
            self.target.url.request_target(&id),
            self.target.url.authority(),
        )
        .into_bytes()
    }

    /// Opens a connection, and sends the bytes that the attack sends once per connection.
    fn open(&mut self) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&self.target.address, PATIENCE)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = self.request();
        if self.attack == Attack::Reset && self.rng.below(3) == 0 {
            let part = self.rng.below(request.len() as u64) as usize;
            stream.write_all(&request[..part])?;
            return reset(&stream);
        }
        if self.attack == Attack::Half && self.rng.below(4) == 0 {
            stream.write_all(&request[..request.len() / 2])?;
            return Ok(stream);
        }
        stream.write_all(&request)?;
        let mut answer = [0; 4096];
        let n = stream.read(&mut answer)?;
        if !answer[..n].starts_with(b"HTTP/1.1 101 ") {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let room = r#"{"type":"announce","networkName":"hostile","data":{}}"#;
        match self.attack {
            Attack::Half => {
                let sent = self.rng.below(200_000) as usize;
                stream.write_all(&begun(Opcode::Text, 1024 * 1024, sent))?;
            }
            Attack::Pings => {
                let mut first = text(b"x");
                first[0] &= 0x7f;
                stream.write_all(&first)?;
            }
            Attack::Reset => {
                stream.write_all(&text(room.as_bytes()))?;
                stream.write_all(&begun(Opcode::Text, 1000, self.rng.below(1000) as usize))?;
                return reset(&stream);
            }
            Attack::Slow => {
                SockRef::from(&stream).set_recv_buffer_size(4096)?;
                stream.write_all(&text(room.as_bytes()))?;
            }
            Attack::Announce => stream.write_all(&text(room.as_bytes()))?,
            Attack::Garbage | Attack::IdFight | Attack::Masks | Attack::Nobody | Attack::Oversized => {}
        }
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Takes one step on an open connection. An error ends the connection.
    fn step(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let bytes = match self.attack {
            Attack::Announce => {
                let data = "x".repeat(16_000);
                text(format!(r#"{{"type":"announce","networkName":"hostile","data":{{"x":"{data}"}}}}"#).as_bytes())
            }
            Attack::Garbage => self.garbage(),
            Attack::Masks => self.violation(),
            Attack::Nobody => {
                let target = PeerId::from_bytes([0xee; 20]);
                let receipt = if self.rng.below(2) == 0 { r#","id":"r""# } else { "" };
                text(format!(r#"{{"type":"offer","targetPeerId":"{target}"{receipt},"data":{{}}}}"#).as_bytes())
                    .repeat(20)
            }
            Attack::Oversized => {
                let declared = [(1 << 20) + 1, 1 << 26, 1 << 40, usize::MAX >> 1][self.rng.below(4) as usize];
                begun(Opcode::Binary, declared, 1000)
            }
            Attack::Pings => {
                let mut empty = begun(Opcode::Continuation, 0, 0);
                empty[0] &= 0x7f;
                [begun(Opcode::Ping, 100, 100), empty].concat().repeat(50)
            }
            Attack::Half => {
                // Sends a byte from time to time.
                if self.rng.below(100) > 0 {
                    return Ok(());
                }
                vec![b' ']
            }
            Attack::IdFight => return Err(ErrorKind::ConnectionReset.into()),
            Attack::Reset | Attack::Slow => Vec::new(),
        };
        write_some(stream, &bytes)?;
        if matches!(self.attack, Attack::Slow | Attack::Half) { Ok(()) } else { drain(stream) }
    }

    fn garbage(&mut self) -> Vec<u8> {
        let payload: Vec<u8> = match self.rng.below(5) {
            0 => b"{".to_vec(),
            1 => br#"{"type":"nonsense","data":[1,2,3]}"#.to_vec(),
            2 => "[".repeat(10_000).into_bytes(),
            3 => (0..1000).map(|_| self.rng.next() as u8).collect(),
            _ => br#"{"type":"offer","targetPeerId":7,"networkName":{},"data":"#.to_vec(),
        };
        let opcode = if self.rng.below(2) == 0 { Opcode::Text } else { Opcode::Binary };
        frame(opcode, &payload).repeat(10)
    }

    fn violation(&mut self) -> Vec<u8> {
        match self.rng.below(6) {
            // A frame without a mask.
            0 => b"\x81\x02{}".to_vec(),
            // A mask that makes text invalid.
            1 => [&b"\x81\x84\xff\xff\xff\xff"[..], &[0, 0, 0, 0]].concat(),
            // Reserved bits and unknown opcodes.
            2 => vec![self.rng.next() as u8 | 0x70, 0x80, 0, 0, 0, 0],
            // A length that is not in its shortest form.
            3 => b"\x81\xfe\x00\x05\x00\x00\x00\x00hello".to_vec(),
            // A fragmented control frame.
            4 => b"\x09\x80\x00\x00\x00\x00".to_vec(),
            _ => (0..100).map(|_| self.rng.next() as u8).collect(),
        }
    }
}

/// Ends a connection with a reset.
fn reset(stream: &TcpStream) -> io::Result<TcpStream> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
    Err(ErrorKind::ConnectionReset.into())
}

fn text(payload: &[u8]) -> Vec<u8> {
    frame(Opcode::Text, payload)
}

fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let mut frame = Vec::with_capacity(payload.len() + 14);
    put_masked_header(&mut frame, opcode, payload.len(), MASK);
    let start = frame.len();
    frame.extend_from_slice(payload);
    mask(&mut frame[start..], MASK);
    frame
}

/// The header of a frame whose payload has `declared` bytes, and the first `sent` bytes of that payload.
fn begun(opcode: Opcode, declared: usize, sent: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(sent + 14);
    put_masked_header(&mut frame, opcode, declared, [0; 4]);
    frame.resize(frame.len() + sent, b' ');
    frame
}

/// Writes as many bytes as the socket accepts. Bytes that the socket does not accept are lost, which makes the stream
/// invalid. An invalid stream is another attack.
fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    match stream.write(bytes) {
        Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(error),
        _ => Ok(()),
    }
}

/// Reads the data that has arrived.
fn drain(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 64 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::ConnectionAborted.into()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
