//! A strict parser for WebSocket frames (RFC 6455), and functions that write frames.
//!
//! [`Decoder`] consumes bytes from the front of a buffer and returns complete messages and control frames. The sender
//! of the frames is a client, or the server of a link that this hub dialed. [`FrameReader`] does the same for a stream
//! that arrives in pieces. The functions `put_*` append the frames that the hub sends. This module does no I/O. The
//! caller owns the buffer, and must send a close frame with [`Violation::close_code`] after a violation.
//!
//! Nearly every message has one frame. A message of one frame is unmasked and validated in place, without a copy or an
//! allocation. Fragments are collected in a buffer that exists while their message is incomplete.

use std::fmt;

use crate::reason::CloseReason;

mod reader;
#[cfg(test)]
mod tests;

pub use reader::FrameReader;

/// Longest payload of a control frame, in bytes (RFC 6455 section 5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// Longest header of a client's frame, in bytes. The header has 2 fixed bytes, 8 bytes for the length, and 4 bytes for
/// the mask.
pub const MAX_CLIENT_HEADER: usize = 14;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const LENGTH_IS_U16: u8 = 126;
const LENGTH_IS_U64: u8 = 127;

/// Parses the frames of one connection. `Default` refuses every message that has a byte of content.
///
/// Do not decode bytes after [`Event::Close`] or a [`Violation`], because the stream has ended.
#[derive(Debug, Default)]
pub struct Decoder {
    max_message: usize,
    open: Option<Box<Fragments>>,
}

/// The result of one call of [`Decoder::decode`].
#[derive(Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The input has no complete frame yet. It was not changed.
    ///
    /// The value is the length in bytes of the next frame if its header is complete, and otherwise a lower bound of
    /// this length. The value is always greater than the length of the input, and at most `max(max_message,
    /// `[`MAX_CONTROL_PAYLOAD`]`) + `[`MAX_CLIENT_HEADER`].
    Need(usize),
    /// One frame was consumed.
    Took {
        /// Length of the frame. The caller must remove this many bytes from the front of the input.
        consumed: usize,
        /// The content of the frame. `None` for a fragment that does not complete its message.
        event: Option<Event<'a>>,
    },
}

/// A complete message, or a control frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A text message, all its fragments together.
    Text(&'a str),
    /// A binary message, all its fragments together.
    Binary(&'a [u8]),
    /// A ping. Answer it with [`put_pong`].
    Ping(&'a [u8]),
    /// A pong, requested or not.
    Pong(&'a [u8]),
    /// A close frame, with or without a code.
    Close(Option<CloseFrame<'a>>),
}

/// The content of a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// A code that may appear on the wire (RFC 6455 section 7.4).
    pub code: u16,
    /// A text for people, often empty.
    pub reason: &'a str,
}

/// An error of the other side that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The sender violated RFC 6455. The text says how.
    Protocol(&'static str),
    /// A text message or the reason of a close frame is not UTF-8.
    NotUtf8,
    /// A message is longer than the limit.
    TooLarge,
}

impl Violation {
    /// The code of the close frame for this violation.
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::NotUtf8 => 1007,
            Self::TooLarge => 1009,
        }
    }
}

impl From<Violation> for CloseReason {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Protocol(_) => Self::ProtocolError,
            Violation::NotUtf8 => Self::NotUtf8,
            Violation::TooLarge => Self::MessageTooLarge,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(rule) => f.write_str(rule),
            Self::NotUtf8 => f.write_str("text is not UTF-8"),
            Self::TooLarge => f.write_str("message is too large"),
        }
    }
}

impl std::error::Error for Violation {}

impl Decoder {
    /// Makes a decoder that refuses messages of more than `max_message` bytes.
    pub const fn new(max_message: usize) -> Self {
        // No buffer exceeds isize::MAX bytes, so the sum with a header still fits a usize.
        const LONGEST: usize = isize::MAX as usize;
        Self { max_message: if max_message < LONGEST { max_message } else { LONGEST }, open: None }
    }

