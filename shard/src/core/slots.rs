//! The sessions of a shard, by their handles.

use proto::{SessionId, SessionPhase};

use crate::session::SocketSession;

/// The sessions of a shard. After a session is removed, its slot is used again, under a handle with another generation.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    /// The slots that the next sessions use.
    free: Vec<u32>,
    /// Number of slots without a session that are not free, because the router still has the session of the slot.
    kept: usize,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    session: Option<Box<SocketSession>>,
    /// The generation of a session in this slot whose end the router does not know yet. The router also finds its
    /// sessions by slot, so another session in this slot would replace one that the router still considers open.
    kept: Option<u32>,
}

impl Slots {
    /// The session with this handle. `None` if the session has been removed. Tasks, lists, the timer wheel and the
    /// router's outputs keep handles of removed sessions for a while. Callers then do nothing.
    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut SocketSession> {
        let slot = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        slot.session.as_deref_mut()
    }

    pub(super) fn insert(&mut self, session: Box<SocketSession>) -> SessionId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let Slot { generation, session: free, .. } = &mut self.slots[slot as usize];
        *free = Some(session);
        SessionId { slot, generation: *generation }
    }

    /// Keeps the slot of a session that has ended without the router's knowledge, until [`Self::release`].
    pub(super) fn keep(&mut self, id: SessionId) {
        if let Some(slot) = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation) {
            slot.kept = Some(id.generation);
        }
    }

    /// Ends [`Self::keep`], because the router was notified of the end of the session.
    pub(super) fn release(&mut self, id: SessionId) {
        let Some(slot) = self.slots.get_mut(id.slot as usize) else { return };
        if slot.kept != Some(id.generation) {
            return;
        }
        slot.kept = None;
        if slot.session.is_none() {
            self.kept -= 1;
            self.free.push(id.slot);
        }
    }

    /// Removes a session, and makes its handle invalid. `None` if the session has already been removed.
    pub(super) fn remove(&mut self, id: SessionId) -> Option<Box<SocketSession>> {
        let slot = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        let session = slot.session.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        if slot.kept.is_some() {
            self.kept += 1;
        } else {
            self.free.push(id.slot);
        }
        Some(session)
    }

    /// Number of sessions, including those that are closing.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len() - self.kept
    }

    /// The open sessions, in the order of their slots.
    pub(super) fn open(&self) -> impl Iterator<Item = SessionId> {
        self.slots.iter().enumerate().filter_map(|(slot, s)| {
            let open = s.session.as_ref().is_some_and(|session| session.phase() == SessionPhase::Open);
            open.then_some(SessionId { slot: slot as u32, generation: s.generation })
        })
    }
}
