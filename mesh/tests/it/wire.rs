//! A scripted hub at the other end of a link.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use proto::envelope::{Hello, SUBPROTOCOL, TOKEN_WANTED, VERSION};
use proto::ws::{self, Decoder, Event, Opcode, Progress};
use proto::{Envelope, HubId, HubIncarnation, LINK_SCHEME, LinkChallenges, LinkCredentials};
use sha1::Digest;

use crate::hub::{DEADLINE, TOKEN, id};

/// A parsed request for a link.
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) hub: HubId,
    pub(crate) legacy: bool,
    pub(crate) leftover: Bytes,
}

/// Reads the head of a request, and lets a dialing hub prove that it knows the token. The function then answers the
/// request with 101, and with the subprotocol if it was requested.
pub(crate) fn answer(stream: &TcpStream) -> Option<Asked> {
    answer_as(stream, true)
}

/// Like [`answer`]. If `new` is false, the function answers like a program that does not support links: 101 at once,
/// without the subprotocol.
pub(crate) fn answer_as(mut stream: &TcpStream, new: bool) -> Option<Asked> {
    let (mut head, mut leftover) = read_head(stream)?;
    let hub = HubId(head.split_once("peerId=")?.1.get(..40)?.parse().ok()?);
    let legacy = value(&head, "sec-websocket-protocol").is_none();
    let mut more = if legacy || !new { String::new() } else { format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n") };
    // A hub that dials asks for a challenge first. A scripted hub sends the token itself, like version 2.0.0.
    if !legacy && new && value(&head, "authorization").as_deref() != Some(&format!("Bearer {TOKEN}")) {
        assert_eq!(value(&head, "authorization").as_deref(), Some(LINK_SCHEME));
        let challenge = LinkChallenges::new([7; 32]).issue([1; 16], Duration::from_secs(1));
        let length = TOKEN_WANTED.len();
        let refusal = format!(
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {challenge}\r\nContent-Length: \
             {length}\r\n\r\n{TOKEN_WANTED}"
        );
        stream.write_all(refusal.as_bytes()).ok()?;
        (head, leftover) = read_head(stream)?;
        let credentials = LinkCredentials::parse(&value(&head, "authorization")?)?;
        assert!(credentials.are_of(TOKEN.as_bytes(), hub), "{head}");
        more += &format!("Authentication-Info: {}\r\n", credentials.reply(TOKEN.as_bytes(), hub));
    }
    let mut hash = sha1::Sha1::new();
    hash.update(value(&head, "sec-websocket-key")? + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = base64::engine::general_purpose::STANDARD.encode(hash.finalize());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: \
         {accept}\r\n{more}\r\n"
    );
    stream.write_all(answer.as_bytes()).ok()?;
    Some(Asked { head, hub, legacy, leftover: leftover.into() })
}

/// The value of a header.
fn value(head: &str, name: &str) -> Option<String> {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn read_head(mut stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    let mut bytes = Vec::new();
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let rest = bytes.split_off(end + 4);
            return Some((String::from_utf8(bytes).ok()?, rest));
        }
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer).ok()? {
            0 => return None,
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    }
}

#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Said {
    Binary(Vec<u8>),
    Text(String),
    Closed(u16, String),
    /// The end of the socket, without a close frame.
    End,
}

pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    decoder: Decoder,
    buffer: Vec<u8>,
    dialed: bool,
}

