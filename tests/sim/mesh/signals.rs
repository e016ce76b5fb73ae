//! The oracle of signals. Each signal must be delivered unchanged, at most once and in order, and have exactly one
//! correct outcome.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::{PeerId, limits};

use super::clients::{Client, Phase};
use super::trouble::Trouble;
use super::world::World;
use crate::oracle::Net;

#[derive(Debug)]
pub(crate) struct Signal {
    pub(crate) from: usize,
    pub(crate) target: PeerId,
    net: Net,
    kind: &'static str,
    wants_receipt: bool,
    read: Duration,
    /// The message that the target must receive, byte for byte.
    text: String,
    /// The sender's stay in the network, if it was a member.
    member: Option<usize>,
    /// The session of the target that the sender knew when it sent the signal.
    knew: Option<usize>,
    pub(crate) handed: Option<usize>,
    written: bool,
    pub(crate) receipt: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Signals {
    pub(crate) all: Vec<Signal>,
    /// The last delivered signal between two sessions.
    last: BTreeMap<(usize, usize), usize>,
    /// Errors about signals, by sender, type and target.
    errors: BTreeMap<(usize, String, PeerId), usize>,
}

type Verdict = Result<(), &'static str>;

impl Signals {
    pub(crate) fn written(&mut self, number: usize) {
        self.all[number].written = true;
    }

    pub(crate) fn undelivered(&mut self, number: usize) {
        self.all[number].written = false;
    }
}

impl World {
    /// Sends a signal of a client, which the hub reads at once.
    pub(crate) fn signal(&mut self, client: usize, target: PeerId, net: Net) -> usize {
        let wants_receipt = self.rng.one_in(2);
        self.signal_with(client, target, net, wants_receipt)
    }

