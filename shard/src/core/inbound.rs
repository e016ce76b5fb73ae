//! What comes from sockets.

use proto::limits::READ_BUFFER_BYTES;
use proto::ws::{Decoder, Event, Opcode, Progress, Violation};
use proto::{CloseReason, Input, Now, SessionId, ws};
use tracing::debug;

use super::Core;
use crate::session::Phase;

impl Core {
    pub(crate) fn take_read_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.read_buffer)
    }

    pub(crate) fn restore_read_buffer(&mut self, buffer: Vec<u8>) {
        self.read_buffer = buffer;
    }

    /// Takes in what was read from a session's socket.
    pub(crate) fn received(&mut self, id: SessionId, bytes: &mut [u8]) {
        let now = self.now();
        self.stats.bytes_in += bytes.len() as u64;
        let Some(session) = self.session_mut(id) else { return };
        session.last_heard = now.at;
        session.pings = 0;
        if session.deaf {
            return;
        }
        if session.partial.is_empty() {
            let (consumed, needed) = self.decode(id, bytes, now);
            if let Some(session) = self.session_mut(id).filter(|s| consumed < bytes.len() && !s.deaf) {
                let rest = &bytes[consumed..];
                // Room for the whole frame, but no more ahead of what has come than that again.
                let room = needed.clamp(rest.len(), 2 * rest.len().max(1024));
                session.partial = Vec::with_capacity(room);
                session.partial.extend_from_slice(rest);
            }
        } else {
            let mut partial = std::mem::take(&mut session.partial);
            partial.extend_from_slice(bytes);
            let (consumed, _) = self.decode(id, &mut partial, now);
            if let Some(session) = self.session_mut(id).filter(|s| consumed < partial.len() && !s.deaf) {
                partial.drain(..consumed);
                if partial.capacity() > 4 * partial.len().max(READ_BUFFER_BYTES) {
                    partial.shrink_to_fit();
                }
                session.partial = partial;
            }
        }
    }

    /// Takes messages from the front of `bytes`. Returns how many bytes those had, and how many the next one needs.
    pub(super) fn decode(&mut self, id: SessionId, bytes: &mut [u8], now: Now) -> (usize, usize) {
        let placeholder = Decoder::new(0);
        let Some(session) = self.session_mut(id) else { return (bytes.len(), 0) };
        let mut decoder = std::mem::replace(&mut session.decoder, placeholder);
        let mut consumed = 0;
        let needed = loop {
            match decoder.decode(&mut bytes[consumed..]) {
                Ok(Progress::Need(total)) => break total,
                Ok(Progress::Took { consumed: n, event }) => {
                    consumed += n;
                    if let Some(event) = event {
                        self.heard(id, event, now);
                    }
                }
                Err(violation) => {
                    self.violated(id, violation, now);
                    break 0;
                }
            }
            if self.session_mut(id).is_none_or(|session| session.client_done || session.deaf) {
                return (bytes.len(), 0);
            }
        };
        if let Some(session) = self.session_mut(id) {
            session.decoder = decoder;
        }
        (consumed, needed)
    }

    pub(super) fn heard(&mut self, id: SessionId, event: Event<'_>, now: Now) {
        let echo = self.echo;
        let Some(session) = self.session_mut(id) else { return };
        if session.phase == Phase::Closing {
            if let Event::Close(_) = event {
                session.client_done = true;
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
                self.push(id, |out| ws::put_pong(out, payload));
                self.settle(now);
            }
            Event::Pong(payload) => self.input(Input::Pong { session: id, payload }, now),
            Event::Close(frame) => {
                let retiring = session.phase == Phase::Retiring;
                session.client_done = true;
                if !retiring {
                    let code = frame.map(|frame| frame.code);
                    self.push_close(id, |out| match code {
                        Some(code) => ws::put_close(out, code, ""),
                        None => ws::put_header(out, Opcode::Close, 0),
                    });
                }
                let reason = if retiring { CloseReason::Draining } else { CloseReason::ClientClosed };
                self.end(id, reason, now);
            }
        }
    }

    pub(super) fn echo_back(&mut self, id: SessionId, opcode: Opcode, payload: &[u8], now: Now) {
        self.push(id, |out| {
            ws::put_header(out, opcode, payload.len());
            out.extend_from_slice(payload);
        });
        self.settle(now);
    }

    pub(super) fn violated(&mut self, id: SessionId, violation: Violation, now: Now) {
        if let Some(session) = self.session_mut(id) {
            session.deaf = true;
        }
        match violation {
            Violation::TooLarge => self.input(Input::TooLarge { session: id }, now),
            Violation::NotUtf8 => self.close_and_tell(id, CloseReason::NotUtf8, now),
            Violation::Protocol(what) => {
                debug!(what, "protocol_error");
                self.close_and_tell(id, CloseReason::ProtocolError, now);
            }
        }
    }

    /// The socket has ended or failed.
    pub(crate) fn lost(&mut self, id: SessionId) {
        let now = self.now();
        let Some(session) = self.session_mut(id) else { return };
        let retiring = session.phase == Phase::Retiring;
        self.end(id, if retiring { CloseReason::Draining } else { CloseReason::ConnectionLost }, now);
        self.remove(id);
        self.settle(now);
    }

    /// The session's own code has failed.
    pub(crate) fn failed(&mut self, id: SessionId) {
        while self.router.poll_output().is_some() {}
        if self.read_buffer.is_empty() {
            self.read_buffer = vec![0; READ_BUFFER_BYTES];
        }
        let now = self.now();
        tracing::error!("a session failed and was closed");
        self.end(id, CloseReason::Internal, now);
        self.remove(id);
        self.settle(now);
    }
}
