//! A hand-written WebSocket client. Unlike a library, the client can violate the protocol.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::hub::{DEADLINE, Hub};

pub struct Client {
    pub stream: TcpStream,
    pub id: String,
    read: Vec<u8>,
}

#[derive(Debug, PartialEq)]
pub enum Heard {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
    /// The connection ended without a close frame.
    End,
}

/// The id of peer `n`: 40 hexadecimal digits.
pub fn id(n: u32) -> String {
    format!("{n:040x}")
}

pub fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// Returns a frame of a client, which is masked and has a length field of minimal size.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x33, 0x44];
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        n @ 0..126 => frame.push(0x80 | n as u8),
        n @ 126..65536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

impl Client {
    /// Connects as peer `n` and receives `connected`.
    pub fn connect(hub: &Hub, n: u32) -> Self {
        let mut client = Self::open(hub.address, n, b"");
        let connected = client.hear();
        assert_eq!(connected["type"], "connected", "{connected}");
        client
    }

    /// Connects as peer `n` and joins a network.
    pub fn join(hub: &Hub, n: u32, network: &str) -> Self {
        let mut client = Self::connect(hub, n);
        client.announce(network);
        client
    }

    /// Opens a WebSocket as peer `n`. Sends `early` in the same write as the upgrade request.
    pub fn open(address: SocketAddr, n: u32, early: &[u8]) -> Self {
        Self::over(TcpStream::connect(address).expect("connects"), n, early)
    }

