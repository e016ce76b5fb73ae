//! `peerpigeon serve`: a hub, from its settings to its end.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use proto::keepalive::Patience;
use proto::{Keys, RouterConfig, ShardId};
use shard::{Clock, Gauges, HubConfig, Reading, SessionLimits};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::config::Config;
use crate::hub::{self, Hub, ShardFailed};
use crate::lifecycle::{Lifecycle, Stage};
use crate::pages::{self, HubFacts};
use crate::telemetry;

/// Runs a hub until it is told to stop.
pub fn run(config: Config) -> ExitCode {
    telemetry::log::init(&config.log);
    for warning in config.warnings(telemetry::process::raise_max_files()) {
        warn!("{warning}");
    }
    let listeners = match hub::bind(&config.listen, config.shards) {
        Ok(listeners) => listeners,
        Err((address, error)) => {
            // Whoever starts a hub by hand looks for a sentence, not for a line of the log.
            let _ = writeln!(
                std::io::stderr(),
                "peerpigeon: cannot listen on {address}: {error}; choose another PORT (--port) or HOST (--host), or \
                 stop what listens there"
            );
            return ExitCode::FAILURE;
        }
    };
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(serve(config, listeners)));
    match served {
        Ok(Ok(())) => {
            info!("server_stopped");
            ExitCode::SUCCESS
        }
        Ok(Err(ShardFailed(shard))) => {
            error!(shard = shard.0, "shard_failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            error!(%error, "server_failed");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config, listeners: Vec<Vec<std::net::TcpListener>>) -> std::io::Result<Result<(), ShardFailed>> {
    let addresses = listeners[0].iter().map(std::net::TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
    let config = Arc::new(config);
    let gauges = Arc::<Gauges>::default();
    let lifecycle = Lifecycle::new();
    let (publish, readings): (Vec<_>, Vec<_>) =
        listeners.iter().map(|_| watch::channel(Arc::new(Reading::default()))).unzip();
    let facts = HubFacts {
        started: Instant::now(),
        port: addresses[0].port(),
        gauges: Arc::clone(&gauges),
        readings,
        lifecycle: lifecycle.clone(),
    };
    let shards = HubConfig {
        router: RouterConfig {
            shard: ShardId(0),
            shards: config.shards,
            keys: Keys(getrandom::u64()?, getrandom::u64()?),
            hub: config.hub_id,
            heartbeat: Patience::new(config.peer_timeout).interval(),
            max_message_bytes: config.max_message_bytes,
            max_networks_per_peer: config.max_networks_per_peer,
            max_peers_per_network: config.max_peers_per_network,
            message_rate: config.message_rate,
            meshed: false,
            events: tracing::enabled!(target: "shard", tracing::Level::DEBUG),
        },
        limits: SessionLimits {
            max_message_bytes: config.max_message_bytes,
            send_queue_frames: config.send_queue_frames,
            send_queue_bytes: config.send_queue_bytes,
            send_budget_bytes: config.send_budget_bytes,
            peer_timeout: config.peer_timeout,
        },
        max_connections: config.max_connections,
        auth_token: config.auth_token.as_ref().map(|token| token.expose().into()),
        cors: pages::cors_headers(&config),
        pages: pages::pages(Arc::clone(&config), facts),
        gauges,
        clock: Clock::start(),
        echo: false,
    };
    // Before the hub can be seen, so that no signal finds nobody listening.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stops) = mpsc::channel(2);
    let hub = Hub::start(&shards, listeners, publish)?;
    lifecycle.advance(Stage::Ready);
    let listening = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    info!(
        listening,
        shards = config.shards,
        hub = %config.hub_id,
        version = env!("CARGO_PKG_VERSION"),
        "server_started"
    );
    let signals = async {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            // Two have their meaning; a third changes nothing.
            _ = stop.try_send(());
        }
    };
    tokio::select! {
        ended = hub.run(config.drain, stops, || lifecycle.advance(Stage::Draining)) => Ok(ended),
        () = signals => Ok(Ok(())),
    }
}
