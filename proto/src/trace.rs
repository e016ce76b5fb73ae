//! Decides which signals, joins and links are traced, and defines what is recorded about them.
//!
//! A hub adds nothing to its envelopes for traces. All hubs on the route of a signal derive the same trace id from
//! existing fields of the envelope. So all hubs with the same share of traces make the same decision whether to trace
//! the signal. Each hub derives the ids of its own spans, and of the previous hub's span, from the trace id.

use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::envelope::RouteHeader;
use crate::id::{HubId, PeerId, write_hex};

/// The id of a trace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TraceId(pub [u8; 16]);

/// The id of a span in its trace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SpanId(pub [u8; 8]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hex = [0; 32];
        write_hex(&mut hex, &self.0);
        hex.iter().try_for_each(|&c| fmt::Write::write_char(f, c as char))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hex = [0; 16];
        write_hex(&mut hex, &self.0);
        hex.iter().try_for_each(|&c| fmt::Write::write_char(f, c as char))
    }
}

/// The hash of some bytes. The hash has no key, so that all hubs compute the same value.
fn hash(part: u64, bytes: &[&[u8]]) -> [u8; 16] {
    let mut hasher = SipHasher13::new_with_keys(part, 0);
    bytes.iter().for_each(|bytes| hasher.write(bytes));
    hasher.finish128().as_bytes()
}

impl TraceId {
    /// The trace of the signal with this counter between two hubs, in one incarnation of each hub. `route` has the ids
    /// under which other hubs know the two hubs.
    pub fn of_signal(route: &RouteHeader, counter: u64) -> Self {
        Self(hash(
            1,
            &[
                route.from.0.as_bytes(),
                &route.from_incarnation.0.to_le_bytes(),
                route.to.0.as_bytes(),
                &route.to_incarnation.0.to_le_bytes(),
                &counter.to_le_bytes(),
            ],
        ))
    }

    /// A trace of one hub. `process` is a random number of the process, and no other trace of this process has the same
    /// `part` and `number`.
    pub fn of_process(process: u64, part: u64, number: u64) -> Self {
        Self(hash(2, &[&process.to_le_bytes(), &part.to_le_bytes(), &number.to_le_bytes()]))
    }

    /// The span of a hub in this trace. `step` distinguishes the spans of the hub.
    pub fn span(self, hub: HubId, step: u8) -> SpanId {
        let mut id = [0; 8];
        id.copy_from_slice(&hash(3, &[&self.0, hub.0.as_bytes(), &[step]])[..8]);
        SpanId(id)
    }
}

/// A hash of a network's name, which spans contain in place of the name. All hubs compute the same hash of the name.
pub fn network_digest(name: &str) -> u64 {
    let bytes = hash(4, &[name.as_bytes()]);
    u64::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

/// The share of traces that are recorded. The default records none.
///
/// The decision depends only on the trace id, as the OpenTelemetry specification of consistent probability sampling
/// requires. A trace is recorded if the last 56 bits of its id are not below the threshold. So hubs with the same share
/// record the same traces. A hub with a greater share also records all traces of hubs with smaller shares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sampling {
    /// The threshold 2^56 records no trace, and the threshold 0 records all traces.
    threshold: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self::OFF
    }
}

impl Sampling {
    const RANGE: u64 = 1 << 56;

    /// No trace is recorded.
    pub const OFF: Self = Self { threshold: Self::RANGE };

    /// All traces are recorded.
    pub const ALL: Self = Self { threshold: 0 };

    /// A share from 0 to 1. A value below 0 and NaN count as 0, and a value above 1 counts as 1.
    pub fn of_share(share: f64) -> Self {
        // The cast of a float to an integer saturates, and converts NaN to 0.
        let taken = (share * Self::RANGE as f64) as u64;
        Self { threshold: Self::RANGE.saturating_sub(taken) }
    }

    /// Whether no trace is recorded.
    #[inline]
    pub const fn is_off(self) -> bool {
        self.threshold == Self::RANGE
    }

