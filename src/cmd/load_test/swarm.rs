//! The peers of a load test, with their connections and the messages that they receive.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use simd_json::Buffers;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::ledger::Ledger;
use super::message;
use super::plan::{Place, Plan};
use super::tally::{Check, Tally};
use crate::client::{ConnectError, Ended, Endpoint, MessageSender, Receiver, SendError};

/// Maximum time from the dial until the hub sends `connected`. The maximum leaves time for many peers that connect at
/// once, and for the takeover of an id.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum time for the hub's answer to a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// All peers, on one thread.
pub(super) struct Swarm {
    pub(super) plan: Plan,
    pub(super) options: Options,
    pub(super) seats: Vec<Seat>,
    pub(super) tally: RefCell<Tally>,
    /// Whether a peer answers each signal of its partner with another signal.
    pub(super) bouncing: Cell<bool>,
    pub(super) epoch: Instant,
    pub(super) last_discovery: Cell<Instant>,
    pub(super) buffers: RefCell<Buffers>,
    pub(super) scratch: RefCell<Vec<u8>>,
    heard: Cell<u64>,
    /// Number of ordered pairs of members in which the first member knows the second.
    known: Cell<u64>,
    /// Number of ordered pairs of members in which the first member should know the second.
    expected: Cell<u64>,
    present: Vec<Cell<u64>>,
    endpoints: Vec<Endpoint>,
}

/// Options of all peers.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) token: Option<String>,
    /// Padding for the data of signals.
    pub(super) padding: String,
    /// Whether the peers 2k and 2k+1 signal only each other.
    pub(super) pairs: bool,
    /// Whether signals request receipts.
    pub(super) receipts: bool,
    /// Maximum time from sending a signal to its arrival; `None` means any time.
    pub(super) latest: Option<Duration>,
    /// With n, one in n members of a network stays while the other members join and leave. With 0, no member stays.
    pub(super) observer_share: usize,
}

/// One peer.
pub(super) struct Seat {
    pub(super) connection: RefCell<Option<OpenConnection>>,
    pub(super) ledger: RefCell<Ledger>,
    pub(super) state: Cell<Membership>,
    /// Whether the other members should know this peer.
    pub(super) member: Cell<bool>,
    /// Notified at each event that the task of this peer may wait for.
    pub(super) changed: Notify,
    pub(super) app_pongs: Cell<u64>,
    /// Number of signals that this peer has sent.
    pub(super) sent: Cell<u64>,
    /// Number of the partner's signals that arrived or were skipped.
    pub(super) received: Cell<u64>,
    /// Signals without a receipt.
    pub(super) unreceipted: RefCell<BTreeSet<u64>>,
}

/// An open connection.
pub(super) struct OpenConnection {
    pub(super) sender: MessageSender,
    reader: JoinHandle<()>,
}

/// A peer's membership in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Membership {
    /// Not announced.
    Outside,
    /// Announced.
    Inside,
    /// The peer is leaving. Discoveries and leaves that a leaving peer still receives are ignored.
    Leaving,
}

impl Swarm {
    pub(super) fn new(plan: Plan, options: Options, endpoints: Vec<Endpoint>) -> Self {
        let seats = (0..plan.peers()).map(|peer| {
            let Place { network, slot } = plan.place(peer);
            let members = plan.members(network);
            let ledger = Ledger::new(slot, members, observers(members, options.observer_share));
            Seat {
                connection: RefCell::default(),
                ledger: RefCell::new(ledger),
                state: Cell::new(Membership::Outside),
                member: Cell::new(false),
                changed: Notify::new(),
                app_pongs: Cell::new(0),
                sent: Cell::new(0),
                received: Cell::new(0),
                unreceipted: RefCell::default(),
            }
        });
        Self {
            seats: seats.collect(),
            tally: RefCell::new(Tally::new()),
            bouncing: Cell::new(false),
            epoch: Instant::now(),
            last_discovery: Cell::new(Instant::now()),
            buffers: RefCell::default(),
            scratch: RefCell::default(),
            heard: Cell::new(0),
            known: Cell::new(0),
            expected: Cell::new(0),
            present: vec![Cell::new(0); plan.networks()],
            endpoints,
            options,
            plan,
        }
    }

    /// Number of members of a network that stay while the other members join and leave. The members that stay have the
    /// first slots of the network.
    pub(super) fn observers(&self, network: usize) -> usize {
        observers(self.plan.members(network), self.options.observer_share)
    }

