//! The settings of the mesh.

use std::sync::Arc;

use hyper::Uri;
use proto::envelope::HubStatus;
use proto::{Now, RelayConfig};
use thread::Tracer;
use tokio::sync::watch;

use crate::bridge::BridgeConfig;

/// Configuration of the mesh.
#[derive(Clone)]
pub struct MeshConfig {
    /// Configuration of the relay.
    pub relay: RelayConfig,
    /// MESH_TOKEN. Dialed hubs other than Go hubs receive a proof that this hub knows MESH_TOKEN. `None` if MESH_TOKEN
    /// is unset.
    pub token: Option<Arc<str>>,
    /// Whether dialed hubs of version 2.0.0 receive the token itself (MESH_AUTH=both).
    pub sends_bearer: bool,
    /// MESH_CERT and MESH_KEY: the certificate that this hub presents at `wss://` URLs.
    pub certificate: Option<tls::ClientCertificate>,
    /// Whether this hub authenticates at `wss://` URLs with its certificate even if it has a token
    /// (MESH_AUTH=certificate).
    pub prefers_certificate: bool,
    /// Whether a hub with a certificate and no token may also dial URLs without TLS (MESH_INSECURE).
    pub is_open: bool,
    /// BOOTSTRAP_HUBS: `ws://` or `wss://` URLs that are dialed whenever their hub is not linked. Together with
    /// MESH_DNS and advertised URLs, at most [`MAX_DIALS`](proto::limits::MAX_DIALS) addresses are dialed. Further
    /// addresses are ignored.
    pub bootstrap: Vec<Uri>,
    /// MESH_DNS: a name and a port. The name is resolved once per [`DNS_INTERVAL`](proto::limits::DNS_INTERVAL), and
    /// each of its addresses is dialed.
    pub dns: Option<(String, u16)>,
    /// Whether the addresses of MESH_DNS are dialed with TLS. The certificate of the other hub must be for the name in
    /// MESH_DNS.
    pub dns_tls: bool,
    /// MESH_CA: additional root certificates (PEM).
    pub extra_roots: Option<Arc<[u8]>>,
    /// MESH_LEGACY: URLs of Go hubs. An address is dialed only if it is also in another list. Neither the token nor a
    /// proof of it is sent there.
    pub legacy: Vec<String>,
    /// Maximum length of a message of this hub's clients, in bytes (MAX_MESSAGE_BYTES). A message on a legacy link may
    /// be longer by [`LINK_FRAME_BYTES`](proto::limits::LINK_FRAME_BYTES) and
    /// [`ENVELOPE_ROOM`](proto::limits::ENVELOPE_ROOM). A longer message ends the link.
    pub max_message_bytes: usize,
    /// Maximum number of bytes queued for all links together:
    /// [`LINK_QUEUES_BYTES`](proto::limits::LINK_QUEUES_BYTES), or less if the process may use little memory.
    pub link_queues_bytes: usize,
    /// Maximum memory for incomplete and unprocessed messages of all links together:
    /// [`LINK_PARTIAL_BYTES`](proto::limits::LINK_PARTIAL_BYTES), or less if the process may use little memory.
    pub link_partial_bytes: usize,
    /// Maximum number of simultaneous dials: at most [`MAX_DIALS_AT_ONCE`](proto::limits::MAX_DIALS_AT_ONCE), fewer if
    /// the process may open few files. A dial can make several attempts at the same time. Each dial may always make one
    /// attempt. For all dials together, the maximum number of additional simultaneous attempts is a quarter of
    /// `max_dials`, and at least 1.
    pub max_dials: usize,
    /// Configuration of the bridge, if there is one.
    pub redis: Option<BridgeConfig>,
    /// The hub's clock, which its shards also use.
    pub clock: Arc<dyn Fn() -> Now + Send + Sync>,
    /// The status of this hub, which its heartbeats report to other hubs. `None` before the first status. The mesh
    /// reads the status once per [`TICK`](proto::limits::TICK).
    pub status: watch::Receiver<Option<Arc<HubStatus>>>,
    /// Records spans of signals and links. `None` if the hub does not trace.
    pub tracer: Option<Tracer>,
    /// The mesh calls this function on its thread once per [`TICK`](proto::limits::TICK). When the calls stop, a
    /// watchdog reports that the mesh hangs. The function must not block.
    pub turned: Arc<dyn Fn() + Send + Sync>,
}
