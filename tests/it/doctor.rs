//! Tests of `peerpigeon doctor`. The doctor examines hubs directly, and through proxies that have one fault each.

#![allow(clippy::disallowed_types, reason = "one thread per connection is enough for a proxy of a test")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::TLS12;

use crate::client::Client;
use crate::hub::{Hub, command};
use crate::mesh::{eventually, free_port, mesh};
use crate::wire::{Authority, Certificate};

/// The doctor's exit code and report.
struct Said {
    code: Option<i32>,
    report: Value,
}

impl Said {
    /// The findings of a grade, as `check: code`. `slow` and `link-slow` are left out, because they depend on the load
    /// of this machine.
    fn found(&self, grade: &str) -> Vec<String> {
        let of_grade = self.report["findings"].as_array().unwrap().iter();
        let of_grade = of_grade.filter(|found| found["grade"] == grade && !is_slow(found));
        let shown = |found: &Value| {
            format!("{}: {}", found["check"].as_str().unwrap(), found["code"].as_str().unwrap_or_default())
        };
        of_grade.map(shown).collect()
    }

    /// Asserts that the doctor found no problems and no warnings.
    fn is_well(&self) {
        assert_eq!((self.found("problem"), self.found("warning")), (vec![], vec![]), "{:#}", self.report);
        self.has_result(0);
    }

    /// Asserts that the exit code and the result are those of the findings, which are at least as serious as `code`
    /// says.
    fn has_result(&self, code: i32) {
        let (code, result) = match (code, &self.report["problems"], &self.report["warnings"]) {
            (1, ..) => (1, "problem"),
            (_, problems, _) if *problems != 0 => (1, "problem"),
            (2, ..) => (2, "warning"),
            (_, _, warnings) if *warnings != 0 => (2, "warning"),
            _ => (0, "ok"),
        };
        assert_eq!(self.code, Some(code), "{:#}", self.report);
        assert_eq!(self.report["result"], result);
    }

    /// The findings with this code.
    fn with_code(&self, code: &str) -> Vec<&Value> {
        self.report["findings"].as_array().unwrap().iter().filter(|found| found["code"] == code).collect()
    }

    /// Asserts that `finding` is the only problem or warning, and returns it.
    fn only(&self, finding: &str) -> &Value {
        let (grade, code) = match (&self.found("problem")[..], &self.found("warning")[..]) {
            ([one], []) if one == finding => ("problem", 1),
            ([], [one]) if one == finding => ("warning", 2),
            _ => panic!("only {finding} was expected: {:#}", self.report),
        };
        self.has_result(code);
        let mut findings = self.report["findings"].as_array().unwrap().iter();
        let found = findings.find(|found| found["grade"] == grade && !is_slow(found)).unwrap();
        let link = format!("docs/troubleshooting.md#{}", found["code"].as_str().unwrap());
        assert!(found["link"].as_str().unwrap().ends_with(&link), "{found}");
        found
    }
}

fn is_slow(finding: &Value) -> bool {
    finding["code"] == "slow" || finding["code"] == "link-slow"
}

fn doctor(args: &[&str]) -> Said {
    let output = command(&[]).args(["doctor", "--json"]).args(args).output().unwrap();
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|error| panic!("{args:?}: {error}: {output:?}"));
    Said { code: output.status.code(), report }
}

