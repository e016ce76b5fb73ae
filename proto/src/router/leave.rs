//! Peers that leave networks, by `goodbye` or because their session ends.

use std::mem;
use std::sync::Arc;

use crate::budget::BudgetItem;
use crate::bug;
use crate::codec::{self, Goodbye};
use crate::id::{NetworkName, PeerId, SessionId};
use crate::limits::MEMBER_BYTES;
use crate::lower;
use crate::time::Now;
use crate::wire::MessageKind;

use super::Router;
use super::leaving::{Leaver, Parting};
use super::letter::{Leave, Output, ToMesh, ToShard};
use super::network::WrongLocal;
use super::roster::NetworkIx;
use super::session::Membership;

impl Router {
    /// Processes `goodbye`.
    pub(super) fn goodbye(&mut self, id: SessionId, goodbye: &Goodbye<'_>, now: Now) {
        if let Err(unfit) = codec::check_public(goodbye.data) {
            let network = goodbye.network.as_deref().unwrap_or(NetworkName::GLOBAL);
            return self.refuse_data(id, unfit, MessageKind::Goodbye, network, now);
        }
        let only = goodbye.network.as_deref().map(|name| self.rosters.find(name));
        let Some(session) = self.sessions.get_mut(id) else {
            return bug!(self.bugs, MessageSession, "goodbye of {id:?}");
        };
        let left = session.leave(|network| only.is_none_or(|only| only == Some(network)));
        let members = left.iter().filter_map(|membership| self.rosters.network(membership.network()));
        let bytes =
            (goodbye.data.len() + MEMBER_BYTES) as u64 * members.map(|network| network.len() as u64).sum::<u64>();
        session.usage_mut().spend(BudgetItem::Events, bytes, &self.config.budget, now.at);
        let (peer, claim) = (session.peer(), session.claim());
        let leaver = Leaver { peer, claim, how: Parting::Goodbye(goodbye.data.into()) };
        self.leave_all(id, leaver, left, now);
    }

    /// Makes a session leave networks. Notifies the members of as many of the networks as this turn allows.
    pub(super) fn leave_all(&mut self, id: SessionId, leaver: Leaver, memberships: Vec<Membership>, now: Now) {
        for membership in &memberships {
            self.detach(id, leaver.peer, membership);
        }
        // Members do not know of observers, so the leave of an observer needs no event.
        let known = memberships.iter().filter(|membership| !membership.observes());
        self.leave_detached(id, leaver, known.map(Membership::network).collect(), now);
    }

    /// Notifies the members of the networks from which a session was [detached](Self::detach). The members of further
    /// networks are notified in later turns.
    pub(super) fn leave_detached(&mut self, id: SessionId, leaver: Leaver, networks: Vec<NetworkIx>, now: Now) {
        let mut networks = networks.into_iter();
        while !self.is_turn_over()
            && let Some(ix) = networks.next()
        {
            self.leave(&leaver, ix, now);
        }
        self.leaving.add(id, leaver, networks.collect());
        self.ask_to_continue();
    }

    /// Removes a session from a network, so that the session receives no more events of that network. The members are
    /// notified by [`Self::leave`].
    pub(super) fn detach(&mut self, id: SessionId, peer: PeerId, membership: &Membership) {
        let ix = membership.network();
        lower!(self.bugs, self.stats.announced_bytes, u64::from(membership.announced_bytes()));
        if let Some(circle) = membership.circle() {
            self.dissolve(id, ix, circle);
        }
        let Some(network) = self.rosters.network_mut(ix) else {
            return bug!(self.bugs, LeaveNetwork, "{peer:?} leaves {ix:?}");
        };
        let local = membership.local();
        let removed = match local.filter(|_| membership.observes()) {
            Some(at) => network.remove_observer(id, at),
            None => network.remove_local(id, local, &mut self.bugs),
        };
        match removed {
            Ok(None) => {}
            Ok(Some(moved)) => match self.sessions.membership_mut(moved, ix).zip(local) {
                Some((membership, local)) => membership.set_local(local),
                None => bug!(self.bugs, LeaveLocal, "{moved:?} is listed in {ix:?}, but has no membership there"),
            },
            Err(WrongLocal) => bug!(self.bugs, LeaveLocal, "{id:?} of {peer:?} is not at index {local:?} of {ix:?}"),
        }
        if membership.observes() {
            self.rosters.tidy(ix, &mut self.bugs);
        }
    }

    /// Removes a peer from the roster of a network that its session has left, on all shards.
    fn leave(&mut self, leaver: &Leaver, ix: NetworkIx, now: Now) {
        let Leaver { peer, claim, ref how } = *leaver;
        let Some(network) = self.rosters.network_mut(ix) else {
            return bug!(self.bugs, LeaveNetwork, "{peer:?} has left {ix:?}");
        };
        network.notified_of_leave(&mut self.bugs);
        let name = network.name().clone();
        let (frame, kind) = (Arc::new(how.frame(&peer, claim.incarnation, name.as_str(), now)), how.kind());
        let leave = Arc::new(Leave { peer, network: name, claim, frame, kind });
        // Other shards must receive the leave before the letters that introduce replacements for the leaver.
        self.post_to_shards(&ToShard::Left(Arc::clone(&leave)));
        if kind == MessageKind::Goodbye {
            // At the end of a session, the mesh receives one letter for the session instead of one letter for each
            // network.
            self.post_to_mesh(|| ToMesh::Left(Arc::clone(&leave)));
        }
        if let Some(network) = self.rosters.network_mut(ix) {
            let bytes = (network.len() * leave.frame.frame_len()) as u64;
            network.usage_mut().spend(BudgetItem::Events, bytes, &self.config.network_budget, now.at);
        }
        self.member_left_in(ix, &leave, now);
    }

    /// Finishes one unfinished leave of a session. `ix` selects the leave from one network.
    pub(super) fn finish_leaving(&mut self, id: SessionId, ix: Option<NetworkIx>, now: Now) {
        if let Some((ix, leaver)) = self.leaving.take(Some(id), ix) {
            self.leave(&leaver, ix, now);
        }
    }

    /// Does the next slice of long work.
    pub(super) fn continue_work(&mut self, now: Now) {
        self.unfinished = false;
        self.work(now);
        self.ask_to_continue();
    }

    /// Continues to close a network, and then to notify members of leaves, until the turn is over.
    pub(super) fn work(&mut self, now: Now) {
        self.continue_closing(now);
        while self.closing.is_none()
            && !self.is_turn_over()
            && let Some((ix, leaver)) = self.leaving.take(None, None)
        {
            self.leave(&leaver, ix, now);
        }
    }

    /// Whether a roster entry of this shard may belong to a peer that has left and of whose leave the members have not
    /// been notified yet. `id` is the peer's current session, if it has one.
    pub(super) fn is_leaving(&self, id: Option<SessionId>, ix: NetworkIx) -> bool {
        !self.leaving.is_empty() && id.is_none_or(|id| self.sessions.membership(id, ix).is_none())
    }

    pub(super) fn ask_to_continue(&mut self) {
        let is_left = self.closing.is_some() || !self.leaving.is_empty();
        if is_left && !mem::replace(&mut self.unfinished, true) {
            self.outputs.push_back(Output::Unfinished);
        }
    }

    /// Whether this turn has reached its maximum number of outputs.
    pub(super) fn is_turn_over(&self) -> bool {
        self.outputs.len() >= self.config.tuning.turn_outputs
    }
}
