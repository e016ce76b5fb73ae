//! Takeovers: two connections with one id, anywhere in the mesh. The hub of the first checks whether it is still alive.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::time::Duration;

use crate::bug;
use crate::id::{Claim, Keys, PeerId, PeerIncarnation, SessionId};
use crate::limits::{
    GREATEST_TIME_FOLLOWED, MAX_TAKEOVERS_ASKED, TAKEOVER_GRACE, TAKEOVER_LIMIT, TAKEOVER_MARGIN, TURN_OUTPUTS,
};
use crate::reason::CloseReason;
use crate::resume::{Lineage, ResumeOutcome, Right};
use crate::secret::is_secret;
use crate::time::Now;
use crate::wire::{self, MessageKind};

use super::Router;
use super::letter::{Asker, Event, Frame, Output, ToMesh};
use super::session::{Session, State};

#[derive(Debug)]
pub(super) struct Takeovers {
    keys: Keys,
    asked: u64,
    pending: HashMap<PeerId, Takeover, Keys>,
    /// Entries of ended takeovers stay until their time: at most as many as connections can be opened, and challenges
    /// arrive, within the grace.
    pub(super) deadlines: BTreeSet<(Duration, PeerId, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Takeover {
    newcomer: Newcomer,
    /// The lineage that the new session's resume secret proves.
    resume: Option<Lineage>,
    /// Identifies the question; the ping's payload is derived from it.
    ticket: u64,
    /// Time at which the first session counts as dead without an answer. It is postponed while its socket accepts bytes
    /// queued before the ping.
    until: Duration,
    /// Time at which the takeover is decided at the latest.
    limit: Duration,
}

/// The session that wants the id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Newcomer {
    /// A session here, while the other one is here, too.
    Here(SessionId),
    /// A session here, while the other one is at another hub.
    FromElsewhere(SessionId),
    /// A session at another hub.
    Elsewhere(Asker),
}

impl Takeovers {
    pub(super) fn new(keys: Keys) -> Self {
        Self { keys, asked: 0, pending: HashMap::with_hasher(keys), deadlines: BTreeSet::new() }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.deadlines.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, ..)| *at)
    }

    /// The session that waits for the id of this peer.
    pub(super) fn newcomer(&self, peer: &PeerId) -> Option<Newcomer> {
        self.pending.get(peer).map(|takeover| takeover.newcomer)
    }

    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.pending.remove(peer);
    }

    fn ask(&mut self, peer: PeerId, newcomer: Newcomer, resume: Option<Lineage>, now: Duration) -> u64 {
        self.asked += 1;
        let ticket = self.asked;
        let (patience, limit) = match newcomer {
            Newcomer::FromElsewhere(_) => (TAKEOVER_GRACE + TAKEOVER_MARGIN, TAKEOVER_GRACE + TAKEOVER_MARGIN),
            Newcomer::Here(_) => (TAKEOVER_GRACE, TAKEOVER_LIMIT),
            // The asking hub waits no longer than its margin.
            Newcomer::Elsewhere(_) => (TAKEOVER_GRACE, TAKEOVER_GRACE + TAKEOVER_MARGIN / 2),
        };
        let (until, limit) = (now + patience, now + limit);
        self.pending.insert(peer, Takeover { newcomer, resume, ticket, until, limit });
        self.deadlines.insert((until, peer, ticket));
        ticket
    }

    /// Keyed, so that a client cannot send a valid pong without the ping.
    fn nonce(&self, peer: &PeerId, ticket: u64) -> [u8; 8] {
        self.keys.hash_one((peer, ticket)).to_be_bytes()
    }
}

