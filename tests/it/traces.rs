//! Tests of traces. Hubs send traces to a collector in the test, which decodes them with OpenTelemetry's own messages.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, span};
use prost::Message as _;
use proto::limits::TRACE_FLUSH_TIMEOUT;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::client::{Client, id};
use crate::hub::{DEADLINE, Hub, command};
use crate::mesh;
use crate::ports::free_port;
use crate::wire::{Authority, Certificate};

/// A request of a hub to the collector.
struct Request {
    head: String,
    resource: BTreeMap<String, String>,
    spans: Vec<Span>,
}

/// What the collector does with a request.
#[derive(Clone, Copy)]
enum Reply {
    /// The collector accepts the request, except one span.
    RejectsOne,
    Status(&'static str),
    Hang,
}

const ACCEPTED: Reply = Reply::Status("200 OK\r\nContent-Type: application/x-protobuf");

/// An OpenTelemetry collector. `reply` gets the number of a request, from 0, and returns what the collector does with
/// the request.
struct Collector {
    address: SocketAddr,
    requests: mpsc::Receiver<Request>,
    /// All spans received so far.
    seen: Vec<Span>,
}

fn text(value: &Value) -> String {
    match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        other => panic!("{other:?}"),
    }
}

fn attributes(pairs: &[opentelemetry_proto::tonic::common::v1::KeyValue]) -> BTreeMap<String, String> {
    let value = |pair: &opentelemetry_proto::tonic::common::v1::KeyValue| {
        text(pair.value.as_ref().unwrap().value.as_ref().unwrap())
    };
    pairs.iter().map(|pair| (pair.key.clone(), value(pair))).collect()
}

/// Reads a request, and answers it.
fn serve(mut stream: impl Read + Write, reply: Reply, requests: &mpsc::SyncSender<Request>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or_default() == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    match reply {
        Reply::Hang => {
            // Waits until the hub abandons the request.
            _ = stream.read(&mut byte);
        }
        Reply::RejectsOne => {
            // The body has `partial_success` with one rejected span.
            _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\x0a\x02\x08\x01");
            _ = stream.flush();
        }
        Reply::Status(status) => {
            if status.starts_with("200") {
                let message = ExportTraceServiceRequest::decode(&body[..]).unwrap();
                let [resource_spans] = &message.resource_spans[..] else { panic!("{message:?}") };
                let resource = attributes(&resource_spans.resource.as_ref().unwrap().attributes);
                let spans = resource_spans.scope_spans.iter().flat_map(|scope| scope.spans.clone()).collect();
                requests.send(Request { head, resource, spans }).unwrap();
            }
            _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            _ = stream.flush();
        }
    }
}

impl Collector {
    fn start(reply: impl Fn(usize) -> Reply + Send + 'static) -> Self {
        Self::start_with(reply, None)
    }

