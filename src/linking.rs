//! Connects the mesh and the shards. The crates `mesh` and `shard` do not depend on each other.

use std::sync::Arc;

use hyper::Uri;
use mesh::{BridgeConfig, LinkSocket, MeshConfig, MeshReading};
use proto::envelope::HubStatus;
use proto::limits::{LEAST_RESUME_TOKEN_BYTES, LINK_SOCKET_QUEUE, MAX_GO_AWAY_HUBS};
use proto::{Discovery, HubIncarnation, HubView, Keys, RelayConfig, RelayTuning, ResumeKeys};
use shard::{Admission, Clock, LinkDoor, LinkTokens};
use thread::Tracer;
use tls::ClientCertificate;
use tokio::sync::{mpsc, watch};

use crate::config::{Config, PortNames, Token};

/// A mesh that is configured but not started. The mesh can start only when the mailboxes of the shards exist.
pub struct Mesh {
    /// The configuration of the mesh.
    pub config: MeshConfig,
    /// Receives the sockets of other hubs that the shards have accepted.
    pub sockets: mpsc::Receiver<LinkSocket>,
    /// Receives the state that the mesh publishes.
    pub publish: watch::Sender<Arc<MeshReading>>,
}

/// The bound ports. A bound port differs from its setting if the setting is 0.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// The port of peers.
    pub peers: u16,
    /// The port of links, if it differs from `peers`.
    pub links: Option<u16>,
    /// The port of the operators' pages, if it differs from `peers`.
    pub admin: Option<u16>,
    /// The port that redirects to `peers`.
    pub redirect: Option<u16>,
}

/// The keys of resume secrets. The keys are derived from MESH_TOKEN if it is long enough to resist guessing. Without
/// such a token, the keys are random.
///
/// # Errors
///
/// If the system provides no random bytes.
pub fn resume_keys(config: &Config) -> Result<ResumeKeys, getrandom::Error> {
    let long = |token: &&Token| token.expose().len() >= LEAST_RESUME_TOKEN_BYTES;
    let mut random = [0; LEAST_RESUME_TOKEN_BYTES];
    getrandom::fill(&mut random)?;
    let key = config.mesh.token.as_ref().filter(long).map_or(&random[..], |token| token.expose().as_bytes());
    let also = config.mesh.also.as_ref().filter(long).map(|token| token.expose().as_bytes());
    Ok(ResumeKeys::new(&config.mesh_namespace, key, also))
}

impl Ports {
    /// Numbers of the ports with these names.
    pub fn of(self, names: PortNames) -> Arc<[u16]> {
        let named = [(names.peers, Some(self.peers)), (names.admin, self.admin), (names.links, self.links)];
        named.into_iter().filter_map(|(named, port)| port.filter(|_| named)).collect()
    }
}

type Turned = Arc<dyn Fn() + Send + Sync>;
type Status = watch::Receiver<Option<Arc<HubStatus>>>;

/// The connections between the mesh's thread and the other parts of the hub.
pub struct MeshHooks {
    /// The mesh calls this function once per tick.
    pub turned: Turned,
    /// Receives the state of the mesh.
    pub publish: watch::Sender<Arc<MeshReading>>,
    /// The figures that this hub sends to the other hubs.
    pub status: Status,
    /// Records spans. `None` if the hub sends no traces.
    pub tracer: Option<Tracer>,
    /// The certificate that the hub presents to other hubs.
    pub certificate: Option<ClientCertificate>,
}

/// Prepares the mesh of a hub, and the shards' configuration for links. Returns `None` for the mesh and for the
/// configuration if the hub is not part of a mesh. Also returns `None` for the mesh if the hub cannot link to other
/// hubs. If the hub accepts no links, the configuration refuses them. `challenge_key` is a random key for challenges.
/// `max_dials` is the maximum number of dials in progress.
pub fn prepare(
    config: &Config,
    clock: Clock,
    (keys, challenge_key): (Keys, [u8; 32]),
    ports: Ports,
    max_dials: usize,
    MeshHooks { turned, publish, status, tracer, certificate }: MeshHooks,
) -> (Option<Mesh>, Option<LinkDoor>) {
    if !config.is_hub {
        return (None, None);
    }
    let (sender, sockets) = mpsc::channel(LINK_SOCKET_QUEUE);
    let door = LinkDoor {
        admission: match &config.mesh.token {
            Some(token) => {
                let tokens = std::iter::once(token).chain(&config.mesh.also);
                let tokens = tokens.map(|token| token.expose().into()).collect();
                Admission::Tokens(LinkTokens::new(tokens, config.mesh.takes_bearer, challenge_key))
            }
            None if config.mesh.insecure => Admission::Open,
            None if config.mesh.certificates.authorities.is_some() => Admission::Certificates,
            None => Admission::Closed,
        },
        legacy: config.mesh.legacy.addresses.clone().into(),
        port: ports.links,
        take: Arc::new(move |socket| take(&sender, socket)),
    };
    let mesh = config.has_mesh().then(|| Mesh {
        config: mesh_config(config, clock, keys, ports, max_dials, (turned, status, tracer, certificate)),
        sockets,
        publish,
    });
    (mesh, Some(door))
}

