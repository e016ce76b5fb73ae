//! Tests of signals from one hub that wait for earlier signals.

use std::time::Duration;

use super::inbound::{Arrival, Inbound};
use crate::Bugs;
use crate::envelope::SignalEnvelope;
use crate::id::{NetworkName, PeerId};
use crate::limits::{COUNT_PATIENCE, HOLD, MAX_COUNTER_STEP, MAX_SIGNALS_HELD, MEMBER_BYTES};
use crate::router::Standing;
use crate::wire::SignalKind;

const NOW: Duration = Duration::from_secs(1);

/// A signal with a frame of `bytes` bytes.
fn signal(counter: u64, seq: u64, bytes: usize) -> SignalEnvelope {
    let (kind, network, frame) = (SignalKind::Offer, NetworkName::new("n"), vec![0; bytes].into());
    let (sender, target) = (PeerId::from_bytes([1; 20]), PeerId::from_bytes([2; 20]));
    SignalEnvelope { counter, seq, receipt: false, kind, sender, target, network, frame, standing: Standing::Member(1) }
}

fn arrives(inbound: &mut Inbound, counter: u64, now: Duration) -> Arrival {
    inbound.arrives(&signal(counter, 0, 0), 0, true, usize::MAX, now)
}

/// The state of the signals from one hub, after signal 1 was delivered and while the signals `others` wait.
fn waiting(others: impl IntoIterator<Item = SignalEnvelope>) -> Inbound {
    let mut inbound = Inbound::default();
    assert_eq!(arrives(&mut inbound, 1, NOW), Arrival::Deliver);
    others.into_iter().for_each(|signal| inbound.hold(signal, NOW + HOLD, &mut Bugs::default()));
    inbound
}

#[test]
fn only_signals_that_still_wait_count_in_the_size() {
    let size = |bytes: &[usize]| bytes.iter().map(|frame| frame + MEMBER_BYTES).sum::<usize>();
    let mut inbound = waiting([signal(2, 9, 100), signal(3, 0, 20), signal(4, 0, 3), signal(6, 0, 50)]);
    assert_eq!(inbound.bytes(), size(&[100, 20, 3, 50]));
    assert_eq!(inbound.give_up(0).map(|signal| signal.counter), Some(2), "the sender of signal 2 stays unknown");
    assert_eq!(inbound.bytes(), size(&[20, 3, 50]));
    assert_eq!(inbound.next(0).map(|signal| signal.counter), Some(3));
    assert_eq!(inbound.bytes(), size(&[3, 50]));
    assert_eq!(inbound.next(0).map(|signal| signal.counter), Some(4));
    assert!(inbound.next(0).is_none() && inbound.bytes() == size(&[50]));
    inbound.drop_held();
    assert_eq!((inbound.bytes(), inbound.len(), inbound.due()), (0, 0, None));
}

#[test]
fn only_the_latest_signals_that_were_given_up_are_answered_when_they_arrive() {
    let most = MAX_SIGNALS_HELD as u64;
    let given_up = |inbound: &mut Inbound, counter| {
        let arrival = arrives(inbound, counter, NOW);
        matches!(arrival, Arrival::Late { is_answered: true })
    };
    // Signals 2 to `last - 1` do not arrive in time.
    let last = 2 * most;
    let mut inbound = waiting([signal(last, 0, 0)]);
    assert!(inbound.give_up(0).is_none() && inbound.next(0).is_some());
    assert!(!given_up(&mut inbound, last - most - 1) && given_up(&mut inbound, last - most));
    assert!(given_up(&mut inbound, last - 1) && !given_up(&mut inbound, last));
    // Later signals are given up now. They replace the oldest signals in the bounded list.
    inbound.hold(signal(last + 11, 0, 0), NOW + HOLD, &mut Bugs::default());
    assert!(inbound.give_up(0).is_none() && inbound.next(0).is_some());
    assert!((1..=10).all(|n| given_up(&mut inbound, last + n)));
    assert!(!given_up(&mut inbound, last - most + 1) && given_up(&mut inbound, last - 2));
}

#[test]
fn only_missing_signals_before_a_waiting_signal_count_as_given_up() {
    let mut inbound = waiting([signal(4, 0, 0)]);
    assert!(inbound.give_up(0).is_none() && inbound.next(0).is_some());
    for (counter, is_answered) in [(1, false), (2, true), (3, true), (4, false)] {
        assert_eq!(arrives(&mut inbound, counter, NOW), Arrival::Late { is_answered }, "{counter}");
    }
}

#[test]
fn counting_restarts_only_from_counters_that_follow_each_other() {
    let far = 2 * MAX_COUNTER_STEP;
    let later = NOW + COUNT_PATIENCE;
    for (next, restarts) in [
        (far + 1, true),
        (far + MAX_COUNTER_STEP, true),
        (far + MAX_COUNTER_STEP + 1, false),
        (far, false),
        (far - 1, false),
    ] {
        let mut inbound = waiting([]);
        assert_eq!(arrives(&mut inbound, far, NOW), Arrival::TooFar);
        let arrival = arrives(&mut inbound, next, later);
        assert_eq!(arrival, if restarts { Arrival::Restarted { dropped: vec![] } } else { Arrival::TooFar }, "{next}");
    }
}