    fn start_with(reply: impl Fn(usize) -> Reply + Send + 'static, tls: Option<&Certificate>) -> Self {
        let config = tls.map(|certificate| {
            let chain = CertificateDer::pem_file_iter(&certificate.certificate).unwrap().map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_file(&certificate.key).unwrap();
            let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
            let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            Arc::new(config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap())
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (send, requests) = mpsc::sync_channel(1000);
        std::thread::spawn(move || {
            for (stream, number) in listener.incoming().map_while(Result::ok).zip(0..) {
                let (reply, send, config) = (reply(number), send.clone(), config.clone());
                std::thread::spawn(move || match config {
                    None => serve(stream, reply, &send),
                    Some(config) => {
                        let connection = ServerConnection::new(config).unwrap();
                        serve(StreamOwned::new(connection, stream), reply, &send);
                    }
                });
            }
        });
        Self { address, requests, seen: Vec::new() }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn next(&self) -> Request {
        self.requests.recv_timeout(DEADLINE).expect("a request arrives")
    }

    /// Waits until `is_whole` returns true for the spans received so far.
    fn receives(&mut self, what: &str, is_whole: impl Fn(&[Span]) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !is_whole(&self.seen) {
            match self.requests.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(request) => self.seen.extend(request.spans),
                Err(_) => panic!("{what}: {:#?}", self.seen),
            }
        }
    }

    /// The spans of this name.
    fn spans(&self, name: &str) -> Vec<&Span> {
        self.seen.iter().filter(|span| span.name == name).collect()
    }
}

fn count(spans: &[Span], name: &str) -> usize {
    spans.iter().filter(|span| span.name == name).count()
}

fn hub_id(hub: &Hub) -> String {
    mesh::json(hub, "/stats")["hubPeerId"].as_str().unwrap().to_owned()
}

/// A peer at the first hub, and a peer at the last hub. The two peers have discovered each other.
fn pair(hubs: &[Hub]) -> (Client, Client) {
    let mut a = Client::join(&hubs[0], 1, "n");
    let mut b = Client::join(hubs.last().unwrap(), 2, "n");
    assert_eq!((mesh::discovered(&mut a), mesh::discovered(&mut b)), (id(2), id(1)));
    (a, b)
}

#[test]
fn a_signal_over_three_hubs_is_one_trace() {
    let mut collector = Collector::start(|_| ACCEPTED);
    let url = collector.url();
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_TRACES_SAMPLER_ARG", "1"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        ("LOG_LEVEL", "info,shard=debug,mesh=trace"),
    ];
    let hubs = mesh::chain(3, &env);
    let (mut a, mut b) = pair(&hubs);
    a.offer(&id(2), "n", r#"{"sdp":"of-nobody-else"}"#, r#","id":"one""#);
    assert_eq!(b.hear_type("offer")["fromPeerId"], id(1));
    assert_eq!(a.hear_type("receipt")["data"]["outcome"], "delivered");
    collector.receives("the spans of three hubs", |spans| {
        count(spans, "signal send") == 1 && count(spans, "signal forward") == 1 && count(spans, "signal deliver") == 1
    });
    let [send, forward, deliver] =
        ["signal send", "signal forward", "signal deliver"].map(|name| collector.spans(name)[0].clone());
    assert!(send.parent_span_id.is_empty());
    assert_eq!((&forward.parent_span_id, &deliver.parent_span_id), (&send.span_id, &forward.span_id));
    assert_eq!((&forward.trace_id, &deliver.trace_id), (&send.trace_id, &send.trace_id));
    assert_eq!((send.trace_id.len(), send.span_id.len(), send.trace_state.as_str()), (16, 8, "ot=th:0"));
    let kinds = [&send, &forward, &deliver].map(Span::kind);
    assert_eq!(kinds, [span::SpanKind::Producer, span::SpanKind::Internal, span::SpanKind::Consumer]);
    let hub_ids: Vec<String> = hubs.iter().map(hub_id).collect();
    for (span, hub) in [&send, &forward, &deliver].into_iter().zip(&hub_ids) {
        let said = attributes(&span.attributes);
        assert_eq!(&said["peerpigeon.hub.id"], hub);
        assert_eq!(
            (&said["peerpigeon.signal.from_hub"], &said["peerpigeon.signal.to_hub"]),
            (&hub_ids[0], &hub_ids[2])
        );
        assert_eq!(said["peerpigeon.signal.type"], "offer");
        assert!(said["peerpigeon.signal.bytes"].parse::<u64>().unwrap() > 100);
        assert_eq!(said["peerpigeon.network.hash"].len(), 16);
        assert_eq!(said["peerpigeon.signal.sender"], id(1)[..8]);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        assert_eq!(span.status.as_ref().map(|status| status.code()), Some(StatusCode::Unset));
    }
    assert_eq!(attributes(&send.attributes)["peerpigeon.signal.outcome"], "delivered");
    assert_eq!(attributes(&deliver.attributes)["peerpigeon.signal.outcome"], "delivered");
    assert_eq!(attributes(&send.attributes)["peerpigeon.signal.next_hub"], hub_ids[1]);
    assert!(send.start_time_unix_nano <= forward.start_time_unix_nano + 1_000_000, "the clocks of one machine agree");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    assert!(now.abs_diff(send.start_time_unix_nano) < 60_000_000_000);
    let events = |span: &Span| span.events.iter().map(|event| event.name.clone()).collect::<Vec<_>>();
    assert_eq!((events(&send), events(&deliver)), (vec!["sent".to_owned()], vec!["posted".to_owned()]));
    // The spans have no contents of signals, no tokens, no names of networks and no full ids.
    let all = format!("{:?}", collector.seen);
    for secret in ["of-nobody-else", mesh::TOKEN, id(1).as_str()] {
        assert!(!all.contains(secret), "{secret}");
    }
    // The log has the id of the trace.
    let trace: String = send.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
    for hub in &hubs {
        let line: serde_json::Value = serde_json::from_str(&hub.logged("signal_traced")).unwrap();
        assert_eq!(line["trace_id"], trace.as_str());
        assert_eq!(line["span_id"].as_str().unwrap().len(), 16);
    }
    collector.receives("the joins of both peers and the links of the chain", |spans| {
        count(spans, "join") == 2 && count(spans, "link open") >= 4
    });
    for join in collector.spans("join") {
        assert_eq!(events(join), ["admitted", "announced", "roster sent"]);
        assert_eq!(attributes(&join.attributes)["peerpigeon.network.hash"].len(), 16);
    }
    drop(hubs);
}

#[test]
fn the_end_of_a_link_is_a_span_with_its_reason() {
    let mut collector = Collector::start(|_| ACCEPTED);
    let url = collector.url();
    let mut hubs = mesh::chain(2, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]);
    let up = hubs[1].logged("link_up");
    let (first, other) = (hub_id(&hubs[0]), hub_id(&hubs[1]));
    drop(hubs.remove(0));
    collector.receives("the link is down", |spans| {
        spans.iter().any(|span| span.name == "link down" && attributes(&span.attributes)["peerpigeon.hub.id"] == other)
    });
    collector.receives("a dial fails", |spans| {
        let failed = |span: &&Span| span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error);
        spans.iter().filter(failed).any(|span| span.name == "link open")
    });
    let down = collector
        .spans("link down")
        .into_iter()
        .find(|span| attributes(&span.attributes)["peerpigeon.hub.id"] == other)
        .unwrap();
    let said = attributes(&down.attributes);
    assert_eq!((said["peerpigeon.close.reason"].as_str(), &said["peerpigeon.link.hub"]), ("lost", &first));
    assert_eq!(down.status.as_ref().unwrap().code(), StatusCode::Error);
    let open = collector.spans("link open").into_iter().find(|open| open.span_id == down.parent_span_id).unwrap();
    assert_eq!((&open.trace_id, open.kind()), (&down.trace_id, span::SpanKind::Client));
    let trace: String = down.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(up.contains(&trace), "{up}");
    assert!(hubs[0].logged("link_down").contains(&trace));
}

