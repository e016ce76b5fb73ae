//! Sends spans to an OpenTelemetry collector, as OTLP over HTTP with protobuf.
//!
//! The threads of the hub queue spans with [`Tracer`], which never waits. One task on the main thread sends them in
//! batches. A collector that is slow, dead or full delays only this task. While the queue is full, further spans are
//! dropped and counted.

mod message;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use mesh::{ConnectError, Tls};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use proto::limits::{
    TRACE_ANSWER_BYTES, TRACE_ATTEMPTS, TRACE_BATCH, TRACE_FLUSH_TIMEOUT, TRACE_INTERVAL, TRACE_LONGEST_PAUSE,
    TRACE_PAUSE, TRACE_QUEUE, TRACE_TIMEOUT,
};
use proto::trace::Span;
use proto::{HubId, Redacted};
use shard::Clock;
use thread::Tracer;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::config::TraceSettings;
use crate::https;
use message::Encoder;

/// Numbers of spans, for metrics. All clones show the same numbers.
#[derive(Clone, Debug)]
pub struct TraceFacts {
    tracer: Tracer,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
}

/// Numbers of spans since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TraceCounts {
    /// Spans that the collector has accepted.
    pub exported: u64,
    /// Spans that were dropped because the queue was full.
    pub overflowed: u64,
    /// Spans that were dropped because the collector did not accept them in time.
    pub failed: u64,
    /// Spans that the collector refused.
    pub rejected: u64,
}

impl TraceFacts {
    /// The current numbers.
    pub fn counts(&self) -> TraceCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { exported, failed, rejected } = &*self.counts;
        TraceCounts {
            exported: of(exported),
            overflowed: self.tracer.dropped(),
            failed: of(failed),
            rejected: of(rejected),
        }
    }
}

/// Times and sizes of an exporter, which tests set to small values.
#[derive(Clone, Copy, Debug)]
pub struct TraceTuning {
    /// Maximum number of queued spans: [`TRACE_QUEUE`].
    pub queue: usize,
    /// Maximum time for which the first span of a batch waits for further spans ([`TRACE_INTERVAL`]).
    pub interval: Duration,
    /// Time within which the collector must answer ([`TRACE_TIMEOUT`]).
    pub timeout: Duration,
    /// The first pause after a failure: [`TRACE_PAUSE`].
    pub pause: Duration,
    /// The longest pause: [`TRACE_LONGEST_PAUSE`].
    pub longest_pause: Duration,
}

impl Default for TraceTuning {
    fn default() -> Self {
        Self {
            queue: TRACE_QUEUE,
            interval: TRACE_INTERVAL,
            timeout: TRACE_TIMEOUT,
            pause: TRACE_PAUSE,
            longest_pause: TRACE_LONGEST_PAUSE,
        }
    }
}

/// Sends the spans of a hub to its collector.
#[derive(Debug)]
pub struct Exporter {
    spans: mpsc::Receiver<Span>,
    /// The spans of the current request. The spans are kept until the collector accepts or refuses them, or all
    /// attempts have failed.
    batch: Vec<Span>,
    encoder: Encoder,
    url: Uri,
    headers: HeaderMap,
    tls: Tls,
    clock: Clock,
    facts: TraceFacts,
    tuning: TraceTuning,
    /// Number of failed requests since the collector last accepted or refused a batch.
    failures: u32,
    /// Whether the first refusal of a whole batch was logged.
    has_logged_refusal: bool,
}

/// The result of a request.
enum Answer {
    /// The collector has accepted the batch, except this number of spans.
    Accepted { rejected: u64 },
    /// The collector refuses the batch, and would refuse it again.
    Refused(String),
    /// The batch can be sent again, after `pause` if the collector asks for one.
    Again { why: String, pause: Option<Duration> },
}

