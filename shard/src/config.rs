//! The configuration of a hub's shards.

use std::sync::Arc;
use std::time::Duration;

use hyper::Response;
use proto::limits::{
    DEFAULT_MAX_CONNECTIONS, DEFAULT_RECEIVE_BUDGET_BYTES, DEFAULT_SEND_BUDGET_BYTES, DEFAULT_SEND_QUEUE_BYTES,
    DEFAULT_SEND_QUEUE_FRAMES, SEND_FLOOR_BYTES,
};
use proto::{RouterConfig, ShardId};
use thread::Tracer;

use crate::clock::Clock;
use crate::core::SessionLimits;
use crate::crowd::AddressLimits;
use crate::http::IdProofs;
use crate::links::LinkDoor;
use crate::networks::NetworkList;
use crate::origins::Origins;
use crate::proxies::Proxies;
use crate::tokens::Tokens;
use crate::{Answer, Gauges, Pages};

/// Configuration that all shards of a hub share.
#[derive(Clone)]
pub struct HubConfig {
    /// Configuration of the routers. [`start`](crate::start) sets `shard`, `shards` and `meshed` for each shard.
    /// `announce_budget_bytes` and `network_budget` are for the whole hub. [`start`](crate::start) divides them by the
    /// number of shards.
    pub router: RouterConfig,
    /// Limits of sessions. `send_budget_bytes` and `receive_budget_bytes` are for the whole hub.
    /// [`start`](crate::start) divides them by the number of shards.
    pub limits: SessionLimits,
    /// Maximum number of WebSockets of peers, on all shards together (MAX_CONNECTIONS). A full hub accepts a further
    /// WebSocket and closes it immediately with `max connections`. If too many connections arrive at a full hub, it
    /// refuses them without reading their requests.
    pub max_connections: usize,
    /// Maximum numbers of sockets of the listeners.
    pub files: FileShares,
    /// AUTH_TOKEN. With `None`, peers need no AUTH_TOKEN.
    pub auth_token: Option<Arc<str>>,
    /// Checks the signed tokens of peers. With `None`, the hub accepts no signed tokens. If `tokens` and AUTH_TOKEN are
    /// both set, a peer needs only one of the two.
    pub tokens: Option<Arc<Tokens>>,
    /// PEER_ID_PROOF. With `None`, the hub ignores the keys that clients send for their ids.
    pub id_proofs: Option<IdProofs>,
    /// Admission of links. With `None`, the hub is not part of a mesh, and links get 403.
    pub links: Option<LinkDoor>,
    /// ADMIN_PORT. The port serves pages and no WebSockets. If ADMIN_PORT is set, PORT serves only the public pages.
    pub admin_port: Option<u16>,
    /// HTTP_REDIRECT_PORT. The port redirects clients to the port with TLS, and serves nothing else.
    pub redirect: Option<RedirectDoor>,
    /// The listeners that speak TLS. With `None`, no listener speaks TLS.
    pub tls: Option<TlsDoor>,
    /// Admission of connections.
    pub door: DoorConfig,
    /// Answers HTTP requests other than WebSocket upgrades. This function is called on the shards' threads and must not
    /// block.
    pub pages: Pages,
    /// The largest networks, for the pages.
    pub networks: Arc<NetworkList>,
    /// Counters that all shards share.
    pub gauges: Arc<Gauges>,
    /// The hub's clock.
    pub clock: Clock,
    /// Each shard calls this function on its thread once per [`TICK`](proto::limits::TICK). If a shard no longer calls
    /// the function, a watchdog reports that the shard hangs. The function must not block.
    pub turned: Arc<dyn Fn(ShardId) + Send + Sync>,
    /// Records spans of joins. With `None`, the hub records no traces.
    pub tracer: Option<Tracer>,
    /// Whether sessions echo messages instead of routing them, for conformance tests of the WebSocket implementation.
    #[doc(hidden)]
    pub echo: bool,
}