#[test]
fn both_hubs_trace_the_same_share_of_the_signals() {
    let mut collector = Collector::start(|_| ACCEPTED);
    let url = collector.url();
    let hubs = mesh::chain(2, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("OTEL_TRACES_SAMPLER_ARG", "0.2")]);
    let (mut a, mut b) = pair(&hubs);
    let signals = 300;
    for _ in 0..signals {
        a.offer(&id(2), "n", "1", "");
    }
    (0..signals).for_each(|_| _ = b.hear_type("offer"));
    // The hubs send their last spans when they stop.
    for mut hub in hubs {
        hub.signal("-TERM");
        assert_eq!(hub.wait().code(), Some(0));
    }
    collector.seen.extend(collector.requests.try_iter().flat_map(|request| request.spans));
    let traces = |name| collector.spans(name).into_iter().map(|span| span.trace_id.clone()).collect::<BTreeSet<_>>();
    let sent = traces("signal send");
    assert_eq!(sent, traces("signal deliver"));
    assert!((30..=90).contains(&sent.len()), "{} of {signals}", sent.len());
}

#[test]
fn a_hub_with_the_share_0_sends_no_spans() {
    let collector = Collector::start(|_| ACCEPTED);
    let url = collector.url();
    let hubs = mesh::chain(2, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("OTEL_TRACES_SAMPLER_ARG", "0")]);
    let (mut a, mut b) = pair(&hubs);
    a.offer(&id(2), "n", "1", "");
    b.hear_type("offer");
    for mut hub in hubs {
        hub.signal("-TERM");
        assert_eq!(hub.wait().code(), Some(0));
    }
    assert!(collector.requests.try_recv().is_err());
}

