//! The takeovers of a shard, and the decisions about them.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::time::Duration;

use crate::bugs::ensure;
use crate::id::{PeerId, SessionId};
use crate::keys::Keys;
use crate::limits::{MAX_TAKEOVERS_ASKED, TAKEOVER_GRACE, TAKEOVER_LIMIT, TAKEOVER_MARGIN};
use crate::reason::CloseReason;
use crate::resume::{Lineage, Right};
use crate::secret::is_secret;

use super::letter::Asker;

/// The takeovers in progress. In a takeover, one session holds an id and another session wants it. There is at most one
/// takeover for each id.
///
/// This type only decides. The router closes and admits sessions, sends pings and asks hubs.
#[derive(Debug)]
pub(super) struct Takeovers {
    keys: Keys,
    asked: u64,
    pending: HashMap<PeerId, Takeover, Keys>,
    /// Ordered by time, peer and ticket. Entries of ended takeovers stay until they are due. So there are at most as
    /// many entries as connections and challenges can arrive before an entry is due.
    deadlines: BTreeSet<(Duration, PeerId, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Takeover {
    parties: Parties,
    /// The lineage that the new session's resume secret proves.
    resume: Option<Lineage>,
    /// Whether the newcomer has proven that the id is its own.
    owner: bool,
    /// Number of the question whether the holder is alive. The payload of the ping is derived from this number.
    ticket: u64,
    /// Time at which a holder that has not answered counts as dead. This time is postponed while the holder's socket
    /// accepts bytes of the ping or bytes queued before it.
    until: Duration,
    /// Latest time at which the takeover is decided.
    limit: Duration,
}

/// The places of the two sessions of a takeover. The holder has the id, and the newcomer wants the id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Parties {
    /// Both sessions are on this shard. The value is the newcomer.
    BothHere(SessionId),
    /// The newcomer is on this shard, and the holder is at another hub. The value is the newcomer.
    HolderElsewhere(SessionId),
    /// The holder is on this shard, and the newcomer is at another hub. The value is the hub of the newcomer, which
    /// waits for the answer.
    NewcomerElsewhere(Asker),
}

/// The session that holds an id when another session wants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holder {
    /// No session holds the id.
    Nobody,
    /// A session on this shard holds the id. The value is the newcomer's right to the id, if the newcomer sent a resume
    /// secret or is the owner.
    Here(Option<Right>),
    /// A session at another hub holds the id.
    Elsewhere,
}

/// The decision about a session that was opened on this shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Opened {
    /// Refuse the newcomer. Nothing else changes.
    Refuse(CloseReason),
    /// Admit the newcomer.
    Admit,
    /// Let the newcomer wait, and close the holder now. The newcomer is admitted when the holder has ended.
    Replace,
    /// Let the newcomer wait, and ping the holder with this payload.
    Ping([u8; 8]),
    /// Let the newcomer wait, and send the holder's hub a question with this ticket.
    AskHub(u64),
}

/// The decision about a session at another hub that wants an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Challenged {
    /// Answer the newcomer's hub now.
    Answer {
        /// Whether the id stays in use here.
        in_use: bool,
    },
    /// Close the holder now, then answer that the id is free.
    Replace,
    /// Ping the holder with this payload, and answer when the takeover is decided.
    Ping([u8; 8]),
}

/// The decision about a takeover that has expired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expired {
    /// The holder on this shard has not answered, and must be closed. The takeover stays until the end of the holder
    /// releases the id.
    HolderDead,
    /// The holder's hub has not answered, so the holder loses the id. The takeover stays until [`Takeovers::release`].
    HubSilent,
    /// The holder's socket has recently accepted bytes, so its client is alive. The takeover has ended, and the
    /// newcomer must be refused.
    HolderAlive(Parties),
}

impl Takeovers {
    pub(super) fn new(keys: Keys) -> Self {
        Self { keys, asked: 0, pending: HashMap::with_hasher(keys), deadlines: BTreeSet::new() }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.deadlines.is_empty()
    }

    #[cfg(test)]
    pub(super) fn deadlines(&self) -> usize {
        self.deadlines.len()
    }