    pub(super) fn present_observers(&self, network: usize) -> usize {
        let is_there = |slot: &usize| self.seats[self.plan.peer_at(Place { network, slot: *slot })].member.get();
        (0..self.observers(network)).filter(is_there).count()
    }

    pub(super) fn is_observer(&self, peer: usize) -> bool {
        let Place { network, slot } = self.plan.place(peer);
        slot < self.observers(network)
    }

    /// Opens a session. The error is the name under which the failure was counted.
    pub(super) async fn dial(self: &Rc<Self>, peer: usize) -> Result<(), String> {
        let dialled = tokio::time::timeout(DIAL_TIMEOUT, self.open(peer)).await;
        match dialled.unwrap_or_else(|_| Err("timeout".to_owned())) {
            Ok((sender, receiver)) => {
                let reader = tokio::task::spawn_local(self.clone().read(peer, receiver));
                self.seats[peer].connection.replace(Some(OpenConnection { sender, reader }));
                self.tally.borrow_mut().sessions += 1;
                Ok(())
            }
            Err(failure) => {
                self.tally.borrow_mut().dial_failures.add(&failure);
                Err(failure)
            }
        }
    }

    async fn open(&self, peer: usize) -> Result<(MessageSender, Receiver), String> {
        let endpoint = &self.endpoints[peer % self.endpoints.len()];
        let id = self.plan.id(peer);
        let (sender, mut receiver) =
            endpoint.connect(id, self.options.token.as_deref(), DIAL_TIMEOUT).await.map_err(|error| name(&error))?;
        let mut first = receiver.next().await.map_err(|ended| end_name(&ended))?;
        let mut buffers = self.buffers.borrow_mut();
        let heard = message::parse(first.to_mut(), &mut buffers).map_err(|_| "unreadable".to_owned())?;
        let as_whom = heard.data.and_then(|data| data.peer_id).and_then(|id| self.plan.find(id));
        if heard.kind == "connected" && as_whom == Some(peer) {
            Ok((sender, receiver))
        } else {
            Err("not-connected".to_owned())
        }
    }

    async fn read(self: Rc<Self>, peer: usize, mut receiver: Receiver) {
        let ended = loop {
            match receiver.next().await {
                Ok(mut message) => {
                    self.heard.update(|heard| heard + 1);
                    self.hear(peer, message.to_mut());
                }
                Err(ended) => break ended,
            }
        };
        let seat = &self.seats[peer];
        // If the seat has no connection, this program ended the session itself.
        if let Some(connection) = seat.connection.take() {
            self.retire(&connection.sender);
            self.leave(peer, Membership::Outside);
            let mut tally = self.tally.borrow_mut();
            tally.closes.add(&end_name(&ended));
            tally.violate(Check::Closed, || format!("{}: {ended}", self.called(peer)));
        }
        seat.changed.notify_one();
    }

    /// Announces a peer. The peer counts as a member only after [`Self::enter`].
    pub(super) fn announce(&self, peer: usize) {
        let seat = &self.seats[peer];
        self.forget(peer);
        seat.state.set(Membership::Inside);
        self.say(peer, message::membership("announce", self.plan.network_name(peer)).as_bytes());
    }

    /// Records that this peer and the other members should know each other from now on.
    pub(super) fn enter(&self, peer: usize) {
        if !self.seats[peer].member.replace(true) {
            let present = &self.present[self.plan.place(peer).network];
            self.expected.update(|expected| expected + 2 * present.get());
            present.update(|present| present + 1);
        }
    }

    /// Records that the other members should not know this peer from now on. From now on, this peer's view of the
    /// members is not checked.
    pub(super) fn leave(&self, peer: usize, state: Membership) {
        let seat = &self.seats[peer];
        seat.state.set(state);
        self.forget(peer);
        if seat.member.replace(false) {
            let present = &self.present[self.plan.place(peer).network];
            present.update(|present| present - 1);
            self.expected.update(|expected| expected - 2 * present.get());
        }
    }

    fn forget(&self, peer: usize) {
        let mut ledger = self.seats[peer].ledger.borrow_mut();
        self.known.update(|known| known - ledger.known() as u64);
        ledger.clear();
    }

    /// The hubs.
    pub(super) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Whether every member knows all other members of its network, and all signals have arrived.
    pub(super) fn is_exact(&self) -> bool {
        let tally = self.tally.borrow();
        self.known.get() == self.expected.get() && tally.sent == tally.delivered
    }

