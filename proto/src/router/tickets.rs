//! Outstanding receipts.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU64;
use std::time::Duration;

use crate::id::{NetworkName, PeerId, SessionId};
use crate::keys::Keys;
use crate::limits::RECEIPT_TIMEOUT;

/// The receipts that sessions of this shard requested and have not received.
///
/// A session has at most [`MAX_OPEN_RECEIPTS`](crate::limits::MAX_OPEN_RECEIPTS) tickets, which `Session::open_receipt`
/// counts.
#[derive(Debug)]
pub(super) struct Tickets {
    /// Number of the next ticket.
    next: NonZeroU64,
    open: HashMap<NonZeroU64, Ticket, Keys>,
    /// Ordered by deadline, since all tickets have the same timeout. Entries of closed tickets are removed when they
    /// are due, or when the list is longer than twice the number of open tickets plus [`Self::SLACK`].
    deadlines: VecDeque<(Duration, NonZeroU64)>,
}

/// One outstanding receipt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ticket {
    /// The session that requested the receipt.
    pub(super) session: SessionId,
    /// The `id` that the client chose for the signal.
    pub(super) id: Box<str>,
    /// The target of the signal.
    pub(super) target: PeerId,
    /// The network of the signal.
    pub(super) network: NetworkName,
}

impl Tickets {
    const SLACK: usize = 1024;

    pub(super) fn new(keys: Keys) -> Self {
        Self { next: NonZeroU64::MIN, open: HashMap::with_hasher(keys), deadlines: VecDeque::new() }
    }

    /// Number of open tickets.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.deadlines.is_empty()
    }

    /// Number of open tickets of one session.
    #[expect(clippy::disallowed_methods, reason = "only audits iterate, and they change nothing")]
    pub(super) fn open_of(&self, session: SessionId) -> usize {
        self.open.values().filter(|ticket| ticket.session == session).count()
    }

    /// The time at which [`Self::expire`] may return something.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.front().map(|(at, _)| *at)
    }

    /// Opens a ticket and returns its number. The ticket expires after [`RECEIPT_TIMEOUT`].
    pub(super) fn issue(&mut self, ticket: Ticket, now: Duration) -> NonZeroU64 {
        let number = self.next;
        self.next = number.saturating_add(1);
        self.open.insert(number, ticket);
        if self.deadlines.len() > 2 * self.open.len() + Self::SLACK {
            let open = &self.open;
            self.deadlines.retain(|(_, number)| open.contains_key(number));
        }
        self.deadlines.push_back((now + RECEIPT_TIMEOUT, number));
        number
    }

    /// Closes a ticket. `None` if the ticket has been closed or has expired.
    pub(super) fn close(&mut self, number: NonZeroU64) -> Option<Ticket> {
        self.open.remove(&number)
    }

    /// Closes the next ticket that has expired at `now`. Returns `None` if no further ticket has expired.
    pub(super) fn expire(&mut self, now: Duration) -> Option<Ticket> {
        while let Some((_, number)) = self.deadlines.pop_front_if(|(at, _)| *at <= now) {
            if let Some(ticket) = self.close(number) {
                return Some(ticket);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: Keys = Keys(1, 2);
    const START: Duration = Duration::from_secs(100);

    fn ticket(slot: u32) -> Ticket {
        let session = SessionId { slot, generation: 0 };
        let (target, network) = (PeerId::from_bytes([1; 20]), NetworkName::new("n"));
        Ticket { session, id: "id".into(), target, network }
    }

    #[test]
    fn a_ticket_is_closed_once() {
        let mut tickets = Tickets::new(KEYS);
        let (first, second) = (tickets.issue(ticket(1), START), tickets.issue(ticket(2), START));
        assert_ne!(first, second);
        assert_eq!((tickets.close(first), tickets.close(first)), (Some(ticket(1)), None));
        assert_eq!((tickets.len(), tickets.open_of(ticket(1).session), tickets.open_of(ticket(2).session)), (1, 0, 1));
    }

    #[test]
    fn open_tickets_expire_in_their_order_and_closed_tickets_do_not() {
        let mut tickets = Tickets::new(KEYS);
        let numbers = [0, 1, 2].map(|slot| tickets.issue(ticket(slot), START + Duration::from_secs(slot.into())));
        assert_eq!(tickets.next_deadline(), Some(START + RECEIPT_TIMEOUT));
        tickets.close(numbers[1]);
        let end = START + RECEIPT_TIMEOUT;
        assert_eq!(tickets.expire(end - Duration::from_nanos(1)), None);
        assert_eq!((tickets.expire(end), tickets.expire(end)), (Some(ticket(0)), None));
        let end = end + Duration::from_secs(2);
        assert_eq!((tickets.expire(end), tickets.expire(end)), (Some(ticket(2)), None));
        assert!(tickets.is_empty() && tickets.next_deadline().is_none());
    }

    #[test]
    fn closed_tickets_take_no_lasting_memory() {
        let mut tickets = Tickets::new(KEYS);
        for _ in 0..10 * Tickets::SLACK {
            let number = tickets.issue(ticket(1), START);
            tickets.close(number);
        }
        assert!(tickets.deadlines.len() <= 2 + Tickets::SLACK, "{}", tickets.deadlines.len());
    }
}
