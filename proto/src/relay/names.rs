//! Translation of hub ids between this hub and the rest of the mesh.
//!
//! If two live hubs have one HUB_ID, the hub that started later takes a new id while it runs. The shards of the renamed
//! hub have the old id in every claim, roster and circle, and in letters in transit. Therefore claims and letters do
//! not change. Inside, the renamed hub still uses its first id, and its relay translates the ids in outgoing and
//! incoming envelopes. Outside the renamed hub, the first id belongs to the other hub. Inside the renamed hub, the
//! other hub has another id, its stand-in.
//!
//! Ids break ties between claims, and decide which hub forwards envelopes to the bridge. So the translation keeps the
//! order of ids. The first id, the new id and the stand-in differ only in their last eight bytes. The new id is the
//! first id plus some number, and the stand-in is the first id minus the number of the first renaming. If this addition
//! or subtraction overflows, the order is not kept. Without the order, the two hubs decide a tie differently. A tie
//! occurs if one peer has a session at each of the two hubs, and both sessions began in the same millisecond. In such a
//! tie, each hub lets the session at the other hub win, so both sessions end.

use std::sync::Arc;

use crate::claim::Claim;
use crate::envelope::{ChangeKind, Envelope};
use crate::id::HubId;
use crate::route::Hop;
use crate::router::Announcement;

use super::Destination;

/// Translates hub ids between the ids that this hub uses inside and the ids that other hubs use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    /// The id that the shards and the relay of this hub use for this hub.
    inside: HubId,
    /// The id that other hubs use for this hub.
    outside: HubId,
    /// The id that the shards and the relay of this hub use for the other hub with the same HUB_ID.
    stand_in: HubId,
}

impl Names {
    pub(super) fn new(hub: HubId) -> Self {
        Self { inside: hub, outside: hub, stand_in: hub }
    }

    /// The id of this hub that other hubs and clients see.
    pub(super) fn outside(&self) -> HubId {
        self.outside
    }

    fn is_plain(&self) -> bool {
        self.outside == self.inside
    }

    /// Takes a new id that is `by` greater than the first id.
    pub(super) fn rename(&mut self, by: u64) {
        if self.is_plain() {
            self.stand_in = HubId(self.inside.0.shifted(by.wrapping_neg()));
        }
        self.outside = HubId(self.inside.0.shifted(by));
    }

    /// Translates an id that other hubs use to the id that this hub uses inside. Before the first [`Self::rename`], no
    /// id changes.
    pub(super) fn inward(&self, hub: HubId) -> HubId {
        match hub {
            _ if hub == self.outside => self.inside,
            _ if hub == self.inside => self.stand_in,
            _ if hub == self.stand_in => self.outside,
            _ => hub,
        }
    }

    /// Translates an id that this hub uses inside to the id that other hubs use.
    pub(super) fn outward(&self, hub: HubId) -> HubId {
        match hub {
            _ if hub == self.inside => self.outside,
            _ if hub == self.stand_in => self.inside,
            _ if hub == self.outside => self.stand_in,
            _ => hub,
        }
    }

    pub(super) fn via_inward(&self, via: Hop) -> Hop {
        match via {
            Hop::Link(link) => Hop::Link(link),
            Hop::Bridge(hub) => Hop::Bridge(self.inward(hub)),
        }
    }

    pub(super) fn via_outward(&self, via: Hop) -> Hop {
        match via {
            Hop::Link(link) => Hop::Link(link),
            Hop::Bridge(hub) => Hop::Bridge(self.outward(hub)),
        }
    }

    pub(super) fn destination_outward(&self, to: Destination) -> Destination {
        match to {
            Destination::Bridged(hub) => Destination::Bridged(self.outward(hub)),
            Destination::Everyone | Destination::Link(_) => to,
        }
    }

    pub(super) fn envelope_inward(&self, envelope: Envelope) -> Envelope {
        if self.is_plain() { envelope } else { renamed(envelope, |hub| self.inward(hub)) }
    }

    pub(super) fn envelope_outward(&self, envelope: Envelope) -> Envelope {
        if self.is_plain() { envelope } else { renamed(envelope, |hub| self.outward(hub)) }
    }
}

/// Translates the id of every hub in an envelope.
fn renamed(envelope: Envelope, name: impl Fn(HubId) -> HubId) -> Envelope {
    let announced = |announcement: &mut Arc<Announcement>| {
        let claim = announcement.claim;
        let hub = name(claim.hub);
        if hub != claim.hub {
            *announcement =
                Arc::new(Announcement { claim: Claim { hub, ..claim }, ..Announcement::clone(announcement) });
        }
    };
    match envelope {
        Envelope::Hello(_) => envelope,
        Envelope::Heartbeat(mut beat) => {
            let beat_mut = Arc::make_mut(&mut beat);
            beat_mut.hub = name(beat_mut.hub);
            beat_mut.neighbours.iter_mut().for_each(|hub| *hub = name(*hub));
            beat_mut.unheard.iter_mut().for_each(|hub| *hub = name(*hub));
            Envelope::Heartbeat(beat)
        }
        Envelope::Change(mut change) => {
            if name(change.hub) != change.hub {
                let change = Arc::make_mut(&mut change);
                change.hub = name(change.hub);
                if let ChangeKind::Joined(announcement) = &mut change.kind {
                    announced(announcement);
                }
            }
            Envelope::Change(change)
        }
        Envelope::SnapshotRequest(mut request) => {
            request.hub = name(request.hub);
            Envelope::SnapshotRequest(request)
        }
        Envelope::SnapshotDeclined(mut request) => {
            request.hub = name(request.hub);
            Envelope::SnapshotDeclined(request)
        }
        Envelope::Snapshot(mut part) => {
            if name(part.hub) != part.hub {
                part.hub = name(part.hub);
                for presence in &mut part.peers {
                    Arc::make_mut(presence).memberships.iter_mut().for_each(announced);
                }
            }
            Envelope::Snapshot(part)
        }
        Envelope::Farewell(hub, incarnation) => Envelope::Farewell(name(hub), incarnation),
        Envelope::Routed(mut route, routed) => {
            route.to = name(route.to);
            route.from = name(route.from);
            Envelope::Routed(route, routed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerId;

    fn hub(bytes: [u8; 20]) -> HubId {
        HubId(PeerId::from_bytes(bytes))
    }

    #[test]
    fn ids_are_exchanged_one_for_one_and_keep_their_order() {
        let first = hub([7; 20]);
        let others = [hub([6; 20]), hub([8; 20]), hub([0; 20]), hub([255; 20])];
        let mut names = Names::new(first);
        assert_eq!((names.inward(first), names.outward(first), names.outside()), (first, first, first));
        for by in [1, 5, u64::MAX / 4] {
            names.rename(by);
            let mut live = others.to_vec();
            live.extend([first, names.outside()]);
            for &a in &live {
                assert_eq!(names.outward(names.inward(a)), a);
                assert_eq!(names.inward(names.outward(a)), a);
                for &b in &live {
                    assert_eq!(a.cmp(&b), names.inward(a).cmp(&names.inward(b)), "{a} {b}");
                }
            }
            assert_eq!(names.inward(names.outside()), first);
            assert_ne!(names.outside(), first);
            // The other hub with the first id gets the stand-in. A third hub may already have the id of the stand-in.
            let stand_in = names.inward(first);
            assert!(stand_in != first && stand_in != names.outside());
            assert_eq!([names.outward(stand_in), names.outward(names.outside())], [first, stand_in]);
            assert_eq!(names.inward(stand_in), names.outside());
        }
    }
}
