//! Bounds of the spans that a hub records, and of the requests that send spans to a collector.

use std::time::Duration;

/// Maximum number of signals with a span and without an outcome. Further signals are not traced, and their spans are
/// counted (`peerpigeon_trace_spans_total`).
///
/// A signal has its outcome within [`RECEIPT_TIMEOUT`](super::RECEIPT_TIMEOUT), and usually within milliseconds. If a
/// hub traces 1 % of 40,000 signals per second, and each signal takes a second, 400 spans are open. A span takes about
/// 700 B, so 4,096 open spans take 2.9 MB.
pub const MAX_OPEN_SPANS: usize = 4_096;

/// Maximum number of spans that wait for the collector. Further spans are dropped and counted
/// (`peerpigeon_trace_spans_total`).
///
/// The collector gets spans every [`TRACE_INTERVAL`]. A span takes about 700 B, so a full queue takes 2.9 MB. If the
/// collector does not answer, the hub stores a full queue and one batch.
pub const TRACE_QUEUE: usize = 4_096;

/// Maximum number of spans in a request to the collector. A span of a signal takes about 600 B in a request, and the
/// longest span of a link takes 2 KB. So a request has at most 512 x 2 KB = 1 MB, and collectors accept several
/// megabytes.
pub const TRACE_BATCH: usize = 512;

/// Maximum length of a text in a span, in bytes. Longer texts are truncated. Spans contain URLs, addresses and errors.
pub const TRACE_TEXT_BYTES: usize = 256;

/// Maximum time for which a span waits for other spans of its batch. A full batch is sent at once.
pub const TRACE_INTERVAL: Duration = Duration::from_secs(1);

/// Time within which the collector must answer a request. A later answer is ignored, and the request counts as failed.
pub const TRACE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum length of the collector's answer in bytes. The answer names the number of refused spans and a reason.
pub const TRACE_ANSWER_BYTES: usize = 16 * 1024;

/// Pause after a failed request to the collector, if the collector's answer has no `Retry-After`. After each further
/// failure, the pause doubles, up to [`TRACE_LONGEST_PAUSE`].
pub const TRACE_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause between two attempts to send a batch, even if the collector asks for a longer pause (`Retry-After`).
pub const TRACE_LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Number of attempts to send a batch. After the last attempt, its spans are dropped and counted. If a collector fails,
/// the first batch is kept for 1 + 2 + 4 + 8 + 16 = 31 s. 31 s are long enough for a restart of a collector. With the
/// longest pauses and answers that do not arrive, a batch is kept for 5 x 60 s + 6 x 10 s = 6 minutes.
pub const TRACE_ATTEMPTS: u32 = 6;

/// Time for which a stopping hub still sends spans. If the previous request failed, no further span is sent. Spans that
/// the collector has not accepted by then are lost.
pub const TRACE_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
