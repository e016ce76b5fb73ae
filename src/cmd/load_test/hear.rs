//! Processes the messages that peers receive.

use std::time::{Duration, Instant};

use super::ledger::Anomaly;
use super::message::{self, Heard, Signal};
use super::plan::Place;
use super::swarm::{Membership, Swarm};
use super::tally::Check;

impl Swarm {
    /// Processes one message of the hub. The buffer of the message is overwritten.
    pub(super) fn hear(&self, peer: usize, text: &mut [u8]) {
        let mut buffers = self.buffers.borrow_mut();
        let Ok(heard) = message::parse(text, &mut buffers) else {
            let mut tally = self.tally.borrow_mut();
            return tally.violate(Check::Unreadable, || format!("{} received invalid JSON", self.called(peer)));
        };
        match heard.kind {
            "peer-discovered" => self.hear_of(peer, &heard, subject(&heard), true),
            "peer-disconnected" => self.hear_of(peer, &heard, subject(&heard), false),
            "goodbye" => self.hear_of(peer, &heard, heard.from_peer_id, false),
            "offer" | "answer" | "ice-candidate" => self.hear_signal(peer, &heard),
            "receipt" => self.hear_receipt(peer, &heard),
            "error" => {
                let code = heard.data.and_then(|data| data.code).unwrap_or("none");
                let mut tally = self.tally.borrow_mut();
                tally.errors.add(code);
                tally.violate(Check::Error, || format!("{}: {code}", self.called(peer)));
            }
            "pong" => {
                self.seats[peer].app_pongs.update(|pongs| pongs + 1);
                self.seats[peer].changed.notify_one();
            }
            "connected" | "go-away" => {}
            kind => self
                .tally
                .borrow_mut()
                .violate(Check::Unreadable, || format!("{} received the type {kind:?}", self.called(peer))),
        }
    }

    /// Processes a discovery or a leave.
    fn hear_of(&self, peer: usize, heard: &Heard<'_>, subject: Option<&str>, discovered: bool) {
        let seat = &self.seats[peer];
        let mut tally = self.tally.borrow_mut();
        match seat.state.get() {
            Membership::Inside if discovered => tally.discoveries += 1,
            Membership::Inside => tally.leaves += 1,
            Membership::Leaving => return,
            Membership::Outside => {
                return tally.violate(Check::ToldOutside, || format!("{} received {}", self.called(peer), heard.kind));
            }
        }
        let other = subject.and_then(|subject| self.plan.find(subject));
        let there = other.map(|other| self.plan.place(other));
        let Place { network, .. } = self.plan.place(peer);
        let noted = match there {
            Some(there) if there.network == network && heard.network_name == Some(self.plan.network_name(peer)) => {
                let mut ledger = seat.ledger.borrow_mut();
                if discovered { ledger.discovered(there.slot) } else { ledger.left(there.slot) }
            }
            Some(_) | None => Err(Anomaly::Stranger),
        };
        match noted {
            Ok(()) => {
                self.told(discovered);
                if seat.ledger.borrow().knows_watched() {
                    seat.changed.notify_one();
                }
            }
            Err(anomaly) => {
                let check = match anomaly {
                    Anomaly::Duplicate => Check::Duplicate,
                    Anomaly::Ghost => Check::Ghost,
                    Anomaly::Itself => Check::Itself,
                    Anomaly::Stranger => Check::Stranger,
                };
                tally.violate(check, || {
                    let other = other.map_or_else(|| format!("{subject:?}"), |other| self.called(other));
                    format!("{} received {} of {other}", self.called(peer), heard.kind)
                });
            }
        }
    }

