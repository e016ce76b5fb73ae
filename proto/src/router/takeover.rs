//! Two connections, one id: the first is asked whether it still lives (protocol: part C).

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::time::Duration;

use crate::id::{Keys, PeerId, SessionId};
use crate::limits::TAKEOVER_GRACE;
use crate::reason::CloseReason;
use crate::time::Now;
use crate::wire::{self, MessageKind};

use super::Router;
use super::letter::{Event, Frame, Output};
use super::session::{Session, State};

#[derive(Debug)]
pub(super) struct Takeovers {
    keys: Keys,
    asked: u64,
    pending: HashMap<PeerId, Takeover, Keys>,
    /// In the order of their deadlines, since all have the same grace. Entries of takeovers that have ended stay until
    /// their time: at most as many as connections can be opened within the grace.
    pub(super) deadlines: VecDeque<(Duration, PeerId, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Takeover {
    newcomer: SessionId,
    nonce: u64,
}

impl Takeovers {
    pub(super) fn new(keys: Keys) -> Self {
        Self { keys, asked: 0, pending: HashMap::with_hasher(keys), deadlines: VecDeque::new() }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.deadlines.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.front().map(|(at, ..)| *at)
    }

    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.pending.remove(peer);
    }

    fn ask(&mut self, peer: PeerId, newcomer: SessionId, now: Duration) -> u64 {
        self.asked += 1;
        // Keyed, so that a pong sent on suspicion answers nothing.
        let nonce = self.keys.hash_one((peer, self.asked));
        self.pending.insert(peer, Takeover { newcomer, nonce });
        self.deadlines.push_back((now + TAKEOVER_GRACE, peer, nonce));
        nonce
    }
}

impl Router {
    pub(super) fn opened(&mut self, id: SessionId, peer: PeerId, seat: bool, now: Now) {
        let Some(&first) = self.by_peer.get(&peer) else {
            if seat {
                self.admit(id, peer, now);
            } else {
                self.outputs.push_back(Output::Close { session: id, reason: CloseReason::MaxConnections });
            }
            return;
        };
        if self.takeovers.pending.contains_key(&peer) {
            self.outputs.push_back(Output::Close { session: id, reason: CloseReason::IdInUse });
            return;
        }
        self.sessions.insert(id, Session::new(peer, State::Pending));
        let nonce = self.takeovers.ask(peer, id, now.at);
        self.outputs.push_back(Output::Ping { session: first, payload: nonce.to_be_bytes() });
        if self.config.events {
            self.outputs.push_back(Output::Event(Event::TakeoverAsked { peer }));
        }
    }

    fn admit(&mut self, id: SessionId, peer: PeerId, now: Now) {
        self.sessions.insert(id, Session::new(peer, State::Live));
        self.by_peer.insert(peer, id);
        let welcome = self.welcome();
        let frame = wire::connected(&mut self.arena, &peer, &welcome, now.wall_ms);
        self.send(id, Frame::Arena(frame), MessageKind::Connected);
        self.outputs.push_back(Output::Admit { session: id });
    }

    /// The session of `peer` has ended: one that waits for that goes on.
    pub(super) fn promote_pending(&mut self, peer: &PeerId, now: Now) {
        if let Some(takeover) = self.takeovers.pending.remove(peer) {
            self.sessions.remove(takeover.newcomer);
            self.admit(takeover.newcomer, *peer, now);
        }
    }

    pub(super) fn ponged(&mut self, id: SessionId, payload: &[u8], now: Now) {
        let Some(session) = self.sessions.get(id) else { return };
        let Some(takeover) = self.takeovers.pending.get(&session.peer).copied() else { return };
        if payload == takeover.nonce.to_be_bytes() && takeover.newcomer != id {
            self.stats.takeovers[1] += 1;
            self.close(takeover.newcomer, CloseReason::IdInUse, now);
        }
    }

    pub(super) fn expire_takeovers(&mut self, now: Now) {
        while let Some((_, peer, nonce)) = self.takeovers.deadlines.pop_front_if(|(at, ..)| *at <= now.at) {
            let asked = self.takeovers.pending.get(&peer).is_some_and(|takeover| takeover.nonce == nonce);
            if let (true, Some(&first)) = (asked, self.by_peer.get(&peer)) {
                self.stats.takeovers[0] += 1;
                self.close(first, CloseReason::Replaced, now);
            }
        }
    }
}
