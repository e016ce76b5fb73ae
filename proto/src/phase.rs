//! The life of a session.

use crate::bug;
use crate::bugs::Bugs;
use crate::id::SessionId;

/// The phase of a session's life. The router and the shard use the same phases:
///
/// ```text
///    opened          the id is free         the hub drains
/// ──────────▶ Pending ──────────▶ Open ──────────────────▶ Retiring
///                │                  │                          │
///                └──────────────────┴──────────┬───────────────┘
///                                              ▼   refused, lost, closed
///                                           Closing ──▶ removed
/// ```
///
/// The [`Router`](crate::Router) removes a session when it reaches [`Closing`](Self::Closing). The shard keeps the
/// socket longer, until its queue is written and the client has closed the connection. A session can have different
/// phases in the router and in the shard for a moment. This happens between an output of the router and its execution,
/// and between the end of a socket and the input that reports this end. A router that has ended a session ignores later
/// inputs of this session. A shard that has ended a session ignores later outputs for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionPhase {
    /// The session is not admitted, because another session with the same id has not ended yet. The shard reads nothing
    /// from the socket of a pending session.
    Pending,
    /// The session is admitted. An open session receives messages, and its own messages are processed.
    Open,
    /// The session is about to end, because the hub drains or the session's socket accepts no more data. The session
    /// receives no more messages, but the messages that it sends are still processed.
    Retiring,
    /// The session has ended.
    Closing,
}

impl SessionPhase {
    /// Whether `next` can follow this phase.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Pending => matches!(next, Self::Open | Self::Closing),
            Self::Open => matches!(next, Self::Retiring | Self::Closing),
            Self::Retiring => matches!(next, Self::Closing),
            Self::Closing => false,
        }
    }

    /// Moves to `next`. If `next` cannot follow this phase, [`Bugs`] records an impossible state, and the session moves
    /// to `next` nevertheless.
    ///
    /// # Panics
    ///
    /// In builds with debug assertions, if `next` cannot follow.
    pub fn advance(&mut self, next: Self, session: SessionId, bugs: &mut Bugs) {
        if !self.may_become(next) {
            bug!(bugs, SessionLife, "{session:?} goes from {self:?} to {next:?}");
        }
        *self = next;
    }
}

#[cfg(test)]
mod tests {
    use super::SessionPhase::{Closing, Open, Pending, Retiring};
    use super::*;

    const SESSION: SessionId = SessionId { slot: 1, generation: 0 };

    #[test]
    fn a_session_never_goes_back_and_ends_once() {
        let all = [Pending, Open, Retiring, Closing];
        let possible: Vec<_> = all
            .into_iter()
            .flat_map(|from| all.map(|to| (from, to)))
            .filter(|(from, to)| from.may_become(*to))
            .collect();
        let expected = [(Pending, Open), (Pending, Closing), (Open, Retiring), (Open, Closing), (Retiring, Closing)];
        assert_eq!(possible, expected);
    }

    #[test]
    #[should_panic(
        expected = "impossible state session-life: SessionId { slot: 1, generation: 0 } goes from Open to Open"
    )]
    fn a_session_is_admitted_once() {
        let mut phase = Pending;
        phase.advance(Open, SESSION, &mut Bugs::default());
        phase.advance(Open, SESSION, &mut Bugs::default());
    }
}