    fn hear_signal(&self, peer: usize, heard: &Heard<'_>) {
        let from = heard.from_peer_id.and_then(|from| self.plan.find(from));
        let same_network = heard.network_name == Some(self.plan.network_name(peer));
        let for_us = heard.target_peer_id.and_then(|target| self.plan.find(target)) == Some(peer);
        let data = heard.data.as_ref().and_then(|data| data.n.zip(data.t));
        let (Some(from), true, true, Some((number, sent_at))) = (from, same_network, for_us, data) else {
            let mut tally = self.tally.borrow_mut();
            return tally.violate(Check::Misaddressed, || format!("{} received {heard:?}", self.called(peer)));
        };
        {
            let mut tally = self.tally.borrow_mut();
            tally.delivered += 1;
            let nanos = self.nanos().saturating_sub(sent_at);
            tally.latency(nanos);
            if self.options.latest.is_some_and(|latest| Duration::from_nanos(nanos) > latest) {
                let ms = nanos / 1_000_000;
                tally.violate(Check::Late, || format!("{} received a signal after {ms} ms", self.called(peer)));
            }
        }
        if self.options.pairs {
            if from != partner(peer) {
                let mut tally = self.tally.borrow_mut();
                return tally.violate(Check::Misaddressed, || format!("{} received {heard:?}", self.called(peer)));
            }
            // A repeated signal is not answered, because each answer would add a signal that goes back and forth
            // forever.
            if self.check_order(peer, number) && self.bouncing.get() {
                self.signal(peer, from, if peer.is_multiple_of(2) { "offer" } else { "answer" });
            }
        }
    }

    /// Checks that the partner's signals arrive in order, each exactly once. Returns false for a signal that arrives
    /// again, or after a later signal.
    fn check_order(&self, peer: usize, number: u64) -> bool {
        let received = &self.seats[peer].received;
        let next = received.get();
        if number != next {
            let check = if number > next { Check::SignalSkipped } else { Check::SignalRepeated };
            self.tally.borrow_mut().violate(check, || {
                format!("{} received signal {number} of its partner instead of {next}", self.called(peer))
            });
        }
        received.set(next.max(number + 1));
        number >= next
    }

    fn hear_receipt(&self, peer: usize, heard: &Heard<'_>) {
        let data = heard.data.as_ref();
        let outcome = data.and_then(|data| data.outcome).unwrap_or("none");
        let number = data.and_then(|data| data.id).and_then(|id| id.parse().ok());
        let asked = number.is_some_and(|number| self.seats[peer].unreceipted.borrow_mut().remove(&number));
        let mut tally = self.tally.borrow_mut();
        tally.receipts.add(outcome);
        if !asked {
            tally.violate(Check::ReceiptUnasked, || {
                format!("{} received a receipt for {number:?}: {outcome}", self.called(peer))
            });
        } else if !matches!(outcome, "delivered" | "forwarded") {
            tally.violate(Check::NotDelivered, || format!("{}: {outcome}", self.called(peer)));
        }
    }

    /// Sends a signal. Returns false if the signal could not be queued.
    ///
    /// Signals to the partner are numbered from 0, so that the partner can check their order.
    pub(super) fn signal(&self, peer: usize, target: usize, kind: &str) -> bool {
        let seat = &self.seats[peer];
        let number = seat.sent.get();
        let mut text = self.scratch.borrow_mut();
        Signal {
            kind,
            target: self.plan.id(target).to_hex(),
            network: self.plan.network_name(peer),
            number,
            sent_at_nanos: self.nanos(),
            wants_receipt: self.options.receipts,
            padding: &self.options.padding,
        }
        .write(&mut text);
        if !self.say(peer, &text) {
            return false;
        }
        seat.sent.set(number + 1);
        self.tally.borrow_mut().sent += 1;
        if self.options.receipts {
            seat.unreceipted.borrow_mut().insert(number);
        }
        true
    }

    fn nanos(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Time from `begin` to the last discovery.
    pub(super) fn until_last_discovery(&self, begin: Instant) -> Duration {
        self.last_discovery.get().saturating_duration_since(begin)
    }
}

fn subject<'a>(heard: &Heard<'a>) -> Option<&'a str> {
    heard.data.as_ref().and_then(|data| data.peer_id)
}

/// The other peer of a pair.
pub(super) fn partner(peer: usize) -> usize {
    peer ^ 1
}
