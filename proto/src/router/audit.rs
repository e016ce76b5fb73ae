//! Checks that all records of the router's state agree with each other. Only tests and simulators call them.

use std::collections::BTreeMap;

use crate::bug;
use crate::bugs::ensure;
use crate::claim::{Claim, Precedence};
use crate::id::{NetworkName, PeerId, SessionId};
use crate::phase::SessionPhase;
use crate::route::Address;

use super::Router;
use super::session::{Membership, Session};
use super::takeovers::Parties;

impl Router {
    /// Compares all records of this shard with each other, and reports a contradiction as an impossible state. Call
    /// this function between two inputs. The comparison takes time in proportion to the state, so only tests and
    /// simulators call this function.
    ///
    /// # Panics
    ///
    /// With debug assertions, if there is a contradiction.
    pub fn audit(&mut self) {
        let checks = [
            Self::audit_sessions,
            Self::audit_memberships,
            Self::audit_rosters,
            Self::audit_knowers,
            Self::audit_counts,
        ];
        if let Some(Err(what)) = checks.into_iter().map(|check| check(self)).find(Result::is_err) {
            bug!(self.bugs, Audit, "{what}");
        }
    }

    fn all_sessions(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        (0..self.sessions.slots()).filter_map(|slot| self.sessions.at(slot))
    }

    fn all_memberships(&self) -> impl Iterator<Item = (SessionId, &Session, &Membership)> {
        self.all_sessions().flat_map(|(id, session)| session.memberships().iter().map(move |m| (id, session, m)))
    }

    /// The claim under which a peer is a member of a network, as far as this shard knows. For simulators.
    pub fn claim_in(&self, network: &NetworkName, peer: &PeerId) -> Option<Claim> {
        let ix = self.rosters.find(network.as_str())?;
        self.rosters.member(ix, peer).map(|member| member.announcement().claim)
    }

    /// The claim of another hub to a peer whose home is this shard. For simulators.
    pub fn claim_elsewhere(&self, peer: &PeerId) -> Option<Claim> {
        self.home.claim_elsewhere(peer)
    }

    /// Checks that each admitted session is the current session of its peer, and that each other session waits for a
    /// takeover.
    fn audit_sessions(&self) -> Result<(), String> {
        self.takeovers.audit()?;
        let mut admitted = 0;
        for (id, session) in self.all_sessions() {
            let peer = session.peer();
            if session.phase() == SessionPhase::Pending {
                let parties = self.takeovers.parties(&peer);
                ensure(
                    parties.is_some_and(|p| p == Parties::BothHere(id) || p == Parties::HolderElsewhere(id)),
                    || format!("waiting session {id:?} of {peer:?} has the takeover {parties:?}"),
                )?;
                ensure(session.memberships().is_empty(), || format!("waiting session {id:?} is in a network"))?;
            } else {
                admitted += 1;
                let speaks = self.by_peer.get(&peer);
                ensure(speaks == Some(&id), || {
                    format!("session {id:?} of {peer:?} is admitted, but the current session is {speaks:?}")
                })?;
            }
        }
        ensure(admitted == self.by_peer.len(), || {
            format!("{} peers have {admitted} admitted sessions", self.by_peer.len())
        })
    }

