//! Runs a hub as a separate process with its own port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::wire::{self, Certificate};

/// Deadline for every expected event.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct Hub {
    child: Child,
    pub address: SocketAddr,
    log: mpsc::Receiver<String>,
    /// The log lines that the hub wrote before it listened.
    pub before_start: Vec<String>,
    /// The log line with the address at which the hub listens.
    pub started: String,
}

/// Settings of every hub of these tests. Most tests open many connections from one address, so the limits per address
/// and the total rate of connections are disabled here. `flood.rs` tests these limits.
pub const DEFAULTS: &[(&str, &str)] = &[
    ("HOST", "127.0.0.1"),
    ("PORT", "0"),
    ("SHARDS", "2"),
    ("LOG_FORMAT", "json"),
    ("MAX_CONNECTIONS_PER_ADDRESS", "0"),
    ("MAX_UNFINISHED_PER_ADDRESS", "0"),
    ("CONNECT_RATE_PER_ADDRESS", "0"),
    ("CONNECT_RATE", "0"),
];

pub fn command(env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peerpigeon"));
    command.env_clear().envs(env.iter().copied());
    command
}

impl Hub {
    /// Starts a hub and waits until it listens.
    pub fn start(env: &[(&str, &str)]) -> Self {
        let mut command = command(DEFAULTS);
        if !wire::is_over_tls() {
            return Self::run(command.envs(env.iter().copied()), [127, 0, 0, 1]);
        }
        let Certificate { certificate, key, .. } = wire::common();
        command.envs([("TLS_CERT", certificate), ("TLS_KEY", key)]).envs(env.iter().copied());
        let mut hub = Self::run(&mut command, [127, 0, 0, 1]);
        hub.address = wire::lay(hub.address);
        hub
    }

    /// Starts a hub in a network namespace. Clients connect to it at this address.
    pub fn start_in(namespace: &str, address: [u8; 4], env: &[(&str, &str)]) -> Self {
        let mut enter = Command::new("ip");
        enter.args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_peerpigeon")]);
        enter.envs(DEFAULTS.iter().copied()).envs(env.iter().copied());
        Self::run(&mut enter, address)
    }

    pub fn run(command: &mut Command, address: [u8; 4]) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the hub starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (lines, log) = mpsc::sync_channel(10_000);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                _ = lines.try_send(line);
            }
        });
        let mut hub =
            Self { child, address: (address, 0).into(), log, before_start: Vec::new(), started: String::new() };
        let (started, before) = hub.logged_after("server_started");
        hub.before_start = before;
        let listening = started.split("\"listening\":\"").nth(1).expect("an address");
        let port: String =
            listening.chars().skip_while(|c| *c != ':').skip(1).take_while(char::is_ascii_digit).collect();
        hub.address.set_port(port.parse().expect("a port"));
        hub.started = started;
        hub
    }

    /// Waits for a line of the log that contains `event`.
    pub fn logged(&self, event: &str) -> String {
        self.logged_after(event).0
    }

    /// Like [`Self::logged`]. Also returns the lines before that line.
    pub fn logged_after(&self, event: &str) -> (String, Vec<String>) {
        let end = Instant::now() + DEADLINE;
        let mut seen = Vec::new();
        while let Ok(line) = self.log.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if line.contains(event) {
                return (line, seen);
            }
            seen.push(line);
        }
        panic!("the hub did not log {event}, but {seen:#?}");
    }

    /// Returns all remaining log lines of a hub that has ended.
    pub fn rest_of_the_log(&self) -> Vec<String> {
        std::iter::from_fn(|| self.log.recv_timeout(DEADLINE).ok()).collect()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("waited for")
    }

    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.child.try_wait().expect("waited for") {
                Some(status) => return status,
                None if Instant::now() > end => panic!("the hub did not end"),
                // std has no wait with a deadline.
                None => std::thread::park_timeout(Duration::from_millis(10)),
            }
        }
    }

    /// The answer to a GET, head and body.
    pub fn get(&self, path: &str) -> String {
        self.http(&format!("GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n"))
    }

    pub fn http(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).expect("connects");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream.write_all(request.as_bytes()).expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// The answer to a GET. A hub with too many unfinished requests may close the connection of the GET. Then the
    /// request is sent again.
    pub fn get_in_a_crowd(&self, path: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let mut stream = TcpStream::connect(self.address).expect("connects");
            stream.set_read_timeout(Some(DEADLINE)).expect("set");
            let mut answer = String::new();
            let request = format!("GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n");
            match stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer)) {
                Ok(_) if !answer.is_empty() => return answer,
                done => assert!(Instant::now() < end, "{path}: {done:?}"),
            }
        }
    }

    /// The head of the answer to a request. This function does not wait for the end of the connection.
    pub fn begins(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).expect("connects");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream.write_all(request.as_bytes()).expect("written");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            answer.extend(byte);
        }
        String::from_utf8(answer).expect("text")
    }

    /// The value of one series of /metrics; 0 if it does not exist.
    pub fn metric(&self, series: &str) -> f64 {
        let page = self.get_in_a_crowd("/metrics");
        let line = page.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
    }

    /// Waits until the value of a series satisfies the condition.
    pub fn metric_becomes(&self, series: &str, will_do: impl Fn(f64) -> bool) -> f64 {
        let end = Instant::now() + DEADLINE;
        loop {
            let value = self.metric(series);
            if will_do(value) {
                return value;
            }
            assert!(Instant::now() < end, "{series} stays at {value}\n{}", self.get("/metrics"));
        }
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> u64 {
        let pid = self.child.id().to_string();
        let said = Command::new("ps").args(["-o", "rss=", "-p", &pid]).output().expect("ps runs");
        String::from_utf8_lossy(&said.stdout).trim().parse::<u64>().expect("KiB of the process") * 1024
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- remaining log of {}:", self.address);
            self.log.try_iter().for_each(|line| eprintln!("{line}"));
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
