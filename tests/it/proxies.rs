//! Tests of clients behind proxies. The hub must use a client address only if a trusted proxy sends it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::client::{Client, id, upgrade};
use crate::door::status;
use crate::hub::{DEADLINE, Hub, command};

/// Connects from the given address of this machine. Returns `None` if the machine has no such address.
pub fn connect_from(address: [u8; 4], hub: SocketAddr) -> Option<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).ok()?;
    socket.connect(&hub.into()).ok()?;
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    Some(stream)
}

const PROXY: [u8; 4] = [127, 0, 0, 2];

/// Sends `before` and a handshake with the headers `headers` over a connection, and returns the answer.
fn asks(mut stream: TcpStream, before: &[u8], headers: &str) -> String {
    let request =
        upgrade(&format!("/ws?peerId={}", id(1))).replace("Host: hub\r\n", &format!("Host: hub\r\n{headers}"));
    stream.write_all(&[before, request.as_bytes()].concat()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => answer.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8(answer).unwrap()
}

/// The address in the log line of the peer that has just left.
fn logged_address(hub: &Hub) -> String {
    let line = hub.logged("peer_disconnected");
    let address = line.split(r#""address":""#).nth(1).unwrap_or_else(|| panic!("{line}"));
    address.split('"').next().unwrap().to_owned()
}

#[test]
fn only_trusted_proxies_can_name_their_clients() {
    let hub = Hub::start(&[("TRUSTED_PROXIES", "127.0.0.2,10.0.0.0/8"), ("LOG_LEVEL", "shard=debug,info")]);
    let Some(stream) = connect_from(PROXY, hub.address) else { return };
    drop(stream);
    let (xff, rfc) = ("X-Forwarded-For: 1.2.3.4, 203.0.113.9, 10.0.0.1\r\n", "Forwarded: for=\"203.0.113.9:77\"\r\n");
    for (from, headers, address) in [
        (PROXY, xff, "203.0.113.9:0"),
        (PROXY, rfc, "203.0.113.9:77"),
        (PROXY, "", "127.0.0.2:"),
        ([127, 0, 0, 3], xff, "127.0.0.3:"),
        ([127, 0, 0, 1], rfc, "127.0.0.1:"),
    ] {
        let answer = asks(connect_from(from, hub.address).unwrap(), b"", headers);
        assert_eq!(status(&answer), "101", "{from:?} {headers}");
        let logged = logged_address(&hub);
        assert!(logged.starts_with(address), "{from:?} {headers}: {logged}");
    }
    let unclear = format!("{}Forwarded: for=1.2.3.4\r\nConnection: close\r\n", "X-Forwarded-For: 203.0.113.9\r\n");
    assert_eq!(status(&asks(connect_from(PROXY, hub.address).unwrap(), b"", &unclear)), "400");
    assert_eq!(
        status(&asks(connect_from([127, 0, 0, 3], hub.address).unwrap(), b"", &unclear)),
        "101",
        "only a trusted proxy's headers count"
    );
    hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="forwarded"}"#, |n| n == 1.0);
    assert!(hub.logged("proxy_refused").contains("the proxy must delete the header"));
}

#[test]
fn only_trusted_proxies_send_proxy_heads() {
    let env = [("TRUSTED_PROXIES", "127.0.0.2"), ("PROXY_PROTOCOL", "PORT"), ("LOG_LEVEL", "shard=debug,info")];
    let hub = Hub::start(&env);
    let Some(stream) = connect_from(PROXY, hub.address) else { return };
    drop(stream);
    let v1 = b"PROXY TCP4 203.0.113.9 198.51.100.1 56324 443\r\n";
    let v2 =
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[203, 0, 113, 9, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb]].concat();
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for (head, headers, address) in [
        (&v1[..], "", "203.0.113.9:56324"),
        (&v2, "", "203.0.113.9:56324"),
        // The client in the PROXY head is not a trusted proxy, so its own headers are ignored.
        (&v2, "X-Forwarded-For: 1.2.3.4\r\n", "203.0.113.9:56324"),
        (local, "", "127.0.0.2:"),
    ] {
        let answer = asks(connect_from(PROXY, hub.address).unwrap(), head, headers);
        assert_eq!(status(&answer), "101", "{head:?}");
        let logged = logged_address(&hub);
        assert!(logged.starts_with(address), "{head:?}: {logged}");
    }
    // The hub closes a connection of a trusted proxy without a complete PROXY head. The hub accepts no PROXY head from
    // an address that is not a trusted proxy.
    assert_eq!(asks(connect_from(PROXY, hub.address).unwrap(), b"", ""), "");
    assert_eq!(asks(connect_from(PROXY, hub.address).unwrap(), b"PROXY TCP4 203.0.113.9\r\n", ""), "");
    hub.metric_becomes(r#"peerpigeon_handshake_failures_total{reason="proxy-head"}"#, |n| n == 2.0);
    let line = hub.logged("proxy_refused");
    assert!(line.contains("127.0.0.2:") && line.contains("send-proxy-v2"), "{line}");
    for head in [&v1[..], &v2] {
        let answer = asks(connect_from([127, 0, 0, 3], hub.address).unwrap(), head, "");
        assert!(!answer.starts_with("HTTP/1.1 101"), "{answer}");
    }
    assert_eq!(status(&asks(connect_from([127, 0, 0, 3], hub.address).unwrap(), b"", "")), "101");
    _ = Client::join(&hub, 2, "n");
}

#[test]
fn the_health_command_works_at_a_port_that_expects_a_proxy_head() {
    let trust = [("PROXY_PROTOCOL", "PORT"), ("TRUSTED_PROXIES", "127.0.0.0/8")];
    let hub = Hub::start(&trust);
    let port = hub.address.port().to_string();
    let env = [&[("HOST", "127.0.0.1"), ("PORT", &*port)][..], &trust].concat();
    let out = command(&env).arg("health").output().unwrap();
    assert!(out.status.success(), "{out:?}");
    // With these settings, the address of the command is not a trusted proxy, so the hub would refuse a PROXY head.
    let trust = [("PROXY_PROTOCOL", "PORT"), ("TRUSTED_PROXIES", "10.0.0.1")];
    let hub = Hub::start(&trust);
    let port = hub.address.port().to_string();
    let env = [&[("HOST", "127.0.0.1"), ("PORT", &*port)][..], &trust].concat();
    let out = command(&env).arg("health").output().unwrap();
    assert!(out.status.success(), "{out:?}");
}