impl Wire {
    fn new(stream: TcpStream, buffer: Vec<u8>, dialed: bool) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { stream, decoder: Decoder::new(1 << 22), buffer, dialed }
    }

    /// Requests a link from a hub.
    pub(crate) fn dial(address: SocketAddr, hub: HubId, legacy: bool) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        let own = if legacy {
            String::new()
        } else {
            format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\nAuthorization: Bearer {TOKEN}\r\n")
        };
        let request = format!(
            "GET /?peerId={hub} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: \
             websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{own}\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let (head, rest) = read_head(&stream).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        Self::new(stream, rest, true)
    }

    /// Accepts the next hub that dials.
    pub(crate) fn accept(door: &TcpListener) -> (Self, Asked) {
        Self::accept_as(door, true)
    }

    /// Accepts the next hub that dials, with the subprotocol if `new`.
    pub(crate) fn accept_as(door: &TcpListener, new: bool) -> (Self, Asked) {
        let (stream, _) = door.accept().unwrap();
        let asked = answer_as(&stream, new).unwrap();
        (Self::new(stream, asked.leftover.to_vec(), false), asked)
    }

    pub(crate) fn say(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut frame = Vec::new();
        if self.dialed {
            ws::put_masked_header(&mut frame, opcode, payload.len(), [1, 2, 3, 4]);
            let start = frame.len();
            frame.extend_from_slice(payload);
            ws::mask(&mut frame[start..], [1, 2, 3, 4]);
        } else {
            ws::put_header(&mut frame, opcode, payload.len());
            frame.extend_from_slice(payload);
        }
        self.stream.write_all(&frame).unwrap();
    }

    pub(crate) fn say_hello(&mut self, n: u8, change: impl FnOnce(&mut Hello)) {
        let mut hello = Hello {
            version: VERSION,
            hub: id(n),
            incarnation: HubIncarnation(u64::from(n)),
            namespace: "mesh".into(),
            discovery: proto::Discovery::All,
            process: 0,
        };
        change(&mut hello);
        let mut bytes = Vec::new();
        Envelope::Hello(Box::new(hello)).encode(&mut bytes);
        self.say(Opcode::Binary, &bytes);
    }

    /// The next message. Answers pings meanwhile.
    pub(crate) fn hear(&mut self) -> Said {
        loop {
            let buffer = &mut self.buffer;
            let progress =
                if self.dialed { self.decoder.decode_from_server(buffer) } else { self.decoder.decode(buffer) };
            let (consumed, said) = match progress.unwrap() {
                Progress::Took { consumed, event } => {
                    let said = event.map(|event| match event {
                        Event::Binary(payload) => Ok(Said::Binary(payload.to_vec())),
                        Event::Text(text) => Ok(Said::Text(text.to_owned())),
                        Event::Close(Some(frame)) => Ok(Said::Closed(frame.code, frame.reason.to_owned())),
                        Event::Close(None) => Ok(Said::Closed(1005, String::new())),
                        Event::Ping(payload) => Err(payload.to_vec()),
                        Event::Pong(_) => Err(Vec::new()),
                    });
                    (consumed, said)
                }
                Progress::Need(_) => {
                    let mut more = [0; 4096];
                    match self.stream.read(&mut more) {
                        Ok(0) | Err(_) => return Said::End,
                        Ok(n) => self.buffer.extend_from_slice(&more[..n]),
                    }
                    continue;
                }
            };
            self.buffer.drain(..consumed);
            match said {
                Some(Ok(said)) => return said,
                Some(Err(ping)) if !ping.is_empty() => self.say(Opcode::Pong, &ping),
                _ => {}
            }
        }
    }

    /// Waits for the end of the connection, and ignores messages before the end.
    pub(crate) fn hear_end(&mut self) -> Said {
        loop {
            match self.hear() {
                Said::Binary(_) | Said::Text(_) => {}
                end @ (Said::Closed(..) | Said::End) => return end,
            }
        }
    }

    pub(crate) fn hear_hello(&mut self) -> Hello {
        let Said::Binary(bytes) = self.hear() else { panic!("no hello") };
        match Envelope::decode(&mut &bytes[..]) {
            Ok(Some(Envelope::Hello(hello))) => *hello,
            other => panic!("no hello: {other:?}"),
        }
    }

    /// Dials, and sends the messages needed for a link.
    pub(crate) fn link(address: SocketAddr, n: u8) -> Self {
        let mut wire = Self::dial(address, id(n), false);
        wire.say_hello(n, |_| ());
        wire.hear_hello();
        wire.say(Opcode::Binary, &[]);
        wire
    }

    /// Accepts the next hub that dials, and links with it.
    pub(crate) fn accept_link(door: &TcpListener, n: u8) -> Self {
        let (mut wire, _) = Self::accept(door);
        wire.hear_hello();
        wire.say_hello(n, |_| ());
        assert_eq!(wire.hear(), Said::Binary(Vec::new()));
        wire
    }
}
