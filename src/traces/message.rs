//! The messages of OTLP.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as SpanMessage, Status, span};
use prost::Message as _;
use proto::HubId;
use proto::trace::{AttributeValue, Sampling, Span, SpanKind};

/// Flags of a span (W3C). SAMPLED says that the trace is sampled. PARENT_IS_KNOWN says that it is known whether another
/// process made the parent. PARENT_IS_REMOTE says that another process made the parent.
const SAMPLED: u32 = 0x1;
const PARENT_IS_KNOWN: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;

/// Encodes the spans of one hub.
#[derive(Debug)]
pub(super) struct Encoder {
    resource: Resource,
    /// The trace state of all spans. The trace state contains the sampling threshold, from which collectors can
    /// estimate the number of all signals.
    trace_state: String,
}

impl Encoder {
    pub(super) fn new(hub: HubId, attributes: &[(String, String)], sampling: Sampling) -> Self {
        let own = [("service.instance.id", hub.to_string()), ("service.version", env!("CARGO_PKG_VERSION").to_owned())];
        let said = attributes.iter().map(|(key, value)| (key.as_str(), value.clone()));
        // An operator's attributes take precedence.
        let is_said = |key: &str| attributes.iter().any(|(said, _)| said == key);
        let own = own.into_iter().filter(|(key, _)| !is_said(key));
        let attributes = said.chain(own).map(|(key, value)| pair(key, Value::StringValue(value))).collect();
        let resource = Resource { attributes, ..Resource::default() };
        Self { resource, trace_state: format!("ot=th:{}", sampling.threshold()) }
    }

    /// Encodes a request. `epoch` is the wall clock at the start of the hub's monotonic clock.
    pub(super) fn encode(&self, spans: &[Span], epoch: Duration) -> Vec<u8> {
        let scope = InstrumentationScope {
            name: "peerpigeon".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let spans = spans.iter().map(|span| self.span(span, epoch)).collect();
        let scope_spans = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
        let resource_spans = ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        };
        ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
    }

    fn span(&self, span: &Span, epoch: Duration) -> SpanMessage {
        let nanos = |at: Duration| u64::try_from((epoch + at).as_nanos()).unwrap_or(u64::MAX);
        let flags = match span.parent {
            Some((_, true)) => SAMPLED | PARENT_IS_KNOWN | PARENT_IS_REMOTE,
            Some((_, false)) => SAMPLED | PARENT_IS_KNOWN,
            None => SAMPLED,
        };
        let status = match &span.failure {
            Some(why) => Status { message: why.to_string(), code: StatusCode::Error as i32 },
            None => Status::default(),
        };
        SpanMessage {
            trace_id: span.trace.0.to_vec(),
            span_id: span.id.0.to_vec(),
            trace_state: self.trace_state.clone(),
            parent_span_id: span.parent.map(|(id, _)| id.0.to_vec()).unwrap_or_default(),
            flags,
            name: span.name.to_owned(),
            kind: kind(span.kind) as i32,
            start_time_unix_nano: nanos(span.start),
            end_time_unix_nano: nanos(span.end),
            attributes: span.attributes.iter().map(|(name, value)| pair(name, shown(value))).collect(),
            events: span
                .events
                .iter()
                .map(|&(name, at)| Event { time_unix_nano: nanos(at), name: name.to_owned(), ..Event::default() })
                .collect(),
            status: Some(status),
            ..SpanMessage::default()
        }
    }
}

fn kind(kind: SpanKind) -> span::SpanKind {
    match kind {
        SpanKind::Internal => span::SpanKind::Internal,
        SpanKind::Producer => span::SpanKind::Producer,
        SpanKind::Consumer => span::SpanKind::Consumer,
        SpanKind::Client => span::SpanKind::Client,
        SpanKind::Server => span::SpanKind::Server,
    }
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn shown(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::Hub(hub) => Value::StringValue(hub.to_string()),
        AttributeValue::Peer(peer) => Value::StringValue(format!("{peer:?}")),
        AttributeValue::Word(word) => Value::StringValue((*word).to_owned()),
        AttributeValue::Text(text) => Value::StringValue(text.to_string()),
        AttributeValue::Number(number) => Value::IntValue(i64::try_from(*number).unwrap_or(i64::MAX)),
        AttributeValue::Digest(digest) => Value::StringValue(format!("{digest:016x}")),
        AttributeValue::Flag(flag) => Value::BoolValue(*flag),
    }
}
