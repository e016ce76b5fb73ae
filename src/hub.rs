//! Binds the ports of a hub, starts and supervises its shards and its mesh, and drains the hub when it stops.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mesh::{MeshHandle, MeshReading};
use proto::limits::{ACT_TIMEOUT, CLOSE_LINGER, LOG_FLUSH_TIMEOUT, MAILBOX_BATCHES, TICK, TRACE_FLUSH_TIMEOUT};
use proto::{Acted, Keys, Order, ShardId};
use shard::{ShardHandle, ShardReading, Shards};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::admin::{self, Act, Outcome, Request, Requests};
use crate::lifecycle::{Lifecycle, Stage};
use crate::linking::{self, Mesh};

/// Time after the first stop signal (such as SIGTERM) in which further stop signals are ignored as repetitions.
const STOP_ECHO: Duration = Duration::from_millis(500);

/// A running hub. Dropping this value ends the hub.
#[derive(Debug)]
pub struct Hub {
    shards: Vec<ShardHandle>,
    mesh: Option<MeshHandle>,
    reading: watch::Receiver<Arc<MeshReading>>,
    ends: Ends,
    /// Keys of the hash that assigns peers to shards.
    keys: Keys,
}

/// A part of the hub that ended unexpectedly. Without this part, the hub's presence would be wrong, so the whole hub
/// ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failed {
    /// The mesh.
    Mesh,
    /// A shard.
    Shard(ShardId),
}

/// Receives a message when a part of the hub ends.
#[derive(Debug)]
struct Ends {
    shards: mpsc::Receiver<ShardId>,
    mesh: mpsc::Receiver<()>,
    /// Keeps the channel of a hub without a mesh open.
    _mesh: mpsc::Sender<()>,
}

impl Ends {
    async fn next(&mut self) -> Failed {
        tokio::select! {
            Some(shard) = self.shards.recv() => Failed::Shard(shard),
            Some(()) = self.mesh.recv() => Failed::Mesh,
            else => std::future::pending().await,
        }
    }
}