    /// Number of discoveries after which every member knows all other members of its network.
    pub(super) fn expected(&self) -> u64 {
        self.expected.get()
    }

    /// Number of messages received by all peers.
    pub(super) fn heard(&self) -> u64 {
        self.heard.get()
    }

    pub(super) fn connected(&self) -> usize {
        self.seats.iter().filter(|seat| seat.connection.borrow().is_some()).count()
    }

    pub(super) fn told(&self, discovered: bool) {
        if discovered {
            self.known.update(|known| known + 1);
            self.last_discovery.set(Instant::now());
        } else {
            self.known.update(|known| known - 1);
        }
    }

    /// Queues a message of a peer. Returns false if the message could not be queued.
    pub(super) fn say(&self, peer: usize, text: &[u8]) -> bool {
        let connection = self.seats[peer].connection.borrow();
        let said = connection.as_ref().map_or(Err(SendError::Closed), |connection| connection.sender.send(text));
        if said == Err(SendError::Full) {
            self.tally.borrow_mut().violate(Check::Unsent, || self.called(peer));
        }
        said.is_ok()
    }

    /// Ends a session with a close frame, and waits for the close frame of the hub.
    pub(super) async fn close(&self, peer: usize) {
        self.leave(peer, Membership::Leaving);
        let Some(connection) = self.seats[peer].connection.take() else { return };
        self.retire(&connection.sender);
        // If the queue is full, the close frame is not sent. The wait for an answer then ends after CLOSE_TIMEOUT.
        let _ = connection.sender.close(1000, "");
        let mut reader = connection.reader;
        if tokio::time::timeout(CLOSE_TIMEOUT, &mut reader).await.is_err() {
            reader.abort();
            self.tally.borrow_mut().closes.add("unanswered");
        }
    }

    /// Ends a session without a close frame. With `reset`, the TCP stream is reset. Without, it ends normally (FIN).
    pub(super) fn cut(&self, peer: usize, reset: bool) {
        self.leave(peer, Membership::Outside);
        let Some(connection) = self.seats[peer].connection.take() else { return };
        self.retire(&connection.sender);
        connection.sender.cut(reset);
        connection.reader.abort();
    }

    fn retire(&self, sender: &MessageSender) {
        self.tally.borrow_mut().pongs += sender.pongs();
    }

    /// Compares every member's view with the actual members, and records the differences.
    pub(super) fn compare_all(&self) {
        let mut tally = self.tally.borrow_mut();
        for (peer, seat) in self.seats.iter().enumerate().filter(|(_, seat)| seat.member.get()) {
            let network = self.plan.place(peer).network;
            let other = |slot| self.plan.peer_at(Place { network, slot });
            let members = self.plan.members(network);
            let difference = seat.ledger.borrow().compare(members, |slot| self.seats[other(slot)].member.get());
            for slot in difference.missing {
                tally.violate(Check::Missing, || {
                    format!("{} did not discover {}", self.called(peer), self.called(other(slot)))
                });
            }
            for slot in difference.ghosts {
                tally.violate(Check::StillThere, || {
                    format!("{} did not receive the leave of {}", self.called(peer), self.called(other(slot)))
                });
            }
        }
    }

    /// The name of a peer in examples of violations consists of its number and its id. The log of the hub has the same
    /// id.
    pub(super) fn called(&self, peer: usize) -> String {
        format!("peer {peer} ({})", self.plan.id(peer))
    }
}

fn observers(members: usize, share: usize) -> usize {
    members.checked_div(share).map_or(0, |observers| observers.max(1).min(members))
}

fn name(error: &ConnectError) -> String {
    match error {
        ConnectError::Tcp(error) => error.kind().to_string(),
        ConnectError::Tls(_) => "tls".to_owned(),
        ConnectError::Refused { status, .. } => format!("http {}", status.as_u16()),
        ConnectError::Http(_) | ConnectError::Handshake(_) | ConnectError::NoSubprotocol { .. } => {
            "handshake".to_owned()
        }
        ConnectError::Late => "timeout".to_owned(),
        ConnectError::Asked => "closed".to_owned(),
        ConnectError::NoChallenge | ConnectError::Unproven => "unproven".to_owned(),
        ConnectError::Request(_) => "request".to_owned(),
    }
}

fn end_name(ended: &Ended) -> String {
    match ended {
        Ended::Closed { code, .. } => code.to_string(),
        Ended::Lost(_) => "lost".to_owned(),
    }
}
