//! Tests of the spans of signals between hubs.

use super::*;
use crate::limits::MAX_OPEN_SPANS;
use crate::trace::{AttributeValue, SpanKind, attribute};

/// A chain of hubs that trace this share of the signals, with peer 7 at the first hub and peer 8 at the last hub.
fn chain(hubs: u8, sampling: Sampling) -> Net {
    let mut net = Net::new(0);
    net.sampling = sampling;
    (1..=hubs).for_each(|n| net.start(n));
    (1..hubs).for_each(|n| net.link(n, n + 1));
    net.joins(1, 7, 0);
    net.joins(hubs, 8, 0);
    net.pass(HEARTBEAT * 2);
    net
}

fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a AttributeValue> {
    span.attributes.iter().find(|(attribute, _)| *attribute == name).map(|(_, value)| value)
}

fn outcome(span: &Span) -> Option<&AttributeValue> {
    attribute(span, attribute::OUTCOME)
}

#[test]
fn a_signal_over_four_hubs_is_one_trace_with_a_span_of_each_hub() {
    let mut net = chain(4, Sampling::ALL);
    net.signals(1, 7, 8, 0);
    net.pass(HEARTBEAT);
    let mut spans = std::mem::take(&mut net.spans);
    spans.sort_by_key(|(n, _)| *n);
    let names: Vec<_> = spans.iter().map(|(n, span)| (*n, span.name, span.kind)).collect();
    assert_eq!(
        names,
        [
            (1, "signal send", SpanKind::Producer),
            (2, "signal forward", SpanKind::Internal),
            (3, "signal forward", SpanKind::Internal),
            (4, "signal deliver", SpanKind::Consumer),
        ]
    );
    let spans: Vec<Span> = spans.into_iter().map(|(_, span)| span).collect();
    assert!(spans.iter().all(|span| span.trace == spans[0].trace && span.failure.is_none()));
    assert_eq!(spans[0].parent, None);
    for pair in spans.windows(2) {
        assert_eq!(
            pair[1].parent,
            Some((pair[0].id, true)),
            "the parent of {} is the span of the previous hub",
            pair[1].name
        );
    }
    let events = |span: &Span| span.events.iter().map(|(event, _)| *event).collect::<Vec<_>>();
    assert_eq!((events(&spans[0]), events(&spans[3])), (vec!["sent"], vec!["posted"]));
    for (span, n) in spans.iter().zip(1..) {
        assert_eq!(attribute(span, attribute::HUB), Some(&AttributeValue::Hub(hub(n))));
        assert_eq!(attribute(span, attribute::FROM_HUB), Some(&AttributeValue::Hub(hub(1))));
        assert_eq!(attribute(span, attribute::TO_HUB), Some(&AttributeValue::Hub(hub(4))));
        assert_eq!(attribute(span, attribute::KIND), Some(&AttributeValue::Word("offer")));
        assert_eq!(attribute(span, attribute::SENDER), Some(&AttributeValue::Peer(id(7))));
        let next = (n < 4).then(|| AttributeValue::Hub(hub(n + 1)));
        assert_eq!(attribute(span, attribute::NEXT_HUB), next.as_ref());
    }
    assert_eq!(outcome(&spans[0]), Some(&AttributeValue::Word("delivered")));
    assert_eq!(outcome(&spans[3]), Some(&AttributeValue::Word("delivered")));
    let digest = attribute(&spans[0], attribute::NETWORK);
    assert!(matches!(digest, Some(AttributeValue::Digest(_))) && digest == attribute(&spans[3], attribute::NETWORK));
}

#[test]
fn hubs_record_no_spans_if_sampling_is_off() {
    let mut net = chain(3, Sampling::OFF);
    net.signals(1, 7, 8, 1);
    net.pass(RECEIPT_TIMEOUT + HEARTBEAT);
    assert!(net.spans.is_empty());
}

