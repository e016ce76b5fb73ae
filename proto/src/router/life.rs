//! The phases of a session in the router. A session waits, is admitted, retires, and ends.

use crate::bug;
use crate::claim::Claim;
use crate::grant::Grant;
use crate::id::{PeerId, SessionId};
use crate::phase::SessionPhase;
use crate::reason::CloseReason;
use crate::resume::Lineage;
use crate::time::Now;
use crate::wire::{self, MessageKind};

use super::Router;
use super::leaving::{Leaver, Parting};
use super::letter::{Frame, Output, ToMesh};
use super::session::Session;

impl Router {
    /// Adds a session that waits for its id. `owner` says whether its client has proven that the id is its own.
    pub(super) fn wait(&mut self, id: SessionId, peer: PeerId, owner: bool, grant: Option<Box<Grant>>, now: Now) {
        self.sessions.insert(id, Session::pending(peer, self.config.hub).with(owner, grant), &mut self.bugs);
        self.watch_grant(id, now);
    }

    /// Admits a waiting session, which then owns the id of `peer`. Closes the session instead if an operator has
    /// excluded the peer, or if the session's grant has ended.
    pub(super) fn admit(&mut self, id: SessionId, peer: PeerId, resume: Option<Lineage>, now: Now) {
        if self.exclusions.has_peer(&peer, now.at) {
            return self.close(id, CloseReason::Kicked, now);
        }
        if self.sessions.get(id).and_then(Session::held).is_some_and(|held| held.has_ended(now.at)) {
            return self.close(id, CloseReason::TokenExpired, now);
        }
        let claim = Claim { incarnation: self.home.next_incarnation(now.wall_ms), hub: self.config.hub };
        let Some(lineage) = self.sessions.admit(id, claim, resume, now.at, &mut self.bugs) else {
            return bug!(self.bugs, PendingSession, "{peer:?}, {id:?}");
        };
        let secret = self.config.resume_keys.issue(&peer, lineage);
        self.by_peer.insert(peer, id);
        self.watch_grant(id, now);
        self.post_to_mesh(|| ToMesh::Opened { peer, claim });
        let welcome = self.welcome();
        let frame = wire::connected(&mut self.arena, &peer, claim.incarnation, &welcome, &secret, now.wall_ms);
        self.send(id, Frame::Arena(frame), MessageKind::Connected);
        self.outputs.push_back(Output::Admit { session: id });
        self.count_credentials();
    }

    /// Sends a session new credentials for TURN.
    pub(super) fn renew_ice(&mut self, id: SessionId, now: Now) {
        let open = self.sessions.get(id).filter(|session| session.is_open());
        let Some((session, ice)) = open.zip(self.config.ice.as_ref()) else { return };
        let frame = wire::ice_servers(&mut self.arena, &session.peer(), ice, now.wall_ms);
        self.send(id, Frame::Arena(frame), MessageKind::IceServers);
        self.count_credentials();
    }

    fn count_credentials(&mut self) {
        let has_turn = self.config.ice.as_ref().is_some_and(|ice| ice.ttl().is_some());
        self.stats.turn_credentials += u64::from(has_turn);
    }

    /// Closes a session of a hub that drains, when the time for this session has come.
    pub(super) fn retire(&mut self, id: SessionId, now: Now) {
        match self.sessions.get(id).map(Session::phase) {
            Some(SessionPhase::Open) => {
                self.sessions.retire(id, &mut self.bugs);
                self.outputs.push_back(Output::Close { session: id, reason: CloseReason::Draining });
            }
            // No message of a waiting session has been read, so the session can be closed at once. If the session
            // stayed open, it could be admitted during the drain.
            Some(SessionPhase::Pending) => self.close(id, CloseReason::Draining, now),
            // Expected: the session has retired already, or has ended.
            Some(SessionPhase::Retiring) | None => {}
            Some(SessionPhase::Closing) => bug!(self.bugs, SessionLife, "{id:?} is closing, but was not removed"),
        }
    }

    /// Ends a session and closes its socket.
    pub(super) fn close(&mut self, id: SessionId, reason: CloseReason, now: Now) {
        self.outputs.push_back(Output::Close { session: id, reason });
        self.end(id, reason, now);
    }

    /// Removes a session, and notifies the members of its networks.
    pub(super) fn end(&mut self, id: SessionId, reason: CloseReason, now: Now) {
        let Some(mut session) = self.sessions.remove(id) else { return };
        let (peer, claim) = (session.peer(), session.claim());
        self.expiries.forget(id, session.held());
        if session.phase() == SessionPhase::Pending {
            self.takeovers.withdraw(&peer, id);
            return;
        }
        let spoke = self.by_peer.remove(&peer);
        if spoke != Some(id) {
            bug!(self.bugs, SpeakerReplaced, "{id:?} of {peer:?} ends, but the current session is {spoke:?}");
        }
        let leaver = Leaver { peer, claim, how: Parting::Ended(reason) };
        self.leave_all(id, leaver, session.leave(|_| true), now);
        self.post_to_mesh(|| ToMesh::Closed { peer, claim, reason });
        self.id_released(&peer, now);
    }
}