    /// Decodes the next frame at the front of `input`, and unmasks it in place.
    ///
    /// Call this function with the remaining input until it returns [`Progress::Need`]. The result depends only on the
    /// bytes, and not on how reads have divided them. The limit applies to the length in the header, before the payload
    /// arrives. The memory for the fragments of a message never exceeds the limit either. The next call after the last
    /// fragment frees this memory, even if this call has no input.
    ///
    /// # Errors
    ///
    /// The first [`Violation`]. The connection must end with the [`close_code`](Violation::close_code) of this
    /// violation.
    pub fn decode<'a>(&'a mut self, input: &'a mut [u8]) -> Result<Progress<'a>, Violation> {
        self.take(input, Speaker::Client)
    }

    /// Does the same as [`Self::decode`] for frames of a server, which are not masked (RFC 6455 section 5.1).
    ///
    /// # Errors
    ///
    /// As [`Self::decode`].
    pub fn decode_from_server<'a>(&'a mut self, input: &'a mut [u8]) -> Result<Progress<'a>, Violation> {
        self.take(input, Speaker::Server)
    }

    /// Memory of the fragments of an incomplete message, in bytes.
    fn kept_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| size_of::<Fragments>() + open.bytes.capacity())
    }

    fn take<'a>(&'a mut self, input: &'a mut [u8], speaker: Speaker) -> Result<Progress<'a>, Violation> {
        if self.open.as_ref().is_some_and(|open| open.complete) {
            self.open = None;
        }
        let head = match Head::parse(input, speaker)? {
            Parsed::Head(head) => head,
            Parsed::Need(bytes) => return Ok(Progress::Need(bytes)),
        };
        let consumed = head.size + self.admit(&head)?;
        let Some(payload) = input.get_mut(head.size..consumed) else {
            return Ok(Progress::Need(consumed));
        };
        if speaker == Speaker::Client {
            mask(payload, head.mask);
        }
        let event = match head.opcode {
            Opcode::Text if head.fin => Some(Event::Text(utf8(payload)?)),
            Opcode::Binary if head.fin => Some(Event::Binary(payload)),
            Opcode::Text | Opcode::Binary => {
                let open = self.open.insert(Box::new(Fragments::new(head.opcode == Opcode::Text)));
                open.push(payload, self.max_message);
                open.check_so_far()?;
                None
            }
            Opcode::Continuation => {
                let open = self.open.as_deref_mut().ok_or(NOTHING_TO_CONTINUE)?;
                open.push(payload, self.max_message);
                if head.fin {
                    Some(open.finish()?)
                } else {
                    open.check_so_far()?;
                    None
                }
            }
            Opcode::Ping => Some(Event::Ping(payload)),
            Opcode::Pong => Some(Event::Pong(payload)),
            Opcode::Close => Some(Event::Close(CloseFrame::parse(payload)?)),
        };
        Ok(Progress::Took { consumed, event })
    }

    /// Returns the length of the payload, if this frame is allowed here.
    fn admit(&self, head: &Head) -> Result<usize, Violation> {
        let room = match (head.opcode, &self.open) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => MAX_CONTROL_PAYLOAD,
            (Opcode::Text | Opcode::Binary, None) => self.max_message,
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Violation::Protocol("new message inside a fragmented one"));
            }
            (Opcode::Continuation, Some(open)) => self.max_message.saturating_sub(open.bytes.len()),
            (Opcode::Continuation, None) => return Err(NOTHING_TO_CONTINUE),
        };
        usize::try_from(head.payload).ok().filter(|&payload| payload <= room).ok_or(Violation::TooLarge)
    }
}

const NOTHING_TO_CONTINUE: Violation = Violation::Protocol("continuation without a message to continue");

/// The side of a connection whose frames are parsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Speaker {
    /// A client, which masks its frames (RFC 6455 section 5.1).
    #[default]
    Client,
    /// A server, which does not mask its frames.
    Server,
}

/// The header of a frame. Violations in the header are detected while it is parsed, in the order of its bytes.
struct Head {
    fin: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Length of the header, in bytes.
    size: usize,
    /// Length of the payload in bytes, as declared.
    payload: u64,
}

enum Parsed {
    Head(Head),
    Need(usize),
}