/// Checks that hubs relay signals although the collector accepts none of their spans. Returns the time that the last
/// hub needed to stop.
fn serves_without_a_collector(url: &str) -> Duration {
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", url), ("OTEL_TRACES_SAMPLER_ARG", "1"), ("DRAIN_SECS", "0")];
    let hubs = mesh::chain(2, &env);
    let (mut a, mut b) = pair(&hubs);
    let before = hubs[0].rss();
    for round in 0..10 {
        (0..100).for_each(|_| a.offer(&id(2), "n", "1", ""));
        (0..100).for_each(|_| _ = b.hear_type("offer"));
        assert!(hubs[0].rss() < before + 64 * 1024 * 1024, "round {round}");
    }
    drop((a, b));
    let mut took = Duration::ZERO;
    for mut hub in hubs {
        let start = Instant::now();
        hub.signal("-TERM");
        assert_eq!(hub.wait().code(), Some(0));
        took = start.elapsed();
        assert!(hub.rest_of_the_log().iter().any(|line| line.contains("trace_spans_lost")));
    }
    took
}

#[test]
fn a_dead_collector_delays_nothing() {
    let port = free_port();
    let took = serves_without_a_collector(&format!("http://127.0.0.1:{port}"));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_collector_that_hangs_delays_the_stop_by_a_second_at_most() {
    let collector = Collector::start(|_| Reply::Hang);
    let took = serves_without_a_collector(&collector.url());
    assert!(took < TRACE_FLUSH_TIMEOUT + Duration::from_secs(5), "{took:?}");
}

#[test]
fn spans_are_sent_again_to_a_collector_that_asks_for_a_pause() {
    let mut collector = Collector::start(|number| match number {
        0 => Reply::Status("503 Service Unavailable\r\nRetry-After: 1"),
        1 => Reply::Status("429 Too Many Requests\r\nRetry-After: 1"),
        _ => ACCEPTED,
    });
    let url = collector.url();
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_TRACES_SAMPLER_ARG", "1"), ("DRAIN_SECS", "0")];
    let hub = Hub::start(&env);
    let _peer = Client::join(&hub, 1, "n");
    collector.receives("the join", |spans| count(spans, "join") == 1);
    assert!(hub.logged("trace_export_failed").contains("503"));
    let (_, between) = hub.logged_after("trace_export_works");
    assert!(between.iter().all(|line| !line.contains("trace_export_failed")), "{between:?}");
    hub.metric_becomes("peerpigeon_trace_spans_total{outcome=\"exported\"}", |n| n == 1.0);
    assert_eq!(hub.metric("peerpigeon_trace_spans_total{outcome=\"failed\"}"), 0.0);
    // Two requests have failed, and each change is logged once. Later requests are accepted.
    let _peer = Client::join(&hub, 2, "n");
    collector.receives("the second join", |spans| count(spans, "join") == 2);
    let again = ended(hub).into_iter().filter(|line| line.contains("trace_export_")).collect::<Vec<_>>();
    assert_eq!(again, [""; 0]);
}

/// Stops a hub. Returns the lines of its log that the test has not read.
fn ended(mut hub: Hub) -> Vec<String> {
    hub.signal("-TERM");
    assert_eq!(hub.wait().code(), Some(0));
    hub.rest_of_the_log()
}

#[test]
fn a_refusal_is_counted_and_logged_without_the_headers() {
    let collector = Collector::start(|_| Reply::Status("401 Unauthorized"));
    let url = collector.url();
    let hub = Hub::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20hunter2"),
        ("OTEL_TRACES_SAMPLER_ARG", "1"),
        ("LOG_LEVEL", "trace"),
        ("DRAIN_SECS", "0"),
    ]);
    let _peer = Client::join(&hub, 1, "n");
    hub.metric_becomes("peerpigeon_trace_spans_total{outcome=\"rejected\"}", |n| n == 1.0);
    let (line, before) = hub.logged_after("trace_export_refused");
    assert!(line.contains("401") && line.contains("OTEL_EXPORTER_OTLP_HEADERS"), "{line}");
    assert!(!line.contains("hunter2") && before.iter().all(|line| !line.contains("hunter2")));
    // Later refusals are only counted.
    let _peer = Client::join(&hub, 2, "n");
    hub.metric_becomes("peerpigeon_trace_spans_total{outcome=\"rejected\"}", |n| n == 2.0);
    assert!(ended(hub).iter().all(|line| !line.contains("trace_export_refused")));
}