impl HubConfig {
    /// Makes the configuration of a hub with one shard, without a mesh, pages and limits of addresses, and with the
    /// default limits of sessions. `router` identifies the hub, as [`RouterConfig::single`] makes it.
    pub fn single(router: RouterConfig) -> Self {
        let limits = SessionLimits {
            max_message_bytes: router.max_message_bytes,
            send_queue_frames: DEFAULT_SEND_QUEUE_FRAMES,
            send_queue_bytes: DEFAULT_SEND_QUEUE_BYTES,
            send_budget_bytes: DEFAULT_SEND_BUDGET_BYTES,
            send_floor_bytes: SEND_FLOOR_BYTES,
            receive_budget_bytes: DEFAULT_RECEIVE_BUDGET_BYTES,
            peer_timeout: Duration::from_secs(300),
        };
        Self {
            router,
            limits,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            files: FileShares::UNLIMITED,
            auth_token: None,
            tokens: None,
            id_proofs: None,
            links: None,
            admin_port: None,
            redirect: None,
            tls: None,
            door: DoorConfig::default(),
            pages: Arc::new(|_, _| Answer::Now(Response::default())),
            networks: Arc::default(),
            gauges: Arc::default(),
            clock: Clock::start(),
            turned: Arc::new(|_| {}),
            tracer: None,
            echo: false,
        }
    }
}

impl HubConfig {
    /// The configuration of one of `shards` shards, with its share of each budget of the hub.
    pub(crate) fn of_shard(&self, shard: ShardId, shards: u16, meshed: bool) -> Self {
        let mut config = self.clone();
        let router = &mut config.router;
        (router.shard, router.shards, router.meshed) = (shard, shards, meshed);
        router.announce_budget_bytes /= usize::from(shards);
        router.network_budget = router.network_budget.share(shards);
        config.limits.send_budget_bytes /= usize::from(shards);
        config.limits.receive_budget_bytes /= usize::from(shards);
        config
    }
}

/// Admission of connections, apart from tokens. The default admits everybody and trusts no proxy.
#[derive(Clone, Default)]
pub struct DoorConfig {
    /// Proxies that are trusted to name the addresses of their clients.
    pub proxies: Arc<Proxies>,
    /// Web origins whose pages may open WebSockets (ALLOWED_ORIGINS).
    pub origins: Arc<Origins>,
    /// Web origins whose pages may read the HTTP answers that refuse a request (CORS). The hub's own pages have other
    /// CORS headers.
    pub cors: Arc<Origins>,
    /// Limits of each client address.
    pub addresses: AddressLimits,
    /// CONNECT_RATE, the number of connections per second that each shard admits. 0 means no limit.
    pub connect_rate: u32,
}

/// The listener that redirects clients to the listener with TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RedirectDoor {
    /// The port of this listener.
    pub port: u16,
    /// The HTTPS port that clients use.
    pub https_port: u16,
}

/// The listeners that speak TLS.
#[derive(Clone, Debug)]
pub struct TlsDoor {
    /// Creates the TLS connections of these listeners.
    pub acceptor: tls::Acceptor,
    /// The ports of these listeners.
    pub ports: Arc<[u16]>,
}

/// Maximum numbers of sockets of each kind of listener, on all shards together. To make room for a new connection, a
/// listener at its maximum closes its oldest connection that is not a WebSocket. A listener whose connections are all
/// WebSockets asks another listener of its kind to close a connection. If all listeners have only WebSockets, the
/// listener accepts one connection and then waits until a socket closes. Further connections wait in the kernel's
/// queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileShares {
    /// Maximum number of sockets at PORT and HTTP_REDIRECT_PORT, for peers and HTTP.
    pub peers: usize,
    /// Maximum number of sockets at MESH_PORT, for requests of other hubs that are not links yet.
    pub links: usize,
    /// Maximum number of sockets at ADMIN_PORT.
    pub admin: usize,
}

impl FileShares {
    /// No limit.
    pub const UNLIMITED: Self = Self { peers: usize::MAX, links: usize::MAX, admin: usize::MAX };
}

#[cfg(test)]
mod tests {
    use proto::{HubId, Keys, PeerId, ResumeKeys};

    use super::*;

    #[test]
    fn the_shares_of_all_shards_add_up_to_the_budgets_of_the_hub() {
        let hub = HubId(PeerId::from_bytes([0; 20]));
        let router = RouterConfig::single(hub, Keys(1, 2), ResumeKeys::new("mesh", b"key", None));
        let config = HubConfig::single(RouterConfig { announce_budget_bytes: 1000, ..router });
        let limits = SessionLimits { send_budget_bytes: 5000, ..config.limits };
        let config = HubConfig { limits, ..config };
        for shards in [1, 2, 4] {
            let each = (0..shards).map(|shard| config.of_shard(ShardId(shard), shards, false));
            let (announce, send) = each.fold((0, 0), |(announce, send), shard| {
                (announce + shard.router.announce_budget_bytes, send + shard.limits.send_budget_bytes)
            });
            assert_eq!((announce, send), (1000, 5000), "{shards} shards");
        }
    }
}
