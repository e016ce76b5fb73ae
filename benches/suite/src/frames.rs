//! Finds masked and unmasked WebSocket frames in a stream, and their payloads.

/// Opcode of a further fragment.
const CONTINUATION: u8 = 0;
/// Opcode of a text frame.
pub(crate) const TEXT: u8 = 1;
/// Opcode of a close.
pub(crate) const CLOSE: u8 = 8;
/// Opcode of a ping.
pub(crate) const PING: u8 = 9;
/// Opcode of a pong.
const PONG: u8 = 10;

/// The mask of all frames. A random mask would protect caches of proxies, but there are none here.
pub(crate) const MASK: [u8; 4] = [0x5a, 0xc3, 0x96, 0x0f];

/// The parsed header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The opcode.
    pub(crate) opcode: u8,
    /// Length of the payload, in bytes.
    pub(crate) payload: usize,
    /// Length of the header, in bytes.
    header: usize,
    mask: Option<[u8; 4]>,
}

impl Header {
    /// Parses the header at the beginning of these bytes; `None` while it is incomplete.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        let (payload, at) = match second & 0x7f {
            126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10),
            short => (usize::from(short), 2),
        };
        let (mask, header) = match second & 0x80 {
            0 => (None, at),
            _ => (Some(bytes.get(at..at + 4)?.try_into().ok()?), at + 4),
        };
        Some(Self { opcode: first & 0x0f, payload, header, mask })
    }
}

/// Length of the longest header, which has a mask and a length field of 64 bits.
const MAX_HEADER: usize = 14;

/// Counts frames without storing their bytes.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// An incomplete header.
    head: [u8; MAX_HEADER],
    have: usize,
    /// The current frame, and the number of its remaining payload bytes.
    current: Option<(Header, usize)>,
}

impl Scan {
    /// Consumes the next bytes. Calls `on` for each frame when its last byte has arrived.
    #[inline]
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut on: impl FnMut(Header)) {
        loop {
            let (header, left) = match self.current.take() {
                Some(current) => current,
                None if self.have == 0 => {
                    let Some(header) = Header::read(bytes) else { break self.keep(bytes) };
                    bytes = &bytes[header.header..];
                    (header, header.payload)
                }
                None => {
                    let Some(&byte) = bytes.first() else { return };
                    bytes = &bytes[1..];
                    self.head[self.have] = byte;
                    self.have += 1;
                    let Some(header) = Header::read(&self.head[..self.have]) else { continue };
                    self.have = 0;
                    (header, header.payload)
                }
            };
            if bytes.len() < left {
                self.current = Some((header, left - bytes.len()));
                return;
            }
            bytes = &bytes[left..];
            on(header);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.head[..bytes.len()].copy_from_slice(bytes);
        self.have = bytes.len();
    }
}

/// Extracts frames from a stream, with unmasked payloads.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    partial: Vec<u8>,
}

impl Frames {
    /// Consumes the next bytes. Calls `on` with opcode and payload of each complete frame.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut on: impl FnMut(u8, &[u8])) {
        if self.partial.is_empty() {
            let taken = Self::take(bytes, &mut on);
            self.partial.extend_from_slice(&bytes[taken..]);
        } else {
            self.partial.extend_from_slice(bytes);
            let taken = Self::take(&self.partial, &mut on);
            self.partial.drain(..taken);
        }
        if self.partial.is_empty() {
            // Thousands of these buffers exist at the same time, so an idle buffer must own no memory.
            self.partial = Vec::new();
        }
    }

    fn take(bytes: &[u8], on: &mut impl FnMut(u8, &[u8])) -> usize {
        let mut at = 0;
        while let Some(header) = Header::read(&bytes[at..]) {
            let begin = at + header.header;
            let Some(payload) = bytes.get(begin..begin + header.payload) else { break };
            match header.mask {
                None => on(header.opcode, payload),
                Some(key) => on(header.opcode, &masked(payload, key)),
            }
            at = begin + header.payload;
        }
        at
    }
}

fn masked(payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
}

/// A text frame of a client.
pub(crate) fn text(payload: &str) -> Vec<u8> {
    frame(TEXT, payload.as_bytes())
}

/// A pong of a client.
pub(crate) fn pong() -> Vec<u8> {
    frame(PONG, &[])
}

/// A ping of a client.
pub(crate) fn ping() -> Vec<u8> {
    frame(PING, &[])
}

/// The first fragment of a text: an empty one.
pub(crate) fn first_fragment() -> Vec<u8> {
    unfinished(TEXT)
}

/// An empty continuation fragment, which is not the last fragment of its message.
pub(crate) fn empty_fragment() -> Vec<u8> {
    unfinished(CONTINUATION)
}

fn unfinished(opcode: u8) -> Vec<u8> {
    let mut out = frame(opcode, &[]);
    out[0] &= 0x7f;
    out
}

/// A close of a client, with code 1000.
pub(crate) fn close() -> Vec<u8> {
    frame(CLOSE, &1000u16.to_be_bytes())
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    match payload.len() {
        short @ ..=125 => out.push(0x80 | short as u8),
        middle @ ..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend_from_slice(&masked(payload, MASK));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of a server.
    fn plain(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let masked = frame(opcode, payload);
        let header = masked.len() - payload.len() - 4;
        let mut out = masked[..header].to_vec();
        out[1] &= 0x7f;
        out.extend_from_slice(payload);
        out
    }

    const LENGTHS: [usize; 9] = [0, 1, 125, 126, 127, 1200, 65_535, 65_536, 70_000];

    fn stream() -> Vec<u8> {
        let payload: Vec<u8> = (0..70_000u32).map(|i| (i * 7) as u8).collect();
        LENGTHS.iter().flat_map(|&len| [frame(TEXT, &payload[..len]), plain(PING, &payload[..len])].concat()).collect()
    }

    fn expected() -> Vec<(u8, usize)> {
        LENGTHS.iter().flat_map(|&len| [(TEXT, len), (PING, len)]).collect()
    }

    #[test]
    fn frames_are_found_however_the_stream_is_divided() {
        let stream = stream();
        for step in [1, 2, 3, 5, 13, 14, 1000, 65_536, stream.len()] {
            let (mut scan, mut frames) = (Scan::default(), Frames::default());
            let (mut lengths, mut payloads) = (Vec::new(), Vec::new());
            // The test divides the stream into pieces of nine sizes. Pieces of every size would take minutes.
            for piece in stream.chunks(step) {
                scan.feed(piece, |header| lengths.push((header.opcode, header.payload)));
                if step > 5 {
                    frames.feed(piece, |opcode, payload| payloads.push((opcode, payload.to_vec())));
                }
            }
            assert_eq!(lengths, expected(), "in steps of {step}");
            for (opcode, payload) in payloads.iter().filter(|_| step > 5) {
                assert!(
                    payload.iter().enumerate().all(|(i, &byte)| byte == (i * 7) as u8),
                    "{opcode} in steps of {step}"
                );
            }
            if step > 5 {
                assert_eq!(payloads.iter().map(|(o, p)| (*o, p.len())).collect::<Vec<_>>(), expected());
            }
        }
    }

    #[test]
    fn a_frame_counts_when_its_last_byte_arrives() {
        let frame = text("0123456789");
        let mut scan = Scan::default();
        scan.feed(&frame[..frame.len() - 1], |_| panic!("the frame is not complete"));
        let mut count = 0;
        scan.feed(&frame[frame.len() - 1..], |_| count += 1);
        assert_eq!(count, 1);
    }
}
