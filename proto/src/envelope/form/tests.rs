use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{
    Change, ChangeKind, Heartbeat, Hello, HubStatus, Presence, RouteHeader, Routed, SignalEnvelope, SnapshotPart,
    SnapshotRequest,
};
use super::read::{DESCRIPTION_ROOM, GREATEST_COUNT};
use super::write::put_bytes;
use super::*;
use crate::claim::Claim;
use crate::id::{HubId, HubIncarnation, NetworkName, PeerId, PeerIncarnation};
use crate::limits::{
    MAX_ANNOUNCE_DATA_BYTES, MAX_ANNOUNCE_DEPTH, MAX_CLOSEST, MAX_HUB_URL_BYTES, MAX_MEETING, MAX_NEIGHBOURS,
    MAX_OUTCOMES, MAX_VERSION_BYTES,
};
use crate::reason::{CloseReason, ErrorCode, LeaveReason, Outcome};
use crate::resume::Lineage;
use crate::router::{Announcement, Discovery, Meeting, MeetingEnd, MeetingKind, Standing, Stay};
use crate::wire::{self, SignalKind};
use crate::ws::{self, Opcode};
use std::sync::Arc;

fn peer() -> impl Strategy<Value = PeerId> {
    any::<[u8; 20]>().prop_map(PeerId::from_bytes)
}

fn hub() -> impl Strategy<Value = HubId> {
    peer().prop_map(HubId)
}

/// Any valid value of a counter.
fn count() -> impl Strategy<Value = u64> {
    0..=GREATEST_COUNT
}

fn life() -> impl Strategy<Value = HubIncarnation> {
    count().prop_map(HubIncarnation)
}

fn network() -> impl Strategy<Value = NetworkName> {
    "[a-zé\"\\\\]{1,40}".prop_map(|name| NetworkName::new(&name))
}

/// JSON as clients announce it.
fn data() -> impl Strategy<Value = String> {
    ("\\PC{0,40}", any::<i64>(), any::<bool>()).prop_map(|(text, number, flag)| {
        serde_json::json!({ "text": text, "number": number, "flag": flag }).to_string()
    })
}

fn url() -> impl Strategy<Value = Option<Arc<str>>> {
    prop::option::of("wss://[a-z.]{1,40}").prop_map(|url| url.map(Arc::from))
}

fn membership(peer: PeerId, claim: Claim) -> impl Strategy<Value = Arc<Announcement>> {
    (network(), data(), count(), 0..=MAX_CLOSEST).prop_map(move |(network, data, number, closest)| {
        let stay = Stay { number, discovery: Discovery::from_closest(closest) };
        let discovered = Arc::new(wire::peer_discovered(data.as_bytes(), claim.incarnation, network.as_str(), 0));
        Arc::new(Announcement { peer, network, claim, remote: true, stay, discovered })
    })
}

fn change_kind(peer: PeerId, claim: Claim) -> impl Strategy<Value = ChangeKind> {
    let left = (network(), data()).prop_map(move |(network, data)| {
        let frame = Arc::new(wire::goodbye(&peer, &data, network.as_str(), 0));
        ChangeKind::Left { network, frame }
    });
    let known =
        prop_oneof![0..CloseReason::ALL.len() as u8, 253..=255_u8].prop_filter_map("known", LeaveReason::from_index);
    let reasons = known.prop_map(ChangeKind::Down);
    prop_oneof![Just(ChangeKind::Up), membership(peer, claim).prop_map(ChangeKind::Joined), left, reasons]
}

fn hello() -> impl Strategy<Value = Envelope> {
    (any::<u16>(), hub(), life(), "[a-zé-]{0,40}", 0..=MAX_CLOSEST, any::<u64>()).prop_map(
        |(version, hub, incarnation, namespace, closest, process)| {
            let discovery = Discovery::from_closest(closest);
            Envelope::Hello(Box::new(Hello { version, hub, incarnation, namespace, discovery, process }))
        },
    )
}

