//! The oracle of signals. Each signal must be delivered unchanged, at most once and in order, and have exactly one
//! correct outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::{CloseReason, PeerId, limits};

use super::{Net, Sid};

/// A signal, from its creation to its outcome.
#[derive(Debug)]
pub(crate) struct Signal {
    pub(crate) from: Sid,
    pub(crate) sender: PeerId,
    pub(crate) target: PeerId,
    pub(crate) kind: &'static str,
    pub(crate) net: Option<Net>,
    pub(crate) network: String,
    pub(crate) data: String,
    pub(crate) id: Option<String>,
    read: Option<Read>,
    stage: Stage,
    arrived: bool,
    receipt: Option<String>,
}

#[derive(Debug)]
struct Read {
    at: Duration,
    wall_ms: u64,
    /// Whether the sender was a member of the signal's network.
    member: bool,
}

/// The progress of a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Said,
    /// The sender is flooding: the router may relay the signal or refuse it because of the rate limit.
    AtMercy,
    Travelling,
    Handed(Fate),
    Failed(&'static str),
}

/// The state of a signal that has reached its target's queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Queued,
    Delivered,
    Undelivered(CloseReason),
}

impl Fate {
    const fn outcome(self) -> &'static str {
        match self {
            Self::Queued => "none yet",
            Self::Delivered => "delivered",
            Self::Undelivered(CloseReason::SlowConsumer) => "slow-peer",
            Self::Undelivered(_) => "peer-not-found",
        }
    }
}

impl Signal {
    pub(crate) fn new(from: Sid, sender: PeerId, target: PeerId, kind: &'static str) -> Self {
        Self {
            from,
            sender,
            target,
            kind,
            net: None,
            network: String::new(),
            data: String::new(),
            id: None,
            read: None,
            stage: Stage::Said,
            arrived: false,
            receipt: None,
        }
    }

    /// The message that the target must receive, byte for byte.
    fn expected(&self) -> String {
        format!(
            r#"{{"type":"{}","data":{},"fromPeerId":"{}","targetPeerId":"{}","networkName":{},"timestamp":{}}}"#,
            self.kind,
            self.data,
            self.sender,
            self.target,
            serde_json::to_string(&self.network).expect("a string"),
            self.read.as_ref().map_or(0, |read| read.wall_ms),
        )
    }

