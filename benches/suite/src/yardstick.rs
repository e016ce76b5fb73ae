//! The limit of the machine: a relay without any logic.
//!
//! The yardstick is one thread with bare epoll. The yardstick answers handshake requests with a constant text, and then
//! writes the bytes of each connection unchanged to all other connections of the same group. The yardstick makes one
//! read per ready socket, and one write per target and batch. The yardstick does not parse, unmask or check frames. No
//! hub that uses the same system calls can be cheaper.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};

use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::net::{SocketFlags, accept_with};

use crate::message::KEY;

/// Length of a read.
const READ: usize = 64 * 1024;

/// Maximum number of ready sockets per batch. The data of a batch is copied for each target before it is written, so
/// the maximum bounds the memory for one large group.
const BATCH: usize = 64;

const LISTENER: u64 = u64::MAX;

struct Conn {
    stream: TcpStream,
    /// The group of the connection; `None` before the request arrives.
    group: Option<usize>,
    /// The received part of the request; later the bytes to write.
    bytes: Vec<u8>,
    /// Whether the connection is in the list of connections to which bytes must be written.
    dirty: bool,
    /// Whether the socket's send buffer is full.
    blocked: bool,
}

struct Yardstick {
    epoll: OwnedFd,
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    groups: Vec<Vec<usize>>,
    dirty: Vec<usize>,
    buffer: Box<[u8]>,
}

/// Serves until the process is killed.
pub(crate) fn run(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    // Accepted sockets inherit this option.
    rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
    // The standard library's backlog of 128 is too small for thousands of connections that open at the same time.
    rustix::net::listen(&listener, 4096)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut it = Yardstick {
        epoll,
        conns: Vec::new(),
        free: Vec::new(),
        groups: Vec::new(),
        dirty: Vec::new(),
        buffer: vec![0; READ].into(),
    };
    let mut events: Vec<Event> = Vec::with_capacity(BATCH);
    loop {
        events.clear();
        match epoll::wait(&it.epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            // The struct of an epoll event is packed, so its fields are copied before they are used.
            let (data, flags) = (event.data, event.flags);
            if data.u64() == LISTENER {
                it.accept(&listener);
                continue;
            }
            let at = data.u64() as usize;
            if flags.contains(EventFlags::OUT) {
                it.write(at);
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                it.read(at);
            }
        }
        for i in 0..it.dirty.len() {
            let at = it.dirty[i];
            if let Some(conn) = &mut it.conns[at] {
                conn.dirty = false;
                if !conn.blocked {
                    it.write(at);
                }
            }
        }
        it.dirty.clear();
    }
}

impl Yardstick {
    fn accept(&mut self, listener: &TcpListener) {
        while let Ok(socket) = accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            let at = self.free.pop().unwrap_or(self.conns.len());
            if at == self.conns.len() {
                self.conns.push(None);
            }
            if epoll::add(&self.epoll, &socket, EventData::new_u64(at as u64), EventFlags::IN).is_ok() {
                let stream = TcpStream::from(socket);
                self.conns[at] = Some(Conn { stream, group: None, bytes: Vec::new(), dirty: false, blocked: false });
            } else {
                self.free.push(at);
            }
        }
    }

    fn read(&mut self, at: usize) {
        let Some(conn) = &mut self.conns[at] else { return };
        let read = match (&conn.stream).read(&mut self.buffer) {
            Ok(0) => return self.close(at),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return self.close(at),
        };
        let bytes = &self.buffer[..read];
        let Some(group) = conn.group else {
            conn.bytes.extend_from_slice(bytes);
            return self.upgrade(at);
        };
        for &to in &self.groups[group] {
            if to == at {
                continue;
            }
            let Some(target) = &mut self.conns[to] else { continue };
            target.bytes.extend_from_slice(bytes);
            if !target.dirty {
                target.dirty = true;
                self.dirty.push(to);
            }
        }
    }

    fn upgrade(&mut self, at: usize) {
        let Some(conn) = &mut self.conns[at] else { return };
        if !conn.bytes.ends_with(b"\r\n\r\n") {
            return;
        }
        conn.bytes.drain(..);
        // Parses the request line `GET /ws?peerId=<40 digits>&group=<number> HTTP/1.1` by fixed positions.
        let request = &self.buffer[.."GET /ws?peerId=&group=".len() + 40 + 20];
        let digits = request["GET /ws?peerId=&group=".len() + 40..].iter().take_while(|byte| byte.is_ascii_digit());
        let group = digits.fold(0usize, |number, digit| number * 10 + usize::from(digit - b'0'));
        conn.group = Some(group);
        if self.groups.len() <= group {
            self.groups.resize(group + 1, Vec::new());
        }
        self.groups[group].push(at);
        _ = (&conn.stream).write(ANSWER.as_bytes());
    }

    fn write(&mut self, at: usize) {
        let Some(conn) = &mut self.conns[at] else { return };
        let was_blocked = conn.blocked;
        match (&conn.stream).write(&conn.bytes) {
            Ok(written) if written == conn.bytes.len() => {
                conn.bytes.clear();
                conn.blocked = false;
            }
            Ok(written) => {
                conn.bytes.drain(..written);
                conn.blocked = true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => conn.blocked = true,
            Err(_) => return self.close(at),
        }
        if conn.blocked != was_blocked {
            let flags = if conn.blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            _ = epoll::modify(&self.epoll, &conn.stream, EventData::new_u64(at as u64), flags);
        }
    }

    fn close(&mut self, at: usize) {
        let Some(conn) = self.conns[at].take() else { return };
        if let Some(group) = conn.group {
            self.groups[group].retain(|&other| other != at);
        }
        self.free.push(at);
    }
}

/// The answer to [`KEY`], which every request of the generator has.
const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
                      sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

const _: () = assert!(KEY.len() == 24, "a key has 24 characters: base64 of 16 bytes");
