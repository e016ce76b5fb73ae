//! Tests of the exporter with a small server. `tests/it/traces.rs` has the tests of whole hubs.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceRequest};
use proto::PeerId;
use proto::trace::{Sampling, SpanId, SpanKind, TraceId};

use super::*;
use crate::config::Config;

const TUNING: TraceTuning = TraceTuning {
    queue: 8,
    interval: Duration::from_millis(1),
    timeout: Duration::from_millis(300),
    pause: Duration::from_millis(1),
    longest_pause: Duration::from_millis(40),
};

fn span(n: u8) -> Span {
    Span {
        trace: TraceId([n; 16]),
        id: SpanId([n; 8]),
        parent: None,
        name: "join",
        kind: SpanKind::Server,
        start: Duration::ZERO,
        end: Duration::from_millis(1),
        attributes: Vec::new(),
        events: Vec::new(),
        failure: None,
    }
}

/// A server that answers each request with the next of these answers. After the last answer, it answers no requests.
/// Returns the server's port, and a receiver of the number of spans in each request.
fn server(answers: &'static [&'static [u8]]) -> (u16, Receiver<usize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (send, requests) = sync_channel(100);
    std::thread::spawn(move || {
        let mut answers = answers.iter();
        let mut unanswered = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
            let body = loop {
                let read = stream.read(&mut buffer).unwrap_or_default();
                bytes.extend_from_slice(&buffer[..read]);
                let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
                let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
                let length: usize =
                    head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
                if bytes.len() >= end + 4 + length {
                    break bytes[end + 4..].to_vec();
                }
            };
            let message = ExportTraceServiceRequest::decode(&body[..]).unwrap();
            _ = send.send(message.resource_spans[0].scope_spans[0].spans.len());
            match answers.next() {
                Some(answer) => _ = stream.write_all(answer),
                None => unanswered.push(stream),
            }
        }
    });
    (port, requests)
}

fn exporter(port: u16, tuning: TraceTuning) -> (Exporter, Tracer) {
    let endpoint = format!("http://127.0.0.1:{port}");
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_TRACES_SAMPLER_ARG", "1")];
    let settings = Config::from_pairs(&settings).unwrap().traces.unwrap();
    Exporter::new(&settings, HubId(PeerId::from_bytes([1; 20])), Clock::start(), tuning).unwrap()
}

/// Runs an exporter until its counts are `expected`.
async fn becomes(exporter: &mut Exporter, expected: TraceCounts) {
    let facts = exporter.facts();
    let reached = async {
        while facts.counts() != expected {
            tokio::task::yield_now().await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(20), reached);
    tokio::select! {
        () = exporter.run() => {}
        reached = reached => assert!(reached.is_ok(), "{:?}", facts.counts()),
    }
}

fn counts() -> TraceCounts {
    TraceCounts::default()
}

#[tokio::test]
async fn a_dead_collector_bounds_the_queue_and_the_attempts() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let (mut exporter, tracer) = exporter(port, TUNING);
    (0..20).for_each(|n| tracer.record(span(n)));
    assert_eq!(tracer.dropped(), 12);
    let start = Instant::now();
    becomes(&mut exporter, TraceCounts { overflowed: 12, failed: 8, ..counts() }).await;
    assert_eq!(exporter.failures, TRACE_ATTEMPTS);
    // Each pause is twice as long as the one before.
    assert!(start.elapsed() >= TUNING.pause * (1 + 2 + 4 + 8 + 16), "{:?}", start.elapsed());
    // A long series of failures causes no overflow.
    exporter.failures = 1000;
    tracer.record(span(9));
    becomes(&mut exporter, TraceCounts { overflowed: 12, failed: 9, ..counts() }).await;
}

#[tokio::test]
async fn a_batch_is_kept_until_the_collector_accepts_it() {
    let (port, requests) = server(&[
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ]);
    let (mut exporter, tracer) = exporter(port, TUNING);
    (0..3).for_each(|n| tracer.record(span(n)));
    becomes(&mut exporter, TraceCounts { exported: 3, ..counts() }).await;
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), [3, 3, 3]);
    assert_eq!(exporter.failures, 0);
}

#[tokio::test]
async fn a_refused_batch_is_not_sent_again() {
    let (port, requests) = server(&[
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ]);
    let (mut exporter, tracer) = exporter(port, TUNING);
    (0..3).for_each(|n| tracer.record(span(n)));
    becomes(&mut exporter, TraceCounts { rejected: 3, ..counts() }).await;
    tracer.record(span(4));
    becomes(&mut exporter, TraceCounts { rejected: 3, exported: 1, ..counts() }).await;
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), [3, 1]);
}

