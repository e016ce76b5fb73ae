//! The I/O between hubs: links over WebSockets, and Redis as an optional bridge.
//!
//! A shell: it takes letters and sockets and does nothing with them. Its seam is [`proto::Address::Mesh`]: shards post letters
//! to it as they do to each other, and it posts theirs to shards; `src/` introduces the two. It never knows of sessions, and
//! shards never know of links.
#![allow(dead_code, missing_docs, reason = "a stand-in of which only the form counts")]

mod bridge {
    use std::sync::Arc;

    use proto::HubId;

    pub struct BridgeConfig {
        pub url: String,
        pub namespace: String,
        pub hub: HubId,
        pub token: Option<Arc<str>>,
        pub extra_roots: Option<Arc<[u8]>>,
    }

    #[derive(Clone, Debug, Default)]
    pub struct BridgeView {
        pub connected: bool,
        pub published: u64,
        pub received: u64,
        pub bytes_out: u64,
        pub bytes_in: u64,
        pub refused: u64,
        pub lost: u64,
        pub errors: u64,
        pub reconnects: u64,
        pub last_error: Option<String>,
        pub address: String,
    }
}
mod stats;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::Uri;
use proto::{HubId, Letter, Now, RelayConfig};
use tokio::sync::{mpsc, oneshot, watch};

pub use bridge::{BridgeConfig, BridgeView};
pub use stats::{DialSource, DialView, LinkEnd, LinkStats, LinkView, MeshReading};

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

#[derive(Debug)]
pub struct LinkSocket {
    pub stream: std::net::TcpStream,
    pub leftover: bytes::Bytes,
    pub address: SocketAddr,
    pub hub: HubId,
    pub legacy: bool,
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