fn mesh_config(
    config: &Config,
    clock: Clock,
    keys: Keys,
    ports: Ports,
    max_dials: usize,
    (turned, status, tracer, certificate): (Turned, Status, Option<Tracer>, Option<ClientCertificate>),
) -> MeshConfig {
    let settings = &config.mesh;
    let token: Option<Arc<str>> = settings.token.as_ref().map(|token| token.expose().into());
    let port = ports.links.unwrap_or(ports.peers);
    let bootstrap: Vec<Uri> = config
        .bootstrap_hubs
        .iter()
        .filter(|url| config.dials_are_trusted() || config.is_legacy(url))
        .cloned()
        .collect();
    MeshConfig {
        relay: RelayConfig {
            hub: config.hub_id,
            incarnation: HubIncarnation(clock.now().wall_ms),
            shards: config.shards,
            keys,
            namespace: config.mesh_namespace.clone(),
            discovery: config.discovery,
            advertise: settings.advertise.clone(),
            public_url: settings.public_url.clone(),
            presence_bytes: settings.budgets.presence,
            tuning: RelayTuning {
                max_ahead_bytes: settings.budgets.ahead,
                max_held_bytes: settings.budgets.held,
                ..RelayTuning::default()
            },
        },
        token: token.clone(),
        // The list `legacy` has all URLs of Go hubs, even URLs that this hub does not dial. A Go hub that another hub
        // advertises, or that BOOTSTRAP_HUBS spells differently, must not receive the token either.
        legacy: settings.legacy.urls.iter().map(ToString::to_string).collect(),
        sends_bearer: settings.takes_bearer,
        certificate,
        prefers_certificate: settings.prefers_certificate,
        is_open: settings.insecure,
        bootstrap,
        dns: settings.dns.as_ref().map(|dns| (dns.host.clone(), dns.port.unwrap_or(port))),
        dns_tls: settings.dns.as_ref().is_some_and(|dns| dns.tls),
        extra_roots: settings.ca.clone(),
        max_message_bytes: config.max_message_bytes,
        link_queues_bytes: settings.budgets.link_queues,
        link_partial_bytes: settings.budgets.link_partial,
        max_dials,
        redis: settings.redis_url.as_ref().map(|url| BridgeConfig {
            url: url.expose().to_owned(),
            // On the bridge, hubs with another DISCOVERY count as another mesh.
            namespace: match config.discovery {
                Discovery::All => config.mesh_namespace.clone(),
                bounded @ Discovery::Closest(_) => format!("{}:{bounded}", config.mesh_namespace),
            },
            hub: config.hub_id,
            token,
            also: settings.also.as_ref().map(|token| token.expose().into()),
            extra_roots: settings.ca.clone(),
        }),
        clock: Arc::new(move || clock.now()),
        status,
        tracer,
        turned,
    }
}

/// Sends a hub's socket to the mesh. Returns the socket if the mesh's queue is full or the mesh has ended.
fn take(sender: &mpsc::Sender<LinkSocket>, socket: shard::LinkHandOff) -> Result<(), shard::Socket> {
    let shard::LinkHandOff { socket, leftover, address, hub, legacy, auth } = socket;
    match sender.try_reserve() {
        Ok(place) => {
            let shard::Socket { stream, tls } = socket;
            place.send(LinkSocket { stream, tls, leftover, address, hub, legacy, auth });
            Ok(())
        }
        Err(_) => Err(socket),
    }
}

/// The other hubs that accept peers now.
pub fn staying_hubs(reading: &MeshReading) -> impl Iterator<Item = &HubView> {
    reading.hubs.iter().filter(|hub| hub.live && !hub.draining)
}

/// PUBLIC_URLs of the other hubs, for peers of a draining hub.
pub fn other_hubs(reading: &MeshReading) -> Arc<[String]> {
    let mut urls: Vec<String> =
        staying_hubs(reading).filter_map(|hub| hub.public_url.as_deref()).map(str::to_owned).collect();
    // Hubs behind one load balancer have the same URL, and each URL is sent once.
    urls.sort_unstable();
    urls.dedup();
    urls.truncate(MAX_GO_AWAY_HUBS);
    urls.into()
}

#[cfg(test)]
mod tests;