impl Head {
    fn parse(input: &[u8], speaker: Speaker) -> Result<Parsed, Violation> {
        let Some((&[first, second], rest)) = input.split_first_chunk() else {
            return Ok(Parsed::Need(2));
        };
        if first & RESERVED != 0 {
            return Err(Violation::Protocol("reserved bit is set"));
        }
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(Violation::Protocol("unknown opcode"))?;
        let fin = first & FIN != 0;
        if opcode.is_control() && !fin {
            return Err(Violation::Protocol("control frame is fragmented"));
        }
        match (speaker, second & MASKED != 0) {
            (Speaker::Client, true) | (Speaker::Server, false) => {}
            (Speaker::Client, false) => return Err(Violation::Protocol("frame of a client is not masked")),
            (Speaker::Server, true) => return Err(Violation::Protocol("frame of a server is masked")),
        }
        let short = second & !MASKED;
        if opcode.is_control() && usize::from(short) > MAX_CONTROL_PAYLOAD {
            return Err(Violation::Protocol("control frame is longer than 125 bytes"));
        }
        let (payload, rest) = match short {
            LENGTH_IS_U16 => {
                let Some((&length, rest)) = rest.split_first_chunk() else {
                    return Ok(Parsed::Need(8));
                };
                let length = u16::from_be_bytes(length);
                if length < u16::from(LENGTH_IS_U16) {
                    return Err(NOT_MINIMAL);
                }
                (u64::from(length), rest)
            }
            LENGTH_IS_U64 => {
                let Some((&length, rest)) = rest.split_first_chunk() else {
                    return Ok(Parsed::Need(MAX_CLIENT_HEADER));
                };
                let length = u64::from_be_bytes(length);
                if length >> 63 != 0 {
                    return Err(Violation::Protocol("highest bit of a 64-bit length is set"));
                }
                if length <= u64::from(u16::MAX) {
                    return Err(NOT_MINIMAL);
                }
                (length, rest)
            }
            short => (u64::from(short), rest),
        };
        let head = input.len() - rest.len();
        if speaker == Speaker::Server {
            return Ok(Parsed::Head(Self { fin, opcode, mask: [0; 4], size: head, payload }));
        }
        let size = head + 4;
        let Some(&mask) = rest.first_chunk() else {
            return Ok(Parsed::Need(size));
        };
        Ok(Parsed::Head(Self { fin, opcode, mask, size, payload }))
    }
}

const NOT_MINIMAL: Violation = Violation::Protocol("length is not in its shortest form");

/// The fragments of an incomplete message.
#[derive(Debug)]
struct Fragments {
    text: bool,
    complete: bool,
    /// Number of leading bytes that are known to be valid UTF-8. At most three later bytes are not checked yet, because
    /// the rest of their character has not arrived.
    checked: usize,
    bytes: Vec<u8>,
}

impl Fragments {
    const fn new(text: bool) -> Self {
        Self { text, complete: false, checked: 0, bytes: Vec::new() }
    }