#[test]
fn the_first_refusal_after_a_rejected_span_is_logged() {
    let collector = Collector::start(|number| match number {
        0 => Reply::RejectsOne,
        _ => Reply::Status("401 Unauthorized"),
    });
    let url = collector.url();
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_TRACES_SAMPLER_ARG", "1"), ("DRAIN_SECS", "0")];
    let hub = Hub::start(&env);
    let _peer = Client::join(&hub, 1, "n");
    hub.metric_becomes("peerpigeon_trace_spans_total{outcome=\"rejected\"}", |n| n == 1.0);
    let _peer = Client::join(&hub, 2, "n");
    hub.metric_becomes("peerpigeon_trace_spans_total{outcome=\"rejected\"}", |n| n == 2.0);
    assert!(ended(hub).iter().any(|line| line.contains("trace_export_refused")));
}

#[test]
fn spans_reach_a_collector_over_tls_with_the_headers() {
    let authority = Authority::new();
    let certificate = authority.issue("collector", 1);
    let collector = Collector::start_with(|_| ACCEPTED, Some(&certificate));
    let hub = Hub::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("https://localhost:{}/otlp", collector.address.port())),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20hunter2,X-Scope-OrgID=me"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", &certificate.authority_file),
        ("OTEL_TRACES_SAMPLER_ARG", "1"),
        ("OTEL_SERVICE_NAME", "pigeons"),
    ]);
    let _peer = Client::join(&hub, 1, "n");
    let Request { head, resource, spans } = collector.next();
    assert!(head.starts_with("post /otlp/v1/traces http/1.1\r\n"), "{head}");
    for header in ["content-type: application/x-protobuf", "authorization: bearer hunter2", "x-scope-orgid: me"] {
        assert!(head.contains(&format!("{header}\r\n")), "{head}");
    }
    assert_eq!(resource["service.name"], "pigeons");
    assert!(hub.started.contains(&format!("\"hub\":\"{}\"", resource["service.instance.id"])), "{}", hub.started);
    assert!(hub.metric("peerpigeon_trace_spans_total{outcome=\"failed\"}") == 0.0);
    assert_eq!(spans[0].name, "join");
}

#[test]
fn a_wrong_collector_ends_the_hub_with_64() {
    for (setting, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_TRACES_SAMPLER_ARG", "1%"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "token"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem"),
    ] {
        let output = command(&[("PORT", "0"), (setting, value)]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains(setting), "{said}");
    }
}