fn heartbeat() -> impl Strategy<Value = Envelope> {
    let numbers = (count(), count(), count(), any::<u32>(), any::<(bool, bool)>(), any::<u64>());
    (hub(), life(), numbers, vec(hub(), 0..5), vec(hub(), 0..5), (url(), url(), status())).prop_map(
        |(hub, incarnation, numbers, neighbours, unheard, (advertise, public_url, status))| {
            let (number, seq, digest, age_ms, (draining, link_unheard), process) = numbers;
            Envelope::Heartbeat(Arc::new(Heartbeat {
                hub,
                incarnation,
                number,
                seq,
                digest,
                age_ms,
                draining,
                neighbours,
                advertise,
                public_url,
                process,
                unheard,
                link_unheard,
                status,
            }))
        },
    )
}

fn status() -> impl Strategy<Value = Option<Arc<HubStatus>>> {
    let numbers = any::<(u32, u32, u32, u32, u32, u64)>();
    let some = (url(), "[0-9a-z.+-]{0,32}", numbers).prop_map(|(admin_url, version, numbers)| {
        let (connections, max_connections, cpu, busiest_shard, signals, memory) = numbers;
        let version = version.into();
        Arc::new(HubStatus { admin_url, version, connections, max_connections, cpu, busiest_shard, signals, memory })
    });
    prop::option::of(some)
}

fn claim() -> impl Strategy<Value = (PeerId, Claim)> {
    (peer(), hub(), count())
        .prop_map(|(peer, hub, session)| (peer, Claim { incarnation: PeerIncarnation(session), hub }))
}

fn change() -> impl Strategy<Value = Envelope> {
    let about = claim().prop_flat_map(|(peer, claim)| (Just((peer, claim)), change_kind(peer, claim)));
    (about, life(), count()).prop_map(|(((peer, claim), kind), incarnation, seq)| {
        let (hub, session) = (claim.hub, claim.incarnation);
        Envelope::Change(Arc::new(Change { hub, incarnation, seq, peer, session, kind }))
    })
}

fn presence(hub: HubId) -> impl Strategy<Value = Arc<Presence>> {
    (peer(), count()).prop_flat_map(move |(peer, session)| {
        let session = PeerIncarnation(session);
        vec(membership(peer, Claim { incarnation: session, hub }), 0..4)
            .prop_map(move |memberships| Arc::new(Presence { peer, session, memberships }))
    })
}

fn snapshot() -> impl Strategy<Value = Envelope> {
    let numbers = (life(), count(), count(), any::<u32>(), any::<bool>());
    (hub().prop_flat_map(|hub| (Just(hub), vec(presence(hub), 0..4))), numbers).prop_map(
        |((hub, peers), (incarnation, seq, digest, part, last))| {
            Envelope::Snapshot(Box::new(SnapshotPart { hub, incarnation, seq, digest, part, last, peers }))
        },
    )
}

fn signal() -> impl Strategy<Value = Routed> {
    let kind = (0..SignalKind::ALL.len()).prop_map(|i| SignalKind::ALL[i]);
    let numbers = (count(), count(), any::<bool>());
    let standing = prop_oneof![Just(Standing::Unknown), Just(Standing::Outsider), count().prop_map(Standing::Member)];
    (numbers, kind, standing, peer(), peer(), network(), "\\PC{0,300}").prop_map(
        |((counter, seq, receipt), kind, standing, sender, target, network, text)| {
            let mut frame = Vec::new();
            ws::put_header(&mut frame, Opcode::Text, text.len());
            frame.extend_from_slice(text.as_bytes());
            let frame = frame.into_boxed_slice();
            Routed::Signal(SignalEnvelope { counter, seq, receipt, kind, sender, target, network, frame, standing })
        },
    )
}

