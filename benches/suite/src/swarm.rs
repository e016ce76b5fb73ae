//! The connections of the load generator: one thread, one epoll.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::fs::Timespec;
use rustls::ClientConnection;

use crate::frames::{self, Frames, Scan};
use crate::message::{self, Heard};
use crate::secure;

/// Maximum number of handshakes in progress.
const WINDOW: usize = 64;

/// Maximum time for which no event arrives while messages are expected. After this time, the scenario fails.
const QUIET: Duration = Duration::from_secs(20);

/// Length of a read.
pub(crate) const READ: usize = 256 * 1024;

/// A connection of one peer.
pub(crate) struct Conn {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    upgraded: bool,
    /// Finds frames while messages are only counted.
    pub(crate) scan: Scan,
    /// Extracts frames with their payloads, while messages are read.
    frames: Frames,
    /// The received part of the answer to the handshake request.
    answer: Vec<u8>,
    unsent: Vec<u8>,
    connected: bool,
}

/// The address and the identity of a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    /// The address of the server.
    pub(crate) port: u16,
    /// The peer's number, from which its id is made.
    pub(crate) peer: usize,
    /// The peer's group, for the yardstick.
    pub(crate) group: usize,
    /// Whether the server sends `connected`.
    pub(crate) welcomed: bool,
    /// Whether the connection uses TLS.
    pub(crate) secure: bool,
}

/// The connections, by index.
pub(crate) struct Swarm {
    epoll: OwnedFd,
    conns: Vec<Option<Conn>>,
    events: Vec<Event>,
    /// Read buffer. Methods take the buffer out of the swarm while they process its bytes.
    pub(crate) buffer: Vec<u8>,
    /// Number of connections that the other side ended.
    pub(crate) lost: usize,
}

impl Conn {
    /// Whether the socket has accepted all bytes.
    pub(crate) fn has_sent_all(&self) -> bool {
        self.unsent.is_empty()
    }
}

/// A readable connection.
pub(crate) type Ready = usize;

