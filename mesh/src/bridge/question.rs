//! Questions to hubs of version 2.0, which put no stamp on their frames.
//!
//! Hubs of version 2.0 ignore stamps, which look like an envelope of an unknown kind. The bridge asks hubs of version
//! 2.0 a question that they can answer: whether a random id is free (`Takeover`), under a random ticket. The bridge
//! accepts the frames of a hub while that hub answers. So a rolling upgrade from version 2.0 needs no setting, and
//! recorded frames of version 2.0 are rejected, too. Frames of version 2.0 have no numbers. So an attacker can repeat
//! frames of a *live* hub of version 2.0. The same attack is possible between two hubs of version 2.0.

use proto::envelope::{EnvelopeKind, RouteHeader, Routed};
use proto::{Envelope, HubId, HubIncarnation, PeerId};

use super::stamp::{self, split};

/// A question to a hub that sends no stamps: the hub must answer whether this random id is free, and repeat this random
/// ticket.
pub(super) type Question = (PeerId, u64);

/// The questions that a payload answers.
pub(super) fn answered_in(mut payload: &[u8]) -> Vec<Question> {
    let mut answers = Vec::new();
    while let Some((kind, _, rest)) = split(payload) {
        let mut envelope = &payload[..payload.len() - rest.len()];
        if kind == EnvelopeKind::TakeoverAnswer as u8
            && let Ok(Some(Envelope::Routed(_, routed))) = Envelope::decode(&mut envelope)
            && let Routed::TakeoverAnswer { peer, ticket, .. } = *routed
        {
            answers.push((peer, ticket));
        }
        payload = rest;
    }
    answers
}

/// A question in the form in which it is sent to a hub of version 2.0. The question names no incarnation of that hub,
/// so the answer does not affect any takeover.
pub(super) fn ask((peer, ticket): Question, to: HubId, from: HubId) -> Envelope {
    let nobody = HubIncarnation(0);
    let route = RouteHeader { to, to_incarnation: nobody, from, from_incarnation: nobody, hops: 0 };
    Envelope::Routed(route, Box::new(Routed::Takeover { peer, ticket, resume: None, owner: false }))
}

/// A random question; `None` if the system has no random numbers.
pub(super) fn random() -> Option<Question> {
    let mut peer = [0; 20];
    getrandom::fill(&mut peer).ok()?;
    Some((PeerId::from_bytes(peer), stamp::random()?))
}
