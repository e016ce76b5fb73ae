//! Leaves of many networks, a slice in each turn.
//!
//! A session in a thousand networks that ends, or says goodbye to all of them, concerns as many rosters. It has left
//! them all at once: it is told nothing more of them, and may join each again. The members are told in slices. The
//! remaining networks are kept here, with the session's claim, so that a later session of the peer is not confused with
//! the one that left.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use crate::id::{Claim, PeerId, PeerIncarnation, SessionId};
use crate::reason::{CloseReason, LeaveReason};
use crate::time::Now;
use crate::wire::{self, MessageKind, Template};

use super::Router;
use super::letter::Output;
use super::roster::NetworkIx;
use super::session::Membership;

/// Networks that sessions have left and whose members have not been told.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// By session, and by the order in which it left. A session has no more networks here and in its memberships together than it may be in.
    parts: BTreeMap<(SessionId, u64), Part>,
    last: u64,
}

/// The networks that a session leaves with one message, or with its end.
#[derive(Debug)]
pub(super) struct Part {
    peer: PeerId,
    claim: Claim,
    networks: Vec<NetworkIx>,
    how: Parting,
}

/// The way a session leaves.
#[derive(Clone, Debug)]
pub(super) enum Parting {
    /// Its connection has ended.
    Ended(CloseReason),
    /// It said goodbye, with this data.
    Goodbye(Arc<str>),
}

impl Parting {
    pub(super) const fn kind(&self) -> MessageKind {
        match self {
            Self::Ended(_) => MessageKind::PeerDisconnected,
            Self::Goodbye(_) => MessageKind::Goodbye,
        }
    }

    pub(super) fn frame(&self, peer: &PeerId, session: PeerIncarnation, network: &str, now: Now) -> Template {
        match self {
            Self::Ended(reason) => {
                wire::peer_disconnected(peer, session, LeaveReason::Closed(*reason), network, now.wall_ms)
            }
            Self::Goodbye(data) => wire::goodbye(peer, data, network, now.wall_ms),
        }
    }
}

impl Leaving {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    fn add(&mut self, id: SessionId, part: Part) {
        self.last += 1;
        self.parts.insert((id, self.last), part);
    }

    /// Takes out the next network, of this session if one is named, and this network if one is named.
    fn take(&mut self, id: Option<SessionId>, ix: Option<NetworkIx>) -> Option<(NetworkIx, Leaver)> {
        let from = id.map_or((SessionId { slot: 0, generation: 0 }, 0), |id| (id, 0));
        let parts = self.parts.range_mut(from..).take_while(|((of, _), _)| id.is_none_or(|id| id == *of));
        let (key, at) = parts
            .filter_map(|(key, part)| {
                let last = part.networks.len().checked_sub(1)?;
                let at = ix.map_or(Some(last), |ix| part.networks.iter().position(|left| *left == ix))?;
                Some((*key, at))
            })
            .next()?;
        let part = self.parts.get_mut(&key)?;
        let network = part.networks.swap_remove(at);
        let leaver = Leaver { peer: part.peer, claim: part.claim, how: part.how.clone() };
        if part.networks.is_empty() {
            self.parts.remove(&key);
        }
        Some((network, leaver))
    }

    /// Whether this peer's leave of a network, by this claim, is still to be told.
    pub(super) fn has(&self, peer: &PeerId, claim: Claim, ix: NetworkIx) -> bool {
        self.parts.values().any(|p| p.peer == *peer && p.claim == claim && p.networks.contains(&ix))
    }

    #[cfg(test)]
    pub(super) fn networks(&self) -> usize {
        self.parts.values().map(|part| part.networks.len()).sum()
    }
}

/// The peer that leaves, and its way of leaving.
#[derive(Clone, Debug)]
pub(super) struct Leaver {
    pub(super) peer: PeerId,
    pub(super) claim: Claim,
    pub(super) how: Parting,
}

impl Router {
    /// Has a session leave networks: the members of as many as fit into this turn are told in it.
    pub(super) fn leave_all(&mut self, id: SessionId, leaver: Leaver, memberships: Vec<Membership>, now: Now) {
        for membership in &memberships {
            self.detach(id, leaver.peer, membership);
        }
        let mut networks = memberships.iter().map(|membership| membership.network);
        while !self.is_turn_over()
            && let Some(ix) = networks.next()
        {
            self.leave(&leaver, ix, now);
        }
        let networks: Vec<_> = networks.collect();
        if !networks.is_empty() {
            let Leaver { peer, claim, how } = leaver;
            self.leaving.add(id, Part { peer, claim, networks, how });
            self.ask_to_continue();
        }
    }

    /// Finishes what a session has begun to leave: one network, this one or any.
    pub(super) fn finish_leaving(&mut self, id: SessionId, ix: Option<NetworkIx>, now: Now) {
        if let Some((ix, leaver)) = self.leaving.take(Some(id), ix) {
            self.leave(&leaver, ix, now);
        }
    }

    /// Does the next slice.
    pub(super) fn continue_work(&mut self, now: Now) {
        self.unfinished = false;
        while !self.is_turn_over() {
            let Some((ix, leaver)) = self.leaving.take(None, None) else { return };
            self.leave(&leaver, ix, now);
        }
        self.ask_to_continue();
    }

    /// Whether a member on this shard, whose peer has this session if any, may be one that has left and is not struck off yet.
    pub(super) fn is_leaving(&self, id: Option<SessionId>, ix: NetworkIx) -> bool {
        let is_member = || id.and_then(|id| self.sessions.get(id)).is_some_and(|session| session.is_member(ix));
        !self.leaving.is_empty() && !is_member()
    }

    fn ask_to_continue(&mut self) {
        if !self.leaving.is_empty() && !mem::replace(&mut self.unfinished, true) {
            self.outputs.push_back(Output::Unfinished);
        }
    }

    /// Whether this turn has put out as much as a turn should.
    pub(super) fn is_turn_over(&self) -> bool {
        self.outputs.len() >= self.config.tuning.turn_outputs
    }
}