impl Swarm {
    /// A swarm without connections.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            conns: Vec::new(),
            events: Vec::with_capacity(256),
            buffer: vec![0; READ],
            lost: 0,
        })
    }

    /// Connects all `seats`, and returns when all are connected. Calls `on` for messages that arrive before all seats
    /// are connected.
    pub(crate) fn connect(
        &mut self,
        seats: impl IntoIterator<Item = Seat>,
        mut on: impl FnMut(usize, Heard),
    ) -> io::Result<()> {
        let mut seats = seats.into_iter().peekable();
        let mut pending: Vec<(usize, bool)> = Vec::new();
        let mut last = Instant::now();
        while seats.peek().is_some() || !pending.is_empty() {
            while pending.len() < WINDOW
                && let Some(seat) = seats.next()
            {
                pending.push((self.begin(seat)?, seat.welcomed));
            }
            let before = pending.len();
            self.turn(Some(Duration::from_millis(100)), &mut on)?;
            pending.retain(|&(at, welcomed)| {
                self.conns[at].as_ref().is_some_and(|conn| !(conn.upgraded && (conn.connected || !welcomed)))
            });
            if pending.len() < before {
                last = Instant::now();
            } else if last.elapsed() > QUIET {
                return Err(io::Error::other(format!("{before} connections cannot be opened")));
            }
            if self.lost > 0 {
                return Err(io::Error::other("the server ended a connection while others connected"));
            }
        }
        Ok(())
    }

    fn begin(&mut self, seat: Seat) -> io::Result<usize> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, seat.port))?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let at = self.conns.len();
        epoll::add(&self.epoll, &stream, EventData::new_u64(at as u64), EventFlags::IN)?;
        let request = message::request(seat.peer, seat.group);
        let tls = if seat.secure {
            let mut tls = Box::new(secure::client()?);
            tls.writer().write_all(&request)?;
            secure::write(&mut tls, &stream)?;
            Some(tls)
        } else {
            (&stream).write_all(&request)?;
            None
        };
        self.conns.push(Some(Conn {
            stream,
            tls,
            upgraded: false,
            scan: Scan::default(),
            frames: Frames::default(),
            answer: Vec::new(),
            unsent: Vec::new(),
            connected: false,
        }));
        Ok(at)
    }

    /// Number of connections so far. The next connection gets this number as its index.
    pub(crate) fn len(&self) -> usize {
        self.conns.len()
    }

    /// Waits until a connection is ready, for at most `timeout`; with `None`, does not wait. Sends bytes that the
    /// sockets did not accept before.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let timeout = timeout.unwrap_or_default();
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for i in 0..self.events.len() {
            let (data, flags) = (self.events[i].data, self.events[i].flags);
            let at = data.u64() as usize;
            if flags.contains(EventFlags::OUT) {
                self.send(at, &[])?;
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                ready.push(at);
            }
        }
        Ok(())
    }

    /// Reads once. Returns 0 if there was no data, or if the connection is gone.
    pub(crate) fn read(&mut self, at: Ready, buffer: &mut [u8]) -> usize {
        let Some(conn) = &mut self.conns[at] else { return 0 };
        let read = match &mut conn.tls {
            None => (&conn.stream).read(buffer),
            Some(tls) => secure::read(tls, &conn.stream, buffer),
        };
        match read {
            Ok(read) if read > 0 => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Ok(_) | Err(_) => {
                self.conns[at] = None;
                self.lost += 1;
                0
            }
        }
    }

    /// The connection at this index, if it is open.
    pub(crate) fn conn(&mut self, at: usize) -> Option<&mut Conn> {
        self.conns[at].as_mut()
    }

    /// Waits once, and calls `on` for each received text message. Answers pings.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>, mut on: impl FnMut(usize, Heard)) -> io::Result<()> {
        let mut ready = Vec::new();
        self.wait(timeout, &mut ready)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        for at in ready {
            let read = self.read(at, &mut buffer);
            let Some(conn) = &mut self.conns[at] else { continue };
            let mut bytes = &buffer[..read];
            if !conn.upgraded {
                conn.answer.extend_from_slice(bytes);
                let Some(end) = conn.answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                if !conn.answer.starts_with(b"HTTP/1.1 101") {
                    let answer = String::from_utf8_lossy(&conn.answer);
                    return Err(io::Error::other(format!("refused: {}", answer.lines().next().unwrap_or_default())));
                }
                conn.upgraded = true;
                bytes = &bytes[read - (conn.answer.len() - end - 4)..];
                conn.answer = Vec::new();
            }
            let mut pings = 0;
            let connected = &mut conn.connected;
            conn.frames.feed(bytes, |opcode, payload| match opcode {
                frames::TEXT => {
                    let heard = message::heard(payload);
                    *connected |= heard == Heard::Connected;
                    on(at, heard);
                }
                frames::PING => pings += 1,
                _ => {}
            });
            for _ in 0..pings {
                self.send(at, &frames::pong())?;
            }
        }
        self.buffer = buffer;
        Ok(())
    }

    /// Reads until `count` reaches `goal`. Returns an error if `count` stays the same for a long time or exceeds
    /// `goal`, or if a connection is lost.
    pub(crate) fn until(
        &mut self,
        what: &str,
        goal: u64,
        count: &mut u64,
        mut on: impl FnMut(&mut u64, usize, Heard),
    ) -> io::Result<()> {
        let mut last = Instant::now();
        while *count < goal {
            let before = *count;
            self.turn(Some(Duration::from_millis(100)), |at, heard| on(count, at, heard))?;
            if *count != before {
                last = Instant::now();
            } else if last.elapsed() > QUIET {
                return Err(io::Error::other(format!("{what}: only {count} of {goal} arrived")));
            }
        }
        if *count > goal || self.lost > 0 {
            return Err(io::Error::other(format!("{what}: {count} of {goal}; {} connections lost", self.lost)));
        }
        Ok(())
    }

    /// Reads all available data and only counts text messages, for scenarios with many peers. This method must not be
    /// called while a message is partly read.
    pub(crate) fn count_texts(&mut self, timeout: Option<Duration>) -> io::Result<u64> {
        let mut ready = Vec::new();
        self.wait(timeout, &mut ready)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut texts = 0;
        for at in ready {
            let read = self.read(at, &mut buffer);
            let Some(conn) = &mut self.conns[at] else { continue };
            let mut pings = 0;
            conn.scan.feed(&buffer[..read], |header| match header.opcode {
                frames::TEXT => texts += 1,
                frames::PING => pings += 1,
                _ => {}
            });
            for _ in 0..pings {
                self.send(at, &frames::pong())?;
            }
        }
        self.buffer = buffer;
        Ok(texts)
    }

    /// Counts texts until their number reaches `goal`.
    pub(crate) fn until_texts(&mut self, what: &str, goal: u64) -> io::Result<()> {
        let (mut count, mut last) = (0, Instant::now());
        while count < goal {
            let came = self.count_texts(Some(Duration::from_millis(100)))?;
            if came > 0 {
                count += came;
                last = Instant::now();
            } else if last.elapsed() > QUIET {
                return Err(io::Error::other(format!("{what}: only {count} of {goal} arrived")));
            }
        }
        if count > goal || self.lost > 0 {
            return Err(io::Error::other(format!("{what}: {count} of {goal}; {} connections lost", self.lost)));
        }
        Ok(())
    }

    /// Answers pings for a while, and does nothing else.
    pub(crate) fn rest(&mut self, time: Duration) -> io::Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < time {
            self.turn(Some(Duration::from_millis(100)), |_, _| {})?;
        }
        Ok(())
    }

    /// Sends a frame, and keeps the bytes that the socket does not accept.
    pub(crate) fn send(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.send_times(at, bytes, 1)
    }

    /// Sends a frame several times in few writes. A connection that the other side ended is counted as lost.
    pub(crate) fn send_times(&mut self, at: usize, frame: &[u8], times: usize) -> io::Result<()> {
        match self.try_send_times(at, frame, times) {
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                self.conns[at] = None;
                self.lost += 1;
                Ok(())
            }
            sent => sent,
        }
    }

    fn try_send_times(&mut self, at: usize, frame: &[u8], times: usize) -> io::Result<()> {
        const MOST: usize = 64;
        let Some(conn) = &mut self.conns[at] else { return Ok(()) };
        if let Some(tls) = &mut conn.tls {
            // Each message gets its own TLS record, as if a real client sent it.
            let was_blocked = tls.wants_write();
            (0..times).try_for_each(|_| tls.writer().write_all(frame))?;
            secure::write(tls, &conn.stream)?;
            if was_blocked != tls.wants_write() {
                let flags = if was_blocked { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
                epoll::modify(&self.epoll, &conn.stream, EventData::new_u64(at as u64), flags)?;
            }
            return Ok(());
        }
        let was_blocked = !conn.unsent.is_empty();
        if was_blocked {
            (0..times).for_each(|_| conn.unsent.extend_from_slice(frame));
            let written = written(&(&conn.stream).write(&conn.unsent))?;
            conn.unsent.drain(..written);
        } else {
            let mut left = times;
            while left > 0 && conn.unsent.is_empty() {
                let slices = [IoSlice::new(frame); MOST];
                let now = left.min(MOST);
                // Writing one buffer is cheaper than writing a list with one entry.
                let result = match now {
                    1 => (&conn.stream).write(frame),
                    _ => (&conn.stream).write_vectored(&slices[..now]),
                };
                let written = written(&result)?;
                left -= now;
                if written < now * frame.len() {
                    conn.unsent.extend_from_slice(&frame[written % frame.len()..]);
                    let whole = now - written / frame.len() - 1 + left;
                    (0..whole).for_each(|_| conn.unsent.extend_from_slice(frame));
                }
            }
        }
        if was_blocked == conn.unsent.is_empty() {
            let flags = if was_blocked { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
            epoll::modify(&self.epoll, &conn.stream, EventData::new_u64(at as u64), flags)?;
        }
        Ok(())
    }

    /// Ends a connection with a reset, which frees its port at once.
    pub(crate) fn reset(&mut self, at: usize) -> io::Result<()> {
        if let Some(conn) = self.conns[at].take() {
            rustix::net::sockopt::set_socket_linger(&conn.stream, Some(Duration::ZERO))?;
        }
        Ok(())
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        for at in 0..self.conns.len() {
            _ = self.reset(at);
        }
    }
}

/// Number of bytes that a write accepted.
fn written(result: &io::Result<usize>) -> io::Result<usize> {
    match result {
        Ok(written) => Ok(*written),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(io::Error::new(error.kind(), format!("write: {error}"))),
    }
}