fn meeting() -> impl Strategy<Value = Routed> {
    let kind = prop_oneof![Just(MeetingKind::Met), Just(MeetingKind::Agreed), Just(MeetingKind::Declined)];
    let to = prop_oneof![Just(MeetingEnd::About), Just(MeetingEnd::Others)];
    (network(), peer(), any::<u64>(), vec((peer(), any::<u64>()), 0..20), to, kind).prop_map(
        |(network, about, stay, others, to, kind)| {
            Routed::Meeting(Arc::new(Meeting { network, about, stay, others, to, kind }))
        },
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let failed = (0..ErrorCode::ALL.len()).prop_map(|i| Outcome::Failed(ErrorCode::ALL[i]));
    prop_oneof![Just(Outcome::Delivered), Just(Outcome::Forwarded), failed]
}

fn lineage() -> impl Strategy<Value = Lineage> {
    let session = || (1..=GREATEST_COUNT).prop_map(PeerIncarnation);
    (session(), session()).prop_map(|(root, session)| Lineage { root, session })
}

fn routed() -> impl Strategy<Value = Envelope> {
    let routed = prop_oneof![
        signal(),
        vec((any::<u64>(), outcome()), 0..20).prop_map(Routed::Outcomes),
        (peer(), any::<u64>(), prop::option::of(lineage()), any::<bool>())
            .prop_map(|(peer, ticket, resume, owner)| Routed::Takeover { peer, ticket, resume, owner }),
        (peer(), any::<u64>(), any::<bool>()).prop_map(|(peer, ticket, in_use)| Routed::TakeoverAnswer {
            peer,
            ticket,
            in_use
        }),
        meeting(),
    ];
    ((hub(), life()), (hub(), life()), any::<u8>(), routed).prop_map(
        |((to, to_incarnation), (from, from_incarnation), hops, routed)| {
            let route = RouteHeader { to, to_incarnation, from, from_incarnation, hops };
            Envelope::Routed(route, Box::new(routed))
        },
    )
}

fn snapshot_request() -> impl Strategy<Value = SnapshotRequest> {
    (hub(), life(), count()).prop_map(|(hub, incarnation, have)| SnapshotRequest { hub, incarnation, have })
}

fn envelope() -> impl Strategy<Value = Envelope> {
    prop_oneof![
        hello(),
        heartbeat(),
        change(),
        snapshot_request().prop_map(Envelope::SnapshotRequest),
        snapshot_request().prop_map(Envelope::SnapshotDeclined),
        snapshot(),
        (hub(), life()).prop_map(|(hub, incarnation)| Envelope::Farewell(hub, incarnation)),
        routed(),
    ]
}

fn encoded(envelopes: &[Envelope]) -> Vec<u8> {
    let mut bytes = Vec::new();
    envelopes.iter().for_each(|envelope| envelope.encode(&mut bytes));
    bytes
}

/// Decodes a frame. Returns the envelopes of the frame, and an error if the decoding failed.
fn decoded(mut frame: &[u8]) -> (Vec<Envelope>, Result<(), Malformed>) {
    let mut envelopes = Vec::new();
    loop {
        match Envelope::decode(&mut frame) {
            Ok(Some(envelope)) => envelopes.push(envelope),
            Ok(None) => return (envelopes, Ok(())),
            Err(malformed) => return (envelopes, Err(malformed)),
        }
    }
}

proptest! {
    #[test]
    fn envelopes_survive_encoding_and_decoding(envelopes in vec(envelope(), 0..6)) {
        let bytes = encoded(&envelopes);
        let (heard, end) = decoded(&bytes);
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(format!("{heard:?}"), format!("{envelopes:?}"));
        prop_assert_eq!(encoded(&heard), bytes);
        let kinds = |envelopes: &[Envelope]| envelopes.iter().map(Envelope::kind).collect::<Vec<_>>();
        prop_assert_eq!(kinds(&heard), kinds(&envelopes));
    }

    #[test]
    fn a_truncated_frame_is_refused_after_its_whole_envelopes(envelopes in vec(envelope(), 1..4), cut in any::<prop::sample::Index>()) {
        let bytes = encoded(&envelopes);
        let cut = cut.index(bytes.len());
        let (heard, end) = decoded(&bytes[..cut]);
        let whole = (0..=envelopes.len()).rev().find(|n| encoded(&envelopes[..*n]).len() <= cut).unwrap_or(0);
        prop_assert_eq!(heard.len(), whole);
        prop_assert_eq!(end.is_ok(), encoded(&envelopes[..whole]).len() == cut);
    }

    #[test]
    fn a_truncated_body_is_refused_or_decodes_differently(envelope in envelope(), cut in any::<prop::sample::Index>()) {
        let mut bytes = encoded(std::slice::from_ref(&envelope));
        bytes.truncate(5 + cut.index(bytes.len() - 4));
        let len = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        if let (heard, Ok(())) = decoded(&bytes) {
            prop_assert_eq!(heard.len(), 1);
        }
    }

    #[test]
    fn trailing_fields_of_later_versions_are_ignored(envelope in envelope(), more in vec(any::<u8>(), 0..20)) {
        let mut bytes = encoded(std::slice::from_ref(&envelope));
        bytes.extend_from_slice(&more);
        let len = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        let (heard, end) = decoded(&bytes);
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(encoded(&heard), encoded(&[envelope]));
    }

    #[test]
    fn decoding_changed_bytes_never_panics(envelopes in vec(envelope(), 1..3), wrong in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = encoded(&envelopes);
        for (at, byte) in wrong {
            *at.get_mut(&mut bytes) = byte;
        }
        let (heard, _) = decoded(&bytes);
        // An accepted envelope can be encoded again.
        prop_assert_eq!(decoded(&encoded(&heard)).1, Ok(()));
    }

    #[test]
    fn decoding_random_bytes_never_panics(kind in 0..=EnvelopeKind::ALL.len() as u8, body in vec(any::<u8>(), 0..300)) {
        let mut bytes = (body.len() as u32 + 1).to_le_bytes().to_vec();
        bytes.push(kind);
        bytes.extend_from_slice(&body);
        _ = decoded(&bytes);
        _ = decoded(&body);
    }
}

#[test]
fn an_unknown_kind_is_skipped() {
    let farewell = Envelope::Farewell(HubId(PeerId::from_bytes([1; 20])), HubIncarnation(2));
    let mut bytes = vec![3, 0, 0, 0, EnvelopeKind::ALL.len() as u8, 1, 2];
    bytes.extend(encoded(&[farewell]));
    let (heard, end) = decoded(&bytes);
    assert_eq!((heard.len(), end), (1, Ok(())));
}

#[test]
fn kinds_are_in_the_order_of_their_discriminants() {
    for (i, kind) in EnvelopeKind::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, i, "{}", kind.label());
    }
}