    /// The outcome that the sender must receive, if it is known yet.
    fn outcome(&self) -> Option<&'static str> {
        match self.stage {
            Stage::Handed(fate) => Some(fate.outcome()),
            Stage::Failed(code) => Some(code),
            Stage::AtMercy | Stage::Said | Stage::Travelling => None,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Signals {
    all: Vec<Signal>,
    flooders: BTreeSet<Sid>,
    last: BTreeMap<(Sid, PeerId), usize>,
    /// The signal that must be queued while the current input is processed.
    expected: Option<usize>,
    at_mercy: Option<usize>,
    refusals: Refusals,
    refusals_expected: Refusals,
}

/// The codes of the errors about signals, by sender, type and target.
type Refusals = BTreeMap<(Sid, String, PeerId), Vec<String>>;

type Verdict = Result<(), &'static str>;

impl Signals {
    pub(crate) fn add(&mut self, signal: Signal) {
        self.all.push(signal);
    }

    pub(crate) fn next_number(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn floods(&mut self, sid: Sid) {
        self.flooders.insert(sid);
    }

    pub(crate) fn is_flooder(&self, sid: Sid) -> bool {
        self.flooders.contains(&sid)
    }

    pub(super) fn network(&self, number: usize) -> (Option<Net>, &str) {
        (self.all[number].net, &self.all[number].network)
    }

    pub(crate) fn target(&self, number: usize) -> PeerId {
        self.all[number].target
    }

    pub(super) fn read(&mut self, number: usize, at: Duration, wall_ms: u64, verdict: Verdict, member: bool) -> bool {
        let at_mercy = self.flooders.contains(&self.all[number].from);
        let signal = &mut self.all[number];
        signal.read = Some(Read { at, wall_ms, member });
        signal.stage = match verdict {
            _ if at_mercy => Stage::AtMercy,
            Ok(()) => Stage::Travelling,
            Err(code) => Stage::Failed(code),
        };
        self.at_mercy = at_mercy.then_some(number);
        verdict.is_ok() && !at_mercy
    }

    /// Records that a letter with this signal was posted.
    pub(crate) fn posted(&mut self, number: usize) {
        let signal = &mut self.all[number];
        if signal.stage == Stage::AtMercy {
            signal.stage = Stage::Travelling;
        }
    }

    pub(super) fn judged(&mut self, number: usize, verdict: Result<(), &'static str>) {
        match verdict {
            Ok(()) => self.expected = Some(number),
            Err(code) => self.all[number].stage = Stage::Failed(code),
        }
    }

    pub(super) fn handed(
        &mut self,
        number: usize,
        text: &str,
        peer: &PeerId,
        knows: impl Fn(&PeerId, Net) -> bool,
    ) -> Verdict {
        let Some(signal) = self.all.get_mut(number) else { return Err("receives a signal that was never sent") };
        let Some(read) = &signal.read else { return Err("receives a signal that its hub has not read") };
        let member = read.member;
        if self.expected.take_if(|expected| *expected == number).is_none() && signal.stage != Stage::AtMercy {
            return Err("receives a signal that the oracle does not expect now");
        }
        if text != signal.expected() {
            return Err("receives a signal with changed data");
        }
        if signal.target != *peer {
            return Err("receives a signal for another peer");
        }
        signal.stage = Stage::Handed(Fate::Queued);
        if let (Some(net), true) = (signal.net, member)
            && !knows(&signal.sender, net)
        {
            return Err("receives a signal before its sender's discovery");
        }
        let last = self.last.insert((signal.from, signal.target), number);
        if last.is_some_and(|last| last >= number) {
            return Err("receives signals out of order");
        }
        Ok(())
    }

    pub(super) fn carried_out(&mut self) -> Option<usize> {
        if let Some(number) = self.at_mercy.take()
            && self.all[number].stage == Stage::AtMercy
        {
            self.all[number].stage = Stage::Failed("rate-limited");
        }
        self.expected.take()
    }

    /// Records that a signal's frame has left its queue, written or dropped.
    pub(crate) fn settled(&mut self, number: usize, fate: Fate) {
        self.all[number].stage = Stage::Handed(fate);
    }

    pub(super) fn arrived(&mut self, number: usize) -> Verdict {
        let signal = &mut self.all[number];
        if std::mem::replace(&mut signal.arrived, true) {
            return Err("receives a signal twice");
        }
        Ok(())
    }

    pub(super) fn receipt(&mut self, sid: Sid, id: &str, outcome: &str, now: Duration) -> Verdict {
        let number = id.strip_prefix('r').and_then(|number| number.parse::<usize>().ok());
        let Some(signal) = number.and_then(|number| self.all.get_mut(number)) else {
            // The receipt is for an invalid signal of the client. Invalid signals are not recorded.
            let right = outcome == "invalid-message" || (outcome == "rate-limited" && self.flooders.contains(&sid));
            return if right { Ok(()) } else { Err("receives a receipt without a signal") };
        };
        if signal.from != sid {
            return Err("receives the receipt of another sender");
        }
        if signal.receipt.replace(outcome.to_owned()).is_some() {
            return Err("receives a second receipt");
        }
        let read_at = signal.read.as_ref().map_or(Duration::MAX, |read| read.at);
        let late = now > read_at + limits::RECEIPT_TIMEOUT + 2 * limits::TICK;
        let right = match outcome {
            "unknown" => now >= read_at + limits::RECEIPT_TIMEOUT,
            "rate-limited" => self.flooders.contains(&sid),
            _ if signal.stage == Stage::AtMercy => true,
            _ => signal.outcome() == Some(outcome),
        };
        match (right, late) {
            (false, _) => Err("receives a wrong outcome"),
            (true, true) => Err("receives a receipt too late"),
            (true, false) => Ok(()),
        }
    }

    pub(super) fn refused(&mut self, sid: Sid, code: &str, about: Option<&(String, PeerId)>) {
        if let (Some((kind, target)), "peer-not-found" | "wrong-network" | "slow-peer" | "forbidden") = (about, code) {
            self.refusals.entry((sid, kind.clone(), *target)).or_default().push(code.to_owned());
        }
    }

    /// Checks that senders that are still connected have received a receipt for each signal that has an id and whose
    /// outcome is known. Signals of senders that flood are not checked. Must be called only while nothing is in flight.
    pub(super) fn nothing_moves(&self, here: impl Fn(Sid) -> bool) -> Vec<String> {
        let is_owed = |signal: &Signal| {
            let is_known = signal.outcome().is_some() && signal.stage != Stage::Handed(Fate::Queued);
            let is_silent = signal.id.is_some() && signal.receipt.is_none() && signal.read.is_some();
            is_known && is_silent && here(signal.from) && !self.flooders.contains(&signal.from)
        };
        let owed = self.all.iter().enumerate().filter(|(_, signal)| is_owed(signal));
        owed.map(|(number, signal)| {
            format!("signal {number} is {:?}, but its sender was not notified", signal.outcome())
        })
        .collect()
    }

    pub(super) fn at_rest(&mut self, here: impl Fn(Sid) -> bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut expected = Refusals::new();
        for (number, signal) in self.all.iter().enumerate() {
            if signal.read.is_none() {
                continue;
            }
            if matches!(signal.stage, Stage::Travelling | Stage::AtMercy | Stage::Said | Stage::Handed(Fate::Queued)) {
                wrong.push(format!("signal {number} has no outcome: {:?}", signal.stage));
            }
            if !here(signal.from) || self.flooders.contains(&signal.from) {
                continue;
            }
            match (&signal.id, &signal.receipt) {
                (Some(_), None) => wrong.push(format!("signal {number} has no receipt")),
                (None, Some(_)) => wrong.push(format!("signal {number} has a receipt that was not requested")),
                (None, None) if signal.outcome() != Some("delivered") => {
                    let about = (signal.from, signal.kind.to_owned(), signal.target);
                    expected.entry(about).or_default().push(signal.outcome().unwrap_or("nothing").to_owned());
                }
                _ => {}
            }
        }
        self.refusals.retain(|(sid, ..), _| here(*sid) && !self.flooders.contains(sid));
        self.refusals.values_mut().chain(expected.values_mut()).for_each(|codes| codes.sort());
        self.refusals_expected = expected;
        wrong
    }

    /// Checks that senders received an error for each failed signal without a receipt. Must be called only if the
    /// router has withheld no error because of the limit on errors.
    pub(crate) fn senders_know(&self) -> Option<String> {
        let (told, expected) = (&self.refusals, &self.refusals_expected);
        (told != expected).then(|| format!("senders received {told:?}; expected {expected:?}"))
    }
}