#[test]
fn a_partly_accepted_batch_counts_its_refused_spans() {
    let partial = ExportTracePartialSuccess { rejected_spans: 2, error_message: "full".to_owned() };
    let body = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let answer = judge(StatusCode::OK, &HeaderMap::new(), &body, UNIX_EPOCH);
    assert!(matches!(answer, Answer::Accepted { rejected: 2 }));
    // Some collectors answer with JSON or with nothing.
    assert!(matches!(judge(StatusCode::OK, &HeaderMap::new(), b"{}", UNIX_EPOCH), Answer::Accepted { rejected: 0 }));
}

#[test]
fn the_pause_that_the_collector_asks_for_is_read() {
    // The date in RFC 9110.
    let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
    let pause = |status, header: Option<&'static str>| {
        let header = header.map(|header| (RETRY_AFTER, HeaderValue::from_static(header)));
        match judge(status, &header.into_iter().collect(), b"", now) {
            Answer::Again { pause, .. } => Some(pause.map(|pause| pause.as_secs())),
            Answer::Accepted { .. } | Answer::Refused(_) => None,
        }
    };
    for (header, secs) in [
        ("7", Some(7)),
        (" 0 ", Some(0)),
        ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
        ("Sunday, 06-Nov-94 08:49:38 GMT", Some(1)),
        ("Sun Nov  6 08:50:37 1994", Some(60)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
        // The hub chooses the pause.
        ("Sun, 06 Nov 1994 08:49:36 GMT", None),
        ("Sun, 06 Nov 1994 08:49:47", None),
        ("soon", None),
        ("-1", None),
        ("99999999999999999999", None),
    ] {
        assert_eq!(pause(StatusCode::SERVICE_UNAVAILABLE, Some(header)), Some(secs), "{header}");
    }
    for status in [429, 502, 503, 504] {
        assert_eq!(pause(StatusCode::from_u16(status).unwrap(), None), Some(None), "{status}");
    }
    for status in [400, 401, 404, 408, 413, 500] {
        assert_eq!(pause(StatusCode::from_u16(status).unwrap(), Some("7")), None, "{status}");
    }
}

#[tokio::test]
async fn spans_that_the_collector_refuses_in_part_are_not_counted_as_exported() {
    // The bodies have `partial_success` with the numbers 2, 9 and -1 of refused spans.
    let (port, _requests) = server(&[
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\x0a\x02\x08\x02",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\x0a\x02\x08\x09",
        b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ]);
    let (mut exporter, tracer) = exporter(port, TUNING);
    for expected in [(1, 2), (1, 5), (4, 5)] {
        (0..3).for_each(|n| tracer.record(span(n)));
        let (exported, rejected) = expected;
        becomes(&mut exporter, TraceCounts { exported, rejected, ..counts() }).await;
    }
}

#[test]
fn parents_of_other_processes_are_marked_and_attributes_of_the_operator_win() {
    let resource = [("service.version".to_owned(), "mine".to_owned())];
    let encoder = Encoder::new(HubId(PeerId::from_bytes([1; 20])), &resource, Sampling::ALL);
    let child = |is_remote| Span { parent: Some((SpanId([7; 8]), is_remote)), ..span(1) };
    let failed = Span { failure: Some("why".into()), ..span(1) };
    let bytes = encoder.encode(&[span(1), child(false), child(true), failed], Duration::from_secs(5));
    let message = ExportTraceServiceRequest::decode(&bytes[..]).unwrap();
    let attributes = &message.resource_spans[0].resource.as_ref().unwrap().attributes;
    let versions: Vec<_> = attributes.iter().filter(|pair| pair.key == "service.version").collect();
    assert!(versions.len() == 1 && format!("{versions:?}").contains("mine"), "{versions:?}");
    let spans = &message.resource_spans[0].scope_spans[0].spans;
    assert_eq!(spans.iter().map(|span| span.flags).collect::<Vec<_>>(), [0x1, 0x101, 0x301, 0x1]);
    assert_eq!(spans[3].status.as_ref().unwrap().message, "why");
    assert_eq!((spans[0].start_time_unix_nano, spans[0].end_time_unix_nano), (5_000_000_000, 5_001_000_000));
}