#[test]
fn all_hubs_record_the_same_share_of_the_signals() {
    let mut net = chain(3, Sampling::of_share(0.2));
    let signals = 400;
    (0..signals).for_each(|_| net.signals(1, 7, 8, 0));
    net.pass(HEARTBEAT);
    let of = |n| net.spans.iter().filter(|(by, _)| *by == n).map(|(_, span)| span.trace).collect::<BTreeSet<_>>();
    assert_eq!((of(2), of(3)), (of(1), of(1)));
    assert!((40..120).contains(&of(1).len()), "{} of {signals}", of(1).len());
    assert_eq!(net.spans.len(), 3 * of(1).len());
}

#[test]
fn the_trace_of_a_signal_ends_at_the_hub_that_has_no_route() {
    let mut net = chain(3, Sampling::ALL);
    net.swallows.push((3, 2));
    // Hub 1 does not know yet that the link between hubs 2 and 3 has closed.
    let ends: Vec<_> = net.wires.keys().copied().filter(|(n, _)| *n == 2).collect();
    let (_, to_third) = *ends.last().unwrap();
    net.input(2, RelayInput::LinkDown { link: to_third });
    net.signals(1, 7, 8, 0);
    net.pass(HEARTBEAT);
    let of = |n| net.spans.iter().find(|(by, _)| *by == n).map(|(_, span)| span).unwrap();
    assert_eq!((of(2).name, of(2).failure.as_deref()), ("signal forward", Some("unreachable")));
    assert_eq!(
        (of(1).failure.as_deref(), outcome(of(1))),
        (Some("unreachable"), Some(&AttributeValue::Word("unreachable")))
    );
    assert_eq!(of(2).parent, Some((of(1).id, true)));
}

#[test]
fn the_span_of_a_lost_signal_ends_as_unknown() {
    let mut net = chain(2, Sampling::ALL);
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Signal;
    net.signals(1, 7, 8, 0);
    net.pass(RECEIPT_TIMEOUT + HEARTBEAT * 2);
    let [(1, span)] = &net.spans[..] else { panic!("{:?}", net.spans) };
    assert_eq!(span.failure.as_deref(), Some("unknown"));
    assert!(span.end - span.start >= RECEIPT_TIMEOUT);
    assert!(net.hubs[&1].traces.is_empty());
}

#[test]
fn a_signal_that_arrives_before_its_senders_presence_is_held() {
    let mut net = chain(2, Sampling::ALL);
    net.loses = |envelope| matches!(envelope, Envelope::Change(_));
    net.joins(1, 9, 1);
    net.signals(1, 9, 8, 0);
    net.loses = |_| false;
    net.pass(HEARTBEAT * 4);
    let delivery = net.spans.iter().find(|(n, _)| *n == 2).map(|(_, span)| span).unwrap();
    assert!(delivery.events.iter().any(|(event, _)| *event == "held"), "{delivery:?}");
}

#[test]
fn the_number_of_open_spans_is_bounded() {
    let mut net = chain(2, Sampling::ALL);
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Signal;
    (0..MAX_OPEN_SPANS + 3).for_each(|_| net.signals(1, 7, 8, 0));
    let now = net.now;
    assert_eq!(net.hubs.get_mut(&1).unwrap().stats(now).spans_dropped, 3);
    net.pass(RECEIPT_TIMEOUT + HEARTBEAT * 2);
    assert_eq!(net.spans.len(), MAX_OPEN_SPANS);
}

#[test]
fn spans_name_a_renamed_hub_by_its_new_id() {
    let mut net = Net::new(0);
    net.sampling = Sampling::ALL;
    net.start(1);
    net.pass(HEARTBEAT);
    net.start_as(2, hub(1), 9);
    net.input(2, RelayInput::Namesake { incarnation: net.hubs[&1].incarnation(), process: net.hubs[&1].process() });
    net.pass(HEARTBEAT * 3);
    let renamed = net.hubs[&2].hub();
    assert_ne!(renamed, hub(1));
    net.link(1, 2);
    net.joins(1, 7, 0);
    let claim = Claim { incarnation: PeerIncarnation(1000), hub: hub(1) };
    net.letter(2, ToMesh::Opened { peer: id(8), claim });
    let data = crate::codec::describe(&id(8), None).unwrap();
    let discovered = Arc::new(wire::peer_discovered(&data, claim.incarnation, "n", 0));
    let (network, stay) = (NetworkName::new("n"), Stay::default());
    let announcement = Announcement { peer: id(8), network, claim, remote: false, stay, discovered };
    net.letter(2, ToMesh::Joined(Arc::new(announcement)));
    net.pass(HEARTBEAT * 2);
    net.signals(2, 8, 7, 0);
    net.pass(HEARTBEAT);
    let of = |n| net.spans.iter().find(|(by, _)| *by == n).map(|(_, span)| span).unwrap();
    assert_eq!(of(1).trace, of(2).trace);
    assert_eq!(of(1).parent, Some((of(2).id, true)));
    assert_eq!(attribute(of(1), attribute::FROM_HUB), Some(&AttributeValue::Hub(renamed)));
    assert_eq!(attribute(of(2), attribute::HUB), Some(&AttributeValue::Hub(renamed)));
    assert_eq!(attribute(of(2), attribute::NEXT_HUB), Some(&AttributeValue::Hub(hub(1))));
}

