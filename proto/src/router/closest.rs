//! Finds the closest members of a network without visiting all members. The distance of two ids is their exclusive or.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::iter::{Peekable, Rev};
use std::ops::{Bound, ControlFlow};

use crate::id::PeerId;

/// Maximum number of members in a half (see [`visit_closest`]) that are collected and sorted. In a larger half, only
/// the requested members are visited.
const SORTED: usize = 64;

/// Calls `visit` with members in ascending distance from `center`, beginning with `center` itself. Stops when `visit`
/// returns `Break`.
///
/// The closest ids share the most leading bits with `center`. In the sorted order, all ids that share at least n bits
/// with `center` lie in one range around `center`. The ids that share exactly n bits are the half of that range in
/// which the next bit differs from `center`. So the search starts at `center` and visits one half after another, with
/// increasing distance. A large half is searched in the same way, starting at the id in this half that is closest to
/// `center`.
///
/// With random ids, the search examines about twice the requested number of members, whatever the size of the network.
/// If an attacker has chosen the ids, the search can descend through all 160 bits, with two lookups for each bit.
pub(super) fn visit_closest<'a, V>(
    members: &'a BTreeMap<PeerId, V>,
    center: PeerId,
    visit: &mut impl FnMut(PeerId, &'a V) -> ControlFlow<()>,
) -> ControlFlow<()> {
    visit_run(members, center, 0, visit)
}

/// Visits the members that share at least `floor` bits with `center`.
fn visit_run<'a, V>(
    members: &'a BTreeMap<PeerId, V>,
    center: PeerId,
    floor: u32,
    visit: &mut impl FnMut(PeerId, &'a V) -> ControlFlow<()>,
) -> ControlFlow<()> {
    if let Some(member) = members.get(&center) {
        visit(center, member)?;
    }
    let (first, last) = (center.first_with_prefix(floor), center.last_with_prefix(floor));
    let mut above = after(members, center, last);
    let mut below = before(members, center, first);
    let shared = |next: Option<&(&PeerId, &V)>| next.map(|(peer, _)| center.shared_bits(peer));
    loop {
        let (up, down) = (shared(above.peek()), shared(below.peek()));
        // The first bit in which a member above `center` differs is 0 in `center`. The first bit in which a member
        // below `center` differs is 1 in `center`. So `up` and `down` are never equal.
        let Some(bits) = up.max(down) else { return ControlFlow::Continue(()) };
        let mut half = Vec::new();
        let complete = if up == Some(bits) {
            gather(&mut above, &center, bits, &mut half)
        } else {
            gather(&mut below, &center, bits, &mut half)
        };
        if complete {
            half.sort_unstable_by_key(|(peer, _)| center.distance(peer));
            for (peer, member) in half {
                visit(*peer, member)?;
            }
            continue;
        }
        let inner = center.flipped(bits);
        visit_run(members, inner, bits + 1, visit)?;
        if up == Some(bits) {
            above = after(members, inner.last_with_prefix(bits + 1), last);
        } else {
            below = before(members, inner.first_with_prefix(bits + 1), first);
        }
    }
}

/// Members after `from`, up to `to`.
fn after<V>(members: &BTreeMap<PeerId, V>, from: PeerId, to: PeerId) -> Peekable<Range<'_, PeerId, V>> {
    members.range((Bound::Excluded(from), Bound::Included(to))).peekable()
}

/// Members before `from`, down to `to`.
fn before<V>(members: &BTreeMap<PeerId, V>, from: PeerId, to: PeerId) -> Peekable<Rev<Range<'_, PeerId, V>>> {
    members.range((Bound::Included(to), Bound::Excluded(from))).rev().peekable()
}

/// Moves the members at the front of `run` that share `bits` bits with `center` to `into`. Returns false if more than
/// [`SORTED`] members share `bits` bits with `center`.
fn gather<'a, V: 'a>(
    run: &mut Peekable<impl Iterator<Item = (&'a PeerId, &'a V)>>,
    center: &PeerId,
    bits: u32,
    into: &mut Vec<(&'a PeerId, &'a V)>,
) -> bool {
    while let Some(member) = run.next_if(|(peer, _)| center.shared_bits(peer) == bits) {
        if into.len() == SORTED {
            return false;
        }
        into.push(member);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::ControlFlow;

    use proptest::prelude::*;

    use super::*;

    fn closest(members: &BTreeMap<PeerId, ()>, center: PeerId, wanted: usize) -> Vec<PeerId> {
        let mut found = Vec::new();
        let _ = visit_closest(members, center, &mut |peer, ()| {
            if found.len() == wanted {
                return ControlFlow::Break(());
            }
            found.push(peer);
            ControlFlow::Continue(())
        });
        found
    }

    fn sorted(members: &BTreeMap<PeerId, ()>, center: PeerId, wanted: usize) -> Vec<PeerId> {
        let mut all: Vec<PeerId> = members.keys().copied().collect();
        all.sort_by_key(|peer| {
            let xor: Vec<u8> = peer.as_bytes().iter().zip(center.as_bytes()).map(|(a, b)| a ^ b).collect();
            xor
        });
        all.truncate(wanted);
        all
    }

    /// Ids that often share long prefixes, like ids that clients choose.
    fn any_id() -> impl Strategy<Value = PeerId> {
        (any::<[u8; 20]>(), 0usize..=20, any::<u8>(), any::<bool>()).prop_map(|(mut id, same, fill, bit)| {
            id[..same].fill(if bit { fill & 1 } else { 0xff });
            PeerId::from_bytes(id)
        })
    }

    proptest! {
        #[test]
        fn the_closest_members_match_a_sort(
            ids in prop::collection::btree_set(any_id(), 0..400),
            center in any_id(),
            is_member in any::<prop::sample::Index>(),
            wanted in 0usize..450,
        ) {
            let members: BTreeMap<PeerId, ()> = ids.iter().map(|id| (*id, ())).collect();
            let inside = ids.iter().nth(is_member.index(ids.len().max(1))).copied().unwrap_or(center);
            for center in [center, inside] {
                prop_assert_eq!(closest(&members, center, wanted), sorted(&members, center, wanted));
            }
        }

        #[test]
        fn the_first_and_last_id_with_a_prefix_bound_all_ids_with_it(
            id in any::<[u8; 20]>(),
            other in any::<[u8; 20]>(),
            bits in 0u32..=160,
        ) {
            let (id, other) = (PeerId::from_bytes(id), PeerId::from_bytes(other));
            let within = (id.first_with_prefix(bits)..=id.last_with_prefix(bits)).contains(&other);
            prop_assert_eq!(within, id.shared_bits(&other) >= bits);
        }
    }

    #[test]
    fn few_members_are_visited_in_a_large_network() {
        // In the worst case of chosen ids, many ids share exactly n bits with the center, for each n.
        let mut members = BTreeMap::new();
        let center = PeerId::from_bytes([0; 20]);
        for bit in 0..120 {
            for i in 0..100u32 {
                let mut id = *center.flipped(bit).as_bytes();
                id[16..].copy_from_slice(&i.to_be_bytes());
                members.insert(PeerId::from_bytes(id), ());
            }
        }
        let mut visited = 0;
        let _ = visit_closest(&members, center, &mut |_, ()| {
            visited += 1;
            if visited == 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(visited, 20);
        assert_eq!(closest(&members, center, 300), sorted(&members, center, 300));
    }
}
