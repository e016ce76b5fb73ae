//! The spans of signals between hubs.
//!
//! The sender's hub records a span that ends when the outcome returns. Each hub that forwards the signal records a span
//! of zero length. The target's hub records a span from the arrival until the outcome is known. All spans of a signal
//! have the trace id of [`TraceId::of_signal`].

use std::collections::BTreeMap;
use std::time::Duration;

use crate::envelope::{RouteHeader, SignalEnvelope};
use crate::id::HubId;
use crate::limits::{MAX_OPEN_SPANS, RECEIPT_TIMEOUT};
use crate::reason::{ErrorCode, Outcome};
use crate::route::Hop;
use crate::time::Now;
use crate::trace::{AttributeValue, Sampling, Span, SpanId, SpanKind, TraceId, attribute, network_digest};

use super::{Relay, RelayOutput};

/// Spans of signals without an outcome.
#[derive(Debug, Default)]
pub(super) struct Traces {
    sampling: Sampling,
    /// The open spans, by the side of this hub, the id of the other hub, and the counter of the signal. At most
    /// [`MAX_OPEN_SPANS`] spans are stored.
    open: BTreeMap<(Side, HubId, u64), Span>,
}

/// Whether a signal goes to another hub, or comes from one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Side {
    Sent,
    Received,
}

#[cfg(test)]
impl Traces {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

impl Relay {
    /// Records spans of this share of the signals between hubs, as [`RelayOutput::Span`]. If this function is not
    /// called, no span is recorded.
    pub fn trace(&mut self, sampling: Sampling) {
        self.traces.sampling = sampling;
    }

    /// Begins the span of a signal from a peer of this hub to another hub.
    pub(super) fn trace_sent(
        &mut self,
        (route, via): (&RouteHeader, Hop),
        signal: &SignalEnvelope,
        read_at: Duration,
        now: Now,
    ) {
        if self.traces.sampling.is_off() {
            return;
        }
        let Some((trace, route)) = self.sampled(route, signal.counter) else { return };
        let mut span = self.span_of(trace, trace.span(route.from, 0), &route, signal);
        (span.name, span.kind, span.start) = ("signal send", SpanKind::Producer, read_at);
        span.attributes.extend(self.outer_neighbour(via).map(|hub| (attribute::NEXT_HUB, AttributeValue::Hub(hub))));
        span.events.push(("sent", now.at));
        self.open_span((Side::Sent, self.names.inward(route.to), signal.counter), span, now);
    }

    /// Records that this hub has forwarded a signal to `next`. If `next` is `None`, records that this hub has answered
    /// the signal with a failure.
    pub(super) fn trace_passed(
        &mut self,
        (via, next): (Hop, Option<Hop>),
        route: &RouteHeader,
        signal: &SignalEnvelope,
        now: Now,
    ) {
        if self.traces.sampling.is_off() {
            return;
        }
        let Some((trace, route)) = self.sampled(route, signal.counter) else { return };
        let mut span = self.received_span(trace, via, &route, signal);
        let is_forwarded = route.to != self.names.outside();
        (span.name, span.kind) =
            if is_forwarded { ("signal forward", SpanKind::Internal) } else { ("signal deliver", SpanKind::Consumer) };
        (span.start, span.end) = (now.at, now.at);
        match next {
            Some(next) => {
                let next = self.outer_neighbour(next).map(|hub| (attribute::NEXT_HUB, AttributeValue::Hub(hub)));
                span.attributes.extend(next);
            }
            None => conclude(&mut span, Outcome::Failed(ErrorCode::Unreachable), now),
        }
        self.outputs.push_back(RelayOutput::Span(Box::new(span)));
    }

    /// Begins the span of a signal that has arrived at its destination.
    pub(super) fn trace_arrived(&mut self, via: Hop, route: &RouteHeader, signal: &SignalEnvelope, now: Now) {
        if self.traces.sampling.is_off() {
            return;
        }
        let Some((trace, outer)) = self.sampled(route, signal.counter) else { return };
        let key = (Side::Received, route.from, signal.counter);
        if self.traces.open.get(&key).is_some_and(|open| open.trace == trace) {
            // The signal has arrived twice, and its first copy still has no outcome.
            return;
        }
        let mut span = self.received_span(trace, via, &outer, signal);
        (span.name, span.kind, span.start) = ("signal deliver", SpanKind::Consumer, now.at);
        self.open_span(key, span, now);
    }

