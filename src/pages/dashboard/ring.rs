//! The history of the last ten minutes, as encoded events.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use proto::limits::{LIVE_LINES, LIVE_RING_BYTES, LIVE_SAMPLES};

/// A position in the history of a hub. A position consists of the start of the hub, and the number of the last event
/// that was read. The start is necessary because each process numbers its events from 1. In a stream, the position is
/// the `id` of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Position {
    pub(super) epoch: u64,
    pub(super) number: u64,
}

impl Position {
    /// Reads the `Last-Event-ID` of a browser.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (epoch, number) = text.split_once('.')?;
        Some(Self { epoch: epoch.parse().ok()?, number: number.parse().ok()? })
    }
}

/// Events of the last ten minutes, encoded as in a stream. All readers share them.
#[derive(Debug)]
pub(super) struct Ring {
    /// Start of the hub, in milliseconds since 1970.
    epoch: u64,
    /// Number of the last event.
    last: u64,
    /// At most [`LIVE_SAMPLES`] samples, with [`LIVE_RING_BYTES`] in total.
    samples: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// At most [`LIVE_LINES`] lines of the log.
    lines: VecDeque<(u64, Bytes)>,
    /// The current state, which replaces the previous state.
    state: Bytes,
}

impl Ring {
    pub(super) fn new(epoch: u64) -> Self {
        Self { epoch, last: 0, samples: VecDeque::new(), bytes: 0, lines: VecDeque::new(), state: Bytes::new() }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Adds a sample.
    pub(super) fn sample(&mut self, json: &[u8]) {
        let event = self.encode("sample", json);
        self.bytes += event.1.len();
        self.samples.push_back(event);
        while self.samples.len() > LIVE_SAMPLES || self.bytes > LIVE_RING_BYTES {
            let Some((_, oldest)) = self.samples.pop_front() else { break };
            self.bytes -= oldest.len();
        }
    }

    /// Adds a line of the log.
    pub(super) fn line(&mut self, json: &[u8]) {
        let event = self.encode("line", json);
        if self.lines.len() == LIVE_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(event);
    }

    /// Replaces the current state.
    pub(super) fn set_state(&mut self, json: &[u8]) {
        self.state = event("state", None, json);
    }

    /// The current state, as an event.
    pub(super) fn state(&self) -> Bytes {
        self.state.clone()
    }

    /// The number of the last event that was read at `position`. Returns 0 if the position belongs to an earlier
    /// process of the hub.
    pub(super) fn place_of(&self, position: Position) -> u64 {
        if position.epoch == self.epoch { position.number.min(self.last) } else { 0 }
    }

    /// Returns the events after `number`, oldest first. Returns at least one event, and more events up to `most` bytes
    /// in total. Also returns the number of the last returned event. `None` if there is no event after `number`.
    /// Includes log lines only if `with_lines`.
    pub(super) fn after(&self, number: u64, with_lines: bool, most: usize) -> Option<(Bytes, u64)> {
        let from = |events: &VecDeque<(u64, Bytes)>| events.partition_point(|(known, _)| *known <= number);
        let mut samples = self.samples.range(from(&self.samples)..).peekable();
        let lines_from = if with_lines { from(&self.lines) } else { self.lines.len() };
        let mut lines = self.lines.range(lines_from..).peekable();
        let (mut out, mut last) = (BytesMut::new(), None);
        loop {
            let next = match (samples.peek(), lines.peek()) {
                (Some((sample, _)), Some((line, _))) if line < sample => lines.next(),
                (Some(_), _) => samples.next(),
                (None, _) => lines.next(),
            };
            let Some((number, event)) = next else { break };
            if last.is_some() && out.len() + event.len() > most {
                break;
            }
            out.extend_from_slice(event);
            last = Some(*number);
        }
        last.map(|last| (out.freeze(), last))
    }

    fn encode(&mut self, name: &str, json: &[u8]) -> (u64, Bytes) {
        self.last += 1;
        (self.last, event(name, Some((self.epoch, self.last)), json))
    }
}

/// Encodes an event of a stream (HTML standard, 9.2). The JSON fits on one line, because serde writes no line breaks.
pub(super) fn event(name: &str, id: Option<(u64, u64)>, json: &[u8]) -> Bytes {
    let id = id.map(|(epoch, number)| format!("id: {epoch}.{number}\n")).unwrap_or_default();
    [id.as_bytes(), b"event: ", name.as_bytes(), b"\ndata: ", json, b"\n\n"].concat().into()
}

#[cfg(test)]
mod tests {
    use proto::limits::LIVE_CHUNK_BYTES;

