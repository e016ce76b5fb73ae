//! Takeovers, in which two connections at one hub or at two hubs want the same id. The hub of the first connection
//! checks whether the first connection is still alive.

use crate::bug;
use crate::claim::{Claim, Precedence};
use crate::grant::Grant;
use crate::id::{PeerId, SessionId};
use crate::reason::CloseReason;
use crate::resume::{Lineage, ResumeOutcome, Right};
use crate::time::Now;

use super::Router;
use super::letter::{Asker, Output, PeerEvent, ToMesh};
use super::takeovers::{Challenged, Expired, Holder, Opened, Parties};

impl Router {
    /// Handles a new connection that wants the id of `peer`. `resume` is the lineage that the client's resume secret
    /// proves. `owner` says whether the client has proven that the id is its own.
    pub(super) fn opened(
        &mut self,
        id: SessionId,
        peer: PeerId,
        seat: bool,
        (resume, owner): (Option<Lineage>, bool),
        grant: Option<Box<Grant>>,
        now: Now,
    ) {
        if let Some(Lineage { session, .. }) = resume {
            // The next session of the lineage must have a later incarnation, even if the clock of the hub that issued
            // the secret is ahead.
            self.home.follow(session);
        }
        if self.exclusions.has_peer(&peer, now.at) {
            return self.outputs.push_back(Output::Close { session: id, reason: CloseReason::Kicked });
        }
        let holder = self.holder(&peer, (resume, owner), now);
        let (opened, displaced) = self.takeovers.opened(id, peer, holder, seat, (resume, owner), now.at);
        if let Some(displaced) = displaced {
            self.refuse_newcomer(peer, displaced, now);
        }
        match opened {
            Opened::Refuse(reason) => self.outputs.push_back(Output::Close { session: id, reason }),
            Opened::Admit => {
                if resume.is_some() {
                    self.count_resume(ResumeOutcome::Continued);
                }
                self.wait(id, peer, owner, grant, now);
                self.admit(id, peer, resume, now);
            }
            Opened::Replace => {
                self.wait(id, peer, owner, grant, now);
                self.close_holder(&peer, now);
            }
            Opened::Ping(payload) => {
                self.wait(id, peer, owner, grant, now);
                self.ping_holder(peer, payload);
            }
            Opened::AskHub(ticket) => {
                self.wait(id, peer, owner, grant, now);
                self.ask_hub(peer, ticket, (resume, owner));
            }
        }
    }

    /// Handles the request of another hub, where a new session wants an id of this shard. `proven` is the lineage that
    /// the resume secret of the new session proves, and whether its client owns the id.
    pub(super) fn challenged(&mut self, peer: PeerId, asker: Asker, proven: (Option<Lineage>, bool), now: Now) {
        let holder = self.holder(&peer, proven, now);
        let (challenged, displaced) = self.takeovers.challenged(asker, peer, holder, proven, now.at);
        if let Some(displaced) = displaced {
            self.refuse_newcomer(peer, displaced, now);
        }
        match challenged {
            Challenged::Answer { in_use } => self.answer_hub(peer, asker, in_use),
            Challenged::Replace => {
                self.close_holder(&peer, now);
                self.answer_hub(peer, asker, false);
            }
            Challenged::Ping(payload) => self.ping_holder(peer, payload),
        }
    }

    /// Finds the session that holds the id of `peer`. Determines and counts the new session's right to the id, which
    /// follows from its resume secret or from a proof that its client owns the id.
    fn holder(&mut self, peer: &PeerId, (resume, owner): (Option<Lineage>, bool), now: Now) -> Holder {
        let Some(&id) = self.by_peer.get(peer) else {
            return if self.home.is_elsewhere(peer) { Holder::Elsewhere } else { Holder::Nobody };
        };
        let Some(session) = self.sessions.get(id) else {
            bug!(self.bugs, AskedSession, "{id:?} is the current session of {peer:?}, but does not exist");
            return Holder::Here(Some(Right::Late));
        };
        if owner {
            self.stats.owner_takeovers += 1;
            return Holder::Here(Some(Right::AtOnce));
        }
        let right = resume.map(|resume| {
            if session.is_owner() { Right::Owned } else { resume.against(session.lineage(), session.age(now.at)) }
        });
        if let Some(right) = right {
            self.count_resume(right.into());
        }
        Holder::Here(right)
    }

    fn count_resume(&mut self, outcome: ResumeOutcome) {
        self.stats.resumes[outcome as usize] += 1;
    }

    /// Closes the session that holds an id. The end of this session releases the id.
    fn close_holder(&mut self, peer: &PeerId, now: Now) {
        match self.by_peer.get(peer) {
            Some(&holder) => self.close(holder, CloseReason::Replaced, now),
            None => bug!(self.bugs, AskedSession, "{peer:?} has no session here"),
        }
    }

    fn ping_holder(&mut self, peer: PeerId, payload: [u8; 8]) {
        match self.by_peer.get(&peer) {
            Some(&session) => self.outputs.push_back(Output::Ping { session, payload }),
            None => bug!(self.bugs, AskedSession, "{peer:?} has no session here"),
        }
        self.takeover_event(peer);
    }