    /// Whether this trace is recorded.
    pub const fn takes(self, trace: TraceId) -> bool {
        let [.., a, b, c, d, e, f, g] = trace.0;
        u64::from_be_bytes([0, a, b, c, d, e, f, g]) >= self.threshold
    }

    /// The threshold as OpenTelemetry writes it in the trace state. The text has up to 14 hexadecimal digits, without
    /// zeros at the end.
    pub fn threshold(self) -> String {
        let digits = format!("{:014x}", self.threshold);
        let digits = digits.trim_end_matches('0');
        if digits.is_empty() { "0".to_owned() } else { digits.to_owned() }
    }
}

/// The value of an attribute of a span. Attributes contain no data of signals, no tokens and no names that a client
/// chose. Only the first eight digits of peers' ids are recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AttributeValue {
    /// A hub.
    Hub(HubId),
    /// A peer. The first eight digits of its id are shown, as in the log.
    Peer(PeerId),
    /// One of a fixed set of words, such as an outcome.
    Word(&'static str),
    /// A text, of at most a few hundred bytes.
    Text(Arc<str>),
    /// A number.
    Number(u64),
    /// A hash, which is shown in hexadecimal digits.
    Digest(u64),
    /// A truth value.
    Flag(bool),
}

/// An attribute of a span: its name and its value.
pub type Attribute = (&'static str, AttributeValue);

/// Names of attributes.
pub mod attribute {
    /// Length of a signal's frame in bytes, as it is written to its target.
    pub const BYTES: &str = "peerpigeon.signal.bytes";
    /// Kind of a signal: its `type`.
    pub const KIND: &str = "peerpigeon.signal.type";
    /// The first eight digits of the sender's id.
    pub const SENDER: &str = "peerpigeon.signal.sender";
    /// The first eight digits of the target's id.
    pub const TARGET: &str = "peerpigeon.signal.target";
    /// The outcome of a signal.
    pub const OUTCOME: &str = "peerpigeon.signal.outcome";
    /// The hub of a signal's sender.
    pub const FROM_HUB: &str = "peerpigeon.signal.from_hub";
    /// The hub of a signal's target.
    pub const TO_HUB: &str = "peerpigeon.signal.to_hub";
    /// The neighbour to which a hub sends a signal.
    pub const NEXT_HUB: &str = "peerpigeon.signal.next_hub";
    /// Number of hubs that have forwarded a signal so far.
    pub const HOPS: &str = "peerpigeon.signal.hops";
    /// A hash of the network's name.
    pub const NETWORK: &str = "peerpigeon.network.hash";
    /// The hub that made the span.
    pub const HUB: &str = "peerpigeon.hub.id";
    /// The first eight digits of a peer's id.
    pub const PEER: &str = "peerpigeon.peer.id";
    /// Number of members of a network, including the new member.
    pub const MEMBERS: &str = "peerpigeon.network.members";
    /// Why a WebSocket or a link ended.
    pub const REASON: &str = "peerpigeon.close.reason";
    /// The hub at the other end of a link.
    pub const LINK_HUB: &str = "peerpigeon.link.hub";
    /// Whether this hub dialed the link.
    pub const LINK_DIALED: &str = "peerpigeon.link.dialed";
    /// Whether the link is a legacy link.
    pub const LINK_LEGACY: &str = "peerpigeon.link.legacy";
    /// The dialed URL, without secrets.
    pub const LINK_URL: &str = "url.full";
    /// The address of the other end.
    pub const ADDRESS: &str = "network.peer.address";
    /// Time for which a link was in use, in milliseconds.
    pub const LIVED: &str = "peerpigeon.link.lived_ms";
}

/// The role of a span in its trace, as OpenTelemetry names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpanKind {
    /// Work inside one hub.
    Internal,
    /// A message is sent, and its result returns later.
    Producer,
    /// A message is received.
    Consumer,
    /// A request is sent.
    Client,
    /// A request is received.
    Server,
}