    /// Checks that each membership is in a list of its network, and that each entry of these lists is a membership.
    fn audit_memberships(&self) -> Result<(), String> {
        let mut lists = BTreeMap::new();
        for (id, session, membership) in self.all_memberships() {
            let (ix, peer) = (membership.network(), session.peer());
            let Some(network) = self.rosters.network(ix) else {
                return Err(format!("{peer:?} is in {ix:?}, which does not exist"));
            };
            let (locals, bounded, observers) = lists.entry(ix).or_insert((0, 0, 0));
            let local = membership.local();
            if membership.observes() {
                *observers += 1;
                let listed = local.and_then(|local| network.observers().get(local as usize));
                ensure(listed == Some(&id), || format!("observer {local:?} of {ix:?} is {listed:?}"))?;
                continue;
            }
            ensure(membership.is_bounded() == local.is_none(), || format!("{peer:?} has index {local:?} in {ix:?}"))?;
            if let Some(local) = local {
                *locals += 1;
                let listed = network.locals().get(local as usize);
                ensure(listed == Some(&id), || format!("index {local} of {ix:?} has {listed:?}"))?;
            } else {
                *bounded += 1;
                ensure(membership.circle().is_some(), || format!("{peer:?} has no circle in {ix:?}"))?;
            }
            // The claim in the roster may be greater than the session's claim, if the peer is also connected to another
            // hub.
            let Some(member) = network.member(&peer) else {
                return Err(format!("{peer:?} has a membership in {ix:?}, but is not in the roster"));
            };
            ensure(session.claim().against(member.announcement().claim) != Precedence::Wins, || {
                format!("in the roster of {ix:?}, {peer:?} has a smaller claim than its session")
            })?;
        }
        for (ix, network) in self.rosters.all() {
            let are: (usize, usize, usize) = lists.get(&ix).copied().unwrap_or_default();
            let listed = (network.locals().len(), network.bounded_locals(), network.observers().len());
            ensure(listed == are, || format!("{ix:?} lists {listed:?} sessions, but {are:?} have a membership"))?;
        }
        Ok(())
    }

    /// Checks that each roster entry of this shard has a session that is in the network.
    fn audit_rosters(&self) -> Result<(), String> {
        self.rosters.audit()?;
        let here = Address::Shard(self.config.shard);
        for (ix, network) in self.rosters.all() {
            for (peer, member) in network.members().filter(|(_, member)| member.address() == here) {
                let session = self.by_peer.get(peer).and_then(|&id| self.sessions.get(id));
                let claim = session.filter(|session| session.is_member(ix)).map(Session::claim);
                let known = member.announcement().claim;
                ensure(claim == Some(known) || self.leaving.has(peer, known, ix), || {
                    format!(
                        "roster entry of {peer:?} in {ix:?} remains, although the peer has no session in the network"
                    )
                })?;
            }
        }
        Ok(())
    }

    /// Checks that each member lists exactly the sessions whose circle has the member.
    fn audit_knowers(&self) -> Result<(), String> {
        let mut known = 0;
        for (id, session, membership) in self.all_memberships() {
            let Some(circle) = membership.circle() else { continue };
            let (ix, peer) = (membership.network(), session.peer());
            circle.audit().map_err(|what| format!("circle of {peer:?} in {ix:?}: {what}"))?;
            known += u64::from(circle.announced());
            for other in circle.all() {
                let member = self.rosters.member(ix, &other);
                ensure(member.is_some_and(|member| member.knowers().contains(&id)), || {
                    format!("{peer:?} knows {other:?} in {ix:?}, but is not in the member's list of knowers")
                })?;
            }
        }
        ensure(known == self.meetings.known(), || {
            format!("{} acquaintances are counted, but {known} exist", self.meetings.known())
        })?;
        for (ix, network) in self.rosters.all() {
            for (peer, member) in network.members() {
                for &id in member.knowers() {
                    let circle = self.sessions.membership(id, ix).and_then(Membership::circle);
                    ensure(circle.is_some_and(|circle| circle.contains(peer)), || {
                        format!("{id:?} is listed as knowing {peer:?} in {ix:?}, but does not know that peer")
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Checks that counters equal the state that they count.
    fn audit_counts(&self) -> Result<(), String> {
        let announced: u64 = self.all_memberships().map(|(.., m)| u64::from(m.announced_bytes())).sum();
        let counted = self.stats.announced_bytes;
        ensure(announced == counted, || {
            format!("{counted} announced bytes are counted, but the memberships have {announced}")
        })?;
        for (id, session) in self.all_sessions() {
            let open = self.tickets.open_of(id);
            let counted = session.open_receipts();
            ensure(open == counted, || format!("{id:?} has {open} open receipts, and counts {counted}"))?;
        }
        Ok(())
    }
}