    /// Joins a network over a socket with a small receive buffer.
    pub fn narrow(hub: &Hub, n: u32, network: &str) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("set");
        socket.connect(&hub.address.into()).expect("connects");
        let mut client = Self::over(socket.into(), n, b"");
        assert_eq!(client.hear()["type"], "connected");
        client.announce(network);
        client
    }

    /// Like [`Self::open`], over a socket that is already connected.
    pub fn over(stream: TcpStream, n: u32, early: &[u8]) -> Self {
        Self::open_by(stream, &format!("/ws?peerId={}", id(n)), n, early)
    }

    /// Like [`Self::over`], with `path` as the path of the request.
    pub fn open_by(mut stream: TcpStream, path: &str, n: u32, early: &[u8]) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        let mut request = upgrade(path).into_bytes();
        request.extend_from_slice(early);
        stream.write_all(&request).expect("written");
        let mut client = Self { stream, id: id(n), read: Vec::new() };
        let end = loop {
            if let Some(end) = client.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            assert!(client.fill(), "no answer: {}", String::from_utf8_lossy(&client.read));
        };
        let head = String::from_utf8(client.read.drain(..end + 4).collect()).expect("text");
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.to_ascii_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        client
    }

    pub fn say(&mut self, text: &str) {
        self.raw(&frame(1, text.as_bytes()));
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("written");
    }

    pub fn announce(&mut self, network: &str) {
        self.say(&format!(r#"{{"type":"announce","networkName":"{network}"}}"#));
    }

    pub fn offer(&mut self, target: &str, network: &str, data: &str, more: &str) {
        self.say(&format!(
            r#"{{"type":"offer","targetPeerId":"{target}","networkName":"{network}","data":{data}{more}}}"#
        ));
    }

    fn fill(&mut self) -> bool {
        let mut buffer = [0; 65536];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(n) => {
                self.read.extend_from_slice(&buffer[..n]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            // A read with a timeout is interrupted if the machine is suspended for a moment.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => self.fill(),
            Err(error) => panic!("{} received nothing: {error}", self.id),
        }
    }

    /// Reads once and returns the messages that are complete then. Waits at most for the stream's read timeout. Answers
    /// pings.
    pub fn heard_so_far(&mut self) -> Vec<String> {
        let mut buffer = [0; 65536];
        let n = self.stream.read(&mut buffer).unwrap_or_default();
        let text = |heard| if let Heard::Text(text) = heard { Some(text) } else { None };
        self.take_in(&buffer[..n]).into_iter().filter_map(text).collect()
    }

    /// Returns the messages in bytes that were read from the stream. Answers pings.
    pub fn take_in(&mut self, bytes: &[u8]) -> Vec<Heard> {
        self.read.extend_from_slice(bytes);
        let frames: Vec<Heard> = std::iter::from_fn(|| self.parse()).collect();
        for heard in &frames {
            if let Heard::Ping(payload) = heard {
                self.raw(&frame(10, payload));
            }
        }
        frames
    }

    /// The next frame.
    pub fn frame(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.parse() {
                return heard;
            }
            if !self.fill() {
                return Heard::End;
            }
        }
    }

    fn parse(&mut self) -> Option<Heard> {
        let (&[first, second], rest) = self.read.split_first_chunk()?;
        assert_eq!(second & 0x80, 0, "a server's frame must not be masked");
        assert_eq!(first & 0xf0, 0x80, "a server's frame must not be a fragment");
        let (len, at) = match second {
            126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*rest.first_chunk()?) as usize, 10),
            n => (usize::from(n), 2),
        };
        if self.read.len() < at + len {
            return None;
        }
        let payload: Vec<u8> = self.read.drain(..at + len).skip(at).collect();
        Some(match first & 0xf {
            1 => Heard::Text(String::from_utf8(payload).expect("UTF-8")),
            8 if payload.is_empty() => Heard::Close(1005, String::new()),
            8 => Heard::Close(
                u16::from_be_bytes([payload[0], payload[1]]),
                String::from_utf8(payload[2..].to_vec()).expect("UTF-8"),
            ),
            9 => Heard::Ping(payload),
            10 => Heard::Pong(payload),
            opcode => panic!("opcode {opcode}"),
        })
    }

    /// The next message. Answers pings meanwhile.
    pub fn hear(&mut self) -> Value {
        match self.next() {
            Heard::Text(text) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("{} expected a message and received {other:?}", self.id),
        }
    }

    /// Returns the next message, or the end of the connection. Answers pings meanwhile.
    pub fn next(&mut self) -> Heard {
        loop {
            match self.frame() {
                Heard::Ping(payload) => self.raw(&frame(10, &payload)),
                Heard::Pong(_) => {}
                other => return other,
            }
        }
    }

    /// Skips messages until one has the type `kind`, and returns that message.
    pub fn hear_type(&mut self, kind: &str) -> Value {
        loop {
            let message = self.hear();
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Skips messages up to the close frame, and returns its code and text.
    pub fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next() {
                Heard::Text(_) => {}
                Heard::Close(code, text) => return (code, text),
                other => panic!("{} expected a close frame and received {other:?}", self.id),
            }
        }
    }

    /// Like [`closed`](Self::closed), and asserts that the hub sent no ping before the close frame.
    pub fn closed_without_ping(&mut self) -> (u16, String) {
        loop {
            match self.frame() {
                Heard::Text(_) | Heard::Pong(_) => {}
                Heard::Close(code, text) => return (code, text),
                other => panic!("{} expected a close frame and received {other:?}", self.id),
            }
        }
    }

    /// Asserts that no message is pending: the next message is the answer to a `ping`. When this function returns, the
    /// hub has also processed everything that the client sent before.
    pub fn hears_nothing(&mut self) {
        self.say(r#"{"type":"ping"}"#);
        let heard = self.hear();
        assert_eq!(heard["type"], "pong", "{} heard {heard}", self.id);
    }

    /// Asserts that the hub has answered none of this client's earlier messages with an error.
    pub fn hears_no_error(&mut self) {
        self.say(r#"{"type":"ping"}"#);
        loop {
            let heard = self.hear();
            match heard["type"].as_str() {
                Some("pong") => return,
                Some("error") => panic!("{} heard {heard}", self.id),
                _ => {}
            }
        }
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("set");
    }
}
