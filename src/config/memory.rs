//! Defaults of the budgets of memory, from the memory that the process may use.

use proto::limits::{
    DEFAULT_ANNOUNCE_BUDGET_BYTES, DEFAULT_RECEIVE_BUDGET_BYTES, DEFAULT_SEND_BUDGET_BYTES, DEFAULT_SEND_QUEUE_BYTES,
    LEAST_SEND_FLOOR_BYTES, MEMORY_RESERVE_BYTES, SEND_FLOOR_BYTES,
};

/// The budgets of memory for settings that are not set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MemoryBudgets {
    /// SEND_QUEUE_BYTES.
    pub(super) send_queue: usize,
    /// SEND_BUDGET_BYTES.
    pub(super) send: usize,
    /// RECEIVE_BUDGET_BYTES.
    pub(super) receive: usize,
    /// ANNOUNCE_BUDGET_BYTES.
    pub(super) announce: usize,
}

impl MemoryBudgets {
    /// The budgets of a process that may use this much additional memory. `None` means any amount.
    ///
    /// Counted bytes take up to three times as much memory: a buffer that grows doubles, and its old bytes remain until
    /// they are copied. So the budgets together are a third of the memory that remains without the reserve: a sixth for
    /// queues, a twelfth each for incomplete messages and announcements.
    pub(super) fn of(room: Option<u64>) -> Self {
        let room = room.map_or(usize::MAX, |room| usize::try_from(room).unwrap_or(usize::MAX));
        let usable = room - MEMORY_RESERVE_BYTES.min(room / 2);
        let send = DEFAULT_SEND_BUDGET_BYTES.min(usable / 6);
        Self {
            send_queue: DEFAULT_SEND_QUEUE_BYTES.min(send / 2),
            send,
            receive: DEFAULT_RECEIVE_BUDGET_BYTES.min(usable / 12),
            announce: DEFAULT_ANNOUNCE_BUDGET_BYTES.min(usable / 12),
        }
    }
}

/// Bytes that each of `connections` may queue although the budget is exhausted: together at most as much as the budget,
/// on a hub with little memory.
pub(super) fn send_floor(budget: usize, connections: usize) -> usize {
    match budget {
        DEFAULT_SEND_BUDGET_BYTES.. => SEND_FLOOR_BYTES,
        _ => (budget / connections.max(1)).clamp(LEAST_SEND_FLOOR_BYTES, SEND_FLOOR_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_process_without_a_limit_has_the_default_budgets() {
        for room in [None, Some(u64::MAX), Some(64 << 30)] {
            let budgets = MemoryBudgets::of(room);
            assert_eq!(budgets.send, DEFAULT_SEND_BUDGET_BYTES);
            assert_eq!(budgets.receive, DEFAULT_RECEIVE_BUDGET_BYTES);
            assert_eq!(budgets.announce, DEFAULT_ANNOUNCE_BUDGET_BYTES);
            assert_eq!(budgets.send_queue, DEFAULT_SEND_QUEUE_BYTES);
        }
    }

    #[test]
    fn budgets_and_their_overhead_fit_into_the_limit() {
        for room in [0, 10 * MIB, 50 * MIB, 100 * MIB, 250 * MIB, 500 * MIB, 1 << 30, 4 << 30] {
            let MemoryBudgets { send_queue, send, receive, announce } = MemoryBudgets::of(Some(room));
            assert!(3 * (send + receive + announce) as u64 <= room, "{room}");
            assert!(send_queue <= send, "{room}");
        }
    }

    #[test]
    fn floors_shrink_with_the_budget_but_not_below_a_few_offers() {
        let budget = DEFAULT_SEND_BUDGET_BYTES;
        assert_eq!(send_floor(budget, 100_000), SEND_FLOOR_BYTES);
        assert_eq!(send_floor(budget / 8, 1000), budget / 8 / 1000);
        assert_eq!(send_floor(budget / 8, 100_000), LEAST_SEND_FLOOR_BYTES);
        assert_eq!(send_floor(budget / 8, 1), SEND_FLOOR_BYTES);
    }
}