    /// The time at which [`Self::expire`] may return something.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, ..)| *at)
    }

    /// The parties of the takeover of this id.
    pub(super) fn parties(&self, peer: &PeerId) -> Option<Parties> {
        self.pending.get(peer).map(|takeover| takeover.parties)
    }

    /// Decides about a session that was opened on this shard. `seat` says whether the hub has room for one more
    /// session.
    ///
    /// The second returned value is an earlier newcomer that waited for the same id. The takeover of this newcomer has
    /// ended. The caller must refuse this newcomer before it acts on the decision.
    pub(super) fn opened(
        &mut self,
        newcomer: SessionId,
        peer: PeerId,
        holder: Holder,
        seat: bool,
        (resume, owner): (Option<Lineage>, bool),
        now: Duration,
    ) -> (Opened, Option<Parties>) {
        let at_once = holder == Holder::Here(Some(Right::AtOnce));
        if !at_once && !self.goes_first(&peer, resume, owner) {
            return (Opened::Refuse(CloseReason::IdInUse), None);
        }
        if !matches!(holder, Holder::Here(_)) && !seat {
            return (Opened::Refuse(CloseReason::MaxConnections), None);
        }
        let displaced = self.pending.remove(&peer).map(|takeover| takeover.parties);
        let opened = match holder {
            Holder::Nobody => Opened::Admit,
            Holder::Here(_) => {
                let ticket = self.ask(peer, Parties::BothHere(newcomer), (resume, owner), now);
                if at_once { Opened::Replace } else { Opened::Ping(self.nonce(&peer, ticket)) }
            }
            Holder::Elsewhere => {
                Opened::AskHub(self.ask(peer, Parties::HolderElsewhere(newcomer), (resume, owner), now))
            }
        };
        (opened, displaced)
    }

    /// Decides about a session at another hub that wants an id of this shard. The second returned value is as in
    /// [`Self::opened`]. While [`MAX_TAKEOVERS_ASKED`] deadlines of takeovers are stored, a session gets an id that is
    /// in use here only if it has the immediate right to the id.
    pub(super) fn challenged(
        &mut self,
        asker: Asker,
        peer: PeerId,
        holder: Holder,
        (resume, owner): (Option<Lineage>, bool),
        now: Duration,
    ) -> (Challenged, Option<Parties>) {
        let Holder::Here(right) = holder else {
            // A session that already waits for the id on this shard has precedence.
            return (Challenged::Answer { in_use: self.pending.contains_key(&peer) }, None);
        };
        let at_once = right == Some(Right::AtOnce);
        let full = self.deadlines.len() >= MAX_TAKEOVERS_ASKED;
        if !at_once && (full || !self.goes_first(&peer, resume, owner)) {
            return (Challenged::Answer { in_use: true }, None);
        }
        let displaced = self.pending.remove(&peer).map(|takeover| takeover.parties);
        if at_once {
            return (Challenged::Replace, displaced);
        }
        let ticket = self.ask(peer, Parties::NewcomerElsewhere(asker), (resume, owner), now);
        (Challenged::Ping(self.nonce(&peer, ticket)), displaced)
    }

    /// Records that the holder's socket has accepted bytes of the ping, or bytes queued before the ping. This extends
    /// the time for the answer.
    pub(super) fn asked_on(&mut self, peer: &PeerId, now: Duration) {
        if let Some(takeover) = self.pending.get_mut(peer) {
            takeover.until = takeover.until.max(now + TAKEOVER_GRACE);
        }
    }

    /// Handles a pong of the holder. If the pong has the payload of the ping, the takeover has ended, and the caller
    /// must refuse the returned newcomer.
    pub(super) fn answered(&mut self, peer: &PeerId, payload: &[u8]) -> Option<Parties> {
        let takeover = self.pending.get(peer)?;
        if !is_secret(payload, &self.nonce(peer, takeover.ticket)) {
            return None;
        }
        self.pending.remove(peer).map(|takeover| takeover.parties)
    }

    /// The newcomer that waits for an answer of another hub with this ticket. The ticket is compared, because other
    /// hubs can send any ticket.
    pub(super) fn asked_hub(&self, peer: &PeerId, ticket: u64) -> Option<SessionId> {
        match self.pending.get(peer) {
            Some(&Takeover { parties: Parties::HolderElsewhere(newcomer), ticket: asked, .. }) if asked == ticket => {
                Some(newcomer)
            }
            _ => None,
        }
    }

    /// Decides about the next takeover that has expired at `now`. Returns `None` if no further takeover has expired.
    pub(super) fn expire(&mut self, now: Duration) -> Option<(PeerId, Expired)> {
        while self.next_deadline().is_some_and(|at| at <= now) {
            let (_, peer, ticket) = self.deadlines.pop_first()?;
            let Some(takeover) = self.pending.get(&peer).filter(|takeover| takeover.ticket == ticket) else {
                continue;
            };
            let Takeover { parties, until, limit, .. } = *takeover;
            if now < until.min(limit) {
                self.deadlines.insert((until.min(limit), peer, ticket));
                continue;
            }
            let expired = match parties {
                Parties::HolderElsewhere(_) => Expired::HubSilent,
                Parties::BothHere(_) | Parties::NewcomerElsewhere(_) if now < until => {
                    self.pending.remove(&peer);
                    Expired::HolderAlive(parties)
                }
                Parties::BothHere(_) | Parties::NewcomerElsewhere(_) => Expired::HolderDead,
            };
            return Some((peer, expired));
        }
        None
    }

    /// Ends the takeover of a released id. Returns the newcomer, the lineage that the newcomer's resume secret proves,
    /// and whether the newcomer is the owner.
    pub(super) fn release(&mut self, peer: &PeerId) -> Option<(Parties, (Option<Lineage>, bool))> {
        self.pending.remove(peer).map(|takeover| (takeover.parties, (takeover.resume, takeover.owner)))
    }

    /// Records that a newcomer waits for another hub, because a session at that hub now holds the id. Returns the
    /// ticket of the question to that hub.
    pub(super) fn ask_hub(
        &mut self,
        peer: PeerId,
        newcomer: SessionId,
        proven: (Option<Lineage>, bool),
        now: Duration,
    ) -> u64 {
        self.ask(peer, Parties::HolderElsewhere(newcomer), proven, now)
    }

    /// Records that a waiting session has ended without a decision.
    pub(super) fn withdraw(&mut self, peer: &PeerId, newcomer: SessionId) {
        let waits = self.parties(peer);
        if waits == Some(Parties::BothHere(newcomer)) || waits == Some(Parties::HolderElsewhere(newcomer)) {
            self.pending.remove(peer);
        }
    }

    /// Checks that every takeover has a deadline.
    #[expect(clippy::disallowed_methods, reason = "only audits iterate, and they change nothing")]
    pub(super) fn audit(&self) -> Result<(), String> {
        let due: BTreeSet<u64> = self.deadlines.iter().map(|(.., ticket)| *ticket).collect();
        let forgotten = self.pending.iter().find(|(_, takeover)| !due.contains(&takeover.ticket));
        ensure(forgotten.is_none(), || format!("a takeover has no deadline: {forgotten:?}"))
    }

    /// Whether a new session has precedence over the session that already waits for the id, if there is one. A stronger
    /// resume secret has precedence over a weaker one. An owner has precedence over all other sessions, and a later
    /// owner has precedence over earlier owners.
    fn goes_first(&self, peer: &PeerId, resume: Option<Lineage>, owner: bool) -> bool {
        let waits = self.pending.get(peer);
        owner || waits.is_none_or(|waits| !waits.owner && resume.is_some_and(|resume| resume.outranks(waits.resume)))
    }

    fn ask(&mut self, peer: PeerId, parties: Parties, (resume, owner): (Option<Lineage>, bool), now: Duration) -> u64 {
        self.asked += 1;
        let ticket = self.asked;
        let (patience, limit) = match parties {
            Parties::BothHere(_) => (TAKEOVER_GRACE, TAKEOVER_LIMIT),
            Parties::HolderElsewhere(_) => (TAKEOVER_GRACE + TAKEOVER_MARGIN, TAKEOVER_GRACE + TAKEOVER_MARGIN),
            // The asking hub waits only for [`TAKEOVER_GRACE`] and [`TAKEOVER_MARGIN`], so the answer must be sent
            // earlier.
            Parties::NewcomerElsewhere(_) => (TAKEOVER_GRACE, TAKEOVER_GRACE + TAKEOVER_MARGIN / 2),
        };
        let (until, limit) = (now + patience, now + limit);
        self.pending.insert(peer, Takeover { parties, resume, owner, ticket, until, limit });
        self.deadlines.insert((until, peer, ticket));
        ticket
    }

    /// The payload of the ping. The payload is a keyed hash, so that a client cannot send a valid pong without having
    /// received the ping.
    fn nonce(&self, peer: &PeerId, ticket: u64) -> [u8; 8] {
        self.keys.hash_one((peer, ticket)).to_be_bytes()
    }
}