#[tokio::test]
async fn a_long_pause_is_cut() {
    let (port, requests) = server(&[
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 86400\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ]);
    let (mut exporter, tracer) = exporter(port, TUNING);
    tracer.record(span(1));
    let start = Instant::now();
    becomes(&mut exporter, TraceCounts { exported: 1, ..counts() }).await;
    assert!(start.elapsed() >= 2 * TUNING.longest_pause, "{:?}", start.elapsed());
    assert_eq!(requests.try_iter().count(), 3);
}

#[tokio::test]
async fn a_long_answer_is_not_read() {
    const LONG: &[u8] = &{
        let head = *b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n";
        let mut answer = [b' '; 20_044];
        let mut at = 0;
        while at < head.len() {
            answer[at] = head[at];
            at += 1;
        }
        answer
    };
    assert!(LONG.len() > TRACE_ANSWER_BYTES + 100);
    let (port, _requests) = server(&[LONG; TRACE_ATTEMPTS as usize]);
    let (mut exporter, tracer) = exporter(port, TUNING);
    tracer.record(span(1));
    becomes(&mut exporter, TraceCounts { failed: 1, ..counts() }).await;
}

#[tokio::test]
async fn requests_to_a_collector_that_hangs_are_abandoned() {
    let (port, requests) = server(&[]);
    let (mut exporter, tracer) = exporter(port, TUNING);
    tracer.record(span(1));
    becomes(&mut exporter, TraceCounts { failed: 1, ..counts() }).await;
    // Each attempt reaches the server.
    assert_eq!(requests.try_iter().count(), TRACE_ATTEMPTS as usize);
}

#[tokio::test]
async fn the_last_spans_are_sent_at_the_end() {
    let (port, requests) = server(&[b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]);
    let (mut exporter, tracer) = exporter(port, TUNING);
    (0..5).for_each(|n| tracer.record(span(n)));
    exporter.flush().await;
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), [5]);
    assert_eq!(exporter.facts().counts(), TraceCounts { exported: 5, ..counts() });
}

#[tokio::test]
async fn the_end_waits_for_a_hanging_collector_for_a_bounded_time() {
    let (port, _requests) = server(&[]);
    let (mut exporter, tracer) = exporter(port, TraceTuning { timeout: Duration::from_secs(60), ..TUNING });
    (0..5).for_each(|n| tracer.record(span(n)));
    let start = Instant::now();
    exporter.flush().await;
    assert!((TRACE_FLUSH_TIMEOUT..Duration::from_secs(20)).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(exporter.facts().counts(), TraceCounts { failed: 5, ..counts() });
    // The last request has failed, so the next flush does not wait for the collector.
    exporter.failures = 1;
    tracer.record(span(9));
    let start = Instant::now();
    exporter.flush().await;
    assert!(start.elapsed() < TRACE_FLUSH_TIMEOUT, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_full_batch_is_sent_at_once() {
    const ACCEPTED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (port, requests) = server(&[ACCEPTED; 4]);
    let tuning = TraceTuning { queue: TRACE_QUEUE, interval: Duration::from_secs(3600), ..TUNING };
    let (mut exporter, tracer) = exporter(port, tuning);
    (0..TRACE_BATCH + 1).for_each(|_| tracer.record(span(1)));
    becomes(&mut exporter, TraceCounts { exported: TRACE_BATCH as u64, ..counts() }).await;
    exporter.flush().await;
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), [TRACE_BATCH, 1]);
    // The last spans are sent in batches, too.
    (0..TRACE_BATCH + 2).for_each(|_| tracer.record(span(1)));
    exporter.flush().await;
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), [TRACE_BATCH, 2]);
}

#[test]
fn the_longest_batch_fits_into_a_request() {
    use proto::limits::TRACE_TEXT_BYTES;
    use proto::trace::AttributeValue;
    let text = || AttributeValue::Text("x".repeat(TRACE_TEXT_BYTES).into());
    let attributes = (0..3).map(|_| ("peerpigeon.signal.from_hub", text()));
    let number = ("peerpigeon.signal.from_hub", AttributeValue::Hub(HubId(PeerId::from_bytes([1; 20]))));
    let attributes: Vec<_> = attributes.chain(std::iter::repeat_n(number, 9)).collect();
    let failure = Some("x".repeat(TRACE_TEXT_BYTES).into());
    let longest = Span { attributes, failure, events: vec![("announced", Duration::ZERO); 3], ..span(1) };
    let encoder = Encoder::new(HubId(PeerId::from_bytes([1; 20])), &[], Sampling::ALL);
    let message = encoder.encode(&vec![longest; TRACE_BATCH], Duration::from_secs(1_700_000_000));
    assert!(message.len() < 2 * 1024 * 1024, "{}", message.len());
}