#[test]
fn an_envelope_without_a_kind_is_refused() {
    assert!(decoded(&[0, 0, 0, 0]).1.is_err());
}

#[test]
fn announced_data_of_a_hub_must_be_json_of_limited_length_and_depth() {
    let refused = |data: &[u8]| {
        let mut body = vec![EnvelopeKind::Change as u8];
        body.extend_from_slice(&[0; 20 + 8 + 8 + 20 + 8]);
        body.push(1);
        put_text(&mut body, "n");
        put_bytes(&mut body, data);
        body.extend_from_slice(&[0; 8 + 1]);
        let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
        bytes.extend(body);
        decoded(&bytes).1.err().map(|malformed| malformed.0)
    };
    assert_eq!(refused(b"{}"), None);
    assert_eq!(refused(b"{"), Some("announced data is not JSON"));
    assert_eq!(refused(b"\"\xff\""), Some("a text is not UTF-8"));
    let long = format!("\"{}\"", "x".repeat(MAX_ANNOUNCE_DATA_BYTES + DESCRIPTION_ROOM));
    assert_eq!(refused(long.as_bytes()), Some("announced data is too long"));
    let deep = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
    assert_eq!(refused(deep(MAX_ANNOUNCE_DEPTH).as_bytes()), None);
    assert_eq!(refused(deep(MAX_ANNOUNCE_DEPTH + 1).as_bytes()), Some("announced data is nested too deep"));
}