/// Binds each address once per shard, and groups the listeners by shard.
///
/// With port 0, the first address gets a free port, and all other addresses use the same port.
///
/// # Errors
///
/// The first address that cannot be bound, and the reason.
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
    /// Starts the shards on bound listeners, and then the mesh, which needs their mailboxes. `reading` receives the
    /// state that the mesh publishes.
    ///
    /// # Errors
    ///
    /// If a thread cannot be started, or the mesh's configuration is invalid.
    pub fn start(
        config: &shard::HubConfig,
        listeners: Vec<Vec<TcpListener>>,
        publish: Vec<watch::Sender<Arc<ShardReading>>>,
        mesh: Option<Mesh>,
        reading: watch::Receiver<Arc<MeshReading>>,
    ) -> io::Result<Self> {
        let keys = config.router.keys;
        let (end, shard_ends) = mpsc::channel(listeners.len());
        let (mesh_end, mesh_ends) = mpsc::channel(1);
        let (mesh, mailbox) = mesh.map(|mesh| (mesh, mpsc::channel(MAILBOX_BATCHES))).unzip();
        let (post, mailbox) = mailbox.unzip();
        let Shards { handles: shards, mailboxes } = shard::start(config, listeners, publish, post, &end)?;
        let mesh = match mesh.zip(mailbox) {
            Some((Mesh { config, sockets, publish }, mailbox)) => {
                let mesh_end = mesh_end.clone();
                let ended = move || _ = mesh_end.try_send(());
                Some(mesh::start(config, mailboxes, mailbox, sockets, publish, ended)?)
            }
            None => None,
        };
        Ok(Self { shards, mesh, reading, ends: Ends { shards: shard_ends, mesh: mesh_ends, _mesh: mesh_end }, keys })
    }

    /// Runs the hub until `stops` receives a stop signal. Before the stop signal, the hub executes operators' orders,
    /// one at a time. After the stop signal, the hub closes the sessions, spread evenly over `drain`. A second stop
    /// signal ends the hub at once, if it comes more than `STOP_ECHO` after the first stop signal.
    ///
    /// # Errors
    ///
    /// If a shard or the mesh ends unexpectedly.
    pub async fn run(
        mut self,
        drain: Duration,
        mut stops: mpsc::Receiver<()>,
        mut orders: Requests,
        lifecycle: &Lifecycle,
    ) -> Result<(), Failed> {
        let mut acting = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                failed = self.ends.next() => return Err(failed),
                _ = stops.recv() => break,
                Some(_) = acting.join_next() => {}
                Some(request) = orders.recv(), if acting.is_empty() => {
                    acting.spawn(self.act(request, drain, lifecycle));
                }
            }
        }
        // The senders of orders that have not begun receive an error.
        drop(orders);
        lifecycle.advance(Stage::Stopping);
        info!(drain_secs = drain.as_secs(), "server_draining");
        let drained = self.drain(drain, true);
        let all_drained = async {
            for shard in drained {
                shard.await;
            }
        };
        tokio::select! {
            biased;
            failed = self.ends.next() => return Err(failed),
            () = meant(&mut stops) => warn!("server_stopped_at_once"),
            () = all_drained => info!("server_drained"),
            // The last session is closed at the end of `drain`, and its socket then stays open for up to
            // [`CLOSE_LINGER`]. Each timer fires up to one tick late.
            () = tokio::time::sleep(drain + CLOSE_LINGER + 3 * TICK) => warn!("server_drain_timed_out"),
        }
        // After a complete drain, the leaves of this hub's peers are already in the mesh's mailbox, so other hubs
        // receive them before the farewell.
        if let Some(mesh) = self.mesh {
            let thread = mesh.end();
            if !have_ended(std::slice::from_ref(&thread)).await {
                warn!("mesh_end_timed_out");
            }
            if has_panicked(thread, self.ends.mesh.try_recv().is_ok()) {
                return Err(Failed::Mesh);
            }
        }
        let threads: Vec<_> = self.shards.into_iter().map(ShardHandle::stop).collect();
        if !have_ended(&threads).await {
            warn!("shard_end_timed_out");
        }
        let reported: Vec<ShardId> = std::iter::from_fn(|| self.ends.shards.try_recv().ok()).collect();
        let mut failed = None;
        for (shard, thread) in (0..).map(ShardId).zip(threads) {
            if has_panicked(thread, reported.contains(&shard)) {
                failed = Some(Failed::Shard(shard));
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Hub {
    /// Closes all sessions, spread evenly over the time `spread`.
    fn drain(&self, spread: Duration, stops: bool) -> Vec<impl Future<Output = ()> + use<>> {
        let reading = self.reading.borrow();
        let (hubs, is_alone) = (linking::other_hubs(&reading), linking::staying_hubs(&reading).next().is_none());
        drop(reading);
        if let Some(mesh) = &self.mesh {
            mesh.draining(true);
        }
        let plan = shard::Drain { spread, hubs, is_alone, stops };
        self.shards.iter().map(|shard| shard.drain(plan.clone())).collect()
    }

    /// Starts to execute an operator's order. The future completes when the order is executed and answered.
    fn act(
        &self,
        request: Request,
        drain: Duration,
        lifecycle: &Lifecycle,
    ) -> impl Future<Output = ()> + Send + 'static {
        let Request { act, answer } = request;
        let begun: Begun = match act {
            Act::Order(kick @ Order::Kick { peer, .. }) => {
                let home = ShardId::home(&peer, self.shards.len() as u16, self.keys);
                let (acted, reading) = (self.shards[usize::from(home.0)].order(kick), self.reading.clone());
                Box::pin(async move {
                    match acted.await {
                        Ok(Acted::Kicked { from, excluded }) => admin::kicked(from, excluded, &reading.borrow()),
                        Ok(Acted::Closed { .. }) | Err(_) => Outcome::Unknown,
                    }
                })
            }
            Act::Order(close @ Order::CloseNetwork { .. }) => {
                let all: Vec<_> = self.shards.iter().map(|shard| shard.order(close.clone())).collect();
                Box::pin(async move {
                    let (mut members, mut kept_out) = (0, true);
                    for acted in all {
                        let Ok(Acted::Closed { members: here, excluded }) = acted.await else {
                            return Outcome::Unknown;
                        };
                        members += here;
                        kept_out &= excluded;
                    }
                    Outcome::NetworkClosed { members, kept_out }
                })
            }
            Act::Drain { over } => {
                let over = over.unwrap_or(drain);
                lifecycle.advance(Stage::Draining);
                _ = self.drain(over, false);
                Box::pin(std::future::ready(Outcome::Draining { over }))
            }
            Act::Undrain => {
                let was_draining = lifecycle.end_drain();
                if was_draining {
                    self.shards.iter().for_each(ShardHandle::undrain);
                    if let Some(mesh) = &self.mesh {
                        mesh.draining(false);
                    }
                }
                Box::pin(std::future::ready(if was_draining { Outcome::Undrained } else { Outcome::NotDraining }))
            }
        };
        async move {
            let outcome = tokio::time::timeout(ACT_TIMEOUT, begun).await.unwrap_or(Outcome::Unknown);
            // If the operator's request has ended, nobody receives the outcome.
            _ = answer.send(outcome);
        }
    }
}

// docs/runbook.md says that a hub ends within DRAIN_SECS + 8 s, also if threads, the collector of traces and stderr
// hang. The hub waits for the last sessions, the mesh, the shards, the collector and stderr, one after another.
const _: () = assert!(
    (CLOSE_LINGER.as_millis() + 3 * TICK.as_millis())
        + 2 * CLOSE_LINGER.as_millis()
        + TRACE_FLUSH_TIMEOUT.as_millis()
        + LOG_FLUSH_TIMEOUT.as_millis()
        < 8_000
);

/// An operator's order that is being executed.
type Begun = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Waits until all these threads have ended, for [`CLOSE_LINGER`] at most. Returns whether they have ended.
async fn have_ended(threads: &[JoinHandle<()>]) -> bool {
    let ended = async {
        while threads.iter().any(|thread| !thread.is_finished()) {
            tokio::time::sleep(TICK / 10).await;
        }
    };
    tokio::time::timeout(CLOSE_LINGER, ended).await.is_ok()
}

/// Whether a shard or the mesh has panicked. After a panic in a turn, the shard or mesh has reported its end, but its
/// thread sleeps forever. A sleeping or stuck thread is not joined, because it ends with the process.
fn has_panicked(thread: JoinHandle<()>, has_reported: bool) -> bool {
    if thread.is_finished() { thread.join().is_err() } else { has_reported }
}

/// Waits for a second, intended stop signal. Stop signals right after the first stop signal are ignored, because
/// timeout(1) and some supervisors send one SIGTERM to the process and another SIGTERM to its process group.
async fn meant(stops: &mut mpsc::Receiver<()>) {
    let echo = tokio::time::sleep(STOP_ECHO);
    tokio::pin!(echo);
    loop {
        tokio::select! {
            biased;
            () = &mut echo => break,
            Some(()) = stops.recv() => {}
        }
    }
    if stops.recv().await.is_none() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_any_part_is_reported() {
        let (shard, shards) = mpsc::channel(1);
        let (mesh, mesh_ends) = mpsc::channel(1);
        let mut ends = Ends { shards, mesh: mesh_ends, _mesh: mesh.clone() };
        mesh.try_send(()).unwrap();
        assert_eq!(ends.next().await, Failed::Mesh);
        shard.try_send(ShardId(3)).unwrap();
        assert_eq!(ends.next().await, Failed::Shard(ShardId(3)));
    }
}
