//! The events of the simulation and their times.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bridge::Subscription;
use super::clients::Saying;

/// An event with a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// The first letter between two machines of a hub arrives.
    Post { hub: usize, life: usize, from: usize, to: usize },
    /// A machine's timer fires.
    Timer { hub: usize, life: usize, machine: usize },
    /// Two hubs that should be linked try to link.
    Dial { a: usize, b: usize },
    /// One side of a link becomes ready.
    EndUp { link: usize, side: usize },
    /// One side of a link notices that the link has ended.
    EndDown { link: usize, side: usize },
    /// The first frame in a link's pipe arrives at this side.
    Frame { link: usize, side: usize },
    /// The queue of this side of a link may have crossed its high or low mark.
    Pressure { link: usize, side: usize },
    /// A link ends.
    Cut { link: usize },
    /// The first frame in flight from a publisher arrives at a subscriber.
    Bridged(Subscription),
    /// The bridge of a hub starts to work, or has failed.
    Bridge { hub: usize, life: usize, up: bool },
    /// The bridge has room again.
    BridgeRoom { hub: usize, life: usize },
    /// A client connects.
    Open { hub: usize, peer: usize },
    /// A client sends a message.
    Say { client: usize, saying: Saying },
    /// A client's socket accepts a frame.
    Write { client: usize },
    /// A client's pong arrives.
    Pong { client: usize, payload: [u8; 8] },
    /// A client's queue has room for more of the roster.
    Room { client: usize },
    /// A client's connection is lost.
    Lose { client: usize },
    /// The hub drains, and this session is due to close.
    Retire { client: usize },
    /// The hub has waited long enough for a client's close frame.
    Linger { client: usize },
    /// A connection has waited for its id for the maximum time.
    Waited { client: usize },
    /// The client ended long ago, so no peer may consider it present any more.
    Forgotten { client: usize },
    /// A relay or a shard does the next slice of long work.
    Continue { hub: usize, life: usize, machine: usize },
    /// The drain of a hub is complete, and the hub ends.
    End { hub: usize, life: usize },
    /// The process of a hub disappears.
    Gone { hub: usize, life: usize },
    /// A hub starts again.
    Start { hub: usize },
    /// A random client acts.
    Deed,
    /// A random fault occurs, or an operator gives an order.
    Trouble,
}

/// The events in the order of their times. Simultaneous events are in the order of their insertion.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    due: BTreeMap<(Duration, u64), Event>,
    count: u64,
}

impl Agenda {
    pub(crate) fn put(&mut self, at: Duration, event: Event) {
        self.count += 1;
        self.due.insert((at, self.count), event);
    }

    /// The next event, if it is not after `until`.
    pub(crate) fn next(&mut self, until: Duration) -> Option<(Duration, Event)> {
        let first = self.due.first_entry().filter(|first| first.key().0 <= until)?;
        let ((at, _), event) = first.remove_entry();
        Some((at, event))
    }
}
