//! Processes the data that sockets receive.

use std::ops::ControlFlow;

use proto::limits::{READ_BUFFER_BYTES, RECEIVE_FLOOR_BYTES, SHORT_READ_BYTES};
use proto::ws::{Event, Opcode};
use proto::{CloseReason, Input, Now, SessionId, SessionPhase, ws};
use thread::{planted, read_isolated};

use super::Core;
use proto::lower;

/// Number of events of one session that are processed between two readings of the clock. The shortest event takes 0.1
/// us. In 0.1 us, the clock can be read three times.
const EVENTS_PER_LOOK: usize = 8;

impl Core {
    pub(crate) fn take_read_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.read_buffer)
    }

    pub(crate) fn restore_read_buffer(&mut self, buffer: Vec<u8>) {
        self.read_buffer = buffer;
    }

    pub(crate) fn take_plaintext(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.plaintext)
    }

    pub(crate) fn restore_plaintext(&mut self, mut plaintext: Vec<u8>) {
        plaintext.clear();
        self.plaintext = plaintext;
    }

    /// Processes bytes from a session's socket.
    pub(crate) fn received(&mut self, id: SessionId, bytes: &mut [u8]) {
        let now = self.now();
        self.stats.bytes_in += bytes.len() as u64;
        let Some(session) = self.session_mut(id) else { return };
        session.life.shown(now.at);
        if session.read.is_deaf() {
            return;
        }
        let mut reader = session.read.take_reader();
        let mut events = 0usize;
        let read = read_isolated(&mut reader, bytes, |event| {
            self.heard(id, event, now);
            events += 1;
            if events.is_multiple_of(EVENTS_PER_LOOK) {
                self.now();
            }
            let is_turn_over = self.is_turn_over();
            match self.session_mut(id) {
                Some(session) if !session.read.is_over() && !is_turn_over => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        });
        let is_turn_over = self.is_turn_over();
        match (read, self.session_mut(id)) {
            (Some(Ok(())), Some(session)) if !session.read.is_over() => {
                let kept = reader.kept_bytes();
                session.read.put_back(reader, is_turn_over);
                if kept != session.read.kept_bytes() {
                    self.count_kept_or_close(id, kept, now);
                }
                return;
            }
            (Some(Ok(())), _) => {}
            (Some(Err(violation)), _) => self.violated(id, violation, now),
            (None, _) => self.parser_failed(id, now),
        }
        // The session no longer parses data, so it keeps no incomplete message.
        self.count_kept_or_close(id, 0, now);
    }

    /// Counts the memory of a session's incomplete message. Closes the session if the budget is exhausted and the
    /// message takes more than [`RECEIVE_FLOOR_BYTES`].
    fn count_kept_or_close(&mut self, id: SessionId, kept: usize, now: Now) {
        let Some(session) = self.session_mut(id) else { return };
        let before = session.read.keep(kept);
        self.stats.kept_bytes += kept as u64;
        lower!(self.bugs, self.stats.kept_bytes, before as u64);
        if kept <= RECEIVE_FLOOR_BYTES || !self.is_short_of_memory() {
            return;
        }
        lower!(self.bugs, self.stats.kept_bytes, kept as u64);
        if let Some(session) = self.session_mut(id) {
            session.read.give_up();
        }
        self.close(id, CloseReason::TryAgainLater, now);
    }

    /// Whether incomplete messages take more memory than the budget allows.
    fn is_short_of_memory(&self) -> bool {
        self.stats.kept_bytes > self.limits.receive_budget_bytes as u64
    }

    /// Maximum number of bytes of the next read.
    pub(crate) fn read_bytes(&self) -> usize {
        if self.is_short_of_memory() { SHORT_READ_BYTES } else { READ_BUFFER_BYTES }
    }

    pub(super) fn heard(&mut self, id: SessionId, event: Event<'_>, now: Now) {
        planted("rules");
        let echo = self.echo;
        let Some(session) = self.session_mut(id) else { return };
        if session.phase() == SessionPhase::Closing {
            if let Event::Close(_) = event {
                session.read.client_closed();
                self.finish_if_written(id);
            }
            return;
        }
        match event {
            Event::Text(text) if echo => self.echo_back(id, Opcode::Text, text.as_bytes(), now),
            Event::Binary(bytes) if echo => self.echo_back(id, Opcode::Binary, bytes, now),
            Event::Text(text) => self.input(Input::Message { session: id, text }, now),
            Event::Binary(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => self.input(Input::Message { session: id, text }, now),
                Err(_) => self.input(Input::NotText { session: id }, now),
            },
            Event::Ping(payload) => {
                self.push_control(id, |queue| queue.push_pong(payload));
            }
            Event::Pong(payload) => self.input(Input::Pong { session: id, payload }, now),
            Event::Close(frame) => {
                let retiring = session.phase() == SessionPhase::Retiring;
                let code = frame.map(|frame| frame.code);
                let reason = session.why_it_goes().unwrap_or(CloseReason::of_client(code));
                session.read.client_closed();
                if !retiring {
                    self.push_close(id, |out| match code {
                        Some(code) => ws::put_close(out, code, ""),
                        None => ws::put_header(out, Opcode::Close, 0),
                    });
                }
                self.end(id, reason, now);
            }
        }
    }

    pub(super) fn echo_back(&mut self, id: SessionId, opcode: Opcode, payload: &[u8], now: Now) {
        self.push(id, |out| {
            ws::put_header(out, opcode, payload.len());
            out.extend_from_slice(payload);
        });
        self.perform_outputs(now);
    }
}