    pub(crate) fn signal_with(&mut self, client: usize, target: PeerId, net: Net, wants_receipt: bool) -> usize {
        let number = self.signals.all.len();
        let kind = *self.rng.pick(&["offer", "answer", "ice-candidate"]);
        let network = serde_json::to_string(self.plan.networks[net]).expect("a string");
        let Client { peer: sender, hub, .. } = self.clients[client];
        let data = format!(r#"{{"s":{number},"d":[1.0, "é"]}}"#);
        let peers = format!(r#""fromPeerId":"{sender}","targetPeerId":"{target}""#);
        let at = self.time(hub).wall_ms;
        let text = format!(r#"{{"type":"{kind}","data":{data},{peers},"networkName":{network},"timestamp":{at}}}"#);
        let member = self.clients[client].views.get(&net).map(|view| view.stay);
        let told = self.clients[client].views.get(&net).and_then(|view| view.told.get(&target));
        let knew = told.map(|&version| self.versions[version as usize].client);
        let from = client;
        let (handed, written, receipt, read) = (None, false, None, self.now);
        let signal =
            Signal { from, target, net, kind, wants_receipt, read, text, member, knew, handed, written, receipt };
        self.signals.all.push(signal);
        let id = if wants_receipt { format!(r#","id":"r{number}""#) } else { String::new() };
        self.tell_message(
            client,
            &format!(r#"{{"type":"{kind}","targetPeerId":"{target}","networkName":{network},"data":{data}{id}}}"#),
        );
        number
    }

    /// Checks a signal that is queued for its target.
    pub(crate) fn is_signalled(&mut self, client: usize, number: usize, text: &str) -> Verdict {
        let Some(signal) = self.signals.all.get_mut(number) else {
            return Err("receives a signal that was never sent");
        };
        if signal.target != self.clients[client].peer {
            return Err("receives a signal for another peer");
        }
        if text != signal.text {
            return Err("receives a signal with changed data");
        }
        if signal.handed.replace(client).is_some() {
            return Err("receives a signal twice");
        }
        let (from, net, member) = (signal.from, signal.net, signal.member);
        if self.signals.last.insert((from, client), number).is_some_and(|last| last > number) {
            return Err("receives signals out of order");
        }
        // If sender and target are members, the target must have discovered the sender in the stay in which the sender
        // sent the signal. The target must not have received the sender's leave.
        if let (Some(view), Some(stay)) = (self.clients[client].views.get(&net), member)
            && self.clients[from].peer != self.clients[client].peer
        {
            let told = view.told.get(&self.clients[from].peer).map(|&version| &self.versions[version as usize]);
            if told.is_none_or(|told| told.client != from || !told.stays.contains(&stay)) {
                return Err("receives a signal before its sender's discovery or after its leave");
            }
        }
        Ok(())
    }

    pub(crate) fn has_receipt(&mut self, client: usize, id: &str, outcome: &str) -> Verdict {
        let number = id.strip_prefix('r').and_then(|number| number.parse::<usize>().ok());
        let Some(number) = number.filter(|&number| number < self.signals.all.len()) else {
            return Err("receives a receipt without a signal");
        };
        let signal = &mut self.signals.all[number];
        if signal.from != client || !signal.wants_receipt {
            return Err("receives the receipt of another sender");
        }
        if signal.receipt.replace(outcome.to_owned()).is_some() {
            return Err("receives a second receipt");
        }
        let (stopped, crowded) = (self.plan.has(Trouble::Stop), self.plan.is_crowded());
        let (knew, read) = (signal.knew, signal.read);
        let late = self.has_left(number);
        let signal = &self.signals.all[number];
        if self.now > signal.read + limits::RECEIPT_TIMEOUT + 2 * limits::TICK && !stopped {
            return Err("receives a receipt too late");
        }
        let written = signal.written;
        if outcome == "peer-not-found"
            && self.plan.calm
            && knew.is_some_and(|session| self.is_still_there(session, read))
        {
            return Err("receives peer-not-found for a peer that it knows");
        }
        match (outcome, written) {
            ("delivered", false) => Err("receives delivered for a signal that was not delivered"),
            ("network-full" | "peer-not-found" | "wrong-network" | "slow-peer", true) => {
                Err("receives a failure for a signal that was delivered")
            }
            ("unreachable", false) if late => Ok(()),
            ("unreachable" | "unknown", _) if self.plan.calm => {
                Err("receives unreachable or unknown in a run without faults")
            }
            ("delivered" | "peer-not-found" | "wrong-network" | "slow-peer" | "unreachable" | "unknown", _) => Ok(()),
            ("network-full", false) if crowded => Ok(()),
            _ => Err("receives an undefined outcome"),
        }
    }

    /// Whether a signal's sender has left the network after it sent the signal, or may have lost its id to another
    /// session.
    fn has_left(&self, number: usize) -> bool {
        let Signal { from, net, member, .. } = self.signals.all[number];
        let sender = &self.clients[from];
        let remembered = |c: &Client| c.ended.is_none_or(|(_, forgotten)| forgotten >= self.now);
        member.is_some_and(|stay| sender.views.get(&net).is_none_or(|view| view.stay != stay))
            || self.clients.iter().any(|c| c.peer == sender.peer && c.number() != from && remembered(c))
    }

    /// Whether this session is open and has been the only session of its peer since the time `since`.
    fn is_still_there(&self, session: usize, since: Duration) -> bool {
        let here = &self.clients[session];
        let gone = |other: &super::clients::Client| other.ended.is_some_and(|(_, forgotten)| forgotten < since);
        let mut others = self.clients.iter().filter(|other| other.peer == here.peer && other.number() != session);
        here.phase == Phase::Open && !here.lost && others.all(gone)
    }

    pub(crate) fn has_error(&mut self, client: usize, code: &str, about: Option<&(String, PeerId)>) -> Verdict {
        let Some((kind, target)) = about else {
            let may_be_full = self.plan.is_crowded() && code == "network-full";
            return if may_be_full { Ok(()) } else { Err("receives an error without a failure") };
        };
        *self.signals.errors.entry((client, kind.clone(), *target)).or_default() += 1;
        // The error names the target, but not the signal. So an error may concern any signal of its type to this
        // target.
        let mut sent = (0..self.signals.all.len()).filter(|&number| {
            let signal = &self.signals.all[number];
            (signal.from, signal.kind, signal.target) == (client, kind.as_str(), *target)
        });
        match code {
            "unreachable" if self.plan.calm && sent.any(|number| self.has_left(number)) => Ok(()),
            "unreachable" | "unknown" if self.plan.calm => {
                Err("receives unreachable or unknown in a run without faults")
            }
            "peer-not-found" | "wrong-network" | "slow-peer" | "unreachable" | "unknown" => Ok(()),
            "network-full" if self.plan.is_crowded() => Ok(()),
            _ => Err("receives an error that is not an outcome of signals"),
        }
    }

    /// Checks that each sender that is still connected has received all receipts, and that no sender has received more
    /// errors than it may have failed signals.
    pub(crate) fn senders_know(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut failed: BTreeMap<_, usize> = BTreeMap::new();
        for (number, signal) in self.signals.all.iter().enumerate() {
            let there = self.clients[signal.from].phase == Phase::Open;
            if there && signal.wants_receipt && signal.receipt.is_none() {
                wrong.push(format!("signal {number} of c{} has no receipt", signal.from));
            }
            if !signal.wants_receipt && !signal.written {
                *failed.entry((signal.from, signal.kind.to_owned(), signal.target)).or_default() += 1;
            }
            if !signal.wants_receipt && signal.written && !self.plan.calm {
                // In a run with faults, the outcome `delivered` may be lost on its way to the sender's hub.
                *failed.entry((signal.from, signal.kind.to_owned(), signal.target)).or_default() += 1;
            }
        }
        for (about, count) in &self.signals.errors {
            let most = failed.get(about).copied().unwrap_or_default();
            if *count > most {
                wrong.push(format!("{about:?} has {count} errors, but only {most} failures"));
            }
        }
        wrong
    }
}