/// Posts a signal from peer 7 to peer 8, and returns it instead of delivering it. The hubs must have no other envelopes
/// in flight.
fn intercepted(net: &mut Net) -> (Hop, Vec<u8>) {
    net.stopped = Some(2);
    net.signals(1, 7, 8, 0);
    net.stopped = None;
    let waits = std::mem::take(&mut net.waits);
    let [(2, via, envelope)] = &waits[..] else { panic!("{waits:?}") };
    let mut bytes = Vec::new();
    envelope.encode(&mut bytes);
    (*via, bytes)
}

fn arrives(net: &mut Net, (via, bytes): &(Hop, Vec<u8>)) {
    let envelope = Envelope::decode(&mut &bytes[..]).unwrap().unwrap();
    net.input(2, RelayInput::Received { via: *via, envelope });
    net.run();
}

#[test]
fn a_signal_that_arrives_twice_has_one_span() {
    let delivered =
        |net: &Net| net.spans.iter().filter(|(n, _)| *n == 2).map(|(_, span)| span.trace).collect::<Vec<_>>();
    // The second copy arrives after the outcome.
    let mut net = chain(2, Sampling::ALL);
    let signal = intercepted(&mut net);
    arrives(&mut net, &signal);
    arrives(&mut net, &signal);
    net.pass(RECEIPT_TIMEOUT + HEARTBEAT);
    assert_eq!(delivered(&net).len(), 1);
    assert!(net.hubs[&2].traces.is_empty());
    // Both copies arrive while an earlier signal is missing.
    let mut net = chain(2, Sampling::ALL);
    let (first, second) = (intercepted(&mut net), intercepted(&mut net));
    arrives(&mut net, &second);
    arrives(&mut net, &second);
    assert_eq!(delivered(&net), []);
    arrives(&mut net, &first);
    net.pass(RECEIPT_TIMEOUT + HEARTBEAT);
    assert_eq!(delivered(&net).len(), 2);
    assert!(net.spans.iter().all(|(_, span)| span.failure.is_none()), "{:?}", net.spans);
}

#[test]
fn a_number_that_is_used_again_ends_the_earlier_span() {
    let mut net = chain(2, Sampling::ALL);
    net.loses = |envelope| envelope.kind() == EnvelopeKind::Signal;
    (0..MAX_OPEN_SPANS).for_each(|_| net.signals(1, 7, 8, 0));
    net.loses = |_| false;
    // Hub 2 restarts, and hub 1 counts its signals from the beginning.
    net.kill(2);
    net.pass(HEARTBEAT / 2);
    net.start(2);
    net.link(1, 2);
    net.joins(2, 8, 1);
    net.pass(HEARTBEAT / 2);
    assert_eq!(net.spans.len(), 0);
    net.signals(1, 7, 8, 0);
    net.pass(HEARTBEAT / 2);
    let sent: Vec<_> = net.spans.iter().filter(|(n, _)| *n == 1).map(|(_, span)| span.failure.as_deref()).collect();
    assert_eq!(sent, [Some("unknown"), None]);
    let now = net.now;
    assert_eq!(net.hubs.get_mut(&1).unwrap().stats(now).spans_dropped, 0);
}
