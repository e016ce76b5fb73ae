//! Tests of a hub that cannot write its log because of a full disk, a closed pipe or a stalled reader. The hub must
//! still serve and drain.

use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proto::limits::LOG_FLUSH_TIMEOUT;

use crate::client::{Client, frame};
use crate::hub::{DEADLINE, Hub, command};
use crate::ports::free_port;

/// A hub whose log the test does not read. Because the hub logs its port, the test must choose the port.
struct Silent {
    child: Child,
    address: SocketAddr,
}

fn start(stderr: Stdio, env: &[(&str, &str)]) -> Silent {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let port = address.port().to_string();
    let own = [("HOST", "127.0.0.1"), ("PORT", &port), ("SHARDS", "2"), ("MAX_CONNECTIONS", "3"), ("DRAIN_SECS", "3")];
    let child = command(&own).envs(env.iter().copied()).stderr(stderr).spawn().unwrap();
    let end = Instant::now() + DEADLINE;
    // The hub listens before it can handle signals of the system, and answers requests only after that. So an open port
    // does not prove that the hub is ready.
    let answer = || {
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "GET /livez HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")?;
        stream.read_to_end(&mut Vec::new())
    };
    while answer().is_err() {
        assert!(Instant::now() < end, "the hub does not answer");
        std::thread::yield_now();
    }
    Silent { child, address }
}

fn join(address: SocketAddr, n: u32, network: &str) -> Client {
    let mut client = Client::open(address, n, b"");
    assert_eq!(client.hear()["type"], "connected");
    client.announce(network);
    client
}

impl Silent {
    /// Checks that two peers reach each other, that the full hub refuses further peers, and that the hub exits with 0
    /// after SIGTERM. The hub logs each refusal.
    fn serves_and_drains(mut self, what: &str) {
        let mut a = join(self.address, 1, "n");
        let mut b = join(self.address, 2, "n");
        a.hear_type("peer-discovered");
        b.hear_type("peer-discovered");
        let mut c = join(self.address, 3, "m");
        c.say(r#"{"type":"ping"}"#);
        c.hear_type("pong");
        for n in 10..20 {
            assert_eq!(Client::open(self.address, n, b"").closed().0, 1008, "{what}");
        }
        a.offer(&b.id.clone(), "n", "null", "");
        assert_eq!(b.hear_type("offer")["fromPeerId"], a.id.as_str(), "{what}");
        self.signal();
        a.hear_type("go-away");
        assert_eq!(a.closed().0, 1012, "{what}");
        assert_eq!(b.closed().0, 1012, "{what}");
        self.wait(what);
    }

    /// Checks that the hub exits with 0 after SIGTERM.
    fn ends(mut self, what: &str) {
        self.signal();
        self.wait(what);
    }

    fn signal(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    fn wait(&mut self, what: &str) {
        let end = Instant::now() + DEADLINE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > end => panic!("{what}: the hub did not end"),
                None => std::thread::park_timeout(Duration::from_millis(10)),
            }
        };
        assert_eq!(status.code(), Some(0), "{what}");
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn a_full_disk_does_not_affect_peers() {
    for level in ["info", "trace"] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        start(full.into(), &[("LOG_LEVEL", level)]).serves_and_drains(level);
    }
}

#[test]
fn a_closed_log_pipe_does_not_affect_peers() {
    let (reader, writer) = std::io::pipe().unwrap();
    let hub = start(writer.into(), &[("LOG_LEVEL", "debug")]);
    drop(reader);
    hub.serves_and_drains("no reader");
}

/// Starts a hub whose log is a full pipe.
fn stalled(level: &str) -> (PipeReader, Silent) {
    let (reader, writer) = std::io::pipe().unwrap();
    // A pipe holds 64 KiB. Writing this data fills the pipe and then blocks.
    let mut filler = writer.try_clone().unwrap();
    std::thread::spawn(move || filler.write_all(&vec![b'.'; 1 << 20]));
    (reader, start(writer.into(), &[("LOG_LEVEL", level)]))
}

#[test]
fn a_stalled_log_reader_does_not_affect_peers() {
    let (_reader, hub) = stalled("trace");
    hub.serves_and_drains("stalled");
}

#[test]
fn dropped_log_lines_are_counted_and_queued_ones_arrive_later() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let hub = start(writer.into(), &[("LOG_LEVEL", "trace"), ("MAX_CONNECTIONS", "1000")]);
    let get = |path: &str| {
        let mut stream = TcpStream::connect(hub.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let metric = |name: &str| {
        let page = get("/metrics");
        let line = page.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    // Each message causes a log line of half a kilobyte.
    let network = "x".repeat(256);
    let said = ["announce", "goodbye"].map(|kind| format!(r#"{{"type":"{kind}","networkName":"{network}"}}"#));
    let burst: Vec<u8> = (0..1000).flat_map(|n| frame(1, said[n % 2].as_bytes())).collect();
    let end = Instant::now() + DEADLINE;
    // The rate limit keeps a single peer from filling the log, so several peers send.
    for n in 1.. {
        if metric("peerpigeon_log_lines_dropped_total") > 0.0 {
            break;
        }
        assert!(Instant::now() < end, "no log line was dropped");
        let mut peer = join(hub.address, n, "n");
        peer.raw(&burst);
        peer.say(r#"{"type":"ping"}"#);
        peer.hear_type("pong");
    }
    assert!(metric("peerpigeon_log_stalled_seconds") > 0.0);
    // The log contains the first lines, and after the gap a line with the number of dropped lines.
    let reading = std::thread::spawn(move || {
        let mut lines = BufReader::new(&mut reader).lines().map_while(Result::ok);
        let started = lines.find(|line| line.contains("server_started"));
        (started, lines.find(|line| line.contains("log_lines_dropped")))
    });
    let (started, dropped) = reading.join().unwrap();
    assert!(started.is_some());
    assert!(dropped.unwrap().contains("\"lines\":"));
    get("/livez");
}

#[test]
fn a_stopping_hub_waits_a_bounded_time_for_its_last_log_lines() {
    let mut hub = Hub::start(&[("LOG_LEVEL", "info"), ("DRAIN_SECS", "0")]);
    assert_eq!(hub.metric("peerpigeon_log_lines_dropped_total"), 0.0);
    assert_eq!(hub.metric("peerpigeon_log_stalled_seconds"), 0.0);
    hub.signal("-TERM");
    hub.wait();
    hub.logged("server_stopped");

    let (_reader, hub) = stalled("info");
    let asked = Instant::now();
    hub.ends("stalled");
    let took = asked.elapsed();
    assert!(took >= LOG_FLUSH_TIMEOUT, "{took:?}");
}

#[test]
fn tools_exit_quietly_when_their_output_is_closed() {
    for args in [&["--print-config"][..], &["--help"], &["generate-peer-ids", "-n", "100000"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let run = command(&[]).args(args).stdout(writer).output().unwrap();
        assert_eq!((run.status.code(), run.stderr.as_slice()), (Some(0), &b""[..]), "{args:?}");
    }
    // These tools fail, and cannot write their error message because stderr is closed.
    for args in [
        &["peer", "--hub", "ws://127.0.0.1:1"][..],
        &["load-test", "--hub", "ws://127.0.0.1:1", "--peers", "1", "--duration", "1"],
        &["health", "--port", "1"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = command(&[]).args(args).stdout(Stdio::null()).stderr(writer).spawn().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{args:?}");
    }
}