    /// Records an event of a signal without an outcome, if the signal is traced.
    pub(super) fn trace_event(&mut self, side: Side, hub: HubId, counter: u64, event: &'static str, now: Now) {
        if self.traces.open.is_empty() {
            return;
        }
        if let Some(span) = self.traces.open.get_mut(&(side, hub, counter)) {
            span.events.push((event, now.at));
        }
    }

    /// Ends the span of a signal, if the signal is traced. If `outcome` is `None`, the signal had an outcome before,
    /// and the span is dropped.
    pub(super) fn trace_end(&mut self, side: Side, hub: HubId, counter: u64, outcome: Option<Outcome>, now: Now) {
        if self.traces.open.is_empty() {
            return;
        }
        if let Some(span) = self.traces.open.remove(&(side, hub, counter))
            && let Some(outcome) = outcome
        {
            self.put_out(span, outcome, now);
        }
    }

    /// Ends the spans of signals whose outcomes do not arrive.
    pub(super) fn end_old_spans(&mut self, now: Now) {
        if self.traces.open.is_empty() {
            return;
        }
        let is_old = |span: &Span| span.start + RECEIPT_TIMEOUT <= now.at;
        for (_, span) in self.traces.open.extract_if(.., |_, span| is_old(span)).collect::<Vec<_>>() {
            self.put_out(span, Outcome::Failed(ErrorCode::Unknown), now);
        }
    }

    /// The trace of a signal if it is recorded, and its route with the ids that other hubs see.
    fn sampled(&self, route: &RouteHeader, counter: u64) -> Option<(TraceId, RouteHeader)> {
        let (to, from) = (self.names.outward(route.to), self.names.outward(route.from));
        let route = RouteHeader { to, from, ..*route };
        let trace = TraceId::of_signal(&route, counter);
        self.traces.sampling.takes(trace).then_some((trace, route))
    }

    fn span_of(&self, trace: TraceId, id: SpanId, route: &RouteHeader, signal: &SignalEnvelope) -> Span {
        use AttributeValue::{Digest, Hub, Number, Peer, Word};
        Span {
            trace,
            id,
            parent: None,
            name: "",
            kind: SpanKind::Internal,
            start: Duration::ZERO,
            end: Duration::ZERO,
            attributes: vec![
                (attribute::HUB, Hub(self.names.outside())),
                (attribute::FROM_HUB, Hub(route.from)),
                (attribute::TO_HUB, Hub(route.to)),
                (attribute::KIND, Word(signal.kind.label())),
                (attribute::BYTES, Number(signal.frame.len() as u64)),
                (attribute::NETWORK, Digest(network_digest(signal.network.as_str()))),
                (attribute::SENDER, Peer(signal.sender)),
                (attribute::TARGET, Peer(signal.target)),
            ],
            events: Vec::new(),
            failure: None,
        }
    }

    /// A span of a signal that arrived from another hub. The parent of the span is the span of the neighbour that sent
    /// the signal.
    fn received_span(&self, trace: TraceId, via: Hop, route: &RouteHeader, signal: &SignalEnvelope) -> Span {
        let parent = trace.span(self.outer_neighbour(via).unwrap_or(route.from), route.hops);
        let id = trace.span(self.names.outside(), route.hops.saturating_add(1));
        let mut span = self.span_of(trace, id, route, signal);
        span.parent = Some((parent, true));
        span.attributes.push((attribute::HOPS, AttributeValue::Number(route.hops.into())));
        span
    }

    /// The neighbour at the other end of a hop, as other hubs name it.
    fn outer_neighbour(&self, via: Hop) -> Option<HubId> {
        self.neighbour(via).map(|hub| self.names.outward(hub))
    }

    fn open_span(&mut self, key: (Side, HubId, u64), span: Span, now: Now) {
        if self.traces.open.len() >= MAX_OPEN_SPANS && !self.traces.open.contains_key(&key) {
            self.stats.spans_dropped += 1;
            return;
        }
        // Counters start again after a partition, so an earlier signal can have the same key. The outcome of that
        // earlier signal will not arrive.
        if let Some(earlier) = self.traces.open.insert(key, span) {
            self.put_out(earlier, Outcome::Failed(ErrorCode::Unknown), now);
        }
    }

    fn put_out(&mut self, mut span: Span, outcome: Outcome, now: Now) {
        conclude(&mut span, outcome, now);
        self.outputs.push_back(RelayOutput::Span(Box::new(span)));
    }
}

fn conclude(span: &mut Span, outcome: Outcome, now: Now) {
    span.end = now.at;
    span.attributes.push((attribute::OUTCOME, AttributeValue::Word(outcome.label())));
    if let Outcome::Failed(code) = outcome {
        span.failure = Some(code.label().into());
    }
}
