//! The JSON bodies of the pages. Fields are in alphabetical order, because the Go hub prints them in this order.

use std::collections::BTreeMap;

use proto::Flooder;
use serde::Serialize;
use shard::ShardReading;

use super::mesh::{BridgeBody, DialBody, HubBody, LinkBody};
use crate::telemetry::process;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Health {
    pub(super) connections: usize,
    pub(super) hubs: usize,
    pub(super) is_hub: bool,
    pub(super) memory: MemoryBody,
    pub(super) networks: usize,
    pub(super) peers: usize,
    pub(super) status: &'static str,
    pub(super) timestamp: String,
    pub(super) uptime: u64,
}

/// /health for everybody but operators, if there is an ADMIN_TOKEN.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HealthBrief {
    pub(super) is_hub: bool,
    /// The npm client's `server-status` fails without the field `memory`.
    pub(super) memory: MemoryBody,
    pub(super) status: &'static str,
    pub(super) timestamp: String,
}

/// The fields have the names of Node's `process.memoryUsage()`, because the npm client's `server-status` reads them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MemoryBody {
    pub(super) external: u64,
    pub(super) heap_total: u64,
    pub(super) heap_used: u64,
    pub(super) rss: u64,
}

impl MemoryBody {
    /// All numbers are zero: for visitors who are not operators, or if the memory is unknown.
    pub(super) fn hidden() -> Self {
        Self { external: 0, heap_total: 0, heap_used: 0, rss: 0 }
    }

    /// The heap is the allocated and resident memory. Address space that the allocator has reserved in addition does
    /// not count.
    pub(super) fn of(memory: process::Memory) -> Self {
        Self { external: 0, heap_total: memory.anonymous, heap_used: memory.anonymous, rss: memory.resident }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats<'a> {
    pub(super) bootstrap_hubs: BootstrapCount,
    pub(super) connections: usize,
    pub(super) host: &'a str,
    pub(super) hub_mesh_namespace: &'a str,
    pub(super) hub_peer_id: String,
    pub(super) hubs: usize,
    pub(super) is_hub: bool,
    pub(super) is_running: bool,
    pub(super) max_connections: usize,
    pub(super) networks: usize,
    pub(super) peers: usize,
    pub(super) port: u16,
    pub(super) uptime: u64,
}

#[derive(Serialize)]
pub(super) struct BootstrapCount {
    pub(super) connected: usize,
    pub(super) total: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hubs<'a> {
    pub(super) hubs: Vec<HubBody<'a>>,
    pub(super) timestamp: String,
    pub(super) total_hubs: usize,
}

/// Optional fields are new in PeerPigeon 2. A hub without a mesh omits the optional fields, so that it answers like the
/// Go hub.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HubStats<'a> {
    pub(super) bootstrap_hubs: Vec<DialBody<'a>>,
    pub(super) connected_hubs: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) found_hubs: Option<Vec<DialBody<'a>>>,
    pub(super) hubs: Vec<HubBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) links: Option<Vec<LinkBody<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lost_hubs: Option<Vec<HubBody<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) redis: Option<Option<BridgeBody<'a>>>,
    pub(super) total_hubs: usize,
}

/// The body of /metrics with the fields of the Go hub, whose names are in snake case.
#[derive(Serialize)]
pub(super) struct Metrics<'a> {
    pub(super) connections: ConnectionCount,
    pub(super) hubs: HubCount,
    pub(super) networks: usize,
    pub(super) peers: PeerCount<'a>,
    pub(super) server: Server<'a>,
    pub(super) timestamp: String,
    pub(super) uptime_ms: u64,
}

#[derive(Serialize)]
pub(super) struct ConnectionCount {
    pub(super) active: usize,
    pub(super) max: usize,
}

#[derive(Serialize)]
pub(super) struct HubCount {
    pub(super) bootstrap_connected: usize,
    pub(super) discovered: usize,
}

#[derive(Serialize)]
pub(super) struct PeerCount<'a> {
    /// The peer with the most refused messages, among the peers that still send. Only operators see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flooder: Option<FlooderBody>,
    pub(super) networks: BTreeMap<&'a str, usize>,
    pub(super) total: usize,
}

/// A peer that floods the hub.
#[derive(Serialize)]
pub(super) struct FlooderBody {
    pub(super) peer: String,
    /// Number of the peer's messages that were refused since the peer last paused.
    pub(super) refused: u32,
}

impl FlooderBody {
    /// The worst flooder of all shards.
    pub(super) fn worst<'a>(readings: impl Iterator<Item = &'a ShardReading>) -> Option<Self> {
        let flooders = readings.filter_map(|reading| reading.router.flooder);
        let Flooder { peer, refused, .. } = flooders.max_by_key(|flooder| flooder.refused)?;
        Some(Self { peer: peer.to_string(), refused })
    }
}

#[derive(Serialize)]
pub(super) struct Server<'a> {
    pub(super) app_name: &'a str,
    pub(super) is_hub: bool,
    pub(super) namespace: &'a str,
    pub(super) region: &'a str,
}

/// The path of the WebSocket, for clients that request `/`.
const WEBSOCKET: &str = "/ws?peerId=<40 hexadecimal digits>";

#[derive(Serialize)]
pub(super) struct Index {
    name: &'static str,
    paths: Vec<&'static str>,
    version: &'static str,
    websocket: &'static str,
}

impl Index {
    pub(super) fn new(paths: Vec<&'static str>) -> Self {
        Self { name: "peerpigeon", paths, version: env!("CARGO_PKG_VERSION"), websocket: WEBSOCKET }
    }
}

#[derive(Serialize)]
pub(super) struct Lost {
    error: &'static str,
    paths: Vec<&'static str>,
    websocket: &'static str,
}

impl Lost {
    pub(super) fn new(error: &'static str, paths: Vec<&'static str>) -> Self {
        Self { error, paths, websocket: WEBSOCKET }
    }
}
