//! Tests of sockets that a supervisor such as systemd has opened for the hub, and of HTTP_REDIRECT_PORT.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use crate::admin::free_port;
use crate::client::{Client, id, upgrade};
use crate::door::{body, status};
use crate::hub::{DEFAULTS, Hub, command};
use crate::mesh::eventually;
use crate::wire::{self, Certificate};

/// The command for a hub that inherits one or two sockets from its supervisor. The shell receives the sockets as its
/// standard input and output, and passes them to the hub as file descriptors 3 and 4.
fn handed(sockets: &[&TcpListener]) -> Command {
    let file = |socket: &TcpListener| Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
    let mut shell = Command::new("sh");
    let also = if sockets.len() == 2 { "4>&1" } else { "" };
    let script = format!("LISTEN_PID=$$ LISTEN_FDS={} exec \"$0\" 3<&0 {also} </dev/null >/dev/null", sockets.len());
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_peerpigeon")]).stdin(file(sockets[0]));
    if let Some(second) = sockets.get(1) {
        shell.stdout(file(second));
    }
    shell.env_clear().envs(DEFAULTS.iter().copied());
    shell
}

fn socket() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    (listener, port)
}

#[test]
fn a_hub_uses_the_sockets_of_its_supervisor() {
    for shards in ["1", "3"] {
        let ((peers, port), (admin, admin_port)) = (socket(), socket());
        // The hub itself could not listen at HOST, which is not an address of this machine.
        let mut command = handed(&[&peers, &admin]);
        command.envs([("HOST", "192.0.2.1"), ("PORT", &*port), ("ADMIN_PORT", &admin_port), ("SHARDS", shards)]);
        let mut hub = Hub::run(&mut command, [127, 0, 0, 1]);
        assert_eq!(hub.address, peers.local_addr().unwrap());
        let mut first = Client::join(&hub, 1, "n");
        // Each shard accepts from the same socket.
        let others: Vec<_> = (2..20).map(|n| Client::join(&hub, n, "n")).collect();
        for _ in &others {
            first.hear_type("peer-discovered");
        }
        hub.address = admin.local_addr().unwrap();
        assert_eq!(status(&hub.get("/metrics")), "200");
        hub.signal("-TERM");
        drop((first, others));
        assert_eq!(hub.wait().code(), Some(0));

        // The sockets stay open after the end of the hub. A client that connects then waits for the next hub.
        let address = peers.local_addr().unwrap();
        let waiting = std::thread::spawn(move || Client::open(address, 50, b""));
        let mut command = handed(&[&peers]);
        command.envs([("PORT", &*port), ("SHARDS", shards)]);
        let hub = Hub::run(&mut command, [127, 0, 0, 1]);
        let mut client = waiting.join().unwrap();
        assert_eq!(client.hear()["type"], "connected");
        hub.metric_becomes("peerpigeon_connections", |n| n == 1.0);
    }
}

#[test]
fn a_socket_that_no_setting_names_ends_the_hub_with_64() {
    let ((peers, port), (other, other_port)) = (socket(), socket());
    let output = handed(&[&peers, &other]).env("PORT", &port).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains(&format!("a socket at 127.0.0.1:{other_port}")) && said.contains("socket unit"), "{said}");
    // With Accept=yes, systemd passes connections instead of listening sockets.
    let connection = TcpStream::connect(peers.local_addr().unwrap()).unwrap();
    let connection = TcpListener::from(OwnedFd::from(connection));
    let output = handed(&[&connection]).env("PORT", &port).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("socket 0 of the supervisor (LISTEN_FDS) is not a listening TCP socket"), "{said}");
}

/// The value of a header of an answer.
fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let mut lines = answer.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
}

