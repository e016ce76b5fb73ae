//! The I/O between hubs: links over WebSockets, and Redis as an optional bridge.
//!
//! A shell: it takes letters and sockets and does nothing with them. Its seam is [`proto::Address::Mesh`]: shards post letters
//! to it as they do to each other, and it posts theirs to shards; `src/` introduces the two. It never knows of sessions, and
//! shards never know of links.
#![allow(missing_docs, reason = "a stand-in of which only the form counts")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use proto::{HubId, HubView, Letter, LinkId, Now, RelayConfig, RelayStats};
use tokio::sync::{mpsc, oneshot, watch};

pub struct MeshConfig {
    pub relay: RelayConfig,
    pub token: Option<Arc<str>>,
    pub bootstrap: Vec<Uri>,
    pub dns: Option<(String, u16)>,
    pub dns_tls: bool,
    pub extra_roots: Option<Arc<[u8]>>,
    pub legacy: Vec<String>,
    pub max_message_bytes: usize,
    pub redis: Option<BridgeConfig>,
    pub clock: Arc<dyn Fn() -> Now + Send + Sync>,
    pub port: u16,
}

pub struct BridgeConfig {
    pub url: String,
    pub namespace: String,
    pub hub: HubId,
    pub token: Option<Arc<str>>,
    pub extra_roots: Option<Arc<[u8]>>,
}

#[derive(Debug)]
pub struct LinkSocket {
    pub stream: std::net::TcpStream,
    pub leftover: bytes::Bytes,
    pub address: SocketAddr,
    pub hub: HubId,
    pub legacy: bool,
}

#[derive(Clone, Debug, Default)]
pub struct MeshReading {
    pub relay: RelayStats,
    pub hubs: Vec<HubView>,
    pub links: Vec<LinkView>,
    pub dials: Vec<DialView>,
    pub io: LinkStats,
    pub bridge: Option<BridgeView>,
    pub busy_micros: u64,
}

#[derive(Clone, Debug)]
pub struct LinkView {
    pub link: LinkId,
    pub hub: HubId,
    pub address: String,
    pub dialed: bool,
    pub rtt: Option<Duration>,
    pub queued_bytes: usize,
    pub saturated: bool,
    pub legacy: bool,
    pub since: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DialSource {
    Advertised,
    Bootstrap,
    Dns,
}

impl DialSource {
    pub const fn label(self) -> &'static str {
        match self {
            Self::Advertised => "advertised",
            Self::Bootstrap => "bootstrap",
            Self::Dns => "dns",
        }
    }
}

#[derive(Clone, Debug)]
pub struct DialView {
    pub uri: String,
    pub source: DialSource,
    pub attempt_number: u32,
    pub connected: bool,
    pub last_attempt: u64,
    pub last_error: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkEnd {
    ClosedByOther,
    DoubleLink,
    Draining,
    Lost,
    Malformed,
    Refused,
    Replaced,
    SelfLink,
    Silent,
    TooSlow,
}

impl LinkEnd {
    pub const ALL: [Self; 10] = [
        Self::ClosedByOther,
        Self::DoubleLink,
        Self::Draining,
        Self::Lost,
        Self::Malformed,
        Self::Refused,
        Self::Replaced,
        Self::SelfLink,
        Self::Silent,
        Self::TooSlow,
    ];

    pub const fn label(self) -> &'static str {
        match self {
            Self::ClosedByOther => "closed-by-other",
            Self::DoubleLink => "double-link",
            Self::Draining => "draining",
            Self::Lost => "lost",
            Self::Malformed => "malformed",
            Self::Refused => "refused",
            Self::Replaced => "replaced",
            Self::SelfLink => "self-link",
            Self::Silent => "silent",
            Self::TooSlow => "too-slow",
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct LinkStats {
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub frames_in: u64,
    pub frames_out: u64,
    pub writes: u64,
    pub opened: u64,
    pub refused: u64,
    pub saturations: u64,
    pub dials: u64,
    pub dial_failures: u64,
    pub ended: [u64; LinkEnd::ALL.len()],
}

#[derive(Clone, Debug, Default)]
pub struct BridgeView {
    pub connected: bool,
    pub published: u64,
    pub received: u64,
    pub bytes_out: u64,
    pub bytes_in: u64,
    pub refused: u64,
    pub errors: u64,
    pub reconnects: u64,
    pub last_error: Option<String>,
    pub address: String,
}

#[derive(Debug)]
pub struct MeshHandle {
    _stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl MeshHandle {
    pub fn draining(&self) {}

    #[expect(clippy::unused_async, reason = "the real one waits")]
    pub async fn end(self) {
        drop(self._stop);
        _ = self.thread.join();
    }
}

pub fn start(
    _config: MeshConfig,
    shards: Vec<mpsc::Sender<Vec<Letter>>>,
    mut mailbox: mpsc::Receiver<Vec<Letter>>,
    mut sockets: mpsc::Receiver<LinkSocket>,
    publish: watch::Sender<Arc<MeshReading>>,
    ended: impl FnOnce() + Send + 'static,
) -> io::Result<MeshHandle> {
    let (stop, mut stopped) = oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let thread = std::thread::Builder::new().name("mesh".into()).spawn(move || {
        let _held = (shards, publish);
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = &mut stopped => break,
                    Some(_) = mailbox.recv() => {}
                    Some(_) = sockets.recv() => {}
                }
            }
        });
        ended();
    })?;
    Ok(MeshHandle { _stop: stop, thread })
}
