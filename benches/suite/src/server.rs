//! The servers under test, as separate processes. If the machine has enough cores, they use other cores than the
//! generator.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::machine::{self, Cores, Cpu};
use crate::secure;
use crate::swarm::Seat;

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The hub.
    Hub,
    /// The yardstick: a relay without any logic.
    Yardstick,
    /// The baseline: the usual design.
    Baseline,
    /// The hub with TLS.
    HubWithTls,
    /// nginx with TLS in front of the hub.
    NginxAndHub,
}

impl Kind {
    /// The name in results.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Yardstick => "yardstick",
            Self::Baseline => "baseline",
            Self::HubWithTls => "hub with TLS",
            Self::NginxAndHub => "nginx and hub",
        }
    }

    /// Whether clients use TLS.
    pub(crate) fn is_secure(self) -> bool {
        matches!(self, Self::HubWithTls | Self::NginxAndHub)
    }

    /// Whether the server implements the protocol between clients and hubs. The yardstick does not.
    pub(crate) fn is_hub(self) -> bool {
        self != Self::Yardstick
    }
}

/// Parameters for starting servers.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The hub's program.
    hub: PathBuf,
    /// The machine's cores.
    cores: Cores,
    /// Number of shards of a hub. Every server gets this number of cores.
    shards: usize,
    /// Whether the generator has its own core, and therefore does not sleep.
    pub(crate) spin: bool,
    /// Maximum number of connections, according to the limit of open files.
    pub(crate) most_connections: usize,
    /// Additional environment variables of a hub.
    pub(crate) env: Vec<(&'static str, String)>,
}

impl Setup {
    /// Binds this thread to the generator's core. By default, the hub's program is in the folder of this program.
    pub(crate) fn new(hub: Option<PathBuf>, shards: usize) -> io::Result<Self> {
        const FILES_OF_OUR_OWN: u64 = 500;
        let cores = Cores::found()?;
        let hub = match hub {
            Some(hub) => hub,
            None => std::env::current_exe()?.with_file_name("peerpigeon"),
        };
        let files = machine::raise_file_limit()?;
        machine::pin(&cores.generator())?;
        let most_connections = files.saturating_sub(FILES_OF_OUR_OWN) as usize;
        let setup = Self { hub, cores, shards, spin: true, most_connections, env: Vec::new() };
        Ok(setup.with_shards(shards))
    }

    /// The same setup with this number of shards.
    pub(crate) fn with_shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self.spin = self.cores.count() > shards;
        self
    }

    /// The same setup with an additional variable.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    /// Whether the hub has a setting of this name.
    pub(crate) fn knows(&self, setting: &str) -> bool {
        let output = Command::new(&self.hub).args(["serve", "--help"]).output();
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(setting))
    }
}

/// A running server. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// The hub behind this server, if this server is a proxy.
    behind: Option<Box<Server>>,
    /// The port on 127.0.0.1.
    pub(crate) port: u16,
    /// The kind of the server.
    pub(crate) kind: Kind,
}

impl Server {
    /// Starts a server and waits until it answers.
    pub(crate) fn start(kind: Kind, setup: &Setup) -> io::Result<Self> {
        // The kernel picks a free port. If another process takes this port first, the server ends with an error.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut behind = None;
        let mut command = match kind {
            Kind::Hub => hub(setup, port),
            Kind::HubWithTls => {
                let secure::Certificate { certificate, key, .. } = secure::certificate()?;
                let mut command = hub(setup, port);
                command.envs([("TLS_CERT", certificate), ("TLS_KEY", key)]);
                command
            }
            Kind::NginxAndHub => {
                let hub = behind.insert(Box::new(Self::start(Kind::Hub, setup)?));
                let place = &secure::certificate()?.place;
                let mut command = Command::new("nginx");
                command.arg("-p").arg(place).arg("-c");
                command.arg(secure::nginx(port, hub.port, setup.most_connections.min(20_000), place)?);
                command
            }
            Kind::Yardstick | Kind::Baseline => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args([kind.label(), "--port", &port.to_string()]);
                if kind == Kind::Baseline {
                    command.args(["--workers", "2"]);
                }
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // A child process inherits the cores of the thread that starts it.
        machine::pin(&setup.cores.server(setup.shards))?;
        let child = command.spawn();
        machine::pin(&setup.cores.generator())?;
        let program = command.get_program().to_string_lossy().into_owned();
        let child = child.map_err(|error| io::Error::other(format!("{program}: {error}")))?;
        let mut server = Self { child, behind, port, kind };
        server.wait()?;
        Ok(server)
    }

    fn wait(&mut self) -> io::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(20);
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!(
                    "the {} ended right after its start: {status}",
                    self.kind.label()
                )));
            }
            let ready = match self.kind {
                Kind::Hub => self.get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")),
                Kind::Yardstick | Kind::Baseline | Kind::HubWithTls | Kind::NginxAndHub => {
                    TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
                }
            };
            if ready {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(io::Error::other(format!("the {} does not answer", self.kind.label())))
    }

    /// Requests a page of the server, and returns it with its head.
    pub(crate) fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The id of the server's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The id of the server's process, and the id of the process of the hub behind the server, if there is one.
    pub(crate) fn pids(&self) -> Vec<u32> {
        std::iter::once(self.pid()).chain(self.behind.as_ref().map(|hub| hub.pid())).collect()
    }

    /// CPU time used so far.
    pub(crate) fn cpu(&self) -> io::Result<Cpu> {
        Cpu::of(&self.pids())
    }

    /// Resident memory.
    pub(crate) fn rss(&self) -> io::Result<u64> {
        self.pids().into_iter().map(machine::rss).sum()
    }

    /// A seat for this peer at this server.
    pub(crate) fn seat(&self, peer: usize, group: usize) -> Seat {
        Seat { port: self.port, peer, group, welcomed: self.kind.is_hub(), secure: self.kind.is_secure() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The command that starts a hub, with limits that no scenario reaches.
fn hub(setup: &Setup, port: u16) -> Command {
    let mut command = Command::new(&setup.hub);
    command.arg("serve").env_clear().envs([
        ("HOST", "127.0.0.1".to_owned()),
        ("PORT", port.to_string()),
        ("SHARDS", setup.shards.to_string()),
        ("MAX_CONNECTIONS", setup.most_connections.to_string()),
        ("MAX_CONNECTIONS_PER_ADDRESS", "0".to_owned()),
        ("MAX_UNFINISHED_PER_ADDRESS", "0".to_owned()),
        ("CONNECT_RATE_PER_ADDRESS", "0".to_owned()),
        ("CONNECT_RATE", "0".to_owned()),
        ("MESSAGE_RATE", "1000000".to_owned()),
        ("MESSAGE_RATE_BYTES", "1073741824".to_owned()),
        ("ANNOUNCE_RATE_BYTES", "1073741824".to_owned()),
        ("EVENT_RATE_BYTES", "1073741824".to_owned()),
        ("DISCOVER_RATE", "1000000".to_owned()),
        ("NETWORK_BUDGETS", "0".to_owned()),
        ("LOG_LEVEL", "warn".to_owned()),
    ]);
    command.envs(setup.env.iter().map(|(name, value)| (*name, value.as_str())));
    command
}