/// The text that the doctor prints without `--json`.
fn text(args: &[&str]) -> String {
    let output = command(&[]).args(["doctor", "--patience", "0"]).args(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Asserts that the doctor makes this finding for people and for programs, with its advice and its link. Returns the
/// report.
fn advises(args: &[&str], grade: &str, (check, code): (&str, &str), message: &str, action: &str) -> Said {
    let (said, text) = std::thread::scope(|scope| {
        let text = scope.spawn(|| text(args));
        (quickly(args), text.join().unwrap())
    });
    assert!(said.found(grade).contains(&format!("{check}: {code}")), "{:#}", said.report);
    let mut findings = said.report["findings"].as_array().unwrap().iter();
    let found = findings.find(|found| found["code"] == code && found["check"] == check).unwrap();
    assert!(found["message"].as_str().unwrap().contains(message), "{found}");
    assert_eq!(found["action"], action);
    let label = if grade == "note" { grade.to_owned() } else { grade.to_ascii_uppercase() };
    let lines: Vec<&str> = text.lines().collect();
    let is_found = |lines: &[&str]| {
        lines[0].starts_with(&format!("{label:<8} {check:<9} "))
            && lines[0].contains(message)
            && lines[1].trim() == format!("> {action}")
            && lines[2].trim().starts_with("> ")
            && lines[2].ends_with(&format!("docs/troubleshooting.md#{code}"))
    };
    assert!(lines.windows(3).any(is_found), "{text}");
    said
}

/// Runs the doctor without its check of idle connections.
fn quickly(args: &[&str]) -> Said {
    doctor(&[&["--patience", "0"], args].concat())
}

fn url(address: SocketAddr) -> String {
    format!("ws://{address}")
}

/// A fault of a proxy.
#[derive(Clone, Copy)]
enum Fault {
    /// The proxy removes the given headers from requests.
    Loses(&'static [&'static str]),
    /// The proxy removes the query from requests.
    LosesQuery,
    /// The proxy buffers the bytes of the hub on a WebSocket until the given number has arrived.
    Buffers(usize),
    /// The proxy cuts a WebSocket on which no data has passed for the given time.
    CutsIdle(Duration),
    /// The proxy delays the bytes of the hub on a WebSocket by the given time.
    Delays(Duration),
    /// The proxy delays the bytes of the hub, and drops all bytes of the hub after the given number.
    DelaysAndDrops(Duration, usize),
    /// The proxy cuts a WebSocket when the client has sent more than the given number of bytes.
    CutsLong(usize),
    /// The proxy drops the hub's pings on a WebSocket. A ping is a frame that begins with 0x89.
    DropsPings,
    /// The proxy drops the hub's messages that contain this text.
    Drops(&'static str),
    /// The proxy replaces the first text in the hub's messages by the second text, which has the same length.
    Rewrites(&'static str, &'static str),
    /// The proxy rewrites like [`Self::Rewrites`], and drops the messages that contain the third text.
    RewritesAndDrops(&'static str, &'static str, &'static str),
    /// The proxy itself answers WebSocket requests without an `Authorization` header.
    RefusesStrangers(&'static str),
    /// The proxy answers requests for these pages itself.
    Answers(&'static [&'static str], &'static str),
}

/// Changes to the hub's messages.
struct Edits {
    /// Messages that contain this text are dropped.
    dropped: Option<&'static str>,
    /// The first text is replaced by the second text.
    replaced: Option<(&'static str, &'static str)>,
}

impl Fault {
    /// Whether the fault affects only the bytes that the hub sends.
    fn is_of_the_hub(self) -> bool {
        match self {
            Self::Buffers(_)
            | Self::Delays(_)
            | Self::DelaysAndDrops(..)
            | Self::DropsPings
            | Self::Drops(_)
            | Self::Rewrites(..)
            | Self::RewritesAndDrops(..) => true,
            Self::Loses(_)
            | Self::LosesQuery
            | Self::CutsIdle(_)
            | Self::CutsLong(_)
            | Self::Answers(..)
            | Self::RefusesStrangers(_) => false,
        }
    }

    /// The changes to the hub's messages.
    fn edits(self) -> Option<Edits> {
        match self {
            Self::Drops(dropped) => Some(Edits { dropped: Some(dropped), replaced: None }),
            Self::Rewrites(from, to) => Some(Edits { dropped: None, replaced: Some((from, to)) }),
            Self::RewritesAndDrops(from, to, dropped) => {
                Some(Edits { dropped: Some(dropped), replaced: Some((from, to)) })
            }
            Self::Loses(_)
            | Self::LosesQuery
            | Self::Buffers(_)
            | Self::CutsIdle(_)
            | Self::Delays(_)
            | Self::DelaysAndDrops(..)
            | Self::CutsLong(_)
            | Self::DropsPings
            | Self::Answers(..)
            | Self::RefusesStrangers(_) => None,
        }
    }
}

/// Removes the first frame of a server from these bytes. `None` if the frame is incomplete.
fn frame(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = match *bytes.get(1)? {
        126 => 4 + usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
        127 => 10 + u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize,
        short => 2 + usize::from(short),
    };
    (bytes.len() >= length).then(|| bytes.drain(..length).collect())
}

/// Replaces one text by another text of the same length.
fn replace(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    while let Some(at) = bytes.windows(from.len()).position(|found| found == from.as_bytes()) {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
}

/// Starts a proxy in front of a hub.
fn proxy(to: SocketAddr, fault: Fault) -> SocketAddr {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = door.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in door.incoming().map_while(Result::ok) {
            std::thread::spawn(move || carry(client, to, fault));
        }
    });
    address
}

/// Reads the head of an HTTP message.
fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn carry(mut client: TcpStream, to: SocketAddr, fault: Fault) -> Option<()> {
    let mut hub = TcpStream::connect(to).ok()?;
    let mut request = head(&mut client)?;
    let is_websocket = request.to_ascii_lowercase().contains("upgrade: websocket");
    if let Fault::Loses(headers) = fault {
        let is_kept = |line: &&str| {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            !headers.contains(&name.as_str())
        };
        request = request.split("\r\n").filter(is_kept).collect::<Vec<_>>().join("\r\n");
    }
    if let Fault::RefusesStrangers(answer) = fault
        && is_websocket
        && !request.to_ascii_lowercase().contains("authorization:")
    {
        return client.write_all(answer.as_bytes()).ok();
    }
    if let Fault::Answers(pages, answer) = fault
        && pages.iter().any(|page| request.starts_with(&format!("GET {page} ")))
    {
        return client.write_all(answer.as_bytes()).ok();
    }
    if let (Fault::LosesQuery, Some((before, after))) = (fault, request.split_once('?')) {
        let (_, after) = after.split_once(' ')?;
        request = format!("{before} {after}");
    }
    hub.write_all(request.as_bytes()).ok()?;
    let fault = Some(fault).filter(|_| is_websocket);
    if fault.is_some() {
        client.write_all(head(&mut hub)?.as_bytes()).ok()?;
    }
    let began = Instant::now();
    let active = Arc::new(AtomicU64::new(0));
    let (from_client, to_hub) = (client.try_clone().ok()?, hub.try_clone().ok()?);
    let shared = Arc::clone(&active);
    std::thread::spawn(move || copy(from_client, to_hub, fault.filter(|fault| !fault.is_of_the_hub()), began, &shared));
    copy(hub, client, fault.filter(|fault| !matches!(fault, Fault::CutsLong(_))), began, &active);
    Some(())
}

/// Copies the bytes of one direction of a connection, with the proxy's fault.
fn copy(mut from: TcpStream, mut to: TcpStream, fault: Option<Fault>, began: Instant, active: &AtomicU64) {
    let now = || began.elapsed().as_millis() as u64;
    let (mut buffer, mut kept, mut passed) = (vec![0; 65_536], Vec::new(), 0);
    if let Some(Fault::CutsIdle(_)) = fault {
        from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    }
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                active.store(now(), Ordering::Relaxed);
                passed += n;
                let bytes = &buffer[..n];
                match fault {
                    Some(Fault::Buffers(enough)) => {
                        kept.extend_from_slice(bytes);
                        if kept.len() < enough {
                            continue;
                        }
                        if to.write_all(&kept).is_err() {
                            break;
                        }
                        kept.clear();
                        continue;
                    }
                    Some(Fault::CutsLong(most)) if passed > most => break,
                    Some(fault) if let Some(Edits { dropped, replaced }) = fault.edits() => {
                        kept.extend_from_slice(bytes);
                        while let Some(mut frame) = frame(&mut kept) {
                            let is_dropped = dropped
                                .is_some_and(|text| frame.windows(text.len()).any(|found| found == text.as_bytes()));
                            if let Some((old, new)) = replaced {
                                replace(&mut frame, old, new);
                            }
                            if !is_dropped && to.write_all(&frame).is_err() {
                                return;
                            }
                        }
                        continue;
                    }
                    // On an idle connection, the hub writes a ping alone, so the ping begins these bytes.
                    Some(Fault::DropsPings) if bytes[0] == 0x89 => continue,
                    Some(Fault::DelaysAndDrops(_, most)) if passed > most => continue,
                    Some(Fault::Delays(time) | Fault::DelaysAndDrops(time, _)) => std::thread::park_timeout(time),
                    _ => {}
                }
                if to.write_all(bytes).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let Some(Fault::CutsIdle(time)) = fault else { break };
                if now() > active.load(Ordering::Relaxed) + time.as_millis() as u64 {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    _ = to.write_all(&kept);
    _ = to.shutdown(Shutdown::Both);
    _ = from.shutdown(Shutdown::Both);
}

#[test]
fn a_healthy_hub_has_no_problems() {
    let hub = Hub::start(&[("PEER_TIMEOUT_MS", "1500")]);
    let said = doctor(&["--patience", "3s", &url(hub.address)]);
    said.is_well();
    let findings = said.report["findings"].as_array().unwrap().iter();
    let mut checks: Vec<&str> = findings.map(|found| found["check"].as_str().unwrap()).collect();
    checks.dedup();
    let expected = [
        "address", "tls", "pages", "upgrade", "clock", "auth", "ping", "announce", "relay", "receipts", "size", "ice",
        "idle",
    ];
    assert_eq!(checks, expected);
    assert_eq!(said.found("note"), ["auth: open-hub", "ice: no-ice-servers"]);
    // The doctor causes no failures, such as a TLS handshake at a port without TLS.
    let page = hub.get("/metrics");
    let mut failures = page.lines().filter(|line| line.starts_with("peerpigeon_handshake_failures_total{"));
    assert!(failures.all(|line| line.ends_with(" 0")), "{page}");
    // The doctor's peers have left the hub.
    hub.metric_becomes("peerpigeon_connections", |n| n == 0.0);
    let output = command(&[]).args(["doctor", "--patience", "0", &url(hub.address)]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("relay     20 offers between two peers arrive: "), "{text}");
    assert!(text.ends_with("\nno problems\n") || text.contains("#slow"), "{text}");
}

#[test]
fn proxies_that_lose_headers_are_reported() {
    let hub = Hub::start(&[("AUTH_TOKEN", "secret")]);
    for lost in [&["upgrade"][..], &["connection"], &["upgrade", "connection"], &["sec-websocket-key"]] {
        let at = proxy(hub.address, Fault::Loses(lost));
        let said = quickly(&["--token", "secret", &url(at)]);
        said.only("upgrade: headers-lost");
    }
    let said = quickly(&["--token", "secret", &url(proxy(hub.address, Fault::LosesQuery))]);
    said.only("upgrade: query-lost");
    let said = quickly(&["--token", "secret", &url(proxy(hub.address, Fault::Loses(&["authorization"])))]);
    said.only("auth: token-header-lost");
}

#[test]
fn a_proxy_that_buffers_is_reported() {
    let hub = Hub::start(&[]);
    let said = quickly(&[&url(proxy(hub.address, Fault::Buffers(4096)))]);
    said.only("upgrade: buffered");
}

#[test]
fn a_proxy_that_cuts_idle_connections_is_reported() {
    let hub = Hub::start(&[]);
    let at = proxy(hub.address, Fault::CutsIdle(Duration::from_secs(3)));
    let said = doctor(&["--patience", "20s", &url(at)]);
    let found = said.only("idle: idle-cut");
    assert!(found["message"].as_str().unwrap().contains("the hub pings every 25 s"), "{found}");
}

#[test]
fn a_proxy_that_drops_pings_is_reported() {
    let hub = Hub::start(&[("PEER_TIMEOUT_MS", "4000")]);
    let said = doctor(&["--patience", "20s", &url(proxy(hub.address, Fault::DropsPings))]);
    said.only("idle: pings-lost");
}

#[test]
fn a_proxy_that_delays_is_reported() {
    let hub = Hub::start(&[]);
    let said = quickly(&[&url(proxy(hub.address, Fault::Delays(Duration::from_millis(150))))]);
    assert_eq!(said.found("problem"), Vec::<String>::new(), "{:#}", said.report);
    let slow = said.with_code("slow");
    let mut checks: Vec<_> = slow.iter().map(|found| &found["check"]).collect();
    checks.dedup();
    // All times have the same limit.
    assert_eq!(checks, ["ping", "announce", "relay", "size"], "{:#}", said.report);
    let message = slow[0]["message"].as_str().unwrap();
    assert!(message.starts_with("the hub answers slowly: 20 pings take 1"), "{message}");
    let message = slow[1]["message"].as_str().unwrap();
    assert!(message.contains("; a TCP connection to 127.0.0.1:"), "{message}");
}

#[test]
fn a_message_that_does_not_arrive_from_a_very_slow_hub_is_not_blamed_on_a_proxy() {
    let hub = Hub::start(&[("MAX_MESSAGE_BYTES", "400000")]);
    // The offers of 16 KiB arrive, and the offer of 400 KB does not.
    let fault = Fault::DelaysAndDrops(Duration::from_millis(300), 120_000);
    let said = quickly(&[&url(proxy(hub.address, fault))]);
    assert_eq!((said.found("problem"), said.found("warning")), (vec![], vec![]), "{:#}", said.report);
    let slow = said.with_code("slow");
    assert_eq!(slow[0]["grade"], "problem", "{}", slow[0]);
    let lost = slow.last().unwrap();
    let message = lost["message"].as_str().unwrap();
    assert!(message.starts_with("an offer of 400000 bytes (the hub's limit) does not arrive: "), "{message}");
    assert!(message.contains("too slow to tell the cause: pings 3"), "{message}");
    // 25 pieces of 16 KiB, each as slow as the slowest median.
    let waited = message.split("waited for ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(waited.parse::<u64>().unwrap() >= 7, "{message}");
}

#[test]
fn a_proxy_that_cuts_large_messages_is_reported() {
    let hub = Hub::start(&[]);
    let said = quickly(&[&url(proxy(hub.address, Fault::CutsLong(200_000)))]);
    let found = said.only("size: large-lost");
    assert!(found["message"].as_str().unwrap().contains("1048576 bytes (the hub's limit)"), "{found}");
}

#[test]
fn a_proxy_that_rewrites_messages_is_reported() {
    let hub = Hub::start(&[]);
    // The number has the same value, and other bytes.
    let at = proxy(hub.address, Fault::Rewrites(r#""n": 1.50}"#, r#""n": 1.5 }"#));
    let action = "find the proxy that rewrites messages";
    let changed = ("relay", "signal-changed");
    let said = advises(&[&url(at)], "problem", changed, "the data of an offer was changed on its way", action);
    said.only("relay: signal-changed");
    // The small offers arrive, and the large ones are changed.
    let at = proxy(hub.address, Fault::Rewrites("xxxxxxxx", "xxxx\u{b7}xx"));
    let size = ("size", "signal-changed");
    let said = advises(&[&url(at)], "problem", size, "an offer of 16384 bytes arrives changed", action);
    said.only("size: signal-changed");
}

#[test]
fn peers_that_do_not_discover_each_other_are_reported() {
    let hub = Hub::start(&[]);
    let at = proxy(hub.address, Fault::Rewrites(r#""peerId":"#, r#""peerIx":"#));
    let (message, action) = ("no answer to peer-discovered: ", "look at the errors of the hub, and at its log");
    let said = advises(&[&url(at)], "problem", ("announce", "undiscovered"), message, action);
    said.only("announce: undiscovered");
}

#[test]
fn a_hub_that_loses_signals_is_reported_with_the_outcome() {
    let hub = Hub::start(&[]);
    let action = "look at the outcome, and at the log of the hub";
    let at = proxy(hub.address, Fault::Drops(r#""type":"offer""#));
    let message = "offer 1 of 20 did not arrive: its outcome is delivered";
    let said = advises(&[&url(at)], "problem", ("relay", "signal-lost"), message, action);
    said.only("relay: signal-lost");
    // An offer that seems to come from another peer is not the doctor's offer.
    let at = proxy(hub.address, Fault::Rewrites(r#""fromPeerId":""#, r#""fromPeerIx":""#));
    quickly(&[&url(at)]).only("relay: signal-lost");
    assert_eq!(said.found("ok").iter().filter(|check| *check == "receipts: ").count(), 0, "{:#}", said.report);
}

#[test]
fn missing_receipts_are_a_problem_except_at_go_hubs() {
    let hub = Hub::start(&[]);
    let action = "upgrade the hub: Go hubs send no receipts";
    let receipts = ("receipts", "no-receipt");
    let at = proxy(hub.address, Fault::Drops(r#""type":"receipt""#));
    let begin = Instant::now();
    let said = advises(&[&url(at)], "problem", receipts, "20 offers without a receipt", action);
    said.only("receipts: no-receipt");
    // The doctor does not wait for 5 s after each offer.
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    // A receipt for another signal does not count.
    let at = proxy(hub.address, Fault::Rewrites(r#""id":"doctor-"#, r#""id":"docter-"#));
    quickly(&[&url(at)]).only("receipts: no-receipt");
    // Go hubs have no version of the protocol, and send no receipts.
    let go = Fault::RewritesAndDrops(r#""protocol":"#, r#""protocox":"#, r#""type":"receipt""#);
    let said = advises(&[&url(proxy(hub.address, go))], "note", receipts, "the hub sends no receipts", action);
    said.is_well();
}

#[test]
fn a_hub_that_is_stuck_is_reported() {
    let hub = Hub::start(&[]);
    let stuck = "HTTP/1.1 503 Service Unavailable\r\n\r\nstuck: thread shard-1 has made no progress for 12 s\n";
    let at = proxy(hub.address, Fault::Answers(&["/livez"], stuck));
    let action = "restart the hub, after you have taken a core dump";
    let message = "/livez: stuck: thread shard-1 has made no progress for 12 s";
    let said = advises(&[&url(at)], "problem", ("pages", "hub-stuck"), message, action);
    said.only("pages: hub-stuck");
}

#[test]
fn a_server_that_never_answers_is_reported() {
    // The kernel accepts the connections.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let said = quickly(&[&url(silent.local_addr().unwrap())]);
    assert_eq!(said.found("problem"), ["pages: no-answer", "upgrade: no-answer"], "{:#}", said.report);
    assert_eq!(said.found("warning"), [""; 0], "{:#}", said.report);
}

/// Starts a proxy with TLS 1.2 in front of a hub.
fn old_tls(to: SocketAddr, certificate: &Certificate) -> SocketAddr {
    let chain = CertificateDer::pem_file_iter(&certificate.certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&certificate.key).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS12]).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let door = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = door.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async {
            while let Ok((client, _)) = door.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut client = acceptor.accept(client).await?;
                    let mut hub = tokio::net::TcpStream::connect(to).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut hub).await
                });
            }
        });
    });
    address
}

#[test]
fn a_server_with_old_tls_is_reported() {
    let authority = Authority::new();
    let certificate = authority.issue("old", 90);
    let hub = Hub::start(&[]);
    let at = format!("wss://{}", old_tls(hub.address, &certificate));
    let action = "enable TLS 1.3 in the proxy";
    let args = ["--ca", &certificate.authority_file, &at];
    advises(&args, "note", ("tls", "tls-old"), ": TLS 1.2, 1 certificate sent, valid for 9", action).is_well();
    // An older server answers with the alert `protocol_version`.
    let at = answering("\u{15}\u{3}\u{1}\u{0}\u{2}\u{2}\u{46}");
    quickly(&[&format!("wss://{at}")]).only("tls: tls-handshake");
}

#[test]
fn the_sizes_of_offers_follow_the_hubs_limit() {
    let sizes = |limit: &str| {
        let said = quickly(&[&url(Hub::start(&[("MAX_MESSAGE_BYTES", limit)]).address)]);
        said.is_well();
        let findings = said.report["findings"].as_array().unwrap().iter().filter(|found| found["check"] == "size");
        let message = |found: &Value| found["message"].as_str().unwrap().split(" arrives").next().unwrap().to_owned();
        findings.map(message).collect::<Vec<_>>()
    };
    assert_eq!(sizes("4096"), ["an offer of 4096 bytes (the hub's limit)"]);
    // The doctor sends at most 2 MiB.
    assert_eq!(sizes("4194304"), ["an offer of 16384 bytes", "an offer of 2097152 bytes"]);
}

/// Starts a hub with this certificate. Returns the hub and its URL with the name `localhost`.
fn secure(certificate: &Certificate) -> (Hub, String) {
    let hub = Hub::start(&[("TLS_CERT", certificate.certificate.as_str()), ("TLS_KEY", certificate.key.as_str())]);
    let url = format!("wss://localhost:{}", hub.address.port());
    (hub, url)
}

#[test]
fn faults_of_certificates_are_reported() {
    let authority = Authority::new();
    let ca = &authority.issue("any", 90).authority_file;
    // The hub listens only on 127.0.0.1, but `localhost` can also mean ::1.
    let ipv4 = |hub: &Hub| format!("wss://127.0.0.1:{}", hub.address.port());
    let (hub, _) = secure(&authority.issue("good", 90));
    let said = quickly(&["--ca", ca, &ipv4(&hub)]);
    assert!(said.found("ok").contains(&"tls: ".to_owned()), "{:#}", said.report);
    said.is_well();
    let said = quickly(&[&ipv4(&hub)]);
    let found = said.only("tls: tls-unknown-issuer");
    assert!(found["message"].as_str().unwrap().ends_with("that the server sends (1 certificate)"), "{found}");
    let said = quickly(&["--ca", ca, &url(hub.address)]);
    said.only("tls: tls-wanted");
    let other = format!("wss://[::ffff:127.0.0.1]:{}", hub.address.port());
    let said = quickly(&["--ca", ca, &other]);
    let found = said.only("tls: tls-wrong-name");
    assert!(found["message"].as_str().unwrap().contains(", but for "), "{found}");

    for (days, finding) in [(-2, "tls: tls-expired"), (2, "tls: tls-expires-soon"), (10, "tls: tls-expires-soon")] {
        let (hub, _) = secure(&authority.issue("other", days));
        let said = quickly(&["--ca", ca, "--token", "secret", &ipv4(&hub)]);
        if days < 0 {
            assert!(said.report.to_string().contains("the certificate expired 2 days ago"), "{:#}", said.report);
        }
        if days < 3 {
            assert!(said.found("problem").contains(&finding.to_owned()), "{days}: {:#}", said.report);
        } else {
            assert!(said.found("warning").contains(&finding.to_owned()), "{days}: {:#}", said.report);
        }
        // The doctor does not send the token to a hub whose certificate is invalid, but makes all other checks.
        assert_eq!(said.found("skipped").contains(&"auth: ".to_owned()), days < 0, "{days}: {:#}", said.report);
        assert!(said.found("ok").contains(&"receipts: ".to_owned()), "{days}: {:#}", said.report);
    }
    let expired = authority.issue("expired", -2);
    let env = [("TLS_CERT", expired.certificate.as_str()), ("TLS_KEY", &expired.key), ("AUTH_TOKEN", "secret")];
    let said = quickly(&["--ca", ca, "--token", "secret", &ipv4(&Hub::start(&env))]);
    said.only("tls: tls-expired");
    let refused = |found: &&Value| found["check"] == "auth" && found["grade"] == "skipped";
    let found = said.report["findings"].as_array().unwrap().iter().find(refused).unwrap();
    assert!(
        found["message"].as_str().unwrap().starts_with("the hub requires a token, but the doctor did not"),
        "{found}"
    );
    assert!(!said.found("ok").contains(&"receipts: ".to_owned()), "the token was sent: {:#}", said.report);

    let plain = Hub::start(&[]);
    let said = quickly(&[&format!("wss://{}", plain.address)]);
    said.only("tls: tls-missing");
}

#[test]
fn tls_that_fails_at_one_address_does_not_end_the_checks() {
    let authority = Authority::new();
    let certificate = authority.issue("one", 90);
    let (hub, at) = secure(&certificate);
    // At the same port of the other address, a server speaks no TLS. Many containers have no IPv6.
    let Ok(other) = TcpListener::bind(("::1", hub.address.port())) else { return };
    std::thread::spawn(move || {
        for mut client in other.incoming().map_while(Result::ok) {
            _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let addresses = std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 80)).unwrap();
    if !addresses.into_iter().any(|address| address.is_ipv6()) {
        return;
    }
    let said = quickly(&["--ca", &certificate.authority_file, &at]);
    let found = said.only("tls: tls-missing");
    assert!(found["message"].as_str().unwrap().starts_with("[::1]:"), "{found}");
    assert!(said.found("ok").contains(&"receipts: ".to_owned()), "{:#}", said.report);
    assert!(said.report.to_string().contains("use only the addresses that work: 127.0.0.1"), "{:#}", said.report);
}

#[test]
fn refusals_of_the_hub_are_reported() {
    let hub = Hub::start(&[("AUTH_TOKEN", "secret"), ("ALLOWED_ORIGINS", "https://app.example.com")]);
    let at = url(hub.address);
    quickly(&[&at]).only("auth: token-wanted");
    quickly(&["--token", "wrong", &at]).only("auth: token-wrong");
    let said = quickly(&["--token", "secret", "--origin", "https://app.example.com", &at]);
    said.is_well();
    assert!(["auth: ", "origin: ", "cors: "].iter().all(|check| said.found("ok").contains(&(*check).to_owned())));
    let said = quickly(&["--token", "secret", "--origin", "https://evil.example", &at]);
    assert_eq!(said.found("problem"), ["origin: origin-refused"], "{:#}", said.report);
    assert_eq!(said.found("warning"), ["cors: cors-refused"], "{:#}", said.report);
    let gateway = Fault::RefusesStrangers("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
    let of_tokens = Hub::start(&[("AUTH_TOKEN", "secret")]);
    quickly(&["--token", "secret", &url(proxy(of_tokens.address, gateway))]).only("auth: gateway");
    let open = Hub::start(&[]);
    quickly(&["--token", "secret", &url(open.address)]).only("auth: open-hub");
    let of_pages = Hub::start(&[("ALLOWED_ORIGINS", "https://app.example.com")]);
    let said = quickly(&["--origin", "https://app.example.com", &url(of_pages.address)]);
    said.is_well();
    assert!(said.found("ok").contains(&"auth: ".to_owned()), "{:#}", said.report);
}

#[test]
fn a_hub_that_is_full_or_drains_is_reported() {
    let hub = Hub::start(&[("MAX_CONNECTIONS", "2"), ("ADMIN_TOKEN", "of-the-operators")]);
    let at = url(hub.address);
    let _peers = [Client::connect(&hub, 1), Client::connect(&hub, 2)];
    let said = quickly(&[&at]);
    assert_eq!(said.found("problem"), ["pages: not-ready", "upgrade: hub-full"], "{:#}", said.report);
    assert!(said.found("ok").contains(&"clock: ".to_owned()), "{:#}", said.report);
    let drain = ["admin", "drain", &format!("http://{}", hub.address), "--secs", "60"];
    assert!(command(&[("ADMIN_TOKEN", "of-the-operators")]).args(drain).output().unwrap().status.success());
    let said = quickly(&[&at]);
    assert_eq!(said.found("problem"), ["pages: hub-drains", "upgrade: hub-drains"], "{:#}", said.report);
}

/// Starts a server that sends the same answer to every request.
fn answering(answer: &'static str) -> SocketAddr {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = door.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in door.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                _ = head(&mut client);
                _ = client.write_all(answer.as_bytes());
            });
        }
    });
    address
}

#[test]
fn a_server_that_is_not_a_hub_is_reported() {
    let said = quickly(&[&url(answering("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"))]);
    assert_eq!(said.found("problem"), ["pages: gateway", "upgrade: gateway"], "{:#}", said.report);
    let said = quickly(&[&url(answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))]);
    said.only("upgrade: not-a-hub");
    assert!(said.found("note").contains(&"pages: pages-elsewhere".to_owned()), "{:#}", said.report);
    quickly(&["ws://name.invalid"]).only("address: no-address");
    let said = quickly(&[&format!("ws://127.0.0.1:{}", free_port())]);
    assert_eq!(said.only("address: address-unreachable")["grade"], "problem");
    assert_eq!(command(&[]).args(["doctor", "ftp://hub"]).output().unwrap().status.code(), Some(64));
}

#[test]
fn a_wrong_path_is_reported() {
    let hub = Hub::start(&[]);
    let said = quickly(&[&format!("{}/chat", url(hub.address))]);
    let found = said.only("upgrade: wrong-path");
    let message = "the URL leads to a hub, but peers cannot connect at its path /chat: they connect at /ws";
    assert_eq!(found["message"], message);
    quickly(&[&format!("{}/ws", url(hub.address))]).is_well();
}

#[test]
fn hubs_of_different_meshes_are_reported() {
    let hubs = mesh(2, &[]);
    let (here, there) = (url(hubs[0].address), url(hubs[1].address));
    let said = quickly(&["--other", &there, &here]);
    said.is_well();
    assert!(said.found("ok").contains(&"mesh: ".to_owned()), "{:#}", said.report);
    const ONE: &str = "(both URLs led to one hub)";
    assert!(!said.report.to_string().contains(ONE), "{:#}", said.report);
    let said = quickly(&["--other", &here, &here]);
    assert!(said.report.to_string().contains(ONE), "{:#}", said.report);
    let alone = Hub::start(&[]);
    let said = quickly(&["--other", &url(alone.address), &here]);
    let found = said.only("mesh: hubs-apart");
    let message = found["message"].as_str().unwrap();
    assert!(message.contains(&format!("/hubstats of ws://{}", alone.address)), "{message}");
    quickly(&["--other", &format!("ws://127.0.0.1:{}", free_port()), &here]).only("mesh: no-answer");
}

#[test]
fn the_doctor_says_why_hubs_are_apart() {
    let redis = format!("redis://127.0.0.1:{}", free_port());
    let env = [("REDIS_URL", redis.as_str()), ("MESH_TOKEN", "of-the-mesh"), ("ADMIN_TOKEN", "of-the-operators")];
    let hubs = [Hub::start(&env), Hub::start(&env)];
    let [here, there] = hubs.each_ref().map(|hub| url(hub.address));
    hubs.iter().for_each(|hub| drop(hub.logged("bridge_cannot_connect")));
    let said = quickly(&["--other", &there, &here]);
    let message = said.only("mesh: hubs-apart")["message"].as_str().unwrap();
    let unread = format!("/hubstats of {here} cannot be read: 401 Unauthorized: set ADMIN_TOKEN");
    assert!(message.contains(&unread), "{message}");
    let said = quickly(&["--admin-token", "of-the-operators", "--other", &there, &here]);
    let message = said.only("mesh: hubs-apart")["message"].as_str().unwrap();
    for hub in [here, there] {
        let reason = format!("/hubstats of {hub} says: Redis ");
        assert!(message.contains(&reason) && message.contains("refused"), "{message}");
    }
}

#[test]
fn a_slow_link_between_hubs_is_reported() {
    let env = [("IS_HUB", "true"), ("MESH_TOKEN", "of-the-mesh")];
    let first = Hub::start(&env);
    let link = url(proxy(first.address, Fault::Delays(Duration::from_millis(150))));
    let second = Hub::start(&[&env[..], &[("BOOTSTRAP_HUBS", link.as_str())]].concat());
    let at = url(second.address);
    // If this machine is so busy that the hubs answer slowly, the link is not to blame.
    eventually("the doctor reports the link", || {
        let said = quickly(&["--other", &url(first.address), &at]);
        assert_eq!(said.found("problem"), [""; 0], "{:#}", said.report);
        said.with_code("link-slow").first().is_some_and(|found| {
            let message = found["message"].as_str().unwrap();
            assert_eq!(found["check"], "mesh");
            assert!(message.contains(&format!("a TCP connection to {} takes ", first.address)), "{message}");
            assert!(message.contains(&format!("a TCP connection to {} takes ", second.address)), "{message}");
            true
        })
    });
}

#[test]
fn ice_servers_beyond_the_bound_are_named_and_not_examined() {
    let hub = Hub::start(&[]);
    let urls = |count: usize| (0..count).map(|n| format!("stan:{n}.example")).collect::<Vec<_>>();
    let action = "correct the URL of the server";
    let message = "stan:15.example is not the URL of a server: use stun:, stuns:, turn: or turns:";
    let skipped = |said: &Said| {
        let findings = said.report["findings"].as_array().unwrap().iter();
        let skipped = findings.filter(|found| found["check"] == "ice" && found["grade"] == "skipped");
        skipped.map(|found| found["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let invalid = |said: &Said| said.found("problem").iter().filter(|found| *found == "ice: ice-invalid").count();
    let servers = json!([{ "urls": urls(16) }]).to_string();
    let args = ["--ice-servers", &servers, &url(hub.address)];
    let said = advises(&args, "problem", ("ice", "ice-invalid"), "stan:0.example", action);
    assert_eq!((invalid(&said), skipped(&said)), (16, vec![]));
    // The last URL is not examined, but the doctor sees that it is a TURN server.
    let servers = json!([{ "urls": urls(16) }, { "urls": ["stan:16.example", "turn:17.example"] }]).to_string();
    let args = ["--ice-servers", &servers, &url(hub.address)];
    let said = quickly(&args);
    assert_eq!(invalid(&said), 16);
    assert_eq!(skipped(&said), ["2 of 18 URLs were not examined: the doctor examines 16"]);
    assert!(!said.found("note").contains(&"ice: no-turn".to_owned()), "{:#}", said.report);
    let text = text(&args);
    assert!(text.contains(message) && text.contains(action) && text.contains("2 of 18 URLs"), "{text}");
    // A hub can also send too many entries.
    let servers: Vec<_> =
        (1..=17).map(|n| json!({ "urls": format!("stun:127.0.0.{n}:{}?transport=tcp", free_port()) })).collect();
    let servers = json!(servers).to_string();
    let hub = Hub::start(&[("ICE_SERVERS", &servers)]);
    let said = quickly(&[&url(hub.address)]);
    assert_eq!(said.found("problem"), ["ice: stun-dead"; 16], "{:#}", said.report);
    assert_eq!(skipped(&said), ["1 of 17 entries were not examined: the doctor examines 16"]);
}

/// Starts a UDP server that answers each datagram. Returns its port.
fn udp(answer: impl Fn(&[u8], SocketAddr) -> Vec<u8> + Send + 'static) -> u16 {
    serve(UdpSocket::bind("127.0.0.1:0").unwrap(), answer)
}

/// Answers each datagram of this socket. Returns its port.
fn serve(socket: UdpSocket, answer: impl Fn(&[u8], SocketAddr) -> Vec<u8> + Send + 'static) -> u16 {
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            _ = socket.send_to(&answer(&buffer[..n], from), from);
        }
    });
    port
}

/// Returns the answer of a STUN server, which has the header of the request with another type, followed by attributes.
fn stun(request: &[u8], kind: u16, attributes: &[u8]) -> Vec<u8> {
    let length = attributes.len() as u16;
    [&kind.to_be_bytes()[..], &length.to_be_bytes(), &request[4..20], attributes].concat()
}

/// The answer of a STUN server that works. 0x2112a442 is STUN's magic cookie. Addresses and ports are XORed with it.
fn bound(request: &[u8], from: SocketAddr) -> Vec<u8> {
    let port = (from.port() ^ 0x2112).to_be_bytes();
    stun(request, 0x0101, &[0, 0x20, 0, 8, 0, 1, port[0], port[1], 127 ^ 0x21, 0x12, 0xa4, 1 ^ 0x42])
}

/// Like [`bound`], for a client at the address `::1`.
fn bound_to_ipv6(request: &[u8], from: SocketAddr) -> Vec<u8> {
    let port = (from.port() ^ 0x2112).to_be_bytes();
    // The address is XORed with the magic cookie and the id of the transaction.
    let mut address = request[4..20].to_vec();
    address[15] ^= 1;
    stun(request, 0x0101, &[&[0, 0x20, 0, 20, 0, 2, port[0], port[1]][..], &address].concat())
}

/// Starts a STUN server that listens for TCP. Its answers announce this length of a message of 12 bytes.
fn over_tcp(length: u16) -> SocketAddr {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = door.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut client in door.incoming().map_while(Result::ok) {
            let mut request = [0; 20];
            let Ok(from) = client.peer_addr() else { continue };
            if client.read_exact(&mut request).is_ok() {
                let mut answer = bound(&request, from);
                if length != 12 {
                    answer[2..4].copy_from_slice(&length.to_be_bytes());
                }
                _ = client.write_all(&answer);
                open.push(client);
            }
        }
    });
    address
}

#[test]
fn dead_and_refusing_ice_servers_are_reported() {
    let hub = Hub::start(&[]);
    let at = url(hub.address);
    let with = |servers: Value| quickly(&["--ice-servers", &servers.to_string(), &at]);
    let works = udp(bound);
    let said = with(json!([{"urls": [format!("stun:127.0.0.1:{works}")]}]));
    assert!(said.found("ok").contains(&"ice: ".to_owned()), "{:#}", said.report);
    said.is_well();

    let login = json!({"username": "u", "credential": "p"});
    let turn = |port: u16| {
        let url = format!("turn:127.0.0.1:{port}");
        json!([{"urls": url, "username": login["username"], "credential": login["credential"]}])
    };
    // The TURN server `refuses` answers every request with 401, a realm and a nonce, even if the request has
    // credentials.
    let refuses = udp(|request, _| {
        let error = [0, 9, 0, 4, 0, 0, 4, 1];
        stun(request, 0x0113, &[&error[..], &[0, 0x14, 0, 1, b'r', 0, 0, 0], &[0, 0x15, 0, 1, b'n', 0, 0, 0]].concat())
    });
    with(turn(refuses)).only("ice: turn-refused");
    for number in [86, 8] {
        let code = if number == 86 { 4 } else { 5 };
        let full = udp(move |request, _| stun(request, 0x0113, &[0, 9, 0, 4, 0, 0, code, number]));
        with(turn(full)).only("ice: turn-full");
    }
    // A TURN server without logins reserves an address at once: 127.0.0.1:3.
    let open = udp(|request, _| {
        stun(request, 0x0103, &[0, 0x16, 0, 8, 0, 1, 0x21, 3 ^ 0x12, 127 ^ 0x21, 0x12, 0xa4, 1 ^ 0x42])
    });
    let said = with(turn(open));
    said.is_well();
    assert!(said.report.to_string().contains(" has reserved 127.0.0.1:3 in "), "{:#}", said.report);
    // Many containers have no IPv6.
    if let Ok(socket) = UdpSocket::bind("[::1]:0") {
        let port = serve(socket, bound_to_ipv6);
        let said = with(json!([{"urls": [format!("stun:[::1]:{port}")]}]));
        said.is_well();
        assert!(said.report.to_string().contains(" sees this machine as [::1]:"), "{:#}", said.report);
    }
    // The first datagram is lost, and the doctor sends the request again.
    let requests = AtomicU64::new(0);
    let loses = udp(
        move |request, from| {
            if requests.fetch_add(1, Ordering::Relaxed) == 0 { Vec::new() } else { bound(request, from) }
        },
    );
    with(json!([{"urls": [format!("stun:127.0.0.1:{loses}")]}])).is_well();
    // The same server over TCP, and over TCP with TLS. The last server announces a message that is too long.
    let (tcp, long) = (over_tcp(12), over_tcp(0xffff));
    let authority = Authority::new();
    let certificate = authority.issue("stun", 90);
    let tls = old_tls(tcp, &certificate);
    let servers = json!([{"urls": [format!("stun:{tcp}?transport=tcp"), format!("stuns:{tls}")]}]).to_string();
    let said = quickly(&["--ca", &certificate.authority_file, "--ice-servers", &servers, &at]);
    said.is_well();
    assert_eq!(said.found("ok").iter().filter(|check| *check == "ice: ").count(), 2, "{:#}", said.report);
    let said = with(json!([{ "urls": format!("stun:{long}?transport=tcp") }]));
    let found = said.only("ice: stun-dead");
    assert!(found["message"].as_str().unwrap().ends_with("the answer is not that of a STUN server"), "{found}");
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap();
    with(turn(dead.local_addr().unwrap().port())).only("ice: turn-dead");
    let closed = format!("stun:127.0.0.1:{}?transport=tcp", free_port());
    with(json!([{ "urls": closed }])).only("ice: stun-dead");
    with(json!([{"urls": "turn://example.com"}])).only("ice: ice-invalid");
}

/// A running coturn, and its directory. Dropping this value stops coturn and removes the directory.
struct Coturn(Child, PathBuf);

impl Drop for Coturn {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
        _ = std::fs::remove_dir_all(&self.1);
    }
}

/// Starts coturn with these arguments. Returns `None` if coturn is not installed.
fn coturn(arguments: &[&str]) -> Option<(Coturn, u16)> {
    let port = free_port();
    let place = std::env::temp_dir().join(format!("peerpigeon-coturn-{}-{port}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let started = Command::new("turnserver")
        .args(["-n", "--no-tls", "--no-dtls", "--no-cli", "--realm", "test"])
        .args(["--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1", "--allow-loopback-peers"])
        .args(["--log-file", "stdout", "--listening-port", &port.to_string()])
        .args(arguments)
        .arg(format!("--pidfile={}", place.join("pid").display()))
        .arg(format!("--userdb={}", place.join("db").display()))
        .current_dir(&place)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = started else {
        eprintln!("skipped: there is no turnserver (Debian: coturn)");
        return None;
    };
    let coturn = Coturn(child, place);
    eventually("coturn listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    Some((coturn, port))
}

#[test]
fn coturn_reserves_an_address() {
    let Some((_coturn, port)) = coturn(&["--lt-cred-mech", "--user", "someone:password"]) else {
        return;
    };
    let hub = Hub::start(&[]);
    let server = |password: &str| {
        let urls = ["", "?transport=tcp"].map(|transport| format!("turn:127.0.0.1:{port}{transport}"));
        json!({"urls": urls, "username": "someone", "credential": password})
    };
    let ask = |servers: Value| quickly(&["--ice-servers", &servers.to_string(), &url(hub.address)]);
    let said = ask(json!([server("password")]));
    assert_eq!(said.found("ok").iter().filter(|check| *check == "ice: ").count(), 2, "{:#}", said.report);
    said.is_well();
    assert_eq!(ask(json!([server("wrong")])).found("problem"), ["ice: turn-refused"; 2]);
    // While an operator replaces a TURN secret, peers receive credentials made with the old and with the new secret.
    let said = ask(json!([server("wrong"), server("password")]));
    said.is_well();
    assert_eq!(said.found("note").iter().filter(|note| *note == "ice: turn-refused").count(), 2, "{:#}", said.report);
}

#[test]
fn the_doctor_releases_the_address_that_a_turn_server_has_reserved() {
    // Each user may have one address. Without a release, coturn keeps an address for ten minutes.
    let arguments = ["--lt-cred-mech", "--user", "someone:password", "--user-quota", "1"];
    let Some((_coturn, port)) = coturn(&arguments) else { return };
    let hub = Hub::start(&[]);
    let url_of_turn = format!("turn:127.0.0.1:{port}");
    let servers = json!([{"urls": url_of_turn, "username": "someone", "credential": "password"}]).to_string();
    let ask = || quickly(&["--ice-servers", &servers, &url(hub.address)]);
    ask().is_well();
    // coturn needs about a second.
    eventually("the address is free again", || ask().found("problem").is_empty());
}

#[test]
fn the_doctor_tries_the_turn_credential_of_the_hub() {
    let Some((_coturn, port)) = coturn(&["--use-auth-secret", "--static-auth-secret", "of-both"]) else { return };
    let urls = format!("turn:127.0.0.1:{port}");
    let hub = Hub::start(&[("TURN_URLS", &urls), ("TURN_SECRET", "of-both")]);
    let said = quickly(&[&url(hub.address)]);
    said.is_well();
    assert!(said.found("ok").contains(&"ice: ".to_owned()), "{:#}", said.report);
    let other = Hub::start(&[("TURN_URLS", &urls), ("TURN_SECRET", "of-the-hub")]);
    quickly(&[&url(other.address)]).only("ice: turn-refused");
}