impl Router {
    /// A connection wants the id of `peer`. `resume` is what its resume secret proves.
    pub(super) fn opened(&mut self, id: SessionId, peer: PeerId, seat: bool, resume: Option<Lineage>, now: Now) {
        if let Some(Lineage { session, .. }) = resume {
            // The next session of the lineage must be later, whatever the clock of the hub that issued the secret.
            self.incarnation = self.incarnation.max(session.min(PeerIncarnation(GREATEST_TIME_FOLLOWED)));
        }
        let here = self.by_peer.get(&peer).copied();
        let right = here.zip(resume).map(|(first, resume)| self.weigh(first, resume, now));
        if right != Some(Right::AtOnce) && !self.goes_first(&peer, resume) {
            self.outputs.push_back(Output::Close { session: id, reason: CloseReason::IdInUse });
            return;
        }
        if here.is_none() && !seat {
            self.outputs.push_back(Output::Close { session: id, reason: CloseReason::MaxConnections });
            return;
        }
        if let Some(waits) = self.takeovers.pending.get(&peer).copied() {
            self.turn_away(peer, waits.newcomer, now);
        }
        match (here, right) {
            (Some(first), right) => {
                self.wait(id, peer);
                let ticket = self.takeovers.ask(peer, Newcomer::Here(id), resume, now.at);
                if right == Some(Right::AtOnce) {
                    self.close(first, CloseReason::Replaced, now);
                } else {
                    self.challenge(first, peer, ticket);
                }
            }
            (None, _) if self.elsewhere.contains_key(&peer) => {
                self.wait(id, peer);
                self.ask_elsewhere(id, peer, resume, now);
            }
            (None, _) => {
                if resume.is_some() {
                    self.count_resume(ResumeOutcome::Continued);
                }
                self.admit(id, peer, resume, now);
            }
        }
    }

    /// Whether no other session waits for the id, or one with a weaker secret.
    fn goes_first(&self, peer: &PeerId, resume: Option<Lineage>) -> bool {
        let waits = self.takeovers.pending.get(peer);
        waits.is_none_or(|waits| resume.is_some_and(|resume| resume.outranks(waits.resume)))
    }

    /// Judges and counts the right that a secret gives to the id of a session here.
    fn weigh(&mut self, first: SessionId, resume: Lineage, now: Now) -> Right {
        let Some(session) = self.sessions.get(first) else {
            bug!(self.bugs, AskedSession, "{first:?} has an id and does not exist");
            return Right::Late;
        };
        let right = resume.against(session.lineage(), session.age(now.at));
        self.count_resume(right.into());
        right
    }

    fn count_resume(&mut self, outcome: ResumeOutcome) {
        self.stats.resumes[outcome as usize] += 1;
    }

    fn wait(&mut self, id: SessionId, peer: PeerId) {
        let nothing_yet = Claim { incarnation: PeerIncarnation::default(), hub: self.config.hub };
        self.sessions.insert(id, Session::new(peer, nothing_yet, State::Pending));
    }

    fn ask_elsewhere(&mut self, newcomer: SessionId, peer: PeerId, resume: Option<Lineage>, now: Now) {
        let ticket = self.takeovers.ask(peer, Newcomer::FromElsewhere(newcomer), resume, now.at);
        let shard = self.config.shard;
        self.post_to_mesh(|| ToMesh::AskTakeover { peer, shard, ticket, resume });
        self.takeover_event(peer);
    }

    fn challenge(&mut self, first: SessionId, peer: PeerId, ticket: u64) {
        let payload = self.takeovers.nonce(&peer, ticket);
        self.outputs.push_back(Output::Ping { session: first, payload });
        self.takeover_event(peer);
    }

    fn takeover_event(&mut self, peer: PeerId) {
        if self.config.events {
            self.outputs.push_back(Output::Event(Event::TakeoverAsked { peer }));
        }
    }

    fn admit(&mut self, id: SessionId, peer: PeerId, resume: Option<Lineage>, now: Now) {
        let clock = now.wall_ms.min(GREATEST_TIME_FOLLOWED);
        self.incarnation = PeerIncarnation(clock.max(self.incarnation.0.saturating_add(1)));
        let claim = Claim { incarnation: self.incarnation, hub: self.config.hub };
        let session = Session {
            root: resume.map_or(claim.incarnation, |resume| resume.root),
            began_s: now.at.as_secs() as u32,
            ..Session::new(peer, claim, State::Live)
        };
        let secret = self.config.resume_keys.issue(&peer, session.lineage());
        self.sessions.insert(id, session);
        self.by_peer.insert(peer, id);
        self.post_to_mesh(|| ToMesh::Opened { peer, claim });
        let welcome = self.welcome();
        let frame = wire::connected(&mut self.arena, &peer, claim.incarnation, &welcome, &secret, now.wall_ms);
        self.send(id, Frame::Arena(frame), MessageKind::Connected);
        self.outputs.push_back(Output::Admit { session: id });
    }

