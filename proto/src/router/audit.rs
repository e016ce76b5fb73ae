//! A look at the whole state, for simulators: whether its records agree with each other.

use std::collections::BTreeMap;

use crate::bug;
use crate::bugs::ensure;
use crate::id::{Address, SessionId};

use super::Router;
use super::circle::DECLINED;
use super::session::{Membership, Session, State};
use super::takeover::Newcomer;

impl Router {
    /// Compares all records of this shard with each other, and reports a contradiction as an impossible state. To be called between two
    /// inputs. Takes time in proportion to the state, so only tests call it.
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
        self.all_sessions().flat_map(|(id, session)| session.memberships.iter().map(move |m| (id, session, m)))
    }

    /// Each admitted session speaks for its peer, and each other one waits for a takeover.
    fn audit_sessions(&self) -> Result<(), String> {
        let mut admitted = 0;
        for (id, session) in self.all_sessions() {
            let peer = session.peer;
            if session.state == State::Pending {
                let newcomer = self.takeovers.newcomer(&peer);
                ensure(newcomer.is_some_and(|n| n == Newcomer::Here(id) || n == Newcomer::FromElsewhere(id)), || {
                    format!("waiting session {id:?} of {peer:?} has the takeover {newcomer:?}")
                })?;
                ensure(session.memberships.is_empty(), || format!("waiting session {id:?} is in a network"))?;
            } else {
                admitted += 1;
                let speaks = self.by_peer.get(&peer);
                ensure(speaks == Some(&id), || format!("{speaks:?} speaks for {peer:?} of session {id:?}"))?;
            }
        }
        ensure(admitted == self.by_peer.len(), || {
            format!("{} peers have {admitted} admitted sessions", self.by_peer.len())
        })
    }

    /// Each membership has its place in its network, and each place its membership.
    fn audit_memberships(&self) -> Result<(), String> {
        let mut places = BTreeMap::new();
        for (id, session, membership) in self.all_memberships() {
            let (ix, peer) = (membership.network, session.peer);
            let Some(network) = self.rosters.network(ix) else {
                return Err(format!("{peer:?} is in {ix:?}, which does not exist"));
            };
            let (locals, bounded) = places.entry(ix).or_insert((0, 0));
            if membership.stay.closest > 0 {
                *bounded += 1;
                ensure(membership.circle.is_some(), || format!("{peer:?} has no circle in {ix:?}"))?;
            } else {
                *locals += 1;
                let place = network.locals.get(membership.local as usize);
                ensure(place == Some(&id), || format!("place {} of {ix:?} has {place:?}", membership.local))?;
            }
            // Of two claims to an id the greater holds, and that may be another hub's.
            let Some(member) = network.members.get(&peer) else {
                return Err(format!("{peer:?} is in {ix:?}, and not in its roster"));
            };
            ensure(member.announcement.claim >= session.claim, || {
                format!("roster of {ix:?} has {peer:?} by an earlier claim than its session's")
            })?;
        }
        for (ix, network) in self.rosters.all() {
            let (locals, bounded) = places.get(&ix).copied().unwrap_or_default();
            let (has, has_bounded) = (network.locals.len(), network.bounded_locals);
            ensure((has, has_bounded) == (locals, bounded), || {
                format!("{ix:?} lists {has} and {has_bounded} sessions, and has {locals} and {bounded}")
            })?;
        }
        Ok(())
    }

    /// Each entry of a roster that belongs to this shard is of a session that is in the network.
    fn audit_rosters(&self) -> Result<(), String> {
        self.rosters.audit()?;
        let here = Address::Shard(self.config.shard);
        for (ix, network) in self.rosters.all() {
            for (peer, member) in network.members.iter().filter(|(_, member)| member.place == here) {
                let session = self.by_peer.get(peer).and_then(|&id| self.sessions.get(id));
                let claim = session.filter(|session| session.is_member(ix)).map(|session| session.claim);
                let known = member.announcement.claim;
                ensure(claim == Some(known) || self.leaving.has(peer, known, ix), || {
                    format!("roster entry of {peer:?} in {ix:?} remains: its peer is not there")
                })?;
            }
        }
        for ((ix, peer), hidden) in &self.hidden {
            let held = self.rosters.network(*ix).and_then(|network| network.members.get(peer));
            ensure(held.is_some_and(|held| held.announcement.claim > hidden.claim), || {
                format!("{peer:?} of {ix:?} is hidden by no greater claim")
            })?;
        }
        Ok(())
    }

    /// A peer that knows a member is known to know it.
    fn audit_knowers(&self) -> Result<(), String> {
        let mut known = 0;
        for (id, session, membership) in self.all_memberships() {
            let Some(circle) = membership.circle.as_deref() else { continue };
            let (ix, peer) = (membership.network, session.peer);
            ensure(circle.known.is_sorted_by_key(|other| other.peer), || {
                format!("circle of {peer:?} in {ix:?}: order")
            })?;
            let told = circle.known.iter().filter(|other| other.marks & DECLINED == 0).count();
            ensure(told == circle.told as usize, || format!("circle of {peer:?} in {ix:?}: count"))?;
            known += u64::from(circle.told);
            for other in &circle.known {
                let member = self.rosters.network(ix).and_then(|network| network.members.get(&other.peer));
                let knowers = member.and_then(|member| member.knowers.as_deref());
                ensure(knowers.is_some_and(|knowers| knowers.contains(&id)), || {
                    format!("{peer:?} knows {:?} in {ix:?}, which does not know that", other.peer)
                })?;
            }
        }
        ensure(known == self.meetings.known(), || format!("{} pairs are counted, {known} are", self.meetings.known()))?;
        for (ix, network) in self.rosters.all() {
            for (peer, member) in &network.members {
                for &id in member.knowers.iter().flat_map(|knowers| knowers.iter()) {
                    let membership = self.sessions.get(id).and_then(|session| session.membership_in(ix));
                    let circle = membership.and_then(|membership| membership.circle.as_deref());
                    ensure(circle.is_some_and(|circle| circle.find(peer).is_ok()), || {
                        format!("{id:?} is to know {peer:?} in {ix:?}, and does not")
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Counters equal the state they count.
    fn audit_counts(&self) -> Result<(), String> {
        let announced: u64 = self.all_memberships().map(|(.., m)| u64::from(m.announced_bytes)).sum();
        let counted = self.stats.announced_bytes;
        ensure(announced == counted, || format!("{counted} announced bytes are counted, and {announced} are kept"))?;
        for (id, session) in self.all_sessions() {
            let open = self.tickets.open_of(id);
            let counted = session.open_receipts as usize;
            ensure(open == counted, || format!("{id:?} has {open} open receipts, and counts {counted}"))?;
        }
        Ok(())
    }
}
