//! Tests of the words and sentences in messages to clients, on pages for operators and in logs.

use crate::budget::{BudgetItem, BudgetOwner};
use crate::envelope::Malformed;
use crate::limits::MAX_CLOSEST;
use crate::proxied::BadProxyHead;
use crate::reason::{CloseReason, LeaveReason};
use crate::{Discovery, ErrorCode, MessageKind, Outcome, PeerId, PresenceRefusal, ResumeOutcome, SignalKind};

/// The reasons and close codes are those of the table in docs/protocol.md.
#[test]
fn a_leave_has_the_reason_and_close_code_of_its_cause() {
    use CloseReason::{ClientClosed, ConnectionLost, DeadPeer, Draining, Kicked, PageClosed, Replaced};
    let closed = LeaveReason::Closed;
    for (reason, label, code) in [
        (closed(PageClosed), "client-closed", Some(1001)),
        (closed(ClientClosed), "client-closed", Some(1000)),
        (closed(ConnectionLost), "connection-lost", Some(1006)),
        (closed(DeadPeer), "dead-peer", Some(4008)),
        (closed(Replaced), "replaced", Some(4001)),
        (closed(Draining), "draining", Some(1012)),
        (closed(Kicked), "kicked", Some(4011)),
        (LeaveReason::HubLost, "hub-lost", None),
        (LeaveReason::Moved, "moved", None),
        (LeaveReason::Crowded, "crowded", None),
    ] {
        assert_eq!((reason.label(), reason.close_code()), (label, code), "{reason:?}");
    }
}

/// The last reason of version 2.0.0 is `TryAgainLater`.
#[test]
fn hubs_of_version_2_0_0_get_a_reason_that_they_know() {
    for reason in CloseReason::ALL {
        let known = if reason == CloseReason::PageClosed {
            CloseReason::ClientClosed
        } else if reason as usize > CloseReason::TryAgainLater as usize {
            CloseReason::ConnectionLost
        } else {
            reason
        };
        assert_eq!(LeaveReason::Closed(reason).as_of_2_0_0(), LeaveReason::Closed(known), "{reason:?}");
    }
    for reason in [LeaveReason::HubLost, LeaveReason::Moved, LeaveReason::Crowded] {
        assert_eq!(reason.as_of_2_0_0(), reason);
    }
}

#[test]
fn only_a_draining_hub_processes_messages_that_arrive_after_its_close() {
    for reason in CloseReason::ALL {
        assert_eq!(reason.routes_messages_in_flight(), reason == CloseReason::Draining, "{reason:?}");
    }
}

#[test]
fn a_client_that_does_not_read_or_was_removed_gets_its_close_frame_before_its_queue() {
    use CloseReason::{DeadPeer, Kicked, Replaced, SlowConsumer};
    for reason in CloseReason::ALL {
        let overtakes = [DeadPeer, Kicked, Replaced, SlowConsumer].contains(&reason);
        assert_eq!(reason.overtakes_queue(), overtakes, "{reason:?}");
    }
}

#[test]
fn the_budget_of_a_network_limits_all_items_except_announcements_and_errors() {
    let of_networks = BudgetItem::ALL.into_iter().filter(|item| item.is_of(BudgetOwner::Network));
    use BudgetItem::{Bytes, Events, Messages, Pages};
    assert_eq!(of_networks.collect::<Vec<_>>(), [Messages, Bytes, Events, Pages]);
    assert!(BudgetItem::ALL.into_iter().all(|item| item.is_of(BudgetOwner::Session)));
    assert_eq!(BudgetOwner::ALL.map(BudgetOwner::label), ["peer", "network"]);
}

#[test]
fn a_mode_of_discovery_is_written_as_it_is_read() {
    for (text, mode) in [
        ("all", Discovery::All),
        ("closest:1", Discovery::Closest(1)),
        (&format!("closest:{MAX_CLOSEST}"), Discovery::Closest(MAX_CLOSEST)),
    ] {
        assert_eq!((text.parse(), mode.to_string()), (Ok(mode), text.to_owned()));
    }
    for wrong in ["", "none", "closest", "closest:0", &format!("closest:{}", MAX_CLOSEST + 1), "all:3", "nearest:3"] {
        let sentence = wrong.parse::<Discovery>().unwrap_err();
        assert!(sentence.contains(&format!("K from 1 to {MAX_CLOSEST}")), "{sentence}");
    }
}

#[test]
fn errors_say_what_is_wrong() {
    assert_eq!("".parse::<PeerId>().unwrap_err().to_string(), "an id is 40 hexadecimal digits");
    assert_eq!(Malformed("a change without a hub").to_string(), "a change without a hub");
    let sentences = [BadProxyHead::Missing, BadProxyHead::TooLong, BadProxyHead::Malformed].map(BadProxyHead::explain);
    for (sentence, word) in sentences.into_iter().zip(["send-proxy-v2", "too long", "violates"]) {
        assert!(sentence.contains(word), "{sentence}");
    }
}

#[test]
fn every_kind_of_signal_has_its_own_index() {
    let signals = SignalKind::ALL.map(|kind| MessageKind::Signal(kind).index());
    let first = signals[0];
    assert!(signals.iter().enumerate().all(|(n, index)| *index == first + n), "{signals:?}");
    assert!(signals.iter().all(|index| *index < MessageKind::COUNT));
    let others = [MessageKind::Announce, MessageKind::Goodbye, MessageKind::Ping, MessageKind::Invalid];
    assert!(others.iter().all(|kind| !signals.contains(&kind.index())));
}

#[test]
fn a_client_that_offers_the_subprotocol_gets_a_code_to_try_again_later() {
    for reason in CloseReason::ALL {
        assert_eq!(reason.close_frame_for(false), reason.close_frame(), "{reason:?}");
        let full = reason == CloseReason::MaxConnections;
        let expected = if full { Some((1013, "max connections")) } else { reason.close_frame() };
        assert_eq!(reason.close_frame_for(true), expected, "{reason:?}");
    }
    assert_eq!(CloseReason::MaxConnections.close_frame(), Some((1008, "max connections")));
}

/// Dashboards and alerts select metrics by these words.
#[test]
fn words_of_metrics_are_stable() {
    assert_eq!(
        BudgetItem::ALL.map(BudgetItem::label),
        ["messages", "bytes", "announcements", "events", "discover", "errors"]
    );
    assert_eq!(
        ResumeOutcome::ALL.map(ResumeOutcome::label),
        ["resumed", "continued", "outdated", "younger", "late", "owned", "foreign", "malformed"]
    );
    assert_eq!(
        PresenceRefusal::ALL.map(PresenceRefusal::label),
        ["hubs", "peers", "networks", "bytes", "changes-ahead"]
    );
}

#[test]
fn only_a_signal_that_was_not_delivered_has_failed() {
    assert!(Outcome::Failed(ErrorCode::Unknown).is_failure());
    assert!(!Outcome::Delivered.is_failure() && !Outcome::Forwarded.is_failure());
}