    /// Appends a fragment. A full buffer doubles, but never exceeds the limit. If the `Vec` grew by itself, it could
    /// take up to twice the limit.
    fn push(&mut self, payload: &[u8], max_message: usize) {
        let wanted = self.bytes.len() + payload.len();
        if wanted > self.bytes.capacity() {
            let capacity = wanted.max(self.bytes.capacity().saturating_mul(2).min(max_message));
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(payload);
    }

    /// Refuses text at its first invalid byte, even if the message is not complete.
    fn check_so_far(&mut self) -> Result<(), Violation> {
        if self.text {
            self.checked += match simdutf8::compat::from_utf8(&self.bytes[self.checked..]) {
                Ok(text) => text.len(),
                Err(cut) if cut.error_len().is_none() => cut.valid_up_to(),
                Err(_) => return Err(Violation::NotUtf8),
            };
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Event<'_>, Violation> {
        self.complete = true;
        Ok(if self.text { Event::Text(utf8(&self.bytes)?) } else { Event::Binary(&self.bytes) })
    }
}

impl<'a> CloseFrame<'a> {
    fn parse(payload: &'a [u8]) -> Result<Option<Self>, Violation> {
        match payload {
            [] => Ok(None),
            [_] => Err(Violation::Protocol("close frame with half a code")),
            [high, low, reason @ ..] => match u16::from_be_bytes([*high, *low]) {
                code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Ok(Some(Self { code, reason: utf8(reason)? })),
                _ => Err(Violation::Protocol("close code must not be sent")),
            },
        }
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Violation> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| Violation::NotUtf8)
}

/// Masks or unmasks a payload (RFC 6455 section 5.3), eight bytes at a time, so that the compiler uses SIMD.
pub fn mask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let mask_twice = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ mask_twice).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

/// The type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of the incomplete message.
    Continuation = 0x0,
    /// A text message, or its first fragment.
    Text = 0x1,
    /// A binary message, or its first fragment.
    Binary = 0x2,
    /// Closes the connection. After a close frame, its sender sends no further frame.
    Close = 0x8,
    /// Asks for a pong.
    Ping = 0x9,
    /// Answers a ping.
    Pong = 0xa,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// Appends the header of an unmasked, unfragmented frame, as a server sends it.
pub fn put_header(out: &mut Vec<u8>, opcode: Opcode, len: usize) {
    let (header, size) = header(opcode, len);
    out.extend_from_slice(&header[..size]);
}

/// Longest header of an unmasked frame, in bytes.
pub(crate) const MAX_SERVER_HEADER: usize = 10;

/// Returns the header that [`put_header`] appends, and its length.
pub(crate) fn header(opcode: Opcode, len: usize) -> ([u8; MAX_SERVER_HEADER], usize) {
    let mut header = [0; MAX_SERVER_HEADER];
    header[0] = FIN | opcode as u8;
    if let Ok(short @ ..LENGTH_IS_U16) = u8::try_from(len) {
        header[1] = short;
    } else if let Ok(length) = u16::try_from(len) {
        header[1] = LENGTH_IS_U16;
        header[2..4].copy_from_slice(&length.to_be_bytes());
    } else {
        header[1] = LENGTH_IS_U64;
        header[2..].copy_from_slice(&(len as u64).to_be_bytes());
    }
    (header, header_len(len))
}

/// Length of the mask after the header of a masked frame, in bytes (RFC 6455 section 5.2).
pub const MASK_LEN: usize = 4;

/// Appends the header of a masked, unfragmented frame, as a client sends it. The caller must [`mask`] the payload.
pub fn put_masked_header(out: &mut Vec<u8>, opcode: Opcode, len: usize, mask: [u8; 4]) {
    let start = out.len();
    put_header(out, opcode, len);
    out[start + 1] |= MASKED;
    out.extend_from_slice(&mask);
}

/// Returns the payload of a complete frame that begins with a header of [`put_header`]. Empty if the frame is shorter
/// than its header.
pub fn payload(frame: &[u8]) -> &[u8] {
    let header = match frame.get(1) {
        Some(&LENGTH_IS_U16) => 4,
        Some(&LENGTH_IS_U64) => 10,
        _ => 2,
    };
    frame.get(header..).unwrap_or_default()
}

/// Length of the header that [`put_header`] appends for a payload of `len` bytes.
pub const fn header_len(len: usize) -> usize {
    match len {
        ..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Length of the header of an unmasked frame, which follows from the second byte of the frame.
pub(crate) fn header_len_of(frame: &[u8]) -> usize {
    match frame[1] {
        LENGTH_IS_U64 => 10,
        LENGTH_IS_U16 => 4,
        _ => 2,
    }
}

/// Appends a close frame. A reason too long for a control frame is cut between characters.
pub fn put_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut end = reason.len().min(MAX_CONTROL_PAYLOAD - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    put_header(out, Opcode::Close, 2 + end);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&reason.as_bytes()[..end]);
}

/// Appends a ping. Only the first 125 bytes of a longer payload are sent.
pub fn put_ping(out: &mut Vec<u8>, payload: &[u8]) {
    put_control(out, Opcode::Ping, payload);
}

/// Appends a pong. Only the first 125 bytes of a longer payload are sent (no [`Event::Ping`] has more bytes).
pub fn put_pong(out: &mut Vec<u8>, payload: &[u8]) {
    put_control(out, Opcode::Pong, payload);
}

fn put_control(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let payload = &payload[..payload.len().min(MAX_CONTROL_PAYLOAD)];
    put_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}
