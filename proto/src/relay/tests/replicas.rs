//! Tests of the size and the digest of the replica of a hub's presence.

use super::*;
use crate::envelope::{Change, ChangeKind};
use crate::limits::REMOTE_PEER_BYTES;
use crate::relay::holding::{Holding, PresenceRefusal};

/// A membership of peer 7 of hub 1.
fn membership(session: u64, network: &str, stay: u64, data: &str) -> Arc<Announcement> {
    let claim = Claim { incarnation: PeerIncarnation(session), hub: hub(1) };
    let stay = Stay { number: stay, discovery: Discovery::All };
    let data = crate::codec::describe(&id(7), Some(data)).unwrap();
    let discovered = Arc::new(wire::peer_discovered(&data, claim.incarnation, network, 0));
    let network = NetworkName::new(network);
    Arc::new(Announcement { peer: id(7), network, claim, remote: true, stay, discovered })
}

fn apply(holding: &mut Holding, session: u64, kind: ChangeKind, most: usize) -> Result<(), PresenceRefusal> {
    let (incarnation, session) = (HubIncarnation(1), PeerIncarnation(session));
    let seq = holding.seq + 1;
    holding.apply(&Change { hub: hub(1), incarnation, seq, peer: id(7), session, kind }, most)
}

fn joined(announcement: &Arc<Announcement>) -> Holding {
    let mut holding = Holding::new(10);
    let kind = ChangeKind::Joined(Arc::clone(announcement));
    assert!(apply(&mut holding, announcement.claim.incarnation.0, kind, usize::MAX).is_ok());
    holding
}

#[test]
fn different_presences_have_different_digests() {
    let same = joined(&membership(5, "n", 1, r#"{"a":1}"#)).digest;
    assert_eq!(joined(&membership(5, "n", 1, r#"{"a":1}"#)).digest, same);
    let mut digests = BTreeSet::from([0, same]);
    for other in [
        membership(6, "n", 1, r#"{"a":1}"#),
        membership(5, "m", 1, r#"{"a":1}"#),
        membership(5, "n", 2, r#"{"a":1}"#),
        membership(5, "n", 1, r#"{"a":2}"#),
    ] {
        assert!(digests.insert(joined(&other).digest), "{other:?}");
    }
    let mut connected = [5, 6].map(|session| {
        let mut holding = Holding::new(10);
        assert!(apply(&mut holding, session, ChangeKind::Up, usize::MAX).is_ok());
        holding
    });
    assert!(
        connected.iter().all(|holding| digests.insert(holding.digest)),
        "digests of peers without a network differ, too"
    );
    assert!(apply(&mut connected[0], 5, ChangeKind::Down(LeaveReason::Moved), usize::MAX).is_ok());
    assert_eq!(connected[0].digest, 0);
}

#[test]
fn a_replica_uses_at_most_its_maximum_of_bytes() {
    let announcement = membership(5, "n", 1, r#"{"a":1}"#);
    let whole = joined(&announcement).bytes();
    assert!(whole > REMOTE_PEER_BYTES);
    for (most, peer, membership) in [
        (whole, true, true),
        (whole - 1, true, false),
        (REMOTE_PEER_BYTES, true, false),
        (REMOTE_PEER_BYTES - 1, false, false),
    ] {
        let mut holding = Holding::new(10);
        let bytes = Err(PresenceRefusal::Bytes);
        let up = apply(&mut holding, 5, ChangeKind::Up, most);
        assert_eq!(up, if peer { Ok(()) } else { bytes }, "{most}");
        let joins = apply(&mut holding, 5, ChangeKind::Joined(Arc::clone(&announcement)), most);
        assert_eq!(joins, if membership { Ok(()) } else { bytes }, "{most}");
        let expected = [0, REMOTE_PEER_BYTES, whole][usize::from(peer) + usize::from(membership)];
        assert_eq!(holding.bytes(), expected, "{most}");
    }
}

#[test]
fn a_renewed_membership_replaces_the_previous_one_completely() {
    let (short, long) = (membership(5, "n", 1, r#"{"a":1}"#), membership(5, "n", 1, r#"{"a":"a longer description"}"#));
    let other = membership(5, "m", 1, r#"{"a":1}"#);
    for (first, second) in [(&short, &long), (&long, &short)] {
        let mut renewed = joined(first);
        for announcement in [&other, second] {
            assert!(apply(&mut renewed, 5, ChangeKind::Joined(Arc::clone(announcement)), usize::MAX).is_ok());
        }
        let mut at_once = joined(second);
        assert!(apply(&mut at_once, 5, ChangeKind::Joined(Arc::clone(&other)), usize::MAX).is_ok());
        assert_eq!((renewed.digest, renewed.bytes()), (at_once.digest, at_once.bytes()));
    }
}