    fn ask_hub(&mut self, peer: PeerId, ticket: u64, (resume, owner): (Option<Lineage>, bool)) {
        let shard = self.config.shard;
        self.post_to_mesh(|| ToMesh::AskTakeover { peer, shard, ticket, resume, owner });
        self.takeover_event(peer);
    }

    fn answer_hub(&mut self, peer: PeerId, asker: Asker, in_use: bool) {
        self.post_to_mesh(|| ToMesh::ChallengeAnswered { peer, asker, in_use });
    }

    fn takeover_event(&mut self, peer: PeerId) {
        if self.config.events {
            self.outputs.push_back(Output::Event(PeerEvent::TakeoverAsked { peer }));
        }
    }

    /// Refuses the new session of a takeover.
    fn refuse_newcomer(&mut self, peer: PeerId, parties: Parties, now: Now) {
        match parties {
            Parties::BothHere(newcomer) | Parties::HolderElsewhere(newcomer) => {
                self.close(newcomer, CloseReason::IdInUse, now);
            }
            Parties::NewcomerElsewhere(asker) => self.answer_hub(peer, asker, true),
        }
    }

    /// Ends a takeover whose holder is alive, and refuses the new session.
    fn holder_stays(&mut self, peer: PeerId, parties: Parties, now: Now) {
        match parties {
            Parties::BothHere(_) => self.stats.takeovers[1] += 1,
            // The hub of the new session counts the takeover.
            Parties::NewcomerElsewhere(_) => {}
            Parties::HolderElsewhere(_) => {
                bug!(self.bugs, AskedSession, "{peer:?} has a session here, but its takeover waits for another hub");
            }
        }
        self.refuse_newcomer(peer, parties, now);
    }

    /// Handles the release of an id. If a session waits for the id, the takeover of this session continues.
    pub(super) fn id_released(&mut self, peer: &PeerId, now: Now) {
        // For most released ids, no session waits.
        let Some((parties, proven)) = self.takeovers.release(peer) else { return };
        match parties {
            // The id now belongs to a session at another hub. The other hub has not been asked yet whether its session
            // is alive.
            Parties::BothHere(id) if self.home.is_elsewhere(peer) => {
                let ticket = self.takeovers.ask_hub(*peer, id, proven, now.at);
                self.ask_hub(*peer, ticket, proven);
            }
            Parties::BothHere(id) | Parties::HolderElsewhere(id) => self.admit(id, *peer, proven.0, now),
            Parties::NewcomerElsewhere(asker) => self.answer_hub(*peer, asker, false),
        }
    }

    /// Handles progress of a pinged session's socket, which has accepted bytes of the ping or bytes queued before the
    /// ping.
    pub(super) fn asked_on(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.sessions.get(id) else { return };
        let peer = session.peer();
        if self.by_peer.get(&peer) == Some(&id) {
            self.takeovers.asked_on(&peer, now.at);
        }
    }

    pub(super) fn ponged(&mut self, id: SessionId, payload: &[u8], now: Now) {
        let Some(session) = self.sessions.get(id) else { return };
        let peer = session.peer();
        // Only the pinged session can answer.
        if self.by_peer.get(&peer) == Some(&id)
            && let Some(parties) = self.takeovers.answered(&peer, payload)
        {
            self.holder_stays(peer, parties, now);
        }
    }

    pub(super) fn expire_takeovers(&mut self, now: Now) {
        // Takeovers that are not processed in this turn stay due.
        while !self.is_turn_over()
            && let Some((peer, expired)) = self.takeovers.expire(now.at)
        {
            match expired {
                Expired::HubSilent => {
                    self.stats.takeovers[0] += 1;
                    self.id_released(&peer, now);
                }
                Expired::HolderDead => {
                    self.stats.takeovers[0] += 1;
                    self.close_holder(&peer, now);
                }
                Expired::HolderAlive(parties) => self.holder_stays(peer, parties, now),
            }
        }
    }

    /// Handles the answer of another hub to the question whether its session with an id is alive.
    pub(super) fn takeover_answered(&mut self, peer: PeerId, ticket: u64, in_use: bool, now: Now) {
        let Some(newcomer) = self.takeovers.asked_hub(&peer, ticket) else { return };
        self.stats.takeovers[usize::from(in_use)] += 1;
        if in_use {
            self.close(newcomer, CloseReason::IdInUse, now);
        } else {
            self.id_released(&peer, now);
        }
    }

    /// Handles a letter that says that a peer of this home shard is connected to another hub.
    ///
    /// A session that was admitted on this shard in the meantime with a smaller claim is closed, because the greater
    /// claim wins in all rosters.
    pub(super) fn connected_elsewhere(&mut self, peer: PeerId, claim: Claim, now: Now) {
        self.home.connected_elsewhere(peer, claim);
        let here = self.session_of(&peer);
        if let Some(id) = here.filter(|&id| {
            self.sessions.get(id).is_some_and(|session| session.claim().against(claim) == Precedence::Loses)
        }) {
            self.close(id, CloseReason::Replaced, now);
        }
    }

    /// Handles a letter that says that a peer of this home shard is no longer connected to another hub.
    pub(super) fn ended_elsewhere(&mut self, peer: PeerId, claim: Claim, now: Now) {
        if self.home.ended_elsewhere(&peer, claim)
            && let Some(Parties::HolderElsewhere(_)) = self.takeovers.parties(&peer)
        {
            self.id_released(&peer, now);
        }
    }
}
