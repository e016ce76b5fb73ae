//! Passes finished spans from the threads of a hub to the exporter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proto::trace::{Sampling, Span, TraceId};
use tokio::sync::mpsc;

/// Records spans. All clones of a tracer share one bounded queue. Recording never waits.
#[derive(Clone, Debug)]
pub struct Tracer {
    sampling: Sampling,
    /// A random number of the process.
    process: u64,
    spans: mpsc::Sender<Span>,
    dropped: Arc<AtomicU64>,
}

impl Tracer {
    /// Makes a tracer, and the receiving end of its queue, which has room for `most` spans. `process` is a random
    /// number.
    pub fn new(sampling: Sampling, process: u64, most: usize) -> (Self, mpsc::Receiver<Span>) {
        let (spans, queue) = mpsc::channel(most);
        (Self { sampling, process, spans, dropped: Arc::default() }, queue)
    }

    /// The share of traces that are recorded.
    pub fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// The id of a trace of this process. No other trace may have the same `part` and `number`.
    pub fn trace(&self, part: u64, number: u64) -> TraceId {
        TraceId::of_process(self.process, part, number)
    }

    /// Queues a span for the exporter. If the queue is full, the span is dropped and counted.
    pub fn record(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Number of spans that were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::trace::{SpanId, SpanKind};

    use super::*;

    fn span() -> Span {
        Span {
            trace: TraceId([1; 16]),
            id: SpanId([2; 8]),
            parent: None,
            name: "join",
            kind: SpanKind::Server,
            start: Duration::ZERO,
            end: Duration::ZERO,
            attributes: Vec::new(),
            events: Vec::new(),
            failure: None,
        }
    }

    #[test]
    fn spans_above_the_bound_are_dropped_and_counted() {
        let (tracer, mut queue) = Tracer::new(Sampling::ALL, 1, 2);
        (0..5).for_each(|_| tracer.clone().record(span()));
        assert_eq!(tracer.dropped(), 3);
        assert_eq!((0..5).filter(|_| queue.try_recv().is_ok()).count(), 2);
        drop(queue);
        tracer.record(span());
        assert_eq!(tracer.dropped(), 4);
    }
}
