//! Unfinished leaves, of which the members of the network have not been notified yet.
//!
//! When a session in a thousand networks ends, or leaves all of them, a thousand rosters change. The session leaves all
//! these networks immediately, receives no more events of them, and may join them again. The members are notified in
//! slices. Until the members are notified, [`Leaving`] stores the leave with the session's claim, so that a later
//! session of the peer is not confused with the session that leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::claim::Claim;
use crate::id::{PeerId, PeerIncarnation, SessionId};
use crate::reason::{CloseReason, LeaveReason};
use crate::time::Now;
use crate::wire::{self, MessageKind, Template};

use super::roster::NetworkIx;

/// Networks that sessions have left and whose members have not been notified.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// Sorted by session. The parts of one session are in the order in which it left the networks. Unfinished leaves
    /// and memberships of a session together are at most MAX_NETWORKS_PER_PEER plus one.
    parts: BTreeMap<(SessionId, u64), Part>,
    last: u64,
}

/// The networks that a session left at the same time, by one message or by its end.
#[derive(Debug)]
struct Part {
    leaver: Leaver,
    networks: Vec<NetworkIx>,
}

/// How a session leaves.
#[derive(Clone, Debug)]
pub(super) enum Parting {
    /// The session's connection has ended.
    Ended(CloseReason),
    /// The client sent `goodbye` with this data.
    Goodbye(Arc<str>),
}

impl Parting {
    /// The kind of [`Self::frame`].
    pub(super) const fn kind(&self) -> MessageKind {
        match self {
            Self::Ended(_) => MessageKind::PeerDisconnected,
            Self::Goodbye(_) => MessageKind::Goodbye,
        }
    }

    /// The message for the members of a network that a peer leaves. `session` is the incarnation of the peer's session.
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

    /// Adds networks that a session has left.
    pub(super) fn add(&mut self, id: SessionId, leaver: Leaver, networks: Vec<NetworkIx>) {
        if !networks.is_empty() {
            self.last += 1;
            self.parts.insert((id, self.last), Part { leaver, networks });
        }
    }

    /// Removes and returns the next network with its leaver. `id` and `ix` restrict the search to the leaves of one
    /// session or from one network.
    pub(super) fn take(&mut self, id: Option<SessionId>, ix: Option<NetworkIx>) -> Option<(NetworkIx, Leaver)> {
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
        let leaver = part.leaver.clone();
        if part.networks.is_empty() {
            self.parts.remove(&key);
        }
        Some((network, leaver))
    }

    /// Whether the leave of this peer with this claim from a network is still unfinished.
    pub(super) fn has(&self, peer: &PeerId, claim: Claim, ix: NetworkIx) -> bool {
        let is_it = |part: &Part| part.leaver.peer == *peer && part.leaver.claim == claim;
        self.parts.values().any(|part| is_it(part) && part.networks.contains(&ix))
    }

    #[cfg(test)]
    pub(super) fn networks(&self) -> usize {
        self.parts.values().map(|part| part.networks.len()).sum()
    }
}

/// A peer that leaves.
#[derive(Clone, Debug)]
pub(super) struct Leaver {
    /// The peer.
    pub(super) peer: PeerId,
    /// The claim of the session that leaves.
    pub(super) claim: Claim,
    /// How the session leaves.
    pub(super) how: Parting,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{HubId, NetworkName};
    use crate::keys::Keys;
    use crate::router::roster::Rosters;

    fn session(slot: u32) -> SessionId {
        SessionId { slot, generation: 0 }
    }

    fn leaver(n: u8) -> Leaver {
        let peer = PeerId::from_bytes([n; 20]);
        let claim = Claim { incarnation: PeerIncarnation(n.into()), hub: HubId(peer) };
        Leaver { peer, claim, how: Parting::Ended(CloseReason::ClientClosed) }
    }

    fn networks() -> [NetworkIx; 4] {
        let mut rosters = Rosters::new(Keys(1, 2));
        ["a", "b", "c", "d"].map(|name| rosters.find_or_create(&NetworkName::new(name)))
    }

    #[test]
    fn each_unfinished_leave_is_taken_once() {
        let [a, b, c, d] = networks();
        let mut leaving = Leaving::default();
        leaving.add(session(1), leaver(1), vec![a, b]);
        leaving.add(session(1), leaver(1), vec![c]);
        leaving.add(session(2), leaver(2), vec![a, d]);
        let at = |taken: Option<(NetworkIx, Leaver)>| taken.map(|(ix, leaver)| (ix, leaver.peer));
        let (one, two) = (leaver(1).peer, leaver(2).peer);
        assert_eq!(at(leaving.take(Some(session(1)), Some(d))), None, "another session has left this network");
        assert_eq!(at(leaving.take(Some(session(1)), Some(c))), Some((c, one)));
        assert_eq!(at(leaving.take(Some(session(2)), Some(a))), Some((a, two)));
        assert!(leaving.has(&one, leaver(1).claim, a) && !leaving.has(&two, leaver(2).claim, a));
        assert_eq!(at(leaving.take(Some(session(3)), None)), None);
        let rest: Vec<_> = std::iter::from_fn(|| at(leaving.take(None, None))).collect();
        assert_eq!(rest, [(b, one), (a, one), (d, two)]);
        assert!(leaving.is_empty() && leaving.networks() == 0);
    }

    #[test]
    fn a_session_that_left_no_network_is_not_stored() {
        let mut leaving = Leaving::default();
        leaving.add(session(1), leaver(1), Vec::new());
        assert!(leaving.is_empty());
    }
}