#[test]
fn the_redirect_port_redirects_to_the_port_with_tls() {
    let Certificate { certificate, key, .. } = wire::common();
    let (port, redirect) = (free_port(), free_port());
    let tls = [("PORT", &*port), ("TLS_CERT", certificate), ("TLS_KEY", key), ("HTTP_REDIRECT_PORT", &redirect)];
    let mut hub = Hub::start(&[&tls[..], &[("AUTH_TOKEN", "t")]].concat());
    assert!(hub.started.contains(&format!(r#""redirect_at":{redirect}"#)), "{}", hub.started);
    let secure = std::mem::replace(&mut hub.address, SocketAddr::from(([127, 0, 0, 1], redirect.parse().unwrap())));
    for path in ["/", "/metrics?format=json", "/livez", "/admin", "/client.js"] {
        let answer = hub.get(path);
        assert_eq!(status(&answer), "308", "{answer}");
        assert_eq!(header(&answer, "location"), format!("https://hub:{port}{path}"));
        assert_eq!(body(&answer), format!("this port only redirects to the one with TLS: use https://hub:{port}\n"));
        assert_eq!(
            (header(&answer, "cache-control"), header(&answer, "x-content-type-options")),
            ("no-store", "nosniff")
        );
    }
    // A client without TLS gets a redirect and does not become a peer.
    let answer = hub.http(&upgrade(&format!("/ws?peerId={}&token=t", id(1))));
    let location = header(&answer, "location");
    assert!(status(&answer) == "308" && location.starts_with(&format!("wss://hub:{port}/ws?peerId=")), "{answer}");
    assert!(!body(&answer).contains("token="), "{answer}");
    let post = "POST /admin/drain HTTP/1.1\r\nHost: hub\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(status(&hub.http(post)), "400");
    // The second request on a connection gets no answer.
    let twice = hub.http(&"GET / HTTP/1.1\r\nHost: hub\r\n\r\n".repeat(2));
    assert_eq!(twice.matches("HTTP/1.1 308").count(), 1, "{twice}");
    let config = std::sync::Arc::new(wire::client_config(wire::common()));
    let metrics = "GET /metrics HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n";
    eventually("the peer without TLS is counted", || {
        crate::tls::ask(secure, &config, metrics)
            .contains("peerpigeon_handshake_failures_total{reason=\"wrong-port\"} 1\n")
    });
}

/// The environment variables of the hub in a Compose file, with `name` as the name of the hub.
fn compose(file: &str, name: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let lines = text.lines().skip_while(|line| line.trim() != "environment:").skip(1);
    let own = lines.take_while(|line| line.starts_with("      ")).filter_map(|line| line.trim().split_once(": "));
    own.filter(|(key, _)| !key.starts_with('#'))
        .map(|(key, value)| (key.to_owned(), value.trim_matches('"').replace("${NAME}", name)))
        .collect()
}

#[test]
fn the_compose_file_with_tls_redirects_to_the_published_port() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/compose-tls.yml")).unwrap();
    let env = compose("deploy/compose-tls.yml", "hub.example");
    let of = |key: &str| env.iter().find(|(known, _)| known == key).unwrap_or_else(|| panic!("no {key}")).1.clone();
    for (published, setting) in [("443", "PORT"), ("80", "HTTP_REDIRECT_PORT")] {
        let mapped = format!("- \"{published}:{}\"", of(setting));
        assert!(text.contains(&mapped), "no {mapped}");
    }
    let Certificate { certificate, key, .. } = wire::common();
    let redirect = free_port();
    let url = of("PUBLIC_URL");
    let tls = [("TLS_CERT", &**certificate), ("TLS_KEY", key), ("HTTP_REDIRECT_PORT", &redirect), ("PUBLIC_URL", &url)];
    let mut hub = Hub::start(&tls);
    hub.address.set_port(redirect.parse().unwrap());
    assert_eq!(header(&hub.get("/x"), "location"), "https://hub/x");
    assert!(body(&hub.get("/x")).ends_with("use https://hub\n"));
}

#[test]
fn a_port_that_redirects_has_the_limits_of_other_ports() {
    let Certificate { certificate, key, .. } = wire::common();
    let redirect = free_port();
    let tls = [("TLS_CERT", &**certificate), ("TLS_KEY", key), ("HTTP_REDIRECT_PORT", &redirect)];
    let limits = [("MAX_UNFINISHED_PER_ADDRESS", "2"), ("SHARDS", "1")];
    let mut hub = Hub::start(&[&tls[..], &limits].concat());
    hub.address.set_port(redirect.parse().unwrap());
    let silent = [(); 2].map(|()| TcpStream::connect(hub.address).unwrap());
    let refused = hub.get("/");
    assert!(status(&refused) == "503" && refused.contains("MAX_UNFINISHED_PER_ADDRESS"), "{refused}");
    drop(silent);
    eventually("the port accepts connections again", || status(&hub.get("/")) == "308");
}

#[test]
fn a_port_that_redirects_needs_a_port_with_tls() {
    let Certificate { certificate, key, .. } = wire::common();
    let tls = [("TLS_CERT", &**certificate), ("TLS_KEY", key)];
    for (env, says) in [
        (&[("HTTP_REDIRECT_PORT", "80")][..], "PORT does not speak TLS"),
        (&[tls[0], tls[1], ("PORT", "8443"), ("HTTP_REDIRECT_PORT", "8443")], "8443 is also PORT"),
        (&[tls[0], tls[1], ("TLS_PORTS", "ADMIN_PORT"), ("HTTP_REDIRECT_PORT", "80")], "PORT does not speak TLS"),
    ] {
        let output = command(env).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains("HTTP_REDIRECT_PORT (--http-redirect-port): ") && said.contains(says), "{said}");
    }
}
