//! Planted bugs, which the oracles must find.

use proto::ToShard;

use crate::rng::Rng;

/// A bug in the code around the routers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    LosesJoined,
    LosesLeft,
    LosesSignal,
    LosesOutcome,
    RepeatsLetter,
    SwapsLetters,
    ForgetsRoom,
    SwallowsDelivered,
    RepeatsDelivered,
    RepeatsFrame,
    LosesFrame,
    LosesClosed,
    LosesContinue,
    /// The outcome of a signal names another receipt.
    MistakesReceipt,
    SwapsFrames,
    ForgetsGrant,
}

impl Fault {
    pub(crate) const ALL: [Self; 16] = [
        Self::LosesJoined,
        Self::LosesLeft,
        Self::LosesSignal,
        Self::LosesOutcome,
        Self::RepeatsLetter,
        Self::SwapsLetters,
        Self::ForgetsRoom,
        Self::SwallowsDelivered,
        Self::RepeatsDelivered,
        Self::RepeatsFrame,
        Self::LosesFrame,
        Self::LosesClosed,
        Self::LosesContinue,
        Self::MistakesReceipt,
        Self::SwapsFrames,
        Self::ForgetsGrant,
    ];
}

/// Plants one kind of bug at random opportunities, or no bug.
#[derive(Debug)]
pub(crate) struct Saboteur {
    fault: Option<Fault>,
    rng: Rng,
    held: Vec<(u16, u16, ToShard)>,
}

/// On average, the bug occurs at one in this many opportunities.
const ODDS: usize = 20;

impl Saboteur {
    pub(crate) fn new(fault: Option<Fault>, seed: u64) -> Self {
        Self { fault, rng: Rng::new(!seed), held: Vec::new() }
    }

    pub(crate) fn strikes(&mut self, fault: Fault) -> bool {
        self.fault == Some(fault) && self.rng.one_in(ODDS)
    }

    /// The letters that arrive in place of this letter.
    pub(crate) fn deliver(&mut self, from: u16, to: u16, letter: ToShard) -> Vec<ToShard> {
        let loses = match &letter {
            ToShard::Joined(_) => Fault::LosesJoined,
            ToShard::Left(_) => Fault::LosesLeft,
            ToShard::Signal(_) => Fault::LosesSignal,
            ToShard::Challenge { .. }
            | ToShard::Elsewhere { .. }
            | ToShard::Meeting(_)
            | ToShard::Nowhere { .. }
            | ToShard::Renamed { .. }
            | ToShard::Outcome(_)
            | ToShard::TakeoverAnswered { .. } => Fault::LosesOutcome,
        };
        if let Some(at) = self.held.iter().position(|&(f, t, _)| (f, t) == (from, to)) {
            return vec![letter, self.held.swap_remove(at).2];
        }
        if self.strikes(loses) {
            return Vec::new();
        }
        if self.strikes(Fault::RepeatsLetter) {
            return vec![letter.clone(), letter];
        }
        if self.strikes(Fault::SwapsLetters) {
            self.held.push((from, to, letter));
            return Vec::new();
        }
        vec![letter]
    }
}
