//! What comes over links.

use proto::limits::READ_BUFFER_BYTES;
use proto::ws::{Decoder, Event, Opcode, Progress};
use proto::{Envelope, HubId, LinkId, Now, RelayInput, Via};
use std::time::Duration;
use tracing::{debug, warn};

use super::Core;
use crate::link::{Link, Phase};
use crate::stats::{LinkEnd, REFUSED_CODE};

impl Core {
    pub(crate) fn take_read_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.read_buffer)
    }

    pub(crate) fn restore_read_buffer(&mut self, buffer: Vec<u8>) {
        self.read_buffer = buffer;
    }

    /// Takes in what was read from a link's socket.
    pub(crate) fn received(&mut self, id: LinkId, bytes: &mut [u8]) {
        let now = self.now();
        self.stats.bytes_in += bytes.len() as u64;
        let Some(link) = self.links.get_mut(&id) else { return };
        link.last_heard = now.at;
        if link.is_deaf() {
            return;
        }
        let mut partial = std::mem::take(&mut link.partial);
        let rest = if partial.is_empty() {
            let (consumed, needed) = self.decode(id, bytes, now);
            let rest = &bytes[consumed..];
            // Room for the whole frame, but no more ahead of what has come than that again.
            partial.reserve_exact(if rest.is_empty() { 0 } else { needed.clamp(rest.len(), 2 * rest.len().max(1024)) });
            partial.extend_from_slice(rest);
            partial
        } else {
            partial.extend_from_slice(bytes);
            let (consumed, _) = self.decode(id, &mut partial, now);
            partial.drain(..consumed);
            if partial.capacity() > 4 * partial.len().max(READ_BUFFER_BYTES) {
                partial.shrink_to_fit();
            }
            partial
        };
        if let Some(link) = self.links.get_mut(&id).filter(|link| !link.is_deaf()) {
            link.partial = rest;
        }
        self.turn_ends(now);
    }

    /// Takes messages from the front of `bytes`. Returns how many bytes those had, and how many the next one needs.
    fn decode(&mut self, id: LinkId, bytes: &mut [u8], now: Now) -> (usize, usize) {
        let Some(link) = self.links.get_mut(&id) else { return (bytes.len(), 0) };
        let dialed = link.dialed();
        let mut decoder = std::mem::replace(&mut link.decoder, Decoder::new(0));
        let mut consumed = 0;
        let needed = loop {
            let rest = &mut bytes[consumed..];
            match if dialed { decoder.decode_from_server(rest) } else { decoder.decode(rest) } {
                Ok(Progress::Need(total)) => break total,
                Ok(Progress::Took { consumed: n, event }) => {
                    consumed += n;
                    if let Some(event) = event {
                        self.heard(id, event, now);
                    }
                }
                Err(violation) => {
                    self.malformed(id, &violation.to_string(), now);
                    return (bytes.len(), 0);
                }
            }
            if self.links.get(&id).is_none_or(Link::is_deaf) {
                return (bytes.len(), 0);
            }
        };
        if let Some(link) = self.links.get_mut(&id) {
            link.decoder = decoder;
        }
        (consumed, needed)
    }

    fn heard(&mut self, id: LinkId, event: Event<'_>, now: Now) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let legacy = link.legacy;
        if matches!(link.phase, Phase::Closing) && !matches!(event, Event::Close(_)) {
            return;
        }
        match event {
            Event::Binary(payload) if !legacy => {
                self.stats.frames_in += 1;
                self.envelopes(id, payload, now);
            }
            Event::Text(text) if legacy => {
                self.stats.frames_in += 1;
                self.input(RelayInput::LegacyText { link: id, text }, now);
            }
            // The seed handles binary frames like text.
            Event::Binary(payload) => match std::str::from_utf8(payload) {
                Ok(text) => {
                    self.stats.frames_in += 1;
                    self.input(RelayInput::LegacyText { link: id, text }, now);
                }
                Err(_) => self.malformed(id, "a message is not UTF-8", now),
            },
            Event::Text(_) => self.malformed(id, "a text message between hubs", now),
            Event::Ping(payload) => self.push(id, now, |queue| queue.control(Opcode::Pong, payload)),
            Event::Pong(payload) => {
                if let Ok(sent) = payload.try_into().map(u64::from_be_bytes) {
                    link.rtt = now.at.checked_sub(Duration::from_micros(sent));
                }
            }
            Event::Close(frame) => {
                let (code, reason) = frame.map_or((None, ""), |frame| (Some(frame.code), frame.reason));
                self.other_closed(id, code, reason, now);
            }
        }
    }

    /// One message of envelopes.
    fn envelopes(&mut self, id: LinkId, mut frame: &[u8], now: Now) {
        if let Some(link) = self.links.get_mut(&id)
            && let Phase::Answered(hello) = &link.phase
        {
            let hello = hello.clone();
            return match frame {
                [] => self.agreed(id, &hello, now),
                _ => self.malformed(id, "more was said before the link was ready", now),
            };
        }
        loop {
            let Some(link) = self.links.get(&id) else { return };
            let envelope = match Envelope::decode(&mut frame) {
                Ok(Some(envelope)) => envelope,
                Ok(None) => return,
                Err(malformed) => return self.malformed(id, malformed.0, now),
            };
            match (&link.phase, envelope) {
                (Phase::Greeting, envelope) => self.greeted(id, envelope, now),
                (Phase::Ready | Phase::Retiring, Envelope::Hello(_)) => {
                    return self.malformed(id, "a second hello", now);
                }
                (Phase::Ready | Phase::Retiring, envelope) => {
                    self.input(RelayInput::Received { via: Via::Link(id), envelope }, now);
                }
                (Phase::Answered(_), _) => {
                    return self.malformed(id, "more was said before the link was ready", now);
                }
                (Phase::Closing, _) => return,
            }
        }
    }

    pub(super) fn heard_over_bridge(&mut self, from: HubId, mut frame: &[u8], now: Now) {
        loop {
            match Envelope::decode(&mut frame) {
                Ok(None) => return,
                // Who is on the bridge says so by its heartbeats.
                Ok(Some(Envelope::Hello(_))) => {}
                Ok(Some(envelope)) => self.input(RelayInput::Received { via: Via::Bridge(from), envelope }, now),
                Err(malformed) => {
                    self.stats.bridge_malformed += 1;
                    return debug!(%from, what = malformed.0, "bridge_malformed");
                }
            }
        }
    }

    pub(super) fn malformed(&mut self, id: LinkId, what: &str, now: Now) {
        if let Some(link) = self.links.get_mut(&id) {
            link.deaf = true;
            warn!(hub = link.hub.map(tracing::field::display), address = %link.address, what, "link_malformed");
        }
        self.close(id, LinkEnd::Malformed, now);
    }

    fn other_closed(&mut self, id: LinkId, code: Option<u16>, reason: &str, now: Now) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.other_done = true;
        if link.is_ending() {
            return self.remove(id, now);
        }
        reason.clone_into(&mut link.why);
        match code {
            Some(code) => link.queue.close(code, ""),
            None => link.queue.control(Opcode::Close, &[]),
        }
        link.end.get_or_insert(if code == Some(REFUSED_CODE) { LinkEnd::Refused } else { LinkEnd::Closed });
        self.closing(id, now);
    }
}
