//! A hub from its first bind to its last byte: wiring, supervision, drain.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use proto::ShardId;
use proto::limits::{CLOSE_LINGER, TICK};
use shard::{Reading, ShardHandle};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

/// A hub that is running. It ends when it is dropped.
#[derive(Debug)]
pub struct Hub {
    shards: Vec<ShardHandle>,
    ended: mpsc::Receiver<ShardId>,
}

/// A shard ended that was not told to: what its peers are told can no longer be right.
#[derive(Debug)]
pub struct ShardFailed(pub ShardId);

/// Binds each address once for every shard: the listeners of one shard stand together.
///
/// With port 0 the first address draws a port, and the others take the same.
///
/// # Errors
///
/// The first address that cannot be bound, with why.
pub fn bind(addresses: &[SocketAddr], shards: u16) -> Result<Vec<Vec<TcpListener>>, (SocketAddr, io::Error)> {
    let mut port = None;
    let mut listeners: Vec<Vec<TcpListener>> = (0..shards).map(|_| Vec::new()).collect();
    for &(mut address) in addresses {
        address.set_port(port.unwrap_or(address.port()));
        let bound = shard::bind(address, shards).map_err(|error| (address, error))?;
        for (listeners, listener) in listeners.iter_mut().zip(bound) {
            port = Some(listener.local_addr().map_err(|error| (address, error))?.port());
            listeners.push(listener);
        }
    }
    Ok(listeners)
}

impl Hub {
    /// Starts the shards behind listeners that are bound.
    ///
    /// # Errors
    ///
    /// When a thread cannot be made.
    pub fn start(
        config: &shard::HubConfig,
        listeners: Vec<Vec<TcpListener>>,
        publish: Vec<watch::Sender<Arc<Reading>>>,
    ) -> io::Result<Self> {
        let (end, ended) = mpsc::channel(listeners.len());
        let shards = shard::start(config, listeners, publish, &end)?;
        Ok(Self { shards, ended })
    }

    /// Runs until `stops` says so; then `on_drain` is called and the sessions leave, spread over `drain`.
    /// A second stop ends the hub at once.
    ///
    /// # Errors
    ///
    /// When a shard ends on its own.
    pub async fn run(
        mut self,
        drain: Duration,
        mut stops: mpsc::Receiver<()>,
        on_drain: impl FnOnce(),
    ) -> Result<(), ShardFailed> {
        tokio::select! {
            biased;
            Some(shard) = self.ended.recv() => return Err(ShardFailed(shard)),
            _ = stops.recv() => {}
        }
        on_drain();
        info!(drain_secs = drain.as_secs(), "server_draining");
        // The last to go still has its linger within the time that was given.
        let spread = drain.saturating_sub(CLOSE_LINGER + 2 * TICK);
        let hubs: Arc<[String]> = Arc::default();
        let drained: Vec<_> = self.shards.iter().map(|shard| shard.drain(spread, Arc::clone(&hubs))).collect();
        let all_drained = async {
            for shard in drained {
                _ = shard.await;
            }
        };
        tokio::select! {
            biased;
            Some(shard) = self.ended.recv() => return Err(ShardFailed(shard)),
            _ = stops.recv() => warn!("server_stopped_at_once"),
            () = all_drained => info!("server_drained"),
            () = tokio::time::sleep(drain + CLOSE_LINGER) => warn!("server_drain_timed_out"),
        }
        for shard in self.shards {
            if shard.stop().is_err() {
                error!("shard_panicked");
            }
        }
        Ok(())
    }
}