#[test]
fn every_allowed_announcement_is_accepted_from_a_hub() {
    let peer = PeerId::from_bytes([7; 20]);
    for escape in [r"\b", r"\f", r"\n", r"\\", "\u{7f}", r"\u0001"] {
        let key = escape.repeat((MAX_ANNOUNCE_DATA_BYTES - 8) / escape.len());
        let data = crate::codec::describe(&peer, Some(&format!("{{\"{key}\":1}}"))).unwrap();
        let claim = Claim { incarnation: PeerIncarnation(1), hub: HubId(peer) };
        let discovered = Arc::new(wire::peer_discovered(&data, claim.incarnation, "n", 0));
        let (network, stay) = (NetworkName::new("n"), Stay::default());
        let announcement = Announcement { peer, network, claim, remote: false, stay, discovered };
        let (hub, incarnation, session) = (claim.hub, HubIncarnation(1), claim.incarnation);
        let kind = ChangeKind::Joined(Arc::new(announcement));
        let mut bytes = Vec::new();
        Envelope::Change(Arc::new(Change { hub, incarnation, seq: 1, peer, session, kind })).encode(&mut bytes);
        assert!(Envelope::decode(&mut &bytes[..]).is_ok(), "{escape}");
    }
}

#[test]
fn counts_over_their_bound_are_refused() {
    let peer = PeerId::from_bytes([7; 20]);
    let hub = HubId(peer);
    let beat = |neighbours: usize, unheard: usize, url: usize, version: usize| {
        let url = (url > 0).then(|| Arc::from("u".repeat(url)));
        Envelope::Heartbeat(Arc::new(Heartbeat {
            hub,
            incarnation: HubIncarnation(2),
            number: 3,
            seq: 4,
            digest: 5,
            age_ms: 6,
            draining: false,
            neighbours: vec![hub; neighbours],
            advertise: url.clone(),
            public_url: url,
            process: 1,
            unheard: vec![hub; unheard],
            link_unheard: false,
            status: Some(Arc::new(HubStatus {
                admin_url: None,
                version: "v".repeat(version).into(),
                ..HubStatus::default()
            })),
        }))
    };
    let routed = |routed| {
        let route = RouteHeader {
            to: hub,
            to_incarnation: HubIncarnation(1),
            from: hub,
            from_incarnation: HubIncarnation(1),
            hops: 0,
        };
        Envelope::Routed(route, Box::new(routed))
    };
    let outcomes = |count| routed(Routed::Outcomes(vec![(1, Outcome::Delivered); count]));
    let meeting = |count| {
        let (network, to, kind) = (NetworkName::new("n"), MeetingEnd::About, MeetingKind::Met);
        routed(Routed::Meeting(Arc::new(Meeting {
            network,
            about: peer,
            stay: 1,
            others: vec![(peer, 1); count],
            to,
            kind,
        })))
    };
    let is_taken = |envelope: &Envelope| Envelope::decode(&mut &encoded(std::slice::from_ref(envelope))[..]).is_ok();
    for (most, make) in [
        (MAX_NEIGHBOURS, &(|count| beat(count, 0, 0, 0)) as &dyn Fn(usize) -> Envelope),
        (MAX_NEIGHBOURS, &|count| beat(0, count, 0, 0)),
        (MAX_HUB_URL_BYTES, &|bytes| beat(0, 0, bytes, 0)),
        (MAX_VERSION_BYTES, &|bytes| beat(0, 0, 0, bytes)),
        (MAX_OUTCOMES, &outcomes),
        (MAX_MEETING, &meeting),
    ] {
        assert_eq!([is_taken(&make(most)), is_taken(&make(most + 1))], [true, false], "{most}");
    }
}

