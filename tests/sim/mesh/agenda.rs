//! What is to happen, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bridge::Channel;
use super::clients::Saying;

/// Something that happens at its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// The first letter from one machine of a hub to another arrives.
    Post { hub: usize, life: usize, from: usize, to: usize },
    /// A machine's timer.
    Timer { hub: usize, life: usize, machine: usize },
    /// Two hubs that should be linked try to be.
    Dial { a: usize, b: usize },
    /// One end of a link is ready.
    EndUp { link: usize, side: usize },
    /// One end of a link hears that it has ended.
    EndDown { link: usize, side: usize },
    /// The first frame in a link's pipe arrives at this side.
    Frame { link: usize, side: usize },
    /// What waits on this side of a link may have become too much, or little again.
    Pressure { link: usize, side: usize },
    /// A link ends.
    Cut { link: usize },
    /// The first frame of a publisher to a subscriber arrives.
    Bridged { from: usize, to: usize, channel: Channel },
    /// A hub hears that its bridge works, or does not.
    Bridge { hub: usize, life: usize, up: bool },
    /// The bridge takes more.
    BridgeRoom { hub: usize, life: usize },
    /// A client connects.
    Open { hub: usize, peer: usize },
    /// A client speaks.
    Say { client: usize, saying: Saying },
    /// A client's socket takes a frame.
    Write { client: usize },
    /// A client's pong arrives.
    Pong { client: usize, payload: [u8; 8] },
    /// A client's queue has room for more of the roster.
    Room { client: usize },
    /// A client's connection is lost.
    Lose { client: usize },
    /// It is a session's turn to go.
    Retire { client: usize },
    /// The hub has waited long enough for a client's close frame.
    Linger { client: usize },
    /// A newcomer has waited for as long as it may have to.
    Waited { client: usize },
    /// Nobody may believe any longer that this client is there.
    Forgotten { client: usize },
    /// A hub that drains ends.
    End { hub: usize, life: usize },
    /// The process of a hub is gone.
    Gone { hub: usize, life: usize },
    /// A hub starts anew.
    Start { hub: usize },
    /// Clients do something.
    Deed,
    /// Something goes wrong.
    Trouble,
}

/// What is to happen, in order; at the same moment, in the order in which it was put here.
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

    /// What happens next, if that is not after `until`.
    pub(crate) fn next(&mut self, until: Duration) -> Option<(Duration, Event)> {
        let first = self.due.first_entry().filter(|first| first.key().0 <= until)?;
        let ((at, _), event) = first.remove_entry();
        Some((at, event))
    }
}
