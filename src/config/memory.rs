//! Computes the defaults of the memory budgets from the memory that the process may use.

use proto::limits::{
    DEFAULT_ANNOUNCE_BUDGET_BYTES, DEFAULT_MESH_PRESENCE_BYTES, DEFAULT_RECEIVE_BUDGET_BYTES,
    DEFAULT_SEND_BUDGET_BYTES, DEFAULT_SEND_QUEUE_BYTES, ENVELOPE_ROOM, LEAST_DEFAULT_PRESENCE_BYTES,
    LEAST_LINK_QUEUES_BYTES, LEAST_PRESENCE_BYTES, LEAST_SEND_FLOOR_BYTES, LINK_FRAME_BYTES, LINK_PARTIAL_BYTES,
    LINK_QUEUES_BYTES, MAX_AHEAD_BYTES, MAX_HELD_BYTES, MEMORY_RESERVE_BYTES, PRESENCE_BYTES_PER_CONNECTION,
    SEND_FLOOR_BYTES,
};

/// The memory budgets that apply if the settings are not set.
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
    /// Data can take three times as much memory as its bytes, because a buffer that grows doubles its size, and the old
    /// buffer remains until its bytes are copied. So the budgets together are at most a third of the usable memory,
    /// which is all memory except the reserve. Queues get at most a sixth of the usable memory. Incomplete messages and
    /// announcements get at most a twelfth each. On a hub of a mesh, [`MeshBudgets`] get a quarter of the usable
    /// memory, and the fractions of queues, messages and announcements apply to the other three quarters.
    pub(super) fn of(room: Option<u64>, in_mesh: bool) -> Self {
        let usable = usable(room) / 4 * if in_mesh { 3 } else { 4 };
        let send = DEFAULT_SEND_BUDGET_BYTES.min(usable / 6);
        Self {
            send_queue: DEFAULT_SEND_QUEUE_BYTES.min(send / 2),
            send,
            receive: DEFAULT_RECEIVE_BUDGET_BYTES.min(usable / 12),
            announce: DEFAULT_ANNOUNCE_BUDGET_BYTES.min(usable / 12),
        }
    }
}

/// The memory budgets for data that other hubs can make this hub store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MeshBudgets {
    /// Bytes for the peers of other hubs (MESH_PRESENCE_BYTES).
    pub presence: usize,
    /// Bytes of presence changes that wait for earlier changes.
    pub ahead: usize,
    /// Bytes of signals that wait for earlier signals.
    pub held: usize,
    /// Bytes queued for all links together.
    pub link_queues: usize,
    /// Memory for incomplete messages of all links together.
    pub link_partial: usize,
}

impl MeshBudgets {
    /// The budgets of a process that may use this much additional memory, with these values of MAX_CONNECTIONS and
    /// MAX_MESSAGE_BYTES.
    ///
    /// Data of the mesh can take twice as much memory as its bytes, because a snapshot is stored beside the replica
    /// that it replaces, and a buffer that grows doubles its size. The mesh may use a quarter of the usable memory,
    /// which is all memory except the reserve. So the budgets of the mesh together are at most an eighth of the usable
    /// memory, unless their minimums need more: 1/16 for presence, 1/32 for queues, 1/64 for incomplete messages, 1/128
    /// for presence changes that wait, and 1/128 for signals that wait.
    pub(super) fn of(room: Option<u64>, connections: usize, max_message: usize) -> Self {
        let usable = usable(room);
        let presence = connections.saturating_mul(PRESENCE_BYTES_PER_CONNECTION);
        let presence = presence.clamp(LEAST_DEFAULT_PRESENCE_BYTES, DEFAULT_MESH_PRESENCE_BYTES);
        // The size of two messages of the maximum length that a hub with the same settings sends.
        let two_messages = 2 * (max_message + LINK_FRAME_BYTES + ENVELOPE_ROOM);
        Self {
            presence: presence.min(usable / 16).max(LEAST_PRESENCE_BYTES),
            ahead: MAX_AHEAD_BYTES.min(usable / 128).max(LEAST_PRESENCE_BYTES),
            held: MAX_HELD_BYTES.min(usable / 128).max(LEAST_PRESENCE_BYTES),
            link_queues: LINK_QUEUES_BYTES.min(usable / 32).max(LEAST_LINK_QUEUES_BYTES),
            link_partial: LINK_PARTIAL_BYTES.min((usable / 64).max(two_messages)),
        }
    }
}

/// The memory that remains after the reserve is subtracted. The reserve is at most half of the memory.
fn usable(room: Option<u64>) -> usize {
    let room = room.map_or(usize::MAX, |room| usize::try_from(room).unwrap_or(usize::MAX));
    room - MEMORY_RESERVE_BYTES.min(room / 2)
}