    use super::*;

    fn all(ring: &Ring, from: u64, with_lines: bool) -> String {
        let all = ring.after(from, with_lines, usize::MAX).map(|(events, _)| events.to_vec()).unwrap_or_default();
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn history_is_bounded_by_samples_and_by_bytes() {
        let mut ring = Ring::new(7);
        (0..LIVE_SAMPLES + 3).for_each(|n| ring.sample(n.to_string().as_bytes()));
        assert_eq!(ring.samples.len(), LIVE_SAMPLES);
        assert!(all(&ring, 0, false).starts_with("id: 7.4\nevent: sample\ndata: 3\n\n"));
        let large = vec![b'1'; 4096];
        (0..2 * LIVE_SAMPLES).for_each(|_| ring.sample(&large));
        assert!(ring.bytes <= LIVE_RING_BYTES && ring.bytes > LIVE_RING_BYTES - 2 * large.len());
        assert_eq!(ring.bytes, ring.samples.iter().map(|(_, event)| event.len()).sum::<usize>());
        assert!(ring.samples.len() < LIVE_SAMPLES);
        (0..2 * LIVE_LINES).for_each(|_| ring.line(b"{}"));
        assert_eq!(ring.lines.len(), LIVE_LINES);
    }

    #[test]
    fn events_are_read_in_order_and_log_lines_only_with_permission() {
        let mut ring = Ring::new(7);
        assert_eq!(ring.after(0, true, usize::MAX), None);
        ring.sample(b"1");
        ring.line(b"2");
        ring.sample(b"3");
        ring.line(b"4");
        let datas = |from, with_lines| {
            let all = all(&ring, from, with_lines);
            all.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(datas(0, true), ["1", "2", "3", "4"]);
        assert_eq!(datas(0, false), ["1", "3"]);
        assert_eq!(datas(2, true), ["3", "4"]);
        assert!(datas(4, true).is_empty() && datas(3, false).is_empty());
    }

    #[test]
    fn events_are_read_in_chunks() {
        let mut ring = Ring::new(7);
        let sizes = [LIVE_CHUNK_BYTES / 2, LIVE_CHUNK_BYTES / 3, LIVE_CHUNK_BYTES * 2, 1];
        sizes.iter().for_each(|size| ring.sample(&vec![b'1'; *size]));
        let (mut at, mut read) = (0, Vec::new());
        while let Some((chunk, last)) = ring.after(at, false, LIVE_CHUNK_BYTES) {
            assert!(chunk.len() <= LIVE_CHUNK_BYTES || last == at + 1, "a long event has its own chunk");
            read.push(last - at);
            at = last;
        }
        assert_eq!(read, [2, 1, 1]);
    }

    #[test]
    fn a_position_of_an_earlier_process_starts_at_the_beginning() {
        let mut ring = Ring::new(7);
        (0..5).for_each(|_| ring.sample(b"1"));
        let place = |text| Position::read(text).map(|position| ring.place_of(position));
        assert_eq!([place("7.3"), place("8.3"), place("7.99")], [Some(3), Some(0), Some(5)]);
        for wrong in ["", "7", "7.", "x.1", "7.3.1", "-7.3"] {
            assert_eq!(place(wrong), None, "{wrong}");
        }
    }
}