#[test]
fn accepted_numbers_can_be_incremented_without_overflow() {
    for (life, is_taken) in [(GREATEST_COUNT, true), (GREATEST_COUNT + 1, false), (u64::MAX, false)] {
        let mut bytes = Vec::new();
        Envelope::Farewell(HubId(PeerId::from_bytes([1; 20])), HubIncarnation(life)).encode(&mut bytes);
        assert_eq!(Envelope::decode(&mut &bytes[..]).is_ok(), is_taken, "{life}");
    }
}

#[test]
fn a_heartbeat_of_an_earlier_release_is_understood() {
    let beat = |process, unheard, link_unheard| Heartbeat {
        hub: HubId(PeerId::from_bytes([1; 20])),
        incarnation: HubIncarnation(2),
        number: 3,
        seq: 4,
        digest: 5,
        age_ms: 6,
        draining: false,
        neighbours: vec![HubId(PeerId::from_bytes([7; 20]))],
        advertise: None,
        public_url: Some("wss://one.example".into()),
        process,
        unheard,
        link_unheard,
        status: None,
    };
    let whole = encoded(&[Envelope::Heartbeat(Arc::new(beat(9, vec![HubId(PeerId::from_bytes([8; 20]))], true)))]);
    // Each cut removes fields from the end of the heartbeat, because earlier versions do not send these fields.
    const STATUS: usize = 1;
    let cut = |added: usize| {
        let mut bytes = whole[..whole.len() - added].to_vec();
        let len = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        match decoded(&bytes).0.pop() {
            Some(Envelope::Heartbeat(beat)) => (*beat).clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(cut(8 + 2 + 20 + 1 + STATUS), beat(0, Vec::new(), false));
    assert_eq!(cut(2 + 20 + 1 + STATUS), beat(9, Vec::new(), false));
    assert_eq!(cut(1 + STATUS), beat(9, vec![HubId(PeerId::from_bytes([8; 20]))], false));
}

#[test]
fn a_signal_of_version_2_0_0_ends_before_its_senders_standing() {
    let hub = HubId(PeerId::from_bytes([1; 20]));
    let incarnation = HubIncarnation(1);
    let route = RouteHeader { to: hub, to_incarnation: incarnation, from: hub, from_incarnation: incarnation, hops: 0 };
    // The trailing fields are the standing and the exact kind, which hubs before 2.1 do not send.
    let standings = [(Standing::Unknown, 2), (Standing::Outsider, 2), (Standing::Member(7), 10)];
    for (standing, field) in standings {
        let signal = SignalEnvelope {
            counter: 1,
            seq: 1,
            receipt: false,
            kind: SignalKind::Offer,
            sender: hub.0,
            target: hub.0,
            network: NetworkName::new("n"),
            frame: Box::from(*b"\x81\x02{}"),
            standing,
        };
        let mut bytes = encoded(&[Envelope::Routed(route, Box::new(Routed::Signal(signal)))]);
        bytes.truncate(bytes.len() - field);
        let len = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        let (heard, end) = decoded(&bytes);
        assert_eq!(end, Ok(()));
        let Some(Envelope::Routed(_, routed)) = heard.first() else { panic!("{heard:?}") };
        assert!(matches!(&**routed, Routed::Signal(SignalEnvelope { standing: Standing::Unknown, .. })), "{routed:?}");
    }
}

#[test]
fn a_hub_of_version_2_0_0_receives_only_kinds_of_signals_that_it_knows() {
    let hub = HubId(PeerId::from_bytes([1; 20]));
    let incarnation = HubIncarnation(1);
    let route = RouteHeader { to: hub, to_incarnation: incarnation, from: hub, from_incarnation: incarnation, hops: 0 };
    let signal = |kind| {
        let (network, frame) = (NetworkName::new("n"), Box::from(*b"\x81\x02{}"));
        let (sender, target, standing) = (hub.0, hub.0, Standing::Outsider);
        let signal =
            SignalEnvelope { counter: 1, seq: 1, receipt: false, kind, sender, target, network, frame, standing };
        encoded(&[Envelope::Routed(route, Box::new(Routed::Signal(signal)))])
    };
    let candidate = signal(SignalKind::IceCandidate);
    for kind in SignalKind::ALL {
        let bytes = signal(kind);
        let known = if kind == SignalKind::Signal { SignalKind::IceCandidate } else { kind };
        let differ = bytes[..bytes.len() - 1].iter().zip(&candidate).filter(|(a, b)| a != b).map(|(a, _)| *a);
        let expected = (known != SignalKind::IceCandidate).then_some(known as u8);
        assert_eq!(differ.collect::<Vec<_>>(), Vec::from_iter(expected), "{kind:?}");
    }
}

#[test]
fn a_leave_reason_is_also_sent_as_a_reason_that_version_2_0_0_knows() {
    let hub = HubId(PeerId::from_bytes([1; 20]));
    let down = |reason| {
        let kind = ChangeKind::Down(reason);
        let (incarnation, session) = (HubIncarnation(1), PeerIncarnation(1));
        encoded(&[Envelope::Change(Arc::new(Change { hub, incarnation, seq: 1, peer: hub.0, session, kind }))])
    };
    let read = |bytes: &[u8]| {
        let (heard, end) = decoded(bytes);
        assert_eq!(end, Ok(()));
        let Some(Envelope::Change(change)) = heard.first() else { panic!("{heard:?}") };
        let ChangeKind::Down(reason) = change.kind else { panic!("{change:?}") };
        reason
    };
    let closed = LeaveReason::Closed;
    for reason in CloseReason::ALL.map(closed).into_iter().chain([LeaveReason::HubLost, LeaveReason::Moved]) {
        let mut bytes = down(reason);
        assert_eq!(read(&bytes), reason);
        // A hub of a later version sends a reason that this version does not know.
        let last = bytes.len() - 1;
        bytes[last] = 200;
        let known = match reason {
            LeaveReason::Closed(CloseReason::PageClosed) => closed(CloseReason::ClientClosed),
            LeaveReason::Closed(CloseReason::Kicked | CloseReason::TokenExpired) => closed(CloseReason::ConnectionLost),
            LeaveReason::Closed(_) | LeaveReason::HubLost | LeaveReason::Moved | LeaveReason::Crowded => reason,
        };
        assert_eq!(read(&bytes), known, "{reason:?}");
        bytes.pop();
        let len = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        assert_eq!(read(&bytes), known, "{reason:?}");
    }
}

#[test]
fn a_takeover_of_version_2_0_0_ends_before_the_lineage() {
    let hub = HubId(PeerId::from_bytes([1; 20]));
    let incarnation = HubIncarnation(1);
    let route = RouteHeader { to: hub, to_incarnation: incarnation, from: hub, from_incarnation: incarnation, hops: 0 };
    let lineage = Lineage { root: PeerIncarnation(3), session: PeerIncarnation(4) };
    let asked = Routed::Takeover { peer: hub.0, ticket: 5, resume: Some(lineage), owner: true };
    // The first body lacks the owner. The second body lacks the lineage and the owner.
    for (missing, resume) in [(1, Some(lineage)), (17, None)] {
        let mut bytes = encoded(&[Envelope::Routed(route, Box::new(asked.clone()))]);
        bytes.truncate(bytes.len() - missing);
        let len = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        let (heard, end) = decoded(&bytes);
        assert_eq!(end, Ok(()));
        let Some(Envelope::Routed(_, routed)) = heard.first() else { panic!("{heard:?}") };
        let Routed::Takeover { ticket: 5, resume: heard, owner: false, .. } = **routed else { panic!("{routed:?}") };
        assert_eq!(heard, resume);
    }
}