impl Exporter {
    /// Makes an exporter for a hub, and the tracer that fills its queue.
    ///
    /// # Errors
    ///
    /// If TLS cannot be set up, or the system provides no random bytes.
    pub fn new(settings: &TraceSettings, hub: HubId, clock: Clock, tuning: TraceTuning) -> io::Result<(Self, Tracer)> {
        let tls = Tls::new(settings.roots.as_deref())?;
        let (tracer, spans) = Tracer::new(settings.sampling, getrandom::u64()?, tuning.queue);
        let mut headers = settings.headers.0.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("peerpigeon/", env!("CARGO_PKG_VERSION"))));
        let facts = TraceFacts { tracer: tracer.clone(), counts: Arc::default() };
        let exporter = Self {
            spans,
            batch: Vec::new(),
            encoder: Encoder::new(hub, &settings.resource, settings.sampling),
            url: settings.url.clone(),
            headers,
            tls,
            clock,
            facts,
            tuning,
            failures: 0,
            has_logged_refusal: false,
        };
        Ok((exporter, tracer))
    }

    /// Numbers of spans, for metrics.
    pub fn facts(&self) -> TraceFacts {
        self.facts.clone()
    }

    /// Sends spans as they are queued. This function never returns. If the future of [`Self::run`] is dropped, the
    /// spans stay in the queue, and [`Self::flush`] sends them.
    pub async fn run(&mut self) {
        loop {
            self.gather().await;
            let mut attempts = 0;
            while !self.batch.is_empty() {
                attempts += 1;
                let pause = self.send(attempts >= TRACE_ATTEMPTS).await;
                if let Some(pause) = pause {
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Sends the remaining spans, within [`TRACE_FLUSH_TIMEOUT`]. If the previous request failed, this function sends
    /// nothing, and the remaining spans are lost.
    pub async fn flush(&mut self) {
        if self.failures == 0 {
            let sending = async {
                loop {
                    while self.batch.len() < TRACE_BATCH
                        && let Ok(span) = self.spans.try_recv()
                    {
                        self.batch.push(span);
                    }
                    if self.batch.is_empty() || self.send(true).await.is_some() {
                        break;
                    }
                }
            };
            _ = tokio::time::timeout(TRACE_FLUSH_TIMEOUT, Box::pin(sending)).await;
        }
        let lost = self.batch.len() + self.spans.len();
        if lost > 0 {
            self.facts.counts.failed.fetch_add(lost as u64, Ordering::Relaxed);
            warn!(spans = lost, detail = "the collector did not accept the last spans in time", "trace_spans_lost");
        }
    }

    /// Waits for spans, and then until a batch is full or its first span has waited long enough.
    async fn gather(&mut self) {
        if self.batch.is_empty() && self.spans.recv_many(&mut self.batch, TRACE_BATCH).await == 0 {
            // The hub has ended.
            std::future::pending().await
        }
        let until = tokio::time::Instant::now() + self.tuning.interval;
        while let Some(room) = TRACE_BATCH.checked_sub(self.batch.len()).filter(|room| *room > 0) {
            match tokio::time::timeout_at(until, self.spans.recv_many(&mut self.batch, room)).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }

    /// Sends the batch once. If the request fails and can succeed later, returns the pause before the next request. The
    /// batch is then kept for another attempt, except if `is_last` is true.
    async fn send(&mut self, is_last: bool) -> Option<Duration> {
        let counts = Arc::clone(&self.facts.counts);
        let spans = self.batch.len() as u64;
        let url = Redacted(&self.url.to_string()).to_string();
        let (answer, pause) = match self.request().await {
            Answer::Again { why, pause } => {
                // The exponent is limited, because a long series of failures would overflow the shift.
                let own = self.tuning.pause.saturating_mul(1 << self.failures.min(16));
                if self.failures == 0 {
                    let detail = format!(
                        "spans are sent again, and dropped after {TRACE_ATTEMPTS} failed requests: check the collector"
                    );
                    warn!(url, error = why, detail, "trace_export_failed");
                }
                self.failures = self.failures.saturating_add(1);
                let pause = pause.unwrap_or(own).min(self.tuning.longest_pause);
                if !is_last {
                    return Some(pause);
                }
                counts.failed.fetch_add(spans, Ordering::Relaxed);
                (None, Some(pause))
            }
            answer @ (Answer::Accepted { .. } | Answer::Refused(_)) => (Some(answer), None),
        };
        self.batch.clear();
        let was_failing = pause.is_none() && std::mem::take(&mut self.failures) > 0;
        match answer {
            Some(Answer::Accepted { rejected }) => {
                let rejected = rejected.min(spans);
                counts.exported.fetch_add(spans - rejected, Ordering::Relaxed);
                counts.rejected.fetch_add(rejected, Ordering::Relaxed);
                if was_failing {
                    info!(url, "trace_export_works");
                }
            }
            Some(Answer::Refused(why)) => {
                counts.rejected.fetch_add(spans, Ordering::Relaxed);
                // Spans of accepted batches can be rejected, too, so the counter says nothing about earlier refusals.
                if !std::mem::replace(&mut self.has_logged_refusal, true) {
                    let detail = "check OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_HEADERS; later refusals \
                                  are only counted";
                    warn!(url, error = why, spans, detail, "trace_export_refused");
                }
            }
            Some(Answer::Again { .. }) | None => {}
        }
        pause
    }

    async fn request(&self) -> Answer {
        // The wall clock and the hub's clock are read for each request, so that the times of spans follow corrections
        // of the wall clock.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = wall.saturating_sub(self.clock.elapsed());
        let mut request = Request::new(Bytes::from(self.encoder.encode(&self.batch, epoch)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        let exchange = https::exchange(&self.tls, request, TRACE_ANSWER_BYTES, self.tuning.timeout);
        match Box::pin(exchange).await {
            Ok(answer) => judge(answer.status(), answer.headers(), answer.body(), SystemTime::now()),
            Err(error) => Answer::Again { why: unreachable(&error), pause: None },
        }
    }
}

fn unreachable(error: &ConnectError) -> String {
    format!("the collector cannot be reached: {error}")
}

/// Decides about an answer, as the specification of OTLP/HTTP requires.
fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Answer {
    if status.is_success() {
        let answer = ExportTraceServiceResponse::decode(body).unwrap_or_default();
        let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
        return Answer::Accepted { rejected: u64::try_from(rejected).unwrap_or_default() };
    }
    let why = format!("the collector answers {status}");
    let is_temporary = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    if !is_temporary {
        return Answer::Refused(why);
    }
    let pause = headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, now));
    Answer::Again { why, pause }
}

/// The pause of a `Retry-After` (RFC 9110 section 10.2.3), which has a number of seconds or a date. `None` if the text
/// is invalid. Also `None` if the date has passed, because the clocks can differ: the hub then chooses the pause.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    match text.parse() {
        Ok(secs) => Some(Duration::from_secs(secs)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok(),
    }
}
