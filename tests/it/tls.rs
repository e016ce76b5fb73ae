//! Tests of TLS handshakes, of connections without TLS, and of reloads of certificates. Some tests of other modules
//! also run over TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::admin::free_port;
use crate::client::{Client, frame, id, upgrade};
use crate::hub::{DEADLINE, DEFAULTS, Hub, command};
use crate::mesh::eventually;
use crate::wire::{Authority, Certificate, client_config, common, lay, over_tls};
use crate::{alive, door, ends, limits, signaling, stop};

pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

fn secure(certificate: &Certificate, more: &[(&str, &str)]) -> Hub {
    let files: [(&str, &str); 2] = [("TLS_CERT", &certificate.certificate), ("TLS_KEY", &certificate.key)];
    Hub::start(&[&files[..], more].concat())
}

fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> TlsStream {
    let tcp = TcpStream::connect(address).expect("connects");
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), tcp)
}

/// Sends a request, and reads the answer until the hub closes the connection.
pub fn ask(address: SocketAddr, config: &Arc<ClientConfig>, request: &str) -> String {
    let mut stream = connect(address, config);
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer must end with close_notify");
    answer
}

const GET: &str = "GET /livez HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n";

fn metric(hub: SocketAddr, config: &Arc<ClientConfig>, series: &str) -> f64 {
    let page = ask(hub, config, "GET /metrics HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n");
    let line = page.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

fn failures(hub: SocketAddr, config: &Arc<ClientConfig>, reason: &str) -> f64 {
    metric(hub, config, &format!("peerpigeon_handshake_failures_total{{reason=\"{reason}\"}}"))
}

/// Waits until the hub has counted `n` failed handshakes with the reason `reason`.
fn counted(hub: SocketAddr, config: &Arc<ClientConfig>, reason: &str, n: f64) {
    eventually(&format!("{n} failed handshakes with the reason {reason}"), || failures(hub, config, reason) == n);
}

#[test]
fn signaling_also_works_over_tls() {
    over_tls(|| {
        signaling::two_peers_discover_each_other_and_exchange_signals();
        signaling::a_message_sent_with_the_request_is_processed_first();
        signaling::a_message_may_arrive_byte_by_byte();
        signaling::signals_of_two_fast_senders_arrive_in_order_and_once();
        signaling::a_thousand_joins_at_once_are_announced_exactly_once();
    });
}

#[test]
fn sessions_over_tls_end_like_other_sessions() {
    over_tls(|| {
        ends::a_reset_is_announced_at_once();
        ends::a_silent_peer_is_pinged_twice_and_then_closed();
        ends::a_new_connection_replaces_one_that_does_not_answer();
        ends::a_connection_that_answers_keeps_its_id();
        ends::a_peer_that_never_reads_affects_only_itself();
        ends::a_full_hub_closes_new_peers_with_1008();
    });
}

#[test]
fn violations_over_tls_get_the_same_answers() {
    over_tls(|| {
        limits::violations_of_rfc_6455_are_closed_with_their_code();
        limits::a_message_over_the_limit_gets_an_error_and_a_close();
        limits::binary_frames_with_valid_text_are_accepted();
        limits::a_flood_gets_errors_and_then_a_close();
    });
}

#[test]
fn admission_and_drain_also_work_over_tls() {
    over_tls(|| {
        door::the_token_is_checked_before_the_id_and_the_id_before_the_upgrade();
        door::pages_count_connections_peers_and_networks();
        door::an_http_connection_serves_many_requests();
        door::request_heads_are_bounded();
        door::pipelined_page_requests_delay_only_their_connection();
        stop::a_drain_notifies_every_peer_and_exits_with_0();
        stop::a_second_signal_ends_the_hub_at_once();
    });
}

#[test]
fn pings_also_work_over_tls() {
    over_tls(|| {
        alive::a_client_that_sends_constantly_still_receives_pings();
        alive::pings_overtake_queued_messages();
    });
}

#[test]
fn tls_1_2_and_1_3_negotiate_http_1_1() {
    let hub = secure(common(), &[]);
    for version in [&tokio_rustls::rustls::version::TLS12, &tokio_rustls::rustls::version::TLS13] {
        let mut config = client_config(common());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut config = Arc::new(config);
        Arc::get_mut(&mut config).unwrap().resumption = Resumption::disabled();
        let provider = Arc::clone(config.crypto_provider());
        let mut only = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates({
                let mut roots = tokio_rustls::rustls::RootCertStore::empty();
                roots.add(common().authority.clone().into()).unwrap();
                roots
            })
            .with_no_client_auth();
        only.alpn_protocols = config.alpn_protocols.clone();
        let mut stream = connect(hub.address, &Arc::new(only));
        stream.write_all(GET.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(stream.conn.protocol_version(), Some(version.version));
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
}

#[test]
fn connections_without_tls_get_a_reason_and_are_counted() {
    let mut hub = secure(common(), &[("SHARDS", "1")]);
    let config = Arc::new(client_config(common()));
    let answer = hub.get("/livez");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
    counted(hub.address, &config, "http-at-tls-port", 1.0);

    let mut garbage = TcpStream::connect(hub.address).unwrap();
    garbage.write_all(&[0, 1, 2, 3]).unwrap();
    let mut end = Vec::new();
    _ = garbage.read_to_end(&mut end);
    assert!(end.is_empty());
    // Invalid TLS records get an alert.
    let mut broken = TcpStream::connect(hub.address).unwrap();
    broken.write_all(&[&[0x16, 3, 1, 0, 4, 1, 0, 0, 0][..], &[7; 100]].concat()).unwrap();
    broken.read_to_end(&mut end).unwrap();
    assert_eq!((end.first(), end.len()), (Some(&0x15), 7), "{end:?}");
    counted(hub.address, &config, "tls-handshake", 2.0);

    let mut h2 = client_config(common());
    h2.alpn_protocols = vec![b"h2".to_vec()];
    let error = connect(hub.address, &Arc::new(h2)).write_all(b"x").unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    counted(hub.address, &config, "tls-nothing-in-common", 1.0);

    let other = Authority::new().issue("other", 1);
    let mut untrusting = connect(hub.address, &Arc::new(client_config(&other)));
    untrusting.write_all(b"x").unwrap_err();
    // The client gets an alert.
    _ = untrusting.conn.write_tls(&mut untrusting.sock);
    drop(untrusting);
    counted(hub.address, &config, "tls-refused", 1.0);
    hub.logged(r#""reason":"tls-nothing-in-common""#);
    hub.signal("-TERM");
    assert_eq!(hub.wait().code(), Some(0));
}

#[test]
fn tls_at_a_plain_port_is_logged() {
    let hub = Hub::start(&[]);
    let config = Arc::new(client_config(common()));
    connect(hub.address, &config).write_all(b"x").unwrap_err();
    let line = hub.logged("tls_refused");
    assert!(line.contains("tls-at-plain-port") && line.contains("TLS_CERT"), "{line}");
    hub.metric_becomes("peerpigeon_handshake_failures_total{reason=\"tls-at-plain-port\"}", |n| n == 1.0);
}

#[test]
fn a_handshake_has_a_deadline() {
    let hub = secure(common(), &[("SHARDS", "1")]);
    let config = Arc::new(client_config(common()));
    let begun = Instant::now();
    // The first connection sends nothing, the second sends half of its hello, and the third never completes the
    // handshake.
    let mut silent = TcpStream::connect(hub.address).unwrap();
    let mut hello = Vec::new();
    ClientConnection::new(Arc::clone(&config), ServerName::try_from("localhost").unwrap())
        .unwrap()
        .write_tls(&mut hello)
        .unwrap();
    let mut half = TcpStream::connect(hub.address).unwrap();
    half.write_all(&hello[..hello.len() / 2]).unwrap();
    let mut unfinished = TcpStream::connect(hub.address).unwrap();
    unfinished.write_all(&hello).unwrap();
    for stream in [&mut silent, &mut half, &mut unfinished] {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(begun.elapsed() >= Duration::from_secs(9), "{:?}", begun.elapsed());
    counted(hub.address, &config, "tls-timeout", 2.0);
}

/// Sessions move to their home shards together with the TLS records that have been received only in part.
#[test]
fn a_session_moves_to_its_shard_in_the_middle_of_a_record() {
    for shards in ["1", "8"] {
        let hub = secure(common(), &[("SHARDS", shards)]);
        let config = Arc::new(client_config(common()));
        for n in 0..24 {
            let mut stream = connect(hub.address, &config);
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock).unwrap();
            }
            let mut records = Vec::new();
            stream.conn.writer().write_all(upgrade(&format!("/ws?peerId={}", id(n))).as_bytes()).unwrap();
            stream.conn.write_tls(&mut records).unwrap();
            stream.conn.writer().write_all(&frame(1, br#"{"type":"ping"}"#)).unwrap();
            stream.conn.write_tls(&mut records).unwrap();
            // The remaining bytes arrive after the socket has moved to its home shard.
            let late = records.split_off(records.len() - 1 - n as usize);
            stream.sock.write_all(&records).unwrap();
            let mut answer = Vec::new();
            while !answer.windows(9).any(|window| window == b"connected") {
                let mut more = [0; 4096];
                let read = stream.read(&mut more).unwrap();
                assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&more[..read]);
            }
            stream.sock.write_all(&late).unwrap();
            let mut answer = Vec::new();
            while !answer.windows(6).any(|window| window == b"\"pong\"") {
                let mut more = [0; 4096];
                let read = stream.read(&mut more).unwrap();
                assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&more[..read]);
            }
        }
        eventually("the sessions were handed over", || {
            metric(hub.address, &config, "peerpigeon_handshakes_total") == 24.0
        });
    }
}

/// Opens a WebSocket as peer `n`. Returns the WebSocket with all bytes that were read from it.
fn websocket(address: SocketAddr, config: &Arc<ClientConfig>, n: u32) -> (TlsStream, Vec<u8>) {
    let mut stream = connect(address, config);
    stream.write_all(upgrade(&format!("/ws?peerId={}", id(n))).as_bytes()).unwrap();
    let mut heard = Vec::new();
    read_until(&mut stream, &mut heard, b"connected");
    (stream, heard)
}

pub fn read_until(stream: &mut TlsStream, heard: &mut Vec<u8>, word: &[u8]) {
    while !heard.windows(word.len()).any(|window| window == word) {
        let mut more = [0; 4096];
        let read = stream.read(&mut more).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(heard));
        heard.extend_from_slice(&more[..read]);
    }
}

/// A stream without close_notify may have been cut by an attacker, so clients report an error.
#[test]
fn every_session_ends_with_close_notify() {
    let mut hub = secure(common(), &[("DRAIN_SECS", "1")]);
    let config = Arc::new(client_config(common()));
    let (mut leaves, _) = websocket(hub.address, &config, 1);
    leaves.write_all(&frame(8, &[0x03, 0xe8])).unwrap();
    let (mut breaks, _) = websocket(hub.address, &config, 2);
    breaks.write_all(b"\xff\xff").unwrap();
    let (mut drained, _) = websocket(hub.address, &config, 3);
    for stream in [&mut leaves, &mut breaks] {
        stream.read_to_end(&mut Vec::new()).expect("close_notify");
    }
    hub.signal("-TERM");
    read_until(&mut drained, &mut Vec::new(), b"restarting");
    drained.write_all(&frame(8, &[0x03, 0xf4])).unwrap();
    drained.read_to_end(&mut Vec::new()).expect("close_notify");
    drop((leaves, breaks, drained));
    assert_eq!(hub.wait().code(), Some(0));
}

#[test]
fn a_panic_in_tls_ends_only_its_session() {
    let mut hub = secure(common(), &[("PEERPIGEON_PLANTED_PANIC", "tls")]);
    let config = Arc::new(client_config(common()));
    for n in 1..=3 {
        let mut stream = connect(hub.address, &config);
        stream.write_all(upgrade(&format!("/ws?peerId={}", id(n))).as_bytes()).unwrap();
        // The hub does not use the TLS state of the session after the panic, so it does not send close_notify.
        stream.read_to_end(&mut Vec::new()).unwrap_err();
    }
    let closes = "peerpigeon_closes_total{reason=\"internal\"}";
    eventually("all three connections are counted", || metric(hub.address, &config, closes) == 3.0);
    hub.signal("-TERM");
    assert_eq!(hub.wait().code(), Some(0));
}

#[test]
fn a_client_that_sends_only_close_notify_has_left() {
    let hub = secure(common(), &[]);
    let config = Arc::new(client_config(common()));
    let (mut half, _) = websocket(hub.address, &config, 1);
    half.write_all(&frame(1, br#"{"type":"announce","networkName":"n"}"#)).unwrap();
    let (mut watcher, mut heard) = websocket(hub.address, &config, 2);
    watcher.write_all(&frame(1, br#"{"type":"announce","networkName":"n"}"#)).unwrap();
    read_until(&mut watcher, &mut heard, b"peer-discovered");
    half.conn.send_close_notify();
    half.conn.write_tls(&mut half.sock).unwrap();
    read_until(&mut watcher, &mut heard, b"connection-lost");
    half.read_to_end(&mut Vec::new()).expect("the hub must also send close_notify");
}

#[test]
fn admin_and_mesh_ports_can_use_tls() {
    let (certificate, admin, links) = (common(), free_port(), free_port());
    let meshed = [("ADMIN_PORT", &*admin), ("MESH_PORT", &links), ("MESH_INSECURE", "true"), ("IS_HUB", "true")];
    let hub = secure(certificate, &[&meshed[..], &[("TLS_PORTS", "ADMIN_PORT, MESH_PORT")]].concat());
    assert!(hub.get("/livez").starts_with("HTTP/1.1 200"), "TLS_PORTS does not name PORT, so PORT must not use TLS");
    let config = Arc::new(client_config(certificate));
    let at = |port: &str| SocketAddr::new(hub.address.ip(), port.parse().unwrap());
    let days = format!("peerpigeon_tls_certificate_days_left{{file=\"{}\"}}", certificate.certificate);
    assert!(metric(at(&admin), &config, &days) > 89.0);
    let answer = ask(at(&links), &config, &upgrade("/ws").replace("Connection: Upgrade", "Connection: Upgrade, close"));
    assert!(door::body(&answer).contains("MESH_PORT"), "{answer}");
    // Another hub can link to MESH_PORT.
    let url = format!("wss://localhost:{links}");
    let other = [("IS_HUB", "true"), ("MESH_INSECURE", "true"), ("BOOTSTRAP_HUBS", &url)];
    let other = Hub::start(&[&other[..], &[("MESH_CA", &certificate.authority_file)]].concat());
    other.logged("link_up");
}

#[test]
fn hubs_link_over_tls_with_a_private_ca() {
    let certificate = common();
    let meshed = [("IS_HUB", "true"), ("MESH_TOKEN", "t")];
    let a = secure(certificate, &meshed);
    let url = format!("wss://localhost:{}", a.address.port());
    let trusting = [&meshed[..], &[("BOOTSTRAP_HUBS", &url), ("MESH_CA", &certificate.authority_file)]].concat();
    let b = Hub::start(&trusting);
    let mut at_b = Client::join(&b, 1, "n");
    let mut at_a = Client::open(lay(a.address), 2, b"");
    assert_eq!(at_a.hear()["type"], "connected");
    at_a.announce("n");
    let data = format!(r#""{}""#, "x".repeat(200_000));
    at_a.hear_type("peer-discovered");
    at_b.hear_type("peer-discovered");
    for _ in 0..20 {
        at_b.offer(&id(2), "n", &data, "");
        assert_eq!(at_a.hear_type("offer")["data"].as_str().map(str::len), Some(200_000));
        at_a.offer(&id(1), "n", &data, "");
        assert_eq!(at_b.hear_type("offer")["data"].as_str().map(str::len), Some(200_000));
    }
    drop(at_b);
    assert_eq!(at_a.hear_type("peer-disconnected")["data"]["peerId"], id(1).as_str());

    let url = format!("wss://localhost:{}", a.address.port());
    let doubting = Hub::start(&[&meshed[..], &[("BOOTSTRAP_HUBS", &url)]].concat());
    let config = Arc::new(client_config(certificate));
    eventually("a link to an untrusted certificate is refused", || failures(a.address, &config, "tls-refused") > 0.0);
    eventually("the dialing hub shows the reason", || {
        doubting.get("/hubstats").contains("not signed by a known authority")
    });
}

#[test]
fn invalid_certificate_files_exit_with_64_and_a_reason() {
    let authority = Authority::new();
    let (good, other) = (authority.issue("good", 30), authority.issue("other", 30));
    for (pairs, expected) in [
        (vec![("TLS_CERT", &good.certificate)], "TLS_KEY (--tls-key): there are 1 certificate and 0 keys"),
        (vec![("TLS_KEY", &good.key)], "TLS_CERT (--tls-cert): there are 0 certificates and 1 key"),
        (vec![("TLS_CERT", &good.key), ("TLS_KEY", &good.key)], "has a private key and no certificate"),
        (vec![("TLS_CERT", &good.certificate), ("TLS_KEY", &other.key)], "does not match the certificate in"),
    ] {
        let mut hub = command(DEFAULTS);
        let out = hub.envs(pairs.iter().map(|(name, value)| (*name, value.as_str()))).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(64), "{said}");
        assert!(said.contains(expected), "{said}");
    }
    let expired = authority.issue("expired", -3);
    let hub = secure(&expired, &[]);
    assert!(hub.before_start.iter().any(|line| line.contains("expired 3 days ago")), "{:?}", hub.before_start);
}

#[test]
fn a_proxy_can_send_the_client_address_before_tls_begins() {
    let proxies = [("TRUSTED_PROXIES", "127.0.0.1"), ("PROXY_PROTOCOL", "PORT"), ("LOG_LEVEL", "shard=debug,info")];
    let hub = secure(common(), &proxies);
    let mut stream = connect(hub.address, &Arc::new(client_config(common())));
    stream.sock.write_all(b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n").unwrap();
    let request = upgrade(&format!("/ws?peerId={}", id(1)));
    stream.write_all(request.as_bytes()).unwrap();
    read_until(&mut stream, &mut Vec::new(), b"connected");
    drop(stream);
    let line = hub.logged("peer_disconnected");
    assert!(line.contains("[2001:db8::7]:56324"), "{line}");
}

#[test]
fn health_command_works_over_tls() {
    let hub = secure(common(), &[]);
    let port = hub.address.port().to_string();
    let env = [("HOST", "127.0.0.1"), ("PORT", &port), ("TLS_CERT", &common().certificate)];
    let out = command(&env).arg("health").output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let out = command(&env[..2]).arg("health").output().unwrap();
    assert!(!out.status.success(), "`health` without TLS must fail at a TLS port: {out:?}");
}

#[test]
fn certificates_can_be_replaced_without_losing_a_connection() {
    let authority = Authority::new();
    let served = authority.issue("served", 30);
    let mut hub = secure(&served, &[("SHARDS", "2"), ("DRAIN_SECS", "0")]);
    let config = Arc::new(client_config(&served));
    let upgraded = |n: u32| {
        let mut stream = connect(hub.address, &config);
        stream.write_all(upgrade(&format!("/ws?peerId={}", id(n))).as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.windows(9).any(|window| window == b"connected") {
            let mut more = [0; 4096];
            let read = stream.read(&mut more).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&more[..read]);
        }
        stream
    };
    let mut open: Vec<_> = (0..20).map(upgraded).collect();
    let shown = |stream: &TlsStream| stream.conn.peer_certificates().unwrap()[0].to_vec();
    let first = shown(&open[0]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut handshakes = 0;
            while !over.load(Ordering::Relaxed) {
                assert!(ask(hub.address, &config, GET).starts_with("HTTP/1.1 200"));
                handshakes += 1;
            }
            handshakes
        });
        for round in 1..=3 {
            authority.issue("served", 30 + round);
            hub.signal("-HUP");
            hub.logged("tls_certificates_read");
            // An invalid file is refused, and the hub continues to use the previous certificate.
            std::fs::write(&served.certificate, "nothing").unwrap();
            hub.signal("-HUP");
            hub.logged("tls_certificates_refused");
            eventually("the certificates in use are counted as stale", || {
                metric(hub.address, &config, "peerpigeon_tls_certificates_stale") == 1.0
            });
            let days = format!("peerpigeon_tls_certificate_days_left{{file=\"{}\"}}", served.certificate);
            let left = metric(hub.address, &config, &days);
            assert!((left - (30 + round) as f64).abs() < 0.1, "{left}");
        }
        over.store(true, Ordering::Relaxed);
        assert!(load.join().unwrap() > 10);
    });
    let fresh = upgraded(100);
    let mut strict = client_config(&served);
    strict.resumption = Resumption::disabled();
    let mut strict = connect(hub.address, &Arc::new(strict));
    strict.write_all(GET.as_bytes()).unwrap();
    strict.read_to_end(&mut Vec::new()).unwrap();
    assert_ne!(shown(&strict), first);
    drop(fresh);
    for stream in &mut open {
        stream.write_all(&frame(1, br#"{"type":"ping"}"#)).unwrap();
        let mut answer = [0; 512];
        let n = stream.read(&mut answer).unwrap();
        assert!(String::from_utf8_lossy(&answer[..n]).contains("pong"));
    }
    // The hub also finds changed files without a signal.
    authority.issue("served", 60);
    hub.logged("tls_certificates_read");
    eventually("the certificates in use are the files' certificates again", || {
        metric(hub.address, &config, "peerpigeon_tls_certificates_stale") == 0.0
    });
    let reloads =
        |outcome: &str| metric(hub.address, &config, &format!("peerpigeon_tls_reloads_total{{outcome=\"{outcome}\"}}"));
    assert!(reloads("taken") >= 4.0 && reloads("refused") >= 3.0);
    assert!(metric(hub.address, &config, "peerpigeon_tls_handshakes_total{kind=\"resumed\"}") > 0.0);
    drop(open);
    hub.signal("-TERM");
    assert_eq!(hub.wait().code(), Some(0));
}

#[test]
fn many_handshakes_at_once_do_not_delay_peers() {
    let hub = secure(common(), &[("SHARDS", "1")]);
    let address = lay(hub.address);
    let a = Client::open(address, 1, b"");
    let mut a = a;
    assert_eq!(a.hear()["type"], "connected");
    let hellos: Vec<Vec<u8>> = (0..400)
        .map(|_| {
            let config = Arc::new(client_config(common()));
            let mut hello = Vec::new();
            ClientConnection::new(config, ServerName::try_from("localhost").unwrap())
                .unwrap()
                .write_tls(&mut hello)
                .unwrap();
            hello
        })
        .collect();
    let mut crowd: Vec<_> = hellos.iter().map(|_| TcpStream::connect(hub.address).unwrap()).collect();
    for (stream, hello) in crowd.iter_mut().zip(&hellos) {
        stream.write_all(hello).unwrap();
    }
    // The hub must process 400 handshakes, and must serve peers at the same time.
    for _ in 0..20 {
        a.hears_nothing();
    }
    for stream in &mut crowd {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        assert!(stream.read(&mut [0; 100]).unwrap() > 0, "each handshake must get an answer");
    }
}