/// A finished piece of work in a trace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// The trace.
    pub trace: TraceId,
    /// The id of this span.
    pub id: SpanId,
    /// The span that caused this one, and whether another hub made that span.
    pub parent: Option<(SpanId, bool)>,
    /// The name of the work.
    pub name: &'static str,
    /// The role of the span in its trace.
    pub kind: SpanKind,
    /// When the work began, by the hub's monotonic clock.
    pub start: Duration,
    /// When the work ended, by the same clock.
    pub end: Duration,
    /// Details.
    pub attributes: Vec<Attribute>,
    /// Names and times of events during the work.
    pub events: Vec<(&'static str, Duration)>,
    /// Why the work failed. `None` if it succeeded.
    pub failure: Option<Arc<str>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::HubIncarnation;

    fn route(from: u8, to: u8) -> RouteHeader {
        let hub = |n| HubId(PeerId::from_bytes([n; 20]));
        RouteHeader {
            to: hub(to),
            to_incarnation: HubIncarnation(2),
            from: hub(from),
            from_incarnation: HubIncarnation(1),
            hops: 0,
        }
    }

    #[test]
    fn the_trace_of_a_signal_does_not_depend_on_the_hub_that_derives_it() {
        let trace = TraceId::of_signal(&route(1, 2), 7);
        // The id is fixed, because hubs of different versions must derive the same id.
        assert_eq!(trace.to_string(), "dfb6f33c7732349b0e0a4f68749fefb3");
        assert_eq!(TraceId::of_signal(&RouteHeader { hops: 3, ..route(1, 2) }, 7), trace);
        let other_life = RouteHeader { to_incarnation: HubIncarnation(3), ..route(1, 2) };
        let earlier = RouteHeader { from_incarnation: HubIncarnation(0), ..route(1, 2) };
        let others = [(route(2, 1), 7), (route(1, 2), 8), (other_life, 7), (earlier, 7)];
        assert!(others.iter().all(|(route, counter)| TraceId::of_signal(route, *counter) != trace));
        let (hub, other) = (route(1, 2).from, route(1, 2).to);
        assert_eq!(trace.span(hub, 1).to_string(), "5c2f60b0a30ed218");
        assert!(trace.span(hub, 1) != trace.span(hub, 2) && trace.span(hub, 1) != trace.span(other, 1));
    }

    #[test]
    fn a_share_of_the_traces_is_sampled() {
        let taken = |share| {
            let sampling = Sampling::of_share(share);
            (0..100_000).filter(|&n| sampling.takes(TraceId::of_signal(&route(1, 2), n))).count()
        };
        assert_eq!((taken(0.0), taken(-1.0), taken(f64::NAN)), (0, 0, 0));
        assert_eq!((taken(1.0), taken(2.0)), (100_000, 100_000));
        assert!((9_700..10_300).contains(&taken(0.1)), "{}", taken(0.1));
        assert!((900..1_100).contains(&taken(0.01)), "{}", taken(0.01));
    }

    #[test]
    fn a_greater_share_includes_the_traces_of_a_smaller_share() {
        let (few, many) = (Sampling::of_share(0.1), Sampling::of_share(0.3));
        let traces = (0..10_000).map(|n| TraceId::of_signal(&route(1, 2), n));
        assert!(traces.filter(|&trace| few.takes(trace)).all(|trace| many.takes(trace)));
    }

    #[test]
    fn thresholds_are_written_as_in_the_specification() {
        // Examples from OpenTelemetry's specification of `th` in the trace state.
        for (share, threshold) in [(1.0, "0"), (0.5, "8"), (0.25, "c"), (0.0625, "f")] {
            assert_eq!(Sampling::of_share(share).threshold(), threshold);
        }
        assert!(Sampling::of_share(0.01).threshold().starts_with("fd70a3d70a3d"));
        assert!(Sampling::of_share(0.0).is_off() && Sampling::default().is_off());
        assert!(!Sampling::ALL.is_off() && !Sampling::of_share(1e-16).is_off());
    }
}