/// Bytes that each connection may queue even if the budget is exhausted. With the default budget, a connection may
/// queue [`SEND_FLOOR_BYTES`]. A smaller budget is divided by the number of connections. The quotient is raised to
/// [`LEAST_SEND_FLOOR_BYTES`], or lowered to [`SEND_FLOOR_BYTES`].
pub(super) fn send_floor(budget: usize, connections: usize) -> usize {
    match budget {
        DEFAULT_SEND_BUDGET_BYTES.. => SEND_FLOOR_BYTES,
        _ => (budget / connections.max(1)).clamp(LEAST_SEND_FLOOR_BYTES, SEND_FLOOR_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use proto::limits::{DEFAULT_MAX_CONNECTIONS, DEFAULT_MAX_MESSAGE_BYTES, LARGEST_MAX_MESSAGE_BYTES};

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_process_without_a_limit_has_the_default_budgets() {
        for room in [None, Some(u64::MAX), Some(64 << 30)] {
            for in_mesh in [false, true] {
                let budgets = MemoryBudgets::of(room, in_mesh);
                assert_eq!(budgets.send, DEFAULT_SEND_BUDGET_BYTES);
                assert_eq!(budgets.receive, DEFAULT_RECEIVE_BUDGET_BYTES);
                assert_eq!(budgets.announce, DEFAULT_ANNOUNCE_BUDGET_BYTES);
                assert_eq!(budgets.send_queue, DEFAULT_SEND_QUEUE_BYTES);
            }
            let budgets = MeshBudgets::of(room, DEFAULT_MAX_CONNECTIONS, DEFAULT_MAX_MESSAGE_BYTES);
            assert_eq!(budgets.presence, LEAST_DEFAULT_PRESENCE_BYTES);
            assert_eq!((budgets.ahead, budgets.held), (MAX_AHEAD_BYTES, MAX_HELD_BYTES));
            assert_eq!((budgets.link_queues, budgets.link_partial), (LINK_QUEUES_BYTES, LINK_PARTIAL_BYTES));
        }
    }

    #[test]
    fn the_budget_for_peers_of_other_hubs_grows_with_max_connections() {
        let presence = |connections| MeshBudgets::of(None, connections, DEFAULT_MAX_MESSAGE_BYTES).presence;
        assert_eq!(presence(1), 128 << 20);
        assert_eq!(presence(2_048), 256 << 20);
        assert_eq!(presence(8_192), DEFAULT_MESH_PRESENCE_BYTES);
        assert_eq!(presence(usize::MAX), DEFAULT_MESH_PRESENCE_BYTES);
    }

    #[test]
    fn budgets_and_their_overhead_fit_into_the_limit() {
        for room in [0, 10 * MIB, 50 * MIB, 100 * MIB, 250 * MIB, 500 * MIB, 1 << 30, 4 << 30, 16 << 30] {
            for in_mesh in [false, true] {
                let MemoryBudgets { send_queue, send, receive, announce } = MemoryBudgets::of(Some(room), in_mesh);
                let own = 3 * (send + receive + announce) as u64;
                let MeshBudgets { presence, ahead, held, link_queues, link_partial } =
                    MeshBudgets::of(Some(room), 100_000, DEFAULT_MAX_MESSAGE_BYTES);
                let mesh = 2 * (presence + ahead + held + link_queues + link_partial) as u64;
                // Below 200 MiB of memory, the minimum budgets of the mesh can exceed its share, by 20 MiB at most.
                let reserve = (MEMORY_RESERVE_BYTES as u64).min(room / 2);
                let slack = if room < 200 * MIB { 20 * MIB } else { 0 };
                assert!(own + if in_mesh { mesh } else { 0 } <= room - reserve + slack, "{room}: {own} + {mesh}");
                assert!(send_queue <= send, "{room}");
            }
        }
    }

    #[test]
    fn the_minimums_of_a_mesh_are_usable() {
        let MeshBudgets { presence, ahead, held, link_queues, link_partial } =
            MeshBudgets::of(Some(0), 0, LARGEST_MAX_MESSAGE_BYTES);
        assert!([presence, ahead, held] == [LEAST_PRESENCE_BYTES; 3] && link_queues == LEAST_LINK_QUEUES_BYTES);
        assert!(link_partial > 2 * LARGEST_MAX_MESSAGE_BYTES && link_partial <= LINK_PARTIAL_BYTES);
    }

    #[test]
    fn send_floors_shrink_with_the_budget_down_to_a_minimum() {
        let budget = DEFAULT_SEND_BUDGET_BYTES;
        assert_eq!(send_floor(budget, 100_000), SEND_FLOOR_BYTES);
        assert_eq!(send_floor(budget / 8, 1000), budget / 8 / 1000);
        assert_eq!(send_floor(budget / 8, 100_000), LEAST_SEND_FLOOR_BYTES);
        assert_eq!(send_floor(budget / 8, 1), SEND_FLOOR_BYTES);
    }
}
