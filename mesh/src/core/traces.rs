//! Records the spans of links, and passes all spans of the mesh to the exporter.

use std::sync::Arc;
use std::time::Duration;

use proto::limits::TRACE_TEXT_BYTES;
use proto::trace::{Attribute, AttributeValue, Span, SpanKind, TraceId, attribute};
use proto::{LinkId, Now};
use tracing::trace;

use super::Core;
use crate::dial::Plan;
use crate::link::Link;
use crate::stats::LinkEnd;

/// The number of the mesh among the parts of a process that make trace ids. Shards are numbered from 0.
const PART: u64 = u64::MAX;

/// Steps of a link's trace. Each step has one span: the opening of the link, and its end.
const OPEN: u8 = 0;
const DOWN: u8 = 1;

/// The trace of a link. The trace begins with the dial, or with the accepted socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkTrace {
    pub(crate) trace: TraceId,
    began: Duration,
}

impl Core {
    /// Begins the trace of a dial or of an accepted socket. Links are rare, so all of them are traced if the hub traces
    /// at all.
    pub(super) fn trace_link(&mut self, now: Now) -> Option<LinkTrace> {
        let tracer = self.tracer.as_ref()?;
        self.last_trace += 1;
        Some(LinkTrace { trace: tracer.trace(PART, self.last_trace), began: now.at })
    }

    /// Records a span of a signal.
    pub(super) fn traced(&mut self, span: Span) {
        let (trace_id, span_id, name) = (span.trace, span.id, span.name);
        let failure = span.failure.as_deref();
        trace!(%trace_id, %span_id, name, failure, "signal_traced");
        if let Some(tracer) = &self.tracer {
            tracer.record(span);
        }
    }

    /// Records that a dial has failed.
    pub(super) fn trace_dial_failed(&mut self, plan: &Plan, error: &str, now: Now) {
        if let Some(trace) = plan.trace {
            let attributes = vec![
                (attribute::LINK_DIALED, AttributeValue::Flag(true)),
                (attribute::LINK_URL, AttributeValue::Text(cut(&plan.shown()))),
            ];
            self.record_open(trace, attributes, Some(cut(error)), now);
        }
    }

    /// Records that a link is ready.
    pub(super) fn trace_ready(&mut self, id: LinkId, now: Now) {
        if let Some(link) = self.links.get(&id)
            && let Some(trace) = link.trace
        {
            let attributes = about(link);
            self.record_open(trace, attributes, None, now);
        }
    }

    /// Records the end of a link that was removed.
    pub(super) fn trace_down(&mut self, link: &Link, end: LinkEnd, now: Now) {
        let Some(LinkTrace { trace, began }) = link.trace else { return };
        let mut attributes = about(link);
        attributes.push((attribute::REASON, AttributeValue::Word(end.label())));
        let Some(ready_at) = link.ready_at() else {
            return self.record_open(LinkTrace { trace, began }, attributes, Some(end.label().into()), now);
        };
        let lived = now.at.saturating_sub(ready_at).as_millis() as u64;
        attributes.push((attribute::LIVED, AttributeValue::Number(lived)));
        attributes.push((attribute::HUB, AttributeValue::Hub(self.own)));
        let is_expected = matches!(end, LinkEnd::Closed | LinkEnd::Double | LinkEnd::Ending | LinkEnd::Renamed);
        let Some(tracer) = &self.tracer else { return };
        tracer.record(Span {
            trace,
            id: trace.span(self.own, DOWN),
            parent: Some((trace.span(self.own, OPEN), false)),
            name: "link down",
            kind: SpanKind::Internal,
            start: now.at,
            end: now.at,
            attributes,
            events: Vec::new(),
            failure: (!is_expected).then(|| end.label().into()),
        });
    }

    fn record_open(
        &mut self,
        LinkTrace { trace, began }: LinkTrace,
        mut attributes: Vec<Attribute>,
        failure: Option<Arc<str>>,
        now: Now,
    ) {
        let Some(tracer) = &self.tracer else { return };
        let dialed = attributes.contains(&(attribute::LINK_DIALED, AttributeValue::Flag(true)));
        attributes.push((attribute::HUB, AttributeValue::Hub(self.own)));
        tracer.record(Span {
            trace,
            id: trace.span(self.own, OPEN),
            parent: None,
            name: "link open",
            kind: if dialed { SpanKind::Client } else { SpanKind::Server },
            start: began,
            end: now.at,
            attributes,
            events: Vec::new(),
            failure,
        });
    }
}

fn about(link: &Link) -> Vec<Attribute> {
    let mut attributes = vec![
        (attribute::LINK_DIALED, AttributeValue::Flag(link.dialed())),
        (attribute::LINK_LEGACY, AttributeValue::Flag(link.legacy)),
        (attribute::ADDRESS, AttributeValue::Text(link.address.to_string().into())),
    ];
    attributes.extend(link.hub.map(|hub| (attribute::LINK_HUB, AttributeValue::Hub(hub))));
    let url = link.target.as_ref().map(|(_, url)| (attribute::LINK_URL, AttributeValue::Text(cut(url))));
    attributes.extend(url);
    attributes
}

pub(super) fn cut(text: &str) -> Arc<str> {
    text[..text.floor_char_boundary(TRACE_TEXT_BYTES)].into()
}