    /// The session of `peer` has ended: the waiting one continues.
    pub(super) fn promote_pending(&mut self, peer: &PeerId, now: Now) {
        let Some(takeover) = self.takeovers.pending.remove(peer) else { return };
        let resume = takeover.resume;
        match takeover.newcomer {
            // The session here has lost its id to one at another hub, which has not been asked yet.
            Newcomer::Here(id) if self.elsewhere.contains_key(peer) => self.ask_elsewhere(id, *peer, resume, now),
            Newcomer::Here(id) | Newcomer::FromElsewhere(id) => {
                if self.sessions.remove(id).is_none() {
                    return bug!(self.bugs, PendingSession, "{peer:?}, {id:?}");
                }
                self.admit(id, *peer, resume, now);
            }
            Newcomer::Elsewhere(asker) => self.answer(*peer, asker, false),
        }
    }

    /// The socket of the asked session has accepted bytes queued before the ping, or the ping: it cannot have answered
    /// yet.
    pub(super) fn asked_on(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.sessions.get(id) else { return };
        let peer = session.peer;
        if self.by_peer.get(&peer) == Some(&id)
            && let Some(takeover) = self.takeovers.pending.get_mut(&peer)
        {
            takeover.until = takeover.until.max(now.at + TAKEOVER_GRACE);
        }
    }

    pub(super) fn ponged(&mut self, id: SessionId, payload: &[u8], now: Now) {
        let Some(session) = self.sessions.get(id) else { return };
        let peer = session.peer;
        let Some(takeover) = self.takeovers.pending.get(&peer).copied() else { return };
        // Only the asked session can answer.
        if self.by_peer.get(&peer) != Some(&id) || !is_secret(payload, &self.takeovers.nonce(&peer, takeover.ticket)) {
            return;
        }
        self.stays(peer, takeover.newcomer, now);
    }

    /// The asked session is alive: the waiting one is refused.
    fn stays(&mut self, peer: PeerId, newcomer: Newcomer, now: Now) {
        match newcomer {
            Newcomer::Here(_) => self.stats.takeovers[1] += 1,
            Newcomer::Elsewhere(_) => {}
            Newcomer::FromElsewhere(_) => {
                return bug!(self.bugs, AskedSession, "{peer:?} is here, and waits for another hub");
            }
        }
        self.turn_away(peer, newcomer, now);
    }

    /// Refuses a waiting session.
    fn turn_away(&mut self, peer: PeerId, newcomer: Newcomer, now: Now) {
        match newcomer {
            Newcomer::Here(newcomer) | Newcomer::FromElsewhere(newcomer) => {
                self.close(newcomer, CloseReason::IdInUse, now);
            }
            Newcomer::Elsewhere(asker) => {
                self.takeovers.forget(&peer);
                self.answer(peer, asker, true);
            }
        }
    }

    pub(super) fn expire_takeovers(&mut self, now: Now) {
        // Work that does not fit into this turn stays due.
        while self.outputs.len() < TURN_OUTPUTS && self.takeovers.next_deadline().is_some_and(|at| at <= now.at) {
            let Some((_, peer, ticket)) = self.takeovers.deadlines.pop_first() else { break };
            let Some(takeover) = self.takeovers.pending.get(&peer).filter(|takeover| takeover.ticket == ticket) else {
                continue;
            };
            let Takeover { newcomer, until, limit, .. } = *takeover;
            if now.at < until.min(limit) {
                self.takeovers.deadlines.insert((until.min(limit), peer, ticket));
                continue;
            }
            match newcomer {
                // A hub that does not answer cannot object.
                Newcomer::FromElsewhere(_) => {
                    self.stats.takeovers[0] += 1;
                    self.promote_pending(&peer, now);
                }
                // Its socket has accepted bytes until just now, so the client reads.
                Newcomer::Here(_) | Newcomer::Elsewhere(_) if now.at < until => self.stays(peer, newcomer, now),
                Newcomer::Here(_) | Newcomer::Elsewhere(_) => {
                    if let Some(&first) = self.by_peer.get(&peer) {
                        self.stats.takeovers[0] += 1;
                        self.close(first, CloseReason::Replaced, now);
                    } else {
                        bug!(self.bugs, AskedSession, "{peer:?} has no session here");
                    }
                }
            }
        }
    }

