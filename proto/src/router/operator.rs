//! Executes operators' orders, which remove a peer or close a network.

use std::time::Duration;

use crate::id::{NetworkName, PeerId, SessionId};
use crate::limits::SLOTS_PER_SLICE;
use crate::reason::{CloseReason, ErrorCode};
use crate::time::Now;
use crate::wire::ErrorReport;
use crate::{bug, sentences};

use super::Router;
use super::exclusions::Excluded;
use super::leaving::{Leaver, Parting};
use super::letter::Output;
use super::order::{Acted, KickedFrom, Order};
use super::roster::NetworkIx;

/// `data` of the `goodbye` that the hub sends for a peer that it has removed from a network.
const KICKED: &str = r#"{"reason":"kicked"}"#;

/// A network that is being closed, session by session.
#[derive(Debug)]
pub(super) struct Closing {
    network: NetworkName,
    /// Number of the last stay that began before the order to close the network. Later stays do not end.
    last_stay: u64,
    next_slot: u32,
    members: usize,
    excluded: bool,
}

impl Router {
    pub(super) fn ordered(&mut self, order: Order, now: Now) {
        match order {
            Order::Kick { peer, network, out_for } => self.kick(peer, network.as_ref(), out_for, now),
            Order::CloseNetwork { network, out_for } => self.close_network(network, out_for, now),
        }
    }

    /// Removes a peer from one network, or from the hub. If the order says so, also excludes the peer.
    fn kick(&mut self, peer: PeerId, network: Option<&NetworkName>, out_for: Option<Duration>, now: Now) {
        let what = network.map_or(Excluded::Peer(peer), |network| Excluded::Member(peer, network.clone()));
        let excluded = self.exclude(what, out_for, now);
        let from = match (self.session_of(&peer), network) {
            (None, _) => match self.home.claim_elsewhere(&peer) {
                Some(claim) => KickedFrom::Elsewhere(claim.hub),
                None => KickedFrom::Nowhere,
            },
            (Some(id), None) => {
                self.close(id, CloseReason::Kicked, now);
                KickedFrom::Hub
            }
            (Some(id), Some(name)) => {
                let ix = self.rosters.find(name.as_str());
                let ix = ix.filter(|ix| self.sessions.membership(id, *ix).is_some());
                match ix.and_then(|ix| self.detach_removed(id, ix, KICKED)) {
                    Some((leaver, networks)) => {
                        self.leave_detached(id, leaver, networks, now);
                        self.notify_kicked(id, name, now);
                        KickedFrom::Network
                    }
                    None => KickedFrom::NotAMember,
                }
            }
        };
        self.outputs.push_back(Output::Acted(Acted::Kicked { from, excluded }));
    }

    /// Ends the memberships of this shard's sessions in a network. If the order says so, also excludes all peers from
    /// the network.
    fn close_network(&mut self, network: NetworkName, out_for: Option<Duration>, now: Now) {
        // The caller should wait until the previous order has been answered. If the caller has not waited, the previous
        // order is completed first.
        while self.closing.is_some() {
            self.close_more(usize::MAX, now);
        }
        let excluded = self.exclude(Excluded::Network(network.clone()), out_for, now);
        let last_stay = self.last_stay;
        self.closing = Some(Closing { network, last_stay, next_slot: 0, members: 0, excluded });
        self.work(now);
        self.ask_to_continue();
    }

    /// Removes further sessions from the network that is being closed, as many as one turn allows.
    pub(super) fn continue_closing(&mut self, now: Now) {
        if self.closing.is_some() {
            self.close_more(SLOTS_PER_SLICE, now);
        }
    }

    fn close_more(&mut self, most: usize, now: Now) {
        let Some(mut closing) = self.closing.take() else { return };
        let mut looked_at = 0;
        while closing.next_slot < self.sessions.slots() {
            if looked_at >= most || self.is_turn_over() && most != usize::MAX {
                self.closing = Some(closing);
                return;
            }
            let slot = closing.next_slot;
            (closing.next_slot, looked_at) = (slot + 1, looked_at + 1);
            let Some(ix) = self.rosters.find(closing.network.as_str()) else { break };
            let is_older = |id: &SessionId| {
                self.sessions.membership(*id, ix).is_some_and(|m| m.stay().number <= closing.last_stay)
            };
            let Some(id) = self.sessions.at(slot).map(|(id, _)| id).filter(is_older) else { continue };
            if let Some((leaver, networks)) = self.detach_removed(id, ix, KICKED) {
                // Members are notified after all sessions of this shard have been removed, so these sessions do not
                // receive each other's leave.
                self.leaving.add(id, leaver, networks);
                let network = closing.network.clone();
                self.notify_kicked(id, &network, now);
                closing.members += 1;
            }
        }
        let Closing { members, excluded, .. } = closing;
        self.outputs.push_back(Output::Acted(Acted::Closed { members, excluded }));
    }

    /// Executes a requested exclusion. Returns false if there are too many exclusions. If `out_for` is `None`, an
    /// earlier exclusion stays.
    fn exclude(&mut self, what: Excluded, out_for: Option<Duration>, now: Now) -> bool {
        out_for.is_none_or(|out_for| self.exclusions.set(what, out_for, now.at))
    }

    /// Makes a session leave a network, so that it receives no more events of that network. The members receive a
    /// `goodbye` with this `data`. Returns the networks whose members must be notified. The list is empty if the
    /// session was an observer.
    pub(super) fn detach_removed(
        &mut self,
        id: SessionId,
        ix: NetworkIx,
        data: &str,
    ) -> Option<(Leaver, Vec<NetworkIx>)> {
        let session = self.sessions.get_mut(id)?;
        let left = session.leave(|network| network == ix);
        let (peer, claim) = (session.peer(), session.claim());
        let Some(membership) = left.first() else {
            bug!(self.bugs, LeaveNetwork, "{peer:?} is removed from {ix:?}");
            return None;
        };
        self.detach(id, peer, membership);
        let networks = if membership.observes() { Vec::new() } else { vec![ix] };
        Some((Leaver { peer, claim, how: Parting::Goodbye(data.into()) }, networks))
    }

    /// Notifies a session that it was removed from a network.
    fn notify_kicked(&mut self, id: SessionId, network: &NetworkName, now: Now) {
        let report = ErrorReport {
            code: ErrorCode::Kicked,
            message: sentences::KICKED,
            in_reply_to: None,
            target: None,
            id: None,
            retry_in: None,
            network: network.as_str(),
        };
        self.send_error(id, &report, now);
    }
}
