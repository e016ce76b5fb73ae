//! Starts real redis-servers, each on its own port. Dropping a server kills it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use redis::{Connection, FromRedisValue};

/// Whether tests with Redis can run. If redis-server is not installed, the tests fail, or are skipped with
/// SKIP_REDIS_TESTS.
pub(super) fn is_installed() -> bool {
    if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_ok() {
        return true;
    }
    assert!(
        std::env::var_os("SKIP_REDIS_TESTS").is_some(),
        "redis-server is not on PATH: install it (Debian: redis-server), or set SKIP_REDIS_TESTS=1 to skip these tests"
    );
    false
}

pub(super) struct RedisServer {
    pub(super) port: u16,
    pub(super) dir: PathBuf,
    args: Vec<String>,
    process: Option<(Child, BufReader<ChildStdout>)>,
}

impl RedisServer {
    /// Starts a server with these additional options, and waits until it accepts connections. `{dir}` and `{port}`
    /// stand for the server's own directory and port.
    pub(super) fn start(options: &[&str]) -> Self {
        let mut server = Self::prepare(options);
        server.launch();
        server
    }

    /// A server that is not running.
    pub(super) fn prepare(options: &[&str]) -> Self {
        let port = free_port();
        // A directory in `target`. The test's binary is target/<profile>/deps/<binary>.
        let exe = std::env::current_exe().unwrap();
        let dir = exe.ancestors().nth(3).unwrap().join(format!("tmp/redis-{port}"));
        _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let mut args: Vec<String> = Vec::new();
        if !options.contains(&"--tls-port") {
            args.extend(["--port".to_owned(), port.to_string()]);
        }
        for arg in ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "{dir}"].iter().chain(options) {
            args.push(arg.replace("{dir}", &dir.display().to_string()).replace("{port}", &port.to_string()));
        }
        Self { port, dir, args, process: None }
    }

    /// Starts the server on its port, for the first time or again.
    pub(super) fn launch(&mut self) {
        self.run(self.args.clone(), "Ready to accept connections");
    }

    /// Starts a Redis Sentinel instead, with this configuration.
    pub(super) fn launch_as_sentinel(&mut self, file: &Path) {
        self.run(vec![file.display().to_string(), "--sentinel".to_owned()], "Sentinel ID is");
    }

    fn run(&mut self, args: Vec<String>, until: &str) {
        let mut child = Command::new("redis-server").args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains(until) {
            assert_ne!(log.read_line(&mut said).unwrap(), 0, "redis-server ended: {said}");
        }
        self.process = Some((child, log));
    }

    /// Kills the server with SIGKILL.
    pub(super) fn kill(&mut self) {
        if let Some((mut child, _)) = self.process.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends the server the signal with this name.
    pub(super) fn signal(&self, name: &str) {
        let pid = self.process.as_ref().unwrap().0.id();
        assert!(Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap().success());
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A separate client, for commands of an administrator.
    pub(super) fn admin(&self) -> Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// The answer to one administrator's command.
    pub(super) fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut cmd = redis::cmd(words.next().unwrap());
        for word in words {
            cmd.arg(word);
        }
        cmd.query(&mut self.admin()).unwrap()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        _ = fs::remove_dir_all(&self.dir);
    }
}

/// A free port. The port whose number is 10,000 higher is free, too. A node of a cluster uses that port for the traffic
/// between nodes. Both ports are below the range that the kernel uses for clients, so that no client takes these ports
/// while the server is down.
fn free_port() -> u16 {
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    loop {
        let port = 12_000 + (getrandom::u32().unwrap() % 10_000) as u16;
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
}

/// A node of a cluster, not connected to others yet.
pub(super) fn node() -> RedisServer {
    RedisServer::start(&[
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "1000",
        "--cluster-require-full-coverage",
        "no",
    ])
}

/// Three nodes that share the slots.
pub(super) fn cluster() -> [RedisServer; 3] {
    let nodes = [(); 3].map(|()| node());
    let addresses = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port));
    let made = Command::new("redis-cli")
        .args(["--cluster", "create"])
        .args(addresses)
        .args(["--cluster-replicas", "0", "--cluster-yes"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    nodes
}