    /// Another hub has a session with an id of this shard. `resume` is what that session's resume secret proves.
    pub(super) fn challenged(&mut self, peer: PeerId, asker: Asker, resume: Option<Lineage>, now: Now) {
        let waits = self.takeovers.pending.get(&peer).copied();
        let Some(first) = self.by_peer.get(&peer).copied() else {
            return self.answer(peer, asker, waits.is_some());
        };
        let right = resume.map(|resume| self.weigh(first, resume, now));
        let at_once = right == Some(Right::AtOnce);
        let full = self.takeovers.deadlines.len() >= MAX_TAKEOVERS_ASKED;
        if !at_once && (full || !self.goes_first(&peer, resume)) {
            return self.answer(peer, asker, true);
        }
        if let Some(waits) = waits {
            self.turn_away(peer, waits.newcomer, now);
        }
        if at_once {
            self.close(first, CloseReason::Replaced, now);
            self.answer(peer, asker, false);
        } else {
            let ticket = self.takeovers.ask(peer, Newcomer::Elsewhere(asker), resume, now.at);
            self.challenge(first, peer, ticket);
        }
    }

    fn answer(&mut self, peer: PeerId, asker: Asker, in_use: bool) {
        self.post_to_mesh(|| ToMesh::ChallengeAnswered { peer, asker, in_use });
    }

    /// The hub that holds an id has answered.
    pub(super) fn takeover_answered(&mut self, peer: PeerId, ticket: u64, in_use: bool, now: Now) {
        let Some(takeover) = self.takeovers.pending.get(&peer).copied().filter(|t| t.ticket == ticket) else { return };
        // The ticket comes from another hub, which may send any number.
        let Newcomer::FromElsewhere(newcomer) = takeover.newcomer else { return };
        self.stats.takeovers[usize::from(in_use)] += 1;
        if in_use {
            self.close(newcomer, CloseReason::IdInUse, now);
        } else {
            self.promote_pending(&peer, now);
        }
    }

    /// A peer of this home shard is connected to another hub. Later sessions here need a greater claim even after it
    /// has left, because its leave may reach other shards after their announcements.
    ///
    /// A session here that was admitted without knowing of it, with a smaller claim, has lost its id: other shards may
    /// have left its announcement out, and would not restore it if the greater claim ended.
    pub(super) fn came_to_other_hub(&mut self, peer: PeerId, claim: Claim, now: Now) {
        // Later sessions of all peers must remain acceptable, whatever another hub says about one.
        self.incarnation = self.incarnation.max(claim.incarnation.min(PeerIncarnation(GREATEST_TIME_FOLLOWED)));
        self.elsewhere.insert(peer, claim);
        let here = self.by_peer.get(&peer).copied();
        if let Some(id) = here.filter(|&id| self.sessions.get(id).is_some_and(|session| session.claim < claim)) {
            self.close(id, CloseReason::Replaced, now);
        }
    }

    /// A peer of this home shard is no longer connected to another hub.
    pub(super) fn left_other_hub(&mut self, peer: PeerId, claim: Claim, now: Now) {
        if self.elsewhere.get(&peer) != Some(&claim) {
            return;
        }
        self.elsewhere.remove(&peer);
        let waits = self.takeovers.pending.get(&peer);
        if waits.is_some_and(|takeover| matches!(takeover.newcomer, Newcomer::FromElsewhere(_))) {
            self.promote_pending(&peer, now);
        }
    }
}
