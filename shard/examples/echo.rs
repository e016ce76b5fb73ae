//! An echo server made of a shard's sessions, for conformance tests of the WebSocket implementation.
//!
//! `echo --port 0` prints its address and runs until it is stopped.
#![allow(clippy::print_stdout, reason = "the test that starts it reads the port from there")]

use std::sync::Arc;
use std::time::Duration;

use proto::{HubId, Keys, PeerId, ResumeKeys, RouterConfig, RouterTuning, ShardId, limits};
use shard::{Answer, Clock, DoorConfig, FileShares, Gauges, HubConfig, SessionLimits, ShardReading};

fn main() -> std::io::Result<()> {
    let port =
        std::env::args().skip_while(|arg| arg != "--port").nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
    let listeners = shard::bind(([127, 0, 0, 1], port).into(), 1)?;
    println!("listening on {}", listeners[0].local_addr()?);
    let peer_timeout = Duration::from_secs(300);
    let max_message_bytes = 64 * 1024 * 1024;
    let config = HubConfig {
        router: RouterConfig {
            discovery: proto::Discovery::All,
            shard: ShardId(0),
            shards: 1,
            keys: Keys(1, 2),
            resume_keys: ResumeKeys::new("mesh", b"key", None),
            hub: HubId(PeerId::from_bytes([0; 20])),
            heartbeat: peer_timeout,
            max_message_bytes,
            max_networks_per_peer: 1,
            max_peers_per_network: 1,
            announce_budget_bytes: usize::MAX,
            message_rate: limits::DEFAULT_MESSAGE_RATE,
            message_rate_bytes: limits::DEFAULT_MESSAGE_RATE_BYTES,
            meshed: false,
            events: false,
            tuning: RouterTuning::default(),
        },
        limits: SessionLimits {
            max_message_bytes,
            send_queue_frames: limits::DEFAULT_SEND_QUEUE_FRAMES,
            send_queue_bytes: 4 * max_message_bytes,
            send_budget_bytes: limits::DEFAULT_SEND_BUDGET_BYTES,
            peer_timeout,
        },
        max_connections: limits::DEFAULT_MAX_CONNECTIONS,
        files: FileShares::UNLIMITED,
        auth_token: None,
        links: None,
        admin_port: None,
        tls: None,
        door: DoorConfig::default(),
        pages: Arc::new(|_, _| Answer::Now(hyper::Response::default())),
        networks: Arc::default(),
        gauges: Arc::<Gauges>::default(),
        clock: Clock::start(),
        turned: Arc::new(|_| {}),
        echo: true,
    };
    let (publish, _readings) = tokio::sync::watch::channel(Arc::new(ShardReading::default()));
    let (ended, mut end) = tokio::sync::mpsc::channel(1);
    let _shards = shard::start(&config, vec![listeners], vec![publish], None, &ended)?;
    end.blocking_recv();
    Ok(())
}
