//! Processes the data that links receive.

use std::ops::ControlFlow;
use std::time::Duration;

use proto::envelope::{Malformed, Routed};
use proto::limits::LINK_COUNT_STEP;
use proto::ws::{Event, FrameReader, Opcode};
use proto::{Envelope, Hop, HubId, LinkId, Now, RelayInput, isolated};
use thread::read_isolated;
use tracing::{debug, warn};

use super::Core;
use crate::link::{Link, Phase, Unread};
use crate::stats::{LinkEnd, REFUSED_CODE};

impl Core {
    pub(crate) fn take_read_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.read_buffer)
    }

    pub(crate) fn restore_read_buffer(&mut self, buffer: Vec<u8>) {
        self.read_buffer = buffer;
    }

    /// Processes bytes from a link's socket.
    pub(crate) fn received(&mut self, id: LinkId, bytes: &mut [u8]) {
        let now = self.now();
        self.stats.bytes_in += bytes.len() as u64;
        let Some(link) = self.links.get_mut(&id) else { return };
        link.last_heard = now.at;
        link.bytes[0] += bytes.len() as u64;
        if link.is_deaf() {
            return;
        }
        if let Some(unread) = link.unread.take() {
            // The link's socket is not read meanwhile.
            self.go_on_reading(id, unread, now);
            return self.turn_ends(now);
        }
        let mut reader = std::mem::take(&mut link.reader);
        let read = read_isolated(&mut reader, bytes, |event| {
            self.heard(id, event, now);
            match self.links.get(&id) {
                Some(link) if !link.is_deaf() && !self.is_turn_over() => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        });
        let is_over = self.is_turn_over();
        match (read, self.links.get_mut(&id)) {
            (Some(Ok(())), Some(link)) if link.is_deaf() => {}
            (Some(Ok(())), Some(link)) if is_over => {
                // The bytes after this message are read in the next turn.
                link.reader = reader;
                link.replay = true;
            }
            (Some(Ok(())), Some(link)) => {
                let is_partial = reader.waiting_bytes() > 0;
                link.reader = reader;
                if is_partial && link.is_up() && !link.legacy {
                    self.input(RelayInput::Heard { link: id }, now);
                }
            }
            (Some(Ok(())), None) => {}
            (Some(Err(violation)), _) => self.malformed(id, &violation.to_string(), now),
            (None, _) => self.malformed(id, "the parser panicked", now),
        }
        if self.links.get(&id).is_some_and(|link| link.kept_bytes() > LINK_COUNT_STEP) {
            self.limit_kept_bytes(now);
        }
        self.turn_ends(now);
    }

    /// Closes the links with the longest messages until the memory for incomplete and unprocessed messages of all links
    /// is within its maximum. Data that still arrives on a link closed in this way is read and dropped.
    fn limit_kept_bytes(&mut self, now: Now) {
        while self.kept_bytes() > self.partial_cap
            && let Some((&id, link)) = self.links.iter_mut().max_by_key(|(_, link)| link.kept_bytes())
        {
            link.deaf = true;
            link.reader = FrameReader::default();
            link.unread = None;
            self.close(id, LinkEnd::Memory, now);
        }
    }

    /// Memory for messages of all links that have not arrived or been processed completely.
    pub(super) fn kept_bytes(&self) -> usize {
        self.links.values().map(Link::kept_bytes).sum()
    }

    fn heard(&mut self, id: LinkId, event: Event<'_>, now: Now) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let legacy = link.legacy;
        if matches!(link.phase(), Phase::Closing) && !matches!(event, Event::Close(_)) {
            return;
        }
        match event {
            Event::Binary(payload) if !legacy => {
                self.stats.frames_in += 1;
                let left = self.envelopes(id, payload, now);
                if let Some(link) = self.links.get_mut(&id).filter(|_| left > 0) {
                    let message = payload[payload.len() - left..].to_vec();
                    link.unread = Some(Unread { message, at: 0 });
                }
            }
            Event::Text(text) if legacy => {
                self.stats.frames_in += 1;
                self.input(RelayInput::LegacyText { link: id, text }, now);
            }
            // The Go hub treats binary frames as text.
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
                    if legacy {
                        // The pong shows that the first announcements of the Go hub have been read. The relay's work
                        // that waited for these announcements can continue.
                        link.wake();
                    }
                }
            }
            Event::Close(frame) => {
                let (code, reason) = frame.map_or((None, ""), |frame| (Some(frame.code), frame.reason));
                self.other_closed(id, code, reason, now);
            }
        }
    }

    /// Processes a message of envelopes until the turn is over. Returns the number of bytes that are left.
    fn envelopes(&mut self, id: LinkId, mut frame: &[u8], now: Now) -> usize {
        if let Some(link) = self.links.get_mut(&id)
            && let Phase::Answered(hello) = link.phase()
        {
            let hello = hello.clone();
            match frame {
                [] => self.agreed(id, &hello, now),
                _ => self.malformed(id, "an envelope came before the link was ready", now),
            }
            return 0;
        }
        while !self.is_turn_over() {
            let Some(link) = self.links.get(&id) else { return 0 };
            let envelope = match isolated(|| Envelope::decode(&mut frame)) {
                Some(Ok(Some(envelope))) => envelope,
                Some(Ok(None)) => return 0,
                Some(Err(malformed)) => {
                    self.malformed(id, malformed.0, now);
                    return 0;
                }
                None => {
                    self.malformed(id, "the decoder panicked", now);
                    return 0;
                }
            };
            match (link.phase(), envelope) {
                (Phase::Greeting, envelope) => self.greeted(id, envelope, now),
                (Phase::Ready | Phase::Retiring, Envelope::Hello(_)) => {
                    self.malformed(id, "a second hello", now);
                    return 0;
                }
                (Phase::Ready | Phase::Retiring, envelope) => {
                    self.tell_bridge(&envelope);
                    self.input(RelayInput::Received { via: Hop::Link(id), envelope }, now);
                }
                (Phase::Answered(_), _) => {
                    self.malformed(id, "an envelope came before the link was ready", now);
                    return 0;
                }
                (Phase::Closing, _) => return 0,
            }
        }
        frame.len()
    }

    /// Processes the remaining bytes of a link's message. The bytes after the message are in the link's reader.
    fn go_on_reading(&mut self, id: LinkId, Unread { message, at }: Unread, now: Now) {
        let left = self.envelopes(id, &message[at..], now);
        if let Some(link) = self.links.get_mut(&id) {
            link.replay = true;
            if left > 0 {
                let at = message.len() - left;
                link.unread = Some(Unread { message, at });
            }
        }
    }

    /// Passes an envelope of a link to the bridge if the envelope answers a question about a takeover. A hub of version
    /// 2.0 answers the bridge's questions over a link if there is one.
    fn tell_bridge(&mut self, envelope: &Envelope) {
        if let Some(bridge) = &mut self.bridge
            && let Envelope::Routed(route, routed) = envelope
            && let Routed::TakeoverAnswer { peer, ticket, .. } = **routed
        {
            bridge.answered(route.from, peer, ticket);
        }
    }

    /// Processes a message from the bridge until the turn is over. The remaining bytes stay in `bridge_unread`.
    pub(super) fn heard_over_bridge(&mut self, from: HubId, Unread { message, at }: Unread, now: Now) {
        let mut frame = &message[at..];
        while !self.is_turn_over() {
            let decoded = isolated(|| Envelope::decode(&mut frame));
            match decoded.unwrap_or(Err(Malformed("the decoder panicked"))) {
                Ok(None) => return,
                // Hubs on the bridge identify themselves by heartbeats.
                Ok(Some(Envelope::Hello(_))) => {}
                // Of another hub that has this hub's id, only heartbeats matter, because they show that the other hub
                // is alive.
                Ok(Some(envelope)) if from == self.own && !is_heartbeat_of(&envelope, from) => {}
                Ok(Some(envelope)) => self.input(RelayInput::Received { via: Hop::Bridge(from), envelope }, now),
                Err(malformed) => {
                    self.stats.bridge_malformed += 1;
                    return debug!(%from, what = malformed.0, "bridge_malformed");
                }
            }
        }
        if !frame.is_empty() {
            let at = message.len() - frame.len();
            self.bridge_unread = Some((from, Unread { message, at }));
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
        link.set_end(if code == Some(REFUSED_CODE) { LinkEnd::Refused } else { LinkEnd::Closed });
        self.begin_closing(id, now);
    }
}

fn is_heartbeat_of(envelope: &Envelope, hub: HubId) -> bool {
    matches!(envelope, Envelope::Heartbeat(beat) if beat.hub == hub)
}
